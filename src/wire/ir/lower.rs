//! Makes a request fit any target: what all four APIs refuse is mended here, once.
//!
//! Enters: turns as the client sent them. Leaves, and writers may rely on it:
//! - No blank text, no empty turn.
//! - Each tool call is answered once, by the user turn right after its assistant turn; that turn starts with
//!   all results, in call order, and no other turn has results.
//! - Call ids are non-empty, unique, and fit the target; tool names fit it and are unique; the way back is in
//!   [`Context::names`].
//! - A tool choice names only tools that are declared, and is gone when there are none.
//!
//! Policy per kind of loss:
//!
//! | what cannot be carried | what happens |
//! |---|---|
//! | result without a call | becomes user text: the user's content is never dropped |
//! | call without a result | gets a result that says so |
//! | second result of one call | the last content, at the first place |
//! | history of a built-in of another vendor | dropped, recorded |
//! | reasoning signed by another vendor | dropped, recorded |
//! | attachment the target cannot read | text that says what was there, recorded |
//! | file id of another vendor | text that says what was there, recorded |
//! | setting the target lacks | dropped, recorded |
//! | built-in tool the target lacks | dropped with a choice that names it, recorded |
//! | value out of range | moved to the nearest, recorded |

mod names;
mod pair;

pub(super) use names::bare_input;

use super::{Context, LossKind, Losses, Part, Request, Role, Text, Tool, ToolChoice, Turn};
use crate::names::NameRule;

/// What a target takes.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Patterns of names and ids.
    pub names: NameRule,
    /// It knows tools that take a bare string.
    pub custom_tools: bool,
    /// It knows namespaces of tools.
    pub namespaces: bool,
}

/// Makes `request` fit.
pub fn lower(request: &mut Request<'_>, rules: &Rules, context: &mut Context, losses: &mut Losses) {
    drop_blanks(&mut request.turns);
    pair::pair(&mut request.turns, losses);
    names::fit(request, rules, context, losses);
    check_choice(request, losses);
}

/// Merges neighbours of the same role, for targets that want roles to alternate. System turns stay apart.
pub fn merge_roles(turns: &mut Vec<Turn<'_>>) {
    turns.dedup_by(|next, kept| {
        let same = kept.role == next.role && matches!(kept.role, Role::User | Role::Assistant);
        if same {
            kept.parts.append(&mut next.parts);
        }
        same
    });
}

/// All vendors refuse blank text somewhere, and it means nothing anywhere.
fn drop_blanks(turns: &mut Vec<Turn<'_>>) {
    for turn in turns.iter_mut() {
        turn.parts.retain_mut(keep);
    }
    turns.retain(|turn| !turn.parts.is_empty());
}

fn keep(part: &mut Part<'_>) -> bool {
    match part {
        Part::Text(Text { text, signature, .. }) => !text.trim().is_empty() || signature.is_some(),
        Part::Refusal(text) => !text.trim().is_empty(),
        Part::ToolResult(result) => {
            result.parts.retain_mut(keep);
            true
        }
        Part::Reasoning(reasoning) => {
            reasoning.text.retain(|text| !text.is_empty());
            !reasoning.text.is_empty() || reasoning.signature.is_some() || reasoning.redacted.is_some()
        }
        _ => true,
    }
}

fn check_choice(request: &mut Request<'_>, losses: &mut Losses) {
    let declared = |name: &str| request.tools.iter().any(|tool| tool.name().is_some_and(|n| n == name));
    let keep = match &mut request.tool_choice {
        None => return,
        Some(_) if request.tools.is_empty() => false,
        Some(ToolChoice::Named { name, .. }) => declared(name),
        Some(ToolChoice::Allowed { names, .. }) => {
            names.retain(|name| declared(name));
            !names.is_empty()
        }
        Some(ToolChoice::Builtin(_)) => request.tools.iter().any(|t| matches!(t, Tool::Builtin(_))),
        Some(ToolChoice::Auto | ToolChoice::None | ToolChoice::Any) => true,
    };
    if !keep {
        request.tool_choice = None;
        losses.member(LossKind::Setting, "tool_choice");
    }
}
