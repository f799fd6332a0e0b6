//! Account files as a list.
//!
//! Enters: the folder, the pool. Leaves: one element per file, also for those that cannot be served, with the
//! reason. Tokens stay where they are. Nothing may go wrong.

use super::requests::recent;
use crate::state::State;
use crate::state::renew::LoginState;
use config::Account;
use jiff::Timestamp;
use pool::{CredentialSpec, Status, renewal};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The name of a credential in URLs: sixteen hex digits, the same after a restart.
pub(super) fn auth_index(id: &str) -> String {
    let mut index = String::with_capacity(16);
    for byte in Sha256::digest(id.as_bytes()).iter().take(8) {
        // Writing to a string cannot fail.
        let _ = write!(index, "{byte:02x}");
    }
    index
}

/// All account files, sorted by name.
pub(super) fn files(state: &State) -> Vec<Value> {
    let snapshot = state.snapshot.load_full();
    let accounts = state.accounts();
    let folder = state.accounts_folder();
    let specs = state.credentials();
    let models: HashMap<&str, usize> = specs
        .iter()
        .map(|spec| (spec.id.as_str(), names(spec, snapshot.config.models.force_model_prefix).len()))
        .collect();
    let pool = state.pool.credentials(state.now());
    let lately = state.pool.recent(state.now());
    let standing: HashMap<&str, &Status> = pool.iter().map(|status| (status.id.as_str(), status)).collect();
    let now_s = state.now().wall_s;
    let mut files: Vec<Value> = accounts
        .good
        .iter()
        .map(|account| {
            let count = models.get(account.file.as_str()).copied();
            let status = standing.get(account.file.as_str()).copied();
            let login = state.login_state(&account.file);
            let mut file = served(&folder, account, status, &login, count, now_s);
            let buckets = status.and_then(|status| lately.get(&status.id));
            file["recent_requests"] = buckets.map_or_else(|| json!([]), recent);
            if status.and_then(|status| state.listing(&status.id)).is_some_and(|listing| listing.stale) {
                file["models_stale"] = true.into();
            }
            file
        })
        .collect();
    files.extend(accounts.bad.iter().map(|(name, reason)| broken(&folder, name, reason)));
    files.sort_by(|a, b| text(a, "name").cmp(text(b, "name")));
    files
}

/// The names by which clients reach the models of a credential.
pub(super) fn names(spec: &CredentialSpec, forced: bool) -> Vec<String> {
    let prefix = spec.prefix.as_deref().filter(|prefix| !prefix.is_empty());
    let mut names = Vec::new();
    for model in spec.models.models() {
        if prefix.is_none() || !forced {
            names.push(model.alias.to_string());
        }
        if let Some(prefix) = prefix {
            names.push(format!("{prefix}/{}", model.alias));
        }
    }
    names.sort();
    names.dedup();
    names
}

/// A member that is text; empty where there is none.
pub(super) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// What every element has.
fn common(folder: &Path, name: &str) -> Map<String, Value> {
    let path = folder.join(name);
    let about = std::fs::metadata(&path).ok();
    let changed = about.as_ref().and_then(|about| Timestamp::from_second(about.mtime()).ok());
    let index = auth_index(name);
    let mut members = Map::new();
    for (key, value) in [
        ("id", json!(name)),
        ("name", json!(name)),
        ("filename", json!(name)),
        ("auth_index", json!(index)),
        ("index", json!(index)),
        ("runtime_only", json!(false)),
        ("source", json!("file")),
        ("path", json!(path)),
        ("size", json!(about.as_ref().map_or(0, std::fs::Metadata::len))),
        ("modtime", json!(changed)),
        ("updated_at", json!(changed)),
    ] {
        members.insert(key.to_owned(), value);
    }
    members
}

fn broken(folder: &Path, name: &str, reason: &str) -> Value {
    let mut members = common(folder, name);
    // The words of the runbooks, for the commonest reason.
    let reason = reason
        .strip_prefix("it is not JSON")
        .map_or_else(|| reason.to_owned(), |place| format!("invalid JSON{place}"));
    for (key, value) in [
        ("type", json!("unknown")),
        ("provider", json!("unknown")),
        ("label", json!(name)),
        ("status", json!("error")),
        ("status_message", json!(reason)),
        ("disabled", json!(false)),
        ("unavailable", json!(true)),
        ("refresh_state", json!("none")),
        ("models", json!(0)),
        ("success", json!(0)),
        ("failed", json!(0)),
    ] {
        members.insert(key.to_owned(), value);
    }
    members.into()
}

