//! Traces: a span per request, and below it one per call of an upstream (feature `otlp`).
//!
//! Enters: what the stages note of a request ([`Trace`]), its [`Facts`](super::request::Facts) when it is over.
//! Leaves: spans in a bounded queue, named after OpenTelemetry's conventions for generative AI; `state::export`
//! sends them. Prompts, answers, keys and addresses of clients are in none. May go wrong: the queue is full;
//! what does not fit is dropped and counted.
//!
//! Without the feature the same calls note nothing.

#[cfg(not(feature = "otlp"))]
mod none;
#[cfg(feature = "otlp")]
mod spans;

#[cfg(not(feature = "otlp"))]
pub use none::{Trace, Traces};
#[cfg(feature = "otlp")]
pub use spans::{Trace, Traces};
