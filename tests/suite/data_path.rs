//! Requests that go well, and those that go well on the second try.

use crate::shared::{CHAT, CLAUDE, FORMATS, all_kinds, chat_keys, good, proxy, text_of, wants_stream, whole};
use std::time::Duration;
use testkit::proxy::KEY;
use testkit::upstream::{Step, Upstream, json};

#[test]
fn every_client_format_reaches_every_kind_of_upstream_whole_and_streamed() {
    let upstream = good();
    let proxy = proxy(&all_kinds(&upstream.url()));
    for kind in ["chat", "responses", "claude", "gemini"] {
        for format in &FORMATS {
            for stream in [false, true] {
                let model = format!("{kind}/m");
                let target = format.target(&model.replace('/', "%2F"), stream);
                let answer = proxy.post(&target, &format.body(&model, stream));
                let case = format!("{} client, {kind} upstream, stream {stream}", format.name);
                assert_eq!(answer.head.status, 200, "{case}: {}", answer.text());
                assert_eq!(text_of(format, &answer.text()), "Hello", "{case}: {}", answer.text());
                let last = upstream.seen().pop().expect("a request");
                assert!(last.path.starts_with(&format!("/{kind}/")), "{case}: {}", last.path);
                if kind != "gemini" {
                    assert_eq!(last.json()["model"], "m", "{case}");
                }
            }
        }
    }
}

#[test]
fn p11_the_second_credential_answers_when_the_first_has_no_quota() {
    let upstream = Upstream::start(|seen| match seen.header("authorization") {
        Some("Bearer bad") => vec![Step::send(
            "HTTP/1.1 429 X\r\nretry-after: 7\r\ncontent-type: application/json\r\ncontent-length: 28\r\n\r\n{\"error\":{\"message\":\"full\"}}",
        )],
        _ => whole(&seen.path),
    });
    let proxy = proxy(&chat_keys(&upstream.url(), &["bad", "good"]));
    for _ in 0..3 {
        let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
        assert_eq!(answer.head.status, 200, "{}", answer.text());
        assert_eq!(text_of(&CHAT, &answer.text()), "Hello");
    }
    let bad =
        upstream.seen().iter().filter(|seen| seen.header("authorization") == Some("Bearer bad")).count();
    assert_eq!(bad, 1, "a credential that cools is not asked again");
    assert!(proxy.log().contains("\"attempts\":2"), "{}", proxy.log());
}

#[test]
fn p11_a_refused_or_reset_connection_is_tried_elsewhere() {
    let dead = testkit::scratch::free_port();
    let resets = Upstream::start(|_| vec![Step::Reset]);
    let good = good();
    let config = format!(
        "openai-compatibility:\n\
         \x20 - name: refused\n    priority: 3\n    base-url: http://127.0.0.1:{dead}/v1\n    api-key-entries: [{{api-key: a}}]\n    models: [{{name: m, alias: m}}]\n\
         \x20 - name: resets\n    priority: 2\n    base-url: {}/v1\n    api-key-entries: [{{api-key: b}}]\n    models: [{{name: m, alias: m}}]\n\
         \x20 - name: good\n    priority: 1\n    base-url: {}/v1\n    api-key-entries: [{{api-key: c}}]\n    models: [{{name: m, alias: m}}]\n",
        resets.url(),
        good.url()
    );
    let proxy = proxy(&config);
    for stream in [false, true] {
        let answer = proxy.post(CHAT.path, &CHAT.body("m", stream));
        assert_eq!((answer.head.status, text_of(&CHAT, &answer.text()).as_str()), (200, "Hello"));
    }
    assert!(!resets.seen().is_empty());
}

#[test]
fn p11_the_clients_mistakes_are_not_tried_elsewhere() {
    let body = r#"{"error":{"message":"messages: too many","type":"invalid_request_error","param":null,"code":null}}"#;
    let upstream = Upstream::start(move |_| vec![json(400, body)]);
    let proxy = proxy(&chat_keys(&upstream.url(), &["a", "b", "c"]));
    let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
    assert_eq!(
        (answer.head.status, answer.text().as_str()),
        (400, body),
        "the same format gets the body as it is"
    );
    let answer = proxy.post(CLAUDE.path, &CLAUDE.body("m", false));
    assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    assert_eq!(answer.json()["type"], "error");
    assert_eq!(upstream.seen().len(), 2);
}

#[test]
fn p17_when_all_cool_the_client_is_told_when_the_first_is_ready() {
    let upstream = Upstream::start(|_| {
        vec![Step::send("HTTP/1.1 429 X\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n")]
    });
    let proxy = proxy(&chat_keys(&upstream.url(), &["a", "b"]));
    let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
    assert_eq!(answer.head.status, 429);
    let calls = upstream.seen().len();
    for format in &FORMATS {
        let answer = proxy.post(&format.target("m", false), &format.body("m", false));
        assert_eq!(answer.head.status, 429, "{}", answer.text());
        let seconds: u64 = answer.head.header("retry-after").expect("Retry-After").parse().expect("seconds");
        assert!((25..=31).contains(&seconds), "{seconds}");
    }
    assert_eq!(upstream.seen().len(), calls, "nobody is asked while all cool");
}

