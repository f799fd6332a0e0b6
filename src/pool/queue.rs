//! The order in which the credentials of one model and priority take their turns.
//!
//! Enters: positions of candidates, and a judge who knows whether a candidate can serve. Leaves: the next
//! candidate. Nothing may go wrong.
//!
//! Who can serve stands in `ready`, a heap ordered by *pass*: a virtual time that grows by the candidate's
//! stride (inverse weight) with each turn. Equal strides make round robin, others a smooth weighted rotation,
//! strides of zero fill the first one first. Who rests is put aside with the time at which it ends, so a pick
//! costs `O(log n)` however many rest. The order is only a cache of the truth, which the judge tells: it is
//! asked again about everyone who is taken from `ready`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use crate::load::Load;
use crate::settings::Strategy;
use crate::state::Key;

/// Virtual time between two turns of the heaviest candidate. Large enough to be divided by any weight and
/// count, small enough never to overflow.
const STRIDE: u64 = 1 << 20;

/// A candidate and its next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    pass: u64,
    candidate: u32,
}

/// A turn that waits for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rest {
    until_ms: u64,
    turn: Turn,
}

/// Why a candidate stands aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aside {
    /// It rests for a reason that waiting mends.
    Limited,
    /// It rests for a reason that waiting hardly mends.
    Broken,
    /// It rests, but serves when nobody else can.
    Soft,
}

/// The judge's answer about a candidate.
#[derive(Debug)]
pub(crate) enum Judged<T> {
    /// It serves.
    Take(T),
    /// Not in this request; others may have it.
    Skip,
    /// It rests.
    Rest { until_ms: u64, aside: Aside },
    /// It is full or being tested: ask again when something was freed, at `until_ms` at the latest. `soft`:
    /// it serves when nobody else can.
    Wait { until_ms: u64, soft: bool },
}

/// Why nobody could be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Idle {
    /// The end of the first rest that waiting mends.
    pub(crate) limited_until_ms: Option<u64>,
    /// Somebody is full or being tested.
    pub(crate) waiting: bool,
}

/// Everyone's turns.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    strategy: Strategy,
    /// By candidate; 0: takes no turn.
    strides: Box<[u64]>,
    ready: BinaryHeap<Reverse<Turn>>,
    /// Those in `ready` that a draw set aside and whose turn there is void: taken out of a heap one by one
    /// they would cost a look at all.
    void: HashSet<u32>,
    limited: BinaryHeap<Reverse<Rest>>,
    broken: BinaryHeap<Reverse<Rest>>,
    soft: BinaryHeap<Reverse<Rest>>,
    waiting: Vec<(Rest, bool)>,
    /// The pass of the last turn: nobody returns with an earlier one.
    clock: u64,
    seen: (u64, u64),
    /// Who took the last turn.
    last: Option<Key>,
}

impl Queue {
    /// Lines candidates up by position, beginning with the one at `first`.
    pub(crate) fn new(strategy: Strategy, weights: &[u32], first: usize) -> Self {
        let weighted = strategy == Strategy::Weighted;
        let heaviest = weights.iter().copied().max().unwrap_or(1).max(1);
        let stride = |weight: u32| match (weighted, weight) {
            (true, 0) => 0,
            (true, weight) => STRIDE * u64::from(heaviest) / u64::from(weight),
            (false, _) => STRIDE,
        };
        let strides: Box<[u64]> = weights.iter().map(|weight| stride(*weight)).collect();
        let first = if strategy == Strategy::FillFirst { 0 } else { first };
        let mut peers: HashMap<u64, (u64, u64)> = HashMap::new();
        strides.iter().for_each(|stride| peers.entry(*stride).or_default().0 += 1);
        let line = (0..strides.len()).map(|place| (place + first) % strides.len());
        let ready = line.filter_map(|position| {
            let stride = strides.get(position).copied().filter(|stride| *stride > 0)?;
            // Candidates of one weight are spread over their common stride.
            let (count, before) = peers.get_mut(&stride)?;
            let pass = stride * (2 * *before + 1) / (2 * *count);
            *before += 1;
            Some(Reverse(Turn { pass, candidate: position as u32 }))
        });
        Self { strategy, ready: ready.collect(), strides: strides.clone(), ..Self::default() }
    }

    /// Who took the last turn.
    pub(crate) fn last(&self) -> Option<Key> {
        self.last
    }

