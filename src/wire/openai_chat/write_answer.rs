//! A folded answer → `chat.completion`.
//!
//! Enters: an answer that is complete. Leaves: one body with the same content as the stream of the same
//! answer. May go wrong: an answer that broke becomes an error body.

use super::answer_members::{self, Held, Ids, PREFIX};
use crate::Protocol;
use crate::ir::{Answer, Block, Choice, Context, Finish, ToolKind};
use crate::json::{self, Object};

/// Writes a whole answer.
pub(super) fn write(answer: &Answer, context: &Context) -> Vec<u8> {
    if let Some(failure) = &answer.failure {
        return failure.render(Protocol::OpenaiChat);
    }
    let ids = Ids::new(PREFIX, &answer.id, &answer.model, answer.created, context);
    let empty = [Choice::default()];
    let choices = if answer.choices.is_empty() { &empty } else { answer.choices.as_slice() };
    let mut out = Vec::with_capacity(512);
    json::object(&mut out, |o| {
        ids.write("chat.completion", o);
        o.array("choices", |a| {
            for choice in choices {
                a.object(|o| write_choice(choice, context.legacy_functions, o));
            }
        });
        answer_members::usage(&answer.usage, o);
    });
    out
}

/// The blocks of a choice, by the member they go to.
#[derive(Default)]
struct Sorted<'b> {
    text: String,
    refusal: String,
    reasoning: Vec<&'b str>,
    calls: Vec<Call<'b>>,
    legacy: Option<Call<'b>>,
    images: Vec<(&'b str, &'b str)>,
    /// With the number of characters before their block.
    citations: Vec<(u64, &'b crate::ir::Citation<'static>)>,
    logprobs: Vec<&'b str>,
}

struct Call<'b> {
    id: &'b str,
    name: &'b str,
    kind: ToolKind,
    arguments: &'b str,
}

impl<'b> Sorted<'b> {
    fn new(blocks: &'b [Block], legacy: bool) -> Self {
        let mut sorted = Self::default();
        for block in blocks {
            match block {
                Block::Text { text, citations, logprobs, .. } => {
                    let before = sorted.text.chars().count() as u64;
                    sorted.citations.extend(
                        citations.iter().filter(|c| !c.url.is_empty()).map(|citation| (before, citation)),
                    );
                    sorted.text.push_str(text);
                    sorted.logprobs.extend(logprobs.iter().map(String::as_str));
                }
                Block::Refusal(text) => sorted.refusal.push_str(text),
                Block::Reasoning { parts, redacted: None, .. } => {
                    sorted.reasoning.extend(parts.iter().map(String::as_str).filter(|part| !part.is_empty()));
                }
                Block::Tool { id, name, kind, arguments, .. } => {
                    let call = Call { id, name, kind: *kind, arguments };
                    if legacy && *kind == ToolKind::Function && sorted.legacy.is_none() {
                        sorted.legacy = Some(call);
                    } else {
                        sorted.calls.push(call);
                    }
                }
                Block::Image { mime, data } => sorted.images.push((mime, data)),
                // Nothing a Chat client could read.
                Block::Reasoning { .. } | Block::Server { .. } => {}
            }
        }
        sorted
    }

    fn held(&self) -> Held {
        Held {
            calls: !self.calls.is_empty(),
            legacy: self.legacy.is_some(),
            refusal: !self.refusal.is_empty(),
        }
    }
}

fn write_choice(choice: &Choice, legacy: bool, o: &mut Object<'_>) {
    let sorted = Sorted::new(&choice.blocks, legacy);
    o.uint("index", u64::from(choice.index));
    o.object("message", |o| write_message(&sorted, o));
    if sorted.logprobs.is_empty() {
        o.null("logprobs");
    } else {
        o.object("logprobs", |o| {
            o.raw("content", &joined(&sorted.logprobs));
            o.null("refusal");
        });
    }
    let reason = choice.finish.unwrap_or(Finish::End);
    o.str("finish_reason", answer_members::finish(reason, sorted.held()));
}

