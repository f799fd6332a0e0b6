//! Requests on their way into files.
//!
//! Enters: requests that are over and worth a file: failures, and those whose bodies are wanted. Leaves: one
//! file each, written by one thread behind a bounded queue, so that no request waits for the disk. May go wrong:
//! more come than can be written, or the folder cannot be written; then they are dropped, counted, and told in
//! the log once in a while.
//!
//! Nothing is written before [`State::write_requests`], so that only a process with a configuration file does,
//! and nothing under `commercial-mode`.

use super::{Snapshot, State, reload};
use crate::observe::body_capture::BodyCapture;
use crate::observe::clip::Held;
use crate::observe::log_folder::{self, Caps, Folder};
use crate::observe::redact::Redactor;
use crate::observe::request_log::Entry;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

/// Requests that wait to be written.
const QUEUE: usize = 64;
/// Life of the list of secrets: tokens of accounts change. Those that a request itself used are looked for
/// anyway.
const SECRETS: Duration = Duration::from_secs(5);
/// Rest after as many failures at once as are kept: a storm of them is not worth the disk.
const REST: Duration = Duration::from_millis(100);
/// Time between two lines about what was dropped.
const TELL: Duration = Duration::from_mins(1);
/// Longest wait for the last ones at the end of the process.
const LAST: Duration = Duration::from_secs(2);

/// What is written of requests.
#[derive(Debug, Default)]
pub struct RequestLogs {
    /// To the thread that writes.
    queue: OnceLock<SyncSender<Message>>,
    /// How much waits.
    pub held: Arc<Held>,
    /// Whose bodies are written.
    pub bodies: BodyCapture,
}

/// What the thread is told.
#[derive(Debug)]
enum Message {
    Write(Box<Entry>),
    /// Everything before it is written.
    Flush(SyncSender<()>),
}

impl RequestLogs {
    /// Whether anything is written.
    pub fn is_on(&self, snapshot: &Snapshot) -> bool {
        !snapshot.config.logging.commercial_mode && self.queue.get().is_some()
    }

    /// Whether the bodies of a request are written.
    pub fn wants_bodies(&self, snapshot: &Snapshot, model: &str, client_key: &str) -> bool {
        // A request that is written anyway is none of those that were asked for.
        snapshot.config.logging.request_log || self.bodies.takes(model, client_key)
    }

    /// Hands over a request; `false`: it is dropped.
    fn put(&self, entry: Box<Entry>) -> bool {
        self.queue.get().is_some_and(|queue| queue.try_send(Message::Write(entry)).is_ok())
    }
}

impl State {
    /// Writes a request down, in a while.
    pub fn write_request(&self, entry: Box<Entry>) {
        if !self.request_logs.put(entry) {
            self.metrics.request_logs_dropped.inc();
        }
    }

    /// Begins to write requests down, for the life of the state, on a thread of its own.
    pub fn write_requests(self: &Arc<Self>) {
        let (sender, queue) = sync_channel(QUEUE);
        let state = Arc::downgrade(self);
        let writer = move || Writer::new(state).run(&queue);
        match std::thread::Builder::new().name("request-log".to_owned()).spawn(writer) {
            // A second call changes nothing, and its thread ends.
            Ok(_) => drop(self.request_logs.queue.set(sender)),
            Err(error) => tracing::error!("requests are not written down: no thread: {error}"),
        }
    }

    /// Waits until the requests so far are written; for the end of the process.
    pub fn flush_requests(&self) {
        let (done, wait) = sync_channel(1);
        if let Some(queue) = self.request_logs.queue.get()
            && queue.try_send(Message::Flush(done)).is_ok()
        {
            // Too late, or the thread is gone: nothing is left to be done.
            let _ = wait.recv_timeout(LAST);
        }
    }

    /// The folder of request logs; `None`: there is no configuration file, and nothing is written.
    pub fn request_log_folder(&self) -> Option<PathBuf> {
        let file = self.config_file.path()?;
        Some(reload::log_folder(&self.snapshot.load().config, Some(&file)))
    }

