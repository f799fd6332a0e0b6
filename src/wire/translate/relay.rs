//! The same format on both sides: events go out as they came in, byte for byte, and are only looked at.
//!
//! Enters: the upstream's bytes. Leaves: whole events, unchanged except where the route promised another
//! model name or only one side has Google's envelope, without the usage event that the proxy asked for and
//! the client did not, and with the usage of Responses in two places. An event of which only a part came is
//! held back, so that an error event can follow a cut at any place.

use crate::Protocol;
use crate::error::Failure;
use crate::frames::{Frames, Framing};
use crate::gemini::envelope::Rewrap;
use crate::ir::Context;
use crate::json;
use crate::patch::{Patch, members};

/// Raw bytes of the stream that have not been sent.
#[derive(Debug)]
pub(super) struct Relay {
    protocol: Protocol,
    framing: Framing,
    /// What happens to the envelope of Google's backends.
    rewrap: Rewrap,
    frames: Frames,
    /// Start of an event whose end has not come.
    partial: Vec<u8>,
    /// The upstream's own error event: a client that got a part of the answer gets it as it is.
    words: Option<Vec<u8>>,
}

impl Relay {
    pub(super) fn new(protocol: Protocol, framing: Framing, rewrap: Rewrap) -> Self {
        Self { protocol, framing, rewrap, frames: Frames::new(framing), partial: Vec::new(), words: None }
    }

    pub(super) fn frames(&mut self) -> &mut Frames {
        &mut self.frames
    }

    /// Sends one event. `raw` is its part of the current chunk.
    pub(super) fn event(&mut self, name: &str, data: &[u8], raw: &[u8], context: &Context) {
        if self.protocol == Protocol::OpenaiChat && !context.include_usage && is_usage_only(data) {
            self.partial.clear();
            return;
        }
        let renamed =
            (!context.model.is_empty()).then(|| rename(self.protocol, data, &context.model)).flatten();
        let renamed = match self.protocol {
            Protocol::OpenaiResponses => with_usage(renamed.as_deref().unwrap_or(data)).or(renamed),
            _ => renamed,
        };
        if self.framing == Framing::Sse && self.rewrap == Rewrap::Keep && renamed.is_none() {
            let partial = std::mem::take(&mut self.partial);
            self.frames.raw(&partial);
            self.frames.raw(raw);
            return;
        }
        self.partial.clear();
        if data == b"[DONE]" {
            return self.frames.done();
        }
        let data = self.rewrap.apply(renamed.as_deref().unwrap_or(data));
        self.frames.event(name, |out| out.extend_from_slice(&data));
    }

    /// Keeps the start of an event.
    pub(super) fn hold(&mut self, raw: &[u8]) {
        self.partial.extend_from_slice(raw);
    }

    /// Keeps the event by which the upstream says that the answer broke.
    pub(super) fn last_words(&mut self, raw: &[u8]) {
        let mut words = std::mem::take(&mut self.partial);
        words.extend_from_slice(raw);
        self.words = Some(words);
    }

    /// The answer is complete: closes what the framing left open.
    pub(super) fn end(&mut self) {
        self.frames.end();
    }

    /// Ends the stream with the error event of the format.
    pub(super) fn fail(&mut self, failure: &Failure, sequence: u64) {
        self.partial.clear();
        match self.words.take() {
            Some(words) if self.framing == Framing::Sse && self.rewrap == Rewrap::Keep => {
                self.frames.raw(&words);
            }
            _ => write_failure(self.protocol, failure, sequence, &mut self.frames),
        }
    }
}

/// The event that tells a client that its stream broke.
fn write_failure(protocol: Protocol, failure: &Failure, sequence: u64, frames: &mut Frames) {
    match protocol {
        Protocol::OpenaiChat | Protocol::Gemini => {
            let body = failure.render(protocol);
            frames.event("", |out| out.extend_from_slice(&body));
        }
        Protocol::Claude => {
            let body = failure.render(protocol);
            frames.event("error", |out| out.extend_from_slice(&body));
        }
        Protocol::OpenaiResponses => frames.event("error", |out| {
            json::object(out, |o| {
                o.str("type", "error");
                failure.openai_members_flat(o);
                o.uint("sequence_number", sequence);
            });
        }),
    }
    frames.end();
}

