//! Stage 7: what is known of a request when it is over.
//!
//! Enters: facts, from the stages as they come to know them. Leaves: one access line and the metrics. May
//! go wrong: nothing.

use super::capture::Capture;
use crate::observe::feed::{ClientKey, Entry};
use crate::observe::log;
use crate::observe::metrics::Labels;
use crate::observe::providers::Call;
use crate::observe::request::Facts;
use crate::observe::traces::Trace;
use crate::observe::usage::{About, Sums};
use crate::state::State;
use crate::state::keys::Holder;
use pool::{Outcome, Verdict};
use prometheus::IntGauge;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Level;
use wire::ir::{Losses, Usage};
use wire::json;
use wire::target::Operation;

/// What is noted of a request while it is served.
#[derive(Debug)]
pub(super) struct Record {
    /// What the access line says.
    pub facts: Facts,
    /// 32 hex digits, unique to the request.
    pub seed: String,
    /// Whose key it came with.
    pub holder: Option<Arc<Holder>>,
    /// The WebSocket on which it came.
    pub socket: Option<String>,
    /// What goes into its file.
    pub capture: Capture,
    /// Its trace.
    pub trace: Trace,
    started: Instant,
    first_byte: Option<Instant>,
    /// Whether it is worth a line: probes of load balancers are not.
    quiet: bool,
    /// The gauge of requests under way, while it counts this one.
    counted: Option<IntGauge>,
}

impl Default for Record {
    fn default() -> Self {
        // Version 7 sorts by time: lines of a log and ids of answers go together.
        let seed = uuid::Uuid::now_v7().simple().to_string();
        Self {
            facts: Facts { request_id: seed.clone(), ..Facts::default() },
            seed,
            holder: None,
            socket: None,
            capture: Capture::default(),
            trace: Trace::default(),
            started: Instant::now(),
            first_byte: None,
            quiet: false,
            counted: None,
        }
    }
}

/// A request that was cut by a panic or a deadline is over as well.
impl Drop for Record {
    fn drop(&mut self) {
        self.uncount();
    }
}

impl Record {
    /// What its client key has and no other; 0 where none is needed.
    pub(super) fn scope(&self) -> u64 {
        self.holder.as_ref().map_or(0, |holder| holder.scope())
    }

    /// The request counts as being served.
    pub(super) fn begin(&mut self, state: &State) {
        if self.counted.is_none() {
            state.metrics.in_flight.inc();
            self.counted = Some(state.metrics.in_flight.clone());
        }
    }

    fn uncount(&mut self) {
        if let Some(gauge) = self.counted.take() {
            gauge.dec();
        }
    }

    /// It is none of the requests that the proxy is for.
    pub(super) fn stand_aside(&mut self) {
        self.quiet = true;
        self.uncount();
    }

    /// It is not worth a line in the log.
    pub(super) fn keep_quiet(&mut self) {
        self.quiet = true;
    }

    /// The first byte of the answer goes out.
    pub(super) fn first_byte(&mut self) {
        self.first_byte.get_or_insert_with(Instant::now);
    }

    /// What an answer reported and a translation lost.
    pub(super) fn usage(&mut self, usage: &Usage) {
        self.facts.usage.merge(usage);
    }

    /// What a translation lost.
    pub(super) fn losses(&mut self, losses: &Losses, state: &State) {
        if losses.is_empty() {
            return;
        }
        for loss in losses.iter() {
            state.metrics.loss(self.facts.client, loss.kind.name());
        }
        self.facts.losses = losses.to_string();
    }

