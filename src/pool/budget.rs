//! How much may be used at a time: requests at once, requests and tokens in a minute. The same counting for
//! credentials and for the keys of clients.
//!
//! Enters: limits, the time, what an answer cost. Leaves: permission, or when there is room again
//! ([`Refusal`]). Nothing may go wrong. Time is milliseconds of a clock that only moves forward.
//!
//! The minute slides: in no 60 seconds more requests begin than the limit says. Requests of one second are
//! remembered together and forgotten a minute after the last of them, so that a window costs at most 61 small
//! entries, whatever the limit. Tokens are known when an answer is over: they are charged then, and requests
//! are refused from the moment at which the limit is reached.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::Serialize;

/// The length of a window.
const WINDOW_MS: u64 = 60_000;
/// What is remembered together.
const GRAIN_MS: u64 = 1000;

/// What may be used; `None` is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Limits {
    /// Requests at once.
    pub concurrency: Option<u32>,
    /// Requests in any 60 seconds.
    pub rpm: Option<u32>,
    /// Tokens in any 60 seconds.
    pub tpm: Option<u64>,
}

impl Limits {
    /// From the numbers of a configuration file, where 0 is without limit.
    pub fn of(concurrency: u32, rpm: u32, tpm: u64) -> Self {
        let some = |limit: u32| (limit > 0).then_some(limit);
        Self { concurrency: some(concurrency), rpm: some(rpm), tpm: (tpm > 0).then_some(tpm) }
    }

    /// Whether nothing is limited.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a minute is limited.
    pub(crate) fn has_windows(&self) -> bool {
        self.rpm.is_some() || self.tpm.is_some()
    }
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Requests at once: there is room when one of them ends.
    Concurrency,
    /// Requests in a minute.
    Requests {
        /// Milliseconds until there is room for one; at least 1.
        wait_ms: u64,
    },
    /// Tokens in a minute.
    Tokens {
        /// Milliseconds until there is room for some; at least 1.
        wait_ms: u64,
    },
}

/// What was used in the last minute.
#[derive(Debug, Default)]
struct Window {
    /// Oldest first: the second, when something was used last in it, how much.
    used: VecDeque<(u64, u64, u64)>,
    sum: u64,
}

impl Window {
    fn forget(&mut self, now_ms: u64) {
        while let Some((_, last_ms, amount)) = self.used.front().copied() {
            if now_ms.saturating_sub(last_ms) < WINDOW_MS {
                break;
            }
            self.used.pop_front();
            self.sum = self.sum.saturating_sub(amount);
        }
    }

    fn add(&mut self, amount: u64, now_ms: u64) {
        self.forget(now_ms);
        let second = now_ms / GRAIN_MS;
        // A sum that cannot be counted is beyond every limit.
        self.sum = self.sum.saturating_add(amount);
        match self.used.back_mut() {
            Some((of, last_ms, used)) if *of >= second => {
                *last_ms = now_ms.max(*last_ms);
                *used = used.saturating_add(amount);
            }
            _ => self.used.push_back((second, now_ms, amount)),
        }
    }

    /// Milliseconds until less than `limit` is used; 0: that is so.
    fn wait(&self, limit: u64, now_ms: u64) -> u64 {
        let mut left = self.sum;
        for (_, last_ms, amount) in &self.used {
            let over = last_ms.saturating_add(WINDOW_MS);
            if over <= now_ms {
                left = left.saturating_sub(*amount);
                continue;
            }
            if left < limit {
                return 0;
            }
            left = left.saturating_sub(*amount);
            if left < limit {
                return over - now_ms;
            }
        }
        0
    }
}

/// The windows of a credential or a key.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    requests: Window,
    tokens: Window,
}

impl Windows {
    /// Whether another request may begin.
    pub(crate) fn check(&self, limits: &Limits, now_ms: u64) -> Result<(), Refusal> {
        let wait_of = |limit: Option<u64>, window: &Window| limit.map_or(0, |most| window.wait(most, now_ms));
        let requests = wait_of(limits.rpm.map(u64::from), &self.requests);
        let tokens = wait_of(limits.tpm, &self.tokens);
        match (requests, tokens) {
            (0, 0) => Ok(()),
            // The later end of the two is the one that matters.
            (requests, tokens) if requests >= tokens => Err(Refusal::Requests { wait_ms: requests }),
            (_, tokens) => Err(Refusal::Tokens { wait_ms: tokens }),
        }
    }

    /// Milliseconds until another request may begin; `None`: it may now.
    pub(crate) fn wait(&self, limits: &Limits, now_ms: u64) -> Option<u64> {
        match self.check(limits, now_ms) {
            Err(Refusal::Requests { wait_ms } | Refusal::Tokens { wait_ms }) => Some(wait_ms),
            Err(Refusal::Concurrency) | Ok(()) => None,
        }
    }

    /// A request begins. Also told without a limit, so that one that is set later knows what went before.
    pub(crate) fn begin(&mut self, now_ms: u64) {
        self.requests.add(1, now_ms);
    }

    /// A request has cost so many tokens.
    pub(crate) fn charge(&mut self, tokens: u64, now_ms: u64) {
        if tokens > 0 {
            self.tokens.add(tokens, now_ms);
        }
    }
}

/// What the holder of a key uses. Outlives reloads: the limits come with each question.
#[derive(Debug, Default)]
pub struct Meter {
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    in_flight: u32,
    windows: Windows,
}

