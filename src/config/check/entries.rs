//! Entries of the lists of keys.
//!
//! Enters: [`Providers`]. Leaves: entries that can be used. May go wrong: thinking budgets that contradict
//! themselves; everything else that is wrong with an entry is a warning.

use super::proxy;
use crate::report::Report;
use crate::tree::Place;
use crate::{
    Block, ClientKey, ErrorRule, KeyEntry, ModelEntry, OpenaiCompatibility, Providers, ThinkingWord,
};
use std::collections::{BTreeMap, HashSet};

/// Checks and cleans all entries.
pub(super) fn check(providers: &mut Providers, report: &mut Report<'_, '_>) {
    for block in Block::ALL {
        key_block(*block, providers.entries_mut(*block), report);
    }
    compat_block(&mut providers.openai_compatibility, report);
    let place = Place::Root.key("oauth-request-scoped-errors");
    for (channel, list) in &mut providers.oauth_request_scoped_errors {
        rules(list, &place.key(channel), report);
    }
    lower_channels(&mut providers.oauth_request_scoped_errors);
    lower_channels(&mut providers.oauth_upstream);
}

/// Names of models are the same in any case; what is blank says nothing.
pub(super) fn client_key(key: &mut ClientKey) {
    lower_patterns(&mut key.allowed_models);
    let prefixes = std::mem::take(&mut key.allowed_prefixes);
    let bare = |prefix: &String| prefix.trim().trim_end_matches('/').to_lowercase();
    key.allowed_prefixes = prefixes.iter().map(bare).filter(|prefix| !prefix.is_empty()).collect();
}

/// Channels are the same in any case.
pub(super) fn lower_channels<T>(channels: &mut BTreeMap<String, T>) {
    if channels.keys().any(|name| *name != name.trim().to_lowercase()) {
        let all = std::mem::take(channels);
        channels.extend(all.into_iter().map(|(name, value)| (name.trim().to_lowercase(), value)));
    }
}

fn key_block(block: Block, entries: &mut Vec<KeyEntry>, report: &mut Report<'_, '_>) {
    let list = Place::Root.key(block.key());
    let mut kept: Vec<KeyEntry> = Vec::with_capacity(entries.len());
    for (n, mut entry) in std::mem::take(entries).into_iter().enumerate() {
        let place = list.item(n);
        prefix(&mut entry.prefix, &place.key("prefix"), report);
        lower_patterns(&mut entry.excluded_models);
        models(&mut entry.models, block == Block::Vertex, &place.key("models"), report);
        rules(&mut entry.request_scoped_errors, &place.key("request-scoped-errors"), report);
        proxy(&entry.proxy_url, "credential", &place.key("proxy-url"), report);
        misplaced(block, &entry, &place, report);
        if let Some(missing) = missing(block, &entry) {
            report.warn(&place, format!("left out: {missing}"));
        } else if kept.iter().any(|other| same(block, other, &entry)) {
            report.warn(&place, "left out: it says the same as an entry before it");
        } else {
            kept.push(entry);
        }
    }
    *entries = kept;
}

/// Without what an entry of this list is of no use.
fn missing(block: Block, entry: &KeyEntry) -> Option<&'static str> {
    let (key, url) = (!entry.api_key.is_empty(), entry.base_url.is_some());
    match block {
        Block::Gemini | Block::Interactions if !key && !url => Some("it has neither api-key nor base-url"),
        Block::Claude if !key && !url && entry.headers.0.is_empty() => {
            Some("it has neither api-key nor base-url nor headers")
        }
        Block::Codex | Block::Xai if !url => Some("it has no base-url"),
        Block::Vertex if !key => Some("it has no api-key"),
        _ if block.preset_url().is_some() && !key && entry.token_file.is_empty() => {
            Some("it has neither api-key nor token-file")
        }
        _ => None,
    }
}

/// Whether two entries are the same credential. Only these lists are free of repetitions: elsewhere the same
/// key twice is a way to give it more turns.
fn same(block: Block, a: &KeyEntry, b: &KeyEntry) -> bool {
    let place = a.api_key == b.api_key && a.base_url == b.base_url;
    match block {
        Block::Gemini | Block::Interactions => {
            place && a.proxy_url == b.proxy_url && a.prefix == b.prefix && a.headers == b.headers
        }
        Block::Vertex => place,
        _ => false,
    }
}

