//! Prometheus metrics.
//!
//! Enters: one call per fact. Leaves: the text format on a listener of its own. Labels are bounded: model
//! names are those of the configuration, never those of a request.

use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};
use std::time::Duration;
use wire::ir::Usage;

/// Seconds, from a local answer to a long thought.
const SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// Seconds of waits, up to the longest.
const WAIT_SECONDS: &[f64] =
    &[0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0];

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    attempts: IntCounterVec,
    latency: HistogramVec,
    first_event: HistogramVec,
    tokens: IntCounterVec,
    cooldowns: IntCounterVec,
    losses: IntCounterVec,
    thinking_mismatch: IntCounterVec,
    fallbacks: IntCounterVec,
    empty: IntCounterVec,
    /// Looks at the configuration file that found a change.
    pub reloads: IntCounterVec,
    /// Batches of what was learnt, on their way to the disk.
    pub store_writes: IntCounterVec,
    /// Requests that are being served.
    pub in_flight: IntGauge,
    /// Connections of clients that are open.
    pub connections: IntGauge,
    /// `request`s and `connection`s that were refused because there were too many.
    pub shed: IntCounterVec,
    /// Upstream connections that were opened.
    pub connections_opened: IntCounter,
    /// Upstream connections that were used again.
    pub connections_reused: IntCounter,
    /// Handlers that panicked.
    pub panics: IntCounter,
    /// Logs of single requests that were not written.
    pub request_logs_dropped: IntCounter,
    /// Requests that wait for somebody to serve them.
    pub waits: Waits,
    key_refusals: IntCounterVec,
    /// Notifications of alerts.
    pub notifications: IntCounterVec,
    /// Spans by what became of them.
    #[cfg(feature = "otlp")]
    pub trace_spans: IntCounterVec,
}

/// Metrics of the waiting room.
#[derive(Clone, Debug)]
pub struct Waits {
    waiting: IntGauge,
    waited: IntCounterVec,
    seconds: HistogramVec,
}

impl Waits {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let waiting = IntGauge::new("waiting_requests", "Requests that wait for a credential.")?;
        let seconds = HistogramOpts::new("wait_seconds", "Time that requests waited for a credential.");
        let outcome = ["outcome"];
        Ok(Self {
            waiting: registered(registry, waiting)?,
            waited: counters(
                registry,
                "waited_requests_total",
                "Waits for a credential, also those that were refused because too many wait.",
                &outcome,
            )?,
            seconds: registered(
                registry,
                HistogramVec::new(seconds.buckets(WAIT_SECONDS.to_vec()), &outcome)?,
            )?,
        })
    }

    /// A request begins to wait.
    pub fn entered(&self) {
        self.waiting.inc();
    }

    /// A wait is over.
    pub fn left(&self, outcome: &str, after: Duration) {
        self.waiting.dec();
        self.waited.with_label_values(&[outcome]).inc();
        self.seconds.with_label_values(&[outcome]).observe(after.as_secs_f64());
    }

    /// A request may not wait because too many do.
    pub fn full(&self) {
        self.waited.with_label_values(&["full"]).inc();
    }
}

/// What a finished request was about.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'l> {
    /// Format of the client.
    pub client: &'l str,
    /// Operation.
    pub operation: &'l str,
    /// Provider, or `none`.
    pub provider: &'l str,
    /// The upstream's model, or `none`.
    pub model: &'l str,
}

