//! One step: something happens to the pool, then all rules are checked.
//!
//! Enters: a seed. Leaves: complaints, as panics.

use pool::{Attempts, CredentialId, CredentialSpec, NoPick, Now, Outcome, Pick, Pool, Settings, Standing};

use crate::books::Books;
use crate::dice::Dice;
use crate::request::Request;
use crate::world::{DAY_MS, NAMES, settings, specs};

const HOUR_S: u64 = 3600;
const TEN_YEARS_S: u64 = 10 * 365 * 24 * HOUR_S;

/// A session that was bound, for as long as nothing moves it.
#[derive(Debug)]
struct Bound {
    session: u64,
    name: &'static str,
    id: CredentialId,
    at_ms: u64,
}

/// A pool, its world, and what is known of them.
#[derive(Debug)]
pub(crate) struct Sim {
    pub(crate) pool: Pool,
    pub(crate) dice: Dice,
    pub(crate) now: Now,
    /// Which configuration is in force.
    pub(crate) generation: u64,
    pub(crate) settings: Settings,
    specs: Vec<CredentialSpec>,
    pub(crate) requests: Vec<Request>,
    pub(crate) books: Books,
    bound: Option<Bound>,
    sessions: u64,
    restarts: u64,
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let (settings, specs) = (settings(&mut dice), specs(&mut dice));
        let mut books = Books::default();
        books.reload(&[], &specs, 0);
        Self {
            pool: Pool::new(settings.clone(), specs.clone()),
            now: Now { mono_ms: dice.roll(1_000_000), wall_s: 1_800_000_000 },
            dice,
            generation: 0,
            settings,
            specs,
            requests: Vec::new(),
            books,
            bound: None,
            sessions: 1000,
            restarts: 0,
        }
    }

    pub(crate) fn step(&mut self) {
        match self.dice.roll(100) {
            0..28 => self.arrive(),
            28..72 => self.advance(),
            72..84 => self.tick(),
            84..86 => self.jump(),
            86..89 => self.reload(),
            89..92 => self.drop_one(),
            92 => self.forgive(),
            93 if self.dice.once_in(3) => self.restart(),
            93..97 => self.stay(),
            _ => self.look(),
        }
        self.pool.check_invariants().unwrap_or_else(|broken| panic!("{broken}"));
        self.books.check(&self.pool.credentials(self.now), DAY_MS);
    }

    /// What can be told apart between two runs.
    pub(crate) fn summary(&self) -> (Now, usize, u64, Vec<(CredentialId, u64, u64)>) {
        let all = self.pool.credentials(self.now).into_iter();
        let tallies = all.map(|status| (status.id, status.succeeded, status.failed)).collect();
        (self.now, self.requests.len(), self.restarts, tallies)
    }

    /// The monotonic clock goes on.
    fn tick(&mut self) {
        let most = self.dice.one_of(&[1, 50, 1000, 5000, 60_000, 3_600_000, 6 * 3_600_000]);
        let ms = self.dice.roll(most);
        self.now.mono_ms += ms;
        self.now.wall_s = self.now.wall_s.saturating_add(ms / 1000);
    }

    /// The wall clock goes where it wants.
    fn jump(&mut self) {
        let by = self.dice.one_of(&[1, HOUR_S, HOUR_S, TEN_YEARS_S]);
        let back = self.dice.once_in(2);
        let wall_s = &mut self.now.wall_s;
        *wall_s = if back { wall_s.saturating_sub(by) } else { wall_s.saturating_add(by) };
    }

    fn reload(&mut self) {
        // Or the same credentials, whatever else changed.
        let new = if self.dice.once_in(4) { self.specs.clone() } else { specs(&mut self.dice) };
        self.generation += 1;
        self.books.reload(&self.specs, &new, self.generation);
        self.specs = new;
        if self.dice.once_in(2) {
            self.settings = settings(&mut self.dice);
        }
        self.bound = None;
        self.pool.update(self.settings.clone(), self.specs.clone());
    }

    fn forgive(&mut self) {
        let id = CredentialId::new(format!("c{}", self.dice.roll(7)));
        let model = self.dice.once_in(2).then_some("up-m");
        let known = self.specs.iter().any(|spec| spec.id == id);
        assert_eq!(self.pool.forgive(&id, model), known);
        self.books.forgive(&id, model);
    }

    /// The process dies, and another one takes up what it learnt.
    fn restart(&mut self) {
        self.requests.clear();
        let (left, learnt) = (self.now, self.pool.learnt(None, self.now));
        let away_s = self.dice.one_of(&[0, 1, 30, 600]);
        self.now = Now { mono_ms: self.dice.roll(3), wall_s: left.wall_s.saturating_add(away_s) };
        let jumped = self.dice.once_in(4);
        if jumped {
            self.jump();
        }
        self.pool = Pool::new(self.settings.clone(), self.specs.clone());
        self.generation += 1;
        self.restarts += 1;
        self.pool.recall(&learnt, self.now);
        let kept = !jumped && !self.settings.disable_cooling;
        self.books.restart(left.mono_ms, self.now.mono_ms, away_s * 1000, kept);
        let again = self.pool.recall(&learnt, self.now);
        self.pool.check_invariants().unwrap_or_else(|broken| panic!("after {again:?}: {broken}"));
        let Some(bound) = self.bound.take() else { return };
        let age_ms = left.mono_ms - bound.at_ms + away_s * 1000 + 2000;
        if !jumped && age_ms < self.settings.session_affinity_ms {
            self.expect_stay(bound.session, bound.name, &bound.id);
        }
    }

    /// A session stays with the credential that served it, as long as that is ready.
    fn stay(&mut self) {
        let name = self.dice.one_of(&NAMES);
        self.sessions += 1;
        let session = self.sessions;
        let Ok(pick) = self.ask(name, session) else { return };
        let id = pick.credential().id.clone();
        self.succeed(pick);
        if self.settings.session_affinity_ms > 0 {
            self.expect_stay(session, name, &id);
            self.bound = Some(Bound { session, name, id, at_ms: self.now.mono_ms });
        }
    }

    fn expect_stay(&mut self, session: u64, name: &'static str, id: &CredentialId) {
        let all = self.pool.explain(name, self.now).candidates;
        let ready = all.iter().any(|one| one.credential == id.as_str() && one.standing == Standing::Ready);
        if !ready {
            return;
        }
        let pick = self.ask(name, session).unwrap_or_else(|none| panic!("{none:?} while {id} is ready"));
        assert_eq!(pick.credential().id, *id, "the session {session} moved away from who is ready");
        self.succeed(pick);
    }

    fn ask(&mut self, name: &str, session: u64) -> Result<Pick, NoPick> {
        let Ok(route) = self.pool.route(name, self.now) else { return Err(NoPick::Exhausted) };
        let seed = self.dice.roll(u64::MAX);
        let pick = self.pool.pick(&route, &mut Attempts::default(), Some(session), self.now, seed)?;
        let life = self.books.life(&pick.credential().id, self.generation);
        self.books.began(&pick, life, self.now.mono_ms, self.settings.probe_lease_ms);
        Ok(pick)
    }

    fn succeed(&mut self, pick: Pick) {
        let (id, upstream) = (pick.credential().id.clone(), pick.model().upstream.to_string());
        let life = self.books.life(&id, self.generation);
        self.pool.report(pick, &Outcome::Success, &mut Attempts::default(), self.now);
        self.books.ended(&id, life);
        self.books.healed(&id, life, &upstream, self.now.mono_ms);
    }

    fn look(&mut self) {
        let listed = self.pool.models(self.now);
        assert!(listed.is_sorted_by(|a, b| a.id < b.id));
        for model in listed {
            assert!(self.pool.route(&model.id, self.now).is_ok());
            assert!(!self.pool.explain(&model.id, self.now).candidates.is_empty());
        }
        let changed = self.pool.learnt(Some(0), self.now);
        assert!(!format!("{changed:?}").contains("another key"), "rows hold no secret");
    }

    /// Most requests at once of a credential.
    pub(crate) fn limit_of(&self, id: &str) -> u32 {
        let spec = self.specs.iter().find(|spec| spec.id.as_str() == id);
        spec.and_then(|spec| spec.in_flight_limit).unwrap_or(u32::MAX)
    }

    /// After a day everybody serves again and every slot is free.
    pub(crate) fn peace(&mut self) {
        self.requests.clear();
        self.now.mono_ms += DAY_MS + 1;
        self.pool.check_invariants().unwrap_or_else(|broken| panic!("{broken}"));
        for status in self.pool.credentials(self.now) {
            assert_eq!((status.in_flight, status.cooling.len()), (0, 0), "{status:?}");
        }
        for name in NAMES {
            let Ok(route) = self.pool.route(name, self.now) else { continue };
            let all = self.pool.explain(name, self.now).candidates;
            let serves = all.iter().any(|one| one.standing == Standing::Ready);
            let picked = self.pool.pick(&route, &mut Attempts::default(), None, self.now, 0);
            assert_eq!(picked.is_ok(), serves, "{name}: {picked:?}, {all:?}");
            if let Ok(pick) = picked {
                self.pool.report(pick, &Outcome::Success, &mut Attempts::default(), self.now);
            }
        }
    }
}
