//! Upstream events or a whole body → IR events, through one state machine.
//!
//! Enters: the events of a stream, or a message. Leaves: IR events in the order that [`crate::ir::Event`]
//! promises. May go wrong: `error` events, JSON that cannot be read, and a stream that stops before it said
//! why; all three become [`Event::Failure`].
//!
//! Servers that only speak this format are forgiven: blocks without start or stop, a whole `input` in the
//! start of a block, a missing `message_stop`, `[DONE]`, call ids that are empty or repeated.

use super::events::{Block, Cited, Delta, Frame, Kind, Message, StopDetails, Word};
use super::finish_of;
use super::read_item::Item;
use crate::error::Failure;
use crate::ir::{self, BlockKind, Event, Finish, ReadAnswer, Sink, ToolKind};
use crate::signature::Signature;
use std::collections::HashSet;

/// Reads one answer.
#[derive(Debug)]
pub(super) struct Reader {
    /// For ids that the upstream does not give.
    seed: String,
    started: bool,
    ended: bool,
    /// Number of the next block.
    next: u32,
    /// Blocks that are open.
    open: Vec<Open>,
    /// Ids of calls so far.
    call_ids: HashSet<String>,
    /// Why it ended, once the upstream said.
    stop: Option<(Finish, Option<String>)>,
}

/// An open block.
#[derive(Debug)]
struct Open {
    /// The upstream's number.
    index: u64,
    /// The IR's number.
    number: u32,
    content: Content,
}

/// What an open block holds.
#[derive(Debug)]
enum Content {
    Text,
    /// With its signature, which comes last.
    Thinking(String),
    Redacted,
    /// A call: the input from the start of the block, until a fragment shows that it comes in pieces.
    Call(Option<String>),
    /// An item of a built-in tool, which is passed on whole.
    Item(Item),
}

impl Reader {
    /// Starts on an answer.
    pub(super) fn new(seed: &str) -> Self {
        Self {
            seed: seed.to_owned(),
            started: false,
            ended: false,
            next: 0,
            open: Vec::new(),
            call_ids: HashSet::new(),
            stop: None,
        }
    }

    fn fail(&mut self, failure: Failure, sink: &mut dyn Sink) {
        self.ended = true;
        sink.event(Event::Failure(failure));
    }

    fn start(&mut self, id: &str, model: &str, sink: &mut dyn Sink) {
        if !std::mem::replace(&mut self.started, true) {
            sink.event(Event::Start { id, model, created: None });
        }
    }

    fn take(&mut self, name: &str, data: &[u8], sink: &mut dyn Sink) -> Result<(), serde_json::Error> {
        let frame: Frame<'_> = serde_json::from_slice(data)?;
        let kind = if frame.kind.is_empty() { name } else { frame.kind.as_ref() };
        match kind {
            "content_block_delta" => {
                if let Some(delta) = frame.delta {
                    self.delta(frame.index, delta, sink);
                }
            }
            "content_block_start" => {
                if let Some(raw) = frame.content_block {
                    self.open(frame.index, raw.get(), sink)?;
                }
            }
            "content_block_stop" => self.close(frame.index, sink),
            "message_start" => {
                if let Some(raw) = frame.message {
                    let message: Message<'_> = serde_json::from_str(raw.get())?;
                    self.start(&word(message.id), &word(message.model), sink);
                    if let Some(counts) = message.usage {
                        sink.event(Event::Usage(counts.usage()));
                    }
                }
            }
            "message_delta" => {
                if let Some(delta) = frame.delta {
                    self.note_stop(delta.stop_reason, delta.stop_sequence, delta.stop_details);
                }
                if let Some(counts) = frame.usage {
                    self.start("", "", sink);
                    sink.event(Event::Usage(counts.usage()));
                }
            }
            "message_stop" => self.end(sink),
            "error" => self.fail(Failure::parse(0, data), sink),
            _ => {}
        }
        Ok(())
    }

    fn note_stop(
        &mut self,
        reason: Option<Word<'_>>,
        sequence: Option<Word<'_>>,
        details: Option<StopDetails<'_>>,
    ) {
        let Some(reason) = reason.filter(|reason| !reason.0.is_empty()) else { return };
        let finish = finish_of(&reason.0);
        let detail = match finish {
            Finish::StopSequence => sequence,
            Finish::Refusal => details.and_then(|details| details.explanation.or(details.category)),
            _ => None,
        };
        self.stop = Some((finish, detail.map(|word| word.0.into_owned())));
    }