    /// A call to a provider's model that ended under `status`.
    pub(super) fn call<'c>(
        &'c self,
        (provider, model): (&'c Arc<str>, &'c Arc<str>),
        status: u16,
        failover: bool,
    ) -> Call<'c> {
        let (facts, millis) = (&self.facts, |time: Duration| time.as_millis() as u64);
        Call {
            provider,
            model,
            endpoint: facts.endpoint(),
            status,
            failover,
            latency_ms: millis(self.started.elapsed()),
            first_event_ms: self.first_byte.map(|at| millis(at - self.started)),
            // Only conversations always say how many tokens they took.
            usage: Some(&facts.usage).filter(|usage| {
                status < 400 && (facts.operation == Operation::Generate.name() || !usage.is_unknown())
            }),
        }
    }

    /// An attempt is over, with this status and as a failure of this class.
    pub(super) fn attempted(&mut self, status: u16, class: &'static str) {
        self.trace.attempted(status, class, self.first_byte);
    }

    /// An attempt failed: one line with what the operator needs to find the account and the reason.
    pub(super) fn attempt_failed(&mut self, model: &str, outcome: &Outcome<'_>, verdict: &Verdict) {
        self.facts.class = verdict.class.name();
        let mut line = b"upstream attempt failed ".to_vec();
        json::object(&mut line, |o| {
            o.str("request_id", &self.facts.request_id);
            o.str("provider", &self.facts.provider);
            o.str("account", &self.facts.credential);
            o.str("model", model);
            if let Outcome::Status { status, .. } = outcome {
                o.uint("status_code", u64::from(*status));
            }
            o.str("class", verdict.class.name());
            o.str("next", verdict.next.name());
            if let Some(cooled) = verdict.cooled {
                o.uint("cooldown_until_ms", cooled.until_ms);
                o.bool("soft", cooled.soft);
            }
        });
        log::access(Level::WARN, &line);
    }

    /// The request is over.
    pub(super) fn finish(&mut self, state: &State) {
        self.uncount();
        let elapsed = self.started.elapsed();
        let first = self.first_byte.map(|at| at - self.started);
        let facts = &mut self.facts;
        facts.latency_ms = elapsed.as_millis() as u64;
        facts.first_event_ms = first.map(|first| first.as_millis() as u64);
        if facts.client.is_empty() || self.quiet {
            return;
        }
        let or_none = |text: &'_ str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
        let (provider, model) = (or_none(&facts.provider), or_none(&facts.resolved));
        let labels =
            Labels { client: facts.client, operation: facts.operation, provider: &provider, model: &model };
        state.metrics.request(labels, facts.status, elapsed.as_secs_f64(), first.map(|f| f.as_secs_f64()));
        if !facts.provider.is_empty() {
            state.metrics.tokens(&provider, &model, &facts.usage);
        }
        let about = About {
            hour: (state.now().wall_s / 3600) as u32,
            client_key: self.holder.as_ref().map_or("", |holder| &holder.name),
            credential: &facts.credential,
            provider: &facts.provider,
            model: &facts.resolved,
        };
        let sums = Sums::of(facts.status, &facts.usage, facts.latency_ms, facts.first_event_ms);
        let snapshot = state.snapshot.load();
        let cost = snapshot.prices.cost(&facts.provider, &facts.resolved, &facts.usage);
        state.usage.add(&about, &sums.with(cost));
        state.traces.request(&self.trace, facts, self.started);
        let line = facts.line();
        let level = match facts.status {
            500.. => Level::ERROR,
            400..=498 => Level::WARN,
            _ => Level::INFO,
        };
        log::access(level, &line);
    }

    /// Hands it on to those who watch, with all that is known of it: the last that is done with it.
    pub(super) fn hand_on(&mut self, state: &State) {
        if self.facts.client.is_empty() || self.quiet {
            return;
        }
        let key = self
            .holder
            .as_ref()
            .map(|holder| ClientKey { name: Arc::clone(&holder.name), masked: Arc::clone(&holder.masked) });
        let at_ms = jiff::Timestamp::now().as_millisecond().max(0) as u64;
        let wanted_ms = state.snapshot.load().config.logging.usage_queue_ms();
        state.feed.push(Entry::new(std::mem::take(&mut self.facts), key, at_ms), wanted_ms);
    }
}