    /// All secrets that are known now.
    fn redactor(&self) -> Redactor {
        let snapshot = self.snapshot.load();
        let accounts = self.accounts();
        let variables = ["MANAGEMENT_PASSWORD", "OAUTH_CLIENT_SECRET"]
            .map(|name| std::env::var(name).unwrap_or_default());
        let secrets = snapshot.config.secrets().into_iter();
        let secrets = secrets.chain(accounts.good.iter().flat_map(config::Account::secrets));
        let secrets = secrets.map(config::Secret::expose_secret);
        Redactor::new(secrets.chain(variables.iter().map(String::as_str)))
    }
}

/// The thread.
struct Writer {
    state: Weak<State>,
    folder: Option<Folder>,
    /// Secrets, of when, under which configuration.
    known: Option<(Instant, Arc<Snapshot>, Arc<Redactor>)>,
    /// When was told that something was dropped, and how much had been by then.
    told: Option<Instant>,
    dropped: u64,
}

impl Writer {
    fn new(state: Weak<State>) -> Self {
        Self { state, folder: None, known: None, told: None, dropped: 0 }
    }

    fn run(mut self, queue: &Receiver<Message>) {
        while let Ok(first) = queue.recv() {
            let mut entries = Vec::new();
            let mut waiting = Vec::new();
            for message in std::iter::once(first).chain(queue.try_iter()) {
                match message {
                    Message::Write(entry) => entries.push(*entry),
                    Message::Flush(done) => waiting.push(done),
                }
            }
            let Some(state) = self.state.upgrade() else { return };
            let storm = self.write_all(&state, entries);
            drop(state);
            for done in waiting {
                // Who waited may have given up.
                let _ = done.try_send(());
            }
            if storm {
                std::thread::sleep(REST);
            }
        }
    }

    /// Writes what has come; `true`: more than is kept.
    fn write_all(&mut self, state: &State, mut entries: Vec<Entry>) -> bool {
        let snapshot = state.snapshot.load_full();
        let logging = &snapshot.config.logging;
        let caps = Caps {
            errors: logging.error_logs_max_files as usize,
            bytes: logging.logs_max_total_size_mb << 20,
        };
        let Some(place) = state.request_log_folder() else { return false };
        if self.folder.as_ref().is_none_or(|folder| folder.path() != place) {
            self.folder = Some(Folder::new(place));
        }
        let is_error = |entry: &Entry| entry.failed && !logging.request_log;
        // What the next one would push out is not written.
        let failures = entries.iter().filter(|entry| is_error(entry)).count();
        let mut over = if caps.errors == 0 { 0 } else { failures.saturating_sub(caps.errors) };
        entries.retain(|entry| {
            let skipped = over > 0 && is_error(entry);
            over -= usize::from(skipped);
            !skipped
        });
        let known = self.known(state, &snapshot);
        let mut failed = None;
        for entry in entries {
            let facts = &entry.facts;
            let name = log_folder::name(is_error(&entry), &facts.path, entry.at, &facts.request_id);
            let text = entry.text(&known);
            let written = self.folder.as_mut().map(|folder| folder.write(&name, text.as_bytes(), caps));
            if let Some(Err(error)) = written {
                state.metrics.request_logs_dropped.inc();
                failed = Some(error);
            }
        }
        self.tell(state, failed.as_ref());
        caps.errors > 0 && failures >= caps.errors
    }

    fn known(&mut self, state: &State, snapshot: &Arc<Snapshot>) -> Arc<Redactor> {
        match &self.known {
            Some((at, of, redactor)) if at.elapsed() < SECRETS && Arc::ptr_eq(of, snapshot) => {
                Arc::clone(redactor)
            }
            _ => {
                let redactor = Arc::new(state.redactor());
                self.known = Some((Instant::now(), Arc::clone(snapshot), Arc::clone(&redactor)));
                redactor
            }
        }
    }

