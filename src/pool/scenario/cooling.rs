//! Who rests, for how long, and who tests.

use super::*;

#[test]
fn p17_all_resting_is_told_with_the_soonest_end_and_nobody_is_called() {
    let pool = pool((0..50).map(|n| cred(&format!("c{n:02}"), &[("m", "")])).collect());
    let (tried, end) = request(&pool, "m", at(0), |pick| {
        let n: u64 = pick.credential().id.as_str()[1..].parse().unwrap();
        hinted(429, 90_000 + (n + 17) % 50 * 1000)
    });
    assert_eq!((tried.len(), end.unwrap_err()), (50, NoPick::Exhausted));
    for now in [1, 50_000, 89_999] {
        let (tried, end) = request(&pool, "m", at(now), |_| Outcome::Success);
        assert!(tried.is_empty());
        let soonest_ms = 90_000 - now;
        assert_eq!(end.unwrap_err(), NoPick::Cooling { soonest_ms, provider: Some("mock".into()) });
    }
    assert_eq!(served(&pool, "m", at(90_000)), "c33:m");
}

#[test]
fn p18_after_the_rest_one_request_tests_and_the_others_wait() {
    let pool = pool(vec![cred("a", &[("m", "")])]);
    request(&pool, "m", at(0), |_| failed(429)).1.unwrap_err();
    let route = pool.route("m", at(0)).unwrap();
    let ask = |now| pool.pick(&route, &mut Attempts::default(), None, at(now), 0);
    let probe = ask(1000).unwrap();
    assert!(probe.is_probe());
    assert_eq!(ask(1001).unwrap_err(), NoPick::Busy);
    // It fails: a longer rest, one more test.
    pool.report(probe, &failed(429), &mut Attempts::default(), at(1500));
    assert!(matches!(ask(1501), Err(NoPick::Cooling { soonest_ms: 1999, .. })));
    // Its client leaves: the next request tests.
    drop(ask(3500).unwrap());
    let mut probe = ask(3500).unwrap();
    // The answer begins: everyone is back, though the stream still runs.
    pool.confirm(&mut probe, at(3600));
    let rest: Vec<Pick> = (0..5).map(|_| ask(3601).unwrap()).collect();
    assert!(rest.iter().all(|pick| !pick.is_probe()));
    drop((probe, rest));
    pool.check_invariants().unwrap();
}

#[test]
fn p18_a_test_that_never_ends_holds_the_others_for_its_lease_only() {
    let pool = pool(vec![cred("a", &[("m", "")])]);
    request(&pool, "m", at(0), |_| failed(429)).1.unwrap_err();
    let route = pool.route("m", at(0)).unwrap();
    let ask = |now| pool.pick(&route, &mut Attempts::default(), None, at(now), 0);
    let _stuck = ask(1000).unwrap();
    assert!(ask(10_999).is_err());
    assert!(ask(11_000).unwrap().is_probe());
}

#[test]
fn the_last_credential_serves_through_transient_failures() {
    let pool = pool(vec![cred("a", &[("m", "")]), cred("b", &[("m", "")])]);
    for round in 0..20 {
        let (tried, _) = request(&pool, "m", at(round), |_| failed(502));
        assert_eq!(tried.len(), 2, "both are tried each time");
    }
    let (tried, verdict) = request(&pool, "m", at(100), |_| Outcome::Success);
    assert_eq!((tried.len(), verdict.unwrap().class), (1, Class::Success));
    // Who works again is preferred to who still rests.
    let first = tried[0].clone();
    assert!((0..5).all(|n| served(&pool, "m", at(101 + n)) == first));
}

#[test]
fn a_quota_rests_even_on_the_last_credential() {
    let pool = pool(vec![cred("a", &[("m", "")])]);
    request(&pool, "m", at(0), |_| failed(502)).1.unwrap_err();
    request(&pool, "m", at(1), |_| failed(429)).1.unwrap_err();
    assert!(matches!(request(&pool, "m", at(2), |_| Outcome::Success).1, Err(NoPick::Cooling { .. })));
}

