//! Client body → [`Request`].
//!
//! Enters: a body of `/v1/messages` or of its `count_tokens`. Leaves: the request, borrowed from it. What
//! only this API has stays in [`Request::extra`]. May go wrong: a wrong type, a missing `messages`, and
//! `thread`, whose history lies on a server that is not this one.
//!
//! A missing `max_tokens` is tolerated: every target has a default.

use super::fields::Fields;
use super::read_blocks::{self, Place};
use super::read_tools;
use crate::error::WireError;
use crate::ir::{CacheMark, Format, Instruction, LossKind, Losses, Part, RawJson, Request, Role, Str, Turn};
use crate::json::{Json, Path, parse, parse_any};
use crate::patch::{Member, members};
use crate::thinking::{Level, Mode, Thinking};
use std::borrow::Cow;

/// Members whose text stays as it was sent.
const RAW: [&str; 4] = ["input", "input_schema", "schema", "user_location"];

/// Starts the line of Claude Code's system text that is for Anthropic's accounts.
const BILLING: &str = "x-anthropic-billing-header:";

/// Top-level members that no other format has.
const ONLY_HERE: [&str; 16] = [
    "anthropic_beta",
    "anthropic_version",
    "betas",
    "billing_policy",
    "cache_control",
    "compaction",
    "container",
    "context_management",
    "diagnostics",
    "fallback_credit_token",
    "fallbacks",
    "inference_geo",
    "mcp_servers",
    "speed",
    "user_profile_id",
    "workspace_id",
];

/// Reads a body.
pub(super) fn read<'a>(body: &'a [u8], losses: &mut Losses) -> Result<Request<'a>, WireError> {
    let root = Path::Root;
    let mut fields = Fields::of(parse(body, &RAW)?, &root)?;
    if fields.take("thread").is_some() {
        let problem = "the history of a thread is not kept here; send the whole conversation in messages";
        return Err(WireError::unsupported(&root.key("thread"), problem));
    }
    let mut request = Request { model: fields.text("model")?.unwrap_or_default(), ..Request::default() };
    request.stream = fields.flag("stream")?.unwrap_or(false);
    system(&mut fields, &mut request, losses)?;
    messages(&mut fields, &mut request, losses)?;
    if let Some(items) = fields.list("tools")? {
        request.tools = read_tools::tools(items, &root.key("tools"), losses)?;
    }
    if let Some(choice) = fields.take("tool_choice") {
        read_tools::tool_choice(choice, &root.key("tool_choice"), &mut request, losses)?;
    }
    request.limits.max_tokens = fields.count("max_tokens")?;
    request.limits.stop = fields.texts("stop_sequences")?;
    request.sampling.temperature = fields.number("temperature")?;
    request.sampling.top_p = fields.number("top_p")?;
    request.sampling.top_k = fields.count("top_k")?;
    request.service_tier = fields.text("service_tier")?;
    if let Some(metadata) = fields.take("metadata") {
        let at = root.key("metadata");
        let mut metadata = Fields::of(metadata, &at)?;
        request.user = metadata.text("user_id")?.filter(|user| !user.is_empty());
        metadata.end(losses);
    }
    thinking_and_output(&mut fields, &mut request, losses)?;
    for key in ONLY_HERE {
        if let Some(value) = fields.take(key) {
            request.extra.push((key.into(), RawJson::from(value)));
        }
    }
    fields.end(losses);
    Ok(request)
}

fn system<'a>(
    fields: &mut Fields<'a, '_>,
    request: &mut Request<'a>,
    losses: &mut Losses,
) -> Result<(), WireError> {
    let at = Path::Key(&Path::Root, "system");
    match fields.take("system") {
        None => {}
        Some(Json::Array(items)) => {
            for (n, item) in items.into_iter().enumerate() {
                let at = at.index(n);
                if let Some((text, cache)) = read_blocks::instruction(item, &at, losses)? {
                    instruct(text, cache, &at, request, losses);
                }
            }
        }
        Some(Json::Str(text)) => instruct(text, None, &at, request, losses),
        Some(other) => return Err(WireError::expected(&at, "a string or an array of blocks", &other)),
    }
    Ok(())
}

