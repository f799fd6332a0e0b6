//! What a reload keeps.

use super::*;

#[test]
fn state_lives_on_under_its_id() {
    let specs = || vec![cred("a", &[("m", "")]), cred("b", &[("m", "")])];
    let pool = pool(specs());
    let route = pool.route("m", at(0)).unwrap();
    let held = pool.pick(&route, &mut Attempts::default(), None, at(0), 0).unwrap();
    request(&pool, "m", at(0), |_| failed(429)).1.unwrap_err();
    pool.update(Settings::default(), specs());
    assert!(request(&pool, "m", at(1), |_| Outcome::Success).1.is_err(), "the rests are kept");
    assert_eq!(pool.credentials(at(0)).iter().map(|s| s.in_flight).sum::<u32>(), 1);
    drop(held);
    pool.check_invariants().unwrap();
    let mut changed = specs();
    changed[1].secret = SecretString::from("new key");
    pool.update(Settings::default(), changed);
    assert_eq!(served(&pool, "m", at(2)), "b:m", "another key is another account");
}

#[test]
fn a_request_keeps_the_configuration_it_came_under() {
    let pool = pool(vec![cred("a", &[("old", "m")])]);
    let route = pool.route("m", at(0)).unwrap();
    pool.update(Settings::default(), vec![cred("b", &[("new", "m")])]);
    let pick = pool.pick(&route, &mut Attempts::default(), None, at(0), 0).unwrap();
    assert_eq!(&*pick.model().upstream, "old");
    assert_eq!(served(&pool, "m", at(0)), "b:new");
    drop(pick);
    pool.check_invariants().unwrap();
}

#[test]
fn turns_go_on_where_they_were() {
    let specs = |n: usize| (0..n).map(|n| cred(&format!("c{n}"), &[("m", "")])).collect::<Vec<_>>();
    let pool = pool(specs(3));
    let mut order = Vec::new();
    for _ in 0..6 {
        order.push(served(&pool, "m", at(0)));
        pool.update(Settings::default(), specs(3));
    }
    assert_eq!(order, ["c0:m", "c1:m", "c2:m", "c0:m", "c1:m", "c2:m"]);
    pool.update(Settings::default(), specs(5));
    assert_eq!(served(&pool, "m", at(0)), "c3:m");
    pool.update(Settings::default(), specs(4));
    assert_eq!(served(&pool, "m", at(0)), "c0:m");
}

#[test]
fn what_was_loaded_is_told() {
    let mut other = cred("b", &[("m", ""), ("n", "")]);
    other.provider = "other".into();
    let repeated = cred("a", &[("x", "")]);
    let pool = Pool::default();
    let loaded = pool.update(Settings::default(), vec![cred("a", &[("m", "")]), other, repeated]);
    assert_eq!((loaded.credentials, loaded.models), (2, 2));
    assert_eq!(loaded.repeated, [CredentialId::new("a")]);
    let shared = SharedModel { model: "m".into(), providers: vec!["mock".into(), "other".into()] };
    assert_eq!(loaded.shared, [shared]);
}

#[test]
fn requests_of_many_threads_and_reloads_lose_no_slot() {
    let specs = |turn: usize| {
        let mut specs: Vec<_> = (0..6).map(|n| cred(&format!("c{n}"), &[("m", ""), ("n", "")])).collect();
        specs[turn % 6].in_flight_limit = Some(2);
        specs[(turn + 1) % 6].priority = 1;
        specs.remove((turn + 3) % 6);
        specs
    };
    let pool = pool(specs(0));
    let client = |thread: u64| {
        for n in 0..2000 {
            let now = at(n * 10);
            let Ok(route) = pool.route(if n % 2 == 0 { "m" } else { "n" }, now) else { continue };
            let mut attempts = Attempts::default();
            while let Ok(pick) = pool.pick(&route, &mut attempts, Some(n % 7), now, n) {
                let outcome = match (n + thread) % 5 {
                    0 => failed(429),
                    1 => failed(500),
                    2 => Outcome::ClientGone,
                    _ => Outcome::Success,
                };
                pool.report(pick, &outcome, &mut attempts, now);
            }
        }
    };
    std::thread::scope(|scope| {
        (0..4).for_each(|thread| drop(scope.spawn(move || client(thread))));
        (0..200).for_each(|turn| drop(pool.update(Settings::default(), specs(turn))));
    });
    pool.check_invariants().unwrap();
    assert!(pool.credentials(at(0)).iter().all(|status| status.in_flight == 0));
    assert!(!served(&pool, "m", at(100_000_000)).is_empty(), "and nobody waits for ever");
}
