//! Names, suffixes, prefixes, unknown models.

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
    let aged =
        |name: &str, created, image| ModelSpec { created: Some(created), image, ..ModelSpec::new(name, "") };
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
