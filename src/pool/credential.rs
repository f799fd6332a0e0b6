//! What a credential is: facts from the configuration, no state.
//!
//! Enters: plain values. Leaves: [`CredentialSpec`]. Secrets print as `[REDACTED]`, headers and proxies
//! included. Nothing may go wrong.

use std::fmt;
use std::sync::Arc;

use config::OwnTimeouts;
use secrecy::{ExposeSecret, SecretString};
use smallvec::SmallVec;
use wire::Protocol;
use wire::target::Profile;

use crate::budget::Limits;
use crate::model::{ModelSet, ModelSpec};
use crate::rules::ErrorRule;

/// A stable name of a credential: the same after a restart and a reload, free of secrets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialId(Arc<str>);

impl CredentialId {
    /// A name the caller made: a file name, or the kind and twelve hex digits of a digest.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self(Arc::from(text.as_ref()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of upstream a credential opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An OpenAI-compatible server, Chat Completions.
    Chat,
    /// Kimi.
    Kimi,
    /// Qwen's portal.
    Qwen,
    /// iFlow.
    Iflow,
    /// GitHub Copilot.
    Copilot,
    /// The public OpenAI API, Responses.
    Responses,
    /// The Codex backend.
    Codex,
    /// The Claude API.
    Claude,
    /// The Gemini API.
    Gemini,
    /// Gemini on Vertex AI.
    Vertex,
    /// Antigravity.
    Antigravity,
    /// The backend of the Gemini CLI.
    GeminiCli,
    /// Kiro.
    Kiro,
}

impl Kind {
    /// What a Chat Completions server is, by its base URL.
    pub fn of_chat_server(base_url: &str) -> Self {
        let rest = base_url.split_once("://").map_or(base_url, |(_, rest)| rest);
        let host = rest.split(['/', ':', '?']).next().unwrap_or_default().to_ascii_lowercase();
        let known = CHAT_SERVERS.iter().find(|(domain, _)| {
            host.strip_suffix(domain).is_some_and(|sub| sub.is_empty() || sub.ends_with('.'))
        });
        known.map_or(Self::Chat, |(_, kind)| *kind)
    }

    /// Whether its upstream keeps what it read of a conversation for the next turn, and reports how much of it
    /// was found again. Chat Completions servers are too many kinds to tell.
    pub fn caches_prompts(self) -> bool {
        match self {
            Self::Responses
            | Self::Codex
            | Self::Claude
            | Self::Gemini
            | Self::Vertex
            | Self::Antigravity
            | Self::GeminiCli
            | Self::Kiro => true,
            Self::Chat | Self::Kimi | Self::Qwen | Self::Iflow | Self::Copilot => false,
        }
    }

    /// The catalogue's channel of a Chat Completions server; empty: it serves what the operator lists.
    pub fn chat_channel(self) -> &'static str {
        match self {
            Self::Kimi => "kimi",
            Self::Qwen => "qwen",
            Self::Iflow => "iflow",
            Self::Copilot => "github-copilot",
            _ => "",
        }
    }

    /// The flavour of the bodies it takes for a client of `client` and the model `model`. Kimi speaks Claude
    /// as well; Copilot serves some models by Responses only.
    pub fn profile(self, client: Protocol, model: &ModelSpec) -> Profile {
        match self {
            Self::Kimi if client == Protocol::Claude => Profile::Claude,
            Self::Copilot if client == Protocol::OpenaiResponses || by_responses_only(model) => {
                Profile::CopilotResponses
            }
            Self::Chat => Profile::Chat,
            Self::Kimi => Profile::Kimi,
            Self::Qwen => Profile::Qwen,
            Self::Iflow => Profile::Iflow,
            Self::Copilot => Profile::Copilot,
            Self::Responses => Profile::Responses,
            Self::Codex => Profile::Codex,
            Self::Claude => Profile::Claude,
            Self::Gemini | Self::Vertex => Profile::Gemini,
            Self::Antigravity => Profile::Antigravity,
            Self::GeminiCli => Profile::GeminiCli,
            Self::Kiro => Profile::Kiro,
        }
    }
}

/// Domains of Chat Completions servers with a flavour of their own.
const CHAT_SERVERS: [(&str, Kind); 6] = [
    ("kimi.com", Kind::Kimi),
    ("chat.qwen.ai", Kind::Qwen),
    ("portal.qwen.ai", Kind::Qwen),
    ("iflow.cn", Kind::Iflow),
    ("githubcopilot.com", Kind::Copilot),
    ("copilot-proxy.githubusercontent.com", Kind::Copilot),
];

