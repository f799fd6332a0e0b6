//! Stage 5: a prepared request to its upstream, up to the head of the answer.
//!
//! Enters: a body, a way and a credential. Leaves: an upstream session whose head is good, or what went
//! wrong ([`Missed`]). May go wrong: no connection, no answer in time, an error status; nothing has been
//! sent to the client then, so that the request can be tried elsewhere. The client leaves: everything is
//! dropped, which closes the connection or resets the stream.

use super::client::Client;
use super::error::{ProxyError, Verbatim};
use super::reply::{Collected, collect};
use crate::state::State;
use crate::upstream::echo;
use crate::upstream::peer::Lane;
use bytes::Bytes;
use config::Config;
use http::HeaderMap;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession as Upstream;
use pingora::{BError, ErrorType};
use pool::{Hint, Phase};
use std::time::Duration;
use wire::error::Failure;
use wire::target::Profile;

/// Most of an error body that is read.
const ERROR_BODY: usize = 64 << 10;
/// Longest time for it.
const ERROR_TIME: Duration = Duration::from_secs(10);

/// Most further tries of an upstream that has no room for the model, with a growing wait before each: a second
/// and a half in all.
const CAPACITY_TRIES: u32 = 3;
/// Wait before the first of them.
const CAPACITY_WAIT: Duration = Duration::from_millis(250);

/// How an upstream is spoken to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    profile: Profile,
    /// Further tries while it has no room for the model.
    capacity_tries: u32,
}

impl Manner {
    /// That of a flavour, as the operator wants it.
    pub(super) fn of(profile: Profile, config: &Config) -> Self {
        let patient = profile == Profile::Antigravity && config.providers.antigravity_no_capacity_retry;
        Self { profile, capacity_tries: if patient { CAPACITY_TRIES } else { 0 } }
    }
}

/// An attempt that gave the client nothing.
#[derive(Debug)]
pub(super) enum Missed {
    /// The upstream answered with an error.
    Status {
        /// Its status.
        status: u16,
        /// Its headers.
        headers: Box<HeaderMap>,
        /// The start of its body.
        body: Bytes,
        /// How long to wait, as far as it said.
        hint: Option<Hint>,
        /// What the client is told if this was the last attempt.
        error: Box<ProxyError>,
    },
    /// No connection.
    Connect(String),
    /// Silence.
    Timeout(Phase),
    /// The client has left.
    Gone(BError),
}

impl Missed {
    /// Without the secrets that an upstream may have repeated.
    pub(super) fn without<'s>(self, secrets: impl Iterator<Item = &'s str>, profile: Profile) -> Self {
        match self {
            Self::Status { status, headers, body, hint, error } => {
                let hidden = echo::hide(body.clone(), secrets);
                let same = hidden.len() == body.len() && hidden.as_ptr() == body.as_ptr();
                let error = if same { error } else { Box::new(status_error(status, &hidden, hint, profile)) };
                Self::Status { status, headers, body: hidden, hint, error }
            }
            other => other,
        }
    }
}

/// An upstream that began to answer.
pub(super) struct Opened {
    /// The session; its head has been read.
    pub upstream: Upstream,
    /// Whether the answer is a stream of events, by its content type.
    pub events: Option<bool>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("events", &self.events).finish_non_exhaustive()
    }
}

/// Sends a request and waits for the head of its answer.
pub(super) async fn forward(
    state: &State,
    client: &mut Client<'_>,
    lane: &Lane,
    header: &RequestHeader,
    body: &Bytes,
    first_byte: Duration,
    manner: Manner,
) -> Result<Opened, Missed> {
    let mut tries = 0;
    loop {
        match once(state, client, lane, header, body, first_byte, manner.profile).await {
            // Who says when to come back is left to the pool.
            Err(Missed::Status { status, body, hint: None, .. })
                if tries < manner.capacity_tries && pool::lacks_capacity(status, &body) =>
            {
                tries += 1;
                tokio::select! {
                    () = tokio::time::sleep(CAPACITY_WAIT * tries) => {}
                    error = client.gone() => return Err(Missed::Gone(error)),
                }
            }
            other => return other,
        }
    }
}

