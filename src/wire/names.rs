//! Names, ids and kinds of content as each target spells them.
//!
//! Enters: what a client wrote. Leaves: what the target's pattern allows, the same for the same input, so
//! that prompts stay cacheable. May go wrong: nothing.

use crate::ir::Str;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// What a target allows in tool names and call ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameRule {
    /// Longest tool name.
    pub name_max: usize,
    /// Bytes besides letters and digits that a name may hold.
    pub name_extra: &'static [u8],
    /// A name starts with a letter or `_` (Gemini).
    pub name_starts_with_letter: bool,
    /// Longest call id.
    pub id_max: usize,
    /// Ids are limited to letters, digits, `_` and `-` (Claude).
    pub id_plain: bool,
}

impl NameRule {
    /// OpenAI: `^[a-zA-Z0-9_-]{1,64}$`; Responses limits `call_id` to 64.
    pub const OPENAI: Self =
        Self { name_max: 64, name_extra: b"_-", name_starts_with_letter: false, id_max: 64, id_plain: false };
    /// Claude: names `^[a-zA-Z0-9_-]{1,128}$`, ids `^[a-zA-Z0-9_-]+$`.
    pub const CLAUDE: Self = Self {
        name_max: 128,
        name_extra: b"_-",
        name_starts_with_letter: false,
        id_max: 256,
        id_plain: true,
    };
    /// Gemini: a letter or `_`, then letters, digits, `_ . : -`; older documents say 64 in all.
    pub const GEMINI: Self = Self {
        name_max: 64,
        name_extra: b"_-.:",
        name_starts_with_letter: true,
        id_max: 256,
        id_plain: false,
    };

    /// Whether `name` needs no change.
    pub fn allows(&self, name: &str) -> bool {
        let starts = !self.name_starts_with_letter
            || name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        !name.is_empty()
            && name.len() <= self.name_max
            && starts
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || self.name_extra.contains(&b))
    }

    /// `name` as the rule allows it. `mcp__server__tool` keeps its last segment when it has to be cut.
    pub fn shorten(&self, name: &str) -> String {
        let mut out: String = name
            .chars()
            .map(|c| match u8::try_from(c) {
                Ok(b) if b.is_ascii_alphanumeric() || self.name_extra.contains(&b) => c,
                _ => '_',
            })
            .collect();
        let letter = out.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if out.is_empty() || (self.name_starts_with_letter && !letter) {
            out.insert(0, '_');
        }
        if out.len() > self.name_max
            && out.starts_with("mcp__")
            && let Some((_, last)) = out.rsplit_once("__")
        {
            out = format!("mcp__{last}");
        }
        out.truncate(self.name_max);
        out
    }

    /// `id` as the rule allows it; the same for the same input.
    pub fn id<'a>(&self, id: Str<'a>) -> Str<'a> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if id.len() <= self.id_max && (!self.id_plain || id.bytes().all(plain)) {
            return id;
        }
        let mut out: String = id
            .chars()
            .map(|c| if !self.id_plain || (c.is_ascii() && plain(c as u8)) { c } else { '_' })
            .collect();
        if out.len() > self.id_max {
            let digest = fingerprint(id.as_bytes());
            let mut keep = self.id_max - 17;
            while !out.is_char_boundary(keep) {
                keep -= 1;
            }
            out.truncate(keep);
            out.push('_');
            out.push_str(&digest);
        }
        Cow::Owned(out)
    }
}

