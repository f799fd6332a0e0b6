//! The blocks of an answer: which are open, and what comes into them.
//!
//! Enters: text, thinking and calls as the service sends them. Leaves: IR events; blocks are opened by the
//! first thing that comes into them, text and thinking close each other, and a call closes both. May go
//! wrong: a call that is cut, of which [`Blocks::close`] tells.

use super::calls::{Call, Calls};
use super::events::{Thought, Used, Word, word};
use crate::estimate;
use crate::ir::{BlockKind, Citation, Delta, Event, Sink, ToolKind};
use crate::signature::Signature;
use serde_json::value::RawValue;

/// The blocks of one answer.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// For ids that the upstream does not give.
    seed: String,
    /// Whether the answer began.
    pub(super) started: bool,
    /// The upstream's name of the model.
    pub(super) model: String,
    /// Number of the next block.
    next: u32,
    text: Option<u32>,
    /// The open thinking, and its signature so far.
    thinking: Option<(u32, String)>,
    calls: Calls,
    /// A call was over in the middle of its arguments.
    pub(super) cut_call: bool,
    /// Quarters of tokens of what the model wrote, about.
    pub(super) written: u64,
}

impl Blocks {
    /// No blocks. `seed` is for ids that the upstream does not give, `model` for when it does not say.
    pub(super) fn new(seed: &str, model: &str) -> Self {
        Self { seed: seed.to_owned(), model: model.to_owned(), ..Self::default() }
    }

    /// Begins the answer, once.
    pub(super) fn start(&mut self, sink: &mut dyn Sink) {
        if !std::mem::replace(&mut self.started, true) {
            sink.event(Event::Start { id: "", model: &self.model, created: None });
        }
    }

    /// Whether there was any call.
    pub(super) fn has_calls(&self) -> bool {
        self.calls.any()
    }

    fn open(&mut self, kind: BlockKind<'_>, sink: &mut dyn Sink) -> u32 {
        self.start(sink);
        let block = self.next;
        self.next += 1;
        sink.event(Event::Open { block, choice: 0, kind });
        block
    }

    /// Visible text.
    pub(super) fn text(&mut self, text: &str, sink: &mut dyn Sink) {
        if text.is_empty() {
            return;
        }
        self.close_thinking(sink);
        self.written += estimate::quarters(text);
        let block = match self.text {
            Some(block) => block,
            None => self.open(BlockKind::Text, sink),
        };
        self.text = Some(block);
        sink.event(Event::Delta { block, delta: Delta::Text(text) });
    }

    /// A source of the open text.
    pub(super) fn cite(&mut self, citation: Citation<'_>, sink: &mut dyn Sink) {
        if let Some(block) = self.text {
            sink.event(Event::Delta { block, delta: Delta::Citation(citation) });
        }
    }

    fn close_text(&mut self, sink: &mut dyn Sink) {
        if let Some(block) = self.text.take() {
            sink.event(Event::Close { block });
        }
    }

    /// Thinking text.
    pub(super) fn thinking(&mut self, text: &str, sink: &mut dyn Sink) {
        if text.is_empty() {
            return;
        }
        self.written += estimate::quarters(text);
        let (block, _) = *self.think(sink);
        sink.event(Event::Delta { block, delta: Delta::Text(text) });
    }

    /// The open thinking; opens it.
    fn think(&mut self, sink: &mut dyn Sink) -> &mut (u32, String) {
        if self.thinking.is_none() {
            self.close_text(sink);
            let block = self.open(BlockKind::Reasoning { redacted: None }, sink);
            return self.thinking.insert((block, String::new()));
        }
        self.thinking.get_or_insert_default()
    }

    fn close_thinking(&mut self, sink: &mut dyn Sink) {
        if let Some((block, signature)) = self.thinking.take() {
            if let Some(signature) = Signature::detect(signature) {
                sink.event(Event::Delta { block, delta: Delta::Signature(signature) });
            }
            sink.event(Event::Close { block });
        }
    }

    /// Thinking that the service tells apart itself.
    pub(super) fn thought(&mut self, thought: Thought<'_>, sink: &mut dyn Sink) {
        self.thinking(&word(thought.text), sink);
        let signature = word(thought.signature);
        if !signature.is_empty() {
            self.think(sink).1.push_str(&signature);
        }
        let redacted = word(thought.redacted_content);
        if !redacted.is_empty() {
            self.close_thinking(sink);
            self.close_text(sink);
            let block = self.open(BlockKind::Reasoning { redacted: Some(&redacted) }, sink);
            sink.event(Event::Close { block });
        }
    }

    /// A call, or a piece of one.
    pub(super) fn call(&mut self, used: Used<'_>, sink: &mut dyn Sink) {
        let (mut id, name) = (word(used.tool_use_id).into_owned(), word(used.name));
        if self.calls.find(&id).is_none() {
            if self.calls.is_known(&id) {
                // The service repeats calls; this one is complete.
                return;
            }
            self.close_thinking(sink);
            self.close_text(sink);
            self.close_complete_calls(sink);
            if id.is_empty() {
                id = format!("tooluse_{}_{}", self.seed, self.next);
            }
            let kind = BlockKind::Tool { id: &id, name: &name, namespace: None, kind: ToolKind::Function };
            let block = self.open(kind, sink);
            self.calls.open(&id, block);
        }
        if let (Some(input), Some(call)) = (used.input, self.calls.find(&id)) {
            self.written += push_arguments(call, input, sink);
        }
        if used.stop == Some(true)
            && let Some(call) = self.calls.close(&id)
        {
            self.cut_call |= call.arguments.begun() && !call.arguments.is_complete();
            close_call(&call, sink);
        }
    }

    /// A new call ends those before it, as far as they are complete.
    fn close_complete_calls(&mut self, sink: &mut dyn Sink) {
        while let Some(call) = self.calls.take(true) {
            close_call(&call, sink);
        }
    }

    /// Closes what is open. Stops, and says so, at a call whose arguments are not complete, unless they may
    /// be `cut`.
    pub(super) fn close(&mut self, cut: bool, sink: &mut dyn Sink) -> Result<(), Cut> {
        self.start(sink);
        self.close_thinking(sink);
        self.close_text(sink);
        self.close_complete_calls(sink);
        while let Some(call) = self.calls.take(false) {
            if call.arguments.begun() && !cut {
                return Err(Cut);
            }
            close_call(&call, sink);
        }
        Ok(())
    }
}

/// A call stopped in the middle of its arguments.
#[derive(Debug)]
pub(super) struct Cut;

/// Adds to the arguments of a call: JSON text in a string, or the object itself. Gives the length of what
/// came, for an estimate.
fn push_arguments(call: &mut Call, input: &RawValue, sink: &mut dyn Sink) -> u64 {
    let raw = input.get().trim();
    let piece = match serde_json::from_str::<Word<'_>>(raw) {
        Ok(word) => word.0,
        // A call may begin with an empty object and go on in pieces.
        Err(_) if raw == "null" || raw == "{}" || call.arguments.begun() => return 0,
        Err(_) => raw.into(),
    };
    if !piece.is_empty() {
        call.arguments.push(&piece);
        sink.event(Event::Delta { block: call.block, delta: Delta::Arguments(&piece) });
    }
    estimate::quarters(&piece)
}

fn close_call(call: &Call, sink: &mut dyn Sink) {
    if !call.arguments.begun() {
        sink.event(Event::Delta { block: call.block, delta: Delta::Arguments("{}") });
    }
    sink.event(Event::Close { block: call.block });
}
