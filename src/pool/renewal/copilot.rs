//! GitHub Copilot: the login's token buys one that lives for half an hour.
//!
//! Enters: an account. Leaves: the request, and what the answer means. May go wrong: GitHub knows the login
//! no more, or the account has no Copilot.

use config::Account;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{Keeps, Renewed, Strategy, TokenRequest, Tokens, With, endpoint, refused};

const EXCHANGE: &str = "https://api.github.com/copilot_internal/v2/token";
/// Seconds for which a token is good that says nothing.
const USUAL_S: u64 = 25 * 60;
/// Hosts to which an answer may send an account's requests, and with them its token.
const APIS: [&str; 3] =
    ["api.githubcopilot.com", "api.individual.githubcopilot.com", "api.business.githubcopilot.com"];

#[derive(Debug)]
pub(super) struct Copilot;

#[derive(Deserialize)]
struct Bought {
    token: SecretString,
    #[serde(default)]
    expires_at: Option<u64>,
    #[serde(default)]
    endpoints: Endpoints,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Endpoints {
    api: String,
}

impl Strategy for Copilot {
    fn keeps(&self) -> Keeps {
        Keeps::Memory
    }

    fn able(&self, account: &Account) -> bool {
        !account.secret.is_empty()
    }

    fn request(&self, account: &Account, with: &With<'_>) -> Result<TokenRequest, String> {
        let login = format!("token {}", account.secret.expose_secret());
        Ok(TokenRequest {
            method: "GET",
            url: endpoint(EXCHANGE, with),
            headers: vec![("authorization", SecretString::from(login))],
            body: SecretString::default(),
        })
    }

    fn read(&self, status: u16, body: &[u8], now_s: u64) -> Renewed {
        if !(200..300).contains(&status) {
            return refused(status, body, &[]);
        }
        match serde_json::from_slice::<Bought>(body) {
            Ok(bought) if !bought.token.expose_secret().is_empty() => Renewed::Tokens(Tokens {
                end_s: Some(bought.expires_at.unwrap_or_else(|| now_s.saturating_add(USUAL_S))),
                api: known_api(&bought.endpoints.api),
                access_token: bought.token,
                ..Tokens::default()
            }),
            _ => Renewed::Later("GitHub's answer has no token".to_owned()),
        }
    }
}

fn known_api(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    let known = url.scheme() == "https" && url.port().is_none() && APIS.contains(&url.host_str()?);
    known.then(|| url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{account, with};
    use super::super::{read, request};
    use super::*;

    #[test]
    fn a_token_is_bought_with_the_login() {
        let login = account(r#"{"type":"github-copilot","access_token":"canary"}"#);
        let made = request(&login, &with(None, None)).unwrap();
        assert_eq!((made.method, made.url.as_str()), ("GET", EXCHANGE));
        assert_eq!(made.headers[0].1.expose_secret(), "token canary");
        assert!(!format!("{made:?}").contains("canary"));
        let read = |status, body: &str| read(&login, status, body.as_bytes(), 1000);
        let answer = r#"{"token":"tid=1","expires_at":2000,"endpoints":{"api":"https://api.business.githubcopilot.com"}}"#;
        let Renewed::Tokens(tokens) = read(200, answer) else { panic!() };
        assert_eq!((tokens.access_token.expose_secret(), tokens.end_s), ("tid=1", Some(2000)));
        assert_eq!(tokens.api.as_deref(), Some("https://api.business.githubcopilot.com"));
        let Renewed::Tokens(tokens) = read(200, r#"{"token":"t","endpoints":{"api":"https://evil.test"}}"#)
        else {
            panic!()
        };
        assert_eq!((tokens.api, tokens.end_s), (None, Some(1000 + USUAL_S)));
        assert!(matches!(read(401, r#"{"message":"Bad credentials"}"#), Renewed::NeedsLogin(_)));
        assert!(
            matches!(read(403, r#"{"message":"no license"}"#), Renewed::Later(text) if text.contains("no license"))
        );
        assert!(matches!(read(200, "{}"), Renewed::Later(_)));
    }
}
