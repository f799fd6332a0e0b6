//! Spans of requests, in a queue.
//!
//! Enters: notes of the stages, facts of finished requests, the client's `traceparent`. Leaves: spans, in
//! [`Traces::take`]. May go wrong: see [`super`].
//!
//! Spans are made when a request is over: until then it costs a few words of memory. Names are those of the
//! conventions for generative AI of OpenTelemetry (client spans); the request's own span is a server's, for a
//! client may have one of its own around it.

use crate::observe::metrics::Metrics;
use crate::observe::request::Facts;
use config::Telemetry;
use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer, TracerProvider,
};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanProcessor};
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;
use wire::ir::Finish;

/// Spans that wait to be sent.
const WAITING: usize = 4096;
/// Calls of upstreams that a request tells of.
const ATTEMPTS: usize = 32;
/// Longest name of a model that a client asked for, in characters.
const NAME: usize = 256;
/// Longest state of a client's trace, in bytes (W3C Trace Context, 3.3.1.5).
const STATE: usize = 512;

/// What is noted of a request for its spans.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    on: bool,
    /// The client's own span.
    parent: Option<SpanContext>,
    attempts: Vec<Attempt>,
    finish: Option<Finish>,
}

#[derive(Clone, Debug)]
struct Attempt {
    provider: Arc<str>,
    model: Arc<str>,
    server: Option<(String, u16)>,
    started: Instant,
    ended: Option<Instant>,
    first_byte: Option<Instant>,
    status: u16,
    class: &'static str,
}

/// The headers of a trace, of a bounded length.
struct Headers<'h>(&'h HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok().filter(|value| value.len() <= STATE)
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

impl Trace {
    /// A request begins; `headers` are the client's.
    pub fn begin(&mut self, headers: &HeaderMap, traces: &Traces) {
        self.on = traces.tracer.is_some();
        if self.on && headers.contains_key("traceparent") {
            let context =
                TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
            self.parent = Some(context.span().span_context().clone()).filter(SpanContext::is_valid);
        }
    }

    /// The trace of a request on the same connection.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self { on: self.on, parent: self.parent.clone(), ..Self::default() }
    }

    /// A call of an upstream begins.
    pub fn attempt(&mut self, provider: &Arc<str>, model: &Arc<str>) {
        if !self.on || self.attempts.len() >= ATTEMPTS {
            return;
        }
        self.attempts.push(Attempt {
            provider: Arc::clone(provider),
            model: Arc::clone(model),
            server: None,
            started: Instant::now(),
            ended: None,
            first_byte: None,
            status: 0,
            class: "",
        });
    }

    /// The call that is not over.
    fn current(&mut self) -> Option<&mut Attempt> {
        self.attempts.last_mut().filter(|attempt| attempt.ended.is_none())
    }

    /// Where it goes.
    pub fn reached(&mut self, host: &str, port: u16) {
        if let Some(attempt) = self.current() {
            attempt.server = Some((host.to_owned(), port));
        }
    }

    /// Why its answer ended.
    pub fn finished(&mut self, reason: Option<Finish>) {
        if self.on {
            self.finish = reason;
        }
    }

    /// It is over, with this status and as a failure of this class; `first_byte` is when the answer began.
    pub fn attempted(&mut self, status: u16, class: &'static str, first_byte: Option<Instant>) {
        if let Some(attempt) = self.current() {
            attempt.ended = Some(Instant::now());
            attempt.first_byte = first_byte.filter(|at| *at >= attempt.started);
            attempt.status = status;
            attempt.class = class;
        }
    }
}

/// Makes spans.
#[derive(Debug)]
pub struct Traces {
    tracer: Option<SdkTracer>,
    resource: Resource,
    waiting: Mutex<Option<mpsc::Receiver<SpanData>>>,
}

impl Traces {
    /// As the settings say.
    pub fn new(telemetry: &Telemetry, metrics: &Metrics) -> Self {
        Self::with_room(telemetry, &metrics.trace_spans, WAITING)
    }

