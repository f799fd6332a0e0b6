//! JSON Schemas as each target takes them.
//!
//! Enters: a schema as a client sent it: trusted in nothing, so expansion of references is bounded in size
//! ([`MAX_MEMBERS`]) and cut at cycles. Leaves: a schema the target takes. May go wrong: nothing; what the
//! target cannot express goes into descriptions, and what does not fit there is recorded as
//! [`LossKind::Schema`].
//!
//! | function | for |
//! |---|---|
//! | [`clean`] | Google: the JSON Schema of the public API, the OpenAPI subset of the Code Assist backends |
//! | [`lower_types()`] | Gemini's `Schema` message (`OBJECT`, `nullable`) → JSON Schema, for everybody else |
//! | [`object_root()`] | Claude and the public Gemini API: the root is an object and no union |
//!
//! Only the places of a schema that hold schemas are touched: a property may be called `pattern`, `default`
//! or `$ref`, and an example may hold anything.

mod json_schema;
mod keywords;
mod lower_types;
mod object_root;
mod openapi;
mod refs;
mod shape;

pub use lower_types::lower_types;
pub use object_root::object_root;
pub use openapi::{EMPTY_PLACEHOLDER, NESTED_PLACEHOLDER};

use crate::ir::{LossKind, Losses, RawJson};
use crate::json::{Json, Map, Path};

/// Most members that are read of a schema, each use of a reference counted anew: references can make a short
/// schema exponentially long.
pub const MAX_MEMBERS: usize = 16_384;

/// What a Google backend takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `parametersJsonSchema` of the public API: JSON Schema, references resolved.
    GeminiApi,
    /// `parameters` of Antigravity and the Gemini CLI: what is left of OpenAPI there.
    Antigravity,
    /// The same for Claude models, whose validated calls need objects that are not empty.
    AntigravityClaude,
    /// `responseSchema` of Antigravity and the Gemini CLI: the same, and the root may be anything.
    Answer,
}

/// A cleaned schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleaned<'a> {
    /// The schema; borrowed when nothing had to change.
    pub schema: RawJson<'a>,
    /// It is an object without properties: a tool that takes no arguments.
    pub empty: bool,
    /// Name of the arguments that were only added to make objects non-empty, to be taken out of calls.
    pub placeholder: Option<&'static str>,
}

/// Makes `schema` fit `dialect`. `at` names it in losses.
pub fn clean<'a>(schema: &RawJson<'a>, dialect: Dialect, at: &Path<'_>, losses: &mut Losses) -> Cleaned<'a> {
    let root = schema.parse();
    if dialect == Dialect::GeminiApi && json_schema::is_clean(schema.as_str()) {
        return Cleaned { schema: schema.clone(), empty: is_empty(&root), placeholder: None };
    }
    let (cleaned, lost) = match dialect {
        Dialect::GeminiApi => json_schema::clean(&root),
        Dialect::Antigravity => openapi::clean(&root, false),
        Dialect::AntigravityClaude => openapi::clean(&root, true),
        Dialect::Answer => openapi::clean_answer(&root),
    };
    if lost {
        losses.at(LossKind::Schema, at);
    }
    cleaned
}

/// Whether `schema` holds only what Gemini's `Schema` message has, so that it can stay as it is.
pub fn is_openapi(schema: &Json<'_>) -> bool {
    let Json::Object(map) = schema else { return false };
    map.iter().all(|(key, value)| match key {
        "properties" | "defs" => match value {
            Json::Object(inner) => inner.iter().all(|(_, value)| is_openapi(value)),
            _ => false,
        },
        "items" => is_openapi(value),
        "anyOf" | "any_of" => value.as_array().is_some_and(|all| all.iter().all(is_openapi)),
        "type" => value.as_str().is_some(),
        _ => keywords::MEMBERS.contains(&key),
    })
}

