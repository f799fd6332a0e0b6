//! One vector through the translator, as the proxy would do it.
//!
//! Enters: a vector. Leaves: what the upstream or the client would get. May go wrong: the vector needs
//! something that [`wire`] does not have yet; each such thing is one arm of [`Case::new`].

use super::pieces;
use testkit::vectors::{Attempt, Kind, ModelFacts, Operation, Output, Vector, facts};
use wire::error::{Failure, WireError};
use wire::replay::{self, Replay, Sent};
use wire::target::{self, Card, Profile};
use wire::thinking::{Bounds, Level, Support, split_suffix};

/// Tries a vector.
pub(crate) fn attempt(vector: &Vector) -> Attempt {
    match Case::new(vector) {
        Ok(case) => case.run(),
        Err(reason) => Attempt::Unable(reason.to_owned()),
    }
}

/// A vector and what routing would have decided about it.
struct Case<'v> {
    vector: &'v Vector,
    client: wire::Protocol,
    operation: target::Operation,
    profile: Profile,
    card: Card,
}

impl<'v> Case<'v> {
    fn new(vector: &'v Vector) -> Result<Self, &'static str> {
        let Some((client, format)) = replay::client_format(vector.client()) else {
            return Err("client format is unknown");
        };
        let operation = match vector.operation {
            Operation::Generate => format,
            Operation::CountTokens => target::Operation::CountTokens,
            Operation::Compact => target::Operation::Compact,
            Operation::ImageEdits => target::Operation::ImageEdit,
        };
        let profile = Profile::parse(vector.upstream_format()).ok_or("upstream format is unknown")?;
        let (model, _) = split_suffix(&vector.model);
        let card = facts(vector.upstream_format(), model).map(card).unwrap_or_default();
        Ok(Self { vector, client, operation, profile, card })
    }

    fn run(&self) -> Attempt {
        if let Some(status) = self.vector.upstream_status {
            let failure = Failure::parse(status, &self.vector.answer(b"", false));
            return ran(Output::Body(failure.render(self.client)));
        }
        if self.vector.kind == Kind::Ws {
            return self.talk();
        }
        match self.replay().request(&self.vector.client_request()) {
            Ok(sent) => self.answer(&sent),
            Err(error) => refused(&error),
        }
    }

    fn replay(&self) -> Replay<'_> {
        Replay {
            operation: self.operation,
            stream: self.vector.client_streams(),
            project: "test-project",
            image_base: "gpt-5.4-mini",
            ..Replay::new(self.client, self.profile, &self.vector.model, &self.card)
        }
    }

    fn answer(&self, sent: &Sent) -> Attempt {
        let upstream = self.vector.answer(&sent.body, sent.plan.upstream_stream);
        let mut faults = Vec::new();
        let output = match self.vector.kind {
            Kind::Request => Output::Body(sent.body.clone()),
            Kind::Stream => {
                let stream = |cuts: &[usize]| replay::streamed(&sent.plan, &upstream, cuts);
                let whole = stream(&[]);
                faults = pieces::differences(&self.vector.id, upstream.len(), &whole, stream);
                Output::Stream(whole)
            }
            Kind::Response | Kind::Ws => Output::Body(replay::whole(&sent.plan, &upstream)),
        };
        let counts = self.operation == target::Operation::CountTokens;
        if self.vector.kind != Kind::Request && !counts && !sent.plan.same_format {
            output.record(&self.vector.id, self.vector.client());
        }
        let notes = vec![
            format!("to the upstream: {}", String::from_utf8_lossy(&sent.body)),
            format!("thinking: {:?}, lost: {}", sent.thinking, sent.losses),
        ];
        Attempt::Ran { output, faults, notes }
    }

    /// A WebSocket, turn by turn. More calls than the vector has answers are a fault.
    fn talk(&self) -> Attempt {
        let mut answers = self.vector.upstream_streams().into_iter();
        let mut faults = Vec::new();
        let talk = self.replay().talk(&self.vector.frames(), |body| {
            answers.next().unwrap_or_else(|| {
                faults.push(format!("the upstream has no answer for {}", String::from_utf8_lossy(body)));
                Vec::new()
            })
        });
        let output = Output::Turns { upstream: talk.bodies, frames: talk.turns };
        Attempt::Ran { output, faults, notes: Vec::new() }
    }
}

fn ran(output: Output) -> Attempt {
    Attempt::Ran { output, faults: Vec::new(), notes: Vec::new() }
}

/// A vector's bodies are JSON: a refusal that says otherwise is none.
fn refused(error: &WireError) -> Attempt {
    let failure = error.failure();
    let faults = match error {
        WireError::Json(_) | WireError::Form(_) => vec![format!("refused as unreadable: {error}")],
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
    Card {
        thinking: Support::Bounded(bounds),
        max_output: facts.max_output,
        context: None,
        ..Card::default()
    }
}
