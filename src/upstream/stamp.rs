//! The operator's key or token, and what else an upstream asks for to let a caller in.
//!
//! Enters: a credential's facts. Leaves: headers. May go wrong: a key that cannot stand in a header.

use super::peer::Lane;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use pingora::http::RequestHeader;
use pingora::{ErrorType, OrErr, Result};
use pool::Kind;
use secrecy::{ExposeSecret, SecretString};
use wire::openai_chat::copilot_hints;

/// The version of Anthropic's API that is spoken when the client says none.
const ANTHROPIC_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// What Copilot's backend expects of an editor: names and values of headers.
pub const COPILOT: [(&str, &str); 4] = [
    ("editor-version", concat!("cliproxy/", env!("CARGO_PKG_VERSION"))),
    ("openai-intent", "conversation-panel"),
    ("copilot-integration-id", "vscode-chat"),
    ("x-github-api-version", "2025-04-01"),
];

/// What Anthropic's API asks for with the token of a login.
const OAUTH_BETA: &str = "oauth-2025-04-20";

/// The API of Kiro's service that answers.
pub(super) const KIRO_TARGET: &str = "AmazonCodeWhispererStreamingService.GenerateAssistantResponse";

/// What lets a call in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp<'c> {
    /// Kind of the upstream.
    pub(super) kind: Kind,
    /// Whether the body is one of Claude's.
    pub(super) speaks_claude: bool,
    /// The way to it.
    pub(super) lane: &'c Lane,
    /// The key or token.
    pub(super) secret: &'c SecretString,
    /// Whether it is a token.
    pub(super) is_token: bool,
    /// The account within the login; may be empty.
    pub(super) scope: &'c str,
}

impl<'c> Stamp<'c> {
    /// A plain key.
    pub(super) fn key(kind: Kind, lane: &'c Lane, secret: &'c SecretString) -> Self {
        Self { kind, speaks_claude: kind == Kind::Claude, lane, secret, is_token: false, scope: "" }
    }

    /// Puts it on a request.
    pub(super) fn put(&self, header: &mut RequestHeader) -> Result<()> {
        let secret = self.secret.expose_secret();
        if self.kind == Kind::Kiro {
            kiro(self.lane, header)?;
        }
        if self.speaks_claude && header.headers.get("anthropic-version").is_none() {
            header.insert_header("anthropic-version", ANTHROPIC_VERSION)?;
        }
        if secret.is_empty() {
            return Ok(());
        }
        let bearer = || secret_value(&format!("Bearer {secret}"));
        match self.kind {
            Kind::Claude if self.is_token => {
                header.insert_header(AUTHORIZATION, bearer()?)?;
                add_beta(header, OAUTH_BETA)?;
            }
            Kind::Codex if !self.scope.is_empty() => {
                header.insert_header(AUTHORIZATION, bearer()?)?;
                header.insert_header("chatgpt-account-id", secret_value(self.scope)?)?;
            }
            Kind::Claude => {
                header.insert_header("x-api-key", secret_value(secret)?)?;
                if self.lane.host() != "api.anthropic.com" {
                    // Compatible servers read either; Anthropic itself refuses both at once.
                    header.insert_header(AUTHORIZATION, bearer()?)?;
                }
            }
            Kind::Gemini | Kind::Vertex if !self.is_token => {
                header.insert_header("x-goog-api-key", secret_value(secret)?)?;
            }
            _ => {
                header.insert_header(AUTHORIZATION, bearer()?)?;
            }
        }
        Ok(())
    }
}

/// What Kiro's service reads besides the token.
fn kiro(lane: &Lane, header: &mut RequestHeader) -> Result<()> {
    // This host serves several APIs and has to be told which; the other one, `q.`, is called without.
    if lane.host().starts_with("codewhisperer.") {
        header.insert_header("x-amz-target", KIRO_TARGET)?;
    }
    header.insert_header("x-amzn-kiro-agent-mode", "vibe")?;
    // Prompts are not to be kept for training.
    header.insert_header("x-amzn-codewhisperer-optout", "true")?;
    Ok(())
}

/// What Copilot's API asks for besides the token.
pub(super) fn copilot(body: &[u8], header: &mut RequestHeader) -> Result<()> {
    for (name, value) in COPILOT {
        header.insert_header(name, HeaderValue::from_static(value))?;
    }
    let hints = copilot_hints(body);
    header.insert_header("x-initiator", if hints.agent { "agent" } else { "user" })?;
    if hints.vision {
        header.insert_header("copilot-vision-request", "true")?;
    }
    Ok(())
}

/// Adds a beta to those that the client named.
fn add_beta(header: &mut RequestHeader, beta: &str) -> Result<()> {
    let named: Vec<_> =
        header.headers.get_all("anthropic-beta").iter().filter_map(|v| v.to_str().ok()).collect();
    if named.iter().any(|list| list.split(',').any(|name| name.trim() == beta)) {
        return Ok(());
    }
    header.append_header("anthropic-beta", beta.to_owned())?;
    Ok(())
}

/// A header value that `Debug` does not print.
pub(super) fn secret_value(text: &str) -> Result<HeaderValue> {
    let mut value =
        HeaderValue::from_str(text).or_err(ErrorType::InternalError, "the key cannot stand in a header")?;
    value.set_sensitive(true);
    Ok(value)
}
