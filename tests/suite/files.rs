//! Gemini's files: each belongs to the account that took it.

use crate::shared::proxy;
use std::io::{Read, Write};
use std::time::Duration;
use testkit::client::Answer;
use testkit::proxy::{KEY, Proxy};
use testkit::upstream::{Seen, Step, Upstream, json};

/// Two accounts at `url`; both serve model `m`.
fn two(url: &str) -> String {
    format!(
        "gemini-api-key:\n  - api-key: key-a\n    base-url: {url}\n    models: [{{name: m, alias: m}}]\n  - api-key: key-b\n    base-url: {url}/v1beta\n    models: [{{name: m, alias: m}}]\n"
    )
}

fn key(seen: &Seen) -> &str {
    seen.header("x-goog-api-key").unwrap_or_default()
}

fn whole(status: u16, headers: &str, body: &str) -> Vec<Step> {
    vec![Step::send(format!(
        "HTTP/1.1 {status} X\r\n{headers}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))]
}

/// Google: a file is named after the key that took it, and nobody else may see it.
fn google(seen: &Seen) -> Vec<Step> {
    let key = key(seen);
    let path = seen.path.split('?').next().unwrap_or_default();
    match (seen.method.as_str(), path) {
        (_, "/upload/v1beta/files") if seen.header("x-goog-upload-command") == Some("start") => whole(
            200,
            &format!(
                "X-Goog-Upload-URL: http://elsewhere/upload/v1beta/files?upload_id=up%2F1&upload_protocol=resumable&key={key}\r\nX-Goog-Upload-Status: active\r\n"
            ),
            "",
        ),
        (_, "/upload/v1beta/files") if seen.header("x-goog-upload-command") == Some("upload") => {
            whole(200, "X-Goog-Upload-Status: active\r\n", "")
        }
        (_, "/upload/v1beta/files") => whole(
            200,
            "X-Goog-Upload-Status: final\r\n",
            &format!(r#"{{"file":{{"name":"files/of-{key}","uri":"https://g/v1beta/files/of-{key}"}}}}"#),
        ),
        ("GET", "/v1beta/files") => {
            let next = if seen.path.contains("pageToken=two%2B") { "" } else { r#","nextPageToken":"two+""# };
            whole(200, "", &format!(r#"{{"files":[{{"name":"files/of-{key}"}}]{next}}}"#))
        }
        (_, path) if path.starts_with("/v1beta/files/") && !path.contains(key) => {
            whole(403, "", r#"{"error":{"code":403,"message":"not yours","status":"PERMISSION_DENIED"}}"#)
        }
        (_, path) if path.ends_with(":download") => {
            vec![Step::send(
                "HTTP/1.1 200 OK\r\ncontent-type: video/mp4\r\ncontent-length: 5\r\n\r\n\u{1}film",
            )]
        }
        ("DELETE", _) => whole(200, "", "{}"),
        ("GET", path) => whole(200, "", &format!(r#"{{"name":"{}"}}"#, path.trim_start_matches("/v1beta/"))),
        _ => whole(
            200,
            "",
            r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"seen"}]},"finishReason":"STOP","index":0}],"responseId":"r"}"#,
        ),
    }
}

fn send(proxy: &Proxy, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: files.example:81\r\n");
    for (name, value) in headers {
        head = format!("{head}{name}: {value}\r\n");
    }
    head = format!("{head}content-length: {}\r\n\r\n", body.len());
    let mut client = proxy.connect();
    client.send(&[head.as_bytes(), body].concat());
    client.answer()
}

fn start(proxy: &Proxy) -> Answer {
    let headers = [
        ("x-goog-api-key", KEY),
        ("x-goog-upload-protocol", "resumable"),
        ("x-goog-upload-command", "start"),
        ("x-goog-upload-header-content-type", "video/mp4"),
        ("x-forwarded-proto", "https"),
        ("content-type", "application/json"),
    ];
    send(proxy, "POST", &format!("/upload/v1beta/files?key={KEY}"), &headers, br#"{"file":{}}"#)
}

/// The path and query of the upload URL.
fn target(answer: &Answer) -> String {
    let url = answer.head.header("x-goog-upload-url").expect("an upload URL");
    url.strip_prefix("https://files.example:81").expect("our host and scheme").to_owned()
}

#[test]
fn a_file_goes_to_one_account_and_is_found_there() {
    let upstream = Upstream::start(google);
    let proxy = proxy(&two(&upstream.url()));
    for account in ["key-a", "key-b"] {
        let begun = start(&proxy);
        assert_eq!(begun.head.status, 200, "{}", begun.text());
        let seen = upstream.seen().pop().expect("a request");
        assert_eq!((key(&seen), seen.path.as_str()), (account, "/upload/v1beta/files"));
        assert_eq!(seen.header("x-goog-upload-header-content-type"), Some("video/mp4"));
        let target = target(&begun);
        assert!(!target.contains(account), "the operator's key is not told: {target}");

        let part: Vec<u8> = (0..100_000_u32).map(|n| (n % 253) as u8).collect();
        for (command, status) in [("upload", "active"), ("upload, finalize", "final")] {
            let headers = [("x-goog-upload-command", command), ("x-goog-upload-offset", "0")];
            let got = send(&proxy, "POST", &target, &headers, &part);
            assert_eq!(got.head.header("x-goog-upload-status"), Some(status), "{}", got.text());
            let seen = upstream.seen().pop().expect("a request");
            assert_eq!(key(&seen), account);
            assert_eq!(seen.path, "/upload/v1beta/files?upload_id=up%2F1&upload_protocol=resumable");
            assert!(seen.body == part, "every byte");
        }

        let name = format!("/v1beta/files/of-{account}");
        let body = format!(
            r#"{{"contents":[{{"role":"user","parts":[{{"fileData":{{"fileUri":"https://g{name}","mimeType":"video/mp4"}}}}]}}]}}"#
        );
        for _ in 0..3 {
            assert_eq!(proxy.get(&name).json()["name"], format!("files/of-{account}"));
            assert_eq!(key(&upstream.seen().pop().expect("a request")), account);
            assert_eq!(proxy.post("/v1beta/models/m:generateContent", &body).head.status, 200);
            assert_eq!(key(&upstream.seen().pop().expect("a request")), account);
        }
        let film = proxy.get(&format!("{name}:download?alt=media"));
        assert_eq!(
            (film.head.header("content-type"), film.text()),
            (Some("video/mp4"), "\u{1}film".to_owned())
        );
        let calls = upstream.seen().len();
        assert_eq!(send(&proxy, "DELETE", &name, &[("x-goog-api-key", KEY)], b"").text(), "{}");
        assert_eq!(upstream.seen().len(), calls + 1);
    }
}

#[test]
fn p11_an_upload_begins_elsewhere_when_an_account_refuses() {
    let upstream = Upstream::start(|seen| match key(seen) {
        "key-a" => whole(429, "", r#"{"error":{"code":429,"message":"full"}}"#),
        _ => google(seen),
    });
    let proxy = proxy(&two(&upstream.url()));
    for _ in 0..2 {
        assert_eq!(start(&proxy).head.status, 200);
    }
}

#[test]
fn a_file_that_nobody_remembers_is_asked_for_everywhere() {
    let upstream = Upstream::start(google);
    let proxy = proxy(&two(&upstream.url()));
    assert_eq!(proxy.get("/v1beta/files/of-key-b").head.status, 200);
    assert_eq!(upstream.seen().len(), 2);
    assert_eq!(proxy.get("/v1beta/files/of-key-b").head.status, 200);
    assert_eq!(upstream.seen().len(), 3, "and remembered then");
    let got = proxy.get("/v1beta/files/nobodys");
    assert_eq!((got.head.status, &got.json()["error"]["message"]), (403, &"not yours".into()));
}

#[test]
fn lists_go_over_all_accounts() {
    let upstream = Upstream::start(google);
    let proxy = proxy(&two(&upstream.url()));
    let (mut found, mut token) = (Vec::new(), String::new());
    for _ in 0..9 {
        let page = proxy.get(&format!("/v1beta/files?pageSize=1&pageToken={}", token.replace('+', "%2B")));
        assert_eq!(page.head.status, 200, "{}", page.text());
        found.push(page.json()["files"][0]["name"].as_str().expect("a name").to_owned());
        match page.json()["nextPageToken"].as_str() {
            Some(next) => next.clone_into(&mut token),
            None => break,
        }
    }
    assert_eq!(found, ["files/of-key-a", "files/of-key-a", "files/of-key-b", "files/of-key-b"]);
    assert!(upstream.seen().iter().all(|seen| seen.path.contains("pageSize=1")));
    assert_eq!(proxy.get("/v1beta/files?pageToken=foreign").head.status, 400);
}

#[test]
fn p61_an_upload_needs_a_key_or_a_ticket_of_its_own() {
    let upstream = Upstream::start(google);
    let proxy = proxy(&two(&upstream.url()));
    let target = target(&start(&proxy));
    let calls = upstream.seen().len();
    let command = [("x-goog-upload-command", "upload, finalize")];
    for (forged, status) in [
        ("/upload/v1beta/files".to_owned(), 401),
        ("/upload/v1beta/files?ticket=0".to_owned(), 403),
        (target.replace("up%2F1", "up%2F2"), 403),
        (format!("{target}0"), 403),
    ] {
        assert_eq!(send(&proxy, "POST", &forged, &command, b"x").head.status, status, "{forged}");
    }
    assert_eq!(upstream.seen().len(), calls);
    assert_eq!(send(&proxy, "POST", &target, &command, b"x").head.status, 200);
}

#[test]
fn without_gemini_there_are_no_files() {
    let proxy = proxy("claude-api-key:\n  - api-key: k\n    base-url: http://127.0.0.1:1\n");
    let got = proxy.get("/v1beta/files");
    assert_eq!((got.head.status, &got.json()["error"]["status"]), (501, &"UNIMPLEMENTED".into()));
}

#[test]
fn a_large_file_is_never_held() {
    let upstream = Upstream::start(google);
    let mut proxy = proxy(&two(&upstream.url()));
    let target = target(&start(&proxy));
    let before = proxy.memory_kib();
    let part = vec![7; 64 << 20];
    let got = send(&proxy, "POST", &target, &[("x-goog-upload-command", "upload, finalize")], &part);
    assert_eq!(got.head.status, 200, "{}", got.text());
    let grown = proxy.memory_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more for 64 MiB");
    assert_eq!(upstream.seen().pop().expect("a request").body.len(), part.len());
    assert!(proxy.is_alive());
}

#[test]
fn p12_half_a_part_does_not_look_whole() {
    let upstream = Upstream::start(google);
    let mut proxy = proxy(&two(&upstream.url()));
    let target = target(&start(&proxy));
    let calls = upstream.seen().len();
    for framing in ["content-length: 100000\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let mut client = proxy.connect();
        let head =
            format!("POST {target} HTTP/1.1\r\nhost: h\r\nx-goog-upload-command: upload, finalize\r\n");
        client.send((head + framing).as_bytes());
        std::thread::sleep(Duration::from_millis(200));
        drop(client);
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(upstream.seen().len(), calls, "the upstream sees no complete request");
    let mut client = proxy.connect();
    client.send(format!("POST {target} HTTP/1.1\r\nhost: h\r\nx-goog-upload-command: upload, finalize\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n\r\n").as_bytes());
    assert_eq!(client.answer().head.status, 200);
    assert_eq!(upstream.seen().pop().expect("a request").body, b"half");
    assert!(proxy.is_alive());
}

#[test]
fn an_upstream_that_cannot_be_reached_is_told() {
    let dead = testkit::scratch::free_port();
    let proxy = proxy(&two(&format!("http://127.0.0.1:{dead}")));
    assert_eq!(start(&proxy).head.status, 502);
    let silent = Upstream::start(|_| vec![json(503, r#"{"error":{"message":"down"}}"#)]);
    let proxy = crate::shared::proxy(&two(&silent.url()));
    assert_eq!((start(&proxy).head.status, silent.seen().len()), (503, 2));
}

#[test]
fn an_upstream_that_stops_reading_is_heard() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(b"HTTP/1.1 413 X\r\ncontent-type: application/json\r\nx-goog-upload-status: final\r\ncontent-length: 2\r\n\r\n{}");
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    let mut proxy = proxy(&two(&url));
    let mut client = proxy.connect();
    let head = format!(
        "POST /upload/v1beta/files HTTP/1.1\r\nhost: h\r\nx-goog-api-key: {KEY}\r\nx-goog-upload-protocol: raw\r\ncontent-length: {}\r\n\r\n",
        256 << 20
    );
    client.send(head.as_bytes());
    let part = vec![1; 1 << 20];
    let mut sent = 0;
    while sent < 200 && client.try_send(&part) {
        sent += 1;
    }
    assert!(sent < 200, "the proxy reads on for nobody");
    assert!(proxy.is_alive());
    assert!(proxy.log().contains("\"status_code\":413"), "{}", proxy.log());
}
