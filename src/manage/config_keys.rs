//! Keys of the configuration, switched off and on again.
//!
//! Enters: which credential, as lists name it: by `auth_index`, id, label (`claude#1`) or, for all keys of an
//! OpenAI-compatible block, the block's name. Leaves: the configuration with `excluded-models: ["*"]` at its
//! entry, or without, comments and all else as they were. May go wrong: the key shares its entry with others, or
//! the entry is not to be found in the file as it is written (409).
//!
//! The pattern is what CLIProxyAPI's relatives write for this: files keep their meaning there.

use super::answer::{Refusal, edit, tagged};
use super::auth_list::{auth_index, text};
use super::{App, blocks};
use axum::response::Response;
use config::edit::{document, rewrite};
use http::{HeaderMap, StatusCode};
use pool::CredentialSpec;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};

/// The pattern that excludes every model.
const ALL: &str = "*";
const PATTERNS: &str = "excluded-models";

/// What is switched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meant {
    /// The credential with this `auth_index`.
    Credential(String),
    /// An OpenAI-compatible block.
    Block(String),
}

/// Where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    key: &'static str,
    index: usize,
}

fn specs(app: &App) -> Vec<CredentialSpec> {
    pool::from_config(&app.state.snapshot.load().config, &[]).1
}

/// The credential of the configuration that a request means by `name` or `auth_index`; `None`: none of them.
pub(super) fn meant(app: &App, body: &Value) -> Option<Meant> {
    let name = text(body, "name").trim();
    let index = text(body, "auth_index");
    let index = if index.is_empty() { text(body, "index") } else { index };
    let specs = specs(app);
    let found = specs.iter().find(|spec| {
        let own = auth_index(spec.id.as_str());
        if name.is_empty() { own == index } else { [spec.id.as_str(), &spec.label, &own].contains(&name) }
    });
    if let Some(spec) = found {
        return Some(Meant::Credential(auth_index(spec.id.as_str())));
    }
    let snapshot = app.state.snapshot.load();
    let blocks = &snapshot.config.providers.openai_compatibility;
    let is_block = !name.is_empty() && blocks.iter().any(|block| block.name == name);
    is_block.then(|| Meant::Block(name.to_owned()))
}

/// Switches it.
pub(super) async fn switch(
    app: &App,
    headers: &HeaderMap,
    meant: Meant,
    off: bool,
) -> Result<Response, Refusal> {
    let specs = specs(app);
    let told = Arc::new(OnceLock::new());
    let tell = Arc::clone(&told);
    let change = move |text: &str| {
        let (changed, place) = switched(text, specs, &meant, off)?;
        let _ = tell.set(place);
        Ok(changed)
    };
    let edited = edit(app, headers, change).await?;
    let place = told.get();
    let mut body = json!({
        "status": "ok",
        "disabled": off,
        "pattern": ALL,
        "key": place.map(|place| place.key),
        "index": place.map(|place| place.index),
    });
    if let Some(reason) = edited.unsaved {
        body["persisted"] = false.into();
        body["warning"] = format!("in force until the process ends: {reason}").into();
    }
    Ok(tagged(body, &edited.etag))
}

fn switched(
    file: &str,
    specs: Vec<CredentialSpec>,
    meant: &Meant,
    off: bool,
) -> Result<(String, Place), Refusal> {
    let document = document(file)?;
    let place = find(&document, specs, meant)?;
    let mut entries = document.get(place.key).cloned().unwrap_or_default();
    if let Some(entry) = entries.get_mut(place.index).and_then(Value::as_object_mut) {
        let mut patterns = match entry.remove(PATTERNS) {
            Some(Value::Array(patterns)) => patterns,
            _ => Vec::new(),
        };
        patterns.retain(|pattern| pattern != ALL);
        if off {
            patterns.push(ALL.into());
        } else if entry.get("disabled") == Some(&true.into()) {
            entry.remove("disabled");
        }
        if !patterns.is_empty() {
            entry.insert(PATTERNS.to_owned(), patterns.into());
        }
    }
    Ok((rewrite(file, &[place.key], Some(&entries))?, place))
}

