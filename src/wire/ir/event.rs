//! An answer as it happens.
//!
//! A reader guarantees, and a writer may rely on:
//! - `Start` comes first and once.
//! - `Open` comes before any `Delta` of its block, `Close` after the last; blocks of different numbers may
//!   interleave. Numbers are unique within the answer and rise in order of opening.
//! - Every block of a choice is closed before its `Finish`; each choice that was opened has one `Finish`.
//! - `Usage` may come at any time before the end, each report cumulative.
//! - The last event is `End`, or `Failure` when the answer broke: then blocks may stay open and choices
//!   unfinished, and nothing may be made up to hide it.

use super::Usage;
use super::request::{Str, ToolKind};
use crate::error::Failure;
use crate::frames::Frames;
use crate::signature::Signature;

/// One step of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'e> {
    /// The answer begins.
    Start {
        /// The upstream's id of the answer; empty when it gave none.
        id: &'e str,
        /// The upstream's name of the model; empty when it gave none.
        model: &'e str,
        /// Seconds since 1970, where the upstream said.
        created: Option<u64>,
    },
    /// A block begins.
    Open {
        /// Number of the block.
        block: u32,
        /// Number of the answer among several (`n > 1`).
        choice: u32,
        /// What it holds.
        kind: BlockKind<'e>,
    },
    /// A block goes on.
    Delta {
        /// Number of the block.
        block: u32,
        /// What is added.
        delta: Delta<'e>,
    },
    /// A block is complete.
    Close {
        /// Number of the block.
        block: u32,
    },
    /// Token counts so far.
    Usage(Usage),
    /// A choice is complete.
    Finish {
        /// Number of the choice.
        choice: u32,
        /// Why.
        reason: Finish,
        /// The stop sequence that was met, or the vendor's words about the reason.
        detail: Option<&'e str>,
    },
    /// The answer broke.
    Failure(Failure),
    /// The answer is complete.
    End,
}

/// What a block holds.
#[derive(Clone, Debug, PartialEq)]
pub enum BlockKind<'e> {
    /// Visible text.
    Text,
    /// The model's refusal, in words.
    Refusal,
    /// Thinking, or a summary of it.
    Reasoning {
        /// Claude `redacted_thinking`: the whole block is this data.
        redacted: Option<&'e str>,
    },
    /// A call.
    Tool {
        /// Id of the call: never empty, unique in the answer.
        id: &'e str,
        /// Name of the tool; [`super::restore`] makes it the client's again.
        name: &'e str,
        /// Responses namespace.
        namespace: Option<&'e str>,
        /// How it is called: arguments are JSON text, or a bare string.
        kind: ToolKind,
    },
    /// A picture; its bytes come in one [`Delta::Data`].
    Image {
        /// MIME type.
        mime: &'e str,
    },
    /// An item of a built-in tool, whole: only a client of the same vendor understands it.
    Server {
        /// Its `type`.
        kind: &'e str,
        /// The item as JSON text.
        raw: &'e str,
    },
}

/// What is added to a block.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta<'e> {
    /// Text, refusal or thinking text.
    Text(&'e str),
    /// A further part of a reasoning summary begins.
    Part,
    /// A piece of a call's arguments.
    Arguments(&'e str),
    /// The block is signed. At most once for a block, after its text.
    Signature(Signature<'e>),
    /// A source of the text.
    Citation(Citation<'e>),
    /// Base64 of a picture.
    Data(&'e str),
    /// Log probabilities of the text so far: the elements of Chat `logprobs.content`, as JSON array text.
    Logprobs(&'e str),
}

/// A source that text refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Citation<'e> {
    /// URL of the source; empty for documents of the request.
    pub url: Str<'e>,
    /// Its title.
    pub title: Str<'e>,
    /// The quoted passage, where the vendor gives it.
    pub quote: Str<'e>,
    /// First character of the text that refers to it, where the vendor says.
    pub start: Option<u64>,
    /// One past the last character.
    pub end: Option<u64>,
    /// File id or document index, as the vendor names it, for citations without a URL.
    pub document: Str<'e>,
}

impl Citation<'_> {
    /// A copy that borrows nothing.
    pub fn into_owned(self) -> Citation<'static> {
        Citation {
            url: self.url.into_owned().into(),
            title: self.title.into_owned().into(),
            quote: self.quote.into_owned().into(),
            start: self.start,
            end: self.end,
            document: self.document.into_owned().into(),
        }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finish {
    /// It was complete.
    End,
    /// A stop sequence was met.
    StopSequence,
    /// The token limit was met.
    Length,
    /// The context is full.
    Context,
    /// The client has to run tools.
    Tool,
    /// A filter cut it.
    Filter,
    /// The model refused.
    Refusal,
    /// A server tool wants another turn (Claude `pause_turn`).
    Pause,
    /// The model made a call that nobody can run (Gemini `MALFORMED_FUNCTION_CALL`).
    BadCall,
}

impl Finish {
    /// The name used in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::StopSequence => "stop_sequence",
            Self::Length => "length",
            Self::Context => "context",
            Self::Tool => "tool",
            Self::Filter => "filter",
            Self::Refusal => "refusal",
            Self::Pause => "pause",
            Self::BadCall => "bad_call",
        }
    }
}

/// Takes events.
pub trait Sink {
    /// Takes the next event.
    fn event(&mut self, event: Event<'_>);
}

impl<F: FnMut(Event<'_>)> Sink for F {
    fn event(&mut self, event: Event<'_>) {
        self(event);
    }
}

/// Reads an upstream's answer: one state machine for streams and whole bodies, so that they cannot differ.
///
/// What cannot be read becomes [`Event::Failure`]; after `Failure` or `End` nothing more comes out.
pub trait ReadAnswer: Send {
    /// Takes one event of the stream. `name` is its `event:` field, `data` its data (also `[DONE]`).
    fn event(&mut self, name: &str, data: &[u8], sink: &mut dyn Sink);

    /// Takes a complete JSON answer, and ends.
    fn whole(&mut self, body: &[u8], sink: &mut dyn Sink);

    /// The stream is over. Ends with [`Event::End`] when every choice has finished, else with
    /// [`Failure::cut`]: a cut stream never looks complete.
    fn eof(&mut self, sink: &mut dyn Sink);
}

/// Writes a client's stream.
pub trait WriteStream: Sink + Send {
    /// The output so far, to be taken and sent.
    fn frames(&mut self) -> &mut Frames;
}