    fn with_room(telemetry: &Telemetry, counts: &IntCounterVec, room: usize) -> Self {
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_attribute(version);
        let resource = resource.with_service_name(telemetry.service_name.clone()).build();
        if telemetry.otlp_endpoint.is_none() {
            return Self { tracer: None, resource, waiting: Mutex::default() };
        }
        let (sender, waiting) = mpsc::channel(room);
        let share = Sampler::TraceIdRatioBased(telemetry.sample_ratio.share());
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Queue { sender, counts: counts.clone() })
            .with_sampler(Sampler::ParentBased(Box::new(share)))
            .with_resource(resource.clone())
            .build();
        let tracer = provider.tracer("cliproxy");
        Self { tracer: Some(tracer), resource, waiting: Mutex::new(Some(waiting)) }
    }

    /// The spans, for the one who sends them, and whose they are; `None`: there are none, or somebody has
    /// them.
    pub fn take(&self) -> Option<(mpsc::Receiver<SpanData>, Resource)> {
        Some((self.waiting.lock().take()?, self.resource.clone()))
    }

    /// A request is over that began at `started`.
    pub fn request(&self, trace: &Trace, facts: &Facts, started: Instant) {
        let Some(tracer) = self.tracer.as_ref().filter(|_| trace.on) else { return };
        let now = (SystemTime::now(), Instant::now());
        let parent = Context::new();
        let parent = match &trace.parent {
            Some(span) => parent.with_remote_span_context(span.clone()),
            None => parent,
        };
        let operation = operation(facts);
        let asked: String = facts.model.chars().take(NAME).collect();
        let name = if asked.is_empty() { operation.to_owned() } else { format!("{operation} {asked}") };
        let builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Server)
            .with_start_time(clock(started, now))
            .with_attributes(about_request(trace, facts, operation, &asked));
        let mut span = tracer.build_with_context(builder, &parent);
        if !span.is_recording() {
            return;
        }
        let below = parent.with_remote_span_context(span.span_context().clone());
        for (n, attempt) in trace.attempts.iter().enumerate() {
            let ended = attempt.ended.map_or(now.0, |at| clock(at, now));
            let builder = SpanBuilder::from_name(format!("{operation} {}", attempt.model))
                .with_kind(SpanKind::Client)
                .with_start_time(clock(attempt.started, now))
                .with_attributes(about_attempt(attempt, n, operation));
            let mut span = tracer.build_with_context(builder, &below);
            if attempt.failed() {
                span.set_status(Status::error(attempt.class));
            }
            span.end_with_timestamp(ended);
        }
        if error(trace, facts).is_some() {
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(now.0);
    }
}

/// The time of day of a moment.
fn clock(at: Instant, (now, mono): (SystemTime, Instant)) -> SystemTime {
    now.checked_sub(mono.saturating_duration_since(at)).unwrap_or(now)
}

impl Attempt {
    fn failed(&self) -> bool {
        self.ended.is_none() || !matches!(self.class, "success" | "")
    }
}

/// The name of what is done: that of the conventions, where they have one.
fn operation(facts: &Facts) -> &'static str {
    match (facts.operation, facts.client) {
        ("generate", "gemini") => "generate_content",
        ("generate" | "websocket", _) => "chat",
        ("completion", _) => "text_completion",
        ("embeddings" | "embed_content" | "batch_embed_contents", _) => "embeddings",
        ("", _) => "(other)",
        (other, _) => other,
    }
}

/// A provider under the name that the conventions have for it, else under its own.
fn provider(name: &str) -> StringValue {
    let known = match name {
        "claude" => "anthropic",
        "codex" => "openai",
        "gemini" => "gcp.gemini",
        "vertex" => "gcp.vertex_ai",
        "antigravity" | "gemini-cli" => "gcp.gen_ai",
        "xai" => "x_ai",
        "mistral" => "mistral_ai",
        "kimi" => "moonshot_ai",
        own => return own.to_owned().into(),
    };
    known.into()
}

/// The word of the conventions for why an answer ended.
fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::End | Finish::StopSequence | Finish::Pause => "stop",
        Finish::Length | Finish::Context => "length",
        Finish::Tool => "tool_call",
        Finish::Filter | Finish::Refusal => "content_filter",
        Finish::BadCall => "error",
    }
}

/// Why a request failed: its status, or what became of an answer that had begun well.
fn error(trace: &Trace, facts: &Facts) -> Option<String> {
    match facts.status {
        400.. => Some(facts.status.to_string()),
        _ if facts.error.is_empty() => None,
        _ => Some(trace.attempts.last().map_or("broken", |attempt| attempt.class).to_owned()),
    }
}

fn seconds(time: Duration) -> Value {
    Value::F64(time.as_secs_f64())
}

fn count(tokens: u64) -> Value {
    Value::I64(i64::try_from(tokens).unwrap_or(i64::MAX))
}

