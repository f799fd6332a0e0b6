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
