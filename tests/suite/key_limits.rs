//! What client keys allow: models, time, and how much.

use crate::shared::{CHAT, CLAUDE, FORMATS, chat_keys, good, proxy};
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use testkit::upstream::{Step, Upstream};

/// Two providers behind one upstream: `m` under the prefix `team-a`, and `gpt-x`.
fn two_models(url: &str) -> String {
    format!(
        "force-model-prefix: true\nopenai-compatibility:\n  - name: a\n    prefix: team-a\n    base-url: {url}/v1\n    api-key-entries: [{{api-key: k}}]\n    models: [{{name: m, alias: m}}]\n  \
         - name: b\n    base-url: {url}/v1\n    api-key-entries: [{{api-key: k}}]\n    models: [{{name: gpt-x, alias: gpt-x}}]\n"
    )
}

fn keys(entries: &[&str]) -> String {
    let lines: String = entries.iter().map(|entry| format!("  - {entry}\n")).collect();
    format!("api-keys:\n{lines}")
}

#[test]
fn a_key_sees_and_uses_its_models_only() {
    let upstream = good();
    let profiles = keys(&[
        "test-key",
        "{api-key: gpt, name: gpt team, allowed-models: ['GPT-*']}",
        "{api-key: team, allowed-prefixes: [team-a]}",
    ]);
    let proxy = proxy(&format!("{profiles}{}", two_models(&upstream.url())));
    let listed = |key: &str| -> Vec<String> {
        let mut client = proxy.connect();
        client.get("/v1/models", &[("authorization", &format!("Bearer {key}"))]);
        let answer = client.answer().json();
        let models = answer["data"].as_array().expect("a list").iter();
        models.map(|model| model["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(listed("test-key"), ["gpt-x", "team-a/m"]);
    assert_eq!(listed("gpt"), ["gpt-x"]);
    assert_eq!(listed("team"), ["team-a/m"]);
    assert_eq!(proxy.post_as("gpt", CHAT.path, &CHAT.body("gpt-x", false)).head.status, 200);
    assert_eq!(proxy.post_as("team", CHAT.path, &CHAT.body("team-a/m", false)).head.status, 200);
    let calls = upstream.seen().len();
    for format in &FORMATS {
        let answer =
            proxy.post_as("gpt", &format.target("team-a%2Fm", false), &format.body("team-a/m", false));
        assert_eq!(answer.head.status, 403, "{}: {}", format.name, answer.text());
        let error = &answer.json()["error"];
        assert!(error["message"].as_str().is_some_and(|m| m.contains("gpt team") && m.contains("team-a/m")));
        match format.name {
            "claude" => assert_eq!(error["type"], "permission_error"),
            "gemini" => assert_eq!(error["status"], "PERMISSION_DENIED"),
            _ => {
                assert_eq!((&error["code"], &error["param"]), (&"model_not_allowed".into(), &"model".into()));
            }
        }
    }
    let unknown = proxy.post_as("gpt", CHAT.path, &CHAT.body("team-a/n", false));
    assert!((400..=404).contains(&unknown.head.status));
    assert!(!unknown.text().contains("team-a/m"), "no name that it may not use: {}", unknown.text());
    let mut client = proxy.connect();
    client.get("/v1/models/team-a%2Fm", &[("authorization", "Bearer gpt")]);
    assert_eq!(client.answer().head.status, 404);
    assert_eq!(upstream.seen().len(), calls);
}

#[test]
fn a_key_that_has_expired_says_so() {
    let upstream = good();
    let profiles =
        keys(&["{api-key: old, expires: 2001-01-31}", "{api-key: new, expires: '2999-01-31T12:00:00Z'}"]);
    let proxy = proxy(&format!("{profiles}{}", chat_keys(&upstream.url(), &["k"])));
    assert_eq!(proxy.post_as("new", CHAT.path, &CHAT.body("m", false)).head.status, 200);
    let answer = proxy.post_as("old", CHAT.path, &CHAT.body("m", false));
    assert_eq!(answer.head.status, 401);
    let error = &answer.json()["error"];
    assert_eq!(error["code"], "expired_api_key", "{error}");
    assert!(error["message"].as_str().is_some_and(|m| m.contains("2001-02-01")), "{error}");
    assert_eq!(
        proxy.post_as("wrong", CHAT.path, &CHAT.body("m", false)).json()["error"]["code"],
        "invalid_api_key"
    );
    assert_eq!(upstream.seen().len(), 1);
}

/// A door that opens once.
#[derive(Default)]
struct Door(Mutex<bool>, Condvar);

impl Door {
    fn pass(&self) {
        let mut open = self.0.lock();
        while !*open {
            self.1.wait(&mut open);
        }
    }

    fn open(&self) {
        *self.0.lock() = true;
        self.1.notify_all();
    }
}

#[test]
fn p10_of_two_hundred_requests_at_once_a_limit_of_twenty_lets_exactly_twenty_through() {
    const ASKED: usize = 200;
    const LIMIT: usize = 20;
    let (inside, door) = (Arc::new(AtomicUsize::new(0)), Arc::new(Door::default()));
    let (count, wait) = (Arc::clone(&inside), Arc::clone(&door));
    let upstream = Upstream::start(move |seen| {
        count.fetch_add(1, Ordering::SeqCst);
        wait.pass();
        crate::shared::whole(&seen.path)
    });
    let profiles = keys(&["{api-key: limited, name: few, max-concurrency: 20}", "free"]);
    let proxy = Arc::new(proxy(&format!("{profiles}{}", chat_keys(&upstream.url(), &["k"]))));
    let start = Arc::new(Barrier::new(ASKED));
    let clients: Vec<_> = (0..ASKED)
        .map(|_| {
            let (proxy, start) = (Arc::clone(&proxy), Arc::clone(&start));
            std::thread::spawn(move || {
                let mut client = proxy.connect();
                start.wait();
                client.post(CHAT.path, &[("authorization", "Bearer limited")], &CHAT.body("m", false));
                let answer = client.answer();
                (answer.head.status, answer.head.header("retry-after").map(str::to_owned), answer.text())
            })
        })
        .collect();
    // Those who are refused are answered while the others are held at the upstream.
    let end = Instant::now() + Duration::from_secs(15);
    let answered = || clients.iter().filter(|client| client.is_finished()).count();
    while (inside.load(Ordering::SeqCst), answered()) != (LIMIT, ASKED - LIMIT) {
        assert!(Instant::now() < end, "{} upstream, {} answered", inside.load(Ordering::SeqCst), answered());
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut other = proxy.connect();
    other.get("/v1/models", &[("authorization", "Bearer free")]);
    assert_eq!(other.answer().head.status, 200, "another key is not concerned");
    door.open();
    let answers: Vec<_> = clients.into_iter().map(|client| client.join().expect("a client")).collect();
    let good = answers.iter().filter(|(status, ..)| *status == 200).count();
    assert_eq!(good, LIMIT);
    for (status, retry, text) in answers.iter().filter(|(status, ..)| *status != 200) {
        assert_eq!((*status, retry.as_deref()), (429, Some("1")), "{text}");
        assert!(text.contains("few") && text.contains("20 requests at once"), "{text}");
    }
    assert_eq!(upstream.seen().len(), LIMIT);
    assert_eq!(
        proxy.post_as("limited", CHAT.path, &CHAT.body("m", false)).head.status,
        200,
        "places came free"
    );
}

#[test]
fn requests_of_a_minute_are_counted_over_a_reload_and_told_with_the_time_of_the_next() {
    let upstream = good();
    let block = chat_keys(&upstream.url(), &["k"]);
    let text = format!("{}{block}", keys(&["{api-key: limited, rpm: 3}", "free"]));
    let proxy = proxy(&text);
    let ask = || proxy.post_as("limited", CLAUDE.path, &CLAUDE.body("m", false));
    let begun = Instant::now();
    for _ in 0..3 {
        assert_eq!(ask().head.status, 200);
    }
    let refused = |what: &str| {
        let answer = ask();
        assert_eq!(answer.head.status, 429, "{what}: {}", answer.text());
        assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
        let seconds: u64 = answer.head.header("retry-after").and_then(|v| v.parse().ok()).expect("a time");
        let least = 60_u64.saturating_sub(begun.elapsed().as_secs() + 1);
        assert!((least..=60).contains(&seconds), "{what}: {seconds}, not {least} to 60");
    };
    refused("over the limit");
    let file = proxy.folder().join("config.yaml");
    let old = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, old.replace("rpm: 3", "rpm: 3, name: same key")).expect("written");
    let end = Instant::now() + Duration::from_secs(15);
    while !ask().text().contains("same key") {
        assert!(Instant::now() < end, "it is not reloaded: {}", proxy.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    refused("after a reload");
    assert_eq!(proxy.post_as("free", CHAT.path, &CHAT.body("m", false)).head.status, 200);
    assert_eq!(upstream.seen().len(), 4);
}

#[test]
fn tokens_of_a_minute_are_charged_when_the_answer_is_known() {
    // Five tokens an answer.
    let upstream = Upstream::start(|seen| crate::shared::whole(&seen.path));
    let profiles = keys(&["{api-key: limited, tpm: 8}"]);
    let proxy = proxy(&format!("{profiles}{}", chat_keys(&upstream.url(), &["k"])));
    let ask = || proxy.post_as("limited", CHAT.path, &CHAT.body("m", false));
    assert_eq!([ask().head.status, ask().head.status], [200, 200]);
    refused_soon(ask);
    assert!(upstream.seen().len() <= 4);
}

/// Asks until it is refused. What an answer cost is charged when it is over, which its client may see first.
fn refused_soon(ask: impl Fn() -> testkit::client::Answer) -> testkit::client::Answer {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = ask();
        if answer.head.status == 429 {
            return answer;
        }
        assert!(answer.head.status == 200 && Instant::now() < end, "{}", answer.text());
    }
}

#[test]
fn a_credential_that_has_used_up_its_minute_lets_another_serve() {
    let upstream = good();
    let config = format!(
        "openai-compatibility:\n  - name: up\n    base-url: {}/v1\n    \
         api-key-entries: [{{api-key: a, rpm: 1}}, {{api-key: b, tpm: 5}}]\n    models: [{{name: m, alias: m}}]\n",
        upstream.url()
    );
    let proxy = proxy(&config);
    let ask = || proxy.post(CHAT.path, &CHAT.body("m", false));
    assert_eq!([ask().head.status, ask().head.status], [200, 200]);
    let refused = refused_soon(ask);
    let of =
        |key: &str| upstream.seen().iter().filter(|seen| seen.header("authorization") == Some(key)).count();
    assert_eq!(of("Bearer a"), 1, "one request in a minute");
    assert!((1..=3).contains(&of("Bearer b")), "{}", of("Bearer b"));
    let seconds: u64 = refused.head.header("retry-after").and_then(|v| v.parse().ok()).expect("a time");
    assert!((30..=60).contains(&seconds), "{seconds}");
}

#[test]
fn a_request_that_is_given_up_gives_its_place_back() {
    let upstream = Upstream::start(|_| vec![Step::Stall]);
    let profiles = keys(&["{api-key: limited, max-concurrency: 1}"]);
    let proxy = proxy(&format!("{profiles}{}", chat_keys(&upstream.url(), &["k"])));
    for n in 1..=3 {
        let end = Instant::now() + Duration::from_secs(15);
        // The place of the one before comes free when its end is noticed.
        while upstream.seen().len() < n {
            assert!(Instant::now() < end, "no place came free: {}", proxy.log());
            let mut client = proxy.connect();
            client.post(CHAT.path, &[("authorization", "Bearer limited")], &CHAT.body("m", false));
            if upstream.wait(Duration::from_millis(300), |seen| seen.len() == n) {
                let refused = proxy.post_as("limited", CHAT.path, &CHAT.body("m", false));
                assert_eq!(refused.head.status, 429, "{}", refused.text());
            }
        }
    }
}

#[test]
fn turns_of_a_socket_count_and_a_key_that_is_withdrawn_ends_them() {
    let upstream = good();
    let text =
        format!("{}{}", keys(&["{api-key: limited, rpm: 2}", "free"]), chat_keys(&upstream.url(), &["k"]));
    let proxy = proxy(&text);
    let mut client = proxy.connect();
    client.send(
        b"GET /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer limited\r\nconnection: upgrade\r\n\
          upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(client.head().status, 101);
    let ask = |client: &mut testkit::client::Client| {
        let message = br#"{"type":"response.create","model":"m","input":"hi"}"#;
        // A text frame whose mask changes nothing.
        let mut frame = vec![0x81, 0x80 | message.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(message);
        client.send(&frame);
    };
    for turn in 1..=2 {
        ask(&mut client);
        client.until("response.completed");
        assert!(upstream.wait(Duration::from_secs(10), |seen| seen.len() == turn));
    }
    ask(&mut client);
    client.until("2 requests per minute");
    let file = proxy.folder().join("config.yaml");
    let old = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, old.replace("api-key: limited", "api-key: another")).expect("written");
    let end = Instant::now() + Duration::from_secs(15);
    while proxy.post_as("another", CHAT.path, &CHAT.body("m", false)).head.status != 200 {
        assert!(Instant::now() < end, "it is not reloaded: {}", proxy.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    ask(&mut client);
    client.until("Invalid API key");
}
