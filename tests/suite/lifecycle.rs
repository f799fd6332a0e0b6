//! The process comes, reloads and leaves while clients are connected.

use crate::shared::{CHAT, chat_keys, events, proxy, text_of, whole};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use testkit::client::Client;
use testkit::proxy::{KEY, Proxy};
use testkit::scratch::free_port;
use testkit::upstream::{Step, Upstream, chunk, chunk_end, stream_head};

/// Close code 1001 as a frame of the server begins: FIN and close, its length, the code.
const AWAY: [u8; 2] = 1001_u16.to_be_bytes();

/// Streams whose first event comes at once and whose rest comes after `pause`; whole answers at once.
fn slow(pause: Duration) -> Upstream {
    Upstream::start(move |seen| {
        if !crate::shared::wants_stream(seen) {
            return whole(&seen.path);
        }
        let events = events(&seen.path);
        let mut steps = vec![stream_head(), chunk(&events[0]), Step::Sleep(pause)];
        steps.extend(events[1..].iter().map(|event| chunk(event)));
        steps.push(chunk_end());
        steps
    })
}

fn stuck() -> Upstream {
    Upstream::start(|seen| vec![stream_head(), chunk(&events(&seen.path)[0]), Step::Stall])
}

fn with_shutdown(delay: u32, drain: u32, upstream: &Upstream) -> Proxy {
    proxy(&format!(
        "shutdown: {{delay-seconds: {delay}, drain-seconds: {drain}}}\n{}",
        chat_keys(&upstream.url(), &["k"])
    ))
}

fn open_stream(proxy: &Proxy) -> Client {
    let mut client = proxy.connect();
    client.post(CHAT.path, &[("authorization", &format!("Bearer {KEY}"))], &CHAT.body("m", true));
    assert_eq!(client.head().status, 200);
    client.until("Hel");
    client
}

fn open_socket(proxy: &Proxy) -> Client {
    let mut client = proxy.connect();
    client.get(
        "/v1/responses",
        &[
            ("authorization", &format!("Bearer {KEY}")),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ],
    );
    assert_eq!(client.head().status, 101);
    client
}

/// A turn, in a frame that is masked with zeros.
fn ask(socket: &mut Client) {
    let text = br#"{"type":"response.create","model":"m","input":"hi"}"#;
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).expect("a short frame"), 0, 0, 0, 0];
    frame.extend_from_slice(text);
    socket.send(&frame);
    socket.until("Hel");
}

/// Whether the last frame of a socket is a close with code 1001.
fn went_away(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|frame| frame[0] == 0x88 && frame[2..] == AWAY)
}

#[test]
fn p46_sigterm_flips_readiness_ends_sockets_and_lets_streams_end() {
    let upstream = slow(Duration::from_secs(4));
    let mut proxy = with_shutdown(1, 60, &upstream);
    let streaming = open_stream(&proxy);
    let (mut busy, idle) = (open_socket(&proxy), open_socket(&proxy));
    ask(&mut busy);
    let mut kept = proxy.connect();
    kept.get("/health", &[]);
    assert_eq!(kept.answer().head.status, 200);
    proxy.signal("TERM");
    // Until the delay is over, connections are taken, and load balancers are told.
    let told = Instant::now();
    let answer = loop {
        let answer = proxy.get("/readyz");
        if answer.head.status == 503 {
            break answer;
        }
        assert!(told.elapsed() < Duration::from_millis(900), "readiness did not flip");
    };
    assert_eq!(answer.head.header("connection"), Some("close"));
    kept.get("/health", &[]);
    let last = kept.answer();
    assert_eq!((last.head.status, last.head.header("connection")), (503, Some("close")));
    assert!(went_away(&idle.rest()), "an idle socket ends with 1001");
    while TcpStream::connect(proxy.address()).is_ok() {
        assert!(told.elapsed() < Duration::from_secs(10), "the listener stays open");
        std::thread::sleep(Duration::from_millis(20));
    }
    let text = String::from_utf8_lossy(&streaming.rest()).into_owned();
    assert!(text.contains("[DONE]") && text.ends_with("0\r\n\r\n"), "{text}");
    let socket = busy.rest();
    assert!(String::from_utf8_lossy(&socket).contains("response.completed"), "the turn came to its end");
    assert!(went_away(&socket), "a busy socket ends with 1001 after its turn");
    assert_eq!(proxy.wait(Duration::from_secs(20)), Some(0), "{}", proxy.log());
    assert!(told.elapsed() < Duration::from_secs(40), "it left when the last answer had ended");
}

