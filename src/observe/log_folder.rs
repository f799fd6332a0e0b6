//! Request logs in the folder of the logs.
//!
//! Enters: the text of a log, and what it is about. Leaves: a file
//! `[error-]<path with - for />-<YYYY-MM-DDTHHMMSS>-<request id>.log`, its owner's alone, while the oldest ones
//! go when there are too many. May go wrong: the folder cannot be made or written, the disk is full; nothing is
//! kept then.
//!
//! Names are told by their whole shape: other files of the folder are neither shown nor removed.

use jiff::Timestamp;
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// What the logs of failures begin with.
const ERROR: &str = "error-";
/// Longest part of a name that a path may be.
const PATH: usize = 120;
/// Length of the time in a name: `2026-11-21T043700`.
const TIME: usize = 17;
/// Length of the id in a name.
const ID: usize = 32;
/// Bytes of request logs where the operator names no bound.
const DEFAULT_BYTES: u64 = 1 << 30;
/// Files after which the folder is counted anew: others write there too.
const RECOUNT: u32 = 64;
/// Largest file that is read: what one request may leave, several times over.
const LARGEST: u64 = 64 << 20;

/// The name of a log. `id` is 32 hex digits.
pub fn name(failed: bool, path: &str, at: Timestamp, id: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() || "._".contains(c) { c } else { '-' };
    let path: String = path.trim_matches('/').chars().take(PATH).map(letter).collect();
    let path = if path.is_empty() { "root" } else { &path };
    let error = if failed { ERROR } else { "" };
    format!("{error}{path}-{}-{id}.log", at.strftime("%Y-%m-%dT%H%M%S"))
}

/// Whether a name is that of a log of a failure.
pub fn is_error(name: &str) -> bool {
    name.starts_with(ERROR) && id_of(name).is_some()
}

/// The id in a name; `None`: it is no name of ours.
fn id_of(name: &str) -> Option<&str> {
    let (front, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
    let time = front.get(front.len().checked_sub(TIME)?..)?;
    let digits = |c: char| if c.is_ascii_digit() { '0' } else { c };
    let shape: String = time.chars().map(digits).collect();
    let hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    (shape == "0000-00-00T000000" && id.len() == ID && id.chars().all(hex)).then_some(id)
}

/// A log that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970 at which it was written.
    pub modified: u64,
}

/// The logs of a folder, the newest first. A folder that is not there has none.
pub fn list(folder: &Path) -> Vec<Found> {
    // Version 7 ids sort by time.
    let mut found: Vec<(String, Found)> = names(folder)
        .filter_map(|(name, entry)| {
            let about = entry.metadata().ok()?;
            let modified = about.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let modified = modified.unwrap_or_default().as_secs();
            Some((id_of(&name)?.to_owned(), Found { name, size: about.len(), modified }))
        })
        .collect();
    found.sort_by(|a, b| b.0.cmp(&a.0));
    found.into_iter().map(|(_, found)| found).collect()
}

/// The log of a request: the one whose name ends with its id.
pub fn of_request(folder: &Path, id: &str) -> Option<String> {
    names(folder).map(|(name, _)| name).find(|name| id_of(name) == Some(id))
}

/// Regular files of ours. Links are none.
fn names(folder: &Path) -> impl Iterator<Item = (String, std::fs::DirEntry)> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        (id_of(&name).is_some() && entry.file_type().ok()?.is_file()).then_some((name, entry))
    })
}

/// Reads a log by its name. What a link leads to is not there.
pub fn read(folder: &Path, name: &str) -> io::Result<Vec<u8>> {
    let path = folder.join(ours(name)?);
    let about = std::fs::symlink_metadata(&path)?;
    let file = if about.is_file() { File::open(&path)? } else { return Err(io::ErrorKind::NotFound.into()) };
    let opened = file.metadata()?;
    // Somebody may have put another one in its place meanwhile.
    if (opened.dev(), opened.ino()) != (about.dev(), about.ino()) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Removes a log by its name.
pub fn remove(folder: &Path, name: &str) -> io::Result<()> {
    let path = folder.join(ours(name)?);
    if !std::fs::symlink_metadata(&path)?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    std::fs::remove_file(path)
}

/// A name that leads nowhere else.
fn ours(name: &str) -> io::Result<&str> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if plain && id_of(name).is_some() { Ok(name) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// How much a folder may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Logs of failures; 0: any number.
    pub errors: usize,
    /// Bytes of all log files, those of the main log included; 0: 1 GiB of request logs.
    pub bytes: u64,
}

/// The folder, as who writes to it knows it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// What is there, as far as it was counted.
    errors: usize,
    bytes: u64,
    /// Files until it is counted anew.
    left: u32,
}

