//! Requests that nobody can serve now, and how long they may wait.

use crate::shared::{CHAT, CLAUDE, GEMINI, RESPONSES, chat_keys, proxy, proxy_in, text_of, wants_stream};
use parking_lot::Mutex;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use testkit::client::Client;
use testkit::proxy::{KEY, Proxy};
use testkit::scratch::free_port;
use testkit::upstream::{Step, Upstream};

const INFINITE: [(&str, &str); 1] = [("INFINITE_RETRY_MODE", "true")];

/// Answers the first call with a rest of so many seconds, the others well.
fn limited_once(seconds: u32) -> Upstream {
    let calls = AtomicUsize::new(0);
    Upstream::start(move |seen| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => vec![rest(seconds)],
        _ if wants_stream(seen) => crate::shared::stream(&seen.path),
        _ => crate::shared::whole(&seen.path),
    })
}

fn rest(seconds: u32) -> Step {
    Step::send(format!("HTTP/1.1 429 X\r\nretry-after: {seconds}\r\ncontent-length: 0\r\n\r\n"))
}

fn with_metrics(config: &str) -> (String, u16) {
    let port = free_port();
    (format!("metrics: {{listen: '127.0.0.1:{port}'}}\n{config}"), port)
}

/// The value of a metric, 0 where it was never counted or its listener is not up yet.
fn metric(port: u16, name: &str) -> usize {
    let address = ([127, 0, 0, 1], port).into();
    if TcpStream::connect(address).is_err() {
        return 0;
    }
    let mut client = Client::connect(address);
    client.get("/metrics", &[]);
    let text = client.answer().text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("cliproxy_{name} ")));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn wait_for(what: &str, found: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(15);
    while !found() {
        assert!(Instant::now() < end, "it did not come: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ask(proxy: &Proxy, body: &str) -> Client {
    let mut client = proxy.connect();
    client.post(CHAT.path, &[("authorization", &format!("Bearer {KEY}"))], body);
    client
}

#[test]
fn row_173_all_limited_for_three_seconds_waits_and_succeeds() {
    let upstream = limited_once(3);
    let (config, metrics) = with_metrics(&chat_keys(&upstream.url(), &["only"]));
    let proxy = proxy_in(&config, &INFINITE);
    let begun = Instant::now();
    let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
    assert_eq!(answer.head.status, 200, "{}", proxy.log());
    assert!(begun.elapsed() >= Duration::from_millis(2900), "{:?}", begun.elapsed());
    assert_eq!(upstream.seen().len(), 2);
    assert_eq!(metric(metrics, "waiting_requests"), 0);
    assert_eq!(metric(metrics, r#"waited_requests_total{outcome="served"}"#), 1);
    assert_eq!(metric(metrics, r#"wait_seconds_count{outcome="served"}"#), 1);
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("\"status_code\":200")).expect("an access line");
    assert!(line.contains("\"waited_ms\":"), "{line}");
}

#[test]
fn row_173_those_who_wait_are_counted_and_a_client_that_leaves_frees_its_place() {
    let upstream = limited_once(600);
    let (config, metrics) = with_metrics(&chat_keys(&upstream.url(), &["only"]));
    let proxy = proxy_in(&config, &INFINITE);
    let mut waiting = vec![ask(&proxy, &CHAT.body("m", false))];
    wait_for("one waits", || metric(metrics, "waiting_requests") == 1);
    waiting.extend((0..4).map(|_| ask(&proxy, &CHAT.body("m", false))));
    wait_for("five wait", || metric(metrics, "waiting_requests") == 5);
    drop(waiting.pop());
    wait_for("the client that left gave up its place", || metric(metrics, "waiting_requests") == 4);
    assert_eq!(metric(metrics, r#"waited_requests_total{outcome="gone"}"#), 1);
    assert_eq!(upstream.seen().len(), 1, "nobody is asked while all rest");
}

#[test]
fn row_174_a_reset_behind_the_longest_wait_is_an_error_within_it() {
    let upstream = limited_once(60);
    let proxy = proxy_in(&chat_keys(&upstream.url(), &["only"]), &[("MAX_WAIT_BEFORE_ERROR_MS", "1000")]);
    for _ in 0..2 {
        let begun = Instant::now();
        let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
        assert_eq!(answer.head.status, 429, "{}", answer.text());
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        let seconds: u64 = answer.head.header("retry-after").and_then(|v| v.parse().ok()).expect("a time");
        assert!((50..=60).contains(&seconds), "{seconds}");
    }
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn row_171_the_fallback_model_comes_before_the_queue() {
    let upstream = Upstream::start(|seen| match seen.json()["model"].as_str() {
        Some("first") => vec![rest(60)],
        _ => crate::shared::whole(&seen.path),
    });
    let config = format!(
        "fallback-models: {{m: [n]}}\nopenai-compatibility:\n  - name: up\n    base-url: {}/v1\n    \
         api-key-entries: [{{api-key: a}}, {{api-key: b}}]\n    models: [{{name: first, alias: m}}, {{name: second, alias: n}}]\n",
        upstream.url()
    );
    let proxy = proxy_in(&config, &INFINITE);
    let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
    assert_eq!((answer.head.status, answer.head.header("x-fallback-model")), (200, Some("n")));
    assert_eq!(upstream.seen().len(), 3, "both accounts, then the other model");
}

#[test]
fn who_waits_for_a_slot_is_served_in_order_of_arrival_without_delay() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen_order = Arc::clone(&order);
    let upstream = Upstream::start(move |seen| {
        let text = seen.json()["messages"][0]["content"].as_str().unwrap_or_default().to_owned();
        seen_order.lock().push(text);
        let mut steps = vec![Step::Sleep(Duration::from_millis(100))];
        steps.extend(crate::shared::whole(&seen.path));
        steps
    });
    let (config, metrics) = with_metrics(&format!(
        "openai-compatibility:\n  - name: up\n    base-url: {}/v1\n    \
         api-key-entries: [{{api-key: k, max-concurrency: 1}}]\n    models: [{{name: m, alias: m}}]\n",
        upstream.url()
    ));
    let proxy = proxy(&config);
    let mut clients = vec![ask(&proxy, &CHAT.body("m", false).replace("\"hi\"", "\"0\""))];
    assert!(upstream.wait(Duration::from_secs(10), |seen| seen.len() == 1));
    for n in 1..6 {
        clients.push(ask(&proxy, &CHAT.body("m", false).replace("\"hi\"", &format!("\"{n}\""))));
        // Each has its place before the next one comes, or is served already.
        let (order, n) = (Arc::clone(&order), n);
        wait_for("it waits or is served", move || {
            let served = order.lock().len();
            metric(metrics, "waiting_requests") + served > n
        });
    }
    for client in &mut clients {
        assert_eq!(client.answer().head.status, 200, "{}", proxy.log());
    }
    assert_eq!(*order.lock(), ["0", "1", "2", "3", "4", "5"]);
}

#[test]
fn a_full_room_and_a_wait_of_nothing_are_errors_at_once() {
    let upstream = Upstream::start(|_| vec![Step::Stall]);
    let block = format!(
        "openai-compatibility:\n  - name: up\n    base-url: {}/v1\n    \
         api-key-entries: [{{api-key: k, max-concurrency: 1}}]\n    models: [{{name: m, alias: m}}]\n",
        upstream.url()
    );
    let (config, metrics) = with_metrics(&format!("waiting-room: {{max-requests: 1}}\n{block}"));
    let busy = proxy(&config);
    let _serving = ask(&busy, &CHAT.body("m", false));
    assert!(upstream.wait(Duration::from_secs(10), |seen| seen.len() == 1));
    let _waiting = ask(&busy, &CHAT.body("m", false));
    wait_for("one waits", || metric(metrics, "waiting_requests") == 1);
    let begun = Instant::now();
    let answer = busy.post(CHAT.path, &CHAT.body("m", false));
    assert_eq!((answer.head.status, answer.head.header("retry-after")), (429, Some("1")));
    assert_eq!(answer.json()["error"]["code"], "waiting_room_full", "{}", answer.text());
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(metric(metrics, r#"waited_requests_total{outcome="full"}"#), 1);

    let calls = upstream.seen().len();
    let hasty = proxy(&format!("waiting-room: {{max-wait-before-error-ms: 0}}\n{block}"));
    let _serving = ask(&hasty, &CHAT.body("m", false));
    assert!(upstream.wait(Duration::from_secs(10), |seen| seen.len() == calls + 1));
    let begun = Instant::now();
    let answer = hasty.post(CHAT.path, &CHAT.body("m", false));
    assert_eq!(answer.head.status, 429, "{}", answer.text());
    assert_eq!(answer.json()["error"]["code"], "model_busy");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_stream_that_waits_long_hears_comments_and_then_its_answer() {
    let upstream = limited_once(7);
    let (config, metrics) = with_metrics(&format!(
        "streaming: {{keepalive-seconds: 1}}\n{}",
        chat_keys(&upstream.url(), &["only"])
    ));
    let proxy = proxy_in(&config, &INFINITE);
    let mut client = proxy.connect();
    let key = format!("Bearer {KEY}");
    client.post(CLAUDE.path, &[("authorization", &key)], &CLAUDE.body("m", true));
    wait_for("it waits", || metric(metrics, "waiting_requests") == 1);
    // It came later: its answer is whole, so that it hears nothing until then.
    let mut whole = ask(&proxy, &CHAT.body("m", false));
    let head = client.head();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream; charset=utf-8")));
    assert_eq!(upstream.seen().len(), 1, "the head came while all rest");
    client.until(": keep-alive");
    client.until("message_stop");
    let text = client.pending();
    assert!(text.find(": keep-alive") < text.find("message_start") && !text.contains("error"), "{text}");
    let answer = whole.answer();
    assert_eq!((answer.head.status, text_of(&CHAT, &answer.text()).as_str()), (200, "Hello"));
}

#[test]
fn a_stream_whose_wait_is_in_vain_ends_with_the_error_event_of_its_format() {
    // The one slot is never given back.
    let upstream = Upstream::start(|_| vec![Step::Stall]);
    let config = format!(
        "streaming: {{keepalive-seconds: 1}}\nwaiting-room: {{max-wait-before-error-ms: 6500}}\n\
         openai-compatibility:\n  - name: up\n    base-url: {}/v1\n    \
         api-key-entries: [{{api-key: k, max-concurrency: 1}}]\n    models: [{{name: m, alias: m}}]\n",
        upstream.url()
    );
    let proxy = proxy(&config);
    let _serving = ask(&proxy, &CHAT.body("m", false));
    assert!(upstream.wait(Duration::from_secs(10), |seen| seen.len() == 1));
    let key = format!("Bearer {KEY}");
    let mut clients: Vec<_> = [&CHAT, &RESPONSES, &CLAUDE, &GEMINI]
        .into_iter()
        .map(|format| {
            let mut client = proxy.connect();
            client.post(&format.target("m", true), &[("authorization", &key)], &format.body("m", true));
            (format, client)
        })
        .collect();
    let mut whole = ask(&proxy, &CHAT.body("m", false));
    let mut array = proxy.connect();
    let target = "/v1beta/models/m:streamGenerateContent";
    array.post(target, &[("authorization", &key)], &GEMINI.body("m", true));
    for (format, client) in &mut clients {
        let answer = client.answer();
        let text = answer.text();
        assert_eq!(answer.head.status, 200, "{}", format.name);
        assert!(text.starts_with(": keep-alive\n\n"), "{}: {text}", format.name);
        let error = match format.name {
            "chat" => "data: {\"error\":{",
            "gemini" => "data: {\"error\":{\"code\":429",
            _ => "event: error\ndata: {",
        };
        assert!(text.contains(error) && text.contains("at their limit"), "{}: {text}", format.name);
        assert!(!text.contains("[DONE]") && !text.contains("stop"), "{}: {text}", format.name);
    }
    let array = array.answer();
    assert_eq!(
        (array.head.status, &array.json()[0]["error"]["code"]),
        (200, &429.into()),
        "{}",
        array.text()
    );
    assert!(array.text().starts_with('\n'), "a blank keeps it alive: {}", array.text());
    assert_eq!(whole.answer().head.status, 429, "a whole answer keeps its status");
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn sixty_requests_go_through_one_slot_one_after_another() {
    let inside = Arc::new(AtomicUsize::new(0));
    let (count, most) = (Arc::clone(&inside), Arc::new(AtomicUsize::new(0)));
    let highest = Arc::clone(&most);
    let upstream = Upstream::start(move |seen| {
        let now = count.fetch_add(1, Ordering::SeqCst) + 1;
        highest.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(5));
        count.fetch_sub(1, Ordering::SeqCst);
        crate::shared::whole(&seen.path)
    });
    let config = format!(
        "openai-compatibility:\n  - name: up\n    base-url: {}/v1\n    \
         api-key-entries: [{{api-key: k, max-concurrency: 1}}]\n    models: [{{name: m, alias: m}}]\n",
        upstream.url()
    );
    let proxy = proxy(&config);
    let begun = Instant::now();
    let mut clients: Vec<_> = (0..60).map(|_| ask(&proxy, &CHAT.body("m", false))).collect();
    for client in &mut clients {
        assert_eq!(client.answer().head.status, 200, "{}", proxy.log());
    }
    // A wait that is not woken looks once in a second.
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!((most.load(Ordering::SeqCst), upstream.seen().len()), (1, 60));
}

#[test]
fn whoever_waits_is_served_by_a_credential_that_is_added_meanwhile_and_not_for_a_key_that_is_withdrawn() {
    let upstream = Upstream::start(|seen| match seen.header("authorization") {
        Some("Bearer good") => crate::shared::whole(&seen.path),
        _ => vec![rest(600)],
    });
    let (config, metrics) = with_metrics(&format!(
        "api-keys:\n  - {KEY}\n  - leaving\nwaiting-room: {{infinite-retry-mode: true}}\n{}",
        chat_keys(&upstream.url(), &["bad"])
    ));
    let proxy = proxy(&config);
    let mut stays = ask(&proxy, &CHAT.body("m", false));
    wait_for("it waits", || metric(metrics, "waiting_requests") == 1);
    let mut leaves = proxy.connect();
    leaves.post(CHAT.path, &[("authorization", "Bearer leaving")], &CHAT.body("m", false));
    wait_for("both wait", || metric(metrics, "waiting_requests") == 2);
    let file = proxy.folder().join("config.yaml");
    let old = std::fs::read_to_string(&file).expect("the configuration");
    let new = old.replace("  - leaving\n", "").replace("{api-key: bad}", "{api-key: bad}, {api-key: good}");
    std::fs::write(&file, new).expect("written");
    let served = stays.answer();
    assert_eq!(served.head.status, 200, "{}", proxy.log());
    let refused = leaves.answer();
    assert_eq!(refused.head.status, 401, "{}", refused.text());
    assert!(refused.text().contains("withdrawn"), "{}", refused.text());
    assert_eq!(upstream.seen().len(), 2, "the one that rests is left alone");
}
