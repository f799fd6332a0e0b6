//! What a client asks: instructions, turns, tools and settings, borrowed from its body.

use crate::Protocol;
use crate::json::{Json, parse_any};
use crate::signature::Signature;
use crate::thinking::Thinking;
use std::borrow::Cow;

/// Text, borrowed from the body wherever it had no escapes.
pub type Str<'a> = Cow<'a, str>;

/// Valid JSON text as it was written: key order, blanks and number spelling are the client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawJson<'a>(pub Str<'a>);

impl RawJson<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value, read.
    pub fn parse(&self) -> Json<'_> {
        parse_any(self.0.as_bytes()).unwrap_or(Json::Null)
    }

    /// Whether it is an object.
    pub fn is_object(&self) -> bool {
        self.0.trim_start().starts_with('{')
    }
}

impl<'a> From<Json<'a>> for RawJson<'a> {
    fn from(value: Json<'a>) -> Self {
        Self(value.into_raw())
    }
}

/// A request for one answer.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    /// The model as the client named it; empty where the URL names it (Gemini).
    pub model: Str<'a>,
    /// Whether the client wants events.
    pub stream: bool,
    /// Chat: `stream_options.include_usage`. Other formats always report usage.
    pub include_usage: bool,
    /// System and developer text before the first turn, in order.
    pub system: Vec<Instruction<'a>>,
    /// The conversation, in order, as the client sent it. [`super::lower`] makes it fit.
    pub turns: Vec<Turn<'a>>,
    /// What the model may call.
    pub tools: Vec<Tool<'a>>,
    /// Whether and what it has to call.
    pub tool_choice: Option<ToolChoice<'a>>,
    /// Whether it may make several calls in one turn; `None`: the client did not say.
    pub parallel_tools: Option<bool>,
    /// How much it should think and whether the client wants to see it.
    pub thinking: Thinking,
    /// Lengths and stops.
    pub limits: Limits<'a>,
    /// Randomness.
    pub sampling: Sampling<'a>,
    /// Shape of the text.
    pub format: Option<Format<'a>>,
    /// `low`, `medium`, `high` (Chat `verbosity`, Responses `text.verbosity`).
    pub verbosity: Option<Str<'a>>,
    /// Chat `logprobs`/`top_logprobs`: how many alternatives per token.
    pub logprobs: Option<u64>,
    /// Lower-case output modalities (`text`, `image`, `audio`); empty: the model's default.
    pub modalities: Vec<Str<'a>>,
    /// Stable name of the end user (Chat `user`/`safety_identifier`, Claude `metadata.user_id`).
    pub user: Option<Str<'a>>,
    /// `prompt_cache_key` of the OpenAI formats.
    pub cache_key: Option<Str<'a>>,
    /// `service_tier` as the client wrote it.
    pub service_tier: Option<Str<'a>>,
    /// Chat: the client declared legacy `functions`, and reads calls as `function_call`.
    pub legacy_functions: bool,
    /// Gemini `safetySettings`.
    pub safety: Option<RawJson<'a>>,
    /// Responses `include`.
    pub include: Vec<Str<'a>>,
    /// Responses: members that its answer object repeats (`tools`, `tool_choice`, `metadata`, …), as sent.
    pub echo: Vec<(&'static str, RawJson<'a>)>,
    /// Top-level members that only the source format has, as sent: `(name, value)`. A writer of the same
    /// format may put them back; any other reports them as lost.
    pub extra: Vec<(Str<'a>, RawJson<'a>)>,
}

impl Request<'_> {
    /// Whether the client marked anything for Claude's prompt cache.
    pub fn has_cache_marks(&self) -> bool {
        let mut parts = self.turns.iter().flat_map(|turn| &turn.parts);
        self.system.iter().any(|line| line.cache.is_some())
            || self.tools.iter().any(|tool| matches!(tool, Tool::Function { cache: Some(_), .. }))
            || parts.any(Part::has_cache_mark)
    }
}

/// A line of instructions.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction<'a> {
    /// Never blank.
    pub text: Str<'a>,
    /// Whether the client called it `developer` and not `system`.
    pub developer: bool,
    /// Claude `cache_control`.
    pub cache: Option<CacheMark>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The user, and the results of tools.
    User,
    /// The model.
    Assistant,
    /// Instructions in mid-conversation called `system`.
    System,
    /// Instructions in mid-conversation called `developer`.
    Developer,
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn<'a> {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub parts: Vec<Part<'a>>,
    /// Chat `name` of a message.
    pub name: Option<Str<'a>>,
}

