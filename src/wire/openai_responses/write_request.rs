//! [`Request`] → body for the public Responses API or for the Codex backend.
//!
//! Enters: a request that [`crate::ir::lower`] has mended. Leaves: a body. May go wrong: a conversation
//! without a word; settings that the target does not have are recorded.
//!
//! Clients of other formats do not expect their conversation to be kept: `store` is false, and reasoning
//! travels encrypted. Instructions go to `instructions`; for Codex to developer items behind an empty one,
//! because that backend has instructions of its own.

use super::write_items::Items;
use super::{LOGPROBS, codex, write_tools};
use crate::error::WireError;
use crate::ir::{Format, LossKind, Losses, Request};
use crate::json::{self, Object, Path};
use crate::names::{NameRule, fingerprint};
use crate::target::{Profile, Target};
use crate::thinking::{Level, Mode, Summary, Support};

/// Least `max_output_tokens` of the public API.
const LEAST_OUTPUT: u64 = 16;
/// Longest `safety_identifier`; Claude Code's user ids are longer.
const LONGEST_USER: usize = 64;

/// Writes the body.
pub(super) fn write_request(
    request: &Request<'_>,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Vec<u8>, WireError> {
    if request.turns.is_empty() && request.system.is_empty() {
        return Err(WireError::invalid(&Path::Key(&Path::Root, "input"), "the conversation is empty"));
    }
    let is_codex = target.profile == Profile::Codex;
    let mut out = Vec::new();
    json::object(&mut out, |o| {
        o.str("model", target.model);
        instructions(o, request, is_codex);
        input(o, request, is_codex, losses);
        write_tools::tools(o, request, is_codex, losses);
        reasoning(o, request, target);
        text(o, request);
        if !is_codex {
            limits(o, request, losses);
        }
        include(o, request, target);
        o.opt_str("prompt_cache_key", request.cache_key.as_deref());
        match request.service_tier.as_deref() {
            Some(tier) if !is_codex || tier == codex::PRIORITY => o.str("service_tier", tier),
            Some(_) => losses.member(LossKind::Setting, "service_tier"),
            None => {}
        }
        o.bool("store", false);
        o.bool("stream", is_codex || target.stream);
    });
    lost(request, is_codex, losses);
    Ok(out)
}

fn joined(request: &Request<'_>) -> String {
    let texts: Vec<&str> = request.system.iter().map(|line| line.text.as_ref()).collect();
    texts.join("\n\n")
}

fn instructions(o: &mut Object<'_>, request: &Request<'_>, is_codex: bool) {
    if is_codex {
        o.str("instructions", "");
    } else if !request.system.is_empty() && !request.turns.is_empty() {
        o.str("instructions", &joined(request));
    }
}

fn input(o: &mut Object<'_>, request: &Request<'_>, is_codex: bool, losses: &mut Losses) {
    let root = Path::Root;
    let turns = root.key("turns");
    o.array("input", |a| {
        let mut items = Items { out: a, codex: is_codex, losses };
        if request.turns.is_empty() {
            // Instructions alone: the model still needs something to answer.
            return items.text("user", &joined(request));
        }
        if is_codex {
            request.system.iter().for_each(|line| items.text("developer", &line.text));
        }
        for (n, turn) in request.turns.iter().enumerate() {
            items.turn(turn, &turns.index(n));
        }
    });
}

/// Reasoning travels with the client, so it has to come encrypted; models that do not think refuse to be asked.
fn include(o: &mut Object<'_>, request: &Request<'_>, target: &Target<'_>) {
    let thinks = target.thinking.is_some_and(|mode| mode != Mode::Auto)
        || matches!(target.card.thinking, Support::Bounded(_));
    let is_codex = target.profile == Profile::Codex;
    let mut names = Vec::new();
    if is_codex || thinks {
        names.push(codex::ENCRYPTED);
    }
    if request.logprobs.is_some() && !is_codex {
        names.push(LOGPROBS);
    }
    names.extend(request.include.iter().map(AsRef::as_ref));
    names.sort_unstable();
    names.dedup();
    if !names.is_empty() {
        o.array("include", |a| names.iter().for_each(|name| a.str(name)));
    }
}

