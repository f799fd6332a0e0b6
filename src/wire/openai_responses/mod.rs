//! OpenAI Responses: the public API, and the Codex backend that speaks it with rules of its own.
//!
//! Enters: clients' bodies and WebSocket frames, upstreams' events and answers. Leaves: the other side of each.
//! May go wrong: what each file says; nothing here panics on any input.
//!
//! | way | files |
//! |---|---|
//! | client body → IR | `read_request`, `read_items`, `read_content`, `read_tools`; `read_members` for types |
//! | IR → upstream body | `write_request`, `write_items`, `write_content`, `write_tools` |
//! | client body → upstream body, same format | `patch_request`, `patch_items`, [`patch_compact`]; `codex` for both |
//! | upstream events or answer → IR | `read_answer`, `read_output`, `read_blocks`; `event` for types, `error` |
//! | IR → client events | `write_stream`, `write_blocks`, `write_events` |
//! | IR → client answer | `write_answer`; `write_output` for both, `ids` |
//! | upstream events → client answer, same format | [`Collect`] |
//! | upstream events → what only the Images API shows | [`pictures`] |
//! | WebSocket frames → bodies | [`websocket`], `transcript` |
//!
//! A conversation is a list of items and not of turns: what the model thinks, says and calls are items of their
//! own, tied to events by `output_index` and `item_id`. Nothing is stored for clients of other formats, so
//! reasoning travels with them, sealed in `encrypted_content`.

#[cfg(test)]
mod check_stream;
mod codex;
mod collect;
mod compact;
mod error;
mod event;
mod ids;
mod patch_items;
mod patch_request;
pub(crate) mod pictures;
mod read_answer;
mod read_blocks;
mod read_content;
mod read_items;
mod read_members;
mod read_output;
mod read_request;
mod read_tools;
mod transcript;
pub mod websocket;
mod write_answer;
mod write_blocks;
mod write_content;
mod write_events;
mod write_items;
mod write_output;
mod write_request;
mod write_stream;
mod write_tools;

pub use collect::Collect;
pub use compact::patch_compact;

pub(crate) use read_content::from_url;

use crate::error::WireError;
use crate::frames::Framing;
use crate::head::Head;
use crate::ir::lower::Rules;
use crate::ir::{Answer, Context, Losses, ReadAnswer, Request, WriteStream};
use crate::names::NameRule;
use crate::openai_chat;
use crate::patch::Member;
use crate::target::{Profile, Target};
use crate::thinking::Thinking;
use std::borrow::Cow;
use std::sync::Arc;

/// What [`crate::ir::lower`] has to make true for this format.
pub const RULES: Rules = Rules { names: NameRule::OPENAI, custom_tools: true, namespaces: true };

/// Name in `include`: the client wants log probabilities.
const LOGPROBS: &str = "message.output_text.logprobs";

/// Prefix of `encrypted_content` that holds Claude's `redacted_thinking` data and no signature.
const REDACTED: &str = "claude-redacted-thinking:";

/// Client body → IR.
pub fn read_request<'a>(body: &'a [u8], losses: &mut Losses) -> Result<Request<'a>, WireError> {
    read_request::read_request(body, losses)
}

/// What a body asks of thinking. `members` are those of the body.
pub fn asked_thinking<'t>(
    body: &'t [u8],
    members: impl Iterator<Item = Member<'t>>,
) -> Result<Thinking, WireError> {
    read_request::asked_thinking(body, members)
}

/// IR → upstream body.
pub fn write_request(
    request: &Request<'_>,
    target: &Target<'_>,
    _context: &mut Context,
    losses: &mut Losses,
) -> Result<Vec<u8>, WireError> {
    let body = write_request::write_request(request, target, losses)?;
    Ok(openai_chat::fit(Cow::Owned(body), target, losses).into_owned())
}

/// Client body → upstream body of the same format, changed on its bytes.
pub fn patch_request<'a>(
    body: &'a [u8],
    head: &Head,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Cow<'a, [u8]>, WireError> {
    let body = patch_request::patch_request(body, head, target, losses);
    Ok(openai_chat::fit(body, target, losses))
}

/// Reads an answer of this format. `seed` is 32 hex digits for ids that the upstream does not give.
pub fn reader(_profile: Profile, seed: &str) -> Box<dyn ReadAnswer> {
    Box::new(read_answer::Reader::new(seed))
}

/// Writes a stream of this format.
pub fn stream_writer(context: Arc<Context>, framing: Framing) -> Box<dyn WriteStream> {
    Box::new(write_stream::Writer::new(context, framing))
}

