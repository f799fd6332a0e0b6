//! Tools and tool choice of an upstream body.
//!
//! Enters: the tools of a request. Leaves: functions; an empty array and a choice without tools are never
//! written, because the API refuses both. Built-in tools have no counterpart here but web search, which is a
//! member of the body and only OpenAI's search models take it. May go wrong: nothing; the rest is recorded.

use crate::ir::{Builtin, LossKind, Losses, RawJson, Request, Tool, ToolChoice, ToolKind};
use crate::json::{Array, Json, Map, Object, Path};
use crate::schema::NO_ARGUMENTS;

/// Writes `tools`, `tool_choice`, `parallel_tool_calls` and `web_search_options`.
pub(super) fn write(
    request: &Request<'_>,
    openai: bool,
    model: &str,
    o: &mut Object<'_>,
    losses: &mut Losses,
) {
    let root = Path::Root;
    let all = root.key("tools");
    let mut callable: Vec<&Tool<'_>> = Vec::with_capacity(request.tools.len());
    for (n, tool) in request.tools.iter().enumerate() {
        match tool {
            Tool::Builtin(Builtin::WebSearch { user_location, context_size, .. })
                if model.contains("search") =>
            {
                o.object("web_search_options", |o| {
                    o.opt_str("search_context_size", context_size.as_deref());
                    if let Some(location) = user_location {
                        user_location_member(location, o);
                    }
                });
            }
            Tool::Builtin(_) => losses.at(LossKind::Builtin, &all.index(n)),
            Tool::Function { .. } | Tool::Custom { .. } => callable.push(tool),
        }
    }
    // Only OpenAI knows `allowed_tools`; elsewhere the list itself is cut to what is allowed.
    if let (Some(ToolChoice::Allowed { names, .. }), false) = (&request.tool_choice, openai) {
        callable.retain(|tool| tool.name().is_some_and(|name| names.contains(name)));
    }
    if callable.is_empty() {
        if request.tool_choice.is_some() {
            losses.member(LossKind::Setting, "tool_choice");
        }
        return;
    }
    o.array("tools", |a| callable.iter().for_each(|tool| write_tool(tool, a)));
    if let Some(choice) = &request.tool_choice {
        write_choice(choice, openai, o, losses);
    }
    if let Some(parallel) = request.parallel_tools {
        o.bool("parallel_tool_calls", parallel);
    }
}

fn write_tool(tool: &Tool<'_>, a: &mut Array<'_>) {
    a.object(|o| match tool {
        Tool::Function { name, description, schema, strict, .. } => {
            o.str("type", "function");
            o.object("function", |o| {
                o.str("name", name);
                o.opt_str("description", description.as_deref());
                let schema = schema.as_ref().map_or(NO_ARGUMENTS, RawJson::as_str);
                o.raw("parameters", schema);
                if let Some(strict) = strict {
                    o.bool("strict", *strict);
                }
            });
        }
        Tool::Custom { name, description, format, .. } => {
            o.str("type", "custom");
            o.object("custom", |o| {
                o.str("name", name);
                o.opt_str("description", description.as_deref());
                if let Some(format) = format {
                    o.raw("format", format.as_str());
                }
            });
        }
        // Sorted out before.
        Tool::Builtin(_) => {}
    });
}

fn write_choice(choice: &ToolChoice<'_>, openai: bool, o: &mut Object<'_>, losses: &mut Losses) {
    match choice {
        ToolChoice::Auto => o.str("tool_choice", "auto"),
        ToolChoice::None => o.str("tool_choice", "none"),
        ToolChoice::Any => o.str("tool_choice", "required"),
        ToolChoice::Named { name, kind, .. } => o.object("tool_choice", |o| write_named(name, *kind, o)),
        ToolChoice::Allowed { required, names } if openai => o.object("tool_choice", |o| {
            o.str("type", "allowed_tools");
            o.object("allowed_tools", |o| {
                o.str("mode", if *required { "required" } else { "auto" });
                o.array("tools", |a| {
                    for name in names {
                        a.object(|o| write_named(name, ToolKind::Function, o));
                    }
                });
            });
        }),
        ToolChoice::Allowed { required, .. } => {
            o.str("tool_choice", if *required { "required" } else { "auto" });
        }
        ToolChoice::Builtin(_) => losses.member(LossKind::Builtin, "tool_choice"),
    }
}

