//! Traces in a program that was built without them.
//!
//! Enters: what `spans.rs` takes. Leaves: nothing. Nothing may go wrong.

use crate::observe::metrics::Metrics;
use crate::observe::request::Facts;
use config::Telemetry;
use http::HeaderMap;
use std::sync::Arc;
use std::time::Instant;
use wire::ir::Finish;

/// What is noted of a request for its spans: nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trace {}

impl Trace {
    /// A request begins.
    pub fn begin(&mut self, _headers: &HeaderMap, _traces: &Traces) {}

    /// The trace of a request on the same connection.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self {}
    }

    /// A call of an upstream begins.
    pub fn attempt(&mut self, _provider: &Arc<str>, _model: &Arc<str>) {}

    /// Where it goes.
    pub fn reached(&mut self, _host: &str, _port: u16) {}

    /// Why its answer ended.
    pub fn finished(&mut self, _reason: Option<Finish>) {}

    /// It is over.
    pub fn attempted(&mut self, _status: u16, _class: &'static str, _first_byte: Option<Instant>) {}
}

/// Makes no spans.
#[derive(Debug)]
pub struct Traces;

impl Traces {
    /// The settings ask for traces in vain; that is told when they are read.
    pub fn new(_telemetry: &Telemetry, _metrics: &Metrics) -> Self {
        Self
    }

    /// A request is over.
    pub fn request(&self, _trace: &Trace, _facts: &Facts, _started: Instant) {}
}
