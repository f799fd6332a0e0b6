//! Parts of the user and of tools → content of a message or of an output.
//!
//! Enters: parts. Leaves: `input_text`, `input_image`, `input_file`, `input_audio`. May go wrong: nothing;
//! what the format cannot hold becomes text that says what was there, and a [`Loss`](crate::ir::Loss).

use crate::Protocol;
use crate::ir::{Audio, Document, Image, LossKind, Losses, Part, SearchResult, Source};
use crate::json::{Array, Path};
use crate::names::audio_format;

/// Writes the parts that are content; calls, results and reasoning are items of their own.
pub(super) fn content(out: &mut Array<'_>, parts: &[&Part<'_>], path: &Path<'_>, losses: &mut Losses) {
    for part in parts {
        match part {
            Part::Text(part) => text(out, &part.text),
            Part::Refusal(part) => text(out, part),
            Part::Image(part) => image(out, part, path, losses),
            Part::Audio(part) => audio(out, part, path, losses),
            Part::Document(part) => document(out, part, path, losses),
            Part::SearchResult(part) => text(out, &passage(part)),
            Part::ToolCall(_) | Part::ToolResult(_) | Part::Reasoning(_) | Part::Server(_) => {}
        }
    }
}

fn text(out: &mut Array<'_>, text: &str) {
    out.object(|o| {
        o.str("type", "input_text");
        o.str("text", text);
    });
}

fn image(out: &mut Array<'_>, image: &Image<'_>, path: &Path<'_>, losses: &mut Losses) {
    let url = match &image.source {
        Source::Inline { data, .. } => {
            let mime = image.source.mime("image/png");
            Some(format!("data:{mime};base64,{data}"))
        }
        Source::Url { url, .. } => Some(url.clone().into_owned()),
        Source::File { vendor, .. } if is_openai(*vendor) => None,
        Source::File { .. } => return foreign_file(out, "image", path, losses),
        Source::Text(inner) => return text(out, inner),
    };
    out.object(|o| {
        o.str("type", "input_image");
        match (&url, &image.source) {
            (Some(url), _) => o.str("image_url", url),
            (None, Source::File { id, .. }) => o.str("file_id", id),
            (None, _) => {}
        }
        o.str("detail", image.detail.as_deref().unwrap_or("auto"));
    });
}

fn audio(out: &mut Array<'_>, audio: &Audio<'_>, path: &Path<'_>, losses: &mut Losses) {
    let format = audio_format(audio.source.mime("audio/wav"));
    match &audio.source {
        Source::Inline { data, .. } if matches!(format, "mp3" | "wav") => out.object(|o| {
            o.str("type", "input_audio");
            o.object("input_audio", |o| {
                o.str("data", data);
                o.str("format", format);
            });
        }),
        Source::Url { url, .. } => {
            losses.at(LossKind::AttachmentAsText, path);
            text(out, &format!("[audio: {url}]"));
        }
        _ => {
            losses.at(LossKind::AttachmentAsText, path);
            text(out, &format!("[audio in a format that cannot be sent: {}]", audio.source.mime("audio")));
        }
    }
}

fn document(out: &mut Array<'_>, document: &Document<'_>, path: &Path<'_>, losses: &mut Losses) {
    if let Some(context) = document.context.as_deref().filter(|context| !context.trim().is_empty()) {
        text(out, context);
    }
    let name = document.name.as_deref();
    match &document.source {
        Source::Text(inner) => match name {
            Some(name) => text(out, &format!("[document: {name}]\n{inner}")),
            None => text(out, inner),
        },
        Source::File { vendor, .. } if !is_openai(*vendor) => foreign_file(out, "document", path, losses),
        source => out.object(|o| {
            o.str("type", "input_file");
            match source {
                Source::Inline { data, .. } => {
                    let mime = source.mime("application/pdf");
                    o.str("filename", &file_name(name, mime));
                    o.str("file_data", &format!("data:{mime};base64,{data}"));
                }
                Source::Url { url, .. } => o.str("file_url", url),
                Source::File { id, .. } => o.str("file_id", id),
                Source::Text(_) => {}
            }
        }),
    }
}

/// A name with an ending, by which the API tells formats apart.
fn file_name(name: Option<&str>, mime: &str) -> String {
    let ending = match mime {
        "text/plain" => "txt",
        "text/markdown" => "md",
        "text/csv" => "csv",
        "text/html" => "html",
        "application/json" => "json",
        _ => "pdf",
    };
    match name {
        Some(name) if name.contains('.') => name.to_owned(),
        Some(name) => format!("{name}.{ending}"),
        None => format!("document.{ending}"),
    }
}

fn passage(result: &SearchResult<'_>) -> String {
    let mut out = format!("{} ({})", result.title, result.source);
    for text in &result.text {
        out.push('\n');
        out.push_str(text);
    }
    out
}

fn foreign_file(out: &mut Array<'_>, what: &str, path: &Path<'_>, losses: &mut Losses) {
    losses.at(LossKind::FileId, path);
    text(out, &format!("[{what}: a file that was uploaded to another provider]"));
}

fn is_openai(vendor: Protocol) -> bool {
    matches!(vendor, Protocol::OpenaiChat | Protocol::OpenaiResponses)
}
