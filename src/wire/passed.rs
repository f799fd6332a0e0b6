//! Bodies that are no conversation: passed on as they are, but for the model's name.
//!
//! Enters: a JSON body or a form whose head has been read. Leaves: its bytes with the upstream's name of the
//! model; borrowed when nothing changes. May go wrong: a model name that would end a part of a form.

use crate::error::WireError;
use crate::head::Head;
use crate::json::{self, Path};
use crate::patch::{Patch, elements, members, scanned};
use crate::{Protocol, form};
use std::borrow::Cow;

/// Client body → upstream body of the same format.
pub(crate) fn patch<'b>(
    client: Protocol,
    body: &'b [u8],
    head: &Head,
    model: &str,
) -> Result<Cow<'b, [u8]>, WireError> {
    if let Some(boundary) = &head.boundary {
        if model.contains(['\r', '\n']) {
            let at = Path::Root;
            return Err(WireError::unsupported(&at.key("model"), "a form cannot hold this model name"));
        }
        return Ok(form::with_model(body, head, boundary, model));
    }
    let mut patch = Patch::scanned(body, &head.members);
    if client == Protocol::Gemini {
        gemini(body, head, model, &mut patch);
    } else {
        let name = json::string(model);
        let same = head.model_span.clone().and_then(|span| body.get(span)) == Some(name.as_bytes());
        if !same {
            patch.set(0, "model", name);
        }
    }
    Ok(if patch.is_empty() { Cow::Borrowed(body) } else { Cow::Owned(patch.apply()) })
}

/// Gemini's URL names the model; where bodies name it as well, the two have to agree.
fn gemini(body: &[u8], head: &Head, model: &str, patch: &mut Patch<'_>) {
    let name =
        if model.contains('/') { json::string(model) } else { json::string(&format!("models/{model}")) };
    for member in scanned(body, &head.members) {
        match member.key {
            b"model" => patch.replace(member.value, name.clone()),
            b"requests" => {
                for request in elements(body, member.value.start) {
                    let named = members(body, request.start).find(|below| below.key == b"model");
                    if let Some(named) = named {
                        patch.replace(named.value, name.clone());
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head;

    fn patched(client: Protocol, body: &str, model: &str) -> String {
        let head = head::parse_or(body.as_bytes(), client, Some("default")).unwrap();
        String::from_utf8(patch(client, body.as_bytes(), &head, model).unwrap().into_owned()).unwrap()
    }

    #[test]
    fn only_the_model_changes() {
        let body = r#"{ "input" : [1.0 ], "model":  "a", "x":{"model":"a"}}"#;
        assert_eq!(
            patched(Protocol::OpenaiChat, body, "b"),
            r#"{ "input" : [1.0 ], "model":  "b", "x":{"model":"a"}}"#
        );
        assert_eq!(patched(Protocol::OpenaiChat, body, "a"), body);
        assert_eq!(patched(Protocol::OpenaiChat, r#"{"input":"x"}"#, "b"), r#"{"model":"b","input":"x"}"#);
    }

    #[test]
    fn gemini_names_the_model_in_every_request() {
        let body = r#"{"requests":[{"model":"models/a","content":{}},{"content":{"model":"a"}}]}"#;
        assert_eq!(
            patched(Protocol::Gemini, body, "b"),
            r#"{"requests":[{"model":"models/b","content":{}},{"content":{"model":"a"}}]}"#
        );
        assert_eq!(patched(Protocol::Gemini, r#"{"content":{}}"#, "b"), r#"{"content":{}}"#);
    }
}
