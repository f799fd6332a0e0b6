//! Claude Messages events.

use super::{Data, Folded, append, name_matches};
use crate::vectors::rules::Rules;
use crate::vectors::sse::Event;
use crate::vectors::value::{arguments, dump, head, is_integer, is_one_of, is_set, text};
use serde_json::{Map, Value, json};

/// Legal values of `stop_reason`.
pub(in crate::vectors) const STOP: [&str; 7] = [
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "pause_turn",
    "refusal",
    "model_context_window_exceeded",
];

const SHAPE: &str = "claude.shape";

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
    /// The message of `message_start`.
    message: Option<Map<String, Value>>,
    blocks: Vec<Block>,
    /// The `index` of the open block.
    open: Option<Value>,
    /// Number of `message_delta` events.
    deltas: usize,
    stopped: bool,
}

struct Block {
    index: Value,
    body: Map<String, Value>,
    /// Joined `partial_json`.
    json: String,
    signed: bool,
    closed: bool,
}

impl Stream {
    fn event(&mut self, event: &Event) {
        let data = match self.doc.read(event, SHAPE) {
            Data::Done => return self.doc.rules.add("claude.no_done", "[DONE] is not an Anthropic event"),
            Data::Object(data) => data,
            Data::Other => return,
        };
        let kind = &data["type"];
        self.doc.events.push(kind.clone());
        let named = format_args!("event {:?} data.type {kind}", event.name).to_string();
        self.doc.rules.need(name_matches(event, kind), "claude.event_matches", named);
        match text(kind) {
            "ping" => return,
            "error" => return self.doc.errors.push(data["error"].clone()),
            _ => {}
        }
        self.doc.rules.need(!self.stopped, "claude.stop_last", format_args!("{kind} after message_stop"));
        if kind == "message_start" {
            return self.start(&data);
        }
        if self.message.is_none() {
            self.doc.rules.add("claude.start_first", format_args!("{kind} before message_start"));
            self.message = Some(Map::new());
        }
        match text(kind) {
            "content_block_start" => self.block_start(&data),
            "content_block_delta" => self.block_delta(&data),
            "content_block_stop" => self.block_stop(&data),
            "message_delta" => self.message_delta(&data),
            "message_stop" => self.stopped = true,
            _ => self.doc.rules.add("claude.event_enum", format_args!("unknown event {kind}")),
        }
    }

    fn start(&mut self, data: &Value) {
        let before = self.doc.events.iter().filter(|kind| !is_one_of(kind, &["ping", "error"])).count();
        let rules = &mut self.doc.rules;
        rules.need(self.message.is_none(), "claude.start_once", "second message_start");
        rules.need(before == 1, "claude.start_first", "message_start is not first");
        let message = rules.object(data, "message", SHAPE);
        let typed = message["type"] == "message" && message["role"] == "assistant" && is_set(&message["id"]);
        rules.need(typed, "claude.start_shape", "message_start.message lacks id, type or role");
        let empty = message["content"] == json!([]);
        rules.need(empty, "claude.start_shape", "message_start.message.content is not []");
        let usage = rules.object(message, "usage", SHAPE);
        let counted = is_integer(&usage["input_tokens"]);
        rules.need(counted, "claude.start_shape", "message_start.message.usage.input_tokens missing");
        self.doc.usage = usage.as_object().cloned().unwrap_or_default().into();
        self.message = Some(message.as_object().cloned().unwrap_or_default());
    }

    fn block_start(&mut self, data: &Value) {
        let (rules, index) = (&mut self.doc.rules, &data["index"]);
        if let Some(open) = &self.open {
            rules
                .add("claude.block_overlap", format_args!("block {index} opened while block {open} is open"));
        }
        let next = self.blocks.len();
        rules.need(
            *index == next,
            "claude.block_index",
            format_args!("block index {index}, expected {next}"),
        );
        let body = rules.object(data, "content_block", SHAPE).as_object().cloned().unwrap_or_default();
        self.blocks.push(Block {
            index: index.clone(),
            body,
            json: String::new(),
            signed: false,
            closed: false,
        });
        self.open = Some(index.clone());
    }

