//! The client keys, and settings that are changed as a whole.
//!
//! Enters: a list, or one element and where it stands. Leaves: the changed configuration. May go wrong: no
//! such element (404).

use super::answer::{self, Refusal, changed, edit, read, tagged};
use super::mask::{hide, restore};
use super::{App, Routes};
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use config::edit::{document, rewrite};
use http::HeaderMap;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::LazyLock;

/// Settings that are read and replaced as a whole.
const WHOLE: [&str; 4] = ["payload", "ampcode", "model-overrides", "fallback-models"];
const KEYS: &str = "api-keys";

pub(super) fn routes() -> Routes {
    let keys = get(|State(app): State<App>| async move { show(&app, KEYS).await })
        .put(|State(app): State<App>, headers: HeaderMap, body: Bytes| async move {
            let items = items(read(&body)?)?;
            replace(&app, &headers, KEYS, move |_| Ok(items)).await
        })
        .patch(|State(app): State<App>, headers: HeaderMap, body: Bytes| async move {
            let body = read(&body)?;
            replace(&app, &headers, KEYS, move |old| patched(old, &body)).await
        })
        .delete(|State(app): State<App>, Query(query): Query<Parameters>, headers: HeaderMap| async move {
            replace(&app, &headers, KEYS, move |old| without(old, &query)).await
        });
    let whole = WHOLE.iter().map(|key| {
        let methods = get(move |State(app): State<App>| async move { show(&app, key).await }).put(
            move |State(app): State<App>, headers: HeaderMap, body: Bytes| async move {
                let value = read(&body)?;
                replace(&app, &headers, key, move |_| Ok(value)).await
            },
        );
        ((*key).to_owned(), methods)
    });
    std::iter::once((KEYS.to_owned(), keys)).chain(whole).collect()
}

/// Parameters of a URL.
pub(super) type Parameters = HashMap<String, String>;

/// What the file says, secrets masked.
pub(super) async fn show(app: &App, key: &str) -> Result<Response, Refusal> {
    let (document, etag) = answer::document(app).await?;
    let mut value = document.get(key).cloned().unwrap_or_else(|| empty(key));
    hide(&mut value, key);
    Ok(tagged(json!({ key: value }), &etag))
}

fn empty(key: &str) -> Value {
    static DEFAULTS: LazyLock<Value> =
        LazyLock::new(|| serde_json::to_value(config::Config::default()).unwrap_or_default());
    match DEFAULTS.get(key) {
        Some(Value::Array(_)) => json!([]),
        _ => json!({}),
    }
}

/// Replaces what stands under a key by what `change` makes of it. Masks mean the secrets that stand there.
pub(super) async fn replace(
    app: &App,
    headers: &HeaderMap,
    key: &'static str,
    change: impl FnOnce(Value) -> Result<Value, Refusal> + Send + 'static,
) -> Result<Response, Refusal> {
    let change = move |text: &str| {
        let old = document(text)?.get(key).cloned().unwrap_or_else(|| empty(key));
        let mut new = change(old.clone())?;
        restore(&mut new, &old, key)?;
        Ok(rewrite(text, &[key], Some(&new))?)
    };
    edit(app, headers, change).await.map(changed)
}

/// The list of a body: bare, or under `items`.
pub(super) fn items(body: Value) -> Result<Value, Refusal> {
    match body {
        Value::Array(_) => Ok(body),
        Value::Object(mut members) => match members.remove("items") {
            Some(Value::Array(items)) if !items.is_empty() => Ok(items.into()),
            _ => Err(Refusal::bad("invalid body")),
        },
        _ => Err(Refusal::bad("invalid body")),
    }
}

/// `{index, value}`, or `{old, new}`, which appends where the old one is not there.
fn patched(old: Value, body: &Value) -> Result<Value, Refusal> {
    let mut keys = list(old);
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(Value::from);
    match (index(body.get("index"))?, text("value"), text("old"), text("new")) {
        (Some(at), Some(value), ..) => *keys.get_mut(at).ok_or_else(not_found)? = value,
        (None, _, Some(old), Some(new)) => match position(&keys, &old) {
            Some(at) => *keys.get_mut(at).ok_or_else(not_found)? = new,
            None => keys.push(new),
        },
        _ => return Err(Refusal::bad("expected {\"index\", \"value\"} or {\"old\", \"new\"}")),
    }
    Ok(keys.into())
}

fn without(old: Value, query: &Parameters) -> Result<Value, Refusal> {
    let mut keys = list(old);
    let at = match (query.get("index"), query.get("value")) {
        (Some(index), _) => index.parse().map_err(|_| Refusal::bad("invalid index"))?,
        (None, Some(value)) => position(&keys, &value.as_str().into()).ok_or_else(not_found)?,
        (None, None) => return Err(Refusal::bad("missing index or value")),
    };
    if at >= keys.len() {
        return Err(not_found());
    }
    keys.remove(at);
    Ok(keys.into())
}

/// Where a key stands: as it is, without the blanks around it, or as its mask.
fn position(keys: &[Value], wanted: &Value) -> Option<usize> {
    let wanted = wanted.as_str()?.trim();
    let exact = keys.iter().position(|key| key.as_str().is_some_and(|key| key.trim() == wanted));
    exact.or_else(|| {
        let masked =
            |key: &Value| key.as_str().is_some_and(|key| config::Secret::from(key).masked() == wanted);
        let mut found = keys.iter().enumerate().filter(|(_, key)| masked(key)).map(|(at, _)| at);
        found.next().filter(|_| found.next().is_none())
    })
}

/// The elements of a list; what is none has none.
pub(super) fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// A position in a list.
pub(super) fn index(value: Option<&Value>) -> Result<Option<usize>, Refusal> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let index = value.as_u64().and_then(|index| usize::try_from(index).ok());
            index.map(Some).ok_or_else(|| Refusal::bad("invalid index"))
        }
    }
}

/// What is to be changed is not there.
pub(super) fn not_found() -> Refusal {
    Refusal::missing("item not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_changed_by_place_and_by_value() {
        let keys = || json!(["one", " two "]);
        for (body, result) in [
            (json!({"index": 1, "value": "x"}), Some(json!(["one", "x"]))),
            (json!({"old": "two", "new": "x"}), Some(json!(["one", "x"]))),
            (json!({"old": "none", "new": "x"}), Some(json!(["one", " two ", "x"]))),
            (json!({"index": 2, "value": "x"}), None),
            (json!({"index": -1, "value": "x"}), None),
            (json!({"value": "x"}), None),
        ] {
            assert_eq!(patched(keys(), &body).ok(), result, "{body}");
        }
        let query = |key: &str, value: &str| Parameters::from([(key.to_owned(), value.to_owned())]);
        assert_eq!(without(keys(), &query("index", "0")).unwrap(), json!([" two "]));
        assert_eq!(without(keys(), &query("value", "two")).unwrap(), json!(["one"]));
        for (key, value) in
            [("index", "2"), ("index", "x"), ("value", "three"), ("value", "********"), ("other", "")]
        {
            assert!(without(keys(), &query(key, value)).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn bodies_are_lists_bare_or_named() {
        assert_eq!(items(json!(["a"])).unwrap(), json!(["a"]));
        assert_eq!(items(json!([])).unwrap(), json!([]), "an empty list clears");
        assert_eq!(items(json!({"items": ["a"]})).unwrap(), json!(["a"]));
        assert!(
            items(json!({"items": []})).is_err() && items(json!({})).is_err() && items(json!(1)).is_err()
        );
    }
}
