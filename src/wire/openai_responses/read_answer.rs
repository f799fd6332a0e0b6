//! Upstream events or a whole response → IR events: one state machine for both.
//!
//! Enters: events of a stream, or a `response` object. Leaves: events as [`crate::ir::Event`] promises them.
//! May go wrong: an error of the upstream (see [`super::error`]), JSON that is none, and a stream that ends
//! without its terminal event; all become [`crate::ir::Event::Failure`]. Unknown events are passed over
//! (`codex.rate_limits`, `response.metadata`, keep-alives, progress of built-in tools).
//!
//! | terminal | status, reason | finish |
//! |---|---|---|
//! | `response.completed`, `response.done` | a call was made | tool |
//! | | the answer is a refusal | refusal |
//! | | else | end |
//! | `response.incomplete` | `content_filter` | filter |
//! | | else (`max_output_tokens`, …) | length |
//! | `response.failed`, `response.cancelled`, `error` | | failure |

use super::event::{Details, Event as Wire, Raw, Response, Usage as WireUsage, list, number, object, text};
use super::read_blocks::CONTENT;
use super::read_output::{Output, Place};
use super::{error, event};
use crate::error::Failure;
use crate::ir::{Event, Finish, ReadAnswer, Sink, ToolKind, Usage};
use serde_json::value::RawValue;

/// Reads one answer.
#[derive(Debug)]
pub(super) struct Reader {
    output: Output,
    started: bool,
    /// The terminal event came; what follows it does not count.
    ended: bool,
    created: Option<u64>,
}

impl Reader {
    /// `seed` makes ids of calls that have none.
    pub(super) fn new(seed: &str) -> Self {
        Self { output: Output::new(seed), started: false, ended: false, created: None }
    }

    fn start(&mut self, raw: Raw<'_>, sink: &mut dyn Sink) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let response: Response<'_> = object(raw);
        self.created = number(response.created_at);
        let (id, model) = (text(response.id), text(response.model));
        sink.event(Event::Start { id: &id, model: &model, created: self.created });
    }

    fn fail(&mut self, failure: Failure, sink: &mut dyn Sink) {
        if !std::mem::replace(&mut self.ended, true) {
            sink.event(Event::Failure(failure));
        }
    }

    /// The terminal event: what `response` has beyond the stream, usage, finish.
    fn finish(&mut self, kind: &str, raw: Raw<'_>, sink: &mut dyn Sink) {
        let response: Response<'_> = object(raw);
        self.output.repeated(&list(response.output), sink);
        self.output.close(sink);
        if let Some(usage) = usage(response.usage) {
            sink.event(Event::Usage(usage));
        }
        let details: Details<'_> = object(response.incomplete_details);
        let reason = text(details.reason);
        let incomplete = kind == "response.incomplete" || text(response.status) == "incomplete";
        let finish = match reason.as_ref() {
            "content_filter" if incomplete => Finish::Filter,
            _ if incomplete => Finish::Length,
            _ if self.output.called => Finish::Tool,
            _ if self.output.refused => Finish::Refusal,
            _ => Finish::End,
        };
        let detail = (!reason.is_empty()).then_some(reason.as_ref());
        sink.event(Event::Finish { choice: 0, reason: finish, detail });
        sink.event(Event::End);
        self.ended = true;
    }

    fn terminal(&mut self, kind: &str, event: &Wire<'_>, data: &[u8], sink: &mut dyn Sink) {
        self.start(event.response, sink);
        let response: Response<'_> = object(event.response);
        let failed = matches!(kind, "response.failed" | "response.cancelled")
            || matches!(text(response.status).as_ref(), "failed" | "cancelled");
        if failed {
            return self.fail(error::failure(data, self.created), sink);
        }
        self.finish(kind, event.response, sink);
    }

