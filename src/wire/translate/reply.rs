//! An answer on its way back: the upstream's bytes in, the client's bytes out, one step at a time.
//!
//! Enters: chunks of an event stream split anywhere, or one whole JSON body. Leaves: bytes in
//! [`Reply::take`] and, after each step, a [`Flow`] that says whether something worth sending is there.
//! May go wrong: [`Flow::Failed`], before anything good came (then the request may be tried elsewhere) or
//! after (then [`Reply::fail`] tells the client).

use super::relay::{Relay, rename, write_failure};
use super::{Plan, reader, stream_writer, write_answer};
use crate::Protocol;
use crate::error::Failure;
use crate::frames::Framing;
use crate::gemini::envelope::Rewrap;
use crate::ir::restore::Restore;
use crate::ir::{Context, Delta, Event, Finish, Fold, ReadAnswer, Usage, WriteStream};
use crate::sse;
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
    client: Protocol,
    /// Whether the client gets events.
    stream: bool,
    same_format: bool,
    framing: Framing,
    rewrap: Rewrap,
    context: Arc<Context>,
    decoder: sse::Decoder,
    reader: Box<dyn ReadAnswer>,
    restore: Restore,
    output: Output,
    watch: Watch,
    /// Bytes of a whole answer.
    body: Vec<u8>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply")
            .field("client", &self.client)
            .field("watch", &self.watch)
            .finish_non_exhaustive()
    }
}

enum Output {
    Relay(Box<Relay>),
    Stream(Box<dyn WriteStream>),
    Whole(Box<Fold>),
}

/// What is noted of every answer, whatever its way.
#[derive(Debug, Default)]
struct Watch {
    usage: Usage,
    good: bool,
    done: bool,
    failure: Option<Failure>,
    finish: Option<Finish>,
    /// Bytes of visible content, to tell empty answers.
    content: u64,
}

impl Watch {
    fn note(&mut self, event: &Event<'_>) {
        match event {
            Event::Open { .. } => self.good = true,
            Event::Delta {
                delta: Delta::Text(text) | Delta::Arguments(text) | Delta::Data(text), ..
            } => {
                self.content += text.len() as u64;
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
        let context = Arc::clone(&plan.context);
        let rewrap = Rewrap::between(plan.profile, &context);
        let output = if plan.same_format && plan.stream {
            Output::Relay(Box::new(Relay::new(plan.client, plan.framing, rewrap)))
        } else if plan.stream {
            Output::Stream(stream_writer(plan.client, Arc::clone(&context), plan.framing))
        } else {
            Output::Whole(Box::default())
        };
        Self {
            client: plan.client,
            stream: plan.stream,
            same_format: plan.same_format,
            framing: plan.framing,
            rewrap,
            decoder: sse::Decoder::default(),
            reader: reader(plan.profile, &context.seed),
            restore: Restore::default(),
            output,
            watch: Watch::default(),
            body: Vec::new(),
            context,
        }
    }

    /// Takes the next bytes of the upstream's event stream.
    pub fn feed(&mut self, chunk: &[u8]) -> Flow {
        let mut decoder = std::mem::take(&mut self.decoder);
        let mut from = 0;
        let fed = decoder.feed(chunk, |event| {
            let raw = chunk.get(from..event.end).unwrap_or_default();
            from = event.end;
            self.step(event, raw);
        });
        self.decoder = decoder;
        if let (Output::Relay(relay), false) = (&mut self.output, self.watch.done) {
            relay.hold(chunk.get(from..).unwrap_or_default());
        }
        if let Err(too_long) = fed {
            self.watch.failure.get_or_insert(Failure::garbage(&too_long.to_string()));
        }
        self.finish_whole();
        self.watch.flow()
    }

    /// The upstream's event stream is over.
    pub fn eof(&mut self) -> Flow {
        let mut decoder = std::mem::take(&mut self.decoder);
        decoder.finish(|event| self.step(event, b"\n\n"));
        let Self { reader, restore, output, watch, context, .. } = self;
        reader.eof(&mut |event: Event<'_>| pass(event, restore, output, watch, context));
        if let (Output::Relay(relay), true, None) = (output, watch.done, &watch.failure) {
            relay.end();
        }
        self.finish_whole();
        self.watch.flow()
    }

    /// Takes a whole JSON answer, also where the client wants events.
    pub fn whole(&mut self, body: &[u8]) -> Flow {
        if self.same_format && self.stream {
            // The client waits for events, the upstream did not send any: write them.
            self.output = Output::Stream(stream_writer(self.client, Arc::clone(&self.context), self.framing));
        }
        let Self { reader, restore, output, watch, context, .. } = self;
        reader.whole(body, &mut |event: Event<'_>| pass(event, restore, output, watch, context));
        if self.same_format && !self.stream {
            let renamed = (!self.context.model.is_empty())
                .then(|| rename(self.client, body, &self.context.model))
                .flatten();
            self.body = self.rewrap.apply(renamed.as_deref().unwrap_or(body)).into_owned();
        } else {
            self.finish_whole();
        }
        self.watch.flow()
    }

    fn step(&mut self, event: sse::Event<'_>, raw: &[u8]) {
        // Whatever follows the end is not part of the answer.
        if self.watch.done || self.watch.failure.is_some() {
            return;
        }
        let Self { reader, restore, output, watch, context, .. } = self;
        if let Output::Relay(relay) = output {
            reader.event(event.name, event.data, &mut |event: Event<'_>| watch.note(&event));
            if watch.failure.is_none() {
                relay.event(event.name, event.data, raw, context);
            }
        } else {
            reader.event(event.name, event.data, &mut |event: Event<'_>| {
                pass(event, restore, output, watch, context);
            });
        }
    }

    fn finish_whole(&mut self) {
        if let (Output::Whole(fold), true, None) = (&self.output, self.watch.done, &self.watch.failure)
            && self.body.is_empty()
        {
            self.body = write_answer(self.client, fold.answer(), &self.context);
        }
    }

    /// Tells a client that got a part of the stream that the rest will not come.
    pub fn fail(&mut self, failure: &Failure) {
        match &mut self.output {
            Output::Relay(relay) => relay.fail(failure, SEQUENCE_UNKNOWN),
            Output::Stream(writer) => writer.event(Event::Failure(failure.clone())),
            Output::Whole(_) => write_failure(self.client, failure, 0, &mut crate::frames::Frames::default()),
        }
        self.watch.failure.get_or_insert(failure.clone());
    }

    /// Takes the bytes that wait to be sent to the client.
    pub fn take(&mut self) -> Vec<u8> {
        match &mut self.output {
            Output::Relay(relay) => relay.frames().take(),
            Output::Stream(writer) => writer.frames().take(),
            Output::Whole(_) => std::mem::take(&mut self.body),
        }
    }

    /// Number of bytes that wait to be sent.
    pub fn pending(&mut self) -> usize {
        match &mut self.output {
            Output::Relay(relay) => relay.frames().pending().len(),
            Output::Stream(writer) => writer.frames().pending().len(),
            Output::Whole(_) => self.body.len(),
        }
    }

    /// Token counts so far.
    pub fn usage(&self) -> &Usage {
        &self.watch.usage
    }

    /// Why the first choice ended, once it did.
    pub fn finish(&self) -> Option<Finish> {
        self.watch.finish
    }

    /// Whether no visible content came.
    pub fn is_empty(&self) -> bool {
        self.watch.content == 0
    }
}

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
        Output::Relay(_) => {}
    }
}
