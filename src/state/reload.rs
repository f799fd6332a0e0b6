//! The configuration file and the accounts are replaced while requests run.
//!
//! Enters: events of the folders that hold them, and a look every few seconds where events get lost
//! (network folders, symlinks of ConfigMaps). Leaves: a configuration in force, or the one before, with a log
//! line that says what changed or what is wrong. May go wrong: the file is gone, empty, half-written, broken;
//! then nothing changes.

use super::State;
use super::accounts::{self, Accounts};
use super::config_file::Held;
use super::load::{has_key_files, load, stamp, told};
use super::read::regular;
use crate::observe::log;
use config::Config;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Quiet time after the last event: editors write a file in several steps.
const SETTLE: Duration = Duration::from_millis(50);
/// Longest wait for that, so that a file that is written all the time is read as well.
const SETTLE_MOST: Duration = Duration::from_millis(500);
/// Time between two looks without an event.
const LOOK: Duration = Duration::from_secs(5);

/// What came of a look at the file.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The bytes are those of the last look.
    Same,
    /// A configuration was put in force; the settings that changed.
    Applied(Vec<String>),
    /// The file cannot be used, for these reasons; the configuration before stays.
    Kept(Vec<String>),
}

/// A configuration file that is looked after.
pub struct Watched {
    file: PathBuf,
    /// What the last look found; `None`: it could not be read.
    seen: Option<Vec<u8>>,
    /// The folder of accounts at the last look.
    stamp: u64,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Watched {
    /// A file whose content, `seen`, is in force, with accounts that were read after `stamp` was taken.
    pub fn new(file: PathBuf, seen: Vec<u8>, stamp: u64) -> Self {
        Self { file, seen: Some(seen), stamp }
    }

    /// Where it is.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Looks at the file and puts it in force when it changed.
    pub fn look(&mut self, state: &State) -> Outcome {
        let bytes = match read(&self.file) {
            Ok(bytes) => bytes,
            Err(reason) => {
                // Said once, not at each look.
                return if self.seen.take().is_some() { Outcome::Kept(vec![reason]) } else { Outcome::Same };
            }
        };
        if self.seen.as_ref() == Some(&bytes) {
            return Outcome::Same;
        }
        // What was read may be older than a change that was made since: it must not be undone.
        let mut held = state.config_file.hold();
        let bytes = read(&self.file).unwrap_or(bytes);
        if held.is_ours(&bytes) {
            self.seen = Some(bytes);
            return Outcome::Same;
        }
        let outcome = self.use_bytes(&bytes, state, &mut held);
        self.seen = Some(bytes);
        outcome
    }

    fn use_bytes(&mut self, bytes: &[u8], state: &State, held: &mut Held<'_>) -> Outcome {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            // An editor that truncates before it writes must not open the proxy to everyone.
            return Outcome::Kept(vec![format!("{}: it is empty", self.file.display())]);
        }
        let read = match load(bytes, &self.file.display().to_string()) {
            Ok(read) => read,
            Err(mistakes) => return Outcome::Kept(mistakes),
        };
        for warning in &read.warnings {
            tracing::warn!("{warning}");
        }
        self.stamp = read.stamp;
        log::configure(&logging(&read.config, Some(&self.file)));
        held.is_theirs();
        Outcome::Applied(put_in_force(read.config, read.accounts, state))
    }

    /// Looks at the folder of accounts and puts them in force when they changed. Tells which changed.
    pub fn look_at_accounts(&mut self, state: &State) -> Option<Vec<String>> {
        let snapshot = state.snapshot.load();
        let folder = accounts::folder(&snapshot.config.auth.auth_dir);
        let stamp = stamp(&snapshot.config);
        if stamp == self.stamp {
            return None;
        }
        self.stamp = stamp;
        if has_key_files(&snapshot.config) {
            // One of them may be what changed: all of it is read again.
            let seen = self.seen.clone()?;
            let mut held = state.config_file.hold();
            return match self.use_bytes(&seen, state, &mut held) {
                Outcome::Applied(changed) if !changed.is_empty() => Some(changed),
                _ => None,
            };
        }
        let (before, now) = (state.accounts(), accounts::scan(&folder));
        if before == now {
            return None;
        }
        for warning in told(&folder, &now, &before) {
            tracing::warn!("{warning}");
        }
        let changed = changed(&before, &now);
        state.apply_accounts(now);
        Some(changed)
    }
}

