//! How calls to providers went: since the start, and over the last minutes.
//!
//! Enters: ends of calls, as they come. Leaves: [`Account`]s of providers and models; figures for alerts.
//! Nothing may go wrong: memory is bounded by the names of the configuration, by an hour of slots each, and
//! by one more name for what is beyond.
//!
//! Of the process before only reasoning by the hour is taken over, so that a restart does not end the
//! comparison with the day before.
//!
//! A call is an attempt at an upstream: a request that was served by the second provider counts with both,
//! one that was refused before any upstream counts with none.

mod cell;
pub mod report;

use crate::observe::alerts::Figures;
use cell::Cell;
use config::AlertScope as Scope;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use wire::ir::Usage;

pub use cell::{Counts, Span, Window};

/// Most providers and models that are told apart.
const MOST: usize = 5_000;
/// What stands for names beyond that.
const OTHER: &str = "(other)";
/// Seconds that reasoning is compared with.
const DAY_S: u64 = 24 * 3600;

/// A call that ended.
#[derive(Clone, Copy, Debug)]
pub struct Call<'c> {
    /// Provider.
    pub provider: &'c Arc<str>,
    /// The upstream's model.
    pub model: &'c Arc<str>,
    /// The client's path, without what varies in it.
    pub endpoint: &'static str,
    /// Status of the upstream's answer, or the one that the client would get for it; 499: the client left.
    pub status: u16,
    /// Another credential is tried because of its failure.
    pub failover: bool,
    /// Milliseconds from the request's head to its end.
    pub latency_ms: u64,
    /// Milliseconds to the first byte of the answer.
    pub first_event_ms: Option<u64>,
    /// What the answer said of tokens; `None`: there was no good answer.
    pub usage: Option<&'c Usage>,
}

/// What else is counted about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    /// It had no content.
    Empty,
    /// It thought more or less than was asked for.
    ThinkingMismatch,
}

type Name = (Arc<str>, Arc<str>);

/// All providers and models that were called.
#[derive(Debug, Default)]
pub struct Providers {
    cells: RwLock<HashMap<Name, Arc<Mutex<Cell>>>>,
    /// Reasoning of hours that were counted before this process, by the hour.
    past: RwLock<HashMap<Name, Vec<(u64, Span)>>>,
}

impl Providers {
    /// Takes a call down. `now_s` is seconds since 1970.
    pub fn call(&self, call: &Call<'_>, now_s: u64) {
        self.cell(call.provider, call.model).lock().call(call, now_s);
    }

    /// Takes a remark down.
    pub fn remark(&self, provider: &Arc<str>, model: &Arc<str>, remark: Remark, now_s: u64) {
        self.cell(provider, model).lock().remark(remark, now_s);
    }

    fn cell(&self, provider: &Arc<str>, model: &Arc<str>) -> Arc<Mutex<Cell>> {
        let name = (Arc::clone(provider), Arc::clone(model));
        if let Some(cell) = self.cells.read().get(&name) {
            return Arc::clone(cell);
        }
        let mut cells = self.cells.write();
        let name = if cells.len() >= MOST && !cells.contains_key(&name) {
            (Arc::from(OTHER), Arc::from(OTHER))
        } else {
            name
        };
        Arc::clone(cells.entry(name).or_default())
    }

    /// What is known, by provider and model. `window_s` is up to an hour.
    pub fn accounts(&self, window_s: u64, now_s: u64) -> BTreeMap<Name, (Counts, Window)> {
        let cells = self.cells.read();
        let told = cells.iter().map(|(name, cell)| {
            let cell = cell.lock();
            (name.clone(), (cell.counts().clone(), cell.window(window_s, now_s)))
        });
        told.collect()
    }

    /// Takes over what a process before this one counted in an hour (hours since 1970).
    pub fn recall(&self, provider: &Arc<str>, model: &Arc<str>, hour: u64, reasoning: Span) {
        let mut past = self.past.write();
        let name = (Arc::clone(provider), Arc::clone(model));
        if past.len() < MOST || past.contains_key(&name) {
            past.entry(name).or_default().push((hour, reasoning));
        }
    }

    /// What alerts about providers or models are judged by.
    pub fn figures(&self, scope: Scope, window_s: u64, now_s: u64) -> BTreeMap<Arc<str>, Figures> {
        let past = self.past.read();
        let hours = cell::hours(now_s, DAY_S);
        let mut all: BTreeMap<Arc<str>, (Window, Span)> = BTreeMap::new();
        for (key, cell) in self.cells.read().iter() {
            let name = if scope == Scope::Providers { &key.0 } else { &key.1 };
            let cell = cell.lock();
            let (window, before) = all.entry(Arc::clone(name)).or_default();
            window.add(&cell.window(window_s, now_s));
            before.add(&cell.day(now_s, DAY_S));
            let known = past.get(key).map(Vec::as_slice).unwrap_or_default();
            known.iter().filter(|(hour, _)| hours.contains(hour)).for_each(|(_, span)| before.add(span));
        }
        all.into_iter().map(|(name, (window, before))| (name, figures(&window, before))).collect()
    }
}

