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
use crate::patch::{Patch, members, scanned};
use crate::target::Target;
use crate::thinking::{Level, Mode, Support, fit_claude_budget};
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
    let mut patch = Patch::scanned(body, &head.members);
    let model = json::string(target.model);
    if let Some(span) = head.model_span.clone()
        && body.get(span.clone()) != Some(model.as_bytes())
    {
        patch.replace(span, model);
    }
    let root = body.iter().position(|b| *b == b'{').unwrap_or_default();
    if head.stream && !target.stream {
        patch.remove(root, "stream");
    }
    let mut found = Found { root, ..Found::default() };
    for member in scanned(body, &head.members) {
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
        if found.thinking.is_none() {
            return fit_effort(body, found, target, patch, losses);
        }
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

/// An effort without thinking, as far as the model takes efforts.
fn fit_effort(body: &[u8], found: &Found, target: &Target<'_>, patch: &mut Patch<'_>, losses: &mut Losses) {
    let (Some(config), Support::Bounded(bounds)) = (&found.output_config, &target.card.thinking) else {
        return;
    };
    let word = text_of(body, config.clone()).and_then(|text| member(text, "effort"));
    let Some(asked) = word.as_deref().and_then(Level::parse) else { return };
    match bounds.nearest(asked) {
        Some(level) if level == asked => return,
        Some(level) => patch.set(config.start, "effort", json::string(settings::effort(level))),
        None => take_effort_out(body, found, patch),
    }
    losses.member(LossKind::Clamped, "output_config");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;
    use crate::target::{Card, Profile};
    use crate::thinking::Bounds;
    use proptest::prelude::*;

    fn run(body: &str, thinking: Option<Mode>, card: &Card) -> (String, bool, Losses) {
        let mut losses = Losses::default();
        let head = crate::head::parse(body.as_bytes(), Protocol::Claude).unwrap();
        let profile = Profile::Claude;
        let target = Target { profile, model: "claude-x", card, stream: false, thinking, project: "" };
        let out = patch(body.as_bytes(), &head, &target, &[], &mut losses);
        let borrowed = matches!(out, Cow::Borrowed(_));
        (String::from_utf8(out.into_owned()).unwrap(), borrowed, losses)
    }

    fn text(body: &str, thinking: Option<Mode>) -> String {
        run(body, thinking, &Card::default()).0
    }

    /// A body with `members` before its messages.
    fn with(members: &str) -> String {
        format!(r#"{{"model":"claude-x",{members}"messages":[{{"role":"user","content":"q"}}]}}"#)
    }

    #[test]
    fn p33_what_needs_no_change_is_borrowed() {
        let body = r#" { "model" : "claude-x", "max_tokens":1.0e3, "system":[ {"type":"text","text":"\u00e9"} ],
            "messages":[{"role":"user","content":[{"type":"text","text":"thinking"}]}], "new":[1 , 2] }"#;
        assert!(run(body, None, &Card::default()).1);
    }

    #[test]
    fn the_model_is_named_and_betas_are_for_the_app() {
        let body = r#"{"betas": ["b"], "model":"a","messages":[{"role":"user","content":"q"}]}"#;
        assert_eq!(text(body, None), r#"{"model":"claude-x","messages":[{"role":"user","content":"q"}]}"#);
    }

    #[test]
    fn thinking_of_the_model_name_wins() {
        let body = with(
            r#""max_tokens":9000,"temperature":0.5,"thinking":{"type":"adaptive","display":"omitted"},"output_config":{"effort":"max"},"#,
        );
        assert_eq!(
            text(&body, Some(Mode::Budget(8192))),
            with(
                r#""max_tokens":9000,"thinking":{"type":"enabled","budget_tokens":8192,"display":"omitted"},"#
            )
        );
        assert_eq!(
            text(&body, Some(Mode::Level(Level::Low))),
            with(
                r#""max_tokens":9000,"thinking":{"type":"adaptive","display":"omitted"},"output_config":{"effort":"low"},"#
            )
        );
        assert_eq!(
            text(&body, Some(Mode::Off)),
            with(r#""max_tokens":9000,"temperature":0.5,"thinking":{"type":"disabled"},"#)
        );
        let small = with(r#""max_tokens":800,"#);
        let (out, _, losses) = run(&small, Some(Mode::Budget(8192)), &Card::default());
        assert_eq!((out, losses.to_string()), (small, "clamped thinking".to_owned()));
    }

    #[test]
    fn an_effort_without_thinking_is_one_that_the_model_takes() {
        let fitted = |levels: &[Level]| {
            let bounds = Bounds { budget: Some((1024, 64000)), levels: levels.to_vec(), ..Bounds::default() };
            let card = Card { thinking: Support::Bounded(bounds), ..Card::default() };
            run(&with(r#""output_config":{"effort":"max"},"#), None, &card).0
        };
        assert_eq!(fitted(&[Level::Low, Level::High]), with(r#""output_config":{"effort":"high"},"#));
        assert_eq!(fitted(&[Level::Max]), with(r#""output_config":{"effort":"max"},"#));
        assert_eq!(fitted(&[]), with(""));
    }

    #[test]
    fn thinking_gives_way_to_a_forced_tool_and_to_the_model() {
        let body = with(
            r#""thinking":{"type":"enabled","budget_tokens":2048},"output_config":{"effort":"low","format":{}},"tool_choice":{"type":"any"},"max_tokens":8192,"#,
        );
        assert_eq!(
            text(&body, None),
            with(r#""output_config":{"format":{}},"tool_choice":{"type":"any"},"max_tokens":8192,"#)
        );
        let never = Card { thinking: Support::Never, ..Card::default() };
        let body = with(r#""thinking":{"type":"enabled","budget_tokens":2048},"max_tokens":8192,"#);
        assert_eq!(run(&body, None, &never).0, with(r#""max_tokens":8192,"#));
    }

    #[test]
    fn a_budget_that_does_not_fit_is_made_to_fit() {
        let body = |budget| {
            with(&format!(r#""max_tokens":4096,"thinking":{{"type":"enabled","budget_tokens":{budget}}},"#))
        };
        assert_eq!(text(&body(8000), None), body(4095));
        assert_eq!(text(&body(2000), None), body(2000));
    }

    proptest! {
        #[test]
        fn p33_only_the_model_changes(text in "(?s)[^\\x00-\\x1f]{1,30}", number in "-?[1-9][0-9]{0,3}(\\.[0-9]e2)?") {
            prop_assume!(!text.trim().is_empty());
            let words = json::string(&text);
            let body = |model: &str| format!(
                r#"{{"x" : {number}, "model": "{model}" , "messages":[ {{"role":"user", "content":[{{"type":"text","text":{words}}}]}} ],"y":[{number},{words}] }}"#
            );
            prop_assert_eq!(self::text(&body("a"), None), body("claude-x"));
        }
    }
}
