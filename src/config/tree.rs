//! The document as a tree that knows where everything stands.
//!
//! Enters: what [`crate::parse`] finds. Leaves: kinds, paths and positions of nodes. May go wrong: the
//! document unfolds into more than [`MAX_NODES`] values.

use crate::notice::Notice;
use std::collections::HashSet;
use std::fmt;

/// Most values a document may unfold into. Ten thousand entries of twenty keys are a fifth of it.
const MAX_NODES: usize = 1_000_000;

/// A node of the tree.
pub(crate) type Id = usize;

/// The document.
#[derive(Debug)]
pub(crate) struct Tree<'t> {
    nodes: Vec<Node>,
    lines: Lines<'t>,
}

#[derive(Debug)]
struct Node {
    up: Id,
    step: Step,
    /// Byte offset of the key, for values of a map.
    key_at: Option<usize>,
    /// Byte offset of the word, for words.
    at: Option<usize>,
    kind: Kind,
}

/// How a node hangs below the one above it.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// It is the document.
    Root,
    /// The value of this key.
    Key(String),
    /// The element of this number.
    Item(usize),
}

/// What stands in a place.
#[derive(Debug)]
pub(crate) enum Kind {
    /// `~`, `null`, or nothing.
    Null,
    /// A scalar.
    Word(Word),
    /// A list.
    List(Vec<Id>),
    /// Keys and values, in order.
    Map(Vec<Id>),
}

/// A scalar: how YAML reads it, and how it is spelt.
#[derive(Debug)]
pub(crate) struct Word {
    pub(crate) class: Class,
    pub(crate) text: String,
}

/// What YAML takes a scalar for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Bool,
    Number,
    Text,
}

/// A place by its keys, whether or not the document says anything there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'p> {
    /// The document.
    Root,
    /// A value of a map.
    Key(&'p Self, &'p str),
    /// An element of a list.
    Item(&'p Self, usize),
}

impl<'p> Place<'p> {
    /// The value of `key` in the map that is here.
    pub(crate) fn key(&'p self, key: &'p str) -> Self {
        Self::Key(self, key)
    }

    /// The element `index` of the list that is here.
    pub(crate) fn item(&'p self, index: usize) -> Self {
        Self::Item(self, index)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(up, key) => {
                up.fmt(out)?;
                write_key(out, key, matches!(up, Self::Root))
            }
            Self::Item(up, index) => write!(out, "{up}[{index}]"),
        }
    }
}

/// Keys that would not read as one step (`a.b`) are quoted.
fn write_key(out: &mut impl fmt::Write, key: &str, first: bool) -> fmt::Result {
    let plain = |c: char| c.is_alphanumeric() || "-_$*/".contains(c);
    match (!key.is_empty() && key.chars().all(plain), first) {
        (true, true) => out.write_str(key),
        (true, false) => write!(out, ".{key}"),
        // `{:?}` escapes control characters, which may come from anywhere.
        (false, _) => write!(out, "[{:?}]", key.chars().take(80).collect::<String>()),
    }
}

/// `path` and one more key.
pub(crate) fn joined(path: &str, key: &str) -> String {
    let mut joined = path.to_owned();
    // Writing to a string cannot fail.
    let _ = write_key(&mut joined, key, path.is_empty());
    joined
}

impl<'t> Tree<'t> {
    /// An empty document over `text`.
    pub(crate) fn over(text: &'t str) -> Self {
        let root = Node { up: 0, step: Step::Root, key_at: None, at: None, kind: Kind::Null };
        Self { nodes: vec![root], lines: Lines::of(text) }
    }

    /// What stands at `id`.
    pub(crate) fn kind(&self, id: Id) -> &Kind {
        self.nodes.get(id).map_or(&Kind::Null, |node| &node.kind)
    }

    /// The key under which `id` stands; empty for elements of lists.
    pub(crate) fn key(&self, id: Id) -> &str {
        match self.nodes.get(id).map(|node| &node.step) {
            Some(Step::Key(key)) => key,
            _ => "",
        }
    }

    /// The node above.
    pub(crate) fn up(&self, id: Id) -> Id {
        self.nodes.get(id).map_or(0, |node| node.up)
    }

    /// The nodes below.
    pub(crate) fn below(&self, id: Id) -> &[Id] {
        match self.kind(id) {
            Kind::List(ids) | Kind::Map(ids) => ids,
            _ => &[],
        }
    }

