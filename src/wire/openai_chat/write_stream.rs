//! Events → `chat.completion.chunk`s.
//!
//! Enters: events, blocks in any order. Leaves: per choice a chunk with the role, deltas, one finish; then the
//! usage chunk where the client asked for it, and `[DONE]`. Pieces of arguments go out as they come, under
//! indexes that count the calls of the choice. A client that did not ask for the usage chunk (its empty
//! `choices` breaks naive ones) gets the figures on the chunk that finishes, so that chunk waits for the end.
//! May go wrong: a failure is one `error` object, and nothing follows it.

use super::answer_members::{self, Held, Ids, PREFIX};
use super::write_chunk::{Beside, Chunks};
use crate::frames::{Frames, Framing};
use crate::ir::{BlockKind, Context, Delta, Event, Finish, Sink, ToolKind, Usage, WriteStream};
use crate::json::Object;
use smallvec::SmallVec;
use std::sync::Arc;

/// Writes one stream.
#[derive(Debug)]
pub(super) struct Writer {
    context: Arc<Context>,
    chunks: Chunks,
    choices: SmallVec<[Choice; 1]>,
    /// Blocks that are open.
    blocks: Vec<Block>,
    usage: Usage,
    /// The finish of a choice, while it may still be the last event.
    finish: Option<(usize, Finish)>,
    over: bool,
}

#[derive(Debug, Default)]
struct Choice {
    index: u32,
    calls: u32,
    images: u32,
    annotations: u32,
    held: Held,
    /// Characters of visible text so far.
    characters: u64,
    /// Thinking text was sent; the next part of it begins after a blank line.
    reasoned: bool,
    gap: bool,
}

#[derive(Debug)]
struct Block {
    number: u32,
    /// Its choice, as a position.
    choice: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// `offset`: characters of the choice before it.
    Text {
        offset: u64,
    },
    Refusal,
    Reasoning,
    /// `index` in `tool_calls`; `None`: legacy `function_call`.
    Function {
        index: Option<u32>,
        empty: bool,
    },
    Custom {
        index: u32,
    },
    Image {
        mime: String,
    },
    /// Nothing a Chat client could read.
    Silent,
}

impl Writer {
    pub(super) fn new(context: Arc<Context>, framing: Framing) -> Self {
        Self {
            chunks: Chunks::new(framing, context.include_usage),
            context,
            choices: SmallVec::new(),
            blocks: Vec::new(),
            usage: Usage::default(),
            finish: None,
            over: false,
        }
    }

    fn start(&mut self, id: &str, model: &str, created: Option<u64>) {
        let context = &self.context;
        self.chunks.start(|| Ids::new(PREFIX, id, model, created, context));
    }

    /// Writes a chunk of the choice at `at`: `fill` adds the members of `delta`.
    fn chunk(&mut self, at: usize, fill: impl FnOnce(&mut Object<'_>)) {
        self.chunk_beside(at, &Beside::default(), fill);
    }

    fn chunk_beside(&mut self, at: usize, beside: &Beside<'_>, fill: impl FnOnce(&mut Object<'_>)) {
        let index = self.choices.get(at).map_or(0, |choice| choice.index);
        self.chunks.delta(index, beside, fill);
    }

    /// The position of a choice; its first chunk says the role.
    fn choice(&mut self, index: u32) -> usize {
        if let Some(at) = self.choices.iter().position(|choice| choice.index == index) {
            return at;
        }
        self.start("", "", None);
        self.choices.push(Choice { index, ..Choice::default() });
        let at = self.choices.len() - 1;
        self.chunk(at, |o| {
            o.str("role", "assistant");
            o.str("content", "");
        });
        at
    }

