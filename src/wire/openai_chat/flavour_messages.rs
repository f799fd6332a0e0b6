//! Messages as Kimi and Copilot want them, changed on their bytes.
//!
//! Enters: `messages` of any client or of our own writer. Leaves: for Kimi, answers with calls that come with
//! their reasoning, no answer without content, results that name their call; for Copilot, answers whose text
//! is one string. May go wrong: nothing; a message that is no object stays.

use super::flavour::Edits;
use crate::ir::LossKind;
use crate::json::{self, Json};
use crate::patch::elements;
use std::ops::Range;

/// Said where Kimi insists on reasoning and none was kept.
const NO_REASONING: &str = "The reasoning was not kept.";

/// The messages, each with its place.
fn messages<'b>(edits: &Edits<'b, '_>) -> Vec<(Range<usize>, Json<'b>)> {
    let Some(span) = edits.member("messages") else { return Vec::new() };
    elements(edits.body, span.start).into_iter().map(|span| (span.clone(), edits.value(&span))).collect()
}

/// The text of a message: a string, or the text parts one behind the other.
fn text(message: &Json<'_>) -> String {
    match message.get("content") {
        Some(Json::Str(text)) => text.to_string(),
        Some(Json::Array(parts)) => {
            parts.iter().filter_map(|part| part.get("text").or(part.get("refusal"))?.as_str()).collect()
        }
        _ => String::new(),
    }
}

fn word<'j>(message: &'j Json<'_>, key: &str) -> Option<&'j str> {
    message.get(key).and_then(Json::as_str).filter(|word| !word.trim().is_empty())
}

/// Makes what Kimi would refuse legal.
pub(super) fn mend_kimi(edits: &mut Edits<'_, '_>) {
    let messages = messages(edits);
    let mut reasoning: Option<String> = None;
    let mut pending: Vec<String> = Vec::new();
    let mut empty = Vec::new();
    for (n, (span, message)) in messages.iter().enumerate() {
        match word(message, "role") {
            Some("assistant") => {
                let calls = message.get("tool_calls").and_then(Json::as_array).unwrap_or_default();
                let own = word(message, "reasoning_content").map(str::to_owned);
                let said = text(message);
                if calls.is_empty() && own.is_none() && said.trim().is_empty() {
                    empty.push(n);
                    continue;
                }
                if !calls.is_empty() && own.is_none() {
                    let said = Some(said).filter(|said| !said.trim().is_empty());
                    let kept = reasoning.clone().or(said).unwrap_or_else(|| NO_REASONING.to_owned());
                    edits.patch.set(span.start, "reasoning_content", json::string(&kept));
                }
                reasoning = own.or(reasoning);
                if !calls.is_empty() {
                    pending = calls.iter().filter_map(|call| word(call, "id").map(str::to_owned)).collect();
                }
            }
            Some("tool") => {
                let named = word(message, "tool_call_id").map(str::to_owned);
                let only = || if let [only] = pending.as_slice() { Some(only.clone()) } else { None };
                if named.is_none()
                    && let Some(id) = word(message, "call_id").map(str::to_owned).or_else(only)
                {
                    edits.patch.set(span.start, "tool_call_id", json::string(&id));
                    pending.retain(|waiting| *waiting != id);
                } else if let Some(id) = named {
                    pending.retain(|waiting| *waiting != id);
                }
            }
            _ => {}
        }
    }
    remove(edits, &messages, &empty);
}

