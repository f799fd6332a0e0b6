//! Logs of single requests.
//!
//! Enters: names and request ids. Leaves: lists, the files themselves. May go wrong: a name that is none (400), a
//! file that is not there (404). Nothing but request logs of the log folder is read or removed.

use super::answer::{Json, Refusal};
use super::{App, Routes, beside};
use crate::observe::log_folder::{self, Found};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    vec![
        ("request-error-logs".to_owned(), get(errors)),
        ("request-error-logs/{name}".to_owned(), get(download).delete(remove)),
        ("request-log-by-id/{id}".to_owned(), get(by_id)),
    ]
}

/// Logs of failures. There are none of their own where every request is written.
async fn errors(State(app): State<App>) -> Result<Json, Refusal> {
    if app.state.snapshot.load().config.logging.request_log {
        return Ok(Json(json!({ "files": [] })));
    }
    let mut files = logs(&app).await?;
    files.retain(|file| log_folder::is_error(&file.name));
    Ok(Json(json!({ "files": files.iter().map(shown).collect::<Vec<_>>() })))
}

/// The request logs that there are, the newest first.
pub(super) async fn logs(app: &App) -> Result<Vec<Found>, Refusal> {
    let state = Arc::clone(&app.state);
    beside(move || state.request_log_folder().map(|folder| log_folder::list(&folder)).unwrap_or_default())
        .await
}

/// A file of a list.
pub(super) fn shown(file: &Found) -> Value {
    json!({ "name": file.name, "size": file.size, "modified": file.modified })
}

/// A plain name as failures have it.
fn error_name(name: &str) -> Result<&str, Refusal> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if plain && log_folder::is_error(name) {
        Ok(name)
    } else {
        Err(Refusal::bad("invalid name: one of GET request-error-logs is meant"))
    }
}

async fn download(State(app): State<App>, Path(name): Path<String>) -> Result<Response, Refusal> {
    let name = error_name(&name)?.to_owned();
    file(&app, move |_| Some(name)).await
}

async fn by_id(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Refusal> {
    if id.len() != 32 || !id.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(Refusal::bad("invalid id: the 32 hex digits of the answer's x-request-id are meant"));
    }
    file(&app, move |folder| log_folder::of_request(folder, &id.to_ascii_lowercase())).await
}

/// Sends the file that `named` names.
async fn file(
    app: &App,
    named: impl FnOnce(&std::path::Path) -> Option<String> + Send + 'static,
) -> Result<Response, Refusal> {
    let state = Arc::clone(&app.state);
    let read = beside(move || {
        let folder = state.request_log_folder().ok_or_else(missing)?;
        let name = named(&folder).ok_or_else(missing)?;
        let bytes = log_folder::read(&folder, &name).map_err(|error| refused(&error))?;
        Ok::<_, Refusal>((name, bytes))
    });
    let (name, bytes) = read.await??;
    // Its letters are plain.
    let disposition = format!("attachment; filename=\"{name}\"");
    let kind = "text/plain; charset=utf-8".to_owned();
    Ok(([(CONTENT_TYPE, kind), (CONTENT_DISPOSITION, disposition)], bytes).into_response())
}

async fn remove(State(app): State<App>, Path(name): Path<String>) -> Result<Json, Refusal> {
    let name = error_name(&name)?.to_owned();
    let state = Arc::clone(&app.state);
    let removed = beside(move || {
        let folder = state.request_log_folder().ok_or_else(missing)?;
        log_folder::remove(&folder, &name).map_err(|error| refused(&error))
    });
    removed.await??;
    Ok(Json(json!({ "status": "ok" })))
}

fn missing() -> Refusal {
    Refusal::missing("there is no such request log")
}

fn refused(error: &std::io::Error) -> Refusal {
    match error.kind() {
        ErrorKind::NotFound => missing(),
        _ => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the request log: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p58_only_the_plain_name_of_a_failure_is_one() {
        let good = "error-v1-messages-2026-11-21T043700-0123456789abcdef0123456789abcdef.log";
        assert_eq!(error_name(good).unwrap(), good);
        for bad in [
            "",
            ".",
            "..",
            "main.log",
            "error-.log",
            "error-x.log",
            &good["error-".len()..],
            &good.replace("error-", "../error-"),
            &good.replace("error-", "/error-"),
            &good.replace("v1-messages", "../messages"),
            &good.replace("v1-messages", "..\\messages"),
            &good.replace("v1-messages", "%2e%2e%2fmessages"),
            &good.replace("v1", "v\0"),
            &good.replace("v1", "v\n"),
            &good.replace("v1", "v\u{2215}"),
            &good.replace("v1", "\u{430}"),
            &good.replace("v1", "v1\u{202e}"),
            &format!("{good}\0"),
            &format!("{good}/"),
            &good.replace(".log", ".json"),
            &good.replace("abcdef.log", "ABCDEF.log"),
        ] {
            assert!(error_name(bad).is_err(), "{bad:?}");
        }
    }
}
