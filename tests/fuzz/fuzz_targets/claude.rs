//! A client's body in the format `claude`, to every upstream.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| wire_fuzz::request(wire::Protocol::Claude, body));