impl Folder {
    /// A folder, which is made when something is written.
    pub fn new(path: PathBuf) -> Self {
        Self { path, errors: 0, bytes: 0, left: 0 }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a log and removes the oldest where there are too many.
    pub fn write(&mut self, name: &str, text: &[u8], caps: Caps) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let path = self.path.join(name);
        // Not replaced as a whole, as files of the state are: half a log after a crash is better than none.
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text));
        if let Err(error) = written {
            if error.kind() != io::ErrorKind::AlreadyExists {
                // What is there of it would only take the room that is missing.
                let _ = std::fs::remove_file(&path);
            }
            return Err(error);
        }
        self.errors += usize::from(is_error(name));
        self.bytes += text.len() as u64;
        if caps.errors > 0 && (self.errors > caps.errors || self.left == 0) {
            self.errors = cap(&self.path, caps.errors)?;
        }
        let most = if caps.bytes == 0 { DEFAULT_BYTES } else { caps.bytes };
        if self.bytes > most || self.left == 0 {
            self.bytes = make_room(&self.path, caps.bytes)?;
            self.left = RECOUNT;
        }
        self.left -= 1;
        Ok(())
    }
}

/// Removes the oldest logs of failures until `most` are left, and tells how many there are.
fn cap(folder: &Path, most: usize) -> io::Result<usize> {
    let newest_first: BTreeSet<(String, String)> = names(folder)
        .filter(|(name, _)| is_error(name))
        .filter_map(|(name, _)| Some((id_of(&name)?.to_owned(), name)))
        .collect();
    for (_, name) in newest_first.iter().rev().skip(most) {
        std::fs::remove_file(folder.join(name))?;
    }
    Ok(newest_first.len().min(most))
}

/// Removes the oldest files until the rest fits, and tells its bytes. The newest request log and `main.log`
/// stay.
fn make_room(folder: &Path, most: u64) -> io::Result<u64> {
    let logs = list(folder);
    let newest = logs.first().map(|found| found.name.clone());
    let mut files: Vec<(u64, String, u64)> =
        logs.into_iter().map(|found| (found.modified, found.name, found.size)).collect();
    if most > 0 {
        files.extend(main_logs(folder));
    }
    let most = if most == 0 { DEFAULT_BYTES } else { most };
    let mut total: u64 = files.iter().map(|(_, _, size)| size).sum();
    if total <= most {
        return Ok(total);
    }
    // The oldest first; names hold the time, where the clock of the disk cannot tell.
    files.sort();
    for (_, name, size) in files {
        // A little more than is needed, so that not each further file counts the folder.
        if total <= most - most / 10 {
            break;
        }
        if name != "main.log" && Some(&name) != newest.as_ref() {
            std::fs::remove_file(folder.join(name))?;
            total -= size;
        }
    }
    Ok(total)
}

