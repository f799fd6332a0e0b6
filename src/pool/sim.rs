//! A seeded simulation: random requests, outcomes, reloads and clocks against what must always hold.
//!
//! A failing run names its seed; `run(SEED)` replays it.

use std::collections::HashMap;

use crate::queue::mix;
use crate::scenario::{at, cred};
use crate::*;

const STEPS: usize = 1500;
const NAMES: [&str; 4] = ["m", "n", "fast", "p/m"];

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0) % sides
    }
}

/// A request under way.
struct Request {
    route: Route,
    attempts: Attempts,
    session: Option<u64>,
    pick: Option<Pick>,
    /// Upstream models tried in this round, by credential; true: its credential is used up.
    tried: Vec<(CredentialId, String)>,
    used_up: Vec<CredentialId>,
}

struct Sim {
    pool: Pool,
    dice: Dice,
    now: Now,
    requests: Vec<Request>,
    /// Ends of the leases of tests since anything was learnt about the credential.
    tests: HashMap<(u64, String), u64>,
}

fn settings(dice: &mut Dice) -> Settings {
    let all = [Strategy::RoundRobin, Strategy::Weighted, Strategy::FillFirst, Strategy::LeastLoaded];
    Settings {
        strategy: all[dice.roll(4) as usize],
        request_retry: dice.roll(3) as u32,
        max_retry_credentials: dice.roll(4) as u32,
        max_retry_interval_ms: dice.roll(2) * 30_000,
        disable_cooling: dice.roll(8) == 0,
        session_affinity_ms: dice.roll(2) * 60_000,
        force_model_prefix: dice.roll(4) == 0,
        ..Settings::default()
    }
}

fn specs(dice: &mut Dice) -> Vec<CredentialSpec> {
    let names: [&[(&str, &str)]; 3] = [
        &[("up-m", "m"), ("up-n", "n")],
        &[("up-x", "fast"), ("up-y", "fast"), ("up-m", "m")],
        &[("up-m", "m"), ("up-m", "fast")],
    ];
    let mut specs = Vec::new();
    for n in 0..=dice.roll(6) {
        let mut spec = cred(&format!("c{n}"), names[dice.roll(3) as usize]);
        spec.priority = dice.roll(2) as i32;
        spec.weight = 1 + dice.roll(4) as u32;
        spec.prefix = (dice.roll(3) == 0).then(|| "p".into());
        spec.in_flight_limit = (dice.roll(3) == 0).then(|| 1 + dice.roll(2) as u32);
        spec.refreshable = dice.roll(3) == 0;
        spec.disabled = dice.roll(9) == 0;
        spec.request_retry = (dice.roll(4) == 0).then(|| dice.roll(3) as u32);
        spec.label = if dice.roll(20) == 0 { "renamed".into() } else { spec.label };
        specs.push(spec);
    }
    specs
}

