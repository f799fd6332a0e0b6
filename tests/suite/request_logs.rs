//! Files of single requests: what is in them, what is not, and who may read them.

use crate::management::{ON, manage};
use crate::reload::until;
use crate::shared::{CHAT, CLAUDE, chat_keys, good, proxy, whole};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use testkit::client::Answer;
use testkit::proxy::Proxy;
use testkit::upstream::{Seen, Step, Upstream, chunk, stream_head, whole as whole_step};

/// Names and texts of the request logs, the newest last.
fn files(proxy: &Proxy) -> Vec<(String, String)> {
    // One that makes room for a newer one may go between the two looks.
    let read = |path: &Path| match std::fs::read_to_string(path) {
        Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => None,
        text => Some(text.expect("a request log is text")),
    };
    let mut files: Vec<(String, String)> = std::fs::read_dir(folder(proxy))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().into_string().expect("a name"), read(&entry.path())?)))
        .filter(|(name, _)| !name.starts_with("main"))
        .collect();
    // The id sorts by time.
    files.sort_by_key(|(name, _)| name[name.len() - 36..].to_owned());
    files
}

fn folder(proxy: &Proxy) -> PathBuf {
    proxy.folder().join("logs")
}

/// The file of an answered request, once it is there.
fn file_of(proxy: &Proxy, answer: &Answer) -> (String, String) {
    let id = answer.head.header("x-request-id").expect("an id");
    let end = format!("-{id}.log");
    let found = || files(proxy).into_iter().find(|(name, text)| name.ends_with(&end) && !text.is_empty());
    assert!(until(|| found().is_some()), "no file of {id}: {:?}\n{}", files(proxy), proxy.log());
    found().expect("it is there")
}

/// Ends the process, which writes what waits.
fn end(proxy: &mut Proxy) {
    proxy.signal("TERM");
    assert_eq!(proxy.wait(Duration::from_secs(30)), Some(0));
}

/// A body with a prompt that nobody else says.
const PROMPT: &str = r#"{"model":"m","messages":[{"role":"user","content":"PROMPT-marker, my api key is sk-CANARY0123456789abcdef"}]}"#;

