//! A request in the words of Responses.

use crate::meaning::{
    Ask, Choice, Part, Tool, Turn, data_url, from_data_url, list, parsed, text, without_nulls,
};
use serde_json::{Value, json};

/// The body of a client.
pub(crate) fn write(ask: &Ask) -> Value {
    let input: Vec<Value> = ask.turns.iter().flat_map(items).collect();
    let tools = ask.tools.iter().map(|tool| {
        json!({"type": "function", "name": tool.name, "description": tool.description, "parameters": tool.schema, "strict": false})
    });
    let tools: Vec<Value> = tools.collect();
    without_nulls(json!({
        "model": "a-model",
        "instructions": (!ask.system.is_empty()).then_some(&ask.system),
        "input": input,
        "tools": (!tools.is_empty()).then_some(tools),
        "tool_choice": ask.choice.as_ref().map(|choice| match choice {
            Choice::Auto => json!("auto"),
            Choice::Any => json!("required"),
            Choice::Named(name) => json!({"type": "function", "name": name}),
        }),
        "max_output_tokens": ask.max_tokens,
        "temperature": ask.temperature,
        "reasoning": ask.thinks.then_some(json!({"effort": "high", "summary": "auto"})),
        "include": ask.thinks.then_some(json!(["reasoning.encrypted_content"])),
        "stream": ask.stream,
        "store": false,
    }))
}

fn items(turn: &Turn) -> Vec<Value> {
    let mut items: Vec<Value> = Vec::new();
    let (role, kind) = if turn.user { ("user", "input_text") } else { ("assistant", "output_text") };
    for part in &turn.parts {
        let content = match part {
            Part::Text(text) if turn.user => json!({"type": kind, "text": text}),
            Part::Text(text) => json!({"type": kind, "text": text, "annotations": []}),
            Part::Refusal(text) => json!({"type": "refusal", "refusal": text}),
            Part::Image { mime, data } => {
                json!({"type": "input_image", "detail": "auto", "image_url": data_url(mime, data)})
            }
            Part::Document { mime, data, name } => {
                json!({"type": "input_file", "filename": name, "file_data": data_url(mime, data)})
            }
            Part::Call { id, name, args } => {
                items.push(json!({"type": "function_call", "call_id": id, "name": name, "arguments": args.to_string()}));
                continue;
            }
            Part::Result { id, text } => {
                items.push(json!({"type": "function_call_output", "call_id": id, "output": text}));
                continue;
            }
            Part::Thought { text, signature } => {
                let summary = json!([{"type": "summary_text", "text": text}]);
                let id = format!("rs_{}", items.len());
                items.push(json!({"type": "reasoning", "id": id, "summary": summary, "encrypted_content": signature}));
                continue;
            }
        };
        match items.last_mut() {
            Some(last) if last["type"] == "message" => {
                last["content"].as_array_mut().unwrap().push(content);
            }
            _ => items.push(json!({"type": "message", "role": role, "content": [content]})),
        }
    }
    items
}

/// What an upstream is asked.
pub(crate) fn read(body: &Value) -> Ask {
    let mut ask = Ask {
        system: text(&body["instructions"]),
        max_tokens: body["max_output_tokens"].as_u64(),
        temperature: body["temperature"].as_f64(),
        thinks: body["reasoning"]["effort"] == "high" && body["reasoning"]["summary"].is_string(),
        stream: Some(body["stream"] == true),
        ..Ask::default()
    };
    if let Value::String(one) = &body["input"] {
        ask.turns.push(Turn { user: true, parts: vec![Part::Text(one.clone())] });
    }
    for item in list(&body["input"]) {
        let role = text(&item["role"]);
        if role == "system" || role == "developer" {
            ask.system.extend(list(&item["content"]).iter().map(|part| text(&part["text"])));
            continue;
        }
        let (user, parts) = item_parts(item);
        ask.turns.push(Turn { user, parts });
    }
    ask.tools = list(&body["tools"])
        .iter()
        .map(|tool| Tool {
            name: text(&tool["name"]),
            description: text(&tool["description"]),
            schema: tool["parameters"].clone(),
        })
        .collect();
    ask.choice = match &body["tool_choice"] {
        Value::String(word) if word == "auto" => Some(Choice::Auto),
        Value::String(word) if word == "required" => Some(Choice::Any),
        Value::Object(_) => Some(Choice::Named(text(&body["tool_choice"]["name"]))),
        _ => None,
    };
    ask
}

fn item_parts(item: &Value) -> (bool, Vec<Part>) {
    let id = text(&item["call_id"]);
    match text(&item["type"]).as_str() {
        "function_call" => {
            let (name, args) = (text(&item["name"]), parsed(&item["arguments"]));
            (false, vec![Part::Call { id, name, args }])
        }
        "function_call_output" => {
            let text = match &item["output"] {
                Value::Array(parts) => parts.iter().map(|part| text(&part["text"])).collect(),
                one => text(one),
            };
            (true, vec![Part::Result { id, text }])
        }
        "reasoning" => {
            let text = list(&item["summary"]).iter().map(|part| text(&part["text"])).collect();
            let signature = item["encrypted_content"].as_str().map(str::to_owned);
            (false, vec![Part::Thought { text, signature }])
        }
        _ => {
            let parts = match &item["content"] {
                Value::String(text) => vec![Part::Text(text.clone())],
                content => list(content).iter().map(part).collect(),
            };
            (item["role"] == "user", parts)
        }
    }
}

fn part(part: &Value) -> Part {
    match text(&part["type"]).as_str() {
        "input_image" => {
            let (mime, data) = from_data_url(&part["image_url"]);
            Part::Image { mime, data }
        }
        "input_file" => {
            let (mime, data) = from_data_url(&part["file_data"]);
            Part::Document { mime, data, name: part["filename"].as_str().map(str::to_owned) }
        }
        "refusal" => Part::Refusal(text(&part["refusal"])),
        _ => Part::Text(text(&part["text"])),
    }
}
