//! Content of a message or of an output → parts.
//!
//! Enters: a string or an array of typed parts. Leaves: text, attachments, refusals. May go wrong: a part of
//! an unknown type, or an attachment without its bytes; content is never passed over in silence.

use super::read_members::{need_string, object, opt, opt_object, opt_string, string};
use crate::Protocol;
use crate::error::WireError;
use crate::ir::{Audio, Document, Image, Part, Source, Str, Text};
use crate::json::{Json, Map, Path};
use crate::names::{audio_mime, sniff_mime, split_data_url};

/// Parts of a message.
pub(super) fn parts<'a>(content: Json<'a>, path: &Path<'_>) -> Result<Vec<Part<'a>>, WireError> {
    match content {
        Json::Str(text) => Ok(vec![Part::Text(Text::plain(text))]),
        Json::Array(parts) => {
            parts.into_iter().enumerate().map(|(n, value)| part(value, &path.index(n))).collect()
        }
        other => Err(WireError::expected(path, "a string or an array of parts", &other)),
    }
}

/// Parts of an output. An array of anything but parts of this format is what the tool said: it is kept as JSON
/// text.
pub(super) fn output_parts<'a>(content: Json<'a>, path: &Path<'_>) -> Result<Vec<Part<'a>>, WireError> {
    let typed = |part: &Json<'_>| part.get("type").and_then(Json::as_str).is_some_and(is_known);
    match content {
        Json::Array(items) if !items.iter().all(typed) => {
            Ok(vec![Part::Text(Text::plain(Json::Array(items).to_text()))])
        }
        other => parts(other, path),
    }
}

fn is_known(kind: &str) -> bool {
    let text =
        matches!(kind, "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" | "refusal");
    let image = matches!(kind, "input_image" | "image_url" | "computer_screenshot");
    text || image || matches!(kind, "input_file" | "file" | "input_audio")
}

fn part<'a>(value: Json<'a>, path: &Path<'_>) -> Result<Part<'a>, WireError> {
    let mut map = object(value, path, &[])?;
    let kind = need_string(&mut map, "type", path)?;
    match kind.as_ref() {
        "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" => {
            Ok(Part::Text(Text::plain(need_string(&mut map, "text", path)?)))
        }
        "refusal" => Ok(Part::Refusal(need_string(&mut map, "refusal", path)?)),
        "input_image" | "image_url" | "computer_screenshot" => image(&mut map, path),
        "input_file" | "file" => file(&mut map, path),
        "input_audio" => audio(&mut map, path),
        _ => {
            let problem = format!(
                "`{kind}` is not known; send `input_text`, `input_image`, `input_file`, `input_audio`, \
                 `output_text` or `refusal`"
            );
            Err(WireError::invalid(&path.key("type"), problem))
        }
    }
}

fn image<'a>(map: &mut Map<'a>, path: &Path<'_>) -> Result<Part<'a>, WireError> {
    let at = path.key("image_url");
    let mut detail = opt_string(map, "detail", path)?;
    let url = match opt(map, "image_url") {
        // Chat's nesting, which clients mix up.
        Some(Json::Object(mut inner)) => {
            detail = detail.or(opt_string(&mut inner, "detail", &at)?);
            opt_string(&mut inner, "url", &at)?
        }
        Some(value) => Some(string(value, &at)?),
        None => None,
    };
    let source = match (url.filter(|url| !url.is_empty()), opt_string(map, "file_id", path)?) {
        (Some(url), _) => from_url(url, "image/png"),
        (None, Some(id)) => Source::File { vendor: Protocol::OpenaiResponses, id },
        (None, None) => return Err(WireError::invalid(&at, "required: a URL, a data URL or a `file_id`")),
    };
    Ok(Part::Image(Image { source, detail, cache: None }))
}

fn file<'a>(map: &mut Map<'a>, path: &Path<'_>) -> Result<Part<'a>, WireError> {
    // Chat nests the members in `file`.
    if let Some(mut inner) = opt_object(map, "file", path, &[])? {
        return file(&mut inner, &path.key("file"));
    }
    let name = opt_string(map, "filename", path)?.filter(|name| !name.is_empty());
    let given = |text: &Str<'_>| !text.is_empty();
    let data = opt_string(map, "file_data", path)?.filter(given);
    let url = opt_string(map, "file_url", path)?.filter(given);
    let source = match (data, url, opt_string(map, "file_id", path)?.filter(given)) {
        (Some(data), ..) => from_data(data),
        (None, Some(url), _) => from_url(url, ""),
        (None, None, Some(id)) => Source::File { vendor: Protocol::OpenaiResponses, id },
        (None, None, None) => {
            let problem = "required: `file_data`, `file_url` or `file_id`";
            return Err(WireError::invalid(&path.key("file_data"), problem));
        }
    };
    Ok(Part::Document(Document { source, name, context: None, citations: false, cache: None }))
}

