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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn write(part: &Part<'_>) -> (String, usize) {
        let (mut out, mut losses) = (Vec::new(), Losses::default());
        json::array(&mut out, |a| content(a, &[part], &Path::Root, &mut losses));
        (String::from_utf8(out).unwrap(), losses.len())
    }

    fn document(source: Source<'static>, name: Option<&'static str>) -> Part<'static> {
        let name = name.map(Into::into);
        Part::Document(Document { source, name, context: None, citations: false, cache: None })
    }

    fn inline(mime: &'static str, data: &'static str) -> Source<'static> {
        Source::Inline { mime: mime.into(), data: data.into() }
    }

    #[test]
    fn attachments_keep_their_bytes() {
        for (part, expected) in [
            (
                document(inline("application/pdf", "JVBERi0x"), Some("a")),
                r#"[{"type":"input_file","filename":"a.pdf","file_data":"data:application/pdf;base64,JVBERi0x"}]"#,
            ),
            (
                document(Source::Url { url: "https://x".into(), mime: None }, None),
                r#"[{"type":"input_file","file_url":"https://x"}]"#,
            ),
            (
                document(Source::Text("body".into()), Some("a.txt")),
                r#"[{"type":"input_text","text":"[document: a.txt]\nbody"}]"#,
            ),
            (
                Part::Image(Image {
                    source: inline("image/jpeg", "iVBORw0KGgo="),
                    detail: Some("low".into()),
                    cache: None,
                }),
                r#"[{"type":"input_image","image_url":"data:image/png;base64,iVBORw0KGgo=","detail":"low"}]"#,
            ),
            (
                Part::Audio(Audio { source: inline("audio/mpeg", "AA") }),
                r#"[{"type":"input_audio","input_audio":{"data":"AA","format":"mp3"}}]"#,
            ),
        ] {
            assert_eq!(write(&part), (expected.to_owned(), 0));
        }
    }

    #[test]
    fn what_cannot_be_sent_is_said() {
        let file = |vendor| Source::File { vendor, id: "id".into() };
        let (out, losses) = write(&document(file(Protocol::Claude), None));
        assert!(out.contains("input_text") && out.contains("another provider"));
        assert_eq!(losses, 1);
        assert_eq!(
            write(&document(file(Protocol::OpenaiChat), None)).0,
            r#"[{"type":"input_file","file_id":"id"}]"#
        );
        let (out, losses) = write(&Part::Audio(Audio { source: inline("audio/flac", "AA") }));
        assert!(out.contains("input_text"));
        assert_eq!(losses, 1);
    }
}
