//! How far the process is with leaving, and who is still connected.
//!
//! Enters: what the process was told, as [`Phase`]s in their order. Leaves: what each connection has to know:
//! whether to promise another request, whether to wait for one, whether to go on at all. May go wrong: nothing.

use crate::observe::metrics::Metrics;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// How far the process is with leaving. Each phase includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It is not leaving.
    #[default]
    Serving,
    /// New connections are taken; answers announce the end of theirs.
    Leaving,
    /// Nothing new is taken here. WebSockets end after their turn; idle connections get one more request
    /// answered, which may be on its way.
    Closing,
    /// Idle connections end.
    IdleOver,
    /// Everything ends.
    Deadline,
}

/// The state of leaving.
#[derive(Debug, Default)]
pub struct Leave {
    phase: watch::Sender<Phase>,
    /// Load balancers are told to go elsewhere.
    unready: AtomicBool,
    addresses: Mutex<HashMap<IpAddr, u32>>,
}

impl Leave {
    /// The phase that is reached.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Goes on to `phase`; never back.
    pub fn reach(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = *now < phase;
            *now = phase.max(*now);
            later
        });
    }

    /// Waits for `phase`.
    pub async fn reached(&self, phase: Phase) {
        let mut watched = self.phase.subscribe();
        // The sender lives as long as `self`.
        let _ = watched.wait_for(|now| *now >= phase).await;
    }

    /// Whether load balancers may send more.
    pub fn is_ready(&self) -> bool {
        !self.unready.load(Ordering::Relaxed)
    }

    /// Tells load balancers to go elsewhere.
    pub fn unready(&self) {
        self.unready.store(true, Ordering::Relaxed);
    }
}

/// A place among the open connections; given back with the value. It is taken before anything is read.
#[derive(Debug)]
pub struct Seat {
    state: Arc<super::State>,
    address: Option<IpAddr>,
}

impl Seat {
    /// A connection that was just accepted: from here on the process does not leave without it.
    pub fn take(state: &Arc<super::State>) -> Self {
        state.metrics.connections.inc();
        Self { state: Arc::clone(state), address: None }
    }

    /// Whether there is room for it, in all and for its address: 0 is no bound.
    pub fn fits(&mut self, address: Option<IpAddr>, most: u32, per_address: u32) -> bool {
        if most > 0 && self.state.metrics.connections.get() > i64::from(most) {
            return false;
        }
        let Some(address) = address.filter(|_| per_address > 0) else { return true };
        let mut addresses = self.state.leave.addresses.lock();
        let taken = addresses.entry(address).or_default();
        if *taken >= per_address {
            return false;
        }
        *taken += 1;
        self.address = Some(address);
        true
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Metrics { connections, .. } = &self.state.metrics;
        connections.dec();
        if let Some(address) = self.address {
            let mut addresses = self.state.leave.addresses.lock();
            if let Some(taken) = addresses.get_mut(&address) {
                *taken = taken.saturating_sub(1);
                if *taken == 0 {
                    addresses.remove(&address);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;
    use crate::state::accounts::Accounts;

    fn state() -> Arc<State> {
        Arc::new(State::new(config::Config::default(), Accounts::default()).unwrap().0)
    }

    #[test]
    fn phases_only_go_forward() {
        let leave = Leave::default();
        leave.reach(Phase::IdleOver);
        leave.reach(Phase::Leaving);
        assert_eq!(leave.phase(), Phase::IdleOver);
        assert!(leave.is_ready());
        leave.unready();
        assert!(!leave.is_ready());
    }

    #[test]
    fn seats_are_bounded_in_all_and_by_address_and_come_back() {
        let state = state();
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|text| Some(text.parse().unwrap()));
        let seat = |address, most, per_address| {
            let mut seat = Seat::take(&state);
            seat.fits(address, most, per_address).then_some(seat)
        };
        let first = seat(a, 2, 1).unwrap();
        assert!(seat(a, 2, 1).is_none(), "one per address");
        let second = seat(b, 2, 1).unwrap();
        assert!(seat(None, 2, 1).is_none(), "two in all");
        assert_eq!(state.metrics.connections.get(), 2);
        drop(first);
        assert!(seat(a, 2, 1).is_some());
        drop(second);
        assert_eq!(state.metrics.connections.get(), 0);
        assert!(state.leave.addresses.lock().is_empty());
        let many: Vec<_> = (0..50).map(|_| seat(a, 0, 0).unwrap()).collect();
        assert_eq!(state.metrics.connections.get(), 50);
        drop(many);
    }
}