/// Fails and tells everything that it was told.
fn gossip(seen: &Seen) -> Vec<Step> {
    let key = seen.header("authorization").unwrap_or("none");
    let body = format!(
        r#"{{"error":{{"message":"UPSTREAM-marker: {key} is bad","api_key":"CANARY-in-a-member","hint":"Bearer sk-CANARYcanary-0123456789"}}}}"#
    );
    vec![Step::send(format!(
        "HTTP/1.1 500 X\r\ncontent-type: application/json\r\nset-cookie: sid=CANARY-upstream-cookie\r\nx-marker: kept\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    ))]
}

#[test]
fn p53_p54_row_64_a_failure_leaves_its_calls_and_neither_prompt_nor_secret() {
    let upstream = Upstream::start(gossip);
    let entries = "[{api-key: CANARY-provider-key-1}, {api-key: CANARY-provider-key-2}, \
                   {api-key: CANARY-provider-key-3, proxy-url: 'http://rented:CANARY-proxy-password@127.0.0.1:1'}]";
    let proxy = proxy(&format!(
        "api-keys:\n  - CANARY-client-key-0\n{}",
        chat_keys(&upstream.url(), &["x"]).replace("[{api-key: x}]", entries)
    ));
    let mut client = proxy.connect();
    let headers = [
        ("authorization", "Bearer CANARY-client-key-0"),
        ("cookie", "sid=CANARY-client-cookie"),
        ("x-other-token", "CANARY-other"),
        ("user-agent", "marker/1"),
    ];
    client.post("/v1/chat/completions?key=CANARY-client-key-0&beta=true", &headers, PROMPT);
    let answer = client.answer();
    // That of whoever was asked last.
    assert!(answer.head.status >= 500, "{}", answer.text());
    let (name, text) = file_of(&proxy, &answer);
    assert!(name.starts_with("error-v1-chat-completions-20"), "{name}");
    assert!(!text.contains("CANARY"), "{text}");
    assert!(!text.contains("PROMPT-marker"), "{text}");
    for part in [
        "URL: /v1/chat/completions?key=********&beta=true\n",
        "Method: POST\nClient: 127.0.0.1\nClient Key: number 1\nModel: m\n",
        "user-agent: marker/1\n",
        "cookie: ********\n",
        "=== API REQUEST 1 ===\nProvider: up\n",
        "=== API REQUEST 3 ===\n",
        &format!("Request: POST {}/v1/chat/completions\n", upstream.url()),
        "Status: 500\n",
        "UPSTREAM-marker: Bearer ******** is bad",
        "x-marker: kept\n",
        "set-cookie: ********\n",
        "Status: none\nError: cannot connect to the upstream",
        &format!("=== RESPONSE ===\nStatus: {}\n", answer.head.status),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&folder(&proxy)), mode(&folder(&proxy).join(name))), (0o700, 0o600));
    assert!(!proxy.log().contains("CANARY"), "{}", proxy.log());
}

#[test]
fn an_answer_that_breaks_off_leaves_a_file() {
    let upstream = Upstream::start(|_| {
        let piece = r#"{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"MODEL-marker"},"finish_reason":null}]}"#;
        vec![
            stream_head(),
            chunk(&format!("data: {piece}\n\n")),
            Step::Sleep(Duration::from_millis(50)),
            Step::Reset,
        ]
    });
    let proxy = proxy(&chat_keys(&upstream.url(), &["one"]));
    let answer = proxy.post(CHAT.path, &CHAT.body("m", true));
    assert_eq!(answer.head.status, 200);
    let (name, text) = file_of(&proxy, &answer);
    assert!(name.starts_with("error-"), "{name}");
    assert!(
        text.contains("=== API ERROR RESPONSE 1 ===\nStatus: 200\nError: ") && !text.contains("MODEL-marker"),
        "{text}"
    );
    assert!(text.contains("=== RESPONSE ===\nStatus: 200\nError: "), "{text}");
}

#[test]
fn success_strangers_and_clients_that_leave_leave_no_file() {
    let upstream =
        Upstream::start(
            |seen| {
                if seen.json()["model"] == "slow" { vec![Step::Stall] } else { whole(&seen.path) }
            },
        );
    let config =
        chat_keys(&upstream.url(), &["one"]).replace("[{name: m, alias: m}]", "[{name: m}, {name: slow}]");
    let mut proxy = proxy(&config);
    assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200);
    assert_eq!(proxy.post_as("wrong", CHAT.path, &CHAT.body("m", false)).head.status, 401);
    assert_eq!(proxy.get("/v1/nothing").head.status, 404);
    let mut client = proxy.connect();
    client.post(CHAT.path, &[("authorization", "Bearer test-key")], &CHAT.body("slow", false));
    assert!(upstream.wait(Duration::from_secs(20), |seen| seen.len() == 2));
    drop(client);
    assert!(upstream.wait(Duration::from_secs(20), |seen| seen[1].left.is_some()));
    assert!(until(|| proxy.log().contains(" 499 ")), "{}", proxy.log());
    let failed = proxy.post(CHAT.path, &CHAT.body("unknown", false));
    assert!(failed.head.status >= 400);
    file_of(&proxy, &failed);
    end(&mut proxy);
    assert_eq!(files(&proxy).len(), 1, "{:?}", files(&proxy));
}

