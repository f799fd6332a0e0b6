//! Tools and the choice among them.
//!
//! Enters: the request's tools. Leaves: `tools` and `tool_choice`. May go wrong: nothing; built-ins of other
//! vendors are dropped and recorded.

use super::write_blocks::write_mark;
use crate::Protocol;
use crate::ir::{Builtin, CacheMark, LossKind, Losses, RawJson, Request, Str, Tool, ToolChoice};
use crate::json::{self, Json, Path};
use crate::schema::{NO_ARGUMENTS, object_root};

/// A tool to write.
pub(super) struct Declared<'r, 'a> {
    tool: &'r Tool<'a>,
    /// Its cache mark.
    pub(super) mark: Option<CacheMark>,
}

impl Declared<'_, '_> {
    /// Whether it may carry a cache mark.
    pub(super) fn takes_mark(&self) -> bool {
        !matches!(self.tool, Tool::Builtin(Builtin::ImageGeneration(_) | Builtin::Other { .. }))
    }
}

/// What the model has to call.
pub(super) enum Choice<'r> {
    Auto,
    Any,
    None,
    Named(&'r str),
}

impl Choice<'_> {
    /// Whether the model has to call something.
    pub(super) fn forces(&self) -> bool {
        matches!(self, Self::Any | Self::Named(_))
    }
}

/// The tools that go out: none of another vendor, none twice, and only those that the choice allows.
pub(super) fn declared<'r, 'a>(request: &'r Request<'a>, losses: &mut Losses) -> Vec<Declared<'r, 'a>> {
    let allowed = match &request.tool_choice {
        Some(ToolChoice::Allowed { names, .. }) => Some(names),
        _ => None,
    };
    let taken = |name: &str| request.tools.iter().any(|tool| tool.name().is_some_and(|n| n == name));
    let (root, mut tools) = (Path::Root, Vec::new());
    let all = root.key("tools");
    for (n, tool) in request.tools.iter().enumerate() {
        let mark = if let Tool::Function { cache, .. } = tool { *cache } else { None };
        let kept = match tool {
            Tool::Function { name, .. } | Tool::Custom { name, .. } => {
                allowed.is_none_or(|names| names.contains(name))
            }
            // Names are unique, and the client's own function is what its history speaks of.
            Tool::Builtin(builtin) => {
                let kept = builtin_name(builtin).is_some_and(|name| !taken(name)) && allowed.is_none();
                if !kept {
                    losses.at(LossKind::Builtin, &all.index(n));
                }
                kept
            }
        };
        if kept {
            tools.push(Declared { tool, mark });
        }
    }
    tools
}

/// The name of a built-in, which a choice calls it by; `None` when the API does not have it. Declarations of
/// this vendor are kept as they are: their names are not looked for.
fn builtin_name<'r>(builtin: &'r Builtin<'_>) -> Option<&'r str> {
    match builtin {
        Builtin::WebSearch { .. } => Some("web_search"),
        Builtin::CodeExecution => Some("code_execution"),
        Builtin::Other { vendor: Protocol::Claude, kind, .. } => Some(kind),
        Builtin::ImageGeneration(_) | Builtin::Other { .. } => None,
    }
}

/// The choice among `tools`, or `None` when nothing has to be said.
pub(super) fn choice<'r>(request: &'r Request<'_>, tools: &[Declared<'_, '_>]) -> Option<Choice<'r>> {
    if tools.is_empty() {
        return None;
    }
    let has = |name: &str| {
        tools.iter().any(|tool| match tool.tool {
            Tool::Builtin(builtin) => builtin_name(builtin) == Some(name),
            other => other.name().is_some_and(|n| n == name),
        })
    };
    let chosen = match request.tool_choice.as_ref() {
        None => None,
        Some(ToolChoice::Auto | ToolChoice::Allowed { required: false, .. }) => Some(Choice::Auto),
        Some(ToolChoice::None) => Some(Choice::None),
        Some(ToolChoice::Any) => Some(Choice::Any),
        Some(ToolChoice::Named { name, .. }) => has(name).then_some(Choice::Named(name)),
        Some(ToolChoice::Allowed { required: true, names }) => match names.as_slice() {
            [one] => has(one).then_some(Choice::Named(one)),
            _ => Some(Choice::Any),
        },
        Some(ToolChoice::Builtin(kind)) => {
            let name = if kind.starts_with("web_search") { "web_search" } else { "code_execution" };
            let known = name == "web_search" || kind.starts_with("code_");
            (known && has(name)).then_some(Choice::Named(name))
        }
    };
    // The wish for one call at a time needs a choice to hang on.
    chosen.or_else(|| (request.parallel_tools == Some(false)).then_some(Choice::Auto))
}

