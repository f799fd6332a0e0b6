//! Models that serve in place of a model that cannot.
//!
//! Enters: a [`Route`] whose model nobody can serve. Leaves: the route of the next model of its list that
//! somebody can serve now; those that rest are passed over. A model too many of whose attempts fail is passed
//! over at once, and tried when nothing else is left. Nothing may go wrong. A list belongs to the name
//! that the client asked for: the lists of the models in it are not followed, so that there are no circles.

use std::collections::BTreeMap;
use std::sync::Arc;

use wire::thinking::{Mode, split_suffix};

use crate::Pool;
use crate::index::{Entry, Index};
use crate::ratio::RatioLevel;
use crate::route::Route;
use crate::settings::Now;
use crate::standing::{Standing, standing};

/// Names in lower case → what serves in their place, in order.
pub type Fallbacks = BTreeMap<String, Arc<[Arc<str>]>>;

impl Pool {
    /// The route of the next model that can serve in place of the one that was asked for; `None`: there is
    /// none. Ask when nobody can serve `route`, and begin with fresh [`crate::Attempts`].
    pub fn fallback(&self, route: &Route, now: Now) -> Option<Route> {
        let list = route.fallbacks.as_ref()?;
        if let Some(found) = next(&route.index, list, route.passed, now) {
            return Some(replaced(route, &found));
        }
        let (entry, suffix) = route.home?;
        Some(Route { entry, suffix, passed: 0, fallbacks: None, home: None, ..route.clone() })
    }
}

/// The route of the first fallback that can serve, where too many attempts on the model fail.
pub(crate) fn detour(route: &Route, now: Now) -> Option<Route> {
    let list = route.fallbacks.as_ref().filter(|list| !list.is_empty() && !route.is_fallback())?;
    if route.entry()?.errors.ratio(now.mono_ms).level < RatioLevel::Critical {
        return None;
    }
    let found = next(&route.index, list, 0, now)?;
    Some(Route { home: Some((route.entry, route.suffix)), ..replaced(route, &found) })
}

fn replaced(route: &Route, found: &Substitute) -> Route {
    // What the client asked for goes along, unless the list has its own.
    let asked = route.home.map_or(route.suffix, |(_, suffix)| suffix);
    Route { entry: found.entry, suffix: found.thinking.or(asked), passed: found.passed, ..route.clone() }
}

/// The list of a name: as the client wrote it, or as it is listed.
pub(crate) fn list(index: &Index, asked: &str, listed: Option<&str>) -> Option<Arc<[Arc<str>]>> {
    let all = &index.settings.fallback_models;
    if all.is_empty() {
        return None;
    }
    let of = |name: &str| all.get(&name.to_ascii_lowercase());
    of(split_suffix(asked).0).or_else(|| of(listed?)).cloned()
}

/// A model of a list: where it stands, and what its own suffix asks for.
pub(crate) struct Substitute {
    pub(crate) entry: u32,
    pub(crate) thinking: Option<Mode>,
    /// How many of the list are used up with it.
    pub(crate) passed: usize,
}

/// The first of a list, behind those that were passed, that somebody can serve now.
pub(crate) fn next(index: &Index, list: &[Arc<str>], passed: usize, now: Now) -> Option<Substitute> {
    list.iter().enumerate().skip(passed).find_map(|(n, name)| {
        let (base, thinking) = split_suffix(name);
        let entry = index.find(base)?;
        is_ready(index, index.entry_at(entry)?, now).then_some(Substitute { entry, thinking, passed: n + 1 })
    })
}

pub(crate) fn is_ready(index: &Index, entry: &Entry, now: Now) -> bool {
    entry.candidates().any(|candidate| match standing(index, *candidate, now.mono_ms) {
        Some(Standing::Ready) => true,
        Some(Standing::Cooling(rest)) => rest.soft,
        _ => false,
    })
}
