//! The list of broken rules, and the accessors that break one when a shape is wrong.

use super::value::is_set;
use serde_json::Value;
use std::fmt::Display;

/// Broken rules so far, each as `group.name: what was seen`.
#[derive(Debug, Default)]
pub(super) struct Rules(Vec<String>);

impl Rules {
    /// Records a broken rule.
    pub(super) fn add(&mut self, rule: &str, seen: impl Display) {
        self.0.push(format!("{rule}: {seen}"));
    }

    /// Records a broken rule unless it `holds`.
    pub(super) fn need(&mut self, holds: bool, rule: &str, seen: impl Display) {
        if !holds {
            self.add(rule, seen);
        }
    }

    /// A member that is an object or missing. Anything else breaks the rule.
    pub(super) fn object<'v>(&mut self, parent: &'v Value, key: &str, rule: &str) -> &'v Value {
        let value = &parent[key];
        self.need(value.is_object() || !is_set(value), rule, format_args!("{key} is not an object"));
        value
    }

    /// The objects in a member that is an array or missing. Anything else breaks the rule.
    pub(super) fn objects<'v>(&mut self, parent: &'v Value, key: &str, rule: &str) -> Vec<&'v Value> {
        let value = &parent[key];
        self.need(value.is_array() || !is_set(value), rule, format_args!("{key} is not an array"));
        let all = super::value::elements(value);
        let objects: Vec<&Value> = all.iter().filter(|element| element.is_object()).collect();
        self.need(objects.len() == all.len(), rule, format_args!("{key} holds something that is no object"));
        objects
    }

    /// The broken rules.
    pub(super) fn into_broken(self) -> Vec<String> {
        self.0
    }
}

/// What the tests of the rule files share: examples are good documents with one change.
#[cfg(test)]
pub(super) mod testing {
    use regex::Regex;
    use serde_json::Value;
    use std::collections::BTreeSet;

    /// `base` with the value at `pointer` replaced, inserted (`-` appends) or, for `None`, removed.
    pub(in super::super) fn changed(base: &Value, pointer: &str, to: Option<Value>) -> Value {
        let mut document = base.clone();
        let (parent, token) = pointer.rsplit_once('/').unwrap();
        match (document.pointer_mut(parent).unwrap(), to) {
            (Value::Object(members), Some(to)) => {
                members.insert(token.to_owned(), to);
            }
            (Value::Object(members), None) => {
                members.shift_remove(token).unwrap();
            }
            (Value::Array(list), Some(to)) if token == "-" => list.push(to),
            (Value::Array(list), Some(to)) => list[token.parse::<usize>().unwrap()] = to,
            (Value::Array(list), None) => {
                list.remove(token.parse().unwrap());
            }
            (other, _) => panic!("{pointer} does not lead into {other}"),
        }
        document
    }

    /// Checks that each example breaks the rule it is for, and that no rule of a source file is without one.
    /// `source` is the file, of which everything up to its tests counts.
    pub(in super::super) fn every_rule_breaks(source: &str, examples: &[(&str, Vec<String>)]) {
        for (rule, broken) in examples {
            let id = format!("{rule}:");
            assert!(broken.iter().any(|b| b.starts_with(&id)), "{rule} is not among {broken:#?}");
        }
        let shown: BTreeSet<&str> = examples.iter().map(|(rule, _)| *rule).collect();
        let code = source.split("#[cfg(test)]").next().unwrap();
        let ids = Regex::new(r#""((?:sse|chat|claude|responses|gemini|completions|images|codex)\.[a-z_]+)""#)
            .unwrap();
        let named: BTreeSet<&str> = ids
            .captures_iter(code)
            .map(|found| found.get(1).unwrap().as_str())
            .filter(|id| *id != "chat.completion")
            .collect();
        assert!(!named.is_empty());
        let dead: Vec<_> = named.difference(&shown).collect();
        assert!(dead.is_empty(), "rules without a failing example: {dead:?}");
    }
}
