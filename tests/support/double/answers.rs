//! What the double of the providers says, by the format it is asked in.
//!
//! Enters: what was asked. Leaves: the steps of one answer: the word "pong", 7 tokens read of which 2 were
//! cached, 3 written. Bodies that the provider refuses get its refusal.

use super::says;
use crate::upstream::{Step, chunk, chunk_end, stream_head};
use base64::Engine;
use serde_json::{Value, json};

/// A picture, as far as its first bytes say.
pub(super) fn picture() -> String {
    base64::engine::general_purpose::STANDARD.encode(b"\x89PNG\r\n\x1a\n0000000000000000")
}

/// A stream of events, each of which is a chunk.
fn stream(events: impl IntoIterator<Item = String>) -> Vec<Step> {
    let mut steps = vec![stream_head()];
    steps.extend(events.into_iter().map(|event| chunk(&event)));
    steps.push(chunk_end());
    steps
}

/// An event with a name, which its data repeat as `type`.
fn named(name: &str, mut data: Value) -> String {
    data["type"] = json!(name);
    format!("event: {name}\ndata: {data}\n\n")
}

/// OpenAI Chat.
pub(super) fn chat(model: &str, streams: bool) -> Vec<Step> {
    let usage = json!({
        "prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 2},
    });
    if !streams {
        let message = json!({"role": "assistant", "content": "pong"});
        return says(
            200,
            &json!({
                "id": "c1", "object": "chat.completion", "created": 1, "model": model,
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage,
            }),
        );
    }
    let event = |choices: Value| {
        json!({
            "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": choices,
        })
    };
    let delta = |delta: Value, end: Value| {
        format!("data: {}\n\n", event(json!([{"index": 0, "delta": delta, "finish_reason": end}])))
    };
    let mut last = event(json!([]));
    last["usage"] = usage;
    stream([
        delta(json!({"role": "assistant", "content": "po"}), Value::Null),
        delta(json!({"content": "ng"}), Value::Null),
        delta(json!({}), json!("stop")),
        format!("data: {last}\n\n"),
        "data: [DONE]\n\n".to_owned(),
    ])
}

fn responses_usage() -> Value {
    json!({
        "input_tokens": 7, "output_tokens": 3, "total_tokens": 10,
        "input_tokens_details": {"cached_tokens": 2}, "output_tokens_details": {"reasoning_tokens": 0},
    })
}

/// OpenAI Responses, which Codex always streams.
pub(super) fn responses(body: &Value, token: &str) -> Vec<Step> {
    const EFFORTS: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];
    let model = body["model"].as_str().unwrap_or_default();
    if model == "gpt-5.3-codex-spark" && token != "spark-ok" {
        let detail = format!("The '{model}' model is not supported when using Codex with a ChatGPT account.");
        return says(400, &json!({"detail": detail}));
    }
    if let Some(effort) = body["reasoning"]["effort"].as_str().filter(|effort| !EFFORTS.contains(effort)) {
        let message = format!("Unsupported value: '{effort}' for reasoning.effort");
        return says(
            400,
            &json!({"error": {
                "message": message, "type": "invalid_request_error", "param": "reasoning.effort",
                "code": "unsupported_value",
            }}),
        );
    }
    let item = json!({
        "type": "message", "id": "m1", "status": "completed", "role": "assistant",
        "content": [{"type": "output_text", "text": "pong", "annotations": []}],
    });
    let response = |status: &str, output: Value, usage: Value| {
        json!({
            "id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": model,
            "output": output, "usage": usage,
        })
    };
    let opened = json!({"type": "message", "id": "m1", "role": "assistant", "content": []});
    let begun = response("in_progress", json!([]), Value::Null);
    let done = response("completed", json!([item]), responses_usage());
    stream([
        named("response.created", json!({"sequence_number": 0, "response": begun})),
        named("response.output_item.added", json!({"sequence_number": 1, "output_index": 0, "item": opened})),
        named(
            "response.output_text.delta",
            json!({"sequence_number": 2, "item_id": "m1", "output_index": 0, "content_index": 0, "delta": "pong"}),
        ),
        named("response.output_item.done", json!({"sequence_number": 3, "output_index": 0, "item": item})),
        named("response.completed", json!({"sequence_number": 4, "response": done})),
    ])
}

/// A conversation made shorter.
pub(super) fn compact() -> Vec<Step> {
    let usage = responses_usage();
    says(
        200,
        &json!({"id": "r1", "object": "response.compaction", "created_at": 1, "output": [], "usage": usage}),
    )
}

