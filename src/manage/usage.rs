//! Who used how much.
//!
//! Enters: a query string (`from`, `to`, `by`, and globs by the names of dimensions); rows of another process.
//! Leaves: sums, or all rows. May go wrong: a query that cannot be read (400), a store that cannot (503).

use super::answer::{Json, Refusal};
use super::{App, Routes, beside};
use crate::observe::usage::Sums;
use crate::observe::usage::query::{Bill, Query as Question};
use crate::state::usage::UsageRow;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::routing::{get, post};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use url::form_urlencoded;

/// Version of the exported form.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Exported {
    version: u32,
    rows: Vec<UsageRow>,
}

pub(super) fn routes() -> Routes {
    vec![
        ("usage".to_owned(), get(ask)),
        ("usage/export".to_owned(), get(export)),
        ("usage/import".to_owned(), post(import)),
    ]
}

fn unavailable(reason: String) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason)
}

async fn ask(State(app): State<App>, RawQuery(query): RawQuery) -> Result<Json, Refusal> {
    let query = query.unwrap_or_default();
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let question = Question::parse(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let question = question.map_err(Refusal::bad)?;
    let app = Arc::clone(&app);
    let groups = beside(move || app.state.ask_usage(&question)).await?.map_err(unavailable)?;
    let mut total = Sums::default();
    for group in &groups {
        total.add(&group.sums);
    }
    let mut shown = json!(total);
    let bill = Bill::of(&total);
    shown["cost_usd"] = bill.cost_usd.into();
    shown["unpriced_tokens"] = bill.unpriced_tokens.into();
    Ok(Json(json!({ "usage": groups, "total": shown })))
}

async fn export(State(app): State<App>) -> Result<Json, Refusal> {
    let app = Arc::clone(&app);
    let rows = beside(move || app.state.export_usage()).await?.map_err(unavailable)?;
    Ok(Json(json!(Exported { version: VERSION, rows })))
}

async fn import(State(app): State<App>, body: Bytes) -> Result<Json, Refusal> {
    let given: Exported =
        serde_json::from_slice(&body).map_err(|e| Refusal::bad(format!("no export of usage: {e}")))?;
    if given.version != VERSION {
        return Err(Refusal::bad(format!("version {} is not known here", given.version)));
    }
    let (app, count) = (Arc::clone(&app), given.rows.len());
    let taken = beside(move || app.state.import_usage(&given.rows)).await?.map_err(unavailable)?;
    Ok(Json(json!({ "status": "ok", "rows": count, "taken": taken })))
}