impl Meter {
    /// Begins a request, if no limit is reached. All limits are looked at and counted under one lock: they are
    /// exact under any race. [`Meter::end`] gives the place back.
    pub fn begin(&self, limits: &Limits, now_ms: u64) -> Result<(), Refusal> {
        let mut used = self.used.lock();
        // First the one that has a date: who is told to come back in a second shall not find the next limit.
        used.windows.check(limits, now_ms)?;
        if limits.concurrency.is_some_and(|most| used.in_flight >= most) {
            return Err(Refusal::Concurrency);
        }
        used.in_flight = used.in_flight.saturating_add(1);
        used.windows.begin(now_ms);
        Ok(())
    }

    /// A request that had begun is over.
    pub fn end(&self) {
        let mut used = self.used.lock();
        used.in_flight = used.in_flight.saturating_sub(1);
    }

    /// A request has cost so many tokens.
    pub fn charge(&self, tokens: u64, now_ms: u64) {
        self.used.lock().windows.charge(tokens, now_ms);
    }

    /// Requests under way.
    pub fn in_flight(&self) -> u32 {
        self.used.lock().in_flight
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn limits(concurrency: u32, rpm: u32, tpm: u64) -> Limits {
        Limits::of(concurrency, rpm, tpm)
    }

    #[test]
    fn p10_concurrency_is_exact_under_race() {
        let meter = Meter::default();
        let limits = limits(20, 0, 0);
        let begun: usize = thread::scope(|scope| {
            let racer = || (0..100).filter(|_| meter.begin(&limits, 0).is_ok()).count();
            let racers: Vec<_> = (0..8).map(|_| scope.spawn(racer)).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).sum()
        });
        assert_eq!((begun, meter.in_flight()), (20, 20));
        assert_eq!(meter.begin(&limits, 0), Err(Refusal::Concurrency));
        meter.end();
        assert_eq!(meter.begin(&limits, 0), Ok(()));
    }

    #[test]
    fn p10_a_minute_is_exact_under_race() {
        let meter = Meter::default();
        let limits = limits(0, 50, 0);
        let begun: usize = thread::scope(|scope| {
            let racer = || (0..100).filter(|n| meter.begin(&limits, 10 * n).is_ok()).count();
            let racers: Vec<_> = (0..8).map(|_| scope.spawn(racer)).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).sum()
        });
        assert_eq!(begun, 50);
    }

    #[test]
    fn the_wait_ends_when_there_is_room() {
        let meter = Meter::default();
        let limits = limits(0, 2, 0);
        assert_eq!(meter.begin(&limits, 500), Ok(()));
        assert_eq!(meter.begin(&limits, 30_000), Ok(()));
        assert_eq!(meter.begin(&limits, 30_001), Err(Refusal::Requests { wait_ms: 30_499 }));
        assert_eq!(meter.begin(&limits, 60_499), Err(Refusal::Requests { wait_ms: 1 }));
        assert_eq!(meter.begin(&limits, 60_500), Ok(()));
        assert_eq!(meter.begin(&limits, 60_501), Err(Refusal::Requests { wait_ms: 29_499 }));
    }

    #[test]
    fn tokens_count_when_they_are_known() {
        let meter = Meter::default();
        let limits = limits(0, 0, 100);
        for at in 0..5 {
            assert_eq!(meter.begin(&limits, at), Ok(()), "nothing is charged yet");
        }
        meter.charge(99, 1000);
        assert_eq!(meter.begin(&limits, 1000), Ok(()));
        meter.charge(900, 2000);
        assert_eq!(meter.begin(&limits, 2000), Err(Refusal::Tokens { wait_ms: 60_000 }));
        assert_eq!(meter.begin(&limits, 62_000), Ok(()));
        meter.charge(u64::MAX, 62_000);
        meter.charge(u64::MAX, 62_000);
        assert!(meter.begin(&limits, 62_000).is_err());
        assert_eq!(meter.begin(&limits, 122_000), Ok(()), "a sum beyond counting ends as well");
    }

    #[test]
    fn a_limit_that_is_set_later_knows_what_went_before() {
        let meter = Meter::default();
        let open = Limits::default();
        for _ in 0..5 {
            assert_eq!(meter.begin(&open, 10), Ok(()));
        }
        assert_eq!(meter.begin(&limits(0, 5, 0), 20), Err(Refusal::Requests { wait_ms: 59_990 }));
        assert_eq!(meter.begin(&limits(0, 6, 0), 20), Ok(()));
    }

    proptest! {
        /// No 60 seconds see more than the limit, the wait is never too short, and memory is bounded.
        #[test]
        fn p10_no_minute_holds_more_than_the_limit(
            limit in 1_u32..30,
            steps in proptest::collection::vec(0_u64..4000, 1..400),
        ) {
            let meter = Meter::default();
            let limits = limits(0, limit, 0);
            let mut now_ms = 0;
            let mut begun: Vec<u64> = Vec::new();
            let mut refused_until = 0;
            for step in steps {
                now_ms += step;
                match meter.begin(&limits, now_ms) {
                    Ok(()) => {
                        prop_assert!(now_ms >= refused_until, "room came before it was promised");
                        begun.push(now_ms);
                    }
                    Err(Refusal::Requests { wait_ms }) => {
                        prop_assert!((1..=WINDOW_MS).contains(&wait_ms));
                        refused_until = now_ms + wait_ms;
                    }
                    Err(other) => prop_assert!(false, "{:?}", other),
                }
                let minute = begun.iter().filter(|at| now_ms - **at < WINDOW_MS).count();
                prop_assert!(minute <= limit as usize);
                prop_assert!(meter.used.lock().windows.requests.used.len() <= 62);
            }
        }
    }
}
