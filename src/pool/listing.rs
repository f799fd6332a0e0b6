//! What the pool shows of itself: models and credentials.
//!
//! Enters: the time. Leaves: lists, sorted. Nothing may go wrong and nothing changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::Pool;
use crate::credential::{CredentialId, CredentialSpec, Kind};
use crate::index::{Credential, Entry};
use crate::model::ModelSpec;
use crate::ratio::ErrorRatio;
use crate::recent::{RECENT_BUCKETS, Recent};
use crate::settings::Now;
use crate::standing::standing;

/// A model in a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The name clients use.
    pub id: Arc<str>,
    /// The provider's name in metrics.
    pub provider: Arc<str>,
    /// Facts of the credential of the highest priority.
    pub facts: Arc<ModelSpec>,
}

/// A credential for what belongs to no model.
#[derive(Clone, Debug)]
pub struct Account {
    /// The credential.
    pub spec: CredentialSpec,
    /// It rests as a whole.
    pub rests: bool,
}

/// A credential in a list.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its id.
    pub id: CredentialId,
    /// Its label.
    pub label: Arc<str>,
    /// Its provider.
    pub provider: Arc<str>,
    /// It is switched off.
    pub disabled: bool,
    /// Requests under way.
    pub in_flight: u32,
    /// Most of them at once; `None`: no limit.
    pub in_flight_limit: Option<u32>,
    /// Moving average of the time to the first byte in milliseconds; `None`: nothing known.
    pub latency_ms: Option<u64>,
    /// Attempts that worked.
    pub succeeded: u64,
    /// Attempts that failed for a reason of the credential or its upstream.
    pub failed: u64,
    /// What rests, the whole credential (`None`) first, then by upstream model.
    pub cooling: Vec<(Option<Arc<str>>, crate::Rest)>,
}

impl Pool {
    /// The models that can be shown, sorted by id. One whose credentials all rest from a used-up quota stays;
    /// one whose credentials are all refused vanishes until that is over.
    pub fn models(&self, now: Now) -> Vec<Listed> {
        let index = self.index.load();
        let shown = |entry: &&Entry| {
            let mut standings = entry.candidates().map(|candidate| standing(&index, *candidate, now.mono_ms));
            standings.any(|standing| standing.is_some_and(|standing| standing.shows()))
        };
        let listed = |entry: &Entry| Listed {
            id: Arc::clone(&entry.id),
            provider: Arc::clone(&entry.shown_provider),
            facts: Arc::clone(&entry.facts),
        };
        index.entries.iter().filter(shown).map(listed).collect()
    }

    /// How many of a model's attempts failed in the last ten minutes; `None`: there is no such model.
    pub fn error_ratio(&self, model: &str, now: Now) -> Option<ErrorRatio> {
        let index = self.index.load();
        Some(index.entry_at(index.find(model)?)?.errors.ratio(now.mono_ms))
    }

    /// The same for all models that had attempts, sorted by name.
    pub fn error_ratios(&self, now: Now) -> Vec<(Arc<str>, ErrorRatio)> {
        let index = self.index.load();
        let ratios =
            index.entries.iter().map(|entry| (Arc::clone(&entry.id), entry.errors.ratio(now.mono_ms)));
        ratios.filter(|(_, ratio)| ratio.attempts > 0).collect()
    }

    /// All credentials in configuration order.
    pub fn credentials(&self, now: Now) -> Vec<Status> {
        self.index.load().credentials.iter().map(|credential| status(credential, now.mono_ms)).collect()
    }

    /// How the attempts of all credentials ended lately, by buckets of ten minutes.
    pub fn recent(&self, now: Now) -> HashMap<CredentialId, [Recent; RECENT_BUCKETS]> {
        let index = self.index.load();
        let one = |credential: &Arc<Credential>| {
            (credential.spec.id.clone(), credential.state.tally.recent.buckets(now.wall_s))
        };
        index.credentials.iter().map(one).collect()
    }

    /// The credentials of a kind that are not switched off, in configuration order: for what belongs to an
    /// account and to no model.
    pub fn accounts(&self, kind: Kind, now: Now) -> Vec<Account> {
        let index = self.index.load();
        let able = index.credentials.iter().filter(|c| c.spec.kind == kind && !c.spec.disabled);
        let account = |credential: &Arc<Credential>| {
            let cooling = status(credential, now.mono_ms).cooling;
            Account { spec: credential.spec.clone(), rests: cooling.iter().any(|(model, _)| model.is_none()) }
        };
        able.map(account).collect()
    }

    /// The credentials that have to be asked what they serve, those for which `due` says so.
    pub fn listers(&self, due: impl Fn(&CredentialId) -> bool) -> Vec<CredentialSpec> {
        let index = self.index.load();
        let asked = index.credentials.iter().filter(|c| c.spec.lists.is_some() && !c.spec.disabled);
        asked.filter(|c| due(&c.spec.id)).map(|credential| credential.spec.clone()).collect()
    }
}

fn status(credential: &Credential, now_ms: u64) -> Status {
    let (spec, state) = (&credential.spec, &credential.state);
    let load = state.load(now_ms);
    let mut cooling: Vec<(Option<Arc<str>>, crate::Rest)> = Vec::new();
    if state.troubled() {
        let health = state.health();
        let resting = health.records().filter(|(_, _, record)| record.until_ms > now_ms);
        cooling.extend(
            resting.map(|(model, scope, record)| (model.cloned(), crate::Rest::of(record, scope, now_ms))),
        );
    }
    cooling.sort_by(|(a, _), (b, _)| a.cmp(b));
    Status {
        id: spec.id.clone(),
        label: Arc::clone(&spec.label),
        provider: Arc::clone(&spec.provider),
        disabled: spec.disabled,
        in_flight: load.in_flight,
        in_flight_limit: spec.in_flight_limit,
        latency_ms: load.micros.map(|micros| micros / 1000),
        succeeded: state.tally.succeeded.load(Ordering::Relaxed),
        failed: state.tally.failed.load(Ordering::Relaxed),
        cooling,
    }
}