    /// Deltas and what closes them.
    fn content(&mut self, kind: &str, event: &Wire<'_>, sink: &mut dyn Sink) {
        let id = text(event.item_id);
        let place = Place { index: number(event.output_index), id: &id };
        let part = number(event.content_index).unwrap_or(0);
        let summary = number(event.summary_index).unwrap_or(0);
        let delta = text(event.delta);
        let output = &mut self.output;
        match kind {
            "output_text.delta" => {
                output.text(place, part, false, &delta, sink);
                output.logprobs(place, part, event.logprobs, sink);
            }
            "output_text.done" => output.text_done(place, part, false, &text(event.text), sink),
            "output_text.annotation.added" => output.citation(place, part, event.annotation, sink),
            "refusal.delta" => output.text(place, part, true, &delta, sink),
            "refusal.done" => output.text_done(place, part, true, &text(event.refusal), sink),
            "reasoning_summary_text.delta" => output.reasoning(place, summary, &delta, sink),
            "reasoning_summary_text.done" => output.reasoning_done(place, summary, &text(event.text), sink),
            "reasoning_text.delta" => output.reasoning(place, CONTENT + part, &delta, sink),
            "reasoning_text.done" => output.reasoning_done(place, CONTENT + part, &text(event.text), sink),
            "function_call_arguments.delta" => output.arguments(place, ToolKind::Function, &delta, sink),
            "function_call_arguments.done" => {
                output.arguments_done(place, ToolKind::Function, &event::text_or_json(event.arguments), sink);
            }
            "custom_tool_call_input.delta" => output.arguments(place, ToolKind::Custom, &delta, sink),
            "custom_tool_call_input.done" => {
                output.arguments_done(place, ToolKind::Custom, &text(event.input), sink);
            }
            _ => {}
        }
    }

    fn item(&mut self, done: bool, event: &Wire<'_>, sink: &mut dyn Sink) {
        let Some(raw) = event.item else { return };
        let item: event::Item<'_> = object(Some(raw));
        let id = text(item.id);
        let place = Place { index: number(event.output_index), id: &id };
        if done {
            self.output.done(place, raw, sink);
        } else {
            self.output.added(place, &item, sink);
        }
    }
}

impl ReadAnswer for Reader {
    fn event(&mut self, name: &str, data: &[u8], sink: &mut dyn Sink) {
        if self.ended || data == b"[DONE]" {
            return;
        }
        let event = match std::str::from_utf8(data).map(serde_json::from_str::<Wire<'_>>) {
            Ok(Ok(event)) => event,
            Ok(Err(problem)) => return self.fail(Failure::garbage(&problem.to_string()), sink),
            Err(problem) => return self.fail(Failure::garbage(&problem.to_string()), sink),
        };
        let own = text(event.kind);
        let kind = if own.is_empty() { name } else { &own };
        let Some(rest) = kind.strip_prefix("response.") else {
            if kind == "error" || (own.is_empty() && event.error.is_some()) {
                self.fail(error::failure(data, self.created), sink);
            }
            return;
        };
        match rest {
            "created" | "in_progress" | "queued" => self.start(event.response, sink),
            "completed" | "incomplete" | "done" | "failed" | "cancelled" => {
                self.terminal(kind, &event, data, sink);
            }
            "output_item.added" | "output_item.done" => {
                self.start(None, sink);
                self.item(rest.ends_with("done"), &event, sink);
            }
            _ if rest.contains('.') => {
                self.start(None, sink);
                self.content(rest, &event, sink);
            }
            _ => {}
        }
    }

    fn whole(&mut self, body: &[u8], sink: &mut dyn Sink) {
        if self.ended {
            return;
        }
        let raw: &RawValue = match serde_json::from_slice(body) {
            Ok(raw) => raw,
            Err(problem) => return self.fail(Failure::garbage(&problem.to_string()), sink),
        };
        let response: Response<'_> = object(Some(raw));
        let status = text(response.status);
        let broken = matches!(status.as_ref(), "failed" | "cancelled");
        if broken || response.output.is_none() || response.error.is_some() {
            return self.fail(error::failure(body, number(response.created_at)), sink);
        }
        self.start(Some(raw), sink);
        if matches!(status.as_ref(), "queued" | "in_progress") {
            // A background response: it has no content yet, and its client knows how to ask for it.
            self.ended = true;
            return sink.event(Event::End);
        }
        self.finish("", Some(raw), sink);
    }

