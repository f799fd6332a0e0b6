//! Inputs of any size, each of a shape that has made proxies slow, and the code that has to take them.

use crate::format;
use crate::meaning::{Ask, Block, Choice, Counts, Finish, Part, Said, Tool, Turn};
use serde_json::{Map, Value, json};
use std::hint::black_box;
use wire::Protocol;
use wire::replay::{self, Replay};
use wire::sse::Decoder;
use wire::target::{Card, Profile};
use wire::translate::Plan;

/// One case: a name, and a size at which valgrind needs about a second.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) size: usize,
    make: Make,
}

#[derive(Clone, Copy, Debug)]
enum Make {
    /// Takes quadratic time, to see that it is found.
    Quadratic,
    Head(fn(usize) -> String),
    Sse(fn(usize) -> String, usize),
    Request(Protocol, Profile, fn(usize) -> Ask),
    Stream(Protocol, Protocol, fn(usize) -> Said, usize),
    Whole(Protocol, Protocol, fn(usize) -> Said),
}

/// What is measured, ready to run.
#[derive(Debug)]
pub(crate) enum Work {
    Quadratic(usize),
    Head(Vec<u8>),
    Sse(Vec<u8>, usize),
    Request(Replay<'static>, Vec<u8>),
    Stream(Box<Plan>, Vec<u8>, Vec<usize>),
    Whole(Box<Plan>, Vec<u8>),
}

impl Case {
    pub(crate) fn work(&self, size: usize) -> Work {
        match self.make {
            Make::Quadratic => Work::Quadratic(size),
            Make::Head(body) => Work::Head(body(size).into_bytes()),
            Make::Sse(stream, piece) => Work::Sse(stream(size).into_bytes(), piece),
            Make::Request(client, profile, ask) => {
                Work::Request(replay(client, profile, false), format::write_request(client, &ask(size)))
            }
            Make::Stream(client, upstream, said, piece) => {
                let bytes = format::stream(upstream, &said(size));
                let cuts = (1..bytes.len()).step_by(piece).collect();
                Work::Stream(Box::new(plan(client, upstream, true)), bytes, cuts)
            }
            Make::Whole(client, upstream, said) => Work::Whole(
                Box::new(plan(client, upstream, false)),
                format::whole_answer(upstream, &said(size)),
            ),
        }
    }
}

impl Work {
    /// Number of bytes or events that came out, so that nothing is optimised away.
    pub(crate) fn run(&self) -> usize {
        match self {
            Self::Quadratic(n) => (0..*n).flat_map(|a| (0..*n).map(move |b| black_box(a ^ b))).count(),
            Self::Head(body) => {
                let known = |protocol| wire::head::parse(body, protocol).map_or(0, |head| head.members.len());
                Protocol::ALL.into_iter().map(known).sum()
            }
            Self::Sse(bytes, piece) => {
                let (mut decoder, mut events) = (Decoder::default(), 0);
                for chunk in bytes.chunks(*piece) {
                    decoder.feed(chunk, |event| events += event.data.len()).unwrap();
                }
                decoder.finish(|event| events += event.data.len());
                events
            }
            Self::Request(replay, body) => replay.request(body).map_or(0, |sent| sent.body.len()),
            Self::Stream(plan, bytes, cuts) => replay::streamed(plan, bytes, cuts).len(),
            Self::Whole(plan, bytes) => replay::whole(plan, bytes).len(),
        }
    }
}

fn replay(client: Protocol, profile: Profile, stream: bool) -> Replay<'static> {
    Replay { stream, project: "p", ..Replay::new(client, profile, "m", &Card::UNKNOWN) }
}

fn plan(client: Protocol, upstream: Protocol, stream: bool) -> Plan {
    let body = format::write_request(client, &turns(1));
    replay(client, format::profile(upstream), stream).request(&body).unwrap().plan
}

