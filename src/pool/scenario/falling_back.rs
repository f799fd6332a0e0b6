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
