//! Tool schemas as the API takes them: an object at the root, without a union there.
//!
//! Enters: a JSON Schema as the client sent it. Leaves: the same text where it is legal; otherwise an object
//! whose properties are those of all branches. May go wrong: nothing; what had to change is recorded as
//! [`LossKind::Schema`].

use crate::ir::{LossKind, Losses, RawJson};
use crate::json::{Json, Map, parse_any};
use std::borrow::Cow;

/// What a tool without arguments declares.
const NONE: &str = r#"{"type":"object","properties":{}}"#;

/// Members that the API refuses at the root.
const UNIONS: [&str; 3] = ["anyOf", "oneOf", "allOf"];

/// Most schemas that are merged into one; references can be circular, and branches can be many.
const MOST: usize = 128;

/// The schema as text, with an object at its root.
pub(super) fn object_schema<'s>(schema: Option<&'s RawJson<'_>>, losses: &mut Losses) -> Cow<'s, str> {
    let Some(schema) = schema else { return Cow::Borrowed(NONE) };
    let Ok(Json::Object(map)) = parse_any(schema.as_str().as_bytes()) else {
        losses.member(LossKind::Schema, "tools");
        return Cow::Borrowed(NONE);
    };
    let union = UNIONS.iter().any(|key| map.has(key)) || map.has("$ref");
    if map.get("type").and_then(Json::as_str) == Some("object") && !union {
        return Cow::Borrowed(schema.as_str());
    }
    let (mut shape, mut left) = (Shape::default(), MOST);
    shape.add(&map, &map, &mut left);
    let mut out = Map::default();
    out.set("type", Json::Str("object".into()));
    for (key, value) in &map.0 {
        let merged = ["type", "properties", "required", "$ref"].contains(&key.as_ref());
        if !merged && !UNIONS.contains(&key.as_ref()) {
            out.set(key.clone(), value.clone());
        }
    }
    out.set("properties", Json::Object(shape.properties));
    if !shape.required.is_empty() {
        out.set("required", Json::Array(shape.required.into_iter().map(Json::Str).collect()));
    }
    if union {
        losses.member(LossKind::Schema, "tools");
    }
    Cow::Owned(Json::Object(out).to_text())
}

/// Properties of an object, and which of them it always has.
#[derive(Default)]
struct Shape<'s> {
    properties: Map<'s>,
    required: Vec<Cow<'s, str>>,
}

impl<'s> Shape<'s> {
    /// Adds what `schema` says: its own members, all of `allOf`, and what the branches of a union share.
    fn add(&mut self, schema: &Map<'s>, root: &Map<'s>, left: &mut usize) {
        let Some(fewer) = left.checked_sub(1) else { return };
        *left = fewer;
        if let Some(Json::Object(properties)) = schema.get("properties") {
            for (key, value) in &properties.0 {
                self.property(key.clone(), value);
            }
        }
        for name in schema.get("required").and_then(Json::as_array).unwrap_or_default() {
            if let Json::Str(name) = name {
                self.require(name.clone());
            }
        }
        if let Some(target) = schema.get("$ref").and_then(|r| resolve(r, root)) {
            self.add(target, root, left);
        }
        for part in schema.get("allOf").and_then(Json::as_array).unwrap_or_default() {
            if let Json::Object(part) = part {
                self.add(part, root, left);
            }
        }
        for key in ["anyOf", "oneOf"] {
            let branches = schema.get(key).and_then(Json::as_array).unwrap_or_default();
            self.add_union(branches, root, left);
        }
    }

