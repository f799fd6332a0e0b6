//! A request in the words of Gemini generateContent.

use crate::meaning::{Ask, Choice, Part, Tool, Turn, list, text, without_nulls};
use serde_json::{Value, json};

/// Thinking tokens that stand for high effort.
const BUDGET: u64 = 24_576;

/// The body of a client.
pub(crate) fn write(ask: &Ask) -> Value {
    let mut names: Vec<(String, String)> = Vec::new();
    let mut contents = Vec::new();
    for turn in &ask.turns {
        let parts: Vec<Value> = turn.parts.iter().map(|part| write_part(part, &mut names)).collect();
        contents.push(json!({"role": if turn.user { "user" } else { "model" }, "parts": parts}));
    }
    let tools = ask.tools.iter().map(
        |tool| json!({"name": tool.name, "description": tool.description, "parametersJsonSchema": tool.schema}),
    );
    let tools: Vec<Value> = tools.collect();
    let thinking = json!({"thinkingBudget": BUDGET, "includeThoughts": true});
    let config = without_nulls(json!({
        "maxOutputTokens": ask.max_tokens,
        "temperature": ask.temperature,
        "stopSequences": (!ask.stop.is_empty()).then_some(&ask.stop),
        "thinkingConfig": ask.thinks.then_some(thinking),
    }));
    without_nulls(json!({
        "systemInstruction": (!ask.system.is_empty()).then_some(json!({"parts": [{"text": ask.system}]})),
        "contents": contents,
        "tools": (!tools.is_empty()).then_some(json!([{"functionDeclarations": tools}])),
        "toolConfig": ask.choice.as_ref().map(|choice| json!({"functionCallingConfig": match choice {
            Choice::Auto => json!({"mode": "AUTO"}),
            Choice::Any => json!({"mode": "ANY"}),
            Choice::Named(name) => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
        }})),
        "generationConfig": config,
    }))
}

fn write_part(part: &Part, names: &mut Vec<(String, String)>) -> Value {
    match part {
        Part::Text(text) | Part::Refusal(text) => json!({"text": text}),
        Part::Image { mime, data } | Part::Document { mime, data, .. } => {
            json!({"inlineData": {"mimeType": mime, "data": data}})
        }
        Part::Call { id, name, args } => {
            names.push((id.clone(), name.clone()));
            json!({"functionCall": {"name": name, "args": args}})
        }
        Part::Result { id, text } => {
            let name = names.iter().find(|(call, _)| call == id).map(|(_, name)| name);
            json!({"functionResponse": {"name": name, "response": {"output": text}}})
        }
        Part::Thought { text, signature } => {
            without_nulls(json!({"text": text, "thought": true, "thoughtSignature": signature}))
        }
    }
}

/// What an upstream is asked.
pub(crate) fn read(body: &Value) -> Ask {
    let config = &body["generationConfig"];
    let thinking = &config["thinkingConfig"];
    let mut ask = Ask {
        system: list(&body["systemInstruction"]["parts"]).iter().map(|part| text(&part["text"])).collect(),
        max_tokens: config["maxOutputTokens"].as_u64(),
        temperature: config["temperature"].as_f64(),
        stop: list(&config["stopSequences"]).iter().map(text).collect(),
        thinks: thinking["thinkingBudget"] == BUDGET && thinking["includeThoughts"] == true,
        ..Ask::default()
    };
    for content in list(&body["contents"]) {
        let parts = list(&content["parts"]).iter().map(read_part).collect();
        ask.turns.push(Turn { user: content["role"] == "user", parts });
    }
    let declarations = list(&body["tools"]).iter().flat_map(|tool| list(&tool["functionDeclarations"]));
    ask.tools = declarations
        .map(|tool| Tool {
            name: text(&tool["name"]),
            description: text(&tool["description"]),
            schema: tool["parametersJsonSchema"].clone(),
        })
        .collect();
    let calling = &body["toolConfig"]["functionCallingConfig"];
    ask.choice = match (text(&calling["mode"]).as_str(), list(&calling["allowedFunctionNames"])) {
        ("AUTO", _) => Some(Choice::Auto),
        ("ANY", [name]) => Some(Choice::Named(text(name))),
        ("ANY", _) => Some(Choice::Any),
        _ => None,
    };
    ask
}

fn read_part(part: &Value) -> Part {
    if let Some(call) = part.get("functionCall") {
        return Part::Call { id: text(&call["id"]), name: text(&call["name"]), args: call["args"].clone() };
    }
    if let Some(result) = part.get("functionResponse") {
        let response = &result["response"];
        let value = response.get("output").or_else(|| response.get("result")).unwrap_or(response);
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        return Part::Result { id: self::text(&result["id"]), text };
    }
    if let Some(inline) = part.get("inlineData") {
        let (mime, data) = (text(&inline["mimeType"]), text(&inline["data"]));
        return if mime.starts_with("image/") {
            Part::Image { mime, data }
        } else {
            Part::Document { mime, data, name: inline["displayName"].as_str().map(str::to_owned) }
        };
    }
    let words = text(&part["text"]);
    if part["thought"] == true {
        let signature = part["thoughtSignature"].as_str().map(str::to_owned);
        return Part::Thought { text: words, signature };
    }
    Part::Text(words)
}
