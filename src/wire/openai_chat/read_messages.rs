//! The messages of a Chat body.
//!
//! Enters: `messages`, also in the shapes that agents send beside the official ones: arguments as an object,
//! `reasoning_content`, `reasoning` and `reasoning_details` in the history, legacy functions. Leaves:
//! instructions and turns, in order. May go wrong: roles, part types and types nobody knows; the error names
//! the place, because a message that is dropped would change the conversation.

use super::read_parts::{self, parts};
use super::read_reasoning;
use crate::error::WireError;
use crate::ir::{
    CacheMark, Instruction, LossKind, Losses, Part, Request, Role, Str, Text, ToolCall, ToolKind, ToolResult,
    Turn,
};
use crate::json::{Json, Map, Path};
use crate::signature::{Signature, Vendor};
use crate::typed::{each_object, object, required, string};
use std::borrow::Cow;

/// Reads all messages into `request`.
pub(super) fn read<'a>(
    messages: Vec<Json<'a>>,
    request: &mut Request<'a>,
    losses: &mut Losses,
) -> Result<(), WireError> {
    let root = Path::Root;
    let all = root.key("messages");
    if messages.is_empty() {
        return Err(required(&all, "at least one message"));
    }
    for (n, value) in messages.into_iter().enumerate() {
        let at = all.index(n);
        let message = Message::read(object(value, &at)?, &at, losses)?;
        message.place(request, &at, losses)?;
    }
    Ok(())
}

/// One message, its members still apart.
#[derive(Debug, Default)]
struct Message<'a> {
    role: Option<Str<'a>>,
    parts: Vec<Part<'a>>,
    name: Option<Str<'a>>,
    tool_call_id: Str<'a>,
    calls: Vec<Part<'a>>,
    refusal: Str<'a>,
    reasoning_text: Str<'a>,
    reasoning: Vec<Part<'a>>,
    images: Vec<Part<'a>>,
    cache: Option<CacheMark>,
}

