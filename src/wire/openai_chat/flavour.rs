//! What some providers insist on beyond Chat Completions: Kimi, Qwen, iFlow and Copilot. Copilot's bodies of
//! Responses come here as well: tools and the other members are the same.
//!
//! Enters: a body as any compatible server takes it, written here or a client's own; later the provider's
//! whole answer. Leaves: the same bytes but for the table. May go wrong: iFlow reports errors in answers of
//! status 200. Source: the behaviour of the backends as their own clients show it.
//!
//! | | Kimi | Qwen | iFlow | Copilot |
//! |---|---|---|---|---|
//! | model | without `kimi-` | | | lower case |
//! | thinking | `thinking{type, effort}` | | `enable_thinking` of the chat template; MiniMax: `reasoning_split` | |
//! | messages | see [`super::flavour_messages`] | | | an answer's text is one string |
//! | tools | | a stream has some | a stream has no empty list | functions only |
//! | other | | | | no `service_tier` |

use super::flavour_messages::{flatten_answers, mend_kimi};
use super::read_thinking::MEMBERS;
use super::write_request::effort;
use crate::error::Failure;
use crate::ir::{LossKind, Losses};
use crate::json::{self, Json, parse_any};
use crate::patch::{Patch, elements, members};
use crate::target::{Profile, Target};
use crate::thinking::Mode;
use std::borrow::Cow;
use std::ops::Range;

/// A tool that is there because the backend needs one.
const NOOP: &str = r#"[{"type":"function","function":{"name":"noop","description":"Does nothing. Never call it.","parameters":{"type":"object","properties":{}}}}]"#;

/// A body that is being changed.
pub(super) struct Edits<'b, 'l> {
    pub(super) body: &'b [u8],
    pub(super) patch: Patch<'b>,
    pub(super) losses: &'l mut Losses,
}

/// Makes a body fit the provider.
pub(crate) fn fit<'b>(body: Cow<'b, [u8]>, target: &Target<'_>, losses: &mut Losses) -> Cow<'b, [u8]> {
    let fitted = {
        let mut edits = Edits { body: &body, patch: Patch::new(&body), losses };
        match target.profile {
            Profile::Kimi => {
                edits.model(target.model.strip_prefix("kimi-").unwrap_or(target.model));
                edits.kimi_thinking(target);
                mend_kimi(&mut edits);
            }
            Profile::Qwen if target.stream => edits.need_tool(true),
            Profile::Iflow => {
                edits.iflow_thinking(target);
                if target.stream {
                    edits.need_tool(false);
                }
            }
            Profile::Copilot => {
                edits.model(&target.model.to_lowercase());
                edits.functions_only();
                edits.lose("service_tier");
                flatten_answers(&mut edits);
            }
            Profile::CopilotResponses => {
                edits.model(&target.model.to_lowercase());
                edits.functions_only();
                edits.lose("service_tier");
            }
            _ => {}
        }
        (!edits.patch.is_empty()).then(|| edits.patch.apply())
    };
    fitted.map_or(body, Cow::Owned)
}

