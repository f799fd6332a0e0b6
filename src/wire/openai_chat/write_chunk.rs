//! One `chat.completion.chunk` after the other.
//!
//! Enters: what a chunk adds. Leaves: framed chunks that all begin with the same `id`, `created` and `model`.
//! May go wrong: nothing.

use super::answer_members::{self, Ids};
use crate::Protocol;
use crate::error::Failure;
use crate::frames::{Frames, Framing};
use crate::ir::Usage;
use crate::json::{self, Object};

/// Writes chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    frames: Frames,
    /// The same first members of every chunk, up to the elements of `choices`; empty: not known yet.
    head: Vec<u8>,
    /// The client asked for the usage chunk: every other chunk then says `usage: null`.
    include_usage: bool,
}

/// What may stand beside a delta.
#[derive(Debug, Default)]
pub(super) struct Beside<'c> {
    /// Elements of `logprobs.content`, as JSON array text.
    pub(super) logprobs: Option<&'c str>,
    /// `finish_reason`.
    pub(super) finish: Option<&'c str>,
    /// Figures of the whole answer.
    pub(super) usage: Option<&'c Usage>,
}

impl Chunks {
    pub(super) fn new(framing: Framing, include_usage: bool) -> Self {
        Self { frames: Frames::new(framing), head: Vec::new(), include_usage }
    }

    /// The output.
    pub(super) fn frames(&mut self) -> &mut Frames {
        &mut self.frames
    }

    /// Sets who answers, once.
    pub(super) fn start(&mut self, ids: impl FnOnce() -> Ids) {
        if self.head.is_empty() {
            json::object(&mut self.head, |o| {
                ids().write("chat.completion.chunk", o);
                o.key("choices");
            });
            // The object goes on in each chunk.
            self.head.pop();
        }
    }

    /// Writes a chunk of choice `index`: `fill` adds the members of `delta`.
    pub(super) fn delta(&mut self, index: u32, beside: &Beside<'_>, fill: impl FnOnce(&mut Object<'_>)) {
        let Self { frames, head, include_usage } = self;
        frames.event("", |out| {
            out.extend_from_slice(head);
            json::array(out, |a| {
                a.object(|o| {
                    o.uint("index", u64::from(index));
                    o.object("delta", fill);
                    if let Some(content) = beside.logprobs {
                        o.object("logprobs", |o| {
                            o.raw("content", content);
                            o.null("refusal");
                        });
                    }
                    o.nullable_str("finish_reason", beside.finish);
                });
            });
            match beside.usage {
                Some(usage) => tail(usage, out),
                None if *include_usage => out.extend_from_slice(b",\"usage\":null"),
                None => {}
            }
            out.push(b'}');
        });
    }

    /// Writes the usage chunk, which has no choices.
    pub(super) fn usage(&mut self, usage: &Usage) {
        let Self { frames, head, .. } = self;
        frames.event("", |out| {
            out.extend_from_slice(head);
            out.extend_from_slice(b"[]");
            tail(usage, out);
            out.push(b'}');
        });
    }

    /// Ends the stream.
    pub(super) fn done(&mut self) {
        self.frames.done();
        self.frames.end();
    }

    /// Ends the stream with an error.
    pub(super) fn fail(&mut self, failure: &Failure) {
        let body = failure.render(Protocol::OpenaiChat);
        self.frames.event("", |out| out.extend_from_slice(&body));
        self.frames.end();
    }
}

/// Appends `,"usage":{…}`.
fn tail(usage: &Usage, out: &mut Vec<u8>) {
    let mut member = Vec::new();
    json::object(&mut member, |o| answer_members::usage(usage, o));
    out.push(b',');
    let inner = member.strip_prefix(b"{").and_then(|member| member.strip_suffix(b"}"));
    out.extend_from_slice(inner.unwrap_or_default());
}