fn audio<'a>(map: &mut Map<'a>, path: &Path<'_>) -> Result<Part<'a>, WireError> {
    let at = path.key("input_audio");
    let Some(mut inner) = opt_object(map, "input_audio", path, &[])? else {
        return Err(WireError::invalid(&at, "required: an object with `data` and `format`"));
    };
    let data = need_string(&mut inner, "data", &at)?;
    let format = opt_string(&mut inner, "format", &at)?.unwrap_or_default();
    Ok(Part::Audio(Audio { source: Source::Inline { mime: audio_mime(&format).into(), data } }))
}

/// A data URL, base64 without its prefix, or a URL.
pub(crate) fn from_url<'a>(url: Str<'a>, mime: &'static str) -> Source<'a> {
    if let Some(source) = from_data_url(&url) {
        return source;
    }
    if !url.contains(':') && sniff_mime(&url).is_some() {
        return Source::Inline { mime: mime.into(), data: url };
    }
    Source::Url { url, mime: None }
}

/// `file_data`: a data URL, or base64 without its prefix.
fn from_data(data: Str<'_>) -> Source<'_> {
    from_data_url(&data).unwrap_or(Source::Inline { mime: Str::default(), data })
}

/// The parts of a data URL; slices of the body where the URL is one.
fn from_data_url<'a>(url: &Str<'a>) -> Option<Source<'a>> {
    match url {
        Str::Borrowed(url) => {
            split_data_url(url).map(|(mime, data)| Source::Inline { mime: mime.into(), data: data.into() })
        }
        Str::Owned(url) => split_data_url(url).map(|(mime, data)| Source::Inline {
            mime: mime.to_owned().into(),
            data: data.to_owned().into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse_any;

    fn read(text: &str) -> Result<Vec<Part<'_>>, WireError> {
        let root = Path::Root;
        parts(parse_any(text.as_bytes()).unwrap(), &root.key("content"))
    }

    fn source(text: &str) -> Source<'_> {
        match read(text).unwrap().remove(0) {
            Part::Image(Image { source, .. }) => source,
            Part::Document(Document { source, .. }) => source,
            Part::Audio(Audio { source }) => source,
            other => panic!("{other:?}"),
        }
    }

    fn inline<'a>(mime: &'a str, data: &'a str) -> Source<'a> {
        Source::Inline { mime: mime.into(), data: data.into() }
    }

    #[test]
    fn bytes_are_found_in_every_spelling() {
        for (text, expected) in [
            (
                r#"[{"type":"input_image","image_url":"data:image/png;base64,AAAA","detail":"low"}]"#,
                inline("image/png", "AAAA"),
            ),
            (
                r#"[{"type":"input_image","image_url":{"url":"data:image\/gif;base64,AA"}}]"#,
                inline("image/gif", "AA"),
            ),
            (
                r#"[{"type":"input_image","image_url":"iVBORw0KGgoAAAANSUhEUgAA"}]"#,
                inline("image/png", "iVBORw0KGgoAAAANSUhEUgAA"),
            ),
            (
                r#"[{"type":"input_image","image_url":"https://x/y"}]"#,
                Source::Url { url: "https://x/y".into(), mime: None },
            ),
            (
                r#"[{"type":"input_image","file_id":"file_1"}]"#,
                Source::File { vendor: Protocol::OpenaiResponses, id: "file_1".into() },
            ),
            (
                r#"[{"type":"input_file","filename":"a.pdf","file_data":"data:application/pdf;base64,JV"}]"#,
                inline("application/pdf", "JV"),
            ),
            (r#"[{"type":"input_file","file_data":"JVBE"}]"#, inline("", "JVBE")),
            (
                r#"[{"type":"input_audio","input_audio":{"data":"AA","format":"mp3"}}]"#,
                inline("audio/mpeg", "AA"),
            ),
        ] {
            assert_eq!(source(text), expected, "{text}");
        }
    }

    #[test]
    fn nothing_is_passed_over() {
        for (text, says) in [
            (r#"[{"type":"input_video","x":1}]"#, "content[0].type: `input_video` is not known"),
            (r#"[{"type":"input_image"}]"#, "content[0].image_url: required"),
            (r#"[{"type":"input_file","filename":"a"}]"#, "content[0].file_data: required"),
            (r#"[{"text":"x"}]"#, "content[0].type: required"),
        ] {
            assert!(read(text).unwrap_err().to_string().contains(says), "{text}");
        }
    }

    #[test]
    fn outputs_of_any_json_are_text() {
        let root = Path::Root;
        for json in [r#"[{"a":1},2]"#, r#"[{"type":"resource","uri":"x"}]"#] {
            let parts = output_parts(parse_any(json.as_bytes()).unwrap(), &root).unwrap();
            assert!(matches!(&parts[..], [Part::Text(text)] if text.text == json));
        }
    }
}
