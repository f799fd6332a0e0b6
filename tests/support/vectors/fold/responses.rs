//! Responses events.

use super::{Data, Folded, name_matches};
use crate::vectors::rules::Rules;
use crate::vectors::sse::Event;
use crate::vectors::value::{arguments, is_set, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const SHAPE: &str = "responses.shape";

/// Events that end a response.
const TERMINAL: [&str; 4] =
    ["response.completed", "response.incomplete", "response.failed", "response.cancelled"];

/// Position of an item, or of a part in it; `None` where the event names none.
type Place = Option<u64>;

pub(super) fn fold(events: &[Event]) -> Folded {
    let mut stream = Stream::default();
    for event in events {
        stream.event(event);
    }
    stream.close()
}

#[derive(Default)]
struct Stream {
    doc: Folded,
    items: BTreeMap<Place, Item>,
    /// How many items were added.
    added: u64,
    parts: BTreeMap<(Place, Place), Part>,
    summaries: BTreeMap<(Place, Place), Part>,
    /// Joined argument deltas of an item.
    arguments: BTreeMap<Place, String>,
    sequence: Option<i64>,
    created: bool,
    terminal: Option<String>,
}

struct Item {
    added: Value,
    done: Option<Value>,
}

/// A content or summary part.
#[derive(Default)]
struct Part {
    text: String,
    closed: bool,
}

impl Stream {
    fn event(&mut self, event: &Event) {
        let data = match self.doc.read(event, SHAPE) {
            Data::Done => return self.doc.events.push(json!("[DONE]")),
            Data::Object(data) => data,
            Data::Other => return,
        };
        let kind = &data["type"];
        self.doc.events.push(kind.clone());
        let rules = &mut self.doc.rules;
        let named = format_args!("event {:?} data.type {kind}", event.name).to_string();
        rules.need(name_matches(event, kind), "responses.event_matches", named);
        if kind == "error" {
            return self.doc.errors.push(data);
        }
        if let Some(terminal) = &self.terminal {
            rules.add("responses.terminal_last", format_args!("{kind} after {terminal}"));
        }
        self.number(&data);
        if kind == "response.created" {
            self.created = true;
            let first = self.doc.events.len() == 1;
            self.doc.rules.need(first, "responses.created_first", "response.created is not first");
            let response = self.doc.rules.object(&data, "response", SHAPE);
            self.doc.last.insert("id".to_owned(), response["id"].clone());
            return;
        }
        if !std::mem::replace(&mut self.created, true) {
            self.doc.rules.add("responses.created_first", format_args!("{kind} before response.created"));
        }
        self.step(text(kind), &data);
    }

    fn number(&mut self, data: &Value) {
        let (kind, number) = (&data["type"], data["sequence_number"].as_i64());
        let rules = &mut self.doc.rules;
        match (self.sequence, number) {
            (_, None) => rules.add("responses.sequence", format_args!("{kind} without sequence_number")),
            (Some(last), Some(next)) if next <= last => {
                rules.add("responses.sequence", format_args!("{next} after {last}"));
            }
            _ => {}
        }
        self.sequence = number.or(self.sequence);
    }

    fn step(&mut self, kind: &str, data: &Value) {
        let legal = !kind.starts_with("response.") || data.get("delta").is_none_or(Value::is_string);
        self.doc.rules.need(legal, SHAPE, "delta is not a string");
        match kind {
            "response.output_item.added" => self.item_added(data),
            "response.output_item.done" => self.item_done(data),
            "response.content_part.added" => self.part_added(data),
            "response.output_text.delta" | "response.refusal.delta" => self.part_delta(kind, data),
            "response.output_text.done" | "response.refusal.done" => {
                let whole = data.get("text").unwrap_or(&data["refusal"]);
                let part = self.parts.get(&content(data));
                let same = part.is_none_or(|part| *whole == part.text);
                self.doc.rules.need(same, "responses.text_match", "done text differs from deltas");
            }
            "response.content_part.done" => {
                close_part(&mut self.parts, content(data), kind, &mut self.doc.rules);
            }
            "response.reasoning_summary_part.added" => {
                self.summaries.insert(summary(data), Part::default());
            }
            "response.reasoning_summary_text.delta" => {
                let open = is_open(&self.summaries, summary(data));
                self.doc.rules.need(
                    open,
                    "responses.delta_open",
                    "summary delta outside an open summary part",
                );
                self.summaries.entry(summary(data)).or_default().text.push_str(text(&data["delta"]));
                self.doc.reasoning.push_str(text(&data["delta"]));
            }
            "response.reasoning_text.delta" => self.doc.reasoning.push_str(text(&data["delta"])),
            "response.reasoning_summary_text.done" => {
                let part = self.summaries.get(&summary(data));
                let same = part.is_none_or(|part| data["text"] == part.text);
                self.doc.rules.need(same, "responses.text_match", "summary done text differs from deltas");
            }
            "response.reasoning_summary_part.done" => {
                close_part(&mut self.summaries, summary(data), kind, &mut self.doc.rules);
            }
            "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta" => {
                let open = self.items.get(&place(data)).is_some_and(|item| item.done.is_none());
                let seen = format_args!("{kind} outside an open item");
                self.doc.rules.need(open, "responses.delta_open", seen);
                self.arguments.entry(place(data)).or_default().push_str(text(&data["delta"]));
            }
            "response.function_call_arguments.done" => {
                let whole = &data["arguments"];
                self.doc.rules.need(whole.is_string(), SHAPE, "arguments is not a string");
                let same = self.arguments.get(&place(data)).is_none_or(|joined| whole == joined);
                self.doc.rules.need(same, "responses.args_match", "arguments.done differs from deltas");
                self.arguments.insert(place(data), text(whole).to_owned());
            }
            terminal if TERMINAL.contains(&terminal) => self.end(kind, data),
            _ => {}
        }
    }

    fn item_added(&mut self, data: &Value) {
        let (at, rules) = (place(data), &mut self.doc.rules);
        let (index, next) = (&data["output_index"], self.added);
        let seen = format_args!("item added at {index}, expected {next}");
        rules.need(at == Some(next), "responses.output_index", seen);
        let new = !self.items.contains_key(&at);
        rules.need(new, "responses.item_once", format_args!("output_index {index} added twice"));
        let item = rules.object(data, "item", SHAPE);
        let typed = is_set(&item["id"]) && is_set(&item["type"]);
        rules.need(typed, "responses.item_shape", "item without id or type");
        self.items.insert(at, Item { added: item.clone(), done: None });
        self.added += 1;
    }

    fn item_done(&mut self, data: &Value) {
        let (at, rules, index) = (place(data), &mut self.doc.rules, &data["output_index"]);
        let item = rules.object(data, "item", SHAPE);
        if let (true, Some(joined)) = (item["type"] == "function_call", self.arguments.get(&at)) {
            let same = item["arguments"] == *joined;
            rules.need(same, "responses.args_match", "done item arguments differ from deltas");
        }
        let Some(known) = self.items.get_mut(&at) else {
            rules.add(
                "responses.item_added",
                format_args!("done for output_index {index} that was never added"),
            );
            self.items.insert(at, Item { added: item.clone(), done: Some(item.clone()) });
            self.added += 1;
            return;
        };
        let once = known.done.is_none();
        rules.need(once, "responses.item_once", format_args!("output_index {index} done twice"));
        let same = known.added["id"] == item["id"] && known.added["type"] == item["type"];
        rules.need(same, "responses.item_id", "id or type differs between added and done");
        known.done = Some(item.clone());
    }

    fn part_added(&mut self, data: &Value) {
        let open = self.items.get(&place(data)).is_some_and(|item| item.done.is_none());
        self.doc.rules.need(open, "responses.part_item", "content part outside an open item");
        self.parts.insert(content(data), Part::default());
    }

    fn part_delta(&mut self, kind: &str, data: &Value) {
        let rules = &mut self.doc.rules;
        let open = is_open(&self.parts, content(data));
        rules.need(open, "responses.delta_open", format_args!("{kind} outside an open content part"));
        let item = self.items.get(&place(data)).map(|item| &item.added["id"]);
        let same = *item.unwrap_or(&Value::Null) == data["item_id"];
        rules.need(same, "responses.item_id", "delta item_id differs from the added item");
        let delta = text(&data["delta"]);
        self.parts.entry(content(data)).or_default().text.push_str(delta);
        let whole = if kind == "response.refusal.delta" { &mut self.doc.refusal } else { &mut self.doc.text };
        whole.push_str(delta);
    }

    fn end(&mut self, kind: &str, data: &Value) {
        self.terminal = Some(kind.to_owned());
        let rules = &mut self.doc.rules;
        let response = rules.object(data, "response", SHAPE);
        let wanted = kind.trim_start_matches("response.");
        let status = &response["status"];
        rules.need(
            status == wanted,
            "responses.status",
            format_args!("terminal {kind} with status {status}"),
        );
        for key in ["id", "created_at", "output"] {
            let there = response.get(key).is_some();
            rules.need(there, "responses.final_shape", format_args!("response.{key} missing"));
        }
        rules.need(response["object"] == "response", "responses.final_shape", "object is not response");
        self.doc.usage = response["usage"].clone();
        self.doc.finish = json!(wanted);
        if wanted == "incomplete" {
            let reason = &rules.object(response, "incomplete_details", SHAPE)["reason"];
            let reason = reason.as_str().map_or_else(|| reason.to_string(), str::to_owned);
            self.doc.finish = json!(format!("incomplete:{reason}"));
        }
        if wanted == "failed" {
            self.doc.errors.push(response["error"].clone());
        }
        self.doc.last = response.as_object().cloned().unwrap_or_default();
    }

    fn close(mut self) -> Folded {
        let ended = self.terminal.is_some() || !self.doc.errors.is_empty();
        self.doc.rules.need(ended, "responses.terminal", "no terminal event");
        if matches!(self.terminal.as_deref(), Some("response.completed" | "response.incomplete")) {
            self.check_complete();
        }
        let mut items: Vec<Value> =
            self.items.into_values().map(|item| item.done.unwrap_or(item.added)).collect();
        if items.is_empty() {
            let last = Value::Object(self.doc.last.clone());
            items = self.doc.rules.objects(&last, "output", SHAPE).into_iter().cloned().collect();
        }
        for item in &items {
            show(item, &mut self.doc);
        }
        self.doc.extra = Some(("items", Value::Array(items)));
        self.doc
    }

    /// What holds of a response that was not cut.
    fn check_complete(&mut self) {
        let rules = &mut self.doc.rules;
        for (at, item) in &self.items {
            rules.need(item.done.is_some(), "responses.item_done", format_args!("item {at:?} never done"));
        }
        for (at, part) in self.parts.iter().chain(&self.summaries) {
            rules.need(part.closed, "responses.part_close", format_args!("part {at:?} never closed"));
        }
        let last = Value::Object(self.doc.last.clone());
        let output = rules.objects(&last, "output", SHAPE);
        let done = self.items.values().filter_map(|item| item.done.as_ref());
        let name = |item: &Value| (item["type"].clone(), item["id"].clone());
        let same = output.into_iter().map(name).eq(done.map(name));
        rules.need(same, "responses.final_output", "response.output differs from the items that were done");
    }
}

fn place(data: &Value) -> Place {
    data["output_index"].as_u64()
}

fn content(data: &Value) -> (Place, Place) {
    (place(data), data["content_index"].as_u64())
}

fn summary(data: &Value) -> (Place, Place) {
    (place(data), data["summary_index"].as_u64())
}

fn is_open(parts: &BTreeMap<(Place, Place), Part>, at: (Place, Place)) -> bool {
    parts.get(&at).is_some_and(|part| !part.closed)
}

fn close_part(parts: &mut BTreeMap<(Place, Place), Part>, at: (Place, Place), kind: &str, rules: &mut Rules) {
    match parts.get_mut(&at) {
        Some(part) if !part.closed => part.closed = true,
        _ => rules.add("responses.part_close", format_args!("{kind} without open part")),
    }
}

/// Adds a finished item to the document.
fn show(item: &Value, doc: &mut Folded) {
    match text(&item["type"]) {
        "function_call" => {
            let named = is_set(&item["call_id"]) && is_set(&item["name"]);
            doc.rules.need(named, "responses.item_shape", "function_call without call_id or name");
            doc.call(&item["call_id"], &item["name"], &item["arguments"], &arguments(&item["arguments"]));
        }
        "custom_tool_call" => doc.tool_calls.push(json!({
            "id": item["call_id"], "name": item["name"], "arguments": item["input"], "args": null, "custom": true,
        })),
        "reasoning" if is_set(&item["encrypted_content"]) => {
            doc.signatures.push(item["encrypted_content"].clone());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{broken, stream};
    use super::*;
    use crate::vectors::expand::response_events;
    use crate::vectors::rules::testing::{changed, every_rule_breaks};

    fn response() -> Value {
        json!({
            "id": "r", "object": "response", "created_at": 1, "status": "completed", "usage": {"total_tokens": 3},
            "output": [
                {"id": "rs", "type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "sig"},
                {"id": "msg", "type": "message", "role": "assistant", "content": [
                    {"type": "output_text", "text": "ab", "annotations": []}, {"type": "refusal", "refusal": "no"}]},
                {"id": "fc", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{\"x\":1}"},
                {"id": "ct", "type": "custom_tool_call", "call_id": "d", "name": "g", "input": "raw"},
            ],
        })
    }

    fn base() -> Value {
        Value::Array(response_events(&response()))
    }

    /// Position of the `nth` event of a type.
    fn at(kind: &str, nth: usize) -> usize {
        let base = base();
        let mut found =
            base.as_array().unwrap().iter().enumerate().filter(|(_, event)| event["type"] == kind);
        found.nth(nth).unwrap().0
    }

    #[test]
    fn folds_items() {
        let (doc, broken) = fold(&stream(&base(), true)).into_document();
        assert_eq!(broken, [""; 0]);
        assert_eq!(
            (&doc["text"], &doc["reasoning"], &doc["refusal"]),
            (&json!("ab"), &json!("hm"), &json!("no"))
        );
        assert_eq!((&doc["finish"], &doc["signatures"]), (&json!("completed"), &json!(["sig"])));
        assert_eq!(
            doc["tool_calls"][0],
            json!({"id": "c", "name": "f", "arguments": "{\"x\":1}", "args": {"x": 1}})
        );
        assert_eq!(doc["tool_calls"][1]["custom"], json!(true));
        assert_eq!((&doc["items"], &doc["final"]), (&response()["output"], &response()));
        assert_eq!(doc["events"][0], "response.created");
    }

    #[test]
    fn the_reason_of_an_incomplete_response_is_in_finish() {
        let mut cut = response();
        cut["status"] = json!("incomplete");
        cut["incomplete_details"] = json!({"reason": "max_output_tokens"});
        let (doc, broken) = fold(&stream(&Value::Array(response_events(&cut)), true)).into_document();
        assert_eq!(broken, [""; 0]);
        assert_eq!(doc["finish"], "incomplete:max_output_tokens");
    }

    #[test]
    fn an_error_event_and_a_failed_response_may_leave_items_open() {
        let head: Vec<Value> = base().as_array().unwrap()[..4].to_vec();
        let with = |last: Value| Value::Array([head.clone(), vec![last]].concat());
        let error = json!({"type": "error", "message": "m"});
        assert_eq!(broken("openai-response", &with(error.clone())), [""; 0]);
        let failed = json!({"type": "response.failed", "sequence_number": 99, "response": {
            "id": "r", "object": "response", "created_at": 1, "status": "failed", "output": [], "error": {"code": "x"}}});
        let (doc, broken) = fold(&stream(&with(failed), true)).into_document();
        assert_eq!(broken, [""; 0]);
        assert_eq!((&doc["finish"], &doc["errors"]), (&json!("failed"), &json!([{"code": "x"}])));
    }

    #[test]
    fn every_rule_breaks_once() {
        let example = |event: usize, pointer: &str, to: Value| {
            broken("openai-response", &changed(&base(), &format!("/{event}{pointer}"), Some(to)))
        };
        let without = |event: usize, pointer: &str| {
            broken("openai-response", &changed(&base(), &format!("/{event}{pointer}"), None))
        };
        let last = base().as_array().unwrap().len() - 1;
        let added = |n| at("response.output_item.added", n);
        let done = |n| at("response.output_item.done", n);
        let (text, whole) = (at("response.output_text.delta", 0), at("response.output_text.done", 0));
        let (part, shut) = (at("response.content_part.added", 0), at("response.content_part.done", 0));
        let summary = at("response.reasoning_summary_part.added", 0);
        let called = at("response.function_call_arguments.done", 0);
        let again = |event: usize| base()[event].clone();
        let misnamed =
            [Event { name: Some("a".to_owned()), data: "{\"type\":\"b\",\"sequence_number\":1}".to_owned() }];
        let examples = [
            ("responses.event_matches", fold(&misnamed).into_document().1),
            ("responses.sequence", example(5, "/sequence_number", json!(1))),
            ("responses.sequence", without(5, "/sequence_number")),
            ("responses.created_first", without(0, "")),
            ("responses.created_first", example(1, "", again(0))),
            ("responses.output_index", example(added(1), "/output_index", json!(5))),
            ("responses.item_once", example(added(1), "/output_index", json!(0))),
            ("responses.item_once", example(done(1), "/output_index", json!(0))),
            ("responses.item_added", without(added(1), "")),
            ("responses.item_id", example(done(1), "/item/id", json!("other"))),
            ("responses.item_id", example(text, "/item_id", json!("other"))),
            ("responses.item_done", without(done(1), "")),
            ("responses.item_shape", without(added(1), "/item/id")),
            ("responses.item_shape", without(done(2), "/item/call_id")),
            ("responses.part_item", example(part, "/output_index", json!(9))),
            ("responses.delta_open", without(part, "")),
            ("responses.delta_open", without(summary, "")),
            ("responses.delta_open", without(added(2), "")),
            ("responses.part_close", without(shut, "")),
            ("responses.part_close", example(shut + 1, "", again(shut))),
            ("responses.text_match", example(whole, "/text", json!("abc"))),
            (
                "responses.text_match",
                example(at("response.reasoning_summary_text.done", 0), "/text", json!("h")),
            ),
            ("responses.args_match", example(called, "/arguments", json!("{}"))),
            ("responses.args_match", example(done(2), "/item/arguments", json!("{}"))),
            ("responses.terminal", without(last, "")),
            ("responses.terminal_last", example(last - 1, "", again(last))),
            ("responses.status", example(last, "/response/status", json!("incomplete"))),
            ("responses.final_shape", without(last, "/response/id")),
            ("responses.final_shape", without(last, "/response/object")),
            ("responses.final_output", example(last, "/response/output/0/id", json!("other"))),
            ("responses.shape", example(done(1), "/item", json!("x"))),
            ("responses.shape", example(text, "/delta", Value::Null)),
            ("responses.shape", example(called, "/arguments", json!({}))),
        ];
        every_rule_breaks(include_str!("responses.rs"), &examples);
    }
}
