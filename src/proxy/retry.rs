//! The attempts of a request: stages 3 to 6, again and again until an answer has begun or nobody is left.
//!
//! Enters: a routed request. Leaves: an answer at the client, or the best error of all attempts. Retried
//! are failures of a credential or an upstream, and only while the client has got nothing; what the request
//! itself is to blame for is told at once. May go wrong: the client leaves, which ends everything.

use super::client::Client;
use super::count;
use super::error::ProxyError;
use super::fallback::Course;
use super::forward::{Missed, Opened, forward};
use super::login;
use super::parse::Parsed;
use super::record::Record;
use super::reply::{Collected, Ended, Pace, Pump, Shape, collect, first_chunk};
use super::respond;
use super::select::{Preference, Selected, again, select};
use super::translate::{Prepared, translate};
use crate::state::lanes::NoLane;
use crate::state::renew::NotRenewed;
use crate::state::{Snapshot, State, seconds};
use crate::upstream::peer::Lane;
use crate::upstream::request;
use bytes::Bytes;
use config::OwnTimeouts;
use http::HeaderMap;
use pingora::protocols::http::client::HttpSession as Upstream;
use pingora::{BError, Error, ErrorType, Result};
use pool::{Attempts, Next, Outcome, Phase, Pick, Route, Token, Verdict};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::error::Failure;
use wire::ir::Finish;
use wire::translate::Reply;

/// Largest whole answer that is read: a page of base64 pictures.
const ANSWER: usize = 256 << 20;

/// Longest wait for a credential that is about to serve again: a test by another request ends with its first
/// byte.
const BUSY: Duration = Duration::from_secs(10);
/// Time between two looks.
const BUSY_STEP: Duration = Duration::from_millis(30);

/// A routed request, with everything that attempts need. Dropped when the answer begins.
#[derive(Debug)]
pub(super) struct Question {
    /// The client's body and its head.
    pub parsed: Parsed,
    /// The client's headers.
    pub headers: HeaderMap,
    /// The client's query.
    pub query: Option<String>,
    /// Conversation and files, for affinity.
    pub preference: Preference,
}

/// One exchange.
pub(super) struct Exchange<'e, 'c> {
    /// Shared state.
    pub state: &'e State,
    /// The configuration of this request.
    pub snapshot: &'e Snapshot,
    /// Who asked.
    pub client: &'e mut Client<'c>,
    /// What is known of the request.
    pub record: &'e mut Record,
}

impl std::fmt::Debug for Exchange<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("record", &self.record).finish_non_exhaustive()
    }
}

/// What an attempt came to.
enum Attempt {
    /// The client has its answer, or was told that it broke.
    Answered,
    /// The client has nothing; the error is for the case that nobody else serves.
    Failed(Verdict, Box<ProxyError>),
    /// The client has nothing, for the model had nothing to say.
    Empty(Box<ProxyError>),
    /// The client has left.
    Gone(BError),
}

/// The end of a request: the client has its answer or has left, or an error to answer with.
type Answered = std::result::Result<Result<()>, ProxyError>;

/// What a request has tried.
struct Tried {
    course: Course,
    /// The body of the last attempt.
    prepared: Option<Prepared>,
    /// Why the last attempt failed.
    last: Option<ProxyError>,
    /// Since when somebody will serve soon.
    busy_since: Option<Instant>,
}

/// What came of one turn.
enum Turn {
    /// The request is over.
    Over(Answered),
    /// The next credential.
    Again,
    /// Nobody serves the model any more.
    Stuck {
        /// Why.
        error: Box<ProxyError>,
        /// Somebody will soon.
        soon: bool,
    },
}

/// What is done when nobody serves a model.
enum Otherwise {
    /// Something is left to try.
    Go,
    /// Nothing is.
    End(Box<ProxyError>),
    /// The client has left.
    Gone(BError),
}

