//! The head of a body: what it finds is what a full parse finds. The first byte chooses the format.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::Protocol;
use wire::head;

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else { return };
    let protocol = Protocol::ALL[usize::from(*first) % 4];
    let Ok(head) = head::parse(body, protocol) else { return };
    wire_fuzz::must_be_json(body, body);
    if let Some(span) = head.model_span.clone() {
        let written: String = serde_json::from_slice(&body[span]).expect("the span is a string");
        assert_eq!(written.trim(), head.model);
    }
    for place in &head.members {
        wire_fuzz::must_be_json(&body[place.value.clone()], body);
    }
    let count = serde_json::from_slice::<std::collections::HashMap<String, serde::de::IgnoredAny>>(body);
    assert!(count.is_ok_and(|members| members.len() <= head.members.len()));
});
