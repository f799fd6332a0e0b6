//! From the configuration file to what the pool works with.
//!
//! Enters: a loaded [`Config`]. Leaves: [`Settings`], one [`CredentialSpec`] per key, in the order of the
//! file, and [`unserved`]: what the file asks for and nobody serves yet. Nothing may go wrong: the file was
//! checked when it was loaded.

mod account;
mod entry;
mod overrides;

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use config::{Account, Block, Config};
use sha2::{Digest, Sha256};

use crate::credential::{CredentialId, CredentialSpec, Kind};
use crate::fallback::Fallbacks;
use crate::found::Found;
use crate::mapping::Mappings;
use crate::settings::{Settings, Strategy};
use entry::Maker;

/// What the configuration and the accounts of its folder say, in the pool's terms.
pub fn from_config(config: &Config, accounts: &[Account]) -> (Settings, Vec<CredentialSpec>) {
    from_config_and(config, accounts, &Found::new())
}

/// The same with what upstreams have listed.
pub fn from_config_and(
    config: &Config,
    accounts: &[Account],
    found: &Found,
) -> (Settings, Vec<CredentialSpec>) {
    let mut specs = convert(config, found).0;
    specs.extend(account::convert(config, accounts, found).0);
    overrides::apply(&mut specs, &config.models.model_overrides);
    let mut settings = settings(config);
    if config.routing.quota_exceeded.switch_preview_model {
        previews(&specs, &mut settings.fallback_models);
    }
    (settings, specs)
}

/// What the configuration and the accounts ask for and nobody serves, one sentence each. For a warning at
/// start and reload.
pub fn unserved(config: &Config, accounts: &[Account]) -> Vec<String> {
    let mut told = convert(config, &Found::new()).1;
    told.extend(account::convert(config, accounts, &Found::new()).1);
    told.extend(Mappings::new(&config.providers.ampcode).1);
    if config.providers.ampcode.upstream_url.is_some() {
        told.push(
            "ampcode.upstream-url has no effect: this version serves no account routes of Amp".to_owned(),
        );
    }
    if config.routing.quota_exceeded.antigravity_credits {
        told.push(
            "quota-exceeded.antigravity-credits has no effect: this version spends no credits".to_owned(),
        );
    }
    told
}

fn settings(config: &Config) -> Settings {
    let routing = &config.routing;
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let selection = &routing.selection;
    Settings {
        strategy: match selection.strategy {
            config::Strategy::RoundRobin => Strategy::RoundRobin,
            config::Strategy::WeightedRoundRobin => Strategy::Weighted,
            config::Strategy::FillFirst => Strategy::FillFirst,
            config::Strategy::LeastLoaded => Strategy::LeastLoaded,
        },
        force_model_prefix: config.models.force_model_prefix,
        request_retry: routing.request_retry,
        max_retry_credentials: routing.max_retry_credentials,
        max_retry_interval_ms: u64::from(routing.max_retry_interval) * 1000,
        disable_cooling: routing.disable_cooling,
        transient_cooldown_ms: routing.transient_error_cooldown_seconds.duration().map_or(0, millis),
        session_affinity_ms: match selection.session_affinity {
            Some(false) => 0,
            Some(true) | None => millis(selection.session_affinity_ttl.0),
        },
        affinity_without_cache: selection.session_affinity == Some(true),
        switch_project: routing.quota_exceeded.switch_project,
        fallback_models: USUAL_FALLBACKS
            .iter()
            .map(|(model, list)| ((*model).to_owned(), list.iter().map(|name| Arc::from(*name)).collect()))
            .chain(config.models.fallback_models.iter().map(fallbacks))
            .collect(),
        mappings: Mappings::new(&config.providers.ampcode).0,
        ..Settings::default()
    }
}

/// What serves in place of a model that many accounts list and are refused, unless `fallback-models` has a list
/// for it, which may be empty. Source: `reference/cliproxyapi-plusplus.md` 2.5, Spark.
const USUAL_FALLBACKS: [(&str, &[&str]); 1] = [("gpt-5.3-codex-spark", &["gpt-5.3-codex"])];

