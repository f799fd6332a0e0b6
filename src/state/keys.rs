//! Client keys: who may ask, for what, and how much.
//!
//! Enters: the keys of the configuration and the places where clients put theirs. Leaves: which key it was,
//! by number, and its [`Holder`]. May go wrong: no key, or a wrong one (401).
//!
//! Keys are looked up by their SHA-256 digest and compared in constant time, so that neither length nor a
//! common prefix shows in the time it takes.

use super::query::query_value;
use config::{ClientKey, Expiry};
use http::HeaderMap;
use pool::budget::{Limits, Meter, Refusal};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use wildmatch::WildMatchPattern;

/// The keys of the configuration.
#[derive(Debug, Default)]
pub struct ClientKeys {
    /// First eight bytes of a digest → its number and the whole.
    known: HashMap<u64, (u32, [u8; 32])>,
    /// By number.
    holders: Vec<Arc<Holder>>,
    templates: bool,
}

/// Whoever holds a key: what it is good for, and what was used of it.
#[derive(Debug)]
pub struct Holder {
    /// What people call it; never the key.
    pub name: Arc<str>,
    /// What may be shown of the key.
    pub masked: Arc<str>,
    expires: Expiry,
    models: Vec<WildMatchPattern<'*', '\0'>>,
    /// With a slash at the end.
    prefixes: Vec<String>,
    limits: Limits,
    /// Outlives reloads under the same key.
    meter: Arc<Meter>,
    digest: KeyDigest,
}

/// The digest of a key. Never shown: that of a short key gives the key away.
#[derive(Clone, Copy)]
struct KeyDigest([u8; 32]);

impl std::fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyDigest(hidden)")
    }
}

/// A request under way counts for its key until this is dropped.
#[derive(Debug)]
pub struct Permit(Option<Arc<Meter>>);

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(meter) = &self.0 {
            meter.end();
        }
    }
}

impl Holder {
    fn new(key: &ClientKey, number: usize, digest: [u8; 32], meter: Arc<Meter>) -> Self {
        let name = match key.name.as_str() {
            "" => Arc::from(format!("number {}", number + 1)),
            name => Arc::from(name),
        };
        Self {
            name,
            masked: Arc::from(key.api_key.masked()),
            expires: key.expires,
            models: key.allowed_models.iter().map(|pattern| WildMatchPattern::new(pattern)).collect(),
            prefixes: key.allowed_prefixes.iter().map(|prefix| format!("{prefix}/")).collect(),
            limits: Limits::of(key.max_concurrency, key.rpm, key.tpm),
            meter,
            digest: KeyDigest(digest),
        }
    }

    /// What the key has and no other: the same after a reload, wherever the key stands then.
    pub fn scope(&self) -> u64 {
        short(&self.digest.0)
    }

    /// When it stopped to be good, if it did.
    pub fn expired(&self, wall_s: u64) -> Option<Expiry> {
        self.expires.is_over(wall_s).then_some(self.expires)
    }

    /// Whether it may use only some models.
    pub fn is_restricted(&self) -> bool {
        !self.models.is_empty() || !self.prefixes.is_empty()
    }

    /// Whether it may use a model, by the name under which the model is listed.
    pub fn allows(&self, model: &str) -> bool {
        if !self.is_restricted() {
            return true;
        }
        let model = model.to_lowercase();
        self.models.iter().any(|pattern| pattern.matches(&model))
            || self.prefixes.iter().any(|prefix| model.starts_with(prefix))
    }

    /// Its limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Begins a request, if no limit is reached.
    pub fn begin(&self, now_ms: u64) -> Result<Permit, Refusal> {
        if self.limits.is_open() {
            return Ok(Permit(None));
        }
        self.meter.begin(&self.limits, now_ms)?;
        Ok(Permit(Some(Arc::clone(&self.meter))))
    }

    /// A request has cost so many tokens.
    pub fn charge(&self, tokens: u64, now_ms: u64) {
        if self.limits.tpm.is_some() {
            self.meter.charge(tokens, now_ms);
        }
    }
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
    /// Reads the keys. Blank ones are no keys. What was used of a key that was there `before` still counts.
    pub fn new(keys: &[ClientKey], before: &Self) -> Self {
        let mut made = Self::default();
        for (number, key) in keys.iter().enumerate() {
            let text = key.expose_secret().trim();
            let digest = digest(text);
            let meter = before.holder_of(&digest).map(|holder| Arc::clone(&holder.meter)).unwrap_or_default();
            made.holders.push(Arc::new(Holder::new(key, number, digest, meter)));
            if !text.is_empty() {
                made.templates |= config::TEMPLATE_KEYS.contains(&text);
                made.known.insert(short(&digest), (u32::try_from(number).unwrap_or(u32::MAX), digest));
            }
        }
        made
    }

