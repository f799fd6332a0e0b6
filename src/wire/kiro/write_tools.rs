//! Tools → specifications.
//!
//! Enters: the request's tools and the calls of its history. Leaves: specifications; every tool that the
//! history calls has one, because the service refuses the request otherwise. May go wrong: nothing; built-in
//! tools are dropped and recorded.

use super::WireNames;
use super::conversation::Conversation;
use crate::ir::{LossKind, Losses, Request, Tool, ToolChoice};
use crate::json::{Array, Path};
use crate::schema::object_root;
use std::borrow::Cow;
use std::collections::HashSet;

/// Most bytes of a description.
const DESCRIPTION_MAX: usize = 10_237;

/// What a tool without arguments declares.
const NO_ARGUMENTS: &str = r#"{"type":"object","properties":{}}"#;

/// A tool as the service takes it.
pub(super) struct Spec<'r> {
    name: &'r str,
    description: Cow<'r, str>,
    schema: Cow<'r, str>,
}

/// The specifications of a request. `chat`: the model is asked for without tools.
pub(super) fn specs<'r>(
    request: &'r Request<'_>,
    conversation: &Conversation<'r>,
    names: WireNames,
    chat: bool,
    losses: &mut Losses,
) -> Vec<Spec<'r>> {
    let allowed = match &request.tool_choice {
        Some(ToolChoice::Allowed { names, .. }) => Some(names),
        _ => None,
    };
    let called: HashSet<&str> = conversation.calls().map(|call| call.name.as_ref()).collect();
    // A choice of none is certain only where there is nothing to choose from.
    let none = chat || matches!(request.tool_choice, Some(ToolChoice::None));
    if chat && !request.tools.is_empty() {
        losses.member(LossKind::Setting, "tools");
    }
    let (root, mut specs) = (Path::Root, Vec::new());
    let all = root.key("tools");
    for (n, tool) in request.tools.iter().enumerate() {
        let (name, description, schema) = match tool {
            Tool::Function { name, description, schema, .. } => (name, description, schema.as_ref()),
            // `lower` has made functions of these.
            Tool::Custom { name, description, .. } => (name, description, None),
            Tool::Builtin(_) => {
                losses.at(LossKind::Builtin, &all.index(n));
                continue;
            }
        };
        let kept = !none && allowed.is_none_or(|allowed| allowed.contains(name));
        if kept || called.contains(name.as_ref()) {
            let schema = match schema {
                Some(schema) => Cow::Owned(object_root(schema).0.into_owned()),
                None => Cow::Borrowed(NO_ARGUMENTS),
            };
            let description = describe(name, description.as_deref(), &all.index(n), losses);
            specs.push(Spec { name: names.get(name), description, schema });
        }
    }
    let mut known: HashSet<&str> = specs.iter().map(|spec| spec.name).collect();
    for call in conversation.calls() {
        let name = names.get(&call.name);
        if known.insert(name) {
            specs.push(Spec { name, description: name.into(), schema: Cow::Borrowed(NO_ARGUMENTS) });
        }
    }
    specs
}

/// A description that is not empty and not too long.
fn describe<'r>(
    name: &'r str,
    description: Option<&'r str>,
    path: &Path<'_>,
    losses: &mut Losses,
) -> Cow<'r, str> {
    let text = description.filter(|text| !text.trim().is_empty()).unwrap_or(name);
    if text.len() <= DESCRIPTION_MAX {
        return Cow::Borrowed(text);
    }
    losses.at(LossKind::Clamped, &path.key("description"));
    let end = text.floor_char_boundary(DESCRIPTION_MAX - 3);
    Cow::Owned(format!("{}...", text.get(..end).unwrap_or_default()))
}

/// Writes `specs` as the elements of `tools`.
pub(super) fn write(specs: &[Spec<'_>], a: &mut Array<'_>) {
    for spec in specs {
        a.object(|o| {
            o.object("toolSpecification", |o| {
                o.str("name", spec.name);
                o.str("description", &spec.description);
                o.object("inputSchema", |o| o.raw("json", &spec.schema));
            });
        });
    }
}
