//! Client body → [`Request`].
//!
//! Enters: a generateContent body in either spelling, bare, in the CLI's envelope, or as
//! `generateContentRequest` of a count. Leaves: the conversation. May go wrong: syntax, missing `contents`,
//! wrong types; the error names the place as the client wrote it.

use super::{camel, envelope, read_config, read_parts, read_tools};
use crate::error::WireError;
use crate::ir::{Instruction, LossKind, Losses, Part, Request, Role, Text, Turn};
use crate::json::{self, Json, Map, Path};
use crate::typed::{array, object, string};

/// Members that stay text: schemas, arguments and results keep their key order and number spelling.
const RAW: [&str; 9] = [
    "args",
    "response",
    "parameters",
    "parametersJsonSchema",
    "parameters_json_schema",
    "responseSchema",
    "response_schema",
    "responseJsonSchema",
    "response_json_schema",
];

/// Client body → IR.
pub fn read_request<'a>(body: &'a [u8], losses: &mut Losses) -> Result<Request<'a>, WireError> {
    let root = Path::Root;
    let span = envelope::unwrap_client_envelope(body);
    let (text, at) = match span.and_then(|span| body.get(span)) {
        Some(inner) => (inner, root.key("request")),
        None => (body, root),
    };
    let mut map = object(json::parse(text, &RAW)?, &at)?;
    for key in ["generateContentRequest", "generate_content_request"] {
        if let Some(inner) = map.remove(key) {
            let at = at.key(key);
            return read(object(inner, &at)?, &at, losses);
        }
    }
    read(map, &at, losses)
}

fn read<'a>(map: Map<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Request<'a>, WireError> {
    let mut request = Request::default();
    let mut contents = None;
    for (key, value) in map.0 {
        let at = at.key(&key);
        match camel(&key).as_ref() {
            _ if value.is_null() => {}
            "contents" => contents = Some(read_contents(value, &at, losses)?),
            "systemInstruction" => request.system = read_system(value, &at, losses)?,
            "tools" => request.tools = read_tools::read_tools(value, &at, losses)?,
            "toolConfig" => request.tool_choice = read_tools::read_choice(value, &at, losses)?,
            "generationConfig" => read_config::read_config(value, &at, &mut request, losses)?,
            "safetySettings" => request.safety = Some(value.into()),
            "serviceTier" => request.service_tier = Some(string(value, &at)?),
            "model" => {
                let name = string(value, &at)?;
                request.model = name.strip_prefix("models/").map(|n| n.to_owned().into()).unwrap_or(name);
            }
            "cachedContent" | "labels" | "store" => {
                request.extra.push((camel(&key).into_owned().into(), value.into()));
            }
            // The URL decides; the CLI's session means nothing to others.
            "stream" | "sessionId" => {}
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    match contents {
        Some(turns) => request.turns = turns,
        None => {
            return Err(WireError::invalid(
                &at.key("contents"),
                "required: an array with at least one content",
            ));
        }
    }
    Ok(request)
}

fn read_contents<'a>(
    value: Json<'a>,
    at: &Path<'_>,
    losses: &mut Losses,
) -> Result<Vec<Turn<'a>>, WireError> {
    let contents = array(value, at)?;
    if contents.is_empty() {
        return Err(WireError::invalid(at, "must hold at least one content"));
    }
    contents.into_iter().enumerate().map(|(n, content)| read_content(content, &at.index(n), losses)).collect()
}

