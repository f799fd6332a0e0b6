//! Account files: list, download, upload, delete, switch on and off, change members. Keys of the configuration are
//! switched by the same route ([`super::config_keys`]).
//!
//! Enters: names, JSON, forms. Leaves: lists, files, the changed files in force at once. May go wrong: a name
//! that is none (400), a file that is not there (404), content that is no account (400); of several files some
//! (207).

use super::answer::{Json, Refusal, read};
use super::auth_list::{auth_index, files, names, text};
use super::file_name::{in_folder, plain};
use super::lists::Parameters;
use super::{App, Routes, beside, config_keys};
use crate::state::State as Shared;
use crate::state::account_files::Content;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Multipart, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    let all = get(list).post(upload).delete(delete);
    [
        ("auth-files", all),
        ("auth-files/models", get(models)),
        ("auth-files/download", get(download)),
        ("auth-files/status", patch(status)),
        ("auth-files/fields", patch(fields)),
        ("reset-quota", post(reset_quota)),
    ]
    .into_iter()
    .map(|(path, methods)| (path.to_owned(), methods))
    .collect()
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the account file cannot be changed: {error}"))
    }
}

async fn list(
    State(app): State<App>,
    Query(query): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let state = Arc::clone(&app.state);
    let mut files = beside(move || files(&state)).await?;
    if let Some(name) = query.get("name") {
        files.retain(|file| text(file, "name") == name);
    }
    if let Some(index) = query.get("auth_index").or(query.get("index")) {
        let wanted = by_index(&files, index).map(|file| text(file, "name").to_owned());
        files.retain(|file| Some(text(file, "name")) == wanted.as_deref());
    }
    // Browsers ask for JSON and get the object that dashboards know; curl asks for anything and gets what
    // the runbooks' filters read.
    let accepts_json =
        headers.get(ACCEPT).is_some_and(|v| v.to_str().is_ok_and(|v| v.contains("application/json")));
    let object = match query.get("format").map(String::as_str) {
        Some("object") => true,
        Some("array") => false,
        _ => accepts_json,
    };
    let body = if object { json!({ "files": files }) } else { files.into() };
    let mut response = Json(body).into_response();
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// The element of an index: sixteen hex digits, or a small number as its place.
fn by_index<'f>(files: &'f [Value], index: &str) -> Option<&'f Value> {
    let exact = files.iter().find(|file| text(file, "auth_index") == index);
    exact.or_else(|| files.get(index.parse::<usize>().ok().filter(|_| index.len() < 16)?))
}

/// The file that a body means by `name` or `auth_index`.
pub(super) fn meant(state: &Shared, body: &Value) -> Result<String, Refusal> {
    let name = text(body, "name");
    if !name.is_empty() {
        return in_folder(name, &state.accounts_folder()).map(str::to_owned);
    }
    let index = match body.get("auth_index").or_else(|| body.get("index")) {
        Some(Value::String(index)) => index.clone(),
        Some(Value::Number(index)) => index.to_string(),
        _ => return Err(Refusal::bad("missing name or auth_index")),
    };
    let files = files(state);
    let found = by_index(&files, &index).ok_or_else(|| no_file().with("auth_index", index))?;
    plain(text(found, "name")).map(str::to_owned)
}

pub(super) fn no_file() -> Refusal {
    Refusal::missing("auth file not found")
}

async fn models(State(app): State<App>, Query(query): Query<Parameters>) -> Result<Json, Refusal> {
    let name = query.get("name").ok_or_else(|| Refusal::bad("missing name"))?.clone();
    let state = Arc::clone(&app.state);
    let found = beside(move || {
        let snapshot = state.snapshot.load_full();
        let spec = state.credentials().into_iter().find(|spec| spec.id.as_str() == name)?;
        let about = |id: String| {
            let own =
                spec.prefix.as_deref().and_then(|p| id.strip_prefix(p)?.strip_prefix('/')).unwrap_or(&id);
            let model = spec.models.models().iter().find(|model| &*model.alias == own);
            json!({
                "id": id,
                "display_name": model.and_then(|m| m.display_name.as_deref()),
                "type": spec.provider.as_ref(),
                "owned_by": model.map(|m| m.owned_by.as_ref()).filter(|owner| !owner.is_empty()),
            })
        };
        let forced = snapshot.config.models.force_model_prefix;
        Some(names(&spec, forced).into_iter().map(about).collect::<Vec<_>>())
    });
    Ok(Json(json!({ "models": found.await?.ok_or_else(no_file)? })))
}

async fn download(State(app): State<App>, Query(query): Query<Parameters>) -> Result<Response, Refusal> {
    let name = plain(query.get("name").map(String::as_str).unwrap_or_default())?.to_owned();
    let state = Arc::clone(&app.state);
    let file = name.clone();
    let found = beside(move || state.account_file(&file)).await?;
    let bytes = found.map_err(|e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e))?.ok_or_else(no_file)?;
    let headers = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok((headers, Body::from(bytes)).into_response())
}

