//! Lists of provider entries, and maps by provider.
//!
//! Enters: whole lists and maps, or one entry and what tells it. Leaves: the changed configuration; entries
//! with their `auth-index`. May go wrong: no such entry (404), more than one (400).

use super::answer::{self, Refusal, read, tagged};
use super::auth_list::auth_index;
use super::lists::{Parameters, index, items, list, not_found, replace, show};
use super::mask::hide;
use super::{App, Routes};
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use config::{Block, Secret};
use http::HeaderMap;
use pool::CredentialSpec;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

/// A list of entries.
#[derive(Clone, Copy, Debug)]
struct Entries {
    key: &'static str,
    /// The member that tells an entry.
    told_by: &'static str,
    /// An entry without it is no entry.
    needs: &'static str,
}

/// A map from a provider to a list.
#[derive(Clone, Copy, Debug)]
struct ByProvider {
    key: &'static str,
    /// What a change calls the list.
    list: &'static str,
    /// An empty list takes the provider out: elsewhere it means something.
    empty_removes: bool,
}

const COMPAT: &str = "openai-compatibility";

const MAPS: [ByProvider; 3] = [
    ByProvider { key: "oauth-excluded-models", list: "models", empty_removes: true },
    ByProvider { key: "oauth-model-alias", list: "aliases", empty_removes: false },
    ByProvider { key: "oauth-request-scoped-errors", list: "rules", empty_removes: true },
];

/// All lists of entries.
fn lists() -> impl Iterator<Item = Entries> {
    let by_key = Block::ALL.iter().map(|block| {
        // A key alone is an entry where the provider's address is known.
        let needs = if matches!(block, Block::Codex | Block::Xai) { "base-url" } else { "api-key" };
        Entries { key: block.key(), told_by: "api-key", needs }
    });
    let compat = Entries { key: COMPAT, told_by: "name", needs: "base-url" };
    by_key.chain([compat])
}

pub(super) fn routes() -> Routes {
    lists().map(Entries::route).chain(MAPS.iter().map(|map| map.route())).collect()
}

/// The entries of all lists of a file, by list. Each has its `auth-index`, or its keys have.
pub(super) fn indexed(
    document: &Value,
    mut specs: Vec<CredentialSpec>,
) -> impl Iterator<Item = (&'static str, Vec<Value>)> {
    lists().map(move |of| {
        let mut entries = list(document.get(of.key).cloned().unwrap_or_default());
        for entry in &mut entries {
            of.put_index(entry, &mut specs);
        }
        (of.key, entries)
    })
}

impl Entries {
    fn route(self) -> (String, axum::routing::MethodRouter<App>) {
        let methods = get(move |State(app): State<App>| async move { self.show(&app).await })
            .put(move |State(app): State<App>, headers: HeaderMap, body: Bytes| async move {
                let items = items(read(&body)?)?;
                replace(&app, &headers, self.key, move |_| Ok(without_indexes(items))).await
            })
            .patch(
                move |State(app): State<App>, Query(query): Query<Parameters>, headers: HeaderMap, body: Bytes| async move {
                    let body = read(&body)?;
                    replace(&app, &headers, self.key, move |old| self.patched(old, &body, &query)).await
                },
            )
            .delete(move |State(app): State<App>, Query(query): Query<Parameters>, headers: HeaderMap| async move {
                replace(&app, &headers, self.key, move |old| self.without(old, &query)).await
            });
        (self.key.to_owned(), methods)
    }

    async fn show(self, app: &App) -> Result<Response, Refusal> {
        let (document, etag) = answer::document(app).await?;
        let mut entries = list(document.get(self.key).cloned().unwrap_or_default());
        let mut specs = pool::from_config(&app.state.snapshot.load().config, &[]).1;
        for entry in &mut entries {
            self.put_index(entry, &mut specs);
            hide(entry, "");
        }
        Ok(tagged(json!({ self.key: entries }), &etag))
    }

    /// Says which credential an entry is, or each of its keys.
    fn put_index(self, entry: &mut Value, specs: &mut Vec<CredentialSpec>) {
        let name =
            if self.key == COMPAT { member(entry, "name").to_owned() } else { provider(self.key).to_owned() };
        if let Some(keys) = entry.get_mut("api-key-entries").and_then(Value::as_array_mut) {
            for key in keys {
                take_index(key, &name, specs);
            }
        } else {
            take_index(entry, &name, specs);
        }
    }

    fn find(self, entries: &[Value], wanted: &str, base_url: Option<&str>) -> Result<usize, Refusal> {
        let is_it = |entry: &Value| {
            let told = member(entry, self.told_by);
            let same = told == wanted || (self.told_by == "api-key" && Secret::from(told).masked() == wanted);
            same && base_url.is_none_or(|url| member(entry, "base-url") == url)
        };
        let mut found = entries.iter().enumerate().filter(|(_, entry)| is_it(entry)).map(|(at, _)| at);
        let first = found.next().ok_or_else(not_found)?;
        match found.next() {
            None => Ok(first),
            Some(_) => Err(Refusal::bad("multiple items match; index is required")),
        }
    }

