//! Same format on both sides: the client's bytes, with the few members changed that have to be.
//!
//! Enters: a body that [`crate::head`] has checked. Leaves: the same bytes apart from: the model's name;
//! thinking asked for by the model's name; thinking that the model or a forced tool excludes; `betas`, which
//! the app has made a header of; and what [`super::patch_messages`] finds. May go wrong: nothing; everything
//! else that the API refuses is for the API to refuse.

use super::patch_messages;
use super::settings;
use crate::head::Head;
use crate::ir::{LossKind, Losses};
use crate::json::{self, parse_any};
use crate::patch::{Patch, members};
use crate::target::Target;
use crate::thinking::{Mode, Support, fit_claude_budget};
use std::borrow::Cow;
use std::ops::Range;

/// Values of the top-level members that matter, as positions.
#[derive(Default)]
struct Found {
    max_tokens: Option<Range<usize>>,
    messages: Option<Range<usize>>,
    output_config: Option<Range<usize>>,
    system: Option<Range<usize>>,
    thinking: Option<Range<usize>>,
    tool_choice: Option<Range<usize>>,
    /// Start of the body's object.
    root: usize,
}

/// Changes `body`; `unwanted` are further members that must not go out.
pub(super) fn patch<'a>(
    body: &'a [u8],
    head: &Head,
    target: &Target<'_>,
    unwanted: &[&str],
    losses: &mut Losses,
) -> Cow<'a, [u8]> {
    let mut patch = Patch::new(body);
    let model = json::string(target.model);
    if let Some(span) = head.model_span.clone()
        && body.get(span.clone()) != Some(model.as_bytes())
    {
        patch.replace(span, model);
    }
    let root = body.iter().position(|b| *b == b'{').unwrap_or_default();
    let mut found = Found { root, ..Found::default() };
    for member in members(body, root) {
        match member.key {
            b"max_tokens" => found.max_tokens = Some(member.value),
            b"messages" => found.messages = Some(member.value),
            b"output_config" => found.output_config = Some(member.value),
            b"system" => found.system = Some(member.value),
            b"thinking" => found.thinking = Some(member.value),
            b"tool_choice" => found.tool_choice = Some(member.value),
            b"betas" => patch.remove(root, "betas"),
            key => {
                if let Some(key) = unwanted.iter().find(|u| u.as_bytes() == key) {
                    patch.remove(root, key);
                }
            }
        }
    }
    if unwanted.contains(&"max_tokens") && found.max_tokens.take().is_some() {
        patch.remove(root, "max_tokens");
    }
    if let Some(system) = &found.system {
        patch_messages::system(body, system.clone(), root, &mut patch);
    }
    let broken_loop = found.messages.as_ref().is_some_and(|messages| {
        patch_messages::messages(body, messages.clone(), target.model, &mut patch, losses)
    });
    set_thinking(body, &found, target, broken_loop, &mut patch, losses);
    if patch.is_empty() { Cow::Borrowed(body) } else { Cow::Owned(patch.apply()) }
}