/// A summary is asked for when the client wants to see thinking, or asked for thinking and did not say.
fn reasoning(o: &mut Object<'_>, request: &Request<'_>, target: &Target<'_>) {
    let effort = target.thinking.and_then(effort_word);
    let asked = target.thinking.is_some_and(|mode| !matches!(mode, Mode::Off | Mode::Auto));
    let never = target.card.thinking == Support::Never;
    let visible = request.thinking.visible.unwrap_or(asked) && effort != Some("none") && !never;
    if effort.is_none() && !visible {
        return;
    }
    o.object("reasoning", |o| {
        o.opt_str("effort", effort);
        if visible {
            o.str("summary", request.thinking.summary.unwrap_or(Summary::Auto).name());
        }
    });
}

/// The word of `reasoning.effort`; there is none for "decide yourself".
pub(super) fn effort_word(mode: Mode) -> Option<&'static str> {
    match mode {
        Mode::Off => Some("none"),
        Mode::Level(level) => Some(level.name()),
        Mode::Budget(tokens) => Some(Level::of_budget(tokens).name()),
        Mode::Auto => None,
    }
}

fn text(o: &mut Object<'_>, request: &Request<'_>) {
    if request.format.is_none() && request.verbosity.is_none() {
        return;
    }
    o.object("text", |o| {
        match &request.format {
            None => {}
            Some(Format::JsonObject) => o.object("format", |o| o.str("type", "json_object")),
            Some(Format::JsonSchema { name, description, schema, strict }) => o.object("format", |o| {
                o.str("type", "json_schema");
                let name = name.as_deref().filter(|name| !name.is_empty()).unwrap_or("response");
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
            }),
        }
        o.opt_str("verbosity", request.verbosity.as_deref());
    });
}

/// What only the public API takes.
fn limits(o: &mut Object<'_>, request: &Request<'_>, losses: &mut Losses) {
    if let Some(most) = request.limits.max_tokens {
        if most < LEAST_OUTPUT {
            losses.member(LossKind::Clamped, "max_tokens");
        }
        o.uint("max_output_tokens", most.max(LEAST_OUTPUT));
    }
    if let Some(temperature) = request.sampling.temperature {
        o.float("temperature", temperature);
    }
    if let Some(top_p) = request.sampling.top_p {
        o.float("top_p", top_p);
    }
    if let Some(count) = request.logprobs {
        o.uint("top_logprobs", count);
    }
    if let Some(user) = request.user.as_deref() {
        if user.len() > LONGEST_USER {
            o.str("safety_identifier", &fingerprint(user.as_bytes()));
        } else {
            o.str("safety_identifier", user);
        }
    }
}

