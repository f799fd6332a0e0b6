//! Chat Completions chunks.

use super::{Data, Folded, append};
use crate::vectors::rules::Rules;
use crate::vectors::sse::Event;
use crate::vectors::value::{arguments, elements, has, head, is_one_of, is_set, text};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Legal values of `finish_reason`.
pub(in crate::vectors) const FINISH: [&str; 5] =
    ["stop", "length", "tool_calls", "content_filter", "function_call"];

/// A wrong type where the format has another.
const SHAPE: &str = "chat.shape";

pub(super) fn fold(events: &[Event]) -> Folded {
    let mut stream = Stream::default();
    for (at, event) in events.iter().enumerate() {
        stream.event(at, event);
    }
    stream.close()
}

#[derive(Default)]
struct Stream {
    doc: Folded,
    choices: BTreeMap<u64, Choice>,
    ids: Vec<Value>,
    /// Number of the last chunk, and of the last one with usage.
    last: Option<usize>,
    usage_at: Option<usize>,
}

struct Choice {
    message: Map<String, Value>,
    tools: Vec<Tool>,
    finish: Value,
}

struct Tool {
    index: u64,
    id: Value,
    kind: Value,
    name: String,
    arguments: String,
}

impl Stream {
    fn event(&mut self, at: usize, event: &Event) {
        let ended = self.doc.done > 0;
        let data = self.doc.read(event, "chat.object");
        if matches!(data, Data::Done) {
            return self.doc.events.push(json!("[DONE]"));
        }
        self.doc.rules.need(!ended, "chat.done_last", "data after [DONE]");
        let Data::Object(chunk) = data else { return };
        if has(&chunk, "error") && !has(&chunk, "choices") {
            self.doc.errors.push(chunk["error"].clone());
            return self.doc.events.push(json!("error"));
        }
        self.doc.events.push(json!("chunk"));
        self.last = Some(at);
        let is_chunk = chunk["object"] == "chat.completion.chunk";
        self.doc.rules.need(is_chunk, "chat.object", format_args!("object is {}", chunk["object"]));
        self.ids.push(chunk["id"].clone());
        if !chunk["choices"].is_array() {
            return self.doc.rules.add("chat.choices", "choices missing");
        }
        for key in ["id", "model", "created"] {
            if let (Some(value), false) = (chunk.get(key), self.doc.last.contains_key(key)) {
                self.doc.last.insert(key.to_owned(), value.clone());
            }
        }
        for choice in self.doc.rules.objects(&chunk, "choices", SHAPE) {
            self.choice(choice);
        }
        if !chunk["usage"].is_null() {
            self.doc.usage = chunk["usage"].clone();
            self.usage_at = Some(at);
        }
    }

    fn choice(&mut self, part: &Value) {
        let rules = &mut self.doc.rules;
        let index = part.get("index").map_or(Some(0), Value::as_u64);
        rules.need(index.is_some(), SHAPE, "index of a choice is not an integer");
        let delta = rules.object(part, "delta", SHAPE);
        let first = !self.choices.contains_key(&index.unwrap_or(0));
        let choice = self.choices.entry(index.unwrap_or(0)).or_insert_with(Choice::new);
        let content = ["content", "reasoning_content", "tool_calls", "refusal"];
        let late = !choice.finish.is_null() && content.iter().any(|key| is_set(&delta[*key]));
        rules.need(!late, "chat.no_content_after_finish", "delta content after finish_reason");
        let opened = !first || delta["role"] == "assistant";
        rules.need(opened, "chat.role_first", "first delta of a choice has no role assistant");
        choice.add(delta, rules);
        for call in rules.objects(delta, "tool_calls", SHAPE) {
            choice.tool(call, rules);
        }
        let finish = &part["finish_reason"];
        if !finish.is_null() {
            rules.need(
                is_one_of(finish, &FINISH),
                "chat.finish_enum",
                format_args!("finish_reason {finish}"),
            );
            rules.need(choice.finish.is_null(), "chat.finish_once", "finish_reason sent twice");
            choice.finish = finish.clone();
        }
    }