impl Exchange<'_, '_> {
    /// Runs attempts until one answers. An error is one to answer with.
    pub(super) async fn run(&mut self, route: Route, question: Question) -> Answered {
        let mut tried = Tried { course: Course::new(route), prepared: None, last: None, busy_since: None };
        let mut question = Some(question);
        loop {
            let seed = pick_seed(&self.record.seed, tried.course.total());
            match self.once(&mut tried, &mut question, seed).await {
                Turn::Over(answered) => return answered,
                Turn::Again => {}
                Turn::Stuck { error, soon } => match self.otherwise(&mut tried, *error, soon, seed).await {
                    Otherwise::Go => {}
                    Otherwise::End(error) => return Err(*error),
                    Otherwise::Gone(error) => return Ok(Err(error)),
                },
            }
        }
    }

    /// Picks, translates and makes one attempt.
    async fn once(&mut self, tried: &mut Tried, question: &mut Option<Question>, seed: u64) -> Turn {
        let Some(asked) = question.as_ref() else { return Turn::Over(Ok(Ok(()))) };
        let course = &mut tried.course;
        let pick = match select(self.state, &course.route, &mut course.attempts, &asked.preference, seed) {
            Selected::Pick(pick) => pick,
            Selected::Nobody { error, soon } => {
                return Turn::Stuck { error: Box::new(better(tried.last.take(), *error)), soon };
            }
        };
        self.note_pick(&pick, course.total());
        let operation = asked.parsed.call.operation;
        if count::is_local(operation, asked.parsed.call.client, &pick) {
            return Turn::Over(self.estimate(&asked.parsed).await);
        }
        let from = (self.state, self.snapshot);
        match translate(asked, &course.route, &pick, tried.prepared.take(), from, self.record) {
            Ok(made) => tried.prepared = Some(made),
            // Another kind of upstream may serve the same name.
            Err(error) if error.failure.status == 501 => {
                tried.last = Some(error);
                return Turn::Again;
            }
            // What a request asks for is no fault of its own for a model that it did not ask for.
            Err(error) if course.route.is_fallback() => return stuck(error),
            Err(error) => return Turn::Over(Err(error)),
        }
        match Box::pin(self.attempt(*pick, question, &mut tried.prepared, course)).await {
            Attempt::Answered => Turn::Over(Ok(Ok(()))),
            Attempt::Gone(error) => Turn::Over(Ok(Err(error))),
            Attempt::Failed(verdict, error)
                if count::is_missing(operation, &verdict, &error)
                    && let Some(asked) = question.as_ref() =>
            {
                Turn::Over(self.estimate(&asked.parsed).await)
            }
            Attempt::Empty(error) => stuck(*error),
            // A fault of the request only for a model that it did not ask for.
            Attempt::Failed(verdict, error)
                if verdict.next == Next::Return && tried.course.route.is_fallback() =>
            {
                stuck(*error)
            }
            Attempt::Failed(verdict, error) if verdict.next == Next::Return => Turn::Over(Err(*error)),
            Attempt::Failed(_, error) => {
                tried.last = Some(*error);
                Turn::Again
            }
        }
    }

    /// Nobody serves the model: another model, else another round, else a short wait, else the end.
    async fn otherwise(&mut self, tried: &mut Tried, error: ProxyError, soon: bool, seed: u64) -> Otherwise {
        let course = &mut tried.course;
        let Err(error) = course.turn(error, self.state, self.record) else {
            tried.last = None;
            return Otherwise::Go;
        };
        let wait = match again(self.state, &course.route, &mut course.attempts, seed) {
            Some(wait) => wait,
            None if soon && tried.busy_since.get_or_insert_with(Instant::now).elapsed() < BUSY => BUSY_STEP,
            None => return Otherwise::End(error),
        };
        tried.last = Some(*error);
        match self.pause(wait).await {
            Ok(()) => Otherwise::Go,
            Err(gone) => Otherwise::Gone(gone),
        }
    }

