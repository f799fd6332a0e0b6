//! What an answer has to know of its request.

use super::request::ToolKind;
use std::collections::HashMap;

/// Travels from the request's translation to the answer's. Owned: it outlives the client's body.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The model name that the answer carries: the client's when the route promises it, else empty and the
    /// upstream's name is shown.
    pub model: String,
    /// Seconds since 1970 when the request was taken: `created` of formats that need one.
    pub created: u64,
    /// 32 hex digits that are unique to the request: ids that the upstream does not give are made of them.
    pub seed: String,
    /// Chat: the client asked for the usage event.
    pub include_usage: bool,
    /// Whether the client asked not to see thinking text (Responses without `summary`, Gemini
    /// `includeThoughts: false`, OpenRouter `exclude`).
    pub hide_reasoning: bool,
    /// Upstream tool name → what the client called it.
    pub names: HashMap<String, Restored>,
    /// The model was asked to think in tags inside of its text, because the target has no other way.
    pub thinking_tags: bool,
    /// The upstream's name of the model, for upstreams that do not repeat it.
    pub upstream_model: String,
    /// Tokens of the model's context, for targets that only say how full it is.
    pub window: Option<u64>,
    /// Chat: the client reads calls as legacy `function_call`.
    pub legacy_functions: bool,
    /// Responses: members that the answer object repeats, as sent.
    pub echo: Vec<(&'static str, String)>,
    /// Gemini without `alt=sse`: a JSON array of chunks.
    pub json_array: bool,
    /// Gemini: the client speaks the CLI's envelope, so its answer goes out as `{"response":…}`.
    pub envelope: bool,
}

/// A tool as the client declared it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The client's name, without its namespace.
    pub name: String,
    /// Responses namespace.
    pub namespace: Option<String>,
    /// How the client wants to be called.
    pub kind: ToolKind,
    /// An argument that was only declared because the target refuses empty schemas.
    pub placeholder: Option<&'static str>,
}
