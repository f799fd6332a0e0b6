//! How busy and how quick a credential is: what the strategy `least-loaded` compares.
//!
//! Enters: times to the first byte of answers, requests under way. Leaves: [`Load`], of which the lighter is
//! told. Nothing may go wrong.
//!
//! The average is one atomic word, so that a draw under the lock of a queue takes no lock of its own. A newer
//! time counts for more the longer the silence before it, and after [`FORGET_MS`] of silence nothing is known
//! any more: a credential that was slow once is not avoided for ever. Who is unknown is taken for twice as
//! quick as the other, so that it is tried soon without drawing all requests to itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// An average without a new time for so long is forgotten.
const FORGET_MS: u64 = 300_000;
/// After a silence of this length a new time counts about as much as all before it.
const HALF_MS: u64 = 10_000;
/// Share of a new time that follows the one before at once: an eighth.
const SHARE: u64 = 8;
/// Times are kept in steps of 16 ms, so that 32 bits last for two years.
const STEP_MS: u64 = 16;

/// A moving average of times to the first byte. Upper half: the average in microseconds, at least 1; 0:
/// unknown. Lower half: when it was last changed, in steps.
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU64);

impl Latency {
    /// An answer began `took_ms` after its request.
    pub(crate) fn note(&self, took_ms: u64, now_ms: u64) {
        let new = took_ms.saturating_mul(1000).clamp(1, u64::from(u32::MAX));
        let step = (now_ms / STEP_MS) & u64::from(u32::MAX);
        let changed = |word: u64| {
            let average = match known(word, now_ms) {
                None => new,
                Some((old, silent_ms)) => {
                    let (part, whole) = (silent_ms + HALF_MS / SHARE, silent_ms + HALF_MS);
                    (old * (whole - part) + new * part) / whole
                }
            };
            Some(average.max(1) << 32 | step)
        };
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
    }

    /// The average in microseconds; `None`: unknown.
    pub(crate) fn micros(&self, now_ms: u64) -> Option<u64> {
        known(self.0.load(Ordering::Relaxed), now_ms).map(|(average, _)| average)
    }
}

/// The average of a word and for how long nothing came, while it is not forgotten.
fn known(word: u64, now_ms: u64) -> Option<(u64, u64)> {
    let (average, step) = (word >> 32, word & u64::from(u32::MAX));
    let silent_ms = (now_ms / STEP_MS).saturating_sub(step).saturating_mul(STEP_MS);
    (average > 0 && silent_ms <= FORGET_MS).then_some((average, silent_ms))
}

/// What a credential would be under one more request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// Requests under way.
    pub(crate) in_flight: u32,
    /// Average time to the first byte in microseconds, where it is known.
    pub(crate) micros: Option<u64>,
}

impl Load {
    /// Requests under way and one more, times the average. Lower is better.
    pub(crate) fn score(self) -> Option<u64> {
        Some(self.requests().saturating_mul(self.micros?))
    }

    fn requests(self) -> u64 {
        u64::from(self.in_flight) + 1
    }

    /// Whether it is the better choice than `other`.
    pub(crate) fn is_lighter(self, other: Self) -> bool {
        let (mine, its) = match (self.micros, other.micros) {
            (None, None) => (1, 1),
            (Some(mine), Some(its)) => (mine, its),
            (None, Some(its)) => (its / 2, its),
            (Some(mine), None) => (mine, mine / 2),
        };
        self.requests().saturating_mul(mine) < other.requests().saturating_mul(its)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn load(in_flight: u32, millis: Option<u64>) -> Load {
        Load { in_flight, micros: millis.map(|millis| millis * 1000) }
    }

    #[test]
    fn the_average_follows_and_is_forgotten() {
        let latency = Latency::default();
        assert_eq!(latency.micros(0), None);
        latency.note(800, 1000);
        assert_eq!(latency.micros(1000), Some(800_000));
        latency.note(0, 1000);
        assert_eq!(latency.micros(1000), Some(700_000), "one time in a row of many is an eighth");
        // After a silence the new time counts for most of it.
        latency.note(100, 91_000);
        let after = latency.micros(91_000).unwrap();
        assert!((100_000..200_000).contains(&after), "{after}");
        assert!(latency.micros(91_000 + FORGET_MS - STEP_MS).is_some());
        assert_eq!(latency.micros(91_000 + FORGET_MS + STEP_MS), None);
        latency.note(5, 91_000 + 2 * FORGET_MS);
        assert_eq!(latency.micros(91_000 + 2 * FORGET_MS), Some(5000));
    }

    #[test]
    fn requests_and_times_count_together_and_the_unknown_are_tried() {
        assert!(load(0, Some(100)).is_lighter(load(0, Some(200))));
        assert!(load(0, Some(200)).is_lighter(load(2, Some(100))), "a busy quick one is slow");
        assert!(!load(1, Some(100)).is_lighter(load(0, Some(200))), "equals stay as they were drawn");
        assert!(load(0, None).is_lighter(load(0, Some(10))));
        assert!(load(0, Some(10)).is_lighter(load(2, None)), "but not with all requests");
        assert!(load(1, None).is_lighter(load(2, None)));
        assert_eq!((load(2, Some(7)).score(), load(2, None).score()), (Some(21_000), None));
    }

    proptest! {
        #[test]
        fn an_average_lies_between_its_times(times in prop::collection::vec((0u64..100_000, 0u64..400_000), 1..30)) {
            let latency = Latency::default();
            let (mut low, mut high, mut now) = (u64::MAX, 0, 0);
            for (took, later) in times {
                now += later;
                latency.note(took, now);
                (low, high) = (low.min(took * 1000), high.max(took * 1000));
                let average = latency.micros(now).unwrap();
                prop_assert!(average + 1 >= low && average <= high.max(1), "{low} {average} {high}");
            }
        }
    }
}