fn about_request(trace: &Trace, facts: &Facts, operation: &'static str, asked: &str) -> Vec<KeyValue> {
    let mut all = vec![
        KeyValue::new("gen_ai.operation.name", operation),
        KeyValue::new("http.request.method", facts.method.clone()),
        KeyValue::new("http.route", facts.endpoint()),
        KeyValue::new("http.response.status_code", i64::from(facts.status)),
        KeyValue::new("cliproxy.request_id", facts.request_id.clone()),
        KeyValue::new("cliproxy.client.format", facts.client),
        KeyValue::new("cliproxy.attempts", i64::from(facts.attempts)),
    ];
    let usage = &facts.usage;
    let prompt = Some(usage.prompt()).filter(|tokens| *tokens > 0 || usage.input.is_some());
    let finish = trace.finish.map(|finish| Value::Array(Array::String(vec![reason(finish).into()])));
    let first = facts.first_event_ms.map(|millis| seconds(Duration::from_millis(millis)));
    let text = |text: &str| (!text.is_empty()).then(|| Value::from(text.to_owned()));
    let well = facts.status < 400;
    for (key, value) in [
        ("gen_ai.request.model", text(asked)),
        ("gen_ai.response.model", text(&facts.resolved).filter(|_| well)),
        ("gen_ai.provider.name", text(&facts.provider).map(|_| Value::String(provider(&facts.provider)))),
        ("cliproxy.provider", text(&facts.provider)),
        ("gen_ai.usage.input_tokens", prompt.map(count)),
        ("gen_ai.usage.cache_read.input_tokens", usage.cache_read.map(count)),
        ("gen_ai.usage.cache_creation.input_tokens", usage.cache_write.map(count)),
        ("gen_ai.usage.output_tokens", usage.output.map(count)),
        ("gen_ai.usage.reasoning.output_tokens", usage.reasoning.map(count)),
        ("gen_ai.response.finish_reasons", finish),
        ("gen_ai.response.time_to_first_chunk", first),
        ("error.type", error(trace, facts).map(Value::from)),
    ] {
        all.extend(value.map(|value| KeyValue::new(key, value)));
    }
    all.extend(trace.attempts.last().into_iter().flat_map(address));
    all
}

/// Where a call went.
fn address(attempt: &Attempt) -> impl Iterator<Item = KeyValue> + use<> {
    let server = attempt.server.clone();
    server.into_iter().flat_map(|(host, port)| {
        [KeyValue::new("server.address", host), KeyValue::new("server.port", i64::from(port))]
    })
}

fn about_attempt(attempt: &Attempt, n: usize, operation: &'static str) -> Vec<KeyValue> {
    let mut all = vec![
        KeyValue::new("gen_ai.operation.name", operation),
        KeyValue::new("gen_ai.provider.name", Value::String(provider(&attempt.provider))),
        KeyValue::new("gen_ai.request.model", attempt.model.to_string()),
        KeyValue::new("cliproxy.provider", attempt.provider.to_string()),
        KeyValue::new("cliproxy.attempt", n as i64 + 1),
    ];
    all.extend(address(attempt));
    if attempt.status > 0 {
        all.push(KeyValue::new("http.response.status_code", i64::from(attempt.status)));
    }
    if let Some(first) = attempt.first_byte {
        let time = first.saturating_duration_since(attempt.started);
        all.push(KeyValue::new("gen_ai.response.time_to_first_chunk", seconds(time)));
    }
    if attempt.failed() {
        let class = if attempt.class.is_empty() { "cut" } else { attempt.class };
        all.push(KeyValue::new("error.type", class));
    }
    all
}

