//! Tokens are renewed before they run out, and once more when an upstream refuses one.
//!
//! Enters: accounts with refresh tokens, the time, refused tokens. Leaves: new tokens, written to the
//! account's file before anybody uses them ([`super::tokens`]). May go wrong: the login is over (told once,
//! not tried again until the file changes), the endpoint cannot be reached (tried again later and later; the
//! old token serves as long as it lasts).
//!
//! Renewals run in a service of their own: a client that leaves must not cut one off between the endpoint,
//! which takes a refresh token only once, and the file.

use super::State;
use async_trait::async_trait;
use config::Account;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pool::renewal::{self, Keeps};
use pool::{CredentialId, Sent};
use secrecy::{ExposeSecret, SecretString};
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Time between two looks at what is due.
const TICK: Duration = Duration::from_secs(5);
/// Rest after an endpoint could not say, in seconds: doubled by each failure, up to the second.
const LATER_S: (u64, u64) = (30, 300);
/// Rest after an endpoint was not reached, which costs it nothing: at the start of a machine its network may be
/// a moment behind.
const UNREACHABLE_S: u64 = 1;
/// Rest after a success, in seconds: an account whose new token looks due as well is not renewed in a loop.
const AGAIN_S: u64 = 30;
/// Renewals ahead of time at once, where the configuration does not say.
const WORKERS: usize = 16;
/// Requests that may wait for a renewal; more are told that there is none.
const WAITING: usize = 8192;
/// Longest time for renewals under way when the process leaves.
const LEAVING: Duration = Duration::from_secs(35);

/// What is known of the renewals of all accounts, by file name.
#[derive(Debug)]
pub struct Renewals {
    accounts: Mutex<HashMap<String, Arc<Renewal>>>,
    asked: mpsc::Sender<Job>,
    /// Taken by the service that does the work.
    jobs: Mutex<Option<mpsc::Receiver<Job>>>,
}

impl Default for Renewals {
    fn default() -> Self {
        let (asked, jobs) = mpsc::channel(WAITING);
        Self { accounts: Mutex::default(), asked, jobs: Mutex::new(Some(jobs)) }
    }
}

/// A request's wish for a token that is not `stale`.
#[derive(Debug)]
struct Job {
    file: String,
    stale: Option<SecretString>,
    done: oneshot::Sender<Result<(), NotRenewed>>,
}

/// What is known of one account.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    /// Held while one runs: the others wait for it and take what it brought.
    running: tokio::sync::Mutex<()>,
    pub(super) last: Mutex<Last>,
}

#[derive(Debug, Default)]
pub(super) struct Last {
    /// The login that is over, and why.
    over: Option<(Login, String)>,
    /// Failures in a row, and the last one.
    failures: u32,
    problem: String,
    /// Seconds since 1970 before which it is not tried again.
    not_before_s: u64,
    /// End of a token in memory, in seconds since 1970.
    pub(super) end_s: Option<u64>,
    /// Tokens that could not be written: the login whose place they take, and the account with them.
    pub(super) unwritten: Option<(Login, Account)>,
}

/// What a file says of a login: another one is worth another try.
#[derive(Debug)]
pub(super) struct Login(SecretString, SecretString);

impl Login {
    pub(super) fn of(account: &Account) -> Self {
        Self(account.secret.expose_secret().into(), account.refresh_token.expose_secret().into())
    }

    pub(super) fn is_of(&self, account: &Account) -> bool {
        self.0.expose_secret() == account.secret.expose_secret()
            && self.1.expose_secret() == account.refresh_token.expose_secret()
    }
}

/// Why there is no new token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotRenewed {
    /// Only a new login helps.
    #[error("Invalid Grant: the login of this account is over, log in again: {0}")]
    NeedsLogin(String),
    /// It may work later.
    #[error("its token cannot be renewed now: {0}")]
    Later(String),
    /// There was no connection, so that nothing was sent.
    #[error("its token cannot be renewed now: {0}")]
    Unreachable(String),
}

/// How the renewal of an account stands, for lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginState {
    /// It is being renewed.
    pub running: bool,
    /// The login is over: only a new one helps.
    pub needs_login: bool,
    /// Why the last renewal failed; empty: it did not.
    pub problem: String,
    /// Seconds since 1970 before which it is not tried again; 0: any time.
    pub not_before_s: u64,
}

