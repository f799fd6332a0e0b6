//! The management sidecar through the process: over the wire, with the files, beside traffic.

use crate::reload::until;
use crate::shared::{CHAT, chat_keys, proxy, whole};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::client::Answer;
use testkit::proxy::Proxy;
use testkit::upstream::{Upstream, json as json_step};

pub(crate) const SECRET: &str = "mgmt-test";
pub(crate) const ON: &str =
    "# who may manage\nremote-management: {allow-remote: false, secret-key: mgmt-test} # for now\n";

/// A request with headers of its own.
pub(crate) fn send(proxy: &Proxy, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut client = proxy.connect();
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: proxy\r\n");
    for (name, value) in headers {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    }
    client.send(format!("{text}content-length: {}\r\n\r\n{body}", body.len()).as_bytes());
    client.answer()
}

pub(crate) fn manage(proxy: &Proxy, method: &str, path: &str, body: &str) -> Answer {
    send(proxy, method, &format!("/v0/management/{path}"), &[("x-management-secret", SECRET)], body)
}

pub(crate) fn config_text(proxy: &Proxy) -> String {
    std::fs::read_to_string(proxy.folder().join("config.yaml")).expect("the configuration")
}

#[test]
fn the_secret_is_hashed_in_the_file_and_nothing_else_changes() {
    let proxy = proxy(ON);
    assert!(until(|| config_text(&proxy).contains("$2b$10$")), "{}", config_text(&proxy));
    let text = config_text(&proxy);
    assert!(
        !text.contains(SECRET) && text.contains("# who may manage") && text.contains("} # for now"),
        "{text}"
    );
    let answer = manage(&proxy, "GET", "request-retry", "");
    assert_eq!((answer.head.status, answer.json()), (200, json!({"request-retry": 0})));
    assert!(answer.head.header("access-control-allow-origin").is_none());
    for (name, value) in [("authorization", "Bearer mgmt-test"), ("x-management-key", SECRET)] {
        assert_eq!(send(&proxy, "GET", "/v0/management/debug", &[(name, value)], "").head.status, 200);
    }
    assert!(!proxy.log().contains(SECRET));
}

#[test]
fn p28_no_spelling_of_a_path_leads_past_the_secret() {
    let proxy = proxy(ON);
    let key = format!("Bearer {}", testkit::proxy::KEY);
    for route in
        ["config", "auth-files", "config.yaml", "api-keys", "auth-files/download?name=a.json", "logs"]
    {
        for spelling in [
            format!("/v0/management/{route}"),
            format!("//v0/management/{route}"),
            format!("/v0//management/{route}"),
            format!("/v0/management//{route}"),
            format!("/v0/management/./{route}"),
            format!("/v0/management/..;/management/{route}"),
            format!("/v0/management;x=1/{route}"),
            format!("/v0/management/..;/{route}"),
            format!("/v0/./management/{route}"),
            format!("/v1/../v0/management/{route}"),
            format!("/v1/..;/v0/management/{route}"),
            format!("/v1/%2e%2e/v0/management/{route}"),
            format!("/v1/models/..%2f..%2fv0%2fmanagement%2f{route}"),
            format!("/%2e/v0/management/{route}"),
            format!("/V0/MANAGEMENT/{route}"),
            format!("/v0/Management/{route}"),
            format!("/v0/%6danagement/{route}"),
            format!("/v0%2fmanagement/{route}"),
            format!("/v0\\management\\{route}"),
            format!("/v0/management\\{route}"),
            format!("/v0/management/%2e%2e/management/{route}"),
            format!("/health/../v0/management/{route}"),
            format!("/v1/metrics/providers/../../../v0/management/{route}"),
            format!("http://proxy./v0/management/{route}"),
            format!("/v0/management/{route}#x"),
        ] {
            for headers in [&[][..], &[("authorization", key.as_str())][..]] {
                let mut client = proxy.connect();
                let header: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
                client.send(
                    format!("GET {spelling} HTTP/1.1\r\nhost: proxy.\r\n{header}connection: close\r\n\r\n")
                        .as_bytes(),
                );
                let text = String::from_utf8_lossy(&client.rest()).into_owned();
                let status = text.split(' ').nth(1).unwrap_or_default().to_owned();
                assert!(["400", "401", "404"].contains(&status.as_str()), "{spelling}: {text}");
            }
        }
    }
}

