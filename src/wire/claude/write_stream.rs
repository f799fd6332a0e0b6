//! IR events → the events of a stream.
//!
//! Enters: IR events, blocks interleaved or not. Leaves: events whose blocks never overlap, with an `event:`
//! name each. May go wrong: nothing; a failure is the `error` event, and nothing follows it.
//!
//! - Blocks come out in the order in which they were opened. The first in the queue is sent as it grows, the
//!   others wait. Text and thinking do not hold others up: when another block opens they end, and what they
//!   say later begins a new block.
//! - A block is opened by its first content, so that none is empty.
//! - The stop reason waits for the end, because usage may come after it.
//! - Choices other than the first are not shown: the format has one.
//! - Citations are left out: every form of them points into a search result or document of this vendor by an
//!   index that the client would send back and the API would check.
//! - A signature of any vendor goes to the client as `signature` of thinking, so that it comes back. That of
//!   a call, which Gemini makes, goes on the thinking right before the call, or on empty thinking when none
//!   was shown. Where neither fits it is dropped; Gemini's writer has a substitute for it.

use super::answer_parts::{self, Shown};
use super::stream_events::Events;
use crate::frames::{Frames, Framing};
use crate::ir::{BlockKind, Context, Delta, Event, Finish, Sink, ToolKind, Usage, WriteStream};
use crate::json;
use std::collections::VecDeque;
use std::sync::Arc;

/// Writes one stream.
#[derive(Debug)]
pub(super) struct Writer {
    out: Events,
    context: Arc<Context>,
    id: String,
    model: String,
    /// `message_start` is out.
    started: bool,
    /// The last event is out.
    ended: bool,
    /// Blocks that are not out yet, in order of opening.
    queue: VecDeque<Block>,
    /// Text and thinking that another block has ended, should they go on.
    parked: Vec<Block>,
    /// A thinking block that is complete but for its `content_block_stop`: the signature of a call that
    /// follows at once still finds room in it.
    unsigned: Option<u64>,
    thinking_shown: bool,
    shown: Shown,
    usage: Usage,
    finish: Option<(Finish, Option<String>)>,
}

/// A block of the answer.
#[derive(Debug)]
struct Block {
    /// The IR's number.
    number: u32,
    kind: Kind,
    /// The index it has on the wire, once it is there.
    index: Option<u64>,
    /// Text or arguments that are not out yet.
    waiting: String,
    /// Pieces that came.
    pieces: u32,
    /// A signature that is not out yet.
    signature: Option<String>,
    closed: bool,
}

#[derive(Debug)]
enum Kind {
    Text,
    Refusal,
    Thinking,
    Redacted(String),
    Call {
        id: String,
        name: String,
        kind: ToolKind,
    },
    /// A block as JSON text.
    Item(String),
}

impl Block {
    fn new(number: u32, kind: Kind) -> Self {
        Self { number, kind, index: None, waiting: String::new(), pieces: 0, signature: None, closed: false }
    }

    fn flows(&self) -> bool {
        matches!(self.kind, Kind::Text | Kind::Refusal | Kind::Thinking)
    }

    fn take(&mut self, delta: &Delta<'_>) {
        match (&self.kind, delta) {
            (Kind::Text | Kind::Refusal | Kind::Thinking, Delta::Text(text))
            | (Kind::Call { .. }, Delta::Arguments(text)) => {
                self.waiting.push_str(text);
                self.pieces += 1;
            }
            // Parts of a summary are paragraphs of one text here.
            (Kind::Thinking, Delta::Part) if self.pieces > 0 => self.waiting.push_str("\n\n"),
            (Kind::Thinking | Kind::Call { .. }, Delta::Signature(signature)) => {
                self.signature = Some(signature.value.as_ref().to_owned());
            }
            _ => {}
        }
    }
}

impl Writer {
    /// Starts on a stream.
    pub(super) fn new(context: Arc<Context>, framing: Framing) -> Self {
        Self {
            out: Events::new(framing),
            context,
            id: String::new(),
            model: String::new(),
            started: false,
            ended: false,
            queue: VecDeque::new(),
            parked: Vec::new(),
            unsigned: None,
            thinking_shown: false,
            shown: Shown::default(),
            usage: Usage::default(),
            finish: None,
        }
    }