/// Thinking as the suffix has it, or as the client has it, as far as the model and the tools allow.
fn set_thinking(
    body: &[u8],
    found: &Found,
    target: &Target<'_>,
    broken_loop: bool,
    patch: &mut Patch<'_>,
    losses: &mut Losses,
) {
    let thinking = found.thinking.clone().and_then(|span| text_of(body, span));
    let kind = thinking.and_then(|text| member(text, "type")).unwrap_or_default();
    let on = match target.thinking {
        Some(mode) => mode != Mode::Off,
        None => matches!(kind.as_ref(), "enabled" | "adaptive" | "auto" | "between_tools"),
    };
    let budget = match target.thinking {
        Some(mode) => matches!(mode, Mode::Budget(_)),
        None => kind == "enabled",
    };
    let forced = found
        .tool_choice
        .clone()
        .and_then(|span| member(text_of(body, span)?, "type"))
        .is_some_and(|kind| kind == "any" || kind == "tool");
    if target.card.thinking == Support::Never || (on && forced) || (budget && broken_loop) {
        let has_effort = found.output_config.clone().is_some_and(|span| has(body, span.start, "effort"));
        if found.thinking.is_some() || has_effort || target.thinking.is_some() {
            losses.member(LossKind::Clamped, "thinking");
        }
        return take_thinking_out(body, found, patch);
    }
    let most = found.max_tokens.clone().and_then(|span| text_of(body, span));
    let most = most.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    let Some(asked) = target.thinking else {
        return fit_budget(body, found, thinking, most, patch, losses);
    };
    let mode = match asked {
        Mode::Budget(tokens) => fit_claude_budget(tokens, most).map(Mode::Budget),
        other => Some(other),
    };
    if mode != Some(asked) {
        losses.member(LossKind::Clamped, "thinking");
    }
    let Some(mode) = mode else { return take_thinking_out(body, found, patch) };
    let display = thinking.and_then(|text| member(text, "display"));
    let visible = display.map(|word| word == "summarized");
    patch.set(found.root, "thinking", settings::thinking_object(mode, visible));
    if let Mode::Level(level) = mode {
        let word = json::string(settings::effort(level));
        match &found.output_config {
            Some(config) if body.get(config.start) == Some(&b'{') => patch.set(config.start, "effort", word),
            _ => patch.set(found.root, "output_config", format!("{{\"effort\":{word}}}")),
        }
    } else {
        take_effort_out(body, found, patch);
    }
    if mode != Mode::Off {
        // They are illegal with thinking, which the client did not know of.
        for key in ["temperature", "top_k", "top_p"] {
            if has(body, found.root, key) {
                patch.remove(found.root, key);
                losses.member(LossKind::Setting, key);
            }
        }
    }
}

/// Makes the client's own budget fit below its limit, which the API would refuse it for.
fn fit_budget(
    body: &[u8],
    found: &Found,
    thinking: Option<&str>,
    most: u64,
    patch: &mut Patch<'_>,
    losses: &mut Losses,
) {
    let (Some(text), Some(span)) = (thinking, &found.thinking) else { return };
    let Some(member) = members(text.as_bytes(), 0).find(|member| member.key == b"budget_tokens") else {
        return;
    };
    let Some(tokens) = text.get(member.value).and_then(|number| number.parse().ok()) else { return };
    match fit_claude_budget(tokens, most) {
        Some(fitted) if fitted == tokens => return,
        Some(fitted) => patch.set(span.start, "budget_tokens", fitted.to_string()),
        None => take_thinking_out(body, found, patch),
    }
    losses.member(LossKind::Clamped, "thinking");
}

fn take_thinking_out(body: &[u8], found: &Found, patch: &mut Patch<'_>) {
    if found.thinking.is_some() {
        patch.remove(found.root, "thinking");
    }
    take_effort_out(body, found, patch);
}

/// Removes the effort, and with it an `output_config` that says nothing else.
fn take_effort_out(body: &[u8], found: &Found, patch: &mut Patch<'_>) {
    let Some(config) = &found.output_config else { return };
    let keys: Vec<_> = members(body, config.start).map(|member| member.key).collect();
    if keys == [b"effort"] {
        patch.remove(found.root, "output_config");
    } else if keys.contains(&b"effort".as_slice()) {
        patch.remove(config.start, "effort");
    }
}

fn has(body: &[u8], object: usize, key: &str) -> bool {
    members(body, object).any(|member| member.key == key.as_bytes())
}

fn text_of(body: &[u8], span: Range<usize>) -> Option<&str> {
    std::str::from_utf8(body.get(span)?).ok()
}

/// A string member of the object in `text`.
fn member<'t>(text: &'t str, key: &str) -> Option<Cow<'t, str>> {
    let found = members(text.as_bytes(), 0).find(|member| member.key == key.as_bytes())?;
    parse_any(text.as_bytes().get(found.value)?).ok()?.into_str()
}