/// Files of the main log.
fn main_logs(folder: &Path) -> impl Iterator<Item = (u64, String, u64)> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let main = name == "main.log"
            || name.strip_prefix("main-").is_some_and(|name| name.strip_suffix(".log").is_some());
        let about = entry.metadata().ok().filter(|about| main && about.is_file())?;
        let modified = about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some((modified.as_secs(), name, about.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use testkit::scratch::Scratch;

    fn id(n: usize) -> String {
        format!("{n:032x}")
    }

    fn at() -> Timestamp {
        "2026-11-21T04:37:00Z".parse().unwrap()
    }

    #[test]
    fn p65_names_hold_path_time_and_id_whatever_the_path_is() {
        let name = |path: &str| name(true, path, at(), &id(1));
        let end = format!("-2026-11-21T043700-{}.log", id(1));
        for (path, begin) in [
            ("/v1/chat/completions", "error-v1-chat-completions"),
            ("/v1beta/models/m:generateContent", "error-v1beta-models-m-generateContent"),
            ("/", "error-root"),
            ("/../../etc/x", "error-..-..-etc-x"),
            ("/a\n\u{1b}[31mb\0\u{202e}c", "error-a---31mb--c"),
        ] {
            assert_eq!(name(path), format!("{begin}{end}"));
            assert!(is_error(&name(path)) && ours(&name(path)).is_ok());
        }
        assert!(name(&"x/".repeat(500)).len() < 255);
        for foreign in
            ["error.log", "error-2026.log", "main-20261121T000000.000000.log", "error-nginx-access.log"]
        {
            assert_eq!(id_of(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn p54_the_newest_failures_stay_and_are_their_owners() {
        let scratch = Scratch::new();
        let path = scratch.path().join("logs");
        let mut folder = Folder::new(path.clone());
        let caps = Caps { errors: 3, bytes: 0 };
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("error-of-somebody.log"), "x").unwrap();
        for n in 0..200 {
            // Names of other paths sort differently.
            folder
                .write(&name(true, if n % 2 == 0 { "/a" } else { "/b" }, at(), &id(n)), b"x", caps)
                .unwrap();
        }
        folder.write(&name(false, "/a", at(), &id(999)), b"x", caps).unwrap();
        let left: Vec<String> = list(&path).into_iter().map(|found| found.name).collect();
        let ids: Vec<&str> = left.iter().filter_map(|name| id_of(name)).collect();
        assert_eq!(ids, [id(999), id(199), id(198), id(197)]);
        assert!(path.join("error-of-somebody.log").exists(), "what is not ours stays");
        let mode = path.join(&left[0]).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn all_log_files_fit_in_their_bytes_and_the_oldest_go() {
        let scratch = Scratch::new();
        scratch.file("main.log", &"m".repeat(400));
        let old = scratch.file("main-20261121T000000.000000.log", &"o".repeat(400));
        let past = std::time::SystemTime::now() - std::time::Duration::from_hours(1);
        File::options().write(true).open(&old).unwrap().set_modified(past).unwrap();
        let mut folder = Folder::new(scratch.path().to_owned());
        for n in 0..70 {
            let caps = Caps { errors: 0, bytes: 1500 };
            folder.write(&name(false, "/a", at(), &id(n)), &[b'r'; 100], caps).unwrap();
            let total: u64 = std::fs::read_dir(scratch.path())
                .unwrap()
                .flatten()
                .map(|entry| entry.metadata().unwrap().len())
                .sum();
            assert!(total <= 1500, "{n}: {total}");
        }
        assert!(!old.exists() && scratch.path().join("main.log").exists());
        let left = list(scratch.path());
        assert!(left.len() >= 5 && left[0].name.contains(&id(69)), "{left:?}");
        folder
            .write(&name(false, "/a", at(), &id(70)), &[b'r'; 9000], Caps { errors: 0, bytes: 1500 })
            .unwrap();
        assert_eq!(list(scratch.path()).len(), 1, "the newest stays");
    }

    #[test]
    fn p58_only_regular_files_of_ours_are_read_and_removed() {
        let scratch = Scratch::new();
        let folder = scratch.path();
        let (good, link) = (name(true, "/a", at(), &id(1)), name(true, "/a", at(), &id(2)));
        scratch.file(&good, "text");
        let secret = scratch.file("secret.log", "CANARY");
        std::os::unix::fs::symlink(&secret, folder.join(&link)).unwrap();
        assert_eq!(read(folder, &good).unwrap(), b"text");
        assert_eq!(list(folder).len(), 1, "a link is none");
        assert_eq!(of_request(folder, &id(1)), Some(good.clone()));
        assert_eq!(of_request(folder, &id(2)), None);
        let outside = format!("../{}/{good}", folder.file_name().unwrap().to_str().unwrap());
        for bad in [&link, "secret.log", "main.log", "", ".", "..", &outside, &format!("{good}\0")] {
            assert!(read(folder, bad).is_err() && remove(folder, bad).is_err(), "{bad:?}");
        }
        remove(folder, &good).unwrap();
        assert!(list(folder).is_empty() && secret.exists());
        assert!(list(&folder.join("none")).is_empty());
    }
}
