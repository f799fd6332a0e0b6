//! What the pool learnt, kept over a restart.
//!
//! Enters: the pool, the store. Leaves: rows in the store about every second, and a pool that knows at its
//! start what the process before knew. May go wrong: the store cannot be used; then it is told once, counted,
//! and what waits to be written stays in memory until the store can be used again. Requests never wait for it.
//!
//! Nothing is written before what was there has been read, also when another process holds the file at the
//! start: a process that takes over from an old one reads when the old one lets go.

use super::State;
use super::store::{Opened, Row, Store, StoreError, Table};
use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pool::{HealthRow, Learnt, Now, Pool, SessionRow};
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Time between two batches: what a crash may lose.
const TICK: Duration = Duration::from_secs(1);
/// Time between two tries to use a store that failed, in milliseconds.
const RETRY_MS: u64 = 5_000;
/// Time between two looks for rows that nobody needs any more, in milliseconds.
const SWEEP_MS: u64 = 60_000;
/// A session that is used on and on is written this often, in milliseconds.
const SESSION_REFRESH_MS: u64 = 60_000;

/// The keeper of what was learnt.
#[derive(Debug)]
pub struct Keeper {
    store: Store,
    books: Mutex<Books>,
}

/// What is known about the rows of the store.
#[derive(Debug, Default)]
struct Books {
    /// What was there at the start was read.
    recalled: bool,
    /// Rests were kept at the last call.
    cooldowns: bool,
    /// Rows that are not on the disk yet.
    pending: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    /// Digests of the rows of credentials that were given to the disk last.
    health: HashMap<String, u64>,
    /// Digest of the credential and time of use of sessions that were given to the disk last.
    sessions: HashMap<u64, (u64, u64)>,
    /// When the pool was asked last.
    asked_ms: u64,
    swept_ms: u64,
    /// Not before this.
    retry_ms: u64,
    /// It was told that the store cannot be used.
    told: bool,
    /// The process leaves: the store is for its successor.
    released: bool,
}

/// What a batch held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Rows of credentials.
    pub credentials: usize,
    /// Rows of sessions.
    pub sessions: usize,
}

impl Keeper {
    /// A keeper whose store is in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self { store: Store::new(folder), books: Mutex::default() }
    }

    /// Reads what was there, if it was not read yet, and writes what was learnt since the last call.
    pub fn keep(&self, pool: &Pool, cooldowns: bool, now: Now) -> Result<Kept, StoreError> {
        let mut books = self.books.lock();
        let sweep = now.mono_ms >= books.swept_ms.saturating_add(SWEEP_MS);
        if sweep {
            self.store.close_if_gone();
        }
        let opened = self.store.open()?;
        if opened != Opened::Before {
            self.recall(&mut books, pool, cooldowns, now)?;
        }
        let all = opened == Opened::Empty || cooldowns != std::mem::replace(&mut books.cooldowns, cooldowns);
        if all {
            books.health.clear();
            books.sessions.clear();
            books.asked_ms = 0;
            books.collect(pool.learnt(None, now), cooldowns);
        }
        let asked_ms = std::mem::replace(&mut books.asked_ms, now.mono_ms);
        books.collect(pool.learnt(Some(asked_ms), now), cooldowns);
        if sweep {
            books.swept_ms = now.mono_ms;
            self.sweep(&mut books, pool, cooldowns, now)?;
        }
        if books.pending.is_empty() {
            return Ok(Kept::default());
        }
        let rows: Vec<Row> =
            books.pending.iter().map(|((table, key), value)| row(*table, key, value.as_deref())).collect();
        self.store.write(rows.iter())?;
        books.pending.clear();
        let of = |table| rows.iter().filter(|row| row.table == table).count();
        Ok(Kept { credentials: of(Table::Health), sessions: of(Table::Sessions) })
    }

    /// Reads what the process before wrote, once.
    fn recall(&self, books: &mut Books, pool: &Pool, cooldowns: bool, now: Now) -> Result<(), StoreError> {
        if books.recalled {
            return Ok(());
        }
        let mut learnt = Learnt::default();
        self.store.read(Table::Health, &mut |key, value| {
            let text = String::from_utf8(value.to_vec()).ok().filter(|_| cooldowns);
            learnt.health.push(HealthRow { credential: String::from_utf8_lossy(key).into_owned(), text });
        })?;
        self.store.read(Table::Sessions, &mut |key, value| {
            let (Ok(key), Ok(text)) = (key.try_into(), String::from_utf8(value.to_vec())) else { return };
            learnt.sessions.push(SessionRow {
                key: u64::from_be_bytes(key),
                credential: String::new(),
                used_ms: 0,
                text,
            });
        })?;
        let recalled = pool.recall(&learnt, now);
        books.recalled = true;
        if recalled != pool::Recalled::default() {
            tracing::info!(
                "remembered from before the start: the rests of {} credentials, {} sessions",
                recalled.credentials,
                recalled.sessions
            );
        }
        Ok(())
    }

    /// Marks rows that nobody needs any more.
    fn sweep(&self, books: &mut Books, pool: &Pool, cooldowns: bool, now: Now) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        self.store.read(Table::Health, &mut |key, value| {
            if !cooldowns || std::str::from_utf8(value).is_ok_and(|text| Pool::is_stale(text, now)) {
                gone.push((Table::Health, key.to_vec()));
            }
        })?;
        self.store.read(Table::Sessions, &mut |key, _| {
            let session = key.try_into().map(u64::from_be_bytes);
            if !session.is_ok_and(|session| pool.remembers_session(session)) {
                gone.push((Table::Sessions, key.to_vec()));
            }
        })?;
        books.sessions.retain(|key, _| pool.remembers_session(*key));
        for place in gone {
            books.pending.entry(place).or_insert(None);
        }
        Ok(())
    }
}

