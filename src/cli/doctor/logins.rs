//! How to log in to each provider: what `doctor --json` tells tools that guide people.
//!
//! Enters: nothing. Leaves: the table, with the logins of other programs marked as not available here. Nothing
//! may go wrong.

use crate::cli::Cli;
use crate::state::SUPPORTED_CLIENTS;
use clap::CommandFactory;
use wire::json::Array;

/// A way to log in.
#[derive(Debug)]
struct Login {
    provider: &'static str,
    flow: Flow,
    /// Whether this program can do it.
    here: bool,
    /// Port on this machine that the browser is sent back to; `None`: it is not sent back.
    callback_port: Option<u16>,
}

/// How it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// The browser comes back to this machine with a code (OAuth 2.0 with PKCE).
    Code,
    /// A code is typed into a page on any machine (RFC 8628).
    Device,
    /// A page is opened on any machine, and the provider is asked until it is done.
    Poll,
    /// A file is brought along.
    Import,
}

impl Flow {
    fn name(self) -> &'static str {
        match self {
            Self::Code => "authorization-code",
            Self::Device => "device-code",
            Self::Poll => "browser-poll",
            Self::Import => "import",
        }
    }

    /// Where a browser is needed.
    fn browser(self) -> &'static str {
        match self {
            Self::Code => "here",
            Self::Device | Self::Poll => "anywhere",
            Self::Import => "nowhere",
        }
    }
}

const fn ours(provider: &'static str, flow: Flow, callback_port: Option<u16>) -> Login {
    Login { provider, flow, here: true, callback_port }
}

const fn elsewhere(provider: &'static str, flow: Flow, callback_port: Option<u16>) -> Login {
    Login { provider, flow, here: false, callback_port }
}

/// Ports are those that the providers have registered for their own command lines.
const LOGINS: [Login; 14] = [
    ours("claude", Flow::Code, Some(54545)),
    ours("codex", Flow::Code, Some(1455)),
    ours("antigravity", Flow::Code, Some(51121)),
    ours("kimi", Flow::Device, None),
    ours("xai", Flow::Device, None),
    ours("qwen", Flow::Device, None),
    ours("kiro", Flow::Device, None),
    ours("github-copilot", Flow::Device, None),
    elsewhere("vertex", Flow::Import, None),
    elsewhere("iflow", Flow::Code, Some(11451)),
    elsewhere("gitlab", Flow::Code, Some(17171)),
    elsewhere("kilo", Flow::Device, None),
    elsewhere("codebuddy", Flow::Poll, None),
    elsewhere("cursor", Flow::Poll, None),
];

/// The command that logs in to a provider; `None`: this program has none.
pub(in crate::cli) fn command(provider: &str) -> Option<String> {
    let known = LOGINS.iter().any(|login| login.here && login.provider == provider);
    // A build without the command must not promise it.
    let there = known && Cli::command().find_subcommand("login").is_some();
    there.then(|| format!("cliproxy login {provider}"))
}

/// Writes the table.
pub(super) fn write(out: &mut Array<'_>) {
    for login in &LOGINS {
        let command = command(login.provider);
        out.object(|o| {
            o.str("provider", login.provider);
            o.bool("available", command.is_some());
            o.nullable_str("command", command.as_deref());
            o.str("flow", login.flow.name());
            match login.callback_port {
                Some(port) => o.uint("callback_port", port.into()),
                None => o.null("callback_port"),
            }
            o.str("browser", login.flow.browser());
            o.array("supported_clients", |a| SUPPORTED_CLIENTS.iter().for_each(|client| a.str(client)));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_88_every_way_to_log_in_is_told_and_none_that_is_not_there() {
        let mut out = Vec::new();
        wire::json::array(&mut out, write);
        let told: Vec<serde_json::Value> = serde_json::from_slice(&out).unwrap();
        assert_eq!(told.len(), LOGINS.len());
        for login in &told {
            assert_eq!(login["available"], login["command"].is_string(), "{login}");
            assert_eq!(login["callback_port"].is_u64(), login["flow"] == "authorization-code", "{login}");
            assert!(login["supported_clients"].as_array().is_some_and(|clients| clients.len() > 4));
        }
        assert!(command("nobody").is_none());
    }
}
