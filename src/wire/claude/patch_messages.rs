//! Same format: what has to go from `system` and `messages`, found on the bytes.
//!
//! Enters: the spans of both. Leaves: edits that remove thinking signed by another vendor, blank text blocks,
//! and messages that are empty without them; the API refuses all three. May go wrong: nothing. Nothing is
//! looked into before a search over the bytes has found a reason.

use crate::ir::{LossKind, Losses};
use crate::json::{self, Path, parse_any};
use crate::patch::{Patch, elements, members};
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
        remove(patch, &blocks, &gone);
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
    if !thinking && !has_blank(body, &span, b"\"text\"") && !has_blank(body, &span, b"\"content\"") {
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
        remove(patch, &all, &gone);
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
        remove(self.patch, &blocks, &gone);
        false
    }

    fn is_unwanted(&mut self, block: usize) -> bool {
        let body = self.body;
        let (mut kind, mut signature, mut content) = (None, None, None);
        for member in members(body, block) {
            match member.key {
                b"type" => kind = body.get(member.value),
                b"signature" => signature = Some(member.value),
                b"content" => content = Some(member.value),
                _ => {}
            }
        }
        match kind {
            Some(b"\"text\"") => is_blank_text(body, block),
            Some(b"\"tool_use\"") => {
                self.calls = true;
                false
            }
            Some(b"\"tool_result\"") => {
                if let Some(content) = content.filter(|c| body.get(c.start) == Some(&b'[')) {
                    let blocks = elements(body, content.start);
                    let gone: Vec<bool> = blocks.iter().map(|b| is_blank_text(body, b.start)).collect();
                    remove(self.patch, &blocks, &gone);
                }
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

/// Removes the elements that are `gone` from their array, with one comma each.
fn remove(patch: &mut Patch<'_>, elements: &[Range<usize>], gone: &[bool]) {
    let mut kept_end: Option<usize> = None;
    let mut run: Option<usize> = None;
    for (element, gone) in elements.iter().zip(gone) {
        if *gone {
            run.get_or_insert(element.start);
            continue;
        }
        if let Some(start) = run.take() {
            patch.replace(start..element.start, "");
        }
        kept_end = Some(element.end);
    }
    if let (Some(start), Some(last)) = (run, elements.last()) {
        patch.replace(kept_end.unwrap_or(start)..last.end, "");
    }
}
