//! What the fuzz targets share: requests of every format to every upstream, and answers back.
//!
//! `tests/fuzz/run [seconds]` makes the seeds of `tests/vectors` and runs every target. A target by hand:
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz pair`.

use wire::Protocol;
use wire::replay::{Replay, Sent};
use wire::target::{Card, Profile};

/// A flavour of each format.
pub const PROFILES: [Profile; 6] = [
    Profile::Chat,
    Profile::Responses,
    Profile::Codex,
    Profile::Claude,
    Profile::Gemini,
    Profile::Antigravity,
];

/// An exchange of `client` with `profile`.
pub fn replay(client: Protocol, profile: Profile, stream: bool) -> Replay<'static> {
    Replay { stream, project: "project", ..Replay::new(client, profile, "model", &Card::UNKNOWN) }
}

/// Sends a client's body to every upstream: it is refused, or JSON goes out.
pub fn request(client: Protocol, body: &[u8]) {
    for profile in PROFILES {
        for stream in [false, true] {
            if let Ok(sent) = replay(client, profile, stream).request(body) {
                must_be_json(&sent.body, body);
            }
        }
    }
}

/// The shortest request of a client, on its way.
pub fn hello(client: Protocol, profile: Profile, stream: bool) -> Sent {
    let body: &[u8] = match client {
        Protocol::OpenaiChat => br#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#,
        Protocol::OpenaiResponses => br#"{"model":"m","input":"hi"}"#,
        Protocol::Claude => br#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#,
        Protocol::Gemini => br#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#,
    };
    replay(client, profile, stream).request(body).expect("a good request")
}

/// Fails unless `out` is one JSON value.
pub fn must_be_json(out: &[u8], cause: &[u8]) {
    let read: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(out);
    if let Err(error) = read {
        let (out, cause) = (String::from_utf8_lossy(out), String::from_utf8_lossy(cause));
        panic!("no JSON: {error}\nout:   {out}\ncause: {cause}");
    }
}
