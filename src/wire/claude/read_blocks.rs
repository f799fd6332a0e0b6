//! Content of a message → parts.
//!
//! Enters: `content` as a string or as blocks. Leaves: parts in the same order; blank text is left out.
//! Blocks that only Anthropic can replay, and types nobody here knows, become [`Part::Server`].
//! May go wrong: a wrong type, a missing member, or a block where the API does not take it.

use super::fields::Fields;
use crate::Protocol;
use crate::error::WireError;
use crate::ir::{
    CacheMark, Document, Image, LossKind, Losses, Part, Reasoning, Role, SearchResult, ServerItem, Source,
    Str, Text, ToolCall, ToolKind, ToolResult,
};
use crate::json::{Json, Path};
use crate::signature::{Signature, Vendor};

/// Where content stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a message.
    Turn(Role),
    /// In a `tool_result`.
    Result,
}

/// Reads `content`.
pub(super) fn parts<'a>(
    value: Json<'a>,
    place: Place,
    path: &Path<'_>,
    losses: &mut Losses,
) -> Result<Vec<Part<'a>>, WireError> {
    let items = match value {
        Json::Str(text) if text.trim().is_empty() => return Ok(Vec::new()),
        Json::Str(text) => return Ok(vec![Part::Text(Text::plain(text))]),
        Json::Array(items) => items,
        other => return Err(WireError::expected(path, "a string or an array of blocks", &other)),
    };
    let mut parts = Vec::with_capacity(items.len());
    for (n, item) in items.into_iter().enumerate() {
        block(item, place, &path.index(n), &mut parts, losses)?;
    }
    give_signatures_back(&mut parts);
    Ok(parts)
}

fn block<'a>(
    value: Json<'a>,
    place: Place,
    path: &Path<'_>,
    parts: &mut Vec<Part<'a>>,
    losses: &mut Losses,
) -> Result<(), WireError> {
    let mut fields = Fields::of(value, path)?;
    let kind = fields.need_text("type")?;
    check_place(&kind, place, path)?;
    match kind.as_ref() {
        "text" => {
            let (text, cache) = (fields.need_text("text")?, fields.cache()?);
            citations(&mut fields, path, losses)?;
            if !text.trim().is_empty() {
                parts.push(Part::Text(Text { text, cache, signature: None }));
            }
        }
        "image" => {
            let source = source(&mut fields, path, losses)?;
            let cache = fields.cache()?;
            fields.lost(LossKind::Setting, "transformations", losses);
            parts.push(Part::Image(Image { source, detail: None, cache }));
        }
        "document" => document(&mut fields, path, parts, losses)?,
        "search_result" => parts.push(search_result(&mut fields, path, losses)?),
        "tool_use" => parts.push(tool_use(&mut fields, path, losses)?),
        "tool_result" => parts.push(tool_result(&mut fields, path, losses)?),
        "thinking" | "redacted_thinking" => {
            let thinking = fields.text("thinking")?.unwrap_or_default();
            let signature = fields.text("signature")?.and_then(Signature::detect);
            let redacted = fields.text("data")?.filter(|data| !data.is_empty());
            let text = if thinking.is_empty() { Vec::new() } else { vec![thinking] };
            parts.push(Part::Reasoning(Reasoning { text, signature, redacted, id: None }));
        }
        _ => {
            let raw = fields.raw(&kind);
            parts.push(Part::Server(ServerItem { vendor: Protocol::Claude, kind, raw }));
            return Ok(());
        }
    }
    fields.end(losses);
    Ok(())
}

/// Refuses what the API refuses and the IR has no place for.
fn check_place(kind: &str, place: Place, path: &Path<'_>) -> Result<(), WireError> {
    let refused = match (kind, place) {
        ("tool_use" | "thinking" | "redacted_thinking", Place::Turn(role)) => role != Role::Assistant,
        ("tool_result", Place::Turn(role)) => role != Role::User,
        ("tool_use" | "tool_result" | "thinking" | "redacted_thinking", Place::Result) => true,
        ("image" | "document" | "search_result", Place::Turn(role)) => role == Role::System,
        _ => false,
    };
    if refused {
        return Err(WireError::invalid(path, format!("a block of type {kind} cannot stand here")));
    }
    Ok(())
}

/// Citations of earlier answers point into search results and documents by vendor-bound indices.
fn citations(fields: &mut Fields<'_, '_>, path: &Path<'_>, losses: &mut Losses) -> Result<(), WireError> {
    if fields.list("citations")?.is_some_and(|list| !list.is_empty()) {
        losses.at(LossKind::Builtin, &path.key("citations"));
    }
    Ok(())
}

/// `source` of an image or document, apart from `content`, which [`document`] reads.
fn source<'a>(
    fields: &mut Fields<'a, '_>,
    path: &Path<'_>,
    losses: &mut Losses,
) -> Result<Source<'a>, WireError> {
    let at = path.key("source");
    let value = fields.take("source").ok_or_else(|| WireError::invalid(&at, "required: an object"))?;
    let mut fields = Fields::of(value, &at)?;
    let kind = fields.need_text("type")?;
    let source = match kind.as_ref() {
        "base64" => Source::Inline {
            mime: fields.text("media_type")?.unwrap_or_default(),
            data: fields.need_text("data")?,
        },
        "url" => Source::Url { url: fields.need_text("url")?, mime: None },
        "file" => Source::File { vendor: Protocol::Claude, id: fields.need_text("file_id")? },
        "text" => {
            fields.take("media_type");
            Source::Text(fields.need_text("data")?)
        }
        other => {
            let problem = format!("{other} is not one of base64, url, file, text");
            return Err(WireError::invalid(&at.key("type"), problem));
        }
    };
    fields.end(losses);
    Ok(source)
}

