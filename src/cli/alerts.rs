//! `cliproxy alerts`: what an operator should look at, and whether those who should hear of it do.
//!
//! Enters: the alerts of a process; for `test`, where it tells them. Leaves: tables, or the API's JSON. Exit code
//! 1: an alert fires; for `test`: a target was not reached, or there is none.

use super::remote::{self, Done, Remote, RemoteArgs, elements, text};
use super::status::{is_firing, paint_of};
use super::table::{Cell, Paint, Table, colours, painted};
use super::{complain, say, say_json};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Arguments of `cliproxy alerts`.
#[derive(Args, Debug)]
pub(super) struct AlertsArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    command: Option<AlertsCommand>,
}

#[derive(Debug, Subcommand)]
enum AlertsCommand {
    /// Send a test alert to all targets; exit code 1: one was not reached, or there is none
    Test {
        /// Say what would be sent where, and send nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// Asks and prints.
pub(super) fn run(args: &AlertsArgs) -> ExitCode {
    let json = args.remote.json;
    remote::with(&args.remote, async |remote| match &args.command {
        None => list(remote, json).await,
        Some(AlertsCommand::Test { dry_run }) => test(remote, *dry_run, json).await,
    })
}

async fn list(remote: &Remote, json: bool) -> Done {
    let alerts = remote.get("alerts").await?;
    let all = elements(&alerts, "alerts");
    if json {
        say_json(&alerts);
    } else if all.is_empty() {
        say(&format!("{}\n", painted("no alert fires", Paint::Good, colours())));
    } else {
        say(&table(all).text(colours()));
    }
    Ok(!all.iter().any(is_firing))
}

fn table(alerts: &[Value]) -> Table {
    let mut table = Table::new(&["SEVERITY", "STATUS", "SUBJECT", "ALERT", ">VALUE", ">ABOVE", "SINCE"]);
    for alert in alerts {
        let figure = |key: &str| {
            let known = alert.get(key).and_then(Value::as_f64);
            known.map_or("?".to_owned(), |value| {
                format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
            })
        };
        let since = alert.get("started_at").and_then(Value::as_i64);
        let since = since.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        table.row([
            Cell::painted(text(alert, "severity"), paint_of(alert)),
            text(alert, "status").into(),
            text(alert, "subject").into(),
            text(alert, "title").into(),
            figure("current_value").into(),
            figure("threshold").into(),
            since.map_or("?".to_owned(), |at| at.to_string()).into(),
        ]);
    }
    table
}

async fn test(remote: &Remote, dry_run: bool, json: bool) -> Done {
    if !json && !dry_run {
        complain("telling the targets …");
    }
    let said = remote.send("POST", "alerts/test", &json!({ "dry_run": dry_run })).await?;
    let targets = elements(&said, "targets");
    if json {
        say_json(&said);
    } else if targets.is_empty() {
        complain("nobody is told of alerts: the configuration names no target for them");
    } else {
        say(&told(targets).text(colours()));
    }
    Ok(!targets.is_empty() && !targets.iter().any(is_missed))
}

/// Whether it was tried and not reached.
fn is_missed(target: &Value) -> bool {
    target.get("delivered") == Some(&Value::Bool(false))
}

fn told(targets: &[Value]) -> Table {
    let mut table = Table::new(&["KIND", "TARGET", "FROM", "RESULT", "WHY"]);
    for target in targets {
        let (result, paint) = match target.get("delivered") {
            None => ("would send", Paint::Plain),
            Some(Value::Bool(true)) => ("delivered", Paint::Good),
            Some(_) => ("failed", Paint::Bad),
        };
        table.row([
            text(target, "kind").into(),
            text(target, "target").into(),
            text(target, "min_severity").into(),
            Cell::painted(result, paint),
            text(target, "error").into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_say_who_how_much_and_since_when() {
        let alerts = [
            json!({"severity": "critical", "status": "firing", "subject": "up", "title": "up: refused", "current_value": 0.25,
                "threshold": 0.1, "started_at": 1_795_237_200}),
            json!({"severity": "warning", "status": "resolved", "subject": "m", "title": "m: empty", "current_value": 0.0, "threshold": 1.0}),
        ];
        assert_eq!(
            table(&alerts).text(false),
            "SEVERITY  STATUS    SUBJECT  ALERT        VALUE  ABOVE  SINCE\n\
             critical  firing    up       up: refused   0.25    0.1  2026-11-21T05:00:00Z\n\
             warning   resolved  m        m: empty         0      1  ?\n"
        );
    }

    #[test]
    fn a_target_that_was_not_reached_is_told_with_its_reason() {
        let targets = [
            json!({"kind": "webhook", "target": "https://h/…", "min_severity": "warning", "delivered": true, "error": null}),
            json!({"kind": "command", "target": "notify", "min_severity": "critical", "delivered": false, "error": "no"}),
            json!({"kind": "apprise", "target": "tgram://…", "would_send": {}}),
        ];
        assert_eq!([0, 1, 2].map(|at| is_missed(&targets[at])), [false, true, false]);
        assert_eq!(
            told(&targets).text(false),
            "KIND     TARGET       FROM      RESULT      WHY\n\
             webhook  https://h/…  warning   delivered\n\
             command  notify       critical  failed      no\n\
             apprise  tgram://…              would send\n"
        );
    }
}
