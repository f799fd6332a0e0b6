//! `cliproxy usage`: who used how much.
//!
//! Enters: what to tell apart, from when to when, and whose. Leaves: a table with a line of sums below, or the
//! API's JSON. May go wrong: a time or a name that the process does not know; it says which ones it does.

use super::remote::{self, Fault, RemoteArgs, elements, escaped, number, text};
use super::table::{Cell, Paint, Table, colours, count, millis};
use super::{say, say_json};
use serde_json::Value;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Arguments of `cliproxy usage`.
#[derive(clap::Args, Debug)]
pub(super) struct UsageArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// What to tell apart, with commas: hour, day, client_key, credential, provider, model
    #[arg(long, value_name = "NAMES", default_value = "provider,model")]
    by: String,
    /// First hour: 2026-01-31, 2026-01-31T10:00:00Z, seconds since 1970, or how long ago: 24h, 7d
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// First hour that does not count any more
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only this client key (by its name; * stands for anything, as in the three below)
    #[arg(long, value_name = "NAME")]
    client_key: Option<String>,
    /// Only this credential
    #[arg(long, value_name = "NAME")]
    credential: Option<String>,
    /// Only this provider
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Only this model
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
}

/// Asks and prints.
pub(super) fn run(args: &UsageArgs) -> ExitCode {
    remote::with(&args.remote, async |remote| {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let usage = remote.get(&format!("usage?{}", query(args, now_s)?)).await?;
        if args.remote.json {
            say_json(&usage);
        } else {
            let by: Vec<&str> = names(&args.by).collect();
            say(&table(&usage, &by).text(colours()));
        }
        Ok(true)
    })
}

fn names(by: &str) -> impl Iterator<Item = &str> {
    by.split(',').map(str::trim).filter(|name| !name.is_empty())
}

fn query(args: &UsageArgs, now_s: u64) -> Result<String, Fault> {
    let time = |text: &Option<String>| text.as_deref().map(|text| moment(text, now_s)).transpose();
    let by = names(&args.by).collect::<Vec<_>>().join(",");
    let pairs = [
        ("by", Some(by)),
        ("from", time(&args.from)?),
        ("to", time(&args.to)?),
        ("client_key", args.client_key.clone()),
        ("credential", args.credential.clone()),
        ("provider", args.provider.clone()),
        ("model", args.model.clone()),
    ];
    let given = pairs.into_iter().filter_map(|(name, value)| Some((name, value?)));
    Ok(given.map(|(name, value)| format!("{name}={}", escaped(&value))).collect::<Vec<_>>().join("&"))
}

/// A point in time as the process reads it. `24h` and `7d` are so long ago.
fn moment(text: &str, now_s: u64) -> Result<String, Fault> {
    let ago =
        |number: &str, unit: u64| number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    let ago = match text.strip_suffix('h') {
        Some(hours) => Some(ago(hours, 3600)),
        None => text.strip_suffix('d').map(|days| ago(days, 86_400)),
    };
    match ago {
        None => Ok(text.to_owned()),
        Some(Some(seconds)) => Ok(now_s.saturating_sub(seconds).to_string()),
        Some(None) => Err(Fault::Usage {
            what: format!("{text} is no time"),
            mend: "write 24h, 7d, 2026-01-31, 2026-01-31T10:00:00Z or seconds since 1970",
        }),
    }
}

fn table(usage: &Value, by: &[&str]) -> Table {
    let names = by.iter().map(|name| name.to_uppercase().replace('_', " "));
    let sums =
        [">REQUESTS", ">ERRORS", ">INPUT", ">CACHED", ">OUTPUT", ">REASONING", ">LATENCY", ">FIRST EVENT"];
    let head: Vec<String> = names.chain(sums.map(str::to_owned)).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let mut table = Table::new(&head);
    for group in elements(usage, "usage") {
        let cells = by.iter().map(|name| match text(group, name) {
            "" => Cell::painted("-", Paint::Dim),
            name => name.into(),
        });
        table.row(cells.chain(sums_of(group)).collect::<Vec<_>>());
    }
    if let Some(total) = usage.get("total").filter(|_| table.len() != 1) {
        let mut cells: Vec<Cell> = by.iter().map(|_| Cell::default()).collect();
        if let Some(first) = cells.first_mut() {
            *first = Cell::painted("total", Paint::Bold);
        }
        cells.extend(sums_of(total));
        table.row(cells);
    }
    table
}

fn sums_of(sums: &Value) -> [Cell; 8] {
    let (requests, errors) = (number(sums, "requests"), number(sums, "errors"));
    let mean = |sum: &str, of: &str| number(sums, sum).checked_div(number(sums, of));
    [
        count(requests).into(),
        Cell::painted(count(errors), if errors > 0 { Paint::Warn } else { Paint::Plain }),
        count(number(sums, "input_tokens")).into(),
        count(number(sums, "cached_tokens")).into(),
        count(number(sums, "output_tokens")).into(),
        count(number(sums, "reasoning_tokens")).into(),
        millis(mean("latency_ms", "requests")).into(),
        millis(mean("first_event_ms", "first_events")).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;
    use serde_json::json;

    fn args(arguments: &[&str]) -> UsageArgs {
        let all = ["cliproxy", "usage"].into_iter().chain(arguments.iter().copied());
        match Cli::try_parse_from(all).unwrap().command {
            Some(Command::Usage(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn questions_are_escaped_and_times_may_be_so_long_ago() {
        assert_eq!(query(&args(&[]), 0).unwrap(), "by=provider%2Cmodel");
        let asked = args(&["--by", "day, model", "--from", "2d", "--to", "2026-01-31", "--model", "a&b*"]);
        assert_eq!(query(&asked, 200_000).unwrap(), "by=day%2Cmodel&from=27200&to=2026-01-31&model=a%26b*");
        assert_eq!(moment("24h", 86_400).unwrap(), "0");
        assert!(moment("xd", 0).unwrap_err().text().contains("2026-01-31"));
        assert!(moment("99999999999999999999h", 0).is_err());
    }

    #[test]
    fn groups_have_a_line_of_sums_below() {
        let sums = json!({"requests": 2, "errors": 1, "input_tokens": 12_000, "output_tokens": 5, "latency_ms": 3000,
            "first_event_ms": 100, "first_events": 1});
        let mut one = sums.clone();
        one["model"] = "m".into();
        let mut two = json!({"model": ""});
        two["requests"] = 0.into();
        let text = table(&json!({"usage": [one, two], "total": sums}), &["model"]).text(false);
        assert_eq!(
            text,
            "MODEL  REQUESTS  ERRORS  INPUT  CACHED  OUTPUT  REASONING  LATENCY  FIRST EVENT\n\
             m             2       1  12.0k       0       5          0     1.5s        100ms\n\
             -             0       0      0       0       0          0        ?            ?\n\
             total         2       1  12.0k       0       5          0     1.5s        100ms\n"
        );
    }
}
