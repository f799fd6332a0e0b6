//! One pass over a document that nobody has checked and that will mostly not be read.
//!
//! Enters: bytes. Leaves: the certainty that they are one JSON object, and the places of its members. May go
//! wrong: syntax (RFC 8259), nesting over [`MAX_DEPTH`], half of a surrogate pair; [`Fault`] says which.
//! UTF-8 is not looked at.
//!
//! `serde_json` skips values as fast but says neither how deep they are nor whether their escapes can be
//! read; a second pass for that would cost as much again on each body of a megabyte.

use super::MAX_DEPTH;
use std::ops::Range;

/// What is wrong with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not JSON.
    Syntax,
    /// It is nested deeper than [`MAX_DEPTH`].
    Depth,
    /// A string has half of a surrogate pair.
    Surrogate,
}

/// Places of a member of the outermost object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The key as written, without quotes (escapes stay).
    pub key: Range<usize>,
    /// The value.
    pub value: Range<usize>,
}

/// Checks a document whose outermost value is an object, and tells its members in order.
pub fn scan(text: &[u8], mut member: impl FnMut(Place)) -> Result<(), Fault> {
    let mut scanner = Scanner { text, at: 0, depth: 0, objects: 0 };
    scanner.blank();
    if scanner.peek() != Some(b'{') {
        return Err(Fault::Syntax);
    }
    scanner.document(&mut member)
}

/// Holds text that was skipped and not read to what a reader would refuse: nesting over [`MAX_DEPTH`] and
/// surrogate escapes without their other half. `text` must be valid JSON otherwise.
pub fn check_raw(text: &[u8]) -> Result<(), &'static str> {
    let mut scanner = Scanner { text, at: 0, depth: 0, objects: 0 };
    scanner.blank();
    match scanner.document(&mut |_| ()) {
        Err(Fault::Depth) => Err("it is nested more than 128 levels deep"),
        Err(Fault::Surrogate) => Err("a string has half of a surrogate pair"),
        _ => Ok(()),
    }
}

/// Index of the quote that closes the string whose content starts at `at`; the end of `text` if none does.
pub(crate) fn string_end(text: &[u8], mut at: usize) -> usize {
    loop {
        at = next_special(text, at);
        match text.get(at) {
            Some(b'"') => return at,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return text.len(),
        }
    }
}

/// The next quote, backslash or control character.
#[inline]
fn next_special(text: &[u8], mut at: usize) -> usize {
    while let Some(Ok(word)) = text.get(at..at + 8).map(<[u8; 8]>::try_from) {
        let found = special(u64::from_le_bytes(word));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len())
}

/// The high bit of each byte that is special. Bytes above the first hit may be wrong, it never is
/// (Bit Twiddling Hacks, "Determine if a word has a byte less than n").
#[inline]
fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let equal = |byte: u8| {
        let x = word ^ (ONES * u64::from(byte));
        x.wrapping_sub(ONES) & !x
    };
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (equal(b'"') | equal(b'\\') | control) & HIGH
}

struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
    depth: usize,
    /// One bit per level, the lowest for the innermost: set inside objects.
    objects: u128,
}

