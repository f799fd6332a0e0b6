//! Content of a Chat message.
//!
//! Enters: a string or an array of parts. Leaves: [`Part`]s; data URLs are taken apart, so that no other
//! format finds one in a base64 field. May go wrong: part types nobody knows, data URLs that are not base64.

use crate::Protocol;
use crate::error::WireError;
use crate::ir::{Audio, CacheMark, Document, Image, LossKind, Losses, Part, Source, Str, Text};
use crate::json::{Json, Map, Path};
use crate::names::{audio_mime, sniff_mime, split_data_url, standard_base64};
use crate::typed::{each_object, object, required, string};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// `content` of a message.
pub(super) fn parts<'a>(
    value: Json<'a>,
    at: &Path<'_>,
    losses: &mut Losses,
) -> Result<Vec<Part<'a>>, WireError> {
    let mut parts = match value {
        Json::Str(text) => vec![Part::Text(Text::plain(text))],
        list @ Json::Array(_) => each_object(list, at, |map, at| part(map, at, losses))?,
        other => return Err(WireError::expected(at, "a string or an array of parts", &other)),
    };
    parts.retain(|part| !matches!(part, Part::Text(text) if text.text.trim().is_empty()));
    Ok(parts)
}

/// Puts a cache mark on a part that can carry one.
pub(super) fn mark(part: &mut Part<'_>, mark: CacheMark) {
    match part {
        Part::Text(Text { cache, .. })
        | Part::Image(Image { cache, .. })
        | Part::Document(Document { cache, .. }) => *cache = Some(mark),
        _ => {}
    }
}

fn part<'a>(mut map: Map<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Part<'a>, WireError> {
    let kind_at = at.key("type");
    let kind =
        map.remove("type").ok_or_else(|| required(&kind_at, "text, image_url, input_audio or file"))?;
    let kind = string(kind, &kind_at)?;
    let cache = map.remove("cache_control").as_ref().and_then(super::read_messages::cache_mark);
    if map.remove("prompt_cache_breakpoint").is_some() {
        losses.at(LossKind::CacheMark, &at.key("prompt_cache_breakpoint"));
    }
    let member = if kind == "input_text" || kind == "output_text" { "text" } else { kind.as_ref() };
    if !matches!(member, "text" | "refusal" | "image_url" | "input_audio" | "file") {
        return Err(WireError::invalid(
            &kind_at,
            format!("unknown part type {kind:?}: use text, image_url, input_audio, file or refusal"),
        ));
    }
    let inner_at = at.key(member);
    let inner = map.remove(member).ok_or_else(|| required(&inner_at, "the content of the part"))?;
    let mut part = match member {
        "text" => Part::Text(Text::plain(string(inner, &inner_at)?)),
        "refusal" => Part::Refusal(string(inner, &inner_at)?),
        "image_url" => image(inner, &inner_at, losses)?,
        "input_audio" => audio(object(inner, &inner_at)?, &inner_at, losses)?,
        _ => file(object(inner, &inner_at)?, &inner_at, losses)?,
    };
    for (key, value) in map.iter() {
        // Clients that send answers back leave these members of answers on parts.
        if !value.is_null() && !matches!(key, "index" | "annotations" | "logprobs") {
            losses.at(LossKind::UnknownMember, &at.key(key));
        }
    }
    if let Some(cache) = cache {
        mark(&mut part, cache);
    }
    Ok(part)
}

fn image<'a>(value: Json<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Part<'a>, WireError> {
    let (mut url, mut detail) = (None, None);
    let url_at = at.key("url");
    match value {
        // Not official, and common.
        Json::Str(text) => url = Some(text),
        other => {
            for (key, value) in object(other, at)?.0 {
                let at = at.key(&key);
                match key.as_ref() {
                    _ if value.is_null() => {}
                    "url" => url = Some(string(value, &at)?),
                    "detail" => detail = Some(string(value, &at)?),
                    _ => losses.at(LossKind::UnknownMember, &at),
                }
            }
        }
    }
    let url = url.ok_or_else(|| required(&url_at, "a URL or a data: URL"))?;
    let source = match inline(url, &url_at)? {
        Inline::Data { mime, data } => Source::Inline { mime, data },
        // Base64 that lost its prefix.
        Inline::Other(text) if sniff_mime(&text).is_some() => {
            Source::Inline { mime: Str::default(), data: standard_base64(text) }
        }
        Inline::Other(url) => Source::Url { url, mime: None },
    };
    Ok(Part::Image(Image { source, detail, cache: None }))
}

