//! Renewal of tokens: when, with what request, and what an answer means.
//!
//! Enters: an account, a time, a token endpoint's answer. Leaves: [`TokenRequest`], [`Renewed`] and the
//! account's file with the new tokens in it. May go wrong: the login is over ([`Renewed::NeedsLogin`], only a
//! new login helps), or the endpoint cannot say now ([`Renewed::Later`]).
//!
//! The grant is OAuth 2.0's (RFC 6749, section 6). Client ids are those that the providers publish for their
//! command lines; client secrets come from the operator.

use std::collections::BTreeMap;

use config::{Account, Moment};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::value::RawValue;

/// How a provider renews.
struct Strategy {
    endpoint: &'static str,
    client_id: &'static str,
    /// JSON instead of a form.
    json: bool,
    scope: &'static str,
    /// The endpoint wants a client secret.
    with_secret: bool,
    /// Seconds before the end at which a token is renewed.
    lead_s: u64,
}

fn strategy(channel: &str) -> Option<Strategy> {
    let google = Strategy {
        endpoint: "https://oauth2.googleapis.com/token",
        client_id: "",
        json: false,
        scope: "",
        with_secret: true,
        lead_s: 300,
    };
    Some(match channel {
        "claude" => Strategy {
            endpoint: "https://platform.claude.com/v1/oauth/token",
            client_id: "9d1c250a-e61b-44d9-88ed-5944d1962f5e",
            json: true,
            with_secret: false,
            lead_s: 4 * 3600,
            ..google
        },
        "codex" => Strategy {
            endpoint: "https://auth.openai.com/oauth/token",
            client_id: "app_EMoamEEZ73f0CkXaXp7hrann",
            scope: "openid profile email",
            with_secret: false,
            lead_s: 5 * 24 * 3600,
            ..google
        },
        "antigravity" => Strategy {
            client_id: "1071006060591-tmhssin2h21lcre235vtolojh4g403ep.apps.googleusercontent.com",
            ..google
        },
        "kimi" => Strategy {
            endpoint: "https://auth.kimi.com/api/oauth/token",
            client_id: "17e5f671-d194-4dfb-9706-5516cb48c098",
            with_secret: false,
            ..google
        },
        "xai" => Strategy {
            endpoint: "https://auth.x.ai/oauth2/token",
            client_id: "b1a00492-073a-47ea-816f-4c329264a828",
            with_secret: false,
            ..google
        },
        "qwen" => Strategy {
            endpoint: "https://chat.qwen.ai/api/v1/oauth2/token",
            client_id: "f0304373b74a44d2b584a3fb70ca9e56",
            with_secret: false,
            lead_s: 3 * 3600,
            ..google
        },
        _ => return None,
    })
}

/// Whether the token of an account can be renewed: the provider is known, and the file has what it takes.
pub fn renewable(account: &Account) -> bool {
    account.is_token && !account.refresh_token.is_empty() && strategy(&account.channel).is_some()
}

/// Seconds since 1970 from which the token should be renewed; `None`: it does not say when it runs out.
pub fn due_s(account: &Account) -> Option<u64> {
    let lead = strategy(&account.channel)?.lead_s;
    Some(expires_s(account.expires.as_ref()?)?.saturating_sub(lead))
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
    /// Where to.
    pub url: String,
    /// `application/json` or a form's.
    pub content_type: &'static str,
    /// The body; it holds the refresh token.
    pub body: SecretString,
}

/// The request that renews an account's token. `client_secret` is the operator's, for providers that want one.
pub fn request(account: &Account, client_secret: Option<&str>) -> Result<TokenRequest, String> {
    let strategy = strategy(&account.channel).ok_or("this version does not renew its tokens")?;
    let mut members = vec![
        ("grant_type", "refresh_token"),
        ("client_id", strategy.client_id),
        ("refresh_token", account.refresh_token.expose_secret()),
    ];
    if !strategy.scope.is_empty() {
        members.push(("scope", strategy.scope));
    }
    match client_secret {
        Some(secret) if strategy.with_secret => members.push(("client_secret", secret)),
        None if strategy.with_secret => {
            let name = account.channel.to_uppercase().replace('-', "_");
            return Err(format!("its client secret is not set: CLIPROXY_{name}_CLIENT_SECRET"));
        }
        _ => {}
    }
    let text = if strategy.json {
        let mut out = Vec::new();
        wire::json::object(&mut out, |o| members.iter().for_each(|(key, value)| o.str(key, value)));
        String::from_utf8(out).unwrap_or_default()
    } else {
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(members).finish()
    };
    Ok(TokenRequest {
        url: endpoint(account, strategy.endpoint),
        content_type: if strategy.json { "application/json" } else { "application/x-www-form-urlencoded" },
        body: SecretString::from(text),
    })
}

