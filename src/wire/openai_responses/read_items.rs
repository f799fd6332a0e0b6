//! Items of `input` → instructions and turns.
//!
//! Enters: items as the client wrote them. Leaves: turns: what the model said in a row is one turn, outputs
//! in a row are one turn, each message of the user is its own. May go wrong: an item without type, a message
//! without role or content, a call without name; the error names the path.
//!
//! | item | becomes |
//! |---|---|
//! | message, also without `type` | text and attachments of its role; `system` and `developer` before the first turn are instructions |
//! | `function_call`, `custom_tool_call` | a call |
//! | `…_call_output` of these | a result |
//! | `reasoning` | reasoning, whoever signed it |
//! | `additional_tools` | tools |
//! | `item_reference` | nothing when the item is there, else it is lost: only OpenAI has it |
//! | anything else (built-in tools, `compaction`, …) | [`Part::Server`], as sent |

use super::read_content::{output_parts, parts};
use super::read_members::{need_string, object, opt, opt_string};
use super::read_tools;
use super::{REDACTED, read_members};
use crate::Protocol;
use crate::error::WireError;
use crate::ir::{
    Instruction, LossKind, Losses, Part, RawJson, Reasoning, Role, ServerItem, Str, Text, Tool, ToolCall,
    ToolKind, ToolResult, Turn,
};
use crate::json::{Json, Map, Path};
use crate::signature::{Signature, Vendor};
use std::collections::HashSet;

/// What the items so far make.
#[derive(Debug, Default)]
pub(super) struct Conversation<'a> {
    pub(super) system: Vec<Instruction<'a>>,
    pub(super) turns: Vec<Turn<'a>>,
    /// The last turn is one of outputs and takes more of them.
    outputs: bool,
    /// Ids of the items, for references.
    ids: HashSet<Str<'a>>,
}

impl<'a> Conversation<'a> {
    /// A message of the user that is only text.
    pub(super) fn user_text(&mut self, text: Str<'a>) {
        self.turn(Role::User, vec![Part::Text(Text::plain(text))]);
    }

    /// The next item.
    pub(super) fn item(
        &mut self,
        raw: &'a str,
        path: &Path<'_>,
        tools: &mut Vec<Tool<'a>>,
        losses: &mut Losses,
    ) -> Result<(), WireError> {
        let mut map = object(Json::Raw(raw), path, &["tools"])?;
        let id = opt_string(&mut map, "id", path)?;
        let kind = opt_string(&mut map, "type", path)?;
        let kind = match kind {
            Some(kind) => kind,
            None if map.has("role") => "message".into(),
            None if id.is_some() && map.is_empty() => "item_reference".into(),
            None => return Err(WireError::invalid(&path.key("type"), "required: a string")),
        };
        match kind.as_ref() {
            "message" => self.message(&mut map, path)?,
            "function_call" => self.call(&mut map, ToolKind::Function, path)?,
            "custom_tool_call" => self.call(&mut map, ToolKind::Custom, path)?,
            "function_call_output" => self.output(&mut map, ToolKind::Function, path)?,
            "custom_tool_call_output" => self.output(&mut map, ToolKind::Custom, path)?,
            "reasoning" => self.reasoning(&mut map, id.clone(), path)?,
            "additional_tools" => {
                if let Some(more) = opt(&mut map, "tools") {
                    read_tools::tools(&more, &path.key("tools"), tools, losses)?;
                }
            }
            "item_reference" => {
                if !id.as_ref().is_some_and(|id| self.ids.contains(id)) {
                    losses.at(LossKind::Content, path);
                }
                return Ok(());
            }
            _ => self.server(kind, raw),
        }
        self.ids.extend(id);
        Ok(())
    }

    fn turn(&mut self, role: Role, parts: Vec<Part<'a>>) {
        self.outputs = false;
        self.turns.push(Turn::new(role, parts));
    }

    /// What the model said: joins its turn.
    fn assistant(&mut self, parts: Vec<Part<'a>>) {
        match self.turns.last_mut() {
            Some(turn) if turn.role == Role::Assistant => turn.parts.extend(parts),
            _ => self.turn(Role::Assistant, parts),
        }
    }

