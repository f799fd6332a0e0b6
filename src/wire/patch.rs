//! Changes members of a JSON object on its bytes. Everything else stays as it is: key order, blanks, number
//! spelling, and with them the provider's prompt cache.
//!
//! Enters: a valid JSON object. Leaves: its bytes with the edits applied. May go wrong: nothing on valid
//! input; on anything else the result is as invalid as the input was.

use crate::json::{Place, string_end};
use std::collections::BTreeMap;
use std::ops::Range;

/// A member of an object, as positions in its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<'t> {
    /// The key as written, without quotes (escapes stay).
    pub key: &'t [u8],
    /// From the key's opening quote to the value's end.
    pub span: Range<usize>,
    /// The value.
    pub value: Range<usize>,
}

/// The members of the object that starts at `from` in `text`.
pub fn members(text: &[u8], from: usize) -> Members<'_> {
    let at = skip_blank(text, from);
    let at = if text.get(at) == Some(&b'{') { at + 1 } else { text.len() };
    Members { text, at }
}

/// The first letter of the value of member `key`, if one follows the value that ends at `at` in the same
/// object. Values behind it are not looked at, nor is what stands before.
pub fn follows(text: &[u8], at: usize, key: &[u8]) -> Option<u8> {
    let mut at = skip_blank(text, at);
    while text.get(at) == Some(&b',') {
        let start = skip_blank(text, at + 1);
        let end = string_end(text, start + 1);
        let value = skip_blank(text, skip_blank(text, end + 1) + 1);
        if text.get(start + 1..end) == Some(key) {
            return text.get(value).copied();
        }
        at = skip_blank(text, value_end(text, value));
    }
    None
}

/// The members that a scan of `text` has found, without looking again.
pub fn scanned<'t>(text: &'t [u8], places: &[Place]) -> impl Iterator<Item = Member<'t>> {
    places.iter().filter_map(|Place { key, value }| {
        let span = key.start.checked_sub(1)?..value.end;
        Some(Member { key: text.get(key.clone())?, span, value: value.clone() })
    })
}

/// The elements of the array that starts at `from` in `text`.
pub fn elements(text: &[u8], from: usize) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = skip_blank(text, from);
    if text.get(at) != Some(&b'[') {
        return found;
    }
    loop {
        at = skip_blank(text, at + 1);
        let end = value_end(text, at);
        if end == at {
            return found;
        }
        found.push(at..end);
        at = skip_blank(text, end);
        if text.get(at) != Some(&b',') {
            return found;
        }
    }
}

/// Iterates over [`members`].
#[derive(Clone, Debug)]
pub struct Members<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Iterator for Members<'t> {
    type Item = Member<'t>;

    fn next(&mut self) -> Option<Member<'t>> {
        let text = self.text;
        let start = skip_blank(text, self.at);
        if text.get(start) != Some(&b'"') {
            return None;
        }
        let key_end = string_end(text, start + 1);
        let key = text.get(start + 1..key_end)?;
        let colon = skip_blank(text, key_end + 1);
        let value = skip_blank(text, colon + 1);
        let end = value_end(text, value);
        let comma = skip_blank(text, end);
        self.at = if text.get(comma) == Some(&b',') { comma + 1 } else { text.len() };
        Some(Member { key, span: start..end, value: value..end })
    }
}

fn skip_blank(text: &[u8], from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    from + rest.iter().position(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r')).unwrap_or(rest.len())
}

/// One past the value that starts at `from`; `from` itself when none starts there.
fn value_end(text: &[u8], from: usize) -> usize {
    match text.get(from) {
        Some(b'"') => (string_end(text, from + 1) + 1).min(text.len()),
        Some(b'{' | b'[') => {
            let (mut depth, mut at) = (0_usize, from);
            while let Some(byte) = text.get(at) {
                match byte {
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    b'"' => at = string_end(text, at + 1),
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    break;
                }
            }
            at.min(text.len())
        }
        _ => {
            let rest = text.get(from..).unwrap_or_default();
            let ends = |b: &u8| matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            from + rest.iter().position(ends).unwrap_or(rest.len())
        }
    }
}

/// What happens to a member: a new value, or `None`, which removes it.
type Change = (String, Option<Vec<u8>>);

/// Edits of one document.
#[derive(Debug)]
pub struct Patch<'t> {
    text: &'t [u8],
    spans: Vec<(Range<usize>, Vec<u8>)>,
    /// Start of an object → what happens to its members: `None` removes.
    members: BTreeMap<usize, Vec<Change>>,
    /// The members of the outermost object, where they are known.
    top: Vec<Place>,
}

impl<'t> Patch<'t> {
    /// No edits yet.
    pub fn new(text: &'t [u8]) -> Self {
        Self::scanned(text, &[])
    }

    /// No edits yet, of a document whose members a scan has found.
    pub fn scanned(text: &'t [u8], top: &[Place]) -> Self {
        Self { text, spans: Vec::new(), members: BTreeMap::new(), top: top.to_vec() }
    }