    /// Answers a count here.
    async fn estimate(&mut self, parsed: &Parsed) -> Answered {
        let (header, body) = count::estimate(parsed, &self.record.facts.request_id)?;
        self.record.facts.status = 200;
        Ok(match header {
            Ok(header) => self.client.respond(header, body).await,
            Err(error) => Err(error),
        })
    }

    /// Waits between two rounds, unless the client leaves.
    async fn pause(&mut self, wait: Duration) -> Result<()> {
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            error = self.client.gone() => Err(error),
        }
    }

    fn note_pick(&mut self, pick: &Pick, attempts: u32) {
        let (credential, model) = (pick.credential(), pick.model());
        let facts = &mut self.record.facts;
        facts.attempts = attempts;
        credential.provider.as_ref().clone_into(&mut facts.provider);
        credential.label.as_ref().clone_into(&mut facts.credential);
        model.upstream.as_ref().clone_into(&mut facts.resolved);
    }

    /// One attempt with `pick`.
    async fn attempt(
        &mut self,
        mut pick: Pick,
        question: &mut Option<Question>,
        prepared: &mut Option<Prepared>,
        course: &mut Course,
    ) -> Attempt {
        let token = match login::token(self.state, &pick).await {
            Ok(token) => token,
            Err(error) => return self.no_token(pick, &error, &mut course.attempts),
        };
        let mut refuse_empty = false;
        let opened = {
            let (Some(asked), Some(made)) = (question.as_ref(), prepared.as_ref()) else {
                return Attempt::Answered;
            };
            refuse_empty |= course.refuses_empty(asked.parsed.call.operation, self.state);
            let plan = made.plan.clone();
            match self.open(&pick, token.as_deref(), asked, made).await {
                Ok((opened, lane)) => Ok((opened, lane, plan)),
                Err(missed) => Err(missed),
            }
        };
        let (opened, lane, plan) = match opened {
            Ok(opened) => opened,
            Err(missed) => {
                let media = prepared.as_ref().is_some_and(|made| made.plan.operation.is_media());
                return self.missed(pick, missed, media, &mut course.attempts);
            }
        };
        let mut reply = Reply::new(&plan);
        let request_id = self.record.facts.request_id.clone();
        let passed = plan.is_raw().then(|| opened.upstream.response_header().cloned()).flatten();
        let shape = Shape {
            stream: plan.stream || passed.is_some(),
            array: plan.context.json_array,
            request_id: &request_id,
            passed: passed.as_ref(),
        };
        let timeouts = pick.credential().timeouts;
        let (state, record) = (self.state, &mut *self.record);
        let mut on_commit = || {
            // From here on nothing can be tried again: the bodies of a long stream must not stay in memory.
            question.take();
            prepared.take();
            record.first_byte();
            state.pool.confirm(&mut pick);
        };
        let mut pace = pace(self.snapshot, timeouts);
        if passed.is_some() {
            // Nothing may stand between the bytes of a file.
            pace.keep_alive = Duration::ZERO;
        }
        let mut pump = Pump::new(self.client, &mut reply, pace, shape, &mut on_commit);
        pump.refuse_empty = refuse_empty;
        pump.headers.extend(course.header());
        let ended = move_answer(&mut pump, opened, state, &lane).await;
        self.ended(pick, ended, &reply, plan.stream, &mut course.attempts)
    }

    /// Finds the way and sends.
    async fn open(
        &mut self,
        pick: &Pick,
        token: Option<&Token>,
        asked: &Question,
        made: &Prepared,
    ) -> std::result::Result<(Opened, Lane), Missed> {
        let credential = pick.credential();
        let told = token.and_then(|token| token.base_url.as_deref());
        let lane = self.state.lanes.get(credential, told, &self.snapshot.config);
        let lane = lane.map_err(|error| no_lane(&error, credential))?;
        let extra = request::extra(&credential.headers);
        let call = request::Call {
            lane: &lane,
            kind: credential.kind,
            profile: made.plan.profile,
            operation: asked.parsed.call.operation,
            model: &pick.model().upstream,
            stream: made.plan.upstream_stream,
            secret: token.map_or(&credential.secret, |token| &token.secret),
            is_token: credential.is_token,
            scope: &credential.scope,
            extra: &extra,
            client: &asked.headers,
            query: asked.query.as_deref(),
            same_format: made.plan.same_format,
            is_form: made.plan.is_raw() && asked.parsed.head.boundary.is_some(),
            body: &made.body,
        };
        let header = request::header(&call).map_err(|error| Missed::Connect(error.to_string()))?;
        let first_byte = pace(self.snapshot, credential.timeouts).first;
        let profile = made.plan.profile;
        let opened =
            forward(self.state, self.client, &lane, &header, &made.body, first_byte, profile).await?;
        Ok((opened, lane))
    }

    /// An attempt for which there is no token.
    fn no_token(&mut self, pick: Pick, error: &NotRenewed, attempts: &mut Attempts) -> Attempt {
        let needs_login = matches!(error, NotRenewed::NeedsLogin(_));
        let verdict = self.report(pick, &Outcome::RefreshFailed { needs_login }, attempts);
        Attempt::Failed(verdict, Box::new(ProxyError::upstream(Failure::new(401, error.to_string()))))
    }

    /// An attempt that did not get to an answer. `media` is whether it was about no conversation.
    fn missed(&mut self, pick: Pick, missed: Missed, media: bool, attempts: &mut Attempts) -> Attempt {
        let (outcome, error) = match &missed {
            Missed::Gone(_) => (Outcome::ClientGone, None),
            Missed::Connect(message) if message.starts_with("proxy config invalid") => {
                (Outcome::ProxyInvalid, Some(ProxyError::internal(502, message.clone())))
            }
            Missed::Connect(message) => {
                (Outcome::Connect, Some(ProxyError::upstream(Failure::new(502, message.clone()))))
            }
            Missed::Timeout(phase) => {
                let message = match phase {
                    Phase::Connect => "the connection to the upstream was not made in time",
                    _ => "the upstream did not answer in time",
                };
                (Outcome::Timeout(*phase), Some(ProxyError::upstream(Failure::new(504, message))))
            }
            Missed::Status { status, error, .. } if media && without_rest(*status).is_some() => {
                let status = without_rest(*status).unwrap_or(*status);
                (Outcome::Status { status, body: &[], hint: None }, Some(error.as_ref().clone()))
            }
            Missed::Status { status, body, hint, error } => {
                (Outcome::Status { status: *status, body, hint: *hint }, Some(error.as_ref().clone()))
            }
        };
        let verdict = self.report(pick, &outcome, attempts);
        match (missed, error) {
            (Missed::Gone(error), _) => Attempt::Gone(error),
            (_, Some(error)) => Attempt::Failed(verdict, Box::new(error)),
            (_, None) => Attempt::Failed(verdict, Box::new(ProxyError::internal(502, "the attempt failed"))),
        }
    }

    /// An attempt whose answer began.
    fn ended(
        &mut self,
        pick: Pick,
        ended: Ended,
        reply: &Reply,
        stream: bool,
        attempts: &mut Attempts,
    ) -> Attempt {
        self.record.usage(reply.usage());
        self.record.facts.stream = stream;
        if matches!(ended, Ended::Complete { .. } | Ended::Empty { .. }) && reply.is_empty() {
            self.note_empty(&pick, reply);
        }
        match ended {
            Ended::Empty { .. } => {
                // The credential has done its work.
                self.report(pick, &Outcome::Success, attempts);
                let failure = Failure::new(502, "the model answered without content");
                Attempt::Empty(Box::new(ProxyError::upstream(failure)))
            }
            Ended::Complete { .. } => {
                self.record.facts.status = 200;
                if let Some(mismatch) = reply.thinking_mismatch() {
                    let (provider, model) = (&pick.credential().provider, &pick.model().upstream);
                    self.state.metrics.thinking_mismatch(provider, model, mismatch.name());
                }
                self.report(pick, &Outcome::Success, attempts);
                Attempt::Answered
            }
            Ended::Gone(error) => {
                self.report(pick, &Outcome::ClientGone, attempts);
                Attempt::Gone(error)
            }
            Ended::Broken(failure) => {
                self.record.facts.status = 200;
                self.record.facts.error.clone_from(&failure.message);
                self.report(pick, &broken(&failure), attempts);
                Attempt::Answered
            }
            Ended::Severed(failure) => {
                self.record.facts.status = failure.status;
                self.record.facts.error.clone_from(&failure.message);
                self.report(pick, &broken(&failure), attempts);
                Attempt::Gone(Error::new_up(ErrorType::ReadError))
            }
            // Its credential is well, and asking another would not give another answer.
            Ended::Missed { failure, .. } if reply.drew_nothing() => {
                let verdict = self.report(pick, &Outcome::Success, attempts);
                Attempt::Failed(verdict, Box::new(ProxyError::upstream(failure)))
            }
            Ended::Missed { failure, partial } => {
                let verdict = self.report(pick, &broken(&failure), attempts);
                Attempt::Failed(verdict, Box::new(ProxyError { partial, ..ProxyError::upstream(failure) }))
            }
        }
    }

    /// An answer had no content: all of it was thinking, or there was nothing.
    fn note_empty(&self, pick: &Pick, reply: &Reply) {
        let (provider, model) = (&pick.credential().provider, &pick.model().upstream);
        self.state.metrics.empty(provider, model);
        tracing::warn!(
            request_id = %self.record.facts.request_id, provider = %provider, model = %model,
            finish_reason = reply.finish().map_or("none", Finish::name),
            "empty content: the model answered without text, calls or pictures"
        );
    }

    fn report(&mut self, pick: Pick, outcome: &Outcome<'_>, attempts: &mut Attempts) -> Verdict {
        let provider = Arc::clone(&pick.credential().provider);
        let model = Arc::clone(&pick.model().upstream);
        let verdict = self.state.pool.report(pick, outcome, attempts, self.state.now());
        let class = verdict.class.name();
        self.state.metrics.attempt(&provider, &model, class);
        if verdict.cooled.is_some() {
            self.state.metrics.cooldown(&provider, &model, class);
        }
        if !matches!(outcome, Outcome::Success | Outcome::ClientGone) {
            self.record.attempt_failed(&model, outcome, &verdict);
        }
        verdict
    }
}

