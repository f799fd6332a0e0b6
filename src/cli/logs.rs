//! `cliproxy logs`: the log of a running process, and what comes to it.
//!
//! Enters: how many lines, a pattern, whether to go on. Leaves: lines. May go wrong: logs go to no file; while
//! following, the connection ends: then it goes on behind the last line as soon as the process answers again.
//!
//! Following, the live stream only says that there is something new; the lines themselves are read by cursor.
//! So none is missed or told twice, however often the connection ends.

use super::remote::{self, Done, Fault, Remote, RemoteArgs, elements, escaped, text};
use super::table::harmless;
use super::{complain, said, say_json};
use regex::Regex;
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Lines that are looked through for a pattern.
const SEARCHED: usize = 10_000;
/// Longest silence of the stream: it shows every 15 seconds that it lives.
const SILENCE: Duration = Duration::from_mins(1);
/// Wait before the connection is tried again: doubled each time, up to the second.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Arguments of `cliproxy logs`.
#[derive(clap::Args, Debug)]
pub(super) struct LogsArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Go on with what comes
    #[arg(long, short)]
    follow: bool,
    /// Newest lines to begin with
    #[arg(long = "lines", short = 'n', value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u32).range(0..=10_000))]
    lines: u32,
    /// Only lines that match this regular expression
    #[arg(long, value_name = "PATTERN")]
    grep: Option<Regex>,
}

/// Asks and prints.
pub(super) fn run(args: &LogsArgs) -> ExitCode {
    remote::with(&args.remote, async |remote| {
        let page = newest(remote, args).await?;
        if args.follow {
            return follow(remote, args, &page).await;
        }
        if args.remote.json {
            say_json(&page);
        } else {
            show(args, &page);
        }
        Ok(true)
    })
}

/// The newest lines that were asked for.
async fn newest(remote: &Remote, args: &LogsArgs) -> Result<Value, Fault> {
    let wanted = args.lines as usize;
    // With a pattern more has to be looked through. The API takes no 0.
    let limit = if args.grep.is_some() { SEARCHED } else { wanted.max(1) };
    let mut page = remote.get(&format!("logs?limit={limit}")).await?;
    if let Some(lines) = page.get_mut("lines").and_then(Value::as_array_mut) {
        lines.retain(|line| takes(args.grep.as_ref(), line));
        let over = lines.len().saturating_sub(wanted);
        lines.drain(..over);
        let left = lines.len();
        page["line-count"] = left.into();
    }
    Ok(page)
}

fn takes(pattern: Option<&Regex>, line: &Value) -> bool {
    pattern.is_none_or(|pattern| line.as_str().is_some_and(|line| pattern.is_match(line)))
}

/// Prints lines; `false` where nobody reads any more.
fn show(args: &LogsArgs, page: &Value) -> bool {
    let mut out = String::new();
    for line in elements(page, "lines").iter().filter(|line| takes(args.grep.as_ref(), line)) {
        // Writing to a string cannot fail.
        let _ = if args.remote.json && args.follow {
            writeln!(out, "{}", json!({ "line": line }))
        } else {
            writeln!(out, "{}", harmless(line.as_str().unwrap_or_default()))
        };
    }
    said(&out)
}

async fn follow(remote: &Remote, args: &LogsArgs, page: &Value) -> Done {
    if !show(args, page) {
        return Ok(true);
    }
    let mut cursor = text(page, "next-cursor").to_owned();
    let mut wait = AGAIN.0;
    loop {
        let ended = listen(remote, args, &mut cursor, &mut wait).await;
        match ended {
            Ok(()) => return Ok(true),
            Err(fault) if !fault.passes() => return Err(fault),
            Err(fault) => complain(&format!("-- {}; trying again", harmless(&fault.to_string()))),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(AGAIN.1);
    }
}

/// Prints what comes until the connection ends; `Ok`: nobody reads any more.
async fn listen(
    remote: &Remote,
    args: &LogsArgs,
    cursor: &mut String,
    wait: &mut Duration,
) -> Result<(), Fault> {
    let mut stream = remote.stream("logs/stream").await?;
    *wait = AGAIN.0;
    loop {
        // First what came before the stream was open.
        if !catch_up(remote, args, cursor).await? {
            return Ok(());
        }
        let ended =
            |reason: &str| Fault::Unreachable { base: remote.base().to_owned(), reason: reason.to_owned() };
        match tokio::time::timeout(SILENCE, stream.next()).await {
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => return Err(ended("the stream ended")),
            Ok(Err(error)) => return Err(ended(error.etype().as_str())),
            Err(_) => return Err(ended("the stream fell silent")),
        }
    }
}

/// Prints what is behind the cursor; `false` where nobody reads any more.
async fn catch_up(remote: &Remote, args: &LogsArgs, cursor: &mut String) -> Result<bool, Fault> {
    loop {
        let path = match cursor.as_str() {
            "" => "logs".to_owned(),
            cursor => format!("logs?cursor={}", escaped(cursor)),
        };
        let page = remote.get(&path).await?;
        if page.get("cursor-reset") == Some(&Value::Bool(true)) && !cursor.is_empty() {
            complain("-- the log file was removed; lines may be missing");
        }
        let next = text(&page, "next-cursor");
        if !next.is_empty() {
            next.clone_into(cursor);
        }
        if elements(&page, "lines").is_empty() {
            return Ok(true);
        }
        if !show(args, &page) {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn parse(arguments: &[&str]) -> Result<LogsArgs, clap::Error> {
        let all = ["cliproxy", "logs"].into_iter().chain(arguments.iter().copied());
        Cli::try_parse_from(all).map(|cli| match cli.command {
            Some(Command::Logs(args)) => args,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn flags_are_those_of_tail_and_grep() {
        let args = parse(&["-f", "-n", "5", "--grep", "error|429"]).unwrap();
        assert_eq!((args.follow, args.lines), (true, 5));
        let line = |text: &str| Value::from(text);
        assert!(takes(args.grep.as_ref(), &line("a 429 b")) && !takes(args.grep.as_ref(), &line("fine")));
        assert!(takes(None, &line("fine")));
        assert!(parse(&["--grep", "("]).is_err());
        assert!(parse(&["-n", "10001"]).is_err());
    }
}
