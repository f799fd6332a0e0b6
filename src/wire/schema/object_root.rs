//! The root that Claude wants: an object, and no union.
//!
//! Enters: a schema. Leaves: the same when its root is an object without `anyOf`, `oneOf`, `allOf` and `$ref`;
//! else an object with the properties of all branches. May go wrong: nothing; a root that is no object at all
//! becomes an object without properties.

use super::refs::{Document, Target, Way};
use super::{MAX_MEMBERS, NO_ARGUMENTS, wrap_bare};
use crate::ir::{RawJson, Str};
use crate::json::{Json, Map};

/// Makes the root of `schema` an object. `required` of a union is what all branches demand.
pub fn object_root<'a>(schema: &RawJson<'a>) -> RawJson<'a> {
    let root = schema.parse();
    if let Some(wrapped) = wrap_bare(&root) {
        return RawJson(wrapped.to_text().into());
    }
    let Json::Object(map) = &root else {
        return RawJson(NO_ARGUMENTS.into());
    };
    let object = map.get("type").and_then(Json::as_str) == Some("object");
    if object && !["anyOf", "oneOf", "allOf", "$ref"].iter().any(|key| map.has(key)) {
        return schema.clone();
    }
    let mut document = Document::new(&root, MAX_MEMBERS);
    let flat = flatten(&root, &mut document, &None);
    let mut out: Map<'_> = [("type".into(), Json::Str("object".into()))].into_iter().collect();
    for (key, value) in map.iter() {
        if !["type", "anyOf", "oneOf", "allOf", "$ref", "properties", "required"].contains(&key) {
            out.0.push((key.into(), value.clone()));
        }
    }
    out.set("properties", Json::Object(flat.properties));
    if !flat.required.is_empty() {
        let names = flat.required.into_iter().map(|name| Json::Str(name.into())).collect();
        out.set("required", Json::Array(names));
    }
    RawJson(Json::Object(out).to_text().into())
}

/// What the root and its branches say about the members of the object.
#[derive(Default)]
struct Flat<'s> {
    properties: Map<'s>,
    required: Vec<&'s str>,
}

impl<'s> Flat<'s> {
    /// Adds properties. Where two branches disagree, either is legal.
    fn take_properties(&mut self, properties: Map<'s>) {
        for (name, schema) in properties.0 {
            match self.properties.get_mut(&name) {
                None => self.properties.0.push((name, schema)),
                Some(known) if *known == schema => {}
                Some(Json::Object(Map(members))) if is_union(members) => {
                    if let Some((_, Json::Array(branches))) = members.first_mut()
                        && !branches.contains(&schema)
                    {
                        branches.push(schema);
                    }
                }
                Some(known) => {
                    let first = std::mem::replace(known, Json::Null);
                    let either = [("anyOf".into(), Json::Array(vec![first, schema]))];
                    *known = Json::Object(either.into_iter().collect());
                }
            }
        }
    }

    fn demand(&mut self, names: Vec<&'s str>) {
        for name in names {
            if !self.required.contains(&name) && self.properties.has(name) {
                self.required.push(name);
            }
        }
    }
}

/// Whether an object says nothing but `anyOf`.
fn is_union(members: &[(Str<'_>, Json<'_>)]) -> bool {
    matches!(members, [(key, Json::Array(_))] if key == "anyOf")
}

