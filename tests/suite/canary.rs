//! No secret leaves: marked ones go through every place that takes one, then everything that comes out is
//! searched for them.

use crate::management::send;
use crate::reload::until;
use crate::shared::{CHAT, stream};
use crate::shared::{FORMATS, wants_stream, whole};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use testkit::client::Answer;
use testkit::proxy::Proxy;
use testkit::upstream::{Seen, Step, Upstream, chunk, chunk_end, stream_head};

const BINARY: &str = env!("CARGO_BIN_EXE_cliproxy");
const DOCUMENT: &str = include_str!("../../conf/management.openapi.json");
/// What every mark begins with; a digit follows.
const MARK: &str = "cnry";
/// How many marks there are.
const MARKS: usize = 44;

/// The secret number `n`: no part of it may be seen anywhere.
fn mark(n: usize) -> String {
    assert!((1..=MARKS).contains(&n), "{n}");
    format!("{MARK}{n:02}k9Xw3vZ7pLmQ2tB4")
}

/// The first mark in a text.
fn found(text: &str) -> Option<String> {
    let is_mark =
        |(at, _): &(usize, &str)| text.as_bytes().get(at + MARK.len()).is_some_and(u8::is_ascii_digit);
    let at = text.match_indices(MARK).find(is_mark)?.0;
    let begin = text.floor_char_boundary(at.saturating_sub(200));
    let end = text.floor_char_boundary((at + 60).min(text.len()));
    text.get(begin..end).map(str::to_owned)
}

/// A configuration with a mark in every place that takes a secret.
fn config(url: &str) -> String {
    let m = mark;
    format!(
        "debug: true\nlogging-to-file: true\nrequest-log: true\nmetrics: {{listen: '127.0.0.1:METRICS'}}\n\
         remote-management: {{secret-key: {management}}}\nusage-statistics-enabled: true\n\
         api-keys:\n  - {client}\n  - api-key: {second}\n    name: second\n\
         openai-compatibility:\n  - name: up\n    prefix: up\n    base-url: {url}/v1\n    headers: {{X-Own: {header}}}\n    api-key-entries: [{{api-key: {up}}}, {{api-key: {up2}}}]\n    models: [{{name: ok}}, {{name: e401}}, {{name: e403}}, {{name: e429}}, {{name: e500}}, {{name: e200}}, {{name: cut}}, {{name: garbage}}]\n\
         \x20 - name: dead\n    prefix: dead\n    base-url: {url}/v1\n    api-key-entries: [{{api-key: {dead}, proxy-url: 'http://u:{dead_proxy}@127.0.0.1:1'}}]\n    models: [{{name: ok}}]\n\
         \x20 - name: strange\n    prefix: strange\n    base-url: {url}/v1\n    api-key-entries: [{{api-key: {strange}, proxy-url: 'ftp://u:{strange_proxy}@127.0.0.1:1'}}]\n    models: [{{name: ok}}]\n\
         claude-api-key: [{{api-key: {claude}, base-url: '{url}/claude', prefix: claude, models: [{{name: ok}}, {{name: e401}}, {{name: e429}}]}}]\n\
         codex-api-key: [{{api-key: {codex}, base-url: '{url}/responses', prefix: codex, models: [{{name: ok}}, {{name: e401}}]}}]\n\
         gemini-api-key: [{{api-key: {gemini}, base-url: '{url}/gemini', prefix: gemini, models: [{{name: ok}}, {{name: e403}}]}}]\n\
         vertex-api-key: [{{api-key: {vertex}, base-url: '{url}/gemini', prefix: vertex, models: [{{name: ok}}]}}]\n\
         xai-api-key: [{{api-key: {xai}, base-url: '{url}/v1', prefix: xai}}]\n\
         groq: [{{api-key: {groq}, base-url: '{url}/v1', prefix: groq}}]\n\
         ampcode: {{upstream-api-key: {amp}}}\n\
         oauth-upstream: {{kimi: '{url}/x', qwen: '{url}/x', xai: '{url}/x', kiro: '{url}/x', github-copilot: '{url}/x'}}\n",
        management = m(1),
        client = m(2),
        second = m(3),
        header = m(4),
        up = m(5),
        up2 = m(6),
        dead = m(7),
        dead_proxy = m(8),
        strange = m(9),
        strange_proxy = m(10),
        claude = m(11),
        codex = m(12),
        gemini = m(13),
        vertex = m(14),
        xai = m(15),
        groq = m(16),
        amp = m(17),
    )
}

