//! An answer in the words of Chat Completions.

use crate::meaning::{
    Block, Counts, Finish, Said, count, data_url, event, from_data_url, list, parsed, pieces, text,
    without_nulls,
};
use serde_json::{Value, json};

/// The body of an upstream.
pub(crate) fn whole(said: &Said) -> Value {
    let mut message = json!({"role": "assistant", "content": null, "refusal": null});
    for block in &said.blocks {
        match block {
            Block::Thought { text, .. } => message["reasoning_content"] = json!(text),
            Block::Text { text, urls } => {
                message["content"] = json!(text);
                if !urls.is_empty() {
                    message["annotations"] = urls.iter().map(|url| annotation(url, text)).collect();
                }
            }
            Block::Refusal(text) => message["refusal"] = json!(text),
            Block::Image { mime, data } => push(&mut message, "images", image(mime, data)),
            Block::Call { id, name, args } => push(
                &mut message,
                "tool_calls",
                json!({"id": id, "type": "function", "function": {"name": name, "arguments": args.to_string()}}),
            ),
        }
    }
    let choice =
        json!({"index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason(said)});
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "upstream-model",
        "choices": [choice], "usage": usage(&said.usage),
    })
}

fn push(message: &mut Value, key: &str, value: Value) {
    match message.get_mut(key).and_then(Value::as_array_mut) {
        Some(list) => list.push(value),
        None => message[key] = json!([value]),
    }
}

fn annotation(url: &str, text: &str) -> Value {
    let length = text.chars().count();
    json!({"type": "url_citation", "url_citation": {"url": url, "title": "A page", "start_index": 0, "end_index": length}})
}

fn image(mime: &str, data: &str) -> Value {
    json!({"type": "image_url", "index": 0, "image_url": {"url": data_url(mime, data)}})
}

fn finish_reason(said: &Said) -> &'static str {
    let words = said.blocks.iter().any(|block| matches!(block, Block::Refusal(_)));
    match said.finish {
        Some(Finish::Length) => "length",
        Some(Finish::Refused) if !words => "content_filter",
        Some(Finish::Tools) => "tool_calls",
        _ => "stop",
    }
}

fn usage(usage: &Counts) -> Value {
    json!({
        "prompt_tokens": usage.prompt, "completion_tokens": usage.output, "total_tokens": usage.prompt + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    })
}

fn chunk(choices: &Value) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "upstream-model",
        "choices": choices,
    })
}

/// The events of an upstream. Calls interleave: each comes in pieces, the first pieces of all come first.
pub(crate) fn stream(said: &Said) -> String {
    let mut deltas = vec![json!({"role": "assistant", "content": ""})];
    let (mut later, mut calls) = (Vec::new(), 0);
    for block in &said.blocks {
        match block {
            Block::Thought { text, .. } => {
                deltas.extend(pieces(text).iter().map(|piece| json!({"reasoning_content": piece})));
            }
            Block::Text { text, urls } => {
                deltas.extend(pieces(text).iter().map(|piece| json!({"content": piece})));
                deltas.extend(urls.iter().map(|url| json!({"annotations": [annotation(url, text)]})));
            }
            Block::Refusal(text) => {
                deltas.extend(pieces(text).iter().map(|piece| json!({"refusal": piece})));
            }
            Block::Image { mime, data } => deltas.push(json!({"images": [image(mime, data)]})),
            Block::Call { id, name, args } => {
                let function = json!({"name": name, "arguments": ""});
                deltas.push(
                    json!({"tool_calls": [{"index": calls, "id": id, "type": "function", "function": function}]}),
                );
                for (nth, piece) in pieces(&args.to_string()).into_iter().enumerate() {
                    later.push((nth, calls, piece.to_owned()));
                }
                calls += 1;
            }
        }
    }
    later.sort();
    for (_, index, arguments) in later {
        deltas.push(json!({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}));
    }
    let mut out = String::new();
    for delta in deltas {
        out.push_str(&event(
            "",
            &chunk(&json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}])),
        ));
    }
    let last = json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": finish_reason(said)}]);
    out.push_str(&event("", &chunk(&last)));
    let mut counts = chunk(&json!([]));
    counts["usage"] = usage(&said.usage);
    out.push_str(&event("", &counts));
    out + "data: [DONE]\n\n"
}

