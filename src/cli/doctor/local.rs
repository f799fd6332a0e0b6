//! What can be seen without a network: configuration, keys, accounts, addresses, files.
//!
//! Enters: the configuration file. Leaves: findings, and what the upstreams are asked with where the
//! configuration can be used. May go wrong: nothing.

use super::Finding;
use crate::cli::serve::port_variable;
use crate::state::accounts::{self, Accounts};
use crate::state::{load, reload};
use config::Config;
use pool::CredentialSpec;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Fewest open files that thousands of streams need: two per stream.
const OPEN_FILES: u64 = 8192;

/// Looks at everything; `file` is `None` where there is no configuration.
pub(super) fn look(file: Option<&Path>) -> (Vec<Finding>, Option<(Config, Vec<CredentialSpec>)>) {
    let mut found = Vec::new();
    let Some(file) = file else {
        found.push(Finding::warning(
            "config",
            "there is no config.yaml here: `cliproxy` would serve its demo provider only",
            "copy conf/minimal.yaml to config.yaml and edit it, or name a file with --config",
        ));
        found.extend(open_files());
        return (found, None);
    };
    let Some((config, accounts)) = read(file, &mut found) else { return (found, None) };
    keys(&config, &mut found);
    let specs = credentials(file, &config, &accounts, &mut found);
    listen(&config, &mut found);
    found.extend(open_files());
    logs(&config, file, &mut found);
    (found, Some((config, specs)))
}

/// Reads the file as `serve` does, with all that it names.
fn read(file: &Path, found: &mut Vec<Finding>) -> Option<(Config, Accounts)> {
    let name = file.display().to_string();
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            let mend = "name the right file with --config, or give this user the right to read it";
            found.push(Finding::failure("config", format!("{name}: cannot be read: {error}"), mend));
            return None;
        }
    };
    readable_by_others(file, found);
    match load::load(&bytes, &name) {
        Ok(read) => {
            let mend = "mend what it names, or take it out where it is not needed";
            found.extend(read.warnings.iter().map(|text| Finding::warning("config", text, mend)));
            found.push(Finding::fine("config", format!("{name} is read")));
            Some((read.config, read.accounts))
        }
        Err(mistakes) => {
            found.extend(mistakes.into_iter().map(|text| Finding::failure("config", text, "mend the line")));
            None
        }
    }
}

/// A file with secrets is its owner's.
fn readable_by_others(file: &Path, found: &mut Vec<Finding>) {
    let mode = std::fs::metadata(file).map_or(0, |facts| facts.permissions().mode());
    if mode & 0o077 != 0 {
        let fact =
            format!("{} holds secrets and others may read it (mode {:o})", file.display(), mode & 0o777);
        found.push(Finding::warning("config", fact, format!("chmod 600 {}", file.display())));
    }
}

fn keys(config: &Config, found: &mut Vec<Finding>) {
    let host = config.server.host.as_str();
    let private = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if config.has_template_keys() {
        let fact = "api-keys holds a key of the example file: all API paths answer 403";
        found.push(Finding::failure("keys", fact, "replace it by a key of your own"));
    } else if config.auth.api_keys.is_empty() && !private {
        let fact = "api-keys is empty: everyone who reaches this machine can use your credentials";
        found.push(Finding::warning("keys", fact, "set api-keys, or host: 127.0.0.1"));
    } else {
        found.push(Finding::fine("keys", format!("{} client keys", config.auth.api_keys.len())));
    }
}

fn credentials(
    file: &Path,
    config: &Config,
    accounts: &Accounts,
    found: &mut Vec<Finding>,
) -> Vec<CredentialSpec> {
    let (settings, specs) = pool::from_config(config, &accounts.good);
    let loaded = pool::Pool::default().update(settings, specs.clone());
    if loaded.models == 0 {
        let folder = accounts::folder(&config.auth.auth_dir);
        let mend = format!("add a provider to {} or an account to {}", file.display(), folder.display());
        found.push(Finding::failure("credentials", "no model is served", mend));
    } else {
        let fact = format!("{} credentials serve {} models", loaded.credentials, loaded.models);
        found.push(Finding::fine("credentials", fact));
    }
    for shared in &loaded.shared {
        let providers: Vec<_> = shared.providers.iter().map(AsRef::as_ref).collect();
        let fact = format!(
            "{} is served by {}: the higher priority first, then by the strategy over all",
            shared.model,
            providers.join(" and ")
        );
        found.push(Finding::fine("names", fact));
    }
    specs
}

fn listen(config: &Config, found: &mut Vec<Finding>) {
    let server = &config.server;
    let host = server.host.as_str();
    let port = port_variable().unwrap_or(server.port);
    let place = if host.is_empty() { format!("port {port}") } else { format!("{host}:{port}") };
    let ask = if host.is_empty() { "0.0.0.0" } else { host };
    let bound = (ask, port).to_socket_addrs().and_then(|addresses| {
        let addresses: Vec<_> = addresses.collect();
        TcpListener::bind(addresses.as_slice())
    });
    match bound {
        Ok(_) => found.push(Finding::fine("listen", format!("{place} is free"))),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let fact = format!("{place} is in use, maybe by a cliproxy that runs");
            let mend = format!("cliproxy doctor --base-url http://127.0.0.1:{port} says whether it is one");
            found.push(Finding::warning("listen", fact, mend));
        }
        Err(error) => {
            let mend = "change `host` or `port`; ports below 1024 need a privilege";
            found.push(Finding::failure("listen", format!("{place}: {error}"), mend));
        }
    }
}

/// How many files the process may open; nothing where the system does not say.
fn open_files() -> Option<Finding> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    let hard = line.split_whitespace().nth(4)?;
    let most: u64 = if hard == "unlimited" { u64::MAX } else { hard.parse().ok()? };
    Some(if most < OPEN_FILES {
        let fact = format!("at most {most} open files: enough for about {} streams", most / 2);
        Finding::warning(
            "limits",
            fact,
            "raise the hard limit: LimitNOFILE=65536 (systemd), ulimit -Hn 65536",
        )
    } else {
        Finding::fine("limits", format!("{hard} open files"))
    })
}

fn logs(config: &Config, file: &Path, found: &mut Vec<Finding>) {
    let Some(folder) = reload::logging(config, Some(file)).folder else { return };
    let probe = folder.join(format!(".doctor-{}", std::process::id()));
    let made = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&probe, ""));
    let _ = std::fs::remove_file(&probe);
    found.push(match made {
        Ok(()) => Finding::fine("logs", format!("{} can be written", folder.display())),
        Err(error) => {
            let fact = format!("{}: {error}", folder.display());
            Finding::failure("logs", fact, "give this user the right to write there, or set log-dir")
        }
    });
}