#[test]
fn refusals_make_the_model_vanish_and_quota_does_not() {
    let pool = pool(vec![cred("a", &[("m", ""), ("n", "")])]);
    let listed = |now| pool.models(at(now)).iter().map(|l| l.id.to_string()).collect::<Vec<_>>();
    request(&pool, "m", at(0), |_| failed(429)).1.unwrap_err();
    assert_eq!(listed(1), ["m", "n"]);
    request(&pool, "n", at(0), |_| failed(403)).1.unwrap_err();
    assert_eq!(listed(1), ["m"]);
    let (_, end) = request(&pool, "n", at(1), |_| Outcome::Success);
    let NoPick::Unavailable { reasons, total: 1, gone: false } = end.unwrap_err() else { panic!() };
    let Standing::Cooling(rest) = reasons[0].standing else { panic!("{reasons:?}") };
    assert_eq!((rest.class, rest.status, rest.left_ms), (Class::Forbidden, Some(403), 9999));
    assert_eq!(listed(10_000), ["m", "n"]);
}

#[test]
fn one_model_refused_leaves_the_others_and_a_bad_key_takes_all() {
    let pool = pool(vec![cred("a", &[("m", ""), ("n", "")])]);
    for status in [401, 402, 403] {
        request(&pool, "m", at(0), |_| failed(status)).1.unwrap_err();
        assert_eq!(served(&pool, "n", at(1)), "a:n", "{status}");
    }
    let bad = Outcome::Status { status: 401, body: br#"{"error":{"code":"invalid_api_key"}}"#, hint: None };
    request(&pool, "n", at(2), |_| bad).1.unwrap_err();
    assert!(request(&pool, "n", at(3), |_| Outcome::Success).1.is_err());
    assert!(pool.forgive(&CredentialId::new("a"), None));
    assert_eq!(served(&pool, "m", at(4)), "a:m");
    assert!(!pool.forgive(&CredentialId::new("nobody"), None));
}

#[test]
fn c19_a_refused_entitlement_hides_the_model_for_a_day_even_without_cooling() {
    let mut spec = cred("a", &[("gpt-5.3-codex-spark", "")]);
    spec.disable_cooling = Some(true);
    let pool = pool(vec![spec]);
    let body = br#"{"detail":"The 'gpt-5.3-codex-spark' model is not supported when using Codex with a ChatGPT account."}"#;
    request(&pool, "gpt-5.3-codex-spark", at(0), |_| Outcome::Status { status: 400, body, hint: None })
        .1
        .unwrap_err();
    let day = 24 * 3_600_000;
    assert!(pool.models(at(day - 1)).is_empty());
    assert_eq!(pool.models(at(day)).len(), 1);
}

#[test]
fn without_cooling_nobody_rests() {
    let mut spec = cred("a", &[("m", "")]);
    spec.disable_cooling = Some(true);
    let pool = pool(vec![spec]);
    for status in [401, 402, 403, 429, 500] {
        let (tried, _) = request(&pool, "m", at(0), |_| hinted(status, 60_000));
        assert_eq!(tried, ["a:m"], "{status}");
    }
    assert_eq!(pool.credentials(at(0))[0].failed, 5);
}

#[test]
fn p49_a_wall_clock_that_jumps_changes_no_rest() {
    let pool = pool(vec![cred("a", &[("m", "")])]);
    let route = pool.route("m", at(0)).unwrap();
    request(&pool, "m", at(0), |_| hinted(429, 60_000)).1.unwrap_err();
    for wall_s in [0, 1_800_000_000 - 3600, 1_800_000_000 + 315_360_000, u64::MAX] {
        let ask =
            |mono_ms| pool.pick(&route, &mut Attempts::default(), None, Now { mono_ms, wall_s }, 0).map(drop);
        assert!(ask(59_999).is_err(), "{wall_s}");
        assert!(ask(60_000).is_ok(), "{wall_s}");
    }
    let far = hints::hint(|name| (name == "retry-after").then_some("Fri, 15 Jan 2527 08:01:00 GMT"), b"", 0);
    let outcome = Outcome::Status { status: 429, body: b"", hint: far };
    request(&pool, "m", at(70_000), |_| outcome).1.unwrap_err();
    assert_eq!(served(&pool, "m", at(70_000 + 3_600_000)), "a:m");
}

#[test]
fn p17_a_storm_on_fifty_ends_with_one_test_each() {
    const CREDENTIALS: usize = 50;
    let pool = pool((0..CREDENTIALS).map(|n| cred(&format!("c{n:02}"), &[("m", "")])).collect());
    let calls = |pool: &Pool, now: u64, outcome: &dyn Fn(&Pick) -> Outcome<'static>| {
        let (tried, end) = request(pool, "m", at(now), outcome);
        (tried.len(), end)
    };
    // Each asks for a rest of its own: 60 s, 61 s, and so on.
    let rest = |pick: &Pick| pick.credential().id.as_str()[1..].parse::<u64>().unwrap() * 1000 + 60_000;
    let (tried, _) = calls(&pool, 0, &|pick| hinted(429, rest(pick)));
    assert_eq!(tried, CREDENTIALS);
    for now in (1..60_000).step_by(997) {
        for _ in 0..20 {
            let (tried, end) = calls(&pool, now, &|_| panic!("nobody may be called"));
            assert_eq!(tried, 0);
            assert!(matches!(end, Err(NoPick::Cooling { soonest_ms, .. }) if soonest_ms == 60_000 - now));
        }
    }
    // All rests are over: each is tested by one request while the others wait, then serves again.
    let route = pool.route("m", at(0)).unwrap();
    let ask = |now| pool.pick(&route, &mut Attempts::default(), None, at(now), 0);
    let mut tests: Vec<Pick> = (0..CREDENTIALS).map(|_| ask(200_000).unwrap()).collect();
    let ids: std::collections::HashSet<_> = tests.iter().map(|pick| pick.credential().id.clone()).collect();
    assert!(ids.len() == CREDENTIALS && tests.iter().all(Pick::is_probe));
    assert_eq!(ask(200_001).unwrap_err(), NoPick::Busy);
    for pick in &mut tests {
        pool.confirm(pick, at(200_002));
    }
    assert!(!ask(200_003).unwrap().is_probe());
    drop(tests);
    pool.check_invariants().unwrap();
}