impl Scanner<'_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    fn document(&mut self, member: &mut impl FnMut(Place)) -> Result<(), Fault> {
        let mut key = 0..0;
        let mut value = self.at;
        loop {
            if self.open(&mut key, &mut value)? {
                continue;
            }
            loop {
                if self.depth == 0 {
                    self.blank();
                    return if self.at == self.text.len() { Ok(()) } else { Err(Fault::Syntax) };
                }
                let object = self.objects & 1 == 1;
                if self.depth == 1 && object {
                    member(Place { key: key.clone(), value: value..self.at });
                }
                self.blank();
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        self.blank();
                        if object {
                            self.key(&mut key, &mut value)?;
                        }
                        break;
                    }
                    Some(b'}') if object => self.leave(),
                    Some(b']') if !object => self.leave(),
                    _ => return Err(Fault::Syntax),
                }
            }
        }
    }

    /// Reads a scalar, or enters a container. Returns whether a value of the container comes next.
    fn open(&mut self, key: &mut Range<usize>, value: &mut usize) -> Result<bool, Fault> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                self.string()?;
                Ok(false)
            }
            Some(b'{') => {
                self.enter(true)?;
                if self.peek() == Some(b'}') {
                    self.leave();
                    return Ok(false);
                }
                self.key(key, value)?;
                Ok(true)
            }
            Some(b'[') => {
                self.enter(false)?;
                if self.peek() == Some(b']') {
                    self.leave();
                    return Ok(false);
                }
                Ok(true)
            }
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            _ => self.number(),
        }
    }

    fn enter(&mut self, object: bool) -> Result<(), Fault> {
        if self.depth == MAX_DEPTH {
            return Err(Fault::Depth);
        }
        self.depth += 1;
        self.objects = (self.objects << 1) | u128::from(object);
        self.at += 1;
        self.blank();
        Ok(())
    }

    fn leave(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
        self.at += 1;
    }

    /// Reads a key and what follows, up to the value.
    #[inline]
    fn key(&mut self, key: &mut Range<usize>, value: &mut usize) -> Result<(), Fault> {
        if self.peek() != Some(b'"') {
            return Err(Fault::Syntax);
        }
        self.at += 1;
        let start = self.at;
        self.string()?;
        let end = self.at - 1;
        self.blank();
        if self.peek() != Some(b':') {
            return Err(Fault::Syntax);
        }
        self.at += 1;
        self.blank();
        if self.depth == 1 {
            (*key, *value) = (start..end, self.at);
        }
        Ok(())
    }

    /// Reads the rest of a string and its closing quote.
    #[inline]
    fn string(&mut self) -> Result<(), Fault> {
        loop {
            self.at = next_special(self.text, self.at);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                _ => return Err(Fault::Syntax),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let unit = self.code_unit(self.at + 2)?;
                self.at += 6;
                match unit {
                    0xd800..=0xdbff => match self.text.get(self.at..self.at + 2) {
                        Some(b"\\u") if (0xdc00..=0xdfff).contains(&self.code_unit(self.at + 2)?) => {
                            self.at += 6;
                            Ok(())
                        }
                        _ => Err(Fault::Surrogate),
                    },
                    0xdc00..=0xdfff => Err(Fault::Surrogate),
                    _ => Ok(()),
                }
            }
            _ => Err(Fault::Syntax),
        }
    }

    fn code_unit(&self, at: usize) -> Result<u32, Fault> {
        let digits = self.text.get(at..at + 4).ok_or(Fault::Syntax)?;
        digits.iter().try_fold(0, |unit, digit| {
            let digit = char::from(*digit).to_digit(16).ok_or(Fault::Syntax)?;
            Ok((unit << 4) | digit)
        })
    }

    fn literal(&mut self, word: &[u8]) -> Result<bool, Fault> {
        if self.text.get(self.at..self.at + word.len()) != Some(word) {
            return Err(Fault::Syntax);
        }
        self.at += word.len();
        Ok(false)
    }

    /// RFC 8259, section 6.
    fn number(&mut self) -> Result<bool, Fault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(false)
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(Fault::Syntax) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    fn faults(text: &str) -> Option<Fault> {
        scan(text.as_bytes(), |_| ()).err()
    }

    #[test]
    fn members_are_found_in_order() {
        let text = r#" { "a" : 1.5e3 , "" : {"x":[1,"]"]}, "q\"": "e" , "last":null} "#;
        let mut found = Vec::new();
        scan(text.as_bytes(), |place| found.push((&text[place.key], &text[place.value]))).unwrap();
        let expected = [("a", "1.5e3"), ("", r#"{"x":[1,"]"]}"#), (r#"q\""#, r#""e""#), ("last", "null")];
        assert_eq!(found, expected);
    }

    #[test]
    fn p31_p32_faults_have_names() {
        assert_eq!(faults(r#"{"a":"\ud83d\ude00"}"#), None);
        assert_eq!(faults(r#"{"a":"\ud83d"}"#), Some(Fault::Surrogate));
        assert_eq!(faults(r#"{"a":"\ude00"}"#), Some(Fault::Surrogate));
        let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert_eq!(faults(&nested(MAX_DEPTH - 1)), None);
        assert_eq!(faults(&nested(MAX_DEPTH)), Some(Fault::Depth));
        assert_eq!(faults(&"[".repeat(1_000_000)), Some(Fault::Syntax));
        assert_eq!(faults(&"{\"a\":".repeat(1_000_000)), Some(Fault::Depth));
    }

    /// Text that is nearly JSON.
    fn nearly() -> impl Strategy<Value = String> {
        let token = prop_oneof![
            Just("{"),
            Just("}"),
            Just("["),
            Just("]"),
            Just(","),
            Just(":"),
            Just("\"a\""),
            Just("\"\\n\\u00e9\""),
            Just("\"\\x\""),
            Just("\"a\u{1}\""),
            Just("1"),
            Just("-0.5e+3"),
            Just("01"),
            Just("-"),
            Just("1."),
            Just("true"),
            Just("nul"),
            Just(" "),
            Just("\n"),
            Just("\"long text with é and more\""),
        ];
        prop::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #[test]
        fn p31_what_is_json_is_what_serde_says(inner in nearly()) {
            for text in [inner.clone(), format!("{{\"k\":{inner}}}"), format!("{{\"k\":[{inner}],\"l\":2}}")] {
                let object = text.trim_start().starts_with('{');
                let valid = object && serde_json::from_str::<IgnoredAny>(&text).is_ok();
                prop_assert_eq!(faults(&text).is_none(), valid, "{}", text);
            }
        }

        #[test]
        fn strings_end_where_they_do(text in "[a-z\\\\\"é\\x00-\\x1f]{0,40}") {
            let quoted = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(string_end(quoted.as_bytes(), 1), quoted.len() - 1);
            prop_assert_eq!(faults(&format!("{{{quoted}:{quoted}}}")), None);
        }
    }
}
