//! What outlives the process.

use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_oneof, proptest};

use super::*;
use crate::learnt::Login;

const HOUR: u64 = 3_600_000;

fn clocks(mono_ms: u64, wall_s: u64) -> Now {
    Now { mono_ms, wall_s }
}

fn specs() -> Vec<CredentialSpec> {
    let mut specs = vec![cred("a", &[("up-m", "m"), ("up-n", "n")]), cred("b", &[("up-m", "m")])];
    for spec in &mut specs {
        spec.secret = SecretString::from(format!("canary-{}", spec.id));
    }
    specs
}

fn settings() -> Settings {
    Settings { session_affinity_ms: HOUR, ..Settings::default() }
}

fn take(pool: &Pool, model: &str, session: Option<u64>, now: Now) -> Result<Pick, NoPick> {
    pool.pick(&pool.route(model, now).unwrap(), &mut Attempts::default(), session, now, 1)
}

fn fails(pool: &Pool, model: &str, outcome: &Outcome<'_>, now: Now) -> String {
    let pick = take(pool, model, None, now).unwrap();
    let id = pick.credential().id.to_string();
    pool.report(pick, outcome, &mut Attempts::default(), now);
    id
}

fn hint(wait_ms: u64) -> Outcome<'static> {
    Outcome::Status { status: 429, body: b"", hint: Some(Hint { wait_ms, scope: Scope::Credential }) }
}

/// A pool of another process that took up what the first one learnt.
fn next(pool: &Pool, specs: Vec<CredentialSpec>, left: Now, now: Now) -> (Pool, Recalled) {
    let learnt = pool.learnt(None, left);
    assert!(!format!("{learnt:?}").contains("canary"), "rows hold no secret");
    let next = Pool::new(settings(), specs);
    let recalled = next.recall(&learnt, now);
    next.check_invariants().unwrap();
    (next, recalled)
}

#[test]
fn p48_rests_and_sessions_outlive_the_process() {
    let pool = Pool::new(settings(), specs());
    let begin = clocks(5_000_000, 1_800_000_000);
    let cooled = fails(&pool, "m", &hint(HOUR), begin);
    let bound = take(&pool, "m", Some(7), begin).unwrap().credential().id.to_string();
    assert_ne!(cooled, bound);
    // Ten minutes later another process begins; its clock begins at zero.
    let (next, recalled) = next(&pool, specs(), begin, clocks(3, 1_800_000_600));
    assert_eq!(recalled, Recalled { credentials: 1, sessions: 1 });
    let status = next.credentials(clocks(3, 1_800_000_600));
    let rest = &status.iter().find(|s| s.id.as_str() == cooled).unwrap().cooling[0].1;
    assert!((HOUR - 601_000..=HOUR - 599_000).contains(&rest.left_ms), "{rest:?}");
    for _ in 0..9 {
        let pick = take(&next, "m", Some(7), clocks(4, 1_800_000_600)).unwrap();
        assert_eq!(pick.credential().id.as_str(), bound);
    }
}

#[test]
fn a_rest_that_ended_meanwhile_is_tested_by_one_request() {
    let pool = Pool::new(settings(), vec![specs().remove(0)]);
    fails(&pool, "m", &hint(60_000), clocks(0, 1000));
    let (next, recalled) = next(&pool, vec![specs().remove(0)], clocks(1, 1000), clocks(5, 1100));
    assert_eq!(recalled.credentials, 1);
    let probe = take(&next, "m", None, clocks(6, 1100)).unwrap();
    assert!(probe.is_probe());
    assert_eq!(take(&next, "m", None, clocks(7, 1100)).unwrap_err(), NoPick::Busy);
}

#[test]
fn p49_no_jump_of_the_wall_clock_makes_a_rest_eternal() {
    let pool = Pool::new(settings(), vec![specs().remove(0)]);
    fails(&pool, "m", &hint(HOUR), clocks(0, 1_800_000_000));
    let years = 10 * 365 * 86_400;
    let (back, _) =
        next(&pool, vec![specs().remove(0)], clocks(0, 1_800_000_000), clocks(1, 1_800_000_000 - years));
    let rest = back.credentials(clocks(1, 0))[0].cooling[0].1;
    assert_eq!(rest.left_ms, HOUR);
    let (forth, _) =
        next(&pool, vec![specs().remove(0)], clocks(0, 1_800_000_000), clocks(1, 1_800_000_000 + years));
    assert!(take(&forth, "m", None, clocks(1, 0)).is_ok());
}