impl<'a> Turn<'a> {
    /// A turn without a name.
    pub fn new(role: Role, parts: Vec<Part<'a>>) -> Self {
        Self { role, parts, name: None }
    }
}

/// One piece of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Part<'a> {
    /// Visible text.
    Text(Text<'a>),
    /// A picture.
    Image(Image<'a>),
    /// Sound.
    Audio(Audio<'a>),
    /// A document.
    Document(Document<'a>),
    /// A passage that the model may cite (Claude `search_result`).
    SearchResult(SearchResult<'a>),
    /// The model calls a tool.
    ToolCall(ToolCall<'a>),
    /// A tool answers.
    ToolResult(ToolResult<'a>),
    /// The model thought.
    Reasoning(Reasoning<'a>),
    /// The model refused, in words (Chat `refusal`, Responses part `refusal`).
    Refusal(Str<'a>),
    /// History of a built-in tool that only its own vendor can replay.
    Server(ServerItem<'a>),
}

impl Part<'_> {
    /// Whether it, or what is in it, is marked for Claude's prompt cache.
    fn has_cache_mark(&self) -> bool {
        match self {
            Self::Text(text) => text.cache.is_some(),
            Self::Image(image) => image.cache.is_some(),
            Self::Document(document) => document.cache.is_some(),
            Self::ToolCall(call) => call.cache.is_some(),
            Self::ToolResult(result) => {
                result.cache.is_some() || result.parts.iter().any(Self::has_cache_mark)
            }
            Self::Audio(_)
            | Self::SearchResult(_)
            | Self::Reasoning(_)
            | Self::Refusal(_)
            | Self::Server(_) => false,
        }
    }
}

/// Text with what hangs on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Text<'a> {
    /// The text. Readers drop blank ones; see [`super::lower`].
    pub text: Str<'a>,
    /// Claude `cache_control`.
    pub cache: Option<CacheMark>,
    /// Gemini signs visible text as well.
    pub signature: Option<Signature<'a>>,
}

impl<'a> Text<'a> {
    /// Plain text.
    pub fn plain(text: impl Into<Str<'a>>) -> Self {
        Self { text: text.into(), cache: None, signature: None }
    }
}

/// Claude `cache_control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheMark {
    /// `ttl: "1h"` and not the five-minute default.
    pub hour: bool,
}

/// Where the bytes of an attachment are.
#[derive(Clone, Debug, PartialEq)]
pub enum Source<'a> {
    /// In the request.
    Inline {
        /// MIME type; empty when the client gave none (writers sniff, see [`Source::mime`]).
        mime: Str<'a>,
        /// Standard base64 with padding, without a `data:` prefix.
        data: Str<'a>,
    },
    /// At a URL (`https:`, `gs:`, a Gemini file URI).
    Url {
        /// The URL.
        url: Str<'a>,
        /// MIME type, where the client gave one.
        mime: Option<Str<'a>>,
    },
    /// In the account of a vendor: means nothing to another.
    File {
        /// The vendor's format.
        vendor: Protocol,
        /// The file's id.
        id: Str<'a>,
    },
    /// Plain text as a document.
    Text(Str<'a>),
}

impl Source<'_> {
    /// The MIME type: what the bytes say where they are known magic, else what the client said, else
    /// `fallback`. Vendors refuse a PNG that is called a JPEG.
    pub fn mime(&self, fallback: &'static str) -> &str {
        match self {
            Self::Inline { mime, data } => crate::names::sniff_mime(data)
                .or_else(|| (!mime.is_empty()).then_some(mime.as_ref()))
                .unwrap_or(fallback),
            Self::Url { mime: Some(mime), .. } => mime,
            Self::Text(_) => "text/plain",
            _ => fallback,
        }
    }
}

/// A picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Image<'a> {
    /// Where its bytes are.
    pub source: Source<'a>,
    /// `low`, `high`, `auto` of the OpenAI formats.
    pub detail: Option<Str<'a>>,
    /// Claude `cache_control`.
    pub cache: Option<CacheMark>,
}

/// Sound.
#[derive(Clone, Debug, PartialEq)]
pub struct Audio<'a> {
    /// Where its bytes are; the MIME type is `audio/wav`, `audio/mpeg`, …
    pub source: Source<'a>,
}

/// A document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document<'a> {
    /// Where its bytes are.
    pub source: Source<'a>,
    /// File name or title.
    pub name: Option<Str<'a>>,
    /// Claude `context`.
    pub context: Option<Str<'a>>,
    /// Claude `citations.enabled`.
    pub citations: bool,
    /// Claude `cache_control`.
    pub cache: Option<CacheMark>,
}

/// A passage that the model may cite.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchResult<'a> {
    /// Where it was found.
    pub source: Str<'a>,
    /// Its title.
    pub title: Str<'a>,
    /// Its text, in blocks.
    pub text: Vec<Str<'a>>,
    /// The block as sent, for the same vendor.
    pub raw: RawJson<'a>,
}

/// How a tool is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolKind {
    /// With a JSON object.
    Function,
    /// With a bare string (OpenAI custom tools).
    Custom,
}

