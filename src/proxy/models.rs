//! Lists of models, in the shape of whoever asks.
//!
//! Enters: the models that can be shown, sorted by id. Leaves: JSON in the shape of OpenAI, Anthropic or
//! Google. May go wrong: a model that is not there (404).
//!
//! The shape follows the path where it belongs to one format; `/v1/models` is shared, so that
//! `anthropic-version` asks for Anthropic's and `x-goog-api-key` for Google's.

use super::error::ProxyError;
use http::HeaderMap;
use jiff::Timestamp;
use pool::Listed;
use wire::Protocol;
use wire::json::{self, Object};
use wire::thinking::Support;

/// Limits that Anthropic's shape needs where nothing is known.
const CONTEXT: u64 = 200_000;
/// See [`CONTEXT`].
const OUTPUT: u64 = 64_000;

/// Whose shape a request wants.
pub(super) fn shape(headers: &HeaderMap, gemini_path: bool) -> Protocol {
    let claude_cli = headers
        .get(http::header::USER_AGENT)
        .and_then(|agent| agent.to_str().ok())
        .is_some_and(|agent| agent.starts_with("claude-cli"));
    if gemini_path {
        Protocol::Gemini
    } else if headers.contains_key("anthropic-version") || claude_cli {
        Protocol::Claude
    } else if headers.contains_key("x-goog-api-key") {
        Protocol::Gemini
    } else {
        Protocol::OpenaiChat
    }
}

/// All models.
pub(super) fn list(models: &[Listed], shape: Protocol) -> Vec<u8> {
    let mut out = Vec::with_capacity(models.len() * 128 + 64);
    json::object(&mut out, |o| match shape {
        Protocol::Gemini => o.array("models", |a| models.iter().for_each(|m| a.object(|o| gemini(m, o)))),
        Protocol::Claude => {
            o.array("data", |a| models.iter().for_each(|m| a.object(|o| claude(m, o))));
            o.bool("has_more", false);
            o.nullable_str("first_id", models.first().map(|m| m.id.as_ref()));
            o.nullable_str("last_id", models.last().map(|m| m.id.as_ref()));
        }
        _ => {
            o.str("object", "list");
            o.array("data", |a| models.iter().for_each(|m| a.object(|o| openai(m, o))));
        }
    });
    out
}

/// One model.
pub(super) fn one(models: &[Listed], id: &str, shape: Protocol) -> Result<Vec<u8>, ProxyError> {
    let id = id.strip_prefix("models/").unwrap_or(id);
    let Some(model) = models.iter().find(|model| model.id.as_ref() == id) else {
        let error = ProxyError::client(404, format!("there is no model {id}; see the list of models"));
        return Err(error.code("model_not_found").param("model"));
    };
    let mut out = Vec::new();
    json::object(&mut out, |o| match shape {
        Protocol::Gemini => gemini(model, o),
        Protocol::Claude => claude(model, o),
        _ => openai(model, o),
    });
    Ok(out)
}

fn name(model: &Listed) -> &str {
    model.facts.display_name.as_deref().unwrap_or(&model.id)
}

fn owner(model: &Listed) -> &str {
    if model.facts.owned_by.is_empty() { &model.provider } else { &model.facts.owned_by }
}

fn openai(model: &Listed, o: &mut Object<'_>) {
    o.str("id", &model.id);
    o.str("object", "model");
    // OpenAI's SDKs require it.
    o.uint("created", model.facts.created.unwrap_or(0));
    o.str("owned_by", owner(model));
    o.str("provider", &model.provider);
    if let Some(context) = model.facts.card.context {
        o.uint("context_length", context);
    }
    if let Some(most) = model.facts.card.max_output {
        o.uint("max_completion_tokens", most);
    }
    for (key, kinds) in [("input_modalities", &model.facts.input), ("output_modalities", &model.facts.output)]
    {
        if !kinds.is_empty() {
            o.array(key, |a| kinds.iter().for_each(|kind| a.str(kind)));
        }
    }
}