impl Metrics {
    /// Registers everything. Fails only when two metrics share a name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("cliproxy".to_owned()), None)?;
        let counters = |name: &str, help: &str, labels: &[&str]| counters(&registry, name, help, labels);
        let counter = |name: &str, help: &str| registered(&registry, IntCounter::new(name, help)?);
        let seconds = |name: &str, help: &str| seconds(&registry, name, help);
        let gauge = |name: &str, help: &str| registered(&registry, IntGauge::new(name, help)?);
        Ok(Self {
            reloads: counters("config_reloads_total", "Changes of the configuration file.", &["outcome"])?,
            requests: counters(
                "requests_total",
                "Finished requests.",
                &["client", "operation", "provider", "model", "status"],
            )?,
            attempts: counters(
                "upstream_attempts_total",
                "Calls to upstreams, also those that were tried elsewhere afterwards.",
                &["provider", "model", "outcome"],
            )?,
            latency: seconds("request_duration_seconds", "From the request's head to the answer's end.")?,
            first_event: seconds(
                "first_event_seconds",
                "From the request's head to the first byte of the answer.",
            )?,
            tokens: counters(
                "tokens_total",
                "Tokens as upstreams report them.",
                &["provider", "model", "kind"],
            )?,
            cooldowns: counters(
                "cooldowns_total",
                "Times a credential was set aside.",
                &["provider", "model", "class"],
            )?,
            losses: losses(&registry)?,
            fallbacks: counters(
                "fallbacks_total",
                "Models tried in place of others.",
                &["model", "fallback"],
            )?,
            empty: counters("empty_answers_total", "Answers without content.", &["provider", "model"])?,
            thinking_mismatch: thinking_mismatch(&registry)?,
            shed: counters("shed_total", "Requests and connections that were too many.", &["what"])?,
            connections_opened: counter("upstream_connections_opened_total", "Upstream connections opened.")?,
            connections_reused: counter(
                "upstream_connections_reused_total",
                "Upstream connections used again.",
            )?,
            store_writes: counters("store_writes_total", "Batches of what was learnt.", &["outcome"])?,
            request_logs_dropped: counter("request_logs_dropped_total", "Request logs not written.")?,
            panics: counter("panics_total", "Handlers that panicked; each cost one request.")?,
            connections: gauge("open_connections", "Connections of clients that are open.")?,
            in_flight: gauge("in_flight_requests", "Requests that are being served.")?,
            waits: Waits::new(&registry)?,
            key_refusals: key_refusals(&registry)?,
            notifications: notifications(&registry)?,
            #[cfg(feature = "otlp")]
            trace_spans: counters("trace_spans_total", "Spans, by what became of them.", &["outcome"])?,
            registry,
        })
    }

    /// A request is over.
    pub fn request(&self, labels: Labels<'_>, status: u16, seconds: f64, first_event: Option<f64>) {
        let mut digits = itoa::Buffer::new();
        let Labels { client, operation, provider, model } = labels;
        self.requests.with_label_values(&[client, operation, provider, model, digits.format(status)]).inc();
        self.latency.with_label_values(&[client, provider, model]).observe(seconds);
        if let Some(first) = first_event {
            self.first_event.with_label_values(&[client, provider, model]).observe(first);
        }
    }

    /// An upstream was called.
    pub fn attempt(&self, provider: &str, model: &str, outcome: &str) {
        self.attempts.with_label_values(&[provider, model, outcome]).inc();
    }

    /// A client key does not allow a request.
    pub fn key_refusal(&self, reason: &str) {
        self.key_refusals.with_label_values(&[reason]).inc();
    }

    /// A credential was set aside.
    pub fn cooldown(&self, provider: &str, model: &str, class: &str) {
        self.cooldowns.with_label_values(&[provider, model, class]).inc();
    }

    /// A translation lost something.
    pub fn loss(&self, client: &str, kind: &str) {
        self.losses.with_label_values(&[client, kind]).inc();
    }

    /// A model is tried in place of another.
    pub fn fallback(&self, model: &str, fallback: &str) {
        self.fallbacks.with_label_values(&[model, fallback]).inc();
    }

    /// An answer had no content.
    pub fn empty(&self, provider: &str, model: &str) {
        self.empty.with_label_values(&[provider, model]).inc();
    }

    /// Thinking is not what was asked for.
    pub fn thinking_mismatch(&self, provider: &str, model: &str, kind: &str) {
        self.thinking_mismatch.with_label_values(&[provider, model, kind]).inc();
    }

    /// An answer reported its tokens.
    pub fn tokens(&self, provider: &str, model: &str, usage: &Usage) {
        for (kind, count) in [
            ("input", usage.input),
            ("cache_read", usage.cache_read),
            ("cache_write", usage.cache_write),
            ("output", usage.output),
            ("reasoning", usage.reasoning),
        ] {
            if let Some(count) = count.filter(|n| *n > 0) {
                self.tokens.with_label_values(&[provider, model, kind]).inc_by(count);
            }
        }
    }

    /// The text format (version 0.0.4).
    pub fn render(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // Writing to memory fails only for metrics without a name, which cannot be registered.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        out
    }
}

fn key_refusals(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let help = "Requests that their client key does not allow.";
    counters(registry, "client_key_refusals_total", help, &["reason"])
}

fn losses(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let help = "Things that the target format could not hold.";
    counters(registry, "translation_losses_total", help, &["client", "kind"])
}

fn notifications(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let help = "Notifications of alerts, by what became of them.";
    counters(registry, "alert_notifications_total", help, &["outcome"])
}

fn thinking_mismatch(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let help = "Requests that were sent with another amount of thinking than was asked for, and answers with \
                another than their upstream was told.";
    counters(registry, "thinking_mismatch_total", help, &["provider", "model", "kind"])
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn seconds(registry: &Registry, name: &str, help: &str) -> Result<HistogramVec, prometheus::Error> {
    let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
    registered(registry, HistogramVec::new(options, &["client", "provider", "model"])?)
}

fn registered<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: M,
) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_show_up_in_the_text() {
        let metrics = Metrics::new().unwrap();
        let labels = Labels { client: "claude", operation: "generate", provider: "demo", model: "demo" };
        metrics.request(labels, 200, 0.2, Some(0.1));
        metrics.attempt("demo", "demo", "success");
        metrics.tokens("demo", "demo", &Usage { input: Some(3), output: Some(0), ..Usage::default() });
        let text = String::from_utf8(metrics.render()).unwrap();
        assert!(text.contains("cliproxy_requests_total{client=\"claude\",model=\"demo\",operation=\"generate\",provider=\"demo\",status=\"200\"} 1"), "{text}");
        assert!(text.contains("cliproxy_tokens_total{kind=\"input\",model=\"demo\",provider=\"demo\"} 3"));
        assert!(!text.contains("kind=\"output\""));
    }

    #[test]
    fn the_list_of_metrics_names_all() {
        let source = include_str!("metrics.rs");
        let product = source.split("mod tests").next().unwrap();
        let known = include_str!("../../conf/metrics.md");
        let ends = ["_total", "_seconds", "_requests", "_connections"];
        let names = product.split('"').filter(|text| {
            text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                && ends.iter().any(|end| text.ends_with(end))
        });
        let missing: Vec<&str> = names.clone().filter(|name| !known.contains(&format!("`{name}`"))).collect();
        assert!(names.count() > 18 && missing.is_empty(), "{missing:?}");
    }
}
