//! What the outside sees of the inside: metrics, the log and its access lines.
//!
//! Enters: facts about requests. Leaves: Prometheus text, log lines, logs of single requests. Secrets come here
//! only to be taken out of those (`redact.rs`): callers pass labels of credentials, not credentials. May go
//! wrong: nothing that a request would notice.

pub mod alerts;
pub mod body_capture;
pub mod clip;
pub mod feed;
pub mod log;
mod log_file;
pub mod log_folder;
pub mod metrics;
pub mod panics;
pub mod providers;
pub mod redact;
pub mod request;
pub mod request_log;
pub mod traces;
pub mod usage;