/// Takes one file as the body under `?name=`, or a form with several.
async fn upload(
    State(app): State<App>,
    Query(query): Query<Parameters>,
    request: Request,
) -> Result<Response, Refusal> {
    let form = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"multipart/form-data"));
    let mut given: Vec<(String, Bytes)> = Vec::new();
    if form {
        let broken = |_| Refusal::bad("invalid form");
        let mut form =
            Multipart::from_request(request, &()).await.map_err(|_| Refusal::bad("invalid form"))?;
        while let Some(field) = form.next_field().await.map_err(broken)? {
            let Some(name) = field.file_name().map(str::to_owned) else { continue };
            given.push((name, field.bytes().await.map_err(broken)?));
        }
    } else {
        let name = query.get("name").ok_or_else(|| Refusal::bad("missing name"))?.clone();
        let body = Bytes::from_request(request, &()).await.map_err(|_| Refusal::bad("invalid body"))?;
        given.push((name, body));
    }
    if given.is_empty() {
        return Err(Refusal::bad("no file in the form"));
    }
    let state = Arc::clone(&app.state);
    let results = beside(move || {
        given
            .into_iter()
            .map(|(name, bytes)| (name.clone(), store(&state, &name, &bytes)))
            .collect::<Vec<_>>()
    });
    several(results.await?, "uploaded")
}

fn store(state: &Shared, name: &str, bytes: &[u8]) -> Result<(), Refusal> {
    let name = plain(name)?;
    config::read_account(name, bytes).map_err(Refusal::bad)?;
    state.edit_account(name, |_| Ok(Content::New(bytes.to_vec())))
}

