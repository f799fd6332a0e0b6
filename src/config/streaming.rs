//! What clients see while an answer is under way.
//!
//! Enters: `streaming`, `nonstream-keepalive-interval`, `passthrough-headers`. Leaves: [`Streaming`]. May go
//! wrong: nothing but kinds.

use crate::lenient::floor_zero;
use serde::{Deserialize, Serialize};

/// Behaviour of answers under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Streaming {
    /// Event streams.
    #[serde(rename = "streaming")]
    pub events: EventStreams,
    /// Seconds between blank lines on answers that are not streams; 0 or less: none. The first one settles the
    /// status as 200, whatever comes after.
    #[serde(deserialize_with = "floor_zero")]
    pub nonstream_keepalive_interval: u32,
    /// Pass harmless response headers of the upstream on to the client.
    pub passthrough_headers: bool,
}

/// Server-sent events.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct EventStreams {
    /// Seconds of silence after which a comment keeps the connection alive; 0 or less: none.
    #[serde(deserialize_with = "floor_zero")]
    pub keepalive_seconds: u32,
    /// Further runs through all credentials while the client has not seen a byte.
    #[serde(deserialize_with = "floor_zero")]
    pub bootstrap_retries: u32,
    /// Milliseconds for which the answer's header waits for the first event that is worth sending, so that an
    /// upstream that fails at once gets a real status or another credential; 0: it does not wait.
    #[serde(deserialize_with = "floor_zero")]
    pub bootstrap_hold_ms: u32,
}

impl Default for EventStreams {
    fn default() -> Self {
        Self { keepalive_seconds: 15, bootstrap_retries: 0, bootstrap_hold_ms: 10 }
    }
}
