//! Stage 7: what is known of a request when it is over.
//!
//! Enters: facts, from the stages as they come to know them. Leaves: one access line and the metrics. May
//! go wrong: nothing.

use crate::observe::log;
use crate::observe::metrics::Labels;
use crate::observe::providers::Call;
use crate::observe::request::Facts;
use crate::state::State;
use pool::{Next, Outcome, Verdict};
use std::sync::Arc;
use std::time::Instant;
use tracing::Level;
use wire::Protocol;
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
    started: Instant,
    first_byte: Option<Instant>,
    /// Whether it is worth a line: probes of load balancers are not.
    quiet: bool,
    counted: bool,
}

impl Default for Record {
    fn default() -> Self {
        // Version 7 sorts by time: lines of a log and ids of answers go together.
        let seed = uuid::Uuid::now_v7().simple().to_string();
        Self {
            facts: Facts { request_id: seed.clone(), ..Facts::default() },
            seed,
            started: Instant::now(),
            first_byte: None,
            quiet: false,
            counted: false,
        }
    }
}

impl Record {
    /// The request counts as being served.
    pub(super) fn begin(&mut self, state: &State) {
        if !self.counted {
            self.counted = true;
            state.metrics.in_flight.inc();
        }
    }

    /// It is none of the requests that the proxy is for.
    pub(super) fn stand_aside(&mut self, state: &State) {
        self.quiet = true;
        if std::mem::take(&mut self.counted) {
            state.metrics.in_flight.dec();
        }
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

    /// An attempt ended: it counts for its provider and model, whatever the request comes to.
    pub(super) fn attempt_ended(
        &self,
        provider: &Arc<str>,
        model: &Arc<str>,
        outcome: &Outcome<'_>,
        next: Next,
        state: &State,
    ) {
        let facts = &self.facts;
        let told = facts.operation == Operation::Generate.name() || facts.usage != Usage::default();
        let call = Call {
            provider,
            model,
            endpoint: endpoint(facts.client, facts.operation),
            status: status_of(outcome),
            failover: next == Next::OtherCredential,
            latency_ms: self.started.elapsed().as_millis() as u64,
            first_event_ms: self.first_byte.map(|at| (at - self.started).as_millis() as u64),
            // Answers of other kinds say nothing of tokens.
            usage: (told && matches!(outcome, Outcome::Success)).then_some(&facts.usage),
        };
        state.metrics.providers.call(&call, state.now().wall_s);
    }

    /// An attempt failed: one line with what the operator needs to find the account and the reason.
    pub(super) fn attempt_failed(&self, model: &str, outcome: &Outcome<'_>, verdict: &Verdict) {
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
        if std::mem::take(&mut self.counted) {
            state.metrics.in_flight.dec();
        }
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
        let line = facts.line();
        let level = match facts.status {
            500.. => Level::ERROR,
            400..=498 => Level::WARN,
            _ => Level::INFO,
        };
        log::access(level, &line);
    }
}

/// The route of a format and an operation, without the model that Gemini's routes name.
fn endpoint(client: &str, operation: &str) -> &'static str {
    let is = |wanted: Operation| operation == wanted.name();
    let of = |wanted: Protocol| client == wanted.name();
    match () {
        () if of(Protocol::Claude) && is(Operation::CountTokens) => "/v1/messages/count_tokens",
        () if of(Protocol::Claude) => "/v1/messages",
        () if of(Protocol::Gemini) => "/v1beta/models",
        () if is(Operation::Compact) => "/v1/responses/compact",
        () if of(Protocol::OpenaiResponses) => "/v1/responses",
        () if is(Operation::Generate) => "/v1/chat/completions",
        () if is(Operation::Completion) => "/v1/completions",
        () if is(Operation::ImageGeneration) => "/v1/images/generations",
        () if is(Operation::ImageEdit) => "/v1/images/edits",
        () if is(Operation::Embeddings) => "/v1/embeddings",
        () if is(Operation::Transcription) => "/v1/audio/transcriptions",
        () if is(Operation::Translation) => "/v1/audio/translations",
        () if is(Operation::Speech) => "/v1/audio/speech",
        () if is(Operation::Moderation) => "/v1/moderations",
        () if is(Operation::Rerank) => "/v1/rerank",
        () => "other",
    }
}

/// The status that stands for an end in counts: what the upstream said, or what its silence is worth.
fn status_of(outcome: &Outcome<'_>) -> u16 {
    match outcome {
        Outcome::Success => 200,
        Outcome::Status { status, .. } => *status,
        Outcome::ClientGone => 499,
        Outcome::Timeout(_) => 504,
        Outcome::RefreshFailed { .. } => 401,
        _ => 502,
    }
}
