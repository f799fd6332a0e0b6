//! From a client's model name to those who can serve it.
//!
//! Enters: the name as the client wrote it: `[prefix/]id[(thinking)]`, or `auto`. Leaves: a [`Route`], cheap
//! to hold, which stays with the configuration it was made under. May go wrong: nobody serves that name
//! ([`RouteError::Unknown`], with the closest names).

use std::sync::Arc;

use wire::payload::Rules;
use wire::thinking::{Mode, split_suffix};

use crate::fallback::{self, Substitute};
use crate::index::{Entry, Index};
use crate::mapping::Mapping;
use crate::model::ModelSpec;
use crate::nearest;
use crate::settings::Now;
use crate::standing::standing;
use crate::{NameFilter, Pool};

/// Most closest names that are told.
const CLOSEST: usize = 3;
/// Longest name that an error repeats, in characters.
const SHOWN_NAME: usize = 200;

/// Those who can serve a model, under one configuration.
#[derive(Clone, Debug)]
pub struct Route {
    pub(crate) index: Arc<Index>,
    pub(crate) entry: u32,
    pub(crate) asked: Arc<str>,
    pub(crate) suffix: Option<Mode>,
    /// What serves in place of the model that was asked for.
    pub(crate) fallbacks: Option<Arc<[Arc<str>]>>,
    /// How many of those were tried or passed over, the model of this route included.
    pub(crate) passed: usize,
    /// The model that was asked for and its suffix, where another serves because it fails too often: it is
    /// tried when nothing else is left.
    pub(crate) home: Option<(u32, Option<Mode>)>,
    /// How the name that was asked for came to this model.
    pub(crate) mapping: Option<Arc<Mapping>>,
}

/// Why there is no route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Nobody serves that model.
    #[error("unknown provider for model {model}")]
    Unknown {
        /// The name as asked, cut where it is absurdly long.
        model: String,
        /// Names that come close, the closest first.
        closest: Vec<String>,
    },
}

impl Route {
    /// The name as the client wrote it. What an answer says where [`ModelSpec::force_mapping`] is set.
    pub fn asked(&self) -> &str {
        &self.asked
    }

    /// The name under which it is listed: without suffix, in the listed spelling.
    pub fn model(&self) -> &str {
        self.entry().map_or("", |entry| &entry.id)
    }

    /// What the suffix asks for. A suffix that means nothing asks for nothing.
    pub fn thinking(&self) -> Option<Mode> {
        self.suffix
    }

    /// Whether another model serves than the one that was asked for.
    pub fn is_fallback(&self) -> bool {
        self.passed > 0
    }

    /// Whether it matters which conversation a request belongs to: somebody who may serve it keeps sessions, and
    /// there is a choice.
    pub fn keeps_sessions(&self) -> bool {
        let settings = &self.index.settings;
        let choice = |entry: &Entry| {
            (entry.caches || settings.affinity_without_cache) && entry.candidates().nth(1).is_some()
        };
        let substitute = || self.fallbacks.as_ref().is_some_and(|list| !list.is_empty());
        settings.session_affinity_ms > 0 && (self.entry().is_some_and(choice) || substitute())
    }

    /// The listed name of the model that was asked for, where another one serves because it fails too often.
    pub fn turned_from(&self) -> Option<&str> {
        self.index.entry_at(self.home?.0).map(|entry| &*entry.id)
    }

    /// What its requests get where they have none of their own.
    pub fn params(&self) -> Option<&Rules> {
        self.mapping.as_ref().map(|mapping| &mapping.params)
    }

    /// The same route, for which no other model serves any more.
    #[must_use]
    pub fn without_fallbacks(self) -> Self {
        Self { fallbacks: None, ..self }
    }

    /// Facts of the model, as the credential of the highest priority has it.
    pub fn facts(&self) -> Option<&ModelSpec> {
        self.entry().map(|entry| &*entry.facts)
    }

    pub(crate) fn entry(&self) -> Option<&Entry> {
        self.index.entry_at(self.entry)
    }
}

impl Pool {
    /// Finds those who serve a model, or one that serves in its place where nobody does or where too many of
    /// its attempts fail. `now` matters to those, and to `auto`, which is the newest model that somebody can
    /// serve.
    pub fn route(&self, model: &str, now: Now) -> Result<Route, RouteError> {
        let route = self.resolve(model, now)?;
        let tries = || route.entry().is_some_and(|entry| entry.errors.tries());
        match fallback::detour(&route, now) {
            Some(detour) if !tries() => Ok(detour),
            _ => Ok(route),
        }
    }

    /// The same, whatever became of the attempts before.
    pub(crate) fn resolve(&self, model: &str, now: Now) -> Result<Route, RouteError> {
        let index = self.index.load_full();
        let (base, suffix) = split_suffix(model);
        let found = index
            .find(base)
            .or_else(|| if base.eq_ignore_ascii_case("auto") { newest(&index, now.mono_ms) } else { None })
            .map(|entry| (entry, suffix))
            // A listed name may itself end in brackets.
            .or_else(|| index.find(model).map(|entry| (entry, None)));
        let serves = |to: &str| index.find(split_suffix(to).0).is_some();
        let mapping = index.settings.mappings.find(base, found.is_some(), serves).cloned();
        let mapped = mapping.as_ref().and_then(|mapping| {
            let (to, own) = split_suffix(&mapping.to);
            index.find(to).map(|entry| (entry, own.or(suffix)))
        });
        let found = mapped.or(found);
        let listed = found.and_then(|(entry, _)| index.entry_at(entry));
        let fallbacks = fallback::list(&index, model, listed.map(|entry| &*entry.id));
        let asked = Arc::from(model);
        if let Some((entry, suffix)) = found {
            return Ok(Route { index, entry, asked, suffix, fallbacks, passed: 0, home: None, mapping });
        }
        let substitute = fallbacks.as_ref().and_then(|list| fallback::next(&index, list, 0, now));
        match substitute {
            Some(Substitute { entry, thinking, passed }) => {
                let suffix = thinking.or(suffix);
                Ok(Route { index, entry, asked, suffix, fallbacks, passed, home: None, mapping: None })
            }
            None => Err(RouteError::Unknown {
                model: model.chars().take(SHOWN_NAME).collect(),
                closest: closest(&index, base, &|_| true),
            }),
        }
    }

    /// The listed names closest to one that is not, the closest first, among those that `allowed` lets see.
    pub fn closest(&self, model: &str, allowed: NameFilter<'_>) -> Vec<String> {
        closest(&self.index.load(), split_suffix(model).0, allowed)
    }
}

fn closest(index: &Index, asked: &str, allowed: NameFilter<'_>) -> Vec<String> {
    let names = index.entries.iter().map(|entry| &*entry.id).filter(|id| allowed(id));
    nearest::nearest(asked, names, CLOSEST).into_iter().map(str::to_owned).collect()
}

fn newest(index: &Index, now_ms: u64) -> Option<u32> {
    let usable = |position: &&u32| {
        let entry = index.entry_at(**position);
        entry.into_iter().flat_map(Entry::candidates).any(|candidate| {
            standing(index, *candidate, now_ms).is_some_and(|standing| standing == crate::Standing::Ready)
        })
    };
    index.newest.iter().find(usable).or_else(|| index.newest.first()).copied()
}
