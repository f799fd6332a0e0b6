//! The configuration file, as it is changed by the proxy itself.
//!
//! Enters: a change to its text. Leaves: the changed text in the file and in force, one change after the
//! other. May go wrong: the text cannot be changed, or says nothing that can be used; then nothing happens. A
//! file that cannot be written keeps its content: the change counts until the process ends, or until somebody
//! else changes the file.

use super::{State, atomic, reload};
use crate::observe::log;
use parking_lot::{Mutex, MutexGuard};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// The file. It is none until somebody says which.
#[derive(Debug, Default)]
pub struct ConfigFile {
    /// Held through a change, so that each sees the one before.
    place: Mutex<Place>,
    told: AtomicBool,
}

#[derive(Debug, Default)]
struct Place {
    path: Option<PathBuf>,
    /// What the file said after the last change: whoever looks at it later has seen nothing new.
    disk: Option<String>,
    /// What is in force and not in the file.
    unsaved: Option<Unsaved>,
}

#[derive(Debug)]
struct Unsaved {
    /// What the file says meanwhile.
    over: String,
    text: String,
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The settings that are another now.
    pub changed: Vec<String>,
    /// Why the file does not say so; `None`: it does.
    pub unsaved: Option<String>,
    /// Tag of the text afterwards.
    pub etag: String,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The text is not the one that the change was meant for.
    #[error("the configuration was changed meanwhile; read it again")]
    Stale,
    /// The file cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The change cannot be made.
    #[error(transparent)]
    Edit(#[from] config::edit::EditError),
    /// The result says nothing that can be used.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
}

/// A name of a text: equal texts have equal names.
pub fn etag(text: &str) -> String {
    let mut tag = String::from("\"");
    for byte in Sha256::digest(text.as_bytes()).iter().take(8) {
        // Writing to a string cannot fail.
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}

impl ConfigFile {
    /// Says where the configuration in force came from: a file, or text that is in none.
    pub fn is(&self, path: Option<PathBuf>, text: &str) {
        let unsaved = path.is_none().then(|| Unsaved { over: String::new(), text: text.to_owned() });
        *self.place.lock() = Place { path, disk: None, unsaved };
    }

    /// The file, if there is one.
    pub fn path(&self) -> Option<PathBuf> {
        self.place.lock().path.clone()
    }

    /// Keeps changes away while somebody looks at the file and puts in force what it says.
    pub(super) fn hold(&self) -> Held<'_> {
        Held(self.place.lock())
    }

    /// The text in force. Reads the file.
    pub fn text(&self) -> Result<String, EditError> {
        self.place.lock().text()
    }
}

/// The file while nobody changes it.
pub(super) struct Held<'f>(MutexGuard<'f, Place>);

impl Held<'_> {
    /// Whether the file says what the last change left there. What is in force may be more than that.
    pub(super) fn is_ours(&self, bytes: &[u8]) -> bool {
        self.0.disk.as_ref().is_some_and(|disk| disk.as_bytes() == bytes)
    }

    /// Somebody else wrote the file, and that is in force now.
    pub(super) fn is_theirs(&mut self) {
        self.0.disk = None;
        self.0.unsaved = None;
    }
}

impl Place {
    fn text(&mut self) -> Result<String, EditError> {
        let disk = match &self.path {
            Some(path) => reload::read(path)
                .and_then(|bytes| String::from_utf8(bytes).map_err(|e| e.to_string()))
                .map_err(EditError::Unreadable)?,
            None => String::new(),
        };
        match &self.unsaved {
            Some(unsaved) if unsaved.over == disk => Ok(unsaved.text.clone()),
            _ => {
                // Somebody else wrote the file: that counts now.
                self.unsaved = None;
                Ok(disk)
            }
        }
    }

