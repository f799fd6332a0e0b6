//! The client side of the Responses WebSocket over upstreams that speak HTTP.
//!
//! Enters: a client's text frames, and the events that were sent to it. Leaves: for each frame a complete body
//! of `POST /responses`, with the conversation before it in `input`, or frames that are answered here. May go
//! wrong: a frame that is no JSON, of another type, or without model or input ([`WireError`]; the socket stays
//! open and the client is sent [`error_frame`]).
//!
//! | frame | input of the request |
//! |---|---|
//! | `response.create` | its own |
//! | `response.create` with `previous_response_id` | that response's input and output, then its own |
//! | `response.create` with outputs whose calls only the last response has | as if it named it |
//! | `response.append` | the last response's input and output, then its own |
//! | `generate: false` | remembered; answered here with an empty response |
//!
//! `model` is inherited from the frame before, `instructions` only where the conversation goes on. An item
//! that the conversation has already (by id, or by type and `call_id`) is not added again. The conversation is
//! kept as the JSON texts that came.

use super::event::{Event, Raw, Response, list, number, object, text};
use super::read_request::{RAW, echo};
use super::transcript::{Base, Transcript, Turn, merge};
use super::write_events::Numbered;
use super::write_output::Shown;
use crate::error::{Failure, WireError};
use crate::frames::Framing;
use crate::ir::{Context, Usage};
use crate::json::{self, Json, Path, string};
use crate::patch::Patch;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;

/// What a frame leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A body of `POST /responses` that streams; each event of its answer goes to [`Session::answered`].
    Request(Vec<u8>),
    /// Text frames for the client; no upstream is asked.
    Local(Vec<Vec<u8>>),
}

/// One socket.
#[derive(Debug, Default)]
pub struct Session {
    /// JSON text of the last `model` and `instructions`.
    model: Option<Box<str>>,
    instructions: Option<Box<str>>,
    transcript: Transcript,
    pending: Option<Pending>,
}

/// The request that is being answered.
#[derive(Debug, Default)]
struct Pending {
    id: String,
    input: Vec<Arc<str>>,
    output: Vec<(u64, Arc<str>)>,
    own: usize,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Raw<'a>,
    #[serde(borrow)]
    model: Raw<'a>,
    #[serde(borrow)]
    instructions: Raw<'a>,
    #[serde(borrow)]
    input: Raw<'a>,
    #[serde(borrow)]
    previous_response_id: Raw<'a>,
    #[serde(borrow)]
    generate: Raw<'a>,
}

/// The frame that tells a client of a failure; the socket stays open.
pub fn error_frame(failure: &Failure) -> Vec<u8> {
    let mut out = Vec::new();
    json::object(&mut out, |o| {
        o.str("type", "error");
        o.uint("status", u64::from(failure.status));
        o.object("error", |o| failure.openai_members(o));
        if let Some(seconds) = failure.retry_after {
            o.object("headers", |o| o.str("retry-after", &seconds.to_string()));
        }
    });
    out
}

