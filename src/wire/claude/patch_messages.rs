//! Same format: what has to go from `system` and `messages`, found on the bytes.
//!
//! Enters: the spans of both. Leaves: edits that remove thinking signed by another vendor, citations that we
//! made of another vendor's, blank text blocks, and messages that are empty without them; the API refuses all
//! of them. Results of calls that have no content get an empty one. May go wrong: nothing. Nothing is looked
//! into before a search over the bytes has found a reason.

use crate::ir::{LossKind, Losses};
use crate::json::{self, Path, parse_any};
use crate::patch::{Patch, elements, follows, members};
use crate::signature::{Vendor, detect, unwrap_vertex};
use memchr::memmem;
use std::ops::Range;

/// Removes blank blocks of `system`, and the member with the last of them.
pub(super) fn system(body: &[u8], span: Range<usize>, root: usize, patch: &mut Patch<'_>) {
    if !has_blank(body, &span, b"\"text\"") {
        return;
    }
    let blocks = elements(body, span.start);
    let gone: Vec<bool> = blocks.iter().map(|block| is_blank_text(body, block.start)).collect();
    if !gone.is_empty() && gone.iter().all(|gone| *gone) {
        patch.remove(root, "system");
    } else {
        patch.remove_elements(&blocks, &gone);
    }
}

/// Cleans `messages`. Returns whether the tool loop at its end lost the thinking that it began with: then the
/// API does not take a thinking budget.
pub(super) fn messages(
    body: &[u8],
    span: Range<usize>,
    model: &str,
    patch: &mut Patch<'_>,
    losses: &mut Losses,
) -> bool {
    let thinking = body.get(span.clone()).is_some_and(|text| memmem::find(text, b"\"thinking\"").is_some());
    let keys: [&[u8]; 3] = [b"\"text\"", b"\"content\"", b"\"encrypted_index\""];
    let blank = keys.iter().any(|key| has_blank(body, &span, key));
    if !thinking && !blank && !has_bare_result(body, &span) {
        return false;
    }
    let (root, all) = (Path::Root, elements(body, span.start));
    let at = root.key("messages");
    let mut broken = false;
    let mut gone = vec![false; all.len()];
    for (n, (message, gone)) in all.iter().zip(&mut gone).enumerate() {
        let (mut role, mut content) = (None, None);
        for member in members(body, message.start) {
            match member.key {
                b"role" => role = body.get(member.value),
                b"content" => content = Some(member.value),
                _ => {}
            }
        }
        let Some(content) = content else { continue };
        let assistant = role == Some(b"\"assistant\"");
        if body.get(content.start) == Some(&b'"') {
            // The last message may be an answer that has just been begun.
            *gone = is_blank_string(body, &content) && !(assistant && n + 1 == all.len());
            continue;
        }
        let mut cleaned = Content { body, model, patch, thinking: 0, foreign: 0, calls: false };
        *gone = cleaned.clean(content.start);
        for _ in 0..cleaned.foreign {
            losses.at(LossKind::Signature, &at.index(n));
        }
        if assistant {
            broken = cleaned.foreign > 0 && cleaned.thinking == 0 && cleaned.calls;
        }
    }
    if gone.iter().any(|gone| !gone) {
        patch.remove_elements(&all, &gone);
    }
    let ends_with_user = all.last().is_some_and(|last| {
        members(body, last.start).any(|m| m.key == b"role" && body.get(m.value) == Some(b"\"user\""))
    });
    broken && ends_with_user
}

/// The blocks of one message, while they are cleaned.
struct Content<'c, 't> {
    body: &'c [u8],
    model: &'c str,
    patch: &'c mut Patch<'t>,
    /// Thinking blocks that stay.
    thinking: usize,
    /// Thinking blocks that go.
    foreign: usize,
    /// Whether it makes calls.
    calls: bool,
}

impl Content<'_, '_> {
    /// Cleans the array at `start`; `true` when nothing of it is left.
    fn clean(&mut self, start: usize) -> bool {
        let blocks = elements(self.body, start);
        let gone: Vec<bool> = blocks.iter().map(|block| self.is_unwanted(block.start)).collect();
        if !gone.is_empty() && gone.iter().all(|gone| *gone) {
            // The message goes as a whole.
            return true;
        }
        self.patch.remove_elements(&blocks, &gone);
        false
    }