    /// Writes the file; the reason where it cannot be.
    fn write(&mut self, before: &str, text: &str) -> Option<String> {
        let Some(path) = &self.path else {
            self.unsaved = Some(Unsaved { over: String::new(), text: text.to_owned() });
            return Some("there is no configuration file".to_owned());
        };
        match write(path, text) {
            Ok(()) => {
                self.disk = Some(text.to_owned());
                self.unsaved = None;
                None
            }
            Err(error) => {
                let over = self.unsaved.take().map_or_else(|| before.to_owned(), |unsaved| unsaved.over);
                self.disk = Some(over.clone());
                self.unsaved = Some(Unsaved { over, text: text.to_owned() });
                Some(format!("{} cannot be written: {error}", path.display()))
            }
        }
    }
}

fn write(path: &std::path::Path, text: &str) -> io::Result<()> {
    // Replacing needs a writable folder only; who takes the right to write away means it.
    if std::fs::metadata(path)?.permissions().readonly() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is read-only"));
    }
    match atomic::write(path, text.as_bytes()) {
        // A file that is mounted by itself, as containers do, cannot be replaced, and its folder may be closed.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ResourceBusy
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::PermissionDenied
            ) =>
        {
            std::fs::write(path, text)
        }
        written => written,
    }
}

impl State {
    /// Changes the text of the configuration and puts it in force. `expected` is the tag of the text that the
    /// change is meant for. Reads and writes files: not for the threads of the data path.
    pub fn edit_config<E: From<EditError>>(
        &self,
        expected: Option<&str>,
        change: impl FnOnce(&str) -> Result<String, E>,
    ) -> Result<Edited, E> {
        let mut place = self.config_file.place.lock();
        let before = place.text()?;
        if expected.is_some_and(|tag| tag != "*" && tag != etag(&before)) {
            return Err(EditError::Stale.into());
        }
        let text = change(&before)?;
        if text == before {
            let unsaved = place.unsaved.as_ref().map(|_| "earlier changes could not be written".to_owned());
            return Ok(Edited { changed: Vec::new(), unsaved, etag: etag(&text) });
        }
        let invalid = |broken: config::Broken| {
            EditError::Invalid(broken.notices.iter().map(ToString::to_string).collect())
        };
        let loaded = config::load(text.as_bytes()).map_err(invalid)?;
        let unsaved = place.write(&before, &text);
        log::configure(&reload::logging(&loaded.config, place.path.as_deref()));
        let accounts = reload::accounts_for(&loaded.config, self);
        let changed = reload::put_in_force(loaded.config, accounts, self);
        if let Some(reason) = &unsaved
            && !self.config_file.told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("{reason}; changes count until the process ends");
        }
        tracing::info!("config changed by management: {}", reload::words(&changed));
        Ok(Edited { changed, unsaved, etag: etag(&text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::accounts::Accounts;
    use config::edit::rewrite;
    use serde_json::json;
    use std::path::Path;
    use std::sync::Arc;
    use testkit::scratch::Scratch;

    fn state(file: &Path) -> State {
        let text = std::fs::read_to_string(file).unwrap();
        let state = State::new(config::load(text.as_bytes()).unwrap().config, Accounts::default()).unwrap().0;
        state.config_file.is(Some(file.to_owned()), &text);
        state
    }

    fn retry(state: &State, value: u32) -> Result<Edited, EditError> {
        set(state, None, "request-retry", &json!(value))
    }

    fn set(
        state: &State,
        tag: Option<&str>,
        key: &str,
        value: &serde_json::Value,
    ) -> Result<Edited, EditError> {
        state.edit_config(tag, |text| Ok(rewrite(text, &[key], Some(value))?))
    }

    #[test]
    fn p50_fifty_changes_at_once_are_fifty_changes() {
        let scratch = Scratch::new();
        let file = scratch.file("config.yaml", "# keys\napi-keys: [k]\nown: kept # yes\n");
        let state = Arc::new(state(&file));
        let threads: Vec<_> = (0..50)
            .map(|n| {
                let state = Arc::clone(&state);
                std::thread::spawn(move || {
                    state.edit_config(None, |text| -> Result<_, EditError> {
                        let mut keys = config::edit::document(text)?["api-keys"].clone();
                        keys.as_array_mut().unwrap().push(json!(format!("key-{n}")));
                        Ok(rewrite(text, &["api-keys"], Some(&keys))?)
                    })
                })
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap().unwrap().unsaved, None);
        }
        assert_eq!(state.snapshot.load().config.auth.api_keys.len(), 51);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# keys\n") && text.contains("own: kept # yes"), "{text}");
        assert_eq!(config::load(text.as_bytes()).unwrap().config.auth.api_keys.len(), 51);
    }

    #[test]
    fn p50_a_stale_change_is_refused() {
        let scratch = Scratch::new();
        let file = scratch.file("config.yaml", "api-keys: [k]\n");
        let state = state(&file);
        let tag = etag(&state.config_file.text().unwrap());
        let set = |tag: &str, n: u32| set(&state, Some(tag), "request-retry", &json!(n));
        let edited = set(&tag, 7).unwrap();
        assert!(matches!(set(&tag, 8), Err(EditError::Stale)));
        assert_eq!(state.snapshot.load().config.routing.request_retry, 7);
        assert!(set(&edited.etag, 8).is_ok() && set("*", 9).is_ok());
    }

    #[test]
    fn row_131_what_cannot_be_written_counts_and_the_watcher_does_not_undo_it() {
        let scratch = Scratch::new();
        let file = scratch.file("config.yaml", "api-keys: [k]\n");
        let mut watched = reload::Watched::new(file.clone(), std::fs::read(&file).unwrap(), 0);
        let mut rights = std::fs::metadata(&file).unwrap().permissions();
        rights.set_readonly(true);
        std::fs::set_permissions(&file, rights.clone()).unwrap();
        let state = state(&file);
        let edited = retry(&state, 7).unwrap();
        assert!(edited.unsaved.unwrap().contains("cannot be written"));
        set(&state, None, "debug", &json!(true)).unwrap();
        assert_eq!(watched.look(&state), reload::Outcome::Same);
        let now = state.snapshot.load_full();
        assert_eq!((now.config.routing.request_retry, now.config.logging.debug), (7, true));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "api-keys: [k]\n");
        // One who looked away during a change that was written has seen nothing new either.
        let away = scratch.path().join("away.yaml");
        std::fs::rename(&file, &away).unwrap();
        let mut late = reload::Watched::new(file.clone(), Vec::new(), 0);
        std::fs::rename(&away, &file).unwrap();
        assert_eq!(late.look(&state), reload::Outcome::Same);
        assert!(state.snapshot.load().config.logging.debug);
        // Who replaces the file has the last word.
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, "api-keys: [k, l]\n").unwrap();
        watched.look(&state);
        assert_eq!(retry(&state, 5).unwrap().unsaved, None);
        assert!(!state.snapshot.load().config.logging.debug);
    }

    #[test]
    fn p50_a_look_at_the_file_does_not_undo_a_change_that_was_made_meanwhile() {
        let scratch = Scratch::new();
        let file = scratch.file("config.yaml", "api-keys: [k]\n");
        let state = Arc::new(state(&file));
        let mut watched = reload::Watched::new(file.clone(), Vec::new(), 0);
        let mut place = state.config_file.place.lock();
        let looking = {
            let state = Arc::clone(&state);
            std::thread::spawn(move || watched.look(&state))
        };
        // Time to read the file as it is; without it the test says less, but nothing wrong.
        std::thread::sleep(std::time::Duration::from_millis(100));
        let newer = "api-keys: [k]\nrequest-retry: 7\n";
        assert_eq!(place.write("api-keys: [k]\n", newer), None);
        let config = config::load(newer.as_bytes()).unwrap().config;
        reload::put_in_force(config, Accounts::default(), &state);
        drop(place);
        assert_eq!(looking.join().unwrap(), reload::Outcome::Same);
        assert_eq!(state.snapshot.load().config.routing.request_retry, 7);
    }

    #[test]
    fn what_would_be_broken_is_refused() {
        let scratch = Scratch::new();
        let file = scratch.file("config.yaml", "api-keys: [k]\n");
        let state = state(&file);
        let wrong = set(&state, None, "port", &json!("many"));
        assert!(matches!(wrong, Err(EditError::Invalid(_))));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "api-keys: [k]\n");
    }
}
