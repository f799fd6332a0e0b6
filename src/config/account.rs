//! A file of `auth-dir`: an account that somebody logged in to, or a key that lies there.
//!
//! Enters: the name and the bytes of a file. Leaves: [`Account`]; the tokens are [`Secret`]s. May go wrong:
//! no JSON object, no `type`, no token, a member of the wrong type; the text says which, without its value.
//!
//! Members are those that CLIProxyAPI and its relatives write: snake case, with the spellings of older
//! versions understood too.

use crate::endpoint::optional;
use crate::{BaseUrl, ErrorRule, Headers, OauthAlias, ProxySetting, Secret, Weight};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, de};

/// Largest file that is read.
pub const MAX_ACCOUNT_BYTES: usize = 1 << 20;

/// An account.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// The file's name within the folder.
    pub file: String,
    /// The provider: `claude`, `codex`, `antigravity`, … in lower case.
    pub channel: String,
    /// What goes with requests: the key, else the access token.
    pub secret: Secret,
    /// Whether that is a token of a login, which runs out, and not a key.
    pub is_token: bool,
    /// The e-mail address or login name, for people.
    pub owner: String,
    /// The account within the login: project of Google's backends, workspace of ChatGPT, profile of Kiro.
    pub scope: String,
    /// The plan that was bought, in lower case: `plus`, `team`, …
    pub plan: String,
    /// What renews the token; empty: nothing.
    pub refresh_token: Secret,
    /// When the token runs out.
    pub expires: Option<Moment>,
    /// Where it is renewed, when the login said so.
    pub token_endpoint: String,
    /// What the operator may set, as for keys of the configuration.
    pub settings: AccountSettings,
}

/// A moment as a file writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Moment {
    /// Seconds since 1970, or milliseconds where that would lie far in the future.
    Number(i64),
    /// RFC 3339, or `YYYY-MM-DD HH:MM[:SS]` in UTC.
    Text(String),
}

/// The members that mean the same for all providers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AccountSettings {
    /// Left out for now.
    #[serde(deserialize_with = "flag")]
    pub disabled: bool,
    /// Clients reach its models as `prefix/model`.
    #[serde(deserialize_with = "nullable")]
    pub prefix: String,
    /// The way to the upstream.
    #[serde(alias = "proxy-url", deserialize_with = "nullable")]
    pub proxy_url: ProxySetting,
    /// Higher is used first.
    #[serde(deserialize_with = "number")]
    pub priority: i64,
    /// Share under weighted round-robin.
    #[serde(deserialize_with = "nullable")]
    pub weight: Weight,
    /// Free text of the operator.
    #[serde(deserialize_with = "nullable")]
    pub note: String,
    /// Headers added to its requests.
    #[serde(deserialize_with = "nullable")]
    pub headers: Headers,
    /// Patterns of upstream ids that it does not serve.
    #[serde(alias = "excluded-models", deserialize_with = "nullable")]
    pub excluded_models: Vec<String>,
    /// Other names for its models, before those of `oauth-model-alias`.
    #[serde(alias = "model-aliases", deserialize_with = "nullable")]
    pub model_aliases: Vec<OauthAlias>,
    /// Most requests at once; 0: no limit.
    #[serde(alias = "max-concurrency", deserialize_with = "number")]
    pub max_concurrency: i64,
    /// Most requests in any 60 seconds; 0: no limit.
    #[serde(deserialize_with = "number")]
    pub rpm: i64,
    /// Tokens in any 60 seconds after which it is left alone; 0: no limit.
    #[serde(deserialize_with = "number")]
    pub tpm: i64,
    /// Its own answer to `disable-cooling`.
    #[serde(alias = "disable-cooling")]
    pub disable_cooling: Option<bool>,
    /// Rounds in which it takes part.
    #[serde(alias = "request-retry")]
    pub request_retry: Option<u32>,
    /// What its errors mean.
    #[serde(alias = "request-scoped-errors", deserialize_with = "nullable")]
    pub request_scoped_errors: Vec<ErrorRule>,
    /// Where all of the provider's hosts are, instead of their own addresses.
    #[serde(alias = "base-url", deserialize_with = "optional")]
    pub base_url: Option<BaseUrl>,
}

