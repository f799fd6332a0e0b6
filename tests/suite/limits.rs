//! More than there is room for, slower than anybody waits, and who a connection belongs to.

use crate::shared::{CHAT, FORMATS, chat_keys, events, proxy, stream, wants_stream, whole};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use testkit::client::Client;
use testkit::proxy::{KEY, Proxy};
use testkit::scratch::free_port;
use testkit::upstream::{Step, Upstream, chunk, json, stream_head};

/// Room for the sockets of these tests in this process.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("the limit can be raised");
}

fn bearer() -> String {
    format!("Bearer {KEY}")
}

/// Waits until `done`, for a time that is too long on any machine.
fn until(mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_mins(1);
    while Instant::now() < end {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// A gauge or counter of the metrics page.
fn metric(port: u16, name: &str) -> f64 {
    let mut client = Client::connect(([127, 0, 0, 1], port).into());
    client.get("/metrics", &[]);
    let text = client.answer().text();
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("cliproxy_{name} ")));
    value.and_then(|value| value.parse().ok()).expect("the metric is there and a number")
}

#[test]
fn p01_held_streams_take_little_memory_and_give_it_back() {
    const STREAMS: usize = 400;
    raise_open_files();
    let upstream = Upstream::start(|seen| vec![stream_head(), chunk(&events(&seen.path)[0]), Step::Stall]);
    let mut proxy = proxy(&chat_keys(&upstream.url(), &["k"]));
    let open = |count: usize| -> Vec<Client> {
        let begin = |_| {
            let mut client = proxy.connect();
            client.post(CHAT.path, &[("authorization", &bearer())], &CHAT.body("m", true));
            client
        };
        let mut clients: Vec<_> = (0..count).map(begin).collect();
        for client in &mut clients {
            client.until("Hel");
        }
        clients
    };
    drop(open(20));
    let open_files = || proxy.open_files();
    assert!(until(|| upstream.seen().iter().all(|seen| seen.left.is_some())), "the upstreams are left alone");
    let quiet = open_files();
    let before = proxy.memory_kib();
    let streams = open(STREAMS);
    let each = (proxy.memory_kib() - before) / STREAMS as u64;
    // Without optimisation values are kept more than once.
    assert!(each <= if cfg!(debug_assertions) { 96 } else { 64 }, "{each} KiB per stream");
    drop(streams);
    assert!(until(|| open_files() <= quiet + 2), "{} files are open, {quiet} before", open_files());
    // The allocator returns pages after some seconds, when it is next asked for some.
    let returned = until(|| {
        assert_eq!(proxy.get("/health").head.status, 200);
        std::thread::sleep(Duration::from_millis(200));
        proxy.memory_kib() < before + before / 10
    });
    println!("{before} KiB before, {each} KiB per stream, {} KiB after", proxy.memory_kib());
    assert!(returned, "{before} KiB before {STREAMS} streams, {} KiB after", proxy.memory_kib());
    assert!(proxy.is_alive());
}

