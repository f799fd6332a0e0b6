//! Mistakes and remarks as they are found.
//!
//! Enters: a place and a sentence. Leaves: notices with positions, in the order of the file. Nothing may go
//! wrong: what a mistake has made empty draws no further remarks, and more than [`MOST`] of a kind are counted.

use crate::notice::Notice;
use crate::tree::{Id, Place, Tree};
use std::collections::HashSet;

/// Most notices of a kind that are listed. Nobody reads more, and a hostile file could have a million.
const MOST: usize = 200;

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) errors: Pile,
    pub(crate) warnings: Pile,
    /// Nodes whose value was refused and is treated as if it were not there.
    pub(crate) blanked: HashSet<Id>,
}

/// Notices of a kind.
#[derive(Debug, Default)]
pub(crate) struct Pile {
    notices: Vec<Notice>,
    more: usize,
}

impl Pile {
    pub(crate) fn push(&mut self, notice: Notice) {
        if !self.skip() {
            self.notices.push(notice);
        }
    }

    /// Counts one that is not worth writing when there are too many already; `true` when it did.
    pub(crate) fn skip(&mut self) -> bool {
        let full = self.is_full();
        self.more += usize::from(full);
        full
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.notices.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.notices.len() >= MOST
    }

    /// The notices in the order of the file.
    pub(crate) fn into_notices(mut self) -> Vec<Notice> {
        self.notices.sort_by_key(|notice| (notice.line, notice.column));
        if self.more > 0 {
            self.notices.push(Notice::whole(format!("and {} more", self.more)));
        }
        self.notices
    }
}

/// For checks: what was found, and the tree to find places in.
#[derive(Debug)]
pub(crate) struct Report<'r, 't> {
    pub(crate) tree: &'r Tree<'t>,
    pub(crate) found: &'r mut Findings,
}

impl Report<'_, '_> {
    /// The file cannot be used.
    pub(crate) fn error(&mut self, place: &Place<'_>, problem: impl Into<String>) {
        if let Some(notice) = self.notice(place, problem.into()) {
            self.found.errors.push(notice);
        }
    }

    /// The file can be used, but not all of it is.
    pub(crate) fn warn(&mut self, place: &Place<'_>, problem: impl Into<String>) {
        if let Some(notice) = self.notice(place, problem.into()) {
            self.found.warnings.push(notice);
        }
    }

    fn notice(&self, place: &Place<'_>, problem: String) -> Option<Notice> {
        let (id, _) = self.tree.find(place);
        (!self.found.blanked.contains(&id)).then(|| self.tree.notice(id, place.to_string(), problem))
    }
}
