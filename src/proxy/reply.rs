//! Stage 6: the upstream's answer, on its way to the client while it comes.
//!
//! Enters: an upstream session whose header was good, and the translation of its answer. Leaves: a complete
//! answer at the client. Until the first good event nothing is sent, so that every failure can still be
//! tried elsewhere ([`Ended::Missed`]); after it a failure becomes the error event of the client's format.
//! May go wrong: the upstream fails or falls silent; the client leaves, which drops the upstream at once.
//!
//! Events are collected while more of them are there already and sent when the upstream would block: one
//! write for a burst, no delay for a single event.

use super::capture::Tee;
use super::client::Client;
use super::error::Partial;
use super::respond;
use crate::upstream::echo;
use pingora::http::ResponseHeader;
use pingora::protocols::http::client::HttpSession as Upstream;
use pingora::{BError, Error, ErrorType, Result};
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;
use wire::error::Failure;
use wire::translate::{Flow, Reply};

/// Most bytes that are collected before they are sent.
const COLLECT: usize = 16 << 10;
/// Longest wait for the bytes behind the last event, which make the connection fit for the next request.
const DRAIN: Duration = Duration::from_millis(500);

/// How long an answer may be silent, and what is done about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// From the request to the first good event.
    pub first: Duration,
    /// Between two reads afterwards.
    pub idle: Duration,
    /// Silence after which a client gets a comment; zero: never.
    pub keep_alive: Duration,
    /// How long events that only announce an answer are held back, so that an upstream that fails right
    /// after them can still be replaced.
    pub hold: Duration,
}

/// How an answer ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It is complete at the client.
    Complete {
        /// The upstream's connection can carry another request.
        reusable: bool,
    },
    /// It is complete, has no content and was refused for that; the client got nothing.
    Empty {
        /// The upstream's connection can carry another request.
        reusable: bool,
    },
    /// The upstream broke after the client got a part; the client was told.
    Broken(Failure),
    /// The upstream broke after the client got a part, in an answer that has no words for it: the client's
    /// connection has to break as well.
    Severed(Failure),
    /// The upstream broke before the client got anything.
    Missed {
        /// How.
        failure: Failure,
        /// What could have been told.
        partial: Option<Box<Partial>>,
    },
    /// The client left.
    Gone(BError),
}

impl Ended {
    /// Without the secrets that an upstream may have repeated in what went wrong.
    pub(super) fn without<'s>(mut self, secrets: impl Iterator<Item = &'s str> + Clone) -> Self {
        if let Self::Broken(failure) | Self::Severed(failure) | Self::Missed { failure, .. } = &mut self {
            let message = echo::hide(std::mem::take(&mut failure.message).into(), secrets.clone());
            failure.message = String::from_utf8_lossy(&message).into_owned();
        }
        if let Self::Missed { partial: Some(partial), .. } = &mut self {
            partial.bytes = echo::hide(std::mem::take(&mut partial.bytes).into(), secrets).into();
        }
        self
    }
}

/// What the client's side of an answer looks like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape<'s> {
    /// Events, or one whole body.
    pub stream: bool,
    /// Events are elements of a JSON array.
    pub array: bool,
    /// Id of the request.
    pub request_id: &'s str,
    /// The answer is passed as it comes; the upstream's header goes before it.
    pub passed: Option<&'s ResponseHeader>,
}

/// Moves one answer.
pub(super) struct Pump<'p, 'c> {
    /// Who gets it.
    pub client: &'p mut Client<'c>,
    /// Its translation.
    pub reply: &'p mut Reply,
    /// Limits.
    pub pace: Pace,
    /// What it looks like.
    pub shape: Shape<'p>,
    /// Called once, when the first byte goes out: nothing can be tried again.
    pub on_commit: &'p mut (dyn FnMut() + Send),
    /// Extra headers of the answer.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// An answer without content is not sent: something better can be tried.
    pub refuse_empty: bool,
    /// What the answer goes to besides the client.
    pub tee: Option<Tee>,
    committed: bool,
    /// Content has come: what waits may go out.
    good: bool,
    started: Instant,
    last_read: Instant,
    last_write: Instant,
    /// Since when an announcement waits for content.
    held_since: Option<Instant>,
}

impl std::fmt::Debug for Pump<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pump").field("committed", &self.committed).finish_non_exhaustive()
    }
}

/// What a wait for the upstream brought.
enum Step {
    Chunk(bytes::Bytes),
    End,
    Failed(Failure),
    Gone(BError),
}

impl<'p, 'c> Pump<'p, 'c> {
    /// Ready to move.
    pub(super) fn new(
        client: &'p mut Client<'c>,
        reply: &'p mut Reply,
        pace: Pace,
        shape: Shape<'p>,
        on_commit: &'p mut (dyn FnMut() + Send),
    ) -> Self {
        let now = Instant::now();
        Self {
            client,
            reply,
            pace,
            shape,
            on_commit,
            headers: Vec::new(),
            refuse_empty: false,
            tee: None,
            committed: false,
            good: false,
            started: now,
            last_read: now,
            last_write: now,
            held_since: None,
        }
    }

