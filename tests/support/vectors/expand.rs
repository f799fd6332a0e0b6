//! A whole Responses answer as the event stream of an upstream that only streams.
//!
//! Enters: a Responses object. Leaves: the events that the Codex backend would send for it. Nothing may go
//! wrong: members that are missing are null in the events.

use super::value::{elements, text};
use serde_json::{Map, Value, json};

/// The events, in order.
pub(super) fn response_events(response: &Value) -> Vec<Value> {
    let mut events = Events(Vec::new());
    let mut head = members(response);
    head.insert("status".to_owned(), json!("in_progress"));
    head.insert("output".to_owned(), json!([]));
    head.shift_remove("usage");
    head.shift_remove("incomplete_details");
    events.add("response.created", &json!({"response": head}));
    events.add("response.in_progress", &json!({"response": head}));
    for (at, item) in elements(&response["output"]).iter().enumerate() {
        events.item(at, item);
    }
    let status = response["status"].as_str().unwrap_or("completed");
    events.add(&format!("response.{status}"), &json!({"response": response}));
    events.0
}

/// The events of a stream-only Responses upstream that answers with `response`, as SSE, each with its `type` as
/// `event:` field.
pub fn response_sse(response: &Value) -> Vec<u8> {
    let event = |event: &Value| format!("event: {}\ndata: {event}\n\n", text(&event["type"]));
    response_events(response).iter().map(event).collect::<String>().into_bytes()
}

struct Events(Vec<Value>);

impl Events {
    fn add(&mut self, kind: &str, more: &Value) {
        let mut event = Map::new();
        event.insert("type".to_owned(), json!(kind));
        event.insert("sequence_number".to_owned(), json!(self.0.len()));
        event.extend(members(more));
        self.0.push(Value::Object(event));
    }

    fn item(&mut self, at: usize, item: &Value) {
        let mut added = members(item);
        added.insert("status".to_owned(), json!("in_progress"));
        let kind = text(&item["type"]);
        match kind {
            "message" => drop(added.insert("content".to_owned(), json!([]))),
            "reasoning" => {
                added.insert("summary".to_owned(), json!([]));
                added.shift_remove("status");
            }
            "function_call" => drop(added.insert("arguments".to_owned(), json!(""))),
            "custom_tool_call" => drop(added.insert("input".to_owned(), json!(""))),
            _ => {}
        }
        self.add("response.output_item.added", &json!({"output_index": at, "item": added}));
        let place = json!({"item_id": item["id"], "output_index": at});
        match kind {
            "message" => self.content(&place, &item["content"]),
            "reasoning" => self.summary(&place, &item["summary"]),
            "function_call" => self.call("function_call_arguments", "arguments", &place, &item["arguments"]),
            "custom_tool_call" => self.call("custom_tool_call_input", "input", &place, &item["input"]),
            _ => {}
        }
        self.add("response.output_item.done", &json!({"output_index": at, "item": item}));
    }

    fn content(&mut self, item: &Value, parts: &Value) {
        for (at, part) in elements(parts).iter().enumerate() {
            let place = with(item, json!({"content_index": at}));
            let (kind, key, empty) = match text(&part["type"]) {
                "output_text" => {
                    ("output_text", "text", json!({"type": "output_text", "text": "", "annotations": []}))
                }
                _ => ("refusal", "refusal", json!({"type": "refusal", "refusal": ""})),
            };
            self.add("response.content_part.added", &with(&place, json!({"part": empty})));
            let mut delta = members(&json!({"delta": part[key]}));
            let mut whole = Map::new();
            whole.insert(key.to_owned(), part[key].clone());
            if kind == "output_text" {
                delta.insert("logprobs".to_owned(), json!([]));
                whole.insert("logprobs".to_owned(), json!([]));
            }
            self.add(&format!("response.{kind}.delta"), &with(&place, Value::Object(delta)));
            for (nth, note) in elements(&part["annotations"]).iter().enumerate() {
                let more = json!({"annotation_index": nth, "annotation": note});
                self.add("response.output_text.annotation.added", &with(&place, more));
            }
            self.add(&format!("response.{kind}.done"), &with(&place, Value::Object(whole)));
            self.add("response.content_part.done", &with(&place, json!({"part": part})));
        }
    }

    fn summary(&mut self, item: &Value, parts: &Value) {
        for (at, part) in elements(parts).iter().enumerate() {
            let place = with(item, json!({"summary_index": at}));
            let empty = json!({"part": {"type": "summary_text", "text": ""}});
            self.add("response.reasoning_summary_part.added", &with(&place, empty));
            let delta = json!({"delta": part["text"]});
            self.add("response.reasoning_summary_text.delta", &with(&place, delta));
            let whole = json!({"text": part["text"]});
            self.add("response.reasoning_summary_text.done", &with(&place, whole));
            self.add("response.reasoning_summary_part.done", &with(&place, json!({"part": part})));
        }
    }

    fn call(&mut self, kind: &str, key: &str, item: &Value, whole: &Value) {
        self.add(&format!("response.{kind}.delta"), &with(item, json!({"delta": whole})));
        let mut done = Map::new();
        done.insert(key.to_owned(), whole.clone());
        self.add(&format!("response.{kind}.done"), &with(item, Value::Object(done)));
    }
}

fn members(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn with(place: &Value, more: Value) -> Value {
    let mut whole = members(place);
    if let Value::Object(more) = more {
        whole.extend(more);
    }
    Value::Object(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_added_empty_and_done_whole() {
        let response = json!({"id": "r", "status": "incomplete", "usage": {}, "output": [
            {"id": "fc", "type": "function_call", "arguments": "{}", "status": "completed"}]});
        let events = response_events(&response);
        let kinds: Vec<_> = events.iter().map(|event| text(&event["type"])).collect();
        assert_eq!(
            kinds,
            [
                "response.created",
                "response.in_progress",
                "response.output_item.added",
                "response.function_call_arguments.delta",
                "response.function_call_arguments.done",
                "response.output_item.done",
                "response.incomplete",
            ]
        );
        assert_eq!(events[0]["response"], json!({"id": "r", "status": "in_progress", "output": []}));
        assert_eq!(events[2]["item"]["arguments"], "");
        assert_eq!(events[5]["item"], response["output"][0]);
        assert_eq!(events[6]["sequence_number"], 6);
        assert!(response_sse(&response).starts_with(b"event: response.created\ndata: {\"type\":"));
    }
}
