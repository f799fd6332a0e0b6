//! JSON as this package needs it: a borrowed, ordered value for reading and a writer that appends to a buffer.
//!
//! Enters: bytes nobody has checked. Leaves: [`Json`], whose strings are slices of the input wherever the
//! input had no escapes, and whose chosen members ([`parse`]'s `raw_keys`) stay the text that was sent, so
//! that schemas and tool arguments keep their key order and number spelling.
//! May go wrong: syntax, UTF-8, nesting over [`MAX_DEPTH`]; the error says line and column.

mod path;
mod read;
mod scan;
mod write;

pub use path::Path;
pub use read::{MAX_DEPTH, Map, parse, parse_any};
pub(crate) use scan::string_end;
pub use scan::{Fault, Place, check_raw, scan};
pub(crate) use write::write_escaped;
pub use write::{Array, Object, array, object, string, write_string};

use std::borrow::Cow;

/// Text of a JSON document or of a member of one.
pub type Str<'a> = Cow<'a, str>;

/// A JSON value. Objects keep their order and, should a key repeat, both members.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A non-negative integer that fits.
    Uint(u64),
    /// A negative integer that fits.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A string, unescaped.
    Str(Str<'a>),
    /// An array.
    Array(Vec<Self>),
    /// An object.
    Object(Map<'a>),
    /// A value that was not looked into: valid JSON text.
    Raw(&'a str),
}

impl<'a> Json<'a> {
    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The string by value, if it is one (a [`Json::Raw`] string is unescaped).
    pub fn into_str(self) -> Option<Str<'a>> {
        match self {
            Self::Str(text) => Some(text),
            Self::Raw(raw) if raw.starts_with('"') => parse_any(raw.as_bytes()).ok()?.into_str(),
            _ => None,
        }
    }

    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The number as a whole one; `3.0` counts, because JavaScript clients write it.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Uint(value) => Some(*value),
            Self::Float(value) if value.fract() == 0.0 && (0.0..9e15).contains(value) => Some(*value as u64),
            _ => None,
        }
    }

    /// The number as a whole one of either sign.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Uint(value) => i64::try_from(*value).ok(),
            Self::Int(value) => Some(*value),
            Self::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => Some(*value as i64),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Uint(value) => Some(*value as f64),
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// The elements, if it is an array.
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The members, if it is an object.
    pub fn as_object(&self) -> Option<&Map<'a>> {
        match self {
            Self::Object(map) => Some(map),
            _ => None,
        }
    }

    /// A member of an object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_object()?.get(key)
    }

    /// A value below a chain of keys.
    pub fn at(&self, keys: &[&str]) -> Option<&Self> {
        keys.iter().try_fold(self, |value, key| value.get(key))
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null | Self::Raw("null"))
    }

    /// What kind of value it is, in the words of an error message.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Uint(_) | Self::Int(_) | Self::Float(_) => "a number",
            Self::Str(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
            Self::Raw(text) => match text.as_bytes().first() {
                Some(b'{') => "an object",
                Some(b'[') => "an array",
                Some(b'"') => "a string",
                Some(b't' | b'f') => "a boolean",
                Some(b'n') => "null",
                _ => "a number",
            },
        }
    }

    /// Whether it is an object, looked into or not.
    pub fn is_object(&self) -> bool {
        self.kind() == "an object"
    }

    /// Its text: borrowed where it was not looked into, written anew otherwise.
    pub fn into_raw(self) -> Str<'a> {
        match self {
            Self::Raw(text) => Cow::Borrowed(text),
            other => Cow::Owned(other.to_text()),
        }
    }

    /// Its compact JSON text.
    pub fn to_text(&self) -> String {
        let mut out = Vec::new();
        self.write(&mut out);
        // Everything `write` appends is UTF-8.
        String::from_utf8(out).unwrap_or_default()
    }

    /// A copy that borrows nothing.
    pub fn into_owned(self) -> Json<'static> {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(value),
            Self::Uint(value) => Json::Uint(value),
            Self::Int(value) => Json::Int(value),
            Self::Float(value) => Json::Float(value),
            Self::Str(text) => Json::Str(Cow::Owned(text.into_owned())),
            Self::Array(items) => Json::Array(items.into_iter().map(Json::into_owned).collect()),
            Self::Object(map) => Json::Object(
                map.0.into_iter().map(|(k, v)| (Cow::Owned(k.into_owned()), v.into_owned())).collect(),
            ),
            Self::Raw(text) => parse_any(text.as_bytes()).map_or(Json::Null, Json::into_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_members_keep_their_text() {
        let text = br#"{"a":"x\ny","args":{"n": 123456789012345678901234567890, "z":1,"a":2}}"#;
        let value = parse(text, &["args"]).unwrap();
        assert_eq!(value.get("a").unwrap().as_str(), Some("x\ny"));
        let raw = value.get("args").unwrap().clone().into_raw();
        assert_eq!(raw, r#"{"n": 123456789012345678901234567890, "z":1,"a":2}"#);
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        let value = parse_any(br#"["plain"]"#).unwrap();
        let Some([Json::Str(Cow::Borrowed(text))]) = value.as_array() else { panic!("{value:?}") };
        assert_eq!(*text, "plain");
    }

    #[test]
    fn p32_deep_nesting_is_refused_and_does_not_overflow() {
        let deep = vec![b'['; 1_000_000];
        assert!(parse_any(&deep).is_err());
        let ok = [vec![b'['; 100], vec![b']'; 100]].concat();
        assert!(parse_any(&ok).is_ok());
    }

    #[test]
    fn round_trip_is_the_same_text() {
        for text in [r#"{"a":[1,-2,0.5,true,null,"q\"\\\n\u0001é 🦀"],"a":{}}"#, "[]", r#""\u2028""#] {
            let value = parse_any(text.as_bytes()).unwrap();
            assert_eq!(parse_any(value.to_text().as_bytes()).unwrap(), value);
        }
    }
}
