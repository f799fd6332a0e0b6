//! A request in the words of Chat Completions.

use crate::meaning::{
    Ask, Choice, Part, Tool, Turn, data_url, from_data_url, list, parsed, text, without_nulls,
};
use serde_json::{Value, json};

/// The body of a client.
pub(crate) fn write(ask: &Ask) -> Value {
    let mut messages = Vec::new();
    if !ask.system.is_empty() {
        messages.push(json!({"role": "system", "content": ask.system}));
    }
    ask.turns.iter().for_each(|turn| messages.extend(if turn.user { user(turn) } else { assistant(turn) }));
    let tools = ask.tools.iter().map(|tool| {
        json!({"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": tool.schema}})
    });
    let tools: Vec<Value> = tools.collect();
    without_nulls(json!({
        "model": "a-model",
        "messages": messages,
        "tools": (!tools.is_empty()).then_some(tools),
        "tool_choice": ask.choice.as_ref().map(|choice| match choice {
            Choice::Auto => json!("auto"),
            Choice::Any => json!("required"),
            Choice::Named(name) => json!({"type": "function", "function": {"name": name}}),
        }),
        "max_completion_tokens": ask.max_tokens,
        "temperature": ask.temperature,
        "stop": (!ask.stop.is_empty()).then_some(&ask.stop),
        "reasoning_effort": ask.thinks.then_some("high"),
        "stream": ask.stream,
        "stream_options": (ask.stream == Some(true)).then_some(json!({"include_usage": true})),
    }))
}

fn user(turn: &Turn) -> Vec<Value> {
    let (mut messages, mut content) = (Vec::new(), Vec::new());
    for part in &turn.parts {
        match part {
            Part::Result { id, text } => {
                messages.push(json!({"role": "tool", "tool_call_id": id, "content": text}));
            }
            Part::Text(text) => content.push(json!({"type": "text", "text": text})),
            Part::Image { mime, data } => {
                content.push(json!({"type": "image_url", "image_url": {"url": data_url(mime, data)}}));
            }
            Part::Document { mime, data, name } => {
                let file = json!({"filename": name, "file_data": data_url(mime, data)});
                content.push(json!({"type": "file", "file": file}));
            }
            other => panic!("a user does not say {other:?}"),
        }
    }
    if let [one] = content.as_slice()
        && one["type"] == "text"
    {
        messages.push(json!({"role": "user", "content": one["text"]}));
    } else if !content.is_empty() {
        messages.push(json!({"role": "user", "content": content}));
    }
    messages
}

fn assistant(turn: &Turn) -> Vec<Value> {
    let (mut said, mut calls) = (Value::Null, Vec::new());
    let (mut thought, mut refusal) = (Value::Null, Value::Null);
    for part in &turn.parts {
        match part {
            Part::Text(text) => said = json!(text),
            Part::Refusal(text) => refusal = json!(text),
            Part::Thought { text, .. } => thought = json!(text),
            Part::Call { id, name, args } => calls.push(
                json!({"id": id, "type": "function", "function": {"name": name, "arguments": args.to_string()}}),
            ),
            other => panic!("a model does not say {other:?}"),
        }
    }
    let calls = (!calls.is_empty()).then_some(calls);
    let mut message = without_nulls(
        json!({"role": "assistant", "reasoning_content": thought, "refusal": refusal, "tool_calls": calls}),
    );
    message["content"] = said;
    vec![message]
}

/// What an upstream is asked.
pub(crate) fn read(body: &Value) -> Ask {
    let mut ask = Ask {
        max_tokens: body["max_completion_tokens"].as_u64().or(body["max_tokens"].as_u64()),
        temperature: body["temperature"].as_f64(),
        thinks: body["reasoning_effort"] == "high",
        stream: Some(body["stream"] == true),
        ..Ask::default()
    };
    ask.stop = match &body["stop"] {
        Value::String(one) => vec![one.clone()],
        many => list(many).iter().map(text).collect(),
    };
    for message in list(&body["messages"]) {
        match text(&message["role"]).as_str() {
            "system" | "developer" => ask.system.push_str(&words(&message["content"])),
            role => ask.turns.push(turn(role, message)),
        }
    }
    ask.tools = list(&body["tools"])
        .iter()
        .map(|tool| &tool["function"])
        .map(|f| Tool {
            name: text(&f["name"]),
            description: text(&f["description"]),
            schema: f["parameters"].clone(),
        })
        .collect();
    ask.choice = match &body["tool_choice"] {
        Value::String(word) if word == "auto" => Some(Choice::Auto),
        Value::String(word) if word == "required" => Some(Choice::Any),
        Value::Object(_) => Some(Choice::Named(text(&body["tool_choice"]["function"]["name"]))),
        _ => None,
    };
    ask
}

fn words(content: &Value) -> String {
    match content {
        Value::Array(parts) => parts.iter().map(|part| text(&part["text"])).collect(),
        other => text(other),
    }
}

fn turn(role: &str, message: &Value) -> Turn {
    let mut parts = Vec::new();
    if role == "tool" {
        let (id, text) = (text(&message["tool_call_id"]), words(&message["content"]));
        return Turn { user: true, parts: vec![Part::Result { id, text }] };
    }
    if message["reasoning_content"].is_string() {
        parts.push(Part::Thought { text: text(&message["reasoning_content"]), signature: None });
    }
    match &message["content"] {
        Value::String(text) => parts.push(Part::Text(text.clone())),
        content => parts.extend(list(content).iter().map(part)),
    }
    if message["refusal"].is_string() {
        parts.push(Part::Refusal(text(&message["refusal"])));
    }
    for call in list(&message["tool_calls"]) {
        let function = &call["function"];
        let (id, name) = (text(&call["id"]), text(&function["name"]));
        parts.push(Part::Call { id, name, args: parsed(&function["arguments"]) });
    }
    Turn { user: role == "user", parts }
}

fn part(part: &Value) -> Part {
    match text(&part["type"]).as_str() {
        "image_url" => {
            let (mime, data) = from_data_url(&part["image_url"]["url"]);
            Part::Image { mime, data }
        }
        "file" => {
            let (mime, data) = from_data_url(&part["file"]["file_data"]);
            Part::Document { mime, data, name: part["file"]["filename"].as_str().map(str::to_owned) }
        }
        "refusal" => Part::Refusal(text(&part["refusal"])),
        _ => Part::Text(text(&part["text"])),
    }
}