fn read_content<'a>(value: Json<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Turn<'a>, WireError> {
    let (mut role, mut parts) = (Role::User, None);
    for (key, value) in object(value, at)?.0 {
        let at = at.key(&key);
        match key.as_ref() {
            _ if value.is_null() => {}
            "role" => role = read_role(&string(value, &at)?, &at)?,
            "parts" => parts = Some((array(value, &at)?, key)),
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    // The role may stand behind the parts, and decides how they are read.
    let parts = match parts {
        Some((parts, key)) => read_parts::read_parts(parts, role, &at.key(&key), losses)?,
        None => Vec::new(),
    };
    Ok(Turn::new(role, parts))
}

fn read_role(word: &str, at: &Path<'_>) -> Result<Role, WireError> {
    match word {
        "model" => Ok(Role::Assistant),
        // Results used to have a role of their own.
        "user" | "function" | "tool" | "" => Ok(Role::User),
        _ => {
            Err(WireError::invalid(at, format!("must be \"user\" or \"model\", got {}", json::string(word))))
        }
    }
}

/// A content, or just its text.
fn read_system<'a>(
    value: Json<'a>,
    at: &Path<'_>,
    losses: &mut Losses,
) -> Result<Vec<Instruction<'a>>, WireError> {
    let parts = match value {
        Json::Str(text) => vec![Part::Text(Text::plain(text))],
        other => read_content(other, at, losses)?.parts,
    };
    let mut system = Vec::with_capacity(parts.len());
    for (n, part) in parts.into_iter().enumerate() {
        match part {
            Part::Text(text) if !text.text.trim().is_empty() => {
                system.push(Instruction { text: text.text, developer: false, cache: None });
            }
            Part::Text(_) => {}
            _ => losses.at(LossKind::Content, &at.key("parts").index(n)),
        }
    }
    Ok(system)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Source;

    fn read_ok(body: &str) -> (Request<'_>, Losses) {
        let mut losses = Losses::default();
        let request = read_request(body.as_bytes(), &mut losses).unwrap();
        (request, losses)
    }

    fn error(body: &str) -> String {
        read_request(body.as_bytes(), &mut Losses::default()).unwrap_err().to_string()
    }

    #[test]
    fn both_spellings_and_missing_roles_are_read() {
        for body in [
            r#"{"systemInstruction":{"parts":[{"text":"S"},{"text":" "}]},"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"AA"}}]}]}"#,
            r#"{"contents":[{"parts":[{"inline_data":{"mime_type":"image/png","data":"AA"}}],"role":"user"}],"system_instruction":"S"}"#,
        ] {
            let (request, losses) = read_ok(body);
            assert_eq!(request.system.len(), 1);
            assert_eq!(request.system[0].text, "S");
            assert_eq!(request.turns[0].role, Role::User);
            let Part::Image(image) = &request.turns[0].parts[0] else { panic!() };
            assert_eq!(image.source, Source::Inline { mime: "image/png".into(), data: "AA".into() });
            assert!(losses.is_empty());
        }
    }

    #[test]
    fn envelopes_of_the_cli_and_of_counts_are_opened() {
        let inner = r#"{"contents":[{"parts":[{"text":"hi"}]}],"model":"models/m"}"#;
        for body in [
            format!(r#"{{"model":"x","project":"p","request":{inner}}}"#),
            format!(r#"{{"generateContentRequest":{inner}}}"#),
        ] {
            let (request, _) = read_ok(&body);
            assert_eq!((request.turns.len(), request.model.as_ref()), (1, "m"));
        }
        let broken = r#"{"model":"x","request":{"contents":[{"parts":7}]}}"#;
        assert_eq!(error(broken), "request.contents[0].parts: expected an array, got a number");
    }

    #[test]
    fn p31_mistakes_are_named() {
        for (body, says) in [
            ("{}", "contents: required"),
            (r#"{"contents":null}"#, "contents: required"),
            (r#"{"contents":[]}"#, "contents: must hold"),
            (r#"{"contents":"hi"}"#, "contents: expected an array, got a string"),
            (
                r#"{"contents":[{"role":"robot"}]}"#,
                r#"contents[0].role: must be "user" or "model", got "robot""#,
            ),
            (
                r#"{"contents":[{},{},{"parts":[{"text":7}]}]}"#,
                "contents[2].parts[0].text: expected a string, got a number",
            ),
            (
                r#"{"contents":[{}],"generation_config":{"topP":"x"}}"#,
                "generation_config.topP: expected a number",
            ),
            ("{", "not valid JSON"),
        ] {
            assert!(error(body).contains(says), "{body}: {}", error(body));
        }
    }

    #[test]
    fn what_only_google_has_is_kept_or_named() {
        let (request, losses) = read_ok(
            r#"{"contents":[{"parts":[{"text":"x"}]}],"cachedContent":"c/1","labels":{"a":"b"},"serviceTier":"flex","safety_settings":[ {} ],"what":1}"#,
        );
        assert_eq!(request.extra.len(), 2);
        assert_eq!(request.service_tier.as_deref(), Some("flex"));
        assert!(request.safety.is_some());
        assert_eq!(losses.to_string(), "unknown-member what");
    }
}