    /// Remembers who took the last turn.
    pub(crate) fn took(&mut self, key: Key) {
        self.last = Some(key);
    }

    /// Puts back in line whose time has come. Comes before [`Self::take`]; `seen` are the signals as they
    /// were before anyone is judged, so that none is missed.
    pub(crate) fn wake(&mut self, now_ms: u64, seen: (u64, u64)) {
        let (freed, thawed) = (self.seen.0 != seen.0, self.seen.1 != seen.1);
        self.seen = seen;
        // After the last turn, not with it: nobody returns to two turns in a row.
        let clock = self.clock + 1;
        let (ready, void) = (&mut self.ready, &mut self.void);
        let mut back = |turn: Turn| {
            // A void turn is as good as a new one where turns are drawn.
            if void.is_empty() || !void.remove(&turn.candidate) {
                ready.push(Reverse(Turn { pass: turn.pass.max(clock), ..turn }));
            }
        };
        for resting in [&mut self.limited, &mut self.broken, &mut self.soft] {
            while resting.peek().is_some_and(|Reverse(rest)| thawed || rest.until_ms <= now_ms) {
                if let Some(Reverse(rest)) = resting.pop() {
                    back(rest.turn);
                }
            }
        }
        self.waiting.retain(|(rest, _)| {
            let stays = !freed && !thawed && now_ms < rest.until_ms;
            if !stays {
                back(rest.turn);
            }
            stays
        });
    }

    /// The next candidate that can serve.
    pub(crate) fn take<T>(&mut self, judge: &mut impl FnMut(u32) -> Judged<T>) -> Option<T> {
        let mut skipped = Vec::new();
        let mut taken = None;
        while let Some(Reverse(turn)) = self.ready.pop() {
            if !self.void.is_empty() && self.void.remove(&turn.candidate) {
                continue;
            }
            match judge(turn.candidate) {
                Judged::Take(pick) => {
                    self.serve(turn);
                    taken = Some(pick);
                    break;
                }
                Judged::Skip => skipped.push(Reverse(turn)),
                aside => self.set_aside(turn, &aside),
            }
        }
        self.ready.extend(skipped);
        taken
    }

    /// The less loaded of two drawn at random, a few times until one can serve. Nobody's turn moves.
    pub(crate) fn draw<T>(
        &mut self,
        seed: u64,
        load: impl Fn(u32) -> Load,
        judge: &mut impl FnMut(u32) -> Judged<T>,
    ) -> Option<T> {
        const DRAWS: u64 = 8;
        self.clean();
        for draw in 0..DRAWS {
            let ready = self.ready.as_slice();
            let random = mix(seed.wrapping_add(draw));
            let one = ready.get((random % (ready.len() as u64).max(1)) as usize)?;
            let two = ready.get(((random >> 32) % ready.len() as u64) as usize).unwrap_or(one);
            let lighter = load(two.0.candidate).is_lighter(load(one.0.candidate));
            let Reverse(turn) = if lighter { *two } else { *one };
            if self.void.contains(&turn.candidate) {
                continue;
            }
            match judge(turn.candidate) {
                Judged::Take(pick) => return Some(pick),
                Judged::Skip => {}
                aside => {
                    self.void.insert(turn.candidate);
                    self.set_aside(turn, &aside);
                }
            }
        }
        None
    }

    /// Takes void turns out when there are so many that draws would miss.
    fn clean(&mut self) {
        if self.void.len() * 8 > self.ready.len() {
            self.ready.retain(|Reverse(turn)| !self.void.contains(&turn.candidate));
            self.void.clear();
        }
    }

    /// The first of those that rest but may serve when nobody else can. The judge is asked with that in mind.
    pub(crate) fn take_soft<T>(&mut self, judge: &mut impl FnMut(u32) -> Judged<T>) -> Option<T> {
        let mut passed = Vec::new();
        let mut taken = None;
        while let Some(Reverse(rest)) = self.soft.pop() {
            match judge(rest.turn.candidate) {
                Judged::Take(pick) => {
                    passed.push(Reverse(rest));
                    taken = Some(pick);
                    break;
                }
                Judged::Skip => passed.push(Reverse(rest)),
                // It has worse trouble by now.
                aside => self.set_aside(rest.turn, &aside),
            }
        }
        self.soft.extend(passed);
        let tested = self.waiting.iter().filter(|(_, soft)| *soft && taken.is_none());
        let picked = tested.map(|(rest, _)| judge(rest.turn.candidate)).find_map(|judged| match judged {
            Judged::Take(pick) => Some(pick),
            _ => None,
        });
        taken.or(picked)
    }