fn write_message(sorted: &Sorted<'_>, o: &mut Object<'_>) {
    o.str("role", "assistant");
    let held = sorted.held();
    let absent = sorted.text.is_empty() && (held.calls || held.legacy || held.refusal);
    o.nullable_str("content", Some(sorted.text.as_str()).filter(|_| !absent));
    if !sorted.reasoning.is_empty() {
        o.str("reasoning_content", &sorted.reasoning.join("\n\n"));
    }
    o.nullable_str("refusal", Some(sorted.refusal.as_str()).filter(|text| !text.is_empty()));
    if !sorted.citations.is_empty() {
        o.array("annotations", |a| {
            for (offset, citation) in &sorted.citations {
                answer_members::annotation(citation, *offset, None, a);
            }
        });
    }
    if !sorted.images.is_empty() {
        o.array("images", |a| {
            for ((mime, data), index) in sorted.images.iter().zip(0..) {
                answer_members::image(mime, data, index, a);
            }
        });
    }
    if let Some(call) = &sorted.legacy {
        o.object("function_call", |o| write_function(call, o));
    }
    if !sorted.calls.is_empty() {
        o.array("tool_calls", |a| {
            for call in &sorted.calls {
                a.object(|o| write_call(call, o));
            }
        });
    }
}

fn write_call(call: &Call<'_>, o: &mut Object<'_>) {
    o.str("id", call.id);
    match call.kind {
        ToolKind::Function => {
            o.str("type", "function");
            o.object("function", |o| write_function(call, o));
        }
        ToolKind::Custom => {
            o.str("type", "custom");
            o.object("custom", |o| {
                o.str("name", call.name);
                o.str("input", call.arguments);
            });
        }
    }
}

fn write_function(call: &Call<'_>, o: &mut Object<'_>) {
    o.str("name", call.name);
    // Clients parse the arguments, and "" is not JSON.
    o.str("arguments", if call.arguments.is_empty() { "{}" } else { call.arguments });
}

/// The elements of several arrays in one.
fn joined(arrays: &[&str]) -> String {
    let inner = |text: &&str| {
        let text = text.trim();
        text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or_default().trim().to_owned()
    };
    let elements: Vec<String> = arrays.iter().map(inner).filter(|text| !text.is_empty()).collect();
    format!("[{}]", elements.join(","))
}

#[cfg(test)]
mod tests {
    use super::super::write_stream::Writer;
    use super::*;
    use crate::frames::Framing;
    use crate::ir::{BlockKind, Citation, Delta, Event, Fold, Sink, Usage, WriteStream};
    use crate::json::{Json, Map, parse_any};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn text(value: &Json<'_>) -> String {
        value.as_str().unwrap_or_default().to_owned()
    }

    /// Joins the pieces of a tool call or function call.
    fn join_call(into: &mut Map<'static>, piece: &Json<'_>) {
        for (key, value) in piece.as_object().unwrap().iter() {
            match (into.get_mut(key), value) {
                (Some(Json::Object(inner)), Json::Object(_)) => join_call(inner, value),
                (Some(Json::Str(old)), Json::Str(more)) => old.to_mut().push_str(more),
                _ if key != "index" => into.set(key.to_owned(), value.clone().into_owned()),
                _ => {}
            }
        }
    }

