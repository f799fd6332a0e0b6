//! The data path.

pub mod client;
pub mod endpoint;
pub mod error;
pub mod parse;
pub mod reply;
pub mod respond;
pub mod websocket;
