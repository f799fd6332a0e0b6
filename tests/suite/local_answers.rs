//! What the proxy answers itself.

use crate::shared::{CHAT, CLAUDE, FORMATS, GEMINI, all_kinds, chat_keys, good, proxy};
use testkit::proxy::KEY;

#[test]
fn health_needs_no_key_and_no_upstream() {
    let proxy = proxy(&chat_keys("http://127.0.0.1:1", &["k"]));
    for path in ["/health", "/healthz"] {
        let mut client = proxy.connect();
        client.get(path, &[]);
        let answer = client.answer();
        assert_eq!((answer.head.status, answer.json()["status"].as_str()), (200, Some("ok")), "{path}");
        let mut client = proxy.connect();
        client.send(format!("HEAD {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes());
        let text = String::from_utf8(client.rest()).expect("text");
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\n"), "{text}");
    }
    assert_eq!(proxy.get("/").head.status, 200);
}

#[test]
fn keys_are_taken_in_every_place_and_nothing_works_without() {
    let upstream = good();
    let proxy = proxy(&chat_keys(&upstream.url(), &["k"]));
    let ask = |headers: &[(&str, &str)], query: &str| {
        let mut client = proxy.connect();
        client.post(&format!("{}{query}", CHAT.path), headers, &CHAT.body("m", false));
        client.answer()
    };
    let bearer = format!("Bearer {KEY}");
    for headers in [
        [("authorization", bearer.as_str())],
        [("authorization", KEY)],
        [("x-api-key", KEY)],
        [("x-goog-api-key", KEY)],
    ] {
        assert_eq!(ask(&headers, "").head.status, 200, "{headers:?}");
    }
    assert_eq!(ask(&[], &format!("?key={KEY}")).head.status, 200);
    for format in &FORMATS {
        for headers in [&[][..], &[("authorization", "Bearer nope")]] {
            let mut client = proxy.connect();
            client.post(&format.target("m", false), headers, &format.body("m", false));
            let answer = client.answer();
            assert_eq!(answer.head.status, 401, "{}", format.name);
            let error = &answer.json()["error"];
            assert!(error["message"].as_str().is_some_and(|m| m.contains("API key")), "{error}");
        }
    }
}

#[test]
fn template_keys_close_the_api() {
    let scratch = testkit::scratch::Scratch::new();
    let port = testkit::scratch::free_port();
    let file = scratch.file(
        "config.yaml",
        &format!("host: 127.0.0.1\nport: {port}\nmetrics: {{listen: \"\"}}\napi-keys: [your-api-key-1]\n"),
    );
    let path = file.display().to_string();
    let proxy =
        testkit::proxy::Proxy::run(env!("CARGO_BIN_EXE_cliproxy"), &["-config", &path], port, scratch);
    let mut client = proxy.connect();
    client.get("/v1/models", &[("authorization", "Bearer your-api-key-1")]);
    let answer = client.answer();
    assert_eq!(answer.head.status, 403);
    assert_eq!(answer.json()["error"]["code"], "unsafe_example_api_key");
    assert_eq!(proxy.get("/health").head.status, 200);
}

#[test]
fn lists_of_models_have_the_shape_of_the_asker_and_are_sorted() {
    let proxy = proxy(&all_kinds("http://127.0.0.1:1"));
    let list = proxy.get("/v1/models").json();
    let ids: Vec<_> =
        list["data"].as_array().expect("a list").iter().map(|m| m["id"].as_str().expect("an id")).collect();
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert_eq!(ids, sorted);
    assert!(ids.contains(&"chat/m") && ids.contains(&"m"), "{ids:?}");
    assert_eq!(proxy.get("/models").json()["data"].as_array().expect("a list").len(), ids.len());
    let mut client = proxy.connect();
    client.get("/v1/models", &[("x-api-key", KEY), ("anthropic-version", "2023-06-01")]);
    assert_eq!(client.answer().json()["data"][0]["type"], "model");
    let mut client = proxy.connect();
    client.get("/v1beta/models", &[("x-goog-api-key", KEY)]);
    assert!(client.answer().json()["models"][0]["name"].as_str().is_some_and(|n| n.starts_with("models/")));
    assert_eq!(proxy.get("/v1beta/models/chat%2Fm").json()["name"], "models/chat/m");
    assert_eq!(proxy.get("/v1/models/nothing").head.status, 404);
}

#[test]
fn unknown_models_name_the_closest() {
    let proxy = proxy(&all_kinds("http://127.0.0.1:1"));
    for format in [&CHAT, &CLAUDE, &GEMINI] {
        let answer = proxy.post(&format.target("chat%2Fn", false), &format.body("chat/n", false));
        assert_eq!(answer.head.status, 404, "{}", answer.text());
        let message = answer.json()["error"]["message"].as_str().expect("a message").to_owned();
        assert!(
            message.contains("unknown provider for model chat/n") && message.contains("chat/m"),
            "{message}"
        );
    }
    let answer = proxy.post(CHAT.path, &CHAT.body("nothing-like-it-at-all", false));
    assert_eq!(answer.json()["error"]["code"], "model_not_found");
}

#[test]
fn unknown_paths_and_methods() {
    let proxy = proxy(&chat_keys("http://127.0.0.1:1", &["k"]));
    assert_eq!(proxy.get("/nothing").head.status, 404);
    assert_eq!(proxy.post("/v1beta/models/m:what", "{}").json()["error"]["status"], "NOT_FOUND");
    let answer = proxy.get("/v1/chat/completions");
    assert_eq!((answer.head.status, answer.head.header("allow")), (405, Some("POST")));
}

#[test]
fn browsers_may_ask_first() {
    let proxy = proxy(&chat_keys("http://127.0.0.1:1", &["k"]));
    let mut client = proxy.connect();
    client.send(b"OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: x\r\norigin: https://a.example\r\naccess-control-request-method: POST\r\n\r\n");
    let head = client.head();
    assert_eq!(head.status, 204);
    assert_eq!(head.header("access-control-allow-origin"), Some("*"));
    assert!(head.header("access-control-allow-methods").is_some_and(|m| m.contains("POST")));
    assert!(head.header("access-control-allow-headers").is_some());
}

#[test]
fn tokens_are_counted_by_the_upstream_or_estimated_here() {
    let upstream = testkit::upstream::Upstream::start(|seen| {
        let body =
            if seen.path.starts_with("/gemini") { r#"{"totalTokens":42}"# } else { r#"{"input_tokens":42}"# };
        assert!(seen.path.contains("ount"), "{} is no count", seen.path);
        vec![testkit::upstream::json(200, body)]
    });
    let proxy = proxy(&all_kinds(&upstream.url()));
    let body = |model: &str| {
        format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"one two three four five"}}]}}"#)
    };
    for kind in ["claude", "gemini"] {
        let answer = proxy.post("/v1/messages/count_tokens", &body(&format!("{kind}/m")));
        assert_eq!(answer.json()["input_tokens"], 42, "{kind}: {}", answer.text());
    }
    let answer = proxy
        .post("/v1beta/models/claude%2Fm:countTokens", r#"{"contents":[{"parts":[{"text":"one two"}]}]}"#);
    assert_eq!(answer.json()["totalTokens"], 42, "{}", answer.text());
    let calls = upstream.seen().len();
    for kind in ["chat", "responses"] {
        let answer = proxy.post("/v1/messages/count_tokens", &body(&format!("{kind}/m")));
        let tokens = answer.json()["input_tokens"].as_u64().expect("a number");
        assert!((5..30).contains(&tokens), "{kind}: {tokens}");
        assert_eq!(answer.head.header("x-cliproxy-estimated"), Some("true"));
    }
    assert_eq!(upstream.seen().len(), calls, "an estimate asks nobody");
}
