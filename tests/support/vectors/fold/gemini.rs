//! Gemini chunks, also in the envelope `{response}`.

use super::{Data, Folded};
use crate::vectors::sse::Event;
use crate::vectors::value::{dump, has, is_one_of, is_set, text};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Legal values of `finishReason`.
pub(in crate::vectors) const FINISH: [&str; 24] = [
    "FINISH_REASON_UNSPECIFIED",
    "STOP",
    "MAX_TOKENS",
    "SAFETY",
    "RECITATION",
    "LANGUAGE",
    "OTHER",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MALFORMED_FUNCTION_CALL",
    "IMAGE_SAFETY",
    "UNEXPECTED_TOOL_CALL",
    "IMAGE_PROHIBITED_CONTENT",
    "NO_IMAGE",
    "IMAGE_RECITATION",
    "IMAGE_OTHER",
    "MODEL_ARMOR",
    "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE",
    "MALFORMED_RESPONSE",
    "ESCALATION",
    "PUP_LIMITED_DISABLED",
    "CONTINUATION",
];

const SHAPE: &str = "gemini.shape";

pub(super) fn fold(events: &[Event]) -> Folded {
    let mut stream = Stream::default();
    for event in events {
        stream.event(event);
    }
    stream.close()
}

#[derive(Default)]
struct Stream {
    doc: Folded,
    candidates: BTreeMap<u64, Candidate>,
}

#[derive(Default)]
struct Candidate {
    parts: Vec<Value>,
    finish: Value,
    /// Metadata, the last of each kind.
    more: Map<String, Value>,
}

impl Stream {
    fn event(&mut self, event: &Event) {
        let outer = match self.doc.read(event, SHAPE) {
            Data::Done => {
                return self.doc.rules.add("gemini.no_done", "[DONE] is not part of the Gemini stream");
            }
            Data::Object(chunk) => chunk,
            Data::Other => return,
        };
        let inner = has(&outer, "response") && !has(&outer, "candidates");
        let chunk = if inner { &outer["response"] } else { &outer };
        if !chunk.is_object() {
            return self.doc.rules.add(SHAPE, "chunk is not an object");
        }
        if has(chunk, "error") {
            self.doc.errors.push(chunk["error"].clone());
            return self.doc.events.push(json!("error"));
        }
        self.doc.events.push(json!("chunk"));
        let known = ["candidates", "promptFeedback", "usageMetadata"].iter().any(|key| has(chunk, key));
        self.doc.rules.need(known, SHAPE, "chunk has none of candidates, promptFeedback, usageMetadata");
        for key in ["modelVersion", "responseId", "promptFeedback"] {
            if let Some(value) = chunk.get(key) {
                self.doc.last.insert(key.to_owned(), value.clone());
            }
        }
        for candidate in self.doc.rules.objects(chunk, "candidates", SHAPE) {
            self.candidate(candidate);
        }
        match &chunk["usageMetadata"] {
            Value::Null => {}
            Value::Object(usage) => {
                let mut whole = self.doc.usage.as_object().cloned().unwrap_or_default();
                whole.extend(usage.clone());
                self.doc.usage = whole.into();
            }
            _ => self.doc.rules.add(SHAPE, "usageMetadata is not an object"),
        }
    }

    fn candidate(&mut self, chunk: &Value) {
        let rules = &mut self.doc.rules;
        let index = if chunk["index"].is_null() { Some(0) } else { chunk["index"].as_u64() };
        rules.need(index.is_some(), SHAPE, "index of a candidate is not an integer");
        let candidate = self.candidates.entry(index.unwrap_or(0)).or_default();
        let content = rules.object(chunk, "content", SHAPE);
        let role = &content["role"];
        let model = !is_set(content) || role.is_null() || role == "model";
        rules.need(model, "gemini.role", format_args!("role {role}"));
        let parts = rules.objects(content, "parts", SHAPE);
        let payload = ["text", "functionCall", "inlineData"];
        let filled = parts.iter().any(|part| payload.iter().any(|key| is_set(&part[*key])));
        let late = filled && !candidate.finish.is_null();
        rules.need(!late, "gemini.finish_last", "content after finishReason");
        candidate.parts.extend(parts.into_iter().cloned());
        let finish = &chunk["finishReason"];
        if is_set(finish) {
            rules.need(
                is_one_of(finish, &FINISH),
                "gemini.finish_enum",
                format_args!("finishReason {finish}"),
            );
            rules.need(candidate.finish.is_null(), "gemini.finish_once", "finishReason sent twice");
            candidate.finish = finish.clone();
        }
        for key in ["groundingMetadata", "citationMetadata", "safetyRatings"] {
            if let Some(value) = chunk.get(key) {
                candidate.more.insert(key.to_owned(), value.clone());
            }
        }
    }