/// Writes `tools` and `tool_choice`.
pub(super) fn write(
    o: &mut json::Object<'_>,
    request: &Request<'_>,
    tools: &[Declared<'_, '_>],
    choice: Option<&Choice<'_>>,
    losses: &mut Losses,
) {
    if tools.is_empty() {
        return;
    }
    o.array("tools", |a| tools.iter().for_each(|tool| write_tool(a.item(), tool, losses)));
    let Some(choice) = choice else { return };
    o.object("tool_choice", |o| {
        match choice {
            Choice::Auto => o.str("type", "auto"),
            Choice::Any => o.str("type", "any"),
            Choice::None => return o.str("type", "none"),
            Choice::Named(name) => {
                o.str("type", "tool");
                o.str("name", name);
            }
        }
        if request.parallel_tools == Some(false) {
            o.bool("disable_parallel_tool_use", true);
        }
    });
}

fn write_tool(out: &mut Vec<u8>, declared: &Declared<'_, '_>, losses: &mut Losses) {
    match declared.tool {
        Tool::Function { name, description, schema, strict, .. } => json::object(out, |o| {
            o.str("name", name);
            o.opt_str("description", description.as_deref());
            input_schema(o, schema.as_ref(), losses);
            if *strict == Some(true) {
                o.bool("strict", true);
            }
            write_mark(o, declared.mark);
        }),
        // `lower` has made functions of these.
        Tool::Custom { name, description, .. } => json::object(out, |o| {
            o.str("name", name);
            o.opt_str("description", description.as_deref());
            o.raw("input_schema", NO_ARGUMENTS);
        }),
        Tool::Builtin(Builtin::WebSearch {
            allowed_domains,
            blocked_domains,
            max_uses,
            user_location,
            context_size,
        }) => json::object(out, |o| {
            o.str("type", "web_search_20250305");
            o.str("name", "web_search");
            if let Some(max_uses) = max_uses {
                o.uint("max_uses", *max_uses);
            }
            write_domains(o, allowed_domains, blocked_domains, losses);
            if let Some(location) = user_location {
                write_location(o, location);
            }
            if context_size.is_some() {
                losses.member(LossKind::Setting, "search_context_size");
            }
            write_mark(o, declared.mark);
        }),
        Tool::Builtin(Builtin::CodeExecution) => json::object(out, |o| {
            o.str("type", "code_execution_20250825");
            o.str("name", "code_execution");
            write_mark(o, declared.mark);
        }),
        Tool::Builtin(Builtin::ImageGeneration(raw) | Builtin::Other { raw, .. }) => {
            out.extend_from_slice(raw.as_str().as_bytes());
        }
    }
}

/// The API takes one of the two lists.
fn write_domains(o: &mut json::Object<'_>, allowed: &[Str<'_>], blocked: &[Str<'_>], losses: &mut Losses) {
    let (key, list) =
        if allowed.is_empty() { ("blocked_domains", blocked) } else { ("allowed_domains", allowed) };
    if !allowed.is_empty() && !blocked.is_empty() {
        losses.member(LossKind::Setting, "blocked_domains");
    }
    if !list.is_empty() {
        o.array(key, |a| list.iter().for_each(|domain| a.str(domain)));
    }
}