/// A Gemini model and its preview serve in each other's place, where both are served and the file has no list
/// for the one that is asked for.
fn previews(specs: &[CredentialSpec], lists: &mut Fallbacks) {
    const PREVIEW: &str = "-preview";
    let google = |spec: &&CredentialSpec| {
        matches!(spec.kind, Kind::Gemini | Kind::Vertex | Kind::GeminiCli | Kind::Antigravity)
            && !spec.disabled
    };
    let of = |spec: &CredentialSpec| -> Vec<Arc<str>> {
        spec.models
            .models()
            .iter()
            .filter(|m| m.alias.starts_with("gemini"))
            .map(|m| Arc::clone(&m.alias))
            .collect()
    };
    let names: BTreeSet<Arc<str>> = specs.iter().filter(google).flat_map(of).collect();
    for name in &names {
        let twin = name.strip_suffix(PREVIEW).map_or_else(|| format!("{name}{PREVIEW}"), str::to_owned);
        if let Some(twin) = names.get(twin.as_str()) {
            lists.entry(name.to_lowercase()).or_insert_with(|| Arc::from([Arc::clone(twin)]));
        }
    }
}

fn fallbacks((model, list): (&String, &Vec<String>)) -> (String, Arc<[Arc<str>]>) {
    let list = list.iter().map(|name| Arc::from(name.trim())).collect();
    (model.trim().to_ascii_lowercase(), list)
}

/// How the keys of a list are used; `None`: not at all yet.
fn kind(block: Block, base_url: &str) -> Option<(Kind, &'static str)> {
    Some(match block {
        Block::Gemini => (Kind::Gemini, "gemini"),
        Block::Interactions => return None,
        Block::Claude => (Kind::Claude, "claude"),
        // The Codex backend takes less than the public API and answers in events only.
        Block::Codex if is_codex_backend(base_url) => (Kind::Codex, "codex"),
        Block::Codex => (Kind::Responses, "codex"),
        Block::Xai => (Kind::Responses, "xai"),
        Block::Vertex => (Kind::Vertex, "vertex"),
        preset => (Kind::of_chat_server(base_url), preset.key()),
    })
}

/// ChatGPT's own backend, or a relay that keeps the end of its path (`…/codex`).
fn is_codex_backend(base_url: &str) -> bool {
    base_url.contains("://chatgpt.com/") || base_url.trim_end_matches('/').ends_with("/codex")
}

fn convert(config: &Config, found: &Found) -> (Vec<CredentialSpec>, Vec<String>) {
    let mut maker = Maker::default();
    let mut unserved = Vec::new();
    let mut specs = Vec::new();
    // What a credential does not serve, and where it lists what it does; "": nobody asks it.
    let mut lists: Vec<(&[String], &str)> = Vec::new();
    for block in Block::ALL {
        for (n, entry) in config.providers.entries(*block).iter().enumerate() {
            let place = format!("{}[{n}]", block.key());
            let base_url = entry.base_url.as_ref().map(config::BaseUrl::as_str).or(block.preset_url());
            let Some((kind, provider)) = kind(*block, base_url.unwrap_or_default()) else {
                unserved.push(format!("{place} is not served: this version does not speak its format"));
                continue;
            };
            if entry.api_key.is_empty() && !entry.token_file.is_empty() {
                unserved.push(format!("{place} is not served: its token-file holds no key"));
                continue;
            }
            specs.push(maker.key(kind, provider, base_url.unwrap_or_default(), entry, n));
            // The catalogue knows some models of a few of these services: good until they were asked.
            let asked = block.preset_url().is_some() && entry.models.is_empty();
            lists.push((&entry.excluded_models, if asked { MODELS } else { "" }));
        }
    }
    for block in &config.providers.openai_compatibility {
        let made = maker.compat(block);
        let path = match block.models_endpoint.as_str() {
            _ if !block.models.is_empty() => "",
            "" => MODELS,
            path => path,
        };
        lists.extend(made.iter().map(|_| (block.excluded_models.as_slice(), path)));
        specs.extend(made);
    }
    let mut seen: HashMap<String, u32> = HashMap::new();
    for (spec, (excluded, path)) in specs.iter_mut().zip(lists) {
        // Switched off without being deleted, as management does it.
        spec.disabled |= excluded.iter().any(|pattern| pattern == "*");
        // Entries that differ in their models only have the same digest.
        let times = seen.entry(spec.id.to_string()).or_insert(0);
        *times += 1;
        if *times > 1 {
            spec.id = CredentialId::new(format!("{}-{times}", spec.id));
        }
        if spec.models.models().is_empty() && excluded.is_empty() && path.is_empty() && !spec.disabled {
            unserved.push(format!("{} serves nothing: it has no models", spec.label));
        }
        if !path.is_empty() {
            spec.lists = Some(Arc::from(path));
            if let Some(models) = found.get(&spec.id) {
                spec.models = entry::found(models, excluded);
            }
        }
    }
    unserved.extend(maker.problems);
    (specs, unserved)
}

/// Where OpenAI-compatible servers list their models.
const MODELS: &str = "/models";

