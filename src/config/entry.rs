//! One entry of a provider's list: a credential, what it serves, and how.
//!
//! Enters: elements of `gemini-api-key`, `claude-api-key`, …, `openai-compatibility`. Leaves: [`KeyEntry`],
//! [`OpenaiCompatibility`]. May go wrong: a base URL that is not one, a weight over a million, a header that
//! HTTP forbids; what is only incomplete is left out by [`crate::check`], with a warning.

use crate::endpoint::{BaseUrl, optional};
use crate::header::Headers;
use crate::lenient::{floor_zero, inherit_below_zero};
use crate::proxy::ProxySetting;
use crate::read::{REMARK, quoted, word};
use crate::secret::Secret;
use serde::{Deserialize, Deserializer, Serialize, de};
use wire::thinking::{Bounds, Level, Support};

/// A credential that is a key, of a provider that we know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct KeyEntry {
    /// The key.
    pub api_key: Secret,
    /// File with the key: JSON with `access_token` or `api_key`, or bare text. OpenAI-compatible presets only.
    pub token_file: String,
    /// Higher is used first; those of lower priority serve when none above can.
    pub priority: i64,
    /// Share under weighted round-robin.
    pub weight: Weight,
    /// Clients reach its models as `prefix/model`. Holds no slash.
    pub prefix: String,
    /// Where the API is; `None`: the provider's own.
    #[serde(deserialize_with = "optional")]
    pub base_url: Option<BaseUrl>,
    /// The way there.
    pub proxy_url: ProxySetting,
    /// Headers added to its requests.
    pub headers: Headers,
    /// What it serves; empty: the catalogue of the provider.
    pub models: Vec<ModelEntry>,
    /// Patterns of upstream ids that it does not serve: lower case, `*` stands for anything.
    pub excluded_models: Vec<String>,
    /// Its own answer to `disable-cooling`; `None`: the general one.
    pub disable_cooling: Option<bool>,
    /// Rounds in which it takes part; `None`: the general `request-retry`.
    #[serde(deserialize_with = "inherit_below_zero")]
    pub request_retry: Option<u32>,
    /// Most requests at once; 0: no limit.
    #[serde(deserialize_with = "floor_zero")]
    pub max_concurrency: u32,
    /// Most requests in any 60 seconds; 0: no limit.
    #[serde(deserialize_with = "floor_zero")]
    pub rpm: u32,
    /// Tokens in any 60 seconds after which it is left alone; 0: no limit.
    #[serde(deserialize_with = "floor_zero")]
    pub tpm: u64,
    /// What its errors mean.
    pub request_scoped_errors: Vec<ErrorRule>,
    /// Its own waiting times.
    pub timeouts: OwnTimeouts,
    /// Codex and xAI: WebSocket clients are served over an upstream WebSocket.
    pub websockets: bool,
    /// Codex: it serves `/v1/alpha/search`.
    pub alpha_search: bool,
    /// Claude: system messages in the middle of a conversation move to its top.
    pub rebuild_mid_system_message: bool,
}

/// A provider that speaks OpenAI Chat, with its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct OpenaiCompatibility {
    /// Its name in metrics, logs and `owned_by`.
    pub name: String,
    /// Leave it out for now.
    pub disabled: bool,
    /// Where the API is. Always there once the file is loaded.
    #[serde(deserialize_with = "optional")]
    pub base_url: Option<BaseUrl>,
    /// Path of the list of models below the host, where it is not `{base-url}/models`.
    pub models_endpoint: String,
    /// Its keys; none: one credential without a key.
    pub api_key_entries: Vec<CompatKey>,
    /// Keys as old versions list them. [`crate::load`] moves them to `api-key-entries`.
    #[serde(skip_serializing)]
    pub(crate) api_keys: Vec<Secret>,
    /// Higher is used first.
    pub priority: i64,
    /// Clients reach its models as `prefix/model`. Holds no slash.
    pub prefix: String,
    /// The way there, for keys that do not say.
    pub proxy_url: ProxySetting,
    /// Headers added to its requests.
    pub headers: Headers,
    /// What it serves. The same alias twice is a pool: tried in turn.
    pub models: Vec<ModelEntry>,
    /// Patterns of upstream ids that it does not serve.
    pub excluded_models: Vec<String>,
    /// Its own answer to `disable-cooling`; `None`: the general one.
    pub disable_cooling: Option<bool>,
    /// Rounds in which it takes part; `None`: the general `request-retry`.
    #[serde(deserialize_with = "inherit_below_zero")]
    pub request_retry: Option<u32>,
    /// What its errors mean.
    pub request_scoped_errors: Vec<ErrorRule>,
    /// Its own waiting times.
    pub timeouts: OwnTimeouts,
    /// It understands `prompt_cache_key`.
    pub support_prompt_cache_key: bool,
}

/// Waiting times of one provider, in seconds; 0: for ever, `None`: those of `timeouts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct OwnTimeouts {
    /// For the connection, TLS included.
    pub connect_seconds: Option<u32>,
    /// For the first byte of an answer.
    pub first_byte_seconds: Option<u32>,
    /// Between two bytes of an answer.
    pub idle_seconds: Option<u32>,
}