/// Adds a line of instructions, without the line that Claude Code puts in front for Anthropic's accounts: it
/// says nothing to a model, and it changes with each request, so that no cache of another vendor would hit.
fn instruct<'a>(
    mut text: Str<'a>,
    cache: Option<CacheMark>,
    path: &Path<'_>,
    request: &mut Request<'a>,
    losses: &mut Losses,
) {
    if text.starts_with(BILLING) {
        losses.at(LossKind::Setting, path);
        let rest = text.find('\n').unwrap_or(text.len());
        text = match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.get(rest..).unwrap_or_default()),
            Cow::Owned(mut text) => Cow::Owned(text.split_off(rest)),
        };
    }
    if !text.trim().is_empty() {
        request.system.push(Instruction { text, developer: false, cache });
    }
}

fn messages<'a>(
    fields: &mut Fields<'a, '_>,
    request: &mut Request<'a>,
    losses: &mut Losses,
) -> Result<(), WireError> {
    let at = Path::Key(&Path::Root, "messages");
    let items = fields.list("messages")?.unwrap_or_default();
    if items.is_empty() {
        return Err(WireError::invalid(&at, "required: an array with at least one message"));
    }
    for (n, item) in items.into_iter().enumerate() {
        let at = at.index(n);
        let turn = message(item, &at, losses)?;
        if turn.role != Role::System || !request.turns.is_empty() {
            request.turns.push(turn);
            continue;
        }
        // Before the first turn it is what the others call the system text.
        for part in turn.parts {
            if let Part::Text(text) = part {
                request.system.push(Instruction { text: text.text, developer: false, cache: text.cache });
            } else {
                losses.at(LossKind::Builtin, &at.key("content"));
            }
        }
    }
    Ok(())
}

fn message<'a>(value: Json<'a>, path: &Path<'_>, losses: &mut Losses) -> Result<Turn<'a>, WireError> {
    let mut fields = Fields::of(value, path)?;
    let role = match fields.need_text("role")?.as_ref() {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" => Role::System,
        other => {
            let problem = format!("{other} is not one of user, assistant, system");
            return Err(WireError::invalid(&path.key("role"), problem));
        }
    };
    let at = path.key("content");
    let parts = match fields.take("content") {
        Some(content) => read_blocks::parts(content, Place::Turn(role), &at, losses)?,
        // Beta: a system message may carry settings only.
        None if role == Role::System => Vec::new(),
        None => return Err(WireError::invalid(&at, "required: a string or an array of blocks")),
    };
    fields.lost(LossKind::Setting, "clear_at", losses);
    fields.lost(LossKind::Setting, "output_config", losses);
    fields.end(losses);
    Ok(Turn::new(role, parts))
}

/// `thinking`, `output_config`, and its older spelling `output_format`.
fn thinking_and_output<'a>(
    fields: &mut Fields<'a, '_>,
    request: &mut Request<'a>,
    losses: &mut Losses,
) -> Result<(), WireError> {
    let root = Path::Root;
    let mut effort = None;
    if let Some(format) = fields.take("output_format") {
        request.format = Some(format_of(format, &root.key("output_format"), losses)?);
    }
    if let Some(config) = fields.take("output_config") {
        let at = root.key("output_config");
        let mut config = Fields::of(config, &at)?;
        if let Some(word) = config.text("effort")? {
            let problem = || format!("{word} is not one of low, medium, high, xhigh, max");
            let level = Level::parse(&word);
            effort = Some(level.ok_or_else(|| WireError::invalid(&at.key("effort"), problem()))?);
        }
        if let Some(format) = config.take("format") {
            request.format = Some(format_of(format, &at.key("format"), losses)?);
        }
        config.lost(LossKind::Setting, "task_budget", losses);
        config.end(losses);
    }
    request.thinking = match fields.take("thinking") {
        Some(value) => thinking_of(value, effort, losses)?,
        None => Thinking { mode: effort.map(Mode::Level), ..Thinking::default() },
    };
    Ok(())
}

/// The member `thinking`, and what the effort adds to it.
fn thinking_of(value: Json<'_>, effort: Option<Level>, losses: &mut Losses) -> Result<Thinking, WireError> {
    let root = Path::Root;
    let at = root.key("thinking");
    let mut thinking = Fields::of(value, &at)?;
    let kind = thinking.need_text("type")?;
    let budget = thinking.number("budget_tokens")?;
    let visible = thinking.text("display")?.and_then(|word| match word.as_ref() {
        "summarized" => Some(true),
        "omitted" => Some(false),
        _ => None,
    });
    let mode = match kind.as_ref() {
        "disabled" => Some(Mode::Off),
        "enabled" => Some(budget.map_or(Mode::Auto, |tokens| Mode::of_tokens(tokens as i64))),
        "adaptive" | "auto" | "between_tools" => Some(effort.map_or(Mode::Auto, Mode::Level)),
        other => {
            let problem = format!("{other} is not one of enabled, adaptive, between_tools, disabled");
            return Err(WireError::invalid(&at.key("type"), problem));
        }
    };
    thinking.end(losses);
    Ok(Thinking { mode, visible, summary: None })
}

