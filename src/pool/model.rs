//! What a credential serves: models under the names that clients use.
//!
//! Enters: a list of models, as configured. Leaves: a [`ModelSet`], grouped by client name. A name that
//! occurs with several upstream models is a *model pool*: they are tried in the order given, within the
//! credential. Nothing may go wrong: a model that repeats is dropped.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use wire::target::Card;
use wire::thinking::{Mode, split_suffix};

/// One model of a credential.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelSpec {
    /// The upstream's name, without suffix.
    pub upstream: Arc<str>,
    /// How much to think, from a suffix on the configured upstream name. A client's own suffix wins.
    pub thinking: Option<Mode>,
    /// The client's name.
    pub alias: Arc<str>,
    /// Facts.
    pub card: Card,
    /// Answers name the model as the client did.
    pub force_mapping: bool,
    /// A name that nobody set, given so that clients find the model, or a name that was set for a model that
    /// the account does not list: those whose own name it is come first.
    pub usual: bool,
    /// Writes images or videos and no text: served by their routes only.
    pub image: bool,
    /// The upstream only resembles the original: thinking blocks with empty signatures are kept.
    pub is_compat: bool,
    /// Copilot serves it by Responses only.
    pub responses_only: bool,
    /// The vendor's version of it.
    pub version: Option<Arc<str>>,
    /// Name for people.
    pub display_name: Option<Arc<str>>,
    /// Owner shown in lists.
    pub owned_by: Arc<str>,
    /// Seconds since 1970 at which the model came out.
    pub created: Option<u64>,
    /// What it reads (`text`, `image`, …); empty: not stated.
    pub input: Arc<[Arc<str>]>,
    /// What it writes; empty: not stated.
    pub output: Arc<[Arc<str>]>,
}

impl ModelSpec {
    /// A model of which only the names are known. An empty alias is the upstream's name.
    pub fn new(upstream: &str, alias: &str) -> Self {
        let (name, thinking) = split_suffix(upstream);
        let alias = if alias.is_empty() { upstream } else { alias };
        Self { upstream: Arc::from(name), thinking, alias: Arc::from(alias), ..Self::default() }
    }
}

/// The models of one or more credentials, grouped by client name.
#[derive(Debug, Default)]
pub struct ModelSet {
    models: Vec<Arc<ModelSpec>>,
    groups: Vec<Group>,
    /// By position of a group's first model: digest of its upstream names.
    digests: Vec<u64>,
}

/// The models behind one client name: `models[first..first + len]`.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) alias: Arc<str>,
    pub(crate) span: Span,
}

/// A run of models in a [`ModelSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Span {
    first: u32,
    len: u32,
}

impl Span {
    /// The positions in the set.
    pub(crate) fn positions(self) -> std::ops::Range<u32> {
        self.first..self.first + self.len
    }
}

impl ModelSet {
    /// Groups the models; groups and the models in one keep the order given.
    pub fn new(models: impl IntoIterator<Item = ModelSpec>) -> Arc<Self> {
        let mut order: Vec<Vec<Arc<ModelSpec>>> = Vec::new();
        let mut places: HashMap<Arc<str>, usize> = HashMap::new();
        for model in models {
            let place = *places.entry(Arc::clone(&model.alias)).or_insert_with(|| {
                order.push(Vec::new());
                order.len() - 1
            });
            let Some(group) = order.get_mut(place) else { continue };
            if !group.iter().any(|known| known.upstream == model.upstream && known.thinking == model.thinking)
            {
                group.push(Arc::new(model));
            }
        }
        let mut set = Self::default();
        for group in order {
            let Some(alias) = group.first().map(|model| Arc::clone(&model.alias)) else { continue };
            let span = Span { first: set.models.len() as u32, len: group.len() as u32 };
            let mut hasher = DefaultHasher::new();
            for model in &group {
                model.upstream.hash(&mut hasher);
            }
            set.groups.push(Group { alias, span });
            set.models.extend(group);
            set.digests.resize(set.models.len(), hasher.finish());
        }
        Arc::new(set)
    }

    /// All models.
    pub fn models(&self) -> &[Arc<ModelSpec>] {
        &self.models
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// A digest of the upstream names in a span, in order.
    pub(crate) fn digest(&self, span: Span) -> u64 {
        self.digests.get(span.first as usize).copied().unwrap_or(0)
    }

    pub(crate) fn get(&self, position: u32) -> Option<&Arc<ModelSpec>> {
        self.models.get(position as usize)
    }
}

#[cfg(test)]
mod tests {
    use wire::thinking::Level;

    use super::*;

    #[test]
    fn a_repeated_alias_is_a_pool_in_order() {
        let set = ModelSet::new([
            ModelSpec::new("b", "fast"),
            ModelSpec::new("x", ""),
            ModelSpec::new("a", "fast"),
            ModelSpec::new("b", "fast"),
        ]);
        let names: Vec<_> = set.models().iter().map(|m| (&*m.alias, &*m.upstream)).collect();
        assert_eq!(names, [("fast", "b"), ("fast", "a"), ("x", "x")]);
        let spans: Vec<_> = set.groups().iter().map(|g| (&*g.alias, g.span.positions())).collect();
        assert_eq!(spans, [("fast", 0..2), ("x", 2..3)]);
    }

    #[test]
    fn an_upstream_name_may_carry_a_suffix() {
        let model = ModelSpec::new("gpt-5(high)", "deep");
        assert_eq!((&*model.upstream, model.thinking), ("gpt-5", Some(Mode::Level(Level::High))));
    }
}
