//! How upstreams are reached and spoken to. Formats of bodies are `wire`'s; here are connections, paths and
//! headers.
//!
//! Enters: a credential and a prepared body. Leaves: a request on a pooled connection. May go wrong: names,
//! connections, proxies and TLS; the error says which, never with a secret.

pub mod dial;
pub mod echo;
pub mod fetch;
pub mod peer;
pub mod public;
pub mod request;
pub mod resolve;
mod stamp;

pub use stamp::COPILOT;
