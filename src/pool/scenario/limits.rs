//! Budgets of credentials, and what a request may hope for that nobody can serve.

use super::*;

fn limited(id: &str, rpm: u32, tpm: u64) -> CredentialSpec {
    cred(id, &[("m", "")]).limited(budget::Limits::of(0, rpm, tpm))
}

fn pick(pool: &Pool, attempts: &mut Attempts, now: Now) -> Result<Pick, NoPick> {
    pool.pick(&pool.route("m", now).unwrap(), attempts, None, now, 7)
}

#[test]
fn who_has_used_up_its_minute_lets_others_serve_until_there_is_room() {
    let pool = pool(vec![limited("a", 2, 0), limited("b", 1, 0)]);
    let mut tried: Vec<String> = (0..3).map(|n| served(&pool, "m", at(1000 * n))).collect();
    tried.sort();
    assert_eq!(tried, ["a:m", "a:m", "b:m"]);
    let (_, refused) = request(&pool, "m", at(3000), |_| Outcome::Success);
    assert!(matches!(refused, Err(NoPick::Cooling { soonest_ms: 57_000, .. })), "{refused:?}");
    let standings: Vec<_> = pool.explain("m", at(3000)).candidates.iter().map(|c| c.standing).collect();
    assert!(standings.iter().all(|s| matches!(s, Standing::Spent { .. })), "{standings:?}");
    assert_eq!(pool.models(at(3000)).len(), 1, "it is not gone");
    assert!(!served(&pool, "m", at(60_000)).is_empty());
    let (_, refused) = request(&pool, "m", at(60_000), |_| Outcome::Success);
    assert!(matches!(refused, Err(NoPick::Cooling { soonest_ms: 1000, .. })), "{refused:?}");
    pool.check_invariants().unwrap();
}

#[test]
fn tokens_are_charged_when_they_are_known() {
    let pool = pool(vec![limited("a", 0, 100)]);
    let mut attempts = Attempts::default();
    let first = pick(&pool, &mut attempts, at(0)).unwrap();
    let second = pick(&pool, &mut Attempts::default(), at(0)).unwrap();
    pool.charge(&first, 150, at(10));
    pool.report(first, &Outcome::Success, &mut attempts, at(10));
    let refused = pick(&pool, &mut Attempts::default(), at(20));
    assert!(matches!(refused, Err(NoPick::Cooling { soonest_ms: 59_990, .. })), "{refused:?}");
    drop(second);
    assert!(pick(&pool, &mut Attempts::default(), at(60_010)).is_ok());
}

#[test]
fn a_reload_keeps_what_was_used_and_applies_a_new_limit_at_once() {
    let pool = pool(vec![limited("a", 1, 0)]);
    assert_eq!(served(&pool, "m", at(0)), "a:m");
    assert!(pick(&pool, &mut Attempts::default(), at(1)).is_err());
    pool.update(Settings::default(), vec![limited("a", 2, 0)]);
    assert_eq!(served(&pool, "m", at(2)), "a:m");
    assert!(pick(&pool, &mut Attempts::default(), at(3)).is_err());
}

#[test]
fn row_173_a_request_that_found_a_limit_serves_after_the_rest_and_others_stay_out() {
    let mut stubborn = cred("b", &[("m", "")]);
    stubborn.disable_cooling = Some(true);
    let pool = pool(vec![cred("a", &[("m", "")]), stubborn]);
    let route = pool.route("m", at(0)).unwrap();
    let mut attempts = Attempts::default();
    for _ in 0..2 {
        let pick = pool.pick(&route, &mut attempts, None, at(0), 7).unwrap();
        pool.report(pick, &hinted(429, 3000), &mut attempts, at(0));
    }
    assert_eq!(pool.pick(&route, &mut attempts, None, at(0), 7).unwrap_err(), NoPick::Exhausted);
    assert_eq!(pool.outlook(&route, &mut attempts, at(0)), Outlook::After { wait_ms: 3000 });
    let early = pool.pick(&route, &mut attempts, None, at(2999), 7).unwrap_err();
    assert_eq!(early.outlook(), Some(Outlook::After { wait_ms: 1 }));
    let pick = pool.pick(&route, &mut attempts, None, at(3000), 7).unwrap();
    assert_eq!(pick.credential().id.as_str(), "a", "the other failed for no limit of its own");
    pool.report(pick, &Outcome::Success, &mut attempts, at(3000));
    pool.check_invariants().unwrap();
}

#[test]
fn what_waiting_does_not_mend_is_not_waited_for() {
    for (outcome, expected) in [
        (failed(401), Outlook::Bleak),
        (failed(403), Outlook::Bleak),
        (failed(500), Outlook::Bleak),
        (Outcome::Connect, Outlook::Bleak),
        (hinted(429, 5000), Outlook::After { wait_ms: 5000 }),
    ] {
        let pool = pool(vec![cred("a", &[("m", "")])]);
        let route = pool.route("m", at(0)).unwrap();
        let mut attempts = Attempts::default();
        let pick = pool.pick(&route, &mut attempts, None, at(0), 7).unwrap();
        pool.report(pick, &outcome, &mut attempts, at(0));
        assert_eq!(pool.outlook(&route, &mut attempts, at(0)), expected, "{outcome:?}");
    }
}

#[test]
fn a_slot_that_comes_free_is_told_to_whoever_listens() {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    let mut one = cred("a", &[("m", "")]);
    one.in_flight_limit = Some(1);
    let pool = pool(vec![one]);
    let told = Arc::new(AtomicUsize::new(0));
    let listener = Arc::clone(&told);
    pool.on_signal(Box::new(move || {
        listener.fetch_add(1, SeqCst);
    }));
    let first = pick(&pool, &mut Attempts::default(), at(0)).unwrap();
    drop(first);
    assert_eq!(told.load(SeqCst), 0, "nobody was refused");
    let first = pick(&pool, &mut Attempts::default(), at(0)).unwrap();
    assert_eq!(pick(&pool, &mut Attempts::default(), at(0)).unwrap_err(), NoPick::Busy);
    drop(first);
    assert_eq!(told.load(SeqCst), 1);
}
