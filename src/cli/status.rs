//! `cliproxy status`: how a running process is.
//!
//! Enters: health, metrics of the providers, alerts, accounts and credentials of a process. Leaves: a summary
//! for people, or one JSON object. Exit code 1: the process leaves, a critical alert fires, a provider has
//! nobody who could serve, or a credential needs a person.

mod attention;

use super::remote::{self, Remote, RemoteArgs, elements, number, text};
use super::table::{Cell, Paint, Table, colours, count, painted, percent, span};
use super::{say, say_json};
use attention::Attention;
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::ExitCode;

/// Seconds that requests and errors are counted over.
const WINDOW_S: u64 = 600;

/// Arguments of `cliproxy status`.
#[derive(clap::Args, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    remote: RemoteArgs,
}

/// What was found out.
#[derive(Debug)]
struct Report {
    base: String,
    health: Value,
    providers: Vec<Provider>,
    in_flight: u64,
    /// Those that fire.
    alerts: Vec<Value>,
    attention: Vec<Attention>,
}

/// A provider.
#[derive(Clone, Debug, Default)]
struct Provider {
    name: String,
    ready: u64,
    cooling: u64,
    total: u64,
    models: u64,
    requests: u64,
    errors: u64,
}

impl Provider {
    fn new(name: &str, metrics: &Value) -> Self {
        let window = metrics.get("window").unwrap_or(&Value::Null);
        Self {
            name: name.to_owned(),
            ready: number(metrics, "auth_ready"),
            cooling: number(metrics, "auth_cooling"),
            total: number(metrics, "auth_total"),
            models: number(metrics, "models"),
            requests: number(window, "request_count"),
            errors: number(window, "failure_count"),
        }
    }

    /// It has credentials that are on, and none of them can serve.
    fn is_out(&self) -> bool {
        self.ready == 0 && self.cooling > 0
    }
}

/// Asks and prints.
pub(super) fn run(args: &StatusArgs) -> ExitCode {
    remote::with(&args.remote, async |remote| {
        let report = ask(remote).await?;
        if args.remote.json {
            say_json(&report.json());
        } else {
            say(&report.table(colours()));
        }
        Ok(report.is_well())
    })
}

async fn ask(remote: &Remote) -> Result<Report, remote::Fault> {
    // The first question that needs the secret: whoever has none hears it before anything else.
    let mut alerts = remote.get("alerts").await?;
    let health = remote.open("/health").await?;
    let metrics = remote.open(&format!("/v1/metrics/providers?window={WINDOW_S}")).await?;
    let files = remote.get("auth-files?format=object").await?;
    let credentials = remote.get("credentials").await?;
    let told = metrics.get("providers").and_then(Value::as_object);
    let providers = told.into_iter().flatten().map(|(name, metrics)| Provider::new(name, metrics)).collect();
    let alerts = alerts.get_mut("alerts").and_then(Value::as_array_mut).map(std::mem::take);
    Ok(Report {
        base: remote.base().to_owned(),
        providers,
        in_flight: number(&credentials, "in_flight"),
        alerts: alerts.unwrap_or_default().into_iter().filter(is_firing).collect(),
        attention: attention::find(elements(&files, "files"), elements(&credentials, "credentials")),
        health,
    })
}

/// Whether an alert is not over.
pub(super) fn is_firing(alert: &Value) -> bool {
    text(alert, "status") != "resolved"
}

/// How an alert looks.
pub(super) fn paint_of(alert: &Value) -> Paint {
    match text(alert, "severity") {
        _ if !is_firing(alert) => Paint::Dim,
        "critical" => Paint::Bad,
        _ => Paint::Warn,
    }
}

impl Report {
    fn is_ready(&self) -> bool {
        text(&self.health, "status") == "ok"
    }

    fn is_well(&self) -> bool {
        self.is_ready()
            && self.attention.is_empty()
            && !self.alerts.iter().any(|alert| text(alert, "severity") == "critical")
            && !self.providers.iter().any(Provider::is_out)
    }

    fn sum(&self, of: fn(&Provider) -> u64) -> u64 {
        self.providers.iter().map(of).sum()
    }

    fn json(&self) -> Value {
        let providers: Vec<Value> = self
            .providers
            .iter()
            .map(|one| {
                json!({
                    "name": one.name, "ready": one.ready, "cooling": one.cooling, "total": one.total,
                    "models": one.models, "requests": one.requests, "errors": one.errors,
                })
            })
            .collect();
        json!({
            "ok": self.is_well(),
            "url": self.base,
            "version": text(&self.health, "version"),
            "uptime_seconds": number(&self.health, "uptime_seconds"),
            "ready": self.is_ready(),
            "models": number(&self.health, "models"),
            "in_flight": self.in_flight,
            "window_seconds": WINDOW_S,
            "requests": self.sum(|one| one.requests),
            "errors": self.sum(|one| one.errors),
            "providers": providers,
            "alerts": self.alerts,
            "attention": self.attention.iter().map(Attention::json).collect::<Vec<_>>(),
        })
    }