/// Takes spans that are over, as many as there is room for.
#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<SpanData>,
    counts: IntCounterVec,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.sender.try_send(span).is_err() {
            self.counts.with_label_values(&["dropped"]).inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _within: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::ir::Usage;

    fn traces(yaml: &str, room: usize) -> (Traces, Metrics) {
        let telemetry = config::load(yaml.as_bytes()).unwrap().config.telemetry;
        let metrics = Metrics::new().unwrap();
        (Traces::with_room(&telemetry, &metrics.trace_spans, room), metrics)
    }

    fn facts() -> Facts {
        Facts {
            request_id: "r".into(),
            method: "POST".into(),
            client: "claude",
            operation: "generate",
            model: "alias".into(),
            resolved: "real".into(),
            provider: "claude".into(),
            status: 200,
            client_ip: "canary-ip".into(),
            user_agent: "canary-agent".into(),
            credential: "canary-account".into(),
            usage: Usage { input: Some(3), cache_read: Some(4), output: Some(5), ..Usage::default() },
            ..Facts::default()
        }
    }

    fn served(traces: &Traces, headers: &HeaderMap) -> Trace {
        let mut trace = Trace::default();
        trace.begin(headers, traces);
        trace.attempt(&"claude".into(), &"real".into());
        trace.reached("h", 1);
        trace.attempted(429, "rate_limit", None);
        trace.attempt(&"team".into(), &"real".into());
        trace.finished(Some(Finish::Tool));
        trace.attempted(200, "success", Some(Instant::now()));
        trace
    }

    fn value(span: &SpanData, key: &str) -> String {
        let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
        found.map_or_else(String::new, |attribute| attribute.value.to_string())
    }

    const ON: &str = "telemetry: {otlp-endpoint: 'http://h'}";

    #[test]
    fn a_request_is_a_span_with_one_below_it_per_attempt() {
        let (traces, _) = traces(ON, 10);
        let mut headers = HeaderMap::new();
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert("traceparent", parent.parse().unwrap());
        traces.request(&served(&traces, &headers), &facts(), Instant::now());
        let (mut waiting, _) = traces.take().unwrap();
        let spans: Vec<SpanData> = std::iter::from_fn(|| waiting.try_recv().ok()).collect();
        assert_eq!(spans.len(), 3);
        let (request, first, second) = (&spans[2], &spans[0], &spans[1]);
        assert_eq!(request.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(request.parent_span_id.to_string(), "00f067aa0ba902b7");
        for attempt in [first, second] {
            assert_eq!(attempt.parent_span_id, request.span_context.span_id());
            assert_eq!(attempt.span_kind, SpanKind::Client);
        }
        assert_eq!(
            (request.name.as_ref(), value(request, "gen_ai.provider.name").as_str()),
            ("chat alias", "anthropic")
        );
        for (key, expected) in [
            ("gen_ai.request.model", "alias"),
            ("gen_ai.response.model", "real"),
            ("gen_ai.usage.input_tokens", "7"),
            ("gen_ai.usage.output_tokens", "5"),
            ("gen_ai.response.finish_reasons", "[\"tool_call\"]"),
            ("error.type", ""),
        ] {
            assert_eq!(value(request, key), expected, "{key}");
        }
        assert_eq!(
            (value(first, "error.type").as_str(), value(first, "server.address").as_str()),
            ("rate_limit", "h")
        );
        assert_eq!(
            (value(second, "error.type").as_str(), value(second, "gen_ai.provider.name").as_str()),
            ("", "team")
        );
        assert!(!value(second, "gen_ai.response.time_to_first_chunk").is_empty());
        assert!(!format!("{spans:?}").contains("canary"));
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (traces, metrics) = traces(ON, 4);
        for _ in 0..3 {
            traces.request(&served(&traces, &HeaderMap::new()), &facts(), Instant::now());
        }
        assert_eq!(metrics.trace_spans.with_label_values(&["dropped"]).get(), 5);
    }

    #[test]
    fn the_ratio_counts_unless_the_client_says() {
        let (traces, metrics) = traces("telemetry: {otlp-endpoint: 'http://h', sample-ratio: 0}", 10);
        let mut headers = HeaderMap::new();
        traces.request(&served(&traces, &headers), &facts(), Instant::now());
        let (mut waiting, _) = traces.take().unwrap();
        assert!(waiting.try_recv().is_err());
        headers.insert(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap(),
        );
        traces.request(&served(&traces, &headers), &facts(), Instant::now());
        assert!(waiting.try_recv().is_ok());
        assert_eq!(metrics.trace_spans.with_label_values(&["dropped"]).get(), 0);
        headers.insert("traceparent", "nonsense".parse().unwrap());
        let mut trace = Trace::default();
        trace.begin(&headers, &traces);
        assert!(trace.on && trace.parent.is_none());
    }

    #[test]
    fn without_a_collector_nothing_is_noted() {
        let (traces, _) = traces("{}", 4);
        let trace = served(&traces, &HeaderMap::new());
        assert!(trace.attempts.is_empty() && traces.take().is_none());
        traces.request(&trace, &facts(), Instant::now());
    }
}
