//! How events are put on the wire to a client: SSE, a JSON array (Gemini without `alt=sse`), or one JSON
//! text per WebSocket frame.
//!
//! Enters: JSON that a stream writer appends. Leaves: bytes ready to send. Nothing may go wrong: a line end
//! inside the JSON can only be layout of a copied member, and becomes a blank.

use memchr::memchr2;

/// What separates events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// `event:` (where the format has names) and `data:` lines.
    #[default]
    Sse,
    /// `[` event `,` event `]`.
    JsonArray,
    /// One event per line; the WebSocket layer sends each line as a text frame.
    Lines,
}

/// Output of a stream writer.
#[derive(Debug)]
pub struct Frames {
    framing: Framing,
    out: Vec<u8>,
    started: bool,
    /// How much was taken at a time so far: what one buffer will probably need.
    usual: usize,
}

impl Frames {
    /// Empty output.
    pub fn new(framing: Framing) -> Self {
        Self { framing, out: Vec::new(), started: false, usual: 256 }
    }

    /// Adds an event: `fill` appends its JSON. `name` is empty for formats without event names.
    pub fn event(&mut self, name: &str, fill: impl FnOnce(&mut Vec<u8>)) {
        self.make_room();
        match self.framing {
            Framing::Sse => {
                if !name.is_empty() {
                    self.out.extend_from_slice(b"event: ");
                    self.out.extend_from_slice(name.as_bytes());
                    self.out.push(b'\n');
                }
                self.out.extend_from_slice(b"data: ");
                self.fill(fill);
                self.out.extend_from_slice(b"\n\n");
            }
            Framing::JsonArray => {
                self.out.push(if self.started { b',' } else { b'[' });
                self.fill(fill);
            }
            Framing::Lines => {
                self.fill(fill);
                self.out.push(b'\n');
            }
        }
        self.started = true;
    }

    fn fill(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        let from = self.out.len();
        fill(&mut self.out);
        let mut written = self.out.get_mut(from..).unwrap_or_default();
        while let Some(at) = memchr2(b'\n', b'\r', written) {
            let (_, rest) = written.split_at_mut(at);
            if let Some((end, after)) = rest.split_first_mut() {
                *end = b' ';
                written = after;
            } else {
                break;
            }
        }
    }

    /// Adds `data: [DONE]`, which only SSE has.
    pub fn done(&mut self) {
        if self.framing == Framing::Sse {
            self.out.extend_from_slice(b"data: [DONE]\n\n");
        }
    }

    /// Adds bytes that are framed already.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.make_room();
        self.out.extend_from_slice(bytes);
        self.started = true;
    }

    /// Closes what is open. No event may follow.
    pub fn end(&mut self) {
        if self.framing == Framing::JsonArray {
            self.out.extend_from_slice(if self.started { b"]" } else { b"[]" });
        }
    }

    /// Bytes that wait to be sent.
    pub fn pending(&self) -> &[u8] {
        &self.out
    }

    /// Takes the bytes that wait to be sent.
    pub fn take(&mut self) -> Vec<u8> {
        // Never so much that a stream would hold it for nothing.
        self.usual = self.usual.max(self.out.len()).min(4096);
        std::mem::take(&mut self.out)
    }

    /// One allocation instead of one per doubling.
    fn make_room(&mut self) {
        if self.out.capacity() == 0 {
            self.out.reserve(self.usual);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_framings() {
        let text = |framing| {
            let mut frames = Frames::new(framing);
            frames.event("a", |o| o.extend_from_slice(b"{\"x\":\n1}"));
            frames.event("", |o| o.extend_from_slice(b"2"));
            frames.done();
            frames.end();
            String::from_utf8(frames.take()).unwrap()
        };
        assert_eq!(text(Framing::Sse), "event: a\ndata: {\"x\": 1}\n\ndata: 2\n\ndata: [DONE]\n\n");
        assert_eq!(text(Framing::JsonArray), "[{\"x\": 1},2]");
        assert_eq!(text(Framing::Lines), "{\"x\": 1}\n2\n");
    }
}
