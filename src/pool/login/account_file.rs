//! Files of accounts that somebody has just logged in to.
//!
//! Enters: what a provider said. Leaves: [`AccountFile`]: a name and the members, which go into the file that
//! is there already, so that the operator's own settings stay. May go wrong: members that are no account.

use crate::renewal::file::rfc3339;
use config::Account;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::fmt;
use std::fmt::Write;

use super::answer::{Tokens, text};

/// Longest part of a name that a provider chose, in bytes.
const LONGEST: usize = 120;

/// What a login wrote before, in all spellings: it must not contradict what is written now.
const OLD: [&str; 20] = [
    "access_token",
    "accessToken",
    "refresh_token",
    "refreshToken",
    "id_token",
    "token",
    "expired",
    "expire",
    "expires_at",
    "expiresAt",
    "expiry",
    "expires",
    "profile_arn",
    "profileArn",
    "auth_method",
    "authMethod",
    "client_id",
    "clientId",
    "client_secret",
    "clientSecret",
];

/// Claude's organisation.
pub(super) const ORGANISATION: &str = "organization_uuid";

/// An account's file.
#[derive(Clone)]
pub struct AccountFile {
    /// Its name in the folder of accounts: plain, ending in `.json`, the same for the same account.
    pub name: String,
    members: Map<String, Value>,
}

/// The content holds tokens.
impl fmt::Debug for AccountFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountFile").field("name", &self.name).finish_non_exhaustive()
    }
}

impl AccountFile {
    /// A file with the members that most providers have.
    pub(super) fn new(channel: &str, tokens: &Tokens, now_s: u64) -> Self {
        let mut file = Self { name: String::new(), members: Map::new() };
        file.set("type", channel);
        file.set("access_token", tokens.access_token.expose_secret());
        file.set_secret("refresh_token", tokens.refresh_token.as_ref());
        file.set_secret("id_token", tokens.id_token.as_ref());
        file.set("token_type", tokens.token_type.as_deref().unwrap_or_default());
        file.set("scope", tokens.scope.as_deref().unwrap_or_default());
        file.set("last_refresh", &rfc3339(now_s));
        if let Some(life_s) = tokens.life_s() {
            file.set("expired", &rfc3339(now_s.saturating_add(life_s)));
        }
        file
    }

    /// Sets a member; empty text says nothing.
    pub(super) fn set(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.members.insert(key.to_owned(), text.into());
        }
    }

    pub(super) fn set_secret(&mut self, key: &str, secret: Option<&SecretString>) {
        self.set(key, secret.map(ExposeSecret::expose_secret).unwrap_or_default());
    }

    pub(super) fn set_number(&mut self, key: &str, number: u64) {
        self.members.insert(key.to_owned(), number.into());
    }

    /// Moves a member.
    pub(super) fn rename(&mut self, old: &str, new: &str) {
        if let Some(value) = self.members.remove(old) {
            self.members.insert(new.to_owned(), value);
        }
    }

    /// Names the file: the parts that are not empty, with hyphens between.
    pub(super) fn named(mut self, parts: &[&str]) -> Self {
        let parts: Vec<String> =
            parts.iter().filter(|part| !part.is_empty()).map(|part| part_of_name(part)).collect();
        self.name = parts.join("-") + ".json";
        self
    }

    /// Whether a file holds the same account: one address may be in several organisations.
    pub fn is_of(&self, before: &[u8]) -> bool {
        let before = before.strip_prefix(b"\xef\xbb\xbf").unwrap_or(before);
        let before: Map<String, Value> = serde_json::from_slice(before).unwrap_or_default();
        match (text(&before, ORGANISATION), text(&self.members, ORGANISATION)) {
            (Some(before), Some(now)) => before == now,
            _ => true,
        }
    }

    /// The name for the case that another organisation's account has the usual one.
    pub fn other_name(&self) -> String {
        let organisation = digest(&text(&self.members, ORGANISATION).unwrap_or_default());
        let stem = self.name.strip_suffix(".json").unwrap_or(&self.name);
        format!("{stem}-{organisation}.json")
    }

    /// The account, as it will be read from the file.
    pub fn account(&self) -> Result<Account, String> {
        config::read_account(&self.name, &serde_json::to_vec(&self.members).unwrap_or_default())
    }

    /// The content of the file, with what else `before` holds of this provider.
    pub fn content(&self, before: Option<&[u8]>) -> Result<Vec<u8>, String> {
        let before = before.map(|before| before.strip_prefix(b"\xef\xbb\xbf").unwrap_or(before));
        let mut members: Map<String, Value> =
            before.and_then(|before| serde_json::from_slice(before).ok()).unwrap_or_default();
        if members.get("type") != self.members.get("type") {
            members.clear();
        }
        for old in OLD {
            members.remove(old);
        }
        members.extend(self.members.clone());
        let bytes = serde_json::to_vec_pretty(&members).map_err(|e| e.to_string())?;
        config::read_account(&self.name, &bytes)?;
        Ok(bytes)
    }
}