/// Whether a schema takes no arguments: no object is described, or one without properties.
pub fn is_empty(schema: &Json<'_>) -> bool {
    const SHAPES: [&str; 8] =
        ["properties", "$ref", "anyOf", "oneOf", "allOf", "patternProperties", "items", "if"];
    let Json::Object(map) = schema else { return true };
    let object = |kind: &Json<'_>| kind.as_str().is_some_and(|word| word.eq_ignore_ascii_case("object"));
    let open = matches!(map.get("additionalProperties"), Some(Json::Bool(true) | Json::Object(_)));
    map.get("type").is_none_or(object)
        && !open
        && !is_bare(map)
        && map.iter().all(|(key, value)| !SHAPES.contains(&key) || is_blank(value))
}

/// Whether an object is no schema but properties: `{"city":{"type":"string"}}`. Clients exist that send it.
fn is_bare(map: &Map<'_>) -> bool {
    !map.is_empty()
        && map.iter().all(|(key, value)| matches!(value, Json::Object(_)) && !keywords::marks_a_schema(key))
}

/// The schema of a tool without arguments.
pub const NO_ARGUMENTS: &str = r#"{"type":"object","properties":{}}"#;

/// The schema of bare properties.
fn wrap_bare<'s>(root: &Json<'s>) -> Option<Json<'s>> {
    root.as_object().filter(|map| is_bare(map))?;
    let members = [("type".into(), Json::Str("object".into())), ("properties".into(), root.clone())];
    Some(Json::Object(members.into_iter().collect()))
}

fn is_blank(value: &Json<'_>) -> bool {
    match value {
        Json::Null => true,
        Json::Object(map) => map.is_empty(),
        Json::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn raw(text: &str) -> RawJson<'_> {
        RawJson(text.into())
    }

    /// Any JSON that looks a bit like a schema.
    pub(crate) fn any_schema() -> impl Strategy<Value = Json<'static>> {
        let word = prop_oneof![
            Just("object"),
            Just("STRING"),
            Just("array"),
            Just("null"),
            Just("#"),
            Just("#/$defs/A"),
            Just("#/$defs/B"),
            Just("a"),
            Just(""),
        ];
        let key = prop_oneof![
            Just("type"),
            Just("properties"),
            Just("items"),
            Just("required"),
            Just("enum"),
            Just("const"),
            Just("$ref"),
            Just("$defs"),
            Just("anyOf"),
            Just("oneOf"),
            Just("allOf"),
            Just("if"),
            Just("then"),
            Just("additionalProperties"),
            Just("description"),
            Just("nullable"),
            Just("minimum"),
            Just("A"),
            Just("B"),
            Just("x-y"),
            Just("_"),
        ];
        let leaf = prop_oneof![
            word.prop_map(|w| Json::Str(w.into())),
            any::<bool>().prop_map(Json::Bool),
            (0_u64..9).prop_map(Json::Uint),
            Just(Json::Null),
        ];
        leaf.prop_recursive(6, 60, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
                prop::collection::vec((key.clone(), inner), 0..5)
                    .prop_map(|m| Json::Object(m.into_iter().map(|(k, v)| (k.into(), v)).collect())),
            ]
        })
    }

    #[test]
    fn schemas_without_arguments_are_told() {
        for (text, empty) in [
            ("{}", true),
            (r#"{"type":"object"}"#, true),
            (r#"{"type":"object","properties":{},"additionalProperties":false}"#, true),
            (r#"{"type":"object","additionalProperties":{"type":"string"}}"#, false),
            (r#"{"type":"object","properties":{"a":{}}}"#, false),
            (r##"{"$ref":"#/$defs/A"}"##, false),
            (r#"{"city":{"type":"string"}}"#, false),
            (r#"{"type":"string"}"#, false),
        ] {
            assert_eq!(is_empty(&raw(text).parse()), empty, "{text}");
        }
    }

    #[test]
    fn the_schema_message_is_told_from_json_schema() {
        assert!(is_openapi(&raw(r#"{"type":"OBJECT","properties":{"$ref":{"type":"STRING"}}}"#).parse()));
        assert!(!is_openapi(&raw(r#"{"type":"OBJECT","properties":{"a":{"$ref":"x"}}}"#).parse()));
        assert!(!is_openapi(&raw(r#"{"type":["string","null"]}"#).parse()));
    }
}
