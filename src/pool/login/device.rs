//! Device codes (RFC 8628): the user types a code at the provider's page, and it is asked until that is done.
//!
//! Enters: the provider's [`Spec`] and the answers. Leaves: the page and the code, polls, the account's file.
//! May go wrong: the user refuses, or takes too long.
//!
//! Kimi and Qwen say nothing of whose account it is: their files are named by the subject of the token where
//! it is a JSON Web Token, else by the time; then a second login makes a second file.

use super::account_file::{AccountFile, digest};
use super::answer::{Polled, Tokens, number, object, polled, text};
use super::{About, Asked, Failed, Flow, Prompt, Reply, Stage, Step};
use crate::renewal::TokenRequest;
use crate::renewal::oauth2::{KIMI as KIMI_OAUTH, QWEN as QWEN_OAUTH, XAI as XAI_OAUTH};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

pub(super) const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// Seconds between two polls where the provider names none, and what `slow_down` adds (RFC 8628, section 3.5).
pub(super) const INTERVAL_S: u64 = 5;
/// Longest wait between two polls.
pub(super) const LONGEST_S: u64 = 60;

/// How a provider gives out device codes.
pub(super) struct Spec {
    channel: &'static str,
    client_id: &'static str,
    /// Where the other two are told.
    discovery: Option<&'static str>,
    start: &'static str,
    token: &'static str,
    scope: &'static str,
    pkce: bool,
    /// Where it is told whose account it is.
    user: Option<&'static str>,
}

pub(super) const KIMI: Spec = Spec {
    channel: "kimi",
    client_id: KIMI_OAUTH.client_id,
    discovery: None,
    start: "https://auth.kimi.com/api/oauth/device_authorization",
    token: KIMI_OAUTH.endpoint,
    scope: "",
    pkce: false,
    user: None,
};
pub(super) const QWEN: Spec = Spec {
    channel: "qwen",
    client_id: QWEN_OAUTH.client_id,
    discovery: None,
    start: "https://chat.qwen.ai/api/v1/oauth2/device/code",
    token: QWEN_OAUTH.endpoint,
    scope: "openid profile email model.completion",
    pkce: true,
    user: None,
};
pub(super) const XAI: Spec = Spec {
    channel: "xai",
    client_id: XAI_OAUTH.client_id,
    discovery: Some("https://auth.x.ai/.well-known/openid-configuration"),
    start: "",
    token: XAI_OAUTH.endpoint,
    scope: "openid profile email offline_access grok-cli:access api:access",
    pkce: false,
    user: None,
};
pub(super) const GITHUB: Spec = Spec {
    channel: "github-copilot",
    client_id: "Iv1.b507a08c87ecfe98",
    discovery: None,
    start: "https://github.com/login/device/code",
    token: "https://github.com/login/oauth/access_token",
    scope: "read:user user:email",
    pkce: false,
    user: Some("https://api.github.com/user"),
};

/// One login.
pub(super) struct Device {
    spec: &'static Spec,
    start: String,
    token: String,
    code: SecretString,
    interval_s: u64,
    at: At,
}

enum At {
    Discovery,
    Start,
    Poll,
    User(Box<Tokens>),
}

impl Device {
    pub(super) fn new(spec: &'static Spec) -> Self {
        Self {
            spec,
            start: spec.start.to_owned(),
            token: spec.token.to_owned(),
            code: SecretString::default(),
            interval_s: INTERVAL_S,
            at: At::Start,
        }
    }

    fn start(&mut self, about: &About) -> Step {
        self.at = At::Start;
        let challenge = about.challenge();
        let mut members = vec![("client_id", self.spec.client_id)];
        if !self.spec.scope.is_empty() {
            members.push(("scope", self.spec.scope));
        }
        if self.spec.pkce {
            members.extend([("code_challenge", challenge.as_str()), ("code_challenge_method", "S256")]);
        }
        Step::Ask(Asked::must(Stage::Start, TokenRequest::form(about.at(&self.start), &members)))
    }

    /// Takes the endpoints from the provider's own description, if they are its own.
    fn discovered(&mut self, about: &About, reply: Reply<'_>) -> Result<Step, Failed> {
        let found = object(Stage::Start, reply)?;
        for (key, place) in
            [("device_authorization_endpoint", &mut self.start), ("token_endpoint", &mut self.token)]
        {
            let endpoint = text(&found, key).filter(|url| is_xai(url));
            *place = endpoint.ok_or_else(|| {
                Failed::new(Stage::Start, format!("`{key}` of the provider is no address of its own"))
            })?;
        }
        Ok(self.start(about))
    }

