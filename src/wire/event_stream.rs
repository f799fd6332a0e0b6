//! AWS event streams (`application/vnd.amazon.eventstream`): a push decoder.
//!
//! Enters: bytes as the socket gave them, split anywhere. Leaves: messages, as slices of the chunk wherever
//! a message lies in one chunk. May go wrong: a checksum, a length or a header that is not as it has to be,
//! and an end in the middle ([`Fault`]); the stream cannot be read on after that.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the whole message, big-endian |
//! | 4 | length of the headers |
//! | 4 | CRC-32 of the 8 bytes before |
//! | … | headers: length of the name (1), name, type (1), value |
//! | … | payload |
//! | 4 | CRC-32 of everything before |
//!
//! Source: Smithy specification, "Amazon event stream".

/// Longest message that is collected: the format's own limit.
pub const DEFAULT_LIMIT: usize = 16 << 20;

/// Lengths and their checksum.
const PRELUDE: usize = 12;

/// A message without headers and payload.
const SHORTEST: usize = PRELUDE + 4;

/// What a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A step of the answer.
    #[default]
    Event,
    /// An error that the service's model names.
    Exception,
    /// Any other error.
    Error,
}

/// One message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is.
    pub kind: Kind,
    /// `:event-type`, `:exception-type` or `:error-code`; empty when there was none.
    pub name: &'a str,
    /// `:error-message` of a [`Kind::Error`].
    pub problem: &'a str,
    /// The payload.
    pub payload: &'a [u8],
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A message is longer than the limit.
    #[error("a message of the event stream is longer than {0} bytes")]
    TooLong(usize),
    /// A length contradicts another.
    #[error("a message of the event stream has an impossible length")]
    Length,
    /// A checksum does not fit.
    #[error("a message of the event stream does not fit its checksum")]
    Checksum,
    /// A header is cut, of an unknown type, or no text.
    #[error("a message of the event stream has a header that cannot be read")]
    Header,
    /// The stream ended inside a message.
    #[error("the event stream ended inside a message")]
    Cut,
}

/// Splits a byte stream into messages.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    /// The start of a message whose end has not come yet.
    held: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(DEFAULT_LIMIT)
    }
}

impl Decoder {
    /// A decoder that refuses messages over `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, held: Vec::new() }
    }

    /// Takes the next bytes and calls `on_message` for each message that they complete. After a fault
    /// nothing more can be read.
    pub fn feed(&mut self, mut chunk: &[u8], mut on_message: impl FnMut(Message<'_>)) -> Result<(), Fault> {
        while !chunk.is_empty() {
            if self.held.is_empty() {
                let whole = length(chunk, self.limit)?.and_then(|length| chunk.split_at_checked(length));
                let Some((message, rest)) = whole else {
                    self.held.extend_from_slice(chunk);
                    return Ok(());
                };
                on_message(read(message)?);
                chunk = rest;
                continue;
            }
            // First the lengths, then as much as they say.
            let wanted = length(&self.held, self.limit)?.unwrap_or(PRELUDE);
            let missing = wanted.saturating_sub(self.held.len()).min(chunk.len());
            let (head, rest) = chunk.split_at(missing);
            self.held.extend_from_slice(head);
            chunk = rest;
            if length(&self.held, self.limit)? == Some(self.held.len()) {
                on_message(read(&self.held)?);
                self.held.clear();
            }
        }
        Ok(())
    }

    /// The stream ended.
    pub fn finish(&self) -> Result<(), Fault> {
        if self.held.is_empty() { Ok(()) } else { Err(Fault::Cut) }
    }
}

/// Length of the message that `bytes` start with; `None` while too little of it is there to know.
fn length(bytes: &[u8], limit: usize) -> Result<Option<usize>, Fault> {
    let Some((lengths, after)) = bytes.split_first_chunk::<8>() else { return Ok(None) };
    let Some(checksum) = after.first_chunk::<4>() else { return Ok(None) };
    // First of all: a length that was damaged on its way means nothing.
    if crc32fast::hash(lengths) != u32::from_be_bytes(*checksum) {
        return Err(Fault::Checksum);
    }
    let mut lengths = lengths.as_slice();
    let total = number(&mut lengths).ok_or(Fault::Length)?;
    let headers = number(&mut lengths).ok_or(Fault::Length)?;
    if total > limit {
        return Err(Fault::TooLong(limit));
    }
    if total < SHORTEST || headers > total - SHORTEST {
        return Err(Fault::Length);
    }
    Ok(Some(total))
}