/// Chat: the extra event of `stream_options.include_usage`.
fn is_usage_only(data: &[u8]) -> bool {
    if memchr::memmem::find(data, b"\"usage\"").is_none() {
        return false;
    }
    let (mut empty, mut usage) = (false, false);
    for member in members(data, 0) {
        let value = data.get(member.value).unwrap_or_default();
        match member.key {
            b"choices" => empty = value.iter().all(|b| b.is_ascii_whitespace() || matches!(b, b'[' | b']')),
            b"usage" => usage = value != b"null",
            _ => {}
        }
    }
    empty && usage
}

/// Responses: the event that ends an answer, with the usage also at its top, where scripts look that read
/// whole answers the same way; `None` for all others.
fn with_usage(data: &[u8]) -> Option<Vec<u8>> {
    memchr::memmem::find(data, b"\"response.completed\"")
        .or_else(|| memchr::memmem::find(data, b"\"response.incomplete\""))?;
    let (mut ends, mut response, mut end) = (false, None, 0);
    for member in members(data, 0) {
        let value = data.get(member.value.clone())?;
        match member.key {
            b"type" => ends = matches!(value, b"\"response.completed\"" | b"\"response.incomplete\""),
            b"response" => response = Some(member.value),
            b"usage" => return None,
            _ => {}
        }
        end = member.span.end;
    }
    let usage = members(data, response.filter(|_| ends)?.start).find(|member| member.key == b"usage")?;
    let usage = data.get(usage.value).filter(|value| value.starts_with(b"{"))?;
    let mut patch = Patch::new(data);
    patch.replace(end..end, [b",\"usage\":", usage].concat());
    Some(patch.apply())
}

/// `data` with another model name, or `None` when it has none.
pub(super) fn rename(protocol: Protocol, data: &[u8], model: &str) -> Option<Vec<u8>> {
    let key: &[u8] = if protocol == Protocol::Gemini { b"modelVersion" } else { b"model" };
    let inner: &[u8] = match protocol {
        Protocol::Claude => b"message",
        _ => b"response",
    };
    let mut patch = Patch::new(data);
    for member in members(data, 0) {
        if member.key == key {
            patch.replace(member.value, json::string(model));
        } else if member.key == inner {
            for below in members(data, member.value.start).filter(|m| m.key == key) {
                patch.replace(below.value, json::string(model));
            }
        }
    }
    (!patch.is_empty()).then(|| patch.apply())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_event_is_told_from_others() {
        assert!(is_usage_only(br#"{"id":"a","choices":[],"usage":{"prompt_tokens":1}}"#));
        assert!(!is_usage_only(br#"{"id":"a","choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}"#));
        assert!(!is_usage_only(br#"{"id":"a","choices":[],"usage":null}"#));
    }

    #[test]
    fn c10_the_usage_of_a_responses_answer_is_also_at_the_top_of_its_last_event() {
        let text = |data: &str| with_usage(data.as_bytes()).map(|data| String::from_utf8(data).unwrap());
        let event = r#"{ "type" : "response.completed","response":{"id":"r","usage":{"input_tokens":1} } }"#;
        let expected = event.replace("} } }", r#"} },"usage":{"input_tokens":1} }"#);
        assert_eq!(text(event), Some(expected));
        for other in [
            r#"{"type":"response.completed","response":{"usage":null}}"#,
            r#"{"type":"response.completed","response":{"usage":{}},"usage":{}}"#,
            r#"{"type":"response.output_text.delta","delta":"\"response.completed\"","response":{"usage":{}}}"#,
            r#"{"type":"response.created","x":"response.completed","response":{"usage":{}}}"#,
        ] {
            assert_eq!(text(other), None, "{other}");
        }
    }

    #[test]
    fn models_are_renamed_where_each_format_has_them() {
        let text = |p, d: &str| String::from_utf8(rename(p, d.as_bytes(), "x").unwrap()).unwrap();
        assert_eq!(text(Protocol::OpenaiChat, r#"{"id":1, "model":"a"}"#), r#"{"id":1, "model":"x"}"#);
        assert_eq!(text(Protocol::Claude, r#"{"message":{"model":"a"}}"#), r#"{"message":{"model":"x"}}"#);
        assert_eq!(
            text(Protocol::OpenaiResponses, r#"{"response":{"model":"a"}}"#),
            r#"{"response":{"model":"x"}}"#
        );
        assert_eq!(text(Protocol::Gemini, r#"{"modelVersion":"a"}"#), r#"{"modelVersion":"x"}"#);
        assert_eq!(rename(Protocol::Claude, b"{}", "x"), None);
    }
}
