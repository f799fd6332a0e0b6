//! What a Chat upstream answers → events.
//!
//! Enters: the events of a stream, or a whole body, which is read as one large chunk so that the two cannot
//! differ. Leaves: events; the end of a choice is said when the stream ends, because usage and late fragments
//! come behind `finish_reason`. May go wrong: an error object in place of a chunk, JSON that is none, and a
//! stream that stops before any `finish_reason`: each becomes a failure, never an end.

use super::chunk::{Chunk, Counts};
use super::read_calls::CallIds;
use super::read_choice::{Out, State};
use super::read_usage::usage;
use crate::error::Failure;
use crate::ir::{Event, ReadAnswer, Sink, Usage};
use serde_json::value::RawValue;
use smallvec::SmallVec;

/// Most choices of one answer that are followed; OpenAI's `n` ends at 128.
const MOST_CHOICES: usize = 128;

/// Reads one answer.
#[derive(Debug)]
pub(super) struct Reader {
    ids: CallIds,
    next_block: u32,
    choices: SmallVec<[State; 1]>,
    /// Name and id of the answer, until it has started.
    head: Option<Head>,
    usage: Usage,
    over: bool,
}

#[derive(Debug, Default)]
struct Head {
    id: String,
    model: String,
    created: Option<u64>,
}

impl Reader {
    /// `seed` is unique to the request.
    pub(super) fn new(seed: &str) -> Self {
        Self {
            ids: CallIds::new(seed),
            next_block: 0,
            choices: SmallVec::new(),
            head: Some(Head::default()),
            usage: Usage::default(),
            over: false,
        }
    }

    fn fail(&mut self, failure: Failure, sink: &mut dyn Sink) {
        self.over = true;
        sink.event(Event::Failure(failure));
    }

    fn start(&mut self, sink: &mut dyn Sink) {
        if let Some(Head { id, model, created }) = self.head.take() {
            sink.event(Event::Start { id: &id, model: &model, created });
        }
    }

    fn chunk(&mut self, chunk: &Chunk<'_>, sink: &mut dyn Sink) {
        if let Some(head) = &mut self.head {
            for (mine, theirs) in [(&mut head.id, &chunk.id), (&mut head.model, &chunk.model)] {
                if mine.is_empty() {
                    mine.push_str(&theirs.0);
                }
            }
            head.created = head.created.or(chunk.created.0.filter(|seconds| *seconds > 0));
        }
        for (n, choice) in chunk.choices.0.iter().enumerate() {
            self.start(sink);
            if matches!(choice.finish_reason.0.as_ref(), "error" | "insufficient_system_resource") {
                let reason = &choice.finish_reason.0;
                let failure = Failure::new(502, format!("the upstream broke off its answer: {reason}"));
                return self.fail(failure, sink);
            }
            let index = u32::try_from(choice.index.0.unwrap_or(n as u64)).unwrap_or(u32::MAX);
            let at = self.choices.iter().position(|state| state.index == index).unwrap_or_else(|| {
                self.choices.push(State::new(index));
                self.choices.len() - 1
            });
            let mut out = Out { next: &mut self.next_block, ids: &mut self.ids, sink: &mut *sink };
            let Some(state) = self.choices.get_mut(at) else { continue };
            state.take(choice, &mut out);
            if state.too_many_calls() || at >= MOST_CHOICES {
                return self.fail(Failure::garbage("too many choices or tool calls"), sink);
            }
            self.count(choice.usage.as_deref(), sink);
        }
        self.count(chunk.usage.as_deref(), sink);
        self.count(chunk.x_groq.as_ref().and_then(|groq| groq.usage.as_deref()), sink);
    }

    fn count(&mut self, counts: Option<&Counts>, sink: &mut dyn Sink) {
        let Some(counts) = counts else { return };
        let before = self.usage;
        self.usage.merge(&usage(counts));
        if self.usage != before {
            self.start(sink);
            sink.event(Event::Usage(self.usage));
        }
    }

    fn conclude(&mut self, sink: &mut dyn Sink) {
        if self.choices.is_empty() {
            return self.fail(Failure::garbage("it has no choices"), sink);
        }
        let mut choices = std::mem::take(&mut self.choices);
        choices.sort_by_key(|state| state.index);
        let mut out = Out { next: &mut self.next_block, ids: &mut self.ids, sink };
        for state in choices {
            state.conclude(&mut out);
        }
        self.over = true;
        sink.event(Event::End);
    }
}

