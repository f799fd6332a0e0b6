//! Answers that break: the upstream refuses, says in the middle that it cannot go on, or just ends.

use crate::exchange::{Checked, Exchange, json, none_broken, same, text};
use crate::format;
use crate::scenario::ERROR;
use serde_json::Value;
use testkit::record;
use wire::Protocol;
use wire::error::Failure;
use wire::replay;
use wire::translate::{Flow, Plan, Reply};

impl Exchange {
    /// The upstream refuses the request.
    pub(crate) fn whole_error(&self, plan: &Plan) -> Checked {
        let refusal = format::limited(self.upstream, ERROR);
        let failure = Failure::parse(429, &refusal);
        self.check_failure(&failure, 429)?;
        // Some servers say so with status 200.
        let failure = failed(plan, |reply| reply.whole(&refusal))?;
        self.check_failure(&failure, 429)
    }

    /// The failure is a body of the client's format with the upstream's words.
    pub(crate) fn check_failure(&self, failure: &Failure, status: u16) -> Checked {
        let body = json(&failure.render(self.client))?;
        self.record(record::body, &body);
        let (message, kind) =
            format::error(self.client, &body).ok_or_else(|| format!("error of another shape: {body}"))?;
        same("message", &message.as_str(), &ERROR)?;
        same("status", &failure.status, &status)?;
        let known = match self.client {
            Protocol::OpenaiChat | Protocol::OpenaiResponses => "rate_limit_error",
            Protocol::Claude => "rate_limit_error",
            Protocol::Gemini => "RESOURCE_EXHAUSTED",
        };
        if status == 429 { same("error type", &kind.as_str(), &known) } else { Ok(()) }
    }

    /// The upstream breaks in the middle: what came before stays, and the last event is the error.
    pub(crate) fn stream_error(&self, plan: &Plan) -> Checked {
        let said = format::stream(self.upstream, &self.said);
        let mut bytes = said[..finish_start(&said)].to_vec();
        bytes.extend(format::failure(self.upstream, ERROR));
        let events = replay::streamed(plan, &bytes, &[]);
        let (document, _) = self.check_broken(&events)?;
        let error = &document["errors"][0];
        let error = if error["error"].is_null() && self.client != Protocol::OpenaiResponses {
            serde_json::json!({"error": error})
        } else {
            error.clone()
        };
        let (message, _) = format::error(self.client, &unwrapped(self.client, error))
            .ok_or_else(|| format!("error of another shape: {}", text(&events)))?;
        same("message", &message.as_str(), &ERROR)?;
        if document["text"] != "Sunny, and warm." {
            return Err(format!("what came before the error is {}", document["text"]));
        }
        self.record(record::events, &document);
        Ok(())
    }

    /// A stream that ends with one error event and does not look complete.
    pub(crate) fn check_broken(&self, events: &[u8]) -> Result<(Value, Vec<String>), String> {
        let (document, broken) = self.document(events)?;
        let shown = || text(events);
        if document["errors"].as_array().map_or(0, Vec::len) != 1 {
            return Err(format!("not one error event: {}", shown()));
        }
        let kinds = document["events"].as_array().cloned().unwrap_or_default();
        let last = kinds.last().and_then(Value::as_str).unwrap_or_default();
        if !["error", "response.failed"].contains(&last) {
            return Err(format!("the error is not the last event: {}", shown()));
        }
        let finished = !["", "failed"].contains(&document["finish"].as_str().unwrap_or_default());
        if finished {
            return Err(format!("the stream looks complete: {}", shown()));
        }
        Ok((document, broken))
    }

    /// The upstream's bytes end at each place.
    pub(crate) fn stream_cut(&self, plan: &Plan) -> Checked {
        let bytes = format::stream(self.upstream, &self.said);
        let expected = self.expected()?;
        let finish = finish_start(&bytes);
        for end in 0..bytes.len() {
            let events = replay::streamed(plan, &bytes[..end], &[]);
            let place = |problem: String| format!("cut at {end} of {}: {problem}", bytes.len());
            if end <= finish {
                let (_, mut broken) = self.check_broken(&events).map_err(place)?;
                // The arguments of a call that was cut are no JSON; its block stays open.
                broken.retain(|rule| !rule.starts_with("claude.tool_json:"));
                none_broken(&broken).map_err(place)?;
                continue;
            }
            // The upstream had said why it ends: the answer is there, or the client is told otherwise.
            let (document, _) = self.document(&events)?;
            if document["errors"].as_array().is_none_or(Vec::is_empty) {
                let told = format::read_answer(self.client, &document["final"]).map_err(place)?;
                same("the text", &told.text(), &expected.text()).map_err(place)?;
                same("the end", &told.finish, &expected.finish).map_err(place)?;
            }
        }
        Ok(())
    }

    /// The upstream's body ends at each place.
    pub(crate) fn whole_cut(&self, plan: &Plan) -> Checked {
        let bytes = format::whole_answer(self.upstream, &self.said);
        for end in 0..bytes.len() {
            let failure = failed(plan, |reply| reply.whole(&bytes[..end]))
                .map_err(|problem| format!("cut at {end}: {problem}"))?;
            let body = json(&failure.render(self.client))?;
            if failure.status != 502 || format::error(self.client, &body).is_none() {
                return Err(format!("cut at {end}: {failure:?} as {body}"));
            }
        }
        Ok(())
    }

    /// Events that break become an error body, never a part of the answer.
    pub(crate) fn folded_error(&self, plan: &Plan) -> Checked {
        let mut bytes = format::stream(self.upstream, &self.said);
        bytes.truncate(finish_start(&bytes));
        bytes.extend(format::failure(self.upstream, ERROR));
        let failure = failed(plan, |reply| reply.feed(&bytes))?;
        self.check_failure(&failure, failure.status)
    }

    /// Events that end early do so as well.
    pub(crate) fn folded_cut(&self, plan: &Plan) -> Checked {
        let bytes = format::stream(self.upstream, &self.said);
        for end in 0..=finish_start(&bytes) {
            let failure = failed(plan, |reply| {
                reply.feed(&bytes[..end]);
                reply.eof()
            })?;
            same("status", &failure.status, &502)?;
        }
        Ok(())
    }
}

/// The failure that an answer ends with.
fn failed(plan: &Plan, run: impl FnOnce(&mut Reply) -> Flow) -> Result<Failure, String> {
    let mut reply = Reply::new(plan);
    match run(&mut reply) {
        Flow::Failed(failure) => Ok(failure),
        other => Err(format!("no failure but {other:?}: {}", text(&reply.take()))),
    }
}

/// The inner error object of Chat, Claude and Gemini; all of the event of Responses.
fn unwrapped(client: Protocol, error: Value) -> Value {
    if client == Protocol::Claude {
        serde_json::json!({"type": "error", "error": error["error"]})
    } else {
        error
    }
}

/// Where the event begins that says why the answer ends.
fn finish_start(stream: &[u8]) -> usize {
    let text = std::str::from_utf8(stream).unwrap_or_default();
    let words =
        ["\"finish_reason\":\"", "\"stop_reason\":\"", "\"finishReason\":\"", "event: response.completed"];
    let at = words.iter().filter_map(|word| text.find(word)).min().unwrap_or(text.len());
    text[..at].rfind("\n\n").map_or(0, |end| end + 2)
}
