//! The decoder of AWS event streams: however the bytes are cut, the messages and the verdict are the same.
//! The first byte says where to cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::event_stream::{Decoder, Fault};

/// Largest message; small, so that the limit is met too.
const LIMIT: usize = 1 << 16;

fn decode(bytes: &[u8], piece: usize) -> (Vec<String>, Result<(), Fault>) {
    let mut decoder = Decoder::new(LIMIT);
    let mut messages = Vec::new();
    for chunk in bytes.chunks(piece) {
        if let Err(fault) = decoder.feed(chunk, |message| messages.push(format!("{message:?}"))) {
            return (messages, Err(fault));
        }
    }
    let end = decoder.finish();
    (messages, end)
}

fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else { return };
    same_however_cut(bytes, usize::from(*first) + 1);
    // Behind checksums that fit, so that what lies behind them is reached: headers as they come, a payload.
    let headers = bytes.len().min(usize::from(*first));
    let (headers, payload) = bytes.split_at(headers);
    let mut framed = frame(headers, payload);
    same_however_cut(&framed, usize::from(*first) + 1);
    framed.extend_from_slice(bytes);
    same_however_cut(&framed, 3);
});

fn same_however_cut(bytes: &[u8], piece: usize) {
    let whole = decode(bytes, bytes.len().max(1));
    assert_eq!(decode(bytes, piece), whole);
    assert_eq!(decode(bytes, 1), whole);
}

/// A message whose lengths and checksums are right.
fn frame(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = ((headers.len() + payload.len() + 16) as u32).to_be_bytes().to_vec();
    out.extend((headers.len() as u32).to_be_bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(headers);
    out.extend(payload);
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}
