//! An item of a built-in tool on its way in.
//!
//! Enters: the block as it began, and what came for it in pieces. Leaves: the item whole, as JSON text. May
//! go wrong: pieces that make no object; then the item stays as it began.

use crate::json::parse_any;
use crate::patch::Patch;
use serde_json::value::RawValue;

/// An item that is not complete yet.
#[derive(Debug)]
pub(super) struct Item {
    kind: String,
    raw: String,
    input: String,
}

impl Item {
    /// The item as its block began.
    pub(super) fn new(kind: &str, raw: &str) -> Self {
        Self { kind: kind.to_owned(), raw: raw.to_owned(), input: String::new() }
    }

    /// A piece of its input.
    pub(super) fn input(&mut self, fragment: &str) {
        self.input.push_str(fragment);
    }

    /// Sets a member, if there is a value.
    pub(super) fn set(&mut self, key: &str, value: Option<&RawValue>) {
        if let Some(value) = value {
            self.put(key, value.get());
        }
    }

    fn put(&mut self, key: &str, value: &str) {
        let mut patch = Patch::new(self.raw.as_bytes());
        patch.set(0, key, value);
        // Both texts are UTF-8, and edits lie between members.
        if let Ok(patched) = String::from_utf8(patch.apply()) {
            self.raw = patched;
        }
    }

    /// Its `type` and its text.
    pub(super) fn whole(mut self) -> (String, String) {
        let input = std::mem::take(&mut self.input);
        if parse_any(input.as_bytes()).is_ok_and(|input| input.is_object()) {
            self.put("input", &input);
        }
        (self.kind, self.raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_members_and_broken_ones_are_left_out() {
        let raw = r#"{"type":"server_tool_use","name":"web_search","input":{}}"#;
        let mut item = Item::new("server_tool_use", raw);
        item.input("{\"q\":");
        item.input("1}");
        assert_eq!(item.whole().1, r#"{"type":"server_tool_use","name":"web_search","input":{"q":1}}"#);
        let mut cut = Item::new("server_tool_use", raw);
        cut.input("{\"q\":");
        assert_eq!(cut.whole().1, raw);
        let mut compaction = Item::new("compaction", r#"{"type":"compaction","content":null}"#);
        let content = serde_json::value::to_raw_value("summary").unwrap();
        compaction.set("content", Some(&content));
        assert_eq!(compaction.whole().1, r#"{"type":"compaction","content":"summary"}"#);
    }
}
