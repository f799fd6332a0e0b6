//! A stream of this format → the whole answer of this format, byte for byte.
//!
//! For a client that wants a whole answer from an upstream that only streams. Enters: the data of each event.
//! Leaves: the `response` object of the terminal event as the upstream wrote it; where its `output` is empty,
//! the finished items, also as written. May go wrong: a stream without a terminal event, or one that failed:
//! then there is no body, and [`super::reader`] says why.

use super::event::{Event, Response, list, number, object, text};
use crate::patch::Patch;
use serde_json::value::RawValue;

/// Collects one answer.
#[derive(Debug, Default)]
pub struct Collect {
    /// Finished items with their `output_index`, in order of arrival.
    items: Vec<(u64, Box<str>)>,
    body: Option<Vec<u8>>,
}

impl Collect {
    /// Takes the data of the next event.
    pub fn event(&mut self, data: &[u8]) {
        if self.body.is_some() {
            return;
        }
        let Ok(event) = serde_json::from_slice::<Event<'_>>(data) else { return };
        match text(event.kind).as_ref() {
            "response.output_item.done" => {
                if let Some(item) = event.item {
                    let index = number(event.output_index).unwrap_or(self.items.len() as u64);
                    self.items.push((index, item.get().into()));
                }
            }
            "response.completed" | "response.incomplete" | "response.done" => {
                self.body = event.response.map(|response| self.whole(response));
                self.items.clear();
            }
            _ => {}
        }
    }

    fn whole(&mut self, raw: &RawValue) -> Vec<u8> {
        let response: Response<'_> = object(Some(raw));
        let body = raw.get().as_bytes();
        if self.items.is_empty() || !list(response.output).is_empty() {
            return body.to_vec();
        }
        self.items.sort_by_key(|(index, _)| *index);
        let items: Vec<&str> = self.items.iter().map(|(_, item)| item.as_ref()).collect();
        let mut patch = Patch::new(body);
        patch.set(0, "output", format!("[{}]", items.join(",")));
        patch.apply()
    }

    /// The whole answer, once the terminal event has come.
    pub fn into_body(self) -> Option<Vec<u8>> {
        self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(events: &[&str]) -> Option<String> {
        let mut collect = Collect::default();
        for event in events {
            collect.event(event.as_bytes());
        }
        collect.into_body().map(|body| String::from_utf8(body).unwrap())
    }

    const ONE: &str = r#"{"type":"response.output_item.done","output_index":1,"item":{"id":"b", "n":1.0}}"#;
    const ZERO: &str = r#"{"type":"response.output_item.done","output_index":0,"item":{"id":"a"}}"#;

    #[test]
    fn an_empty_output_is_rebuilt_in_order_and_nothing_else_changes() {
        let end = r#"{"type":"response.completed","response":{ "id":"r", "output":[ ], "x": 1.50 }}"#;
        assert_eq!(
            collected(&[ONE, ZERO, end]).as_deref(),
            Some(r#"{ "id":"r", "output":[{"id":"a"},{"id":"b", "n":1.0}], "x": 1.50 }"#)
        );
    }

    #[test]
    fn an_output_that_is_there_is_kept() {
        let end = r#"{"type":"response.incomplete","response":{"output":[{"id":"z"}]}}"#;
        assert_eq!(collected(&[ONE, end, ZERO]).as_deref(), Some(r#"{"output":[{"id":"z"}]}"#));
    }

    #[test]
    fn a_stream_that_is_cut_or_failed_has_no_body() {
        assert_eq!(collected(&[ONE]), None);
        assert_eq!(collected(&[ONE, r#"{"type":"response.failed","response":{"output":[]}}"#]), None);
    }
}
