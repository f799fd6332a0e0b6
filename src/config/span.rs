//! Lengths of time as the file writes them: `3h`, `1h30m`, `250ms`, or a number of seconds.
//!
//! Enters: text. Leaves: a [`Span`]. May go wrong: another spelling, a negative time, more than a century.

use crate::read::word;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::Duration;

/// A length of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

const UNITS: [(&str, f64); 7] =
    [("h", 3600.0), ("ms", 1e-3), ("m", 60.0), ("s", 1.0), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9)];

/// Longer than anything meant, shorter than anything that overflows.
const CENTURY: f64 = 100.0 * 365.0 * 86_400.0;

impl Span {
    /// That many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Reads `1h30m` or `90`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        if rest.is_empty() {
            return None;
        }
        let mut seconds = 0.0;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, tail) = rest.split_at_checked(end)?;
            let number: f64 = number.parse().ok()?;
            if tail.is_empty() {
                // Seconds, when it is all there is.
                return (end == text.trim().len()).then(|| Self::of(number)).flatten();
            }
            let (unit, scale) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
            seconds += number * scale;
            rest = tail.strip_prefix(unit)?;
        }
        Self::of(seconds)
    }

    fn of(seconds: f64) -> Option<Self> {
        // Rounded to nanoseconds, so that 250ms is 250ms.
        (seconds <= CENTURY).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten().map(Self)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        match (seconds, nanos) {
            (0, 1..) => write!(out, "{}ms", f64::from(nanos) / 1e6),
            (_, 1..) => write!(out, "{}s", self.0.as_secs_f64()),
            (1.., 0) if seconds.is_multiple_of(3600) => write!(out, "{}h", seconds / 3600),
            (1.., 0) if seconds.is_multiple_of(60) => write!(out, "{}m", seconds / 60),
            _ => write!(out, "{seconds}s"),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, |text| {
            Self::parse(text).ok_or_else(|| "expected a length of time such as 90s, 30m or 1h30m".to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        let ms = |text| Span::parse(text).map(|span| span.0.as_millis());
        assert_eq!(ms("3h"), Some(10_800_000));
        assert_eq!(ms("1h30m"), Some(5_400_000));
        assert_eq!(ms("250ms"), Some(250));
        assert_eq!(ms("1.5s"), Some(1500));
        assert_eq!(ms("90"), Some(90_000));
        for bad in ["", "h", "1x", "-1s", "1h30", "1e9h", "999999999h", ".", "1..2s"] {
            assert_eq!(ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn display_reads_back() {
        for text in ["3h", "90s", "30m", "250ms", "0s", "1.5s"] {
            let span = Span::parse(text).unwrap();
            assert_eq!(Span::parse(&span.to_string()), Some(span), "{text} {span}");
        }
    }
}
