//! `cliproxy doctor` as operators run it.

use crate::shared::{chat_keys, proxy};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use testkit::proxy::KEY;
use testkit::scratch::{Scratch, free_port};
use testkit::upstream::{Upstream, json};

fn doctor(arguments: &[&str], folder: &Scratch) -> (Output, String) {
    let binary = env!("CARGO_BIN_EXE_cliproxy");
    let out = Command::new(binary)
        .arg("doctor")
        .args(arguments)
        .current_dir(folder.path())
        .env_remove("CLIPROXY_BASE_URL")
        .output()
        .expect("it ends");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    (out, text)
}

fn private(scratch: &Scratch, text: &str) -> String {
    let file = scratch.file("config.yaml", text);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    file.display().to_string()
}

#[test]
fn row_180_an_upstream_that_cannot_be_reached_is_named_with_its_cause_and_the_mend() {
    let upstream = Upstream::start(|_| vec![json(401, "{}")]);
    let scratch = Scratch::new();
    let head = format!("host: 127.0.0.1\nport: {}\napi-keys: [k]\nauth-dir: none\n", free_port());
    let file = private(&scratch, &format!("{head}{}", chat_keys(&upstream.url(), &["one"])));
    let (out, text) = doctor(&["--config", &file], &scratch);
    assert_eq!(out.status.code(), Some(0), "{text}");
    assert!(text.contains("1 credentials serve 1 models") && text.contains("answers ("), "{text}");
    assert!(!text.contains("warning") && !text.contains("failed"), "{text}");

    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let file = private(&scratch, &format!("{head}{}", chat_keys(&nowhere, &["canary-secret"])));
    let (out, text) = doctor(&["--config", &file, "--json"], &scratch);
    assert_eq!(out.status.code(), Some(1), "{text}");
    let said: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(said["ok"], false);
    let logins = said["details"]["logins"].as_array().expect("row 88: how to log in");
    let claude = logins.iter().find(|login| login["provider"] == "claude").expect("Claude");
    assert_eq!(
        (&claude["command"], &claude["callback_port"]),
        (&"cliproxy login claude".into(), &54545.into())
    );
    let findings = said["details"]["findings"].as_array().expect("findings");
    let upstream = findings.iter().find(|finding| finding["topic"] == "upstream").expect("the upstream");
    assert_eq!(upstream["level"], "failed");
    let fact = upstream["fact"].as_str().expect("a fact");
    assert!(nowhere.ends_with(fact.split(' ').next().expect("a host")), "{fact}");
    assert!(upstream["mend"].as_str().is_some_and(|mend| mend.contains("base-url")), "{upstream}");
    assert!(!text.contains("canary"), "{text}");
    let (out, text) = doctor(&["--config", &file, "--offline"], &scratch);
    assert_eq!(out.status.code(), Some(0), "{text}");
}

#[test]
fn mistakes_of_the_machine_are_told_with_what_to_do() {
    let scratch = Scratch::new();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let file = scratch.file("config.yaml", &format!("host: 127.0.0.1\nport: {port}\nauth-dir: auths\n"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("its mode");
    std::fs::create_dir(scratch.path().join("auths")).expect("the folder");
    std::fs::write(scratch.path().join("auths/broken.json"), "{").expect("the file");
    let (out, text) = doctor(&["--offline"], &scratch);
    assert_eq!(out.status.code(), Some(1), "{text}");
    for says in ["chmod 600", "broken.json", "is in use", "no model is served"] {
        assert!(text.contains(says), "{says}: {text}");
    }
    let (out, text) = doctor(&["--config", "missing.yaml"], &scratch);
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.contains("missing.yaml: cannot be read"), "{text}");
}

#[test]
fn row_114_a_wrong_address_is_told_early_with_the_variables_that_hold_it() {
    let scratch = Scratch::new();
    let (out, text) = doctor(&["--base-url", &format!("http://127.0.0.1:{}", free_port())], &scratch);
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.contains("CLIPROXY_BASE_URL") && text.contains("OPENAI_API_BASE"), "{text}");
    let proxy = proxy(&chat_keys("http://127.0.0.1:1", &["one"]));
    let base = format!("http://{}", proxy.address());
    let (out, text) = doctor(&["--base-url", &base, "--key", KEY], &scratch);
    assert_eq!(out.status.code(), Some(0), "{text}");
    let (out, text) = doctor(&["--base-url", &base, "--key", "wrong"], &scratch);
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.contains("answers 401") && !text.contains("wrong"), "{text}");
}
