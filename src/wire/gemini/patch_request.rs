//! Client body → upstream body of the same format, changed on its bytes.
//!
//! Enters: a body that is known to be one JSON object. Leaves: the same bytes, except for what the backend
//! would refuse: thinking out of the model's range, results that do not stand behind their calls, signatures
//! of other vendors, schemas in the wrong member. For the envelope backends the body goes in as `request`.
//! May go wrong: nothing; what is not understood stays as it is, for the vendor to judge.

use super::flavour::Flavour;
use super::patch_contents::repair_contents;
use super::patch_tools::repair_tools;
use super::write_config::{claude_thinking, write_mode};
use super::{camel, envelope};
use crate::error::WireError;
use crate::head::Head;
use crate::ir::{LossKind, Losses};
use crate::json::{self, Json};
use crate::names::fingerprint;
use crate::patch::{Patch, elements, members};
use crate::target::{Profile, Target};
use crate::thinking::{Level, Mode, Support};
use std::borrow::Cow;
use std::ops::Range;

/// Client body → upstream body of the same format.
pub fn patch_request<'a>(
    body: &'a [u8],
    _head: &Head,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Cow<'a, [u8]>, WireError> {
    let flavour = Flavour::of(target);
    let bare = envelope::unwrap_client_envelope(body).and_then(|span| body.get(span)).unwrap_or(body);
    let request = patch_bare(bare, flavour, target, losses);
    if !flavour.wrapped() {
        return Ok(request);
    }
    let seed = seed_of(bare);
    let mut out = Vec::with_capacity(request.len() + 512);
    envelope::wrap(&mut out, flavour, target, &seed, |out| out.extend_from_slice(&request));
    Ok(Cow::Owned(out))
}

/// 32 hex digits that only the same body has.
fn seed_of(body: &[u8]) -> String {
    let (head, tail) = body.split_at(body.len() / 2);
    fingerprint(body) + &fingerprint(&[tail, head].concat())
}

/// The members of a request that may have to change, by their name in camel case.
#[derive(Debug, Default)]
struct Top {
    contents: Option<Range<usize>>,
    system: Option<Range<usize>>,
    config: Option<Range<usize>>,
    tools: Option<Range<usize>>,
    session: bool,
}

/// The request itself, patched.
pub(super) fn patch_bare<'a>(
    body: &'a [u8],
    flavour: Flavour,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Cow<'a, [u8]> {
    let mut patch = Patch::new(body);
    let mut top = Top::default();
    for member in members(body, 0) {
        let key = String::from_utf8_lossy(member.key);
        let value = Some(member.value.clone());
        match camel(&key).as_ref() {
            "contents" => top.contents = value,
            "systemInstruction" if top.system.is_some() => patch.remove(0, &key),
            "systemInstruction" => {
                top.system = value;
                if let Some(text @ [b'"', ..]) = body.get(member.value.clone()) {
                    // SDKs take a bare string; the API does not.
                    let content = [b"{\"parts\":[{\"text\":", text, b"}]}"].concat();
                    patch.replace(member.value.clone(), content);
                }
                if flavour.wrapped() && key.contains('_') {
                    let start = member.span.start;
                    patch.replace(start..start + member.key.len() + 2, "\"systemInstruction\"");
                }
            }
            "generationConfig" => top.config = value,
            "tools" => top.tools = value,
            // Only the Code Assist backends know it.
            "sessionId" if !flavour.wrapped() => patch.remove(0, &key),
            "sessionId" => top.session = true,
            // The URL or the envelope names the model; a client's alias would be refused.
            "model" => patch.remove(0, &key),
            "safetySettings" if flavour.profile == Profile::Antigravity => {
                losses.member(LossKind::Setting, &key);
                patch.remove(0, &key);
            }
            _ => {}
        }
    }
    patch_config(body, &mut patch, top.config, flavour, target, losses);
    let value =
        |span: &Option<Range<usize>>| span.clone().and_then(|span| Some((span.clone(), body.get(span)?)));
    if let Some((span, text)) = value(&top.contents) {
        if let Some(repaired) = repair_contents(text, flavour, losses) {
            patch.replace(span, repaired);
        }
        if flavour.profile == Profile::Antigravity && !top.session {
            let session = envelope::session_id(&first_text(text));
            patch.set(0, "sessionId", json::string(&session));
        }
    }
    if let Some((span, text)) = value(&top.tools) {
        match repair_tools(text, flavour, losses) {
            Some(repaired) if repaired == b"[]" => patch.remove(0, "tools"),
            Some(repaired) => patch.replace(span, repaired),
            None => {}
        }
    }
    if patch.is_empty() { Cow::Borrowed(body) } else { Cow::Owned(patch.apply()) }
}

