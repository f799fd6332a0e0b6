//! `tools` and `toolConfig` → [`Tool`]s and [`ToolChoice`].
//!
//! Enters: declarations with `parameters` (Gemini's `Schema`, types in capitals) or `parametersJsonSchema`, and
//! built-in tools, one per member. Leaves: functions with JSON Schema. May go wrong: wrong types, a function
//! without a name, a mode that does not exist.

use super::camel;
use crate::Protocol;
use crate::error::WireError;
use crate::ir::{Builtin, LossKind, Losses, RawJson, Str, Tool, ToolChoice, ToolKind};
use crate::json::{self, Json, Path};
use crate::schema::lower_types;
use crate::typed::{array, object, string, strings};

/// The tools.
pub(super) fn read_tools<'a>(
    value: Json<'a>,
    at: &Path<'_>,
    losses: &mut Losses,
) -> Result<Vec<Tool<'a>>, WireError> {
    let mut tools = Vec::new();
    for (n, tool) in array(value, at)?.into_iter().enumerate() {
        let at = at.index(n);
        for (key, value) in object(tool, &at)?.0 {
            let at = at.key(&key);
            match camel(&key).as_ref() {
                _ if value.is_null() => {}
                "functionDeclarations" => {
                    for (n, declaration) in array(value, &at)?.into_iter().enumerate() {
                        tools.push(declaration_of(declaration, &at.index(n), losses)?);
                    }
                }
                "googleSearch" => tools.push(search(value, &at, losses)?),
                "googleSearchRetrieval" => {
                    if value.as_object().is_some_and(|map| !map.is_empty()) {
                        losses.at(LossKind::Setting, &at);
                    }
                    tools.push(Tool::Builtin(web_search(Vec::new())));
                }
                "codeExecution" => tools.push(Tool::Builtin(Builtin::CodeExecution)),
                kind => {
                    let kind = kind.to_owned().into();
                    let raw = value.into();
                    tools.push(Tool::Builtin(Builtin::Other { vendor: Protocol::Gemini, kind, raw }));
                }
            }
        }
    }
    Ok(tools)
}

