//! An exchange without a network: what the upstream would get, and what the client would.
//!
//! Enters: a client's body and what an upstream answered. Leaves: the bytes that the proxy would send, made
//! by the same code. `cliproxy translate` and the translation vectors run on it. May go wrong: the client's
//! mistakes ([`WireError`]); an upstream's failure becomes what the client would see of it.

use crate::Protocol;
use crate::error::WireError;
use crate::frames::Framing;
use crate::head;
use crate::ir::Losses;
use crate::openai_responses::websocket::{Session, Step, error_frame};
use crate::target::{Card, Operation, Profile};
use crate::thinking::{ThinkingReport, split_suffix};
use crate::translate::{Flow, Job, Plan, Reply, prepare};

/// What routing would have decided.
#[derive(Clone, Copy, Debug)]
pub struct Replay<'r> {
    /// Format of the client.
    pub client: Protocol,
    /// What it asks.
    pub operation: Operation,
    /// Flavour of the upstream.
    pub profile: Profile,
    /// The upstream's name of the model, maybe with a thinking suffix.
    pub model: &'r str,
    /// Facts about it.
    pub card: &'r Card,
    /// Whether the client wants events.
    pub stream: bool,
    /// How they are framed.
    pub framing: Framing,
    /// Google project of the envelopes; Kiro: ARN of the profile.
    pub project: &'r str,
    /// Seconds since 1970.
    pub created: u64,
    /// 32 hex digits of which ids are made.
    pub seed: &'r str,
    /// The model that calls the drawing tool of Responses upstreams.
    pub image_base: &'r str,
}

/// A request as the upstream would get it.
#[derive(Debug)]
pub struct Sent {
    /// The body.
    pub body: Vec<u8>,
    /// How the answer will be translated.
    pub plan: Plan,
    /// What did not get through.
    pub losses: Losses,
    /// How much the client asked the model to think, and how much the upstream is told.
    pub thinking: ThinkingReport,
}

/// A conversation over a WebSocket.
#[derive(Debug, Default)]
pub struct Talk {
    /// The bodies that the upstream would get.
    pub bodies: Vec<Vec<u8>>,
    /// The text frames that the client would get, for each of its own.
    pub turns: Vec<Vec<Vec<u8>>>,
}

/// The client format and operation of a name as configuration, vectors and the command line use it.
pub fn client_format(name: &str) -> Option<(Protocol, Operation)> {
    if name == "openai-completions" {
        return Some((Protocol::OpenaiChat, Operation::Completion));
    }
    if name == "openai-images" {
        return Some((Protocol::OpenaiChat, Operation::ImageGeneration));
    }
    // The Gemini CLI's envelope is told by the body.
    let name = if name == "gemini-cli" { "gemini" } else { name };
    Protocol::ALL.into_iter().find(|p| p.name() == name).map(|p| (p, Operation::Generate))
}

impl<'r> Replay<'r> {
    /// A client of `client` who asks an upstream of `profile` for a whole answer of `model`.
    pub fn new(client: Protocol, profile: Profile, model: &'r str, card: &'r Card) -> Self {
        Self {
            client,
            operation: Operation::Generate,
            profile,
            model,
            card,
            stream: false,
            framing: Framing::Sse,
            project: "",
            created: 1_700_000_000,
            seed: "0123456789abcdef0123456789abcdef",
            image_base: "",
        }
    }

    /// What the upstream would get.
    pub fn request(&self, body: &[u8]) -> Result<Sent, WireError> {
        let head = head::parse_or(body, self.client, self.operation.default_model())?;
        let (model, suffix) = split_suffix(self.model);
        let prepared = prepare(&Job {
            client: self.client,
            operation: self.operation,
            body,
            head: &head,
            stream: self.stream,
            framing: self.framing,
            profile: self.profile,
            model,
            card: self.card,
            suffix,
            strict: false,
            shown_model: None,
            created: self.created,
            seed: self.seed,
            project: self.project,
            image_base: self.image_base,
        })?;
        let body = prepared.body.into_owned();
        Ok(Sent { body, plan: prepared.plan, losses: prepared.losses, thinking: prepared.thinking })
    }

    /// A Responses WebSocket: `answer` is called with each body that the upstream would get, and gives its
    /// event stream.
    pub fn talk(&self, frames: &[Vec<u8>], mut answer: impl FnMut(&[u8]) -> Vec<u8>) -> Talk {
        let mut session = Session::new();
        let mut talk = Talk::default();
        let turn = Replay { stream: true, framing: Framing::Lines, ..*self };
        for frame in frames {
            let events = match session.frame(frame, self.seed, self.created) {
                Ok(Step::Local(events)) => events,
                Ok(Step::Request(body)) => match turn.request(&body) {
                    Ok(sent) => {
                        let lines = streamed(&sent.plan, &answer(&sent.body), &[]);
                        talk.bodies.push(sent.body);
                        let events: Vec<_> = lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()).collect();
                        for event in &events {
                            session.answered(event);
                        }
                        events.into_iter().map(<[u8]>::to_vec).collect()
                    }
                    Err(error) => vec![error_frame(&error.failure())],
                },
                Err(error) => vec![error_frame(&error.failure())],
            };
            talk.turns.push(events);
        }
        talk
    }
}

/// The whole answer that the client would get of `upstream`: a body, or a stream where the plan says so.
pub fn whole(plan: &Plan, upstream: &[u8]) -> Vec<u8> {
    let mut reply = Reply::new(plan);
    let mut flow = if plan.upstream_stream { reply.feed(upstream) } else { reply.whole(upstream) };
    if plan.upstream_stream && !matches!(flow, Flow::Failed(_) | Flow::Done) {
        flow = reply.eof();
    }
    match flow {
        Flow::Failed(failure) => failure.render(plan.client),
        _ => reply.take(),
    }
}

/// All events that the client would get of a stream which comes in pieces, cut at the rising positions
/// `cuts`.
pub fn streamed(plan: &Plan, upstream: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut reply = Reply::new(plan);
    let mut sent = Vec::new();
    let mut from = 0;
    let mut flow = Flow::Waiting;
    for end in cuts.iter().copied().chain([upstream.len()]) {
        flow = reply.feed(upstream.get(from..end).unwrap_or_default());
        from = end;
        if matches!(flow, Flow::Failed(_) | Flow::Done) {
            break;
        }
        sent.extend(reply.take());
    }
    if !matches!(flow, Flow::Failed(_) | Flow::Done) {
        flow = reply.eof();
    }
    if let Flow::Failed(failure) = flow {
        reply.fail(&failure);
    }
    sent.extend(reply.take());
    sent
}