    fn close(mut self) -> Folded {
        let rules = &mut self.doc.rules;
        let last = self.usage_at.is_none() || self.usage_at == self.last;
        rules.need(last, "chat.usage_last", "a chunk follows the chunk that carries usage");
        let ids: BTreeSet<String> = self.ids.iter().map(Value::to_string).collect();
        let same = ids.is_empty() || ids.len() == 1 && self.ids.first().is_some_and(is_set);
        rules.need(same, "chat.same_id", format_args!("chunk ids {ids:?}"));
        rules.need(self.doc.done <= 1, "chat.done_once", "more than one [DONE]");
        let whole = self.doc.errors.is_empty();
        rules.need(!whole || !self.choices.is_empty(), "chat.choices", "no choice in the stream");
        for (index, choice) in &self.choices {
            let ends = !whole || !choice.finish.is_null();
            rules.need(ends, "chat.finish_once", format_args!("choice {index} never finishes"));
            choice.close(whole, rules);
        }
        if let Some(choice) = self.choices.get(&0) {
            choice.show(&mut self.doc);
        }
        let choices: Vec<Value> =
            self.choices.into_iter().map(|(index, choice)| choice.whole(index)).collect();
        self.doc.last.insert("choices".to_owned(), json!(choices));
        self.doc.last.insert("usage".to_owned(), self.doc.usage.clone());
        self.doc.extra = Some(("choices", json!(choices)));
        self.doc
    }
}

impl Choice {
    fn new() -> Self {
        let mut message = Map::new();
        for key in ["role", "content", "tool_calls"] {
            message.insert(key.to_owned(), Value::Null);
        }
        Self { message, tools: Vec::new(), finish: Value::Null }
    }

    fn add(&mut self, delta: &Value, rules: &mut Rules) {
        if is_set(&delta["role"]) {
            self.message.insert("role".to_owned(), delta["role"].clone());
        }
        let reasoning = if delta["reasoning_content"].is_null() { "reasoning" } else { "reasoning_content" };
        for (to, from) in [("content", "content"), ("reasoning_content", reasoning), ("refusal", "refusal")] {
            if delta[from].is_string() {
                append(&mut self.message, to, delta.get(from), SHAPE, rules);
            }
        }
        for key in ["annotations", "images"] {
            if let (false, more) = (elements(&delta[key]).is_empty(), elements(&delta[key])) {
                let list = self.message.entry(key).or_insert_with(|| json!([]));
                if let Value::Array(list) = list {
                    list.extend_from_slice(more);
                }
            }
        }
    }

    fn tool(&mut self, call: &Value, rules: &mut Rules) {
        let next = self.tools.len() as u64;
        rules.need(call["index"].is_i64(), "chat.tool_index", "tool_call without integer index");
        let index = call["index"].as_u64().unwrap_or(next);
        let known = self.tools.iter().position(|tool| tool.index == index);
        let at = known.unwrap_or_else(|| {
            rules.need(
                index == next,
                "chat.tool_index",
                format_args!("new tool index {index}, expected {next}"),
            );
            first_fragment(call, rules);
            let kind = call.get("type").cloned().unwrap_or_else(|| json!("function"));
            let (id, name, arguments) = (Value::Null, String::new(), String::new());
            self.tools.push(Tool { index, id, kind, name, arguments });
            self.tools.len() - 1
        });
        let Some(tool) = self.tools.get_mut(at) else { return };
        if is_set(&call["id"]) {
            let same = !is_set(&tool.id) || tool.id == call["id"];
            rules.need(same, "chat.tool_id", "id changes for one tool index");
            if !is_set(&tool.id) {
                tool.id = call["id"].clone();
            }
        }
        let key = if is_set(&call["function"]) { "function" } else { "custom" };
        let body = rules.object(call, key, SHAPE);
        if tool.name.is_empty() {
            tool.name.push_str(text(&body["name"]));
        }
        let piece = if is_set(&body["arguments"]) { &body["arguments"] } else { &body["input"] };
        rules.need(piece.is_string() || piece.is_null(), SHAPE, "a fragment of arguments is not a string");
        tool.arguments.push_str(text(piece));
    }

