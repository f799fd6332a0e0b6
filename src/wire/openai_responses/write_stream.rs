//! IR events → Responses events.
//!
//! Enters: events as [`crate::ir::Event`] promises them. Leaves: `response.created`, `response.in_progress`,
//! items at 0, 1, 2, …, one terminal event with the whole response; `sequence_number` rises from 0. May go
//! wrong: [`Event::Failure`] ends the stream with `response.failed` and what came so far, or with `error` when
//! nothing came; open items stay open.
//!
//! An item is added with its first content; deltas of several open items may interleave, which the format
//! allows. A message is done when the next item is added or the answer has finished: the texts of blocks that
//! follow each other are parts of one message.

use super::ids::response_id;
use super::write_events::Numbered;
use super::write_output::{Body, Item, Outcome, Shown, State, redacted, usage};
use crate::error::Failure;
use crate::frames::{Frames, Framing};
use crate::ir::{BlockKind, Context, Delta, Event, Finish, Sink, ToolKind, Usage, WriteStream};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

/// Writes one stream.
#[derive(Debug)]
pub(super) struct Writer {
    context: Arc<Context>,
    pub(super) out: Numbered,
    id: String,
    model: String,
    created: u64,
    started: bool,
    ended: bool,
    /// The only choice that is shown: the format has no others.
    choice: Option<u32>,
    pub(super) items: Vec<Item<'static>>,
    /// Messages that are not done.
    messages: Vec<usize>,
    /// Blocks that are open, in order of their numbers.
    blocks: VecDeque<Place>,
    usage: Usage,
    finish: Option<Finish>,
}

/// Where a block is written.
#[derive(Debug, Default)]
pub(super) struct Place {
    block: u32,
    kind: Kind,
    /// Its item, once it has content.
    pub(super) item: Option<usize>,
    /// Text: number of the part. Reasoning: whether a part of the summary is open.
    pub(super) part: Option<usize>,
    /// What signs a call.
    signature: Option<String>,
}

#[derive(Debug, Default)]
enum Kind {
    Text {
        refusal: bool,
    },
    Reasoning,
    Call(ToolKind),
    Image {
        mime: String,
    },
    /// Written whole when it was opened.
    #[default]
    Whole,
}

impl Writer {
    pub(super) fn new(context: Arc<Context>, framing: Framing) -> Self {
        Self {
            context,
            out: Numbered::new(framing),
            id: String::new(),
            model: String::new(),
            created: 0,
            started: false,
            ended: false,
            choice: None,
            items: Vec::new(),
            messages: Vec::new(),
            blocks: VecDeque::new(),
            usage: Usage::default(),
            finish: None,
        }
    }

    fn start(&mut self, id: &str, model: &str, created: Option<u64>) {
        self.started = true;
        self.id = response_id(id, &self.context);
        let shown = if self.context.model.is_empty() { model } else { &self.context.model };
        shown.clone_into(&mut self.model);
        self.created = created.unwrap_or(self.context.created);
        let in_progress = Outcome { status: "in_progress", reason: None };
        self.response("response.created", in_progress, None);
        self.response("response.in_progress", in_progress, None);
    }

    /// An event that carries the response; usage and items only once it has ended.
    fn response(&mut self, name: &str, outcome: Outcome, error: Option<&Failure>) {
        let ended = outcome.status != "in_progress";
        let shown = Shown {
            id: &self.id,
            model: &self.model,
            created: self.created,
            status: outcome.status,
            reason: outcome.reason,
            error,
            output: if ended { &self.items } else { &[] },
            usage: (ended && (error.is_none() || !self.usage.is_unknown())).then_some(&self.usage),
            context: &self.context,
        };
        self.out.event(name, |o| {
            shown.write(o.key("response"));
            if let Some(counts) = shown.usage {
                // Beside OpenAI's place for it, where scripts look that read whole answers the same way.
                o.object("usage", |o| usage(o, counts));
            }
        });
    }

