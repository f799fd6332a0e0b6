//! Who serves: sessions, refused models and their fallbacks, upstreams without room.

use crate::shared::{CLAUDE, chat_keys, events, proxy};
use std::collections::HashSet;
use testkit::proxy::{KEY, Proxy};
use testkit::upstream::{Seen, Step, Upstream, chunk, chunk_end, json, stream_head};

const BINARY: &str = env!("CARGO_BIN_EXE_cliproxy");

fn streamed(path: &str) -> Vec<Step> {
    let mut steps = vec![stream_head()];
    steps.extend(events(path).iter().map(|event| chunk(event)));
    steps.push(chunk_end());
    steps
}

fn claude_keys(url: &str, count: usize) -> String {
    let key =
        |n| format!("  - {{api-key: up-{n}, base-url: '{url}/claude', models: [{{name: m, alias: m}}]}}\n");
    format!("claude-api-key:\n{}", (0..count).map(key).collect::<String>())
}

/// The upstream keys that served, in order.
fn served(upstream: &Upstream) -> Vec<String> {
    upstream
        .seen()
        .iter()
        .filter_map(|seen| seen.header("x-api-key").or(seen.header("authorization")).map(str::to_owned))
        .collect()
}

#[test]
fn a_conversation_stays_with_its_credential_where_prompts_are_cached() {
    let upstream = Upstream::start(|seen| streamed(&seen.path));
    let proxy = proxy(&claude_keys(&upstream.url(), 4));
    let say = |session: &str| {
        let mut client = proxy.connect();
        let key = format!("Bearer {KEY}");
        let headers = [("authorization", key.as_str()), ("x-claude-code-session-id", session)];
        client.post(CLAUDE.path, &headers, &CLAUDE.body("m", true));
        assert_eq!(client.answer().head.status, 200);
    };
    (0..6).for_each(|_| say("one"));
    assert_eq!(served(&upstream).iter().collect::<HashSet<_>>().len(), 1);
    (0..8).for_each(|n| say(&format!("other-{n}")));
    assert_eq!(served(&upstream).iter().collect::<HashSet<_>>().len(), 4, "others are spread");
    say("one");
    assert_eq!(served(&upstream).last(), served(&upstream).first());
    // A conversation without an id goes on where it began.
    let ask = |more: &str| {
        let turns = format!(r#"{{"role":"user","content":"an own question"}}{more}"#);
        let body = format!(r#"{{"model":"m","max_tokens":9,"stream":true,"messages":[{turns}]}}"#);
        assert_eq!(proxy.post(CLAUDE.path, &body).head.status, 200);
        served(&upstream).pop()
    };
    let first = ask("");
    for _ in 0..3 {
        let later = ask(r#",{"role":"assistant","content":"yes"},{"role":"user","content":"and"}"#);
        assert_eq!(later, first);
    }
}

#[test]
fn session_affinity_false_lets_requests_rotate() {
    let upstream = Upstream::start(|seen| streamed(&seen.path));
    let proxy = proxy(&format!("routing: {{session-affinity: false}}\n{}", claude_keys(&upstream.url(), 3)));
    for _ in 0..6 {
        let mut client = proxy.connect();
        let key = format!("Bearer {KEY}");
        let headers = [("authorization", key.as_str()), ("session-id", "one")];
        client.post(CLAUDE.path, &headers, &CLAUDE.body("m", true));
        assert_eq!(client.answer().head.status, 200);
    }
    assert_eq!(served(&upstream).iter().collect::<HashSet<_>>().len(), 3);
}

const SPARK: &str = "gpt-5.3-codex-spark";

/// A Codex account whose upstream refuses spark.
fn codex(config: &str) -> (Upstream, Proxy) {
    let upstream = Upstream::start(|seen| {
        if seen.json()["model"] == SPARK {
            return vec![json(
                400,
                r#"{"detail":"The 'gpt-5.3-codex-spark' model is not supported when using Codex with a ChatGPT account."}"#,
            )];
        }
        streamed("/responses")
    });
    let config = format!("oauth-upstream: {{codex: '{}/codex'}}\n{config}", upstream.url());
    let account = r#"{"type":"codex","access_token":"t","account_id":"a","email":"a@b","plan_type":"plus"}"#;
    let proxy = Proxy::start_with(BINARY, &config, &[("codex-plus.json", account)]);
    (upstream, proxy)
}

fn spark(proxy: &Proxy) -> testkit::client::Answer {
    proxy.post("/v1/responses", &format!(r#"{{"model":"{SPARK}","input":"hi"}}"#))
}

fn lists_spark(proxy: &Proxy) -> bool {
    let models = proxy.get("/v1/models").json();
    models["data"].as_array().is_some_and(|list| list.iter().any(|model| model["id"] == SPARK))
}

#[test]
fn row_79_c19_a_refused_spark_is_served_by_codex_and_leaves_the_list() {
    let (upstream, proxy) = codex("");
    assert!(lists_spark(&proxy));
    for _ in 0..3 {
        let answer = spark(&proxy);
        assert_eq!(answer.head.status, 200, "{}", answer.text());
        assert_eq!(answer.head.header("x-fallback-model"), Some("gpt-5.3-codex"));
    }
    let asked: Vec<_> = upstream.seen().iter().map(|seen| seen.json()["model"].clone()).collect();
    assert_eq!(asked.iter().filter(|model| **model == SPARK).count(), 1, "{asked:?}");
    assert!(!lists_spark(&proxy));
}

#[test]
fn row_78_a_refused_spark_without_a_fallback_is_a_model_that_is_not_there() {
    let (_upstream, proxy) = codex(&format!("fallback-models: {{{SPARK}: []}}\n"));
    let first = spark(&proxy);
    let error = &first.json()["error"];
    assert_eq!((first.head.status, error["code"].as_str()), (400, Some("model_not_found")), "{error}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("not supported when using Codex")));
    // Until the day is over it is not asked for again.
    let second = spark(&proxy);
    let error = &second.json()["error"];
    assert_eq!((second.head.status, error["code"].as_str()), (404, Some("model_not_found")), "{error}");
    assert!(
        error["message"].as_str().is_some_and(|text| text.contains("entitlement (status 400)")),
        "{error}"
    );
}

fn streamed_by_google() -> Vec<Step> {
    let answer = r#"{"response":{"candidates":[{"content":{"role":"model","parts":[{"text":"Hello"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":1},"modelVersion":"m","responseId":"r"}}"#;
    vec![stream_head(), chunk(&format!("data: {answer}\n\n")), chunk_end()]
}

/// Whether a request asks for the models of an account.
fn is_list(seen: &Seen) -> bool {
    seen.path.ends_with(":fetchAvailableModels")
}

/// The requests for answers.
fn calls(upstream: &Upstream) -> Vec<Seen> {
    upstream.seen().into_iter().filter(|seen| !is_list(seen)).collect()
}

/// An Antigravity account whose upstream has no room for the first requests.
fn antigravity(config: &str, failures: usize) -> (Upstream, Proxy) {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let upstream = Upstream::start(move |seen| {
        if is_list(seen) {
            return vec![json(404, "{}")];
        }
        if count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < failures {
            return vec![json(
                503,
                r#"{"error":{"code":503,"message":"No capacity available for model X on the server","status":"UNAVAILABLE","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"MODEL_CAPACITY_EXHAUSTED"}]}}"#,
            )];
        }
        streamed_by_google()
    });
    let config = format!("oauth-upstream: {{antigravity: '{}'}}\n{config}", upstream.url());
    let account = r#"{"type":"antigravity","access_token":"t","email":"a@b","project_id":"p"}"#;
    let proxy = Proxy::start_with(BINARY, &config, &[("antigravity.json", account)]);
    (upstream, proxy)
}

const CLAUDE_THERE: &str =
    r#"{"model":"claude-sonnet-4-6","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

#[test]
fn row_56_an_upstream_without_room_is_asked_again_in_a_moment() {
    let (upstream, proxy) = antigravity("", 2);
    let answer = proxy.post("/v1/chat/completions", CLAUDE_THERE);
    assert_eq!(answer.head.status, 200, "{}", answer.text());
    assert_eq!(calls(&upstream).len(), 3);
}

#[test]
fn row_57_58_without_that_it_is_told_at_once_with_the_upstreams_words() {
    let (upstream, proxy) = antigravity("antigravity-no-capacity-retry: false\n", usize::MAX);
    let answer = proxy.post("/v1/chat/completions", CLAUDE_THERE);
    assert_eq!((answer.head.status, calls(&upstream).len()), (503, 1));
    let text = answer.text();
    assert!(text.contains("MODEL_CAPACITY_EXHAUSTED") && text.contains("No capacity available"), "{text}");
}

#[test]
fn least_loaded_is_a_strategy_of_the_configuration() {
    let upstream = Upstream::start(|_| streamed("/v1/chat"));
    let proxy =
        proxy(&format!("routing: {{strategy: least-loaded}}\n{}", chat_keys(&upstream.url(), &["a", "b"])));
    for _ in 0..24 {
        let body = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
        assert_eq!(proxy.post("/v1/chat/completions", body).head.status, 200);
    }
    assert_eq!(served(&upstream).iter().collect::<HashSet<_>>().len(), 2, "both serve");
}

#[test]
fn a_compaction_that_is_refused_keeps_no_conversation_waiting() {
    let upstream = Upstream::start(|seen| {
        if seen.path.ends_with("/compact") {
            return vec![json(403, r#"{"error":{"message":"no compaction here"}}"#)];
        }
        streamed("/responses")
    });
    let key =
        format!("{{api-key: k, base-url: '{}/responses', models: [{{name: m, alias: m}}]}}", upstream.url());
    let proxy = proxy(&format!("codex-api-key: [{key}]\n"));
    let compacted = proxy.post("/v1/responses/compact", r#"{"model":"m","input":"hi"}"#);
    assert_eq!(compacted.head.status, 403, "{}", compacted.text());
    assert_eq!(proxy.post("/v1/responses", r#"{"model":"m","input":"hi","stream":true}"#).head.status, 200);
}

#[test]
fn row_79_a_model_that_fails_too_often_is_served_by_its_fallback_at_once() {
    let upstream = Upstream::start(|seen| {
        if seen.json()["model"] == "shaky" && seen.json()["messages"][0]["content"] != "good" {
            return vec![json(500, r#"{"error":{"message":"m"}}"#)];
        }
        streamed("/v1/chat")
    });
    let config = format!(
        "fallback-models: {{shaky: [solid]}}\ntransient-error-cooldown-seconds: -1\nopenai-compatibility:\n\
         \x20 - {{name: up, base-url: '{}/v1', api-key-entries: [{{api-key: a}}], models: [{{name: shaky}}, {{name: solid}}]}}\n",
        upstream.url()
    );
    let proxy = proxy(&config);
    let ask = |text: &str| {
        let body =
            format!(r#"{{"model":"shaky","stream":true,"messages":[{{"role":"user","content":"{text}"}}]}}"#);
        let answer = proxy.post("/v1/chat/completions", &body);
        assert_eq!(answer.head.status, 200);
        answer.head.header("x-fallback-model").map(str::to_owned)
    };
    assert!((0..18).all(|_| ask("good").is_none()));
    let bad: Vec<_> = (0..2).map(|_| ask("bad")).collect();
    assert!(bad.iter().all(|by| by.as_deref() == Some("solid")), "after an error of the first");
    // Two errors in twenty attempts: the first is not asked any more, but for one request in twenty.
    let before = upstream.seen().len();
    let by: Vec<_> = (0..20).map(|_| ask("good")).collect();
    assert_eq!(by.iter().filter(|by| by.is_none()).count(), 1, "{by:?}");
    assert_eq!(upstream.seen().len(), before + 20, "one call each");
}

#[test]
fn a_used_up_project_gives_way_to_the_next_of_the_account() {
    let upstream = Upstream::start(|seen| match seen.json()["project"].as_str() {
        Some("two") => streamed_by_google(),
        _ => vec![json(
            429,
            r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"reason":"QUOTA_EXHAUSTED"}]}}"#,
        )],
    });
    let config = format!(
        "oauth-upstream: {{antigravity: '{}'}}\nquota-exceeded: {{switch-project: true}}\n",
        upstream.url()
    );
    let account = r#"{"type":"antigravity","access_token":"t","email":"a@b","project_id":"one, two"}"#;
    let proxy = Proxy::start_with(BINARY, &config, &[("antigravity.json", account)]);
    for _ in 0..2 {
        let answer = proxy.post("/v1/chat/completions", CLAUDE_THERE);
        assert_eq!(answer.head.status, 200, "{}", answer.text());
    }
    let projects: Vec<_> = calls(&upstream).iter().map(|seen| seen.json()["project"].clone()).collect();
    assert_eq!(projects, ["one", "two", "two"]);
}
