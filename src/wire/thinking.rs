//! How much a model thinks: levels, budgets and model-name suffixes, against what the model can do.
//!
//! Enters: what the client asked ([`Thinking`]) and what the model takes ([`Support`]). Leaves: a [`Mode`]
//! that the model takes, or nothing. May go wrong: nothing is refused; what is out of range moves to the
//! nearest legal value and is recorded as [`LossKind::Clamped`].
//!
//! | level | minimal | low | medium | high | xhigh | max |
//! |---|---|---|---|---|---|---|
//! | tokens | 512 | 1024 | 8192 | 24576 | 32768 | 128000 |

use crate::Protocol;
use crate::ir::{LossKind, Losses};

mod report;

pub use report::{Mismatch, Origin, ThinkingReport};

/// What a client asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thinking {
    /// How much; `None`: the client did not say.
    pub mode: Option<Mode>,
    /// Whether it wants to see the thinking; `None`: the client did not say.
    pub visible: Option<bool>,
    /// Responses `reasoning.summary`, as far as it is a known word.
    pub summary: Option<Summary>,
}

/// Style of a reasoning summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summary {
    /// The vendor decides.
    Auto,
    /// Short.
    Concise,
    /// Long.
    Detailed,
}

impl Summary {
    /// The word on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Concise => "concise",
            Self::Detailed => "detailed",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Auto, Self::Concise, Self::Detailed].into_iter().find(|s| s.name() == word)
    }
}

/// How much to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Not at all.
    Off,
    /// The model decides.
    Auto,
    /// In words.
    Level(Level),
    /// In tokens, at least 1.
    Budget(u32),
}

/// Effort in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// 512 tokens.
    Minimal,
    /// 1024 tokens.
    Low,
    /// 8192 tokens.
    Medium,
    /// 24576 tokens.
    High,
    /// 32768 tokens.
    Xhigh,
    /// 128000 tokens.
    Max,
}

impl Level {
    /// All levels, rising.
    pub const ALL: [Self; 6] = [Self::Minimal, Self::Low, Self::Medium, Self::High, Self::Xhigh, Self::Max];

    /// The word on the wire (Gemini writes it in upper case).
    pub fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// Reads the word, in any case.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(word))
    }

    /// Its budget in tokens.
    pub fn budget(self) -> u32 {
        match self {
            Self::Minimal => 512,
            Self::Low => 1024,
            Self::Medium => 8192,
            Self::High => 24576,
            Self::Xhigh => 32768,
            Self::Max => 128_000,
        }
    }

    /// The level of a budget.
    pub fn of_budget(tokens: u32) -> Self {
        match tokens {
            0..=512 => Self::Minimal,
            513..=1024 => Self::Low,
            1025..=8192 => Self::Medium,
            8193..=24576 => Self::High,
            _ => Self::Xhigh,
        }
    }
}

impl Mode {
    /// Reads `none`, `auto`, `-1`, a level, or a number of tokens.
    pub fn parse(word: &str) -> Option<Self> {
        let word = word.trim();
        if word.eq_ignore_ascii_case("none") || word.eq_ignore_ascii_case("off") {
            return Some(Self::Off);
        }
        if word.eq_ignore_ascii_case("auto") {
            return Some(Self::Auto);
        }
        Level::parse(word).map(Self::Level).or_else(|| word.parse().ok().map(Self::of_tokens))
    }

    /// Whether both ask for the same: a level is its budget, and a budget is the level that it falls into.
    pub fn same_as(self, other: Self) -> bool {
        match (self, other) {
            (Self::Level(level), Self::Budget(tokens)) | (Self::Budget(tokens), Self::Level(level)) => {
                level.budget() == tokens || Level::of_budget(tokens) == level
            }
            _ => self == other,
        }
    }

    /// `none`, `auto`, `level` or `budget`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "none",
            Self::Auto => "auto",
            Self::Level(_) => "level",
            Self::Budget(_) => "budget",
        }
    }

    /// The level, where it is one.
    pub fn level(self) -> Option<Level> {
        if let Self::Level(level) = self { Some(level) } else { None }
    }

    /// The budget in tokens, where it is one.
    pub fn budget(self) -> Option<u32> {
        if let Self::Budget(tokens) = self { Some(tokens) } else { None }
    }

    /// A number as Gemini and the suffix mean it: 0 is off, negative is automatic.
    pub fn of_tokens(tokens: i64) -> Self {
        match tokens {
            0 => Self::Off,
            1.. => Self::Budget(u32::try_from(tokens).unwrap_or(u32::MAX)),
            _ => Self::Auto,
        }
    }
}

