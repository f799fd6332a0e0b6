//! The only registry of formats: one request from any client format to any upstream, and its answer back.
//!
//! Enters: a client's body and what routing decided ([`Job`]); later the upstream's bytes. Leaves:
//! [`Prepared`] with the upstream's body, and through [`Reply`] the client's bytes. May go wrong: the
//! client's mistakes ([`WireError`], a 400); the upstream's, as [`Flow::Failed`].
//!
//! Adding a format: a folder with the files of the table in the crate's documentation, then one arm in each
//! `match` below.

use crate::error::WireError;
use crate::frames::Framing;
use crate::head::Head;
use crate::ir::{Answer, Context, Losses, ReadAnswer, Request, WriteStream, lower};
use crate::target::{Card, Profile, Target};
use crate::thinking::{self, Mode};
use crate::{Protocol, claude, gemini, openai_chat, openai_responses};
use std::borrow::Cow;
use std::sync::Arc;

mod relay;
mod reply;

pub use reply::{Flow, Reply};

/// A request and what routing decided about it.
#[derive(Clone, Copy, Debug)]
pub struct Job<'j> {
    /// Format of the client.
    pub client: Protocol,
    /// The client's body.
    pub body: &'j [u8],
    /// Its head.
    pub head: &'j Head,
    /// Whether the client wants events.
    pub stream: bool,
    /// How the client's events are framed.
    pub framing: Framing,
    /// Flavour of the upstream.
    pub profile: Profile,
    /// The upstream's name of the model, without suffix.
    pub model: &'j str,
    /// Facts about it.
    pub card: &'j Card,
    /// Thinking asked for by a model-name suffix; wins over the body.
    pub suffix: Option<Mode>,
    /// The model name that the answer shall carry; `None`: the upstream's.
    pub shown_model: Option<&'j str>,
    /// Seconds since 1970.
    pub created: u64,
    /// 32 hex digits, unique to the request.
    pub seed: &'j str,
    /// Google project of the envelopes.
    pub project: &'j str,
}

/// A request as the upstream takes it.
#[derive(Debug)]
pub struct Prepared<'j> {
    /// The upstream's body; borrowed when nothing had to change.
    pub body: Cow<'j, [u8]>,
    /// How its answer is translated.
    pub plan: Plan,
    /// What did not get through.
    pub losses: Losses,
    /// How much the model is asked to think.
    pub thinking: Option<Mode>,
}

/// How an answer is translated: all that is left of a request when its body is gone.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Format of the client.
    pub client: Protocol,
    /// Flavour of the upstream.
    pub profile: Profile,
    /// Whether the client wants events.
    pub stream: bool,
    /// Whether the upstream will answer in events.
    pub upstream_stream: bool,
    /// Whether bytes stay bytes.
    pub same_format: bool,
    /// How the client's events are framed.
    pub framing: Framing,
    /// What the answer needs to know of the request.
    pub context: Arc<Context>,
}

impl Job<'_> {
    /// Whether both sides speak the same format, so that bytes stay bytes.
    pub fn same_format(&self) -> bool {
        self.client == self.profile.protocol() && self.profile != Profile::Kiro
    }
}

/// Makes the upstream's body.
pub fn prepare<'j>(job: &Job<'j>) -> Result<Prepared<'j>, WireError> {
    let mut losses = Losses::default();
    let mut context = Context {
        model: job.shown_model.unwrap_or_default().to_owned(),
        created: job.created,
        seed: job.seed.to_owned(),
        include_usage: job.head.include_usage,
        json_array: job.framing == Framing::JsonArray,
        envelope: job.client == Protocol::Gemini
            && gemini::envelope::unwrap_client_envelope(job.body).is_some(),
        ..Context::default()
    };
    let stream = job.stream || job.profile.streams_only();
    let mut target = Target {
        profile: job.profile,
        model: job.model,
        card: job.card,
        stream,
        thinking: None,
        project: job.project,
    };
    let body = if job.same_format() {
        target.thinking = thinking::plan(job.suffix, &job.card.thinking, job.client, &mut losses);
        patch_request(job, &target, &mut losses)?
    } else {
        let mut request = read_request(job.client, job.body, &mut losses)?;
        request.stream = job.stream;
        if let Some(mode) = job.suffix {
            request.thinking.mode = Some(mode);
        }
        target.thinking =
            thinking::plan(request.thinking.mode, &job.card.thinking, job.profile.protocol(), &mut losses);
        lower::lower(&mut request, rules(job.profile.protocol()), &mut context, &mut losses);
        context.hide_reasoning = request.thinking.visible == Some(false);
        context.legacy_functions = request.legacy_functions;
        context.echo = request.echo.iter().map(|(k, v)| (*k, v.as_str().to_owned())).collect();
        Cow::Owned(write_request(&request, &target, &mut context, &mut losses)?)
    };
    let plan = Plan {
        client: job.client,
        profile: job.profile,
        stream: job.stream,
        upstream_stream: stream,
        same_format: job.same_format(),
        framing: job.framing,
        context: Arc::new(context),
    };
    Ok(Prepared { body, plan, losses, thinking: target.thinking })
}

fn rules(protocol: Protocol) -> &'static lower::Rules {
    match protocol {
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

fn write_request(
    request: &Request<'_>,
    target: &Target<'_>,
    context: &mut Context,
    losses: &mut Losses,
) -> Result<Vec<u8>, WireError> {
    match target.profile.protocol() {
        Protocol::OpenaiChat => openai_chat::write_request(request, target, context, losses),
        Protocol::OpenaiResponses => openai_responses::write_request(request, target, context, losses),
        Protocol::Claude => claude::write_request(request, target, context, losses),
        Protocol::Gemini => gemini::write_request(request, target, context, losses),
    }
}

fn patch_request<'j>(
    job: &Job<'j>,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Cow<'j, [u8]>, WireError> {
    match job.client {
        Protocol::OpenaiChat => openai_chat::patch_request(job.body, job.head, target, losses),
        Protocol::OpenaiResponses => openai_responses::patch_request(job.body, job.head, target, losses),
        Protocol::Claude => claude::patch_request(job.body, job.head, target, losses),
        Protocol::Gemini => gemini::patch_request(job.body, job.head, target, losses),
    }
}

fn reader(profile: Profile, seed: &str) -> Box<dyn ReadAnswer> {
    match profile.protocol() {
        Protocol::OpenaiChat => openai_chat::reader(profile, seed),
        Protocol::OpenaiResponses => openai_responses::reader(profile, seed),
        Protocol::Claude => claude::reader(profile, seed),
        Protocol::Gemini => gemini::reader(profile, seed),
    }
}

/// Writes a stream of `protocol`.
pub fn stream_writer(protocol: Protocol, context: Arc<Context>, framing: Framing) -> Box<dyn WriteStream> {
    match protocol {
        Protocol::OpenaiChat => openai_chat::stream_writer(context, framing),
        Protocol::OpenaiResponses => openai_responses::stream_writer(context, framing),
        Protocol::Claude => claude::stream_writer(context, framing),
        Protocol::Gemini => gemini::stream_writer(context, framing),
    }
}

/// Writes a whole answer of `protocol`.
pub fn write_answer(protocol: Protocol, answer: &Answer, context: &Context) -> Vec<u8> {
    match protocol {
        Protocol::OpenaiChat => openai_chat::write_answer(answer, context),
        Protocol::OpenaiResponses => openai_responses::write_answer(answer, context),
        Protocol::Claude => claude::write_answer(answer, context),
        Protocol::Gemini => gemini::write_answer(answer, context),
    }
}