    /// What a tool said: joins the outputs before it.
    fn answer(&mut self, part: Part<'a>) {
        match self.turns.last_mut().filter(|_| self.outputs) {
            Some(turn) => turn.parts.push(part),
            None => self.turn(Role::User, vec![part]),
        }
        self.outputs = true;
    }

    fn message(&mut self, map: &mut Map<'a>, path: &Path<'_>) -> Result<(), WireError> {
        let role = need_string(map, "role", path)?;
        let at = path.key("content");
        let content = match opt(map, "content") {
            Some(content) => parts(content, &at)?,
            None if role == "assistant" => Vec::new(),
            None => return Err(WireError::invalid(&at, "required: a string or an array of parts")),
        };
        match role.as_ref() {
            "user" => self.turn(Role::User, content),
            "assistant" => self.assistant(content),
            "system" => self.instruction(Role::System, content),
            "developer" => self.instruction(Role::Developer, content),
            _ => {
                let problem = "expected `user`, `assistant`, `system` or `developer`";
                return Err(WireError::invalid(&path.key("role"), problem));
            }
        }
        Ok(())
    }

    /// Text before the first turn is instructions; what is not text cannot be, and stays a turn.
    fn instruction(&mut self, role: Role, parts: Vec<Part<'a>>) {
        let plain = parts.iter().all(|part| matches!(part, Part::Text(_)));
        if !plain || !self.turns.is_empty() {
            return self.turn(role, parts);
        }
        for part in parts {
            if let Part::Text(Text { text, .. }) = part
                && !text.trim().is_empty()
            {
                self.system.push(Instruction { text, developer: role == Role::Developer, cache: None });
            }
        }
    }

    fn call(&mut self, map: &mut Map<'a>, kind: ToolKind, path: &Path<'_>) -> Result<(), WireError> {
        let member = if kind == ToolKind::Custom { "input" } else { "arguments" };
        let arguments = match opt(map, member) {
            None => Str::default(),
            // Some clients write the object where its text belongs.
            Some(value @ Json::Object(_)) => value.into_raw(),
            Some(value) => read_members::string(value, &path.key(member))?,
        };
        let call = ToolCall {
            id: opt_string(map, "call_id", path)?.unwrap_or_default(),
            name: need_string(map, "name", path)?,
            namespace: opt_string(map, "namespace", path)?.filter(|name| !name.is_empty()),
            kind,
            arguments,
            signature: None,
            cache: None,
        };
        self.assistant(vec![Part::ToolCall(call)]);
        Ok(())
    }

    fn output(&mut self, map: &mut Map<'a>, kind: ToolKind, path: &Path<'_>) -> Result<(), WireError> {
        let parts = match opt(map, "output") {
            None => Vec::new(),
            Some(content @ (Json::Str(_) | Json::Array(_))) => output_parts(content, &path.key("output"))?,
            // Older Codex clients send an object.
            Some(value) => vec![Part::Text(Text::plain(value.into_raw()))],
        };
        let result = ToolResult {
            call_id: opt_string(map, "call_id", path)?.unwrap_or_default(),
            name: opt_string(map, "name", path)?,
            parts,
            is_error: false,
            kind,
            cache: None,
        };
        self.answer(Part::ToolResult(result));
        Ok(())
    }

    fn reasoning(
        &mut self,
        map: &mut Map<'a>,
        id: Option<Str<'a>>,
        path: &Path<'_>,
    ) -> Result<(), WireError> {
        let mut text = summary(map, "summary", path)?;
        if text.is_empty() {
            text = summary(map, "content", path)?;
        }
        let sealed = opt_string(map, "encrypted_content", path)?.unwrap_or_default();
        let redacted = sealed.strip_prefix(REDACTED).map(|data| Str::Owned(data.to_owned()));
        let signature = if redacted.is_some() { None } else { Signature::detect(sealed) };
        let reasoning = Reasoning { text, signature, redacted, id };
        if !self.sign_call(&reasoning) {
            self.assistant(vec![Part::Reasoning(reasoning)]);
        }
        Ok(())
    }

