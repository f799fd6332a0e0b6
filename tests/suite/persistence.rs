//! What a restart remembers, and what a disk that fails does to traffic.

use crate::shared::{CHAT, chat_keys, proxy, whole};
use std::process::Command;
use std::time::{Duration, Instant};
use testkit::proxy::{KEY, Proxy};
use testkit::scratch::{Scratch, free_port};
use testkit::upstream::{Step, Upstream};

/// The key that is told to rest for an hour.
const TIRED: &str = "Bearer two";

fn upstream() -> Upstream {
    Upstream::start(|seen| {
        if seen.header("authorization") == Some(TIRED) {
            let body = r#"{"error":{"message":"slow down"}}"#;
            return vec![Step::send(format!(
                "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 3600\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ))];
        }
        whole(&seen.path)
    })
}

fn calls_to_the_tired(upstream: &Upstream) -> usize {
    upstream.seen().iter().filter(|seen| seen.header("authorization") == Some(TIRED)).count()
}

/// Asks until the tired one was asked.
fn tire(proxy: &Proxy, upstream: &Upstream) {
    for _ in 0..3 {
        assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200, "{}", proxy.log());
    }
    assert_eq!(calls_to_the_tired(upstream), 1, "round robin comes to all");
}

fn until(proxy: &Proxy, says: &str) {
    let end = Instant::now() + Duration::from_secs(30);
    while !proxy.log().contains(says) {
        assert!(Instant::now() < end, "{says:?} is not in\n{}", proxy.log());
    }
}

fn still_rests(proxy: &Proxy, upstream: &Upstream) {
    for _ in 0..9 {
        assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200, "{}", proxy.log());
    }
    assert_eq!(calls_to_the_tired(upstream), 1, "{}", proxy.log());
    assert!(proxy.log().contains("remembered from before the start: the rests of 1 credentials"));
}

#[test]
fn p48_who_rested_rests_after_the_process_was_killed() {
    let upstream = upstream();
    let keys = chat_keys(&upstream.url(), &["one", "two", "three"]);
    let mut proxy = proxy(&format!("debug: true\n{keys}"));
    tire(&proxy, &upstream);
    until(&proxy, "learnt: kept 1 credentials");
    proxy.kill_and_restart();
    still_rests(&proxy, &upstream);
    let state = proxy.folder().join("state/cliproxy.redb");
    let kept = std::fs::read(state).expect("the store");
    for secret in [KEY, "one", "two", "three"] {
        let key = format!("\"{secret}\"");
        assert!(!kept.windows(key.len()).any(|part| part == key.as_bytes()), "{secret} is in the store");
    }
}

#[test]
fn p48_a_conversation_stays_with_its_credential_after_the_process_was_killed() {
    let upstream = Upstream::start(|seen| whole(&seen.path));
    let keys = chat_keys(&upstream.url(), &["one", "two", "three", "four"]);
    let mut proxy = proxy(&format!("debug: true\nrouting: {{session-affinity: true}}\n{keys}"));
    let asks = |proxy: &Proxy| {
        let mut client = proxy.connect();
        let headers = [("authorization", &*format!("Bearer {KEY}")), ("x-session-id", "conversation-1")];
        client.post(CHAT.path, &headers, &CHAT.body("m", false));
        assert_eq!(client.answer().head.status, 200, "{}", proxy.log());
        let seen = upstream.seen().pop().expect("a request");
        seen.header("authorization").expect("its key").to_owned()
    };
    let first = asks(&proxy);
    until(&proxy, "learnt: kept 0 credentials, 1 sessions");
    proxy.kill_and_restart();
    for _ in 0..6 {
        assert_eq!(asks(&proxy), first, "{}", proxy.log());
    }
}

#[test]
fn p48_a_process_that_is_told_to_leave_writes_what_it_learnt_last() {
    let upstream = upstream();
    let mut proxy = proxy(&chat_keys(&upstream.url(), &["one", "two", "three"]));
    tire(&proxy, &upstream);
    let told = Command::new("kill").args(["-TERM", &proxy.pid().to_string()]).status();
    assert!(told.expect("kill runs").success());
    assert_eq!(proxy.wait(Duration::from_secs(20)), Some(0), "{}", proxy.log());
    proxy.start_again();
    still_rests(&proxy, &upstream);
}

#[test]
fn p48_what_is_not_to_be_saved_is_forgotten() {
    let upstream = upstream();
    let keys = chat_keys(&upstream.url(), &["one", "two", "three"]);
    let mut proxy = proxy(&format!("save-cooldown-status: false\n{keys}"));
    tire(&proxy, &upstream);
    let told = Command::new("kill").args(["-TERM", &proxy.pid().to_string()]).status();
    assert!(told.expect("kill runs").success());
    assert_eq!(proxy.wait(Duration::from_secs(20)), Some(0), "{}", proxy.log());
    proxy.start_again();
    for _ in 0..3 {
        assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200, "{}", proxy.log());
    }
    assert_eq!(calls_to_the_tired(&upstream), 2, "it is asked again");
}

#[test]
fn p45_a_full_disk_stops_no_request_and_is_mended_without_a_restart() {
    let upstream = upstream();
    let (scratch, port) = (Scratch::new(), free_port());
    let keys = chat_keys(&upstream.url(), &["one", "two", "three"]);
    let file = scratch.file(
        "config.yaml",
        &format!("host: 127.0.0.1\nport: {port}\napi-keys: [{KEY}]\nmetrics: {{listen: \"\"}}\n{keys}"),
    );
    // No file may grow beyond 64 KiB: writing fails as on a full disk.
    let limited = format!(
        "trap '' XFSZ; exec prlimit --fsize=65536: {} --config {}",
        env!("CARGO_BIN_EXE_cliproxy"),
        file.display()
    );
    let proxy = Proxy::run("sh", &["-c", &limited], port, scratch);
    tire(&proxy, &upstream);
    until(&proxy, "requests are served as before");
    for _ in 0..30 {
        assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200, "{}", proxy.log());
    }
    assert_eq!(proxy.log().matches("requests are served as before").count(), 1, "{}", proxy.log());
    let space =
        Command::new("prlimit").args(["--pid", &proxy.pid().to_string(), "--fsize=unlimited:"]).status();
    assert!(space.expect("prlimit runs").success());
    until(&proxy, "kept over a restart again");
    assert_eq!(calls_to_the_tired(&upstream), 1);
}
