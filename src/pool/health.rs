//! What a credential has learnt from its failures: who rests, until when, and who may test.
//!
//! Enters: failures and successes with their times. Leaves: a [`Gate`] per model. Nothing may go wrong.
//!
//! There is one [`Record`] per upstream model in trouble and one for the credential as a whole; no record
//! means no trouble. The stricter of the two decides. A record whose rest is over stays until a success: it
//! is *half-open*, one request may test it while the others wait, for as long as the lease runs.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use crate::cooldown::{self, Terms};
use crate::outcome::{Class, Cooled};

/// How far a rest reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// One upstream model on the credential.
    Model,
    /// All models of the credential.
    Credential,
}

/// The trouble of one model or of the whole credential.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) class: Class,
    /// Status of the last failure, where it had one.
    pub(crate) status: Option<u16>,
    /// When it failed last.
    pub(crate) failed_ms: u64,
    /// End of the rest; 0: the failure was only counted.
    pub(crate) until_ms: u64,
    /// Failures in a row before the last one.
    pub(crate) level: u32,
    /// Gives way when nobody else is ready.
    pub(crate) soft: bool,
    /// End of the lease of a test that is under way; 0: none is.
    pub(crate) probe_until_ms: u64,
}

impl Record {
    fn gate(&self, now_ms: u64, lease_ms: u64) -> Gate {
        if now_ms < self.until_ms {
            Gate::Shut { until_ms: self.until_ms, soft: self.soft, class: self.class }
        } else if self.until_ms == 0 || lease_ms == 0 {
            Gate::Open { probe: false }
        } else if now_ms < self.probe_until_ms {
            Gate::Probing { until_ms: self.probe_until_ms, soft: self.soft }
        } else {
            Gate::Open { probe: true }
        }
    }
}

/// Whether a model may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Yes; as a test if `probe`.
    Open { probe: bool },
    /// A test is under way.
    Probing { until_ms: u64, soft: bool },
    /// It rests.
    Shut { until_ms: u64, soft: bool, class: Class },
}

impl Gate {
    /// How much it forbids; the later end breaks ties.
    fn strictness(self) -> (u8, u64) {
        match self {
            Self::Open { probe: false } => (0, 0),
            Self::Open { probe: true } => (1, 0),
            Self::Probing { until_ms, soft: true } => (2, until_ms),
            Self::Shut { until_ms, soft: true, .. } => (3, until_ms),
            Self::Probing { until_ms, soft: false } => (4, until_ms),
            Self::Shut { until_ms, soft: false, .. } => (5, until_ms),
        }
    }

    /// Whether it forbids less than the other.
    pub(crate) fn milder(self, other: Self) -> bool {
        self.strictness() < other.strictness()
    }
}

/// What a success mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Healed {
    /// Nothing was wrong, or what is wrong came after it.
    Nothing,
    /// A rest that was over when the attempt began: others wait for the end of its test.
    Tested,
    /// A rest that still ran when the attempt began.
    Early,
}

/// A failure to take down.
#[derive(Clone, Debug)]
pub(crate) struct Blow<'a> {
    pub(crate) class: Class,
    pub(crate) scope: Scope,
    pub(crate) status: Option<u16>,
    /// The upstream model that failed.
    pub(crate) upstream: &'a Arc<str>,
    /// When the attempt began.
    pub(crate) started_ms: u64,
    pub(crate) now_ms: u64,
    pub(crate) soft: bool,
    /// Failures block (`disable-cooling` is off, or does not count here).
    pub(crate) cooling: bool,
    pub(crate) terms: Terms,
}

/// All trouble of a credential.
#[derive(Debug, Default)]
pub(crate) struct Health {
    whole: Option<Record>,
    models: HashMap<Arc<str>, Record>,
}

impl Health {
    pub(crate) fn is_clear(&self) -> bool {
        self.whole.is_none() && self.models.is_empty()
    }

    /// The records that speak about a model, with their scope.
    pub(crate) fn about(&self, upstream: &str) -> impl Iterator<Item = (Scope, &Record)> {
        let whole = self.whole.iter().map(|record| (Scope::Credential, record));
        whole.chain(self.models.get(upstream).map(|record| (Scope::Model, record)))
    }

