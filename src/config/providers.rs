//! Who answers requests.
//!
//! Enters: the lists of keys, `openai-compatibility`, `proxy-url`, and what is said about accounts of whole
//! providers (`oauth-upstream`, `oauth-request-scoped-errors`, `codex`, `xai`, `kiro-…`, `antigravity-…`).
//! Leaves: [`Providers`]. May go wrong: see [`crate::entry`].
//!
//! | list | serves | without `base-url` |
//! |---|---|---|
//! | `gemini-api-key` | Gemini | Google's |
//! | `interactions-api-key` | Gemini Interactions only | Google's |
//! | `claude-api-key` | Claude Messages | Anthropic's |
//! | `codex-api-key` | OpenAI Responses | left out |
//! | `xai-api-key` | OpenAI Responses | left out |
//! | `vertex-api-key` | Gemini | Google's |
//! | `openai-compatibility` | OpenAI Chat | left out |
//! | `deepseek`, `groq`, … ([`Block`]) | OpenAI Chat, models as the provider lists them | the provider's |

use crate::amp::Ampcode;
#[cfg(doc)]
use crate::block::Block;
use crate::endpoint::BaseUrl;
use crate::entry::{ErrorRule, KeyEntry, OpenaiCompatibility};
use crate::proxy::ProxySetting;
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All providers of the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Providers {
    /// The way out for all that do not say. [`ProxySetting::Inherit`]: the environment's.
    pub proxy_url: ProxySetting,
    /// Keys of Gemini.
    pub gemini_api_key: Vec<KeyEntry>,
    /// Keys of Gemini that serve the Interactions API and nothing else.
    pub interactions_api_key: Vec<KeyEntry>,
    /// Keys of Anthropic and of those who speak Claude Messages.
    pub claude_api_key: Vec<KeyEntry>,
    /// Keys of those who speak OpenAI Responses.
    pub codex_api_key: Vec<KeyEntry>,
    /// Keys of xAI.
    pub xai_api_key: Vec<KeyEntry>,
    /// Keys of Vertex AI.
    pub vertex_api_key: Vec<KeyEntry>,
    /// Providers that speak OpenAI Chat.
    pub openai_compatibility: Vec<OpenaiCompatibility>,
    /// Keys of DeepSeek.
    pub deepseek: Vec<KeyEntry>,
    /// Keys of Fireworks AI.
    pub fireworks: Vec<KeyEntry>,
    /// Keys of Groq.
    pub groq: Vec<KeyEntry>,
    /// Keys of Kilo.
    pub kilo: Vec<KeyEntry>,
    /// Keys of MiniMax.
    pub minimax: Vec<KeyEntry>,
    /// Keys of Mistral AI.
    pub mistral: Vec<KeyEntry>,
    /// Keys of Novita AI.
    pub novita: Vec<KeyEntry>,
    /// Keys of OpenRouter.
    pub openrouter: Vec<KeyEntry>,
    /// Keys of Roo Code.
    pub roo: Vec<KeyEntry>,
    /// Keys of SiliconFlow.
    pub siliconflow: Vec<KeyEntry>,
    /// Keys of Together AI.
    pub together: Vec<KeyEntry>,
    /// Other hosts for the accounts of a channel (lower case): chat, tokens, quota and model lists.
    pub oauth_upstream: BTreeMap<String, BaseUrl>,
    /// What the errors of a channel's accounts mean.
    pub oauth_request_scoped_errors: BTreeMap<String, Vec<ErrorRule>>,
    /// Hosts whose link-local addresses may be used, as names or addresses. Clouds keep secrets at such
    /// addresses, so that nothing goes there unasked.
    pub allow_link_local_hosts: Vec<String>,
    /// Antigravity: when a model has no capacity, try its other hosts before giving up.
    pub antigravity_no_capacity_retry: bool,
    /// Kiro: `amazonq` or `codewhisperer` first; empty: in order.
    pub kiro_preferred_endpoint: String,
    /// Serve `/v1/responses/compact`.
    pub responses_compact_enabled: bool,
    /// Serve `/v1/responses` over WebSocket.
    pub responses_websocket_enabled: bool,
    /// Codex accounts.
    pub codex: Codex,
    /// xAI accounts.
    pub xai: Xai,
    /// The Amp client.
    #[serde(alias = "amp-code")]
    pub ampcode: Ampcode,
    /// Keys of Gemini as versions before 7 list them. [`crate::load`] moves them to `gemini-api-key`.
    #[serde(skip_serializing)]
    pub(crate) generative_language_api_key: Vec<Secret>,
}

impl Default for Providers {
    fn default() -> Self {
        Self {
            proxy_url: ProxySetting::default(),
            gemini_api_key: Vec::new(),
            interactions_api_key: Vec::new(),
            claude_api_key: Vec::new(),
            codex_api_key: Vec::new(),
            xai_api_key: Vec::new(),
            vertex_api_key: Vec::new(),
            openai_compatibility: Vec::new(),
            deepseek: Vec::new(),
            fireworks: Vec::new(),
            groq: Vec::new(),
            kilo: Vec::new(),
            minimax: Vec::new(),
            mistral: Vec::new(),
            novita: Vec::new(),
            openrouter: Vec::new(),
            roo: Vec::new(),
            siliconflow: Vec::new(),
            together: Vec::new(),
            oauth_upstream: BTreeMap::new(),
            oauth_request_scoped_errors: BTreeMap::new(),
            allow_link_local_hosts: Vec::new(),
            antigravity_no_capacity_retry: true,
            kiro_preferred_endpoint: String::new(),
            responses_compact_enabled: true,
            responses_websocket_enabled: true,
            codex: Codex::default(),
            xai: Xai::default(),
            ampcode: Ampcode::default(),
            generative_language_api_key: Vec::new(),
        }
    }
}

/// Behaviour of Codex accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Codex {
    /// Hold the answer back until the first generated event, so that an overload that comes inside a stream can
    /// still move to another credential.
    pub stream_bootstrap_buffering: bool,
    /// A used-up account cools for the model that was asked for, not for all.
    pub model_level_cooling: bool,
}

/// Behaviour of xAI accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Xai {
    /// Offer the tool `x_search` when the request does not.
    pub inject_x_search: bool,
}
