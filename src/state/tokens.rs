//! One renewal, from the file to the token in force.
//!
//! Enters: an account whose token is to be renewed. Leaves: the new token, in the account's file first and in
//! the pool then. May go wrong: the endpoint refuses or cannot say ([`NotRenewed`]). A file that cannot be
//! written keeps its old tokens; the new ones serve from memory, because the old ones are used up.

use super::renew::{Login, NotRenewed, Renewal};
use super::{State, accounts, atomic, sign};
use crate::upstream::echo;
use crate::upstream::fetch::{self, Question};
use config::{Account, Config, ProxySetting};
use pingora::connectors::http::Connector;
use pool::renewal::{self, Keeps, Renewed, TokenRequest, Tokens, With};
use pool::{CredentialId, Token};
use secrecy::SecretString;
use std::sync::Arc;
use url::Position;

/// Why a provider gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unasked {
    /// There was no connection, so that nothing was sent.
    #[error("{0}")]
    Unreachable(String),
    /// All else.
    #[error("{0}")]
    Other(String),
}

/// A refusal, which may repeat what it refuses, and which is logged.
fn without_secrets(refusal: Vec<u8>, account: &Account) -> Vec<u8> {
    let own = [&account.secret, &account.refresh_token, &account.grant.client_secret];
    echo::hide(refusal.into(), own.map(config::Secret::expose_secret)).into()
}

impl State {
    /// An account as its file is now: another process may have renewed it.
    pub(super) fn latest(&self, listed: &Account, renewal: &Renewal) -> Result<Account, String> {
        let folder = self.accounts_folder();
        let account = accounts::read_one(&folder, &listed.file)?;
        Ok(match &renewal.last.lock().unwritten {
            Some((login, unwritten)) if login.is_of(&account) => unwritten.clone(),
            _ => account,
        })
    }

    /// Asks the token endpoint and puts what it says in force.
    pub(super) async fn renew_now(&self, account: &Account, renewal: &Renewal) -> Result<(), NotRenewed> {
        let (status, answer) = self.ask(account).await?;
        let answer = if status < 400 { answer } else { without_secrets(answer, account) };
        match renewal::read(account, status, &answer, self.now().wall_s) {
            Renewed::Tokens(tokens) => self.keep(account, &tokens, renewal).map_err(NotRenewed::Later),
            Renewed::NeedsLogin(reason) => Err(NotRenewed::NeedsLogin(reason)),
            Renewed::Later(reason) => Err(NotRenewed::Later(reason)),
        }
    }

    async fn ask(&self, account: &Account) -> Result<(u16, Vec<u8>), NotRenewed> {
        let snapshot = self.snapshot.load_full();
        let request = self.token_request(account, &snapshot.config).map_err(NotRenewed::Later)?;
        let asked = self.ask_provider(&self.connector, &request, &account.settings.proxy_url).await;
        asked.map_err(|unasked| match unasked {
            Unasked::Unreachable(problem) => NotRenewed::Unreachable(problem),
            Unasked::Other(problem) => NotRenewed::Later(problem),
        })
    }

    /// Asks a host of a provider, through the proxy that `setting` means.
    pub(super) async fn ask_provider(
        &self,
        connector: &Connector,
        request: &TokenRequest,
        setting: &ProxySetting,
    ) -> Result<(u16, Vec<u8>), Unasked> {
        let snapshot = self.snapshot.load_full();
        let url = url::Url::parse(&request.url);
        let url = url.map_err(|e| Unasked::Other(format!("{}: {e}", request.url)))?;
        let lane = self.lanes.to(&url, setting, &snapshot.config);
        let lane = lane.map_err(|e| Unasked::Other(e.to_string()))?;
        let question = Question {
            method: request.method,
            target: &url[Position::BeforePath..Position::AfterQuery],
            headers: &request.headers,
            body: &request.body,
        };
        let asked = Box::pin(fetch::ask(connector, &lane, &question)).await;
        asked.map_err(|error| {
            // The error names the proxy where one is on the way, never its password.
            let problem = format!("{}: {}", lane.authority(), error.to_string().trim());
            if fetch::is_unreached(&error) { Unasked::Unreachable(problem) } else { Unasked::Other(problem) }
        })
    }

    fn token_request(&self, account: &Account, config: &Config) -> Result<TokenRequest, String> {
        let secret = client_secret(&account.channel);
        let with = With {
            base: renewal::base(account, config),
            client_secret: secret.as_deref(),
            now_s: self.now().wall_s,
            sign: &sign::rs256,
        };
        renewal::request(account, &with)
    }

    /// Writes new tokens to the account's file and puts them in force.
    fn keep(&self, account: &Account, tokens: &Tokens, renewal: &Renewal) -> Result<(), String> {
        let config = &self.snapshot.load().config;
        if renewal::keeps(account) == Some(Keeps::Memory) {
            // An address that the operator set counts.
            let api = tokens.api.as_deref().filter(|_| renewal::base(account, config).is_none());
            renewal.last.lock().end_s = tokens.end_s;
            self.put(account, &tokens.access_token, tokens.end_s, api.map(Arc::from));
            return Ok(());
        }
        // Whoever changes the file meanwhile would undo this, or be undone.
        let _one_at_a_time = self.account_files.lock();
        let folder = accounts::folder(&config.auth.auth_dir);
        let path = folder.join(&account.file);
        let bytes = accounts::bytes(&folder, &path)?;
        let login = Login::of(&config::read_account(&account.file, &bytes)?);
        let bytes = renewal::updated(&bytes, tokens, self.now().wall_s)?;
        let new = config::read_account(&account.file, &bytes)?;
        // Written first: many providers take a refresh token once only.
        let written = atomic::write(&path, &bytes);
        let mut last = renewal.last.lock();
        if let Err(error) = written {
            tracing::error!(
                account = account.file,
                "its new token cannot be written and is lost at the end of this process: {error}"
            );
            last.unwritten = Some((login, new.clone()));
        } else {
            last.unwritten = None;
        }
        drop(last);
        self.use_account(new);
        Ok(())
    }

    /// Puts the token of an account's file in force, in place of the one that was read before.
    pub(super) fn use_account(&self, account: Account) {
        let end_s = account.expires.as_ref().and_then(renewal::expires_s);
        self.put(&account, &SecretString::from(account.secret.expose_secret()), end_s, None);
        let mut accounts = self.accounts.lock();
        if let Some(old) = accounts.good.iter_mut().find(|old| old.file == account.file) {
            *old = account;
        }
    }

    fn put(&self, account: &Account, secret: &SecretString, end_s: Option<u64>, base_url: Option<Arc<str>>) {
        let token = Token { secret: secret.clone(), end_s, base_url };
        self.pool.renew(&CredentialId::new(&account.file), token);
    }
}

/// The operator's client secret for a channel, where there is one.
pub(super) fn client_secret(channel: &str) -> Option<String> {
    let variable = renewal::client_secret_variable(channel);
    std::env::var(variable).or_else(|_| std::env::var("OAUTH_CLIENT_SECRET")).ok()
}
