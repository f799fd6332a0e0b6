//! Settings → `generationConfig`.
//!
//! Enters: limits, sampling, format and the planned thinking. Leaves: the object, when there is anything in it.
//! May go wrong: values out of the API's range move to the nearest and are recorded.

use super::flavour::Flavour;
use crate::ir::{Builtin, Format, LossKind, Losses, Request, Tool, ToolChoice};
use crate::json::{self, Object, Path};
use crate::schema::{self, Dialect};
use crate::target::{Card, Profile, Target};
use crate::thinking::{Level, Mode, Support, fit_claude_budget};

/// Most stop sequences the API takes.
const MAX_STOPS: usize = 5;
/// Most candidates the API gives.
const MAX_CANDIDATES: u64 = 8;
/// Most alternatives per token the API gives.
const MAX_LOGPROBS: u64 = 20;

/// Writes `generationConfig` and `serviceTier`.
pub(super) fn write_config(
    o: &mut Object<'_>,
    request: &Request<'_>,
    target: &Target<'_>,
    losses: &mut Losses,
) {
    let flavour = Flavour::of(target);
    let mut config = Vec::new();
    json::object(&mut config, |o| {
        write_limits(o, request, target, flavour, losses);
        write_sampling(o, request, losses);
        write_format(o, request, flavour, losses);
        write_modalities(o, request, target);
    });
    if config != b"{}" {
        o.key("generationConfig").extend_from_slice(&config);
    }
    if let Some(tier) = request.service_tier.as_deref() {
        match tier.to_ascii_lowercase().as_str() {
            word @ ("flex" | "priority" | "standard") if flavour.profile == Profile::Gemini => {
                o.str("serviceTier", word);
            }
            "auto" | "default" | "standard" | "standard_only" => {}
            _ => losses.member(LossKind::Setting, "service_tier"),
        }
    }
}

/// Whether the model has to call a tool.
pub(super) fn is_forced(request: &Request<'_>) -> bool {
    matches!(
        request.tool_choice,
        Some(ToolChoice::Any | ToolChoice::Named { .. } | ToolChoice::Allowed { required: true, .. })
    )
}

/// Token limit, thinking, stops and candidates.
fn write_limits(
    o: &mut Object<'_>,
    request: &Request<'_>,
    target: &Target<'_>,
    flavour: Flavour,
    losses: &mut Losses,
) {
    let asked = request.limits.max_tokens;
    let capped = match (asked, target.card.max_output) {
        (Some(asked), Some(most)) if asked > most => {
            losses.member(LossKind::Clamped, "max_tokens");
            Some(most)
        }
        _ => asked,
    };
    if flavour.claude {
        let forced = is_forced(request);
        let mode = target.thinking.filter(|_| !forced);
        if forced && target.thinking.is_some_and(|mode| mode != Mode::Off) {
            losses.member(LossKind::Setting, "thinking");
        }
        let plan = claude_thinking(mode, capped, target.card, losses);
        if let Some(limit) = plan.limit {
            o.uint("maxOutputTokens", limit);
        }
        if let Some(budget) = plan.budget {
            o.object("thinkingConfig", |o| {
                o.uint("thinkingBudget", u64::from(budget));
                o.bool("includeThoughts", request.thinking.visible.unwrap_or(true));
            });
        }
    } else {
        match capped {
            // The backend limits its own models itself.
            Some(_) if flavour.profile == Profile::Antigravity => {
                losses.member(LossKind::Setting, "max_tokens");
            }
            Some(limit) => o.uint("maxOutputTokens", limit),
            None => {}
        }
        write_thinking(o, request, target);
    }
    let stops = &request.limits.stop;
    if stops.len() > MAX_STOPS {
        losses.member(LossKind::Clamped, "stop");
    }
    if !stops.is_empty() {
        o.array("stopSequences", |a| stops.iter().take(MAX_STOPS).for_each(|stop| a.str(stop)));
    }
    if let Some(choices @ 2..) = request.limits.choices {
        if choices > MAX_CANDIDATES {
            losses.member(LossKind::Clamped, "n");
        }
        o.uint("candidateCount", choices.min(MAX_CANDIDATES));
    }
}

/// `thinkingConfig` of Google's own models: a budget or a level, never both.
fn write_thinking(o: &mut Object<'_>, request: &Request<'_>, target: &Target<'_>) {
    let thinks = matches!(target.card.thinking, Support::Bounded(_));
    let visible = match target.thinking {
        Some(Mode::Off) => None,
        // Other formats show thinking that was asked for, unless the client said not to.
        Some(_) => Some(request.thinking.visible.unwrap_or(true)),
        None => request.thinking.visible.filter(|visible| *visible && thinks),
    };
    if target.thinking.is_none() && visible.is_none() {
        return;
    }
    o.object("thinkingConfig", |o| {
        if let Some(mode) = target.thinking {
            write_mode(o, mode);
        }
        if let Some(visible) = visible {
            o.bool("includeThoughts", visible);
        }
    });
}

