//! The operators' runbooks: each of their shell lines, run as typed against the program.
//!
//! Enters: a line. Leaves: what the shell printed. One process of the program with every kind of credential
//! ([`setup`]) serves all rows that only look; a row that changes something, reads what the double of the
//! providers saw, or wants another configuration has a process of its own. `bash`, `curl`, `jq` and `rg` have to
//! be there: the rows say so when one is not.
//!
//! | file | rows of the checklist |
//! |---|---|
//! | `health.rs` | A: health, inventory, metrics, logs |
//! | `start.rs` | B: versions, containers, start |
//! | `quota.rs` | C: quota and management |
//! | `onboarding.rs` | D: providers and proxies |
//! | `routing.rs` | D: prefixes, aliases, models |
//! | `shapes.rs` | H: bodies and translation |
//! | `streaming.rs` | I: streams, WebSockets, deployment |
//! | `pages.rs` | I: `conf/docs` |
//! | `documents.rs` | the commands of `conf/runbook.md` and the README |
//! | `coverage.rs` | that no row is forgotten |

mod coverage;
mod documents;
mod health;
mod onboarding;
mod pages;
mod quota;
mod routing;
pub(crate) mod setup;
mod shapes;
mod start;
mod streaming;

use crate::reload::until;
use parking_lot::Mutex;
use setup::Setup;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock, Weak};
use testkit::double::Double;
use testkit::proxy::Proxy;
use testkit::scratch::{Scratch, free_port};

/// The program.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_cliproxy");
/// A key of its clients, and the secret of its operator.
pub(crate) const CLIENT_KEY: &str = "client-test";
pub(crate) const SECRET: &str = "mgmt-test";
/// Longest time for a line.
const PATIENCE: &str = "60";

/// What the lines of the checklist take for granted besides the variables of [`Site::shell`].
const PRELUDE: &str = r#"
CK=$KEY; MK=$SECRET
chat() { curl -sS -m 20 -X POST "$B/v1/chat/completions" -H "$A" -H "$J" "$@"; }
code() { curl -sS -m 20 -o /dev/null -w '%{http_code}' "$@"; }
"#;

/// The program with its upstreams, as an operator has it before him.
pub(crate) struct Site {
    proxy: Proxy,
    double: Option<Double>,
    metrics: String,
}

