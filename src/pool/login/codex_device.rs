//! Codex by a device code: OpenAI's own way, which ends in an authorization code.
//!
//! Enters: the answers of OpenAI's hosts. Leaves: page and code, polls (403 and 404: not yet), the exchange,
//! the account's file. May go wrong: the user takes too long, which the session ends.

use super::answer::{Tokens, number, object, text};
use super::device::interval;
use super::{About, Asked, Failed, Flow, Prompt, Reply, Stage, Step, codex};
use crate::renewal::TokenRequest;
use crate::renewal::oauth2::CODEX;
use secrecy::{ExposeSecret, SecretString};

const USER_CODE: &str = "https://auth.openai.com/api/accounts/deviceauth/usercode";
const POLL: &str = "https://auth.openai.com/api/accounts/deviceauth/token";
const PAGE: &str = "https://auth.openai.com/codex/device";
/// What the code was given out for.
const REDIRECT: &str = "https://auth.openai.com/deviceauth/callback";
/// Seconds for which a code is good.
const LIFE_S: u64 = 15 * 60;

#[derive(Default)]
pub(super) struct CodexDevice {
    id: SecretString,
    user_code: String,
    interval_s: u64,
    at: At,
}

#[derive(Default)]
enum At {
    #[default]
    Start,
    Poll,
    Exchange,
}

impl CodexDevice {
    fn poll(&self, about: &About) -> Asked {
        let members = [("device_auth_id", self.id.expose_secret()), ("user_code", self.user_code.as_str())];
        Asked::poll(Stage::Device, self.interval_s, TokenRequest::json(about.at(POLL), &members))
    }

    fn started(&mut self, about: &About, reply: Reply<'_>) -> Result<Step, Failed> {
        let found = object(Stage::Start, reply)?;
        let code = text(&found, "user_code").or_else(|| text(&found, "usercode"));
        let code = code.filter(|code| code.len() <= 64 && code.chars().all(|c| c.is_ascii_graphic()));
        let (Some(id), Some(code)) = (text(&found, "device_auth_id"), code) else {
            return Err(Failed::new(Stage::Start, "the answer has no device code"));
        };
        (self.id, self.user_code, self.at) = (id.into(), code.clone(), At::Poll);
        self.interval_s = interval(found.get("interval").and_then(number));
        let prompt = Prompt { url: about.at(PAGE), user_code: Some(code), expires_in_s: Some(LIFE_S) };
        Ok(Step::Show(prompt, Some(self.poll(about))))
    }

    fn exchange(&mut self, about: &About, reply: Reply<'_>) -> Result<Step, Failed> {
        let found = object(Stage::Device, reply)?;
        let (Some(code), Some(verifier)) =
            (text(&found, "authorization_code"), text(&found, "code_verifier"))
        else {
            return Err(Failed::new(Stage::Device, "the answer has no authorization code"));
        };
        self.at = At::Exchange;
        let members = [
            ("grant_type", "authorization_code"),
            ("client_id", CODEX.client_id),
            ("code", &code),
            ("redirect_uri", &about.at(REDIRECT)),
            ("code_verifier", &verifier),
        ];
        let request = TokenRequest::form(about.at(CODEX.endpoint), &members);
        Ok(Step::Ask(Asked::must(Stage::Exchange, request)))
    }
}

impl Flow for CodexDevice {
    fn begin(&mut self, about: &About) -> Result<Step, Failed> {
        let request = TokenRequest::json(about.at(USER_CODE), &[("client_id", CODEX.client_id)]);
        Ok(Step::Ask(Asked::must(Stage::Start, request)))
    }

    fn answered(&mut self, about: &About, reply: Reply<'_>) -> Result<Step, Failed> {
        match self.at {
            At::Start => self.started(about, reply),
            At::Poll if matches!(reply.status, 403 | 404) => Ok(Step::Ask(self.poll(about))),
            At::Poll => self.exchange(about, reply),
            At::Exchange => codex::file(&Tokens::read(Stage::Exchange, reply)?, reply.now_s).map(Step::Done),
        }
    }
}
