//! `parts[]` of a content → [`Part`]s.
//!
//! Enters: parts in either spelling. Leaves: text, thinking, attachments, calls and results. A model's text
//! and thinking come back as the pieces in which they were streamed: neighbours are joined, because other
//! formats put something between blocks. May go wrong: wrong types.

use super::camel;
use super::flavour::is_sentinel;
use crate::Protocol;
use crate::error::WireError;
use crate::ir::{
    Audio, Document, Image, LossKind, Losses, Part, RawJson, Reasoning, Role, ServerItem, Source, Str, Text,
    ToolCall, ToolKind, ToolResult,
};
use crate::json::{self, Json, Path};
use crate::names::{sniff_mime, split_data_url, standard_base64};
use crate::signature::{Signature, Vendor};
use crate::typed::{array, boolean, object, string};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Marks a thought signature that is really Claude's `redacted_thinking`.
pub(super) const REDACTED: &str = "claude-redacted-thinking:";

/// The parts of a content.
pub(super) fn read_parts<'a>(
    items: Vec<Json<'a>>,
    role: Role,
    at: &Path<'_>,
    losses: &mut Losses,
) -> Result<Vec<Part<'a>>, WireError> {
    let mut parts = Vec::with_capacity(items.len());
    for (n, item) in items.into_iter().enumerate() {
        read_part(item, role, &at.index(n), &mut parts, losses)?;
    }
    parts.retain(
        |part| !matches!(part, Part::Text(text) if text.text.trim().is_empty() && text.signature.is_none()),
    );
    Ok(parts)
}

