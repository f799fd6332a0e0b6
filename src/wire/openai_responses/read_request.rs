//! Client body → [`Request`]: everything but the items and the tools.
//!
//! Enters: a body that may be anything. Leaves: the request, borrowed from it. May go wrong: wrong types and
//! a missing `input`, with the path; members that nobody here knows are recorded as lost.
//!
//! State that lives with OpenAI (`previous_response_id`, `conversation`, `prompt`) goes to
//! [`Request::extra`]: no other vendor has it.

use super::LOGPROBS;
use super::read_items::Conversation;
use super::read_members::{
    elements, need_string, object, opt, opt_bool, opt_float, opt_object, opt_string, opt_uint, string,
    strings,
};
use super::read_tools;
use crate::error::WireError;
use crate::ir::{Format, Instruction, LossKind, Losses, RawJson, Request};
use crate::json::{self, Json, Map, Path};
use crate::patch::Member;
use crate::thinking::{Mode, Summary, Thinking};

/// Members whose text is kept: what is read piece by piece, and what the answer repeats.
pub(super) const RAW: [&str; 9] =
    ["input", "tools", "tool_choice", "text", "reasoning", "metadata", "include", "prompt", "conversation"];

/// Members that the answer object repeats.
const ECHO: [&str; 20] = [
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "instructions",
    "metadata",
    "temperature",
    "top_p",
    "max_output_tokens",
    "previous_response_id",
    "reasoning",
    "text",
    "truncation",
    "user",
    "prompt_cache_key",
    "store",
    "service_tier",
    "background",
    "max_tool_calls",
    "top_logprobs",
    "safety_identifier",
];

/// Members that only this format has.
const OWN: [&str; 16] = [
    "metadata",
    "store",
    "previous_response_id",
    "conversation",
    "background",
    "truncation",
    "max_tool_calls",
    "prompt",
    "prompt_cache_retention",
    "prompt_cache_options",
    "context_management",
    "stream_options",
    "client_metadata",
    "moderation",
    "access_programs",
    "image",
];

/// Reads a body.
pub(super) fn read_request<'a>(body: &'a [u8], losses: &mut Losses) -> Result<Request<'a>, WireError> {
    let root = Path::Root;
    let Json::Object(mut map) = json::parse(body, &RAW)? else {
        return Err(WireError::Json("expected an object".to_owned()));
    };
    let mut request = Request { echo: echo(&map), ..Request::default() };
    settings(&mut map, &mut request, losses)?;

    let mut conversation = Conversation::default();
    if let Some(text) = opt_string(&mut map, "instructions", &root)?.filter(|text| !text.trim().is_empty()) {
        conversation.system.push(Instruction { text, developer: false, cache: None });
    }
    if let Some(tools) = opt(&mut map, "tools") {
        read_tools::tools(&tools, &root.key("tools"), &mut request.tools, losses)?;
    }
    input(&mut map, &mut conversation, &mut request, losses)?;
    (request.system, request.turns) = (conversation.system, conversation.turns);
    if let Some(choice) = opt(&mut map, "tool_choice") {
        request.tool_choice =
            Some(read_tools::choice(choice, &root.key("tool_choice"), &request.tools, losses)?);
    }

    for (key, value) in map.0.into_iter().filter(|(_, value)| !value.is_null()) {
        if OWN.contains(&key.as_ref()) {
            request.extra.push((key, RawJson::from(value)));
        } else {
            losses.member(LossKind::UnknownMember, &key);
        }
    }
    Ok(request)
}

/// The members that the answer object repeats.
pub(super) fn echo<'a>(map: &Map<'a>) -> Vec<(&'static str, RawJson<'a>)> {
    ECHO.into_iter()
        .filter_map(|name| Some((name, map.get(name).filter(|value| !value.is_null())?)))
        .map(|(name, value)| (name, RawJson::from(value.clone())))
        .collect()
}

fn input<'a>(
    map: &mut Map<'a>,
    conversation: &mut Conversation<'a>,
    request: &mut Request<'a>,
    losses: &mut Losses,
) -> Result<(), WireError> {
    let root = Path::Root;
    let path = root.key("input");
    let Some(input) = opt(map, "input") else {
        return Err(WireError::invalid(&path, "required: a string or an array of items"));
    };
    match input.kind() {
        "a string" => conversation.user_text(string(input, &path)?),
        "an array" => {
            for (n, item) in elements(&input, &path)?.into_iter().enumerate() {
                conversation.item(item, &path.index(n), &mut request.tools, losses)?;
            }
        }
        _ => return Err(WireError::expected(&path, "a string or an array of items", &input)),
    }
    Ok(())
}