impl<'a> Message<'a> {
    fn read(map: Map<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Self, WireError> {
        let mut message = Self::default();
        for (key, value) in map.0 {
            let at = at.key(&key);
            match key.as_ref() {
                _ if value.is_null() => {}
                "role" => message.role = Some(string(value, &at)?),
                "content" => message.parts = parts(value, &at, losses)?,
                "name" => message.name = Some(string(value, &at)?),
                "tool_call_id" => message.tool_call_id = string(value, &at)?,
                "tool_calls" => {
                    message.calls = each_object(value, &at, |map, at| call(map, at, losses))?;
                }
                "function_call" => {
                    let call = function(object(value, &at)?, &at, losses)?;
                    message.calls.push(Part::ToolCall(call));
                }
                "refusal" => message.refusal = string(value, &at)?,
                "reasoning_content" | "reasoning" | "reasoning_text" => {
                    let text = string(value, &at)?;
                    if message.reasoning_text.is_empty() {
                        message.reasoning_text = text;
                    }
                }
                "reasoning_details" => message.reasoning = read_reasoning::details(value, &at, losses)?,
                "images" => message.images = parts(value, &at, losses)?,
                "cache_control" => message.cache = cache_mark(&value),
                // An earlier spoken answer lives in the account that made it.
                "audio" => losses.at(LossKind::FileId, &at),
                // Members of answers that clients send back as they got them.
                "annotations" | "logprobs" | "index" => {}
                _ => losses.at(LossKind::UnknownMember, &at),
            }
        }
        if let (Some(mark), Some(part)) = (message.cache, message.parts.last_mut()) {
            read_parts::mark(part, mark);
        }
        Ok(message)
    }

    fn place(self, request: &mut Request<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<(), WireError> {
        let role_at = at.key("role");
        let Some(role) = &self.role else {
            return Err(required(&role_at, "system, developer, user, assistant or tool"));
        };
        let turn = match role.as_ref() {
            "system" | "developer" => {
                let developer = role == "developer";
                if request.turns.is_empty() {
                    return self.instructions(developer, request, at, losses);
                }
                self.only_text(at)?;
                let role = if developer { Role::Developer } else { Role::System };
                Turn { role, parts: self.parts, name: self.name }
            }
            "user" => Turn { role: Role::User, parts: self.parts, name: self.name },
            "assistant" => self.assistant(),
            "tool" | "function" => self.result(),
            other => {
                return Err(WireError::invalid(
                    &role_at,
                    format!("unknown role {other:?}: use system, developer, user, assistant or tool"),
                ));
            }
        };
        request.turns.push(turn);
        Ok(())
    }

    fn only_text(&self, at: &Path<'_>) -> Result<(), WireError> {
        if self.parts.iter().all(|part| matches!(part, Part::Text(_))) {
            return Ok(());
        }
        Err(WireError::invalid(&at.key("content"), "a system or developer message holds text only"))
    }

    fn instructions(
        self,
        developer: bool,
        request: &mut Request<'a>,
        at: &Path<'_>,
        losses: &mut Losses,
    ) -> Result<(), WireError> {
        self.only_text(at)?;
        if self.name.is_some() {
            losses.at(LossKind::Setting, &at.key("name"));
        }
        for part in self.parts {
            if let Part::Text(Text { text, cache, .. }) = part {
                request.system.push(Instruction { text, developer, cache });
            }
        }
        Ok(())
    }

    /// Thinking comes first, then what was said, then calls: the order of all formats that have one.
    fn assistant(self) -> Turn<'a> {
        let mut parts = self.reasoning;
        if parts.is_empty() && !self.reasoning_text.is_empty() {
            parts.push(read_reasoning::plain(self.reasoning_text));
        }
        parts.extend(self.parts);
        if !self.refusal.trim().is_empty() {
            parts.push(Part::Refusal(self.refusal));
        }
        parts.extend(self.images);
        parts.extend(self.calls);
        Turn { role: Role::Assistant, parts, name: self.name }
    }

    fn result(self) -> Turn<'a> {
        let result = ToolResult {
            call_id: self.tool_call_id,
            name: self.name,
            parts: self.parts,
            is_error: false,
            kind: ToolKind::Function,
            cache: self.cache,
        };
        Turn::new(Role::User, vec![Part::ToolResult(result)])
    }
}

/// `{"type":"ephemeral","ttl":"1h"}`, as routers in front of Claude take it.
pub(super) fn cache_mark(value: &Json<'_>) -> Option<CacheMark> {
    value.as_object().map(|map| CacheMark { hour: map.get("ttl").and_then(Json::as_str) == Some("1h") })
}