/// Claude Messages.
pub(super) fn claude(body: &Value, streams: bool) -> Vec<Step> {
    let refusal = |message: &str| {
        says(400, &json!({"type": "error", "error": {"type": "invalid_request_error", "message": message}}))
    };
    let blocks = body["messages"].as_array().into_iter().flatten();
    let mut blocks = blocks.flat_map(|message| message["content"].as_array().into_iter().flatten());
    if blocks.any(|block| block["type"] == "tool_result" && block.get("content").is_none()) {
        return refusal("Invalid JSON payload: tool_result has no content field");
    }
    let budget = body["thinking"]["budget_tokens"].as_u64();
    if budget >= body["max_tokens"].as_u64().or(Some(u64::MAX)) {
        return refusal("`max_tokens` must be greater than `thinking.budget_tokens`");
    }
    let message = |content: Value, stop: Value, written: u64| {
        json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"],
            "content": content, "stop_reason": stop,
            "usage": {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": written},
        })
    };
    if !streams {
        return says(200, &message(json!([{"type": "text", "text": "pong"}]), json!("end_turn"), 3));
    }
    stream([
        named("message_start", json!({"message": message(json!([]), Value::Null, 1)})),
        named("content_block_start", json!({"index": 0, "content_block": {"type": "text", "text": ""}})),
        named("content_block_delta", json!({"index": 0, "delta": {"type": "text_delta", "text": "pong"}})),
        named("content_block_stop", json!({"index": 0})),
        named(
            "message_delta",
            json!({"delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": {"output_tokens": 3}}),
        ),
        named("message_stop", json!({})),
    ])
}

/// Gemini, or Antigravity, which wraps its bodies (`internal`).
pub(super) fn google(model: &str, internal: bool, streams: bool) -> Vec<Step> {
    if internal && model == "claude-sonnet-4-6" {
        return says(503, &no_capacity(model));
    }
    if model.starts_with("gone") {
        let message = "Requested entity was not found.";
        return says(404, &json!({"error": {"code": 404, "message": message, "status": "NOT_FOUND"}}));
    }
    let parts = if model.contains("banana-empty") {
        json!([{"text": "thinking only", "thought": true}])
    } else if model.contains("image") {
        json!([{"text": "here"}, {"inlineData": {"mimeType": "image/png", "data": picture()}}])
    } else {
        json!([{"text": "pong"}])
    };
    let mut body = json!({
        "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {
            "promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10,
            "cachedContentTokenCount": 2,
        },
        "modelVersion": model, "responseId": "x1",
    });
    if internal {
        body = json!({"response": body, "traceId": "t"});
    }
    if streams { stream([format!("data: {body}\n\n")]) } else { says(200, &body) }
}

fn no_capacity(model: &str) -> Value {
    json!({"error": {
        "code": 503,
        "message": format!("No capacity available for model {model} on the server"),
        "status": "UNAVAILABLE",
        "details": [{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "MODEL_CAPACITY_EXHAUSTED",
            "domain": "cloudcode-pa.googleapis.com", "metadata": {"model": model},
        }],
    }})
}

/// The models that an Antigravity account has.
pub(super) fn antigravity_models(none: bool) -> Value {
    if none {
        return json!({"models": {}});
    }
    json!({"models": {
        "claude-opus-4-6-thinking": {"displayName": "Claude Opus 4.6 (Thinking)"},
        "claude-sonnet-4-6": {"displayName": "Claude Sonnet 4.6"},
        "gemini-3-flash": {"displayName": "Gemini 3 Flash"},
    }})
}

/// Kiro: frames of the AWS event stream.
pub(super) fn kiro() -> Vec<Step> {
    let usage = json!({"uncachedInputTokens": 7, "outputTokens": 3, "totalTokens": 10});
    let body: Vec<u8> = [
        frame("assistantResponseEvent", &json!({"content": "po"})),
        frame("assistantResponseEvent", &json!({"content": "ng"})),
        frame("messageMetadataEvent", &json!({"tokenUsage": usage})),
        frame("contextUsageEvent", &json!({"contextUsagePercentage": 1.0})),
    ]
    .concat();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    vec![Step::send(head), Step::Send(body)]
}

/// One message of the AWS event stream: lengths, their checksum, headers, payload, checksum of all.
fn frame(event: &str, payload: &Value) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("it is short");
    let mut headers = Vec::new();
    for (name, value) in
        [(":event-type", event), (":message-type", "event"), (":content-type", "application/json")]
    {
        headers.push(u8::try_from(name.len()).expect("a name is short"));
        headers.extend(name.as_bytes());
        // 7: a text, with its length in two bytes.
        headers.push(7);
        headers.extend(u16::try_from(value.len()).expect("a value is short").to_be_bytes());
        headers.extend(value.as_bytes());
    }
    let payload = payload.to_string().into_bytes();
    let mut out = Vec::new();
    out.extend((16 + length(&headers) + length(&payload)).to_be_bytes());
    out.extend(length(&headers).to_be_bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(headers);
    out.extend(payload);
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}
