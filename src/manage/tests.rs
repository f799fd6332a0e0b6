//! The routes as a whole: against their document, against strangers, against canaries.

use super::*;
use crate::state::accounts::{self, Accounts};
use crate::state::sidecar::Peer;
use http::{Method, Request};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use testkit::scratch::Scratch;

const DOCUMENT: &str = include_str!("../../conf/management.openapi.json");
const PASSWORD: &str = "the-password";

fn app(text: &str, password: &str) -> App {
    let config = config::load(text.as_bytes()).unwrap().config;
    let found = if config.auth.auth_dir.is_empty() {
        Accounts::default()
    } else {
        accounts::scan(&accounts::folder(&config.auth.auth_dir))
    };
    let state = State::new(config, found).unwrap().0;
    state.config_file.is(None, text);
    Arc::new(Manage::new(Arc::new(state), "0", password))
}

fn request(method: &Method, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let mut request = Request::builder().method(method.clone()).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::from(body.to_owned())).unwrap();
    request.extensions_mut().insert(Peer(Some(IpAddr::from([127, 0, 0, 1]))));
    request
}

async fn text_of(response: Response<Body>) -> String {
    let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.starts_with("text/event-stream") {
        // It has no end.
        let first = response.into_body().into_data_stream().next().await;
        return String::from_utf8(first.unwrap().unwrap().to_vec()).unwrap();
    }
    let bytes = axum::body::to_bytes(response.into_body(), 64 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn asked(app: &App, method: Method, path: &str, key: &str, body: &str) -> (StatusCode, String) {
    let request = request(&method, path, &[("x-management-key", key)], body);
    let response = router(app).oneshot(request).await.unwrap();
    (response.status(), text_of(response).await)
}

fn document() -> Vec<(String, BTreeSet<String>)> {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .map(|(path, item)| (path.clone(), item.as_object().unwrap().keys().cloned().collect()))
        .collect()
}

#[tokio::test]
async fn the_document_and_the_routes_are_the_same() {
    let built: BTreeSet<String> =
        all_routes().into_iter().map(|(path, _)| format!("{ROOT}/{path}")).collect();
    let told: BTreeSet<String> =
        document().into_iter().map(|(path, _)| path).filter(|path| path.starts_with(ROOT)).collect();
    assert_eq!(built, told);
    // Nobody is there: logins ask no provider.
    let nowhere = "oauth-upstream: {kimi: 'http://127.0.0.1:9', qwen: 'http://127.0.0.1:9', xai: 'http://127.0.0.1:9', kiro: 'http://127.0.0.1:9', github-copilot: 'http://127.0.0.1:9'}\n";
    let app = app(&format!("api-keys: [k]\nauth-dir: ''\n{nowhere}"), PASSWORD);
    for (path, methods) in document() {
        for method in ["get", "put", "post", "patch", "delete"] {
            let verb = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let (status, text) = asked(&app, verb, &path, PASSWORD, "").await;
            let known = status != StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(known, methods.contains(method), "{method} {path}: {status} {text}");
            if !status.is_success() {
                let told: Value = serde_json::from_str(&text).unwrap_or_default();
                let says = told["error"].is_string() || path == "/v1/metrics/providers";
                assert!(says, "{method} {path}: {status} {text}");
            }
        }
    }
}

#[tokio::test]
async fn p57_without_a_secret_there_is_nothing_and_without_its_showing_nobody_comes_in() {
    let off = app("api-keys: [k]\n", "");
    for (path, methods) in document().into_iter().filter(|(path, _)| path.starts_with(ROOT)) {
        // Another one for each path: wrong secrets are counted.
        let on = app("api-keys: [k]\nremote-management: {secret-key: s}\n", "");
        for method in methods {
            let verb = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            assert_eq!(asked(&off, verb.clone(), &path, "any", "").await.0, StatusCode::NOT_FOUND, "{path}");
            if path == logins::OPEN {
                let (status, text) = asked(&on, verb.clone(), &path, "", "{}").await;
                assert_eq!(status, StatusCode::BAD_REQUEST, "the state is missing: {text}");
                continue;
            }
            for key in ["", "k", "wrong"] {
                let (status, _) = asked(&on, verb.clone(), &path, key, "").await;
                assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path} {key}");
            }
        }
    }
}

#[tokio::test]
async fn p57_another_machine_is_one_by_its_socket_whatever_it_says() {
    let closed = "remote-management: {secret-key: s}\n";
    let open = "remote-management: {secret-key: s, allow-remote: true}\n";
    for (text, password, peer, status) in [
        (closed, "", "127.0.0.1", 200),
        (closed, "", "::1", 200),
        (closed, "", "::ffff:127.0.0.1", 200),
        (closed, "", "10.0.0.9", 403),
        (closed, "", "::ffff:10.0.0.9", 403),
        (open, "", "10.0.0.9", 200),
        (closed, "pw", "10.0.0.9", 200),
    ] {
        let headers =
            [("x-management-key", "s"), ("x-forwarded-for", "127.0.0.1"), ("x-real-ip", "127.0.0.1")];
        let mut request = request(&Method::GET, "/v0/management/debug", &headers, "");
        request.extensions_mut().insert(Peer(Some(peer.parse().unwrap())));
        let response = router(&app(text, password)).oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{text} {password} {peer}");
    }
}

#[tokio::test]
async fn p56_wrong_secrets_lock_out_and_client_keys_do_not() {
    let app = app("api-keys: [client]\nremote-management: {secret-key: s}\n", "");
    let status = async |key: &str| asked(&app, Method::GET, "/v0/management/debug", key, "").await;
    // As bearer, which is where clients put theirs.
    for _ in 0..20 {
        let headers = [("authorization", "Bearer client")];
        let response =
            router(&app).oneshot(request(&Method::GET, "/v0/management/logs", &headers, "")).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "row 14");
    }
    assert_eq!(status("s").await.0, StatusCode::OK);
    for _ in 0..5 {
        assert_eq!(status("wrong").await.0, StatusCode::UNAUTHORIZED);
    }
    let (locked, text) = status("s").await;
    assert_eq!(locked, StatusCode::FORBIDDEN, "{text}");
    assert!(text.contains("too many failed attempts"), "{text}");
}

