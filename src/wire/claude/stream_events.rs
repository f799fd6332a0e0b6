//! The events of a stream, one by one.
//!
//! Enters: what an event says. Leaves: the event in the output. May go wrong: nothing. Which event may come
//! when is for [`super::write_stream`] to know; here only the numbers of the blocks are kept.

use super::answer_parts::{self, Shown};
use crate::Protocol;
use crate::error::Failure;
use crate::frames::{Frames, Framing};
use crate::ir::{Citation, Finish, Usage};
use crate::json;

/// Output of a stream.
#[derive(Debug)]
pub(super) struct Events {
    frames: Frames,
    /// Index of the next block.
    next: u64,
}

impl Events {
    /// Empty output.
    pub(super) fn new(framing: Framing) -> Self {
        Self { frames: Frames::new(framing), next: 0 }
    }

    /// The output so far.
    pub(super) fn frames(&mut self) -> &mut Frames {
        &mut self.frames
    }

    /// `message_start`
    pub(super) fn message_start(&mut self, id: &str, model: &str, usage: &Usage) {
        self.frames.event("message_start", |out| {
            json::object(out, |o| {
                o.str("type", "message_start");
                o.object("message", |o| {
                    o.str("id", id);
                    o.str("type", "message");
                    o.str("role", "assistant");
                    o.str("model", model);
                    o.raw("content", "[]");
                    o.null("stop_reason");
                    o.null("stop_sequence");
                    answer_parts::write_usage(o, usage);
                });
            });
        });
    }

    /// `content_block_start`; `fill` appends the block. Returns the block's index.
    pub(super) fn block_start(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> u64 {
        let index = self.next;
        self.next += 1;
        self.frames.event("content_block_start", |out| {
            json::object(out, |o| {
                o.str("type", "content_block_start");
                o.uint("index", index);
                fill(o.key("content_block"));
            });
        });
        index
    }

    /// `content_block_delta` of type `kind`, whose member `key` is `text`.
    pub(super) fn piece(&mut self, index: u64, kind: &str, key: &str, text: &str) {
        self.frames.event("content_block_delta", |out| {
            json::object(out, |o| {
                o.str("type", "content_block_delta");
                o.uint("index", index);
                o.object("delta", |o| {
                    o.str("type", kind);
                    o.str(key, text);
                });
            });
        });
    }

    /// `content_block_delta` with a source of the text.
    pub(super) fn citation(&mut self, index: u64, citation: &Citation<'_>) {
        self.frames.event("content_block_delta", |out| {
            json::object(out, |o| {
                o.str("type", "content_block_delta");
                o.uint("index", index);
                o.object("delta", |o| {
                    o.str("type", "citations_delta");
                    o.object("citation", |o| answer_parts::write_citation(o, citation));
                });
            });
        });
    }

    /// `content_block_stop`
    pub(super) fn block_stop(&mut self, index: u64) {
        self.frames.event("content_block_stop", |out| {
            json::object(out, |o| {
                o.str("type", "content_block_stop");
                o.uint("index", index);
            });
        });
    }

    /// `message_delta` and `message_stop`
    pub(super) fn message_end(
        &mut self,
        finish: Option<Finish>,
        detail: Option<&str>,
        shown: Shown,
        usage: &Usage,
    ) {
        self.frames.event("message_delta", |out| {
            json::object(out, |o| {
                o.str("type", "message_delta");
                o.object("delta", |o| answer_parts::write_stop(o, finish, detail, shown));
                answer_parts::write_usage(o, usage);
            });
        });
        self.frames.event("message_stop", |out| json::object(out, |o| o.str("type", "message_stop")));
        self.frames.end();
    }

    /// `error`
    pub(super) fn error(&mut self, failure: &Failure) {
        let body = failure.render(Protocol::Claude);
        self.frames.event("error", |out| out.extend_from_slice(&body));
        self.frames.end();
    }
}
