//! How long a credential or one of its models rests after a failure.
//!
//! Enters: the class of the failure, how many came before it in a row, what the upstream asked for.
//! Leaves: a wait in milliseconds. Nothing may go wrong.
//!
//! A wait that an upstream stated is believed up to a cap; a wait that is a guess starts short and grows,
//! because the cost of one more try is small and the cost of a good credential that rests for nothing is
//! large. Sources: `reference/cliproxyapi.md` 5.6 for the classes, its sections 14 and 16 for what fixed
//! waits of half a minute, half an hour and half a day did to people.

use crate::outcome::Class;

/// Never less than this after a stated wait, so that `Retry-After: 0` is no invitation to hammer.
const HINT_FLOOR_MS: u64 = 1000;
/// Rest that a `…-and-cooldown` rule gives at least.
pub(crate) const RULE_FLOOR_MS: u64 = 60_000;
/// Rest that a browser challenge gives at least.
pub(crate) const CHALLENGE_FLOOR_MS: u64 = 10_000;
/// Rest of an account at least that is blocked until somebody does something about it.
pub(crate) const BLOCKED_FLOOR_MS: u64 = 30 * 60_000;
/// A failure is forgotten when its rest has been over for this long, or for as long as the rest was.
const FORGET_MS: u64 = 600_000;

const S: u64 = 1000;
const MIN: u64 = 60 * S;
const H: u64 = 60 * MIN;

/// The rests of a class in order; the last one repeats.
fn ladder(class: Class) -> &'static [u64] {
    match class {
        Class::Success | Class::RequestFault | Class::ClientGone => &[],
        Class::Transient => &[S, 2 * S, 5 * S, 10 * S, 30 * S, MIN],
        Class::Capacity => &[2 * S, 5 * S, 10 * S, 20 * S, 30 * S],
        Class::RateLimit => {
            &[S, 2 * S, 4 * S, 8 * S, 16 * S, 32 * S, 64 * S, 128 * S, 256 * S, 512 * S, 1024 * S, 30 * MIN]
        }
        Class::Quota => &[MIN, 5 * MIN, 15 * MIN, 30 * MIN],
        Class::Auth | Class::Forbidden => &[10 * S, MIN, 5 * MIN, 30 * MIN],
        Class::Payment => &[MIN, 5 * MIN, 30 * MIN],
        Class::ModelMissing => &[5 * MIN, 30 * MIN, 2 * H, 12 * H],
        Class::Entitlement => &[24 * H],
        Class::Misconfigured => &[MIN],
    }
}

/// What decides a rest besides its class and level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// What the upstream asked for, in milliseconds.
    pub(crate) hint_ms: Option<u64>,
    /// Least rest.
    pub(crate) floor_ms: u64,
    /// Failures in a row that are only counted.
    pub(crate) free: u32,
    /// Cap of a stated wait.
    pub(crate) hint_cap_ms: u64,
    /// Cap of a guess about a transient failure.
    pub(crate) transient_cap_ms: u64,
}

/// The rest after the failure number `level` (from 0) in a row; 0: none.
pub(crate) fn rest_ms(class: Class, level: u32, terms: &Terms) -> u64 {
    if let Some(hint) = terms.hint_ms {
        return hint.min(terms.hint_cap_ms).max(HINT_FLOOR_MS).max(terms.floor_ms);
    }
    if level < terms.free {
        return terms.floor_ms;
    }
    let steps = ladder(class);
    let step = (level - terms.free).min(steps.len().saturating_sub(1) as u32);
    let rest = steps.get(step as usize).copied().unwrap_or(0);
    // A challenge climbs the same ladder from its own, higher, start.
    let rest = if class == Class::RateLimit && terms.floor_ms > 0 {
        rest.saturating_mul(terms.floor_ms / S).min(30 * MIN)
    } else {
        rest
    };
    let rest = if class == Class::Transient { rest.min(terms.transient_cap_ms) } else { rest };
    rest.max(terms.floor_ms)
}

/// Until when a failure at `failed_ms` with a rest until `until_ms` counts as the last of a row.
pub(crate) fn remembered_until(failed_ms: u64, until_ms: u64) -> u64 {
    let rest = until_ms.saturating_sub(failed_ms);
    until_ms.max(failed_ms).saturating_add(rest.max(FORGET_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        Terms { hint_cap_ms: H, transient_cap_ms: MIN, ..Terms::default() }
    }

    #[test]
    fn p17_ladders_grow_and_are_capped() {
        let rests = |class| (0..14).map(|level| rest_ms(class, level, &terms()) / S).collect::<Vec<_>>();
        assert_eq!(rests(Class::Transient)[..8], [1, 2, 5, 10, 30, 60, 60, 60]);
        assert_eq!(rests(Class::RateLimit), [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1800, 1800, 1800]);
        assert_eq!(rests(Class::Auth)[..5], [10, 60, 300, 1800, 1800]);
        assert_eq!(rests(Class::ModelMissing)[..5], [300, 1800, 7200, 43200, 43200]);
        assert_eq!(rests(Class::RequestFault)[0], 0);
    }

    #[test]
    fn p17_hints_are_believed_up_to_a_cap() {
        let rest = |hint| rest_ms(Class::Quota, 9, &Terms { hint_ms: Some(hint), ..terms() });
        assert_eq!(rest(7000), 7000);
        assert_eq!(rest(0), 1000);
        assert_eq!(rest(5 * 24 * H), H);
    }

    #[test]
    fn caps_floors_and_free_failures() {
        let short = Terms { transient_cap_ms: 3 * S, ..terms() };
        assert_eq!(rest_ms(Class::Transient, 9, &short), 3 * S);
        assert_eq!(rest_ms(Class::Transient, 0, &Terms { transient_cap_ms: 0, ..terms() }), 0);
        let free = Terms { free: 1, ..terms() };
        assert_eq!([0, 1, 2].map(|level| rest_ms(Class::Transient, level, &free)), [0, S, 2 * S]);
        let challenge = Terms { floor_ms: CHALLENGE_FLOOR_MS, ..terms() };
        assert_eq!(
            [0, 1, 2, 30].map(|level| rest_ms(Class::RateLimit, level, &challenge)),
            [10 * S, 20 * S, 40 * S, 30 * MIN]
        );
        let rule = Terms { floor_ms: RULE_FLOOR_MS, ..terms() };
        assert_eq!(rest_ms(Class::RequestFault, 0, &rule), MIN);
    }
}