    /// Opens a block that is known to the sink at once.
    fn emit_open(&mut self, index: u64, content: Content, kind: BlockKind<'_>, sink: &mut dyn Sink) -> u32 {
        self.start("", "", sink);
        let number = self.next;
        self.next += 1;
        self.open.push(Open { index, number, content });
        sink.event(Event::Open { block: number, choice: 0, kind });
        number
    }

    fn open(&mut self, index: u64, raw: &str, sink: &mut dyn Sink) -> Result<(), serde_json::Error> {
        // A number that is used again: the server forgot to close the block before.
        self.close(index, sink);
        let kind = serde_json::from_str::<Kind<'_>>(raw)?.kind;
        match kind.as_ref() {
            "text" => {
                // Opened by its first text, so that no empty block comes out.
                let block: Block<'_> = serde_json::from_str(raw)?;
                self.text(index, &word(block.text), sink);
                for source in block.citations.unwrap_or_default() {
                    self.cite(index, source, sink);
                }
            }
            "thinking" => {
                let block: Block<'_> = serde_json::from_str(raw)?;
                let content = Content::Thinking(word(block.signature).into_owned());
                self.emit_open(index, content, BlockKind::Reasoning { redacted: None }, sink);
                self.thinking(index, &word(block.thinking), sink);
            }
            "redacted_thinking" => {
                let block: Block<'_> = serde_json::from_str(raw)?;
                let data = word(block.data);
                let kind = BlockKind::Reasoning { redacted: Some(&data) };
                self.emit_open(index, Content::Redacted, kind, sink);
            }
            "tool_use" => {
                let block: Block<'_> = serde_json::from_str(raw)?;
                let id = self.call_id(&word(block.id));
                let name = word(block.name);
                let input = block.input.map(|raw| raw.get().trim()).filter(|raw| *raw != "null");
                let content = Content::Call(Some(input.unwrap_or("{}").to_owned()));
                let kind =
                    BlockKind::Tool { id: &id, name: &name, namespace: None, kind: ToolKind::Function };
                self.emit_open(index, content, kind, sink);
            }
            kind => {
                let content = Content::Item(Item::new(kind, raw));
                self.open.push(Open { index, number: 0, content });
            }
        }
        Ok(())
    }

    /// An id that no other call of the answer has.
    fn call_id(&mut self, given: &str) -> String {
        let taken = given.is_empty() || self.call_ids.contains(given);
        let id = if taken { format!("toolu_{}_{}", self.seed, self.next) } else { given.to_owned() };
        self.call_ids.insert(id.clone());
        id
    }

    fn find(&mut self, index: u64) -> Option<&mut Open> {
        self.open.iter_mut().rfind(|open| open.index == index)
    }

