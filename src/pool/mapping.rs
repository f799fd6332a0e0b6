//! Models that a client knows and others serve (`ampcode.model-mappings`).
//!
//! Enters: a name as the client wrote it, without its thinking suffix. Leaves: the [`Mapping`] that says what serves
//! it. May go wrong: a regular expression that is none; the mapping is left out then, and told.
//!
//! Exact names come before regular expressions, both in any case. What nobody serves is no target.

use std::sync::Arc;

use config::{AmpMapping, Ampcode};
use regex::{Regex, RegexBuilder};
use wire::payload::Rules;

/// All of them, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappings {
    list: Vec<Arc<Mapping>>,
    /// They count also for names that somebody serves.
    forced: bool,
}

/// One model in place of another.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    from: Asked,
    /// What serves, maybe with a thinking suffix.
    pub(crate) to: Arc<str>,
    /// What its requests get where they have none.
    pub(crate) params: Rules,
}

#[derive(Clone, Debug)]
enum Asked {
    Name(Box<str>),
    Pattern(Regex),
}

impl PartialEq for Mapping {
    fn eq(&self, other: &Self) -> bool {
        let from = match (&self.from, &other.from) {
            (Asked::Name(a), Asked::Name(b)) => a == b,
            (Asked::Pattern(a), Asked::Pattern(b)) => a.as_str() == b.as_str(),
            _ => false,
        };
        from && self.to == other.to && self.params == other.params
    }
}

// Values of parameters are text: each is equal to itself.
impl Eq for Mapping {}

impl Mappings {
    /// Those of the configuration, and what cannot be used of it, one sentence each.
    pub fn new(ampcode: &Ampcode) -> (Self, Vec<String>) {
        let (mut list, mut problems) = (Vec::new(), Vec::new());
        for (n, mapping) in ampcode.model_mappings.iter().enumerate() {
            match Mapping::new(mapping) {
                Ok(mapping) => list.push(Arc::new(mapping)),
                Err(problem) => problems.push(format!("ampcode.model-mappings[{n}] is left out: {problem}")),
            }
        }
        (Self { list, forced: ampcode.force_model_mappings }, problems)
    }

    /// What serves `name`, which somebody serves already if it is `listed`. `serves` says so of others.
    pub(crate) fn find(
        &self,
        name: &str,
        listed: bool,
        serves: impl Fn(&str) -> bool,
    ) -> Option<&Arc<Mapping>> {
        if self.list.is_empty() || (listed && !self.forced) {
            return None;
        }
        let exact = |mapping: &&Arc<Mapping>| matches!(&mapping.from, Asked::Name(from) if from.eq_ignore_ascii_case(name));
        let alike =
            |mapping: &&Arc<Mapping>| matches!(&mapping.from, Asked::Pattern(from) if from.is_match(name));
        let all = || self.list.iter().filter(|mapping| serves(&mapping.to));
        all().find(exact).or_else(|| all().find(alike))
    }
}

impl Mapping {
    fn new(mapping: &AmpMapping) -> Result<Self, String> {
        let (from, to) = (mapping.from.trim(), mapping.to.trim());
        if from.is_empty() || to.is_empty() {
            return Err("it needs from and to".to_owned());
        }
        let from = if mapping.regex {
            let made = RegexBuilder::new(from).case_insensitive(true).build();
            Asked::Pattern(made.map_err(|error| format!("from is no regular expression: {error}"))?)
        } else {
            Asked::Name(from.into())
        };
        Ok(Self { from, to: Arc::from(to), params: mapping.params.defaults() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mappings(yaml: &str) -> (Mappings, Vec<String>) {
        let config = config::load(yaml.as_bytes()).unwrap().config;
        Mappings::new(&config.providers.ampcode)
    }

    #[test]
    fn exact_names_come_first_and_targets_have_to_be_there() {
        let (all, problems) = mappings(
            "ampcode:\n  model-mappings:\n    - {from: 'opus', to: by-pattern, regex: true}\n    - {from: Claude-Opus-4, to: gone}\n    \
             - {from: claude-opus-4, to: exact}\n    - {from: '(', to: x, regex: true}\n    - {from: '', to: x}\n",
        );
        let find = |name: &str, listed| {
            all.find(name, listed, |to| to != "gone").map(|mapping| mapping.to.to_string())
        };
        assert_eq!(find("CLAUDE-opus-4", false).as_deref(), Some("exact"));
        assert_eq!(find("claude-Opus-5", false).as_deref(), Some("by-pattern"));
        assert_eq!(find("claude-opus-4", true), None, "somebody serves it under its own name");
        assert_eq!(find("gpt", false), None);
        assert!(
            problems.len() == 2 && problems[0].contains("[3]") && problems[1].contains("[4]"),
            "{problems:?}"
        );
        let (all, _) =
            mappings("ampcode:\n  force-model-mappings: true\n  model-mappings: [{from: m, to: n}]\n");
        assert!(all.find("m", true, |_| true).is_some());
    }
}
