//! Writing bodies down for a while.
//!
//! Enters: `{"minutes": n, "max-requests": n, "only": {"model": pattern, "client-key": name}}`. Leaves: what is
//! left of it, and the files that there are. May go wrong: numbers out of range, a client key that nobody has
//! (400); nothing may be written (409).

use super::answer::{Json, Refusal};
use super::request_logs::{logs, shown};
use super::{App, Routes};
use crate::observe::body_capture::Wish;
use crate::state::Snapshot;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::get;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time, in minutes.
const MINUTES: u64 = 60;
/// Most requests.
const REQUESTS: u64 = 10_000;
/// Requests where none are named.
const DEFAULT_REQUESTS: u64 = 100;
/// Files that are listed: the newest.
const LISTED: usize = 100;
/// Longest pattern or name.
const LONGEST: usize = 256;

pub(super) fn routes() -> Routes {
    vec![("body-capture".to_owned(), get(show).put(begin).delete(end))]
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Asked {
    minutes: u64,
    #[serde(default = "default_requests")]
    max_requests: u64,
    #[serde(default)]
    only: Only,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Only {
    model: Option<String>,
    client_key: Option<String>,
}

fn default_requests() -> u64 {
    DEFAULT_REQUESTS
}

/// Reads a wish. What it says is not repeated: it may be a key.
fn read(body: &[u8], snapshot: &Snapshot) -> Result<Wish, Refusal> {
    const SHAPE: &str = "invalid body: {\"minutes\": 1 to 60, \"max-requests\": 1 to 10000, \
                         \"only\": {\"model\": pattern, \"client-key\": name}} is meant";
    let asked: Asked = serde_json::from_slice(body).map_err(|_| Refusal::bad(SHAPE))?;
    let long =
        |text: &Option<String>| text.as_ref().is_some_and(|text| text.is_empty() || text.len() > LONGEST);
    if !(1..=MINUTES).contains(&asked.minutes)
        || !(1..=REQUESTS).contains(&asked.max_requests)
        || long(&asked.only.model)
        || long(&asked.only.client_key)
    {
        return Err(Refusal::bad(SHAPE));
    }
    let client_key = asked.only.client_key.map(|name| holder(&name, snapshot)).transpose()?;
    Ok(Wish {
        time: Duration::from_secs(60 * asked.minutes),
        requests: asked.max_requests,
        model: asked.only.model,
        client_key,
    })
}

/// What people call the client key of this name, or of this mask.
fn holder(name: &str, snapshot: &Snapshot) -> Result<String, Refusal> {
    let keys = &snapshot.config.auth.api_keys;
    let names = (0..keys.len()).filter_map(|n| Some((n, &snapshot.keys.holder(n as u32)?.name)));
    let mut found = names.filter(|(n, known)| {
        &***known == name || keys.get(*n).is_some_and(|key| key.api_key.masked() == name)
    });
    match (found.next(), found.next()) {
        (Some((_, name)), None) => Ok(name.to_string()),
        (None, _) => Err(Refusal::bad("no client key is called that; the key itself is no name")),
        _ => Err(Refusal::bad("several client keys are called that")),
    }
}

async fn show(State(app): State<App>) -> Result<Json, Refusal> {
    let left = app.state.request_logs.bodies.left(Instant::now());
    let mut body = match left {
        None => json!({ "active": false }),
        Some(left) => json!({
            "active": true,
            "seconds-left": left.seconds,
            "requests-left": left.requests,
            "captured": left.captured,
            "only": only(left.model, left.client_key),
        }),
    };
    let files: Vec<Value> = logs(&app).await?.iter().take(LISTED).map(shown).collect();
    if let Some(members) = body.as_object_mut() {
        let logging = &app.state.snapshot.load().config.logging;
        members.insert("request-log".to_owned(), logging.request_log.into());
        members.insert("commercial-mode".to_owned(), logging.commercial_mode.into());
        members.insert("dropped".to_owned(), app.state.metrics.request_logs_dropped.get().into());
        members.insert("files".to_owned(), files.into());
    }
    Ok(Json(body))
}

fn only(model: Option<String>, client_key: Option<String>) -> Value {
    let pairs = [("model", model), ("client-key", client_key)];
    pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?)))).collect()
}

async fn begin(State(app): State<App>, body: Bytes) -> Result<Json, Refusal> {
    let snapshot = app.state.snapshot.load_full();
    let wish = read(&body, &snapshot)?;
    if !app.state.request_logs.is_on(&snapshot) || app.state.request_log_folder().is_none() {
        let why = "nothing is written down: commercial-mode is on, or there is no configuration file";
        return Err(Refusal::new(StatusCode::CONFLICT, why));
    }
    let time = wish.time;
    app.state.request_logs.bodies.begin(wish, Instant::now());
    // So that its end is told when it comes, and not with the next request.
    let state = Arc::downgrade(&app.state);
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        if let Some(state) = state.upgrade() {
            state.request_logs.bodies.look(Instant::now());
        }
    });
    show(State(app)).await
}

async fn end(State(app): State<App>) -> Json {
    let ended = app.state.request_logs.bodies.end();
    Json(json!({ "status": "ok", "ended": ended }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;
    use crate::state::accounts::Accounts;

    #[test]
    fn p53_only_a_wish_within_its_bounds_is_one_and_no_key_is_repeated() {
        let text =
            "api-keys: [{api-key: CANARY-0123456789-0123456789, name: ada}, {api-key: b, name: bob}, c]\n";
        let state = State::new(config::load(text.as_bytes()).unwrap().config, Accounts::default()).unwrap().0;
        let snapshot = state.snapshot.load_full();
        let read = |body: &str| read(body.as_bytes(), &snapshot);
        let all =
            read(r#"{"minutes":60,"max-requests":3,"only":{"model":"gpt-*","client-key":"ada"}}"#).unwrap();
        assert_eq!((all.time, all.requests), (Duration::from_hours(1), 3));
        assert_eq!((all.model.as_deref(), all.client_key.as_deref()), (Some("gpt-*"), Some("ada")));
        assert_eq!(read(r#"{"minutes":1}"#).unwrap().requests, DEFAULT_REQUESTS);
        let key = |name: &str| read(&format!(r#"{{"minutes":1,"only":{{"client-key":"{name}"}}}}"#));
        assert_eq!(key("number 3").unwrap().client_key.as_deref(), Some("number 3"));
        assert_eq!(key("CANA...6789").unwrap().client_key.as_deref(), Some("ada"), "as it is shown");
        for bad in [
            "",
            "{}",
            r#"{"minutes":0}"#,
            r#"{"minutes":61}"#,
            r#"{"minutes":-1}"#,
            r#"{"minutes":1,"max-requests":0}"#,
            r#"{"minutes":1,"max-requests":10001}"#,
            r#"{"minutes":1,"for-ever":true}"#,
            r#"{"minutes":1,"only":{"model":""}}"#,
            r#"{"minutes":1,"only":{"client-key":"nobody"}}"#,
            r#"{"minutes":1,"only":{"client-key":"CANARY-0123456789-0123456789"}}"#,
            r#"{"minutes":1,"only":{"client-key":"********"}}"#,
        ] {
            let refusal = read(bad).unwrap_err();
            assert!(!refusal.reason().contains("CANARY"), "{bad}");
        }
    }
}