/// The first text of the conversation, for the session.
fn first_text(contents: &[u8]) -> String {
    let first = elements(contents, 0).into_iter().next().and_then(|span| contents.get(span));
    let Some(Ok(content)) = first.map(json::parse_any) else { return String::new() };
    let parts = content.get("parts").and_then(Json::as_array).unwrap_or_default();
    parts.iter().find_map(|part| part.get("text")?.as_str()).unwrap_or_default().to_owned()
}

/// What `generationConfig` says about thinking and length, and where.
#[derive(Debug, Default)]
struct Config {
    /// Start of `thinkingConfig`, and the key it is written with.
    thinking: Option<(usize, String)>,
    /// Members of it that say how much.
    modes: Vec<String>,
    level: Option<Mode>,
    budget: Option<Mode>,
    limit: Option<(String, u64)>,
}

fn read_config(body: &[u8], span: &Range<usize>) -> Config {
    let mut config = Config::default();
    let number = |span: Range<usize>| {
        let value = json::parse_any(body.get(span)?).ok()?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    };
    for member in members(body, span.start) {
        let key = String::from_utf8_lossy(member.key).into_owned();
        match camel(&key).as_ref() {
            "maxOutputTokens" => {
                config.limit = number(member.value).and_then(|n| u64::try_from(n).ok()).map(|n| (key, n));
            }
            "thinkingConfig" if body.get(member.value.start) == Some(&b'{') => {
                config.thinking = Some((member.value.start, key));
                for member in members(body, member.value.start) {
                    let key = String::from_utf8_lossy(member.key).into_owned();
                    match camel(&key).as_ref() {
                        "thinkingBudget" => config.budget = number(member.value).map(Mode::of_tokens),
                        "thinkingLevel" => {
                            let word = body.get(member.value).and_then(|raw| json::parse_any(raw).ok());
                            let level = word.as_ref().and_then(Json::as_str).and_then(Level::parse);
                            config.level = level.map(Mode::Level);
                        }
                        _ => continue,
                    }
                    config.modes.push(key);
                }
            }
            _ => {}
        }
    }
    config
}

fn patch_config(
    body: &[u8],
    patch: &mut Patch<'_>,
    span: Option<Range<usize>>,
    flavour: Flavour,
    target: &Target<'_>,
    losses: &mut Losses,
) {
    let object = span.filter(|span| body.get(span.start) == Some(&b'{'));
    let config = object.as_ref().map(|span| read_config(body, span)).unwrap_or_default();
    let at = object.as_ref().map(|span| span.start);
    if let (Some(at), Some((key, _))) = (at, &config.limit)
        && flavour.profile == Profile::Antigravity
        && !flavour.claude
    {
        losses.member(LossKind::Setting, key);
        patch.remove(at, key);
    }
    let support = &target.card.thinking;
    if *support == Support::Never {
        if let (Some(at), Some((_, key))) = (at, &config.thinking) {
            losses.member(LossKind::Setting, key);
            patch.remove(at, key);
        }
        return;
    }
    let asked = config.level.or(config.budget);
    let mut mode = target.thinking.or(asked);
    let mut limit = None;
    if flavour.claude {
        let plan = claude_thinking(mode, config.limit.as_ref().map(|(_, limit)| *limit), target.card, losses);
        mode = plan.budget.map(Mode::Budget);
        limit = plan.limit.filter(|_| config.limit.is_none());
    }
    if let (Some(at), Some(limit)) = (at, limit) {
        patch.set(at, "maxOutputTokens", limit.to_string());
    }
    if mode == asked && config.modes.len() < 2 {
        return;
    }
    set_mode(patch, at, &config, mode, limit);
}

