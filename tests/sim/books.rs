//! The simulation's own books: who must rest, who is being tested, who is under way. Kept from what the pool
//! answered, never from what it has in mind.
//!
//! Enters: picks, verdicts, reloads, restarts. Leaves: complaints, as panics.

use std::collections::HashMap;

use pool::{Cooled, CredentialId, CredentialSpec, Pick, Scope, Status};
use secrecy::ExposeSecret;

/// A rest that was given.
#[derive(Clone, Copy, Debug)]
struct Rest {
    until_ms: u64,
    /// When it was given, at the latest: an answer to a later request ends it.
    given_ms: u64,
    soft: bool,
}

/// What is known of a credential from its first configuration to its last.
#[derive(Clone, Debug, Default)]
struct Life {
    number: u64,
    /// The configuration it began with.
    born: u64,
    /// By upstream model; `None`: all of the credential.
    rests: HashMap<Option<String>, Rest>,
    /// Ends of the leases of tests since anything was learnt.
    tests: HashMap<String, u64>,
    /// Requests under way.
    in_flight: u32,
}

/// The books.
#[derive(Debug, Default)]
pub(crate) struct Books {
    lives: HashMap<CredentialId, Life>,
    next: u64,
}

impl Books {
    /// The life of a credential that a request of a configuration meets; 0: one that is over by now.
    pub(crate) fn life(&self, id: &CredentialId, generation: u64) -> u64 {
        self.lives.get(id).filter(|life| life.born <= generation).map_or(0, |life| life.number)
    }

    /// A configuration replaces another; `born` is its number.
    pub(crate) fn reload(&mut self, before: &[CredentialSpec], now: &[CredentialSpec], born: u64) {
        self.lives.retain(|id, _| now.iter().any(|spec| spec.id == *id));
        for spec in now {
            self.next += 1;
            let number = self.next;
            let new = || Life { number, born, ..Life::default() };
            let life = self.lives.entry(spec.id.clone()).or_insert_with(new);
            life.tests.clear();
            let old = before.iter().find(|old| old.id == spec.id);
            if old.is_some_and(|old| old.secret.expose_secret() != spec.secret.expose_secret()) {
                life.rests.clear();
            }
            let served = |model: &String| spec.models.models().iter().any(|known| *known.upstream == **model);
            life.rests.retain(|model, _| model.as_ref().is_none_or(served));
        }
    }

    /// The process dies at `left_ms` and another one begins at `begun_ms`, after `away_ms`. `kept`: it knows
    /// what the old one knew, give or take the seconds of the wall clock.
    pub(crate) fn restart(&mut self, left_ms: u64, begun_ms: u64, away_ms: u64, kept: bool) {
        for life in self.lives.values_mut() {
            self.next += 1;
            let (number, born) = (self.next, life.born);
            *life = Life { number, born, rests: std::mem::take(&mut life.rests), ..Life::default() };
            life.rests.retain(|_, rest| {
                let left = rest.until_ms.saturating_sub(left_ms);
                rest.until_ms = (begun_ms + left).saturating_sub(away_ms + 2000);
                rest.given_ms = 0;
                kept && rest.until_ms > begun_ms
            });
        }
    }

    /// The operator forgives.
    pub(crate) fn forgive(&mut self, id: &CredentialId, model: Option<&str>) {
        let Some(life) = self.lives.get_mut(id) else { return };
        life.tests.clear();
        match model {
            Some(model) => drop(life.rests.remove(&Some(model.to_owned()))),
            None => life.rests.clear(),
        }
    }

    /// A pick is under way.
    pub(crate) fn began(&mut self, pick: &Pick, life: u64, now_ms: u64, lease_ms: u64) {
        let (id, upstream) = (&pick.credential().id, pick.model().upstream.to_string());
        let Some(life) = self.lives.get_mut(id).filter(|found| found.number == life) else { return };
        life.in_flight += 1;
        if !pick.refresh_first() {
            for place in [None, Some(upstream.clone())] {
                let rest = life.rests.get(&place).filter(|rest| !rest.soft && rest.until_ms > now_ms);
                assert!(rest.is_none(), "{id}:{upstream} was told to rest, {rest:?}, now {now_ms}");
            }
        }
        if pick.is_probe() {
            let other = life.tests.insert(upstream.clone(), now_ms + lease_ms);
            assert!(other.is_none_or(|end| end <= now_ms), "{id}:{upstream} is tested twice at once");
        }
    }

    /// Something was learnt about a credential: another test may begin.
    pub(crate) fn learnt(&mut self, id: &CredentialId, life: u64) {
        if let Some(found) = self.lives.get_mut(id).filter(|found| found.number == life) {
            found.tests.clear();
        }
    }

    /// A pick is over.
    pub(crate) fn ended(&mut self, id: &CredentialId, life: u64) {
        self.learnt(id, life);
        if let Some(found) = self.lives.get_mut(id).filter(|found| found.number == life) {
            found.in_flight -= 1;
        }
    }

    /// An attempt that began at `started_ms` worked.
    pub(crate) fn healed(&mut self, id: &CredentialId, life: u64, upstream: &str, started_ms: u64) {
        let Some(found) = self.lives.get_mut(id).filter(|found| found.number == life) else { return };
        for place in [None, Some(upstream.to_owned())] {
            if found.rests.get(&place).is_some_and(|rest| rest.given_ms <= started_ms) {
                found.rests.remove(&place);
            }
        }
    }

    /// A rest was given, or still runs.
    pub(crate) fn cooled(
        &mut self,
        id: &CredentialId,
        life: u64,
        upstream: &str,
        cooled: Cooled,
        now_ms: u64,
    ) {
        let Some(found) = self.lives.get_mut(id).filter(|found| found.number == life) else { return };
        let place = (cooled.scope == Scope::Model).then(|| upstream.to_owned());
        let before = found.rests.get(&place).filter(|rest| rest.until_ms == cooled.until_ms);
        let given_ms = before.map_or(now_ms, |rest| rest.given_ms);
        found.rests.insert(place, Rest { until_ms: cooled.until_ms, given_ms, soft: cooled.soft });
    }

    /// Requests under way are those that were picked and not reported, and no rest is longer than a day.
    pub(crate) fn check(&self, all: &[Status], longest_ms: u64) {
        for status in all {
            let known = self.lives.get(&status.id).map_or(0, |life| life.in_flight);
            assert_eq!(status.in_flight, known, "{} under way", status.id);
            let eternal = status.cooling.iter().find(|(_, rest)| rest.left_ms > longest_ms);
            assert!(eternal.is_none(), "{}: {eternal:?}", status.id);
        }
    }
}
