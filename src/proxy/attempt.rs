//! One attempt: stages 5 and 6 with one credential.
//!
//! Enters: a [`Pick`] and the body for it. Leaves: what the attempt came to ([`Attempt`]); the pick has gone
//! back to the pool with its outcome. May go wrong: whatever an upstream does; the client leaves.

use super::error::ProxyError;
use super::fallback::Course;
use super::forward::{Manner, Missed, Opened, forward};
use super::login;
use super::reply::{Collected, Ended, Pace, Pump, Shape, collect, first_chunk};
use super::retry::{Exchange, Question};
use super::translate::Prepared;
use crate::observe::providers::Remark;
use crate::state::lanes::NoLane;
use crate::state::renew::NotRenewed;
use crate::state::{Snapshot, State, seconds};
use crate::upstream::peer::Lane;
use crate::upstream::request;
use bytes::Bytes;
use config::OwnTimeouts;
use pingora::protocols::http::client::HttpSession as Upstream;
use pingora::{BError, Error, ErrorType};
use pool::{Attempts, Next, Outcome, Phase, Pick, Token, Verdict};
use secrecy::ExposeSecret;
use std::sync::Arc;
use std::time::Duration;
use wire::error::Failure;
use wire::ir::Finish;
use wire::translate::Reply;

/// Largest whole answer that is read: a page of base64 pictures.
const ANSWER: usize = 256 << 20;

/// What an attempt came to.
pub(super) enum Attempt {
    /// The client has its answer, or was told that it broke.
    Answered,
    /// The client has nothing; the error is for the case that nobody else serves.
    Failed(Verdict, Box<ProxyError>),
    /// The client has nothing, for the model had nothing to say.
    Empty(Box<ProxyError>),
    /// The client has left.
    Gone(BError),
}

