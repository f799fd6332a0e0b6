//! An upstream's answer to a client: the first byte chooses the pair, the second where the stream is cut.
//!
//! Nothing panics, a split changes nothing, and whatever goes out is JSON.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::Protocol;
use wire::replay;
use wire_fuzz::{PROFILES, hello, must_be_json};

fuzz_target!(|data: &[u8]| {
    let [pair, cut, bytes @ ..] = data else { return };
    let client = Protocol::ALL[usize::from(*pair) % 4];
    let profile = PROFILES[usize::from(*pair) / 4 % PROFILES.len()];
    let streaming = hello(client, profile, true).plan;
    let events = replay::streamed(&streaming, bytes, &[]);
    let cuts: Vec<usize> = (1..bytes.len()).step_by(usize::from(*cut) + 1).collect();
    let pieces = replay::streamed(&streaming, bytes, &cuts);
    // Where the blank line of the last event is cut between CR and LF, the LF says nothing any more.
    assert_eq!(
        String::from_utf8_lossy(pieces.trim_ascii_end()),
        String::from_utf8_lossy(events.trim_ascii_end())
    );
    if !streaming.same_format {
        for line in events.split(|byte| *byte == b'\n') {
            if let Some(data) = line.strip_prefix(b"data: ").filter(|data| *data != b"[DONE]") {
                must_be_json(data, bytes);
            }
        }
    }
    let whole = hello(client, profile, false).plan;
    must_be_json(&replay::whole(&whole, bytes), bytes);
});