fn stuck(error: ProxyError) -> Turn {
    Turn::Stuck { error: Box::new(error), soon: false }
}

/// Moves the answer, whatever its kind. The connection goes back to the pool when it can be used again.
async fn move_answer(pump: &mut Pump<'_, '_>, opened: Opened, state: &State, lane: &Lane) -> Ended {
    let Opened { mut upstream, events } = opened;
    let ended = match answer(pump, &mut upstream, events).await {
        Ok(ended) => ended,
        Err(Collected::Failed(failure)) => Ended::Missed { failure, partial: None },
        Err(Collected::Gone(error)) => Ended::Gone(error),
    };
    match &ended {
        Ended::Complete { reusable: true } | Ended::Empty { reusable: true } => {
            state.connector.release_http_session(upstream, lane, lane.idle()).await;
        }
        // Closes an HTTP/1.1 connection, resets an HTTP/2 stream: the upstream stops working for nobody.
        _ => upstream.shutdown().await,
    }
    ended
}

async fn answer(
    pump: &mut Pump<'_, '_>,
    upstream: &mut Upstream,
    events: Option<bool>,
) -> std::result::Result<Ended, Collected> {
    let first = match events {
        _ if pump.shape.passed.is_some() => return Ok(pump.events(upstream, None).await),
        Some(true) => return Ok(pump.events(upstream, None).await),
        Some(false) => None,
        // The content type says neither: the first bytes do.
        None => {
            let first = first_chunk(upstream, pump.client, pump.pace.first).await?;
            if !first.as_ref().is_some_and(looks_like_json) {
                return Ok(pump.events(upstream, first).await);
            }
            first
        }
    };
    let body = collect(upstream, pump.client, first, ANSWER, pump.pace.first).await?;
    Ok(pump.whole(&body).await)
}

