//! The SSE decoder: however the bytes are cut, the events are the same. The first byte says where to cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::sse::{Decoder, Event};

fn decode(bytes: &[u8], piece: usize) -> Vec<(String, Vec<u8>)> {
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    let mut take = |event: Event<'_>| events.push((event.name.to_owned(), event.data.to_vec()));
    for chunk in bytes.chunks(piece) {
        decoder.feed(chunk, &mut take).expect("shorter than the limit");
    }
    decoder.finish(&mut take);
    events
}

fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else { return };
    let whole = decode(bytes, bytes.len().max(1));
    assert_eq!(decode(bytes, usize::from(*first) + 1), whole);
    assert_eq!(decode(bytes, 1), whole);
    // What is written reads back.
    for (name, data) in &whole {
        let mut out = Vec::new();
        wire::sse::write(&mut out, name, data);
        let normal = String::from_utf8_lossy(data).replace("\r\n", "\n").replace('\r', "\n");
        let read = decode(&out, out.len());
        assert_eq!(read.len(), 1, "{data:?}");
        assert_eq!(String::from_utf8_lossy(&read[0].1), normal);
    }
});
