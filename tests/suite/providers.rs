//! Blocks of providers as operators edit them while the proxy runs (runbook rows 35, 46, 47, 49, 50).

use crate::reload::{replace, until};
use crate::shared::{CHAT, chat_keys, proxy, text_of, whole};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testkit::proxy::Proxy;
use testkit::upstream::{Step, Upstream, chunk, chunk_end, json, stream_head};

/// A block of an OpenAI-compatible provider.
fn block(name: &str, url: &str, more: &str) -> String {
    format!(
        "  - name: {name}\n    base-url: {url}/v1\n    api-key-entries: [{{api-key: key-{name}}}]\n    {more}\n"
    )
}

fn ids(proxy: &Proxy) -> Vec<String> {
    let list: serde_json::Value = serde_json::from_slice(&proxy.get("/v1/models").body).expect("a list");
    let models = list["data"].as_array().expect("models");
    models.iter().filter_map(|model| model["id"].as_str().map(str::to_owned)).collect()
}

fn config_of(proxy: &Proxy) -> (PathBuf, String) {
    let file = proxy.folder().join("config.yaml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    (file, text)
}

#[test]
fn row_35_a_block_that_is_added_serves_within_seconds_and_running_streams_go_on() {
    let upstream = Upstream::start(|seen| {
        if seen.json()["stream"] != true {
            return whole(&seen.path);
        }
        let piece = |text: &str| {
            chunk(&format!(
                "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
            ))
        };
        let end = chunk(
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
        );
        vec![
            stream_head(),
            piece("before"),
            Step::Sleep(Duration::from_secs(4)),
            piece("after"),
            end,
            chunk_end(),
        ]
    });
    let proxy = proxy(&chat_keys(&upstream.url(), &["one"]));
    let mut stream = proxy.connect();
    stream.post(CHAT.path, &[("authorization", "Bearer test-key")], &CHAT.body("m", true));
    stream.until("before");
    let (file, text) = config_of(&proxy);
    replace(
        &file,
        &format!("{text}{}", block("second", &upstream.url(), "models: [{name: n, alias: added}]")),
    );
    let saved = Instant::now();
    assert!(until(|| ids(&proxy).iter().any(|id| id == "added")), "{}", proxy.log());
    assert!(saved.elapsed() < Duration::from_secs(5), "listed after {:?}", saved.elapsed());
    assert_eq!(proxy.post(CHAT.path, &CHAT.body("added", false)).head.status, 200);
    stream.until("after");
    stream.until("[DONE]");
}

#[test]
fn row_46_excluded_models_are_neither_listed_nor_served() {
    let upstream = Upstream::start(|seen| whole(&seen.path));
    let models = "models: [{name: a-preview, alias: a-preview}, {name: b, alias: b}]";
    let proxy = proxy(&format!("openai-compatibility:\n{}", block("up", &upstream.url(), models)));
    assert_eq!(ids(&proxy), ["a-preview", "b"]);
    let (file, text) = config_of(&proxy);
    replace(&file, &text.replace(models, &format!("{models}\n    excluded-models: [\"*-preview\"]")));
    assert!(until(|| ids(&proxy) == ["b"]), "{}", proxy.log());
    let answer = proxy.post(CHAT.path, &CHAT.body("a-preview", false));
    assert_eq!(answer.head.status, 404);
    assert!(answer.text().contains("unknown provider for model a-preview"), "{}", answer.text());
    assert!(answer.text().contains("model_not_found"), "{}", answer.text());
}

#[test]
fn row_47_with_force_model_prefix_only_prefixed_names_serve() {
    let upstream = Upstream::start(|seen| whole(&seen.path));
    let models = "prefix: team\n    models: [{name: b, alias: b}]";
    let proxy = proxy(&format!("openai-compatibility:\n{}", block("up", &upstream.url(), models)));
    assert_eq!(ids(&proxy), ["b", "team/b"]);
    let (file, text) = config_of(&proxy);
    replace(&file, &format!("force-model-prefix: true\n{text}"));
    assert!(until(|| ids(&proxy) == ["team/b"]), "{}", proxy.log());
    assert_eq!(proxy.post(CHAT.path, &CHAT.body("b", false)).head.status, 404);
    assert_eq!(proxy.post(CHAT.path, &CHAT.body("team/b", false)).head.status, 200);
    assert_eq!(upstream.seen().last().expect("a request").json()["model"], "b");
}

#[test]
fn row_49_an_alias_moves_to_another_model_without_a_failed_request() {
    let upstream = Upstream::start(|seen| whole(&seen.path));
    let models = |name: &str| format!("models: [{{name: {name}, alias: fast}}]");
    let proxy =
        Arc::new(proxy(&format!("openai-compatibility:\n{}", block("up", &upstream.url(), &models("m1")))));
    let done = Arc::new(AtomicBool::new(false));
    let client = {
        let (proxy, done) = (Arc::clone(&proxy), Arc::clone(&done));
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let answer = proxy.post(CHAT.path, &CHAT.body("fast", false));
                assert_eq!(answer.head.status, 200, "{}", answer.text());
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let (file, text) = config_of(&proxy);
    replace(&file, &text.replace("name: m1", "name: m2"));
    let moved = until(|| upstream.seen().last().is_some_and(|seen| seen.json()["model"] == "m2"));
    done.store(true, Ordering::Relaxed);
    client.join().expect("no request failed");
    assert!(moved, "{}", proxy.log());
}

#[test]
fn row_50_the_same_alias_in_two_blocks_is_served_by_the_one_that_works() {
    let broken = Upstream::start(|_| vec![json(500, r#"{"error":{"message":"broken"}}"#)]);
    let good = Upstream::start(|seen| whole(&seen.path));
    let models = "models: [{name: m, alias: shared}]";
    let proxy = proxy(&format!(
        "openai-compatibility:\n{}{}",
        block("broken", &broken.url(), models),
        block("good", &good.url(), models)
    ));
    for _ in 0..4 {
        let answer = proxy.post(CHAT.path, &CHAT.body("shared", false));
        assert_eq!((answer.head.status, text_of(&CHAT, &answer.text()).as_str()), (200, "Hello"));
    }
    assert!(!broken.seen().is_empty(), "the broken one was tried");
    assert_eq!(good.seen().len(), 4);
}
