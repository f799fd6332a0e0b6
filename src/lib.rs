//! cliproxy: one port between every LLM client and every LLM provider.

pub mod observe;
pub mod proxy;
pub mod upstream;
