//! One cell: a request on its way to the upstream, and the answer on its way back.
//!
//! Enters: client format, upstream format, mode, scenario. Leaves: what is wrong, or nothing.

use crate::meaning::{Ask, Said};
use crate::scenario::{ERROR, Scenario};
use crate::{format, losses};
use serde_json::Value;
use std::fmt::Debug;
use testkit::{record, vectors};
use wire::Protocol;
use wire::error::Failure;
use wire::frames::Framing;
use wire::replay::{self, Replay, Sent};
use wire::target::{Card, Operation};
use wire::translate::{Flow, Plan, Reply};

/// How the answer comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A body comes, a body goes.
    Whole,
    /// Events come, events go.
    Stream,
    /// Events come and a body goes; and the events of the stream, folded, are the body of the whole.
    Folded,
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::Whole, Self::Stream, Self::Folded];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Stream => "stream",
            Self::Folded => "folded",
        }
    }
}

/// A cell of the matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) client: Protocol,
    pub(crate) upstream: Protocol,
    pub(crate) mode: Mode,
    pub(crate) scenario: Scenario,
}

type Checked = Result<(), String>;

impl Cell {
    pub(crate) fn name(self) -> String {
        let (client, upstream) = (format::name(self.client), format::name(self.upstream));
        format!("matrix::{client}_to_{upstream}::{}::{}", self.mode.name(), self.scenario.name())
    }

    pub(crate) fn run(self) -> Checked {
        let sent = self.request(self.mode == Mode::Stream)?;
        match (self.scenario, self.mode) {
            (Scenario::Error, Mode::Whole) => self.whole_error(&sent.plan),
            (Scenario::Error, Mode::Stream) => self.stream_error(&sent.plan),
            (Scenario::Cut, Mode::Whole) => self.whole_cut(&sent.plan),
            (Scenario::Cut, Mode::Stream) => self.stream_cut(&sent.plan),
            (Scenario::Error | Scenario::Cut, Mode::Folded) => self.folded_error(&sent.plan),
            (_, Mode::Whole) => self.whole(&sent.plan).map(drop),
            (_, Mode::Stream) => self.stream(&sent.plan).map(drop),
            (_, Mode::Folded) => self.folded(&sent.plan),
        }
    }

