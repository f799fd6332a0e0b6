//! What a Chat upstream sends, as types: one chunk of a stream, or a whole body, which has the same shape.
//!
//! Enters: JSON of servers that keep to the format more or less. Leaves: borrowed text; a chunk of plain text
//! allocates nothing. Members of a wrong type count as missing where something else may still be worth
//! reading. May go wrong: JSON that is none, or structures of another kind.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// A chunk or a body.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Chunk<'a> {
    #[serde(borrow)]
    pub id: Word<'a>,
    #[serde(borrow)]
    pub object: Word<'a>,
    #[serde(borrow)]
    pub model: Word<'a>,
    pub created: Number,
    #[serde(borrow)]
    pub choices: Choices<'a>,
    pub usage: Option<Box<Counts>>,
    /// Groq's place for usage.
    pub x_groq: Option<Groq>,
    #[serde(borrow)]
    pub error: Option<&'a RawValue>,
    /// Envelope of some gateways around a whole body.
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
}

/// `x_groq`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Groq {
    pub usage: Option<Box<Counts>>,
}

/// An element of `choices`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Choice<'a> {
    pub index: Number,
    #[serde(borrow)]
    pub delta: Option<Delta<'a>>,
    #[serde(borrow)]
    pub message: Option<Box<Delta<'a>>>,
    #[serde(borrow)]
    pub finish_reason: Word<'a>,
    #[serde(borrow)]
    pub logprobs: Option<Logprobs<'a>>,
    /// Moonshot's place for usage.
    pub usage: Option<Box<Counts>>,
}

/// What a chunk adds; a whole `message` is the same thing added at once.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Delta<'a> {
    #[serde(borrow)]
    pub content: Content<'a>,
    #[serde(borrow)]
    pub refusal: Word<'a>,
    #[serde(borrow)]
    pub reasoning_content: Word<'a>,
    #[serde(borrow)]
    pub reasoning: Word<'a>,
    #[serde(borrow)]
    pub reasoning_text: Word<'a>,
    #[serde(borrow)]
    pub reasoning_details: List<Detail<'a>>,
    #[serde(borrow)]
    pub tool_calls: List<Fragment<'a>>,
    #[serde(borrow)]
    pub function_call: Option<Function<'a>>,
    #[serde(borrow)]
    pub annotations: List<Annotation<'a>>,
    #[serde(borrow)]
    pub images: List<Part<'a>>,
    #[serde(borrow)]
    pub audio: Option<Audio<'a>>,
}

/// An element of `reasoning_details`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Detail<'a> {
    #[serde(borrow)]
    pub text: Word<'a>,
    #[serde(borrow)]
    pub summary: Word<'a>,
    #[serde(borrow)]
    pub signature: Word<'a>,
    #[serde(borrow)]
    pub data: Word<'a>,
    #[serde(borrow)]
    pub format: Word<'a>,
}

/// An element of `tool_calls`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fragment<'a> {
    pub index: Number,
    #[serde(borrow)]
    pub id: Word<'a>,
    #[serde(borrow)]
    pub function: Option<Function<'a>>,
    #[serde(borrow)]
    pub custom: Option<Function<'a>>,
}

/// `function`, `custom` or legacy `function_call`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Function<'a> {
    #[serde(borrow)]
    pub name: Word<'a>,
    /// A string of JSON, or on some servers the object itself.
    #[serde(borrow)]
    pub arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    pub input: Word<'a>,
}

/// An element of `annotations`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Annotation<'a> {
    #[serde(borrow)]
    pub url_citation: Option<Citation<'a>>,
    #[serde(borrow)]
    pub file_citation: Option<Citation<'a>>,
}

/// A citation of a page or a file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Citation<'a> {
    #[serde(borrow)]
    pub url: Word<'a>,
    #[serde(borrow)]
    pub title: Word<'a>,
    #[serde(borrow)]
    pub content: Word<'a>,
    #[serde(borrow)]
    pub file_id: Word<'a>,
    pub start_index: Number,
    pub end_index: Number,
}

/// An element of `images`, or of a `content` that is an array.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Part<'a> {
    #[serde(borrow)]
    pub text: Word<'a>,
    /// Mistral's thinking.
    #[serde(borrow)]
    pub thinking: List<Thought<'a>>,
    #[serde(borrow)]
    pub image_url: ImageUrl<'a>,
}

/// A piece of Mistral's thinking.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Thought<'a> {
    #[serde(borrow)]
    pub text: Word<'a>,
}

