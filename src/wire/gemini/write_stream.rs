//! Events → stream of a client of this format.
//!
//! Enters: events. Leaves: `data:` lines with one response each; text and thinking as they come, calls whole
//! and in the order in which they were opened, finish reasons and usage once, on the last chunk. May go wrong:
//! a failure becomes an error object, and nothing follows it.

use super::answer_parts::{self, Call};
use super::envelope::wrap_answer;
use crate::Protocol;
use crate::error::Failure;
use crate::frames::{Frames, Framing};
use crate::ir::{BlockKind, Citation, Context, Delta, Event, Finish, Sink, Usage, WriteStream};
use crate::json::{self, Array, Object};
use std::collections::VecDeque;
use std::sync::Arc;

/// Writes one stream.
#[derive(Debug)]
pub(super) struct Writer {
    frames: Frames,
    head: Head,
    blocks: Vec<Block>,
    choices: Vec<Choice>,
    usage: Usage,
    over: bool,
}

/// What every chunk repeats.
#[derive(Debug)]
struct Head {
    context: Arc<Context>,
    id: String,
    model: String,
}

#[derive(Debug)]
struct Block {
    number: u32,
    choice: u32,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Text,
    Thought {
        /// A text was sent, so that a further part has to be set off.
        started: bool,
    },
    Call,
    Image {
        mime: String,
    },
    /// Nothing of it can be shown, or all of it was.
    Silent,
}

/// A candidate so far.
#[derive(Debug, Default)]
struct Choice {
    index: u32,
    /// Calls that have not been sent, in order of opening: block, whether it is closed, call.
    calls: VecDeque<(u32, bool, Call)>,
    /// Visible text: sources name positions in it.
    text: String,
    citations: Vec<Citation<'static>>,
    logprobs: Vec<String>,
    finish: Option<(Finish, Option<String>)>,
}

impl Head {
    /// Adds a chunk.
    fn send(&self, frames: &mut Frames, fill: impl FnOnce(&mut Object<'_>)) {
        frames.event("", |out| {
            wrap_answer(out, &self.context, |out| {
                json::object(out, |o| {
                    fill(o);
                    identity(o, &self.context, &self.model, &self.id);
                });
            });
        });
    }

    /// Adds a chunk with parts of one candidate.
    fn send_parts(&self, frames: &mut Frames, choice: u32, parts: impl FnOnce(&mut Array<'_>)) {
        self.send(frames, |o| {
            o.array("candidates", |a| {
                a.object(|o| {
                    content(o, parts);
                    o.uint("index", u64::from(choice));
                });
            });
        });
    }
}

/// `content` of a candidate.
pub(super) fn content(o: &mut Object<'_>, parts: impl FnOnce(&mut Array<'_>)) {
    o.object("content", |o| {
        o.array("parts", parts);
        o.str("role", "model");
    });
}

/// `modelVersion` and `responseId`.
pub(super) fn identity(o: &mut Object<'_>, context: &Context, model: &str, id: &str) {
    let model = if context.model.is_empty() { model } else { &context.model };
    let id = if id.is_empty() { &context.seed } else { id };
    o.opt_str("modelVersion", Some(model).filter(|model| !model.is_empty()));
    o.opt_str("responseId", Some(id).filter(|id| !id.is_empty()));
}

impl Writer {
    pub(super) fn new(context: Arc<Context>, framing: Framing) -> Self {
        Self {
            frames: Frames::new(framing),
            head: Head { context, id: String::new(), model: String::new() },
            blocks: Vec::new(),
            choices: Vec::new(),
            usage: Usage::default(),
            over: false,
        }
    }

    fn choice(&mut self, index: u32) -> usize {
        if let Some(at) = self.choices.iter().position(|choice| choice.index == index) {
            return at;
        }
        let at = self.choices.partition_point(|choice| choice.index < index);
        self.choices.insert(at, Choice { index, ..Choice::default() });
        at
    }

