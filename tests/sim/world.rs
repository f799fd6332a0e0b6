//! What may occur: configurations and the ends of attempts.
//!
//! Enters: dice. Leaves: settings, credentials, outcomes of every kind.

use std::sync::Arc;

use pool::{
    Class, CredentialId, CredentialSpec, Hint, Kind, ModelSet, ModelSpec, Outcome, Phase, Scope, Settings,
    Strategy,
};
use secrecy::SecretString;

use crate::dice::Dice;

/// Names that clients ask for.
pub(crate) const NAMES: [&str; 4] = ["m", "n", "fast", "p/m"];
/// Longest rest that any class has.
pub(crate) const DAY_MS: u64 = 86_400_000;

pub(crate) fn settings(dice: &mut Dice) -> Settings {
    let all = [Strategy::RoundRobin, Strategy::Weighted, Strategy::FillFirst, Strategy::LeastLoaded];
    Settings {
        strategy: dice.one_of(&all),
        request_retry: dice.roll(3) as u32,
        max_retry_credentials: dice.roll(4) as u32,
        max_retry_interval_ms: dice.roll(2) * 30_000,
        disable_cooling: dice.once_in(8),
        session_affinity_ms: dice.roll(2) * 60_000,
        force_model_prefix: dice.once_in(4),
        probe_lease_ms: if dice.once_in(8) { 0 } else { 10_000 },
        ..Settings::default()
    }
}

/// Up to seven credentials in any order, with what was known of some of them changed.
pub(crate) fn specs(dice: &mut Dice) -> Vec<CredentialSpec> {
    let mut specs = Vec::new();
    for n in 0..7 {
        if !dice.once_in(3) {
            specs.push(spec(n, dice));
        }
    }
    if specs.is_empty() {
        specs.push(spec(0, dice));
    }
    for place in (1..specs.len()).rev() {
        if dice.once_in(2) {
            specs.swap(place, dice.roll(place as u64) as usize);
        }
    }
    specs
}

fn spec(n: u64, dice: &mut Dice) -> CredentialSpec {
    let served: [&[(&str, &str)]; 3] = [
        &[("up-m", "m"), ("up-n", "n")],
        &[("up-x", "fast"), ("up-y", "fast"), ("up-m", "m")],
        &[("up-m", "m"), ("up-m", "fast")],
    ];
    let models = dice.one_of(&served).iter().map(|(upstream, alias)| ModelSpec::new(upstream, alias));
    let id = CredentialId::new(format!("c{n}"));
    let mut spec = CredentialSpec::new(id, "mock", Kind::Chat, ModelSet::new(models));
    spec.secret = SecretString::from(if dice.once_in(6) { "another key" } else { "key" });
    spec.priority = dice.roll(2) as i32;
    spec.weight = dice.roll(5) as u32;
    spec.prefix = dice.once_in(3).then(|| Arc::from("p"));
    spec.in_flight_limit = dice.once_in(3).then(|| 1 + dice.roll(2) as u32);
    spec.refreshable = dice.once_in(3);
    spec.disabled = dice.once_in(9);
    spec.request_retry = dice.once_in(4).then(|| dice.roll(3) as u32);
    spec
}

pub(crate) fn outcome(dice: &mut Dice) -> Outcome<'static> {
    const STATUSES: [u16; 14] = [400, 401, 401, 402, 403, 404, 408, 413, 429, 429, 500, 502, 503, 529];
    const BODIES: [&[u8]; 7] = [
        b"",
        br#"{"error":{"code":"invalid_api_key"}}"#,
        br#"{"error":{"code":"model_not_found"}}"#,
        br#"{"error":{"type":"usage_limit_reached"}}"#,
        br#"{"error":{"code":"context_length_exceeded"}}"#,
        br#"{"detail":"The 'up-m' model is not supported when using Codex with a ChatGPT account."}"#,
        b"\xff{",
    ];
    match dice.roll(20) {
        0..=6 => Outcome::Success,
        7 => Outcome::Connect,
        8 => Outcome::Timeout(dice.one_of(&[Phase::Connect, Phase::Header, Phase::FirstEvent, Phase::Idle])),
        9 => Outcome::EmptyStream,
        10 => Outcome::Cut,
        11 => Outcome::Garbage,
        12 => Outcome::ClientGone,
        13 => Outcome::ProxyInvalid,
        14 => Outcome::RefreshFailed { needs_login: dice.once_in(2) },
        _ => Outcome::Status {
            status: dice.one_of(&STATUSES),
            body: dice.one_of(&BODIES),
            hint: dice.once_in(3).then(|| Hint {
                wait_ms: dice.roll(10_000_000_000),
                scope: dice.one_of(&[Scope::Model, Scope::Credential]),
            }),
        },
    }
}

/// Trouble that waiting hardly mends.
pub(crate) fn is_broken(class: Class) -> bool {
    matches!(
        class,
        Class::Payment
            | Class::Entitlement
            | Class::Auth
            | Class::Forbidden
            | Class::ModelMissing
            | Class::Misconfigured
    )
}
