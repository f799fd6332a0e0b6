//! Messages of the service → IR events.
//!
//! Enters: names and payloads of messages. Leaves: IR events in the order that [`crate::ir::Event`] promises.
//! May go wrong: exceptions, payloads that cannot be read, and a stream that stops inside a call; all become
//! [`Event::Failure`].
//!
//! The service has no last event: the answer is complete when the stream ends between two messages and no
//! call is open. A call whose arguments stop in the middle, although the service says that it is over, was
//! cut by the length of the answer, and the answer says so.

use super::blocks::Blocks;
use super::events::{Counts, Invalid, Metadata, Said, Sources, Stated, StopDetails, Used, Word, word};
use super::thinking_tags::{Piece, ThinkingTags};
use super::{EXCEPTION, error};
use crate::error::Failure;
use crate::ir::{Context, Event, Finish, ReadAnswer, Sink, Usage};

/// Tokens of the context of most models.
const WINDOW: u64 = 200_000;

/// Ends an answer that became too long: the service says it as an exception.
const ANSWER_TOO_LONG: &str = "ContentLengthExceededException";

/// `stopReason` and what it means. The service writes capitals, and has passed on the words of Claude.
const STOP_REASONS: [(&str, Finish); 9] = [
    ("END_TURN", Finish::End),
    ("TOOL_USE", Finish::Tool),
    ("MAX_TOKENS", Finish::Length),
    ("STOP_SEQUENCE", Finish::StopSequence),
    ("CONTENT_FILTERED", Finish::Filter),
    ("GUARDRAIL_INTERVENED", Finish::Filter),
    ("REFUSAL", Finish::Refusal),
    ("MODEL_CONTEXT_WINDOW_EXCEEDED", Finish::Context),
    ("PAUSE_TURN", Finish::Pause),
];

/// Reads one answer.
#[derive(Debug)]
pub(super) struct Reader {
    blocks: Blocks,
    /// Tells thinking from text, when the request asked for thinking in tags.
    tags: Option<ThinkingTags>,
    /// Tokens of the model's context.
    window: u64,
    /// Whether any message came.
    heard: bool,
    ended: bool,
    /// Why it ended, once the upstream said.
    stop: Option<(Finish, Option<String>)>,
    /// Whether the upstream counted tokens.
    counted: bool,
    /// How much of the context is full, in percent.
    context_usage: Option<f64>,
    /// What the upstream did not like about the request, although it went on.
    invalid: Option<String>,
}

impl Reader {
    /// Starts on an answer.
    pub(super) fn new(context: &Context) -> Self {
        Self {
            blocks: Blocks::new(&context.seed, &context.upstream_model),
            tags: context.thinking_tags.then(ThinkingTags::default),
            window: context.window.unwrap_or(WINDOW),
            heard: false,
            ended: false,
            stop: None,
            counted: false,
            context_usage: None,
            invalid: None,
        }
    }

    fn fail(&mut self, failure: Failure, sink: &mut dyn Sink) {
        self.ended = true;
        sink.event(Event::Failure(failure));
    }

    fn take(&mut self, name: &str, data: &[u8], sink: &mut dyn Sink) -> Result<(), serde_json::Error> {
        let data = if data.trim_ascii().is_empty() { b"{}" } else { data };
        match name {
            "assistantResponseEvent" => self.said(serde_json::from_slice(data)?, sink),
            "toolUseEvent" => {
                let used = serde_json::from_slice(data)?;
                self.flush(sink);
                self.blocks.call(used, sink);
            }
            "reasoningContentEvent" => {
                let thought = serde_json::from_slice(data)?;
                self.flush(sink);
                self.blocks.thought(thought, sink);
            }
            "messageMetadataEvent"
            | "metadataEvent"
            | "usageEvent"
            | "metricsEvent"
            | "contextUsageEvent"
            | "messageStopEvent" => {
                self.metadata(serde_json::from_slice(data)?, serde_json::from_slice(data)?, sink);
            }
            "supplementaryWebLinksEvent" | "codeReferenceEvent" | "citationEvent" => {
                let sources: Sources<'_> = serde_json::from_slice(data)?;
                for citation in sources.citations() {
                    self.blocks.cite(citation, sink);
                }
            }
            "invalidStateEvent" => {
                let invalid: Invalid<'_> = serde_json::from_slice(data)?;
                let message = word(invalid.message);
                let said = if message.is_empty() { word(invalid.reason) } else { message };
                self.invalid = Some(said.into_owned());
            }
            other => self.unknown(other, data, sink),
        }
        Ok(())
    }

