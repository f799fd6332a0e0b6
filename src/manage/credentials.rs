//! How busy every credential is, and what it rests from.
//!
//! Enters: the pool. Leaves: one element per credential, of a file or of the configuration, and the requests
//! under way in all. Keys and tokens stay where they are. Nothing may go wrong.

use super::answer::Json;
use super::auth_list::auth_index;
use super::{App, Routes, beside, providers};
use axum::extract::State;
use axum::routing::get;
use pool::Status;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    vec![("credentials".to_owned(), get(list))]
}

async fn list(State(app): State<App>) -> Result<Json, super::Refusal> {
    let app = Arc::clone(&app);
    beside(move || {
        let all = app.state.pool.credentials(app.state.now());
        let shown: Vec<Value> =
            all.iter().map(|status| element(status, &providers::key(&app, &status.provider))).collect();
        Json(json!({ "credentials": shown, "in_flight": app.state.metrics.in_flight.get() }))
    })
    .await
}

fn element(status: &Status, provider_key: &str) -> Value {
    let cooling: Vec<Value> = status
        .cooling
        .iter()
        .map(|(model, rest)| {
            json!({
                "model": model.as_deref(),
                "reason": rest.class.name(),
                "status": rest.status,
                "left_seconds": rest.left_ms.div_ceil(1000),
            })
        })
        .collect();
    json!({
        "auth_index": auth_index(status.id.as_str()),
        "label": &*status.label,
        "provider": &*status.provider,
        "provider_key": provider_key,
        "disabled": status.disabled,
        "in_flight": status.in_flight,
        "in_flight_limit": status.in_flight_limit,
        "latency_ms": status.latency_ms,
        "success": status.succeeded,
        "failed": status.failed,
        "cooling": cooling,
    })
}