    fn replay(self, stream: bool) -> Replay<'static> {
        const CARD: &Card =
            &Card { thinking: wire::thinking::Support::Unknown, max_output: None, context: None };
        Replay {
            client: self.client,
            operation: Operation::Generate,
            profile: format::profile(self.upstream),
            model: "upstream-model",
            card: CARD,
            stream,
            framing: Framing::Sse,
            project: "",
            created: 1_700_000_000,
            seed: "0123456789abcdef0123456789abcdef",
        }
    }

    /// The request reaches the upstream with its meaning.
    fn request(self, stream: bool) -> Result<Sent, String> {
        let streams = (self.client != Protocol::Gemini).then_some(stream);
        let ask = Ask { stream: streams, ..self.scenario.ask(self.client, self.upstream) };
        let body = format::write_request(self.client, &ask);
        let sent = self.replay(stream).request(&body).map_err(|error| format!("refused: {error}"))?;
        let value = json(&sent.body)?;
        none_broken(&vectors::broken_by_request(self.upstream.name(), &value))?;
        let arrived = format::read_request(self.upstream, &value);
        let (mut expected, lost) = losses::asked(self.client, self.upstream, ask.normal());
        expected.stream = (self.upstream != Protocol::Gemini).then_some(stream);
        same("the request", &arrived, &expected).map_err(|e| format!("{e}\nbody: {value}"))?;
        if lost && sent.losses.is_empty() {
            return Err("a part of the request was dropped and no loss is recorded".to_owned());
        }
        Ok(sent)
    }

    /// Keeps what was made of the answer. Same formats: these are bytes that the test wrote itself.
    fn record(self, keep: impl FnOnce(&str, &str, &Value), value: &Value) {
        if self.client != self.upstream {
            keep(&self.name(), self.client.name(), value);
        }
    }

    fn said(self) -> Said {
        self.scenario.said(self.upstream)
    }

    fn expected(self) -> Result<Said, String> {
        losses::told(self.client, self.upstream, self.said()).normal()
    }

    /// The whole answer, which is checked.
    fn whole(self, plan: &Plan) -> Result<Value, String> {
        let body = json(&replay::whole(plan, &format::whole_answer(self.upstream, &self.said())))?;
        self.check_body(&body)?;
        self.record(record::body, &body);
        Ok(body)
    }

    fn check_body(self, body: &Value) -> Checked {
        self.check_answer(body, &self.expected()?)
    }

    fn check_answer(self, body: &Value, expected: &Said) -> Checked {
        none_broken(&vectors::broken_by_answer(self.client.name(), body))?;
        let told = format::read_answer(self.client, body)?;
        same("the answer", &told, expected).map_err(|e| format!("{e}\nbody: {body}"))
    }

    /// The folded stream, which is checked, also cut into single bytes.
    fn stream(self, plan: &Plan) -> Result<Value, String> {
        let upstream = format::stream(self.upstream, &self.said());
        let events = replay::streamed(plan, &upstream, &[]);
        let single: Vec<usize> = (1..upstream.len()).collect();
        if replay::streamed(plan, &upstream, &single) != events {
            return Err("the stream depends on how the upstream's bytes are cut".to_owned());
        }
        let (document, broken) = self.document(&events)?;
        none_broken(&broken)?;
        if document["errors"].as_array().is_some_and(|errors| !errors.is_empty()) {
            return Err(format!("errors in the stream: {}", document["errors"]));
        }
        let told = format::read_answer(self.client, &document["final"])?;
        same("the stream", &told, &self.expected()?).map_err(|e| format!("{e}\n{}", text(&events)))?;
        self.record(record::events, &document);
        Ok(document["final"].clone())
    }

    fn document(self, events: &[u8]) -> Result<(Value, Vec<String>), String> {
        let document = vectors::stream_document(self.client.name(), events);
        document.ok_or_else(|| "the stream is not UTF-8".to_owned())
    }

    fn folded(self, plan: &Plan) -> Checked {
        let streaming = self.request(true)?;
        let whole = format::comparable(self.client, &self.whole(plan)?);
        let folded = format::comparable(self.client, &self.stream(&streaming.plan)?);
        same("the stream, folded,", &folded, &whole)?;
        // An upstream that only streams.
        let mut reply = Reply::new(plan);
        reply.feed(&format::stream(self.upstream, &self.said()));
        match reply.eof() {
            Flow::Done => {
                self.check_answer(&json(&reply.take())?, &losses::collected(self.client, self.expected()?))
            }
            other => Err(format!("events into a body: {other:?}")),
        }
    }

    /// The upstream refuses the request.
    fn whole_error(self, plan: &Plan) -> Checked {
        let refusal = format::limited(self.upstream, ERROR);
        let failure = Failure::parse(429, &refusal);
        self.check_failure(&failure, 429)?;
        // Some servers say so with status 200.
        let failure = failed(plan, |reply| reply.whole(&refusal))?;
        self.check_failure(&failure, 429)
    }

    /// The failure is a body of the client's format with the upstream's words.
    fn check_failure(self, failure: &Failure, status: u16) -> Checked {
        let body = json(&failure.render(self.client))?;
        self.record(record::body, &body);
        let (message, kind) =
            format::error(self.client, &body).ok_or_else(|| format!("error of another shape: {body}"))?;
        same("message", &message.as_str(), &ERROR)?;
        same("status", &failure.status, &status)?;
        let known = match self.client {
            Protocol::OpenaiChat | Protocol::OpenaiResponses => "rate_limit_error",
            Protocol::Claude => "rate_limit_error",
            Protocol::Gemini => "RESOURCE_EXHAUSTED",
        };
        if status == 429 { same("error type", &kind.as_str(), &known) } else { Ok(()) }
    }

    /// The upstream breaks in the middle: what came before stays, and the last event is the error.
    fn stream_error(self, plan: &Plan) -> Checked {
        let said = format::stream(self.upstream, &self.said());
        let mut bytes = said[..content_end(&said)].to_vec();
        bytes.extend(format::failure(self.upstream, ERROR));
        let events = replay::streamed(plan, &bytes, &[]);
        let (document, _) = self.check_broken(&events)?;
        let error = &document["errors"][0];
        let error = if error["error"].is_null() && self.client != Protocol::OpenaiResponses {
            serde_json::json!({"error": error})
        } else {
            error.clone()
        };
        let (message, _) = format::error(self.client, &unwrapped(self.client, error))
            .ok_or_else(|| format!("error of another shape: {}", text(&events)))?;
        same("message", &message.as_str(), &ERROR)?;
        if document["text"] != "Sunny, and warm." {
            return Err(format!("what came before the error is {}", document["text"]));
        }
        self.record(record::events, &document);
        Ok(())
    }

    /// A stream that ends with one error event and does not look complete.
    fn check_broken(self, events: &[u8]) -> Result<(Value, Vec<String>), String> {
        let (document, broken) = self.document(events)?;
        let shown = || text(events);
        if document["errors"].as_array().map_or(0, Vec::len) != 1 {
            return Err(format!("not one error event: {}", shown()));
        }
        let kinds = document["events"].as_array().cloned().unwrap_or_default();
        let last = kinds.last().and_then(Value::as_str).unwrap_or_default();
        if !["error", "response.failed"].contains(&last) {
            return Err(format!("the error is not the last event: {}", shown()));
        }
        let finished = !["", "failed"].contains(&document["finish"].as_str().unwrap_or_default());
        if finished {
            return Err(format!("the stream looks complete: {}", shown()));
        }
        Ok((document, broken))
    }

    /// The upstream's bytes end at each place.
    fn stream_cut(self, plan: &Plan) -> Checked {
        let bytes = format::stream(self.upstream, &self.said());
        let expected = self.expected()?;
        let finish = finish_start(&bytes);
        for end in 0..bytes.len() {
            let events = replay::streamed(plan, &bytes[..end], &[]);
            let place = |problem: String| format!("cut at {end} of {}: {problem}", bytes.len());
            if end <= finish {
                let (_, broken) = self.check_broken(&events).map_err(place)?;
                none_broken(&broken).map_err(place)?;
                continue;
            }
            // The upstream had said why it ends: the answer is there, or the client is told otherwise.
            let (document, _) = self.document(&events)?;
            if document["errors"].as_array().is_none_or(Vec::is_empty) {
                let told = format::read_answer(self.client, &document["final"]).map_err(place)?;
                same("the text", &told.text(), &expected.text()).map_err(place)?;
                same("the end", &told.finish, &expected.finish).map_err(place)?;
            }
        }
        Ok(())
    }

    /// The upstream's body ends at each place.
    fn whole_cut(self, plan: &Plan) -> Checked {
        let bytes = format::whole_answer(self.upstream, &self.said());
        for end in 0..bytes.len() {
            let failure = failed(plan, |reply| reply.whole(&bytes[..end]))
                .map_err(|problem| format!("cut at {end}: {problem}"))?;
            let body = json(&failure.render(self.client))?;
            if failure.status != 502 || format::error(self.client, &body).is_none() {
                return Err(format!("cut at {end}: {failure:?} as {body}"));
            }
        }
        Ok(())
    }

    /// Events that break become an error body, never a part of the answer.
    fn folded_error(self, plan: &Plan) -> Checked {
        let said = format::stream(self.upstream, &self.said());
        let cut = &said[..content_end(&said)];
        let mut broken = cut.to_vec();
        broken.extend(format::failure(self.upstream, ERROR));
        let failure = match self.scenario {
            Scenario::Error => failed(plan, |reply| reply.feed(&broken))?,
            _ => failed(plan, |reply| {
                reply.feed(cut);
                reply.eof()
            })?,
        };
        match self.scenario {
            Scenario::Error => self.check_failure(&failure, failure.status),
            _ => same("status", &failure.status, &502),
        }
    }
}