/// `image_url`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ImageUrl<'a> {
    #[serde(borrow)]
    pub url: Word<'a>,
}

/// A spoken answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Audio<'a> {
    #[serde(borrow)]
    pub transcript: Word<'a>,
}

/// `logprobs` of a choice.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Logprobs<'a> {
    #[serde(borrow)]
    pub content: Option<&'a RawValue>,
}

/// `usage`, with the members that servers put beside the official ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Counts {
    pub prompt_tokens: Number,
    pub completion_tokens: Number,
    pub total_tokens: Number,
    pub prompt_tokens_details: Option<PromptDetails>,
    pub completion_tokens_details: Option<CompletionDetails>,
    /// DeepSeek.
    pub prompt_cache_hit_tokens: Number,
    /// Moonshot.
    pub cached_tokens: Number,
    /// Gateways in front of Claude.
    pub cache_read_input_tokens: Number,
    /// Gateways in front of Claude.
    pub cache_creation_input_tokens: Number,
}

/// `prompt_tokens_details`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PromptDetails {
    pub cached_tokens: Number,
    pub cache_write_tokens: Number,
}

/// `completion_tokens_details`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CompletionDetails {
    pub reasoning_tokens: Number,
}

/// Text; anything but a string or a whole number is "".
#[derive(Debug, Default, Clone)]
pub(super) struct Word<'a>(pub Cow<'a, str>);

impl Word<'_> {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Word<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any).map(|any| match any {
            Value::Text(text) => Self(text),
            Value::Number(number) => Self(number.to_string().into()),
            Value::Other => Self::default(),
        })
    }
}

/// A count; anything but a number that is not negative is "not said".
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Number(pub Option<u64>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any).map(|any| match any {
            Value::Number(number) => Self(Some(number)),
            Value::Text(_) | Value::Other => Self(None),
        })
    }
}

/// `content`: a string, or parts.
#[derive(Debug, Default)]
pub(super) struct Content<'a> {
    pub text: Cow<'a, str>,
    pub parts: Vec<Part<'a>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrParts<'a>(PhantomData<Part<'a>>);
        impl<'de: 'a, 'a> Visitor<'de> for TextOrParts<'a> {
            type Value = Content<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of parts")
            }
            fn visit_unit<E>(self) -> Result<Content<'a>, E> {
                Ok(Content::default())
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Content<'a>, E> {
                Ok(Content { text: Cow::Borrowed(text), parts: Vec::new() })
            }
            fn visit_str<E>(self, text: &str) -> Result<Content<'a>, E> {
                Ok(Content { text: Cow::Owned(text.to_owned()), parts: Vec::new() })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content<'a>, A::Error> {
                let mut content = Content::default();
                while let Some(part) = seq.next_element()? {
                    content.parts.push(part);
                }
                Ok(content)
            }
        }
        deserializer.deserialize_any(TextOrParts(PhantomData))
    }
}

/// The choices: nearly always one.
#[derive(Debug, Default)]
pub(super) struct Choices<'a>(pub SmallVec<[Choice<'a>; 1]>);

impl<'de: 'a, 'a> Deserialize<'de> for Choices<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<'a>(PhantomData<Choice<'a>>);
        impl<'de: 'a, 'a> Visitor<'de> for Elements<'a> {
            type Value = Choices<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of choices")
            }
            fn visit_unit<E>(self) -> Result<Choices<'a>, E> {
                Ok(Choices::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Choices<'a>, A::Error> {
                let mut choices = Choices::default();
                while let Some(choice) = seq.next_element()? {
                    choices.0.push(choice);
                }
                Ok(choices)
            }
        }
        deserializer.deserialize_any(Elements(PhantomData))
    }
}

/// An array, or `null`.
#[derive(Debug)]
pub(super) struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
            type Value = List<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array or null")
            }
            fn visit_unit<E>(self) -> Result<List<T>, E> {
                Ok(List::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
                let mut list = List::default();
                while let Some(element) = seq.next_element()? {
                    list.0.push(element);
                }
                Ok(list)
            }
            // An empty array as some languages write it.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<List<T>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(List::default())
            }
        }
        deserializer.deserialize_any(Elements(PhantomData))
    }
}

/// A value that may be of any type.
enum Value<'a> {
    Text(Cow<'a, str>),
    Number(u64),
    Other,
}

/// Visits any value.
struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
        let whole = (0.0..9e15).contains(&number);
        Ok(if whole { Value::Number(number as u64) } else { Value::Other })
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}
