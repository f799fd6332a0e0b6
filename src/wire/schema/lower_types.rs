//! Gemini's `Schema` message → JSON Schema.
//!
//! Enters: a schema with `"type":"OBJECT"`, `nullable` and numbers in strings (protobuf writes 64-bit ones so),
//! or one that is JSON Schema already. Leaves: JSON Schema; the client's own text when nothing had to change.
//! May go wrong: nothing.

use crate::ir::RawJson;
use crate::json::{Json, Map};

/// Makes `schema` JSON Schema.
pub fn lower_types<'a>(schema: &RawJson<'a>) -> RawJson<'a> {
    let mut value = schema.parse();
    let mut changed = false;
    lower(&mut value, &mut changed);
    if changed { RawJson(value.to_text().into()) } else { schema.clone() }
}

fn lower(schema: &mut Json<'_>, changed: &mut bool) {
    let Json::Object(map) = schema else { return };
    for (snake, camel) in SPELLINGS {
        if let Some(value) = map.remove(snake) {
            *changed = true;
            map.set(camel, value);
        }
    }
    for (key, value) in &mut map.0 {
        match (key.as_ref(), value) {
            ("type", Json::Str(word)) => lower_word(word, changed),
            ("type", Json::Array(words)) => {
                for word in words {
                    if let Json::Str(word) = word {
                        lower_word(word, changed);
                    }
                }
            }
            ("properties" | "$defs" | "definitions" | "patternProperties", Json::Object(inner)) => {
                inner.0.iter_mut().for_each(|(_, value)| lower(value, changed));
            }
            ("items" | "additionalProperties" | "not", value @ Json::Object(_)) => lower(value, changed),
            ("anyOf" | "oneOf" | "allOf" | "prefixItems" | "items", Json::Array(all)) => {
                for value in all {
                    lower(value, changed);
                }
            }
            (name, value) if NUMBERS.contains(&name) => {
                if let Some(number) = value.as_str().and_then(|text| text.parse().ok()) {
                    *value = Json::Uint(number);
                    *changed = true;
                }
            }
            _ => {}
        }
    }
    *changed |= map.remove("propertyOrdering").is_some();
    match map.remove("nullable") {
        None => {}
        Some(Json::Bool(true)) => {
            *changed = true;
            make_nullable(map);
        }
        Some(_) => *changed = true,
    }
    if let Some(example) = map.remove("example") {
        *changed = true;
        map.set("examples", Json::Array(vec![example]));
    }
}

/// Members of the message that JSON Schema spells differently from protobuf's own names.
const SPELLINGS: [(&str, &str); 11] = [
    ("any_of", "anyOf"),
    ("max_items", "maxItems"),
    ("min_items", "minItems"),
    ("max_length", "maxLength"),
    ("min_length", "minLength"),
    ("max_properties", "maxProperties"),
    ("min_properties", "minProperties"),
    ("property_ordering", "propertyOrdering"),
    ("additional_properties", "additionalProperties"),
    ("defs", "$defs"),
    ("ref", "$ref"),
];

const NUMBERS: [&str; 6] =
    ["maxItems", "minItems", "maxLength", "minLength", "maxProperties", "minProperties"];

fn lower_word(word: &mut crate::ir::Str<'_>, changed: &mut bool) {
    if word.bytes().any(|b| b.is_ascii_uppercase()) {
        *word = word.to_ascii_lowercase().into();
        *changed = true;
    }
}

fn make_nullable(map: &mut Map<'_>) {
    let null = || Json::Str("null".into());
    match map.get_mut("type") {
        Some(Json::Array(words)) if !words.contains(&null()) => words.push(null()),
        Some(word @ Json::Str(_)) => *word = Json::Array(vec![word.clone(), null()]),
        _ => {}
    }
    if let Some(Json::Array(values)) = map.get_mut("enum") {
        values.push(Json::Null);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::raw;
    use super::*;

    fn lowered(text: &str) -> String {
        lower_types(&raw(text)).0.into_owned()
    }

    #[test]
    fn types_are_lowered_at_any_depth_and_properties_keep_their_names() {
        assert_eq!(
            lowered(
                r#"{"type":"OBJECT","properties":{"type":{"type":"STRING","nullable":true,"enum":["A"]},"nullable":{"type":"ARRAY","items":{"type":"NUMBER"},"minItems":"1"},"u":{"any_of":[{"type":"INTEGER"}]}},"propertyOrdering":["u"],"required":["type"]}"#
            ),
            r#"{"type":"object","properties":{"type":{"type":["string","null"],"enum":["A",null]},"nullable":{"type":"array","items":{"type":"number"},"minItems":1},"u":{"anyOf":[{"type":"integer"}]}},"required":["type"]}"#
        );
    }

    #[test]
    fn json_schema_stays_as_it_was_written() {
        let text = r#"{ "type" : "object", "properties":{"x":{"minimum":1.50}} }"#;
        assert!(matches!(lower_types(&raw(text)).0, std::borrow::Cow::Borrowed(same) if same == text));
    }
}
