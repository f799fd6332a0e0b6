//! Rules of whole answers.
//!
//! Enters: a client's body. Leaves: the broken rules. An error body is not checked.

use super::fold::{CHAT_FINISH, CLAUDE_STOP, COMPLETIONS_FINISH, GEMINI_FINISH};
use super::rules::Rules;
use super::value::{arguments, has, is_integer, is_one_of, is_set};
use serde_json::Value;

/// The rules that `body` breaks, in the client format `format`.
pub(super) fn broken(format: &str, body: &Value) -> Vec<String> {
    if !body.is_object() {
        return vec![format!("{format}.body: not an object")];
    }
    if body["error"].is_object() {
        return Vec::new();
    }
    let mut rules = Rules::default();
    match format {
        "openai" => chat(body, &mut rules),
        "claude" => claude(body, &mut rules),
        "gemini" | "gemini-cli" => gemini(body, &mut rules),
        "openai-response" => responses(body, &mut rules),
        "openai-completions" => completions(body, &mut rules),
        _ => {}
    }
    rules.into_broken()
}

fn chat(body: &Value, rules: &mut Rules) {
    rules.need(body["object"] == "chat.completion", "chat.object", "object is not chat.completion");
    rules.need(is_set(&body["id"]), "chat.same_id", "id missing");
    rules.need(is_set(&body["choices"]), "chat.choices", "choices missing or empty");
    for choice in rules.objects(body, "choices", "chat.shape") {
        let message = rules.object(choice, "message", "chat.shape");
        rules.need(message["role"] == "assistant", "chat.role", "message.role is not assistant");
        let finish = &choice["finish_reason"];
        rules.need(is_one_of(finish, &CHAT_FINISH), "chat.finish_enum", finish);
        let calls = rules.objects(message, "tool_calls", "chat.shape");
        let unsaid = !calls.is_empty() && finish == "stop";
        rules.need(!unsaid, "chat.finish_tool_calls", "tool calls but finish_reason stop");
        let without = calls.is_empty() && finish == "tool_calls";
        rules.need(!without, "chat.finish_tool_calls", "finish_reason tool_calls without tool calls");
        for call in calls.into_iter().filter(|call| !has(call, "type") || call["type"] == "function") {
            let function = rules.object(call, "function", "chat.shape");
            let named = is_set(&call["id"]) && is_set(&function["name"]);
            if !named || !function["arguments"].is_string() {
                rules.add("chat.tool_shape", "tool call without id, name or string arguments");
            } else if arguments(&function["arguments"]).is_null() && finish != "length" {
                rules.add("chat.tool_args_json", "arguments do not parse");
            }
        }
    }
}

fn claude(body: &Value, rules: &mut Rules) {
    let named = body["type"] == "message" && body["role"] == "assistant" && is_set(&body["id"]);
    rules.need(named, "claude.body", "id, type or role");
    let stop = &body["stop_reason"];
    rules.need(is_one_of(stop, &CLAUDE_STOP), "claude.stop_enum", stop);
    let usage = rules.object(body, "usage", "claude.shape");
    for key in ["input_tokens", "output_tokens"] {
        rules.need(is_integer(&usage[key]), "claude.usage", format_args!("usage.{key} missing"));
    }
    rules.need(body["content"].is_array(), "claude.body", "content is not an array");
    let mut blocks = rules.objects(body, "content", "claude.shape");
    blocks.retain(|block| block["type"] == "tool_use");
    let unsaid = !blocks.is_empty() && stop == "end_turn";
    rules.need(!unsaid, "claude.stop_tool_use", "tool_use blocks but end_turn");
    for block in blocks {
        let whole = block["input"].is_object() && is_set(&block["id"]) && is_set(&block["name"]);
        rules.need(whole, "claude.tool_shape", "tool_use without id, name or object input");
    }
}

fn gemini(body: &Value, rules: &mut Rules) {
    let inner = !has(body, "candidates") && has(body, "response");
    let body = if inner { rules.object(body, "response", "gemini.shape") } else { body };
    for candidate in rules.objects(body, "candidates", "gemini.shape") {
        let finish = &candidate["finishReason"];
        rules.need(is_one_of(finish, &GEMINI_FINISH), "gemini.finish_enum", finish);
        let content = rules.object(candidate, "content", "gemini.shape");
        let role = &content["role"];
        rules.need(role.is_null() || role == "model", "gemini.role", role);
        for part in
            rules.objects(content, "parts", "gemini.shape").into_iter().filter(|p| has(p, "functionCall"))
        {
            let call = rules.object(part, "functionCall", "gemini.shape");
            let whole = is_set(&call["name"]) && (!has(call, "args") || call["args"].is_object());
            rules.need(whole, "gemini.fc_shape", "functionCall without name or with args that are no object");
        }
    }
}

fn responses(body: &Value, rules: &mut Rules) {
    let object = body["object"] == "response";
    rules.need(object, "responses.final_shape", "object is not response");
    let status = &body["status"];
    let known = ["completed", "incomplete", "failed", "in_progress", "queued", "cancelled"];
    rules.need(is_one_of(status, &known), "responses.status", status);
    rules.need(body["output"].is_array(), "responses.final_shape", "output missing");
    for item in rules.objects(body, "output", "responses.shape") {
        let kind = &item["type"];
        let named = is_set(&item["call_id"]) && is_set(&item["name"]) && item["arguments"].is_string();
        rules.need(kind != "function_call" || named, "responses.item_shape", "function_call");
        let nameless = is_one_of(kind, &["message", "reasoning", "function_call"]) && !is_set(&item["id"]);
        rules.need(!nameless, "responses.item_shape", format_args!("{kind} item without id"));
    }
}