/// Takes out the messages at `gone`, each with a comma.
fn remove(edits: &mut Edits<'_, '_>, messages: &[(Range<usize>, Json<'_>)], gone: &[usize]) {
    for n in gone {
        let Some((span, _)) = messages.get(*n) else { continue };
        let next = messages.get(n + 1).map(|(next, _)| next.start);
        let kept =
            (0..*n).rev().find(|before| !gone.contains(before)).and_then(|before| messages.get(before));
        let range = match (next, kept) {
            (Some(next), _) => span.start..next,
            // The run of those that go ends the list: it goes with the comma before it.
            (None, Some((kept, _))) => kept.end..span.end,
            (None, None) => span.clone(),
        };
        edits.patch.replace(range, "");
    }
}

/// Makes one string of the text parts of answers.
pub(super) fn flatten_answers(edits: &mut Edits<'_, '_>) {
    for (span, message) in messages(edits) {
        let Some(Json::Array(parts)) = message.get("content") else { continue };
        if word(&message, "role") != Some("assistant") {
            continue;
        }
        if parts.iter().any(|part| part.get("text").or(part.get("refusal")).is_none()) {
            edits.losses.member(LossKind::Content, "messages");
        }
        let content = json::string(&text(&message));
        edits.patch.set(span.start, "content", content);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Losses;
    use crate::json::parse_any;
    use crate::patch::Patch;

    fn run(edit: fn(&mut Edits<'_, '_>), messages: &str) -> String {
        let body = format!(r#"{{"messages":[{messages}]}}"#);
        let mut losses = Losses::default();
        let mut edits =
            Edits { body: body.as_bytes(), patch: Patch::new(body.as_bytes()), losses: &mut losses };
        edit(&mut edits);
        let out = edits.patch.apply();
        assert!(parse_any(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
        let out = String::from_utf8(out).unwrap();
        out.strip_prefix(r#"{"messages":["#).unwrap().strip_suffix("]}").unwrap().to_owned()
    }

    const USER: &str = r#"{"role":"user","content":"q"}"#;

    fn calling(members: &str) -> String {
        format!(r#"{{{members}"role":"assistant","tool_calls":[{{"id":"c1"}}]}}"#)
    }

    #[test]
    fn kimi_answers_with_calls_come_with_reasoning() {
        let call = calling("");
        let with = |text: &str| calling(&format!(r#""reasoning_content":"{text}","#));
        for (before, expected) in [
            (call.clone(), with(NO_REASONING)),
            (calling(r#""content":"said","#), calling(r#""reasoning_content":"said","content":"said","#)),
            (with("own"), with("own")),
            (format!("{},{call}", with("old")), format!("{},{}", with("old"), with("old"))),
        ] {
            assert_eq!(run(mend_kimi, &before), expected);
        }
    }

    #[test]
    fn kimi_results_name_their_call() {
        let result = |members: &str| format!(r#"{{{members}"role":"tool","content":"r"}}"#);
        let call = calling(r#""reasoning_content":"x","#);
        let named = result(r#""tool_call_id":"c1","#);
        assert_eq!(run(mend_kimi, &format!("{call},{}", result(""))), format!("{call},{named}"));
        let other = run(mend_kimi, &result(r#""call_id":"c9","#));
        assert_eq!(other, result(r#""tool_call_id":"c9","call_id":"c9","#));
        // With none that waits there is nothing to name.
        assert_eq!(run(mend_kimi, &result("")), result(""));
    }

    #[test]
    fn kimi_gets_no_empty_answers() {
        let empty = r#"{"role":"assistant","content":" "}"#;
        for (before, after) in [
            (format!("{USER},{empty}"), USER.to_owned()),
            (format!("{empty},{USER}"), USER.to_owned()),
            (format!("{USER},{empty},{empty}"), USER.to_owned()),
            (format!("{USER},{empty},{USER}"), format!("{USER},{USER}")),
            (format!("{empty},{empty}"), String::new()),
        ] {
            assert_eq!(run(mend_kimi, &before), after);
        }
    }

    #[test]
    fn copilot_answers_are_one_string() {
        let parts = r#"[{"type":"text","text":"a"},{"type":"text","text":"b\n"}]"#;
        let message = |role: &str, content: &str| format!(r#"{{"role":"{role}","content":{content}}}"#);
        assert_eq!(
            run(flatten_answers, &format!("{},{}", message("user", parts), message("assistant", parts))),
            format!("{},{}", message("user", parts), message("assistant", r#""ab\n""#))
        );
    }
}
