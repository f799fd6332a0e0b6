//! Who serves, and who serves next.

use super::*;

fn counts(pool: &Pool, model: &str, requests: usize) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for _ in 0..requests {
        *counts.entry(served(pool, model, at(0))).or_default() += 1;
    }
    counts
}

#[test]
fn p11_a_failure_moves_on_once_and_the_client_sees_the_good_answer() {
    for outcome in [
        failed(401),
        failed(402),
        failed(403),
        failed(408),
        failed(429),
        failed(500),
        failed(503),
        Outcome::Connect,
        Outcome::Timeout(Phase::FirstEvent),
        Outcome::EmptyStream,
        Outcome::Cut,
        Outcome::ProxyInvalid,
    ] {
        let pool = pool(vec![cred("a", &[("m", "")]), cred("b", &[("m", "")])]);
        let upstream = |pick: &Pick| match pick.credential().id.as_str() {
            "a" => outcome,
            _ => Outcome::Success,
        };
        let (tried, verdict) = request(&pool, "m", at(0), upstream);
        assert_eq!(tried, ["a:m", "b:m"], "{outcome:?}");
        assert_eq!(verdict.unwrap().class, Class::Success);
    }
}

#[test]
fn request_faults_return_at_once_and_cool_nobody() {
    let pool = pool(vec![cred("a", &[("m", "")]), cred("b", &[("m", "")])]);
    for status in [400, 406, 409, 413, 422] {
        let (tried, verdict) = request(&pool, "m", at(0), |_| failed(status));
        assert_eq!(tried.len(), 1);
        let expected = Verdict { class: Class::RequestFault, next: Next::Return, cooled: None };
        assert_eq!(verdict.unwrap(), expected);
    }
    assert!(pool.credentials(at(0)).iter().all(|status| status.cooling.is_empty() && status.failed == 0));
}

#[test]
fn the_highest_priority_that_is_ready_serves() {
    let mut high = cred("high", &[("m", "")]);
    high.priority = 5;
    let pool = pool(vec![cred("low", &[("m", "")]), high]);
    assert_eq!(counts(&pool, "m", 4), HashMap::from([("high:m".into(), 4)]));
    let (tried, _) = request(&pool, "m", at(0), |pick| match pick.credential().priority {
        5 => failed(429),
        _ => Outcome::Success,
    });
    assert_eq!(tried, ["high:m", "low:m"]);
    assert_eq!(served(&pool, "m", at(500)), "low:m");
    assert_eq!(served(&pool, "m", at(1000)), "high:m");
}

#[test]
fn strategies_share_the_turns_as_they_say() {
    let specs = || {
        let mut heavy = cred("a", &[("m", "")]);
        heavy.weight = 3;
        let mut none = cred("c", &[("m", "")]);
        none.weight = 0;
        vec![heavy, cred("b", &[("m", "")]), none]
    };
    let share = |strategy| {
        let pool = Pool::new(Settings { strategy, ..Settings::default() }, specs());
        let counts = counts(&pool, "m", 12);
        ["a:m", "b:m", "c:m"].map(|id| counts.get(id).copied().unwrap_or(0))
    };
    assert_eq!(share(Strategy::RoundRobin), [4, 4, 4]);
    assert_eq!(share(Strategy::Weighted), [9, 3, 0]);
    assert_eq!(share(Strategy::FillFirst), [12, 0, 0]);
    assert_eq!(share(Strategy::LeastLoaded).iter().sum::<usize>(), 12);
}

#[test]
fn least_loaded_avoids_the_busy() {
    let specs = (0..4).map(|n| cred(&format!("c{n}"), &[("m", "")])).collect();
    let pool = Pool::new(Settings { strategy: Strategy::LeastLoaded, ..Settings::default() }, specs);
    let route = pool.route("m", at(0)).unwrap();
    let held: Vec<Pick> = (0..400)
        .map(|seed| pool.pick(&route, &mut Attempts::default(), None, at(0), seed).unwrap())
        .collect();
    for status in pool.credentials(at(0)) {
        assert!((90..=110).contains(&status.in_flight), "{status:?}");
    }
    drop(held);
    pool.check_invariants().unwrap();
}

#[test]
fn a_repeated_alias_is_tried_in_order_within_the_credential() {
    let pool = pool(vec![cred("a", &[("x", "fast"), ("y", "fast")]), cred("b", &[("z", "fast")])]);
    let (tried, _) = request(&pool, "fast", at(0), |pick| match &*pick.model().upstream {
        "z" => Outcome::Success,
        _ => failed(503),
    });
    assert_eq!(tried, ["a:x", "a:y", "b:z"]);
    // The account is refused: its other models need not be asked.
    let bad_key = br#"{"error":{"code":"invalid_api_key"}}"#;
    let (tried, _) = request(&pool, "fast", at(10_000), |pick| match pick.credential().id.as_str() {
        "a" => Outcome::Status { status: 401, body: bad_key, hint: None },
        _ => Outcome::Success,
    });
    assert_eq!(tried, ["a:x", "b:z"]);
}