fn completions(body: &Value, rules: &mut Rules) {
    let object = &body["object"];
    rules.need(object == "text_completion", "completions.object", object);
    for choice in rules.objects(body, "choices", "completions.shape") {
        let finish = &choice["finish_reason"];
        rules.need(is_one_of(finish, &COMPLETIONS_FINISH), "completions.finish_enum", finish);
        rules.need(choice["text"].is_string(), "completions.text", "text is not a string");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::rules::testing::{changed, every_rule_breaks};
    use serde_json::json;

    fn good(format: &str) -> Value {
        match format {
            "openai" => {
                json!({"object": "chat.completion", "id": "c", "choices": [{"finish_reason": "tool_calls", "message": {
                "role": "assistant", "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}}]})
            }
            "claude" => json!({"id": "m", "type": "message", "role": "assistant", "stop_reason": "tool_use",
                "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}],
                "usage": {"input_tokens": 1, "output_tokens": 2}}),
            "openai-response" => json!({"object": "response", "status": "completed", "output": [
                {"id": "fc", "type": "function_call", "call_id": "c", "name": "f", "arguments": ""}]}),
            "gemini" => json!({"candidates": [{"finishReason": "STOP", "content": {
                "role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]}}]}),
            _ => json!({"object": "text_completion", "choices": [{"text": "", "finish_reason": "stop"}]}),
        }
    }

    const FORMATS: [&str; 5] = ["openai", "claude", "openai-response", "gemini", "openai-completions"];

    #[test]
    fn good_answers_and_errors_break_nothing() {
        for format in FORMATS {
            assert_eq!(broken(format, &good(format)), [""; 0]);
            assert_eq!(broken(format, &json!({"error": {"message": "m"}})), [""; 0]);
            assert_eq!(broken(format, &json!([])), [format!("{format}.body: not an object")]);
        }
        assert_eq!(broken("gemini-cli", &json!({"response": good("gemini")})), [""; 0]);
    }

    #[test]
    fn every_rule_breaks_once() {
        let with = |format: &str, pointer: &str, to: Value| {
            broken(format, &changed(&good(format), pointer, Some(to)))
        };
        let chat = |pointer: &str, to: Value| with("openai", pointer, to);
        let claude = |pointer: &str, to: Value| with("claude", pointer, to);
        let gemini = |pointer: &str, to: Value| with("gemini", pointer, to);
        let responses = |pointer: &str, to: Value| with("openai-response", pointer, to);
        let completions = |pointer: &str, to: Value| with("openai-completions", pointer, to);
        let call = "/choices/0/message/tool_calls/0/function";
        let gemini_call = "/candidates/0/content/parts/0/functionCall";
        let examples = [
            ("chat.object", chat("/object", json!("chat.completion.chunk"))),
            ("chat.same_id", chat("/id", json!(""))),
            ("chat.choices", chat("/choices", json!([]))),
            ("chat.role", chat("/choices/0/message/role", json!("user"))),
            ("chat.finish_enum", chat("/choices/0/finish_reason", Value::Null)),
            ("chat.finish_tool_calls", chat("/choices/0/finish_reason", json!("stop"))),
            ("chat.finish_tool_calls", chat("/choices/0/message/tool_calls", json!([]))),
            ("chat.tool_shape", chat(&format!("{call}/arguments"), json!({}))),
            ("chat.tool_args_json", chat(&format!("{call}/arguments"), json!("{"))),
            ("chat.shape", chat("/choices/0/message", json!("x"))),
            ("claude.body", claude("/id", Value::Null)),
            ("claude.body", claude("/content", Value::Null)),
            ("claude.stop_enum", claude("/stop_reason", json!("stop"))),
            ("claude.usage", claude("/usage/output_tokens", json!(1.5))),
            ("claude.stop_tool_use", claude("/stop_reason", json!("end_turn"))),
            ("claude.tool_shape", claude("/content/0/input", json!("{}"))),
            ("claude.shape", claude("/content/0", json!("x"))),
            ("gemini.finish_enum", gemini("/candidates/0/finishReason", json!("stop"))),
            ("gemini.role", gemini("/candidates/0/content/role", json!("assistant"))),
            ("gemini.fc_shape", gemini(&format!("{gemini_call}/name"), json!(""))),
            ("gemini.fc_shape", gemini(&format!("{gemini_call}/args"), json!("{}"))),
            ("gemini.shape", gemini("/candidates/0", json!(1))),
            ("responses.final_shape", responses("/object", json!("x"))),
            ("responses.final_shape", responses("/output", Value::Null)),
            ("responses.status", responses("/status", json!("done"))),
            ("responses.item_shape", responses("/output/0/arguments", json!({}))),
            ("responses.item_shape", responses("/output/0/id", Value::Null)),
            ("responses.shape", responses("/output/0", json!(1))),
            ("completions.object", completions("/object", Value::Null)),
            ("completions.finish_enum", completions("/choices/0/finish_reason", json!("tool_calls"))),
            ("completions.text", completions("/choices/0/text", Value::Null)),
            ("completions.shape", completions("/choices/0", json!(1))),
        ];
        every_rule_breaks(include_str!("rules_response.rs"), &examples);
    }
}