type Shape<T> = (&'static str, usize, fn(usize) -> T);

/// A case that must not pass.
pub(crate) const QUADRATIC: &str = "quadratic";

/// All cases.
pub(crate) fn cases() -> Vec<Case> {
    const BODIES: [Shape<String>; 4] = [
        ("members", 2000, members),
        ("escapes", 8000, escapes),
        ("nested", 200, nested),
        ("blanks", 40_000, blanks),
    ];
    const STREAMS: [Shape<String>; 3] =
        [("lines", 2000, lines), ("one_line", 200_000, one_line), ("returns", 20_000, returns)];
    const ASKS: [Shape<Ask>; 4] =
        [("turns", 50, turns), ("calls", 40, calls), ("tools", 40, tools), ("text", 4_000, text)];
    // How a schema is rewritten depends on the upstream only.
    const SCHEMAS: [Shape<Ask>; 2] = [("schema", 50, schema), ("references", 40, references)];
    const SAID: [Shape<Said>; 4] =
        [("texts", 40, texts), ("calls", 40, said_calls), ("mixed", 25, mixed), ("text", 4_000, said_text)];
    let case = |name: String, size, make| Case { name, size, make };
    let mut cases = vec![case(QUADRATIC.to_owned(), 100, Make::Quadratic)];
    for (shape, size, body) in BODIES {
        cases.push(case(format!("head::{shape}"), size, Make::Head(body)));
    }
    for (shape, size, stream) in STREAMS {
        cases.push(case(format!("sse::{shape}"), size, Make::Sse(stream, usize::MAX)));
        cases.push(case(format!("sse::{shape}_bytewise"), size / 8, Make::Sse(stream, 1)));
    }
    for client in Protocol::ALL {
        let from = format::name(client);
        for profile in
            [Profile::Chat, Profile::Responses, Profile::Claude, Profile::Gemini, Profile::Antigravity]
        {
            let schemas = SCHEMAS.iter().filter(|_| client == Protocol::OpenaiChat);
            for &(shape, size, ask) in ASKS.iter().chain(schemas) {
                let name = format!("request::{from}_to_{}::{shape}", profile.name());
                cases.push(case(name, size, Make::Request(client, profile, ask)));
            }
        }
        for upstream in Protocol::ALL {
            let pair = format!("{from}_to_{}", format::name(upstream));
            for (shape, size, said) in SAID {
                let stream = Make::Stream(client, upstream, said, 1000);
                cases.push(case(format!("stream::{pair}::{shape}"), size, stream));
            }
            let whole = Make::Whole(client, upstream, mixed);
            cases.push(case(format!("whole::{pair}::mixed"), 25, whole));
            let bytes = Make::Stream(client, upstream, said_text, 1);
            cases.push(case(format!("stream::{pair}::bytewise"), 500, bytes));
        }
    }
    cases
}

fn members(n: usize) -> String {
    let members: Vec<String> = (0..n).map(|at| format!("\"k{at}\":{{\"a\":[{at},null]}}")).collect();
    let members = members.join(",");
    format!("{{\"model\":\"m\",\"messages\":[],\"input\":[],\"contents\":[],{members}}}")
}

fn escapes(n: usize) -> String {
    format!("{{\"model\":\"m\",\"x\":\"{}\"}}", "\\\"\\\\\\u00e9".repeat(n))
}

fn nested(n: usize) -> String {
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    format!("{{\"model\":\"m\",\"x\":[{}]}}", vec![deep; n].join(","))
}

fn blanks(n: usize) -> String {
    format!("{{{}\"model\":\"m\"}}", " \n".repeat(n))
}

fn lines(n: usize) -> String {
    "data: x\n".repeat(n) + "\n"
}

fn one_line(n: usize) -> String {
    format!("data: {}\n\n", "x".repeat(n))
}

fn returns(n: usize) -> String {
    "data: x\r\r".repeat(n)
}

fn say(user: bool, parts: Vec<Part>) -> Turn {
    Turn { user, parts }
}

fn words(text: impl Into<String>) -> Part {
    Part::Text(text.into())
}

fn turns(n: usize) -> Ask {
    let round = |at| [say(true, vec![words(format!("q{at}\n"))]), say(false, vec![words("\"a\"")])];
    let mut turns: Vec<Turn> = (0..n).flat_map(round).collect();
    turns.push(say(true, vec![words("end")]));
    Ask { turns, ..Ask::default() }
}

/// One turn with many calls, and all their results.
fn calls(n: usize) -> Ask {
    let id = |at: usize| format!("call_{at}");
    let call = |at| Part::Call { id: id(at), name: "f".to_owned(), args: json!({"a": at}) };
    let result = |at| Part::Result { id: id(at), text: format!("r{at}") };
    let turns = vec![
        say(true, vec![words("go")]),
        say(false, (0..n).map(call).collect()),
        say(true, (0..n).map(result).collect()),
    ];
    Ask {
        turns,
        tools: vec![tool("f".to_owned(), json!({"type": "object", "properties": {}}))],
        ..Ask::default()
    }
}

fn tool(name: String, schema: Value) -> Tool {
    Tool { name, description: "d".to_owned(), schema }
}

/// Names that are too long and become the same when they are cut.
fn tools(n: usize) -> Ask {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let tools = (0..n).map(|at| tool(format!("{}{at}", "n".repeat(70)), schema.clone())).collect();
    Ask { tools, choice: Some(Choice::Auto), ..turns(1) }
}

fn text(n: usize) -> Ask {
    Ask { turns: vec![say(true, vec![words("\"\\\n\u{0}é".repeat(n / 4))])], ..Ask::default() }
}

/// One schema with many properties, each with what has to be rewritten somewhere.
fn schema(n: usize) -> Ask {
    let property = |at: usize| {
        let kind = json!({"anyOf": [{"type": ["string", "null"]}, {"const": at}], "default": 1, "pattern": "x", "minLength": 1});
        (format!("p{at}"), kind)
    };
    let properties: Map<String, Value> = (0..n).map(property).collect();
    let required: Vec<String> = (0..n).map(|at| format!("p{at}")).collect();
    let schema = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    Ask { tools: vec![tool("f".to_owned(), schema)], ..turns(1) }
}

/// Many properties that each refer to a definition of its own, which refers to the next one.
fn references(n: usize) -> Ask {
    let name = |at: usize| format!("d{at}");
    let to = |at: usize| json!({"$ref": format!("#/$defs/{}", name(at))});
    let properties: Map<String, Value> = (0..n).map(|at| (format!("p{at}"), to(at))).collect();
    let definition = |at: usize| {
        (name(at), json!({"type": "object", "properties": {"next": to(at + 1), "x": {"type": "string"}}}))
    };
    let mut definitions: Map<String, Value> = (0..n).map(definition).collect();
    definitions.insert(name(n), json!({"type": "string"}));
    let schema = json!({"type": "object", "properties": properties, "$defs": definitions});
    Ask { tools: vec![tool("f".to_owned(), schema)], ..turns(1) }
}

fn said(blocks: Vec<Block>, finish: Finish) -> Said {
    Said { blocks, finish: Some(finish), usage: Counts { prompt: 1, cached: 0, output: 1, reasoning: 0 } }
}

fn block(at: usize) -> Block {
    Block::Text { text: format!("text {at}"), urls: Vec::new() }
}

fn call(at: usize) -> Block {
    Block::Call { id: format!("call_{at}"), name: "f".to_owned(), args: json!({"a": at}) }
}

fn texts(n: usize) -> Said {
    said((0..n).map(block).collect(), Finish::Stop)
}

fn said_calls(n: usize) -> Said {
    said((0..n).map(call).collect(), Finish::Tools)
}

/// Thinking, text and calls in turns.
fn mixed(n: usize) -> Said {
    let three = |at| [Block::Thought { text: format!("t{at}"), signature: None }, block(at), call(at)];
    said((0..n).flat_map(three).collect(), Finish::Tools)
}

fn said_text(n: usize) -> Said {
    said(vec![Block::Text { text: "\"\\\n\u{0}é".repeat(n / 4), urls: Vec::new() }], Finish::Stop)
}
