//! One spelling for bodies of Gemini-like upstreams, which take lowerCamelCase and snake_case.

use serde_json::{Map, Value};

/// Members whose content is the client's: user data and schemas.
const OPAQUE: [&str; 7] = [
    "args",
    "response",
    "parameters",
    "parametersJsonSchema",
    "responseSchema",
    "responseJsonSchema",
    "labels",
];

/// `snake_case` as `snakeCase`.
pub(super) fn camel(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    let mut letters = key.chars().peekable();
    while let Some(letter) = letters.next() {
        match letters.peek() {
            Some(next) if letter == '_' && next.is_ascii_lowercase() => {
                out.push(next.to_ascii_uppercase());
                letters.next();
            }
            _ => out.push(letter),
        }
    }
    out
}

/// The value with every key in lowerCamelCase, but for what is the client's.
pub(super) fn normalise(value: &Value) -> Value {
    match value {
        Value::Array(list) => list.iter().map(normalise).collect(),
        Value::Object(members) => {
            let mut out = Map::new();
            for (key, value) in members {
                let key = camel(key);
                if out.contains_key(&key) {
                    continue;
                }
                let envelope = key == "response" && value.get("candidates").is_some();
                let opaque = OPAQUE.contains(&key.as_str()) && !envelope;
                out.insert(key, if opaque { value.clone() } else { normalise(value) });
            }
            Value::Object(out)
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_camel_case_outside_of_what_the_client_wrote() {
        let body = json!({"system_instruction": {"a_b": [{"c_d": 1}]}, "systemInstruction": 2,
            "x": {"function_call": {"args": {"a_b": 1}}}, "response": {"a_b": 1}, "y": {"response": {"candidates": [], "a_b": 1}}});
        let want = json!({"systemInstruction": {"aB": [{"cD": 1}]},
            "x": {"functionCall": {"args": {"a_b": 1}}}, "response": {"a_b": 1}, "y": {"response": {"candidates": [], "aB": 1}}});
        assert_eq!(normalise(&body), want);
    }

    #[test]
    fn only_a_blank_before_a_letter_is_spelling() {
        for (key, spelled) in [("a__b", "a_B"), ("_a", "A"), ("a_", "a_"), ("a_1", "a_1"), ("a_B", "a_B")] {
            assert_eq!(camel(key), spelled);
        }
    }
}
