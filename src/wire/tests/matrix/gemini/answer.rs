//! An answer in the words of Gemini generateContent.

use crate::meaning::{Block, Counts, Finish, Said, count, event, list, pieces, text, without_nulls};
use serde_json::{Map, Value, json};

/// The body of an upstream.
pub(crate) fn whole(said: &Said) -> Value {
    let parts: Vec<Value> = said.blocks.iter().map(part).collect();
    let candidate = json!({
        "content": {"role": "model", "parts": parts}, "finishReason": finish_reason(said), "index": 0,
        "groundingMetadata": grounding(said),
    });
    json!({
        "candidates": [without_nulls(candidate)], "usageMetadata": usage(&said.usage),
        "modelVersion": "upstream-model", "responseId": "resp-1",
    })
}

fn part(block: &Block) -> Value {
    match block {
        Block::Thought { text, signature } => {
            without_nulls(json!({"text": text, "thought": true, "thoughtSignature": signature}))
        }
        Block::Text { text, .. } | Block::Refusal(text) => json!({"text": text}),
        Block::Image { mime, data } => json!({"inlineData": {"mimeType": mime, "data": data}}),
        Block::Call { name, args, .. } => json!({"functionCall": {"name": name, "args": args}}),
    }
}

fn grounding(said: &Said) -> Option<Value> {
    let urls: Vec<&String> = said
        .blocks
        .iter()
        .filter_map(|block| if let Block::Text { urls, .. } = block { Some(urls) } else { None })
        .flatten()
        .collect();
    let chunks: Vec<Value> = urls.iter().map(|url| json!({"web": {"uri": url, "title": "A page"}})).collect();
    (!urls.is_empty()).then(|| {
        json!({"groundingChunks": chunks, "groundingSupports": [{
            "segment": {"startIndex": 0, "endIndex": said.text().len(), "text": said.text()},
            "groundingChunkIndices": (0..urls.len()).collect::<Vec<_>>(),
        }]})
    })
}

fn finish_reason(said: &Said) -> &'static str {
    match said.finish {
        Some(Finish::Length) => "MAX_TOKENS",
        Some(Finish::Refused) => "SAFETY",
        _ => "STOP",
    }
}

fn usage(usage: &Counts) -> Value {
    json!({
        "promptTokenCount": usage.prompt, "cachedContentTokenCount": usage.cached,
        "candidatesTokenCount": usage.output - usage.reasoning, "thoughtsTokenCount": usage.reasoning,
        "totalTokenCount": usage.prompt + usage.output,
    })
}

/// The events of an upstream.
pub(crate) fn stream(said: &Said) -> String {
    let mut parts = Vec::new();
    for block in &said.blocks {
        match block {
            Block::Thought { text, signature } => {
                parts.extend(pieces(text).iter().map(|piece| json!({"text": piece, "thought": true})));
                // The signature comes with the last of them.
                if let (Some(last), Some(signature)) = (parts.last_mut(), signature) {
                    last["thoughtSignature"] = json!(signature);
                }
            }
            Block::Text { text, .. } | Block::Refusal(text) => {
                parts.extend(pieces(text).iter().map(|piece| json!({"text": piece})));
            }
            other => parts.push(part(other)),
        }
    }
    let chunk = |candidate: Value, counts: &Counts| {
        event(
            "",
            &json!({
                "candidates": [candidate], "usageMetadata": usage(counts),
                "modelVersion": "upstream-model", "responseId": "resp-1",
            }),
        )
    };
    let so_far = Counts { output: 1, reasoning: 0, ..said.usage.clone() };
    let mut out: String = parts
        .into_iter()
        .map(|part| chunk(json!({"content": {"role": "model", "parts": [part]}, "index": 0}), &so_far))
        .collect();
    let last = json!({
        "content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": finish_reason(said), "index": 0,
        "groundingMetadata": grounding(said),
    });
    out.push_str(&chunk(without_nulls(last), &said.usage));
    out
}