    fn eof(&mut self, sink: &mut dyn Sink) {
        self.fail(Failure::cut(), sink);
    }
}

/// `usage`, of which every figure may be missing.
fn usage(raw: Raw<'_>) -> Option<Usage> {
    raw?;
    let usage: WireUsage<'_> = object(raw);
    let input: Details<'_> = object(usage.input_tokens_details);
    let output: Details<'_> = object(usage.output_tokens_details);
    let mut counts = Usage {
        cache_read: number(input.cached_tokens),
        cache_write: number(input.cache_write_tokens),
        output: number(usage.output_tokens),
        reasoning: number(output.reasoning_tokens),
        ..Usage::default()
    };
    if let Some(prompt) = number(usage.input_tokens) {
        counts.set_prompt_including_cache(prompt);
    }
    (!counts.is_unknown()).then_some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Answer, Block, BlockKind, Delta, Fold};

    /// One word for each event.
    fn words(lines: &[&str]) -> String {
        let mut reader = Reader::new("seed");
        let mut out = Vec::new();
        let mut sink = |event: Event<'_>| out.push(word(&event));
        for line in lines {
            reader.event("", line.as_bytes(), &mut sink);
        }
        reader.eof(&mut sink);
        out.join(" ")
    }

    fn word(event: &Event<'_>) -> String {
        match event {
            Event::Start { id, .. } => format!("start:{id}"),
            Event::Open { block, kind, .. } => match kind {
                BlockKind::Text => format!("+{block}text"),
                BlockKind::Refusal => format!("+{block}refusal"),
                BlockKind::Reasoning { .. } => format!("+{block}reasoning"),
                BlockKind::Tool { id, name, .. } => format!("+{block}{name}({id})"),
                BlockKind::Image { mime } => format!("+{block}{mime}"),
                BlockKind::Server { kind, .. } => format!("+{block}{kind}"),
            },
            Event::Delta { block, delta } => match delta {
                Delta::Text(text) | Delta::Arguments(text) | Delta::Data(text) => format!("{block}:{text}"),
                Delta::Part => format!("{block}:part"),
                Delta::Signature(signature) => format!("{block}:signed:{}", signature.value),
                Delta::Citation(citation) => format!("{block}:cites:{}", citation.url),
                Delta::Logprobs(json) => format!("{block}:logprobs:{json}"),
            },
            Event::Close { block } => format!("-{block}"),
            Event::Usage(usage) => format!("usage:{}/{}", usage.prompt(), usage.output.unwrap_or(0)),
            Event::Finish { reason, .. } => format!("{reason:?}"),
            Event::Failure(failure) => format!("failure:{}", failure.status),
            Event::End => "end".to_owned(),
        }
    }

    fn whole(body: &str) -> Answer {
        let mut fold = Fold::default();
        Reader::new("seed").whole(body.as_bytes(), &mut fold);
        fold.into_answer()
    }

    const CREATED: &str =
        r#"{"type":"response.created","response":{"id":"resp_1","created_at":1700000000,"model":"m"}}"#;
    const COMPLETED: &str =
        r#"{"type":"response.completed","response":{"id":"resp_1","status":"completed","output":[]}}"#;

    #[test]
    fn reasoning_text_and_calls_become_blocks_in_order() {
        let got = words(&[
            CREATED,
            r#"{"type":"response.output_item.added","output_index":0,"item":{"id":"rs_1","type":"reasoning","summary":[]}}"#,
            r#"{"type":"response.reasoning_summary_text.delta","item_id":"rs_1","output_index":0,"summary_index":0,"delta":"a"}"#,
            r#"{"type":"response.reasoning_summary_text.done","item_id":"rs_1","output_index":0,"summary_index":0,"text":"ab"}"#,
            r#"{"type":"response.reasoning_summary_text.delta","item_id":"rs_1","output_index":0,"summary_index":1,"delta":"c"}"#,
            r#"{"type":"response.output_item.done","output_index":0,"item":{"id":"rs_1","type":"reasoning","summary":[{"type":"summary_text","text":"ab"},{"type":"summary_text","text":"cd"}],"encrypted_content":"gA"}}"#,
            r#"{"type":"response.output_text.delta","item_id":"msg_1","output_index":1,"content_index":0,"delta":"hi","logprobs":[]}"#,
            r#"{"type":"response.output_item.done","output_index":1,"item":{"id":"msg_1","type":"message","content":[{"type":"output_text","text":"hi you","annotations":[{"type":"url_citation","url":"u"}]}]}}"#,
            r#"{"type":"response.output_item.added","output_index":2,"item":{"id":"fc_1","type":"function_call","call_id":"c1","name":"f","arguments":""}}"#,
            r#"{"type":"response.output_item.added","output_index":3,"item":{"id":"ctc_1","type":"custom_tool_call","call_id":"c2","name":"g","input":""}}"#,
            r#"{"type":"response.custom_tool_call_input.delta","item_id":"ctc_1","output_index":3,"delta":"x"}"#,
            r#"{"type":"response.function_call_arguments.delta","item_id":"fc_1","output_index":2,"delta":"{"}"#,
            r#"{"type":"response.custom_tool_call_input.done","item_id":"ctc_1","output_index":3,"input":"xy"}"#,
            r#"{"type":"response.function_call_arguments.done","item_id":"fc_1","output_index":2,"arguments":"{}"}"#,
            r#"{"type":"response.output_item.done","output_index":2,"item":{"id":"fc_1","type":"function_call","call_id":"c1","name":"f","arguments":"{}"}}"#,
            r#"{"type":"response.output_item.done","output_index":3,"item":{"id":"ctc_1","type":"custom_tool_call","call_id":"c2","name":"g","input":"xyz"}}"#,
            COMPLETED,
        ]);
        assert_eq!(
            got,
            "start:resp_1 +0reasoning 0:a 0:b 0:part 0:c 0:d 0:signed:gA -0 +1text 1:hi 1: you 1:cites:u -1 \
             +2f(c1) +3g(c2) 3:x 2:{ 3:y 2:} -2 3:z -3 Tool end"
        );
    }

    #[test]
    fn what_only_the_end_brings_is_told_once() {
        let got = words(&[
            CREATED,
            r#"{"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"content_index":0,"delta":"a"}"#,
            r#"{"type":"response.completed","response":{"status":"completed","output":[{"id":"msg_1","type":"message","content":[{"type":"output_text","text":"ab"}]},{"id":"fc_1","type":"function_call","call_id":"c","name":"f","arguments":{"x": 1}}],"usage":{"input_tokens":100,"input_tokens_details":{"cached_tokens":64},"output_tokens":7}}}"#,
            r#"{"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"delta":"late"}"#,
        ]);
        assert_eq!(got, "start:resp_1 +0text 0:a 0:b -0 +1f(c) 1:{\"x\": 1} -1 usage:100/7 Tool end");
    }

    #[test]
    fn items_are_found_when_their_ids_change_in_each_event() {
        let got = words(&[
            CREATED,
            r#"{"type":"response.output_item.added","output_index":0,"item":{"id":"x1","type":"message","content":[]}}"#,
            r#"{"type":"response.output_text.delta","item_id":"x2","output_index":0,"content_index":0,"delta":"a"}"#,
            r#"{"type":"response.output_item.done","output_index":0,"item":{"id":"x3","type":"message","content":[{"type":"output_text","text":"a"}]}}"#,
            r#"{"type":"response.completed","response":{"output":[{"id":"x4","type":"message","content":[{"type":"output_text","text":"a"}]}]}}"#,
        ]);
        assert_eq!(got, "start:resp_1 +0text 0:a -0 End end");
    }

    #[test]
    fn a_call_without_a_name_waits_for_it() {
        let got = words(&[
            r#"{"type":"response.output_item.added","output_index":0,"item":{"id":"fc_1","type":"function_call","name":""}}"#,
            r#"{"type":"response.function_call_arguments.delta","item_id":"fc_1","output_index":0,"delta":"{\"a\":"}"#,
            r#"{"type":"response.output_item.done","output_index":0,"item":{"id":"fc_1","type":"function_call","call_id":"c","name":"f","arguments":"{\"a\":1}"}}"#,
            COMPLETED,
        ]);
        assert_eq!(got, "start: +0f(c) 0:{\"a\": 0:1} -0 Tool end");
    }

    #[test]
    fn a_stream_without_its_terminal_event_is_cut() {
        let got = words(&[
            CREATED,
            r#"{"type":"response.output_text.delta","output_index":0,"delta":"par"}"#,
            r#"{"type":"codex.rate_limits","output_index":{}}"#,
        ]);
        assert_eq!(got, "start:resp_1 +0text 0:par failure:502");
        assert_eq!(words(&["{", "{}"]), "failure:502");
    }

    #[test]
    fn errors_end_the_answer() {
        let failed = r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_is_overloaded","message":"m"}}}"#;
        assert_eq!(words(&[CREATED, failed, COMPLETED]), "start:resp_1 failure:503");
        assert_eq!(words(&[r#"{"error":{"message":"m","type":"rate_limit_error"}}"#]), "failure:429");
        assert_eq!(
            words(&[r#"{"type":"error","code":"context_length_exceeded","message":"m"}"#]),
            "failure:400"
        );
        let answer = whole(
            r#"{"id":"r","status":"failed","output":[],"error":{"code":"server_error","message":"m"}}"#,
        );
        assert_eq!(answer.failure.unwrap().status, 500);
        assert_eq!(whole("[]").failure.unwrap().status, 502);
    }

    #[test]
    fn refusals_limits_pictures_and_built_ins() {
        let item = |item: &str, rest: &str| whole(&format!(r#"{{"id":"resp_1","output":[{item}]{rest}}}"#));
        let answer = item(r#"{"type":"message","content":[{"type":"refusal","refusal":"No."}]}"#, "");
        assert_eq!(answer.choices[0].finish, Some(Finish::Refusal));
        assert_eq!(answer.choices[0].blocks, [Block::Refusal("No.".into())]);
        let incomplete = r#","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}"#;
        let answer = item(r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{"}"#, incomplete);
        assert_eq!(answer.choices[0].finish, Some(Finish::Length));
        let answer = item(r#"{"type":"image_generation_call","result":"iVBO","output_format":"webp"}"#, "");
        assert_eq!(
            answer.choices[0].blocks,
            [Block::Image { mime: "image/webp".into(), data: "iVBO".into() }]
        );
        let raw = r#"{"type":"web_search_call","id":"ws_1", "action":{}}"#;
        let answer = item(raw, "");
        assert_eq!(
            answer.choices[0].blocks,
            [Block::Server { kind: "web_search_call".into(), raw: raw.into() }]
        );
    }

    #[test]
    fn missing_figures_stay_unknown_and_cached_ones_are_taken_out() {
        let answer = whole(
            r#"{"output":[],"usage":{"input_tokens":100,"input_tokens_details":{"cached_tokens":64,"cache_write_tokens":6},"output_tokens":30,"output_tokens_details":{"reasoning_tokens":20},"total_tokens":130}}"#,
        );
        let usage = answer.usage;
        assert_eq!((usage.input, usage.cache_read, usage.cache_write), (Some(30), Some(64), Some(6)));
        assert_eq!((usage.output, usage.reasoning, usage.total()), (Some(30), Some(20), 130));
        assert!(whole(r#"{"output":[],"usage":null}"#).usage.is_unknown());
    }
}