    /// Says what was dropped, and not more often than anybody wants to read it.
    fn tell(&mut self, state: &State, failed: Option<&std::io::Error>) {
        let dropped = state.metrics.request_logs_dropped.get();
        if dropped == self.dropped || self.told.is_some_and(|at| at.elapsed() < TELL) {
            return;
        }
        let count = dropped - self.dropped;
        if let (Some(error), Some(folder)) = (failed, &self.folder) {
            tracing::warn!(
                "{count} request logs cannot be written to {}: {error}; log-dir names another folder, \
                 commercial-mode writes none",
                folder.path().display()
            );
        } else {
            tracing::warn!("{count} request logs were dropped: more came than could be written");
        }
        self.told = Some(Instant::now());
        self.dropped = dropped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::request::Facts;
    use crate::state::accounts::Accounts;
    use http::HeaderMap;
    use testkit::scratch::Scratch;

    fn state(text: &str, folder: &Scratch) -> Arc<State> {
        let state = State::new(config::load(text.as_bytes()).unwrap().config, Accounts::default()).unwrap().0;
        state.config_file.is(Some(folder.path().join("config.yaml")), text);
        Arc::new(state)
    }

    fn entry(n: usize) -> Entry {
        Entry {
            at: "2026-11-21T04:37:00Z".parse().unwrap(),
            facts: Facts {
                request_id: format!("{n:032x}"),
                path: "/v1/messages".to_owned(),
                error: "CANARY-configured is wrong".to_owned(),
                ..Facts::default()
            },
            failed: true,
            client_key: String::new(),
            transport: String::new(),
            query: None,
            headers: HeaderMap::new(),
            body: None,
            attempts: Vec::new(),
            left_out: 0,
            answer_headers: HeaderMap::new(),
            answer: None,
        }
    }

    #[test]
    fn of_a_storm_only_what_would_stay_is_written() {
        let scratch = Scratch::new();
        let state = state("api-keys: [CANARY-configured]\nerror-logs-max-files: 3\n", &scratch);
        let mut writer = Writer::new(Arc::downgrade(&state));
        assert!(writer.write_all(&state, (0..10).map(entry).collect()), "it rests then");
        assert!(!writer.write_all(&state, vec![entry(10)]));
        let folder = scratch.path().join("logs");
        let names: Vec<String> = log_folder::list(&folder).into_iter().map(|found| found.name).collect();
        assert_eq!(names.len(), 3);
        for (name, n) in names.iter().zip([10, 9, 8]) {
            assert!(name.ends_with(&format!("{n:032x}.log")), "{name}");
            let text = std::fs::read_to_string(folder.join(name)).unwrap();
            assert!(text.contains("Error: ******** is wrong") && !text.contains("CANARY"), "{text}");
        }
        assert_eq!(state.metrics.request_logs_dropped.get(), 0);
    }

    #[test]
    fn who_comes_when_too_many_wait_is_counted_and_does_not_wait() {
        let scratch = Scratch::new();
        let state = state("api-keys: [k]\n", &scratch);
        let (sender, queue) = sync_channel(1);
        assert!(!state.request_logs.is_on(&state.snapshot.load()), "nobody writes yet");
        state.request_logs.queue.set(sender).unwrap();
        assert!(state.request_logs.is_on(&state.snapshot.load()));
        for n in 0..3 {
            state.write_request(Box::new(entry(n)));
        }
        assert_eq!(state.metrics.request_logs_dropped.get(), 2);
        assert!(
            matches!(queue.try_recv(), Ok(Message::Write(entry)) if entry.facts.request_id.ends_with('0'))
        );
    }

    #[test]
    fn without_a_configuration_file_there_is_no_folder() {
        let state = State::new(config::Config::default(), Accounts::default()).unwrap().0;
        assert_eq!(state.request_log_folder(), None);
    }
}