/// The model calls a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall<'a> {
    /// Empty when the client gave none; [`super::lower`] makes one up.
    pub id: Str<'a>,
    /// Name of the tool, without its namespace.
    pub name: Str<'a>,
    /// Responses namespace.
    pub namespace: Option<Str<'a>>,
    /// How it is called.
    pub kind: ToolKind,
    /// Function: JSON text as sent (may be empty or broken; see [`ToolCall::object`]). Custom: the string.
    pub arguments: Str<'a>,
    /// Gemini signs calls.
    pub signature: Option<Signature<'a>>,
    /// Claude `cache_control`.
    pub cache: Option<CacheMark>,
}

impl ToolCall<'_> {
    /// The arguments as the text of a JSON object: empty becomes `{}`; a custom call's string becomes
    /// `{"input":…}`; text that is no object is kept as `{"arguments":…}`, so that nothing is lost.
    pub fn object(&self) -> Str<'_> {
        if self.kind == ToolKind::Custom {
            let mut out = Vec::new();
            crate::json::object(&mut out, |o| o.str("input", &self.arguments));
            return Cow::Owned(String::from_utf8(out).unwrap_or_default());
        }
        let text = self.arguments.trim();
        if text.is_empty() || text == "null" {
            return Cow::Borrowed("{}");
        }
        match parse_any(text.as_bytes()) {
            Ok(Json::Object(_)) => Cow::Borrowed(text),
            Ok(Json::Str(inner)) if matches!(parse_any(inner.as_bytes()), Ok(Json::Object(_))) => {
                // A client that serialised twice.
                Cow::Owned(inner.into_owned())
            }
            _ => {
                let mut out = Vec::new();
                crate::json::object(&mut out, |o| o.str("arguments", &self.arguments));
                Cow::Owned(String::from_utf8(out).unwrap_or_default())
            }
        }
    }
}

/// A tool answers.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolResult<'a> {
    /// Id of the call; empty when the client gave none (bound by name, then by order).
    pub call_id: Str<'a>,
    /// Name of the tool, where the format has it (Gemini, legacy Chat functions).
    pub name: Option<Str<'a>>,
    /// What it answered; may be empty.
    pub parts: Vec<Part<'a>>,
    /// The tool failed.
    pub is_error: bool,
    /// It answers a custom tool.
    pub kind: ToolKind,
    /// Claude `cache_control`.
    pub cache: Option<CacheMark>,
}

impl ToolResult<'_> {
    /// All text of the result in one string, in order; attachments are left out.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for part in &self.parts {
            let text: &str = match part {
                Part::Text(text) => &text.text,
                Part::Document(Document { source: Source::Text(text), .. }) => text,
                Part::SearchResult(result) => {
                    for text in &result.text {
                        push_line(&mut out, text);
                    }
                    continue;
                }
                _ => continue,
            };
            push_line(&mut out, text);
        }
        out
    }
}

fn push_line(out: &mut String, text: &str) {
    if !out.is_empty() && !text.is_empty() {
        out.push('\n');
    }
    out.push_str(text);
}

/// The model thought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reasoning<'a> {
    /// Thinking text, or the parts of a summary; may be empty when the vendor hides it.
    pub text: Vec<Str<'a>>,
    /// What proves to the vendor that the text is its own (Claude `signature`, OpenAI `encrypted_content`,
    /// Gemini `thoughtSignature`).
    pub signature: Option<Signature<'a>>,
    /// Claude `redacted_thinking.data`.
    pub redacted: Option<Str<'a>>,
    /// Responses item id.
    pub id: Option<Str<'a>>,
}

/// History of a built-in tool, kept as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerItem<'a> {
    /// The only format that can replay it.
    pub vendor: Protocol,
    /// Its `type`.
    pub kind: Str<'a>,
    /// The item.
    pub raw: RawJson<'a>,
}