async fn delete(
    State(app): State<App>,
    request_query: axum::extract::RawQuery,
    body: Bytes,
) -> Result<Response, Refusal> {
    let query = request_query.0.unwrap_or_default();
    let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let mut wanted: Vec<String> =
        pairs.iter().filter(|(key, _)| key == "name").map(|(_, name)| name.clone()).collect();
    let all = pairs.iter().any(|(key, value)| key == "all" && ["true", "1", "*"].contains(&value.as_str()));
    if !body.is_empty() {
        let body = read(&body)?;
        let names = body.get("names").unwrap_or(&body).as_array().cloned();
        let names = names.ok_or_else(|| Refusal::bad("expected {\"names\": […]}"))?;
        wanted.extend(names.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    let state = Arc::clone(&app.state);
    let results = beside(move || {
        if all {
            wanted = files(&state).iter().map(|file| text(file, "name").to_owned()).collect();
        }
        wanted.into_iter().map(|name| (name.clone(), remove(&state, &name))).collect::<Vec<_>>()
    })
    .await?;
    if results.is_empty() && !all {
        return Err(Refusal::bad("missing name"));
    }
    several(results, "deleted")
}

fn remove(state: &Shared, name: &str) -> Result<(), Refusal> {
    let name = plain(name)?;
    state.edit_account(name, |before| before.map(|_| Content::Gone).ok_or_else(no_file))
}

/// The answer to what was done to several files.
fn several(results: Vec<(String, Result<(), Refusal>)>, done: &str) -> Result<Response, Refusal> {
    let one = results.len() == 1;
    let (mut names, mut failed, mut last) = (Vec::new(), Vec::new(), None);
    for (name, result) in results {
        match result {
            Ok(()) => names.push(name),
            Err(refusal) => {
                failed.push(json!({ "name": name, "error": refusal.reason() }));
                last = Some(refusal);
            }
        }
    }
    match last {
        Some(refusal) if one || names.is_empty() => Err(refusal),
        Some(_) => {
            let body = json!({ "status": "partial", done: names.len(), "files": names, "failed": failed });
            Ok((StatusCode::MULTI_STATUS, Json(body)).into_response())
        }
        None if one && done == "uploaded" => Ok(Json(json!({ "status": "ok" })).into_response()),
        None => Ok(Json(json!({ "status": "ok", done: names.len(), "files": names })).into_response()),
    }
}

async fn status(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Result<Response, Refusal> {
    let body = read(&body)?;
    let flag = |key| body.get(key).and_then(Value::as_bool);
    let disabled = flag("disabled").or(flag("enabled").map(|on| !on));
    let disabled = disabled.ok_or_else(|| Refusal::bad("missing disabled"))?;
    if let Some(meant) = config_keys::meant(&app, &body) {
        return config_keys::switch(&app, &headers, meant, disabled).await;
    }
    let state = Arc::clone(&app.state);
    beside(move || {
        let name = meant(&state, &body)?;
        change(&state, &name, |members| {
            members.insert("disabled".to_owned(), disabled.into());
            Ok(())
        })
    })
    .await??;
    Ok(Json(json!({ "status": "ok", "disabled": disabled })).into_response())
}

/// Changes the members of an account file. What comes of it has to be an account.
fn change(
    state: &Shared,
    name: &str,
    change: impl FnOnce(&mut Map<String, Value>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    state.edit_account(name, |before| {
        let before = before.ok_or_else(no_file)?;
        let before = before.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&before);
        let mut members: Map<String, Value> = serde_json::from_slice(before)
            .map_err(|_| Refusal::bad(format!("{name} is no JSON object; replace it by an upload")))?;
        change(&mut members)?;
        let bytes = serde_json::to_vec_pretty(&members)
            .map_err(|e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
        config::read_account(name, &bytes).map_err(Refusal::bad)?;
        Ok(Content::New(bytes))
    })
}

/// Members with an older spelling, which must not contradict the new one.
const SPELLINGS: [(&str, &str); 7] = [
    ("proxy_url", "proxy-url"),
    ("excluded_models", "excluded-models"),
    ("model_aliases", "model-aliases"),
    ("disable_cooling", "disable-cooling"),
    ("request_retry", "request-retry"),
    ("request_scoped_errors", "request-scoped-errors"),
    ("base_url", "base-url"),
];

async fn fields(State(app): State<App>, body: Bytes) -> Result<Json, Refusal> {
    let body = read(&body)?;
    let state = Arc::clone(&app.state);
    beside(move || {
        let name = meant(&state, &body)?;
        let asked = body.as_object().cloned().unwrap_or_default();
        let asked =
            asked.into_iter().filter(|(key, _)| !["name", "auth_index", "index"].contains(&key.as_str()));
        let mut canonical = Map::new();
        for (key, value) in asked {
            let new = SPELLINGS.iter().find(|(_, old)| **old == *key).map_or(key.as_str(), |(new, _)| new);
            if canonical.insert(new.to_owned(), value).is_some() {
                return Err(Refusal::bad(format!("{new} stands twice, in two spellings")));
            }
        }
        if canonical.is_empty() {
            return Err(Refusal::bad("no fields to change"));
        }
        change(&state, &name, |members| {
            canonical.into_iter().try_for_each(|(key, value)| set_field(members, &key, value))
        })
    })
    .await??;
    Ok(Json(json!({ "status": "ok" })))
}

/// Sets a member, or one within it (`a.b`). `null` takes it out; headers are merged, an empty one goes.
fn set_field(members: &mut Map<String, Value>, key: &str, value: Value) -> Result<(), Refusal> {
    if let Some((_, old)) = SPELLINGS.iter().find(|(new, _)| *new == key) {
        members.remove(*old);
    }
    if key == "headers"
        && let Value::Object(new) = value
    {
        let headers = members.entry("headers").or_insert_with(|| json!({}));
        let headers = headers.as_object_mut().ok_or_else(|| Refusal::bad("headers is no object"))?;
        for (name, value) in new {
            match value.as_str().map(str::trim) {
                None | Some("") => drop(headers.remove(&name)),
                Some(_) => drop(headers.insert(name, value)),
            }
        }
        return Ok(());
    }
    match (key.split_once('.'), value) {
        (Some((first, rest)), value) => {
            let below = members.entry(first).or_insert_with(|| json!({}));
            let below = below.as_object_mut().ok_or_else(|| Refusal::bad(format!("{first} is no object")))?;
            return set_field(below, rest, value);
        }
        (None, Value::Null) => drop(members.remove(key)),
        (None, value) => drop(members.insert(key.to_owned(), value)),
    }
    Ok(())
}

/// Forgets what a credential rests from.
async fn reset_quota(State(app): State<App>, body: Bytes) -> Result<Json, Refusal> {
    let body = read(&body)?;
    let index = text(&body, "auth_index").to_owned();
    let all = app.state.pool.credentials(app.state.now());
    let found =
        all.iter().find(|status| auth_index(status.id.as_str()) == index || status.id.as_str() == index);
    let found =
        found.ok_or_else(|| Refusal::missing("credential not found").with("auth_index", index.clone()))?;
    app.state.pool.forgive(&found.id, None);
    let models: Vec<_> = found.cooling.iter().filter_map(|(model, _)| model.as_deref()).collect();
    Ok(Json(json!({ "status": "ok", "auth_index": auth_index(found.id.as_str()), "models": models })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_set_within_and_taken_out_by_null() {
        let mut members = json!({"type": "x", "proxy-url": "old", "headers": {"A": "1", "B": "2"}, "weight": 3, "big": 12_345_678_901_234_u64});
        let members = members.as_object_mut().unwrap();
        for (key, value) in [
            ("proxy_url", json!("direct")),
            ("headers", json!({"A": "", "C": "3"})),
            ("weight", Value::Null),
            ("metadata.deep.er", json!(1)),
        ] {
            set_field(members, key, value).unwrap();
        }
        assert_eq!(
            Value::Object(members.clone()),
            json!({"type": "x", "proxy_url": "direct", "headers": {"B": "2", "C": "3"}, "metadata": {"deep": {"er": 1}}, "big": 12_345_678_901_234_u64})
        );
        assert!(set_field(members, "type.x", json!(1)).is_err());
    }

    #[test]
    fn an_index_is_hex_or_a_place() {
        let files =
            [json!({"auth_index": "00000000000000ab", "name": "a"}), json!({"auth_index": "1", "name": "b"})];
        assert_eq!(by_index(&files, "00000000000000ab").unwrap()["name"], "a");
        assert_eq!(by_index(&files, "0").unwrap()["name"], "a");
        assert_eq!(by_index(&files, "0000000000000001"), None);
        assert_eq!(by_index(&files, "7"), None);
    }
}
