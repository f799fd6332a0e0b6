//! The attempts of a request: stages 3 to 6, again and again until an answer has begun or nobody is left.
//!
//! Enters: a routed request. Leaves: an answer at the client, or the best error of all attempts. Retried
//! are failures of a credential or an upstream, and only while the client has got nothing; what the request
//! itself is to blame for is told at once. May go wrong: the client leaves, which ends everything.

use super::allowance;
use super::attempt::Attempt;
use super::client::Client;
use super::count;
use super::error::{ProxyError, Source};
use super::fallback::Course;
use super::parse::Parsed;
use super::record::Record;
use super::route::route;
use super::select::{Preference, Selected, again, select};
use super::translate::{Prepared, translate};
use super::waiting::{Voice, Wait, Waited};
use crate::state::{Snapshot, State};
use http::HeaderMap;
use pingora::{BError, Result};
use pool::{Next, Outlook, Pick, Route};
use std::sync::Arc;

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
    pub snapshot: Arc<Snapshot>,
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

/// The end of a request: the client has its answer or has left, or an error to answer with.
type Answered = std::result::Result<Result<()>, ProxyError>;

/// What a request has tried.
struct Tried {
    course: Course,
    /// The body of the last attempt.
    prepared: Option<Prepared>,
    /// Why the last attempt failed.
    last: Option<ProxyError>,
    /// What it has waited.
    waited: Waited,
}

/// What came of one turn.
enum Turn {
    /// The request is over.
    Over(Answered),
    /// The next credential.
    Again,
    /// Others go first.
    Follow,
    /// Nobody serves the model any more.
    Stuck {
        /// Why.
        error: Box<ProxyError>,
        /// What waiting may bring; `None`: the pool has to look at all candidates to know.
        outlook: Option<Outlook>,
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
        let voice = Voice::of(&question);
        match self.attempts(route, question, voice).await {
            Err(error) if self.client.is_started() => Ok(self.break_off(error, voice).await),
            answered => answered,
        }
    }

    async fn attempts(&mut self, route: Route, question: Question, voice: Voice) -> Answered {
        let course = Course::new(route, self.record.holder.clone());
        let mut tried = Tried { course, prepared: None, last: None, waited: Waited::default() };
        let mut question = Some(question);
        loop {
            let seed = pick_seed(&self.record.seed, tried.course.total());
            match self.once(&mut tried, &mut question, seed).await {
                Turn::Over(answered) => return answered,
                Turn::Again => {}
                Turn::Follow => match self.follow(&mut tried.waited, &tried.course, voice).await {
                    Wait::Look | Wait::No => {}
                    Wait::Full => return Err(crowded(&tried.course)),
                    Wait::Gone(error) => return Ok(Err(error)),
                },
                Turn::Stuck { error, outlook } => {
                    match Box::pin(self.otherwise(&mut tried, *error, outlook, seed, voice)).await {
                        Otherwise::Go => {}
                        Otherwise::End(error) => return Err(*error),
                        Otherwise::Gone(error) => return Ok(Err(error)),
                    }
                }
            }
        }
    }

