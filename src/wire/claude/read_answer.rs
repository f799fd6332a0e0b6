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
use crate::error::Failure;
use crate::ir::{self, BlockKind, Event, Finish, ReadAnswer, Sink, ToolKind};
use crate::patch::Patch;
use crate::signature::Signature;

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
    call_ids: Vec<String>,
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
    Item {
        kind: String,
        raw: String,
        input: String,
    },
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
            call_ids: Vec::new(),
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
                let (kind, raw) = (kind.to_owned(), raw.to_owned());
                let content = Content::Item { kind, raw, input: String::new() };
                self.open.push(Open { index, number: 0, content });
            }
        }
        Ok(())
    }

    /// An id that no other call of the answer has.
    fn call_id(&mut self, given: &str) -> String {
        let taken = given.is_empty() || self.call_ids.iter().any(|id| id == given);
        let id = if taken { format!("toolu_{}_{}", self.seed, self.next) } else { given.to_owned() };
        self.call_ids.push(id.clone());
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
                if let Some(Open { content: Content::Item { raw, .. }, .. }) = self.find(index) {
                    let mut patch = Patch::new(raw.as_bytes());
                    for (key, value) in
                        [("content", delta.content), ("encrypted_content", delta.encrypted_content)]
                    {
                        if let Some(value) = value {
                            patch.set(0, key, value.get());
                        }
                    }
                    let patched = String::from_utf8(patch.apply());
                    *raw = patched.unwrap_or_default();
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
            Some(Open { content: Content::Item { input, .. }, .. }) => input.push_str(fragment),
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
            Content::Item { kind, raw, input } => return self.item(&kind, raw, input, sink),
            Content::Text | Content::Redacted | Content::Call(None) => {}
        }
        sink.event(Event::Close { block });
    }

    /// Passes an item of a built-in tool on, with the input that came in pieces.
    fn item(&mut self, kind: &str, raw: String, input: String, sink: &mut dyn Sink) {
        self.start("", "", sink);
        let whole = if crate::json::parse_any(input.as_bytes()).is_ok_and(|input| input.is_object()) {
            let mut patch = Patch::new(raw.as_bytes());
            patch.set(0, "input", input);
            String::from_utf8(patch.apply()).unwrap_or(raw)
        } else {
            raw
        };
        let block = self.next;
        self.next += 1;
        sink.event(Event::Open { block, choice: 0, kind: BlockKind::Server { kind, raw: &whole } });
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
