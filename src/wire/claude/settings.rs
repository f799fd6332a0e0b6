//! `max_tokens`, `thinking`, sampling and `output_config`: what excludes what.
//!
//! Enters: the client's settings and the target's facts. Leaves: a combination that the API takes. May go
//! wrong: nothing; what had to go is recorded. Rules, all documented 400s:
//! - 1024 ≤ `budget_tokens` < `max_tokens`.
//! - No thinking with a forced tool; no budget when the answer has been begun, or when the tool loop that it
//!   continues began without thinking of this vendor.
//! - With thinking no `temperature`, no `top_k`, and `top_p` from 0.95.
//! - Not both `temperature` and `top_p` (Claude 4.1 and later); neither, nor `top_k`, since Claude 4.7, the
//!   first that lists the effort `xhigh`.

use crate::ir::{Format, LossKind, Losses, Request};
use crate::json;
use crate::target::Target;
use crate::thinking::{Level, Mode, Support, fit_claude_budget};

/// What a model writes at most, when neither the client nor the model's card says.
const DEFAULT_MAX_TOKENS: u64 = 32_000;

/// What the messages say about thinking.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Conversation {
    /// The last turn is the start of the answer.
    pub(super) begun: bool,
    /// The last turn has results of tools, and no turn of the loop that they belong to has thinking.
    pub(super) loop_without_thinking: bool,
}

/// `max_tokens`, within the model's own limit.
pub(super) fn max_tokens(request: &Request<'_>, target: &Target<'_>, losses: &mut Losses) -> u64 {
    let most = target.card.max_output;
    let Some(asked) = request.limits.max_tokens else { return most.unwrap_or(DEFAULT_MAX_TOKENS) };
    let fitted = asked.min(most.unwrap_or(u64::MAX)).max(1);
    if fitted != asked {
        losses.member(LossKind::Clamped, "max_tokens");
    }
    fitted
}

/// How much to think, after the rules. `max_tokens` is `None` where the body has none.
pub(super) fn thinking(
    target: &Target<'_>,
    max_tokens: Option<u64>,
    forced: bool,
    conversation: Conversation,
    losses: &mut Losses,
) -> Option<Mode> {
    let asked = target.thinking?;
    let kept = match asked {
        Mode::Off => Some(Mode::Off),
        _ if forced => None,
        Mode::Budget(_) if conversation.begun || conversation.loop_without_thinking => None,
        Mode::Budget(tokens) => fit_claude_budget(tokens, max_tokens.unwrap_or(u64::MAX)).map(Mode::Budget),
        Mode::Level(_) | Mode::Auto => Some(asked),
    };
    if kept != Some(asked) {
        losses.member(LossKind::Clamped, "thinking");
    }
    kept
}

/// Whether the answer may be begun by the client: the models that take an effort refuse it.
pub(super) fn takes_prefill(target: &Target<'_>) -> bool {
    !matches!(&target.card.thinking, Support::Bounded(bounds) if !bounds.levels.is_empty())
}

/// Writes `thinking`.
pub(super) fn write_thinking(o: &mut json::Object<'_>, mode: Option<Mode>, visible: Option<bool>) {
    if let Some(mode) = mode {
        o.key("thinking").extend_from_slice(&thinking_object(mode, visible));
    }
}

/// The value of `thinking`.
pub(super) fn thinking_object(mode: Mode, visible: Option<bool>) -> Vec<u8> {
    let mut out = Vec::new();
    json::object(&mut out, |o| {
        match mode {
            Mode::Off => return o.str("type", "disabled"),
            Mode::Budget(tokens) => {
                o.str("type", "enabled");
                o.uint("budget_tokens", u64::from(tokens));
            }
            Mode::Level(_) | Mode::Auto => o.str("type", "adaptive"),
        }
        if let Some(visible) = visible {
            o.str("display", if visible { "summarized" } else { "omitted" });
        }
    });
    out
}

/// The word for `output_config.effort`.
pub(super) fn effort(level: Level) -> &'static str {
    match level {
        Level::Minimal => Level::Low.name(),
        other => other.name(),
    }
}

/// Writes `output_config`, where there is something to say.
pub(super) fn write_output_config(
    o: &mut json::Object<'_>,
    request: &Request<'_>,
    mode: Option<Mode>,
    losses: &mut Losses,
) {
    let level = if let Some(Mode::Level(level)) = mode { Some(level) } else { None };
    let schema = match &request.format {
        Some(Format::JsonSchema { schema, .. }) => Some(schema),
        Some(Format::JsonObject) => {
            losses.member(LossKind::Setting, "response_format");
            None
        }
        None => None,
    };
    if level.is_none() && schema.is_none() {
        return;
    }
    o.object("output_config", |o| {
        o.opt_str("effort", level.map(effort));
        if let Some(schema) = schema {
            o.object("format", |o| {
                o.str("type", "json_schema");
                o.raw("schema", schema.as_str());
            });
        }
    });
}

