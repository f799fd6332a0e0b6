//! Loose reading of JSON that nobody has checked: outputs under test may have any shape.
//!
//! Enters: any value. Leaves: a part of it, or null or empty text where it is not what was expected; the
//! rules say whether that is a failure. Nothing may go wrong.

use serde::Serialize;
use serde_json::ser::Formatter;
use serde_json::{Serializer, Value};
use std::io::{self, Write};

/// Whether a value holds something: not null, false, 0, or empty.
pub(super) fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

/// Whether a member is there, also with null.
pub(super) fn has(value: &Value, key: &str) -> bool {
    value.get(key).is_some()
}

/// The text of a string, else nothing.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether a value is null, `""` or `[]`.
pub(super) fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// Whether a value is one of these words.
pub(super) fn is_one_of(value: &Value, words: &[&str]) -> bool {
    value.as_str().is_some_and(|word| words.contains(&word))
}

/// Whether a number is written without a fraction.
pub(super) fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64()
}

/// The elements of an array, else none.
pub(super) fn elements(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The value of a call's argument text: `{}` for blank text, null for text that is no JSON.
pub(super) fn arguments(value: &Value) -> Value {
    match value.as_str() {
        None => Value::Null,
        Some(text) if text.trim().is_empty() => Value::Object(serde_json::Map::new()),
        Some(text) => serde_json::from_str(text).unwrap_or_default(),
    }
}

/// Deep equality; numbers by value.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            x == y || (x.is_f64() || y.is_f64()) && x.as_f64() == y.as_f64()
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len()
                && x.iter().all(|(key, value)| y.get(key).is_some_and(|other| equal(value, other)))
        }
        _ => a == b,
    }
}

/// Whether two lists hold the same values, each as often.
pub(super) fn same_values(a: &[&Value], b: &[&Value]) -> bool {
    let sorted = |list: &[&Value]| {
        let mut texts: Vec<String> = list.iter().map(ToString::to_string).collect();
        texts.sort();
        texts
    };
    sorted(a) == sorted(b)
}

/// A list of values for a message.
pub(super) fn list(values: &[&Value]) -> String {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    format!("[{}]", texts.join(", "))
}

/// The first `most` characters.
pub(super) fn head(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// JSON with `", "` and `": "` between, and non-ASCII as it is: what `has_text` looks into.
pub(super) fn dump(value: &Value) -> String {
    let mut out = Vec::new();
    let written = value.serialize(&mut Serializer::with_formatter(&mut out, Spaced));
    debug_assert!(written.is_ok(), "a value can always be written");
    String::from_utf8(out).unwrap_or_default()
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_equal_by_value_and_nothing_else_is_converted() {
        assert!(equal(&json!({"a": [1, 2.0]}), &json!({"a": [1.0, 2]})));
        assert!(!equal(&json!(1), &json!(true)));
        assert!(!equal(&json!("1"), &json!(1)));
        assert!(!equal(&json!({"a": 1}), &json!({"a": 1, "b": null})));
        assert!(!equal(&json!(9_007_199_254_740_993_i64), &json!(9_007_199_254_740_992_i64)));
    }

    #[test]
    fn dumped_text_has_blanks_and_keeps_order_and_letters() {
        assert_eq!(dump(&json!({"b": [1, "é\n"], "a": {}})), r#"{"b": [1, "é\n"], "a": {}}"#);
    }

    #[test]
    fn blank_arguments_are_an_empty_object() {
        assert_eq!(arguments(&json!(" ")), json!({}));
        assert_eq!(arguments(&json!("{\"a\":1}")), json!({"a": 1}));
        assert_eq!(arguments(&json!("{")), Value::Null);
        assert_eq!(arguments(&Value::Null), Value::Null);
    }

    #[test]
    fn heads_count_characters() {
        assert_eq!(head("äöü", 2), "äö");
        assert_eq!(head("ä", 2), "ä");
    }
}
