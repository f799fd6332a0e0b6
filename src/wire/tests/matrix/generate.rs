//! Conversations that nobody thought of, made of pieces that have broken proxies.

use crate::meaning::{Ask, Block, Counts, Finish, Part, Said, Tool, Turn};
use crate::scenario;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};
use wire::Protocol;

/// What would end an event, a line, a string or a page if it were taken for more than text.
const PIECES: [&str; 24] = [
    "data:",
    "data: [DONE]",
    "[DONE]",
    "event: error",
    "id: 1",
    "retry: 0",
    ":",
    "\n",
    "\n\n",
    "\r\n\r\n",
    "\r",
    "</script>",
    "\u{0}",
    "\u{2028}",
    "\u{2029}",
    "\u{feff}",
    "\u{1f}",
    "\"",
    "\\",
    "\\u0000",
    "{\"type\":\"error\"}",
    "🦀",
    "e\u{301}",
    "\u{10ffff}",
];

/// Text, never blank: readers leave blank text out.
pub(crate) fn words() -> impl Strategy<Value = String> {
    let piece = prop_oneof![3 => select(&PIECES[..]).prop_map(str::to_owned), 2 => "[a-z ]{1,4}"];
    prop::collection::vec(piece, 1..6).prop_map(|pieces| {
        let text = pieces.concat();
        if text.trim().is_empty() { text + "x" } else { text }
    })
}

/// Any JSON value.
pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Exact in any reader.
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        words().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((words(), inner), 0..3).prop_map(object),
        ]
    })
}

fn object(members: Vec<(String, Value)>) -> Value {
    members.into_iter().collect::<Map<String, Value>>().into()
}

fn arguments() -> impl Strategy<Value = Value> {
    prop::collection::vec((words(), value()), 0..3).prop_map(object)
}

/// Names of tools; all are declared.
const NAMES: [&str; 3] = ["get_weather", "a", "Bash-2"];

fn tools() -> impl Strategy<Value = Vec<Tool>> {
    let tool = |name: &'static str| {
        words().prop_map(move |description| {
            let schema = json!({"type": "object", "properties": {"q": {"type": "string"}}});
            Tool { name: name.to_owned(), description, schema }
        })
    };
    NAMES.map(tool).prop_map(Vec::from)
}

/// A question, maybe with attachments, and the answer, maybe with calls and their results.
fn round() -> impl Strategy<Value = Vec<Turn>> {
    let picture = scenario::picture();
    let attachment = prop_oneof![
        3 => words().prop_map(Part::Text),
        1 => Just(Part::Image { mime: "image/png".to_owned(), data: picture }),
    ];
    let call = (select(&NAMES[..]), arguments(), words());
    (
        words(),
        prop::collection::vec(attachment, 0..2),
        prop::option::of(words()),
        prop::collection::vec(call, 0..3),
    )
        .prop_map(|(question, more, answer, calls)| {
            let user = std::iter::once(Part::Text(question)).chain(more).collect();
            let mut model: Vec<Part> = answer.into_iter().map(Part::Text).collect();
            let mut results = Vec::new();
            for (name, args, text) in calls {
                model.push(Part::Call { id: String::new(), name: name.to_owned(), args });
                results.push(Part::Result { id: String::new(), text });
            }
            if model.is_empty() {
                model.push(Part::Text("Yes.".to_owned()));
            }
            let turn = |user, parts| Turn { user, parts };
            let turns = [turn(true, user), turn(false, model), turn(true, results)];
            turns.into_iter().filter(|turn| !turn.parts.is_empty()).collect()
        })
}

