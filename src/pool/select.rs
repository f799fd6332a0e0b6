//! Which credential serves the next attempt.
//!
//! Enters: a route, what the request has tried, its session, the time, a seed. Leaves: a [`Pick`], or why
//! there is none ([`NoPick`]). Order: the credential the last verdict stays with; the session's credential;
//! the highest priority that has somebody ready, by strategy; somebody whose rest is only a guess. No pick
//! looks at all candidates: who rests stands aside until its time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::Pool;
use crate::affinity::{PATIENCE_MS, Session};
use crate::attempts::Attempts;
use crate::credential::CredentialId;
use crate::index::{Candidate, Entry, Index};
use crate::judge::{Able, Case};
use crate::outcome::Class;
use crate::pick::{Hold, Pick};
use crate::queue::{Aside, Judged};
use crate::route::Route;
use crate::settings::Now;
use crate::standing::{Rest, Standing, standing};
use crate::state::count;

/// Most credentials whose reasons are told.
const REASONS: usize = 8;

/// Why nobody can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPick {
    /// All that could serve rest: 429 with `Retry-After`.
    Cooling {
        /// Milliseconds until the first rest ends; at least 1.
        soonest_ms: u64,
        /// The provider, where all candidates have the same.
        provider: Option<Arc<str>>,
    },
    /// Somebody could serve, but is at its limit or being tested by another request: 429, worth a short wait.
    Busy,
    /// Nobody can serve and waiting hardly mends it: 503, with the reasons.
    Unavailable {
        /// The first few credentials and what is wrong with them.
        reasons: Vec<Reason>,
        /// How many credentials serve the model at all.
        total: usize,
        /// All of them were told that they may not use the model, or that there is none: it is not listed.
        gone: bool,
    },
    /// This request has tried all it may in this round: answer with the last failure, or ask for another
    /// round.
    Exhausted,
}

/// What is wrong with a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The credential's label.
    pub label: String,
    /// What is wrong.
    pub standing: Standing,
}

impl Pool {
    /// Chooses who serves the next attempt and takes a slot for it. `session` names a conversation, scoped by
    /// the caller; with affinity on it stays where its prompt is cached. `seed` is any number that differs
    /// from call to call.
    pub fn pick(
        &self,
        route: &Route,
        attempts: &mut Attempts,
        session: Option<u64>,
        now: Now,
        seed: u64,
    ) -> Result<Pick, NoPick> {
        let Some(entry) = route.entry() else { return Err(NoPick::Exhausted) };
        // Read before anyone is judged: a signal that comes later is seen by the next pick.
        let signals = self.signals.seen();
        if let Some((able, refresh)) = stay(route, entry, attempts, now) {
            return Ok(self.hand_out(route, able, attempts, now, refresh));
        }
        let most = route.index.settings.max_retry_credentials as usize;
        if most > 0 && attempts.credentials() >= most {
            return Err(NoPick::Exhausted);
        }
        let case = Case { index: &route.index, attempts, now_ms: now.mono_ms, soft_serves: false };
        let session = session.and_then(|session| self.session(route, entry, session, now));
        let (bound, move_on) = match &session {
            Some(session) => sticky(session, entry, &case),
            None => (None, false),
        };
        let able = bound.or_else(|| {
            let ready = entry.buckets.iter().find_map(|bucket| case.next(bucket, signals, seed));
            let soft = Case { soft_serves: true, ..case };
            ready.or_else(|| entry.buckets.iter().find_map(|bucket| soft.next_soft(bucket)))
        });
        let Some(able) = able else { return Err(nobody(entry, route, attempts, now)) };
        let spec = &able.credential.spec;
        let kept = session.filter(|_| route.index.keeps_sessions(spec.kind));
        if let Some(session) = kept.as_ref().filter(|_| move_on) {
            self.affinity.bind(session.key, &spec.id, now.mono_ms);
            if session.credential.as_ref() != Some(&spec.id) {
                attempts.bound();
            }
        }
        let session = kept.map(|session| session.key);
        Ok(Pick { session, ..self.hand_out(route, able, attempts, now, false) })
    }

    /// Takes a slot of this credential and no other, for a request about something that its account alone
    /// holds. `None`: it does not serve the model at all.
    pub fn pick_owner(
        &self,
        route: &Route,
        attempts: &mut Attempts,
        owner: &CredentialId,
        now: Now,
    ) -> Option<Result<Pick, NoPick>> {
        let entry = route.entry()?;
        let candidate = candidate_of(entry, route.index.position_of(owner)?)?;
        if let Some((able, refresh)) = stay(route, entry, attempts, now) {
            return Some(Ok(self.hand_out(route, able, attempts, now, refresh)));
        }
        let case = Case { index: &route.index, attempts, now_ms: now.mono_ms, soft_serves: true };
        Some(match case.judge(candidate) {
            Judged::Take(able) => Ok(self.hand_out(route, able, attempts, now, false)),
            Judged::Rest { until_ms, .. } => {
                let soonest_ms = until_ms.saturating_sub(now.mono_ms).max(1);
                Err(NoPick::Cooling { soonest_ms, provider: entry.provider.clone() })
            }
            Judged::Wait { .. } => Err(NoPick::Busy),
            Judged::Skip => Err(NoPick::Exhausted),
        })
    }