/// `kind-0123456789ab`: twelve hex digits of a digest over what tells credentials apart.
fn id(kind: &str, parts: &[&str]) -> CredentialId {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    let mut text = format!("{kind}-");
    for byte in digest.finalize().iter().take(6) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    CredentialId::new(text)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::{Now, Pool, Proxy};
    use wire::thinking::{Bounds, Level, Support};

    fn load(yaml: &str) -> Config {
        config::load(yaml.as_bytes()).unwrap_or_else(|broken| panic!("{broken}")).config
    }

    fn specs(yaml: &str) -> Vec<CredentialSpec> {
        from_config(&load(yaml), &[]).1
    }

    fn ids(yaml: &str) -> Vec<String> {
        let (settings, specs) = from_config(&load(yaml), &[]);
        Pool::new(settings, specs).models(Now::default()).iter().map(|listed| listed.id.to_string()).collect()
    }

    #[test]
    fn every_list_has_its_kind_and_name() {
        let specs = specs(
            "claude-api-key: [{api-key: k}]\n\
             gemini-api-key: [{api-key: k, base-url: 'http://g', priority: 3, weight: 7}]\n\
             codex-api-key: [{api-key: k, base-url: 'http://c/v1'}, {api-key: k, base-url: 'http://c/codex'}]\n\
             xai-api-key: [{api-key: k, base-url: 'https://api.x.ai/v1'}]\n\
             vertex-api-key: [{api-key: k}]\n\
             groq: [{api-key: k, models: [{name: m}]}]\n\
             openai-compatibility: [{name: Team, base-url: 'http://t', models: [{name: m}]}]\n",
        );
        let found: Vec<_> = specs.iter().map(|s| (&*s.provider, s.kind, &*s.label, &*s.base_url)).collect();
        assert_eq!(
            found,
            [
                ("gemini", Kind::Gemini, "gemini#1", "http://g"),
                ("claude", Kind::Claude, "claude#1", ""),
                ("codex", Kind::Responses, "codex#1", "http://c/v1"),
                ("codex", Kind::Codex, "codex#2", "http://c/codex"),
                ("xai", Kind::Responses, "xai#1", "https://api.x.ai/v1"),
                ("vertex", Kind::Vertex, "vertex#1", ""),
                ("groq", Kind::Chat, "groq#1", "https://api.groq.com/openai/v1"),
                ("Team", Kind::Chat, "Team#1", "http://t"),
            ]
        );
        assert_eq!((specs[0].priority, specs[0].weight), (3, 7));
        assert!(
            specs[7].secret.expose_secret().is_empty(),
            "a block without keys is one credential without a key"
        );
    }

    #[test]
    fn keys_that_serve_the_same_share_it() {
        let specs = specs(
            "claude-api-key: [{api-key: a}, {api-key: b}, {api-key: c, excluded-models: [x]},\n\
              {api-key: d, models: [{name: m}]}, {api-key: e, models: [{name: m}]}, {api-key: f, models: [{name: m, alias: m, image: true}]}]\n",
        );
        let same = |a: usize, b: usize| Arc::ptr_eq(&specs[a].models, &specs[b].models);
        assert!(same(0, 1) && same(3, 4));
        assert!(!same(0, 2) && !same(3, 5) && !same(0, 3));
    }

    #[test]
    fn ids_are_stable_and_tell_entries_apart() {
        let file = "claude-api-key: [{api-key: k}, {api-key: k, prefix: p}, {api-key: l}]\n\
                    openai-compatibility: [{name: a, base-url: 'http://t', api-key-entries: [{api-key: k}, {api-key: k}]}]\n";
        let ids = |file| specs(file).iter().map(|spec| spec.id.to_string()).collect::<Vec<_>>();
        let first = ids(file);
        assert_eq!(first, ids(file));
        let distinct: std::collections::HashSet<_> = first.iter().collect();
        assert_eq!(distinct.len(), 5, "{first:?}");
        // Written down: what is remembered about a credential is found under this name in later versions.
        assert_eq!(first[0], "claude-acb41f67c972");
        assert!(first[4].starts_with(&first[3]) && first[4].ends_with("-2"), "{first:?}");
    }

    #[test]
    fn row_34_prefix_and_alias_and_row_46_exclusions() {
        let listed = ids("openai-compatibility:\n\
             - {name: t, base-url: 'http://t', prefix: team-a, excluded-models: ['*-preview'],\n\
                models: [{name: m1, alias: fast}, {name: M2-Preview, alias: hidden}]}\n");
        assert_eq!(listed, ["fast", "team-a/fast"]);
        assert_eq!(
            ids("force-model-prefix: true\nclaude-api-key: [{api-key: k, prefix: p, models: [{name: m}]}]"),
            ["p/m"]
        );
        let all = ids("gemini-api-key: [{api-key: k}]");
        assert!(all.contains(&"gemini-2.5-pro".to_owned()));
        let fewer = ids("gemini-api-key: [{api-key: k, excluded-models: ['GEMINI-2.5-*']}]");
        assert!(
            !fewer.is_empty() && fewer.len() < all.len() && !fewer.contains(&"gemini-2.5-pro".to_owned())
        );
    }

    #[test]
    fn models_carry_what_the_entry_and_the_catalogue_say() {
        let specs = specs(
            "claude-api-key:\n- api-key: k\n  models:\n\
             \x20 - {name: claude-sonnet-4-6, alias: s, max-context-length: 9, force-mapping: true, display-name: S}\n\
             \x20 - {name: own, thinking: {levels: [high, low, none]}}\n",
        );
        let models = specs[0].models.models();
        assert_eq!((&*models[0].alias, &*models[0].upstream), ("s", "claude-sonnet-4-6"));
        assert_eq!((models[0].card.context, models[0].card.max_output), (Some(9), Some(64000)));
        assert_eq!((models[0].force_mapping, models[0].display_name.as_deref()), (true, Some("S")));
        assert_eq!(&*models[0].owned_by, "anthropic");
        let bounds = Bounds { off: true, levels: vec![Level::Low, Level::High], ..Bounds::default() };
        assert_eq!(models[1].card.thinking, Support::Bounded(bounds));
        assert_eq!(&*models[1].alias, "own");
    }

    #[test]
    fn row_41_to_45_proxies_of_entries_and_blocks() {
        let specs = specs(
            "openai-compatibility:\n\
             - {name: t, base-url: 'http://t', proxy-url: direct, models: [{name: m}], api-key-entries: [\n\
                {api-key: a, proxy-url: 'socks5://us%40er:p%3Aw@[::1]:1'}, {api-key: b}, {api-key: c, proxy-url: 'ftp://x'}]}\n\
             claude-api-key: [{api-key: k}]\n",
        );
        let Proxy::Url(url) = &specs[1].proxy else { panic!("{:?}", specs[1].proxy) };
        assert_eq!(url.expose_secret(), "socks5://us%40er:p%3Aw@[::1]:1");
        assert_eq!(
            config::ProxySetting::parse(url.expose_secret()),
            config::ProxySetting::parse("socks5://us%40er:p%3Aw@[::1]:1")
        );
        assert_eq!(specs[2].proxy, Proxy::Direct);
        assert!(
            matches!(&specs[3].proxy, Proxy::Invalid(problem) if problem.contains("unsupported proxy scheme"))
        );
        assert_eq!(specs[0].proxy, Proxy::Global);
    }

    #[test]
    fn settings_and_rules() {
        let config = load(
            "request-retry: 3\nmax-retry-interval: 30\nmax-retry-credentials: 2\ntransient-error-cooldown-seconds: -1\n\
             routing: {strategy: wrr, session-affinity: true, session-affinity-ttl: 10m}\n\
             claude-api-key:\n- api-key: k\n  disable-cooling: true\n  headers: {X-A: b, X-C: $X-D}\n\
             \x20 request-scoped-errors: [{status: 400, match: [busy], action: continue}, {status: 400, match-regexr: ['('], action: stop}]\n",
        );
        let (settings, specs) = from_config(&config, &[]);
        let expected = Settings {
            strategy: Strategy::Weighted,
            request_retry: 3,
            max_retry_credentials: 2,
            max_retry_interval_ms: 30_000,
            transient_cooldown_ms: 0,
            session_affinity_ms: 600_000,
            affinity_without_cache: true,
            fallback_models: settings.fallback_models.clone(),
            ..Settings::default()
        };
        assert_eq!(settings, expected);
        assert_eq!(specs[0].disable_cooling, Some(true));
        assert_eq!(specs[0].request_scoped_errors.len(), 1);
        let headers: Vec<_> = specs[0].headers.iter().map(|(k, v)| (k.as_str(), v.expose_secret())).collect();
        assert_eq!(headers, [("X-A", "b"), ("X-C", "$X-D")]);
        assert!(unserved(&config, &[])[0].contains("request-scoped-errors"), "{:?}", unserved(&config, &[]));
    }

    #[test]
    fn sessions_stay_by_default_where_prompts_are_cached() {
        let of = |yaml: &str| {
            let settings = from_config(&load(yaml), &[]).0;
            (settings.session_affinity_ms, settings.affinity_without_cache)
        };
        assert_eq!(of("{}"), (3_600_000, false));
        assert_eq!(of("routing: {session-affinity: true}"), (3_600_000, true));
        assert_eq!(of("routing: {session-affinity: false}").0, 0);
        let strategy = from_config(&load("routing: {strategy: least-loaded}"), &[]).0.strategy;
        assert_eq!(strategy, Strategy::LeastLoaded);
    }

    #[test]
    fn spark_has_a_fallback_unless_the_file_says_otherwise() {
        let list = |yaml: &str| {
            let lists = from_config(&load(yaml), &[]).0.fallback_models;
            lists["gpt-5.3-codex-spark"].iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(list("{}"), ["gpt-5.3-codex"]);
        assert_eq!(list("fallback-models: {m: [n]}"), ["gpt-5.3-codex"]);
        assert_eq!(list("fallback-models: {GPT-5.3-Codex-Spark: [gpt-5.4]}"), ["gpt-5.4"]);
        assert!(list("fallback-models: {gpt-5.3-codex-spark: []}").is_empty());
    }

    #[test]
    fn previews_and_their_models_serve_for_each_other_where_that_is_wanted() {
        let models = "gemini-api-key: [{api-key: k, models: [{name: gemini-x}, {name: gemini-x-preview}, {name: gemini-y}]}]\n\
                      claude-api-key: [{api-key: k, models: [{name: gemini-y-preview}]}]\n";
        let lists = |more: &str| {
            let lists = from_config(&load(&format!("{models}{more}")), &[]).0.fallback_models;
            let gemini = lists.into_iter().filter(|(name, _)| name.starts_with("gemini"));
            gemini.map(|(name, list)| format!("{name}: {}", list.join(" "))).collect::<Vec<_>>()
        };
        assert!(lists("").is_empty());
        let switch = "quota-exceeded: {switch-preview-model: true}\n";
        assert_eq!(lists(switch), ["gemini-x: gemini-x-preview", "gemini-x-preview: gemini-x"]);
        let own = format!("{switch}fallback-models: {{gemini-x: []}}\n");
        assert_eq!(lists(&own), ["gemini-x: ", "gemini-x-preview: gemini-x"]);
    }

    #[test]
    fn what_cannot_be_switched_is_told_and_what_can_be_is_not() {
        let told = |yaml: &str| unserved(&load(yaml), &[]);
        assert!(told("quota-exceeded: {switch-project: true, switch-preview-model: true}").is_empty());
        assert!(told("quota-exceeded: {antigravity-credits: true}")[0].contains("antigravity-credits"));
    }

    #[test]
    fn what_nobody_serves_is_told() {
        let config = load(
            "interactions-api-key: [{api-key: k}]\nroo: [{api-key: k}, {token-file: /t}]\n\
             openai-compatibility: [{name: e, base-url: 'http://t', api-key-entries: [{api-key: k}]}]\n",
        );
        let told = unserved(&config, &[]);
        let begins = ["interactions-api-key[0] is not served", "roo[1] is not served"];
        assert_eq!(told.len(), begins.len(), "{told:?}");
        assert!(told.iter().zip(begins).all(|(line, begin)| line.starts_with(begin)), "{told:?}");
    }

    #[test]
    fn row_38_blocks_without_models_serve_what_their_upstream_lists() {
        let config = load(
            "roo: [{api-key: k, excluded-models: ['*-old']}]\nkilo: [{api-key: k}]\n\
             groq: [{api-key: k, models: [{name: m}]}]\n\
             openai-compatibility: [{name: e, base-url: 'http://t', models-endpoint: /list}]\n",
        );
        let (_, specs) = from_config(&config, &[]);
        let paths: Vec<_> = specs.iter().map(|spec| spec.lists.as_deref()).collect();
        assert_eq!(paths, [None, Some("/models"), Some("/models"), Some("/list")]);
        let ids = |spec: &CredentialSpec| {
            spec.models.models().iter().map(|model| model.upstream.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&specs[1]), ["kilo/auto"], "what the catalogue knows, until it was asked");
        let model = |id: &str| crate::FoundModel { id: Arc::from(id), ..Default::default() };
        let listed = || Arc::from([model("a"), model("b-old")]);
        let found = Found::from([(specs[1].id.clone(), listed()), (specs[2].id.clone(), listed())]);
        let (_, specs) = from_config_and(&config, &[], &found);
        assert_eq!(
            (ids(&specs[1]), ids(&specs[2])),
            (vec!["a".into(), "b-old".into()], vec!["a".to_owned()])
        );
    }
}