    fn started(&mut self, about: &About, reply: Reply<'_>) -> Result<Step, Failed> {
        let found = object(Stage::Start, reply)?;
        let prompt = prompt(about, &found, ["verification_uri_complete", "verification_uri", "user_code"]);
        let code = text(&found, "device_code");
        let (Some(mut prompt), Some(code)) = (prompt, code) else {
            return Err(Failed::new(Stage::Start, "the answer has no device code with a page to type it in"));
        };
        prompt.expires_in_s = found.get("expires_in").and_then(number);
        self.code = SecretString::from(code);
        self.interval_s = interval(found.get("interval").and_then(number));
        self.at = At::Poll;
        Ok(Step::Show(prompt, Some(self.poll(about))))
    }

    fn poll(&self, about: &About) -> Asked {
        let mut members = vec![
            ("grant_type", GRANT),
            ("client_id", self.spec.client_id),
            ("device_code", self.code.expose_secret()),
        ];
        if self.spec.pkce {
            members.push(("code_verifier", about.verifier.expose_secret()));
        }
        let request = TokenRequest::form(about.at(&self.token), &members);
        Asked::poll(Stage::Device, self.interval_s, request)
    }

    fn got(&mut self, about: &About, tokens: Box<Tokens>, now_s: u64) -> Step {
        if let Some(user) = self.spec.user {
            let login = SecretString::from(format!("token {}", tokens.access_token.expose_secret()));
            let request = TokenRequest {
                method: "GET",
                url: about.at(user),
                headers: vec![("authorization", login)],
                body: SecretString::default(),
            };
            self.at = At::User(tokens);
            return Step::Ask(Asked::must(Stage::Profile, request));
        }
        let mut file = AccountFile::new(self.spec.channel, &tokens, now_s);
        let (email, subject) =
            (tokens.claim("email").unwrap_or_default(), tokens.claim("sub").unwrap_or_default());
        file.set("email", &email);
        if self.spec.channel == "xai" {
            file.set("sub", &subject);
            file.set("token_endpoint", &self.token);
            file.set("auth_kind", "oauth");
        }
        file.set("resource_url", tokens.resource_url.as_deref().unwrap_or_default());
        let name = match (email.is_empty(), subject.is_empty()) {
            (false, _) => email,
            (true, false) => digest(&subject),
            (true, true) => now_s.saturating_mul(1000).to_string(),
        };
        Step::Done(file.named(&[self.spec.channel, &name]))
    }

    fn known(&self, reply: Reply<'_>, tokens: &Tokens) -> Result<Step, Failed> {
        let user = object(Stage::Profile, reply)?;
        let missing = || Failed::new(Stage::Profile, "the answer names no login");
        let name = text(&user, "login").ok_or_else(missing)?;
        let mut file = AccountFile::new(self.spec.channel, tokens, reply.now_s);
        file.set("username", &name);
        Ok(Step::Done(file.named(&[self.spec.channel, &name])))
    }
}

impl Flow for Device {
    fn begin(&mut self, about: &About) -> Result<Step, Failed> {
        let Some(discovery) = self.spec.discovery else { return Ok(self.start(about)) };
        self.at = At::Discovery;
        let request = TokenRequest {
            method: "GET",
            url: about.at(discovery),
            headers: Vec::new(),
            body: SecretString::default(),
        };
        Ok(Step::Ask(Asked::must(Stage::Start, request)))
    }

    fn answered(&mut self, about: &About, reply: Reply<'_>) -> Result<Step, Failed> {
        match std::mem::replace(&mut self.at, At::Poll) {
            At::Discovery => self.discovered(about, reply),
            At::Start => self.started(about, reply),
            At::Poll => match polled(reply)? {
                Polled::Pending => Ok(Step::Ask(self.poll(about))),
                Polled::SlowDown => {
                    self.interval_s = (self.interval_s + INTERVAL_S).min(LONGEST_S);
                    Ok(Step::Ask(self.poll(about)))
                }
                Polled::Tokens(tokens) => Ok(self.got(about, tokens, reply.now_s)),
            },
            At::User(tokens) => self.known(reply, &tokens),
        }
    }
}

/// Seconds between two polls.
pub(super) fn interval(told: Option<u64>) -> u64 {
    told.unwrap_or(INTERVAL_S).clamp(INTERVAL_S, LONGEST_S)
}

/// The page and the code that an answer names, by its members for the page with the code in it, the page, the
/// code.
pub(super) fn prompt(
    about: &About,
    found: &serde_json::Map<String, serde_json::Value>,
    [complete, page, code]: [&str; 3],
) -> Option<Prompt> {
    let code =
        text(found, code).filter(|code| code.len() <= 64 && code.chars().all(|c| c.is_ascii_graphic()))?;
    let url = [complete, page].iter().find_map(|key| about.page(&text(found, key)?))?;
    Some(Prompt { url, user_code: Some(code), expires_in_s: None })
}

/// Whether an address is one of x.ai, where tokens may be sent.
fn is_xai(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| {
        let host = url.host_str().unwrap_or_default();
        url.scheme() == "https" && (host == "x.ai" || host.ends_with(".x.ai"))
    })
}