    /// Makes the wire ready for the next block: the message has begun, the block before is complete.
    fn settle(&mut self) {
        if !std::mem::replace(&mut self.started, true) {
            let id = answer_parts::message_id(&self.id, &self.context);
            let model = answer_parts::model(&self.model, &self.context);
            self.out.message_start(&id, model, &self.usage);
        }
        if let Some(index) = self.unsigned.take() {
            self.out.block_stop(index);
        }
    }

    fn open(&mut self, number: u32, kind: &BlockKind<'_>) {
        if self.queue.front().is_some_and(|front| !front.closed && front.flows()) {
            self.park();
        }
        let kind = match *kind {
            BlockKind::Text => Kind::Text,
            BlockKind::Refusal => Kind::Refusal,
            BlockKind::Reasoning { redacted: None } => Kind::Thinking,
            BlockKind::Reasoning { redacted: Some(data) } => Kind::Redacted(data.to_owned()),
            BlockKind::Tool { id, name, kind, .. } => {
                Kind::Call { id: id.to_owned(), name: name.to_owned(), kind }
            }
            BlockKind::Image { mime } => {
                let mut block = Block::new(number, Kind::Text);
                block.waiting = answer_parts::picture(mime);
                self.queue.push_back(block);
                return self.advance();
            }
            BlockKind::Server { kind, raw } if answer_parts::is_own_item(kind) => Kind::Item(raw.to_owned()),
            // An item of another vendor: no client of this format knows it.
            BlockKind::Server { .. } => return,
        };
        self.queue.push_back(Block::new(number, kind));
        self.advance();
    }

    /// Ends the first block on the wire; should it go on, it begins anew.
    fn park(&mut self) {
        let Some(mut block) = self.queue.pop_front() else { return };
        self.end_block(&mut block);
        self.parked.push(Block::new(block.number, block.kind));
    }

    fn delta(&mut self, number: u32, delta: &Delta<'_>) {
        if let Some(at) = self.parked.iter().position(|block| block.number == number) {
            if self.queue.front().is_some_and(|front| !front.closed && front.flows()) {
                self.park();
            }
            let block = self.parked.swap_remove(at);
            self.queue.push_back(block);
        }
        // What the first block says while it is on the wire goes out without a copy.
        let front = self.queue.front().filter(|front| front.number == number && front.waiting.is_empty());
        if let Some((front, index)) = front.and_then(|front| Some((front, front.index?))) {
            match (&front.kind, delta) {
                (_, Delta::Text("") | Delta::Arguments("")) => return,
                (Kind::Text | Kind::Refusal, Delta::Text(text)) => {
                    return self.out.piece(index, "text_delta", "text", text);
                }
                (Kind::Thinking, Delta::Text(text)) => {
                    return self.out.piece(index, "thinking_delta", "thinking", text);
                }
                (Kind::Call { kind: ToolKind::Function, .. }, Delta::Arguments(text)) => {
                    return self.out.piece(index, "input_json_delta", "partial_json", text);
                }
                _ => {}
            }
        }
        if let Some(block) = self.queue.iter_mut().find(|block| block.number == number) {
            block.take(delta);
            self.advance();
        }
    }

    fn close(&mut self, number: u32) {
        self.parked.retain(|block| block.number != number);
        if let Some(block) = self.queue.iter_mut().find(|block| block.number == number) {
            block.closed = true;
            self.advance();
        }
    }

    /// Sends what the first block has, and the next ones as far as those before them are closed.
    fn advance(&mut self) {
        while let Some(mut block) = self.queue.pop_front() {
            self.flush(&mut block);
            if !block.closed {
                self.queue.push_front(block);
                return;
            }
            self.end_block(&mut block);
        }
    }

    fn flush(&mut self, block: &mut Block) {
        match &block.kind {
            Kind::Text | Kind::Refusal => {
                if !block.waiting.is_empty() {
                    self.shown.refusal |= matches!(block.kind, Kind::Refusal);
                    let index = self.start_block(block, |o| {
                        o.str("type", "text");
                        o.str("text", "");
                    });
                    self.out.piece(index, "text_delta", "text", &std::mem::take(&mut block.waiting));
                }
            }
            Kind::Thinking => {
                if !block.waiting.is_empty() || block.signature.is_some() {
                    let index = self.start_thinking(block);
                    let text = std::mem::take(&mut block.waiting);
                    if !text.is_empty() {
                        self.out.piece(index, "thinking_delta", "thinking", &text);
                    }
                }
            }
            Kind::Redacted(data) => {
                let data = data.clone();
                self.thinking_shown = true;
                self.start_block(block, |o| {
                    o.str("type", "redacted_thinking");
                    o.str("data", &data);
                });
            }
            Kind::Call { kind, .. } => {
                // A call waits for a second piece: one that is whole in its first is signed behind it.
                let ready = block.pieces > 1 || block.signature.is_some();
                if block.index.is_none() && !block.closed && !ready {
                    return;
                }
                let whole = block.index.is_none() && block.closed;
                let custom = *kind == ToolKind::Custom;
                if custom && !block.closed {
                    return;
                }
                if (whole || custom) && !block.waiting.is_empty() {
                    block.waiting = answer_parts::input(*kind, &block.waiting);
                }
                self.call(block);
            }
            Kind::Item(raw) => {
                if block.index.is_none() {
                    self.settle();
                    block.index = Some(self.out.block_start(|out| out.extend_from_slice(raw.as_bytes())));
                }
            }
        }
    }