#[test]
fn a_changed_key_begins_without_a_past() {
    let pool = Pool::new(settings(), specs());
    let cooled = fails(&pool, "m", &hint(HOUR), clocks(0, 1000));
    let _ = take(&pool, "m", Some(7), clocks(0, 1000)).unwrap();
    let mut changed = specs();
    for spec in &mut changed {
        spec.secret = SecretString::from("another");
    }
    assert_eq!(next(&pool, changed, clocks(0, 1000), clocks(1, 1000)).1, Recalled::default());
    let mut renamed = specs();
    for spec in &mut renamed {
        spec.priority += 1;
    }
    let (same, recalled) = next(&pool, renamed, clocks(0, 1000), clocks(1, 1000));
    assert_eq!(recalled, Recalled { credentials: 1, sessions: 1 }, "{cooled} is the same account");
    drop(same);
    let spec = &specs()[0];
    let different: [fn(&mut CredentialSpec); 5] = [
        |spec| spec.base_url = "https://other.test".into(),
        |spec| spec.scope = "other".into(),
        |spec| spec.kind = Kind::Claude,
        |spec| spec.proxy = Proxy::Direct,
        |spec| spec.headers = vec![("x".into(), SecretString::from("y"))],
    ];
    for change in different {
        let mut other = spec.clone();
        change(&mut other);
        assert_ne!(Login::of(spec), Login::of(&other));
    }
}

#[test]
fn a_renewed_token_is_the_same_login_unless_it_was_the_token_that_was_refused() {
    let token = |secret: &str, owner: &str| {
        let mut spec = specs().remove(0);
        (spec.is_token, spec.refreshable, spec.label) = (true, true, owner.into());
        spec.secret = SecretString::from(secret);
        vec![spec]
    };
    let now = clocks(0, 1000);
    let recalled = |outcome: &Outcome<'_>, spec: Vec<CredentialSpec>| {
        let pool = Pool::new(settings(), token("old", "a@b.test"));
        fails(&pool, "m", outcome, now);
        next(&pool, spec, now, clocks(1, 1000)).1.credentials
    };
    let refused = Outcome::RefreshFailed { needs_login: true };
    assert_eq!(recalled(&hint(HOUR), token("new", "a@b.test")), 1);
    assert_eq!(recalled(&hint(HOUR), token("new", "c@d.test")), 0, "somebody else logged in");
    assert_eq!(recalled(&refused, token("old", "a@b.test")), 1);
    assert_eq!(recalled(&refused, token("new", "a@b.test")), 0);
}

#[test]
fn an_account_that_may_not_use_a_model_is_remembered_for_that_model() {
    let pool = Pool::new(settings(), vec![specs().remove(0)]);
    let body = br#"{"detail":"The 'up-m' model is not supported when using Codex with a ChatGPT account."}"#;
    let refused = Outcome::Status { status: 400, body, hint: None };
    let now = clocks(0, 1000);
    fails(&pool, "m", &refused, now);
    let (next, recalled) = next(&pool, vec![specs().remove(0)], now, clocks(1, 1000 + 3600));
    assert_eq!(recalled.credentials, 1);
    let rest = next.credentials(clocks(1, 0))[0].cooling[0].clone();
    assert_eq!((rest.0.as_deref(), rest.1.class), (Some("up-m"), Class::Entitlement));
    assert_eq!(rest.1.left_ms, 23 * HOUR);
    assert!(take(&next, "n", None, clocks(1, 4600)).is_ok());
}

#[test]
fn only_what_changed_is_asked_for_again() {
    let pool = Pool::new(settings(), specs());
    assert_eq!(pool.learnt(Some(0), clocks(0, 0)), Learnt::default());
    let id = fails(&pool, "m", &failed(500), clocks(1, 0));
    let learnt = pool.learnt(Some(1), clocks(1, 0));
    assert_eq!((learnt.health.len(), &learnt.health[0].credential), (1, &id));
    assert!(learnt.health[0].text.is_some());
    assert!(pool.learnt(Some(2), clocks(2, 0)).health.is_empty());
    assert!(pool.forgive(&CredentialId::new(&id), None));
    let healed = HealthRow { credential: id, text: None };
    assert_eq!(pool.learnt(Some(3), clocks(3, 0)).health, [healed]);
    assert_eq!(pool.learnt(None, clocks(3, 0)).health, []);
}

