//! Logins through the dashboard's routes, against a provider that is played.

use crate::management::{ON, manage};
use crate::reload::until;
use crate::shared::{CLAUDE, proxy, proxy_in, proxy_with_accounts, text_of, whole};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use testkit::client::{Answer, Client};
use testkit::proxy::Proxy;
use testkit::upstream::{Seen, Step, Upstream, json as json_step};
use url::Url;

/// A proxy whose accounts of `channel` are all at `url`.
fn with(channel: &str, url: &str) -> Proxy {
    proxy(&format!("{ON}oauth-upstream: {{{channel}: '{url}'}}\n"))
}

pub(crate) fn query(url: &str) -> HashMap<String, String> {
    Url::parse(url).expect("an address").query_pairs().into_owned().collect()
}

/// Begins a login: the page and the state.
fn begin(proxy: &Proxy, path: &str) -> (String, String) {
    let answer = manage(proxy, "GET", path, "");
    let body = answer.json();
    assert_eq!((answer.head.status, &body["status"]), (200, &json!("ok")), "{body}");
    let text = |key: &str| body[key].as_str().expect("text").to_owned();
    (text("url"), text("state"))
}

/// What a browser does that is sent back to `path`.
fn browse(proxy: &Proxy, path: &str) -> Answer {
    let mut client = proxy.connect();
    client.get(path, &[("accept", "text/html")]);
    client.answer()
}