    /// All records: the credential's first, then by model.
    pub(crate) fn records(&self) -> impl Iterator<Item = (Option<&Arc<str>>, Scope, &Record)> {
        let whole = self.whole.iter().map(|record| (None, Scope::Credential, record));
        whole.chain(self.models.iter().map(|(model, record)| (Some(model), Scope::Model, record)))
    }

    /// Whether a model may be used now.
    pub(crate) fn gate(&self, upstream: &str, now_ms: u64, lease_ms: u64) -> Gate {
        let gates = self.about(upstream).map(|(_, record)| record.gate(now_ms, lease_ms));
        gates.max_by_key(|gate| gate.strictness()).unwrap_or(Gate::Open { probe: false })
    }

    fn half_open<'h>(&'h mut self, upstream: &str, now_ms: u64) -> impl Iterator<Item = &'h mut Record> {
        let over = move |record: &&mut Record| record.until_ms != 0 && record.until_ms <= now_ms;
        self.whole.iter_mut().chain(self.models.get_mut(upstream)).filter(over)
    }

    /// A test of a model begins.
    pub(crate) fn begin_probe(&mut self, upstream: &str, now_ms: u64, lease_ms: u64) {
        self.half_open(upstream, now_ms)
            .for_each(|record| record.probe_until_ms = now_ms.saturating_add(lease_ms));
    }

    /// A test of a model is over, whatever it showed.
    pub(crate) fn end_probe(&mut self, upstream: &str) {
        self.half_open(upstream, u64::MAX).for_each(|record| record.probe_until_ms = 0);
    }

    /// An attempt that began at `started_ms` worked. What failed before that is forgotten; what failed while
    /// it ran is newer than its evidence and stays.
    pub(crate) fn heal(&mut self, upstream: &str, started_ms: u64) -> Healed {
        let mended = |record: &Record| record.failed_ms <= started_ms;
        let whole = self.whole.take_if(|record| mended(record));
        let model = match self.models.get(upstream) {
            Some(record) if mended(record) => self.models.remove(upstream),
            _ => None,
        };
        match (&whole, &model) {
            (None, None) => Healed::Nothing,
            _ if whole.iter().chain(&model).any(|record| started_ms < record.until_ms) => Healed::Early,
            _ => Healed::Tested,
        }
    }

    /// Forgets the trouble of one model, or all of it.
    pub(crate) fn clear(&mut self, upstream: Option<&str>) {
        match upstream {
            Some(upstream) => drop(self.models.remove(upstream)),
            None => *self = Self::default(),
        }
    }

    /// Forgets the trouble of one kind.
    pub(crate) fn forget(&mut self, class: Class) {
        self.whole.take_if(|record| record.class == class);
        self.models.retain(|_, record| record.class != class);
    }

    /// Forgets models that are served no more.
    pub(crate) fn keep(&mut self, served: impl Fn(&str) -> bool) {
        self.models.retain(|model, _| served(model));
    }

    /// Takes up what was learnt before the process started. What was learnt since is newer and stays.
    pub(crate) fn recall(&mut self, model: Option<Arc<str>>, record: Record) {
        match model {
            Some(model) => drop(self.models.entry(model).or_insert(record)),
            None => drop(self.whole.get_or_insert(record)),
        }
    }

    /// Whether somebody who rests stands in the wrong line when a failure of `class` comes on top: those whom
    /// waiting mends and those whom it hardly mends stand apart. A guess changes no line, and whoever rests
    /// for a guess is asked again before it is used or refused.
    pub(crate) fn changes_line(&self, class: Class, soft: bool, now_ms: u64) -> bool {
        let stands_elsewhere = |record: &Record| {
            now_ms < record.until_ms && !record.soft && record.class.is_broken() != class.is_broken()
        };
        !soft && self.records().any(|(_, _, record)| stands_elsewhere(record))
    }

    /// Takes a failure down and says what rests because of it.
    pub(crate) fn strike(&mut self, blow: &Blow<'_>) -> Option<Cooled> {
        let scope = self.widened(blow);
        let slot = match scope {
            Scope::Credential => &mut self.whole,
            Scope::Model => {
                let record = self.models.remove(blow.upstream);
                let struck = struck(record, blow);
                let cooled = cooled(&struck, scope, blow.now_ms);
                self.models.insert(Arc::clone(blow.upstream), struck);
                return cooled;
            }
        };
        let struck = struck(slot.take(), blow);
        let cooled = cooled(&struck, scope, blow.now_ms);
        *slot = Some(struck);
        cooled
    }

    /// The scope of a failure: what a second model suffers too is the credential's trouble.
    fn widened(&self, blow: &Blow<'_>) -> Scope {
        let again = |(model, record): (&Arc<str>, &Record)| {
            record.class == blow.class
                && model != blow.upstream
                && blow.now_ms < cooldown::remembered_until(record.failed_ms, record.until_ms)
        };
        if blow.class.spreads() && self.models.iter().any(again) { Scope::Credential } else { blow.scope }
    }
}

