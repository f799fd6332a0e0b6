//! Tokens are renewed before they run out, and once more when an upstream refuses one.
//!
//! Enters: accounts with refresh tokens, the time. Leaves: new tokens, written to the account's file before
//! anybody uses them. May go wrong: the login is over (told once, not tried again until the file changes),
//! the endpoint cannot be reached (tried again later; the old token serves as long as it lasts).

use super::{State, accounts, atomic};
use crate::upstream::fetch;
use async_trait::async_trait;
use bytes::Bytes;
use config::Account;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pool::renewal::{self, Renewed};
use secrecy::{ExposeSecret, SecretString};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Time between two looks at what is due.
const TICK: Duration = Duration::from_secs(5);
/// Rest after an endpoint could not say, in seconds.
const LATER_S: u64 = 300;
/// Renewals at once, where the configuration does not say.
const WORKERS: usize = 16;

/// What is known of the renewals of all accounts, by file name.
#[derive(Debug, Default)]
pub struct Renewals {
    accounts: Mutex<HashMap<String, Arc<Renewal>>>,
}

/// What is known of one.
#[derive(Debug, Default)]
struct Renewal {
    /// Held while one runs: the others wait for it and take what it brought.
    running: tokio::sync::Mutex<()>,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    /// The refresh token that is good for nothing any more.
    over: Option<SecretString>,
    /// Seconds since 1970 before which it is not tried again.
    not_before_s: u64,
}

/// Why there is no new token.
#[derive(Debug, thiserror::Error)]
pub enum NotRenewed {
    /// Only a new login helps.
    #[error("the login of this account is over, log in again: {0}")]
    NeedsLogin(String),
    /// It may work later.
    #[error("its token cannot be renewed now: {0}")]
    Later(String),
}

impl State {
    /// A token for `file` that is not `stale`: renewed by this call, or by another one meanwhile.
    pub async fn renew(&self, file: &str, stale: &SecretString) -> Result<SecretString, NotRenewed> {
        let renewal = Arc::clone(self.renewals.accounts.lock().entry(file.to_owned()).or_default());
        let running = renewal.running.lock().await;
        let account = self.account(file).ok_or_else(|| NotRenewed::NeedsLogin("its file is gone".into()))?;
        if account.secret.expose_secret() != stale.expose_secret() {
            return Ok(SecretString::from(account.secret.expose_secret()));
        }
        let refresh = account.refresh_token.expose_secret();
        if renewal.last.lock().over.as_ref().is_some_and(|over| over.expose_secret() == refresh) {
            return Err(NotRenewed::NeedsLogin("it was refused before".to_owned()));
        }
        let renewed = self.ask(&account).await;
        let mut last = renewal.last.lock();
        if let Err(error) = &renewed {
            tracing::warn!(account = file, provider = account.channel, "token not renewed: {error}");
            match error {
                NotRenewed::NeedsLogin(_) => last.over = Some(SecretString::from(refresh)),
                NotRenewed::Later(_) => last.not_before_s = self.now().wall_s + LATER_S,
            }
        } else {
            tracing::info!(account = file, provider = account.channel, "token renewed");
        }
        drop(last);
        drop(running);
        renewed
    }

    fn account(&self, file: &str) -> Option<Account> {
        self.accounts.lock().good.iter().find(|account| account.file == file).cloned()
    }

    /// Asks the token endpoint and puts what it says in force.
    async fn ask(&self, account: &Account) -> Result<SecretString, NotRenewed> {
        let later = |reason: String| NotRenewed::Later(reason);
        let variable = format!("CLIPROXY_{}_CLIENT_SECRET", account.channel.to_uppercase().replace('-', "_"));
        let secret = std::env::var(variable).or_else(|_| std::env::var("OAUTH_CLIENT_SECRET")).ok();
        let request = renewal::request(account, secret.as_deref()).map_err(later)?;
        let url = url::Url::parse(&request.url).map_err(|e| later(format!("{}: {e}", request.url)))?;
        let snapshot = self.snapshot.load_full();
        let lane = self
            .lanes
            .to(&url, &account.settings.proxy_url, &snapshot.config)
            .map_err(|e| later(e.to_string()))?;
        let body = Bytes::from(request.body.expose_secret().to_owned());
        let (status, answer) = fetch::post(&self.connector, &lane, url.path(), request.content_type, body)
            .await
            .map_err(|e| later(format!("{}: {}", lane.authority(), e.etype().as_str())))?;
        match renewal::read(status, &answer) {
            Renewed::Tokens(tokens) => self.keep(account, &tokens),
            Renewed::NeedsLogin(reason) => Err(NotRenewed::NeedsLogin(reason)),
            Renewed::Later(reason) => Err(later(reason)),
        }
    }

    /// Writes new tokens to the account's file and puts them in force.
    fn keep(&self, account: &Account, tokens: &renewal::Tokens) -> Result<SecretString, NotRenewed> {
        let snapshot = self.snapshot.load_full();
        let path = accounts::folder(&snapshot.config.auth.auth_dir).join(&account.file);
        let kept = std::fs::read(&path)
            .map_err(|e| e.to_string())
            .and_then(|bytes| renewal::updated(&bytes, tokens, self.now().wall_s))
            .and_then(|bytes| {
                // Written first: many providers take a refresh token once only.
                atomic::write(&path, &bytes).map_err(|e| e.to_string())?;
                config::read_account(&account.file, &bytes)
            });
        let new = kept.map_err(|reason| NotRenewed::Later(format!("{}: {reason}", path.display())))?;
        let secret = SecretString::from(new.secret.expose_secret());
        let mut accounts = self.accounts();
        if let Some(old) = accounts.good.iter_mut().find(|old| old.file == new.file) {
            *old = new;
        }
        self.apply(snapshot.config.clone(), accounts);
        Ok(secret)
    }

    /// Accounts whose token should be renewed now.
    fn due(&self) -> Vec<Account> {
        let now = self.now().wall_s;
        let accounts = self.accounts.lock();
        let known = self.renewals.accounts.lock();
        let due = |account: &&Account| {
            let waits = known.get(&account.file).is_some_and(|renewal| {
                let last = renewal.last.lock();
                last.not_before_s > now
                    || last
                        .over
                        .as_ref()
                        .is_some_and(|o| o.expose_secret() == account.refresh_token.expose_secret())
            });
            // Disabled ones too: a login that is not renewed for long is over.
            renewal::renewable(account) && !waits && renewal::due_s(account).is_some_and(|due| due <= now)
        };
        accounts.good.iter().filter(due).cloned().collect()
    }
}

/// Renews what is due, for the life of the process.
#[derive(Debug)]
pub struct Renewer(pub Arc<State>);

#[async_trait]
impl BackgroundService for Renewer {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        loop {
            let workers = match self.0.snapshot.load().config.auth.auth_auto_refresh_workers {
                0 => WORKERS,
                set => set as usize,
            };
            stream::iter(self.0.due())
                .for_each_concurrent(workers, |account| async move {
                    let stale = SecretString::from(account.secret.expose_secret());
                    // Told in the log.
                    let _ = self.0.renew(&account.file, &stale).await;
                })
                .await;
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                _ = shutdown.changed() => return,
            }
        }
    }
}
