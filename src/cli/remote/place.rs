//! Where a running process is, and what opens its management.
//!
//! Enters: arguments, variables, the configuration file. Leaves: a base URL and a [`Secret`]. May go wrong: a
//! file that cannot be read.

use super::Fault;
use crate::cli::serve::{config_file, port_variable};
use config::Config;
use secrecy::SecretString;
use std::net::IpAddr;
use std::path::Path;
use url::{Host, Url};

/// Variables that may hold the secret, the first one counts.
const VARIABLES: [&str; 2] = ["CLIPROXY_SECRET", "MANAGEMENT_PASSWORD"];
/// Longest file of a secret in bytes.
const LONGEST: u64 = 64 << 10;

/// The management secret.
#[derive(Debug)]
pub(super) struct Secret {
    pub value: SecretString,
    /// Where it comes from, for messages.
    pub source: String,
}

/// The secret of a file, or of a variable.
pub(super) fn secret(
    file: Option<&Path>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Secret>, Fault> {
    let Some(file) = file else {
        let found = VARIABLES.into_iter().find_map(|name| Some((name, variable(name)?.trim().to_owned())));
        let found = found.filter(|(_, value)| !value.is_empty());
        return Ok(found.map(|(name, value)| Secret { value: value.into(), source: name.to_owned() }));
    };
    let source = file.display().to_string();
    let broken = |reason: String| Fault::SecretFile { file: source.clone(), reason };
    let length = std::fs::metadata(file).map_err(|e| broken(e.to_string()))?.len();
    if length > LONGEST {
        return Err(broken("it is too long for a secret".to_owned()));
    }
    let text = std::fs::read_to_string(file).map_err(|e| broken(e.to_string()))?;
    let value = text.trim();
    if value.is_empty() {
        return Err(broken("it is empty".to_owned()));
    }
    Ok(Some(Secret { value: value.into(), source }))
}

/// The address that is named, or that the configuration file says.
pub(super) fn address(named: Option<&str>, file: Option<&Path>) -> Result<String, Fault> {
    if let Some(named) = named {
        return Ok(if named.contains("://") { named.to_owned() } else { format!("http://{named}") });
    }
    let Some(file) = config_file(file) else { return Ok(of(&Config::default(), port_variable())) };
    let name = file.display().to_string();
    let broken = |reason: String| Fault::ConfigFile { file: name.clone(), reason };
    let bytes = std::fs::read(&file).map_err(|e| broken(e.to_string()))?;
    let loaded = config::load(&bytes).map_err(|e| broken(e.to_string()))?;
    Ok(of(&loaded.config, port_variable()))
}

/// The base URL of a process with this configuration, on this machine.
fn of(config: &Config, port: Option<u16>) -> String {
    let server = &config.server;
    let scheme = if server.tls.enable { "https" } else { "http" };
    let host = match server.host.as_str() {
        "" | "0.0.0.0" => "127.0.0.1".to_owned(),
        "::" => "[::1]".to_owned(),
        host if host.parse::<std::net::Ipv6Addr>().is_ok() => format!("[{host}]"),
        host => host.to_owned(),
    };
    format!("{scheme}://{host}:{}", port.unwrap_or(server.port))
}

/// Whether what is sent there stays on this machine.
pub(super) fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).to_canonical().is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use testkit::scratch::Scratch;

    #[test]
    fn the_configuration_says_where_the_process_is() {
        for (text, port, base) in [
            ("", None, "http://127.0.0.1:8317"),
            ("host: ''\nport: 9000\n", None, "http://127.0.0.1:9000"),
            ("host: 0.0.0.0\n", Some(1), "http://127.0.0.1:1"),
            ("host: '::'\n", None, "http://[::1]:8317"),
            ("host: fd00::1\ntls: {enable: true, cert: a, key: b}\n", None, "https://[fd00::1]:8317"),
            ("host: proxy.lan\n", None, "http://proxy.lan:8317"),
        ] {
            let config = config::load(text.as_bytes()).unwrap().config;
            assert_eq!(of(&config, port), base, "{text}");
        }
        assert_eq!(address(Some("host:1"), None).unwrap(), "http://host:1");
        assert_eq!(address(Some("https://host/p"), None).unwrap(), "https://host/p");
        assert!(address(None, Some(Path::new("/nowhere/config.yaml"))).is_err());
    }

    #[test]
    fn a_secret_comes_from_a_file_or_a_variable_and_never_shows() {
        let scratch = Scratch::new();
        let file = scratch.file("secret", " canary-f \n");
        let both = |name: &str| Some(format!("canary-{name}"));
        let of_file = secret(Some(&file), both).unwrap().unwrap();
        assert_eq!(of_file.value.expose_secret(), "canary-f");
        assert!(!format!("{of_file:?}").contains("canary-f"));
        let first = secret(None, both).unwrap().unwrap();
        assert_eq!(first.value.expose_secret(), "canary-CLIPROXY_SECRET");
        let second = |name: &str| (name == "MANAGEMENT_PASSWORD").then(|| "p".to_owned());
        assert_eq!(secret(None, second).unwrap().unwrap().source, "MANAGEMENT_PASSWORD");
        assert!(secret(None, |_| None).unwrap().is_none());
        assert!(secret(Some(&scratch.file("empty", "\n")), both).is_err());
        assert!(secret(Some(&scratch.path().join("missing")), both).is_err());
    }

    #[test]
    fn only_this_machine_gets_the_secret_in_the_clear_without_a_word() {
        for (url, here) in [
            ("http://127.0.0.1:8317", true),
            ("http://[::1]:8317", true),
            ("http://localhost", true),
            ("http://10.0.0.1", false),
            ("http://proxy.lan", false),
        ] {
            assert_eq!(is_here(&Url::parse(url).unwrap()), here, "{url}");
        }
    }
}
