//! Questions about usage: which hours, of whom, summed up by what.
//!
//! Enters: a [`Query`] and rows. Leaves: groups, in the order of their names. May go wrong: a name that is no
//! dimension, or a time that cannot be read; the message says which are known.

use super::{Key, Sums};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use wildmatch::WildMatch;

/// What rows may be told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// The hour, in UTC.
    Hour,
    /// The day, in UTC.
    Day,
    /// The client key.
    ClientKey,
    /// The credential.
    Credential,
    /// The provider.
    Provider,
    /// The upstream's model.
    Model,
}

/// Names of the dimensions.
const DIMENSIONS: [(&str, Dimension); 6] = [
    ("hour", Dimension::Hour),
    ("day", Dimension::Day),
    ("client_key", Dimension::ClientKey),
    ("credential", Dimension::Credential),
    ("provider", Dimension::Provider),
    ("model", Dimension::Model),
];

/// Which rows, and how they are put together.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// First hour; `None`: from the beginning.
    from: Option<u32>,
    /// First hour that does not count any more; `None`: to the end.
    to: Option<u32>,
    /// What groups differ by; none: all is one group.
    by: Vec<Dimension>,
    /// Globs that rows have to match.
    only: Vec<(Dimension, WildMatch)>,
}

/// Rows put together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// Values of the dimensions asked for, in their order.
    #[serde(flatten)]
    pub names: BTreeMap<&'static str, String>,
    /// The sums.
    #[serde(flatten)]
    pub sums: Sums,
    /// What it cost.
    #[serde(flatten)]
    pub bill: Bill,
    /// Milliseconds from head to end, on average.
    pub latency_ms_average: u64,
    /// Milliseconds to the first byte, on average; `None`: no answer began.
    pub first_event_ms_average: Option<u64>,
}

/// What sums cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bill {
    /// USD for the tokens that had a price; `None`: none had.
    pub cost_usd: Option<f64>,
    /// Tokens that had none: what they cost is not in the sum.
    pub unpriced_tokens: u64,
}

impl Bill {
    /// The bill of sums.
    pub fn of(sums: &Sums) -> Self {
        Self {
            cost_usd: (sums.priced_tokens > 0).then(|| sums.cost_nano_usd as f64 / 1e9),
            unpriced_tokens: sums.tokens().saturating_sub(sums.priced_tokens),
        }
    }
}

impl Dimension {
    fn name(self) -> &'static str {
        DIMENSIONS.iter().find(|(_, dimension)| *dimension == self).map_or("", |(name, _)| name)
    }

    fn parse(name: &str) -> Result<Self, String> {
        let found = DIMENSIONS.iter().find(|(known, _)| *known == name.trim());
        found.map(|(_, dimension)| *dimension).ok_or_else(|| {
            let known: Vec<_> = DIMENSIONS.iter().map(|(name, _)| *name).collect();
            format!("usage is not told apart by {:?}; known are {}", name.trim(), known.join(", "))
        })
    }

    fn of(self, key: &Key) -> String {
        let time = |hour: u32| Timestamp::from_second(i64::from(hour) * 3600).unwrap_or_default().to_string();
        match self {
            Self::Hour => time(key.hour),
            Self::Day => time(key.hour - key.hour % 24).chars().take(10).collect(),
            Self::ClientKey => key.client_key.to_string(),
            Self::Credential => key.credential.to_string(),
            Self::Provider => key.provider.to_string(),
            Self::Model => key.model.to_string(),
        }
    }
}

