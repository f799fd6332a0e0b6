//! `cliproxy doctor`: what keeps this machine from serving, and the mend of each cause.
//!
//! Enters: the configuration as `serve` would read it, or the address of a proxy that runs. Leaves: a list of
//! [`Finding`]s, as a table or as JSON; exit code 1 when one is a failure. May go wrong: only the checks;
//! one that cannot be made is a finding itself. Nothing is changed.

mod address;
mod local;
mod logins;
mod reach;

pub(super) use logins::command as login_command;

use super::serve::config_file;
use super::{ConfigArgs, runtime, say};
use std::fmt::Write;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Arguments of `cliproxy doctor`.
#[derive(clap::Args, Debug)]
pub(super) struct Doctor {
    #[command(flatten)]
    config: ConfigArgs,
    /// Ask a proxy that runs here instead of looking at this machine
    #[arg(long, value_name = "URL", env = "CLIPROXY_BASE_URL")]
    base_url: Option<String>,
    /// Client key for --base-url
    #[arg(long, value_name = "KEY", env = "CLIPROXY_API_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Do not ask the upstreams
    #[arg(long)]
    offline: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Fine,
    Warning,
    Failure,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Warning => "warning",
            Self::Failure => "failed",
        }
    }
}

/// What a check found.
#[derive(Clone, Debug)]
struct Finding {
    /// What was looked at: `config`, `accounts`, `listen`, …
    topic: &'static str,
    level: Level,
    /// What is so.
    fact: String,
    /// What to do; empty where nothing is.
    mend: String,
}

impl Finding {
    fn fine(topic: &'static str, fact: impl Into<String>) -> Self {
        Self { topic, level: Level::Fine, fact: fact.into(), mend: String::new() }
    }

    fn warning(topic: &'static str, fact: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { topic, level: Level::Warning, fact: fact.into(), mend: mend.into() }
    }

    fn failure(topic: &'static str, fact: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { topic, level: Level::Failure, fact: fact.into(), mend: mend.into() }
    }
}

/// Looks and prints.
pub(super) fn run(args: &Doctor) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    let findings = if let Some(base) = &args.base_url {
        runtime.block_on(address::ask(base, args.key.as_deref()))
    } else {
        let (mut findings, config) = local::look(config_file(args.config.config.as_deref()).as_deref());
        if let Some((config, specs)) = config.filter(|_| !args.offline) {
            findings.extend(runtime.block_on(reach::look(&config, &specs)));
        }
        findings
    };
    // Look-ups of names that hang must not hold the answer back.
    runtime.shutdown_background();
    let failed = findings.iter().any(|finding| finding.level == Level::Failure);
    say(&if args.json { as_json(&findings, !failed) } else { as_table(&findings) });
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn as_table(findings: &[Finding]) -> String {
    let wide = findings.iter().map(|finding| finding.topic.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:7}  {:wide$}  {}", finding.level.name(), finding.topic, finding.fact);
        if !finding.mend.is_empty() {
            let _ = writeln!(text, "{:7}  {:wide$}  -> {}", "", "", finding.mend);
        }
    }
    text
}

/// The envelope of peers' `doctor --json`.
fn as_json(findings: &[Finding], ok: bool) -> String {
    let mut out = Vec::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    wire::json::object(&mut out, |o| {
        o.str("schema_version", "cliproxyctl.response.v1");
        o.str("command", "doctor");
        o.bool("ok", ok);
        let now = i64::try_from(now.as_secs()).unwrap_or(0);
        o.str("timestamp", &jiff::Timestamp::from_second(now).unwrap_or_default().to_string());
        o.object("details", |o| {
            o.array("findings", |a| {
                for finding in findings {
                    a.object(|o| {
                        o.str("topic", finding.topic);
                        o.str("level", finding.level.name());
                        o.str("fact", &finding.fact);
                        o.str("mend", &finding.mend);
                    });
                }
            });
            o.array("logins", logins::write);
        });
    });
    let mut text = String::from_utf8(out).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mend_stands_below_its_cause() {
        let findings =
            [Finding::fine("config", "fine"), Finding::failure("listen", "taken", "stop the other")];
        assert_eq!(
            as_table(&findings),
            "ok       config  fine\nfailed   listen  taken\n                 -> stop the other\n"
        );
        let json: serde_json::Value = serde_json::from_str(&as_json(&findings, false)).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["details"]["findings"][1]["mend"], "stop the other");
    }
}
