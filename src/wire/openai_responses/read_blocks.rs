//! What an item of an answer tells: its content as events, each piece once.
//!
//! Enters: an item's state, and text that is to be added to it or its finished form. Leaves: events, and in
//! the state a note of what was told. May go wrong: nothing.

use super::event::{self, Annotation, Part, Sent, list, number, object, text};
use crate::ir::{BlockKind, Citation, Delta, Event, Sink, ToolKind};
use crate::signature::{Signature, Vendor};
use serde_json::value::RawValue;

/// What is done with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    Reasoning,
    Call(ToolKind),
    Image,
    Server,
}

impl Kind {
    pub(super) fn of(name: &str) -> Self {
        match name {
            "message" | "" => Self::Message,
            "reasoning" => Self::Reasoning,
            "function_call" => Self::Call(ToolKind::Function),
            "custom_tool_call" => Self::Call(ToolKind::Custom),
            "image_generation_call" => Self::Image,
            _ => Self::Server,
        }
    }
}

/// A content part, a part of a summary, or the arguments of a call.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) key: u64,
    /// Message: the block of this part.
    pub(super) block: Option<u32>,
    pub(super) sent: Sent,
    pub(super) citations: usize,
    pub(super) logprobs: bool,
}

/// An item and what was told of it.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) index: Option<u64>,
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) done: bool,
    /// The block of a reasoning item or a call.
    pub(super) block: Option<u32>,
    pub(super) slots: Vec<Slot>,
    /// Arguments that came before the call's name.
    pub(super) held: String,
    pub(super) call_id: String,
}

impl Item {
    /// The slot of `key`; slots are in order of their keys.
    pub(super) fn slot(&mut self, key: u64) -> Option<&mut Slot> {
        let at = match self.slots.binary_search_by_key(&key, |slot| slot.key) {
            Ok(at) => at,
            Err(at) => {
                self.slots.insert(at, Slot { key, ..Slot::default() });
                at
            }
        };
        self.slots.get_mut(at)
    }
}

/// Key of the first part of a reasoning item's `content`; those of its `summary` come before.
pub(super) const CONTENT: u64 = 1 << 32;

pub(super) fn open_block(next: &mut u32, kind: BlockKind<'_>, sink: &mut dyn Sink) -> u32 {
    let block = *next;
    *next += 1;
    sink.event(Event::Open { block, choice: 0, kind });
    block
}

pub(super) fn tell_text(slot: &mut Slot, next: &mut u32, refusal: bool, text: &str, sink: &mut dyn Sink) {
    let kind = if refusal { BlockKind::Refusal } else { BlockKind::Text };
    let block = *slot.block.get_or_insert_with(|| open_block(next, kind, sink));
    slot.sent.push(text);
    sink.event(Event::Delta { block, delta: Delta::Text(text) });
}

pub(super) fn tell_reasoning(item: &mut Item, next: &mut u32, key: u64, text: &str, sink: &mut dyn Sink) {
    if text.is_empty() {
        return;
    }
    let kind = BlockKind::Reasoning { redacted: None };
    let block = *item.block.get_or_insert_with(|| open_block(next, kind, sink));
    if !item.slots.is_empty() && item.slots.binary_search_by_key(&key, |slot| slot.key).is_err() {
        sink.event(Event::Delta { block, delta: Delta::Part });
    }
    if let Some(slot) = item.slot(key) {
        slot.sent.push(text);
    }
    sink.event(Event::Delta { block, delta: Delta::Text(text) });
}

pub(super) fn tell_missing_reasoning(
    item: &mut Item,
    next: &mut u32,
    key: u64,
    whole: &str,
    sink: &mut dyn Sink,
) {
    let missing = match item.slots.binary_search_by_key(&key, |slot| slot.key) {
        Err(_) => whole,
        Ok(at) if at + 1 == item.slots.len() => item.slots.last().map_or("", |slot| slot.sent.missing(whole)),
        // A later part has begun: nothing can be put in front of it.
        Ok(_) => "",
    };
    tell_reasoning(item, next, key, missing, sink);
}

