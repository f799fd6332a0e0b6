//! How to log in to each provider: what `doctor --json` tells tools that guide people.
//!
//! Enters: what `cliproxy login` knows. Leaves: the table, with the logins of other programs marked as not
//! available here. Nothing may go wrong.

use crate::state::SUPPORTED_CLIENTS;
use pool::login::Provider;
use wire::json::Array;

/// A way to log in.
#[derive(Debug)]
struct Login {
    provider: &'static str,
    /// The command; `None`: this program has none.
    command: Option<String>,
    flow: Flow,
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

/// What is logged in to elsewhere. Ports are those that the providers have registered for their own command
/// lines.
const ELSEWHERE: [(&str, Flow, Option<u16>); 6] = [
    ("vertex", Flow::Import, None),
    ("iflow", Flow::Code, Some(11451)),
    ("gitlab", Flow::Code, Some(17171)),
    ("kilo", Flow::Device, None),
    ("codebuddy", Flow::Poll, None),
    ("cursor", Flow::Poll, None),
];

/// All ways, those of this program first.
fn logins() -> Vec<Login> {
    let mut all: Vec<Login> = Vec::new();
    for provider in Provider::channels() {
        let callback_port =
            Provider::named(provider).and_then(Provider::callback).map(|callback| callback.port);
        let flow = if callback_port.is_some() { Flow::Code } else { Flow::Device };
        all.push(Login { provider, command: command(provider), flow, callback_port });
        if provider == Provider::Codex.channel() {
            let command = command(provider).map(|command| format!("{command} --device"));
            all.push(Login { provider, command, flow: Flow::Device, callback_port: None });
        }
    }
    let elsewhere = ELSEWHERE.iter().map(|(provider, flow, callback_port)| Login {
        provider,
        command: None,
        flow: *flow,
        callback_port: *callback_port,
    });
    all.extend(elsewhere);
    all
}

/// The command that logs in to a provider; `None`: this program has none.
pub(in crate::cli) fn command(provider: &str) -> Option<String> {
    Some(format!("cliproxy login {}", Provider::named(provider)?.channel()))
}

/// Writes the table.
pub(super) fn write(out: &mut Array<'_>) {
    for login in logins() {
        out.object(|o| {
            o.str("provider", login.provider);
            o.bool("available", login.command.is_some());
            o.nullable_str("command", login.command.as_deref());
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
        assert_eq!(told.len(), Provider::channels().count() + 1 + ELSEWHERE.len());
        for login in &told {
            assert_eq!(login["available"], login["command"].is_string(), "{login}");
            assert_eq!(login["callback_port"].is_u64(), login["flow"] == "authorization-code", "{login}");
            assert!(login["supported_clients"].as_array().is_some_and(|clients| clients.len() > 4));
        }
        let of = |provider: &str| told.iter().find(|one| one["provider"] == provider).unwrap();
        assert_eq!((&of("codex")["callback_port"], &of("codex")["browser"]), (&1455.into(), &"here".into()));
        assert_eq!(of("kiro")["command"], "cliproxy login kiro");
        assert_eq!(of("cursor")["available"], false);
        assert!(command("nobody").is_none());
    }
}