    /// Why nobody can be taken. `recheck` tells until when a candidate rests by now.
    pub(crate) fn idle(&mut self, mut recheck: impl FnMut(u32) -> u64) -> Idle {
        let limited_until_ms = loop {
            let Some(Reverse(first)) = self.limited.peek().copied() else { break None };
            let until_ms = recheck(first.turn.candidate);
            if until_ms <= first.until_ms {
                break Some(first.until_ms);
            }
            self.limited.pop();
            self.limited.push(Reverse(Rest { until_ms, ..first }));
        };
        Idle { limited_until_ms, waiting: !self.waiting.is_empty() }
    }

    /// Whether everyone who takes turns stands in exactly one place.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut places = vec![0_u32; self.strides.len()];
        let resting =
            self.limited.iter().chain(&self.broken).chain(&self.soft).map(|Reverse(rest)| rest.turn);
        let waiting = self.waiting.iter().map(|(rest, _)| rest.turn);
        let ready = self.ready.iter().map(|Reverse(turn)| *turn);
        let ready = ready.filter(|turn| !self.void.contains(&turn.candidate));
        for turn in ready.chain(resting).chain(waiting) {
            let place = places.get_mut(turn.candidate as usize).ok_or("a stranger stands in the queue")?;
            *place += 1;
        }
        let wrong = |(places, stride): (&u32, &u64)| *places != u32::from(*stride > 0);
        match places.iter().zip(&self.strides).position(wrong) {
            Some(position) => {
                Err(format!("candidate {position} stands in {:?} places", places.get(position)))
            }
            None => Ok(()),
        }
    }

    fn set_aside<T>(&mut self, turn: Turn, judged: &Judged<T>) {
        match *judged {
            Judged::Rest { until_ms, aside } => {
                let heap = match aside {
                    Aside::Limited => &mut self.limited,
                    Aside::Broken => &mut self.broken,
                    Aside::Soft => &mut self.soft,
                };
                heap.push(Reverse(Rest { until_ms, turn }));
            }
            Judged::Wait { until_ms, soft } => self.waiting.push((Rest { until_ms, turn }, soft)),
            Judged::Take(_) | Judged::Skip => self.ready.push(Reverse(turn)),
        }
    }

    /// The candidate takes its turn and goes to its next one; under fill-first it stays where it is.
    fn serve(&mut self, turn: Turn) {
        if self.strategy == Strategy::FillFirst {
            self.ready.push(Reverse(turn));
            return;
        }
        self.clock = self.clock.max(turn.pass);
        let stride = self.strides.get(turn.candidate as usize).copied().unwrap_or(STRIDE);
        self.ready.push(Reverse(Turn { pass: turn.pass.saturating_add(stride), ..turn }));
    }
}

