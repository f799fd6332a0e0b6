//! Local references of a schema, and what it costs to follow them.
//!
//! Enters: the document and a reference. Leaves: the schema it points to. May go wrong: it points nowhere,
//! into itself, or the budget is used up; then there is nothing to follow.

use crate::json::{Json, Map};
use std::rc::Rc;

/// The references that led to a schema, innermost first.
#[derive(Debug)]
pub(super) struct Trail {
    reference: String,
    parent: Option<Rc<Self>>,
}

/// A way into a schema. `None`: no reference on it.
pub(super) type Way = Option<Rc<Trail>>;

/// What a reference turned out to be.
pub(super) enum Target<'s> {
    /// A schema, and the way to its insides.
    Schema(&'s Json<'s>, Way),
    /// The schema contains itself, or is not in the document.
    Cut,
}

/// The document that references point into, and how much may still be expanded.
#[derive(Debug)]
pub(super) struct Document<'s> {
    root: &'s Json<'s>,
    left: usize,
    /// Something was cut.
    pub(super) lost: bool,
}

impl<'s> Document<'s> {
    pub(super) fn new(root: &'s Json<'s>, budget: usize) -> Self {
        Self { root, left: budget, lost: false }
    }

    /// Takes a schema off the budget, with its members and their elements; `false` when too little is left.
    pub(super) fn spend(&mut self, schema: &Map<'_>) -> bool {
        let weight: usize = schema
            .iter()
            .map(|(_, value)| match value {
                Json::Array(items) => 1 + items.len(),
                Json::Object(map) => 1 + map.len(),
                _ => 1,
            })
            .sum();
        if let Some(left) = self.left.checked_sub(weight + 1) {
            self.left = left;
            return true;
        }
        self.lost = true;
        false
    }

    /// Follows `reference`.
    pub(super) fn follow(&mut self, reference: &str, way: &Way) -> Target<'s> {
        let mut step = way.as_ref();
        while let Some(trail) = step {
            if trail.reference == reference {
                self.lost = true;
                return Target::Cut;
            }
            step = trail.parent.as_ref();
        }
        match self.find(reference) {
            Some(schema) if self.left > 0 => {
                self.left -= 1;
                let trail = Trail { reference: reference.to_owned(), parent: way.clone() };
                Target::Schema(schema, Some(Rc::new(trail)))
            }
            _ => {
                self.lost = true;
                Target::Cut
            }
        }
    }

    /// RFC 6901 pointer in a fragment, as tools write it: `#`, `#/$defs/A`, `#/definitions/A`.
    fn find(&self, reference: &str) -> Option<&'s Json<'s>> {
        let pointer = reference.strip_prefix('#')?;
        if pointer.is_empty() {
            return Some(self.root);
        }
        pointer.strip_prefix('/')?.split('/').try_fold(self.root, |value, token| {
            let token = token.replace("~1", "/").replace("~0", "~");
            match value {
                Json::Array(items) => items.get(token.parse::<usize>().ok()?),
                _ => value.get(&token),
            }
        })
    }
}

/// The last segment of a reference: what people call the type.
pub(super) fn name_of(reference: &str) -> &str {
    reference.rsplit(['/', '#']).find(|part| !part.is_empty()).unwrap_or("the whole schema")
}
