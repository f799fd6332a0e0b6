//! The command line.
//!
//! Enters: arguments and environment. Leaves: an exit code: 0, 1 for what failed, 2 for arguments that
//! clap refuses, 78 for a broken configuration (`EX_CONFIG` of `sysexits.h`). May go wrong: whatever the
//! command does; the message says what to do.
//!
//! `serve`, `check`, `doctor`, `models`, `explain`, `login` and `translate` work on files of this machine; the others ask
//! a running process through its management API (`remote.rs`).

mod accounts;
mod alerts;
mod check;
mod doctor;
mod explain;
mod login;
mod logs;
mod models;
mod quota;
mod remote;
mod serve;
mod status;
mod table;
mod top;
mod translate;
mod usage;

use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit code for a broken configuration.
const BROKEN_CONFIG: u8 = 78;

/// One port in front of every LLM provider.
#[derive(Debug, Parser)]
#[command(name = "cliproxy", version = build(), about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
    #[command(flatten)]
    login: login::LoginFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default)
    Serve(ServeArgs),
    /// Read the configuration and say what is wrong with it; exit code 78 when it is broken
    Check(ConfigArgs),
    /// Say what keeps this machine from serving, and the mend of each cause
    Doctor(doctor::Doctor),
    /// List the models that the configuration serves
    Models(ModelsArgs),
    /// Say who serves a model, and why each credential is in or out
    Explain(explain::ExplainArgs),
    /// Log in to an account of a provider, and keep it in a file
    Login(login::LoginArgs),
    /// Accounts: `cliproxy auth login PROVIDER`
    #[command(subcommand, hide = true)]
    Auth(AuthCommand),
    /// Show what the proxy makes of a request or an answer, from standard input
    Translate(translate::Translate),
    /// Say how a running process is; exit code 1: somebody has to do something
    Status(status::StatusArgs),
    /// Watch a running process: providers and credentials by load
    Top(top::TopArgs),
    /// List, verify, renew, switch off and on, and remove the accounts of a running process
    Accounts(accounts::AccountsArgs),
    /// Show what is left of each credential
    Quota(quota::QuotaArgs),
    /// Show the log of a running process
    Logs(logs::LogsArgs),
    /// Show who used how much
    Usage(usage::UsageArgs),
    /// Show alerts; exit code 1 while one fires
    Alerts(alerts::AlertsArgs),
    /// Print the version
    Version,
}

/// What relatives of this program call it.
#[derive(Debug, Subcommand)]
enum AuthCommand {
    /// Log in to an account of a provider
    Login(login::LoginArgs),
}

#[derive(Args, Clone, Debug)]
struct ConfigArgs {
    /// Configuration file [default: config.yaml in the working folder, where there is one]
    #[arg(long, short, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Take the listeners over from the running process, which has to get SIGQUIT (kill -QUIT PID) now; it
    /// goes on serving until this one does
    #[arg(long)]
    upgrade: bool,
}

#[derive(Args, Debug)]
struct ModelsArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// The version: `git describe` of a release build, or what the build was told in `CLIPROXY_BUILD`.
pub fn version() -> &'static str {
    env!("CLIPROXY_VERSION")
}

/// The version, and the commit and date that it was built from where the build knows them.
fn build() -> &'static str {
    env!("CLIPROXY_VERSION_LINE")
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(long_flags(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come here too, for standard output and code 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let (None, Some(login)) = (&cli.command, cli.login.meant(&cli.serve.config)) {
        return login::run(&login);
    }
    match cli.command {
        None => serve::run(&cli.serve),
        Some(Command::Serve(args)) => serve::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Doctor(args)) => doctor::run(&args),
        Some(Command::Models(args)) => models::run(&args),
        Some(Command::Explain(args)) => explain::run(&args),
        Some(Command::Login(args) | Command::Auth(AuthCommand::Login(args))) => login::run(&args),
        Some(Command::Translate(args)) => translate::run(&args),
        Some(Command::Status(args)) => status::run(&args),
        Some(Command::Top(args)) => top::run(&args),
        Some(Command::Accounts(args)) => accounts::run(&args),
        Some(Command::Quota(args)) => quota::run(&args),
        Some(Command::Logs(args)) => logs::run(&args),
        Some(Command::Usage(args)) => usage::run(&args),
        Some(Command::Alerts(args)) => alerts::run(&args),
        Some(Command::Version) => {
            say(&format!("cliproxy {}\n", build()));
            ExitCode::SUCCESS
        }
    }
}

/// `-config F` is how peers that are written in Go spell `--config F`.
fn long_flags(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    arguments.map(|argument| match argument.to_str() {
        Some(text) if text.len() > 2 && text.starts_with('-') && !text.starts_with("--") => {
            let name = text.get(1..).unwrap_or_default();
            let word = name.split('=').next().unwrap_or_default();
            let is_long = word.len() > 1 && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            if is_long { OsString::from(format!("--{name}")) } else { argument }
        }
        _ => argument,
    })
}

/// Writes to standard output; a closed pipe is no error.
fn say(text: &str) {
    let _ = said(text);
}

/// The same; `false` where nobody reads any more.
fn said(text: &str) -> bool {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// JSON to standard output, as scripts and people read it.
fn say_json(value: &serde_json::Value) {
    say(&(serde_json::to_string_pretty(value).unwrap_or_default() + "\n"));
}

/// Threads for what waits for a network.
fn runtime() -> Result<tokio::runtime::Runtime, ExitCode> {
    // The one that serves chooses its own way in `server`.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    built.map_err(|error| {
        complain(&format!("no threads can be started: {error}"));
        ExitCode::FAILURE
    })
}

/// Writes to standard error.
fn complain(text: &str) {
    use std::io::Write;
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes());
    if !text.ends_with('\n') {
        let _ = out.write_all(b"\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Cli {
        let arguments = std::iter::once("cliproxy").chain(arguments.iter().copied()).map(OsString::from);
        Cli::try_parse_from(long_flags(arguments)).unwrap()
    }

    #[test]
    fn serve_is_the_default_and_single_dashes_are_understood() {
        for arguments in [&["--config", "f"][..], &["-config", "f"], &["-config=f"], &["-c", "f"]] {
            let cli = parse(arguments);
            assert_eq!(cli.serve.config.config.as_deref(), Some("f".as_ref()), "{arguments:?}");
        }
        let Some(Command::Check(check)) = parse(&["check", "--config", "f"]).command else { panic!() };
        assert_eq!(check.config.as_deref(), Some("f".as_ref()));
    }

    #[test]
    fn where_the_process_is_may_stand_before_and_behind_what_is_asked() {
        for arguments in [
            &["accounts", "--url", "http://h", "--json", "list", "a.json"][..],
            &["accounts", "list", "a.json", "--url", "http://h", "--json"],
        ] {
            let Some(Command::Accounts(accounts)) = parse(arguments).command else { panic!() };
            assert!(accounts.remote().json, "{arguments:?}");
        }
        let wrong = ["cliproxy", "status", "--secret", "in-the-clear"].map(OsString::from);
        assert!(Cli::try_parse_from(wrong).is_err(), "everybody could read it in the list of processes");
    }

    #[test]
    fn the_definition_holds() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
