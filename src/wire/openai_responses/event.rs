//! Events, items and responses of an upstream, as slices of its bytes.
//!
//! Enters: JSON of one event. Leaves: its members unread, so that a text delta costs one pass and no copy.
//! May go wrong: JSON that is none. A member of an unexpected type reads as empty: servers that imitate this
//! format differ in what they leave out, and an event nobody knows must not break an answer.

use serde::Deserialize;
use serde::de::{Error, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// A member nobody has looked into.
pub(super) type Raw<'a> = Option<&'a RawValue>;

/// An event of a stream: the members of all of them.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Event<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Raw<'a>,
    #[serde(borrow)]
    pub(super) output_index: Raw<'a>,
    #[serde(borrow)]
    pub(super) item_id: Raw<'a>,
    #[serde(borrow)]
    pub(super) content_index: Raw<'a>,
    #[serde(borrow)]
    pub(super) summary_index: Raw<'a>,
    #[serde(borrow)]
    pub(super) delta: Raw<'a>,
    #[serde(borrow)]
    pub(super) text: Raw<'a>,
    #[serde(borrow)]
    pub(super) refusal: Raw<'a>,
    #[serde(borrow)]
    pub(super) arguments: Raw<'a>,
    #[serde(borrow)]
    pub(super) input: Raw<'a>,
    #[serde(borrow)]
    pub(super) annotation: Raw<'a>,
    #[serde(borrow)]
    pub(super) logprobs: Raw<'a>,
    #[serde(borrow)]
    pub(super) item: Raw<'a>,
    #[serde(borrow)]
    pub(super) response: Raw<'a>,
    #[serde(borrow)]
    pub(super) error: Raw<'a>,
}

/// An item of `output`: the members of all of them.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Item<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Raw<'a>,
    #[serde(borrow)]
    pub(super) id: Raw<'a>,
    #[serde(borrow)]
    pub(super) content: Raw<'a>,
    #[serde(borrow)]
    pub(super) summary: Raw<'a>,
    #[serde(borrow)]
    pub(super) encrypted_content: Raw<'a>,
    #[serde(borrow)]
    pub(super) call_id: Raw<'a>,
    #[serde(borrow)]
    pub(super) name: Raw<'a>,
    #[serde(borrow)]
    pub(super) namespace: Raw<'a>,
    #[serde(borrow)]
    pub(super) arguments: Raw<'a>,
    #[serde(borrow)]
    pub(super) input: Raw<'a>,
    #[serde(borrow)]
    pub(super) result: Raw<'a>,
    #[serde(borrow)]
    pub(super) output_format: Raw<'a>,
}

/// A part of a message's `content` or of a reasoning item's `summary` or `content`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Part<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Raw<'a>,
    #[serde(borrow)]
    pub(super) text: Raw<'a>,
    #[serde(borrow)]
    pub(super) refusal: Raw<'a>,
    #[serde(borrow)]
    pub(super) annotations: Raw<'a>,
    #[serde(borrow)]
    pub(super) logprobs: Raw<'a>,
}

/// A source that text refers to; flat, unlike Chat's.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Annotation<'a> {
    #[serde(borrow)]
    pub(super) url: Raw<'a>,
    #[serde(borrow)]
    pub(super) title: Raw<'a>,
    #[serde(borrow)]
    pub(super) start_index: Raw<'a>,
    #[serde(borrow)]
    pub(super) end_index: Raw<'a>,
    #[serde(borrow)]
    pub(super) file_id: Raw<'a>,
    #[serde(borrow)]
    pub(super) filename: Raw<'a>,
}

/// A `response` object, in an event or as a whole answer.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Response<'a> {
    #[serde(borrow)]
    pub(super) id: Raw<'a>,
    #[serde(borrow)]
    pub(super) model: Raw<'a>,
    #[serde(borrow)]
    pub(super) created_at: Raw<'a>,
    #[serde(borrow)]
    pub(super) status: Raw<'a>,
    #[serde(borrow)]
    pub(super) output: Raw<'a>,
    #[serde(borrow)]
    pub(super) usage: Raw<'a>,
    #[serde(borrow)]
    pub(super) incomplete_details: Raw<'a>,
    #[serde(borrow)]
    pub(super) error: Raw<'a>,
}

/// `usage`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Usage<'a> {
    #[serde(borrow)]
    pub(super) input_tokens: Raw<'a>,
    #[serde(borrow)]
    pub(super) input_tokens_details: Raw<'a>,
    #[serde(borrow)]
    pub(super) output_tokens: Raw<'a>,
    #[serde(borrow)]
    pub(super) output_tokens_details: Raw<'a>,
}

