//! An answer on its way back: the upstream's bytes in, the client's bytes out, one step at a time.
//!
//! Enters: chunks of an event stream split anywhere, or one whole JSON body. Leaves: bytes in
//! [`Reply::take`] and, after each step, a [`Flow`] that says whether something worth sending is there.
//! May go wrong: [`Flow::Failed`], before anything good came (then the request may be tried elsewhere) or
//! after (then [`Reply::fail`] tells the client).

use super::Plan;
use super::formats::{read_count, reader, stream_writer, write_answer, write_count};
use super::raw::Raw;
use super::relay::{Relay, rename};
use super::source::Source;
use crate::Protocol;
use crate::error::Failure;
use crate::gemini::envelope::Rewrap;
use crate::ir::restore::Restore;
use crate::ir::{BlockKind, Context, Delta, Event, Finish, Fold, ReadAnswer, Sink, Usage, WriteStream};
use crate::json::{self, Json};
use crate::openai_chat;
use crate::openai_images::Images;
use crate::openai_responses::Collect;
use crate::sse;
use crate::target::Operation;
use crate::thinking::Mismatch;
use smallvec::SmallVec;
use std::sync::Arc;

/// Where an answer stands after a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Flow {
    /// Nothing yet that the client would miss: another upstream could still be tried.
    Waiting,
    /// Content has come; what [`Reply::take`] gives belongs to the client.
    Good,
    /// The answer is complete and all of it is in [`Reply::take`].
    Done,
    /// The answer broke.
    Failed(Failure),
}

/// Translates one answer.
pub struct Reply {
    plan: Plan,
    rewrap: Rewrap,
    source: Source,
    reader: Box<dyn ReadAnswer>,
    restore: Restore,
    output: Output,
    watch: Watch,
    /// Bytes of a whole answer.
    body: Vec<u8>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("plan", &self.plan).field("watch", &self.watch).finish_non_exhaustive()
    }
}

/// Where an answer goes.
enum Output {
    /// Events of the same format, as they came.
    Relay(Box<Relay>),
    /// Events of another format.
    Stream(Box<dyn WriteStream>),
    /// A whole answer of another format.
    Whole(Box<Fold>),
    /// A whole answer of the same format, out of events.
    Collect(Box<Collect>),
    /// A whole answer of the same format, as it came.
    Verbatim,
    /// Pictures for the Images API.
    Images(Box<Images>),
    /// No conversation, as it comes.
    Raw(Box<Raw>),
}

/// What is noted of every answer, whatever its way.
#[derive(Debug, Default)]
struct Watch {
    usage: Usage,
    good: bool,
    done: bool,
    failure: Option<Failure>,
    finish: Option<Finish>,
    /// Blocks of thinking.
    thinking: SmallVec<[u32; 4]>,
    /// Text, a call or a picture has come.
    content: bool,
}

impl Watch {
    fn note(&mut self, event: &Event<'_>) {
        match event {
            Event::Open { block, kind, .. } => {
                self.good = true;
                match kind {
                    BlockKind::Reasoning { .. } => self.thinking.push(*block),
                    BlockKind::Text | BlockKind::Refusal => {}
                    BlockKind::Tool { .. } | BlockKind::Image { .. } | BlockKind::Server { .. } => {
                        self.content = true;
                    }
                }
            }
            Event::Delta { block, delta: Delta::Text(text) } if !self.content => {
                self.content = !text.is_empty() && !self.thinking.contains(block);
            }
            Event::Usage(usage) => self.usage.merge(usage),
            Event::Finish { reason, .. } => {
                self.good = true;
                self.finish.get_or_insert(*reason);
            }
            Event::Failure(failure) => self.failure = Some(failure.clone()),
            Event::End => self.done = true,
            Event::Start { .. } | Event::Delta { .. } | Event::Close { .. } => {}
        }
    }

