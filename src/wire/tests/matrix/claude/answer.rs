//! An answer in the words of Claude Messages.

use crate::meaning::{Block, Counts, Finish, Said, count, event, list, pieces, text, without_nulls};
use serde_json::{Value, json};

/// The body of an upstream.
pub(crate) fn whole(said: &Said) -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "upstream-model",
        "content": said.blocks.iter().map(block).collect::<Vec<Value>>(),
        "stop_reason": stop_reason(said), "stop_sequence": null, "usage": usage(&said.usage),
    })
}

fn block(block: &Block) -> Value {
    match block {
        Block::Thought { text, signature } => {
            json!({"type": "thinking", "thinking": text, "signature": signature.clone().unwrap_or_default()})
        }
        Block::Text { text, urls } => {
            let citations: Vec<Value> = urls.iter().map(|url| citation(url, text)).collect();
            without_nulls(
                json!({"type": "text", "text": text, "citations": (!urls.is_empty()).then_some(citations)}),
            )
        }
        Block::Refusal(text) => json!({"type": "text", "text": text}),
        Block::Call { id, name, args } => json!({"type": "tool_use", "id": id, "name": name, "input": args}),
        Block::Image { .. } => panic!("Claude draws no pictures"),
    }
}

fn citation(url: &str, text: &str) -> Value {
    json!({"type": "web_search_result_location", "url": url, "title": "A page", "cited_text": text, "encrypted_index": "aW5kZXg="})
}

fn stop_reason(said: &Said) -> &'static str {
    match said.finish {
        Some(Finish::Length) => "max_tokens",
        Some(Finish::Refused) => "refusal",
        Some(Finish::Tools) => "tool_use",
        _ => "end_turn",
    }
}

fn usage(usage: &Counts) -> Value {
    json!({
        "input_tokens": usage.prompt - usage.cached, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached, "output_tokens": usage.output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    })
}

/// The events of an upstream.
pub(crate) fn stream(said: &Said) -> String {
    let mut start = whole(said);
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"]["output_tokens"] = json!(1);
    let mut out = event("message_start", &json!({"type": "message_start", "message": start}));
    out.push_str(&event("ping", &json!({"type": "ping"})));
    for (index, said) in said.blocks.iter().enumerate() {
        let mut empty = block(said);
        for (key, nothing) in
            [("text", json!("")), ("thinking", json!("")), ("signature", json!("")), ("input", json!({}))]
        {
            if let Some(member) = empty.get_mut(key) {
                *member = nothing;
            }
        }
        empty.as_object_mut().map(|empty| empty.shift_remove("citations"));
        out.push_str(&event(
            "content_block_start",
            &json!({"type": "content_block_start", "index": index, "content_block": empty}),
        ));
        for delta in deltas(said) {
            out.push_str(&event(
                "content_block_delta",
                &json!({"type": "content_block_delta", "index": index, "delta": delta}),
            ));
        }
        out.push_str(&event("content_block_stop", &json!({"type": "content_block_stop", "index": index})));
    }
    let delta = json!({"stop_reason": stop_reason(said), "stop_sequence": null});
    out.push_str(&event(
        "message_delta",
        &json!({"type": "message_delta", "delta": delta, "usage": usage(&said.usage)}),
    ));
    out + &event("message_stop", &json!({"type": "message_stop"}))
}

fn deltas(block: &Block) -> Vec<Value> {
    let each = |text: &str, kind: &str, key: &str| -> Vec<Value> {
        let delta = |piece: &&str| {
            let mut delta = json!({"type": kind});
            delta[key] = json!(piece);
            delta
        };
        pieces(text).iter().map(delta).collect()
    };
    match block {
        Block::Thought { text, signature } => {
            let mut deltas = each(text, "thinking_delta", "thinking");
            deltas
                .extend(signature.iter().map(|value| json!({"type": "signature_delta", "signature": value})));
            deltas
        }
        Block::Text { text, urls } => {
            let mut deltas = each(text, "text_delta", "text");
            deltas.extend(
                urls.iter().map(|url| json!({"type": "citations_delta", "citation": citation(url, text)})),
            );
            deltas
        }
        Block::Refusal(text) => each(text, "text_delta", "text"),
        Block::Call { args, .. } => each(&args.to_string(), "input_json_delta", "partial_json"),
        Block::Image { .. } => panic!("Claude draws no pictures"),
    }
}

/// What a client was told.
pub(crate) fn read(body: &Value) -> Said {
    let block = |block: &Value| match text(&block["type"]).as_str() {
        "thinking" => Block::Thought {
            text: text(&block["thinking"]),
            signature: Some(text(&block["signature"])).filter(|signature| !signature.is_empty()),
        },
        "tool_use" => {
            let (id, name) = (text(&block["id"]), text(&block["name"]));
            Block::Call { id, name, args: block["input"].clone() }
        }
        _ => {
            let place = |citation: &Value| {
                let source = if citation["url"].is_null() { &citation["source"] } else { &citation["url"] };
                text(source)
            };
            Block::Text {
                text: text(&block["text"]),
                urls: list(&block["citations"]).iter().map(place).collect(),
            }
        }
    };
    let finish = match text(&body["stop_reason"]).as_str() {
        "end_turn" => Some(Finish::Stop),
        "tool_use" => Some(Finish::Tools),
        "max_tokens" => Some(Finish::Length),
        "refusal" => Some(Finish::Refused),
        _ => None,
    };
    let usage = &body["usage"];
    let cached = count(&usage["cache_read_input_tokens"]);
    let usage = Counts {
        prompt: count(&usage["input_tokens"]) + count(&usage["cache_creation_input_tokens"]) + cached,
        cached,
        output: count(&usage["output_tokens"]),
        reasoning: count(&usage["output_tokens_details"]["thinking_tokens"]),
    };
    Said { blocks: list(&body["content"]).iter().map(block).collect(), finish, usage }
}

/// The event by which an upstream says in the middle that it cannot go on.
pub(crate) fn failure(message: &str) -> String {
    event("error", &json!({"type": "error", "error": {"type": "overloaded_error", "message": message}}))
}

/// The body of an upstream that refuses with status 429.
pub(crate) fn limited(message: &str) -> Value {
    json!({"type": "error", "error": {"type": "rate_limit_error", "message": message}, "request_id": "req_1"})
}

/// The message of an error body or event, whose shape has to be the format's.
pub(crate) fn error(body: &Value) -> Option<(String, String)> {
    // The fold gives the inner object of an event.
    let inner = if body["error"].is_object() { &body["error"] } else { body };
    let whole = body["error"].is_null() || body["type"] == "error";
    (whole && inner["type"].is_string()).then(|| (text(&inner["message"]), text(&inner["type"])))
}

/// A whole answer as far as a stream can say it.
pub(crate) fn comparable(body: &Value) -> Value {
    body.clone()
}
