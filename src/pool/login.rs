//! Logins: how somebody gets an account of a provider into a file.
//!
//! Enters: the provider, random bytes, the time, the answers of its hosts, what its page sent back. Leaves:
//! [`Step`]s: a question to ask, something to show to the user, at last the account's file. May go wrong:
//! [`Failed`], which names the step. No failure leaves half a file.
//!
//! | file | holds |
//! |---|---|
//! | `code.rs` | authorization codes with PKCE (RFC 6749, 7636): Claude, Codex, Antigravity |
//! | `claude.rs`, `codex.rs`, `google.rs` | what comes after the tokens of these |
//! | `device.rs` | device codes (RFC 8628): Kimi, Qwen, xAI, GitHub |
//! | `codex_device.rs`, `kiro.rs` | two providers with device codes of their own |
//! | `answer.rs` | tokens and errors of token endpoints |
//! | `returned.rs` | what a provider's page sent back, as a URL or pasted |
//! | `account_file.rs` | names and content of files |
//!
//! All hosts of a provider can be replaced by one address, as for renewals.

mod account_file;
mod answer;
mod claude;
mod code;
mod codex;
mod codex_device;
mod device;
mod google;
mod kiro;
mod returned;

use crate::renewal::{TokenRequest, rerooted};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::fmt;
use url::Url;

pub use account_file::{AccountFile, place};
pub use kiro::Organisation;
pub use returned::Returned;

/// Longest text of a provider that is shown to people, in characters.
const SHOWN: usize = 300;
/// Lost polls in a row after which a login is given up.
const LOST: u32 = 5;

/// What one logs in to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Claude, with a subscription.
    Claude,
    /// ChatGPT, for Codex.
    Codex,
    /// Google Antigravity.
    Antigravity,
    /// Kimi.
    Kimi,
    /// xAI.
    Xai,
    /// Qwen.
    Qwen,
    /// Kiro, through AWS.
    Kiro,
    /// GitHub Copilot.
    Copilot,
}

/// All of them, with the channel of their accounts and the names by which people and peers call them.
const PROVIDERS: [(Provider, &str, &[&str]); 8] = [
    (Provider::Claude, "claude", &["anthropic"]),
    (Provider::Codex, "codex", &["openai", "chatgpt"]),
    (Provider::Antigravity, "antigravity", &["google"]),
    (Provider::Kimi, "kimi", &["moonshot"]),
    (Provider::Xai, "xai", &["grok"]),
    (Provider::Qwen, "qwen", &[]),
    (Provider::Kiro, "kiro", &["aws", "amazonq"]),
    (Provider::Copilot, "github-copilot", &["github", "copilot"]),
];

impl Provider {
    /// The provider of a name.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase();
        let found =
            PROVIDERS.iter().find(|(_, channel, others)| *channel == name || others.contains(&&*name));
        found.map(|(provider, _, _)| *provider)
    }

    /// The `type` of its accounts.
    pub fn channel(self) -> &'static str {
        PROVIDERS.iter().find(|(provider, _, _)| *provider == self).map_or("", |(_, channel, _)| channel)
    }

    /// All channels, for lists.
    pub fn channels() -> impl Iterator<Item = &'static str> {
        PROVIDERS.iter().map(|(_, channel, _)| *channel)
    }

    /// Where its page sends the browser back to; `None`: it has a device code only.
    pub fn callback(self) -> Option<Callback> {
        code::spec(self).map(|spec| Callback { port: spec.port, path: spec.path })
    }
}

/// The address on the user's machine that is registered with a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Callback {
    /// The port of `localhost`.
    pub port: u16,
    /// The path.
    pub path: &'static str,
}

/// What somebody wants to log in to.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The provider.
    pub provider: Provider,
    /// By a device code, where the provider has both.
    pub device: bool,
    /// Another port of this machine for the callback; providers that compare addresses get their own still.
    pub port: Option<u16>,
    /// The company's login of AWS; `None`: a Builder ID.
    pub organisation: Option<Organisation>,
    /// Kiro's refresh token, to take over a login that was made elsewhere.
    pub import: Option<SecretString>,
}