fn outcome(dice: &mut Dice) -> Outcome<'static> {
    const STATUSES: [u16; 14] = [400, 401, 401, 402, 403, 404, 408, 413, 429, 429, 500, 502, 503, 529];
    const BODIES: [&[u8]; 5] = [
        b"",
        br#"{"error":{"code":"invalid_api_key"}}"#,
        br#"{"error":{"code":"model_not_found"}}"#,
        br#"{"error":{"type":"usage_limit_reached"}}"#,
        br#"{"error":{"code":"context_length_exceeded"}}"#,
    ];
    match dice.roll(12) {
        0..=3 => Outcome::Success,
        4 => Outcome::Connect,
        5 => Outcome::Timeout(Phase::FirstEvent),
        6 => Outcome::EmptyStream,
        7 => Outcome::ClientGone,
        8 => Outcome::RefreshFailed { needs_login: dice.roll(2) == 0 },
        _ => Outcome::Status {
            status: STATUSES[dice.roll(14) as usize],
            body: BODIES[dice.roll(5) as usize],
            hint: (dice.roll(3) == 0).then(|| Hint {
                wait_ms: dice.roll(10_000_000_000),
                scope: if dice.roll(2) == 0 { Scope::Model } else { Scope::Credential },
            }),
        },
    }
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(mix(seed));
        let pool = Pool::new(settings(&mut dice), specs(&mut dice));
        Self { pool, dice, now: at(1_000_000), requests: Vec::new(), tests: HashMap::new() }
    }

    fn step(&mut self) {
        match self.dice.roll(100) {
            0..30 => self.arrive(),
            30..75 => self.advance(),
            75..90 => self.tick(),
            90..93 => {
                let (settings, specs) = (settings(&mut self.dice), specs(&mut self.dice));
                self.pool.update(settings, specs);
                self.tests.clear();
            }
            93..96 => {
                let gone = self.pick_request().map(|request| self.requests.swap_remove(request));
                gone.and_then(|request| request.pick).iter().for_each(|pick| self.learnt(pick));
            }
            96 => {
                let id = CredentialId::new(format!("c{}", self.dice.roll(7)));
                self.pool.forgive(&id, (self.dice.roll(2) == 0).then_some("up-m"));
                self.tests.clear();
            }
            _ => self.look(),
        }
        self.pool.check_invariants().unwrap();
    }

    fn tick(&mut self) {
        let sizes = [1, 50, 1000, 5000, 60_000, 3_600_000];
        let size = sizes[self.dice.roll(6) as usize];
        self.now.mono_ms += self.dice.roll(size);
        // The wall clock goes where it wants.
        self.now.wall_s = self.dice.roll(4_000_000_000);
    }

    fn pick_request(&mut self) -> Option<usize> {
        let count = self.requests.len() as u64;
        (count > 0).then(|| self.dice.roll(count) as usize)
    }

    fn arrive(&mut self) {
        let name = NAMES[self.dice.roll(4) as usize];
        let Ok(route) = self.pool.route(name, self.now) else { return };
        let session = (self.dice.roll(2) == 0).then(|| self.dice.roll(5));
        let attempts = Attempts::default();
        let request =
            Request { route, attempts, session, pick: None, tried: Vec::new(), used_up: Vec::new() };
        self.requests.push(request);
    }

    fn advance(&mut self) {
        let Some(position) = self.pick_request() else { return };
        let mut request = self.requests.swap_remove(position);
        let goes_on = match request.pick.take() {
            None => self.begin(&mut request),
            Some(mut pick) if self.dice.roll(4) == 0 => {
                self.pool.confirm(&mut pick, self.now);
                self.learnt(&pick);
                request.pick = Some(pick);
                true
            }
            Some(pick) => self.end(&mut request, pick),
        };
        if goes_on {
            self.requests.push(request);
        }
    }

    /// Picks, and holds the choice against the standings of before.
    fn begin(&mut self, request: &mut Request) -> bool {
        let now_ms = self.now.mono_ms;
        let entry = request.route.entry().unwrap();
        let index = request.route.index.clone();
        let before: HashMap<CredentialId, Standing> = entry
            .candidates()
            .map(|candidate| {
                let spec = &index.credential(*candidate).unwrap().spec;
                (spec.id.clone(), standing::standing(&index, *candidate, now_ms).unwrap())
            })
            .collect();
        let fresh = request.attempts.total() == 0 && request.attempts.round() == 0;
        let seed = self.dice.roll(u64::MAX);
        match self.pool.pick(&request.route, &mut request.attempts, request.session, self.now, seed) {
            Ok(pick) => {
                self.check_pick(request, &pick, &before);
                request.tried.push((pick.credential().id.clone(), pick.model().upstream.to_string()));
                request.pick = Some(pick);
                true
            }
            Err(none) => {
                if fresh {
                    check_none(&none, &before);
                }
                let seed = self.dice.roll(u64::MAX);
                let round = self.pool.next_round(&request.route, &mut request.attempts, self.now, seed);
                let most = index.settings.max_retry_interval_ms;
                assert!(round.is_none_or(|wait| wait <= most), "waits {round:?} of {most}");
                self.now.mono_ms += round.unwrap_or(0);
                request.tried.clear();
                request.used_up.clear();
                round.is_some()
            }
        }
    }

    fn check_pick(&mut self, request: &Request, pick: &Pick, before: &HashMap<CredentialId, Standing>) {
        let (id, upstream) = (&pick.credential().id, &pick.model().upstream);
        assert!(pick.refresh_first() || !request.used_up.contains(id), "{id} failed before in this round");
        let again = request.tried.iter().any(|(c, m)| c == id && **m == **upstream);
        assert!(pick.refresh_first() || !again, "{id}:{upstream} was tried before in this round");
        let limit = pick.credential().in_flight_limit.unwrap_or(u32::MAX);
        assert!(pick.hold.state.in_flight() <= limit, "{id} is over its limit");
        match before[id] {
            _ if pick.refresh_first() => {}
            Standing::Ready => {}
            Standing::Cooling(rest) if rest.soft => {
                let better = before.iter().filter(|(_, standing)| **standing == Standing::Ready);
                for (other, _) in better {
                    let excluded = request.used_up.contains(other)
                        || request.tried.iter().any(|(c, _)| c == other)
                        || request.attempts.round() > 0;
                    assert!(excluded, "{id} rests while {other} is ready");
                }
            }
            // One of a pool's models is tested, another may serve: the mildest speaks for both.
            Standing::Tested => assert!(pick.index.settings.probe_lease_ms > 0),
            other => panic!("{id} was {other:?}"),
        }
        if pick.is_probe() {
            let under_test = (pick.hold.state.key, upstream.to_string());
            let lease_end = self.now.mono_ms + pick.index.settings.probe_lease_ms;
            let other = self.tests.insert(under_test, lease_end);
            assert!(
                other.is_none_or(|end| end <= self.now.mono_ms),
                "{id}:{upstream} is tested twice at once"
            );
        }
    }

    /// Something was learnt about a credential: another test may begin.
    fn learnt(&mut self, pick: &Pick) {
        let key = pick.hold.state.key;
        self.tests.retain(|(tested, _), _| *tested != key);
    }

    fn end(&mut self, request: &mut Request, pick: Pick) -> bool {
        let outcome = outcome(&mut self.dice);
        let id = pick.credential().id.clone();
        let resting = |sim: &Self| -> Vec<_> {
            let all = sim.pool.credentials(sim.now);
            all.into_iter().map(|status| (status.id, status.cooling)).collect()
        };
        let (before, committed) = (resting(self), pick.is_committed());
        self.learnt(&pick);
        let verdict = self.pool.report(pick, &outcome, &mut request.attempts, self.now);
        if matches!(verdict.class, Class::RequestFault | Class::ClientGone) {
            assert_eq!(before, resting(self), "{outcome:?}");
            assert_eq!(verdict.next, Next::Return);
        }
        assert!(!committed || verdict.next == Next::Return, "{outcome:?} after the first byte");
        let day = self.now.mono_ms + 86_400_000;
        assert!(verdict.cooled.is_none_or(|cooled| cooled.until_ms <= day), "{verdict:?}");
        if verdict.next == Next::OtherCredential {
            request.used_up.push(id);
        }
        verdict.next != Next::Return
    }

    fn look(&mut self) {
        let listed = self.pool.models(self.now);
        assert!(listed.is_sorted_by(|a, b| a.id < b.id));
        for model in listed {
            assert!(self.pool.route(&model.id, self.now).is_ok());
            assert!(!self.pool.explain(&model.id, self.now).candidates.is_empty());
        }
    }
}

