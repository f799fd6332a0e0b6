//! Tools and the choice among them.
//!
//! Enters: `tools` (also of `additional_tools` items) and `tool_choice`. Leaves: tools of the IR, those in a
//! namespace side by side with the others. May go wrong: a tool without type or name, a choice of an unknown
//! form; the error names the path.

use super::read_members::{elements, need_string, object, opt, opt_bool, opt_object, opt_string, strings};
use crate::Protocol;
use crate::error::WireError;
use crate::ir::{Builtin, LossKind, Losses, RawJson, Str, Tool, ToolChoice, ToolKind};
use crate::json::{Json, Map, Path};

/// Members of a tool whose text is kept.
const RAW: [&str; 4] = ["parameters", "format", "user_location", "tools"];

/// Reads an array of tools.
pub(super) fn tools<'a>(
    value: &Json<'a>,
    path: &Path<'_>,
    out: &mut Vec<Tool<'a>>,
    losses: &mut Losses,
) -> Result<(), WireError> {
    for (n, raw) in elements(value, path)?.into_iter().enumerate() {
        tool(raw, &path.index(n), out, losses)?;
    }
    Ok(())
}

fn tool<'a>(
    raw: &'a str,
    path: &Path<'_>,
    out: &mut Vec<Tool<'a>>,
    losses: &mut Losses,
) -> Result<(), WireError> {
    let mut map = object(Json::Raw(raw), path, &RAW)?;
    let kind = need_string(&mut map, "type", path)?;
    let tool = match kind.as_ref() {
        "function" | "custom" => callable(map, &kind, None, path)?,
        "namespace" => return namespace(&mut map, path, out, losses),
        "web_search" | "web_search_2025_08_26" | "web_search_preview" | "web_search_preview_2025_03_11" => {
            Tool::Builtin(web_search(&mut map, path)?)
        }
        "code_interpreter" => Tool::Builtin(Builtin::CodeExecution),
        "image_generation" => Tool::Builtin(Builtin::ImageGeneration(RawJson(Str::Borrowed(raw)))),
        _ => Tool::Builtin(Builtin::Other {
            vendor: Protocol::OpenaiResponses,
            kind,
            raw: RawJson(Str::Borrowed(raw)),
        }),
    };
    out.push(tool);
    Ok(())
}

/// Tools of a namespace. Its own description has no place outside of this format.
fn namespace<'a>(
    map: &mut Map<'a>,
    path: &Path<'_>,
    out: &mut Vec<Tool<'a>>,
    losses: &mut Losses,
) -> Result<(), WireError> {
    let name = need_string(map, "name", path)?;
    let path = path.key("tools");
    let Some(inner) = opt(map, "tools") else { return Ok(()) };
    for (n, raw) in elements(&inner, &path)?.into_iter().enumerate() {
        let path = path.index(n);
        let mut map = object(Json::Raw(raw), &path, &RAW)?;
        let kind = need_string(&mut map, "type", &path)?;
        if matches!(kind.as_ref(), "function" | "custom") {
            out.push(callable(map, &kind, Some(name.clone()), &path)?);
        } else {
            losses.at(LossKind::Builtin, &path);
        }
    }
    Ok(())
}

/// A function or a bare-string tool.
fn callable<'a>(
    mut map: Map<'a>,
    kind: &str,
    namespace: Option<Str<'a>>,
    path: &Path<'_>,
) -> Result<Tool<'a>, WireError> {
    // Chat nests the members; clients that mix the formats up are understood.
    if !map.has("name")
        && let Some(inner) = opt_object(&mut map, kind, path, &RAW)?
    {
        map = inner;
    }
    let name = need_string(&mut map, "name", path)?;
    let description = opt_string(&mut map, "description", path)?;
    if kind == "custom" {
        let format = opt(&mut map, "format").map(RawJson::from);
        return Ok(Tool::Custom { name, namespace, description, format });
    }
    let schema = opt(&mut map, "parameters");
    if let Some(schema) = schema.as_ref().filter(|schema| !schema.is_object()) {
        return Err(WireError::expected(&path.key("parameters"), "an object", schema));
    }
    let strict = opt_bool(&mut map, "strict", path)?;
    Ok(Tool::Function {
        name,
        namespace,
        description,
        schema: schema.map(RawJson::from),
        strict,
        cache: None,
    })
}