impl Site {
    /// The process that rows share. It lives as long as one of them runs.
    pub(crate) fn shared() -> Arc<Self> {
        static SITE: Mutex<Weak<Site>> = Mutex::new(Weak::new());
        let mut site = SITE.lock();
        site.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Self::own(|_| ()));
            *site = Arc::downgrade(&new);
            new
        })
    }

    /// A process of a row's own; `change` says how its files differ.
    pub(crate) fn own(change: impl FnOnce(&mut Setup)) -> Self {
        Self::with(Double::start, change)
    }

    /// The same, with a double of the row's own, which gets the path of its log.
    pub(crate) fn with(double: impl FnOnce(&Path) -> Double, change: impl FnOnce(&mut Setup)) -> Self {
        let scratch = Scratch::new();
        let folder = scratch.path().to_owned();
        let double = double(&folder.join("double.log"));
        let (port, metrics) = (free_port(), free_port());
        let mut setup = Setup::new(&folder, port, metrics, &double.url());
        change(&mut setup);
        let file = setup.write(&folder);
        std::os::unix::fs::symlink(BINARY, folder.join("cliproxy")).expect("the program can be linked");
        let proxy = Proxy::run(BINARY, &["--config", &file.display().to_string()], port, scratch);
        let site = Self { proxy, double: Some(double), metrics: format!("http://127.0.0.1:{metrics}") };
        // Its hash replaces it; who edits the file before that would lose one of the two changes.
        assert!(until(|| !site.config().contains(SECRET)), "the secret stays readable:\n{}", site.log());
        site
    }

    /// `http://127.0.0.1:port`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.proxy.address())
    }

    /// The process.
    pub(crate) fn proxy(&mut self) -> &mut Proxy {
        &mut self.proxy
    }

    /// What the upstreams saw.
    pub(crate) fn double(&self) -> &Double {
        self.double.as_ref().expect("the upstreams run")
    }

    /// Stops all upstreams.
    pub(crate) fn stop_upstreams(&mut self) {
        self.double = None;
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        self.proxy.folder()
    }

    /// The configuration as it stands.
    pub(crate) fn config(&self) -> String {
        std::fs::read_to_string(self.folder().join("config.yaml")).expect("the configuration")
    }

    /// What it logged: files, and what went to the terminal before they were open.
    pub(crate) fn log(&self) -> String {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.folder().join("logs"))
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        files.sort();
        let text = |file: &PathBuf| std::fs::read_to_string(file).unwrap_or_default();
        files.iter().map(text).chain([self.proxy.log()]).collect()
    }

    /// Types a line into bash in the server's folder.
    pub(crate) fn types(&self, line: &str) -> Typed {
        self.shell(&format!("{PRELUDE}{line}"), PATIENCE)
    }

    /// Types a line until what it prints is `right`; what it printed last.
    pub(crate) fn types_until(&self, line: &str, right: impl Fn(&Typed) -> bool) -> Typed {
        let mut typed = self.types(line);
        until(|| {
            if right(&typed) {
                return true;
            }
            typed = self.types(line);
            false
        });
        typed
    }

    /// Runs a script in the server's folder, for at most so many seconds (then the code is 124). It has
    /// `$B` and `$P` base URL, `$M` that of Prometheus, `$KEY` and `$A` a client's key and header, `$SECRET` and
    /// `$G` the operator's (also where the commands look), `$J` JSON, `$D` the folder, `$PID` the process, `$BIN` and `cliproxy` the program,
    /// `$ML` what the double of the providers saw.
    pub(crate) fn shell(&self, script: &str, seconds: &str) -> Typed {
        assert!(MISSING.is_empty(), "the runbooks need these programs: {}", MISSING.join(", "));
        let folder = self.folder();
        let own = Path::new(BINARY).parent().expect("the program is in a folder").display();
        let path = format!("{own}:{}", std::env::var("PATH").unwrap_or_default());
        let mut bash = Command::new("timeout");
        bash.args([seconds, "bash", "-c", script])
            .current_dir(folder)
            .stdin(Stdio::null())
            .env("PATH", path)
            .env("BIN", BINARY)
            .env("B", self.url())
            .env("P", self.url())
            .env("M", &self.metrics)
            .env("KEY", CLIENT_KEY)
            .env("CLIPROXY_URL", self.url())
            .env("CLIPROXY_SECRET", SECRET)
            .env("A", format!("Authorization: Bearer {CLIENT_KEY}"))
            .env("SECRET", SECRET)
            .env("G", format!("Authorization: Bearer {SECRET}"))
            .env("J", "Content-Type: application/json")
            .env("PID", self.proxy.pid().to_string())
            .env("D", folder)
            .env("ML", folder.join("double.log"));
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            bash.env_remove(name);
        }
        let output = bash.output().expect("bash runs");
        Typed {
            script: script.strip_prefix(PRELUDE).unwrap_or(script).to_owned(),
            rc: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            err: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }
    }
}

/// Programs that are not there.
static MISSING: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let runs = |name: &&str| {
        let asked = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    ["bash", "curl", "jq", "rg", "timeout"].into_iter().filter(|name| !runs(name)).collect()
});

/// What came of a line.
pub(crate) struct Typed {
    script: String,
    /// Exit code of the shell.
    pub rc: i32,
    /// Standard output without the space around it.
    pub out: String,
    /// Standard error, likewise.
    pub err: String,
}

impl std::fmt::Debug for Typed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { script, rc, out, err } = self;
        write!(f, "\n$ {script}\n{out}\nexit code {rc}, standard error: {err}\n")
    }
}

impl Typed {
    /// The output of a line that has to succeed.
    #[track_caller]
    pub(crate) fn ok(&self) -> &str {
        assert_eq!(self.rc, 0, "{self:?}");
        &self.out
    }

    /// The same as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        let value = serde_json::from_str(self.ok());
        assert!(value.is_ok(), "this is no JSON: {self:?}");
        value.expect("it was looked at")
    }

    /// The words of the output of a line that has to succeed.
    #[track_caller]
    pub(crate) fn words(&self) -> Vec<&str> {
        self.ok().split_whitespace().collect()
    }

    /// The output has to be this.
    #[track_caller]
    pub(crate) fn is(&self, out: &str) {
        assert_eq!(self.ok(), out, "{self:?}");
    }
}
