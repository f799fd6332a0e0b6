//! What watching, steering and attacking the management sidecar costs the traffic: windows with and without
//! them take turns in one run.
//!
//! `CLIPROXY_BINARY=target/release/cliproxy cargo test --test suite -- --ignored --nocapture beside`

use crate::management::{ON, SECRET, send};
use crate::shared::{CHAT, chat_keys, whole};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use testkit::client::Client;
use testkit::proxy::{KEY, Proxy};
use testkit::upstream::Upstream;

const DOCUMENT: &str = include_str!("../../conf/management.openapi.json");
/// Connections of the traffic, and requests a second over all of them.
const CLIENTS: u32 = 16;
const PER_SECOND: u32 = 1500;
/// Dashboards that are open.
const DASHBOARDS: usize = 50;
/// Length of a window, and rounds of all kinds of windows.
const WINDOW: Duration = Duration::from_secs(4);
const ROUNDS: usize = 8;

/// What happens besides the traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Beside {
    /// Nothing.
    Quiet,
    /// Open dashboards, and every route that tells something asked once a second.
    Watched,
    /// A thousand wrong secrets.
    Attacked,
}

/// What a window came to.
#[derive(Clone, Copy, Debug)]
struct Window {
    p50: f64,
    p99: f64,
    /// Microseconds of the data path's threads per request.
    cpu: f64,
}

/// Nanoseconds that the threads of the data path have run.
fn data_path_ns(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let ran = |path: &std::path::Path| {
        let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default();
        let is_data = read("comm").trim() == "cliproxy";
        is_data.then(|| read("schedstat").split(' ').next()?.parse::<u64>().ok()).flatten().unwrap_or(0)
    };
    tasks.flatten().map(|task| ran(&task.path())).sum()
}

/// Open loop on one connection; microseconds from when each was due.
fn traffic(address: SocketAddr, first: Instant, every: Duration, end: Instant) -> Vec<u64> {
    let mut client = Client::connect(address);
    let (mut due, mut micros) = (first, Vec::new());
    let (key, body) = (format!("Bearer {KEY}"), CHAT.body("m", false));
    while due < end {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        client.post(CHAT.path, &[("authorization", &key)], &body);
        assert_eq!(client.answer().head.status, 200);
        micros.push(due.elapsed().as_micros() as u64);
        due += every;
    }
    micros
}

/// One window: the traffic, and `beside` it.
fn window(proxy: &Proxy, beside: Beside) -> Window {
    let (address, done) = (proxy.address(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        if beside == Beside::Watched {
            scope.spawn(|| watch(proxy, &done));
        }
        if beside == Beside::Attacked {
            scope.spawn(|| attack(proxy, &done));
        }
        // What opens and warms up is no part of it.
        std::thread::sleep(Duration::from_millis(700));
        let (before, begin) = (data_path_ns(proxy.pid()), Instant::now());
        let every = Duration::from_secs(1) * CLIENTS / PER_SECOND;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let first = begin + every * n / CLIENTS;
                scope.spawn(move || traffic(address, first, every, begin + WINDOW))
            })
            .collect();
        let mut micros: Vec<u64> =
            clients.into_iter().flat_map(|client| client.join().expect("a client")).collect();
        let cpu = (data_path_ns(proxy.pid()) - before) as f64 / 1000.0 / micros.len() as f64;
        done.store(true, Ordering::Relaxed);
        micros.sort_unstable();
        let quantile = |q: f64| micros[(micros.len() as f64 * q) as usize] as f64;
        Window { p50: quantile(0.5), p99: quantile(0.99), cpu }
    })
}

/// Routes that tell something and ask nobody outside.
fn routes() -> Vec<String> {
    let document: Value = serde_json::from_str(DOCUMENT).expect("the document");
    let paths = document["paths"].as_object().expect("paths");
    let endless = ["/events", "/logs/stream", "-auth-url", "kiro-quota", "latest-version"];
    paths
        .iter()
        .filter(|(path, item)| item.get("get").is_some() && !path.contains('{'))
        .map(|(path, _)| path.clone())
        .filter(|path| !endless.iter().any(|end| path.ends_with(end)))
        .collect()
}

fn watch(proxy: &Proxy, done: &AtomicBool) {
    let secret = [("x-management-key", SECRET)];
    let stream = if DOCUMENT.contains("/v0/management/events") { "events" } else { "logs/stream" };
    let dashboards: Vec<Client> = (0..DASHBOARDS)
        .map(|_| {
            let mut client = proxy.connect();
            client.get(&format!("/v0/management/{stream}"), &secret);
            assert_eq!(client.head().status, 200);
            client
        })
        .collect();
    let (routes, mut client) = (routes(), proxy.connect());
    while !done.load(Ordering::Relaxed) {
        let round = Instant::now();
        // Spread over the second, as those who ask are.
        let pause = Duration::from_millis(900) / routes.len() as u32;
        for (n, route) in routes.iter().enumerate() {
            client.get(route, &secret);
            let answer = client.answer();
            assert!(answer.head.status < 500, "{route}: {}", answer.text());
            std::thread::sleep((pause * n as u32).saturating_sub(round.elapsed()));
        }
        std::thread::sleep(Duration::from_secs(1).saturating_sub(round.elapsed()));
    }
    drop(dashboards);
}

fn attack(proxy: &Proxy, done: &AtomicBool) {
    let tried = AtomicUsize::new(0);
    while !done.load(Ordering::Relaxed) && tried.fetch_add(1, Ordering::Relaxed) < 1000 {
        let headers = [("x-management-key", "wrong"), ("x-forwarded-for", "127.0.0.1")];
        let status = send(proxy, "GET", "/v0/management/debug", &headers, "").head.status;
        assert!([401, 403].contains(&status), "{status}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

#[test]
#[ignore = "four minutes of an idle machine; told as ratios, for whoever runs it"]
fn beside_dashboards_and_wrong_secrets() {
    let binary =
        std::env::var("CLIPROXY_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_cliproxy").to_owned());
    let binary = std::path::absolute(binary).expect("a path").display().to_string();
    let upstream = Upstream::start(|seen| whole(&seen.path));
    // Who is locked out cannot watch: each has a process of its own.
    let text = format!("{ON}logging-to-file: true\n{}", chat_keys(&upstream.url(), &["one", "two"]));
    let watched = Proxy::start(&binary, &text);
    let attacked = Proxy::start(&binary, &text);
    window(&watched, Beside::Quiet);
    window(&attacked, Beside::Quiet);
    for (proxy, beside) in [(&watched, Beside::Watched), (&attacked, Beside::Attacked)] {
        let (mut ratios, mut noise) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let [before, with, after] =
                [Beside::Quiet, beside, Beside::Quiet].map(|kind| window(proxy, kind));
            let ratio = |a: fn(&Window) -> f64| a(&with) / f64::midpoint(a(&before), a(&after));
            ratios.push([ratio(|w| w.p50), ratio(|w| w.p99), ratio(|w| w.cpu)]);
            noise.push([after.p50 / before.p50, after.p99 / before.p99, after.cpu / before.cpu]);
            println!("{beside:?} before {before:.1?} with {with:.1?} after {after:.1?}");
        }
        for (n, name) in ["p50", "p99", "cpu per request"].iter().enumerate() {
            let column = |rows: &[[f64; 3]]| median(rows.iter().map(|row| row[n]).collect());
            println!(
                "{beside:?} {name}: x{:.3} (quiet against quiet: x{:.3})",
                column(&ratios),
                column(&noise)
            );
        }
    }
}
