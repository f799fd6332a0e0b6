//! Whether a candidate can serve, and taking its slot if so.
//!
//! Enters: a candidate, what the request has tried, the time. Leaves: [`Judged`]. Nothing may go wrong. The
//! slot and the right to test are taken under the same look at the health, so that two requests never test
//! the same model.

use std::sync::Arc;

use crate::attempts::Attempts;
use crate::health::Gate;
use crate::index::{Bucket, Candidate, Credential, Index};
use crate::load::Load;
use crate::model::{ModelSpec, Span};
use crate::queue::{Aside, Judged};
use crate::settings::Strategy;

/// Longest time until somebody who is full is asked again without a signal.
const FULL_RECHECK_MS: u64 = 60_000;

/// The load of a candidate that is not there.
const NOBODY: Load = Load { in_flight: u32::MAX, micros: Some(u64::MAX) };

/// A candidate that serves; its slot is taken.
#[derive(Debug)]
pub(crate) struct Able {
    pub(crate) credential: Arc<Credential>,
    pub(crate) model: Arc<ModelSpec>,
    /// Position of the model in the credential's set.
    pub(crate) position: u32,
    /// Behind the same name there are models this request has not tried.
    pub(crate) more_models: bool,
    /// The request tests a rested model.
    pub(crate) probe: bool,
}

/// What a judgement is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case<'c> {
    pub(crate) index: &'c Index,
    pub(crate) attempts: &'c Attempts,
    pub(crate) now_ms: u64,
    /// Nobody is ready: rests that are only a guess do not count.
    pub(crate) soft_serves: bool,
}

