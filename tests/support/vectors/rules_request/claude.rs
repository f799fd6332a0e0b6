//! Claude Messages requests.

use super::is_name;
use crate::vectors::rules::Rules;
use crate::vectors::value::{elements, is_integer, is_one_of, is_set, list, same_values, text};
use serde_json::{Value, json};

const SHAPE: &str = "claude.shape";

/// Members of the request object.
const KNOWN: [&str; 29] = [
    "anthropic_version",
    "betas",
    "billing_policy",
    "cache_control",
    "compaction",
    "container",
    "context_management",
    "diagnostics",
    "fallbacks",
    "inference_geo",
    "max_tokens",
    "mcp_servers",
    "messages",
    "metadata",
    "model",
    "output_config",
    "output_format",
    "service_tier",
    "speed",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "thread",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
];

/// Members of the request object that are ids.
const KNOWN_IDS: [&str; 2] = ["user_profile_id", "workspace_id"];

pub(super) fn check(body: &Value, rules: &mut Rules) {
    let limit = is_integer(&body["max_tokens"]) && body["max_tokens"].as_u64() >= Some(1);
    rules.need(limit, "claude.max_tokens", "required positive integer");
    if elements(&body["messages"]).is_empty() {
        return rules.add("claude.messages", "at least one message");
    }
    let messages = rules.objects(body, "messages", SHAPE);
    let first = messages.first().is_some_and(|message| message["role"] == "user");
    rules.need(first, "claude.first_user", "first message is not user");
    let mut open = Vec::new();
    let last = messages.len().saturating_sub(1);
    for (n, message) in messages.into_iter().enumerate() {
        open = check_message(n, n == last, message, &open, rules);
    }
    check_thinking(body, rules);
    check_tools(body, rules);
    for key in body.as_object().into_iter().flatten().map(|(key, _)| key.as_str()) {
        let known = KNOWN.contains(&key) || KNOWN_IDS.contains(&key);
        rules.need(known, "claude.unknown_field", key);
    }
}

/// Checks a message against the calls that are `open` before it; returns those that are open after it.
fn check_message<'v>(
    n: usize,
    last: bool,
    message: &'v Value,
    open: &[&'v Value],
    rules: &mut Rules,
) -> Vec<&'v Value> {
    let (role, content) = (&message["role"], &message["content"]);
    rules.need(is_one_of(role, &["user", "assistant", "system"]), "claude.role", role);
    rules.need(*content != json!(""), "claude.empty_text", format_args!("messages[{n}] is an empty string"));
    if !content.is_array() && !content.is_string() {
        rules.add("claude.content", format_args!("messages[{n}].content"));
        return open.to_vec();
    }
    let prefill = last && role == "assistant";
    let filled = prefill || *content != json!([]);
    rules.need(filled, "claude.content", format_args!("messages[{n}].content is empty"));
    let blocks = if content.is_array() { rules.objects(message, "content", SHAPE) } else { Vec::new() };
    let (mut results, mut calls, mut other) = (Vec::new(), Vec::new(), false);
    for block in blocks {
        check_block(n, block, rules);
        match text(&block["type"]) {
            "tool_use" => calls.push(&block["id"]),
            "tool_result" => {
                let seen = format_args!("tool_result after other content in messages[{n}]");
                rules.need(!other, "claude.result_first", seen);
                results.push(&block["tool_use_id"]);
            }
            _ => {}
        }
        other |= block["type"] != "tool_result";
    }
    let (answered, asked) = (list(&results), list(open));
    let seen = format_args!("messages[{n}] answers {answered}, open calls {asked}");
    rules.need(same_values(&results, open), "claude.tool_pairing", seen);
    let twice = results.iter().enumerate().any(|(at, id)| results.iter().take(at).any(|other| other == id));
    rules.need(!twice, "claude.tool_pairing", "duplicate tool_result");
    if role == "assistant" { calls } else { Vec::new() }
}

fn check_block(n: usize, block: &Value, rules: &mut Rules) {
    match text(&block["type"]) {
        "text" => {
            let seen = format_args!("empty text block in messages[{n}]");
            rules.need(is_set(&block["text"]), "claude.empty_text", seen);
        }
        "tool_use" => {
            rules.need(is_name(&block["id"], usize::MAX), "claude.tool_id", &block["id"]);
            rules.need(is_name(&block["name"], 128), "claude.tool_name", &block["name"]);
            let object = block["input"].is_object();
            rules.need(object, "claude.tool_input", "tool_use.input is not an object");
        }
        "image" => {
            let source = rules.object(block, "source", SHAPE);
            let data = text(&source["data"]);
            let url = source["type"] == "base64" && (data.starts_with("http") || data.starts_with("data:"));
            rules.need(!url, "claude.image_data", "URL in base64 data");
        }
        "thinking" => {
            let signed = block["signature"].is_string();
            rules.need(signed, "claude.thinking_signature", "thinking block without signature");
        }
        _ => {}
    }
}

