//! JSON Schema as `parametersJsonSchema` of the public Gemini API takes it.
//!
//! Enters: any schema. Leaves: the same without references (the API takes none that has neighbours or points
//! elsewhere than `$defs`), dialect markers and `const`. May go wrong: recursion is cut, once per cycle.

use super::refs::{Document, Target, Way, name_of};
use super::{Cleaned, MAX_MEMBERS, is_empty};
use crate::ir::RawJson;
use crate::json::{Json, Map};

/// Members that say what the document is and not what the value is.
const MARKERS: [&str; 9] = [
    "$schema",
    "$id",
    "$comment",
    "$anchor",
    "$dynamicAnchor",
    "$vocabulary",
    "$defs",
    "definitions",
    "$ref",
];

/// Cleans `root`; the flag says whether something was lost.
pub(super) fn clean(root: &Json<'_>) -> (Cleaned<'static>, bool) {
    let mut document = Document::new(root, MAX_MEMBERS);
    let schema = node(root, &mut document, &None);
    let empty = is_empty(&schema);
    let cleaned = Cleaned { schema: RawJson(schema.to_text().into()), empty, placeholder: None };
    (cleaned, document.lost)
}

/// Whether the text of a schema holds nothing that [`clean`] would change.
pub(super) fn is_clean(text: &str) -> bool {
    ["\"$", "\"const\"", "\"allOf\"", "\"definitions\"", "\\u"].iter().all(|mark| !text.contains(mark))
}

fn node<'s>(schema: &'s Json<'s>, document: &mut Document<'s>, way: &Way) -> Json<'s> {
    let Json::Object(map) = schema else { return schema.clone() };
    if !document.spend(map) {
        return cut("more");
    }
    let mut out = Map::default();
    for (key, value) in map.iter().filter(|(key, _)| !MARKERS.contains(key)) {
        match (key, value) {
            ("const", _) if map.has("enum") => {}
            ("const", _) => out.0.push(("enum".into(), Json::Array(vec![value.clone()]))),
            ("allOf", Json::Array(_)) => {}
            _ => out.0.push((key.into(), member(key, value, document, way))),
        }
    }
    // The API knows no `allOf`.
    for branch in map.get("allOf").and_then(Json::as_array).unwrap_or_default() {
        if let Json::Object(branch) = node(branch, document, way) {
            merge(&mut out, branch);
        }
    }
    if let Some(reference) = map.get("$ref").and_then(Json::as_str) {
        let target = match document.follow(reference, way) {
            Target::Schema(target, way) => node(target, document, &way),
            Target::Cut => cut(name_of(reference)),
        };
        if let Json::Object(target) = target {
            merge(&mut out, target);
        }
    }
    Json::Object(out)
}

/// Adds what `more` demands. What `out` says itself is nearer to the place it is used at, and stays.
fn merge<'s>(out: &mut Map<'s>, more: Map<'s>) {
    for (key, value) in more.0 {
        match (out.get_mut(&key), value) {
            (Some(Json::Object(mine)), Json::Object(theirs)) if key == "properties" => {
                for (name, schema) in theirs.0 {
                    if !mine.has(&name) {
                        mine.set(name, schema);
                    }
                }
            }
            (Some(Json::Array(mine)), Json::Array(theirs)) if key == "required" => {
                for name in theirs {
                    if !mine.contains(&name) {
                        mine.push(name);
                    }
                }
            }
            (Some(_), _) => {}
            (None, value) => out.set(key, value),
        }
    }
}

fn member<'s>(key: &str, value: &'s Json<'s>, document: &mut Document<'s>, way: &Way) -> Json<'s> {
    match (key, value) {
        ("properties" | "patternProperties" | "dependentSchemas", Json::Object(map)) => {
            Json::Object(map.0.iter().map(|(k, v)| (k.clone(), node(v, document, way))).collect())
        }
        ("anyOf" | "oneOf" | "prefixItems" | "items", Json::Array(all)) => {
            Json::Array(all.iter().map(|item| node(item, document, way)).collect())
        }
        (
            "items" | "additionalProperties" | "not" | "if" | "then" | "else" | "contains" | "propertyNames",
            _,
        ) => node(value, document, way),
        _ => value.clone(),
    }
}

/// What stands for a schema that is not expanded.
fn cut(name: &str) -> Json<'static> {
    let description = Json::Str(format!("See: {name}").into());
    Json::Object(
        [("type".into(), Json::Str("object".into())), ("description".into(), description)]
            .into_iter()
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{any_schema, raw};
    use super::*;
    use proptest::prelude::*;

    fn cleaned(text: &str) -> String {
        clean(&raw(text).parse()).0.schema.0.into_owned()
    }

    #[test]
    fn markers_go_and_references_are_inlined() {
        assert_eq!(
            cleaned(
                r##"{"$schema":"http://x","type":"object","properties":{"p":{"$ref":"#/$defs/P","description":"here"},"$ref":{"const":"v"}},"$defs":{"P":{"type":"number","description":"there","minimum":1.50}}}"##
            ),
            r#"{"type":"object","properties":{"p":{"description":"here","type":"number","minimum":1.5},"$ref":{"enum":["v"]}}}"#
        );
    }

    #[test]
    fn all_of_is_merged() {
        assert_eq!(
            cleaned(
                r##"{"allOf":[{"$ref":"#/$defs/A"},{"properties":{"b":{}},"required":["b"]}],"$defs":{"A":{"type":"object","properties":{"a":{}},"required":["a"]}}}"##
            ),
            r#"{"type":"object","properties":{"a":{},"b":{}},"required":["a","b"]}"#
        );
    }

    #[test]
    fn cycles_are_cut() {
        let (out, lost) = clean(&raw(r##"{"type":"object","properties":{"next":{"$ref":"#"}}}"##).parse());
        assert_eq!(
            out.schema.as_str(),
            r#"{"type":"object","properties":{"next":{"type":"object","properties":{"next":{"type":"object","description":"See: the whole schema"}}}}}"#
        );
        assert!(lost);
    }

    proptest! {
        #[test]
        fn ends_and_leaves_no_reference(schema in any_schema()) {
            let out = clean(&schema).0;
            let value = out.schema.parse();
            prop_assert!(matches!(value, Json::Object(_)) == matches!(schema, Json::Object(_)));
            prop_assert!(value.get("$ref").is_none());
        }
    }
}