/// Settings that mean nothing in this list.
fn misplaced(block: Block, entry: &KeyEntry, place: &Place<'_>, report: &mut Report<'_, '_>) {
    let preset = block.preset_url().is_some();
    for (key, set, fits) in [
        ("websockets", entry.websockets, matches!(block, Block::Codex | Block::Xai)),
        ("alpha-search", entry.alpha_search, block == Block::Codex),
        ("rebuild-mid-system-message", entry.rebuild_mid_system_message, block == Block::Claude),
        ("token-file", !entry.token_file.is_empty(), preset),
    ] {
        if set && !fits {
            report.warn(&place.key(key), "it has no effect in this list");
        }
    }
}

fn compat_block(providers: &mut Vec<OpenaiCompatibility>, report: &mut Report<'_, '_>) {
    let list = Place::Root.key("openai-compatibility");
    let mut names = HashSet::new();
    let mut n = 0;
    providers.retain_mut(|provider| {
        let place = list.item(n);
        n += 1;
        compat_provider(provider, &place, report);
        let Some(url) = &provider.base_url else {
            report.warn(&place, "left out: it has no base-url");
            return false;
        };
        if provider.name.is_empty() {
            url.url().host_str().unwrap_or_default().clone_into(&mut provider.name);
            report.warn(&place, format!("it has no name and is called {}", provider.name));
        }
        if !names.insert(provider.name.to_lowercase()) {
            report.warn(&place.key("name"), "the name is taken by an entry before it; metrics add them up");
        }
        true
    });
}

fn compat_provider(provider: &mut OpenaiCompatibility, place: &Place<'_>, report: &mut Report<'_, '_>) {
    provider.name = provider.name.trim().to_owned();
    prefix(&mut provider.prefix, &place.key("prefix"), report);
    lower_patterns(&mut provider.excluded_models);
    models(&mut provider.models, false, &place.key("models"), report);
    rules(&mut provider.request_scoped_errors, &place.key("request-scoped-errors"), report);
    proxy(&provider.proxy_url, "provider", &place.key("proxy-url"), report);
    let keys = place.key("api-key-entries");
    for (n, key) in provider.api_key_entries.iter().enumerate() {
        let place = keys.item(n);
        proxy(&key.proxy_url, "credential", &place.key("proxy-url"), report);
    }
}

fn prefix(prefix: &mut String, place: &Place<'_>, report: &mut Report<'_, '_>) {
    let trimmed = prefix.trim().trim_matches('/').trim();
    if trimmed.contains('/') {
        report.warn(place, "a prefix holds no slash inside; it is ignored");
        prefix.clear();
    } else if trimmed.len() != prefix.len() {
        *prefix = trimmed.to_owned();
    }
}

/// Patterns of model names: lower case, each once.
pub(super) fn lower_patterns(patterns: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for pattern in patterns.iter_mut() {
        *pattern = pattern.trim().to_lowercase();
    }
    patterns.retain(|pattern| !pattern.is_empty() && seen.insert(pattern.clone()));
}

fn models(models: &mut Vec<ModelEntry>, needs_alias: bool, list: &Place<'_>, report: &mut Report<'_, '_>) {
    let mut n = 0;
    models.retain_mut(|model| {
        let place = list.item(n);
        n += 1;
        model.name = model.name.trim().to_owned();
        model.alias = model.alias.trim().to_owned();
        if let Some(thinking) = &mut model.thinking {
            thinking.levels.retain(|word| *word != ThinkingWord::Unknown);
            if thinking.max > 0 && thinking.min > thinking.max {
                report.error(&place.key("thinking"), "min is larger than max");
            }
        }
        if model.name.is_empty() {
            report.warn(&place, "left out: it has no name");
            return false;
        }
        if model.alias.is_empty() {
            if needs_alias {
                report.warn(&place, "left out: it has no alias");
                return false;
            }
            model.alias.clone_from(&model.name);
        }
        true
    });
}

fn rules(rules: &mut Vec<ErrorRule>, list: &Place<'_>, report: &mut Report<'_, '_>) {
    let mut n = 0;
    rules.retain_mut(|rule| {
        let place = list.item(n);
        n += 1;
        rule.contains.retain(|text| !text.is_empty());
        rule.match_regexr.retain(|text| !text.is_empty());
        if rule.action.is_none() {
            report.warn(&place.key("action"), "the rule has no action and is left out");
        } else if !(100..600).contains(&rule.status) {
            report.warn(&place, "left out: it has no status of HTTP");
        } else if rule.contains.is_empty() && rule.match_regexr.is_empty() {
            report.warn(&place, "left out: without match or match-regexr it fits no error");
        } else {
            return true;
        }
        false
    });
}

#[cfg(test)]
mod tests {
    use crate::{Block, ErrorAction, load};

    fn lines(text: &str) -> Vec<String> {
        let warnings = load(text.as_bytes()).unwrap_or_else(|broken| panic!("{broken}")).warnings;
        warnings.iter().map(|notice| notice.in_file("c").to_string()).collect()
    }

