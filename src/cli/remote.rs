//! The management API of a running process, as commands ask it.
//!
//! Enters: where the process is and the secret, from arguments, the environment or the configuration file.
//! Leaves: JSON answers and streams. May go wrong: every [`Fault`]; its text says what to do. The secret is
//! never in it, and never on the command line, where everybody on the machine could read it.

mod fault;
mod place;

pub(super) use fault::Fault;

use super::{ConfigArgs, complain, runtime};
use crate::state::lanes::Lanes;
use crate::upstream::fetch::{self, Answer, Answering, Question};
use crate::upstream::peer::Lane;
use clap::Args;
use config::{Config, ProxySetting};
use pingora::connectors::http::Connector;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use url::Url;

/// Where management is.
const ROOT: &str = "/v0/management/";
/// Longest wait for what the process knows by itself.
const WITHIN: Duration = Duration::from_secs(20);
/// Longest wait where it asks others first.
const WORK_WITHIN: Duration = Duration::from_secs(90);
/// Most bytes of an answer.
const MOST: usize = 64 << 20;

/// Arguments of all commands that ask a running process.
#[derive(Args, Clone, Debug)]
pub(super) struct RemoteArgs {
    /// Address of the running process [default: host and port of the configuration file]
    #[arg(long, value_name = "URL", env = "CLIPROXY_URL", global = true)]
    url: Option<String>,
    /// File that holds the management secret [default: the variable CLIPROXY_SECRET, then MANAGEMENT_PASSWORD]
    #[arg(long, value_name = "FILE", env = "CLIPROXY_SECRET_FILE", global = true)]
    secret_file: Option<PathBuf>,
    /// As JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// A running process.
pub(super) struct Remote {
    connector: Connector,
    lane: Lane,
    /// Its address, for messages.
    base: String,
    secret: Option<place::Secret>,
}

/// What a command came to: whether all is well, or why it could not be done.
pub(super) type Done = Result<bool, Fault>;

/// Runs a command against the process that the arguments mean. Exit code 1: it could not be done, or it found
/// something wrong.
pub(super) fn with(args: &RemoteArgs, work: impl AsyncFnOnce(&Remote) -> Done) -> ExitCode {
    let remote = match Remote::new(args) {
        Ok(remote) => remote,
        Err(fault) => return told(&fault),
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    let done = runtime.block_on(Box::pin(work(&remote)));
    // A look-up of a name that hangs must not hold the exit back.
    runtime.shutdown_background();
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => told(&fault),
    }
}

fn told(fault: &Fault) -> ExitCode {
    complain(&fault.text());
    ExitCode::FAILURE
}

impl Remote {
    fn new(args: &RemoteArgs) -> Result<Self, Fault> {
        let variable = |name: &str| std::env::var(name).ok();
        let base = place::address(args.url.as_deref(), args.config.config.as_deref())?;
        let secret = place::secret(args.secret_file.as_deref(), variable)?;
        let bad = |reason: String| Fault::Address { base: base.clone(), reason };
        let url = Url::parse(&base).map_err(|e| bad(e.to_string()))?;
        let lane = Lanes::default().to(&url, &ProxySetting::Direct, &Config::default());
        let lane = lane.map_err(|e| bad(e.to_string()))?;
        let shown = format!("{}://{}{}", url.scheme(), lane.authority(), lane.base_path());
        if url.scheme() == "http" && !place::is_here(&url) && secret.is_some() {
            complain(&format!(
                "warning: the secret travels to {shown} in the clear; use https or an SSH tunnel"
            ));
        }
        Ok(Self { connector: Connector::new(None), lane, base: shown, secret })
    }

    /// Its address.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// What an open path says, whatever the status is.
    pub(super) async fn open(&self, path: &str) -> Result<Value, Fault> {
        let answer = self.ask("GET", path, &SecretString::default(), false, WITHIN).await?;
        serde_json::from_slice(&answer.body).map_err(|_| self.stranger(path, answer.status))
    }

    /// What a path below [`ROOT`] says.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Fault> {
        let target = format!("{ROOT}{path}");
        self.said(&self.ask("GET", &target, &SecretString::default(), true, WITHIN).await?, path)
    }

    /// Asks a path below [`ROOT`] to do something.
    pub(super) async fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value, Fault> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let target = format!("{ROOT}{path}");
        self.said(&self.ask(method, &target, &body.into(), true, WORK_WITHIN).await?, path)
    }

    /// Opens a stream below [`ROOT`].
    pub(super) async fn stream(&self, path: &str) -> Result<Answering, Fault> {
        let headers = self.headers(true);
        let target = format!("{}{ROOT}{path}", self.lane.base_path());
        let question =
            Question { method: "GET", target: &target, headers: &headers, body: &SecretString::default() };
        let opened = fetch::open(&self.connector, &self.lane, &question, WITHIN).await;
        let mut answering = opened.map_err(|error| self.unreachable(&error))?;
        if answering.status == 200 {
            return Ok(answering);
        }
        let mut body = Vec::new();
        while let Ok(Some(part)) = answering.next().await {
            body.extend_from_slice(&part);
            if body.len() > MOST {
                break;
            }
        }
        Err(self.refused(answering.status, &body, path))
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        body: &SecretString,
        secret: bool,
        within: Duration,
    ) -> Result<Answer, Fault> {
        let headers = self.headers(secret);
        let target = format!("{}{path}", self.lane.base_path());
        let question = Question { method, target: &target, headers: &headers, body };
        let answer = fetch::ask_within(&self.connector, &self.lane, &question, within, MOST).await;
        answer.map_err(|error| self.unreachable(&error))
    }

    fn headers(&self, secret: bool) -> Vec<(&'static str, SecretString)> {
        let mut headers = vec![("content-type", SecretString::from("application/json"))];
        if let Some(known) = self.secret.as_ref().filter(|_| secret) {
            headers.push(("x-management-key", known.value.expose_secret().into()));
        }
        headers
    }

    fn said(&self, answer: &Answer, path: &str) -> Result<Value, Fault> {
        if !(200..300).contains(&answer.status) {
            return Err(self.refused(answer.status, &answer.body, path));
        }
        serde_json::from_slice(&answer.body).map_err(|_| self.stranger(path, answer.status))
    }

    fn refused(&self, status: u16, body: &[u8], path: &str) -> Fault {
        let said: Option<Value> = serde_json::from_slice(body).ok();
        let Some(said) = said.filter(|said| said.get("error").is_some_and(Value::is_string)) else {
            return self.stranger(path, status);
        };
        let error = said.get("error").and_then(Value::as_str).unwrap_or_default();
        let source = self.secret.as_ref().map(|secret| secret.source.as_str());
        Fault::of(&self.base, status, error, path, source)
    }

    fn stranger(&self, path: &str, status: u16) -> Fault {
        Fault::Stranger { base: self.base.clone(), path: path.to_owned(), status }
    }

    fn unreachable(&self, error: &pingora::Error) -> Fault {
        Fault::Unreachable { base: self.base.clone(), reason: error.etype().as_str().to_owned() }
    }
}

/// A member that is text; empty where there is none.
pub(super) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A member that is a number; 0 where there is none.
pub(super) fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// The elements of a member; none where it is no array.
pub(super) fn elements<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A part of a query string, escaped.
pub(super) fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
