//! Who used how much of what, by the hour.
//!
//! Enters: finished requests. Leaves: rows, to be kept and summed up. Nothing may go wrong: memory is bounded
//! by the rows of the current hours, and what is beyond the bound is counted under one name instead of
//! many. Rows hold sums since the beginning of their hour, so that a row that is written again replaces
//! the one before.

pub mod price;
pub mod query;

use parking_lot::Mutex;
use price::Cost;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use wire::ir::Usage;

/// Most different rows of an hour in memory.
const MOST: usize = 20_000;
/// What stands for names beyond that.
const OTHER: &str = "(other)";
/// Hours that stay in memory when they are over: requests that began in them may still end.
const KEPT_HOURS: u32 = 1;

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Hours since 1970.
    pub hour: u32,
    /// Name of the client key; empty where none is needed.
    pub client_key: Arc<str>,
    /// Label of the credential; empty where none was chosen.
    pub credential: Arc<str>,
    /// Provider.
    pub provider: Arc<str>,
    /// The upstream's model.
    pub model: Arc<str>,
}

/// Sums over the requests of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sums {
    /// Requests.
    pub requests: u64,
    /// Of these, answered with an error or broken off by the upstream.
    pub errors: u64,
    /// Tokens of the requests, cached ones included.
    pub input_tokens: u64,
    /// Of these, read from a cache.
    pub cached_tokens: u64,
    /// Tokens written to a cache.
    pub cache_write_tokens: u64,
    /// Tokens of the answers, reasoning included.
    pub output_tokens: u64,
    /// Of these, reasoning.
    pub reasoning_tokens: u64,
    /// Good answers that did not say how many tokens they took.
    pub usage_missing: u64,
    /// Milliseconds from head to end, of all requests together.
    pub latency_ms: u64,
    /// Milliseconds to the first byte of the answer, of those requests that got one.
    pub first_event_ms: u64,
    /// How many requests that were.
    pub first_events: u64,
    /// What the tokens cost that had a price when they were used, in billionths of a USD.
    pub cost_nano_usd: u64,
    /// How many tokens that were. What was written before there were prices has none.
    pub priced_tokens: u64,
}

impl Sums {
    /// Adds up.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.requests, other.requests),
            (&mut self.errors, other.errors),
            (&mut self.input_tokens, other.input_tokens),
            (&mut self.cached_tokens, other.cached_tokens),
            (&mut self.cache_write_tokens, other.cache_write_tokens),
            (&mut self.output_tokens, other.output_tokens),
            (&mut self.reasoning_tokens, other.reasoning_tokens),
            (&mut self.usage_missing, other.usage_missing),
            (&mut self.latency_ms, other.latency_ms),
            (&mut self.first_event_ms, other.first_event_ms),
            (&mut self.first_events, other.first_events),
            (&mut self.cost_nano_usd, other.cost_nano_usd),
            (&mut self.priced_tokens, other.priced_tokens),
        ];
        for (sum, more) in pairs {
            *sum = sum.saturating_add(more);
        }
    }

    /// Tokens of requests and answers.
    pub fn tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    /// The same with a cost; `None`: there is no price for it.
    #[must_use]
    pub fn with(self, cost: Option<Cost>) -> Self {
        let (cost_nano_usd, priced_tokens) = cost.map_or((0, 0), |cost| (cost.nano_usd, self.tokens()));
        Self { cost_nano_usd, priced_tokens, ..self }
    }

    /// The sums of one request. `first_event_ms` is `None` where no answer began.
    pub fn of(status: u16, usage: &Usage, latency_ms: u64, first_event_ms: Option<u64>) -> Self {
        let good = status < 400;
        Self {
            requests: 1,
            errors: u64::from(!good && status != 499),
            input_tokens: usage.prompt(),
            cached_tokens: usage.cache_read.unwrap_or(0),
            cache_write_tokens: usage.cache_write.unwrap_or(0),
            output_tokens: usage.output.unwrap_or(0),
            reasoning_tokens: usage.reasoning.unwrap_or(0),
            usage_missing: u64::from(good && usage.is_unknown()),
            latency_ms,
            first_event_ms: first_event_ms.unwrap_or(0),
            first_events: u64::from(first_event_ms.is_some()),
            cost_nano_usd: 0,
            priced_tokens: 0,
        }
    }
}

/// What a request is taken down under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct About<'a> {
    /// Hours since 1970.
    pub hour: u32,
    /// Name of the client key; empty where none is needed.
    pub client_key: &'a str,
    /// Label of the credential; empty where none was chosen.
    pub credential: &'a str,
    /// Provider.
    pub provider: &'a str,
    /// The upstream's model.
    pub model: &'a str,
}

impl About<'_> {
    /// Under which number a row stands; one that another row has taken is passed over.
    fn place(&self, rows: &HashMap<u64, Row>) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        let mut place = hasher.finish();
        while rows.get(&place).is_some_and(|row| row.key.about() != *self) {
            place = place.wrapping_add(1);
        }
        place
    }

    /// The same, to be kept.
    pub fn key(&self) -> Key {
        Key {
            hour: self.hour,
            client_key: Arc::from(self.client_key),
            credential: Arc::from(self.credential),
            provider: Arc::from(self.provider),
            model: Arc::from(self.model),
        }
    }
}

