//! Client keys: who may ask.
//!
//! Enters: the keys of the configuration and the places where clients put theirs. Leaves: which key it was,
//! by number. May go wrong: no key, or a wrong one (401).
//!
//! Keys are looked up by their SHA-256 digest and compared in constant time, so that neither length nor a
//! common prefix shows in the time it takes.

use super::query::query_value;
use http::HeaderMap;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use subtle::ConstantTimeEq;

/// The keys of the configuration.
#[derive(Debug, Default)]
pub struct ClientKeys {
    /// First eight bytes of a digest → its number and the whole.
    known: HashMap<u64, (u32, [u8; 32])>,
    /// The start of each key's digest, by its number.
    scopes: Vec<u64>,
    templates: bool,
}

/// What a client showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// A known key, by its number in the configuration.
    Key(u32),
    /// No key is configured: anyone may ask.
    Open,
    /// No key came.
    Missing,
    /// Only wrong keys came.
    Wrong,
}

impl ClientKeys {
    /// Reads the keys. Blank ones are no keys.
    pub fn new<'k>(keys: impl Iterator<Item = &'k str>) -> Self {
        let mut known = HashMap::new();
        let mut templates = false;
        let mut scopes = Vec::new();
        for (number, key) in keys.enumerate() {
            let key = key.trim();
            scopes.push(short(&digest(key)));
            if key.is_empty() {
                continue;
            }
            templates |= config::TEMPLATE_KEYS.contains(&key);
            let digest = digest(key);
            known.insert(short(&digest), (u32::try_from(number).unwrap_or(u32::MAX), digest));
        }
        Self { known, scopes, templates }
    }

    /// Whether anyone may ask.
    pub fn is_open(&self) -> bool {
        self.known.is_empty()
    }

    /// What a key has and no other: the same after a reload, wherever the key stands then.
    pub fn scope(&self, number: u32) -> u64 {
        self.scopes.get(number as usize).copied().unwrap_or(0)
    }

    /// Whether a key of the example configuration is still there.
    pub fn has_templates(&self) -> bool {
        self.templates
    }

    /// Looks in every place where clients put keys. A right key beside a wrong one counts.
    pub fn admit(&self, headers: &HeaderMap, query: Option<&str>) -> Admission {
        if self.is_open() {
            return Admission::Open;
        }
        let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
        let authorization = header("authorization").map(without_bearer);
        let from_query = [query_value(query, "key"), query_value(query, "auth_token")];
        let shown = [authorization, header("x-goog-api-key"), header("x-api-key")]
            .into_iter()
            .chain(from_query.iter().map(Option::as_deref))
            .flatten()
            .filter(|key| !key.is_empty());
        let mut any = false;
        for key in shown {
            any = true;
            if let Some(number) = self.find(key.trim()) {
                return Admission::Key(number);
            }
        }
        if any { Admission::Wrong } else { Admission::Missing }
    }

    fn find(&self, key: &str) -> Option<u32> {
        let digest = digest(key);
        let (number, known) = self.known.get(&short(&digest))?;
        bool::from(known.ct_eq(&digest)).then_some(*number)
    }
}

fn without_bearer(value: &str) -> &str {
    match value.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key.trim(),
        _ => value,
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn short(digest: &[u8; 32]) -> u64 {
    digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn keys(list: &[&str]) -> ClientKeys {
        ClientKeys::new(list.iter().copied())
    }

    fn with(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_static(value))])
    }

    #[test]
    fn every_place_of_a_key_counts() {
        let keys = keys(&["one", "  padded-key  "]);
        let none = HeaderMap::new();
        for headers in [
            with("authorization", "Bearer padded-key"),
            with("authorization", "bearer  padded-key "),
            with("authorization", "padded-key"),
            with("x-api-key", "padded-key"),
            with("x-goog-api-key", "padded-key"),
        ] {
            assert_eq!(keys.admit(&headers, None), Admission::Key(1), "{headers:?}");
        }
        assert_eq!(keys.admit(&none, Some("alt=sse&key=one")), Admission::Key(0));
        assert_eq!(keys.admit(&none, Some("auth_token=one")), Admission::Key(0));
        assert_eq!(keys.admit(&with("x-api-key", "no"), Some("key=one")), Admission::Key(0));
        assert_eq!(keys.admit(&with("x-api-key", "no"), None), Admission::Wrong);
        assert_eq!(keys.admit(&none, None), Admission::Missing);
    }

    #[test]
    fn a_key_keeps_its_scope_wherever_it_stands() {
        let (before, after) = (keys(&["one", "two"]), keys(&["", "two", " one"]));
        assert_eq!((before.scope(0), before.scope(1)), (after.scope(2), after.scope(1)));
        assert_ne!(before.scope(0), before.scope(1));
    }

    #[test]
    fn no_key_is_open_and_templates_are_noticed() {
        assert_eq!(keys(&["", "  "]).admit(&HeaderMap::new(), None), Admission::Open);
        assert!(keys(&["your-api-key-2"]).has_templates());
        assert!(!keys(&["mine"]).has_templates());
    }
}