    fn is_unwanted(&mut self, block: usize) -> bool {
        let body = self.body;
        let (mut kind, mut signature, mut content, mut citations) = (None, None, None, None);
        for member in members(body, block) {
            match member.key {
                b"type" => kind = body.get(member.value),
                b"signature" => signature = Some(member.value),
                b"content" => content = Some(member.value),
                b"citations" => citations = Some(member.value),
                _ => {}
            }
        }
        match kind {
            Some(b"\"text\"") if is_blank_text(body, block) => true,
            Some(b"\"text\"") => {
                if let Some(citations) = citations {
                    self.clean_citations(block, &citations);
                }
                false
            }
            Some(b"\"tool_use\"") => {
                self.calls = true;
                false
            }
            Some(b"\"tool_result\"") => {
                self.clean_result(block, content);
                false
            }
            Some(b"\"redacted_thinking\"") => {
                self.thinking += 1;
                false
            }
            Some(b"\"thinking\"") => {
                let foreign = self.is_foreign(signature);
                if foreign {
                    self.foreign += 1;
                } else {
                    self.thinking += 1;
                }
                foreign
            }
            _ => false,
        }
    }

    /// Cleans the result of a call. Servers that only speak this format want content in all of them.
    fn clean_result(&mut self, block: usize, content: Option<Range<usize>>) {
        let body = self.body;
        match content {
            Some(content) if body.get(content.start) == Some(&b'[') => {
                let blocks = elements(body, content.start);
                let gone: Vec<bool> = blocks.iter().map(|b| is_blank_text(body, b.start)).collect();
                self.patch.remove_elements(&blocks, &gone);
            }
            Some(content) if body.get(content.start) != Some(&b'n') => {}
            _ => self.patch.set(block, "content", "\"\""),
        }
    }

    /// Takes out the citations without an index, see [`super::answer_parts::write_citation`].
    fn clean_citations(&mut self, block: usize, citations: &Range<usize>) {
        let all = elements(self.body, citations.start);
        let made_here = |citation: &Range<usize>| {
            members(self.body, citation.start)
                .any(|m| m.key == b"encrypted_index" && self.body.get(m.value) == Some(b"\"\""))
        };
        let gone: Vec<bool> = all.iter().map(made_here).collect();
        if !gone.is_empty() && gone.iter().all(|gone| *gone) {
            self.patch.remove(block, "citations");
        } else {
            self.patch.remove_elements(&all, &gone);
        }
    }

    /// Whether the API would refuse the signature at `span`. Servers that only speak this format sign in
    /// their own way: what is no vendor's known form is refused for Anthropic's models only.
    fn is_foreign(&mut self, span: Option<Range<usize>>) -> bool {
        let Some(span) = span else { return true };
        let value = self.body.get(span.clone()).and_then(|text| parse_any(text).ok()?.into_str());
        let Some(value) = value.filter(|value| !value.is_empty()) else { return true };
        match detect(&value) {
            Vendor::Claude => false,
            Vendor::ClaudeVertex => match unwrap_vertex(&value) {
                Some(direct) => {
                    self.patch.replace(span, json::string(&direct));
                    false
                }
                None => true,
            },
            Vendor::Gemini | Vendor::Openai => true,
            Vendor::Unknown => self.model.starts_with("claude"),
        }
    }
}

/// Whether the block at `start` is a text block without visible text.
fn is_blank_text(body: &[u8], start: usize) -> bool {
    let (mut text, mut blank) = (false, false);
    for member in members(body, start) {
        match member.key {
            b"type" => text = body.get(member.value) == Some(b"\"text\""),
            b"text" => blank = is_blank_string(body, &member.value),
            _ => {}
        }
    }
    text && blank
}

/// Whether the value at `span` is a string of blanks.
fn is_blank_string(body: &[u8], span: &Range<usize>) -> bool {
    let Some([b'"', inner @ .., b'"']) = body.get(span.clone()) else { return false };
    blanks(inner) == inner.len()
}

