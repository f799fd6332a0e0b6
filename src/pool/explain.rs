//! Why a model goes where it goes: for the operator's `cliproxy explain` and the management API.
//!
//! Enters: a model's name and the time. Leaves: [`Explanation`]. Nothing may go wrong and nothing changes, not
//! even the count of requests that try a model whose fallback serves.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;
use wire::thinking::{Mode, split_suffix};

use crate::Pool;
use crate::fallback;
use crate::index::{Bucket, Credential, Entry, Index};
use crate::model::ModelSpec;
use crate::ratio::{ErrorRatio, RatioLevel};
use crate::route::Route;
use crate::settings::{Now, Strategy};
use crate::standing::{Rest, Standing, standing};

/// Why a model goes where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The name as asked.
    pub asked: String,
    /// The listed name it resolves to; `None`: nobody serves it.
    pub model: Option<String>,
    /// What the suffix asks for: `none`, `auto`, a level, a number of tokens; `None`: nothing.
    pub thinking: Option<String>,
    /// The listed name of the model that serves the next request: another one where nobody can serve `model`,
    /// or where too many of its attempts fail. `None`: nobody serves.
    pub serves: Option<String>,
    /// Why that is another one than `model`.
    pub instead: Option<&'static str>,
    /// Attempts on `model` in the last ten minutes.
    pub errors: ErrorRatio,
    /// What may serve in its place, in order.
    pub fallbacks: Vec<ExplainedFallback>,
    /// Choice among those of the same rank.
    pub strategy: Strategy,
    /// Everyone who serves it, the highest priority first, disabled ones last.
    pub candidates: Vec<Explained>,
    /// Close names, where it resolves to none.
    pub closest: Vec<String>,
}

/// A model that may serve in place of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedFallback {
    /// Its name as it is configured.
    pub model: String,
    /// Somebody serves it.
    pub listed: bool,
    /// Somebody can serve it now.
    pub ready: bool,
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
    /// Its place by priority, from 0; those of the same rank take turns. Within a priority, those whose own name
    /// it is come before those who were given it as a usual name.
    pub rank: usize,
    /// Its weight.
    pub weight: u32,
    /// The upstream's names of the model, in the order in which they are tried.
    pub upstream: Vec<String>,
    /// Whether the next request is served by it or by another of those that are marked so.
    pub chosen_from: bool,
    /// Whether it can serve, and if not why.
    pub standing: Standing,
    /// The same in words: `rests 12 s after rate_limit (status 429)`.
    pub why: String,
    /// Its last trouble with the model, also when the rest is over: the next request tests it then.
    pub trouble: Option<Rest>,
    /// Requests under way.
    pub in_flight: u32,
    /// Most of them at once; `None`: no limit.
    pub in_flight_limit: Option<u32>,
    /// Moving average of the time to the first byte in milliseconds; `None`: nothing known.
    pub latency_ms: Option<u64>,
    /// Requests under way and one more, times that average in microseconds: the lower of two serves under
    /// least-loaded. `None`: no average is known, and it is taken for quick.
    pub score: Option<u64>,
    /// A session that it serves stays with it.
    pub keeps_sessions: bool,
    /// Attempts that worked.
    pub succeeded: u64,
    /// Attempts that failed for a reason of the credential or its upstream.
    pub failed: u64,
}

impl Pool {
    /// Who serves a model and why each is in or out.
    pub fn explain(&self, model: &str, now: Now) -> Explanation {
        let (route, closest) = match self.resolve(model, now) {
            Ok(route) => (Some(route), Vec::new()),
            Err(crate::RouteError::Unknown { closest, .. }) => (None, closest),
        };
        let index = self.index.load();
        let index = route.as_ref().map_or(&**index, |route| &*route.index);
        // The model that was asked for: a route of a name that nobody has is that of its first fallback.
        let asked = route.as_ref().filter(|route| !route.is_fallback());
        let entry = asked.and_then(Route::entry);
        let name = entry.map_or(model, |entry| &entry.id);
        let mut candidates = entry.map(|entry| serving(index, entry, now)).unwrap_or_default();
        candidates.extend(disabled(index, name, now));
        let (serves, instead) = serves(route.as_ref(), now);
        let list = route.as_ref().and_then(|route| route.fallbacks.clone());
        let list = list.or_else(|| fallback::list(index, model, None));
        Explanation {
            asked: model.to_owned(),
            model: entry.map(|entry| entry.id.to_string()),
            thinking: asked.and_then(Route::thinking).map(in_words),
            serves,
            instead,
            errors: entry.map(|entry| entry.errors.ratio(now.mono_ms)).unwrap_or_default(),
            fallbacks: list.iter().flat_map(|list| list.iter()).map(|name| told(index, name, now)).collect(),
            strategy: index.settings.strategy,
            candidates,
            closest,
        }
    }
}

