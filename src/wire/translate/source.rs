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

#[cfg(test)]
mod tests {
    use crate::Protocol;
    use crate::error::Failure;
    use crate::event_stream::encode;
    use crate::replay::{Replay, Sent, streamed, whole};
    use crate::target::{Card, Profile};
    use crate::translate::{Flow, Reply};
    use proptest::prelude::*;

    fn sent(stream: bool) -> Sent {
        let replay = Replay {
            stream,
            ..Replay::new(Protocol::Claude, Profile::Kiro, "kiro-claude-sonnet-4-5", &Card::UNKNOWN)
        };
        let request = r#"{"model":"x","max_tokens":9,"messages":[{"role":"user","content":"hi"}],
            "tools":[{"name":"web_search","input_schema":{"type":"object"}}]}"#;
        replay.request(request.as_bytes()).unwrap()
    }

    fn event(name: &str, payload: &str) -> Vec<u8> {
        encode(&[(":message-type", "event"), (":event-type", name)], payload.as_bytes())
    }

    fn answer() -> Vec<u8> {
        [
            event("assistantResponseEvent", r#"{"content":"Hé"}"#),
            event("assistantResponseEvent", r#"{"content":"llo"}"#),
            event(
                "toolUseEvent",
                r#"{"toolUseId":"t","name":"remote_web_search","input":"{\"q\":1}","stop":true}"#,
            ),
            event("metadataEvent", r#"{"tokenUsage":{"uncachedInputTokens":3,"outputTokens":2}}"#),
        ]
        .concat()
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_whole_answer_is_the_folded_stream() {
        let body = text(whole(&sent(false).plan, &answer()));
        for expected in [
            r#""model":"claude-sonnet-4.5""#,
            r#"{"type":"text","text":"Héllo""#,
            r#"{"type":"tool_use","id":"t","name":"web_search","input":{"q":1}"#,
            r#""stop_reason":"tool_use""#,
            r#""input_tokens":3"#,
        ] {
            assert!(body.contains(expected), "{expected} is missing in {body}");
        }
    }

    #[test]
    fn an_exception_before_the_answer_is_a_failure_of_its_kind() {
        let headers = [(":message-type", "exception"), (":exception-type", "throttlingException")];
        let mut reply = Reply::new(&sent(true).plan);
        let flow = reply.feed(&encode(&headers, br#"{"message":"slow"}"#));
        assert_eq!(flow, Flow::Failed(Failure::new(429, "slow")));
    }

    #[test]
    fn a_damaged_or_cut_stream_never_looks_complete() {
        let plan = sent(true).plan;
        let stream = answer();
        assert!(text(streamed(&plan, &stream, &[])).contains("message_stop"));
        for at in 0..stream.len() {
            let mut damaged = stream.clone();
            damaged[at] ^= 4;
            let out = text(streamed(&plan, &damaged, &[]));
            assert!(out.contains("event: error") && !out.contains("message_stop"), "damaged at {at}: {out}");
        }
        for at in 0..event("assistantResponseEvent", r#"{"content":"Hé"}"#).len() {
            let out = text(streamed(&plan, &stream[..at], &[]));
            assert!(out.contains("event: error") && !out.contains("message_stop"), "cut at {at}: {out}");
        }
    }

    proptest! {
        #[test]
        fn p36_any_split_gives_the_same_bytes(
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let (plan, stream) = (sent(true).plan, answer());
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(stream.len() + 1)).collect();
            at.sort_unstable();
            prop_assert_eq!(streamed(&plan, &stream, &at), streamed(&plan, &stream, &[]));
        }
    }
}
