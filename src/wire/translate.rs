//! The only registry of formats: one request from any client format to any upstream, and its answer back.
//!
//! Enters: a client's body and what routing decided ([`Job`]); later the upstream's bytes. Leaves:
//! [`Prepared`] with the upstream's body, and through [`Reply`] the client's bytes. May go wrong: the
//! client's mistakes ([`WireError`], a 400); the upstream's, as [`Flow::Failed`].
//!
//! Adding a format: a folder with the files of the table in the crate's documentation, then one arm in each
//! `match` of `formats.rs`.

use crate::error::WireError;
use crate::frames::Framing;
use crate::head::Head;
use crate::ir::{Context, Losses, lower};
use crate::target::{Card, Operation, Profile, Target};
use crate::thinking::{Mode, ThinkingReport};
use crate::{Protocol, estimate, gemini, openai_images};
use std::borrow::Cow;
use std::sync::Arc;

mod formats;
mod raw;
mod relay;
mod reply;
mod source;
mod think;

pub use formats::{read_request, stream_writer, write_answer, write_count};
pub use reply::{Flow, Reply};

/// A request and what routing decided about it.
#[derive(Clone, Copy, Debug)]
pub struct Job<'j> {
    /// Format of the client.
    pub client: Protocol,
    /// What it asks.
    pub operation: Operation,
    /// Its body.
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
    /// Refuse a budget of thinking that does not fit below `max_tokens`; otherwise it is cut.
    pub strict: bool,
    /// The model name that the answer shall carry; `None`: the upstream's.
    pub shown_model: Option<&'j str>,
    /// Seconds since 1970.
    pub created: u64,
    /// 32 hex digits, unique to the request.
    pub seed: &'j str,
    /// Google project of the envelopes; Kiro: ARN of the profile.
    pub project: &'j str,
    /// The model that calls the drawing tool of Responses upstreams for a model that only draws.
    pub image_base: &'j str,
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
    /// How much the client asked the model to think, and how much the upstream is told.
    pub thinking: ThinkingReport,
}

/// How an answer is translated: all that is left of a request when its body is gone.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Format of the client.
    pub client: Protocol,
    /// What it asks.
    pub operation: Operation,
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
    /// How much the upstream was told to think.
    pub thinking: Option<Mode>,
    /// What the answer needs to know of the request.
    pub context: Arc<Context>,
}

impl Plan {
    /// Whether the answer goes out as it comes, whatever it is.
    pub fn is_raw(&self) -> bool {
        self.same_format && self.operation.is_media()
    }
}

impl Job<'_> {
    /// Whether both sides speak the same format, so that bytes stay bytes.
    pub fn same_format(&self) -> bool {
        match self.operation {
            Operation::Completion => false,
            operation if operation.draws() => {
                self.profile == Profile::Chat
                    || (self.profile == Profile::Responses && openai_images::has_own_route(self.model))
            }
            operation if operation.is_media() => true,
            _ => self.client == self.profile.protocol() && self.profile != Profile::Kiro,
        }
    }

    /// The model that the upstream is asked for.
    fn upstream_model(&self) -> &str {
        let by_tool = self.operation.draws()
            && self.profile.protocol() == Protocol::OpenaiResponses
            && openai_images::is_painter(self.model);
        if by_tool { self.image_base } else { self.model }
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
    let whole = matches!(job.operation, Operation::CountTokens | Operation::Compact);
    let stream = !whole && (job.profile.streams_only() || (job.stream && !job.card.whole_only));
    let mut target = Target {
        profile: job.profile,
        model: job.upstream_model(),
        card: job.card,
        stream,
        thinking: None,
        project: job.project,
    };
    let (body, report) = if job.same_format() {
        let mut report = think::own(job, &mut target, &mut losses)?;
        let planned = losses.len();
        let body = formats::patch_request(job, &target, &mut losses)?;
        think::settle(&mut report, job, &body, planned, &losses);
        (body, report)
    } else {
        let (body, report) = rewrite(job, &mut target, &mut context, &mut losses)?;
        (Cow::Owned(body), report)
    };
    let plan = Plan {
        client: job.client,
        operation: job.operation,
        profile: job.profile,
        stream: job.stream,
        upstream_stream: stream,
        same_format: job.same_format(),
        framing: job.framing,
        thinking: report.processed,
        context: Arc::new(context),
    };
    Ok(Prepared { body, plan, losses, thinking: report })
}

/// Reads the client's body and writes the upstream's.
fn rewrite(
    job: &Job<'_>,
    target: &mut Target<'_>,
    context: &mut Context,
    losses: &mut Losses,
) -> Result<(Vec<u8>, ThinkingReport), WireError> {
    let mut request = formats::read_operation(job, losses).map_err(|error| think::unread(error, job))?;
    request.stream = job.stream;
    let mut report = think::rewritten(job, &request, target, losses)?;
    let planned = losses.len();
    lower::lower(&mut request, formats::rules(job.profile), context, losses);
    context.hide_reasoning = request.thinking.visible == Some(false);
    context.legacy_functions = request.legacy_functions;
    context.echo = request.echo.iter().map(|(k, v)| (*k, v.as_str().to_owned())).collect();
    let body = formats::write_request(job.operation, &request, target, context, losses)?;
    think::settle(&mut report, job, &body, planned, losses);
    if job.operation.draws() && job.profile.protocol() == Protocol::Gemini {
        return Ok((openai_images::with_image_config(body, job.body, job.head, losses), report));
    }
    Ok((body, report))
}

/// Counts the tokens of a client's body here, about: for upstreams that do not count.
pub fn estimate_tokens(client: Protocol, body: &[u8]) -> Result<u64, WireError> {
    Ok(estimate::tokens(&read_request(client, body, &mut Losses::default())?))
}
