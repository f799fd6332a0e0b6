//! Two calls of tools in one answer, streamed to Claude clients from every kind of upstream.

use crate::shared::{CLAUDE, all_kinds, proxy};
use serde_json::{Value, json};
use testkit::upstream::{Seen, Step, Upstream, whole};

/// What the model calls: tool, id at the upstream, arguments in two pieces.
const CALLS: [(&str, &str, [&str; 2]); 2] =
    [("look", "call_a", [r#"{"city":"#, r#""Rome"}"#]), ("count", "call_b", [r#"{"n":"#, "[1,2]}"])];

fn named(name: &str, mut data: Value) -> String {
    data["type"] = json!(name);
    format!("event: {name}\ndata: {data}\n\n")
}

/// Both begin before either goes on, as OpenAI allows it.
fn chat() -> String {
    let piece = |delta: Value, end: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": end});
        let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]});
        format!("data: {chunk}\n\n")
    };
    let mut text = String::new();
    for (index, (name, id, [first, _])) in CALLS.iter().enumerate() {
        let function = json!({"name": name, "arguments": first});
        let call = json!({"index": index, "id": id, "type": "function", "function": function});
        text += &piece(json!({"tool_calls": [call]}), Value::Null);
    }
    for (index, (_, _, [_, second])) in CALLS.iter().enumerate() {
        let call = json!({"index": index, "function": {"arguments": second}});
        text += &piece(json!({"tool_calls": [call]}), Value::Null);
    }
    text + &piece(json!({}), json!("tool_calls")) + "data: [DONE]\n\n"
}

fn responses() -> String {
    let response = |status: &str, output: &[Value]| json!({"response": {"id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": "m", "output": output}});
    let mut text = named("response.created", response("in_progress", &[]));
    let mut items = Vec::new();
    for (at, (name, id, pieces)) in CALLS.iter().enumerate() {
        let item = |status: &str, arguments: &str| json!({"type": "function_call", "id": format!("fc_{at}"), "call_id": id, "name": name, "arguments": arguments, "status": status});
        text += &named(
            "response.output_item.added",
            json!({"output_index": at, "item": item("in_progress", "")}),
        );
        for piece in pieces {
            let delta = json!({"item_id": format!("fc_{at}"), "output_index": at, "delta": piece});
            text += &named("response.function_call_arguments.delta", delta);
        }
        let done = item("completed", &pieces.concat());
        text += &named("response.output_item.done", json!({"output_index": at, "item": done}));
        items.push(done);
    }
    text + &named("response.completed", response("completed", &items))
}

fn claude() -> String {
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {"input_tokens": 3, "output_tokens": 1}});
    let mut text = named("message_start", json!({"message": message}));
    for (at, (name, id, pieces)) in CALLS.iter().enumerate() {
        let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
        text += &named("content_block_start", json!({"index": at, "content_block": block}));
        for piece in pieces {
            let delta = json!({"type": "input_json_delta", "partial_json": piece});
            text += &named("content_block_delta", json!({"index": at, "delta": delta}));
        }
        text += &named("content_block_stop", json!({"index": at}));
    }
    let end =
        json!({"delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": {"output_tokens": 9}});
    text + &named("message_delta", end) + &named("message_stop", json!({}))
}

fn gemini() -> String {
    let parts: Vec<Value> = CALLS
        .iter()
        .map(|(name, _, pieces)| {
            let arguments: Value = serde_json::from_str(&pieces.concat()).expect("JSON");
            json!({"functionCall": {"name": name, "args": arguments}})
        })
        .collect();
    let candidate = json!({"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0});
    format!("data: {}\n\n", json!({"candidates": [candidate], "modelVersion": "m", "responseId": "r"}))
}

fn calling(seen: &Seen) -> Vec<Step> {
    let text = match &seen.path {
        path if path.starts_with("/chat") => chat(),
        path if path.starts_with("/responses") => responses(),
        path if path.starts_with("/claude") => claude(),
        _ => gemini(),
    };
    vec![whole(200, "text/event-stream", &text)]
}

#[test]
fn row_108_each_call_has_its_own_beginning_end_and_whole_arguments() {
    let upstream = Upstream::start(calling);
    let proxy = proxy(&all_kinds(&upstream.url()));
    let tools = r#","tools":[{"name":"look","input_schema":{"type":"object"}},{"name":"count","input_schema":{"type":"object"}}]}"#;
    for kind in ["chat", "responses", "claude", "gemini"] {
        let body = CLAUDE.body(&format!("{kind}/m"), true);
        let body = format!("{}{tools}", body.strip_suffix('}').expect("an object"));
        let answer = proxy.post(CLAUDE.path, &body).text();
        let events = answer.lines().filter_map(|line| line.strip_prefix("data: "));
        let mut calls: Vec<(String, String, String)> = Vec::new();
        let mut open: Option<u64> = None;
        for event in events.map(|event| serde_json::from_str::<Value>(event).expect("JSON")) {
            let index = event["index"].as_u64();
            match event["type"].as_str().unwrap_or_default() {
                "content_block_start" => {
                    assert_eq!(open, None, "{kind}: a block begins within another: {answer}");
                    open = index;
                    let block = &event["content_block"];
                    if block["type"] == "tool_use" {
                        let text = |key: &str| block[key].as_str().expect("a text").to_owned();
                        calls.push((text("name"), text("id"), String::new()));
                    }
                }
                "content_block_delta" => {
                    assert_eq!(open, index, "{kind}: {answer}");
                    if let Some(piece) = event["delta"]["partial_json"].as_str() {
                        calls.last_mut().expect("a call").2.push_str(piece);
                    }
                }
                "content_block_stop" => assert_eq!(open.take(), index, "{kind}: {answer}"),
                _ => {}
            }
        }
        assert_eq!(open, None, "{kind}: {answer}");
        assert_eq!(calls.len(), 2, "{kind}: {answer}");
        assert_ne!(calls[0].1, calls[1].1, "{kind}: ids are unique");
        for ((name, _, arguments), (expected, _, pieces)) in calls.iter().zip(&CALLS) {
            let value = |text: &str| serde_json::from_str::<Value>(text).expect("whole arguments");
            assert_eq!((name.as_str(), value(arguments)), (*expected, value(&pieces.concat())), "{kind}");
        }
        assert!(answer.contains(r#""stop_reason":"tool_use""#), "{kind}: {answer}");
    }
}