/// A configuration and accounts in which every secret is marked.
fn canaries(folder: &std::path::Path) -> String {
    let auths = folder.join("auths");
    std::fs::create_dir_all(&auths).unwrap();
    let account = |name: &str, kind: &str| {
        let text = format!(
            r#"{{"type":"{kind}","access_token":"canary-at-{kind}","refresh_token":"canary-rt-{kind}","id_token":"canary-id-{kind}","client_secret":"canary-cs","email":"a@b","proxy_url":"http://u:canary-px@h:1","headers":{{"X":"canary-hd"}}}}"#
        );
        std::fs::write(auths.join(name), text).unwrap();
    };
    for kind in ["claude", "codex", "antigravity", "kiro", "gemini", "qwen", "kimi"] {
        account(&format!("{kind}-a.json"), kind);
    }
    std::fs::write(auths.join("broken.json"), r#"{"access_token":"canary-broken","#).unwrap();
    format!(
        "auth-dir: {}\napi-keys: [canary-client-1, canary-client-0123456789-0123456789]\n\
         remote-management: {{secret-key: canary-management}}\nproxy-url: 'http://u:canary-proxy@h:3128'\n\
         claude-api-key: [{{api-key: canary-claude, headers: {{A: canary-header}}, proxy-url: 'socks5://u:canary-pw@h:1'}}]\n\
         gemini-api-key: [{{api-key: canary-gemini-0123456789-0123456789}}]\n\
         codex-api-key: [{{api-key: canary-codex, base-url: 'http://h'}}]\n\
         groq: [{{api-key: canary-groq}}]\n\
         openai-compatibility: [{{name: up, base-url: 'http://h', api-key-entries: [{{api-key: canary-up}}], models: [{{name: m}}]}}]\n\
         ampcode: {{upstream-api-key: canary-amp, upstream-api-keys: [{{upstream-api-key: canary-amp2, api-keys: [canary-amp3]}}]}}\n\
         alerts: {{notify: [{{webhook: 'http://127.0.0.1:9/canary-path?sig=canary-sig', secret: canary-hmac, headers: {{A: canary-header}}, proxy-url: 'http://u:canary-px@h:1'}}, {{command: [/nowhere/program, canary-argument]}}, {{apprise: 'mailto://u:canary-service@h'}}]}}\n",
        auths.display()
    )
}

#[tokio::test]
async fn p53_no_route_but_the_files_themselves_shows_a_secret() {
    let scratch = Scratch::new();
    let text = canaries(scratch.path());
    let app = app(&text, PASSWORD);
    for (path, methods) in document() {
        let is_file = ["config.yaml", "auth-files/download"].iter().any(|file| path.ends_with(file));
        // It would ask Amazon, or another provider.
        let asks = ["kiro-quota", "/refresh", "-auth-url"].iter().any(|asks| path.ends_with(asks));
        // It waits for the sidecar's worker; what it would send is looked at below.
        let sends = path.ends_with("alerts/test");
        if is_file || asks || sends {
            continue;
        }
        for method in methods {
            let verb = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            for query in ["", "?name=claude-a.json", "?model=m", "?name=broken.json", "?format=object"] {
                let body = if method == "get" { "" } else { r#"{"name":"none.json","value":{"x":[1]}}"# };
                if method == "delete" || path.ends_with("fallback-models") {
                    continue;
                }
                let (_, text) = asked(&app, verb.clone(), &format!("{path}{query}"), PASSWORD, body).await;
                assert!(!text.contains("canary"), "{method} {path}{query}: {text}");
            }
        }
    }
    let dry = r#"{"dry_run":true}"#;
    let (status, dry) = asked(&app, Method::POST, "/v0/management/alerts/test", PASSWORD, dry).await;
    assert!(status.is_success() && dry.contains("/nowhere/program") && !dry.contains("canary-"), "{dry}");
    let (status, file) = asked(&app, Method::GET, "/v0/management/config.yaml", PASSWORD, "").await;
    assert!(status.is_success() && file.contains("canary-claude"), "the file is the operator's own");
}

#[tokio::test]
async fn whole_configurations_are_replaced_whatever_their_size_and_what_is_wrong_is_told() {
    let app = app("api-keys: [k]\n", PASSWORD);
    let put = async |text: &str| asked(&app, Method::PUT, "/v0/management/config.yaml", PASSWORD, text).await;
    let large = format!("# {}\nrequest-retry: 5\n", "x".repeat(3 << 20));
    let (status, text) = put(&large).await;
    assert!(status.is_success() && text.contains("\"ok\":true"), "{status} {text}");
    assert_eq!(app.state.snapshot.load().config.routing.request_retry, 5);
    for (text, status, says) in [
        ("", 400, "invalid_yaml"),
        ("a: [", 400, "invalid_yaml"),
        ("port: many\n", 422, "invalid_config"),
        ("- a\n", 400, "invalid_yaml"),
    ] {
        let (found, told) = put(text).await;
        assert_eq!(found.as_u16(), status, "{text}");
        assert!(told.contains(says), "{told}");
    }
    let shown = asked(&app, Method::GET, "/v0/management/config.yaml", PASSWORD, "").await.1;
    assert_eq!(shown, large);
    let (_, models) = asked(&app, Method::GET, "/v0/management/model-definitions/claude", PASSWORD, "").await;
    assert!(models.contains("\"channel\":\"claude\"") && models.contains("display_name"), "{models}");
}

#[tokio::test]
async fn p63_pages_of_other_origins_are_refused_with_the_right_secret_too() {
    let app = app("api-keys: [k]\n", PASSWORD);
    for (origin, status) in [("http://localhost:1", 200), ("http://evil.test", 403), ("null", 403)] {
        let headers = [("x-management-key", PASSWORD), ("host", "localhost:1"), ("origin", origin)];
        let response =
            router(&app).oneshot(request(&Method::GET, "/v0/management/debug", &headers, "")).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{origin}");
        assert!(response.headers().get("access-control-allow-origin").is_none());
    }
}

#[tokio::test]
async fn p58_no_route_takes_a_name_that_leads_elsewhere() {
    let scratch = Scratch::new();
    let outside = scratch.file("outside.json", r#"{"type":"claude","access_token":"x"}"#);
    let text = canaries(scratch.path());
    let app = app(&text, PASSWORD);
    for name in [
        "../outside.json",
        "..%2Foutside.json",
        "%2Fetc%2Fpasswd",
        "a%00.json",
        "a%5Cb.json",
        "nul.json",
        ".x.json",
    ] {
        for (method, path) in [
            (Method::GET, format!("auth-files/download?name={name}")),
            (Method::POST, format!("auth-files?name={name}")),
            (Method::DELETE, format!("auth-files?name={name}")),
        ] {
            let body = if method == Method::POST { r#"{"type":"claude","access_token":"y"}"# } else { "" };
            let (status, text) = asked(&app, method.clone(), &format!("{ROOT}/{path}"), PASSWORD, body).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{method} {path}: {text}");
        }
        let plain = crate::state::query::percent_decode(name).unwrap_or_else(|| name.to_owned());
        let body = serde_json::json!({ "name": plain, "disabled": true }).to_string();
        for route in ["auth-files/status", "auth-files/fields"] {
            let (status, text) =
                asked(&app, Method::PATCH, &format!("{ROOT}/{route}"), PASSWORD, &body).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{route} {plain}: {text}");
        }
    }
    assert_eq!(std::fs::read_to_string(outside).unwrap(), r#"{"type":"claude","access_token":"x"}"#);
}