    fn patched(self, old: Value, body: &Value, query: &Parameters) -> Result<Value, Refusal> {
        let mut entries = list(old);
        let Some(Value::Object(changes)) = body.get("value") else {
            return Err(Refusal::bad("expected {\"value\": {…}}"));
        };
        let wanted = body.get("match").or_else(|| body.get(self.told_by)).and_then(Value::as_str);
        let base_url = query.get("base-url").map(String::as_str);
        let at = match (index(body.get("index"))?, wanted) {
            (Some(at), _) => at,
            (None, Some(wanted)) => self.find(&entries, wanted.trim(), base_url)?,
            (None, None) => return Err(Refusal::bad("missing index or match")),
        };
        let entry = entries.get_mut(at).ok_or_else(not_found)?;
        let members = entry.as_object_mut().ok_or_else(not_found)?;
        for (key, value) in changes.iter().filter(|(key, _)| *key != "auth-index") {
            match value {
                Value::Null => drop(members.remove(key)),
                value => drop(members.insert(key.clone(), value.clone())),
            }
        }
        if self.is_void(entry) {
            entries.remove(at);
        }
        Ok(entries.into())
    }

    /// Whether an entry has lost what makes it one.
    fn is_void(self, entry: &Value) -> bool {
        let empty = |key| member(entry, key).is_empty();
        empty(self.needs) && (self.needs != "api-key" || (empty("base-url") && empty("token-file")))
    }

    fn without(self, old: Value, query: &Parameters) -> Result<Value, Refusal> {
        let mut entries = list(old);
        let base_url = query.get("base-url").map(String::as_str);
        let at = match (query.get("index"), query.get(self.told_by)) {
            (Some(index), _) => index.parse().map_err(|_| Refusal::bad("invalid index"))?,
            (None, Some(wanted)) => self.find(&entries, wanted.trim(), base_url)?,
            (None, None) => return Err(Refusal::bad(format!("missing index or {}", self.told_by))),
        };
        if at >= entries.len() {
            return Err(not_found());
        }
        entries.remove(at);
        Ok(entries.into())
    }
}

/// The provider's name for a list.
fn provider(key: &str) -> &str {
    key.strip_suffix("-api-key").unwrap_or(key)
}

fn member<'e>(entry: &'e Value, key: &str) -> &'e str {
    entry.get(key).and_then(Value::as_str).map(str::trim).unwrap_or_default()
}

fn take_index(entry: &mut Value, provider: &str, specs: &mut Vec<CredentialSpec>) {
    let secret = member(entry, "api-key");
    let is_it = |spec: &CredentialSpec| &*spec.provider == provider && spec.secret.expose_secret() == secret;
    let Some(at) = specs.iter().position(is_it) else { return };
    let spec = specs.remove(at);
    if let Some(members) = entry.as_object_mut() {
        members.insert("auth-index".to_owned(), auth_index(spec.id.as_str()).into());
    }
}

/// What was added when it was shown does not go into the file.
fn without_indexes(mut entries: Value) -> Value {
    for entry in entries.as_array_mut().into_iter().flatten() {
        let inner = entry.get_mut("api-key-entries").and_then(Value::as_array_mut);
        for key in inner.into_iter().flatten() {
            key.as_object_mut().map(|members| members.remove("auth-index"));
        }
        entry.as_object_mut().map(|members| members.remove("auth-index"));
    }
    entries
}

impl ByProvider {
    fn route(self) -> (String, axum::routing::MethodRouter<App>) {
        let methods = get(move |State(app): State<App>| async move { show(&app, self.key).await })
            .put(move |State(app): State<App>, headers: HeaderMap, body: Bytes| async move {
                let map = match read(&body)? {
                    Value::Object(mut members) => members.remove("items").unwrap_or(Value::Object(members)),
                    _ => return Err(Refusal::bad("invalid body")),
                };
                replace(&app, &headers, self.key, move |_| Ok(map)).await
            })
            .patch(move |State(app): State<App>, headers: HeaderMap, body: Bytes| async move {
                let body = read(&body)?;
                replace(&app, &headers, self.key, move |old| self.patched(old, &body)).await
            })
            .delete(move |State(app): State<App>, Query(query): Query<Parameters>, headers: HeaderMap| async move {
                let provider = query.get("provider").or(query.get("channel")).cloned();
                let provider = provider.ok_or_else(|| Refusal::bad("missing provider"))?;
                replace(&app, &headers, self.key, move |old| without_provider(old, &provider)).await
            });
        (self.key.to_owned(), methods)
    }

