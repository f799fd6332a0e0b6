//! Events and bodies of an answer as they are on the wire.
//!
//! Enters: the data of one event. Leaves: borrowed members; unknown ones are not looked at. May go wrong:
//! what is not JSON, or a member of another type. A text delta without escapes is read without a copy.

use crate::ir::{Citation, Str, Usage};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A string, borrowed when it has no escapes (`Cow` inside of `Option` would always be copied).
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Word<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Any event. One shape for all, because the `type` may stand behind the members that depend on it.
#[derive(Debug, Deserialize)]
pub(super) struct Frame<'a> {
    #[serde(borrow, rename = "type", default)]
    pub(super) kind: Cow<'a, str>,
    #[serde(default)]
    pub(super) index: u64,
    #[serde(borrow)]
    pub(super) delta: Option<Delta<'a>>,
    #[serde(borrow)]
    pub(super) content_block: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) message: Option<&'a RawValue>,
    pub(super) usage: Option<Counts>,
}

/// `delta` of `content_block_delta` and of `message_delta`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Delta<'a> {
    #[serde(borrow, rename = "type", default)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) text: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) thinking: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) signature: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) partial_json: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) citation: Option<Cited<'a>>,
    /// Beta `compaction_delta`.
    #[serde(borrow)]
    pub(super) content: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) encrypted_content: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) stop_reason: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) stop_sequence: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) stop_details: Option<StopDetails<'a>>,
}

/// What the vendor says about a refusal.
#[derive(Debug, Default, Deserialize)]
pub(super) struct StopDetails<'a> {
    #[serde(borrow)]
    pub(super) category: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) explanation: Option<Word<'a>>,
}

/// `message` of `message_start`, and a whole answer.
#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) id: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) model: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) content: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    pub(super) stop_reason: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) stop_sequence: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) stop_details: Option<StopDetails<'a>>,
    pub(super) usage: Option<Counts>,
}

/// The `type` of a content block, before it is known what else it has.
#[derive(Debug, Deserialize)]
pub(super) struct Kind<'a> {
    #[serde(borrow, rename = "type", default)]
    pub(super) kind: Cow<'a, str>,
}

/// A content block that the IR knows, in `content_block_start` and in a whole answer.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Block<'a> {
    #[serde(borrow)]
    pub(super) text: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) thinking: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) signature: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) data: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) id: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) name: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) input: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) citations: Option<Vec<Cited<'a>>>,
}

/// A citation of any kind.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Cited<'a> {
    #[serde(borrow)]
    url: Option<Word<'a>>,
    #[serde(borrow)]
    source: Option<Word<'a>>,
    #[serde(borrow)]
    title: Option<Word<'a>>,
    #[serde(borrow)]
    document_title: Option<Word<'a>>,
    #[serde(borrow, rename = "cited_text")]
    quote: Option<Word<'a>>,
    #[serde(borrow)]
    file_id: Option<Word<'a>>,
    document_index: Option<u64>,
}

impl<'a> Cited<'a> {
    /// In the IR. Its positions count characters of the source, not of the answer, and are left out.
    pub(super) fn citation(self) -> Citation<'a> {
        let word = |word: Option<Word<'a>>| word.map(|word| word.0).filter(|word| !word.is_empty());
        let source = word(self.source);
        let is_url = source.as_deref().is_some_and(|s| s.starts_with("https://") || s.starts_with("http://"));
        let (source_url, source_name) = if is_url { (source, None) } else { (None, source) };
        let index = || self.document_index.map(|n| Str::Owned(n.to_string()));
        Citation {
            url: word(self.url).or(source_url).unwrap_or_default(),
            title: word(self.title).or_else(|| word(self.document_title)).unwrap_or_default(),
            quote: word(self.quote).unwrap_or_default(),
            start: None,
            end: None,
            document: word(self.file_id).or(source_name).or_else(index).unwrap_or_default(),
        }
    }
}

/// `usage`.
#[derive(Debug, Deserialize)]
pub(super) struct Counts {
    input_tokens: Option<Count>,
    output_tokens: Option<Count>,
    cache_read_input_tokens: Option<Count>,
    cache_creation_input_tokens: Option<Count>,
    cache_creation: Option<Lifetimes>,
    output_tokens_details: Option<OutputDetails>,
}

/// Cache writes by lifetime.
#[derive(Debug, Deserialize)]
struct Lifetimes {
    ephemeral_1h_input_tokens: Option<Count>,
    ephemeral_5m_input_tokens: Option<Count>,
}

/// What the output consists of.
#[derive(Debug, Deserialize)]
struct OutputDetails {
    thinking_tokens: Option<Count>,
}

/// A number of tokens; some servers write `3.0`.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Count(serde_json::Number);

impl Count {
    fn get(&self) -> Option<u64> {
        let whole = |number: f64| (number >= 0.0).then_some(number as u64);
        self.0.as_u64().or_else(|| self.0.as_f64().and_then(whole))
    }
}

impl Counts {
    /// In the IR.
    pub(super) fn usage(&self) -> Usage {
        let count = |count: &Option<Count>| count.as_ref().and_then(Count::get);
        let lifetimes = self.cache_creation.as_ref();
        let hour = lifetimes.and_then(|l| count(&l.ephemeral_1h_input_tokens));
        let short = lifetimes.and_then(|l| count(&l.ephemeral_5m_input_tokens));
        let both = (hour.is_some() || short.is_some())
            .then(|| hour.unwrap_or_default().saturating_add(short.unwrap_or_default()));
        Usage {
            input: count(&self.input_tokens),
            cache_read: count(&self.cache_read_input_tokens),
            cache_write: count(&self.cache_creation_input_tokens).or(both),
            cache_write_hour: hour,
            output: count(&self.output_tokens),
            reasoning: self.output_tokens_details.as_ref().and_then(|d| count(&d.thinking_tokens)),
            tool_prompt: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_delta_is_read_without_a_copy() {
        let data =
            br#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"plain"}}"#;
        let frame: Frame<'_> = serde_json::from_slice(data).unwrap();
        let text = frame.delta.unwrap().text.unwrap();
        assert!(matches!((frame.kind, text.0), (Cow::Borrowed(_), Cow::Borrowed("plain"))));
    }

    #[test]
    fn counts_keep_unknown_apart_from_zero() {
        let read = |text: &str| serde_json::from_str::<Counts>(text).unwrap().usage();
        assert_eq!(
            read(
                r#"{"input_tokens":1,"output_tokens":2.0,"cache_creation":{"ephemeral_5m_input_tokens":3,"ephemeral_1h_input_tokens":4},"service_tier":"standard"}"#
            ),
            Usage {
                input: Some(1),
                output: Some(2),
                cache_write: Some(7),
                cache_write_hour: Some(4),
                ..Usage::default()
            }
        );
        assert_eq!(read(r#"{"input_tokens":null}"#), Usage::default());
    }
}
