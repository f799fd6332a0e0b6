//! Chat body → [`Request`].
//!
//! Enters: a client's body. Leaves: what it means, borrowed from it. A body without `messages` but with
//! `input` or `instructions` is a Responses body that came to the wrong path, and is read as one. May go
//! wrong: wrong types, missing members, content nobody knows; the error names the place.

use super::read_settings::Settings;
use super::{read_messages, read_tools};
use crate::error::WireError;
use crate::ir::{Losses, RawJson, Request};
use crate::json::{Json, Map, Path, parse};
use crate::patch::{Members, members};
use crate::typed::array;

/// Members whose text is kept: key order and number spelling of schemas and arguments are the client's.
pub(crate) const RAW_KEYS: [&str; 4] = ["parameters", "schema", "arguments", "logit_bias"];

/// Client body → IR.
pub(super) fn read<'a>(body: &'a [u8], losses: &mut Losses) -> Result<Request<'a>, WireError> {
    let Json::Object(map) = parse(body, &RAW_KEYS)? else {
        return Err(WireError::Json("expected an object".to_owned()));
    };
    if is_responses(|key| map.get(key).is_some_and(|value| !value.is_null())) {
        return crate::openai_responses::read_request(body, losses);
    }
    let root = Path::Root;
    let messages_at = root.key("messages");
    let mut settings = Settings::default();
    let (mut messages, mut legacy_choice) = (None, None);
    for (key, value, raw) in top_level(map, body) {
        let at = root.key(&key);
        let request = &mut settings.request;
        match key.as_ref() {
            _ if value.is_null() => {}
            "messages" => messages = Some(array(value, &at)?),
            "tools" => request.tools.extend(read_tools::tools(value, &at, losses)?),
            "functions" => {
                request.tools.extend(read_tools::functions(value, &at, losses)?);
                request.legacy_functions = true;
            }
            "tool_choice" => request.tool_choice = Some(read_tools::choice(value, &at, losses)?),
            "function_call" => legacy_choice = Some(read_tools::legacy_choice(value, &at)?),
            "parallel_tool_calls" => {
                request.parallel_tools = Some(crate::typed::boolean(&value, &at)?);
            }
            _ => {
                if let Some(value) = settings.member(&key, value, losses)? {
                    settings.unknown(key, raw.unwrap_or_else(|| value.into()), losses);
                }
            }
        }
    }
    let messages = messages.ok_or_else(|| crate::typed::required(&messages_at, "at least one message"))?;
    let mut request = settings.finish(losses);
    if request.tool_choice.is_none() {
        request.tool_choice = legacy_choice;
    }
    if request.legacy_functions {
        // Its answer has room for one call.
        request.parallel_tools.get_or_insert(false);
    }
    read_messages::read(messages, &mut request, losses)?;
    Ok(request)
}

/// Whether a body with these members is one of the Responses API.
pub(super) fn is_responses(mut has: impl FnMut(&str) -> bool) -> bool {
    !has("messages") && (has("input") || has("instructions"))
}