/// Takes a length of 4 bytes off the front.
fn number(bytes: &mut &[u8]) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(take(bytes)?)).ok()
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

fn take_slice<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(head)
}

/// Reads a whole message, of which the lengths are known to fit.
fn read(message: &[u8]) -> Result<Message<'_>, Fault> {
    let (content, checksum) = message.split_last_chunk::<4>().ok_or(Fault::Length)?;
    if crc32fast::hash(content) != u32::from_be_bytes(*checksum) {
        return Err(Fault::Checksum);
    }
    let mut rest = content.get(4..).ok_or(Fault::Length)?;
    let headers = number(&mut rest).ok_or(Fault::Length)?;
    let mut rest = content.get(PRELUDE..).ok_or(Fault::Length)?;
    let mut headers = take_slice(&mut rest, headers).ok_or(Fault::Length)?;
    let mut read = Message { payload: rest, ..Message::default() };
    while !headers.is_empty() {
        let (name, value) = header(&mut headers).ok_or(Fault::Header)?;
        let Some(value) = value else { continue };
        match name {
            b":message-type" => {
                read.kind = match text(value)? {
                    "exception" => Kind::Exception,
                    "error" => Kind::Error,
                    _ => Kind::Event,
                };
            }
            b":event-type" | b":exception-type" | b":error-code" => read.name = text(value)?,
            b":error-message" => read.problem = text(value)?,
            _ => {}
        }
    }
    Ok(read)
}

/// Takes a header: its name and, when it is a string, its value. `None`: it cannot be read.
fn header<'a>(bytes: &mut &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let [length] = take(bytes)?;
    let name = take_slice(bytes, usize::from(length))?;
    let [kind] = take(bytes)?;
    let fixed = match kind {
        // True and false have no value.
        0 | 1 => 0,
        2 => 1,
        3 => 2,
        4 => 4,
        // A long, a time.
        5 | 8 => 8,
        // A UUID.
        9 => 16,
        // Bytes and strings.
        6 | 7 => {
            let length = u16::from_be_bytes(take(bytes)?);
            let value = take_slice(bytes, usize::from(length))?;
            return Some((name, (kind == 7).then_some(value)));
        }
        _ => return None,
    };
    take_slice(bytes, fixed)?;
    Some((name, None))
}

fn text(value: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(value).map_err(|_| Fault::Header)
}

/// A message with string headers.
#[cfg(test)]
pub(crate) fn encode(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    for (name, value) in headers {
        raw.push(u8::try_from(name.len()).unwrap());
        raw.extend_from_slice(name.as_bytes());
        raw.push(7);
        raw.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        raw.extend_from_slice(value.as_bytes());
    }
    encode_raw(&raw, payload)
}