/// A base URL of the account's own stands for all of the provider's hosts.
fn endpoint(account: &Account, usual: &str) -> String {
    let usual = if account.token_endpoint.is_empty() { usual } else { &account.token_endpoint };
    let path = url::Url::parse(usual).map(|url| url.path().to_owned()).unwrap_or_default();
    match &account.settings.base_url {
        Some(base) => format!("{}{path}", base.url().origin().ascii_serialization()),
        None => usual.to_owned(),
    }
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
#[derive(Clone, Debug, Deserialize)]
pub struct Tokens {
    access_token: SecretString,
    /// Missing: the old one stays good (RFC 6749, section 6).
    #[serde(default)]
    refresh_token: Option<SecretString>,
    #[serde(default)]
    id_token: Option<SecretString>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// Reads a token endpoint's answer.
pub fn read(status: u16, body: &[u8]) -> Renewed {
    if (200..300).contains(&status) {
        return match serde_json::from_slice::<Tokens>(body) {
            Ok(tokens) if !tokens.access_token.expose_secret().is_empty() => Renewed::Tokens(tokens),
            _ => Renewed::Later("the token endpoint's answer has no access token".to_owned()),
        };
    }
    let failure = wire::error::Failure::parse(status, body);
    let said = String::from_utf8_lossy(body.get(..body.len().min(4096)).unwrap_or_default()).into_owned();
    // RFC 6749, section 5.2; the second is OpenAI's.
    let over =
        ["invalid_grant", "refresh_token_reused", "refresh_token_expired", "refresh_token_invalidated"];
    let reason = format!("status {status}: {}", failure.message);
    if status == 401 || over.iter().any(|word| said.contains(word)) {
        Renewed::NeedsLogin(reason)
    } else {
        Renewed::Later(reason)
    }
}

/// The file of an account with new tokens: members that nobody here knows stay as they are.
pub fn updated(file: &[u8], tokens: &Tokens, now_s: u64) -> Result<Vec<u8>, String> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let mut members: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(file).map_err(|_| "the file is no JSON object any more".to_owned())?;
    let texts = [
        ("access_token", Some(tokens.access_token.expose_secret().to_owned())),
        ("refresh_token", tokens.refresh_token.as_ref().map(|t| t.expose_secret().to_owned())),
        ("id_token", tokens.id_token.as_ref().map(|t| t.expose_secret().to_owned())),
        ("last_refresh", Some(rfc3339(now_s))),
        ("expired", tokens.expires_in.map(|seconds| rfc3339(now_s.saturating_add(seconds)))),
    ];
    // Other spellings of what is written now would contradict it.
    for old in
        ["token", "accessToken", "refreshToken", "expire", "expires_at", "expiresAt", "expiry", "expires"]
    {
        if old != "token" && tokens.expires_in.is_none() && old.starts_with("exp") {
            continue;
        }
        members.remove(old);
    }
    for (key, text) in texts {
        let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
        let raw = RawValue::from_string(wire::json::string(&text)).map_err(|e| e.to_string())?;
        members.insert(key.to_owned(), raw);
    }
    serde_json::to_vec_pretty(&members).map_err(|e| e.to_string())
}

fn rfc3339(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(text: &str) -> Account {
        config::read_account("a.json", text.as_bytes()).unwrap()
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
            let account = account(&format!("{{\"type\":\"kimi\",\"access_token\":\"t\",{text}}}"));
            assert_eq!(due_s(&account), Some(1_795_237_200 - 300), "{text}");
        }
        assert_eq!(due_s(&account(r#"{"type":"kimi","access_token":"t","expired":"soon"}"#)), None);
    }

    #[test]
    fn requests_are_those_of_the_provider_and_hide_the_token() {
        let claude = account(r#"{"type":"claude","access_token":"t","refresh_token":"canary+/"}"#);
        let request_of = |account: &Account| request(account, None).unwrap();
        let made = request_of(&claude);
        assert_eq!(made.url, "https://platform.claude.com/v1/oauth/token");
        assert!(made.body.expose_secret().contains(r#""refresh_token":"canary+/""#));
        assert!(!format!("{made:?}").contains("canary"));
        let codex = account(
            r#"{"type":"codex","access_token":"t","refresh_token":"a+b","base_url":"http://127.0.0.1:9/x"}"#,
        );
        let made = request_of(&codex);
        assert_eq!(made.url, "http://127.0.0.1:9/oauth/token");
        assert!(made.body.expose_secret().contains("refresh_token=a%2Bb"), "{}", made.body.expose_secret());
        let google = account(r#"{"type":"antigravity","access_token":"t","refresh_token":"r"}"#);
        assert!(request(&google, None).unwrap_err().contains("CLIPROXY_ANTIGRAVITY_CLIENT_SECRET"));
        assert!(request(&google, Some("s")).unwrap().body.expose_secret().ends_with("client_secret=s"));
        assert!(!renewable(&account(r#"{"type":"claude","access_token":"t"}"#)));
        assert!(!renewable(&account(r#"{"type":"iflow","api_key":"k","refresh_token":"r"}"#)));
    }

    #[test]
    fn answers_of_a_token_endpoint() {
        assert!(matches!(read(200, br#"{"access_token":"n","expires_in":60}"#), Renewed::Tokens(_)));
        for (status, body) in [
            (400, r#"{"error":"invalid_grant"}"#),
            (401, "{}"),
            (400, r#"{"error":{"code":"refresh_token_reused"}}"#),
        ] {
            assert!(matches!(read(status, body.as_bytes()), Renewed::NeedsLogin(_)), "{body}");
        }
        for (status, body) in
            [(200, "{}"), (200, "<html>"), (500, ""), (429, "{}"), (400, r#"{"error":"temporarily"}"#)]
        {
            assert!(matches!(read(status, body.as_bytes()), Renewed::Later(_)), "{body}");
        }
    }

    #[test]
    fn members_that_nobody_knows_survive_a_renewal() {
        let Renewed::Tokens(tokens) = read(200, br#"{"access_token":"new","expires_in":3600}"#) else {
            panic!()
        };
        let file = br#"{"type":"claude","x":{"deep":[1,2.50]},"access_token":"old","refresh_token":"keep","expires_at":"2020-01-01T00:00:00Z"}"#;
        let out = String::from_utf8(updated(file, &tokens, 1_795_233_600).unwrap()).unwrap();
        assert!(out.contains(r#""x": {"deep":[1,2.50]}"#), "{out}");
        let read = account(&out);
        assert_eq!((read.secret.expose_secret(), read.refresh_token.expose_secret()), ("new", "keep"));
        assert_eq!(expires_s(&read.expires.unwrap()), Some(1_795_237_200));
        assert!(updated(b"[", &tokens, 0).is_err());
    }
}
