//! Requests as others see them: the event stream, the usage queue, counts of accounts and keys.

use crate::management::{ON, SECRET, config_text, manage, send};
use crate::reload::until;
use crate::shared::{CHAT, chat_keys, proxy, whole};
use serde_json::{Value, json};
use testkit::client::Client;
use testkit::proxy::{KEY, Proxy};
use testkit::upstream::{Upstream, json as answer};

fn listen(proxy: &Proxy, topics: &str, more: &[(&str, &str)]) -> Client {
    let mut client = proxy.connect();
    let mut headers = vec![("x-management-key", SECRET)];
    headers.extend(more);
    client.get(&format!("/v0/management/events?topics={topics}"), &headers);
    let head = client.head();
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some("text/event-stream; charset=utf-8"));
    client
}

fn ask(proxy: &Proxy, model: &str) {
    proxy.post(CHAT.path, &CHAT.body(model, false));
}

/// The id of the last request in what came.
fn last_id(text: &str) -> String {
    text.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().expect("an id").to_owned()
}

/// The data of the requests in what came.
fn requests(text: &str) -> Vec<Value> {
    let events = text.split("\n\n").filter(|event| event.contains("event: requests\n"));
    let data = events.filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")));
    data.filter_map(|data| serde_json::from_str(data).ok()).collect()
}