    /// Gemini signs calls, this format only reasoning: the answer's writer has put the signature of a call on
    /// an item without text behind it. Whether the call has it back.
    fn sign_call(&mut self, item: &Reasoning<'a>) -> bool {
        let bare = item.text.is_empty() && item.redacted.is_none();
        let signature = item.signature.as_ref().filter(|s| bare && s.vendor == Vendor::Gemini);
        let turn = self.turns.last_mut().filter(|turn| turn.role == Role::Assistant);
        match (turn.and_then(|turn| turn.parts.last_mut()), signature) {
            (Some(Part::ToolCall(call)), Some(signature)) if call.signature.is_none() => {
                call.signature = Some(signature.clone());
                true
            }
            _ => false,
        }
    }

    fn server(&mut self, kind: Str<'a>, raw: &'a str) {
        let answers = kind.ends_with("_output") || kind.ends_with("_response");
        let part = Part::Server(ServerItem {
            vendor: Protocol::OpenaiResponses,
            kind,
            raw: RawJson(Str::Borrowed(raw)),
        });
        if answers { self.answer(part) } else { self.assistant(vec![part]) }
    }
}

/// Texts of a reasoning item's `summary` or `content`.
fn summary<'a>(map: &mut Map<'a>, key: &str, path: &Path<'_>) -> Result<Vec<Str<'a>>, WireError> {
    let path = path.key(key);
    let Some(value) = opt(map, key) else { return Ok(Vec::new()) };
    let Json::Array(parts) = value else { return Err(WireError::expected(&path, "an array", &value)) };
    let mut texts = Vec::with_capacity(parts.len());
    for (n, part) in parts.into_iter().enumerate() {
        let path = path.index(n);
        let mut part = object(part, &path, &[])?;
        texts.extend(opt_string(&mut part, "text", &path)?.filter(|text| !text.is_empty()));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::super::read_request;
    use super::*;
    use crate::ir::Request;
    use crate::signature::Vendor;

    fn read(items: &str) -> (Request<'static>, String) {
        let body: &'static str = Box::leak(format!(r#"{{"input":[{items}]}}"#).into_boxed_str());
        let mut losses = Losses::default();
        (read_request(body.as_bytes(), &mut losses).unwrap(), losses.to_string())
    }

    /// One letter per turn, one word per part.
    fn shape(request: &Request<'_>) -> String {
        let mut out = Vec::new();
        for turn in &request.turns {
            out.push(format!("{:?}", turn.role).chars().take(1).collect());
            out.extend(turn.parts.iter().map(|part| match part {
                Part::Text(text) => text.text.to_string(),
                Part::Refusal(text) => format!("refusal:{text}"),
                Part::ToolCall(call) => format!("{}({})", call.name, call.arguments),
                Part::ToolResult(result) => format!("{}={}", result.call_id, result.text()),
                Part::Reasoning(reasoning) => format!("thinks:{}", reasoning.text.join("|")),
                Part::Server(item) => format!("server:{}", item.kind),
                _ => "?".to_owned(),
            }));
        }
        out.join(" ")
    }

    #[test]
    fn what_the_model_said_is_one_turn_and_its_outputs_are_the_next() {
        let (request, losses) = read(
            r#"{"role":"developer","content":"Be terse."},{"type":"message","role":"system","content":[{"type":"input_text","text":" "}]},
            {"role":"user","content":"q"},
            {"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"a"},{"type":"summary_text","text":"b"}],"encrypted_content":"x"},
            {"type":"message","id":"msg_1","status":"completed","phase":"commentary","role":"assistant","content":[{"type":"output_text","text":"Looking.","annotations":[]},{"type":"refusal","refusal":"no"}]},
            {"type":"function_call","call_id":"c1","name":"f","arguments":{"a": 1}},
            {"type":"custom_tool_call","call_id":"c2","name":"g","input":"raw","namespace":"ns"},
            {"type":"custom_tool_call_output","call_id":"c2","output":[{"type":"input_text","text":"1"},{"type":"input_text","text":"2"}]},
            {"type":"function_call_output","call_id":"c1","output":{"ok":true}},
            {"role":"user","content":"more"},{"role":"user","content":"still"},
            {"role":"developer","content":"mid"}"#,
        );
        assert_eq!(
            shape(&request),
            "U q A thinks:a|b Looking. refusal:no f({\"a\":1}) g(raw) U c2=1\n2 c1={\"ok\":true} U more U still D mid"
        );
        assert_eq!(request.system.len(), 1);
        assert!(request.system[0].developer);
        assert!(losses.is_empty(), "{losses}");
        let Part::ToolCall(call) = &request.turns[1].parts[4] else { panic!() };
        assert_eq!((call.kind, call.namespace.as_deref()), (ToolKind::Custom, Some("ns")));
    }

    #[test]
    fn built_ins_are_kept_as_they_were_and_references_are_resolved_or_lost() {
        let (request, losses) = read(
            r#"{"type":"web_search_call","id":"ws_1", "action":{"n":1.0}},{"type":"local_shell_call_output","id":"x","output":"o"},
            {"type":"compaction","encrypted_content":"s"},{"id":"ws_1"},{"type":"item_reference","id":"msg_9"},{"type":"brand_new","x":1}"#,
        );
        assert_eq!(
            shape(&request),
            "A server:web_search_call U server:local_shell_call_output A server:compaction server:brand_new"
        );
        let Part::Server(item) = &request.turns[0].parts[0] else { panic!() };
        assert_eq!(item.raw.as_str(), r#"{"type":"web_search_call","id":"ws_1", "action":{"n":1.0}}"#);
        assert_eq!(losses, "content input[4]");
    }

    #[test]
    fn signatures_keep_their_makers() {
        let (request, _) = read(
            r#"{"type":"reasoning","summary":[],"encrypted_content":"EgQKAggKAAAAAAAAAAAAAAAAAAAAAAAA"},
            {"type":"reasoning","summary":[],"encrypted_content":"claude-redacted-thinking:data"},
            {"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"raw"}]}"#,
        );
        let found: Vec<_> = request.turns[0]
            .parts
            .iter()
            .map(|part| match part {
                Part::Reasoning(r) => {
                    (r.signature.as_ref().map(|s| s.vendor), r.redacted.as_deref(), r.text.len())
                }
                _ => panic!(),
            })
            .collect();
        assert_eq!(found, [(Some(Vendor::Claude), None, 0), (None, Some("data"), 0), (None, None, 1)]);
    }

    #[test]
    fn the_signature_of_a_call_comes_back_to_it() {
        use crate::ir::{Block, ToolKind};
        let value = "EgUKAwEMOQ==".to_owned();
        let call = |id: &str, signature| Block::Tool {
            id: id.into(),
            name: "f".into(),
            namespace: None,
            kind: ToolKind::Function,
            arguments: "{}".into(),
            signature,
        };
        let blocks = [call("c1", Signature::of(Vendor::Gemini, value.clone())), call("c2", None)];
        let mut items = Vec::new();
        for item in super::super::write_output::items(&blocks, "5eed") {
            if !items.is_empty() {
                items.push(b',');
            }
            item.write(&mut items);
        }
        let (request, _) = read(&String::from_utf8(items).unwrap());
        let [Part::ToolCall(first), Part::ToolCall(second)] = &request.turns[0].parts[..] else {
            panic!("{:?}", request.turns)
        };
        assert_eq!(first.signature.as_ref().map(|s| s.value.as_ref()), Some(value.as_str()));
        assert_eq!(second.signature, None);
    }

    #[test]
    fn additional_tools_come_behind_the_others() {
        let body = r#"{"tools":[{"type":"custom","name":"a"}],"input":[{"type":"additional_tools","role":"developer","tools":[{"type":"function","name":"b","parameters":{}}]},{"role":"user","content":"x"}]}"#;
        let request = read_request(body.as_bytes(), &mut Losses::default()).unwrap();
        let names: Vec<_> = request.tools.iter().filter_map(Tool::name).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