fn claude(model: &Listed, o: &mut Object<'_>) {
    o.str("type", "model");
    o.str("id", &model.id);
    o.str("display_name", name(model));
    let seconds = i64::try_from(model.facts.created.unwrap_or(0)).unwrap_or(0);
    o.str("created_at", &Timestamp::from_second(seconds).unwrap_or_default().to_string());
    o.str("owned_by", owner(model));
    o.uint("max_input_tokens", model.facts.card.context.unwrap_or(CONTEXT));
    o.uint("max_tokens", model.facts.card.max_output.unwrap_or(OUTPUT));
}

fn gemini(model: &Listed, o: &mut Object<'_>) {
    o.str("name", &format!("models/{}", model.id));
    // Google's SDKs expect one.
    o.str("version", model.facts.version.as_deref().unwrap_or("001"));
    o.str("displayName", name(model));
    o.str("description", name(model));
    if let Some(tokens) = model.facts.card.context {
        o.uint("inputTokenLimit", tokens);
    }
    if let Some(tokens) = model.facts.card.max_output {
        o.uint("outputTokenLimit", tokens);
    }
    o.array("supportedGenerationMethods", |a| {
        a.str("generateContent");
        a.str("countTokens");
    });
    match &model.facts.card.thinking {
        Support::Bounded(_) => o.bool("thinking", true),
        Support::Never => o.bool("thinking", false),
        Support::Unknown => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use pool::ModelSpec;
    use std::sync::Arc;

    fn listed(id: &str) -> Listed {
        let facts = ModelSpec { created: Some(1_700_000_000), ..ModelSpec::new(id, id) };
        Listed { id: Arc::from(id), provider: Arc::from("demo"), facts: Arc::new(facts) }
    }

    #[test]
    fn three_shapes() {
        let models = [listed("a"), listed("b/c")];
        let text = |shape| String::from_utf8(list(&models, shape)).unwrap();
        assert!(text(Protocol::OpenaiChat).starts_with(
            r#"{"object":"list","data":[{"id":"a","object":"model","created":1700000000,"owned_by":"demo","provider":"demo"}"#
        ));
        assert!(text(Protocol::Claude).contains(r#""created_at":"2023-11-14T22:13:20Z""#));
        assert!(text(Protocol::Claude).ends_with(r#""has_more":false,"first_id":"a","last_id":"b/c"}"#));
        assert!(text(Protocol::Gemini).contains(r#""name":"models/b/c""#));
        assert!(one(&models, "models/a", Protocol::Gemini).is_ok());
        assert_eq!(one(&models, "x", Protocol::Gemini).unwrap_err().failure.status, 404);
    }

    #[test]
    fn facts_stand_where_each_shape_has_a_member_for_them() {
        let facts = pool::catalogue::lookup("gemini", "gemini-2.5-pro").map(pool::catalogue::Facts::spec);
        let model =
            Listed { id: Arc::from("g"), provider: Arc::from("gemini"), facts: Arc::new(facts.unwrap()) };
        let text = |shape| String::from_utf8(one(std::slice::from_ref(&model), "g", shape).unwrap()).unwrap();
        for (shape, members) in [
            (
                Protocol::Gemini,
                vec![
                    r#""inputTokenLimit":1048576"#,
                    r#""outputTokenLimit":"#,
                    r#""thinking":true"#,
                    r#""version":""#,
                ],
            ),
            (
                Protocol::Claude,
                vec![
                    r#""display_name":"Gemini 2.5 Pro""#,
                    r#""max_input_tokens":1048576"#,
                    r#""max_tokens":"#,
                ],
            ),
            (Protocol::OpenaiChat, vec![r#""context_length":1048576"#, r#""max_completion_tokens":"#]),
        ] {
            let text = text(shape);
            assert!(members.iter().all(|member| text.contains(member)), "{text}");
        }
    }

    #[test]
    fn the_shared_path_goes_by_headers() {
        let with = |name: &'static str| {
            HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_static("x"))])
        };
        assert_eq!(shape(&with("anthropic-version"), false), Protocol::Claude);
        assert_eq!(shape(&with("x-goog-api-key"), false), Protocol::Gemini);
        assert_eq!(shape(&with("x-api-key"), false), Protocol::OpenaiChat);
        assert_eq!(shape(&with("anthropic-version"), true), Protocol::Gemini);
    }
}