/// 16 hex digits of `bytes` (FNV-1a, 64 bits): stable over restarts and versions, not secret.
pub fn fingerprint(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// 32 hex digits in the form of a UUID.
pub fn uuid(digits: &str) -> String {
    let mut rest = digits;
    let mut groups = Vec::new();
    for length in [8, 4, 4, 4, 12] {
        let (group, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        groups.push(group);
        rest = after;
    }
    groups.join("-")
}

/// Splits `data:<mime>;base64,<data>`. The MIME type may be empty.
pub fn split_data_url(url: &str) -> Option<(&str, &str)> {
    let rest = url.get(..5).filter(|p| p.eq_ignore_ascii_case("data:")).and(url.get(5..))?;
    let (head, data) = rest.split_once(',')?;
    let mime = head.strip_suffix(";base64")?;
    Some((mime.split(';').next().unwrap_or_default(), data))
}

/// The MIME type that the first bytes of base64 content say.
pub fn sniff_mime(base64: &str) -> Option<&'static str> {
    let head = base64.get(..24.min(base64.len() & !3))?;
    let bytes = STANDARD.decode(head).ok()?;
    Some(match bytes.as_slice() {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        [b'G', b'I', b'F', b'8', ..] => "image/gif",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => "audio/wav",
        [b'%', b'P', b'D', b'F', ..] => "application/pdf",
        _ => return None,
    })
}

/// Standard base64 of text that may be in the URL alphabet (the Python Gemini SDK writes it).
pub fn standard_base64(text: Str<'_>) -> Str<'_> {
    if text.bytes().any(|b| b == b'-' || b == b'_') {
        Cow::Owned(
            text.chars()
                .map(|c| {
                    if c == '-' {
                        '+'
                    } else if c == '_' {
                        '/'
                    } else {
                        c
                    }
                })
                .collect(),
        )
    } else {
        text
    }
}

/// MIME type of the OpenAI audio format names.
pub fn audio_mime(format: &str) -> &'static str {
    match format {
        "mp3" | "mpeg" => "audio/mpeg",
        "flac" => "audio/flac",
        "ogg" | "opus" => "audio/ogg",
        "aac" => "audio/aac",
        "pcm16" | "pcm" => "audio/pcm",
        _ => "audio/wav",
    }
}

/// OpenAI audio format name of a MIME type.
pub fn audio_format(mime: &str) -> &'static str {
    match mime {
        "audio/mpeg" | "audio/mp3" => "mp3",
        "audio/flac" => "flac",
        "audio/ogg" | "audio/opus" => "opus",
        "audio/aac" => "aac",
        "audio/pcm" => "pcm16",
        _ => "wav",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_target() {
        let long = format!("mcp__{}__read_file", "server".repeat(20));
        assert_eq!(NameRule::OPENAI.shorten(&long), "mcp__read_file");
        assert_eq!(NameRule::GEMINI.shorten("1st.tool"), "_1st.tool");
        assert_eq!(NameRule::CLAUDE.shorten("a b/c"), "a_b_c");
        assert!(NameRule::OPENAI.allows("get_weather"));
        assert!(!NameRule::GEMINI.allows("1st"));
    }

    #[test]
    fn p38_ids_are_shortened_the_same_way_each_time() {
        let long: Str<'_> = "call_x".repeat(20).into();
        let short = NameRule::OPENAI.id(long.clone());
        assert_eq!(short.len(), 64);
        assert_eq!(short, NameRule::OPENAI.id(long));
        assert_eq!(NameRule::CLAUDE.id("a:b.c".into()), "a_b_c");
        assert_eq!(NameRule::CLAUDE.id("toolu_1".into()), "toolu_1");
    }

    #[test]
    fn data_urls_and_magic() {
        assert_eq!(split_data_url("data:image/png;base64,AAAA"), Some(("image/png", "AAAA")));
        assert_eq!(split_data_url("data:text/plain;charset=utf-8;base64,AA"), Some(("text/plain", "AA")));
        assert_eq!(split_data_url("https://x/y"), None);
        assert_eq!(sniff_mime("iVBORw0KGgoAAAANSUhEUg"), Some("image/png"));
        assert_eq!(sniff_mime("JVBERi0xLjQK"), Some("application/pdf"));
        assert_eq!(sniff_mime("aGVsbG8gd29ybGQ="), None);
    }
}