/// The accounts that a configuration means: those that are known, unless it names another folder.
pub(super) fn accounts_for(config: &Config, state: &State) -> Accounts {
    let folder = &config.auth.auth_dir;
    if *folder == state.snapshot.load().config.auth.auth_dir {
        return state.accounts();
    }
    accounts::scan(&accounts::folder(folder))
}

/// How to log.
pub fn logging(config: &Config, file: Option<&Path>) -> log::Settings {
    let logging = &config.logging;
    let folder = logging.logging_to_file.then(|| log_folder(config, file));
    log::Settings { debug: logging.debug, folder, most: logging.logs_max_total_size_mb << 20 }
}

/// Where log files are; beside the configuration file unless it says where.
pub fn log_folder(config: &Config, file: Option<&Path>) -> PathBuf {
    match config.logging.log_dir.as_str() {
        "" => file.map_or_else(|| PathBuf::from("logs"), |file| beside(file, "logs")),
        named => accounts::folder(named),
    }
}

/// The folder `name` beside the configuration file.
pub fn beside(file: &Path, name: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(name)
}

/// Names of the files whose account came, went or changed.
fn changed(before: &Accounts, now: &Accounts) -> Vec<String> {
    let gone = before.good.iter().filter(|old| !now.good.iter().any(|new| new.file == old.file));
    let new = now.good.iter().filter(|new| !before.good.contains(new));
    gone.chain(new).map(|account| account.file.clone()).collect()
}

/// Applies a configuration and tells the settings that changed.
pub(super) fn put_in_force(config: Config, accounts: Accounts, state: &State) -> Vec<String> {
    let found = config::diff(&state.snapshot.load().config, &config);
    for path in found.needing_restart() {
        tracing::warn!("{path} changed: it counts after a restart");
    }
    let mut settings: Vec<String> = found.changes.iter().map(|change| change.path.clone()).collect();
    settings.extend(changed(&state.accounts(), &accounts));
    if !settings.is_empty() {
        state.apply(config, accounts);
    }
    settings
}

/// Reads the configuration file.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, String> {
    regular(file, config::MAX_BYTES).map_err(|problem| format!("{}: {problem}", file.display()))
}

/// Watches `file` for the life of `state`, on a thread of its own. What is sent to it asks for a look.
pub fn watch(watched: Watched, state: &Arc<State>) -> Sender<()> {
    let state = Arc::downgrade(state);
    let (sender, events) = channel();
    let sent = sender.clone();
    let spawned = std::thread::Builder::new()
        .name("reload".to_owned())
        .spawn(move || follow(watched, &state, sent, &events));
    if let Err(error) = spawned {
        tracing::error!("the configuration is not reloaded: no thread: {error}");
    }
    sender
}

fn follow(mut watched: Watched, state: &Weak<State>, sender: Sender<()>, events: &Receiver<()>) {
    // The folder, not the file: a file that is replaced by rename takes its watch with it.
    let folder = watched.file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = watched.file.file_name().map(ToOwned::to_owned);
    let mut events_of = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Logs may lie beside the file. `..data` is what Kubernetes swaps to replace a mounted file.
        let ours = |path: &PathBuf| {
            path.file_name() == name.as_deref()
                || path.ends_with("..data")
                || path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
        };
        if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(ours)) {
            // The receiver is gone when the process leaves.
            let _ = sender.send(());
        }
    })
    .and_then(|mut watcher: RecommendedWatcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    if let Err(error) = &events_of {
        tracing::warn!("{}: no events ({error}); looked at every {LOOK:?}", folder.display());
    }
    let mut accounts_at = None;
    loop {
        if let (Ok(watcher), Some(state)) = (&mut events_of, state.upgrade()) {
            follow_accounts(watcher, &state, &mut accounts_at);
        }
        settle(events);
        let Some(state) = state.upgrade() else { return };
        if let Some(changed) = watched.look_at_accounts(&state) {
            tracing::info!("accounts reloaded: {}", words(&changed));
        }
        match watched.look(&state) {
            Outcome::Same => {}
            Outcome::Applied(changed) => {
                state.metrics.reloads.with_label_values(&["applied"]).inc();
                tracing::info!("config reloaded: {}", words(&changed));
            }
            Outcome::Kept(reasons) => {
                state.metrics.reloads.with_label_values(&["kept"]).inc();
                for reason in reasons {
                    tracing::error!("config not reloaded, the one before stays in force: {reason}");
                }
            }
        }
    }
}