impl ReadAnswer for Reader {
    fn event(&mut self, name: &str, data: &[u8], sink: &mut dyn Sink) {
        let data = data.trim_ascii();
        if self.over || data.is_empty() {
            return;
        }
        if data == b"[DONE]" {
            return self.conclude(sink);
        }
        match serde_json::from_slice::<Chunk<'_>>(data) {
            Err(error) => self.fail(Failure::garbage(&error.to_string()), sink),
            Ok(chunk) if name == "error" || is_error(&chunk) => self.fail(Failure::parse(0, data), sink),
            Ok(chunk) => self.chunk(&chunk, sink),
        }
    }

    fn whole(&mut self, body: &[u8], sink: &mut dyn Sink) {
        if self.over {
            return;
        }
        let chunk = match serde_json::from_slice::<Chunk<'_>>(body) {
            Err(error) => return self.fail(Failure::garbage(&error.to_string()), sink),
            Ok(chunk) if is_error(&chunk) => return self.fail(Failure::parse(0, body), sink),
            Ok(chunk) => chunk,
        };
        if !chunk.choices.0.is_empty() {
            self.chunk(&chunk, sink);
        } else if let Some(inner) = chunk.data.filter(|data| data.get().starts_with('{')) {
            match serde_json::from_str::<Chunk<'_>>(inner.get()) {
                Ok(inner) if !inner.choices.0.is_empty() => self.chunk(&inner, sink),
                _ => self.fail(Failure::parse(0, body), sink),
            }
        } else {
            // Gateways say what is wrong in many shapes, some with status 200.
            let said = crate::json::parse_any(body).map(|value| Failure::from_json(&value).message);
            let failure = match said {
                Ok(message) if !message.is_empty() => Failure::parse(0, body),
                _ => Failure::garbage("it has no choices"),
            };
            return self.fail(failure, sink);
        }
        if !self.over {
            self.conclude(sink);
        }
    }

    fn eof(&mut self, sink: &mut dyn Sink) {
        if self.over {
            return;
        }
        if !self.choices.is_empty() && self.choices.iter().all(State::has_finished) {
            self.conclude(sink);
        } else {
            self.fail(Failure::cut(), sink);
        }
    }
}