#[test]
fn an_account_rests_when_all_its_projects_are_used_up() {
    let account = |scope: &str| CredentialSpec {
        kind: Kind::Antigravity,
        scope: scope.into(),
        ..cred("a", &[("m", "")])
    };
    let with = |scope, switch_project| {
        Pool::new(Settings { switch_project, ..Settings::default() }, vec![account(scope)])
    };
    let seen = |pool: &Pool, now: u64, wait: &dyn Fn(&str) -> u64| {
        let projects = std::cell::RefCell::new(Vec::new());
        let end = request(pool, "m", at(now), |pick| {
            projects.borrow_mut().push(pick.scope().to_owned());
            match wait(pick.scope()) {
                0 => Outcome::Success,
                wait_ms => hinted(429, wait_ms),
            }
        });
        (projects.into_inner(), end.1)
    };
    let pool = with("p, q ,r", true);
    let (projects, end) = seen(&pool, 0, &|project| if project == "q" { 0 } else { 9000 });
    assert_eq!((projects.join(" "), end.unwrap().class), ("p q".to_owned(), Class::Success));
    // It goes on where it works, and rests until the first of all is back.
    let (projects, end) = seen(&pool, 10, &|project| if project == "r" { 5000 } else { 9000 });
    assert_eq!((projects.join(" "), end.unwrap_err()), ("q r p".to_owned(), NoPick::Exhausted));
    let (projects, end) = seen(&pool, 11, &|_| 0);
    assert!(projects.is_empty() && matches!(end, Err(NoPick::Cooling { soonest_ms: 4999, .. })), "{end:?}");
    // Without the setting there is one.
    let (projects, _) = seen(&with("p, q", false), 0, &|_| 9000);
    assert_eq!(projects, ["p"]);
    let (projects, _) = seen(&with("", true), 0, &|_| 9000);
    assert_eq!(projects, [""]);
}