/// The failure that an answer ends with.
fn failed(plan: &Plan, run: impl FnOnce(&mut Reply) -> Flow) -> Result<Failure, String> {
    let mut reply = Reply::new(plan);
    match run(&mut reply) {
        Flow::Failed(failure) => Ok(failure),
        other => Err(format!("no failure but {other:?}: {}", text(&reply.take()))),
    }
}

/// The inner error object of Chat, Claude and Gemini; all of the event of Responses.
fn unwrapped(client: Protocol, error: Value) -> Value {
    if client == Protocol::Claude {
        serde_json::json!({"type": "error", "error": error["error"]})
    } else {
        error
    }
}

/// Where the event begins that says why the answer ends.
fn finish_start(stream: &[u8]) -> usize {
    let text = std::str::from_utf8(stream).unwrap_or_default();
    let words =
        ["\"finish_reason\":\"", "\"stop_reason\":\"", "\"finishReason\":\"", "event: response.completed"];
    let at = words.iter().filter_map(|word| text.find(word)).min().unwrap_or(text.len());
    text[..at].rfind("\n\n").map_or(0, |end| end + 2)
}

/// Where all content has been sent and nothing has ended.
fn content_end(stream: &[u8]) -> usize {
    finish_start(stream)
}

fn json(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("no JSON ({error}): {}", text(bytes)))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn none_broken(rules: &[String]) -> Checked {
    if rules.is_empty() { Ok(()) } else { Err(format!("broken rules: {rules:?}")) }
}

fn same<T: PartialEq + Debug>(what: &str, got: &T, wanted: &T) -> Checked {
    if got == wanted {
        return Ok(());
    }
    let (got, wanted) = (format!("{got:#?}"), format!("{wanted:#?}"));
    let missing = |from: &str, of: &str| -> String {
        let there: Vec<&str> = of.lines().collect();
        let gone = from.lines().filter(|line| !there.contains(line)).map(str::trim);
        gone.flat_map(|line| ["\n    ", line]).collect()
    };
    let (more, less) = (missing(&got, &wanted), missing(&wanted, &got));
    if more.is_empty() && less.is_empty() {
        return Err(format!("{what} has another order: {got}"));
    }
    Err(format!("{what} differs:\n  got:{more}\n  wanted:{less}"))
}