/// What a client was told.
pub(crate) fn read(body: &Value) -> Said {
    let candidate = &body["candidates"][0];
    // A folded stream has the parts of all chunks in one list.
    let parts =
        if candidate["parts"].is_array() { &candidate["parts"] } else { &candidate["content"]["parts"] };
    let mut blocks: Vec<Block> = list(parts).iter().map(block).collect();
    // Ids are optional here: calls are bound by order.
    for (at, block) in blocks.iter_mut().enumerate() {
        if let Block::Call { id, .. } = block
            && id.is_empty()
        {
            *id = format!("call at {at}");
        }
    }
    let chunks = list(&candidate["groundingMetadata"]["groundingChunks"]).iter();
    let cited: Vec<String> = chunks.map(|chunk| text(&chunk["web"]["uri"])).collect();
    if let Some(Block::Text { urls, .. }) =
        blocks.iter_mut().rfind(|block| matches!(block, Block::Text { .. }))
    {
        *urls = cited;
    }
    let calls = blocks.iter().any(|block| matches!(block, Block::Call { .. }));
    let finish = match text(&candidate["finishReason"]).as_str() {
        "STOP" if calls => Some(Finish::Tools),
        "STOP" => Some(Finish::Stop),
        "MAX_TOKENS" => Some(Finish::Length),
        "SAFETY" => Some(Finish::Refused),
        _ => None,
    };
    let usage = &body["usageMetadata"];
    let reasoning = count(&usage["thoughtsTokenCount"]);
    let usage = Counts {
        prompt: count(&usage["promptTokenCount"]),
        cached: count(&usage["cachedContentTokenCount"]),
        output: count(&usage["candidatesTokenCount"]) + reasoning,
        reasoning,
    };
    Said { blocks, finish, usage }
}

fn block(part: &Value) -> Block {
    if let Some(call) = part.get("functionCall") {
        return Block::Call { id: text(&call["id"]), name: text(&call["name"]), args: call["args"].clone() };
    }
    if let Some(inline) = part.get("inlineData") {
        return Block::Image { mime: text(&inline["mimeType"]), data: text(&inline["data"]) };
    }
    let words = text(&part["text"]);
    if part["thought"] == true {
        let signature = part["thoughtSignature"].as_str().map(str::to_owned);
        return Block::Thought { text: words, signature };
    }
    Block::Text { text: words, urls: Vec::new() }
}

/// The event by which an upstream says in the middle that it cannot go on.
pub(crate) fn failure(message: &str) -> String {
    event("", &json!({"error": {"code": 503, "message": message, "status": "UNAVAILABLE"}}))
}

/// The body of an upstream that refuses with status 429.
pub(crate) fn limited(message: &str) -> Value {
    json!({"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED"}})
}

/// The message of an error body or event, whose shape has to be the format's.
pub(crate) fn error(body: &Value) -> Option<(String, String)> {
    let inner = if body["error"].is_object() { &body["error"] } else { body };
    inner["code"].is_u64().then(|| (text(&inner["message"]), text(&inner["status"])))
}

/// A whole answer as far as a stream can say it: the parts in one list, neighbours of one kind joined.
pub(crate) fn comparable(body: &Value) -> Value {
    let mut body = body.clone();
    for candidate in body["candidates"].as_array_mut().into_iter().flatten() {
        let parts = match candidate.as_object_mut().and_then(|members| members.shift_remove("content")) {
            Some(content) => content["parts"].clone(),
            None => candidate["parts"].clone(),
        };
        candidate["parts"] = joined(list(&parts));
    }
    body
}

fn joined(parts: &[Value]) -> Value {
    let mut out: Vec<Map<String, Value>> = Vec::new();
    for part in parts.iter().filter_map(Value::as_object) {
        let is_text = |part: &Map<String, Value>| part.contains_key("text");
        if is_text(part) && part["text"] == "" && !part.contains_key("thoughtSignature") {
            continue;
        }
        match out.last_mut() {
            Some(last)
                if is_text(last)
                    && is_text(part)
                    && last.get("thought") == part.get("thought")
                    && !last.contains_key("thoughtSignature") =>
            {
                let text = text(&last["text"]) + &text(&part["text"]);
                last.extend(part.clone());
                last.insert("text".to_owned(), json!(text));
            }
            _ => out.push(part.clone()),
        }
    }
    json!(out)
}
