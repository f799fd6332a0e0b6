//! Tests of the pool as a whole: one request after the other, as the data path drives it.

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

mod routing {
    use super::*;

    fn found(pool: &Pool, model: &str) -> Option<(String, Option<Mode>)> {
        pool.route(model, at(0)).ok().map(|route| (route.model().to_owned(), route.thinking()))
    }

    #[test]
    fn names_suffixes_prefixes_and_aliases() {
        let mut team = cred("t", &[("m1", "fast"), ("odd(x)", "odd(x)")]);
        team.prefix = Some("team-a".into());
        let pool = pool(vec![cred("a", &[("gpt-5", ""), ("Upper-Case", "")]), team]);
        let high = Some(Mode::Level(Level::High));
        for (asked, model, thinking) in [
            ("gpt-5", "gpt-5", None),
            ("GPT-5", "gpt-5", None),
            ("gpt-5(high)", "gpt-5", high),
            ("gpt-5(8192)", "gpt-5", Some(Mode::Budget(8192))),
            ("gpt-5(whatever)", "gpt-5", None),
            ("upper-case", "Upper-Case", None),
            ("fast", "fast", None),
            ("team-a/fast", "team-a/fast", None),
            ("team-a/fast(high)", "team-a/fast", high),
            ("odd(x)", "odd(x)", None),
            ("odd(x)(high)", "odd(x)", high),
        ] {
            assert_eq!(found(&pool, asked), Some((model.to_owned(), thinking)), "{asked}");
        }
        assert_eq!(served(&pool, "team-a/fast(high)", at(0)), "t:m1");
        for unknown in ["gpt-6", "other/fast", "team-a/gpt-5", "", "gpt-5(", "(high)", "team-a/"] {
            assert_eq!(found(&pool, unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_forced_prefix_hides_the_plain_name() {
        let mut specs = vec![cred("a", &[("m", ""), ("p", "")])];
        specs[0].prefix = Some("p".into());
        let settings = Settings { force_model_prefix: true, ..Settings::default() };
        let pool = Pool::new(settings, specs);
        let ids: Vec<_> = pool.models(at(0)).iter().map(|listed| listed.id.to_string()).collect();
        // The model that is named like the prefix keeps its plain name.
        assert_eq!(ids, ["p", "p/m", "p/p"]);
    }

    #[test]
    fn an_unknown_model_is_told_with_the_closest_names() {
        let pool = pool(vec![cred("a", &[("claude-sonnet-4-5", ""), ("gpt-5", "")])]);
        let error = pool.route("claude-sonet-4-5(high)", at(0)).unwrap_err();
        assert_eq!(error.to_string(), "unknown provider for model claude-sonet-4-5(high)");
        let RouteError::Unknown { closest, .. } = error;
        assert_eq!(closest, ["claude-sonnet-4-5"]);
        assert!(pool.closest("gpt5", &|name| name != "gpt-5").is_empty());
        let RouteError::Unknown { model, .. } = pool.route(&"x".repeat(1 << 20), at(0)).unwrap_err();
        assert_eq!(model.len(), 200);
    }

    #[test]
    fn auto_is_the_newest_model_that_somebody_can_serve() {
        let aged = |name: &str, created, image| ModelSpec {
            created: Some(created),
            image,
            ..ModelSpec::new(name, "")
        };
        let set = ModelSet::new([aged("old", 1, false), aged("new", 3, false), aged("draws", 9, true)]);
        let pool = pool(vec![CredentialSpec::new(CredentialId::new("a"), "p", Kind::Chat, set)]);
        assert_eq!(found(&pool, "auto(high)"), Some(("new".into(), Some(Mode::Level(Level::High)))));
        let (_, verdict) = request(&pool, "new", at(0), |_| failed(403));
        assert_eq!(verdict.unwrap_err(), NoPick::Exhausted);
        assert_eq!(found(&pool, "auto").unwrap().0, "old");
    }

    #[test]
    fn disabled_credentials_serve_nothing() {
        let mut off = cred("a", &[("m", "")]);
        off.disabled = true;
        let pool = pool(vec![off]);
        assert!(pool.route("m", at(0)).is_err());
        assert!(pool.models(at(0)).is_empty());
        let explained = pool.explain("m", at(0));
        assert_eq!((explained.model, explained.candidates[0].standing), (None, Standing::Disabled));
    }
}

mod choosing {
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
}

mod cooling {
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
        pool.confirm(&mut probe);
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
        assert!(ask(30_999).is_err());
        assert!(ask(31_000).unwrap().is_probe());
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
        let NoPick::Unavailable { reasons, total: 1 } = end.unwrap_err() else { panic!() };
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
        let bad =
            Outcome::Status { status: 401, body: br#"{"error":{"code":"invalid_api_key"}}"#, hint: None };
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
            let ask = |mono_ms| {
                pool.pick(&route, &mut Attempts::default(), None, Now { mono_ms, wall_s }, 0).map(drop)
            };
            assert!(ask(59_999).is_err(), "{wall_s}");
            assert!(ask(60_000).is_ok(), "{wall_s}");
        }
        let far =
            hints::hint(|name| (name == "retry-after").then_some("Fri, 15 Jan 2527 08:01:00 GMT"), b"", 0);
        let outcome = Outcome::Status { status: 429, body: b"", hint: far };
        request(&pool, "m", at(70_000), |_| outcome).1.unwrap_err();
        assert_eq!(served(&pool, "m", at(70_000 + 3_600_000)), "a:m");
    }
}

mod ending {
    use super::*;

    #[test]
    fn nothing_is_retried_once_the_client_has_seen_a_byte() {
        for outcome in [failed(429), failed(503), failed(401), Outcome::Cut, Outcome::Timeout(Phase::Idle)] {
            let pool = pool(vec![cred("a", &[("m", "")]), cred("b", &[("m", "")])]);
            let route = pool.route("m", at(0)).unwrap();
            let mut attempts = Attempts::default();
            let mut pick = pool.pick(&route, &mut attempts, None, at(0), 0).unwrap();
            pool.confirm(&mut pick);
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
        for (status, rounds) in
            [(403, 2), (408, 2), (429, 2), (500, 2), (503, 2), (529, 2), (401, 0), (402, 0)]
        {
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
}

mod reloading {
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
}

mod showing {
    use super::*;

    #[test]
    fn lists_are_sorted_and_name_the_provider_of_the_metrics() {
        let mut high = cred("b", &[("b", ""), ("c", "")]);
        high.priority = 1;
        high.provider = "high".into();
        let pool = pool(vec![cred("a", &[("c", ""), ("a", "")]), high]);
        let listed: Vec<_> =
            pool.models(at(0)).iter().map(|l| (l.id.to_string(), l.provider.to_string())).collect();
        let expected = [("a", "mock"), ("b", "high"), ("c", "high")];
        assert_eq!(listed, expected.map(|(id, provider)| (id.to_owned(), provider.to_owned())));
    }

    #[test]
    fn an_explanation_says_who_is_in_and_why_others_are_out() {
        let mut full = cred("b", &[("m", "")]);
        full.in_flight_limit = Some(0);
        let pool = pool(vec![cred("a", &[("x", "m"), ("y", "m")]), full]);
        request(&pool, "m", at(0), |_| failed(429)).1.unwrap_err();
        let explained = pool.explain("m(high)", at(0));
        assert_eq!(explained.model.as_deref(), Some("m"));
        assert_eq!(explained.candidates[0].upstream, ["x", "y"]);
        assert!(matches!(explained.candidates[0].standing, Standing::Cooling(_)));
        assert_eq!(explained.candidates[1].standing, Standing::Full);
        let text = serde_json::to_string(&explained).unwrap();
        assert!(
            text.contains(r#""standing":{"state":"cooling","class":"rate_limit","scope":"model""#),
            "{text}"
        );
        assert_eq!(pool.explain("n", at(0)).model, None);
    }
}