#[test]
fn p56_forwarded_addresses_open_nothing_and_a_flood_does_not_stop_the_traffic() {
    let upstream = Upstream::start(|seen| whole(&seen.path));
    let proxy = proxy(&format!("{ON}{}", chat_keys(&upstream.url(), &["one"])));
    assert!(until(|| config_text(&proxy).contains("$2b$")));
    let tries = |n: usize| {
        let forged = if n.is_multiple_of(2) {
            "127.0.0.1".to_owned()
        } else {
            format!("10.0.{}.{}", n / 250, n % 250)
        };
        let headers = [("x-management-key", "wrong"), ("x-forwarded-for", forged.as_str())];
        send(&proxy, "GET", "/v0/management/debug", &headers, "").head.status
    };
    std::thread::scope(|scope| {
        let floods: Vec<_> = (0..4)
            .map(|n| scope.spawn(move || (0..250).map(|m| tries(n * 250 + m)).collect::<Vec<_>>()))
            .collect();
        for _ in 0..20 {
            assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200);
        }
        let all: Vec<u16> = floods.into_iter().flat_map(|flood| flood.join().expect("it ends")).collect();
        let refused = all.iter().filter(|status| **status == 401).count();
        assert!((5..=12).contains(&refused), "{refused} of {} were looked at", all.len());
        assert!(all.iter().all(|status| [401, 403].contains(status)));
    });
    let locked = manage(&proxy, "GET", "debug", "");
    assert_eq!(locked.head.status, 403, "a new address would have to be a new socket");
    assert!(locked.head.header("retry-after").is_some());
}

