//! `cliproxy serve`: the proxy itself.

use super::{BROKEN_CONFIG, ServeArgs, complain, say, version};
use crate::demo::Demo;
use crate::server::upgrade::{self, Taken};
use crate::server::{self, Plan, Process, Setting};
use crate::state::accounts::{self, Accounts};
use crate::state::reload::{self, Watched};
use crate::state::{State, atomic, load, waiting};
use config::Config;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Configuration that is read when none is named.
const DEFAULT_CONFIG: &str = "config.yaml";

/// A configuration, and the embedded provider where it needs it.
struct Loaded {
    config: Config,
    accounts: Accounts,
    origin: String,
    demo: Option<(Demo, String)>,
    /// Its text, where it is in no file.
    text: String,
    /// The file that it came from, to look for changes.
    file: Option<Watched>,
}

/// The file that the arguments mean; `None`: the embedded default.
pub(super) fn config_file(named: Option<&Path>) -> Option<PathBuf> {
    match named {
        Some(file) => Some(file.to_owned()),
        None => Some(PathBuf::from(DEFAULT_CONFIG)).filter(|file| file.is_file()),
    }
}

/// The port that the environment says, which is stronger than the file.
pub(super) fn port_variable() -> Option<u16> {
    std::env::var("PORT").ok()?.parse().ok()
}

/// Reads the configuration file that a command's arguments mean; without one there is nothing to look at.
pub(super) fn read_named(named: Option<&Path>) -> Result<(PathBuf, Config, Accounts), ExitCode> {
    let Some(file) = config_file(named) else {
        complain("there is no config.yaml here; name one with --config, or start without one for the demo");
        return Err(ExitCode::FAILURE);
    };
    let (config, accounts) = read(&file)?;
    Ok((file, config, accounts))
}

/// Reads a configuration file and its accounts; mistakes and warnings go to standard error.
fn read(file: &Path) -> Result<(Config, Accounts), ExitCode> {
    read_to_watch(file).map(|(config, accounts, _)| (config, accounts))
}

/// The same, with the file as it was then: what changes while the process starts is a change.
fn read_to_watch(file: &Path) -> Result<(Config, Accounts, Watched), ExitCode> {
    let name = file.display().to_string();
    let bytes = std::fs::read(file).map_err(|error| {
        complain(&format!("{name}: cannot be read: {error}"));
        ExitCode::from(BROKEN_CONFIG)
    })?;
    match load::load(&bytes, &name) {
        Ok(read) => {
            for warning in &read.warnings {
                complain(&format!("warning: {warning}"));
            }
            let watched = Watched::new(file.to_owned(), bytes, read.stamp);
            Ok((read.config, read.accounts, watched))
        }
        Err(mistakes) => {
            for mistake in &mistakes {
                complain(&format!("error: {mistake}"));
            }
            Err(ExitCode::from(BROKEN_CONFIG))
        }
    }
}