fn served(
    folder: &Path,
    account: &Account,
    status: Option<&Status>,
    login: &LoginState,
    models: Option<usize>,
    now_s: u64,
) -> Value {
    let mut members = common(folder, &account.file);
    let settings = &account.settings;
    let rest = status
        .and_then(|status| status.cooling.iter().find(|(model, _)| model.is_none()))
        .map(|(_, rest)| rest);
    let (word, message) = match (models, rest) {
        (None, _) => ("error", format!("this version does not speak to `{}`", account.channel)),
        _ if settings.disabled => ("disabled", String::new()),
        _ if login.needs_login => ("error", format!("log in again: {}", login.problem)),
        (_, Some(rest)) => {
            ("error", format!("rests {} s after {}", rest.left_ms.div_ceil(1000), rest.class.name()))
        }
        _ => ("active", String::new()),
    };
    let owner = if account.owner.is_empty() { &account.file } else { &account.owner };
    let moment = |seconds: u64| Timestamp::from_second(i64::try_from(seconds).unwrap_or(i64::MAX)).ok();
    let expires = account.expires.as_ref().and_then(renewal::expires_s);
    for (key, value) in [
        ("type", json!(account.channel)),
        ("provider", json!(account.channel)),
        ("label", json!(owner)),
        ("status", json!(word)),
        ("status_message", json!(message)),
        ("disabled", json!(settings.disabled)),
        ("unavailable", json!(models.is_none() || rest.is_some())),
        ("account_type", json!(if account.is_token { "oauth" } else { "api_key" })),
        ("account", json!(account.owner)),
        ("success", json!(status.map_or(0, |status| status.succeeded))),
        ("failed", json!(status.map_or(0, |status| status.failed))),
        ("models", json!(models.unwrap_or(0))),
        ("expires_at", json!(expires.and_then(moment))),
        ("refresh_state", json!(refresh_state(account, login, expires, now_s))),
        ("last_refresh", json!(last_refresh(&folder.join(&account.file)))),
        ("priority", json!(settings.priority)),
        ("weight", json!(settings.weight.0)),
    ] {
        members.insert(key.to_owned(), value);
    }
    let more = [
        ("email", account.owner.contains('@').then(|| json!(account.owner))),
        ("note", (!settings.note.is_empty()).then(|| json!(settings.note))),
        ("prefix", (!settings.prefix.is_empty()).then(|| json!(settings.prefix))),
        ("plan", (!account.plan.is_empty()).then(|| json!(account.plan))),
        ("next_retry_after", rest.map(|rest| json!(moment(now_s + rest.left_ms.div_ceil(1000))))),
    ];
    members.extend(more.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    members.into()
}

/// How the token stands: `failed` is one that could not be renewed, or ran out although it could have been.
pub(super) fn refresh_state(
    account: &Account,
    login: &LoginState,
    expires: Option<u64>,
    now_s: u64,
) -> &'static str {
    match expires {
        _ if !renewal::renewable(account) => "none",
        _ if login.running => "refreshing",
        _ if login.needs_login || !login.problem.is_empty() => "failed",
        Some(end) if end <= now_s => "failed",
        _ if renewal::due_s(account, 0).is_some_and(|due| due <= now_s) => "due",
        _ => "ok",
    }
}

/// When the file says that its token was renewed.
fn last_refresh(path: &Path) -> Option<String> {
    let bytes = std::fs::read(path).ok().filter(|bytes| bytes.len() <= config::MAX_ACCOUNT_BYTES)?;
    let file: Value = serde_json::from_slice(&bytes).ok()?;
    Some(text(&file, "last_refresh").to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::scratch::Scratch;

    #[test]
    fn row_145_broken_files_are_listed_with_their_reason_and_tokens_are_not() {
        let scratch = Scratch::new();
        let folder = scratch.path().join("auths");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("broken.json"), "{not json").unwrap();
        std::fs::write(
            folder.join("claude-a.json"),
            r#"{"type":"claude","access_token":"canary-a","refresh_token":"canary-r","email":"a@b","last_refresh":"2026-01-01T00:00:00Z"}"#,
        )
        .unwrap();
        let text_of = format!("auth-dir: {}\n", folder.display());
        let config = config::load(text_of.as_bytes()).unwrap().config;
        let state = State::new(config, crate::state::accounts::scan(&folder)).unwrap().0;
        let files = files(&state);
        assert_eq!((text(&files[0], "name"), text(&files[0], "status")), ("broken.json", "error"));
        assert!(text(&files[0], "status_message").starts_with("invalid JSON"), "{}", files[0]);
        assert_eq!((text(&files[1], "status"), text(&files[1], "email")), ("active", "a@b"));
        assert_eq!(text(&files[1], "last_refresh"), "2026-01-01T00:00:00Z");
        assert!(files[1]["models"].as_u64().unwrap() > 0);
        assert!(!serde_json::to_string(&files).unwrap().contains("canary"));
        assert_eq!(text(&files[1], "index"), auth_index("claude-a.json"));
        assert_eq!(auth_index("claude-a.json").len(), 16);
    }
}
