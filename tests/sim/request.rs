//! The steps of one request, and what is checked at each.
//!
//! Enters: what the dice say. Leaves: complaints, as panics.

use std::collections::HashMap;

use pool::{Attempts, Class, CredentialId, Explained, Next, NoPick, Pick, Route, Standing};

use crate::step::Sim;
use crate::world::{DAY_MS, NAMES, is_broken, outcome};

/// A request under way.
#[derive(Debug)]
pub(crate) struct Request {
    route: Route,
    /// The configuration it came under.
    generation: u64,
    lease_ms: u64,
    attempts: Attempts,
    session: Option<u64>,
    pick: Option<Held>,
    /// Upstream models tried in this round, by credential.
    tried: Vec<(CredentialId, String)>,
    /// Credentials that failed in this round.
    used_up: Vec<CredentialId>,
}

/// A pick, and whose it is.
#[derive(Debug)]
struct Held {
    pick: Pick,
    life: u64,
    started_ms: u64,
}

type Before = HashMap<String, Explained>;

impl Sim {
    pub(crate) fn arrive(&mut self) {
        let name = self.dice.one_of(&NAMES);
        let Ok(route) = self.pool.route(name, self.now) else { return };
        let session = self.dice.once_in(2).then(|| self.dice.roll(5));
        self.requests.push(Request {
            route,
            generation: self.generation,
            lease_ms: self.settings.probe_lease_ms,
            attempts: Attempts::default(),
            session,
            pick: None,
            tried: Vec::new(),
            used_up: Vec::new(),
        });
    }

    fn take_request(&mut self) -> Option<Request> {
        let count = self.requests.len() as u64;
        (count > 0).then(|| self.dice.roll(count) as usize).map(|at| self.requests.swap_remove(at))
    }

    /// A request vanishes with all it holds: its handler panicked, or its client left.
    pub(crate) fn drop_one(&mut self) {
        let Some(held) = self.take_request().and_then(|request| request.pick) else { return };
        let id = held.pick.credential().id.clone();
        drop(held.pick);
        self.books.ended(&id, held.life);
    }

    /// A request goes on by one step.
    pub(crate) fn advance(&mut self) {
        let Some(mut request) = self.take_request() else { return };
        let goes_on = match request.pick.take() {
            None => self.begin(&mut request),
            Some(mut held) if self.dice.once_in(4) => {
                self.pool.confirm(&mut held.pick, self.now);
                let (id, upstream) = (&held.pick.credential().id, &held.pick.model().upstream);
                self.books.learnt(id, held.life);
                self.books.healed(id, held.life, upstream, held.started_ms);
                request.pick = Some(held);
                true
            }
            Some(held) => self.end(&mut request, held),
        };
        if goes_on {
            self.requests.push(request);
        }
    }

    /// Picks, and holds the choice against how everybody stood before.
    fn begin(&mut self, request: &mut Request) -> bool {
        let current = request.generation == self.generation;
        let all = self.pool.explain(request.route.asked(), self.now).candidates.into_iter();
        let able = all.filter(|one| one.standing != Standing::Disabled);
        let before: Before = able.map(|one| (one.credential.clone(), one)).collect();
        let fresh = request.attempts.total() == 0 && request.attempts.round() == 0;
        let seed = self.dice.roll(u64::MAX);
        match self.pool.pick(&request.route, &mut request.attempts, request.session, self.now, seed) {
            Ok(pick) => {
                check_round(request, &pick);
                if current {
                    check_choice(request, &pick, &before);
                }
                let life = self.books.life(&pick.credential().id, request.generation);
                self.books.began(&pick, life, self.now.mono_ms, request.lease_ms);
                request.tried.push((pick.credential().id.clone(), pick.model().upstream.to_string()));
                request.pick = Some(Held { pick, life, started_ms: self.now.mono_ms });
                true
            }
            Err(none) => {
                if fresh && current {
                    self.check_none(&none, &before);
                }
                self.next_round(request)
            }
        }
    }

    fn next_round(&mut self, request: &mut Request) -> bool {
        let seed = self.dice.roll(u64::MAX);
        let round = self.pool.next_round(&request.route, &mut request.attempts, self.now, seed);
        if request.generation == self.generation {
            let most = self.settings.max_retry_interval_ms;
            assert!(round.is_none_or(|wait| wait <= most), "waits {round:?} of {most}");
        }
        self.now.mono_ms += round.unwrap_or(0);
        request.tried.clear();
        request.used_up.clear();
        round.is_some()
    }