async fn once(
    state: &State,
    client: &mut Client<'_>,
    lane: &Lane,
    header: &RequestHeader,
    body: &Bytes,
    first_byte: Duration,
    profile: Profile,
) -> Result<Opened, Missed> {
    // A pooled connection may die between the check and the write: then the next one is tried, and at last
    // a new one. The upstream cannot have seen such a request, so that this is no attempt of its own.
    let mut fresh_lane = None;
    for fresh in [false, false, true] {
        let to = if fresh { fresh_lane.insert(lane.fresh()) } else { lane };
        // Boxed: dialling needs 9 kB of future, which a stream of an hour must not hold.
        let connected = tokio::select! {
            biased;
            connected = Box::pin(state.connector.get_http_session(to)) => connected,
            error = client.gone() => return Err(Missed::Gone(error)),
        };
        let (mut upstream, reused) = connected.map_err(|error| connect_error(&error))?;
        let counter =
            if reused { &state.metrics.connections_reused } else { &state.metrics.connections_opened };
        counter.inc();
        upstream.set_write_timeout(lane.write_timeout());
        match exchange(client, &mut upstream, header, body, first_byte).await {
            Ok(()) => return judge(state, client, lane, upstream, profile).await,
            Err(Missed::Connect(_)) if reused && !fresh => upstream.shutdown().await,
            Err(missed) => {
                upstream.shutdown().await;
                return Err(missed);
            }
        }
    }
    Err(Missed::Connect("no connection held long enough to send the request".to_owned()))
}

/// Sends the request and reads the head.
async fn exchange(
    client: &mut Client<'_>,
    upstream: &mut Upstream,
    header: &RequestHeader,
    body: &Bytes,
    first_byte: Duration,
) -> Result<(), Missed> {
    upstream.set_read_timeout(Some(first_byte));
    let sent_and_answered = async {
        upstream.write_request_header(Box::new(header.clone())).await?;
        upstream.write_request_body(body.clone(), true).await?;
        upstream.finish_request_body().await?;
        upstream.read_response_header().await
    };
    tokio::select! {
        biased;
        result = sent_and_answered => result.map_err(|error| match error.etype() {
            ErrorType::ReadTimedout => Missed::Timeout(Phase::Header),
            ErrorType::WriteTimedout => Missed::Timeout(Phase::Connect),
            kind => Missed::Connect(format!("the upstream broke the connection ({})", kind.as_str())),
        }),
        error = client.gone() => Err(Missed::Gone(error)),
    }
}

/// Looks at the head: an error status is read out, and its connection goes back to the pool.
async fn judge(
    state: &State,
    client: &mut Client<'_>,
    lane: &Lane,
    mut upstream: Upstream,
    profile: Profile,
) -> Result<Opened, Missed> {
    let Some(head) = upstream.response_header() else {
        return Err(Missed::Connect("the upstream sent no header".to_owned()));
    };
    let status = head.status.as_u16();
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    if (200..300).contains(&status) {
        let events = text("content-type").and_then(|kind| {
            let kind = kind.to_ascii_lowercase();
            let whole = kind.contains("json") && !kind.contains("event-stream") && !kind.contains("ndjson");
            let events = kind.contains("event-stream") || kind.contains("vnd.amazon.eventstream");
            if events { Some(true) } else { whole.then_some(false) }
        });
        return Ok(Opened { upstream, events });
    }
    let headers = head.headers.clone();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let body = match collect(&mut upstream, client, None, ERROR_BODY, ERROR_TIME).await {
        Ok(body) => {
            state.connector.release_http_session(upstream, lane, lane.idle()).await;
            body
        }
        Err(Collected::Failed(_)) => Bytes::new(),
        Err(Collected::Gone(error)) => return Err(Missed::Gone(error)),
    };
    let hint = pool::hints::hint(header, &body, state.now().wall_s);
    let error = Box::new(status_error(status, &body, hint, profile));
    Err(Missed::Status { status, headers: Box::new(headers), body, hint, error })
}

/// What a client is told of an upstream's error.
fn status_error(status: u16, body: &Bytes, hint: Option<Hint>, profile: Profile) -> ProxyError {
    // A redirect is not followed: it would take the key to another host.
    let status = if (300..400).contains(&status) { 502 } else { status };
    let mut failure = Failure::parse(status, body);
    failure.retry_after = hint.map(|hint| hint.wait_ms.div_ceil(1000).max(1));
    let is_json = wire::json::parse_any(body)
        .is_ok_and(|value| value.as_object().is_some() || value.as_array().is_some());
    let mut error = ProxyError::upstream(failure);
    // No client speaks Kiro's format.
    let spoken = is_json && profile != Profile::Kiro;
    error.verbatim = spoken.then(|| Box::new(Verbatim { protocol: profile.protocol(), body: body.clone() }));
    error
}

fn connect_error(error: &BError) -> Missed {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Missed::Timeout(Phase::Connect),
        kind => {
            let context = error.context.as_ref().map(|c| format!(": {}", c.as_str())).unwrap_or_default();
            Missed::Connect(format!("cannot connect to the upstream ({}{context})", kind.as_str()))
        }
    }
}