/// What the model may call.
#[derive(Clone, Debug, PartialEq)]
pub enum Tool<'a> {
    /// A function of the client, with a schema.
    Function {
        /// Name, without its namespace.
        name: Str<'a>,
        /// Responses namespace.
        namespace: Option<Str<'a>>,
        /// What it does.
        description: Option<Str<'a>>,
        /// JSON Schema of its arguments, as sent. `None`: no arguments declared.
        schema: Option<RawJson<'a>>,
        /// OpenAI and Claude `strict`.
        strict: Option<bool>,
        /// Claude `cache_control`.
        cache: Option<CacheMark>,
    },
    /// A function that takes a bare string.
    Custom {
        /// Name, without its namespace.
        name: Str<'a>,
        /// Responses namespace.
        namespace: Option<Str<'a>>,
        /// What it does.
        description: Option<Str<'a>>,
        /// OpenAI `format` (grammar), as sent.
        format: Option<RawJson<'a>>,
    },
    /// A tool that the vendor runs.
    Builtin(Builtin<'a>),
}

impl<'a> Tool<'a> {
    /// The client's name of a function or custom tool.
    pub fn name(&self) -> Option<&Str<'a>> {
        match self {
            Self::Function { name, .. } | Self::Custom { name, .. } => Some(name),
            Self::Builtin(_) => None,
        }
    }
}

/// A tool that the vendor runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Builtin<'a> {
    /// Web search: all four formats have one.
    WebSearch {
        /// Only these domains; empty: all.
        allowed_domains: Vec<Str<'a>>,
        /// Not these domains.
        blocked_domains: Vec<Str<'a>>,
        /// At most so many searches (Claude).
        max_uses: Option<u64>,
        /// `user_location` object, as sent.
        user_location: Option<RawJson<'a>>,
        /// `low`, `medium`, `high` (OpenAI `search_context_size`).
        context_size: Option<Str<'a>>,
    },
    /// Runs code: Responses `code_interpreter`, Claude `code_execution_*`, Gemini `codeExecution`.
    CodeExecution,
    /// Draws pictures: Responses `image_generation`, as sent.
    ImageGeneration(RawJson<'a>),
    /// Anything without a counterpart.
    Other {
        /// The only format that has it.
        vendor: Protocol,
        /// Its `type` (Gemini: the member's name).
        kind: Str<'a>,
        /// The declaration, as sent.
        raw: RawJson<'a>,
    },
}

/// Whether and what the model has to call.
#[derive(Clone, Debug, PartialEq)]
pub enum ToolChoice<'a> {
    /// It may.
    Auto,
    /// It must not.
    None,
    /// It must call something.
    Any,
    /// It must call this one.
    Named {
        /// Name as declared.
        name: Str<'a>,
        /// Responses namespace.
        namespace: Option<Str<'a>>,
        /// How it is called.
        kind: ToolKind,
    },
    /// Only these count.
    Allowed {
        /// It must call one of them.
        required: bool,
        /// Names as declared.
        names: Vec<Str<'a>>,
    },
    /// It must use this built-in (`type` as written).
    Builtin(Str<'a>),
}

/// Lengths and stops.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits<'a> {
    /// Most tokens of the answer, thinking included.
    pub max_tokens: Option<u64>,
    /// The answer ends before any of these.
    pub stop: Vec<Str<'a>>,
    /// Number of answers (Chat `n`, Gemini `candidateCount`).
    pub choices: Option<u64>,
}

/// Randomness.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling<'a> {
    /// 0–2 (Claude: 0–1).
    pub temperature: Option<f64>,
    /// Nucleus.
    pub top_p: Option<f64>,
    /// Most likely tokens only.
    pub top_k: Option<u64>,
    /// Same seed, same answer.
    pub seed: Option<i64>,
    /// OpenAI and Gemini.
    pub presence_penalty: Option<f64>,
    /// OpenAI and Gemini.
    pub frequency_penalty: Option<f64>,
    /// Chat `logit_bias`, as sent.
    pub logit_bias: Option<RawJson<'a>>,
}

/// Shape of the text.
#[derive(Clone, Debug, PartialEq)]
pub enum Format<'a> {
    /// Any JSON object.
    JsonObject,
    /// JSON of this schema.
    JsonSchema {
        /// Name, where the format has one.
        name: Option<Str<'a>>,
        /// What it is for.
        description: Option<Str<'a>>,
        /// The schema, as sent.
        schema: RawJson<'a>,
        /// OpenAI `strict`.
        strict: Option<bool>,
    },
}