/// SplitMix64: spreads a seed over all bits.
pub(crate) fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::Strategy;

    fn turns(queue: &mut Queue, count: usize) -> Vec<u32> {
        let mut judge = |candidate| Judged::Take(candidate);
        (0..count).filter_map(|_| queue.take(&mut judge)).collect()
    }

    #[test]
    fn equal_weights_rotate_from_where_the_last_queue_stopped() {
        let mut queue = Queue::new(Strategy::RoundRobin, &[1, 9, 0], 0);
        assert_eq!(turns(&mut queue, 7), [0, 1, 2, 0, 1, 2, 0]);
        let mut queue = Queue::new(Strategy::RoundRobin, &[1, 1, 1], 2);
        assert_eq!(turns(&mut queue, 4), [2, 0, 1, 2]);
    }

    #[test]
    fn weights_are_met_exactly_and_spread() {
        let mut queue = Queue::new(Strategy::Weighted, &[5, 1, 0, 1], 0);
        assert_eq!(turns(&mut queue, 14), [0, 1, 0, 0, 0, 3, 0, 0, 1, 0, 0, 0, 3, 0]);
        let mut one = Queue::new(Strategy::Weighted, &[0], 0);
        assert!(turns(&mut one, 1).is_empty());
    }

    #[test]
    fn fill_first_stays_with_the_first_that_is_ready() {
        let mut queue = Queue::new(Strategy::FillFirst, &[1, 1], 1);
        assert_eq!(turns(&mut queue, 3), [0, 0, 0]);
        let mut first_rests = |candidate| match candidate {
            0 => Judged::Rest { until_ms: 50, aside: Aside::Limited },
            other => Judged::Take(other),
        };
        assert_eq!(queue.take(&mut first_rests), Some(1));
        queue.wake(49, (0, 0));
        assert_eq!(turns(&mut queue, 1), [1]);
        queue.wake(50, (0, 0));
        assert_eq!(turns(&mut queue, 2), [0, 0]);
    }

    #[test]
    fn who_rested_does_not_catch_up() {
        let mut queue = Queue::new(Strategy::RoundRobin, &[1, 1], 0);
        let mut rests = |candidate| match candidate {
            0 => Judged::Rest { until_ms: 100, aside: Aside::Broken },
            other => Judged::Take(other),
        };
        for _ in 0..50 {
            assert_eq!(queue.take(&mut rests), Some(1));
        }
        queue.wake(100, (0, 0));
        assert_eq!(turns(&mut queue, 4), [0, 1, 0, 1]);
    }

    #[test]
    fn signals_bring_the_waiting_and_the_resting_back() {
        let mut queue = Queue::new(Strategy::RoundRobin, &[1, 1], 0);
        let mut judge = |candidate| match candidate {
            0 => Judged::Wait::<u32> { until_ms: 1000, soft: false },
            _ => Judged::Rest { until_ms: 1000, aside: Aside::Limited },
        };
        assert_eq!(queue.take(&mut judge), None);
        let idle = queue.idle(|_| 1500);
        assert_eq!(idle, Idle { limited_until_ms: Some(1500), waiting: true });
        queue.wake(1, (0, 0));
        assert!(turns(&mut queue, 1).is_empty());
        queue.wake(1, (1, 0));
        assert_eq!(turns(&mut queue, 2), [0, 0]);
        queue.wake(1, (1, 1));
        assert!(turns(&mut queue, 2).contains(&1));
        queue.check().unwrap();
    }

    #[test]
    fn two_are_drawn_and_the_less_loaded_serves() {
        let mut queue = Queue::new(Strategy::LeastLoaded, &[1; 10], 0);
        let mut judge = |candidate| Judged::Take(candidate);
        let load = |in_flight| Load { in_flight, micros: None };
        let drawn: Vec<u32> = (0..200).filter_map(|seed| queue.draw(mix(seed), load, &mut judge)).collect();
        let low = drawn.iter().filter(|candidate| **candidate < 5).count();
        assert_eq!(drawn.len(), 200);
        assert!(low > 130, "{low} of 200 in the lower half");
        assert!(drawn.iter().any(|candidate| *candidate > 5), "nobody is shut out");
        assert_eq!(Queue::new(Strategy::LeastLoaded, &[], 0).draw(1, load, &mut judge), None);
    }

    proptest! {
        #[test]
        fn nobody_is_lost_and_shares_follow_weights(
            weights in prop::collection::vec(1u32..50, 1..12),
            rests in prop::collection::vec((0u32..12, 0u64..100), 0..40),
        ) {
            let mut queue = Queue::new(Strategy::Weighted, &weights, 0);
            for (now, (sick, wait)) in rests.into_iter().enumerate() {
                let now = now as u64 * 10;
                queue.wake(now, (now / 100, 0));
                let mut judge = |candidate| match (candidate == sick, wait % 4) {
                    (false, _) => Judged::Take(candidate),
                    (true, 0) => Judged::Skip,
                    (true, 1) => Judged::Wait { until_ms: now + wait, soft: wait % 8 == 1 },
                    (true, 2) => Judged::Rest { until_ms: now + wait, aside: Aside::Soft },
                    (true, _) => Judged::Rest { until_ms: now + wait, aside: Aside::Limited },
                };
                queue.take(&mut judge);
                queue.check().unwrap();
            }
            queue.wake(10_000, (99, 99));
            // Enough turns for the returned to fall in step, then whole cycles.
            let cycle: u32 = weights.iter().sum();
            turns(&mut queue, 3 * cycle as usize);
            let served = turns(&mut queue, 10 * cycle as usize);
            for (candidate, weight) in weights.iter().enumerate() {
                let share = served.iter().filter(|one| **one == candidate as u32).count() as i64;
                prop_assert!((share - 10 * i64::from(*weight)).abs() <= 2, "{candidate}: {share} of {weight}");
            }
        }
    }
}
