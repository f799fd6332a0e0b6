//! Tools and tool choice of a Chat body.
//!
//! Enters: `tools`, `functions`, `tool_choice`, `function_call`. Leaves: [`Tool`]s and a [`ToolChoice`]. The
//! flat shape of Responses is read as well, because clients mix them up. May go wrong: missing names, wrong
//! types; tools nobody here knows are kept for writers of the same vendor.

use super::read_messages::cache_mark;
use crate::Protocol;
use crate::error::WireError;
use crate::ir::{Builtin, LossKind, Losses, Str, Tool, ToolChoice, ToolKind};
use crate::json::{Json, Map, Path};
use crate::typed::{array, boolean, each_object, name, object, raw_object, required, string};

/// `tools`.
pub(super) fn tools<'a>(
    value: Json<'a>,
    at: &Path<'_>,
    losses: &mut Losses,
) -> Result<Vec<Tool<'a>>, WireError> {
    each_object(value, at, |map, at| tool(map, at, losses))
}

/// Legacy `functions`.
pub(super) fn functions<'a>(
    value: Json<'a>,
    at: &Path<'_>,
    losses: &mut Losses,
) -> Result<Vec<Tool<'a>>, WireError> {
    each_object(value, at, |map, at| function(map, at, losses))
}

fn tool<'a>(mut map: Map<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Tool<'a>, WireError> {
    let kind = match map.get("type") {
        Some(kind) => string(kind.clone(), &at.key("type"))?.into_owned(),
        None if map.has("function") || map.has("name") => "function".to_owned(),
        None if map.has("google_search") || map.has("googleSearch") => "web_search".to_owned(),
        None => return Err(required(&at.key("type"), "function or custom")),
    };
    match kind.as_str() {
        "function" => {
            let cache = map.remove("cache_control").as_ref().and_then(cache_mark);
            map.remove("type");
            let mut tool = match map.remove("function") {
                Some(inner) => {
                    report(&map, at, losses);
                    let at = at.key("function");
                    function(object(inner, &at)?, &at, losses)?
                }
                None => function(map, at, losses)?,
            };
            if let (Tool::Function { cache: slot, .. }, Some(_)) = (&mut tool, cache) {
                *slot = cache;
            }
            Ok(tool)
        }
        "custom" => {
            map.remove("type");
            match map.remove("custom") {
                Some(inner) => {
                    report(&map, at, losses);
                    let at = at.key("custom");
                    custom(object(inner, &at)?, &at, losses)
                }
                None => custom(map, at, losses),
            }
        }
        "code_interpreter" => Ok(Tool::Builtin(Builtin::CodeExecution)),
        "image_generation" => Ok(Tool::Builtin(Builtin::ImageGeneration(Json::Object(map).into()))),
        search if search == "web_search" || search.starts_with("web_search_preview") => {
            Ok(Tool::Builtin(Builtin::WebSearch {
                allowed_domains: Vec::new(),
                blocked_domains: Vec::new(),
                max_uses: None,
                user_location: map.remove("user_location").filter(Json::is_object).map(Into::into),
                context_size: map.remove("search_context_size").and_then(Json::into_str),
            }))
        }
        _ => Ok(Tool::Builtin(Builtin::Other {
            vendor: Protocol::OpenaiChat,
            kind: kind.into(),
            raw: Json::Object(map).into(),
        })),
    }
}

/// Records the members that nobody took.
fn report(map: &Map<'_>, at: &Path<'_>, losses: &mut Losses) {
    for (key, _) in map.iter() {
        losses.at(LossKind::UnknownMember, &at.key(key));
    }
}

