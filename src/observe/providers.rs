//! What became of the requests to each provider and its models.
//!
//! Enters: one call per attempt and one per finished request. Leaves: counts since the start, counts of the
//! last minutes, quantiles. Names are those of the configuration, so that memory is bounded; minutes are
//! forgotten after [`KEPT`]. Nothing may go wrong.

use parking_lot::{Mutex, RwLock};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use wire::ir::Usage;

/// Minutes that are remembered: the longest window.
const KEPT: u64 = 60;
/// Buckets of a histogram: eight to each doubling of milliseconds, up to hours.
const BUCKETS: usize = 192;

/// All providers.
#[derive(Debug)]
pub struct Providers {
    started: Instant,
    known: RwLock<HashMap<String, Arc<Mutex<Provider>>>>,
}

/// A finished request, as far as its provider is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'f> {
    /// The provider that was asked last.
    pub provider: &'f str,
    /// The route of the client's format.
    pub endpoint: &'static str,
    /// Status that the client got; 499 when it left first.
    pub status: u16,
    /// Milliseconds in all.
    pub latency_ms: u64,
    /// Milliseconds to the first byte.
    pub first_ms: Option<u64>,
    /// Tokens, as far as the upstream said.
    pub usage: &'f Usage,
    /// Whether an answer of this kind comes with tokens.
    pub counts_tokens: bool,
    /// The provider of an attempt that failed before.
    pub failed_before: Option<&'f str>,
}

#[derive(Debug, Default)]
struct Provider {
    total: Count,
    models: BTreeMap<String, Count>,
    endpoints: BTreeMap<&'static str, (u64, u64)>,
    latency: Histogram,
    first: Histogram,
    usage: Usage,
    last_seen: Option<SystemTime>,
    usage_missing: u64,
    empty: u64,
    thinking_mismatch: u64,
    failover: u64,
}

/// Attempts, in all and by minute.
#[derive(Debug, Default)]
struct Count {
    tally: Tally,
    minutes: VecDeque<(u64, Tally)>,
}

#[derive(Clone, Debug, Default)]
struct Tally {
    requests: u64,
    succeeded: u64,
    failed: u64,
    status: BTreeMap<u16, u64>,
}

#[derive(Debug)]
struct Histogram {
    buckets: [u32; BUCKETS],
    count: u64,
}

impl Default for Providers {
    fn default() -> Self {
        Self { started: Instant::now(), known: RwLock::default() }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], count: 0 }
    }
}

impl Histogram {
    fn add(&mut self, ms: u64) {
        let at = ((ms as f64 + 1.0).log2() * 8.0) as usize;
        if let Some(bucket) = self.buckets.get_mut(at.min(BUCKETS - 1)) {
            *bucket = bucket.saturating_add(1);
            self.count += 1;
        }
    }

    /// Milliseconds below which this share of all lies, to about a tenth.
    fn quantile(&self, share: f64) -> Option<u64> {
        let wanted = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let at = self.buckets.iter().position(|bucket| {
            seen += u64::from(*bucket);
            seen >= wanted
        })?;
        Some(((at as f64 + 0.5) / 8.0).exp2().round() as u64 - 1)
    }
}

impl Tally {
    fn add(&mut self, status: u16) {
        self.requests += 1;
        match status {
            // The client left: that says nothing of the provider.
            499 => {}
            ..400 => self.succeeded += 1,
            _ => self.failed += 1,
        }
        *self.status.entry(status).or_default() += 1;
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        for (status, count) in &other.status {
            *self.status.entry(*status).or_default() += count;
        }
    }

    fn error_rate(&self) -> f64 {
        share(self.failed, self.requests)
    }

    fn status(&self) -> Value {
        self.status
            .iter()
            .map(|(status, count)| (status.to_string(), json!(count)))
            .collect::<Map<_, _>>()
            .into()
    }

    fn shown(&self) -> Value {
        json!({
            "request_count": self.requests,
            "success_count": self.succeeded,
            "failure_count": self.failed,
            "error_rate": self.error_rate(),
            "status": self.status(),
        })
    }
}

/// A share with four digits.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 1e4).round() / 1e4 }
}

