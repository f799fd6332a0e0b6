//! The rules of a stream of this format, for the tests of what writes one.

use crate::json::Json;
use std::collections::BTreeMap;

/// The string `key`, or nothing.
pub(super) fn text<'j>(value: &'j Json<'_>, key: &str) -> &'j str {
    value.get(key).and_then(Json::as_str).unwrap_or_default()
}

/// The number `key`.
pub(super) fn number(value: &Json<'_>, key: &str) -> u64 {
    value.get(key).and_then(Json::as_u64).unwrap_or_else(|| panic!("{key} in {}", value.to_text()))
}

/// What the events of a stream said so far, held to the rules of the format.
#[derive(Default)]
struct Check<'j> {
    /// Added and done.
    items: Vec<(&'j Json<'static>, Option<&'j Json<'static>>)>,
    /// Open parts by item and number; `None` when closed.
    parts: BTreeMap<(u64, u64), Option<String>>,
    arguments: BTreeMap<u64, String>,
}

impl<'j> Check<'j> {
    fn event(&mut self, event: &'j Json<'static>) {
        let kind = text(event, "type").strip_prefix("response.").unwrap();
        if matches!(kind, "created" | "in_progress") {
            assert_eq!(event.at(&["response", "output"]).unwrap().to_text(), "[]");
            return;
        }
        let index = number(event, "output_index");
        if kind == "output_item.added" {
            assert_eq!(index as usize, self.items.len());
            return self.items.push((event.get("item").unwrap(), None));
        }
        let (item, done) = &mut self.items[index as usize];
        assert!(done.is_none(), "{kind} after its item was done");
        if kind == "output_item.done" {
            let whole = event.get("item").unwrap();
            assert_eq!((text(item, "id"), text(item, "type")), (text(whole, "id"), text(whole, "type")));
            *done = Some(whole);
            return;
        }
        assert_eq!(text(item, "id"), text(event, "item_id"));
        self.part(kind, index, event);
    }

    fn part(&mut self, kind: &str, index: u64, event: &Json<'_>) {
        let part = event.get("content_index").or(event.get("summary_index")).and_then(Json::as_u64);
        let key = (index, part.unwrap_or(u64::MAX));
        match kind {
            "content_part.added" | "reasoning_summary_part.added" => {
                assert!(self.parts.insert(key, Some(String::new())).is_none());
            }
            "output_text.delta" | "refusal.delta" | "reasoning_summary_text.delta" => {
                self.parts.get_mut(&key).unwrap().as_mut().unwrap().push_str(text(event, "delta"));
            }
            "output_text.done" | "refusal.done" | "reasoning_summary_text.done" => {
                let whole = event.get("text").or(event.get("refusal")).unwrap().as_str();
                assert_eq!(self.parts[&key].as_deref(), whole);
            }
            "content_part.done" | "reasoning_summary_part.done" => {
                assert!(self.parts.insert(key, None).unwrap().is_some());
            }
            "function_call_arguments.delta" | "custom_tool_call_input.delta" => {
                self.arguments.entry(index).or_default().push_str(text(event, "delta"));
            }
            "function_call_arguments.done" | "custom_tool_call_input.done" => {
                let whole = event.get("arguments").or(event.get("input")).unwrap().as_str().unwrap();
                assert_eq!(self.arguments.entry(index).or_default(), whole);
            }
            _ => {}
        }
    }
}

/// The response of the terminal event of a stream that keeps the rules.
pub(super) fn checked(events: &[Json<'static>]) -> Json<'static> {
    let mut check = Check::default();
    let (last, body) = events.split_last().unwrap();
    for (n, event) in events.iter().enumerate() {
        assert_eq!(number(event, "sequence_number"), n as u64);
    }
    assert_eq!(text(&body[0], "type"), "response.created");
    for event in body {
        check.event(event);
    }
    let response = last.get("response").unwrap().clone();
    if text(last, "type") != "response.failed" {
        assert!(check.parts.values().all(Option::is_none));
        let done: Vec<_> = check.items.into_iter().map(|(_, done)| done.unwrap().clone()).collect();
        assert_eq!(response.get("output").unwrap().as_array().unwrap(), done);
    }
    assert_eq!(text(last, "type"), format!("response.{}", text(&response, "status")));
    for key in ["id", "created_at", "model", "output", "tools", "tool_choice", "parallel_tool_calls"] {
        assert!(response.get(key).is_some(), "{key}");
    }
    response
}
