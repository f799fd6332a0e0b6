//! A Responses WebSocket through the session and the translator, turn by turn, as the proxy would do it.
//!
//! Enters: a vector with the client's frames and the upstream's answers. Leaves: the bodies to the upstream
//! and the events of each turn. May go wrong: more calls than the vector has answers, which is a fault.

use super::translate::{CREATED, Case, SEED, streamed};
use testkit::vectors::{Attempt, Output};
use wire::error::WireError;
use wire::frames::Framing;
use wire::head;
use wire::openai_responses::websocket::{Session, Step, error_frame};
use wire::translate::{Job, prepare};

/// Plays all frames of a vector.
pub(crate) fn turns(case: &Case<'_>) -> Attempt {
    let mut session = Session::new();
    let mut socket = Socket { case, answers: case.vector.upstream_streams().into_iter(), bodies: Vec::new() };
    let (mut frames, mut faults) = (Vec::new(), Vec::new());
    for text in case.vector.frames() {
        let events = match session.frame(&text, SEED, CREATED) {
            Ok(Step::Local(events)) => events,
            Ok(Step::Request(body)) => {
                let events = socket
                    .call(&body, &mut faults)
                    .unwrap_or_else(|error| vec![error_frame(&error.failure())]);
                for event in &events {
                    session.answered(event);
                }
                events
            }
            Err(error) => vec![error_frame(&error.failure())],
        };
        frames.push(events);
    }
    Attempt::Ran { output: Output::Turns { upstream: socket.bodies, frames }, faults, notes: Vec::new() }
}

struct Socket<'c> {
    case: &'c Case<'c>,
    answers: std::vec::IntoIter<Vec<u8>>,
    /// Bodies to the upstream so far.
    bodies: Vec<Vec<u8>>,
}

impl Socket<'_> {
    /// One request of the session: its events, each as the JSON of one frame.
    fn call(&mut self, body: &[u8], faults: &mut Vec<String>) -> Result<Vec<Vec<u8>>, WireError> {
        let head = head::parse(body, self.case.client)?;
        let job = Job { body, stream: true, framing: Framing::Lines, ..self.case.job(&head) };
        let prepared = prepare(&job)?;
        self.bodies.push(prepared.body.to_vec());
        let Some(answer) = self.answers.next() else {
            faults.push(format!("call {} of the upstream, which has no answer for it", self.bodies.len()));
            return Ok(Vec::new());
        };
        let lines = streamed(&job, &prepared, &answer, &[]);
        Ok(lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
    }
}