impl Wish {
    /// The usual login of a provider.
    pub fn of(provider: Provider) -> Self {
        Self { provider, device: false, port: None, organisation: None, import: None }
    }
}

/// Random bytes of a login. They are secrets.
#[derive(Clone)]
pub struct Random {
    /// What tells the login from all others.
    pub state: [u8; 32],
    /// What proves to the provider that the code comes back to who asked for it.
    pub verifier: [u8; 32],
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}

/// What a login needs from outside.
#[derive(Debug)]
pub struct Begin<'b> {
    /// Where all of the provider's hosts are, instead of their own addresses.
    pub base: Option<&'b Url>,
    /// The operator's client secret.
    pub client_secret: Option<&'b str>,
    /// Random bytes, for this login only.
    pub random: &'b Random,
}

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
    weight: Weight,
}

/// What it means that a question stays without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// The login fails.
    Must,
    /// It is asked again.
    Poll,
    /// The login goes on without.
    May,
}

impl Asked {
    fn must(stage: Stage, request: TokenRequest) -> Self {
        Self { stage, after_s: 0, request, weight: Weight::Must }
    }

    fn may(stage: Stage, request: TokenRequest) -> Self {
        Self { weight: Weight::May, ..Self::must(stage, request) }
    }

    fn poll(stage: Stage, after_s: u64, request: TokenRequest) -> Self {
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
        let cause: String = cause.as_ref().chars().map(plain).take(SHOWN).collect();
        Self { stage, cause }
    }
}

/// Characters that turn the order of a line around.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What a host answered.
#[derive(Clone, Copy, Debug)]
struct Reply<'r> {
    status: u16,
    body: &'r [u8],
    now_s: u64,
}

/// How a provider logs in, from the first question to the last.
trait Flow: Send {
    /// The first step.
    fn begin(&mut self, about: &About) -> Result<Step, Failed>;

    /// The step after an answer.
    fn answered(&mut self, about: &About, reply: Reply<'_>) -> Result<Step, Failed>;

    /// The step after a code came back.
    fn returned(&mut self, _about: &About, _code: &SecretString) -> Result<Step, Failed> {
        Err(Failed::new(Stage::Authorize, "this login takes no code"))
    }
}

/// What all steps of a login know.
#[derive(Debug)]
struct About {
    base: Option<Url>,
    client_secret: Option<SecretString>,
    state: String,
    verifier: SecretString,
}

impl About {
    /// The address of `usual`, or its path at the address that stands for all.
    fn at(&self, usual: &str) -> String {
        rerooted(usual, self.base.as_ref())
    }

    /// The challenge for the verifier: S256 of RFC 7636, section 4.2.
    fn challenge(&self) -> String {
        challenge(self.verifier.expose_secret())
    }

    /// An address of a provider that the user is to open, if it is one.
    fn page(&self, url: &str) -> Option<String> {
        let url = Url::parse(url).ok().filter(Url::has_host)?;
        let fits = url.scheme() == "https" || (url.scheme() == "http" && self.base.is_some());
        (fits && url.as_str().len() <= 4096).then(|| url.into())
    }
}

fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

/// A login under way.
pub struct Login {
    about: About,
    flow: Box<dyn Flow>,
    /// The question that has no answer yet.
    asked: Option<Asked>,
    lost: u32,
    /// A code that came back, lest it be told.
    code: Option<SecretString>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

impl Login {
    /// Begins one.
    pub fn begin(wish: &Wish, outside: &Begin<'_>) -> Result<(Self, Step), Failed> {
        let about = About {
            base: outside.base.cloned(),
            client_secret: outside.client_secret.map(SecretString::from),
            state: URL_SAFE_NO_PAD.encode(outside.random.state),
            verifier: URL_SAFE_NO_PAD.encode(outside.random.verifier).into(),
        };
        let flow: Box<dyn Flow> = match wish.provider {
            Provider::Codex if wish.device => Box::new(codex_device::CodexDevice::default()),
            Provider::Kimi => Box::new(device::Device::new(&device::KIMI)),
            Provider::Qwen => Box::new(device::Device::new(&device::QWEN)),
            Provider::Xai => Box::new(device::Device::new(&device::XAI)),
            Provider::Copilot => Box::new(device::Device::new(&device::GITHUB)),
            Provider::Kiro => match &wish.import {
                Some(refresh) => Box::new(kiro::Import::new(refresh.clone())),
                None => Box::new(kiro::Kiro::new(wish.organisation.as_ref())?),
            },
            provider => {
                let spec = code::spec(provider);
                let spec = spec.ok_or_else(|| Failed::new(Stage::Start, "this provider has no login"))?;
                Box::new(code::Code::new(spec, wish.port))
            }
        };
        let mut login = Self { about, flow, asked: None, lost: 0, code: None };
        let first = login.flow.begin(&login.about);
        let first = login.seen(first)?;
        Ok((login, first))
    }

