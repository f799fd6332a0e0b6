//! One cell: the formats, how the answer comes and goes, and what is said.

use crate::exchange::{Checked, Exchange};
use crate::format;
use crate::scenario::Scenario;
use wire::Protocol;

/// How the answer comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A body comes, a body goes.
    Whole,
    /// Events come, events go.
    Stream,
    /// Events come and a body goes; and the events of the stream, folded, are the body of the whole.
    Folded,
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::Whole, Self::Stream, Self::Folded];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Stream => "stream",
            Self::Folded => "folded",
        }
    }
}

/// A cell of the matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) client: Protocol,
    pub(crate) upstream: Protocol,
    pub(crate) mode: Mode,
    pub(crate) scenario: Scenario,
}

impl Cell {
    pub(crate) fn name(self) -> String {
        let (client, upstream) = (format::name(self.client), format::name(self.upstream));
        format!("matrix::{client}_to_{upstream}::{}::{}", self.mode.name(), self.scenario.name())
    }

    pub(crate) fn run(self) -> Checked {
        let Self { client, upstream, .. } = self;
        let (ask, said) = (self.scenario.ask(client, upstream), self.scenario.said(upstream));
        let exchange = Exchange { name: self.name(), client, upstream, ask, said };
        let plan = exchange.request(self.mode == Mode::Stream)?.plan;
        match (self.scenario, self.mode) {
            (Scenario::Error, Mode::Whole) => exchange.whole_error(&plan),
            (Scenario::Error, Mode::Stream) => exchange.stream_error(&plan),
            (Scenario::Error, Mode::Folded) => exchange.folded_error(&plan),
            (Scenario::Cut, Mode::Whole) => exchange.whole_cut(&plan),
            (Scenario::Cut, Mode::Stream) => exchange.stream_cut(&plan),
            (Scenario::Cut, Mode::Folded) => exchange.folded_cut(&plan),
            (_, Mode::Whole) => exchange.whole(&plan).map(drop),
            (_, Mode::Stream) => exchange.stream(&plan).map(drop),
            (_, Mode::Folded) => exchange.folded(&plan),
        }
    }
}