/// The member that says how much to think.
pub(super) fn write_mode(o: &mut Object<'_>, mode: Mode) {
    match mode {
        // Leaving the member out would leave thinking on.
        Mode::Off => o.uint("thinkingBudget", 0),
        Mode::Auto => o.int("thinkingBudget", -1),
        Mode::Budget(tokens) => o.uint("thinkingBudget", u64::from(tokens)),
        Mode::Level(level) => o.str("thinkingLevel", &level.name().to_ascii_uppercase()),
    }
}

/// Budget and limit of a Claude model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClaudePlan {
    pub(super) budget: Option<u32>,
    pub(super) limit: Option<u64>,
}

/// Makes the budget smaller than the limit: Claude refuses anything else.
pub(super) fn claude_thinking(
    mode: Option<Mode>,
    limit: Option<u64>,
    card: &Card,
    losses: &mut Losses,
) -> ClaudePlan {
    let wanted = match mode {
        None | Some(Mode::Off) => return ClaudePlan { budget: None, limit },
        Some(Mode::Auto) => Level::Medium.budget(),
        Some(Mode::Level(level)) => level.budget(),
        Some(Mode::Budget(tokens)) => tokens,
    };
    let room = limit.or(card.max_output).unwrap_or_else(|| u64::from(wanted).saturating_add(8192));
    let budget = fit_claude_budget(wanted, room);
    if budget != Some(wanted) {
        losses.member(LossKind::Clamped, "thinking");
    }
    ClaudePlan { budget, limit: if budget.is_some() { Some(room) } else { limit } }
}

fn write_sampling(o: &mut Object<'_>, request: &Request<'_>, losses: &mut Losses) {
    let sampling = &request.sampling;
    for (name, value) in [
        ("temperature", sampling.temperature),
        ("topP", sampling.top_p),
        ("presencePenalty", sampling.presence_penalty),
        ("frequencyPenalty", sampling.frequency_penalty),
    ] {
        if let Some(value) = value {
            o.float(name, value);
        }
    }
    if let Some(top_k) = sampling.top_k {
        o.uint("topK", top_k);
    }
    if let Some(seed) = sampling.seed {
        // 32 bits in the API.
        let fitted = seed.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
        if fitted != seed {
            losses.member(LossKind::Clamped, "seed");
        }
        o.int("seed", fitted);
    }
    if let Some(alternatives) = request.logprobs {
        o.bool("responseLogprobs", true);
        if alternatives > 0 {
            o.uint("logprobs", alternatives.min(MAX_LOGPROBS));
        }
    }
}

fn write_format(o: &mut Object<'_>, request: &Request<'_>, flavour: Flavour, losses: &mut Losses) {
    let Some(format) = &request.format else { return };
    o.str("responseMimeType", "application/json");
    let Format::JsonSchema { schema, .. } = format else { return };
    let root = Path::Root;
    let at = root.key("format");
    if flavour.wrapped() {
        o.raw("responseSchema", schema::clean(schema, Dialect::Answer, &at, losses).schema.as_str());
    } else {
        o.raw("responseJsonSchema", schema::clean(schema, Dialect::GeminiApi, &at, losses).schema.as_str());
    }
}