    fn block_delta(&mut self, data: &Value) {
        let (rules, index) = (&mut self.doc.rules, &data["index"]);
        let delta = rules.object(data, "delta", SHAPE);
        let block = self.blocks.iter_mut().find(|block| block.index == *index);
        let open = self.open.as_ref() == Some(index) && block.as_ref().is_some_and(|block| !block.closed);
        rules.need(
            open,
            "claude.delta_open",
            format_args!("delta for block {index} which is not the open block"),
        );
        if let Some(block) = block {
            block.add(delta, rules);
        }
    }

    fn block_stop(&mut self, data: &Value) {
        let index = &data["index"];
        match self.blocks.iter_mut().find(|block| block.index == *index) {
            Some(block) if !block.closed => block.closed = true,
            _ => {
                let seen = format_args!("stop for block {index} which is not open").to_string();
                self.doc.rules.add("claude.block_close", seen);
            }
        }
        if self.open.as_ref() == Some(index) {
            self.open = None;
        }
    }

    fn message_delta(&mut self, data: &Value) {
        self.deltas += 1;
        let rules = &mut self.doc.rules;
        rules.need(self.open.is_none(), "claude.block_closed", "message_delta while a block is open");
        let delta = rules.object(data, "delta", SHAPE);
        let reason = &delta["stop_reason"];
        if !reason.is_null() {
            rules.need(self.doc.finish.is_null(), "claude.stop_reason_once", "stop_reason sent twice");
            rules.need(is_one_of(reason, &STOP), "claude.stop_enum", reason);
            self.doc.finish = reason.clone();
        }
        for key in ["stop_sequence", "stop_details"] {
            if let (Some(message), false) = (&mut self.message, delta[key].is_null()) {
                message.insert(key.to_owned(), delta[key].clone());
            }
        }
        let usage = &data["usage"];
        if !is_integer(&usage["output_tokens"]) {
            return rules.add("claude.delta_usage", "message_delta without usage.output_tokens");
        }
        let mut whole = self.doc.usage.as_object().cloned().unwrap_or_default();
        for (key, value) in usage.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            whole.insert(key.clone(), value.clone());
        }
        self.doc.usage = whole.into();
    }

    fn close(mut self) -> Folded {
        let rules = &mut self.doc.rules;
        if self.doc.errors.is_empty() {
            rules.need(self.stopped, "claude.stop_last", "no message_stop");
            if self.deltas == 0 {
                rules.add("claude.message_delta", "no message_delta");
            } else {
                rules.need(!self.doc.finish.is_null(), "claude.message_delta", "no stop_reason");
            }
            for block in &self.blocks {
                let seen = format_args!("block {} never closed", block.index).to_string();
                rules.need(block.closed, "claude.block_closed", seen);
            }
        }
        let blocks: Value =
            std::mem::take(&mut self.blocks).into_iter().map(|b| b.close(&mut self.doc)).collect();
        let doc = &mut self.doc;
        let (calls, finish) = (!doc.tool_calls.is_empty(), &doc.finish);
        let without = !calls && finish == "tool_use";
        doc.rules.need(!without, "claude.stop_tool_use", "stop_reason tool_use without tool_use block");
        let unsaid = calls && finish == "end_turn";
        doc.rules.need(!unsaid, "claude.stop_tool_use", "tool_use blocks but stop_reason end_turn");
        doc.last = self.message.unwrap_or_default();
        doc.last.insert("content".to_owned(), blocks.clone());
        doc.last.insert("stop_reason".to_owned(), doc.finish.clone());
        doc.last.insert("usage".to_owned(), doc.usage.clone());
        doc.extra = Some(("blocks", blocks));
        self.doc
    }
}

/// Blocks whose input comes as `partial_json`.
const CALLS: [&str; 3] = ["tool_use", "server_tool_use", "mcp_tool_use"];