impl Case<'_> {
    /// The next one of a bucket that is ready.
    pub(crate) fn next(&self, bucket: &Bucket, signals: (u64, u64), seed: u64) -> Option<Able> {
        let load = |position: u32| {
            let candidate = bucket.candidates.get(position as usize);
            let credential = candidate.and_then(|candidate| self.index.credential(*candidate));
            credential.map_or(NOBODY, |credential| credential.state.load(self.now_ms))
        };
        let mut judge = |position| self.judge_at(bucket, position);
        let mut queue = bucket.queue.lock();
        queue.wake(self.now_ms, signals);
        let drawn = match self.index.settings.strategy {
            Strategy::LeastLoaded => queue.draw(seed, load, &mut judge),
            Strategy::RoundRobin | Strategy::Weighted | Strategy::FillFirst => None,
        };
        let able = drawn.or_else(|| queue.take(&mut judge))?;
        queue.took(able.credential.state.key);
        Some(able)
    }

    /// One of a bucket whose rest is only a guess.
    pub(crate) fn next_soft(&self, bucket: &Bucket) -> Option<Able> {
        bucket.queue.lock().take_soft(&mut |position| self.judge_at(bucket, position))
    }

    fn judge_at(&self, bucket: &Bucket, position: u32) -> Judged<Able> {
        bucket.candidates.get(position as usize).map_or(Judged::Skip, |candidate| self.judge(*candidate))
    }

    /// Whether a candidate can serve this request.
    pub(crate) fn judge(&self, candidate: Candidate) -> Judged<Able> {
        let Some(credential) = self.index.credential(candidate) else { return Judged::Skip };
        let retry = credential.spec.request_retry.unwrap_or(self.index.settings.request_retry);
        if self.attempts.excludes(credential.state.key, retry) {
            return Judged::Skip;
        }
        let key = credential.state.key;
        let mut untried =
            candidate.models.positions().filter(|position| !self.attempts.has_tried(key, *position));
        let Some(first) = untried.next() else { return Judged::Skip };
        if credential.state.troubled() {
            self.judge_troubled(credential, std::iter::once(first).chain(untried), candidate.models)
        } else {
            self.seat(credential, first, candidate.models, Turn::Plain)
        }
    }

    fn judge_troubled(
        &self,
        credential: &Arc<Credential>,
        untried: impl Iterator<Item = u32>,
        models: Span,
    ) -> Judged<Able> {
        let lease_ms = self.index.settings.probe_lease_ms;
        credential.state.change(|health| {
            let mut mildest: Option<Gate> = None;
            for position in untried {
                let Some(model) = credential.spec.models.get(position) else { continue };
                let gate = health.gate(&model.upstream, self.now_ms, lease_ms);
                let probe = match gate {
                    Gate::Open { probe } => probe,
                    Gate::Probing { soft: true, .. } | Gate::Shut { soft: true, .. } if self.soft_serves => {
                        false
                    }
                    Gate::Probing { .. } | Gate::Shut { .. } => {
                        mildest = Some(mildest.filter(|known| !gate.milder(*known)).unwrap_or(gate));
                        continue;
                    }
                };
                let turn = if probe { Turn::Probe } else { Turn::Plain };
                let judged = self.seat(credential, position, models, turn);
                if probe && matches!(judged, Judged::Take(_)) {
                    health.begin_probe(&model.upstream, self.now_ms, lease_ms);
                }
                return judged;
            }
            // Who has tried some of its models does not see all of the candidate: others judge for themselves.
            let partial =
                models.positions().any(|position| self.attempts.has_tried(credential.state.key, position));
            mildest.filter(|_| !partial).map_or(Judged::Skip, refusal)
        })
    }

    /// Takes a slot.
    fn seat(&self, credential: &Arc<Credential>, position: u32, models: Span, turn: Turn) -> Judged<Able> {
        let Some(model) = credential.spec.models.get(position) else { return Judged::Skip };
        let minute = credential.spec.minute();
        // One look at the minute and one count, under one lock: exact under any race.
        let mut windows = minute.has_windows().then(|| credential.state.windows());
        if let Some(windows) = &windows
            && turn != Turn::Again
            && let Some(wait_ms) = windows.wait(&minute, self.now_ms)
        {
            let until_ms = self.now_ms.saturating_add(wait_ms);
            return Judged::Rest { until_ms, aside: Aside::Limited };
        }
        if !credential.state.acquire(credential.spec.in_flight_limit) {
            return Judged::Wait { until_ms: self.now_ms.saturating_add(FULL_RECHECK_MS), soft: false };
        }
        if let Some(windows) = &mut windows {
            windows.begin(self.now_ms);
        }
        let key = credential.state.key;
        let more_models =
            models.positions().any(|other| other != position && !self.attempts.has_tried(key, other));
        Judged::Take(Able {
            credential: Arc::clone(credential),
            model: Arc::clone(model),
            position,
            more_models,
            probe: turn == Turn::Probe,
        })
    }

    /// The same credential and model once more, whatever its health says.
    pub(crate) fn again(&self, candidate: Candidate, position: u32) -> Option<Able> {
        let credential = self.index.credential(candidate)?;
        match self.seat(credential, position, candidate.models, Turn::Again) {
            Judged::Take(able) => Some(able),
            _ => None,
        }
    }

    /// Until when a candidate rests, by its mildest model; now or earlier if it does not.
    pub(crate) fn rests_until(&self, bucket: &Bucket, position: u32) -> u64 {
        let candidate = bucket.candidates.get(position as usize);
        let Some(credential) = candidate.and_then(|candidate| self.index.credential(*candidate)) else {
            return 0;
        };
        let models = candidate.into_iter().flat_map(|candidate| candidate.models.positions());
        let health = credential.state.health();
        let ends =
            models.filter_map(|position| credential.spec.models.get(position)).map(|model| {
                match health.gate(&model.upstream, self.now_ms, self.index.settings.probe_lease_ms) {
                    Gate::Open { .. } => 0,
                    Gate::Probing { until_ms, .. } | Gate::Shut { until_ms, .. } => until_ms,
                }
            });
        let rest = ends.min().unwrap_or(0);
        let minute = credential.spec.minute();
        let spent = minute.has_windows().then(|| credential.state.windows().wait(&minute, self.now_ms));
        rest.max(spent.flatten().map_or(0, |wait_ms| self.now_ms.saturating_add(wait_ms)))
    }
}

/// What a slot is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// An attempt.
    Plain,
    /// An attempt that tests a rested model.
    Probe,
    /// The same attempt once more, with a renewed token: whatever is used up.
    Again,
}

fn refusal(gate: Gate) -> Judged<Able> {
    match gate {
        Gate::Open { .. } => Judged::Skip,
        Gate::Probing { until_ms, soft } => Judged::Wait { until_ms, soft },
        Gate::Shut { until_ms, soft: true, .. } => Judged::Rest { until_ms, aside: Aside::Soft },
        Gate::Shut { until_ms, class, .. } if class.is_broken() => {
            Judged::Rest { until_ms, aside: Aside::Broken }
        }
        Gate::Shut { until_ms, .. } => Judged::Rest { until_ms, aside: Aside::Limited },
    }
}
