//! Items of `output` and the `response` object: written by the stream's events and by the whole answer alike.
//!
//! Enters: items as far as they are known. Leaves: JSON with every member that the official types require,
//! also while an answer is in progress. May go wrong: nothing.
//!
//! | block | item |
//! |---|---|
//! | text, refusal | a part of a `message`; parts that follow each other share one |
//! | reasoning | `reasoning`; the signature of any vendor travels in `encrypted_content` |
//! | tool | `function_call` or `custom_tool_call` |
//! | image | `image_generation_call` |
//! | server | as it is, when it is of this format; a web search of Claude becomes a `web_search_call` |

use super::REDACTED;
use super::ids::item_id;
use crate::error::Failure;
use crate::ir::{Block, Citation, Context, Finish, Str, ToolKind, Usage};
use crate::json::{Array, Json, Object, object, parse_any};
use crate::patch::Patch;

/// How far an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    InProgress,
    Completed,
    Incomplete,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
        }
    }
}

/// A part of a message.
#[derive(Debug, Default)]
pub(super) struct Piece<'a> {
    pub(super) refusal: bool,
    pub(super) text: Str<'a>,
    pub(super) citations: Vec<Citation<'a>>,
    /// Arrays of log probabilities, as JSON text.
    pub(super) logprobs: Vec<Str<'a>>,
    /// Nothing more comes.
    pub(super) closed: bool,
}

/// What an item holds.
#[derive(Debug)]
pub(super) enum Body<'a> {
    Message(Vec<Piece<'a>>),
    Reasoning { parts: Vec<Str<'a>>, sealed: Str<'a> },
    Call { call_id: Str<'a>, name: Str<'a>, namespace: Option<Str<'a>>, kind: ToolKind, arguments: Str<'a> },
    Image { mime: Str<'a>, data: Str<'a> },
    Server { raw: String },
}

impl<'a> Body<'a> {
    /// What carries the signature of the call before it, so that it comes back: the reader puts it there.
    pub(super) fn carrier(signature: impl Into<Str<'a>>) -> Self {
        Self::Reasoning { parts: Vec::new(), sealed: signature.into() }
    }
}

/// An item of `output`.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) id: String,
    pub(super) state: State,
    pub(super) body: Body<'a>,
}

impl<'a> Item<'a> {
    /// Item `index` of the answer, in progress.
    pub(super) fn new(body: Body<'a>, seed: &str, index: usize) -> Self {
        let prefix = match &body {
            Body::Message(_) => "msg",
            Body::Reasoning { .. } => "rs",
            Body::Call { kind: ToolKind::Function, .. } => "fc",
            Body::Call { kind: ToolKind::Custom, .. } => "ctc",
            Body::Image { .. } => "ig",
            Body::Server { .. } => "item",
        };
        Self { id: item_id(prefix, seed, index), state: State::InProgress, body }
    }

    /// A finished item of a built-in tool; `None` when no client of this format understands it.
    pub(super) fn server(kind: &str, raw: &str, seed: &str, index: usize) -> Option<Self> {
        let value = parse_any(raw.as_bytes()).ok()?;
        let text = |key: &str| value.get(key).and_then(Json::as_str).filter(|text| !text.is_empty());
        let state = State::Completed;
        if is_own(kind) {
            if let Some(id) = text("id") {
                let body = Body::Server { raw: raw.to_owned() };
                return Some(Self { id: id.to_owned(), state, body });
            }
            let id = item_id("item", seed, index);
            let mut patch = Patch::new(raw.as_bytes());
            patch.set(0, "id", crate::json::string(&id));
            let raw = String::from_utf8(patch.apply()).ok()?;
            return Some(Self { id, state, body: Body::Server { raw } });
        }
        if kind != "server_tool_use" || text("name") != Some("web_search") {
            return None;
        }
        let query = value.at(&["input", "query"]).and_then(Json::as_str).unwrap_or_default();
        let id = item_id("ws", seed, index);
        let mut out = Vec::new();
        object(&mut out, |o| {
            o.str("id", &id);
            o.str("type", "web_search_call");
            o.str("status", "completed");
            o.object("action", |o| {
                o.str("type", "search");
                o.str("query", query);
            });
        });
        let raw = String::from_utf8(out).ok()?;
        Some(Self { id, state, body: Body::Server { raw } })
    }

