//! [`Request`] → the body of an OpenAI-compatible server.
//!
//! Enters: a request that [`crate::ir::lower`] has made fit. Leaves: a body that vLLM, OpenRouter, DeepSeek
//! and the others take as well as OpenAI: the oldest spelling of each member, unless the model's name says
//! that it is one of OpenAI's own, which refuse some of those. May go wrong: a request without any content.

use super::{write_messages, write_tools};
use crate::error::WireError;
use crate::ir::{Format, LossKind, Losses, Request};
use crate::json::{self, Object, Path};
use crate::names::NameRule;
use crate::target::Target;
use crate::thinking::{Level, Mode};

/// IR → upstream body.
pub(super) fn write(
    request: &Request<'_>,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Vec<u8>, WireError> {
    let openai = is_openai_model(target.model);
    let mut out = Vec::with_capacity(1024);
    let mut any = false;
    json::object(&mut out, |o| {
        o.str("model", target.model);
        o.array("messages", |a| any = write_messages::write(request, openai, a, losses));
        write_tools::write(request, openai, target.model, o, losses);
        if target.stream {
            o.bool("stream", true);
            o.object("stream_options", |o| o.bool("include_usage", true));
        }
        if let Some(word) = target.thinking.and_then(effort) {
            o.str("reasoning_effort", word);
        }
        limits(request, openai, o);
        sampling(request, o, losses);
        shape(request, o, losses);
        identity(request, o, losses);
    });
    lost(request, losses);
    if any {
        Ok(out)
    } else {
        Err(WireError::invalid(&Path::Root.key("messages"), "no message has any content"))
    }
}

/// Whether a model is one of OpenAI's reasoning models (o-series, gpt-5 and later): they refuse `max_tokens`
/// and foreign members of messages, and know what only OpenAI has.
pub(super) fn is_openai_model(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let digit = |rest: &str, least: u8| rest.bytes().next().is_some_and(|b| b.is_ascii_digit() && b >= least);
    name.strip_prefix("gpt-").is_some_and(|rest| digit(rest, b'5'))
        || name.strip_prefix('o').is_some_and(|rest| digit(rest, b'1'))
}

/// The word for a mode; `None` where silence says it.
pub(super) fn effort(mode: Mode) -> Option<&'static str> {
    match mode {
        Mode::Off => Some("none"),
        Mode::Auto => None,
        Mode::Level(level) => Some(level.name()),
        Mode::Budget(tokens) => Some(Level::of_budget(tokens).name()),
    }
}

fn limits(request: &Request<'_>, openai: bool, o: &mut Object<'_>) {
    if let Some(most) = request.limits.max_tokens {
        o.uint(if openai { "max_completion_tokens" } else { "max_tokens" }, most);
    }
    if !request.limits.stop.is_empty() {
        o.array("stop", |a| request.limits.stop.iter().for_each(|stop| a.str(stop)));
    }
    if let Some(choices) = request.limits.choices.filter(|n| *n != 1) {
        o.uint("n", choices);
    }
}

