//! Which model serves in place of another.

use super::*;

fn with_fallbacks(lists: &[(&str, &[&str])], specs: Vec<CredentialSpec>) -> Pool {
    let list = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
    let fallback_models = lists.iter().map(|(name, names)| ((*name).to_owned(), list(names))).collect();
    Pool::new(Settings { fallback_models, ..Settings::default() }, specs)
}

/// The models that serve in place of `model`, one after the other.
fn chain(pool: &Pool, model: &str, now: Now) -> Vec<String> {
    let mut route = pool.route(model, now).unwrap();
    let mut names = Vec::new();
    while let Some(next) = pool.fallback(&route, now) {
        assert!(next.is_fallback() && next.asked() == model);
        names.push(next.model().to_owned());
        route = next;
    }
    names
}

#[test]
fn row_79_the_list_of_the_asked_name_counts_and_is_tried_in_order() {
    let lists: [(&str, &[&str]); 2] =
        [("spark", &["codex", "unknown", "Mini"]), ("codex", &["spark", "mini"])];
    let pool = with_fallbacks(&lists, vec![cred("a", &[("spark", ""), ("codex", ""), ("mini", "")])]);
    assert_eq!(chain(&pool, "spark", at(0)), ["codex", "mini"]);
    assert_eq!(chain(&pool, "SPARK(high)", at(0)), ["codex", "mini"]);
    assert_eq!(
        chain(&pool, "codex", at(0)),
        ["spark", "mini"],
        "no circle: the list of spark is not followed"
    );
    assert_eq!(chain(&pool, "mini", at(0)), [""; 0]);
    let route = pool.route("spark", at(0)).unwrap();
    assert!(!route.is_fallback() && pool.fallback(&route.without_fallbacks(), at(0)).is_none());
}

#[test]
fn c17_a_fallback_that_rests_itself_is_passed_over_and_one_that_rests_on_a_guess_is_not() {
    let lists: [(&str, &[&str]); 1] = [("m", &["limited", "shaky", "good"])];
    let names = [("m", ""), ("limited", ""), ("shaky", ""), ("good", "")];
    let pool = with_fallbacks(&lists, vec![cred("a", &names)]);
    request(&pool, "limited", at(0), |_| failed(429)).1.unwrap_err();
    request(&pool, "shaky", at(0), |_| failed(503)).1.unwrap_err();
    assert_eq!(chain(&pool, "m", at(1)), ["shaky", "good"]);
    assert_eq!(chain(&pool, "m", at(3_600_000)), ["limited", "shaky", "good"]);
}

#[test]
fn a_fallback_serves_for_a_name_that_nobody_has() {
    let lists: [(&str, &[&str]); 2] = [("gone", &["limited", "good"]), ("lost", &["also-lost"])];
    let pool = with_fallbacks(&lists, vec![cred("a", &[("limited", ""), ("good", "")])]);
    request(&pool, "limited", at(0), |_| failed(429)).1.unwrap_err();
    let route = pool.route("Gone(low)", at(1)).unwrap();
    assert_eq!((route.model(), route.asked(), route.is_fallback()), ("good", "Gone(low)", true));
    assert_eq!(route.thinking(), Some(Mode::Level(Level::Low)));
    assert!(pool.fallback(&route, at(1)).is_none());
    assert!(pool.route("lost", at(1)).is_err() && pool.route("other", at(1)).is_err());
}

#[test]
fn a_suffix_goes_along_unless_the_list_has_its_own() {
    let lists: [(&str, &[&str]); 1] = [("m", &["a", "b(none)"])];
    let pool = with_fallbacks(&lists, vec![cred("x", &[("m", ""), ("a", ""), ("b", "")])]);
    let first = pool.fallback(&pool.route("m(high)", at(0)).unwrap(), at(0)).unwrap();
    assert_eq!(first.thinking(), Some(Mode::Level(Level::High)));
    assert_eq!(pool.fallback(&first, at(0)).unwrap().thinking(), Some(Mode::Off));
}

