//! `cliproxy accounts`: the account files of a running process.
//!
//! Enters: names of accounts and what to do with them. Leaves: a table, or a JSON object; progress of long work
//! on standard error. Exit code 1: one of them failed, or there is no such account. Everything goes through the
//! management API; no file is touched from here.

mod verify;

use super::remote::{self, Done, Fault, Remote, RemoteArgs, elements, escaped, number, text};
use super::table::{Cell, Paint, Table, colours, harmless, span};
use super::{complain, say, say_json};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

/// Arguments of `cliproxy accounts`.
#[derive(Args, Debug)]
pub(super) struct AccountsArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    command: AccountsCommand,
}

#[cfg(test)]
impl AccountsArgs {
    pub(super) fn remote(&self) -> &RemoteArgs {
        &self.remote
    }
}

#[derive(Debug, Subcommand)]
enum AccountsCommand {
    /// List accounts, also those that cannot serve, with the reason
    List(Names),
    /// Renew the token of each account and ask what it may use; exit code 1 when one failed
    Verify(Names),
    /// Renew tokens now; without a name those of all accounts that can be renewed
    Refresh(Names),
    /// Switch accounts off: they stay, and serve no more
    Disable(SomeNames),
    /// Switch accounts on
    Enable(SomeNames),
    /// Delete account files; asks first
    Remove {
        #[command(flatten)]
        names: SomeNames,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Args, Debug)]
