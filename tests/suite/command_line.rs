//! The program as people start it.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use testkit::proxy::Proxy;
use testkit::scratch::{Scratch, free_port};

const BINARY: &str = env!("CARGO_BIN_EXE_cliproxy");

fn run(arguments: &[&str], input: &str) -> Output {
    let scratch = Scratch::new();
    let mut child = Command::new(BINARY)
        .args(arguments)
        .current_dir(scratch.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_says_where_a_configuration_is_broken() {
    let scratch = Scratch::new();
    let broken =
        scratch.file("broken.yaml", "port: 8317\nclaude-api-key:\n  - api-key: k\n    base-url: ftp://x\n");
    let out = run(&["check", "--config", &broken.display().to_string()], "");
    assert_eq!(out.status.code(), Some(78), "{}", text(&out.stderr));
    assert!(
        text(&out.stderr).contains("broken.yaml:4:15: claude-api-key[0].base-url"),
        "{}",
        text(&out.stderr)
    );
    let fine = scratch
        .file("fine.yaml", "port: 8317\napi-keys: [k]\nclaude-api-key: [{api-key: k}]\nunknown-key: 1\n");
    let out = run(&["check", "-config", &fine.display().to_string()], "");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("unknown-key"), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("1 credentials"), "{}", text(&out.stdout));
}

#[test]
fn a_broken_configuration_starts_nothing() {
    let scratch = Scratch::new();
    for (name, content) in [("bad.yaml", "port: [1, 2"), ("missing.yaml", "")] {
        if !content.is_empty() {
            scratch.file(name, content);
        }
        let out = run(&["--config", &scratch.path().join(name).display().to_string()], "");
        assert_eq!(out.status.code(), Some(78), "{name}: {}", text(&out.stderr));
        assert!(text(&out.stderr).contains(name), "{}", text(&out.stderr));
    }
}

#[test]
fn a_taken_port_is_told_and_fails() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let scratch = Scratch::new();
    let file = scratch.file("config.yaml", &format!("host: 127.0.0.1\nport: {port}\napi-keys: [k]\n"));
    let begun = std::time::Instant::now();
    let out = run(&["--config", &file.display().to_string()], "");
    assert!(begun.elapsed() < std::time::Duration::from_secs(2));
    assert_ne!(out.status.code(), Some(0));
    let message = text(&out.stderr);
    assert!(message.contains(&format!("127.0.0.1:{port}")) && message.contains("in use"), "{message}");
}

#[test]
fn version_and_help() {
    for arguments in [&["--version"][..], &["-version"], &["version"]] {
        let out = run(arguments, "");
        assert_eq!(out.status.code(), Some(0));
        assert!(text(&out.stdout).starts_with("cliproxy "), "{arguments:?}: {}", text(&out.stdout));
    }
    assert!(text(&run(&["--help"], "").stdout).contains("translate"));
}

#[test]
fn translate_shows_what_would_be_sent() {
    let request = r#"{"model":"x","max_tokens":50,"messages":[{"role":"user","content":"hi"}]}"#;
    let out = run(
        &["translate", "--from", "claude", "--to", "openai", "--kind", "request", "--model", "gpt-x"],
        request,
    );
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let body: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!((&body["model"], &body["messages"][0]["content"]), (&"gpt-x".into(), &"hi".into()));
    let out = run(
        &["translate", "--from", "claude", "--to", "openai", "--kind", "request"],
        r#"{"model":"x","messages":7}"#,
    );
    assert_eq!(out.status.code(), Some(1));
    let error: serde_json::Value = serde_json::from_slice(&out.stderr).expect("JSON");
    assert_eq!(error["error"]["type"], "invalid_request_error", "{error}");
    let stream = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let out = run(&["translate", "--from", "openai", "--to", "claude", "--kind", "stream"], stream);
    assert!(text(&out.stdout).contains("event: message_stop"), "{}", text(&out.stdout));
}

