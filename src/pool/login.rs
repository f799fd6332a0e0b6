//! Logins: how somebody gets an account of a provider into a file.
//!
//! Enters: the provider, random bytes, the time, the answers of its hosts, what its page sent back. Leaves:
//! [`Step`]s: a question to ask, something to show to the user, at last the account's file. May go wrong:
//! [`Failed`], which names the step. No failure leaves half a file.
//!
//! | file | holds |
//! |---|---|
//! | `provider.rs`, `step.rs` | providers and their names; steps and failures |
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
mod provider;
mod returned;
mod step;

use crate::renewal::rerooted;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::fmt;
use url::Url;

pub use account_file::{AccountFile, place};
pub use kiro::Organisation;
pub use provider::{Callback, Provider};
pub use returned::Returned;
use step::Weight;
pub use step::{Asked, Failed, Prompt, Stage, Step};

/// Lost polls in a row after which a login is given up.
const LOST: u32 = 5;

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
        let first = login.seen(first, None)?;
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
        self.seen(step, Some(&asked))
    }

    /// The last question has no answer; why not.
    pub fn lost(&mut self, cause: &str, now_s: u64) -> Result<Step, Failed> {
        let Some(asked) = self.asked.take() else { return Err(Failed::new(Stage::Start, cause)) };
        match asked.weight {
            Weight::Poll => self.again(asked, cause),
            Weight::May => {
                let step = self.flow.answered(&self.about, Reply { status: 0, body: b"", now_s });
                self.seen(step, Some(&asked))
            }
            Weight::Must => {
                let failed = Failed::new(asked.stage, cause);
                self.seen(Err(failed), Some(&asked))
            }
        }
    }

    /// What the provider's page sent back.
    pub fn returned(&mut self, returned: &Returned) -> Result<Step, Failed> {
        let step = self.code(returned);
        self.code.clone_from(&returned.code);
        self.seen(step, None)
    }

    fn code(&mut self, returned: &Returned) -> Result<Step, Failed> {
        if let Some(error) = &returned.error {
            return Err(Failed::new(Stage::Authorize, error));
        }
        if returned.state.as_deref() != Some(self.state()) {
            return Err(Failed::new(Stage::Authorize, "it belongs to another login: its state differs"));
        }
        let code = returned.code.as_ref().filter(|code| !code.expose_secret().is_empty());
        let code = code.ok_or_else(|| Failed::new(Stage::Authorize, "no code came back"))?;
        self.flow.returned(&self.about, code)
    }

    fn again(&mut self, asked: Asked, cause: &str) -> Result<Step, Failed> {
        self.lost += 1;
        if self.lost >= LOST {
            let failed = Failed::new(asked.stage, cause);
            return self.seen(Err(failed), Some(&asked));
        }
        self.seen(Ok(Step::Ask(asked)), None)
    }

    /// Keeps the question, and takes out of a failure what nobody may read. `before` is the question whose
    /// answer it is.
    fn seen(&mut self, step: Result<Step, Failed>, before: Option<&Asked>) -> Result<Step, Failed> {
        self.asked = match &step {
            Ok(Step::Ask(asked) | Step::Show(_, Some(asked))) => Some(asked.clone()),
            _ => None,
        };
        step.map_err(|failed| {
            let mut secrets: Vec<SecretString> =
                before.map(|asked| step::secrets(&asked.request)).unwrap_or_default();
            secrets.push(self.about.verifier.clone());
            secrets.extend(self.code.iter().chain(&self.about.client_secret).cloned());
            failed.without(&secrets)
        })
    }
}

#[cfg(test)]
mod tests;