impl Session {
    /// A socket that has just been opened.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a client's frame. `seed` is 32 hex digits, `created` seconds since 1970: for what is answered
    /// here.
    pub fn frame(&mut self, frame: &[u8], seed: &str, created: u64) -> Result<Step, WireError> {
        let root = Path::Root;
        let read: Frame<'_> = serde_json::from_slice(frame)?;
        let kind = text(read.kind);
        if !matches!(kind.as_ref(), "response.create" | "response.append") {
            let problem = format!("`{kind}` is not supported; send `response.create` or `response.append`");
            return Err(WireError::invalid(&root.key("type"), problem));
        }
        let model = match read.model {
            Some(_) if text(read.model).trim().is_empty() => {
                return Err(WireError::invalid(&root.key("model"), "expected a string"));
            }
            Some(model) => model.get().into(),
            None => self.model.clone().ok_or_else(|| {
                WireError::invalid(&root.key("model"), "required in the first `response.create` of a socket")
            })?,
        };
        let prewarm = read.generate.is_some_and(|generate| generate.get() == "false");
        let new = items(read.input, prewarm)?;
        let previous = text(read.previous_response_id);
        let base = match self.transcript.base(&kind, &previous, &new) {
            Base::Turn(items) => Some(items),
            Base::Nothing => None,
            Base::Unknown => return Ok(Step::Local(vec![error_frame(&not_found(&previous))])),
            Base::Missing => {
                let problem = "there is no response yet to append to; send `response.create`";
                return Err(WireError::invalid(&root.key("type"), problem));
            }
        };
        let goes_on = base.is_some();
        let (input, own) = merge(base.unwrap_or_default(), new);
        if let Some(instructions) = read.instructions {
            self.instructions = Some(instructions.get().into());
        } else if !goes_on {
            self.instructions = None;
        }
        self.model = Some(model);
        if prewarm {
            let id = format!("resp_{seed}");
            let frames = self.prewarmed(frame, &id, created)?;
            self.transcript.keep(Turn { id, items: input, own });
            return Ok(Step::Local(frames));
        }
        let body = self.body(frame, &input);
        self.pending = Some(Pending { input, own, ..Pending::default() });
        Ok(Step::Request(body))
    }

    /// Takes an event that was sent to the client.
    pub fn answered(&mut self, event: &[u8]) {
        let Some(pending) = &mut self.pending else { return };
        let Ok(event) = serde_json::from_slice::<Event<'_>>(event) else { return };
        let response: Response<'_> = object(event.response);
        let id = text(response.id);
        if !id.is_empty() {
            pending.id = id.into_owned();
        }
        match text(event.kind).as_ref() {
            "response.output_item.done" => {
                let index = number(event.output_index).unwrap_or(pending.output.len() as u64);
                pending.output.extend(event.item.map(|item| (index, item.get().into())));
            }
            "response.completed" | "response.incomplete" | "response.done" => {
                let whole = list(response.output);
                if let Some(pending) = self.pending.take() {
                    self.transcript.keep(pending.into_turn(&whole));
                }
            }
            "response.failed" | "response.cancelled" | "error" => self.pending = None,
            _ => {}
        }
    }

    /// The frame as a body: without what only frames have, with what it inherits.
    fn body(&self, frame: &[u8], input: &[Arc<str>]) -> Vec<u8> {
        let mut patch = Patch::new(frame);
        for name in ["type", "previous_response_id", "generate"] {
            patch.remove(0, name);
        }
        patch.set(0, "stream", "true");
        patch.set(0, "input", format!("[{}]", input.join(",")));
        for (name, value) in [("model", &self.model), ("instructions", &self.instructions)] {
            if let Some(value) = value {
                patch.set(0, name, value.as_bytes());
            }
        }
        patch.apply()
    }

