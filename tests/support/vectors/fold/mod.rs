//! A client's stream folded into one document, and the rules every stream obeys.
//!
//! Enters: the events of a stream. Leaves: the document below and the broken rules. Nothing may go wrong: what
//! does not fit breaks a rule.
//!
//! | member | value |
//! |---|---|
//! | `text`, `reasoning`, `refusal` | joined deltas: of choice 0 (Chat), of the first candidate (Gemini) |
//! | `tool_calls` | `{id, name, arguments, args}` each: the joined text, and its value or null |
//! | `finish` | in the format's words; Responses: `completed`, `incomplete:<reason>`, `failed` |
//! | `usage` | the format's object; Claude: `message_delta` over `message_start` |
//! | `errors` | the format's error objects |
//! | `events` | the type of each event; Chat and Gemini: `chunk`, also `[DONE]` |
//! | `signatures` | Claude signatures, Gemini `thoughtSignature`, Responses `encrypted_content` |
//! | `done` | how many `[DONE]` |
//! | `raw` | the data of each event |
//! | `final` | the whole answer in the format's shape, as far as the events tell it |
//! | `choices`, `blocks`, `items`, `candidates` | what `final` holds, of Chat, Claude, Responses, Gemini |

mod chat;
mod claude;
mod completions;
mod gemini;
mod images;
mod responses;

pub(super) use chat::FINISH as CHAT_FINISH;
pub(super) use claude::STOP as CLAUDE_STOP;
pub(super) use completions::FINISH as COMPLETIONS_FINISH;
pub(super) use gemini::FINISH as GEMINI_FINISH;

use super::rules::Rules;
use super::sse::Event;
use super::value::head;
use serde_json::{Map, Value, json};

/// Folds a stream in the client format `format`; `None` when no client speaks it.
pub(super) fn fold(format: &str, events: &[Event]) -> Option<(Value, Vec<String>)> {
    let folded = match format {
        "openai" => chat::fold(events),
        "openai-completions" => completions::fold(events),
        "openai-images" => images::fold(events),
        "openai-response" => responses::fold(events),
        "claude" => claude::fold(events),
        "gemini" | "gemini-cli" => gemini::fold(events),
        _ => return None,
    };
    Some(folded.into_document())
}

/// The document as it grows.
#[derive(Debug, Default)]
struct Folded {
    text: String,
    reasoning: String,
    refusal: String,
    tool_calls: Vec<Value>,
    finish: Value,
    usage: Value,
    errors: Vec<Value>,
    events: Vec<Value>,
    signatures: Vec<Value>,
    done: u64,
    raw: Vec<Value>,
    last: Map<String, Value>,
    /// The member that only this format has.
    extra: Option<(&'static str, Value)>,
    rules: Rules,
}

/// The data of an event.
enum Data {
    /// `[DONE]`.
    Done,
    /// An object.
    Object(Value),
    /// Something else; the rule is broken already.
    Other,
}

impl Folded {
    /// Reads the data of an event; data that is no object breaks `rule`.
    fn read(&mut self, event: &Event, rule: &str) -> Data {
        if event.data.trim() == "[DONE]" {
            self.done += 1;
            return Data::Done;
        }
        let Ok(value) = serde_json::from_str::<Value>(&event.data) else {
            self.rules.add("sse.json", format_args!("data line is not JSON: {}", head(&event.data, 80)));
            return Data::Other;
        };
        self.raw.push(value.clone());
        if value.is_object() {
            return Data::Object(value);
        }
        self.rules.add(rule, "data is not an object");
        Data::Other
    }

    /// Notes a call.
    fn call(&mut self, id: &Value, name: &Value, arguments: &Value, args: &Value) {
        self.tool_calls.push(json!({"id": id, "name": name, "arguments": arguments, "args": args}));
    }

    fn into_document(self) -> (Value, Vec<String>) {
        let mut document = json!({
            "text": self.text, "reasoning": self.reasoning, "refusal": self.refusal,
            "tool_calls": self.tool_calls, "finish": self.finish, "usage": self.usage, "errors": self.errors,
            "events": self.events, "signatures": self.signatures, "done": self.done, "raw": self.raw,
            "final": self.last,
        });
        if let (Some(members), Some((key, value))) = (document.as_object_mut(), self.extra) {
            members.insert(key.to_owned(), value);
        }
        (document, self.rules.into_broken())
    }
}

/// Whether the `event:` field, where there is one, says what the data says.
fn name_matches(event: &Event, kind: &Value) -> bool {
    event.name.as_ref().is_none_or(|name| kind == name)
}

/// Appends a piece to a text member, which it creates. Either one that is no text breaks `rule`.
fn append(members: &mut Map<String, Value>, key: &str, piece: Option<&Value>, rule: &str, rules: &mut Rules) {
    let legal = piece.is_none_or(Value::is_string);
    rules.need(legal, rule, format_args!("a piece of {key} is not a string"));
    let piece = piece.map(super::value::text).unwrap_or_default();
    match members.get_mut(key) {
        Some(Value::String(text)) => text.push_str(piece),
        before => {
            let legal = before.is_none_or(|value| value.is_null());
            rules.need(legal, rule, format_args!("{key} is not a string"));
            members.insert(key.to_owned(), Value::from(piece));
        }
    }
}

/// What the tests of the folds share: streams as arrays of events.
#[cfg(test)]
mod testing {
    use super::*;

    /// One event per element: strings are sent as they are, objects as JSON; `named` adds their `type`.
    pub(super) fn stream(events: &Value, named: bool) -> Vec<Event> {
        let event = |event: &Value| Event {
            name: event["type"].as_str().filter(|_| named).map(str::to_owned),
            data: event.as_str().map_or_else(|| event.to_string(), str::to_owned),
        };
        events.as_array().unwrap().iter().map(event).collect()
    }

    /// What broke in a changed stream.
    pub(super) fn broken(format: &str, events: &Value) -> Vec<String> {
        fold(format, &stream(events, matches!(format, "claude" | "openai-response"))).unwrap().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::rules::testing::every_rule_breaks;

    #[test]
    fn every_rule_of_this_file_breaks() {
        let garbage = json!(["{\"a\":", "[DONE]"]);
        every_rule_breaks(include_str!("mod.rs"), &[("sse.json", testing::broken("openai", &garbage))]);
    }

    #[test]
    fn formats_no_client_speaks_are_not_folded() {
        assert!(fold("codex", &[]).is_none());
    }
}