fn document<'a>(
    fields: &mut Fields<'a, '_>,
    path: &Path<'_>,
    out: &mut Vec<Part<'a>>,
    losses: &mut Losses,
) -> Result<(), WireError> {
    let name = fields.text("title")?.filter(|t| !t.is_empty());
    let context = fields.text("context")?.filter(|t| !t.is_empty());
    let citations = fields.take("citations").is_some_and(|c| c.get("enabled") == Some(&Json::Bool(true)));
    let cache = fields.cache()?;
    let document = |source| Part::Document(Document { source, name, context, citations, cache });
    if !fields.holds(&["source", "type"], "content") {
        out.push(document(source(fields, path, losses)?));
        return Ok(());
    }
    // Blocks as a document: the text stays one document, pictures follow it.
    let at = path.key("source");
    let Some(value) = fields.take("source") else { return Ok(()) };
    let mut source = Fields::of(value, &at)?;
    let at_content = at.key("content");
    let blocks = source
        .take("content")
        .ok_or_else(|| WireError::invalid(&at_content, "required: a string or an array of blocks"))?;
    let mut text = String::new();
    let mut rest = Vec::new();
    for part in parts(blocks, Place::Result, &at_content, losses)? {
        match part {
            Part::Text(part) => {
                if !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(&part.text);
            }
            other => rest.push(other),
        }
    }
    if !text.is_empty() {
        out.push(document(Source::Text(text.into())));
    }
    out.append(&mut rest);
    source.take("type");
    source.end(losses);
    Ok(())
}

fn search_result<'a>(
    fields: &mut Fields<'a, '_>,
    path: &Path<'_>,
    losses: &mut Losses,
) -> Result<Part<'a>, WireError> {
    fields.lost(LossKind::CacheMark, "cache_control", losses);
    let raw = fields.raw("search_result");
    let (source, title) = (fields.need_text("source")?, fields.need_text("title")?);
    fields.take("citations");
    let at = path.key("content");
    let mut text = Vec::new();
    for (n, item) in fields.list("content")?.unwrap_or_default().into_iter().enumerate() {
        let at = at.index(n);
        let mut fields = Fields::of(item, &at)?;
        text.push(fields.need_text("text")?);
    }
    text.retain(|text| !text.trim().is_empty());
    Ok(Part::SearchResult(SearchResult { source, title, text, raw }))
}

fn tool_use<'a>(
    fields: &mut Fields<'a, '_>,
    path: &Path<'_>,
    losses: &mut Losses,
) -> Result<Part<'a>, WireError> {
    let call = ToolCall {
        id: fields.need_text("id")?,
        name: fields.need_text("name")?,
        namespace: None,
        kind: ToolKind::Function,
        arguments: fields.object("input")?.map_or(Str::Borrowed("{}"), |raw| raw.0),
        signature: None,
        cache: fields.cache()?,
    };
    // `direct` is what every other format means anyway.
    let caller = fields.take("caller");
    if caller.is_some_and(|caller| caller.get("type").and_then(Json::as_str) != Some("direct")) {
        losses.at(LossKind::Builtin, &path.key("caller"));
    }
    fields.lost(LossKind::Builtin, "toolset_name", losses);
    Ok(Part::ToolCall(call))
}

fn tool_result<'a>(
    fields: &mut Fields<'a, '_>,
    path: &Path<'_>,
    losses: &mut Losses,
) -> Result<Part<'a>, WireError> {
    let content = match fields.take("content") {
        Some(content) => parts(content, Place::Result, &path.key("content"), losses)?,
        None => Vec::new(),
    };
    let result = ToolResult {
        call_id: fields.need_text("tool_use_id")?,
        name: None,
        parts: content,
        is_error: fields.flag("is_error")?.unwrap_or(false),
        kind: ToolKind::Function,
        cache: fields.cache()?,
    };
    fields.lost(LossKind::Builtin, "toolset_name", losses);
    Ok(Part::ToolResult(result))
}

/// Gemini signs calls, this format only thinking. The answer's writer puts the signature of a call on the
/// thinking right before it, empty if there was none; here it goes back to the call.
fn give_signatures_back(parts: &mut Vec<Part<'_>>) {
    let mut at = 0;
    while let Some([first, second, ..]) = parts.get_mut(at..) {
        if let (Part::Reasoning(thinking), Part::ToolCall(call)) = (first, second)
            && thinking.signature.as_ref().is_some_and(|s| s.vendor == Vendor::Gemini)
        {
            call.signature = thinking.signature.take();
            if thinking.text.is_empty() {
                parts.remove(at);
                continue;
            }
        }
        at += 1;
    }
}

/// One block of `system`, or of a message that speaks for it.
pub(super) fn instruction<'a>(
    value: Json<'a>,
    path: &Path<'_>,
    losses: &mut Losses,
) -> Result<Option<(Str<'a>, Option<CacheMark>)>, WireError> {
    let mut fields = Fields::of(value, path)?;
    let kind = fields.need_text("type")?;
    if kind != "text" {
        let problem = format!("system takes blocks of type text, not {kind}");
        return Err(WireError::invalid(&path.key("type"), problem));
    }
    let (text, cache) = (fields.need_text("text")?, fields.cache()?);
    citations(&mut fields, path, losses)?;
    fields.end(losses);
    Ok((!text.trim().is_empty()).then_some((text, cache)))
}
