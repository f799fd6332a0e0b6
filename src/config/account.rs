//! A file of `auth-dir`: an account that somebody logged in to, or a key that lies there.
//!
//! Enters: the name and the bytes of a file. Leaves: [`Account`]; the tokens are [`Secret`]s. May go wrong:
//! no JSON object, no `type`, no token, a member of the wrong type; the text says which, without its value.
//!
//! Members are those that CLIProxyAPI and its relatives write: snake case, with the spellings of older
//! versions understood too.

mod login;

use crate::endpoint::optional;
use crate::{BaseUrl, ErrorRule, Headers, OauthAlias, ProxySetting, Secret, Weight};
use serde::{Deserialize, Deserializer, de};
use std::time::Duration;

/// Largest file that is read.
pub const MAX_ACCOUNT_BYTES: usize = 1 << 20;

/// An account.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// The file's name within the folder.
    pub file: String,
    /// The provider: `claude`, `codex`, `antigravity`, … in lower case.
    pub channel: String,
    /// The key, else the access token. It goes with requests, unless the provider wants a token that is made
    /// of it; then of a service account it is the private key (PEM).
    pub secret: Secret,
    /// Whether that belongs to a login, whose tokens run out, and is not a key.
    pub is_token: bool,
    /// The e-mail address or login name, for people.
    pub owner: String,
    /// The account within the login: project of Google's backends, workspace of ChatGPT, profile of Kiro,
    /// `projects/…/locations/…` of Vertex.
    pub scope: String,
    /// The plan that was bought, in lower case: `plus`, `team`, …
    pub plan: String,
    /// What renews the token; empty: nothing.
    pub refresh_token: Secret,
    /// When the token runs out.
    pub expires: Option<Moment>,
    /// When it was renewed last.
    pub last_refresh: Option<Moment>,
    /// Where it is renewed, when the login said so.
    pub token_endpoint: String,
    /// What renewing takes besides, with some providers.
    pub grant: Grant,
    /// Region of the provider's API, where it has several: Kiro's, Vertex's. Empty: the usual one.
    pub region: String,
    /// What the operator may set, as for keys of the configuration.
    pub settings: AccountSettings,
}

/// What renewing takes besides the refresh token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// How the login was made, in lower case. Kiro: `social`, `builder-id`, `idc`.
    pub method: String,
    /// The client that was registered for this login.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// Region of the service that logs in.
    pub region: String,
    /// The e-mail address of a service account.
    pub issuer: String,
    /// The id of its private key.
    pub key_id: String,
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
    /// Time between two renewals of its token, whatever its provider says of their life.
    #[serde(alias = "refresh_interval_seconds", alias = "refresh-interval", deserialize_with = "interval")]
    pub refresh_interval: Option<Duration>,
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
    let login: login::Login = serde_json::from_slice(bytes).map_err(told)?;
    let settings: AccountSettings = serde_json::from_slice(bytes).map_err(told)?;
    if login.has_no_type() {
        return Err("`type` is missing: it names the provider".to_owned());
    }
    if settings.prefix.contains('/') {
        return Err("`prefix` must not hold a slash".to_owned());
    }
    login.account(file, settings)
}

/// Reads a file that holds a key: bare, or as `access_token` or `api_key` of a JSON object.
pub fn read_key_file(bytes: &[u8]) -> Result<Secret, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii();
    if bytes.starts_with(b"{") {
        return login::key_of(bytes);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && !text.contains(char::is_whitespace) => Ok(Secret::from(text)),
        Ok("") => Err("it is empty".to_owned()),
        _ => Err("it holds no key: a key is one word, or a JSON object holds it".to_owned()),
    }
}

/// `null` means: not said.
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

/// Seconds, or a number with a unit: `90`, `90s`, `15m`, `2h`. 0: not said.
fn interval<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    let wrong = || de::Error::custom("expected seconds, or a number with s, m or h");
    let seconds = match Loose::deserialize(input)? {
        Loose::Number(number) => number,
        Loose::Text(text) => {
            let text = text.trim();
            let (digits, unit) = match text.strip_suffix(['s', 'm', 'h']) {
                Some(digits) if text.ends_with('h') => (digits, 3600),
                Some(digits) if text.ends_with('m') => (digits, 60),
                Some(digits) => (digits, 1),
                None => (text, 1),
            };
            let number: i64 = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| wrong())? };
            number.checked_mul(unit).ok_or_else(wrong)?
        }
        Loose::Nothing(()) => 0,
        Loose::Flag(_) => return Err(wrong()),
    };
    let seconds = u64::try_from(seconds).map_err(|_| wrong())?;
    Ok((seconds > 0).then_some(Duration::from_secs(seconds)))
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
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

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
    fn kiros_file_says_how_it_was_logged_in_in_both_spellings() {
        let social = read(
            r#"{"type":"kiro","accessToken":"t","refreshToken":"r","profileArn":"arn:aws:codewhisperer:eu-central-1:1:profile/A","authMethod":"social","expiresAt":"2026-11-21T05:00:00Z"}"#,
        );
        assert_eq!((social.grant.method.as_str(), social.region.as_str()), ("social", "eu-central-1"));
        assert!(social.scope.ends_with("profile/A") && social.expires.is_some());
        let idc = read(
            r#"{"type":"kiro","access_token":"t","refresh_token":"r","profile_arn":"arn:a:b:us-east-1:1:p","auth_method":"IdC","client_id":"c","client_secret":"canary","region":"eu-west-1","api_region":"us-west-2"}"#,
        );
        assert_eq!(idc.scope, "", "such logins are refused when they name a profile");
        assert_eq!((idc.grant.region.as_str(), idc.region.as_str()), ("eu-west-1", "us-west-2"));
        assert_eq!(idc.grant.client_secret.expose_secret(), "canary");
        assert!(!format!("{idc:?}").contains("canary"));
    }

    #[test]
    fn a_service_account_needs_no_token() {
        let read = read(
            r#"{"type":"vertex","project_id":"p-1","location":"europe-west4","service_account":{"client_email":"a@p.test","private_key":"canary","private_key_id":"7","token_uri":"https://t.test/token"}}"#,
        );
        assert_eq!((read.secret.expose_secret(), read.is_token), ("canary", true));
        assert_eq!(read.scope, "projects/p-1/locations/europe-west4");
        assert_eq!(
            (read.grant.issuer.as_str(), read.token_endpoint.as_str()),
            ("a@p.test", "https://t.test/token")
        );
        let bad = r#"{"type":"vertex","project_id":"p/../x","service_account":{"client_email":"a","private_key":"k"}}"#;
        assert!(read_account("a.json", bad.as_bytes()).unwrap_err().contains("project_id"));
    }

    #[test]
    fn intervals_of_renewal() {
        let of = |text: &str| {
            let file = format!(r#"{{"type":"kimi","access_token":"t","refresh_interval":{text}}}"#);
            read_account("a.json", file.as_bytes()).map(|account| account.settings.refresh_interval)
        };
        let seconds = |n| Ok(Some(Duration::from_secs(n)));
        for (text, found) in [
            ("90", seconds(90)),
            (r#""15m""#, seconds(900)),
            (r#""2h""#, seconds(7200)),
            (r#""""#, Ok(None)),
            ("null", Ok(None)),
        ] {
            assert_eq!(of(text), found, "{text}");
        }
        assert!(of(r#""soon""#).is_err() && of("-1").is_err());
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
