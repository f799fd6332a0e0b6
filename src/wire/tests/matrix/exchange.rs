//! A request on its way to the upstream, and the answer on its way back.
//!
//! Enters: what is asked and what is answered. Leaves: what is wrong, or nothing.

use crate::meaning::{Ask, Said};
use crate::{format, losses};
use serde_json::Value;
use std::fmt::Debug;
use testkit::{record, vectors};
use wire::Protocol;
use wire::replay::{self, Replay, Sent};
use wire::target::Card;
use wire::translate::{Flow, Plan, Reply};

/// A request and its answer between a client and an upstream.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) name: String,
    pub(crate) client: Protocol,
    pub(crate) upstream: Protocol,
    pub(crate) ask: Ask,
    pub(crate) said: Said,
}

pub(crate) type Checked = Result<(), String>;

impl Exchange {
    pub(crate) fn replay(&self, stream: bool) -> Replay<'static> {
        Replay {
            stream,
            ..Replay::new(self.client, format::profile(self.upstream), "upstream-model", &Card::UNKNOWN)
        }
    }

    /// The request reaches the upstream with its meaning.
    pub(crate) fn request(&self, stream: bool) -> Result<Sent, String> {
        let streams = (self.client != Protocol::Gemini).then_some(stream);
        let ask = Ask { stream: streams, ..self.ask.clone() };
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
    pub(crate) fn record(&self, keep: impl FnOnce(&str, &str, &Value), value: &Value) {
        if self.client != self.upstream {
            keep(&self.name, self.client.name(), value);
        }
    }

    pub(crate) fn expected(&self) -> Result<Said, String> {
        losses::told(self.client, self.upstream, self.said.clone()).normal()
    }

    /// The whole answer, which is checked.
    pub(crate) fn whole(&self, plan: &Plan) -> Result<Value, String> {
        let body = json(&replay::whole(plan, &format::whole_answer(self.upstream, &self.said)))?;
        self.check_body(&body)?;
        self.record(record::body, &body);
        Ok(body)
    }

    pub(crate) fn check_body(&self, body: &Value) -> Checked {
        self.check_answer(body, &self.expected()?)
    }

    pub(crate) fn check_answer(&self, body: &Value, expected: &Said) -> Checked {
        none_broken(&vectors::broken_by_answer(self.client.name(), body))?;
        let told = format::read_answer(self.client, body)?;
        same("the answer", &told, expected).map_err(|e| format!("{e}\nbody: {body}"))
    }

    /// The folded stream, which is checked, also cut into single bytes.
    pub(crate) fn stream(&self, plan: &Plan) -> Result<Value, String> {
        let upstream = format::stream(self.upstream, &self.said);
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

    pub(crate) fn document(&self, events: &[u8]) -> Result<(Value, Vec<String>), String> {
        let document = vectors::stream_document(self.client.name(), events);
        document.ok_or_else(|| "the stream is not UTF-8".to_owned())
    }

    pub(crate) fn folded(&self, plan: &Plan) -> Checked {
        let streaming = self.request(true)?;
        let whole = format::comparable(self.client, &self.whole(plan)?);
        let folded = format::comparable(self.client, &self.stream(&streaming.plan)?);
        same("the stream, folded,", &folded, &whole)?;
        // An upstream that only streams.
        let mut reply = Reply::new(plan);
        reply.feed(&format::stream(self.upstream, &self.said));
        match reply.eof() {
            Flow::Done => self.check_answer(&json(&reply.take())?, &self.expected()?),
            other => Err(format!("events into a body: {other:?}")),
        }
    }
}

pub(crate) fn json(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("no JSON ({error}): {}", text(bytes)))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn none_broken(rules: &[String]) -> Checked {
    if rules.is_empty() { Ok(()) } else { Err(format!("broken rules: {rules:?}")) }
}

pub(crate) fn same<T: PartialEq + Debug>(what: &str, got: &T, wanted: &T) -> Checked {
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
