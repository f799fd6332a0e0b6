//! Who may manage us over HTTP.
//!
//! Enters: `remote-management`. Leaves: [`Management`]. May go wrong: an address that is no URL.

use crate::endpoint::{BaseUrl, optional};
use crate::secret::Secret;
use serde::{Deserialize, Serialize};

/// The management interface and the dashboard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Management {
    /// Let others than this machine in. The key is asked for in any case.
    pub allow_remote: bool,
    /// The key, or its bcrypt hash; empty: all management routes are closed (404).
    pub secret_key: Secret,
    /// Do not serve the dashboard.
    pub disable_control_panel: bool,
    /// Where the newest version is told, as JSON with `tag_name`; `None`: nobody is asked.
    #[serde(deserialize_with = "optional")]
    pub release_url: Option<BaseUrl>,
    /// Hosts in private networks that `api-call` may ask.
    pub api_call_hosts: Vec<String>,
}

impl Management {
    /// Whether the key is a bcrypt hash already.
    pub fn secret_is_hashed(&self) -> bool {
        let key = self.secret_key.expose_secret();
        ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| key.starts_with(prefix))
    }
}