    /// Picks, translates and makes one attempt.
    async fn once(&mut self, tried: &mut Tried, question: &mut Option<Question>, seed: u64) -> Turn {
        let Some(asked) = question.as_ref() else { return Turn::Over(Ok(Ok(()))) };
        let course = &mut tried.course;
        if self.lets_others_go_first(&tried.waited, course) {
            return Turn::Follow;
        }
        let pick = match select(self.state, &course.route, &mut course.attempts, &asked.preference, seed) {
            Selected::Pick(pick) => pick,
            Selected::Nobody { error, outlook } => {
                return Turn::Stuck { error: Box::new(better(tried.last.take(), *error)), outlook };
            }
        };
        tried.waited.served();
        self.note_pick(&pick, course.total());
        let operation = asked.parsed.call.operation;
        if count::is_local(operation, asked.parsed.call.client, &pick) {
            return Turn::Over(self.estimate(&asked.parsed).await);
        }
        let from = (self.state, &*self.snapshot);
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

    /// Nobody serves the model: another model, else another round, else a place in the waiting room, else the
    /// end.
    async fn otherwise(
        &mut self,
        tried: &mut Tried,
        error: ProxyError,
        outlook: Option<Outlook>,
        seed: u64,
        voice: Voice,
    ) -> Otherwise {
        let Tried { course, waited, last, .. } = tried;
        let was_fallback = course.route.is_fallback();
        let Err(error) = course.turn(error, self.state, self.record) else {
            *last = None;
            return Otherwise::Go;
        };
        // What is known is about the model that was tried last.
        let outlook = outlook.filter(|_| was_fallback == course.route.is_fallback());
        let wait = match again(self.state, &course.route, &mut course.attempts, seed) {
            Some(wait) => self.pause(waited, wait, voice).await,
            None => self.stand_in_line(waited, course, outlook, voice).await,
        };
        match wait {
            Wait::Look if self.is_overtaken() => match self.catch_up(tried) {
                Ok(()) => Otherwise::Go,
                Err(error) => Otherwise::End(Box::new(error)),
            },
            Wait::Look => {
                // When the first rest ends is asked anew: time has passed.
                *last = Some(*error).filter(|error| error.source == Source::Upstream);
                if let Some(last) = last {
                    last.failure.retry_after = None;
                }
                Otherwise::Go
            }
            Wait::No => Otherwise::End(error),
            // What an upstream said tells more.
            Wait::Full if error.source == Source::Upstream => Otherwise::End(error),
            Wait::Full => {
                let mut crowded = crowded(course);
                crowded.failure.retry_after = error.failure.retry_after.or(crowded.failure.retry_after);
                Otherwise::End(Box::new(crowded))
            }
            Wait::Gone(gone) => Otherwise::Gone(gone),
        }
    }

    /// Whether another configuration is in force than that of this request.
    fn is_overtaken(&self) -> bool {
        !Arc::ptr_eq(&self.snapshot, &self.state.snapshot.load())
    }

    /// Goes on under the configuration in force, with all that follows from it: nothing of the request is
    /// under way after a wait, and whoever waits for an hour waits for what the operator changes meanwhile.
    fn catch_up(&mut self, tried: &mut Tried) -> std::result::Result<(), ProxyError> {
        let snapshot = self.state.snapshot.load_full();
        let holder = allowance::successor(self.record.holder.as_ref(), &snapshot)?;
        let asked = tried.course.route.asked();
        let route = route(self.state, &snapshot, asked, holder.as_ref())?;
        let route = allowance::check_model(holder.as_ref(), route, self.state)?;
        if route.model() != tried.course.route.model() {
            // Its place is in another line.
            tried.waited.served();
        }
        tried.course.reroute(route, holder.clone());
        tried.prepared = None;
        tried.last = None;
        self.record.holder = holder;
        self.snapshot = snapshot;
        Ok(())
    }

    /// Answers a count here.
    async fn estimate(&mut self, parsed: &Parsed) -> Answered {
        let (header, body) = count::estimate(parsed, &self.record.facts.request_id)?;
        self.record.facts.status = 200;
        self.record.capture.answered(&body);
        Ok(match header {
            Ok(header) => self.client.respond(header, body).await,
            Err(error) => Err(error),
        })
    }

    fn note_pick(&mut self, pick: &Pick, attempts: u32) {
        let (credential, model) = (pick.credential(), pick.model());
        let facts = &mut self.record.facts;
        facts.attempts = attempts;
        credential.provider.as_ref().clone_into(&mut facts.provider);
        credential.label.as_ref().clone_into(&mut facts.credential);
        facts.credential_id = Some(credential.id.clone());
        model.upstream.as_ref().clone_into(&mut facts.resolved);
    }
}

fn stuck(error: ProxyError) -> Turn {
    Turn::Stuck { error: Box::new(error), outlook: Some(Outlook::Bleak) }
}

/// Nobody can serve the model, and no further request may wait for it.
fn crowded(course: &Course) -> ProxyError {
    let message = format!(
        "nobody can serve model {} now, and too many requests wait already; try again in a second",
        course.route.asked()
    );
    let mut error = ProxyError::internal(429, message).code("waiting_room_full");
    error.failure.retry_after = Some(1);
    error
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
