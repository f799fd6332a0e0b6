//! Spans on their way to the collector (feature `otlp`).
//!
//! Enters: spans of [`crate::observe::traces`], the settings `telemetry`. Leaves: OTLP over HTTP, in batches.
//! May go wrong: the collector does not take them, or not in time; then a batch is dropped and counted, which is
//! told once per trouble. Requests never wait for any of it.

use super::State;
use crate::upstream::fetch::{self, Question};
use async_trait::async_trait;
use bytes::Bytes;
use config::{HeaderValue, ProxySetting, Telemetry};
use http::{Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use secrecy::SecretString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use url::Url;

/// Most spans that go at once.
const BATCH: usize = 512;
/// How long a batch that is not full waits for more.
const LINGER: Duration = Duration::from_secs(1);
/// Longest time for a batch, retries and all; for one call; and the longest answer in bytes.
const WITHIN: (Duration, Duration, usize) = (Duration::from_secs(10), Duration::from_secs(5), 64 << 10);
/// Time between two looks at whether a process that leaves still serves somebody.
const LOOK: Duration = Duration::from_millis(200);

/// Sends spans for the life of the process.
#[derive(Debug)]
pub struct Exporter(pub Arc<State>);

#[async_trait]
impl BackgroundService for Exporter {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let state = &self.0;
        let Some((mut waiting, resource)) = state.traces.take() else { return };
        let telemetry = state.snapshot.load().config.telemetry.clone();
        let mut sender = match Sender::new(state, &telemetry, &resource) {
            Ok(sender) => sender,
            Err(error) => {
                tracing::error!("no traces are sent: {error}");
                return;
            }
        };
        loop {
            tokio::select! {
                () = sender.collect(&mut waiting, LINGER) => {}
                _ = shutdown.changed() => break,
            }
            sender.send().await;
        }
        // A process that hands over serves its connections to their end.
        while state.metrics.connections.get() > 0 {
            let _ = timeout(LOOK, sender.collect(&mut waiting, Duration::ZERO)).await;
            sender.send().await;
        }
        while !waiting.is_empty() || !sender.batch.is_empty() {
            sender.collect(&mut waiting, Duration::ZERO).await;
            sender.send().await;
        }
    }
}

/// Sends batches.
struct Sender<'s> {
    state: &'s State,
    exporter: SpanExporter,
    place: String,
    /// Spans that were taken and not yet sent.
    batch: Vec<SpanData>,
    /// The last batch did not arrive.
    trouble: bool,
}

impl<'s> Sender<'s> {
    fn new(state: &'s Arc<State>, telemetry: &Telemetry, resource: &Resource) -> Result<Self, String> {
        let base = telemetry.otlp_endpoint.as_ref().ok_or("there is no otlp-endpoint")?;
        let path = "/v1/traces";
        let place = base.as_str().strip_suffix(path).unwrap_or(base.as_str());
        let place = format!("{place}{path}");
        let literal = |(name, value): (&String, &HeaderValue)| match value {
            HeaderValue::Literal(secret) => Some((name.clone(), SecretString::from(secret.expose_secret()))),
            HeaderValue::CopyFrom(_) => None,
        };
        let headers = telemetry.headers.0.iter().filter_map(literal).collect();
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client { state: Arc::clone(state), headers })
            .with_endpoint(&place)
            .with_protocol(Protocol::HttpJson)
            .with_timeout(WITHIN.0)
            .build()
            .map_err(|error| error.to_string())?;
        exporter.set_resource(resource);
        Ok(Self { state, exporter, place, batch: Vec::new(), trouble: false })
    }

    /// Takes what waits, and what comes while it lingers. What was taken stays where this is given up.
    async fn collect(&mut self, waiting: &mut Receiver<SpanData>, linger: Duration) {
        if self.batch.is_empty() {
            waiting.recv_many(&mut self.batch, BATCH).await;
        }
        let more = async {
            while self.batch.len() < BATCH {
                let room = BATCH - self.batch.len();
                if waiting.recv_many(&mut self.batch, room).await == 0 {
                    return;
                }
            }
        };
        let _ = timeout(linger, more).await;
    }

    async fn send(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let spans = std::mem::take(&mut self.batch);
        let count = spans.len() as u64;
        let sent = self.exporter.export(spans).await;
        let outcome = if sent.is_ok() { "sent" } else { "failed" };
        self.state.metrics.trace_spans.with_label_values(&[outcome]).inc_by(count);
        match sent {
            Ok(()) if self.trouble => tracing::info!("traces are sent to {} again", self.place),
            Err(error) if !self.trouble => {
                tracing::warn!("traces are not sent to {}, and dropped: {error}", self.place);
            }
            _ => {}
        }
        self.trouble = outcome == "failed";
    }
}

/// Our own connections, for the exporter.
struct Client {
    state: Arc<State>,
    headers: Vec<(String, SecretString)>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let url = Url::parse(&request.uri().to_string())?;
        let snapshot = self.state.snapshot.load_full();
        let lane = self.state.lanes.to(&url, &ProxySetting::Direct, &snapshot.config)?;
        let mut headers = vec![("content-type", SecretString::from("application/json"))];
        headers.extend(self.headers.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let body = SecretString::from(String::from_utf8(request.into_body().into())?);
        let question = Question { method: "POST", target: url.path(), headers: &headers, body: &body };
        let (_, within, most) = WITHIN;
        let answer = fetch::ask_within(&self.state.connector, &lane, &question, within, most).await;
        let answer = answer.map_err(|error| error.etype().as_str().to_owned())?;
        Ok(Response::builder().status(answer.status).body(answer.body.into())?)
    }
}