#[test]
fn a_resting_model_of_a_pool_is_passed_over() {
    let pool = pool(vec![cred("a", &[("x", "fast"), ("y", "fast")])]);
    let (tried, _) = request(&pool, "fast", at(0), |pick| match &*pick.model().upstream {
        "x" => failed(429),
        _ => Outcome::Success,
    });
    assert_eq!(tried, ["a:x", "a:y"]);
    assert_eq!(served(&pool, "fast", at(1)), "a:y");
    assert_eq!(served(&pool, "fast", at(1000)), "a:x");
}

#[test]
fn at_most_so_many_credentials_in_a_round() {
    let specs = (0..5).map(|n| cred(&format!("c{n}"), &[("m", "")])).collect();
    let pool = Pool::new(Settings { max_retry_credentials: 2, ..Settings::default() }, specs);
    let (tried, end) = request(&pool, "m", at(0), |_| failed(500));
    assert_eq!((tried.len(), end.unwrap_err()), (2, NoPick::Exhausted));
}

#[test]
fn p10_a_full_credential_waits_for_its_slot() {
    let mut one = cred("a", &[("m", "")]);
    one.in_flight_limit = Some(1);
    let pool = pool(vec![one]);
    let route = pool.route("m", at(0)).unwrap();
    let ask = || pool.pick(&route, &mut Attempts::default(), None, at(0), 0);
    let held = ask().unwrap();
    assert_eq!(ask().unwrap_err(), NoPick::Busy);
    pool.check_invariants().unwrap();
    drop(held);
    pool.report(ask().unwrap(), &Outcome::Success, &mut Attempts::default(), at(0));
    assert!(ask().is_ok());
    pool.check_invariants().unwrap();
}

#[test]
fn a_session_stays_and_returns_but_never_waits() {
    let specs = (0..8).map(|n| cred(&format!("c{n}"), &[("m", "")])).collect();
    let pool = Pool::new(Settings { session_affinity_ms: 3_600_000, ..Settings::default() }, specs);
    let ask = |session: u64, now: u64, outcome: &Outcome<'_>| {
        let route = pool.route("m", at(now)).unwrap();
        let mut attempts = Attempts::default();
        let pick = pool.pick(&route, &mut attempts, Some(session), at(now), now).unwrap();
        let id = pick.credential().id.clone();
        pool.report(pick, outcome, &mut attempts, at(now));
        id
    };
    let mine = ask(1, 0, &Outcome::Success);
    assert!((0..20).all(|n| ask(1, n, &Outcome::Success) == mine));
    assert_ne!(ask(2, 20, &Outcome::Success), mine, "others are spread");
    // A short rest is bridged by somebody else, then the session returns to its cache.
    assert_eq!(ask(1, 30, &failed(429)), mine);
    assert_ne!(ask(1, 31, &Outcome::Success), mine);
    assert_eq!(ask(1, 1030, &Outcome::Success), mine);
    // A refused credential is left for good.
    assert_eq!(ask(1, 1100, &failed(403)), mine);
    let other = ask(1, 1101, &Outcome::Success);
    assert_ne!(other, mine);
    assert_eq!(ask(1, 3_000_000, &Outcome::Success), other);
}

fn sessions(specs: Vec<CredentialSpec>) -> Pool {
    let settings =
        Settings { session_affinity_ms: 3_600_000, affinity_without_cache: false, ..Settings::default() };
    Pool::new(settings, specs)
}

/// Who serves a request of a session.
fn serves(pool: &Pool, session: u64, now: u64, mut upstream: impl FnMut(&str) -> Outcome<'static>) -> String {
    let route = pool.route("m", at(now)).unwrap();
    let mut attempts = Attempts::default();
    loop {
        let pick = pool.pick(&route, &mut attempts, Some(session), at(now), now).unwrap();
        let id = pick.credential().id.to_string();
        if pool.report(pick, &upstream(&id), &mut attempts, at(now)).next == Next::Return {
            return id;
        }
    }
}

fn kinds(kind: Kind) -> Vec<CredentialSpec> {
    let spec = |n| CredentialSpec { kind, ..cred(&format!("c{n}"), &[("m", "")]) };
    (0..5).map(spec).collect()
}

#[test]
fn sessions_stay_by_themselves_where_prompts_are_cached_and_nowhere_else() {
    for kind in [Kind::Claude, Kind::Codex, Kind::Responses, Kind::Gemini, Kind::Vertex, Kind::Kiro] {
        let pool = sessions(kinds(kind));
        let first = serves(&pool, 1, 0, |_| Outcome::Success);
        assert!((1..9).all(|now| serves(&pool, 1, now, |_| Outcome::Success) == first), "{kind:?}");
        assert!(pool.explain("m", at(0)).candidates.iter().all(|c| c.keeps_sessions));
    }
    let pool = sessions(kinds(Kind::Chat));
    let served: Vec<_> = (0..5).map(|now| serves(&pool, 1, now, |_| Outcome::Success)).collect();
    assert_eq!(served, ["c0", "c1", "c2", "c3", "c4"]);
    assert!(pool.explain("m", at(0)).candidates.iter().all(|c| !c.keeps_sessions));
}

