//! What a conversation means, whatever format it is written in.
//!
//! Each format's folder writes these types in its own words and reads them back. Nothing of the code under test
//! is used: what [`crate::cell`] compares has been written and read by the tests alone.

use serde_json::{Map, Value, json};

/// What a client asks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ask {
    pub(crate) system: String,
    pub(crate) turns: Vec<Turn>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: Option<Choice>,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) temperature: Option<f64>,
    pub(crate) stop: Vec<String>,
    /// Whether the model is asked to think, and to show it.
    pub(crate) thinks: bool,
    /// `None` where the format says so in the URL.
    pub(crate) stream: Option<bool>,
}

/// Messages that follow each other and have one speaker are one turn.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Turn {
    pub(crate) user: bool,
    pub(crate) parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    Text(String),
    Image { mime: String, data: String },
    Document { mime: String, data: String, name: Option<String> },
    Call { id: String, name: String, args: Value },
    Result { id: String, text: String },
    Thought { text: String, signature: Option<String> },
    Refusal(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) schema: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Choice {
    Auto,
    Any,
    Named(String),
}

/// What an upstream answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Said {
    pub(crate) blocks: Vec<Block>,
    pub(crate) finish: Option<Finish>,
    pub(crate) usage: Counts,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Block {
    Thought {
        text: String,
        signature: Option<String>,
    },
    /// With the URLs it cites.
    Text {
        text: String,
        urls: Vec<String>,
    },
    Refusal(String),
    Image {
        mime: String,
        data: String,
    },
    Call {
        id: String,
        name: String,
        args: Value,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    Stop,
    Tools,
    Length,
    Refused,
}

/// `prompt` includes `cached`, `output` includes `reasoning`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) prompt: u64,
    pub(crate) cached: u64,
    pub(crate) output: u64,
    pub(crate) reasoning: u64,
}

impl Ask {
    /// The same with turns of one speaker joined, and with ids that name calls by their order: an id may be
    /// changed on the way, as long as each result finds its call. Calls of one turn that have no ids (Gemini)
    /// are bound by order.
    pub(crate) fn normal(mut self) -> Self {
        let mut turns: Vec<Turn> = Vec::new();
        for turn in self.turns {
            match turns.last_mut() {
                Some(last) if last.user == turn.user => last.parts.extend(turn.parts),
                _ => turns.push(turn),
            }
        }
        let (mut calls, mut results): (Vec<String>, usize) = (Vec::new(), 0);
        for part in turns.iter_mut().flat_map(|turn| &mut turn.parts) {
            match part {
                Part::Call { id, .. } => {
                    calls.push(std::mem::replace(id, format!("call {}", calls.len())));
                }
                Part::Result { id, .. } => {
                    let known = calls.iter().position(|call| !id.is_empty() && call == id);
                    let at = known.or_else(|| id.is_empty().then_some(results));
                    *id = at.map_or_else(|| format!("no call: {id}"), |at| format!("call {at}"));
                    results += 1;
                }
                _ => {}
            }
        }
        self.turns = turns;
        self
    }
}

impl Said {
    /// The same with texts that follow each other joined, empty ones left out, and calls named by order.
    /// Fails on calls without id or with the same one: the client could not answer them.
    pub(crate) fn normal(mut self) -> Result<Self, String> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut ids: Vec<String> = Vec::new();
        for mut block in self.blocks {
            if let Block::Call { id, .. } = &mut block {
                if id.is_empty() || ids.contains(id) {
                    return Err(format!("the id {id:?} of a call is empty or not its own"));
                }
                ids.push(std::mem::replace(id, format!("call {}", ids.len())));
            }
            match (blocks.last_mut(), block) {
                (Some(Block::Text { text, urls }), Block::Text { text: more, urls: more_urls }) => {
                    text.push_str(&more);
                    urls.extend(more_urls);
                }
                (
                    Some(Block::Thought { text, signature: old @ None }),
                    Block::Thought { text: more, signature },
                ) => {
                    text.push_str(&more);
                    *old = signature;
                }
                (_, Block::Text { text, urls }) if text.is_empty() && urls.is_empty() => {}
                (_, block) => blocks.push(block),
            }
        }
        self.blocks = blocks;
        Ok(self)
    }

    /// All visible text.
    pub(crate) fn text(&self) -> String {
        let text = |block: &Block| match block {
            Block::Text { text, .. } | Block::Refusal(text) => text.clone(),
            _ => String::new(),
        };
        self.blocks.iter().map(text).collect()
    }
}

/// The text of a member, or nothing.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The elements of a member that is an array, or none.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A count, or 0.
pub(crate) fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// JSON text as a value; text that is none stays text, so that a comparison shows it.
pub(crate) fn parsed(value: &Value) -> Value {
    let text = text(value);
    serde_json::from_str(&text).unwrap_or(json!({"no JSON": text}))
}

/// `data:` URL of bytes, and back.
pub(crate) fn data_url(mime: &str, data: &str) -> String {
    format!("data:{mime};base64,{data}")
}

pub(crate) fn from_data_url(url: &Value) -> (String, String) {
    let url = text(url);
    let parts = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    parts.map_or((String::new(), url.clone()), |(mime, data)| (mime.to_owned(), data.to_owned()))
}

/// An object without the members that are null.
pub(crate) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            members.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>().into()
        }
        other => other,
    }
}

/// Text in pieces, as models send it: cut after the first character and before the last.
pub(crate) fn pieces(text: &str) -> Vec<&str> {
    let mut ends: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    ends.push(text.len());
    let cuts = [ends.get(1), ends.iter().rev().nth(1)];
    let mut from = 0;
    let mut pieces = Vec::new();
    for to in cuts.into_iter().flatten().copied().chain([text.len()]) {
        if to > from {
            pieces.push(&text[from..to]);
            from = to;
        }
    }
    pieces
}

/// One SSE event.
pub(crate) fn event(name: &str, data: &Value) -> String {
    let name = if name.is_empty() { String::new() } else { format!("event: {name}\n") };
    format!("{name}data: {data}\n\n")
}
