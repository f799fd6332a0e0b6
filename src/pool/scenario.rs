//! Tests of the pool as a whole: one request after the other, as the data path drives it.

mod choosing;
mod cooling;
mod ending;
mod falling_back;
mod limits;
mod reloading;
mod remembering;
mod routing;
mod showing;

use std::collections::HashMap;
use std::sync::Arc;

use secrecy::SecretString;
use wire::thinking::{Level, Mode};

use crate::*;

pub(crate) fn at(mono_ms: u64) -> Now {
    Now { mono_ms, wall_s: 1_800_000_000 + mono_ms / 1000 }
}

pub(crate) fn models(names: &[(&str, &str)]) -> Arc<ModelSet> {
    ModelSet::new(names.iter().map(|(upstream, alias)| ModelSpec::new(upstream, alias)))
}

pub(crate) fn cred(id: &str, names: &[(&str, &str)]) -> CredentialSpec {
    CredentialSpec::new(CredentialId::new(id), "mock", Kind::Chat, models(names))
}

fn pool(specs: Vec<CredentialSpec>) -> Pool {
    Pool::new(Settings::default(), specs)
}

pub(crate) fn failed(status: u16) -> Outcome<'static> {
    Outcome::Status { status, body: b"", hint: None }
}

fn hinted(status: u16, wait_ms: u64) -> Outcome<'static> {
    Outcome::Status { status, body: b"", hint: Some(Hint { wait_ms, scope: Scope::Model }) }
}

/// A request on `model` at `now`: the ids tried, answered by `upstream`, and the last verdict or refusal.
fn request(
    pool: &Pool,
    model: &str,
    now: Now,
    upstream: impl Fn(&Pick) -> Outcome<'static>,
) -> (Vec<String>, Result<Verdict, NoPick>) {
    let route = pool.route(model, now).unwrap();
    let mut attempts = Attempts::default();
    let mut tried = Vec::new();
    loop {
        let pick = match pool.pick(&route, &mut attempts, None, now, 7) {
            Ok(pick) => pick,
            Err(none) => return (tried, Err(none)),
        };
        tried.push(format!("{}:{}", pick.credential().id, pick.model().upstream));
        let outcome = upstream(&pick);
        let verdict = pool.report(pick, &outcome, &mut attempts, now);
        pool.check_invariants().unwrap();
        if verdict.next == Next::Return {
            return (tried, Ok(verdict));
        }
    }
}

fn served(pool: &Pool, model: &str, now: Now) -> String {
    request(pool, model, now, |_| Outcome::Success).0.pop().unwrap_or_default()
}