    fn open(&mut self, block: u32, kind: &BlockKind<'_>) {
        let mut place = Place { block, ..Place::default() };
        match *kind {
            BlockKind::Text => place.kind = Kind::Text { refusal: false },
            BlockKind::Refusal => place.kind = Kind::Text { refusal: true },
            BlockKind::Reasoning { redacted: None } => place.kind = Kind::Reasoning,
            BlockKind::Reasoning { redacted: Some(data) } => {
                place.kind = Kind::Reasoning;
                place.item =
                    Some(self.add(Body::Reasoning { parts: Vec::new(), sealed: redacted(data).into() }));
            }
            BlockKind::Tool { id, name, namespace, kind } => {
                place.kind = Kind::Call(kind);
                place.item = Some(self.add(Body::Call {
                    call_id: id.to_owned().into(),
                    name: name.to_owned().into(),
                    namespace: namespace.map(|namespace| namespace.to_owned().into()),
                    kind,
                    arguments: Cow::Borrowed(""),
                }));
            }
            BlockKind::Image { mime } => place.kind = Kind::Image { mime: mime.to_owned() },
            BlockKind::Server { kind, raw } => {
                if let Some(item) = Item::server(kind, raw, &self.context.seed, self.items.len()) {
                    let index = self.push(item);
                    self.done(index);
                }
            }
        }
        self.blocks.push_back(place);
    }

    pub(super) fn add(&mut self, body: Body<'static>) -> usize {
        let item = Item::new(body, &self.context.seed, self.items.len());
        self.push(item)
    }

    fn push(&mut self, item: Item<'static>) -> usize {
        let index = self.items.len();
        self.settle(index, None);
        if matches!(item.body, Body::Message(_)) {
            self.messages.push(index);
        }
        self.out.item("response.output_item.added", index, &item);
        self.items.push(item);
        index
    }

    /// Ends messages before item `limit` whose parts are complete.
    pub(super) fn settle(&mut self, limit: usize, outcome: Option<Outcome>) {
        let last = self.items.len().saturating_sub(1);
        let (items, out) = (&mut self.items, &mut self.out);
        self.messages.retain(|index| {
            if *index >= limit {
                return true;
            }
            let Some(item) = items.get_mut(*index) else { return false };
            let open =
                matches!(&item.body, Body::Message(pieces) if pieces.iter().any(|piece| !piece.closed));
            if open {
                return true;
            }
            let cut = *index == last && outcome.is_some_and(|outcome| outcome.reason.is_some());
            item.state = if cut { State::Incomplete } else { State::Completed };
            out.item("response.output_item.done", *index, item);
            false
        });
    }

    pub(super) fn done(&mut self, index: usize) {
        if let Some(item) = self.items.get_mut(index) {
            item.state = State::Completed;
            self.out.item("response.output_item.done", index, item);
        }
    }

    fn delta(&mut self, place: &mut Place, delta: Delta<'_>) {
        match (&place.kind, delta) {
            (Kind::Text { .. } | Kind::Reasoning, Delta::Text("")) => {}
            (Kind::Text { refusal }, Delta::Text(text)) => {
                let refusal = *refusal;
                self.text(place, refusal, text);
            }
            (Kind::Text { refusal: false }, Delta::Citation(citation)) => {
                if let Some((_, piece)) = self.piece(place, false) {
                    piece.citations.push(citation.into_owned());
                }
            }
            (Kind::Text { refusal: false }, Delta::Logprobs(list)) if place.part.is_some() => {
                if let Some((_, piece)) = self.piece(place, false) {
                    piece.logprobs.push(list.to_owned().into());
                }
            }
            (Kind::Reasoning, Delta::Text(text)) => self.thought(place, text),
            (Kind::Reasoning, Delta::Part) => self.end_thought(place),
            (Kind::Reasoning, Delta::Signature(signature)) => {
                let index = self.reasoning(place);
                if let Some(Item { body: Body::Reasoning { sealed, .. }, .. }) = self.items.get_mut(index) {
                    *sealed = signature.value.into_owned().into();
                }
            }
            (Kind::Call(kind), Delta::Arguments(text)) if !text.is_empty() => {
                let kind = *kind;
                self.arguments(place, kind, text);
            }
            (Kind::Image { mime }, Delta::Data(text)) => {
                let mime = mime.clone();
                self.picture(place, mime, text);
            }
            (Kind::Call(_), Delta::Signature(signature)) => {
                place.signature = Some(signature.value.into_owned());
            }
            // What the format has no place for: signatures of text, and empty deltas.
            _ => {}
        }
    }

    fn close(&mut self, mut place: Place) {
        let Some(index) = place.item else { return };
        match place.kind {
            Kind::Text { .. } => self.end_text(index, place.part.unwrap_or(0)),
            Kind::Reasoning => {
                self.end_thought(&mut place);
                self.done(index);
            }
            Kind::Call(kind) => {
                self.end_call(&place, kind);
                if let Some(signature) = place.signature {
                    let carrier = self.add(Body::carrier(signature));
                    self.done(carrier);
                }
            }
            Kind::Image { .. } => {
                if let Some(item) = self.items.get(index) {
                    let item = (index, item.id.as_str());
                    self.out.about("response.image_generation_call.completed", item, None, |_| {});
                }
                self.done(index);
            }
            Kind::Whole => {}
        }
    }

