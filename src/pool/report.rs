//! How an attempt ended, taken down; and whether there is another round.
//!
//! Enters: a [`Pick`] and its [`Outcome`]. Leaves: a [`Verdict`]. Nothing may go wrong: a pick is consumed by
//! its report, so none is reported twice.

use std::sync::atomic::Ordering;

use crate::Pool;
use crate::affinity::PATIENCE_MS;
use crate::attempts::{Attempts, Failed, earns_a_round};
use crate::cooldown::Terms;
use crate::health::{Blow, Healed, Scope};
use crate::outcome::{Class, Cooled, Next, Outcome, Phase, Verdict};
use crate::pick::Pick;
use crate::queue::mix;
use crate::route::Route;
use crate::settings::Now;
use crate::standing::{Standing, standing};
use crate::state::count;
use crate::verdict::{self, Ruling, Then};

/// Wait of a round whose credentials are only full.
const BUSY_WAIT_MS: u64 = 250;
/// Longest addition to a wait, so that those who wait do not come back together.
const JITTER_MS: u64 = 2000;

/// Whether the account has a project that this request has not used; if so the account goes on with it.
fn other_project(pick: &Pick, ruling: &Ruling, attempts: &mut Attempts) -> bool {
    let projects = pick.credential.spec.projects().len() as u32;
    if projects < 2 || pick.committed {
        return false;
    }
    let state = &pick.credential.state;
    attempts.used_project(state.key, pick.project, ruling.terms.hint_ms);
    let next = (pick.project + 1) % projects;
    state.project.store(next, Ordering::Relaxed);
    !attempts.has_used_project(state.key, next)
}

/// Whether a rest is longer than a session waits.
fn rests_long(cooled: Option<Cooled>, now: Now) -> bool {
    cooled.is_some_and(|cooled| !cooled.soft && cooled.until_ms > now.mono_ms.saturating_add(PATIENCE_MS))
}

impl Pool {
    /// The first good byte of the answer goes to the client: a test is passed, and from here on nothing is
    /// retried. Report the end as usual.
    pub fn confirm(&self, pick: &mut Pick, now: Now) {
        pick.committed = true;
        pick.hold.state.latency.note(now.mono_ms.saturating_sub(pick.started_ms), now.mono_ms);
        self.heal(pick);
        pick.hold.end_probe();
    }

    /// What an attempt cost. Told when it is known, before or after the report of other attempts.
    pub fn charge(&self, pick: &Pick, tokens: u64, now: Now) {
        if pick.credential.spec.minute().has_windows() {
            pick.credential.state.windows().charge(tokens, now.mono_ms);
        }
    }

    /// Takes down how an attempt ended and says what to do next.
    pub fn report(
        &self,
        mut pick: Pick,
        outcome: &Outcome<'_>,
        attempts: &mut Attempts,
        now: Now,
    ) -> Verdict {
        pick.hold.reported = true;
        let spec = &pick.credential.spec;
        let state = &pick.credential.state;
        let mut ruling =
            verdict::judge(outcome, &pick.model.upstream, &spec.request_scoped_errors, pick.committed);
        let verdict = |next, cooled| Verdict { class: ruling.class, next, cooled };
        match ruling.class {
            Class::Success => {
                count(&state.tally.succeeded);
                state.tally.recent.note(false, now.wall_s);
                pick.errors.note(false, now.mono_ms);
                if !pick.committed {
                    state.latency.note(now.mono_ms.saturating_sub(pick.started_ms), now.mono_ms);
                }
                self.heal(&pick);
                return verdict(Next::Return, None);
            }
            Class::ClientGone => return verdict(Next::Return, None),
            Class::RequestFault => {}
            _ => {
                count(&state.tally.failed);
                state.tally.recent.note(true, now.wall_s);
            }
        }
        if matches!(outcome, Outcome::Timeout(Phase::Header | Phase::FirstEvent)) && !pick.committed {
            // A refusal may come quickly and says nothing about answers; silence was at least so long.
            state.latency.note(now.mono_ms.saturating_sub(pick.started_ms), now.mono_ms);
        }
        let status = match outcome {
            Outcome::Status { status, .. } => Some(*status),
            _ => None,
        };
        let failed = Failed { key: state.key, credential: &spec.id, model: pick.position, status };
        let renewable = spec.refreshable && !pick.committed && !attempts.was_refreshed(state.key);
        if ruling.class == Class::Auth && matches!(status, Some(401 | 403 | 439)) && renewable {
            attempts.failed(&failed, Next::RefreshThenSame);
            return verdict(Next::RefreshThenSame, None);
        }
        if matches!(ruling.class, Class::Quota | Class::RateLimit) && pick.index.settings.switch_project {
            if other_project(&pick, &ruling, attempts) {
                attempts.failed(&failed, Next::OtherProjectSameCredential);
                return verdict(Next::OtherProjectSameCredential, None);
            }
            // All are used up: the account rests until the first of them is not.
            ruling.terms.hint_ms = attempts.soonest_project(state.key).or(ruling.terms.hint_ms);
        }
        if ruling.class != Class::RequestFault {
            pick.errors.note(true, now.mono_ms);
        }
        let cooled = if ruling.cools() { self.strike(&pick, &ruling, status, now) } else { None };
        if let Some(session) = pick.session.filter(|_| ruling.class.is_broken() || rests_long(cooled, now)) {
            self.affinity.unbind(session, &spec.id);
        }
        let narrow = ruling.scope == Scope::Model && cooled.is_none_or(|cooled| cooled.scope == Scope::Model);
        let next = match ruling.then {
            _ if pick.committed => Next::Return,
            Then::Return => Next::Return,
            Then::Rotate | Then::Cool if narrow && pick.more_models => Next::OtherModelSameCredential,
            Then::Rotate | Then::Cool => Next::OtherCredential,
        };
        attempts.failed(&failed, next);
        verdict(next, cooled)
    }

