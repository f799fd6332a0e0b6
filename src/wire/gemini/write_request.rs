//! [`Request`] → upstream body.
//!
//! Enters: a request that [`crate::ir::lower`] has made fit: results stand right behind their calls. Leaves:
//! the body, in the envelope where the backend has one. May go wrong: nothing is refused; what cannot be said
//! is recorded.

use super::flavour::Flavour;
use super::write_contents::write_conversation;
use super::{envelope, write_config, write_tools};
use crate::error::WireError;
use crate::ir::{Context, LossKind, Losses, Part, Request, Role};
use crate::json;
use crate::target::{Profile, Target};

/// IR → upstream body.
pub fn write_request(
    request: &Request<'_>,
    target: &Target<'_>,
    context: &mut Context,
    losses: &mut Losses,
) -> Result<Vec<u8>, WireError> {
    let flavour = Flavour::of(target);
    let mut out = Vec::with_capacity(estimate(request));
    if flavour.wrapped() {
        let seed = context.seed.clone();
        envelope::wrap(&mut out, flavour, target, &seed, |out| {
            write_body(out, request, target, context, losses);
        });
    } else {
        write_body(&mut out, request, target, context, losses);
    }
    Ok(out)
}

fn write_body(
    out: &mut Vec<u8>,
    request: &Request<'_>,
    target: &Target<'_>,
    context: &mut Context,
    losses: &mut Losses,
) {
    let flavour = Flavour::of(target);
    json::object(out, |o| {
        write_conversation(o, request, flavour, losses);
        write_tools::write_tools(o, request, target, context, losses);
        write_config::write_config(o, request, target, losses);
        if let Some(safety) = request.safety.as_ref().filter(|_| flavour.profile != Profile::Antigravity) {
            o.raw("safetySettings", safety.as_str());
        }
        if flavour.profile == Profile::Antigravity {
            o.str("sessionId", &envelope::session_id(first_text(request)));
        }
    });
    report(request, losses);
}

/// The first thing the user said.
fn first_text<'r>(request: &'r Request<'_>) -> &'r str {
    let users = request.turns.iter().filter(|turn| turn.role == Role::User);
    let texts = users.flat_map(|turn| &turn.parts).filter_map(|part| match part {
        Part::Text(text) => Some(text.text.as_ref()),
        _ => None,
    });
    texts.into_iter().next().unwrap_or_default()
}

/// Names the settings that the format does not have.
fn report(request: &Request<'_>, losses: &mut Losses) {
    let lacks = [
        ("verbosity", request.verbosity.is_some()),
        ("user", request.user.is_some()),
        ("prompt_cache_key", request.cache_key.is_some()),
        ("logit_bias", request.sampling.logit_bias.is_some()),
        ("parallel_tool_calls", request.parallel_tools == Some(false)),
    ];
    // Google caches by itself.
    if request.has_cache_marks() {
        losses.member(LossKind::CacheMark, "cache_control");
    }
    for (name, _) in lacks.iter().filter(|(_, asked)| *asked) {
        losses.member(LossKind::Setting, name);
    }
    for (name, _) in &request.extra {
        losses.member(LossKind::Setting, name);
    }
}

/// Roughly how long the body gets: attachments make the difference.
fn estimate(request: &Request<'_>) -> usize {
    let parts = request.turns.iter().flat_map(|turn| &turn.parts);
    let length = parts.map(|part| match part {
        Part::Text(text) => text.text.len() + 32,
        Part::ToolCall(call) => call.arguments.len() + 128,
        Part::Image(image) => inline_len(&image.source),
        Part::Document(document) => inline_len(&document.source),
        _ => 256,
    });
    length.sum::<usize>() + 4096
}