    fn finish(&mut self, reason: Option<Finish>) {
        self.finish = reason;
        let outcome = Outcome::of(reason, &self.items);
        self.settle(self.items.len(), Some(outcome));
    }

    fn end(&mut self) {
        if self.finish.is_none() {
            self.finish(None);
        }
        let outcome = Outcome::of(self.finish, &self.items);
        let name = if outcome.reason.is_some() { "response.incomplete" } else { "response.completed" };
        self.response(name, outcome, None);
        self.ended = true;
        self.out.frames.end();
    }

    fn fail(&mut self, failure: &Failure) {
        self.ended = true;
        if self.started {
            for item in self.items.iter_mut().filter(|item| item.state == State::InProgress) {
                item.state = State::Incomplete;
            }
            let outcome = Outcome { status: "failed", reason: None };
            self.response("response.failed", outcome, Some(failure));
        } else {
            self.out.event("error", |o| failure.openai_members_flat(o));
        }
        self.out.frames.end();
    }

    fn place(&self, block: u32) -> Option<usize> {
        self.blocks.binary_search_by_key(&block, |place| place.block).ok()
    }
}

impl Sink for Writer {
    fn event(&mut self, event: Event<'_>) {
        if self.ended {
            return;
        }
        match event {
            Event::Start { id, model, created } => self.start(id, model, created),
            Event::Open { block, choice, kind } => {
                if *self.choice.get_or_insert(choice) == choice {
                    self.open(block, &kind);
                }
            }
            Event::Delta { block, delta } => {
                let Some(at) = self.place(block) else { return };
                let Some(place) = self.blocks.get_mut(at) else { return };
                let mut place = std::mem::take(place);
                self.delta(&mut place, delta);
                if let Some(slot) = self.blocks.get_mut(at) {
                    *slot = place;
                }
            }
            Event::Close { block } => {
                if let Some(place) = self.place(block).and_then(|at| self.blocks.remove(at)) {
                    self.close(place);
                }
            }
            Event::Usage(usage) => self.usage.merge(&usage),
            Event::Finish { choice, reason, .. } => {
                if *self.choice.get_or_insert(choice) == choice {
                    self.finish(Some(reason));
                }
            }
            Event::Failure(failure) => self.fail(&failure),
            Event::End => self.end(),
        }
    }
}

impl WriteStream for Writer {
    fn frames(&mut self) -> &mut Frames {
        &mut self.out.frames
    }
}

#[cfg(test)]
mod tests {
    use super::super::check_stream::{checked, number, text};
    use super::super::write_answer::write_answer;
    use super::*;
    use crate::ir::{Citation, Fold};
    use crate::json::{Json, parse_any};
    use crate::signature::{Signature, Vendor};
    use crate::sse;
    use proptest::prelude::*;

    const SEED: &str = "0123456789abcdef0123456789abcdef";

