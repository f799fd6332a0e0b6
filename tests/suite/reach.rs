//! Ways to upstreams: names that do not resolve, proxies that cannot be used, models that nobody listed.

use crate::shared::{CHAT, good, proxy, text_of, whole};
use std::time::{Duration, Instant};
use testkit::upstream::{Step, Upstream, json};

/// A block `name` at `url` with a key that has the setting `proxy-url`.
fn block(name: &str, url: &str, proxy_url: &str) -> String {
    format!(
        "  - name: {name}\n    prefix: {name}\n    base-url: {url}/v1\n    api-key-entries: [{{api-key: k, proxy-url: \"{proxy_url}\"}}]\n    models: [{{name: m, alias: m}}]\n"
    )
}

#[test]
fn p15_a_name_that_does_not_resolve_sends_the_request_elsewhere() {
    let upstream = good();
    let proxy = proxy(&format!(
        "openai-compatibility:\n  - name: a\n    priority: 9\n    base-url: http://no-such-host.invalid/v1\n    api-key-entries: [{{api-key: k}}]\n    models: [{{name: m, alias: m}}]\n  - name: b\n    base-url: {}/v1\n    api-key-entries: [{{api-key: k}}]\n    models: [{{name: m, alias: m}}]\n",
        upstream.url()
    ));
    let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
    assert_eq!(answer.head.status, 200, "{}\n{}", answer.text(), proxy.log());
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn p60_metadata_of_clouds_is_not_reached() {
    let proxy = proxy(
        "request-retry: 0\nopenai-compatibility:\n  - name: a\n    base-url: http://169.254.169.254/v1\n    api-key-entries: [{api-key: k}]\n    models: [{name: m, alias: m}]\n",
    );
    let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
    assert_eq!(answer.head.status, 502, "{}", answer.text());
    assert!(answer.text().contains("link-local") || proxy.log().contains("link-local"), "{}", answer.text());
}

#[test]
fn row_42_a_broken_global_proxy_stops_those_that_would_use_it_and_no_other() {
    let forward = Upstream::start(|_| whole("/chat/v1"));
    let upstream = good();
    let config = format!(
        "proxy-url: \"ftp://x\"\nopenai-compatibility:\n{}{}{}",
        block("own", "http://upstream.invalid", &forward.url()),
        block("none", &upstream.url(), "direct"),
        block("global", &upstream.url(), ""),
    );
    let proxy = proxy(&config);
    let log = proxy.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("proxy config invalid")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("unsupported proxy scheme") && told[0].contains("source=global"), "{log}");
    for model in ["own/m", "none/m"] {
        let answer = proxy.post(CHAT.path, &CHAT.body(model, false));
        assert_eq!(answer.head.status, 200, "{model}: {}", answer.text());
    }
    assert_eq!((forward.seen().len(), upstream.seen().len()), (1, 1));
    let answer = proxy.post(CHAT.path, &CHAT.body("global/m", false));
    assert!((500..600).contains(&answer.head.status), "{}", answer.text());
    assert_eq!(upstream.seen().len(), 1, "nothing goes out directly");
}

#[test]
fn row_38_blocks_without_models_serve_what_their_upstream_lists() {
    let upstream = Upstream::start(|seen| match (seen.path.as_str(), seen.header("authorization")) {
        ("/v1/models", Some("Bearer from-a-file")) => {
            vec![json(200, r#"{"object":"list","data":[{"id":"m-1"},{"id":"m-2-old"}]}"#)]
        }
        ("/v1/chat/completions", _) => whole(&seen.path),
        _ => vec![json(404, "{}")],
    });
    let scratch = testkit::scratch::Scratch::new();
    let key = scratch.file("key", "from-a-file\n");
    let proxy = proxy(&format!(
        "minimax: [{{token-file: '{}', base-url: '{}/v1', excluded-models: ['*-old']}}]\n",
        key.display(),
        upstream.url()
    ));
    let mut listed = false;
    for _ in 0..200 {
        listed = proxy.get("/v1/models").text().contains("\"m-1\"");
        if listed {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(listed, "{}", proxy.log());
    assert!(!proxy.get("/v1/models").text().contains("m-2-old"));
    let answer = proxy.post(CHAT.path, &CHAT.body("m-1", false));
    assert_eq!(answer.head.status, 200, "{}", answer.text());
    assert_eq!(text_of(&CHAT, &answer.text()), "Hello");
    std::fs::write(&key, "another-key").expect("the key changes");
    assert!(
        upstream.wait(Duration::from_secs(20), |seen| {
            seen.iter().any(|seen| seen.header("authorization") == Some("Bearer another-key"))
        }),
        "{}",
        proxy.log()
    );
    assert!(!proxy.log().contains("from-a-file"));
}

#[test]
fn waiting_times_of_a_provider_are_its_own() {
    let silent = Upstream::start(|_| vec![Step::Stall]);
    let proxy = proxy(&format!(
        "request-retry: 0\nopenai-compatibility:\n  - name: a\n    base-url: {}/v1\n    timeouts: {{first-byte-seconds: 1}}\n    api-key-entries: [{{api-key: k}}]\n    models: [{{name: m, alias: m}}]\n",
        silent.url()
    ));
    let begun = Instant::now();
    let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
    assert_eq!(answer.head.status, 504, "{}", answer.text());
    assert!(begun.elapsed() < Duration::from_mins(1), "the general limit is 300 seconds");
}