impl State {
    /// Sees to it that the credential of `file` sends another token than `stale` (`None`: it has none yet):
    /// renewed for this call, or for another one meanwhile.
    pub async fn renew(&self, file: &str, stale: Option<&SecretString>) -> Result<(), NotRenewed> {
        let (done, told) = oneshot::channel();
        let job = Job { file: file.to_owned(), stale: stale.cloned(), done };
        let busy = |_| NotRenewed::Later("too many requests wait for renewals".to_owned());
        self.renewals.asked.try_send(job).map_err(busy)?;
        told.await.unwrap_or_else(|_| Err(NotRenewed::Later("the process is leaving".to_owned())))
    }

    /// What the credential of `file` sends now; `None`: nothing yet.
    pub fn sent_secret(&self, file: &str) -> Option<SecretString> {
        match self.pool.sent(&CredentialId::new(file))? {
            Sent::Token(token) => Some(token.secret.clone()),
            Sent::Own => self.account(file).map(|account| account.secret.expose_secret().into()),
            Sent::Missing => None,
        }
    }

    /// How the renewal of an account stands.
    pub fn login_state(&self, file: &str) -> LoginState {
        let Some(renewal) = self.renewals.accounts.lock().get(file).cloned() else {
            return LoginState::default();
        };
        let running = renewal.running.try_lock().is_err();
        let last = renewal.last.lock();
        LoginState {
            running,
            needs_login: last.over.is_some(),
            problem: last.over.as_ref().map_or_else(|| last.problem.clone(), |(_, why)| why.clone()),
            not_before_s: if last.failures > 0 { last.not_before_s } else { 0 },
        }
    }

    fn renewal(&self, file: &str) -> Arc<Renewal> {
        Arc::clone(self.renewals.accounts.lock().entry(file.to_owned()).or_default())
    }

    /// One at a time per account: renews unless somebody else has.
    async fn renew_alone(&self, file: &str, stale: Option<&SecretString>) -> Result<(), NotRenewed> {
        let renewal = self.renewal(file);
        let _running = renewal.running.lock().await;
        let gone = || NotRenewed::NeedsLogin("its file is gone".to_owned());
        let listed = self.account(file).ok_or_else(gone)?;
        if self.sends_other(&listed, stale) {
            return Ok(());
        }
        let account = self.latest(&listed, &renewal).map_err(NotRenewed::Later)?;
        let fresh = |stale: &SecretString| account.secret.expose_secret() != stale.expose_secret();
        if renewal::keeps(&account) == Some(Keeps::File) && stale.is_some_and(fresh) {
            // Another process renewed it.
            self.use_account(account);
            return Ok(());
        }
        renewal.last.lock().may_try(&account, self.now().wall_s)?;
        let renewed = self.renew_now(&account, &renewal).await;
        let now = self.now();
        renewal.last.lock().note(&account, &renewed, now.wall_s, seed(file) ^ now.mono_ms);
        let provider = &account.channel;
        match &renewed {
            Ok(()) => tracing::info!(account = file, provider, "token renewed"),
            Err(error) => {
                tracing::warn!(account = file, provider, "token not renewed: {error}");
                if matches!(error, NotRenewed::NeedsLogin(_)) {
                    self.pool.login_over(&CredentialId::new(file), now);
                }
            }
        }
        renewed
    }

    fn account(&self, file: &str) -> Option<Account> {
        self.accounts.lock().good.iter().find(|account| account.file == file).cloned()
    }

    /// Whether an account's credential sends something else than `stale`.
    fn sends_other(&self, account: &Account, stale: Option<&SecretString>) -> bool {
        let is_other = |secret: &str| stale.is_none_or(|stale| stale.expose_secret() != secret);
        match self.pool.sent(&CredentialId::new(&account.file)) {
            Some(Sent::Token(token)) => is_other(token.secret.expose_secret()),
            Some(Sent::Own) => is_other(account.secret.expose_secret()),
            Some(Sent::Missing) | None => false,
        }
    }

