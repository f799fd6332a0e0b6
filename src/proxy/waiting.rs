//! Waiting for somebody who serves.
//!
//! Enters: a request that nobody can serve now, and what the pool expects. Leaves: the request, when it is
//! worth another look. May go wrong: it may not wait or has waited long enough, too many wait already, the
//! client leaves.
//!
//! For some seconds the client gets nothing, so that an error keeps its status. After that a client of a
//! stream gets the head of its answer and comments, so that nothing on the way closes the connection; these are
//! no part of an answer, and all attempts are open still. If nobody serves after all, the stream ends with the
//! error event of its format.

use super::error::ProxyError;
use super::fallback::Course;
use super::respond;
use super::retry::{Exchange, Question};
use crate::state::waiting::{Leave, Place};
use pingora::{BError, Result};
use pool::Outlook;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use wire::Protocol;
use wire::error::Failure;
use wire::frames::Framing;
use wire::ir::{Context, Event};
use wire::target::Operation;
use wire::translate::stream_writer;

/// Silence before a client of a stream gets the head of its answer.
const GRACE: Duration = Duration::from_secs(5);
/// Time between two looks where only the end of another request can bring a change: its signal comes first
/// unless what it was about changed meanwhile.
const RECHECK: Duration = Duration::from_secs(1);
/// Longest time for which those who came earlier go first.
const COURTESY: Duration = Duration::from_millis(250);

/// What a request has waited.
#[derive(Debug, Default)]
pub(super) struct Waited {
    place: Option<Place>,
    /// Number of the first place: a request that waits again stands where it stood.
    number: Option<u64>,
    total: Duration,
    /// When the client hears something.
    beat: Option<Instant>,
}

impl Waited {
    /// Somebody serves.
    pub(super) fn served(&mut self) {
        self.leave(Leave::Served);
    }

    fn leave(&mut self, why: Leave) {
        if let Some(place) = self.place.take() {
            place.leave(why);
        }
    }
}

/// What comes of the wish to wait.
#[derive(Debug)]
pub(super) enum Wait {
    /// It is worth a look.
    Look,
    /// There is nothing to wait for, or no time left.
    No,
    /// Too many requests wait.
    Full,
    /// The client has left.
    Gone(BError),
}

/// How a stream is kept alive that has not begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voice {
    protocol: Protocol,
    operation: Operation,
    framing: Framing,
    /// The client takes comments.
    stream: bool,
}

impl Voice {
    /// That of a question.
    pub(super) fn of(question: &Question) -> Self {
        let call = &question.parsed.call;
        let talks = matches!(call.operation, Operation::Generate | Operation::Completion);
        Self {
            protocol: call.client,
            operation: call.operation,
            framing: call.framing,
            stream: question.parsed.head.stream && talks,
        }
    }
}

impl Exchange<'_, '_> {
    /// Whether requests that came earlier are about to look for the same model: who may wait lets them go
    /// first.
    pub(super) fn lets_others_go_first(&self, waited: &Waited, course: &Course) -> bool {
        let may_wait = !self.snapshot.waiting.busy.is_zero();
        waited.place.is_none() && may_wait && self.state.waiting.is_calling(course.route.model())
    }

    /// Takes a place behind them and waits until it is called.
    pub(super) async fn follow(&mut self, waited: &mut Waited, course: &Course, voice: Voice) -> Wait {
        if !self.enter(waited, Some(course.route.model())) {
            return Wait::Full;
        }
        self.sleep(waited, Instant::now() + COURTESY, voice).await
    }

    /// Waits for what the pool expects.
    pub(super) async fn stand_in_line(
        &mut self,
        waited: &mut Waited,
        course: &mut Course,
        outlook: Option<Outlook>,
        voice: Voice,
    ) -> Wait {
        let limits = self.snapshot.waiting;
        if limits.busy.is_zero() && limits.resting.is_zero() {
            return Wait::No;
        }
        let outlook = outlook.unwrap_or_else(|| {
            self.state.pool.outlook(&course.route, &mut course.attempts, self.state.now())
        });
        let (most, until, rests) = match outlook {
            Outlook::Bleak => (Duration::ZERO, RECHECK, false),
            Outlook::Freed => (limits.busy, RECHECK, false),
            Outlook::After { wait_ms } => (limits.resting, Duration::from_millis(wait_ms), true),
        };
        let left = most.saturating_sub(waited.total);
        // What ends later than the wait is an error at once: the client knows better what to do meanwhile.
        if left.is_zero() || (rests && until > left) {
            waited.leave(Leave::Expired);
            return Wait::No;
        }
        let Some(place) = &waited.place else {
            // Somebody may have come free before there was a place to call: the first look is at once.
            return if self.enter(waited, Some(course.route.model())) { Wait::Look } else { Wait::Full };
        };
        place.pass();
        let mut woken = self.sleep(waited, Instant::now() + until.min(left), voice).await;
        if rests && let (Wait::No, Some(place)) = (&woken, &waited.place) {
            // The rest is over for all who wait for it: in their order.
            place.call();
            woken = self.sleep(waited, Instant::now() + COURTESY, voice).await;
        }
        or_look(woken)
    }

