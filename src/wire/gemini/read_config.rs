//! `generationConfig` → limits, sampling, format and thinking.
//!
//! Enters: the object in either spelling. Leaves: the request's settings. May go wrong: wrong types; what no
//! other format has is recorded as [`LossKind::Setting`].

use super::camel;
use super::envelope::unwrap_client_envelope;
use super::numbers::{float, int, uint};
use super::read_tools::schema;
use crate::error::WireError;
use crate::ir::{Format, LossKind, Losses, RawJson, Request};
use crate::json::{self, Json, Path};
use crate::patch::members;
use crate::schema::lower_types;
use crate::thinking::{Level, Mode, Thinking};
use crate::typed::{boolean, object, string, strings};

/// The settings.
pub(super) fn read_config<'a>(
    value: Json<'a>,
    at: &Path<'_>,
    request: &mut Request<'a>,
    losses: &mut Losses,
) -> Result<(), WireError> {
    let mut shape = Shape::default();
    for (key, value) in object(value, at)?.0 {
        if value.is_null() {
            continue;
        }
        let at = at.key(&key);
        let name = camel(&key);
        if let Some(value) = shape.take(&name, value, &at)? {
            read_setting(&name, value, &at, request, losses)?;
        }
    }
    shape.settle(request, at, losses);
    Ok(())
}

fn read_setting<'a>(
    name: &str,
    value: Json<'a>,
    at: &Path<'_>,
    request: &mut Request<'a>,
    losses: &mut Losses,
) -> Result<(), WireError> {
    match name {
        "temperature" => request.sampling.temperature = Some(float(&value, at)?),
        "topP" => request.sampling.top_p = Some(float(&value, at)?),
        "topK" => request.sampling.top_k = Some(top_k(&value, at)?),
        "seed" => request.sampling.seed = Some(int(&value, at)?),
        "presencePenalty" => request.sampling.presence_penalty = Some(float(&value, at)?),
        "frequencyPenalty" => request.sampling.frequency_penalty = Some(float(&value, at)?),
        "maxOutputTokens" => request.limits.max_tokens = Some(uint(&value, at)?),
        "candidateCount" => request.limits.choices = Some(uint(&value, at)?),
        "stopSequences" => request.limits.stop = strings(value, at)?,
        "responseModalities" => {
            let words = strings(value, at)?;
            request.modalities = words.into_iter().map(|word| word.to_ascii_lowercase().into()).collect();
        }
        "thinkingConfig" => request.thinking = read_thinking(value, at, losses)?,
        "speechConfig"
        | "imageConfig"
        | "mediaResolution"
        | "audioTimestamp"
        | "routingConfig"
        | "modelSelectionConfig"
        | "enableEnhancedCivicAnswers"
        | "enableAffectiveDialog"
        | "responseFormat"
        | "translationConfig"
        | "audioTranscriptionConfig" => {
            losses.at(LossKind::Setting, at);
        }
        _ => losses.at(LossKind::UnknownMember, at),
    }
    Ok(())
}

/// A float in the vendor's types, a count in meaning.
fn top_k(value: &Json<'_>, at: &Path<'_>) -> Result<u64, WireError> {
    let number = float(value, at)?;
    if number < 0.0 {
        return Err(WireError::invalid(at, "must not be negative"));
    }
    Ok(number as u64)
}

/// Settings that only mean something together.
#[derive(Default)]
struct Shape<'a> {
    mime: Option<String>,
    schema: Option<RawJson<'a>>,
    json_schema: Option<RawJson<'a>>,
    wants_logprobs: Option<bool>,
    logprobs: Option<u64>,
}

impl<'a> Shape<'a> {
    /// Takes the settings it knows, gives back the others.
    fn take(&mut self, name: &str, value: Json<'a>, at: &Path<'_>) -> Result<Option<Json<'a>>, WireError> {
        match name {
            "responseMimeType" => self.mime = Some(string(value, at)?.into_owned()),
            "responseSchema" => self.schema = Some(schema(value, at)?),
            "responseJsonSchema" => self.json_schema = Some(schema(value, at)?),
            "responseLogprobs" => self.wants_logprobs = Some(boolean(&value, at)?),
            "logprobs" => self.logprobs = Some(uint(&value, at)?),
            _ => return Ok(Some(value)),
        }
        Ok(None)
    }

    fn settle(self, request: &mut Request<'a>, at: &Path<'_>, losses: &mut Losses) {
        let schema = self.json_schema.or_else(|| self.schema.map(|schema| lower_types(&schema)));
        request.format = match (schema, self.mime.as_deref()) {
            (Some(schema), _) => {
                Some(Format::JsonSchema { name: None, description: None, schema, strict: None })
            }
            (None, Some("application/json")) => Some(Format::JsonObject),
            (None, None | Some("" | "text/plain")) => None,
            (None, Some(_)) => {
                losses.at(LossKind::Setting, &at.key("responseMimeType"));
                None
            }
        };
        request.logprobs = match self.wants_logprobs {
            Some(true) => Some(self.logprobs.unwrap_or(0)),
            Some(false) => None,
            None => self.logprobs,
        };
    }
}