    /// An exception in the shape of an event, or news that mean nothing here (credits, follow-ups).
    fn unknown(&mut self, name: &str, data: &[u8], sink: &mut dyn Sink) {
        let stated = serde_json::from_slice::<Stated<'_>>(data).unwrap_or_default();
        let stated = word(stated.kind);
        if error::is_exception(name) {
            self.fail(error::read(name, data), sink);
        } else if ["error", "exception"].contains(&name) || error::is_exception(&stated) {
            self.fail(error::read(&stated, data), sink);
        }
    }

    /// Text, and calls that come whole.
    fn said(&mut self, said: Said<'_>, sink: &mut dyn Sink) {
        let model = word(said.model_id);
        if !self.blocks.started && !model.is_empty() {
            self.blocks.model = model.into_owned();
        }
        let content = word(said.content);
        match &mut self.tags {
            Some(tags) => tags.push(&content, &mut |piece| pass(piece, &mut self.blocks, sink)),
            None => self.blocks.text(&content, sink),
        }
        for used in said.tool_uses.unwrap_or_default() {
            self.flush(sink);
            self.blocks.call(Used { stop: Some(true), ..used }, sink);
        }
        self.note_stop(said.stop_reason, None);
    }

    /// Passes on what might have been the start of a tag.
    fn flush(&mut self, sink: &mut dyn Sink) {
        if let Some(tags) = &mut self.tags {
            tags.finish(&mut |piece| pass(piece, &mut self.blocks, sink));
        }
    }

    fn metadata(&mut self, metadata: Metadata<'_>, bare: Counts, sink: &mut dyn Sink) {
        for counts in metadata.token_usage.into_iter().chain([bare]) {
            if let Some(percent) = counts.context_usage_percentage.filter(|p| p.is_finite() && *p >= 0.0) {
                self.context_usage = Some(percent);
            }
            if let Some(usage) = counts.usage() {
                self.counted = true;
                self.blocks.start(sink);
                sink.event(Event::Usage(usage));
            }
        }
        self.note_stop(metadata.stop_reason, metadata.stop_details);
    }

    fn note_stop(&mut self, reason: Option<Word<'_>>, details: Option<StopDetails<'_>>) {
        if let Some(refused) = details.and_then(|details| details.refusal) {
            let detail = word(refused.explanation.or(refused.category));
            self.stop = Some((Finish::Refusal, Some(detail.into_owned()).filter(|d| !d.is_empty())));
            return;
        }
        let reason = word(reason);
        let known = STOP_REASONS.iter().find(|(word, _)| word.eq_ignore_ascii_case(&reason));
        if let Some((_, finish)) = known {
            self.stop = Some((*finish, None));
        }
    }

    /// The stream is over.
    fn finish(&mut self, sink: &mut dyn Sink) {
        if !self.heard {
            return self.fail(Failure::cut(), sink);
        }
        if let (Some(message), false) = (self.invalid.take(), self.blocks.started) {
            return self.fail(Failure::new(502, format!("the upstream did not answer: {message}")), sink);
        }
        self.flush(sink);
        let too_long = matches!(self.stop, Some((Finish::Length | Finish::Context, _)));
        if self.blocks.close(too_long, sink).is_err() {
            return self.fail(Failure::cut(), sink);
        }
        self.estimate(sink);
        let full = self.context_usage.is_some_and(|percent| percent >= 100.0);
        let (finish, detail) = self.stop.take().unwrap_or((Finish::End, None));
        let reason = match (finish, self.blocks.has_calls()) {
            (Finish::End | Finish::Tool, _) if self.blocks.cut_call => Finish::Length,
            (Finish::End, true) => Finish::Tool,
            (Finish::End, false) if full => Finish::Context,
            (Finish::Tool, false) => Finish::End,
            (other, _) => other,
        };
        sink.event(Event::Finish { choice: 0, reason, detail: detail.as_deref() });
        sink.event(Event::End);
        self.ended = true;
    }