    /// Accounts whose token should be renewed now, with what they send.
    fn due(&self) -> Vec<(String, Option<SecretString>)> {
        let now = self.now().wall_s;
        let accounts = self.accounts.lock();
        let mut known = self.renewals.accounts.lock();
        if known.len() > accounts.good.len() {
            known.retain(|file, _| accounts.good.iter().any(|account| account.file == *file));
        }
        // Disabled ones too: a login that is not renewed for long is over.
        let due = accounts.good.iter().filter(|account| {
            let known = known.get(&account.file);
            renewal::renewable(account) && is_due(account, known.map(AsRef::as_ref), now)
        });
        due.map(|account| {
            let sent = match self.pool.sent(&CredentialId::new(&account.file)) {
                Some(Sent::Token(token)) => Some(token.secret.clone()),
                Some(Sent::Own) => Some(account.secret.expose_secret().into()),
                Some(Sent::Missing) | None => None,
            };
            (account.file.clone(), sent)
        })
        .collect()
    }
}

fn is_due(account: &Account, known: Option<&Renewal>, now: u64) -> bool {
    let seed = seed(&account.file);
    let Some(known) = known else {
        // One that is made in memory is made when it is needed first.
        return renewal::keeps(account) == Some(Keeps::File)
            && renewal::due_s(account, seed).is_some_and(|due| due <= now);
    };
    let last = known.last.lock();
    if let Some((login, _)) = &last.over {
        // Another login lies in the file.
        return !login.is_of(account);
    }
    let account = match &last.unwritten {
        Some((login, unwritten)) if login.is_of(account) => unwritten,
        _ => account,
    };
    let due = match renewal::keeps(account) {
        Some(Keeps::Memory) => last.end_s.and_then(|end| renewal::due_in_memory_s(account, end, seed)),
        _ => renewal::due_s(account, seed),
    };
    last.not_before_s <= now && due.is_some_and(|due| due <= now)
}

impl Last {
    /// Whether a try is worth it now.
    fn may_try(&mut self, account: &Account, now: u64) -> Result<(), NotRenewed> {
        match &self.over {
            Some((login, why)) if login.is_of(account) => {
                return Err(NotRenewed::NeedsLogin(why.clone()));
            }
            Some(_) => *self = Self::default(),
            None => {}
        }
        if self.failures > 0 && now < self.not_before_s {
            return Err(NotRenewed::Later(self.problem.clone()));
        }
        Ok(())
    }

    /// Takes down what came of one.
    fn note(&mut self, account: &Account, renewed: &Result<(), NotRenewed>, now: u64, seed: u64) {
        match renewed {
            Ok(()) => {
                (self.over, self.failures, self.not_before_s) = (None, 0, now + AGAIN_S);
                self.problem.clear();
            }
            Err(NotRenewed::NeedsLogin(why)) => self.over = Some((Login::of(account), why.clone())),
            Err(NotRenewed::Later(why) | NotRenewed::Unreachable(why)) => {
                let unreachable = matches!(renewed, Err(NotRenewed::Unreachable(_)));
                let first = if unreachable { UNREACHABLE_S } else { LATER_S.0 };
                let rest = first.saturating_mul(1 << self.failures.min(9)).min(LATER_S.1);
                self.failures = self.failures.saturating_add(1);
                self.not_before_s = now + rest - seed % (rest / 5 + 1);
                self.problem.clone_from(why);
            }
        }
    }
}

/// A number that is an account's own.
fn seed(file: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    file.hash(&mut hasher);
    hasher.finish()
}

/// Renews what is due and what requests ask for, for the life of the process.
#[derive(Debug)]
pub struct Renewer(pub Arc<State>);

#[async_trait]
impl BackgroundService for Renewer {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let Some(mut jobs) = self.0.renewals.jobs.lock().take() else { return };
        let workers = match self.0.snapshot.load().config.auth.auth_auto_refresh_workers {
            0 => WORKERS,
            set => set as usize,
        };
        let (state, ahead) = (&*self.0, &Semaphore::new(workers));
        let mut running = FuturesUnordered::new();
        let mut under_way: HashSet<String> = HashSet::new();
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                job = jobs.recv() => {
                    let Some(job) = job else { return };
                    running.push(work(state, job.file, job.stale, None, Some(job.done)));
                }
                Some(ended) = running.next() => {
                    if let Some(file) = ended {
                        under_way.remove(&file);
                    }
                }
                _ = tick.tick() => {
                    for (file, stale) in state.due() {
                        if under_way.insert(file.clone()) {
                            running.push(work(state, file, stale, Some(ahead), None));
                        }
                    }
                }
                _ = shutdown.changed() => break,
            }
        }
        drop(jobs);
        // What an endpoint has answered must come to the disk.
        ahead.close();
        let _ = tokio::time::timeout(LEAVING, async { while running.next().await.is_some() {} }).await;
    }
}