fn upstream() -> Upstream {
    Upstream::start(|seen| {
        if seen.json()["model"] == "bad" {
            return vec![answer(500, r#"{"error":{"message":"broken"}}"#)];
        }
        whole(&seen.path)
    })
}

fn config(upstream: &Upstream) -> String {
    let keys = chat_keys(&upstream.url(), &["upstream-canary"]);
    let keys = keys.replace("[{name: m, alias: m}]", "[{name: m}, {name: bad}]\n    disable-cooling: true");
    format!("{ON}{keys}")
}

#[test]
fn a_listener_gets_a_snapshot_then_every_request_and_goes_on_where_it_was() {
    let upstream = upstream();
    let proxy = proxy(&config(&upstream));
    ask(&proxy, "m");
    let recent = || manage(&proxy, "GET", "usage", "").json()["total"]["requests"] == 1;
    assert!(until(recent));
    let mut first = listen(&proxy, "requests,credentials,now", &[]);
    first.until("event: snapshot");
    first.until("event: now");
    ask(&proxy, "m");
    ask(&proxy, "bad");
    first.until("\"model\":\"bad\"");
    let text = first.pending();
    let snapshot = text.split("\n\n").find(|event| event.contains("event: snapshot")).expect("a snapshot");
    assert!(snapshot.contains("\"label\":\"up#1\"") && snapshot.contains("\"requests\":[{"), "{snapshot}");
    let seen = requests(&text);
    let one = &seen[0];
    assert_eq!((&one["status"], &one["account"], &one["attempts"]), (&json!(200), &json!("up#1"), &json!(1)));
    assert_eq!((&one["client_key"], &one["endpoint"]), (&json!("number 1"), &json!("/v1/chat/completions")));
    assert_eq!(one["tokens"]["total_tokens"], 5);
    let two = seen.last().expect("two");
    assert_eq!((&two["status"], &two["error_class"]), (&json!(500), &json!("transient")), "{two}");
    assert!(!text.contains(KEY) && !text.contains("canary"), "{text}");
    let id = last_id(&text);
    drop(first);
    ask(&proxy, "missed");
    assert!(until(|| manage(&proxy, "GET", "usage", "").json()["total"]["requests"] == 4));
    let mut second = listen(&proxy, "requests", &[("last-event-id", &id)]);
    second.until("\"model\":\"missed\"");
    assert_eq!(requests(&second.pending()).len(), 1, "{}", second.pending());
    assert!(!second.pending().contains("resync"));
    let mut stranger = listen(&proxy, "requests", &[("last-event-id", "abc-7")]);
    stranger.until("event: resync\ndata: {\"dropped\":null}");
    stranger.until("event: snapshot");
    assert_eq!(manage(&proxy, "GET", "events?topics=weather", "").head.status, 400);
    assert_eq!(manage(&proxy, "GET", "events?topics=logs", "").head.status, 400, "logs go to no file");
}

#[test]
fn there_is_room_for_so_many_listeners_and_it_is_given_back() {
    let upstream = upstream();
    let proxy = proxy(&format!("{}logging-to-file: true\n", config(&upstream)));
    let mut all: Vec<Client> = (0..63).map(|_| listen(&proxy, "requests,now", &[])).collect();
    let mut tail = listen(&proxy, "logs", &[]);
    let full = manage(&proxy, "GET", "events", "");
    assert_eq!((full.head.status, full.head.header("retry-after")), (429, Some("5")), "{}", full.text());
    ask(&proxy, "m");
    for client in &mut all {
        client.until("event: requests");
    }
    tail.until("event: logs");
    drop(all);
    // Those who left are noticed when there is something to tell them.
    assert!(until(|| {
        ask(&proxy, "m");
        let mut client = proxy.connect();
        client.get("/v0/management/events?topics=now", &[("x-management-key", SECRET)]);
        client.head().status == 200
    }));
}

#[test]
fn the_queue_hands_each_record_out_once_and_only_while_it_is_switched_on() {
    let upstream = upstream();
    let proxy = proxy(&config(&upstream));
    let queue = |query: &str| manage(&proxy, "GET", &format!("usage-queue{query}"), "").json();
    ask(&proxy, "m");
    assert!(until(|| manage(&proxy, "GET", "usage", "").json()["total"]["requests"] == 1));
    assert_eq!(queue("?count=9"), json!([]), "nobody wanted it");
    assert_eq!(manage(&proxy, "PUT", "usage-statistics-enabled", r#"{"value":true}"#).head.status, 200);
    (0..3).for_each(|_| ask(&proxy, "m"));
    ask(&proxy, "bad");
    let mut records = Vec::new();
    assert!(until(|| {
        records.extend(queue("").as_array().cloned().expect("records"));
        records.len() == 4
    }));
    assert_eq!(queue("?count=9"), json!([]));
    let first = &records[0];
    assert_eq!((&first["model"], &first["provider"]), (&json!("m"), &json!("up")));
    assert_eq!((&first["tokens"]["input_tokens"], &first["failed"]), (&json!(3), &json!(false)));
    assert_eq!((&first["api_key"], &first["auth_type"]), (&json!("********"), &json!("apikey")));
    assert_eq!(first["endpoint"], "POST /v1/chat/completions");
    assert_eq!((&records[3]["failed"], &records[3]["fail"]["status_code"]), (&json!(true), &json!(500)));
    assert!(!json!(records).to_string().contains("canary") && !json!(records).to_string().contains(KEY));
    for wrong in ["0", "-1", "x"] {
        assert_eq!(manage(&proxy, "GET", &format!("usage-queue?count={wrong}"), "").head.status, 400);
    }
}

#[test]
fn accounts_and_keys_say_how_their_last_hours_were() {
    let upstream = upstream();
    let account = r#"{"type":"claude","access_token":"t","email":"a@b"}"#;
    let proxy = crate::shared::proxy_with_accounts(&config(&upstream), &[("claude-a.json", account)]);
    (0..2).for_each(|_| ask(&proxy, "m"));
    ask(&proxy, "bad");
    let usage = manage(&proxy, "GET", "api-key-usage", "").json();
    let key = &usage["up"][format!("{}/v1|********", upstream.url())];
    assert_eq!((&key["success"], &key["failed"]), (&json!(2), &json!(1)), "{usage}");
    let recent = key["recent_requests"].as_array().expect("buckets");
    let sum = |member: &str| recent.iter().filter_map(|bucket| bucket[member].as_u64()).sum::<u64>();
    assert_eq!((recent.len(), sum("success"), sum("failed")), (20, 2, 1), "{usage}");
    assert!(!usage.to_string().contains("canary"));
    let files = manage(&proxy, "GET", "auth-files", "").json();
    let buckets = files[0]["recent_requests"].as_array().expect("buckets");
    assert_eq!((buckets.len(), &buckets[19]["success"]), (20, &json!(0)), "{files}");
    assert_eq!(buckets[19]["time"].as_str().map(str::len), Some(11));
}

#[test]
fn metrics_ask_for_a_key_of_either_kind_where_the_file_says_so() {
    let proxy = proxy(&format!("{ON}metrics-auth: true\n"));
    let metrics =
        |headers: &[(&str, &str)]| send(&proxy, "GET", "/v1/metrics/providers", headers, "").head.status;
    let client = format!("Bearer {KEY}");
    for (headers, status) in [
        (&[][..], 401),
        (&[("authorization", "Bearer wrong")], 401),
        (&[("authorization", client.as_str())], 200),
        (&[("x-api-key", KEY)], 200),
        (&[("x-management-secret", SECRET)], 200),
        (&[("authorization", "Bearer mgmt-test")], 200),
    ] {
        assert_eq!(metrics(headers), status, "{headers:?}");
    }
    assert_eq!(send(&proxy, "POST", "/v1/metrics/providers", &[], "").head.status, 405);
    std::fs::write(
        proxy.folder().join("config.yaml"),
        config_text(&proxy).replace("metrics-auth: true", "metrics-auth: false"),
    )
    .expect("the configuration");
    assert!(until(|| metrics(&[]) == 200), "open again");
}

#[test]
fn a_key_of_the_configuration_is_switched_off_over_a_restart_and_its_comments_stay() {
    let upstream = upstream();
    let keys = "claude-api-key: # ours\n  - api-key: one # alice's\n    models: [{name: claude-x}]\n    base-url: URL\n  \
                # bob's\n  - {api-key: two, base-url: URL, models: [{name: claude-y}]}\n"
        .replace("URL", &upstream.url());
    let mut proxy = proxy(&format!("{ON}{keys}"));
    assert!(until(|| config_text(&proxy).contains("$2b$")));
    let models = |proxy: &Proxy| proxy.get("/v1/models").text();
    assert!(models(&proxy).contains("claude-x"));
    let quota = |proxy: &Proxy| manage(proxy, "GET", "quota", "").json()["quota"].clone();
    let index = quota(&proxy)[0]["auth_index"].as_str().expect("an index").to_owned();
    for (name, body) in [
        ("index", json!({ "auth_index": index })),
        ("label", json!({ "name": "claude#1" })),
        ("index as name", json!({ "name": index })),
    ] {
        let before = config_text(&proxy);
        let patch = |proxy: &Proxy, off: bool| {
            let mut body = body.clone();
            body["disabled"] = off.into();
            manage(proxy, "PATCH", "auth-files/status", &body.to_string())
        };
        let off = patch(&proxy, true);
        let told = off.json();
        assert_eq!((off.head.status, &told["status"], &told["disabled"]), (200, &json!("ok"), &json!(true)));
        assert_eq!(
            (&told["pattern"], &told["key"], &told["index"]),
            (&json!("*"), &json!("claude-api-key"), &json!(0))
        );
        assert!(!models(&proxy).contains("claude-x") && models(&proxy).contains("claude-y"), "{name}");
        proxy.kill_and_restart();
        assert!(!models(&proxy).contains("claude-x") && models(&proxy).contains("claude-y"), "{name}");
        assert_eq!(quota(&proxy)[0]["disabled"], true);
        let text = config_text(&proxy);
        for kept in ["# ours", "# alice's", "# bob's", "# who may manage", "# for now"] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
        assert_eq!(patch(&proxy, false).json()["disabled"], false);
        assert!(models(&proxy).contains("claude-x"));
        let lines = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        assert_eq!(lines(&config_text(&proxy)), lines(&before), "{name}");
    }
    let unknown = manage(&proxy, "PATCH", "auth-files/status", r#"{"name":"claude#9","disabled":true}"#);
    assert_eq!(unknown.head.status, 400, "{}", unknown.text());
}

#[test]
fn a_cost_is_that_of_its_time_and_what_has_no_price_is_told() {
    let upstream = upstream();
    let mut proxy = proxy(&config(&upstream));
    let total = |proxy: &Proxy| manage(proxy, "GET", "usage", "").json()["total"].clone();
    let reached = |proxy: &Proxy, n: u64| until(|| total(proxy)["requests"] == n);
    ask(&proxy, "m");
    assert!(reached(&proxy, 1));
    let none = total(&proxy);
    assert_eq!((&none["cost_usd"], &none["unpriced_tokens"]), (&Value::Null, &json!(5)), "{none}");
    let price = |proxy: &Proxy, input: &str| {
        let text = config_text(proxy);
        let text = text.split("prices:").next().unwrap_or_default().trim_end().to_owned();
        let text = format!("{text}\nprices: [{{model: m, input: {input}, output: 1000}}]\n");
        assert_eq!(manage(proxy, "PUT", "config.yaml", &text).head.status, 200);
    };
    price(&proxy, "2000");
    ask(&proxy, "m");
    assert!(reached(&proxy, 2));
    let first = total(&proxy);
    assert_eq!((&first["cost_usd"], &first["unpriced_tokens"]), (&json!(0.008), &json!(5)), "{first}");
    price(&proxy, "4000");
    ask(&proxy, "m");
    assert!(reached(&proxy, 3));
    assert_eq!(total(&proxy)["cost_usd"], json!(0.022), "what was keeps its price");
    let rows = manage(&proxy, "GET", "usage?by=model", "").json();
    assert_eq!(rows["usage"][0]["cost_usd"], json!(0.022), "{rows}");
    let exported = manage(&proxy, "GET", "usage/export", "").json();
    assert_eq!(exported["rows"][0]["cost_nano_usd"], 22_000_000, "{exported}");
    proxy.signal("TERM");
    assert_eq!(proxy.wait(std::time::Duration::from_secs(90)), Some(0), "{}", proxy.log());
    proxy.start_again();
    assert_eq!(total(&proxy)["cost_usd"], json!(0.022), "costs are kept");
}
