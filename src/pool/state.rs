//! What a credential is doing: slots taken, counts, health. Outlives a reload.
//!
//! Enters: picks and reports. Leaves: nothing. May go wrong: a limit that is reached is told as `false`.
//! The usual case (no trouble) takes no lock: [`State::troubled`] says whether the health is worth a look.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, MutexGuard};

use crate::budget::Windows;
use crate::health::Health;
use crate::load::{Latency, Load};
use crate::recent::Ring;
use crate::token::Token;

/// Names a [`State`] within the process, for as long as it lives.
pub(crate) type Key = u64;

/// The mutable side of a credential.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) key: Key,
    in_flight: AtomicU32,
    /// Somebody was refused for want of a slot since the last one was given back.
    awaited: AtomicBool,
    troubled: AtomicBool,
    /// The health may have changed since it was last taken down.
    changed: AtomicBool,
    health: Mutex<Health>,
    /// Locked after the health, never before it.
    windows: Mutex<Windows>,
    /// How quickly its answers begin.
    pub(crate) latency: Latency,
    /// The project that its requests go to, of those that it has.
    pub(crate) project: AtomicU32,
    /// What is sent instead of the configured secret.
    token: ArcSwapOption<Token>,
    pub(crate) tally: Tally,
}

/// Counts since the credential was first configured.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) picked: AtomicU64,
    pub(crate) reported: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) succeeded: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) recent: Ring,
}

/// Counts one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl State {
    pub(crate) fn new(key: Key) -> Self {
        Self { key, ..Self::default() }
    }

    /// Whether there is any record to look at.
    pub(crate) fn troubled(&self) -> bool {
        self.troubled.load(Ordering::Acquire)
    }

    /// The health, to look at.
    pub(crate) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock()
    }

    /// What was used of the minute.
    pub(crate) fn windows(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock()
    }

    /// Changes the health.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Health) -> T) -> T {
        let mut health = self.health.lock();
        let result = change(&mut health);
        self.troubled.store(!health.is_clear(), Ordering::Release);
        self.changed.store(true, Ordering::Release);
        result
    }

    /// Whether the health may have changed since this was last asked. Ask before it is looked at: a change
    /// meanwhile is told once more.
    pub(crate) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }

    /// The token, where there is one.
    pub(crate) fn token(&self) -> Option<Arc<Token>> {
        self.token.load_full()
    }

    /// Replaces the token.
    pub(crate) fn set_token(&self, token: Option<Arc<Token>>) {
        self.token.store(token);
    }

    /// Requests under way.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// How busy and how quick it is.
    pub(crate) fn load(&self, now_ms: u64) -> Load {
        Load { in_flight: self.in_flight(), micros: self.latency.micros(now_ms) }
    }

    /// Takes a slot; false: the limit is reached. Exact under any race.
    pub(crate) fn acquire(&self, limit: Option<u32>) -> bool {
        let Some(limit) = limit else {
            self.in_flight.fetch_add(1, Ordering::SeqCst);
            return true;
        };
        self.acquire_below(limit) || {
            // Asked again after the flag is up: a slot that came free in between is either taken here or
            // finds the flag.
            self.awaited.store(true, Ordering::SeqCst);
            self.acquire_below(limit)
        }
    }

    fn acquire_below(&self, limit: u32) -> bool {
        let taken = |now: u32| (now < limit).then_some(now + 1);
        self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, taken).is_ok()
    }

    /// Gives a slot back; true: somebody may be waiting for it.
    #[must_use]
    pub(crate) fn release(&self) -> bool {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.awaited.swap(false, Ordering::SeqCst)
    }
}

/// Signals from credentials to the queues they stand in.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// A slot or a test ended: who waits for one may look again.
    freed: AtomicU64,
    /// A rest ended early: who rests may look again.
    thawed: AtomicU64,
    next_key: AtomicU64,
    /// Told of each signal.
    listener: OnceLock<Listener>,
}

/// Who wants to know that somebody may look again.
struct Listener(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener")
    }
}

impl Signals {
    pub(crate) fn free(&self) {
        self.freed.fetch_add(1, Ordering::Release);
        self.tell();
    }

    pub(crate) fn thaw(&self) {
        self.thawed.fetch_add(1, Ordering::Release);
        self.tell();
    }

    fn tell(&self) {
        if let Some(Listener(tell)) = self.listener.get() {
            tell();
        }
    }

    /// Sets who is told; the first one counts.
    pub(crate) fn listen(&self, tell: Box<dyn Fn() + Send + Sync>) {
        // A second listener is not heard.
        let _ = self.listener.set(Listener(tell));
    }

    /// How often each was given.
    pub(crate) fn seen(&self) -> (u64, u64) {
        (self.freed.load(Ordering::Acquire), self.thawed.load(Ordering::Acquire))
    }

    /// A key nobody has.
    pub(crate) fn new_key(&self) -> Key {
        self.next_key.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn p10_the_limit_is_exact_under_race() {
        let state = Arc::new(State::new(0));
        let taken: usize = thread::scope(|scope| {
            let racers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..100).filter(|_| state.acquire(Some(20))).count()))
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).sum()
        });
        assert_eq!((taken, state.in_flight()), (20, 20));
        assert!(state.release(), "others were refused");
        assert!(state.acquire(Some(20)));
        assert!(!state.acquire(Some(20)));
    }
}