impl Key {
    fn about(&self) -> About<'_> {
        About {
            hour: self.hour,
            client_key: &self.client_key,
            credential: &self.credential,
            provider: &self.provider,
            model: &self.model,
        }
    }
}

#[derive(Debug)]
struct Row {
    key: Key,
    sums: Sums,
    /// Not kept yet as it is.
    dirty: bool,
}

/// The rows of the current hours.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By a digest of what they are about, so that a request that finds its row allocates nothing.
    rows: Mutex<HashMap<u64, Row>>,
}

impl Ledger {
    /// Takes a finished request down.
    pub fn add(&self, about: &About<'_>, sums: &Sums) {
        let mut rows = self.rows.lock();
        let mut place = about.place(&rows);
        let mut about = *about;
        if rows.len() >= MOST && !rows.contains_key(&place) {
            about = About {
                hour: about.hour,
                client_key: OTHER,
                credential: OTHER,
                provider: OTHER,
                model: OTHER,
            };
            place = about.place(&rows);
        }
        let row = rows.entry(place).or_insert_with(|| Row {
            key: about.key(),
            sums: Sums::default(),
            dirty: false,
        });
        row.sums.add(sums);
        row.dirty = true;
    }

    /// Goes on with a row that was kept before, by this process or one before it.
    pub fn restore(&self, key: Key, sums: &Sums) {
        let mut rows = self.rows.lock();
        let place = key.about().place(&rows);
        rows.entry(place).or_insert(Row { key, sums: Sums::default(), dirty: false }).sums.add(sums);
    }

    /// The rows that changed since they were taken last. Forgets hours that are over.
    pub fn take_changed(&self, hour: u32) -> Vec<(Key, Sums)> {
        let mut rows = self.rows.lock();
        let changed = rows
            .values_mut()
            .filter_map(|row| std::mem::take(&mut row.dirty).then(|| (row.key.clone(), row.sums)))
            .collect();
        rows.retain(|_, row| row.key.hour.saturating_add(KEPT_HOURS) >= hour);
        changed
    }

    /// What was taken could not be kept: it is taken again.
    pub fn give_back(&self, changed: &[(Key, Sums)]) {
        let mut rows = self.rows.lock();
        for (key, sums) in changed {
            let place = key.about().place(&rows);
            // A row that was forgotten meanwhile comes back as it was.
            rows.entry(place).or_insert_with(|| Row { key: key.clone(), sums: *sums, dirty: true }).dirty =
                true;
        }
    }

    /// The rows in memory.
    pub fn rows(&self) -> Vec<(Key, Sums)> {
        self.rows.lock().values().map(|row| (row.key.clone(), row.sums)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(hour: u32, model: &str) -> About<'_> {
        About { hour, client_key: "k", credential: "c", provider: "p", model }
    }

    fn one(input: u64) -> Sums {
        Sums::of(200, &Usage { input: Some(input), output: Some(2), ..Usage::default() }, 10, Some(5))
    }

    #[test]
    fn what_is_taken_twice_is_the_sum_since_the_hour_began() {
        let ledger = Ledger::default();
        ledger.add(&about(1, "m"), &one(3));
        let first = ledger.take_changed(1);
        assert_eq!((first.len(), first[0].1.input_tokens, first[0].1.requests), (1, 3, 1));
        assert!(ledger.take_changed(1).is_empty());
        ledger.add(&about(1, "m"), &one(4));
        assert_eq!(ledger.take_changed(1)[0].1.input_tokens, 7);
        let next = Ledger::default();
        next.restore(about(1, "m").key(), &Sums { requests: 2, input_tokens: 7, ..Sums::default() });
        assert!(next.take_changed(1).is_empty(), "nothing new to keep");
        next.add(&about(1, "m"), &one(1));
        assert_eq!(next.take_changed(1)[0].1.input_tokens, 8);
    }

    #[test]
    fn hours_that_are_over_leave_the_memory_but_not_before_they_are_kept() {
        let ledger = Ledger::default();
        ledger.add(&about(1, "m"), &one(3));
        let taken = ledger.take_changed(5);
        assert_eq!(taken.len(), 1);
        assert!(ledger.rows().is_empty());
        ledger.give_back(&taken);
        assert_eq!(ledger.take_changed(5), taken);
    }

    #[test]
    fn memory_is_bounded_and_no_request_is_lost() {
        let ledger = Ledger::default();
        for n in 0..MOST as u64 + 500 {
            ledger.add(&about(1, &n.to_string()), &one(1));
        }
        let rows = ledger.rows();
        assert!(rows.len() <= MOST + 1);
        assert_eq!(rows.iter().map(|(_, sums)| sums.requests).sum::<u64>(), MOST as u64 + 500);
    }

    #[test]
    fn counts_that_nobody_told_are_missing_and_not_zero() {
        let silent = Sums::of(200, &Usage::default(), 1, None);
        assert_eq!((silent.usage_missing, silent.errors, silent.first_events), (1, 0, 0));
        let failed = Sums::of(503, &Usage::default(), 1, None);
        assert_eq!((failed.usage_missing, failed.errors), (0, 1));
        assert_eq!(Sums::of(499, &Usage::default(), 1, None).errors, 0, "the client left");
    }
}