impl Count {
    fn add(&mut self, status: u16, minute: u64) {
        self.tally.add(status);
        match self.minutes.back_mut() {
            Some((last, tally)) if *last == minute => tally.add(status),
            _ => {
                let mut tally = Tally::default();
                tally.add(status);
                self.minutes.push_back((minute, tally));
            }
        }
        while self.minutes.front().is_some_and(|(first, _)| first + KEPT <= minute) {
            self.minutes.pop_front();
        }
    }

    /// The minutes from `from` on.
    fn since(&self, from: u64) -> Tally {
        let mut sum = Tally::default();
        self.minutes.iter().filter(|(minute, _)| *minute >= from).for_each(|(_, tally)| sum.merge(tally));
        sum
    }
}

impl Providers {
    /// An attempt ended: what the upstream said, or what stands for its silence.
    pub fn attempt(&self, provider: &str, model: &str, status: u16) {
        self.attempt_at(provider, model, status, self.minute());
    }

    fn attempt_at(&self, provider: &str, model: &str, status: u16, minute: u64) {
        self.change(provider, |known| {
            known.total.add(status, minute);
            known.last_seen = Some(SystemTime::now());
            if let Some(count) = known.models.get_mut(model) {
                count.add(status, minute);
            } else {
                known.models.entry(model.to_owned()).or_default().add(status, minute);
            }
        });
    }

    /// A request ended.
    pub fn finished(&self, request: &Finished<'_>) {
        let good = request.status < 400;
        self.change(request.provider, |known| {
            let (all, failed) = known.endpoints.entry(request.endpoint).or_default();
            *all += 1;
            *failed += u64::from(!good && request.status != 499);
            if good {
                known.latency.add(request.latency_ms);
                request.first_ms.into_iter().for_each(|ms| known.first.add(ms));
                let said = request.usage.input.is_some() || request.usage.output.is_some();
                known.usage_missing += u64::from(request.counts_tokens && !said);
            }
            add(&mut known.usage, request.usage);
        });
        if let Some(before) = request.failed_before.filter(|_| good) {
            self.change(before, |known| known.failover += 1);
        }
    }

    /// An answer had no content.
    pub fn empty(&self, provider: &str) {
        self.change(provider, |known| known.empty += 1);
    }

    /// Thinking was not what was asked for.
    pub fn thinking_mismatch(&self, provider: &str) {
        self.change(provider, |known| known.thinking_mismatch += 1);
    }

    /// What is known of a provider; zeros where nothing is. `window` is rounded up to minutes.
    pub fn shown(&self, provider: &str, window: Duration) -> Map<String, Value> {
        let minutes = window.as_secs().div_ceil(60).clamp(1, KEPT);
        let from = (self.minute() + 1).saturating_sub(minutes);
        let known = self.known.read().get(provider).cloned();
        match known {
            Some(known) => known.lock().shown(from),
            None => Provider::default().shown(from),
        }
    }

    fn minute(&self) -> u64 {
        // Never zero, so that the first minutes have ones before them.
        self.started.elapsed().as_secs() / 60 + KEPT
    }

    fn change(&self, provider: &str, change: impl FnOnce(&mut Provider)) {
        if let Some(known) = self.known.read().get(provider) {
            return change(&mut known.lock());
        }
        let known = Arc::clone(self.known.write().entry(provider.to_owned()).or_default());
        change(&mut known.lock());
    }
}

fn add(sum: &mut Usage, more: &Usage) {
    for (sum, more) in [
        (&mut sum.input, more.input),
        (&mut sum.output, more.output),
        (&mut sum.cache_read, more.cache_read),
        (&mut sum.cache_write, more.cache_write),
        (&mut sum.reasoning, more.reasoning),
    ] {
        if let Some(more) = more {
            *sum = Some(sum.unwrap_or(0).saturating_add(more));
        }
    }
}

