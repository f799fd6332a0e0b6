//! What the outside sees of the inside: metrics, the log and its access lines.
//!
//! Enters: facts about requests. Leaves: Prometheus text and log lines. Secrets never come here: callers
//! pass labels of credentials, not credentials. May go wrong: nothing that a request would notice.

pub mod alerts;
pub mod log;
mod log_file;
pub mod metrics;
pub mod panics;
pub mod providers;
pub mod request;
pub mod traces;
pub mod usage;