fn web_search(blocked_domains: Vec<Str<'_>>) -> Builtin<'_> {
    Builtin::WebSearch {
        allowed_domains: Vec::new(),
        blocked_domains,
        max_uses: None,
        user_location: None,
        context_size: None,
    }
}

fn search<'a>(value: Json<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Tool<'a>, WireError> {
    let mut blocked = Vec::new();
    for (key, value) in object(value, at)?.0 {
        let at = at.key(&key);
        match camel(&key).as_ref() {
            _ if value.is_null() => {}
            "excludeDomains" => blocked = strings(value, &at)?,
            _ => losses.at(LossKind::Setting, &at),
        }
    }
    Ok(Tool::Builtin(web_search(blocked)))
}

fn declaration_of<'a>(value: Json<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Tool<'a>, WireError> {
    let (mut name, mut description) = (Str::default(), None);
    let (mut parameters, mut json_schema) = (None, None);
    for (key, value) in object(value, at)?.0 {
        let at = at.key(&key);
        match camel(&key).as_ref() {
            _ if value.is_null() => {}
            "name" => name = string(value, &at)?,
            "description" => description = Some(string(value, &at)?).filter(|text| !text.is_empty()),
            "parameters" => parameters = Some(schema(value, &at)?),
            "parametersJsonSchema" => json_schema = Some(schema(value, &at)?),
            "response" | "responseJsonSchema" | "behavior" => losses.at(LossKind::Setting, &at),
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    if name.is_empty() {
        return Err(WireError::invalid(&at.key("name"), "required: the function's name"));
    }
    let schema = json_schema.or_else(|| parameters.map(|schema| lower_types(&schema)));
    Ok(Tool::Function { name, namespace: None, description, schema, strict: None, cache: None })
}

/// A schema, as text.
pub(super) fn schema<'a>(value: Json<'a>, at: &Path<'_>) -> Result<RawJson<'a>, WireError> {
    if value.is_object() { Ok(value.into()) } else { Err(WireError::expected(at, "an object", &value)) }
}

/// `toolConfig.functionCallingConfig`.
pub(super) fn read_choice<'a>(
    value: Json<'a>,
    at: &Path<'_>,
    losses: &mut Losses,
) -> Result<Option<ToolChoice<'a>>, WireError> {
    let mut choice = None;
    for (key, value) in object(value, at)?.0 {
        let at = at.key(&key);
        match camel(&key).as_ref() {
            _ if value.is_null() => {}
            "functionCallingConfig" => choice = read_mode(value, &at, losses)?,
            "retrievalConfig" | "includeServerSideToolInvocations" => losses.at(LossKind::Setting, &at),
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    Ok(choice)
}

fn read_mode<'a>(
    value: Json<'a>,
    at: &Path<'_>,
    losses: &mut Losses,
) -> Result<Option<ToolChoice<'a>>, WireError> {
    let (mut mode, mut names) = (String::new(), Vec::new());
    for (key, value) in object(value, at)?.0 {
        let at = at.key(&key);
        match camel(&key).as_ref() {
            _ if value.is_null() => {}
            "mode" => {
                mode = string(value, &at)?.to_ascii_uppercase();
                if !matches!(mode.as_str(), "AUTO" | "ANY" | "NONE" | "VALIDATED" | "MODE_UNSPECIFIED") {
                    let said = json::string(&mode);
                    return Err(WireError::invalid(
                        &at,
                        format!("must be AUTO, ANY, NONE or VALIDATED, got {said}"),
                    ));
                }
            }
            "allowedFunctionNames" => names = strings(value, &at)?,
            "streamFunctionCallArguments" => losses.at(LossKind::Setting, &at),
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    let required = mode == "ANY";
    Ok(match (mode.as_str(), names.len()) {
        ("" | "MODE_UNSPECIFIED", 0) => None,
        ("NONE", _) => Some(ToolChoice::None),
        ("ANY", 0) => Some(ToolChoice::Any),
        ("ANY", 1) => {
            names.pop().map(|name| ToolChoice::Named { name, namespace: None, kind: ToolKind::Function })
        }
        (_, 0) => Some(ToolChoice::Auto),
        _ => Some(ToolChoice::Allowed { required, names }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Json<'_> {
        json::parse(text.as_bytes(), &["parameters", "parametersJsonSchema", "parameters_json_schema"])
            .unwrap()
    }

    fn tools(text: &str) -> Vec<Tool<'_>> {
        read_tools(value(text), &Path::Root, &mut Losses::default()).unwrap()
    }

    #[test]
    fn schemas_are_lowered_and_json_schema_wins() {
        let got = tools(
            r#"[{"function_declarations":[{"name":"a","parameters":{"type":"OBJECT","properties":{"x":{"type":"STRING"}}}},{"name":"b","parameters":{"type":"OBJECT"},"parameters_json_schema":{"type":"object", "x":1}},{"name":"c"}]}]"#,
        );
        let schemas: Vec<_> = got
            .iter()
            .map(|tool| match tool {
                Tool::Function { schema, .. } => schema.as_ref().map(|s| s.as_str().to_owned()),
                _ => panic!(),
            })
            .collect();
        assert_eq!(
            schemas,
            [
                Some(r#"{"type":"object","properties":{"x":{"type":"string"}}}"#.to_owned()),
                Some(r#"{"type":"object", "x":1}"#.to_owned()),
                None
            ]
        );
    }

    #[test]
    fn built_in_tools_are_told() {
        let got =
            tools(r#"[{"googleSearch":{"excludeDomains":["x"]}},{"code_execution":{}},{"urlContext":{}}]"#);
        assert!(
            matches!(&got[0], Tool::Builtin(Builtin::WebSearch { blocked_domains, .. }) if blocked_domains.len() == 1)
        );
        assert_eq!(got[1], Tool::Builtin(Builtin::CodeExecution));
        assert!(
            matches!(&got[2], Tool::Builtin(Builtin::Other { kind, vendor: Protocol::Gemini, .. }) if kind == "urlContext")
        );
    }

    #[test]
    fn modes_become_choices() {
        for (config, expected) in [
            (r#"{"mode":"AUTO"}"#, Some(ToolChoice::Auto)),
            (r#"{"mode":"any"}"#, Some(ToolChoice::Any)),
            (r#"{"mode":"NONE","allowedFunctionNames":["f"]}"#, Some(ToolChoice::None)),
            (r#"{"mode":"VALIDATED"}"#, Some(ToolChoice::Auto)),
            (r#"{"mode":"MODE_UNSPECIFIED"}"#, None),
            (
                r#"{"mode":"ANY","allowed_function_names":["f"]}"#,
                Some(ToolChoice::Named { name: "f".into(), namespace: None, kind: ToolKind::Function }),
            ),
            (
                r#"{"mode":"ANY","allowedFunctionNames":["f","g"]}"#,
                Some(ToolChoice::Allowed { required: true, names: vec!["f".into(), "g".into()] }),
            ),
        ] {
            let text = format!(r#"{{"function_calling_config":{config}}}"#);
            let got = read_choice(value(&text), &Path::Root, &mut Losses::default()).unwrap();
            assert_eq!(got, expected, "{config}");
        }
        let text = r#"{"functionCallingConfig":{"mode":"SOMETIMES"}}"#;
        let error = read_choice(value(text), &Path::Root, &mut Losses::default()).unwrap_err();
        assert!(error.to_string().starts_with("functionCallingConfig.mode: must be AUTO"));
    }
}