fn looks_like_json(body: &Bytes) -> bool {
    matches!(body.iter().find(|b| !b.is_ascii_whitespace()), Some(b'{' | b'['))
}

/// How long an answer may be silent.
pub(super) fn pace(snapshot: &Snapshot, own: OwnTimeouts) -> Pace {
    let (timeouts, streaming) = (&snapshot.config.server.timeouts, &snapshot.config.streaming);
    Pace {
        first: seconds(own.first_byte_seconds.unwrap_or(timeouts.first_byte_seconds)),
        idle: seconds(own.idle_seconds.unwrap_or(timeouts.idle_seconds)),
        keep_alive: Duration::from_secs(u64::from(streaming.events.keepalive_seconds)),
        hold: Duration::from_millis(u64::from(streaming.events.bootstrap_hold_ms)),
    }
}

fn broken(failure: &Failure) -> Outcome<'_> {
    if *failure == Failure::cut() {
        return Outcome::Cut;
    }
    match failure.status {
        504 => Outcome::Timeout(Phase::Idle),
        status => Outcome::Status { status, body: failure.message.as_bytes(), hint: None },
    }
}

fn no_lane(error: &NoLane, credential: &pool::CredentialSpec) -> Missed {
    let message = match error {
        NoLane::Proxy { .. } => error.to_string(),
        NoLane::BaseUrl(problem) => problem.clone(),
    };
    tracing::error!(account = %credential.label, provider = %credential.provider, "{message}; nothing was sent");
    Missed::Connect(message)
}

