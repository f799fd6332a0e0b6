//! One vector through the translator, as the proxy would do it.
//!
//! Enters: a vector. Leaves: what the upstream or the client would get. May go wrong: the vector needs
//! something that [`wire`] does not have yet; each such thing is one arm of [`Case::new`].

use super::{pieces, websocket};
use testkit::vectors::{Attempt, Kind, ModelFacts, Operation, Output, Vector, facts};
use wire::Protocol;
use wire::error::{Failure, WireError};
use wire::frames::Framing;
use wire::head::{self, Head};
use wire::target::{Card, Profile};
use wire::thinking::{Bounds, Level, Mode, Support, split_suffix};
use wire::translate::{self, Flow, Job, Prepared, Reply};

/// Tries a vector.
pub(crate) fn attempt(vector: &Vector) -> Attempt {
    match Case::new(vector) {
        Ok(case) if vector.kind == Kind::Ws => websocket::turns(&case),
        Ok(case) => case.run(),
        Err(reason) => Attempt::Unable(reason.to_owned()),
    }
}

/// When all vectors run, in seconds since 1970.
pub(crate) const CREATED: u64 = 1_700_000_000;

/// What ids are made of.
pub(crate) const SEED: &str = "0123456789abcdef0123456789abcdef";

/// A vector and what routing would have decided about it.
pub(crate) struct Case<'v> {
    pub(crate) vector: &'v Vector,
    pub(crate) client: Protocol,
    profile: Profile,
    /// The upstream's name of the model, without suffix.
    model: &'v str,
    suffix: Option<Mode>,
    card: Card,
    /// The client's body.
    body: Vec<u8>,
}

impl<'v> Case<'v> {
    fn new(vector: &'v Vector) -> Result<Self, &'static str> {
        match vector.operation {
            Operation::Generate => {}
            Operation::CountTokens => return Err("operation count_tokens is not translated"),
            Operation::Compact => return Err("operation compact is not translated"),
            Operation::ImageEdits => return Err("operation images.edits is not translated"),
        }
        let client = match vector.client() {
            "openai" => Protocol::OpenaiChat,
            "openai-response" => Protocol::OpenaiResponses,
            "claude" => Protocol::Claude,
            "gemini" => Protocol::Gemini,
            "gemini-cli" => return Err("client format gemini-cli is not read"),
            "openai-completions" => return Err("client format openai-completions is not read"),
            "openai-images" => return Err("client format openai-images is not read"),
            _ => return Err("client format is unknown"),
        };
        let profile = match vector.upstream_format() {
            "gemini-cli" => return Err("upstream gemini-cli is not written"),
            "kiro" => return Err("upstream kiro is not written, nor are its frames read"),
            known => Profile::parse(known).ok_or("upstream format is unknown")?,
        };
        let (model, suffix) = split_suffix(&vector.model);
        let card = facts(vector.upstream_format(), model).map(card).unwrap_or_default();
        Ok(Self { vector, client, profile, model, suffix, card, body: vector.client_request() })
    }

    fn run(&self) -> Attempt {
        if let Some(status) = self.vector.upstream_status {
            let failure = Failure::parse(status, &self.vector.answer(b"", false));
            return ran(Output::Body(failure.render(self.client)));
        }
        let translated = head::parse(&self.body, self.client).and_then(|head| {
            let job = self.job(&head);
            translate::prepare(&job).map(|prepared| self.answer(&job, &prepared))
        });
        translated.unwrap_or_else(|error| refused(&error))
    }

    pub(crate) fn job<'c>(&'c self, head: &'c Head) -> Job<'c> {
        Job {
            client: self.client,
            body: &self.body,
            head,
            stream: self.vector.client_streams(),
            framing: Framing::Sse,
            profile: self.profile,
            model: self.model,
            card: &self.card,
            suffix: self.suffix,
            shown_model: None,
            created: CREATED,
            seed: SEED,
            project: "test-project",
        }
    }

    fn answer(&self, job: &Job<'_>, prepared: &Prepared<'_>) -> Attempt {
        let upstream = self.vector.answer(&prepared.body, prepared.stream);
        let mut faults = Vec::new();
        let output = match self.vector.kind {
            Kind::Request => Output::Body(prepared.body.to_vec()),
            Kind::Stream => {
                let stream = |cuts: &[usize]| streamed(job, prepared, &upstream, cuts);
                let whole = stream(&[]);
                faults = pieces::differences(&self.vector.id, upstream.len(), &whole, stream);
                Output::Stream(whole)
            }
            Kind::Response | Kind::Ws => Output::Body(whole(job, prepared, &upstream)),
        };
        let notes = vec![
            format!("to the upstream: {}", String::from_utf8_lossy(&prepared.body)),
            format!("thinking: {:?}, lost: {}", prepared.thinking, prepared.losses),
        ];
        Attempt::Ran { output, faults, notes }
    }
}

/// A whole answer, also of an upstream that streams it.
fn whole(job: &Job<'_>, prepared: &Prepared<'_>, upstream: &[u8]) -> Vec<u8> {
    let mut reply = Reply::new(job, prepared);
    let mut flow = if prepared.stream { reply.feed(upstream) } else { reply.whole(upstream) };
    if prepared.stream && !matches!(flow, Flow::Failed(_)) {
        flow = reply.eof();
    }
    match flow {
        Flow::Failed(failure) => failure.render(job.client),
        _ => reply.take(),
    }
}

/// All that a client gets of a stream which comes in pieces, cut at the positions `cuts`.
pub(crate) fn streamed(job: &Job<'_>, prepared: &Prepared<'_>, upstream: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut reply = Reply::new(job, prepared);
    let mut sent = Vec::new();
    let ends = cuts.iter().copied().chain([upstream.len()]);
    let mut from = 0;
    for end in ends {
        let flow = reply.feed(upstream.get(from..end).unwrap_or_default());
        from = end;
        if let Flow::Failed(failure) = flow {
            reply.fail(&failure);
            sent.extend(reply.take());
            return sent;
        }
        sent.extend(reply.take());
    }
    if let Flow::Failed(failure) = reply.eof() {
        reply.fail(&failure);
    }
    sent.extend(reply.take());
    sent
}

fn ran(output: Output) -> Attempt {
    Attempt::Ran { output, faults: Vec::new(), notes: Vec::new() }
}

/// A vector's bodies are JSON: a refusal that says otherwise is none.
fn refused(error: &WireError) -> Attempt {
    let failure = error.failure();
    let faults = match error {
        WireError::Json(_) => vec![format!("refused as bad JSON: {error}")],
        WireError::Invalid { .. } | WireError::Unsupported { .. } => Vec::new(),
    };
    let output = Output::Refused { status: failure.status, message: failure.message };
    Attempt::Ran { output, faults, notes: Vec::new() }
}

fn card(facts: ModelFacts) -> Card {
    let bounds = Bounds {
        budget: facts.budget,
        off: facts.off,
        auto: facts.auto,
        levels: facts.levels.iter().filter_map(|word| Level::parse(word)).collect(),
    };
    Card { thinking: Support::Bounded(bounds), max_output: facts.max_output, context: None }
}