pub(super) fn tell_arguments(item: &mut Item, text: &str, sink: &mut dyn Sink) {
    if text.is_empty() {
        return;
    }
    if let Some(slot) = item.slot(0) {
        slot.sent.push(text);
    }
    match item.block {
        Some(block) => sink.event(Event::Delta { block, delta: Delta::Arguments(text) }),
        None => item.held.push_str(text),
    }
}

pub(super) fn complete_message(
    own: &mut Item,
    item: &event::Item<'_>,
    next: &mut u32,
    refused: &mut bool,
    sink: &mut dyn Sink,
) {
    for (key, raw) in (0..).zip(list(item.content)) {
        let part: Part<'_> = object(Some(raw));
        let refusal = text(part.kind) == "refusal";
        let whole = text(if refusal { part.refusal } else { part.text });
        let Some(slot) = own.slot(key) else { continue };
        let missing = slot.sent.missing(&whole);
        if !missing.is_empty() {
            *refused |= refusal;
            tell_text(slot, next, refusal, missing, sink);
        }
        let Some(block) = slot.block else { continue };
        for raw in list(part.annotations).into_iter().skip(slot.citations) {
            let citation = citation(&object(Some(raw)));
            sink.event(Event::Delta { block, delta: Delta::Citation(citation) });
        }
        let logprobs = part.logprobs.map(RawValue::get).filter(|json| has_elements(json));
        if let Some(json) = logprobs.filter(|_| !slot.logprobs) {
            sink.event(Event::Delta { block, delta: Delta::Logprobs(json) });
        }
    }
}

pub(super) fn complete_reasoning(
    own: &mut Item,
    item: &event::Item<'_>,
    next: &mut u32,
    sink: &mut dyn Sink,
) {
    for (from, parts) in [(0, item.summary), (CONTENT, item.content)] {
        for (key, raw) in (from..).zip(list(parts)) {
            let part: Part<'_> = object(Some(raw));
            tell_missing_reasoning(own, next, key, &text(part.text), sink);
        }
    }
    if let Some(signature) = Signature::of(Vendor::Openai, text(item.encrypted_content)) {
        let kind = BlockKind::Reasoning { redacted: None };
        let block = *own.block.get_or_insert_with(|| open_block(next, kind, sink));
        sink.event(Event::Delta { block, delta: Delta::Signature(signature) });
    }
}

pub(super) fn close_item(item: &mut Item, sink: &mut dyn Sink) {
    if !std::mem::replace(&mut item.done, true) {
        for block in item.block.into_iter().chain(item.slots.iter().filter_map(|slot| slot.block)) {
            sink.event(Event::Close { block });
        }
    }
}

/// Whether a finished message says what the deltas of another said.
pub(super) fn says_the_same(own: &Item, item: &event::Item<'_>) -> bool {
    let parts = list(item.content);
    !own.slots.is_empty()
        && own.slots.len() == parts.len()
        && own.slots.iter().zip(parts).all(|(slot, raw)| {
            let part: Part<'_> = object(Some(raw));
            slot.sent.is(&text(part.text.or(part.refusal)))
        })
}

pub(super) fn same_id(one: &str, other: &str) -> bool {
    one == other || one.is_empty() || other.is_empty()
}

pub(super) fn has_elements(json: &str) -> bool {
    json.strip_prefix('[').is_some_and(|rest| !rest.trim_start().starts_with(']'))
}

pub(super) fn image_mime(format: &str) -> &'static str {
    match format {
        "jpeg" | "jpg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "svg" => "image/svg+xml",
        _ => "image/png",
    }
}

pub(super) fn citation<'a>(annotation: &Annotation<'a>) -> Citation<'a> {
    let title = text(annotation.title);
    Citation {
        url: text(annotation.url),
        title: if title.is_empty() { text(annotation.filename) } else { title },
        start: number(annotation.start_index),
        end: number(annotation.end_index),
        document: text(annotation.file_id),
        ..Citation::default()
    }
}
