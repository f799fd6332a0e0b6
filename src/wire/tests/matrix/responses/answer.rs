//! An answer in the words of Responses.

use crate::meaning::{Block, Counts, Finish, Said, count, event, list, parsed, text};
use serde_json::{Value, json};
use testkit::vectors::response_sse;

/// The body of an upstream.
pub(crate) fn whole(said: &Said) -> Value {
    let mut output: Vec<Value> = Vec::new();
    for (at, block) in said.blocks.iter().enumerate() {
        let content = match block {
            Block::Thought { text, signature } => {
                let summary = json!([{"type": "summary_text", "text": text}]);
                output.push(json!({"id": format!("rs_{at}"), "type": "reasoning", "summary": summary, "encrypted_content": signature}));
                continue;
            }
            Block::Call { id, name, args } => {
                output.push(json!({"id": format!("fc_{at}"), "type": "function_call", "status": "completed", "call_id": id, "name": name, "arguments": args.to_string()}));
                continue;
            }
            Block::Image { mime, data } => {
                let format = mime.trim_start_matches("image/");
                output.push(json!({"id": format!("ig_{at}"), "type": "image_generation_call", "status": "completed", "result": data, "output_format": format}));
                continue;
            }
            Block::Text { text, urls } => {
                let note = |url: &String| json!({"type": "url_citation", "url": url, "title": "A page", "start_index": 0, "end_index": text.chars().count()});
                let notes: Vec<Value> = urls.iter().map(note).collect();
                json!({"type": "output_text", "annotations": notes, "logprobs": [], "text": text})
            }
            Block::Refusal(text) => json!({"type": "refusal", "refusal": text}),
        };
        output.push(json!({"id": format!("msg_{at}"), "type": "message", "status": "completed", "role": "assistant", "content": [content]}));
    }
    let words = said.blocks.iter().any(|block| matches!(block, Block::Refusal(_)));
    let reason = match said.finish {
        Some(Finish::Length) => Some("max_output_tokens"),
        Some(Finish::Refused) if !words => Some("content_filter"),
        _ => None,
    };
    let usage = &said.usage;
    json!({
        "id": "resp_1", "object": "response", "created_at": 1_700_000_000, "model": "upstream-model",
        "status": if reason.is_some() { "incomplete" } else { "completed" }, "error": null,
        "incomplete_details": reason.map(|reason| json!({"reason": reason})), "instructions": null, "metadata": {},
        "parallel_tool_calls": true, "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto", "tools": [],
        "output": output,
        "usage": {
            "input_tokens": usage.prompt, "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
            "output_tokens": usage.output, "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.prompt + usage.output,
        },
    })
}

/// The events of an upstream.
pub(crate) fn stream(said: &Said) -> String {
    String::from_utf8(response_sse(&whole(said))).unwrap()
}

/// What a client was told.
pub(crate) fn read(body: &Value) -> Said {
    let mut blocks = Vec::new();
    for item in list(&body["output"]) {
        match text(&item["type"]).as_str() {
            "reasoning" => {
                let text: String = list(&item["summary"]).iter().map(|part| text(&part["text"])).collect();
                let signature = item["encrypted_content"].as_str().map(str::to_owned);
                blocks.push(Block::Thought { text, signature });
            }
            "function_call" => {
                let (id, name) = (text(&item["call_id"]), text(&item["name"]));
                blocks.push(Block::Call { id, name, args: parsed(&item["arguments"]) });
            }
            "image_generation_call" => {
                let mime = format!("image/{}", text(&item["output_format"]));
                blocks.push(Block::Image { mime, data: text(&item["result"]) });
            }
            _ => blocks.extend(list(&item["content"]).iter().map(part)),
        }
    }
    let refused = blocks.iter().any(|block| matches!(block, Block::Refusal(_)));
    let calls = blocks.iter().any(|block| matches!(block, Block::Call { .. }));
    let finish = match (text(&body["status"]).as_str(), text(&body["incomplete_details"]["reason"]).as_str())
    {
        ("completed", "") if refused => Some(Finish::Refused),
        ("completed", "") if calls => Some(Finish::Tools),
        ("completed", "") => Some(Finish::Stop),
        ("incomplete", "max_output_tokens") => Some(Finish::Length),
        ("incomplete", "content_filter") => Some(Finish::Refused),
        _ => None,
    };
    let usage = &body["usage"];
    let usage = Counts {
        prompt: count(&usage["input_tokens"]),
        cached: count(&usage["input_tokens_details"]["cached_tokens"]),
        output: count(&usage["output_tokens"]),
        reasoning: count(&usage["output_tokens_details"]["reasoning_tokens"]),
    };
    Said { blocks, finish, usage }
}

fn part(part: &Value) -> Block {
    if part["type"] == "refusal" {
        return Block::Refusal(text(&part["refusal"]));
    }
    let urls = list(&part["annotations"]).iter().map(|note| text(&note["url"])).collect();
    Block::Text { text: text(&part["text"]), urls }
}

/// The event by which an upstream says in the middle that it cannot go on.
pub(crate) fn failure(message: &str) -> String {
    let error = json!({"code": "server_error", "message": message});
    let response = json!({"id": "resp_1", "object": "response", "created_at": 1_700_000_000, "status": "failed", "error": error, "output": []});
    event(
        "response.failed",
        &json!({"type": "response.failed", "sequence_number": 1000, "response": response}),
    )
}

/// The body of an upstream that refuses with status 429.
pub(crate) fn limited(message: &str) -> Value {
    crate::chat::answer::limited(message)
}

/// The message of an error body or event, whose shape has to be the format's.
pub(crate) fn error(body: &Value) -> Option<(String, String)> {
    // The stream's `error` event is flat; `response.failed` has code and message only.
    if body["type"] == "error" && body["message"].is_string() {
        let shaped = ["code", "param", "sequence_number"].iter().all(|key| body.get(*key).is_some());
        return shaped.then(|| (text(&body["message"]), text(&body["code"])));
    }
    if body["message"].is_string() {
        return Some((text(&body["message"]), text(&body["code"])));
    }
    crate::chat::answer::error(body)
}

/// A whole answer as far as a stream can say it.
pub(crate) fn comparable(body: &Value) -> Value {
    body.clone()
}