    /// Puts `value` in the place of `span`.
    pub fn replace(&mut self, span: Range<usize>, value: impl Into<Vec<u8>>) {
        self.spans.push((span, value.into()));
    }

    /// Sets member `key` of the object that starts at `object`: in place when it is there, as the first
    /// member otherwise. `value` is JSON text.
    pub fn set(&mut self, object: usize, key: &str, value: impl Into<Vec<u8>>) {
        self.change(object, key, Some(value.into()));
    }

    /// Removes member `key` of the object that starts at `object`, with one comma.
    pub fn remove(&mut self, object: usize, key: &str) {
        self.change(object, key, None);
    }

    /// Removes those of the `elements` of an array that are `gone`, with their commas.
    pub fn remove_elements(&mut self, elements: &[Range<usize>], gone: &[bool]) {
        let mut kept_end: Option<usize> = None;
        let mut run: Option<usize> = None;
        for (element, gone) in elements.iter().zip(gone) {
            if *gone {
                run.get_or_insert(element.start);
                continue;
            }
            if let Some(start) = run.take() {
                self.replace(start..element.start, "");
            }
            kept_end = Some(element.end);
        }
        if let (Some(start), Some(last)) = (run, elements.last()) {
            self.replace(kept_end.unwrap_or(start)..last.end, "");
        }
    }

    fn change(&mut self, object: usize, key: &str, value: Option<Vec<u8>>) {
        let changes = self.members.entry(object).or_default();
        changes.retain(|(k, _)| k != key);
        changes.push((key.to_owned(), value));
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.members.is_empty()
    }

    /// The document with the edits applied. Of overlapping edits the first by position wins.
    pub fn apply(mut self) -> Vec<u8> {
        for (object, changes) in std::mem::take(&mut self.members) {
            self.resolve(object, &changes);
        }
        self.spans.sort_by_key(|(span, _)| (span.start, span.end));
        let grown: usize = self.spans.iter().map(|(_, new)| new.len()).sum();
        let mut out = Vec::with_capacity(self.text.len() + grown);
        let mut at = 0;
        for (span, new) in &self.spans {
            if span.start < at {
                continue;
            }
            out.extend_from_slice(self.text.get(at..span.start).unwrap_or_default());
            out.extend_from_slice(new);
            at = span.end;
        }
        out.extend_from_slice(self.text.get(at..).unwrap_or_default());
        out
    }

    /// Turns the changes of one object into spans.
    fn resolve(&mut self, object: usize, changes: &[Change]) {
        let (text, top) = (self.text, std::mem::take(&mut self.top));
        let outermost = !top.is_empty()
            && text
                .get(..skip_blank(text, object))
                .is_some_and(|before| before.iter().all(u8::is_ascii_whitespace));
        if outermost {
            self.resolve_members(object, changes, scanned(text, &top));
        } else {
            self.resolve_members(object, changes, members(text, object));
        }
    }