fn check_thinking(body: &Value, rules: &mut Rules) {
    let thinking = rules.object(body, "thinking", SHAPE);
    let (budget, limit) = (&thinking["budget_tokens"], &body["max_tokens"]);
    if thinking["type"] == "enabled" {
        let enough = is_integer(budget) && budget.as_u64() >= Some(1024);
        rules.need(enough, "claude.budget_min", format_args!("budget_tokens {budget}"));
        let fits = !enough || !is_integer(limit) || budget.as_i64() < limit.as_i64();
        rules.need(fits, "claude.budget_lt_max", format_args!("{budget} >= {limit}"));
    }
    let thinks = is_one_of(&thinking["type"], &["enabled", "adaptive"]);
    let seen = "thinking together with forced tool_choice";
    rules.need(!(thinks && forced(body)), "claude.thinking_forced_tool", seen);
    let effort = &rules.object(body, "output_config", SHAPE)["effort"];
    let known = effort.is_null() || is_one_of(effort, &["low", "medium", "high", "xhigh", "max"]);
    rules.need(known, "claude.effort_enum", effort);
}

fn forced(body: &Value) -> bool {
    is_one_of(&body["tool_choice"]["type"], &["any", "tool"])
}

fn check_tools(body: &Value, rules: &mut Rules) {
    let choice = &body["tool_choice"];
    let legal = choice.is_null() || is_one_of(&choice["type"], &["auto", "any", "tool", "none"]);
    rules.need(legal, "claude.tool_choice", choice);
    let possible = !forced(body) || is_set(&body["tools"]);
    rules.need(possible, "claude.tool_choice", "forced choice without tools");
    for tool in rules.objects(body, "tools", SHAPE) {
        if !tool["type"].is_null() && tool["type"] != "custom" {
            continue;
        }
        rules.need(is_name(&tool["name"], 128), "claude.tool_name", &tool["name"]);
        let object = tool["input_schema"]["type"] == "object";
        rules.need(object, "claude.input_schema", "tool without input_schema of type object");
    }
}

#[cfg(test)]
mod tests {
    use super::super::broken;
    use super::*;
    use crate::vectors::rules::testing::{changed, every_rule_breaks};

    fn base() -> Value {
        json!({
            "max_tokens": 2048,
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "t", "signature": "s"},
                    {"type": "text", "text": "b"},
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
                    {"type": "tool_use", "id": "t2", "name": "f", "input": {}}]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t2", "content": "1"},
                    {"type": "tool_result", "tool_use_id": "t1", "content": "1"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}]},
                {"role": "assistant", "content": []},
            ],
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "output_config": {"effort": "max"},
            "tools": [{"name": "f", "input_schema": {"type": "object"}}, {"type": "bash_20250124", "name": "b"}],
            "tool_choice": {"type": "auto"},
        })
    }

    #[test]
    fn a_good_request_breaks_nothing() {
        assert_eq!(broken("claude", &base()), [""; 0]);
    }

    #[test]
    fn every_rule_breaks_once() {
        let example = |pointer: &str, to: Value| broken("claude", &changed(&base(), pointer, Some(to)));
        let without = |pointer: &str| broken("claude", &changed(&base(), pointer, None));
        let unarmed = changed(&changed(&base(), "/tools", None), "/tool_choice/type", Some(json!("any")));
        let examples = [
            ("claude.max_tokens", without("/max_tokens")),
            ("claude.max_tokens", example("/max_tokens", json!(0))),
            ("claude.messages", example("/messages", json!([]))),
            ("claude.first_user", without("/messages/0")),
            ("claude.role", example("/messages/0/role", json!("developer"))),
            ("claude.content", without("/messages/0/content")),
            ("claude.content", example("/messages/0/content", json!([]))),
            ("claude.empty_text", example("/messages/0/content", json!(""))),
            ("claude.empty_text", example("/messages/1/content/1/text", json!(""))),
            ("claude.tool_id", example("/messages/1/content/2/id", json!("a.b"))),
            ("claude.tool_name", example("/messages/1/content/2/name", json!("a b"))),
            ("claude.tool_name", example("/tools/0/name", json!("n".repeat(129)))),
            ("claude.tool_input", example("/messages/1/content/2/input", json!("{}"))),
            (
                "claude.result_first",
                example("/messages/2/content/-", base()["messages"][2]["content"][0].clone()),
            ),
            ("claude.tool_pairing", without("/messages/2/content/1")),
            ("claude.tool_pairing", without("/messages/2")),
            ("claude.tool_pairing", example("/messages/2/content/1/tool_use_id", json!("t2"))),
            (
                "claude.image_data",
                example("/messages/2/content/2/source/data", json!("data:image/png;base64,AA==")),
            ),
            ("claude.thinking_signature", without("/messages/1/content/0/signature")),
            ("claude.budget_min", example("/thinking/budget_tokens", json!(1023))),
            ("claude.budget_lt_max", example("/thinking/budget_tokens", json!(2048))),
            ("claude.thinking_forced_tool", example("/tool_choice/type", json!("any"))),
            ("claude.effort_enum", example("/output_config/effort", json!("minimal"))),
            ("claude.tool_choice", example("/tool_choice", json!("auto"))),
            ("claude.tool_choice", broken("claude", &unarmed)),
            ("claude.input_schema", example("/tools/0/input_schema", json!({}))),
            ("claude.unknown_field", example("/max_completion_tokens", json!(1))),
            ("claude.shape", example("/thinking", json!("on"))),
        ];
        every_rule_breaks(include_str!("claude.rs"), &examples);
    }
}
