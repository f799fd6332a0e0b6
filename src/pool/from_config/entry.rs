//! Entries of the lists of keys, one by one.
//!
//! Enters: a [`KeyEntry`] or an [`OpenaiCompatibility`] block. Leaves: [`CredentialSpec`]s. May go wrong: an
//! error rule whose pattern is no regular expression is left out and told in [`Maker::problems`].

use std::collections::HashMap;
use std::sync::Arc;

use config::{
    ErrorAction, HeaderValue, Headers, KeyEntry, ModelEntry, OpenaiCompatibility, ProxySetting, ProxyUrl,
    Secret,
};
use secrecy::SecretString;
use wildmatch::WildMatchPattern;
use wire::target::Card;

use super::id;
use crate::budget::Limits;
use crate::catalogue::{self, Facts};
use crate::credential::{CredentialId, CredentialSpec, Kind, Proxy};
use crate::found::FoundModel;
use crate::model::{ModelSet, ModelSpec};
use crate::rules::{ErrorRule, RuleAction};

/// `*` stands for anything, and nothing else is special.
pub(super) type Pattern = WildMatchPattern<'*', '\0'>;

/// What a set of models is made of: the channel, the entry's list (empty: the channel's catalogue), patterns.
type Served<'c> = (&'static str, &'c [ModelEntry], &'c [String]);

/// Sets with the same channel, number of models and first model.
type Alike<'c> = Vec<(Served<'c>, Arc<ModelSet>)>;

/// Makes credentials.
#[derive(Debug, Default)]
pub(super) struct Maker<'c> {
    /// Sets made so far, by what finds them fast: keys that serve the same share one.
    sets: HashMap<(&'static str, usize, &'c str), Alike<'c>>,
    /// What could not be used, one sentence each.
    pub(super) problems: Vec<String>,
}

impl<'c> Maker<'c> {
    /// The credential of entry number `n` of a list.
    pub(super) fn key(
        &mut self,
        kind: Kind,
        provider: &'static str,
        base_url: &str,
        entry: &'c KeyEntry,
        n: usize,
    ) -> CredentialSpec {
        let models = self.set((provider, &entry.models, &entry.excluded_models));
        let place = format!("{provider}#{}", n + 1);
        let proxy = proxy(&entry.proxy_url);
        let headers = headers(&entry.headers);
        CredentialSpec {
            label: Arc::from(place.as_str()),
            base_url: Arc::from(base_url),
            prefix: prefix(&entry.prefix),
            priority: priority(entry.priority),
            weight: entry.weight.0,
            disable_cooling: entry.disable_cooling,
            request_retry: entry.request_retry,
            request_scoped_errors: self.rules(&entry.request_scoped_errors, &place),
            secret: secret(&entry.api_key),
            timeouts: entry.timeouts,
            ..CredentialSpec::new(
                identity(provider, &entry.api_key, base_url, &proxy, &entry.prefix, &headers),
                provider,
                kind,
                models,
            )
        }
        .reached(headers, proxy)
        .limited(Limits::of(entry.max_concurrency, entry.rpm, entry.tpm))
    }

    /// The credentials of a block: one per key, or one without a key.
    pub(super) fn compat(&mut self, block: &'c OpenaiCompatibility) -> Vec<CredentialSpec> {
        let base_url = block.base_url.as_ref().map(config::BaseUrl::as_str).unwrap_or_default();
        let kind = Kind::of_chat_server(base_url);
        // A block serves what it lists; the catalogue only adds facts.
        let channel = if block.models.is_empty() { "" } else { kind.chat_channel() };
        let models = self.set((channel, &block.models, &block.excluded_models));
        let rules = self.rules(&block.request_scoped_errors, &block.name);
        let headers = headers(&block.headers);
        let keyless = [config::CompatKey::default()];
        let keys = if block.api_key_entries.is_empty() { &keyless } else { block.api_key_entries.as_slice() };
        let credential = |(n, key): (usize, &config::CompatKey)| {
            let proxy = proxy(key.proxy_url.or(&block.proxy_url));
            let name = format!("compat:{}", block.name);
            CredentialSpec {
                label: Arc::from(format!("{}#{}", block.name, n + 1)),
                base_url: Arc::from(base_url),
                prefix: prefix(&block.prefix),
                priority: priority(block.priority),
                weight: key.weight.0,
                disable_cooling: block.disable_cooling,
                request_retry: block.request_retry,
                request_scoped_errors: Arc::clone(&rules),
                secret: secret(&key.api_key),
                timeouts: block.timeouts,
                disabled: block.disabled,
                ..CredentialSpec::new(
                    identity(&name, &key.api_key, base_url, &proxy, &block.prefix, &headers),
                    &block.name,
                    kind,
                    Arc::clone(&models),
                )
            }
            .reached(headers.clone(), proxy)
            .limited(Limits::of(key.max_concurrency, key.rpm, key.tpm))
        };
        keys.iter().enumerate().map(credential).collect()
    }

    fn set(&mut self, served: Served<'c>) -> Arc<ModelSet> {
        let (channel, models, excluded) = served;
        let first = models.first().map_or("", |model| &model.alias);
        let alike = self.sets.entry((channel, models.len(), first)).or_default();
        if let Some((_, set)) = alike.iter().find(|(known, _)| *known == served) {
            return Arc::clone(set);
        }
        let patterns = patterns(excluded);
        let kept = |model: &ModelSpec| !excludes(&patterns, &model.upstream);
        let set = if models.is_empty() {
            ModelSet::new(catalogue::channel(channel).iter().map(Facts::spec).filter(kept))
        } else {
            ModelSet::new(models.iter().map(|entry| model(entry, channel)).filter(kept))
        };
        alike.push((served, Arc::clone(&set)));
        set
    }