fn figures(window: &Window, before: Span) -> Figures {
    let count = |wanted: fn(u16) -> bool| -> u64 {
        window.status.iter().filter(|(status, _)| wanted(**status)).map(|(_, count)| *count).sum()
    };
    Figures {
        requests: window.calls,
        rate_limited: count(|status| status == 429),
        errors: count(|status| status >= 500 || matches!(status, 401 | 402 | 408)),
        refused: count(|status| matches!(status, 400 | 403 | 404)),
        empty: window.empty,
        thinking_mismatch: window.thinking_mismatch,
        reasoning: window.span,
        reasoning_before: before,
        ..Figures::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn call<'c>(provider: &'c Arc<str>, model: &'c Arc<str>, status: u16) -> Call<'c> {
        Call {
            provider,
            model,
            endpoint: "/v1/chat/completions",
            status,
            failover: status >= 500,
            latency_ms: 100,
            first_event_ms: (status == 200).then_some(20),
            usage: None,
        }
    }

    #[test]
    fn calls_count_since_the_start_and_leave_the_window_when_it_has_passed() {
        let providers = Providers::default();
        let (p, m): Name = ("p".into(), "m".into());
        let usage = Usage { input: Some(5), output: Some(3), reasoning: Some(1), ..Usage::default() };
        providers.call(&Call { usage: Some(&usage), ..call(&p, &m, 200) }, 1_000);
        providers.call(&call(&p, &m, 429), 1_010);
        providers.call(&call(&p, &m, 500), 1_500);
        providers.remark(&p, &m, Remark::Empty, 1_500);
        let told = providers.accounts(600, 1_500);
        let (counts, window) = &told[&(Arc::clone(&p), Arc::clone(&m))];
        assert_eq!(
            (counts.calls, counts.good, counts.failover, counts.input, counts.output),
            (3, 1, 1, 5, 3)
        );
        assert_eq!(window.calls, 3);
        let later = providers.accounts(600, 1_900);
        let (counts, window) = &later[&(p, m)];
        assert_eq!((counts.calls, window.calls, window.empty), (3, 1, 1));
        assert_eq!(window.status, BTreeMap::from([(500, 1)]));
        assert_eq!(providers.accounts(600, 90_000).values().next().unwrap().1.calls, 0);
    }

    #[test]
    fn a_client_that_leaves_is_nobodys_failure() {
        let providers = Providers::default();
        let (p, m): Name = ("p".into(), "m".into());
        providers.call(&call(&p, &m, 499), 0);
        let told = providers.accounts(600, 0);
        let (counts, window) = told.values().next().unwrap();
        assert_eq!((counts.calls, counts.failed, window.failed), (1, 0, 0));
    }

    #[test]
    fn alerts_see_providers_as_the_sum_of_their_models() {
        let providers = Providers::default();
        let p: Arc<str> = "p".into();
        for (model, status) in [("a", 429), ("a", 200), ("b", 503), ("b", 404)] {
            providers.call(&call(&p, &model.into(), status), 50);
        }
        let by_provider = providers.figures(Scope::Providers, 600, 60);
        let seen = &by_provider["p"];
        assert_eq!((seen.requests, seen.rate_limited, seen.errors, seen.refused), (4, 1, 1, 1));
        assert_eq!(providers.figures(Scope::Models, 600, 60)["b"].requests, 2);
    }

    #[test]
    fn row_118_reasoning_is_compared_with_the_day_before_over_a_restart() {
        let providers = Providers::default();
        let (p, m): Name = ("p".into(), "m".into());
        let now_s = 100 * 3600 + 60;
        for (hour, tokens) in [(100, 1), (99, 500), (80, 300), (76, 200), (75, 7)] {
            providers.recall(&p, &m, hour, Span::new(tokens, 10));
        }
        assert!(providers.accounts(600, now_s).is_empty(), "who was called before is not shown");
        let usage = Usage { output: Some(50), reasoning: Some(40), ..Usage::default() };
        providers.call(&Call { usage: Some(&usage), ..call(&p, &m, 200) }, now_s);
        let seen = providers.figures(Scope::Models, 600, now_s)["m"];
        assert_eq!((seen.reasoning, seen.reasoning_before), (Span::new(40, 1), Span::new(1000, 30)));
    }

    #[test]
    fn names_are_bounded_and_no_call_is_lost() {
        let providers = Providers::default();
        let p: Arc<str> = "p".into();
        for n in 0..MOST + 50 {
            providers.call(&call(&p, &n.to_string().into(), 200), 0);
        }
        let told = providers.accounts(600, 0);
        assert!(told.len() <= MOST + 1);
        assert_eq!(told.values().map(|(counts, _)| counts.calls).sum::<u64>(), MOST as u64 + 50);
    }
}