    fn patched(self, old: Value, body: &Value) -> Result<Value, Refusal> {
        let named = body.get("provider").or_else(|| body.get("channel")).and_then(Value::as_str);
        let provider = named.map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty());
        let provider = provider.ok_or_else(|| Refusal::bad("missing provider"))?;
        let Some(Value::Array(items)) = body.get(self.list) else {
            return Err(Refusal::bad(format!("expected {{\"{}\": […]}}", self.list)));
        };
        if items.is_empty() && self.empty_removes {
            return without_provider(old, &provider);
        }
        let mut map = old;
        if let Some(members) = map.as_object_mut() {
            members.insert(provider, items.clone().into());
        }
        Ok(map)
    }
}

fn without_provider(mut map: Value, provider: &str) -> Result<Value, Refusal> {
    let removed = map.as_object_mut().and_then(|members| members.remove(&provider.trim().to_lowercase()));
    removed.map(|_| map).ok_or_else(|| Refusal::missing("provider not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAUDE: Entries = Entries { key: "claude-api-key", told_by: "api-key", needs: "api-key" };
    const CODEX: Entries = Entries { key: "codex-api-key", told_by: "api-key", needs: "base-url" };

    fn entries() -> Value {
        json!([
            {"api-key": "a", "base-url": "http://1", "weight": 2},
            {"api-key": "b", "base-url": "http://1"},
            {"api-key": "b", "base-url": "http://2"},
        ])
    }

    fn patch(body: &Value, base_url: Option<&str>) -> Result<Value, Refusal> {
        let query = base_url.map(|url| ("base-url".to_owned(), url.to_owned())).into_iter().collect();
        CLAUDE.patched(entries(), body, &query)
    }

    #[test]
    fn an_entry_is_told_by_place_or_key_and_changed_in_part() {
        let changed = patch(&json!({"match": "a", "value": {"prefix": "p", "weight": null}}), None).unwrap();
        assert_eq!(changed[0], json!({"api-key": "a", "base-url": "http://1", "prefix": "p"}));
        assert_eq!(changed[1], entries()[1]);
        let changed = patch(&json!({"index": 2, "value": {"api-key": "c"}}), None).unwrap();
        assert_eq!(changed[2]["api-key"], "c");
        let changed = patch(&json!({"match": "b", "value": {"api-key": "c"}}), Some("http://2")).unwrap();
        assert_eq!((&changed[1]["api-key"], &changed[2]["api-key"]), (&json!("b"), &json!("c")));
        for wrong in [
            json!({"match": "b", "value": {}}),
            json!({"match": "z", "value": {}}),
            json!({"index": 3, "value": {}}),
            json!({"value": {}}),
            json!({"index": 0, "value": 1}),
        ] {
            assert!(patch(&wrong, None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_entry_that_loses_what_makes_it_one_is_gone() {
        let gone = patch(&json!({"index": 0, "value": {"api-key": "", "base-url": ""}}), None).unwrap();
        assert_eq!(gone.as_array().unwrap().len(), 2);
        let kept = patch(&json!({"index": 0, "value": {"base-url": ""}}), None).unwrap();
        assert_eq!(kept.as_array().unwrap().len(), 3);
        let body = json!({"index": 0, "value": {"base-url": ""}});
        let gone = CODEX.patched(entries(), &body, &Parameters::new()).unwrap();
        assert_eq!(gone.as_array().unwrap().len(), 2);
    }

    #[test]
    fn maps_by_provider() {
        let old = || json!({"codex": ["a"]});
        let excluded = MAPS[0];
        let set = excluded.patched(old(), &json!({"provider": " Kiro ", "models": ["x"]})).unwrap();
        assert_eq!(set, json!({"codex": ["a"], "kiro": ["x"]}));
        assert_eq!(excluded.patched(old(), &json!({"provider": "codex", "models": []})).unwrap(), json!({}));
        assert!(excluded.patched(old(), &json!({"provider": "kiro", "models": []})).is_err());
        let off = MAPS[1].patched(old(), &json!({"channel": "kiro", "aliases": []})).unwrap();
        assert_eq!(off["kiro"], json!([]), "an empty list switches the usual names off");
        assert!(MAPS[1].patched(old(), &json!({"channel": "kiro"})).is_err());
    }

    #[test]
    fn entries_are_named_by_their_credential_and_the_name_stays_out_of_the_file() {
        let config = config::load(b"claude-api-key: [{api-key: a}, {api-key: b}]\n").unwrap().config;
        let mut specs = pool::from_config(&config, &[]).1;
        let ids: Vec<String> = specs.iter().map(|spec| auth_index(spec.id.as_str())).collect();
        let mut shown = json!([{"api-key": "b"}, {"api-key": "a"}]);
        for entry in shown.as_array_mut().unwrap() {
            CLAUDE.put_index(entry, &mut specs);
        }
        assert_eq!((&shown[0]["auth-index"], &shown[1]["auth-index"]), (&json!(ids[1]), &json!(ids[0])));
        assert_eq!(without_indexes(shown), json!([{"api-key": "b"}, {"api-key": "a"}]));
    }
}
