//! Accounts whose tokens run out, are refused, or are good for nothing any more.

use crate::shared::{CLAUDE, proxy_with_accounts, text_of, whole};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use testkit::upstream::{Seen, Step, Upstream, json};

const OLD: &str = "Bearer old-token";
const NEW: &str = "Bearer new-token";

/// An upstream of Claude that knows the new token only; its token endpoint answers with `grant`.
fn claude(grant: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |seen| match (seen.path.as_str(), seen.header("authorization")) {
        ("/v1/oauth/token", _) => grant(seen),
        (path, Some(NEW)) => whole(&path.replace("/v1/messages", "/claude/v1/messages")),
        _ => {
            vec![json(401, r#"{"type":"error","error":{"type":"authentication_error","message":"expired"}}"#)]
        }
    })
}

fn account(url: &str, more: &str) -> String {
    format!(
        r#"{{"type":"claude","access_token":"old-token","refresh_token":"refresh-1","email":"a@b.test","mine":{{"kept":1.50}},"base_url":"{url}"{more}}}"#
    )
}

fn tokens(file: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(file).expect("the account")).expect("JSON")
}

fn grants(upstream: &Upstream) -> usize {
    upstream.seen().iter().filter(|seen| seen.path == "/v1/oauth/token").count()
}

const GRANT: &str = r#"{"access_token":"new-token","refresh_token":"refresh-2","expires_in":36000}"#;

#[test]
fn p19_many_requests_whose_token_is_refused_renew_it_once_and_all_are_answered() {
    let upstream = claude(|_| vec![Step::Sleep(Duration::from_millis(200)), json(200, GRANT)]);
    let proxy = Arc::new(proxy_with_accounts("", &[("claude-a.json", &account(&upstream.url(), ""))]));
    let body = CLAUDE.body("claude-sonnet-4-5-20250929", false);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (proxy, body) = (Arc::clone(&proxy), body.clone());
            std::thread::spawn(move || proxy.post(CLAUDE.path, &body))
        })
        .collect();
    for client in clients {
        let answer = client.join().expect("a client");
        assert_eq!(answer.head.status, 200, "{}\n{}", answer.text(), proxy.log());
        assert_eq!(text_of(&CLAUDE, &answer.text()), "Hello");
    }
    assert_eq!(grants(&upstream), 1, "one renewal for all");
    let grant = upstream.seen().into_iter().find(|seen| seen.path == "/v1/oauth/token").expect("a grant");
    assert_eq!(grant.json()["refresh_token"], "refresh-1");
    let file = proxy.folder().join("auths/claude-a.json");
    let kept = tokens(&file);
    assert_eq!(
        (kept["access_token"].as_str(), kept["refresh_token"].as_str()),
        (Some("new-token"), Some("refresh-2"))
    );
    assert_eq!(kept["mine"].to_string(), r#"{"kept":1.5}"#, "members that nobody knows stay");
    let calls = upstream.seen().len();
    assert_eq!(proxy.post(CLAUDE.path, &body).head.status, 200);
    assert_eq!(upstream.seen().len(), calls + 1, "the new token is used from then on");
    let log = proxy.log();
    assert!(!log.contains("refresh-") && !log.contains("-token"), "no token is told: {log}");
}

#[test]
fn a_login_that_is_over_is_asked_once_and_serves_again_when_its_file_changes() {
    let upstream = claude(|_| vec![json(400, r#"{"error":"invalid_grant","error_description":"revoked"}"#)]);
    let proxy = proxy_with_accounts("", &[("claude-a.json", &account(&upstream.url(), ""))]);
    let body = CLAUDE.body("claude-sonnet-4-5-20250929", false);
    for _ in 0..3 {
        let answer = proxy.post(CLAUDE.path, &body);
        assert!(answer.head.status >= 400, "{}", answer.text());
    }
    assert_eq!(grants(&upstream), 1, "{}", proxy.log());
    assert!(proxy.log().contains("log in again"), "{}", proxy.log());
    let file = proxy.folder().join("auths/claude-a.json");
    std::fs::write(&file, account(&upstream.url(), "").replace("old-token", "new-token")).expect("a login");
    let served = AtomicUsize::new(0);
    for _ in 0..100 {
        if proxy.post(CLAUDE.path, &body).head.status == 200 {
            served.fetch_add(1, Ordering::Relaxed);
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(served.load(Ordering::Relaxed), 1, "{}", proxy.log());
}

#[test]
fn a_token_is_renewed_before_it_runs_out() {
    let upstream = claude(|_| vec![json(200, GRANT)]);
    let soon = account(&upstream.url(), r#","expired":"2020-01-01T00:00:00Z""#);
    let proxy = proxy_with_accounts("", &[("claude-a.json", &soon)]);
    assert!(upstream.wait(Duration::from_secs(8), |seen| seen.iter().any(|s| s.path == "/v1/oauth/token")));
    let body = CLAUDE.body("claude-sonnet-4-5-20250929", false);
    for _ in 0..100 {
        if proxy.log().contains("token renewed") {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(proxy.post(CLAUDE.path, &body).head.status, 200, "{}", proxy.log());
    assert!(
        upstream.seen().iter().all(|seen| seen.header("authorization") != Some(OLD)),
        "nobody used the old one"
    );
    let beta = upstream.seen().iter().find_map(|seen| seen.header("anthropic-beta").map(str::to_owned));
    assert_eq!(beta.as_deref(), Some("oauth-2025-04-20"));
}
