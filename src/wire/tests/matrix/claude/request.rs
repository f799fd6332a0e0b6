//! A request in the words of Claude Messages.

use crate::meaning::{Ask, Choice, Part, Tool, Turn, list, text, without_nulls};
use serde_json::{Value, json};

/// Thinking tokens that stand for high effort.
const BUDGET: u64 = 24_576;

/// The body of a client.
pub(crate) fn write(ask: &Ask) -> Value {
    let turn = |turn: &Turn| {
        let role = if turn.user { "user" } else { "assistant" };
        let content: Vec<Value> = turn.parts.iter().map(block).collect();
        json!({"role": role, "content": content})
    };
    let tools = ask
        .tools
        .iter()
        .map(|tool| json!({"name": tool.name, "description": tool.description, "input_schema": tool.schema}));
    let tools: Vec<Value> = tools.collect();
    without_nulls(json!({
        "model": "a-model",
        "system": (!ask.system.is_empty()).then_some(&ask.system),
        "messages": ask.turns.iter().map(turn).collect::<Vec<Value>>(),
        "tools": (!tools.is_empty()).then_some(tools),
        "tool_choice": ask.choice.as_ref().map(|choice| match choice {
            Choice::Auto => json!({"type": "auto"}),
            Choice::Any => json!({"type": "any"}),
            Choice::Named(name) => json!({"type": "tool", "name": name}),
        }),
        "max_tokens": ask.max_tokens.unwrap_or(32_000),
        "temperature": ask.temperature,
        "stop_sequences": (!ask.stop.is_empty()).then_some(&ask.stop),
        "thinking": ask.thinks.then_some(json!({"type": "enabled", "budget_tokens": BUDGET})),
        "stream": ask.stream,
    }))
}

fn block(part: &Part) -> Value {
    let source = |mime: &str, data: &str| json!({"type": "base64", "media_type": mime, "data": data});
    match part {
        Part::Text(text) | Part::Refusal(text) => json!({"type": "text", "text": text}),
        Part::Image { mime, data } => json!({"type": "image", "source": source(mime, data)}),
        Part::Document { mime, data, name } => {
            without_nulls(json!({"type": "document", "source": source(mime, data), "title": name}))
        }
        Part::Call { id, name, args } => json!({"type": "tool_use", "id": id, "name": name, "input": args}),
        Part::Result { id, text } => json!({"type": "tool_result", "tool_use_id": id, "content": text}),
        Part::Thought { text, signature } => {
            json!({"type": "thinking", "thinking": text, "signature": signature})
        }
    }
}

/// What an upstream is asked.
pub(crate) fn read(body: &Value) -> Ask {
    let mut ask = Ask {
        system: words(&body["system"]),
        max_tokens: body["max_tokens"].as_u64(),
        temperature: body["temperature"].as_f64(),
        stop: list(&body["stop_sequences"]).iter().map(text).collect(),
        thinks: body["thinking"]["budget_tokens"] == BUDGET,
        stream: Some(body["stream"] == true),
        ..Ask::default()
    };
    for message in list(&body["messages"]) {
        let parts = match &message["content"] {
            Value::String(text) => vec![Part::Text(text.clone())],
            content => list(content).iter().map(part).collect(),
        };
        ask.turns.push(Turn { user: message["role"] == "user", parts });
    }
    ask.tools = list(&body["tools"])
        .iter()
        .map(|tool| Tool {
            name: text(&tool["name"]),
            description: text(&tool["description"]),
            schema: tool["input_schema"].clone(),
        })
        .collect();
    ask.choice = match text(&body["tool_choice"]["type"]).as_str() {
        "auto" => Some(Choice::Auto),
        "any" => Some(Choice::Any),
        "tool" => Some(Choice::Named(text(&body["tool_choice"]["name"]))),
        _ => None,
    };
    ask
}

fn words(content: &Value) -> String {
    match content {
        Value::Array(blocks) => blocks.iter().map(|block| text(&block["text"])).collect(),
        other => text(other),
    }
}

fn part(block: &Value) -> Part {
    let source = &block["source"];
    let (mime, data) = (text(&source["media_type"]), text(&source["data"]));
    match text(&block["type"]).as_str() {
        "image" => Part::Image { mime, data },
        "document" => Part::Document { mime, data, name: block["title"].as_str().map(str::to_owned) },
        "tool_use" => {
            Part::Call { id: text(&block["id"]), name: text(&block["name"]), args: block["input"].clone() }
        }
        "tool_result" => Part::Result { id: text(&block["tool_use_id"]), text: words(&block["content"]) },
        "thinking" => Part::Thought {
            text: text(&block["thinking"]),
            signature: block["signature"].as_str().map(str::to_owned),
        },
        _ => Part::Text(text(&block["text"])),
    }
}
