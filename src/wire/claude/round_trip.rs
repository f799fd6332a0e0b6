//! Properties that hold for the format as a whole.

use super::{RULES, read_request, reader, stream_writer, write_answer, write_request};
use crate::frames::Framing;
use crate::ir::lower::lower;
use crate::ir::{BlockKind, Context, Delta, Event, Finish, Fold, Losses, Sink, ToolKind, Usage};
use crate::json::{self, Json, parse_any};
use crate::signature::{Signature, Vendor};
use crate::sse;
use crate::target::{Card, Profile, Target};
use crate::thinking::Mode;
use proptest::prelude::*;
use std::sync::Arc;

/// A block of a generated history; numbers name texts, calls and results.
#[derive(Clone, Debug)]
enum Piece {
    Text,
    Blank,
    Call(u8),
    Result(u8),
    Foreign,
    Picture,
}

fn history() -> impl Strategy<Value = Vec<(u8, Vec<Piece>)>> {
    let piece = prop_oneof![
        3 => Just(Piece::Text),
        1 => Just(Piece::Blank),
        2 => (0..6_u8).prop_map(Piece::Call),
        2 => (0..6_u8).prop_map(Piece::Result),
        1 => Just(Piece::Foreign),
        1 => Just(Piece::Picture),
    ];
    prop::collection::vec((0..5_u8, prop::collection::vec(piece, 0..5)), 1..7)
}

