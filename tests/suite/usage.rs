//! Usage as operators ask for it.

use crate::management::{ON, manage};
use crate::reload::until;
use crate::shared::{CHAT, chat_keys, proxy, whole};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testkit::proxy::{KEY, Proxy};
use testkit::upstream::{Upstream, json as answer};

fn requests(proxy: &Proxy, query: &str) -> u64 {
    let told = manage(proxy, "GET", &format!("usage?{query}"), "").json();
    let total = told["total"]["requests"].as_u64();
    assert!(total.is_some(), "{told}");
    total.unwrap_or(0)
}

#[test]
fn usage_is_the_sum_of_the_requests_told_apart_as_asked() {
    let upstream = Upstream::start(|seen| {
        if seen.json()["model"] == "bad" {
            return vec![answer(400, r#"{"error":{"message":"no"}}"#)];
        }
        whole(&seen.path)
    });
    let config =
        chat_keys(&upstream.url(), &["one"]).replace("[{name: m, alias: m}]", "[{name: m}, {name: bad}]");
    let proxy = proxy(&format!("{ON}{config}"));
    for n in 0..30 {
        let model = if n % 3 == 0 { "bad" } else { "m" };
        proxy.post(CHAT.path, &CHAT.body(model, false));
    }
    proxy.post(CHAT.path, &CHAT.body("nobody-serves-it", false));
    assert!(until(|| requests(&proxy, "") == 31), "{}", manage(&proxy, "GET", "usage", "").text());
    let by_model = manage(&proxy, "GET", "usage?by=model,client_key", "").json();
    let row = |model: &str| -> Value {
        let rows = by_model["usage"].as_array().expect("rows");
        rows.iter().find(|row| row["model"] == model).cloned().unwrap_or_default()
    };
    assert_eq!((&row("m")["requests"], &row("m")["errors"]), (&20.into(), &0.into()), "{by_model}");
    assert_eq!((&row("bad")["requests"], &row("bad")["errors"]), (&10.into(), &10.into()));
    assert_eq!(row("m")["client_key"], "number 1");
    assert_eq!(row("m")["input_tokens"], 60);
    assert!(!by_model.to_string().contains(KEY), "{by_model}");
    assert_eq!(requests(&proxy, "model=b*"), 10);
    assert_eq!(requests(&proxy, "to=2020-01-01"), 0);
    let wrong = manage(&proxy, "GET", "usage?by=colour", "");
    assert_eq!(wrong.head.status, 400, "{}", wrong.text());
}

#[test]
fn p48_usage_survives_kill_9_up_to_the_last_batch() {
    let upstream = Upstream::start(|seen| whole(&seen.path));
    let mut proxy = proxy(&format!("{ON}{}", chat_keys(&upstream.url(), &["one"])));
    let address = proxy.address();
    let done = Arc::new(AtomicBool::new(false));
    let client = {
        let done = Arc::clone(&done);
        std::thread::spawn(move || {
            let mut answered = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let mut client = testkit::client::Client::connect(address);
                client.post(
                    CHAT.path,
                    &[("authorization", &format!("Bearer {KEY}"))],
                    &CHAT.body("m", false),
                );
                assert_eq!(client.answer().head.status, 200);
                answered.push(Instant::now());
                std::thread::sleep(Duration::from_millis(5));
            }
            answered
        })
    };
    std::thread::sleep(Duration::from_secs(6));
    done.store(true, Ordering::Relaxed);
    let answered = client.join().expect("no request failed");
    let killed = Instant::now();
    proxy.kill_and_restart();
    // A batch is written each second; the rest is for a machine that has other things to do.
    let safe = answered.iter().filter(|at| killed - **at > Duration::from_secs(4)).count() as u64;
    let kept = requests(&proxy, "");
    assert!(safe > 0 && kept >= safe && kept <= answered.len() as u64, "{safe} {kept} {}", answered.len());
    proxy.post(CHAT.path, &CHAT.body("m", false));
    assert!(until(|| requests(&proxy, "") == kept + 1));
}