/// Writes the one member that says how much, and takes the others out.
fn set_mode(
    patch: &mut Patch<'_>,
    at: Option<usize>,
    config: &Config,
    mode: Option<Mode>,
    limit: Option<u64>,
) {
    let mut text = Vec::new();
    json::object(&mut text, |o| mode.into_iter().for_each(|mode| write_mode(o, mode)));
    let (key, value) = match members(&text, 0).next() {
        Some(member) => (
            String::from_utf8_lossy(member.key).into_owned(),
            text.get(member.value).unwrap_or_default().to_vec(),
        ),
        None => (String::new(), Vec::new()),
    };
    match (at, &config.thinking) {
        (_, Some((thinking, _))) => {
            for written in config.modes.iter().filter(|written| **written != key) {
                patch.remove(*thinking, written);
            }
            if mode.is_some() {
                patch.set(*thinking, &key, value);
            }
        }
        (Some(at), None) if mode.is_some() => patch.set(at, "thinkingConfig", text),
        (None, None) if mode.is_some() => {
            let mut config = Vec::new();
            json::object(&mut config, |o| {
                o.key("thinkingConfig").extend_from_slice(&text);
                if let Some(limit) = limit {
                    o.uint("maxOutputTokens", limit);
                }
            });
            patch.set(0, "generationConfig", config);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::flavour::tests::target;
    use super::*;
    use crate::Protocol;
    use crate::json::parse_any;
    use crate::target::Card;
    use crate::thinking::{Bounds, plan_own};
    use std::sync::LazyLock;

    static ANY: LazyLock<Card> = LazyLock::new(Card::default);
    static NEVER: LazyLock<Card> = LazyLock::new(|| Card { thinking: Support::Never, ..Card::default() });
    static PRO: LazyLock<Card> = LazyLock::new(|| card(Some((128, 32768)), false, true, &[]));
    static FLASH: LazyLock<Card> = LazyLock::new(|| card(Some((0, 24576)), true, true, &[]));
    static LEVELS: LazyLock<Card> =
        LazyLock::new(|| card(Some((128, 32768)), false, false, &[Level::Low, Level::High]));

    fn card(budget: Option<(u32, u32)>, off: bool, auto: bool, levels: &[Level]) -> Card {
        let bounds = Bounds { budget, off, auto, levels: levels.to_vec() };
        Card { thinking: Support::Bounded(bounds), max_output: Some(64000), context: None, ..Card::default() }
    }

    fn patched(body: &str, target: &Target<'_>) -> String {
        let head = crate::head::parse(body.as_bytes(), Protocol::Gemini).unwrap();
        let asked = crate::gemini::asked_thinking(body.as_bytes()).unwrap().mode;
        let (support, mut losses) = (&target.card.thinking, Losses::default());
        let mut plan = || plan_own(asked, None, support, Protocol::Gemini, &mut losses);
        let thinking = target.thinking.or_else(&mut plan);
        let target = Target { thinking, ..*target };
        let out = patch_request(body.as_bytes(), &head, &target, &mut losses).unwrap();
        assert!(parse_any(&out).is_ok());
        String::from_utf8(out.into_owned()).unwrap()
    }

    fn pro(body: &str) -> String {
        patched(body, &target(Profile::Gemini, "gemini-2.5-pro", &PRO))
    }

    #[test]
    fn p33_fine_bodies_keep_every_byte() {
        let body = r#"{ "contents" : [ {"role":"user","parts":[{"text":"q"}]}, {"role":"model","parts":[{"functionCall":{"name":"f","args":{"x": 1.0}}}]},{"role":"user","parts":[{"functionResponse":{"name":"f","response":{}}}]}],"generation_config":{"thinkingConfig":{"thinkingBudget":1024,"includeThoughts":true},"maxOutputTokens":10},"tools":[{"functionDeclarations":[{"name":"f","parameters":{"type":"OBJECT"}}]},{"googleSearch":{}}],"cachedContent":"c","what":[1] }"#;
        let head = crate::head::parse(body.as_bytes(), Protocol::Gemini).unwrap();
        let target = target(Profile::Gemini, "gemini-2.5-pro", &PRO);
        let out = patch_request(body.as_bytes(), &head, &target, &mut Losses::default()).unwrap();
        assert!(matches!(out, Cow::Borrowed(same) if same == body.as_bytes()));
    }

    #[test]
    fn the_suffix_wins_and_one_member_stays() {
        let with = |mode| Target { thinking: Some(mode), ..target(Profile::Gemini, "gemini-3-pro", &LEVELS) };
        let body = r#"{"contents":[],"generationConfig":{"thinkingConfig":{"thinking_budget":1,"includeThoughts":true}}}"#;
        assert_eq!(
            patched(body, &with(Mode::Level(Level::High))),
            r#"{"contents":[],"generationConfig":{"thinkingConfig":{"thinkingLevel":"HIGH","includeThoughts":true}}}"#
        );
        assert_eq!(
            patched(r#"{"contents":[]}"#, &with(Mode::Budget(8192))),
            r#"{"generationConfig":{"thinkingConfig":{"thinkingBudget":8192}},"contents":[]}"#
        );
        assert_eq!(
            patched(r#"{"contents":[],"generation_config":{"topK":1}}"#, &with(Mode::Auto)),
            r#"{"contents":[],"generation_config":{"thinkingConfig":{"thinkingBudget":-1},"topK":1}}"#
        );
    }

    #[test]
    fn thinking_out_of_range_moves_in() {
        let body =
            |config: &str| format!(r#"{{"contents":[],"generationConfig":{{"thinkingConfig":{config}}}}}"#);
        assert_eq!(pro(&body(r#"{"thinkingBudget":60000}"#)), body(r#"{"thinkingBudget":32768}"#));
        assert_eq!(pro(&body(r#"{"thinkingBudget":0}"#)), body(r#"{"thinkingBudget":128}"#));
        let flash = target(Profile::Gemini, "gemini-2.5-flash", &FLASH);
        assert_eq!(patched(&body(r#"{"thinkingBudget":0}"#), &flash), body(r#"{"thinkingBudget":0}"#));
        let both = body(r#"{"thinkingBudget":20000,"thinkingLevel":"HIGH"}"#);
        assert_eq!(
            patched(&both, &target(Profile::Gemini, "gemini-3-pro", &LEVELS)),
            body(r#"{"thinkingLevel":"HIGH"}"#)
        );
        let unknown = body(r#"{"thinkingLevel":"HIGH"}"#);
        assert_eq!(patched(&unknown, &target(Profile::Gemini, "mine", &ANY)), unknown);
        let never = target(Profile::Gemini, "gemma", &NEVER);
        assert_eq!(patched(&unknown, &never), r#"{"contents":[],"generationConfig":{}}"#);
    }

    #[test]
    fn envelopes_are_put_around_and_swapped() {
        let cli = target(Profile::GeminiCli, "gemini-2.5-pro", &PRO);
        let body = r#"{"model":"alias","project":"theirs","request":{"system_instruction":{},"contents":[{"parts":[{"text":"hi"}]}],"safetySettings":[]}}"#;
        assert_eq!(
            patched(body, &cli),
            r#"{"project":"proj","model":"gemini-2.5-pro","request":{"systemInstruction":{},"contents":[{"parts":[{"text":"hi"}]}],"safetySettings":[]}}"#
        );
        let out = patched(
            r#"{"contents":[{"parts":[{"text":"hi"}]}],"model":"x","safetySettings":[],"generationConfig":{"maxOutputTokens":9,"topP":1}}"#,
            &target(Profile::Antigravity, "gemini-3-flash", &ANY),
        );
        let value = parse_any(out.as_bytes()).unwrap();
        let at = |keys: &[&str]| value.at(keys).map(Json::to_text);
        assert_eq!(at(&["userAgent"]).as_deref(), Some(r#""antigravity""#));
        assert_eq!(at(&["requestType"]).as_deref(), Some(r#""agent""#));
        assert_eq!(at(&["request", "generationConfig"]).as_deref(), Some(r#"{"topP":1}"#));
        assert!(at(&["request", "sessionId"]).is_some_and(|id| id.starts_with("\"-")));
        assert!(at(&["request", "model"]).is_none() && at(&["request", "safetySettings"]).is_none());
    }

    #[test]
    fn claude_behind_antigravity_gets_a_budget_below_its_limit() {
        let claude = target(Profile::Antigravity, "claude-sonnet-4-6", &PRO);
        let body = |config: &str| format!(r#"{{"contents":[],"generationConfig":{config}}}"#);
        let config = |text: &str| {
            let out = patched(text, &claude);
            let value = parse_any(out.as_bytes()).unwrap();
            value.at(&["request", "generationConfig"]).unwrap().to_text()
        };
        assert_eq!(
            config(&body(r#"{"maxOutputTokens":4096,"thinkingConfig":{"thinkingBudget":8000}}"#)),
            r#"{"maxOutputTokens":4096,"thinkingConfig":{"thinkingBudget":4095}}"#
        );
        assert_eq!(
            config(&body(r#"{"thinkingConfig":{"thinkingBudget":8000}}"#)),
            r#"{"maxOutputTokens":64000,"thinkingConfig":{"thinkingBudget":8000}}"#
        );
    }

    #[test]
    fn both_spellings_of_one_member_become_one() {
        assert_eq!(
            pro(r#"{"systemInstruction":{"parts":[]},"contents":[],"system_instruction":{"parts":[]}}"#),
            r#"{"systemInstruction":{"parts":[]},"contents":[]}"#
        );
        assert_eq!(
            pro(r#"{"system_instruction":"S\n","contents":[],"session_id":"x"}"#),
            r#"{"system_instruction":{"parts":[{"text":"S\n"}]},"contents":[]}"#
        );
    }
}
