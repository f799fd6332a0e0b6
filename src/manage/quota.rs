//! What is left of each credential, as far as it is known here.
//!
//! Enters: the pool and the account files. Leaves: one element per credential, and one more for each of its
//! models that rests. `quota_remaining` is 0 where an upstream said that nothing is left and `null` where no
//! upstream says. Nothing may go wrong.

use super::answer::Json;
use super::auth_list::{auth_index, refresh_state};
use super::{App, Routes, beside, kiro, providers};
use axum::extract::State;
use axum::routing::get;
use pool::{Class, Rest, Status, renewal};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    vec![("quota".to_owned(), get(quota)), ("kiro-quota".to_owned(), get(kiro::quota))]
}

async fn quota(State(app): State<App>) -> Result<Json, super::Refusal> {
    let app = Arc::clone(&app);
    beside(move || {
        let now = app.state.now();
        let accounts = app.state.accounts();
        let refresh: HashMap<&str, &str> = accounts
            .good
            .iter()
            .map(|account| {
                let expires = account.expires.as_ref().and_then(renewal::expires_s);
                let login = app.state.login_state(&account.file);
                (account.file.as_str(), refresh_state(account, &login, expires, now.wall_s))
            })
            .collect();
        let mut shown = Vec::new();
        for status in app.state.pool.credentials(now) {
            let state = refresh.get(status.id.as_str()).copied().unwrap_or("none");
            let provider = providers::key(&app, &status.provider);
            if !providers::rests(&status) {
                shown.push(element(&status, &provider, state, None, None));
            }
            for (model, rest) in &status.cooling {
                shown.push(element(&status, &provider, state, model.as_deref(), Some(rest)));
            }
        }
        Json(json!({ "quota": shown }))
    })
    .await
}

fn element(
    status: &Status,
    provider: &str,
    refresh: &str,
    model: Option<&str>,
    rest: Option<&Rest>,
) -> Value {
    let used_up = rest.is_some_and(|rest| matches!(rest.class, Class::Quota | Class::Payment));
    json!({
        "provider_key": provider,
        "auth_index": auth_index(status.id.as_str()),
        "label": &*status.label,
        "model_id": model,
        "quota_remaining": used_up.then_some(0),
        "quota_reset_seconds": rest.map(|rest| rest.left_ms.div_ceil(1000)),
        "refresh_state": refresh,
        "disabled": status.disabled,
        "reason": rest.map(|rest| rest.class.name()),
    })
}
