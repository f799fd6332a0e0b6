//! Many credentials that are refused at once, through sockets.

use crate::shared::{CHAT, chat_keys, proxy};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testkit::upstream::{Step, Upstream, json};

const KEYS: usize = 50;

fn calls(upstream: &Upstream, since: usize) -> HashMap<String, usize> {
    let mut calls = HashMap::new();
    for seen in upstream.seen().iter().skip(since) {
        *calls.entry(seen.header("authorization").unwrap_or_default().to_owned()).or_default() += 1;
    }
    calls
}

fn refused(wait_s: u64) -> Step {
    let body = r#"{"error":{"type":"rate_limit_error","message":"slow down"}}"#;
    Step::send(format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: {wait_s}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

#[test]
fn p17_in_a_storm_of_429_nobody_is_called_who_rests_and_each_is_tested_once() {
    const SHORTEST: u64 = 8;
    let well = Arc::new(AtomicBool::new(false));
    let recovered = Arc::clone(&well);
    let upstream = Upstream::start(move |seen| {
        if recovered.load(Ordering::SeqCst) {
            let answer = r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}]}"#;
            return vec![json(200, answer)];
        }
        // Keys ask for 8 to 10 seconds.
        let number: u64 = seen.header("authorization").and_then(|key| key[8..].parse().ok()).unwrap_or(0);
        vec![refused(SHORTEST + number % 3)]
    });
    let keys: Vec<String> = (0..KEYS).map(|n| format!("k{n:02}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let proxy = proxy(&chat_keys(&upstream.url(), &keys));
    let ask = || proxy.post(CHAT.path, &CHAT.body("m", false));
    let began = Instant::now();
    assert_eq!(ask().head.status, 429);
    let first = calls(&upstream, 0);
    assert_eq!(first.len(), KEYS);
    assert!(first.values().all(|count| *count == 1), "{first:?}");
    // While all rest nobody is called, and the client is told when the first is back.
    let mut told = 0;
    while began.elapsed() < Duration::from_secs(SHORTEST - 2) {
        let before = began.elapsed();
        let answer = ask();
        assert_eq!(
            (answer.head.status, answer.json()["error"]["code"].as_str()),
            (429, Some("model_cooldown"))
        );
        let wait: u64 = answer.head.header("retry-after").and_then(|wait| wait.parse().ok()).unwrap_or(0);
        // The first refusal came after `began`, so that the first rest ends no earlier than 8 s after it.
        let least = (Duration::from_secs(SHORTEST).saturating_sub(began.elapsed())).as_secs();
        let most = SHORTEST + 1 - before.as_secs().min(SHORTEST);
        assert!((least..=most + 1).contains(&wait), "{least} {wait} {most}");
        told += 1;
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(told >= 3, "{told}");
    assert_eq!(upstream.seen().len(), KEYS, "nobody was called while all rested");
    // All rests are over: as many requests test one credential each, and all of them are answered.
    well.store(true, Ordering::SeqCst);
    std::thread::sleep(Duration::from_secs(SHORTEST + 4).saturating_sub(began.elapsed()));
    for _ in 0..KEYS {
        assert_eq!(ask().head.status, 200);
    }
    let tests = calls(&upstream, KEYS);
    assert_eq!(tests.len(), KEYS, "each is tested");
    assert!(tests.values().all(|count| *count == 1), "{tests:?}");
}
