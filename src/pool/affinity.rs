//! Which credential a session was served by last.
//!
//! Enters: session, model, time. Leaves: a credential's id. Nothing may go wrong: a forgotten session is
//! served by anyone. Memory is bounded by generations: when the young one is full it becomes the old one,
//! and what was in the old one and not asked for since is forgotten.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::Mutex;

use crate::credential::CredentialId;

/// A session waits this long for its credential before it moves: about the life of a prompt cache.
pub(crate) const PATIENCE_MS: u64 = 300_000;
const SHARDS: usize = 16;
/// Sessions of one generation in one shard.
const GENERATION: usize = 4096;

/// A session on a model.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: u64,
    /// Who served it last, if that is remembered.
    pub(crate) credential: Option<CredentialId>,
}

#[derive(Debug)]
struct Binding {
    credential: CredentialId,
    used_ms: u64,
}

#[derive(Debug, Default)]
struct Shard {
    young: HashMap<u64, Binding>,
    old: HashMap<u64, Binding>,
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    shards: [Mutex<Shard>; SHARDS],
}

impl Affinity {
    fn shard(&self, key: u64) -> &Mutex<Shard> {
        // The remainder is always in range; the first shard is a fallback for the compiler.
        self.shards.get(key as usize % SHARDS).unwrap_or(&self.shards[0])
    }

    /// What is known of a session that uses `model`.
    pub(crate) fn session(&self, session: u64, model: &str, life_ms: u64, now_ms: u64) -> Session {
        let mut hasher = DefaultHasher::new();
        (session, model).hash(&mut hasher);
        let key = hasher.finish();
        let shard = self.shard(key).lock();
        let binding = shard.young.get(&key).or_else(|| shard.old.get(&key));
        let alive = binding.filter(|binding| now_ms.saturating_sub(binding.used_ms) <= life_ms);
        Session { key, credential: alive.map(|binding| binding.credential.clone()) }
    }

    /// The session is served by this credential now.
    pub(crate) fn bind(&self, key: u64, credential: &CredentialId, now_ms: u64) {
        let mut shard = self.shard(key).lock();
        if shard.young.len() >= GENERATION && !shard.young.contains_key(&key) {
            shard.old = std::mem::take(&mut shard.young);
        }
        shard.young.insert(key, Binding { credential: credential.clone(), used_ms: now_ms });
    }

    /// The session is not served by this credential any more; one that has moved on stays where it is.
    pub(crate) fn unbind(&self, key: u64, credential: &CredentialId) {
        let mut shard = self.shard(key).lock();
        let latest = shard.young.get(&key).or_else(|| shard.old.get(&key));
        if latest.is_some_and(|binding| binding.credential == *credential) {
            shard.young.remove(&key);
            shard.old.remove(&key);
        }
    }
}

impl Affinity {
    /// Sessions that were served at `since_ms` or later: key, credential, when.
    pub(crate) fn used_since(&self, since_ms: u64) -> Vec<(u64, CredentialId, u64)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            // An old binding with a young one of the same key is history.
            let old = shard.old.iter().filter(|(key, _)| !shard.young.contains_key(key));
            let used = shard.young.iter().chain(old).filter(|(_, binding)| binding.used_ms >= since_ms);
            found.extend(used.map(|(key, binding)| (*key, binding.credential.clone(), binding.used_ms)));
        }
        found
    }

    /// Whether a session is remembered.
    pub(crate) fn remembers(&self, key: u64) -> bool {
        let shard = self.shard(key).lock();
        shard.young.contains_key(&key) || shard.old.contains_key(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_lives_as_long_as_it_is_used() {
        let affinity = Affinity::default();
        let id = CredentialId::new("a");
        let ask = |now_ms| affinity.session(7, "m", 1000, now_ms);
        let key = ask(0).key;
        assert_eq!(ask(0).credential, None);
        affinity.bind(key, &id, 0);
        assert_eq!(ask(1000).credential, Some(id.clone()));
        affinity.bind(key, &id, 1000);
        assert_eq!(ask(2000).credential, Some(id));
        assert_eq!(ask(2001).credential, None);
        assert_ne!(affinity.session(7, "other", 1000, 0).key, key);
        assert_ne!(affinity.session(8, "m", 1000, 0).key, key);
    }

    #[test]
    fn only_the_credential_that_holds_a_session_can_let_it_go() {
        let affinity = Affinity::default();
        let (a, b) = (CredentialId::new("a"), CredentialId::new("b"));
        let key = affinity.session(7, "m", 1000, 0).key;
        affinity.bind(key, &a, 0);
        affinity.unbind(key, &b);
        assert_eq!(affinity.session(7, "m", 1000, 0).credential, Some(a.clone()));
        affinity.bind(key, &b, 1);
        affinity.unbind(key, &a);
        assert_eq!(affinity.session(7, "m", 1000, 1).credential, Some(b.clone()));
        affinity.unbind(key, &b);
        assert_eq!(affinity.session(7, "m", 1000, 1).credential, None);
    }

    #[test]
    fn memory_is_bounded_and_the_recent_stay() {
        let affinity = Affinity::default();
        let id = CredentialId::new("a");
        for session in 0..300_000 {
            let key = affinity.session(session, "m", 1000, 0).key;
            affinity.bind(key, &id, 0);
        }
        let size = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            shard.young.len() + shard.old.len()
        };
        let kept: usize = affinity.shards.iter().map(size).sum();
        assert!(kept <= SHARDS * GENERATION * 2, "{kept}");
        assert!(affinity.session(299_999, "m", 1000, 0).credential.is_some());
    }
}
