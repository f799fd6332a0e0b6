//! One configuration, ready to be asked: which credentials serve a model, in which order of priority.
//!
//! Enters: settings and credentials, and the index before. Leaves: an [`Index`] that never changes; a reload
//! makes another one. Nothing may go wrong: a credential whose id repeats is left out and told in
//! [`Loaded`].
//!
//! Health, counts and slots belong to the [`State`] of a credential and pass from index to index under its
//! id. So does the order of turns, where the same credentials stand for the same model as before.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::credential::{CredentialId, CredentialSpec, Kind};
use crate::model::{ModelSet, ModelSpec, Span};
use crate::queue::Queue;
use crate::ratio::Window;
use crate::settings::{Settings, Strategy};
use crate::state::{Key, Signals, State};
use crate::token::same_login;

/// A credential: its configuration and its state.
#[derive(Debug)]
pub(crate) struct Credential {
    pub(crate) spec: CredentialSpec,
    pub(crate) state: Arc<State>,
}

/// One credential in the line for one model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Position in [`Index::credentials`].
    pub(crate) credential: u32,
    /// Its upstream models behind the name.
    pub(crate) models: Span,
}

/// The operator's priority, then whether the name is the model's own or was set.
type Rank = (i32, bool);

/// Candidates of one rank, in configuration order.
#[derive(Debug)]
pub(crate) struct Bucket {
    rank: Rank,
    pub(crate) candidates: Box<[Candidate]>,
    pub(crate) queue: Arc<Mutex<Queue>>,
    /// Who stands here, in which order, and all that decides whether and when each takes its turn: only a
    /// line with the same takes over the queue.
    fingerprint: u64,
}

impl Bucket {
    /// Position of a credential's candidate.
    pub(crate) fn position(&self, credential: u32) -> Option<usize> {
        self.candidates.binary_search_by_key(&credential, |candidate| candidate.credential).ok()
    }
}

/// A model as clients name it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: Arc<str>,
    /// Highest priority first; never empty, nor is any of them.
    pub(crate) buckets: Box<[Bucket]>,
    /// The provider, where all candidates have the same.
    pub(crate) provider: Option<Arc<str>>,
    /// The facts shown for it: those of the first candidate.
    pub(crate) facts: Arc<ModelSpec>,
    /// The provider shown for it.
    pub(crate) shown_provider: Arc<str>,
    /// Somebody here keeps a prompt cache, so that a session is worth remembering.
    pub(crate) caches: bool,
    /// How its attempts ended.
    pub(crate) errors: Arc<Window>,
}

impl Entry {
    pub(crate) fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.buckets.iter().flat_map(|bucket| bucket.candidates.iter())
    }
}

/// A configuration.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) settings: Settings,
    /// In configuration order, disabled ones included.
    pub(crate) credentials: Vec<Arc<Credential>>,
    by_id: HashMap<CredentialId, u32>,
    /// Sorted by id.
    pub(crate) entries: Vec<Entry>,
    by_name: HashMap<Arc<str>, u32>,
    /// Lower-case spelling of the ids that have upper-case letters.
    folded: HashMap<String, u32>,
    /// Entries by age, newest first, without image models.
    pub(crate) newest: Vec<u32>,
    /// Highest `request-retry` of any credential.
    pub(crate) max_request_retry: u32,
}

/// Where the names of a set of models stand, and the models behind each.
type Places = Arc<[(usize, Span)]>;

/// What a configuration holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Credentials, disabled ones included.
    pub credentials: usize,
    /// Models as clients name them.
    pub models: usize,
    /// Ids that came more than once; the first credential counts.
    pub repeated: Vec<CredentialId>,
    /// Models served by credentials of more than one provider: priority decides, then the strategy over all.
    pub shared: Vec<SharedModel>,
}

/// A model that several providers serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedModel {
    /// The client's name.
    pub model: Arc<str>,
    /// Providers, sorted.
    pub providers: Vec<Arc<str>>,
}

