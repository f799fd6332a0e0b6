//! Gemini requests, also in the envelope `{model, project, request}`.

use super::super::normalise::camel;
use crate::vectors::rules::Rules;
use crate::vectors::value::{elements, has, is_one_of, is_set, list, same_values, text};
use serde_json::{Map, Value};

const SHAPE: &str = "gemini.shape";

/// Members of the request object, in lowerCamelCase.
const KNOWN: [&str; 12] = [
    "contents",
    "systemInstruction",
    "tools",
    "toolConfig",
    "generationConfig",
    "safetySettings",
    "cachedContent",
    "model",
    "labels",
    "sessionId",
    "store",
    "serviceTier",
];

/// Members of a part that are its payload.
const PAYLOAD: [&str; 7] = [
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
];

/// Members of a function declaration, in lowerCamelCase.
const DECLARATION: [&str; 7] = [
    "name",
    "description",
    "parameters",
    "parametersJsonSchema",
    "response",
    "responseJsonSchema",
    "behavior",
];

/// Members of the Schema message.
const SCHEMA: [&str; 25] = [
    "type",
    "format",
    "title",
    "description",
    "nullable",
    "enum",
    "maxItems",
    "minItems",
    "properties",
    "required",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "example",
    "anyOf",
    "propertyOrdering",
    "default",
    "items",
    "minimum",
    "maximum",
    "additionalProperties",
    "defs",
    "ref",
];

/// Checks an envelope and the request in it.
pub(super) fn check_envelope(format: &str, body: &Value, rules: &mut Rules) {
    let envelope = format!("{format}.envelope");
    let request = &body["request"];
    if !request.is_object() {
        return rules.add(&envelope, "request object missing");
    }
    for key in ["model", "project"] {
        rules.need(has(body, key), &envelope, format_args!("{key} missing"));
    }
    let inside = format == "antigravity" && has(request, "model");
    rules.need(!inside, &envelope, "model inside request");
    check(request, rules);
}

/// Checks a bare request.
pub(super) fn check(body: &Value, rules: &mut Rules) {
    if elements(&body["contents"]).is_empty() {
        return rules.add("gemini.contents", "at least one content");
    }
    let contents = rules.objects(body, "contents", SHAPE);
    let first =
        contents.first().is_some_and(|content| !is_set(&content["role"]) || content["role"] == "user");
    rules.need(first, "gemini.first_user", "first content is not user");
    let mut open = Vec::new();
    for (n, content) in contents.into_iter().enumerate() {
        let role = &content["role"];
        let known = role.is_null() || is_one_of(role, &["user", "model", "function"]);
        rules.need(known, "gemini.role", role);
        if elements(&content["parts"]).is_empty() {
            rules.add("gemini.parts", format_args!("contents[{n}] has no parts"));
            continue;
        }
        let (calls, answers) = check_parts(content, rules);
        let (open_refs, answer_refs): (Vec<&Value>, Vec<&Value>) =
            (open.iter().collect(), answers.iter().collect());
        let (answered, asked) = (list(&answer_refs), list(&open_refs));
        let seen = format_args!("contents[{n}] answers {answered}, open calls {asked}");
        rules.need(same_values(&answer_refs, &open_refs), "gemini.fc_pairing", seen);
        open = calls;
    }
    check_config(body, rules);
    for tool in rules.objects(body, "tools", SHAPE) {
        check_tool(tool, rules);
    }
    for key in body.as_object().into_iter().flatten().map(|(key, _)| key) {
        rules.need(KNOWN.contains(&camel(key).as_str()), "gemini.unknown_field", key);
    }
}

