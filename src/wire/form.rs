//! Forms (`multipart/form-data`, RFC 7578) on their bytes.
//!
//! Enters: a body and the boundary that its `Content-Type` names. Leaves: its parts as positions, so that one
//! of them can be replaced and all others stay byte for byte. May go wrong: a form that does not end, parts
//! without a name, more parts than any client sends.

use crate::error::WireError;
use crate::head::{Head, NO_MODEL};
use crate::json::Path;
use memchr::memmem;
use std::borrow::Cow;
use std::ops::Range;

/// Most parts of a form.
const MOST_PARTS: usize = 1024;
/// Longest header of a part.
const HEADER: usize = 16 << 10;

/// A part of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<'b> {
    /// Name of the field.
    pub name: Cow<'b, str>,
    /// Whether it is a file.
    pub is_file: bool,
    /// Its MIME type, where it says one.
    pub mime: Option<&'b str>,
    /// Where its content stands in the body.
    pub content: Range<usize>,
}

/// The boundary of a `Content-Type`; `None`: it is no form.
pub fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary")?;
    let legal = (1..=70).contains(&boundary.len()) && boundary.bytes().all(|b| (b' '..0x7f).contains(&b));
    legal.then(|| boundary.into_owned())
}

/// The value of a parameter of a header; a quoted one may have escapes.
fn parameter<'h>(mut text: &'h str, name: &str) -> Option<Cow<'h, str>> {
    loop {
        let (key, rest) = text.split_once('=')?;
        let key = key.trim_matches([' ', '\t', ';']);
        let (value, after) = if let Some(quoted) = rest.trim_start().strip_prefix('"') {
            let end = quoted_end(quoted)?;
            let value = quoted.get(..end)?;
            let plain = !value.contains('\\');
            let value = if plain { value.into() } else { value.replace("\\\"", "\"").into() };
            (value, quoted.get(end + 1..)?)
        } else {
            let end = rest.find(';').unwrap_or(rest.len());
            (rest.get(..end)?.trim().into(), rest.get(end..)?)
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(value);
        }
        text = after;
    }
}

/// Position of the quote that ends a quoted string. Browsers write names with `\` unescaped, so only `\"` is
/// an escape.
fn quoted_end(text: &str) -> Option<usize> {
    let mut before = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte == b'"' && before != b'\\' {
            return Some(at);
        }
        before = byte;
    }
    None
}

/// The parts of a form, in order.
pub fn parts<'b>(body: &'b [u8], boundary: &str) -> Result<Vec<Part<'b>>, WireError> {
    let bad = |problem: &str| WireError::Form(problem.to_owned());
    let line = format!("--{boundary}");
    let mut found = Vec::new();
    let (_, mut at) = delimiter(body, 0, &line).ok_or_else(|| bad("its boundary does not occur"))?;
    loop {
        let rest = body.get(at..).unwrap_or_default();
        if rest.starts_with(b"--") {
            return Ok(found);
        }
        if found.len() == MOST_PARTS {
            return Err(bad("it has more than 1024 parts"));
        }
        // The line of the delimiter may end in blanks.
        let blanks = rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        let start = at + blanks + 2;
        // A part without any header begins with its content's empty line.
        let head = body.get(start - 2..).unwrap_or_default();
        let end = memmem::find(head, b"\r\n\r\n").filter(|end| *end <= HEADER);
        let end = start - 2 + end.ok_or_else(|| bad("the header of a part does not end"))?;
        let header = body.get(start..end).unwrap_or_default();
        let content = end + 4;
        let (stop, next) =
            delimiter(body, content, &line).ok_or_else(|| bad("it ends before its last boundary"))?;
        found.push(part(header, content..stop).ok_or_else(|| bad("a part has no name"))?);
        at = next;
    }
}

/// The next delimiter at or behind `from`: where the content before it ends, and where its line goes on.
fn delimiter(body: &[u8], from: usize, line: &str) -> Option<(usize, usize)> {
    // The line end before a delimiter belongs to it; the first one may have none.
    let mut at = from.saturating_sub(2);
    loop {
        let start = at + memmem::find(body.get(at..)?, line.as_bytes())?;
        let end = start + line.len();
        let after = body.get(end..).unwrap_or_default();
        let blanks = after.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        let ends = after.starts_with(b"--") || after.get(blanks..).is_some_and(|b| b.starts_with(b"\r\n"));
        let begins = start == 0 || start.checked_sub(2).is_some_and(|n| body.get(n..start) == Some(b"\r\n"));
        if ends && begins {
            return Some((start.saturating_sub(2).max(from), end));
        }
        at = start + 1;
    }
}

fn part(header: &[u8], content: Range<usize>) -> Option<Part<'_>> {
    let header = std::str::from_utf8(header).ok()?;
    let field = |name: &str| {
        header
            .split("\r\n")
            .filter_map(|line| line.split_once(':'))
            .find_map(|(key, value)| key.trim().eq_ignore_ascii_case(name).then(|| value.trim()))
    };
    let (_, parameters) = field("content-disposition")?.split_once(';')?;
    Some(Part {
        name: parameter(parameters, "name")?,
        is_file: parameter(parameters, "filename").or_else(|| parameter(parameters, "filename*")).is_some(),
        mime: field("content-type"),
        content,
    })
}

