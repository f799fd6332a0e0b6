//! Renewal of tokens: when, with what request, and what an answer means.
//!
//! Enters: an account, a time, a token endpoint's answer. Leaves: [`TokenRequest`], [`Renewed`] and the
//! account's file with the new tokens in it. May go wrong: the login is over ([`Renewed::NeedsLogin`], only a
//! new login helps), or the endpoint cannot say now ([`Renewed::Later`]).
//!
//! Each provider is a [`Strategy`]: most follow OAuth 2.0 (`oauth2.rs`), Kiro has two ways of its own
//! (`kiro.rs`), and Copilot and Vertex exchange what the file holds for a token that lives for minutes
//! (`copilot.rs`, `vertex.rs`). `file.rs` writes what came. Client ids are those that the providers publish
//! for their command lines; client secrets come from the operator.

mod copilot;
pub(crate) mod file;
pub(crate) mod kiro;
pub(crate) mod oauth2;
mod vertex;

use std::fmt;

use config::{Account, Config, Moment};
use secrecy::SecretString;
use serde::Deserialize;

pub use file::updated;
pub(crate) use kiro::is_region;

/// Signs a message with a private key (PEM).
pub type Sign = dyn Fn(&str, &[u8]) -> Result<Vec<u8>, String>;

/// What the steps of a renewal need from outside.
pub struct With<'w> {
    /// Where all of the provider's hosts are, instead of their own addresses.
    pub base: Option<&'w url::Url>,
    /// The operator's client secret, see [`client_secret_variable`].
    pub client_secret: Option<&'w str>,
    /// Seconds since 1970.
    pub now_s: u64,
    /// Signs with a private key (PEM), RSA PKCS #1 v1.5 over SHA-256.
    pub sign: &'w Sign,
}

impl fmt::Debug for With<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("With").field("base", &self.base).field("now_s", &self.now_s).finish_non_exhaustive()
    }
}

/// Where new tokens live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// In the account's file, in the place of the old ones.
    File,
    /// In memory: they are made of what the file holds, which stays as it is.
    Memory,
}

/// How a provider renews.
trait Strategy: Sync {
    /// Seconds before the end at which a token is renewed.
    fn lead_s(&self) -> u64 {
        300
    }

    /// Where the new token lives.
    fn keeps(&self) -> Keeps {
        Keeps::File
    }

    /// Whether an account's file has what it takes.
    fn able(&self, account: &Account) -> bool {
        !account.refresh_token.is_empty()
    }

    /// The request that renews.
    fn request(&self, account: &Account, with: &With<'_>) -> Result<TokenRequest, String>;

    /// What the answer to it means.
    fn read(&self, status: u16, body: &[u8], now_s: u64) -> Renewed {
        oauth2::read(status, body, now_s)
    }
}

fn strategy(channel: &str) -> Option<&'static dyn Strategy> {
    Some(match channel {
        "claude" => &oauth2::CLAUDE,
        "codex" => &oauth2::CODEX,
        "antigravity" => &oauth2::ANTIGRAVITY,
        "kimi" => &oauth2::KIMI,
        "xai" => &oauth2::XAI,
        "qwen" => &oauth2::QWEN,
        "kiro" => &kiro::Kiro,
        "github-copilot" => &copilot::Copilot,
        "vertex" => &vertex::Vertex,
        _ => return None,
    })
}

/// The strategy of an account whose token can be renewed: it is a login, the provider is known, and the file
/// has what it takes.
fn of(account: &Account) -> Option<&'static dyn Strategy> {
    strategy(&account.channel).filter(|strategy| account.is_token && strategy.able(account))
}

/// Whether the token of an account can be renewed.
pub fn renewable(account: &Account) -> bool {
    of(account).is_some()
}

/// Where new tokens of an account live; `None`: it has none.
pub fn keeps(account: &Account) -> Option<Keeps> {
    of(account).map(Strategy::keeps)
}

/// The environment variable that holds the operator's client secret for a channel.
pub fn client_secret_variable(channel: &str) -> String {
    format!("CLIPROXY_{}_CLIENT_SECRET", channel.to_uppercase().replace('-', "_"))
}

/// The address that stands for all hosts of an account's provider, where one is set.
pub fn base<'c>(account: &'c Account, config: &'c Config) -> Option<&'c url::Url> {
    let general = || config.providers.oauth_upstream.get(&account.channel);
    account.settings.base_url.as_ref().or_else(general).map(config::BaseUrl::url)
}