    fn delta(&mut self, index: u64, delta: Delta<'_>, sink: &mut dyn Sink) {
        match delta.kind.as_ref() {
            "text_delta" => self.text(index, &word(delta.text), sink),
            "thinking_delta" => self.thinking(index, &word(delta.thinking), sink),
            "input_json_delta" => self.input(index, &word(delta.partial_json), sink),
            "signature_delta" => {
                if let Some(Open { content: Content::Thinking(signature), .. }) = self.find(index) {
                    *signature = word(delta.signature).into_owned();
                }
            }
            "citations_delta" => {
                if let Some(source) = delta.citation {
                    self.cite(index, source, sink);
                }
            }
            "compaction_delta" => {
                if let Some(Open { content: Content::Item(item), .. }) = self.find(index) {
                    item.set("content", delta.content);
                    item.set("encrypted_content", delta.encrypted_content);
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, index: u64, text: &str, sink: &mut dyn Sink) {
        if text.is_empty() {
            return;
        }
        let number = match self.find(index) {
            Some(Open { number, content: Content::Text, .. }) => *number,
            Some(_) => return,
            None => self.emit_open(index, Content::Text, BlockKind::Text, sink),
        };
        sink.event(Event::Delta { block: number, delta: ir::Delta::Text(text) });
    }

    fn thinking(&mut self, index: u64, text: &str, sink: &mut dyn Sink) {
        if text.is_empty() {
            return;
        }
        let number = match self.find(index) {
            Some(Open { number, content: Content::Thinking(_), .. }) => *number,
            Some(_) => return,
            None => {
                let kind = BlockKind::Reasoning { redacted: None };
                self.emit_open(index, Content::Thinking(String::new()), kind, sink)
            }
        };
        sink.event(Event::Delta { block: number, delta: ir::Delta::Text(text) });
    }

    fn input(&mut self, index: u64, fragment: &str, sink: &mut dyn Sink) {
        if fragment.is_empty() {
            return;
        }
        match self.find(index) {
            Some(Open { number, content: Content::Call(whole), .. }) => {
                *whole = None;
                let block = *number;
                sink.event(Event::Delta { block, delta: ir::Delta::Arguments(fragment) });
            }
            Some(Open { content: Content::Item(item), .. }) => item.input(fragment),
            _ => {}
        }
    }

    fn cite(&mut self, index: u64, source: Cited<'_>, sink: &mut dyn Sink) {
        let number = match self.find(index) {
            Some(Open { number, content: Content::Text, .. }) => *number,
            Some(_) => return,
            None => self.emit_open(index, Content::Text, BlockKind::Text, sink),
        };
        sink.event(Event::Delta { block: number, delta: ir::Delta::Citation(source.citation()) });
    }

    fn close(&mut self, index: u64, sink: &mut dyn Sink) {
        let Some(at) = self.open.iter().rposition(|open| open.index == index) else { return };
        let open = self.open.remove(at);
        let block = open.number;
        match open.content {
            Content::Thinking(signature) => {
                if let Some(signature) = Signature::detect(signature) {
                    sink.event(Event::Delta { block, delta: ir::Delta::Signature(signature) });
                }
            }
            Content::Call(Some(whole)) => {
                sink.event(Event::Delta { block, delta: ir::Delta::Arguments(&whole) });
            }
            Content::Item(item) => return self.item(item, sink),
            Content::Text | Content::Redacted | Content::Call(None) => {}
        }
        sink.event(Event::Close { block });
    }

    /// Passes an item of a built-in tool on.
    fn item(&mut self, item: Item, sink: &mut dyn Sink) {
        self.start("", "", sink);
        let block = self.next;
        self.next += 1;
        let (kind, raw) = item.whole();
        sink.event(Event::Open { block, choice: 0, kind: BlockKind::Server { kind: &kind, raw: &raw } });
        sink.event(Event::Close { block });
    }

    /// The answer is complete.
    fn end(&mut self, sink: &mut dyn Sink) {
        self.start("", "", sink);
        while let Some(index) = self.open.first().map(|open| open.index) {
            self.close(index, sink);
        }
        let calls = !self.call_ids.is_empty();
        let (finish, detail) = self.stop.take().unwrap_or((Finish::End, None));
        let reason = match finish {
            Finish::End if calls => Finish::Tool,
            Finish::Tool if !calls => Finish::End,
            other => other,
        };
        sink.event(Event::Finish { choice: 0, reason, detail: detail.as_deref() });
        sink.event(Event::End);
        self.ended = true;
    }

    fn take_whole(&mut self, body: &[u8], sink: &mut dyn Sink) -> Result<(), serde_json::Error> {
        let kind = serde_json::from_slice::<Kind<'_>>(body)?.kind;
        let message: Message<'_> = serde_json::from_slice(body)?;
        let Some(content) = message.content.filter(|_| kind != "error") else {
            let failure = Failure::parse(0, body);
            self.fail(failure, sink);
            return Ok(());
        };
        self.start(&word(message.id), &word(message.model), sink);
        if let Some(counts) = message.usage {
            sink.event(Event::Usage(counts.usage()));
        }
        for (index, raw) in (0..).zip(content) {
            self.open(index, raw.get(), sink)?;
            self.close(index, sink);
        }
        self.note_stop(message.stop_reason, message.stop_sequence, message.stop_details);
        self.end(sink);
        Ok(())
    }
}

fn word(word: Option<Word<'_>>) -> ir::Str<'_> {
    word.map(|word| word.0).unwrap_or_default()
}

impl ReadAnswer for Reader {
    fn event(&mut self, name: &str, data: &[u8], sink: &mut dyn Sink) {
        let data = data.trim_ascii();
        if self.ended || data.is_empty() || data == b"[DONE]" {
            return;
        }
        if let Err(error) = self.take(name, data, sink) {
            self.fail(Failure::garbage(&error.to_string()), sink);
        }
    }

    fn whole(&mut self, body: &[u8], sink: &mut dyn Sink) {
        if self.ended {
            return;
        }
        if let Err(error) = self.take_whole(body, sink) {
            self.fail(Failure::garbage(&error.to_string()), sink);
        }
    }

    fn eof(&mut self, sink: &mut dyn Sink) {
        if self.ended {
            return;
        }
        if self.stop.is_some() {
            self.end(sink);
        } else {
            self.fail(Failure::cut(), sink);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Answer, Block as Folded, Citation, Fold, Usage};
    use crate::signature::Vendor;

    fn stream(events: &[&str]) -> Answer {
        let (mut reader, mut fold) = (Reader::new("5eed"), Fold::default());
        for event in events {
            reader.event("", event.as_bytes(), &mut fold);
        }
        reader.eof(&mut fold);
        fold.into_answer()
    }

    fn whole(body: &str) -> Answer {
        let (mut reader, mut fold) = (Reader::new("5eed"), Fold::default());
        reader.whole(body.as_bytes(), &mut fold);
        fold.into_answer()
    }

    const START: &str = r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"usage":{"input_tokens":10,"cache_read_input_tokens":80,"output_tokens":1}}}"#;

    fn end(reason: &str) -> String {
        format!(
            r#"{{"type":"message_delta","delta":{{"stop_reason":"{reason}","stop_sequence":null}},"usage":{{"input_tokens":0,"output_tokens":7}}}}"#
        )
    }

    fn open(index: u32, block: &str) -> String {
        format!(r#"{{"type":"content_block_start","index":{index},"content_block":{block}}}"#)
    }

    fn delta(index: u32, delta: &str) -> String {
        format!(r#"{{"type":"content_block_delta","index":{index},"delta":{delta}}}"#)
    }

    fn stop(index: u32) -> String {
        format!(r#"{{"type":"content_block_stop","index":{index}}}"#)
    }

    #[test]
    fn a_stream_and_a_body_give_the_same_answer() {
        let streamed = stream(&[
            START,
            r#"{"type":"ping"}"#,
            &open(0, r#"{"type":"thinking","thinking":"","signature":""}"#),
            &delta(0, r#"{"type":"thinking_delta","thinking":"pl"}"#),
            &delta(0, r#"{"type":"thinking_delta","thinking":"an"}"#),
            r#"{"type":"ping"}"#,
            &delta(0, r#"{"type":"signature_delta","signature":"EpYBCkYICxgCKkBOEZXfAg3lng1l"}"#),
            &stop(0),
            &open(1, r#"{"type":"redacted_thinking","data":"secret"}"#),
            &stop(1),
            &open(2, r#"{"type":"text","text":""}"#),
            &delta(2, r#"{"type":"text_delta","text":"It is \"sunny\"."}"#),
            &delta(
                2,
                r#"{"type":"citations_delta","citation":{"type":"web_search_result_location","url":"https://e","title":"E","cited_text":"sun","encrypted_index":"x"}}"#,
            ),
            &stop(2),
            &open(3, r#"{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{}}"#),
            &delta(3, r#"{"type":"input_json_delta","partial_json":"{\"query\":"}"#),
            &delta(3, r#"{"type":"input_json_delta","partial_json":"\"x\"}"}"#),
            &stop(3),
            &open(4, r#"{"type":"tool_use","id":"toolu_1","name":"f","input":{}}"#),
            &delta(4, r#"{"type":"input_json_delta","partial_json":""}"#),
            &delta(4, r#"{"type":"input_json_delta","partial_json":"{\"a\":1}"}"#),
            &stop(4),
            &end("tool_use"),
            r#"{"type":"message_stop"}"#,
        ]);
        let body = whole(
            r#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"thinking","thinking":"plan","signature":"EpYBCkYICxgCKkBOEZXfAg3lng1l"},{"type":"redacted_thinking","data":"secret"},{"type":"text","text":"It is \"sunny\".","citations":[{"type":"web_search_result_location","url":"https://e","title":"E","cited_text":"sun","encrypted_index":"x"}]},{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{"query":"x"}},{"type":"tool_use","id":"toolu_1","name":"f","input":{"a":1}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":10,"cache_read_input_tokens":80,"output_tokens":7}}"#,
        );
        assert_eq!(streamed, body);
        assert!(body.complete && body.failure.is_none());
        let [
            Folded::Reasoning { parts, .. },
            _,
            Folded::Text { citations, .. },
            Folded::Server { kind, raw },
            _,
        ] = &body.choices[0].blocks[..]
        else {
            panic!("{body:?}")
        };
        assert_eq!(parts, &["plan"]);
        let cited = Citation {
            url: "https://e".into(),
            title: "E".into(),
            quote: "sun".into(),
            ..Citation::default()
        };
        assert_eq!(citations, &[cited]);
        assert_eq!((kind.as_str(), raw.contains(r#""input":{"query":"x"}"#)), ("server_tool_use", true));
        let usage = Usage { input: Some(10), cache_read: Some(80), output: Some(7), ..Usage::default() };
        assert_eq!(body.usage, usage);
    }

    #[test]
    fn hidden_thinking_keeps_its_signature() {
        let answer = stream(&[
            START,
            &open(0, r#"{"type":"thinking","thinking":"","signature":""}"#),
            &delta(0, r#"{"type":"signature_delta","signature":"not known"}"#),
            &stop(0),
            &end("end_turn"),
        ]);
        let [Folded::Reasoning { parts, signature: Some(signature), .. }] = &answer.choices[0].blocks[..]
        else {
            panic!("{answer:?}")
        };
        assert!(parts.is_empty() && signature.vendor == Vendor::Unknown);
    }

    #[test]
    fn a_stream_ends_well_only_when_it_said_why() {
        let text = [open(0, r#"{"type":"text","text":"a"}"#)];
        let complete = stream(&[START, &text[0], &end("max_tokens")]);
        assert!(complete.complete);
        assert_eq!(complete.choices[0].finish, Some(Finish::Length));
        let cut = stream(&[START, &text[0], &stop(0)]);
        assert_eq!((cut.complete, cut.failure), (false, Some(Failure::cut())));
        let empty = stream(&[]);
        assert_eq!(empty.failure, Some(Failure::cut()));
    }

    #[test]
    fn errors_are_failures_and_nothing_follows_them() {
        let answer = stream(&[
            START,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            &end("end_turn"),
            r#"{"type":"message_stop"}"#,
        ]);
        let failure = answer.failure.unwrap();
        assert_eq!((failure.status, failure.message.as_str(), answer.complete), (529, "Overloaded", false));
        assert_eq!(
            whole(r#"{"type":"error","error":{"type":"api_error","message":"m"}}"#).failure.unwrap().status,
            500
        );
        for garbage in ["<html>", "{\"type\":", "[]", r#"{"type":"message_start","message":7}"#] {
            assert_eq!(stream(&[garbage]).failure.unwrap().status, 502, "{garbage}");
            assert_eq!(whole(garbage).failure.unwrap().status, 502, "{garbage}");
        }
    }

    #[test]
    fn calls_decide_about_the_reason_but_not_over_a_limit() {
        let body = |content: &str, reason: &str| {
            whole(&format!(r#"{{"content":[{content}],"stop_reason":"{reason}"}}"#)).choices[0].finish
        };
        let call = r#"{"type":"tool_use","id":"t","name":"f","input":{}}"#;
        assert_eq!(body(call, "end_turn"), Some(Finish::Tool));
        assert_eq!(body(call, "max_tokens"), Some(Finish::Length));
        assert_eq!(body("", "tool_use"), Some(Finish::End));
        assert_eq!(body("", "model_context_window_exceeded"), Some(Finish::Context));
        assert_eq!(body(r#"{"type":"text","text":""}"#, "pause_turn"), Some(Finish::Pause));
    }

    #[test]
    fn details_of_the_reason_are_kept() {
        let choice = |end: &str| whole(&format!(r#"{{"content":[],{end}}}"#)).choices.remove(0);
        assert_eq!(
            choice(r#""stop_reason":"stop_sequence","stop_sequence":"END""#).detail.as_deref(),
            Some("END")
        );
        let refusal = choice(
            r#""stop_reason":"refusal","stop_details":{"type":"refusal","category":"bio","explanation":null}"#,
        );
        assert_eq!((refusal.finish, refusal.detail.as_deref()), (Some(Finish::Refusal), Some("bio")));
    }

    #[test]
    fn servers_that_only_speak_the_format_are_forgiven() {
        // No start, no stops, whole inputs, no ids, numbers used again, [DONE].
        let answer = stream(&[
            &delta(0, r#"{"type":"text_delta","text":"a"}"#),
            &open(1, r#"{"type":"tool_use","id":"","name":"f","input":{"a":1}}"#),
            &open(1, r#"{"type":"tool_use","id":"","name":"g"}"#),
            &end("tool_use"),
            "[DONE]",
        ]);
        assert!(answer.complete);
        let [
            Folded::Text { .. },
            Folded::Tool { id: a, arguments: whole, .. },
            Folded::Tool { id: b, arguments: none, .. },
        ] = &answer.choices[0].blocks[..]
        else {
            panic!("{answer:?}")
        };
        assert_eq!((whole.as_str(), none.as_str()), (r#"{"a":1}"#, "{}"));
        assert!(a != b && a.starts_with("toolu_5eed_"));
    }
}