#[test]
fn p33_bytes_of_the_same_format_stay_as_they_are() {
    let upstream = good();
    let config = format!(
        "openai-compatibility:\n  - name: up\n    base-url: {}/v1\n    api-key-entries: [{{api-key: k}}]\n    models: [{{name: upstream-name, alias: m}}]\n",
        upstream.url()
    );
    let proxy = proxy(&config);
    let big = "\\u00e9 \\\"quoted\\\" \\n".repeat(60_000);
    let body = format!(
        "{{ \"unknown\" : [1.0, 1e2, {{ }} ],\n\t\"messages\":[{{\"role\":\"user\",\"content\":\"{big}\"}}] , \"model\" :  \"m\", \"temperature\":0.70 }}"
    );
    assert!(body.len() > 1 << 20);
    let answer = proxy.post(CHAT.path, &body);
    assert_eq!(answer.head.status, 200, "{}", answer.text());
    let seen = upstream.seen().pop().expect("a request");
    let expected = body.replace("\"model\" :  \"m\"", "\"model\" :  \"upstream-name\"");
    assert!(seen.body == expected.as_bytes(), "the body differs outside the model");
}

#[test]
fn p22_a_pooled_connection_that_died_does_not_fail_a_request() {
    let upstream = Upstream::start(|seen| {
        let mut steps = whole(&seen.path);
        // Says keep-alive, and closes.
        steps.push(Step::Close);
        steps
    });
    let proxy = proxy(&chat_keys(&upstream.url(), &["k"]));
    for n in 0..30 {
        let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
        assert_eq!(answer.head.status, 200, "request {n}: {}", answer.text());
    }
    assert_eq!(upstream.seen().len(), 30);
}

#[test]
fn connections_are_used_again() {
    let upstream = good();
    let proxy = proxy(&all_kinds(&upstream.url()));
    for _ in 0..10 {
        for kind in ["chat", "responses", "claude", "gemini"] {
            for stream in [false, true] {
                let answer = proxy.post(CHAT.path, &CHAT.body(&format!("{kind}/m"), stream));
                assert_eq!(answer.head.status, 200);
            }
        }
    }
    assert!(upstream.connections() <= 3, "{} connections for 80 requests", upstream.connections());
}

#[test]
fn p61_the_clients_key_and_cookies_stay_here() {
    let upstream = good();
    let proxy = proxy(&all_kinds(&upstream.url()));
    for format in &FORMATS {
        let mut client = proxy.connect();
        let headers = [
            ("authorization", &*format!("Bearer {KEY}")),
            ("x-api-key", "other-client-key"),
            ("cookie", "session=client"),
            ("x-forwarded-for", "10.1.2.3"),
            ("proxy-authorization", "Basic client"),
            ("anthropic-beta", "some-beta"),
        ];
        client.post(
            &format.target(&format!("{}%2Fm", format.name), false),
            &headers,
            &format.body(&format!("{}/m", format.name), false),
        );
        assert_eq!(client.answer().head.status, 200, "{}", format.name);
        let seen = upstream.seen().pop().expect("a request");
        for (name, value) in &seen.headers {
            let leaked = [KEY, "other-client-key", "client", "10.1.2.3"]
                .iter()
                .any(|secret| value == secret || value.contains("Basic client"));
            assert!(!leaked, "{name}: {value} reached the {} upstream", format.name);
        }
        assert!(seen.headers.iter().any(|(_, value)| value.contains(&format!("up-{}", format.name))));
        assert_eq!(seen.header("anthropic-beta"), Some("some-beta"), "{}", format.name);
    }
}

#[test]
fn p23_an_upstreams_headers_are_not_the_answers() {
    let upstream = Upstream::start(|_| {
        let body = r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[]}"#;
        vec![Step::send(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nset-cookie: a=b\r\nserver: evil\r\nstrict-transport-security: max-age=1\r\naccess-control-allow-origin: https://evil.example\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))]
    });
    let proxy = proxy(&chat_keys(&upstream.url(), &["k"]));
    let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
    for name in ["set-cookie", "server", "strict-transport-security", "x-hop"] {
        assert_eq!(answer.head.header(name), None, "{name}");
    }
    assert_eq!(answer.head.header("access-control-allow-origin"), Some("*"));
}

#[test]
fn expect_continue_and_chunked_bodies_are_read() {
    let upstream = good();
    let proxy = proxy(&chat_keys(&upstream.url(), &["k"]));
    let body = CHAT.body("m", false);
    let mut client = proxy.connect();
    client.send(format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
    assert_eq!(client.head().status, 100);
    client.send(body.as_bytes());
    assert_eq!(client.answer().head.status, 200);
    let mut client = proxy.connect();
    client.send(format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ntransfer-encoding: chunked\r\n\r\n").as_bytes());
    for piece in body.as_bytes().chunks(7) {
        client.send(format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece)).as_bytes());
        std::thread::sleep(Duration::from_millis(1));
    }
    client.send(b"0\r\n\r\n");
    assert_eq!(client.answer().head.status, 200);
    assert!(upstream.seen().iter().all(|seen| !wants_stream(seen)));
}

#[test]
fn models_headers_and_prefixes_of_the_operator() {
    let upstream = good();
    let config = format!(
        "openai-compatibility:\n  - name: up\n    prefix: team\n    base-url: {}/v1\n    headers: {{x-static: s, x-copied: $X-Mine}}\n    api-key-entries: [{{api-key: k}}]\n    models: [{{name: real-name, alias: fast, force-mapping: true}}]\n",
        upstream.url()
    );
    let proxy = proxy(&config);
    let mut client = proxy.connect();
    client.post(
        CHAT.path,
        &[("authorization", &format!("Bearer {KEY}")), ("x-mine", "mine")],
        &CHAT.body("team/fast", false),
    );
    let answer = client.answer();
    assert_eq!(answer.json()["model"], "team/fast", "force-mapping shows the name that was asked");
    let seen = upstream.seen().pop().expect("a request");
    assert_eq!((seen.header("x-static"), seen.header("x-copied")), (Some("s"), Some("mine")));
    assert_eq!(seen.json()["model"], "real-name");
}
