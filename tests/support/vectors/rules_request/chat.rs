//! Chat Completions requests.

use super::{is_effort, is_name};
use crate::vectors::rules::Rules;
use crate::vectors::value::{arguments, elements, head, is_blank, is_one_of, is_set, list, text};
use serde_json::{Value, json};

const SHAPE: &str = "chat.shape";

pub(super) fn check(body: &Value, rules: &mut Rules) {
    if elements(&body["messages"]).is_empty() {
        return rules.add("chat.messages", "at least one message");
    }
    let mut open: Vec<&Value> = Vec::new();
    for (n, message) in rules.objects(body, "messages", SHAPE).into_iter().enumerate() {
        let role = &message["role"];
        let known = ["system", "developer", "user", "assistant", "tool", "function"];
        rules.need(is_one_of(role, &known), "chat.role", format_args!("messages[{n}].role {role}"));
        if role == "tool" {
            answer(message, &mut open, rules);
        } else {
            let calls = list(&open);
            let seen = format_args!("calls {calls} not answered before messages[{n}]");
            rules.need(open.is_empty(), "chat.tool_pairing", seen);
            open.clear();
        }
        let calls = &message["tool_calls"];
        if role == "assistant" {
            for call in rules.objects(message, "tool_calls", SHAPE) {
                check_call(call, rules);
                open.push(&call["id"]);
            }
            rules.need(*calls != json!([]), "chat.empty_tool_calls", "empty tool_calls array");
        }
        let other = role == "assistant"
            && ["tool_calls", "refusal", "audio"].iter().any(|key| is_set(&message[*key]));
        let speaks = is_one_of(role, &["assistant", "user", "system", "developer"]);
        let empty = speaks && is_blank(&message["content"]) && !other;
        rules.need(!empty, "chat.empty_message", format_args!("{role} messages[{n}] is empty"));
        if message["content"].is_array() {
            for part in rules.objects(message, "content", SHAPE) {
                let kind = &part["type"];
                let kinds = ["text", "image_url", "input_audio", "file", "refusal"];
                rules.need(is_one_of(kind, &kinds), "chat.part_type", kind);
            }
        }
    }
    check_tools(body, rules);
    let effort = &body["reasoning_effort"];
    rules.need(is_effort(effort), "chat.effort_enum", effort);
}

fn answer(message: &Value, open: &mut Vec<&Value>, rules: &mut Rules) {
    let id = &message["tool_call_id"];
    let seen = format_args!("tool message {id} answers no open call");
    rules.need(open.contains(&id), "chat.tool_pairing", seen);
    open.retain(|call| *call != id);
    let content = &message["content"];
    let there = content.is_string() || content.is_array();
    rules.need(there, "chat.tool_content", "tool message without content");
}

fn check_call(call: &Value, rules: &mut Rules) {
    rules.need(is_set(&call["id"]), "chat.tool_shape", "tool call without id");
    let function = rules.object(call, "function", SHAPE);
    if call["type"] != "function" {
        return;
    }
    rules.need(is_name(&function["name"], 64), "chat.tool_name", &function["name"]);
    let args = &function["arguments"];
    if !args.is_string() {
        return rules.add("chat.tool_args_json", "arguments is not a string");
    }
    let object = arguments(args).is_object() && !text(args).trim().is_empty();
    rules.need(object, "chat.tool_args_json", format_args!("arguments {:?}", head(text(args), 40)));
}

fn check_tools(body: &Value, rules: &mut Rules) {
    for tool in rules.objects(body, "tools", SHAPE) {
        let kind = &tool["type"];
        rules.need(is_one_of(kind, &["function", "custom"]), "chat.tool_type", kind);
        let function = rules.object(tool, "function", SHAPE);
        let named = kind != "function" || is_name(&function["name"], 64);
        rules.need(named, "chat.tool_name", &function["name"]);
    }
    rules.need(body["tools"] != json!([]), "chat.empty_tools", "empty tools array");
    let choice = &body["tool_choice"];
    if choice.is_null() {
        return;
    }
    rules.need(is_set(&body["tools"]), "chat.tool_choice", "tool_choice without tools");
    let kind = &choice["type"];
    let object = is_one_of(kind, &["function", "custom", "allowed_tools"]) && is_set(&choice[text(kind)]);
    let legal = object || is_one_of(choice, &["none", "auto", "required"]);
    rules.need(legal, "chat.tool_choice", choice);
}

#[cfg(test)]
mod tests {
    use super::super::broken;
    use super::*;
    use crate::vectors::rules::testing::{changed, every_rule_breaks};

    fn base() -> Value {
        json!({
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "u", "type": "custom", "custom": {"name": "g", "input": ""}}]},
                {"role": "tool", "tool_call_id": "u", "content": "1"},
                {"role": "tool", "tool_call_id": "t", "content": []},
                {"role": "assistant", "content": "b"},
            ],
            "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "g"}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "reasoning_effort": "low",
        })
    }

    #[test]
    fn a_good_request_breaks_nothing() {
        assert_eq!(broken("openai", &base()), [""; 0]);
        assert_eq!(broken("openai", &json!({"messages": [{"role": "user", "content": "hi"}]})), [""; 0]);
    }

    #[test]
    fn every_rule_breaks_once() {
        let example = |pointer: &str, to: Value| broken("openai", &changed(&base(), pointer, Some(to)));
        let without = |pointer: &str| broken("openai", &changed(&base(), pointer, None));
        let call = "/messages/2/tool_calls/0";
        let examples = [
            ("chat.messages", example("/messages", json!([]))),
            ("chat.role", example("/messages/0/role", json!("model"))),
            ("chat.tool_pairing", without("/messages/4")),
            ("chat.tool_pairing", example("/messages/4/tool_call_id", json!("x"))),
            ("chat.tool_pairing", example("/messages/4/tool_call_id", json!("u"))),
            ("chat.tool_pairing", example("/messages/2/tool_calls/0/id", json!("x"))),
            ("chat.tool_content", without("/messages/3/content")),
            ("chat.tool_shape", without(&format!("{call}/id"))),
            ("chat.tool_name", example(&format!("{call}/function/name"), json!("a.b"))),
            ("chat.tool_name", example("/tools/0/function/name", json!("n".repeat(65)))),
            ("chat.tool_args_json", example(&format!("{call}/function/arguments"), json!({}))),
            ("chat.tool_args_json", example(&format!("{call}/function/arguments"), json!(""))),
            ("chat.tool_args_json", example(&format!("{call}/function/arguments"), json!("[]"))),
            ("chat.empty_message", example("/messages/5/content", json!(""))),
            ("chat.empty_message", example("/messages/0/content", json!([]))),
            ("chat.empty_message", without("/messages/1/content")),
            ("chat.empty_tool_calls", example("/messages/5/tool_calls", json!([]))),
            ("chat.empty_tools", example("/tools", json!([]))),
            ("chat.part_type", example("/messages/1/content/0/type", json!("input_text"))),
            ("chat.tool_type", example("/tools/0/type", json!("web_search"))),
            ("chat.tool_choice", without("/tools")),
            ("chat.tool_choice", example("/tool_choice", json!("any"))),
            ("chat.tool_choice", without("/tool_choice/function")),
            ("chat.effort_enum", example("/reasoning_effort", json!("auto"))),
            ("chat.shape", example("/messages/0", json!("x"))),
        ];
        every_rule_breaks(include_str!("chat.rs"), &examples);
    }
}
