//! Upstream answer → events.
//!
//! Enters: chunks of a stream, a whole body, or an array of chunks; in the envelope where the backend has one.
//! Leaves: events as [`crate::ir::Event`] promises them. May go wrong: an error object, something that is no
//! answer, an end before every candidate finished.
//!
//! A chunk may hold a finish reason before the last content or usage has come, so blocks are closed and
//! choices finished when the stream ends, and not before.

use super::chunk::{Chunk, Envelope};
use super::read_candidate::{Choice, Shared};
use crate::error::Failure;
use crate::ir::{Event, Finish, ReadAnswer, Sink};
use crate::target::Profile;
use serde_json::value::RawValue;

/// Most candidates that are read of an answer; the API gives 8.
const MAX_CANDIDATES: usize = 128;

/// Reads one answer.
#[derive(Debug)]
pub(super) struct Reader {
    wrapped: bool,
    started: bool,
    over: bool,
    choices: Vec<Choice>,
    shared: Shared,
}

impl Reader {
    pub(super) fn new(profile: Profile, seed: &str) -> Self {
        Self {
            wrapped: profile != Profile::Gemini,
            started: false,
            over: false,
            choices: Vec::new(),
            shared: Shared::new(seed),
        }
    }

    fn document(&mut self, data: &[u8], sink: &mut dyn Sink) {
        if self.wrapped
            && let Ok(Envelope { response: Some(chunk), error: None }) = serde_json::from_slice(data)
        {
            return self.chunk(&chunk, data, sink);
        }
        match serde_json::from_slice::<Chunk<'_>>(data) {
            Ok(chunk) => self.chunk(&chunk, data, sink),
            Err(error) => self.fail(Failure::garbage(&error.to_string()), sink),
        }
    }

    fn fail(&mut self, failure: Failure, sink: &mut dyn Sink) {
        self.over = true;
        sink.event(Event::Failure(failure));
    }

    fn chunk(&mut self, chunk: &Chunk<'_>, data: &[u8], sink: &mut dyn Sink) {
        if chunk.error.is_some() {
            return self.fail(Failure::parse(0, data), sink);
        }
        let says_nothing = chunk.candidates.is_none()
            && chunk.usage_metadata.is_none()
            && chunk.prompt_feedback.is_none()
            && chunk.response_id.is_empty();
        if says_nothing {
            return;
        }
        if !std::mem::replace(&mut self.started, true) {
            sink.event(Event::Start { id: &chunk.response_id, model: &chunk.model_version, created: None });
        }
        for (n, candidate) in chunk.candidates.iter().flatten().enumerate() {
            if self.choices.len() > MAX_CANDIDATES {
                return self.fail(Failure::garbage("it has too many candidates"), sink);
            }
            let index = candidate.index.unwrap_or(n as u32);
            let shared = &mut self.shared;
            with_choice(&mut self.choices, index, |choice| choice.candidate(candidate, shared, sink));
        }
        if let Some(feedback) = &chunk.prompt_feedback
            && !feedback.block_reason.is_empty()
        {
            let said = [&feedback.block_reason_message, &feedback.block_reason];
            let detail = said.iter().find(|words| !words.is_empty()).map(|words| words.to_string());
            with_choice(&mut self.choices, 0, |choice| {
                choice.finish.get_or_insert((Finish::Filter, detail.unwrap_or_default()));
            });
        }
        if let Some(usage) = &chunk.usage_metadata {
            let usage = usage.usage();
            if !usage.is_unknown() {
                sink.event(Event::Usage(usage));
            }
        }
    }
}

/// The candidate `index`, new if need be.
fn with_choice(choices: &mut Vec<Choice>, index: u32, change: impl FnOnce(&mut Choice)) {
    if let Some(choice) = choices.iter_mut().find(|choice| choice.index == index) {
        return change(choice);
    }
    let mut choice = Choice::new(index);
    change(&mut choice);
    choices.push(choice);
}

impl ReadAnswer for Reader {
    fn event(&mut self, _name: &str, data: &[u8], sink: &mut dyn Sink) {
        let data = data.trim_ascii();
        if !self.over && !data.is_empty() && data != b"[DONE]" {
            self.document(data, sink);
        }
    }