    /// Who holds a key, by its number.
    pub fn holder(&self, number: u32) -> Option<&Arc<Holder>> {
        self.holders.get(number as usize)
    }

    /// Who holds the same key here; `None`: it is none any more.
    pub fn successor(&self, holder: &Holder) -> Option<Arc<Holder>> {
        self.holder_of(&holder.digest.0).cloned()
    }

    /// Who holds a key, by the key or by its name.
    pub fn holder_named(&self, text: &str) -> Option<&Arc<Holder>> {
        let by_key = self.find(text.trim()).and_then(|number| self.holder(number));
        by_key.or_else(|| self.holders.iter().find(|holder| &*holder.name == text))
    }

    /// Whether anyone may ask.
    pub fn is_open(&self) -> bool {
        self.known.is_empty()
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
        self.number_of(&digest(key))
    }

    fn number_of(&self, digest: &[u8; 32]) -> Option<u32> {
        let (number, known) = self.known.get(&short(digest))?;
        bool::from(known.ct_eq(digest)).then_some(*number)
    }

    fn holder_of(&self, digest: &[u8; 32]) -> Option<&Arc<Holder>> {
        self.holder(self.number_of(digest)?)
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
        let list: Vec<_> = list.iter().map(|key| ClientKey::from(*key)).collect();
        ClientKeys::new(&list, &ClientKeys::default())
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

    fn profile(yaml: &str, before: &ClientKeys) -> ClientKeys {
        let text = format!("api-keys: [{yaml}]");
        let config = config::load(text.as_bytes()).unwrap_or_else(|broken| panic!("{broken}")).config;
        ClientKeys::new(&config.auth.api_keys, before)
    }

    #[test]
    fn a_key_is_good_for_what_fits_a_pattern_or_stands_under_a_prefix() {
        let keys = profile(
            "{api-key: k, allowed-models: ['gpt-*', exact], allowed-prefixes: [Team-A/]}, plain",
            &ClientKeys::default(),
        );
        let holder = keys.holder(0).unwrap();
        for (model, allowed) in [
            ("gpt-5", true),
            ("GPT-5", true),
            ("exact", true),
            ("exact-not", false),
            ("team-a/claude", true),
            ("team-a", false),
            ("team-ab/x", false),
            ("other/gpt-5", false),
        ] {
            assert_eq!(holder.allows(model), allowed, "{model}");
            assert!(keys.holder(1).unwrap().allows(model));
        }
        assert_eq!(&*holder.name, "number 1");
        assert!(!format!("{keys:?}").contains("plain"));
    }

    #[test]
    fn a_reload_keeps_what_was_used_of_the_same_key() {
        let old = profile("other, {api-key: k, rpm: 2, max-concurrency: 9}", &ClientKeys::default());
        let first = old.holder(1).unwrap().begin(0).unwrap();
        let new = profile("{api-key: k, rpm: 2, name: renamed}", &old);
        let second = new.holder_named("renamed").unwrap().begin(1).unwrap();
        assert_eq!(&*new.successor(old.holder(1).unwrap()).unwrap().name, "renamed");
        assert!(new.successor(old.holder(0).unwrap()).is_none(), "it was withdrawn");
        assert!(new.holder(0).unwrap().begin(2).is_err());
        drop((first, second));
        assert!(new.holder(0).unwrap().begin(60_001).is_ok());
        assert!(profile("{api-key: another, rpm: 2}", &new).holder(0).unwrap().begin(60_002).is_ok());
    }

    #[test]
    fn a_key_keeps_its_scope_wherever_it_stands() {
        let (before, after) = (keys(&["one", "two"]), keys(&["", "two", " one"]));
        let scope = |keys: &ClientKeys, number| keys.holder(number).unwrap().scope();
        assert_eq!((scope(&before, 0), scope(&before, 1)), (scope(&after, 2), scope(&after, 1)));
        assert_ne!(scope(&before, 0), scope(&before, 1));
    }

    #[test]
    fn no_key_is_open_and_templates_are_noticed() {
        assert_eq!(keys(&["", "  "]).admit(&HeaderMap::new(), None), Admission::Open);
        assert!(keys(&["your-api-key-2"]).has_templates());
        assert!(!keys(&["mine"]).has_templates());
    }
}