    /// Nobody is refused while somebody can serve, and the end of the first rest is told exactly.
    fn check_none(&self, none: &NoPick, before: &Before) {
        let all = || before.values().map(|one| one.standing);
        assert!(!all().any(|standing| standing == Standing::Ready), "{none:?} while {before:?}");
        let soft = |one: &&Explained| matches!(one.standing, Standing::Cooling(rest) if rest.soft);
        for one in before.values().filter(soft) {
            let limit = self.limit_of(&one.credential);
            assert!(one.in_flight >= limit, "{none:?}, but only a guess speaks against {one:?}");
        }
        match none {
            NoPick::Cooling { soonest_ms, .. } => {
                let limited = all().filter_map(|standing| match standing {
                    Standing::Cooling(rest) if !is_broken(rest.class) && !rest.soft => Some(rest.left_ms),
                    _ => None,
                });
                assert_eq!(limited.min(), Some(*soonest_ms), "{before:?}");
            }
            NoPick::Busy => {
                let waits =
                    |one: &Explained| soft(&one) || matches!(one.standing, Standing::Full | Standing::Tested);
                assert!(before.values().any(waits), "{before:?}");
            }
            NoPick::Unavailable { total, .. } => assert_eq!(*total, before.len()),
            NoPick::Exhausted => panic!("nothing was tried"),
        }
    }

    /// An attempt ends in any way.
    fn end(&mut self, request: &mut Request, held: Held) -> bool {
        let outcome = outcome(&mut self.dice);
        let Held { pick, life, started_ms } = held;
        let (id, upstream) = (pick.credential().id.clone(), pick.model().upstream.to_string());
        let resting = |sim: &Self| -> Vec<_> {
            let all = sim.pool.credentials(sim.now);
            all.into_iter().map(|status| (status.id, status.cooling)).collect()
        };
        let (before, committed, now_ms) = (resting(self), pick.is_committed(), self.now.mono_ms);
        let verdict = self.pool.report(pick, &outcome, &mut request.attempts, self.now);
        self.books.ended(&id, life);
        if verdict.class == Class::Success {
            self.books.healed(&id, life, &upstream, started_ms);
        }
        if let Some(cooled) = verdict.cooled {
            assert!(cooled.until_ms <= now_ms + DAY_MS, "{verdict:?}");
            self.books.cooled(&id, life, &upstream, cooled, now_ms);
        }
        if matches!(verdict.class, Class::RequestFault | Class::ClientGone) {
            assert_eq!(before, resting(self), "{outcome:?}");
            assert_eq!(verdict.next, Next::Return);
        }
        assert!(!committed || verdict.next == Next::Return, "{outcome:?} after the first byte");
        if verdict.next == Next::OtherCredential {
            request.used_up.push(id);
        }
        verdict.next != Next::Return
    }
}

/// Nobody fails twice in one round of a request.
fn check_round(request: &Request, pick: &Pick) {
    let (id, upstream) = (&pick.credential().id, &pick.model().upstream);
    assert!(pick.refresh_first() || !request.used_up.contains(id), "{id} failed before in this round");
    let again = request.tried.iter().any(|(c, m)| c == id && **m == **upstream);
    assert!(pick.refresh_first() || !again, "{id}:{upstream} was tried before in this round");
}

/// Whoever was chosen was able, and nobody better was passed over.
fn check_choice(request: &Request, pick: &Pick, before: &Before) {
    let id = pick.credential().id.as_str();
    let Some(chosen) = before.get(id) else { panic!("{id} does not serve {}", request.route.asked()) };
    let limit = pick.credential().in_flight_limit.unwrap_or(u32::MAX);
    assert!(chosen.in_flight < limit, "{id} is over its limit");
    match chosen.standing {
        _ if pick.refresh_first() => {}
        Standing::Ready => {}
        Standing::Cooling(rest) if rest.soft => {
            for (other, _) in before.iter().filter(|(_, one)| one.standing == Standing::Ready) {
                let excluded = request.attempts.round() > 0
                    || request
                        .used_up
                        .iter()
                        .chain(request.tried.iter().map(|(id, _)| id))
                        .any(|known| known.as_str() == other);
                assert!(excluded, "{id} rests while {other} is ready");
            }
        }
        // One of a pool's models is tested, another may serve: the mildest speaks for both.
        Standing::Tested => assert!(request.lease_ms > 0),
        // Whoever takes no turns may still have a session.
        Standing::Weightless if request.session.is_some() => {}
        other => panic!("{id} was {other:?}"),
    }
}