/// Seconds since 1970 from which the token in an account's file should be renewed; `None`: nothing says when
/// it runs out. `seed` moves it a little forward, by up to a tenth of the time that is left then, so that
/// accounts of one day do not all renew in one second.
pub fn due_s(account: &Account, seed: u64) -> Option<u64> {
    let lead = of(account)?.lead_s();
    let last = account.last_refresh.as_ref().and_then(expires_s);
    if let (Some(interval), Some(last)) = (account.settings.refresh_interval, last) {
        return Some(last.saturating_add(interval.as_secs()));
    }
    let early = lead.saturating_add(seed % (lead / 10 + 1));
    match account.expires.as_ref().and_then(expires_s) {
        Some(end) => Some(end.saturating_sub(early)),
        // A token of unknown life is not older than the time others are renewed ahead.
        None => last.map(|last| last.saturating_add(lead)),
    }
}

/// The same of a token in memory that ends at `end_s`.
pub fn due_in_memory_s(account: &Account, end_s: u64, seed: u64) -> Option<u64> {
    let lead = of(account)?.lead_s();
    Some(end_s.saturating_sub(lead.saturating_add(seed % (lead / 10 + 1))))
}

/// Seconds since 1970 at which a token runs out.
pub fn expires_s(moment: &Moment) -> Option<u64> {
    match moment {
        // Seconds of the year 5138 are milliseconds of 1973.
        Moment::Number(number) if *number > 100_000_000_000 => u64::try_from(number / 1000).ok(),
        Moment::Number(number) => u64::try_from(*number).ok(),
        Moment::Text(text) => {
            let text = text.trim();
            if let Ok(number) = text.parse() {
                return expires_s(&Moment::Number(number));
            }
            let seconds = text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_second).or_else(|_| {
                let civil = text.parse::<jiff::civil::DateTime>()?;
                Ok::<_, jiff::Error>(civil.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp().as_second())
            });
            u64::try_from(seconds.ok()?).ok()
        }
    }
}

/// A request to a token endpoint.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// `POST` or `GET`.
    pub method: &'static str,
    /// Where to.
    pub url: String,
    /// Headers besides those of every request; they may hold secrets.
    pub headers: Vec<(&'static str, SecretString)>,
    /// The body; it holds the refresh token.
    pub body: SecretString,
}

impl TokenRequest {
    fn post(url: String, content_type: &str, body: String) -> Self {
        let headers = vec![("content-type", SecretString::from(content_type))];
        Self { method: "POST", url, headers, body: SecretString::from(body) }
    }

    /// A POST of a JSON object.
    pub(crate) fn json(url: String, members: &[(&str, &str)]) -> Self {
        let mut out = Vec::new();
        wire::json::object(&mut out, |o| members.iter().for_each(|(key, value)| o.str(key, value)));
        Self::post(url, "application/json", String::from_utf8(out).unwrap_or_default())
    }

    /// A POST of a form.
    pub(crate) fn form(url: String, members: &[(&str, &str)]) -> Self {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(members).finish();
        Self::post(url, "application/x-www-form-urlencoded", body)
    }
}

/// The request that renews an account's token.
pub fn request(account: &Account, with: &With<'_>) -> Result<TokenRequest, String> {
    of(account).ok_or("this version does not renew its tokens")?.request(account, with)
}

/// The address of `usual` on the host that stands for all of the provider's.
fn endpoint(usual: &str, with: &With<'_>) -> String {
    rerooted(usual, with.base)
}

/// The path of `usual` on the host of `base`, where there is one.
pub(crate) fn rerooted(usual: &str, base: Option<&url::Url>) -> String {
    let Some(base) = base else { return usual.to_owned() };
    let path = url::Url::parse(usual).map(|url| url.path().to_owned()).unwrap_or_default();
    format!("{}{path}", base.origin().ascii_serialization())
}

/// What a token endpoint said.
#[derive(Clone, Debug)]
pub enum Renewed {
    /// New tokens.
    Tokens(Tokens),
    /// The login is over; the reason, without secrets.
    NeedsLogin(String),
    /// Not now; the reason, without secrets.
    Later(String),
}

/// New tokens.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Tokens {
    /// What goes with requests.
    #[serde(alias = "accessToken")]
    pub access_token: SecretString,
    /// Missing: the old one stays good (RFC 6749, section 6).
    #[serde(alias = "refreshToken")]
    refresh_token: Option<SecretString>,
    id_token: Option<SecretString>,
    #[serde(alias = "expiresIn")]
    expires_in: Option<u64>,
    /// Seconds since 1970 at which it runs out.
    #[serde(skip)]
    pub end_s: Option<u64>,
    /// Kiro's profile.
    #[serde(alias = "profileArn")]
    profile_arn: Option<String>,
    /// Where this account's API is, when the provider said so.
    #[serde(skip)]
    pub api: Option<String>,
}

/// Reads the answer of an account's token endpoint.
pub fn read(account: &Account, status: u16, body: &[u8], now_s: u64) -> Renewed {
    match of(account) {
        Some(strategy) => strategy.read(status, body, now_s),
        None => Renewed::Later("this version does not renew its tokens".to_owned()),
    }
}