/// The history as a body, with the texts and calls that have to come through.
fn body(history: &[(u8, Vec<Piece>)]) -> (Vec<u8>, Vec<String>, usize) {
    let (mut out, mut texts, mut calls) = (Vec::new(), Vec::new(), 0);
    json::object(&mut out, |o| {
        o.str("model", "x");
        o.array("messages", |a| {
            for (role, pieces) in history {
                let role = ["user", "assistant", "user", "assistant", "system"][usize::from(*role)];
                a.object(|o| {
                    o.str("role", role);
                    o.array("content", |a| {
                        for piece in pieces {
                            let mut text = || {
                                texts.push(format!("t{}.", texts.len()));
                                texts.last().unwrap().clone()
                            };
                            match (piece, role) {
                                (Piece::Text, _) => {
                                    let text = format!("{} \"ü\\\n", text());
                                    a.object(|o| {
                                        o.str("type", "text");
                                        o.str("text", &text);
                                    });
                                }
                                (Piece::Blank, _) => a.raw(r#"{"type":"text","text":" \n"}"#),
                                (Piece::Call(n), "assistant") => {
                                    calls += 1;
                                    let text = text();
                                    a.raw(&format!(
                                        r#"{{"type":"tool_use","id":"c:{n}","name":"f{n}","input":{{"a":"{text}","z":1e2}}}}"#
                                    ));
                                }
                                (Piece::Result(n), "user") => a.raw(&format!(
                                    r#"{{"type":"tool_result","tool_use_id":"c:{n}","content":"r"}}"#
                                )),
                                (Piece::Foreign, "assistant") => a.raw(
                                    r#"{"type":"thinking","thinking":"hm","signature":"bm90LWEtcmVhbC1zaWduYXR1cmU="}"#,
                                ),
                                (Piece::Picture, "user") => a.raw(
                                    r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"}}"#,
                                ),
                                _ => {}
                            }
                        }
                    });
                });
            }
        });
    });
    (out, texts, calls)
}

fn translate(body: &[u8], thinking: Option<Mode>) -> Vec<u8> {
    let (mut losses, mut context) = (Losses::default(), Context::default());
    let mut request = read_request(body, &mut losses).unwrap();
    lower(&mut request, &RULES, &mut context, &mut losses);
    let card = Card::default();
    let target = Target {
        profile: Profile::Claude,
        model: "claude-x",
        card: &card,
        stream: true,
        thinking,
        project: "",
    };
    write_request(&request, &target, &mut context, &mut losses).unwrap()
}

fn texts_of<'j>(block: &'j Json<'_>, key: &str) -> &'j str {
    block.get(key).and_then(Json::as_str).unwrap_or_default()
}

/// The documented 400s about messages.
fn check_messages(body: &Json<'_>) {
    let messages = body.get("messages").unwrap().as_array().unwrap();
    let mut role = "assistant";
    let mut pending: Vec<&str> = Vec::new();
    for message in messages {
        assert_ne!(texts_of(message, "role"), role, "roles alternate and a user begins");
        role = texts_of(message, "role");
        let blocks = message.get("content").unwrap().as_array().unwrap();
        assert!(!blocks.is_empty());
        let of = |kind: &str| blocks.iter().filter(move |b| texts_of(b, "type") == kind).collect::<Vec<_>>();
        let answered: Vec<_> = of("tool_result").iter().map(|b| texts_of(b, "tool_use_id")).collect();
        assert_eq!(answered, pending, "each call is answered once, in the next turn");
        let leads = blocks.iter().take(answered.len()).all(|b| texts_of(b, "type") == "tool_result");
        assert!(leads, "results lead their turn");
        pending = of("tool_use").iter().map(|b| texts_of(b, "id")).collect();
        let unique: std::collections::HashSet<_> = pending.iter().collect();
        assert_eq!(unique.len(), pending.len());
        assert!(pending.iter().all(|id| id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')));
        assert!(of("text").iter().all(|b| !texts_of(b, "text").trim().is_empty()));
        assert!(of("thinking").is_empty(), "none of these is signed by Claude");
    }
    assert!(pending.is_empty(), "no call is left without an answer");
}

/// A block of a generated answer: its kind and its pieces.
#[derive(Clone, Debug)]
struct Made {
    kind: u8,
    pieces: Vec<String>,
    signed: bool,
}

fn answer() -> impl Strategy<Value = Vec<Made>> {
    let pieces = prop::collection::vec("[a-z \\n\"ü]{0,5}", 0..4);
    prop::collection::vec((0..6_u8, pieces, any::<bool>()), 0..6).prop_map(|blocks| {
        blocks.into_iter().map(|(kind, pieces, signed)| Made { kind, pieces, signed }).collect()
    })
}

impl Made {
    fn open(&self, n: u32, sink: &mut dyn Sink) {
        let id = format!("toolu_{n}");
        let kind = match self.kind {
            0 => BlockKind::Text,
            1 => BlockKind::Reasoning { redacted: None },
            2 => BlockKind::Reasoning { redacted: Some("hidden") },
            3 => BlockKind::Tool { id: &id, name: "f", namespace: None, kind: ToolKind::Function },
            4 => BlockKind::Server {
                kind: "web_search_tool_result",
                raw: r#"{"type":"web_search_tool_result","tool_use_id":"srv_1","content":[]}"#,
            },
            _ => BlockKind::Refusal,
        };
        sink.event(Event::Open { block: n, choice: 0, kind });
    }

    /// What the pieces are on the wire: text, or an object in as many pieces.
    fn deltas(&self) -> Vec<String> {
        if self.kind != 3 {
            return if matches!(self.kind, 2 | 4) { Vec::new() } else { self.pieces.clone() };
        }
        let whole = format!("{{\"a\":{}}}", json::string(&self.pieces.concat()));
        match self.pieces.len() {
            0 => Vec::new(),
            // Only Gemini signs calls, and its calls come whole.
            _ if self.signed => vec![whole],
            1 => vec![whole],
            _ => vec![String::new(), whole[..3].to_owned(), whole[3..].to_owned()],
        }
    }

    fn delta(&self, n: u32, text: &str, sink: &mut dyn Sink) {
        let delta = if self.kind == 3 { Delta::Arguments(text) } else { Delta::Text(text) };
        sink.event(Event::Delta { block: n, delta });
    }

    fn close(&self, n: u32, sink: &mut dyn Sink) {
        if self.signed && matches!(self.kind, 1 | 3) {
            let delta = Delta::Signature(Signature::of(Vendor::Gemini, "c2lnbmF0dXJl").unwrap());
            sink.event(Event::Delta { block: n, delta });
        }
        sink.event(Event::Close { block: n });
    }
}

fn start(sink: &mut dyn Sink) {
    sink.event(Event::Start { id: "msg_1", model: "m", created: None });
}

fn finish(blocks: &[Made], sink: &mut dyn Sink) {
    sink.event(Event::Usage(Usage { input: Some(3), output: Some(5), ..Usage::default() }));
    let reason = if blocks.iter().any(|b| b.kind == 3) { Finish::Tool } else { Finish::End };
    sink.event(Event::Finish { choice: 0, reason, detail: None });
    sink.event(Event::End);
}

fn play(blocks: &[Made], sink: &mut dyn Sink) {
    start(sink);
    for (n, block) in (0..).zip(blocks) {
        block.open(n, sink);
        block.deltas().iter().for_each(|text| block.delta(n, text, sink));
        block.close(n, sink);
    }
    finish(blocks, sink);
}

/// All blocks open at once; `order` says whose piece comes next.
fn play_interleaved(blocks: &[Made], order: &[prop::sample::Index], sink: &mut dyn Sink) {
    start(sink);
    let mut left: Vec<_> = blocks.iter().map(|b| b.deltas().into_iter()).collect();
    for (n, block) in (0..).zip(blocks) {
        block.open(n, sink);
    }
    if !blocks.is_empty() {
        for index in order {
            let n = index.index(blocks.len());
            if let Some(text) = left[n].next() {
                blocks[n].delta(n as u32, &text, sink);
            }
        }
    }
    for ((n, block), rest) in (0..).zip(blocks).zip(left) {
        rest.for_each(|text| block.delta(n, &text, sink));
        block.close(n, sink);
    }
    finish(blocks, sink);
}

fn stream(play: impl FnOnce(&mut dyn Sink)) -> Vec<u8> {
    let mut writer = stream_writer(Arc::new(Context::default()), Framing::Sse);
    play(&mut *writer);
    writer.frames().take()
}

fn read_stream(bytes: &[u8]) -> Fold {
    let (mut fold, mut reader) = (Fold::default(), reader(Profile::Claude, "5eed"));
    let mut decoder = sse::Decoder::default();
    decoder.feed(bytes, |event| reader.event(event.name, event.data, &mut fold)).unwrap();
    reader.eof(&mut fold);
    fold
}

/// The rules of the stream: blocks are numbered, do not overlap, and are closed before the end.
fn check_stream(bytes: &[u8]) {
    let (mut open, mut next, mut last) = (None, 0, String::new());
    let mut decoder = sse::Decoder::default();
    let check = |event: sse::Event<'_>| {
        let data = parse_any(event.data).unwrap();
        assert_eq!(texts_of(&data, "type"), event.name);
        assert_eq!(event.name == "message_start", last.is_empty());
        let index = data.get("index").and_then(Json::as_u64);
        match event.name {
            "content_block_start" => {
                assert_eq!((open, index), (None, Some(next)));
                (open, next) = (index, next + 1);
            }
            "content_block_delta" => assert_eq!(open, index),
            "content_block_stop" => {
                assert_eq!(open, index);
                open = None;
            }
            "message_delta" => assert_eq!(open, None),
            _ => {}
        }
        last = event.name.to_owned();
    };
    decoder.feed(bytes, check).unwrap();
    assert_eq!(last, "message_stop");
}

proptest! {
    #[test]
    fn p35_every_text_and_call_of_a_history_comes_through(history in history()) {
        let (body, texts, calls) = body(&history);
        let out = translate(&body, None);
        let value = parse_any(&out).unwrap();
        check_messages(&value);
        let written = String::from_utf8(out.clone()).unwrap();
        for text in &texts {
            prop_assert!(written.contains(text.as_str()), "{} is missing in {}", text, written);
        }
        let made = value.get("messages").unwrap().as_array().unwrap().iter();
        let made = made.flat_map(|m| m.get("content").unwrap().as_array().unwrap());
        prop_assert_eq!(made.filter(|b| texts_of(b, "type") == "tool_use").count(), calls);
        // What was written is what is read: a second pass changes nothing but the reminders.
        if history.iter().all(|(role, _)| *role != 4) {
            prop_assert_eq!(translate(&out, None), out);
        }
    }

    #[test]
    fn p35_a_stream_and_a_body_say_the_same(mut blocks in answer()) {
        // A stream cannot put thinking first.
        blocks.sort_by_key(|b| !matches!(b.kind, 1 | 2));
        let mut fold = Fold::default();
        play(&blocks, &mut fold);
        let bytes = stream(|sink| play(&blocks, sink));
        check_stream(&bytes);
        let body = write_answer(fold.answer(), &Context::default());
        let mut whole = Fold::default();
        reader(Profile::Claude, "5eed").whole(&body, &mut whole);
        prop_assert_eq!(read_stream(&bytes).into_answer(), whole.into_answer());
    }

    #[test]
    fn blocks_that_interleave_are_put_in_a_row(
        blocks in answer(),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..12)
    ) {
        let bytes = stream(|sink| play_interleaved(&blocks, &order, sink));
        check_stream(&bytes);
        let answer = read_stream(&bytes).into_answer();
        let calls: Vec<_> = answer.choices[0]
            .blocks
            .iter()
            .filter_map(|b| match b {
                crate::ir::Block::Tool { arguments, .. } => Some(arguments.clone()),
                _ => None,
            })
            .collect();
        let made: Vec<_> = blocks
            .iter()
            .filter(|b| b.kind == 3)
            .map(|b| b.deltas().concat())
            .map(|text| if text.is_empty() { "{}".to_owned() } else { text })
            .collect();
        prop_assert_eq!(calls, made);
    }

    #[test]
    fn p36_a_split_stream_reads_the_same(blocks in answer(), at in any::<prop::sample::Index>()) {
        let bytes = stream(|sink| play(&blocks, sink));
        let (head, tail) = bytes.split_at(at.index(bytes.len() + 1));
        let (mut fold, mut reader) = (Fold::default(), reader(Profile::Claude, "5eed"));
        let mut decoder = sse::Decoder::default();
        for part in [head, tail] {
            decoder.feed(part, |event| reader.event(event.name, event.data, &mut fold)).unwrap();
        }
        reader.eof(&mut fold);
        let whole = read_stream(&bytes).into_answer();
        prop_assert_eq!(fold.into_answer(), whole);
    }

    #[test]
    fn hostile_bodies_and_events_do_not_panic(text in "(?s).{0,60}", key in "[a-z_]{1,8}") {
        let value = json::string(&text);
        for body in [
            format!("{{\"messages\":[{{\"role\":\"user\",\"content\":[{{\"type\":\"{key}\",\"{key}\":{value}}}]}}]}}"),
            format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"a\"}}],\"{key}\":{value}}}"),
            text.clone(),
        ] {
            let _ = read_request(body.as_bytes(), &mut Losses::default());
            let (mut fold, mut reader) = (Fold::default(), reader(Profile::Claude, "5eed"));
            reader.event(&key, body.as_bytes(), &mut fold);
            reader.whole(body.as_bytes(), &mut fold);
        }
    }
}

#[test]
fn p32_a_deep_body_is_refused() {
    let deep = format!(
        r#"{{"messages":[{{"role":"user","content":[{{"type":"x","y":{}{}}}]}}]}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(read_request(deep.as_bytes(), &mut Losses::default()).is_err());
}