    fn open(&mut self, number: u32, index: u32, kind: &BlockKind<'_>) {
        let at = self.choice(index);
        let legacy = self.context.legacy_functions;
        let Some(choice) = self.choices.get_mut(at) else { return };
        let kind = match kind {
            BlockKind::Text => Kind::Text { offset: choice.characters },
            BlockKind::Refusal => {
                choice.held.refusal = true;
                Kind::Refusal
            }
            BlockKind::Reasoning { redacted: None } => {
                choice.gap = choice.reasoned;
                Kind::Reasoning
            }
            BlockKind::Tool { name, kind: ToolKind::Function, .. } if legacy && !choice.held.legacy => {
                choice.held.legacy = true;
                self.chunk(at, |o| {
                    o.object("function_call", |o| {
                        o.str("name", name);
                        o.str("arguments", "");
                    });
                });
                Kind::Function { index: None, empty: true }
            }
            BlockKind::Tool { id, name, kind, .. } => {
                let index = choice.calls;
                choice.calls += 1;
                choice.held.calls = true;
                self.open_call(at, index, id, name, *kind);
                match kind {
                    ToolKind::Function => Kind::Function { index: Some(index), empty: true },
                    ToolKind::Custom => Kind::Custom { index },
                }
            }
            BlockKind::Image { mime } => Kind::Image { mime: (*mime).to_owned() },
            BlockKind::Reasoning { .. } | BlockKind::Server { .. } => Kind::Silent,
        };
        self.blocks.push(Block { number, choice: at, kind });
    }

    fn open_call(&mut self, at: usize, index: u32, id: &str, name: &str, kind: ToolKind) {
        let (kind, text) = match kind {
            ToolKind::Function => ("function", "arguments"),
            ToolKind::Custom => ("custom", "input"),
        };
        self.call(at, index, |o| {
            o.str("id", id);
            o.str("type", kind);
            o.object(kind, |o| {
                o.str("name", name);
                o.str(text, "");
            });
        });
    }

