//! First look at a client's body: is it JSON, which model, streamed or not. Everything else stays unread.
//!
//! Enters: bytes nobody has checked. Leaves: [`Head`], whose spans are positions in those bytes.
//! May go wrong: syntax, UTF-8, nesting, a missing or repeated `model`, wrong types; the error names the
//! member. After this the body is known to be one valid JSON object.

use crate::Protocol;
use crate::error::WireError;
use crate::json::{Path, check_raw};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::ops::Range;

/// What routing needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The model the client asks for; empty for Gemini, whose URL names it.
    pub model: String,
    /// Where its string stands in the body, quotes included.
    pub model_span: Option<Range<usize>>,
    /// Whether the client wants events (`stream` is literally `true`).
    pub stream: bool,
    /// Chat: the client asked for the usage event.
    pub include_usage: bool,
}

/// The members that matter. Repeated ones are refused: the upstream might read the other.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    stream_options: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    contents: Option<&'a RawValue>,
}

impl Members<'_> {
    /// The conversation has the type that its format says: bodies that pass unread are checked that far.
    fn check_conversation(&self, protocol: Protocol) -> Result<(), WireError> {
        let (name, raw, starts, expected) = match protocol {
            Protocol::OpenaiChat | Protocol::Claude => ("messages", self.messages, "[", "an array"),
            Protocol::OpenaiResponses => ("input", self.input, "[\"n", "a string or an array"),
            // Google's parsers take one message for an array of one.
            Protocol::Gemini => ("contents", self.contents, "[{\"", "an array"),
        };
        match raw {
            Some(raw) if !raw.get().starts_with(|first| starts.contains(first)) => {
                Err(WireError::invalid(&Path::Root.key(name), format!("expected {expected}")))
            }
            _ => Ok(()),
        }
    }
}

#[derive(Deserialize, Default)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

/// Reads the head of a body in `protocol`.
pub fn parse(body: &[u8], protocol: Protocol) -> Result<Head, WireError> {
    if body.iter().find(|b| !b.is_ascii_whitespace()).is_none_or(|b| *b != b'{') {
        let empty = body.iter().all(u8::is_ascii_whitespace);
        let what = if empty { "it is empty" } else { "expected an object" };
        return Err(WireError::Json(what.to_owned()));
    }
    let text = std::str::from_utf8(body).map_err(|e| WireError::Json(format!("it is not UTF-8: {e}")))?;
    let members: Members<'_> = serde_json::from_str(text)?;
    check_raw(body).map_err(|problem| WireError::Json(problem.to_owned()))?;
    members.check_conversation(protocol)?;
    let mut head = Head { model: String::new(), model_span: None, stream: false, include_usage: false };
    if protocol == Protocol::Gemini {
        return Ok(head);
    }
    let root = Path::Root;
    let at = root.key("model");
    let Some(raw) = members.model else {
        return Err(WireError::invalid(&at, "required: name a model, see GET /v1/models"));
    };
    let Ok(model) = serde_json::from_str::<Cow<'_, str>>(raw.get()) else {
        return Err(WireError::invalid(&at, "expected a string"));
    };
    if model.trim().is_empty() {
        return Err(WireError::invalid(&at, "must not be empty"));
    }
    model.trim().clone_into(&mut head.model);
    head.model_span = span(body, raw.get());
    if let Some(raw) = members.stream {
        head.stream = match raw.get() {
            "true" => true,
            "false" | "null" => false,
            _ => return Err(WireError::invalid(&root.key("stream"), "expected a boolean")),
        };
    }
    if let (Protocol::OpenaiChat, Some(raw)) = (protocol, members.stream_options) {
        let options: Option<StreamOptions> = serde_json::from_str(raw.get())
            .map_err(|e| WireError::invalid(&root.key("stream_options"), e.to_string()))?;
        head.include_usage = options.unwrap_or_default().include_usage.unwrap_or(false);
    }
    Ok(head)
}

/// Position of `part`, a slice of `body`.
fn span(body: &[u8], part: &str) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let end = start + part.len();
    (end <= body.len()).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: &str) -> Result<Head, WireError> {
        parse(body.as_bytes(), Protocol::OpenaiChat)
    }

    #[test]
    fn finds_model_and_stream_anywhere() {
        let body = r#"{"messages":[{"model":"no"}],"stream":true,"model" : "gpt\u002d5","stream_options":{"include_usage":true}}"#;
        let head = chat(body).unwrap();
        assert_eq!((head.model.as_str(), head.stream, head.include_usage), ("gpt-5", true, true));
        assert_eq!(&body[head.model_span.unwrap()], r#""gpt\u002d5""#);
    }

    #[test]
    fn p31_bad_bodies_are_refused_and_say_where() {
        for (body, says) in [
            ("", "empty"),
            ("[]", "expected an object"),
            (r#"{"model":"a","#, "EOF"),
            (r#"{"model":"a"} x"#, "trailing"),
            (r#"{"model":"a","model":"b"}"#, "duplicate field `model`"),
            (r#"{"messages":[]}"#, "model: required"),
            (r#"{"model":7}"#, "model: expected a string"),
            (r#"{"model":"  "}"#, "model: must not be empty"),
            (r#"{"model":"a","stream":"yes"}"#, "stream: expected a boolean"),
            (r#"{"model":"a","messages":"x"}"#, "messages: expected an array"),
            (r#"{"model":"\ud800"}"#, "surrogate"),
            (r#"{"model":"a","x":"\ud83d\ude00 \uDE00"}"#, "surrogate"),
        ] {
            let error = chat(body).unwrap_err().to_string();
            assert!(error.contains(says), "{body}: {error}");
        }
        assert!(parse(b"{\"model\":\"a\",\"x\":\"\xff\"}", Protocol::OpenaiChat).is_err());
    }

    #[test]
    fn p32_deep_nesting_is_refused_in_members_that_are_not_read() {
        let deep = format!(r#"{{"model":"a","x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(chat(&deep).unwrap_err().to_string().contains("128"));
    }
}