/// What an error of a token endpoint means, with the words that say that a login is over.
fn refused(status: u16, body: &[u8], over: &[&str]) -> Renewed {
    let failure = wire::error::Failure::parse(status, body);
    let said = String::from_utf8_lossy(body.get(..body.len().min(4096)).unwrap_or_default()).into_owned();
    let word = over.iter().find(|word| said.contains(**word));
    let code = word.map(|word| format!("{word}: ")).unwrap_or_default();
    let reason = format!("status {status}: {code}{}", failure.message);
    if status == 401 || word.is_some() { Renewed::NeedsLogin(reason) } else { Renewed::Later(reason) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    pub(super) fn account(text: &str) -> Account {
        config::read_account("a.json", text.as_bytes()).unwrap()
    }

    pub(super) fn with<'w>(client_secret: Option<&'w str>, base: Option<&'w url::Url>) -> With<'w> {
        With {
            base,
            client_secret,
            now_s: 1_795_233_600,
            sign: &|key, text| Ok([key.as_bytes(), text].concat()),
        }
    }

    #[test]
    fn moments_in_all_spellings() {
        for text in [
            "\"expired\":\"2026-11-21T05:00:00Z\"",
            "\"expires_at\":1795237200",
            "\"expiresAt\":1795237200000",
            "\"expire\":\"2026-11-21 05:00\"",
            "\"expiry\":\"2026-11-21 05:00:00\",\"expired\":\"\"",
            "\"expires\":\"2026-11-21T06:00:00+01:00\"",
            "\"token\":{\"expiry\":1795237200}",
        ] {
            let text = format!("{{\"type\":\"kimi\",\"access_token\":\"t\",\"refresh_token\":\"r\",{text}}}");
            assert_eq!(due_s(&account(&text), 0), Some(1_795_237_200 - 300), "{text}");
        }
        let vague = account(r#"{"type":"kimi","access_token":"t","refresh_token":"r","expired":"soon"}"#);
        assert_eq!(due_s(&vague, 0), None);
    }

    #[test]
    fn what_else_says_when_a_token_is_due() {
        let end = "1970-01-12T13:46:40Z"; // 1,000,000
        let of = |rest: &str, seed| {
            due_s(
                &account(&format!(r#"{{"type":"kimi","access_token":"t","refresh_token":"r",{rest}}}"#)),
                seed,
            )
        };
        let expires = format!(r#""expired":"{end}""#);
        let last = format!(r#""last_refresh":"{end}""#);
        assert_eq!(of(&expires, 30), Some(1_000_000 - 330), "a seed moves it ahead");
        assert!((0..1000).all(|seed| of(&expires, seed).unwrap() >= 1_000_000 - 330));
        assert_eq!(of(&last, 9), Some(1_000_300));
        assert_eq!(of(&format!(r#"{expires},{last},"refresh_interval_seconds":60"#), 9), Some(1_000_060));
        let claims = "eyJleHAiOjEwMDAwMDB9"; // {"exp":1000000}
        let token = format!(r#"{{"type":"kimi","access_token":"e30.{claims}.x","refresh_token":"r"}}"#);
        assert_eq!(due_s(&account(&token), 0), Some(1_000_000 - 300), "the token itself says it");
    }

    #[test]
    fn who_can_be_renewed_and_where_the_tokens_live() {
        assert!(!renewable(&account(r#"{"type":"claude","access_token":"t"}"#)));
        assert!(!renewable(&account(r#"{"type":"iflow","api_key":"k","refresh_token":"r"}"#)));
        let kiro = account(r#"{"type":"kiro","access_token":"t","refresh_token":"r"}"#);
        assert_eq!(keeps(&kiro), Some(Keeps::File));
        assert_eq!(keeps(&account(r#"{"type":"github-copilot","access_token":"t"}"#)), Some(Keeps::Memory));
        assert_eq!(keeps(&account(r#"{"type":"vertex","api_key":"t"}"#)), None);
        assert_eq!(client_secret_variable("gemini-cli"), "CLIPROXY_GEMINI_CLI_CLIENT_SECRET");
    }

    #[test]
    fn one_address_stands_for_all_hosts_of_a_provider() {
        let own =
            account(r#"{"type":"claude","access_token":"t","refresh_token":"r","base_url":"http://own/x"}"#);
        let none = account(r#"{"type":"claude","access_token":"t","refresh_token":"r"}"#);
        let config = config::load(b"oauth-upstream: {claude: 'http://all/y'}\n").unwrap().config;
        let url = |account: &Account| request(account, &with(None, base(account, &config))).unwrap().url;
        assert_eq!(
            (url(&own).as_str(), url(&none).as_str()),
            ("http://own/v1/oauth/token", "http://all/v1/oauth/token")
        );
        assert!(
            request(&none, &with(None, None))
                .unwrap()
                .body
                .expose_secret()
                .contains("\"refresh_token\":\"r\"")
        );
    }
}