/// The record after one more failure.
fn struck(old: Option<Record>, blow: &Blow<'_>) -> Record {
    let old = old.filter(|old| blow.now_ms < cooldown::remembered_until(old.failed_ms, old.until_ms));
    let running = old.as_ref().is_some_and(|old| blow.now_ms < old.until_ms);
    // A failure that began before the last one was known is the same event seen twice.
    let echo = old.as_ref().is_some_and(|old| blow.started_ms < old.failed_ms);
    let level = match &old {
        Some(old) if old.class == blow.class && echo => old.level,
        Some(old) if old.class == blow.class => old.level.saturating_add(1),
        _ => 0,
    };
    let rest = if blow.cooling { cooldown::rest_ms(blow.class, level, &blow.terms) } else { 0 };
    let until_ms = if rest == 0 { 0 } else { blow.now_ms.saturating_add(rest) };
    let new = Record {
        class: blow.class,
        status: blow.status,
        failed_ms: blow.now_ms,
        until_ms,
        level,
        soft: blow.soft,
        probe_until_ms: 0,
    };
    match old {
        // A guess repeated by an echo does not prolong a rest, and no failure shortens one.
        Some(old) if running && !old.soft && (blow.soft || until_ms <= old.until_ms) => old,
        Some(old) if running && echo && blow.terms.hint_ms.is_none() && old.class == blow.class => old,
        Some(old) if running => Record { until_ms: until_ms.max(old.until_ms), ..new },
        _ => new,
    }
}