/// Checks the parts of a content; returns the names of its calls and of its responses.
fn check_parts(content: &Value, rules: &mut Rules) -> (Vec<Value>, Vec<Value>) {
    let (mut calls, mut answers) = (Vec::new(), Vec::new());
    for part in rules.objects(content, "parts", SHAPE) {
        let part = spelled(part);
        if has(&part, "functionCall") {
            let call = rules.object(&part, "functionCall", SHAPE);
            rules.need(is_gemini_name(&call["name"]), "gemini.tool_name", &call["name"]);
            let object = !has(call, "args") || call["args"].is_object();
            rules.need(object, "gemini.fc_shape", "args is not an object");
            calls.push(call["name"].clone());
        }
        if has(&part, "functionResponse") {
            let answer = rules.object(&part, "functionResponse", SHAPE);
            let object = answer["response"].is_object();
            rules.need(object, "gemini.fr_shape", "functionResponse.response is not an object");
            answers.push(answer["name"].clone());
        }
        let kinds: Vec<&str> = PAYLOAD.into_iter().filter(|key| has(&part, key)).collect();
        rules.need(kinds.len() == 1, "gemini.part_kind", format_args!("part {part} has {kinds:?}"));
        if has(&part, "inlineData") {
            let data = spelled(rules.object(&part, "inlineData", SHAPE));
            let bytes = text(&data["data"]);
            let raw = !bytes.is_empty() && !bytes.starts_with("http") && !bytes.starts_with("data:");
            let whole = raw && is_set(&data["mimeType"]);
            rules.need(whole, "gemini.inline_data", "mimeType or raw base64 data missing");
        }
    }
    (calls, answers)
}

fn check_config(body: &Value, rules: &mut Rules) {
    let config = rules.object(body, "generationConfig", SHAPE);
    let thinking = rules.object(config, "thinkingConfig", SHAPE);
    let budget = has(thinking, "thinkingBudget") || has(thinking, "thinking_budget");
    let level = has(thinking, "thinkingLevel") || has(thinking, "thinking_level");
    rules.need(!(budget && level), "gemini.thinking_xor", "both thinkingBudget and thinkingLevel");
    let twice = has(body, "systemInstruction") && has(body, "system_instruction");
    rules.need(!twice, "gemini.system_once", "both spellings of systemInstruction");
}

fn check_tool(tool: &Value, rules: &mut Rules) {
    let keys = ["functionDeclarations", "function_declarations"];
    let key = keys.into_iter().find(|key| is_set(&tool[*key]));
    let empty = key.is_none() && keys.iter().any(|key| has(tool, key));
    rules.need(!empty, "gemini.empty_tools", "empty functionDeclarations");
    for function in rules.objects(tool, key.unwrap_or(keys[0]), SHAPE) {
        rules.need(is_gemini_name(&function["name"]), "gemini.tool_name", &function["name"]);
        if let Some(schema) = function.get("parameters") {
            let both = has(function, "parametersJsonSchema") || has(function, "parameters_json_schema");
            rules.need(!both, "gemini.schema_xor", "both parameters and parametersJsonSchema");
            if let Some(place) = not_in_schema(schema, "") {
                rules.add("gemini.schema_keyword", format_args!("{}{place}", text(&function["name"])));
            }
        }
        for key in function.as_object().into_iter().flatten().map(|(key, _)| key) {
            rules.need(DECLARATION.contains(&camel(key).as_str()), "gemini.declaration_field", key);
        }
    }
}

/// Where a schema has a keyword that the Schema message does not have.
fn not_in_schema(schema: &Value, path: &str) -> Option<String> {
    schema.as_object()?.iter().find_map(|(key, value)| {
        let here = format!("{path}/{key}");
        match key.as_str() {
            "type" if !value.is_string() => Some(format!("{here} (no string)")),
            "properties" => {
                value.as_object()?.iter().find_map(|(n, x)| not_in_schema(x, &format!("{here}/{n}")))
            }
            "items" => not_in_schema(value, &here),
            "anyOf" => {
                elements(value).iter().enumerate().find_map(|(n, x)| not_in_schema(x, &format!("{here}/{n}")))
            }
            known if SCHEMA.contains(&known) => None,
            _ => Some(here),
        }
    })
}

/// `[a-zA-Z_]` and up to 127 of `[a-zA-Z0-9_.:-]`.
fn is_gemini_name(value: &Value) -> bool {
    let name = text(value);
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && name.len() <= 128 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b))
}

