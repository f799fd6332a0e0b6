//! Time, and what the operator set for all credentials together.
//!
//! Enters: plain values. Leaves: nothing. Nothing may go wrong.

use serde::Serialize;

use crate::fallback::Fallbacks;
use crate::mapping::Mappings;

/// The time of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that only moves forward. All intervals are measured with it, so that a wall
    /// clock that jumps neither ends nor prolongs a cooldown.
    pub mono_ms: u64,
    /// Seconds since 1970 by the wall clock. Used only to read absolute times that an upstream states.
    pub wall_s: u64,
}

/// How one of several ready credentials of the same priority is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// In turn, as often as the weight says and evenly spread; a weight of 0 takes no turn.
    Weighted,
    /// Always the first in configuration order that is ready.
    FillFirst,
    /// The less busy and quicker of two drawn at random.
    LeastLoaded,
}

impl Strategy {
    /// Reads a name of `routing.strategy`, with its short forms.
    pub fn parse(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "round-robin" | "roundrobin" | "rr" => Some(Self::RoundRobin),
            "weighted-round-robin" | "weightedroundrobin" | "weighted" | "wrr" => Some(Self::Weighted),
            "fill-first" | "fillfirst" | "ff" => Some(Self::FillFirst),
            "least-loaded" | "leastloaded" | "ll" => Some(Self::LeastLoaded),
            _ => None,
        }
    }
}

/// What holds for all credentials unless one says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Choice among equals.
    pub strategy: Strategy,
    /// Models of a credential with a prefix are served under `prefix/id` only.
    pub force_model_prefix: bool,
    /// Rounds over the credentials after round 0 (`request-retry`).
    pub request_retry: u32,
    /// Most different credentials in one round; 0: all of them.
    pub max_retry_credentials: u32,
    /// Longest wait before a further round, in milliseconds; 0: a round that needs a wait does not happen.
    pub max_retry_interval_ms: u64,
    /// Failures are counted but block nothing.
    pub disable_cooling: bool,
    /// Longest rest after a failure that may pass by itself, in milliseconds; 0: none.
    pub transient_cooldown_ms: u64,
    /// Longest wait that is believed when an upstream states one, in milliseconds. Quotas are reset early,
    /// so a hint of days is worth a try each time this has passed.
    pub hint_cap_ms: u64,
    /// How long the one request that tests a rested credential may hold the others back, in milliseconds;
    /// 0: all requests return at once when the rest is over.
    pub probe_lease_ms: u64,
    /// How long a session stays with its credential after its last request, in milliseconds; 0: no affinity.
    pub session_affinity_ms: u64,
    /// Sessions also stay with upstreams of which no prompt cache is known.
    pub affinity_without_cache: bool,
    /// An account that is used up in one of its projects goes on with the next (`quota-exceeded.switch-project`).
    pub switch_project: bool,
    /// What serves in place of a model that cannot (`fallback-models`).
    pub fallback_models: Fallbacks,
    /// What serves names that only a client knows (`ampcode.model-mappings`).
    pub mappings: Mappings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: Strategy::RoundRobin,
            force_model_prefix: false,
            request_retry: 0,
            max_retry_credentials: 0,
            max_retry_interval_ms: 0,
            disable_cooling: false,
            transient_cooldown_ms: 60_000,
            hint_cap_ms: 3_600_000,
            probe_lease_ms: 10_000,
            session_affinity_ms: 0,
            affinity_without_cache: true,
            switch_project: false,
            fallback_models: Fallbacks::new(),
            mappings: Mappings::default(),
        }
    }
}
