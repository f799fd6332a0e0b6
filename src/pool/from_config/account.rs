//! Accounts of the folder, one by one.
//!
//! Enters: [`Account`]s and the settings that hold for all accounts of a provider. Leaves:
//! [`CredentialSpec`]s. May go wrong: nobody serves the provider; then a sentence says so.

use std::collections::HashSet;
use std::sync::Arc;

use config::{Account, AccountSettings, Config, OauthAlias};
use secrecy::SecretString;

use super::entry::{Maker, excludes, headers, patterns, prefix, priority, proxy};
use crate::budget::Limits;
use crate::catalogue::{self, Facts};
use crate::credential::{CredentialId, CredentialSpec, Kind};
use crate::found::{self, Found, FoundModel};
use crate::model::{ModelSet, ModelSpec};
use crate::renewal::{Keeps, is_region};

/// Names of Antigravity's models that clients know from elsewhere, and of Kiro's and Copilot's: used where
/// the configuration has no `oauth-model-alias` for the channel. The upstream's own names stay listed.
const ALIASES: [(&str, &str, &str); 24] = [
    ("antigravity", "gemini-3-pro-image", "gemini-3-pro-image-preview"),
    ("antigravity", "gemini-3-pro-high", "gemini-3-pro-preview"),
    ("antigravity", "gemini-3-flash", "gemini-3-flash-preview"),
    ("antigravity", "claude-sonnet-4-5", "gemini-claude-sonnet-4-5"),
    ("antigravity", "claude-sonnet-4-5-thinking", "gemini-claude-sonnet-4-5-thinking"),
    ("antigravity", "claude-opus-4-5-thinking", "gemini-claude-opus-4-5-thinking"),
    ("antigravity", "claude-opus-4-6-thinking", "gemini-claude-opus-thinking"),
    ("antigravity", "claude-opus-4-6-thinking", "gemini-claude-opus-4-6-thinking"),
    ("kiro", "kiro-claude-sonnet-4-6", "claude-sonnet-4-6"),
    ("kiro", "kiro-claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
    ("kiro", "kiro-claude-sonnet-4-5", "claude-sonnet-4-5"),
    ("kiro", "kiro-claude-sonnet-4", "claude-sonnet-4-20250514"),
    ("kiro", "kiro-claude-sonnet-4", "claude-sonnet-4"),
    ("kiro", "kiro-claude-opus-4-6", "claude-opus-4-6"),
    ("kiro", "kiro-claude-opus-4-5", "claude-opus-4-5-20251101"),
    ("kiro", "kiro-claude-opus-4-5", "claude-opus-4-5"),
    ("kiro", "kiro-claude-haiku-4-5", "claude-haiku-4-5-20251001"),
    ("kiro", "kiro-claude-haiku-4-5", "claude-haiku-4-5"),
    ("github-copilot", "claude-haiku-4.5", "claude-haiku-4-5"),
    ("github-copilot", "claude-opus-4.1", "claude-opus-4-1"),
    ("github-copilot", "claude-opus-4.5", "claude-opus-4-5"),
    ("github-copilot", "claude-opus-4.6", "claude-opus-4-6"),
    ("github-copilot", "claude-sonnet-4.5", "claude-sonnet-4-5"),
    ("github-copilot", "claude-sonnet-4.6", "claude-sonnet-4-6"),
];

/// How a provider is spoken to: kind, its own address where the kind has another.
fn served(account: &Account) -> Option<(Kind, String)> {
    let kind = match account.channel.as_str() {
        "claude" => Kind::Claude,
        "codex" => Kind::Codex,
        "antigravity" => Kind::Antigravity,
        "kiro" => Kind::Kiro,
        // A key of AI Studio may lie in the folder as well as a login of the command line.
        "gemini" if !account.is_token => Kind::Gemini,
        "gemini" | "gemini-cli" => Kind::GeminiCli,
        "github-copilot" => Kind::Copilot,
        "vertex" => Kind::Vertex,
        "iflow" => Kind::Iflow,
        "qwen" => Kind::Qwen,
        "kimi" => Kind::Kimi,
        "xai" => Kind::Responses,
        _ => return None,
    };
    Some((kind, own_address(account, kind)))
}

/// Where an account's API is, if not where the kind's usually is.
fn own_address(account: &Account, kind: Kind) -> String {
    let region = account.region.as_str();
    match kind {
        Kind::Responses if account.is_token => "https://cli-chat-proxy.grok.com/v1".to_owned(),
        Kind::Responses => "https://api.x.ai/v1".to_owned(),
        Kind::Kiro if region != "us-east-1" && is_region(region) => {
            format!("https://q.{region}.amazonaws.com")
        }
        // The scope is checked when the file is read, the location is its end.
        Kind::Vertex if account.is_token => match account.scope.rsplit('/').next() {
            Some("global") | None => String::new(),
            Some(location) => format!("https://{location}-aiplatform.googleapis.com"),
        },
        _ => String::new(),
    }
}

/// The part of the catalogue that an account can use.
fn catalogue_of(account: &Account, kind: Kind) -> &'static [Facts] {
    let channel = match (account.channel.as_str(), account.plan.as_str()) {
        ("codex", "free") => "codex-free",
        ("codex", "plus") => "codex-plus",
        ("codex", "team" | "business" | "go") => "codex-team",
        ("codex", _) => "codex-pro",
        _ if kind == Kind::GeminiCli => "gemini-cli",
        (channel, _) => channel,
    };
    catalogue::channel(channel)
}