    /// Appends the item.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        if let Body::Server { raw } = &self.body {
            return out.extend_from_slice(raw.as_bytes());
        }
        object(out, |o| {
            o.str("id", &self.id);
            match &self.body {
                Body::Message(pieces) => {
                    o.str("type", "message");
                    o.str("status", self.state.name());
                    o.str("role", "assistant");
                    o.array("content", |a| pieces.iter().for_each(|piece| a.object(|o| piece.write(o))));
                }
                Body::Reasoning { parts, sealed } => {
                    o.str("type", "reasoning");
                    o.array("summary", |a| parts.iter().for_each(|part| a.object(|o| summary(o, part))));
                    o.opt_str("encrypted_content", (!sealed.is_empty()).then_some(sealed.as_ref()));
                }
                Body::Call { call_id, name, namespace, kind, arguments } => {
                    let custom = *kind == ToolKind::Custom;
                    o.str("type", if custom { "custom_tool_call" } else { "function_call" });
                    if !custom {
                        o.str("status", self.state.name());
                    }
                    o.str("call_id", call_id);
                    o.str("name", name);
                    o.opt_str("namespace", namespace.as_deref());
                    o.str(if custom { "input" } else { "arguments" }, arguments);
                }
                Body::Image { mime, data } => {
                    o.str("type", "image_generation_call");
                    o.str("status", self.state.name());
                    o.nullable_str("result", (!data.is_empty()).then_some(data.as_ref()));
                    o.str("output_format", mime.strip_prefix("image/").unwrap_or("png"));
                }
                Body::Server { .. } => {}
            }
        });
    }
}

/// Types of items of built-in tools.
fn is_own(kind: &str) -> bool {
    kind.ends_with("_call")
        || kind.ends_with("_call_output")
        || matches!(
            kind,
            "compaction"
                | "mcp_list_tools"
                | "mcp_approval_request"
                | "tool_search_output"
                | "program"
                | "program_output"
        )
}

