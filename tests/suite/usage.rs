//! Usage as operators ask for it.

use crate::management::{ON, manage};
use crate::reload::until;
use crate::shared::{CHAT, FORMATS, all_kinds, chat_keys, proxy, stream, wants_stream, whole};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use testkit::client::Client;
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

/// Sums of what requests used, by model and client key.
type Book = BTreeMap<(String, u64), [u64; 4]>;

/// What the records of the log say: one line per request.
fn records(log: &str) -> Book {
    let mut book = Book::new();
    for line in log.lines().filter(|line| line.contains("POST /v1")) {
        let Some((_, tail)) = line.split_once("ms {") else { continue };
        let record: Value = serde_json::from_str(&format!("{{{tail}")).expect("the tail is JSON");
        let number = |name: &str| record[name].as_u64().unwrap_or(0);
        let name = record["resolved_model"].as_str().unwrap_or_default().to_owned();
        let sums = book.entry((name, number("client_key"))).or_default();
        let failed = u64::from(number("status_code") >= 400);
        for (sum, more) in sums.iter_mut().zip([1, failed, number("input_tokens"), number("output_tokens")]) {
            *sum += more;
        }
    }
    book
}

/// What the ledger says.
fn ledger(proxy: &Proxy) -> Book {
    let told = manage(proxy, "GET", "usage?by=model,client_key", "").json();
    let rows = told["usage"].as_array().expect("rows").clone();
    let of = |row: &Value| {
        let number = |name: &str| row[name].as_u64().expect("a number");
        let key = row["client_key"].as_str().and_then(|key| key.strip_prefix("number ")?.parse().ok());
        let name = row["model"].as_str().expect("a model").to_owned();
        ((name, key.expect("a number")), ["requests", "errors", "input_tokens", "output_tokens"].map(number))
    };
    rows.iter().map(of).collect()
}

/// Sends so many mixed requests over a few connections, or what can be sent until `done`.
fn mixed(address: SocketAddr, count: usize, done: &AtomicBool) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut open: Option<Client> = None;
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count || done.load(Ordering::Relaxed) {
                        return;
                    }
                    let format = &FORMATS[n % 4];
                    let model = ["chat/m", "claude/m", "gemini/m", "chat/bad"][n / 4 % 4];
                    let streams = n.is_multiple_of(3);
                    let key = format!("Bearer key-{}", n % 2);
                    let client = match &mut open {
                        Some(client) => client,
                        None => match TcpStream::connect(address) {
                            Ok(stream) => open.insert(Client::over(stream)),
                            Err(_) => return,
                        },
                    };
                    let path = format.target(model, streams);
                    let body = format.body(model, streams);
                    let sent = client.try_post(&path, &[("authorization", &key)], &body);
                    if !sent
                        || client
                            .try_answer()
                            .is_none_or(|answer| answer.head.header("connection") == Some("close"))
                    {
                        open = None;
                    }
                }
            });
        }
    });
}

#[test]
fn p39_p48_after_10000_mixed_requests_and_a_kill_9_usage_is_the_sum_of_the_records() {
    let upstream = Upstream::start(|seen| {
        if seen.path.starts_with("/chat") && seen.json()["model"] == "bad" {
            return vec![answer(400, r#"{"error":{"message":"no"}}"#)];
        }
        if wants_stream(seen) { stream(&seen.path) } else { whole(&seen.path) }
    });
    let kinds = all_kinds(&upstream.url()).replacen("[{name: m, alias: m}]", "[{name: m}, {name: bad}]", 1);
    let mut proxy = proxy(&format!("{ON}api-keys:\n  - key-0\n  - key-1\n{kinds}"));
    let (address, never) = (proxy.address(), AtomicBool::new(false));
    mixed(address, 5000, &never);
    // What is older than the flush window, a second, is on the disk; the rest is for a machine under load.
    std::thread::sleep(Duration::from_secs(4));
    let safe = records(&proxy.log());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| mixed(address, 100_000, &done));
        std::thread::sleep(Duration::from_millis(500));
        proxy.kill();
        done.store(true, Ordering::Relaxed);
    });
    let at_risk = records(&proxy.log());
    proxy.start_again();
    let kept = ledger(&proxy);
    mixed(address, 5000, &never);
    let all = records(&proxy.log());
    assert!(until(|| ledger(&proxy).values().map(|sums| sums[0]).sum::<u64>()
        >= kept.values().map(|sums| sums[0]).sum::<u64>() + 5000));
    let counted = ledger(&proxy);
    let requests = |book: &Book| book.values().map(|sums| sums[0]).sum::<u64>();
    assert_eq!(requests(&safe), 5000, "each request has its record");
    assert!(requests(&all) >= 10_000 && requests(&at_risk) > 5000, "{at_risk:?}");
    for (key, sums) in &all {
        let of = |book: &Book| book.get(key).copied().unwrap_or_default();
        for (n, sum) in sums.iter().enumerate() {
            let (safe, at_risk, kept, counted) =
                (of(&safe)[n], of(&at_risk)[n], of(&kept)[n], of(&counted)[n]);
            // Lines of the log may be lost in the kill as well: 50 ms of them.
            assert!(kept >= safe && kept <= at_risk + 3000, "{key:?} {n}: {safe} {kept} {at_risk}");
            assert_eq!(counted - kept, sum - at_risk, "{key:?} {n}: all of what came after the restart");
        }
    }
    assert_eq!(all.keys().collect::<Vec<_>>(), counted.keys().collect::<Vec<_>>());
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
                let mut client = Client::connect(address);
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
