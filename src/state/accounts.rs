//! The folder of accounts (`auth-dir`).
//!
//! Enters: a folder. Leaves: the accounts that its `*.json` files hold, and for each other file the reason why
//! it is not served. May go wrong: per file, never for the others.

use super::read::regular;
use config::{Account, MAX_ACCOUNT_BYTES};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Permissions of the owner's group and of everybody else.
const OTHERS: u32 = 0o077;

/// What a folder holds, in the order of the names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accounts {
    /// Those that can be served.
    pub good: Vec<Account>,
    /// File names and what is wrong with them.
    pub bad: Vec<(String, String)>,
    /// Names of the files, and the folder's, that others than their owner can read.
    pub open: Vec<String>,
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
    if is_open(folder) {
        accounts.open.push(folder.display().to_string());
    }
    let mut names: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    names.sort();
    let mut known = Known::default();
    for file in names {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || !name.to_ascii_lowercase().ends_with(".json") {
            continue;
        }
        let read = known.name(&name).and_then(|()| read_one(folder, &name));
        match read.and_then(|account| known.login(account)) {
            Ok(account) => {
                if is_open(&file) {
                    accounts.open.push(name);
                }
                accounts.good.push(account);
            }
            Err(reason) => accounts.bad.push((name, reason)),
        }
    }
    accounts
}

/// Reads the account of one file of a folder.
pub fn read_one(folder: &Path, name: &str) -> Result<Account, String> {
    bytes(folder, &folder.join(name)).and_then(|bytes| config::read_account(name, &bytes))
}

fn is_open(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|about| about.mode() & OTHERS != 0)
}

/// What the files before one were.
#[derive(Default)]
struct Known {
    names: HashMap<String, String>,
    logins: HashMap<[String; 3], String>,
}

impl Known {
    /// Refuses a name that means the same file as another one where cases are not told apart.
    fn name(&mut self, name: &str) -> Result<(), String> {
        if name.contains(char::REPLACEMENT_CHARACTER) {
            return Err("its name is not UTF-8".to_owned());
        }
        if let Some(other) = self.names.get(&normal(name)) {
            return Err(format!("its name is that of {other} on systems that do not tell cases apart"));
        }
        self.names.insert(normal(name), name.to_owned());
        Ok(())
    }

    /// Refuses a login that another file has: the first of the two that renews ends the other one.
    fn login(&mut self, account: Account) -> Result<Account, String> {
        if account.refresh_token.is_empty() {
            return Ok(account);
        }
        let refresh = account.refresh_token.expose_secret().to_owned();
        let login = [account.channel.clone(), refresh, account.scope.clone()];
        if let Some(other) = self.logins.get(&login) {
            return Err(format!("it holds the same login as {other}"));
        }
        self.logins.insert(login, account.file.clone());
        Ok(account)
    }
}

/// A name as Windows takes it: without case, and without dots and blanks at the end of its parts.
fn normal(name: &str) -> String {
    let stem = name.get(..name.len().saturating_sub(5)).unwrap_or(name);
    stem.trim_end_matches(['.', ' ']).to_lowercase()
}

/// What tells a folder from itself after a change, without reading the files: names, sizes, times, inodes.
pub fn stamp(folder: &Path) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
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
pub fn bytes(folder: &Path, file: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    // Mounted secrets are links within their folder; a link out of it might lead to anything.
    let target = file.canonicalize().map_err(failed)?;
    if !target.starts_with(folder.canonicalize().map_err(failed)?) {
        return Err("it is a link that leads out of the folder".to_owned());
    }
    regular(&target, MAX_ACCOUNT_BYTES)
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
        assert_eq!(found.open.len(), 4, "the folder and three files: {:?}", found.open);
        let bad: Vec<_> = found.bad.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(bad, ["folder.json", "half.json", "huge.json", "link.json", "pipe.json"]);
        assert!(found.bad[3].1.contains("leads out"), "{:?}", found.bad[3]);
        assert_eq!(scan(&scratch.path().join("nothing")), Accounts::default());
    }
    #[test]
    fn p43_two_files_of_one_name_or_one_login_are_one_account() {
        let scratch = Scratch::new();
        let account =
            |refresh: &str| format!(r#"{{"type":"kimi","access_token":"x","refresh_token":"{refresh}"}}"#);
        for (name, refresh) in
            [("A.json", "1"), ("a.json", "2"), ("a..json", "3"), ("b.json", "4"), ("copy.json", "4")]
        {
            scratch.file(name, &account(refresh));
        }
        let found = scan(scratch.path());
        let good: Vec<_> = found.good.iter().map(|account| account.file.as_str()).collect();
        assert_eq!(good, ["A.json", "b.json"]);
        let why = |name: &str| found.bad.iter().find(|(bad, _)| bad == name).unwrap().1.clone();
        assert!(why("a.json").contains("that of A.json") && why("a..json").contains("that of A.json"));
        assert!(why("copy.json").contains("same login as b.json") && !why("copy.json").contains('4'));
    }

    #[test]
    fn p43_mounted_secrets_are_links_within_their_folder() {
        // What Kubernetes makes of a secret: a.json -> ..data/a.json, ..data -> ..2026_11_21
        let scratch = Scratch::new();
        let version = scratch.path().join("..2026_11_21");
        std::fs::create_dir(&version).unwrap();
        std::fs::write(version.join("a.json"), r#"{"type":"claude","access_token":"x"}"#).unwrap();
        std::os::unix::fs::symlink("..2026_11_21", scratch.path().join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.json", scratch.path().join("a.json")).unwrap();
        let found = scan(scratch.path());
        assert_eq!((found.good.len(), found.bad.len()), (1, 0), "{:?}", found.bad);
    }

    #[test]
    fn p54_files_of_their_owner_alone_are_not_told() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = Scratch::new();
        let file = scratch.file("a.json", r#"{"type":"claude","access_token":"x"}"#);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o700)).unwrap();
        assert!(scan(scratch.path()).open.is_empty());
    }
}
