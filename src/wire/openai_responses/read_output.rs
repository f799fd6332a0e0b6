//! Items of an answer → blocks.
//!
//! Enters: deltas, finished items and the `output` of the terminal event, in any mixture. Leaves: each piece
//! of content once. May go wrong: nothing; what contradicts what was already told is left out.
//!
//! - Items are told apart by id, else by `output_index`: servers exist that give an item a new id in each
//!   event, and others that count all items as 0.
//! - A finished item is the authority: what its deltas left out is told before it is closed.
//! - Blocks open with their first content, so that an item without any leaves no trace.

use super::event::{self, Raw, object, text, text_or_json};
use super::read_blocks::{
    Item, Kind, citation, close_item, complete_message, complete_reasoning, has_elements, image_mime,
    open_block, same_id, says_the_same, tell_arguments, tell_missing_reasoning, tell_reasoning, tell_text,
};
use crate::ir::{BlockKind, Delta, Event, Sink, ToolKind};
use serde_json::value::RawValue;
use std::collections::HashSet;

/// Where an event belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'p> {
    /// `output_index`.
    pub(super) index: Option<u64>,
    /// `item_id`, or the item's `id`; may be empty.
    pub(super) id: &'p str,
}

/// Items that are looked through.
const RECENT: usize = 256;

/// The items of one answer.
#[derive(Debug, Default)]
pub(super) struct Output {
    seed: String,
    /// Number of the next block.
    next: u32,
    items: Vec<Item>,
    /// Ids of calls that were told.
    call_ids: HashSet<String>,
    /// A call was told.
    pub(super) called: bool,
    /// A refusal was told.
    pub(super) refused: bool,
}

impl Output {
    pub(super) fn new(seed: &str) -> Self {
        Self { seed: seed.to_owned(), ..Self::default() }
    }

    /// An item begins.
    pub(super) fn added(&mut self, place: Place<'_>, item: &event::Item<'_>, sink: &mut dyn Sink) {
        let kind = Kind::of(&text(item.kind));
        let at = match self.find(place) {
            Some(at) if self.is_open(at, kind) => at,
            _ => self.push(place, kind),
        };
        // A call without name or id is held until it is complete.
        if matches!(kind, Kind::Call(_)) && !text(item.name).is_empty() && !text(item.call_id).is_empty() {
            self.open_call(at, item, sink);
        }
    }

    /// Text or refusal of a message.
    pub(super) fn text(
        &mut self,
        place: Place<'_>,
        key: u64,
        refusal: bool,
        text: &str,
        sink: &mut dyn Sink,
    ) {
        if text.is_empty() {
            return;
        }
        self.refused |= refusal;
        let Some((item, next)) = self.open(place, Kind::Message) else { return };
        let Some(slot) = item.slot(key) else { return };
        tell_text(slot, next, refusal, text, sink);
    }

    /// The whole text of a part: what its deltas left out.
    pub(super) fn text_done(
        &mut self,
        place: Place<'_>,
        key: u64,
        refusal: bool,
        whole: &str,
        sink: &mut dyn Sink,
    ) {
        let Some((item, _)) = self.open(place, Kind::Message) else { return };
        let Some(slot) = item.slot(key) else { return };
        let missing = slot.sent.missing(whole);
        if !missing.is_empty() {
            self.text(place, key, refusal, missing, sink);
        }
    }

    /// A source of a message's text.
    pub(super) fn citation(&mut self, place: Place<'_>, key: u64, raw: Raw<'_>, sink: &mut dyn Sink) {
        let Some((item, next)) = self.open(place, Kind::Message) else { return };
        let Some(slot) = item.slot(key) else { return };
        let block = *slot.block.get_or_insert_with(|| open_block(next, BlockKind::Text, sink));
        slot.citations += 1;
        sink.event(Event::Delta { block, delta: Delta::Citation(citation(&object(raw))) });
    }

    /// Log probabilities of the text that came last.
    pub(super) fn logprobs(&mut self, place: Place<'_>, key: u64, raw: Raw<'_>, sink: &mut dyn Sink) {
        let Some(json) = raw.map(RawValue::get).filter(|json| has_elements(json)) else { return };
        let Some((item, _)) = self.open(place, Kind::Message) else { return };
        let Some(slot) = item.slot(key) else { return };
        if let Some(block) = slot.block {
            slot.logprobs = true;
            sink.event(Event::Delta { block, delta: Delta::Logprobs(json) });
        }
    }

