//! The structure of an answer, whole or a chunk of a stream, read without copies.
//!
//! Enters: JSON of the upstream. Leaves: its members; text without escapes is a slice of the input, and what
//! is rare stays text until it is needed. May go wrong: another structure, as serde's error.

use crate::ir::Usage;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;

/// `{response, error}`: what the Code Assist backends put around an answer.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow)]
    pub(super) response: Option<Chunk<'a>>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

/// GenerateContentResponse.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Chunk<'a> {
    #[serde(borrow)]
    pub(super) candidates: Option<SmallVec<[Candidate<'a>; 1]>>,
    pub(super) usage_metadata: Option<UsageMetadata>,
    #[serde(borrow)]
    pub(super) prompt_feedback: Option<PromptFeedback<'a>>,
    #[serde(borrow)]
    pub(super) model_version: Words<'a>,
    #[serde(borrow)]
    pub(super) response_id: Words<'a>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Candidate<'a> {
    #[serde(borrow)]
    pub(super) content: Option<Content<'a>>,
    pub(super) index: Option<u32>,
    #[serde(borrow)]
    pub(super) finish_reason: Words<'a>,
    #[serde(borrow)]
    pub(super) finish_message: Words<'a>,
    #[serde(borrow)]
    pub(super) grounding_metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) citation_metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) logprobs_result: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Content<'a> {
    #[serde(borrow)]
    pub(super) parts: Option<SmallVec<[Part<'a>; 1]>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Part<'a> {
    #[serde(borrow)]
    pub(super) text: Words<'a>,
    pub(super) thought: Option<bool>,
    #[serde(borrow)]
    pub(super) thought_signature: Words<'a>,
    #[serde(borrow)]
    pub(super) function_call: Option<FunctionCall<'a>>,
    #[serde(borrow)]
    pub(super) inline_data: Option<Blob<'a>>,
    #[serde(borrow)]
    pub(super) file_data: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) executable_code: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) code_execution_result: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) tool_call: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) tool_response: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct FunctionCall<'a> {
    #[serde(borrow)]
    pub(super) id: Words<'a>,
    #[serde(borrow)]
    pub(super) name: Words<'a>,
    #[serde(borrow)]
    pub(super) args: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Blob<'a> {
    #[serde(borrow)]
    pub(super) mime_type: Words<'a>,
    #[serde(borrow)]
    pub(super) data: Words<'a>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PromptFeedback<'a> {
    #[serde(borrow)]
    pub(super) block_reason: Words<'a>,
    #[serde(borrow)]
    pub(super) block_reason_message: Words<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct UsageMetadata {
    #[serde(rename = "promptTokenCount")]
    prompt: Count,
    #[serde(rename = "cachedContentTokenCount")]
    cached: Count,
    #[serde(rename = "candidatesTokenCount")]
    candidates: Count,
    #[serde(rename = "thoughtsTokenCount")]
    thoughts: Count,
    #[serde(rename = "toolUsePromptTokenCount")]
    tool_prompt: Count,
}

impl UsageMetadata {
    /// The canonical counts: thoughts are output, cached tokens are not input.
    pub(super) fn usage(&self) -> Usage {
        let mut usage = Usage {
            cache_read: self.cached.0,
            reasoning: self.thoughts.0,
            tool_prompt: self.tool_prompt.0,
            ..Usage::default()
        };
        if let Some(prompt) = self.prompt.0 {
            usage.set_prompt_including_cache(prompt);
        }
        usage.output = match (self.candidates.0, self.thoughts.0) {
            (None, None) => None,
            (visible, thoughts) => Some(visible.unwrap_or(0).saturating_add(thoughts.unwrap_or(0))),
        };
        usage
    }
}

/// A number of tokens. What is no count is unknown: an answer does not fail for its statistics.
#[derive(Clone, Copy, Debug, Default)]
struct Count(Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountVisitor;
        impl Visitor<'_> for CountVisitor {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of tokens")
            }

            fn visit_u64<E: Error>(self, count: u64) -> Result<Count, E> {
                Ok(Count(Some(count)))
            }

            fn visit_i64<E: Error>(self, count: i64) -> Result<Count, E> {
                Ok(Count(u64::try_from(count).ok()))
            }

            fn visit_f64<E: Error>(self, count: f64) -> Result<Count, E> {
                Ok(Count((count >= 0.0).then_some(count as u64)))
            }

            fn visit_str<E: Error>(self, count: &str) -> Result<Count, E> {
                Ok(Count(count.parse().ok()))
            }

            fn visit_unit<E: Error>(self) -> Result<Count, E> {
                Ok(Count(None))
            }
        }
        deserializer.deserialize_any(CountVisitor)
    }
}

/// A string that is borrowed when it has no escapes; missing and `null` are empty. (`Option<Cow<str>>` always
/// copies.)
#[derive(Debug, Default)]
pub(super) struct Words<'a>(pub(super) Cow<'a, str>);

impl std::ops::Deref for Words<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Words<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordsVisitor;
        impl<'de> Visitor<'de> for WordsVisitor {
            type Value = Words<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Words<'de>, E> {
                Ok(Words(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Words<'de>, E> {
                Ok(Words(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E: Error>(self) -> Result<Words<'de>, E> {
                Ok(Words::default())
            }
        }
        deserializer.deserialize_any(WordsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_borrowed_and_null_is_empty() {
        let part: Part<'_> =
            serde_json::from_str(r#"{"text":"plain","thoughtSignature":null,"x":[1]}"#).unwrap();
        assert!(matches!(part.text.0, Cow::Borrowed("plain")));
        assert!(part.thought_signature.is_empty());
    }

    #[test]
    fn usage_separates_what_google_includes() {
        let text = r#"{"promptTokenCount":100,"cachedContentTokenCount":60,"candidatesTokenCount":5,"thoughtsTokenCount":7,"toolUsePromptTokenCount":3,"totalTokenCount":115}"#;
        let usage = serde_json::from_str::<UsageMetadata>(text).unwrap().usage();
        assert_eq!((usage.input, usage.cache_read, usage.output), (Some(40), Some(60), Some(12)));
        assert_eq!((usage.prompt(), usage.total()), (103, 115));
        let odd = r#"{"promptTokenCount":"7","candidatesTokenCount":-1,"thoughtsTokenCount":null}"#;
        let usage = serde_json::from_str::<UsageMetadata>(odd).unwrap().usage();
        assert_eq!((usage.input, usage.output), (Some(7), None));
        let blocked = serde_json::from_str::<UsageMetadata>(r#"{"promptTokenCount":20}"#).unwrap().usage();
        assert_eq!(blocked.output, None);
    }
}