struct Names {
    /// File names, addresses of owners or indices [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Args, Debug)]
struct SomeNames {
    /// File names, addresses of owners or indices
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// What was done to an account.
#[derive(Clone, Debug, Default)]
struct Outcome {
    name: String,
    provider: String,
    /// Why it failed, if it did.
    error: Option<String>,
    /// What was done or found out, in a word or two; for `verify` one for each column.
    notes: Vec<String>,
}

/// Asks, does and prints.
pub(super) fn run(args: &AccountsArgs) -> ExitCode {
    let json = args.remote.json;
    remote::with(&args.remote, async |remote| match &args.command {
        AccountsCommand::List(names) => list(remote, &names.names, json).await,
        AccountsCommand::Verify(asked) => {
            let accounts = chosen(remote, &asked.names).await?;
            let named = !asked.names.is_empty();
            let outcomes = each(&accounts, async |one| verify::verify(remote, one, named).await).await;
            Ok(finish(&outcomes, &verify::COLUMNS, json))
        }
        AccountsCommand::Refresh(names) => {
            let mut accounts = chosen(remote, &names.names).await?;
            if names.names.is_empty() {
                accounts.retain(is_renewable);
            }
            let outcomes = each(&accounts, async |one| refresh(remote, one).await).await;
            Ok(finish(&outcomes, &["TOKEN"], json))
        }
        AccountsCommand::Disable(names) => switch(remote, &names.names, true, json).await,
        AccountsCommand::Enable(names) => switch(remote, &names.names, false, json).await,
        AccountsCommand::Remove { names, yes } => remove(remote, &names.names, *yes, json).await,
    })
}

/// The accounts that are named; all where none is.
async fn chosen(remote: &Remote, names: &[String]) -> Result<Vec<Value>, Fault> {
    let all = remote.get("auth-files?format=object").await?;
    pick(elements(&all, "files"), names)
}

/// Each name has to mean one account: a file name, a whole path, an index, or its owner's address.
fn pick(all: &[Value], names: &[String]) -> Result<Vec<Value>, Fault> {
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    let mut picked: Vec<Value> = Vec::new();
    for name in names {
        let by = |keys: &[&str]| -> Vec<&Value> {
            all.iter().filter(|one| keys.iter().any(|key| text(one, key) == name)).collect()
        };
        let exact = by(&["name", "path", "auth_index"]);
        let found = if exact.is_empty() { by(&["label", "account", "email"]) } else { exact };
        match found.as_slice() {
            [one] if picked.iter().all(|known| known != *one) => picked.push((*one).clone()),
            [_] => {}
            [] => {
                return Err(Fault::Usage {
                    what: format!("there is no account {name}"),
                    mend: "`cliproxy accounts list` shows their names",
                });
            }
            several => {
                let files: Vec<&str> = several.iter().map(|one| text(one, "name")).collect();
                return Err(Fault::Usage {
                    what: format!("{name} may mean {}", files.join(" or ")),
                    mend: "write the file name",
                });
            }
        }
    }
    Ok(picked)
}

/// Does work on one after the other, and says where it is.
async fn each(accounts: &[Value], work: impl AsyncFn(&Value) -> Outcome) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for (at, account) in accounts.iter().enumerate() {
        complain(&format!("{}/{} {}", at + 1, accounts.len(), harmless(text(account, "name"))));
        outcomes.push(work(account).await);
    }
    outcomes
}

impl Outcome {
    fn new(account: &Value, done: Result<Vec<String>, String>) -> Self {
        let (notes, error) = match done {
            Ok(notes) => (notes, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let text = |key| text(account, key).to_owned();
        Self { name: text("name"), provider: text("provider"), error, notes }
    }

    fn json(&self, columns: &[&str]) -> Value {
        let mut one = json!({
            "name": self.name,
            "provider": self.provider,
            "ok": self.error.is_none(),
            "error": self.error,
        });
        for (column, note) in columns.iter().zip(&self.notes) {
            one[column.to_lowercase()] = note.as_str().into();
        }
        one
    }
}

/// Prints outcomes; whether all went well.
fn finish(outcomes: &[Outcome], columns: &[&str], json: bool) -> bool {
    let ok = outcomes.iter().all(|one| one.error.is_none());
    if json {
        let results: Vec<Value> = outcomes.iter().map(|one| one.json(columns)).collect();
        say_json(&json!({ "ok": ok, "results": results }));
    } else if outcomes.is_empty() {
        complain("there is no account to do this with");
    } else {
        say(&outcome_table(outcomes, columns).text(colours()));
    }
    ok
}

fn outcome_table(outcomes: &[Outcome], columns: &[&str]) -> Table {
    let head: Vec<&str> = ["NAME", "PROVIDER", "RESULT"].iter().chain(columns).copied().collect();
    let mut table = Table::new(&head);
    for one in outcomes {
        let mut cells = vec![Cell::from(&*one.name), Cell::from(&*one.provider)];
        if let Some(error) = &one.error {
            cells.push(Cell::painted("failed", Paint::Bad));
            cells.push(error.as_str().into());
        } else {
            cells.push(Cell::painted("ok", Paint::Good));
            cells.extend(one.notes.iter().map(|note| note.as_str().into()));
        }
        table.row(cells);
    }
    table
}

async fn list(remote: &Remote, names: &[String], json: bool) -> Done {
    let accounts = chosen(remote, names).await?;
    if json {
        say_json(&json!({ "files": accounts }));
    } else if accounts.is_empty() {
        complain("there is no account; put files into auth-dir, or upload them");
    } else {
        say(&account_table(&accounts, jiff::Timestamp::now()).text(colours()));
    }
    Ok(true)
}

fn account_table(accounts: &[Value], now: jiff::Timestamp) -> Table {
    let mut table = Table::new(&[
        "NAME", "PROVIDER", "OWNER", "STATUS", "TOKEN", ">MODELS", ">GOOD", ">FAILED", "REMARK",
    ]);
    for one in accounts {
        let (name, owner) = (text(one, "name"), text(one, "label"));
        let status = text(one, "status");
        let paint = match status {
            "active" => Paint::Good,
            "disabled" => Paint::Dim,
            _ => Paint::Bad,
        };
        table.row([
            name.into(),
            text(one, "provider").into(),
            if owner == name { "" } else { owner }.into(),
            Cell::painted(status, paint),
            token(one, now),
            number(one, "models").to_string().into(),
            number(one, "success").to_string().into(),
            number(one, "failed").to_string().into(),
            text(one, "status_message").into(),
        ]);
    }
    table
}

/// How long a token lasts, and whether it is renewed by itself.
fn token(account: &Value, now: jiff::Timestamp) -> Cell {
    let ends = text(account, "expires_at").parse::<jiff::Timestamp>().ok();
    let left = ends.map(|ends| ends.as_second() - now.as_second());
    match (text(account, "refresh_state"), left) {
        ("failed", _) => Cell::painted("not renewed", Paint::Bad),
        ("none", Some(..=0)) => Cell::painted("ran out", Paint::Bad),
        (state, Some(left)) => {
            let left = span(left.max(0).unsigned_abs());
            if state == "none" { format!("{left}, then over") } else { format!("{left}, then renewed") }
                .into()
        }
        ("none", None) => Cell::painted("-", Paint::Dim),
        (_, None) => "renewed".into(),
    }
}

/// Whether there is something that renews its token.
fn is_renewable(account: &Value) -> bool {
    !matches!(text(account, "refresh_state"), "none" | "")
}

async fn refresh(remote: &Remote, account: &Value) -> Outcome {
    let body = json!({ "name": text(account, "name") });
    let done = remote.send("POST", "auth-files/refresh", &body).await;
    Outcome::new(account, done.map(|_| vec!["renewed".to_owned()]).map_err(|fault| fault.reason()))
}

async fn switch(remote: &Remote, names: &[String], off: bool, json: bool) -> Done {
    let word = if off { "off" } else { "on" };
    let mut outcomes = Vec::new();
    for account in chosen(remote, names).await? {
        let body = json!({ "name": text(&account, "name"), "disabled": off });
        let done = remote.send("PATCH", "auth-files/status", &body).await;
        let done = done.map(|_| vec![word.to_owned()]).map_err(|fault| fault.reason());
        outcomes.push(Outcome::new(&account, done));
    }
    Ok(finish(&outcomes, &["SWITCHED"], json))
}

async fn remove(remote: &Remote, names: &[String], yes: bool, json: bool) -> Done {
    let accounts = chosen(remote, names).await?;
    if !yes && !confirmed(&accounts)? {
        complain("nothing was removed");
        return Ok(false);
    }
    let mut outcomes = Vec::new();
    for account in accounts {
        let path = format!("auth-files?name={}", escaped(text(&account, "name")));
        let done = remote.send("DELETE", &path, &Value::Null).await;
        let done = done.map(|_| vec!["gone".to_owned()]).map_err(|fault| fault.reason());
        outcomes.push(Outcome::new(&account, done));
    }
    Ok(finish(&outcomes, &["FILE"], json))
}

/// Whether somebody at the terminal agrees.
fn confirmed(accounts: &[Value]) -> Result<bool, Fault> {
    let mut input = std::io::stdin().lock();
    if !input.is_terminal() {
        return Err(Fault::Usage {
            what: "nobody is there to be asked whether the files shall be deleted".to_owned(),
            mend: "add --yes",
        });
    }
    for account in accounts {
        complain(&format!("  {} ({})", harmless(text(account, "name")), harmless(text(account, "provider"))));
    }
    let mut out = std::io::stderr().lock();
    let asked = write!(out, "Delete {} for ever? [y/N] ", files(accounts.len())).and_then(|()| out.flush());
    let mut answer = String::new();
    if asked.is_err() || input.read_line(&mut answer).is_err() {
        return Ok(false);
    }
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

fn files(number: usize) -> String {
    if number == 1 { "this file".to_owned() } else { format!("these {number} files") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Vec<Value> {
        vec![
            json!({"name": "claude-a.json", "path": "/auths/claude-a.json", "auth_index": "0123", "provider": "claude",
                "label": "a@b", "account": "a@b", "status": "active", "refresh_state": "ok",
                "expires_at": "2026-01-01T02:00:00Z", "models": 9, "success": 5, "failed": 1}),
            json!({"name": "codex-a.json", "label": "a@b", "provider": "codex", "status": "disabled", "refresh_state": "none"}),
            json!({"name": "x.json", "label": "x.json", "provider": "unknown", "status": "error",
                "status_message": "invalid JSON at 1", "refresh_state": "none"}),
        ]
    }

    #[test]
    fn a_name_means_one_account_or_none() {
        let all = accounts();
        let pick = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            pick(&all, &names)
                .map(|found| found.iter().map(|one| text(one, "name").to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(pick(&[]).unwrap().len(), 3);
        for name in ["claude-a.json", "/auths/claude-a.json", "0123"] {
            assert_eq!(pick(&[name, name]).unwrap(), ["claude-a.json"], "{name}");
        }
        assert!(pick(&["a@b"]).unwrap_err().text().contains("claude-a.json or codex-a.json"));
        assert!(pick(&["x.json", "nobody"]).unwrap_err().text().contains("there is no account nobody"));
    }

    #[test]
    fn row_115_the_list_says_how_each_account_stands() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(
            account_table(&accounts(), now).text(false),
            "NAME           PROVIDER  OWNER  STATUS    TOKEN                MODELS  GOOD  FAILED  REMARK\n\
             claude-a.json  claude    a@b    active    2h 0m, then renewed       9     5       1\n\
             codex-a.json   codex     a@b    disabled  -                         0     0       0\n\
             x.json         unknown          error     -                         0     0       0  invalid JSON at 1\n"
        );
        let ran_out = json!({"refresh_state": "none", "expires_at": "2025-01-01T00:00:00Z"});
        let mut table = Table::new(&["T"]);
        table.row([token(&ran_out, now)]);
        assert!(table.text(false).contains("ran out"));
    }

    #[test]
    fn outcomes_are_told_by_account() {
        let all = accounts();
        let outcomes = [
            Outcome::new(&all[0], Ok(vec!["renewed".to_owned()])),
            Outcome::new(&all[2], Err("no".to_owned())),
        ];
        let text = outcome_table(&outcomes, &["TOKEN"]).text(false);
        assert!(text.contains("claude-a.json  claude    ok      renewed\n"), "{text}");
        assert!(text.contains("x.json         unknown   failed  no\n"), "{text}");
        assert_eq!(
            outcomes[1].json(&["TOKEN"]),
            json!({"name": "x.json", "provider": "unknown", "ok": false, "error": "no"})
        );
        assert_eq!(outcomes[0].json(&["TOKEN"])["token"], "renewed");
    }
}