    pub(super) fn rules(&mut self, rules: &[config::ErrorRule], place: &str) -> Arc<[ErrorRule]> {
        let mut made = Vec::with_capacity(rules.len());
        for rule in rules {
            let action = match rule.action {
                Some(ErrorAction::Stop) => RuleAction::Stop,
                Some(ErrorAction::StopAndCooldown) => RuleAction::StopAndCooldown,
                Some(ErrorAction::Continue) => RuleAction::Continue,
                Some(ErrorAction::ContinueAndCooldown) => RuleAction::ContinueAndCooldown,
                // The loader leaves such rules out, with a warning.
                None => continue,
            };
            match ErrorRule::new(rule.status, rule.contains.clone(), &rule.match_regexr, action) {
                Ok(rule) => made.push(rule),
                Err(problem) => self.problems.push(format!("{place}: request-scoped-errors: {problem}")),
            }
        }
        made.into()
    }
}

/// The set of models that an upstream listed.
pub(super) fn found(models: &[FoundModel], excluded: &[String]) -> Arc<ModelSet> {
    let patterns = patterns(excluded);
    let models = models.iter().map(|model| ModelSpec::new(&model.id, &model.id));
    ModelSet::new(models.filter(|m| !excludes(&patterns, &m.upstream)))
}

impl CredentialSpec {
    pub(super) fn reached(self, headers: Vec<(String, SecretString)>, proxy: Proxy) -> Self {
        Self { headers, proxy, ..self }
    }
}

fn identity(
    name: &str,
    key: &Secret,
    base_url: &str,
    proxy: &Proxy,
    prefix: &str,
    headers: &[(String, SecretString)],
) -> CredentialId {
    use secrecy::ExposeSecret;
    let proxy = match proxy {
        Proxy::Global => "",
        Proxy::Direct => "direct",
        Proxy::Url(url) => url.expose_secret(),
        Proxy::Invalid(problem) => problem,
    };
    let mut parts = vec![name, key.expose_secret(), base_url, proxy, prefix];
    for (name, value) in headers {
        parts.extend([name.as_str(), value.expose_secret()]);
    }
    id(name.split(':').next().unwrap_or(name), &parts)
}

fn secret(key: &Secret) -> SecretString {
    SecretString::from(key.expose_secret())
}

pub(super) fn prefix(prefix: &str) -> Option<Arc<str>> {
    (!prefix.is_empty()).then(|| Arc::from(prefix))
}

pub(super) fn priority(priority: i64) -> i32 {
    i32::try_from(priority).unwrap_or(if priority < 0 { i32::MIN } else { i32::MAX })
}

pub(super) fn headers(headers: &Headers) -> Vec<(String, SecretString)> {
    let text = |value: &HeaderValue| match value {
        HeaderValue::Literal(secret) => SecretString::from(secret.expose_secret()),
        HeaderValue::CopyFrom(name) => SecretString::from(format!("${name}")),
    };
    headers.0.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

pub(super) fn proxy(setting: &ProxySetting) -> Proxy {
    match setting {
        ProxySetting::Inherit => Proxy::Global,
        ProxySetting::Direct => Proxy::Direct,
        ProxySetting::Url(url) => Proxy::Url(SecretString::from(url_text(url))),
        ProxySetting::Invalid { problem, .. } => Proxy::Invalid(problem.clone()),
    }
}

/// The URL with its login, as it can be read again.
fn url_text(url: &ProxyUrl) -> String {
    let encoded = |secret: &Secret| -> String {
        let byte = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        };
        secret.expose_secret().bytes().map(byte).collect()
    };
    let login =
        url.login.as_ref().map(|login| format!("{}:{}@", encoded(&login.user), encoded(&login.password)));
    let (open, close) = if url.host.contains(':') { ("[", "]") } else { ("", "") };
    let login = login.unwrap_or_default();
    format!("{}://{login}{open}{}{close}:{}", url.scheme.name(), url.host, url.port)
}

pub(super) fn patterns(excluded: &[String]) -> Vec<Pattern> {
    excluded.iter().map(|pattern| Pattern::new(&pattern.to_lowercase())).collect()
}

pub(super) fn excludes(patterns: &[Pattern], upstream: &str) -> bool {
    let upstream = upstream.to_lowercase();
    patterns.iter().any(|pattern| pattern.matches(&upstream))
}

/// A model that an entry lists, with what the catalogue of `channel` knows of it.
fn model(entry: &ModelEntry, channel: &str) -> ModelSpec {
    let plain = ModelSpec::new(&entry.name, &entry.alias);
    let facts = catalogue::lookup(channel, &plain.upstream);
    let known = facts.map(Facts::spec).unwrap_or_default();
    ModelSpec {
        card: Card {
            thinking: entry.thinking.as_ref().map_or(known.card.thinking, config::ThinkingBounds::support),
            context: (entry.max_context_length > 0)
                .then_some(entry.max_context_length)
                .or(known.card.context),
            ..known.card
        },
        force_mapping: entry.force_mapping,
        image: entry.image || known.image,
        is_compat: entry.is_compat,
        display_name: match entry.display_name.as_str() {
            "" => known.display_name,
            name => Some(Arc::from(name)),
        },
        responses_only: known.responses_only,
        version: known.version,
        owned_by: known.owned_by,
        created: known.created,
        input: kinds(&entry.input_modalities, &known.input),
        output: kinds(&entry.output_modalities, &known.output),
        ..plain
    }
}

/// Kinds of content as configured, or as known where nothing is.
pub(super) fn kinds(configured: &[String], known: &Arc<[Arc<str>]>) -> Arc<[Arc<str>]> {
    match configured {
        [] => Arc::clone(known),
        some => some.iter().map(|kind| Arc::from(kind.as_str())).collect(),
    }
}