#[test]
fn commercial_mode_writes_nothing_down() {
    let mut proxy = proxy(&format!("{ON}commercial-mode: true\nrequest-log: true\n"));
    assert!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status >= 400);
    assert_eq!(manage(&proxy, "PUT", "body-capture", r#"{"minutes":1}"#).head.status, 409);
    end(&mut proxy);
    assert!(!folder(&proxy).exists());
}

#[test]
fn only_the_newest_failures_stay_and_management_lists_reads_and_removes_them() {
    let proxy = proxy(&format!("{ON}error-logs-max-files: 3\n"));
    let mut answers = Vec::new();
    for _ in 0..8 {
        let answer = proxy.post(CHAT.path, &CHAT.body("unknown", false));
        file_of(&proxy, &answer);
        answers.push(answer.head.header("x-request-id").expect("an id").to_owned());
    }
    let list = || manage(&proxy, "GET", "request-error-logs", "").json()["files"].clone();
    assert!(until(|| list().as_array().is_some_and(|files| files.len() == 3)), "{}", list());
    let listed = list();
    for (n, id) in answers.iter().rev().take(3).enumerate() {
        let (name, size) = (listed[n]["name"].as_str().expect("a name"), &listed[n]["size"]);
        assert!(name.ends_with(&format!("-{id}.log")), "{name} {id}");
        assert!(listed[n]["modified"].as_i64() > Some(1_700_000_000));
        let file = manage(&proxy, "GET", &format!("request-error-logs/{name}"), "");
        assert_eq!((file.head.status, &json!(file.body.len())), (200, size));
        let disposition = format!("attachment; filename=\"{name}\"");
        assert_eq!(file.head.header("content-disposition"), Some(disposition.as_str()));
        let same = manage(&proxy, "GET", &format!("request-log-by-id/{id}"), "");
        assert_eq!((same.head.status, same.text()), (200, file.text()));
    }
    let gone = manage(&proxy, "GET", &format!("request-log-by-id/{}", answers[0]), "");
    assert_eq!(gone.head.status, 404);
    let name = listed[0]["name"].as_str().expect("a name");
    assert_eq!(manage(&proxy, "DELETE", &format!("request-error-logs/{name}"), "").head.status, 200);
    assert_eq!(manage(&proxy, "DELETE", &format!("request-error-logs/{name}"), "").head.status, 404);
    assert_eq!(list().as_array().map(Vec::len), Some(2));
}

#[test]
fn p58_no_name_leads_out_of_the_folder() {
    let proxy = proxy(ON);
    let failed = proxy.post(CHAT.path, &CHAT.body("unknown", false));
    let (good, _) = file_of(&proxy, &failed);
    let (id, zeros) = (failed.head.header("x-request-id").expect("an id"), "0".repeat(32));
    let link = good.replace(id, &zeros);
    std::fs::write(proxy.folder().join("outside"), "OUTSIDE").expect("a file");
    std::os::unix::fs::symlink(proxy.folder().join("outside"), folder(&proxy).join(&link)).expect("a link");
    for bad in [
        "..%2fconfig.yaml",
        "../config.yaml",
        "%2e%2e%2foutside",
        "%2fetc%2fpasswd",
        "..%5coutside",
        "main.log",
        "error-%00.log",
        "error-..%2f..%2foutside.log",
        "error-con.log",
        &format!("..%2flogs%2f{good}"),
        &format!("{good}%00"),
        &format!("%2e%2f{good}"),
        &good.replace("error", "%e2%88%95error"),
        &link,
        &format!("{}.log", "e".repeat(4000)),
    ] {
        for (method, path) in
            [("GET", "request-error-logs"), ("DELETE", "request-error-logs"), ("GET", "request-log-by-id")]
        {
            let answer = manage(&proxy, method, &format!("{path}/{bad}"), "");
            assert!(matches!(answer.head.status, 400 | 404 | 405), "{method} {bad}: {}", answer.text());
            assert!(!answer.text().contains("OUTSIDE") && !answer.text().contains("root:"), "{bad}");
        }
    }
    assert_eq!(
        manage(&proxy, "GET", &format!("request-log-by-id/{zeros}"), "").head.status,
        404,
        "a link is none"
    );
    assert!(proxy.folder().join("outside").exists() && folder(&proxy).join(&link).exists());
    assert_eq!(manage(&proxy, "GET", &format!("request-error-logs/{good}"), "").head.status, 200);
}

#[test]
fn bodies_are_written_while_they_are_wanted_and_without_secrets() {
    let upstream = good();
    let mut proxy = proxy(&format!("{ON}{}", chat_keys(&upstream.url(), &["CANARY-provider-key"])));
    let show = |proxy: &Proxy| manage(proxy, "GET", "body-capture", "").json();
    assert_eq!(show(&proxy)["active"], false);
    assert_eq!(manage(&proxy, "PUT", "body-capture", r#"{"minutes":61}"#).head.status, 400);
    let wish = r#"{"minutes":5,"max-requests":2,"only":{"model":"m*","client-key":"number 1"}}"#;
    let begun = manage(&proxy, "PUT", "body-capture", wish).json();
    assert_eq!((&begun["active"], &begun["requests-left"]), (&json!(true), &json!(2)));
    assert!(begun["seconds-left"].as_u64().is_some_and(|left| (1..=300).contains(&left)), "{begun}");
    assert_eq!(begun["only"], json!({"model": "m*", "client-key": "number 1"}));
    let other = proxy.post(CHAT.path, &CHAT.body("other", false));
    assert!(!file_of(&proxy, &other).1.contains("\"other\""), "another model");
    let (_, text) = file_of(&proxy, &proxy.post(CHAT.path, PROMPT));
    assert!(text.contains("PROMPT-marker, my api key is ********") && !text.contains("CANARY"), "{text}");
    assert!(
        text.contains(r#""content":"Hello""#) && text.contains("=== API RESPONSE 1 ===\nStatus: 200\n"),
        "{text}"
    );
    assert_eq!(show(&proxy)["requests-left"], 1);
    let streamed = proxy.post(CLAUDE.path, &CLAUDE.body("m", true));
    let (name, text) = file_of(&proxy, &streamed);
    assert!(name.starts_with("v1-messages-"), "{name}");
    let body = text.split("=== RESPONSE ===").nth(1).expect("a response");
    assert!(body.ends_with(&format!("\n{}\n", streamed.text())), "as it went to the client: {body}");
    let ended = show(&proxy);
    assert_eq!((&ended["active"], ended["files"].as_array().map(Vec::len)), (&json!(false), Some(3)));
    let late = proxy.post(CHAT.path, PROMPT);
    assert_eq!(late.head.status, 200);
    assert_eq!(manage(&proxy, "PUT", "body-capture", r#"{"minutes":5}"#).head.status, 200);
    assert_eq!(manage(&proxy, "DELETE", "body-capture", "").json()["ended"], true);
    assert_eq!(manage(&proxy, "PUT", "body-capture", r#"{"minutes":5}"#).head.status, 200);
    let log = proxy.log();
    assert_eq!(
        (log.matches("body capture begins").count(), log.matches("body capture ends").count()),
        (3, 2),
        "{log}"
    );
    end(&mut proxy);
    assert_eq!(files(&proxy).len(), 3, "what came too late is in no file");
    proxy.start_again();
    assert_eq!(show(&proxy)["active"], false, "it does not outlive the process");
}

#[test]
fn request_log_writes_all_requests_and_bounds_their_bodies() {
    let upstream = Upstream::start(|seen| match seen.json()["model"].as_str() {
        Some("bad") => vec![whole_step(400, "application/json", r#"{"error":{"message":"no"}}"#)],
        _ => whole(&seen.path),
    });
    let config =
        chat_keys(&upstream.url(), &["one"]).replace("[{name: m, alias: m}]", "[{name: m}, {name: bad}]");
    let proxy = proxy(&format!("{ON}request-log: true\n{config}"));
    let long = CHAT.body("m", false).replace("hi", &"long ".repeat(300_000));
    let (name, text) = file_of(&proxy, &proxy.post(CHAT.path, &long));
    assert!(name.starts_with("v1-chat-completions-"), "{name}");
    assert!(text.contains("bytes at first, ") && text.len() < 3 << 20, "{}", text.len());
    let (name, text) = file_of(&proxy, &proxy.post(CHAT.path, &CHAT.body("bad", false)));
    assert!(name.starts_with("v1-chat-completions-"), "{name}");
    assert!(text.contains(r#""content":"hi""#) && text.contains("Status: 400"), "{text}");
    assert_eq!(manage(&proxy, "GET", "request-error-logs", "").json(), json!({"files": []}));
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_nothing_else_happens() {
    let upstream = good();
    let config = chat_keys(&upstream.url(), &["one"]);
    let mut proxy = proxy(&format!("log-dir: /proc/none\n{config}"));
    assert!(proxy.post(CHAT.path, &CHAT.body("unknown", false)).head.status >= 400);
    assert!(
        until(|| proxy.log().contains("1 request logs cannot be written to /proc/none")),
        "{}",
        proxy.log()
    );
    assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200);
    end(&mut proxy);
}

#[test]
fn a_turn_of_a_socket_leaves_a_file_like_a_request() {
    let proxy = proxy("debug: false\n");
    let mut client = proxy.connect();
    client.send(
        b"GET /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer test-key\r\nconnection: upgrade\r\n\
          upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(client.head().status, 101);
    let message = br#"{"type":"response.create","model":"unknown","input":"hi"}"#;
    // A text frame whose mask changes nothing.
    let mut frame = vec![0x81, 0x80 | message.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(message);
    client.send(&frame);
    client.until("\"error\"");
    assert!(until(|| !files(&proxy).is_empty()));
    let (name, text) = files(&proxy).remove(0);
    assert!(name.starts_with("error-v1-responses-"), "{name}");
    assert!(
        text.contains("Downstream Transport: websocket\n") && text.contains("Model: unknown\n"),
        "{text}"
    );
    assert!(!text.contains("test-key"), "{text}");
}
