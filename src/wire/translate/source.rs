//! How an upstream frames the events of its answer.
//!
//! Enters: bytes as the socket gave them, split anywhere. Leaves: events with a name and data. May go wrong:
//! what cannot be read as frames, or ends inside of one, is a [`Failure`].

use crate::error::Failure;
use crate::event_stream::{self, Fault};
use crate::kiro;
use crate::sse::{self, Event};
use crate::target::Profile;

/// Splits a byte stream into events.
#[derive(Debug)]
pub(super) enum Source {
    /// Server-sent events.
    Sse(sse::Decoder),
    /// Messages of an AWS event stream.
    EventStream(event_stream::Decoder),
}

impl Default for Source {
    fn default() -> Self {
        Self::Sse(sse::Decoder::default())
    }
}

impl Source {
    /// What upstreams of `profile` send.
    pub(super) fn of(profile: Profile) -> Self {
        match profile {
            Profile::Kiro => Self::EventStream(event_stream::Decoder::default()),
            _ => Self::default(),
        }
    }

    /// Takes the next bytes and calls `on_event` for each event that they complete.
    pub(super) fn feed(&mut self, chunk: &[u8], mut on_event: impl FnMut(Event<'_>)) -> Result<(), Failure> {
        match self {
            Self::Sse(decoder) => {
                decoder.feed(chunk, on_event).map_err(|too_long| Failure::garbage(&too_long.to_string()))
            }
            Self::EventStream(decoder) => decoder
                .feed(chunk, |message| {
                    let (name, data) = kiro::event(&message);
                    // Nobody gets these bytes as they are: where they end does not matter.
                    on_event(Event { name: &name, data: &data, end: 0 });
                })
                .map_err(broken),
        }
    }

    /// The stream ended.
    pub(super) fn finish(&mut self, on_event: impl FnMut(Event<'_>)) -> Result<(), Failure> {
        match self {
            Self::Sse(decoder) => {
                decoder.finish(on_event);
                Ok(())
            }
            Self::EventStream(decoder) => decoder.finish().map_err(broken),
        }
    }
}

fn broken(fault: Fault) -> Failure {
    match fault {
        Fault::Cut => Failure::cut(),
        fault => Failure::garbage(&fault.to_string()),
    }
}
