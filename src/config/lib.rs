//! What the operator said: the configuration file as typed values.
//!
//! Enters: the bytes of `config.yaml`; CLIProxyAPI's files load unchanged. Leaves: [`Config`], plus a warning
//! for everything that was not understood. May go wrong: [`Broken`] names line, column and path of every
//! mistake. No files, no environment, no clock: they belong to the app.
//!
//! ```
//! let loaded = config::load(b"port: 8317\napi-keys: [secret]\nrequest-retri: 3\n").unwrap();
//! assert_eq!(loaded.config.server.port, 8317);
//! assert_eq!(
//!     loaded.warnings[0].in_file("config.yaml").to_string(),
//!     "config.yaml:3:1: request-retri: unknown key, ignored; did you mean `request-retry`?",
//! );
//! ```
//!
//! Reading order: the sections in the order of [`Config`], then [`load`] and what it is made of.
//!
//! | file | what it holds |
//! |---|---|
//! | `server.rs` | addresses, TLS, limits, timeouts, leaving, metrics |
//! | `auth.rs`, `client_key.rs` | client keys, account folder |
//! | `providers.rs`, `entry.rs`, `block.rs`, `amp.rs` | who answers: lists of keys and their entries |
//! | `account.rs` | files of the account folder |
//! | `models.rs` | names of models and their treatment |
//! | `payload.rs` | changes to request bodies |
//! | `routing.rs` | selection, retries, cooldowns |
//! | `streaming.rs` | answers under way |
//! | `logging.rs`, `prices.rs` | logs and usage records; what tokens cost |
//! | `management.rs` | management interface |
//! | `alerts.rs` | what is watched, and who is told |
//! | `telemetry.rs` | traces |
//! | `secret.rs`, `endpoint.rs`, `proxy.rs`, `header.rs`, `span.rs`, `lenient.rs` | kinds of values |
//! | `load.rs` | bytes → configuration: the steps below in order |
//! | `parse.rs`, `tree.rs` | YAML → a tree that knows positions |
//! | `read.rs` | tree → values, through serde |
//! | `unknown.rs` | keys that nobody asked for |
//! | `check.rs`, `check/` | rules over several keys; what is incomplete is left out |
//! | `report.rs`, `notice.rs` | what was found |
//! | `diff.rs` | old and new → what changed, and what needs a restart |
//! | `redact.rs`, `secrets.rs` | what may be shown, and what may not |
//! | `edit.rs` | changes to the text that keep its comments |

mod account;
mod alerts;
mod amp;
mod auth;
mod block;
mod check;
mod client_key;
mod diff;
pub mod edit;
mod endpoint;
mod entry;
mod header;
mod lenient;
mod load;
mod logging;
mod management;
mod models;
mod notice;
mod parse;
mod payload;
mod prices;
mod providers;
mod proxy;
mod read;
mod redact;
mod report;
mod routing;
mod secret;
mod secrets;
mod server;
mod span;
mod streaming;
mod telemetry;
mod tree;
mod unknown;