fn cooled(record: &Record, scope: Scope, now_ms: u64) -> Option<Cooled> {
    (record.until_ms > now_ms).then_some(Cooled { scope, until_ms: record.until_ms, soft: record.soft })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: u64 = 30_000;

    fn blow(upstream: &Arc<str>, class: Class, started_ms: u64, now_ms: u64) -> Blow<'_> {
        let terms = Terms { hint_cap_ms: 3_600_000, transient_cap_ms: 60_000, ..Terms::default() };
        let soft = class == Class::Transient;
        let scope = Scope::Model;
        Blow { class, scope, status: None, upstream, started_ms, now_ms, soft, cooling: true, terms }
    }

    fn until(cooled: Option<Cooled>) -> u64 {
        cooled.map_or(0, |cooled| cooled.until_ms)
    }

    #[test]
    fn p17_failures_in_a_row_climb_and_a_success_forgets_them() {
        let m = Arc::from("m");
        let mut health = Health::default();
        assert_eq!(until(health.strike(&blow(&m, Class::RateLimit, 0, 1000))), 2000);
        assert_eq!(until(health.strike(&blow(&m, Class::RateLimit, 2000, 2000))), 4000);
        assert_eq!(until(health.strike(&blow(&m, Class::RateLimit, 4000, 4000))), 8000);
        assert_eq!(health.heal("m", 8000), Healed::Tested);
        assert!(health.is_clear());
        assert_eq!(until(health.strike(&blow(&m, Class::RateLimit, 9000, 9000))), 10_000);
    }

    #[test]
    fn failures_of_the_same_moment_count_once() {
        let m = Arc::from("m");
        let mut health = Health::default();
        let first = until(health.strike(&blow(&m, Class::RateLimit, 0, 1000)));
        for at in 1001..1050 {
            assert_eq!(until(health.strike(&blow(&m, Class::RateLimit, 500, at))), first);
        }
    }

    #[test]
    fn a_longer_rest_is_never_shortened_and_a_soft_one_never_replaces_a_hard_one() {
        let m = Arc::from("m");
        let mut health = Health::default();
        let mut long = blow(&m, Class::Quota, 0, 0);
        long.terms.hint_ms = Some(100_000);
        assert_eq!(until(health.strike(&long)), 100_000);
        assert_eq!(until(health.strike(&blow(&m, Class::RateLimit, 10, 10))), 100_000);
        assert_eq!(until(health.strike(&blow(&m, Class::Transient, 20, 20))), 100_000);
        assert!(matches!(health.gate("m", 50, LEASE), Gate::Shut { soft: false, class: Class::Quota, .. }));
    }

    #[test]
    fn an_old_success_does_not_undo_a_newer_failure() {
        let m = Arc::from("m");
        let mut health = Health::default();
        health.strike(&blow(&m, Class::RateLimit, 500, 1000));
        assert_eq!(health.heal("m", 900), Healed::Nothing);
        assert!(!health.is_clear());
        assert_eq!(health.heal("m", 1000), Healed::Early);
        assert!(health.is_clear());
    }

    #[test]
    fn p18_one_test_at_a_time_until_its_lease_ends() {
        let m = Arc::from("m");
        let mut health = Health::default();
        health.strike(&blow(&m, Class::RateLimit, 0, 0));
        assert!(matches!(health.gate("m", 999, LEASE), Gate::Shut { .. }));
        assert_eq!(health.gate("m", 1000, LEASE), Gate::Open { probe: true });
        health.begin_probe("m", 1000, LEASE);
        assert!(matches!(health.gate("m", 1001, LEASE), Gate::Probing { .. }));
        assert_eq!(health.gate("m", 31_000, LEASE), Gate::Open { probe: true });
        health.end_probe("m");
        assert_eq!(health.gate("m", 1001, LEASE), Gate::Open { probe: true });
        assert_eq!(health.gate("m", 1001, 0), Gate::Open { probe: false });
        assert_eq!(health.gate("other", 0, LEASE), Gate::Open { probe: false });
    }

    #[test]
    fn the_same_refusal_on_a_second_model_is_the_credentials() {
        let (a, b) = (Arc::from("a"), Arc::from("b"));
        let mut health = Health::default();
        assert_eq!(health.strike(&blow(&a, Class::Auth, 0, 0)).unwrap().scope, Scope::Model);
        assert_eq!(health.strike(&blow(&a, Class::Auth, 1, 1)).unwrap().scope, Scope::Model);
        assert_eq!(health.gate("b", 2, LEASE), Gate::Open { probe: false });
        assert_eq!(health.strike(&blow(&b, Class::Auth, 2, 2)).unwrap().scope, Scope::Credential);
        assert!(matches!(health.gate("c", 3, LEASE), Gate::Shut { .. }));
        let mut limited = Health::default();
        limited.strike(&blow(&a, Class::RateLimit, 0, 0));
        assert_eq!(limited.strike(&blow(&b, Class::RateLimit, 1, 1)).unwrap().scope, Scope::Model);
    }

    #[test]
    fn without_cooling_failures_are_counted_and_block_nothing() {
        let m = Arc::from("m");
        let mut health = Health::default();
        let counted = Blow { cooling: false, ..blow(&m, Class::Quota, 0, 0) };
        assert_eq!(health.strike(&counted), None);
        assert!(!health.is_clear());
        assert_eq!(health.gate("m", 1, LEASE), Gate::Open { probe: false });
    }

    #[test]
    fn an_old_failure_is_no_step_of_the_ladder() {
        let m = Arc::from("m");
        let mut health = Health::default();
        health.strike(&blow(&m, Class::RateLimit, 0, 0));
        let late = 1000 + 600_000;
        assert_eq!(until(health.strike(&blow(&m, Class::RateLimit, late, late))), late + 1000);
    }
}
