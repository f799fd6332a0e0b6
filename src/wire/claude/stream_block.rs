//! A block that waits for its turn on the wire.
//!
//! Enters: what came for it. Leaves: text, arguments and a signature that are not out yet. May go wrong:
//! nothing; a piece that does not belong to the kind of block is left out.

use super::answer_parts::is_shown;
use crate::ir::{Citation, Delta, ToolKind};

/// A block of the answer.
#[derive(Debug)]
pub(super) struct Block {
    /// The IR's number.
    pub(super) number: u32,
    /// What it holds.
    pub(super) kind: Kind,
    /// The index it has on the wire, once it is there.
    pub(super) index: Option<u64>,
    /// Text or arguments that are not out yet.
    pub(super) waiting: String,
    /// Pieces that came.
    pub(super) pieces: u32,
    /// Sources of the text that are not out yet.
    pub(super) citations: Vec<Citation<'static>>,
    /// A signature that is not out yet.
    pub(super) signature: Option<String>,
    /// Nothing more comes.
    pub(super) closed: bool,
}

/// What a block holds.
#[derive(Debug)]
pub(super) enum Kind {
    Text,
    Refusal,
    Thinking,
    Redacted(String),
    Call {
        id: String,
        name: String,
        kind: ToolKind,
    },
    /// A block as JSON text.
    Item(String),
}

impl Block {
    /// Nothing has come yet.
    pub(super) fn new(number: u32, kind: Kind) -> Self {
        Self {
            number,
            kind,
            index: None,
            waiting: String::new(),
            pieces: 0,
            citations: Vec::new(),
            signature: None,
            closed: false,
        }
    }

    /// Whether it is text or thinking, which may end and begin anew.
    pub(super) fn flows(&self) -> bool {
        matches!(self.kind, Kind::Text | Kind::Refusal | Kind::Thinking)
    }

    /// Keeps what came until it can go out.
    pub(super) fn take(&mut self, delta: &Delta<'_>) {
        match (&self.kind, delta) {
            (Kind::Text | Kind::Refusal | Kind::Thinking, Delta::Text(text))
            | (Kind::Call { .. }, Delta::Arguments(text)) => {
                self.waiting.push_str(text);
                self.pieces += 1;
            }
            (Kind::Text, Delta::Citation(citation)) if is_shown(citation) => {
                self.citations.push(citation.clone().into_owned());
            }
            // Parts of a summary are paragraphs of one text here.
            (Kind::Thinking, Delta::Part) if self.pieces > 0 => self.waiting.push_str("\n\n"),
            (Kind::Thinking | Kind::Call { .. }, Delta::Signature(signature)) => {
                self.signature = Some(signature.value.as_ref().to_owned());
            }
            _ => {}
        }
    }
}