/// Credentials of the accounts, and what is not served.
pub(super) fn convert(
    config: &Config,
    accounts: &[Account],
    found: &Found,
) -> (Vec<CredentialSpec>, Vec<String>) {
    let mut maker = Maker::default();
    let mut unserved = Vec::new();
    let mut specs = Vec::new();
    for account in accounts {
        let Some((kind, own)) = served(account) else {
            unserved.push(format!(
                "{} is not served: this version does not speak to `{}`",
                account.file, account.channel
            ));
            continue;
        };
        let id = CredentialId::new(&account.file);
        let listed = found.get(&id).map(AsRef::as_ref);
        let bare = CredentialSpec {
            base_url: Arc::from(own),
            lists: found::path_of(kind).map(Arc::from),
            ..CredentialSpec::new(id, &account.channel, kind, models(config, account, kind, listed))
        };
        specs.push(spec(&mut maker, config, account, bare));
    }
    unserved.extend(maker.problems);
    (specs, unserved)
}

/// Adds what the account's file and the configuration say to what its kind says.
fn spec<'c>(
    maker: &mut Maker<'c>,
    config: &'c Config,
    account: &'c Account,
    bare: CredentialSpec,
) -> CredentialSpec {
    let settings = &account.settings;
    let upstream = &config.providers.oauth_upstream;
    let base_url = settings.base_url.as_ref().or_else(|| upstream.get(&account.channel));
    let general = config.providers.oauth_request_scoped_errors.get(&account.channel);
    let rules = match settings.request_scoped_errors.as_slice() {
        [] => general.map(Vec::as_slice).unwrap_or_default(),
        own => own,
    };
    CredentialSpec {
        label: Arc::from(if account.owner.is_empty() { &account.file } else { &account.owner }.as_str()),
        base_url: base_url.map_or(bare.base_url, |url| Arc::from(url.as_str())),
        prefix: prefix(&settings.prefix),
        priority: priority(settings.priority),
        weight: settings.weight.0,
        disable_cooling: settings.disable_cooling,
        request_retry: settings.request_retry,
        request_scoped_errors: maker.rules(rules, &account.file),
        secret: SecretString::from(account.secret.expose_secret()),
        is_token: account.is_token,
        refreshable: crate::renewal::renewable(account),
        mints: crate::renewal::keeps(account) == Some(Keeps::Memory),
        end_s: account.expires.as_ref().and_then(crate::renewal::expires_s),
        scope: Arc::from(account.scope.as_str()),
        disabled: settings.disabled,
        ..bare
    }
    .reached(headers(&settings.headers), proxy(&settings.proxy_url))
    .limited(limits(settings))
}

fn limits(settings: &AccountSettings) -> Limits {
    let few = |number: i64| u32::try_from(number.max(0)).unwrap_or(u32::MAX);
    let tokens = u64::try_from(settings.tpm).unwrap_or(0);
    Limits::of(few(settings.max_concurrency), few(settings.rpm), tokens)
}