impl Exchange<'_, '_> {
    /// One attempt with `pick`.
    pub(super) async fn attempt(
        &mut self,
        mut pick: Pick,
        question: &mut Option<Question>,
        prepared: &mut Option<Prepared>,
        course: &mut Course,
    ) -> Attempt {
        self.record.trace.attempt(&pick.credential().provider, &pick.model().upstream);
        let token = match login::token(self.state, &pick, course.refused.take()).await {
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
            // Gone before the answer moves: a stream holds memory for that only.
            match Box::pin(self.open(&pick, token.as_deref(), asked, made)).await {
                Ok((opened, lane)) => Ok((opened, lane, plan)),
                Err(missed) => Err(missed),
            }
        };
        let (opened, lane, plan) = match opened {
            Ok(opened) => opened,
            Err(missed) => {
                self.record.capture.missed(self.state, pick.credential(), &missed);
                let media =
                    prepared.as_ref().is_some_and(|made| made.plan.operation.is_beside_conversation());
                course.refused = Some((pick.credential().id.clone(), token));
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
        let tee = self.record.capture.tee();
        let (state, record) = (self.state, &mut *self.record);
        let mut on_commit = || {
            // From here on nothing can be tried again: the bodies of a long stream must not stay in memory.
            question.take();
            prepared.take();
            record.first_byte();
            state.pool.confirm(&mut pick, state.now());
        };
        let mut pace = pace(&self.snapshot, timeouts);
        if passed.is_some() {
            // Nothing may stand between the bytes of a file.
            pace.keep_alive = Duration::ZERO;
        }
        let mut pump = Pump::new(self.client, &mut reply, pace, shape, &mut on_commit);
        pump.refuse_empty = refuse_empty;
        pump.tee = tee;
        pump.headers.extend(course.header());
        let ended = move_answer(&mut pump, opened, state, &lane).await;
        let ended = ended.without(secrets(&pick, token.as_deref()));
        self.record.capture.ended(&lane, pick.credential(), &ended);
        self.ended(pick, ended, &reply, plan.stream, &mut course.attempts)
    }

    /// Finds the way and sends.
    async fn open(
        &mut self,
        pick: &Pick,
        token: Option<&Token>,
        asked: &Question,
        made: &Prepared,
    ) -> Result<(Opened, Lane), Missed> {
        let credential = pick.credential();
        let told = token.and_then(|token| token.base_url.as_deref());
        let lane = self.state.lanes.get(credential, told, &self.snapshot.config);
        let lane = lane.map_err(|error| no_lane(&error, credential))?;
        self.record.trace.reached(lane.host(), lane.port());
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
            scope: pick.scope(),
            extra: &extra,
            client: &asked.headers,
            query: asked.query.as_deref(),
            same_format: made.plan.same_format,
            is_form: made.plan.is_raw() && asked.parsed.head.boundary.is_some(),
            body: &made.body,
        };
        let header = request::header(&call).map_err(|error| Missed::Connect(error.to_string()))?;
        let first_byte = pace(&self.snapshot, credential.timeouts).first;
        let manner = Manner::of(made.plan.profile, &self.snapshot.config);
        let opened = forward(self.state, self.client, &lane, &header, &made.body, first_byte, manner).await;
        let head = opened.as_ref().ok().and_then(|opened| opened.upstream.response_header());
        self.record.capture.sent(self.state, (&lane, &header, &made.body), head);
        Ok((opened.map_err(|missed| missed.without(secrets(pick, token), made.plan.profile))?, lane))
    }

    /// An attempt for which there is no token.
    fn no_token(&mut self, pick: Pick, error: &NotRenewed, attempts: &mut Attempts) -> Attempt {
        self.record.capture.unsent(pick.credential(), &error.to_string());
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
            Missed::Status { status, body, hint, error, .. } => {
                (Outcome::Status { status: *status, body, hint: *hint }, Some(error.as_ref().clone()))
            }
        };
        let verdict = self.report(pick, &outcome, attempts);
        match (missed, error) {
            (Missed::Gone(error), _) => Attempt::Gone(error),
            (_, Some(error)) => Attempt::Failed(verdict, Box::new(error.of_class(verdict.class))),
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
        self.record.trace.finished(reply.finish());
        self.state.pool.charge(&pick, reply.usage().total(), self.state.now());
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
                    self.remark(&pick, Remark::ThinkingMismatch);
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
        self.remark(pick, Remark::Empty);
        tracing::warn!(
            request_id = %self.record.facts.request_id, provider = %provider, model = %model,
            finish_reason = reply.finish().map_or("none", Finish::name),
            "empty content: the model answered without text, calls or pictures"
        );
    }

    /// What else is counted about an answer.
    fn remark(&self, pick: &Pick, remark: Remark) {
        let (provider, model) = (&pick.credential().provider, &pick.model().upstream);
        self.state.providers.remark(provider, model, remark, self.state.now().wall_s);
    }

    fn report(&mut self, pick: Pick, outcome: &Outcome<'_>, attempts: &mut Attempts) -> Verdict {
        let provider = Arc::clone(&pick.credential().provider);
        let model = Arc::clone(&pick.model().upstream);
        let now = self.state.now();
        let verdict = self.state.pool.report(pick, outcome, attempts, now);
        let class = verdict.class.name();
        let failover = matches!(verdict.next, Next::OtherCredential | Next::OtherModelSameCredential);
        let call = self.record.call((&provider, &model), status(outcome), failover);
        self.state.providers.call(&call, now.wall_s);
        self.record.attempted(status(outcome), class);
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

/// What an upstream was let in with, and may repeat when it refuses.
fn secrets<'p>(pick: &'p Pick, token: Option<&'p Token>) -> impl Iterator<Item = &'p str> + Clone {
    let credential = pick.credential();
    let secret = token.map_or(&credential.secret, |token| &token.secret);
    let own = credential.headers.iter().map(|(_, value)| value);
    own.chain([secret]).map(ExposeSecret::expose_secret)
}

/// The status that an outcome counts under.
fn status(outcome: &Outcome<'_>) -> u16 {
    match outcome {
        Outcome::Success => 200,
        Outcome::Status { status, .. } => *status,
        Outcome::Timeout(_) => 504,
        Outcome::ClientGone => 499,
        Outcome::RefreshFailed { .. } => 401,
        Outcome::Connect | Outcome::EmptyStream | Outcome::Cut | Outcome::Garbage | Outcome::ProxyInvalid => {
            502
        }
    }
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
) -> Result<Ended, Collected> {
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