/// Length of the blanks, also escaped ones, that `text` starts with.
fn blanks(text: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match text.get(at..) {
            Some([b' ', ..]) => at += 1,
            Some([b'\\', b'n' | b't' | b'r', ..]) => at += 2,
            _ => return at,
        }
    }
}

/// Whether there may be a result of a call without content, or with null: it does not follow the type.
fn has_bare_result(body: &[u8], span: &Range<usize>) -> bool {
    const TYPE: &[u8] = b"\"tool_result\"";
    let text = body.get(span.clone()).unwrap_or_default();
    memmem::find_iter(text, TYPE)
        .any(|at| matches!(follows(body, span.start + at + TYPE.len(), b"content"), None | Some(b'n')))
}

/// Whether a member `key` (with quotes) somewhere in `span` is a string of blanks.
fn has_blank(body: &[u8], span: &Range<usize>, key: &[u8]) -> bool {
    let Some(text) = body.get(span.clone()) else { return false };
    memmem::find_iter(text, key).any(|at| {
        let rest = text.get(at + key.len()..).unwrap_or_default().trim_ascii_start();
        let value = rest.strip_prefix(b":").map(<[u8]>::trim_ascii_start);
        value
            .and_then(|value| value.strip_prefix(b"\""))
            .is_some_and(|inner| inner.get(blanks(inner)) == Some(&b'"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "EpYBCkYICxgCKkBOEZXfAg3lng1lozpCefEYPnrk5dmA4wn4tVrf8uYcPvVf8W9m9DNgJmuV22+P7AHXYDEFQwauSks4BZj2z9EUEgzALAuWXgI6vugI8rUaDBIsWXCDvUOLf21yryIwCtUuM4ZiySOxX9Rac8bpczbvzPKKeu+USUQ8xt10FfuLU2OfFSyPxu8wgC/eRiugGAE=";
    const FOREIGN: &str = "bm90LWEtcmVhbC1zaWduYXR1cmU=";

    fn run(messages_text: &str, model: &str) -> (String, bool, Losses) {
        let (mut patch, mut losses) = (Patch::new(messages_text.as_bytes()), Losses::default());
        let span = 0..messages_text.len();
        let broken = messages(messages_text.as_bytes(), span, model, &mut patch, &mut losses);
        (String::from_utf8(patch.apply()).unwrap(), broken, losses)
    }

    fn thinking(signature: &str) -> String {
        format!(r#"{{"type":"thinking", "thinking":"plan","signature":"{signature}"}}"#)
    }

    #[test]
    fn thinking_of_another_vendor_goes_and_the_own_stays_byte_for_byte() {
        let (own, foreign) = (thinking(OWN), thinking(FOREIGN));
        let text = |first: &str| {
            format!(r#"[{{"role":"assistant","content":[ {first}{own} , {{"type":"text","text":"a"}} ]}}]"#)
        };
        let (out, _, losses) = run(&text(&format!("{foreign}, ")), "claude-x");
        assert_eq!((out, losses.to_string().as_str()), (text(""), "signature messages[0]"));
        let unsigned = r#"{"type":"thinking","thinking":"x"},"#;
        assert_eq!(run(&text(unsigned), "claude-x").0, text(""));
        // Servers that only speak this format sign in their own way.
        let kept = text(&format!("{foreign}, "));
        assert_eq!(run(&kept, "glm-x").0, kept);
    }

    #[test]
    fn citations_that_were_made_here_go() {
        let made = r#"{"type":"web_search_result_location","url":"u","encrypted_index":""}"#;
        let own = r#"{"type":"web_search_result_location","url":"u","encrypted_index":"Eo8"}"#;
        let text = |citations: &str| {
            format!(r#"[{{"role":"assistant","content":[{{"type":"text","text":"a"{citations}}}]}}]"#)
        };
        let listed = |all: &str| text(&format!(r#","citations":[{all}]"#));
        assert_eq!(run(&listed(made), "claude-x").0, text(""));
        assert_eq!(run(&listed(&format!("{made}, {own}")), "claude-x").0, listed(own));
        assert_eq!(run(&listed(own), "claude-x").0, listed(own));
    }

    #[test]
    fn a_signature_in_the_form_of_vertex_is_unwrapped() {
        let text = |signature: &str| {
            format!(
                r#"[{{"role":"assistant","content":[{},{{"type":"text","text":"a"}}]}}]"#,
                thinking(signature)
            )
        };
        let wrapped = crate::signature::wrap_vertex(OWN);
        assert_eq!(run(&text(&wrapped), "claude-x").0, text(OWN));
    }

    #[test]
    fn blank_text_goes_and_empty_messages_go_with_it() {
        let (out, ..) = run(
            r#"[{"role":"user","content":[{"type":"text","text":""},{"type":"tool_result","tool_use_id":"t","content":[{"text" : " \n","type":"text"},{"type":"text","text":"r"}]},{"type":"text","text":"\t"}]},{"role":"assistant","content":[{"type":"text","text":""}]} , {"role":"user","content":""},{"role":"assistant","content":""}]"#,
            "claude-x",
        );
        assert_eq!(
            out,
            r#"[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"r"}]}]},{"role":"assistant","content":""}]"#
        );
    }

    #[test]
    fn texts_that_only_look_blank_stay() {
        for text in [
            r#"[{"role":"user","content":[{"type":"text","text":"\\n"}]}]"#,
            r#"[{"role":"user","content":[{"type":"text","text":"\u00e9"}]}]"#,
            r#"[{"role":"user","content":"say {\"type\":\"text\",\"text\":\"\"}"}]"#,
            r#"[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":""}]}]"#,
            r#"[{"role":"user","content":""}]"#,
        ] {
            assert_eq!(run(text, "claude-x").0, text);
        }
    }

    #[test]
    fn row_126_results_of_calls_have_content() {
        let text = |before: &str, behind: &str| {
            format!(
                r#"[{{"role":"user","content":[{{{before}"type":"tool_result", "tool_use_id":"t"{behind}}},{{"type":"tool_result","tool_use_id":"u","content":"x"}}]}}]"#
            )
        };
        for (before, behind, new_before, new_behind) in [
            ("", "", r#""content":"","#, ""),
            ("", r#","content":null"#, "", r#","content":"""#),
            ("", r#" , "is_error":true"#, r#""content":"","#, r#" , "is_error":true"#),
            (r#""content": null, "#, "", r#""content": "", "#, ""),
            ("", r#","content":[]"#, "", r#","content":[]"#),
            ("", r#","content":"ok""#, "", r#","content":"ok""#),
            (r#""content":"ok","#, "", r#""content":"ok","#, ""),
        ] {
            assert_eq!(run(&text(before, behind), "claude-x").0, text(new_before, new_behind));
        }
    }

    #[test]
    fn a_tool_loop_without_its_thinking_is_told() {
        let text = |signature: &str, role: &str| {
            format!(
                r#"[{{"role":"assistant","content":[{},{{"type":"tool_use","id":"t","name":"f","input":{{}}}}]}},{{"role":"{role}","content":[{{"type":"tool_result","tool_use_id":"t"}}]}}]"#,
                thinking(signature)
            )
        };
        assert!(run(&text(FOREIGN, "user"), "claude-x").1);
        assert!(!run(&text(OWN, "user"), "claude-x").1);
        assert!(!run(&text(FOREIGN, "assistant"), "claude-x").1);
    }

    #[test]
    fn a_system_of_blanks_goes_as_a_whole() {
        for (body, expected) in [
            (r#"{"system":[{"type":"text","text":""}],"x":1}"#, r#"{"x":1}"#),
            (
                r#"{"system":[{"type":"text","text":"a"}, {"type":"text","text":""}],"x":1}"#,
                r#"{"system":[{"type":"text","text":"a"}],"x":1}"#,
            ),
        ] {
            let mut patch = Patch::new(body.as_bytes());
            let end = body.find(r#","x""#).unwrap();
            system(body.as_bytes(), 10..end, 0, &mut patch);
            assert_eq!(String::from_utf8(patch.apply()).unwrap(), expected);
        }
    }
}
