//! Pictures and documents as the service reads them.
//!
//! Enters: an attachment of a turn or of a tool's result. Leaves: its bytes and format, or text. May go
//! wrong: nothing; what the service cannot read becomes text that says what was there, and is recorded.

use crate::ir::{Document, Image, LossKind, Losses, Part, Source};
use crate::json::Path;
use crate::names::{split_data_url, standard_base64};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// Pictures that the service reads, and what it calls them.
const PICTURES: [(&str, &str); 5] = [
    ("image/png", "png"),
    ("image/jpeg", "jpeg"),
    ("image/jpg", "jpeg"),
    ("image/gif", "gif"),
    ("image/webp", "webp"),
];

/// Documents that the service reads and that are no text.
const DOCUMENTS: [(&str, &str); 5] = [
    ("application/pdf", "pdf"),
    ("application/msword", "doc"),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx"),
    ("application/vnd.ms-excel", "xls"),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx"),
];

/// What an attachment became.
pub(super) enum Attached<'r> {
    /// A member of `images`.
    Picture(File<'r>),
    /// A member of `documents`, with its name.
    Document(File<'r>, &'r str),
    /// Part of the text.
    Text(Cow<'r, str>),
}

/// Bytes and what they are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File<'r> {
    /// The service's word for the format.
    pub(super) format: &'static str,
    /// Base64.
    pub(super) data: Cow<'r, str>,
}

/// The attachment that `part` is; `None` when it is none. Only users attach: `user` tells whose turn it is.
pub(super) fn attached<'r>(
    part: &'r Part<'_>,
    user: bool,
    path: &Path<'_>,
    losses: &mut Losses,
) -> Option<Attached<'r>> {
    Some(match part {
        Part::Image(image) => picture(image, user, path, losses),
        Part::Document(document) => file(document, user, path, losses),
        Part::Audio(audio) => note("audio", &audio.source, None, path, losses),
        _ => return None,
    })
}

fn picture<'r>(image: &'r Image<'_>, user: bool, path: &Path<'_>, losses: &mut Losses) -> Attached<'r> {
    if image.detail.as_deref().is_some_and(|detail| detail != "auto") {
        losses.at(LossKind::Setting, path);
    }
    match inline(&image.source, "image/png", &PICTURES).filter(|_| user) {
        Some(file) => Attached::Picture(file),
        None => note("image", &image.source, None, path, losses),
    }
}

fn file<'r>(document: &'r Document<'_>, user: bool, path: &Path<'_>, losses: &mut Losses) -> Attached<'r> {
    let name = document.name.as_deref().filter(|name| !name.trim().is_empty());
    let titled = |text: Cow<'r, str>| {
        Attached::Text(match name {
            Some(name) => format!("[document: {name}]\n{text}").into(),
            None => text,
        })
    };
    let source = &document.source;
    if let Source::Text(text) = source {
        return titled(Cow::Borrowed(text));
    }
    if user {
        if let Some(file) = inline(source, "application/pdf", &PICTURES) {
            return Attached::Picture(file);
        }
        if let Some(file) = inline(source, "application/pdf", &DOCUMENTS) {
            return Attached::Document(file, name.unwrap_or("document"));
        }
    }
    match readable(source) {
        Some(text) => titled(text.into()),
        None => note("document", source, name, path, losses),
    }
}

/// The bytes of `source`, when they came with the request and are of one of the `formats`.
fn inline<'r>(
    source: &'r Source<'_>,
    fallback: &'static str,
    formats: &[(&str, &'static str)],
) -> Option<File<'r>> {
    let (mime, data) = match source {
        Source::Inline { data, .. } => {
            let (mime, data) = split_data_url(data).unwrap_or((source.mime(fallback), data));
            (if mime.is_empty() { fallback } else { mime }, data)
        }
        Source::Url { url, .. } => split_data_url(url)?,
        Source::File { .. } | Source::Text(_) => return None,
    };
    let format = formats.iter().find(|(known, _)| known.eq_ignore_ascii_case(mime))?.1;
    Some(File { format, data: standard_base64(Cow::Borrowed(data)) })
}

/// Text in base64, as clients send source files.
fn readable(source: &Source<'_>) -> Option<String> {
    let Source::Inline { data, .. } = source else { return None };
    let text = String::from_utf8(STANDARD.decode(data.as_bytes()).ok()?).ok()?;
    (!text.trim().is_empty() && !text.contains('\0')).then_some(text)
}

/// Text in the place of an attachment.
pub(super) fn note(
    what: &str,
    source: &Source<'_>,
    name: Option<&str>,
    path: &Path<'_>,
    losses: &mut Losses,
) -> Attached<'static> {
    let (kind, said) = match source {
        Source::File { id, .. } => (LossKind::FileId, format!("file {id}")),
        Source::Url { url, .. } if split_data_url(url).is_none() => {
            (LossKind::AttachmentAsText, url.to_string())
        }
        source => (LossKind::AttachmentAsText, source.mime("unknown type").to_owned()),
    };
    losses.at(kind, path);
    let name = name.map(|name| format!("{name}, ")).unwrap_or_default();
    Attached::Text(format!("[{what}: {name}{said}]").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;
    use crate::ir::Audio;

    fn inline(mime: &'static str, data: &'static str) -> Source<'static> {
        Source::Inline { mime: mime.into(), data: data.into() }
    }

    fn image(source: Source<'static>) -> Part<'static> {
        Part::Image(Image { source, detail: None, cache: None })
    }

    fn document(source: Source<'static>) -> Part<'static> {
        let name = Some("n".into());
        Part::Document(Document { source, name, context: None, citations: false, cache: None })
    }

    #[test]
    fn attachments_reach_the_model_or_say_what_they_were() {
        let url = |url: &'static str| Source::Url { url: url.into(), mime: None };
        let parts = [
            // Called a JPEG, and a PNG by its bytes.
            (image(inline("image/jpeg", "iVBORw0KGgoAAAANSUhEUgAA")), "picture png"),
            (image(url("data:image/webp;base64,AAAA")), "picture webp"),
            (image(url("https://e/a.png")), "[image: https://e/a.png]"),
            (image(inline("image/svg+xml", "AAAA")), "[image: image/svg+xml]"),
            (image(Source::File { vendor: Protocol::OpenaiChat, id: "f1".into() }), "[image: file f1]"),
            (document(inline("", "JVBERi0xLjEKMSAwIG9iajw8")), "document pdf n"),
            (document(inline("text/x-rust", "Zm4gbWFpbigpIHt9")), "[document: n]\nfn main() {}"),
            (document(inline("application/zip", "UEsDBBQAAAAA/w==")), "[document: n, application/zip]"),
            (document(Source::Text("words".into())), "[document: n]\nwords"),
            (Part::Audio(Audio { source: inline("audio/wav", "UklGRg==") }), "[audio: audio/wav]"),
        ];
        let mut losses = Losses::default();
        for (part, expected) in &parts {
            let said = match attached(part, true, &Path::Root, &mut losses).unwrap() {
                Attached::Picture(file) => format!("picture {}", file.format),
                Attached::Document(file, name) => format!("document {} {name}", file.format),
                Attached::Text(text) => text.into_owned(),
            };
            assert_eq!(&said, expected);
        }
        assert_eq!(losses.len(), 5);
    }

    #[test]
    fn what_the_model_made_is_not_sent_as_the_users_picture() {
        let part = image(inline("image/png", "iVBORw0KGgo="));
        let made = attached(&part, false, &Path::Root, &mut Losses::default()).unwrap();
        assert!(matches!(made, Attached::Text(text) if text == "[image: image/png]"));
    }
}
