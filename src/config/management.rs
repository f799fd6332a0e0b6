//! Who may manage us over HTTP.
//!
//! Enters: `remote-management`. Leaves: [`Management`]. May go wrong: nothing but kinds.

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
}

impl Management {
    /// Whether the key is a bcrypt hash already.
    pub fn secret_is_hashed(&self) -> bool {
        let key = self.secret_key.expose_secret();
        ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| key.starts_with(prefix))
    }
}