/// Waits until a login is over.
fn over(proxy: &Proxy, state: &str) -> Value {
    let end = Instant::now() + Duration::from_mins(1);
    loop {
        let body = manage(proxy, "GET", &format!("get-auth-status?state={state}"), "").json();
        if body["status"] != "wait" || Instant::now() > end {
            return body;
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn accounts(proxy: &Proxy) -> Vec<String> {
    let folder = std::fs::read_dir(proxy.folder().join("auths"));
    let names = folder.into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn claude(seen: &Seen) -> Vec<Step> {
    match (seen.path.as_str(), seen.header("authorization")) {
        ("/v1/oauth/token", _) => vec![json_step(
            200,
            r#"{"access_token":"canary-at","refresh_token":"canary-rt","expires_in":28800,"account":{"uuid":"u","email_address":"a@b.test"},"organization":{"uuid":"o","name":"n"}}"#,
        )],
        ("/v1/messages", Some("Bearer canary-at")) => whole("/claude/v1/messages"),
        _ => vec![json_step(404, "{}")],
    }
}

#[test]
fn p62_row_168_claude_from_the_page_to_an_answer_without_a_restart() {
    let upstream = Upstream::start(claude);
    let proxy = with("claude", &upstream.url());
    for round in 0..2 {
        let (url, state) = begin(&proxy, "anthropic-auth-url");
        assert!(
            url.starts_with(&format!("{}/oauth/authorize?", upstream.url())) && state.len() == 43,
            "{url}"
        );
        assert_eq!(query(&url)["state"], state);
        assert_eq!(
            manage(&proxy, "GET", &format!("get-auth-status?state={state}"), "").json(),
            json!({"status": "wait"})
        );
        let back = format!("/anthropic/callback?code=canary-code&state={state}");
        let page = browse(&proxy, &back);
        assert_eq!(page.head.status, 200, "{}", page.text());
        assert_eq!(page.head.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(
            page.head.header("content-security-policy").is_some_and(|v| v.starts_with("default-src 'none'"))
        );
        assert!(page.head.header("access-control-allow-origin").is_none());
        assert!(!page.text().contains("canary") && !page.text().contains(&state), "{}", page.text());
        assert_eq!(over(&proxy, &state), json!({"status": "ok"}), "{}", proxy.log());
        let exchange = upstream.seen().into_iter().filter(|seen| seen.path == "/v1/oauth/token").nth(round);
        let exchange = exchange.expect("an exchange").json();
        let verifier = exchange["code_verifier"].as_str().expect("a verifier");
        assert_eq!(URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)), query(&url)["code_challenge"]);
        assert_eq!(exchange["code"], "canary-code");
        // A replay, by all ways.
        assert_eq!(browse(&proxy, &back).head.status, 400);
        let body = json!({"provider": "anthropic", "redirect_url": format!("http://localhost:54545{back}")});
        assert_eq!(manage(&proxy, "POST", "oauth-callback", &body.to_string()).head.status, 409);
        assert!(!proxy.log().contains(verifier));
        assert_eq!(accounts(&proxy), ["claude-a@b.test.json"], "row 115: one account is one file");
    }
    let file = proxy.folder().join("auths/claude-a@b.test.json");
    assert_eq!(std::fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600, "p54");
    let answer = proxy.post(CLAUDE.path, &CLAUDE.body("claude-sonnet-4-5-20250929", false));
    assert_eq!(answer.head.status, 200, "{}\n{}", answer.text(), proxy.log());
    assert_eq!(text_of(&CLAUDE, &answer.text()), "Hello");
    assert!(!proxy.log().contains("canary"), "p53: {}", proxy.log());
}

#[test]
fn row_85_a_login_that_is_over_is_made_again_and_serves_the_same_models() {
    let upstream = Upstream::start(|seen| match seen.path.as_str() {
        "/v1/oauth/token" if seen.json()["grant_type"] == "refresh_token" => {
            vec![json_step(400, r#"{"error":"invalid_grant"}"#)]
        }
        _ => claude(seen),
    });
    let config = format!("{ON}oauth-upstream: {{claude: '{}'}}\n", upstream.url());
    let old = r#"{"type":"claude","access_token":"old","refresh_token":"old","email":"a@b.test","note":"mine","expired":"2020-01-01T00:00:00Z"}"#;
    let proxy = proxy_with_accounts(&config, &[("mine.json", old)]);
    let models = |proxy: &Proxy| {
        let listed = proxy.get("/v1/models").json();
        let ids = listed["data"].as_array().expect("a list").iter().map(|m| m["id"].to_string());
        ids.collect::<std::collections::BTreeSet<_>>()
    };
    let before = models(&proxy);
    assert!(until(|| proxy.log().contains("Invalid Grant")), "{}", proxy.log());
    let ask = || proxy.post(CLAUDE.path, &CLAUDE.body("claude-sonnet-4-5-20250929", false)).head.status;
    assert_ne!(ask(), 200);
    let (_, state) = begin(&proxy, "anthropic-auth-url");
    browse(&proxy, &format!("/anthropic/callback?code=c&state={state}"));
    assert_eq!(over(&proxy, &state), json!({"status": "ok"}), "{}", proxy.log());
    assert_eq!(ask(), 200, "{}", proxy.log());
    assert!(!before.is_empty() && models(&proxy) == before);
    assert_eq!(accounts(&proxy), ["mine.json"], "the file that holds the account");
    let file = std::fs::read_to_string(proxy.folder().join("auths/mine.json")).expect("the file");
    assert!(file.contains("\"note\": \"mine\"") && !file.contains("old"), "{file}");
}

#[test]
fn p62_a_state_of_nobody_or_of_another_provider_is_refused_and_the_login_waits_on() {
    let upstream = Upstream::start(claude);
    let proxy = with("claude", &upstream.url());
    let (_, state) = begin(&proxy, "anthropic-auth-url");
    for path in [
        format!("/codex/callback?code=c&state={state}"),
        format!("/antigravity/callback?code=c&state={state}"),
        format!("/anthropic/callback?code=c&state={state}x"),
        format!("/anthropic/callback?code=c&state={}", state.to_lowercase()),
        "/anthropic/callback?code=c".to_owned(),
        "/anthropic/callback".to_owned(),
    ] {
        let page = browse(&proxy, &path);
        assert_eq!((page.head.status, page.text().contains(&state)), (400, false), "{path}: {}", page.text());
    }
    for (body, status) in [
        (json!({"provider": "codex", "code": "c", "state": state}), 400),
        (json!({"provider": "nobody", "code": "c", "state": state}), 400),
        (json!({"code": "c", "state": "other"}), 404),
        (json!({"code": "c", "state": "../x"}), 400),
        (json!({"code": "c"}), 400),
        (json!({"state": state}), 400),
    ] {
        let answer = manage(&proxy, "POST", "oauth-callback", &body.to_string());
        assert_eq!(answer.head.status, status, "{body}: {}", answer.text());
    }
    assert_eq!(manage(&proxy, "GET", "get-auth-status?state=%3Cx%3E", "").head.status, 400);
    assert_eq!(manage(&proxy, "GET", "get-auth-status?state=other", "").json()["status"], "error");
    assert_eq!(manage(&proxy, "GET", &format!("get-auth-status?state={state}"), "").json()["status"], "wait");
    let cancel = |proxy: &Proxy| manage(proxy, "DELETE", &format!("oauth-session?state={state}"), "").json();
    assert_eq!(cancel(&proxy), json!({"status": "ok", "cancelled": true}));
    assert_eq!(cancel(&proxy), json!({"status": "ok", "cancelled": false}));
    assert_eq!(browse(&proxy, &format!("/anthropic/callback?code=c&state={state}")).head.status, 400);
    assert!(upstream.seen().is_empty() && accounts(&proxy).is_empty(), "nothing was asked, nothing written");
}

#[test]
fn p62_p63_logins_begin_with_the_secret_only_and_are_bounded() {
    let proxy = with("claude", "http://127.0.0.1:9");
    let key = format!("Bearer {}", testkit::proxy::KEY);
    for headers in [&[][..], &[("authorization", key.as_str())]] {
        let mut client = proxy.connect();
        client.get("/v0/management/anthropic-auth-url", headers);
        assert_eq!(client.answer().head.status, 401);
    }
    let mut client = proxy.connect();
    let foreign = [("x-management-secret", "mgmt-test"), ("origin", "http://evil.test")];
    client.get("/v0/management/anthropic-auth-url", &foreign);
    assert_eq!(client.answer().head.status, 403);
    let states: Vec<_> = (0..32).map(|_| begin(&proxy, "anthropic-auth-url").1).collect();
    let distinct: std::collections::HashSet<_> = states.iter().collect();
    assert_eq!(distinct.len(), 32);
    assert_eq!(manage(&proxy, "GET", "anthropic-auth-url", "").head.status, 429);
    manage(&proxy, "DELETE", &format!("oauth-session?state={}", states[7]), "");
    begin(&proxy, "anthropic-auth-url");
}

#[test]
fn p62_words_of_a_provider_are_text_in_json_and_never_a_page() {
    let script = "<script>alert(1)</script>";
    let upstream = Upstream::start(move |_| {
        vec![json_step(
            400,
            &json!({"error": "invalid_grant", "error_description": format!("{script} canary-code")})
                .to_string(),
        )]
    });
    let proxy = with("claude", &upstream.url());
    let (_, state) = begin(&proxy, "anthropic-auth-url");
    let denied = "error=access_denied&error_description=%3Cscript%3Ealert(1)%3C/script%3E";
    let page = browse(&proxy, &format!("/anthropic/callback?{denied}&state={state}"));
    assert!(page.head.status == 200 && !page.text().contains("script"), "{}", page.text());
    let told = over(&proxy, &state);
    assert_eq!(told["error"], format!("The provider did not allow the login: access_denied: {script}"));
    let (_, state) = begin(&proxy, "anthropic-auth-url");
    let body = json!({"provider": "claude", "redirect_url": format!("http://localhost:54545/callback?code=canary-code&state={state}")});
    assert_eq!(manage(&proxy, "POST", "oauth-callback", &body.to_string()).json(), json!({"status": "ok"}));
    over(&proxy, &state);
    let answer = manage(&proxy, "GET", &format!("get-auth-status?state={state}"), "");
    let error = answer.json()["error"].as_str().expect("an error").to_owned();
    assert!(error.starts_with("Failed to exchange authorization code for tokens: status 400"), "{error}");
    assert!(error.contains(script) && !error.contains("canary"), "{error}");
    assert_eq!(answer.head.header("content-type"), Some("application/json"));
    assert_eq!(answer.head.header("x-content-type-options"), Some("nosniff"));
    assert!(accounts(&proxy).is_empty() && !proxy.log().contains("canary"), "{}", proxy.log());
}

#[test]
fn codex_by_a_device_code_through_the_dashboard() {
    let polls = AtomicUsize::new(0);
    let upstream = Upstream::start(move |seen| match seen.path.as_str() {
        "/api/accounts/deviceauth/token" if polls.fetch_add(1, Ordering::SeqCst) == 0 => {
            vec![json_step(403, r#"{"error":{"message":"not yet"}}"#)]
        }
        "/api/accounts/deviceauth/usercode" => {
            vec![json_step(200, r#"{"device_auth_id":"id","user_code":"ABCD-1","interval":"1"}"#)]
        }
        "/api/accounts/deviceauth/token" => {
            vec![json_step(200, r#"{"authorization_code":"canary-code","code_verifier":"canary-v"}"#)]
        }
        "/oauth/token" => {
            let claims = r#"{"email":"e@f.test","https://api.openai.com/auth":{"chatgpt_plan_type":"plus","chatgpt_account_id":"acc"}}"#;
            let token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims));
            vec![json_step(
                200,
                &format!(r#"{{"access_token":"at","refresh_token":"rt","id_token":"{token}"}}"#),
            )]
        }
        _ => vec![json_step(500, "{}")],
    });
    let proxy = with("codex", &upstream.url());
    let body = manage(&proxy, "GET", "codex-auth-url?device=true", "").json();
    assert_eq!(
        (&body["flow"], &body["user_code"], &body["expires_in"]),
        (&json!("device"), &json!("ABCD-1"), &json!(600)),
        "{body}"
    );
    let state = body["state"].as_str().expect("a state");
    assert_eq!(over(&proxy, state), json!({"status": "ok"}), "{}", proxy.log());
    assert_eq!(accounts(&proxy), ["codex-e@f.test-plus.json"]);
    assert!(manage(&proxy, "GET", "auth-files", "").text().contains("codex-e@f.test-plus.json"));
    assert!(!proxy.log().contains("canary"));
}

/// Antigravity's login up to its end, against a provider that fails at `failing`.
fn antigravity(failing: &'static str) -> (Proxy, Value) {
    let upstream = Upstream::start(move |seen| match seen.path.split('?').next().unwrap_or_default() {
        path if path == failing => vec![json_step(400, r#"{"error":{"code":400,"message":"not today"}}"#)],
        "/token" => vec![json_step(200, r#"{"access_token":"at","refresh_token":"rt","expires_in":3599}"#)],
        "/oauth2/v2/userinfo" => vec![json_step(200, r#"{"email":"g@h.test"}"#)],
        "/v1internal:loadCodeAssist" => {
            vec![json_step(200, r#"{"allowedTiers":[{"id":"t","isDefault":true}]}"#)]
        }
        "/v1internal:onboardUser" => {
            vec![json_step(200, r#"{"done":true,"response":{"cloudaicompanionProject":{"id":"p-1"}}}"#)]
        }
        _ => vec![json_step(500, "{}")],
    });
    let config = format!("{ON}oauth-upstream: {{antigravity: '{}'}}\n", upstream.url());
    let proxy = proxy_in(&config, &[("CLIPROXY_ANTIGRAVITY_CLIENT_SECRET", "canary-secret")]);
    let (url, state) = begin(&proxy, "antigravity-auth-url");
    assert!(!url.contains("canary"), "{url}");
    let callback = format!("/antigravity/callback?code=canary-code&scope=x&state={state}");
    assert_eq!(browse(&proxy, &callback).head.status, 200);
    let told = over(&proxy, &state);
    assert!(!proxy.log().contains("canary"), "{}", proxy.log());
    (proxy, told)
}

#[test]
fn rows_141_and_143_antigravity_names_the_step_that_failed_and_writes_nothing() {
    for (failing, step) in [
        ("/token", "Failed to exchange authorization code for tokens"),
        ("/oauth2/v2/userinfo", "Failed to read whose account it is (userinfo)"),
        ("/v1internal:loadCodeAssist", "Failed to find the project of the account"),
        ("/v1internal:onboardUser", "Failed to find the project of the account"),
    ] {
        let (proxy, told) = antigravity(failing);
        let error = told["error"].as_str().unwrap_or_default();
        assert!(
            told["status"] == "error" && error.starts_with(step) && error.ends_with("not today"),
            "{told}"
        );
        assert!(accounts(&proxy).is_empty(), "{:?}", accounts(&proxy));
    }
    let (proxy, told) = antigravity("nothing");
    assert_eq!(told, json!({"status": "ok"}), "{}", proxy.log());
    let file =
        std::fs::read_to_string(proxy.folder().join("auths/antigravity-g@h.test.json")).expect("the file");
    assert!(file.contains(r#""project_id": "p-1""#), "{file}");
}

#[test]
fn without_a_client_secret_antigravity_says_which_variable_is_missing() {
    let answer = manage(&with("antigravity", "http://127.0.0.1:9"), "GET", "antigravity-auth-url", "");
    assert_eq!(answer.head.status, 400);
    assert!(answer.text().contains("CLIPROXY_ANTIGRAVITY_CLIENT_SECRET"), "{}", answer.text());
}

#[test]
fn a_dashboard_on_this_machine_gets_the_browser_back_or_is_told_why_not() {
    let proxy = with("codex", "http://127.0.0.1:9");
    let taken = std::net::TcpListener::bind(("127.0.0.1", 1455));
    let body = manage(&proxy, "GET", "codex-auth-url?is_webui=true", "").json();
    assert!(
        body["callback"] == false && body["warning"].as_str().is_some_and(|w| w.contains("1455")),
        "{body}"
    );
    let Ok(taken) = taken else {
        eprintln!("not run to its end: somebody else has port 1455");
        return;
    };
    drop(taken);
    let body = manage(&proxy, "GET", "codex-auth-url?is_webui=true", "").json();
    if body["callback"] != true {
        eprintln!("not run to its end: somebody else has port 1455");
        return;
    }
    let state = body["state"].as_str().expect("a state");
    let mut browser = Client::connect(([127, 0, 0, 1], 1455).into());
    browser.get(&format!("/auth/callback?code=c&state={state}"), &[]);
    let moved = browser.answer();
    let place = moved.head.header("location").expect("a place").to_owned();
    assert_eq!(
        (moved.head.status, place.as_str()),
        (302, format!("http://proxy/codex/callback?code=c&state={state}").as_str())
    );
    assert_eq!(browse(&proxy, place.trim_start_matches("http://proxy")).head.status, 200);
    assert_eq!(over(&proxy, state)["status"], "error", "nobody answers at port 9");
    let mut left = std::net::TcpStream::connect(("127.0.0.1", 1455));
    for _ in 0..100 {
        if left.is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        left = std::net::TcpStream::connect(("127.0.0.1", 1455));
    }
    assert!(left.is_err(), "the port is free when nobody waits");
}

#[test]
fn kiros_refresh_token_is_imported() {
    let upstream = Upstream::start(|seen| match seen.path.split('?').next().unwrap_or_default() {
        "/refreshToken" => {
            vec![json_step(200, r#"{"accessToken":"at","refreshToken":"rt","expiresIn":3600}"#)]
        }
        "/getUsageLimits" => vec![json_step(200, r#"{"userInfo":{"email":"k@l.test"}}"#)],
        _ => vec![json_step(500, "{}")],
    });
    let proxy = with("kiro", &upstream.url());
    let answer = manage(&proxy, "POST", "kiro-import", r#"{"refreshToken":"aorAAAAAGcanary"}"#);
    assert_eq!(answer.json(), json!({"status": "ok", "name": "kiro-social-k-l-test.json"}));
    assert_eq!(manage(&proxy, "POST", "kiro-import", r#"{"refresh_token":"canary"}"#).head.status, 400);
    assert!(!proxy.log().contains("canary"));
}
