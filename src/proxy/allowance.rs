//! What a client key allows: models, and how much of them.
//!
//! Enters: the holder of the key that a request came with. Leaves: a [`Permit`], which counts as a request
//! under way until it is dropped; tokens are charged when an answer is over. May go wrong: a limit is reached
//! (429 with the time at which there is room), the model is not among those of the key (403).

use super::error::ProxyError;
use super::record::Record;
use crate::state::keys::{Holder, Permit};
use crate::state::{Snapshot, State};
use pool::Route;
use pool::budget::Refusal;
use std::sync::Arc;

/// Begins a request.
pub(super) fn begin(record: &Record, state: &State) -> Result<Option<Permit>, ProxyError> {
    let Some(holder) = &record.holder else { return Ok(None) };
    holder.begin(state.now().mono_ms).map(Some).map_err(|refusal| refused(holder, refusal, state))
}

/// The holder of the same key under a newer configuration: keys are withdrawn, and run out.
pub(super) fn successor(
    holder: Option<&Arc<Holder>>,
    snapshot: &Snapshot,
) -> Result<Option<Arc<Holder>>, ProxyError> {
    match holder {
        None => Ok(None),
        Some(holder) => snapshot.keys.successor(holder).map(Some).ok_or_else(|| {
            let message = "your API key was withdrawn while the request waited";
            ProxyError::client(401, message).code("invalid_api_key")
        }),
    }
}

/// A request is over: what it cost.
pub(super) fn charge(record: &Record, state: &State) {
    if let Some(holder) = &record.holder {
        holder.charge(record.facts.usage.total(), state.now().mono_ms);
    }
}

/// The route, if the holder may use its model. Models that serve in place of the one that was asked for are
/// passed over when they are not among those of the key.
pub(super) fn check_model(
    holder: Option<&Arc<Holder>>,
    mut route: Route,
    state: &State,
) -> Result<Route, ProxyError> {
    let Some(holder) = holder else { return Ok(route) };
    while !holder.allows(route.model()) {
        let next = if route.is_fallback() { state.pool.fallback(&route, state.now()) } else { None };
        let Some(next) = next else {
            state.metrics.key_refusal("model");
            let asked = route.asked();
            let message = format!("your API key ({}) does not include model {asked}", holder.name);
            return Err(ProxyError::client(403, message).code("model_not_allowed").param("model"));
        };
        route = next;
    }
    Ok(route)
}

fn refused(holder: &Holder, refusal: Refusal, state: &State) -> ProxyError {
    let limits = holder.limits();
    let (reason, what, wait_ms) = match refusal {
        Refusal::Concurrency => {
            let most = limits.concurrency.unwrap_or_default();
            ("concurrency", format!("{most} requests at once"), 1000)
        }
        Refusal::Requests { wait_ms } => {
            let most = limits.rpm.unwrap_or_default();
            ("requests", format!("{most} requests per minute"), wait_ms)
        }
        Refusal::Tokens { wait_ms } => {
            let most = limits.tpm.unwrap_or_default();
            ("tokens", format!("{most} tokens per minute"), wait_ms)
        }
    };
    state.metrics.key_refusal(reason);
    let seconds = wait_ms.div_ceil(1000).max(1);
    let message = format!(
        "your API key ({}) has reached its limit of {what}; try again in {seconds} seconds",
        holder.name
    );
    let mut error = ProxyError::client(429, message).code("rate_limit_exceeded");
    error.failure.retry_after = Some(seconds);
    error
}