fn find(document: &Value, specs: Vec<CredentialSpec>, meant: &Meant) -> Result<Place, Refusal> {
    let conflict = |text: String| Refusal::new(StatusCode::CONFLICT, text);
    for (key, entries) in blocks::indexed(document, specs) {
        for (index, entry) in entries.iter().enumerate() {
            let place = Place { key, index };
            let keys = entry.get("api-key-entries").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let wanted = match meant {
                Meant::Block(name) if text(entry, "name").trim() == name => return Ok(place),
                Meant::Block(_) => continue,
                Meant::Credential(wanted) => wanted,
            };
            if text(entry, "auth-index") == wanted {
                return Ok(place);
            }
            if keys.iter().any(|one| text(one, "auth-index") == wanted) {
                if let [_] = keys {
                    return Ok(place);
                }
                let name = text(entry, "name");
                return Err(conflict(format!(
                    "this is one of {} keys of {name}, which are switched together: name the block ({name}), \
                     or take the key out of its api-key-entries",
                    keys.len()
                )));
            }
        }
    }
    Err(conflict(format!(
        "its entry is not to be found in the file as it is written; add `{PATTERNS}: [\"{ALL}\"]` to it by hand"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# keys\nclaude-api-key:\n  # alice's\n  - api-key: a # the key\n    prefix: p\n  \
        # bob's\n  - api-key: b\n    excluded-models: [\"*-old\"] # not these\n\
        openai-compatibility:\n  - name: one\n    base-url: http://h\n    models: [{name: m}]\n    \
        api-key-entries:\n      - api-key: k # single\n  - {name: two, base-url: 'http://h', models: [{name: m}], \
        api-key-entries: [{api-key: k}, {api-key: l}]}\n  - {name: off, disabled: true, base-url: 'http://i', models: [{name: m}]}\n";

    fn set(file: &str, label: &str, off: bool) -> Result<(String, Place), Refusal> {
        let specs = pool::from_config(&config::load(FILE.as_bytes()).unwrap().config, &[]).1;
        let spec = specs.iter().find(|spec| &*spec.label == label);
        let meant = match spec {
            Some(spec) => Meant::Credential(auth_index(spec.id.as_str())),
            None => Meant::Block(label.to_owned()),
        };
        switched(file, specs, &meant, off)
    }

    fn serving(file: &str) -> Vec<String> {
        let specs = pool::from_config(&config::load(file.as_bytes()).unwrap().config, &[]).1;
        let serves = |spec: &&CredentialSpec| !spec.disabled && !spec.models.models().is_empty();
        specs.iter().filter(serves).map(|spec| spec.label.to_string()).collect()
    }

    #[test]
    fn a_key_is_switched_off_and_on_and_nothing_else_changes() {
        let all = serving(FILE);
        assert_eq!(all, ["claude#1", "claude#2", "one#1", "two#1", "two#2"]);
        for (label, key, index) in [
            ("claude#1", "claude-api-key", 0),
            ("claude#2", "claude-api-key", 1),
            ("one#1", "openai-compatibility", 0),
        ] {
            let (off, place) = set(FILE, label, true).unwrap();
            assert_eq!(place, Place { key, index });
            assert!(off.contains("\"*\"") || off.contains("'*'"), "{off}");
            let left: Vec<_> = all.iter().filter(|other| *other != label).cloned().collect();
            assert_eq!(serving(&off), left, "{off}");
            for kept in ["# keys", "# alice's", "# the key", "# bob's", "# single", "*-old"] {
                assert!(off.contains(kept), "{kept}: {off}");
            }
            assert_eq!(set(&off, label, true).unwrap().0, off, "twice is once");
            let (on, _) = set(&off, label, false).unwrap();
            assert_eq!(document(&on).unwrap(), document(FILE).unwrap(), "{on}");
        }
    }

    #[test]
    fn keys_of_one_block_are_switched_together_by_its_name() {
        let refused = set(FILE, "two#1", true).unwrap_err();
        assert!(refused.reason().contains("one of 2 keys of two"), "{}", refused.reason());
        let (off, _) = set(FILE, "two", true).unwrap();
        assert_eq!(serving(&off), ["claude#1", "claude#2", "one#1"]);
        let (on, _) = set(FILE, "off", false).unwrap();
        assert!(serving(&on).contains(&"off#1".to_owned()), "{on}");
    }
}
