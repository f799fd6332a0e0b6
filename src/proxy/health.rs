//! Whether the process is well, and what it is.
//!
//! Enters: nothing. Leaves: `/health`, which says nothing of upstreams: a proxy whose upstreams are down is
//! alive. May go wrong: 503 while it is leaving, so that load balancers send no more.

use crate::state::State;
use std::collections::BTreeSet;
use wire::json;

/// Status and body of `/health`. `detail` is left out by `/healthz` and `/readyz`.
pub(super) fn health(state: &State, version: &str, detail: bool) -> (u16, Vec<u8>) {
    let draining = !state.leave.is_ready();
    let mut out = Vec::new();
    json::object(&mut out, |o| {
        o.str("status", if draining { "draining" } else { "ok" });
        if detail {
            o.str("version", version);
            o.uint("uptime_seconds", state.uptime().as_secs());
            let now = state.now();
            o.uint("models", state.pool.models(now).len() as u64);
            let credentials = state.pool.credentials(now);
            o.uint("credentials", credentials.len() as u64);
            let providers: BTreeSet<_> = credentials.iter().map(|status| &*status.provider).collect();
            o.uint("providers", providers.len() as u64);
        }
    });
    (if draining { 503 } else { 200 }, out)
}

/// The body of `/`.
pub(super) fn root() -> Vec<u8> {
    let mut out = Vec::new();
    json::object(&mut out, |o| {
        o.str("message", "cliproxy");
        o.array("endpoints", |a| {
            for path in [
                "POST /v1/chat/completions",
                "POST /v1/completions",
                "POST /v1/responses",
                "GET /v1/responses (WebSocket)",
                "POST /v1/messages",
                "POST /v1/messages/count_tokens",
                "POST /v1/images/generations",
                "POST /v1/images/edits",
                "POST /v1/embeddings",
                "POST /v1/audio/transcriptions",
                "POST /v1/audio/translations",
                "POST /v1/audio/speech",
                "POST /v1/moderations",
                "POST /v1/rerank",
                "POST /v1beta/models/{model}:generateContent",
                "POST /v1beta/models/{model}:streamGenerateContent",
                "POST /v1beta/models/{model}:embedContent",
                "POST /v1beta/models/{model}:batchEmbedContents",
                "POST /upload/v1beta/files",
                "GET /v1beta/files",
                "GET, DELETE /v1beta/files/{id}",
                "GET /v1/models",
                "GET /v1beta/models",
                "GET /health",
            ] {
                a.str(path);
            }
        });
    });
    out
}