    fn context() -> Context {
        let echo =
            vec![("tools", r#"[{"type":"web_search"}]"#.to_owned()), ("temperature", "0.5".to_owned())];
        Context { seed: SEED.to_owned(), created: 7, echo, ..Context::default() }
    }

    fn written(events: &[Event<'_>]) -> Vec<Json<'static>> {
        let mut writer = Writer::new(Arc::new(context()), Framing::Sse);
        for event in events {
            writer.event(event.clone());
        }
        let bytes = writer.frames().take();
        let mut out = Vec::new();
        sse::Decoder::default()
            .feed(&bytes, |event| {
                let value = parse_any(event.data).unwrap().into_owned();
                assert_eq!(value.get("type").unwrap().as_str(), Some(event.name));
                out.push(value);
            })
            .unwrap();
        out
    }

    fn kinds(response: &Json<'_>) -> Vec<String> {
        let output = response.get("output").unwrap().as_array().unwrap();
        output.iter().map(|item| text(item, "type").to_owned()).collect()
    }

    const START: Event<'_> = Event::Start { id: "msg_1", model: "m", created: None };

    fn open(block: u32, kind: BlockKind<'_>) -> Event<'_> {
        Event::Open { block, choice: 0, kind }
    }

    fn say(block: u32, text: &str) -> Event<'_> {
        Event::Delta { block, delta: Delta::Text(text) }
    }

    fn tool(id: &str) -> BlockKind<'_> {
        BlockKind::Tool { id, name: "f", namespace: None, kind: ToolKind::Function }
    }

    fn finish(reason: Finish) -> Event<'static> {
        Event::Finish { choice: 0, reason, detail: None }
    }

    #[test]
    fn reasoning_and_text_keep_the_rules_and_texts_in_a_row_share_a_message() {
        let citation = Citation { url: "u".into(), title: "t".into(), ..Citation::default() };
        let signature = Signature { vendor: Vendor::Claude, value: "sig".into() };
        let response = checked(&written(&[
            START,
            open(0, BlockKind::Reasoning { redacted: None }),
            say(0, "a"),
            Event::Delta { block: 0, delta: Delta::Part },
            say(0, "b"),
            Event::Delta { block: 0, delta: Delta::Signature(signature) },
            Event::Close { block: 0 },
            open(1, BlockKind::Reasoning { redacted: Some("secret") }),
            Event::Close { block: 1 },
            open(2, BlockKind::Text),
            say(2, "one "),
            Event::Delta { block: 2, delta: Delta::Citation(citation) },
            Event::Delta { block: 2, delta: Delta::Logprobs(r#"[{"token":"one"}]"#) },
            Event::Close { block: 2 },
            open(3, BlockKind::Text),
            Event::Close { block: 3 },
            open(4, BlockKind::Refusal),
            say(4, "no"),
            Event::Close { block: 4 },
            finish(Finish::Refusal),
            Event::Usage(Usage { input: Some(3), cache_read: Some(5), output: Some(2), ..Usage::default() }),
            Event::End,
        ]));
        assert_eq!(kinds(&response), ["reasoning", "reasoning", "message"]);
        let output = response.get("output").unwrap().as_array().unwrap();
        assert_eq!(text(&output[0], "encrypted_content"), "sig");
        assert_eq!(text(&output[1], "encrypted_content"), "claude-redacted-thinking:secret");
        assert_eq!(text(&output[2], "id"), format!("msg_{SEED}_2"));
        assert_eq!(
            output[2].get("content").unwrap().to_text(),
            r#"[{"type":"output_text","annotations":[{"type":"url_citation","url":"u","title":"t","start_index":0,"end_index":4}],"logprobs":[{"token":"one"}],"text":"one "},{"type":"refusal","refusal":"no"}]"#
        );
        assert_eq!(
            response.get("usage").unwrap().to_text(),
            r#"{"input_tokens":8,"input_tokens_details":{"cached_tokens":5,"cache_write_tokens":0},"output_tokens":2,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":10}"#
        );
        assert_eq!((text(&response, "id"), number(&response, "created_at")), ("resp_msg_1", 7));
        assert_eq!(response.get("temperature"), Some(&Json::Float(0.5)));
    }

    #[test]
    fn calls_interleave_and_pictures_and_built_ins_are_items() {
        let search = r#"{"name":"web_search","input":{"query":"q"}}"#;
        let response = checked(&written(&[
            START,
            open(5, tool("c1")),
            open(6, tool("c2")),
            Event::Delta { block: 6, delta: Delta::Arguments("{\"b\"") },
            Event::Delta { block: 6, delta: Delta::Arguments(":1}") },
            Event::Close { block: 6 },
            Event::Close { block: 5 },
            open(7, BlockKind::Image { mime: "image/webp" }),
            Event::Delta { block: 7, delta: Delta::Data("iVBO") },
            Event::Close { block: 7 },
            open(8, BlockKind::Server { kind: "server_tool_use", raw: search }),
            Event::Close { block: 8 },
            open(9, BlockKind::Server { kind: "mcp_call", raw: r#"{"type":"mcp_call","id":"mcp_1"}"# }),
            Event::Close { block: 9 },
            open(10, BlockKind::Server { kind: "executableCode", raw: "{}" }),
            Event::Close { block: 10 },
            finish(Finish::Tool),
            Event::End,
        ]));
        assert_eq!(
            kinds(&response),
            ["function_call", "function_call", "image_generation_call", "web_search_call", "mcp_call"]
        );
        let output = response.get("output").unwrap().as_array().unwrap();
        assert_eq!((text(&output[0], "arguments"), text(&output[1], "arguments")), ("{}", "{\"b\":1}"));
        assert_eq!((text(&output[2], "result"), text(&output[2], "output_format")), ("iVBO", "webp"));
        assert_eq!(output[3].at(&["action", "query"]).unwrap().as_str(), Some("q"));
    }

    #[test]
    fn limits_and_filters_are_incomplete() {
        for (reason, expected) in [
            (Finish::Length, Some("max_output_tokens")),
            (Finish::Context, Some("max_output_tokens")),
            (Finish::Filter, Some("content_filter")),
            (Finish::Refusal, Some("content_filter")),
            (Finish::BadCall, Some("content_filter")),
            (Finish::Tool, None),
            (Finish::StopSequence, None),
            (Finish::Pause, None),
        ] {
            let events = [
                START,
                open(0, BlockKind::Text),
                say(0, "x"),
                Event::Close { block: 0 },
                finish(reason),
                Event::End,
            ];
            let response = checked(&written(&events));
            let detail = response.get("incomplete_details").unwrap();
            assert_eq!(detail.get("reason").and_then(Json::as_str), expected, "{reason:?}");
        }
    }

    #[test]
    fn p12_a_broken_answer_ends_as_failed_with_what_came() {
        let failure = Failure::cut();
        let events = written(&[
            START,
            open(0, BlockKind::Text),
            say(0, "par"),
            Event::Failure(failure.clone()),
            Event::End,
        ]);
        let response = checked(&events);
        assert_eq!(text(&response, "status"), "failed");
        assert!(response.get("output").unwrap().to_text().contains(r#""text":"par""#));
        assert_eq!(text(response.get("error").unwrap(), "message"), failure.message);
        let events = written(&[Event::Failure(failure)]);
        assert_eq!(events.len(), 1);
        assert_eq!((text(&events[0], "type"), number(&events[0], "sequence_number")), ("error", 0));
    }

    #[test]
    fn an_empty_answer_is_complete_and_legal() {
        let response = checked(&written(&[START, finish(Finish::End), Event::End]));
        assert_eq!(response.get("output").unwrap().to_text(), "[]");
    }

    /// Blocks with their content; calls of a group interleave.
    fn answer() -> impl Strategy<Value = Vec<Event<'static>>> {
        let words = || prop::collection::vec("[a-z\" é\\\\]{1,4}", 1..4);
        let group = (0..4_u8, words(), words(), any::<bool>());
        let reason =
            prop_oneof![Just(Finish::End), Just(Finish::Length), Just(Finish::Tool), Just(Finish::Refusal)];
        (prop::collection::vec(group, 0..5), reason).prop_map(|(groups, reason)| {
            let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
            let (mut events, mut n) = (vec![START], 0);
            for (kind, one, two, extra) in groups {
                let (a, b) = (n, n + 1);
                n += 2;
                match kind {
                    0 | 1 => {
                        events.push(open(a, if kind == 0 { BlockKind::Text } else { BlockKind::Refusal }));
                        events.extend(one.into_iter().map(|word| say(a, leak(word))));
                    }
                    2 => {
                        events.push(open(a, BlockKind::Reasoning { redacted: None }));
                        for word in one {
                            events.push(Event::Delta { block: a, delta: Delta::Part });
                            events.push(say(a, leak(word)));
                        }
                        if extra {
                            let signature = Signature { vendor: Vendor::Gemini, value: "s".into() };
                            events.push(Event::Delta { block: a, delta: Delta::Signature(signature) });
                        }
                    }
                    _ => {
                        events.push(open(a, tool(leak(format!("c{a}")))));
                        events.push(open(b, tool(leak(format!("c{b}")))));
                        for (x, y) in one.into_iter().zip(two) {
                            events.push(Event::Delta { block: b, delta: Delta::Arguments(leak(x)) });
                            events.push(Event::Delta { block: a, delta: Delta::Arguments(leak(y)) });
                        }
                        events.push(Event::Close { block: b });
                    }
                }
                events.push(Event::Close { block: a });
            }
            events.push(Event::Usage(Usage { input: Some(1), output: Some(2), ..Usage::default() }));
            events.push(finish(reason));
            events.push(Event::End);
            events
        })
    }

    proptest! {
        #[test]
        fn p35_the_whole_answer_is_the_end_of_the_stream(events in answer()) {
            let mut fold = Fold::default();
            for event in &events {
                fold.event(event.clone());
            }
            let whole = write_answer(fold.answer(), &context());
            let response = checked(&written(&events));
            prop_assert_eq!(parse_any(&whole).unwrap().to_text(), response.to_text());
        }
    }
}