impl Block {
    fn kind(&self) -> &str {
        self.body.get("type").map(text).unwrap_or_default()
    }

    fn add(&mut self, delta: &Value, rules: &mut Rules) {
        let kind = &delta["type"];
        let legal: &[&str] = match self.kind() {
            "text" => &["text_delta", "citations_delta"],
            "thinking" => &["thinking_delta", "signature_delta"],
            call if CALLS.contains(&call) => &["input_json_delta"],
            _ => &[],
        };
        rules.need(
            is_one_of(kind, legal),
            "claude.delta_type",
            format_args!("{kind} in a {} block", self.kind()),
        );
        match text(kind) {
            "text_delta" => append(&mut self.body, "text", delta.get("text"), SHAPE, rules),
            "thinking_delta" => {
                rules.need(!self.signed, "claude.signature_last", "thinking_delta after signature_delta");
                append(&mut self.body, "thinking", delta.get("thinking"), SHAPE, rules);
            }
            "signature_delta" => {
                self.signed = true;
                self.body.insert("signature".to_owned(), json!(text(&delta["signature"])));
            }
            "input_json_delta" => {
                let legal = delta.get("partial_json").is_none_or(Value::is_string);
                rules.need(legal, SHAPE, "partial_json is not a string");
                self.json.push_str(text(&delta["partial_json"]));
            }
            "citations_delta" => {
                let list = self.body.entry("citations").or_insert_with(|| json!([]));
                if list.is_null() {
                    *list = json!([]);
                }
                if let Value::Array(list) = list {
                    list.push(delta["citation"].clone());
                }
            }
            _ => {}
        }
    }

