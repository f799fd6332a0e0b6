//! What became of the thinking that a client asked for: for the log and for a counter.
//!
//! Enters: what was asked, what was sent, later what the answer shows. Leaves: [`ThinkingReport`] and
//! [`Mismatch`]. Nothing may go wrong.

use super::Mode;
use crate::Protocol;
use crate::ir::Usage;

/// Who asked for thinking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nobody.
    #[default]
    Nobody,
    /// The client's body.
    Body,
    /// The suffix of a model name: the client's, or the one that is configured for the upstream.
    Suffix,
}

impl Origin {
    /// The name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nobody => "none",
            Self::Body => "body",
            Self::Suffix => "suffix",
        }
    }
}

/// What was asked and what is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThinkingReport {
    /// What was asked; `None`: nothing.
    pub original: Option<Mode>,
    /// Who asked.
    pub origin: Origin,
    /// Whether the client wants to see the thinking; `None`: it did not say.
    pub visible: Option<bool>,
    /// What the upstream is told; `None`: nothing.
    pub processed: Option<Mode>,
}

impl ThinkingReport {
    /// Whether the upstream is told something else than was asked. A level and its budget are the same, and
    /// so are silence and what silence says: no thinking, or as the model likes.
    pub fn mismatch(&self) -> bool {
        match (self.original, self.processed) {
            (None | Some(Mode::Off | Mode::Auto), None) => false,
            (Some(original), Some(processed)) => !original.same_as(processed),
            (original, processed) => original != processed,
        }
    }
}

/// How thinking differs from what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The model or the format takes something else.
    Adjusted,
    /// The upstream was told to think and says that it did not.
    Missing,
    /// The upstream was told not to think and did.
    Unasked,
    /// It thought more than its budget.
    OverBudget,
}

impl Mismatch {
    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adjusted => "adjusted",
            Self::Missing => "missing",
            Self::Unasked => "unasked",
            Self::OverBudget => "over_budget",
        }
    }

    /// How a complete answer differs from what the upstream was told. `thought`: it has a block of thinking.
    /// An upstream that counts no thinking and shows none is no proof, unless its format always shows it.
    pub fn of_answer(told: Option<Mode>, upstream: Protocol, thought: bool, usage: &Usage) -> Option<Self> {
        let counted = usage.reasoning;
        let silent = !thought && (counted == Some(0) || (counted.is_none() && upstream == Protocol::Claude));
        match told? {
            Mode::Off => (thought || counted.is_some_and(|n| n > 0)).then_some(Self::Unasked),
            // It may decide that there is nothing to think about.
            Mode::Auto => None,
            Mode::Budget(most) if counted.is_some_and(|n| n > u64::from(most)) => Some(Self::OverBudget),
            Mode::Level(_) | Mode::Budget(_) => silent.then_some(Self::Missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_conversion_is_no_mismatch_and_a_clamp_is() {
        let high = Some(Mode::Level(Level::High));
        for (original, processed, differs) in [
            (high, Some(Mode::Budget(24576)), false),
            (Some(Mode::Budget(9000)), high, false),
            (high, Some(Mode::Budget(1999)), true),
            (high, Some(Mode::Level(Level::Medium)), true),
            (high, None, true),
            (Some(Mode::Off), None, false),
            (Some(Mode::Off), Some(Mode::Level(Level::Low)), true),
            (Some(Mode::Auto), None, false),
            (None, None, false),
        ] {
            let report = ThinkingReport { original, processed, ..ThinkingReport::default() };
            assert_eq!(report.mismatch(), differs, "{original:?} {processed:?}");
        }
    }

    #[test]
    fn answers_are_held_to_what_their_upstream_was_told() {
        let of = |told, upstream, thought, reasoning| {
            Mismatch::of_answer(Some(told), upstream, thought, &Usage { reasoning, ..Usage::default() })
        };
        let (chat, claude) = (Protocol::OpenaiChat, Protocol::Claude);
        let high = Mode::Level(Level::High);
        assert_eq!(of(high, chat, false, Some(0)), Some(Mismatch::Missing));
        assert_eq!(of(high, chat, false, None), None);
        assert_eq!(of(high, claude, false, None), Some(Mismatch::Missing));
        assert_eq!(of(high, claude, true, None), None);
        assert_eq!(of(Mode::Auto, claude, false, None), None);
        assert_eq!(of(Mode::Off, chat, false, Some(9)), Some(Mismatch::Unasked));
        assert_eq!(of(Mode::Budget(2000), chat, true, Some(2001)), Some(Mismatch::OverBudget));
        assert_eq!(of(Mode::Budget(2000), chat, true, Some(2000)), None);
        assert_eq!(Mismatch::of_answer(None, chat, true, &Usage::default()), None);
    }
}