    /// Counts tokens where the upstream only said how full the context is: clients decide by the figure when
    /// a conversation is too long.
    fn estimate(&mut self, sink: &mut dyn Sink) {
        if let (Some(percent), false) = (self.context_usage, self.counted) {
            let input = (percent.min(1000.0) / 100.0 * self.window as f64).round() as u64;
            let output = self.blocks.written.div_ceil(4);
            let usage = Usage { input: Some(input), output: Some(output), ..Usage::default() };
            sink.event(Event::Usage(usage));
        }
    }
}

fn pass(piece: Piece<'_>, blocks: &mut Blocks, sink: &mut dyn Sink) {
    match piece {
        Piece::Text(text) => blocks.text(text, sink),
        Piece::Thought(text) => blocks.thinking(text, sink),
    }
}

impl ReadAnswer for Reader {
    fn event(&mut self, name: &str, data: &[u8], sink: &mut dyn Sink) {
        if self.ended {
            return;
        }
        self.heard = true;
        if let Some(kind) = name.strip_prefix(EXCEPTION) {
            if kind == ANSWER_TOO_LONG {
                self.stop = Some((Finish::Length, None));
            } else {
                self.fail(error::read(kind, data), sink);
            }
        } else if let Err(broken) = self.take(name, data, sink) {
            self.fail(Failure::garbage(&broken.to_string()), sink);
        }
    }

    /// The service answers in events; a JSON body is an exception.
    fn whole(&mut self, body: &[u8], sink: &mut dyn Sink) {
        if self.ended {
            return;
        }
        let failure = match crate::json::parse_any(body) {
            Ok(value) if value.is_object() => error::read("", body),
            _ => Failure::garbage("it is no event stream"),
        };
        self.fail(failure, sink);
    }

