//! Stage 0: who asks, and whether anybody may ask anything now.
//!
//! Enters: a request header. Leaves: permission to go on. May go wrong: a header that is too large (431), a
//! missing, wrong or expired key (401), a configuration with the keys of the example (403), more requests than the
//! operator wants at once (503).

use super::endpoint::Endpoint;
use super::error::ProxyError;
use crate::state::keys::{Admission, Holder};
use crate::state::{Snapshot, State};
use pingora::http::RequestHeader;
use std::sync::Arc;

/// Seconds after which a request that was refused for load may come again.
const OVERLOAD_RETRY: u64 = 1;

/// A request that may go on.
#[derive(Clone, Debug, Default)]
pub(super) struct Admitted {
    /// Number of the client key; `None` where none is needed.
    pub key: Option<u32>,
    /// Whose key it is.
    pub holder: Option<Arc<Holder>>,
}

/// Decides.
pub(super) fn admit(
    header: &RequestHeader,
    endpoint: &Endpoint,
    snapshot: &Snapshot,
    state: &State,
) -> Result<Admitted, ProxyError> {
    limits(header, snapshot)?;
    if !endpoint.needs_key() {
        return Ok(Admitted::default());
    }
    if snapshot.keys.has_templates() {
        let message = "Proxy API endpoints are disabled because api-keys contains template values. \
                       Replace them with keys of your own; no restart is needed.";
        return Err(ProxyError::client(403, message).code("unsafe_example_api_key"));
    }
    let admitted = by_key(header, snapshot, state)?;
    let most = i64::from(snapshot.config.server.limits.max_in_flight);
    if most > 0 && state.metrics.in_flight.get() > most {
        state.metrics.shed.with_label_values(&["request"]).inc();
        let mut error = ProxyError::internal(503, "too many requests at once; try again in a second");
        error.failure.retry_after = Some(OVERLOAD_RETRY);
        return Err(error);
    }
    Ok(admitted)
}

/// Whose key a header shows.
pub(super) fn by_key(
    header: &RequestHeader,
    snapshot: &Snapshot,
    state: &State,
) -> Result<Admitted, ProxyError> {
    let key = match snapshot.keys.admit(&header.headers, header.uri.query()) {
        Admission::Key(number) => number,
        Admission::Open => return Ok(Admitted::default()),
        Admission::Missing => return Err(unauthorized("Missing API key")),
        Admission::Wrong => return Err(unauthorized("Invalid API key")),
    };
    let holder = snapshot.keys.holder(key).cloned();
    if let Some(end) = holder.as_ref().and_then(|holder| holder.expired(state.now().wall_s)) {
        state.metrics.key_refusal("expired");
        let message = format!("this API key expired at {end}");
        return Err(ProxyError::client(401, message).code("expired_api_key"));
    }
    Ok(Admitted { key: Some(key), holder })
}

fn limits(header: &RequestHeader, snapshot: &Snapshot) -> Result<(), ProxyError> {
    let limits = &snapshot.config.server.limits;
    let count = header.headers.len();
    let size: usize = header.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let size = size + header.raw_path().len();
    if count > limits.header_count as usize || size > (limits.header_kib as usize) << 10 {
        let message = format!(
            "the request header is larger than {} KiB or {} fields",
            limits.header_kib, limits.header_count
        );
        return Err(ProxyError::client(431, message).closing());
    }
    Ok(())
}

fn unauthorized(message: &str) -> ProxyError {
    ProxyError::client(401, message).code("invalid_api_key")
}
