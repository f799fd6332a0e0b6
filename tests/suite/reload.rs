//! The configuration file changes while requests run.

use crate::shared::{CHAT, chat_keys, proxy, text_of, whole};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testkit::upstream::Upstream;

/// Replaces a file as editors do.
fn replace(file: &std::path::Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).expect("it can be written");
    std::fs::rename(&new, file).expect("it can be renamed");
}

fn until(mut done: impl FnMut() -> bool) -> bool {
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