/// Writes a whole answer of this format.
pub fn write_answer(answer: &Answer, context: &Context) -> Vec<u8> {
    write_answer::write_answer(answer, context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;
    use crate::ir::Event;
    use crate::json::parse_any;
    use crate::target::Card;
    use proptest::prelude::*;

    const BODIES: [&str; 3] = [
        r#"{"model":"m","input":[{"role":"system","content":"s"},{"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"t"}],"encrypted_content":"x"},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":[{"type":"input_image","image_url":"data:image/png;base64,AA"}]}],"include":[]}"#,
        r#"{"model":"m","input":"a\\u00e9\"","tools":[{"type":"namespace","name":"n","tools":[{"type":"custom","name":"c"}]},{"type":"web_search_preview"}],"tool_choice":{"type":"allowed_tools","tools":[{"name":"c"}]}}"#,
        r#"{"type":"response.create","model":"m","previous_response_id":"r","generate":false,"input":[{"id":"x"}],"text":{"format":{"type":"json_schema","schema":{}}}}"#,
    ];

    const EVENTS: [&str; 5] = [
        r#"{"type":"response.created","response":{"id":"r","created_at":1.5}}"#,
        r#"{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"a\\ud83d","logprobs":[{}]}"#,
        r#"{"type":"response.output_item.done","output_index":1,"item":{"type":"function_call","name":"f","arguments":"{}"}}"#,
        r#"{"type":"response.reasoning_summary_text.done","output_index":2,"summary_index":1,"text":"t"}"#,
        r#"{"type":"response.completed","response":{"output":[{"type":"message","content":[{"type":"refusal","refusal":"n"}]}],"usage":{"input_tokens":1}}}"#,
    ];

    /// A text with some of its bytes replaced and its end cut off.
    fn broken(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let edits = prop::collection::vec((any::<prop::sample::Index>(), r#"[\[\]{}:,\\"0tn-]"#), 0..4);
        (prop::sample::select(texts), edits, any::<prop::sample::Index>(), any::<bool>()).prop_map(
            |(text, edits, end, cut)| {
                let mut bytes = text.as_bytes().to_vec();
                for (at, byte) in edits {
                    let at = at.index(bytes.len());
                    bytes[at] = byte.as_bytes()[0];
                }
                if cut {
                    bytes.truncate(end.index(bytes.len()));
                }
                bytes
            },
        )
    }

    proptest! {
        #[test]
        fn p40_no_body_or_frame_panics(bytes in broken(&BODIES), codex in any::<bool>()) {
            let profile = if codex { Profile::Codex } else { Profile::Responses };
            let (card, mut losses) = (Card::default(), Losses::default());
            let target = Target { profile, model: "x", card: &card, stream: true, thinking: None, project: "" };
            if let Ok(mut request) = read_request(&bytes, &mut losses) {
                let mut context = Context::default();
                crate::ir::lower::lower(&mut request, &RULES, &mut context, &mut losses);
                if let Ok(written) = write_request(&request, &target, &mut context, &mut losses) {
                    prop_assert!(parse_any(&written).is_ok());
                }
            }
            if let Ok(head) = crate::head::parse(&bytes, Protocol::OpenaiResponses) {
                let patched = patch_request(&bytes, &head, &target, &mut losses).unwrap();
                prop_assert!(parse_any(&patched).is_ok(), "{}", String::from_utf8_lossy(&patched));
            }
            let mut session = websocket::Session::new();
            if let Ok(websocket::Step::Request(body)) = session.frame(&bytes, "", 0) {
                prop_assert!(parse_any(&body).is_ok());
            }
        }

        #[test]
        fn p40_no_stream_panics_and_every_one_ends_once(events in prop::collection::vec(broken(&EVENTS), 0..8)) {
            let mut reader = reader(Profile::Codex, "seed");
            let mut writer = stream_writer(Arc::default(), Framing::Lines);
            let mut ends = 0;
            let mut sink = |event: Event<'_>| {
                ends += u32::from(matches!(event, Event::End | Event::Failure(_)));
                writer.event(event);
            };
            let mut collect = Collect::default();
            for event in &events {
                reader.event("", event, &mut sink);
                collect.event(event);
            }
            reader.eof(&mut sink);
            prop_assert_eq!(ends, 1);
            for line in writer.frames().take().split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                prop_assert!(parse_any(line).is_ok());
            }
        }
    }
}
