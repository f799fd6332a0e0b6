//! The items of a body of the same format, changed on their bytes.
//!
//! Enters: the array of `input`, or its string. Leaves: edits. May go wrong: nothing; what is taken out is
//! recorded.
//!
//! | edit | upstreams |
//! |---|---|
//! | reasoning that another vendor signed is taken out | all; Codex: everything that is not OpenAI's |
//! | item ids without the prefix of their kind are taken out, long `call_id`s cut | all |
//! | a string becomes one message; `system` becomes `developer`; references and ids of reasoning go | Codex |
//! | an output without its call becomes a message, a call without its output gets one | Codex |
//!
//! The last row holds only where nothing is stored: at OpenAI the other half may be in an earlier response.

use super::ids::is_own;
use super::patch_request::Edits;
use super::{REDACTED, codex};
use crate::ir::{LossKind, Str};
use crate::json::{self, Path};
use crate::names::NameRule;
use crate::patch::{elements, members};
use crate::signature::{Vendor, detect};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// What the model is told of a call that nobody answered.
const INTERRUPTED: &str = "The tool call was interrupted and has no result.";

/// The members of an item that decide what happens to it.
#[derive(Debug, Default)]
struct Item<'a> {
    kind: Str<'a>,
    id: Str<'a>,
    sealed: Str<'a>,
    role: Option<Range<usize>>,
    call: Option<Range<usize>>,
    output: Option<Range<usize>>,
}

/// A call of the conversation.
#[derive(Debug)]
struct Call {
    index: usize,
    /// One past its last byte.
    end: usize,
    /// Type of its output.
    output: &'static str,
    answered: bool,
}

/// Calls by `call_id`.
type Calls<'a> = BTreeMap<Str<'a>, Call>;

impl<'a> Edits<'a, '_> {
    /// The items.
    pub(super) fn input(&mut self) {
        let Some(member) = self.top("input") else { return };
        if self.codex && self.raw(&member.value).starts_with(b"\"") {
            let before = br#"[{"type":"message","role":"user","content":[{"type":"input_text","text":"#;
            let item = [before, self.raw(&member.value), b"}]}]"].concat();
            return self.patch.replace(member.value, item);
        }
        let items = elements(self.body, member.value.start);
        let root = Path::Root;
        let path = root.key("input");
        let mut calls = Calls::new();
        let mut gone = Vec::with_capacity(items.len());
        for (n, span) in items.iter().enumerate() {
            let item = self.read(span.start);
            if self.codex {
                self.pair(&item, span, &mut calls, &path.index(n));
            }
            gone.push(self.item(item, span.start, &path.index(n)));
        }
        self.patch.remove_elements(&items, &gone);
        for (id, call) in calls.into_iter().filter(|(_, call)| !call.answered) {
            self.losses.at(LossKind::ToolPairing, &path.index(call.index));
            let kind = call.output;
            let id = json::string(&NameRule::OPENAI.id(id));
            let output = json::string(INTERRUPTED);
            let item = format!(r#",{{"type":"{kind}","call_id":{id},"output":{output}}}"#);
            self.patch.replace(call.end..call.end, item);
        }
    }

    fn read(&self, at: usize) -> Item<'a> {
        let mut item = Item::default();
        for member in members(self.body, at) {
            match member.key {
                b"role" => item.role = Some(member.value),
                b"id" => item.id = self.text(&member.value).unwrap_or_default(),
                b"type" => item.kind = self.text(&member.value).unwrap_or_default(),
                b"encrypted_content" => item.sealed = self.text(&member.value).unwrap_or_default(),
                b"call_id" => item.call = Some(member.value),
                b"output" => item.output = Some(member.value),
                _ => {}
            }
        }
        if item.kind.is_empty() {
            // Messages and references may come without a type.
            let message = item.role.is_some() || item.id.is_empty();
            item.kind = Cow::Borrowed(if message { "message" } else { "item_reference" });
        }
        item
    }

    /// Notes a call; turns an output whose call is not there into a message of the user.
    fn pair(&mut self, item: &Item<'a>, span: &Range<usize>, calls: &mut Calls<'a>, path: &Path<'_>) {
        let output = match item.kind.as_ref() {
            "function_call" | "function_call_output" => "function_call_output",
            "custom_tool_call" | "custom_tool_call_output" => "custom_tool_call_output",
            _ => return,
        };
        let id = item.call.as_ref().and_then(|call| self.text(call)).unwrap_or_default();
        if item.kind != output {
            let Path::Index(_, index) = *path else { return };
            calls.insert(id, Call { index, end: span.end, output, answered: false });
            return;
        }
        if let Some(call) = calls.get_mut(&id) {
            call.answered = true;
            return;
        }
        self.losses.at(LossKind::ToolPairing, path);
        let said = item.output.as_ref().map_or(b"\"\"".as_slice(), |output| self.raw(output));
        let content = match said.first() {
            Some(b'[') => said.to_vec(),
            Some(b'"') => [br#"[{"type":"input_text","text":"#, said, b"}]"].concat(),
            _ => {
                let text = json::string(&String::from_utf8_lossy(said));
                format!(r#"[{{"type":"input_text","text":{text}}}]"#).into_bytes()
            }
        };
        let before = br#"{"type":"message","role":"user","content":"#.as_slice();
        self.patch.replace(span.clone(), [before, &content, b"}"].concat());
    }

    /// Edits one item; whether it has to go.
    fn item(&mut self, item: Item<'a>, at: usize, path: &Path<'_>) -> bool {
        let Item { role, id, kind, sealed, call, .. } = item;
        if kind == "item_reference" && self.codex {
            self.losses.at(LossKind::Content, path);
            return true;
        }
        if kind == "reasoning" && self.is_foreign(&sealed, &id) {
            self.losses.at(LossKind::Signature, path);
            return true;
        }
        if let Some(role) = role.filter(|role| self.codex && self.raw(role) == b"\"system\"") {
            self.patch.replace(role, json::string("developer"));
        }
        let wrong = codex::id_prefix(&kind).is_some_and(|prefix| !id.starts_with(prefix));
        if !id.is_empty() && (wrong || (self.codex && kind == "reasoning")) {
            self.patch.remove(at, "id");
        }
        if let Some(call) = call
            && let Some(id) = self.text(&call).filter(|id| id.len() > NameRule::OPENAI.id_max)
        {
            self.patch.replace(call, json::string(&NameRule::OPENAI.id(id)));
        }
        false
    }

    /// Whether reasoning means nothing to the upstream: OpenAI refuses what it did not seal itself, and what
    /// it is only pointed at when it did not store it.
    fn is_foreign(&self, sealed: &str, id: &str) -> bool {
        if self.codex {
            return !sealed.starts_with("gAAAA");
        }
        if sealed.is_empty() {
            return is_own(id);
        }
        // Other servers of this format seal in ways nobody here knows.
        let known = matches!(detect(sealed), Vendor::Claude | Vendor::ClaudeVertex | Vendor::Gemini);
        known || sealed.starts_with(REDACTED)
    }
}
