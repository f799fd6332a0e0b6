//! Parts of turns → content of messages.
//!
//! Enters: parts of any format. Leaves: [`Piece`]s: text, or one of the parts that this API has. May go
//! wrong: an attachment that cannot go along becomes a text that says what was there, and is recorded.

use crate::ir::{Audio, Document, Image, LossKind, Losses, Part, SearchResult, Source, Str};
use crate::json::{Array, Path, write_escaped, write_string};
use crate::names::audio_format;
use std::borrow::Cow;

/// A part of a user message.
pub(super) enum Piece<'p> {
    /// Text.
    Text(Cow<'p, str>),
    /// A picture with bytes or a URL.
    Image(&'p Image<'p>),
    /// Sound with bytes.
    Audio {
        /// Its format as the API names it.
        format: &'static str,
        /// Base64.
        data: &'p str,
    },
    /// A document with bytes.
    File(&'p Document<'p>),
}

/// What a part of a user's turn becomes; `None`: nothing.
pub(super) fn piece<'p>(part: &'p Part<'_>, at: &Path<'_>, losses: &mut Losses) -> Option<Piece<'p>> {
    Some(match part {
        Part::Text(text) => Piece::Text(Cow::Borrowed(&text.text)),
        Part::Refusal(text) => Piece::Text(Cow::Borrowed(text)),
        Part::SearchResult(result) => Piece::Text(search_text(result).into()),
        Part::Image(image) => match unreadable("image", &image.source, at, losses) {
            Some(text) => Piece::Text(text),
            None => Piece::Image(image),
        },
        Part::Audio(Audio { source: source @ Source::Inline { data, .. } }) => {
            Piece::Audio { format: audio_format(source.mime("audio/wav")), data }
        }
        Part::Audio(Audio { source }) => {
            losses.at(LossKind::AttachmentAsText, at);
            Piece::Text(describe("audio", source))
        }
        Part::Document(document) => document_piece(document, at, losses),
        Part::Server(_) => {
            losses.at(LossKind::Builtin, at);
            return None;
        }
        // Calls and thinking belong to the assistant; results are written apart.
        Part::ToolCall(_) | Part::ToolResult(_) | Part::Reasoning(_) => return None,
    })
}

/// Whether a part of a tool's result cannot be in a tool message.
pub(super) fn is_attachment(part: &Part<'_>) -> bool {
    match part {
        Part::Image(_) | Part::Audio(_) => true,
        Part::Document(document) => !matches!(document.source, Source::Text(_)),
        _ => false,
    }
}

/// All that is said in a turn, in one string.
pub(super) fn joined<'p>(parts: &'p [Part<'_>]) -> Cow<'p, str> {
    let mut out: Cow<'p, str> = Cow::Borrowed("");
    for part in parts {
        let text: Cow<'p, str> = match part {
            Part::Text(text) => Cow::Borrowed(text.text.as_ref()),
            Part::Refusal(text) => Cow::Borrowed(text.as_ref()),
            Part::SearchResult(result) => search_text(result).into(),
            _ => continue,
        };
        if out.is_empty() {
            out = text;
        } else {
            out.to_mut().push_str(&text);
        }
    }
    out
}

impl Piece<'_> {
    /// Appends the part to `content`.
    pub(super) fn write(&self, a: &mut Array<'_>) {
        a.object(|o| match self {
            Self::Text(text) => {
                o.str("type", "text");
                o.str("text", text);
            }
            Self::Image(image) => {
                o.str("type", "image_url");
                o.object("image_url", |o| {
                    write_url(o.key("url"), &image.source, "image/png");
                    o.opt_str("detail", image.detail.as_deref());
                });
            }
            Self::Audio { format, data } => {
                o.str("type", "input_audio");
                o.object("input_audio", |o| {
                    o.str("data", data);
                    o.str("format", format);
                });
            }
            Self::File(document) => {
                o.str("type", "file");
                o.object("file", |o| {
                    o.str("filename", document.name.as_deref().unwrap_or("document.pdf"));
                    write_url(o.key("file_data"), &document.source, "application/pdf");
                });
            }
        });
    }
}

/// Appends a URL, or bytes as a data URL, as a JSON string.
fn write_url(out: &mut Vec<u8>, source: &Source<'_>, fallback: &'static str) {
    match source {
        Source::Inline { data, .. } => {
            out.push(b'"');
            for piece in ["data:", source.mime(fallback), ";base64,", data] {
                write_escaped(out, piece);
            }
            out.push(b'"');
        }
        Source::Url { url, .. } => write_string(out, url),
        Source::File { .. } | Source::Text(_) => write_string(out, ""),
    }
}

/// The text in the place of a picture that the server cannot get at.
fn unreadable<'p>(
    what: &str,
    source: &'p Source<'_>,
    at: &Path<'_>,
    losses: &mut Losses,
) -> Option<Cow<'p, str>> {
    match source {
        Source::Inline { .. } => return None,
        Source::Url { url, .. } if url.starts_with("http://") || url.starts_with("https://") => return None,
        Source::Url { .. } => losses.at(LossKind::AttachmentAsText, at),
        Source::File { .. } => losses.at(LossKind::FileId, at),
        Source::Text(text) => return Some(Cow::Borrowed(text)),
    }
    Some(describe(what, source))
}