    fn close(&self, whole: bool, rules: &mut Rules) {
        for tool in self.tools.iter().filter(|tool| tool.kind == "function") {
            let parses = !whole || self.finish == "length" || !arguments(&json!(tool.arguments)).is_null();
            let seen = head(&tool.arguments, 60);
            rules.need(parses, "chat.tool_args_json", format_args!("arguments do not parse: {seen:?}"));
        }
        let (calls, stopped, called) =
            (!self.tools.is_empty(), self.finish == "stop", self.finish == "tool_calls");
        rules.need(!(calls && stopped), "chat.finish_tool_calls", "tool calls but finish_reason stop");
        let without = !calls && called;
        rules.need(!without, "chat.finish_tool_calls", "finish_reason tool_calls without tool calls");
    }

    fn show(&self, doc: &mut Folded) {
        let member = |key: &str| self.message.get(key).map(text).unwrap_or_default().to_owned();
        doc.text = member("content");
        doc.reasoning = member("reasoning_content");
        doc.refusal = member("refusal");
        doc.finish = self.finish.clone();
        for tool in &self.tools {
            let text = json!(tool.arguments);
            doc.call(&tool.id, &json!(tool.name), &text, &arguments(&text));
        }
    }

    fn whole(mut self, index: u64) -> Value {
        let tool = |tool: Tool| {
            let function = json!({"name": tool.name, "arguments": tool.arguments});
            json!({"id": tool.id, "type": tool.kind, "function": function})
        };
        self.message.insert("tool_calls".to_owned(), self.tools.into_iter().map(tool).collect());
        json!({"index": index, "message": self.message, "finish_reason": self.finish})
    }
}

fn first_fragment(call: &Value, rules: &mut Rules) {
    rules.need(is_set(&call["id"]), "chat.tool_first", "first fragment of a tool call has no id");
    let named = call["type"] != "function" || is_set(&call["function"]["name"]);
    rules.need(named, "chat.tool_first", "first fragment of a tool call has no function name");
    let typed = is_one_of(&call["type"], &["function", "custom"]);
    rules.need(typed, "chat.tool_first", "first fragment has no type");
}

#[cfg(test)]
mod tests {
    use super::super::testing::{broken, stream};
    use super::*;
    use crate::vectors::rules::testing::{changed, every_rule_breaks};