/// Splits `name(value)` into the name and what the value asks for. The suffix is stripped even when its
/// value means nothing; a name without a suffix comes back whole.
pub fn split_suffix(model: &str) -> (&str, Option<Mode>) {
    let Some(open) = model.rfind('(').filter(|_| model.ends_with(')')) else { return (model, None) };
    let (name, rest) = model.split_at(open);
    let value = rest.get(1..rest.len() - 1).unwrap_or_default();
    if name.is_empty() { (model, None) } else { (name, Mode::parse(value)) }
}

/// What a model takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Support {
    /// Nobody knows: the operator's own model. Passed on in the target's spelling.
    #[default]
    Unknown,
    /// It does not think: every thinking field is stripped.
    Never,
    /// It thinks within these bounds.
    Bounded(Bounds),
}

/// Bounds of a model that thinks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Least and most tokens, where it takes a budget.
    pub budget: Option<(u32, u32)>,
    /// It can be switched off.
    pub off: bool,
    /// It can decide itself.
    pub auto: bool,
    /// The words it takes, rising; empty: it takes none.
    pub levels: Vec<Level>,
}

impl Bounds {
    fn clamp_budget(&self, tokens: u32) -> Option<u32> {
        self.budget.map(|(min, max)| tokens.clamp(min, max))
    }

    /// The listed level that is nearest; the lower one of two. `None`: it takes none.
    pub fn nearest(&self, wanted: Level) -> Option<Level> {
        let at = |level: Level| Level::ALL.iter().position(|l| *l == level).unwrap_or(0) as i32;
        self.levels.iter().copied().min_by_key(|level| ((at(*level) - at(wanted)).abs(), at(*level)))
    }

    fn lowest(&self) -> Option<Mode> {
        self.levels.first().copied().map(Mode::Level).or(self.budget.map(|(min, _)| Mode::Budget(min.max(1))))
    }
}

/// What to send to a model of `target`'s format for what the client asked. `None`: nothing was asked, or the
/// model does not think. [`Mode::Auto`] for an OpenAI format is said by silence.
pub fn plan(asked: Option<Mode>, support: &Support, target: Protocol, losses: &mut Losses) -> Option<Mode> {
    let asked = asked?;
    let planned = match support {
        Support::Never => None,
        Support::Unknown => Some(native(asked, target)),
        Support::Bounded(bounds) => bounded(asked, bounds, target),
    };
    if planned.map_or(asked != Mode::Off, |planned| !planned.same_as(asked)) {
        losses.member(LossKind::Clamped, "thinking");
    }
    planned
}

/// What to change in a body that is in the target's own format: `None` leaves the client's bytes, which the
/// model takes. A model of which nothing is known takes what its own client says, but not a suffix.
pub fn plan_own(
    asked: Option<Mode>,
    suffix: Option<Mode>,
    support: &Support,
    target: Protocol,
    losses: &mut Losses,
) -> Option<Mode> {
    if suffix.is_some() {
        return plan(suffix, support, target, losses);
    }
    let planned = match support {
        Support::Unknown => return None,
        _ => plan(asked, support, target, losses),
    };
    planned.filter(|planned| Some(*planned) != asked)
}

/// The target's own spelling for a model of which nothing is known.
fn native(asked: Mode, target: Protocol) -> Mode {
    match (target, asked) {
        (Protocol::OpenaiChat | Protocol::OpenaiResponses, Mode::Budget(tokens)) => {
            Mode::Level(Level::of_budget(tokens))
        }
        (Protocol::Claude, Mode::Level(level)) => Mode::Budget(level.budget().max(CLAUDE_MIN_BUDGET)),
        (Protocol::Claude, Mode::Auto) => Mode::Budget(Level::Medium.budget()),
        (Protocol::Gemini, Mode::Level(level)) => Mode::Budget(level.budget()),
        _ => asked,
    }
}

