//! Answers of token endpoints.
//!
//! Enters: status and body. Leaves: [`Tokens`], or what a poll has to do. May go wrong: no tokens are in it;
//! the reason is the endpoint's own, shortened.

use super::{Failed, Reply, Stage};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What a login gets.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tokens {
    #[serde(alias = "accessToken")]
    pub access_token: SecretString,
    #[serde(alias = "refreshToken")]
    pub refresh_token: Option<SecretString>,
    #[serde(alias = "idToken")]
    pub id_token: Option<SecretString>,
    #[serde(alias = "expiresIn")]
    expires_in: Option<Value>,
    pub token_type: Option<String>,
    pub scope: Option<String>,
    /// Where Qwen serves the account.
    pub resource_url: Option<String>,
    /// Kiro's profile.
    #[serde(alias = "profileArn")]
    pub profile_arn: Option<String>,
    /// Claude's account.
    pub account: Option<Value>,
    /// Claude's organisation.
    pub organization: Option<Value>,
}

impl Tokens {
    /// Reads an answer.
    pub(super) fn read(stage: Stage, reply: Reply<'_>) -> Result<Self, Failed> {
        accepted(stage, reply)?;
        match serde_json::from_slice::<Self>(reply.body) {
            Ok(tokens) if !tokens.access_token.expose_secret().is_empty() => Ok(tokens),
            _ => Err(Failed::new(stage, "the token endpoint's answer has no access token")),
        }
    }

    /// Seconds for which the access token is good.
    pub(super) fn life_s(&self) -> Option<u64> {
        number(self.expires_in.as_ref()?).filter(|seconds| *seconds > 0)
    }

    /// A claim of the identity token, else of the access token.
    pub(super) fn claim(&self, name: &str) -> Option<String> {
        let of = |token: &SecretString| text(&claims(token.expose_secret()), name);
        self.id_token.as_ref().and_then(of).or_else(|| of(&self.access_token))
    }
}

/// What a poll says.
pub(super) enum Polled {
    /// The user is not done.
    Pending,
    /// The same, and it is asked too often.
    SlowDown,
    /// Here they are.
    Tokens(Box<Tokens>),
}

/// Reads the answer to a poll (RFC 8628, section 3.5). Some say 200 to everything, some have names of their own.
pub(super) fn polled(reply: Reply<'_>) -> Result<Polled, Failed> {
    let body: Map<String, Value> = serde_json::from_slice(reply.body).unwrap_or_default();
    let error =
        ["error", "__type", "code", "status"].iter().find_map(|key| text(&body, key)).unwrap_or_default();
    let error: String =
        error.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_ascii_lowercase();
    let says = |word: &str| error.contains(word);
    if says("authorizationpending") {
        return Ok(Polled::Pending);
    }
    if says("slowdown") {
        return Ok(Polled::SlowDown);
    }
    if says("accessdenied") {
        return Err(Failed::new(Stage::Authorize, "it was refused at the provider's page"));
    }
    if says("expired") {
        return Err(Failed::new(Stage::Authorize, "the code has run out before it was used; begin again"));
    }
    if body.contains_key("error") {
        return Err(refused(Stage::Device, reply));
    }
    Tokens::read(Stage::Device, reply).map(|tokens| Polled::Tokens(Box::new(tokens)))
}

/// Refuses what is no success.
pub(super) fn accepted(stage: Stage, reply: Reply<'_>) -> Result<(), Failed> {
    if (200..300).contains(&reply.status) { Ok(()) } else { Err(refused(stage, reply)) }
}

/// What a refusal says.
pub(super) fn refused(stage: Stage, reply: Reply<'_>) -> Failed {
    let body: Map<String, Value> = serde_json::from_slice(reply.body).unwrap_or_default();
    let described = text(&body, "error_description").map(|text| match body.get("error") {
        Some(Value::String(error)) => format!("{error}: {text}"),
        _ => text,
    });
    let said = described.unwrap_or_else(|| wire::error::Failure::parse(reply.status, reply.body).message);
    Failed::new(stage, format!("status {}: {said}", reply.status))
}

/// Reads a JSON object.
pub(super) fn object(stage: Stage, reply: Reply<'_>) -> Result<Map<String, Value>, Failed> {
    accepted(stage, reply)?;
    serde_json::from_slice(reply.body).map_err(|_| Failed::new(stage, "the answer is not a JSON object"))
}

/// A member that is text and not empty.
pub(super) fn text(members: &Map<String, Value>, key: &str) -> Option<String> {
    let text = members.get(key)?.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// A whole number, also as text or with a point.
pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().map(|float| float as u64)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The claims of a JSON Web Token, unproven: it came from the provider over TLS.
fn claims(token: &str) -> Map<String, Value> {
    let claims = token.split('.').nth(1).unwrap_or_default();
    let decoded = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).unwrap_or_default();
    serde_json::from_slice(&decoded).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply<'_> {
        Reply { status, body: body.as_bytes(), now_s: 0 }
    }

    #[test]
    fn polls_of_all_kinds() {
        for (status, body) in [
            (400, r#"{"error":"authorization_pending"}"#),
            (200, r#"{"error":"authorization_pending","error_description":"wait"}"#),
            (400, r#"{"__type":"com.amazonaws.sso.oidc#AuthorizationPendingException"}"#),
        ] {
            assert!(matches!(polled(reply(status, body)), Ok(Polled::Pending)), "{body}");
        }
        for body in [r#"{"error":"slow_down","interval":10}"#, r#"{"__type":"SlowDownException"}"#] {
            assert!(matches!(polled(reply(400, body)), Ok(Polled::SlowDown)), "{body}");
        }
        for (status, body, says) in [
            (400, r#"{"error":"access_denied"}"#, "refused at"),
            (400, r#"{"error":"expired_token"}"#, "run out"),
            (200, r#"{"error":"incorrect_device_code","error_description":"no such"}"#, "no such"),
            (401, r#"{"error":{"message":"bad client"}}"#, "bad client"),
            (200, "{}", "no access token"),
            (200, "<html>", "no access token"),
            (404, "", "status 404"),
        ] {
            let Err(failed) = polled(reply(status, body)) else { panic!("{body}") };
            assert!(failed.cause.contains(says), "{body}: {failed}");
        }
        let Ok(Polled::Tokens(tokens)) = polled(reply(200, r#"{"accessToken":"t","expiresIn":"60"}"#)) else {
            panic!()
        };
        assert_eq!((tokens.access_token.expose_secret(), tokens.life_s()), ("t", Some(60)));
    }

    #[test]
    fn p62_words_of_others_are_short_and_on_one_line() {
        let long = format!(r#"{{"error":"x\n\u001b[31m\u202e","error_description":"{}"}}"#, "y".repeat(9000));
        let failed = refused(Stage::Exchange, reply(400, &long)).without(&[]);
        assert!(failed.cause.chars().count() <= 300);
        assert!(!failed.cause.chars().any(|c| c.is_control() || c == '\u{202e}'), "{failed}");
    }
}