/// What a body asks, without reading the rest of it. An effort alone does not switch thinking on.
pub(super) fn asked_thinking<'t>(
    body: &'t [u8],
    found: impl Iterator<Item = Member<'t>>,
) -> Result<Thinking, WireError> {
    let (mut thinking, mut effort) = (None, None);
    for member in found {
        let Some(raw) = body.get(member.value.clone()).filter(|raw| *raw != b"null") else { continue };
        match member.key {
            b"thinking" => thinking = Some(parse_any(raw)?),
            b"output_config" => {
                let word = members(raw, 0).find(|member| member.key == b"effort");
                let word = word.and_then(|word| parse_any(raw.get(word.value)?).ok()?.into_str());
                effort = word.and_then(|word| Level::parse(&word));
            }
            _ => {}
        }
    }
    thinking.map_or(Ok(Thinking::default()), |value| thinking_of(value, effort, &mut Losses::default()))
}

fn format_of<'a>(value: Json<'a>, path: &Path<'_>, losses: &mut Losses) -> Result<Format<'a>, WireError> {
    let mut fields = Fields::of(value, path)?;
    let kind = fields.need_text("type")?;
    if kind != "json_schema" {
        return Err(WireError::invalid(&path.key("type"), format!("{kind} is not json_schema")));
    }
    let schema = fields.object("schema")?;
    let schema = schema.ok_or_else(|| WireError::invalid(&path.key("schema"), "required: an object"))?;
    fields.end(losses);
    Ok(Format::JsonSchema { name: None, description: None, schema, strict: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Builtin, Source, Tool, ToolChoice, ToolKind};
    use crate::signature::Vendor;

    fn ok(body: &str) -> (Request<'_>, Losses) {
        let mut losses = Losses::default();
        (read(body.as_bytes(), &mut losses).unwrap(), losses)
    }

    fn error(body: &str) -> String {
        read(body.as_bytes(), &mut Losses::default()).unwrap_err().to_string()
    }

    /// A body whose only message is the user's `content`.
    fn user(content: &str) -> String {
        format!(r#"{{"model":"x","messages":[{{"role":"user","content":{content}}}]}}"#)
    }

    #[test]
    fn what_claude_code_sends_is_read_without_unknown_members() {
        let body = r#"{"model":"m","max_tokens":32000,"stream":true,"system":[{"type":"text","text":"x-anthropic-billing-header: cc_version=2; cch=71fea;"},{"type":"text","text":"You are.","cache_control":{"type":"ephemeral","ttl":"1h"}}],"thinking":{"type":"adaptive","display":"omitted"},"output_config":{"effort":"high"},"context_management":{"edits":[{"type":"clear_thinking_20251015"}]},"metadata":{"user_id":"{\"device\":1}"},"tools":[{"name":"Read","description":"d","input_schema":{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","additionalProperties":false},"defer_loading":true}],"messages":[{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]},{"role":"system","content":"Today is Monday."},{"role":"user","content":"go"}]}"#;
        let (request, losses) = ok(body);
        assert!(losses.iter().all(|loss| loss.kind != LossKind::UnknownMember), "{losses}");
        assert_eq!(request.system.len(), 1, "the line for the accounts is left out");
        assert_eq!(request.system[0].cache, Some(CacheMark { hour: true }));
        let roles: Vec<_> = request.turns.iter().map(|turn| turn.role).collect();
        assert_eq!(roles, [Role::User, Role::System, Role::User]);
        assert_eq!(request.thinking.mode, Some(Mode::Level(Level::High)));
        assert_eq!(request.thinking.visible, Some(false));
        assert_eq!(request.user.as_deref(), Some(r#"{"device":1}"#));
        assert_eq!(request.extra[0].0, "context_management");
        let Tool::Function { schema: Some(schema), .. } = &request.tools[0] else { panic!() };
        assert!(schema.as_str().starts_with(r#"{"$schema":"https"#));
    }

    #[test]
    fn p31_wrong_types_name_the_path() {
        for (body, says) in [
            (
                user(r#"[{"type":"text","text":7}]"#),
                "messages[0].content[0].text: expected a string, got a number",
            ),
            (user("7"), "messages[0].content: expected a string or an array of blocks, got a number"),
            (
                user(r#"[{"type":"image","source":{"type":"ftp"}}]"#),
                "messages[0].content[0].source.type: ftp is not one of base64, url, file, text",
            ),
            (
                user(r#"[{"type":"tool_use","id":"a","name":"b","input":{}}]"#),
                "messages[0].content[0]: a block of type tool_use cannot stand here",
            ),
            (
                r#"{"messages":[{"role":"tool","content":"x"}]}"#.into(),
                "messages[0].role: tool is not one of user, assistant, system",
            ),
            (r#"{"messages":[]}"#.into(), "messages: required: an array with at least one message"),
            (
                r#"{"messages":[{"role":"user"}]}"#.into(),
                "messages[0].content: required: a string or an array of blocks",
            ),
            (
                r#"{"max_tokens":-1,"messages":[{"role":"user","content":"x"}]}"#.into(),
                "max_tokens: expected a whole number that is not negative, got a number",
            ),
            (
                r#"{"tools":[{"type":"function"}],"messages":[{"role":"user","content":"x"}]}"#.into(),
                "tools[0].type: function is a tool of the OpenAI formats; send name, description and input_schema",
            ),
            (
                r#"{"tool_choice":{"type":"required"},"messages":[{"role":"user","content":"x"}]}"#.into(),
                "tool_choice.type: required is not one of auto, any, tool, none",
            ),
        ] {
            assert_eq!(error(&body), says);
        }
    }

    #[test]
    fn a_thread_is_refused_because_its_history_is_not_here() {
        let body = r#"{"thread":{"type":"create"},"messages":[{"role":"user","content":"x"}]}"#;
        let error = read(body.as_bytes(), &mut Losses::default()).unwrap_err();
        assert_eq!(error.path(), Some("thread"));
        assert!(ok(&body.replace(r#"{"type":"create"}"#, "null")).1.is_empty());
    }

    #[test]
    fn system_messages_before_the_first_turn_are_system_text() {
        let (request, _) = ok(
            r#"{"system":"a","messages":[{"role":"system","content":"b"},{"role":"user","content":"c"},{"role":"system","content":"d"}]}"#,
        );
        let system: Vec<_> = request.system.iter().map(|i| i.text.as_ref()).collect();
        assert_eq!((system, request.turns.len()), (vec!["a", "b"], 2));
    }

    #[test]
    fn only_the_line_for_the_accounts_is_left_out_of_a_longer_text() {
        let (request, losses) = ok(
            r#"{"system":"x-anthropic-billing-header: cch=1;\nYou are.","messages":[{"role":"user","content":"x-anthropic-billing-header: mine"}]}"#,
        );
        assert_eq!(request.system[0].text, "\nYou are.");
        assert_eq!((request.turns[0].parts.len(), losses.to_string()), (1, "setting system".to_owned()));
    }

    #[test]
    fn blank_text_is_left_out_and_the_rest_of_the_turn_stays() {
        let text = user(r#"[{"type":"text","text":" \n"},{"type":"text","text":"x"}]"#);
        let (request, _) = ok(&text);
        assert_eq!(request.turns[0].parts.len(), 1);
    }

    #[test]
    fn every_source_and_every_result_is_read() {
        let text = user(
            r#"[{"type":"tool_result","tool_use_id":"t"},{"type":"tool_result","tool_use_id":"u","is_error":true,"content":[{"type":"text","text":"shot"},{"type":"image","source":{"type":"url","url":"https://x/y"}},{"type":"tool_reference","tool_name":"f"}]},{"type":"document","title":"T","context":"C","citations":{"enabled":true},"source":{"type":"text","media_type":"text/plain","data":"D"}},{"type":"document","source":{"type":"content","content":[{"type":"text","text":"a"},{"type":"text","text":"b"},{"type":"image","source":{"type":"file","file_id":"file_1"}}]}},{"type":"search_result","source":"https://e","title":"E","content":[{"type":"text","text":"sunny"}]},{"type":"container_upload","file_id":"file_2"}]"#,
        );
        let (request, losses) = ok(&text);
        assert!(losses.is_empty(), "{losses}");
        let parts = &request.turns[0].parts;
        let Part::ToolResult(sparse) = &parts[0] else { panic!() };
        assert!(sparse.parts.is_empty() && !sparse.is_error);
        let Part::ToolResult(full) = &parts[1] else { panic!() };
        assert!(full.is_error && full.kind == ToolKind::Function);
        assert!(matches!(&full.parts[..], [Part::Text(_), Part::Image(_), Part::Server(_)]));
        let Part::Document(document) = &parts[2] else { panic!() };
        assert!(document.citations && document.context.as_deref() == Some("C"));
        assert!(matches!(&parts[3], Part::Document(d) if d.source == Source::Text("a\nb".into())));
        assert!(matches!(&parts[4], Part::Image(_)));
        assert!(matches!(&parts[5], Part::SearchResult(s) if s.text == ["sunny"]));
        assert!(matches!(&parts[6], Part::Server(item) if item.kind == "container_upload"));
    }

    #[test]
    fn the_text_of_tool_input_stays_as_it_was() {
        let (request, _) = ok(
            r#"{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","caller":{"type":"direct"},"input":{ "z":1.50, "a":2 }}]}]}"#,
        );
        let Part::ToolCall(call) = &request.turns[0].parts[0] else { panic!() };
        assert_eq!(call.arguments, r#"{ "z":1.50, "a":2 }"#);
    }

    #[test]
    fn a_signature_of_a_call_goes_back_to_the_call() {
        let gemini = "EkoKSAHyGw74nY7l2va6bNRBZSpkcimUHoWxU3tcNe3mtNUZqHEUMPYWTpOAPZNCi8H6uA9B4hO7GXaJMH3oYG1DfDA4TS9LZoz8SA==";
        let body = format!(
            r#"{{"messages":[{{"role":"assistant","content":[{{"type":"thinking","thinking":"","signature":"{gemini}"}},{{"type":"tool_use","id":"t","name":"f","input":{{}}}},{{"type":"thinking","thinking":"plan","signature":"{gemini}"}},{{"type":"text","text":"x"}}]}}]}}"#
        );
        let (request, _) = ok(&body);
        let [Part::ToolCall(call), Part::Reasoning(thinking), Part::Text(_)] = &request.turns[0].parts[..]
        else {
            panic!("{:?}", request.turns[0].parts)
        };
        assert_eq!(call.signature.as_ref().map(|s| s.vendor), Some(Vendor::Gemini));
        assert!(thinking.signature.is_some());
    }

    #[test]
    fn thinking_in_all_its_forms() {
        for (members, mode) in [
            (r#""thinking":{"type":"enabled","budget_tokens":2048}"#, Some(Mode::Budget(2048))),
            (r#""thinking":{"type":"enabled","budget_tokens":0}"#, Some(Mode::Off)),
            (r#""thinking":{"type":"enabled"}"#, Some(Mode::Auto)),
            (r#""thinking":{"type":"disabled"},"output_config":{"effort":"high"}"#, Some(Mode::Off)),
            (r#""thinking":{"type":"adaptive"}"#, Some(Mode::Auto)),
            (r#""output_config":{"effort":"low"}"#, Some(Mode::Level(Level::Low))),
            (r#""temperature":1"#, None),
        ] {
            let body = format!(r#"{{{members},"messages":[{{"role":"user","content":"x"}}]}}"#);
            assert_eq!(ok(&body).0.thinking.mode, mode, "{members}");
        }
    }

    #[test]
    fn tools_that_anthropic_defines_are_no_functions() {
        let (request, losses) = ok(
            r#"{"tools":[{"type":"web_search_20250305","name":"web_search","max_uses":3,"allowed_domains":["a.b"]},{"type":"code_execution_20250825","name":"code_execution"},{"type":"bash_20250124","name":"bash"},{"name":"f","input_schema":{"type":"object"}}],"tool_choice":{"type":"tool","name":"web_search","disable_parallel_tool_use":true},"messages":[{"role":"user","content":"x"}]}"#,
        );
        assert!(losses.is_empty(), "{losses}");
        assert!(matches!(&request.tools[0], Tool::Builtin(Builtin::WebSearch { max_uses: Some(3), .. })));
        assert!(matches!(&request.tools[1], Tool::Builtin(Builtin::CodeExecution)));
        let Tool::Builtin(Builtin::Other { raw, .. }) = &request.tools[2] else { panic!() };
        assert_eq!(raw.as_str(), r#"{"type":"bash_20250124","name":"bash"}"#);
        assert_eq!(request.tool_choice, Some(ToolChoice::Builtin("web_search".into())));
        assert_eq!(request.parallel_tools, Some(false));
    }

    #[test]
    fn p34_unknown_members_are_recorded_with_their_path() {
        let (_, losses) = ok(
            r#"{"top":1,"messages":[{"role":"user","content":[{"type":"text","text":"x","new":1},{"type":"new_block","a":1}],"id":"m"}]}"#,
        );
        assert_eq!(
            losses.to_string(),
            "unknown-member messages[0].content[0].new, unknown-member messages[0].id, unknown-member top"
        );
    }
}
