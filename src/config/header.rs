//! Headers that the operator adds to upstream requests.
//!
//! Enters: a map of names and values. Leaves: checked names and [`HeaderValue`]s; pairs without a name or a
//! value are dropped. May go wrong: a name or value that HTTP does not allow.

use crate::read::word;
use crate::secret::Secret;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// What a header is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValue {
    /// This text; hidden, because it often is a token.
    Literal(Secret),
    /// `$Name`: what the client sent under that name, and no header when it sent none.
    CopyFrom(String),
}

/// Header names and values, by name as it is spelt in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Headers(pub BTreeMap<String, HeaderValue>);

impl HeaderValue {
    fn parse(text: &str) -> Self {
        match text.strip_prefix('$') {
            Some(name) if is_name(name) => Self::CopyFrom(name.to_owned()),
            _ => Self::Literal(Secret::from(text)),
        }
    }
}

/// RFC 9110 section 5.6.2: a token.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// RFC 9110 section 5.5, without obs-text.
fn is_value(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t'))
}

impl Serialize for HeaderValue {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Literal(secret) => secret.serialize(out),
            Self::CopyFrom(name) => out.collect_str(&format_args!("${name}")),
        }
    }
}

/// A name, checked.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, |text| {
            if text.is_empty() || is_name(text) {
                return Ok(Self(text.to_owned()));
            }
            Err("a header name holds letters, digits and -_ only".to_owned())
        })
    }
}

/// A value, checked; `None` when there is none.
struct Value(Option<HeaderValue>);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, |text| {
            if !is_value(text) {
                return Err("a header value holds visible ASCII characters only".to_owned());
            }
            Ok(Self((!text.is_empty()).then(|| HeaderValue::parse(text))))
        })
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Headers;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a map of header names and values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Headers, A::Error> {
                let mut headers = BTreeMap::new();
                while let Some((Name(name), Value(value))) = entries.next_entry()? {
                    if let Some(value) = value.filter(|_| !name.is_empty()) {
                        headers.insert(name, value);
                    }
                }
                Ok(Headers(headers))
            }
        }
        input.deserialize_map(Map)
    }
}