/// What a client was told.
pub(crate) fn read(body: &Value) -> Said {
    let choice = &body["choices"][0];
    let message = &choice["message"];
    let mut blocks = Vec::new();
    if message["reasoning_content"].is_string() {
        blocks.push(Block::Thought { text: text(&message["reasoning_content"]), signature: None });
    }
    let notes = list(&message["annotations"]).iter();
    let urls: Vec<String> = notes.map(|note| text(&note["url_citation"]["url"])).collect();
    if message["content"].is_string() || !urls.is_empty() {
        blocks.push(Block::Text { text: text(&message["content"]), urls });
    }
    if message["refusal"].is_string() {
        blocks.push(Block::Refusal(text(&message["refusal"])));
    }
    for image in list(&message["images"]) {
        let (mime, data) = from_data_url(&image["image_url"]["url"]);
        blocks.push(Block::Image { mime, data });
    }
    for call in list(&message["tool_calls"]) {
        let (id, name) = (text(&call["id"]), text(&call["function"]["name"]));
        blocks.push(Block::Call { id, name, args: parsed(&call["function"]["arguments"]) });
    }
    let finish = match text(&choice["finish_reason"]).as_str() {
        "stop" if message["refusal"].is_string() => Some(Finish::Refused),
        "stop" => Some(Finish::Stop),
        "length" => Some(Finish::Length),
        "tool_calls" => Some(Finish::Tools),
        "content_filter" => Some(Finish::Refused),
        _ => None,
    };
    let usage = &body["usage"];
    let usage = Counts {
        prompt: count(&usage["prompt_tokens"]),
        cached: count(&usage["prompt_tokens_details"]["cached_tokens"]),
        output: count(&usage["completion_tokens"]),
        reasoning: count(&usage["completion_tokens_details"]["reasoning_tokens"]),
    };
    Said { blocks, finish, usage }
}

/// The event by which an upstream says in the middle that it cannot go on.
pub(crate) fn failure(message: &str) -> String {
    event("", &json!({"error": {"message": message, "type": "server_error", "param": null, "code": null}}))
}

/// The body of an upstream that refuses with status 429.
pub(crate) fn limited(message: &str) -> Value {
    json!({"error": {"message": message, "type": "rate_limit_error", "param": null, "code": "rate_limit_exceeded"}})
}

/// The message of an error body or event, whose shape has to be the format's.
pub(crate) fn error(body: &Value) -> Option<(String, String)> {
    let error = &body["error"];
    let typed = error["type"].is_string() && error.get("param").is_some() && error.get("code").is_some();
    typed.then(|| (text(&error["message"]), text(&error["type"])))
}

/// A whole answer as far as a stream can say it: no text is no content, and elements of lists need no number.
pub(crate) fn comparable(body: &Value) -> Value {
    let mut body = body.clone();
    for choice in body["choices"].as_array_mut().into_iter().flatten() {
        choice.as_object_mut().map(|choice| choice.shift_remove("logprobs"));
        let message = &mut choice["message"];
        for key in ["images", "annotations"] {
            for element in message[key].as_array_mut().into_iter().flatten() {
                element.as_object_mut().map(|element| element.shift_remove("index"));
            }
        }
        for (key, empty) in [("content", json!("")), ("tool_calls", json!([]))] {
            if message[key] == empty {
                message[key] = Value::Null;
            }
        }
        *message = without_nulls(message.take());
    }
    body.as_object_mut().map(|body| body.shift_remove("object"));
    body
}
