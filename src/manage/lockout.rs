//! Who tried too many wrong secrets.
//!
//! Enters: addresses, the time in seconds. Leaves: how long an address has to wait. May go wrong: more
//! addresses fail than are remembered; the ones that failed first are forgotten.

use std::collections::HashMap;
use std::net::IpAddr;

/// Failures that are free.
const FREE: u32 = 5;
/// First wait in seconds. It doubles with each further failure.
const FIRST: u64 = 30;
/// Longest wait in seconds.
const LONGEST: u64 = 1800;
/// Seconds after which a failure is forgotten.
const IDLE: u64 = 7200;
/// Addresses that are remembered.
const MOST: usize = 10_000;

/// The failures of all addresses.
#[derive(Debug, Default)]
pub(super) struct Lockout {
    failed: HashMap<Address, Failures>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last_s: u64,
    until_s: u64,
}

/// An address as it is counted: of IPv6 the network, for whoever has one address has all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Address {
    Socket,
    V4(u32),
    V6(u64),
}

impl From<Option<IpAddr>> for Address {
    fn from(ip: Option<IpAddr>) -> Self {
        match ip.map(|ip| ip.to_canonical()) {
            None => Self::Socket,
            Some(IpAddr::V4(ip)) => Self::V4(ip.to_bits()),
            Some(IpAddr::V6(ip)) => Self::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

impl Lockout {
    /// Seconds that an address still has to wait; `None`: it may try.
    pub(super) fn waits(&self, ip: Option<IpAddr>, now_s: u64) -> Option<u64> {
        let left = self.failed.get(&ip.into())?.until_s.saturating_sub(now_s);
        (left > 0).then_some(left)
    }

    /// An address showed a wrong secret.
    pub(super) fn failed(&mut self, ip: Option<IpAddr>, now_s: u64) {
        let address = ip.into();
        if self.failed.len() >= MOST && !self.failed.contains_key(&address) {
            self.make_room(now_s);
        }
        let known = self.failed.entry(address).or_insert(Failures { count: 0, last_s: now_s, until_s: 0 });
        if now_s.saturating_sub(known.last_s) > IDLE {
            known.count = 0;
        }
        known.count = known.count.saturating_add(1);
        known.last_s = now_s;
        if let Some(over) = known.count.checked_sub(FREE) {
            known.until_s = now_s + FIRST.checked_shl(over).unwrap_or(LONGEST).clamp(FIRST, LONGEST);
        }
    }

    /// An address showed the right one.
    pub(super) fn succeeded(&mut self, ip: Option<IpAddr>) {
        self.failed.remove(&ip.into());
    }

    fn make_room(&mut self, now_s: u64) {
        self.failed.retain(|_, failures| now_s.saturating_sub(failures.last_s) <= IDLE);
        if self.failed.len() >= MOST
            && let Some(oldest) = self.failed.iter().min_by_key(|(_, f)| f.last_s).map(|(a, _)| *a)
        {
            self.failed.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn p56_five_failures_lock_out_and_the_wait_grows() {
        let mut lockout = Lockout::default();
        let (bad, good) = (Some(ip("10.0.0.1")), Some(ip("10.0.0.2")));
        let mut now = 1000;
        for _ in 0..4 {
            lockout.failed(bad, now);
            assert_eq!(lockout.waits(bad, now), None);
        }
        for wait in [30, 60, 120, 240, 480, 960, 1800, 1800, 1800] {
            lockout.failed(bad, now);
            assert_eq!(lockout.waits(bad, now), Some(wait));
            assert_eq!(lockout.waits(good, now), None);
            now += wait;
            assert_eq!(lockout.waits(bad, now), None);
        }
        for _ in 0..200 {
            lockout.failed(bad, now);
        }
        assert_eq!(lockout.waits(bad, now), Some(1800));
        lockout.succeeded(bad);
        assert_eq!(lockout.waits(bad, now), None);
    }

    #[test]
    fn p56_spellings_of_one_address_are_one_and_old_failures_are_forgotten() {
        let mut lockout = Lockout::default();
        for _ in 0..5 {
            lockout.failed(Some(ip("::ffff:10.0.0.1")), 0);
            lockout.failed(Some(ip("2001:db8::1")), 0);
        }
        assert!(lockout.waits(Some(ip("10.0.0.1")), 0).is_some());
        assert!(lockout.waits(Some(ip("2001:db8::2")), 0).is_some());
        assert!(lockout.waits(Some(ip("2001:db8:0:1::1")), 0).is_none());
        lockout.failed(Some(ip("10.0.0.1")), 8000);
        assert!(lockout.waits(Some(ip("10.0.0.1")), 8000).is_none(), "four more are free");
    }

    #[test]
    fn p56_no_number_of_addresses_fills_the_memory() {
        let mut lockout = Lockout::default();
        for n in 0..(MOST as u32 + 500) {
            lockout.failed(Some(IpAddr::V4(n.into())), u64::from(n) / 100);
        }
        assert_eq!(lockout.failed.len(), MOST);
    }
}
