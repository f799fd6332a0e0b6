//! Tools and the choice among them → `tools`, `tool_choice`, `parallel_tool_calls`.
//!
//! Enters: tools of the IR. Leaves: the three members, or none when no tool is left. May go wrong: nothing;
//! a built-in that the target lacks goes with the choice that names it, and is recorded.

use crate::Protocol;
use crate::ir::{Builtin, LossKind, Losses, RawJson, Request, Str, Tool, ToolChoice};
use crate::json::{self, Array, Json, Object};
use crate::schema::NO_ARGUMENTS;

/// Writes the members.
pub(super) fn tools(o: &mut Object<'_>, request: &Request<'_>, is_codex: bool, losses: &mut Losses) {
    let mut list = Vec::new();
    let mut written = Vec::new();
    json::array(&mut list, |a| written = declare(a, &request.tools, is_codex, losses));
    if written.is_empty() {
        if request.tool_choice.is_some() && !request.tools.is_empty() {
            losses.member(LossKind::Setting, "tool_choice");
        }
        return;
    }
    o.key("tools").extend_from_slice(&list);
    if let Some(choice) = &request.tool_choice {
        choose(o, choice, request, &written, losses);
    }
    let parallel = if is_codex { request.parallel_tools.or(Some(true)) } else { request.parallel_tools };
    if let Some(parallel) = parallel {
        o.bool("parallel_tool_calls", parallel);
    }
}

/// Writes the declarations; the types of those that were written.
fn declare(
    out: &mut Array<'_>,
    tools: &[Tool<'_>],
    is_codex: bool,
    losses: &mut Losses,
) -> Vec<&'static str> {
    let mut written = Vec::new();
    let mut spaces: Vec<&str> = Vec::new();
    for tool in tools {
        match tool {
            Tool::Function { namespace: Some(space), .. } | Tool::Custom { namespace: Some(space), .. } => {
                if !spaces.contains(&space.as_ref()) {
                    spaces.push(space);
                    namespace(out, space, tools);
                }
                written.push("function");
            }
            Tool::Function { .. } | Tool::Custom { .. } => {
                out.object(|o| callable(o, tool));
                written.push("function");
            }
            Tool::Builtin(tool) => match builtin(out, tool, is_codex, losses) {
                Some(kind) => written.push(kind),
                None => losses.member(LossKind::Builtin, "tools"),
            },
        }
    }
    written
}

fn namespace(out: &mut Array<'_>, space: &str, tools: &[Tool<'_>]) {
    let inside = |tool: &&Tool<'_>| match tool {
        Tool::Function { namespace, .. } | Tool::Custom { namespace, .. } => {
            namespace.as_deref() == Some(space)
        }
        Tool::Builtin(_) => false,
    };
    out.object(|o| {
        o.str("type", "namespace");
        o.str("name", space);
        o.str("description", "");
        o.array("tools", |a| tools.iter().filter(inside).for_each(|tool| a.object(|o| callable(o, tool))));
    });
}

fn callable(o: &mut Object<'_>, tool: &Tool<'_>) {
    match tool {
        Tool::Function { name, description, schema, strict, .. } => {
            o.str("type", "function");
            o.str("name", name);
            o.opt_str("description", description.as_deref());
            o.raw("parameters", schema.as_ref().map_or(NO_ARGUMENTS, RawJson::as_str));
            // The default of this format is to try strict, which no other format means by silence.
            o.bool("strict", strict.unwrap_or(false));
        }
        Tool::Custom { name, description, format, .. } => {
            o.str("type", "custom");
            o.str("name", name);
            o.opt_str("description", description.as_deref());
            if let Some(format) = format {
                o.raw("format", format.as_str());
            }
        }
        Tool::Builtin(_) => {}
    }
}

/// Writes a built-in; its type, or `None` when the target has no counterpart.
fn builtin(
    out: &mut Array<'_>,
    tool: &Builtin<'_>,
    is_codex: bool,
    losses: &mut Losses,
) -> Option<&'static str> {
    match tool {
        Builtin::WebSearch { allowed_domains, blocked_domains, max_uses, user_location, context_size } => {
            if max_uses.is_some() || !blocked_domains.is_empty() {
                losses.member(LossKind::Setting, "tools");
            }
            out.object(|o| {
                o.str("type", "web_search");
                web_search(o, allowed_domains, user_location.as_ref(), context_size.as_deref());
            });
            Some("web_search")
        }
        // The backend of Codex has no containers.
        Builtin::CodeExecution if is_codex => None,
        Builtin::CodeExecution => {
            out.object(|o| {
                o.str("type", "code_interpreter");
                o.object("container", |o| o.str("type", "auto"));
            });
            Some("code_interpreter")
        }
        Builtin::ImageGeneration(raw) => {
            out.raw(raw.as_str());
            Some("image_generation")
        }
        Builtin::Other { vendor: Protocol::OpenaiResponses, raw, .. } => {
            out.raw(raw.as_str());
            Some("other")
        }
        Builtin::Other { .. } => None,
    }
}

