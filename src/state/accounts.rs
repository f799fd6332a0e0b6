//! The folder of accounts (`auth-dir`).
//!
//! Enters: a folder. Leaves: the accounts that its `*.json` files hold, and for each other file the reason why
//! it is not served. May go wrong: per file, never for the others.

use config::{Account, MAX_ACCOUNT_BYTES};
use std::io::Read;
use std::path::{Path, PathBuf};

/// What a folder holds, in the order of the names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accounts {
    /// Those that can be served.
    pub good: Vec<Account>,
    /// File names and what is wrong with them.
    pub bad: Vec<(String, String)>,
}

/// The folder that a setting means: `~` is the home of whoever runs the process.
pub fn folder(setting: &str) -> PathBuf {
    match setting.strip_prefix("~/").zip(std::env::var_os("HOME")) {
        Some((rest, home)) => Path::new(&home).join(rest),
        None => PathBuf::from(setting),
    }
}

/// Reads a folder. One that is not there is empty.
pub fn scan(folder: &Path) -> Accounts {
    let mut accounts = Accounts::default();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                accounts.bad.push((folder.display().to_string(), format!("cannot be read: {error}")));
            }
            return accounts;
        }
    };
    let mut names: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    names.sort();
    for file in names {
        let Some(name) = file.file_name().and_then(|name| name.to_str()) else { continue };
        if name.starts_with('.') || !name.to_ascii_lowercase().ends_with(".json") {
            continue;
        }
        match read(folder, &file).and_then(|bytes| config::read_account(name, &bytes)) {
            Ok(account) => accounts.good.push(account),
            Err(reason) => accounts.bad.push((name.to_owned(), reason)),
        }
    }
    accounts
}

/// What tells a folder from itself after a change, without reading the files: names, sizes, times, inodes.
pub fn stamp(folder: &Path) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    use std::os::unix::fs::MetadataExt;
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            // Of a link its target: that is what changes.
            let about = std::fs::metadata(entry.path()).ok();
            (entry.file_name(), about.map(|a| (a.len(), a.mtime(), a.mtime_nsec(), a.ino())))
        })
        .collect();
    entries.sort();
    let mut hasher = DefaultHasher::new();
    (folder, entries).hash(&mut hasher);
    hasher.finish()
}

/// The bytes of a regular file within the folder.
pub(super) fn read(folder: &Path, file: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    // Mounted secrets are links within their folder; a link out of it might lead to anything.
    let target = file.canonicalize().map_err(failed)?;
    if !target.starts_with(folder.canonicalize().map_err(failed)?) {
        return Err("it is a link that leads out of the folder".to_owned());
    }
    // Asked before it is opened: opening a pipe would wait for its writer.
    if !std::fs::metadata(&target).map_err(failed)?.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let limit = MAX_ACCOUNT_BYTES as u64 + 1;
    std::fs::File::open(&target).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::scratch::Scratch;

    #[test]
    fn p43_a_file_that_cannot_be_used_says_why_and_the_others_serve() {
        let outside = Scratch::new();
        let secret = outside.file("target.json", r#"{"type":"claude","access_token":"x"}"#);
        let scratch = Scratch::new();
        scratch.file("b.json", r#"{"type":"claude","access_token":"x"}"#);
        scratch.file("a.JSON", r#"{"type":"codex","access_token":"x"}"#);
        scratch.file("half.json", r#"{"type":"claude","acc"#);
        scratch.file("notes.txt", "x");
        scratch.file(".oauth.json", "x");
        scratch.file("huge.json", &" ".repeat(MAX_ACCOUNT_BYTES + 10));
        std::fs::create_dir(scratch.path().join("folder.json")).unwrap();
        std::os::unix::fs::symlink(&secret, scratch.path().join("link.json")).unwrap();
        std::os::unix::fs::symlink(scratch.path().join("b.json"), scratch.path().join("near.json")).unwrap();
        let made =
            std::process::Command::new("mkfifo").arg(scratch.path().join("pipe.json")).status().unwrap();
        assert!(made.success());
        let found = scan(scratch.path());
        let good: Vec<_> = found.good.iter().map(|account| account.file.as_str()).collect();
        assert_eq!(good, ["a.JSON", "b.json", "near.json"]);
        let bad: Vec<_> = found.bad.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(bad, ["folder.json", "half.json", "huge.json", "link.json", "pipe.json"]);
        assert!(found.bad[3].1.contains("leads out"), "{:?}", found.bad[3]);
        assert_eq!(scan(&scratch.path().join("nothing")), Accounts::default());
    }
}
