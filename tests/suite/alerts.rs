//! Alerts from what is counted to those who are told (runbook rows 29, 70, 74, 79, 80, 98, 117, 118, 157).

use crate::management::{ON, manage};
use crate::reload::{replace, until};
use crate::shared::{CHAT, chat_keys, proxy, proxy_in, whole};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use testkit::client::Client;
use testkit::proxy::Proxy;
use testkit::scratch::{Scratch, free_port};
use testkit::upstream::{Seen, Step, Upstream, json as answer, whole as with_type};

const CALM: &str = "disable-cooling: true\n";

/// An upstream whose requests are answered by their number and model; `None`: well.
fn upstream(script: impl Fn(usize, &str) -> Option<Step> + Send + Sync + 'static) -> Upstream {
    let count = AtomicUsize::new(0);
    Upstream::start(move |seen: &Seen| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        let model = seen.json()["model"].as_str().unwrap_or_default().to_owned();
        script(n, &model).map_or_else(|| whole(&seen.path), |step| vec![step])
    })
}

fn error(status: u16) -> Step {
    answer(status, r#"{"error":{"message":"no"}}"#)
}

/// A provider `up` with these models.
fn models(url: &str, names: &[&str]) -> String {
    let list: Vec<_> = names.iter().map(|name| format!("{{name: {name}}}")).collect();
    chat_keys(url, &["one"]).replace("[{name: m, alias: m}]", &format!("[{}]", list.join(", ")))
}

fn ask(proxy: &Proxy, model: &str, times: usize) {
    for _ in 0..times {
        proxy.post(CHAT.path, &CHAT.body(model, false));
    }
}

fn alerts(proxy: &Proxy) -> Value {
    manage(proxy, "GET", "alerts", "").json()
}

/// The alert of a rule, about anybody.
fn find(proxy: &Proxy, id: &str) -> Option<Value> {
    alerts(proxy)["alerts"].as_array()?.iter().find(|alert| alert["id"] == id).cloned()
}

fn fires(proxy: &Proxy, id: &str, severity: &str) -> Value {
    let is_it = |alert: &Value| alert["severity"] == severity && alert["status"] == "firing";
    assert!(until(|| find(proxy, id).is_some_and(|alert| is_it(&alert))), "{id}: {}", alerts(proxy));
    find(proxy, id).unwrap_or_default()
}

fn test(proxy: &Proxy, body: &str) -> Value {
    let told = manage(proxy, "POST", "alerts/test", body);
    assert_eq!(told.head.status, 200, "{}", told.text());
    told.json()
}

#[test]
fn row_29_one_429_of_ten_is_a_warning_that_goes_by_itself() {
    let upstream = upstream(|n, _| (n == 3).then(|| error(429)));
    let rules = "alerts: {rules: [{id: rate-limit-ratio, calm-seconds: 1}]}\n";
    let proxy = proxy(&format!("{ON}{CALM}{rules}{}", chat_keys(&upstream.url(), &["one"])));
    ask(&proxy, "m", 10);
    let alert = fires(&proxy, "rate-limit-ratio", "warning");
    assert_eq!(alert["type"], "error_rate");
    assert_eq!(
        (&alert["provider"], &alert["subject"], &alert["model_id"]),
        (&"up".into(), &"up".into(), &Value::Null)
    );
    assert_eq!((&alert["current_value"], &alert["threshold"]), (&0.1.into(), &0.05.into()));
    assert_eq!(alerts(&proxy)["firing"], 1, "{}", alerts(&proxy));
    assert!(proxy.log().contains("alert warning: up: many calls are refused with 429"), "{}", proxy.log());
    ask(&proxy, "m", 30);
    let over = || find(&proxy, "rate-limit-ratio").is_some_and(|alert| alert["status"] == "resolved");
    assert!(until(over), "{}", alerts(&proxy));
    assert!(proxy.log().contains("alert resolved: up"));
}

#[test]
fn rows_79_80_98_models_that_fail_are_told_by_their_own_thresholds() {
    let upstream = upstream(|n, model| match model {
        "gpt-5.3-codex-spark" if n >= 49 => Some(error(400)),
        "pic-image" => Some(error(503)),
        _ => None,
    });
    let config = format!(
        "{ON}{CALM}fallback-models: {{gpt-5.3-codex-spark: []}}\n{}",
        models(&upstream.url(), &["gpt-5.3-codex-spark", "pic-image", "m"])
    );
    let proxy = proxy(&config);
    ask(&proxy, "gpt-5.3-codex-spark", 51);
    let spark = fires(&proxy, "spark-error-ratio", "warning");
    assert_eq!((&spark["model_id"], &spark["provider"]), (&"gpt-5.3-codex-spark".into(), &Value::Null));
    ask(&proxy, "gpt-5.3-codex-spark", 2);
    fires(&proxy, "spark-error-ratio", "critical");
    assert!(find(&proxy, "image-error-ratio").is_none());
    ask(&proxy, "pic-image", 3);
    let image = fires(&proxy, "image-error-ratio", "critical");
    assert!(image["description"].as_str().is_some_and(|text| text.contains("last 300 s")), "{image}");
}

#[test]
fn row_74_and_117_answers_without_content_and_with_other_thinking_are_told() {
    const THOUGHT: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"a","choices":[{"index":0,"message":{"role":"assistant","content":"","reasoning_content":"only thinking"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#;
    let upstream = upstream(|_, model| (model == "empty").then(|| answer(200, THOUGHT)));
    let config = format!(
        "{ON}model-overrides: [{{match: m, thinking: {{}}}}]\n{}",
        models(&upstream.url(), &["empty", "m"])
    );
    let proxy = proxy(&config);
    ask(&proxy, "empty", 1);
    fires(&proxy, "empty-content", "critical");
    let body = CHAT.body("m", false).replace("\"messages\"", "\"reasoning_effort\":\"high\",\"messages\"");
    for _ in 0..10 {
        assert_eq!(proxy.post(CHAT.path, &body).head.status, 200);
    }
    let alert = fires(&proxy, "thinking-mismatch-ratio", "critical");
    assert_eq!(alert["metric_name"], "thinking_mismatch_ratio");
}

#[test]
fn quota_and_failures_of_a_provider_and_row_70_no_models_are_told() {
    let upstream = Upstream::start(|seen| match seen.path.as_str() {
        path if path.ends_with("/models") => vec![answer(200, r#"{"data":[]}"#)],
        _ if seen.json()["model"] == "bad" => vec![error(500)],
        _ => vec![answer(429, r#"{"error":{"message":"no","code":"insufficient_quota"}}"#)],
    });
    let url = upstream.url();
    let other =
        models(&url, &["bad"]).replace("name: up", "name: bad").replace("openai-compatibility:\n", "");
    let empty = format!("groq: [{{api-key: g, base-url: '{url}/v1'}}]\n");
    let proxy =
        proxy(&format!("{ON}transient-error-cooldown-seconds: -1\n{}{other}{empty}", models(&url, &["m"])));
    ask(&proxy, "m", 1);
    let quota = fires(&proxy, "quota-exhausted", "critical");
    assert_eq!((&quota["type"], &quota["provider"]), (&"quota".into(), &"up".into()));
    ask(&proxy, "bad", 10);
    assert_eq!(fires(&proxy, "provider-error-ratio", "critical")["provider"], "bad");
    let none = fires(&proxy, "groq-zero-models", "critical");
    assert_eq!((&none["metric_name"], &none["provider"]), (&"zero_models".into(), &"groq".into()));
}

#[test]
fn row_118_more_reasoning_than_the_day_before_is_told_over_a_restart() {
    const THOUGHTFUL: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":200,"total_tokens":203,"completion_tokens_details":{"reasoning_tokens":150}}}"#;
    let upstream = upstream(|_, _| Some(answer(200, THOUGHTFUL)));
    let mut proxy = proxy(&format!("{ON}{}", chat_keys(&upstream.url(), &["one"])));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    let hour = now.as_secs() / 3600;
    let row = |hour: u64, requests: u64, each: u64| {
        json!({
            "hour": hour, "client_key": "k", "credential": "c", "provider": "up", "model": "m",
            "requests": requests, "errors": 0, "reasoning_tokens": requests * each,
        })
    };
    // 100 tokens each, and what was long ago does not count.
    let rows = json!({ "version": 1, "rows": [row(hour - 3, 40, 100), row(hour - 20, 40, 100), row(hour - 90, 999, 1)] });
    let taken = manage(&proxy, "POST", "usage/import", &rows.to_string());
    assert_eq!((taken.head.status, &taken.json()["taken"]), (200, &3.into()), "{}", taken.text());
    proxy.kill_and_restart();
    ask(&proxy, "m", 9);
    assert!(find(&proxy, "reasoning-growth").is_none(), "nine answers say too little");
    ask(&proxy, "m", 3);
    let alert = fires(&proxy, "reasoning-growth", "warning");
    assert_eq!((&alert["current_value"], &alert["model_id"]), (&0.5.into(), &"m".into()), "{alert}");
}

#[test]
fn rules_follow_the_file_and_alerts_of_other_rules_stay() {
    const NOTHING: &str =
        r#"{"choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"stop"}]}"#;
    let upstream = upstream(|n, _| match n {
        3 => Some(error(429)),
        4 => Some(answer(200, NOTHING)),
        _ => None,
    });
    let proxy = proxy(&format!("{ON}{CALM}{}", chat_keys(&upstream.url(), &["one"])));
    ask(&proxy, "m", 10);
    fires(&proxy, "rate-limit-ratio", "warning");
    let before = fires(&proxy, "empty-content", "critical");
    let file = proxy.folder().join("config.yaml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    let rules = "alerts:\n  rules:\n    - {id: rate-limit-ratio, warning: 50%}\n\
                 \x20   - {id: any, metric: any-error-ratio, critical: 1%, subjects: ['u*']}\n\
                 \x20   - {id: zero-models, disabled: true}\n";
    replace(&file, &format!("{text}{rules}"));
    // A minute of calm is not waited for: the rule is another one.
    let over = || find(&proxy, "rate-limit-ratio").is_some_and(|alert| alert["status"] == "resolved");
    assert!(until(over), "{}", alerts(&proxy));
    assert_eq!(fires(&proxy, "any", "critical")["current_value"], 0.1);
    assert_eq!(find(&proxy, "empty-content"), Some(before));
    let told = manage(&proxy, "GET", "alerts/rules", "").json();
    let rule = |id: &str| -> Value {
        let rules = told["rules"].as_array().expect("rules");
        rules.iter().find(|rule| rule["id"] == id).cloned().unwrap_or_default()
    };
    let limited = rule("rate-limit-ratio");
    assert_eq!(
        (&limited["warning"], &limited["critical"], &limited["origin"]),
        (&0.5.into(), &0.5.into(), &"changed".into())
    );
    assert_eq!((&rule("zero-models")["disabled"], &rule("any")["origin"]), (&true.into(), &"own".into()));
    assert_eq!(rule("image-error-ratio")["window_seconds"], 300);
    replace(&file, &format!("{text}alerts: {{enabled: false}}\n"));
    assert!(until(|| alerts(&proxy)["firing"] == 0), "{}", alerts(&proxy));
    assert_eq!(alerts(&proxy)["enabled"], false);
}

/// A webhook that takes nothing while it is told to hang.
fn webhook() -> (Upstream, Arc<AtomicBool>) {
    let hangs = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&hangs);
    let hook = Upstream::start(move |_| {
        if told.load(Ordering::SeqCst) { vec![Step::Stall] } else { vec![with_type(200, "text/plain", "ok")] }
    });
    (hook, hangs)
}

#[test]
fn row_157_a_webhook_that_hangs_disturbs_no_request_and_what_is_too_much_is_counted() {
    let (hook, _hangs) = webhook();
    let upstream = upstream(|_, model| (model != "m").then(|| error(500)));
    let names: Vec<String> = (0..80).map(|n| format!("bad-{n}")).collect();
    let mut list: Vec<&str> = names.iter().map(String::as_str).collect();
    list.push("m");
    let metrics = free_port();
    let alerts_of = format!(
        "metrics: {{listen: '127.0.0.1:{metrics}'}}\nalerts:\n  rules: [{{id: each, metric: error_ratio, scope: models, warning: 0, min-requests: 1}}]\n\
         \x20 notify: [{{webhook: '{}/hook', timeout-seconds: 60}}]\n",
        hook.url()
    );
    let proxy = proxy(&format!("{ON}{CALM}{alerts_of}{}", models(&upstream.url(), &list)));
    for name in &names {
        ask(&proxy, name, 1);
    }
    let counts = |name: &str| alerts(&proxy)["notifications"][name].as_u64().unwrap_or(0);
    assert!(until(|| counts("dropped") >= 10), "{}", alerts(&proxy)["notifications"]);
    assert_eq!(counts("queued"), 64, "its share of the queue, and no more");
    assert!(hook.wait(Duration::from_secs(10), |seen| seen.len() == 1), "one is under way");
    let mut longest = Duration::ZERO;
    for _ in 0..100 {
        let begun = Instant::now();
        assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200);
        longest = longest.max(begun.elapsed());
    }
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    assert_eq!(manage(&proxy, "GET", "request-retry", "").head.status, 200, "nor is the sidecar held up");
    let mut page = Client::connect(([127, 0, 0, 1], metrics).into());
    page.get("/metrics", &[]);
    let text = page.answer().text();
    assert!(text.contains("cliproxy_alert_notifications_total{outcome=\"dropped\"} "), "{text}");
    assert_eq!(hook.seen().len(), 1, "no second try while the first one hangs");
}

#[test]
fn row_157_a_canary_is_sent_once_and_signed_and_delivered_when_the_target_works() {
    let (hook, hangs) = webhook();
    let proxy = proxy(&format!(
        "{ON}alerts:\n  notify:\n    - {{webhook: '{}/CANARY-path?sig=CANARY-query', secret: CANARY-key, headers: {{X-Team: CANARY-header}}, timeout-seconds: 1}}\n\
         \x20   - {{webhook: 'http://127.0.0.1:{}/CANARY-path', min-severity: critical}}\n",
        hook.url(),
        free_port()
    ));
    let dry = test(&proxy, r#"{"dry_run": true}"#);
    assert_eq!((&dry["dry_run"], dry["targets"].as_array().map(Vec::len)), (&true.into(), Some(2)), "{dry}");
    assert_eq!(dry["targets"][0]["would_send"]["body"]["id"], "canary");
    assert!(hook.seen().is_empty(), "dry means dry");
    let told = test(&proxy, r#"{"target": 0}"#);
    let one = &told["targets"][0];
    assert_eq!(
        (&one["index"], &one["kind"], &one["delivered"]),
        (&0.into(), &"webhook".into(), &false.into())
    );
    assert!(
        one["error"].as_str().is_some_and(|error| error.contains("no answer within 1 seconds")),
        "{told}"
    );
    assert_eq!(hook.seen().len(), 1, "a canary is sent once");
    hangs.store(false, Ordering::SeqCst);
    let told = test(&proxy, "");
    assert_eq!(told["targets"][0]["delivered"], true, "{told}");
    assert_eq!(told["targets"][1]["delivered"], false, "nobody listens there: {told}");
    let seen = hook.seen().pop().expect("a request");
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/CANARY-path?sig=CANARY-query"));
    assert_eq!(seen.header("x-team"), Some("CANARY-header"));
    let alert = seen.json();
    assert_eq!(
        (&alert["id"], &alert["severity"], &alert["type"]),
        (&"canary".into(), &"info".into(), &"info".into())
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(b"CANARY-key").expect("a key");
    mac.update(&seen.body);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(seen.header("x-cliproxy-signature"), Some(format!("sha256={hex}").as_str()));
    let missing = manage(&proxy, "POST", "alerts/test", r#"{"target": 2}"#);
    assert_eq!(missing.head.status, 404, "{}", missing.text());
    assert_eq!(manage(&proxy, "POST", "alerts/test", "[").head.status, 400);
    let counts = alerts(&proxy)["notifications"].clone();
    assert_eq!(
        (&counts["delivered"], &counts["failed"], &counts["queued"]),
        (&1.into(), &2.into(), &0.into())
    );
    for text in [dry.to_string(), told.to_string(), proxy.log(), manage(&proxy, "GET", "config", "").text()] {
        assert!(!text.contains("CANARY"), "p53: {text}");
    }
}

#[test]
fn p59_webhooks_reach_no_metadata_and_follow_no_redirect() {
    let other = Upstream::start(|_| vec![answer(200, "{}")]);
    let url = other.url();
    let hook = Upstream::start(move |_| {
        vec![Step::send(format!("HTTP/1.1 307 X\r\nlocation: {url}/\r\ncontent-length: 0\r\n\r\n"))]
    });
    let hosts =
        ["169.254.169.254", "2852039166", "0xa9fea9fe", "[fd00:ec2::254]", "[::ffff:169.254.169.254]"];
    let mut targets: Vec<String> =
        hosts.iter().map(|host| format!("    - webhook: 'http://{host}/latest'\n")).collect();
    targets.push(format!("    - webhook: 'http://169.254.169.254/x'\n      proxy-url: '{}'\n", other.url()));
    targets.push(format!("    - webhook: '{}/moved'\n", hook.url()));
    let proxy = proxy(&format!("{ON}alerts:\n  notify:\n{}", targets.concat()));
    let told = test(&proxy, "");
    let all = told["targets"].as_array().expect("targets");
    assert_eq!(all.len(), hosts.len() + 2);
    for (n, one) in all.iter().enumerate() {
        let says = if n < all.len() - 1 { "link-local" } else { "redirects are not followed" };
        assert!(one["error"].as_str().is_some_and(|error| error.contains(says)), "{says}: {one}");
    }
    assert!(other.seen().is_empty() && hook.seen().len() == 1);
}

fn program(scratch: &Scratch, name: &str, text: &str) -> String {
    let file = scratch.file(name, text);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700))
        .expect("it can be made a program");
    file.display().to_string()
}

#[test]
fn programs_and_apprise_are_told_when_it_rises_and_when_it_is_over() {
    let scratch = Scratch::new();
    let told = scratch.path().join("told");
    let write = "#!/bin/sh\n{ cat; echo; } >> \"$1\"\n";
    let tell = program(&scratch, "tell", write);
    let words = scratch.path().join("words");
    program(&scratch, "apprise", &format!("#!/bin/sh\nprintf '%s|' \"$@\" >> '{}'\n", words.display()));
    let upstream = upstream(|n, _| (n == 3).then(|| error(429)));
    let config = format!(
        "{ON}{CALM}alerts:\n  rules: [{{id: rate-limit-ratio, calm-seconds: 1}}]\n  notify:\n\
         \x20   - {{command: [{tell}, {}]}}\n    - {{apprise: 'json://CANARY@h', send-resolved: false}}\n{}",
        told.display(),
        chat_keys(&upstream.url(), &["one"])
    );
    let path = format!("{}:{}", scratch.path().display(), std::env::var("PATH").unwrap_or_default());
    let proxy = proxy_in(&config, &[("PATH", &path), ("MANAGEMENT_PASSWORD", "CANARY")]);
    ask(&proxy, "m", 10);
    // Nobody asks: the sidecar looks by itself.
    let lines = || std::fs::read_to_string(&told).unwrap_or_default().lines().count();
    assert!(until(|| lines() == 1), "{}", proxy.log());
    ask(&proxy, "m", 30);
    let over = || find(&proxy, "rate-limit-ratio").is_some_and(|alert| alert["status"] == "resolved");
    assert!(until(over), "{}", alerts(&proxy));
    assert!(until(|| lines() == 2), "{}", proxy.log());
    let text = std::fs::read_to_string(&told).expect("what was told");
    let status: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["status"].clone())
        .collect();
    assert_eq!(status, ["firing", "resolved"]);
    assert!(until(|| words.exists()), "{}", proxy.log());
    let words = std::fs::read_to_string(&words).expect("what apprise was told");
    assert!(
        words.starts_with("-t|[WARNING] up: many calls are refused with 429|-b|rate_limit_ratio is 0.1. "),
        "{words}"
    );
    assert!(words.ends_with("|json://CANARY@h|") && words.matches("-t|").count() == 1, "{words}");
    assert!(!proxy.log().contains("CANARY"));
}