fn read_part<'a>(
    item: Json<'a>,
    role: Role,
    at: &Path<'_>,
    parts: &mut Vec<Part<'a>>,
    losses: &mut Losses,
) -> Result<(), WireError> {
    let (mut text, mut thought, mut signature, mut payload) = (None, false, None, None);
    for (key, value) in object(item, at)?.0 {
        let at = at.key(&key);
        match camel(&key).as_ref() {
            _ if value.is_null() => {}
            "text" => text = Some(string(value, &at)?),
            // Only models think; what a user says is never hidden.
            "thought" => thought = boolean(&value, &at)? && role == Role::Assistant,
            "thoughtSignature" => signature = Some(string(value, &at)?),
            "inlineData" => payload = Some(inline_data(value, &at, losses)?),
            "fileData" => payload = Some(file_data(value, &at, losses)?),
            "functionCall" if role != Role::Assistant => {
                return Err(WireError::invalid(
                    &at,
                    "only a content with the role \"model\" may hold a call",
                ));
            }
            "functionCall" => payload = Some(call(value, &at, losses)?),
            "functionResponse" => payload = Some(result(value, &at, losses)?),
            kind @ ("executableCode" | "codeExecutionResult" | "toolCall" | "toolResponse") => {
                let mut raw = Vec::new();
                json::object(&mut raw, |o| o.value(kind, &value));
                let raw = RawJson(String::from_utf8(raw).unwrap_or_default().into());
                let kind = kind.to_owned().into();
                payload = Some(Part::Server(ServerItem { vendor: Protocol::Gemini, kind, raw }));
            }
            "videoMetadata" | "mediaResolution" | "mediaProcessing" | "partMetadata" | "speechMetadata"
            | "audioTranscription" => losses.at(LossKind::Setting, &at),
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    let signature = signature.and_then(read_signature);
    match (text, thought) {
        (Some(text), true) => push_thought(text, signature, parts),
        (None, true) if payload.is_none() => push_thought("".into(), signature, parts),
        (Some(text), false) => push_text(text, signature, role, parts),
        (None, _) => match payload.take() {
            Some(Part::ToolCall(call)) => parts.push(Part::ToolCall(ToolCall { signature, ..call })),
            Some(other) => parts.push(other),
            None => push_text("".into(), signature, role, parts),
        },
    }
    parts.extend(payload);
    Ok(())
}

/// A signature, in the alphabet its vendor writes: SDKs write all bytes in the URL alphabet.
fn read_signature(value: Str<'_>) -> Option<Signature<'_>> {
    if is_sentinel(&value) {
        return None;
    }
    let signature = Signature::detect(value)?;
    match signature.vendor {
        Vendor::Openai => Some(signature),
        vendor => Signature::of(vendor, standard_base64(signature.value)),
    }
}

/// The data of `redacted_thinking` that was sent as a signature.
pub(super) fn redacted(signature: &str) -> Option<String> {
    let text = String::from_utf8(STANDARD.decode(signature).ok()?).ok()?;
    text.strip_prefix(REDACTED).map(str::to_owned)
}

fn push_thought<'a>(text: Str<'a>, signature: Option<Signature<'a>>, parts: &mut Vec<Part<'a>>) {
    if let Some(data) = signature.as_ref().and_then(|signature| redacted(&signature.value)) {
        parts.push(Part::Reasoning(Reasoning { redacted: Some(data.into()), ..Reasoning::default() }));
        return;
    }
    match parts.last_mut() {
        Some(Part::Reasoning(last)) if last.signature.is_none() && last.redacted.is_none() => {
            match last.text.last_mut() {
                Some(words) => words.to_mut().push_str(&text),
                None => last.text.push(text),
            }
            last.signature = signature;
        }
        _ => {
            let text = if text.is_empty() { Vec::new() } else { vec![text] };
            parts.push(Part::Reasoning(Reasoning { text, signature, ..Reasoning::default() }));
        }
    }
}

fn push_text<'a>(text: Str<'a>, signature: Option<Signature<'a>>, role: Role, parts: &mut Vec<Part<'a>>) {
    match parts.last_mut() {
        Some(Part::Text(last)) if role == Role::Assistant && last.signature.is_none() => {
            if !text.is_empty() {
                last.text.to_mut().push_str(&text);
            }
            last.signature = signature;
        }
        // A signature that hangs on nothing, at the end of the turn.
        _ if text.is_empty() && signature.is_some() => {
            parts.push(Part::Reasoning(Reasoning { signature, ..Reasoning::default() }));
        }
        _ => parts.push(Part::Text(Text { text, cache: None, signature })),
    }
}

/// `{mimeType, data, displayName}`.
fn inline_data<'a>(value: Json<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Part<'a>, WireError> {
    let (mut mime, mut data, mut name) = (Str::default(), None, None);
    for (key, value) in object(value, at)?.0 {
        let at = at.key(&key);
        match camel(&key).as_ref() {
            _ if value.is_null() => {}
            "mimeType" => mime = string(value, &at)?,
            "data" => data = Some(string(value, &at)?),
            "displayName" => name = Some(string(value, &at)?),
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    let Some(mut data) = data else {
        return Err(WireError::invalid(&at.key("data"), "required: the bytes in base64"));
    };
    if let Some((said, bare)) = split_data_url(&data) {
        if mime.is_empty() {
            mime = said.to_owned().into();
        }
        data = bare.to_owned().into();
    }
    let data = standard_base64(data);
    if mime.is_empty() {
        mime = sniff_mime(&data).unwrap_or_default().into();
    }
    if is_text(&mime)
        && let Some(text) = STANDARD.decode(data.as_bytes()).ok().and_then(|b| String::from_utf8(b).ok())
    {
        return Ok(document(Source::Text(text.into()), name));
    }
    Ok(attachment(Source::Inline { mime, data }, name))
}

/// `{fileUri, mimeType, displayName}`.
fn file_data<'a>(value: Json<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Part<'a>, WireError> {
    let (mut mime, mut url, mut name) = (None, None, None);
    for (key, value) in object(value, at)?.0 {
        let at = at.key(&key);
        match camel(&key).as_ref() {
            _ if value.is_null() => {}
            "mimeType" => mime = Some(string(value, &at)?).filter(|mime| !mime.is_empty()),
            "fileUri" => url = Some(string(value, &at)?),
            "displayName" => name = Some(string(value, &at)?),
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    let Some(url) = url else {
        return Err(WireError::invalid(&at.key("fileUri"), "required: where the file is"));
    };
    let mime = mime.or_else(|| mime_of_url(&url).map(Into::into));
    Ok(attachment(Source::Url { url, mime }, name))
}

/// Text that other formats take as text only.
pub(super) fn is_text(mime: &str) -> bool {
    mime.starts_with("text/") || matches!(mime, "application/json" | "application/xml")
}

fn attachment<'a>(source: Source<'a>, name: Option<Str<'a>>) -> Part<'a> {
    let mime = match &source {
        Source::Inline { mime, .. } => mime.as_ref(),
        Source::Url { mime, .. } => mime.as_deref().unwrap_or_default(),
        _ => "",
    };
    if mime.starts_with("image/") {
        Part::Image(Image { source, detail: None, cache: None })
    } else if mime.starts_with("audio/") {
        Part::Audio(Audio { source })
    } else {
        document(source, name)
    }
}

fn document<'a>(source: Source<'a>, name: Option<Str<'a>>) -> Part<'a> {
    Part::Document(Document { source, name, context: None, citations: false, cache: None })
}

/// The type that the end of a URL's path says.
pub(super) fn mime_of_url(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next()?;
    let (_, extension) = path.rsplit('/').next()?.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "heic" => "image/heic",
        "pdf" => "application/pdf",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "mp4" => "video/mp4",
        "txt" => "text/plain",
        _ => return None,
    })
}

/// `{id, name, args}`.
fn call<'a>(value: Json<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Part<'a>, WireError> {
    let (mut id, mut name, mut arguments) = (Str::default(), Str::default(), Str::default());
    for (key, value) in object(value, at)?.0 {
        let at = at.key(&key);
        match camel(&key).as_ref() {
            _ if value.is_null() => {}
            "id" => id = string(value, &at)?,
            "name" => name = string(value, &at)?,
            "args" if value.is_object() => arguments = value.into_raw(),
            "args" => return Err(WireError::expected(&at, "an object", &value)),
            "willContinue" => losses.at(LossKind::Setting, &at),
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    if name.is_empty() {
        return Err(WireError::invalid(&at.key("name"), "required: the function that is called"));
    }
    let kind = ToolKind::Function;
    Ok(Part::ToolCall(ToolCall { id, name, namespace: None, kind, arguments, signature: None, cache: None }))
}

/// `{id, name, response, parts}`.
fn result<'a>(value: Json<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Part<'a>, WireError> {
    let mut result = ToolResult {
        call_id: Str::default(),
        name: None,
        parts: Vec::new(),
        is_error: false,
        kind: ToolKind::Function,
        cache: None,
    };
    let mut media = Vec::new();
    for (key, value) in object(value, at)?.0 {
        let at = at.key(&key);
        match camel(&key).as_ref() {
            _ if value.is_null() => {}
            "id" => result.call_id = string(value, &at)?,
            "name" => result.name = Some(string(value, &at)?).filter(|name| !name.is_empty()),
            "response" => read_response(value, &at, &mut result)?,
            "parts" => {
                for (n, part) in array(value, &at)?.into_iter().enumerate() {
                    read_part(part, Role::User, &at.index(n), &mut media, losses)?;
                }
            }
            "willContinue" | "scheduling" => losses.at(LossKind::Setting, &at),
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    result.parts.append(&mut media);
    Ok(Part::ToolResult(result))
}

/// What the function gave back: the text under `output` or `result`, a failure under `error`, else the object
/// itself.
fn read_response<'a>(value: Json<'a>, at: &Path<'_>, result: &mut ToolResult<'a>) -> Result<(), WireError> {
    if !value.is_object() {
        return Err(WireError::expected(at, "an object", &value));
    }
    let raw = value.into_raw();
    let parsed = json::parse(raw.as_bytes(), &["output", "result", "error"])?;
    let members = parsed.as_object().map(|map| map.iter().filter(|(_, v)| !v.is_null()).collect::<Vec<_>>());
    let members = members.unwrap_or_default();
    result.is_error =
        members.iter().any(|(key, value)| *key == "error" && !matches!(value, Json::Raw("false")));
    let text = match members.as_slice() {
        [] => return Ok(()),
        [("output" | "result" | "error", value)] => {
            let value = (*value).clone();
            Str::Owned(value.clone().into_str().unwrap_or_else(|| value.into_raw()).into_owned())
        }
        _ => raw.clone(),
    };
    if !text.is_empty() {
        result.parts.push(Part::Text(Text::plain(text)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str, role: Role) -> Vec<Part<'_>> {
        let value = json::parse(text.as_bytes(), &["args", "response"]).unwrap();
        let Json::Array(items) = value else { panic!() };
        read_parts(items, role, &Path::Root, &mut Losses::default()).unwrap()
    }

    #[test]
    fn streamed_pieces_of_a_turn_are_joined_again() {
        let gemini = STANDARD.encode([0x12, 0x05, 0x0a, 0x03, 0x01, 0x0c, 0x39]);
        let text = format!(
            r#"[{{"text":"pl","thought":true}},{{"text":"an","thought":true}},{{"text":"","thought":true,"thoughtSignature":"{gemini}"}},{{"text":"Hel"}},{{"text":" "}},{{"text":"lo"}},{{"text":"","thought_signature":"{gemini}"}}]"#
        );
        let got = parts(&text, Role::Assistant);
        let [Part::Reasoning(thought), Part::Text(said)] = got.as_slice() else { panic!("{got:?}") };
        assert_eq!((thought.text.as_slice(), said.text.as_ref()), (&["plan".into()][..], "Hel lo"));
        assert_eq!(thought.signature.as_ref().unwrap().vendor, Vendor::Gemini);
        assert_eq!(said.signature.as_ref().unwrap().value, gemini);
        assert_eq!(parts(r#"[{"text":"a"},{"text":" "},{"text":"b"}]"#, Role::User).len(), 2);
    }

    #[test]
    fn a_signature_without_text_makes_no_text() {
        let got = parts(
            r#"[{"functionCall":{"name":"f"}},{"text":"","thoughtSignature":"c2ln"}]"#,
            Role::Assistant,
        );
        assert!(matches!(&got[1], Part::Reasoning(r) if r.text.is_empty() && r.signature.is_some()));
    }

    #[test]
    fn signatures_come_back_in_the_alphabet_of_their_vendor_and_sentinels_not_at_all() {
        let claude = STANDARD.encode([&[0x12, 0x04, 0x0a, 0x02, 0x08, 0xfb][..], &[0xff; 20]].concat());
        let url: String = claude.replace('+', "-").replace('/', "_");
        assert_ne!(claude, url);
        let text = format!(r#"[{{"thought":true,"text":"t","thoughtSignature":"{url}"}}]"#);
        let got = parts(&text, Role::Assistant);
        assert!(matches!(&got[0], Part::Reasoning(r) if r.signature.as_ref().unwrap().value == claude));
        let text = r#"[{"functionCall":{"name":"f"},"thoughtSignature":"skip_thought_signature_validator"}]"#;
        assert!(matches!(&parts(text, Role::Assistant)[0], Part::ToolCall(c) if c.signature.is_none()));
    }

    #[test]
    fn redacted_thinking_comes_back() {
        let value = STANDARD.encode(format!("{REDACTED}data"));
        let text = format!(r#"[{{"thought":true,"thoughtSignature":"{value}"}}]"#);
        assert!(
            matches!(&parts(&text, Role::Assistant)[0], Part::Reasoning(r) if r.redacted.as_deref() == Some("data"))
        );
    }

    #[test]
    fn attachments_find_their_kind() {
        let got = parts(
            r#"[{"inlineData":{"mimeType":"audio/wav","data":"AA-_"}},{"inlineData":{"data":"iVBORw0KGgoAAAANSUhEUg"}},{"inlineData":{"mimeType":"text/plain","data":"aGk="}},{"fileData":{"fileUri":"https://x/y.PNG?z"}},{"file_data":{"file_uri":"gs://b/v","mime_type":"video/mp4"}}]"#,
            Role::User,
        );
        let Part::Audio(Audio { source: Source::Inline { data, .. } }) = &got[0] else { panic!() };
        assert_eq!(data, "AA+/");
        assert!(matches!(&got[1], Part::Image(i) if i.source.mime("") == "image/png"));
        assert!(matches!(&got[2], Part::Document(d) if d.source == Source::Text("hi".into())));
        assert!(matches!(&got[3], Part::Image(i) if i.source.mime("") == "image/png"));
        assert!(matches!(&got[4], Part::Document(d) if d.source.mime("") == "video/mp4"));
    }

    #[test]
    fn results_say_what_the_function_said() {
        for (response, text, error) in [
            (r#"{"output":"21C"}"#, "21C", false),
            (r#"{"result":{"b": 1,"a":2}}"#, r#"{"b": 1,"a":2}"#, false),
            (r#"{"b": 1.0, "a":2}"#, r#"{"b": 1.0, "a":2}"#, false),
            (r#"{"error":"boom"}"#, "boom", true),
            (r#"{"error":null,"output":"fine"}"#, "fine", false),
            (r#"{"error":{"code":1},"output":"x"}"#, r#"{"error":{"code":1},"output":"x"}"#, true),
            ("{}", "", false),
        ] {
            let body = format!(r#"[{{"functionResponse":{{"name":"f","response":{response}}}}}]"#);
            let got = parts(&body, Role::User);
            let Part::ToolResult(result) = &got[0] else { panic!() };
            assert_eq!((result.text().as_str(), result.is_error), (text, error), "{response}");
        }
    }

    #[test]
    fn results_keep_their_pictures() {
        let got = parts(
            r#"[{"functionResponse":{"name":"f","response":{"output":"x"},"parts":[{"inlineData":{"mimeType":"image/png","data":"AA"}}]}}]"#,
            Role::User,
        );
        let Part::ToolResult(result) = &got[0] else { panic!() };
        assert!(matches!(result.parts.as_slice(), [Part::Text(_), Part::Image(_)]));
    }

    #[test]
    fn items_of_built_in_tools_are_kept_whole() {
        let got = parts(r#"[{"executableCode":{"language":"PYTHON","code":"1"}}]"#, Role::Assistant);
        let Part::Server(item) = &got[0] else { panic!() };
        assert_eq!(item.raw.as_str(), r#"{"executableCode":{"language":"PYTHON","code":"1"}}"#);
    }
}
