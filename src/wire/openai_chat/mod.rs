//! OpenAI Chat Completions (`/v1/chat/completions`), as clients write it and as OpenAI-compatible servers
//! take and answer it.
//!
//! Enters: client bodies; answers of servers that stretch the format in many ways. Leaves: bodies that even
//! old servers take, and answers that the official SDKs parse. May go wrong: see each file.
//!
//! | file | |
//! |---|---|
//! | `read_request.rs` | body → IR; `read_settings`, `read_thinking`, `read_tools`, `read_messages`, `read_parts`, `read_reasoning` below it |
//! | `write_request.rs` | IR → body; `write_tools`, `write_messages`, `write_parts` below it |
//! | `patch_request.rs` | body → body, on its bytes |
//! | `read_answer.rs` | chunks or a whole body → events; `chunk` has their types, `read_choice` one choice's state, `read_calls` its calls, `read_usage` its counts |
//! | `write_stream.rs` | events → chunks; `write_chunk` frames one |
//! | `write_answer.rs` | a folded answer → one body |
//! | `flavour.rs`, `flavour_messages.rs` | what Kimi, Qwen, iFlow and Copilot insist on, on the bytes of a body |
//! | `answer_members.rs` | what chunks and bodies share: ids, usage, finish reasons, citations |

mod answer_members;
mod chunk;
mod flavour;
mod flavour_messages;
mod patch_request;
mod read_answer;
mod read_calls;
mod read_choice;
mod read_messages;
mod read_parts;
mod read_reasoning;
mod read_request;
mod read_settings;
mod read_thinking;
mod read_tools;
mod read_usage;
mod write_answer;
mod write_chunk;
mod write_messages;
mod write_parts;
mod write_request;
mod write_stream;
mod write_tools;

pub use flavour::{CopilotHints, copilot_hints, unwrap_answer};

pub(crate) use answer_members::{Ids, usage};
pub(crate) use flavour::fit;
pub(crate) use read_request::{RAW_KEYS, top_level};
pub(crate) use read_settings::Settings;

use crate::error::WireError;
use crate::frames::Framing;
use crate::head::Head;
use crate::ir::lower::Rules;
use crate::ir::{Answer, Context, Losses, ReadAnswer, Request, WriteStream};
use crate::names::NameRule;
use crate::patch::Member;
use crate::target::{Profile, Target};
use crate::thinking::Thinking;
use std::borrow::Cow;
use std::sync::Arc;

/// What [`crate::ir::lower`] has to make true for this format. OpenAI itself has custom tools, most
/// compatible servers do not.
pub const RULES: Rules = Rules { names: NameRule::OPENAI, custom_tools: false, namespaces: false };

/// Client body → IR.
pub fn read_request<'a>(body: &'a [u8], losses: &mut Losses) -> Result<Request<'a>, WireError> {
    read_request::read(body, losses)
}

/// What a body asks of thinking. `members` are those of the body.
pub fn asked_thinking<'t>(
    body: &'t [u8],
    members: impl Iterator<Item = Member<'t>>,
) -> Result<Thinking, WireError> {
    read_thinking::asked(body, members)
}

/// IR → upstream body.
pub fn write_request(
    request: &Request<'_>,
    target: &Target<'_>,
    _context: &mut Context,
    losses: &mut Losses,
) -> Result<Vec<u8>, WireError> {
    let body = write_request::write(request, target, losses)?;
    Ok(fit(Cow::Owned(body), target, losses).into_owned())
}

/// Client body → upstream body of the same format, changed on its bytes.
pub fn patch_request<'a>(
    body: &'a [u8],
    head: &Head,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Cow<'a, [u8]>, WireError> {
    Ok(fit(patch_request::patch(body, head, target, losses)?, target, losses))
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