pub use account::{Account, AccountSettings, Grant, MAX_ACCOUNT_BYTES, Moment, read_account, read_key_file};
pub use alerts::{
    ALERT_RULES, AlertMetric, AlertRule, AlertScope, AlertSeverity, Alerts, CommandLine, NotifyTarget,
    ServiceUrl, Threshold, WebhookUrl,
};
pub use amp::{AmpKey, AmpMapping, Ampcode};
pub use auth::{Auth, TEMPLATE_KEYS};
pub use block::Block;
pub use client_key::{ClientKey, Expiry};
pub use diff::{Change, ChangeSet, diff};
pub use endpoint::BaseUrl;
pub use entry::{
    CompatKey, ErrorAction, ErrorRule, KeyEntry, ModelEntry, OpenaiCompatibility, OwnTimeouts,
    ThinkingBounds, ThinkingWord, Weight,
};
pub use header::{HeaderValue, Headers};
pub use load::{MAX_BYTES, load};
pub use logging::Logging;
pub use management::Management;
pub use models::{
    ClaudeCode, ImageGeneration, ModelOverride, Models, OauthAlias, ThinkingRules, UnknownModelStatus,
};
pub use notice::{Broken, Loaded, Notice};
pub use payload::{JsonText, Params, Payload, RawParams, Rule, Scope};
pub use prices::{ModelPrice, Price};
pub use providers::{Codex, Providers, Xai};
pub use proxy::{ProxyLogin, ProxyScheme, ProxySetting, ProxyUrl};
pub use routing::{QuotaExceeded, Routing, Selection, Strategy, TransientCooldown, Waiting};
pub use secret::Secret;
pub use server::{
    DEFAULT_PORT, Host, Limits, Listen, Listeners, Metrics, Networks, ProxyProtocol, Server, Shutdown,
    Timeouts, Tls,
};
pub use span::Span;
pub use streaming::{EventStreams, Streaming};
pub use telemetry::{Ratio, Telemetry};

use serde::Serialize;

/// The whole file. Most sections are keys of its top level; `payload`, `management`, `alerts` and `telemetry` are
/// blocks of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Where clients come in.
    #[serde(flatten)]
    pub server: Server,
    /// Who may come in.
    #[serde(flatten)]
    pub auth: Auth,
    /// Who answers.
    #[serde(flatten)]
    pub providers: Providers,
    /// What models are called.
    #[serde(flatten)]
    pub models: Models,
    /// What is changed in requests.
    pub payload: Payload,
    /// Which credential serves.
    #[serde(flatten)]
    pub routing: Routing,
    /// What clients see meanwhile.
    #[serde(flatten)]
    pub streaming: Streaming,
    /// What is written down.
    #[serde(flatten)]
    pub logging: Logging,
    /// `remote-management`.
    #[serde(rename = "remote-management")]
    pub management: Management,
    /// What is watched, and who is told.
    pub alerts: Alerts,
    /// Where traces go.
    pub telemetry: Telemetry,
}