    fn open(&mut self, number: u32, index: u32, kind: &BlockKind<'_>) {
        let at = self.choice(index);
        let kind = match *kind {
            BlockKind::Text | BlockKind::Refusal => Kind::Text,
            BlockKind::Reasoning { redacted: None } => Kind::Thought { started: false },
            BlockKind::Reasoning { redacted: Some(data) } => {
                let signature = answer_parts::redacted_signature(data);
                self.head.send_parts(&mut self.frames, index, |a| {
                    answer_parts::text_part(a, "", true, Some(&signature));
                });
                Kind::Silent
            }
            BlockKind::Tool { id, name, kind, .. } => {
                let (id, name) = (id.to_owned(), name.to_owned());
                let call = Call { id, name, kind, arguments: String::new(), signature: None };
                if let Some(choice) = self.choices.get_mut(at) {
                    choice.calls.push_back((number, false, call));
                }
                Kind::Call
            }
            BlockKind::Image { mime } => Kind::Image { mime: mime.to_owned() },
            BlockKind::Server { kind, raw } => {
                if answer_parts::is_own_item(kind) {
                    self.head.send_parts(&mut self.frames, index, |a| a.raw(raw));
                }
                Kind::Silent
            }
        };
        self.blocks.push(Block { number, choice: index, kind });
    }

    fn delta(&mut self, number: u32, delta: Delta<'_>) {
        let Self { frames, head, blocks, choices, .. } = self;
        let Some(block) = blocks.iter_mut().rfind(|block| block.number == number) else { return };
        let Some(choice) = choices.iter_mut().find(|choice| choice.index == block.choice) else { return };
        match (&mut block.kind, delta) {
            (Kind::Text, Delta::Text(text)) if !text.is_empty() => {
                choice.text.push_str(text);
                head.send_parts(frames, choice.index, |a| answer_parts::text_part(a, text, false, None));
            }
            (Kind::Thought { started }, Delta::Text(text)) if !text.is_empty() => {
                *started = true;
                head.send_parts(frames, choice.index, |a| answer_parts::text_part(a, text, true, None));
            }
            (Kind::Thought { started: true }, Delta::Part) => {
                head.send_parts(frames, choice.index, |a| answer_parts::text_part(a, "\n\n", true, None));
            }
            (Kind::Text | Kind::Thought { .. }, Delta::Signature(signature)) => {
                let thought = matches!(block.kind, Kind::Thought { .. });
                if let Some(value) = answer_parts::signature_text(&signature) {
                    head.send_parts(frames, choice.index, |a| {
                        answer_parts::text_part(a, "", thought, Some(&value));
                    });
                }
            }
            (Kind::Image { mime }, Delta::Data(data)) => {
                head.send_parts(frames, choice.index, |a| answer_parts::image_part(a, mime, data));
            }
            (Kind::Call, delta) => choice.call_delta(number, delta),
            (_, Delta::Citation(citation)) => choice.citations.push(citation.into_owned()),
            (_, Delta::Logprobs(text)) => choice.logprobs.push(text.to_owned()),
            _ => {}
        }
    }

    fn close(&mut self, number: u32) {
        let Some(at) = self.blocks.iter().rposition(|block| block.number == number) else { return };
        let block = self.blocks.swap_remove(at);
        if !matches!(block.kind, Kind::Call) {
            return;
        }
        let at = self.choice(block.choice);
        let Some(choice) = self.choices.get_mut(at) else { return };
        if let Some(waiting) = choice.calls.iter_mut().find(|(block, ..)| *block == number) {
            waiting.1 = true;
        }
        while choice.calls.front().is_some_and(|(_, closed, _)| *closed) {
            if let Some((.., call)) = choice.calls.pop_front() {
                self.head.send_parts(&mut self.frames, choice.index, |a| call.write(a));
            }
        }
    }

    fn fail(&mut self, failure: &Failure) {
        let body = failure.render(Protocol::Gemini);
        self.frames.event("", |out| out.extend_from_slice(&body));
        self.frames.end();
    }

