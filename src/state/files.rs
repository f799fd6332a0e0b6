//! Gemini's files: which credential holds which. A file is visible to the account that took it and to no
//! other, and requests that name it have to go there.
//!
//! Enters: ids that answers named, and who gave the answer. Leaves: the holder; tickets, which say who holds
//! an upload that has no id yet. May go wrong: an id that is not known (the process started since), which
//! the caller has to ask around for.

use memchr::memmem;
use parking_lot::Mutex;
use pool::{Account, CredentialId, CredentialSpec};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use subtle::ConstantTimeEq;

/// Files of one generation. Google keeps a file for two days.
const GENERATION: usize = 16_384;

/// Who holds which file.
#[derive(Debug)]
pub struct Files {
    owners: Mutex<Owners>,
    /// Part of the key of tickets: credentials without a secret have tickets as well.
    salt: [u128; 2],
    turn: AtomicUsize,
    /// Whether there ever was a file: without one no body is searched.
    any: AtomicBool,
}

/// When the young generation is full it becomes the old one, and what was in the old one is forgotten.
#[derive(Debug, Default)]
struct Owners {
    young: HashMap<String, CredentialId>,
    old: HashMap<String, CredentialId>,
}

impl Default for Files {
    fn default() -> Self {
        let random = || uuid::Uuid::now_v7().as_u128();
        Self {
            owners: Mutex::default(),
            salt: [random(), random()],
            turn: AtomicUsize::new(0),
            any: AtomicBool::new(false),
        }
    }
}

impl Files {
    /// `id` is held by `owner`.
    pub fn learn(&self, id: &str, owner: &CredentialId) {
        self.any.store(true, Ordering::Relaxed);
        let mut owners = self.owners.lock();
        if owners.young.len() >= GENERATION && !owners.young.contains_key(id) {
            owners.old = std::mem::take(&mut owners.young);
        }
        owners.young.insert(id.to_owned(), owner.clone());
    }

    /// `id` is gone.
    pub fn forget(&self, id: &str) {
        let mut owners = self.owners.lock();
        owners.young.remove(id);
        owners.old.remove(id);
    }

    /// Who holds `id`.
    pub fn owner(&self, id: &str) -> Option<CredentialId> {
        let owners = self.owners.lock();
        owners.young.get(id).or_else(|| owners.old.get(id)).cloned()
    }

    /// Who holds the first known file that a body names.
    pub fn owner_in(&self, body: &[u8]) -> Option<CredentialId> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        memmem::find_iter(body, b"files/").find_map(|at| {
            let rest = body.get(at + b"files/".len()..)?;
            let length =
                rest.iter().take(65).take_while(|b| b.is_ascii_alphanumeric() || **b == b'-').count();
            self.owner(std::str::from_utf8(rest.get(..length)?).ok()?)
        })
    }

    /// A number that goes up by one with each call: uploads begin with each account in turn.
    pub fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// The ticket of an upload that `account` holds and whose upstream URL has this path and query. It proves
    /// that the proxy gave the URL out, and to whom its parts belong; a credential with a secret has the same
    /// tickets after a restart.
    pub fn ticket(&self, account: &CredentialSpec, target: &str) -> String {
        let secret = account.secret.expose_secret();
        let mut key = Sha256::new();
        key.update(secret.as_bytes());
        if secret.is_empty() {
            self.salt.iter().for_each(|part| key.update(part.to_be_bytes()));
        }
        let key = key.finalize();
        let mut text = Sha256::new();
        text.update(account.id.as_str().as_bytes());
        text.update([0]);
        text.update(target.as_bytes());
        // Keyed inside and outside: an HMAC in shape.
        let inner = Sha256::new().chain_update(key).chain_update(text.finalize()).finalize();
        let outer = Sha256::new().chain_update(key).chain_update(inner).finalize();
        outer.iter().take(16).fold(String::new(), |mut out, byte| {
            // Writing to a string cannot fail.
            let _ = write!(out, "{byte:02x}");
            out
        })
    }

    /// Whose ticket it is.
    pub fn holder<'a>(
        &self,
        accounts: &'a [Account],
        target: &str,
        ticket: &str,
    ) -> Option<&'a CredentialSpec> {
        accounts
            .iter()
            .map(|account| &account.spec)
            .find(|account| bool::from(self.ticket(account, target).as_bytes().ct_eq(ticket.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pool::{Kind, ModelSet};
    use secrecy::SecretString;

    fn account(id: &str, secret: &str) -> Account {
        let mut spec = CredentialSpec::new(CredentialId::new(id), "gemini", Kind::Gemini, ModelSet::new([]));
        spec.secret = SecretString::from(secret);
        Account { spec, rests: false }
    }

    #[test]
    fn files_are_found_in_bodies() {
        let files = Files::default();
        let body = br#"{"fileUri":"https://g/v1beta/files/abc-1"},{"fileUri":"https://g/v1beta/files/def"}"#;
        assert_eq!(files.owner_in(body), None);
        files.learn("def", &CredentialId::new("b"));
        assert_eq!(files.owner_in(body), Some(CredentialId::new("b")));
        files.learn("abc-1", &CredentialId::new("a"));
        assert_eq!(files.owner_in(body), Some(CredentialId::new("a")));
        files.forget("abc-1");
        files.forget("def");
        assert_eq!(files.owner_in(body), None);
    }

    #[test]
    fn memory_is_bounded_and_the_young_survive() {
        let files = Files::default();
        for n in 0..GENERATION * 3 {
            files.learn(&format!("f{n}"), &CredentialId::new("a"));
        }
        let owners = files.owners.lock();
        assert!(owners.young.len() + owners.old.len() <= GENERATION * 2);
        drop(owners);
        assert!(files.owner(&format!("f{}", GENERATION * 3 - 1)).is_some());
    }

    #[test]
    fn a_ticket_is_of_one_account_and_one_upload() {
        let (files, again) = (Files::default(), Files::default());
        let accounts = [account("a", "one"), account("b", "two"), account("c", "")];
        for account in &accounts {
            let ticket = files.ticket(&account.spec, "/upload?id=1");
            let holder = files.holder(&accounts, "/upload?id=1", &ticket);
            assert_eq!(holder.map(|holder| &holder.id), Some(&account.spec.id));
            assert!(files.holder(&accounts, "/upload?id=2", &ticket).is_none());
        }
        assert_eq!(files.ticket(&accounts[0].spec, "x"), again.ticket(&accounts[0].spec, "x"));
        assert_ne!(files.ticket(&accounts[2].spec, "x"), again.ticket(&accounts[2].spec, "x"));
    }
}
