//! The grant of OAuth 2.0 (RFC 6749, section 6), as most providers have it.
//!
//! Enters: an account with a refresh token. Leaves: the request, and what the answer means. May go wrong: a
//! provider that wants a client secret and has none.

use config::Account;
use secrecy::ExposeSecret;

use super::{Renewed, Strategy, TokenRequest, Tokens, With, client_secret_variable, endpoint, refused};

/// A provider's token endpoint and what it wants.
#[derive(Debug)]
pub(crate) struct Oauth2 {
    /// The token endpoint.
    pub endpoint: &'static str,
    /// The client id that the provider publishes.
    pub client_id: &'static str,
    /// JSON instead of a form.
    pub json: bool,
    scope: &'static str,
    /// The endpoint wants a client secret.
    pub with_secret: bool,
    /// Seconds before the end at which a token is renewed.
    lead_s: u64,
}

const PLAIN: Oauth2 =
    Oauth2 { endpoint: "", client_id: "", json: false, scope: "", with_secret: false, lead_s: 300 };

pub(crate) const CLAUDE: Oauth2 = Oauth2 {
    endpoint: "https://platform.claude.com/v1/oauth/token",
    client_id: "9d1c250a-e61b-44d9-88ed-5944d1962f5e",
    json: true,
    lead_s: 4 * 3600,
    ..PLAIN
};
pub(crate) const CODEX: Oauth2 = Oauth2 {
    endpoint: "https://auth.openai.com/oauth/token",
    client_id: "app_EMoamEEZ73f0CkXaXp7hrann",
    scope: "openid profile email",
    lead_s: 5 * 24 * 3600,
    ..PLAIN
};
pub(crate) const ANTIGRAVITY: Oauth2 = Oauth2 {
    endpoint: "https://oauth2.googleapis.com/token",
    client_id: "1071006060591-tmhssin2h21lcre235vtolojh4g403ep.apps.googleusercontent.com",
    with_secret: true,
    ..PLAIN
};
pub(crate) const KIMI: Oauth2 = Oauth2 {
    endpoint: "https://auth.kimi.com/api/oauth/token",
    client_id: "17e5f671-d194-4dfb-9706-5516cb48c098",
    ..PLAIN
};
pub(crate) const XAI: Oauth2 = Oauth2 {
    endpoint: "https://auth.x.ai/oauth2/token",
    client_id: "b1a00492-073a-47ea-816f-4c329264a828",
    ..PLAIN
};
pub(crate) const QWEN: Oauth2 = Oauth2 {
    endpoint: "https://chat.qwen.ai/api/v1/oauth2/token",
    client_id: "f0304373b74a44d2b584a3fb70ca9e56",
    lead_s: 3 * 3600,
    ..PLAIN
};

impl Strategy for Oauth2 {
    fn lead_s(&self) -> u64 {
        self.lead_s
    }

    fn request(&self, account: &Account, with: &With<'_>) -> Result<TokenRequest, String> {
        let mut members = vec![
            ("grant_type", "refresh_token"),
            ("client_id", self.client_id),
            ("refresh_token", account.refresh_token.expose_secret()),
        ];
        if !self.scope.is_empty() {
            members.push(("scope", self.scope));
        }
        match with.client_secret {
            Some(secret) if self.with_secret => members.push(("client_secret", secret)),
            None if self.with_secret => {
                let variable = client_secret_variable(&account.channel);
                return Err(format!("its client secret is not set: {variable}"));
            }
            _ => {}
        }
        let usual = Some(account.token_endpoint.as_str()).filter(|url| !url.is_empty());
        let url = endpoint(usual.unwrap_or(self.endpoint), with);
        Ok(if self.json { TokenRequest::json(url, &members) } else { TokenRequest::form(url, &members) })
    }
}

/// RFC 6749, section 5.2; the others are OpenAI's.
const OVER: [&str; 4] =
    ["invalid_grant", "refresh_token_reused", "refresh_token_expired", "refresh_token_invalidated"];

/// Reads a token endpoint's answer.
pub(super) fn read(status: u16, body: &[u8], now_s: u64) -> Renewed {
    if !(200..300).contains(&status) {
        return refused(status, body, &OVER);
    }
    match serde_json::from_slice::<Tokens>(body) {
        Ok(mut tokens) if !tokens.access_token.expose_secret().is_empty() => {
            tokens.end_s = tokens.expires_in.map(|seconds| now_s.saturating_add(seconds));
            Renewed::Tokens(tokens)
        }
        _ => Renewed::Later("the token endpoint's answer has no access token".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{account, with};
    use super::super::{read as read_for, request};
    use super::*;

    #[test]
    fn requests_are_those_of_the_provider_and_hide_the_token() {
        let claude = account(r#"{"type":"claude","access_token":"t","refresh_token":"canary+/"}"#);
        let made = request(&claude, &with(None, None)).unwrap();
        assert_eq!(made.url, "https://platform.claude.com/v1/oauth/token");
        assert!(made.body.expose_secret().contains(r#""refresh_token":"canary+/""#));
        assert!(!format!("{made:?}").contains("canary"));
        let codex = account(r#"{"type":"codex","access_token":"t","refresh_token":"a+b"}"#);
        let base = url::Url::parse("http://127.0.0.1:9/x").unwrap();
        let made = request(&codex, &with(None, Some(&base))).unwrap();
        assert_eq!(made.url, "http://127.0.0.1:9/oauth/token");
        assert!(made.body.expose_secret().contains("refresh_token=a%2Bb"), "{}", made.body.expose_secret());
        let google = account(r#"{"type":"antigravity","access_token":"t","refresh_token":"r"}"#);
        let told = request(&google, &with(None, None)).unwrap_err();
        assert!(told.contains("CLIPROXY_ANTIGRAVITY_CLIENT_SECRET"), "{told}");
        let made = request(&google, &with(Some("s"), None)).unwrap();
        assert!(made.body.expose_secret().ends_with("client_secret=s"));
    }

    #[test]
    fn answers_of_a_token_endpoint() {
        let claude = account(r#"{"type":"claude","access_token":"t","refresh_token":"r"}"#);
        let read = |status, body: &str| read_for(&claude, status, body.as_bytes(), 1000);
        let Renewed::Tokens(tokens) = read(200, r#"{"access_token":"n","expires_in":60}"#) else { panic!() };
        assert_eq!(tokens.end_s, Some(1060));
        for (status, body) in [
            (400, r#"{"error":"invalid_grant"}"#),
            (401, "{}"),
            (400, r#"{"error":{"code":"refresh_token_reused"}}"#),
        ] {
            assert!(matches!(read(status, body), Renewed::NeedsLogin(_)), "{body}");
        }
        for (status, body) in
            [(200, "{}"), (200, "<html>"), (500, ""), (429, "{}"), (400, r#"{"error":"temporarily"}"#)]
        {
            assert!(matches!(read(status, body), Renewed::Later(_)), "{body}");
        }
    }
}