    /// Text of a reasoning item; `key` names the part.
    pub(super) fn reasoning(&mut self, place: Place<'_>, key: u64, text: &str, sink: &mut dyn Sink) {
        if let Some((item, next)) = self.open(place, Kind::Reasoning) {
            tell_reasoning(item, next, key, text, sink);
        }
    }

    /// The whole text of a reasoning part.
    pub(super) fn reasoning_done(&mut self, place: Place<'_>, key: u64, whole: &str, sink: &mut dyn Sink) {
        if let Some((item, next)) = self.open(place, Kind::Reasoning) {
            tell_missing_reasoning(item, next, key, whole, sink);
        }
    }

    /// A piece of a call's arguments.
    pub(super) fn arguments(&mut self, place: Place<'_>, kind: ToolKind, text: &str, sink: &mut dyn Sink) {
        if let Some((item, _)) = self.open(place, Kind::Call(kind)) {
            tell_arguments(item, text, sink);
        }
    }

    /// The whole arguments of a call.
    pub(super) fn arguments_done(
        &mut self,
        place: Place<'_>,
        kind: ToolKind,
        whole: &str,
        sink: &mut dyn Sink,
    ) {
        if let Some((item, _)) = self.open(place, Kind::Call(kind)) {
            let missing = item.slot(0).map_or("", |slot| slot.sent.missing(whole));
            tell_arguments(item, missing, sink);
        }
    }

    /// An item is complete.
    pub(super) fn done(&mut self, place: Place<'_>, raw: &RawValue, sink: &mut dyn Sink) {
        let item: event::Item<'_> = object(Some(raw));
        let kind = Kind::of(&text(item.kind));
        let at = match self.find(place) {
            Some(at) if self.is_open(at, kind) => at,
            Some(at) if self.items.get(at).is_some_and(|old| same_id(&old.id, place.id)) => return,
            _ => self.push(place, kind),
        };
        self.complete(at, &item, raw, sink);
    }

    /// The items of the terminal event, which repeat what came, or bring what did not.
    pub(super) fn repeated(&mut self, items: &[&RawValue], sink: &mut dyn Sink) {
        let streamed = self.items.len();
        for (index, raw) in (0..).zip(items) {
            let item: event::Item<'_> = object(Some(raw));
            let (id, kind) = (text(item.id), Kind::of(&text(item.kind)));
            let at = match self.told(streamed, index, kind, &item) {
                Some(at) => at,
                None => self.push(Place { index: Some(index), id: &id }, kind),
            };
            self.complete(at, &item, raw, sink);
        }
    }

    /// Which of the items that were streamed the terminal event's item `index` is.
    fn told(&self, streamed: usize, index: u64, kind: Kind, item: &event::Item<'_>) -> Option<usize> {
        let (id, call_id) = (text(item.id), text(item.call_id));
        let known = |old: &Item| {
            old.kind == kind
                && (old.index == Some(index)
                    || (!id.is_empty() && old.id == id)
                    || (!call_id.is_empty() && old.call_id == call_id)
                    || (kind == Kind::Message && says_the_same(old, item)))
        };
        let streamed = self.items.get(..streamed).unwrap_or_default();
        let first = streamed.len().saturating_sub(RECENT);
        let same = usize::try_from(index).ok().filter(|at| streamed.get(*at).is_some_and(known));
        same.or_else(|| Some(first + streamed.get(first..)?.iter().position(known)?))
    }

    /// Closes what is open: no more comes.
    pub(super) fn close(&mut self, sink: &mut dyn Sink) {
        for item in &mut self.items {
            close_item(item, sink);
        }
    }

    fn find(&self, place: Place<'_>) -> Option<usize> {
        let by_id = |item: &Item| !place.id.is_empty() && item.id == place.id;
        let by_index = |item: &Item| place.index.is_some() && item.index == place.index;
        if place.id.is_empty() && place.index.is_none() {
            return self.items.len().checked_sub(1);
        }
        let recent = self.recent();
        let at = recent.iter().rposition(by_id).or_else(|| recent.iter().rposition(by_index))?;
        Some(at + self.items.len() - recent.len())
    }