    /// Folds chunks as an SDK does: choices by index, strings appended, calls by index.
    fn fold_stream(sse: &str) -> Json<'static> {
        let mut out: Map<'static> = Map::default();
        let mut choices: Vec<Map<'static>> = Vec::new();
        for data in sse.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()) {
            if data == "[DONE]" {
                continue;
            }
            let chunk = parse_any(data.as_bytes()).unwrap();
            for key in ["id", "created", "model", "usage"] {
                if let Some(value) = chunk.get(key).filter(|value| !value.is_null()) {
                    out.set(key, value.clone().into_owned());
                }
            }
            for choice in chunk.get("choices").and_then(Json::as_array).unwrap() {
                let index = choice.get("index").and_then(Json::as_u64).unwrap() as usize;
                while choices.len() <= index {
                    choices.push(Map::default());
                }
                fold_choice(&mut choices[index], choice);
            }
        }
        out.set("choices", Json::Array(choices.into_iter().map(Json::Object).collect()));
        Json::Object(out)
    }

    fn fold_choice(into: &mut Map<'static>, choice: &Json<'_>) {
        if let Some(reason) = choice.get("finish_reason").filter(|reason| !reason.is_null()) {
            assert!(!into.has("finish_reason"), "finished twice");
            into.set("finish_reason", reason.clone().into_owned());
        }
        if let Some(Json::Array(items)) = choice.at(&["logprobs", "content"]) {
            append(into, "logprobs", items);
        }
        for (key, value) in choice.get("delta").and_then(Json::as_object).unwrap().iter() {
            match value {
                Json::Str(more) => {
                    let old = into.get(key).map(text).unwrap_or_default();
                    into.set(key.to_owned(), Json::Str((old + more).into()));
                }
                Json::Array(pieces) if key == "tool_calls" => {
                    for piece in pieces {
                        let at = piece.get("index").and_then(Json::as_u64).unwrap() as usize;
                        let mut calls = match into.remove("tool_calls") {
                            Some(Json::Array(calls)) => calls,
                            _ => Vec::new(),
                        };
                        if calls.len() == at {
                            calls.push(Json::Object(Map::default()));
                        }
                        let Json::Object(call) = &mut calls[at] else { panic!() };
                        join_call(call, piece);
                        into.set("tool_calls", Json::Array(calls));
                    }
                }
                Json::Array(items) => append(into, key, &merged(key, items)),
                Json::Object(_) => {
                    let mut old = match into.remove(key) {
                        Some(Json::Object(old)) => old,
                        _ => Map::default(),
                    };
                    join_call(&mut old, value);
                    into.set(key.to_owned(), Json::Object(old));
                }
                _ => {}
            }
        }
    }

    /// Elements as they are in a whole body, where annotations have no index.
    fn merged(key: &str, items: &[Json<'_>]) -> Vec<Json<'static>> {
        let mut items: Vec<Json<'static>> = items.iter().cloned().map(Json::into_owned).collect();
        for item in items.iter_mut().filter(|_| key == "annotations") {
            let Json::Object(map) = item else { panic!() };
            assert!(map.remove("index").is_some());
        }
        items
    }

    fn append(into: &mut Map<'static>, key: &str, items: &[Json<'_>]) {
        let mut old = match into.remove(key) {
            Some(Json::Array(old)) => old,
            _ => Vec::new(),
        };
        old.extend(items.iter().cloned().map(Json::into_owned));
        into.set(key.to_owned(), Json::Array(old));
    }

    /// The members of a body in the form of [`fold_stream`].
    fn flat(body: &str) -> Json<'static> {
        let body = parse_any(body.as_bytes()).unwrap().into_owned();
        let mut out: Map<'static> = Map::default();
        for key in ["id", "created", "model", "usage"] {
            out.set(key, body.get(key).unwrap().clone());
        }
        let choices = body.get("choices").and_then(Json::as_array).unwrap().iter().map(|choice| {
            let Some(Json::Object(message)) = choice.get("message") else { panic!() };
            let mut map: Map<'static> = message.clone();
            map.0.retain(|(_, value)| !value.is_null());
            if !map.has("content") {
                map.set("content", Json::Str("".into()));
            }
            map.set("finish_reason", choice.get("finish_reason").unwrap().clone());
            if let Some(content) = choice.at(&["logprobs", "content"]) {
                map.set("logprobs", content.clone());
            }
            Json::Object(map)
        });
        out.set("choices", Json::Array(choices.collect()));
        Json::Object(out)
    }

    /// With the members of all objects in one order.
    fn sorted(value: Json<'static>) -> Json<'static> {
        match value {
            Json::Object(map) => {
                let mut members: Vec<_> = map.0.into_iter().map(|(k, v)| (k, sorted(v))).collect();
                members.sort_by(|a, b| a.0.cmp(&b.0));
                Json::Object(Map(members))
            }
            Json::Array(items) => Json::Array(items.into_iter().map(sorted).collect()),
            other => other,
        }
    }

    fn both(context: &Context, events: &[Event<'_>]) -> (String, Json<'static>, Json<'static>) {
        let mut fold = Fold::default();
        let mut writer = Writer::new(Arc::new(context.clone()), Framing::Sse);
        for event in events {
            fold.event(event.clone());
            writer.event(event.clone());
        }
        let body = String::from_utf8(write(fold.answer(), context)).unwrap();
        let stream = String::from_utf8(writer.frames().take()).unwrap();
        let (streamed, whole) = (sorted(fold_stream(&stream)), sorted(flat(&body)));
        (body, streamed, whole)
    }

    fn context() -> Context {
        Context { created: 7, seed: "s".into(), ..Context::default() }
    }

    const START: Event<'static> = Event::Start { id: "chatcmpl-1", model: "m", created: Some(5) };

    /// A choice with the given blocks, and the end.
    fn answer(blocks: Vec<(BlockKind<'static>, Vec<Delta<'static>>)>, reason: Finish) -> Vec<Event<'static>> {
        let mut events = vec![START];
        for (block, (kind, deltas)) in (0..).zip(blocks) {
            events.push(Event::Open { block, choice: 0, kind });
            events.extend(deltas.into_iter().map(|delta| Event::Delta { block, delta }));
            events.push(Event::Close { block });
        }
        let usage = Usage { input: Some(3), cache_read: Some(1), output: Some(2), ..Usage::default() };
        events.extend([Event::Finish { choice: 0, reason, detail: None }, Event::Usage(usage), Event::End]);
        events
    }

    fn tool(kind: ToolKind) -> BlockKind<'static> {
        BlockKind::Tool { id: "c", name: "f", namespace: None, kind }
    }

    #[test]
    fn a_body_as_the_sdk_types_it() {
        let events = answer(
            vec![
                (BlockKind::Reasoning { redacted: None }, vec![Delta::Text("plan")]),
                (BlockKind::Text, vec![Delta::Text("Look"), Delta::Text("ing.")]),
                (tool(ToolKind::Function), vec![]),
            ],
            Finish::Tool,
        );
        let (body, streamed, whole) = both(&context(), &events);
        assert_eq!(streamed, whole);
        assert_eq!(
            body,
            r#"{"id":"chatcmpl-1","object":"chat.completion","created":5,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Looking.","reasoning_content":"plan","refusal":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6,"prompt_tokens_details":{"cached_tokens":1}}}"#
        );
    }

    #[test]
    fn p35_stream_and_body_say_the_same() {
        let cited = Citation { url: "https://a".into(), title: "A".into(), ..Citation::default() };
        let legacy = Context { legacy_functions: true, ..context() };
        for (context, blocks, reason) in [
            (
                context(),
                vec![(
                    BlockKind::Reasoning { redacted: None },
                    vec![Delta::Part, Delta::Text("a"), Delta::Part, Delta::Text("b")],
                )],
                Finish::Length,
            ),
            (context(), vec![(BlockKind::Refusal, vec![Delta::Text("no")])], Finish::Refusal),
            (context(), vec![(tool(ToolKind::Custom), vec![Delta::Arguments("a\nb")])], Finish::End),
            (
                context(),
                vec![
                    (BlockKind::Text, vec![Delta::Text("é"), Delta::Logprobs("[1]"), Delta::Logprobs("[ ]")]),
                    (BlockKind::Image { mime: "image/png" }, vec![Delta::Data("iVBO")]),
                    (
                        BlockKind::Text,
                        vec![Delta::Citation(cited), Delta::Text("x"), Delta::Logprobs("[2,3]")],
                    ),
                ],
                Finish::Filter,
            ),
            (
                legacy,
                vec![
                    (tool(ToolKind::Function), vec![Delta::Arguments("{\"x\":1}")]),
                    (tool(ToolKind::Function), vec![]),
                ],
                Finish::Tool,
            ),
            (context(), vec![], Finish::Refusal),
        ] {
            let (body, streamed, whole) = both(&context, &answer(blocks, reason));
            assert_eq!(streamed, whole, "{body}");
        }
    }

    #[test]
    fn a_broken_answer_is_an_error_body_and_an_empty_one_is_legal() {
        let broken = Answer { failure: Some(crate::error::Failure::cut()), ..Answer::default() };
        assert!(write(&broken, &context()).starts_with(br#"{"error":{"#));
        let empty = String::from_utf8(write(&Answer::default(), &context())).unwrap();
        assert!(empty.contains(r#""content":"""#) && empty.contains(r#""finish_reason":"stop""#), "{empty}");
    }

    fn kind() -> impl Strategy<Value = BlockKind<'static>> {
        prop_oneof![
            Just(BlockKind::Text),
            Just(BlockKind::Reasoning { redacted: None }),
            Just(BlockKind::Refusal),
            Just(tool(ToolKind::Function)),
            Just(tool(ToolKind::Custom)),
        ]
    }

    proptest! {
        #[test]
        fn p35_any_blocks_of_any_choices_say_the_same(
            blocks in prop::collection::vec((kind(), 0_u32..2, prop::collection::vec("[a-z\"\né]{1,3}", 0..3)), 0..6),
            include_usage: bool,
        ) {
            let mut events = vec![START];
            for (block, (kind, choice, pieces)) in (0..).zip(&blocks) {
                events.push(Event::Open { block, choice: *choice, kind: kind.clone() });
                for piece in pieces {
                    let delta = match kind {
                        BlockKind::Tool { .. } => Delta::Arguments(piece),
                        _ => Delta::Text(piece),
                    };
                    events.push(Event::Delta { block, delta });
                }
                events.push(Event::Close { block });
            }
            for choice in 0..2 {
                events.push(Event::Finish { choice, reason: Finish::End, detail: None });
            }
            events.extend([Event::Usage(Usage { output: Some(1), ..Usage::default() }), Event::End]);
            let (body, streamed, whole) = both(&Context { include_usage, ..context() }, &events);
            prop_assert_eq!(streamed, whole, "{}", body);
        }
    }
}
