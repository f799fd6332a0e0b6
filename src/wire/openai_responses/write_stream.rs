//! IR events → Responses events.
//!
//! Enters: events as [`crate::ir::Event`] promises them. Leaves: `response.created`, `response.in_progress`,
//! items at 0, 1, 2, …, one terminal event with the whole response; `sequence_number` rises from 0. May go
//! wrong: [`Event::Failure`] ends the stream with `response.failed` and what came so far, or with `error` when
//! nothing came; open items stay open.
//!
//! An item is added with its first content; deltas of several open items may interleave, which the format
//! allows. A message is done when the next item is added or the answer has finished: the texts of blocks that
//! follow each other are parts of one message.

use super::ids::response_id;
use super::write_events::Numbered;
use super::write_output::{Body, Item, Outcome, Shown, State, redacted};
use crate::error::Failure;
use crate::frames::{Frames, Framing};
use crate::ir::{BlockKind, Context, Delta, Event, Finish, Sink, ToolKind, Usage, WriteStream};
use std::borrow::Cow;
use std::sync::Arc;

/// Writes one stream.
#[derive(Debug)]
pub(super) struct Writer {
    context: Arc<Context>,
    pub(super) out: Numbered,
    id: String,
    model: String,
    created: u64,
    started: bool,
    ended: bool,
    /// The only choice that is shown: the format has no others.
    choice: Option<u32>,
    pub(super) items: Vec<Item<'static>>,
    /// Blocks that are open.
    blocks: Vec<Place>,
    usage: Usage,
    finish: Option<Finish>,
}

/// Where a block is written.
#[derive(Debug)]
pub(super) struct Place {
    block: u32,
    kind: Kind,
    /// Its item, once it has content.
    pub(super) item: Option<usize>,
    /// Text: number of the part. Reasoning: whether a part of the summary is open.
    pub(super) part: Option<usize>,
}

#[derive(Debug)]
enum Kind {
    Text {
        refusal: bool,
    },
    Reasoning,
    Call(ToolKind),
    Image {
        mime: String,
    },
    /// Written whole when it was opened.
    Whole,
}

impl Writer {
    pub(super) fn new(context: Arc<Context>, framing: Framing) -> Self {
        Self {
            context,
            out: Numbered::new(framing),
            id: String::new(),
            model: String::new(),
            created: 0,
            started: false,
            ended: false,
            choice: None,
            items: Vec::new(),
            blocks: Vec::new(),
            usage: Usage::default(),
            finish: None,
        }
    }

    fn start(&mut self, id: &str, model: &str, created: Option<u64>) {
        self.started = true;
        self.id = response_id(id, &self.context);
        let shown = if self.context.model.is_empty() { model } else { &self.context.model };
        shown.clone_into(&mut self.model);
        self.created = created.unwrap_or(self.context.created);
        let in_progress = Outcome { status: "in_progress", reason: None };
        self.response("response.created", in_progress, None);
        self.response("response.in_progress", in_progress, None);
    }

    /// An event that carries the response; usage and items only once it has ended.
    fn response(&mut self, name: &str, outcome: Outcome, error: Option<&Failure>) {
        let ended = outcome.status != "in_progress";
        let shown = Shown {
            id: &self.id,
            model: &self.model,
            created: self.created,
            status: outcome.status,
            reason: outcome.reason,
            error,
            output: if ended { &self.items } else { &[] },
            usage: (ended && (error.is_none() || !self.usage.is_unknown())).then_some(&self.usage),
            context: &self.context,
        };
        self.out.event(name, |o| shown.write(o.key("response")));
    }

    fn open(&mut self, block: u32, kind: BlockKind<'_>) {
        let mut place = Place { block, kind: Kind::Whole, item: None, part: None };
        match kind {
            BlockKind::Text => place.kind = Kind::Text { refusal: false },
            BlockKind::Refusal => place.kind = Kind::Text { refusal: true },
            BlockKind::Reasoning { redacted: None } => place.kind = Kind::Reasoning,
            BlockKind::Reasoning { redacted: Some(data) } => {
                place.kind = Kind::Reasoning;
                place.item =
                    Some(self.add(Body::Reasoning { parts: Vec::new(), sealed: redacted(data).into() }));
            }
            BlockKind::Tool { id, name, namespace, kind } => {
                place.kind = Kind::Call(kind);
                place.item = Some(self.add(Body::Call {
                    call_id: id.to_owned().into(),
                    name: name.to_owned().into(),
                    namespace: namespace.map(|namespace| namespace.to_owned().into()),
                    kind,
                    arguments: Cow::Borrowed(""),
                }));
            }
            BlockKind::Image { mime } => place.kind = Kind::Image { mime: mime.to_owned() },
            BlockKind::Server { kind, raw } => {
                if let Some(item) = Item::server(kind, raw, &self.context.seed, self.items.len()) {
                    let index = self.push(item);
                    self.done(index);
                }
            }
        }
        self.blocks.push(place);
    }

    pub(super) fn add(&mut self, body: Body<'static>) -> usize {
        let item = Item::new(body, &self.context.seed, self.items.len());
        self.push(item)
    }

    fn push(&mut self, item: Item<'static>) -> usize {
        let index = self.items.len();
        self.settle(index, None);
        self.out.item("response.output_item.added", index, &item);
        self.items.push(item);
        index
    }

