//! Beside all stages: what goes into the file of a request.
//!
//! Enters: calls to upstreams that failed, the error that the client gets; where bodies are wanted, they and all
//! calls. Leaves: an [`Entry`] for who writes files, when the request failed or its bodies are wanted. May go
//! wrong: nothing that the request would notice; what does not fit is counted.
//!
//! A request that succeeds costs a look at two flags, and nothing is kept of it. Those without a valid client key
//! leave no file: strangers could push out what is worth reading. A client that leaves is no failure.

use super::forward::Missed;
use super::record::Record;
use super::reply::Ended;
use crate::observe::clip::Clip;
use crate::observe::request_log::{Attempt, Entry, secrets};
use crate::state::{Snapshot, State};
use crate::upstream::peer::Lane;
use bytes::Bytes;
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;
use pool::{CredentialSpec, Phase};
use std::sync::Arc;

/// Most of a body that is kept.
const BODY: usize = 1 << 20;
/// Most of the body of an error that is kept.
const ERROR_BODY: usize = 64 << 10;
/// Calls that are kept: the first ones, and the last one.
const CALLS: usize = 16;

/// What an answer's bytes go to, beside the client.
pub(super) type Tee = Arc<Mutex<Clip>>;

/// What is kept of a request.
#[derive(Debug, Default)]
pub(super) struct Capture {
    /// A failure leaves a file.
    on: bool,
    /// Only once there is something to keep.
    kept: Option<Box<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Bodies are wanted.
    bodies: bool,
    body: Option<Clip>,
    answer: Option<Tee>,
    /// The body of the error that the client is told.
    refused: Option<Bytes>,
    attempts: Vec<Attempt>,
    left_out: u32,
    calls: u32,
    /// A call whose end is not known.
    open: Option<Attempt>,
}

impl Capture {
    /// The request is one that may leave a file.
    pub(super) fn begin(&mut self, state: &State, snapshot: &Snapshot) {
        self.on = state.request_logs.is_on(snapshot);
    }

    fn bodies(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.bodies)
    }

    fn kept(&mut self) -> &mut Kept {
        self.kept.get_or_insert_default()
    }

    /// A request went to an upstream, which answered with `head`; `None`: not well, or not at all.
    pub(super) fn sent(
        &mut self,
        state: &State,
        (lane, header, body): (&Lane, &RequestHeader, &Bytes),
        head: Option<&ResponseHeader>,
    ) {
        let bodies = self.bodies();
        if !self.on || (head.is_some() && !bodies) {
            return;
        }
        let target = match header.uri.scheme() {
            Some(_) => format!("{} {}", header.method, header.uri),
            None => format!("{} {}{}", header.method, lane.origin(), header.uri),
        };
        let kept = self.kept();
        kept.open = Some(Attempt {
            target,
            body: bodies.then(|| Clip::of(body, &state.request_logs.held, BODY)),
            status: head.map(|head| head.status.as_u16()),
            headers: head.map(|head| head.headers.clone()).unwrap_or_default(),
            secrets: secrets(&header.headers).map(str::to_owned).collect(),
            ..kept.next()
        });
    }

    /// A call came to nothing.
    pub(super) fn missed(&mut self, state: &State, who: &CredentialSpec, missed: &Missed) {
        if !self.on {
            return;
        }
        let (status, error, headers, body) = match missed {
            Missed::Status { status, error, headers, body, .. } => {
                (Some(*status), error.failure.message.as_str(), Some(headers), Some(body))
            }
            Missed::Connect(message) => (None, message.as_str(), None, None),
            Missed::Timeout(Phase::Connect) => (None, "no connection in time", None, None),
            Missed::Timeout(_) => (None, "no answer in time", None, None),
            Missed::Gone(_) => (None, "the client left", None, None),
        };
        let kept = self.kept();
        let attempt = Attempt {
            status,
            error: error.to_owned(),
            headers: headers.map(|headers| HeaderMap::clone(headers)).unwrap_or_default(),
            answer: body.map(|body| Clip::of(body, &state.request_logs.held, ERROR_BODY)),
            ..kept.last_call()
        };
        kept.over(attempt, who);
    }

    /// There was no call, for this reason.
    pub(super) fn unsent(&mut self, who: &CredentialSpec, reason: &str) {
        if self.on {
            let kept = self.kept();
            let attempt = Attempt { error: reason.to_owned(), ..kept.last_call() };
            kept.over(attempt, who);
        }
    }

    /// An answer ended.
    pub(super) fn ended(&mut self, lane: &Lane, who: &CredentialSpec, ended: &Ended) {
        let failure = match ended {
            Ended::Broken(failure) | Ended::Severed(failure) | Ended::Missed { failure, .. } => {
                failure.message.as_str()
            }
            Ended::Complete { .. } | Ended::Empty { .. } | Ended::Gone(_) => "",
        };
        if !self.on || (failure.is_empty() && !self.bodies()) {
            return;
        }
        let kept = self.kept();
        let mut attempt = kept.last_call();
        if attempt.target.is_empty() {
            // Its header was not kept: answers usually end well.
            attempt.target = lane.origin();
            attempt.status = Some(200);
        }
        failure.clone_into(&mut attempt.error);
        kept.over(attempt, who);
    }

    /// What the answer's bytes go to as well.
    pub(super) fn tee(&self) -> Option<Tee> {
        self.kept.as_ref().filter(|kept| kept.bodies)?.answer.clone()
    }

    /// An answer that came about here, where bodies are wanted.
    pub(super) fn answered(&self, body: &[u8]) {
        if let Some(tee) = self.tee() {
            tee.lock().push(body);
        }
    }

    /// The client is told of an error.
    pub(super) fn refused(&mut self, body: &Bytes) {
        if self.on {
            self.answered(body);
            self.kept().refused = Some(body.clone());
        }
    }
}

