//! `cliproxy login`: from a provider's page to an account's file, without a server.
//!
//! Enters: a provider's name; what the browser brings to a port of this machine, or what is pasted. Leaves:
//! the account's file in the folder of accounts; a proxy that runs takes it at once. May go wrong: the step
//! that the message names; exit code 1, and no file was touched.

use super::serve::read_named;
use super::{ConfigArgs, complain, runtime, say};
use crate::state::State;
use crate::state::accounts::Accounts;
use crate::state::login::Underway;
use crate::state::loopback::{Loopback, Reply};
use clap::Args;
use config::Config;
use pool::login::{Failed, Organisation, Provider, Returned, Wish};
use std::io::BufRead;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What peers have and this program has not, with what to do.
const GONE: [(&str, &str); 2] = [
    ("iflow", "iFlow ended its service on 2026-04-17: there is nothing to log in to"),
    ("gemini-cli", "not here: use a key of AI Studio (gemini-api-key) or log in to antigravity"),
];

/// Arguments of `cliproxy login`.
#[derive(Args, Clone, Debug)]
pub(super) struct LoginArgs {
    /// claude, codex, antigravity, kimi, xai, qwen, kiro or github-copilot
    #[arg(value_name = "PROVIDER", required_unless_present = "named")]
    provider: Option<String>,
    /// The same
    #[arg(long = "provider", value_name = "PROVIDER", hide = true, conflicts_with = "provider")]
    named: Option<String>,
    #[command(flatten)]
    ways: Ways,
    /// By a code that is typed on another machine, where the provider has both
    #[arg(long)]
    device: bool,
    /// Kiro: start page of the company, https://NAME.awsapps.com/start
    #[arg(long, value_name = "URL")]
    start_url: Option<String>,
    /// Kiro: region of AWS of the company
    #[arg(long, value_name = "REGION", requires = "start_url")]
    region: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// How the page is reached, and how it comes back.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Ways {
    /// Open no browser
    #[arg(long)]
    no_browser: bool,
    /// Port of this machine that the browser comes back to [default: the provider's]
    #[arg(long, alias = "oauth-callback-port", value_name = "PORT")]
    callback_port: Option<u16>,
}

/// Logins as flags, as CLIProxyAPI has them.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logins (as `cliproxy login`)")]
pub(super) struct LoginFlags {
    #[command(flatten)]
    ways: Ways,
    /// Log in to Claude
    #[arg(long, group = "login_flag")]
    claude_login: bool,
    /// Log in to Codex
    #[arg(long, group = "login_flag")]
    codex_login: bool,
    /// Log in to Codex by a device code
    #[arg(long, group = "login_flag")]
    codex_device_login: bool,
    /// Log in to Antigravity
    #[arg(long, group = "login_flag")]
    antigravity_login: bool,
    /// Log in to Kimi
    #[arg(long, group = "login_flag")]
    kimi_login: bool,
    /// Log in to xAI
    #[arg(long, group = "login_flag")]
    xai_login: bool,
    #[arg(long, group = "login_flag", hide = true)]
    qwen_login: bool,
    #[arg(long, group = "login_flag", hide = true, alias = "kiro-aws-login")]
    kiro_login: bool,
    #[arg(long, group = "login_flag", hide = true)]
    github_copilot_login: bool,
    #[arg(long, group = "login_flag", hide = true)]
    iflow_login: bool,
}

impl LoginFlags {
    /// The login that a flag means.
    pub(super) fn meant(&self, config: &ConfigArgs) -> Option<LoginArgs> {
        let flags = [
            (self.claude_login, "claude"),
            (self.codex_login || self.codex_device_login, "codex"),
            (self.antigravity_login, "antigravity"),
            (self.kimi_login, "kimi"),
            (self.xai_login, "xai"),
            (self.qwen_login, "qwen"),
            (self.kiro_login, "kiro"),
            (self.github_copilot_login, "github-copilot"),
            (self.iflow_login, "iflow"),
        ];
        let (_, provider) = flags.into_iter().find(|(set, _)| *set)?;
        Some(LoginArgs {
            provider: Some(provider.to_owned()),
            named: None,
            ways: self.ways.clone(),
            device: self.codex_device_login,
            start_url: None,
            region: None,
            config: config.clone(),
        })
    }
}