/// What an account serves: what it listed, or its part of the catalogue before it was asked, without the
/// exclusions, under the names that are set.
fn models(config: &Config, account: &Account, kind: Kind, listed: Option<&[FoundModel]>) -> Arc<ModelSet> {
    let settings = &account.settings;
    let general = config.models.oauth_excluded_models.get(&account.channel);
    let mut excluded = patterns(&settings.excluded_models);
    excluded.extend(patterns(general.map(Vec::as_slice).unwrap_or_default()));
    let known = catalogue_of(account, kind);
    let mut base = match listed {
        Some(listed) => found::served(kind, known, listed),
        None => known.iter().map(Facts::spec).collect(),
    };
    base.retain(|model| !excludes(&excluded, &model.upstream));
    let (aliases, usual_from) = aliases(config, account);
    let mut taken: HashSet<String> = HashSet::new();
    let mut named = Vec::new();
    let mut hidden: HashSet<Arc<str>> = HashSet::new();
    for (n, alias) in aliases.iter().enumerate() {
        let is_set = n < usual_from;
        let listed = base.iter().find(|model| model.upstream.eq_ignore_ascii_case(&alias.name));
        let unlisted = || unlisted(kind, known, &alias.name).filter(|m| !excludes(&excluded, &m.upstream));
        let Some(model) = listed.cloned().or_else(|| unlisted().filter(|_| is_set)) else { continue };
        let same = alias.name.eq_ignore_ascii_case(&alias.alias) || alias.alias.is_empty();
        if same || !taken.insert(alias.alias.to_lowercase()) {
            continue;
        }
        if !alias.fork {
            hidden.insert(Arc::clone(&model.upstream));
        }
        let display = (!alias.display_name.is_empty()).then(|| Arc::from(alias.display_name.as_str()));
        named.push(ModelSpec {
            alias: Arc::from(alias.alias.as_str()),
            force_mapping: alias.force_mapping,
            // Accounts that list the model come first.
            usual: !is_set || listed.is_none(),
            display_name: display.or(model.display_name),
            ..model
        });
    }
    // A model whose own name was given to another is reached by its other names only.
    let own =
        base.iter().filter(|m| !hidden.contains(&m.upstream) && !taken.contains(&m.alias.to_lowercase()));
    ModelSet::new(own.cloned().chain(named.clone()))
}

/// A model that an account does not list and that the operator gave a name: the upstream has the last word,
/// where accounts list what they have. Other catalogues are split by plans, which do.
fn unlisted(kind: Kind, known: &[Facts], name: &str) -> Option<ModelSpec> {
    found::path_of(kind).filter(|_| !name.trim().is_empty())?;
    let facts = known.iter().find(|facts| facts.id.eq_ignore_ascii_case(name));
    Some(facts.map_or_else(|| ModelSpec::new(name, name), Facts::spec))
}

