//! Logins that wait for somebody at a provider's page.
//!
//! Enters: states, what pages send back, the time. Leaves: who gets what came back, and how each login
//! stands. May go wrong: a state that is unknown or has run out, belongs to another provider, or was used
//! already ([`Refused`]); too many at once ([`TooMany`]).
//!
//! A state is 256 random bits, good once, for one provider, for [`LIFE`]. Only its digest is kept.

use parking_lot::Mutex;
use pool::login::{Provider, Returned};
use sha2::{Digest, Sha256};
use std::time::Duration;
use subtle::{Choice, ConstantTimeEq};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// Longest life of a login.
pub const LIFE: Duration = Duration::from_mins(10);
/// How long one that is over is still told.
const TOLD: Duration = Duration::from_mins(1);
/// Most logins at once, those that are still told included.
const AT_ONCE: usize = 32;

/// All of them.
#[derive(Debug, Default)]
pub struct Logins {
    sessions: Mutex<Vec<Session>>,
}

#[derive(Debug)]
struct Session {
    digest: [u8; 32],
    provider: Provider,
    begun_ms: u64,
    standing: Standing,
    /// What brings it to its end.
    task: Option<AbortHandle>,
}

#[derive(Debug)]
enum Standing {
    /// Waits; for a code, if there is somebody to take it.
    Waits(Option<oneshot::Sender<Returned>>),
    /// Is over since then.
    Over(u64, Result<(), String>),
}

/// How a login stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The user is not done, or the provider.
    Waits,
    /// The account is there.
    Done,
    /// It came to nothing; why.
    Failed(String),
}

/// Why what came back is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody waits for it.
    #[error("unknown or expired state")]
    Unknown,
    /// Somebody waits for it, of another provider.
    #[error("state belongs to another provider")]
    OtherProvider,
    /// It came already.
    #[error("state is not pending")]
    Used,
}

/// There are as many logins as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many logins at once; end one or try again in some minutes")]
pub struct TooMany;

impl Logins {
    /// Waits from now on for what comes back to `state`.
    pub fn begin(
        &self,
        state: &str,
        provider: Provider,
        now_ms: u64,
    ) -> Result<oneshot::Receiver<Returned>, TooMany> {
        let mut sessions = self.sessions(now_ms);
        if sessions.len() >= AT_ONCE {
            let over = sessions.iter().position(|session| matches!(session.standing, Standing::Over(..)));
            sessions.remove(over.ok_or(TooMany)?);
        }
        let (sender, receiver) = oneshot::channel();
        sessions.push(Session {
            digest: digest(state),
            provider,
            begun_ms: now_ms,
            standing: Standing::Waits(Some(sender)),
            task: None,
        });
        Ok(receiver)
    }

    /// What ends with the login of `state` when it is given up.
    pub fn runs(&self, state: &str, task: AbortHandle, now_ms: u64) {
        let mut sessions = self.sessions(now_ms);
        match find_mut(&mut sessions, state) {
            Some(session) if matches!(session.standing, Standing::Waits(_)) => session.task = Some(task),
            Some(_) => {}
            // It was given up meanwhile.
            None => task.abort(),
        }
    }

    /// What a page of `provider` sent back; `None`: of any.
    pub fn returned(
        &self,
        provider: Option<Provider>,
        returned: Returned,
        now_ms: u64,
    ) -> Result<(), Refused> {
        let mut sessions = self.sessions(now_ms);
        let state = returned.state.as_deref().unwrap_or_default();
        let session = find_mut(&mut sessions, state).ok_or(Refused::Unknown)?;
        if provider.is_some_and(|provider| provider != session.provider) {
            return Err(Refused::OtherProvider);
        }
        let Standing::Waits(sender) = &mut session.standing else { return Err(Refused::Used) };
        // Whoever waited may be gone.
        sender.take().ok_or(Refused::Used)?.send(returned).map_err(|_| Refused::Used)
    }

    /// The login of `state` is over.
    pub fn end(&self, state: &str, result: Result<(), String>, now_ms: u64) {
        if let Some(session) = find_mut(&mut self.sessions(now_ms), state) {
            session.standing = Standing::Over(now_ms, result);
            session.task = None;
        }
    }

    /// How a login stands; `None`: unknown, or over for long.
    pub fn status(&self, state: &str, now_ms: u64) -> Option<Status> {
        let sessions = self.sessions(now_ms);
        Some(match &sessions.get(find(&sessions, state)?)?.standing {
            Standing::Waits(_) => Status::Waits,
            Standing::Over(_, Ok(())) => Status::Done,
            Standing::Over(_, Err(why)) => Status::Failed(why.clone()),
        })
    }