impl Books {
    /// Takes down what has to be written: what differs from what was given to the disk last.
    fn collect(&mut self, learnt: Learnt, cooldowns: bool) {
        for row in learnt.health.into_iter().filter(|_| cooldowns) {
            let digest = digest(&row.text);
            let known = self.health.get(&row.credential).copied();
            if known == Some(digest) || (known.is_none() && row.text.is_none()) {
                continue;
            }
            let value = row.text.map(String::into_bytes);
            self.pending.insert((Table::Health, row.credential.clone().into_bytes()), value);
            self.health.insert(row.credential, digest);
        }
        for row in learnt.sessions {
            let digest = digest(&row.credential);
            let fresh = |known: &(u64, u64)| {
                known.0 == digest && row.used_ms.saturating_sub(known.1) < SESSION_REFRESH_MS
            };
            if self.sessions.get(&row.key).is_some_and(fresh) {
                continue;
            }
            self.sessions.insert(row.key, (digest, row.used_ms));
            let place = (Table::Sessions, row.key.to_be_bytes().to_vec());
            self.pending.insert(place, Some(row.text.into_bytes()));
        }
    }
}

fn row(table: Table, key: &[u8], value: Option<&[u8]>) -> Row {
    Row { table, key: key.to_vec(), value: value.map(<[u8]>::to_vec) }
}