/// Nobody is refused while somebody can serve, and the end of the first rest is told exactly.
fn check_none(none: &NoPick, before: &HashMap<CredentialId, Standing>) {
    let ready = before.values().any(|standing| *standing == Standing::Ready);
    assert!(!ready, "{none:?} while {before:?}");
    let soft = before.values().any(|standing| matches!(standing, Standing::Cooling(rest) if rest.soft));
    let full = before.values().any(|standing| matches!(standing, Standing::Full | Standing::Tested));
    match none {
        NoPick::Cooling { soonest_ms, .. } => {
            let limited = before.values().filter_map(|standing| match standing {
                Standing::Cooling(rest) if !rest.class.is_broken() && !rest.soft => Some(rest.left_ms),
                _ => None,
            });
            assert_eq!(limited.min(), Some(*soonest_ms), "{before:?}");
        }
        NoPick::Busy => assert!(full || soft, "{before:?}"),
        NoPick::Unavailable { total, .. } => assert_eq!(*total, before.len()),
        NoPick::Exhausted => panic!("nothing was tried"),
    }
}

fn run(seed: u64) {
    let mut sim = Sim::new(seed);
    for _ in 0..STEPS {
        sim.step();
    }
    // Peace: after a day everybody serves again and every slot is free.
    sim.requests.clear();
    sim.now.mono_ms += 86_400_001;
    sim.pool.check_invariants().unwrap();
    for status in sim.pool.credentials(sim.now) {
        assert_eq!((status.in_flight, status.cooling.len()), (0, 0), "{status:?}");
    }
    for name in NAMES {
        let Ok(route) = sim.pool.route(name, sim.now) else { continue };
        let pick = sim.pool.pick(&route, &mut Attempts::default(), None, sim.now, 0);
        sim.pool.report(pick.unwrap(), &Outcome::Success, &mut Attempts::default(), sim.now);
    }
}

#[test]
fn p18_p49_whatever_happens_the_rules_hold() {
    for seed in 0..64 {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "seed {seed} fails; run({seed}) replays it");
    }
}