/// Models of Codex are served by Responses only, also those that are newer than the catalogue.
fn by_responses_only(model: &ModelSpec) -> bool {
    model.responses_only || model.upstream.to_ascii_lowercase().contains("codex")
}

/// How a credential leaves the house.
#[derive(Clone, Debug, Default)]
pub enum Proxy {
    /// As the global setting says.
    #[default]
    Global,
    /// Without a proxy, whatever the global setting says.
    Direct,
    /// Through this proxy. The URL may hold a password.
    Url(SecretString),
    /// The setting cannot be used, for this reason. The credential must not be used directly instead.
    Invalid(String),
}

impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Global, Self::Global) | (Self::Direct, Self::Direct) => true,
            (Self::Url(a), Self::Url(b)) => a.expose_secret() == b.expose_secret(),
            (Self::Invalid(a), Self::Invalid(b)) => a == b,
            _ => false,
        }
    }
}

/// A credential as the operator configured it.
#[derive(Clone, Debug)]
pub struct CredentialSpec {
    /// Its stable name. State survives a reload under this name.
    pub id: CredentialId,
    /// The provider's name in metrics, lists and logs: `claude`, `gemini`, `codex`, or the name of an
    /// OpenAI-compatible block.
    pub provider: Arc<str>,
    /// What it opens.
    pub kind: Kind,
    /// For people: shown in logs, holds no secret.
    pub label: Arc<str>,
    /// Where the upstream is; empty: the kind's own address.
    pub base_url: Arc<str>,
    /// Key or token; empty: the upstream wants none.
    pub secret: SecretString,
    /// Whether that is a token of a login and not a key: some upstreams want it in another header.
    pub is_token: bool,
    /// The account within the login: project of Google's backends (several with commas), workspace of ChatGPT, profile of Kiro.
    pub scope: Arc<str>,
    /// Headers to add. Values may be secrets; one that starts with `$` names a header of the client.
    pub headers: Vec<(String, SecretString)>,
    /// How to reach the upstream.
    pub proxy: Proxy,
    /// Serves `prefix/id` besides `id`, or instead of it ([`crate::Settings::force_model_prefix`]).
    pub prefix: Option<Arc<str>>,
    /// Higher ones are used first.
    pub priority: i32,
    /// Share of the turns under [`crate::Strategy::Weighted`].
    pub weight: u32,
    /// What it serves, exclusions applied. Shared by credentials that serve the same, which saves memory and
    /// loading time.
    pub models: Arc<ModelSet>,
    /// Overrides [`crate::Settings::disable_cooling`].
    pub disable_cooling: Option<bool>,
    /// Overrides [`crate::Settings::request_retry`].
    pub request_retry: Option<u32>,
    /// The operator's own reading of this upstream's errors, first match wins.
    pub request_scoped_errors: Arc<[ErrorRule]>,
    /// Most requests at once; `None`: no limit.
    pub in_flight_limit: Option<u32>,
    /// Most requests in any 60 seconds; `None`: no limit.
    pub rpm: Option<u32>,
    /// Tokens in any 60 seconds after which others serve; `None`: no limit.
    pub tpm: Option<u64>,
    /// Where it lists its models, below its base URL; `None`: what it serves is known without asking.
    pub lists: Option<Arc<str>>,
    /// Its own waiting times.
    pub timeouts: OwnTimeouts,
    /// Its token can be renewed, so a 401 is worth one renewal.
    pub refreshable: bool,
    /// Its secret is only what tokens are made of: it is never sent.
    pub mints: bool,
    /// Seconds since 1970 at which its secret runs out, where that is known.
    pub end_s: Option<u64>,
    /// Configured, but not used.
    pub disabled: bool,
}

impl CredentialSpec {
    /// A credential with the defaults of the configuration file.
    pub fn new(id: CredentialId, provider: &str, kind: Kind, models: Arc<ModelSet>) -> Self {
        Self {
            label: Arc::from(id.as_str()),
            id,
            provider: Arc::from(provider),
            kind,
            base_url: Arc::from(""),
            secret: SecretString::default(),
            is_token: false,
            scope: Arc::from(""),
            headers: Vec::new(),
            proxy: Proxy::Global,
            prefix: None,
            priority: 0,
            weight: 1,
            models,
            disable_cooling: None,
            request_retry: None,
            request_scoped_errors: Arc::from([]),
            in_flight_limit: None,
            rpm: None,
            tpm: None,
            lists: None,
            timeouts: OwnTimeouts::default(),
            refreshable: false,
            mints: false,
            end_s: None,
            disabled: false,
        }
    }