    /// Moves a stream of events until it ends. `first` is a chunk that was read already.
    pub(super) async fn events(&mut self, upstream: &mut Upstream, mut first: Option<bytes::Bytes>) -> Ended {
        upstream.set_read_timeout(None);
        loop {
            let step = match first.take() {
                Some(chunk) => Step::Chunk(chunk),
                None => self.next(upstream).await,
            };
            let (flow, over) = match step {
                Step::Chunk(chunk) => (self.reply.feed(&chunk), false),
                Step::End => (self.reply.eof(), true),
                Step::Failed(failure) => (Flow::Failed(failure), true),
                Step::Gone(error) => return Ended::Gone(error),
            };
            match flow {
                Flow::Waiting => {
                    if self.held_since.is_none() && self.reply.pending() > 0 {
                        self.held_since = Some(Instant::now());
                    }
                }
                Flow::Good => self.good = true,
                Flow::Done if self.is_refused() => {
                    return Ended::Empty { reusable: over || drain(upstream).await };
                }
                Flow::Done => {
                    return match self.complete().await {
                        Ok(()) => Ended::Complete { reusable: over || drain(upstream).await },
                        Err(error) => Ended::Gone(error),
                    };
                }
                Flow::Failed(failure) => return self.fail(failure).await,
            }
        }
    }

    /// Sends an answer that came whole.
    pub(super) async fn whole(&mut self, body: &[u8]) -> Ended {
        match self.reply.whole(body) {
            Flow::Failed(failure) => Ended::Missed { failure, partial: None },
            _ if self.is_refused() => Ended::Empty { reusable: true },
            _ => match self.complete().await {
                Ok(()) => Ended::Complete { reusable: true },
                Err(error) => Ended::Gone(error),
            },
        }
    }

    fn is_refused(&self) -> bool {
        self.refuse_empty && !self.committed && self.reply.is_empty()
    }

    /// The next chunk. What waits to be sent goes out when there is none yet.
    async fn next(&mut self, upstream: &mut Upstream) -> Step {
        // One future per chunk: it is kept over writes and ticks.
        let read = upstream.read_response_body();
        tokio::pin!(read);
        let ready = futures::poll!(read.as_mut());
        let collected = self.reply.pending();
        if let Poll::Ready(result) = ready {
            if collected >= COLLECT
                && let Err(error) = self.flush().await
            {
                return Step::Gone(error);
            }
            return self.step(result);
        }
        if let Err(error) = self.flush().await {
            return Step::Gone(error);
        }
        let tick = tokio::time::sleep_until(self.deadline());
        tokio::pin!(tick);
        loop {
            tokio::select! {
                biased;
                result = &mut read => return self.step(result),
                error = self.client.gone() => return Step::Gone(error),
                () = &mut tick => match self.tick().await {
                    Ok(None) => tick.as_mut().reset(self.deadline()),
                    Ok(Some(failure)) => return Step::Failed(failure),
                    Err(error) => return Step::Gone(error),
                },
            }
        }
    }

    fn step(&mut self, result: Result<Option<bytes::Bytes>>) -> Step {
        self.last_read = Instant::now();
        match result {
            Ok(Some(chunk)) => Step::Chunk(chunk),
            Ok(None) => Step::End,
            Err(_) => Step::Failed(Failure::cut()),
        }
    }

    /// When something has to be done about silence.
    fn deadline(&self) -> Instant {
        let limit =
            if self.committed { self.last_read + self.pace.idle } else { self.started + self.pace.first };
        let other = match self.held_since {
            Some(since) if !self.committed && !self.good && self.shape.stream => since + self.pace.hold,
            _ if self.committed && !self.pace.keep_alive.is_zero() => self.last_write + self.pace.keep_alive,
            _ => limit,
        };
        limit.min(other)
    }

    /// A deadline has come.
    async fn tick(&mut self) -> Result<Option<Failure>> {
        let now = Instant::now();
        let (since, limit, what) = if self.committed {
            (self.last_read, self.pace.idle, "was silent")
        } else {
            (self.started, self.pace.first, "did not answer")
        };
        if now >= since + limit {
            let message = format!("the upstream {what} for {} seconds", limit.as_secs());
            return Ok(Some(Failure::new(504, message)));
        }
        if self.committed {
            if !self.pace.keep_alive.is_zero() && now >= self.last_write + self.pace.keep_alive {
                self.client.keep_alive(!self.shape.array).await?;
                self.last_write = now;
            }
        } else if self.held_since.is_some_and(|since| now >= since + self.pace.hold) {
            self.good = true;
            self.flush().await?;
        }
        Ok(None)
    }

