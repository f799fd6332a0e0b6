//! The commands that ask a running process, as operators and their scripts type them.

use crate::management::{ON, manage};
use crate::reload::until;
use crate::shared::{CHAT, chat_keys, proxy, proxy_with_accounts, whole};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use testkit::proxy::Proxy;
use testkit::scratch::{Scratch, free_port};
use testkit::upstream::{Seen, Upstream, json as json_step};

const SECRET: &str = "mgmt-test";

/// What a command said, and its exit code.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        let parsed = serde_json::from_str(&self.out);
        assert!(parsed.is_ok(), "not JSON: {}{}", self.out, self.err);
        parsed.expect("JSON")
    }
}

/// A command with nothing of the environment that it would look at.
fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cliproxy"));
    command.args(arguments).stdin(Stdio::null());
    for name in ["CLIPROXY_URL", "CLIPROXY_SECRET", "CLIPROXY_SECRET_FILE", "MANAGEMENT_PASSWORD", "PORT"] {
        command.env_remove(name);
    }
    command
}

/// A command that knows where the process is, and its secret.
pub(crate) fn command(proxy: &Proxy, arguments: &[&str]) -> Command {
    let mut command = bare(arguments);
    command.env("CLIPROXY_URL", format!("http://{}", proxy.address())).env("CLIPROXY_SECRET", SECRET);
    command
}

fn said(command: &mut Command) -> Said {
    let out = command.output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = Said { code: out.status.code(), out: text(&out.stdout), err: text(&out.stderr) };
    assert!(!said.out.contains(SECRET) && !said.err.contains(SECRET), "{}{}", said.out, said.err);
    assert!(!said.out.contains('\x1b'), "no colours where nobody looks: {:?}", said.out);
    said
}

fn run(proxy: &Proxy, arguments: &[&str]) -> Said {
    said(&mut command(proxy, arguments))
}

