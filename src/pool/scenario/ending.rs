//! Ends of attempts, renewals, further rounds.

use super::*;

#[test]
fn nothing_is_retried_once_the_client_has_seen_a_byte() {
    for outcome in [failed(429), failed(503), failed(401), Outcome::Cut, Outcome::Timeout(Phase::Idle)] {
        let pool = pool(vec![cred("a", &[("m", "")]), cred("b", &[("m", "")])]);
        let route = pool.route("m", at(0)).unwrap();
        let mut attempts = Attempts::default();
        let mut pick = pool.pick(&route, &mut attempts, None, at(0), 0).unwrap();
        pool.confirm(&mut pick, at(0));
        assert!(pick.is_committed());
        assert_eq!(pool.report(pick, &outcome, &mut attempts, at(2)).next, Next::Return, "{outcome:?}");
    }
}

#[test]
fn a_client_that_leaves_says_nothing_about_the_credential() {
    let pool = pool(vec![cred("a", &[("m", "")])]);
    let (_, verdict) = request(&pool, "m", at(0), |_| Outcome::ClientGone);
    assert_eq!(verdict.unwrap().class, Class::ClientGone);
    let status = &pool.credentials(at(0))[0];
    assert_eq!((status.succeeded, status.failed, status.in_flight), (0, 0, 0));
}

#[test]
fn a_401_renews_the_token_once_and_then_moves_on() {
    let mut login = cred("a", &[("m", "")]);
    login.refreshable = true;
    let both = || vec![login.clone(), cred("b", &[("m", "")])];
    let pool = Pool::new(Settings::default(), both());
    let renewed = |pick: &Pick| if pick.refresh_first() { Outcome::Success } else { failed(401) };
    assert_eq!(request(&pool, "m", at(0), renewed).0, ["a:m", "a:m"]);
    assert_eq!(served(&pool, "m", at(1)), "b:m", "and it did not rest");
    let (tried, _) = request(&pool, "m", at(1), |pick| match pick.credential().id.as_str() {
        "a" => failed(401),
        _ => Outcome::Success,
    });
    assert_eq!(tried, ["a:m", "a:m", "b:m"]);
    let pool = Pool::new(Settings::default(), both());
    let gone = |pick: &Pick| match (pick.credential().id.as_str(), pick.refresh_first()) {
        ("a", false) => failed(401),
        ("a", true) => Outcome::RefreshFailed { needs_login: true },
        _ => Outcome::Success,
    };
    assert_eq!(request(&pool, "m", at(0), gone).0, ["a:m", "a:m", "b:m"]);
    assert_eq!(pool.credentials(at(0))[0].cooling[0].1.left_ms, 1_800_000);
}

fn retrying(retry: u32, interval: u64) -> Settings {
    Settings { request_retry: retry, max_retry_interval_ms: interval, ..Settings::default() }
}

/// Rounds a request gets when every attempt fails with `outcome`, and the waits between them.
fn waits(pool: &Pool, outcome: Outcome<'static>) -> Vec<u64> {
    let mut now = at(0);
    let route = pool.route("m", now).unwrap();
    let mut attempts = Attempts::default();
    let mut waits = Vec::new();
    loop {
        while let Ok(pick) = pool.pick(&route, &mut attempts, None, now, 0) {
            pool.report(pick, &outcome, &mut attempts, now);
        }
        let Some(wait) = pool.next_round(&route, &mut attempts, now, now.mono_ms) else { return waits };
        waits.push(wait);
        now = at(now.mono_ms + wait);
    }
}

#[test]
fn rounds_follow_their_statuses_and_limits() {
    let one = || vec![cred("a", &[("m", "")])];
    for (status, rounds) in [(403, 2), (408, 2), (429, 2), (500, 2), (503, 2), (529, 2), (401, 0), (402, 0)] {
        let pool = Pool::new(retrying(2, 120_000), one());
        assert_eq!(waits(&pool, failed(status)).len(), rounds, "{status}");
    }
    for outcome in [Outcome::Connect, Outcome::EmptyStream, Outcome::ProxyInvalid] {
        assert!(waits(&Pool::new(retrying(2, 120_000), one()), outcome).is_empty(), "{outcome:?}");
    }
    assert!(waits(&Pool::new(retrying(0, 120_000), one()), failed(500)).is_empty());
    assert!(waits(&Pool::new(retrying(2, 0), one()), failed(429)).is_empty(), "never waits");
    assert_eq!(waits(&Pool::new(retrying(2, 0), one()), failed(500)), [0, 0], "but need not for a 500");
    assert!(waits(&Pool::new(retrying(2, 5000), one()), hinted(429, 6000)).is_empty());
    let wait = waits(&Pool::new(retrying(1, 5000), one()), hinted(429, 4000))[0];
    assert!((4000..=5000).contains(&wait), "{wait}");
}

#[test]
fn a_credential_may_allow_fewer_rounds() {
    let mut never = cred("a", &[("m", "")]);
    never.request_retry = Some(0);
    let pool = Pool::new(retrying(1, 60_000), vec![never, cred("b", &[("m", "")])]);
    let route = pool.route("m", at(0)).unwrap();
    let mut attempts = Attempts::default();
    let mut tried = Vec::new();
    let mut round = |attempts: &mut Attempts| {
        while let Ok(pick) = pool.pick(&route, attempts, None, at(0), 0) {
            tried.push(pick.credential().id.to_string());
            pool.report(pick, &failed(500), attempts, at(0));
        }
    };
    round(&mut attempts);
    assert!(pool.next_round(&route, &mut attempts, at(0), 0).is_some());
    round(&mut attempts);
    assert!(pool.next_round(&route, &mut attempts, at(0), 0).is_none());
    assert_eq!(tried, ["a", "b", "b"]);
}

#[test]
fn a_request_that_finds_all_resting_may_wait_too() {
    let pool = Pool::new(retrying(1, 5000), vec![cred("a", &[("m", "")])]);
    request(&pool, "m", at(0), |_| hinted(429, 3000)).1.unwrap_err();
    let route = pool.route("m", at(1000)).unwrap();
    let mut attempts = Attempts::default();
    assert!(pool.pick(&route, &mut attempts, None, at(1000), 0).is_err());
    let wait = pool.next_round(&route, &mut attempts, at(1000), 3).unwrap();
    assert!((2000..=2500).contains(&wait), "{wait}");
    assert!(pool.pick(&route, &mut attempts, None, at(1000 + wait), 0).is_ok());
}

#[test]
fn a_refused_token_is_renewed_whatever_status_says_so_and_a_refused_account_is_not() {
    let mut login = cred("a", &[("m", "")]);
    login.refreshable = true;
    let next = |outcome: Outcome<'_>| {
        let pool = pool(vec![login.clone()]);
        let route = pool.route("m", at(0)).unwrap();
        let mut attempts = Attempts::default();
        let pick = pool.pick(&route, &mut attempts, None, at(0), 0).unwrap();
        pool.report(pick, &outcome, &mut attempts, at(0)).next
    };
    let kiro = br#"{"message":"The bearer token included in the request is invalid."}"#;
    assert_eq!(next(Outcome::Status { status: 403, body: kiro, hint: None }), Next::RefreshThenSame);
    assert_eq!(next(failed(439)), Next::RefreshThenSame);
    assert_eq!(next(failed(403)), Next::OtherCredential);
}