impl Kept {
    /// A call that begins.
    fn next(&mut self) -> Attempt {
        self.calls += 1;
        Attempt {
            number: self.calls,
            provider: String::new(),
            credential: String::new(),
            target: String::new(),
            body: None,
            status: None,
            error: String::new(),
            headers: HeaderMap::new(),
            answer: None,
            secrets: Vec::new(),
        }
    }

    /// The call that is over, as far as it is known.
    fn last_call(&mut self) -> Attempt {
        match self.open.take() {
            Some(open) => open,
            None => self.next(),
        }
    }

    /// Keeps a call that is over.
    fn over(&mut self, mut attempt: Attempt, who: &CredentialSpec) {
        who.provider.as_ref().clone_into(&mut attempt.provider);
        who.label.as_ref().clone_into(&mut attempt.credential);
        if self.attempts.len() >= CALLS {
            self.attempts.pop();
            self.left_out += 1;
        }
        self.attempts.push(attempt);
    }
}

/// The body of a request, if bodies are wanted of requests like it.
pub(super) fn bodies(record: &mut Record, state: &State, snapshot: &Snapshot, body: &[u8]) {
    let holder = record.holder.as_ref().map_or("", |holder| &holder.name);
    if !record.capture.on || !state.request_logs.wants_bodies(snapshot, &record.facts.model, holder) {
        return;
    }
    let held = &state.request_logs.held;
    let kept = record.capture.kept();
    kept.bodies = true;
    kept.body = Some(Clip::of(body, held, BODY));
    kept.answer = Some(Arc::new(Mutex::new(Clip::new(held, BODY))));
}

/// The request is over: hands over what is to be written of it.
pub(super) fn write_down(record: &mut Record, state: &State, session: &ServerSession) {
    let facts = &record.facts;
    let failed = facts.status != 499 && (facts.status >= 400 || !facts.error.is_empty());
    if !record.capture.on || !(failed || record.capture.bodies()) {
        return;
    }
    let kept = *record.capture.kept.take().unwrap_or_default();
    let held = &state.request_logs.held;
    let header = session.req_header();
    let on_socket = record.socket.is_some();
    let answer = session.response_written().filter(|_| !on_socket);
    let took = SignedDuration::from_millis(i64::try_from(facts.latency_ms).unwrap_or(0));
    let now = Timestamp::now();
    state.write_request(Box::new(Entry {
        at: now.checked_sub(took).unwrap_or(now),
        facts: facts.clone(),
        failed,
        client_key: record.holder.as_ref().map(|holder| holder.name.to_string()).unwrap_or_default(),
        transport: if on_socket { "websocket".to_owned() } else { format!("{:?}", header.version) },
        query: header.uri.query().map(str::to_owned),
        headers: header.headers.clone(),
        body: kept.body,
        attempts: kept.attempts,
        left_out: kept.left_out,
        answer_headers: answer.map(|answer| answer.headers.clone()).unwrap_or_default(),
        answer: kept.answer.map(taken).or(kept.refused.map(|body| Clip::of(&body, held, ERROR_BODY))),
    }));
}

/// What an answer's bytes went to. Whoever held it is gone.
fn taken(tee: Tee) -> Clip {
    match Arc::try_unwrap(tee) {
        Ok(clip) => clip.into_inner(),
        Err(tee) => {
            let mut clip = tee.lock();
            clip.take()
        }
    }
}