/// Logs in.
pub(super) fn run(args: &LoginArgs) -> ExitCode {
    let name = args.provider.as_deref().or(args.named.as_deref()).unwrap_or_default();
    let Some(provider) = Provider::named(name) else {
        let gone = GONE.iter().find(|(gone, _)| gone.eq_ignore_ascii_case(name.trim()));
        let known: Vec<_> = Provider::channels().collect();
        let unknown = format!("there is no login to `{name}`; there is one to {}", known.join(", "));
        complain(&gone.map_or(unknown, |(name, why)| format!("{name}: {why}")));
        return ExitCode::FAILURE;
    };
    let (_, config, accounts) = match read_named(args.config.config.as_deref()) {
        Ok(read) => read,
        Err(code) => return code,
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    let organisation = args
        .start_url
        .clone()
        .map(|start_url| Organisation { start_url, region: args.region.clone().unwrap_or_default() });
    let port = args.ways.callback_port;
    let wish = Wish { device: args.device, port, organisation, ..Wish::of(provider) };
    let ended = runtime.block_on(Box::pin(log_in(&wish, &args.ways, config, accounts)));
    // Standard input may still be waited for.
    runtime.shutdown_background();
    match ended {
        Ok(file) => {
            say(&format!("Logged in. The account is in {file}; a proxy that runs takes it at once.\n"));
            ExitCode::SUCCESS
        }
        Err(problem) => {
            complain(&problem);
            ExitCode::FAILURE
        }
    }
}

async fn log_in(wish: &Wish, ways: &Ways, config: Config, accounts: Accounts) -> Result<String, String> {
    let (state, _) = State::new(config, accounts).map_err(|error| error.to_string())?;
    let state = Arc::new(state);
    let told = |failed: Failed| failed.to_string();
    let (login, step) = state.begin_login(wish).map_err(told)?;
    let underway = state.show_login(&state.connector, login, step).await.map_err(told)?;
    let (found, mut back) = mpsc::channel(1);
    let listener = if underway.is_device() { None } else { listen(wish).await };
    say(&page(wish, &underway, listener.as_ref().map(|(_, port)| *port)));
    if !ways.no_browser && open::that_detached(&underway.prompt.url).is_err() {
        say("No browser could be opened; open the page yourself.\n");
    }
    if !underway.is_device() {
        paste(found.clone(), underway.state().to_owned());
    }
    let mine = underway.state().to_owned();
    let path = wish.provider.callback().map_or("", |callback| callback.path);
    let listening = async move {
        let Some((loopback, _)) = listener else { return std::future::pending().await };
        loopback
            .serve(path, |query| {
                let returned = Returned::query(query);
                let is_mine = returned.state.as_deref() == Some(&mine);
                // The first one counts.
                if is_mine && found.try_send(returned).is_ok() { Reply::Taken } else { Reply::Refused }
            })
            .await;
    };
    let name = tokio::select! {
        ended = state.finish_login(&state.connector, underway, async { back.recv().await }) => ended.map_err(told)?,
        () = listening => return Err("the port of the callback was lost".to_owned()),
    };
    Ok(state.accounts_folder().join(name).display().to_string())
}

/// Listens for the browser; where that fails the address can be pasted.
async fn listen(wish: &Wish) -> Option<(Loopback, u16)> {
    let port = wish.port.or_else(|| Some(wish.provider.callback()?.port))?;
    match Loopback::bind(port).await {
        Ok(loopback) => Some((loopback, port)),
        Err(error) => {
            complain(&format!(
                "port {port} of this machine cannot be listened on ({error}): end what uses it, name another one \
                 with --callback-port, or paste the address at which the browser ends"
            ));
            None
        }
    }
}

/// What the user has to do.
fn page(wish: &Wish, underway: &Underway, port: Option<u16>) -> String {
    let open = format!("Open this page and allow the login:\n\n  {}\n\n", underway.prompt.url);
    if let Some(code) = &underway.prompt.user_code {
        let minutes = underway.life_s().div_ceil(60);
        return format!("{open}and type this code there:\n\n  {code}\n\nIt is good for {minutes} minutes.\n");
    }
    let registered = wish.provider.callback().map(|callback| callback.port);
    let tunnel = port.map_or_else(String::new, |port| {
        let registered = registered.unwrap_or(port);
        format!(
            "If the browser runs on another machine, lead its port here before:\n\n  \
             ssh -L {registered}:127.0.0.1:{port} USER@THIS-MACHINE\n\nor "
        )
    });
    format!(
        "{open}{tunnel}paste the address at which the browser ends, also when it says that it cannot be reached:\n"
    )
}

/// Reads addresses from standard input until one is the callback of this login.
fn paste(found: mpsc::Sender<Returned>, mine: String) {
    // Reading cannot be given up: a thread of the runtime would hold the process.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if line.trim().is_empty() {
                continue;
            }
            match Returned::pasted(&line) {
                Ok(returned) if returned.state.as_deref() == Some(&mine) => {
                    // Another one was first.
                    let _ = found.blocking_send(returned);
                    return;
                }
                Ok(_) => complain("that is the address of another login: its state differs"),
                Err(problem) => complain(problem),
            }
        }
    });
}
