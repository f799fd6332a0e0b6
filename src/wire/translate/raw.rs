//! An answer that is no conversation, on its way between equal formats: it goes out as it comes, whatever it
//! is, and only its end is looked at for token counts.
//!
//! Enters: the upstream's bytes. Leaves: the same bytes. May go wrong: nothing; an end that is no JSON has no
//! counts.

use crate::ir::Usage;
use crate::patch::members;
use memchr::memmem;

/// Bytes of the end that are kept: `usage` comes behind vectors and pictures.
const TAIL: usize = 2048;

/// Bytes that have not been sent, and the end of what came.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub(super) out: Vec<u8>,
    tail: Vec<u8>,
}

impl Raw {
    pub(super) fn feed(&mut self, chunk: &[u8]) {
        self.out.extend_from_slice(chunk);
        let last = chunk.get(chunk.len().saturating_sub(TAIL)..).unwrap_or_default();
        let excess = (self.tail.len() + last.len()).saturating_sub(TAIL);
        self.tail.drain(..excess.min(self.tail.len()));
        self.tail.extend_from_slice(last);
    }

    /// The counts that the answer ends with.
    pub(super) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        let Some(at) = memmem::rfind(&self.tail, b"\"usage\"") else { return usage };
        let rest = self.tail.get(at + 7..).unwrap_or_default();
        let Some(start) = rest.iter().position(|b| *b == b'{') else { return usage };
        for member in members(rest, start) {
            let text = rest.get(member.value).and_then(|value| std::str::from_utf8(value).ok());
            let count = text.and_then(|text| text.parse().ok());
            match member.key {
                b"prompt_tokens" | b"input_tokens" => usage.input = count,
                b"completion_tokens" | b"output_tokens" => usage.output = count,
                _ => {}
            }
        }
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_at_the_end_whatever_the_chunks() {
        let body = format!(
            r#"{{"data":[{}1],"usage": {{"prompt_tokens":8,"total_tokens":8,"details":{{"a":1}}}}}}"#,
            "0.1,".repeat(2000)
        );
        for size in [1, 7, 100_000] {
            let mut raw = Raw::default();
            body.as_bytes().chunks(size).for_each(|chunk| raw.feed(chunk));
            assert_eq!(raw.usage(), Usage { input: Some(8), ..Usage::default() }, "{size}");
            assert_eq!(raw.out, body.as_bytes());
        }
        let mut sound = Raw::default();
        sound.feed(b"\xff\x00\"usage\"");
        assert!(sound.usage().is_unknown());
    }
}
