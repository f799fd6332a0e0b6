//! Which settings a request makes, by the names that losses are told under.
//!
//! Enters: a request. Leaves: names, for writers of formats that lack most of them: [`note_lost`] records all
//! but those that the writer says it can carry. Nothing may go wrong.

use super::loss::{LossKind, Losses};
use super::request::Request;

/// Records the settings that are made and that a format cannot say; `carried` are those that it can.
pub fn note_lost(request: &Request<'_>, carried: &[&str], losses: &mut Losses) {
    let sampling = &request.sampling;
    let made = [
        ("n", request.limits.choices.is_some_and(|n| n > 1)),
        ("stop", !request.limits.stop.is_empty()),
        ("top_k", sampling.top_k.is_some()),
        ("seed", sampling.seed.is_some()),
        ("presence_penalty", sampling.presence_penalty.is_some_and(|p| p != 0.0)),
        ("frequency_penalty", sampling.frequency_penalty.is_some_and(|p| p != 0.0)),
        ("logit_bias", sampling.logit_bias.is_some()),
        ("logprobs", request.logprobs.is_some()),
        ("verbosity", request.verbosity.is_some()),
        ("modalities", request.modalities.iter().any(|m| m != "text")),
        ("user", request.user.is_some()),
        ("prompt_cache_key", request.cache_key.is_some()),
        ("service_tier", request.service_tier.is_some()),
        ("safety_settings", request.safety.is_some()),
    ];
    for (name, _) in made.iter().filter(|(name, made)| *made && !carried.contains(name)) {
        losses.member(LossKind::Setting, name);
    }
    for (name, _) in &request.extra {
        losses.member(LossKind::Setting, name);
    }
}
