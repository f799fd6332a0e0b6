//! How many of a model's attempts failed in the last ten minutes.
//!
//! Enters: ends of attempts with their times. Leaves: [`ErrorRatio`]. Nothing may go wrong. Memory is a fixed
//! ring of buckets, each one atomic word, so that nobody waits for anybody; a bucket counts up to a million.
//!
//! What the client is to blame for and clients that left are no attempts here: they say nothing about the
//! model.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Buckets of the window.
const BUCKETS: u64 = 20;
/// Length of a bucket; all together are ten minutes.
const BUCKET_MS: u64 = 30_000;
/// With fewer attempts a ratio says nothing.
const LEAST_ATTEMPTS: u64 = 20;
/// More than so many per cent are worth a warning.
const WARN_PERCENT: u64 = 2;
/// With more than so many the fallback serves.
const CRITICAL_PERCENT: u64 = 5;
/// One request in so many still tries a model whose fallback serves, so that it is seen to recover.
const TRY_EVERY: u64 = 20;
/// Bits of a count in a bucket's word.
const BITS: u64 = 20;
const MOST: u64 = (1 << BITS) - 1;

/// What is known of a model's attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ErrorRatio {
    /// Attempts that ended in the window of ten minutes.
    pub attempts: u64,
    /// Those that failed for a reason of a credential or an upstream.
    pub errors: u64,
    /// What follows.
    pub level: RatioLevel,
}

/// What follows from a ratio.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RatioLevel {
    /// Nothing: few errors, or too few attempts to tell.
    #[default]
    Ok,
    /// More than 2 %.
    Warn,
    /// More than 5 %: where the model has a fallback, that serves.
    Critical,
}

impl ErrorRatio {
    fn new(attempts: u64, errors: u64) -> Self {
        let above = |percent: u64| attempts >= LEAST_ATTEMPTS && errors * 100 > attempts * percent;
        let level = if above(CRITICAL_PERCENT) {
            RatioLevel::Critical
        } else if above(WARN_PERCENT) {
            RatioLevel::Warn
        } else {
            RatioLevel::Ok
        };
        Self { attempts, errors, level }
    }

    /// Errors per attempt, from 0 to 1.
    pub fn ratio(&self) -> f64 {
        if self.attempts == 0 { 0.0 } else { self.errors as f64 / self.attempts as f64 }
    }
}

/// The ring. A bucket's word: its number in the upper bits, then attempts, then errors.
#[derive(Debug, Default)]
pub(crate) struct Window {
    buckets: [AtomicU64; BUCKETS as usize],
    /// Requests that asked while the fallback served.
    turned: AtomicU64,
}

impl Window {
    /// An attempt ended.
    pub(crate) fn note(&self, failed: bool, now_ms: u64) {
        let number = number(now_ms);
        let Some(bucket) = self.buckets.get((number % BUCKETS) as usize) else { return };
        let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let (of, attempts, errors) = parts(word);
            let (attempts, errors) = if of == number { (attempts, errors) } else { (0, 0) };
            let attempts = (attempts + 1).min(MOST);
            let errors = (errors + u64::from(failed)).min(MOST);
            Some(number << (2 * BITS) | attempts << BITS | errors)
        });
    }

    /// The ratio of the window that ends now.
    pub(crate) fn ratio(&self, now_ms: u64) -> ErrorRatio {
        let number = number(now_ms);
        let fresh = |of: u64| of <= number && number - of < BUCKETS;
        let words = self.buckets.iter().map(|bucket| parts(bucket.load(Ordering::Relaxed)));
        let (attempts, errors) = words
            .filter(|(of, ..)| fresh(*of))
            .fold((0, 0), |(attempts, errors), (_, a, e)| (attempts + a, errors + e));
        ErrorRatio::new(attempts, errors)
    }

    /// Whether this request is one of the few that still try a model whose fallback serves.
    pub(crate) fn tries(&self) -> bool {
        self.turned.fetch_add(1, Ordering::Relaxed) % TRY_EVERY == TRY_EVERY - 1
    }
}

/// Numbers begin with 1, so that an empty word is no bucket of the first half minute.
fn number(now_ms: u64) -> u64 {
    (now_ms / BUCKET_MS + 1) & (u64::MAX >> (2 * BITS))
}

fn parts(word: u64) -> (u64, u64, u64) {
    (word >> (2 * BITS), word >> BITS & MOST, word & MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(attempts: u64, errors: u64, now_ms: u64) -> Window {
        let window = Window::default();
        (0..attempts).for_each(|n| window.note(n < errors, now_ms));
        window
    }

    #[test]
    fn row_80_more_than_two_per_cent_warn_and_more_than_five_are_critical() {
        for (attempts, errors, level) in [
            (0, 0, RatioLevel::Ok),
            (19, 19, RatioLevel::Ok),
            (20, 1, RatioLevel::Warn),
            (20, 2, RatioLevel::Critical),
            (100, 2, RatioLevel::Ok),
            (100, 3, RatioLevel::Warn),
            (100, 5, RatioLevel::Warn),
            (100, 6, RatioLevel::Critical),
        ] {
            let ratio = filled(attempts, errors, 0).ratio(0);
            assert_eq!(ratio, ErrorRatio { attempts, errors, level });
        }
        assert!((filled(100, 6, 0).ratio(0).ratio() - 0.06).abs() < 1e-9);
        assert!(ErrorRatio::default().ratio().abs() < 1e-9);
    }

    #[test]
    fn what_is_older_than_ten_minutes_is_forgotten() {
        let window = filled(50, 50, 10_000);
        assert_eq!(window.ratio(10_000 + 570_000).attempts, 50);
        assert_eq!(window.ratio(630_000).attempts, 0);
        // The bucket of the same place begins anew.
        window.note(false, 610_000);
        assert_eq!(window.ratio(610_000), ErrorRatio { attempts: 1, errors: 0, level: RatioLevel::Ok });
    }

    #[test]
    fn counts_stop_before_they_spill_into_each_other() {
        let window = Window::default();
        let full = 1 << (2 * BITS) | MOST << BITS | MOST;
        window.buckets[1].store(full, Ordering::Relaxed);
        window.note(true, 0);
        assert_eq!(window.buckets[1].load(Ordering::Relaxed), full);
        assert_eq!(window.ratio(0).attempts, MOST);
    }

    #[test]
    fn one_in_twenty_tries() {
        let window = Window::default();
        assert_eq!((0..100).filter(|_| window.tries()).count(), 5);
    }
}