/// `{"type":"function","function":{"name":…}}`: unlike Responses, the name is nested.
fn write_named(name: &str, kind: ToolKind, o: &mut Object<'_>) {
    let kind = if kind == ToolKind::Custom { "custom" } else { "function" };
    o.str("type", kind);
    o.object(kind, |o| o.str("name", name));
}

/// The flat location of the IR, nested as this API has it.
fn user_location_member(location: &RawJson<'_>, o: &mut Object<'_>) {
    let Json::Object(map) = location.parse() else { return };
    let inner: Map<'_> = map.0.into_iter().filter(|(key, value)| key != "type" && !value.is_null()).collect();
    o.object("user_location", |o| {
        o.str("type", "approximate");
        o.value("approximate", &Json::Object(inner));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOL: &str = r#"{"type":"function","function":{"name":"f","parameters":{"a":1.0}}}"#;

    fn run(members: &str, model: &str, openai: bool) -> (String, String) {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"a"}}],{members}}}"#);
        let request = crate::openai_chat::read_request(body.as_bytes(), &mut Losses::default()).unwrap();
        let (mut out, mut losses) = (Vec::new(), Losses::default());
        crate::json::object(&mut out, |o| write(&request, openai, model, o, &mut losses));
        (String::from_utf8(out).unwrap(), losses.to_string())
    }

    #[test]
    fn tools_and_choices_have_the_nesting_of_this_format() {
        let tools = format!(r#""tools":[{TOOL}]"#);
        let strict = r#"{"type":"function","function":{"name":"g","description":"d","parameters":{"type":"object","properties":{}},"strict":true}}"#;
        for (members, expected) in [
            (tools.clone(), format!("{{{tools}}}")),
            (
                r#""tools":[{"type":"function","name":"g","description":"d","strict":true}]"#.to_owned(),
                format!(r#"{{"tools":[{strict}]}}"#),
            ),
            (
                format!(
                    r#"{tools},"tool_choice":{{"type":"function","name":"f"}},"parallel_tool_calls":false"#
                ),
                format!(
                    r#"{{{tools},"tool_choice":{{"type":"function","function":{{"name":"f"}}}},"parallel_tool_calls":false}}"#
                ),
            ),
            (
                format!(r#"{tools},"tool_choice":"required""#),
                format!(r#"{{{tools},"tool_choice":"required"}}"#),
            ),
            (format!(r#"{tools},"tool_choice":"none""#), format!(r#"{{{tools},"tool_choice":"none"}}"#)),
        ] {
            assert_eq!(run(&members, "m", false), (expected, String::new()), "{members}");
        }
    }

    #[test]
    fn allowed_tools_are_a_list_for_openai_and_a_shorter_list_elsewhere() {
        let other = r#"{"type":"function","function":{"name":"g","parameters":{}}}"#;
        let allowed = r#"{"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[{"type":"function","function":{"name":"g"}}]}}"#;
        let members = format!(r#""tools":[{TOOL},{other}],"tool_choice":{allowed}"#);
        assert_eq!(run(&members, "gpt-5", true).0, format!("{{{members}}}"));
        assert_eq!(run(&members, "m", false).0, format!(r#"{{"tools":[{other}],"tool_choice":"required"}}"#));
    }

    #[test]
    fn built_in_tools_go_and_take_their_choice_along() {
        let members =
            r#""tools":[{"type":"web_search"}],"tool_choice":"required","parallel_tool_calls":true"#;
        let (out, losses) = run(members, "m", false);
        assert_eq!((out.as_str(), losses.as_str()), ("{}", "builtin-tool tools[0], setting tool_choice"));
        let (out, losses) = run(r#""tools":[{"type":"custom","custom":{"name":"p"}}]"#, "m", false);
        assert_eq!(
            (out.as_str(), losses.as_str()),
            (r#"{"tools":[{"type":"custom","custom":{"name":"p"}}]}"#, "")
        );
    }

    #[test]
    fn search_models_search() {
        let members = r#""web_search_options":{"search_context_size":"low","user_location":{"type":"approximate","approximate":{"city":"Rome"}}}"#;
        assert_eq!(run(members, "gpt-4o-search-preview", false), (format!("{{{members}}}"), String::new()));
        assert_eq!(run(members, "m", false), ("{}".to_owned(), "builtin-tool tools[0]".to_owned()));
    }
}