fn bounded(asked: Mode, bounds: &Bounds, target: Protocol) -> Option<Mode> {
    // Claude thinks only when it is told to, and its models with an effort can always decide themselves.
    let off = bounds.off || (target == Protocol::Claude && bounds.budget.is_some());
    let auto = bounds.auto || (target == Protocol::Claude && !bounds.levels.is_empty());
    let level = |level: Level| {
        bounds.nearest(level).map(Mode::Level).or(bounds.clamp_budget(level.budget()).map(Mode::Budget))
    };
    let fitted = match asked {
        Mode::Off if off => return Some(Mode::Off),
        Mode::Off => bounds.lowest(),
        Mode::Auto if auto => return Some(Mode::Auto),
        Mode::Auto => level(Level::Medium),
        Mode::Level(asked) => level(asked),
        Mode::Budget(tokens) => {
            bounds.clamp_budget(tokens).map(Mode::Budget).or_else(|| level(Level::of_budget(tokens)))
        }
    };
    // It takes neither words nor numbers: all that can be said is that it may think.
    fitted.or_else(|| (auto && asked != Mode::Off).then_some(Mode::Auto))
}

/// Least budget that Claude takes.
pub const CLAUDE_MIN_BUDGET: u32 = 1024;

/// Makes `1024 ≤ budget < max_tokens` true. A budget that does not fit below the client's limit is cut to
/// it; when nothing is left of it the model answers without thinking.
pub fn fit_claude_budget(budget: u32, max_tokens: u64) -> Option<u32> {
    let below = u32::try_from(max_tokens.saturating_sub(1)).unwrap_or(u32::MAX);
    let fitted = budget.max(CLAUDE_MIN_BUDGET).min(below);
    (fitted >= CLAUDE_MIN_BUDGET).then_some(fitted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(asked: Mode, bounds: &Bounds, target: Protocol) -> Option<Mode> {
        plan(Some(asked), &Support::Bounded(bounds.clone()), target, &mut Losses::default())
    }

    #[test]
    fn suffixes() {
        assert_eq!(split_suffix("m(high)"), ("m", Some(Mode::Level(Level::High))));
        assert_eq!(split_suffix("m(8192)"), ("m", Some(Mode::Budget(8192))));
        assert_eq!(split_suffix("m(0)"), ("m", Some(Mode::Off)));
        assert_eq!(split_suffix("m(-1)"), ("m", Some(Mode::Auto)));
        assert_eq!(split_suffix("m(what)"), ("m", None));
        assert_eq!(split_suffix("m"), ("m", None));
        assert_eq!(split_suffix("(x)"), ("(x)", None));
        assert_eq!(split_suffix("a(b)(low)"), ("a(b)", Some(Mode::Level(Level::Low))));
    }

    #[test]
    fn levels_and_budgets_find_the_nearest_legal_value() {
        let gemini_pro = Bounds { budget: Some((128, 32768)), auto: true, ..Bounds::default() };
        assert_eq!(planned(Mode::Off, &gemini_pro, Protocol::Gemini), Some(Mode::Budget(128)));
        assert_eq!(
            planned(Mode::Level(Level::Max), &gemini_pro, Protocol::Gemini),
            Some(Mode::Budget(32768))
        );
        let codex = Bounds { levels: vec![Level::Low, Level::Medium, Level::High], ..Bounds::default() };
        assert_eq!(
            planned(Mode::Budget(100_000), &codex, Protocol::OpenaiResponses),
            Some(Mode::Level(Level::High))
        );
        assert_eq!(planned(Mode::Off, &codex, Protocol::OpenaiResponses), Some(Mode::Level(Level::Low)));
        let two = Bounds { levels: vec![Level::Low, Level::High], ..Bounds::default() };
        assert_eq!(
            planned(Mode::Level(Level::Medium), &two, Protocol::Gemini),
            Some(Mode::Level(Level::Low))
        );
    }

    #[test]
    fn claude_budget_stays_between_1024_and_the_limit() {
        assert_eq!(fit_claude_budget(8192, 64000), Some(8192));
        assert_eq!(fit_claude_budget(8192, 8192), Some(8191));
        assert_eq!(fit_claude_budget(8192, 800), None);
        assert_eq!(fit_claude_budget(10, 64000), Some(1024));
    }
}
