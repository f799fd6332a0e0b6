//! JSON text, appended to a buffer. No tree in between: a writer says members in the order they go out.

use super::{Json, Map};

/// Writes `{…}`: `object(out, |o| { o.str("model", "m"); })`.
pub fn object(out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    fill(&mut Object { out, first: true });
    out.push(b'}');
}

/// Writes `[…]`.
pub fn array(out: &mut Vec<u8>, fill: impl FnOnce(&mut Array<'_>)) {
    out.push(b'[');
    fill(&mut Array { out, first: true });
    out.push(b']');
}

/// `text` as a JSON string with its quotes.
pub fn string(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    String::from_utf8(out).unwrap_or_default()
}

/// Appends `text` as a JSON string with its quotes (RFC 8259 section 7: `"`, `\` and U+0000–U+001F escaped).
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_escaped(out, text);
    out.push(b'"');
}

/// Appends `text` escaped, without quotes. Runs without escapes are copied whole.
pub(crate) fn write_escaped(out: &mut Vec<u8>, text: &str) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    let mut rest = text.as_bytes();
    loop {
        let clean = clean_prefix(rest);
        let (head, tail) = rest.split_at(clean);
        out.extend_from_slice(head);
        let Some((&byte, after)) = tail.split_first() else { return };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            _ => {
                let digit = |n: u8| HEX.get(usize::from(n & 15)).copied().unwrap_or(b'0');
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)]);
            }
        }
        rest = after;
    }
}

/// Length of the longest prefix without a byte that needs an escape. Blocks of 32 keep the test in vector
/// registers, so that a megabyte of base64 costs a copy.
fn clean_prefix(bytes: &[u8]) -> usize {
    let dirty = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
    let mut done = 0;
    for block in bytes.chunks_exact(32) {
        if block.iter().fold(false, |any, b| any | dirty(b)) {
            break;
        }
        done += 32;
    }
    let rest = bytes.get(done..).unwrap_or_default();
    done + rest.iter().position(dirty).unwrap_or(rest.len())
}

/// An open object.
#[derive(Debug)]
pub struct Object<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl Object<'_> {
    /// Starts member `key`; the caller appends its value to the returned buffer.
    pub fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        write_string(self.out, key);
        self.out.push(b':');
        self.out
    }

    /// A string member.
    pub fn str(&mut self, key: &str, value: &str) {
        write_string(self.key(key), value);
    }

    /// A string member, if there is a value.
    pub fn opt_str(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.str(key, value);
        }
    }

    /// A string member, `null` when there is no value.
    pub fn nullable_str(&mut self, key: &str, value: Option<&str>) {
        match value {
            Some(value) => self.str(key, value),
            None => self.null(key),
        }
    }

    /// A boolean member.
    pub fn bool(&mut self, key: &str, value: bool) {
        self.raw(key, if value { "true" } else { "false" });
    }

    /// A whole number.
    pub fn uint(&mut self, key: &str, value: u64) {
        self.raw(key, itoa::Buffer::new().format(value));
    }

    /// A whole number of either sign.
    pub fn int(&mut self, key: &str, value: i64) {
        self.raw(key, itoa::Buffer::new().format(value));
    }

    /// A number, in the shortest spelling that reads back the same.
    pub fn float(&mut self, key: &str, value: f64) {
        let out = self.key(key);
        Json::Float(value).write(out);
    }

    /// `null`
    pub fn null(&mut self, key: &str) {
        self.raw(key, "null");
    }

    /// A member whose value is JSON text already.
    pub fn raw(&mut self, key: &str, text: &str) {
        self.key(key).extend_from_slice(text.as_bytes());
    }

    /// A member that is a parsed value.
    pub fn value(&mut self, key: &str, value: &Json<'_>) {
        value.write(self.key(key));
    }

    /// An object member.
    pub fn object(&mut self, key: &str, fill: impl FnOnce(&mut Object<'_>)) {
        object(self.key(key), fill);
    }

    /// An array member.
    pub fn array(&mut self, key: &str, fill: impl FnOnce(&mut Array<'_>)) {
        array(self.key(key), fill);
    }
}

/// An open array.
#[derive(Debug)]
pub struct Array<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl Array<'_> {
    /// Starts an element; the caller appends its value to the returned buffer.
    pub fn item(&mut self) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out
    }

    /// A string element.
    pub fn str(&mut self, value: &str) {
        write_string(self.item(), value);
    }

    /// An element that is JSON text already.
    pub fn raw(&mut self, text: &str) {
        self.item().extend_from_slice(text.as_bytes());
    }

    /// An element that is a parsed value.
    pub fn value(&mut self, value: &Json<'_>) {
        value.write(self.item());
    }

    /// An object element.
    pub fn object(&mut self, fill: impl FnOnce(&mut Object<'_>)) {
        object(self.item(), fill);
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.first
    }
}

impl Json<'_> {
    /// Appends the compact text.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Uint(value) => out.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes()),
            Self::Int(value) => out.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes()),
            Self::Float(value) => {
                // serde_json writes the shortest spelling that reads back the same; infinities cannot come
                // from a parsed document and would be written as null.
                if serde_json::to_writer(&mut *out, value).is_err() {
                    out.extend_from_slice(b"null");
                }
            }
            Self::Str(text) => write_string(out, text),
            Self::Array(items) => array(out, |a| items.iter().for_each(|item| a.value(item))),
            Self::Object(Map(members)) => object(out, |o| members.iter().for_each(|(k, v)| o.value(k, v))),
            Self::Raw(text) => out.extend_from_slice(text.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn members_are_separated() {
        let mut out = Vec::new();
        object(&mut out, |o| {
            o.str("a", "b");
            o.array("c", |a| {
                a.raw("1");
                a.object(|o| o.null("n"));
            });
            o.float("f", 0.7);
        });
        assert_eq!(out, br#"{"a":"b","c":[1,{"n":null}],"f":0.7}"#);
    }

    proptest! {
        #[test]
        fn any_string_reads_back(text in "(?s).{0,80}") {
            prop_assert_eq!(serde_json::from_str::<String>(&string(&text)).unwrap(), text);
        }
    }
}