    /// Opens a call, its signature before it, and sends what waits.
    fn call(&mut self, block: &mut Block) {
        let Kind::Call { id, name, .. } = &block.kind else { return };
        let (id, name) = (id.clone(), name.clone());
        if block.index.is_none() {
            if let Some(signature) = block.signature.take() {
                self.sign_call(&signature);
            }
            self.shown.call = true;
        }
        let index = self.start_block(block, |o| {
            o.str("type", "tool_use");
            o.str("id", &id);
            o.str("name", &name);
            o.raw("input", "{}");
        });
        let waiting = std::mem::take(&mut block.waiting);
        if !waiting.is_empty() {
            self.out.piece(index, "input_json_delta", "partial_json", &waiting);
        }
    }

    fn sign_call(&mut self, signature: &str) {
        if let Some(index) = self.unsigned.take() {
            self.out.piece(index, "signature_delta", "signature", signature);
            self.out.block_stop(index);
        } else if !self.thinking_shown {
            let mut carrier = Block::new(u32::MAX, Kind::Thinking);
            carrier.signature = Some(signature.to_owned());
            self.start_thinking(&mut carrier);
            self.end_block(&mut carrier);
        }
    }

    fn start_thinking(&mut self, block: &mut Block) -> u64 {
        self.thinking_shown = true;
        self.start_block(block, |o| {
            o.str("type", "thinking");
            o.str("thinking", "");
            o.str("signature", "");
        })
    }

    /// Sends `content_block_start`, unless it is out already.
    fn start_block(&mut self, block: &mut Block, fill: impl FnOnce(&mut json::Object<'_>)) -> u64 {
        if let Some(index) = block.index {
            return index;
        }
        self.settle();
        let index = self.out.block_start(|out| json::object(out, fill));
        block.index = Some(index);
        index
    }

    /// Sends what ends a block that is on the wire.
    fn end_block(&mut self, block: &mut Block) {
        let Some(index) = block.index else { return };
        if matches!(block.kind, Kind::Thinking) {
            let Some(signature) = block.signature.take() else {
                self.unsigned = Some(index);
                return;
            };
            self.out.piece(index, "signature_delta", "signature", &signature);
        }
        self.out.block_stop(index);
    }

    fn end(&mut self) {
        for block in &mut self.queue {
            block.closed = true;
        }
        self.advance();
        self.settle();
        let (finish, detail) = self.finish.take().unzip();
        self.out.message_end(finish, detail.flatten().as_deref(), self.shown, &self.usage);
        self.ended = true;
    }
}

impl Sink for Writer {
    fn event(&mut self, event: Event<'_>) {
        if self.ended {
            return;
        }
        match event {
            Event::Start { id, model, .. } => {
                // Sent with the first content, by when usage may be known.
                id.clone_into(&mut self.id);
                model.clone_into(&mut self.model);
            }
            Event::Open { block, choice: 0, kind } => self.open(block, &kind),
            Event::Delta { block, delta } => self.delta(block, &delta),
            Event::Close { block } => self.close(block),
            Event::Usage(usage) => self.usage.merge(&usage),
            Event::Finish { choice: 0, reason, detail } => {
                self.finish = Some((reason, detail.map(str::to_owned)));
            }
            Event::Failure(failure) => {
                self.out.error(&failure);
                self.ended = true;
            }
            Event::End => self.end(),
            Event::Open { .. } | Event::Finish { .. } => {}
        }
    }
}

impl WriteStream for Writer {
    fn frames(&mut self) -> &mut Frames {
        self.out.frames()
    }
}