    fn add_union(&mut self, branches: &[Json<'s>], root: &Map<'s>, left: &mut usize) {
        let mut common: Option<Vec<Cow<'s, str>>> = None;
        for branch in branches {
            let mut shape = Shape::default();
            if let Json::Object(branch) = branch {
                shape.add(branch, root, left);
            }
            for (key, value) in &shape.properties.0 {
                self.property(key.clone(), value);
            }
            match &mut common {
                None => common = Some(shape.required),
                Some(common) => common.retain(|name| shape.required.contains(name)),
            }
        }
        for name in common.unwrap_or_default() {
            self.require(name);
        }
    }

    fn require(&mut self, name: Cow<'s, str>) {
        if !self.required.contains(&name) {
            self.required.push(name);
        }
    }

    /// Adds a property. Where two branches disagree, either is legal.
    fn property(&mut self, key: Cow<'s, str>, value: &Json<'s>) {
        match self.properties.get_mut(&key) {
            None => self.properties.set(key, value.clone()),
            Some(known) if known == value => {}
            Some(Json::Object(Map(members)))
                if members.len() == 1 && members.iter().all(|(key, _)| key == "anyOf") =>
            {
                if let Some((_, Json::Array(branches))) = members.first_mut()
                    && !branches.contains(value)
                {
                    branches.push(value.clone());
                }
            }
            Some(known) => {
                let first = std::mem::replace(known, Json::Null);
                let mut either = Map::default();
                either.set("anyOf", Json::Array(vec![first, value.clone()]));
                *known = Json::Object(either);
            }
        }
    }
}

/// The object that a local reference (`#/$defs/x`, RFC 6901) names.
fn resolve<'r, 's>(reference: &Json<'s>, root: &'r Map<'s>) -> Option<&'r Map<'s>> {
    let mut steps = reference.as_str()?.strip_prefix("#/")?.split('/');
    let unescape = |step: &str| step.replace("~1", "/").replace("~0", "~");
    let first = root.get(&unescape(steps.next()?))?;
    steps.try_fold(first, |value, step| value.get(&unescape(step)))?.as_object()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(schema: &str) -> String {
        let raw = RawJson(schema.into());
        object_schema(Some(&raw), &mut Losses::default()).into_owned()
    }

    #[test]
    fn a_legal_schema_keeps_its_text() {
        let text = r#"{ "type" : "object", "properties":{"n":{"minimum":1.0e2}}, "$schema":"x"}"#;
        assert_eq!(run(text), text);
    }

    #[test]
    fn no_schema_and_no_object_become_an_object_without_properties() {
        assert_eq!(object_schema(None, &mut Losses::default()), NONE);
        assert_eq!(run("true"), NONE);
        assert_eq!(run("{}"), NONE);
        assert_eq!(
            run(r#"{"type":"OBJECT","properties":{"a":{}}}"#),
            r#"{"type":"object","properties":{"a":{}}}"#
        );
    }

    #[test]
    fn unions_at_the_root_are_merged() {
        assert_eq!(
            run(
                r#"{"title":"t","anyOf":[{"type":"object","properties":{"a":{"const":1},"k":{"const":"x"}},"required":["a","k"]},{"properties":{"b":{},"k":{"const":"y"}},"required":["k","b"]}],"required":["z"]}"#
            ),
            r#"{"type":"object","title":"t","properties":{"a":{"const":1},"k":{"anyOf":[{"const":"x"},{"const":"y"}]},"b":{}},"required":["z","k"]}"#
        );
        assert_eq!(
            run(
                r##"{"allOf":[{"properties":{"a":{}},"required":["a"]},{"$ref":"#/$defs/b"}],"$defs":{"b":{"properties":{"b":{}},"required":["b"]}}}"##
            ),
            r#"{"type":"object","$defs":{"b":{"properties":{"b":{}},"required":["b"]}},"properties":{"a":{},"b":{}},"required":["a","b"]}"#
        );
    }

    #[test]
    fn p32_circular_references_and_many_branches_end() {
        let branches = vec![r##"{"$ref":"#/$defs/a"}"##; 1000].join(",");
        let text = format!(
            r##"{{"$ref":"#/$defs/a","$defs":{{"a":{{"properties":{{"x":{{}}}},"anyOf":[{branches}]}}}}}}"##
        );
        assert!(run(&text).contains(r#""properties":{"x":{}}"#));
    }
}