    /// What is known of a session; `None` where affinity is off.
    fn session(&self, route: &Route, entry: &Entry, session: u64, now: Now) -> Option<Session> {
        let settings = &route.index.settings;
        let life_ms = settings.session_affinity_ms;
        let kept = life_ms > 0 && (entry.caches || settings.affinity_without_cache);
        kept.then(|| self.affinity.session(session, &entry.id, life_ms, now.mono_ms))
    }

    fn hand_out(&self, route: &Route, able: Able, attempts: &mut Attempts, now: Now, refresh: bool) -> Pick {
        let state = &able.credential.state;
        let projects = able.credential.spec.projects().len().max(1) as u32;
        let project = state.project.load(Ordering::Relaxed) % projects;
        attempts.picked(state.key, able.position, refresh);
        count(&state.tally.picked);
        let hold = Hold {
            state: Arc::clone(state),
            signals: Arc::clone(&self.signals),
            probe: able.probe.then(|| Arc::clone(&able.model.upstream)),
            reported: false,
        };
        Pick {
            index: Arc::clone(&route.index),
            credential: able.credential,
            model: able.model,
            position: able.position,
            more_models: able.more_models,
            started_ms: now.mono_ms,
            project,
            refresh,
            committed: false,
            session: None,
            errors: route.entry().map(|entry| Arc::clone(&entry.errors)).unwrap_or_default(),
            hold,
        }
    }
}

/// The credential the last verdict stays with, if it can serve.
fn stay(route: &Route, entry: &Entry, attempts: &mut Attempts, now: Now) -> Option<(Able, bool)> {
    let stay = attempts.take_stay()?;
    let candidate = candidate_of(entry, route.index.position_of(&stay.credential)?)?;
    let case = Case { index: &route.index, attempts, now_ms: now.mono_ms, soft_serves: false };
    match stay.again {
        Some((model, refresh)) => Some((case.again(candidate, model)?, refresh)),
        None => match case.judge(candidate) {
            Judged::Take(able) => Some((able, false)),
            _ => None,
        },
    }
}

/// The session's credential if it can serve, and whether the session shall move to whoever serves instead.
fn sticky(session: &Session, entry: &Entry, case: &Case<'_>) -> (Option<Able>, bool) {
    if case.attempts.begins() {
        return (None, true);
    }
    let position = session.credential.as_ref().and_then(|id| case.index.position_of(id));
    let Some(candidate) = position.and_then(|position| candidate_of(entry, position)) else {
        return (None, true);
    };
    match case.judge(candidate) {
        // Binding anew keeps the session alive.
        Judged::Take(able) => (Some(able), true),
        Judged::Rest { aside: Aside::Broken, .. } => (None, true),
        Judged::Rest { .. } if case.attempts.may_bind_anew() => (None, true),
        Judged::Rest { until_ms, .. } => (None, until_ms > case.now_ms.saturating_add(PATIENCE_MS)),
        // It was to be the session's home and did not answer: whoever does becomes that.
        Judged::Skip | Judged::Wait { .. } => (None, case.attempts.may_bind_anew()),
    }
}

/// A credential's place in the line, whatever its priority.
fn candidate_of(entry: &Entry, credential: u32) -> Option<Candidate> {
    entry.buckets.iter().find_map(|bucket| bucket.candidates.get(bucket.position(credential)?).copied())
}

fn nobody(entry: &Entry, route: &Route, attempts: &mut Attempts, now: Now) -> NoPick {
    if attempts.is_spent() {
        return NoPick::Exhausted;
    }
    let index: &Index = &route.index;
    let case = Case { index, attempts, now_ms: now.mono_ms, soft_serves: false };
    let mut limited: Option<u64> = None;
    let mut busy = false;
    for bucket in &entry.buckets {
        let idle = bucket.queue.lock().idle(|position| case.rests_until(bucket, position));
        limited = [limited, idle.limited_until_ms].into_iter().flatten().min();
        busy |= idle.waiting;
    }
    if busy {
        attempts.found_all_cooling();
        return NoPick::Busy;
    }
    if let Some(until_ms) = limited {
        attempts.found_all_cooling();
        let soonest_ms = until_ms.saturating_sub(now.mono_ms).max(1);
        return NoPick::Cooling { soonest_ms, provider: entry.provider.clone() };
    }
    let reasons = entry.candidates().take(REASONS).filter_map(|candidate| {
        let label = index.credential(*candidate)?.spec.label.to_string();
        Some(Reason { label, standing: standing(index, *candidate, now.mono_ms)? })
    });
    let gone = |candidate| {
        matches!(
            standing(index, candidate, now.mono_ms),
            Some(Standing::Cooling(Rest { class: Class::Entitlement | Class::ModelMissing, .. }))
        )
    };
    NoPick::Unavailable {
        reasons: reasons.collect(),
        total: entry.candidates().count(),
        gone: entry.candidates().all(|candidate| gone(*candidate)),
    }
}
