//! `tools` and `tool_choice` → IR.
//!
//! Enters: declarations of the client's functions and of tools that Anthropic defines. Leaves: functions,
//! the built-ins that other formats have as well, and everything else as it was sent. May go wrong: a wrong
//! type or a missing name.

use super::fields::Fields;
use crate::Protocol;
use crate::error::WireError;
use crate::ir::{Builtin, LossKind, Losses, Request, Tool, ToolChoice, ToolKind};
use crate::json::{Json, Path};

/// Reads `tools`.
pub(super) fn tools<'a>(
    items: Vec<Json<'a>>,
    path: &Path<'_>,
    losses: &mut Losses,
) -> Result<Vec<Tool<'a>>, WireError> {
    items.into_iter().enumerate().map(|(n, item)| tool(item, &path.index(n), losses)).collect()
}

fn tool<'a>(value: Json<'a>, path: &Path<'_>, losses: &mut Losses) -> Result<Tool<'a>, WireError> {
    let mut fields = Fields::of(value, path)?;
    let kind = fields.text("type")?.unwrap_or_default();
    let tool = match kind.as_ref() {
        "" | "custom" => Tool::Function {
            name: fields.need_text("name")?,
            namespace: None,
            description: fields.text("description")?.filter(|text| !text.is_empty()),
            schema: fields.object("input_schema")?,
            strict: fields.flag("strict")?,
            cache: fields.cache()?,
        },
        "function" => {
            let problem = "function is a tool of the OpenAI formats; send name, description and input_schema";
            return Err(WireError::invalid(&path.key("type"), problem));
        }
        search if search.starts_with("web_search_") => {
            fields.take("name");
            fields.lost(LossKind::CacheMark, "cache_control", losses);
            fields.lost(LossKind::Setting, "response_inclusion", losses);
            Tool::Builtin(Builtin::WebSearch {
                allowed_domains: fields.texts("allowed_domains")?,
                blocked_domains: fields.texts("blocked_domains")?,
                max_uses: fields.count("max_uses")?,
                user_location: fields.object("user_location")?,
                context_size: None,
            })
        }
        code if code.starts_with("code_execution_") => {
            fields.take("name");
            fields.lost(LossKind::CacheMark, "cache_control", losses);
            Tool::Builtin(Builtin::CodeExecution)
        }
        _ => {
            let raw = fields.raw(&kind);
            return Ok(Tool::Builtin(Builtin::Other { vendor: Protocol::Claude, kind, raw }));
        }
    };
    for setting in
        ["allowed_callers", "defer_loading", "eager_input_streaming", "input_examples", "response_inclusion"]
    {
        fields.lost(LossKind::Setting, setting, losses);
    }
    fields.end(losses);
    Ok(tool)
}

/// Reads `tool_choice`; `request` has its tools already.
pub(super) fn tool_choice<'a>(
    value: Json<'a>,
    path: &Path<'_>,
    request: &mut Request<'a>,
    losses: &mut Losses,
) -> Result<(), WireError> {
    let mut fields = Fields::of(value, path)?;
    let kind = fields.need_text("type")?;
    if let Some(disabled) = fields.flag("disable_parallel_tool_use")? {
        request.parallel_tools = Some(!disabled);
    }
    request.tool_choice = Some(match kind.as_ref() {
        "auto" => ToolChoice::Auto,
        "none" => ToolChoice::None,
        "any" => ToolChoice::Any,
        "tool" => {
            let name = fields.need_text("name")?;
            let declared = request.tools.iter().any(|tool| tool.name().is_some_and(|n| *n == name));
            let builtin = match name.as_ref() {
                "web_search" => request.tools.iter().any(is_web_search),
                "code_execution" => request.tools.contains(&Tool::Builtin(Builtin::CodeExecution)),
                _ => false,
            };
            if builtin && !declared {
                ToolChoice::Builtin(name)
            } else {
                ToolChoice::Named { name, namespace: None, kind: ToolKind::Function }
            }
        }
        other => {
            let problem = format!("{other} is not one of auto, any, tool, none");
            return Err(WireError::invalid(&path.key("type"), problem));
        }
    });
    fields.end(losses);
    Ok(())
}

fn is_web_search(tool: &Tool<'_>) -> bool {
    matches!(tool, Tool::Builtin(Builtin::WebSearch { .. }))
}
