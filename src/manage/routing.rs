//! Why requests go where they go.
//!
//! Enters: a model. Leaves: who would serve it and why each is in or out; models that several providers
//! serve; what is known of a vendor's models. May go wrong: no model is named, no such vendor (400).

use super::answer::{Json, Refusal};
use super::lists::Parameters;
use super::{App, Routes};
use axum::extract::{Path, Query, State};
use axum::routing::get;
use serde_json::{Value, json};

pub(super) fn routes() -> Routes {
    vec![
        ("routing/explain".to_owned(), get(explain)),
        ("resolve".to_owned(), get(explain)),
        ("routing/collisions".to_owned(), get(collisions)),
        ("model-definitions/{channel}".to_owned(), get(definitions)),
    ]
}

async fn explain(State(app): State<App>, Query(query): Query<Parameters>) -> Result<Json, Refusal> {
    let model = query.get("model").map(|model| model.trim()).filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| Refusal::bad("missing model"))?;
    let found = app.state.pool.explain(model, app.state.now());
    let reasons: Vec<String> = found.candidates.iter().map(|one| one.standing.to_string()).collect();
    let mut shown = serde_json::to_value(&found).unwrap_or_default();
    let candidates = shown.get_mut("candidates").and_then(Value::as_array_mut);
    for (candidate, reason) in candidates.into_iter().flatten().zip(reasons) {
        if let Some(members) = candidate.as_object_mut() {
            members.insert("reason".to_owned(), reason.into());
        }
    }
    Ok(Json(shown))
}

/// What the catalogue knows of a vendor channel.
async fn definitions(Path(channel): Path<String>) -> Result<Json, Refusal> {
    let channel = channel.trim().to_lowercase();
    let known = pool::catalogue::channel(&channel);
    if known.is_empty() {
        return Err(Refusal::bad("unknown channel").with("channel", channel));
    }
    let models: Vec<Value> = known
        .iter()
        .map(|facts| {
            json!({
                "id": &*facts.id,
                "object": "model",
                "display_name": &*facts.name,
                "owned_by": &*facts.owned_by,
                "created": facts.created,
                "context_length": facts.card.context,
                "max_completion_tokens": facts.card.max_output,
            })
        })
        .collect();
    Ok(Json(json!({ "channel": channel, "models": models })))
}

async fn collisions(State(app): State<App>) -> Json {
    let shared = app.state.shared_models();
    let shown: Vec<Value> = shared
        .iter()
        .map(|shared| {
            let explained = app.state.pool.explain(&shared.model, app.state.now());
            let order: Vec<Value> = explained
                .candidates
                .iter()
                .map(|one| json!({ "provider": one.provider, "credential": one.label, "priority": one.priority }))
                .collect();
            let providers: Vec<&str> = shared.providers.iter().map(AsRef::as_ref).collect();
            json!({ "model": &*shared.model, "providers": providers, "order": order })
        })
        .collect();
    let rule = "the highest priority serves; within it names that were set come before usual ones; then the \
                routing strategy goes over all of them";
    Json(json!({ "collisions": shown, "count": shown.len(), "rule": rule }))
}