#[cfg(test)]
fn encode_raw(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let total = SHORTEST + headers.len() + payload.len();
    let mut out = Vec::new();
    out.extend_from_slice(&u32::try_from(total).unwrap().to_be_bytes());
    out.extend_from_slice(&u32::try_from(headers.len()).unwrap().to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out.extend_from_slice(headers);
    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Seen = Vec<(Kind, String, String, Vec<u8>)>;

    fn decode(limit: usize, chunks: &[&[u8]]) -> (Seen, Result<(), Fault>) {
        let mut decoder = Decoder::new(limit);
        let mut seen = Vec::new();
        for chunk in chunks {
            let fed = decoder.feed(chunk, |m| {
                seen.push((m.kind, m.name.to_owned(), m.problem.to_owned(), m.payload.to_vec()));
            });
            if fed.is_err() {
                return (seen, fed);
            }
        }
        (seen, decoder.finish())
    }

    fn event(payload: &[u8]) -> Vec<u8> {
        encode(&[(":message-type", "event"), (":event-type", "e")], payload)
    }

    #[test]
    fn a_message_of_the_specification_is_read() {
        // The example of the AWS SDKs' test suites: `content-type: application/json`, `{'foo':'bar'}`.
        let bytes: &[u8] = b"\x00\x00\x00\x3d\x00\x00\x00\x20\x07\xfd\x83\x96\x0ccontent-type\x07\x00\x10\
            application/json{'foo':'bar'}\x8d\x9c\x08\xb1";
        let (seen, end) = decode(DEFAULT_LIMIT, &[bytes]);
        assert_eq!(end, Ok(()));
        assert_eq!(seen, [(Kind::Event, String::new(), String::new(), b"{'foo':'bar'}".to_vec())]);
    }

    #[test]
    fn kinds_names_and_problems_are_read() {
        let exception = encode(&[(":message-type", "exception"), (":exception-type", "X")], b"{}");
        let error = encode(&[(":message-type", "error"), (":error-code", "C"), (":error-message", "m")], b"");
        let (seen, _) = decode(DEFAULT_LIMIT, &[&event(b"1"), &exception, &error]);
        assert_eq!(
            seen,
            [
                (Kind::Event, "e".into(), String::new(), b"1".to_vec()),
                (Kind::Exception, "X".into(), String::new(), b"{}".to_vec()),
                (Kind::Error, "C".into(), "m".into(), Vec::new()),
            ]
        );
    }

    #[test]
    fn headers_of_every_type_are_skipped_and_others_refused() {
        let mut headers = Vec::new();
        for (kind, length) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (5, 8), (8, 8), (9, 16)] {
            headers.extend_from_slice(&[1, b'h', kind]);
            headers.extend(std::iter::repeat_n(0xff, length));
        }
        headers.extend_from_slice(&[1, b'h', 6, 0, 2, 0xff, 0xff]);
        headers.extend_from_slice(b"\x0b:event-type\x07\x00\x01e");
        let (seen, end) = decode(DEFAULT_LIMIT, &[&encode_raw(&headers, b"p")]);
        assert_eq!((seen[0].1.as_str(), end), ("e", Ok(())));
        for bad in [&b"\x01h\x0a"[..], b"\x05h", b"\x01h\x04\x00", b"\x0b:event-type\x07\x00\x01\xff"] {
            assert_eq!(decode(DEFAULT_LIMIT, &[&encode_raw(bad, b"")]).1, Err(Fault::Header));
        }
    }

    #[test]
    fn p14_a_message_over_the_limit_is_refused_before_it_comes() {
        let message = event(&[b'x'; 1000]);
        assert_eq!(decode(100, &[&message[..PRELUDE]]).1, Err(Fault::TooLong(100)));
        assert_eq!(decode(message.len(), &[&message]).1, Ok(()));
    }

    #[test]
    fn lengths_that_contradict_each_other_are_refused() {
        for (total, headers) in [(0_u32, 0_u32), (15, 0), (16, 1), (20, u32::MAX)] {
            let mut bytes = [total.to_be_bytes(), headers.to_be_bytes()].concat();
            bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
            bytes.extend_from_slice(&[0; 8]);
            assert_eq!(decode(DEFAULT_LIMIT, &[&bytes]).1, Err(Fault::Length));
        }
    }

    #[test]
    fn a_cut_message_is_not_a_short_one() {
        let message = event(b"{}");
        for at in 1..message.len() {
            let (seen, end) = decode(DEFAULT_LIMIT, &[&message[..at]]);
            assert_eq!((seen.len(), end), (0, Err(Fault::Cut)), "cut at {at}");
        }
    }

    proptest! {
        #[test]
        fn p36_any_split_gives_the_same_messages(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5),
            noise in prop::collection::vec(any::<u8>(), 0..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut bytes: Vec<u8> = payloads.iter().flat_map(|p| event(p)).collect();
            bytes.extend(noise);
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let chunks: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(decode(DEFAULT_LIMIT, &chunks), decode(DEFAULT_LIMIT, &[&bytes]));
        }

        #[test]
        fn a_flipped_bit_is_refused(
            payload in prop::collection::vec(any::<u8>(), 0..60),
            at in any::<prop::sample::Index>(),
            bit in 0..8,
        ) {
            let mut message = event(&payload);
            let at = at.index(message.len());
            message[at] ^= 1_u8 << bit;
            let (seen, end) = decode(DEFAULT_LIMIT, &[&message]);
            prop_assert!(seen.is_empty());
            prop_assert_eq!(end, Err(Fault::Checksum));
        }

        #[test]
        fn random_bytes_and_random_headers_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            payload in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let _ = decode(DEFAULT_LIMIT, &[&bytes]);
            let _ = decode(DEFAULT_LIMIT, &[&encode_raw(&bytes, &payload)]);
        }
    }
}