#[test]
fn p46_at_the_deadline_everything_ends_and_the_code_is_0() {
    let upstream = stuck();
    let mut proxy = with_shutdown(0, 1, &upstream);
    let streaming = open_stream(&proxy);
    let mut socket = open_socket(&proxy);
    ask(&mut socket);
    proxy.signal("TERM");
    let told = Instant::now();
    assert_eq!(proxy.wait(Duration::from_secs(20)), Some(0), "{}", proxy.log());
    assert!(told.elapsed() > Duration::from_millis(900), "the stream had its time");
    assert!(!String::from_utf8_lossy(&streaming.rest()).ends_with("0\r\n\r\n"), "a cut is no end");
    assert!(went_away(&socket.rest()), "1001 at the deadline");
    assert!(proxy.log().contains("connections were cut"), "{}", proxy.log());
}

#[test]
fn p46_a_second_signal_ends_the_process_now() {
    let upstream = stuck();
    let mut proxy = with_shutdown(0, 60, &upstream);
    let _streaming = open_stream(&proxy);
    // To the process and to its group, as `timeout` does it.
    let pid = proxy.pid().to_string();
    let told = std::process::Command::new("kill").args(["-TERM", &pid, &pid]).status();
    assert!(told.is_ok_and(|status| status.success()), "the signals can be sent");
    assert_eq!(proxy.wait(Duration::from_millis(500)), None, "it waits for the stream");
    proxy.signal("TERM");
    assert_eq!(proxy.wait(Duration::from_secs(10)), Some(0), "{}", proxy.log());
}

#[test]
fn p47_sighup_looks_at_the_file_and_sigquit_without_a_new_process_changes_nothing() {
    let upstream = Upstream::start(|seen| whole(&seen.path));
    let mut proxy = proxy(&chat_keys(&upstream.url(), &["one"]));
    let file = proxy.folder().join("config.yaml");
    let good = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, good.replace("one", "two")).expect("it can be written");
    proxy.signal("HUP");
    proxy.signal("QUIT");
    let end = Instant::now() + Duration::from_secs(30);
    while !proxy.log().contains("no upgrade, this process goes on: no new process waits") {
        assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200);
        assert!(Instant::now() < end, "{}", proxy.log());
    }
    assert!(proxy.is_alive());
    let log = proxy.log();
    assert!(
        log.contains("told to look at the configuration file") && log.contains("config reloaded"),
        "{log}"
    );
}

#[test]
fn p47_an_upgrade_ends_nothing_that_runs_and_the_new_process_serves() {
    let upstream = slow(Duration::from_secs(4));
    let port = free_port();
    let keys = chat_keys(&upstream.url(), &["k"]);
    let mut old = proxy(&format!("metrics: {{listen: {port}}}\n{keys}"));
    let in_flight = || {
        let mut client = Client::connect(([127, 0, 0, 1], port).into());
        client.get("/metrics", &[("connection", "close")]);
        let text = client.answer().text();
        let line = text.lines().find(|line| line.starts_with("cliproxy_in_flight_requests "));
        line.unwrap_or_default().to_owned()
    };
    let streaming = open_stream(&old);
    assert_eq!(in_flight(), "cliproxy_in_flight_requests 1");
    let socket = open_socket(&old);
    let mut kept = old.connect();
    kept.get("/health", &[]);
    kept.answer();
    let mut new = old.upgrade(env!("CARGO_BIN_EXE_cliproxy"));
    // A request that was on its way when the listeners changed hands gets its answer.
    kept.post(CHAT.path, &[("authorization", &format!("Bearer {KEY}"))], &CHAT.body("m", false));
    let answer = kept.answer();
    assert_eq!((answer.head.status, answer.head.header("connection")), (200, Some("close")));
    assert_eq!(new.get("/health").head.status, 200);
    // The old process hears that the new one serves, and lets go of the metrics: its stream is not in them.
    let told = Instant::now();
    while in_flight() != "cliproxy_in_flight_requests 0" {
        assert!(told.elapsed() < Duration::from_secs(20), "the metrics are not those of the new process");
    }
    assert!(went_away(&socket.rest()), "a socket comes again to the new process");
    let text = String::from_utf8_lossy(&streaming.rest()).into_owned();
    assert!(text.contains("[DONE]"), "{text}");
    assert_eq!(old.wait(Duration::from_secs(30)), Some(0), "{}", old.log());
    let mut client = new.connect();
    client.post(CHAT.path, &[("authorization", &format!("Bearer {KEY}"))], &CHAT.body("m", true));
    let answer = client.answer();
    assert_eq!(text_of(&CHAT, &answer.text()), "Hello");
    assert!(new.is_alive());
    assert!(!new.folder().join("state/upgrade.sock").exists());
}