/// The name under which an account is kept: that of the file which holds it already, whatever it is called.
pub fn place(file: &AccountFile, known: &[Account]) -> String {
    let Ok(new) = file.account() else { return file.name.clone() };
    let same = |old: &&Account| {
        old.channel == new.channel
            && !new.owner.is_empty()
            && old.owner == new.owner
            && old.scope == new.scope
    };
    let exact = known.iter().find(|old| old.file == file.name);
    exact.or_else(|| known.iter().find(same)).map_or_else(|| file.name.clone(), |old| old.file.clone())
}

/// Sixteen hex digits that stand for a text.
pub(super) fn digest(text: &str) -> String {
    let mut out = String::new();
    for byte in Sha256::digest(text.as_bytes()).iter().take(8) {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// A part of a name in letters that lead nowhere. What had to be changed gets a digest, to stay one of a kind.
fn part_of_name(part: &str) -> String {
    let plain: String = part
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "@._+-=".contains(c) { c } else { '_' })
        .take(LONGEST)
        .collect();
    if plain == part { plain } else { format!("{plain}-{}", digest(part)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(email: &str) -> AccountFile {
        let tokens: Tokens = serde_json::from_value(
            json!({"access_token": "canary-new", "refresh_token": "canary-r", "expires_in": 3600}),
        )
        .unwrap();
        let mut file = AccountFile::new("claude", &tokens, 1_795_233_600);
        file.set("email", email);
        file.named(&["claude", email])
    }

    #[test]
    fn p58_names_stay_in_the_folder_whatever_a_provider_says() {
        assert_eq!(file("a.b+c@d.test").name, "claude-a.b+c@d.test.json");
        for email in
            ["../../etc/passwd", "a/b@c", "a\0b", "\u{430}@b", "x".repeat(5000).as_str(), "a b", "<x>", "%2f"]
        {
            let name = file(email).name;
            assert!(name.len() < 200 && name.starts_with("claude-"), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "@._+-=".contains(c)), "{name}");
        }
        assert_ne!(file("a/b").name, file("a\\b").name);
    }

    #[test]
    fn row_115_a_second_login_updates_the_file_and_keeps_what_the_operator_set() {
        let before = br#"{"type":"claude","accessToken":"old","expire":"2020-01-01T00:00:00Z","priority":7,"note":"mine","token":{"access_token":"older"}}"#;
        let after = file("a@b").content(Some(before)).unwrap();
        let text = String::from_utf8(after.clone()).unwrap();
        assert!(!text.contains("old") && text.contains("\"note\": \"mine\""), "{text}");
        let account = config::read_account("x.json", &after).unwrap();
        assert_eq!((account.secret.expose_secret(), account.settings.priority), ("canary-new", 7));
        assert_eq!(account.expires, Some(config::Moment::Text("2026-11-21T05:00:00Z".to_owned())));
        for broken in [&b"{"[..], b"[]", b"", br#"{"type":"kimi","note":"mine"}"#] {
            let text = String::from_utf8(file("a@b").content(Some(broken)).unwrap()).unwrap();
            assert!(text.contains("canary-new") && !text.contains("mine"), "{text}");
        }
        assert!(!format!("{:?}", file("a@b")).contains("canary"));
    }

    #[test]
    fn row_115_an_account_stays_in_the_file_that_holds_it() {
        let known = |name: &str, text: &str| config::read_account(name, text.as_bytes()).unwrap();
        let renamed = known("mine.json", r#"{"type":"claude","access_token":"t","email":"a@b"}"#);
        let other = known("claude-x.json", r#"{"type":"codex","access_token":"t","email":"a@b"}"#);
        assert_eq!(place(&file("a@b"), &[other.clone(), renamed.clone()]), "mine.json");
        assert_eq!(place(&file("c@d"), &[other.clone(), renamed]), "claude-c@d.json");
        assert_eq!(place(&file(""), &[other]), "claude.json");
    }

    #[test]
    fn row_115_one_address_in_two_organisations_is_two_accounts() {
        let mut one = file("a@b");
        one.set(ORGANISATION, "one");
        assert!(one.is_of(br#"{"organization_uuid":"one"}"#) && one.is_of(b"{}") && one.is_of(b"junk"));
        assert!(file("a@b").is_of(br#"{"organization_uuid":"one"}"#), "nobody says so");
        assert!(!one.is_of(br#"{"organization_uuid":"two"}"#));
        assert_eq!(one.other_name(), format!("claude-a@b-{}.json", digest("one")));
    }
}