    /// What it may be used in a minute.
    pub(crate) fn minute(&self) -> Limits {
        Limits { concurrency: None, rpm: self.rpm, tpm: self.tpm }
    }

    /// Takes over the limits of a configuration.
    pub(crate) fn limited(self, limits: Limits) -> Self {
        Self { in_flight_limit: limits.concurrency, rpm: limits.rpm, tpm: limits.tpm, ..self }
    }

    /// The projects of a Google account, in order: a comma separates them. For all others the scope as it is.
    pub(crate) fn projects(&self) -> SmallVec<[&str; 2]> {
        match self.kind {
            Kind::Antigravity | Kind::GeminiCli => {
                self.scope.split(',').map(str::trim).filter(|project| !project.is_empty()).collect()
            }
            _ => SmallVec::from_iter([&*self.scope]),
        }
    }

    /// Whether both go the same way to the same account, so that what was learnt of one login holds for the
    /// other. The login itself is compared by [`crate::token`].
    pub(crate) fn same_way(&self, other: &Self) -> bool {
        let headers = |spec: &Self| -> Vec<(String, String)> {
            spec.headers.iter().map(|(k, v)| (k.clone(), v.expose_secret().to_owned())).collect()
        };
        self.kind == other.kind
            && self.base_url == other.base_url
            && self.scope == other.scope
            && self.proxy == other.proxy
            && headers(self) == headers(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print() {
        let mut spec =
            CredentialSpec::new(CredentialId::new("chat-0123456789ab"), "p", Kind::Chat, ModelSet::new([]));
        spec.secret = SecretString::from("canary-secret");
        spec.headers = vec![("x".into(), SecretString::from("canary-header"))];
        spec.proxy = Proxy::Url(SecretString::from("http://u:canary-proxy@h"));
        let text = format!("{spec:?}");
        assert!(!text.contains("canary"), "{text}");
    }

    #[test]
    fn another_address_is_another_way() {
        let one = CredentialSpec::new(CredentialId::new("a"), "p", Kind::Chat, ModelSet::new([]));
        let mut two = one.clone();
        two.priority = 7;
        assert!(one.same_way(&two));
        two.base_url = Arc::from("http://other");
        assert!(!one.same_way(&two));
    }

    #[test]
    fn chat_servers_are_told_by_their_domain() {
        for (url, kind) in [
            ("https://api.kimi.com/coding/v1", Kind::Kimi),
            ("https://portal.qwen.ai/v1", Kind::Qwen),
            ("http://apis.iflow.cn:8080/v1", Kind::Iflow),
            ("https://api.business.githubcopilot.com", Kind::Copilot),
            ("https://notkimi.com/v1", Kind::Chat),
            ("https://example.com/?x=kimi.com", Kind::Chat),
            ("", Kind::Chat),
        ] {
            assert_eq!(Kind::of_chat_server(url), kind, "{url}");
        }
    }

    #[test]
    fn kimi_and_copilot_speak_more_than_one_format() {
        let model = |upstream: &str, responses_only| ModelSpec {
            responses_only,
            ..ModelSpec::new(upstream, upstream)
        };
        let (plain, own) = (model("gpt-4o", false), model("gpt-5.4", true));
        let (chat, responses, claude) = (Protocol::OpenaiChat, Protocol::OpenaiResponses, Protocol::Claude);
        for (kind, client, model, profile) in [
            (Kind::Kimi, claude, &plain, Profile::Claude),
            (Kind::Kimi, responses, &plain, Profile::Kimi),
            (Kind::Copilot, chat, &plain, Profile::Copilot),
            (Kind::Copilot, claude, &plain, Profile::Copilot),
            (Kind::Copilot, responses, &plain, Profile::CopilotResponses),
            (Kind::Copilot, chat, &own, Profile::CopilotResponses),
            (Kind::Copilot, chat, &model("gpt-9-codex", false), Profile::CopilotResponses),
            (Kind::Chat, claude, &own, Profile::Chat),
        ] {
            assert_eq!(kind.profile(client, model), profile, "{kind:?} {client:?}");
        }
    }
}