    fn call(&mut self, at: usize, index: u32, fill: impl FnOnce(&mut Object<'_>)) {
        self.chunk(at, |o| {
            o.array("tool_calls", |a| {
                a.object(|o| {
                    o.uint("index", u64::from(index));
                    fill(o);
                });
            });
        });
    }

    fn delta(&mut self, number: u32, delta: &Delta<'_>) {
        let Some(block) = self.blocks.iter_mut().rfind(|block| block.number == number) else { return };
        let at = block.choice;
        let Some(choice) = self.choices.get_mut(at) else { return };
        match (&mut block.kind, delta) {
            (Kind::Text { .. }, Delta::Text(text)) => {
                choice.characters += text.chars().count() as u64;
                self.chunk(at, |o| o.str("content", text));
            }
            (Kind::Refusal, Delta::Text(text)) => self.chunk(at, |o| o.str("refusal", text)),
            (Kind::Reasoning, Delta::Text(text)) if !text.is_empty() => {
                let gap = std::mem::take(&mut choice.gap);
                choice.reasoned = true;
                if gap {
                    self.chunk(at, |o| o.str("reasoning_content", "\n\n"));
                }
                self.chunk(at, |o| o.str("reasoning_content", text));
            }
            (Kind::Reasoning, Delta::Part) => choice.gap = choice.reasoned,
            (Kind::Function { index, empty }, Delta::Arguments(text)) => {
                *empty &= text.is_empty();
                let index = *index;
                self.arguments(at, index, text);
            }
            (Kind::Custom { index }, Delta::Arguments(text)) => {
                let index = *index;
                self.call(at, index, |o| o.object("custom", |o| o.str("input", text)));
            }
            (Kind::Image { mime }, Delta::Data(data)) => {
                let (mime, index) = (std::mem::take(mime), choice.images);
                choice.images += 1;
                self.chunk(at, |o| {
                    o.array("images", |a| answer_members::image(&mime, data, index, a));
                });
            }
            (Kind::Text { offset }, Delta::Citation(citation)) if !citation.url.is_empty() => {
                let (offset, index) = (*offset, choice.annotations);
                choice.annotations += 1;
                self.chunk(at, |o| {
                    o.array("annotations", |a| answer_members::annotation(citation, offset, Some(index), a));
                });
            }
            (Kind::Text { .. }, Delta::Logprobs(content)) => {
                let logprobs = Some(*content);
                self.chunk_beside(at, &Beside { logprobs, ..Beside::default() }, |o| o.str("content", ""));
            }
            // Signatures have no place here; the rest does not go with its block.
            _ => {}
        }
    }

    fn arguments(&mut self, at: usize, index: Option<u32>, text: &str) {
        match index {
            Some(index) => self.call(at, index, |o| o.object("function", |o| o.str("arguments", text))),
            None => self.chunk(at, |o| o.object("function_call", |o| o.str("arguments", text))),
        }
    }

    fn close(&mut self, number: u32) {
        let Some(at) = self.blocks.iter().rposition(|block| block.number == number) else { return };
        let block = self.blocks.swap_remove(at);
        if let Kind::Function { index, empty: true } = block.kind {
            // Clients parse the arguments, and "" is not JSON.
            self.arguments(block.choice, index, "{}");
        }
    }

    /// Writes the finish that was held back.
    fn flush(&mut self, usage: Option<&Usage>) {
        let Some((at, reason)) = self.finish.take() else { return };
        let held = self.choices.get(at).map(|choice| choice.held).unwrap_or_default();
        let finish = Some(answer_members::finish(reason, held));
        self.chunk_beside(at, &Beside { finish, usage, ..Beside::default() }, |_| {});
    }

    fn end(&mut self) {
        if self.choices.is_empty() {
            let at = self.choice(0);
            self.finish = Some((at, Finish::End));
        }
        let usage = self.usage;
        if self.context.include_usage {
            self.flush(None);
            self.chunks.usage(&usage);
        } else {
            self.flush(Some(&usage).filter(|usage| !usage.is_unknown()));
        }
        self.chunks.done();
        self.over = true;
    }
}

impl Sink for Writer {
    fn event(&mut self, event: Event<'_>) {
        if self.over {
            return;
        }
        if !matches!(event, Event::Usage(_) | Event::End | Event::Failure(_)) {
            self.flush(None);
        }
        match event {
            Event::Start { id, model, created } => self.start(id, model, created),
            Event::Open { block, choice, kind } => self.open(block, choice, &kind),
            Event::Delta { block, delta } => self.delta(block, &delta),
            Event::Close { block } => self.close(block),
            Event::Usage(usage) => self.usage.merge(&usage),
            Event::Finish { choice, reason, .. } => {
                let at = self.choice(choice);
                self.finish = Some((at, reason));
            }
            Event::Failure(failure) => {
                self.chunks.fail(&failure);
                self.over = true;
            }
            Event::End => self.end(),
        }
    }
}

impl WriteStream for Writer {
    fn frames(&mut self) -> &mut Frames {
        self.chunks.frames()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;
    use crate::ir::Citation;

    fn run(context: Context, events: Vec<Event<'_>>) -> Vec<String> {
        let mut writer = Writer::new(Arc::new(context), Framing::Sse);
        for event in events {
            writer.event(event);
        }
        let out = String::from_utf8(writer.frames().take()).unwrap();
        out.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap().to_owned()).collect()
    }

    const START: Event<'static> = Event::Start { id: "msg_1", model: "m", created: None };