    fn resolve_members(
        &mut self,
        object: usize,
        changes: &[Change],
        members: impl Iterator<Item = Member<'t>>,
    ) {
        let mut found = vec![false; changes.len()];
        let mut kept_end = None;
        let mut gone: Option<usize> = None;
        let mut last_end = 0;
        for member in members {
            last_end = member.span.end;
            let at = changes.iter().position(|(key, _)| key.as_bytes() == member.key);
            let change = at.and_then(|at| changes.get(at));
            if let Some((_, None)) = change {
                gone.get_or_insert(member.span.start);
                continue;
            }
            // A run of removed members goes with the commas behind them.
            if let Some(start) = gone.take() {
                self.spans.push((start..member.span.start, Vec::new()));
            }
            kept_end = Some(member.span.end);
            if let Some((_, Some(value))) = change {
                // A member that is there twice is set twice: readers differ in which one they take.
                self.spans.push((member.value, value.clone()));
            }
            if let Some(found) = at.and_then(|at| found.get_mut(at)) {
                *found = true;
            }
        }
        if let Some(start) = gone {
            // The run ends the object: it goes with the comma before it.
            self.spans.push((kept_end.unwrap_or(start)..last_end, Vec::new()));
        }
        let mut new = Vec::new();
        let missing = changes.iter().zip(&found).filter(|(_, found)| !**found);
        for (key, value) in missing.filter_map(|((key, value), _)| Some((key, value.as_ref()?))) {
            crate::json::write_string(&mut new, key);
            new.push(b':');
            new.extend_from_slice(value);
            new.push(b',');
        }
        if !new.is_empty() {
            if kept_end.is_none() {
                new.pop();
            }
            let at = skip_blank(self.text, object) + 1;
            self.spans.push((at..at, new));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse_any;
    use proptest::prelude::*;

    fn apply(text: &str, edit: impl FnOnce(&mut Patch<'_>)) -> String {
        let mut patch = Patch::new(text.as_bytes());
        edit(&mut patch);
        String::from_utf8(patch.apply()).unwrap()
    }

    #[test]
    fn members_and_values() {
        let text = br#" { "a" : 1.50 , "b\"c":{"x":[1,"]"]},"d":"e" } "#;
        let found: Vec<_> = members(text, 0).map(|m| (m.key, &text[m.value])).collect();
        let expected: [(&[u8], &[u8]); 3] =
            [(b"a", b"1.50"), (br#"b\"c"#, br#"{"x":[1,"]"]}"#), (b"d", br#""e""#)];
        assert_eq!(found, expected);
        assert_eq!(elements(b" [1, [2,3] ,\"]\"]", 0).len(), 3);
        assert_eq!(elements(b"[]", 0).len(), 0);
    }

    #[test]
    fn members_behind_a_value_are_found_without_its_object() {
        let text = br#"[{"a":"x" , "b":{"c":1} ,"c": null},{"a":"x"}]"#;
        assert_eq!((follows(text, 9, b"c"), follows(text, 9, b"b")), (Some(b'n'), Some(b'{')));
        assert_eq!(
            (follows(text, 9, b"a"), follows(text, 9, b"d"), follows(text, text.len(), b"a")),
            (None, None, None)
        );
        assert_eq!(follows(b"\"x\",\"c", 3, b"c"), None);
    }

    #[test]
    fn edits_leave_the_rest_alone() {
        let text = r#"{ "model" : "a",  "x": 1.0e2, "y":[ ] }"#;
        assert_eq!(
            apply(text, |p| p.set(0, "model", b"\"b\"".to_vec())),
            r#"{ "model" : "b",  "x": 1.0e2, "y":[ ] }"#
        );
        assert_eq!(apply(text, |p| p.remove(0, "x")), r#"{ "model" : "a",  "y":[ ] }"#);
        assert_eq!(apply(text, |p| p.remove(0, "y")), r#"{ "model" : "a",  "x": 1.0e2 }"#);
        assert_eq!(
            apply(text, |p| p.set(0, "z", b"true".to_vec())),
            r#"{"z":true, "model" : "a",  "x": 1.0e2, "y":[ ] }"#
        );
        assert_eq!(apply("{}", |p| p.set(0, "z", b"1".to_vec())), r#"{"z":1}"#);
    }

    #[test]
    fn a_repeated_member_is_set_and_removed_everywhere() {
        let text = r#"{"a":1,"b":2,"a":3}"#;
        assert_eq!(apply(text, |p| p.set(0, "a", b"9".to_vec())), r#"{"a":9,"b":2,"a":9}"#);
        assert_eq!(apply(text, |p| p.remove(0, "a")), r#"{"b":2}"#);
    }

    #[test]
    fn all_members_can_go() {
        let text = r#"{"a":1,"b":2,"c":3}"#;
        for order in [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]] {
            assert_eq!(apply(text, |p| order.iter().for_each(|k| p.remove(0, k))), "{}", "{order:?}");
        }
    }

    fn object() -> impl Strategy<Value = Vec<(String, String)>> {
        let value = prop_oneof![
            "-?[1-9][0-9]{0,3}(\\.[0-9]e2)?",
            "\"[a-z,:{}\\[\\]]{0,6}\"",
            Just("[1, {\"k\":2}]".to_owned()),
            Just("{\"a\":{}}".to_owned())
        ];
        prop::collection::vec(("[a-h]", value), 0..7).prop_map(|mut v| {
            v.sort();
            v.dedup_by(|a, b| a.0 == b.0);
            v
        })
    }

    fn render(members: &[(String, String)]) -> String {
        let inner: Vec<_> = members.iter().map(|(k, v)| format!("\"{k}\": {v}")).collect();
        format!("{{{}}}", inner.join(" , "))
    }

    proptest! {
        #[test]
        fn p33_removing_any_members_keeps_the_others_byte_for_byte(all in object(), gone in "[a-h]{0,4}") {
            let text = render(&all);
            let out = apply(&text, |p| {
                let mut gone: Vec<_> = gone.chars().collect();
                gone.sort_unstable();
                gone.dedup();
                for c in gone {
                    p.remove(0, &c.to_string());
                }
            });
            let value = parse_any(out.as_bytes()).unwrap();
            let left: Vec<_> = all.iter().filter(|(k, _)| !gone.contains(k.as_str())).collect();
            prop_assert_eq!(value.as_object().unwrap().len(), left.len());
            for (key, raw) in left {
                let entry = format!("\"{key}\": {raw}");
                prop_assert!(out.contains(&entry));
            }
        }

        #[test]
        fn p33_setting_a_member_changes_only_it(all in object(), key in "[a-h]") {
            let text = render(&all);
            let out = apply(&text, |p| p.set(0, &key, b"\"NEW\"".to_vec()));
            let value = parse_any(out.as_bytes()).unwrap();
            prop_assert_eq!(value.get(&key).unwrap().as_str(), Some("NEW"));
            for (k, raw) in all.iter().filter(|(k, _)| *k != key) {
                let entry = format!("\"{k}\": {raw}");
                prop_assert!(out.contains(&entry));
            }
        }
    }
}