    fn close(mut self) -> Folded {
        let doc = &mut self.doc;
        let blocked = doc.last.get("promptFeedback").is_some_and(|feedback| is_set(&feedback["blockReason"]));
        if doc.errors.is_empty() && !blocked {
            doc.rules.need(!self.candidates.is_empty(), SHAPE, "no candidate");
            for (index, candidate) in &self.candidates {
                let seen = format_args!("candidate {index} never finishes").to_string();
                doc.rules.need(!candidate.finish.is_null(), "gemini.finish_once", seen);
            }
        }
        for (at, candidate) in self.candidates.values().enumerate() {
            for part in &candidate.parts {
                show(part, at == 0, doc);
            }
            if at == 0 {
                doc.finish = candidate.finish.clone();
            }
        }
        let candidates: Value = self.candidates.into_iter().map(|(index, c)| c.whole(index)).collect();
        doc.last.insert("candidates".to_owned(), candidates.clone());
        doc.last.insert("usageMetadata".to_owned(), doc.usage.clone());
        doc.extra = Some(("candidates", candidates));
        self.doc
    }
}

impl Candidate {
    fn whole(self, index: u64) -> Value {
        let mut whole = Map::new();
        whole.insert("index".to_owned(), json!(index));
        whole.insert("parts".to_owned(), Value::Array(self.parts));
        whole.insert("finishReason".to_owned(), self.finish);
        whole.extend(self.more);
        Value::Object(whole)
    }
}

/// Checks a part and, for the `first` candidate, adds it to the document.
fn show(part: &Value, first: bool, doc: &mut Folded) {
    let call = doc.rules.object(part, "functionCall", SHAPE);
    let args = call.get("args").cloned().unwrap_or_else(|| json!({}));
    if call.is_object() {
        doc.rules.need(is_set(&call["name"]), "gemini.fc_shape", "functionCall without name");
        doc.rules.need(args.is_object(), "gemini.fc_shape", "functionCall.args is not an object");
    }
    if !first {
        return;
    }
    if is_set(&part["thoughtSignature"]) {
        doc.signatures.push(part["thoughtSignature"].clone());
    }
    if call.is_object() {
        doc.call(&call["id"], &call["name"], &json!(dump(&args)), &args);
    } else if part["thought"] == true {
        doc.reasoning.push_str(text(&part["text"]));
    } else {
        doc.text.push_str(text(&part["text"]));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{broken, stream};
    use super::*;
    use crate::vectors::rules::testing::{changed, every_rule_breaks};

    fn base() -> Value {
        let parts = |parts: Value| json!({"candidates": [{"index": 0, "content": {"role": "model", "parts": parts}}], "modelVersion": "v"});
        json!([
            parts(json!([{"text": "hm", "thought": true}, {"text": "a"}])),
            parts(json!([{"text": "b", "thoughtSignature": "sig"}])),
            parts(json!([{"functionCall": {"name": "f", "args": {"x": 1}}}])),
            {"candidates": [{"finishReason": "STOP", "groundingMetadata": {}}], "usageMetadata": {"promptTokenCount": 1}},
            {"usageMetadata": {"totalTokenCount": 3}},
        ])
    }

    #[test]
    fn folds_parts_and_usage() {
        let (doc, broken) = fold(&stream(&base(), false)).into_document();
        assert_eq!(broken, [""; 0]);
        assert_eq!(
            (&doc["text"], &doc["reasoning"], &doc["finish"]),
            (&json!("ab"), &json!("hm"), &json!("STOP"))
        );
        assert_eq!(doc["signatures"], json!(["sig"]));
        assert_eq!(
            doc["tool_calls"],
            json!([{"id": null, "name": "f", "arguments": "{\"x\": 1}", "args": {"x": 1}}])
        );
        assert_eq!(doc["usage"], json!({"promptTokenCount": 1, "totalTokenCount": 3}));
        assert_eq!(doc["candidates"][0]["groundingMetadata"], json!({}));
        assert_eq!(doc["final"]["modelVersion"], "v");
    }

    #[test]
    fn a_blocked_prompt_and_an_error_end_without_a_candidate() {
        assert_eq!(broken("gemini", &json!([{"promptFeedback": {"blockReason": "SAFETY"}}])), [""; 0]);
        assert_eq!(broken("gemini", &json!([{"error": {"code": 500}}])), [""; 0]);
        assert_eq!(broken("gemini-cli", &json!([{"response": base()[0]}, {"response": base()[3]}])), [""; 0]);
    }

    #[test]
    fn every_rule_breaks_once() {
        let example = |pointer: &str, to: Value| broken("gemini", &changed(&base(), pointer, Some(to)));
        let without = |pointer: &str| broken("gemini", &changed(&base(), pointer, None));
        let examples = [
            ("gemini.no_done", example("/-", json!("[DONE]"))),
            ("gemini.shape", example("/4", json!({}))),
            ("gemini.shape", example("/0", json!([{}]))),
            ("gemini.shape", broken("gemini", &json!([{"usageMetadata": {}}]))),
            ("gemini.shape", example("/0/candidates/0/content", json!("x"))),
            ("gemini.shape", example("/4/usageMetadata", json!(0))),
            ("gemini.role", example("/0/candidates/0/content/role", json!("assistant"))),
            ("gemini.finish_enum", example("/3/candidates/0/finishReason", json!("stop"))),
            ("gemini.finish_once", without("/3")),
            ("gemini.finish_once", example("/2", base()[3].clone())),
            ("gemini.finish_last", example("/-", base()[1].clone())),
            ("gemini.fc_shape", without("/2/candidates/0/content/parts/0/functionCall/name")),
            ("gemini.fc_shape", example("/2/candidates/0/content/parts/0/functionCall/args", json!("{}"))),
        ];
        every_rule_breaks(include_str!("gemini.rs"), &examples);
    }
}