impl Piece<'_> {
    /// Writes the part's members.
    pub(super) fn write(&self, o: &mut Object<'_>) {
        if self.refusal {
            o.str("type", "refusal");
            return o.str("refusal", &self.text);
        }
        o.str("type", "output_text");
        o.array("annotations", |a| self.annotations(|_, annotation| a.object(|o| annotation(o))));
        self.write_logprobs(o);
        o.str("text", &self.text);
    }

    /// Writes `logprobs`, one array of all.
    pub(super) fn write_logprobs(&self, o: &mut Object<'_>) {
        o.array("logprobs", |a| self.logprobs.iter().for_each(|list| flatten(a, list)));
    }

    /// Calls `each` with the number and the members of each annotation.
    pub(super) fn annotations(&self, mut each: impl FnMut(usize, &dyn Fn(&mut Object<'_>))) {
        let length = self.text.chars().count() as u64;
        let known = |citation: &&Citation<'_>| !citation.url.is_empty() || !citation.document.is_empty();
        for (n, citation) in self.citations.iter().filter(known).enumerate() {
            each(n, &|o| annotation(o, citation, length));
        }
    }
}

/// A citation without a place is about all of the text.
fn annotation(o: &mut Object<'_>, citation: &Citation<'_>, length: u64) {
    if citation.url.is_empty() {
        o.str("type", "file_citation");
        o.str("file_id", &citation.document);
        o.str("filename", &citation.title);
        return o.uint("index", citation.start.unwrap_or(0));
    }
    o.str("type", "url_citation");
    o.str("url", &citation.url);
    o.str("title", &citation.title);
    o.uint("start_index", citation.start.unwrap_or(0));
    o.uint("end_index", citation.end.unwrap_or(length));
}

fn flatten(out: &mut Array<'_>, list: &str) {
    let inner = list.trim().strip_prefix('[').and_then(|list| list.strip_suffix(']')).unwrap_or("").trim();
    if !inner.is_empty() {
        out.raw(inner);
    }
}

/// A part of a reasoning summary.
pub(super) fn summary(o: &mut Object<'_>, text: &str) {
    o.str("type", "summary_text");
    o.str("text", text);
}

/// `encrypted_content` for Claude's redacted thinking.
pub(super) fn redacted(data: &str) -> String {
    format!("{REDACTED}{data}")
}

/// The items of a whole answer.
pub(super) fn items<'a>(blocks: &'a [Block], seed: &str) -> Vec<Item<'a>> {
    let mut items: Vec<Item<'a>> = Vec::new();
    for block in blocks {
        let index = items.len();
        let body = match block {
            Block::Text { text, citations, .. } if text.is_empty() && citations.is_empty() => continue,
            Block::Refusal(text) if text.is_empty() => continue,
            Block::Text { text, citations, logprobs, .. } => {
                let logprobs = logprobs.iter().map(|list| list.as_str().into()).collect();
                let text = text.as_str().into();
                let citations = citations.clone();
                put(&mut items, Piece { refusal: false, text, citations, logprobs, closed: true }, seed);
                continue;
            }
            Block::Refusal(text) => {
                let piece = Piece { refusal: true, text: text.as_str().into(), ..Piece::default() };
                put(&mut items, Piece { closed: true, ..piece }, seed);
                continue;
            }
            Block::Reasoning { parts, signature, redacted: data } => {
                let parts: Vec<Str<'a>> =
                    parts.iter().filter(|part| !part.is_empty()).map(|part| part.as_str().into()).collect();
                let sealed = match (data, signature) {
                    (Some(data), _) => redacted(data).into(),
                    (None, Some(signature)) => signature.value.as_ref().into(),
                    (None, None) if parts.is_empty() => continue,
                    (None, None) => Str::default(),
                };
                Body::Reasoning { parts, sealed }
            }
            Block::Tool { id, name, namespace, kind, arguments, signature } => {
                let body = Body::Call {
                    call_id: id.into(),
                    name: name.into(),
                    namespace: namespace.as_deref().map(Into::into),
                    kind: *kind,
                    arguments: whole_arguments(*kind, arguments).into(),
                };
                let bodies = [Some(body), signature.as_ref().map(|s| Body::carrier(s.value.as_ref()))];
                for (n, body) in bodies.into_iter().flatten().enumerate() {
                    items.push(Item { state: State::Completed, ..Item::new(body, seed, index + n) });
                }
                continue;
            }
            Block::Image { data, .. } if data.is_empty() => continue,
            Block::Image { mime, data } => Body::Image { mime: mime.into(), data: data.into() },
            Block::Server { kind, raw } => {
                items.extend(Item::server(kind, raw, seed, index));
                continue;
            }
        };
        items.push(Item { state: State::Completed, ..Item::new(body, seed, index) });
    }
    items
}

/// Adds a part to the message that is last, or to a new one.
fn put<'a>(items: &mut Vec<Item<'a>>, piece: Piece<'a>, seed: &str) {
    if let Some(Item { body: Body::Message(pieces), .. }) = items.last_mut() {
        return pieces.push(piece);
    }
    let index = items.len();
    items.push(Item { state: State::Completed, ..Item::new(Body::Message(vec![piece]), seed, index) });
}

/// Clients parse the arguments of a function: none are an empty object.
pub(super) fn whole_arguments(kind: ToolKind, arguments: &str) -> &str {
    if arguments.is_empty() && kind == ToolKind::Function { "{}" } else { arguments }
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// `completed` or `incomplete`.
    pub(super) status: &'static str,
    /// `incomplete_details.reason`.
    pub(super) reason: Option<&'static str>,
}