/// `user_location`, flat; Chat has the same members one level down, below `approximate`.
fn write_location(o: &mut json::Object<'_>, location: &RawJson<'_>) {
    let value = location.parse();
    let inner = value.get("approximate").unwrap_or(&value);
    let known: Vec<(&str, &str)> = ["city", "region", "country", "timezone"]
        .into_iter()
        .filter_map(|key| Some((key, inner.get(key).and_then(Json::as_str)?)))
        .collect();
    if !known.is_empty() {
        o.object("user_location", |o| {
            o.str("type", "approximate");
            for (key, text) in known {
                o.str(key, text);
            }
        });
    }
}

/// The API wants one, with an object at its root.
fn input_schema(o: &mut json::Object<'_>, schema: Option<&RawJson<'_>>, losses: &mut Losses) {
    let Some(schema) = schema else { return o.raw("input_schema", NO_ARGUMENTS) };
    let rooted = object_root(schema);
    if rooted != *schema {
        losses.member(LossKind::Schema, "tools");
    }
    o.raw("input_schema", rooted.as_str());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &'static str) -> Tool<'static> {
        Tool::Function {
            name: name.into(),
            namespace: None,
            description: None,
            schema: None,
            strict: None,
            cache: None,
        }
    }

    fn run(request: &Request<'_>) -> (String, Losses) {
        let (mut out, mut losses) = (Vec::new(), Losses::default());
        let tools = declared(request, &mut losses);
        let choice = choice(request, &tools);
        json::object(&mut out, |o| write(o, request, &tools, choice.as_ref(), &mut losses));
        (String::from_utf8(out).unwrap(), losses)
    }

    #[test]
    fn choices_of_all_formats_have_a_form_here() {
        let allowed = |required| ToolChoice::Allowed { required, names: vec!["g".into()] };
        for (choice, parallel, expected) in [
            (None, None, ""),
            (None, Some(false), r#""tool_choice":{"type":"auto","disable_parallel_tool_use":true}"#),
            (Some(ToolChoice::None), Some(false), r#""tool_choice":{"type":"none"}"#),
            (Some(ToolChoice::Any), None, r#""tool_choice":{"type":"any"}"#),
            (
                Some(allowed(true)),
                None,
                r#""tools":[{"name":"g","input_schema":{"type":"object","properties":{}}}],"tool_choice":{"type":"tool","name":"g"}"#,
            ),
            (Some(allowed(false)), None, r#""tool_choice":{"type":"auto"}"#),
            (
                Some(ToolChoice::Builtin("web_search_preview".into())),
                None,
                r#""tool_choice":{"type":"tool","name":"web_search"}"#,
            ),
        ] {
            let search = Tool::Builtin(Builtin::WebSearch {
                allowed_domains: vec!["a.b".into()],
                blocked_domains: vec![],
                max_uses: None,
                user_location: Some(RawJson(
                    r#"{"type":"approximate","approximate":{"city":"Bonn"}}"#.into(),
                )),
                context_size: None,
            });
            let request = Request {
                tools: vec![function("f"), function("g"), search],
                tool_choice: choice,
                parallel_tools: parallel,
                ..Request::default()
            };
            let (body, _) = run(&request);
            assert!(body.contains(expected), "{expected} is missing in {body}");
            assert_eq!(body.contains("tool_choice"), !expected.is_empty());
        }
    }

    #[test]
    fn built_ins_of_others_go_and_search_keeps_its_settings() {
        let tools = vec![
            Tool::Builtin(Builtin::ImageGeneration(RawJson("{}".into()))),
            Tool::Builtin(Builtin::CodeExecution),
            Tool::Builtin(Builtin::WebSearch {
                allowed_domains: vec!["a.b".into()],
                blocked_domains: vec!["c.d".into()],
                max_uses: Some(3),
                user_location: Some(RawJson(r#"{"approximate":{"city":"Bonn","x":1}}"#.into())),
                context_size: None,
            }),
        ];
        let request = Request { tools, ..Request::default() };
        let (body, losses) = run(&request);
        assert!(body.contains(
            r#""tools":[{"type":"code_execution_20250825","name":"code_execution"},{"type":"web_search_20250305","name":"web_search","max_uses":3,"allowed_domains":["a.b"],"user_location":{"type":"approximate","city":"Bonn"}}]"#
        ), "{body}");
        assert_eq!(losses.to_string(), "builtin-tool tools[0], setting blocked_domains");
    }
}