impl Query {
    /// Reads the pairs of a query string: `from`, `to` (RFC 3339, a date, or seconds since 1970), `by` (names
    /// of dimensions with commas), and globs by the name of a dimension. Others are not for here.
    pub fn parse<'p>(pairs: impl Iterator<Item = (&'p str, &'p str)>) -> Result<Self, String> {
        let mut query = Self::default();
        for (name, value) in pairs.filter(|(_, value)| !value.is_empty()) {
            match name {
                "from" => query.from = Some(hour(name, value)?),
                "to" => query.to = Some(hour(name, value)?),
                "by" | "group_by" => {
                    query.by = value.split(',').map(Dimension::parse).collect::<Result<_, _>>()?;
                }
                other => {
                    if let Ok(dimension) = Dimension::parse(other) {
                        query.only.push((dimension, WildMatch::new(value)));
                    }
                }
            }
        }
        Ok(query)
    }

    fn takes(&self, key: &Key) -> bool {
        self.from.is_none_or(|from| key.hour >= from)
            && self.to.is_none_or(|to| key.hour < to)
            && self.only.iter().all(|(dimension, glob)| glob.matches(&dimension.of(key)))
    }

    /// Puts rows together.
    pub fn sum<'r>(&self, rows: impl Iterator<Item = (&'r Key, &'r Sums)>) -> Vec<Group> {
        let mut groups: BTreeMap<Vec<String>, Sums> = BTreeMap::new();
        for (key, sums) in rows.filter(|(key, _)| self.takes(key)) {
            groups.entry(self.by.iter().map(|by| by.of(key)).collect()).or_default().add(sums);
        }
        groups.into_iter().map(|(values, sums)| self.group(values, sums)).collect()
    }

    fn group(&self, values: Vec<String>, sums: Sums) -> Group {
        Group {
            names: self.by.iter().map(|by| by.name()).zip(values).collect(),
            sums,
            bill: Bill::of(&sums),
            latency_ms_average: sums.latency_ms.checked_div(sums.requests).unwrap_or(0),
            first_event_ms_average: sums.first_event_ms.checked_div(sums.first_events),
        }
    }
}

/// The hour of a point in time.
fn hour(name: &str, text: &str) -> Result<u32, String> {
    let seconds = text
        .parse::<i64>()
        .ok()
        .or_else(|| text.parse::<Timestamp>().ok().map(Timestamp::as_second))
        .or_else(|| {
            let day = text.parse::<jiff::civil::Date>().ok()?;
            Some(day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
        });
    seconds
        .and_then(|seconds| u32::try_from(seconds / 3600).ok())
        .ok_or_else(|| format!("{name}={text} is no time: write 2026-01-31, 2026-01-31T10:00:00Z or seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn row(hour: u32, key: &str, model: &str, requests: u64) -> (Key, Sums) {
        let text = |text: &str| Arc::from(text);
        let key = Key {
            hour,
            client_key: text(key),
            credential: text("c"),
            provider: text("p"),
            model: text(model),
        };
        (key, Sums { requests, latency_ms: requests * 10, ..Sums::default() })
    }

    fn ask(pairs: &[(&str, &str)]) -> Vec<(String, u64)> {
        let rows = [row(490_000, "a", "m", 1), row(490_001, "b", "m", 2), row(490_030, "a", "n", 4)];
        let groups =
            Query::parse(pairs.iter().copied()).unwrap().sum(rows.iter().map(|(key, sums)| (key, sums)));
        let name = |group: &Group| group.names.values().cloned().collect::<Vec<_>>().join("/");
        groups.iter().map(|group| (name(group), group.sums.requests)).collect()
    }

    #[test]
    fn rows_are_put_together_by_what_was_asked() {
        assert_eq!(ask(&[]), [(String::new(), 7)]);
        assert_eq!(ask(&[("by", "model")]), [("m".into(), 3), ("n".into(), 4)]);
        assert_eq!(
            ask(&[("by", "client_key,model")]),
            [("a/m".into(), 1), ("a/n".into(), 4), ("b/m".into(), 2)]
        );
        assert_eq!(ask(&[("by", "day")]), [("2025-11-24".into(), 3), ("2025-11-25".into(), 4)]);
        assert_eq!(ask(&[("client_key", "a*"), ("page", "9")]), [(String::new(), 5)]);
    }

    #[test]
    fn hours_are_picked_by_any_way_to_write_a_time() {
        let begin = 490_001_i64 * 3600;
        assert_eq!(ask(&[("from", &begin.to_string())]), [(String::new(), 6)]);
        assert_eq!(ask(&[("to", "2025-11-25")]), [(String::new(), 3)]);
        assert_eq!(ask(&[("from", "2025-11-24T17:00:00Z"), ("to", "2025-11-25")]), [(String::new(), 2)]);
        assert!(Query::parse([("from", "soon")].into_iter()).unwrap_err().contains("2026-01-31"));
        assert!(Query::parse([("by", "colour")].into_iter()).unwrap_err().contains("client_key"));
    }
}
