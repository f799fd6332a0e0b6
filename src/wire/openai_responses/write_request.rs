//! [`Request`] → body for the public Responses API or for the Codex backend.
//!
//! Enters: a request that [`crate::ir::lower`] has mended. Leaves: a body. May go wrong: a conversation
//! without a word; settings that the target does not have are recorded.
//!
//! Clients of other formats do not expect their conversation to be kept: `store` is false, and reasoning
//! travels encrypted. Instructions go to `instructions`; for Codex to developer items behind an empty one,
//! because that backend has instructions of its own.

use super::write_items::Items;
use super::{LOGPROBS, codex, write_tools};
use crate::error::WireError;
use crate::ir::{Format, LossKind, Losses, Request};
use crate::json::{self, Object, Path};
use crate::names::{NameRule, fingerprint};
use crate::target::{Profile, Target};
use crate::thinking::{Level, Mode, Summary, Support};

/// Least `max_output_tokens` of the public API.
const LEAST_OUTPUT: u64 = 16;
/// Longest `safety_identifier`; Claude Code's user ids are longer.
const LONGEST_USER: usize = 64;

/// Writes the body.
pub(super) fn write_request(
    request: &Request<'_>,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Vec<u8>, WireError> {
    if request.turns.is_empty() && request.system.is_empty() {
        return Err(WireError::invalid(&Path::Key(&Path::Root, "input"), "the conversation is empty"));
    }
    let is_codex = target.profile == Profile::Codex;
    let mut out = Vec::new();
    json::object(&mut out, |o| {
        o.str("model", target.model);
        instructions(o, request, is_codex);
        input(o, request, is_codex, losses);
        write_tools::tools(o, request, is_codex, losses);
        reasoning(o, request, target);
        text(o, request);
        if !is_codex {
            limits(o, request, losses);
        }
        include(o, request, target);
        o.opt_str("prompt_cache_key", request.cache_key.as_deref());
        match request.service_tier.as_deref() {
            Some(tier) if !is_codex || tier == codex::PRIORITY => o.str("service_tier", tier),
            Some(_) => losses.member(LossKind::Setting, "service_tier"),
            None => {}
        }
        o.bool("store", false);
        o.bool("stream", is_codex || target.stream);
    });
    lost(request, is_codex, losses);
    Ok(out)
}

fn joined(request: &Request<'_>) -> String {
    let texts: Vec<&str> = request.system.iter().map(|line| line.text.as_ref()).collect();
    texts.join("\n\n")
}

fn instructions(o: &mut Object<'_>, request: &Request<'_>, is_codex: bool) {
    if is_codex {
        o.str("instructions", "");
    } else if !request.system.is_empty() && !request.turns.is_empty() {
        o.str("instructions", &joined(request));
    }
}

fn input(o: &mut Object<'_>, request: &Request<'_>, is_codex: bool, losses: &mut Losses) {
    let root = Path::Root;
    let turns = root.key("turns");
    o.array("input", |a| {
        let mut items = Items { out: a, codex: is_codex, losses };
        if request.turns.is_empty() {
            // Instructions alone: the model still needs something to answer.
            return items.text("user", &joined(request));
        }
        if is_codex {
            request.system.iter().for_each(|line| items.text("developer", &line.text));
        }
        for (n, turn) in request.turns.iter().enumerate() {
            items.turn(turn, &turns.index(n));
        }
    });
}

/// Reasoning travels with the client, so it has to come encrypted; models that do not think refuse to be asked.
fn include(o: &mut Object<'_>, request: &Request<'_>, target: &Target<'_>) {
    let thinks = target.thinking.is_some() || matches!(target.card.thinking, Support::Bounded(_));
    let is_codex = target.profile == Profile::Codex;
    let mut names = Vec::new();
    if is_codex || thinks {
        names.push(codex::ENCRYPTED);
    }
    if request.logprobs.is_some() && !is_codex {
        names.push(LOGPROBS);
    }
    names.extend(request.include.iter().map(AsRef::as_ref));
    names.sort_unstable();
    names.dedup();
    if !names.is_empty() {
        o.array("include", |a| names.iter().for_each(|name| a.str(name)));
    }
}

