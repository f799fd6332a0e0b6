//! A login, from the wish to the account in force.
//!
//! Enters: what somebody wants to log in to, and what the provider's page sends back. Leaves: the page to
//! open, then the account's file, written as a whole and in force at once. May go wrong: any step, which the
//! error names ([`Failed`]); then no file was touched. Nothing of it is logged but the names of provider and
//! file.

use super::account_files::Content;
use super::tokens::client_secret;
use super::{State, logins};
use config::{BaseUrl, ProxySetting};
use pingora::connectors::http::Connector;
use pool::login::{
    AccountFile, Asked, Begin, Failed, Login, Prompt, Random, Returned, Stage, Step, Wish, place,
};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A login at which the user is.
#[derive(Debug)]
pub struct Underway {
    /// What the user has to see.
    pub prompt: Prompt,
    login: Login,
    /// What is asked while the user does it; `None`: a code comes back.
    next: Option<Asked>,
}

impl Underway {
    /// Whether the provider is asked until the user is done, and no code comes back.
    pub fn is_device(&self) -> bool {
        self.next.is_some()
    }

    /// What tells this login from others.
    pub fn state(&self) -> &str {
        self.login.state()
    }

    /// Seconds for which it waits for the user.
    pub fn life_s(&self) -> u64 {
        let life_s = logins::LIFE.as_secs();
        self.prompt.expires_in_s.map_or(life_s, |told| told.min(life_s))
    }
}

impl State {
    /// Begins a login: says whether it can be, and the first step.
    pub fn begin_login(&self, wish: &Wish) -> Result<(Login, Step), Failed> {
        let snapshot = self.snapshot.load();
        let channel = wish.provider.channel();
        let secret = client_secret(channel);
        let outside = Begin {
            base: snapshot.config.providers.oauth_upstream.get(channel).map(BaseUrl::url),
            client_secret: secret.as_deref(),
            random: &random()?,
        };
        Login::begin(wish, &outside)
    }

    /// Goes on until the user has to do something.
    pub async fn show_login(
        &self,
        connector: &Connector,
        mut login: Login,
        mut step: Step,
    ) -> Result<Underway, Failed> {
        loop {
            step = match step {
                Step::Show(prompt, next) => return Ok(Underway { prompt, login, next }),
                Step::Ask(asked) => self.ask_for(connector, &mut login, &asked).await?,
                Step::Done(_) => return Err(Failed::new(Stage::Start, "it ended before it began")),
            };
        }
    }

    /// Goes on from there to the account's file; its name. `back` brings what the page sends back; nothing,
    /// when the login is given up.
    pub async fn finish_login(
        self: &Arc<Self>,
        connector: &Connector,
        underway: Underway,
        back: impl Future<Output = Option<Returned>>,
    ) -> Result<String, Failed> {
        let life = Duration::from_secs(underway.life_s());
        let Underway { mut login, next, .. } = underway;
        let work = async {
            let step = if let Some(asked) = next {
                Step::Ask(asked)
            } else {
                let given_up = || Failed::new(Stage::Authorize, "it was given up");
                login.returned(&back.await.ok_or_else(given_up)?)?
            };
            self.end_login(connector, login, step).await
        };
        let late = |_| Err(Failed::new(Stage::Authorize, "it took too long; begin again"));
        tokio::time::timeout(life, work).await.unwrap_or_else(late)
    }

    /// Goes on to the account's file without the user.
    pub async fn end_login(
        self: &Arc<Self>,
        connector: &Connector,
        mut login: Login,
        mut step: Step,
    ) -> Result<String, Failed> {
        loop {
            step = match step {
                Step::Ask(asked) => self.ask_for(connector, &mut login, &asked).await?,
                Step::Done(file) => return self.keep_login(file).await,
                Step::Show(..) => return Err(Failed::new(Stage::Start, "it asks for the user again")),
            };
        }
    }

    async fn ask_for(&self, connector: &Connector, login: &mut Login, asked: &Asked) -> Result<Step, Failed> {
        tokio::time::sleep(Duration::from_secs(asked.after_s)).await;
        match self.ask_provider(connector, &asked.request, &ProxySetting::Inherit).await {
            Ok((status, body)) => login.answered(status, &body, self.now().wall_s),
            Err(cause) => login.lost(&cause.to_string(), self.now().wall_s),
        }
    }

    async fn keep_login(self: &Arc<Self>, file: AccountFile) -> Result<String, Failed> {
        let state = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || {
            let mut name = place(&file, &state.accounts().good);
            if state.account_file(&name).ok().flatten().is_some_and(|before| !file.is_of(&before)) {
                name = file.other_name();
            }
            let edited = state.edit_account(&name, |before| {
                file.content(before.as_deref()).map(Content::New).map_err(io::Error::other)
            });
            edited.map(|()| name)
        });
        let failed = |error: io::Error| Failed::new(Stage::File, error.to_string());
        written.await.map_err(|_| Failed::new(Stage::File, "the log says more"))?.map_err(failed)
    }
}

/// Random bytes of the operating system.
fn random() -> Result<Random, Failed> {
    let source = rustls::crypto::ring::default_provider().secure_random;
    let mut random = Random { state: [0; 32], verifier: [0; 32] };
    let filled = source.fill(&mut random.state).and_then(|()| source.fill(&mut random.verifier));
    filled.map_err(|_| Failed::new(Stage::Start, "the operating system gives no random bytes"))?;
    Ok(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p62_no_two_logins_have_the_same_state() {
        let (one, two) = (random().unwrap(), random().unwrap());
        assert!(one.state != two.state && one.verifier != two.verifier && one.state != one.verifier);
    }
}