    /// Ends messages before item `limit` whose parts are complete.
    pub(super) fn settle(&mut self, limit: usize, outcome: Option<Outcome>) {
        let last = self.items.len().saturating_sub(1);
        for (index, item) in self.items.iter_mut().enumerate().take(limit) {
            let Body::Message(pieces) = &item.body else { continue };
            if item.state != State::InProgress || pieces.iter().any(|piece| !piece.closed) {
                continue;
            }
            let cut = index == last && outcome.is_some_and(|outcome| outcome.reason.is_some());
            item.state = if cut { State::Incomplete } else { State::Completed };
            self.out.item("response.output_item.done", index, item);
        }
    }

    pub(super) fn done(&mut self, index: usize) {
        if let Some(item) = self.items.get_mut(index) {
            item.state = State::Completed;
            self.out.item("response.output_item.done", index, item);
        }
    }

    fn delta(&mut self, place: &mut Place, delta: Delta<'_>) {
        match (&place.kind, delta) {
            (Kind::Text { .. }, Delta::Text("")) | (Kind::Reasoning, Delta::Text("")) => {}
            (Kind::Text { refusal }, Delta::Text(text)) => {
                let refusal = *refusal;
                self.text(place, refusal, text);
            }
            (Kind::Text { refusal: false }, Delta::Citation(citation)) => {
                if let Some((_, piece)) = self.piece(place, false) {
                    piece.citations.push(citation.into_owned());
                }
            }
            (Kind::Text { refusal: false }, Delta::Logprobs(list)) if place.part.is_some() => {
                if let Some((_, piece)) = self.piece(place, false) {
                    piece.logprobs.push(list.to_owned().into());
                }
            }
            (Kind::Reasoning, Delta::Text(text)) => self.thought(place, text),
            (Kind::Reasoning, Delta::Part) => self.end_thought(place),
            (Kind::Reasoning, Delta::Signature(signature)) => {
                let index = self.reasoning(place);
                if let Some(Item { body: Body::Reasoning { sealed, .. }, .. }) = self.items.get_mut(index) {
                    *sealed = signature.value.into_owned().into();
                }
            }
            (Kind::Call(kind), Delta::Arguments(text)) if !text.is_empty() => {
                let kind = *kind;
                self.arguments(place, kind, text);
            }
            (Kind::Image { mime }, Delta::Data(text)) => {
                let mime = mime.clone();
                self.picture(place, mime, text);
            }
            // What the format has no place for: signatures of text and calls, and empty deltas.
            _ => {}
        }
    }

    fn close(&mut self, mut place: Place) {
        let Some(index) = place.item else { return };
        match place.kind {
            Kind::Text { .. } => self.end_text(index, place.part.unwrap_or(0)),
            Kind::Reasoning => {
                self.end_thought(&mut place);
                self.done(index);
            }
            Kind::Call(kind) => self.end_call(&place, kind),
            Kind::Image { .. } => {
                if let Some(item) = self.items.get(index) {
                    let item = (index, item.id.as_str());
                    self.out.about("response.image_generation_call.completed", item, None, |_| {});
                }
                self.done(index);
            }
            Kind::Whole => {}
        }
    }

    fn finish(&mut self, reason: Option<Finish>) {
        self.finish = reason;
        let outcome = Outcome::of(reason, &self.items);
        self.settle(self.items.len(), Some(outcome));
    }

    fn end(&mut self) {
        if self.finish.is_none() {
            self.finish(None);
        }
        let outcome = Outcome::of(self.finish, &self.items);
        let name = if outcome.reason.is_some() { "response.incomplete" } else { "response.completed" };
        self.response(name, outcome, None);
        self.ended = true;
        self.out.frames.end();
    }

    fn fail(&mut self, failure: &Failure) {
        self.ended = true;
        if self.started {
            for item in self.items.iter_mut().filter(|item| item.state == State::InProgress) {
                item.state = State::Incomplete;
            }
            let outcome = Outcome { status: "failed", reason: None };
            self.response("response.failed", outcome, Some(failure));
        } else {
            self.out.event("error", |o| failure.openai_members_flat(o));
        }
        self.out.frames.end();
    }

    fn take(&mut self, block: u32) -> Option<Place> {
        let at = self.blocks.iter().position(|place| place.block == block)?;
        Some(self.blocks.swap_remove(at))
    }
}

impl Sink for Writer {
    fn event(&mut self, event: Event<'_>) {
        if self.ended {
            return;
        }
        match event {
            Event::Start { id, model, created } => self.start(id, model, created),
            Event::Open { block, choice, kind } => {
                if *self.choice.get_or_insert(choice) == choice {
                    self.open(block, kind);
                }
            }
            Event::Delta { block, delta } => {
                if let Some(mut place) = self.take(block) {
                    self.delta(&mut place, delta);
                    self.blocks.push(place);
                }
            }
            Event::Close { block } => {
                if let Some(place) = self.take(block) {
                    self.close(place);
                }
            }
            Event::Usage(usage) => self.usage.merge(&usage),
            Event::Finish { choice, reason, .. } => {
                if *self.choice.get_or_insert(choice) == choice {
                    self.finish(Some(reason));
                }
            }
            Event::Failure(failure) => self.fail(&failure),
            Event::End => self.end(),
        }
    }
}

impl WriteStream for Writer {
    fn frames(&mut self) -> &mut Frames {
        &mut self.out.frames
    }
}