impl<'b> Edits<'b, '_> {
    /// The place of a top-level member that is not `null`.
    pub(super) fn member(&self, key: &str) -> Option<Range<usize>> {
        let found = members(self.body, 0).find(|member| member.key == key.as_bytes())?;
        (self.raw(&found.value) != b"null").then_some(found.value)
    }

    pub(super) fn raw(&self, span: &Range<usize>) -> &'b [u8] {
        self.body.get(span.clone()).unwrap_or_default()
    }

    /// A value, read.
    pub(super) fn value(&self, span: &Range<usize>) -> Json<'b> {
        parse_any(self.raw(span)).unwrap_or(Json::Null)
    }

    fn model(&mut self, name: &str) {
        let name = json::string(name);
        if let Some(span) = self.member("model").filter(|span| self.raw(span) != name.as_bytes()) {
            self.patch.replace(span, name);
        }
    }

    fn lose(&mut self, key: &str) {
        if self.member(key).is_some() {
            self.patch.remove(0, key);
            self.losses.member(LossKind::Setting, key);
        }
    }

    /// What is asked in the official word, and the word taken out; `None`: nothing, or in a provider's own.
    fn take_effort(&mut self, target: &Target<'_>) -> Option<Mode> {
        let Some(span) = self.member("reasoning_effort") else {
            // Thinking as the model likes is silence in the official word.
            return target.thinking.filter(|mode| effort(*mode).is_none());
        };
        let mode = self.value(&span).as_str().and_then(Mode::parse)?;
        for key in MEMBERS {
            if self.member(key).is_some() {
                self.patch.remove(0, key);
            }
        }
        Some(mode)
    }

    fn kimi_thinking(&mut self, target: &Target<'_>) {
        let Some(mode) = self.take_effort(target) else { return };
        let mut value = Vec::new();
        json::object(&mut value, |o| {
            o.str("type", if mode == Mode::Off { "disabled" } else { "enabled" });
            o.opt_str("effort", effort(mode).filter(|_| mode != Mode::Off));
        });
        self.patch.set(0, "thinking", value);
    }

    fn iflow_thinking(&mut self, target: &Target<'_>) {
        let model = target.model.to_lowercase();
        let (glm, minimax) = (model.starts_with("glm"), model.starts_with("minimax"));
        let template = glm
            || ["qwen3-max-preview", "deepseek-v3.1", "deepseek-v3.2"]
                .iter()
                .any(|name| model.starts_with(name));
        if !minimax && !template {
            return;
        }
        let Some(mode) = self.take_effort(target) else { return };
        let thinks = if mode == Mode::Off { "false" } else { "true" };
        if minimax {
            return self.patch.set(0, "reasoning_split", thinks);
        }
        let Some(span) = self.member("chat_template_kwargs").filter(|span| self.raw(span).starts_with(b"{"))
        else {
            let clear = if glm { r#","clear_thinking":false"# } else { "" };
            let value = format!(r#"{{"enable_thinking":{thinks}{clear}}}"#);
            return self.patch.set(0, "chat_template_kwargs", value);
        };
        self.patch.set(span.start, "enable_thinking", thinks);
        if glm {
            self.patch.set(span.start, "clear_thinking", "false");
        }
    }

    /// Gives a stream a tool: Qwen writes stray tokens without one, iFlow refuses an empty list.
    fn need_tool(&mut self, also_without: bool) {
        match self.member("tools") {
            Some(span) if elements(self.body, span.start).is_empty() => self.patch.replace(span, NOOP),
            None if also_without => self.patch.set(0, "tools", NOOP),
            _ => {}
        }
    }

    fn functions_only(&mut self) {
        let Some(span) = self.member("tools") else { return };
        let all = elements(self.body, span.start);
        let is_function = |span: &&Range<usize>| {
            self.value(span).get("type").and_then(Json::as_str).is_none_or(|kind| kind == "function")
        };
        let kept: Vec<&[u8]> = all.iter().filter(is_function).map(|span| self.raw(span)).collect();
        if kept.len() < all.len() {
            self.losses.member(LossKind::Builtin, "tools");
        }
        if kept.is_empty() {
            for key in ["tools", "tool_choice", "parallel_tool_calls"] {
                if self.member(key).is_some() {
                    self.patch.remove(0, key);
                }
            }
            return;
        }
        if kept.len() < all.len() {
            self.patch.replace(span, [b"[", kept.join(&b","[..]).as_slice(), b"]"].concat());
        }
        let Some(choice) = self.member("tool_choice") else { return };
        let known = match self.value(&choice) {
            Json::Str(word) => matches!(word.as_ref(), "auto" | "none" | "required"),
            object => object.get("type").and_then(Json::as_str) == Some("function"),
        };
        if !known {
            self.losses.member(LossKind::Setting, "tool_choice");
            self.patch.replace(choice, "\"auto\"");
        }
    }
}

/// An answer out of iFlow's envelope `{success, data}`; an error when the envelope holds one.
pub fn unwrap_answer(profile: Profile, body: &[u8]) -> Result<&[u8], Failure> {
    if profile != Profile::Iflow || members(body, 0).any(|member| member.key == b"choices") {
        return Ok(body);
    }
    let (mut status, mut message, mut data) = (None, None, None);
    for member in members(body, 0) {
        let raw = body.get(member.value.clone()).unwrap_or_default();
        let text = || {
            let value = parse_any(raw).ok()?;
            value.as_u64().map(|number| number.to_string()).or_else(|| value.as_str().map(str::to_owned))
        };
        match member.key {
            b"status" | b"code" => status = status.or(text()),
            b"msg" | b"message" | b"body" => message = message.or(text()),
            b"data" if raw.starts_with(b"{") => data = Some(raw),
            _ => {}
        }
    }
    if let Some(data) = data {
        return Ok(data);
    }
    let Some(status) = status.filter(|status| status != "200" && status != "0") else { return Ok(body) };
    let message = message.unwrap_or_default();
    let expired = message.to_lowercase().contains("expired");
    let meaning = match status.as_str() {
        _ if expired => 401,
        "401" | "403" | "439" => 401,
        "429" | "449" => 429,
        "434" | "438" => 403,
        "400" => 400,
        _ => 502,
    };
    Err(Failure::new(meaning, if message.is_empty() { format!("iFlow status {status}") } else { message }))
}

/// What Copilot wants to know of a body in its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopilotHints {
    /// The request goes on with work that the user started: it costs no further premium request.
    pub agent: bool,
    /// It has pictures.
    pub vision: bool,
}

