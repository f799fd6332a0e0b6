//! One candidate of an answer → events.
//!
//! Enters: the candidate's pieces in the order in which they came. Leaves: blocks that open, grow and close;
//! the reason at the end. May go wrong: nothing.
//!
//! Text goes on in the block that is open as long as it is of the same kind and the block is not signed: what
//! was signed must not grow.

use super::chunk::{Blob, Candidate, FunctionCall, Part};
use super::{finish_of, read_sources};
use crate::ir::{BlockKind, Delta, Event, Finish, Sink, ToolKind};
use crate::json;
use crate::signature::{Signature, Vendor, detect};
use serde_json::value::RawValue;
use std::collections::HashSet;

/// Numbers and ids that are unique in the answer.
#[derive(Debug)]
pub(super) struct Shared {
    seed: String,
    blocks: u32,
    calls: u32,
    ids: HashSet<String>,
}

/// A candidate so far.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub(super) index: u32,
    open: Option<Open>,
    called: bool,
    /// Why it ended, and the vendor's words about it.
    pub(super) finish: Option<(Finish, String)>,
}

/// The block that text goes to.
#[derive(Debug)]
struct Open {
    block: u32,
    thought: bool,
    /// Visible text so far: sources name positions in it.
    text: String,
    /// Goes out behind the text.
    signature: Option<Signature<'static>>,
}

impl Choice {
    pub(super) fn new(index: u32) -> Self {
        Self { index, ..Self::default() }
    }

    /// Takes what a chunk says.
    pub(super) fn candidate(&mut self, candidate: &Candidate<'_>, shared: &mut Shared, sink: &mut dyn Sink) {
        let parts = candidate.content.as_ref().and_then(|content| content.parts.as_ref());
        for part in parts.into_iter().flatten() {
            self.part(part, shared, sink);
        }
        if let Some(Open { block, thought: false, text, .. }) = &self.open {
            let block = *block;
            let mut cite = |citation| sink.event(Event::Delta { block, delta: Delta::Citation(citation) });
            if let Some(raw) = candidate.grounding_metadata {
                read_sources::grounding(raw.get(), text, &mut cite);
            }
            if let Some(raw) = candidate.citation_metadata {
                read_sources::citations(raw.get(), text, &mut cite);
            }
            if let Some(logprobs) =
                candidate.logprobs_result.and_then(|raw| read_sources::logprobs(raw.get()))
            {
                sink.event(Event::Delta { block, delta: Delta::Logprobs(&logprobs) });
            }
        }
        let word: &str = &candidate.finish_reason;
        if !word.is_empty() && word != "FINISH_REASON_UNSPECIFIED" {
            let detail = match (&*candidate.finish_message, word) {
                ("", "STOP" | "MAX_TOKENS") => "",
                ("", word) => word,
                (message, _) => message,
            };
            self.finish = Some((finish_of(word), detail.to_owned()));
        }
    }

    fn part(&mut self, part: &Part<'_>, shared: &mut Shared, sink: &mut dyn Sink) {
        let thought = part.thought == Some(true);
        if let Some(call) = &part.function_call {
            return self.call(call, &part.thought_signature, shared, sink);
        }
        if let Some(blob) = &part.inline_data {
            // A picture the model drew while thinking is not its answer.
            if !thought {
                self.blob(blob, shared, sink);
            }
            return;
        }
        for (kind, raw) in [
            ("executableCode", part.executable_code),
            ("codeExecutionResult", part.code_execution_result),
            ("toolCall", part.tool_call),
            ("toolResponse", part.tool_response),
            ("fileData", part.file_data),
        ] {
            if let Some(raw) = raw {
                let raw = format!("{{\"{kind}\":{}}}", raw.get());
                return self.whole_block(BlockKind::Server { kind, raw: &raw }, None, shared, sink);
            }
        }
        self.say(thought, &part.text, &part.thought_signature, shared, sink);
    }

    /// Text or thinking, and a signature that may come without either.
    fn say(&mut self, thought: bool, text: &str, signature: &str, shared: &mut Shared, sink: &mut dyn Sink) {
        let fits = |open: &Open| open.thought == thought && open.signature.is_none();
        if !text.is_empty() && !self.open.as_ref().is_some_and(fits) {
            self.close(sink);
            self.open_block(thought, shared, sink);
        }
        if let (Some(open), false) = (&mut self.open, text.is_empty()) {
            if !thought {
                open.text.push_str(text);
            }
            sink.event(Event::Delta { block: open.block, delta: Delta::Text(text) });
        }
        let Some(signature) = signed(signature) else { return };
        if self.open.as_ref().is_none_or(|open| open.signature.is_some()) {
            // It hangs on nothing: a block of its own keeps it for the next turn.
            self.close(sink);
            self.open_block(true, shared, sink);
        }
        if let Some(open) = &mut self.open {
            open.signature = Some(signature);
        }
    }

