//! Renewals of tokens: one call for all, written before used, and what a failure means.

use crate::shared::{CHAT, CLAUDE, proxy_with_accounts, text_of, whole};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use testkit::proxy::Proxy;
use testkit::upstream::{Seen, Step, Upstream, json};

const MODEL: &str = "claude-sonnet-4-5-20250929";

fn refused() -> Vec<Step> {
    vec![json(401, r#"{"type":"error","error":{"type":"authentication_error","message":"expired"}}"#)]
}

fn account(url: &str, more: &str) -> String {
    format!(
        r#"{{"type":"claude","access_token":"old-token","refresh_token":"refresh-1","base_url":"{url}"{more}}}"#
    )
}

/// Waits until `found` holds of the log.
fn log_until(proxy: &Proxy, found: impl Fn(&str) -> bool) -> String {
    for _ in 0..200 {
        let log = proxy.log();
        if found(&log) {
            return log;
        }
    }
    proxy.log()
}

fn count(upstream: &Upstream, path: &str) -> usize {
    upstream.seen().iter().filter(|seen| seen.path == path).count()
}

#[test]
fn p19_a_hundred_refused_requests_renew_once() {
    let refusals = Arc::new(AtomicUsize::new(0));
    let (known, waited) = (Arc::clone(&refusals), Arc::clone(&refusals));
    let upstream = Upstream::start(move |seen| match (seen.path.as_str(), seen.header("authorization")) {
        ("/v1/oauth/token", _) => {
            // All are refused before the first gets its token.
            for _ in 0..400 {
                if waited.load(Ordering::SeqCst) == 100 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(25));
            }
            vec![json(200, r#"{"access_token":"new-token","expires_in":36000}"#)]
        }
        (_, Some("Bearer new-token")) => whole("/claude/v1/messages"),
        _ => {
            known.fetch_add(1, Ordering::SeqCst);
            refused()
        }
    });
    let proxy = Arc::new(proxy_with_accounts("", &[("claude-a.json", &account(&upstream.url(), ""))]));
    let clients: Vec<_> = (0..100)
        .map(|_| {
            let proxy = Arc::clone(&proxy);
            std::thread::spawn(move || proxy.post(CLAUDE.path, &CLAUDE.body(MODEL, false)).head.status)
        })
        .collect();
    let statuses: Vec<_> = clients.into_iter().map(|client| client.join().expect("a client")).collect();
    assert_eq!(statuses, [200; 100], "{}", proxy.log());
    assert_eq!(count(&upstream, "/v1/oauth/token"), 1, "{}", proxy.log());
    assert_eq!(refusals.load(Ordering::SeqCst), 100, "nobody is refused twice");
}

#[test]
fn p21_the_file_holds_the_new_token_before_anybody_is_asked_with_it() {
    let folder = Arc::new(std::sync::OnceLock::<std::path::PathBuf>::new());
    let (file, early) = (Arc::clone(&folder), Arc::new(AtomicUsize::new(0)));
    let told = Arc::clone(&early);
    let upstream = Upstream::start(move |seen| match (seen.path.as_str(), seen.header("authorization")) {
        ("/v1/oauth/token", _) => {
            vec![json(200, r#"{"access_token":"new-token","refresh_token":"refresh-2","expires_in":36000}"#)]
        }
        (_, Some("Bearer new-token")) => {
            let path = file.get().expect("the folder is known").join("auths/claude-a.json");
            let text = std::fs::read_to_string(path).expect("the account");
            if !text.contains("new-token") || !text.contains("refresh-2") {
                told.fetch_add(1, Ordering::SeqCst);
            }
            whole("/claude/v1/messages")
        }
        _ => refused(),
    });
    let proxy = proxy_with_accounts("", &[("claude-a.json", &account(&upstream.url(), ""))]);
    folder.set(proxy.folder().to_owned()).expect("once");
    assert_eq!(proxy.post(CLAUDE.path, &CLAUDE.body(MODEL, false)).head.status, 200, "{}", proxy.log());
    assert_eq!(early.load(Ordering::SeqCst), 0, "the token was used before it was written");
    let about = std::fs::metadata(proxy.folder().join("auths/claude-a.json")).expect("the account");
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_client_that_leaves_does_not_cut_off_a_renewal() {
    let upstream = Upstream::start(|seen| match (seen.path.as_str(), seen.header("authorization")) {
        ("/v1/oauth/token", _) => vec![
            Step::Sleep(Duration::from_millis(600)),
            json(200, r#"{"access_token":"new-token","refresh_token":"refresh-2"}"#),
        ],
        (_, Some("Bearer new-token")) => whole("/claude/v1/messages"),
        _ => refused(),
    });
    let proxy = proxy_with_accounts("", &[("claude-a.json", &account(&upstream.url(), ""))]);
    let mut client = proxy.connect();
    let key = format!("Bearer {}", testkit::proxy::KEY);
    client.post(CLAUDE.path, &[("authorization", &key)], &CLAUDE.body(MODEL, false));
    assert!(upstream.wait(Duration::from_secs(10), |seen| seen.iter().any(|s| s.path == "/v1/oauth/token")));
    drop(client);
    let log = log_until(&proxy, |log| log.contains("token renewed"));
    assert!(log.contains("token renewed"), "{log}");
    let text = std::fs::read_to_string(proxy.folder().join("auths/claude-a.json")).expect("the account");
    assert!(text.contains("refresh-2"));
}

#[test]
fn p20_row_176_a_login_that_is_over_is_told_and_not_tried_again() {
    let upstream = Upstream::start(|seen| match seen.path.as_str() {
        "/v1/oauth/token" => vec![json(400, r#"{"error":"invalid_grant","error_description":"revoked"}"#)],
        _ => whole("/claude/v1/messages"),
    });
    let over = account(&upstream.url(), r#","expired":"2020-01-01T00:00:00Z""#);
    let proxy = proxy_with_accounts("", &[("claude-a.json", &over)]);
    let log = log_until(&proxy, |log| log.contains("Invalid Grant"));
    assert!(log.contains("invalid_grant"), "{log}");
    let answer = proxy.post(CLAUDE.path, &CLAUDE.body(MODEL, false));
    assert!((400..600).contains(&answer.head.status), "{}", answer.text());
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(count(&upstream, "/v1/oauth/token"), 1, "{}", proxy.log());
}

#[test]
fn p20_an_endpoint_that_cannot_say_is_left_alone_for_a_while_and_the_token_serves() {
    let upstream = Upstream::start(|seen| match seen.path.as_str() {
        "/v1/oauth/token" => vec![Step::Reset],
        _ => whole("/claude/v1/messages"),
    });
    // Its renewal is due, its end is not come.
    let end = std::time::SystemTime::now() + Duration::from_hours(1);
    let end = end.duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
    let soon = account(&upstream.url(), &format!(r#","expired":{end}"#));
    let proxy = proxy_with_accounts("", &[("claude-a.json", &soon)]);
    let log = log_until(&proxy, |log| log.contains("cannot be renewed now"));
    assert!(log.contains("cannot be renewed now"), "{log}");
    for _ in 0..3 {
        assert_eq!(proxy.post(CLAUDE.path, &CLAUDE.body(MODEL, false)).head.status, 200);
    }
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(count(&upstream, "/v1/oauth/token"), 1, "{}", proxy.log());
}

/// An upstream of Copilot.
fn copilot(seen: &Seen) -> Vec<Step> {
    match (seen.path.as_str(), seen.header("authorization")) {
        ("/copilot_internal/v2/token", Some("token gho-login")) => {
            vec![json(
                200,
                r#"{"token":"tid=1","expires_at":4102444800,"endpoints":{"api":"http://elsewhere.test"}}"#,
            )]
        }
        ("/chat/completions", Some("Bearer tid=1")) => whole("/chat/v1"),
        ("/models", Some("Bearer tid=1")) => vec![json(200, r#"{"data":[{"id":"gpt-4.1"}]}"#)],
        _ => vec![json(401, r#"{"error":{"message":"unexpected"}}"#)],
    }
}

#[test]
fn row_161_copilot_buys_a_token_and_answers() {
    let upstream = Upstream::start(copilot);
    let login = format!(
        r#"{{"type":"github-copilot","access_token":"gho-login","username":"u","base_url":"{}"}}"#,
        upstream.url()
    );
    let proxy = proxy_with_accounts("", &[("github-copilot-u.json", &login)]);
    for _ in 0..3 {
        let answer = proxy.post(CHAT.path, &CHAT.body("gpt-4.1", false));
        assert_eq!(answer.head.status, 200, "{}\n{}", answer.text(), proxy.log());
        assert_eq!(text_of(&CHAT, &answer.text()), "Hello");
    }
    assert_eq!(count(&upstream, "/copilot_internal/v2/token"), 1, "one token serves all");
    let call = upstream.seen().into_iter().find(|seen| seen.path == "/chat/completions").expect("a call");
    assert_eq!(call.header("copilot-integration-id"), Some("vscode-chat"));
    let kept =
        std::fs::read_to_string(proxy.folder().join("auths/github-copilot-u.json")).expect("the account");
    assert_eq!(kept, login, "the short token lives in memory");
    assert!(!proxy.log().contains("gho-login") && !proxy.log().contains("tid=1"));
}

#[test]
fn rows_122_and_123_usual_names_are_there_until_they_are_switched_off() {
    // Nobody says there what these accounts have.
    let login = r#"{"type":"github-copilot","access_token":"gho","base_url":"http://127.0.0.1:9"}"#;
    let kiro = r#"{"type":"kiro","access_token":"t","base_url":"http://127.0.0.1:9"}"#;
    let names = |config: &str| {
        let proxy = proxy_with_accounts(config, &[("c.json", login), ("k.json", kiro)]);
        let listed = proxy.get("/v1/models").json();
        let ids = listed["data"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|m| m["id"].as_str().unwrap_or_default().to_owned());
        ids.collect::<Vec<_>>()
    };
    let usual = names("");
    for id in ["claude-sonnet-4-5", "claude-opus-4-6", "kiro-claude-sonnet-4-5", "claude-sonnet-4.5"] {
        assert!(usual.iter().any(|name| name == id), "{id}: {usual:?}");
    }
    let off = names("oauth-model-alias: {kiro: [], github-copilot: []}\n");
    assert!(!off.iter().any(|name| name == "claude-sonnet-4-5"), "{off:?}");
    assert!(off.iter().any(|name| name == "kiro-claude-sonnet-4-5"), "{off:?}");
    let without = names("oauth-excluded-models: {kiro: ['kiro-*']}\n");
    assert!(!without.iter().any(|name| name.starts_with("kiro-")), "{without:?}");
}

#[test]
fn kiro_is_renewed_in_both_ways_before_an_expired_token_is_sent() {
    for (more, path) in [
        (r#""auth_method":"social""#, "/refreshToken"),
        (r#""auth_method":"idc","client_id":"c","client_secret":"s","region":"eu-west-1""#, "/token"),
    ] {
        let upstream = Upstream::start(move |seen| match seen.path.as_str() {
            found if found == path => {
                vec![json(200, r#"{"accessToken":"new","refreshToken":"r2","expiresIn":3600}"#)]
            }
            _ => vec![json(500, "{}")],
        });
        let login = format!(
            r#"{{"type":"kiro","access_token":"old","refresh_token":"r1","expires_at":"2020-01-01T00:00:00Z","base_url":"{}",{more}}}"#,
            upstream.url()
        );
        let proxy = proxy_with_accounts("request-retry: 0\n", &[("kiro-a.json", &login)]);
        proxy.post(CLAUDE.path, &CLAUDE.body("kiro-claude-sonnet-4-5", false));
        let seen = upstream.seen();
        assert_eq!(count(&upstream, path), 1, "{}", proxy.log());
        let calls: Vec<_> = seen.iter().filter(|seen| seen.path == "/generateAssistantResponse").collect();
        assert!(
            !calls.is_empty() && calls.iter().all(|seen| seen.header("authorization") == Some("Bearer new"))
        );
        let text = std::fs::read_to_string(proxy.folder().join("auths/kiro-a.json")).expect("the account");
        assert!(text.contains("r2") && !text.contains("old"), "{text}");
    }
}

#[test]
fn a_service_account_of_vertex_signs_for_its_token() {
    let scratch = testkit::scratch::Scratch::new();
    let pem = scratch.path().join("key.pem");
    let made = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"])
        .arg(&pem)
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        eprintln!("not run: openssl makes no key here");
        return;
    }
    let upstream = Upstream::start(|seen| match (seen.path.as_str(), seen.header("authorization")) {
        ("/token", _) => vec![json(200, r#"{"access_token":"ya29","expires_in":3599}"#)],
        (path, Some("Bearer ya29"))
            if path.starts_with("/v1/projects/p-1/locations/us-central1/publishers/google/models/") =>
        {
            whole("/gemini")
        }
        _ => vec![json(403, "{}")],
    });
    let key = std::fs::read_to_string(&pem).expect("the key");
    let login = serde_json::json!({
        "type": "vertex", "project_id": "p-1", "base_url": upstream.url(),
        "service_account": {"client_email": "a@p-1.test", "private_key": key, "private_key_id": "7"},
    });
    let proxy = proxy_with_accounts("", &[("vertex-p.json", &login.to_string())]);
    let answer = proxy.post(CHAT.path, &CHAT.body("gemini-2.5-pro", false));
    assert_eq!(answer.head.status, 200, "{}\n{}", answer.text(), proxy.log());
    let grant = upstream.seen().into_iter().find(|seen| seen.path == "/token").expect("a grant");
    let body = String::from_utf8(grant.body).expect("a form");
    let token = body.rsplit('=').next().expect("an assertion");
    let (signed, signature) = token.rsplit_once('.').expect("a signature");
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(scratch.path().join(name), bytes).expect("written");
        scratch.path().join(name)
    };
    let signature = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, signature);
    let (signed, signature) =
        (file("signed", signed.as_bytes()), file("signature", &signature.expect("base64")));
    let right = std::process::Command::new("openssl")
        .args(["dgst", "-sha256", "-prverify"])
        .arg(&pem)
        .arg("-signature")
        .args([signature, signed])
        .output()
        .expect("openssl");
    assert!(right.status.success(), "{}", String::from_utf8_lossy(&right.stdout));
}