/// Looks at a body of Chat or Responses.
pub fn copilot_hints(body: &[u8]) -> CopilotHints {
    let turns = members(body, 0).find(|member| matches!(member.key, b"messages" | b"input"));
    let newest = turns.and_then(|member| elements(body, member.value.start).pop());
    let newest = newest.and_then(|span| parse_any(body.get(span)?).ok()).unwrap_or(Json::Null);
    let word = |key: &str| newest.get(key).and_then(Json::as_str);
    let agent = match word("role") {
        Some(role) => matches!(role, "assistant" | "tool"),
        None => word("type").is_some_and(|kind| kind.ends_with("_output") || kind.ends_with("_call")),
    };
    let has = |needle: &[u8]| body.windows(needle.len()).any(|window| window == needle);
    CopilotHints { agent, vision: has(b"\"image_url\"") || has(b"\"input_image\"") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Card;

    fn fitted(profile: Profile, model: &str, thinking: Option<Mode>, stream: bool, body: &str) -> String {
        let card = Card::default();
        let target = Target { profile, model, card: &card, stream, thinking, project: "" };
        let out = fit(Cow::Borrowed(body.as_bytes()), &target, &mut Losses::default());
        assert!(parse_any(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
        String::from_utf8(out.into_owned()).unwrap()
    }

    #[test]
    fn others_keep_every_byte() {
        let body = br#"{ "model":"M","messages":[],"tools":[],"service_tier":"x","reasoning_effort":"low"}"#;
        let card = Card::default();
        for (profile, stream) in [(Profile::Chat, true), (Profile::Qwen, false)] {
            let target = Target { profile, model: "M", card: &card, stream, thinking: None, project: "" };
            let out = fit(Cow::Borrowed(body), &target, &mut Losses::default());
            assert!(matches!(out, Cow::Borrowed(same) if same == body));
        }
    }

    #[test]
    fn kimi_thinks_in_its_own_words_under_its_own_name() {
        let run = |thinking, members: &str| {
            let body = format!(r#"{{"model":"kimi-k2.5","messages":[]{members}}}"#);
            fitted(Profile::Kimi, "kimi-k2.5", thinking, false, &body)
        };
        for (thinking, members, expected) in [
            (None, r#","reasoning_effort":"high""#, r#""thinking":{"type":"enabled","effort":"high"},"#),
            (None, r#","reasoning_effort":"none""#, r#""thinking":{"type":"disabled"},"#),
            (Some(Mode::Auto), "", r#""thinking":{"type":"enabled"},"#),
            (None, "", ""),
        ] {
            assert_eq!(run(thinking, members), format!(r#"{{{expected}"model":"k2.5","messages":[]}}"#));
        }
        let own = run(None, r#","thinking":{"type":"enabled"}"#);
        assert_eq!(own, r#"{"model":"k2.5","messages":[],"thinking":{"type":"enabled"}}"#);
    }

    #[test]
    fn iflow_switches_thinking_by_family() {
        let run = |model: &str, members: &str| {
            let body = format!(r#"{{"messages":[]{members}}}"#);
            fitted(Profile::Iflow, model, None, false, &body)
        };
        let (high, none) = (r#","reasoning_effort":"high""#, r#","reasoning_effort":"none""#);
        assert_eq!(
            run("GLM-4.7", high),
            r#"{"chat_template_kwargs":{"enable_thinking":true,"clear_thinking":false},"messages":[]}"#
        );
        assert_eq!(
            run("deepseek-v3.2", none),
            r#"{"chat_template_kwargs":{"enable_thinking":false},"messages":[]}"#
        );
        assert_eq!(
            run("deepseek-v3.1", r#","reasoning_effort":"low","chat_template_kwargs":{"x":1}"#),
            r#"{"messages":[],"chat_template_kwargs":{"enable_thinking":true,"x":1}}"#
        );
        assert_eq!(run("minimax-m2", high), r#"{"reasoning_split":true,"messages":[]}"#);
        assert_eq!(run("kimi-k2.5", high), format!(r#"{{"messages":[]{high}}}"#));
    }

    #[test]
    fn streams_get_the_tool_that_they_need() {
        let tools = |profile, stream, body| fitted(profile, "m", None, stream, body).contains("noop");
        assert!(tools(Profile::Qwen, true, r#"{"messages":[]}"#));
        assert!(tools(Profile::Iflow, true, r#"{"messages":[],"tools":[ ]}"#));
        assert!(!tools(Profile::Iflow, true, r#"{"messages":[]}"#));
        assert!(!tools(Profile::Iflow, false, r#"{"messages":[],"tools":[]}"#));
        assert!(!tools(Profile::Qwen, true, r#"{"messages":[],"tools":[{"type":"function"}]}"#));
    }

    #[test]
    fn copilot_takes_functions_and_plain_words() {
        let body = r#"{"model":"GPT-4o","messages":[],"service_tier":"auto","tools":[{"type":"custom","custom":{"name":"c"}},{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"custom","custom":{"name":"c"}}}"#;
        assert_eq!(
            fitted(Profile::Copilot, "GPT-4o", None, false, body),
            r#"{"model":"gpt-4o","messages":[],"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"auto"}"#
        );
        let body = r#"{"model":"m","messages":[],"tools":[{"type":"web_search"}],"tool_choice":"required"}"#;
        assert_eq!(fitted(Profile::Copilot, "m", None, false, body), r#"{"model":"m","messages":[]}"#);
    }

    #[test]
    fn copilot_is_told_who_goes_on_and_of_pictures() {
        for (body, agent, vision) in [
            (r#"{"messages":[{"role":"user","content":"q"}]}"#, false, false),
            (r#"{"messages":[{"role":"user","content":"q"},{"role":"tool","content":"r"}]}"#, true, false),
            (
                r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]}"#,
                false,
                true,
            ),
            (r#"{"input":[{"type":"function_call_output","output":"r"}]}"#, true, false),
            (r#"{"input":"q"}"#, false, false),
        ] {
            assert_eq!(copilot_hints(body.as_bytes()), CopilotHints { agent, vision }, "{body}");
        }
    }

    #[test]
    fn iflow_envelopes_are_opened() {
        let open = |body: &'static str| unwrap_answer(Profile::Iflow, body.as_bytes());
        assert_eq!(open(r#"{"success":true,"data":{"choices":[]}}"#).unwrap(), br#"{"choices":[]}"#);
        assert_eq!(open(r#"{"choices":[],"status":"x"}"#).unwrap(), br#"{"choices":[],"status":"x"}"#);
        for (body, status) in [
            (r#"{"status":"439","msg":"token gone"}"#, 401),
            (r#"{"status":449,"msg":"slow down"}"#, 429),
            (r#"{"status":"500","message":"Key expired"}"#, 401),
            (r#"{"status":"434"}"#, 403),
            (r#"{"status":"9"}"#, 502),
        ] {
            assert_eq!(open(body).unwrap_err().status, status, "{body}");
        }
        let chat = unwrap_answer(Profile::Chat, br#"{"status":"439"}"#);
        assert_eq!(chat.unwrap(), br#"{"status":"439"}"#);
    }
}
