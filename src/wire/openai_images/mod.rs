//! OpenAI Images (`/v1/images/generations`, `/v1/images/edits`), spoken by clients only.
//!
//! Enters: bodies with a `prompt`, as JSON or as a form; answers with pictures. Leaves: requests for one
//! picture; `data[].b64_json`, or events. May go wrong: see each file.
//!
//! | upstream | way |
//! |---|---|
//! | OpenAI-compatible, xAI | the same route: body and answer are passed ([`crate::passed`]) |
//! | Responses, Codex | a request that has to call the tool `image_generation` |
//! | Gemini | generateContent with pictures among `responseModalities` |
//!
//! | file | |
//! |---|---|
//! | `members.rs` | body → its members, whether it is JSON or a form |
//! | `read_request.rs` | members → IR |
//! | `gemini.rs` | what the body for Gemini needs beyond the IR |
//! | `write.rs` | events → answer or stream |

mod gemini;
mod members;
mod read_request;
mod write;

pub(crate) use gemini::with_image_config;
pub(crate) use members::check_prompt;
pub(crate) use read_request::{Asked, read_request};
pub(crate) use write::Images;

/// Whether a model draws and does nothing else: an upstream that draws by a tool needs another model to call it.
pub(crate) fn is_painter(model: &str) -> bool {
    ["gpt-image", "chatgpt-image", "dall-e"].iter().any(|prefix| model.starts_with(prefix))
}

/// Whether a model of a Responses upstream is served by the Images API of that upstream.
pub(crate) fn has_own_route(model: &str) -> bool {
    model.starts_with("grok-")
}
