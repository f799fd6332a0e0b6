//! Whether there is a newer version: `GET latest-version`.
//!
//! Enters: `remote-management.release-url`. Leaves: what is told there. Nobody is asked who is not configured (501).
//! May go wrong: no answer in [`WITHIN`], an answer that names no version (502).

use super::answer::{Json, Refusal};
use super::{App, Routes};
use crate::upstream::fetch::{self, Question};
use axum::extract::State;
use axum::routing::get;
use config::ProxySetting;
use http::StatusCode;
use secrecy::SecretString;
use serde_json::{Value, json};
use std::time::Duration;

/// Longest wait.
const WITHIN: Duration = Duration::from_secs(10);
/// Most bytes of an answer: a release with its notes.
const MOST: usize = 1 << 20;
/// Longest version.
const LONGEST: usize = 100;

pub(super) fn routes() -> Routes {
    vec![("latest-version".to_owned(), get(latest))]
}

async fn latest(State(app): State<App>) -> Result<Json, Refusal> {
    let snapshot = app.state.snapshot.load_full();
    let Some(url) = &snapshot.config.management.release_url else {
        let refusal = Refusal::new(StatusCode::NOT_IMPLEMENTED, "not_configured");
        return Err(refusal.with("message", "remote-management.release-url says where releases are told"));
    };
    let failed =
        |error: &str, message: String| Refusal::new(StatusCode::BAD_GATEWAY, error).with("message", message);
    let lane = app.state.lanes.to(url.url(), &ProxySetting::Inherit, &snapshot.config);
    let lane = lane.map_err(|error| failed("request_failed", error.to_string()))?;
    let target = if lane.base_path().is_empty() { "/" } else { lane.base_path() };
    let question = Question { method: "GET", target, headers: &[], body: &SecretString::default() };
    let answer =
        fetch::ask_within(&app.connector, &lane, &question, WITHIN, MOST).await.map_err(|error| {
            failed("request_failed", format!("{}: {}", lane.authority(), error.etype().as_str()))
        })?;
    if answer.status != 200 {
        return Err(failed("unexpected_status", format!("status {}", answer.status)));
    }
    let version = version(&answer.body)
        .ok_or_else(|| failed("invalid_response", "the answer names no version".to_owned()))?;
    Ok(Json(json!({ "latest-version": version, "version": app.version })))
}

/// The version that an answer names.
fn version(body: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let version = ["tag_name", "latest-version", "version", "name"]
        .iter()
        .find_map(|key| answer.get(*key).and_then(Value::as_str).map(str::trim).filter(|v| !v.is_empty()))?;
    let legal = version.len() <= LONGEST && version.chars().all(|c| c.is_ascii_graphic());
    legal.then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_word() {
        assert_eq!(version(br#"{"tag_name":" v1.2.3 ","name":"The big one"}"#).as_deref(), Some("v1.2.3"));
        assert_eq!(version(br#"{"version":"2"}"#).as_deref(), Some("2"));
        for none in [&b""[..], b"[]", b"{}", br#"{"tag_name":7}"#, br#"{"name":"The big one"}"#, b"<html>"] {
            assert_eq!(version(none), None);
        }
    }
}
