//! The OpenAPI subset that the Code Assist backends (Antigravity, Gemini CLI) take as `parameters`.
//!
//! Enters: any JSON Schema. Leaves: objects, arrays and scalars with `type`, `title`, `description`,
//! `nullable`, `enum`, `properties`, `required` and `items`; each has a `type`, in one word. What constraints
//! said goes into the description, so that the model still knows. May go wrong: recursion is cut; of a union
//! the richest branch stays; both are recorded.

use super::keywords::{DROPPED, HINTS};
use super::refs::{Document, Target, Way, name_of};
use super::shape::{Place, Rank, Shape, accepts, kind_of, literals, literals_only};
use super::{Cleaned, MAX_MEMBERS, is_empty, wrap_bare};
use crate::ir::{RawJson, Str};
use crate::json::{Json, Map};

/// Argument that is added to a tool without arguments.
pub const EMPTY_PLACEHOLDER: &str = "reason";
/// Argument that is added to objects inside the arguments that demand nothing.
pub const NESTED_PLACEHOLDER: &str = "_";

/// Cleans `root`, with arguments in empty objects if `fill`; the flag says whether something was lost.
pub(super) fn clean(root: &Json<'_>, fill: bool) -> (Cleaned<'static>, bool) {
    let wrapped = wrap_bare(root);
    let root = wrapped.as_ref().unwrap_or(root);
    let mut cleaner = Cleaner { document: Document::new(root, MAX_MEMBERS), placeholder: None, fill };
    // A property of the client may have the name that would be taken out of calls.
    cleaner.fill = fill && !has_property(root, NESTED_PLACEHOLDER);
    let mut schema = cleaner.schema(root, &None, Place::Root);
    let empty = is_empty(&schema);
    if let (true, true, Json::Object(map)) = (fill, empty, &mut schema) {
        cleaner.placeholder = Some(EMPTY_PLACEHOLDER);
        demand(map, EMPTY_PLACEHOLDER, "STRING", "Why the tool is called");
    }
    let Cleaner { document, placeholder, .. } = cleaner;
    (Cleaned { schema: RawJson(schema.to_text().into()), empty, placeholder }, document.lost)
}

/// Cleans the schema of an answer, whose root need not be an object.
pub(super) fn clean_answer(root: &Json<'_>) -> (Cleaned<'static>, bool) {
    let document = Document::new(root, MAX_MEMBERS);
    let mut cleaner = Cleaner { document, placeholder: None, fill: false };
    let schema = cleaner.schema(root, &None, Place::Inside);
    let out = Cleaned { schema: RawJson(schema.to_text().into()), empty: false, placeholder: None };
    (out, cleaner.document.lost)
}

fn has_property(schema: &Json<'_>, name: &str) -> bool {
    match schema {
        Json::Object(map) => map.iter().any(|(key, value)| {
            key == "properties" && value.get(name).is_some() || has_property(value, name)
        }),
        Json::Array(items) => items.iter().any(|item| has_property(item, name)),
        _ => false,
    }
}

/// Adds a property to an object and demands it.
fn demand(map: &mut Map<'_>, name: &'static str, kind: &'static str, description: &'static str) {
    let property: Map<'_> =
        [("type".into(), Json::Str(kind.into())), ("description".into(), Json::Str(description.into()))]
            .into_iter()
            .collect();
    if !map.has("properties") {
        map.set("properties", Json::Object(Map::default()));
    }
    if let Some(Json::Object(properties)) = map.get_mut("properties") {
        properties.set(name, Json::Object(property));
    }
    map.set("required", Json::Array(vec![Json::Str(name.into())]));
}

struct Cleaner<'s> {
    document: Document<'s>,
    placeholder: Option<&'static str>,
    fill: bool,
}