fn describe<'p>(what: &str, source: &Source<'_>) -> Cow<'p, str> {
    Cow::Owned(match source {
        Source::Url { url, .. } => format!("[{what}: {url}]"),
        Source::File { id, .. } => format!("[{what}: file {id} of another account, not readable here]"),
        Source::Inline { mime, .. } => format!("[{what}: {mime}]"),
        Source::Text(text) => text.clone().into_owned(),
    })
}

fn document_piece<'p>(document: &'p Document<'_>, at: &Path<'_>, losses: &mut Losses) -> Piece<'p> {
    match &document.source {
        Source::Inline { .. } => {
            if document.context.is_some() {
                losses.at(LossKind::Setting, at);
            }
            Piece::File(document)
        }
        Source::Text(text) if document.name.is_none() && document.context.is_none() => {
            Piece::Text(Cow::Borrowed(text))
        }
        Source::Text(text) => {
            let mut out = String::new();
            for line in [&document.name, &document.context].into_iter().flatten() {
                out.push_str(line);
                out.push('\n');
            }
            out.push('\n');
            out.push_str(text);
            Piece::Text(out.into())
        }
        source @ Source::Url { .. } => {
            losses.at(LossKind::AttachmentAsText, at);
            Piece::Text(describe("document", source))
        }
        source @ Source::File { .. } => {
            losses.at(LossKind::FileId, at);
            Piece::Text(describe("document", source))
        }
    }
}

fn search_text(result: &SearchResult<'_>) -> String {
    let mut out = format!("{}\n{}\n\n", result.title, result.source);
    let texts: Vec<&str> = result.text.iter().map(Str::as_ref).collect();
    out.push_str(&texts.join("\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;
    use crate::ir::{RawJson, Text};

    fn run(part: &Part<'_>) -> (String, String) {
        let (mut out, mut losses) = (Vec::new(), Losses::default());
        crate::json::array(&mut out, |a| {
            if let Some(piece) = piece(part, &Path::Root, &mut losses) {
                piece.write(a);
            }
        });
        (String::from_utf8(out).unwrap(), losses.iter().map(|loss| loss.kind.name()).collect())
    }

    fn inline(mime: &'static str, data: &'static str) -> Source<'static> {
        Source::Inline { mime: mime.into(), data: data.into() }
    }

    fn image(source: Source<'static>) -> Part<'static> {
        Part::Image(Image { source, detail: Some("low".into()), cache: None })
    }

    fn document(source: Source<'static>, name: Option<&'static str>) -> Part<'static> {
        let name = name.map(Into::into);
        Part::Document(Document { source, name, context: None, citations: false, cache: None })
    }

    fn url(url: &'static str) -> Source<'static> {
        Source::Url { url: url.into(), mime: None }
    }

    fn file() -> Source<'static> {
        Source::File { vendor: Protocol::Claude, id: "f1".into() }
    }

    #[test]
    fn each_kind_of_part() {
        let audio = Part::Audio(Audio { source: inline("audio/wav", "UklG") });
        for (part, content, loss) in [
            (Part::Text(Text::plain("a\"")), r#"[{"type":"text","text":"a\""}]"#, ""),
            (
                image(inline("image/jpeg", "iVBORw0KGgoAAAANSUhEUg==")),
                // What the bytes say, and not what the client said.
                r#"[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==","detail":"low"}}]"#,
                "",
            ),
            (
                image(inline("", "a\"b")),
                r#"[{"type":"image_url","image_url":{"url":"data:image/png;base64,a\"b","detail":"low"}}]"#,
                "",
            ),
            (
                image(url("https://x/a.png")),
                r#"[{"type":"image_url","image_url":{"url":"https://x/a.png","detail":"low"}}]"#,
                "",
            ),
            (image(url("gs://b/a")), r#"[{"type":"text","text":"[image: gs://b/a]"}]"#, "attachment-as-text"),
            (
                image(file()),
                r#"[{"type":"text","text":"[image: file f1 of another account, not readable here]"}]"#,
                "file-id",
            ),
            (audio, r#"[{"type":"input_audio","input_audio":{"data":"UklG","format":"wav"}}]"#, ""),
            (
                document(inline("application/pdf", "JVBE"), None),
                r#"[{"type":"file","file":{"filename":"document.pdf","file_data":"data:application/pdf;base64,JVBE"}}]"#,
                "",
            ),
            (document(Source::Text("body".into()), None), r#"[{"type":"text","text":"body"}]"#, ""),
            (
                document(Source::Text("body".into()), Some("a.txt")),
                r#"[{"type":"text","text":"a.txt\n\nbody"}]"#,
                "",
            ),
            (
                document(url("https://x/a.pdf"), None),
                r#"[{"type":"text","text":"[document: https://x/a.pdf]"}]"#,
                "attachment-as-text",
            ),
        ] {
            assert_eq!(run(&part), (content.to_owned(), loss.to_owned()), "{part:?}");
        }
    }

    #[test]
    fn a_search_result_is_text() {
        let result = SearchResult {
            source: "https://e".into(),
            title: "E".into(),
            text: vec!["one".into(), "two".into()],
            raw: RawJson("{}".into()),
        };
        let (content, _) = run(&Part::SearchResult(result));
        assert_eq!(content, r#"[{"type":"text","text":"E\nhttps://e\n\none\ntwo"}]"#);
    }
}
