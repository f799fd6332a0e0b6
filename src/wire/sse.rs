//! Server-sent events: a push decoder and an encoder (WHATWG HTML, section 9.2).
//!
//! Enters: bytes as the socket gave them, split anywhere. Leaves: events, as slices of the chunk wherever an
//! event lies in one chunk. May go wrong: an event over the limit ([`TooLong`]); everything else is either an
//! event or a line the standard says to ignore.

use memchr::memchr2;

/// Longest event that is collected. Image models send megabytes of base64 in one line.
pub const DEFAULT_LIMIT: usize = 64 << 20;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event:` field; empty when there was none.
    pub name: &'a str,
    /// The `data:` lines, joined by a line feed.
    pub data: &'a [u8],
    /// One past the event's last byte, counted from the start of the chunk that completed it.
    pub end: usize,
}

/// An event is longer than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {0} bytes")]
pub struct TooLong(pub usize);

/// Splits a byte stream into events.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    /// A line whose end has not come yet.
    line: Vec<u8>,
    /// The data of an event whose end has not come yet.
    data: Vec<u8>,
    name: String,
    has_data: bool,
    /// The last byte was CR: a LF that follows belongs to it.
    after_cr: bool,
    started: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(DEFAULT_LIMIT)
    }
}

impl Decoder {
    /// A decoder that refuses events over `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            data: Vec::new(),
            name: String::new(),
            has_data: false,
            after_cr: false,
            started: false,
        }
    }

    /// Takes the next bytes and calls `on_event` for each event that they complete.
    pub fn feed(&mut self, mut chunk: &[u8], mut on_event: impl FnMut(Event<'_>)) -> Result<(), TooLong> {
        let length = chunk.len();
        // The data of the current event while all of it lies in this chunk.
        let mut whole: Option<&[u8]> = None;
        // An empty chunk says nothing about what follows the CR.
        if !chunk.is_empty() && std::mem::take(&mut self.after_cr) && chunk.first() == Some(&b'\n') {
            chunk = chunk.get(1..).unwrap_or_default();
        }
        while let Some(end) = memchr2(b'\n', b'\r', chunk) {
            let (head, tail) = chunk.split_at(end);
            chunk = self.skip_line_end(tail);
            let at = length - chunk.len();
            if self.line.is_empty() {
                self.take_line(head, &mut whole, at, &mut on_event);
            } else {
                self.line.extend_from_slice(head);
                let line = std::mem::take(&mut self.line);
                // The line is a copy: what it adds has to be one as well.
                let mut copied = None;
                self.keep(whole.take());
                self.take_line(&line, &mut copied, at, &mut on_event);
                self.keep(copied);
            }
            if self.data.len() > self.limit {
                return Err(TooLong(self.limit));
            }
        }
        self.keep(whole);
        self.line.extend_from_slice(chunk);
        if self.line.len() + self.data.len() > self.limit {
            return Err(TooLong(self.limit));
        }
        Ok(())
    }

    /// The stream ended. An event without its blank line counts when its data is complete: servers exist
    /// that close right after the last line.
    pub fn finish(&mut self, mut on_event: impl FnMut(Event<'_>)) {
        let line = std::mem::take(&mut self.line);
        let mut held = None;
        if !line.is_empty() {
            self.take_line(&line, &mut held, 0, &mut on_event);
        }
        self.keep(held);
        let complete =
            self.data == b"[DONE]" || serde_json::from_slice::<serde::de::IgnoredAny>(&self.data).is_ok();
        if self.has_data && complete {
            on_event(Event { name: &self.name, data: &self.data, end: 0 });
        }
        *self = Self::new(self.limit);
    }

    /// `rest` starts with CR or LF.
    fn skip_line_end<'c>(&mut self, rest: &'c [u8]) -> &'c [u8] {
        match rest {
            [b'\r', b'\n', after @ ..] => after,
            [b'\r'] => {
                self.after_cr = true;
                &[]
            }
            [_, after @ ..] => after,
            [] => &[],
        }
    }

    fn take_line<'c>(
        &mut self,
        mut line: &'c [u8],
        whole: &mut Option<&'c [u8]>,
        end: usize,
        on_event: &mut impl FnMut(Event<'_>),
    ) {
        if !std::mem::replace(&mut self.started, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            if self.has_data {
                let data = whole.take().unwrap_or(&self.data);
                on_event(Event { name: &self.name, data, end });
            }
            *whole = None;
            self.has_data = false;
            self.data.clear();
            self.name.clear();
        } else if let Some(value) = field(line, b"data") {
            if self.has_data {
                self.keep(whole.take());
                self.data.push(b'\n');
                self.data.extend_from_slice(value);
            } else {
                self.has_data = true;
                *whole = Some(value);
            }
        } else if let Some(value) = field(line, b"event") {
            self.name.clear();
            self.name.push_str(&String::from_utf8_lossy(value));
        }
    }

    fn keep(&mut self, data: Option<&[u8]>) {
        if let Some(data) = data {
            self.data.extend_from_slice(data);
        }
    }
}

