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
//! - Citations of pages on the web are shown; those of documents are left out: they point into a request of
//!   another vendor.
//! - A signature of any vendor goes to the client as `signature` of thinking, so that it comes back. That of
//!   a call, which Gemini makes, goes on the thinking right before the call, or on empty thinking when none
//!   was shown. Where neither fits it is dropped; Gemini's writer has a substitute for it.

use super::answer_parts::{self, Shown};
use super::stream_block::{Block, Kind};
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
                // Without text there is nothing that they could be sources of.
                if let Some(index) = block.index {
                    block.citations.drain(..).for_each(|citation| self.out.citation(index, &citation));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;
    use crate::ir::Citation;
    use crate::json::{Json, parse_any};
    use crate::signature::{Signature, Vendor};
    use crate::sse;

    const CALL: BlockKind<'_> =
        BlockKind::Tool { id: "t", name: "f", namespace: None, kind: ToolKind::Function };
    const THINKING: BlockKind<'_> = BlockKind::Reasoning { redacted: None };

    fn open(block: u32, kind: BlockKind<'_>) -> Event<'_> {
        Event::Open { block, choice: 0, kind }
    }

    fn text(block: u32, text: &str) -> Event<'_> {
        Event::Delta { block, delta: Delta::Text(text) }
    }

    fn arguments(block: u32, text: &str) -> Event<'_> {
        Event::Delta { block, delta: Delta::Arguments(text) }
    }

    fn sign(block: u32) -> Event<'static> {
        let signature = Signature::of(Vendor::Openai, "sig").unwrap();
        Event::Delta { block, delta: Delta::Signature(signature) }
    }

    fn close(block: u32) -> Event<'static> {
        Event::Close { block }
    }

    fn bytes(events: Vec<Event<'_>>) -> String {
        let mut writer = Writer::new(Arc::new(Context::default()), Framing::Sse);
        writer.event(Event::Start { id: "chatcmpl-1", model: "m", created: None });
        for event in events {
            writer.event(event);
        }
        String::from_utf8(writer.frames().take()).unwrap()
    }

    /// Each event in short: `+` start with the kind of block, the text of deltas, `-` stop.
    fn shape(events: Vec<Event<'_>>) -> String {
        let mut out = Vec::new();
        let mut decoder = sse::Decoder::default();
        let text = bytes(events);
        let short = |event: sse::Event<'_>| {
            let data = parse_any(event.data).unwrap();
            let word = |keys: &[&str]| data.at(keys).and_then(Json::as_str).unwrap_or_default().to_owned();
            out.push(match event.name {
                "content_block_start" => format!("+{}", word(&["content_block", "type"])),
                "content_block_delta" => {
                    ["text", "thinking", "partial_json", "signature"].map(|k| word(&["delta", k])).concat()
                }
                "content_block_stop" => "-".to_owned(),
                "message_delta" => word(&["delta", "stop_reason"]),
                "error" => word(&["error", "message"]),
                name => name.trim_start_matches("message_").to_owned(),
            });
        };
        decoder.feed(text.as_bytes(), short).unwrap();
        out.join(" ")
    }

    #[test]
    fn a_simple_answer_has_exactly_these_events() {
        let usage = Usage { input: Some(20), cache_read: Some(80), output: Some(7), ..Usage::default() };
        let out = bytes(vec![
            open(0, BlockKind::Text),
            text(0, ""),
            text(0, "Hi"),
            close(0),
            Event::Finish { choice: 0, reason: Finish::End, detail: None },
            Event::Usage(usage),
            Event::End,
        ]);
        assert_eq!(
            out,
            concat!(
                "event: message_start\n",
                r#"data: {"type":"message_start","message":{"id":"msg_chatcmpl-1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}}"#,
                "\n\nevent: content_block_start\n",
                r#"data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
                "\n\nevent: content_block_delta\n",
                r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}"#,
                "\n\nevent: content_block_stop\n",
                r#"data: {"type":"content_block_stop","index":0}"#,
                "\n\nevent: message_delta\n",
                r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":20,"cache_creation_input_tokens":0,"cache_read_input_tokens":80,"output_tokens":7}}"#,
                "\n\nevent: message_stop\n",
                r#"data: {"type":"message_stop"}"#,
                "\n\n"
            )
        );
    }

    #[test]
    fn thinking_starts_with_both_strings_and_ends_with_its_signature() {
        let events = vec![
            open(0, THINKING),
            Event::Delta { block: 0, delta: Delta::Part },
            text(0, "a"),
            Event::Delta { block: 0, delta: Delta::Part },
            text(0, "b"),
            sign(0),
            close(0),
            Event::End,
        ];
        assert!(bytes(events.clone()).contains(r#"{"type":"thinking","thinking":"","signature":""}"#));
        assert_eq!(shape(events), "start +thinking a \n\n b sig - end_turn stop");
    }

    #[test]
    fn nothing_still_is_a_complete_message_and_empty_blocks_do_not_show() {
        assert_eq!(shape(vec![Event::End]), "start end_turn stop");
        let empty = vec![open(0, BlockKind::Text), close(0), open(1, THINKING), close(1), Event::End];
        assert_eq!(shape(empty), "start end_turn stop");
        let refused = Event::Finish { choice: 0, reason: Finish::Filter, detail: None };
        assert_eq!(shape(vec![refused, Event::End]), "start refusal stop");
    }

    #[test]
    fn p38_calls_that_interleave_come_one_after_the_other() {
        let second = BlockKind::Tool { id: "u", name: "g", namespace: None, kind: ToolKind::Function };
        let events = vec![
            open(0, CALL),
            open(1, second),
            arguments(0, "{\"a\":"),
            arguments(1, "{\"b\":"),
            arguments(0, "1}"),
            arguments(1, "2}"),
            close(1),
            close(0),
            Event::End,
        ];
        assert_eq!(shape(events), r#"start +tool_use {"a":1} - +tool_use {"b":2} - tool_use stop"#);
    }

    #[test]
    fn text_that_stays_open_holds_nobody_up() {
        let events = vec![
            open(0, THINKING),
            text(0, "hm"),
            open(1, BlockKind::Text),
            text(1, "a"),
            open(2, CALL),
            arguments(2, "{}"),
            close(2),
            text(1, "b"),
            close(0),
            close(1),
            Event::End,
        ];
        assert_eq!(shape(events), "start +thinking hm - +text a - +tool_use {} - +text b - tool_use stop");
    }

    #[test]
    fn a_signature_of_a_call_rides_on_thinking_right_before_it() {
        let call = |n| [open(n, CALL), arguments(n, "{}"), sign(n), close(n)];
        let thought = || vec![open(0, THINKING), text(0, "hm"), close(0)];
        let with = |mut events: Vec<Event<'static>>, call: [Event<'static>; 4]| {
            events.extend(call);
            events.push(Event::End);
            shape(events)
        };
        assert_eq!(with(thought(), call(1)), "start +thinking hm sig - +tool_use {} - tool_use stop");
        assert_eq!(with(vec![], call(0)), "start +thinking sig - +tool_use {} - tool_use stop");
        let mut text_between = thought();
        text_between.extend([open(1, BlockKind::Text), text(1, "x"), close(1)]);
        assert_eq!(
            with(text_between, call(2)),
            "start +thinking hm - +text x - +tool_use {} - tool_use stop"
        );
    }

    #[test]
    fn sources_follow_their_text() {
        let cite = |url: &'static str| {
            let citation = Citation { url: url.into(), title: "T".into(), ..Citation::default() };
            Event::Delta { block: 0, delta: Delta::Citation(citation) }
        };
        let mut writer = Writer::new(Arc::new(Context::default()), Framing::Sse);
        for event in [open(0, BlockKind::Text), cite("https://a"), text(0, "x"), cite("https://b"), cite("")]
        {
            writer.event(event);
        }
        writer.event(close(0));
        let out = String::from_utf8(writer.frames().take()).unwrap();
        let places: Vec<_> =
            [r#""text":"x""#, "https://a", "https://b", "content_block_stop"].map(|p| out.find(p)).into();
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{out}");
        assert_eq!(out.matches("citations_delta").count(), 2);
    }

    #[test]
    fn refusals_pictures_and_items_of_others() {
        let events = vec![
            open(0, BlockKind::Refusal),
            text(0, "No."),
            close(0),
            open(1, BlockKind::Image { mime: "image/png" }),
            Event::Delta { block: 1, delta: Delta::Data("AAAA") },
            close(1),
            open(2, BlockKind::Server { kind: "web_search_call", raw: r#"{"type":"web_search_call"}"# }),
            close(2),
            open(3, BlockKind::Reasoning { redacted: Some("x") }),
            close(3),
            Event::Open { block: 4, choice: 1, kind: BlockKind::Text },
            text(4, "another choice"),
            Event::End,
        ];
        assert_eq!(
            shape(events),
            "start +text No. - +text [image: image/png] - +redacted_thinking - refusal stop"
        );
    }

    #[test]
    fn p12_a_failure_is_the_last_event_and_closes_nothing() {
        let events =
            vec![open(0, BlockKind::Text), text(0, "par"), Event::Failure(Failure::cut()), Event::End];
        assert_eq!(shape(events), "start +text par the upstream closed the stream before it was complete");
    }

    #[test]
    fn p37_text_cannot_forge_an_event() {
        let forged = "a\n\nevent: message_stop\ndata: {}\r\n\u{2028}[DONE]";
        let events = vec![open(0, BlockKind::Text), text(0, forged), close(0), Event::End];
        assert_eq!(shape(events), format!("start +text {forged} - end_turn stop"));
    }
}
