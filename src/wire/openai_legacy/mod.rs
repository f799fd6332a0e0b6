//! Legacy completions (`/v1/completions`), spoken by clients only: any upstream serves them, the prompt being
//! one user message.
//!
//! Enters: bodies with a `prompt`; events. Leaves: requests; `text_completion` objects. What needs the model's
//! raw text (suffix, echo, token ids, several prompts) is refused. May go wrong: see each file.

mod logprobs;
mod read_request;
mod write_answer;
mod write_stream;

use crate::error::WireError;
use crate::frames::Framing;
use crate::ir::{Answer, Context, Finish, Losses, Request, WriteStream};
use std::sync::Arc;

/// Client body → IR.
pub fn read_request<'a>(body: &'a [u8], losses: &mut Losses) -> Result<Request<'a>, WireError> {
    read_request::read(body, losses)
}

/// Writes a stream of this format.
pub fn stream_writer(context: Arc<Context>, framing: Framing) -> Box<dyn WriteStream> {
    Box::new(write_stream::Writer::new(context, framing))
}

/// Writes a whole answer of this format.
pub fn write_answer(answer: &Answer, context: &Context) -> Vec<u8> {
    write_answer::write(answer, context)
}

/// What ids of this format begin with.
const PREFIX: &str = "cmpl-";

/// The upstream's id without the prefix of Chat before this format's own.
fn bare_id(id: &str) -> &str {
    id.strip_prefix("chat").filter(|rest| rest.starts_with(PREFIX)).unwrap_or(id)
}

/// `finish_reason`: only `stop`, `length` and `content_filter` exist.
fn finish(reason: Finish, refused: bool) -> &'static str {
    match reason {
        Finish::Length | Finish::Context => "length",
        Finish::Filter => "content_filter",
        Finish::Refusal if !refused => "content_filter",
        _ => "stop",
    }
}