#[test]
fn p50_fifty_changes_at_once_are_fifty_changes_and_stale_ones_are_refused() {
    let proxy = proxy(&format!("{ON}unknown-key: kept # by us\n"));
    assert!(until(|| config_text(&proxy).contains("$2b$")));
    std::thread::scope(|scope| {
        for n in 0..50 {
            let proxy = &proxy;
            scope.spawn(move || {
                let body = json!({ "old": "none", "new": format!("key-{n}") }).to_string();
                assert_eq!(manage(proxy, "PATCH", "api-keys", &body).json(), json!({"status": "ok"}));
            });
        }
    });
    let text = config_text(&proxy);
    assert!(text.contains("unknown-key: kept # by us") && text.contains("# who may manage"), "{text}");
    let keys = manage(&proxy, "GET", "api-keys", "");
    assert_eq!(keys.json()["api-keys"].as_array().expect("keys").len(), 51);
    assert!(!keys.text().contains("key-7"));
    let tag = keys.head.header("etag").expect("a tag").to_owned();
    let put = |tag: &str| {
        let headers = [("x-management-key", SECRET), ("if-match", tag)];
        send(&proxy, "PUT", "/v0/management/request-retry", &headers, r#"{"value":3}"#)
    };
    assert_eq!(put(&tag).head.status, 200);
    assert_eq!(put(&tag).head.status, 412);
    // What is masked comes back as what it was.
    let mut shown = keys.json()["api-keys"].clone();
    assert_eq!(shown[0], "********");
    shown.as_array_mut().expect("keys").truncate(1);
    assert_eq!(manage(&proxy, "PUT", "api-keys", &shown.to_string()).head.status, 200);
    assert_eq!(proxy.get("/v1/models").head.status, 200, "the first key still opens");
}

#[test]
fn row_30_and_121_a_setting_survives_with_its_comments_and_row_131_a_file_that_cannot_be_written() {
    let alias = "oauth-model-alias: # names\n  kiro: [{name: a, alias: b, fork: true}] # ours\n";
    let proxy = proxy(&format!("{ON}{alias}quota-exceeded: {{switch-project: false}}\n"));
    assert!(until(|| config_text(&proxy).contains("$2b$")));
    let set = manage(&proxy, "PUT", "quota-exceeded/switch-project", r#"{"value":true}"#);
    assert_eq!(set.json(), json!({"status": "ok"}));
    assert_eq!(
        manage(&proxy, "GET", "quota-exceeded/switch-project", "").json(),
        json!({"switch-project": true})
    );
    assert!(config_text(&proxy).contains("{switch-project: true}") && config_text(&proxy).contains(alias));
    let file = proxy.folder().join("config.yaml");
    let mut rights = std::fs::metadata(&file).expect("the file").permissions();
    rights.set_readonly(true);
    std::fs::set_permissions(&file, rights).expect("the rights");
    let before = config_text(&proxy);
    let set = manage(&proxy, "PUT", "debug", r#"{"value":true}"#);
    assert_eq!((set.head.status, &set.json()["persisted"]), (200, &json!(false)));
    assert!(set.json()["warning"].is_string());
    assert_eq!(manage(&proxy, "GET", "debug", "").json(), json!({"debug": true}));
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(manage(&proxy, "GET", "debug", "").json(), json!({"debug": true}), "the watcher leaves it");
    assert_eq!(config_text(&proxy), before);
    let bad = manage(&proxy, "PUT", "debug", r#"{"value":"yes"}"#);
    assert_eq!((bad.head.status, bad.json()), (400, json!({"error": "invalid body"})));
}

#[test]
fn row_65_a_file_that_is_switched_off_serves_no_more() {
    let proxy = proxy(ON);
    let account = r#"{"type":"claude","access_token":"canary","email":"a@b","own":{"deep":1}}"#;
    let up = manage(&proxy, "POST", "auth-files?name=claude-a.json", account);
    assert_eq!((up.head.status, up.json()), (200, json!({"status": "ok"})));
    let models = || proxy.get("/v1/models").json()["data"].as_array().map_or(0, Vec::len);
    assert!(models() > 0);
    let path = proxy.folder().join("auths/claude-a.json");
    for name in ["claude-a.json".to_owned(), path.display().to_string()] {
        let body = |off: bool| json!({ "name": name, "disabled": off }).to_string();
        let off = manage(&proxy, "PATCH", "auth-files/status", &body(true));
        assert_eq!(off.json(), json!({"disabled": true, "status": "ok"}));
        assert_eq!(models(), 0, "at once");
        let file: Value = serde_json::from_slice(&std::fs::read(&path).expect("the file")).expect("JSON");
        assert_eq!((&file["disabled"], &file["own"]), (&json!(true), &json!({"deep": 1})));
        assert_eq!(manage(&proxy, "PATCH", "auth-files/status", &body(false)).head.status, 200);
        assert!(models() > 0);
    }
    let list = manage(&proxy, "GET", "auth-files", "");
    assert_eq!(list.json()[0]["filename"], "claude-a.json");
    assert!(!list.text().contains("canary"));
    assert_eq!(manage(&proxy, "GET", "auth-files?format=object", "").json()["files"][0]["status"], "active");
    assert!(manage(&proxy, "GET", "auth-files/download?name=claude-a.json", "").text().contains("canary"));
    assert_eq!(manage(&proxy, "DELETE", "auth-files?name=claude-a.json", "").json()["deleted"], 1);
    assert_eq!((models(), path.exists()), (0, false));
    assert_eq!(manage(&proxy, "DELETE", "auth-files?name=claude-a.json", "").head.status, 404);
}

#[test]
fn row_37_and_50_providers_are_counted_from_the_start_and_failovers_too() {
    let upstream = Upstream::start(|seen| {
        if seen.header("authorization") == Some("Bearer bad") {
            return vec![json_step(500, r#"{"error":{"message":"no"}}"#)];
        }
        whole(&seen.path)
    });
    let block = |name: &str, key: &str, priority: u8| {
        format!(
            "  - {{name: {name}, base-url: '{}/v1', priority: {priority}, api-key-entries: [{{api-key: {key}}}], models: [{{name: m}}]}}\n",
            upstream.url()
        )
    };
    let config =
        format!("{ON}openai-compatibility:\n{}{}", block("first", "bad", 9), block("second", "good", 1));
    let proxy = proxy(&config);
    let metrics = || send(&proxy, "GET", "/v1/metrics/providers?window=900", &[], "").json();
    let before = metrics();
    assert_eq!((&before["object"], &before["window_seconds"]), (&json!("provider.metrics"), &json!(900)));
    assert_eq!(before["first"], before["providers"]["first"]);
    assert_eq!(before["second"]["request_count"], 0);
    assert_eq!(before["first"]["provider_key"], "openai-compatibility:first");
    assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200);
    assert!(until(|| metrics()["first"]["failover"] == 1), "{}", metrics());
    let after = metrics();
    assert_eq!(after["first"]["status"], json!({"500": 1}));
    assert_eq!(after["first"]["model_stats"]["m"]["window"]["failure_count"], 1);
    assert_eq!(after["second"]["window"]["status"], json!({"200": 1}));
    assert_eq!(after["second"]["endpoints"]["/v1/chat/completions"]["request_count"], 1);
    let collisions = manage(&proxy, "GET", "routing/collisions", "").json();
    assert_eq!(collisions["collisions"][0]["model"], "m");
    assert_eq!(collisions["collisions"][0]["order"][0]["provider"], "first");
    assert!(proxy.log().contains("models that several providers serve"), "{}", proxy.log());
    let explained = manage(&proxy, "GET", "routing/explain?model=m", "").json();
    assert_eq!(explained["candidates"].as_array().map(Vec::len), Some(2), "{explained}");
    assert!(explained["candidates"][1]["reason"].is_string());
}

#[test]
fn row_150_logs_are_read_by_cursor_and_followed_live() {
    let proxy = proxy(&format!("{ON}logging-to-file: true\n"));
    assert!(until(|| manage(&proxy, "GET", "logs?lines=50", "").json()["line-count"].as_u64() > Some(0)));
    let page = manage(&proxy, "GET", "logs", "").json();
    assert!(page["latest-timestamp"].as_i64() > Some(1_700_000_000), "{page}");
    let cursor = page["next-cursor"].as_str().expect("a cursor").to_owned();
    let mut tail = proxy.connect();
    tail.get("/v0/management/logs/stream", &[("x-management-key", SECRET)]);
    assert_eq!(tail.head().status, 200);
    proxy.post(CHAT.path, &CHAT.body("nobody-has-this", false));
    tail.until("nobody-has-this");
    let more = manage(&proxy, "GET", &format!("logs?cursor={cursor}"), "").json();
    assert!(more["lines"].to_string().contains("nobody-has-this"), "{more}");
    drop(tail);
    assert_eq!(manage(&proxy, "GET", "logs?limit=x", "").head.status, 400);
}

#[test]
fn p57_off_is_404_in_json_and_the_metrics_are_open() {
    let proxy = proxy("debug: false\n");
    for path in ["/v0/management/config", "/v0/management/", "/v0/management/anything"] {
        let answer = send(&proxy, "GET", path, &[("x-management-key", "x")], "");
        assert_eq!(answer.head.status, 404);
        assert!(answer.json()["error"].is_string());
    }
    assert_eq!(send(&proxy, "GET", "/v1/metrics/providers", &[], "").head.status, 200);
    assert_eq!(send(&proxy, "POST", "/v1/metrics/providers", &[], "").head.status, 405);
    let mut client = proxy.connect();
    client.send(b"HEAD /v1/metrics/providers HTTP/1.1\r\nhost: proxy\r\n\r\n");
    assert_eq!(client.head().status, 200);
    client.get("/health", &[]);
    assert_eq!(client.answer().head.status, 200, "a head has no body, and the connection goes on");
}

#[test]
fn row_29_alerts_rise_with_the_ratio_and_name_their_provider() {
    let upstream = Upstream::start(|seen| {
        if seen.json()["model"] == "limited" {
            return vec![json_step(429, r#"{"error":{"message":"slow down"}}"#)];
        }
        whole(&seen.path)
    });
    let config = chat_keys(&upstream.url(), &["one"])
        .replace("[{name: m, alias: m}]", "[{name: m}, {name: limited}]\n    disable-cooling: true");
    let proxy = proxy(&format!("{ON}{config}"));
    let alerts = || manage(&proxy, "GET", "alerts", "").json();
    assert_eq!(alerts()["firing"], 0);
    for _ in 0..12 {
        proxy.post(CHAT.path, &CHAT.body("m", false));
    }
    assert_eq!(alerts()["firing"], 0);
    for _ in 0..3 {
        assert_eq!(proxy.post(CHAT.path, &CHAT.body("limited", false)).head.status, 429);
    }
    assert!(until(|| alerts()["firing"] == 1), "{}", alerts());
    let alert = alerts()["alerts"][0].clone();
    assert_eq!((&alert["id"], &alert["severity"]), (&json!("rate-limit-ratio"), &json!("critical")));
    assert_eq!((&alert["subject"], &alert["status"]), (&json!("up"), &json!("firing")));
    assert_eq!(alert["current_value"], 0.2);
    assert!(until(|| proxy.log().contains("alert critical: up: many calls are refused with 429")));
}
