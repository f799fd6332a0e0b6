//! `cliproxy quota`: what is left of each credential, as far as anybody said.
//!
//! Enters: the unified quota view of a process. Leaves: a table, or its JSON. What no upstream said is `?`, never
//! 0. May go wrong: the process cannot be asked.

use super::remote::{self, RemoteArgs, elements, text};
use super::table::{Cell, Paint, Table, colours, span};
use super::{say, say_json};
use serde_json::Value;
use std::process::ExitCode;

/// Arguments of `cliproxy quota`.
#[derive(clap::Args, Debug)]
pub(super) struct QuotaArgs {
    #[command(flatten)]
    remote: RemoteArgs,
}

/// Asks and prints.
pub(super) fn run(args: &QuotaArgs) -> ExitCode {
    remote::with(&args.remote, async |remote| {
        let quota = remote.get("quota").await?;
        if args.remote.json {
            say_json(&quota);
        } else {
            say(&table(elements(&quota, "quota")).text(colours()));
        }
        Ok(true)
    })
}

fn table(quota: &[Value]) -> Table {
    let mut table =
        Table::new(&["CREDENTIAL", "PROVIDER", "MODEL", ">REMAINING", ">RESETS IN", "LOGIN", "RESTS FROM"]);
    for one in quota {
        let off = one.get("disabled") == Some(&Value::Bool(true));
        let remaining = one.get("quota_remaining").and_then(Value::as_f64);
        let reset = one.get("quota_reset_seconds").and_then(Value::as_u64);
        let paint = match remaining {
            _ if off => Paint::Dim,
            None => Paint::Plain,
            Some(left) if left > 0.0 => Paint::Good,
            Some(_) => Paint::Bad,
        };
        let login = match text(one, "refresh_state") {
            "failed" => Cell::painted("over", Paint::Bad),
            "none" | "" => "-".into(),
            other => other.into(),
        };
        table.row([
            text(one, "label").into(),
            text(one, "provider_key").into(),
            one.get("model_id").and_then(Value::as_str).unwrap_or("all").into(),
            Cell::painted(remaining.map_or("?".to_owned(), |left| left.to_string()), paint),
            reset.map_or("-".to_owned(), span).into(),
            login,
            if off { Cell::painted("switched off", Paint::Dim) } else { text(one, "reason").into() },
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_nobody_said_is_a_question_mark() {
        let quota = [
            json!({"label": "a", "provider_key": "claude", "model_id": null, "quota_remaining": null, "refresh_state": "ok"}),
            json!({"label": "b", "provider_key": "kiro", "model_id": "m", "quota_remaining": 0,
                "quota_reset_seconds": 125, "refresh_state": "failed", "reason": "quota"}),
            json!({"label": "c", "provider_key": "kiro", "quota_remaining": 49.5, "disabled": true}),
        ];
        assert_eq!(
            table(&quota).text(false),
            "CREDENTIAL  PROVIDER  MODEL  REMAINING  RESETS IN  LOGIN  RESTS FROM\n\
             a           claude    all            ?          -  ok\n\
             b           kiro      m              0      2m 5s  over   quota\n\
             c           kiro      all         49.5          -  -      switched off\n"
        );
    }
}
