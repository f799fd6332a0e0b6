//! The secret of the management interface.
//!
//! Enters: what the configuration and the environment say, what a request shows. Leaves: right or wrong; a
//! secret that stands in the open in the file is replaced by its bcrypt hash, as CLIProxyAPI does. May go
//! wrong: the file cannot be written (the hash counts in memory), the secret is longer than bcrypt reads
//! (it stays, and is told).
//!
//! A hash costs a tenth of a second of one processor on purpose. One is computed at a time, and a secret that
//! was right is recognised afterwards without it.

use super::{Manage, beside};
use crate::state::config_file::EditError;
use config::Management;
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Rounds of a new hash, as a power of two: what CLIProxyAPI takes.
const COST: u32 = 10;
/// Most bytes that bcrypt reads, without the zero at their end.
const BCRYPT_READS: usize = 71;

/// Compares secrets.
#[derive(Debug)]
pub(super) struct Secrets {
    /// `MANAGEMENT_PASSWORD`; empty: none.
    password: SecretString,
    /// Unknown to others, so that what is remembered of a secret is worth nothing elsewhere.
    salt: [u8; 32],
    /// The hash that was last matched, and the digest of what matched it.
    right: Mutex<Option<(String, [u8; 32])>>,
}

/// What a quick look says of what a request shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It is right.
    Right,
    /// It is wrong.
    Wrong,
    /// Only this hash can tell.
    Ask(String),
}

impl Secrets {
    /// Secrets with the password of the environment.
    pub(super) fn new(password: &str) -> Self {
        let mut salt = [0; 32];
        for half in salt.chunks_mut(16) {
            half.copy_from_slice(uuid::Uuid::now_v7().as_bytes());
        }
        Self { password: SecretString::from(password.trim()), salt, right: Mutex::new(None) }
    }

    /// Whether there is a password that lets others than this machine in.
    pub(super) fn has_password(&self) -> bool {
        !self.password.expose_secret().is_empty()
    }

    /// Whether there is any secret at all.
    pub(super) fn any(&self, management: &Management) -> bool {
        self.has_password() || !management.secret_key.is_empty()
    }

    /// Compares without a hash, where that is possible.
    pub(super) fn look(&self, shown: &str, management: &Management) -> Look {
        let digest = self.digest(shown);
        let equals = |secret: &str| bool::from(self.digest(secret).ct_eq(&digest));
        if self.has_password() && equals(self.password.expose_secret()) {
            return Look::Right;
        }
        let secret = management.secret_key.expose_secret();
        if secret.is_empty() {
            return Look::Wrong;
        }
        if !management.secret_is_hashed() {
            return if equals(secret) { Look::Right } else { Look::Wrong };
        }
        match &*self.right.lock() {
            Some((hash, right)) if hash == secret && bool::from(right.ct_eq(&digest)) => Look::Right,
            _ => Look::Ask(secret.to_owned()),
        }
    }

    /// Remembers what a hash said was right.
    pub(super) fn remember(&self, shown: &str, hash: String) {
        *self.right.lock() = Some((hash, self.digest(shown)));
    }

    fn digest(&self, text: &str) -> [u8; 32] {
        Sha256::new().chain_update(self.salt).chain_update(text.as_bytes()).finalize().into()
    }
}

/// Asks a hash. Takes a tenth of a second.
pub(super) fn matches(shown: &str, hash: &str) -> bool {
    // Others cut longer ones; what was cut would match as well.
    shown.len() <= BCRYPT_READS && bcrypt::verify(shown, hash).unwrap_or(false)
}

/// Replaces a secret that stands in the open.
pub(super) async fn keep_hashed(app: &Arc<Manage>) {
    let management = app.state.snapshot.load().config.management.clone();
    if management.secret_key.is_empty() || management.secret_is_hashed() {
        return;
    }
    let state = Arc::clone(&app.state);
    let hashed = beside(move || {
        let secret = management.secret_key.expose_secret();
        if secret.len() > BCRYPT_READS {
            return Err(format!("it is longer than the {BCRYPT_READS} bytes that bcrypt reads"));
        }
        let hash = bcrypt::hash(secret, COST).map_err(|e| e.to_string())?;
        let put = |text: &str| -> Result<String, EditError> {
            let path = ["remote-management", "secret-key"];
            Ok(config::edit::rewrite(text, &path, Some(&hash.as_str().into()))?)
        };
        state.edit_config(None, put).map(drop).map_err(|e| e.to_string())
    });
    if let Ok(Err(reason)) = hashed.await
        && !app.gate.told_of_secret()
    {
        tracing::warn!("remote-management.secret-key stays in the open: {reason}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn management(secret: &str) -> Management {
        Management { secret_key: config::Secret::from(secret), ..Management::default() }
    }

    #[test]
    fn p55_secrets_are_compared_whole_and_hashes_are_asked_once() {
        let secrets = Secrets::new("");
        let open = management("mgmt-test");
        assert_eq!(secrets.look("mgmt-test", &open), Look::Right);
        for wrong in ["", "mgmt-tes", "mgmt-testx", "MGMT-TEST"] {
            assert_eq!(secrets.look(wrong, &open), Look::Wrong, "{wrong}");
        }
        let hash = bcrypt::hash("mgmt-test", 4).unwrap();
        let hashed = management(&hash);
        assert_eq!(secrets.look("mgmt-test", &hashed), Look::Ask(hash.clone()));
        assert!(matches("mgmt-test", &hash) && !matches("mgmt-tesT", &hash));
        secrets.remember("mgmt-test", hash.clone());
        assert_eq!(secrets.look("mgmt-test", &hashed), Look::Right);
        assert_eq!(secrets.look("other", &hashed), Look::Ask(hash.clone()));
        let other = management(&bcrypt::hash("mgmt-test", 4).unwrap());
        assert!(matches!(secrets.look("mgmt-test", &other), Look::Ask(_)), "another hash is asked again");
        assert_eq!(secrets.look(&hash, &hashed), Look::Ask(hash.clone()), "the hash is no secret");
        assert!(!matches(&hash, &hash));
    }

    #[test]
    fn the_password_of_the_environment_counts_beside_it() {
        let secrets = Secrets::new(" pw ");
        assert_eq!(secrets.look("pw", &management("")), Look::Right);
        assert_eq!(secrets.look("", &management("")), Look::Wrong);
        assert!(secrets.any(&management("")) && !Secrets::new("").any(&management("")));
    }

    #[test]
    fn what_bcrypt_would_cut_is_wrong() {
        let long = "x".repeat(72);
        let hash = bcrypt::hash(&long, 4).unwrap();
        assert!(!matches(&format!("{long}y"), &hash));
        for broken in
            ["", "$2a$", "$2b$10$short", "$2b$99$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
        {
            assert!(!matches("x", broken), "{broken}");
        }
    }
}
