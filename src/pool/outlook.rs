//! Whether waiting helps a request that nobody can serve now.
//!
//! Enters: a route, what the request has tried, the time. Leaves: an [`Outlook`]; who rests for a reason that
//! waiting mends may serve the same request again. Nothing may go wrong.
//!
//! This is no further round (`request-retry`): only those are tried again whose rest was the obstacle, and
//! only when it is over. Who failed for another reason stays out, so that a wait never turns into a loop of
//! failures.

use crate::Pool;
use crate::attempts::Attempts;
use crate::route::Route;
use crate::select::NoPick;
use crate::settings::Now;
use crate::standing::{Standing, standing};

/// What a request that nobody can serve now may hope for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Waiting hardly mends it.
    Bleak,
    /// Somebody serves when a request of another ends: nobody knows when.
    Freed,
    /// Somebody serves when a rest ends.
    After {
        /// Milliseconds until the first one ends; at least 1.
        wait_ms: u64,
    },
}

impl NoPick {
    /// What it means for a request that has tried nothing; `None`: [`Pool::outlook`] knows.
    pub fn outlook(&self) -> Option<Outlook> {
        match self {
            Self::Cooling { soonest_ms, .. } => Some(Outlook::After { wait_ms: *soonest_ms }),
            Self::Busy => Some(Outlook::Freed),
            Self::Unavailable { .. } => Some(Outlook::Bleak),
            Self::Exhausted => None,
        }
    }
}

impl Pool {
    /// What a request may hope for that has tried all it may. Looks at every candidate: ask once, then go by
    /// what [`Pool::pick`] says.
    pub fn outlook(&self, route: &Route, attempts: &mut Attempts, now: Now) -> Outlook {
        let Some(entry) = route.entry() else { return Outlook::Bleak };
        let index = &*route.index;
        let mut soonest: Option<u64> = None;
        let mut freed = false;
        for candidate in entry.candidates() {
            let Some(credential) = index.credential(*candidate) else { continue };
            let key = credential.state.key;
            let tried = attempts.is_used_up(key);
            match standing(index, *candidate, now.mono_ms) {
                Some(Standing::Cooling(rest)) if !rest.soft && !rest.class.is_broken() => {
                    soonest = Some(soonest.map_or(rest.left_ms, |known| known.min(rest.left_ms)));
                    attempts.forgive(key);
                }
                Some(Standing::Spent { left_ms }) if !tried => {
                    soonest = Some(soonest.map_or(left_ms, |known| known.min(left_ms)));
                }
                Some(Standing::Tested) => {
                    freed = true;
                    attempts.forgive(key);
                }
                Some(Standing::Full) if !tried => freed = true,
                _ => {}
            }
        }
        match soonest {
            Some(wait_ms) if !freed => Outlook::After { wait_ms: wait_ms.max(1) },
            None if !freed => Outlook::Bleak,
            _ => Outlook::Freed,
        }
    }
}