    fn base() -> Value {
        let chunk = |choices: Value| json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices});
        let part = |delta: Value, finish: Value| {
            chunk(json!([{"index": 0, "delta": delta, "finish_reason": finish}]))
        };
        let mut usage = chunk(json!([]));
        usage["usage"] = json!({"total_tokens": 3});
        json!([
            part(json!({"role": "assistant", "content": ""}), Value::Null),
            part(json!({"reasoning": "hm"}), Value::Null),
            part(json!({"content": "a"}), Value::Null),
            part(json!({"content": "b"}), Value::Null),
            part(
                json!({"tool_calls": [{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{\"x\":"}}]}),
                Value::Null
            ),
            part(json!({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}), Value::Null),
            part(
                json!({"tool_calls": [{"index": 1, "id": "u", "type": "custom", "custom": {"name": "g", "input": "raw"}}]}),
                Value::Null
            ),
            part(json!({}), json!("tool_calls")),
            usage,
            "[DONE]",
        ])
    }

    #[test]
    fn folds_text_reasoning_and_calls() {
        let (doc, broken) = fold(&stream(&base(), false)).into_document();
        assert_eq!(broken, [""; 0]);
        assert_eq!((&doc["text"], &doc["reasoning"]), (&json!("ab"), &json!("hm")));
        assert_eq!(
            doc["tool_calls"][0],
            json!({"id": "t", "name": "f", "arguments": "{\"x\":1}", "args": {"x": 1}})
        );
        assert_eq!(doc["tool_calls"][1], json!({"id": "u", "name": "g", "arguments": "raw", "args": null}));
        assert_eq!((&doc["finish"], &doc["done"]), (&json!("tool_calls"), &json!(1)));
        assert_eq!(doc["usage"], json!({"total_tokens": 3}));
        assert_eq!(doc["choices"], doc["final"]["choices"]);
        assert_eq!(doc["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "f");
        assert_eq!(doc["final"]["id"], "c");
    }

    #[test]
    fn an_error_ends_the_duty_to_finish() {
        let cut = json!([base()[0], base()[4], {"error": {"message": "m"}}]);
        let (doc, broken) = fold(&stream(&cut, false)).into_document();
        assert_eq!(broken, [""; 0]);
        assert_eq!((&doc["errors"][0]["message"], &doc["events"][2]), (&json!("m"), &json!("error")));
    }

    #[test]
    fn every_rule_breaks_once() {
        let example = |pointer: &str, to: Value| broken("openai", &changed(&base(), pointer, Some(to)));
        let without = |pointer: &str| broken("openai", &changed(&base(), pointer, None));
        let examples = [
            ("chat.object", example("/0/object", json!("chat.completion"))),
            ("chat.object", example("/0", json!([1]))),
            ("chat.same_id", example("/2/id", json!("d"))),
            ("chat.choices", without("/2/choices")),
            ("chat.choices", broken("openai", &json!(["[DONE]"]))),
            ("chat.role_first", without("/0/choices/0/delta/role")),
            ("chat.finish_enum", example("/7/choices/0/finish_reason", json!("end"))),
            ("chat.finish_once", without("/7")),
            ("chat.finish_once", example("/6/choices/0/finish_reason", json!("tool_calls"))),
            ("chat.no_content_after_finish", example("/2/choices/0/finish_reason", json!("stop"))),
            ("chat.tool_index", example("/6/choices/0/delta/tool_calls/0/index", json!(2))),
            ("chat.tool_index", without("/5/choices/0/delta/tool_calls/0/index")),
            ("chat.tool_first", without("/4/choices/0/delta/tool_calls/0/id")),
            ("chat.tool_first", without("/4/choices/0/delta/tool_calls/0/type")),
            ("chat.tool_first", without("/4/choices/0/delta/tool_calls/0/function/name")),
            ("chat.tool_id", example("/5/choices/0/delta/tool_calls/0/id", json!("other"))),
            ("chat.tool_args_json", without("/5")),
            ("chat.finish_tool_calls", example("/7/choices/0/finish_reason", json!("stop"))),
            ("chat.usage_last", example("/9", base()[3].clone())),
            ("chat.done_once", example("/-", json!("[DONE]"))),
            ("chat.done_last", example("/0", json!("[DONE]"))),
            ("chat.shape", example("/2/choices/0/delta", json!("a"))),
            ("chat.shape", example("/2/choices/0", json!("a"))),
            ("chat.shape", example("/2/choices/0/index", json!("a"))),
            ("chat.shape", example("/5/choices/0/delta/tool_calls/0/function/arguments", json!({"x": 1}))),
        ];
        every_rule_breaks(include_str!("chat.rs"), &examples);
    }

    #[test]
    fn truncated_arguments_are_legal_after_length() {
        let cut = changed(&changed(&base(), "/7/choices/0/finish_reason", Some(json!("length"))), "/5", None);
        assert_eq!(broken("openai", &cut), [""; 0]);
    }
}