#[test]
fn p02_overload_is_refused_at_once_and_what_is_accepted_does_not_wait() {
    const ROOM: usize = 8;
    let work = Duration::from_millis(300);
    let upstream = Upstream::start(move |seen| {
        let mut steps = vec![Step::Sleep(work)];
        steps.extend(whole(&seen.path));
        steps
    });
    let config = format!("limits: {{max-in-flight: {ROOM}}}\n{}", chat_keys(&upstream.url(), &["k"]));
    let proxy = Arc::new(proxy(&config));
    let end = Instant::now() + Duration::from_secs(4);
    let clients: Vec<_> = (0..2 * ROOM)
        .map(|_| {
            let proxy = Arc::clone(&proxy);
            std::thread::spawn(move || {
                let (mut taken, mut refused) = (Vec::new(), Vec::new());
                while Instant::now() < end {
                    let mut client = proxy.connect();
                    let begun = Instant::now();
                    client.post(CHAT.path, &[("authorization", &bearer())], &CHAT.body("m", false));
                    let answer = client.answer();
                    match answer.head.status {
                        200 => taken.push(begun.elapsed()),
                        503 => {
                            assert_eq!(answer.head.header("retry-after"), Some("1"));
                            assert!(answer.text().contains("too many requests"), "{}", answer.text());
                            refused.push(begun.elapsed());
                            std::thread::sleep(Duration::from_millis(20));
                        }
                        other => panic!("{other}: {}", answer.text()),
                    }
                }
                (taken, refused)
            })
        })
        .collect();
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    for client in clients {
        let (some, others) = client.join().expect("a client");
        taken.extend(some);
        refused.extend(others);
    }
    taken.sort_unstable();
    refused.sort_unstable();
    let most = upstream.seen().len();
    assert!(taken.len() >= ROOM * 4 && most >= taken.len(), "{} of {most}", taken.len());
    assert!(refused.len() > taken.len(), "{} refused, {} taken", refused.len(), taken.len());
    let (typical, slow) = (refused[refused.len() / 2], taken[taken.len() * 9 / 10]);
    println!("refused {} in {typical:?} typically, taken {} in {slow:?} at most", refused.len(), taken.len());
    assert!(typical < Duration::from_millis(50), "{typical:?}");
    assert!(slow < work * 2, "{slow:?}");
}

