//! Everything of a Chat body that is neither messages nor tools.
//!
//! Enters: top-level members, one by one, in any order. Leaves: the settings of a [`Request`]; members whose
//! meaning depends on another one are joined in [`Settings::finish`]. May go wrong: wrong types.
//!
//! Legacy completions share these members, so [`crate::openai_legacy`] reads them here as well.

use super::read_thinking::Asked;
use crate::error::WireError;
use crate::ir::{Builtin, Format, LossKind, Losses, RawJson, Request, Str, Tool};
use crate::json::{Json, Path};
use crate::typed::{boolean, int, name, number, object, raw_object, required, string, strings, uint};

/// Members that the official API knows and no other format has: kept without a word, other targets report
/// them as lost.
const ONLY_CHAT: [&str; 7] = [
    "audio",
    "metadata",
    "moderation",
    "prediction",
    "prompt_cache_options",
    "prompt_cache_retention",
    "store",
];

/// Settings on the way to a request.
#[derive(Debug, Default)]
pub(crate) struct Settings<'a> {
    /// What has been read.
    pub(crate) request: Request<'a>,
    asked: Asked,
    max_completion_tokens: Option<u64>,
    safety_identifier: Option<Str<'a>>,
    logprobs: Option<bool>,
    top_logprobs: Option<u64>,
}

impl<'a> Settings<'a> {
    /// Takes a member that means something; gives back the value of any other.
    pub(crate) fn member(
        &mut self,
        key: &str,
        value: Json<'a>,
        losses: &mut Losses,
    ) -> Result<Option<Json<'a>>, WireError> {
        let root = Path::Root;
        let at = root.key(key);
        let request = &mut self.request;
        match key {
            "model" => request.model = string(value, &at)?,
            "stream" => request.stream = boolean(&value, &at)?,
            "stream_options" => self.stream_options(value, &at, losses)?,
            "max_tokens" => request.limits.max_tokens = Some(uint(&value, &at)?),
            "max_completion_tokens" => self.max_completion_tokens = Some(uint(&value, &at)?),
            "stop" => {
                request.limits.stop = strings(value, &at)?;
                request.limits.stop.retain(|stop| !stop.is_empty());
            }
            "n" => request.limits.choices = Some(uint(&value, &at)?),
            "temperature" => request.sampling.temperature = Some(number(&value, &at)?),
            "top_p" => request.sampling.top_p = Some(number(&value, &at)?),
            "top_k" => request.sampling.top_k = Some(uint(&value, &at)?),
            "seed" => request.sampling.seed = Some(int(&value, &at)?),
            "presence_penalty" => request.sampling.presence_penalty = Some(number(&value, &at)?),
            "frequency_penalty" => request.sampling.frequency_penalty = Some(number(&value, &at)?),
            "logit_bias" => request.sampling.logit_bias = Some(raw_object(value, &at)?),
            "logprobs" => self.logprobs = Some(boolean(&value, &at)?),
            "top_logprobs" => self.top_logprobs = Some(uint(&value, &at)?),
            "response_format" => request.format = format(value, &at, losses)?,
            "verbosity" => request.verbosity = Some(string(value, &at)?),
            "modalities" => {
                let words = strings(value, &at)?.into_iter();
                request.modalities = words.map(|word| word.to_ascii_lowercase().into()).collect();
            }
            "user" => request.user = Some(string(value, &at)?),
            "safety_identifier" => self.safety_identifier = Some(string(value, &at)?),
            "prompt_cache_key" => request.cache_key = Some(string(value, &at)?),
            "service_tier" => request.service_tier = Some(string(value, &at)?),
            "web_search_options" => request.tools.push(web_search(value, &at, losses)?),
            _ => return self.asked.member(key, value, losses),
        }
        Ok(None)
    }

    /// Keeps a member that nothing is known of. `raw` is its value as sent.
    pub(crate) fn unknown(&mut self, key: Str<'a>, raw: RawJson<'a>, losses: &mut Losses) {
        if !ONLY_CHAT.contains(&key.as_ref()) {
            losses.member(LossKind::UnknownMember, &key);
        }
        self.request.extra.push((key, raw));
    }

    /// Joins what belongs together.
    pub(crate) fn finish(self, losses: &mut Losses) -> Request<'a> {
        let mut request = self.request;
        request.thinking = self.asked.resolve();
        request.limits.max_tokens = self.max_completion_tokens.or(request.limits.max_tokens);
        if self.logprobs != Some(false) {
            request.logprobs = self.top_logprobs.or(self.logprobs.map(|_| 0)).or(request.logprobs);
        }
        if let Some(identifier) = self.safety_identifier {
            if request.user.is_some() {
                losses.member(LossKind::Setting, "safety_identifier");
            }
            request.user.get_or_insert(identifier);
        }
        request
    }

    fn stream_options(
        &mut self,
        value: Json<'a>,
        at: &Path<'_>,
        losses: &mut Losses,
    ) -> Result<(), WireError> {
        for (key, value) in object(value, at)?.0 {
            let at = at.key(&key);
            match key.as_ref() {
                "include_usage" if value.is_null() => {}
                "include_usage" => self.request.include_usage = boolean(&value, &at)?,
                // Padding of the upstream's own chunks means nothing in ours.
                "include_obfuscation" => {}
                _ => losses.at(LossKind::UnknownMember, &at),
            }
        }
        Ok(())
    }
}