fn web_search<'a>(map: &mut Map<'a>, path: &Path<'_>) -> Result<Builtin<'a>, WireError> {
    let (mut allowed_domains, mut blocked_domains) = (Vec::new(), Vec::new());
    if let Some(mut filters) = opt_object(map, "filters", path, &[])? {
        let path = path.key("filters");
        allowed_domains = strings(&mut filters, "allowed_domains", &path)?;
        blocked_domains = strings(&mut filters, "blocked_domains", &path)?;
    }
    Ok(Builtin::WebSearch {
        allowed_domains,
        blocked_domains,
        max_uses: None,
        user_location: opt(map, "user_location").map(RawJson::from),
        context_size: opt_string(map, "search_context_size", path)?,
    })
}

/// Reads `tool_choice`.
pub(super) fn choice<'a>(
    value: Json<'a>,
    path: &Path<'_>,
    tools: &[Tool<'a>],
    losses: &mut Losses,
) -> Result<ToolChoice<'a>, WireError> {
    if value.kind() == "a string" {
        let word = super::read_members::string(value, path)?;
        return plain(&word)
            .ok_or_else(|| WireError::invalid(path, "expected `auto`, `none`, `required` or an object"));
    }
    let mut map = object(value, path, &[])?;
    let kind = need_string(&mut map, "type", path)?;
    match kind.as_ref() {
        "function" | "custom" => {
            if !map.has("name")
                && let Some(inner) = opt_object(&mut map, &kind, path, &[])?
            {
                map = inner;
            }
            let name = need_string(&mut map, "name", path)?;
            let namespace = opt_string(&mut map, "namespace", path)?.or_else(|| home(&name, tools));
            let kind = if kind == "custom" { ToolKind::Custom } else { ToolKind::Function };
            Ok(ToolChoice::Named { name, namespace, kind })
        }
        "allowed_tools" => {
            if let Some(inner) = opt_object(&mut map, "allowed_tools", path, &[])? {
                map = inner;
            }
            allowed(&mut map, path, losses)
        }
        word => Ok(plain(word).unwrap_or(ToolChoice::Builtin(kind.clone()))),
    }
}

fn plain(word: &str) -> Option<ToolChoice<'static>> {
    match word {
        "auto" => Some(ToolChoice::Auto),
        "none" => Some(ToolChoice::None),
        "required" | "any" => Some(ToolChoice::Any),
        _ => None,
    }
}

/// The namespace of the only tool with this name, when no tool outside of namespaces has it.
fn home<'a>(name: &str, tools: &[Tool<'a>]) -> Option<Str<'a>> {
    let mut found =
        tools.iter().filter(|tool| tool.name().is_some_and(|own| own == name)).map(|tool| match tool {
            Tool::Function { namespace, .. } | Tool::Custom { namespace, .. } => namespace.clone(),
            Tool::Builtin(_) => None,
        });
    let only = found.next()?;
    found.next().is_none().then_some(only)?
}

fn allowed<'a>(map: &mut Map<'a>, path: &Path<'_>, losses: &mut Losses) -> Result<ToolChoice<'a>, WireError> {
    let required = opt_string(map, "mode", path)?.is_some_and(|mode| mode == "required");
    let path = path.key("tools");
    let Some(Json::Array(tools)) = opt(map, "tools") else {
        return Err(WireError::invalid(&path, "required: an array of tools"));
    };
    let mut names = Vec::with_capacity(tools.len());
    for (n, tool) in tools.into_iter().enumerate() {
        let path = path.index(n);
        let mut tool = object(tool, &path, &[])?;
        if let Some(inner) = opt_object(&mut tool, "function", &path, &[])? {
            tool = inner;
        }
        match opt_string(&mut tool, "name", &path)? {
            Some(name) => names.push(name),
            // A built-in has no name; whether it may be used cannot be said elsewhere.
            None => losses.at(LossKind::Builtin, &path),
        }
    }
    Ok(ToolChoice::Allowed { required, names })
}
