//! How a credential's attempts ended in the last hours: twenty buckets of ten minutes of the clock on the wall.
//!
//! Enters: ends of attempts with their times. Leaves: [`Recent`] buckets, the oldest first. Nothing may go wrong.
//! Memory is a fixed ring of atomic words, so that nobody waits for anybody; a bucket counts up to a million.
//!
//! Source of the shape: `recent_requests` of CLIProxyAPI's account list.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets that are shown.
pub const RECENT_BUCKETS: usize = 20;
/// Length of a bucket in seconds.
pub const RECENT_BUCKET_S: u64 = 600;
/// Bits of a count in a bucket's word.
const BITS: u64 = 20;
const MOST: u64 = (1 << BITS) - 1;

/// What ended within ten minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// Its beginning, in seconds since 1970.
    pub start_s: u64,
    /// Attempts that worked.
    pub succeeded: u64,
    /// Attempts that failed for a reason of the credential or its upstream.
    pub failed: u64,
}

/// The ring. A bucket's word: its number in the upper bits, then successes, then failures.
#[derive(Debug, Default)]
pub(crate) struct Ring([AtomicU64; RECENT_BUCKETS]);

impl Ring {
    /// An attempt ended.
    pub(crate) fn note(&self, failed: bool, wall_s: u64) {
        let number = wall_s / RECENT_BUCKET_S;
        let Some(bucket) = self.0.get((number % RECENT_BUCKETS as u64) as usize) else { return };
        let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let (of, succeeded, broken) = parts(word);
            let (succeeded, broken) = if of == number { (succeeded, broken) } else { (0, 0) };
            let succeeded = (succeeded + u64::from(!failed)).min(MOST);
            let broken = (broken + u64::from(failed)).min(MOST);
            Some(number << (2 * BITS) | succeeded << BITS | broken)
        });
    }

    /// The buckets up to now, those without attempts as well.
    pub(crate) fn buckets(&self, wall_s: u64) -> [Recent; RECENT_BUCKETS] {
        let last = wall_s / RECENT_BUCKET_S;
        std::array::from_fn(|n| {
            let number = last.saturating_sub((RECENT_BUCKETS - 1 - n) as u64);
            let word = self.0.get((number % RECENT_BUCKETS as u64) as usize);
            let (of, succeeded, failed) = word.map_or((0, 0, 0), |word| parts(word.load(Ordering::Relaxed)));
            let (succeeded, failed) = if of == number { (succeeded, failed) } else { (0, 0) };
            Recent { start_s: number * RECENT_BUCKET_S, succeeded, failed }
        })
    }
}

fn parts(word: u64) -> (u64, u64, u64) {
    (word >> (2 * BITS), (word >> BITS) & MOST, word & MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_795_262_400;

    #[test]
    fn buckets_are_ten_minutes_of_the_clock_and_old_ones_are_forgotten() {
        let ring = Ring::default();
        for (failed, at) in [(false, 0), (false, 599), (true, 600), (false, 11_999)] {
            ring.note(failed, NOON + at);
        }
        let counts = |at: u64| ring.buckets(NOON + at).map(|b| (b.succeeded, b.failed));
        let now = ring.buckets(NOON + 11_999);
        assert_eq!((now[0].start_s, now[19].start_s), (NOON, NOON + 11_400));
        assert_eq!((counts(11_999)[0], counts(11_999)[1], counts(11_999)[19]), ((2, 0), (0, 1), (1, 0)));
        assert_eq!(counts(12_000)[0], (0, 1), "the first one left");
        assert_eq!(counts(12_000)[19], (0, 0), "and its place is another bucket's now");
        assert_eq!(counts(400_000), [(0, 0); RECENT_BUCKETS]);
    }
}
