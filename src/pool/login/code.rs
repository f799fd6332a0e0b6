//! Authorization codes: a page of the provider sends the browser back to this machine with a code.
//!
//! Enters: the provider's [`Spec`]; the code; the token endpoint's answer. Leaves: the page's address with
//! state and challenge, the exchange, then whatever [`After`] asks. May go wrong: no client secret where one
//! is needed, a code that the token endpoint refuses.
//!
//! Sources: RFC 6749, section 4.1; RFC 7636 (S256 only); RFC 8252, section 7.3, for the port.

use super::answer::Tokens;
use super::{About, Asked, Failed, Flow, Prompt, Provider, Reply, Stage, Step, claude, codex, google};
use crate::renewal::TokenRequest;
use crate::renewal::client_secret_variable;
use crate::renewal::oauth2::{self, Oauth2};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// How a provider gives out codes.
pub(super) struct Spec {
    channel: &'static str,
    oauth: &'static Oauth2,
    authorize: &'static str,
    scope: &'static str,
    /// Parameters of its own.
    more: &'static [(&'static str, &'static str)],
    pkce: bool,
    /// The exchange wants the state too.
    with_state: bool,
    /// The port that is registered.
    pub(super) port: u16,
    /// The path that is registered.
    pub(super) path: &'static str,
    /// Any port of this machine will do.
    any_port: bool,
    after: fn() -> Box<dyn After>,
}

const CLAUDE: Spec = Spec {
    channel: "claude",
    oauth: &oauth2::CLAUDE,
    authorize: "https://claude.ai/oauth/authorize",
    scope: "user:profile user:inference user:sessions:claude_code user:mcp_servers user:file_upload",
    more: &[("code", "true")],
    pkce: true,
    with_state: true,
    port: 54545,
    path: "/callback",
    any_port: false,
    after: || Box::new(claude::Claude::default()),
};
const CODEX: Spec = Spec {
    channel: "codex",
    oauth: &oauth2::CODEX,
    authorize: "https://auth.openai.com/oauth/authorize",
    scope: "openid profile email offline_access",
    more: &[
        ("prompt", "login"),
        ("id_token_add_organizations", "true"),
        ("codex_cli_simplified_flow", "true"),
    ],
    pkce: true,
    with_state: false,
    port: 1455,
    path: "/auth/callback",
    any_port: false,
    after: || Box::new(codex::Codex),
};
const ANTIGRAVITY: Spec = Spec {
    channel: "antigravity",
    oauth: &oauth2::ANTIGRAVITY,
    authorize: "https://accounts.google.com/o/oauth2/v2/auth",
    scope: "https://www.googleapis.com/auth/cloud-platform https://www.googleapis.com/auth/userinfo.email \
            https://www.googleapis.com/auth/userinfo.profile https://www.googleapis.com/auth/cclog \
            https://www.googleapis.com/auth/experimentsandconfigs",
    more: &[("access_type", "offline"), ("prompt", "consent")],
    pkce: false,
    with_state: false,
    port: 51121,
    path: "/oauth-callback",
    any_port: true,
    after: || Box::new(google::Google::default()),
};

/// How a provider gives out codes, if it does.
pub(super) fn spec(provider: Provider) -> Option<&'static Spec> {
    Some(match provider {
        Provider::Claude => &CLAUDE,
        Provider::Codex => &CODEX,
        Provider::Antigravity => &ANTIGRAVITY,
        _ => return None,
    })
}

/// What comes after the tokens.
pub(super) trait After: Send {
    /// The step after the exchange.
    fn tokens(&mut self, about: &About, tokens: Tokens, now_s: u64) -> Result<Step, Failed>;

    /// The step after an answer to it.
    fn answered(&mut self, _about: &About, _reply: Reply<'_>) -> Result<Step, Failed> {
        Err(Failed::new(Stage::Profile, "an answer without a question"))
    }
}

/// One login.
pub(super) struct Code {
    spec: &'static Spec,
    redirect: String,
    exchanged: bool,
    after: Box<dyn After>,
}

impl Code {
    pub(super) fn new(spec: &'static Spec, port: Option<u16>) -> Self {
        let port = port.filter(|_| spec.any_port).unwrap_or(spec.port);
        let redirect = format!("http://localhost:{port}{}", spec.path);
        Self { spec, redirect, exchanged: false, after: (spec.after)() }
    }
}

impl Flow for Code {
    fn begin(&mut self, about: &About) -> Result<Step, Failed> {
        let spec = self.spec;
        if spec.oauth.with_secret && about.client_secret.is_none() {
            let variable = client_secret_variable(spec.channel);
            return Err(Failed::new(Stage::Start, format!("its client secret is not set: {variable}")));
        }
        let wrong = |_| Failed::new(Stage::Start, "the provider's address is none");
        let mut url = Url::parse(&about.at(spec.authorize)).map_err(wrong)?;
        {
            let mut query = url.query_pairs_mut();
            query
                .extend_pairs(spec.more)
                .append_pair("client_id", spec.oauth.client_id)
                .append_pair("response_type", "code")
                .append_pair("redirect_uri", &self.redirect)
                .append_pair("scope", spec.scope)
                .append_pair("state", &about.state);
            if spec.pkce {
                query
                    .append_pair("code_challenge", &about.challenge())
                    .append_pair("code_challenge_method", "S256");
            }
        }
        Ok(Step::Show(Prompt { url: url.into(), user_code: None, expires_in_s: None }, None))
    }

    fn returned(&mut self, about: &About, code: &SecretString) -> Result<Step, Failed> {
        let spec = self.spec;
        let mut members = vec![
            ("grant_type", "authorization_code"),
            ("client_id", spec.oauth.client_id),
            ("code", code.expose_secret()),
            ("redirect_uri", self.redirect.as_str()),
        ];
        if spec.pkce {
            members.push(("code_verifier", about.verifier.expose_secret()));
        }
        if spec.with_state {
            members.push(("state", &about.state));
        }
        if let Some(secret) = about.client_secret.as_ref().filter(|_| spec.oauth.with_secret) {
            members.push(("client_secret", secret.expose_secret()));
        }
        let url = about.at(spec.oauth.endpoint);
        let request = if spec.oauth.json {
            TokenRequest::json(url, &members)
        } else {
            TokenRequest::form(url, &members)
        };
        Ok(Step::Ask(Asked::must(Stage::Exchange, request)))
    }

    fn answered(&mut self, about: &About, reply: Reply<'_>) -> Result<Step, Failed> {
        if self.exchanged {
            return self.after.answered(about, reply);
        }
        self.exchanged = true;
        self.after.tokens(about, Tokens::read(Stage::Exchange, reply)?, reply.now_s)
    }
}