impl Index {
    /// Makes the index of a configuration. `old` is the one before; `signals` tells the queues when the
    /// trouble of a credential whose connection changed was forgotten.
    pub(crate) fn build(
        settings: Settings,
        specs: Vec<CredentialSpec>,
        old: &Self,
        signals: &Signals,
    ) -> (Self, Loaded) {
        let mut loaded = Loaded::default();
        let mut index = Self { settings, ..Self::default() };
        for spec in specs {
            let position = index.credentials.len() as u32;
            if index.by_id.contains_key(&spec.id) {
                loaded.repeated.push(spec.id);
                continue;
            }
            index.by_id.insert(spec.id.clone(), position);
            index.max_request_retry =
                index.max_request_retry.max(spec.request_retry.unwrap_or(index.settings.request_retry));
            let state = inherited(old, &spec, signals);
            index.credentials.push(Arc::new(Credential { spec, state }));
        }
        index.line_up(old);
        loaded.credentials = index.credentials.len();
        loaded.models = index.entries.len();
        loaded.shared = index.entries.iter().filter_map(|entry| index.shared(entry)).collect();
        (index, loaded)
    }

    /// Lists every credential under every name of its models.
    fn line_up(&mut self, old: &Self) {
        let mut lines: Vec<(Arc<str>, Vec<Candidate>)> = Vec::new();
        let mut places: HashMap<Arc<str>, usize> = HashMap::new();
        // Credentials that share a set and a prefix have the same names: look them up once.
        let mut known: HashMap<(*const ModelSet, Option<Arc<str>>), Places> = HashMap::new();
        for (position, credential) in self.credentials.iter().enumerate() {
            let spec = &credential.spec;
            if spec.disabled {
                continue;
            }
            let key = (Arc::as_ptr(&spec.models), spec.prefix.clone());
            let named = known.entry(key).or_insert_with(|| {
                let names = names(spec, self.settings.force_model_prefix);
                let mut place = |name: Arc<str>| {
                    *places.entry(Arc::clone(&name)).or_insert_with(|| {
                        lines.push((name, Vec::new()));
                        lines.len() - 1
                    })
                };
                names.into_iter().map(|(name, span)| (place(name), span)).collect()
            });
            for (place, models) in named.iter() {
                let Some((_, line)) = lines.get_mut(*place) else { continue };
                // `a/b` and the prefix `a` with the model `b` are the same name: the first one counts.
                if line.last().is_none_or(|last| last.credential != position as u32) {
                    line.push(Candidate { credential: position as u32, models: *models });
                }
            }
        }
        lines.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.entries = lines.into_iter().filter_map(|(id, line)| self.entry(id, line, old)).collect();
        self.name();
    }

    fn entry(&self, id: Arc<str>, mut line: Vec<Candidate>, old: &Self) -> Option<Entry> {
        let rank = |candidate: &Candidate| {
            let Some(spec) = self.spec(*candidate) else { return (0, true) };
            let usual = spec.models.get(candidate.models.positions().start).is_some_and(|model| model.usual);
            (spec.priority, !usual)
        };
        line.sort_by_key(|candidate| std::cmp::Reverse(rank(candidate)));
        let before = old.by_name.get(&id).and_then(|entry| old.entries.get(*entry as usize));
        let buckets: Box<[Bucket]> = line
            .chunk_by(|a, b| rank(a) == rank(b))
            .filter_map(|candidates| Some(self.bucket(candidates, rank(candidates.first()?), before)))
            .collect();
        let first = line.first()?;
        let shown = self.spec(*first)?;
        let provider = Arc::clone(&shown.provider);
        let same = line.iter().all(|c| self.spec(*c).is_some_and(|spec| spec.provider == provider));
        Some(Entry {
            id,
            buckets,
            provider: same.then(|| Arc::clone(&provider)),
            facts: Arc::clone(shown.models.get(first.models.positions().start)?),
            shown_provider: provider,
            caches: line.iter().any(|c| self.spec(*c).is_some_and(|spec| spec.kind.caches_prompts())),
            errors: before.map(|before| Arc::clone(&before.errors)).unwrap_or_default(),
        })
    }

    fn bucket(&self, line: &[Candidate], rank: Rank, before: Option<&Entry>) -> Bucket {
        let strategy = self.settings.strategy;
        let members: Vec<(Key, u32)> = line
            .iter()
            .filter_map(|candidate| self.credential(*candidate))
            .map(|credential| (credential.state.key, credential.spec.weight))
            .collect();
        let mut hasher = DefaultHasher::new();
        (strategy, self.settings.probe_lease_ms, &members).hash(&mut hasher);
        for candidate in line {
            let Some(spec) = self.spec(*candidate) else { continue };
            (spec.in_flight_limit, spec.minute(), spec.models.digest(candidate.models)).hash(&mut hasher);
        }
        let fingerprint = hasher.finish();
        let before = before.and_then(|entry| entry.buckets.iter().find(|b| b.rank == rank));
        let queue = match before {
            Some(bucket) if bucket.fingerprint == fingerprint => Arc::clone(&bucket.queue),
            _ => {
                let last = before.and_then(|bucket| bucket.queue.lock().last());
                let next = |last| members.iter().position(|(key, _)| *key == last).map_or(0, |at| at + 1);
                let first = last.map_or(0, next) % members.len().max(1);
                let weights: Vec<u32> = members.iter().map(|(_, weight)| *weight).collect();
                Arc::new(Mutex::new(Queue::new(strategy, &weights, first)))
            }
        };
        Bucket { rank, candidates: line.into(), queue, fingerprint }
    }

