//! Keys of old versions → where they belong now.
//!
//! Enters: `auth`, `generative-language-api-key`, `openai-compatibility[].api-keys`. Leaves: the same in
//! `proxy-url`, `api-keys`, `gemini-api-key`, `api-key-entries`, with a warning each: silence would let
//! everybody in, or nobody out. Nothing may go wrong.

use crate::proxy::ProxySetting;
use crate::report::Report;
use crate::tree::Place;
use crate::{ClientKey, CompatKey, Config, KeyEntry};

/// Moves what old keys say.
pub(super) fn migrate(config: &mut Config, report: &mut Report<'_, '_>) {
    let old = std::mem::take(&mut config.auth.auth);
    let block = Place::Root.key("auth");
    if old.proxy_url != ProxySetting::Inherit {
        let place = block.key("proxy-url");
        if config.providers.proxy_url == ProxySetting::Inherit {
            report
                .warn(&place, "deprecated, used as the proxy of all credentials; write proxy-url at the top");
            config.providers.proxy_url = old.proxy_url;
        } else {
            report.warn(&place, "deprecated and ignored: proxy-url at the top counts");
        }
    }
    let providers = block.key("providers");
    for (n, provider) in old.providers.into_iter().enumerate() {
        let place = providers.item(n);
        if !provider.api_keys.is_empty() {
            report.warn(&place, "deprecated, its keys are added to api-keys; list them there");
            config.auth.api_keys.extend(provider.api_keys.into_iter().map(ClientKey::from));
        } else if config.auth.api_keys.is_empty() {
            report.error(&place, "it has no keys, and there are no api-keys: everybody would be let in");
        } else {
            report.warn(&place, "deprecated and ignored: client keys are listed in api-keys");
        }
    }
    let keys = std::mem::take(&mut config.providers.generative_language_api_key);
    if !keys.is_empty() {
        let place = Place::Root.key("generative-language-api-key");
        report.warn(&place, "deprecated, its keys are added to gemini-api-key; list them there");
    }
    let entry = |api_key| KeyEntry { api_key, ..KeyEntry::default() };
    config.providers.gemini_api_key.extend(keys.into_iter().map(entry));
    let list = Place::Root.key("openai-compatibility");
    for (n, provider) in config.providers.openai_compatibility.iter_mut().enumerate() {
        let keys = std::mem::take(&mut provider.api_keys);
        if !keys.is_empty() {
            let place = list.item(n);
            report.warn(&place.key("api-keys"), "deprecated, moved to api-key-entries; list them there");
        }
        let entry = |api_key| CompatKey { api_key, ..CompatKey::default() };
        provider.api_key_entries.extend(keys.into_iter().map(entry));
    }
}

#[cfg(test)]
mod tests {
    use crate::{ProxySetting, load};

    #[test]
    fn what_old_keys_say_is_used_and_said() {
        let text = "auth:\n  proxy-url: http://p:1\n  providers:\n    - {name: d, type: config-api-key, api-keys: [a]}\n\
                    generative-language-api-key: [g]\n\
                    openai-compatibility: [{name: o, base-url: 'http://h', api-keys: [k], models: [{name: m}]}]\n";
        let loaded = load(text.as_bytes()).unwrap();
        assert_eq!(loaded.warnings.len(), 4);
        assert!(loaded.warnings.iter().all(|warning| warning.problem.contains("deprecated")));
        let config = loaded.config;
        assert!(matches!(config.providers.proxy_url, ProxySetting::Url(_)));
        assert_eq!(config.auth.api_keys[0].expose_secret(), "a");
        assert_eq!(config.providers.gemini_api_key[0].api_key.expose_secret(), "g");
        let closed = load(b"auth: {providers: [{name: p, type: plugin}]}").unwrap_err();
        assert!(closed.notices[0].problem.contains("everybody"));
        assert_eq!(config.providers.openai_compatibility[0].api_key_entries[0].api_key.expose_secret(), "k");
    }
}