#[test]
fn row_79_a_model_that_fails_too_often_is_served_by_its_fallback_until_it_recovers() {
    let bad = cred("bad", &[("spark", "")]);
    let pool = with_fallbacks(&[("spark", &["codex"])], vec![bad, cred("good", &[("codex", "")])]);
    let ask = |now: u64, outcome: Outcome<'static>| {
        let route = pool.route("spark(high)", at(now)).unwrap();
        if !route.is_fallback() {
            let mut attempts = Attempts::default();
            let pick = pool.pick(&route, &mut attempts, None, at(now), 0).unwrap();
            pool.report(pick, &outcome, &mut attempts, at(now));
            pool.forgive(&CredentialId::new("bad"), None);
        }
        route
    };
    // One error in twenty attempts warns.
    ask(0, failed(500));
    (0..18).for_each(|_| drop(ask(0, Outcome::Success)));
    assert_eq!(pool.error_ratio("spark", at(0)).unwrap().level, RatioLevel::Ok);
    ask(0, Outcome::Success);
    assert_eq!(pool.error_ratio("spark", at(0)).unwrap().level, RatioLevel::Warn);
    assert!(!ask(0, failed(429)).is_fallback());
    assert_eq!(pool.error_ratio("SPARK", at(0)).unwrap().level, RatioLevel::Critical);
    let explained = pool.explain("spark", at(0));
    assert_eq!((explained.serves.as_deref(), explained.instead.is_some()), (Some("codex"), true));
    // The fallback serves at once, with the suffix; few requests still try the first.
    let routes: Vec<_> = (0..40).map(|_| ask(0, failed(500))).collect();
    assert_eq!(routes.iter().filter(|route| !route.is_fallback()).count(), 2);
    let detour = routes.iter().find(|route| route.is_fallback()).unwrap();
    assert_eq!((detour.model(), detour.asked()), ("codex", "spark(high)"));
    assert_eq!(detour.turned_from(), Some("spark"));
    assert_eq!(detour.thinking(), Some(Mode::Level(Level::High)));
    // When the fallback cannot serve either, the model that was asked for is tried at last.
    let home = pool.fallback(detour, at(0)).unwrap();
    assert_eq!((home.model(), home.is_fallback(), home.thinking()), ("spark", false, detour.thinking()));
    assert!(pool.fallback(&home, at(0)).is_none());
    assert_eq!(pool.error_ratios(at(0)).len(), 1, "only what had attempts is told");
    // Ten minutes later nothing is known any more.
    assert!(!ask(700_000, Outcome::Success).is_fallback());
    // A reload forgets nothing.
    (0..20).for_each(|_| drop(ask(700_000, failed(500))));
    let before = pool.error_ratio("spark", at(700_000)).unwrap();
    let specs = vec![cred("bad", &[("spark", "")]), cred("good", &[("codex", "")])];
    pool.update(Settings::default(), specs);
    assert_eq!(pool.error_ratio("spark", at(700_000)), Some(before));
}

#[test]
fn what_clients_do_wrong_is_no_error_of_the_model() {
    let pool = with_fallbacks(&[("m", &["n"])], vec![cred("a", &[("m", ""), ("n", "")])]);
    for outcome in [failed(400), failed(413), Outcome::ClientGone] {
        (0..30).for_each(|_| drop(request(&pool, "m", at(0), |_| outcome)));
    }
    assert_eq!(pool.error_ratio("m", at(0)), Some(ErrorRatio::default()));
    assert_eq!(pool.error_ratio("none", at(0)), None);
}

#[test]
fn c19_spark_is_served_by_codex_where_it_is_refused_and_hidden_until_the_account_is_renewed() {
    const SPARK: &str = "gpt-5.3-codex-spark";
    let body = br#"{"detail":"The 'gpt-5.3-codex-spark' model is not supported when using Codex with a ChatGPT account."}"#;
    let specs = |secret: &str| {
        let names = [(SPARK, ""), ("gpt-5.3-codex", "")];
        vec![CredentialSpec { secret: SecretString::from(secret), ..cred("codex-plus.json", &names) }]
    };
    let config = config::load(b"{}").unwrap_or_else(|broken| panic!("{broken}")).config;
    let settings = from_config(&config, &[]).0;
    let pool = Pool::new(settings.clone(), specs("old"));
    let refused = |_: &Pick| Outcome::Status { status: 400, body, hint: None };
    request(&pool, SPARK, at(0), refused).1.unwrap_err();
    assert_eq!(chain(&pool, SPARK, at(1)), ["gpt-5.3-codex"]);
    let listed = |now| pool.models(at(now)).iter().map(|l| l.id.to_string()).collect::<Vec<_>>();
    assert_eq!(listed(1), ["gpt-5.3-codex"]);
    let none = request(&pool, SPARK, at(1), refused).1.unwrap_err();
    assert!(matches!(none, NoPick::Unavailable { gone: true, .. }), "{none:?}");
    pool.update(settings.clone(), specs("old"));
    assert_eq!(listed(2), ["gpt-5.3-codex"]);
    pool.update(settings, specs("new login"));
    assert_eq!(listed(3), ["gpt-5.3-codex", SPARK]);
}