/// Accounts, each with marks in all that is secret of it.
fn accounts(url: &str) -> Vec<(&'static str, String)> {
    let m = mark;
    let account = |kind: &str, more: &str| {
        format!(
            r#"{{"type":"{kind}","prefix":"{kind}-file","base_url":"{url}/{kind}","expired":"2020-01-01T00:00:00Z",{more}}}"#
        )
    };
    let tokens = |a: usize, r: usize| format!(r#""access_token":"{}","refresh_token":"{}""#, m(a), m(r));
    vec![
        ("claude-a.json", account("claude", &tokens(18, 19))),
        (
            "codex-a.json",
            account(
                "codex",
                &format!(r#"{},"id_token":"eyJhbGciOiJub25lIn0.e30.{}""#, tokens(20, 21), m(22)),
            ),
        ),
        (
            "kiro-a.json",
            account(
                "kiro",
                &format!(
                    r#"{},"auth_method":"idc","client_id":"id","client_secret":"{}","region":"us-east-1""#,
                    tokens(23, 24),
                    m(25)
                ),
            ),
        ),
        ("antigravity-a.json", account("antigravity", &format!(r#"{},"project_id":"p""#, tokens(26, 27)))),
        ("qwen-a.json", account("qwen", &tokens(28, 29))),
        ("github-copilot-a.json", account("github-copilot", &format!(r#""access_token":"{}""#, m(30)))),
        ("gemini-a.json", account("gemini", &format!(r#""api_key":"{}""#, m(31)))),
        ("iflow-a.json", account("iflow", &format!(r#""api_key":"{}","cookie":"BXAuth={}""#, m(32), m(33)))),
        (
            "vertex-a.json",
            account(
                "vertex",
                &format!(
                    r#""service_account":{{"client_email":"a@b","project_id":"p","private_key":"-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n"}}"#,
                    m(34)
                ),
            ),
        ),
        (
            "kimi-a.json",
            account("kimi", &format!(r#"{},"proxy_url":"http://u:{}@127.0.0.1:1""#, tokens(35, 36), m(37))),
        ),
        ("broken.json", format!(r#"{{"type":"claude","access_token":"{}",,"#, m(38))),
    ]
}

/// An upstream that repeats in its refusals whatever it was sent, and sets cookies.
fn upstream() -> Upstream {
    let renewals = AtomicUsize::new(0);
    Upstream::start(move |seen| {
        let path = seen.path.to_lowercase();
        if path.contains("token") || path.contains("refresh") || path.contains("oauth") {
            // Every second renewal works, and what it gives is a secret as well.
            if renewals.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                return vec![echo(400, seen)];
            }
            let (token, refresh) = (mark(39), mark(40));
            return vec![testkit::upstream::json(
                200,
                &format!(
                    r#"{{"access_token":"{token}","accessToken":"{token}","refresh_token":"{refresh}","refreshToken":"{refresh}","expires_in":3600,"expiresIn":3600}}"#
                ),
            )];
        }
        let text = String::from_utf8_lossy(&seen.body);
        let asks = |model: &str| text.contains(model) || path.contains(model);
        match () {
            () if asks("e401") || path.contains("-file") => vec![echo(401, seen)],
            () if asks("e403") => vec![echo(403, seen)],
            () if asks("e429") => vec![echo(429, seen)],
            () if asks("e500") => vec![echo(500, seen)],
            () if asks("e200") && wants_stream(seen) => vec![
                stream_head(),
                chunk(&format!("data: {{\"error\":{{\"message\":\"you sent {}\"}}}}\n\n", bearer(seen))),
                chunk_end(),
            ],
            () if asks("e200") => vec![echo(200, seen)],
            () if asks("garbage") => {
                vec![Step::send(format!("{} is no answer\r\n\r\n", mark(41))), Step::Close]
            }
            () if asks("cut") => {
                let mut steps = stream(&seen.path);
                steps.truncate(2);
                steps.push(Step::Reset);
                steps
            }
            () if ["/claude/", "/responses", "/gemini", "/v1/chat"].iter().any(|own| path.contains(own)) => {
                if wants_stream(seen) {
                    stream(&seen.path)
                } else {
                    whole(&seen.path)
                }
            }
            () => vec![echo(401, seen)],
        }
    })
}

fn bearer(seen: &Seen) -> &str {
    seen.header("authorization").unwrap_or_default()
}

/// A refusal with everything in it that came.
fn echo(status: u16, seen: &Seen) -> Step {
    let headers: String = seen.headers.iter().map(|(name, value)| format!("{name}: {value}; ")).collect();
    let told = format!("you sent {} {headers} {}", seen.path, String::from_utf8_lossy(&seen.body));
    let body = serde_json::json!({"error": {"message": told, "type": "invalid_grant"}}).to_string();
    Step::send(format!(
        "HTTP/1.1 {status} No\r\ncontent-type: application/json\r\nset-cookie: session={}\r\nwww-authenticate: Bearer realm=\"{}\"\r\ncontent-length: {}\r\n\r\n{body}",
        mark(42),
        mark(42),
        body.len()
    ))
}

/// What came out, by where.
#[derive(Default)]
struct Out(Vec<(String, String)>);

impl Out {
    fn answer(&mut self, place: &str, answer: &Answer) {
        let headers: String =
            answer.head.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        self.0.push((place.to_owned(), format!("{}\n{headers}\n{}", answer.head.status, answer.text())));
    }

    fn files(&mut self, folder: &Path, own: &[PathBuf]) {
        for entry in std::fs::read_dir(folder).expect("the folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.files(&path, own);
            } else if !own.contains(&path) && path.is_file() {
                let bytes = std::fs::read(&path).expect("the file");
                self.0.push((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
    }

    fn command(&mut self, proxy: &Proxy, arguments: &[&str]) {
        let done = Command::new(BINARY)
            .args(arguments)
            .env("MANAGEMENT_PASSWORD", mark(43))
            .current_dir(proxy.folder())
            .output()
            .expect("the command runs");
        let text = [done.stdout, done.stderr].concat();
        self.0.push((format!("cliproxy {arguments:?}"), String::from_utf8_lossy(&text).into_owned()));
    }
}

/// Requests of clients: all formats, good and bad models, right and wrong keys.
fn traffic(proxy: &Proxy, out: &mut Out) {
    let key = format!("Bearer {}", mark(2));
    let listed = send(proxy, "GET", "/v1/models", &[("authorization", &key)], "");
    let models: Vec<String> = listed.json()["data"]
        .as_array()
        .expect("models")
        .iter()
        .filter_map(|model| model["id"].as_str().map(str::to_owned))
        .collect();
    let own = ["up/", "dead/", "strange/", "claude/", "codex/", "gemini/", "vertex/", "xai/", "groq/"];
    let mut one_of_each: Vec<&String> = Vec::new();
    for model in &models {
        let prefix = model.split('/').next().unwrap_or_default();
        let listed = |known: &&&String| known.starts_with(&format!("{prefix}/"));
        let all = own.iter().take(7).any(|own| model.starts_with(own));
        if all || one_of_each.iter().filter(listed).count() < 2 {
            one_of_each.push(model);
        }
    }
    assert!(one_of_each.len() > 25, "{models:?}");
    for model in one_of_each {
        for (n, format) in FORMATS.iter().enumerate() {
            for streams in [false, true] {
                let headers = [
                    ("authorization", format!("Bearer {}", mark(2 + n % 2))),
                    ("cookie", format!("session={}", mark(44))),
                    ("proxy-authorization", format!("Basic {}", mark(44))),
                ];
                let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let body = format.body(model, streams);
                let answer = send(proxy, "POST", &format.target(model, streams), &headers, &body);
                out.answer(&format!("{} {model} {streams}", format.name), &answer);
            }
        }
    }
    for path in ["/v1/models", "/v1/chat/completions", "/nothing", "/v1beta/models", "/health"] {
        for (name, value) in [
            ("authorization", format!("Bearer {}", mark(44))),
            ("x-api-key", mark(44)),
            ("x-goog-api-key", mark(44)),
        ] {
            let answer = send(proxy, "POST", path, &[(name, &value)], &CHAT.body("m", false));
            out.answer(&format!("wrong key {path}"), &answer);
        }
        out.answer(
            "wrong key in the query",
            &send(proxy, "GET", &format!("{path}?key={}", mark(44)), &[], ""),
        );
        let broken = format!(r#"{{"model":"up/ok","api_key":"{}","#, mark(44));
        let key = format!("Bearer {}", mark(2));
        out.answer("broken body", &send(proxy, "POST", path, &[("authorization", &key)], &broken));
    }
}

/// All routes of the document, asked well and badly.
fn routes(proxy: &Proxy, out: &mut Out) {
    let document: Value = serde_json::from_str(DOCUMENT).expect("the document");
    let secret = mark(43);
    for (path, item) in document["paths"].as_object().expect("paths") {
        let is_file = ["config.yaml", "auth-files/download"].iter().any(|file| path.ends_with(file));
        let goes_on =
            path.ends_with("/events") || path.ends_with("logs/stream") || path.ends_with("logs/tail");
        for method in item.as_object().expect("methods").keys().map(|method| method.to_uppercase()) {
            if (is_file && method == "GET") || goes_on || method == "DELETE" {
                continue;
            }
            let path = path.replace("{provider}", "claude").replace("{name}", "none.log");
            let path = path.replace("{channel}", "claude").replace("{id}", "none");
            for query in ["", "?name=claude-a.json", "?name=broken.json", "?model=up/ok", "?lines=1000"] {
                // What is right in form and wrong in kind: settings stay as they are.
                let body = match method.as_str() {
                    "GET" => String::new(),
                    _ => format!(
                        r#"{{"name":"none-{0}.json","value":{{"{0}":["{0}"]}},"index":99,"state":"{0}"}}"#,
                        mark(44)
                    ),
                };
                let headers = [("x-management-key", secret.as_str())];
                let answer = send(proxy, &method, &format!("{path}{query}"), &headers, &body);
                assert_ne!(answer.head.status, 401, "{method} {path}: {}", answer.text());
                out.answer(&format!("{method} {path}{query}"), &answer);
            }
        }
    }
}

#[test]
fn p53_marked_secrets_are_found_nowhere_outside_their_files() {
    let upstream = upstream();
    let metrics = testkit::scratch::free_port();
    let accounts = accounts(&upstream.url());
    let accounts: Vec<_> = accounts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let text = config(&upstream.url()).replace("METRICS", &metrics.to_string());
    for n in 1..=38 {
        let is_there = text.contains(&mark(n)) || accounts.iter().any(|(_, text)| text.contains(&mark(n)));
        assert!(is_there, "mark {n} is set");
    }
    let proxy = Proxy::start_in(BINARY, &text, &accounts, &[("MANAGEMENT_PASSWORD", &mark(43))]);
    let file = proxy.folder().join("config.yaml");
    assert!(until(|| std::fs::read_to_string(&file).is_ok_and(|text| text.contains("$2b$"))));
    let mut out = Out::default();
    traffic(&proxy, &mut out);
    routes(&proxy, &mut out);
    // A configuration that is broken is told without what stands in it.
    let good = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, format!("{good}claude-api-key: {}\nproxy-url: [{}\n", mark(44), mark(44)))
        .expect("written");
    assert!(until(|| proxy.log().contains("config") || proxy.folder().join("logs").is_dir()));
    out.command(&proxy, &["check", "--config", "config.yaml"]);
    std::fs::write(&file, good).expect("written");
    for arguments in [
        &["check", "--config", "config.yaml"][..],
        &["models", "--config", "config.yaml", "--json"],
        &["explain", "--config", "config.yaml", "--model", "up/ok", "--json"],
        &["doctor", "--config", "config.yaml", "--json"],
        &["--version"],
        &["serve", "--config", &mark(44)],
    ] {
        out.command(&proxy, arguments);
    }
    let mut scrape = testkit::client::Client::connect(([127, 0, 0, 1], metrics).into());
    scrape.get("/metrics", &[]);
    out.answer("prometheus", &scrape.answer());
    written_files(&proxy, &mut out);
    let leaks: Vec<_> = out
        .0
        .iter()
        .filter_map(|(place, text)| Some(format!("{place}: …{}…", found(text)?)))
        // A path that was named on the command line is named in the answer.
        .filter(|leak| !leak.starts_with("cliproxy [\"serve\""))
        .collect();
    let logs = out.0.iter().filter(|(place, _)| place.contains("/logs/"));
    let logged: usize = logs.map(|(_, text)| text.len()).sum();
    assert!(out.0.len() > 500 && logged > 20_000, "{} places, {logged} bytes of logs", out.0.len());
    assert!(leaks.is_empty(), "{} of {} places:\n{}", leaks.len(), out.0.len(), leaks.join("\n"));
}

/// Every file that the process wrote, but those that are the secrets' own.
fn written_files(proxy: &Proxy, out: &mut Out) {
    let folder = proxy.folder();
    let mut own = vec![folder.join("config.yaml")];
    own.extend(std::fs::read_dir(folder.join("auths")).expect("accounts").flatten().map(|e| e.path()));
    // Lines are written behind the requests.
    std::thread::sleep(std::time::Duration::from_millis(500));
    out.files(folder, &own);
}