fn write_modalities(o: &mut Object<'_>, request: &Request<'_>, target: &Target<'_>) {
    let draws = Flavour::draws(target.model)
        && request.tools.iter().any(|tool| matches!(tool, Tool::Builtin(Builtin::ImageGeneration(_))));
    let words: Vec<String> = match request.modalities.as_slice() {
        [] if draws => vec!["TEXT".to_owned(), "IMAGE".to_owned()],
        words => words.iter().map(|word| word.to_ascii_uppercase()).collect(),
    };
    if !words.is_empty() {
        o.array("responseModalities", |a| words.iter().for_each(|word| a.str(word)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::flavour::tests::target;
    use super::super::write_request::tests::{text, user, written_with};
    use super::*;
    use crate::ir::{Context, Limits, RawJson, Sampling};
    use crate::thinking::{Bounds, Thinking};
    use std::sync::LazyLock;

    static CARD: LazyLock<Card> = LazyLock::new(|| Card {
        thinking: Support::Bounded(Bounds {
            budget: Some((128, 32768)),
            off: true,
            auto: true,
            levels: vec![],
        }),
        max_output: Some(1000),
        context: None,
        ..Card::default()
    });

    static BIG: LazyLock<Card> = LazyLock::new(|| Card { max_output: Some(64000), ..Card::default() });

    fn asks() -> Request<'static> {
        Request { turns: vec![user(vec![text("q")])], ..Request::default() }
    }

    /// `generationConfig` and what was lost.
    fn config(
        request: &Request<'_>,
        profile: Profile,
        model: &'static str,
        mode: Option<Mode>,
    ) -> (String, String) {
        let mut losses = Losses::default();
        let target = Target { thinking: mode, ..target(profile, model, &CARD) };
        let value = written_with(request, &target, &mut Context::default(), &mut losses);
        (value.get("generationConfig").map(json::Json::to_text).unwrap_or_default(), losses.to_string())
    }

    fn pro(request: &Request<'_>) -> (String, String) {
        config(request, Profile::Gemini, "gemini-2.5-pro", None)
    }

    #[test]
    fn every_setting_has_its_member_and_its_range() {
        let request = Request {
            limits: Limits {
                max_tokens: Some(5000),
                stop: (0..6).map(|n| n.to_string().into()).collect(),
                choices: Some(9),
            },
            sampling: Sampling {
                temperature: Some(0.2),
                top_p: Some(0.8),
                top_k: Some(40),
                seed: Some(1 << 40),
                presence_penalty: Some(0.5),
                frequency_penalty: Some(0.25),
                logit_bias: None,
            },
            logprobs: Some(2),
            modalities: vec!["text".into(), "image".into()],
            ..asks()
        };
        let (out, losses) = pro(&request);
        assert_eq!(
            out,
            r#"{"maxOutputTokens":1000,"stopSequences":["0","1","2","3","4"],"candidateCount":8,"temperature":0.2,"topP":0.8,"presencePenalty":0.5,"frequencyPenalty":0.25,"topK":40,"seed":2147483647,"responseLogprobs":true,"logprobs":2,"responseModalities":["TEXT","IMAGE"]}"#
        );
        assert_eq!(losses, "clamped max_tokens, clamped stop, clamped n, clamped seed");
        assert_eq!(pro(&asks()).0, "");
    }

    #[test]
    fn formats_go_to_the_member_the_backend_reads() {
        let format = |format| Request { format: Some(format), ..asks() };
        assert_eq!(pro(&format(Format::JsonObject)).0, r#"{"responseMimeType":"application/json"}"#);
        let schema = RawJson(r#"{"type":"array","items":{"type":"number"}}"#.into());
        let request = format(Format::JsonSchema { name: None, description: None, schema, strict: None });
        assert_eq!(
            pro(&request).0,
            r#"{"responseMimeType":"application/json","responseJsonSchema":{"type":"array","items":{"type":"number"}}}"#
        );
        assert_eq!(
            config(&request, Profile::GeminiCli, "gemini-2.5-pro", None).0,
            r#"{"responseMimeType":"application/json","responseSchema":{"type":"ARRAY","items":{"type":"NUMBER"}}}"#
        );
    }

    #[test]
    fn thinking_is_one_member_and_shown_when_it_was_asked_for() {
        let visible = |visible| Request { thinking: Thinking { visible, ..Thinking::default() }, ..asks() };
        for (mode, shown, expected) in [
            (Some(Mode::Off), None, r#""thinkingBudget":0"#),
            (Some(Mode::Auto), None, r#""thinkingBudget":-1,"includeThoughts":true"#),
            (Some(Mode::Budget(200)), Some(false), r#""thinkingBudget":200,"includeThoughts":false"#),
            (Some(Mode::Level(Level::High)), Some(true), r#""thinkingLevel":"HIGH","includeThoughts":true"#),
            (None, Some(true), r#""includeThoughts":true"#),
        ] {
            let (out, _) = config(&visible(shown), Profile::Gemini, "gemini-3-pro", mode);
            assert_eq!(out, format!(r#"{{"thinkingConfig":{{{expected}}}}}"#));
        }
        assert_eq!(pro(&visible(None)).0, "");
    }

    #[test]
    fn claude_behind_antigravity_thinks_less_than_it_may_write() {
        let limited = |max_tokens| Request { limits: Limits { max_tokens, ..Limits::default() }, ..asks() };
        let claude =
            |request: &Request<'_>, mode| config(request, Profile::Antigravity, "claude-sonnet-4-6", mode);
        let plan = |mode, limit| {
            let plan = claude_thinking(mode, limit, &BIG, &mut Losses::default());
            (plan.budget, plan.limit)
        };
        assert_eq!(plan(Some(Mode::Budget(8000)), Some(4096)), (Some(4095), Some(4096)));
        assert_eq!(plan(Some(Mode::Budget(8000)), None), (Some(8000), Some(64000)));
        assert_eq!(plan(Some(Mode::Auto), Some(800)), (None, Some(800)));
        assert_eq!(plan(Some(Mode::Off), Some(800)), (None, Some(800)));
        assert_eq!(claude(&limited(Some(900)), None).0, r#"{"maxOutputTokens":900}"#);
        let (out, losses) = config(&limited(Some(900)), Profile::Antigravity, "gemini-3-flash", None);
        assert_eq!((out.as_str(), losses.as_str()), ("", "setting max_tokens"));
    }

    #[test]
    fn tiers_that_nobody_has_are_named() {
        for (tier, kept, lost) in [("flex", true, false), ("auto", false, false), ("scale", false, true)] {
            let request = Request { service_tier: Some(tier.into()), ..asks() };
            let mut losses = Losses::default();
            let value = written_with(
                &request,
                &target(Profile::Gemini, "g", &CARD),
                &mut Context::default(),
                &mut losses,
            );
            assert_eq!((value.get("serviceTier").is_some(), !losses.is_empty()), (kept, lost), "{tier}");
        }
    }
}