/// Writes `temperature`, `top_p` and `top_k`, as far as they are legal.
pub(super) fn write_sampling(
    o: &mut json::Object<'_>,
    request: &Request<'_>,
    target: &Target<'_>,
    mode: Option<Mode>,
    losses: &mut Losses,
) {
    let sampling = &request.sampling;
    let claude = target.model.starts_with("claude-");
    let refused =
        claude && matches!(&target.card.thinking, Support::Bounded(b) if b.levels.contains(&Level::Xhigh));
    let thinks = mode.is_some_and(|mode| mode != Mode::Off);
    let mut keep = |name: &str, value: Option<f64>, legal: bool| {
        if value.is_some() && !legal {
            losses.member(LossKind::Setting, name);
        }
        value.filter(|_| legal)
    };
    let temperature = keep("temperature", sampling.temperature, !refused && !thinks);
    let one_only = claude && temperature.is_some();
    let top_p_legal = |p: f64| !thinks || (0.95..=1.0).contains(&p);
    let top_p_legal = sampling.top_p.is_some_and(top_p_legal) && !refused && !one_only;
    let top_p = keep("top_p", sampling.top_p, top_p_legal);
    let top_k = keep("top_k", sampling.top_k.map(|k| k as f64), !refused && !thinks).and(sampling.top_k);
    for (name, value) in [("temperature", temperature), ("top_p", top_p)] {
        let Some(value) = value else { continue };
        let fitted = value.clamp(0.0, 1.0);
        if !(0.0..=1.0).contains(&value) {
            losses.member(LossKind::Clamped, name);
        }
        o.float(name, fitted);
    }
    if let Some(top_k) = top_k {
        o.uint("top_k", top_k);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{Card, Profile};
    use crate::thinking::Bounds;

    fn target(card: &Card, thinking: Option<Mode>) -> Target<'_> {
        Target { profile: Profile::Claude, model: "claude-x", card, stream: false, thinking, project: "" }
    }

    fn sampling(card: &Card, mode: Option<Mode>, request: &Request<'_>) -> (String, Losses) {
        let (mut out, mut losses) = (Vec::new(), Losses::default());
        json::object(&mut out, |o| write_sampling(o, request, &target(card, mode), mode, &mut losses));
        (String::from_utf8(out).unwrap(), losses)
    }

    #[test]
    fn budgets_fit_below_max_tokens_or_go() {
        let card = Card::default();
        let run = |budget, max| {
            let target = target(&card, Some(Mode::Budget(budget)));
            thinking(&target, Some(max), false, Conversation::default(), &mut Losses::default())
        };
        assert_eq!(run(24576, 2000), Some(Mode::Budget(1999)));
        assert_eq!(run(24576, 800), None);
    }

    #[test]
    fn forced_tools_and_foreign_tool_loops_end_thinking() {
        let card = Card::default();
        let foreign = Conversation { loop_without_thinking: true, begun: false };
        let run = |mode, forced, conversation| {
            thinking(&target(&card, Some(mode)), Some(64000), forced, conversation, &mut Losses::default())
        };
        assert_eq!(run(Mode::Level(Level::High), true, Conversation::default()), None);
        assert_eq!(run(Mode::Off, true, Conversation::default()), Some(Mode::Off));
        assert_eq!(run(Mode::Budget(2000), false, foreign), None);
        assert_eq!(run(Mode::Level(Level::High), false, foreign), Some(Mode::Level(Level::High)));
    }

    #[test]
    fn sampling_gives_way_to_thinking_and_to_the_model() {
        let mut request = Request::default();
        request.sampling.temperature = Some(1.7);
        request.sampling.top_p = Some(0.9);
        request.sampling.top_k = Some(5);
        let (text, losses) = sampling(&Card::default(), None, &request);
        assert_eq!(text, r#"{"temperature":1.0,"top_k":5}"#);
        assert_eq!(losses.to_string(), "setting top_p, clamped temperature");
        assert_eq!(sampling(&Card::default(), Some(Mode::Budget(2000)), &request).0, "{}");
        let levels = vec![Level::High, Level::Xhigh];
        let card =
            Card { thinking: Support::Bounded(Bounds { levels, ..Bounds::default() }), ..Card::default() };
        assert_eq!(sampling(&card, None, &request).0, "{}");
    }

    #[test]
    fn max_tokens_comes_from_the_client_then_the_card() {
        let card = Card { max_output: Some(8192), ..Card::default() };
        let run = |asked, card: &Card| {
            let mut request = Request::default();
            request.limits.max_tokens = asked;
            max_tokens(&request, &target(card, None), &mut Losses::default())
        };
        assert_eq!(run(Some(321), &card), 321);
        assert_eq!(run(Some(100_000), &card), 8192);
        assert_eq!(run(None, &card), 8192);
        assert_eq!(run(None, &Card::default()), 32_000);
    }
}
