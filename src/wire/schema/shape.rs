//! What a schema says, gathered over its references and branches.
//!
//! Enters: members of schemas, the nearest first. Leaves: one type, one description, the choices that the
//! backends take. May go wrong: a constraint that is too long for a description.

use super::keywords::HINT_MAX;
use super::refs::Way;
use crate::json::{Json, Map};
use std::fmt::Write as _;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Root,
    Inside,
}

/// What a schema says, gathered over its references and branches.
#[derive(Default)]
pub(super) struct Shape<'s> {
    pub(super) kind: Option<&'static str>,
    pub(super) nullable: bool,
    pub(super) title: Option<&'s str>,
    pub(super) description: Option<&'s str>,
    pub(super) hints: Vec<String>,
    pub(super) properties: Vec<(&'s str, &'s Json<'s>, Way)>,
    pub(super) required: Vec<&'s str>,
    pub(super) items: Option<(&'s Json<'s>, Way)>,
    pub(super) choices: Option<Vec<String>>,
}
impl<'s> Shape<'s> {
    pub(super) fn set_kind(&mut self, word: &str) {
        if word.eq_ignore_ascii_case("null") {
            self.nullable = true;
        } else if let (None, Some(kind)) = (self.kind, kind_of(word)) {
            self.kind = Some(kind);
        }
    }

    pub(super) fn add_properties(&mut self, properties: &'s Map<'s>, way: &Way) {
        for (name, schema) in properties.iter() {
            if !self.properties.iter().any(|(known, ..)| *known == name) {
                self.properties.push((name, schema, way.clone()));
            }
        }
    }

    pub(super) fn set_choices(&mut self, values: &[Json<'_>]) {
        self.set_choices_of(&values.iter().collect::<Vec<_>>());
    }

    /// The backends take choices among non-empty strings only.
    pub(super) fn set_choices_of(&mut self, values: &[&Json<'_>]) {
        if self.choices.is_some() {
            return;
        }
        self.nullable |= values.iter().any(|value| value.is_null());
        let real: Vec<_> = values.iter().filter(|value| !value.is_null()).collect();
        if !real.is_empty() && real.iter().all(|value| value.as_bool().is_some()) {
            self.set_kind("boolean");
            if let [only] = real.as_slice() {
                self.hints.push(format!("Allowed: {}", only.to_text()));
            }
            return;
        }
        let mut choices: Vec<String> = Vec::new();
        for value in real {
            let text = value.as_str().map_or_else(|| value.to_text(), str::to_owned);
            if !text.is_empty() && !choices.contains(&text) {
                choices.push(text);
            }
        }
        if !choices.is_empty() {
            self.kind = Some("STRING");
            self.choices = Some(choices);
        }
    }

    pub(super) fn hint(&mut self, key: &str, value: &Json<'_>, lost: &mut bool) {
        let text = value.as_str().map_or_else(|| value.to_text(), str::to_owned);
        if text.len() > HINT_MAX {
            *lost = true;
        } else {
            self.hints.push(format!("{key}: {text}"));
        }
    }

    /// The type, guessed where none was given.
    pub(super) fn settle(&mut self, place: Place) -> &'static str {
        if place == Place::Root {
            // Arguments are an object whatever the schema says.
            return "OBJECT";
        }
        if self.choices.is_some() {
            return "STRING";
        }
        self.kind.unwrap_or(if !self.properties.is_empty() {
            "OBJECT"
        } else if self.items.is_some() {
            "ARRAY"
        } else {
            "STRING"
        })
    }

    pub(super) fn description(&self) -> Option<String> {
        let mut out = self.description.unwrap_or_default().to_owned();
        if !self.hints.is_empty() {
            let hints = self.hints.join("; ");
            let _ = if out.is_empty() { write!(out, "{hints}") } else { write!(out, " ({hints})") };
        }
        (!out.is_empty()).then_some(out)
    }
}

/// How much a branch of a union says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Null,
    Scalar(&'static str),
    Array,
    Object,
}

impl Rank {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Scalar(word) => word,
            Self::Array => "ARRAY",
            Self::Object => "OBJECT",
        }
    }
}

/// Notes that more than one type is fine.
pub(super) fn accepts(shape: &mut Shape<'_>, words: impl Iterator<Item = &'static str>) {
    let mut all: Vec<String> = Vec::new();
    for word in words.map(str::to_ascii_lowercase) {
        if !all.contains(&word) {
            all.push(word);
        }
    }
    if all.len() > 1 {
        shape.hints.push(format!("Accepts: {}", all.join(" | ")));
    }
}

pub(super) fn literals_only(branch: &Json<'_>) -> bool {
    branch.as_object().is_some_and(|map| map.has("const") || map.has("enum"))
}

pub(super) fn literals<'b>(branch: &'b Json<'b>) -> Option<Vec<&'b Json<'b>>> {
    let map = branch.as_object()?;
    match (map.get("const"), map.get("enum").and_then(Json::as_array)) {
        (Some(value), _) => Some(vec![value]),
        (None, Some(values)) => Some(values.iter().collect()),
        _ => None,
    }
}

/// The type as Google spells it.
pub(super) fn kind_of(word: &str) -> Option<&'static str> {
    const KINDS: [(&str, &str); 9] = [
        ("object", "OBJECT"),
        ("array", "ARRAY"),
        ("string", "STRING"),
        ("integer", "INTEGER"),
        ("int", "INTEGER"),
        ("number", "NUMBER"),
        ("float", "NUMBER"),
        ("boolean", "BOOLEAN"),
        ("bool", "BOOLEAN"),
    ];
    KINDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, kind)| *kind)
}