/// The value of a line `name: value`, without the one blank that may follow the colon.
fn field<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let rest = line.strip_prefix(name)?;
    match rest {
        [] => Some(rest),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

/// Appends one event. `data` is JSON or `[DONE]`; line ends inside it become further `data:` lines, so that
/// no text can forge an event.
pub fn write(out: &mut Vec<u8>, name: &str, data: &[u8]) {
    if !name.is_empty() {
        out.extend_from_slice(b"event: ");
        out.extend(name.bytes().filter(|b| !matches!(b, b'\n' | b'\r')));
        out.push(b'\n');
    }
    let mut rest = data;
    loop {
        out.extend_from_slice(b"data: ");
        let Some(end) = memchr2(b'\n', b'\r', rest) else { break };
        let (head, tail) = rest.split_at(end);
        out.extend_from_slice(head);
        out.push(b'\n');
        rest = tail.strip_prefix(b"\r\n").or_else(|| tail.get(1..)).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(b"\n\n");
}

/// A comment that keeps a silent connection open.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(chunks: &[&[u8]]) -> Vec<(String, String)> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        let mut take = |e: Event<'_>| {
            events.push((e.name.to_owned(), String::from_utf8_lossy(e.data).into_owned()));
        };
        for chunk in chunks {
            decoder.feed(chunk, &mut take).unwrap();
        }
        decoder.finish(&mut take);
        events
    }

    fn pair(name: &str, data: &str) -> (String, String) {
        (name.to_owned(), data.to_owned())
    }

    #[test]
    fn all_line_ends_and_fields() {
        let text: &[u8] =
            b"\xef\xbb\xbf: hi\r\nevent: a\r\ndata: 1\r\n\r\ndata:2\rdata: 3\r\rid: 7\n\ndata\n\n";
        assert_eq!(decode(&[text]), [pair("a", "1"), pair("", "2\n3"), pair("", "")]);
    }

    #[test]
    fn an_empty_chunk_between_cr_and_lf_changes_nothing() {
        assert_eq!(decode(&[b"data: 1\r", b"", b"\ndata: 2\r\n\r\n"]), [pair("", "1\n2")]);
    }

    #[test]
    fn a_complete_tail_counts_and_a_cut_one_does_not() {
        assert_eq!(decode(&[b"data: {\"a\":1}"]), [pair("", "{\"a\":1}")]);
        assert_eq!(decode(&[b"data: [DONE]"]), [pair("", "[DONE]")]);
        assert_eq!(decode(&[b"data: {\"a\":"]), []);
    }

    #[test]
    fn p14_a_line_without_end_is_refused_at_the_limit() {
        let mut decoder = Decoder::new(1000);
        let chunk = [b'x'; 100];
        let refused = (0..20).any(|_| decoder.feed(&chunk, |_| {}).is_err());
        assert!(refused);
        let mut decoder = Decoder::new(1000);
        let refused = (0..200).any(|_| decoder.feed(b"data: 0123456789\n", |_| {}).is_err());
        assert!(refused);
    }

    #[test]
    fn p37_written_text_cannot_forge_an_event() {
        let mut out = Vec::new();
        write(&mut out, "x\ny", b"one\ndata: two\r\n\r\nevent: three");
        assert_eq!(decode(&[&out]), [pair("xy", "one\ndata: two\n\nevent: three")]);
    }

    #[test]
    fn ends_cut_the_chunk_into_its_events() {
        let mut decoder = Decoder::default();
        let chunk: &[u8] = b"data: 1\n\n: c\r\ndata: 2\r\n\r\ndata: 3";
        let mut ends = Vec::new();
        decoder.feed(chunk, |e| ends.push(e.end)).unwrap();
        assert_eq!(ends, [9, chunk.len() - 7]);
    }

    proptest! {
        #[test]
        fn p36_any_split_gives_the_same_events(text in "(data: [a-z\r\n]{0,5}|event: x|[\r\n:]|id|é){0,30}", cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
            at.push(0);
            at.push(bytes.len());
            at.sort_unstable();
            let chunks: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(decode(&chunks), decode(&[bytes]));
        }

        #[test]
        fn written_events_read_back(name in "[a-z.]{0,8}", data in "[a-z \\\"{}:]{1,30}(\n[a-z]{0,4}){0,3}") {
            let mut out = Vec::new();
            write(&mut out, &name, data.as_bytes());
            prop_assert_eq!(decode(&[&out]), [pair(&name, &data)]);
        }
    }
}