/// Records what has no member here.
fn lost(request: &Request<'_>, is_codex: bool, losses: &mut Losses) {
    let sampling = &request.sampling;
    let limits = &request.limits;
    let public = [
        ("max_tokens", limits.max_tokens.is_some()),
        ("temperature", sampling.temperature.is_some()),
        ("top_p", sampling.top_p.is_some()),
        ("logprobs", request.logprobs.is_some()),
        ("user", request.user.is_some()),
    ];
    let neither = [
        ("stop", !limits.stop.is_empty()),
        ("n", limits.choices.is_some_and(|n| n > 1)),
        ("top_k", sampling.top_k.is_some()),
        ("seed", sampling.seed.is_some()),
        ("presence_penalty", sampling.presence_penalty.is_some()),
        ("frequency_penalty", sampling.frequency_penalty.is_some()),
        ("logit_bias", sampling.logit_bias.is_some()),
        ("modalities", request.modalities.iter().any(|kind| kind != "text")),
        ("safety", request.safety.is_some()),
    ];
    let public = public.into_iter().filter(|_| is_codex);
    for (name, _) in public.chain(neither).filter(|(_, given)| *given) {
        losses.member(LossKind::Setting, name);
    }
    for (name, _) in &request.extra {
        losses.member(LossKind::Setting, name);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RULES, read_request};
    use super::*;
    use crate::ir::lower::lower;
    use crate::ir::{
        Context, Image, Instruction, Limits, Part, Reasoning, Role, Sampling, Source, Text, ToolCall,
        ToolKind, ToolResult, Turn,
    };
    use crate::json::{Json, parse_any};
    use crate::signature::{Signature, Vendor};
    use crate::target::Card;
    use crate::thinking::{Bounds, Thinking};
    use proptest::prelude::*;

    fn write(profile: Profile, mut request: Request<'_>, thinking: Option<Mode>) -> (String, String) {
        let mut losses = Losses::default();
        lower(&mut request, &RULES, &mut Context::default(), &mut losses);
        let card = Card::default();
        let target = Target { profile, model: "m", card: &card, stream: false, thinking, project: "" };
        let out = write_request(&request, &target, &mut losses).unwrap();
        (String::from_utf8(out).unwrap(), losses.to_string())
    }

    fn user(text: &'static str) -> Turn<'static> {
        Turn::new(Role::User, vec![Part::Text(Text::plain(text))])
    }

    fn system(text: &'static str) -> Instruction<'static> {
        Instruction { text: text.into(), developer: false, cache: None }
    }

    fn call(id: &'static str, kind: ToolKind, arguments: &'static str) -> Part<'static> {
        Part::ToolCall(ToolCall {
            id: id.into(),
            name: "f".into(),
            namespace: None,
            kind,
            arguments: arguments.into(),
            signature: None,
            cache: None,
        })
    }

    fn result(id: &'static str, parts: Vec<Part<'static>>, is_error: bool) -> Part<'static> {
        let kind = ToolKind::Function;
        Part::ToolResult(ToolResult { call_id: id.into(), name: None, parts, is_error, kind, cache: None })
    }

    fn reasoning(vendor: Vendor, text: &'static str) -> Part<'static> {
        Part::Reasoning(Reasoning {
            text: vec![text.into()],
            signature: Signature::of(vendor, "gAAAA"),
            ..Reasoning::default()
        })
    }

    #[test]
    fn a_tool_loop_becomes_items_without_ids() {
        let picture = Part::Image(Image {
            source: Source::Inline { mime: "image/png".into(), data: "iVBORw0K".into() },
            detail: None,
            cache: None,
        });
        let request = Request {
            system: vec![system("A."), system("B.")],
            turns: vec![
                user("q"),
                Turn::new(
                    Role::Assistant,
                    vec![
                        reasoning(Vendor::Openai, "plan"),
                        reasoning(Vendor::Claude, "secret"),
                        Part::Text(Text::plain("Looking.")),
                        call("c1", ToolKind::Function, ""),
                        call("c2", ToolKind::Custom, "raw \"x\""),
                    ],
                ),
                Turn::new(
                    Role::User,
                    vec![
                        result("c1", vec![Part::Text(Text::plain("shot")), picture], false),
                        result("c2", vec![Part::Text(Text::plain("boom"))], true),
                        Part::Text(Text::plain("more")),
                    ],
                ),
            ],
            ..Request::default()
        };
        let (out, losses) = write(Profile::Codex, request.clone(), None);
        let items = r#"{"type":"message","role":"user","content":[{"type":"input_text","text":"q"}]},{"type":"reasoning","summary":[{"type":"summary_text","text":"plan"}],"encrypted_content":"gAAAA"},{"type":"message","role":"assistant","content":[{"type":"output_text","text":"Looking."}]},{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},{"type":"custom_tool_call","call_id":"c2","name":"f","input":"raw \"x\""},{"type":"function_call_output","call_id":"c1","output":[{"type":"input_text","text":"shot"},{"type":"input_image","image_url":"data:image/png;base64,iVBORw0K","detail":"auto"}]},{"type":"custom_tool_call_output","call_id":"c2","output":"[The tool failed]\nboom"},{"type":"message","role":"user","content":[{"type":"input_text","text":"more"}]}"#;
        let developer = |text| {
            format!(
                r#"{{"type":"message","role":"developer","content":[{{"type":"input_text","text":"{text}"}}]}}"#
            )
        };
        assert_eq!(
            out,
            format!(
                r#"{{"model":"m","instructions":"","input":[{},{},{items}],"include":["reasoning.encrypted_content"],"store":false,"stream":true}}"#,
                developer("A."),
                developer("B.")
            )
        );
        assert_eq!(losses, "signature turns[1]");
        let (out, _) = write(Profile::Responses, request, None);
        assert_eq!(
            out,
            format!(
                r#"{{"model":"m","instructions":"A.\n\nB.","input":[{items}],"store":false,"stream":false}}"#
            )
        );
    }

    #[test]
    fn codex_refuses_limits_that_the_public_api_takes() {
        let request = || Request {
            turns: vec![user("q")],
            limits: Limits { max_tokens: Some(5), stop: vec!["A".into()], choices: Some(2) },
            sampling: Sampling { temperature: Some(0.1), top_k: Some(3), ..Sampling::default() },
            user: Some("u".into()),
            logprobs: Some(2),
            service_tier: Some("flex".into()),
            cache_key: Some("k".into()),
            ..Request::default()
        };
        let (out, losses) = write(Profile::Codex, request(), None);
        assert!(out.ends_with(r#""include":["reasoning.encrypted_content"],"prompt_cache_key":"k","store":false,"stream":true}"#), "{out}");
        assert_eq!(
            losses,
            "setting service_tier, setting max_tokens, setting temperature, setting logprobs, setting user, \
             setting stop, setting n, setting top_k"
        );
        let (out, losses) = write(Profile::Responses, request(), None);
        assert!(out.contains(r#""max_output_tokens":16,"temperature":0.1,"top_logprobs":2,"safety_identifier":"u","include":["message.output_text.logprobs"]"#), "{out}");
        assert_eq!(losses, "clamped max_tokens, setting stop, setting n, setting top_k");
    }

    #[test]
    fn effort_and_visibility_are_separate() {
        let with = |visible, thinking| {
            let thinking_asked = Thinking { visible, ..Thinking::default() };
            let request = Request { turns: vec![user("q")], thinking: thinking_asked, ..Request::default() };
            let (out, _) = write(Profile::Codex, request, thinking);
            parse_any(out.as_bytes()).unwrap().get("reasoning").map(Json::to_text)
        };
        let high = Some(Mode::Level(Level::High));
        assert_eq!(with(None, None), None);
        assert_eq!(with(None, high).as_deref(), Some(r#"{"effort":"high","summary":"auto"}"#));
        assert_eq!(with(Some(false), high).as_deref(), Some(r#"{"effort":"high"}"#));
        assert_eq!(with(Some(true), None).as_deref(), Some(r#"{"summary":"auto"}"#));
        assert_eq!(with(Some(true), Some(Mode::Off)).as_deref(), Some(r#"{"effort":"none"}"#));
    }

    #[test]
    fn models_that_think_send_their_reasoning_along() {
        let request = Request { turns: vec![user("q")], ..Request::default() };
        let card = Card { thinking: Support::Bounded(Bounds::default()), ..Card::default() };
        let target = Target {
            profile: Profile::Responses,
            model: "m",
            card: &card,
            stream: true,
            thinking: None,
            project: "",
        };
        let out = write_request(&request, &target, &mut Losses::default()).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(
            out.contains(r#""include":["reasoning.encrypted_content"],"store":false,"stream":true"#),
            "{out}"
        );
    }

    #[test]
    fn instructions_alone_become_a_message_and_nothing_at_all_is_refused() {
        let request = Request { system: vec![system("Say hi.")], ..Request::default() };
        for profile in [Profile::Codex, Profile::Responses] {
            let (out, _) = write(profile, request.clone(), None);
            assert!(out.contains(
                r#"[{"type":"message","role":"user","content":[{"type":"input_text","text":"Say hi."}]}]"#
            ));
        }
        let card = Card::default();
        let target = Target {
            profile: Profile::Codex,
            model: "m",
            card: &card,
            stream: true,
            thinking: None,
            project: "",
        };
        assert!(write_request(&Request::default(), &target, &mut Losses::default()).is_err());
    }

    #[test]
    fn formats_get_a_legal_name() {
        let format = Format::JsonSchema {
            name: Some("my schema".into()),
            description: None,
            schema: crate::ir::RawJson(r#"{"n":1.0}"#.into()),
            strict: None,
        };
        let request = Request {
            turns: vec![user("q")],
            format: Some(format),
            verbosity: Some("low".into()),
            ..Request::default()
        };
        let (out, _) = write(Profile::Codex, request, None);
        assert!(out.contains(r#""text":{"format":{"type":"json_schema","name":"my_schema","schema":{"n":1.0}},"verbosity":"low"}"#), "{out}");
    }

    /// All words of a conversation and all its calls, in order.
    fn told(request: &Request<'_>) -> Vec<String> {
        let mut out: Vec<String> =
            Some(joined(request)).filter(|text| !text.is_empty()).into_iter().collect();
        for part in request.turns.iter().flat_map(|turn| &turn.parts) {
            match part {
                Part::Text(text) => out.push(text.text.to_string()),
                Part::Refusal(text) => out.push(text.to_string()),
                Part::ToolCall(call) => out.push(format!("{}:{}({})", call.id, call.name, call.arguments)),
                Part::ToolResult(result) => out.push(format!("{}={}", result.call_id, result.text())),
                _ => {}
            }
        }
        out
    }

    fn body() -> impl Strategy<Value = String> {
        let text = || "[a-z\"\\\\é ]{0,6}[a-z]".prop_map(|text| json::string(&text));
        let item = prop_oneof![
            (prop_oneof![Just("user"), Just("developer"), Just("system")], text())
                .prop_map(|(role, text)| format!(r#"{{"role":"{role}","content":{text}}}"#)),
            text().prop_map(|text| format!(r#"{{"type":"message","role":"assistant","content":[{{"type":"output_text","text":{text}}},{{"type":"refusal","refusal":{text}}}]}}"#)),
            (0..9_u8, text()).prop_map(|(n, text)| format!(
                r#"{{"type":"function_call","call_id":"c{n}","name":"f{n}","arguments":"{{\"a\":1}}"}},{{"type":"function_call_output","call_id":"c{n}","output":{text}}}"#
            )),
            (0..9_u8, text()).prop_map(|(n, text)| format!(
                r#"{{"type":"custom_tool_call","call_id":"d{n}","name":"g","input":{text}}},{{"type":"custom_tool_call_output","call_id":"d{n}","output":[{{"type":"input_text","text":{text}}}]}}"#
            )),
        ];
        prop::collection::vec(item, 1..8)
            .prop_map(|items| format!(r#"{{"model":"m","input":[{}]}}"#, items.join(",")))
    }

    proptest! {
        #[test]
        fn p35_what_is_written_reads_back_with_every_word_and_call(body in body()) {
            let mut losses = Losses::default();
            let mut request = read_request(body.as_bytes(), &mut losses).unwrap();
            lower(&mut request, &RULES, &mut Context::default(), &mut losses);
            let card = Card::default();
            for profile in [Profile::Codex, Profile::Responses] {
                let target = Target { profile, model: "m", card: &card, stream: true, thinking: None, project: "" };
                let written = write_request(&request, &target, &mut losses).unwrap();
                let again = read_request(&written, &mut losses).unwrap();
                prop_assert_eq!(told(&again), told(&request));
            }
            prop_assert!(losses.is_empty());
        }
    }
}
