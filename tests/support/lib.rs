//! What tests need around the proxy: an upstream that misbehaves on command, a double of every provider, a
//! client that speaks bytes, the proxy as a process, scratch folders, the translation vectors.
//!
//! Plain threads and blocking sockets: a test reads from top to bottom, and every byte on the wire is one
//! that a test wrote. Nothing here is used by the product.

pub mod client;
pub mod double;
pub mod proxy;
pub mod record;
pub mod scratch;
pub mod upstream;
pub mod vectors;