fn function<'a>(map: Map<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Tool<'a>, WireError> {
    let (mut title, mut description, mut schema, mut strict, mut cache) = (None, None, None, None, None);
    for (key, value) in map.0 {
        let at = at.key(&key);
        match key.as_ref() {
            _ if value.is_null() => {}
            "name" => title = Some(name(value, &at)?),
            "description" => description = Some(string(value, &at)?),
            "parameters" => schema = Some(raw_object(value, &at)?),
            "strict" => strict = Some(boolean(&value, &at)?),
            "cache_control" => cache = cache_mark(&value),
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    let name = title.ok_or_else(|| required(&at.key("name"), "the name of the function"))?;
    Ok(Tool::Function { name, namespace: None, description, schema, strict, cache })
}

fn custom<'a>(map: Map<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Tool<'a>, WireError> {
    let (mut title, mut description, mut format) = (None, None, None);
    for (key, value) in map.0 {
        let at = at.key(&key);
        match key.as_ref() {
            _ if value.is_null() => {}
            "name" => title = Some(name(value, &at)?),
            "description" => description = Some(string(value, &at)?),
            "format" => format = Some(raw_object(value, &at)?),
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    let name = title.ok_or_else(|| required(&at.key("name"), "the name of the tool"))?;
    Ok(Tool::Custom { name, namespace: None, description, format })
}

/// `tool_choice`.
pub(super) fn choice<'a>(
    value: Json<'a>,
    at: &Path<'_>,
    losses: &mut Losses,
) -> Result<ToolChoice<'a>, WireError> {
    let mut map = match value {
        Json::Object(map) => map,
        word @ Json::Str(_) => return of_word(&string(word, at)?, at),
        other => return Err(WireError::expected(at, "a string or an object", &other)),
    };
    let kind_at = at.key("type");
    let kind = map.remove("type").ok_or_else(|| required(&kind_at, "function, custom or allowed_tools"))?;
    let kind = string(kind, &kind_at)?;
    match kind.as_ref() {
        "function" => named(map, ToolKind::Function, "function", at),
        "custom" => named(map, ToolKind::Custom, "custom", at),
        "allowed_tools" => match map.remove("allowed_tools") {
            Some(inner) => {
                let at = at.key("allowed_tools");
                allowed(object(inner, &at)?, &at, losses)
            }
            None => allowed(map, at, losses),
        },
        "auto" | "none" | "required" | "any" => of_word(&kind, &kind_at),
        _ => Ok(ToolChoice::Builtin(kind)),
    }
}

fn of_word<'a>(word: &str, at: &Path<'_>) -> Result<ToolChoice<'a>, WireError> {
    match word {
        "auto" => Ok(ToolChoice::Auto),
        "none" => Ok(ToolChoice::None),
        "required" | "any" => Ok(ToolChoice::Any),
        _ => Err(WireError::invalid(at, format!("unknown choice {word:?}: use none, auto or required"))),
    }
}

/// The name below `member`, or the flat one of Responses.
fn tool_name<'a>(mut map: Map<'a>, member: &str, at: &Path<'_>) -> Result<Str<'a>, WireError> {
    let inner_at = at.key(member);
    if let Some(inner) = map.remove(member) {
        let mut inner = object(inner, &inner_at)?;
        let at = inner_at.key("name");
        return name(inner.remove("name").ok_or_else(|| required(&at, "the name of the tool"))?, &at);
    }
    let value = map.remove("name").ok_or_else(|| required(&inner_at, "the name of the tool"))?;
    name(value, &at.key("name"))
}

fn named<'a>(map: Map<'a>, kind: ToolKind, member: &str, at: &Path<'_>) -> Result<ToolChoice<'a>, WireError> {
    Ok(ToolChoice::Named { name: tool_name(map, member, at)?, namespace: None, kind })
}

fn allowed<'a>(mut map: Map<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<ToolChoice<'a>, WireError> {
    let required_mode = map.get("mode").and_then(Json::as_str) == Some("required");
    let tools_at = at.key("tools");
    let tools = map.remove("tools").ok_or_else(|| required(&tools_at, "the tools that are allowed"))?;
    let mut names = Vec::new();
    for (n, item) in array(tools, &tools_at)?.into_iter().enumerate() {
        let at = tools_at.index(n);
        let item = object(item, &at)?;
        match item.get("type").and_then(Json::as_str) {
            Some("function") | None => names.push(tool_name(item, "function", &at)?),
            Some("custom") => names.push(tool_name(item, "custom", &at)?),
            // Built-in tools have no name and cannot be chosen by one.
            Some(_) => losses.at(LossKind::Builtin, &at),
        }
    }
    Ok(ToolChoice::Allowed { required: required_mode, names })
}