#[test]
fn p06_mixed_faults_leave_nothing_behind() {
    let turn = AtomicUsize::new(0);
    let upstream = Upstream::start(move |seen| match turn.fetch_add(1, Ordering::Relaxed) % 7 {
        0 => vec![json(500, r#"{"error":{"message":"broken"}}"#)],
        1 => vec![Step::Reset],
        2 if wants_stream(seen) => vec![stream_head(), chunk(&events(&seen.path)[0]), Step::Reset],
        3 => vec![json(200, "{"), Step::Close],
        _ if wants_stream(seen) => stream(&seen.path),
        _ => whole(&seen.path),
    });
    let port = free_port();
    let config = format!(
        "metrics: {{listen: {port}}}\ntransient-error-cooldown-seconds: -1\n{}",
        chat_keys(&upstream.url(), &["a", "b", "c"])
    );
    let mut proxy = proxy(&config);
    let round = |proxy: &Proxy, n: usize| {
        let (format, streams) = (&FORMATS[n % 4], n.is_multiple_of(2));
        let mut client = proxy.connect();
        let target = format.target("m", streams);
        client.post(&target, &[("authorization", &bearer())], &format.body("m", streams));
        if n.is_multiple_of(5) {
            // Half a second later nobody is there any more.
            return;
        }
        client.rest_of_answer();
    };
    (0..40).for_each(|n| round(&proxy, n));
    assert!(until(|| metric(port, "in_flight_requests") == 0.0));
    let (files, memory) = (proxy.open_files(), proxy.memory_kib());
    let begun = Instant::now();
    let length = std::env::var("CLIPROXY_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let length = Duration::from_secs(length.unwrap_or(10));
    let mut rounds = 0;
    while begun.elapsed() < length {
        round(&proxy, rounds);
        rounds += 1;
    }
    assert!(rounds > 50, "{rounds}");
    assert!(until(|| metric(port, "in_flight_requests") == 0.0), "requests that began have ended");
    assert!(until(|| metric(port, "open_connections") == 0.0), "connections are closed");
    // A few upstream connections are kept.
    assert!(until(|| proxy.open_files() <= files + 8), "{files} files before, {} now", proxy.open_files());
    assert!(proxy.memory_kib() < memory + 32 * 1024, "{memory} KiB before, {} now", proxy.memory_kib());
    assert!(proxy.is_alive());
}

#[test]
fn p07_large_headers_are_refused_also_byte_by_byte() {
    let mut proxy = proxy(&chat_keys("http://127.0.0.1:1", &["k"]));
    let many = |count: usize| (0..count).map(|n| format!("x-h{n}: v\r\n")).collect::<String>();
    let long = |bytes: usize| format!("x-long: {}\r\n", "v".repeat(bytes));
    // Above our own bounds, and above those of the parser.
    for extra in [many(150), many(400), long(70_000), long(2_000_000)] {
        let mut client = proxy.connect();
        client.try_send(format!("GET /v1/models HTTP/1.1\r\nhost: x\r\n{extra}\r\n").as_bytes());
        let head = client.head();
        assert_eq!((head.status, head.header("connection")), (431, Some("close")), "{} bytes", extra.len());
    }
    let mut client = proxy.connect();
    for byte in format!("GET /v1/models HTTP/1.1\r\nhost: x\r\n{}\r\n", long(70_000)).into_bytes() {
        if !client.try_send(&[byte]) {
            break;
        }
    }
    assert_eq!(client.head().status, 431);
    assert!(proxy.is_alive());
}

#[test]
fn p09_slow_headers_are_cut_at_the_deadline_and_hinder_nobody() {
    const SLOW: usize = 2000;
    raise_open_files();
    let upstream = Upstream::start(|seen| whole(&seen.path));
    let config = format!("timeouts: {{client-body-seconds: 3}}\n{}", chat_keys(&upstream.url(), &["k"]));
    let proxy = Arc::new(proxy(&config));
    // Slow from the first byte on, in the middle of a header, and after a good request.
    let opened = Instant::now();
    let mut sockets: Vec<TcpStream> = (0..SLOW)
        .map(|n| {
            let mut client = TcpStream::connect(proxy.address()).expect("a connection");
            let begin: &[u8] = if n % 2 == 0 { b"G" } else { b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: " };
            std::io::Write::write_all(&mut client, begin).expect("it is taken");
            client.set_nonblocking(true).expect("it can be set");
            client
        })
        .collect();
    let done = Arc::new(AtomicBool::new(false));
    let normal = {
        let (proxy, done) = (Arc::clone(&proxy), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut slowest = Duration::ZERO;
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                let begun = Instant::now();
                assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200);
                slowest = slowest.max(begun.elapsed());
                count += 1;
            }
            (slowest, count)
        })
    };
    let mut cut = 0;
    while cut < SLOW {
        assert!(opened.elapsed() < Duration::from_mins(1), "only {cut} of {SLOW} were cut");
        sockets.retain_mut(|socket| {
            // One byte more each time: what counts is the whole.
            let sent = std::io::Write::write(socket, b"x");
            let gone = matches!(socket.read(&mut [0; 512]), Ok(0)) || sent.is_err();
            cut += usize::from(gone);
            !gone
        });
        std::thread::sleep(Duration::from_millis(200));
    }
    done.store(true, Ordering::Relaxed);
    let (slowest, count) = normal.join().expect("normal requests are served");
    println!(
        "{SLOW} slow sockets cut after {:?}; {count} requests meanwhile, {slowest:?} at most",
        opened.elapsed()
    );
    assert!(count > 20 && slowest < Duration::from_secs(3), "{count} requests, the slowest {slowest:?}");
}

#[test]
fn connections_are_bounded_in_all_and_by_address() {
    let port = free_port();
    for (limit, exempt) in [
        ("max-connections: 3", ""),
        ("max-connections-per-address: 3", ""),
        ("max-connections-per-address: 3", "trusted-proxies: [127.0.0.1]\n"),
    ] {
        let proxy = proxy(&format!(
            "metrics: {{listen: {port}}}\nlimits: {{{limit}}}\n{exempt}{}",
            chat_keys("http://127.0.0.1:1", &["k"])
        ));
        assert!(until(|| metric(port, "open_connections") == 0.0));
        let mut open: Vec<_> = (0..3)
            .map(|_| {
                let mut client = proxy.connect();
                client.get("/healthz", &[]);
                assert_eq!(client.answer().head.status, 200);
                client
            })
            .collect();
        let mut one_more = proxy.connect();
        one_more.get("/healthz", &[]);
        let answer = one_more.answer();
        if exempt.is_empty() {
            assert_eq!((answer.head.status, answer.head.header("retry-after")), (503, Some("1")), "{limit}");
            assert_eq!(answer.json()["error"]["code"], "overload");
        } else {
            assert_eq!(answer.head.status, 200, "a trusted proxy has many clients");
        }
        open.pop();
        assert!(until(|| proxy.get("/healthz").head.status == 200), "a place is given back");
    }
}
