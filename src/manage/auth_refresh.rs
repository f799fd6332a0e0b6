//! Tokens are renewed because somebody asks.
//!
//! Enters: an account, or a provider. Leaves: new tokens in the files and in force. May go wrong: there is no
//! such account (404), nothing renews it (400), the token endpoint refuses or is not there (502; of several
//! accounts some: 207).

use super::answer::{Json, Refusal, read};
use super::auth_files::{meant, no_file};
use super::{App, Manage, Routes, beside};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use config::Account;
use futures::{StreamExt, stream};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

/// Renewals at once.
const AT_ONCE: usize = 4;

pub(super) fn routes() -> Routes {
    vec![
        ("auth-files/refresh".to_owned(), post(one)),
        ("auths/{provider}/refresh".to_owned(), post(provider)),
    ]
}

async fn renew(app: &Manage, account: &Account) -> Result<(), Refusal> {
    if !pool::renewal::renewable(account) {
        return Err(Refusal::bad("this account has nothing that renews its token"));
    }
    let old = app.state.sent_secret(&account.file);
    let failed =
        |error: crate::state::renew::NotRenewed| Refusal::new(StatusCode::BAD_GATEWAY, error.to_string());
    app.state.renew(&account.file, old.as_ref()).await.map_err(failed)
}

async fn one(State(app): State<App>, body: Bytes) -> Result<Json, Refusal> {
    let body = read(&body)?;
    let state = Arc::clone(&app.state);
    let name = beside(move || meant(&state, &body)).await??;
    let accounts = app.state.accounts();
    let account = accounts.good.iter().find(|account| account.file == name).ok_or_else(no_file)?;
    renew(&app, account).await?;
    Ok(Json(json!({ "status": "ok", "name": name })))
}

/// Renews all accounts of a provider that can be.
async fn provider(State(app): State<App>, Path(provider): Path<String>) -> Result<Response, Refusal> {
    let wanted = provider.trim().to_lowercase();
    let accounts = app.state.accounts();
    let of: Vec<Account> = accounts.good.into_iter().filter(|account| account.channel == wanted).collect();
    if of.is_empty() {
        return Err(Refusal::missing(format!("there is no account of {wanted}")));
    }
    let results: Vec<(String, Result<(), Refusal>)> = stream::iter(of)
        .map(|account| {
            let app = Arc::clone(&app);
            async move {
                let renewed = renew(&app, &account).await;
                (account.file, renewed)
            }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let (mut renewed, mut failed) = (Vec::new(), Vec::<Value>::new());
    for (name, result) in results {
        match result {
            Ok(()) => renewed.push(name),
            Err(refusal) => failed.push(json!({ "name": name, "error": refusal.reason() })),
        }
    }
    let (status, word) = match (renewed.is_empty(), failed.is_empty()) {
        (_, true) => (StatusCode::OK, "ok"),
        (false, false) => (StatusCode::MULTI_STATUS, "partial"),
        (true, false) => (StatusCode::BAD_GATEWAY, "failed"),
    };
    let mut body = json!({ "status": word, "refreshed": renewed, "failed": failed });
    if status == StatusCode::BAD_GATEWAY {
        body["error"] = "no token was renewed".into();
    }
    Ok((status, Json(body)).into_response())
}
