//! Providers that have a login.
//!
//! Enters: a name. Leaves: the provider, the channel of its accounts, where its page sends browsers back to.
//! May go wrong: nobody has that name.

use super::code;

/// What one logs in to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Claude, with a subscription.
    Claude,
    /// ChatGPT, for Codex.
    Codex,
    /// Google Antigravity.
    Antigravity,
    /// Kimi.
    Kimi,
    /// xAI.
    Xai,
    /// Qwen.
    Qwen,
    /// Kiro, through AWS.
    Kiro,
    /// GitHub Copilot.
    Copilot,
}

/// All of them, with the channel of their accounts and the names by which people and peers call them.
pub(super) const PROVIDERS: [(Provider, &str, &[&str]); 8] = [
    (Provider::Claude, "claude", &["anthropic"]),
    (Provider::Codex, "codex", &["openai", "chatgpt"]),
    (Provider::Antigravity, "antigravity", &["google"]),
    (Provider::Kimi, "kimi", &["moonshot"]),
    (Provider::Xai, "xai", &["grok"]),
    (Provider::Qwen, "qwen", &[]),
    (Provider::Kiro, "kiro", &["aws", "amazonq"]),
    (Provider::Copilot, "github-copilot", &["github", "copilot"]),
];

impl Provider {
    /// The provider of a name.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase();
        let found =
            PROVIDERS.iter().find(|(_, channel, others)| *channel == name || others.contains(&&*name));
        found.map(|(provider, _, _)| *provider)
    }

    /// The `type` of its accounts.
    pub fn channel(self) -> &'static str {
        PROVIDERS.iter().find(|(provider, _, _)| *provider == self).map_or("", |(_, channel, _)| channel)
    }

    /// All channels, for lists.
    pub fn channels() -> impl Iterator<Item = &'static str> {
        PROVIDERS.iter().map(|(_, channel, _)| *channel)
    }

    /// Where its page sends the browser back to; `None`: it has a device code only.
    pub fn callback(self) -> Option<Callback> {
        code::spec(self).map(|spec| Callback { port: spec.port, path: spec.path })
    }
}

/// The address on the user's machine that is registered with a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Callback {
    /// The port of `localhost`.
    pub port: u16,
    /// The path.
    pub path: &'static str,
}
