//! From a path to places in the bytes of a body, and the edits there.
//!
//! Enters: a valid JSON document and a [`Path`]. Leaves: the spans of what is there, or the document with a
//! value set or taken out. Nothing may go wrong: where a path asks a string for a member, it leads nowhere.
//!
//! A member that is there twice is found twice, also where an escape hides its name: readers differ in which
//! one they take, and none of them shall get round a rule.

use super::path::{Element, Path, Step};
use crate::head::is_key;
use crate::json::string;
use crate::patch::{Patch, elements, members};
use std::collections::BTreeMap;
use std::ops::Range;

/// Where a path leads.
enum Place<'p> {
    /// A member of the object at `object`, whose name is written as `key`.
    Member { object: usize, key: String, value: Range<usize> },
    /// An element of the array at `array`.
    Element { array: usize, number: usize, value: Range<usize> },
    /// The value at `at` is an object, an array or null, and has nothing under the first of `rest`.
    Missing { at: usize, rest: &'p [Step] },
}

/// The spans of the values at `path`, below the value that starts at `from`.
pub(super) fn values(body: &[u8], from: usize, path: &Path) -> Vec<Range<usize>> {
    values_below(body, from, &path.0)
}

/// The same for the steps of a path.
pub(super) fn values_below(body: &[u8], from: usize, steps: &[Step]) -> Vec<Range<usize>> {
    let found = places(body, from, steps).into_iter().filter_map(|place| match place {
        Place::Member { value, .. } | Place::Element { value, .. } => Some(value),
        Place::Missing { .. } => None,
    });
    found.collect()
}

/// `body` with `value` at `path`; what is missing on the way is made. `None`: the path leads nowhere.
pub(super) fn set(body: &[u8], from: usize, path: &Path, value: &str) -> Option<Vec<u8>> {
    let mut edits = Patch::new(body);
    for place in places(body, from, &path.0) {
        match place {
            Place::Member { value: span, .. } | Place::Element { value: span, .. } => {
                edits.replace(span, value);
            }
            Place::Missing { at, rest } => create(body, at, rest, value, &mut edits),
        }
    }
    (!edits.is_empty()).then(|| edits.apply())
}

/// `body` without what is at `path`. `None`: there is nothing.
pub(super) fn remove(body: &[u8], from: usize, path: &Path) -> Option<Vec<u8>> {
    let mut edits = Patch::new(body);
    let mut arrays: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for place in places(body, from, &path.0) {
        match place {
            Place::Member { object, key, .. } => edits.remove(object, &key),
            Place::Element { array, number, .. } => arrays.entry(array).or_default().push(number),
            Place::Missing { .. } => {}
        }
    }
    for (array, gone) in arrays {
        let all = elements(body, array);
        let gone: Vec<bool> = (0..all.len()).map(|number| gone.contains(&number)).collect();
        edits.remove_elements(&all, &gone);
    }
    (!edits.is_empty()).then(|| edits.apply())
}

fn places<'p>(body: &[u8], from: usize, steps: &'p [Step]) -> Vec<Place<'p>> {
    let blanks = body.get(from..).unwrap_or_default().iter().take_while(|b| b.is_ascii_whitespace()).count();
    let mut found = Vec::new();
    walk(body, from + blanks, steps, &mut found);
    found
}

/// Goes one step from the value at `at`, and on. As deep as the path has steps.
fn walk<'p>(body: &[u8], at: usize, steps: &'p [Step], found: &mut Vec<Place<'p>>) {
    let Some((step, rest)) = steps.split_first() else { return };
    match (body.get(at), step) {
        (Some(b'{'), Step::Member { name, .. }) => {
            let mut some = false;
            for member in members(body, at).filter(|member| is_key(member.key, name)) {
                some = true;
                if rest.is_empty() {
                    let key = String::from_utf8_lossy(member.key).into_owned();
                    found.push(Place::Member { object: at, key, value: member.value });
                } else {
                    walk(body, member.value.start, rest, found);
                }
            }
            if !some {
                found.push(Place::Missing { at, rest: steps });
            }
        }
        (Some(b'['), Step::Member { element: Some(element), .. }) => {
            let there = match element {
                Element::At(number) => {
                    elements(body, at).into_iter().nth(*number).map(|span| (*number, span))
                }
                Element::Next => None,
            };
            match there {
                Some((number, span)) => enter(body, at, number, span, rest, found),
                None => found.push(Place::Missing { at, rest: steps }),
            }
        }
        (Some(b'['), Step::Query(query)) => {
            for (number, span) in elements(body, at).into_iter().enumerate() {
                if query.fits(body, &span) {
                    enter(body, at, number, span, rest, found);
                    if !query.all {
                        break;
                    }
                }
            }
        }
        (Some(b'n'), Step::Member { .. }) => found.push(Place::Missing { at, rest: steps }),
        _ => {}
    }
}

/// Goes on from an element.
fn enter<'p>(
    body: &[u8],
    array: usize,
    number: usize,
    span: Range<usize>,
    rest: &'p [Step],
    found: &mut Vec<Place<'p>>,
) {
    if rest.is_empty() {
        found.push(Place::Element { array, number, value: span });
    } else {
        walk(body, span.start, rest, found);
    }
}

/// Makes what is missing below the value at `at`. A query makes nothing: it says how elements look, not what
/// they are.
fn create(body: &[u8], at: usize, steps: &[Step], value: &str, patch: &mut Patch<'_>) {
    let Some((Step::Member { name, element }, rest)) = steps.split_first() else { return };
    let Some(inner) = nested(rest, value) else { return };
    match (body.get(at), element) {
        (Some(b'{'), _) => patch.set(at, name, inner),
        (Some(b'['), Some(element)) => {
            let all = elements(body, at);
            let nulls = match element {
                Element::At(number) => number.saturating_sub(all.len()),
                Element::Next => 0,
            };
            let comma = if all.is_empty() { "" } else { "," };
            let end = all.last().map_or(at + 1, |last| last.end);
            patch.replace(end..end, format!("{comma}{}{inner}", "null,".repeat(nulls)));
        }
        (Some(b'n'), _) => {
            if let Some(whole) = nested(steps, value) {
                patch.replace(at..at + b"null".len(), whole);
            }
        }
        _ => {}
    }
}

/// `value` below the objects and arrays that `steps` name.
fn nested(steps: &[Step], value: &str) -> Option<String> {
    let mut text = value.to_owned();
    for step in steps.iter().rev() {
        let Step::Member { name, element } = step else { return None };
        text = match element {
            Some(Element::At(number)) => format!("[{}{text}]", "null,".repeat(*number)),
            Some(Element::Next) => format!("[{text}]"),
            None => format!("{{{}:{text}}}", string(name)),
        };
    }
    Some(text)
}
