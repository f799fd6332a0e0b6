//! [`Request`] → upstream body.
//!
//! Enters: a request that [`crate::ir::lower`] has made fit: results stand right behind their calls. Leaves:
//! the body, in the envelope where the backend has one. May go wrong: nothing is refused; what cannot be said
//! is recorded.

use super::flavour::Flavour;
use super::write_parts::{Media, PartWriter};
use super::{envelope, write_config, write_tools};
use crate::error::WireError;
use crate::ir::{Context, LossKind, Losses, Part, Request, Role};
use crate::json::{self, Path};
use crate::target::{Profile, Target};

/// Stands for the user's turn that the API wants where the conversation has none.
pub(super) const MINIMAL: &str = ".";

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

/// `contents` and `systemInstruction`.
pub(super) fn write_conversation(
    o: &mut json::Object<'_>,
    request: &Request<'_>,
    flavour: Flavour,
    losses: &mut Losses,
) {
    let system = system_texts(request, losses);
    if !system.is_empty() {
        o.object("systemInstruction", |o| {
            o.array("parts", |a| system.iter().for_each(|text| a.object(|o| o.str("text", text))));
        });
    }
    let contents = contents(request, flavour, losses);
    o.array("contents", |a| {
        if contents.first().is_none_or(|first| first.model) {
            a.object(|o| {
                o.str("role", "user");
                o.array("parts", |a| a.object(|o| o.str("text", MINIMAL)));
            });
        }
        for content in &contents {
            a.object(|o| {
                o.str("role", if content.model { "model" } else { "user" });
                o.array("parts", |a| write_parts(a, content, flavour, losses));
            });
        }
    });
}

/// Instructions from wherever they stand, in order.
fn system_texts<'r>(request: &'r Request<'_>, losses: &mut Losses) -> Vec<&'r str> {
    let mut texts: Vec<&str> = request.system.iter().map(|line| line.text.as_ref()).collect();
    let root = Path::Root;
    let at = root.key("turns");
    for (n, turn) in request.turns.iter().enumerate() {
        if !matches!(turn.role, Role::System | Role::Developer) {
            continue;
        }
        for part in &turn.parts {
            match part {
                Part::Text(text) => texts.push(&text.text),
                _ => losses.at(LossKind::Content, &at.index(n)),
            }
        }
    }
    texts.retain(|text| !text.trim().is_empty());
    texts
}

/// One content: neighbours of the same role are one.
struct Content<'r, 'a> {
    model: bool,
    parts: Vec<&'r Part<'a>>,
}

fn contents<'r, 'a>(request: &'r Request<'a>, flavour: Flavour, losses: &mut Losses) -> Vec<Content<'r, 'a>> {
    let mut contents: Vec<Content<'r, 'a>> = Vec::with_capacity(request.turns.len());
    let root = Path::Root;
    let at = root.key("turns");
    for (n, turn) in request.turns.iter().enumerate() {
        let model = match turn.role {
            Role::User => false,
            Role::Assistant => true,
            Role::System | Role::Developer => continue,
        };
        let mut parts: Vec<_> =
            turn.parts.iter().filter(|part| keeps(part, flavour, &at.index(n), losses)).collect();
        match contents.last_mut() {
            Some(last) if last.model == model => last.parts.append(&mut parts),
            _ if parts.is_empty() => {}
            _ => contents.push(Content { model, parts }),
        }
    }
    contents
}

/// Whether the model can be told a part again.
fn keeps(part: &Part<'_>, flavour: Flavour, at: &Path<'_>, losses: &mut Losses) -> bool {
    let lost = match part {
        Part::Reasoning(reasoning) => {
            let own = reasoning.signature.as_ref().and_then(|signature| flavour.own_signature(signature));
            own.is_none().then_some(LossKind::Signature)
        }
        Part::Server(item) => (item.vendor != crate::Protocol::Gemini).then_some(LossKind::Builtin),
        Part::Text(text) if text.text.trim().is_empty() => {
            let own = text.signature.as_ref().and_then(|signature| flavour.own_signature(signature));
            own.is_none().then_some(LossKind::Signature)
        }
        _ => None,
    };
    if let Some(kind) = lost {
        losses.at(kind, at);
    }
    lost.is_none()
}