/// The members that the providers write.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    #[serde(rename = "type")]
    kind: String,
    #[serde(alias = "accessToken")]
    access_token: Option<Secret>,
    #[serde(alias = "apiKey")]
    api_key: Option<Secret>,
    /// Where older files of Google's command lines keep the tokens.
    token: Option<Nested>,
    id_token: Option<Secret>,
    email: Option<String>,
    username: Option<String>,
    label: Option<String>,
    account_id: Option<String>,
    #[serde(deserialize_with = "projects")]
    project_id: Option<String>,
    #[serde(alias = "profileArn")]
    profile_arn: Option<String>,
    plan_type: Option<String>,
    #[serde(alias = "refreshToken")]
    refresh_token: Option<Secret>,
    token_endpoint: Option<String>,
    #[serde(flatten)]
    expiry: Expiry,
}

/// The spellings of one member; a file may have several.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Expiry {
    expired: Option<Moment>,
    expire: Option<Moment>,
    expires_at: Option<Moment>,
    #[serde(rename = "expiresAt")]
    expires_at_camel: Option<Moment>,
    #[serde(rename = "expiry")]
    google: Option<Moment>,
    expires: Option<Moment>,
}

impl Expiry {
    fn first(self) -> Option<Moment> {
        let all =
            [self.expired, self.expire, self.expires_at, self.expires_at_camel, self.google, self.expires];
        all.into_iter()
            .flatten()
            .find(|moment| !matches!(moment, Moment::Text(text) if text.trim().is_empty()))
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Nested {
    access_token: Option<Secret>,
    refresh_token: Option<Secret>,
    #[serde(flatten)]
    expiry: Expiry,
}

/// What OpenAI says of an account inside its identity token.
#[derive(Default, Deserialize)]
struct Identity {
    #[serde(default)]
    email: String,
    #[serde(default, rename = "https://api.openai.com/auth")]
    auth: IdentityAuth,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct IdentityAuth {
    chatgpt_account_id: String,
    chatgpt_plan_type: String,
}

/// Reads a file.
pub fn read_account(file: &str, bytes: &[u8]) -> Result<Account, String> {
    if bytes.len() > MAX_ACCOUNT_BYTES {
        return Err(format!("it is larger than {} KiB", MAX_ACCOUNT_BYTES >> 10));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err("it is not a JSON object".to_owned());
    }
    let told = |error: serde_json::Error| {
        // serde_json quotes values of the wrong type: they may be secrets.
        let what = if error.is_data() { "a member has the wrong type" } else { "it is not JSON" };
        format!("{what} (line {}, column {})", error.line(), error.column())
    };
    let login: Login = serde_json::from_slice(bytes).map_err(told)?;
    let settings: AccountSettings = serde_json::from_slice(bytes).map_err(told)?;
    if login.kind.trim().is_empty() {
        return Err("`type` is missing: it names the provider".to_owned());
    }
    if settings.prefix.contains('/') {
        return Err("`prefix` must not hold a slash".to_owned());
    }
    account(file, login, settings)
}

fn account(file: &str, login: Login, settings: AccountSettings) -> Result<Account, String> {
    let filled = |secret: Option<Secret>| secret.filter(|secret| !secret.expose_secret().trim().is_empty());
    let key = filled(login.api_key);
    let nested = login.token.unwrap_or_default();
    let token = filled(login.access_token).or(filled(nested.access_token));
    let is_token = key.is_none();
    let Some(secret) = key.or(token) else {
        return Err("it has neither `access_token` nor `api_key`".to_owned());
    };
    let identity = login.id_token.map(|token| identity(token.expose_secret())).unwrap_or_default();
    let first = |texts: [Option<String>; 4]| {
        texts.into_iter().flatten().find(|text| !text.trim().is_empty()).unwrap_or_default()
    };
    let IdentityAuth { chatgpt_account_id, chatgpt_plan_type } = identity.auth;
    Ok(Account {
        file: file.to_owned(),
        channel: login.kind.trim().to_lowercase(),
        secret,
        is_token,
        owner: first([login.email, login.username, login.label, Some(identity.email)]),
        scope: first([login.project_id, login.account_id, login.profile_arn, Some(chatgpt_account_id)]),
        plan: first([login.plan_type, Some(chatgpt_plan_type), None, None]).to_lowercase(),
        refresh_token: filled(login.refresh_token).or(filled(nested.refresh_token)).unwrap_or_default(),
        expires: login.expiry.first().or(nested.expiry.first()),
        token_endpoint: login.token_endpoint.unwrap_or_default(),
        settings,
    })
}

/// The claims of a JSON Web Token, unproven: the file is the operator's own (RFC 7519, section 7.2).
fn identity(token: &str) -> Identity {
    let claims = token.split('.').nth(1).unwrap_or_default();
    let decoded = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).unwrap_or_default();
    serde_json::from_slice(&decoded).unwrap_or_default()
}

/// `null` means: not said.
/// One project, or a list of them, which is written with commas from here on.
fn projects<'de, D: Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Projects {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::<Projects>::deserialize(input)?.map(|projects| match projects {
        Projects::One(project) => project,
        Projects::Many(list) => list.join(","),
    }))
}

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(input: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(input).map(Option::unwrap_or_default)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Loose {
    Flag(bool),
    Number(i64),
    Text(String),
    Nothing(()),
}

/// A number, also as text.
fn number<'de, D: Deserializer<'de>>(input: D) -> Result<i64, D::Error> {
    match Loose::deserialize(input)? {
        Loose::Number(number) => Ok(number),
        Loose::Text(text) if text.trim().is_empty() => Ok(0),
        Loose::Text(text) => text.trim().parse().map_err(|_| de::Error::custom("expected a number")),
        Loose::Nothing(()) => Ok(0),
        Loose::Flag(_) => Err(de::Error::custom("expected a number")),
    }
}

/// A truth value, also as text.
fn flag<'de, D: Deserializer<'de>>(input: D) -> Result<bool, D::Error> {
    match Loose::deserialize(input)? {
        Loose::Flag(flag) => Ok(flag),
        Loose::Text(text) => Ok(text.trim().eq_ignore_ascii_case("true")),
        Loose::Number(number) => Ok(number != 0),
        Loose::Nothing(()) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Account {
        read_account("a.json", text.as_bytes()).unwrap()
    }

    #[test]
    fn accounts_of_the_providers() {
        let found = read(
            r#"{"type":"Antigravity","access_token":"t","refresh_token":"r","email":"a@b","project_id":"p1",
                "prefix":"ag","priority":"7","disabled":"false","proxy-url":"direct","unknown":{"x":1}}"#,
        );
        assert_eq!(
            (found.channel.as_str(), found.owner.as_str(), found.scope.as_str()),
            ("antigravity", "a@b", "p1")
        );
        assert_eq!((found.settings.prefix.as_str(), found.settings.priority), ("ag", 7));
        assert_eq!((found.is_token, found.settings.disabled), (true, false));
        assert_eq!(found.settings.proxy_url, ProxySetting::Direct);
        let key =
            read(r#"{"type":"iflow","access_token":"t","api_key":"k","headers":{"X-A":"b"},"weight":null}"#);
        assert_eq!((key.secret.expose_secret(), key.is_token), ("k", false));
        assert_eq!(key.settings.weight, Weight::default());
        let several = read(r#"{"type":"antigravity","access_token":"t","project_id":["p","q"]}"#);
        assert_eq!(several.scope, "p,q");
        let nested = read(r#"{"type":"gemini","token":{"access_token":"t"},"project_id":"p"}"#);
        assert_eq!(nested.secret.expose_secret(), "t");
    }

    #[test]
    fn the_plan_and_account_of_codex_stand_in_its_identity_token() {
        let claims = r#"{"email":"e@f","https://api.openai.com/auth":{"chatgpt_plan_type":"Team","chatgpt_account_id":"acc"}}"#;
        let token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims));
        let found = read(&format!(r#"{{"type":"codex","access_token":"t","id_token":"{token}"}}"#));
        assert_eq!((found.plan.as_str(), found.scope.as_str(), found.owner.as_str()), ("team", "acc", "e@f"));
        assert_eq!(read(r#"{"type":"codex","access_token":"t","id_token":"junk"}"#).plan, "");
    }

    #[test]
    fn p43_what_cannot_be_used_says_why_and_shows_no_secret() {
        for (text, says) in [
            ("", "not a JSON object"),
            ("[]", "not a JSON object"),
            ("{not json", "not JSON (line 1"),
            (r#"{"access_token":"canary"}"#, "`type` is missing"),
            (r#"{"type":"claude"}"#, "neither"),
            (r#"{"type":"claude","access_token":" "}"#, "neither"),
            (r#"{"type":"claude","access_token":"canary","weight":"heavy"}"#, "wrong type"),
            (r#"{"type":"claude","access_token":{"canary":1}}"#, "wrong type"),
            (r#"{"type":"claude","access_token":"canary","prefix":"a/b"}"#, "slash"),
        ] {
            let reason = read_account("a.json", text.as_bytes()).unwrap_err();
            assert!(reason.contains(says) && !reason.contains("canary"), "{text}: {reason}");
        }
        assert!(read_account("a.json", &vec![b' '; MAX_ACCOUNT_BYTES + 1]).unwrap_err().contains("larger"));
        let shown = format!("{:?}", read(r#"{"type":"claude","access_token":"canary"}"#));
        assert!(!shown.contains("canary"));
    }
}