fn digest(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

impl State {
    /// The store, where there is one.
    pub(super) fn store(&self) -> Option<&Store> {
        self.keeper.get().map(|keeper| &keeper.store)
    }

    /// Keeps what is learnt in `folder` from now on, and takes up what is there. Call it before the first
    /// request. A folder that cannot be used is told and changes nothing else.
    pub fn keep_in(&self, folder: &Path) {
        // The first one counts.
        let _ = self.keeper.set(Keeper::new(folder));
        self.keep_learnt();
    }

    /// Writes what was learnt since the last call. Waits for the disk.
    pub fn keep_learnt(&self) {
        let Some(keeper) = self.keeper.get() else { return };
        let now = self.now();
        {
            let books = keeper.books.lock();
            if books.released || now.mono_ms < books.retry_ms {
                return;
            }
        }
        self.try_to_keep(keeper, now);
    }

    /// Writes what was learnt and lets another process have the store. Once more when the last request has
    /// ended, unless a successor has the store by then.
    pub fn release_learnt(&self) {
        let Some(keeper) = self.keeper.get() else { return };
        if std::mem::replace(&mut keeper.books.lock().released, true) {
            let taken = matches!(keeper.store.open(), Err(StoreError::Taken));
            if taken {
                return;
            }
        }
        self.try_to_keep(keeper, self.now());
        keeper.store.close();
    }

    fn try_to_keep(&self, keeper: &Keeper, now: Now) {
        let cooldowns = self.snapshot.load().config.routing.save_cooldown_status;
        let kept = keeper.keep(&self.pool, cooldowns, now);
        let kept = kept.and_then(|kept| self.keep_usage(&keeper.store).map(|()| kept));
        let file = keeper.store.file().display();
        let mut books = keeper.books.lock();
        match kept {
            Ok(kept) => {
                if std::mem::take(&mut books.told) {
                    tracing::info!("{file}: what is learnt is kept over a restart again");
                }
                if kept != Kept::default() {
                    self.metrics.store_writes.with_label_values(&["written"]).inc();
                    tracing::debug!(
                        "learnt: kept {} credentials, {} sessions",
                        kept.credentials,
                        kept.sessions
                    );
                }
            }
            Err(error) => {
                self.metrics.store_writes.with_label_values(&["failed"]).inc();
                books.retry_ms = now.mono_ms.saturating_add(RETRY_MS);
                if !std::mem::replace(&mut books.told, true) {
                    tracing::warn!(
                        "{file}: {error}; requests are served as before, but rests and sessions are forgotten \
                         by a restart until this is mended (tried again every {} seconds)",
                        RETRY_MS / 1000
                    );
                }
            }
        }
    }
}

/// Keeps what is learnt, for the life of the process.
#[derive(Debug)]
pub struct Writer(pub Arc<State>);

#[async_trait]
impl BackgroundService for Writer {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                _ = shutdown.changed() => break,
            }
            let state = Arc::clone(&self.0);
            // The disk may take its time. A panic there was told by the hook; the next tick tries again.
            let _ = tokio::task::spawn_blocking(move || state.keep_learnt()).await;
        }
        let state = Arc::clone(&self.0);
        let _ = tokio::task::spawn_blocking(move || state.release_learnt()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::accounts::Accounts;
    use pool::{Attempts, CredentialId, Hint, NoPick, Outcome, Pick, Scope};
    use testkit::scratch::Scratch;

    const CONFIG: &str = "api-keys: [k]\nrouting: {session-affinity: true}\nclaude-api-key:\n- {api-key: a, models: [{name: m}]}\n- {api-key: b, models: [{name: m}]}\n";

    fn state(more: &str) -> State {
        let config = config::load(format!("{CONFIG}{more}").as_bytes()).unwrap().config;
        State::new(config, Accounts::default()).unwrap().0
    }

    fn pick(state: &State, session: Option<u64>) -> Result<Pick, NoPick> {
        let route = state.pool.route("m", state.now()).unwrap();
        state.pool.pick(&route, &mut Attempts::default(), session, state.now(), 1)
    }

    /// The credential that was asked is told to rest for an hour.
    fn cool(state: &State) -> CredentialId {
        let pick = pick(state, None).unwrap();
        let id = pick.credential().id.clone();
        let hint = Some(Hint { wait_ms: 3_600_000, scope: Scope::Credential });
        let outcome = Outcome::Status { status: 429, body: b"", hint };
        state.pool.report(pick, &outcome, &mut Attempts::default(), state.now());
        id
    }

    fn resting(state: &State) -> Vec<CredentialId> {
        let all = state.pool.credentials(state.now()).into_iter();
        all.filter(|status| !status.cooling.is_empty()).map(|status| status.id).collect()
    }

    #[test]
    fn p48_the_next_process_knows_who_rests_and_where_sessions_stay() {
        let scratch = Scratch::new();
        let folder = scratch.path().join("state");
        let first = state("");
        first.keep_in(&folder);
        let bound = pick(&first, Some(7)).unwrap().credential().id.clone();
        while pick(&first, None).unwrap().credential().id == bound {}
        let rests = [cool(&first), cool(&first)];
        assert_ne!(rests[0], rests[1]);
        assert!(first.pool.forgive(&bound, None));
        first.keep_learnt();
        // It is killed: nothing is closed in order, but the lock goes with the process.
        first.keeper.get().unwrap().store.close();
        let next = state("");
        next.keep_in(&folder);
        assert_eq!(resting(&next), rests.iter().filter(|id| **id != bound).cloned().collect::<Vec<_>>());
        assert!(pick(&next, None).is_ok_and(|pick| pick.credential().id == bound));
        for id in rests.iter().filter(|id| **id != bound) {
            assert!(next.pool.forgive(id, None));
        }
        for _ in 0..5 {
            assert_eq!(pick(&next, Some(7)).unwrap().credential().id, bound, "the session stays");
        }
    }

    #[test]
    fn what_is_switched_off_is_neither_kept_nor_taken_up() {
        let scratch = Scratch::new();
        let first = state("");
        first.keep_in(scratch.path());
        let rests = cool(&first);
        first.release_learnt();
        let off = state("save-cooldown-status: false\n");
        off.keep_in(scratch.path());
        assert_eq!(resting(&off), []);
        off.release_learnt();
        let on = state("");
        on.keep_in(scratch.path());
        assert_eq!(resting(&on), [rests], "switched on again it is still there: nobody has swept yet");
    }

    #[test]
    fn who_takes_over_reads_when_the_one_before_lets_go() {
        let scratch = Scratch::new();
        let first = state("");
        first.keep_in(scratch.path());
        let second = state("");
        second.keep_in(scratch.path());
        let rests = cool(&first);
        first.release_learnt();
        assert_eq!(resting(&second), []);
        second.keeper.get().unwrap().books.lock().retry_ms = 0;
        second.keep_learnt();
        assert_eq!(resting(&second), [rests]);
        cool(&first);
        first.release_learnt();
        second.keep_learnt();
        assert_eq!(resting(&second).len(), 1, "the last words of the first one came too late");
    }

    #[test]
    fn p45_a_store_that_cannot_be_used_is_told_once_counted_and_used_again() {
        let scratch = Scratch::new();
        let blocked = scratch.file("state", "a file where the folder should be");
        let first = state("");
        first.keep_in(&blocked);
        let rests = cool(&first);
        let keeper = first.keeper.get().unwrap();
        for _ in 0..3 {
            keeper.books.lock().retry_ms = 0;
            first.keep_learnt();
        }
        assert!(keeper.books.lock().told);
        assert_eq!(first.metrics.store_writes.with_label_values(&["failed"]).get(), 4);
        std::fs::remove_file(&blocked).unwrap();
        keeper.books.lock().retry_ms = 0;
        first.keep_learnt();
        assert!(!keeper.books.lock().told);
        keeper.store.close();
        let next = state("");
        next.keep_in(&blocked);
        assert_eq!(resting(&next), [rests], "nothing of what happened meanwhile is lost");
    }

    #[test]
    fn what_healed_and_what_nobody_needs_leaves_the_store() {
        let scratch = Scratch::new();
        let state = state("");
        state.keep_in(scratch.path());
        let rests = cool(&state);
        let _ = pick(&state, Some(7)).unwrap();
        let keeper = state.keeper.get().unwrap();
        let keep = |at_ms| {
            let now = Now { mono_ms: at_ms, ..state.now() };
            keeper.keep(&state.pool, true, now).unwrap()
        };
        assert_eq!(keep(state.now().mono_ms), Kept { credentials: 1, sessions: 1 });
        assert_eq!(keep(state.now().mono_ms), Kept::default(), "nothing changed");
        assert!(state.pool.forgive(&rests, None));
        assert_eq!(keep(state.now().mono_ms), Kept { credentials: 1, sessions: 0 });
        let stray = row(Table::Sessions, &77_u64.to_be_bytes(), Some(b"{}"));
        let old = row(Table::Health, b"gone", Some(b"no row of ours"));
        keeper.store.write([stray, old].iter()).unwrap();
        assert_eq!(keep(SWEEP_MS), Kept { credentials: 1, sessions: 1 }, "both strays were removed");
        let count = |table| {
            let mut rows = 0;
            keeper.store.read(table, &mut |_, _| rows += 1).unwrap();
            rows
        };
        assert_eq!((count(Table::Health), count(Table::Sessions)), (0, 1));
        std::fs::remove_file(keeper.store.file()).unwrap();
        assert_eq!(keep(2 * SWEEP_MS), Kept { credentials: 0, sessions: 1 }, "a new file gets all");
    }
}
