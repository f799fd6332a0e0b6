//! First look at a client's body: is it JSON, which model, streamed or not. Everything else stays unread.
//!
//! Enters: bytes nobody has checked. Leaves: [`Head`], whose spans are positions in those bytes.
//! May go wrong: syntax, UTF-8, nesting, a missing or repeated `model`, wrong types; the error names the
//! member. After this the body is known to be one valid JSON object.

use crate::Protocol;
use crate::error::WireError;
use crate::json::{self, Fault, Path, Place};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::ops::Range;

/// What routing needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The model the client asks for; empty for Gemini, whose URL names it.
    pub model: String,
    /// Where its string stands in the body, quotes included.
    pub model_span: Option<Range<usize>>,
    /// Whether the client wants events (`stream` is literally `true`).
    pub stream: bool,
    /// Chat: the client asked for the usage event.
    pub include_usage: bool,
    /// All members of the body, in order: a patch does not look for them again.
    pub members: Vec<Place>,
    /// What separates the parts of a form; `None`: the body is JSON.
    pub boundary: Option<String>,
}

/// The members that matter, as places of their values.
#[derive(Default)]
struct Members {
    found: [Option<Range<usize>>; NAMES.len()],
    all: Vec<Place>,
}

/// What a body without a model is told.
pub(crate) const NO_MODEL: &str = "required: name a model, see GET /v1/models";

const NAMES: [&str; 6] = ["model", "stream", "stream_options", "messages", "input", "contents"];

impl Members {
    /// Finds them. Repeated ones are refused: the upstream might read the other.
    fn read(body: &[u8]) -> Result<Self, WireError> {
        let mut members = Self::default();
        let mut twice = None;
        json::scan(body, |place| {
            let (key, value) = (body.get(place.key.clone()).unwrap_or_default(), place.value.clone());
            members.all.push(place);
            let Some(at) = NAMES.iter().position(|name| is_key(key, name)) else { return };
            if let Some(slot) = members.found.get_mut(at)
                && slot.replace(value).is_some()
            {
                twice = NAMES.get(at);
            }
        })
        .map_err(|fault| malformed(body, fault))?;
        match twice {
            Some(name) => Err(WireError::Json(format!("duplicate field `{name}`"))),
            None => Ok(members),
        }
    }

    fn place(&self, name: &str) -> Option<Range<usize>> {
        let at = NAMES.iter().position(|known| *known == name)?;
        self.found.get(at)?.clone()
    }

    /// The text of a value.
    fn get<'b>(&self, body: &'b [u8], name: &str) -> Option<&'b [u8]> {
        body.get(self.place(name)?)
    }

    /// The conversation has the type that its format says: bodies that pass unread are checked that far.
    fn check_conversation(&self, body: &[u8], protocol: Protocol) -> Result<(), WireError> {
        let (name, starts, expected) = match protocol {
            Protocol::OpenaiChat | Protocol::Claude => ("messages", "[", "an array"),
            Protocol::OpenaiResponses => ("input", "[\"n", "a string or an array"),
            // Google's parsers take one message for an array of one.
            Protocol::Gemini => ("contents", "[{\"", "an array"),
        };
        match self.get(body, name).and_then(<[u8]>::first) {
            Some(first) if !starts.as_bytes().contains(first) => {
                Err(WireError::invalid(&Path::Root.key(name), format!("expected {expected}")))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a key as written says `name`.
pub(crate) fn is_key(written: &[u8], name: &str) -> bool {
    written == name.as_bytes()
        || (written.contains(&b'\\')
            && serde_json::from_slice::<String>(&[b"\"", written, b"\""].concat())
                .is_ok_and(|key| key == name))
}

/// Why a body is no JSON object, in words that say where.
fn malformed(body: &[u8], fault: Fault) -> WireError {
    match fault {
        Fault::Depth => WireError::Json("it is nested more than 128 levels deep".to_owned()),
        Fault::Surrogate => WireError::Json("a string has half of a surrogate pair".to_owned()),
        Fault::Syntax => match serde_json::from_slice::<IgnoredAny>(body) {
            Err(error) => error.into(),
            Ok(_) => WireError::Json("it is malformed".to_owned()),
        },
    }
}

#[derive(Deserialize, Default)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

/// Reads the head of a body in `protocol`.
pub fn parse(body: &[u8], protocol: Protocol) -> Result<Head, WireError> {
    parse_or(body, protocol, None)
}

/// Reads the head of a body in `protocol`; `default` is the model of a body that names none.
pub fn parse_or(body: &[u8], protocol: Protocol, default: Option<&str>) -> Result<Head, WireError> {
    if body.iter().find(|b| !b.is_ascii_whitespace()).is_none_or(|b| *b != b'{') {
        let empty = body.iter().all(u8::is_ascii_whitespace);
        let what = if empty { "it is empty" } else { "expected an object" };
        return Err(WireError::Json(what.to_owned()));
    }
    simdutf8::basic::from_utf8(body).map_err(|_| not_utf8(body))?;
    let members = Members::read(body)?;
    members.check_conversation(body, protocol)?;
    let mut head = Head::default();
    if protocol == Protocol::Gemini {
        head.members = members.all;
        return Ok(head);
    }
    let root = Path::Root;
    let at = root.key("model");
    let model = match (members.get(body, "model"), default) {
        (Some(raw), _) => serde_json::from_slice::<Cow<'_, str>>(raw)
            .map_err(|_| WireError::invalid(&at, "expected a string"))?,
        (None, Some(model)) => model.into(),
        (None, None) => return Err(WireError::invalid(&at, NO_MODEL)),
    };
    if model.trim().is_empty() {
        return Err(WireError::invalid(&at, "must not be empty"));
    }
    model.trim().clone_into(&mut head.model);
    head.model_span = members.place("model");
    head.stream = match members.get(body, "stream") {
        Some(b"true") => true,
        None | Some(b"false" | b"null") => false,
        _ => return Err(WireError::invalid(&root.key("stream"), "expected a boolean")),
    };
    if let (Protocol::OpenaiChat, Some(raw)) = (protocol, members.get(body, "stream_options")) {
        let options: Option<StreamOptions> = serde_json::from_slice(raw)
            .map_err(|e| WireError::invalid(&root.key("stream_options"), e.to_string()))?;
        head.include_usage = options.unwrap_or_default().include_usage.unwrap_or(false);
    }
    head.members = members.all;
    Ok(head)
}

/// Where a body stops being UTF-8.
fn not_utf8(body: &[u8]) -> WireError {
    let place = std::str::from_utf8(body).err().map(|error| error.to_string()).unwrap_or_default();
    WireError::Json(format!("it is not UTF-8: {place}"))
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
            (r#"{"model":"a","mod\u0065l":"b"}"#, "duplicate field `model`"),
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
