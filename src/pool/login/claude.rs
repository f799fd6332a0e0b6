//! Claude: whose account it is, which the tokens mostly say themselves.
//!
//! Enters: tokens. Leaves: the file `claude-EMAIL.json`. May go wrong: nobody says whose account it is.

use super::account_file::{AccountFile, ORGANISATION};
use super::answer::{Tokens, object, text};
use super::code::After;
use super::{About, Asked, Failed, Reply, Stage, Step};
use crate::renewal::TokenRequest;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

const PROFILE: &str = "https://api.anthropic.com/api/oauth/profile";

/// The tokens, while it is asked whose they are.
#[derive(Default)]
pub(super) struct Claude(Option<(Tokens, u64)>);

impl After for Claude {
    fn tokens(&mut self, about: &About, tokens: Tokens, now_s: u64) -> Result<Step, Failed> {
        let (account, organisation) =
            (members(tokens.account.as_ref()), members(tokens.organization.as_ref()));
        if text(&account, "email_address").is_some() {
            return Ok(Step::Done(file(&tokens, now_s, &account, &organisation)));
        }
        let request = bearer(about.at(PROFILE), &tokens.access_token);
        self.0 = Some((tokens, now_s));
        Ok(Step::Ask(Asked::must(Stage::Profile, request)))
    }

    fn answered(&mut self, _about: &About, reply: Reply<'_>) -> Result<Step, Failed> {
        let profile = object(Stage::Profile, reply)?;
        let missing = || Failed::new(Stage::Profile, "the profile names no e-mail address");
        let (tokens, now_s) = self.0.take().ok_or_else(missing)?;
        let account = members(profile.get("account"));
        if email(&account).is_none() {
            return Err(missing());
        }
        Ok(Step::Done(file(&tokens, now_s, &account, &members(profile.get("organization")))))
    }
}

/// A GET with a token.
pub(super) fn bearer(url: String, token: &SecretString) -> TokenRequest {
    let value = SecretString::from(format!("Bearer {}", token.expose_secret()));
    TokenRequest {
        method: "GET",
        url,
        headers: vec![("authorization", value)],
        body: SecretString::default(),
    }
}

fn members(value: Option<&Value>) -> Map<String, Value> {
    value.and_then(Value::as_object).cloned().unwrap_or_default()
}

fn email(account: &Map<String, Value>) -> Option<String> {
    text(account, "email_address").or_else(|| text(account, "email"))
}

fn file(
    tokens: &Tokens,
    now_s: u64,
    account: &Map<String, Value>,
    organisation: &Map<String, Value>,
) -> AccountFile {
    let mut file = AccountFile::new("claude", tokens, now_s);
    let email = email(account).unwrap_or_default();
    file.set("email", &email);
    for (key, value) in [
        ("account_uuid", text(account, "uuid")),
        (ORGANISATION, text(organisation, "uuid")),
        ("organization_name", text(organisation, "name")),
    ] {
        file.set(key, &value.unwrap_or_default());
    }
    file.named(&["claude", &email])
}