#[test]
fn rows_of_another_version_and_of_nobody_teach_nothing() {
    let pool = Pool::new(settings(), specs());
    fails(&pool, "m", &hint(HOUR), clocks(0, 1000));
    let mut learnt = pool.learnt(None, clocks(0, 1000));
    let row = learnt.health[0].text.clone().unwrap();
    assert!(!Pool::is_stale(&row, clocks(0, 1000)));
    assert!(Pool::is_stale(&row, clocks(0, 1000 + 3 * 3600)));
    assert!(Pool::is_stale("[]", clocks(0, 1000)));
    learnt.health[0].text = Some(row.replace(r#""v":1"#, r#""v":2"#));
    let nobody = HealthRow { credential: "nobody".to_owned(), text: Some(row.clone()) };
    learnt.health.push(nobody);
    assert_eq!(Pool::new(settings(), specs()).recall(&learnt, clocks(0, 1000)), Recalled::default());
    let unknown = row.replace("rate_limit", "new_class");
    assert_ne!(unknown, row);
    learnt.health[0].text = Some(unknown);
    assert_eq!(Pool::new(settings(), specs()).recall(&learnt, clocks(0, 1000)), Recalled::default());
}

/// A row as it might be found: a good one with a few bytes changed, or numbers from anywhere.
fn found() -> impl Strategy<Value = String> {
    let login = serde_json::to_string(&Login::of(&specs()[0])).unwrap();
    let login = login.trim_matches(['{', '}']).to_owned();
    let number = prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 0..3_000_000_000_000_u64];
    let classes =
        prop_oneof![Just("quota"), Just("rate_limit"), Just("entitlement"), Just("success"), Just("x")];
    let model = prop_oneof![Just(""), Just(r#""model":"up-m","#), Just(r#""model":"gone","#)];
    let good = (classes, model, number.clone(), number, any::<u32>(), any::<bool>()).prop_map(
        move |(class, model, failed, until, level, soft)| {
            format!(
                r#"{{"v":1,{login},"records":[{{{model}"class":"{class}","failed_ms":{failed},"until_ms":{until},"level":{level},"soft":{soft}}}]}}"#
            )
        },
    );
    let broken = (good.clone(), any::<prop::sample::Index>(), any::<char>()).prop_map(|(text, at, new)| {
        let mut characters: Vec<char> = text.chars().collect();
        let at = at.index(characters.len());
        characters[at] = new;
        characters.into_iter().collect()
    });
    prop_oneof![good, broken, any::<String>()]
}

proptest! {
    #[test]
    fn whatever_is_found_nothing_breaks_and_nobody_rests_for_ever(
        rows in prop::collection::vec((found(), found(), any::<u64>()), 0..4),
        mono_ms in 0..u64::MAX / 2,
        wall_s in prop_oneof![Just(0), Just(u64::MAX), 0..4_000_000_000_u64],
    ) {
        let now = Now { mono_ms, wall_s };
        let learnt = Learnt {
            health: rows.iter().map(|(text, _, _)| HealthRow {
                credential: "a".to_owned(),
                text: Some(text.clone()),
            }).collect(),
            sessions: rows.iter().map(|(_, text, key)| SessionRow {
                key: *key,
                    credential: String::new(),
                used_ms: 0,
                text: text.replace("records", "credential"),
            }).collect(),
        };
        let pool = Pool::new(settings(), specs());
        pool.recall(&learnt, now);
        pool.check_invariants().unwrap();
        let stale = rows.iter().filter(|(text, _, _)| Pool::is_stale(text, now)).count();
            prop_assert!(stale <= rows.len());
        let later = Now { mono_ms: mono_ms + 24 * HOUR, wall_s };
        let resting = pool.credentials(later);
        prop_assert!(resting.iter().all(|status| status.cooling.is_empty()), "{:?}", resting);
        fails(&pool, "m", &hint(HOUR), later);
        pool.learnt(None, later);
    }
}
