//! Who may come in, and where accounts live.
//!
//! Enters: `api-keys`, `ws-auth`, `metrics-auth`, `auth-dir`, `auth-auto-refresh-workers`, the old block `auth`. Leaves:
//! [`Auth`]. May go wrong: nothing but kinds; keys are trimmed, empty and repeated ones are left out with a
//! warning by [`crate::check`].

use crate::client_key::ClientKey;
use crate::proxy::ProxySetting;
use crate::secret::Secret;
use serde::{Deserialize, Serialize};

/// Keys of example files. While one is configured the client routes are closed: everybody knows them.
pub const TEMPLATE_KEYS: [&str; 3] = ["your-api-key-1", "your-api-key-2", "your-api-key-3"];

/// Client keys and account files.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
#[expect(clippy::struct_field_names, reason = "fields are called as the keys of the file")]
pub struct Auth {
    /// Keys that clients show, each once. Empty: everybody is let in.
    pub api_keys: Vec<ClientKey>,
    /// Whether the relay WebSocket `/v1/ws` asks for a key too.
    pub ws_auth: bool,
    /// Whether `/v1/metrics/providers` asks for a client key or the management key.
    pub metrics_auth: bool,
    /// Folder with one JSON file per account; `~` is the home folder.
    pub auth_dir: String,
    /// Token refreshes at once; 0: 16.
    pub auth_auto_refresh_workers: u32,
    /// Block of old versions. [`crate::load`] moves what it says to where it belongs now.
    #[serde(skip_serializing)]
    pub(crate) auth: OldAuth,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            api_keys: Vec::new(),
            ws_auth: true,
            metrics_auth: false,
            auth_dir: "~/.cli-proxy-api".to_owned(),
            auth_auto_refresh_workers: 0,
            auth: OldAuth::default(),
        }
    }
}

impl Auth {
    /// Whether a key of the example file is still there.
    pub fn has_template_keys(&self) -> bool {
        self.api_keys.iter().any(|key| TEMPLATE_KEYS.contains(&key.expose_secret()))
    }
}

/// `auth:` as versions before 7 and the runbooks write it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct OldAuth {
    /// Now `proxy-url`.
    pub(crate) proxy_url: ProxySetting,
    /// Now `api-keys`.
    pub(crate) providers: Vec<OldAuthProvider>,
}

/// A source of client keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct OldAuthProvider {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Keys that clients show.
    pub(crate) api_keys: Vec<Secret>,
}