#[test]
fn a_new_session_belongs_to_who_answers_it_first() {
    let pool = sessions(kinds(Kind::Claude));
    let first = serves(&pool, 1, 0, |id| if id == "c0" { failed(503) } else { Outcome::Success });
    assert_ne!(first, "c0");
    assert_eq!(serves(&pool, 1, 70_000, |_| Outcome::Success), first, "and not to who was asked first");
}

#[test]
fn a_long_rest_lets_a_session_go_and_a_short_one_does_not() {
    let pool = sessions(kinds(Kind::Codex));
    let home = serves(&pool, 1, 0, |_| Outcome::Success);
    let once = |wait_ms| {
        let home = home.clone();
        move |id: &str| if id == home { hinted(429, wait_ms) } else { Outcome::Success }
    };
    let guest = serves(&pool, 1, 10, once(60_000));
    assert_ne!(guest, home);
    assert_eq!(serves(&pool, 1, 60_010, |_| Outcome::Success), home);
    let other = serves(&pool, 1, 60_020, once(400_000));
    assert_ne!(other, home);
    assert_eq!(serves(&pool, 1, 500_000, |_| Outcome::Success), other);
}

#[test]
fn a_conversation_that_begins_is_remembered_and_not_looked_for() {
    let pool = sessions(kinds(Kind::Claude));
    let route = pool.route("m", at(0)).unwrap();
    let ask = |begins| {
        let mut attempts = Attempts::default();
        attempts.conversation_begins(begins);
        let pick = pool.pick(&route, &mut attempts, Some(9), at(0), 0).unwrap();
        let id = pick.credential().id.to_string();
        pool.report(pick, &Outcome::Success, &mut attempts, at(0));
        id
    };
    let first: Vec<_> = (0..4).map(|_| ask(true)).collect();
    assert_eq!(first, ["c0", "c1", "c2", "c3"], "the same question is spread");
    assert_eq!([ask(false), ask(false)], ["c3", "c3"], "and goes on with who answered it last");
}

#[test]
fn the_quicker_of_two_serves_and_the_slow_one_is_tried_again() {
    let specs = vec![cred("slow", &[("m", "")]), cred("quick", &[("m", "")])];
    let pool = Pool::new(Settings { strategy: Strategy::LeastLoaded, ..Settings::default() }, specs);
    let route = pool.route("m", at(0)).unwrap();
    let mut now = 0;
    let mut ask = |seed| {
        now += 1000;
        let mut attempts = Attempts::default();
        let mut pick = pool.pick(&route, &mut attempts, None, at(now), seed).unwrap();
        let id = pick.credential().id.to_string();
        let took = if id == "slow" { 900 } else { 100 };
        pool.confirm(&mut pick, at(now + took));
        pool.report(pick, &Outcome::Success, &mut attempts, at(now + 950));
        id
    };
    let served: Vec<_> = (0..200).map(&mut ask).collect();
    let slow = served.iter().filter(|id| *id == "slow").count();
    // Both draws hit the slow one in a quarter of the cases.
    assert!((20..=80).contains(&slow), "{slow} of 200");
    let explained = pool.explain("m", at(now));
    let scores: Vec<_> = explained.candidates.iter().map(|c| (c.latency_ms, c.score)).collect();
    assert_eq!(scores, [(Some(900), Some(900_000)), (Some(100), Some(100_000))]);
}

#[test]
fn what_an_account_holds_is_served_by_it_or_by_nobody() {
    let mut holder = cred("holder", &[("m", "")]);
    holder.priority = -5;
    let pool = pool(vec![cred("other", &[("m", "")]), holder, cred("elsewhere", &[("n", "")])]);
    let route = pool.route("m", at(0)).unwrap();
    let owner = CredentialId::new("holder");
    let mut attempts = Attempts::default();
    let pick = pool.pick_owner(&route, &mut attempts, &owner, at(0)).unwrap().unwrap();
    assert_eq!(pick.credential().id, owner);
    let outcome = Outcome::Status { status: 429, body: b"", hint: None };
    assert_eq!(pool.report(pick, &outcome, &mut attempts, at(0)).next, Next::OtherCredential);
    let again = pool.pick_owner(&route, &mut attempts, &owner, at(0)).unwrap();
    assert_eq!(again.unwrap_err(), NoPick::Exhausted);
    let later = pool.pick_owner(&route, &mut Attempts::default(), &owner, at(1)).unwrap();
    assert!(matches!(later.unwrap_err(), NoPick::Cooling { .. }));
    let stranger = CredentialId::new("elsewhere");
    assert!(pool.pick_owner(&route, &mut Attempts::default(), &stranger, at(0)).is_none());
}
