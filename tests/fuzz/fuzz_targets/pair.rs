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
    assert_eq!(String::from_utf8_lossy(&pieces), String::from_utf8_lossy(&events));
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
