//! Stage 3: one of those who can serve.
//!
//! Enters: a route and what the request has tried. Leaves: a [`Pick`], which holds a slot of its credential.
//! May go wrong: all rest (429 with the soonest end), none can serve (503 with the reasons; 404 where all were
//! refused the model itself), or the request
//! has tried them all, and its last error is the answer.

use super::error::ProxyError;
use super::session::Conversation;
use crate::state::State;
use pool::{Attempts, CredentialId, NoPick, Outlook, Pick, Route};
use std::fmt::Write;
use std::time::Duration;

/// What comes of a choice.
#[derive(Debug)]
pub(super) enum Selected {
    /// This one serves.
    Pick(Box<Pick>),
    /// Nobody serves in this round. The error holds unless the request has a better one from an attempt.
    Nobody {
        /// Why.
        error: Box<ProxyError>,
        /// What waiting may bring; `None`: the pool has to look at all candidates to know.
        outlook: Option<Outlook>,
    },
}

/// Whose turn it is, apart from the order that the operator set.
#[derive(Clone, Debug, Default)]
pub(super) struct Preference {
    /// Conversation, for affinity.
    pub session: Option<Conversation>,
    /// Who holds a file that the request names: nobody else can read it.
    pub owner: Option<CredentialId>,
}

/// Chooses. `seed` differs from call to call.
pub(super) fn select(
    state: &State,
    route: &Route,
    attempts: &mut Attempts,
    preference: &Preference,
    seed: u64,
) -> Selected {
    let now = state.now();
    let session = preference.session;
    attempts.conversation_begins(session.is_some_and(|session| session.begins));
    let session = session.map(|session| session.id);
    let holder = preference.owner.as_ref();
    let picked = holder.and_then(|holder| state.pool.pick_owner(route, attempts, holder, now));
    match picked.unwrap_or_else(|| state.pool.pick(route, attempts, session, now, seed)) {
        Ok(pick) => Selected::Pick(Box::new(pick)),
        Err(nobody) => Selected::Nobody { error: Box::new(error(&nobody, route)), outlook: nobody.outlook() },
    }
}

/// Begins another round, if one is worth it: the wait before it.
pub(super) fn again(state: &State, route: &Route, attempts: &mut Attempts, seed: u64) -> Option<Duration> {
    state.pool.next_round(route, attempts, state.now(), seed).map(Duration::from_millis)
}

fn error(nobody: &NoPick, route: &Route) -> ProxyError {
    let model = route.asked();
    match nobody {
        NoPick::Cooling { soonest_ms, provider } => {
            let seconds = soonest_ms.div_ceil(1000).max(1);
            let via = provider.as_ref().map(|p| format!(" via provider {p}")).unwrap_or_default();
            let message = format!(
                "All credentials for model {model} are cooling down{via}; the first is ready in {seconds} seconds"
            );
            retry_after(ProxyError::internal(429, message).code("model_cooldown"), seconds)
        }
        NoPick::Busy => {
            let message =
                format!("All credentials for model {model} are at their limit; try again in a second");
            retry_after(ProxyError::internal(429, message).code("model_busy"), 1)
        }
        NoPick::Unavailable { reasons, total, gone } => {
            let mut message =
                format!("auth_unavailable: none of the {total} credentials for model {model} can serve");
            for (n, reason) in reasons.iter().enumerate() {
                let separator = if n == 0 { ": " } else { "; " };
                // Writing to a string cannot fail.
                let _ = write!(message, "{separator}{} {}", reason.label, reason.standing);
            }
            if *gone {
                return ProxyError::client(404, message).code("model_not_found").param("model");
            }
            ProxyError::internal(503, message).code("auth_unavailable")
        }
        NoPick::Exhausted => {
            ProxyError::internal(503, format!("no credential for model {model} is left to try"))
        }
    }
}

fn retry_after(mut error: ProxyError, seconds: u64) -> ProxyError {
    error.failure.retry_after = Some(seconds);
    error
}