/// A summary is asked for when the client wants to see thinking, or asked for thinking and did not say.
fn reasoning(o: &mut Object<'_>, request: &Request<'_>, target: &Target<'_>) {
    let effort = target.thinking.and_then(effort_word);
    let asked = target.thinking.is_some_and(|mode| mode != Mode::Off);
    let never = target.card.thinking == Support::Never;
    let visible = request.thinking.visible.unwrap_or(asked) && effort != Some("none") && !never;
    if effort.is_none() && !visible {
        return;
    }
    o.object("reasoning", |o| {
        o.opt_str("effort", effort);
        if visible {
            o.str("summary", request.thinking.summary.unwrap_or(Summary::Auto).name());
        }
    });
}

/// The word of `reasoning.effort`; there is none for "decide yourself".
pub(super) fn effort_word(mode: Mode) -> Option<&'static str> {
    match mode {
        Mode::Off => Some("none"),
        Mode::Level(level) => Some(level.name()),
        Mode::Budget(tokens) => Some(Level::of_budget(tokens).name()),
        Mode::Auto => None,
    }
}

fn text(o: &mut Object<'_>, request: &Request<'_>) {
    if request.format.is_none() && request.verbosity.is_none() {
        return;
    }
    o.object("text", |o| {
        match &request.format {
            None => {}
            Some(Format::JsonObject) => o.object("format", |o| o.str("type", "json_object")),
            Some(Format::JsonSchema { name, description, schema, strict }) => o.object("format", |o| {
                o.str("type", "json_schema");
                let name = name.as_deref().filter(|name| !name.is_empty()).unwrap_or("response");
                if NameRule::OPENAI.allows(name) {
                    o.str("name", name);
                } else {
                    o.str("name", &NameRule::OPENAI.shorten(name));
                }
                o.opt_str("description", description.as_deref());
                o.raw("schema", schema.as_str());
                if let Some(strict) = strict {
                    o.bool("strict", *strict);
                }
            }),
        }
        o.opt_str("verbosity", request.verbosity.as_deref());
    });
}

/// What only the public API takes.
fn limits(o: &mut Object<'_>, request: &Request<'_>, losses: &mut Losses) {
    if let Some(most) = request.limits.max_tokens {
        if most < LEAST_OUTPUT {
            losses.member(LossKind::Clamped, "max_tokens");
        }
        o.uint("max_output_tokens", most.max(LEAST_OUTPUT));
    }
    if let Some(temperature) = request.sampling.temperature {
        o.float("temperature", temperature);
    }
    if let Some(top_p) = request.sampling.top_p {
        o.float("top_p", top_p);
    }
    if let Some(count) = request.logprobs {
        o.uint("top_logprobs", count);
    }
    if let Some(user) = request.user.as_deref() {
        if user.len() > LONGEST_USER {
            o.str("safety_identifier", &fingerprint(user.as_bytes()));
        } else {
            o.str("safety_identifier", user);
        }
    }
}

/// Records what has no member here.
fn lost(request: &Request<'_>, is_codex: bool, losses: &mut Losses) {
    let sampling = &request.sampling;
    let limits = &request.limits;
    let public = [
        ("max_tokens", limits.max_tokens.is_some()),
        ("temperature", sampling.temperature.is_some()),
        ("top_p", sampling.top_p.is_some()),
        ("logprobs", request.logprobs.is_some()),
        ("user", request.user.is_some()),
    ];
    let neither = [
        ("stop", !limits.stop.is_empty()),
        ("n", limits.choices.is_some_and(|n| n > 1)),
        ("top_k", sampling.top_k.is_some()),
        ("seed", sampling.seed.is_some()),
        ("presence_penalty", sampling.presence_penalty.is_some()),
        ("frequency_penalty", sampling.frequency_penalty.is_some()),
        ("logit_bias", sampling.logit_bias.is_some()),
        ("modalities", request.modalities.iter().any(|kind| kind != "text")),
        ("safety", request.safety.is_some()),
    ];
    let public = public.into_iter().filter(|_| is_codex);
    for (name, _) in public.chain(neither).filter(|(_, given)| *given) {
        losses.member(LossKind::Setting, name);
    }
    for (name, _) in &request.extra {
        losses.member(LossKind::Setting, name);
    }
}