    /// Waits before another round.
    pub(super) async fn pause(&mut self, waited: &mut Waited, wait: Duration, voice: Voice) -> Wait {
        waited.leave(Leave::Served);
        if !self.enter(waited, None) {
            return Wait::Full;
        }
        let woken = self.sleep(waited, Instant::now() + wait, voice).await;
        waited.leave(Leave::Served);
        or_look(woken)
    }

    fn enter(&self, waited: &mut Waited, model: Option<&str>) -> bool {
        if waited.place.is_none() {
            waited.place = self.state.waiting.enter(model, waited.number, self.snapshot.waiting.most);
            waited.number = waited.place.as_ref().map(Place::number).or(waited.number);
        }
        waited.place.is_some()
    }

    /// Sleeps until a call ([`Wait::Look`]) or a moment ([`Wait::No`]), and keeps the client's connection.
    async fn sleep(&mut self, waited: &mut Waited, until: Instant, voice: Voice) -> Wait {
        let every = Duration::from_secs(u64::from(self.snapshot.config.streaming.events.keepalive_seconds));
        let begun = Instant::now();
        let mut beat = *waited.beat.get_or_insert(begun + GRACE);
        let speaks = voice.stream && !every.is_zero();
        let woken = loop {
            let Some(place) = &waited.place else { break Wait::No };
            let wake = if speaks { until.min(beat) } else { until };
            tokio::select! {
                biased;
                error = self.client.gone() => break Wait::Gone(error),
                () = place.called() => break Wait::Look,
                () = tokio::time::sleep_until(wake) => {}
            }
            if Instant::now() >= until {
                break Wait::No;
            }
            if let Err(error) = self.beat(voice).await {
                break Wait::Gone(error);
            }
            beat = Instant::now() + every;
        };
        waited.beat = Some(beat);
        waited.total += begun.elapsed();
        self.record.facts.waited_ms = waited.total.as_millis() as u64;
        if matches!(woken, Wait::Gone(_)) {
            waited.leave(Leave::Gone);
        }
        woken
    }

    /// Shows the client that it is not forgotten.
    async fn beat(&mut self, voice: Voice) -> Result<()> {
        let array = voice.framing == Framing::JsonArray;
        if !self.client.is_started() {
            let http11 = self.client.is_http11();
            let header = respond::stream_header(&self.record.facts.request_id, array, http11)?;
            self.client.start(header).await?;
        }
        self.client.keep_alive(!array).await
    }

    /// Ends a stream whose head went out while the request waited.
    pub(super) async fn break_off(&mut self, error: ProxyError, voice: Voice) -> Result<()> {
        self.record.facts.status = 200;
        self.record.facts.error.clone_from(&error.failure.message);
        let bytes = match error.partial {
            Some(partial) => partial.bytes,
            None => error_event(&error.failure, voice, &self.record.seed, self.state.now().wall_s),
        };
        self.record.capture.answered(&bytes);
        self.client.finish(bytes).await
    }
}

/// The moment has come: that is worth a look.
fn or_look(woken: Wait) -> Wait {
    if matches!(woken, Wait::No) { Wait::Look } else { woken }
}

/// A stream that is an error and nothing else.
fn error_event(failure: &Failure, voice: Voice, seed: &str, created: u64) -> Vec<u8> {
    let context = Context { seed: seed.to_owned(), created, ..Context::default() };
    let mut writer = stream_writer(voice.protocol, voice.operation, Arc::new(context), voice.framing);
    writer.event(Event::Failure(failure.clone()));
    writer.frames().take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_event_in_every_format() {
        let failure = Failure { retry_after: Some(3), ..Failure::new(429, "all rest") };
        for (protocol, framing, begins) in [
            (Protocol::OpenaiChat, Framing::Sse, "data: {\"error\":{"),
            (Protocol::OpenaiResponses, Framing::Sse, "event: error\ndata: {"),
            (Protocol::Claude, Framing::Sse, "event: error\ndata: {\"type\":\"error\""),
            (Protocol::Gemini, Framing::Sse, "data: {\"error\":{\"code\":429"),
            (Protocol::Gemini, Framing::JsonArray, "[{\"error\":{\"code\":429"),
        ] {
            let voice = Voice { protocol, operation: Operation::Generate, framing, stream: true };
            let text = String::from_utf8(error_event(&failure, voice, "0", 1)).unwrap();
            assert!(
                text.starts_with(begins) && text.contains("all rest"),
                "{protocol:?} {framing:?}: {text}"
            );
            assert_eq!(text.ends_with(']'), framing == Framing::JsonArray, "{text}");
        }
    }
}