/// A key of an OpenAI-compatible provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct CompatKey {
    /// The key.
    pub api_key: Secret,
    /// Share under weighted round-robin.
    pub weight: Weight,
    /// The way to the provider with this key.
    pub proxy_url: ProxySetting,
    /// Most requests at once; 0: no limit.
    #[serde(deserialize_with = "floor_zero")]
    pub max_concurrency: u32,
    /// Most requests in any 60 seconds; 0: no limit.
    #[serde(deserialize_with = "floor_zero")]
    pub rpm: u32,
    /// Tokens in any 60 seconds after which it is left alone; 0: no limit.
    #[serde(deserialize_with = "floor_zero")]
    pub tpm: u64,
}

/// Share under weighted round-robin: 0 leaves the credential out of it, 1 is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Weight(pub u32);

impl Weight {
    /// Largest weight that is accepted.
    pub const MAX: u32 = 1_000_000;
}

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let weight = i64::deserialize(input)?;
        match u32::try_from(weight.max(0)) {
            Ok(weight @ 0..=Self::MAX) => Ok(Self(weight)),
            _ => Err(de::Error::custom("a weight is at most 1000000")),
        }
    }
}

/// A model that an entry serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ModelEntry {
    /// What the upstream calls it.
    pub name: String,
    /// What clients call it. The same as `name` when the file has none.
    pub alias: String,
    /// What people call it.
    pub display_name: String,
    /// Context in tokens that Codex clients are told; 0: the catalogue's.
    #[serde(deserialize_with = "floor_zero")]
    pub max_context_length: u64,
    /// Answers carry the alias as their `model`, not the upstream's name.
    pub force_mapping: bool,
    /// The upstream only resembles the original: thinking blocks with empty signatures are kept.
    pub is_compat: bool,
    /// It makes pictures on `/v1/images/…`.
    pub image: bool,
    /// What it reads (`text`, `image`, …); empty: unknown.
    pub input_modalities: Vec<String>,
    /// What it writes; empty: unknown.
    pub output_modalities: Vec<String>,
    /// How much it can think; `None`: unknown.
    pub thinking: Option<ThinkingBounds>,
}

/// How much a model can think.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ThinkingBounds {
    /// Least budget in tokens.
    pub min: u32,
    /// Largest budget in tokens; 0: it takes none.
    pub max: u32,
    /// It can be switched off.
    pub zero_allowed: bool,
    /// It can decide itself.
    pub dynamic_allowed: bool,
    /// The words it takes; `none` and `auto` say the same as the two booleans.
    pub levels: Vec<ThinkingWord>,
}

/// A word of `levels`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThinkingWord {
    /// A word that nobody knows. It counts for nothing.
    #[default]
    Unknown,
    /// `none`: it can be switched off.
    Off,
    /// `auto`: it can decide itself.
    Auto,
    /// A level.
    Level(Level),
}

impl ThinkingWord {
    fn name(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Off => "none",
            Self::Auto => "auto",
            Self::Level(level) => level.name(),
        }
    }
}

impl Serialize for ThinkingWord {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for ThinkingWord {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, |text| match text.to_ascii_lowercase().as_str() {
            "" => Ok(Self::Unknown),
            "none" | "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            word => Level::parse(word)
                .map(Self::Level)
                .ok_or_else(|| format!("{REMARK}unknown thinking level {}, left out", quoted(text))),
        })
    }
}

impl ThinkingBounds {
    /// The same in the terms of the translator.
    pub fn support(&self) -> Support {
        let mut levels: Vec<Level> = self
            .levels
            .iter()
            .filter_map(|word| if let ThinkingWord::Level(level) = word { Some(*level) } else { None })
            .collect();
        levels.sort_unstable();
        levels.dedup();
        let budget = (self.max > 0).then_some((self.min, self.max));
        if levels.is_empty() && budget.is_none() {
            return Support::Never;
        }
        Support::Bounded(Bounds {
            budget,
            off: self.zero_allowed || self.levels.contains(&ThinkingWord::Off),
            auto: self.dynamic_allowed || self.levels.contains(&ThinkingWord::Auto),
            levels,
        })
    }
}

/// What an upstream's error means for the request and the credential. The first rule that fits counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ErrorRule {
    /// Status of the answer.
    pub status: u16,
    /// Any of these texts in the body; or any of the expressions below.
    #[serde(rename = "match")]
    pub contains: Vec<String>,
    /// Regular expressions in the syntax of RE2.
    pub match_regexr: Vec<String>,
    /// What to do. Always there once the file is loaded.
    pub action: Option<ErrorAction>,
}

/// What to do on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorAction {
    /// The client gets the error; the credential goes on.
    Stop,
    /// The client gets the error; the credential cools.
    StopAndCooldown,
    /// The next credential is tried; this one goes on.
    Continue,
    /// The next credential is tried; this one cools.
    ContinueAndCooldown,
}

impl<'de> Deserialize<'de> for ErrorAction {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, |text| match text.to_ascii_lowercase().as_str() {
            "stop" => Ok(Self::Stop),
            "stop-and-cooldown" => Ok(Self::StopAndCooldown),
            "continue" => Ok(Self::Continue),
            "continue-and-cooldown" => Ok(Self::ContinueAndCooldown),
            _ => Err(format!(
                "{REMARK}unknown action {}, the rule is left out; \
                 known are stop, stop-and-cooldown, continue, continue-and-cooldown",
                quoted(text)
            )),
        })
    }
}
