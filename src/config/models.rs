//! What models are called, and how their requests are treated.
//!
//! Enters: `oauth-model-alias`, `oauth-excluded-models`, `force-model-prefix`, `unknown-model-status`,
//! `fallback-models`, `model-overrides`, `thinking`, `claude-code`, picture, video and signature settings.
//! Leaves: [`Models`]. May go wrong: a status that is none of the three; incomplete aliases are left out by
//! [`crate::check`], with a warning.

use crate::entry::ThinkingBounds;
use crate::lenient::floor_zero;
use crate::read::{quoted, word};
use crate::span::Span;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// Names and treatment of models.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Models {
    /// Models of a credential with a prefix are served under `prefix/model` only.
    pub force_model_prefix: bool,
    /// Status of the answer when nobody serves a model.
    pub unknown_model_status: UnknownModelStatus,
    /// Names of account models, by channel (lower case). A channel with an empty list has no built-in aliases.
    pub oauth_model_alias: BTreeMap<String, Vec<OauthAlias>>,
    /// Patterns of account models that are not served, by channel; lower case.
    pub oauth_excluded_models: BTreeMap<String, Vec<String>>,
    /// Models that serve in place of a model that cannot, in order. Those that are cooling are skipped.
    pub fallback_models: BTreeMap<String, Vec<String>>,
    /// Special treatment of models.
    pub model_overrides: Vec<ModelOverride>,
    /// How strictly thinking settings are read.
    pub thinking: ThinkingRules,
    /// Where the tool `image_generation` is taken out.
    pub disable_image_generation: ImageGeneration,
    /// Model that makes pictures through a tool where the upstream has no picture route. Starts with `gpt-`.
    pub gpt_image_2_base_model: String,
    /// For how long a video is asked for with the credential that made it.
    pub video_result_auth_cache_ttl: Span,
    /// The Claude Code client.
    pub claude_code: ClaudeCode,
    /// Keep and check thinking signatures of Antigravity and Claude models.
    pub antigravity_signature_cache_enabled: bool,
    /// Without the cache: check the whole of a signature, not only its head.
    pub antigravity_signature_bypass_strict: bool,
}

/// Model for pictures when the file names none.
pub(crate) const IMAGE_MODEL: &str = "gpt-5.4-mini";

impl Default for Models {
    fn default() -> Self {
        Self {
            force_model_prefix: false,
            unknown_model_status: UnknownModelStatus::default(),
            oauth_model_alias: BTreeMap::new(),
            oauth_excluded_models: BTreeMap::new(),
            fallback_models: BTreeMap::new(),
            model_overrides: Vec::new(),
            thinking: ThinkingRules::default(),
            disable_image_generation: ImageGeneration::default(),
            gpt_image_2_base_model: IMAGE_MODEL.to_owned(),
            video_result_auth_cache_ttl: Span::from_secs(3 * 3600),
            claude_code: ClaudeCode::default(),
            antigravity_signature_cache_enabled: true,
            antigravity_signature_bypass_strict: false,
        }
    }
}

/// Another name for a model of accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct OauthAlias {
    /// What the upstream calls it.
    pub name: String,
    /// What clients call it.
    pub alias: String,
    /// Keep the upstream's name too.
    pub fork: bool,
    /// What people call it.
    pub display_name: String,
    /// Answers carry the alias as their `model`.
    pub force_mapping: bool,
}

/// Special treatment of models.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ModelOverride {
    /// Which: as clients call them, `*` stands for anything.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Ask the upstream for a whole answer and make the stream from it.
    pub force_non_stream: bool,
    /// Most tokens it reads; 0: as known.
    #[serde(deserialize_with = "floor_zero")]
    pub max_context_length: u64,
    /// Most tokens it writes; 0: as known.
    #[serde(deserialize_with = "floor_zero")]
    pub max_output_tokens: u64,
    /// How much it can think; `None`: as known. Without bounds and levels: not at all.
    pub thinking: Option<ThinkingBounds>,
    /// What it reads (`text`, `image`, …); empty: as known.
    pub input_modalities: Vec<String>,
    /// What it writes; empty: as known.
    pub output_modalities: Vec<String>,
}

/// `thinking`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ThinkingRules {
    /// Refuse budgets that do not fit below `max_tokens`; otherwise they are cut.
    pub strict: bool,
}

/// `claude-code`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ClaudeCode {
    /// List models under their own ids. Otherwise ids that Claude Code would not show are listed in a form that
    /// it shows, and understood in that form.
    pub disable_cloaking_model_list: bool,
}

/// `unknown-model-status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownModelStatus(u16);

impl UnknownModelStatus {
    /// 400, 404 or 502.
    pub fn code(self) -> u16 {
        self.0
    }
}

impl Default for UnknownModelStatus {
    fn default() -> Self {
        Self(404)
    }
}

impl Serialize for UnknownModelStatus {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u16(self.0)
    }
}

impl<'de> Deserialize<'de> for UnknownModelStatus {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, |text| match text {
            "400" => Ok(Self(400)),
            "404" => Ok(Self(404)),
            "502" => Ok(Self(502)),
            _ => Err(format!("expected 400, 404 or 502, found {}", quoted(text))),
        })
    }
}

/// `disable-image-generation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ImageGeneration {
    /// `false`: the tool is added where pictures are asked for.
    #[default]
    Enabled,
    /// `true`: the tool is taken out everywhere, picture routes are closed.
    Disabled,
    /// `chat`: the tool is taken out, picture routes are open.
    RoutesOnly,
    /// `passthrough`: the tool is left as the client sent it, picture routes are open.
    Passthrough,
}

impl Serialize for ImageGeneration {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Enabled => out.serialize_bool(false),
            Self::Disabled => out.serialize_bool(true),
            Self::RoutesOnly => out.serialize_str("chat"),
            Self::Passthrough => out.serialize_str("passthrough"),
        }
    }
}

impl<'de> Deserialize<'de> for ImageGeneration {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, |text| match text.to_ascii_lowercase().as_str() {
            "" | "false" | "no" | "off" | "0" => Ok(Self::Enabled),
            "true" | "yes" | "on" | "1" => Ok(Self::Disabled),
            "chat" => Ok(Self::RoutesOnly),
            "passthrough" => Ok(Self::Passthrough),
            _ => Err(format!("expected false, true, chat or passthrough, found {}", quoted(text))),
        })
    }
}