/// `{thinkingLevel, thinkingBudget, includeThoughts}`; the level wins.
fn read_thinking(value: Json<'_>, at: &Path<'_>, losses: &mut Losses) -> Result<Thinking, WireError> {
    let (mut level, mut budget, mut visible) = (None, None, None);
    for (key, value) in object(value, at)?.0 {
        let at = at.key(&key);
        match camel(&key).as_ref() {
            _ if value.is_null() => {}
            "thinkingLevel" => level = read_level(&string(value, &at)?, &at)?,
            "thinkingBudget" => budget = Some(Mode::of_tokens(int(&value, &at)?)),
            "includeThoughts" => match value.as_bool() {
                Some(shown) => visible = Some(shown),
                None => losses.at(LossKind::Setting, &at),
            },
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    if level.is_some() && budget.is_some() {
        losses.at(LossKind::Setting, &at.key("thinkingBudget"));
    }
    Ok(Thinking { mode: level.or(budget), visible, summary: None })
}

/// What a body asks, without reading the rest of it. It may be in an envelope.
pub fn asked_thinking(body: &[u8]) -> Result<Thinking, WireError> {
    let bare = unwrap_client_envelope(body).and_then(|span| body.get(span)).unwrap_or(body);
    let find = |object: &'_ [u8], name: &str| {
        let is = |key: &[u8]| std::str::from_utf8(key).is_ok_and(|key| camel(key) == name);
        members(object, 0).find(|member| is(member.key)).map(|member| member.value)
    };
    let config = find(bare, "generationConfig").and_then(|span| bare.get(span));
    let thinking = config.and_then(|config| config.get(find(config, "thinkingConfig")?));
    let Some(raw) = thinking.filter(|raw| *raw != b"null") else { return Ok(Thinking::default()) };
    let root = Path::Root;
    let at = root.key("generationConfig");
    read_thinking(json::parse_any(raw)?, &at.key("thinkingConfig"), &mut Losses::default())
}

/// A level in any case.
pub(super) fn read_level(word: &str, at: &Path<'_>) -> Result<Option<Mode>, WireError> {
    if word.is_empty() || word == "THINKING_LEVEL_UNSPECIFIED" {
        return Ok(None);
    }
    if let Some(level) = Level::parse(word) {
        Ok(Some(Mode::Level(level)))
    } else {
        let problem = format!("must be MINIMAL, LOW, MEDIUM or HIGH, got {}", json::string(word));
        Err(WireError::invalid(at, problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(text: &'a str, losses: &mut Losses) -> Result<Request<'a>, WireError> {
        let mut request = Request::default();
        let value = json::parse(text.as_bytes(), &["responseSchema", "response_json_schema"]).unwrap();
        read_config(value, &Path::Root, &mut request, losses).map(|()| request)
    }

    fn ok(text: &str) -> Request<'_> {
        read(text, &mut Losses::default()).unwrap()
    }

    #[test]
    fn every_setting_is_read() {
        let request = ok(
            r#"{"temperature":0.2,"top_p":0.8,"topK":40.0,"seed":-3,"presencePenalty":1,"frequency_penalty":0.5,"max_output_tokens":"99","candidateCount":2,"stopSequences":["X"],"responseModalities":["TEXT","IMAGE"],"responseLogprobs":true,"logprobs":3}"#,
        );
        let sampling = &request.sampling;
        assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (Some(0.2), Some(0.8), Some(40)));
        assert_eq!(
            (sampling.seed, sampling.presence_penalty, sampling.frequency_penalty),
            (Some(-3), Some(1.0), Some(0.5))
        );
        assert_eq!((request.limits.max_tokens, request.limits.choices), (Some(99), Some(2)));
        assert_eq!(request.limits.stop, ["X"]);
        assert_eq!(request.modalities, ["text", "image"]);
        assert_eq!(request.logprobs, Some(3));
        assert_eq!(ok(r#"{"responseLogprobs":false,"logprobs":3}"#).logprobs, None);
    }

    #[test]
    fn formats_come_with_or_without_a_schema() {
        assert_eq!(ok(r#"{"responseMimeType":"application/json"}"#).format, Some(Format::JsonObject));
        assert_eq!(ok(r#"{"responseMimeType":"text/plain"}"#).format, None);
        let request = ok(r#"{"response_mime_type":"application/json","responseSchema":{"type":"NUMBER"}}"#);
        let Some(Format::JsonSchema { schema, .. }) = request.format else { panic!() };
        assert_eq!(schema.as_str(), r#"{"type":"number"}"#);
    }

    #[test]
    fn thinking_is_a_level_or_a_budget() {
        for (config, mode, visible) in [
            (r#"{"thinkingBudget":0}"#, Some(Mode::Off), None),
            (r#"{"thinking_budget":-1,"include_thoughts":true}"#, Some(Mode::Auto), Some(true)),
            (r#"{"thinkingBudget":1024,"thinkingLevel":"HIGH"}"#, Some(Mode::Level(Level::High)), None),
            (r#"{"thinkingLevel":"low","includeThoughts":"yes"}"#, Some(Mode::Level(Level::Low)), None),
            (r#"{"thinkingLevel":"THINKING_LEVEL_UNSPECIFIED","includeThoughts":false}"#, None, Some(false)),
        ] {
            let text = format!(r#"{{"thinkingConfig":{config}}}"#);
            let thinking = ok(&text).thinking;
            assert_eq!((thinking.mode, thinking.visible), (mode, visible), "{config}");
        }
        let error =
            read(r#"{"thinkingConfig":{"thinkingLevel":"LOUD"}}"#, &mut Losses::default()).unwrap_err();
        assert!(error.to_string().starts_with("thinkingConfig.thinkingLevel: must be"), "{error}");
    }
}
