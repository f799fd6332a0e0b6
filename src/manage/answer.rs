//! Answers of the sidecar: JSON, refusals, entity tags.
//!
//! Enters: values and reasons. Leaves: responses. Nothing may go wrong.

use super::{App, beside};
use crate::state::config_file::{EditError, Edited, etag};
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;

/// Why something was not done.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    body: Value,
    retry_after: Option<u64>,
}

impl Refusal {
    /// A reason for people.
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, body: json!({ "error": error.into() }), retry_after: None }
    }

    /// The request is wrong.
    pub(super) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// What is asked for is not there.
    pub(super) fn missing(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    /// The same with one more member.
    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        if let Some(body) = self.body.as_object_mut() {
            body.insert(key.to_owned(), value.into());
        }
        self
    }

    /// The same with the seconds after which it may be tried again.
    pub(super) fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The reason.
    pub(super) fn reason(&self) -> &str {
        self.body.get("error").and_then(Value::as_str).unwrap_or_default()
    }

    /// As an answer.
    pub(super) fn response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.response()
    }
}

impl From<EditError> for Refusal {
    fn from(error: EditError) -> Self {
        let status = match &error {
            EditError::Stale => StatusCode::PRECONDITION_FAILED,
            EditError::Unreadable(_) => StatusCode::INTERNAL_SERVER_ERROR,
            EditError::Edit(_) => StatusCode::CONFLICT,
            EditError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, error.to_string())
    }
}

impl From<config::edit::EditError> for Refusal {
    fn from(error: config::edit::EditError) -> Self {
        EditError::Edit(error).into()
    }
}

/// A JSON body.
#[derive(Debug)]
pub(super) struct Json(pub Value);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        let kind = HeaderValue::from_static("application/json");
        ([(CONTENT_TYPE, kind)], Body::from(self.0.to_string())).into_response()
    }
}

/// A JSON body with the tag of the text that it was read from.
pub(super) fn tagged(body: Value, etag: &str) -> Response {
    let mut response = Json(body).into_response();
    if let Ok(tag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// The answer to a change of the configuration.
pub(super) fn changed(edited: Edited) -> Response {
    let mut body = json!({ "status": "ok" });
    if let (Some(reason), Some(members)) = (edited.unsaved, body.as_object_mut()) {
        members.insert("persisted".to_owned(), false.into());
        members.insert("warning".to_owned(), format!("in force until the process ends: {reason}").into());
    }
    tagged(body, &edited.etag)
}

/// Changes the configuration, beside the sidecar's thread. `If-Match` says for which text it is meant.
pub(super) async fn edit(
    app: &App,
    headers: &HeaderMap,
    change: impl FnOnce(&str) -> Result<String, Refusal> + Send + 'static,
) -> Result<Edited, Refusal> {
    let expected = headers.get(IF_MATCH).and_then(|tag| tag.to_str().ok()).map(|tag| tag.trim().to_owned());
    let state = Arc::clone(&app.state);
    beside(move || state.edit_config(expected.as_deref(), change)).await?
}

/// Puts a value at a path of the configuration; `None` takes it out.
pub(super) async fn put(
    app: &App,
    headers: &HeaderMap,
    path: &'static [&'static str],
    value: Option<Value>,
) -> Result<Response, Refusal> {
    let edited = edit(app, headers, move |text| Ok(config::edit::rewrite(text, path, value.as_ref())?));
    edited.await.map(changed)
}

/// The text of the configuration and its tag.
pub(super) async fn text(app: &App) -> Result<(String, String), Refusal> {
    let state = Arc::clone(&app.state);
    let text = beside(move || state.config_file.text()).await??;
    let tag = etag(&text);
    Ok((text, tag))
}

/// The last document that was read, by the tag of its text.
pub(super) type Cache = Mutex<Option<(String, Arc<Value>)>>;

/// The configuration as values, and the tag of its text. Reading it again takes half a millisecond, and dashboards
/// ask for each part of it.
pub(super) async fn document(app: &App) -> Result<(Arc<Value>, String), Refusal> {
    let (text, tag) = text(app).await?;
    if let Some((of, document)) = &*app.document.lock()
        && *of == tag
    {
        return Ok((Arc::clone(document), tag));
    }
    let document = Arc::new(config::edit::document(&text)?);
    *app.document.lock() = Some((tag.clone(), Arc::clone(&document)));
    Ok((document, tag))
}

/// Reads a JSON body.
pub(super) fn read(body: &Bytes) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|_| Refusal::bad("invalid body"))
}