    /// Gives a login up; whether it was still going on.
    pub fn cancel(&self, state: &str, now_ms: u64) -> bool {
        let mut sessions = self.sessions(now_ms);
        let Some(at) = find(&sessions, state) else { return false };
        let session = sessions.remove(at);
        session.stop();
        matches!(session.standing, Standing::Waits(_))
    }

    /// Those that are not out of date.
    fn sessions(&self, now_ms: u64) -> parking_lot::MutexGuard<'_, Vec<Session>> {
        let mut sessions = self.sessions.lock();
        let age = |since: u64| Duration::from_millis(now_ms.saturating_sub(since));
        sessions.retain(|session| {
            let current = match session.standing {
                Standing::Waits(_) => age(session.begun_ms) <= LIFE,
                Standing::Over(since, _) => age(since) <= TOLD,
            };
            if !current {
                session.stop();
            }
            current
        });
        sessions
    }
}

impl Session {
    fn stop(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn digest(state: &str) -> [u8; 32] {
    Sha256::digest(state.as_bytes()).into()
}

/// All are compared, so that the time tells nothing of them.
fn find(sessions: &[Session], state: &str) -> Option<usize> {
    let wanted = digest(state);
    let mut found = None;
    for (at, session) in sessions.iter().enumerate() {
        let same: Choice = session.digest.ct_eq(&wanted);
        if bool::from(same) {
            found = Some(at);
        }
    }
    found
}

fn find_mut<'s>(sessions: &'s mut [Session], state: &str) -> Option<&'s mut Session> {
    let at = find(sessions, state)?;
    sessions.get_mut(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(state: &str) -> Returned {
        Returned::query(&format!("code=canary&state={state}"))
    }

    #[test]
    fn p62_a_state_is_good_once_and_for_its_provider() {
        let logins = Logins::default();
        let mut waits = logins.begin("s", Provider::Claude, 0).unwrap();
        for (provider, state, refused) in [
            (Some(Provider::Claude), "x", Refused::Unknown),
            (Some(Provider::Claude), "", Refused::Unknown),
            (Some(Provider::Codex), "s", Refused::OtherProvider),
        ] {
            assert_eq!(logins.returned(provider, back(state), 1), Err(refused));
            assert!(waits.try_recv().is_err() && logins.status("s", 1) == Some(Status::Waits));
        }
        logins.returned(Some(Provider::Claude), back("s"), 2).unwrap();
        assert!(waits.try_recv().unwrap().code.is_some());
        assert_eq!(logins.returned(Some(Provider::Claude), back("s"), 3), Err(Refused::Used), "a replay");
        logins.end("s", Ok(()), 4);
        assert_eq!(logins.returned(None, back("s"), 5), Err(Refused::Used));
        assert_eq!(logins.status("s", 5), Some(Status::Done));
        assert!(!format!("{logins:?}").contains("canary"));
    }

    #[test]
    fn p62_a_state_runs_out_after_ten_minutes_and_its_end_is_told_for_one() {
        let logins = Logins::default();
        let minute = 60_000;
        let mut waits = logins.begin("s", Provider::Claude, 0).unwrap();
        assert_eq!(logins.status("s", 10 * minute), Some(Status::Waits));
        assert_eq!(logins.returned(None, back("s"), 10 * minute + 1), Err(Refused::Unknown));
        assert!(matches!(waits.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        let _waits = logins.begin("t", Provider::Kimi, 0).unwrap();
        logins.end("t", Err("why".to_owned()), minute);
        assert_eq!(logins.status("t", 2 * minute), Some(Status::Failed("why".to_owned())));
        assert_eq!(logins.status("t", 2 * minute + 1), None);
    }

    #[test]
    fn logins_at_once_are_bounded_and_those_that_are_over_make_room() {
        let logins = Logins::default();
        let waits: Vec<_> =
            (0..AT_ONCE).map(|n| logins.begin(&n.to_string(), Provider::Claude, 0).unwrap()).collect();
        assert_eq!(logins.begin("more", Provider::Claude, 0).unwrap_err(), TooMany);
        logins.end("7", Ok(()), 0);
        assert!(logins.begin("more", Provider::Claude, 0).is_ok());
        assert_eq!((logins.status("7", 0), waits.len()), (None, AT_ONCE));
        assert!(logins.cancel("8", 0) && !logins.cancel("8", 0));
        assert!(logins.begin("again", Provider::Claude, 0).is_ok());
    }

    #[tokio::test]
    async fn what_is_given_up_ends_its_task() {
        let logins = Logins::default();
        let task = |state: &'static str| {
            let task = tokio::spawn(std::future::pending::<()>());
            logins.runs(state, task.abort_handle(), 0);
            task
        };
        let _waits = logins.begin("s", Provider::Claude, 0).unwrap();
        let running = task("s");
        assert!(logins.cancel("s", 0));
        assert!(running.await.unwrap_err().is_cancelled());
        assert!(task("gone").await.unwrap_err().is_cancelled());
    }
}