fn audio<'a>(map: Map<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Part<'a>, WireError> {
    let (mut data, mut format) = (None, Str::default());
    for (key, value) in map.0 {
        let at = at.key(&key);
        match key.as_ref() {
            _ if value.is_null() => {}
            "data" => data = Some(string(value, &at)?),
            "format" => format = string(value, &at)?,
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    let data_at = at.key("data");
    let data = data.ok_or_else(|| required(&data_at, "base64 of the sound"))?;
    let source = match inline(data, &data_at)? {
        Inline::Data { mime, data } => Source::Inline { mime, data },
        Inline::Other(data) => {
            Source::Inline { mime: Cow::Borrowed(audio_mime(&format)), data: standard_base64(data) }
        }
    };
    Ok(Part::Audio(Audio { source }))
}

fn file<'a>(map: Map<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Part<'a>, WireError> {
    let (mut data, mut id, mut name) = (None, None, None);
    for (key, value) in map.0 {
        let at = at.key(&key);
        match key.as_ref() {
            _ if value.is_null() => {}
            "file_data" => data = Some(string(value, &at)?),
            "file_id" => id = Some(string(value, &at)?),
            "filename" => name = Some(string(value, &at)?),
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    let data_at = at.key("file_data");
    let source = match (data, id) {
        (Some(data), _) => match inline(data, &data_at)? {
            Inline::Data { mime, data } => Source::Inline { mime, data },
            Inline::Other(text) if text.starts_with("http://") || text.starts_with("https://") => {
                Source::Url { url: text, mime: None }
            }
            Inline::Other(data) => Source::Inline { mime: Str::default(), data: standard_base64(data) },
        },
        (None, Some(id)) => Source::File { vendor: Protocol::OpenaiChat, id },
        (None, None) => return Err(required(&data_at, "file_data or file_id")),
    };
    let image = |mime: &str| mime.starts_with("image/");
    Ok(match source {
        Source::Inline { mime, data } if image(&mime) => {
            Part::Image(Image { source: Source::Inline { mime, data }, detail: None, cache: None })
        }
        Source::Inline { mime, data } if mime.starts_with("audio/") => {
            Part::Audio(Audio { source: Source::Inline { mime, data } })
        }
        source => Part::Document(Document {
            source: as_text(source),
            name,
            context: None,
            citations: false,
            cache: None,
        }),
    })
}

/// A text file as text: most targets take PDFs and plain text, and nothing else, as documents.
fn as_text(source: Source<'_>) -> Source<'_> {
    let Source::Inline { mime, data } = &source else { return source };
    if !mime.starts_with("text/") && mime != "application/json" {
        return source;
    }
    let text = STANDARD.decode(data.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.map_or(source, |text| Source::Text(text.into()))
}

/// A string that may be a data URL.
enum Inline<'a> {
    Data { mime: Str<'a>, data: Str<'a> },
    Other(Str<'a>),
}

fn inline<'a>(text: Str<'a>, at: &Path<'_>) -> Result<Inline<'a>, WireError> {
    if !text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:")) {
        return Ok(Inline::Other(text));
    }
    let split = match &text {
        Cow::Borrowed(text) => {
            split_data_url(text).map(|(mime, data)| (Cow::Borrowed(mime), Cow::Borrowed(data)))
        }
        Cow::Owned(text) => split_data_url(text)
            .map(|(mime, data)| (Cow::Owned(mime.to_owned()), Cow::Owned(data.to_owned()))),
    };
    let (mime, data) = split.ok_or_else(|| {
        WireError::invalid(at, "expected a data: URL with base64: data:<type>;base64,<data>")
    })?;
    Ok(Inline::Data { mime, data: standard_base64(data) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse_any;

    fn read(content: &str) -> Result<Vec<Part<'_>>, WireError> {
        let value = parse_any(content.as_bytes()).unwrap();
        parts(value, &Path::Root.key("content"), &mut Losses::default())
    }

    fn source(content: &str) -> Source<'_> {
        match read(content).unwrap().remove(0) {
            Part::Image(Image { source, .. })
            | Part::Audio(Audio { source })
            | Part::Document(Document { source, .. }) => source,
            other => panic!("{other:?}"),
        }
    }

    fn inline(mime: &'static str, data: &'static str) -> Source<'static> {
        Source::Inline { mime: mime.into(), data: data.into() }
    }

    #[test]
    fn text_as_a_string_or_parts_and_no_blanks() {
        assert_eq!(read(r#""a""#).unwrap(), [Part::Text(Text::plain("a"))]);
        let parts =
            r#"[{"type":"text","text":"a"},{"type":"text","text":" "},{"type":"refusal","refusal":"no"}]"#;
        assert_eq!(read(parts).unwrap(), [Part::Text(Text::plain("a")), Part::Refusal("no".into())]);
        assert_eq!(read(r#""""#).unwrap(), []);
    }

    #[test]
    fn images_by_data_url_url_and_bare_base64() {
        let png = "iVBORw0KGgoAAAANSUhEUg==";
        for (url, expected) in [
            (r#"{"url":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="}"#, inline("image/png", png)),
            (r#""data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==""#, inline("image/png", png)),
            (r#"{"url":"iVBORw0KGgoAAAANSUhEUg=="}"#, inline("", png)),
            (r#"{"url":"https://x/a.png"}"#, Source::Url { url: "https://x/a.png".into(), mime: None }),
        ] {
            let content = format!(r#"[{{"type":"image_url","image_url":{url}}}]"#);
            assert_eq!(source(&content), expected, "{url}");
        }
        let parts = read(r#"[{"type":"image_url","image_url":{"url":"https://x","detail":"low"}}]"#).unwrap();
        assert!(matches!(&parts[0], Part::Image(image) if image.detail.as_deref() == Some("low")));
    }

    #[test]
    fn sound_and_files() {
        let wav = r#"[{"type":"input_audio","input_audio":{"data":"UklG","format":"mp3"}}]"#;
        assert_eq!(source(wav), inline("audio/mpeg", "UklG"));
        let pdf =
            r#"[{"type":"file","file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,JVBE"}}]"#;
        assert_eq!(source(pdf), inline("application/pdf", "JVBE"));
        let bare = r#"[{"type":"file","file":{"file_data":"JVBE"}}]"#;
        assert_eq!(source(bare), inline("", "JVBE"));
        let text = r#"[{"type":"file","file":{"file_data":"data:text/plain;base64,aGVsbG8="}}]"#;
        assert_eq!(source(text), Source::Text("hello".into()));
        let id = r#"[{"type":"file","file":{"file_id":"f-1"}}]"#;
        assert_eq!(source(id), Source::File { vendor: Protocol::OpenaiChat, id: "f-1".into() });
        let image = r#"[{"type":"file","file":{"file_data":"data:image/png;base64,iVBO"}}]"#;
        assert!(matches!(read(image).unwrap()[0], Part::Image(_)));
    }

    #[test]
    fn p31_mistakes_name_the_place() {
        for (content, says) in [
            (r#"[{"type":"text","text":7}]"#, "content[0].text: expected a string, got a number"),
            (r#"[{"text":"a"}]"#, "content[0].type: required"),
            (r#"[{"type":"video","video":{}}]"#, "content[0].type: unknown part type \"video\""),
            (r#"[{"type":"image_url"}]"#, "content[0].image_url: required"),
            (
                r#"[{"type":"image_url","image_url":{"url":"data:image/svg+xml,%3C"}}]"#,
                "content[0].image_url.url: expected a data: URL with base64",
            ),
            (r#"[{"type":"file","file":{}}]"#, "content[0].file.file_data: required"),
            (r#"["a"]"#, "content[0]: expected an object, got a string"),
            ("7", "content: expected a string or an array of parts, got a number"),
        ] {
            let error = read(content).unwrap_err().to_string();
            assert!(error.starts_with(says), "{content}: {error}");
        }
    }

    #[test]
    fn cache_marks_go_on_their_part() {
        let parts =
            read(r#"[{"type":"text","text":"a","cache_control":{"type":"ephemeral","ttl":"1h"}}]"#).unwrap();
        assert!(matches!(&parts[0], Part::Text(text) if text.cache == Some(CacheMark { hour: true })));
    }
}