impl Outcome {
    /// | finish | status, reason |
    /// |---|---|
    /// | token limit, full context | incomplete, `max_output_tokens` |
    /// | filter, a call nobody can run, a refusal without words | incomplete, `content_filter` |
    /// | else | completed |
    pub(super) fn of(finish: Option<Finish>, items: &[Item<'_>]) -> Self {
        let reason = match finish {
            Some(Finish::Length | Finish::Context) => Some("max_output_tokens"),
            Some(Finish::Filter | Finish::BadCall) => Some("content_filter"),
            Some(Finish::Refusal) if !says_no(items) => Some("content_filter"),
            _ => None,
        };
        Self { status: if reason.is_some() { "incomplete" } else { "completed" }, reason }
    }
}

fn says_no(items: &[Item<'_>]) -> bool {
    items.iter().any(|item| match &item.body {
        Body::Message(pieces) => pieces.iter().any(|piece| piece.refusal),
        _ => false,
    })
}

/// The message that the limit or the filter cut is not complete either.
pub(super) fn mark_cut(items: &mut [Item<'_>], outcome: Outcome) {
    if let (Some(_), Some(item @ Item { body: Body::Message(_), .. })) = (outcome.reason, items.last_mut()) {
        item.state = State::Incomplete;
    }
}

/// A `response` object.
#[derive(Debug)]
pub(super) struct Shown<'s> {
    pub(super) id: &'s str,
    pub(super) model: &'s str,
    pub(super) created: u64,
    pub(super) status: &'static str,
    pub(super) reason: Option<&'static str>,
    pub(super) error: Option<&'s Failure>,
    pub(super) output: &'s [Item<'s>],
    pub(super) usage: Option<&'s Usage>,
    pub(super) context: &'s Context,
}

/// Members that are there even when the client did not send them; the types require the last three.
const DEFAULTS: [(&str, &str); 5] = [
    ("instructions", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("tool_choice", "\"auto\""),
    ("tools", "[]"),
];

impl Shown<'_> {
    /// Appends the object.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            o.str("id", self.id);
            o.str("object", "response");
            o.uint("created_at", self.created);
            o.str("status", self.status);
            match self.error {
                Some(failure) => o.object("error", |o| {
                    o.str("code", super::error::code(failure));
                    o.str("message", &failure.message);
                }),
                None => o.null("error"),
            }
            match self.reason {
                Some(reason) => o.object("incomplete_details", |o| o.str("reason", reason)),
                None => o.null("incomplete_details"),
            }
            o.str("model", self.model);
            o.array("output", |a| self.output.iter().for_each(|item| item.write(a.item())));
            self.echo(o);
            match self.usage {
                Some(counts) => o.object("usage", |o| usage(o, counts)),
                None => o.null("usage"),
            }
        });
    }

    fn echo(&self, o: &mut Object<'_>) {
        let sent = &self.context.echo;
        for (name, default) in DEFAULTS {
            let value = sent.iter().find(|(own, _)| *own == name);
            o.raw(name, value.map_or(default, |(_, value)| value));
        }
        for (name, value) in sent.iter().filter(|(name, _)| DEFAULTS.iter().all(|(own, _)| own != name)) {
            o.raw(name, value);
        }
    }
}

/// Figures that nobody reported are 0: the types require them.
pub(super) fn usage(o: &mut Object<'_>, counts: &Usage) {
    o.uint("input_tokens", counts.prompt());
    o.object("input_tokens_details", |o| {
        o.uint("cached_tokens", counts.cache_read.unwrap_or(0));
        o.uint("cache_write_tokens", counts.cache_write.unwrap_or(0));
    });
    o.uint("output_tokens", counts.output.unwrap_or(0));
    o.object("output_tokens_details", |o| o.uint("reasoning_tokens", counts.reasoning.unwrap_or(0)));
    o.uint("total_tokens", counts.total());
}