    fn open_block(&mut self, thought: bool, shared: &mut Shared, sink: &mut dyn Sink) {
        let block = shared.block();
        let kind = if thought { BlockKind::Reasoning { redacted: None } } else { BlockKind::Text };
        sink.event(Event::Open { block, choice: self.index, kind });
        self.open = Some(Open { block, thought, text: String::new(), signature: None });
    }

    fn close(&mut self, sink: &mut dyn Sink) {
        if let Some(Open { block, signature, .. }) = self.open.take() {
            if let Some(signature) = signature {
                sink.event(Event::Delta { block, delta: Delta::Signature(signature) });
            }
            sink.event(Event::Close { block });
        }
    }

    fn call(&mut self, call: &FunctionCall<'_>, signature: &str, shared: &mut Shared, sink: &mut dyn Sink) {
        if call.name.is_empty() {
            return;
        }
        self.close(sink);
        self.called = true;
        let id = shared.call_id(&call.id);
        let block = shared.block();
        let kind = BlockKind::Tool { id: &id, name: &call.name, namespace: None, kind: ToolKind::Function };
        sink.event(Event::Open { block, choice: self.index, kind });
        let arguments = call.args.map(RawValue::get).filter(|raw| *raw != "null").unwrap_or("{}");
        sink.event(Event::Delta { block, delta: Delta::Arguments(arguments) });
        if let Some(signature) = signed(signature) {
            sink.event(Event::Delta { block, delta: Delta::Signature(signature) });
        }
        sink.event(Event::Close { block });
    }

    fn blob(&mut self, blob: &Blob<'_>, shared: &mut Shared, sink: &mut dyn Sink) {
        let (mime, data) = (&*blob.mime_type, &*blob.data);
        if mime.starts_with("image/") {
            return self.whole_block(BlockKind::Image { mime }, Some(Delta::Data(data)), shared, sink);
        }
        let mut raw = Vec::new();
        json::object(&mut raw, |o| {
            o.object("inlineData", |o| {
                o.str("mimeType", mime);
                o.str("data", data);
            });
        });
        let raw = String::from_utf8(raw).unwrap_or_default();
        self.whole_block(BlockKind::Server { kind: "inlineData", raw: &raw }, None, shared, sink);
    }

    fn whole_block(
        &mut self,
        kind: BlockKind<'_>,
        delta: Option<Delta<'_>>,
        shared: &mut Shared,
        sink: &mut dyn Sink,
    ) {
        self.close(sink);
        let block = shared.block();
        sink.event(Event::Open { block, choice: self.index, kind });
        if let Some(delta) = delta {
            sink.event(Event::Delta { block, delta });
        }
        sink.event(Event::Close { block });
    }

    /// Nothing more comes.
    pub(super) fn end(&mut self, sink: &mut dyn Sink) {
        self.close(sink);
        let Some((reason, detail)) = self.finish.take() else { return };
        // The token limit and filters win over calls; anything else with calls is for the client to go on.
        let reason = match reason {
            Finish::Length | Finish::Filter => reason,
            _ if self.called => Finish::Tool,
            _ => reason,
        };
        let detail = Some(detail.as_str()).filter(|detail| !detail.is_empty());
        sink.event(Event::Finish { choice: self.index, reason, detail });
    }
}

impl Shared {
    pub(super) fn new(seed: &str) -> Self {
        Self { seed: seed.to_owned(), blocks: 0, calls: 0, ids: HashSet::new() }
    }

    fn block(&mut self) -> u32 {
        let block = self.blocks;
        self.blocks += 1;
        block
    }

    /// The upstream's id, or one of our own when it has none or repeats itself.
    fn call_id(&mut self, given: &str) -> String {
        self.calls += 1;
        let id = if given.is_empty() || self.ids.contains(given) {
            format!("call_{}_{}", self.seed, self.calls)
        } else {
            given.to_owned()
        };
        self.ids.insert(id.clone());
        id
    }
}

/// A signature of Google's unless its form says whose it is: Claude answers through Antigravity.
pub(super) fn signed(value: &str) -> Option<Signature<'static>> {
    let vendor = match detect(value) {
        Vendor::Unknown => Vendor::Gemini,
        vendor => vendor,
    };
    Signature::of(vendor, value.to_owned())
}
