//! OpenAI Responses.

mod codex;
mod collect;
mod compact;
mod error;
mod event;
mod ids;
mod patch_request;
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

use crate::error::WireError;
use crate::frames::Framing;
use crate::head::Head;
use crate::ir::lower::Rules;
use crate::ir::{Answer, Context, Losses, ReadAnswer, Request, WriteStream};
use crate::names::NameRule;
use crate::target::{Profile, Target};
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

/// IR → upstream body.
pub fn write_request(
    request: &Request<'_>,
    target: &Target<'_>,
    _context: &mut Context,
    losses: &mut Losses,
) -> Result<Vec<u8>, WireError> {
    write_request::write_request(request, target, losses)
}

/// Client body → upstream body of the same format, changed on its bytes.
pub fn patch_request<'a>(
    body: &'a [u8],
    head: &Head,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Cow<'a, [u8]>, WireError> {
    Ok(patch_request::patch_request(body, head, target, losses))
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