/// A conversation that ends with the user.
pub(crate) fn ask() -> impl Strategy<Value = Ask> {
    let temperature = prop::option::of(select(&[0.0, 0.25, 1.0][..]));
    (
        prop::option::of(words()),
        prop::collection::vec(round(), 0..3),
        words(),
        tools(),
        prop::collection::vec("[a-z]{1,5}", 0..3),
        // Responses takes no less than 16.
        prop::option::of(16_u64..60_000),
        temperature,
    )
        .prop_map(|(system, rounds, last, tools, stop, max_tokens, temperature)| {
            let mut turns: Vec<Turn> = rounds.into_iter().flatten().collect();
            turns.push(Turn { user: true, parts: vec![Part::Text(last)] });
            number(&mut turns);
            let system = system.unwrap_or_default();
            Ask { system, turns, tools, max_tokens, temperature, stop, ..Ask::default() }
        })
}

/// Gives calls and results their ids, in order.
fn number(turns: &mut [Turn]) {
    let (mut calls, mut results) = (0, 0);
    for part in turns.iter_mut().flat_map(|turn| &mut turn.parts) {
        let (id, count) = match part {
            Part::Call { id, .. } => (id, &mut calls),
            Part::Result { id, .. } => (id, &mut results),
            _ => continue,
        };
        *id = format!("call_{count}");
        *count += 1;
    }
}

/// The shortest request.
pub(crate) fn hello() -> Ask {
    let parts = vec![Part::Text("Hello.".to_owned())];
    Ask { turns: vec![Turn { user: true, parts }], ..Ask::default() }
}

/// An answer of an upstream.
pub(crate) fn said(upstream: Protocol) -> impl Strategy<Value = Said> {
    let call = (select(&NAMES[..]), arguments());
    let counts = (0_u64..1000, 0_u64..1000, 0_u64..1000, 0_u64..1000);
    let thought = prop::option::of(words());
    (thought, prop::option::of(words()), prop::collection::vec(call, 0..3), counts, any::<bool>()).prop_map(
        move |(thought, text, calls, (fresh, cached, spoken, reasoning), cut)| {
            let signature = (upstream != Protocol::OpenaiChat).then(|| scenario::signature(upstream));
            let thought = thought.map(|text| Block::Thought { text, signature });
            let text = text.map(|text| Block::Text { text, urls: Vec::new() });
            let mut blocks: Vec<Block> = thought.into_iter().chain(text).collect();
            if blocks.is_empty() && calls.is_empty() {
                blocks.push(Block::Text { text: "Yes.".to_owned(), urls: Vec::new() });
            }
            let finish = match (calls.is_empty(), cut) {
                (false, _) => Finish::Tools,
                (true, true) => Finish::Length,
                (true, false) => Finish::Stop,
            };
            for (at, (name, args)) in calls.into_iter().enumerate() {
                blocks.push(Block::Call { id: format!("call_{at}"), name: name.to_owned(), args });
            }
            let usage = Counts { prompt: fresh + cached, cached, output: spoken + reasoning, reasoning };
            Said { blocks, finish: Some(finish), usage }
        },
    )
}

/// Adds members that no format has to some of the objects of a document, and says where.
pub(crate) fn add_members(document: &mut Value, places: &[(Index, Value)]) -> Vec<(String, Value)> {
    let mut added: Vec<String> = Vec::new();
    for (number, (place, value)) in places.iter().enumerate() {
        let mut objects = Vec::new();
        collect(document, String::new(), &mut objects);
        let pointer = objects[place.index(objects.len())].clone();
        let name = format!("x_unknown_{number}");
        if let Some(Value::Object(members)) = document.pointer_mut(&pointer) {
            members.insert(name.clone(), value.clone());
        }
        added.push(format!("{pointer}/{name}"));
    }
    // One may have come into another.
    let value = |pointer: &String| document.pointer(pointer).cloned().unwrap_or_default();
    added.iter().map(|pointer| (pointer.clone(), value(pointer))).collect()
}

fn collect(value: &Value, pointer: String, objects: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let key = key.replace('~', "~0").replace('/', "~1");
                collect(value, format!("{pointer}/{key}"), objects);
            }
            objects.push(pointer);
        }
        Value::Array(elements) => {
            for (at, value) in elements.iter().enumerate() {
                collect(value, format!("{pointer}/{at}"), objects);
            }
        }
        _ => {}
    }
}