/// Without a configuration: the demo, and the three requests that it prints.
#[test]
fn the_demo_answers_the_requests_that_it_prints() {
    let port = free_port();
    let scratch = Scratch::new();
    // The environment decides the port, so that the test does not need 8317 to be free.
    let script = scratch.file("start.sh", &format!("PORT={port} exec \"$1\"\n"));
    let path = script.display().to_string();
    let proxy = Proxy::run("sh", &[&path, BINARY], port, scratch);
    let printed = proxy.log();
    let curls: Vec<_> = printed.lines().filter(|line| line.trim_start().starts_with("curl")).collect();
    assert_eq!(curls.len(), 3, "{printed}");
    let ask = |line: &str| {
        let out = Command::new("sh").args(["-c", line]).output().expect("curl runs");
        text(&out.stdout)
    };
    let chat = ask(curls[0]);
    assert!(chat.contains("The demo provider heard: Hello"), "{chat}");
    let claude = ask(curls[1]);
    assert!(claude.contains("thinking_delta") && claude.contains("event: message_stop"), "{claude}");
    let gemini = ask(curls[2]);
    assert!(gemini.contains("\"finishReason\":\"STOP\"") && gemini.matches("data: ").count() > 5, "{gemini}");
}

#[test]
fn explain_says_who_serves_and_for_which_key() {
    let scratch = Scratch::new();
    let text = format!(
        "auth-dir: {}\napi-keys:\n  - all\n  - {{api-key: CANARY-few, name: few, allowed-models: ['other-*']}}\n  \
         - {{api-key: CANARY-old, name: old, expires: 2001-01-01}}\n\
         fallback-models: {{gone: [fast]}}\nclaude-api-key:\n  - {{api-key: CANARY-1, priority: 2, models: [{{name: m1, alias: fast}}]}}\n  \
         - {{api-key: CANARY-2, models: [{{name: m2, alias: fast}}]}}\n",
        scratch.path().join("auths").display()
    );
    let file = scratch.file("explained.yaml", &text).display().to_string();
    let explain = |arguments: &[&str]| {
        let out = run(&[&["explain", "--config", &file][..], arguments].concat(), "");
        let (said, told) = (crate::command_line::text(&out.stdout), crate::command_line::text(&out.stderr));
        assert!(!said.contains("CANARY") && !told.contains("CANARY"), "{said}{told}");
        (out.status.code(), said, told)
    };
    let (code, said, _) = explain(&["--model", "fast(high)"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("fast(high) is served as fast, thinking high\n"), "{said}");
    let rows: Vec<_> = said.lines().filter(|line| line.contains("claude#")).collect();
    assert_eq!(rows.len(), 2, "{said}");
    assert!(
        rows[0].starts_with("*  claude#1") && rows[0].contains("m1") && rows[0].ends_with("is ready"),
        "{said}"
    );
    assert!(!rows[1].starts_with('*') && rows[1].contains("m2"), "{said}");
    assert!(said.contains("running process are not seen"), "{said}");
    let (code, said, _) = explain(&["-m", "fast", "-k", "few"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("key few: it may not use the model"), "{said}");
    let (code, said, _) = explain(&["--model", "fast", "--key", "CANARY-old", "--json"]);
    assert_eq!(code, Some(1), "{said}");
    let json: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&json["model"], &json["live"]), (&"fast".into(), &false.into()));
    assert_eq!(json["key"]["expired"], "2001-01-02T00:00:00Z");
    assert_eq!(json["candidates"].as_array().map(Vec::len), Some(2));
    let (code, said, _) = explain(&["--model", "gone"]);
    assert!(code == Some(0) && said.starts_with("gone is served by fast: nobody has the model"), "{said}");
    let (code, said, _) = explain(&["--model", "fasst"]);
    assert!(code == Some(1) && said.contains("did you mean fast?"), "{said}");
    let (code, _, told) = explain(&["--model", "fast", "--key", "stranger"]);
    assert!(code == Some(1) && told.contains("no client key"), "{told}");
}