fn settings<'a>(map: &mut Map<'a>, request: &mut Request<'a>, losses: &mut Losses) -> Result<(), WireError> {
    let root = &Path::Root;
    request.model = opt_string(map, "model", root)?.unwrap_or_default();
    request.stream = opt_bool(map, "stream", root)?.unwrap_or(false);
    request.parallel_tools = opt_bool(map, "parallel_tool_calls", root)?;
    request.limits.max_tokens = opt_uint(map, "max_output_tokens", root)?;
    request.sampling.temperature = opt_float(map, "temperature", root)?;
    request.sampling.top_p = opt_float(map, "top_p", root)?;
    request.cache_key = opt_string(map, "prompt_cache_key", root)?;
    request.service_tier = opt_string(map, "service_tier", root)?;
    let safety = opt_string(map, "safety_identifier", root)?;
    request.user = opt_string(map, "user", root)?.or(safety);
    request.include = strings(map, "include", root)?;
    request.logprobs = opt_uint(map, "top_logprobs", root)?;
    if request.logprobs.is_none() && request.include.iter().any(|name| name == LOGPROBS) {
        request.logprobs = Some(0);
    }
    if let Some(mut reasoning) = opt_object(map, "reasoning", root, &[])? {
        request.thinking = thinking(&mut reasoning, &root.key("reasoning"), losses)?;
    }
    if let Some(mut text) = opt_object(map, "text", root, &["format"])? {
        let path = root.key("text");
        request.verbosity = opt_string(&mut text, "verbosity", &path)?;
        if let Some(format) = opt(&mut text, "format") {
            request.format = format_of(format, &path.key("format"))?;
        }
        unknown(&text, &path, losses);
    }
    Ok(())
}

/// What a body asks, without reading the rest of it.
pub(super) fn asked_thinking<'t>(
    body: &'t [u8],
    members: impl Iterator<Item = Member<'t>>,
) -> Result<Thinking, WireError> {
    let found = members.filter(|member| member.key == b"reasoning").last();
    let Some(raw) = found.and_then(|member| body.get(member.value)).filter(|raw| *raw != b"null") else {
        return Ok(Thinking::default());
    };
    let (root, losses) = (Path::Root, &mut Losses::default());
    let path = root.key("reasoning");
    thinking(&mut object(json::parse_any(raw)?, &path, &[])?, &path, losses)
}

/// `effort` is how much, `summary` whether the client wants to see it: without one it sees none, as at OpenAI.
fn thinking(map: &mut Map<'_>, path: &Path<'_>, losses: &mut Losses) -> Result<Thinking, WireError> {
    let mode = match opt_string(map, "effort", path)? {
        None => None,
        Some(word) => Some(Mode::parse(&word).ok_or_else(|| {
            let problem = "expected `none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`";
            WireError::invalid(&path.key("effort"), problem)
        })?),
    };
    let older = opt_string(map, "generate_summary", path)?;
    let summary = opt_string(map, "summary", path)?.or(older).filter(|word| word != "none");
    unknown(map, path, losses);
    Ok(Thinking {
        mode,
        visible: Some(summary.is_some()),
        summary: summary.and_then(|word| Summary::parse(&word)),
    })
}

fn format_of<'a>(value: Json<'a>, path: &Path<'_>) -> Result<Option<Format<'a>>, WireError> {
    let mut map = object(value, path, &["schema"])?;
    let kind = need_string(&mut map, "type", path)?;
    match kind.as_ref() {
        "text" => Ok(None),
        "json_object" => Ok(Some(Format::JsonObject)),
        "json_schema" => {
            let at = path.key("schema");
            let schema =
                opt(&mut map, "schema").ok_or_else(|| WireError::invalid(&at, "required: a JSON Schema"))?;
            if !schema.is_object() {
                return Err(WireError::expected(&at, "an object", &schema));
            }
            Ok(Some(Format::JsonSchema {
                name: opt_string(&mut map, "name", path)?,
                description: opt_string(&mut map, "description", path)?,
                schema: schema.into(),
                strict: opt_bool(&mut map, "strict", path)?,
            }))
        }
        _ => Err(WireError::invalid(&path.key("type"), "expected `text`, `json_object` or `json_schema`")),
    }
}