    /// `response.created` and `response.completed` of a response that nobody had to make.
    fn prewarmed(&self, frame: &[u8], id: &str, created: u64) -> Result<Vec<Vec<u8>>, WireError> {
        let Json::Object(map) = json::parse(frame, &RAW)? else {
            return Err(WireError::Json("expected an object".to_owned()));
        };
        let echo = echo(&map).into_iter().map(|(name, value)| (name, value.as_str().to_owned())).collect();
        let context = Context { created, echo, ..Context::default() };
        let model = self.model.as_deref().and_then(|model| serde_json::from_str::<String>(model).ok());
        let mut out = Numbered::new(Framing::Lines);
        for (name, status, usage) in [
            ("response.created", "in_progress", None),
            ("response.completed", "completed", Some(&Usage::default())),
        ] {
            let shown = Shown {
                id,
                model: model.as_deref().unwrap_or_default(),
                created,
                status,
                reason: None,
                error: None,
                output: &[],
                usage,
                context: &context,
            };
            out.event(name, |o| shown.write(o.key("response")));
        }
        let bytes = out.frames.take();
        Ok(bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
    }
}

impl Pending {
    fn into_turn(mut self, whole: &[&RawValue]) -> Turn {
        if !whole.is_empty() {
            self.output = (0..).zip(whole.iter().map(|item| item.get().into())).collect();
        }
        self.output.sort_by_key(|(index, _)| *index);
        self.own += self.output.iter().map(|(_, item)| item.len()).sum::<usize>();
        self.input.extend(self.output.into_iter().map(|(_, item)| item));
        Turn { id: self.id, items: self.input, own: self.own }
    }
}

/// The items of `input`; a string is a message of the user.
fn items(input: Raw<'_>, prewarm: bool) -> Result<Vec<Arc<str>>, WireError> {
    let root = Path::Root;
    let path = root.key("input");
    let Some(input) = input else {
        if prewarm {
            return Ok(Vec::new());
        }
        return Err(WireError::invalid(&path, "required: a string or an array of items"));
    };
    let json = input.get();
    match json.as_bytes().first() {
        Some(b'[') => Ok(list(Some(input)).into_iter().map(|item| item.get().into()).collect()),
        Some(b'"') => {
            let content = format!(r#"[{{"type":"input_text","text":{json}}}]"#);
            let role = string("user");
            Ok(vec![format!(r#"{{"type":"message","role":{role},"content":{content}}}"#).into()])
        }
        _ => Err(WireError::invalid(&path, "expected a string or an array of items")),
    }
}

fn not_found(id: &str) -> Failure {
    Failure {
        status: 400,
        code: Some("previous_response_not_found".to_owned()),
        param: Some("previous_response_id".to_owned()),
        message: format!("Previous response with id '{id}' not found."),
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse_any;

    const SEED: &str = "0123456789abcdef0123456789abcdef";
    const ONE: &str = r#"{"type":"message","role":"user","content":"one"}"#;
    const CALL: &str = r#"{"id":"fc_1","type":"function_call","call_id":"c1","name":"f","arguments":"{}"}"#;
    const OUTPUT: &str = r#"{"type":"function_call_output","call_id":"c1","output":"21C"}"#;

    fn request(session: &mut Session, frame: &str) -> String {
        match session.frame(frame.as_bytes(), SEED, 7).unwrap() {
            Step::Request(body) => String::from_utf8(body).unwrap(),
            Step::Local(frames) => panic!("{frames:?}"),
        }
    }

    fn answer(session: &mut Session, id: &str, items: &[&str]) {
        session.answered(format!(r#"{{"type":"response.created","response":{{"id":"{id}"}}}}"#).as_bytes());
        for item in items {
            session.answered(format!(r#"{{"type":"response.output_item.done","item":{item}}}"#).as_bytes());
        }
        let end = format!(r#"{{"type":"response.completed","response":{{"id":"{id}","output":[]}}}}"#);
        session.answered(end.as_bytes());
    }

    fn input(body: &str) -> String {
        parse_any(body.as_bytes()).unwrap().get("input").unwrap().to_text()
    }

    #[test]
    fn a_later_turn_carries_the_conversation_once() {
        let mut session = Session::new();
        let first =
            format!(r#"{{"type":"response.create","model":"m","instructions":"A.","input":[{ONE}]}}"#);
        let body = request(&mut session, &first);
        assert_eq!(body, format!(r#"{{"stream":true,"model":"m","instructions":"A.","input":[{ONE}]}}"#));
        answer(&mut session, "resp_1", &[CALL]);
        let second = format!(
            r#"{{"type":"response.create","previous_response_id":"resp_1","input":[{CALL},{OUTPUT}],"x": 1.0}}"#
        );
        let body = request(&mut session, &second);
        assert_eq!(
            body,
            format!(
                r#"{{"stream":true,"model":"m","instructions":"A.","input":[{ONE},{CALL},{OUTPUT}],"x": 1.0}}"#
            )
        );
        answer(&mut session, "resp_2", &[]);
        let other = r#"{"type":"response.create","previous_response_id":"resp_1","input":"\u00e9"}"#;
        let text = r#"{"type":"message","role":"user","content":[{"type":"input_text","text":"é"}]}"#;
        assert_eq!(input(&request(&mut session, other)), format!("[{ONE},{CALL},{text}]"));
    }

    #[test]
    fn append_and_outputs_go_on_and_a_new_create_starts_over() {
        let mut session = Session::new();
        request(
            &mut session,
            &format!(r#"{{"type":"response.create","model":"m","instructions":"A.","input":[{ONE}]}}"#),
        );
        answer(&mut session, "resp_1", &[CALL]);
        let create = format!(r#"{{"type":"response.create","input":[{OUTPUT}]}}"#);
        assert_eq!(input(&request(&mut session, &create)), format!("[{ONE},{CALL},{OUTPUT}]"));
        let append = format!(r#"{{"type":"response.append","input":[{OUTPUT}]}}"#);
        assert_eq!(input(&request(&mut session, &append)), format!("[{ONE},{CALL},{OUTPUT}]"));
        let body = request(&mut session, &format!(r#"{{"type":"response.create","input":[{ONE}]}}"#));
        assert_eq!(body, format!(r#"{{"stream":true,"model":"m","input":[{ONE}]}}"#));
    }

    #[test]
    fn prewarm_is_answered_here_and_can_be_gone_on_from() {
        let mut session = Session::new();
        let frame = format!(
            r#"{{"type":"response.create","model":"m","generate":false,"input":[{ONE}],"tools":[{{"type":"web_search"}}]}}"#
        );
        let Step::Local(frames) = session.frame(frame.as_bytes(), SEED, 7).unwrap() else { panic!() };
        let events: Vec<_> = frames.iter().map(|frame| parse_any(frame).unwrap()).collect();
        let kinds: Vec<_> = events.iter().map(|event| event.get("type").unwrap().as_str().unwrap()).collect();
        assert_eq!(kinds, ["response.created", "response.completed"]);
        let response = events[1].get("response").unwrap();
        assert_eq!(response.get("id").unwrap().as_str(), Some(format!("resp_{SEED}").as_str()));
        assert_eq!(response.get("tools").unwrap().to_text(), r#"[{"type":"web_search"}]"#);
        assert_eq!(response.at(&["usage", "total_tokens"]).unwrap().as_u64(), Some(0));
        let next = format!(
            r#"{{"type":"response.create","previous_response_id":"resp_{SEED}","input":[{OUTPUT}]}}"#
        );
        assert_eq!(input(&request(&mut session, &next)), format!("[{ONE},{OUTPUT}]"));
    }

    #[test]
    fn bad_frames_are_named_and_leave_the_session_usable() {
        let mut session = Session::new();
        for (frame, says) in [
            ("{", "not valid JSON"),
            (r#"{"type":"response.bogus"}"#, "type: `response.bogus` is not supported"),
            (r#"{"type":"response.create","input":[]}"#, "model: required"),
            (r#"{"type":"response.create","model":"m"}"#, "input: required"),
            (r#"{"type":"response.create","model":"m","input":7}"#, "input: expected"),
            (r#"{"type":"response.append","model":"m","input":[]}"#, "no response yet"),
        ] {
            let error = session.frame(frame.as_bytes(), SEED, 7).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let unknown = r#"{"type":"response.create","model":"m","previous_response_id":"resp_9","input":[]}"#;
        let Step::Local(frames) = session.frame(unknown.as_bytes(), SEED, 7).unwrap() else { panic!() };
        let error = parse_any(&frames[0]).unwrap();
        assert_eq!(error.at(&["error", "code"]).unwrap().as_str(), Some("previous_response_not_found"));
        request(&mut session, &format!(r#"{{"type":"response.create","model":"m","input":[{ONE}]}}"#));
    }

    #[test]
    fn a_failed_turn_is_forgotten() {
        let mut session = Session::new();
        request(&mut session, &format!(r#"{{"type":"response.create","model":"m","input":[{ONE}]}}"#));
        session.answered(br#"{"type":"response.failed","response":{"id":"resp_x"}}"#);
        let frame = r#"{"type":"response.create","previous_response_id":"resp_x","input":[]}"#;
        assert!(matches!(session.frame(frame.as_bytes(), SEED, 7).unwrap(), Step::Local(_)));
    }
}
