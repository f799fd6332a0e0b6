//! A body → its members, whether it is JSON or a form.
//!
//! Enters: a body whose head has been read. Leaves: names and values in order; files of a form are data URLs,
//! its other parts are strings. May go wrong: a form that is none, text that is not UTF-8.

use crate::error::WireError;
use crate::form;
use crate::head::Head;
use crate::ir::Str;
use crate::json::{Json, Path, parse_any};
use crate::patch::scanned;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The members of a body.
pub(super) fn members<'a>(body: &'a [u8], head: &Head) -> Result<Vec<(Str<'a>, Json<'a>)>, WireError> {
    let Some(boundary) = &head.boundary else {
        return match parse_any(body)? {
            Json::Object(map) => Ok(map.0),
            _ => Err(WireError::Json("expected an object".to_owned())),
        };
    };
    form::parts(body, boundary)?.into_iter().map(|part| field(body, part)).collect()
}

fn field<'a>(body: &'a [u8], part: form::Part<'a>) -> Result<(Str<'a>, Json<'a>), WireError> {
    let content = body.get(part.content).unwrap_or_default();
    let value = if part.is_file {
        let mime = part.mime.unwrap_or("image/png");
        Str::Owned(format!("data:{mime};base64,{}", STANDARD.encode(content)))
    } else {
        let root = Path::Root;
        let text = std::str::from_utf8(content)
            .map_err(|_| WireError::invalid(&root.key(&part.name), "expected text"))?;
        Str::Borrowed(text)
    };
    // Clients write lists as `image[]`.
    let name = match part.name {
        Str::Borrowed(name) => Str::Borrowed(name.strip_suffix("[]").unwrap_or(name)),
        Str::Owned(name) => Str::Owned(name.strip_suffix("[]").unwrap_or(&name).to_owned()),
    };
    Ok((name, Json::Str(value)))
}

/// Refuses a body without a prompt. For bodies that are passed on: everything else is the upstream's to judge.
pub(crate) fn check_prompt(body: &[u8], head: &Head) -> Result<(), WireError> {
    let root = Path::Root;
    let at = root.key("prompt");
    let required = WireError::invalid(&at, "required: say what to draw");
    if let Some(boundary) = &head.boundary {
        let parts = form::parts(body, boundary)?;
        let prompt = parts.iter().find(|part| part.name == "prompt");
        let text = prompt.and_then(|part| body.get(part.content.clone())).unwrap_or_default();
        return if text.trim_ascii().is_empty() { Err(required) } else { Ok(()) };
    }
    let prompt = scanned(body, &head.members).find(|member| member.key == b"prompt");
    let Some(raw) = prompt.and_then(|member| body.get(member.value)) else { return Err(required) };
    match parse_any(raw)? {
        Json::Str(text) if text.trim().is_empty() => Err(required),
        Json::Str(_) => Ok(()),
        Json::Null => Err(required),
        other => Err(WireError::expected(&at, "a string", &other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;
    use crate::head;

    #[test]
    fn a_prompt_is_required_by_name() {
        for (body, says) in [
            (r#"{"model":"m"}"#, "prompt: required"),
            (r#"{"model":"m","prompt":null}"#, "prompt: required"),
            (r#"{"model":"m","prompt":" "}"#, "prompt: required"),
            (r#"{"model":"m","prompt":["a"]}"#, "prompt: expected a string, got an array"),
        ] {
            let head = head::parse(body.as_bytes(), Protocol::OpenaiChat).unwrap();
            let error = check_prompt(body.as_bytes(), &head).unwrap_err().to_string();
            assert!(error.starts_with(says), "{body}: {error}");
        }
        let form = "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--";
        let head = form::head(form.as_bytes(), "b", None).unwrap();
        assert_eq!(check_prompt(form.as_bytes(), &head).unwrap_err().path(), Some("prompt"));
    }

    #[test]
    fn a_form_has_the_members_of_json() {
        let form = "--b\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\nx\r\n--b\r\ncontent-disposition: form-data; name=\"image[]\"; filename=\"a\"\r\ncontent-type: image/webp\r\n\r\n\x01\x02\r\n--b--";
        let head = form::head(form.as_bytes(), "b", Some("m")).unwrap();
        let found = members(form.as_bytes(), &head).unwrap();
        assert_eq!(
            found,
            [
                ("prompt".into(), Json::Str("x".into())),
                ("image".into(), Json::Str("data:image/webp;base64,AQI=".into()))
            ]
        );
    }
}