    fn open(block: u32, kind: BlockKind<'static>) -> Event<'static> {
        Event::Open { block, choice: 0, kind }
    }

    fn tool(id: &'static str, kind: ToolKind) -> BlockKind<'static> {
        BlockKind::Tool { id, name: "f", namespace: None, kind }
    }

    fn delta(block: u32, delta: Delta<'static>) -> Event<'static> {
        Event::Delta { block, delta }
    }

    fn text(block: u32, text: &'static str) -> Event<'static> {
        delta(block, Delta::Text(text))
    }

    fn finish(reason: Finish) -> Event<'static> {
        Event::Finish { choice: 0, reason, detail: None }
    }

    fn close(block: u32) -> Event<'static> {
        Event::Close { block }
    }

    const COUNTS: Usage = Usage {
        input: Some(2),
        output: Some(1),
        cache_read: None,
        cache_write: None,
        cache_write_hour: None,
        reasoning: None,
        tool_prompt: None,
    };

    fn said() -> Vec<Event<'static>> {
        vec![
            START,
            open(0, BlockKind::Text),
            text(0, "a\"b"),
            close(0),
            finish(Finish::End),
            Event::Usage(COUNTS),
            Event::End,
        ]
    }

    #[test]
    fn role_first_then_text_then_one_finish_and_done() {
        let context = Context { created: 9, ..Context::default() };
        let head =
            r#"{"id":"chatcmpl-msg_1","object":"chat.completion.chunk","created":9,"model":"m","choices":["#;
        let mut events = said();
        events.extend([text(0, "late"), Event::End]);
        assert_eq!(
            run(context, events),
            [
                format!(
                    r#"{head}{{"index":0,"delta":{{"role":"assistant","content":""}},"finish_reason":null}}]}}"#
                ),
                format!(r#"{head}{{"index":0,"delta":{{"content":"a\"b"}},"finish_reason":null}}]}}"#),
                format!(
                    r#"{head}{{"index":0,"delta":{{}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3}}}}"#
                ),
                "[DONE]".to_owned(),
            ]
        );
    }

    #[test]
    fn who_asks_gets_a_usage_chunk_and_null_before() {
        let out = run(Context { include_usage: true, model: "alias".into(), ..Context::default() }, said());
        assert_eq!(out.len(), 5);
        assert!(out[..3].iter().all(|chunk| chunk.ends_with(r#"],"usage":null}"#)), "{out:?}");
        assert!(out[3].ends_with(
            r#""model":"alias","choices":[],"usage":{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3}}"#
        ));
        assert_eq!(out[4], "[DONE]");
    }

    /// The `delta` of each chunk, without the role chunk and the finish.
    fn deltas(context: Context, events: Vec<Event<'_>>) -> Vec<String> {
        let out = run(context, events);
        let cut = |chunk: &String| {
            let (_, rest) = chunk.split_once(r#""delta":"#)?;
            let (delta, _) = rest.rsplit_once(r#","finish_reason""#)?;
            Some(delta.to_owned())
        };
        let all: Vec<String> = out.iter().filter_map(cut).collect();
        all.into_iter().skip(1).filter(|delta| delta != "{}").collect()
    }

    #[test]
    fn calls_have_contiguous_indexes_and_their_pieces_as_they_come() {
        let events = vec![
            START,
            open(0, BlockKind::Text),
            close(0),
            open(3, tool("c1", ToolKind::Function)),
            open(5, tool("c2", ToolKind::Custom)),
            delta(3, Delta::Arguments("{\"x\":")),
            delta(5, Delta::Arguments("raw")),
            delta(3, Delta::Arguments("1}")),
            close(3),
            close(5),
            open(6, tool("c3", ToolKind::Function)),
            close(6),
            finish(Finish::End),
            Event::End,
        ];
        assert_eq!(
            deltas(Context::default(), events.clone()),
            [
                r#"{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]}"#,
                r#"{"tool_calls":[{"index":1,"id":"c2","type":"custom","custom":{"name":"f","input":""}}]}"#,
                r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\":"}}]}"#,
                r#"{"tool_calls":[{"index":1,"custom":{"input":"raw"}}]}"#,
                r#"{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]}"#,
                r#"{"tool_calls":[{"index":2,"id":"c3","type":"function","function":{"name":"f","arguments":""}}]}"#,
                r#"{"tool_calls":[{"index":2,"function":{"arguments":"{}"}}]}"#,
            ]
        );
        let out = run(Context::default(), events);
        assert!(out[out.len() - 2].contains(r#""finish_reason":"tool_calls""#), "{out:?}");
    }

    #[test]
    fn a_client_of_legacy_functions_reads_function_call() {
        let context = Context { legacy_functions: true, ..Context::default() };
        let events = vec![
            START,
            open(0, tool("c", ToolKind::Function)),
            delta(0, Delta::Arguments("{}")),
            close(0),
            finish(Finish::Tool),
            Event::End,
        ];
        let out = run(context, events);
        assert!(out[1].contains(r#""delta":{"function_call":{"name":"f","arguments":""}}"#), "{out:?}");
        assert!(out[2].contains(r#""delta":{"function_call":{"arguments":"{}"}}"#), "{out:?}");
        assert!(out[3].contains(r#""finish_reason":"function_call""#), "{out:?}");
    }

    #[test]
    fn thinking_refusal_pictures_sources_and_log_probabilities() {
        let cited = Citation { url: "https://a".into(), title: "A".into(), ..Citation::default() };
        let document = Citation { document: "0".into(), ..Citation::default() };
        let events = vec![
            START,
            open(0, BlockKind::Reasoning { redacted: None }),
            delta(0, Delta::Part),
            text(0, "one"),
            delta(0, Delta::Part),
            text(0, "two"),
            close(0),
            open(1, BlockKind::Reasoning { redacted: Some("BLOB") }),
            close(1),
            open(2, BlockKind::Text),
            text(2, "é."),
            close(2),
            open(3, BlockKind::Text),
            delta(3, Delta::Citation(cited)),
            delta(3, Delta::Citation(document)),
            text(3, "x"),
            delta(3, Delta::Logprobs("[1]")),
            close(3),
            open(4, BlockKind::Image { mime: "image/png" }),
            delta(4, Delta::Data("iVBO")),
            close(4),
            open(5, BlockKind::Server { kind: "web_search_call", raw: "{}" }),
            close(5),
            open(6, BlockKind::Refusal),
            text(6, "no"),
            close(6),
            finish(Finish::Refusal),
            Event::End,
        ];
        let citation = r#"{"type":"url_citation","index":0,"url_citation":{"url":"https://a","title":"A","start_index":2,"end_index":2}}"#;
        assert_eq!(
            deltas(Context::default(), events),
            [
                r#"{"reasoning_content":"one"}"#,
                r#"{"reasoning_content":"\n\n"}"#,
                r#"{"reasoning_content":"two"}"#,
                r#"{"content":"é."}"#,
                &format!(r#"{{"annotations":[{citation}]}}"#),
                r#"{"content":"x"}"#,
                r#"{"content":""},"logprobs":{"content":[1],"refusal":null}"#,
                r#"{"images":[{"type":"image_url","index":0,"image_url":{"url":"data:image/png;base64,iVBO"}}]}"#,
                r#"{"refusal":"no"}"#,
            ]
        );
    }

    #[test]
    fn p12_a_failure_is_one_error_and_nothing_after_it() {
        let events = vec![
            START,
            open(0, BlockKind::Text),
            text(0, "par"),
            finish(Finish::End),
            Event::Failure(Failure::new(503, "over\nloaded")),
            text(0, "late"),
            Event::End,
        ];
        let out = run(Context::default(), events);
        assert_eq!(out.len(), 3, "{out:?}");
        assert!(out[2].starts_with(r#"{"error":{"message":"over\nloaded","#), "{out:?}");
    }

    #[test]
    fn p37_text_cannot_forge_an_event() {
        let out = run(
            Context::default(),
            vec![
                START,
                open(0, BlockKind::Text),
                text(0, "\n\ndata: [DONE]\r\n\r\n\u{2028}"),
                close(0),
                finish(Finish::End),
                Event::End,
            ],
        );
        assert_eq!(out.len(), 4, "{out:?}");
        assert!(out[1].contains(r#""content":"\n\ndata: [DONE]\r\n\r\n"#));
    }

    #[test]
    fn an_empty_answer_is_still_legal() {
        let out = run(Context { seed: "s".into(), ..Context::default() }, vec![Event::End]);
        assert_eq!(out.len(), 3);
        assert!(out[0].starts_with(r#"{"id":"chatcmpl-s","#) && out[0].contains(r#""role":"assistant""#));
        assert!(out[1].contains(r#""finish_reason":"stop""#));
    }

    #[test]
    fn every_choice_has_its_role_and_its_finish() {
        let of = |choice| Event::Finish { choice, reason: Finish::End, detail: None };
        let events = vec![
            START,
            open(0, BlockKind::Text),
            Event::Open { block: 1, choice: 1, kind: BlockKind::Text },
            text(1, "B"),
            text(0, "A"),
            close(0),
            of(0),
            close(1),
            of(1),
            Event::End,
        ];
        let out = run(Context::default(), events);
        let count = |needle: &str| out.iter().filter(|chunk| chunk.contains(needle)).count();
        assert_eq!((count(r#""role""#), count(r#""finish_reason":"stop""#)), (2, 2));
        assert!(out[2].contains(r#"{"index":1,"delta":{"content":"B"}"#), "{out:?}");
    }
}