impl<'s> Cleaner<'s> {
    fn schema(&mut self, schema: &'s Json<'s>, way: &Way, place: Place) -> Json<'static> {
        let mut shape = Shape::default();
        self.gather(schema, way, &mut shape);
        self.write(shape, place)
    }

    /// Adds what `schema` says to `shape`; what is there already wins.
    fn gather(&mut self, schema: &'s Json<'s>, way: &Way, shape: &mut Shape<'s>) {
        let Json::Object(map) = schema else { return };
        if !self.document.spend(map) {
            return;
        }
        self.own(map, way, shape);
        if let Some(reference) = map.get("$ref").and_then(Json::as_str) {
            match self.document.follow(reference, way) {
                Target::Schema(target, way) => self.gather(target, &way, shape),
                Target::Cut => {
                    shape.kind.get_or_insert("OBJECT");
                    shape.hints.push(format!("See: {}", name_of(reference)));
                }
            }
        }
        for branch in map.get("allOf").and_then(Json::as_array).unwrap_or_default() {
            self.gather(branch, way, shape);
        }
        for branch in ["if", "then", "else"].iter().filter_map(|key| map.get(key)) {
            // Which branch holds is not known: its properties may come, none of them must.
            let required = shape.required.len();
            self.gather(branch, way, shape);
            shape.required.truncate(required);
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(branches) = map.get(key).and_then(Json::as_array) {
                self.union(branches, way, shape);
            }
        }
    }

    /// The members of the schema itself.
    fn own(&mut self, map: &'s Map<'s>, way: &Way, shape: &mut Shape<'s>) {
        for (key, value) in map.iter() {
            match (key, value) {
                ("type", Json::Str(word)) => shape.set_kind(word),
                ("type", Json::Array(words)) => {
                    let words: Vec<_> = words.iter().filter_map(Json::as_str).collect();
                    for word in &words {
                        shape.set_kind(word);
                    }
                    accepts(shape, words.iter().filter_map(|word| kind_of(word)));
                }
                ("nullable", Json::Bool(true)) => shape.nullable = true,
                ("title", Json::Str(text)) => _ = shape.title.get_or_insert(text),
                ("description", Json::Str(text)) if !text.trim().is_empty() => {
                    shape.description.get_or_insert(text);
                }
                ("const", _) => shape.set_choices(std::slice::from_ref(value)),
                ("enum", Json::Array(values)) => shape.set_choices(values),
                ("properties", Json::Object(properties)) => shape.add_properties(properties, way),
                ("required", Json::Array(names)) => {
                    shape.required.extend(names.iter().filter_map(Json::as_str));
                }
                ("items" | "prefixItems", Json::Array(all)) => {
                    if let (None, Some(first)) = (&shape.items, all.first()) {
                        shape.items = Some((first, way.clone()));
                        self.document.lost |= all.len() > 1;
                    }
                }
                ("items", Json::Object(_)) if shape.items.is_none() => {
                    shape.items = Some((value, way.clone()));
                }
                ("additionalProperties", Json::Bool(false)) => {
                    shape.hints.push("No extra properties allowed".to_owned());
                }
                ("additionalProperties", Json::Object(_)) => shape.hint(key, value, &mut self.document.lost),
                _ if HINTS.contains(&key) => shape.hint(key, value, &mut self.document.lost),
                _ if DROPPED.contains(&key) => self.document.lost = true,
                _ => {}
            }
        }
    }

    /// Keeps the richest branch; `null` makes it nullable, and literals become one choice.
    fn union(&mut self, branches: &'s [Json<'s>], way: &Way, shape: &mut Shape<'s>) {
        let ranked: Vec<_> = branches.iter().map(|branch| (self.rank(branch, way), branch)).collect();
        shape.nullable |= ranked.iter().any(|(rank, _)| *rank == Rank::Null);
        let real: Vec<_> = ranked.iter().filter(|(rank, _)| *rank != Rank::Null).map(|(_, b)| *b).collect();
        let literals: Vec<_> = real.iter().filter_map(|b| literals(b)).flatten().collect();
        if !literals.is_empty() && real.iter().all(|b| literals_only(b)) {
            return shape.set_choices_of(&literals);
        }
        // The first of the richest.
        let best = ranked.iter().rev().max_by_key(|(rank, _)| *rank).map(|(_, branch)| *branch);
        accepts(shape, real.iter().map(|branch| self.rank(branch, way).word()));
        self.document.lost |= real.len() > 1;
        // A branch that only says what is required belongs to properties that may not be the kept ones.
        let bare = |map: &Map<'_>| map.iter().all(|(key, _)| matches!(key, "required" | "not"));
        if let Some(branch) = best.filter(|b| !b.as_object().is_some_and(bare)) {
            self.gather(branch, way, shape);
        }
    }

    /// How much a branch says, without looking into it.
    fn rank(&mut self, branch: &'s Json<'s>, way: &Way) -> Rank {
        let (mut branch, mut way) = (branch, way.clone());
        loop {
            let Json::Object(map) = branch else { return Rank::Scalar("STRING") };
            let word = match map.get("type") {
                Some(Json::Array(words)) => words.iter().filter_map(Json::as_str).find_map(kind_of),
                Some(Json::Str(word)) if word.eq_ignore_ascii_case("null") => return Rank::Null,
                Some(word) => word.as_str().and_then(kind_of),
                None => None,
            };
            if matches!(map.get("const"), Some(Json::Null)) {
                return Rank::Null;
            }
            match word {
                Some("OBJECT") => return Rank::Object,
                Some("ARRAY") => return Rank::Array,
                Some(word) => return Rank::Scalar(word),
                None if map.has("properties") || map.has("allOf") => return Rank::Object,
                None if map.has("items") => return Rank::Array,
                None => {}
            }
            match map.get("$ref").and_then(Json::as_str).map(|to| self.document.follow(to, &way)) {
                Some(Target::Schema(target, next)) => (branch, way) = (target, next),
                Some(Target::Cut) => return Rank::Object,
                None => return Rank::Scalar("STRING"),
            }
        }
    }

    fn write(&mut self, mut shape: Shape<'s>, place: Place) -> Json<'static> {
        let kind = shape.settle(place);
        let mut out = Map::default();
        out.set("type", Json::Str(kind.into()));
        if let Some(title) = shape.title {
            out.set("title", Json::Str(title.to_owned().into()));
        }
        if let Some(text) = shape.description() {
            out.set("description", Json::Str(text.into()));
        }
        if shape.nullable {
            out.set("nullable", Json::Bool(true));
        }
        if let Some(choices) = shape.choices.take() {
            out.set("enum", Json::Array(choices.into_iter().map(|c| Json::Str(c.into())).collect()));
        }
        match kind {
            "OBJECT" => self.write_object(&shape, place, &mut out),
            "ARRAY" => {
                let items = match &shape.items {
                    Some((items, way)) => self.schema(items, way, Place::Inside),
                    None => Json::Object([("type".into(), Json::Str("STRING".into()))].into_iter().collect()),
                };
                out.set("items", items);
            }
            _ => {}
        }
        Json::Object(out)
    }

    fn write_object(&mut self, shape: &Shape<'s>, place: Place, out: &mut Map<'static>) {
        let mut properties = Map::default();
        let mut required: Vec<Str<'static>> = Vec::new();
        for (name, schema, way) in &shape.properties {
            let promoted = matches!(schema.get("required"), Some(Json::Bool(true)));
            if promoted || shape.required.contains(name) {
                required.push((*name).to_owned().into());
            }
            let schema = self.schema(schema, way, Place::Inside);
            properties.0.push(((*name).to_owned().into(), schema));
        }
        out.set("properties", Json::Object(properties));
        if !required.is_empty() {
            out.set("required", Json::Array(required.into_iter().map(Json::Str).collect()));
        } else if self.fill && place == Place::Inside {
            self.placeholder = Some(NESTED_PLACEHOLDER);
            demand(out, NESTED_PLACEHOLDER, "BOOLEAN", "Always true");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{any_schema, raw};
    use super::*;
    use proptest::prelude::*;

    fn cleaned(text: &str) -> String {
        clean(&raw(text).parse(), false).0.schema.0.into_owned()
    }

    fn property(text: &str) -> String {
        let out = cleaned(&format!(r#"{{"properties":{{"p":{text}}},"$defs":{{"A":{{"type":"number"}}}}}}"#));
        raw(&out).parse().at(&["properties", "p"]).unwrap().to_text()
    }

    #[test]
    fn each_construct_becomes_what_the_backend_takes() {
        for (from, to) in [
            (r#"{"const":"v"}"#, r#"{"type":"STRING","enum":["v"]}"#),
            (r#"{"enum":["a","","a",null]}"#, r#"{"type":"STRING","nullable":true,"enum":["a"]}"#),
            (r#"{"type":"integer","enum":[1,2]}"#, r#"{"type":"STRING","enum":["1","2"]}"#),
            (r#"{"const":true}"#, r#"{"type":"BOOLEAN","description":"Allowed: true"}"#),
            (r#"{"type":["string","null"]}"#, r#"{"type":"STRING","nullable":true}"#),
            (
                r#"{"type":["integer","string"]}"#,
                r#"{"type":"INTEGER","description":"Accepts: integer | string"}"#,
            ),
            (r#"{"anyOf":[{"type":"integer"},{"type":"null"}]}"#, r#"{"type":"INTEGER","nullable":true}"#),
            (r#"{"anyOf":[{"const":"a"},{"const":"b"}]}"#, r#"{"type":"STRING","enum":["a","b"]}"#),
            (
                r#"{"oneOf":[{"type":"integer"},{"type":"object","properties":{"z":{"type":"string"}}}],"description":"d"}"#,
                r#"{"type":"OBJECT","description":"d (Accepts: integer | object)","properties":{"z":{"type":"STRING"}}}"#,
            ),
            (r#"{"type":"array"}"#, r#"{"type":"ARRAY","items":{"type":"STRING"}}"#),
            (
                r#"{"type":"string","minLength":1,"pattern":"^a$","description":"d"}"#,
                r#"{"type":"STRING","description":"d (minLength: 1; pattern: ^a$)"}"#,
            ),
            (r"{}", r#"{"type":"STRING"}"#),
            ("true", r#"{"type":"STRING"}"#),
            (r##"{"$ref":"#/$defs/A","description":"here"}"##, r#"{"type":"NUMBER","description":"here"}"#),
            (
                r#"{"$ref":"http://elsewhere/#/X"}"#,
                r#"{"type":"OBJECT","description":"See: X","properties":{}}"#,
            ),
        ] {
            assert_eq!(property(from), to, "{from}");
        }
    }

    #[test]
    fn requirements_name_what_is_there() {
        assert_eq!(
            cleaned(
                r#"{"properties":{"a":{"type":"string","required":true},"b":{"type":"string"}},"required":["b","zz","b"]}"#
            ),
            r#"{"type":"OBJECT","properties":{"a":{"type":"STRING"},"b":{"type":"STRING"}},"required":["a","b"]}"#
        );
    }

    #[test]
    fn branches_are_merged() {
        assert_eq!(
            cleaned(
                r#"{"allOf":[{"properties":{"a":{"type":"string"}},"required":["a"]},{"properties":{"b":{"type":"string"}},"required":["b"]}],"if":{"properties":{"c":{"const":"x"}},"required":["c"]}}"#
            ),
            r#"{"type":"OBJECT","properties":{"a":{"type":"STRING"},"b":{"type":"STRING"},"c":{"type":"STRING","enum":["x"]}},"required":["a","b"]}"#
        );
    }

    #[test]
    fn properties_named_like_keywords_stay() {
        let names = ["pattern", "default", "title", "const", "type", "required", "enum", "$ref", "items"];
        let properties: Vec<_> = names.iter().map(|n| format!(r#""{n}":{{"type":"string"}}"#)).collect();
        let out = cleaned(&format!(r#"{{"type":"object","properties":{{{}}}}}"#, properties.join(",")));
        let value = raw(&out).parse().into_owned();
        for name in names {
            assert_eq!(
                value.at(&["properties", name, "type"]).and_then(Json::as_str),
                Some("STRING"),
                "{name}"
            );
        }
    }

    #[test]
    fn bare_properties_are_wrapped() {
        assert_eq!(
            cleaned(r#"{"city":{"type":"string"},"type":{"type":"integer"}}"#),
            r#"{"type":"OBJECT","properties":{"city":{"type":"STRING"},"type":{"type":"INTEGER"}}}"#
        );
    }

    #[test]
    fn answers_may_be_lists() {
        let out = clean_answer(&raw(r#"{"type":"array","items":{"type":"integer"}}"#).parse()).0;
        assert_eq!(out.schema.as_str(), r#"{"type":"ARRAY","items":{"type":"INTEGER"}}"#);
    }

    #[test]
    fn hostile_references_end() {
        let definitions: Vec<_> = (0..40)
            .map(|n| format!(r##""D{n}":{{"properties":{{"a":{{"$ref":"#/$defs/D{0}"}},"b":{{"$ref":"#/$defs/D{0}"}}}}}}"##, n + 1))
            .collect();
        let text = format!(r##"{{"$ref":"#/$defs/D0","$defs":{{{}}}}}"##, definitions.join(","));
        let (out, lost) = clean(&raw(&text).parse(), true);
        assert!(out.schema.as_str().len() < 64 * MAX_MEMBERS && lost);
        let (_, lost) = clean(&raw(r##"{"$ref":"#","allOf":[{"$ref":"#"}]}"##).parse(), true);
        assert!(lost);
    }

    #[test]
    fn empty_objects_get_an_argument_that_can_be_taken_out() {
        let (out, _) = clean(&raw(r#"{"type":"object","properties":{}}"#).parse(), true);
        assert_eq!(out.placeholder, Some(EMPTY_PLACEHOLDER));
        assert!(out.schema.as_str().contains(r#""required":["reason"]"#));
        let nested = r#"{"properties":{"m":{"type":"object"},"s":{"type":"string"}}}"#;
        let (out, _) = clean(&raw(nested).parse(), true);
        assert_eq!(out.placeholder, Some(NESTED_PLACEHOLDER));
        assert!(out.schema.as_str().contains(r#""required":["_"]"#));
        let taken = r#"{"properties":{"m":{"type":"object"},"_":{"type":"string"}}}"#;
        assert_eq!(clean(&raw(taken).parse(), true).0.placeholder, None);
    }

    fn legal(schema: &Json<'_>) -> bool {
        const KEYS: [&str; 8] =
            ["type", "title", "description", "nullable", "enum", "properties", "required", "items"];
        let Some(map) = schema.as_object() else { return false };
        let names = |key: &str| map.get(key).and_then(Json::as_array).unwrap_or_default().to_vec();
        map.iter().all(|(key, _)| KEYS.contains(&key))
            && map.get("type").is_some_and(|t| t.as_str().is_some())
            && names("enum").iter().all(|v| v.as_str().is_some_and(|v| !v.is_empty()))
            && names("required").iter().all(|n| {
                map.get("properties").is_some_and(|p| n.as_str().is_some_and(|n| p.get(n).is_some()))
            })
            && map.get("items").is_none_or(legal)
            && map.get("properties").and_then(Json::as_object).is_none_or(|p| p.iter().all(|(_, s)| legal(s)))
    }

    proptest! {
        #[test]
        fn only_legal_schemas_come_out(schema in any_schema(), fill: bool) {
            let out = clean(&schema, fill).0;
            let value = out.schema.parse();
            prop_assert!(legal(&value), "{}", out.schema.as_str());
        }
    }
}