/// Watches the folder of accounts as well, wherever the configuration says that it is now. One that was
/// watched before stays so: it may be the folder of the configuration, and costs a look at most.
fn follow_accounts(watcher: &mut RecommendedWatcher, state: &State, at: &mut Option<PathBuf>) {
    let folder = accounts::folder(&state.snapshot.load().config.auth.auth_dir);
    if at.as_ref() == Some(&folder) || !folder.is_dir() {
        return;
    }
    match watcher.watch(&folder, RecursiveMode::NonRecursive) {
        Ok(()) => *at = Some(folder),
        Err(error) => tracing::warn!("{}: no events ({error}); looked at every {LOOK:?}", folder.display()),
    }
}

pub(super) fn words(changed: &[String]) -> String {
    if changed.is_empty() { "nothing changed".to_owned() } else { changed.join(", ") }
}

/// Waits for an event and until no more come, or for the next look.
fn settle(events: &Receiver<()>) {
    match events.recv_timeout(LOOK) {
        Ok(()) => {
            let end = Instant::now() + SETTLE_MOST;
            while Instant::now() < end && events.recv_timeout(SETTLE).is_ok() {}
        }
        Err(RecvTimeoutError::Timeout) => {}
        // There is no watcher.
        Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str) -> State {
        State::new(config::load(text.as_bytes()).unwrap().config, Accounts::default()).unwrap().0
    }

    const GOOD: &str = "api-keys: [k]\nclaude-api-key: [{api-key: a}]\n";

    #[test]
    fn p41_what_cannot_be_used_keeps_the_configuration_before() {
        let folder = testkit::scratch::Scratch::new();
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, GOOD).unwrap();
        let state = state(GOOD);
        let mut watched = Watched::new(file.clone(), std::fs::read(&file).unwrap(), 0);
        assert_eq!(watched.look(&state), Outcome::Same);
        for (bad, says) in [
            (&b""[..], "empty"),
            (b" \n", "empty"),
            (b"api-keys: [k\n", "config.yaml:"),
            (b"port: many\n", "config.yaml:1:7"),
            (b"\x00\xff\x00", "config.yaml"),
        ] {
            std::fs::write(&file, bad).unwrap();
            let Outcome::Kept(reasons) = watched.look(&state) else { panic!("{bad:?} was taken") };
            assert!(reasons.iter().any(|r| r.contains(says)), "{bad:?}: {reasons:?}");
            assert_eq!(watched.look(&state), Outcome::Same, "said once");
            assert_eq!(state.snapshot.load().config.providers.claude_api_key.len(), 1);
        }
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(watched.look(&state), Outcome::Kept(_)));
        assert_eq!(watched.look(&state), Outcome::Same);
        std::fs::create_dir(&file).unwrap();
        assert_eq!(watched.look(&state), Outcome::Same);
        std::fs::remove_dir(&file).unwrap();
        std::fs::write(&file, format!("\u{feff}{}", GOOD.replace('\n', "\r\n"))).unwrap();
        assert_eq!(watched.look(&state), Outcome::Applied(Vec::new()), "BOM and CRLF mean the same");
    }

    #[test]
    fn a_change_is_in_force_and_is_named_without_its_value() {
        let folder = testkit::scratch::Scratch::new();
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, GOOD).unwrap();
        let state = state(GOOD);
        let mut watched = Watched::new(file.clone(), std::fs::read(&file).unwrap(), 0);
        std::fs::write(&file, format!("{GOOD}port: 99\nrequest-retry: 7\n")).unwrap();
        let Outcome::Applied(changed) = watched.look(&state) else { panic!("it was not taken") };
        assert_eq!(changed, ["port", "request-retry"]);
        assert_eq!(state.snapshot.load().config.routing.request_retry, 7);
    }
}