    fn end(&mut self) {
        if self.choices.is_empty() {
            self.choice(0);
        }
        let Self { frames, head, choices, usage, .. } = self;
        head.send(frames, |o| {
            o.array("candidates", |a| {
                for choice in choices.iter() {
                    // Empty text, as Google ends streams: clients exist that read the parts of every chunk.
                    a.object(|o| {
                        content(o, |a| answer_parts::text_part(a, "", false, None));
                        choice.finish(o);
                    });
                }
            });
            answer_parts::usage(o, usage);
        });
        self.frames.end();
    }
}

impl Choice {
    fn call_delta(&mut self, number: u32, delta: Delta<'_>) {
        let Some((.., call)) = self.calls.iter_mut().find(|(block, ..)| *block == number) else { return };
        match delta {
            Delta::Arguments(more) => call.arguments.push_str(more),
            Delta::Signature(signature) => call.signature = answer_parts::signature_text(&signature),
            _ => {}
        }
    }

    fn finish(&self, o: &mut Object<'_>) {
        let (reason, detail) = match &self.finish {
            Some((reason, detail)) => (*reason, detail.as_deref()),
            None => (Finish::End, None),
        };
        answer_parts::finish(o, reason, detail);
        o.uint("index", u64::from(self.index));
        answer_parts::grounding(o, &self.citations, &self.text);
        answer_parts::logprobs(o, &self.logprobs);
    }
}

impl Sink for Writer {
    fn event(&mut self, event: Event<'_>) {
        if self.over {
            return;
        }
        match event {
            Event::Start { id, model, .. } => {
                id.clone_into(&mut self.head.id);
                model.clone_into(&mut self.head.model);
            }
            Event::Open { block, choice, kind } => self.open(block, choice, &kind),
            Event::Delta { block, delta } => self.delta(block, delta),
            Event::Close { block } => self.close(block),
            Event::Usage(usage) => self.usage.merge(&usage),
            Event::Finish { choice, reason, detail } => {
                let at = self.choice(choice);
                if let Some(choice) = self.choices.get_mut(at) {
                    choice.finish = Some((reason, detail.map(str::to_owned)));
                }
            }
            Event::Failure(failure) => {
                self.fail(&failure);
                self.over = true;
            }
            Event::End => {
                self.end();
                self.over = true;
            }
        }
    }
}

impl WriteStream for Writer {
    fn frames(&mut self) -> &mut Frames {
        &mut self.frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemini::{reader, write_answer};
    use crate::ir::{Answer, Block, Fold, ToolKind};
    use crate::signature::{Signature, Vendor};
    use crate::sse;
    use crate::target::Profile;
    use proptest::prelude::*;

    fn context() -> Context {
        Context { model: "shown".to_owned(), seed: "seed".to_owned(), ..Context::default() }
    }

    fn written(context: &Context, framing: Framing, events: &[Event<'_>]) -> String {
        let mut writer = Writer::new(Arc::new(context.clone()), framing);
        for event in events {
            writer.event(event.clone());
        }
        String::from_utf8(writer.frames().take()).unwrap()
    }

    fn text(block: u32, text: &str) -> Event<'_> {
        Event::Delta { block, delta: Delta::Text(text) }
    }

    fn open(block: u32, kind: BlockKind<'_>) -> Event<'_> {
        Event::Open { block, choice: 0, kind }
    }

    fn tool(block: u32, id: &str) -> Event<'_> {
        open(block, BlockKind::Tool { id, name: "f", namespace: None, kind: ToolKind::Function })
    }

    fn arguments(block: u32, text: &str) -> Event<'_> {
        Event::Delta { block, delta: Delta::Arguments(text) }
    }

    const START: Event<'_> = Event::Start { id: "r", model: "m", created: None };

    fn finish(reason: Finish) -> Event<'static> {
        Event::Finish { choice: 0, reason, detail: None }
    }