fn format<'a>(value: Json<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Option<Format<'a>>, WireError> {
    let mut map = object(value, at)?;
    let kind_at = at.key("type");
    let kind = map.remove("type").ok_or_else(|| required(&kind_at, "text, json_object or json_schema"))?;
    match string(kind, &kind_at)?.as_ref() {
        "text" => Ok(None),
        "json_object" => Ok(Some(Format::JsonObject)),
        "json_schema" => {
            let at = at.key("json_schema");
            let inner = map.remove("json_schema").ok_or_else(|| required(&at, "the schema and its name"))?;
            json_schema(inner, &at, losses).map(Some)
        }
        other => Err(WireError::invalid(
            &kind_at,
            format!("unknown format {other:?}: use text, json_object or json_schema"),
        )),
    }
}

fn json_schema<'a>(value: Json<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Format<'a>, WireError> {
    let (mut title, mut description, mut schema, mut strict) = (None, None, None, None);
    for (key, value) in object(value, at)?.0 {
        let at = at.key(&key);
        match key.as_ref() {
            _ if value.is_null() => {}
            "name" => title = Some(name(value, &at)?),
            "description" => description = Some(string(value, &at)?),
            "schema" => schema = Some(raw_object(value, &at)?),
            "strict" => strict = Some(boolean(&value, &at)?),
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    let schema = schema.ok_or_else(|| required(&at.key("schema"), "a JSON Schema"))?;
    Ok(Format::JsonSchema { name: title, description, schema, strict })
}

/// `web_search_options`. The location is nested under `approximate` here and flat in all other formats; the
/// IR holds the flat one.
fn web_search<'a>(value: Json<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Tool<'a>, WireError> {
    let (mut context_size, mut user_location) = (None, None);
    for (key, value) in object(value, at)?.0 {
        let at = at.key(&key);
        match key.as_ref() {
            _ if value.is_null() => {}
            "search_context_size" => context_size = Some(string(value, &at)?),
            "user_location" => {
                let mut map = object(value, &at)?;
                if let Some(inner) = map.remove("approximate") {
                    map.0.extend(object(inner, &at.key("approximate"))?.0);
                }
                user_location = Some(RawJson::from(Json::Object(map)));
            }
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    Ok(Tool::Builtin(Builtin::WebSearch {
        allowed_domains: Vec::new(),
        blocked_domains: Vec::new(),
        max_uses: None,
        user_location,
        context_size,
    }))
}
