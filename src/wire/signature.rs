//! Signatures of reasoning: opaque, and bound to the vendor that made them.
//!
//! Enters: a signature as a client sent it back. Leaves: whose it is. A vendor refuses the signature of
//! another, so writers send only their own and record the rest as lost. May go wrong: nothing; what is not
//! recognised is [`Vendor::Unknown`].

use crate::ir::Str;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Who made a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// Anthropic's API: base64 of a protobuf, field 2 (or the newer container that starts with 0x08).
    Claude,
    /// Claude behind Vertex or Antigravity: base64 of the base64 above (starts with `R`).
    ClaudeVertex,
    /// Google: protobuf field 2 → field 1 → a payload that starts with 0x01.
    Gemini,
    /// OpenAI: a Fernet token (base64url, byte 0x80).
    Openai,
    /// Nobody known.
    Unknown,
}

/// A signature and its maker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature<'a> {
    /// Who made it.
    pub vendor: Vendor,
    /// Its text, byte for byte.
    pub value: Str<'a>,
}

impl<'a> Signature<'a> {
    /// A signature whose maker is read off its form; `None` when it is empty.
    pub fn detect(value: impl Into<Str<'a>>) -> Option<Self> {
        let value = value.into();
        (!value.is_empty()).then(|| Self { vendor: detect(&value), value })
    }

    /// A signature of a known maker; `None` when it is empty.
    pub fn of(vendor: Vendor, value: impl Into<Str<'a>>) -> Option<Self> {
        let value = value.into();
        (!value.is_empty()).then_some(Self { vendor, value })
    }
}

/// Reads the maker off the form of a signature.
pub fn detect(value: &str) -> Vendor {
    if let Some(token) = decode(value).filter(|_| value.starts_with("gAAAA")) {
        // Fernet: version, 8 bytes of time, 16 of IV, ciphertext in blocks of 16, 32 of HMAC.
        let fernet = token.first() == Some(&0x80) && token.len() >= 73 && (token.len() - 57) % 16 == 0;
        return if fernet { Vendor::Openai } else { Vendor::Unknown };
    }
    let Some(bytes) = decode(value) else { return Vendor::Unknown };
    match bytes.first() {
        Some(0x12) => match field(&bytes, 0x12).and_then(|inner| field(inner, 0x0a)) {
            Some([0x01, ..]) => Vendor::Gemini,
            Some(_) => Vendor::Claude,
            None => Vendor::Unknown,
        },
        Some(0x08) => Vendor::Claude,
        Some(b'E') => {
            let inner = std::str::from_utf8(&bytes).map_or(Vendor::Unknown, detect);
            if inner == Vendor::Claude { Vendor::ClaudeVertex } else { Vendor::Unknown }
        }
        _ => Vendor::Unknown,
    }
}

/// The direct form of a [`Vendor::ClaudeVertex`] signature.
pub fn unwrap_vertex(value: &str) -> Option<String> {
    String::from_utf8(decode(value)?).ok()
}

/// The double form that Vertex and Antigravity take of a [`Vendor::Claude`] signature.
pub fn wrap_vertex(value: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(value)
}

/// Base64 of either alphabet, with or without padding.
fn decode(value: &str) -> Option<Vec<u8>> {
    let bare = value.trim_end_matches('=');
    STANDARD_NO_PAD.decode(bare).or_else(|_| URL_SAFE_NO_PAD.decode(bare)).ok()
}

/// The content of a length-delimited protobuf field, when the message starts with it.
fn field(message: &[u8], tag: u8) -> Option<&[u8]> {
    let mut rest = message.strip_prefix(&[tag])?;
    let (mut length, mut shift) = (0_usize, 0_u32);
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return rest.get(..length);
        }
        if shift > 28 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    #[test]
    fn makers_are_told_by_form() {
        let claude = STANDARD.encode([&[0x12, 0x04, 0x0a, 0x02, 0x08, 0x0a][..], &[0; 20]].concat());
        let gemini = STANDARD.encode([0x12, 0x05, 0x0a, 0x03, 0x01, 0x0c, 0x39]);
        let openai = URL_SAFE.encode([&[0x80][..], &[0; 8 + 16 + 64 + 32]].concat());
        assert!(claude.starts_with('E'));
        assert_eq!(detect(&claude), Vendor::Claude);
        assert_eq!(detect(&gemini), Vendor::Gemini);
        assert_eq!(detect(&openai), Vendor::Openai);
        assert_eq!(detect("not a signature"), Vendor::Unknown);
        assert_eq!(detect(""), Vendor::Unknown);
        let wrapped = wrap_vertex(&claude);
        assert!(wrapped.starts_with('R'));
        assert_eq!(detect(&wrapped), Vendor::ClaudeVertex);
        assert_eq!(unwrap_vertex(&wrapped).as_deref(), Some(claude.as_str()));
    }
}