    #[test]
    fn entries_that_are_of_no_use_are_left_out_and_named() {
        let text = "gemini-api-key: [{prefix: a}, {api-key: k}, {api-key: k}, {api-key: k, prefix: b}]\n\
                    claude-api-key: [{api-key: k}, {api-key: k}, {prefix: x}]\n\
                    codex-api-key: [{api-key: k}]\n\
                    vertex-api-key: [{base-url: 'http://h'}]\n\
                    groq: [{}, {api-key: k}]\n\
                    openai-compatibility: [{name: a}]\n";
        assert_eq!(
            lines(text),
            [
                "c:1:19: gemini-api-key[0]: left out: it has neither api-key nor base-url",
                "c:1:46: gemini-api-key[2]: left out: it says the same as an entry before it",
                "c:2:47: claude-api-key[2]: left out: it has neither api-key nor base-url nor headers",
                "c:3:18: codex-api-key[0]: left out: it has no base-url",
                "c:4:19: vertex-api-key[0]: left out: it has no api-key",
                "c:5:1: groq[0]: left out: it has neither api-key nor token-file",
                "c:6:25: openai-compatibility[0]: left out: it has no base-url",
            ]
        );
        let providers = load(text.as_bytes()).unwrap().config.providers;
        let counts: Vec<_> = Block::ALL.iter().map(|block| providers.entries(*block).len()).collect();
        assert_eq!(counts, [2, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(providers.openai_compatibility.is_empty());
    }

    #[test]
    fn prefixes_patterns_and_models_are_cleaned() {
        let text = "claude-api-key:\n  - api-key: k\n    prefix: /team-a/\n    excluded-models: [' Claude-3-* ', claude-3-*, '']\n\
                    \x20   models: [{name: ' m '}, {alias: x}]\n    weight: -5\n    request-retry: -1\n    websockets: true\n\
                    \x20 - api-key: l\n    prefix: a/b\nvertex-api-key: [{api-key: k, models: [{name: m}]}]\n";
        assert_eq!(
            lines(text),
            [
                "c:5:30: claude-api-key[0].models[1]: left out: it has no name",
                "c:8:17: claude-api-key[0].websockets: it has no effect in this list",
                "c:10:13: claude-api-key[1].prefix: a prefix holds no slash inside; it is ignored",
                "c:11:41: vertex-api-key[0].models[0]: left out: it has no alias",
            ]
        );
        let entries = load(text.as_bytes()).unwrap().config.providers.claude_api_key;
        assert_eq!((entries[0].prefix.as_str(), entries[1].prefix.as_str()), ("team-a", ""));
        assert_eq!(entries[0].excluded_models, ["claude-3-*"]);
        assert_eq!((entries[0].models[0].name.as_str(), entries[0].models[0].alias.as_str()), ("m", "m"));
        assert_eq!((entries[0].weight.0, entries[0].request_retry), (0, None));
    }

    #[test]
    fn thinking_bounds_agree_with_themselves() {
        let text = "groq: [{api-key: k, models: [{name: m, thinking: {levels: [low, sideways, none]}}]}]\n";
        assert_eq!(
            lines(text),
            ["c:1:65: groq[0].models[0].thinking.levels[1]: unknown thinking level `sideways`, left out"]
        );
        let models = &load(text.as_bytes()).unwrap().config.providers.groq[0].models;
        assert_eq!(models[0].thinking.as_ref().unwrap().levels.len(), 2);
        let broken = load(text.replace("levels", "min: 9, max: 5, levels").as_bytes()).unwrap_err();
        assert_eq!(broken.notices[0].path, "groq[0].models[0].thinking");
    }

    #[test]
    fn error_rules_that_can_never_fit_are_left_out() {
        let text = "oauth-request-scoped-errors:\n  Codex:\n    - {status: 400, match: [a], action: Stop-And-Cooldown}\n\
                    \x20   - {status: 400, match: [a], action: explode}\n    - {status: 400, match: [a]}\n\
                    \x20   - {match: [a], action: stop}\n    - {status: 400, match: [''], action: stop}\n";
        let lines = lines(text);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(
            lines[0]
                .starts_with("c:4:41: oauth-request-scoped-errors.Codex[1].action: unknown action `explode`")
        );
        assert!(
            lines[1]
                .starts_with("c:5:8: oauth-request-scoped-errors.Codex[2].action: the rule has no action")
        );
        let rules = &load(text.as_bytes()).unwrap().config.providers.oauth_request_scoped_errors["codex"];
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0].action, Some(ErrorAction::StopAndCooldown));
    }
}
