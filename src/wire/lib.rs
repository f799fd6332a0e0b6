//! LLM wire formats: what the bytes mean.
//!
//! Enters: bodies and event streams of the formats below. Leaves: the same content in another of them.
//! May go wrong: [`error::WireError`] names the field a client got wrong; [`ir::Loss`] names what a target
//! format cannot hold. No IO, no clock, no randomness: ids and times are arguments.
//!
//! Reading order: [`head`] and [`patch`] (same format on both sides: bytes stay bytes), [`ir`] (what a
//! conversation is), one format folder (all have the same files), [`translate`] (the only registry),
//! [`payload`] (what the operator changes in bodies that are ready).
//!
//! | file of a format | from → to |
//! |---|---|
//! | `read_request.rs` | client body → [`ir::Request`] |
//! | `write_request.rs` | [`ir::Request`] → upstream body |
//! | `read_answer.rs` | upstream events or whole body → [`ir::Event`]s |
//! | `write_stream.rs` | [`ir::Event`]s → client events |
//! | `write_answer.rs` | folded [`ir::Answer`] → client body |
//! | `error.rs` | error bodies, both ways |
//!
//! [`openai_legacy`] and [`openai_images`] are spoken by clients only, so they have no upstream half;
//! [`kiro`] by upstreams only, so it has nothing else. What is no conversation
//! ([`target::Operation::is_media`]) goes between equal formats with another model name ([`passed`]);
//! [`form`] has the bodies that are forms.

pub mod claude;
pub mod error;
pub mod estimate;
pub mod event_stream;
pub mod form;
pub mod frames;
pub mod gemini;
pub mod head;
pub mod ir;
pub mod json;
pub mod kiro;
pub mod model_path;
pub mod names;
pub mod openai_chat;
pub mod openai_images;
pub mod openai_legacy;
pub mod openai_responses;
pub mod passed;
pub mod patch;
pub mod payload;
pub mod replay;
pub mod schema;
pub mod signature;
pub mod sse;
pub mod target;
pub mod thinking;
pub mod translate;
mod typed;

use serde::{Deserialize, Serialize};

/// A wire format that both clients and upstreams speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// OpenAI Chat Completions (`/v1/chat/completions`).
    OpenaiChat,
    /// OpenAI Responses (`/v1/responses`).
    OpenaiResponses,
    /// Anthropic Messages (`/v1/messages`).
    Claude,
    /// Google generateContent (`/v1beta/models/{model}:generateContent`).
    Gemini,
}

impl Protocol {
    /// All formats, in the order in which tables print them.
    pub const ALL: [Self; 4] = [Self::OpenaiChat, Self::OpenaiResponses, Self::Claude, Self::Gemini];

    /// The name used in configuration, vectors and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenaiChat => "openai",
            Self::OpenaiResponses => "openai-response",
            Self::Claude => "claude",
            Self::Gemini => "gemini",
        }
    }
}
