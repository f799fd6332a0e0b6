//! How a candidate stands, in words: for lists, explanations and refusals.
//!
//! Enters: a candidate and the time. Leaves: [`Standing`], which changes nothing. Nothing may go wrong.

use serde::Serialize;

use crate::health::{Gate, Record, Scope};
use crate::index::{Candidate, Index};
use crate::outcome::Class;

/// How a candidate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Standing {
    /// It can serve.
    Ready,
    /// It rests.
    Cooling(Rest),
    /// Its rest is over and one request tests it.
    Tested,
    /// It has as many requests as it may.
    Full,
    /// It has used up its requests or tokens of a minute.
    Spent {
        /// Milliseconds until there is room again.
        left_ms: u64,
    },
    /// Its weight is 0 under the weighted strategy.
    Weightless,
    /// It is switched off.
    Disabled,
}

/// A rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rest {
    /// What it rests from.
    pub class: Class,
    /// How far it reaches.
    pub scope: Scope,
    /// The upstream's last status, where there was one.
    pub status: Option<u16>,
    /// Milliseconds left.
    pub left_ms: u64,
    /// It serves when nobody else can.
    pub soft: bool,
}

impl Rest {
    pub(crate) fn of(record: &Record, scope: Scope, now_ms: u64) -> Self {
        Self {
            class: record.class,
            scope,
            status: record.status,
            left_ms: record.until_ms.saturating_sub(now_ms),
            soft: record.soft,
        }
    }
}

impl Standing {
    /// Whether the model can be shown because of it: not when its trouble is one that waiting hardly mends.
    pub(crate) fn shows(&self) -> bool {
        match self {
            Self::Ready | Self::Tested | Self::Full | Self::Spent { .. } | Self::Weightless => true,
            Self::Cooling(rest) => !rest.class.is_broken(),
            Self::Disabled => false,
        }
    }
}

/// How a candidate stands now, by its mildest model.
pub(crate) fn standing(index: &Index, candidate: Candidate, now_ms: u64) -> Option<Standing> {
    let credential = index.credential(candidate)?;
    let spec = &credential.spec;
    if spec.disabled {
        return Some(Standing::Disabled);
    }
    if !index.takes_turns(spec) {
        return Some(Standing::Weightless);
    }
    let minute = spec.minute();
    let spent = || minute.has_windows().then(|| credential.state.windows().wait(&minute, now_ms)).flatten();
    let healthy = || match (spent(), spec.in_flight_limit) {
        (Some(left_ms), _) => Standing::Spent { left_ms },
        (None, Some(limit)) if credential.state.in_flight() >= limit => Standing::Full,
        _ => Standing::Ready,
    };
    if !credential.state.troubled() {
        return Some(healthy());
    }
    let health = credential.state.health();
    let lease_ms = index.settings.probe_lease_ms;
    let models = candidate.models.positions().filter_map(|position| spec.models.get(position));
    let (gate, model) = models
        .map(|model| (health.gate(&model.upstream, now_ms, lease_ms), model))
        .reduce(|best, next| if next.0.milder(best.0) { next } else { best })?;
    Some(match gate {
        Gate::Open { .. } => healthy(),
        Gate::Probing { .. } => Standing::Tested,
        Gate::Shut { until_ms, soft, class } => {
            let mut records = health.about(&model.upstream);
            // Two rests may end in the same millisecond: the one that shuts the gate is told.
            let shuts =
                |record: &Record| (record.until_ms, record.soft, record.class) == (until_ms, soft, class);
            let (scope, record) = records.find(|(_, record)| shuts(record))?;
            Standing::Cooling(Rest::of(record, scope, now_ms))
        }
    })
}

/// What is wrong with a credential, for an error message: `rests 12 s after rate_limit (status 429)`.
impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready => f.write_str("is ready"),
            Self::Cooling(rest) => {
                write!(f, "rests {} s after {}", rest.left_ms.div_ceil(1000), rest.class.name())?;
                rest.status.map_or(Ok(()), |status| write!(f, " (status {status})"))
            }
            Self::Tested => f.write_str("is being tested by another request"),
            Self::Full => f.write_str("has as many requests as it may"),
            Self::Spent { left_ms } => {
                write!(f, "has used up its minute for {} s", left_ms.div_ceil(1000))
            }
            Self::Weightless => f.write_str("has weight 0"),
            Self::Disabled => f.write_str("is switched off"),
        }
    }
}