/// An element of `tool_calls`.
fn call<'a>(map: Map<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<Part<'a>, WireError> {
    let (mut id, mut inner, mut signature, mut cache) = (Str::default(), None, None, None);
    for (key, value) in map.0 {
        let at = at.key(&key);
        match key.as_ref() {
            _ if value.is_null() => {}
            "id" => id = string(value, &at)?,
            "function" => inner = Some(function(object(value, &at)?, &at, losses)?),
            "custom" => inner = Some(custom(object(value, &at)?, &at, losses)?),
            // Google's own compatible endpoint signs calls here.
            "extra_content" => {
                let text = value.at(&["google", "thought_signature"]).and_then(Json::as_str);
                signature = text.and_then(|text| Signature::of(Vendor::Gemini, text.to_owned()));
            }
            "cache_control" => cache = cache_mark(&value),
            "type" | "index" => {}
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    let call = inner.ok_or_else(|| required(&at.key("function"), "the name and arguments of the call"))?;
    Ok(Part::ToolCall(ToolCall { id, signature, cache, ..call }))
}

fn function<'a>(map: Map<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<ToolCall<'a>, WireError> {
    let (mut name, mut arguments) = (None, Str::default());
    for (key, value) in map.0 {
        let at = at.key(&key);
        match key.as_ref() {
            _ if value.is_null() => {}
            "name" => name = Some(crate::typed::name(value, &at)?),
            "arguments" => arguments = self::arguments(value, &at)?,
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    let name = name.ok_or_else(|| required(&at.key("name"), "the name of the function"))?;
    Ok(bare_call(name, ToolKind::Function, arguments))
}

fn custom<'a>(map: Map<'a>, at: &Path<'_>, losses: &mut Losses) -> Result<ToolCall<'a>, WireError> {
    let (mut name, mut input) = (None, Str::default());
    for (key, value) in map.0 {
        let at = at.key(&key);
        match key.as_ref() {
            _ if value.is_null() => {}
            "name" => name = Some(crate::typed::name(value, &at)?),
            "input" => input = string(value, &at)?,
            _ => losses.at(LossKind::UnknownMember, &at),
        }
    }
    let name = name.ok_or_else(|| required(&at.key("name"), "the name of the tool"))?;
    Ok(bare_call(name, ToolKind::Custom, input))
}

fn bare_call<'a>(name: Str<'a>, kind: ToolKind, arguments: Str<'a>) -> ToolCall<'a> {
    let id = Str::default();
    ToolCall { id, name, namespace: None, kind, arguments, signature: None, cache: None }
}

/// A string of JSON, or the object itself.
fn arguments<'a>(value: Json<'a>, at: &Path<'_>) -> Result<Str<'a>, WireError> {
    match value {
        Json::Raw(raw) if raw.starts_with('{') => Ok(Cow::Borrowed(raw)),
        object @ Json::Object(_) => Ok(object.into_raw()),
        other => string(other, at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Reasoning;

    fn request(messages: &'static str) -> Request<'static> {
        let body = format!(r#"{{"model":"m","messages":{messages}}}"#).leak();
        super::super::read_request(body.as_bytes(), &mut Losses::default()).unwrap()
    }

    fn error(messages: &str) -> String {
        let body = format!(r#"{{"model":"m","messages":{messages}}}"#);
        super::super::read_request(body.as_bytes(), &mut Losses::default()).unwrap_err().to_string()
    }

    fn text(text: &'static str) -> Part<'static> {
        Part::Text(Text::plain(text))
    }

    fn call(id: &'static str, kind: ToolKind, arguments: &'static str) -> Part<'static> {
        Part::ToolCall(ToolCall { id: id.into(), ..bare_call("f".into(), kind, arguments.into()) })
    }

    #[test]
    fn leading_instructions_are_system_and_later_ones_stay_in_place() {
        let request = request(
            r#"[{"role":"system","content":"a"},{"role":"developer","content":[{"type":"text","text":"b"},{"type":"text","text":"c"}]},
            {"role":"user","content":"q"},{"role":"system","content":"d"}]"#,
        );
        let system: Vec<_> = request.system.iter().map(|line| (line.text.as_ref(), line.developer)).collect();
        assert_eq!(system, [("a", false), ("b", true), ("c", true)]);
        assert_eq!(request.turns[1], Turn::new(Role::System, vec![text("d")]));
    }

    #[test]
    fn an_assistant_turn_thinks_then_speaks_then_calls() {
        let request = request(
            r#"[{"role":"user","content":"q"},{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"a\": 1.0}"}},
            {"id":"2","type":"custom","custom":{"name":"f","input":"raw"}}],"content":"t","refusal":"no","reasoning_content":"hm"}]"#,
        );
        let thought = Reasoning { text: vec!["hm".into()], ..Reasoning::default() };
        assert_eq!(
            request.turns[1].parts,
            [
                Part::Reasoning(thought),
                text("t"),
                Part::Refusal("no".into()),
                call("1", ToolKind::Function, r#"{"a": 1.0}"#),
                call("2", ToolKind::Custom, "raw"),
            ]
        );
    }

    #[test]
    fn arguments_may_be_an_object_and_keep_their_text() {
        let request = request(
            r#"[{"role":"assistant","content":null,"tool_calls":[{"id":"1","function":{"name":"f","arguments":{"z": 1.50,"a":2}}},{"id":"2","function":{"name":"f","arguments":null}}]}]"#,
        );
        let expected =
            [call("1", ToolKind::Function, r#"{"z": 1.50,"a":2}"#), call("2", ToolKind::Function, "")];
        assert_eq!(request.turns[0].parts, expected);
    }

    #[test]
    fn results_of_tools_and_of_legacy_functions() {
        let request = request(
            r#"[{"role":"assistant","function_call":{"name":"f","arguments":"{}"}},{"role":"function","name":"f","content":"r"},
            {"role":"tool","tool_call_id":"x","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"https://x"}}]},
            {"role":"tool","content":null}]"#,
        );
        let results: Vec<_> = request.turns[1..]
            .iter()
            .map(|turn| match &turn.parts[..] {
                [Part::ToolResult(result)] => {
                    (result.call_id.as_ref(), result.name.as_deref(), result.parts.len())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(results, [("", Some("f"), 1), ("x", None, 2), ("", None, 0)]);
    }

    #[test]
    fn p19_reasoning_details_carry_signatures() {
        let request = request(
            r#"[{"role":"assistant","content":"t","reasoning":"ab","reasoning_details":[
            {"type":"reasoning.text","text":"ab","signature":"zz","format":"anthropic-claude-v1"},
            {"type":"reasoning.encrypted","data":"blob","format":"anthropic-claude-v1"},
            {"type":"reasoning.summary","summary":"s"}]}]"#,
        );
        let [Part::Reasoning(first), Part::Reasoning(second), Part::Reasoning(third), Part::Text(_)] =
            &request.turns[0].parts[..]
        else {
            panic!("{:?}", request.turns)
        };
        assert_eq!(first.text, ["ab"]);
        assert_eq!(first.signature.as_ref().unwrap().value, "zz");
        assert_eq!(second.redacted.as_deref(), Some("blob"));
        assert_eq!(third.text, ["s"]);
    }

    #[test]
    fn pictures_of_earlier_answers_are_kept() {
        let request = request(
            r#"[{"role":"assistant","content":"t","images":[{"type":"image_url","index":0,"image_url":{"url":"data:image/png;base64,iVBO"}}]}]"#,
        );
        assert!(matches!(&request.turns[0].parts[..], [Part::Text(_), Part::Image(_)]));
    }

    #[test]
    fn unknown_members_are_recorded_with_their_place() {
        let mut losses = Losses::default();
        let body = br#"{"messages":[{"role":"user","content":"a","mood":1},{"role":"assistant","content":"b","audio":{"id":"x"}}]}"#;
        super::super::read_request(body, &mut losses).unwrap();
        assert_eq!(losses.to_string(), "unknown-member messages[0].mood, file-id messages[1].audio");
    }

    #[test]
    fn p31_mistakes_name_the_place() {
        for (messages, says) in [
            ("[7]", "messages[0]: expected an object, got a number"),
            (r#"[{"content":"a"}]"#, "messages[0].role: required"),
            (r#"[{"role":"robot","content":"a"}]"#, "messages[0].role: unknown role \"robot\""),
            (r#"[{"role":7}]"#, "messages[0].role: expected a string, got a number"),
            (
                r#"[{"role":"user","content":"a"},{"role":"user","content":[{"type":"text","text":7}]}]"#,
                "messages[1].content[0].text: expected a string, got a number",
            ),
            (
                r#"[{"role":"assistant","tool_calls":[{"id":"1","function":{"arguments":"{}"}}]}]"#,
                "messages[0].tool_calls[0].function.name: required",
            ),
            (
                r#"[{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"f","arguments":[]}}]}]"#,
                "messages[0].tool_calls[0].function.arguments: expected a string, got an array",
            ),
            (
                r#"[{"role":"assistant","tool_calls":[{"id":"1"}]}]"#,
                "messages[0].tool_calls[0].function: required",
            ),
            (
                r#"[{"role":"system","content":[{"type":"image_url","image_url":{"url":"https://x"}}]}]"#,
                "messages[0].content: a system or developer message holds text only",
            ),
        ] {
            let error = error(messages);
            assert!(error.starts_with(says), "{messages}: {error}");
        }
    }
}