    fn eof(&mut self, sink: &mut dyn Sink) {
        if !self.ended {
            self.finish(sink);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Answer, Block, Fold};
    use crate::signature::Vendor;
    use proptest::prelude::*;

    fn read(context: &Context, events: &[(&str, &str)]) -> Answer {
        let (mut reader, mut fold) = (Reader::new(context), Fold::default());
        for (name, data) in events {
            reader.event(name, data.as_bytes(), &mut fold);
        }
        reader.eof(&mut fold);
        fold.into_answer()
    }

    fn answer(events: &[(&str, &str)]) -> Answer {
        read(&Context { seed: "5eed".into(), ..Context::default() }, events)
    }

    fn finish(answer: &Answer) -> Option<Finish> {
        answer.choices.first().and_then(|choice| choice.finish)
    }

    /// What the blocks hold, in order.
    fn shape(answer: &Answer) -> Vec<String> {
        let blocks = answer.choices.iter().flat_map(|choice| &choice.blocks);
        blocks
            .map(|block| match block {
                Block::Text { text, .. } => text.clone(),
                Block::Reasoning { redacted: Some(data), .. } => format!("redacted {data}"),
                Block::Reasoning { parts, .. } => format!("thinking {}", parts.concat()),
                Block::Tool { id, name, arguments, .. } => format!("{name} {id} {arguments}"),
                other => format!("{other:?}"),
            })
            .collect()
    }

    const TEXT: (&str, &str) = ("assistantResponseEvent", r#"{"content":"Hi.","modelId":"m"}"#);

    #[test]
    fn text_counts_and_the_end_of_the_stream_make_an_answer() {
        let counts = r#"{"tokenUsage":{"outputTokens":7,"totalTokens":107,"uncachedInputTokens":20,
            "cacheReadInputTokens":80,"cacheWriteInputTokens":0},"stopReason":"MAX_TOKENS"}"#;
        let whole = answer(&[TEXT, ("meteringEvent", r#"{"usage":1.5}"#), ("metadataEvent", counts)]);
        assert_eq!((whole.text().as_str(), whole.model.as_str(), whole.complete), ("Hi.", "m", true));
        assert_eq!(finish(&whole), Some(Finish::Length));
        let asked = Context { upstream_model: "asked".into(), ..Context::default() };
        assert_eq!(read(&asked, &[("assistantResponseEvent", r#"{"content":"a"}"#)]).model, "asked");
        let usage = Usage {
            input: Some(20),
            cache_read: Some(80),
            cache_write: Some(0),
            output: Some(7),
            ..Usage::default()
        };
        assert_eq!(whole.usage, usage);
        // Without the part that is not cached, the total tells it.
        let total = r#"{"outputTokens":7,"totalTokens":107,"cacheReadInputTokens":80}"#;
        assert_eq!(answer(&[TEXT, ("usageEvent", total)]).usage.input, Some(20));
    }

    #[test]
    fn a_full_context_is_an_estimate_until_the_upstream_counts() {
        let half = ("contextUsageEvent", r#"{"contextUsagePercentage":12.5}"#);
        let context = Context { window: Some(1000), ..Context::default() };
        assert_eq!(read(&context, &[TEXT, half]).usage.input, Some(125));
        assert_eq!(read(&context, &[TEXT, half]).usage.output, Some(1));
        let counted = ("metadataEvent", r#"{"tokenUsage":{"uncachedInputTokens":3,"outputTokens":2}}"#);
        assert_eq!(read(&context, &[TEXT, half, counted]).usage.input, Some(3));
        assert!(answer(&[TEXT]).usage.is_unknown());
        let full = ("contextUsageEvent", r#"{"contextUsagePercentage":100}"#);
        assert_eq!(finish(&answer(&[TEXT, full])), Some(Finish::Context));
    }

    #[test]
    fn calls_come_in_fragments_whole_and_twice() {
        let used = "toolUseEvent";
        let fragments = [
            (used, r#"{"toolUseId":"a","name":"f","input":{}}"#),
            (used, r#"{"toolUseId":"a","name":"f","input":"{\"x\":"}"#),
            (used, r#"{"toolUseId":"a","name":"f","input":"1}"}"#),
            // No `stop`: the next call ends this one.
            (used, r#"{"toolUseId":"b","name":"g","input":{"y":[2]},"stop":true}"#),
            (used, r#"{"toolUseId":"b","name":"g","input":{"y":[2]},"stop":true}"#),
            (used, r#"{"toolUseId":"c","name":"h","stop":true}"#),
            (
                "assistantResponseEvent",
                r#"{"content":"","toolUses":[{"toolUseId":"a","name":"f","input":{}},
                {"toolUseId":"d","name":"i","input":{"z":3}}]}"#,
            ),
        ];
        let whole = answer(&fragments);
        assert_eq!(shape(&whole), [r#"f a {"x":1}"#, r#"g b {"y":[2]}"#, "h c {}", r#"i d {"z":3}"#]);
        assert_eq!((finish(&whole), whole.complete), (Some(Finish::Tool), true));
    }

    #[test]
    fn a_cut_call_never_looks_complete() {
        let begun = ("toolUseEvent", r#"{"toolUseId":"a","name":"write","input":"{\"text\":\"abc"}"#);
        let over = ("toolUseEvent", r#"{"toolUseId":"a","name":"write","stop":true}"#);
        assert_eq!(answer(&[begun]).failure, Some(Failure::cut()));
        assert_eq!(finish(&answer(&[begun, over])), Some(Finish::Length));
        let stopped = ("metadataEvent", r#"{"stopReason":"TOOL_USE"}"#);
        assert_eq!(finish(&answer(&[begun, over, stopped])), Some(Finish::Length));
        let too_long = ("exception:ContentLengthExceededException", "{}");
        let cut = answer(&[begun, too_long]);
        assert_eq!((finish(&cut), cut.failure), (Some(Finish::Length), None));
    }

    #[test]
    fn thinking_is_told_from_text_where_it_was_asked_for_in_tags() {
        let pieces = ["<thin", "king>pl", "an</thinking>", "\\n\\nSunny."];
        let events: Vec<(&str, String)> = pieces
            .iter()
            .map(|piece| ("assistantResponseEvent", format!(r#"{{"content":"{piece}"}}"#)))
            .collect();
        let events: Vec<(&str, &str)> = events.iter().map(|(name, data)| (*name, data.as_str())).collect();
        let asked = Context { thinking_tags: true, ..Context::default() };
        assert_eq!(shape(&read(&asked, &events)), ["thinking plan", "Sunny."]);
        assert_eq!(shape(&answer(&events)), ["<thinking>plan</thinking>\n\nSunny."]);
        // What looks like a tag and is none comes out before the call that follows.
        let call = ("toolUseEvent", r#"{"toolUseId":"a","name":"f","stop":true}"#);
        let open = ("assistantResponseEvent", r#"{"content":"a <"}"#);
        assert_eq!(shape(&read(&asked, &[open, call])), ["a <", "f a {}"]);
    }

    #[test]
    fn thinking_that_the_service_tells_apart_keeps_its_signature() {
        let whole = answer(&[
            ("reasoningContentEvent", r#"{"text":"pl"}"#),
            ("reasoningContentEvent", r#"{"text":"an"}"#),
            ("reasoningContentEvent", r#"{"signature":"c2ln"}"#),
            ("reasoningContentEvent", r#"{"redactedContent":"AAAA"}"#),
            TEXT,
        ]);
        assert_eq!(shape(&whole), ["thinking plan", "redacted AAAA", "Hi."]);
        let Some(Block::Reasoning { signature: Some(signature), .. }) = whole.choices[0].blocks.first()
        else {
            panic!("{whole:?}")
        };
        assert_eq!((signature.vendor, signature.value.as_ref()), (Vendor::Unknown, "c2ln"));
    }

    #[test]
    fn sources_hang_on_the_text() {
        let links =
            r#"{"supplementaryWebLinks":[{"url":"https://e/","title":"T","snippet":"S","score":0.5}]}"#;
        let code = r#"{"references":[{"licenseName":"MIT","repository":"r","url":"https://r/"}]}"#;
        let whole = answer(&[TEXT, ("supplementaryWebLinksEvent", links), ("codeReferenceEvent", code)]);
        let Some(Block::Text { citations, .. }) = whole.choices[0].blocks.first() else { panic!() };
        let titles: Vec<_> = citations.iter().map(|c| (c.url.as_ref(), c.title.as_ref())).collect();
        assert_eq!(titles, [("https://e/", "T"), ("https://r/", "r (MIT)")]);
    }

    #[test]
    fn exceptions_are_failures_in_every_shape() {
        for event in [
            ("exception:throttlingException", r#"{"message":"slow"}"#),
            ("throttlingException", r#"{"message":"slow"}"#),
            ("error", r#"{"_type":"a.b#ThrottlingException","message":"slow"}"#),
            ("", r#"{"__type":"ThrottlingException","message":"slow"}"#),
        ] {
            let broken = answer(&[TEXT, event, TEXT]);
            assert_eq!(broken.failure, Some(Failure::new(429, "slow")), "{event:?}");
            assert!(!broken.complete && finish(&broken).is_none());
        }
        let mut fold = Fold::default();
        let mut reader = Reader::new(&Context::default());
        reader.whole(br#"{"__type":"a#ValidationException","message":"bad"}"#, &mut fold);
        assert_eq!(fold.into_answer().failure, Some(Failure::new(400, "bad")));
    }

    #[test]
    fn what_is_no_answer_is_a_failure() {
        assert_eq!(answer(&[]).failure, Some(Failure::cut()));
        let invalid = ("invalidStateEvent", r#"{"reason":"R","message":"m"}"#);
        assert_eq!(answer(&[invalid]).failure.map(|f| f.status), Some(502));
        assert!(answer(&[invalid, TEXT]).complete);
        assert!(answer(&[TEXT, ("toolUseEvent", "<html>")]).failure.is_some());
        assert!(answer(&[("metadataEvent", "")]).complete);
    }

    #[test]
    fn a_refusal_says_why() {
        let refused = r#"{"stopReason":"END_TURN","stopDetails":{"refusal":{"explanation":"no"}}}"#;
        let whole = answer(&[TEXT, ("metadataEvent", refused)]);
        assert_eq!(finish(&whole), Some(Finish::Refusal));
        assert_eq!(whole.choices[0].detail.as_deref(), Some("no"));
    }

    /// Whether `events` keep the promises of [`crate::ir::Event`].
    fn keeps_order(events: &[Event<'static>]) -> bool {
        let (mut open, mut next, mut over) = (Vec::new(), 0, false);
        events.iter().enumerate().all(|(n, event)| {
            let fine = !over
                && match event {
                    Event::Start { .. } => n == 0,
                    Event::Open { block, .. } => *block == next,
                    Event::Delta { block, .. } | Event::Close { block } => open.contains(block),
                    Event::Finish { .. } => open.is_empty(),
                    Event::Usage(_) | Event::Failure(_) | Event::End => true,
                };
            match event {
                Event::Open { block, .. } => {
                    open.push(*block);
                    next += 1;
                }
                Event::Close { block } => open.retain(|b| b != block),
                Event::End | Event::Failure(_) => over = true,
                _ => {}
            }
            fine
        }) && over
    }

    proptest! {
        #[test]
        fn any_events_keep_the_promises_of_the_ir(
            picks in prop::collection::vec(0..10_usize, 0..24),
            tags in any::<bool>(),
        ) {
            const POOL: [(&str, &str); 10] = [
                ("assistantResponseEvent", r#"{"content":"a <thinking>b"}"#),
                ("assistantResponseEvent", r#"{"content":"</thinking>c"}"#),
                ("assistantResponseEvent", r#"{"content":"<","toolUses":[{"toolUseId":"x","input":"{"}]}"#),
                ("toolUseEvent", r#"{"toolUseId":"x","name":"f","input":"{}"}"#),
                ("toolUseEvent", r#"{"toolUseId":"y","name":"f","input":"{\"a\":"}"#),
                ("toolUseEvent", r#"{"toolUseId":"y","input":"1}","stop":true}"#),
                ("toolUseEvent", r#"{"input":"{","stop":false}"#),
                ("reasoningContentEvent", r#"{"text":"t","signature":"s","redactedContent":"r"}"#),
                ("metadataEvent", r#"{"stopReason":"max_tokens","contextUsagePercentage":50}"#),
                ("citationEvent", r#"{"citationLink":"u"}"#),
            ];
            let context = Context { thinking_tags: tags, seed: "5".into(), ..Context::default() };
            let mut reader = Reader::new(&context);
            let mut seen: Vec<Event<'static>> = Vec::new();
            let mut sink = |event: Event<'_>| seen.push(bare(&event));
            for pick in picks {
                let (name, data) = POOL[pick];
                reader.event(name, data.as_bytes(), &mut sink);
            }
            reader.eof(&mut sink);
            reader.eof(&mut sink);
            prop_assert!(keeps_order(&seen), "{seen:?}");
        }

        #[test]
        fn random_payloads_never_panic(
            name in "(exception:)?(assistantResponse|toolUse|reasoningContent|metadata|x)Event",
            data in prop::collection::vec(any::<u8>(), 0..60),
            json in r#"\{"(content|input|text|toolUses|stopReason|__type)":("a"|\[\{\}\]|1|null|\{\})\}"#,
        ) {
            let text = String::from_utf8_lossy(&data);
            let answered = answer(&[(&name, &text), (&name, &json)]);
            prop_assert!(answered.failure.is_some() != answered.complete);
        }
    }

    /// An event with its order only.
    fn bare(event: &Event<'_>) -> Event<'static> {
        use crate::ir::{BlockKind, Delta};
        match event {
            Event::Start { .. } => Event::Start { id: "", model: "", created: None },
            Event::Open { block, choice, .. } => {
                Event::Open { block: *block, choice: *choice, kind: BlockKind::Text }
            }
            Event::Delta { block, .. } => Event::Delta { block: *block, delta: Delta::Part },
            Event::Close { block } => Event::Close { block: *block },
            Event::Usage(usage) => Event::Usage(*usage),
            Event::Finish { choice, reason, .. } => {
                Event::Finish { choice: *choice, reason: *reason, detail: None }
            }
            Event::Failure(failure) => Event::Failure(failure.clone()),
            Event::End => Event::End,
        }
    }
}