/// Runs the proxy.
pub(super) fn run(args: &ServeArgs) -> ExitCode {
    let loaded = match configuration(args) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    crate::observe::log::configure(&reload::logging(&loaded.config, loaded.file.as_ref().map(Watched::file)));
    let started = start(loaded, port_variable(), args.upgrade);
    crate::observe::log::flush();
    match started {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

fn configuration(args: &ServeArgs) -> Result<Loaded, ExitCode> {
    if let Some(file) = config_file(args.config.config.as_deref()) {
        let origin = file.display().to_string();
        let (config, accounts, watched) = read_to_watch(&file)?;
        let file = Some(watched);
        return Ok(Loaded { config, accounts, origin, demo: None, text: String::new(), file });
    }
    let failed = |error: std::io::Error| {
        complain(&format!("the demo provider cannot start: {error}"));
        ExitCode::FAILURE
    };
    let demo = Demo::bind().map_err(failed)?;
    let key = format!("demo-{}", uuid::Uuid::now_v7().simple());
    let text = demo.config(&key).map_err(failed)?;
    match config::load(text.as_bytes()) {
        Ok(loaded) => Ok(Loaded {
            config: loaded.config,
            accounts: Accounts::default(),
            origin: "built in".to_owned(),
            demo: Some((demo, key)),
            text,
            file: None,
        }),
        Err(broken) => {
            complain(&format!("the built-in configuration is broken: {broken}"));
            Err(ExitCode::FAILURE)
        }
    }
}

/// Waits for the listeners of the running process.
fn take_over(file: Option<&Path>) -> Result<Taken, String> {
    let file = file.ok_or("--upgrade needs the configuration file of the running process")?;
    let place = upgrade::meeting_place(file);
    say(&format!("waiting for the listeners of the running process at {}\n", place.display()));
    Taken::wait(&place).map_err(|e| e.to_string())
}

fn start(loaded: Loaded, port: Option<u16>, upgrade: bool) -> Result<(), String> {
    let Loaded { config, accounts, origin, demo, text: built_in, file } = loaded;
    let taken = if upgrade { Some(take_over(file.as_ref().map(Watched::file))?) } else { None };
    let process = Process::begin().map_err(|e| e.to_string())?;
    let plan = Plan::new(&config, port, taken).map_err(|e| e.to_string())?;
    let (open, templates, tls) =
        (config.auth.api_keys.is_empty(), config.has_template_keys(), config.server.tls.enable);
    let (state, pool) = State::new(config, accounts).map_err(|e| e.to_string())?;
    let base = base_url(&plan, tls);
    let mut text = format!("cliproxy {} on {base} (configuration: {origin})\n", version());
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{} credentials, {} models", pool.credentials, pool.models);
    // The demo serves every model in all formats on purpose.
    for shared in pool.shared.iter().filter(|_| demo.is_none()) {
        let providers: Vec<_> = shared.providers.iter().map(AsRef::as_ref).collect();
        let _ = writeln!(text, "model {} is served by {}", shared.model, providers.join(" and "));
    }
    if let Some(metrics) = &plan.metrics {
        let _ = writeln!(text, "metrics on http://{}/metrics", metrics.address);
    }
    for warning in plan.warnings.iter().chain(&waiting::misread(waiting::variable)) {
        let _ = writeln!(text, "warning: {warning}");
    }
    if open {
        text.push_str(
            "WARNING: api-keys is empty: everyone who reaches this port can use your credentials\n",
        );
    }
    if templates {
        text.push_str("WARNING: api-keys holds a key of the example file: all API paths answer 403\n");
    }
    let demo = demo.map(|(demo, key)| {
        text.push_str(&demo_help(&base, &key));
        demo
    });
    say(&text);
    let state = Arc::new(state);
    let place = file.as_ref().map(|watched| watched.file().to_owned());
    state.config_file.is(place.clone(), &built_in);
    let reload = file.map(|watched| {
        atomic::sweep(&accounts::folder(&state.snapshot.load().config.auth.auth_dir));
        state.keep_in(&reload::beside(watched.file(), "state"));
        state.write_requests();
        reload::watch(watched, &state)
    });
    let setting = Setting { version: version(), reload, file: place };
    let ended = server::run(process, &state, plan, demo, setting).map_err(|e| e.to_string());
    state.flush_requests();
    ended
}

fn base_url(plan: &Plan, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    let Some(address) = plan.listen.first().map(|listener| listener.address) else {
        return scheme.to_owned();
    };
    if address.ip().is_unspecified() {
        format!("{scheme}://127.0.0.1:{}", address.port())
    } else {
        format!("{scheme}://{address}")
    }
}

/// Three requests to paste.
fn demo_help(base: &str, key: &str) -> String {
    format!(
        r#"
No configuration: serving the embedded demo provider. Models: {models}.

  base URL  {base}
  key       {key}

Try it:

  curl -s {base}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{"model":"demo","messages":[{{"role":"user","content":"Hello"}}]}}'

  curl -sN {base}/v1/messages -H 'x-api-key: {key}' -H 'anthropic-version: 2023-06-01' -H 'Content-Type: application/json' -d '{{"model":"demo-think","max_tokens":1024,"stream":true,"messages":[{{"role":"user","content":"Hello"}}]}}'

  curl -sN '{base}/v1beta/models/demo-slow:streamGenerateContent?alt=sse' -H 'x-goog-api-key: {key}' -H 'Content-Type: application/json' -d '{{"contents":[{{"parts":[{{"text":"Hello"}}]}}]}}'

To serve real providers, copy conf/minimal.yaml to config.yaml and edit it.

"#,
        models = crate::demo::script::MODELS.join(", "),
    )
}