impl Provider {
    fn shown(&self, from: u64) -> Map<String, Value> {
        let Tally { requests, succeeded, failed, .. } = self.total.tally;
        let (input, output) = (self.usage.input.unwrap_or(0), self.usage.output.unwrap_or(0));
        let models = self.models.iter().map(|(model, count)| {
            let mut shown = count.tally.shown();
            if let Some(members) = shown.as_object_mut() {
                members.insert("window".to_owned(), count.since(from).shown());
            }
            (model.clone(), shown)
        });
        let endpoints = self.endpoints.iter().map(|(endpoint, (all, failed))| {
            ((*endpoint).to_owned(), json!({ "request_count": all, "failure_count": failed }))
        });
        let last_seen = self.last_seen.and_then(|at| jiff::Timestamp::try_from(at).ok());
        let shown = json!({
            "request_count": requests,
            "success_count": succeeded,
            "failure_count": failed,
            "requests": requests,
            "success_rate": share(succeeded, requests),
            "error_rate": self.total.tally.error_rate(),
            "status": self.total.tally.status(),
            "input_tokens": input,
            "output_tokens": output,
            "total_tokens": input.saturating_add(output),
            "cached_tokens": self.usage.cache_read.unwrap_or(0),
            "reasoning_tokens": self.usage.reasoning.unwrap_or(0),
            "latency_p50_ms": self.latency.quantile(0.5),
            "latency_p95_ms": self.latency.quantile(0.95),
            "ttft_p50_ms": self.first.quantile(0.5),
            "ttft_p95_ms": self.first.quantile(0.95),
            "usage_missing": self.usage_missing,
            "empty_content": self.empty,
            "thinking_mismatch": self.thinking_mismatch,
            "failover": self.failover,
            "last_seen": last_seen,
            "window": self.total.since(from).shown(),
            "model_stats": models.collect::<Map<_, _>>(),
            "endpoints": endpoints.collect::<Map<_, _>>(),
        });
        match shown {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_mins(10);

    #[test]
    fn row_9_attempts_are_counted_by_status_and_model() {
        let providers = Providers::default();
        for status in [200, 200, 429, 403, 499, 503] {
            providers.attempt("a", "m", status);
        }
        providers.attempt("a", "n", 406);
        let shown = Value::Object(providers.shown("a", TEN));
        assert_eq!((&shown["request_count"], &shown["failure_count"]), (&json!(7), &json!(4)));
        assert_eq!(shown["status"], json!({"200": 2, "403": 1, "406": 1, "429": 1, "499": 1, "503": 1}));
        assert_eq!(shown["model_stats"]["n"]["status"], json!({"406": 1}));
        assert_eq!(shown["model_stats"]["m"]["window"]["request_count"], 6);
        assert_eq!(providers.shown("never", TEN)["request_count"], 0);
        assert_eq!(providers.shown("never", TEN)["latency_p50_ms"], Value::Null);
    }

    #[test]
    fn row_110_windows_forget_and_totals_do_not() {
        let mut count = Count::default();
        for minute in 0..200 {
            count.add(if minute % 2 == 0 { 200 } else { 500 }, minute);
        }
        assert_eq!(count.tally.requests, 200);
        assert_eq!(count.minutes.len() as u64, KEPT);
        let ten = count.since(190);
        assert_eq!((ten.requests, ten.failed), (10, 5));
        assert_eq!(count.since(200).requests, 0);
    }

    #[test]
    fn row_50_a_request_that_was_served_elsewhere_counts_as_failover_of_the_first() {
        let providers = Providers::default();
        let usage = Usage { input: Some(3), output: Some(4), ..Usage::default() };
        let request = Finished {
            provider: "b",
            endpoint: "/v1/messages",
            status: 200,
            latency_ms: 200,
            first_ms: Some(20),
            usage: &usage,
            counts_tokens: true,
            failed_before: Some("a"),
        };
        providers.finished(&request);
        providers.finished(&Finished { usage: &Usage::default(), failed_before: None, ..request });
        providers.finished(&Finished { status: 502, ..request });
        let (a, b) = (providers.shown("a", TEN), providers.shown("b", TEN));
        assert_eq!((&a["failover"], &b["failover"]), (&json!(1), &json!(0)));
        assert_eq!(b["endpoints"]["/v1/messages"], json!({"request_count": 3, "failure_count": 1}));
        assert_eq!((&b["usage_missing"], &b["total_tokens"]), (&json!(1), &json!(14)));
        let p50 = b["latency_p50_ms"].as_u64().unwrap();
        assert!((180..=220).contains(&p50), "{p50}");
    }

    #[test]
    fn quantiles_are_close_at_all_sizes() {
        for ms in [0, 1, 5, 90, 4_000, 3_600_000] {
            let mut histogram = Histogram::default();
            histogram.add(ms);
            let found = histogram.quantile(0.95).unwrap();
            assert!(found.abs_diff(ms) <= ms / 10 + 1, "{ms}: {found}");
        }
    }
}