fn web_search(
    o: &mut Object<'_>,
    allowed: &[Str<'_>],
    location: Option<&RawJson<'_>>,
    context_size: Option<&str>,
) {
    if !allowed.is_empty() {
        o.object("filters", |o| {
            o.array("allowed_domains", |a| allowed.iter().for_each(|domain| a.str(domain)));
        });
    }
    if let Some(location) = location {
        match location.parse() {
            // Chat puts the place one level deeper.
            Json::Object(mut map) if map.get("approximate").is_some_and(Json::is_object) => {
                if let Some(Json::Object(mut place)) = map.remove("approximate") {
                    place.set("type", Json::Str("approximate".into()));
                    o.value("user_location", &Json::Object(place));
                }
            }
            _ => o.raw("user_location", location.as_str()),
        }
    }
    o.opt_str("search_context_size", context_size);
}

fn choose(
    o: &mut Object<'_>,
    choice: &ToolChoice<'_>,
    request: &Request<'_>,
    written: &[&'static str],
    losses: &mut Losses,
) {
    match choice {
        ToolChoice::Auto => o.str("tool_choice", "auto"),
        ToolChoice::None => o.str("tool_choice", "none"),
        ToolChoice::Any => o.str("tool_choice", "required"),
        ToolChoice::Named { name, namespace, .. } => o.object("tool_choice", |o| {
            o.str("type", kind_of(name, &request.tools));
            o.str("name", name);
            o.opt_str("namespace", namespace.as_deref());
        }),
        ToolChoice::Allowed { required, names } => o.object("tool_choice", |o| {
            o.str("type", "allowed_tools");
            o.str("mode", if *required { "required" } else { "auto" });
            o.array("tools", |a| {
                for name in names {
                    a.object(|o| {
                        o.str("type", kind_of(name, &request.tools));
                        o.str("name", name);
                    });
                }
            });
        }),
        ToolChoice::Builtin(kind) => match own_type(kind).filter(|kind| written.contains(kind)) {
            Some(kind) => o.object("tool_choice", |o| o.str("type", kind)),
            None => losses.member(LossKind::Setting, "tool_choice"),
        },
    }
}

fn kind_of(name: &str, tools: &[Tool<'_>]) -> &'static str {
    let custom = |tool: &Tool<'_>| matches!(tool, Tool::Custom { name: own, .. } if own == name);
    if tools.iter().any(custom) { "custom" } else { "function" }
}

/// This format's type of a built-in that another format named.
fn own_type(kind: &str) -> Option<&'static str> {
    if kind.starts_with("web_search") || kind == "googleSearch" {
        return Some("web_search");
    }
    match kind {
        "image_generation" => Some("image_generation"),
        "code_interpreter" | "codeExecution" => Some("code_interpreter"),
        _ if kind.starts_with("code_execution") => Some("code_interpreter"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(request: &Request<'_>, is_codex: bool) -> (String, String) {
        let (mut out, mut losses) = (Vec::new(), Losses::default());
        json::object(&mut out, |o| tools(o, request, is_codex, &mut losses));
        (String::from_utf8(out).unwrap(), losses.to_string())
    }

    fn function(name: &'static str, namespace: Option<&'static str>) -> Tool<'static> {
        let namespace = namespace.map(Into::into);
        Tool::Function {
            name: name.into(),
            namespace,
            description: None,
            schema: None,
            strict: None,
            cache: None,
        }
    }

    const F: &str =
        r#"{"type":"function","name":"f","parameters":{"type":"object","properties":{}},"strict":false}"#;

    #[test]
    fn names_are_flat_and_namespaces_are_nested() {
        let request = Request {
            tools: vec![
                function("f", None),
                function("f", Some("ns")),
                Tool::Custom {
                    name: "g".into(),
                    namespace: Some("ns".into()),
                    description: Some("d".into()),
                    format: Some(RawJson(r#"{"type":"text"}"#.into())),
                },
            ],
            tool_choice: Some(ToolChoice::Allowed { required: false, names: vec!["f".into(), "g".into()] }),
            ..Request::default()
        };
        let custom = r#"{"type":"custom","name":"g","description":"d","format":{"type":"text"}}"#;
        let (out, losses) = write(&request, true);
        assert_eq!(
            out,
            format!(
                r#"{{"tools":[{F},{{"type":"namespace","name":"ns","description":"","tools":[{F},{custom}]}}],"tool_choice":{{"type":"allowed_tools","mode":"auto","tools":[{{"type":"function","name":"f"}},{{"type":"custom","name":"g"}}]}},"parallel_tool_calls":true}}"#
            )
        );
        assert!(losses.is_empty());
    }

    #[test]
    fn web_search_of_any_format_is_one_tool() {
        let search = |location: &'static str| Builtin::WebSearch {
            allowed_domains: vec!["a.b".into()],
            blocked_domains: Vec::new(),
            max_uses: Some(3),
            user_location: Some(RawJson(location.into())),
            context_size: None,
        };
        for location in [
            r#"{"city":"Paris","type":"approximate"}"#,
            r#"{"type":"approximate","approximate":{"city":"Paris"}}"#,
        ] {
            let request = Request {
                tools: vec![Tool::Builtin(search(location))],
                tool_choice: Some(ToolChoice::Builtin("web_search_20250305".into())),
                ..Request::default()
            };
            let (out, losses) = write(&request, false);
            assert_eq!(
                out,
                r#"{"tools":[{"type":"web_search","filters":{"allowed_domains":["a.b"]},"user_location":{"city":"Paris","type":"approximate"}}],"tool_choice":{"type":"web_search"}}"#
            );
            assert_eq!(losses, "setting tools");
        }
    }

    #[test]
    fn without_tools_there_is_no_choice() {
        let claude = Builtin::Other {
            vendor: Protocol::Claude,
            kind: "bash_20250124".into(),
            raw: RawJson("{}".into()),
        };
        let request = Request {
            tools: vec![Tool::Builtin(claude), Tool::Builtin(Builtin::CodeExecution)],
            tool_choice: Some(ToolChoice::Any),
            parallel_tools: Some(false),
            ..Request::default()
        };
        let (out, losses) = write(&request, true);
        assert_eq!(out, "{}");
        assert_eq!(losses, "builtin-tool tools, builtin-tool tools, setting tool_choice");
        assert!(
            write(&request, false).0.contains(r#"{"type":"code_interpreter","container":{"type":"auto"}}"#)
        );
    }
}
