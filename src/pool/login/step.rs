//! Steps of a login, and why one fails.
//!
//! Enters: what a flow wants asked or shown, what a provider said. Leaves: [`Step`], [`Failed`] with no secret
//! in it. Nothing may go wrong.

use super::AccountFile;
use crate::renewal::TokenRequest;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use std::fmt;

/// Longest text of a provider that is shown to people, in characters.
const SHOWN: usize = 300;
/// Shorter values are words that stand in any text; providers have no such secrets.
const SHORTEST: usize = 8;

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// Ask, and tell the login the answer.
    Ask(Asked),
    /// Show it to the user. With a question: ask it then. Without: wait for what comes back.
    Show(Prompt, Option<Asked>),
    /// The end.
    Done(AccountFile),
}

/// A question.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What for.
    pub stage: Stage,
    /// Seconds to wait before.
    pub after_s: u64,
    /// The question.
    pub request: TokenRequest,
    pub(super) weight: Weight,
}

/// What it means that a question stays without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// The login fails.
    Must,
    /// It is asked again.
    Poll,
    /// The login goes on without.
    May,
}

impl Asked {
    pub(super) fn must(stage: Stage, request: TokenRequest) -> Self {
        Self { stage, after_s: 0, request, weight: Weight::Must }
    }

    pub(super) fn may(stage: Stage, request: TokenRequest) -> Self {
        Self { weight: Weight::May, ..Self::must(stage, request) }
    }

    pub(super) fn poll(stage: Stage, after_s: u64, request: TokenRequest) -> Self {
        Self { stage, after_s, request, weight: Weight::Poll }
    }
}

/// What the user has to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The page to open.
    pub url: String,
    /// What to type there, of a device code.
    pub user_code: Option<String>,
    /// Seconds for which it is good, where the provider said so.
    pub expires_in_s: Option<u64>,
}

/// A step, as errors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before the user sees anything.
    Start,
    /// At the provider's page.
    Authorize,
    /// A code for tokens.
    Exchange,
    /// A device code for tokens.
    Device,
    /// A refresh token for tokens.
    Import,
    /// Whose account it is.
    Profile,
    /// The account's project at Google.
    Project,
    /// The account's file.
    File,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "Failed to start the login",
            Self::Authorize => "The provider did not allow the login",
            Self::Exchange => "Failed to exchange authorization code for tokens",
            Self::Device => "Failed to exchange device code for tokens",
            Self::Import => "Failed to exchange refresh token for tokens",
            Self::Profile => "Failed to read whose account it is (userinfo)",
            Self::Project => "Failed to find the project of the account (loadCodeAssist, onboardUser)",
            Self::File => "Failed to write the account file",
        })
    }
}

/// Why a login came to nothing. Holds no secret, and at most [`SHOWN`] characters of others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{stage}: {cause}")]
pub struct Failed {
    /// At which step.
    pub stage: Stage,
    /// Why.
    pub cause: String,
}

impl Failed {
    /// A failure whose cause may be somebody else's words.
    pub fn new(stage: Stage, cause: impl AsRef<str>) -> Self {
        let plain = |c: char| if c.is_control() || is_bidi(c) { ' ' } else { c };
        Self { stage, cause: cause.as_ref().chars().map(plain).collect() }
    }

    /// The same without secrets that a provider repeats, and short. In this order: a part of a secret is one.
    pub(super) fn without(mut self, secrets: &[SecretString]) -> Self {
        for secret in secrets.iter().map(ExposeSecret::expose_secret).filter(|s| s.len() >= SHORTEST) {
            self.cause = self.cause.replace(secret, "…");
        }
        self.cause = self.cause.chars().take(SHOWN).collect();
        self
    }
}

/// Characters that turn the order of a line around.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What went with a request and may be a secret: the values of its body and its headers.
pub(super) fn secrets(request: &TokenRequest) -> Vec<SecretString> {
    let body = request.body.expose_secret();
    let mut values: Vec<String> = match serde_json::from_str::<Map<String, Value>>(body) {
        Ok(members) => {
            members.into_iter().filter_map(|(_, value)| value.as_str().map(str::to_owned)).collect()
        }
        Err(_) => url::form_urlencoded::parse(body.as_bytes()).map(|(_, value)| value.into_owned()).collect(),
    };
    // As a form writes them.
    let written: Vec<String> =
        values.iter().map(|value| url::form_urlencoded::byte_serialize(value.as_bytes()).collect()).collect();
    values.extend(written);
    let words = request.headers.iter().filter_map(|(_, value)| value.expose_secret().split(' ').next_back());
    values.extend(words.map(str::to_owned));
    // The longest first: one may be a part of another.
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    values.into_iter().map(SecretString::from).collect()
}