    /// The items that an event may be about. An answer has a handful; looking through thousands for each event
    /// is what a hostile server would want.
    fn recent(&self) -> &[Item] {
        self.items.get(self.items.len().saturating_sub(RECENT)..).unwrap_or_default()
    }

    fn is_open(&self, at: usize, kind: Kind) -> bool {
        self.items.get(at).is_some_and(|item| item.kind == kind && !item.done)
    }

    fn push(&mut self, place: Place<'_>, kind: Kind) -> usize {
        self.items.push(Item {
            index: place.index,
            id: place.id.to_owned(),
            kind,
            done: false,
            block: None,
            slots: Vec::new(),
            held: String::new(),
            call_id: String::new(),
        });
        self.items.len() - 1
    }

    /// The item that a delta belongs to; a new one when nothing announced it.
    fn open(&mut self, place: Place<'_>, kind: Kind) -> Option<(&mut Item, &mut u32)> {
        let at = self.find(place).unwrap_or_else(|| self.push(place, kind));
        let item = self.items.get_mut(at).filter(|item| item.kind == kind && !item.done)?;
        Some((item, &mut self.next))
    }

    fn complete(&mut self, at: usize, item: &event::Item<'_>, raw: &RawValue, sink: &mut dyn Sink) {
        let named = !text(item.name).is_empty();
        if self.items.get(at).is_some_and(|own| matches!(own.kind, Kind::Call(_)) && !own.done && named) {
            self.open_call(at, item, sink);
        }
        let (next, refused) = (&mut self.next, &mut self.refused);
        let Some(own) = self.items.get_mut(at).filter(|own| !own.done) else { return };
        match own.kind {
            Kind::Message => complete_message(own, item, next, refused, sink),
            Kind::Reasoning => complete_reasoning(own, item, next, sink),
            // A call that nobody named cannot be answered: only a client of this format may have a use for it.
            Kind::Call(_) if own.block.is_none() => {
                let kind = text(item.kind);
                own.block = Some(open_block(next, BlockKind::Server { kind: &kind, raw: raw.get() }, sink));
            }
            Kind::Call(_) => {
                let member =
                    if own.kind == Kind::Call(ToolKind::Custom) { item.input } else { item.arguments };
                let whole = text_or_json(member);
                let missing = own.slot(0).map_or("", |slot| slot.sent.missing(&whole));
                tell_arguments(own, missing, sink);
            }
            Kind::Image if !text(item.result).is_empty() => {
                let mime = image_mime(&text(item.output_format));
                let block = open_block(next, BlockKind::Image { mime }, sink);
                own.block = Some(block);
                sink.event(Event::Delta { block, delta: Delta::Data(&text(item.result)) });
            }
            Kind::Image | Kind::Server => {
                let kind = text(item.kind);
                own.block = Some(open_block(next, BlockKind::Server { kind: &kind, raw: raw.get() }, sink));
            }
        }
        close_item(own, sink);
    }

    /// Opens the block of a call, once; tells the arguments that waited for it.
    fn open_call(&mut self, at: usize, item: &event::Item<'_>, sink: &mut dyn Sink) {
        let mut id = text(item.call_id).into_owned();
        if id.is_empty() {
            id = text(item.id).into_owned();
        }
        if id.is_empty() {
            id = format!("call_{}_{at}", self.seed);
        }
        let next = &mut self.next;
        let Some(own) = self.items.get_mut(at).filter(|own| own.block.is_none()) else { return };
        if self.call_ids.contains(&id) {
            id = format!("{id}_{at}");
        }
        self.call_ids.insert(id.clone());
        let Kind::Call(kind) = own.kind else { return };
        let (name, namespace) = (text(item.name), text(item.namespace));
        let namespace = (!namespace.is_empty()).then_some(namespace.as_ref());
        let block = open_block(next, BlockKind::Tool { id: &id, name: &name, namespace, kind }, sink);
        own.block = Some(block);
        own.call_id = id;
        self.called = true;
        if !own.held.is_empty() {
            let held = std::mem::take(&mut own.held);
            sink.event(Event::Delta { block, delta: Delta::Arguments(&held) });
        }
    }
}