/// The names of the file come before those of the channel. Also tells from where on they are the usual ones,
/// which nobody set.
fn aliases(config: &Config, account: &Account) -> (Vec<OauthAlias>, usize) {
    let mut aliases = account.settings.model_aliases.clone();
    if let Some(set) = config.models.oauth_model_alias.get(&account.channel) {
        aliases.extend(set.iter().cloned());
        let all = aliases.len();
        return (aliases, all);
    }
    let set = aliases.len();
    let usual = ALIASES.iter().filter(|(channel, ..)| *channel == account.channel);
    aliases.extend(usual.map(|(_, name, alias)| OauthAlias {
        name: (*name).to_owned(),
        alias: (*alias).to_owned(),
        fork: true,
        ..OauthAlias::default()
    }));
    (aliases, set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn account(text: &str) -> Account {
        config::read_account("a.json", text.as_bytes()).unwrap()
    }

    fn config(yaml: &str) -> Config {
        config::load(yaml.as_bytes()).unwrap_or_else(|broken| panic!("{broken}")).config
    }

    fn made(yaml: &str, text: &str) -> CredentialSpec {
        listing(yaml, text, &[])
    }

    /// The credential of an account that listed these models; none: it was not asked.
    fn listing(yaml: &str, text: &str, models: &[&str]) -> CredentialSpec {
        let models = models.iter().map(|id| FoundModel { id: Arc::from(*id), ..FoundModel::default() });
        let listed: Arc<[FoundModel]> = models.collect();
        let found = (!listed.is_empty()).then(|| (CredentialId::new("a.json"), listed));
        convert(&config(yaml), &[account(text)], &found.into_iter().collect()).0.remove(0)
    }

    fn names(spec: &CredentialSpec) -> Vec<&str> {
        spec.models.models().iter().map(|model| &*model.alias).collect()
    }

    #[test]
    fn an_account_is_a_credential_named_by_its_file() {
        let spec = made(
            "oauth-upstream: {antigravity: 'http://general'}\n",
            r#"{"type":"antigravity","access_token":"t","email":"a@b","project_id":"p","prefix":"ag","priority":3}"#,
        );
        assert_eq!((spec.id.as_str(), &*spec.label, spec.kind), ("a.json", "a@b", Kind::Antigravity));
        assert_eq!((&*spec.base_url, &*spec.scope, spec.priority), ("http://general", "p", 3));
        assert_eq!((spec.secret.expose_secret(), spec.is_token), ("t", true));
        let own = made(
            "oauth-upstream: {iflow: 'http://general'}\n",
            r#"{"type":"iflow","api_key":"k","base_url":"http://own/v1","max_concurrency":2,"rpm":"3","tpm":4}"#,
        );
        assert_eq!((own.in_flight_limit, own.rpm, own.tpm), (Some(2), Some(3), Some(4)));
        assert_eq!((&*own.base_url, own.is_token), ("http://own/v1", false));
    }

    #[test]
    fn row_13_usual_names_are_there_unless_the_channel_has_its_own() {
        let file = r#"{"type":"antigravity","access_token":"t"}"#;
        let usual = made("{}", file);
        for name in ["claude-opus-4-6-thinking", "gemini-claude-opus-4-6-thinking"] {
            assert!(names(&usual).contains(&name), "{name}: {:?}", names(&usual));
        }
        let off = made("oauth-model-alias: {antigravity: []}\n", file);
        assert!(!names(&off).contains(&"gemini-claude-opus-4-6-thinking"));
        let own =
            made("oauth-model-alias: {antigravity: [{name: claude-opus-4-6-thinking, alias: opus}]}\n", file);
        assert!(names(&own).contains(&"opus") && !names(&own).contains(&"claude-opus-4-6-thinking"));
    }

    #[test]
    fn row_67_a_models_own_provider_comes_before_those_who_lend_it_their_name() {
        let yaml = "claude-api-key: [{api-key: k}]\n";
        let kiro = account(r#"{"type":"kiro","access_token":"t"}"#);
        let (settings, specs) = super::super::from_config(&config(yaml), &[kiro]);
        let pool = crate::Pool::new(settings, specs);
        for seed in 0..6 {
            let route = pool.route("claude-sonnet-4-6", crate::Now::default()).unwrap();
            let mut attempts = crate::Attempts::default();
            let pick = pool.pick(&route, &mut attempts, None, crate::Now::default(), seed).unwrap();
            assert_eq!(pick.credential().kind, Kind::Claude);
        }
    }

    #[test]
    fn row_13_usual_names_follow_the_models_that_an_account_lists() {
        let file = r#"{"type":"antigravity","access_token":"t"}"#;
        let listed = listing("{}", file, &["claude-opus-4-6-thinking", "new"]);
        assert_eq!(
            names(&listed),
            [
                "claude-opus-4-6-thinking",
                "new",
                "gemini-claude-opus-thinking",
                "gemini-claude-opus-4-6-thinking"
            ]
        );
        let kept = listing("oauth-excluded-models: {antigravity: [new]}\n", file, &["gemini-3-flash", "new"]);
        assert_eq!(names(&kept), ["gemini-3-flash", "gemini-3-flash-preview"]);
    }

    #[test]
    fn row_130_an_operators_name_leads_also_to_a_model_that_is_not_listed() {
        let yaml = "oauth-model-alias: {antigravity: [{name: gone-1, alias: my-gone, fork: true},\n\
                    {name: gemini-3-flash, alias: fast}]}\n";
        let file = r#"{"type":"antigravity","access_token":"t"}"#;
        for listed in [&["gemini-3-flash"][..], &["claude-sonnet-4-6"], &[]] {
            let spec = listing(yaml, file, listed);
            let gone = spec.models.models().iter().find(|model| &*model.alias == "my-gone").unwrap();
            assert_eq!((&*gone.upstream, gone.usual), ("gone-1", true));
            assert!(names(&spec).contains(&"fast") && !names(&spec).contains(&"gone-1"));
        }
        let excluded = listing(
            "oauth-excluded-models: {antigravity: ['gone-*']}\noauth-model-alias: {antigravity: [{name: gone-1, alias: my-gone}]}\n",
            file,
            &[],
        );
        assert!(!names(&excluded).contains(&"my-gone"));
        let claude = listing(
            "oauth-model-alias: {claude: [{name: gone-1, alias: my-gone}]}\n",
            r#"{"type":"claude","access_token":"t"}"#,
            &[],
        );
        assert!(!names(&claude).contains(&"my-gone") && claude.lists.is_none());
    }

    #[test]
    fn exclusions_address_the_upstreams_names() {
        let yaml = "oauth-excluded-models: {antigravity: ['claude-*']}\n";
        let spec =
            made(yaml, r#"{"type":"antigravity","access_token":"t","excluded_models":["gemini-2.5-*"]}"#);
        assert!(!names(&spec).is_empty());
        assert!(!names(&spec).iter().any(|n| n.contains("claude") || n.starts_with("gemini-2.5-")));
    }

    #[test]
    fn plans_of_codex_see_different_models_and_strangers_are_told() {
        let plan = |plan: &str| {
            made("{}", &format!(r#"{{"type":"codex","access_token":"t","plan_type":"{plan}"}}"#))
                .models
                .models()
                .len()
        };
        assert!(plan("free") < plan("pro"));
        let (specs, told) =
            convert(&config("{}"), &[account(r#"{"type":"martian","access_token":"t"}"#)], &Found::new());
        assert!(specs.is_empty() && told[0].contains("`martian`"), "{told:?}");
    }
}