/// Objects of one or two members: `incomplete_details` and the details of `usage`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Details<'a> {
    #[serde(borrow)]
    pub(super) reason: Raw<'a>,
    #[serde(borrow)]
    pub(super) cached_tokens: Raw<'a>,
    #[serde(borrow)]
    pub(super) cache_write_tokens: Raw<'a>,
    #[serde(borrow)]
    pub(super) reasoning_tokens: Raw<'a>,
}

/// An object, or one without members where the value is none.
pub(super) fn object<'a, T: Deserialize<'a> + Default>(raw: Raw<'a>) -> T {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

/// The elements of an array.
pub(super) fn list(raw: Raw<'_>) -> Vec<&RawValue> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

/// A whole number; fractions are cut, as `created_at` may have one.
pub(super) fn number(raw: Raw<'_>) -> Option<u64> {
    let text = raw?.get();
    text.parse().ok().or_else(|| {
        let float: f64 = text.parse().ok()?;
        (0.0..9e15).contains(&float).then_some(float as u64)
    })
}

/// A string, borrowed when it has no escapes; empty when the value is none.
pub(super) fn text(raw: Raw<'_>) -> Cow<'_, str> {
    let Some(inner) = raw.and_then(|raw| raw.get().strip_prefix('"')?.strip_suffix('"')) else {
        return Cow::Borrowed("");
    };
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Cow::Borrowed(inner);
    }
    let whole = raw.map(RawValue::get).unwrap_or_default();
    match serde_json::from_str::<String>(whole) {
        Ok(text) => Cow::Owned(text),
        // Half of a surrogate pair: servers that cut text at UTF-16 units send it.
        Err(_) => serde_json::from_str::<Lossy>(whole).map_or(Cow::Borrowed(""), |lossy| Cow::Owned(lossy.0)),
    }
}

/// A string, or the JSON text of any other value: arguments that a server sends as an object.
pub(super) fn text_or_json(raw: Raw<'_>) -> Cow<'_, str> {
    match raw.map(RawValue::get) {
        Some(json) if json.starts_with(['{', '[']) => Cow::Borrowed(json),
        _ => text(raw),
    }
}

/// A string whose halves of surrogate pairs became U+FFFD.
struct Lossy(String);

impl<'de> Deserialize<'de> for Lossy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Lossy;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Lossy, E> {
                Ok(Lossy(String::from_utf8_lossy(bytes).into_owned()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// How much of a text came in deltas: its length, and a fingerprint that tells whether a later whole text
/// continues it. The text itself is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    length: usize,
    hash: u64,
}

impl Default for Sent {
    fn default() -> Self {
        Self { length: 0, hash: 0xcbf2_9ce4_8422_2325 }
    }
}

impl Sent {
    /// Adds a delta (FNV-1a, like [`crate::names::fingerprint`]).
    pub(super) fn push(&mut self, text: &str) {
        self.length += text.len();
        self.hash =
            text.bytes().fold(self.hash, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    }

    /// What of `whole` has not come; empty when the deltas said something else.
    pub(super) fn missing<'t>(&self, whole: &'t str) -> &'t str {
        let Some((head, tail)) = whole.split_at_checked(self.length) else { return "" };
        let mut start = Self::default();
        start.push(head);
        if start == *self { tail } else { "" }
    }

    /// Whether `whole` is what came.
    pub(super) fn is(&self, whole: &str) -> bool {
        let mut other = Self::default();
        other.push(whole);
        other == *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_borrowed_and_other_types_are_empty() {
        let event: Event<'_> =
            serde_json::from_str(r#"{"type":"a","delta":"x y","text":7,"output_index":2,"refusal":null}"#)
                .unwrap();
        assert!(matches!(text(event.delta), Cow::Borrowed("x y")));
        assert_eq!(text(event.text), "");
        assert_eq!(text(event.refusal), "");
        assert_eq!(number(event.output_index), Some(2));
        assert_eq!(number(event.delta), None);
    }

    #[test]
    fn escapes_and_half_surrogates() {
        let event: Event<'_> = serde_json::from_str(r#"{"delta":"a\n\u00e9","text":"\ud83d"}"#).unwrap();
        assert_eq!(text(event.delta), "a\né");
        assert!(text(event.text).contains('\u{fffd}'));
    }

    #[test]
    fn only_a_continuation_is_missing() {
        let mut sent = Sent::default();
        sent.push("Hé");
        sent.push("l");
        assert_eq!(sent.missing("Héllo"), "lo");
        assert_eq!(sent.missing("Hél"), "");
        assert_eq!(sent.missing("Jello"), "");
        assert_eq!(sent.missing("H"), "");
        assert!(sent.is("Hél"));
    }
}