impl Config {
    /// Whether a key of the example file still lets clients in. Then the client routes have to stay closed.
    pub fn has_template_keys(&self) -> bool {
        self.auth.has_template_keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const EXAMPLE: &str = include_str!("../../conf/config.example.yaml");
    const MINIMAL: &str = include_str!("../../conf/minimal.yaml");

    fn config(text: &str) -> Config {
        let loaded = load(text.as_bytes()).unwrap_or_else(|broken| panic!("{broken}\n{text}"));
        assert_eq!(loaded.warnings, []);
        loaded.config
    }

    /// The example with all settings switched on. A setting that is switched off starts with `#` and no blank,
    /// or with more blanks than the one of an explanation.
    fn switched_on() -> String {
        let setting = |rest: &str| !rest.is_empty() && (!rest.starts_with(' ') || rest.starts_with("  "));
        let on = |line: &'static str| line.strip_prefix('#').filter(|rest| setting(rest)).unwrap_or(line);
        EXAMPLE.lines().map(on).collect::<Vec<_>>().join("\n")
    }

    /// All paths of a document: without numbers, with one name for lists of the same kind, and without keys that
    /// are the operator's own.
    fn paths(text: &str) -> BTreeSet<String> {
        fn walk(value: &serde_yaml::Value, path: &str, into: &mut BTreeSet<String>) {
            into.insert(path.to_owned());
            let own = ["headers", "match", "not-match", "params"].iter().any(|key| path.ends_with(key));
            match value {
                _ if own => {}
                serde_yaml::Value::Sequence(items) => {
                    for item in items {
                        walk(item, &format!("{path}[]"), into);
                    }
                }
                serde_yaml::Value::Mapping(entries) => {
                    for (key, value) in entries {
                        walk(value, &alike(&format!("{path}.{}", key.as_str().unwrap_or_default())), into);
                    }
                }
                _ => {}
            }
        }
        fn alike(path: &str) -> String {
            let list = Block::ALL.iter().any(|block| path.strip_prefix('.') == Some(block.key()));
            match path {
                _ if list => ".entry".to_owned(),
                ".openai-compatibility[].models" => ".entry[].models".to_owned(),
                path if path.starts_with(".payload.") && path.ends_with(".models") => {
                    ".payload.rule[].models".to_owned()
                }
                path => path.to_owned(),
            }
        }
        let mut all = BTreeSet::new();
        walk(&serde_yaml::from_str(text).unwrap(), "", &mut all);
        all
    }

    #[test]
    fn shipped_files_load_without_a_warning() {
        let example = config(EXAMPLE);
        assert!(example.has_template_keys());
        let plain = Config {
            auth: Auth { api_keys: example.auth.api_keys.clone(), ..Auth::default() },
            ..Config::default()
        };
        let changed: Vec<_> = diff(&plain, &example).changes.into_iter().map(|change| change.path).collect();
        assert_eq!(changed, ["host"], "what is switched on is what the defaults are");
        let minimal = config(MINIMAL);
        assert!(minimal.has_template_keys() && minimal.providers.claude_api_key.len() == 1);
    }

    #[test]
    fn the_example_shows_every_key() {
        let text = switched_on();
        let shown = paths(&text);
        // Every list of the file is filled, so that what is serialized has the keys of every struct.
        let all = paths(&serde_yaml::to_string(&config(&text)).unwrap());
        let missing: Vec<_> = all.difference(&shown).collect();
        assert_eq!(missing, Vec::<&String>::new());
        let filled = [
            "entry[].models[].thinking.levels[]",
            "entry[].request-scoped-errors[].action",
            "openai-compatibility[].api-key-entries[].weight",
            "api-keys[].allowed-models[]",
            "payload.rule[].models[].exist[]",
            "payload.filter[].params",
            "ampcode.model-mappings[].params",
            "ampcode.upstream-api-keys[].api-keys[]",
            "oauth-model-alias.codex[].fork",
            "model-overrides[].match",
        ];
        for list in filled {
            assert!(all.contains(&format!(".{list}")), "{list}");
        }
    }

    proptest! {
        #[test]
        fn p41_no_edit_of_the_example_makes_it_panic(
            edits in proptest::collection::vec((0_usize..20_000, 0_usize..40, ".{0,3}|[\\[\\]{}:,&*!|>'\"#~\n -]{1,2}"), 1..6)
        ) {
            let mut text: Vec<char> = switched_on().chars().collect();
            for (at, cut, put) in edits {
                let from = at % text.len();
                let to = (from + cut).min(text.len());
                text.splice(from..to, put.chars());
            }
            let text: String = text.into_iter().collect();
            match load(text.as_bytes()) {
                Ok(loaded) => prop_assert_eq!(diff(&loaded.config, &loaded.config).changes, Vec::new()),
                // Every mistake is somewhere.
                Err(broken) => {
                    prop_assert!(!broken.notices.is_empty());
                    prop_assert!(broken.notices.iter().all(|n| n.line.is_some() || n.path.is_empty()), "{}", broken);
                }
            }
        }
    }

    #[test]
    fn defaults_in_the_example_are_the_defaults() {
        let mut text = String::new();
        for line in EXAMPLE.lines() {
            let key = line.strip_prefix('#').unwrap_or_default();
            // Scalars of the top level, other than those that show an example.
            let scalar = key.split_once(": ").is_some_and(|(key, value)| {
                key.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c.is_ascii_digit())
                    && !value.starts_with(['[', '{'])
                    && key != "proxy-url"
            });
            if scalar {
                text.push_str(key);
                text.push('\n');
            }
        }
        assert!(text.lines().count() > 25, "{text}");
        assert!(diff(&Config::default(), &config(&text)).is_empty(), "{text}");
    }
}