/// The members of a body, each with its text as sent.
pub(crate) fn top_level<'a>(
    map: Map<'a>,
    body: &'a [u8],
) -> impl Iterator<Item = (crate::ir::Str<'a>, Json<'a>, Option<RawJson<'a>>)> {
    // Both read the same document in the same order.
    let mut spans: Members<'a> = members(body, 0);
    map.0.into_iter().map(move |(key, value)| {
        let text = spans.next().and_then(|member| body.get(member.value));
        let text = text.and_then(|text| std::str::from_utf8(text).ok());
        (key, value, text.map(|text| RawJson(text.into())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Builtin, Format, Tool, ToolChoice};
    use crate::thinking::{Level, Mode};

    fn request(body: &str) -> Request<'_> {
        read(body.as_bytes(), &mut Losses::default()).unwrap_or_else(|e| panic!("{body}: {e}"))
    }

    fn with(members: &str) -> String {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}],{members}}}"#)
    }

    #[test]
    fn every_setting_finds_its_place() {
        let body = with(
            r#""stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false},
            "max_tokens":5,"max_completion_tokens":7,"stop":"END","n":2,"temperature":0.5,"top_p":1,"top_k":40,
            "seed":-3,"presence_penalty":0.5,"frequency_penalty":0.25,"logit_bias":{"50256": -100},
            "logprobs":true,"top_logprobs":2,"verbosity":"low","modalities":["TEXT","image"],"user":"u",
            "prompt_cache_key":"k","service_tier":"flex","reasoning_effort":"low","parallel_tool_calls":false,
            "response_format":{"type":"json_schema","json_schema":{"name":"w","strict":true,"schema":{"b":1,"a":2.0}}}"#,
        );
        let mut losses = Losses::default();
        let request = read(body.as_bytes(), &mut losses).unwrap();
        assert_eq!(losses.to_string(), "");
        assert!(request.stream && request.include_usage);
        assert_eq!((request.limits.max_tokens, request.limits.choices), (Some(7), Some(2)));
        assert_eq!(request.limits.stop, ["END"]);
        let sampling = &request.sampling;
        assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (Some(0.5), Some(1.0), Some(40)));
        assert_eq!((sampling.seed, sampling.presence_penalty), (Some(-3), Some(0.5)));
        assert_eq!(sampling.frequency_penalty, Some(0.25));
        assert_eq!(sampling.logit_bias.as_ref().unwrap().as_str(), r#"{"50256": -100}"#);
        assert_eq!((request.logprobs, request.verbosity.as_deref()), (Some(2), Some("low")));
        assert_eq!(request.modalities, ["text", "image"]);
        assert_eq!((request.user.as_deref(), request.cache_key.as_deref()), (Some("u"), Some("k")));
        assert_eq!((request.service_tier.as_deref(), request.parallel_tools), (Some("flex"), Some(false)));
        assert_eq!(request.thinking.mode, Some(Mode::Level(Level::Low)));
        let Some(Format::JsonSchema { name, schema, strict, .. }) = &request.format else { panic!() };
        assert_eq!(
            (name.as_deref(), schema.as_str(), *strict),
            (Some("w"), r#"{"b":1,"a":2.0}"#, Some(true))
        );
    }

    #[test]
    fn null_is_absent() {
        let body = with(
            r#""tools":null,"stop":null,"temperature":null,"response_format":null,"tool_choice":null,"reasoning":null"#,
        );
        let request = request(&body);
        assert!(request.tools.is_empty() && request.limits.stop.is_empty() && request.format.is_none());
    }

    #[test]
    fn either_name_of_the_end_user_counts() {
        let mut losses = Losses::default();
        let body = with(r#""safety_identifier":"s""#);
        assert_eq!(read(body.as_bytes(), &mut losses).unwrap().user.as_deref(), Some("s"));
        let body = with(r#""safety_identifier":"s","user":"u""#);
        assert_eq!(read(body.as_bytes(), &mut losses).unwrap().user.as_deref(), Some("u"));
        assert_eq!(losses.to_string(), "setting safety_identifier");
    }

    #[test]
    fn logprobs_need_to_be_on() {
        assert_eq!(request(&with(r#""logprobs":true"#)).logprobs, Some(0));
        assert_eq!(request(&with(r#""logprobs":false,"top_logprobs":2"#)).logprobs, None);
    }

    #[test]
    fn p34_members_nobody_knows_are_kept_as_sent_and_recorded() {
        let body = with(r#""min_p": 0.10,"store" : true,"x":{"big":123456789012345678901234567890}"#);
        let mut losses = Losses::default();
        let request = read(body.as_bytes(), &mut losses).unwrap();
        let extra: Vec<_> = request.extra.iter().map(|(k, v)| (k.as_ref(), v.as_str())).collect();
        let expected =
            [("min_p", "0.10"), ("store", "true"), ("x", r#"{"big":123456789012345678901234567890}"#)];
        assert_eq!(extra, expected);
        assert_eq!(losses.to_string(), "unknown-member min_p, unknown-member x");
    }

    #[test]
    fn web_search_options_are_a_tool_with_a_flat_place() {
        let body = with(
            r#""web_search_options":{"search_context_size":"low","user_location":{"type":"approximate","approximate":{"city":"Rome"}}}"#,
        );
        let request = request(&body);
        let [Tool::Builtin(Builtin::WebSearch { user_location, context_size, .. })] = &request.tools[..]
        else {
            panic!("{:?}", request.tools)
        };
        assert_eq!(context_size.as_deref(), Some("low"));
        assert_eq!(user_location.as_ref().unwrap().as_str(), r#"{"type":"approximate","city":"Rome"}"#);
    }

    #[test]
    fn legacy_functions_are_tools_called_one_at_a_time() {
        let body = with(r#""functions":[{"name":"f","parameters":{}}],"function_call":{"name":"f"}"#);
        let request = request(&body);
        assert_eq!(request.tools[0].name().unwrap(), "f");
        assert!(matches!(&request.tool_choice, Some(ToolChoice::Named { name, .. }) if name == "f"));
        assert!(request.legacy_functions);
        assert_eq!(request.parallel_tools, Some(false));
    }

    #[test]
    fn p31_mistakes_name_the_place() {
        for (members, says) in [
            (r#""temperature":"hot""#, "temperature: expected a number, got a string"),
            (r#""max_tokens":1.5"#, "max_tokens: expected a whole number, got a number"),
            (r#""stop":[1]"#, "stop[0]: expected a string, got a number"),
            (r#""stop":7"#, "stop: expected a string or an array of strings, got a number"),
            (r#""tools":{}"#, "tools: expected an array, got an object"),
            (r#""tools":[{"type":"function","function":{}}]"#, "tools[0].function.name: required"),
            (
                r#""tools":[{"type":"function","function":{"name":"f","parameters":7}}]"#,
                "tools[0].function.parameters: expected an object, got a number",
            ),
            (r#""tool_choice":"sometimes""#, "tool_choice: unknown choice \"sometimes\""),
            (r#""response_format":{"type":"yaml"}"#, "response_format.type: unknown format"),
            (r#""response_format":{"type":"json_schema"}"#, "response_format.json_schema: required"),
            (
                r#""response_format":{"type":"json_schema","json_schema":{"name":"x"}}"#,
                "response_format.json_schema.schema: required",
            ),
            (r#""reasoning_effort":"huge""#, "reasoning_effort: unknown effort"),
            (r#""logit_bias":[]"#, "logit_bias: expected an object, got an array"),
            (r#""stream_options":{"include_usage":1}"#, "stream_options.include_usage: expected a boolean"),
        ] {
            let body = with(members);
            let error = read(body.as_bytes(), &mut Losses::default()).unwrap_err().to_string();
            assert!(error.starts_with(says), "{members}: {error}");
        }
        for (body, says) in [
            ("[]", "the request body is not valid JSON: expected an object"),
            (r#"{"model":"m"}"#, "messages: required"),
            (r#"{"model":"m","messages":null}"#, "messages: required"),
            (r#"{"model":"m","messages":[]}"#, "messages: required"),
            (r#"{"model":"m","messages":"hi"}"#, "messages: expected an array, got a string"),
        ] {
            let error = read(body.as_bytes(), &mut Losses::default()).unwrap_err().to_string();
            assert!(error.starts_with(says), "{body}: {error}");
        }
    }

    #[test]
    fn a_responses_body_is_told_from_a_chat_body() {
        let has = |keys: &'static [&str]| move |key: &str| keys.contains(&key);
        assert!(is_responses(has(&["input"])));
        assert!(is_responses(has(&["instructions"])));
        assert!(!is_responses(has(&["messages", "input"])));
        assert!(!is_responses(has(&["model"])));
    }
}
