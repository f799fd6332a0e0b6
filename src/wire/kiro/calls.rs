//! Calls as they come: in fragments, whole, twice, and sometimes cut.
//!
//! Enters: ids and arguments of `toolUseEvent`s. Leaves: which call a fragment belongs to, and whether its
//! arguments are complete. May go wrong: nothing here; the reader decides what a cut call means.

use std::collections::HashSet;

/// The calls of an answer.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: Vec<Call>,
    /// Ids of all calls so far, open or not.
    seen: HashSet<String>,
}

/// A call that is open.
#[derive(Debug)]
pub(super) struct Call {
    id: String,
    /// Number of its block.
    pub(super) block: u32,
    /// How far its arguments are.
    pub(super) arguments: Progress,
}

impl Calls {
    /// The open call of `id`. The service repeats the id with every fragment; one without belongs to the
    /// last call.
    pub(super) fn find(&mut self, id: &str) -> Option<&mut Call> {
        self.open.iter_mut().rfind(|call| id.is_empty() || call.id == id)
    }

    /// Whether a call of `id` came before.
    pub(super) fn is_known(&self, id: &str) -> bool {
        self.seen.contains(id)
    }

    /// Whether there was any call.
    pub(super) fn any(&self) -> bool {
        !self.seen.is_empty()
    }

    /// Opens a call.
    pub(super) fn open(&mut self, id: &str, block: u32) {
        self.seen.insert(id.to_owned());
        self.open.push(Call { id: id.to_owned(), block, arguments: Progress::default() });
    }

    /// Takes the call of `id` out: no more of it comes.
    pub(super) fn close(&mut self, id: &str) -> Option<Call> {
        let at = self.open.iter().rposition(|call| id.is_empty() || call.id == id)?;
        Some(self.open.remove(at))
    }

    /// Takes the oldest call out whose arguments are complete, or the oldest of all.
    pub(super) fn take(&mut self, complete: bool) -> Option<Call> {
        let at = self.open.iter().position(|call| !complete || call.arguments.is_complete())?;
        Some(self.open.remove(at))
    }
}

/// How far JSON text is that comes in pieces: whether what began has ended. It is not checked otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    begun: bool,
    depth: u32,
    string: bool,
    escaped: bool,
}

impl Progress {
    /// Takes the next piece.
    pub(super) fn push(&mut self, text: &str) {
        for byte in text.bytes() {
            self.begun |= !byte.is_ascii_whitespace();
            if self.string {
                if std::mem::take(&mut self.escaped) {
                    continue;
                }
                self.escaped = byte == b'\\';
                self.string = byte != b'"';
                continue;
            }
            match byte {
                b'"' => self.string = true,
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    /// Whether anything came.
    pub(super) fn begun(self) -> bool {
        self.begun
    }

    /// Whether all that began has ended.
    pub(super) fn is_complete(self) -> bool {
        self.begun && self.depth == 0 && !self.string
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_arguments_are_complete() {
        let whole = r#"{"a":"}\"]{","b":[{"c":1}]}"#;
        for at in 0..=whole.len() {
            let (mut progress, text) = (Progress::default(), whole.get(..at).unwrap());
            progress.push(text);
            assert_eq!(progress.is_complete(), at == whole.len(), "{text}");
        }
    }
}