/// The model that serves the next request, and why it is another one.
fn serves(route: Option<&Route>, now: Now) -> (Option<String>, Option<&'static str>) {
    let Some(route) = route else { return (None, None) };
    let name = |route: &Route| Some(route.model().to_owned());
    if route.is_fallback() {
        return (name(route), Some("nobody has the model"));
    }
    let Some(entry) = route.entry() else { return (None, None) };
    if entry.errors.ratio(now.mono_ms).level == RatioLevel::Critical
        && let Some(detour) = fallback::detour(route, now)
    {
        return (name(&detour), Some("too many attempts on the model fail"));
    }
    if fallback::is_ready(&route.index, entry, now) {
        return (name(route), None);
    }
    let next = route.fallbacks.as_ref().and_then(|list| fallback::next(&route.index, list, 0, now));
    match next.and_then(|next| route.index.entry_at(next.entry)) {
        Some(next) => (Some(next.id.to_string()), Some("nobody can serve the model now")),
        None => (None, None),
    }
}

fn told(index: &Index, name: &str, now: Now) -> ExplainedFallback {
    let entry = index.find(split_suffix(name).0).and_then(|entry| index.entry_at(entry));
    ExplainedFallback {
        model: name.to_owned(),
        listed: entry.is_some(),
        ready: entry.is_some_and(|entry| fallback::is_ready(index, entry, now)),
    }
}

/// Everyone who is not switched off, by rank.
fn serving(index: &Index, entry: &Entry, now: Now) -> Vec<Explained> {
    let soft = |standing: &Standing| matches!(standing, Standing::Cooling(rest) if rest.soft);
    let of = |(rank, bucket): (usize, &Bucket)| -> Vec<Explained> {
        let candidates = bucket.candidates.iter().filter_map(|candidate| {
            let credential = index.credential(*candidate)?;
            let standing = standing(index, *candidate, now.mono_ms)?;
            let models = &credential.spec.models;
            let upstream = candidate.models.positions().filter_map(|position| models.get(position));
            Some(Explained { rank, ..explained(index, credential, upstream, standing, now) })
        });
        candidates.collect()
    };
    let mut ranks: Vec<Vec<Explained>> = entry.buckets.iter().enumerate().map(of).collect();
    let has =
        |rank: &Vec<Explained>, fits: &dyn Fn(&Standing) -> bool| rank.iter().any(|e| fits(&e.standing));
    let is_ready = |standing: &Standing| *standing == Standing::Ready;
    let ready = ranks.iter().position(|rank| has(rank, &is_ready));
    let turn = ready.or_else(|| ranks.iter().position(|rank| has(rank, &soft)));
    let first_only = index.settings.strategy == Strategy::FillFirst;
    if let Some(rank) = turn.and_then(|rank| ranks.get_mut(rank)) {
        let able = rank
            .iter_mut()
            .filter(|e| if ready.is_some() { is_ready(&e.standing) } else { soft(&e.standing) });
        able.take(if first_only { 1 } else { usize::MAX }).for_each(|e| e.chosen_from = true);
    }
    ranks.into_iter().flatten().collect()
}

/// Those who would serve a model if they were not switched off.
fn disabled<'i>(index: &'i Index, name: &'i str, now: Now) -> impl Iterator<Item = Explained> + 'i {
    index.credentials.iter().filter(|credential| credential.spec.disabled).filter_map(move |credential| {
        let spec = &credential.spec;
        let prefix = spec.prefix.as_deref().and_then(|prefix| name.strip_prefix(prefix)?.strip_prefix('/'));
        let models = spec.models.models().iter();
        let mut named =
            models.filter(|model| &*model.alias == name || Some(&*model.alias) == prefix).peekable();
        named.peek()?;
        Some(explained(index, credential, named, Standing::Disabled, now))
    })
}

fn explained<'m>(
    index: &Index,
    credential: &Credential,
    models: impl Iterator<Item = &'m Arc<ModelSpec>>,
    standing: Standing,
    now: Now,
) -> Explained {
    let models: Vec<&Arc<ModelSpec>> = models.collect();
    let (spec, state) = (&credential.spec, &credential.state);
    let load = state.load(now.mono_ms);
    Explained {
        credential: spec.id.to_string(),
        label: spec.label.to_string(),
        provider: spec.provider.to_string(),
        priority: spec.priority,
        rank: 0,
        weight: spec.weight,
        upstream: models.iter().map(|model| model.upstream.to_string()).collect(),
        chosen_from: false,
        standing,
        why: standing.to_string(),
        trouble: trouble(credential, &models, now),
        in_flight: load.in_flight,
        in_flight_limit: spec.in_flight_limit,
        latency_ms: load.micros.map(|micros| micros / 1000),
        score: load.score(),
        keeps_sessions: index.keeps_sessions(spec.kind),
        succeeded: state.tally.succeeded.load(Relaxed),
        failed: state.tally.failed.load(Relaxed),
    }
}

/// The newest trouble of a credential that concerns these models.
fn trouble(credential: &Credential, models: &[&Arc<ModelSpec>], now: Now) -> Option<Rest> {
    if !credential.state.troubled() {
        return None;
    }
    let health = credential.state.health();
    let records = models.iter().flat_map(|model| health.about(&model.upstream));
    let (scope, record) = records.max_by_key(|(_, record)| record.failed_ms)?;
    Some(Rest::of(record, scope, now.mono_ms))
}

/// A suffix as it was understood.
fn in_words(mode: Mode) -> String {
    match mode {
        Mode::Level(level) => level.name().to_owned(),
        Mode::Budget(tokens) => tokens.to_string(),
        Mode::Off | Mode::Auto => mode.name().to_owned(),
    }
}