    /// What tells this login from all others: 256 bits, in letters that stand in URLs and file names.
    pub fn state(&self) -> &str {
        &self.about.state
    }

    /// The answer to the last question.
    pub fn answered(&mut self, status: u16, body: &[u8], now_s: u64) -> Result<Step, Failed> {
        let Some(asked) = self.asked.take() else {
            return Err(Failed::new(Stage::Start, "an answer without a question"));
        };
        if asked.weight == Weight::Poll && (status >= 500 || status == 429) {
            return self.again(asked, &format!("status {status}"));
        }
        self.lost = 0;
        let step = self.flow.answered(&self.about, Reply { status, body, now_s });
        self.seen(step)
    }

    /// The last question has no answer; why not.
    pub fn lost(&mut self, cause: &str, now_s: u64) -> Result<Step, Failed> {
        match self.asked.take() {
            Some(asked) if asked.weight == Weight::Poll => self.again(asked, cause),
            Some(asked) if asked.weight == Weight::May => {
                let step = self.flow.answered(&self.about, Reply { status: 0, body: b"", now_s });
                self.seen(step)
            }
            Some(asked) => Err(Failed::new(asked.stage, cause)),
            None => Err(Failed::new(Stage::Start, cause)),
        }
    }

    /// What the provider's page sent back.
    pub fn returned(&mut self, returned: &Returned) -> Result<Step, Failed> {
        if let Some(error) = &returned.error {
            return Err(Failed::new(Stage::Authorize, error));
        }
        if returned.state.as_deref() != Some(self.state()) {
            return Err(Failed::new(Stage::Authorize, "it belongs to another login: its state differs"));
        }
        let code = returned.code.as_ref().filter(|code| !code.expose_secret().is_empty());
        let code = code.ok_or_else(|| Failed::new(Stage::Authorize, "no code came back"))?;
        self.code = Some(code.clone());
        let step = self.flow.returned(&self.about, code);
        self.seen(step)
    }

    fn again(&mut self, asked: Asked, cause: &str) -> Result<Step, Failed> {
        self.lost += 1;
        if self.lost >= LOST {
            return Err(Failed::new(asked.stage, cause));
        }
        self.seen(Ok(Step::Ask(asked)))
    }

    /// Keeps the question, and takes out of a failure what nobody may read.
    fn seen(&mut self, step: Result<Step, Failed>) -> Result<Step, Failed> {
        match &step {
            Ok(Step::Ask(asked) | Step::Show(_, Some(asked))) => self.asked = Some(asked.clone()),
            _ => self.asked = None,
        }
        step.map_err(|mut failed| {
            let secrets = [Some(&self.about.verifier), self.code.as_ref(), self.about.client_secret.as_ref()];
            for secret in secrets.into_iter().flatten().map(ExposeSecret::expose_secret) {
                if !secret.is_empty() {
                    failed.cause = failed.cause.replace(secret, "…");
                }
            }
            failed
        })
    }
}

#[cfg(test)]
mod tests;