/// An object with its keys in lowerCamelCase.
fn spelled(value: &Value) -> Value {
    let members = value.as_object().into_iter().flatten();
    members.map(|(key, value)| (camel(key), value.clone())).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::super::broken;
    use super::*;
    use crate::vectors::rules::testing::{changed, every_rule_breaks};
    use serde_json::json;

    fn base() -> Value {
        json!({
            "systemInstruction": {"parts": [{"text": "s"}]},
            "contents": [
                {"role": "user", "parts": [{"text": "a"}, {"inline_data": {"mime_type": "image/png", "data": "AA=="}}]},
                {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}, {"functionCall": {"name": "g"}}]},
                {"role": "user", "parts": [
                    {"functionResponse": {"name": "g", "response": {}}},
                    {"functionResponse": {"name": "f", "response": {}}}]},
            ],
            "generationConfig": {"thinkingConfig": {"thinkingBudget": 128}},
            "tools": [{"functionDeclarations": [
                {"name": "f", "parameters": {"type": "OBJECT", "properties": {"x": {"anyOf": [{"type": "STRING"}]}, "y": {"type": "ARRAY", "items": {"type": "STRING"}}}}},
                {"name": "g", "parametersJsonSchema": {"type": ["object"], "$defs": {}}}]}, {"googleSearch": {}}],
        })
    }

    #[test]
    fn good_requests_break_nothing() {
        assert_eq!(broken("gemini", &base()), [""; 0]);
        let envelope = json!({"model": "m", "project": "p", "request": base()});
        assert_eq!(broken("antigravity", &envelope), [""; 0]);
        assert_eq!(broken("gemini-cli", &envelope), [""; 0]);
    }

    #[test]
    fn envelopes_are_whole() {
        let envelope = json!({"model": "m", "project": "p", "request": base()});
        for (pointer, to, says) in [
            ("/request", None, "antigravity.envelope: request object missing"),
            ("/project", None, "antigravity.envelope: project missing"),
            ("/request/model", Some(json!("m")), "antigravity.envelope: model inside request"),
        ] {
            assert_eq!(broken("antigravity", &changed(&envelope, pointer, to)), [says]);
        }
    }

    #[test]
    fn every_rule_breaks_once() {
        let example = |pointer: &str, to: Value| broken("gemini", &changed(&base(), pointer, Some(to)));
        let without = |pointer: &str| broken("gemini", &changed(&base(), pointer, None));
        let function = "/tools/0/functionDeclarations/0";
        let schema = |below: &str, to: Value| example(&format!("{function}/parameters{below}"), to);
        let examples = [
            ("gemini.contents", example("/contents", json!([]))),
            ("gemini.first_user", without("/contents/0")),
            ("gemini.role", example("/contents/0/role", json!("assistant"))),
            ("gemini.parts", example("/contents/0/parts", json!([]))),
            ("gemini.part_kind", example("/contents/0/parts/0/fileData", json!({}))),
            ("gemini.part_kind", example("/contents/0/parts/0", json!({"thought": true}))),
            ("gemini.inline_data", example("/contents/0/parts/1/inline_data/data", json!("https://x"))),
            ("gemini.inline_data", without("/contents/0/parts/1/inline_data/mime_type")),
            ("gemini.tool_name", example("/contents/1/parts/0/functionCall/name", json!("9f"))),
            ("gemini.tool_name", example(&format!("{function}/name"), json!("a b"))),
            ("gemini.fc_shape", example("/contents/1/parts/0/functionCall/args", json!("{}"))),
            ("gemini.fr_shape", example("/contents/2/parts/0/functionResponse/response", json!("x"))),
            ("gemini.fc_pairing", without("/contents/2/parts/0")),
            ("gemini.fc_pairing", without("/contents/1")),
            (
                "gemini.thinking_xor",
                example("/generationConfig/thinkingConfig/thinking_level", json!("HIGH")),
            ),
            ("gemini.system_once", example("/system_instruction", json!({}))),
            ("gemini.empty_tools", example("/tools/0/functionDeclarations", json!([]))),
            ("gemini.schema_xor", example(&format!("{function}/parametersJsonSchema"), json!({}))),
            ("gemini.schema_keyword", schema("/$schema", json!("x"))),
            ("gemini.schema_keyword", schema("/properties/x/anyOf/0/const", json!("x"))),
            ("gemini.schema_keyword", schema("/properties/y/items/type", json!(["string", "null"]))),
            ("gemini.declaration_field", example(&format!("{function}/strict"), json!(true))),
            ("gemini.unknown_field", example("/max_tokens", json!(1))),
            ("gemini.shape", example("/contents/0/parts/0", json!("x"))),
        ];
        every_rule_breaks(include_str!("gemini.rs"), &examples);
    }
}
