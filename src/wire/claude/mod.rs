//! Anthropic Messages (`/v1/messages`).
//!
//! Enters: a client's body or an upstream's answer in this format. Leaves: the IR, and from the IR bodies and
//! events of this format. May go wrong: a client's body with a wrong type is refused with the path of the
//! member; an upstream's answer that cannot be read becomes a failure.
//!
//! Source of names, shapes and required members: the types of the official Python SDK (2.11). What they do
//! not say (which blocks may be empty, what excludes what) are the API's documented 400s.
//!
//! | file | what |
//! |---|---|
//! | `fields.rs` | members of an object, taken out one by one with their types checked |
//! | `read_request.rs`, `read_blocks.rs`, `read_tools.rs` | client body → IR |
//! | `write_request.rs`, `write_blocks.rs`, `write_tools.rs`, `settings.rs` | IR → upstream body |
//! | `cache_control.rs` | at most four marks, and which |
//! | `patch_request.rs`, `patch_messages.rs` | same format: changes on the bytes |
//! | `events.rs`, `read_answer.rs`, `read_item.rs` | upstream events or body → IR events |
//! | `write_stream.rs`, `stream_block.rs`, `stream_events.rs` | IR events → client events |
//! | `write_answer.rs`, `answer_parts.rs` | IR events, folded → client body |
//! | `count_tokens.rs` | `/v1/messages/count_tokens` |

mod answer_parts;
mod cache_control;
pub mod count_tokens;
mod events;
mod fields;
mod patch_messages;
mod patch_request;
mod read_answer;
mod read_blocks;
mod read_item;
mod read_request;
mod read_tools;
#[cfg(test)]
mod round_trip;
mod settings;
mod stream_block;
mod stream_events;
mod write_answer;
mod write_blocks;
mod write_request;
mod write_stream;
mod write_tools;

use crate::error::WireError;
use crate::frames::Framing;
use crate::head::Head;
use crate::ir::lower::Rules;
use crate::ir::{Answer, Context, Finish, Losses, ReadAnswer, Request, WriteStream};
use crate::names::NameRule;
use crate::patch::Member;
use crate::target::{Profile, Target};
use crate::thinking::Thinking;
use std::borrow::Cow;
use std::sync::Arc;

/// What [`crate::ir::lower`] has to make true for this format.
pub const RULES: Rules = Rules { names: NameRule::CLAUDE, custom_tools: false, namespaces: false };

/// `stop_reason` and what it means, in both directions; of two words for one meaning the first is written.
const STOP_REASONS: [(&str, Finish); 10] = [
    ("end_turn", Finish::End),
    ("max_tokens", Finish::Length),
    ("stop_sequence", Finish::StopSequence),
    ("tool_use", Finish::Tool),
    ("pause_turn", Finish::Pause),
    ("refusal", Finish::Refusal),
    ("model_context_window_exceeded", Finish::Context),
    // Beta: the context was compacted and the client is expected to go on, as after a pause.
    ("compaction", Finish::Pause),
    // Only written: the API has no word for either.
    ("refusal", Finish::Filter),
    ("end_turn", Finish::BadCall),
];

/// The meaning of `stop_reason`; a word nobody knows is a plain end.
fn finish_of(word: &str) -> Finish {
    STOP_REASONS.iter().find(|(w, _)| *w == word).map_or(Finish::End, |(_, finish)| *finish)
}

/// The word for `stop_reason`.
fn stop_reason(finish: Finish) -> &'static str {
    STOP_REASONS.iter().find(|(_, f)| *f == finish).map_or("end_turn", |(word, _)| word)
}

/// Client body → IR.
pub fn read_request<'a>(body: &'a [u8], losses: &mut Losses) -> Result<Request<'a>, WireError> {
    read_request::read(body, losses)
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
    Ok(write_request::write(request, target, losses))
}

/// Client body → upstream body of the same format, changed on its bytes.
pub fn patch_request<'a>(
    body: &'a [u8],
    head: &Head,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Cow<'a, [u8]>, WireError> {
    Ok(patch_request::patch(body, head, target, &[], losses))
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
    write_answer::write(answer, context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_a_legal_word_and_every_word_comes_back() {
        const LEGAL: [&str; 7] = [
            "end_turn",
            "max_tokens",
            "stop_sequence",
            "tool_use",
            "pause_turn",
            "refusal",
            "model_context_window_exceeded",
        ];
        for word in LEGAL {
            assert_eq!(stop_reason(finish_of(word)), word);
        }
        for finish in [Finish::Filter, Finish::BadCall] {
            assert!(LEGAL.contains(&stop_reason(finish)));
        }
        assert_eq!(finish_of("something_new"), Finish::End);
    }
}
