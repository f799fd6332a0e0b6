//! A configuration file and all that it names: accounts, files with keys.
//!
//! Enters: the bytes of the file. Leaves: [`Read`], with what is worth a warning. May go wrong: the file is
//! broken; each mistake has its line. What it names may be missing: then a warning says what is not served.

use super::accounts::{self, Accounts};
use super::read::regular;
use config::{Block, Config, Telemetry};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Largest file with a key.
const KEY_FILE: usize = 64 << 10;
/// Most files that one warning names.
const NAMED: usize = 5;

/// What a file says.
#[derive(Clone, Debug)]
pub struct Read {
    /// The configuration, with the keys of its `token-file`s in it.
    pub config: Config,
    /// The accounts of its folder.
    pub accounts: Accounts,
    /// What should be looked at, one sentence each.
    pub warnings: Vec<String>,
    /// [`stamp`] from before the files were read.
    pub stamp: u64,
}

/// Reads a configuration; `name` is what messages call it. The error is one line per mistake.
pub fn load(bytes: &[u8], name: &str) -> Result<Read, Vec<String>> {
    let loaded = config::load(bytes);
    let loaded = loaded.map_err(|broken| {
        broken.notices.iter().map(|notice| notice.in_file(name).to_string()).collect::<Vec<_>>()
    })?;
    let mut warnings: Vec<String> = loaded.warnings.iter().map(|w| w.in_file(name).to_string()).collect();
    let mut config = loaded.config;
    // Taken first: what changes while the files are read is seen at the next look.
    let stamp = stamp(&config);
    for problem in read_keys(&mut config) {
        warnings.push(format!("{name}: {problem}"));
    }
    let folder = accounts::folder(&config.auth.auth_dir);
    let accounts = accounts::scan(&folder);
    warnings.extend(told(&folder, &accounts, &Accounts::default()));
    warnings.extend(untraced(&config.telemetry).map(|text| format!("{name}: {text}")));
    warnings.extend(pool::unserved(&config, &accounts.good).iter().map(|text| format!("{name}: {text}")));
    Ok(Read { config, accounts, warnings, stamp })
}

/// Why no traces are sent, although the file speaks of them.
fn untraced(telemetry: &Telemetry) -> Option<&'static str> {
    if *telemetry == Telemetry::default() {
        None
    } else if cfg!(not(feature = "otlp")) {
        Some("telemetry has no effect: this program was built without traces (cargo build --features otlp)")
    } else if telemetry.otlp_endpoint.is_none() {
        Some("telemetry has no effect: it has no otlp-endpoint")
    } else {
        None
    }
}

/// What is wrong with the files of a folder, without what was known before.
pub(super) fn told(folder: &Path, now: &Accounts, before: &Accounts) -> Vec<String> {
    let new = now.bad.iter().filter(|bad| !before.bad.contains(bad));
    let mut told: Vec<_> =
        new.map(|(file, reason)| format!("{}: {reason}", folder.join(file).display())).collect();
    let open: Vec<_> =
        now.open.iter().filter(|file| !before.open.contains(file)).map(String::as_str).collect();
    if !open.is_empty() {
        let more = if open.len() > NAMED { ", …" } else { "" };
        let names = open.get(..NAMED).unwrap_or(&open).join(", ");
        let folder = folder.display();
        told.push(format!(
            "{folder}: others can read accounts, take that away (chmod 700 the folder, 600 its files): {names}{more}"
        ));
    }
    told
}

/// The files with keys that a configuration names.
fn key_files(config: &Config) -> impl Iterator<Item = PathBuf> {
    let entries = Block::ALL.iter().flat_map(|block| config.providers.entries(*block));
    entries.filter(|entry| !entry.token_file.is_empty()).map(|entry| accounts::folder(&entry.token_file))
}

/// Puts the keys of files in the places of the entries that name them; what went wrong, one sentence each.
fn read_keys(config: &mut Config) -> Vec<String> {
    let mut problems = Vec::new();
    for block in Block::ALL {
        for (n, entry) in config.providers.entries_mut(*block).iter_mut().enumerate() {
            if entry.token_file.is_empty() || !entry.api_key.is_empty() {
                continue;
            }
            let read = regular(&accounts::folder(&entry.token_file), KEY_FILE);
            match read.and_then(|bytes| config::read_key_file(&bytes)) {
                Ok(key) => entry.api_key = key,
                Err(reason) => problems.push(format!("{}[{n}].token-file: {reason}", block.key())),
            }
        }
    }
    problems
}

/// What tells accounts and keys from themselves after a change, without reading the files.
pub(super) fn stamp(config: &Config) -> u64 {
    let folder = accounts::folder(&config.auth.auth_dir);
    let mut hasher = DefaultHasher::new();
    accounts::stamp(&folder).hash(&mut hasher);
    for file in key_files(config) {
        let about = std::fs::metadata(&file).ok();
        (file, about.map(|a| (a.len(), a.mtime(), a.mtime_nsec(), a.ino()))).hash(&mut hasher);
    }
    hasher.finish()
}

/// Whether a configuration names files with keys.
pub(super) fn has_key_files(config: &Config) -> bool {
    key_files(config).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::scratch::Scratch;

    #[test]
    fn keys_come_from_files() {
        let scratch = Scratch::new();
        let bare = scratch.file("bare", "sk-canary\n");
        let json = scratch.file("json", r#"{"access_token":"","api_key":"sk-json"}"#);
        let text = format!(
            "auth-dir: {}\ngroq: [{{token-file: '{}', models: [{{name: m}}]}}, {{token-file: '{}', models: [{{name: n}}]}}, {{token-file: /none, models: [{{name: o}}]}}]\n",
            scratch.path().join("none").display(),
            bare.display(),
            json.display()
        );
        let read = load(text.as_bytes(), "c").unwrap();
        let keys: Vec<_> = read.config.providers.groq.iter().map(|e| e.api_key.expose_secret()).collect();
        assert_eq!(keys, ["sk-canary", "sk-json", ""]);
        assert!(read.warnings.iter().any(|w| w.contains("groq[2].token-file: cannot be read")));
        assert!(!format!("{read:?}").contains("sk-canary"));
        assert_eq!(stamp(&read.config), read.stamp);
        std::fs::write(&bare, "another key").unwrap();
        assert_ne!(stamp(&read.config), read.stamp, "a key that changes is seen");
    }

    #[test]
    fn row_42_a_global_proxy_that_cannot_be_used_is_told_with_its_source() {
        let read = load(b"proxy-url: 'ftp://u:canary@x'\nauth-dir: /none\n", "c").unwrap();
        let told: Vec<_> = read.warnings.iter().filter(|w| w.contains("proxy config invalid")).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].contains("unsupported proxy scheme") && told[0].contains("source=global"),
            "{told:?}"
        );
        assert!(!told[0].contains("canary"));
    }
}