/// What a model cannot do on this route says nothing about conversations with it, so that nobody may rest for
/// it: the status that a refusal counts as. A route that is missing is tried elsewhere.
fn without_rest(status: u16) -> Option<u16> {
    match status {
        400 | 422 => Some(400),
        403 | 404 | 405 | 501 => Some(404),
        _ => None,
    }
}

/// The error of an attempt says more than that nobody is left; a rest that ends says more than both.
fn better(last: Option<ProxyError>, nobody: ProxyError) -> ProxyError {
    match last {
        Some(mut last) if nobody.failure.status != 429 || last.failure.status == 429 => {
            if last.failure.retry_after.is_none() {
                last.failure.retry_after = nobody.failure.retry_after;
            }
            last
        }
        Some(last) if nobody.failure.status == 429 => last,
        _ => nobody,
    }
}

/// A number that differs from attempt to attempt.
fn pick_seed(seed: &str, attempt: u32) -> u64 {
    let tail = seed.get(16..).and_then(|tail| u64::from_str_radix(tail, 16).ok()).unwrap_or(0);
    tail.wrapping_add(u64::from(attempt).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Answers with an error.
pub(super) async fn answer_error(
    client: &mut Client<'_>,
    protocol: wire::Protocol,
    error: &ProxyError,
    record: &mut Record,
) -> Result<()> {
    record.facts.status = error.failure.status;
    record.facts.error.clone_from(&error.failure.message);
    if error.close {
        client.close();
    }
    if let Some(partial) = &error.partial {
        record.facts.status = 200;
        let http11 = client.is_http11();
        client.start(respond::stream_header(&record.facts.request_id, partial.array, http11)?).await?;
        return client.finish(partial.bytes.clone()).await;
    }
    let mut header = respond::json_header(error.failure.status, &record.facts.request_id)?;
    if let Some(seconds) = error.failure.retry_after {
        header.insert_header(http::header::RETRY_AFTER, seconds)?;
    }
    client.respond(header, error.body(protocol)).await
}