    /// The finished block, with what it adds to the document.
    fn close(mut self, doc: &mut Folded) -> Value {
        if CALLS.contains(&self.kind()) && !self.json.is_empty() {
            let input = arguments(&json!(self.json));
            let (index, seen) = (&self.index, head(&self.json, 60));
            let seen = format_args!("input of block {index} is not a JSON object: {seen:?}").to_string();
            doc.rules.need(input.is_object(), "claude.tool_json", seen);
            self.body.insert("input".to_owned(), input);
        }
        let body = Value::Object(self.body);
        match text(&body["type"]) {
            "tool_use" => {
                let named = is_set(&body["id"]) && is_set(&body["name"]);
                doc.rules.need(named, "claude.tool_shape", "tool_use without id or name");
                let text = if self.json.is_empty() { dump(&body["input"]) } else { self.json };
                doc.call(&body["id"], &body["name"], &json!(text), &body["input"]);
            }
            "text" => doc.text.push_str(text(&body["text"])),
            "thinking" => {
                doc.reasoning.push_str(text(&body["thinking"]));
                if is_set(&body["signature"]) {
                    doc.signatures.push(body["signature"].clone());
                }
            }
            _ => {}
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{broken, stream};
    use super::*;
    use crate::vectors::rules::testing::{changed, every_rule_breaks};

    fn base() -> Value {
        let start = |index: u64, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
        let delta =
            |index: u64, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
        let stop = |index: u64| json!({"type": "content_block_stop", "index": index});
        json!([
            {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": [], "usage": {"input_tokens": 5, "output_tokens": 1}}},
            start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(0, json!({"type": "thinking_delta", "thinking": "hm"})),
            delta(0, json!({"type": "signature_delta", "signature": "sig"})),
            stop(0),
            start(1, json!({"type": "text", "text": ""})),
            delta(1, json!({"type": "text_delta", "text": "ab"})),
            delta(1, json!({"type": "citations_delta", "citation": {"url": "u"}})),
            stop(1),
            start(2, json!({"type": "tool_use", "id": "t", "name": "f", "input": {}})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "{\"x\":"})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "1}"})),
            stop(2),
            {"type": "ping"},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": {"output_tokens": 7, "input_tokens": null}},
            {"type": "message_stop"},
        ])
    }

    #[test]
    fn folds_blocks_and_usage() {
        let (doc, broken) = fold(&stream(&base(), true)).into_document();
        assert_eq!(broken, [""; 0]);
        assert_eq!((&doc["text"], &doc["reasoning"]), (&json!("ab"), &json!("hm")));
        assert_eq!(doc["signatures"], json!(["sig"]));
        assert_eq!(
            doc["tool_calls"],
            json!([{"id": "t", "name": "f", "arguments": "{\"x\":1}", "args": {"x": 1}}])
        );
        assert_eq!(doc["usage"], json!({"input_tokens": 5, "output_tokens": 7}));
        assert_eq!(doc["blocks"][1], json!({"type": "text", "text": "ab", "citations": [{"url": "u"}]}));
        assert_eq!(doc["blocks"][2]["input"], json!({"x": 1}));
        assert_eq!((&doc["final"]["id"], &doc["final"]["stop_reason"]), (&json!("m"), &json!("tool_use")));
        assert_eq!(doc["events"][13], "ping");
    }

    #[test]
    fn an_error_ends_the_duty_to_close() {
        let cut = json!([base()[0], base()[1], {"type": "error", "error": {"message": "m"}}]);
        let (doc, broken) = fold(&stream(&cut, true)).into_document();
        assert_eq!(broken, [""; 0]);
        assert_eq!(doc["errors"], json!([{"message": "m"}]));
    }

    #[test]
    fn every_rule_breaks_once() {
        let example = |pointer: &str, to: Value| broken("claude", &changed(&base(), pointer, Some(to)));
        let without = |pointer: &str| broken("claude", &changed(&base(), pointer, None));
        let misnamed = [Event { name: Some("a".to_owned()), data: "{\"type\":\"ping\"}".to_owned() }];
        let examples = [
            ("claude.no_done", example("/-", json!("[DONE]"))),
            ("claude.event_matches", fold(&misnamed).into_document().1),
            ("claude.event_enum", example("/13/type", json!("pong"))),
            ("claude.start_first", without("/0")),
            ("claude.start_first", example("/1", base()[0].clone())),
            ("claude.start_once", example("/1", base()[0].clone())),
            ("claude.start_shape", without("/0/message/id")),
            ("claude.start_shape", without("/0/message/content")),
            ("claude.start_shape", example("/0/message/usage/input_tokens", json!("5"))),
            ("claude.block_overlap", without("/4")),
            ("claude.block_index", example("/5/index", json!(2))),
            ("claude.delta_open", example("/6/index", json!(0))),
            ("claude.delta_open", without("/5")),
            ("claude.delta_type", example("/6/delta/type", json!("thinking_delta"))),
            ("claude.delta_type", example("/1/content_block/type", json!("redacted_thinking"))),
            ("claude.signature_last", example("/4", base()[2].clone())),
            ("claude.block_close", example("/4/index", json!(7))),
            ("claude.block_closed", without("/12")),
            ("claude.message_delta", without("/14")),
            ("claude.message_delta", without("/14/delta/stop_reason")),
            ("claude.stop_reason_once", example("/13", base()[14].clone())),
            ("claude.stop_enum", example("/14/delta/stop_reason", json!("stop"))),
            ("claude.delta_usage", without("/14/usage/output_tokens")),
            ("claude.stop_last", without("/15")),
            ("claude.stop_last", example("/-", base()[14].clone())),
            ("claude.tool_json", without("/11")),
            ("claude.tool_shape", without("/9/content_block/id")),
            ("claude.stop_tool_use", example("/14/delta/stop_reason", json!("end_turn"))),
            ("claude.stop_tool_use", example("/9/content_block/type", json!("server_tool_use"))),
            ("claude.shape", example("/6/delta", json!("ab"))),
            ("claude.shape", example("/6/delta/text", Value::Null)),
            ("claude.shape", example("/5/content_block/text", json!([]))),
            ("claude.shape", example("/10/delta/partial_json", json!({}))),
        ];
        every_rule_breaks(include_str!("claude.rs"), &examples);
    }
}
