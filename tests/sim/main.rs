//! A seeded simulation of the pool: random requests, outcomes, clocks, reloads and restarts against what must
//! always hold. It sees the pool as the data path does, through its public side, and keeps its own books.
//!
//! Enters: `SIM_SEED=n` replays one seed; without it all of them run. Leaves: nothing, or the seed and the step
//! at which a rule broke.
//!
//! | file | holds |
//! |---|---|
//! | `dice.rs` | numbers from a seed |
//! | `world.rs` | configurations and outcomes that may occur |
//! | `books.rs` | who must rest, who is under way, who is being tested |
//! | `step.rs` | one step: what happens next |
//! | `request.rs` | the steps of a request, and what is checked at each |

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod books;
mod dice;
mod request;
mod step;
mod world;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use step::Sim;

const SEEDS: u64 = 256;
const STEPS: usize = 3000;

/// Runs one seed; the error says at which step which rule broke.
fn run(seed: u64) -> Result<(), String> {
    let step = Cell::new(0);
    let all = AssertUnwindSafe(|| {
        let mut sim = Sim::new(seed);
        for n in 0..STEPS {
            step.set(n);
            sim.step();
        }
        sim.peace();
    });
    catch_unwind(all).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
        format!(
            "seed {seed}, step {}: {text}\nreplay: SIM_SEED={seed} cargo test -p pool --test sim",
            step.get()
        )
    })
}

#[expect(clippy::disallowed_methods, reason = "the seed to replay is for the test, not for the pool")]
fn replayed() -> Option<u64> {
    std::env::var("SIM_SEED").ok().map(|seed| seed.parse().unwrap())
}

#[test]
fn p18_p49_whatever_happens_the_rules_hold() {
    if let Some(seed) = replayed() {
        return run(seed).unwrap_or_else(|broken| panic!("{broken}"));
    }
    let next = AtomicU64::new(0);
    let broken = Mutex::new(Vec::new());
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                return;
            }
            if let Err(found) = run(seed) {
                broken.lock().unwrap().push(found);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(worker);
        }
    });
    let broken = broken.into_inner().unwrap();
    assert!(broken.is_empty(), "{} of {SEEDS} seeds fail, among them:\n{}", broken.len(), broken[0]);
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    let story = |seed| {
        let mut sim = Sim::new(seed);
        (0..300).for_each(|_| sim.step());
        format!("{:?}", sim.summary())
    };
    assert_eq!(story(7), story(7));
    assert_ne!(story(7), story(8));
}