/// Legacy `function_call` of the body.
pub(super) fn legacy_choice<'a>(value: Json<'a>, at: &Path<'_>) -> Result<ToolChoice<'a>, WireError> {
    match value {
        Json::Object(map) => {
            let name = tool_name(map, "function", at)?;
            Ok(ToolChoice::Named { name, namespace: None, kind: ToolKind::Function })
        }
        word @ Json::Str(_) => of_word(&string(word, at)?, at),
        other => Err(WireError::expected(at, "a string or an object", &other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse;

    fn value(text: &str) -> Json<'_> {
        parse(text.as_bytes(), &crate::openai_chat::RAW_KEYS).unwrap()
    }

    fn read(text: &str) -> (Vec<Tool<'_>>, String) {
        let mut losses = Losses::default();
        let read = tools(value(text), &Path::Root.key("tools"), &mut losses).unwrap();
        (read, losses.to_string())
    }

    #[test]
    fn functions_keep_their_schema_as_sent() {
        let schema = r#"{"type":"object" , "properties":{"z":{},"a":{"maximum":1.0}}}"#;
        for text in [
            format!(
                r#"[{{"type":"function","function":{{"name":"f","description":"d","parameters":{schema},"strict":true}}}}]"#
            ),
            format!(
                r#"[{{"type":"function","name":"f","description":"d","parameters":{schema},"strict":true}}]"#
            ),
            format!(
                r#"[{{"function":{{"name":"f","description":"d","parameters":{schema},"strict":true}}}}]"#
            ),
        ] {
            let (tools, losses) = read(&text);
            let [Tool::Function { name, description, schema: got, strict, .. }] = &tools[..] else {
                panic!()
            };
            assert_eq!((name.as_ref(), description.as_deref(), *strict), ("f", Some("d"), Some(true)));
            assert_eq!(got.as_ref().unwrap().as_str(), schema, "{text}");
            assert_eq!(losses, "", "{text}");
        }
    }

    #[test]
    fn custom_tools_nested_and_flat() {
        for text in [
            r#"[{"type":"custom","custom":{"name":"p","format":{"type":"text"}}}]"#,
            r#"[{"type":"custom","name":"p","format":{"type":"text"}}]"#,
        ] {
            let (tools, _) = read(text);
            let [Tool::Custom { name, format, .. }] = &tools[..] else { panic!("{text}") };
            assert_eq!((name.as_ref(), format.as_ref().unwrap().as_str()), ("p", r#"{"type":"text"}"#));
        }
    }

    #[test]
    fn builtins_stay_builtins() {
        let (tools, _) = read(
            r#"[{"type":"web_search_preview","search_context_size":"high"},{"google_search":{}},{"type":"code_interpreter"},{"type":"image_generation","size":"x"},{"type":"mystery","a":1}]"#,
        );
        let kinds: Vec<String> = tools.iter().map(|tool| format!("{tool:?}")).collect();
        for (kind, says) in
            kinds.iter().zip(["high", "WebSearch", "CodeExecution", "ImageGeneration", "mystery"])
        {
            assert!(kind.contains("Builtin") && kind.contains(says), "{kind}");
        }
    }

    #[test]
    fn choices_in_all_shapes() {
        let named = |kind| ToolChoice::Named { name: "f".into(), namespace: None, kind };
        for (text, expected) in [
            (r#""auto""#, ToolChoice::Auto),
            (r#""none""#, ToolChoice::None),
            (r#""required""#, ToolChoice::Any),
            (r#"{"type":"function","function":{"name":"f"}}"#, named(ToolKind::Function)),
            (r#"{"type":"function","name":"f"}"#, named(ToolKind::Function)),
            (r#"{"type":"custom","custom":{"name":"f"}}"#, named(ToolKind::Custom)),
            (
                r#"{"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[{"type":"function","function":{"name":"f"}},{"type":"custom","custom":{"name":"g"}}]}}"#,
                ToolChoice::Allowed { required: true, names: vec!["f".into(), "g".into()] },
            ),
            (r#"{"type":"web_search"}"#, ToolChoice::Builtin("web_search".into())),
        ] {
            let mut losses = Losses::default();
            let got = choice(value(text), &Path::Root.key("tool_choice"), &mut losses).unwrap();
            assert_eq!(got, expected, "{text}");
        }
        let at = Path::Root;
        assert_eq!(legacy_choice(value(r#"{"name":"f"}"#), &at).unwrap(), named(ToolKind::Function));
        assert_eq!(legacy_choice(value(r#""none""#), &at).unwrap(), ToolChoice::None);
    }
}