fn unknown(map: &Map<'_>, path: &Path<'_>, losses: &mut Losses) {
    for (key, _) in map.iter().filter(|(_, value)| !value.is_null()) {
        losses.at(LossKind::UnknownMember, &path.key(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Part, Role};
    use crate::thinking::Level;

    fn read(body: &str) -> (Request<'_>, String) {
        let mut losses = Losses::default();
        let request = read_request(body.as_bytes(), &mut losses).unwrap();
        (request, losses.to_string())
    }

    #[test]
    fn a_string_is_one_user_message() {
        let (request, losses) = read(r#"{"model":"m","input":"Say hi","instructions":"You are A."}"#);
        assert_eq!(request.system[0].text, "You are A.");
        assert_eq!(request.turns.len(), 1);
        assert_eq!(request.turns[0].role, Role::User);
        assert!(matches!(&request.turns[0].parts[0], Part::Text(text) if text.text == "Say hi"));
        assert!(losses.is_empty());
    }

    #[test]
    fn settings_are_read_and_the_rest_is_kept_or_lost() {
        let (request, losses) = read(
            r#"{"model":"m","input":"x","stream":true,"max_output_tokens":88,"temperature":0.4,"top_p":0.7,
            "parallel_tool_calls":false,"prompt_cache_key":"k","safety_identifier":"s","service_tier":"flex",
            "include":["message.output_text.logprobs"],"metadata":{"a": "b"},"store":false,"bogus":[1],
            "user":null,"previous_response_id":"r","reasoning":{"effort":"high","summary":"detailed"},
            "text":{"verbosity":"low","format":{"type":"json_schema","name":"w","schema":{"n":1.0, "a":2},"strict":true}}}"#,
        );
        assert!(request.stream);
        assert_eq!((request.limits.max_tokens, request.parallel_tools), (Some(88), Some(false)));
        assert_eq!((request.sampling.temperature, request.sampling.top_p), (Some(0.4), Some(0.7)));
        assert_eq!((request.user.as_deref(), request.cache_key.as_deref()), (Some("s"), Some("k")));
        assert_eq!((request.verbosity.as_deref(), request.logprobs), (Some("low"), Some(0)));
        assert_eq!(request.thinking.mode, Some(Mode::Level(Level::High)));
        assert_eq!(
            (request.thinking.visible, request.thinking.summary),
            (Some(true), Some(Summary::Detailed))
        );
        let Some(Format::JsonSchema { name, schema, strict, .. }) = &request.format else { panic!() };
        assert_eq!(
            (name.as_deref(), schema.as_str(), *strict),
            (Some("w"), r#"{"n":1.0, "a":2}"#, Some(true))
        );
        let extra: Vec<_> = request.extra.iter().map(|(name, _)| name.as_ref()).collect();
        assert_eq!(extra, ["metadata", "store", "previous_response_id"]);
        assert_eq!(losses, "unknown-member bogus");
        let echo: Vec<_> = request.echo.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert!(echo.contains(&("metadata", r#"{"a": "b"}"#)) && echo.contains(&("store", "false")));
        assert!(echo.iter().all(|(name, _)| *name != "user"), "null is no value");
    }

    #[test]
    fn without_a_summary_thinking_stays_hidden_and_without_reasoning_nothing_is_said() {
        let visible = |body| read(body).0.thinking.visible;
        assert_eq!(visible(r#"{"input":"x"}"#), None);
        assert_eq!(visible(r#"{"input":"x","reasoning":{"effort":"low"}}"#), Some(false));
        assert_eq!(visible(r#"{"input":"x","reasoning":{"summary":"none"}}"#), Some(false));
        assert_eq!(visible(r#"{"input":"x","reasoning":{"generate_summary":"auto"}}"#), Some(true));
    }

    #[test]
    fn p31_wrong_types_are_refused_with_their_path() {
        for (body, says) in [
            ("[]", "expected an object"),
            (r#"{"model":"m"}"#, "input: required"),
            (r#"{"input":7}"#, "input: expected a string or an array of items, got a number"),
            (r#"{"input":[7]}"#, "input[0]: expected an object, got a number"),
            (r#"{"input":[{"foo":1}]}"#, "input[0].type: required"),
            (r#"{"input":[{"role":"user"}]}"#, "input[0].content: required"),
            (r#"{"input":[{"role":"robot","content":"x"}]}"#, "input[0].role: expected"),
            (
                r#"{"input":["",{"role":"user","content":[{"type":"input_text","text":7}]}]}"#,
                "input[0]: expected an object, got a string",
            ),
            (
                r#"{"input":[{"role":"user","content":[{"type":"input_text","text":7}]}]}"#,
                "input[0].content[0].text: expected a string, got a number",
            ),
            (r#"{"input":[{"type":"function_call","call_id":"c"}]}"#, "input[0].name: required"),
            (r#"{"input":"x","tools":{}}"#, "tools: expected an array, got an object"),
            (r#"{"input":"x","tools":[{"type":"function"}]}"#, "tools[0].name: required"),
            (r#"{"input":"x","tool_choice":"maybe"}"#, "tool_choice: expected"),
            (r#"{"input":"x","temperature":"hot"}"#, "temperature: expected a number, got a string"),
            (r#"{"input":"x","reasoning":{"effort":"much"}}"#, "reasoning.effort: expected"),
            (r#"{"input":"x","text":{"format":{"type":"xml"}}}"#, "text.format.type: expected"),
            (r#"{"input":"x","include":[1]}"#, "include[0]: expected a string"),
        ] {
            let error = read_request(body.as_bytes(), &mut Losses::default()).unwrap_err().to_string();
            assert!(error.contains(says), "{body}: {error}");
        }
    }
}