    fn name(&mut self) {
        for (position, entry) in self.entries.iter().enumerate() {
            self.by_name.insert(Arc::clone(&entry.id), position as u32);
            if entry.id.bytes().any(|byte| byte.is_ascii_uppercase()) {
                self.folded.entry(entry.id.to_ascii_lowercase()).or_insert(position as u32);
            }
        }
        let eligible = self.entries.iter().enumerate().filter(|(_, entry)| !entry.facts.image);
        let mut newest: Vec<(u32, u64)> =
            eligible.map(|(position, entry)| (position as u32, entry.facts.created.unwrap_or(0))).collect();
        newest.sort_by_key(|(_, created)| std::cmp::Reverse(*created));
        self.newest = newest.into_iter().map(|(position, _)| position).collect();
    }

    fn spec(&self, candidate: Candidate) -> Option<&CredentialSpec> {
        self.credentials.get(candidate.credential as usize).map(|credential| &credential.spec)
    }

    /// The entry of a name: as written, else in any case.
    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied().or_else(|| {
            let lower = name.to_ascii_lowercase();
            self.by_name.get(lower.as_str()).or_else(|| self.folded.get(&lower)).copied()
        })
    }

    pub(crate) fn entry_at(&self, position: u32) -> Option<&Entry> {
        self.entries.get(position as usize)
    }

    pub(crate) fn credential(&self, candidate: Candidate) -> Option<&Arc<Credential>> {
        self.credentials.get(candidate.credential as usize)
    }

    pub(crate) fn position_of(&self, id: &CredentialId) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    fn shared(&self, entry: &Entry) -> Option<SharedModel> {
        if entry.provider.is_some() {
            return None;
        }
        let specs = entry.candidates().filter_map(|candidate| self.spec(*candidate));
        let mut providers: Vec<Arc<str>> = specs.map(|spec| Arc::clone(&spec.provider)).collect();
        providers.sort();
        providers.dedup();
        Some(SharedModel { model: Arc::clone(&entry.id), providers })
    }

    /// Whether sessions stay with credentials of a kind.
    pub(crate) fn keeps_sessions(&self, kind: Kind) -> bool {
        let settings = &self.settings;
        settings.session_affinity_ms > 0 && (settings.affinity_without_cache || kind.caches_prompts())
    }

    /// Turns under the weighted strategy may leave a candidate out for good.
    pub(crate) fn takes_turns(&self, spec: &CredentialSpec) -> bool {
        self.settings.strategy != Strategy::Weighted || spec.weight > 0
    }
}

/// The state a credential had before, or a new one. What was learnt about another key or another way to the
/// upstream is forgotten; slots and counts stay.
fn inherited(old: &Index, spec: &CredentialSpec, signals: &Signals) -> Arc<State> {
    let before = old.by_id.get(&spec.id).and_then(|position| old.credentials.get(*position as usize));
    let Some(before) = before else { return Arc::new(State::new(signals.new_key())) };
    let same_login = same_login(&before.spec, spec, &before.state);
    if before.state.troubled() {
        let served = |upstream: &str| spec.models.models().iter().any(|model| &*model.upstream == upstream);
        let same = same_login && before.spec.same_way(spec);
        before.state.change(|health| if same { health.keep(served) } else { health.clear(None) });
        signals.thaw();
    }
    Arc::clone(&before.state)
}

/// The names of a credential's models: with the prefix, without it, or both.
fn names(spec: &CredentialSpec, force_prefix: bool) -> Vec<(Arc<str>, Span)> {
    let prefix = spec.prefix.as_deref().filter(|prefix| !prefix.is_empty());
    let mut names = Vec::new();
    for group in spec.models.groups() {
        if prefix.is_none_or(|prefix| !force_prefix || prefix == &*group.alias) {
            names.push((Arc::clone(&group.alias), group.span));
        }
        if let Some(prefix) = prefix {
            names.push((Arc::from(format!("{prefix}/{}", group.alias)), group.span));
        }
    }
    names
}
