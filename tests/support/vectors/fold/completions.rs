//! Legacy Completions chunks.

use super::{Data, Folded};
use crate::vectors::sse::Event;
use crate::vectors::value::{has, is_one_of, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Legal values of `finish_reason`.
pub(in crate::vectors) const FINISH: [&str; 3] = ["stop", "length", "content_filter"];

const SHAPE: &str = "completions.shape";

pub(super) fn fold(events: &[Event]) -> Folded {
    let mut doc = Folded::default();
    let mut choices: BTreeMap<u64, (String, Value)> = BTreeMap::new();
    for event in events {
        let chunk = match doc.read(event, SHAPE) {
            Data::Done => {
                doc.events.push(json!("[DONE]"));
                continue;
            }
            Data::Object(chunk) => chunk,
            Data::Other => continue,
        };
        if has(&chunk, "error") && !has(&chunk, "choices") {
            doc.errors.push(chunk["error"].clone());
            continue;
        }
        doc.events.push(json!("chunk"));
        let object = &chunk["object"];
        doc.rules.need(object == "text_completion", "completions.object", object);
        for part in doc.rules.objects(&chunk, "choices", SHAPE) {
            choice(part, &mut choices, &mut doc);
        }
        if !chunk["usage"].is_null() {
            doc.usage = chunk["usage"].clone();
        }
    }
    if let Some((text, finish)) = choices.get(&0) {
        doc.text.clone_from(text);
        doc.finish = finish.clone();
    }
    let whole = |(index, (text, finish)): (u64, (String, Value))| json!({"index": index, "text": text, "finish_reason": finish});
    let choices: Value = choices.into_iter().map(whole).collect();
    doc.last.insert("choices".to_owned(), choices.clone());
    doc.last.insert("usage".to_owned(), doc.usage.clone());
    doc.extra = Some(("choices", choices));
    doc
}

fn choice(part: &Value, choices: &mut BTreeMap<u64, (String, Value)>, doc: &mut Folded) {
    let index = part.get("index").map_or(Some(0), Value::as_u64);
    doc.rules.need(index.is_some(), SHAPE, "index of a choice is not an integer");
    let (whole, finish) = choices.entry(index.unwrap_or(0)).or_default();
    let is_text = part["text"].is_string() || !has(part, "text");
    doc.rules.need(is_text, "completions.text", "text is not a string");
    whole.push_str(text(&part["text"]));
    let reason = &part["finish_reason"];
    if !reason.is_null() {
        doc.rules.need(is_one_of(reason, &FINISH), "completions.finish_enum", reason);
        *finish = reason.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{broken, stream};
    use super::*;
    use crate::vectors::rules::testing::{changed, every_rule_breaks};

    fn base() -> Value {
        json!([
            {"object": "text_completion", "choices": [{"index": 0, "text": "a", "finish_reason": null}]},
            {"object": "text_completion", "choices": [{"index": 0, "text": "b", "finish_reason": "stop"}], "usage": {"n": 1}},
            "[DONE]",
        ])
    }

    #[test]
    fn folds_text() {
        let (doc, broken) = fold(&stream(&base(), false)).into_document();
        assert_eq!(broken, [""; 0]);
        assert_eq!((&doc["text"], &doc["finish"], &doc["done"]), (&json!("ab"), &json!("stop"), &json!(1)));
        assert_eq!(
            doc["final"],
            json!({"choices": [{"index": 0, "text": "ab", "finish_reason": "stop"}], "usage": {"n": 1}})
        );
    }

    #[test]
    fn every_rule_breaks_once() {
        let example =
            |pointer: &str, to: Value| broken("openai-completions", &changed(&base(), pointer, Some(to)));
        let examples = [
            ("completions.object", example("/0/object", json!("chat.completion.chunk"))),
            ("completions.text", example("/0/choices/0/text", Value::Null)),
            ("completions.finish_enum", example("/1/choices/0/finish_reason", json!("tool_calls"))),
            ("completions.finish_enum", example("/1/choices/0/finish_reason", json!(""))),
            ("completions.shape", example("/0/choices/0", json!(1))),
        ];
        every_rule_breaks(include_str!("completions.rs"), &examples);
    }
}
