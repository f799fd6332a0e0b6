//! Which credential serves a request, and what happens when it fails.
//!
//! Enters: `routing`, `request-retry`, `max-retry-credentials`, `max-retry-interval`, `disable-cooling`,
//! `save-cooldown-status`, `transient-error-cooldown-seconds`, `quota-exceeded`, `waiting-room`. Leaves: [`Routing`]. May go
//! wrong: nothing but kinds; an unknown strategy is a warning and means round-robin, as in CLIProxyAPI.

use crate::lenient::{floor_zero, inherit_below_zero};
use crate::read::{REMARK, quoted, word};
use crate::span::Span;
use serde::{Deserialize, Deserializer, Serialize};
use std::time::Duration;

/// Selection, retries and cooldowns.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Routing {
    /// How a credential is chosen.
    #[serde(rename = "routing")]
    pub selection: Selection,
    /// Further rounds over the credentials after the first.
    #[serde(deserialize_with = "floor_zero")]
    pub request_retry: u32,
    /// Most credentials tried in a round; 0: all.
    #[serde(deserialize_with = "floor_zero")]
    pub max_retry_credentials: u32,
    /// Longest wait in seconds for a cooling credential before a further round; 0: none.
    #[serde(deserialize_with = "floor_zero")]
    pub max_retry_interval: u32,
    /// Keep books on failures, but let no credential cool down.
    pub disable_cooling: bool,
    /// Keep cooldowns over a restart. CLIProxyAPI has a file beside each account for it, and none by default.
    pub save_cooldown_status: bool,
    /// Cooldown in seconds after 408 and 5xx.
    pub transient_error_cooldown_seconds: TransientCooldown,
    /// What to do when an account is used up.
    pub quota_exceeded: QuotaExceeded,
    /// Where requests wait that nobody can serve now.
    #[serde(rename = "waiting-room")]
    pub waiting: Waiting,
}

/// `waiting-room`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Waiting {
    /// Longest wait in milliseconds before a request that nobody can serve gets its error; 0: none. `None`:
    /// some seconds for a credential that is at its limit or being tested, none for one that rests.
    #[serde(deserialize_with = "inherit_below_zero")]
    pub max_wait_before_error_ms: Option<u32>,
    /// Wait for up to an hour, whatever the longest wait is.
    pub infinite_retry_mode: bool,
    /// Most requests that wait at once; the next one gets its error.
    #[serde(deserialize_with = "floor_zero")]
    pub max_requests: u32,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { max_wait_before_error_ms: None, infinite_retry_mode: false, max_requests: 1000 }
    }
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            selection: Selection::default(),
            request_retry: 0,
            max_retry_credentials: 0,
            max_retry_interval: 0,
            disable_cooling: false,
            save_cooldown_status: true,
            transient_error_cooldown_seconds: TransientCooldown::default(),
            quota_exceeded: QuotaExceeded::default(),
            waiting: Waiting::default(),
        }
    }
}

/// `routing`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Selection {
    /// Order among credentials of the same priority.
    pub strategy: Strategy,
    /// Keep a conversation on its credential: everywhere, nowhere, or (`None`) where the upstream keeps what it
    /// read of it.
    pub session_affinity: Option<bool>,
    /// For how long after its last request.
    pub session_affinity_ttl: Span,
    /// Let sub-agents use the credential of their parent.
    pub session_affinity_subagents: bool,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            session_affinity: None,
            session_affinity_ttl: Span::from_secs(3600),
            session_affinity_subagents: true,
        }
    }
}

/// Order among credentials of the same priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// One after the other.
    #[default]
    RoundRobin,
    /// In turn, by weight.
    WeightedRoundRobin,
    /// The first until it cools.
    FillFirst,
    /// The less busy and quicker of two drawn at random.
    LeastLoaded,
}

impl Strategy {
    /// Reads the word or one of its short forms.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().replace(['-', '_'], "").as_str() {
            "" | "roundrobin" | "rr" => Some(Self::RoundRobin),
            "weightedroundrobin" | "wrr" => Some(Self::WeightedRoundRobin),
            "fillfirst" | "ff" => Some(Self::FillFirst),
            "leastloaded" | "ll" => Some(Self::LeastLoaded),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Strategy {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, |text| {
            Self::parse(text).ok_or_else(|| {
                let text = quoted(text);
                format!(
                    "{REMARK}unknown strategy {text}, round-robin is used; \
                     known are round-robin, weighted-round-robin, fill-first, least-loaded"
                )
            })
        })
    }
}

/// `transient-error-cooldown-seconds`: 0 means the default, less means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct TransientCooldown(i64);

impl TransientCooldown {
    /// How long; `None`: not at all.
    pub fn duration(self) -> Option<Duration> {
        match self.0 {
            0 => Some(Duration::from_mins(1)),
            seconds => u64::try_from(seconds).ok().map(Duration::from_secs),
        }
    }
}

/// `quota-exceeded`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct QuotaExceeded {
    /// Go on with another project of the account.
    pub switch_project: bool,
    /// Go on with the preview of the model.
    pub switch_preview_model: bool,
    /// Antigravity, Claude models: spend credits as the last resort.
    pub antigravity_credits: bool,
}