    fn table(&self, colours: bool) -> String {
        let up = span(number(&self.health, "uptime_seconds"));
        let (word, paint) = if self.is_ready() { ("ready", Paint::Good) } else { ("leaving", Paint::Bad) };
        let mut out = format!(
            "cliproxy {} on {}, up {up}, {}\n",
            super::table::harmless(text(&self.health, "version")),
            self.base,
            painted(word, paint, colours)
        );
        let (requests, errors) = (self.sum(|one| one.requests), self.sum(|one| one.errors));
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{} in flight; last {} minutes: {} upstream calls, {} failed ({})",
            self.in_flight,
            WINDOW_S / 60,
            count(requests),
            count(errors),
            percent(errors, requests)
        );
        out.push('\n');
        if self.providers.is_empty() {
            out.push_str("no provider is configured\n");
        } else {
            out.push_str(&self.provider_table().text(colours));
        }
        self.alert_lines(&mut out, colours);
        for one in &self.attention {
            let head = painted(&format!("{}: {}", one.credential, one.problem), Paint::Warn, colours);
            let _ = writeln!(out, "{head}\n  -> {}", super::table::harmless(&one.mend));
        }
        if self.is_well() && self.alerts.is_empty() {
            let _ = writeln!(out, "{}", painted("all is well", Paint::Good, colours));
        }
        out
    }

    fn provider_table(&self) -> Table {
        let mut table = Table::new(&[
            "PROVIDER", ">READY", ">COOLING", ">TOTAL", ">MODELS", ">CALLS", ">FAILED", ">ERRORS",
        ]);
        for one in &self.providers {
            let paint = match one {
                one if one.is_out() => Paint::Bad,
                one if one.cooling > 0 => Paint::Warn,
                one if one.total == 0 => Paint::Dim,
                _ => Paint::Good,
            };
            table.row([
                (&*one.name).into(),
                Cell::painted(one.ready.to_string(), paint),
                one.cooling.to_string().into(),
                one.total.to_string().into(),
                one.models.to_string().into(),
                count(one.requests).into(),
                count(one.errors).into(),
                percent(one.errors, one.requests).into(),
            ]);
        }
        table
    }

    fn alert_lines(&self, out: &mut String, colours: bool) {
        out.push('\n');
        for alert in &self.alerts {
            let line = format!("{} alert: {}", text(alert, "severity"), text(alert, "title"));
            out.push_str(&painted(&line, paint_of(alert), colours));
            out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let metrics = json!({"auth_ready": 1, "auth_cooling": 1, "auth_total": 2, "models": 3,
            "window": {"request_count": 40, "failure_count": 10}});
        Report {
            base: "http://h:1".to_owned(),
            health: json!({"status": "ok", "version": "1.2.3", "uptime_seconds": 7500, "models": 3}),
            providers: vec![Provider::new("claude", &metrics)],
            in_flight: 4,
            alerts: Vec::new(),
            attention: Vec::new(),
        }
    }

    #[test]
    fn the_summary_says_what_was_asked_for() {
        let well = report();
        assert_eq!(
            well.table(false),
            "cliproxy 1.2.3 on http://h:1, up 2h 5m, ready\n\
             4 in flight; last 10 minutes: 40 upstream calls, 10 failed (25.0%)\n\n\
             PROVIDER  READY  COOLING  TOTAL  MODELS  CALLS  FAILED  ERRORS\n\
             claude        1        1      2       3     40      10   25.0%\n\n\
             all is well\n"
        );
        let json = well.json();
        assert_eq!(
            (&json["ok"], &json["requests"], &json["version"]),
            (&json!(true), &json!(40), &json!("1.2.3"))
        );
    }

    #[test]
    fn what_needs_a_person_fails_the_command() {
        assert!(report().is_well());
        let mut leaving = report();
        leaving.health["status"] = "draining".into();
        let mut critical = report();
        critical.alerts.push(json!({"severity": "critical", "status": "firing", "title": "many errors"}));
        let mut out = report();
        out.providers[0].ready = 0;
        let mut attention = report();
        attention.attention.push(Attention::new("a.json", "claude", "its login is over", "log in again"));
        for bad in [&leaving, &critical, &out, &attention] {
            assert!(!bad.is_well() && bad.json()["ok"] == json!(false), "{bad:?}");
        }
        assert!(critical.table(false).contains("critical alert: many errors"));
        assert!(attention.table(false).contains("a.json: its login is over\n  -> log in again\n"));
        let mut warning = report();
        warning.alerts.push(json!({"severity": "warning", "status": "firing", "title": "some errors"}));
        assert!(warning.is_well());
    }
}