    fn heal(&self, pick: &Pick) {
        let state = &pick.credential.state;
        if !state.troubled() {
            return;
        }
        match state.change(|health| health.heal(&pick.model.upstream, pick.started_ms)) {
            Healed::Nothing => {}
            Healed::Tested => self.signals.free(),
            Healed::Early => self.signals.thaw(),
        }
    }

    /// Whether the request may go over the credentials once more, and after which wait in milliseconds. If
    /// so the round has begun: wait, then pick. Ask after [`crate::NoPick`].
    pub fn next_round(&self, route: &Route, attempts: &mut Attempts, now: Now, seed: u64) -> Option<u64> {
        let index = &*route.index;
        let allowed = attempts.last_status().is_some_and(earns_a_round);
        if !allowed || index.max_request_retry <= attempts.round() {
            return None;
        }
        let most_ms = index.settings.max_retry_interval_ms;
        let mut soonest: Option<u64> = None;
        for candidate in route.entry()?.candidates() {
            let Some(credential) = index.credential(*candidate) else { continue };
            let retry = credential.spec.request_retry.unwrap_or(index.settings.request_retry);
            if !attempts.would_allow(credential.state.key, retry) {
                continue;
            }
            let wait = match standing(index, *candidate, now.mono_ms) {
                Some(Standing::Ready) => 0,
                Some(Standing::Full | Standing::Tested) => BUSY_WAIT_MS,
                // It would be served at once; a pause as long as allowed is kinder.
                Some(Standing::Cooling(rest)) if rest.soft => rest.left_ms.min(most_ms),
                Some(Standing::Cooling(rest)) => rest.left_ms,
                Some(Standing::Spent { left_ms }) => left_ms,
                Some(Standing::Weightless | Standing::Disabled) | None => continue,
            };
            soonest = Some(soonest.map_or(wait, |known| known.min(wait)));
            if wait == 0 {
                break;
            }
        }
        let wait = soonest.filter(|wait| *wait <= most_ms)?;
        attempts.next_round();
        let room = (wait / 4).min(JITTER_MS).min(most_ms - wait);
        Some(wait + mix(seed) % (room + 1))
    }

    /// Takes the failure down in the credential's health.
    fn strike(&self, pick: &Pick, ruling: &Ruling, status: Option<u16>, now: Now) -> Option<Cooled> {
        let spec = &pick.credential.spec;
        let settings = &pick.index.settings;
        let terms = Terms {
            hint_cap_ms: settings.hint_cap_ms,
            transient_cap_ms: settings.transient_cooldown_ms,
            ..ruling.terms
        };
        let blow = Blow {
            class: ruling.class,
            scope: ruling.scope,
            status,
            upstream: &pick.model.upstream,
            started_ms: pick.started_ms,
            now_ms: now.mono_ms,
            soft: ruling.soft,
            cooling: ruling.forced || !spec.disable_cooling.unwrap_or(settings.disable_cooling),
            terms,
        };
        let (cooled, moved) = pick.credential.state.change(|health| {
            let moved = health.changes_line(blow.class, blow.soft, blow.now_ms);
            (health.strike(&blow), moved)
        });
        if moved {
            self.signals.thaw();
        } else {
            // Who waits for a slot or a test of it has to rest instead.
            self.signals.free();
        }
        cooled
    }
}
