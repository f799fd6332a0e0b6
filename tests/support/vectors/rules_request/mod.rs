//! What an upstream insists on, whatever the client sent.
//!
//! Enters: a body as it goes to the upstream. Leaves: the broken rules.

mod chat;
mod claude;
mod gemini;
mod responses;

use super::rules::Rules;
use serde_json::Value;

/// The rules that `body` breaks, in the upstream format `format`.
pub(super) fn broken(format: &str, body: &Value) -> Vec<String> {
    if !body.is_object() {
        return vec![format!("{format}.body: not an object")];
    }
    let mut rules = Rules::default();
    match format {
        "openai" => chat::check(body, &mut rules),
        "claude" => claude::check(body, &mut rules),
        "openai-response" => responses::check(body, &mut rules),
        "codex" => responses::check_codex(body, &mut rules),
        "gemini" => gemini::check(body, &mut rules),
        "gemini-cli" | "antigravity" => gemini::check_envelope(format, body, &mut rules),
        _ => {}
    }
    rules.into_broken()
}

/// Whether a value is a name of 1 to `most` letters, digits, `_` and `-`.
fn is_name(value: &Value, most: usize) -> bool {
    value.as_str().is_some_and(|name| {
        (1..=most).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    })
}

/// Levels of effort that OpenAI's formats have, or no word.
fn is_effort(value: &Value) -> bool {
    let words = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
    value.is_null() || super::value::is_one_of(value, &words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_body_that_is_no_object_is_named_after_the_format() {
        assert_eq!(broken("codex", &json!([])), ["codex.body: not an object"]);
        assert_eq!(broken("kiro", &json!({})), [""; 0]);
    }

    #[test]
    fn names_have_a_length_and_an_alphabet() {
        assert!(is_name(&json!("a_B-9"), 5));
        for bad in [json!(""), json!("a_B-9x"), json!("a.b"), json!("ä"), json!(7), Value::Null] {
            assert!(!is_name(&bad, 5), "{bad}");
        }
    }
}
