//! The configuration file changes while requests run.

use crate::shared::{CHAT, chat_keys, proxy, text_of, whole};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testkit::upstream::Upstream;

/// Replaces a file as editors do.
pub(crate) fn replace(file: &std::path::Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).expect("it can be written");
    std::fs::rename(&new, file).expect("it can be renamed");
}

/// Waits for something that comes soon.
pub(crate) fn until(mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

#[test]
fn p41_a_broken_file_changes_nothing_and_is_told_with_its_line() {
    let upstream = Upstream::start(|seen| whole(&seen.path));
    let proxy = proxy(&chat_keys(&upstream.url(), &["one"]));
    let file = proxy.folder().join("config.yaml");
    let good = std::fs::read_to_string(&file).expect("the configuration");
    for (bad, says) in
        [("", "it is empty"), ("port: many\n", "config.yaml:1:7"), ("api-keys: [\n", "config.yaml:")]
    {
        std::fs::write(&file, bad).expect("it can be written");
        assert!(until(|| proxy.log().contains(says)), "{bad:?}: {}", proxy.log());
        assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200);
    }
    std::fs::remove_file(&file).expect("it can be removed");
    assert!(until(|| proxy.log().contains("cannot be read")), "{}", proxy.log());
    assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200);
    replace(&file, &good.replace("one", "two"));
    assert!(until(|| proxy.log().contains("config reloaded: openai-compatibility")), "{}", proxy.log());
    assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200);
    let last = upstream.seen().pop().expect("a request");
    assert_eq!(last.header("authorization"), Some("Bearer two"));
    assert!(!proxy.log().contains("Bearer") && !proxy.log().contains("two\""), "no secret is told");
}

#[test]
fn p42_replacing_the_file_all_the_time_fails_no_request() {
    let upstream = Upstream::start(|seen| whole(&seen.path));
    let proxy = Arc::new(proxy(&chat_keys(&upstream.url(), &["key-a"])));
    let file = proxy.folder().join("config.yaml");
    let good = std::fs::read_to_string(&file).expect("the configuration");
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (proxy, done) = (Arc::clone(&proxy), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut served = 0;
                while !done.load(Ordering::Relaxed) {
                    let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
                    assert_eq!(answer.head.status, 200, "{}", answer.text());
                    assert_eq!(text_of(&CHAT, &answer.text()), "Hello");
                    served += 1;
                }
                served
            })
        })
        .collect();
    for round in 0..30 {
        let key = if round % 2 == 0 { "key-b" } else { "key-a" };
        replace(&file, &good.replace("key-a", key));
        std::thread::sleep(Duration::from_millis(100));
    }
    done.store(true, Ordering::Relaxed);
    let served: usize = clients.into_iter().map(|client| client.join().expect("no request failed")).sum();
    let keys: std::collections::BTreeSet<_> =
        upstream.seen().iter().filter_map(|seen| seen.header("authorization").map(str::to_owned)).collect();
    assert_eq!(keys.len(), 2, "both configurations were in force: {keys:?}");
    assert!(served > 100, "{served}");
    assert!(proxy.log().matches("config reloaded").count() > 10);
}

/// Lines of the log after which the accounts are in force.
fn reloads(proxy: &testkit::proxy::Proxy) -> usize {
    proxy.log().matches("accounts reloaded").count()
}

#[test]
fn accounts_serve_as_soon_as_their_file_is_there_and_no_longer() {
    let upstream = Upstream::start(|_| {
        vec![testkit::upstream::json(
            200,
            r#"{"response":{"candidates":[{"content":{"role":"model","parts":[{"text":"Hello"}]},"finishReason":"STOP"}]}}"#,
        )]
    });
    let proxy = proxy(&chat_keys(&upstream.url(), &["one"]));
    let folder = proxy.folder().join("auths");
    std::fs::create_dir_all(&folder).expect("the folder");
    let file = folder.join("antigravity-a.json");
    let text = |project: &str, more: &str| {
        format!(
            r#"{{"type":"antigravity","access_token":"tok","project_id":"{project}","base_url":"{}"{more}}}"#,
            upstream.url()
        )
    };
    std::fs::write(&file, text("p1", "")).expect("the account");
    assert!(until(|| reloads(&proxy) == 1), "{}", proxy.log());
    let body = CHAT.body("gemini-3-flash", false);
    let answer = proxy.post(CHAT.path, &body);
    assert_eq!(
        (answer.head.status, text_of(&CHAT, &answer.text()).as_str()),
        (200, "Hello"),
        "{}",
        answer.text()
    );
    let last = || {
        let mut seen = upstream.seen();
        seen.retain(|seen| seen.path.ends_with(":generateContent"));
        seen.pop().expect("a request")
    };
    let seen = last();
    assert_eq!(
        (seen.path.as_str(), seen.json()["project"].as_str()),
        ("/v1internal:generateContent", Some("p1"))
    );
    assert_eq!(seen.header("authorization"), Some("Bearer tok"));
    replace(&file, &text("p2", ""));
    assert!(until(|| reloads(&proxy) == 2), "{}", proxy.log());
    assert_eq!(proxy.post(CHAT.path, &body).head.status, 200);
    assert_eq!(last().json()["project"], "p2");
    std::fs::write(folder.join("broken.json"), "{not json").expect("a broken file");
    assert!(until(|| proxy.log().contains("broken.json: it is not JSON")), "{}", proxy.log());
    assert_eq!(proxy.post(CHAT.path, &body).head.status, 200);
    replace(&file, &text("p2", r#","disabled":true"#));
    assert!(until(|| proxy.post(CHAT.path, &body).head.status != 200), "{}", proxy.log());
}