    fn flow(&self) -> Flow {
        match &self.failure {
            Some(failure) => Flow::Failed(failure.clone()),
            None if self.done => Flow::Done,
            None if self.good => Flow::Good,
            None => Flow::Waiting,
        }
    }
}

impl Reply {
    /// Starts on the answer to a prepared request.
    pub fn new(plan: &Plan) -> Self {
        let rewrap = Rewrap::between(plan.profile, &plan.context);
        let output = match (plan.same_format, plan.stream) {
            _ if plan.is_raw() => Output::Raw(Box::default()),
            _ if plan.operation.draws() => Output::Images(Box::new(Images::new(plan.operation, plan.stream))),
            (true, true) => Output::Relay(Box::new(Relay::new(plan.client, plan.framing, rewrap))),
            (true, false) if plan.upstream_stream => Output::Collect(Box::default()),
            (true, false) => Output::Verbatim,
            (false, true) => Output::Stream(writer(plan)),
            (false, false) => Output::Whole(Box::default()),
        };
        Self {
            rewrap,
            source: Source::of(plan.profile),
            reader: reader(plan.profile, &plan.context),
            restore: Restore::default(),
            output,
            watch: Watch::default(),
            body: Vec::new(),
            plan: plan.clone(),
        }
    }

    /// Takes the next bytes of the upstream's event stream.
    pub fn feed(&mut self, chunk: &[u8]) -> Flow {
        if let Output::Raw(raw) = &mut self.output {
            raw.feed(chunk);
            self.watch.good = true;
            return self.watch.flow();
        }
        if matches!(self.output, Output::Verbatim) && self.body.is_empty() {
            // The upstream was asked for the whole and sends events.
            self.output = match self.plan.client {
                Protocol::OpenaiResponses => Output::Collect(Box::default()),
                _ => Output::Whole(Box::default()),
            };
        }
        let mut source = std::mem::take(&mut self.source);
        let mut from = 0;
        let fed = source.feed(chunk, |event| {
            let raw = chunk.get(from..event.end).unwrap_or_default();
            from = event.end;
            self.step(event, raw);
        });
        self.source = source;
        if let (Output::Relay(relay), false) = (&mut self.output, self.watch.done) {
            relay.hold(chunk.get(from..).unwrap_or_default());
        }
        if let Err(failure) = fed {
            self.broke(failure);
        }
        self.settle()
    }