/// Reads the head of a form; `default` is the model of a form that names none.
pub fn head(body: &[u8], boundary: &str, default: Option<&str>) -> Result<Head, WireError> {
    let mut head = Head { boundary: Some(boundary.to_owned()), ..Head::default() };
    let root = Path::Root;
    let at = root.key("model");
    for part in parts(body, boundary)? {
        let content = body.get(part.content.clone()).unwrap_or_default();
        match part.name.as_ref() {
            "model" if head.model_span.is_some() => {
                return Err(WireError::Form("it has two parts `model`".to_owned()));
            }
            "model" => {
                let model =
                    std::str::from_utf8(content).map_err(|_| WireError::invalid(&at, "expected text"))?;
                model.trim().clone_into(&mut head.model);
                head.model_span = Some(part.content);
            }
            "stream" => head.stream = content.trim_ascii().eq_ignore_ascii_case(b"true"),
            _ => {}
        }
    }
    if head.model_span.is_none() {
        default.ok_or_else(|| WireError::invalid(&at, NO_MODEL))?.clone_into(&mut head.model);
    }
    if head.model.is_empty() {
        return Err(WireError::invalid(&at, "must not be empty"));
    }
    Ok(head)
}

/// The form with another model: the content of one part is replaced, or the part is put before the others.
pub fn with_model<'b>(body: &'b [u8], head: &Head, boundary: &str, model: &str) -> Cow<'b, [u8]> {
    let Some(span) = &head.model_span else {
        let mut out =
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n")
                .into_bytes();
        // What stands before the first delimiter means nothing.
        let start = delimiter(body, 0, &format!("--{boundary}"))
            .map_or(0, |(_, end)| end.saturating_sub(boundary.len() + 2));
        out.extend_from_slice(body.get(start..).unwrap_or_default());
        return Cow::Owned(out);
    };
    if body.get(span.clone()) == Some(model.as_bytes()) {
        return Cow::Borrowed(body);
    }
    let before = body.get(..span.start).unwrap_or_default();
    let after = body.get(span.end..).unwrap_or_default();
    Cow::Owned([before, model.as_bytes(), after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FORM: &str = "--b0\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b0\r\ncontent-type: image/png\r\ncontent-disposition: form-data; filename=\"a;b.png\"; name=\"image[]\"\r\n\r\n\r\n--b0x\r\n\x01\r\n--b0\r\nContent-Disposition: form-data; name=stream\r\n\r\ntrue\r\n--b0--\r\n";

    #[test]
    fn boundaries() {
        for (text, expected) in [
            ("multipart/form-data; boundary=b0", Some("b0")),
            ("Multipart/Form-Data; charset=utf-8; boundary=\"a b\"", Some("a b")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("application/json; boundary=b", None),
        ] {
            assert_eq!(boundary(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn parts_are_found_and_contents_are_exact() {
        let found = parts(FORM.as_bytes(), "b0").unwrap();
        let shown: Vec<_> =
            found.iter().map(|p| (p.name.as_ref(), p.is_file, p.mime, &FORM[p.content.clone()])).collect();
        assert_eq!(
            shown,
            [
                ("model", false, None, "m"),
                ("image[]", true, Some("image/png"), "\r\n--b0x\r\n\x01"),
                ("stream", false, None, "true"),
            ]
        );
        let head = head(FORM.as_bytes(), "b0", None).unwrap();
        assert_eq!((head.model.as_str(), head.stream), ("m", true));
    }

    #[test]
    fn an_empty_part_is_a_part() {
        let form = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n--b--";
        assert_eq!(parts(form.as_bytes(), "b").unwrap()[0].content.len(), 0);
    }

    #[test]
    fn bad_forms_are_refused_and_say_why() {
        let part = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n";
        for (form, says) in [
            (String::new(), "does not occur"),
            ("--b\r\nx".to_owned(), "does not end"),
            (part.to_owned(), "before its last boundary"),
            ("--b\r\n\r\nx\r\n--b--".to_owned(), "no name"),
            (format!("{part}{part}--b--"), "two parts"),
            ("--b--".to_owned(), "model: required"),
            (part.replace("\r\nm\r\n", "\r\n \r\n") + "--b--", "must not be empty"),
        ] {
            let error = head(form.as_bytes(), "b", None).unwrap_err().to_string();
            assert!(error.contains(says), "{form:?}: {error}");
        }
        assert!(parts(part.repeat(1100).as_bytes(), "b").unwrap_err().to_string().contains("1024"));
    }

    #[test]
    fn only_the_model_changes() {
        let head = head(FORM.as_bytes(), "b0", None).unwrap();
        let out = with_model(FORM.as_bytes(), &head, "b0", "other");
        assert_eq!(String::from_utf8_lossy(&out), FORM.replacen("\r\nm\r\n", "\r\nother\r\n", 1));
        assert!(matches!(with_model(FORM.as_bytes(), &head, "b0", "m"), Cow::Borrowed(_)));
        let bare = "\r\n--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--";
        let nameless = super::head(bare.as_bytes(), "b", Some("x")).unwrap();
        let out = with_model(bare.as_bytes(), &nameless, "b", "x").into_owned();
        let names: Vec<_> = parts(&out, "b").unwrap().iter().map(|p| p.name.to_string()).collect();
        assert_eq!(names, ["model", "a"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(prop_oneof![Just(b'-'), Just(b'b'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200)) {
            if let Ok(found) = parts(&bytes, "b") {
                prop_assert!(found.iter().all(|part| part.content.end <= bytes.len()));
            }
        }

        #[test]
        fn p33_any_content_goes_through_a_form(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5)) {
            let mut form = Vec::new();
            for content in &contents {
                form.extend_from_slice(b"--b0undary\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n");
                form.extend_from_slice(content);
                form.extend_from_slice(b"\r\n");
            }
            form.extend_from_slice(b"--b0undary--\r\n");
            let found = parts(&form, "b0undary").unwrap();
            let read: Vec<_> = found.iter().map(|part| form[part.content.clone()].to_vec()).collect();
            prop_assert_eq!(read, contents);
        }
    }
}