    /// Sends what waits, if it belongs to the client already.
    async fn flush(&mut self) -> Result<()> {
        if !self.shape.stream || !self.good || self.reply.pending() == 0 {
            return Ok(());
        }
        self.commit().await?;
        let bytes = self.take();
        self.client.send(bytes).await?;
        self.last_write = Instant::now();
        Ok(())
    }

    /// What goes to the client now.
    fn take(&mut self) -> Vec<u8> {
        let bytes = self.reply.take();
        if let Some(tee) = &self.tee {
            tee.lock().push(&bytes);
        }
        bytes
    }

    async fn commit(&mut self) -> Result<()> {
        if self.committed {
            return Ok(());
        }
        self.committed = true;
        (self.on_commit)();
        if self.client.is_started() {
            // It was, to keep the client's connection alive while the request waited.
            return Ok(());
        }
        let http11 = self.client.is_http11();
        let mut header = match self.shape.passed {
            Some(upstream) => respond::passed_header(self.shape.request_id, upstream, http11)?,
            None => respond::stream_header(self.shape.request_id, self.shape.array, http11)?,
        };
        for (name, value) in self.headers.drain(..) {
            header.insert_header(name, value)?;
        }
        self.client.start(header).await
    }

    /// The answer is complete: sends its rest.
    async fn complete(&mut self) -> Result<()> {
        if self.shape.stream {
            self.commit().await?;
            let bytes = self.take();
            return self.client.finish(bytes).await;
        }
        self.committed = true;
        (self.on_commit)();
        let mut header = respond::json_header(200, self.shape.request_id)?;
        for (name, value) in self.headers.drain(..) {
            header.insert_header(name, value)?;
        }
        let body = self.take();
        self.client.respond(header, body.into()).await
    }

    /// The upstream broke.
    async fn fail(&mut self, failure: Failure) -> Ended {
        if !self.committed {
            let partial = (self.shape.stream && self.good).then(|| {
                self.reply.fail(&failure);
                Box::new(Partial { array: self.shape.array, bytes: self.reply.take() })
            });
            return Ended::Missed { failure, partial };
        }
        if self.shape.passed.is_some() {
            return Ended::Severed(failure);
        }
        self.reply.fail(&failure);
        let bytes = self.take();
        match self.client.finish(bytes).await {
            Ok(()) => Ended::Broken(failure),
            Err(error) => Ended::Gone(error),
        }
    }
}

/// Reads what follows the last event. Returns whether the connection is at its end of the answer.
async fn drain(upstream: &mut Upstream) -> bool {
    let rest = async {
        loop {
            match upstream.read_response_body().await {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    };
    tokio::time::timeout(DRAIN, rest).await.unwrap_or(false)
}

/// Reads one chunk, which may be the first of a stream or all of a body.
pub(super) async fn first_chunk(
    upstream: &mut Upstream,
    client: &mut Client<'_>,
    limit: Duration,
) -> std::result::Result<Option<bytes::Bytes>, Collected> {
    tokio::select! {
        biased;
        result = tokio::time::timeout(limit, upstream.read_response_body()) => match result {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(_)) => Err(Collected::Failed(Failure::cut())),
            Err(_) => Err(Collected::Failed(Failure::new(504, "the upstream did not answer in time"))),
        },
        error = client.gone() => Err(Collected::Gone(error)),
    }
}

/// Reads a whole body, up to `max` bytes, within `limit`. `first` is a chunk that was read already.
pub(super) async fn collect(
    upstream: &mut Upstream,
    client: &mut Client<'_>,
    mut first: Option<bytes::Bytes>,
    max: usize,
    limit: Duration,
) -> std::result::Result<bytes::Bytes, Collected> {
    let mut body = bytes::BytesMut::new();
    let read = async {
        while let Some(chunk) = upstream.read_response_body().await? {
            if body.len() + chunk.len() > max {
                return Error::e_explain(ErrorType::ReadError, "the answer is too large");
            }
            match (&first, body.is_empty()) {
                (None, true) => first = Some(chunk),
                (Some(held), true) => {
                    body.extend_from_slice(held);
                    body.extend_from_slice(&chunk);
                }
                _ => body.extend_from_slice(&chunk),
            }
        }
        Ok(())
    };
    tokio::select! {
        biased;
        result = tokio::time::timeout(limit, read) => match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Collected::Failed(Failure::new(502, format!("the upstream's answer broke off: {}", error.etype().as_str())))),
            Err(_) => return Err(Collected::Failed(Failure::new(504, "the upstream did not finish its answer in time"))),
        },
        error = client.gone() => return Err(Collected::Gone(error)),
    }
    // The usual case: one chunk, no copy.
    Ok(match first {
        Some(chunk) if body.is_empty() => chunk,
        _ => body.freeze(),
    })
}

/// Why a whole body did not come.
#[derive(Debug)]
pub(super) enum Collected {
    /// The upstream broke.
    Failed(Failure),
    /// The client left.
    Gone(BError),
}