    /// The upstream's event stream is over.
    pub fn eof(&mut self) -> Flow {
        if let Output::Raw(raw) = &self.output {
            self.watch.usage.merge(&raw.usage());
            self.watch.done = true;
            return self.watch.flow();
        }
        let mut source = std::mem::take(&mut self.source);
        if let Err(failure) = source.finish(|event| self.step(event, b"\n\n")) {
            self.broke(failure);
            return self.settle();
        }
        let Self { reader, restore, output, watch, plan, .. } = self;
        reader.eof(&mut |event: Event<'_>| pass(event, restore, output, watch, &plan.context));
        if let (Output::Relay(relay), true, None) = (output, watch.done, &watch.failure) {
            relay.end();
        }
        self.settle()
    }

    /// The stream itself broke. What came before the end of the answer counts, not what follows.
    fn broke(&mut self, failure: Failure) {
        if !self.watch.done {
            self.watch.failure.get_or_insert(failure);
        }
    }

    /// Takes a whole JSON answer, also where the client wants events.
    pub fn whole(&mut self, body: &[u8]) -> Flow {
        let body = match openai_chat::unwrap_answer(self.plan.profile, body) {
            Ok(body) => body,
            Err(failure) => {
                self.watch.failure = Some(failure);
                return self.watch.flow();
            }
        };
        match self.plan.operation {
            Operation::CountTokens => return self.count(body),
            Operation::Compact => return self.verbatim(body),
            _ => {}
        }
        if matches!(self.output, Output::Raw(_)) {
            self.feed(body);
            return self.eof();
        }
        if let (Output::Images(images), true) = (&mut self.output, self.plan.profile.protocol() == RESPONSES)
        {
            images.look_whole(body, &self.plan.context);
        }
        match &self.output {
            // The client waits for events, the upstream did not send any: write them.
            Output::Relay(_) => self.output = Output::Stream(writer(&self.plan)),
            // The upstream was asked for events and sent the whole.
            Output::Collect(_) => self.output = Output::Verbatim,
            _ => {}
        }
        let Self { reader, restore, output, watch, plan, .. } = self;
        reader.whole(body, &mut |event: Event<'_>| pass(event, restore, output, watch, &plan.context));
        if matches!(self.output, Output::Verbatim) {
            self.body = self.shown(body);
        }
        self.settle()
    }

    /// A whole answer of the same format, under the name that the route promised.
    fn shown(&self, body: &[u8]) -> Vec<u8> {
        let model = &self.plan.context.model;
        let renamed = (!model.is_empty()).then(|| rename(self.plan.client, body, model)).flatten();
        self.rewrap.apply(renamed.as_deref().unwrap_or(body)).into_owned()
    }

    /// An answer that is not a message: it goes on as it is.
    fn verbatim(&mut self, body: &[u8]) -> Flow {
        let value = json::parse_any(body);
        if !matches!(value, Ok(Json::Object(_))) {
            self.watch.failure = Some(Failure::garbage("it is no JSON object"));
        } else if value.is_ok_and(|value| value.get("error").is_some_and(|error| !error.is_null())) {
            self.watch.failure = Some(Failure::parse(200, body));
        } else {
            self.body = body.to_vec();
            self.output = Output::Verbatim;
            self.watch.done = true;
        }
        self.watch.flow()
    }

    fn count(&mut self, body: &[u8]) -> Flow {
        if self.plan.same_format {
            return self.verbatim(body);
        }
        match read_count(self.plan.profile, body) {
            Some(tokens) => {
                self.body = write_count(self.plan.client, tokens);
                self.output = Output::Verbatim;
                self.watch.done = true;
            }
            None => self.watch.failure = Some(Failure::garbage("it holds no token count")),
        }
        self.watch.flow()
    }

    fn step(&mut self, event: sse::Event<'_>, raw: &[u8]) {
        // Whatever follows the end is not part of the answer.
        if self.watch.done || self.watch.failure.is_some() {
            return;
        }
        let Self { reader, restore, output, watch, plan, .. } = self;
        let sse::Event { name, data, .. } = event;
        if let (Output::Images(images), RESPONSES) = (&mut *output, plan.profile.protocol()) {
            // Before the event's own meaning: it may end the answer.
            watch.good |= images.look(data, &plan.context);
        }
        reader.event(name, data, &mut |event: Event<'_>| pass(event, restore, output, watch, &plan.context));
        match output {
            Output::Relay(relay) if watch.failure.is_some() => relay.last_words(raw),
            Output::Relay(relay) => relay.event(name, data, raw, &plan.context),
            Output::Collect(collect) => collect.event(data),
            _ => {}
        }
    }

    /// Writes the whole answer once it is complete.
    fn settle(&mut self) -> Flow {
        if self.watch.done && self.watch.failure.is_none() && self.body.is_empty() {
            let Plan { client, operation, context, .. } = &self.plan;
            match std::mem::replace(&mut self.output, Output::Verbatim) {
                Output::Whole(fold) => self.body = write_answer(*client, *operation, fold.answer(), context),
                Output::Collect(collect) => match collect.into_body() {
                    Some(body) => self.body = self.shown(&body),
                    None => self.watch.failure = Some(Failure::cut()),
                },
                Output::Images(mut images) => {
                    self.watch.failure = images.end(context).err();
                    self.output = Output::Images(images);
                }
                other => self.output = other,
            }
        }
        self.watch.flow()
    }

    /// Tells a client that got a part of the stream that the rest will not come.
    pub fn fail(&mut self, failure: &Failure) {
        match &mut self.output {
            Output::Relay(relay) => relay.fail(failure, SEQUENCE_UNKNOWN),
            Output::Stream(writer) => writer.event(Event::Failure(failure.clone())),
            Output::Images(images) => images.fail(failure),
            // Nothing of a whole answer has been sent: it is answered with an error status. One that is passed
            // as it comes has no words for it: its connection is cut.
            Output::Whole(_) | Output::Collect(_) | Output::Verbatim | Output::Raw(_) => self.body.clear(),
        }
        self.watch.failure.get_or_insert(failure.clone());
    }

    /// Takes the bytes that wait to be sent to the client.
    pub fn take(&mut self) -> Vec<u8> {
        match &mut self.output {
            Output::Relay(relay) => relay.frames().take(),
            Output::Stream(writer) => writer.frames().take(),
            Output::Images(images) => images.take(),
            Output::Raw(raw) => std::mem::take(&mut raw.out),
            Output::Whole(_) | Output::Collect(_) | Output::Verbatim => std::mem::take(&mut self.body),
        }
    }

    /// Number of bytes that wait to be sent.
    pub fn pending(&mut self) -> usize {
        match &mut self.output {
            Output::Relay(relay) => relay.frames().pending().len(),
            Output::Stream(writer) => writer.frames().pending().len(),
            Output::Images(images) => images.pending(),
            Output::Raw(raw) => raw.out.len(),
            Output::Whole(_) | Output::Collect(_) | Output::Verbatim => self.body.len(),
        }
    }

    /// Token counts so far.
    pub fn usage(&self) -> &Usage {
        &self.watch.usage
    }

    /// Whether the upstream said all that it had to say, and no picture was among it.
    pub fn drew_nothing(&self) -> bool {
        self.watch.done && matches!(self.output, Output::Images(_))
    }

    /// Why the first choice ended, once it did.
    pub fn finish(&self) -> Option<Finish> {
        self.watch.finish
    }

    /// How a complete answer differs from the thinking that its upstream was told.
    pub fn thinking_mismatch(&self) -> Option<Mismatch> {
        let Watch { usage, thinking, .. } = &self.watch;
        Mismatch::of_answer(self.plan.thinking, self.plan.profile.protocol(), !thinking.is_empty(), usage)
    }

    /// Whether an answer that is complete has nothing to show: no text, no call, no picture, and neither a
    /// filter nor a refusal that would explain it.
    pub fn is_empty(&self) -> bool {
        matches!(self.plan.operation, Operation::Generate | Operation::Completion)
            && !self.watch.content
            && !matches!(self.watch.finish, Some(Finish::Filter | Finish::Refusal))
    }
}

const RESPONSES: Protocol = Protocol::OpenaiResponses;

/// Relayed Responses events carry the upstream's numbers, which are not read: an error event takes one that
/// is larger than any of them and still exact in JavaScript.
const SEQUENCE_UNKNOWN: u64 = 1 << 52;

fn pass(event: Event<'_>, restore: &mut Restore, output: &mut Output, watch: &mut Watch, context: &Context) {
    watch.note(&event);
    if matches!(event, Event::Failure(_)) {
        // The caller decides whether the client is told or another upstream is tried.
        return;
    }
    match output {
        Output::Stream(writer) => restore.event(event, context, &mut |event: Event<'_>| writer.event(event)),
        Output::Whole(fold) => restore.event(event, context, fold.as_mut()),
        Output::Images(images) => images.event(event),
        Output::Relay(_) | Output::Collect(_) | Output::Verbatim | Output::Raw(_) => {}
    }
}

fn writer(plan: &Plan) -> Box<dyn WriteStream> {
    stream_writer(plan.client, plan.operation, Arc::clone(&plan.context), plan.framing)
}
