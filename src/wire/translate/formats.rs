//! Format → its readers and writers: one `match` for each.

use super::Job;
use crate::error::WireError;
use crate::frames::Framing;
use crate::ir::{Answer, Context, Losses, ReadAnswer, Request, WriteStream, lower};
use crate::json::Path;
use crate::openai_images::Asked;
use crate::patch::Member;
use crate::target::{Operation, Profile, Target};
use crate::thinking::Thinking;
use crate::{
    Protocol, claude, gemini, kiro, openai_chat, openai_images, openai_legacy, openai_responses, passed,
};
use std::borrow::Cow;
use std::sync::Arc;

pub(super) fn rules(profile: Profile) -> &'static lower::Rules {
    match profile.protocol() {
        _ if profile == Profile::Kiro => &kiro::RULES,
        Protocol::OpenaiChat => &openai_chat::RULES,
        Protocol::OpenaiResponses => &openai_responses::RULES,
        Protocol::Claude => &claude::RULES,
        Protocol::Gemini => &gemini::RULES,
    }
}

/// Client body → IR.
pub fn read_request<'a>(
    protocol: Protocol,
    body: &'a [u8],
    losses: &mut Losses,
) -> Result<Request<'a>, WireError> {
    match protocol {
        Protocol::OpenaiChat => openai_chat::read_request(body, losses),
        Protocol::OpenaiResponses => openai_responses::read_request(body, losses),
        Protocol::Claude => claude::read_request(body, losses),
        Protocol::Gemini => gemini::read_request(body, losses),
    }
}

/// What a body asks of thinking, without reading the rest of it. `members` are those of the body.
pub(super) fn asked_thinking<'t>(
    protocol: Protocol,
    body: &'t [u8],
    members: impl Iterator<Item = Member<'t>>,
) -> Result<Thinking, WireError> {
    match protocol {
        Protocol::OpenaiChat => openai_chat::asked_thinking(body, members),
        Protocol::OpenaiResponses => openai_responses::asked_thinking(body, members),
        Protocol::Claude => claude::asked_thinking(body, members),
        Protocol::Gemini => gemini::asked_thinking(body),
    }
}

/// The client body of any operation → IR.
pub(super) fn read_operation<'j>(job: &Job<'j>, losses: &mut Losses) -> Result<Request<'j>, WireError> {
    if let Some(why) = job.operation.refusal(job.profile) {
        return Err(WireError::unsupported(&Path::Root.key("model"), why));
    }
    match job.operation {
        Operation::Completion => openai_legacy::read_request(job.body, losses),
        operation if operation.draws() => {
            let asked = Asked {
                body: job.body,
                head: job.head,
                edit: operation == Operation::ImageEdit,
                stream: job.stream,
                upstream: job.profile.protocol(),
                model: job.model,
            };
            openai_images::read_request(&asked, losses)
        }
        _ => read_request(job.client, job.body, losses),
    }
}

/// IR → upstream body.
pub(super) fn write_request(
    operation: Operation,
    request: &Request<'_>,
    target: &Target<'_>,
    context: &mut Context,
    losses: &mut Losses,
) -> Result<Vec<u8>, WireError> {
    match (target.profile.protocol(), operation) {
        _ if target.profile == Profile::Kiro => kiro::write_request(request, target, context, losses),
        (Protocol::Claude, Operation::CountTokens) => {
            claude::count_tokens::write_count_request(request, target, context, losses)
        }
        (Protocol::Gemini, Operation::CountTokens) => {
            gemini::count_tokens::write_count_request(request, target, context, losses)
        }
        (Protocol::OpenaiChat, _) => openai_chat::write_request(request, target, context, losses),
        (Protocol::OpenaiResponses, _) => openai_responses::write_request(request, target, context, losses),
        (Protocol::Claude, _) => claude::write_request(request, target, context, losses),
        (Protocol::Gemini, _) => gemini::write_request(request, target, context, losses),
    }
}

/// Client body → upstream body of the same format.
pub(super) fn patch_request<'j>(
    job: &Job<'j>,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Cow<'j, [u8]>, WireError> {
    let Job { body, head, .. } = *job;
    if job.operation.is_media() {
        if job.operation.draws() {
            openai_images::check_prompt(body, head)?;
        }
        return passed::patch(job.client, body, head, job.model);
    }
    match (job.client, job.operation) {
        (Protocol::Claude, Operation::CountTokens) => {
            claude::count_tokens::patch_count_request(body, head, target, losses)
        }
        (Protocol::Gemini, Operation::CountTokens) => {
            gemini::count_tokens::patch_count_request(body, head, target, losses)
        }
        (Protocol::OpenaiResponses, Operation::Compact) => {
            openai_responses::patch_compact(body, head, target, losses)
        }
        (Protocol::OpenaiChat, _) => openai_chat::patch_request(body, head, target, losses),
        (Protocol::OpenaiResponses, _) => openai_responses::patch_request(body, head, target, losses),
        (Protocol::Claude, _) => claude::patch_request(body, head, target, losses),
        (Protocol::Gemini, _) => gemini::patch_request(body, head, target, losses),
    }
}

pub(super) fn reader(profile: Profile, context: &Context) -> Box<dyn ReadAnswer> {
    let seed = context.seed.as_str();
    match profile.protocol() {
        _ if profile == Profile::Kiro => kiro::reader(context),
        Protocol::OpenaiChat => openai_chat::reader(profile, seed),
        Protocol::OpenaiResponses => openai_responses::reader(profile, seed),
        Protocol::Claude => claude::reader(profile, seed),
        Protocol::Gemini => gemini::reader(profile, seed),
    }
}

/// Writes a stream in the shape that a client of `protocol` gets for `operation`.
pub fn stream_writer(
    protocol: Protocol,
    operation: Operation,
    context: Arc<Context>,
    framing: Framing,
) -> Box<dyn WriteStream> {
    match (protocol, operation) {
        (_, Operation::Completion) => openai_legacy::stream_writer(context, framing),
        (Protocol::OpenaiChat, _) => openai_chat::stream_writer(context, framing),
        (Protocol::OpenaiResponses, _) => openai_responses::stream_writer(context, framing),
        (Protocol::Claude, _) => claude::stream_writer(context, framing),
        (Protocol::Gemini, _) => gemini::stream_writer(context, framing),
    }
}

/// Writes a whole answer in the shape that a client of `protocol` gets for `operation`.
pub fn write_answer(protocol: Protocol, operation: Operation, answer: &Answer, context: &Context) -> Vec<u8> {
    let mut body = match (protocol, operation) {
        (_, Operation::Completion) => openai_legacy::write_answer(answer, context),
        (Protocol::OpenaiChat, _) => openai_chat::write_answer(answer, context),
        (Protocol::OpenaiResponses, _) => openai_responses::write_answer(answer, context),
        (Protocol::Claude, _) => claude::write_answer(answer, context),
        (Protocol::Gemini, _) => gemini::write_answer(answer, context),
    };
    // In a terminal the next line is not part of it.
    body.push(b'\n');
    body
}

/// Reads the answer to a count.
pub(super) fn read_count(profile: Profile, body: &[u8]) -> Option<u64> {
    match profile.protocol() {
        Protocol::Gemini => gemini::count_tokens::read_count(body),
        _ => claude::count_tokens::read_count(body),
    }
}

/// Writes the answer to a count.
pub fn write_count(protocol: Protocol, tokens: u64) -> Vec<u8> {
    match protocol {
        Protocol::Gemini => gemini::count_tokens::write_count(tokens),
        _ => claude::count_tokens::write_count(tokens),
    }
}
