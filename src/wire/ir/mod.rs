//! The canonical conversation: what all four formats mean, in one shape.
//!
//! Enters: what a format's reader understood. Leaves: what a format's writer can say. It exists so that N
//! formats need N readers and N writers, and each pitfall is mended once. Traffic with the same format on
//! both sides never comes here.
//!
//! Rules:
//! - Nothing a user said is dropped in silence. A reader that meets what the IR cannot hold, and a writer
//!   that meets what its format cannot say, records a [`Loss`].
//! - A request is borrowed from the client's body ([`Request`]); an answer flows as [`Event`]s, borrowed from
//!   the upstream's bytes; a whole answer is the [`fold`] of the same events.
//! - What the answer needs to know of the request travels in [`Context`].
//!
//! Order of a request: a reader, [`lower`] (repairs and renames that any target needs), a writer.
//! Order of an answer: a reader, [`restore`] (undoes the renames), a stream writer or [`fold`] and a writer.

mod context;
mod event;
mod fold;
mod loss;
pub mod lower;
mod request;
pub mod restore;
mod settings;
mod usage;

pub use context::{Context, Restored};
pub use event::{BlockKind, Citation, Delta, Event, Finish, ReadAnswer, Sink, WriteStream};
pub use fold::{Answer, Block, Choice, Fold};
pub use loss::{Loss, LossKind, Losses};
pub use request::{
    Audio, Builtin, CacheMark, Document, Format, Image, Instruction, Limits, Part, RawJson, Reasoning,
    Request, Role, Sampling, SearchResult, ServerItem, Source, Str, Text, Tool, ToolCall, ToolChoice,
    ToolKind, ToolResult, Turn,
};
pub use settings::note_lost;
pub use usage::Usage;