fn write_parts(a: &mut json::Array<'_>, content: &Content<'_, '_>, flavour: Flavour, losses: &mut Losses) {
    let mut writer = PartWriter::new(a, flavour, losses);
    let (results, others): (Vec<&Part<'_>>, Vec<&Part<'_>>) =
        content.parts.iter().partition(|part| matches!(part, Part::ToolResult(_)));
    let mut media: Vec<Media<'_>> = Vec::new();
    for part in results {
        if let Part::ToolResult(result) = part {
            writer.result(result, &mut media);
        }
    }
    // Pictures of results come behind all of them: nothing may stand between responses.
    for media in &media {
        writer.media(media);
    }
    for part in others {
        writer.part(part);
    }
    writer.finish();
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
    use crate::ir::{
        Image, Instruction, Reasoning, SearchResult, Source, Text, ToolCall, ToolKind, ToolResult, Turn,
    };
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

    fn to(profile: Profile, model: &'static str) -> Target<'static> {
        target(profile, model, &CARD)
    }

    fn pro() -> Target<'static> {
        to(Profile::Gemini, "gemini-2.5-pro")
    }

    pub(in super::super) fn user(parts: Vec<Part<'static>>) -> Turn<'static> {
        Turn::new(Role::User, parts)
    }

    fn model(parts: Vec<Part<'static>>) -> Turn<'static> {
        Turn::new(Role::Assistant, parts)
    }

    pub(in super::super) fn text(text: &'static str) -> Part<'static> {
        Part::Text(Text::plain(text))
    }

    fn call(id: &'static str, name: &'static str, signature: Option<Signature<'static>>) -> Part<'static> {
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

    fn result(id: &'static str, parts: Vec<Part<'static>>, is_error: bool) -> Part<'static> {
        let kind = ToolKind::Function;
        Part::ToolResult(ToolResult { call_id: id.into(), name: None, parts, is_error, kind, cache: None })
    }

    fn image() -> Part<'static> {
        let source = Source::Inline { mime: "image/png".into(), data: "AAAA".into() };
        Part::Image(Image { source, detail: None, cache: None })
    }

    fn asks(turns: Vec<Turn<'static>>) -> Request<'static> {
        Request { turns, ..Request::default() }
    }

    fn contents(request: &Request<'_>, target: &Target<'_>) -> String {
        written(request, target).get("contents").unwrap().to_text()
    }

    fn signed(vendor: Vendor) -> Option<Signature<'static>> {
        Signature::of(vendor, "c2ln")
    }

    #[test]
    fn instructions_of_any_place_are_one_and_roles_merge() {
        let mut request = asks(vec![
            user(vec![text("a")]),
            Turn::new(Role::System, vec![text("late")]),
            user(vec![text("b")]),
        ]);
        request.system = vec![Instruction { text: "early".into(), developer: true, cache: None }];
        let value = written(&request, &pro());
        assert_eq!(
            value.get("systemInstruction").unwrap().to_text(),
            r#"{"parts":[{"text":"early"},{"text":"late"}]}"#
        );
        assert_eq!(
            value.get("contents").unwrap().to_text(),
            r#"[{"role":"user","parts":[{"text":"a"},{"text":"b"}]}]"#
        );
    }

    #[test]
    fn a_user_speaks_first_and_somebody_speaks() {
        assert_eq!(contents(&asks(vec![]), &pro()), r#"[{"role":"user","parts":[{"text":"."}]}]"#);
        assert_eq!(
            contents(&asks(vec![model(vec![text("a")])]), &pro()),
            r#"[{"role":"user","parts":[{"text":"."}]},{"role":"model","parts":[{"text":"a"}]}]"#
        );
    }

    #[test]
    fn calls_and_results_are_paired_and_named() {
        let request = asks(vec![
            user(vec![text("q")]),
            model(vec![text("t"), call("1", "f", None), call("2", "g", None)]),
            user(vec![
                result("2", vec![text("noon")], false),
                result("1", vec![text("boom")], true),
                text("and?"),
            ]),
        ]);
        assert_eq!(
            contents(&request, &pro()),
            r#"[{"role":"user","parts":[{"text":"q"}]},{"role":"model","parts":[{"text":"t"},{"functionCall":{"id":"1","name":"f","args":{"a":1}},"thoughtSignature":"skip_thought_signature_validator"},{"functionCall":{"id":"2","name":"g","args":{"a":1}}}]},{"role":"user","parts":[{"functionResponse":{"id":"1","name":"f","response":{"error":"boom"}}},{"functionResponse":{"id":"2","name":"g","response":{"output":"noon"}}},{"text":"and?"}]}]"#
        );
        let without = contents(&request, &to(Profile::Antigravity, "gemini-3-flash"));
        assert!(!without.contains(r#""id""#) && without.contains("skip_thought"));
        let claude = contents(&request, &to(Profile::Antigravity, "claude-sonnet-4-6"));
        assert!(claude.contains(r#""id":"1""#) && !claude.contains("skip_thought"));
    }

    #[test]
    fn results_are_objects_that_the_model_can_read() {
        for (said, response) in [
            ("21C", r#"{"output":"21C"}"#),
            (r#" {"b": 1, "a":[]} "#, r#"{"b":1,"a":[]}"#),
            (r#"[1,2]"#, r#"{"output":[1,2]}"#),
            ("21", r#"{"output":"21"}"#),
            ("{broken", r#"{"output":"{broken"}"#),
            ("", r#"{"output":""}"#),
        ] {
            let parts = if said.is_empty() { vec![] } else { vec![text(said)] };
            let request =
                asks(vec![model(vec![call("1", "f", None)]), user(vec![result("1", parts, false)])]);
            let value = written(&request, &pro());
            let parts = value.get("contents").and_then(Json::as_array).unwrap()[2].get("parts").unwrap();
            let got = parts.as_array().unwrap()[0].at(&["functionResponse", "response"]).unwrap().to_text();
            assert_eq!(got, response, "{said}");
        }
    }

    #[test]
    fn pictures_of_results_reach_the_model() {
        let request = asks(vec![
            model(vec![call("1", "f", None), call("2", "g", None)]),
            user(vec![result("1", vec![image()], false), result("2", vec![text("x")], false), text("t")]),
        ]);
        let beside = contents(&request, &pro());
        assert!(beside.ends_with(
            r#""response":{"output":"x"}}},{"inlineData":{"mimeType":"image/png","data":"AAAA"}},{"text":"t"}]}]"#
        ));
        let inside = contents(&request, &to(Profile::Gemini, "gemini-3-pro-preview"));
        assert!(inside.contains(
            r#""response":{"output":"The result is attached."},"parts":[{"inlineData":{"mimeType":"image/png","data":"AAAA"}}]"#
        ));
    }

    #[test]
    fn only_own_signatures_go_out() {
        let thought = |vendor, words: &'static str| {
            let text = if words.is_empty() { vec![] } else { vec![words.into()] };
            Part::Reasoning(Reasoning { text, signature: signed(vendor), ..Reasoning::default() })
        };
        let turn = |parts| asks(vec![user(vec![text("q")]), model(parts)]);
        // (parts, for Gemini, for Claude behind Antigravity)
        for (parts, gemini, claude) in [
            (
                vec![thought(Vendor::Claude, "plan"), text("a")],
                r#"[{"text":"a"}]"#,
                r#"[{"text":"plan","thought":true,"thoughtSignature":"YzJsbg=="},{"text":"a"}]"#,
            ),
            (
                vec![thought(Vendor::Gemini, "plan"), text("a")],
                r#"[{"text":"plan","thought":true,"thoughtSignature":"c2ln"},{"text":"a"}]"#,
                r#"[{"text":"a"}]"#,
            ),
            (
                vec![thought(Vendor::Gemini, ""), text("a")],
                r#"[{"text":"a","thoughtSignature":"c2ln"}]"#,
                r#"[{"text":"a"}]"#,
            ),
            (
                vec![text("a"), thought(Vendor::Gemini, "")],
                r#"[{"text":"a"},{"text":"","thoughtSignature":"c2ln"}]"#,
                r#"[{"text":"a"}]"#,
            ),
            (vec![thought(Vendor::Openai, "plan"), text("a")], r#"[{"text":"a"}]"#, r#"[{"text":"a"}]"#),
        ] {
            let request = turn(parts);
            let parts = |target: &Target<'_>| {
                let value = written(&request, target);
                value.get("contents").and_then(Json::as_array).unwrap()[1].get("parts").unwrap().to_text()
            };
            assert_eq!(parts(&pro()), gemini);
            assert_eq!(parts(&to(Profile::Antigravity, "claude-sonnet-4-6")), claude);
        }
        let native = asks(vec![
            user(vec![text("q")]),
            model(vec![call("1", "f", signed(Vendor::Gemini)), call("2", "f", None)]),
        ]);
        let out = contents(&native, &pro());
        assert!(out.contains("c2ln") && !out.contains("skip_thought"));
        let mut losses = Losses::default();
        written_with(
            &turn(vec![thought(Vendor::Openai, "plan"), text("a")]),
            &pro(),
            &mut Context::default(),
            &mut losses,
        );
        assert_eq!(losses.to_string(), "signature turns[1]");
    }

    #[test]
    fn attachments_find_their_member_or_are_named() {
        let source = |source| Part::Image(Image { source, detail: None, cache: None });
        let url = |url: &'static str| source(Source::Url { url: url.into(), mime: None });
        for (part, expected) in [
            (image(), r#"{"inlineData":{"mimeType":"image/png","data":"AAAA"}}"#),
            (url("https://x/a.png"), r#"{"fileData":{"mimeType":"image/png","fileUri":"https://x/a.png"}}"#),
            (url("https://x/a"), r#"{"fileData":{"mimeType":"image/jpeg","fileUri":"https://x/a"}}"#),
            (url("data:image/gif;base64,R0lG"), r#"{"inlineData":{"mimeType":"image/gif","data":"R0lG"}}"#),
            (url("file:///x"), r#"{"text":"[image: file:///x]"}"#),
            (
                source(Source::File { vendor: crate::Protocol::OpenaiResponses, id: "file_1".into() }),
                r#"{"text":"[image: file_1]"}"#,
            ),
            (
                Part::SearchResult(SearchResult {
                    source: "https://s".into(),
                    title: "T".into(),
                    text: vec!["words".into()],
                    raw: crate::ir::RawJson("{}".into()),
                }),
                r#"{"text":"T\nhttps://s\nwords"}"#,
            ),
        ] {
            let out = contents(&asks(vec![user(vec![part])]), &pro());
            assert_eq!(out, format!(r#"[{{"role":"user","parts":[{expected}]}}]"#));
        }
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
            let head = crate::head::Head { model: String::new(), model_span: None, stream: false, include_usage: false };
            let _ = crate::gemini::patch_request(body.as_bytes(), &head, &target, &mut Losses::default());
        }
    }
}