    /// Makes `id` say nothing.
    pub(crate) fn blank(&mut self, id: Id) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.kind = Kind::Null;
        }
    }

    /// The node at `place`, or the nearest one above that exists; and whether it is the very node.
    pub(crate) fn find(&self, place: &Place<'_>) -> (Id, bool) {
        let (above, wanted) = match place {
            Place::Root => return (0, true),
            Place::Key(above, key) => {
                let above = self.find(above);
                (above, self.below(above.0).iter().find(|id| self.key(**id) == *key))
            }
            Place::Item(above, index) => {
                let above = self.find(above);
                (above, self.below(above.0).get(*index))
            }
        };
        match (above, wanted) {
            ((_, true), Some(id)) => (*id, true),
            ((id, _), _) => (id, false),
        }
    }

    /// The keys that lead to `id`: `claude-api-key[0].base-url`.
    pub(crate) fn path(&self, id: Id) -> String {
        let mut steps = Vec::new();
        let mut at = id;
        while let Some(Node { up, step: step @ (Step::Key(_) | Step::Item(_)), .. }) = self.nodes.get(at) {
            steps.push(step);
            at = *up;
        }
        let mut path = String::new();
        for step in steps.into_iter().rev() {
            // Writing to a string cannot fail.
            let _ = match step {
                Step::Key(key) => {
                    let first = path.is_empty();
                    write_key(&mut path, key, first)
                }
                Step::Item(index) => fmt::Write::write_fmt(&mut path, format_args!("[{index}]")),
                Step::Root => Ok(()),
            };
        }
        path
    }

    /// Says `problem` about the value at `id`.
    pub(crate) fn notice(&self, id: Id, path: String, problem: String) -> Notice {
        let (line, column) = self.spot(id).map(|at| self.lines.position(at)).unzip();
        Notice { line, column, path, problem }
    }

    /// Says `problem` about the key of `id`.
    pub(crate) fn notice_key(&self, id: Id, problem: String) -> Notice {
        let at = self.nodes.get(id).and_then(|node| node.key_at).or_else(|| self.spot(id));
        let (line, column) = at.map(|at| self.lines.position(at)).unzip();
        Notice { line, column, path: self.path(id), problem }
    }

    /// Says `problem` about the byte at `at`.
    pub(crate) fn notice_at(&self, at: usize, problem: String) -> Notice {
        let (line, column) = self.lines.position(at);
        Notice { line: Some(line), column: Some(column), path: String::new(), problem }
    }

    /// Takes out keys that stand in their map before, and says which.
    pub(crate) fn take_repeated(&mut self) -> Vec<Id> {
        let mut repeated = Vec::new();
        for id in 0..self.nodes.len() {
            let Kind::Map(ids) = self.kind(id) else { continue };
            let mut seen = HashSet::new();
            let (first, again): (Vec<_>, Vec<_>) = ids.iter().partition(|id| seen.insert(self.key(**id)));
            if !again.is_empty() {
                repeated.extend(again);
                self.set(id, Kind::Map(first));
            }
        }
        repeated
    }

    /// Where to point for `id`: at its word, its key, its first key, or what holds it.
    fn spot(&self, id: Id) -> Option<usize> {
        let node = self.nodes.get(id)?;
        let first = || self.below(id).first().and_then(|id| self.nodes.get(*id));
        node.at
            .or(node.key_at)
            .or_else(|| first().and_then(|first| first.key_at.or(first.at)))
            .or_else(|| if id == 0 { None } else { self.spot(node.up) })
    }

    /// Hangs a new node below `up`; `key_at` is the offset of its key.
    pub(crate) fn add(&mut self, up: Id, step: Step, key_at: Option<usize>) -> Result<Id, &'static str> {
        let key_at = key_at.map(|at| self.lines.quote(at));
        if self.nodes.len() >= MAX_NODES {
            return Err("the document unfolds into more than a million values (aliases of aliases?)");
        }
        self.nodes.push(Node { up, step, key_at, at: None, kind: Kind::Null });
        Ok(self.nodes.len() - 1)
    }

    /// Takes back the node that was added last.
    pub(crate) fn take_back(&mut self) {
        self.nodes.pop();
    }

    /// Says what stands at `id`.
    pub(crate) fn set(&mut self, id: Id, kind: Kind) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.kind = kind;
        }
    }

    /// Says how the word at `id` is spelt, and its offset.
    pub(crate) fn spell(&mut self, id: Id, spelling: String, at: Option<usize>) {
        if let Some(node) = self.nodes.get_mut(id)
            && let Kind::Word(word) = &mut node.kind
        {
            word.text = spelling;
            node.at = at.map(|at| self.lines.quote(at));
        }
    }

    /// Applies merge keys: `<<: *defaults` adds the keys that the map does not have. Nodes of an alias are its
    /// own copy, so they can be hung elsewhere.
    pub(crate) fn merge(&mut self) {
        // From the end: a map that is merged has been merged into before.
        for id in (0..self.nodes.len()).rev() {
            let Kind::Map(ids) = self.kind(id) else { continue };
            let Some(at) = ids.iter().position(|id| self.key(*id) == "<<") else { continue };
            let mut kept = ids.clone();
            let from = kept.remove(at);
            let sources = match self.kind(from) {
                Kind::Map(_) => vec![from],
                Kind::List(items) => items.clone(),
                // Not a merge: it stays, and is an unknown key.
                _ => continue,
            };
            let mut known: HashSet<String> = kept.iter().map(|id| self.key(*id).to_owned()).collect();
            for source in sources {
                for child in self.below(source).to_vec() {
                    if known.insert(self.key(child).to_owned()) {
                        kept.push(child);
                        if let Some(node) = self.nodes.get_mut(child) {
                            node.up = id;
                        }
                    }
                }
                self.blank(source);
            }
            self.set(id, Kind::Map(kept));
        }
    }
}

/// Where lines start, to turn offsets into lines and columns.
#[derive(Debug)]
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let bytes = text.as_bytes();
        let ends = |(at, byte): (usize, &u8)| match byte {
            b'\n' => Some(at + 1),
            b'\r' if bytes.get(at + 1) != Some(&b'\n') => Some(at + 1),
            _ => None,
        };
        let starts = std::iter::once(0).chain(bytes.iter().enumerate().filter_map(ends)).collect();
        Self { text, starts }
    }

    /// The quote in front of the word at `at`, if it is quoted.
    fn quote(&self, at: usize) -> usize {
        match at.checked_sub(1).map(|before| (before, self.text.as_bytes().get(before))) {
            Some((before, Some(b'"' | b'\''))) => before,
            _ => at,
        }
    }

    /// Line and column, both from 1; the column counts characters.
    fn position(&self, at: usize) -> (u32, u32) {
        let line = self.starts.partition_point(|start| *start <= at);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..at).map_or(0, |text| text.chars().count());
        (line as u32, before as u32 + 1)
    }
}