fn flatten<'s>(schema: &'s Json<'s>, document: &mut Document<'s>, way: &Way) -> Flat<'s> {
    let mut flat = Flat::default();
    let Json::Object(map) = schema else { return flat };
    if !document.spend(map) {
        return flat;
    }
    if let Some(Json::Object(properties)) = map.get("properties") {
        flat.take_properties(properties.clone());
    }
    let own = map.get("required").and_then(Json::as_array).unwrap_or_default();
    let mut required: Vec<&'s str> = own.iter().filter_map(Json::as_str).collect();
    if let Some(reference) = map.get("$ref").and_then(Json::as_str)
        && let Target::Schema(target, way) = document.follow(reference, way)
    {
        let target = flatten(target, document, &way);
        flat.take_properties(target.properties);
        required.extend(target.required);
    }
    for branch in map.get("allOf").and_then(Json::as_array).unwrap_or_default() {
        let branch = flatten(branch, document, way);
        flat.take_properties(branch.properties);
        required.extend(branch.required);
    }
    for key in ["anyOf", "oneOf"] {
        let branches = map.get(key).and_then(Json::as_array).unwrap_or_default();
        let mut common: Option<Vec<&'s str>> = None;
        for branch in branches {
            let branch = flatten(branch, document, way);
            flat.take_properties(branch.properties);
            match &mut common {
                None => common = Some(branch.required),
                Some(common) => common.retain(|name| branch.required.contains(name)),
            }
        }
        required.extend(common.unwrap_or_default());
    }
    flat.demand(required);
    flat
}

#[cfg(test)]
mod tests {
    use super::super::tests::{any_schema, raw};
    use super::*;
    use proptest::prelude::*;

    fn rooted(text: &str) -> String {
        object_root(&raw(text)).0.into_owned()
    }

    #[test]
    fn unions_at_the_root_are_flattened() {
        assert_eq!(
            rooted(
                r#"{"description":"d","anyOf":[{"type":"object","properties":{"a":{},"c":{}},"required":["a","c"]},{"properties":{"b":{},"c":{}},"required":["c","b"]}]}"#
            ),
            r#"{"type":"object","description":"d","properties":{"a":{},"c":{},"b":{}},"required":["c"]}"#
        );
    }

    #[test]
    fn branches_that_disagree_are_both_legal() {
        assert_eq!(
            rooted(
                r#"{"title":"t","anyOf":[{"properties":{"k":{"const":"x"}},"required":["k"]},{"properties":{"k":{"const":"y"}},"required":["k"]},{"properties":{"k":{"const":"x"}},"required":["k"]}],"required":["z"]}"#
            ),
            r#"{"type":"object","title":"t","properties":{"k":{"anyOf":[{"const":"x"},{"const":"y"}]}},"required":["k"]}"#
        );
    }

    #[test]
    fn p32_circular_references_and_many_branches_end() {
        let branches = vec![r##"{"$ref":"#/$defs/a"}"##; 1000].join(",");
        let text = format!(
            r##"{{"$ref":"#/$defs/a","$defs":{{"a":{{"properties":{{"x":{{}}}},"anyOf":[{branches}]}}}}}}"##
        );
        assert!(rooted(&text).contains(r#""properties":{"x":{}}"#));
    }

    #[test]
    fn references_and_missing_types_are_mended() {
        assert_eq!(
            rooted(
                r##"{"$ref":"#/$defs/A","$defs":{"A":{"type":"object","properties":{"x":{}},"required":["x"]}}}"##
            ),
            r#"{"type":"object","$defs":{"A":{"type":"object","properties":{"x":{}},"required":["x"]}},"properties":{"x":{}},"required":["x"]}"#
        );
        assert_eq!(rooted("{}"), r#"{"type":"object","properties":{}}"#);
        assert_eq!(rooted(r#"{"a":{}}"#), r#"{"type":"object","properties":{"a":{}}}"#);
        assert_eq!(rooted("true"), r#"{"type":"object","properties":{}}"#);
        let fine = r#"{"type":"object", "properties":{"anyOf":{}}}"#;
        assert_eq!(rooted(fine), fine);
    }

    proptest! {
        #[test]
        fn the_root_is_an_object_without_unions(schema in any_schema()) {
            let text = schema.to_text();
            let out = rooted(&text);
            let value = raw(&out).parse().into_owned();
            prop_assert_eq!(value.get("type").and_then(Json::as_str), Some("object"));
            for key in ["anyOf", "oneOf", "allOf", "$ref"] {
                prop_assert!(value.get(key).is_none());
            }
        }
    }
}
