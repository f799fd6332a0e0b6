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
use crate::ir::{Format, Instruction, LossKind, Losses, Part, RawJson, Request, Role, Turn};
use crate::json::{Json, Path, parse};
use crate::thinking::{Level, Mode};

/// Members whose text stays as it was sent.
const RAW: [&str; 4] = ["input", "input_schema", "schema", "user_location"];

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
                if let Some((text, cache)) = read_blocks::instruction(item, &at.index(n), losses)? {
                    request.system.push(Instruction { text, developer: false, cache });
                }
            }
        }
        Some(Json::Str(text)) if text.trim().is_empty() => {}
        Some(Json::Str(text)) => {
            request.system.push(Instruction { text, developer: false, cache: None });
        }
        Some(other) => return Err(WireError::expected(&at, "a string or an array of blocks", &other)),
    }
    Ok(())
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
    request.thinking.mode = effort.map(Mode::Level);
    let Some(value) = fields.take("thinking") else { return Ok(()) };
    let at = root.key("thinking");
    let mut thinking = Fields::of(value, &at)?;
    let kind = thinking.need_text("type")?;
    let budget = thinking.number("budget_tokens")?;
    request.thinking.visible = thinking.text("display")?.and_then(|word| match word.as_ref() {
        "summarized" => Some(true),
        "omitted" => Some(false),
        _ => None,
    });
    request.thinking.mode = match kind.as_ref() {
        "disabled" => Some(Mode::Off),
        "enabled" => Some(budget.map_or(Mode::Auto, |tokens| Mode::of_tokens(tokens as i64))),
        "adaptive" | "auto" | "between_tools" => Some(effort.map_or(Mode::Auto, Mode::Level)),
        other => {
            let problem = format!("{other} is not one of enabled, adaptive, between_tools, disabled");
            return Err(WireError::invalid(&at.key("type"), problem));
        }
    };
    thinking.end(losses);
    Ok(())
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
