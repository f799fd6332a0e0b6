//! Clients and upstreams that break the rules.

use crate::shared::{CHAT, FORMATS, all_kinds, chat_keys, good, proxy};
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use testkit::proxy::KEY;
use testkit::upstream::{Step, Upstream, chunk, chunk_end, stream_head, whole};

#[test]
fn p31_bad_bodies_are_refused_in_the_clients_format_and_go_nowhere() {
    let upstream = good();
    let proxy = proxy(&all_kinds(&upstream.url()));
    for format in &FORMATS {
        let deep = format!("{{\"model\":\"chat/m\",\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        for (body, status) in [
            ("", 400),
            ("{\"model\": \"chat/m\", ", 400),
            ("[1,2]", 400),
            ("{\"model\":\"chat/m\"} trailing", 400),
            ("{\"model\":\"a\",\"model\":\"b\",\"contents\":7}", 400),
            ("{\"model\":5,\"contents\":5}", 400),
            ("{\"contents\":\"x\"}", 400),
            ("{\"model\":\"chat/m\",\"messages\":\"x\",\"input\":7,\"contents\":{\"a\":1}}", 400),
            (&deep, 400),
        ] {
            let target = format.target("claude%2Fm", false);
            let answer = proxy.post(&target, body);
            let short: String = body.chars().take(60).collect();
            assert_eq!(answer.head.status, status, "{} {short:?}: {}", format.name, answer.text());
            let error = &answer.json()["error"];
            assert!(
                error["message"].as_str().is_some_and(|m| !m.is_empty()),
                "{} {short:?}: {error}",
                format.name
            );
            match format.name {
                "claude" => assert_eq!(answer.json()["type"], "error"),
                "gemini" => assert_eq!(error["status"], "INVALID_ARGUMENT"),
                _ => assert_eq!(error["type"], "invalid_request_error"),
            }
        }
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn wrong_types_name_their_place() {
    let upstream = good();
    let proxy = proxy(&all_kinds(&upstream.url()));
    let answer = proxy.post(
        "/v1/chat/completions",
        r#"{"model":"claude/m","messages":[{"role":"user","content":"a"},{"role":"user","content":[{"type":"text","text":7}]}]}"#,
    );
    assert_eq!(answer.head.status, 400);
    let error = &answer.json()["error"];
    assert_eq!(error["param"], "messages[1].content[0].text", "{error}");
}

#[test]
fn p08_bodies_over_the_limit_are_refused_before_they_are_read() {
    let upstream = good();
    let config = format!("limits: {{max-body-mb: 1}}\n{}", chat_keys(&upstream.url(), &["k"]));
    let proxy = proxy(&config);
    let mut client = proxy.connect();
    client.send(format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 1073741824\r\n\r\n").as_bytes());
    let answer = client.answer();
    assert_eq!(
        (answer.head.status, answer.json()["error"]["type"].as_str()),
        (413, Some("invalid_request_error"))
    );
    let mut client = proxy.connect();
    client.send(format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ntransfer-encoding: chunked\r\n\r\n").as_bytes());
    let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..64 {
        if !client.try_send(piece.as_bytes()) {
            break;
        }
    }
    assert_eq!(client.head().status, 413);
    assert!(upstream.seen().is_empty());
}

#[test]
fn p09_a_body_that_trickles_is_cut_at_the_deadline() {
    let config = format!("timeouts: {{client-body-seconds: 1}}\n{}", chat_keys("http://127.0.0.1:1", &["k"]));
    let proxy = proxy(&config);
    let mut client = proxy.connect();
    client.send(format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 1000\r\n\r\n{{").as_bytes());
    let begun = Instant::now();
    let head = client.head();
    assert_eq!(head.status, 408);
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn p14_garbage_of_an_upstream_is_a_typed_error_and_nothing_more() {
    let bodies: [(&str, String); 9] = [
        ("text/html", "<html><title>Welcome</title>".to_owned()),
        ("application/json", "{\"id\":\"x\",\"choices\":[{".to_owned()),
        ("application/json", String::new()),
        ("application/json", "null".to_owned()),
        ("application/json", "\u{0}\u{0}\u{0}".to_owned()),
        ("application/json", "[]".to_owned()),
        ("application/json", r#"{"error":{"message":"inside 200","type":"server_error"}}"#.to_owned()),
        ("text/event-stream", "data: <html>\n\n".to_owned()),
        ("text/event-stream", String::new()),
    ];
    for (kind, body) in bodies {
        let for_upstream = body.clone();
        let upstream = Upstream::start(move |_| vec![whole(200, kind, &for_upstream)]);
        let mut proxy = proxy(&all_kinds(&upstream.url()));
        for upstream_kind in ["chat", "responses", "claude", "gemini"] {
            for format in &FORMATS {
                for stream in [false, true] {
                    let model = format!("{upstream_kind}/m");
                    let answer = proxy.post(
                        &format.target(&model.replace('/', "%2F"), stream),
                        &format.body(&model, stream),
                    );
                    let case = format!(
                        "{} client, {upstream_kind} upstream, stream {stream}, {kind} {body:?}",
                        format.name
                    );
                    assert!(
                        (429..600).contains(&answer.head.status),
                        "{case}: {} {}",
                        answer.head.status,
                        answer.text()
                    );
                    assert!(answer.json()["error"]["message"].is_string(), "{case}: {}", answer.text());
                }
            }
        }
        assert!(proxy.is_alive());
    }
}

#[test]
fn p14_a_line_without_end_does_not_fill_the_memory() {
    let piece = chunk(&"x".repeat(1 << 20));
    let upstream = Upstream::start(move |_| {
        let mut steps = vec![stream_head(), chunk("data: ")];
        steps.extend(std::iter::repeat_n(piece.clone(), 200));
        steps.push(chunk_end());
        steps
    });
    let mut proxy = proxy(&chat_keys(&upstream.url(), &["k"]));
    let answer = proxy.post(CHAT.path, &CHAT.body("m", true));
    assert_eq!(answer.head.status, 502, "{}", answer.text());
    assert!(proxy.is_alive());
}

#[test]
fn p15_a_host_that_does_not_exist_is_an_error() {
    let mut proxy = proxy(&chat_keys("http://no-such-host.invalid", &["k"]));
    let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
    assert_eq!(answer.head.status, 502, "{}", answer.text());
    assert!(answer.text().contains("no-such-host.invalid"), "{}", answer.text());
    assert!(proxy.is_alive());
}

#[test]
fn p16_tls_that_cannot_be_trusted_is_refused() {
    // It speaks plain text where TLS is expected.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    let seen = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().expect("a connection");
        let mut first = [0; 512];
        let length = peer.read(&mut first).expect("a greeting");
        peer.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").expect("written");
        first[..length].to_vec()
    });
    let proxy = proxy(&chat_keys(&url, &["the-key"]));
    let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
    assert_eq!(answer.head.status, 502, "{}", answer.text());
    let seen = seen.join().expect("the upstream");
    assert_eq!(seen.first(), Some(&0x16), "a TLS greeting");
    assert!(!seen.windows(7).any(|part| part == b"the-key"), "nothing goes out in the clear");
}

#[test]
fn a_proxy_that_cannot_be_used_sends_nothing() {
    let upstream = good();
    for setting in ["ftp://127.0.0.1:9", "not a url", "socks4://127.0.0.1:1"] {
        let config = format!(
            "openai-compatibility:\n  - name: up\n    base-url: {}/v1\n    api-key-entries: [{{api-key: k, proxy-url: \"{setting}\"}}]\n    models: [{{name: m, alias: m}}]\n",
            upstream.url()
        );
        let proxy = proxy(&config);
        let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
        assert!(answer.head.status >= 500, "{setting}: {}", answer.text());
        let log = proxy.log();
        assert!(log.contains("proxy config invalid"), "{setting}: {log}");
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn requests_in_the_clear_go_through_an_http_proxy_with_absolute_targets() {
    let forward = Upstream::start(|seen| {
        assert_eq!(seen.path, "http://upstream.invalid/v1/chat/completions");
        assert_eq!(seen.header("proxy-authorization"), Some("Basic dTpw"));
        crate::shared::whole("/chat/v1")
    });
    let proxy_url = forward.url().replace("http://", "http://u:p@");
    let config = format!(
        "openai-compatibility:\n  - name: up\n    base-url: http://upstream.invalid/v1\n    api-key-entries: [{{api-key: k, proxy-url: \"{proxy_url}\"}}]\n    models: [{{name: m, alias: m}}]\n"
    );
    let proxy = proxy(&config);
    let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
    assert_eq!(answer.head.status, 200, "{}", answer.text());
    assert!(!proxy.log().contains("u:p"), "the proxy's password is in the log");
}

#[test]
fn p18_while_one_request_tests_a_rested_credential_the_others_wait_for_it() {
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let upstream =
        Upstream::start(move |seen| match calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => vec![Step::send("HTTP/1.1 429 X\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n")],
            1 => {
                let mut slow = vec![Step::Sleep(Duration::from_millis(500))];
                slow.extend(crate::shared::whole(&seen.path));
                slow
            }
            _ => crate::shared::whole(&seen.path),
        });
    let config = format!("request-retry: 0\n{}", chat_keys(&upstream.url(), &["only"]));
    let proxy = std::sync::Arc::new(proxy(&config));
    assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 429);
    std::thread::sleep(Duration::from_millis(1200));
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let proxy = std::sync::Arc::clone(&proxy);
            std::thread::spawn(move || proxy.post(CHAT.path, &CHAT.body("m", false)).head.status)
        })
        .collect();
    let statuses: Vec<_> = clients.into_iter().map(|client| client.join().expect("a client")).collect();
    assert_eq!(statuses, [200; 6], "{}", proxy.log());
}
