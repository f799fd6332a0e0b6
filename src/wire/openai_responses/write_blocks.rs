//! The events of one block: its item, its part, its deltas, its end.
//!
//! Enters: content of a block, and where it is written. Leaves: events, and the content kept for the response
//! at the end. May go wrong: nothing.

use super::write_output::{Body, Item, Piece, State, summary, whole_arguments};
use super::write_stream::{Place, Writer};
use crate::ir::ToolKind;
use std::borrow::Cow;

impl Writer {
    /// The message part of a text block, which is added when it is not there yet: its message's index and id.
    pub(super) fn piece(
        &mut self,
        place: &mut Place,
        refusal: bool,
    ) -> Option<((usize, &str), &mut Piece<'static>)> {
        let open = |item: &Item<'_>| matches!(item.body, Body::Message(_)) && item.state == State::InProgress;
        let index = match (place.item, self.items.last()) {
            (Some(index), _) => index,
            (None, Some(item)) if open(item) => self.items.len() - 1,
            (None, _) => self.add(Body::Message(Vec::new())),
        };
        place.item = Some(index);
        let Item { id, body: Body::Message(pieces), .. } = self.items.get_mut(index)? else { return None };
        let part = *place.part.get_or_insert_with(|| {
            let piece = Piece { refusal, ..Piece::default() };
            let at = ("content_index", pieces.len());
            self.out.about("response.content_part.added", (index, id), Some(at), |o| {
                o.object("part", |o| piece.write(o));
            });
            pieces.push(piece);
            at.1
        });
        Some(((index, id), pieces.get_mut(part)?))
    }

    pub(super) fn text(&mut self, place: &mut Place, refusal: bool, text: &str) {
        let Some(((index, _), _)) = self.piece(place, refusal) else { return };
        let Some(Item { id, body: Body::Message(pieces), .. }) = self.items.get_mut(index) else { return };
        let part = place.part.unwrap_or(0);
        let name = if refusal { "response.refusal.delta" } else { "response.output_text.delta" };
        self.out.about(name, (index, id), Some(("content_index", part)), |o| {
            o.str("delta", text);
            if !refusal {
                o.raw("logprobs", "[]");
            }
        });
        if let Some(piece) = pieces.get_mut(part) {
            piece.text.to_mut().push_str(text);
        }
    }

    pub(super) fn end_text(&mut self, index: usize, part: usize) {
        let Some(Item { id, body: Body::Message(pieces), .. }) = self.items.get_mut(index) else { return };
        let Some(piece) = pieces.get_mut(part) else { return };
        let (item, at) = ((index, id.as_str()), Some(("content_index", part)));
        let out = &mut self.out;
        piece.annotations(|n, annotation| {
            out.about("response.output_text.annotation.added", item, at, |o| {
                o.uint("annotation_index", n as u64);
                o.object("annotation", |o| annotation(o));
            });
        });
        if piece.refusal {
            out.about("response.refusal.done", item, at, |o| o.str("refusal", &piece.text));
        } else {
            out.about("response.output_text.done", item, at, |o| {
                o.str("text", &piece.text);
                piece.write_logprobs(o);
            });
        }
        out.about("response.content_part.done", item, at, |o| o.object("part", |o| piece.write(o)));
        piece.closed = true;
        self.settle(self.items.len().saturating_sub(1), None);
    }

    /// The item of a reasoning block, which is added when it is not there yet.
    pub(super) fn reasoning(&mut self, place: &mut Place) -> usize {
        if let Some(index) = place.item {
            return index;
        }
        let index = self.add(Body::Reasoning { parts: Vec::new(), sealed: Cow::Borrowed("") });
        place.item = Some(index);
        index
    }

    pub(super) fn thought(&mut self, place: &mut Place, text: &str) {
        let index = self.reasoning(place);
        let Some(Item { id, body: Body::Reasoning { parts, .. }, .. }) = self.items.get_mut(index) else {
            return;
        };
        let item = (index, id.as_str());
        let out = &mut self.out;
        let part = *place.part.get_or_insert_with(|| {
            let at = ("summary_index", parts.len());
            out.about("response.reasoning_summary_part.added", item, Some(at), |o| {
                o.object("part", |o| summary(o, ""));
            });
            parts.push(Cow::Borrowed(""));
            at.1
        });
        let at = Some(("summary_index", part));
        out.about("response.reasoning_summary_text.delta", item, at, |o| o.str("delta", text));
        if let Some(part) = parts.get_mut(part) {
            part.to_mut().push_str(text);
        }
    }

    pub(super) fn end_thought(&mut self, place: &mut Place) {
        let (Some(index), Some(part)) = (place.item, place.part.take()) else { return };
        let Some(Item { id, body: Body::Reasoning { parts, .. }, .. }) = self.items.get(index) else {
            return;
        };
        let text = parts.get(part).map_or("", |text| text);
        let (item, at) = ((index, id.as_str()), Some(("summary_index", part)));
        self.out.about("response.reasoning_summary_text.done", item, at, |o| o.str("text", text));
        self.out.about("response.reasoning_summary_part.done", item, at, |o| {
            o.object("part", |o| summary(o, text));
        });
    }

    pub(super) fn arguments(&mut self, place: &Place, kind: ToolKind, text: &str) {
        let Some(index) = place.item else { return };
        let Some(Item { id, body: Body::Call { arguments, .. }, .. }) = self.items.get_mut(index) else {
            return;
        };
        let name = match kind {
            ToolKind::Function => "response.function_call_arguments.delta",
            ToolKind::Custom => "response.custom_tool_call_input.delta",
        };
        self.out.about(name, (index, id), None, |o| o.str("delta", text));
        arguments.to_mut().push_str(text);
    }

    pub(super) fn end_call(&mut self, place: &Place, kind: ToolKind) {
        let Some(index) = place.item else { return };
        let none =
            |item: &Item<'_>| matches!(&item.body, Body::Call { arguments, .. } if arguments.is_empty());
        if self.items.get(index).is_some_and(none) {
            let whole = whole_arguments(kind, "");
            if !whole.is_empty() {
                self.arguments(place, kind, whole);
            }
        }
        let Some(Item { id, body: Body::Call { arguments, .. }, .. }) = self.items.get(index) else { return };
        let (name, key) = match kind {
            ToolKind::Function => ("response.function_call_arguments.done", "arguments"),
            ToolKind::Custom => ("response.custom_tool_call_input.done", "input"),
        };
        self.out.about(name, (index, id), None, |o| o.str(key, arguments));
        self.done(index);
    }

    pub(super) fn picture(&mut self, place: &mut Place, mime: String, more: &str) {
        let index = match place.item {
            Some(index) => index,
            None => self.add(Body::Image { mime: mime.into(), data: Cow::Borrowed("") }),
        };
        let Some(Item { id, body: Body::Image { data, .. }, .. }) = self.items.get_mut(index) else { return };
        if place.item.replace(index).is_none() {
            self.out.about("response.image_generation_call.in_progress", (index, id), None, |_| {});
            self.out.about("response.image_generation_call.generating", (index, id), None, |_| {});
        }
        data.to_mut().push_str(more);
    }
}
