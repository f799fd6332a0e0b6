//! Responses requests, and what the Codex backend adds.

use super::{is_effort, is_name};
use crate::vectors::rules::Rules;
use crate::vectors::value::{has, is_one_of, is_set, text};
use serde_json::Value;

const SHAPE: &str = "responses.shape";

/// Members that the Codex backend refuses.
const UNSUPPORTED: [&str; 9] = [
    "max_output_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "truncation",
    "user",
    "previous_response_id",
    "stop",
    "messages",
];

/// Checks a request for Codex.
pub(super) fn check_codex(body: &Value, rules: &mut Rules) {
    if !check_input(body, rules) {
        return;
    }
    check_settings(body, rules);
    rules.need(body["store"] == false, "codex.store", "store must be false");
    rules.need(body["stream"] == true, "codex.stream", "stream must be true");
    rules.need(has(body, "instructions"), "codex.instructions", "field must be present");
    for key in UNSUPPORTED {
        rules.need(!has(body, key), "codex.unsupported_field", key);
    }
}

/// Checks a request for the public API.
pub(super) fn check(body: &Value, rules: &mut Rules) {
    if check_input(body, rules) {
        check_settings(body, rules);
    }
}

/// Checks the input; `false` when there is none.
fn check_input(body: &Value, rules: &mut Rules) -> bool {
    let input = &body["input"];
    if input.is_string() {
        return true;
    }
    if !input.is_array() || !is_set(input) {
        rules.add("responses.input", "missing or empty");
        return false;
    }
    let (mut calls, mut answered) = (Vec::new(), Vec::new());
    for (n, item) in rules.objects(body, "input", SHAPE).into_iter().enumerate() {
        let id = &item["call_id"];
        match item.get("type").map_or("message", text) {
            kind @ ("function_call" | "custom_tool_call") => {
                calls.push(id);
                let length = text(id).chars().count();
                rules.need((1..=64).contains(&length), "responses.call_id", id);
                rules.need(is_name(&item["name"], 64), "responses.tool_name", &item["name"]);
                let string = kind != "function_call" || item["arguments"].is_string();
                rules.need(string, "responses.args", "arguments is not a string");
            }
            "function_call_output" | "custom_tool_call_output" => {
                let known = calls.contains(&id);
                rules.need(known, "responses.pairing", format_args!("output {id} has no call"));
                rules.need(!answered.contains(&id), "responses.pairing", "call answered twice");
                answered.push(id);
                let output = &item["output"];
                let legal = output.is_string() || output.is_array();
                rules.need(legal, "responses.output", "output is not string or array");
            }
            "message" => check_message(n, item, rules),
            _ => {}
        }
    }
    true
}

fn check_message(n: usize, item: &Value, rules: &mut Rules) {
    let role = &item["role"];
    rules.need(is_one_of(role, &["user", "assistant", "system", "developer"]), "responses.role", role);
    if !item["content"].is_array() {
        return;
    }
    rules.need(is_set(&item["content"]), "responses.empty_message", format_args!("input[{n}]"));
    let legal: &[&str] = match text(role) {
        "assistant" => &["output_text", "refusal"],
        _ => &["input_text", "input_image", "input_file", "input_audio"],
    };
    for part in rules.objects(item, "content", SHAPE) {
        let kind = &part["type"];
        rules.need(is_one_of(kind, legal), "responses.part_type", format_args!("{kind} in {role} message"));
    }
}

fn check_settings(body: &Value, rules: &mut Rules) {
    for tool in rules.objects(body, "tools", SHAPE) {
        let named = tool["type"] != "function" || is_name(&tool["name"], 64);
        rules.need(named, "responses.tool_name", &tool["name"]);
    }
    let choice = &body["tool_choice"];
    let named = choice["type"] != "function" || is_set(&choice["name"]);
    rules.need(named, "responses.tool_choice", "function choice without name");
    let effort = &rules.object(body, "reasoning", SHAPE)["effort"];
    rules.need(is_effort(effort), "responses.effort_enum", effort);
}

#[cfg(test)]
mod tests {
    use super::super::broken;
    use super::*;
    use crate::vectors::rules::testing::{changed, every_rule_breaks};
    use serde_json::json;

    fn base() -> Value {
        json!({
            "instructions": "", "store": false, "stream": true,
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""},
                {"type": "custom_tool_call", "call_id": "d", "name": "g", "input": ""},
                {"type": "custom_tool_call_output", "call_id": "d", "output": []},
                {"type": "function_call_output", "call_id": "c", "output": ""},
                {"type": "reasoning", "summary": []},
            ],
            "tools": [{"type": "function", "name": "f"}, {"type": "web_search"}],
            "tool_choice": {"type": "function", "name": "f"},
            "reasoning": {"effort": "xhigh"},
        })
    }

    #[test]
    fn a_good_request_breaks_nothing() {
        assert_eq!(broken("codex", &base()), [""; 0]);
        assert_eq!(broken("openai-response", &json!({"input": "hi", "temperature": 1})), [""; 0]);
    }

    #[test]
    fn every_rule_breaks_once() {
        let example = |pointer: &str, to: Value| broken("codex", &changed(&base(), pointer, Some(to)));
        let without = |pointer: &str| broken("codex", &changed(&base(), pointer, None));
        let examples = [
            ("responses.input", example("/input", json!([]))),
            ("responses.input", without("/input")),
            ("responses.call_id", example("/input/2/call_id", json!("c".repeat(65)))),
            ("responses.call_id", without("/input/2/call_id")),
            ("responses.tool_name", example("/input/3/name", json!("a.b"))),
            ("responses.tool_name", example("/tools/0/name", json!(""))),
            ("responses.args", example("/input/2/arguments", json!({}))),
            ("responses.pairing", without("/input/2")),
            ("responses.pairing", example("/input/5/call_id", json!("d"))),
            ("responses.output", example("/input/5/output", json!({}))),
            ("responses.role", example("/input/0/role", json!("tool"))),
            ("responses.empty_message", example("/input/0/content", json!([]))),
            ("responses.part_type", example("/input/0/content/0/type", json!("text"))),
            ("responses.part_type", example("/input/1/content/0/type", json!("input_text"))),
            ("responses.tool_choice", without("/tool_choice/name")),
            ("responses.effort_enum", example("/reasoning/effort", json!("auto"))),
            ("responses.shape", example("/reasoning", json!("high"))),
            ("codex.store", without("/store")),
            ("codex.stream", example("/stream", json!(false))),
            ("codex.instructions", without("/instructions")),
            ("codex.unsupported_field", example("/temperature", json!(1))),
        ];
        every_rule_breaks(include_str!("responses.rs"), &examples);
    }
}