/// An upstream of chats, and of Claude accounts whose refresh token `good` is.
fn upstream() -> Upstream {
    Upstream::start(|seen: &Seen| match seen.path.as_str() {
        "/v1/oauth/token" if seen.json()["refresh_token"] == "good" => {
            vec![json_step(200, r#"{"access_token":"new","refresh_token":"good","expires_in":36000}"#)]
        }
        "/v1/oauth/token" => {
            vec![json_step(400, r#"{"error":"invalid_grant","error_description":"revoked"}"#)]
        }
        path if seen.json()["model"] == "limited" => {
            let _ = path;
            vec![json_step(429, r#"{"error":{"message":"slow down"}}"#)]
        }
        path => whole(path),
    })
}

fn account(upstream: &Upstream, refresh_token: &str) -> String {
    json!({
        "type": "claude", "access_token": "old", "refresh_token": refresh_token, "email": format!("{refresh_token}@x"),
        "base_url": upstream.url(), "expires_at": "2099-01-01T00:00:00Z",
    })
    .to_string()
}

/// Lines of a command that goes on.
struct Lines {
    child: Child,
    coming: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, coming) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, coming, seen: Vec::new() }
    }

    /// How many lines with `what` in them have come.
    fn count(&mut self, what: &str) -> usize {
        self.seen.extend(self.coming.try_iter());
        self.seen.iter().filter(|line| line.contains(what)).count()
    }

    /// Waits for a line with `what` in it.
    fn until(&mut self, what: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.seen.iter().any(|line| line.contains(what)) {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.coming.recv_timeout(left);
            assert!(line.is_ok(), "no {what:?} in {:#?}", self.seen);
            self.seen.extend(line);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn status_says_that_all_is_well_and_which_credential_needs_a_person() {
    let upstream = upstream();
    let accounts = [("claude-a.json", account(&upstream, "good"))];
    let accounts: Vec<(&str, &str)> = accounts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let proxy = proxy_with_accounts(&format!("{ON}{}", chat_keys(&upstream.url(), &["one"])), &accounts);
    assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200);
    let well = run(&proxy, &["status"]);
    assert_eq!(well.code, Some(0), "{}{}", well.out, well.err);
    for says in ["ready", "0 in flight", "1 upstream calls, 0 failed (0.0%)", "PROVIDER", "all is well"] {
        assert!(well.out.contains(says), "{says}: {}", well.out);
    }
    let up = well.out.lines().find(|line| line.starts_with("up ")).expect("the provider");
    assert_eq!(up.split_whitespace().collect::<Vec<_>>(), ["up", "1", "0", "1", "1", "1", "0", "0.0%"]);
    let health = proxy.get("/health").json();
    let json = run(&proxy, &["status", "--json"]).json();
    assert_eq!((&json["ok"], &json["version"]), (&json!(true), &health["version"]), "{json}");
    assert_eq!((&json["requests"], &json["errors"], &json["in_flight"]), (&json!(1), &json!(0), &json!(0)));
    assert_eq!(json["providers"][0]["name"], "claude");

    let ran_out =
        r#"{"type":"claude","access_token":"canary","email":"b@x","expires_at":"2001-01-01T00:00:00Z"}"#;
    assert_eq!(manage(&proxy, "POST", "auth-files?name=claude-b.json", ran_out).head.status, 200);
    let bad = run(&proxy, &["status"]);
    assert_eq!(bad.code, Some(1), "{}{}", bad.out, bad.err);
    assert!(
        bad.out.contains("claude-b.json: its token ran out") && bad.out.contains("-> log in again"),
        "{}",
        bad.out
    );
    let json = run(&proxy, &["--json", "status"]);
    assert_eq!(json.code, Some(2), "--json belongs to the command");
    let json = run(&proxy, &["status", "--json"]).json();
    assert_eq!((&json["ok"], &json["attention"][0]["credential"]), (&json!(false), &json!("claude-b.json")));
}

#[test]
fn what_keeps_a_command_from_asking_is_told_with_what_to_do() {
    let scratch = Scratch::new();
    let proxy = proxy(ON);
    let url = format!("http://{}", proxy.address());
    let right = scratch.file("right", "mgmt-test\n").display().to_string();
    let wrong = scratch.file("wrong", "canary-wrong").display().to_string();
    assert_eq!(said(&mut bare(&["quota", "--url", &url, "--secret-file", &right])).code, Some(0));
    let password = said(bare(&["quota", "--url", &url]).env("MANAGEMENT_PASSWORD", SECRET));
    assert_eq!(password.code, Some(0), "{}", password.err);
    // The configuration says where the process is.
    let here = said(bare(&["quota"]).env("CLIPROXY_SECRET", SECRET).current_dir(proxy.folder()));
    assert_eq!(here.code, Some(0), "{}", here.err);

    let none = said(&mut bare(&["quota", "--url", &url]));
    assert!(
        none.code == Some(1) && none.err.contains("-> put it into the variable CLIPROXY_SECRET"),
        "{}",
        none.err
    );
    let refused = said(&mut bare(&["quota", "--url", &url, "--secret-file", &wrong]));
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
    assert!(
        refused.err.contains("refuses the secret of ") && !refused.err.contains("canary"),
        "{}",
        refused.err
    );
    let mut locked = String::new();
    for _ in 0..6 {
        locked = said(&mut bare(&["quota", "--url", &url, "--secret-file", &wrong])).err;
    }
    assert!(locked.contains("locks this machine out") && locked.contains("-> try again in "), "{locked}");

    let gone = format!("http://127.0.0.1:{}", free_port());
    let down = said(bare(&["status", "--url", &gone, "--json"]).env("CLIPROXY_SECRET", SECRET));
    assert_eq!((down.code, down.out.as_str()), (Some(1), ""));
    assert!(
        down.err.contains(&format!("{gone} does not answer")) && down.err.contains("is it running?"),
        "{}",
        down.err
    );
    let missing = said(&mut bare(&["status", "--url", &url, "--secret-file", "/nowhere/secret"]));
    assert!(missing.code == Some(1) && missing.err.contains("/nowhere/secret"), "{}", missing.err);
}

#[test]
fn management_that_is_off_is_told_as_such_and_so_is_a_stranger() {
    let off = proxy("debug: false\n");
    let told = run(&off, &["accounts", "list"]);
    assert!(told.code == Some(1) && told.err.contains("-> set remote-management.secret-key"), "{}", told.err);
    let stranger = Upstream::start(|_| vec![json_step(404, r#"{"detail":"not here"}"#)]);
    let told = said(bare(&["status", "--url", &stranger.url()]).env("CLIPROXY_SECRET", SECRET));
    assert!(told.code == Some(1) && told.err.contains("is no cliproxy"), "{}", told.err);
}

#[test]
fn row_169_accounts_are_listed_verified_renewed_switched_and_removed() {
    let upstream = upstream();
    let (good, bad) = (account(&upstream, "good"), account(&upstream, "bad"));
    let proxy = proxy_with_accounts(ON, &[("claude-good.json", &good), ("claude-bad.json", &bad)]);
    let list = run(&proxy, &["accounts", "list"]);
    assert_eq!(list.code, Some(0), "{}", list.err);
    let lines: Vec<&str> = list.out.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("NAME"), "{}", list.out);
    assert!(
        lines[2].starts_with("claude-good.json  claude") && lines[2].contains("then renewed"),
        "{}",
        list.out
    );
    let column = lines[0].find("STATUS").expect("a column");
    assert!(lines[1..].iter().all(|line| line[column..].starts_with("active")), "{}", list.out);
    let json = run(&proxy, &["accounts", "list", "good@x", "--json"]).json();
    assert_eq!(json["files"].as_array().map(Vec::len), Some(1), "{json}");
    assert_eq!(json["files"][0]["name"], "claude-good.json");
    let nobody = run(&proxy, &["accounts", "list", "nobody"]);
    assert!(nobody.code == Some(1) && nobody.err.contains("there is no account nobody"), "{}", nobody.err);

    let off = run(&proxy, &["accounts", "disable", "claude-bad.json"]);
    assert!(off.code == Some(0) && off.out.contains("off"), "{}{}", off.out, off.err);
    let verified = run(&proxy, &["accounts", "verify"]);
    assert_eq!(verified.code, Some(0), "{}{}", verified.out, verified.err);
    assert!(verified.err.contains("1/2 claude-bad.json") && verified.err.contains("2/2 claude-good.json"));
    assert!(verified.out.contains("switched off") && verified.out.contains("renewed"), "{}", verified.out);
    let file = std::fs::read_to_string(proxy.folder().join("auths/claude-good.json")).expect("the file");
    assert!(file.contains("\"new\""), "the token was renewed: {file}");
    assert_eq!(run(&proxy, &["accounts", "enable", "claude-bad.json"]).code, Some(0));
    let verified = run(&proxy, &["accounts", "verify", "--json"]);
    assert_eq!(verified.code, Some(1), "{}{}", verified.out, verified.err);
    let json = verified.json();
    assert_eq!(
        (&json["ok"], &json["results"][0]["ok"], &json["results"][1]["ok"]),
        (&json!(false), &json!(false), &json!(true))
    );
    assert!(
        json["results"][0]["error"].as_str().is_some_and(|error| error.contains("not renewed")),
        "{json}"
    );
    assert_eq!(run(&proxy, &["accounts", "refresh", "claude-bad.json"]).code, Some(1));

    let asked = run(&proxy, &["accounts", "remove", "claude-bad.json"]);
    assert!(asked.code == Some(1) && asked.err.contains("add --yes"), "{}", asked.err);
    assert!(proxy.folder().join("auths/claude-bad.json").exists());
    let gone = run(&proxy, &["accounts", "remove", "claude-bad.json", "--yes"]);
    assert_eq!(gone.code, Some(0), "{}{}", gone.out, gone.err);
    assert!(!proxy.folder().join("auths/claude-bad.json").exists());
    assert_eq!(
        run(&proxy, &["accounts", "list", "--json"]).json()["files"].as_array().map(Vec::len),
        Some(1)
    );
}

#[test]
fn quota_that_nobody_told_is_unknown_and_usage_is_summed_up() {
    let upstream = upstream();
    let proxy = proxy(&format!("{ON}{}", chat_keys(&upstream.url(), &["one"])));
    let quota = run(&proxy, &["quota"]);
    assert_eq!(quota.code, Some(0), "{}", quota.err);
    let line = quota.out.lines().nth(1).expect("a credential");
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(&cells[1..5], ["openai-compatibility:up", "all", "?", "-"], "{}", quota.out);
    assert_eq!(run(&proxy, &["quota", "--json"]).json()["quota"][0]["quota_remaining"], Value::Null);

    for _ in 0..3 {
        assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200);
    }
    let asked = || run(&proxy, &["usage", "--by", "model", "--from", "1d", "--json"]).json();
    assert!(until(|| asked()["total"]["requests"] == 3), "{}", asked());
    let usage = run(&proxy, &["usage", "--by", "provider,model"]);
    assert_eq!(usage.code, Some(0), "{}", usage.err);
    let row: Vec<&str> = usage.out.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(&row[..4], ["up", "m", "3", "0"], "{}", usage.out);
    let none = run(&proxy, &["usage", "--model", "other*", "--json"]).json();
    assert_eq!(none["total"]["requests"], 0, "{none}");
    let wrong = run(&proxy, &["usage", "--by", "colour"]);
    assert!(wrong.code == Some(1) && wrong.err.contains("client_key"), "{}", wrong.err);
}

#[test]
fn alerts_fail_the_command_while_one_fires() {
    let upstream = upstream();
    let config = chat_keys(&upstream.url(), &["one"])
        .replace("[{name: m, alias: m}]", "[{name: m}, {name: limited}]\n    disable-cooling: true");
    let proxy = proxy(&format!("{ON}{config}"));
    let calm = run(&proxy, &["alerts"]);
    assert!(calm.code == Some(0) && calm.out.contains("no alert fires"), "{}{}", calm.out, calm.err);
    for _ in 0..15 {
        proxy.post(CHAT.path, &CHAT.body("limited", false));
    }
    assert!(until(|| run(&proxy, &["alerts"]).code == Some(1)));
    let firing = run(&proxy, &["alerts"]);
    assert!(firing.out.contains("critical  firing") && firing.out.contains("429"), "{}", firing.out);
    let json = run(&proxy, &["alerts", "--json"]);
    assert_eq!((json.code, &json.json()["alerts"][0]["subject"]), (Some(1), &json!("up")));
    let status = run(&proxy, &["status"]);
    assert!(status.code == Some(1) && status.out.contains("critical alert: "), "{}", status.out);
}

#[test]
fn a_test_alert_reaches_its_target_or_fails_the_command() {
    let hook = Upstream::start(|_| vec![json_step(200, "{}")]);
    let target = |url: &str| format!("{ON}alerts: {{notify: [{{webhook: '{url}/canary-path'}}]}}\n");
    let there = proxy(&target(&hook.url()));
    let dry = run(&there, &["alerts", "test", "--dry-run"]);
    assert!(
        dry.code == Some(0) && dry.out.contains("webhook") && dry.out.contains("would send"),
        "{}",
        dry.out
    );
    assert!(hook.seen().is_empty(), "nothing was sent");
    let sent = run(&there, &["alerts", "test"]);
    assert!(sent.code == Some(0) && sent.out.contains("delivered"), "{}{}", sent.out, sent.err);
    assert_eq!(hook.seen().len(), 1);
    assert!(!sent.out.contains("canary-path"), "the address of a hook is a secret: {}", sent.out);
    let gone = proxy(&target(&format!("http://127.0.0.1:{}", free_port())));
    let missed = run(&gone, &["alerts", "test", "--json"]);
    assert_eq!((missed.code, &missed.json()["targets"][0]["delivered"]), (Some(1), &json!(false)));
    let nobody = run(&proxy(ON), &["alerts", "test"]);
    assert!(nobody.code == Some(1) && nobody.err.contains("names no target"), "{}", nobody.err);
}

#[test]
fn logs_are_shown_searched_and_followed_over_a_restart_without_a_gap() {
    let mut proxy = proxy(&format!("{ON}logging-to-file: true\n"));
    let ask = |proxy: &Proxy, model: &str| proxy.post(CHAT.path, &CHAT.body(model, false));
    ask(&proxy, "first-of-all");
    let found = || run(&proxy, &["logs", "--grep", "first-of-[a-z]+", "-n", "1"]);
    assert!(until(|| found().out.lines().count() == 1), "{}{}", found().out, found().err);
    let page = run(&proxy, &["logs", "-n", "3", "--json"]).json();
    assert!(page["line-count"].as_u64().is_some_and(|count| (1..=3).contains(&count)), "{page}");
    let mut lines = Lines::start(&mut command(&proxy, &["logs", "-f", "-n", "5"]));
    lines.until("first-of-all");
    ask(&proxy, "second-line");
    lines.until("second-line");
    proxy.kill_and_restart();
    ask(&proxy, "third-line");
    lines.until("third-line");
    for model in ["second-line", "third-line"] {
        let file = proxy.folder().join("logs/main.log");
        let written = || {
            let whole = std::fs::read_to_string(&file).expect("the log");
            whole.lines().filter(|line| line.contains(model)).count()
        };
        assert!(until(|| lines.count(model) == written()), "{model}: {:#?}", lines.seen);
    }
    drop(lines);
    let only = Lines::start(&mut command(&proxy, &["logs", "-f", "-n", "0", "--json", "--grep", "wanted"]));
    // It listens from some moment on that is not seen from here.
    assert!(until(|| {
        ask(&proxy, "a-wanted-one");
        only.coming.try_recv().is_ok_and(|line| {
            let told: Value = serde_json::from_str(&line).expect("JSON");
            told["line"].as_str().is_some_and(|line| line.contains("a-wanted-one"))
        })
    }));
}

#[test]
fn logs_that_go_to_no_file_are_told_with_the_setting() {
    let proxy = proxy(ON);
    let told = run(&proxy, &["logs", "-f"]);
    assert!(told.code == Some(1) && told.err.contains("logging-to-file: true"), "{}", told.err);
}

#[test]
fn top_prints_one_frame_without_a_terminal() {
    let upstream = upstream();
    let proxy = proxy(&format!("{ON}{}", chat_keys(&upstream.url(), &["one", "two"])));
    assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200);
    let frame = run(&proxy, &["top", "--once"]);
    assert_eq!(frame.code, Some(0), "{}", frame.err);
    for says in ["in flight", "PROVIDER", "P95", "CREDENTIAL", "up#1", "up#2", "ready"] {
        assert!(frame.out.contains(says), "{says}: {}", frame.out);
    }
    let json = run(&proxy, &["top", "--once", "--json"]).json();
    assert_eq!(json["credentials"].as_array().map(Vec::len), Some(2), "{json}");
    assert_eq!(json["providers"]["up"]["request_count"], 1);
    let blind = run(&proxy, &["top"]);
    assert!(blind.code == Some(1) && blind.err.contains("add --once"), "{}", blind.err);
}
