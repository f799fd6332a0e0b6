//! The configuration as a whole.
//!
//! Enters: nothing, or a new file. Leaves: the settings as JSON with masks for secrets, or the file as it is.
//! May go wrong: the new file is no YAML (400), or says what cannot be (422); then the old one stays.

use super::answer::{Refusal, edit, tagged, text};
use super::{App, Routes, beside, providers};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

/// What `GET config` leaves out, as CLIProxyAPI does: where we listen, and who may manage.
const HIDDEN: [&str; 7] = ["host", "port", "extra-listen", "tls", "metrics", "auth-dir", "remote-management"];

pub(super) fn routes() -> Routes {
    let file = get(file).put(replace);
    vec![("config".to_owned(), get(settings)), ("config.yaml".to_owned(), file)]
}

/// All settings in force.
async fn settings(State(app): State<App>) -> Result<Response, Refusal> {
    let (_, etag) = text(&app).await?;
    let shown = beside(move || {
        let mut shown = serde_json::to_value(&app.state.snapshot.load().config).unwrap_or_default();
        if let Some(members) = shown.as_object_mut() {
            members.retain(|key, _| !HIDDEN.contains(&key.as_str()));
            members.insert("providers".to_owned(), providers::abilities(&app));
        }
        shown
    });
    Ok(tagged(shown.await?, &etag))
}

/// The file, secrets and all: it is the operator's own.
async fn file(State(app): State<App>) -> Result<Response, Refusal> {
    let (text, etag) = text(&app).await?;
    Ok(([(CONTENT_TYPE, "application/yaml".to_owned()), (ETAG, etag)], Body::from(text)).into_response())
}

async fn replace(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Result<Response, Refusal> {
    let invalid = |error: &str| Refusal::bad("invalid_yaml").with("message", error);
    let new = String::from_utf8(body.to_vec()).map_err(|_| invalid("the file is not text in UTF-8"))?;
    if new.trim().is_empty() {
        return Err(invalid("it is empty"));
    }
    config::edit::document(&new).map_err(|error| invalid(&error.to_string()))?;
    if let Err(broken) = config::load(new.as_bytes()) {
        let refusal = Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_config");
        return Err(refusal.with("message", broken.to_string()));
    }
    let edited = edit(&app, &headers, move |_| Ok(new)).await?;
    let mut done = json!({ "ok": true, "changed": ["config"], "settings": edited.changed });
    if let (Some(reason), Value::Object(members)) = (&edited.unsaved, &mut done) {
        members.insert("persisted".to_owned(), false.into());
        members.insert("warning".to_owned(), format!("in force until the process ends: {reason}").into());
    }
    Ok(tagged(done, &edited.etag))
}
