//! An account's file with new tokens in it.
//!
//! Enters: the file and the tokens. Leaves: its new content. May go wrong: it is no JSON object any more.

use std::collections::BTreeMap;

use secrecy::ExposeSecret;
use serde_json::value::RawValue;

use super::Tokens;

type Members = BTreeMap<String, Box<RawValue>>;

/// Spellings of the tokens that older versions wrote.
const OLD_TOKENS: [&str; 2] = ["accessToken", "refreshToken"];
/// Spellings of the end, all but the usual one.
const OLD_ENDS: [&str; 5] = ["expire", "expires_at", "expiresAt", "expiry", "expires"];

/// The file of an account with new tokens: members that nobody here knows stay as they are.
pub fn updated(file: &[u8], tokens: &Tokens, now_s: u64) -> Result<Vec<u8>, String> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let mut members: Members =
        serde_json::from_slice(file).map_err(|_| "the file is no JSON object any more".to_owned())?;
    let before = config::read_account("", file)?;
    // Kiro's own programs look for this one.
    let end = if members.contains_key("expires_at") { "expires_at" } else { "expired" };
    // Other spellings of what is written now would contradict it.
    forget(&mut members, tokens.end_s.is_some())?;
    if tokens.profile_arn.is_some() {
        members.remove("profileArn");
    }
    let old = before.refresh_token.expose_secret();
    let (now, end_of_life) = (rfc3339(now_s), tokens.end_s.map(rfc3339));
    let texts = [
        ("access_token", Some(tokens.access_token.expose_secret())),
        ("refresh_token", tokens.refresh_token.as_ref().map(ExposeSecret::expose_secret).or(Some(old))),
        ("id_token", tokens.id_token.as_ref().map(ExposeSecret::expose_secret)),
        ("profile_arn", tokens.profile_arn.as_deref()),
        ("last_refresh", Some(&now)),
        (end, end_of_life.as_deref()),
    ];
    for (key, text) in texts {
        let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
        let raw = RawValue::from_string(wire::json::string(text)).map_err(|e| e.to_string())?;
        members.insert(key.to_owned(), raw);
    }
    serde_json::to_vec_pretty(&members).map_err(|e| e.to_string())
}

/// Takes out the tokens in their other spellings and, where there is a new one, the end.
fn forget(members: &mut Members, new_end: bool) -> Result<(), String> {
    let ends: &[&str] = if new_end { &OLD_ENDS } else { &[] };
    for old in OLD_TOKENS.iter().chain(ends) {
        members.remove(*old);
    }
    let nested = members.get("token").map(|token| serde_json::from_str::<Members>(token.get()));
    let Some(Ok(mut nested)) = nested else { return Ok(()) };
    for old in ["access_token", "refresh_token"].iter().chain(ends) {
        nested.remove(*old);
    }
    if nested.is_empty() {
        members.remove("token");
    } else {
        let raw = serde_json::value::to_raw_value(&nested).map_err(|e| e.to_string())?;
        members.insert("token".to_owned(), raw);
    }
    Ok(())
}

/// Seconds since 1970 as files write them.
pub(crate) fn rfc3339(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::tests::account;
    use super::super::{Renewed, expires_s, read};
    use super::*;

    fn renewed(file: &str, answer: &str) -> String {
        let before = account(file);
        let Renewed::Tokens(tokens) = read(&before, 200, answer.as_bytes(), 1_795_233_600) else { panic!() };
        String::from_utf8(updated(file.as_bytes(), &tokens, 1_795_233_600).unwrap()).unwrap()
    }

    #[test]
    fn members_that_nobody_knows_survive_a_renewal() {
        let out = renewed(
            r#"{"type":"claude","x":{"deep":[1,2.50]},"access_token":"old","refresh_token":"keep","expire":"2020-01-01T00:00:00Z"}"#,
            r#"{"access_token":"new","expires_in":3600}"#,
        );
        assert!(out.contains(r#""x": {"deep":[1,2.50]}"#), "{out}");
        let read = account(&out);
        assert_eq!((read.secret.expose_secret(), read.refresh_token.expose_secret()), ("new", "keep"));
        assert_eq!(expires_s(&read.expires.unwrap()), Some(1_795_237_200));
        assert_eq!(expires_s(&read.last_refresh.unwrap()), Some(1_795_233_600));
        assert!(updated(b"[", &Tokens::default(), 0).is_err());
    }

    #[test]
    fn a_refresh_token_in_another_spelling_is_not_lost() {
        let out = renewed(
            r#"{"type":"kiro","accessToken":"old","refreshToken":"keep","profileArn":"arn","expires_at":"2020-01-01T00:00:00Z"}"#,
            r#"{"accessToken":"new"}"#,
        );
        let read = account(&out);
        assert_eq!((read.secret.expose_secret(), read.refresh_token.expose_secret()), ("new", "keep"));
        assert_eq!(read.scope, "arn");
        assert!(out.contains("expires_at") && !out.contains("expired"), "{out}");
        let out = renewed(
            r#"{"type":"antigravity","token":{"access_token":"old","refresh_token":"keep","mine":1}}"#,
            r#"{"access_token":"new"}"#,
        );
        let read = account(&out);
        assert_eq!((read.secret.expose_secret(), read.refresh_token.expose_secret()), ("new", "keep"));
        assert!(out.contains(r#"{"mine":1}"#), "{out}");
    }
}