/// Whether a chunk is an error object. Some servers write `error: null` or `error: {}` into every chunk.
fn is_error(chunk: &Chunk<'_>) -> bool {
    let says = |raw: &RawValue| !matches!(raw.get(), "null" | "\"\"" | "{}" | "false" | "0");
    chunk.error.is_some_and(says) || (chunk.object.0 == "error" && chunk.choices.0.is_empty())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ir::{Answer, Block, Finish, Fold};
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// Folds events and holds the reader to its promises.
    #[derive(Default)]
    struct Checked {
        fold: Fold,
        started: bool,
        next: u32,
        open: HashMap<u32, u32>,
        finished: Vec<u32>,
        over: bool,
    }

    impl Sink for Checked {
        fn event(&mut self, event: Event<'_>) {
            assert!(!self.over, "{event:?} after the end");
            assert_eq!(matches!(event, Event::Start { .. }), !self.started, "{event:?}");
            self.started = true;
            match &event {
                Event::Open { block, choice, .. } => {
                    assert_eq!(*block, self.next);
                    self.next += 1;
                    self.open.insert(*block, *choice);
                }
                Event::Delta { block, .. } => assert!(self.open.contains_key(block)),
                Event::Close { block } => assert!(self.open.remove(block).is_some()),
                Event::Finish { choice, .. } => {
                    assert!(
                        !self.open.values().any(|open| open == choice) && !self.finished.contains(choice)
                    );
                    self.finished.push(*choice);
                }
                Event::Failure(_) => self.over = true,
                Event::End => {
                    self.over = true;
                    assert!(self.open.is_empty() && !self.finished.is_empty());
                }
                Event::Start { .. } | Event::Usage(_) => {}
            }
            self.fold.event(event);
        }
    }

    /// A failure may come before anything else.
    fn failure(events: &[&str]) -> Option<Failure> {
        let (mut reader, mut fold) = (Reader::new("seed"), Fold::default());
        for event in events {
            reader.event("", event.as_bytes(), &mut fold);
        }
        reader.eof(&mut fold);
        fold.into_answer().failure
    }

    fn stream(events: &[&str]) -> Answer {
        let (mut reader, mut sink) = (Reader::new("seed"), Checked::default());
        for event in events {
            reader.event("", event.as_bytes(), &mut sink);
        }
        reader.eof(&mut sink);
        sink.fold.into_answer()
    }

    pub(in crate::openai_chat) fn whole(body: &str) -> Answer {
        let (mut reader, mut sink) = (Reader::new("seed"), Checked::default());
        reader.whole(body.as_bytes(), &mut sink);
        reader.eof(&mut sink);
        sink.fold.into_answer()
    }

    /// Chunks of choice 0 with these deltas, then a finish and `[DONE]`.
    pub(in crate::openai_chat) fn deltas(deltas: &[&str], finish: &str) -> Answer {
        let mut events: Vec<String> = deltas
            .iter()
            .map(|delta| {
                format!(r#"{{"id":"c","model":"m","created":5,"choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#)
            })
            .collect();
        events
            .push(format!(r#"{{"id":"c","choices":[{{"index":0,"delta":{{}},"finish_reason":{finish}}}]}}"#));
        events.push("[DONE]".to_owned());
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        stream(&events)
    }

    /// Blocks of the first choice in short: kind and content.
    pub(in crate::openai_chat) fn shape(answer: &Answer) -> String {
        let blocks = answer.choices[0].blocks.iter().map(|block| match block {
            Block::Text { text, .. } => format!("text {text}"),
            Block::Refusal(text) => format!("refusal {text}"),
            Block::Reasoning { parts, signature, redacted } => format!(
                "thought {}{}{}",
                parts.join("+"),
                signature.as_ref().map(|s| format!(" sig {}", s.value)).unwrap_or_default(),
                redacted.as_ref().map(|r| format!(" red {r}")).unwrap_or_default()
            ),
            Block::Tool { id, name, arguments, kind, .. } => format!("call {id} {name} {arguments} {kind:?}"),
            Block::Image { mime, data } => format!("image {mime} {data}"),
            Block::Server { .. } => "server".to_owned(),
        });
        blocks.collect::<Vec<_>>().join(" | ")
    }

    pub(in crate::openai_chat) fn finish(answer: &Answer) -> Finish {
        answer.choices[0].finish.unwrap()
    }

    pub(in crate::openai_chat) const STOP: &str = r#""stop""#;

    #[test]
    fn text_has_one_block_and_the_head_of_the_first_chunk_with_one() {
        let answer = deltas(
            &[r#"{"role":"assistant","content":""}"#, r#"{"content":"Hel"}"#, r#"{"content":"lo"}"#],
            STOP,
        );
        assert_eq!((shape(&answer).as_str(), finish(&answer)), ("text Hello", Finish::End));
        assert_eq!((answer.id.as_str(), answer.model.as_str(), answer.created), ("c", "m", Some(5)));
        assert!(answer.complete);
        // Azure sends a chunk about the prompt first.
        let answer = stream(&[
            r#"{"id":"","model":"","created":0,"choices":[],"prompt_filter_results":[]}"#,
            r#"{"id":"x","model":"y","created":3,"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}"#,
        ]);
        assert_eq!((answer.id.as_str(), answer.created, answer.complete), ("x", Some(3), true));
    }

    #[test]
    fn a_plain_text_chunk_allocates_nothing() {
        let text = br#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,"delta":{"content":"Hello"},"logprobs":null,"finish_reason":null}],"usage":null}"#;
        let chunk: Chunk<'_> = serde_json::from_slice(text).unwrap();
        assert!(!chunk.choices.0.spilled());
        let borrowed = |text: &std::borrow::Cow<'_, str>| matches!(text, std::borrow::Cow::Borrowed(_));
        let delta = chunk.choices.0[0].delta.as_ref().unwrap();
        assert!(borrowed(&delta.content.text) && borrowed(&chunk.id.0) && borrowed(&chunk.model.0));
        assert!(chunk.usage.is_none() && delta.tool_calls.0.capacity() == 0);
        assert_eq!(delta.content.text, "Hello");
    }

    #[test]
    fn p39_usage_is_found_wherever_it_stands() {
        let choice = r#"{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}"#;
        let counts = r#"{"prompt_tokens":100,"completion_tokens":7,"total_tokens":107,"prompt_tokens_details":{"cached_tokens":80},"completion_tokens_details":{"reasoning_tokens":3}}"#;
        let expected = Usage {
            input: Some(20),
            cache_read: Some(80),
            output: Some(7),
            reasoning: Some(3),
            ..Usage::default()
        };
        for events in [
            vec![format!(r#"{{"choices":[{choice}],"usage":{counts}}}"#)],
            vec![
                format!(r#"{{"choices":[{choice}],"usage":null}}"#),
                format!(r#"{{"choices":[],"usage":{counts}}}"#),
            ],
            vec![format!(r#"{{"usage":{counts}}}"#), format!(r#"{{"choices":[{choice}]}}"#)],
            vec![format!(r#"{{"choices":[{choice}],"x_groq":{{"usage":{counts}}}}}"#)],
            vec![format!(r#"{{"choices":[{{"usage":{counts},"finish_reason":"stop"}}]}}"#)],
        ] {
            let events: Vec<&str> = events.iter().map(String::as_str).collect();
            assert_eq!(stream(&events).usage, expected, "{events:?}");
        }
    }

    #[test]
    fn p12_a_stream_without_its_end_is_cut() {
        let text = r#"{"choices":[{"index":0,"delta":{"content":"par"}}]}"#;
        assert_eq!(failure(&[text]), Some(Failure::cut()));
        assert_eq!(failure(&[]), Some(Failure::cut()));
        let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
        assert_eq!(failure(&[text, stop]), None);
        // One of two choices is not done.
        let two = r#"{"choices":[{"index":0,"finish_reason":"stop"},{"index":1,"delta":{"content":"x"}}]}"#;
        assert_eq!(failure(&[two]), Some(Failure::cut()));
        // `[DONE]` without any reason is an end all the same; without any choice it is not.
        assert_eq!(failure(&[text, "[DONE]", "{broken"]), None);
        assert!(failure(&["[DONE]"]).unwrap().message.contains("no choices"));
    }

    #[test]
    fn errors_inside_the_stream_are_failures() {
        for (event, status, message) in [
            (r#"{"error":{"message":"exploded","type":"server_error","code":null}}"#, 500, "exploded"),
            (r#"{"error":"busy"}"#, 502, "busy"),
            (r#"{"choices":[],"error":{"code":429,"message":"slow"}}"#, 429, "slow"),
            (r#"{"object":"error","message":"bad","code":400}"#, 400, "bad"),
            ("<html>", 502, "cannot be read"),
            (r#"{"choices":[{"finish_reason":"error"}]}"#, 502, "broke off"),
        ] {
            let got = failure(&[r#"{"choices":[{"delta":{"content":"a"}}],"error":null}"#, event]).unwrap();
            assert!(got.status == status && got.message.contains(message), "{event}: {got:?}");
        }
        let (mut reader, mut fold) = (Reader::new("s"), Fold::default());
        reader.event("error", br#"{"message":"m","code":503}"#, &mut fold);
        assert_eq!(fold.into_answer().failure.unwrap().status, 503);
    }

    #[test]
    fn a_whole_body_that_is_no_answer_is_a_failure() {
        for (body, message) in [
            (r#"{"error":{"message":"m"}}"#, "m"),
            (r#"{"status":"439","msg":"expired"}"#, "expired"),
            (r#"{"detail":"nope"}"#, "nope"),
            (r#"{"id":"x","choices":[]}"#, "no choices"),
            ("", "cannot be read"),
            (r#"{"choices":7}"#, "cannot be read"),
        ] {
            let mut fold = Fold::default();
            Reader::new("s").whole(body.as_bytes(), &mut fold);
            let failure = fold.into_answer().failure.unwrap();
            assert!(failure.message.contains(message), "{body}: {failure:?}");
        }
        let wrapped = r#"{"success":true,"data":{"id":"x","choices":[{"message":{"content":"in"}}]}}"#;
        assert_eq!(shape(&whole(wrapped)), "text in");
    }

    #[test]
    fn several_choices_keep_apart() {
        let answer = stream(&[
            r#"{"choices":[{"index":1,"delta":{"content":"B"}},{"index":0,"delta":{"content":"A"}}]}"#,
            r#"{"choices":[{"index":1,"delta":{"content":"b"},"finish_reason":"length"}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}"#,
        ]);
        let texts: Vec<_> =
            answer.choices.iter().map(|c| (c.index, format!("{:?}", c.blocks), c.finish)).collect();
        assert!(texts[0].1.contains("\"Aa\"") && texts[0].2 == Some(Finish::End), "{texts:?}");
        assert!(texts[1].1.contains("\"Bb\"") && texts[1].2 == Some(Finish::Length), "{texts:?}");
        let whole = whole(r#"{"choices":[{"message":{"content":"A"}},{"message":{"content":"B"}}]}"#);
        assert_eq!(whole.choices.len(), 2);
    }

    #[test]
    fn members_of_strange_types_do_not_break_an_answer() {
        let answer = whole(
            r#"{"id":7,"created":"now","model":null,"choices":[{"index":0,"message":{"role":null,"content":"t","tool_calls":null,"annotations":{},"reasoning":{"x":1},"refusal":[]},"finish_reason":{}}],"usage":{"prompt_tokens":null}}"#,
        );
        assert_eq!((answer.id.as_str(), shape(&answer).as_str()), ("7", "text t"));
    }

    #[test]
    fn p40_endless_calls_and_choices_are_refused() {
        let choices: Vec<String> =
            (0..200).map(|n| format!(r#"{{"index":{n},"delta":{{"content":"a"}}}}"#)).collect();
        let events = [format!(r#"{{"choices":[{}]}}"#, choices.join(","))];
        assert!(failure(&[&events[0]]).unwrap().message.contains("too many"));
        let calls: Vec<String> =
            (0..5000).map(|n| format!(r#"{{"index":{n},"function":{{"name":"f"}}}}"#)).collect();
        let event = format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{}]}}}}]}}"#, calls.join(","));
        assert!(failure(&[&event]).unwrap().message.contains("too many"));
    }

    proptest! {
        /// Text, thinking and calls, cut into deltas anywhere, read like the whole body.
        #[test]
        fn p35_a_stream_reads_like_the_body(
            thought in "[a-z é\"\n]{0,8}",
            text in "[a-z 🦀\\\\]{0,12}",
            calls in prop::collection::vec("[a-z\"é]{0,6}", 0..3),
            cut in 1_usize..5,
        ) {
            let quote = |text: &str| crate::json::string(text);
            let pieces = |text: &str| -> Vec<String> {
                let all: Vec<char> = text.chars().collect();
                all.chunks(cut).map(|piece| piece.iter().collect()).collect()
            };
            let arguments: Vec<String> = calls.iter().map(|x| format!("{{\"x\":{}}}", quote(x))).collect();
            let mut parts: Vec<String> =
                pieces(&thought).iter().map(|p| format!("{{\"reasoning_content\":{}}}", quote(p))).collect();
            parts.extend(pieces(&text).iter().map(|p| format!("{{\"content\":{}}}", quote(p))));
            for (n, text) in arguments.iter().enumerate() {
                parts.push(format!("{{\"tool_calls\":[{{\"index\":{n},\"id\":\"c{n}\",\"function\":{{\"name\":\"f\",\"arguments\":\"\"}}}}]}}"));
                parts.extend(pieces(text).iter().map(|p| {
                    format!("{{\"tool_calls\":[{{\"index\":{n},\"function\":{{\"arguments\":{}}}}}]}}", quote(p))
                }));
            }
            let all: Vec<String> = arguments.iter().enumerate().map(|(n, text)| {
                format!("{{\"id\":\"c{n}\",\"function\":{{\"name\":\"f\",\"arguments\":{}}}}}", quote(text))
            }).collect();
            let body = format!(
                "{{\"id\":\"c\",\"model\":\"m\",\"created\":5,\"choices\":[{{\"message\":{{\"reasoning_content\":{},\"content\":{},\"tool_calls\":[{}]}},\"finish_reason\":\"stop\"}}]}}",
                quote(&thought), quote(&text), all.join(",")
            );
            let parts: Vec<&str> = std::iter::once("{\"role\":\"assistant\",\"content\":\"\"}")
                .chain(parts.iter().map(String::as_str))
                .collect();
            prop_assert_eq!(deltas(&parts, STOP), whole(&body));
        }

        /// Any bytes give events that keep the promises, or a failure.
        #[test]
        fn p40_any_events_keep_the_promises(events in prop::collection::vec(
            r#"(\{"choices":\[\{("index":[01],)?"delta":\{("content":"[a-z]?",)?("reasoning":"[a-z]",)?("tool_calls":\[\{("index":[01],)?("id":"[ab]?",)?"function":\{("name":"[fg]?",)?"arguments":"[0-9]?"\}\}\],)?"x":1\}(,"finish_reason":("stop"|null|""))?\}\](,"usage":\{"prompt_tokens":[0-9]\})?\}|\[DONE\]|\{\}|x)"#,
            1..8,
        )) {
            let (mut reader, mut sink) = (Reader::new("seed"), Checked::default());
            // A failure in the first event comes without a start.
            if reader_fails_at_once(&events) {
                return Ok(());
            }
            for event in &events {
                reader.event("", event.as_bytes(), &mut sink);
            }
            reader.eof(&mut sink);
            prop_assert!(sink.over);
        }
    }

    fn reader_fails_at_once(events: &[String]) -> bool {
        let mut reader = Reader::new("seed");
        let mut first = None;
        for event in events {
            reader.event("", event.as_bytes(), &mut |event: Event<'_>| {
                first.get_or_insert(matches!(event, Event::Failure(_)));
            });
        }
        reader.eof(&mut |event: Event<'_>| {
            first.get_or_insert(matches!(event, Event::Failure(_)));
        });
        first == Some(true)
    }
}