fn sampling(request: &Request<'_>, o: &mut Object<'_>, losses: &mut Losses) {
    let sampling = &request.sampling;
    for (key, value) in [
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("presence_penalty", sampling.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
    ] {
        if let Some(value) = value {
            o.float(key, value);
        }
    }
    if let Some(seed) = sampling.seed {
        o.int("seed", seed);
    }
    if let Some(bias) = &sampling.logit_bias {
        o.raw("logit_bias", bias.as_str());
    }
    if sampling.top_k.is_some() {
        losses.member(LossKind::Setting, "top_k");
    }
    if let Some(alternatives) = request.logprobs {
        o.bool("logprobs", true);
        if alternatives > 0 {
            o.uint("top_logprobs", alternatives);
        }
    }
}

/// What the answer shall look like.
fn shape(request: &Request<'_>, o: &mut Object<'_>, losses: &mut Losses) {
    match &request.format {
        None => {}
        Some(Format::JsonObject) => o.object("response_format", |o| o.str("type", "json_object")),
        Some(Format::JsonSchema { name, description, schema, strict }) => {
            o.object("response_format", |o| {
                o.str("type", "json_schema");
                o.object("json_schema", |o| {
                    // The API demands a name; Claude's and Gemini's formats have none.
                    let name = name.as_deref().unwrap_or("response");
                    if NameRule::OPENAI.allows(name) {
                        o.str("name", name);
                    } else {
                        o.str("name", &NameRule::OPENAI.shorten(name));
                    }
                    o.opt_str("description", description.as_deref());
                    o.raw("schema", schema.as_str());
                    if let Some(strict) = strict {
                        o.bool("strict", *strict);
                    }
                });
            });
        }
    }
    o.opt_str("verbosity", request.verbosity.as_deref());
    let known = |word: &&crate::ir::Str<'_>| matches!(word.as_ref(), "text" | "image");
    let modalities: Vec<_> = request.modalities.iter().filter(known).collect();
    if modalities.len() < request.modalities.len() {
        // Speech needs a voice, which no other format names.
        losses.member(LossKind::Setting, "modalities");
    }
    if modalities.iter().any(|word| *word != "text") {
        o.array("modalities", |a| modalities.iter().for_each(|word| a.str(word)));
    }
}

fn identity(request: &Request<'_>, o: &mut Object<'_>, losses: &mut Losses) {
    o.opt_str("user", request.user.as_deref());
    o.opt_str("prompt_cache_key", request.cache_key.as_deref());
    match request.service_tier.as_deref() {
        Some(tier @ ("auto" | "default" | "flex" | "scale" | "priority" | "fast")) => {
            o.str("service_tier", tier);
        }
        Some(_) => losses.member(LossKind::Setting, "service_tier"),
        None => {}
    }
}

/// Records what has no place in a Chat body.
fn lost(request: &Request<'_>, losses: &mut Losses) {
    if request.safety.is_some() {
        losses.member(LossKind::Setting, "safetySettings");
    }
    if !request.include.is_empty() {
        losses.member(LossKind::Setting, "include");
    }
    for (key, _) in &request.extra {
        losses.member(LossKind::Setting, key);
    }
    if request.has_cache_marks() {
        losses.member(LossKind::CacheMark, "cache_control");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Context, lower};
    use crate::json::{Json, parse_any};
    use crate::target::{Card, Profile};
    use proptest::prelude::*;

    /// Body → IR → lowered → body, and what was lost.
    fn again(body: &str, model: &str, thinking: Option<Mode>, stream: bool) -> (String, String) {
        let mut losses = Losses::default();
        let mut request = crate::openai_chat::read_request(body.as_bytes(), &mut losses).unwrap();
        lower::lower(&mut request, &crate::openai_chat::RULES, &mut Context::default(), &mut losses);
        let card = Card::default();
        let target = Target { profile: Profile::Chat, model, card: &card, stream, thinking, project: "" };
        let out = write(&request, &target, &mut losses).unwrap();
        (String::from_utf8(out).unwrap(), losses.to_string())
    }

    fn settings(members: &str, model: &str) -> String {
        let body = format!(r#"{{"model":"x","messages":[{{"role":"user","content":"hi"}}],{members}}}"#);
        let (out, _) = again(&body, model, None, false);
        let head = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]"#);
        out.strip_prefix(&head).unwrap_or_else(|| panic!("{out}")).to_owned()
    }

    #[test]
    fn settings_come_back_in_the_oldest_spelling() {
        for (members, expected) in [
            (r#""max_completion_tokens":7"#, r#","max_tokens":7}"#),
            (r#""stop":"X""#, r#","stop":["X"]}"#),
            (r#""n":1"#, "}"),
            (r#""n":2,"temperature":0.3,"top_p":0.9"#, r#","n":2,"temperature":0.3,"top_p":0.9}"#),
            (r#""logprobs":true,"top_logprobs":2"#, r#","logprobs":true,"top_logprobs":2}"#),
            (r#""logprobs":true"#, r#","logprobs":true}"#),
            (r#""seed":-1,"logit_bias":{"1": 2.0}"#, r#","seed":-1,"logit_bias":{"1": 2.0}}"#),
            (r#""response_format":{"type":"json_object"}"#, r#","response_format":{"type":"json_object"}}"#),
            (
                r#""response_format":{"type":"json_schema","json_schema":{"name":"a b","schema":{"x":1.0}}}"#,
                r#","response_format":{"type":"json_schema","json_schema":{"name":"a_b","schema":{"x":1.0}}}}"#,
            ),
            (
                r#""response_format":{"type":"json_schema","json_schema":{"schema":{},"strict":true}}"#,
                r#","response_format":{"type":"json_schema","json_schema":{"name":"response","schema":{},"strict":true}}}"#,
            ),
            (
                r#""verbosity":"low","user":"u","prompt_cache_key":"k","service_tier":"priority""#,
                r#","verbosity":"low","user":"u","prompt_cache_key":"k","service_tier":"priority"}"#,
            ),
            (r#""modalities":["text","audio"]"#, "}"),
            (r#""modalities":["text","image"]"#, r#","modalities":["text","image"]}"#),
        ] {
            assert_eq!(settings(members, "test-model"), expected, "{members}");
        }
        assert_eq!(settings(r#""max_tokens":7"#, "openai/o3-mini"), r#","max_completion_tokens":7}"#);
    }

    #[test]
    fn streams_ask_for_usage_and_thinking_is_a_word() {
        let body = r#"{"model":"x","messages":[{"role":"user","content":"hi"}]}"#;
        let (out, _) = again(body, "m", Some(Mode::Budget(8192)), true);
        assert!(
            out.ends_with(
                r#""stream":true,"stream_options":{"include_usage":true},"reasoning_effort":"medium"}"#
            ),
            "{out}"
        );
        let words = [Mode::Off, Mode::Auto, Mode::Level(Level::Max)].map(effort);
        assert_eq!(words, [Some("none"), None, Some("max")]);
    }

    #[test]
    fn what_has_no_place_is_recorded() {
        let body = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]}],"top_k":3,"service_tier":"standard_only","metadata":{},"min_p":1}"#;
        let (out, losses) = again(body, "m", None, false);
        assert_eq!(out, r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#);
        assert_eq!(
            losses,
            "unknown-member min_p, setting top_k, setting service_tier, setting metadata, setting min_p, cache-mark cache_control"
        );
    }

    #[test]
    fn a_request_without_content_is_refused() {
        let body = r#"{"messages":[{"role":"user","content":"  "}]}"#;
        let mut request = crate::openai_chat::read_request(body.as_bytes(), &mut Losses::default()).unwrap();
        lower::lower(
            &mut request,
            &crate::openai_chat::RULES,
            &mut Context::default(),
            &mut Losses::default(),
        );
        let card = Card::default();
        let target = Target {
            profile: Profile::Chat,
            model: "m",
            card: &card,
            stream: false,
            thinking: None,
            project: "",
        };
        let error = write(&request, &target, &mut Losses::default()).unwrap_err();
        assert_eq!(error.path(), Some("messages"));
    }

    #[test]
    fn openai_models_are_told_by_name() {
        for model in ["o1", "o3-mini", "o4-mini-2025", "gpt-5", "gpt-5.4-codex", "openai/gpt-5", "GPT-6"] {
            assert!(is_openai_model(model), "{model}");
        }
        for model in ["gpt-4o", "gpt-oss-120b", "olmo-2", "opus", "qwen3", "test-model", "openai/x"] {
            assert!(!is_openai_model(model), "{model}");
        }
    }

    /// A message of a generated chat.
    #[derive(Clone, Debug)]
    enum Said {
        User(Vec<String>),
        Model { text: String, calls: Vec<(String, String)> },
    }

    fn words() -> impl Strategy<Value = String> {
        "[a-z\"\\\\\n é🦀{}]{0,6}[a-z]"
    }

    fn said() -> impl Strategy<Value = Said> {
        let call = ("[a-z]{1,70}", "[a-z]{1,5}");
        prop_oneof![
            prop::collection::vec(words(), 1..3).prop_map(Said::User),
            (words(), prop::collection::vec(call, 0..3))
                .prop_map(|(text, calls)| Said::Model { text, calls }),
        ]
    }

    /// The chat as a body; every call is answered by the text `r:` and its argument.
    fn body(chat: &[Said]) -> String {
        let mut out = Vec::new();
        json::object(&mut out, |o| {
            o.str("model", "m");
            o.array("messages", |a| {
                for (n, message) in chat.iter().enumerate() {
                    match message {
                        Said::User(texts) => a.object(|o| {
                            o.str("role", "user");
                            o.array("content", |a| {
                                for text in texts {
                                    a.object(|o| {
                                        o.str("type", "text");
                                        o.str("text", text);
                                    });
                                }
                            });
                        }),
                        Said::Model { text, calls } => {
                            a.object(|o| {
                                o.str("role", "assistant");
                                o.str("content", text);
                                if !calls.is_empty() {
                                    o.array("tool_calls", |a| {
                                        for (m, (name, argument)) in calls.iter().enumerate() {
                                            a.object(|o| {
                                                o.str("id", &format!("c{n}-{m}"));
                                                o.str("type", "function");
                                                o.object("function", |o| {
                                                    o.str("name", name);
                                                    o.str("arguments", &format!("{{\"x\": \"{argument}\"}}"));
                                                });
                                            });
                                        }
                                    });
                                }
                            });
                            for (m, (_, argument)) in calls.iter().enumerate().rev() {
                                a.object(|o| {
                                    o.str("role", "tool");
                                    o.str("tool_call_id", &format!("c{n}-{m}"));
                                    o.str("content", &format!("r:{argument}"));
                                });
                            }
                        }
                    }
                }
            });
        });
        String::from_utf8(out).unwrap()
    }

    /// All strings of the messages' contents, in order, and all calls with their results.
    fn content(body: &str) -> (String, Vec<(String, String)>) {
        let value = parse_any(body.as_bytes()).unwrap();
        let (mut texts, mut calls) = (String::new(), Vec::new());
        let mut ids = Vec::new();
        for message in value.get("messages").and_then(Json::as_array).unwrap() {
            let content = message.get("content").unwrap();
            let mut text = content.as_str().unwrap_or_default().to_owned();
            for part in content.as_array().unwrap_or_default() {
                text.push_str(part.get("text").and_then(Json::as_str).unwrap());
            }
            if let Some(id) = message.get("tool_call_id").and_then(Json::as_str) {
                assert_eq!(ids.remove(0), id, "results come in the order of the calls");
                calls.push((String::from("result"), text));
                continue;
            }
            assert!(ids.is_empty(), "every call is answered at once: {body}");
            texts.push_str(&text);
            for call in message.get("tool_calls").and_then(Json::as_array).unwrap_or_default() {
                ids.push(call.get("id").and_then(Json::as_str).unwrap().to_owned());
                let field = |key| call.at(&["function", key]).and_then(Json::as_str).unwrap().to_owned();
                calls.push((field("name"), field("arguments")));
            }
        }
        (texts, calls)
    }

    /// Any value, with the keys that mean something.
    fn json() -> impl Strategy<Value = String> {
        let select = |words: &'static str| prop::sample::select(words.split(' ').collect::<Vec<_>>());
        let word = select(
            "user assistant system tool function text image_url file auto none required json_schema {} data:image/png;base64,AAAA",
        );
        let key = select(
            "role content type text name function parameters tool_calls arguments id tool_call_id image_url url file file_data schema effort reasoning_details x",
        );
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("7".to_owned()),
            word.prop_map(json::string)
        ];
        leaf.prop_recursive(6, 48, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
                prop::collection::vec((key.clone(), inner), 0..6).prop_map(|members| {
                    let members: Vec<_> = members.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn p31_any_body_is_read_or_refused(message in json(), value in json(), tools in json()) {
            let body = format!(
                "{{\"messages\":[{{\"role\":\"user\",\"content\":\"q\"}},{message}],\"tools\":{tools},\"reasoning\":{value}}}"
            );
            let mut losses = Losses::default();
            if let Ok(mut request) = crate::openai_chat::read_request(body.as_bytes(), &mut losses) {
                let rules = &crate::openai_chat::RULES;
                lower::lower(&mut request, rules, &mut Context::default(), &mut losses);
                let card = Card::default();
                let target =
                    Target { profile: Profile::Chat, model: "m", card: &card, stream: true, thinking: None, project: "" };
                let out = write(&request, &target, &mut losses).unwrap();
                prop_assert!(parse_any(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
            }
        }

        #[test]
        fn p35_every_text_and_call_of_a_chat_survives(chat in prop::collection::vec(said(), 1..7)) {
            let (out, _) = again(&body(&chat), "m", None, false);
            let (texts, calls) = content(&out);
            let (mut expected, mut made) = (String::new(), Vec::new());
            for message in &chat {
                match message {
                    Said::User(all) => expected.push_str(&all.concat()),
                    Said::Model { text, calls } => {
                        expected.push_str(text);
                        // Longer names are cut, which the answer undoes.
                        let name = |name: &str| name.chars().take(64).collect::<String>();
                        made.extend(calls.iter().map(|(n, x)| (name(n), format!("{{\"x\": \"{x}\"}}"))));
                        made.extend(calls.iter().map(|(_, x)| ("result".to_owned(), format!("r:{x}"))));
                    }
                }
            }
            prop_assert_eq!(texts, expected);
            prop_assert_eq!(calls, made);
        }
    }
}