/// One renewal; the file's name, if it was one ahead of time.
async fn work(
    state: &State,
    file: String,
    refused: Option<SecretString>,
    ahead: Option<&Semaphore>,
    done: Option<oneshot::Sender<Result<(), NotRenewed>>>,
) -> Option<String> {
    let permit = match ahead {
        Some(ahead) => match ahead.acquire().await {
            Ok(permit) => Some(permit),
            // The process is leaving.
            Err(_) => return Some(file),
        },
        None => None,
    };
    let renewed = Box::pin(state.renew_alone(&file, refused.as_ref())).await;
    drop(permit);
    if let Some(done) = done {
        // Whoever asked may have left.
        let _ = done.send(renewed);
    }
    ahead.map(|_| file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(rest: &str) -> Account {
        let text = format!(r#"{{"type":"kimi","access_token":"t","refresh_token":"r"{rest}}}"#);
        config::read_account("a.json", text.as_bytes()).unwrap()
    }

    #[test]
    fn p20_what_a_failed_renewal_means_for_the_next_one() {
        let login = account("");
        let mut last = Last::default();
        let mut now = 1_000;
        let later = Err(NotRenewed::Later("no route".into()));
        for (least, most) in [(24, 30), (48, 60), (96, 120), (192, 240), (240, 300), (240, 300)] {
            assert!(last.may_try(&login, now).is_ok());
            last.note(&login, &later, now, now * 7);
            let rest = last.not_before_s - now;
            assert!((least..=most).contains(&rest), "{rest} is not within {least} and {most}");
            let waits = last.may_try(&login, now + 1);
            assert!(matches!(waits, Err(NotRenewed::Later(why)) if why == "no route"), "no call in between");
            now = last.not_before_s;
        }
        last.note(&login, &Ok(()), now, 0);
        assert!(last.may_try(&login, now).is_ok(), "a success forgets the failures");
        for rest in [1, 2, 4] {
            last.note(&login, &Err(NotRenewed::Unreachable(String::new())), now, 0);
            assert_eq!(last.not_before_s - now, rest, "nothing was sent");
        }
        last.note(&login, &Ok(()), now, 0);
        last.note(&login, &Err(NotRenewed::NeedsLogin("invalid_grant".into())), now, 0);
        for later in [now, now + 86_400 * 30] {
            let over = last.may_try(&login, later);
            assert!(matches!(over, Err(NotRenewed::NeedsLogin(why)) if why == "invalid_grant"));
        }
        let again = account(r#","x":1"#);
        assert!(last.may_try(&again, now).is_err(), "the same login");
        let mut new = account("");
        new.refresh_token = config::Secret::from("another");
        assert!(last.may_try(&new, now).is_ok(), "the file changed");
    }

    #[test]
    fn what_is_due() {
        let soon = account(r#","expired":"1970-01-01T01:00:00Z""#);
        assert!(is_due(&soon, None, 3_590) && !is_due(&soon, None, 3_000));
        assert!(!is_due(&account(""), None, u64::MAX), "nothing says when it runs out");
        let known = Renewal::default();
        known.last.lock().note(&soon, &Err(NotRenewed::Later(String::new())), 3_590, 0);
        assert!(!is_due(&soon, Some(&known), 3_600) && is_due(&soon, Some(&known), 3_620));
        known.last.lock().note(&soon, &Err(NotRenewed::NeedsLogin(String::new())), 3_620, 0);
        assert!(!is_due(&soon, Some(&known), 1 << 40));
        let mut login = soon.clone();
        login.refresh_token = config::Secret::from("another");
        assert!(is_due(&login, Some(&known), 0), "a new login is tried at once");
        let text = r#"{"type":"github-copilot","access_token":"t"}"#;
        let minted = config::read_account("c.json", text.as_bytes()).unwrap();
        let known = Renewal::default();
        assert!(!is_due(&minted, None, 1 << 40) && !is_due(&minted, Some(&known), 1 << 40));
        known.last.lock().end_s = Some(10_000);
        assert!(is_due(&minted, Some(&known), 9_800) && !is_due(&minted, Some(&known), 9_600));
    }
}
