//! The Amp client: where its own service is, and which of its models are served here.
//!
//! Enters: `ampcode`. Leaves: [`Ampcode`]. May go wrong: an upstream URL that is not one.

use crate::endpoint::{BaseUrl, optional};
use crate::payload::Params;
use crate::secret::Secret;
use serde::{Deserialize, Serialize};

/// `ampcode`, also spelt `amp-code`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Ampcode {
    /// Amp's service, for its account and thread routes; `None`: they are not served.
    #[serde(deserialize_with = "optional")]
    pub upstream_url: Option<BaseUrl>,
    /// Our key there.
    pub upstream_api_key: Secret,
    /// Other keys for some of our clients.
    pub upstream_api_keys: Vec<AmpKey>,
    /// Serve the account routes to this machine only.
    pub restrict_management_to_localhost: bool,
    /// Models that Amp asks for and others serve.
    pub model_mappings: Vec<AmpMapping>,
    /// Map also what could be served under its own name.
    pub force_model_mappings: bool,
}

/// A key at Amp for some clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct AmpKey {
    /// The key at Amp.
    pub upstream_api_key: Secret,
    /// The clients, by their keys here.
    pub api_keys: Vec<Secret>,
}

/// One model in place of another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct AmpMapping {
    /// What Amp asks for, in any case.
    pub from: String,
    /// What serves it.
    pub to: String,
    /// `from` is a regular expression.
    pub regex: bool,
    /// Members set in the request where it has none.
    pub params: Params,
}