fn inline_len(source: &crate::ir::Source<'_>) -> usize {
    match source {
        crate::ir::Source::Inline { data, .. } => data.len() + 64,
        _ => 256,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::flavour::tests::target;
    use super::*;
    use crate::ir::lower::lower;
    use crate::ir::{Image, Source, Text, ToolCall, ToolKind, ToolResult, Turn};
    use crate::json::{Json, parse_any};
    use crate::signature::{Signature, Vendor};
    use crate::target::Card;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static CARD: LazyLock<Card> = LazyLock::new(Card::default);

    /// Lowered and written; what is inside the envelope.
    pub(in super::super) fn written(request: &Request<'_>, target: &Target<'_>) -> Json<'static> {
        written_with(request, target, &mut Context::default(), &mut Losses::default())
    }

    pub(in super::super) fn written_with(
        request: &Request<'_>,
        target: &Target<'_>,
        context: &mut Context,
        losses: &mut Losses,
    ) -> Json<'static> {
        let mut request = request.clone();
        lower(&mut request, &crate::gemini::RULES, context, losses);
        let body = write_request(&request, target, context, losses).unwrap();
        let value = parse_any(&body).unwrap().into_owned();
        if target.profile == Profile::Gemini { value } else { value.get("request").unwrap().clone() }
    }

    pub(in super::super) fn to(profile: Profile, model: &'static str) -> Target<'static> {
        target(profile, model, &CARD)
    }

    pub(in super::super) fn pro() -> Target<'static> {
        to(Profile::Gemini, "gemini-2.5-pro")
    }

    pub(in super::super) fn user(parts: Vec<Part<'static>>) -> Turn<'static> {
        Turn::new(Role::User, parts)
    }

    pub(in super::super) fn model(parts: Vec<Part<'static>>) -> Turn<'static> {
        Turn::new(Role::Assistant, parts)
    }

    pub(in super::super) fn text(text: &'static str) -> Part<'static> {
        Part::Text(Text::plain(text))
    }

    pub(in super::super) fn call(
        id: &'static str,
        name: &'static str,
        signature: Option<Signature<'static>>,
    ) -> Part<'static> {
        let (id, name) = (id.into(), name.into());
        let kind = ToolKind::Function;
        Part::ToolCall(ToolCall {
            id,
            name,
            namespace: None,
            kind,
            arguments: "{\"a\":1}".into(),
            signature,
            cache: None,
        })
    }

    pub(in super::super) fn result(
        id: &'static str,
        parts: Vec<Part<'static>>,
        is_error: bool,
    ) -> Part<'static> {
        let kind = ToolKind::Function;
        Part::ToolResult(ToolResult { call_id: id.into(), name: None, parts, is_error, kind, cache: None })
    }

    pub(in super::super) fn image() -> Part<'static> {
        let source = Source::Inline { mime: "image/png".into(), data: "AAAA".into() };
        Part::Image(Image { source, detail: None, cache: None })
    }

    pub(in super::super) fn asks(turns: Vec<Turn<'static>>) -> Request<'static> {
        Request { turns, ..Request::default() }
    }

    pub(in super::super) fn contents_of(request: &Request<'_>, target: &Target<'_>) -> String {
        written(request, target).get("contents").unwrap().to_text()
    }

    pub(in super::super) fn signed(vendor: Vendor) -> Option<Signature<'static>> {
        Signature::of(vendor, "c2ln")
    }

    #[test]
    fn sessions_and_envelopes() {
        let request = asks(vec![user(vec![text("hi")])]);
        let mut context =
            Context { seed: "0123456789abcdef0123456789abcdef".to_owned(), ..Context::default() };
        let target = to(Profile::Antigravity, "gemini-3-flash");
        let body = write_request(&request, &target, &mut context, &mut Losses::default()).unwrap();
        let value = parse_any(&body).unwrap();
        assert_eq!(
            value.get("requestId").and_then(Json::as_str),
            Some("agent-01234567-89ab-cdef-0123-456789abcdef")
        );
        assert_eq!(value.get("project").and_then(Json::as_str), Some("proj"));
        assert!(value.at(&["request", "sessionId"]).is_some() && value.at(&["request", "model"]).is_none());
        let cli = written(&request, &to(Profile::GeminiCli, "gemini-2.5-pro"));
        assert_eq!(cli.as_object().unwrap().len(), 1);
    }

    /// What the vendor demands of `contents`.
    fn check(value: &Json<'_>) -> Result<(), String> {
        let contents = value.get("contents").and_then(Json::as_array).ok_or("no contents")?;
        let mut open: Vec<String> = Vec::new();
        for (n, content) in contents.iter().enumerate() {
            let role = content.get("role").and_then(Json::as_str).unwrap_or_default();
            let parts = content.get("parts").and_then(Json::as_array).unwrap_or_default();
            if parts.is_empty() || (n == 0 && role != "user") {
                return Err(format!("content {n} is {role} with {} parts", parts.len()));
            }
            let names = |member: &str| -> Vec<String> {
                let found = parts.iter().filter_map(|part| part.at(&[member, "name"]));
                let mut names: Vec<_> = found.map(Json::to_text).collect();
                names.sort();
                names
            };
            if names("functionResponse") != open {
                return Err(format!("content {n} answers {:?}, not {open:?}", names("functionResponse")));
            }
            open = names("functionCall");
            for part in parts {
                let payloads = ["text", "inlineData", "fileData", "functionCall", "functionResponse"];
                if payloads.iter().filter(|key| part.get(key).is_some()).count() != 1 {
                    return Err(format!("part {}", part.to_text()));
                }
            }
        }
        Ok(())
    }

    fn any_part() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z]{1,6}".prop_map(|t| format!(r#"{{"text":"«{t}»"}}"#)),
            Just(r#"{"text":" "}"#.to_owned()),
            "[a-z]{1,6}".prop_map(|t| format!(r#"{{"text":"{t}","thought":true}}"#)),
            "[fgh]".prop_map(|f| format!(r#"{{"functionCall":{{"name":"{f}","args":{{"k":"«{f}»"}}}}}}"#)),
            "[fgh]".prop_map(|f| format!(
                r#"{{"functionResponse":{{"name":"{f}","response":{{"output":"«r{f}»"}}}}}}"#
            )),
            Just(r#"{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}}"#.to_owned()),
        ]
    }

    fn any_body() -> impl Strategy<Value = String> {
        let content = (any::<bool>(), prop::collection::vec(any_part(), 0..4)).prop_map(|(model, parts)| {
            let role = if model { "model" } else { "user" };
            let parts: Vec<_> =
                parts.into_iter().filter(|part| model || !part.contains("functionCall")).collect();
            format!(r#"{{"role":"{role}","parts":[{}]}}"#, parts.join(","))
        });
        prop::collection::vec(content, 1..6).prop_map(|all| format!(r#"{{"contents":[{}]}}"#, all.join(",")))
    }

    /// The marked words of a text, sorted.
    fn words(text: &str) -> Vec<&str> {
        let mut words: Vec<_> = text.split('«').skip(1).filter_map(|rest| rest.split('»').next()).collect();
        words.sort_unstable();
        words
    }

    proptest! {
        #[test]
        fn p35_every_text_and_call_gets_through(body in any_body(), which in 0_usize..4) {
            let targets = [
                pro(),
                to(Profile::Gemini, "gemini-3-pro-preview"),
                to(Profile::Antigravity, "claude-sonnet-4-6"),
                to(Profile::GeminiCli, "gemini-2.5-pro"),
            ];
            let request = crate::gemini::read_request(body.as_bytes(), &mut Losses::default()).unwrap();
            let value = written(&request, &targets[which]);
            check(&value).unwrap();
            let out = value.to_text();
            // Of several results of one call the last stays.
            let (expected, got) = (words(&body), words(&out));
            for word in expected.iter().filter(|word| !word.starts_with('r') || word.len() != 2) {
                let count = |all: &[&str]| all.iter().filter(|w| w == &word).count();
                prop_assert!(count(&got) >= count(&expected), "{word}: {body} became {out}");
            }
        }

        #[test]
        fn p33_patched_bodies_stay_json(body in any_body(), which in 0_usize..3) {
            let targets = [pro(), to(Profile::Antigravity, "claude-sonnet-4-6"), to(Profile::GeminiCli, "gemini-3-pro")];
            let head = crate::head::parse(body.as_bytes(), crate::Protocol::Gemini).unwrap();
            let out = crate::gemini::patch_request(body.as_bytes(), &head, &targets[which], &mut Losses::default()).unwrap();
            prop_assert!(parse_any(&out).is_ok());
            prop_assert_eq!(words(std::str::from_utf8(&out).unwrap()), words(&body));
        }

        #[test]
        fn no_body_panics(body in "[{}\\[\\]\":,a-z0-9 ]{0,60}", which in 0_usize..2) {
            let target = [pro(), to(Profile::Antigravity, "claude-sonnet-4-6")][which];
            if let Ok(request) = crate::gemini::read_request(body.as_bytes(), &mut Losses::default()) {
                written(&request, &target);
            }
            let head = crate::head::Head::default();
            let _ = crate::gemini::patch_request(body.as_bytes(), &head, &target, &mut Losses::default());
        }
    }
}
