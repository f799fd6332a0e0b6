//! The attempts of a request: stages 3 to 6, again and again until an answer has begun or nobody is left.
//!
//! Enters: a routed request. Leaves: an answer at the client, or the best error of all attempts. Retried
//! are failures of a credential or an upstream, and only while the client has got nothing; what the request
//! itself is to blame for is told at once. May go wrong: the client leaves, which ends everything.

use super::attempt::Attempt;
use super::client::Client;
use super::count;
use super::error::ProxyError;
use super::fallback::Course;
use super::parse::Parsed;
use super::record::Record;
use super::select::{Preference, Selected, again, select};
use super::translate::{Prepared, translate};
use crate::state::{Snapshot, State};
use http::HeaderMap;
use pingora::{BError, Result};
use pool::{Next, Pick, Route};
use std::time::{Duration, Instant};

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
}

fn stuck(error: ProxyError) -> Turn {
    Turn::Stuck { error: Box::new(error), soon: false }
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
