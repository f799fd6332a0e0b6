//! Lists and explanations.

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
    assert!(text.contains(r#""standing":{"state":"cooling","class":"rate_limit","scope":"model""#), "{text}");
    assert_eq!(pool.explain("n", at(0)).model, None);
}

#[test]
fn an_explanation_says_who_is_chosen_from_and_what_serves_in_place() {
    let mut high = cred("high", &[("m", ""), ("other", "")]);
    high.priority = 3;
    high.kind = Kind::Claude;
    let list = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
    let settings = Settings {
        session_affinity_ms: 1000,
        affinity_without_cache: false,
        fallback_models: [("m".to_owned(), list(&["gone", "other"]))].into(),
        ..Settings::default()
    };
    let pool = Pool::new(settings, vec![cred("low", &[("m", "")]), high]);
    let seen = |now| {
        let explained = pool.explain("m(high)", at(now));
        let of = |e: &Explained| (e.label.clone(), e.rank, e.chosen_from, e.keeps_sessions);
        (explained.candidates.iter().map(of).collect::<Vec<_>>(), explained)
    };
    let (candidates, explained) = seen(0);
    assert_eq!(candidates, [("high".to_owned(), 0, true, true), ("low".to_owned(), 1, false, false)]);
    assert_eq!((explained.serves.as_deref(), explained.instead), (Some("m"), None));
    assert_eq!(explained.thinking.as_deref(), Some("high"));
    let fallbacks: Vec<_> = explained.fallbacks.iter().map(|f| (&*f.model, f.listed, f.ready)).collect();
    assert_eq!(fallbacks, [("gone", false, false), ("other", true, true)]);
    request(&pool, "m", at(0), |_| hinted(429, 5000)).1.unwrap_err();
    let (candidates, explained) = seen(1000);
    assert!(candidates.iter().all(|(.., chosen, _)| !chosen));
    assert_eq!(explained.serves.as_deref(), Some("other"));
    assert_eq!(explained.candidates[0].why, "rests 4 s after rate_limit (status 429)");
    assert_eq!((explained.errors.attempts, explained.errors.errors), (2, 2));
    let over = pool.explain("m", at(9000)).candidates.remove(0);
    let trouble = over.trouble.map(|rest| (rest.class, rest.status, rest.left_ms));
    assert_eq!((over.standing, trouble), (Standing::Ready, Some((Class::RateLimit, Some(429), 0))));
    let nobody = pool.explain("none", at(0));
    assert_eq!((nobody.model, nobody.serves, nobody.candidates.len()), (None, None, 0));
}
