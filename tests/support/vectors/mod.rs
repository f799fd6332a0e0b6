//! Translation vectors: reading them, and deciding whether an output satisfies one.
//!
//! Enters: vector files (`tests/vectors`), and what a runner made of them ([`Output`]). Leaves: the texts of
//! all failures ([`check`]); none when the vector passes. May go wrong: a file that is no vector, which
//! [`load`] names.
//!
//! Nothing here knows how an output came about, so that the translator in the process and the whole proxy can
//! be measured by the same vectors. No part of the code under test is used, least of all its SSE decoder.
//!
//! | file | concern |
//! |---|---|
//! | `assert.rs` | the assertions of a vector: pointers, operators, combinators |
//! | `sse.rs`, `fold/` | a client's stream → one document, and the rules of streams |
//! | `rules_response.rs` | the rules of whole answers |
//! | `rules_request/` | what upstreams insist on |
//! | `normalise.rs` | one spelling for Gemini bodies |
//! | `expand.rs` | a whole Responses answer → the stream of an upstream that only streams |
//! | `facts.rs` | what the models of the vectors can do |
//! | `vector.rs` | what a vector says, and the request and answer that it stands for |
//! | `suite.rs` | running all of them, the list of those that do not pass yet, the table |

mod assert;
mod expand;
mod facts;
mod fold;
mod normalise;
mod rules;
mod rules_request;
mod rules_response;
mod sse;
mod suite;
mod value;
mod vector;

pub use expand::response_sse;
pub use facts::{ModelFacts, facts};
pub use suite::{Attempt, Report, run};
pub use vector::{Expect, Form, Kind, Level, Operation, Reject, Vector, load};

use crate::record;
use serde_json::{Value, json};

/// What a runner made of a vector.
#[derive(Clone, Debug)]
pub enum Output {
    /// A body: the upstream's for requests, the client's for answers.
    Body(Vec<u8>),
    /// Everything that was sent to the client as a stream.
    Stream(Vec<u8>),
    /// A WebSocket.
    Turns {
        /// Bodies to the upstream, in order.
        upstream: Vec<Vec<u8>>,
        /// Events to the client, for each of its frames.
        frames: Vec<Vec<Vec<u8>>>,
    },
    /// The client's request was refused.
    Refused {
        /// Status of the answer.
        status: u16,
        /// Why.
        message: String,
    },
}

impl Output {
    /// Keeps an answer in the client format `format` that the test `cell` made; see [`crate::record`].
    pub fn record(&self, cell: &str, format: &str) {
        match self {
            Self::Body(body) => {
                if let Ok(body) = read(body) {
                    record::body(cell, format, &body);
                }
            }
            Self::Stream(stream) => {
                if let Some((document, _)) = stream_document(format, stream) {
                    record::events(cell, format, &document);
                }
            }
            Self::Turns { .. } | Self::Refused { .. } => {}
        }
    }
}

/// Why `output` does not satisfy `vector`; empty when it does.
pub fn check(vector: &Vector, output: &Output) -> Vec<String> {
    let reject = vector.expect.reject.as_ref();
    if let Output::Refused { status, message } = output {
        let accepted = reject.is_some_and(|reject| reject.status.contains(status));
        return if accepted { Vec::new() } else { vec![format!("refused with status {status}: {message}")] };
    }
    if reject.is_some_and(|reject| !reject.optional) {
        return vec!["expected a refusal, but the request was translated".to_owned()];
    }
    let (document, broken) = match document(vector, output) {
        Ok(read) => read,
        Err(problem) => return vec![problem],
    };
    let skipped = |rule: &String| vector.expect.skip_rules.iter().any(|prefix| rule.starts_with(prefix));
    let rules = broken.into_iter().filter(|rule| !skipped(rule)).map(|rule| format!("rule {rule}"));
    let assertions = vector.expect.assert.iter().filter_map(|one| assert::failure(&document, one));
    rules.chain(assertions).collect()
}

/// A client's stream in the format `format` as one document (see `fold/`), and the rules that it breaks. `None`
/// when no client speaks it or it is not UTF-8.
pub fn stream_document(format: &str, stream: &[u8]) -> Option<(Value, Vec<String>)> {
    fold::fold(format, &sse::events(std::str::from_utf8(stream).ok()?))
}

/// The rules of whole answers that `body` breaks, in the client format `format`.
pub fn broken_by_answer(format: &str, body: &Value) -> Vec<String> {
    rules_response::broken(format, body)
}

/// The rules of upstreams that `body` breaks, in the upstream format `format`.
pub fn broken_by_request(format: &str, body: &Value) -> Vec<String> {
    rules_request::broken(format, body)
}

/// The document that the assertions of `vector` are about, and the rules that `output` breaks.
fn document(vector: &Vector, output: &Output) -> Result<(Value, Vec<String>), String> {
    let generates = vector.operation == Operation::Generate;
    match (vector.kind, output) {
        (Kind::Request, Output::Body(body)) => {
            let body = read(body)?;
            let to = vector.to.as_str();
            let broken = if generates { rules_request::broken(to, &body) } else { Vec::new() };
            let normal = matches!(to, "gemini" | "gemini-cli" | "antigravity");
            Ok((if normal { normalise::normalise(&body) } else { body }, broken))
        }
        (Kind::Response, Output::Body(body)) => {
            let body = read(body)?;
            let broken = if generates { rules_response::broken(&vector.to, &body) } else { Vec::new() };
            Ok((body, broken))
        }
        (Kind::Stream, Output::Stream(stream)) => {
            let text =
                std::str::from_utf8(stream).map_err(|error| format!("output is not UTF-8: {error}"))?;
            fold::fold(&vector.to, &sse::events(text))
                .ok_or_else(|| format!("no client speaks {}", vector.to))
        }
        (Kind::Ws, Output::Turns { upstream, frames }) => turns(&vector.to, upstream, frames),
        (kind, _) => Err(format!("the runner gave another kind of output than {}", kind.name())),
    }
}