    #[test]
    fn text_comes_as_it_comes_and_the_end_once() {
        let events = [
            START,
            open(0, BlockKind::Text),
            text(0, "Hel"),
            text(0, ""),
            text(0, "lo"),
            Event::Usage(Usage {
                input: Some(80),
                cache_read: Some(20),
                output: Some(30),
                reasoning: Some(22),
                ..Usage::default()
            }),
            Event::Close { block: 0 },
            finish(Finish::End),
            Event::End,
        ];
        let part = |text: &str| {
            format!(
                r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}],"role":"model"}},"index":0}}],"modelVersion":"shown","responseId":"r"}}"#
            )
        };
        let last = r#"{"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":100,"candidatesTokenCount":8,"thoughtsTokenCount":22,"cachedContentTokenCount":20,"totalTokenCount":130},"modelVersion":"shown","responseId":"r"}"#;
        assert_eq!(
            written(&context(), Framing::Sse, &events),
            format!("data: {}\n\ndata: {}\n\ndata: {last}\n\n", part("Hel"), part("lo"))
        );
        let array = written(&context(), Framing::JsonArray, &events);
        assert_eq!(array, format!("[{},{},{last}]", part("Hel"), part("lo")));
        let enveloped = written(&Context { envelope: true, ..context() }, Framing::Sse, &events);
        assert!(enveloped.starts_with(&format!("data: {{\"response\":{}}}\n\n", part("Hel"))));
    }

    #[test]
    fn calls_are_whole_and_in_order() {
        let events = [
            START,
            tool(0, "a"),
            tool(1, "b"),
            arguments(1, r#"{"city":"Rome"}"#),
            Event::Close { block: 1 },
            arguments(0, r#"{"city":"#),
            arguments(0, r#""Paris"}"#),
            Event::Delta {
                block: 0,
                delta: Delta::Signature(Signature { vendor: Vendor::Openai, value: "gAAA-_".into() }),
            },
            Event::Close { block: 0 },
            finish(Finish::Tool),
            Event::End,
        ];
        let out = written(&context(), Framing::Lines, &events);
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains(
            r#"{"functionCall":{"id":"a","name":"f","args":{"city":"Paris"}},"thoughtSignature":"gAAA-_"}"#
        ));
        assert!(lines[1].contains(r#""args":{"city":"Rome"}"#));
        assert!(lines[2].contains(r#""finishReason":"STOP""#));
    }

    #[test]
    fn arguments_that_were_cut_are_legal_json() {
        let events = [
            START,
            tool(0, "a"),
            arguments(0, r#"{"city":"#),
            Event::Close { block: 0 },
            finish(Finish::Length),
            Event::End,
        ];
        let out = written(&context(), Framing::Lines, &events);
        assert!(out.contains(r#""args":{"arguments":"{\"city\":"}"#) && out.contains("MAX_TOKENS"));
    }

    #[test]
    fn a_failure_is_the_last_thing() {
        let events = [
            START,
            open(0, BlockKind::Text),
            text(0, "par"),
            Event::Failure(Failure::new(500, "exploded")),
            Event::End,
        ];
        let out = written(&context(), Framing::Sse, &events);
        assert!(out.ends_with(
            "data: {\"error\":{\"code\":500,\"message\":\"exploded\",\"status\":\"INTERNAL\"}}\n\n"
        ));
        assert!(!out.contains("finishReason"));
        assert!(written(&context(), Framing::JsonArray, &events).ends_with("}}]"));
    }

    #[test]
    fn reasons_and_words_about_them() {
        for (reason, detail, expected) in [
            (Finish::Refusal, Some("No."), r#""finishReason":"SAFETY","finishMessage":"No.""#),
            (Finish::Filter, Some("SPII"), r#""finishReason":"SPII","index""#),
            (Finish::StopSequence, Some("END"), r#""finishReason":"STOP","index""#),
            (Finish::BadCall, None, r#""finishReason":"MALFORMED_FUNCTION_CALL","index""#),
        ] {
            let out = written(
                &context(),
                Framing::Lines,
                &[START, Event::Finish { choice: 0, reason, detail }, Event::End],
            );
            assert!(out.contains(expected), "{out}");
        }
    }

    #[test]
    fn p37_text_cannot_forge_an_event() {
        let nasty = "data: x\n\n[DONE]\r\u{2028}</script>\0\"";
        let events = [
            START,
            open(0, BlockKind::Text),
            text(0, nasty),
            Event::Close { block: 0 },
            finish(Finish::End),
            Event::End,
        ];
        let out = written(&context(), Framing::Sse, &events);
        assert_eq!(read_back(&out).text(), nasty);
        assert_eq!(out.matches("\n\n").count(), 2);
    }

    /// Reads a written stream.
    fn read_back(out: &str) -> Answer {
        let (mut reader, mut fold) = (reader(Profile::Gemini, "seed"), Fold::default());
        let mut decoder = sse::Decoder::default();
        decoder.feed(out.as_bytes(), |event| reader.event(event.name, event.data, &mut fold)).unwrap();
        reader.eof(&mut fold);
        fold.into_answer()
    }

    /// Events of blocks in sequence.
    fn events() -> impl Strategy<Value = Vec<(u8, String)>> {
        prop::collection::vec((0_u8..6, "[a-zé\n\"]{1,8}"), 0..8)
    }

    fn play(blocks: &[(u8, String)], sink: &mut dyn Sink) {
        sink.event(START);
        for (n, (kind, words)) in blocks.iter().enumerate() {
            let (block, id) = (n as u32, format!("id{n}"));
            let quoted = format!("{{\"w\":{}}}", json::string(words));
            let signature = Signature { vendor: Vendor::Gemini, value: "c2ln".into() };
            let (kind, deltas): (BlockKind<'_>, Vec<Delta<'_>>) = match kind {
                0 => (BlockKind::Text, vec![Delta::Text(words), Delta::Text(words)]),
                1 => (
                    BlockKind::Reasoning { redacted: None },
                    vec![Delta::Text(words), Delta::Part, Delta::Text(words)],
                ),
                2 => (
                    BlockKind::Tool { id: &id, name: "f", namespace: None, kind: ToolKind::Function },
                    vec![Delta::Arguments(&quoted), Delta::Signature(signature)],
                ),
                3 => (BlockKind::Image { mime: "image/png" }, vec![Delta::Data("AAAA")]),
                4 => (BlockKind::Refusal, vec![Delta::Text(words)]),
                _ => (
                    BlockKind::Reasoning { redacted: None },
                    vec![Delta::Text(words), Delta::Signature(signature)],
                ),
            };
            sink.event(Event::Open { block, choice: 0, kind });
            for delta in deltas {
                sink.event(Event::Delta { block, delta });
            }
            sink.event(Event::Close { block });
        }
        sink.event(Event::Usage(Usage { input: Some(3), output: Some(4), ..Usage::default() }));
        sink.event(finish(Finish::End));
        sink.event(Event::End);
    }

    /// The blocks with neighbours joined, as a reader that sees parts only has them.
    fn joined(answer: &Answer) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        let mut last = "";
        for block in answer.choices.iter().flat_map(|choice| &choice.blocks) {
            let (kind, text) = match block {
                Block::Text { text, .. } => ("text", text.clone()),
                Block::Reasoning { parts, .. } => ("think", parts.concat()),
                Block::Tool { id, arguments, .. } => ("call", format!("{id}{arguments}")),
                other => ("other", format!("{other:?}")),
            };
            match out.last_mut() {
                Some(previous) if kind == last && matches!(kind, "text" | "think") => {
                    previous.push_str(&text);
                }
                _ => out.push(format!("{kind}:{text}")),
            }
            last = kind;
        }
        out
    }

    proptest! {
        #[test]
        fn p35_the_body_is_the_folded_stream(blocks in events()) {
            let context = context();
            let (mut fold, mut writer) = (Fold::default(), Writer::new(Arc::new(context.clone()), Framing::Sse));
            play(&blocks, &mut fold);
            play(&blocks, &mut writer);
            let streamed = read_back(std::str::from_utf8(&writer.frames().take()).unwrap());
            let (mut reader, mut whole) = (reader(Profile::Gemini, "seed"), Fold::default());
            reader.whole(&write_answer(&fold.into_answer(), &context), &mut whole);
            let whole = whole.into_answer();
            prop_assert_eq!(joined(&whole), joined(&streamed));
            prop_assert_eq!(&whole.usage, &streamed.usage);
            prop_assert_eq!((&whole.id, &whole.model), (&streamed.id, &streamed.model));
            prop_assert_eq!(whole.choices[0].finish, streamed.choices[0].finish);
        }
    }
}
