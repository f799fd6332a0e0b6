//! Logins on the command line, without a server.

use crate::logins::query;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use testkit::client::Client;
use testkit::scratch::{Scratch, free_port};
use testkit::upstream::{Upstream, json};

const BINARY: &str = env!("CARGO_BIN_EXE_cliproxy");

/// A login that runs.
struct Run {
    scratch: Scratch,
    child: Child,
    input: ChildStdin,
    /// The page that it named.
    page: String,
}

fn configured(more: &str) -> (Scratch, PathBuf) {
    let scratch = Scratch::new();
    let auths = scratch.path().join("auths");
    let file = scratch.file("config.yaml", &format!("api-keys: [k]\nauth-dir: {}\n{more}", auths.display()));
    (scratch, file)
}

impl Run {
    /// Starts `cliproxy` and waits for the page that it names.
    fn start(config: &str, arguments: &[&str]) -> Self {
        let (scratch, file) = configured(config);
        let mut child = Command::new(BINARY)
            .args(arguments)
            .args(["--no-browser", "--config"])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let input = child.stdin.take().expect("a pipe");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let page = lines.find_map(|line| {
            let line = line.expect("a line");
            line.trim().starts_with("http").then(|| line.trim().to_owned())
        });
        // What it says later is not read: a closed pipe is no error.
        let run = Self { scratch, child, input, page: page.unwrap_or_default() };
        assert!(run.page.starts_with("http"), "no page: {}", String::from_utf8_lossy(&run.end().1.stderr));
        run
    }

    fn state(&self) -> String {
        query(&self.page)["state"].clone()
    }

    fn paste(&mut self, text: &str) {
        writeln!(self.input, "{text}").expect("it reads");
    }

    fn end(self) -> (Scratch, Output) {
        drop(self.input);
        (self.scratch, self.child.wait_with_output().expect("it ends"))
    }
}

fn accounts(scratch: &Scratch) -> Vec<String> {
    let folder = std::fs::read_dir(scratch.path().join("auths")).into_iter().flatten().flatten();
    folder.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn claude() -> Upstream {
    Upstream::start(|_| {
        vec![json(
            200,
            r#"{"access_token":"canary-at","refresh_token":"canary-rt","account":{"email_address":"a@b.test"}}"#,
        )]
    })
}

#[test]
fn p62_a_pasted_address_ends_a_login_and_one_of_another_login_does_not() {
    let upstream = claude();
    let port = free_port().to_string();
    let config = format!("oauth-upstream: {{claude: '{}'}}\n", upstream.url());
    let mut run = Run::start(&config, &["login", "claude", "--callback-port", &port]);
    let state = run.state();
    for other in
        ["junk", "", "canary-code#other", "http://localhost:54545/callback?code=canary-code&state=other"]
    {
        run.paste(other);
    }
    run.paste(&format!("http://localhost:54545/callback?code=canary-code&state={state}"));
    let (scratch, output) = run.end();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("another login") && !text.contains("canary"), "{text}");
    assert_eq!(accounts(&scratch), ["claude-a@b.test.json"]);
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn row_c20_flags_and_commands_reach_the_same_login_and_a_browser_may_bring_the_code() {
    for arguments in [
        &["--claude-login"][..],
        &["-claude-login"],
        &["auth", "login", "anthropic"],
        &["login", "--provider", "claude"],
    ] {
        let upstream = claude();
        let port = free_port();
        let config = format!("oauth-upstream: {{claude: '{}'}}\n", upstream.url());
        let named = port.to_string();
        let run = Run::start(&config, &[arguments, &["--callback-port", &named]].concat());
        assert_eq!(query(&run.page)["redirect_uri"], "http://localhost:54545/callback", "{arguments:?}");
        for (state, status) in [("other".to_owned(), 400), (run.state(), 200)] {
            let mut browser = Client::connect(([127, 0, 0, 1], port).into());
            browser.get(&format!("/callback?code=c&state={state}"), &[]);
            assert_eq!(browser.answer().head.status, status, "{arguments:?}");
        }
        let (scratch, output) = run.end();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(accounts(&scratch), ["claude-a@b.test.json"]);
    }
}

#[test]
fn row_136_a_dead_proxy_is_named_and_its_password_is_not() {
    let (dead, port) = (free_port(), free_port().to_string());
    // The name leads nowhere: who does not use the proxy fails otherwise.
    let config = format!(
        "proxy-url: 'http://user:canary-pw@127.0.0.1:{dead}'\noauth-upstream: {{codex: 'http://provider.invalid'}}\n"
    );
    let mut run = Run::start(&config, &["--codex-login", "--oauth-callback-port", &port]);
    let state = run.state();
    run.paste(&format!("code=canary-code&state={state}"));
    let (scratch, output) = run.end();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("Failed to exchange authorization code for tokens: "), "{text}");
    assert!(text.contains(&format!("127.0.0.1:{dead}")) && !text.contains("canary"), "{text}");
    assert!(accounts(&scratch).is_empty());
}

#[test]
fn what_cannot_be_logged_in_to_is_told() {
    let (_scratch, file) = configured("");
    for (arguments, says) in [
        (&["login", "nobody"][..], "there is one to claude"),
        (&["login", "iflow"], "ended its service"),
        (&["--iflow-login"], "ended its service"),
        (&["login", "kiro", "--start-url", "http://127.0.0.1/"], "start_url"),
        (&["--antigravity-login"], "CLIPROXY_ANTIGRAVITY_CLIENT_SECRET"),
    ] {
        let output = Command::new(BINARY)
            .args(arguments)
            .arg("--config")
            .arg(&file)
            .env_remove("OAUTH_CLIENT_SECRET")
            .stdin(Stdio::null())
            .output()
            .expect("it ends");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && text.contains(says), "{arguments:?}: {text}");
    }
    let output = Command::new(BINARY).arg("login").output().expect("it ends");
    assert_eq!(output.status.code(), Some(2), "a provider is needed");
}
