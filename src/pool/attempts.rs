//! What one request has tried so far.
//!
//! Enters: picks and verdicts. Leaves: who may not be picked any more. Nothing may go wrong.
//!
//! Invariants: within a round a credential is used up by its first failure that is not about one of several
//! upstream models; an upstream model is tried once; a token is renewed once per credential and request.

use smallvec::SmallVec;

use crate::credential::CredentialId;
use crate::outcome::Next;
use crate::state::Key;

/// The history of one request. Begin with `Attempts::default()`, hand it to every call about the request.
#[derive(Debug, Default)]
pub struct Attempts {
    round: u32,
    total: u32,
    /// Last failure's status, of any round.
    last_status: Option<u16>,
    /// This round's credentials.
    credentials: SmallVec<[Key; 4]>,
    /// This round's upstream models, by credential.
    models: SmallVec<[(Key, u32); 4]>,
    /// Credentials used up in this round.
    used_up: SmallVec<[Key; 4]>,
    /// Credentials whose last failure is not worth another round.
    barred: SmallVec<[Key; 4]>,
    refreshed: SmallVec<[Key; 2]>,
    /// Projects that are used up, and the wait that each asked for.
    projects: SmallVec<[(Key, u32, Option<u64>); 2]>,
    stay: Option<Stay>,
    /// Somebody was forgiven and not picked since: what stands in the way is told once more.
    hopes: bool,
    /// The conversation begins with this request.
    begins: bool,
    /// This request has bound its session to a credential that has not answered yet.
    bound: bool,
}

/// The next pick stays with a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stay {
    pub(crate) credential: CredentialId,
    /// The model to repeat, and whether with a renewed token; `None`: the next model.
    pub(crate) again: Option<(u32, bool)>,
}

/// A failed attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed<'f> {
    pub(crate) key: Key,
    pub(crate) credential: &'f CredentialId,
    /// Position of the upstream model.
    pub(crate) model: u32,
    pub(crate) status: Option<u16>,
}

impl Attempts {
    /// Attempts so far.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// The round that runs, from 0.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// Status of the last failure; `None`: there was none, or it had none.
    pub fn last_status(&self) -> Option<u16> {
        self.last_status
    }

    /// Says whether the conversation begins with this request. Whoever serves it is remembered; who served
    /// another one that began with the same words is not looked for.
    pub fn conversation_begins(&mut self, begins: bool) {
        self.begins = begins;
    }

    /// Whether the session has no credential of its own yet that it should return to.
    pub(crate) fn may_bind_anew(&self) -> bool {
        self.begins || self.bound
    }

    pub(crate) fn begins(&self) -> bool {
        self.begins
    }

    pub(crate) fn bound(&mut self) {
        self.bound = true;
    }

    /// Different credentials in this round.
    pub(crate) fn credentials(&self) -> usize {
        self.credentials.len()
    }

    pub(crate) fn has_tried(&self, key: Key, model: u32) -> bool {
        self.models.contains(&(key, model))
    }

    /// Whether a credential whose `request-retry` is given may not serve in this round.
    pub(crate) fn excludes(&self, key: Key, request_retry: u32) -> bool {
        self.used_up.contains(&key)
            || (self.round > 0 && (request_retry < self.round || self.barred.contains(&key)))
    }

    /// Whether a credential may serve in the next round.
    pub(crate) fn would_allow(&self, key: Key, request_retry: u32) -> bool {
        request_retry > self.round && !self.barred.contains(&key)
    }

    pub(crate) fn take_stay(&mut self) -> Option<Stay> {
        self.stay.take()
    }

    pub(crate) fn was_refreshed(&self, key: Key) -> bool {
        self.refreshed.contains(&key)
    }

    pub(crate) fn is_used_up(&self, key: Key) -> bool {
        self.used_up.contains(&key)
    }

    /// A credential may serve this request once more: its rest was the obstacle, and is waited for.
    pub(crate) fn forgive(&mut self, key: Key) {
        self.hopes = true;
        self.credentials.retain(|other| *other != key);
        self.models.retain(|(other, _)| *other != key);
        self.used_up.retain(|other| *other != key);
        self.projects.retain(|(other, ..)| *other != key);
    }

    /// Whether the request has tried all it may: what others suffer is no news for it.
    pub(crate) fn is_spent(&self) -> bool {
        self.total > 0 && !self.hopes
    }

    /// A project of a credential is used up.
    pub(crate) fn used_project(&mut self, key: Key, project: u32, hint_ms: Option<u64>) {
        self.projects.push((key, project, hint_ms));
    }

    pub(crate) fn has_used_project(&self, key: Key, project: u32) -> bool {
        self.projects.iter().any(|(of, used, _)| (*of, *used) == (key, project))
    }

    /// The shortest wait that a credential's projects asked for.
    pub(crate) fn soonest_project(&self, key: Key) -> Option<u64> {
        self.projects.iter().filter(|(of, ..)| *of == key).filter_map(|(.., hint_ms)| *hint_ms).min()
    }

    pub(crate) fn picked(&mut self, key: Key, model: u32, refresh: bool) {
        self.total += 1;
        self.hopes = false;
        if !self.credentials.contains(&key) {
            self.credentials.push(key);
        }
        if !self.has_tried(key, model) {
            self.models.push((key, model));
        }
        if refresh {
            self.refreshed.push(key);
        }
    }

    /// An attempt failed: `failed` says which.
    pub(crate) fn failed(&mut self, failed: &Failed<'_>, next: Next) {
        let Failed { key, credential, model, status } = *failed;
        self.last_status = status;
        let stay = |again| Some(Stay { credential: credential.clone(), again });
        self.stay = match next {
            Next::OtherModelSameCredential => stay(None),
            Next::OtherProjectSameCredential => stay(Some((model, false))),
            Next::RefreshThenSame => stay(Some((model, true))),
            Next::OtherCredential | Next::Return => None,
        };
        if self.stay.is_none() && !self.used_up.contains(&key) {
            self.used_up.push(key);
        }
        self.barred.retain(|barred| *barred != key);
        if !status.is_some_and(earns_a_round) {
            self.barred.push(key);
        }
    }

    /// Nobody could be picked and all that can serve rest: to the client that is a 429.
    pub(crate) fn found_all_cooling(&mut self) {
        self.last_status = self.last_status.or(Some(429));
    }

    pub(crate) fn next_round(&mut self) {
        self.round += 1;
        self.credentials.clear();
        self.models.clear();
        self.used_up.clear();
        self.projects.clear();
        self.stay = None;
    }
}

/// Whether a failure with this status may be over when all credentials had their turn.
pub(crate) fn earns_a_round(status: u16) -> bool {
    matches!(status, 403 | 408 | 429 | 500 | 502 | 503 | 504 | 529)
}
