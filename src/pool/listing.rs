//! What the pool shows of itself: models, credentials, and why a model goes where it goes.
//!
//! Enters: the time. Leaves: lists, sorted. Nothing may go wrong and nothing changes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::Pool;
use crate::credential::{CredentialId, CredentialSpec, Kind};
use crate::index::{Credential, Entry, Index};
use crate::model::ModelSpec;
use crate::settings::{Now, Strategy};
use crate::standing::{Standing, standing};

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

/// Why a model goes where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The name as asked.
    pub asked: String,
    /// The listed name it resolves to; `None`: nobody serves it.
    pub model: Option<String>,
    /// Choice among those of the same priority.
    pub strategy: Strategy,
    /// Everyone who serves it, the highest priority first, disabled ones last.
    pub candidates: Vec<Explained>,
    /// Close names, where it resolves to none.
    pub closest: Vec<String>,
}

/// One who serves a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The credential's id.
    pub credential: String,
    /// Its label.
    pub label: String,
    /// Its provider.
    pub provider: String,
    /// Its priority.
    pub priority: i32,
    /// Its weight.
    pub weight: u32,
    /// The upstream's names of the model, in the order in which they are tried.
    pub upstream: Vec<String>,
    /// Requests under way.
    pub in_flight: u32,
    /// Whether it can serve, and if not why.
    pub standing: Standing,
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

    /// All credentials in configuration order.
    pub fn credentials(&self, now: Now) -> Vec<Status> {
        self.index.load().credentials.iter().map(|credential| status(credential, now.mono_ms)).collect()
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

    /// The credentials that have to be asked what they serve.
    pub fn listers(&self) -> Vec<CredentialSpec> {
        let index = self.index.load();
        let asked = index.credentials.iter().filter(|c| c.spec.lists.is_some() && !c.spec.disabled);
        asked.map(|credential| credential.spec.clone()).collect()
    }

    /// Who serves a model and why each is in or out.
    pub fn explain(&self, model: &str, now: Now) -> Explanation {
        let (route, closest) = match self.route(model, now) {
            Ok(route) => (Some(route), Vec::new()),
            Err(crate::RouteError::Unknown { closest, .. }) => (None, closest),
        };
        let index = self.index.load();
        let index = route.as_ref().map_or(&**index, |route| &*route.index);
        let name = route.as_ref().map_or(model, |route| route.model());
        let mut candidates: Vec<Explained> = Vec::new();
        let entry = route.as_ref().and_then(|route| route.entry());
        for candidate in entry.into_iter().flat_map(Entry::candidates) {
            let Some(credential) = index.credential(*candidate) else { continue };
            let Some(standing) = standing(index, *candidate, now.mono_ms) else { continue };
            let spec = &credential.spec;
            let upstream = candidate.models.positions().filter_map(|position| spec.models.get(position));
            candidates.push(explained(credential, upstream, standing));
        }
        candidates.extend(disabled(index, name));
        Explanation {
            asked: model.to_owned(),
            model: entry.map(|entry| entry.id.to_string()),
            strategy: index.settings.strategy,
            candidates,
            closest,
        }
    }
}

/// Those who would serve a model if they were not switched off.
fn disabled<'i>(index: &'i Index, name: &'i str) -> impl Iterator<Item = Explained> + 'i {
    index.credentials.iter().filter(|credential| credential.spec.disabled).filter_map(move |credential| {
        let spec = &credential.spec;
        let prefix = spec.prefix.as_deref().and_then(|prefix| name.strip_prefix(prefix)?.strip_prefix('/'));
        let models = spec.models.models().iter();
        let mut named =
            models.filter(|model| &*model.alias == name || Some(&*model.alias) == prefix).peekable();
        named.peek()?;
        Some(explained(credential, named, Standing::Disabled))
    })
}

fn explained<'m>(
    credential: &Credential,
    models: impl Iterator<Item = &'m Arc<ModelSpec>>,
    standing: Standing,
) -> Explained {
    let spec = &credential.spec;
    Explained {
        credential: spec.id.to_string(),
        label: spec.label.to_string(),
        provider: spec.provider.to_string(),
        priority: spec.priority,
        weight: spec.weight,
        upstream: models.map(|model| model.upstream.to_string()).collect(),
        in_flight: credential.state.in_flight(),
        standing,
    }
}

fn status(credential: &Credential, now_ms: u64) -> Status {
    let (spec, state) = (&credential.spec, &credential.state);
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
        in_flight: state.in_flight(),
        succeeded: state.tally.succeeded.load(Ordering::Relaxed),
        failed: state.tally.failed.load(Ordering::Relaxed),
        cooling,
    }
}