    fn whole(&mut self, body: &[u8], sink: &mut dyn Sink) {
        if self.over {
            return;
        }
        // The stream method without `alt=sse` answers with an array of chunks.
        match serde_json::from_slice::<Vec<&RawValue>>(body) {
            Ok(chunks) => {
                for chunk in chunks {
                    if !self.over {
                        self.document(chunk.get().as_bytes(), sink);
                    }
                }
            }
            Err(_) => self.document(body, sink),
        }
        self.eof(sink);
    }

    fn eof(&mut self, sink: &mut dyn Sink) {
        if self.over {
            return;
        }
        let complete = !self.choices.is_empty() && self.choices.iter().all(|choice| choice.finish.is_some());
        if !complete {
            return self.fail(Failure::cut(), sink);
        }
        self.over = true;
        for choice in &mut self.choices {
            choice.end(sink);
        }
        sink.event(Event::End);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemini::read_candidate::signed;
    use crate::ir::{Answer, Block, Delta, Fold, Usage};
    use crate::signature::Vendor;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    fn gemini_signature() -> String {
        STANDARD.encode([0x12, 0x05, 0x0a, 0x03, 0x01, 0x0c, 0x39])
    }

    /// Folds a stream.
    fn stream(profile: Profile, chunks: &[&str]) -> Answer {
        let (mut reader, mut fold) = (Reader::new(profile, "seed"), Fold::default());
        for chunk in chunks {
            reader.event("", chunk.as_bytes(), &mut fold);
        }
        reader.eof(&mut fold);
        fold.into_answer()
    }

    fn whole(body: &str) -> Answer {
        let (mut reader, mut fold) = (Reader::new(Profile::Gemini, "seed"), Fold::default());
        reader.whole(body.as_bytes(), &mut fold);
        fold.into_answer()
    }

    /// A chunk of the first candidate.
    fn chunk(parts: &str) -> String {
        format!(
            r#"{{"candidates":[{{"content":{{"role":"model","parts":[{parts}]}},"index":0}}],"modelVersion":"m","responseId":"r"}}"#
        )
    }

    const STOP: &str = r#"{"candidates":[{"finishReason":"STOP"}]}"#;

    /// One line per block.
    fn shape(answer: &Answer) -> String {
        let block = |block: &Block| match block {
            Block::Text { text, signature, .. } => {
                format!("text:{text}{}", if signature.is_some() { "+sig" } else { "" })
            }
            Block::Reasoning { parts, signature, .. } => {
                format!("think:{}{}", parts.concat(), if signature.is_some() { "+sig" } else { "" })
            }
            Block::Tool { id, name, arguments, signature, .. } => {
                format!("call:{id}:{name}{arguments}{}", if signature.is_some() { "+sig" } else { "" })
            }
            Block::Image { mime, data } => format!("image:{mime}:{data}"),
            Block::Server { raw, .. } => format!("server:{raw}"),
            Block::Refusal(text) => format!("refusal:{text}"),
        };
        let blocks = answer.choices.iter().flat_map(|choice| &choice.blocks);
        blocks.map(block).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn a_stream_and_its_body_are_the_same() {
        let sign = gemini_signature();
        let parts = [
            r#"{"text":"pl","thought":true}"#.to_owned(),
            r#"{"text":"an","thought":true},{"text":"Hel"}"#.to_owned(),
            r#"{"text":"lo"}"#.to_owned(),
            format!(r#"{{"functionCall":{{"name":"f","args":{{"a": 1.0}}}},"thoughtSignature":"{sign}"}}"#),
            r#"{"functionCall":{"id":"x","name":"f"}},{"functionCall":{"id":"x","name":"g","args":null}}"#
                .to_owned(),
        ];
        let chunks: Vec<_> = parts.iter().map(|parts| chunk(parts)).collect();
        let mut all: Vec<&str> = chunks.iter().map(String::as_str).collect();
        all.push(STOP);
        let streamed = stream(Profile::Gemini, &all);
        assert_eq!(
            shape(&streamed),
            r#"think:plan | text:Hello | call:call_seed_1:f{"a": 1.0}+sig | call:x:f{} | call:call_seed_3:g{}"#
        );
        assert_eq!(streamed.choices[0].finish, Some(Finish::Tool));
        assert_eq!((streamed.id.as_str(), streamed.model.as_str(), streamed.complete), ("r", "m", true));
        let body = chunk(&parts.join(",")).replace(r#""index":0"#, r#""index":0,"finishReason":"STOP""#);
        assert_eq!(whole(&body), streamed);
        assert_eq!(whole(&format!("[{}]", all.join(","))), streamed);
    }

    #[test]
    fn signed_text_stays_text_and_an_empty_signed_part_makes_none() {
        let sign = gemini_signature();
        let signed = |text: &str| format!(r#"{{"text":"{text}","thoughtSignature":"{sign}"}}"#);
        let empty = chunk(&signed(""));
        for (chunks, expected) in [
            (vec![chunk(&signed("Sunny."))], "text:Sunny.+sig"),
            (vec![chunk(r#"{"text":"Sunny."}"#), empty.clone()], "text:Sunny.+sig"),
            (
                vec![chunk(r#"{"functionCall":{"id":"1","name":"f"}}"#), empty.clone()],
                "call:1:f{} | think:+sig",
            ),
            (vec![chunk(&signed("a")), chunk(r#"{"text":"b"}"#)], "text:a+sig | text:b"),
            (vec![chunk(r#"{"text":""}"#)], ""),
        ] {
            let mut all: Vec<&str> = chunks.iter().map(String::as_str).collect();
            all.push(STOP);
            assert_eq!(shape(&stream(Profile::Gemini, &all)), expected);
        }
    }

    #[test]
    fn makers_of_signatures_are_told() {
        let claude = STANDARD.encode([&[0x12, 0x04, 0x0a, 0x02, 0x08, 0x0a][..], &[0; 20]].concat());
        let vertex = crate::signature::wrap_vertex(&claude);
        let text = chunk(&format!(r#"{{"text":"t","thought":true,"thoughtSignature":"{vertex}"}}"#));
        let answer = stream(Profile::Antigravity, &[&format!(r#"{{"response":{text}}}"#), STOP]);
        let Block::Reasoning { signature: Some(signature), .. } = &answer.choices[0].blocks[0] else {
            panic!()
        };
        assert_eq!((signature.vendor, signature.value.as_ref()), (Vendor::ClaudeVertex, vertex.as_str()));
        assert_eq!(signed("c29tZXRoaW5n").unwrap().vendor, Vendor::Gemini);
    }

    #[test]
    fn envelopes_are_opened_and_usage_is_the_last_one() {
        let usage = |n: u32| {
            format!(
                r#"{{"response":{{"candidates":[{{"content":{{"parts":[{{"text":"a"}}]}}}}],"usageMetadata":{{"promptTokenCount":100,"cachedContentTokenCount":60,"candidatesTokenCount":{n},"thoughtsTokenCount":7}}}},"traceId":"t"}}"#
            )
        };
        let stop = format!(r#"{{"response":{STOP}}}"#);
        let answer = stream(Profile::GeminiCli, &[r#"{"traceId":"t"}"#, &usage(1), &usage(5), &stop]);
        assert_eq!(shape(&answer), "text:aa");
        let expected = Usage {
            input: Some(40),
            cache_read: Some(60),
            output: Some(12),
            reasoning: Some(7),
            ..Usage::default()
        };
        assert_eq!(answer.usage, expected);
    }

    #[test]
    fn reasons_are_told() {
        for (candidate, reason, detail) in [
            (r#""finishReason":"STOP""#, Finish::End, None),
            (
                r#""finishReason":"MAX_TOKENS","content":{"parts":[{"functionCall":{"name":"f"}}]}"#,
                Finish::Length,
                None,
            ),
            (r#""finishReason":"SAFETY""#, Finish::Filter, Some("SAFETY")),
            (r#""finishReason":"OTHER","finishMessage":"why""#, Finish::End, Some("why")),
            (r#""finishReason":"MALFORMED_FUNCTION_CALL""#, Finish::BadCall, Some("MALFORMED_FUNCTION_CALL")),
            (
                r#""finishReason":"OTHER","content":{"parts":[{"functionCall":{"name":"f"}}]}"#,
                Finish::Tool,
                Some("OTHER"),
            ),
        ] {
            let answer = whole(&format!(r#"{{"candidates":[{{{candidate}}}]}}"#));
            let choice = &answer.choices[0];
            assert_eq!((choice.finish, choice.detail.as_deref()), (Some(reason), detail), "{candidate}");
        }
        let blocked = whole(
            r#"{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},"usageMetadata":{"promptTokenCount":20}}"#,
        );
        assert_eq!(blocked.choices[0].finish, Some(Finish::Filter));
        assert_eq!(blocked.choices[0].detail.as_deref(), Some("PROHIBITED_CONTENT"));
        assert!(blocked.complete);
    }

    #[test]
    fn only_a_finished_answer_ends_well() {
        let text = chunk(r#"{"text":"a"}"#);
        let usage = r#"{"usageMetadata":{"promptTokenCount":1,"totalTokenCount":2}}"#;
        for chunks in [vec![], vec![text.as_str()], vec![usage], vec![text.as_str(), usage, "[DONE]"]] {
            let answer = stream(Profile::Gemini, &chunks);
            assert_eq!(answer.failure, Some(Failure::cut()));
            assert!(!answer.complete);
        }
        let two = r#"{"candidates":[{"index":0,"finishReason":"STOP"},{"index":1,"content":{"parts":[{"text":"b"}]}}]}"#;
        assert!(stream(Profile::Gemini, &[two]).failure.is_some());
        // Usage and content may follow the reason.
        let answer = stream(Profile::Gemini, &[STOP, &text, usage]);
        assert!(answer.complete && shape(&answer) == "text:a");
    }

    #[test]
    fn errors_and_garbage_break_the_answer() {
        let error = r#"{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}"#;
        let text = chunk(r#"{"text":"a"}"#);
        for profile in [Profile::Gemini, Profile::Antigravity] {
            let answer = stream(profile, &[&text, error, &text, STOP]);
            let failure = answer.failure.as_ref().unwrap();
            assert_eq!((failure.status, failure.message.as_str()), (503, "busy"));
            assert_eq!(shape(&answer), "text:a");
        }
        assert_eq!(whole(&format!("[{error}]")).failure.unwrap().status, 503);
        for garbage in
            ["<html>", "{\"candidates\":7}", "null", "[[]]", "{\"candidates\":[{\"content\":\"x\"}]}"]
        {
            let failure = whole(garbage).failure;
            assert!(failure.is_some_and(|f| f.status == 502), "{garbage}");
        }
    }

    #[test]
    fn pictures_and_items_of_built_in_tools_are_blocks() {
        let parts = r#"{"text":"Here"},{"inlineData":{"mimeType":"image/png","data":"AAAA"}},{"inlineData":{"mimeType":"image/png","data":"BBBB"},"thought":true},{"executableCode":{"code":"1"}},{"codeExecutionResult":{"output":"1"}},{"inlineData":{"mimeType":"audio/wav","data":"CC"}}"#;
        let answer = stream(Profile::Gemini, &[&chunk(parts), STOP]);
        assert_eq!(
            shape(&answer),
            r#"text:Here | image:image/png:AAAA | server:{"executableCode":{"code":"1"}} | server:{"codeExecutionResult":{"output":"1"}} | server:{"inlineData":{"mimeType":"audio/wav","data":"CC"}}"#
        );
    }

    #[test]
    fn sources_and_log_probabilities_hang_on_the_text() {
        let last = r#"{"candidates":[{"finishReason":"STOP","groundingMetadata":{"groundingChunks":[{"web":{"uri":"https://a","title":"A"}}],"groundingSupports":[{"segment":{"endIndex":5,"text":"Sunny"},"groundingChunkIndices":[0]}]},"logprobsResult":{"chosenCandidates":[{"token":"S","logProbability":-1}]}}]}"#;
        let answer = stream(Profile::Gemini, &[&chunk(r#"{"text":"Sunny."}"#), last]);
        let Block::Text { citations, logprobs, .. } = &answer.choices[0].blocks[0] else { panic!() };
        assert_eq!(
            (citations[0].url.as_ref(), citations[0].start, citations[0].end),
            ("https://a", Some(0), Some(5))
        );
        assert_eq!(logprobs.len(), 1);
    }

    #[test]
    fn several_candidates_keep_their_numbers() {
        let body = r#"{"candidates":[{"content":{"parts":[{"text":"A"}]},"finishReason":"STOP"},{"index":1,"content":{"parts":[{"text":"B"}]},"finishReason":"MAX_TOKENS"}]}"#;
        let answer = whole(body);
        assert_eq!((answer.choices.len(), answer.text().as_str()), (2, "A"));
        assert_eq!(answer.choices[1].finish, Some(Finish::Length));
    }

    /// Follows the promises of [`Event`].
    #[derive(Default)]
    struct Promises {
        started: bool,
        open: HashMap<u32, u32>,
        signed: HashSet<u32>,
        seen: u32,
        finished: HashSet<u32>,
        ids: HashSet<String>,
        over: bool,
    }

    impl Sink for Promises {
        fn event(&mut self, event: Event<'_>) {
            assert!(!self.over, "something behind the end: {event:?}");
            match event {
                Event::Start { .. } => assert!(!std::mem::replace(&mut self.started, true)),
                Event::Open { block, choice, kind } => {
                    assert_eq!(block, self.seen, "numbers rise");
                    self.seen += 1;
                    assert!(self.open.insert(block, choice).is_none());
                    if let crate::ir::BlockKind::Tool { id, .. } = kind {
                        assert!(!id.is_empty() && self.ids.insert(id.to_owned()));
                    }
                }
                Event::Delta { block, delta } => {
                    assert!(self.open.contains_key(&block) && !self.signed.contains(&block), "{delta:?}");
                    if let Delta::Signature(_) = delta {
                        self.signed.insert(block);
                    }
                }
                Event::Close { block } => assert!(self.open.remove(&block).is_some()),
                Event::Usage(_) => {}
                Event::Finish { choice, .. } => {
                    assert!(!self.open.values().any(|c| *c == choice) && self.finished.insert(choice));
                }
                Event::Failure(_) => self.over = true,
                Event::End => {
                    assert!(self.started && self.open.is_empty());
                    self.over = true;
                }
            }
        }
    }

    fn any_part() -> impl Strategy<Value = &'static str> {
        prop_oneof![
            Just(r#"{"text":"a"}"#),
            Just(r#"{"text":""}"#),
            Just(r#"{"text":"t","thought":true}"#),
            Just(r#"{"text":"s","thoughtSignature":"c2ln"}"#),
            Just(r#"{"text":"","thoughtSignature":"c2ln"}"#),
            Just(r#"{"thought":true,"thoughtSignature":"c2ln"}"#),
            Just(r#"{"functionCall":{"id":"x","name":"f","args":{}},"thoughtSignature":"c2ln"}"#),
            Just(r#"{"functionCall":{"name":"f"}}"#),
            Just(r#"{"inlineData":{"mimeType":"image/png","data":"AA"}}"#),
            Just(r#"{"executableCode":{}}"#),
            Just("{}"),
        ]
    }

    proptest! {
        #[test]
        fn events_keep_their_promises(
            chunks in prop::collection::vec((0_u32..3, prop::collection::vec(any_part(), 0..4), any::<bool>()), 0..8)
        ) {
            let (mut reader, mut promises) = (Reader::new(Profile::Gemini, "seed"), Promises::default());
            for (index, parts, stops) in chunks {
                let reason = if stops { r#","finishReason":"STOP""# } else { "" };
                let parts = parts.join(",");
                let chunk = format!(r#"{{"candidates":[{{"content":{{"parts":[{parts}]}},"index":{index}{reason},"groundingMetadata":{{"groundingChunks":[{{"web":{{"uri":"u"}}}}]}}}}]}}"#);
                reader.event("", chunk.as_bytes(), &mut promises);
            }
            reader.eof(&mut promises);
            reader.eof(&mut promises);
            prop_assert!(promises.over);
        }

        #[test]
        fn nothing_panics(text in "[{}\\[\\]\":,a-z0-9 ]{0,60}") {
            let (mut reader, mut promises) = (Reader::new(Profile::Antigravity, "seed"), Promises::default());
            reader.event("", text.as_bytes(), &mut promises);
            reader.whole(text.as_bytes(), &mut promises);
            prop_assert!(promises.over);
        }
    }
}
