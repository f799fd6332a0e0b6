//! `cliproxy explain`: who serves a model, and why each credential is in or out.
//!
//! Enters: a model's name, maybe a client key or its name, the configuration and its accounts. Leaves: a table
//! for people or JSON for scripts. Exit code 1: nobody serves the model, or not for that key. What a running
//! process has learnt (rests, load, errors) is not seen from outside of it, and the answer says so.

use super::serve::read_named;
use super::table::{Table, colours};
use super::{ConfigArgs, complain, say};
use crate::state::keys::{ClientKeys, Holder};
use clap::Args;
use pool::{Explanation, Now, Pool};
use serde::Serialize;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// What is not seen.
const OFFLINE: &str =
    "from the configuration alone: rests, load and errors of a running process are not seen";

#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Model as a client would ask for it, with prefix and thinking suffix
    #[arg(long, short, value_name = "NAME")]
    model: String,
    /// Client key, or its name in the configuration
    #[arg(long, short, value_name = "KEY")]
    key: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    explanation: Explanation,
    key: Option<KeyReport>,
    /// Whether the state of a running process was seen.
    live: bool,
    note: &'static str,
}

/// What a client key has to say.
#[derive(Debug, Serialize)]
struct KeyReport {
    name: String,
    /// Whether it may use the model that serves.
    allowed: bool,
    /// When it stopped to be good, if it did.
    expired: Option<String>,
}

impl Report {
    fn serves(&self) -> bool {
        self.explanation.serves.is_some()
            && self.key.as_ref().is_none_or(|key| key.allowed && key.expired.is_none())
    }
}

/// Prints the explanation.
pub(super) fn run(args: &ExplainArgs) -> ExitCode {
    let (_, config, accounts) = match read_named(args.config.config.as_deref()) {
        Ok(read) => read,
        Err(code) => return code,
    };
    let keys = ClientKeys::new(&config.auth.api_keys, &ClientKeys::default());
    let holder = match args.key.as_deref().map(|key| keys.holder_named(key)) {
        Some(None) => {
            complain("no client key of the configuration is that or has that name");
            return ExitCode::FAILURE;
        }
        found => found.flatten(),
    };
    let (settings, specs) = pool::from_config(&config, &accounts.good);
    let wall_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let explanation = Pool::new(settings, specs).explain(&args.model, Now { mono_ms: 0, wall_s });
    let key = holder.map(|holder| of_key(holder, &explanation, wall_s));
    let report = Report { explanation, key, live: false, note: OFFLINE };
    let text = if args.json {
        serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
    } else {
        // Writing to a string cannot fail.
        table(&report).unwrap_or_default()
    };
    say(&text);
    if report.serves() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn of_key(holder: &Holder, explanation: &Explanation, wall_s: u64) -> KeyReport {
    let model = explanation.serves.as_ref().or(explanation.model.as_ref()).unwrap_or(&explanation.asked);
    KeyReport {
        name: holder.name.to_string(),
        allowed: holder.allows(model),
        expired: holder.expired(wall_s).map(|end| end.to_string()),
    }
}

fn table(report: &Report) -> Result<String, std::fmt::Error> {
    let Explanation { asked, model, serves, instead, .. } = &report.explanation;
    let mut text = match (model, serves, instead) {
        (None, None, _) => format!("nobody has model {asked}"),
        (Some(model), Some(serves), None) if serves == model && model == asked => {
            format!("{asked} is served")
        }
        (Some(model), Some(serves), None) if serves == model => format!("{asked} is served as {model}"),
        (_, Some(serves), why) => format!("{asked} is served by {serves}: {}", why.unwrap_or("its fallback")),
        (Some(model), None, _) => format!("nobody can serve {model}"),
    };
    let explanation = &report.explanation;
    if let Some(thinking) = &explanation.thinking {
        write!(text, ", thinking {thinking}")?;
    }
    text.push('\n');
    if !explanation.closest.is_empty() {
        writeln!(text, "did you mean {}?", explanation.closest.join(" or "))?;
    }
    if let Some(key) = &report.key {
        let says = match (&key.expired, key.allowed) {
            (Some(end), _) => format!("it expired at {end}"),
            (None, true) => "it may use the model".to_owned(),
            (None, false) => "it may not use the model".to_owned(),
        };
        writeln!(text, "key {}: {says}", key.name)?;
    }
    if !explanation.candidates.is_empty() {
        rows(explanation, &mut text)?;
    }
    for fallback in &explanation.fallbacks {
        let says = match (fallback.listed, fallback.ready) {
            (_, true) => "can serve",
            (true, false) => "nobody can serve it now",
            (false, false) => "nobody has it",
        };
        writeln!(text, "fallback {}: {says}", fallback.model)?;
    }
    writeln!(text, "({})", report.note)?;
    Ok(text)
}

/// One line per credential, in columns as wide as they need to be.
fn rows(explanation: &Explanation, text: &mut String) -> std::fmt::Result {
    let mut table =
        Table::new(&["", "CREDENTIAL", "PROVIDER", "UPSTREAM MODEL", "PRIORITY", "WEIGHT", "STANDING"]);
    let strategy = serde_json::to_value(explanation.strategy).unwrap_or_default();
    write!(
        text,
        "strategy {}; * = the next request goes to one of these\n\n",
        strategy.as_str().unwrap_or_default()
    )?;
    for one in &explanation.candidates {
        table.row([
            if one.chosen_from { "*" } else { "" }.into(),
            (&*one.label).into(),
            (&*one.provider).into(),
            one.upstream.join(", ").into(),
            one.priority.to_string().into(),
            one.weight.to_string().into(),
            (&*one.why).into(),
        ]);
    }
    text.push_str(&table.text(colours()));
    text.push('\n');
    Ok(())
}
