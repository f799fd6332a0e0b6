//! Who serves a request: a state machine over credentials.
//!
//! Enters: credentials and settings ([`Pool::update`]), model names, the ends of attempts. Leaves: a
//! credential for each attempt, and what to do when it fails. May go wrong: nobody serves the model
//! ([`RouteError`]), nobody can serve now ([`NoPick`]). No IO, no clock, no randomness, no logging: time and
//! seeds are arguments, and what is worth logging is in the results.
//!
//! One request:
//!
//! ```text
//! route(model) ─► Route                          RouteError::Unknown ─► 404 with the closest names
//!   loop:
//!     pick(route, attempts, session, now, seed) ─► Pick       NoPick ─► next_round ─► wait, or give up
//!     … send; at the first good byte: confirm(pick, now) …
//!     report(pick, outcome, attempts, now) ─► Verdict.next: Return, or pick again
//!   nobody left: fallback(route) ─► Route of another model, fresh attempts
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `settings.rs`, `credential.rs`, `model.rs`, `rules.rs` | what the operator said |
//! | `from_config.rs` | the configuration file in the pool's terms |
//! | `catalogue.rs` | what is known about vendors' models |
//! | `found.rs` | what upstreams list of themselves |
//! | `index.rs` | one configuration: model → candidates by priority |
//! | `route.rs`, `mapping.rs`, `nearest.rs` | name → candidates; names that others serve; close names |
//! | `fallback.rs`, `ratio.rs` | a model that cannot serve, or fails too often → one that serves in its place |
//! | `select.rs`, `judge.rs`, `queue.rs`, `load.rs`, `affinity.rs` | candidates → pick |
//! | `pick.rs`, `attempts.rs` | a slot in use; what a request has tried |
//! | `budget.rs` | how much may be used in a minute and at once, by credentials and by the keys of clients |
//! | `outlook.rs` | whether waiting helps a request that nobody can serve |
//! | `outcome.rs`, `evidence.rs`, `verdict.rs`, `hints.rs` | what an end means: one table |
//! | `cooldown.rs`, `health.rs`, `state.rs` | how long who rests |
//! | `report.rs`, `recent.rs` | takes an end down; another round; how the last ones were |
//! | `learnt.rs` | what outlives the process |
//! | `login.rs` | how somebody logs in to an account |
//! | `renewal.rs`, `token.rs` | how tokens are renewed; the one that a credential sends |
//! | `standing.rs`, `listing.rs`, `explain.rs` | lists and explanations |
//! | `invariants.rs` | what is always true |
//!
//! What the tests hold it to, besides [`Pool::check_invariants`]:
//! - who rests because an upstream said so is not picked, and after the rest one request at a time tests it;
//! - a rest that is only a guess after a transient failure never keeps a request from the last credential;
//! - a credential fails at most once per round and request;
//! - a reload loses no request, no slot and no rest of a credential that stays.

mod affinity;
mod attempts;
pub mod budget;
pub mod catalogue;
mod cooldown;
mod credential;
mod evidence;
mod explain;
mod fallback;
pub mod found;
mod from_config;
mod health;
pub mod hints;
mod index;
mod invariants;
mod judge;
mod learnt;
mod listing;
mod load;
pub mod login;
mod mapping;
mod model;
mod nearest;
mod outcome;
mod outlook;
mod pick;
mod queue;
mod ratio;
mod recent;
pub mod renewal;
mod report;
mod route;
mod rules;
mod select;
mod settings;
mod standing;
mod state;
mod token;
mod verdict;

#[cfg(test)]
mod scenario;

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

pub use crate::attempts::Attempts;
pub use crate::credential::{CredentialId, CredentialSpec, Kind, Proxy};
pub use crate::evidence::lacks_capacity;
pub use crate::explain::{Explained, ExplainedFallback, Explanation};
pub use crate::fallback::Fallbacks;
pub use crate::found::{Found, FoundModel, ListCall};
pub use crate::from_config::{from_config, from_config_and, unserved};
pub use crate::health::Scope;
pub use crate::hints::Hint;
pub use crate::index::{Loaded, SharedModel};
pub use crate::learnt::{HealthRow, Learnt, Recalled, SessionRow};
pub use crate::listing::{Account, Listed, Status};
pub use crate::model::{ModelSet, ModelSpec};
pub use crate::outcome::{Class, Cooled, Next, Outcome, Phase, Verdict};
pub use crate::outlook::Outlook;
pub use crate::pick::Pick;
pub use crate::ratio::{ErrorRatio, RatioLevel};
pub use crate::recent::{RECENT_BUCKET_S, RECENT_BUCKETS, Recent};
pub use crate::route::{Route, RouteError};
pub use crate::rules::{ErrorRule, RuleAction};
pub use crate::select::{NoPick, Reason};
pub use crate::settings::{Now, Settings, Strategy};
pub use crate::standing::{Rest, Standing};
pub use crate::token::{Sent, Token};

use crate::affinity::Affinity;
use crate::index::Index;
use crate::state::Signals;

/// Says which names may be shown, for a client that may not see all.
pub type NameFilter<'f> = &'f dyn Fn(&str) -> bool;

/// All credentials and what they are doing.
#[derive(Debug, Default)]
pub struct Pool {
    /// Replaced whole by a reload; requests under way keep the one they were routed by.
    index: ArcSwap<Index>,
    signals: Arc<Signals>,
    affinity: Affinity,
    /// One reload at a time, so that each takes over the state of the one before.
    updating: Mutex<()>,
}

impl Pool {
    /// A pool with these credentials.
    pub fn new(settings: Settings, specs: Vec<CredentialSpec>) -> Self {
        let pool = Self::default();
        pool.update(settings, specs);
        pool
    }

    /// Replaces the configuration. Health, counts and slots of a credential live on under its id, unless its
    /// key or its way to the upstream changed: then its health is unknown again. Nobody waits for this.
    pub fn update(&self, settings: Settings, specs: Vec<CredentialSpec>) -> Loaded {
        let _one_at_a_time = self.updating.lock();
        let old = self.index.load_full();
        let (index, loaded) = Index::build(settings, specs, &old, &self.signals);
        self.index.store(Arc::new(index));
        loaded
    }

    /// Sets who is told when a slot was freed, a test or a rest ended early, or a credential changed: whoever
    /// waits for one may look again. Called by whichever thread it happens on, so it has to be quick. Once per
    /// pool; later calls change nothing.
    pub fn on_signal(&self, tell: Box<dyn Fn() + Send + Sync>) {
        self.signals.listen(tell);
    }

    /// Forgets what a credential suffered: all of it, or that of one upstream model. For the operator's
    /// reset, and for a renewed token. False: there is no such credential.
    pub fn forgive(&self, id: &CredentialId, upstream: Option<&str>) -> bool {
        let index = self.index.load();
        let position = index.position_of(id);
        let Some(credential) = position.and_then(|position| index.credentials.get(position as usize)) else {
            return false;
        };
        credential.state.change(|health| health.clear(upstream));
        self.signals.thaw();
        true
    }
}