fn turns(to: &str, upstream: &[Vec<u8>], frames: &[Vec<Vec<u8>>]) -> Result<(Value, Vec<String>), String> {
    let upstream = upstream.iter().map(|body| read(body)).collect::<Result<Vec<Value>, String>>()?;
    let (mut turns, mut broken) = (Vec::new(), Vec::new());
    for frame in frames {
        let event =
            |data: &Vec<u8>| sse::Event { name: None, data: String::from_utf8_lossy(data).into_owned() };
        let events: Vec<sse::Event> = frame.iter().map(event).collect();
        let (turn, rules) = fold::fold("openai-response", &events).ok_or("Responses streams are folded")?;
        turns.push(turn);
        broken.extend(rules);
    }
    broken.extend(upstream.iter().flat_map(|body| rules_request::broken(to, body)));
    Ok((json!({"upstream": upstream, "turns": turns}), broken))
}

fn read(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|error| format!("output is not JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::vector::testing::vector;
    use super::*;

    fn body(value: &Value) -> Output {
        Output::Body(value.to_string().into_bytes())
    }

    fn claude_request() -> Value {
        json!({"max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]})
    }

    #[test]
    fn rules_and_assertions_fail_and_rules_can_be_skipped() {
        let assertion = json!([{"pointer": "/model", "op": "exists"}]);
        let strict = vector(json!({"expect": {"assert": assertion}}));
        let lenient = vector(json!({"expect": {"assert": [], "skip_rules": ["claude.max"]}}));
        let mut output = claude_request();
        output["max_tokens"] = json!(0);
        assert_eq!(
            check(&strict, &body(&output)),
            ["rule claude.max_tokens: required positive integer", "/model exists null: got <missing>"]
        );
        assert_eq!(check(&lenient, &body(&output)), [""; 0]);
        assert!(check(&strict, &Output::Body(b"{".to_vec()))[0].starts_with("output is not JSON"));
    }

    #[test]
    fn only_generation_obeys_rules() {
        let counted = vector(json!({"operation": "count_tokens"}));
        assert_eq!(check(&counted, &body(&json!({}))), [""; 0]);
        assert_eq!(check(&vector(json!({})), &body(&json!({}))).len(), 2);
    }

    #[test]
    fn refusals_pass_where_they_are_expected() {
        let refused = Output::Refused { status: 400, message: "no".to_owned() };
        let translated = body(&claude_request());
        let (plain, must) =
            (vector(json!({})), vector(json!({"expect": {"reject": {"status": [400, 422]}}})));
        let may = vector(json!({"expect": {"reject": {"status": [422], "optional": true}}}));
        assert_eq!(check(&plain, &refused), ["refused with status 400: no"]);
        assert_eq!(check(&plain, &translated), [""; 0]);
        assert_eq!(check(&must, &refused), [""; 0]);
        assert_eq!(check(&must, &translated).len(), 1);
        assert_eq!(check(&may, &refused).len(), 1);
        assert_eq!(check(&may, &translated), [""; 0]);
    }

    #[test]
    fn gemini_bodies_are_normalised_before_assertions() {
        let assertion = json!([{"pointer": "/systemInstruction/parts/0/text", "op": "equals", "value": "s"}]);
        let gemini = vector(json!({"to": "gemini", "expect": {"assert": assertion}}));
        let parts = json!([{"text": "s"}]);
        let output =
            json!({"system_instruction": {"parts": parts}, "contents": [{"role": "user", "parts": parts}]});
        assert_eq!(check(&gemini, &body(&output)), [""; 0]);
    }

    #[test]
    fn websocket_turns_are_folded_and_upstream_bodies_checked() {
        let assertion = json!([{"pointer": "/turns/0/errors", "op": "length", "value": 1}, {"pointer": "/upstream/0/model", "op": "equals", "value": "m"}]);
        let socket = vector(
            json!({"kind": "ws", "from": "openai-response", "to": "codex", "input": [{"model": "x"}, {}], "expect": {"assert": assertion}}),
        );
        assert_eq!(socket.frames(), [br#"{"model":"m"}"#.to_vec(), b"{}".to_vec()]);
        let request =
            json!({"model": "m", "input": "hi", "store": false, "stream": false, "instructions": ""});
        let output = Output::Turns {
            upstream: vec![request.to_string().into_bytes()],
            frames: vec![vec![br#"{"type":"error","message":"m"}"#.to_vec()]],
        };
        assert_eq!(check(&socket, &output), ["rule codex.stream: stream must be true"]);
    }

    #[test]
    fn another_kind_of_output_fails() {
        assert_eq!(check(&vector(json!({})), &Output::Stream(Vec::new())).len(), 1);
    }
}
