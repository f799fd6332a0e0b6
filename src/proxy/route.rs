//! Stage 2: the model's name → who can serve it.
//!
//! Enters: the name as the client wrote it. Leaves: a [`Route`], which stays with the configuration that it
//! was made under. May go wrong: nobody serves that model; the error names the closest ones.

use super::error::ProxyError;
use crate::state::keys::Holder;
use crate::state::{Snapshot, State};
use pool::{Route, RouteError};
use std::sync::Arc;

/// Finds those who can serve `model`.
pub(super) fn route(
    state: &State,
    snapshot: &Snapshot,
    model: &str,
    holder: Option<&Arc<Holder>>,
) -> Result<Route, ProxyError> {
    state.pool.route(model, state.now()).map_err(|RouteError::Unknown { model, mut closest }| {
        if let Some(holder) = holder.filter(|holder| holder.is_restricted()) {
            // Names of models that it may not use are none of its business.
            closest = state.pool.closest(&model, &|name| holder.allows(name));
        }
        let mut message = format!("unknown provider for model {model}");
        if !closest.is_empty() {
            message.push_str("; did you mean ");
            message.push_str(&closest.join(" or "));
            message.push('?');
        }
        let status = snapshot.config.models.unknown_model_status.code();
        ProxyError::client(status, message).code("model_not_found").param("model")
    })
}
