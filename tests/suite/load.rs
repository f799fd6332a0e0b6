//! Traffic that never notices: the configuration is replaced all the time, credentials fail, the process is
//! upgraded, and no request fails.
//!
//! The long run takes the process that `CLIPROXY_BINARY` names, or the one of the tests:
//! `CLIPROXY_BINARY=target/release/cliproxy cargo test --test suite -- --ignored --nocapture load`

use crate::shared::{CHAT, text_of};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use testkit::client::Client;
use testkit::proxy::{KEY, Proxy};
use testkit::upstream::{Seen, Step, Upstream, json};

/// Connections of the load, each on a thread of its own.
const CLIENTS: u32 = 32;

/// Configurations `a` and `b`: five credentials of its own each, and another name of the model.
fn config(url: &str, version: &str) -> String {
    let keys: Vec<_> = (1..=5).map(|n| format!("{{api-key: {version}{n}}}")).collect();
    format!(
        "openai-compatibility:\n  - name: up\n    base-url: {url}/v1\n    api-key-entries: [{}]\n    models: [{{name: model-{version}, alias: m}}]\n",
        keys.join(", ")
    )
}

/// Answers of an upstream two of whose five credentials fail half of the time, in three ways. One that mixes
/// two configurations in a request gets what no client may get.
fn upstream() -> (Upstream, Arc<AtomicUsize>) {
    let (turn, mixed) = (AtomicU32::new(0), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&mixed);
    let upstream = Upstream::start(move |seen| {
        let key = seen.header("authorization").unwrap_or_default().trim_start_matches("Bearer ").to_owned();
        let (version, number) = key.split_at(1);
        if seen.json()["model"] != format!("model-{version}") {
            counted.fetch_add(1, Ordering::Relaxed);
            return vec![json(400, r#"{"error":{"message":"two configurations in one request"}}"#)];
        }
        if number == "1" || number == "2" {
            match scattered(turn.fetch_add(1, Ordering::Relaxed)) % 6 {
                0 => return vec![json(500, r#"{"error":{"message":"broken"}}"#)],
                1 => return vec![json(429, r#"{"error":{"message":"slow down"}}"#)],
                2 => return vec![Step::Reset],
                _ => {}
            }
        }
        vec![json(
            200,
            &format!(
                r#"{{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"Hello {version}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}}}"#
            ),
        )]
    });
    (upstream, mixed)
}

/// A number that looks like chance and is the same in each run.
fn scattered(n: u32) -> u32 {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9E37_79B9);
    x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
    x ^ (x >> 13)
}

/// What the clients saw.
#[derive(Debug, Default)]
struct Seenby {
    sent: usize,
    ok: usize,
    /// Requests without a good answer, by what came instead.
    failed: BTreeMap<String, usize>,
    /// Connections that the proxy had closed in order before a request was sent.
    reopened: usize,
    micros: Vec<u64>,
}

/// One client: a request every `every`, on one connection for as long as the proxy keeps it; or, `fresh`, each
/// on a connection of its own.
fn client(address: SocketAddr, fresh: bool, first: Instant, every: Duration, end: Instant) -> Seenby {
    let mut seen = Seenby::default();
    let mut connection: Option<Client> = None;
    let mut due = first;
    while due < end {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if connection.as_mut().is_some_and(Client::is_closed) {
            connection = None;
            seen.reopened += 1;
        }
        let begun = Instant::now();
        seen.sent += 1;
        match exchange(&mut connection, address) {
            Ok(()) => {
                seen.ok += 1;
                seen.micros.push(begun.elapsed().as_micros() as u64);
            }
            Err(reason) => {
                connection = None;
                *seen.failed.entry(reason).or_default() += 1;
            }
        }
        if fresh {
            connection = None;
        }
        due += every;
    }
    seen
}

fn exchange(connection: &mut Option<Client>, address: SocketAddr) -> Result<(), String> {
    let open = if let Some(open) = connection {
        open
    } else {
        let stream = TcpStream::connect(address).map_err(|error| format!("connect: {}", error.kind()))?;
        connection.insert(Client::over(stream))
    };
    if !open.try_post(CHAT.path, &[("authorization", &format!("Bearer {KEY}"))], &CHAT.body("m", false)) {
        return Err("the request could not be sent".to_owned());
    }
    let answer = open.try_answer().ok_or("closed before the answer's end")?;
    let text = answer.text();
    if answer.head.status != 200 {
        return Err(format!("{}: {text}", answer.head.status));
    }
    if !text_of(&CHAT, &text).starts_with("Hello ") {
        return Err(format!("not the answer: {text}"));
    }
    if answer.head.header("connection") == Some("close") {
        *connection = None;
    }
    Ok(())
}

/// Replaces the configuration by rename every 100 ms until `done`; how often.
fn replace(file: &Path, versions: &[String; 2], done: &AtomicBool) -> usize {
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        let new = file.with_extension("new");
        std::fs::write(&new, &versions[count % 2]).expect("it can be written");
        std::fs::rename(&new, file).expect("it can be renamed");
        count += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    count
}

/// Requests that a process answered, by its log.
fn answered(proxy: &Proxy) -> usize {
    proxy.log().lines().filter(|line| line.contains("POST /v1/chat/completions 200 ")).count()
}

/// Runs the load; what came of it, in a sentence.
fn run(binary: &str, per_second: u32, length: Duration) -> String {
    let (upstream, mixed) = upstream();
    let [first, second] = ["a", "b"].map(|version| config(&upstream.url(), version));
    let old = Proxy::start(binary, &first);
    let file = old.folder().join("config.yaml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    let versions = [text.replace(&first, &second), text];
    let done = Arc::new(AtomicBool::new(false));
    let replacing = {
        let (file, done) = (file.clone(), Arc::clone(&done));
        std::thread::spawn(move || replace(&file, &versions, &done))
    };
    let (begin, address) = (Instant::now() + Duration::from_millis(100), old.address());
    let every = Duration::from_secs(1) * CLIENTS / per_second;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let first = begin + every * n / CLIENTS;
            std::thread::spawn(move || client(address, n.is_multiple_of(4), first, every, begin + length))
        })
        .collect();
    std::thread::sleep(length / 2);
    let before = Instant::now();
    let mut old = old;
    let new = old.upgrade(binary);
    let took = before.elapsed();
    let mut all = Seenby::default();
    for client in clients {
        let seen = client.join().expect("a client");
        all.sent += seen.sent;
        all.ok += seen.ok;
        all.reopened += seen.reopened;
        all.micros.extend(seen.micros);
        for (reason, count) in seen.failed {
            *all.failed.entry(reason).or_default() += count;
        }
    }
    let lasted = begin.elapsed();
    done.store(true, Ordering::Relaxed);
    let replaced = replacing.join().expect("the file");
    let code = old.wait(Duration::from_mins(1));
    let (by_old, by_new) = (answered(&old), answered(&new));
    let reloads = [&old, &new].map(|one| one.log().matches("config reloaded").count());
    all.micros.sort_unstable();
    let quantile = |q: f64| {
        all.micros.get((all.micros.len() as f64 * q) as usize).map_or(0.0, |micros| *micros as f64 / 1000.0)
    };
    let summary = format!(
        "sent {} in {lasted:.1?}, ok {}, failed {:?}; answered by the old process {by_old}, by the new one {by_new}; \
         upgrade in {took:.1?}, old process left with {code:?}; configuration replaced {replaced} times, put in \
         force {reloads:?} times; {} connections reopened; calls upstream {}; p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms",
        all.sent,
        all.ok,
        all.failed,
        all.reopened,
        upstream.seen().len(),
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
    );
    assert!(all.failed.is_empty() && all.ok == all.sent, "{summary}");
    assert_eq!(mixed.load(Ordering::Relaxed), 0, "no request saw two configurations");
    assert_eq!(by_old + by_new, all.ok, "each request was answered by one of them");
    assert!(by_old > 0 && by_new > 0 && code == Some(0), "both served, and the old one left: {code:?}");
    assert!(reloads.iter().sum::<usize>() > replaced / 4, "{reloads:?} of {replaced}");
    let failures = |seen: &Seen| seen.header("authorization").is_some_and(|key| key.ends_with(['1', '2']));
    assert!(upstream.seen().iter().any(failures), "the failing credentials were asked");
    summary
}

#[test]
fn p42_p47_reloads_failing_credentials_and_an_upgrade_fail_no_request() {
    println!("{}", run(env!("CARGO_BIN_EXE_cliproxy"), 100, Duration::from_secs(5)));
}

#[test]
#[ignore = "a minute; `tests/run nightly` runs it against the release build"]
fn load_1000_a_second_for_a_minute_fail_no_request() {
    let binary =
        std::env::var("CLIPROXY_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_cliproxy").to_owned());
    let binary = std::path::absolute(binary).expect("a path").display().to_string();
    println!("{}", run(&binary, 1000, Duration::from_mins(1)));
}
