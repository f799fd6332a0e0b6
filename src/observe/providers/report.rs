//! `GET /v1/metrics/providers`: the accounts of all providers as one JSON document.
//!
//! Enters: [`Providers`] and how the credentials of each provider stand. Leaves: the document: the providers
//! under `providers`, once more at the top under their names, and in short as `data`. Nothing may go wrong. It
//! holds no secrets, addresses or file names.

use super::cell::share;
use super::{Counts, Providers, Window};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Names at the top of the document; a provider of such a name is under `providers` only.
const RESERVED: [&str; 5] = ["object", "updated_at", "window_seconds", "providers", "data"];

/// How the credentials of a provider stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The provider with the list it is configured in: `openai-compatibility:iflow`.
    pub key: String,
    /// Credentials.
    pub total: u64,
    /// Of these: able to serve.
    pub ready: u64,
    /// Of these: resting.
    pub cooling: u64,
    /// Models that it serves.
    pub models: u64,
}

#[derive(Serialize)]
struct Short<'a> {
    provider: &'a str,
    error_rate: f64,
    requests: u64,
    last_seen: Option<String>,
}

/// The document. Every provider of `standing` is in it, called or not.
pub fn document(
    providers: &Providers,
    standing: &BTreeMap<String, Standing>,
    window_s: u64,
    now_s: u64,
) -> Value {
    let mut all: BTreeMap<String, Sum> = BTreeMap::new();
    for name in standing.keys() {
        all.entry(name.clone()).or_default();
    }
    for ((provider, model), (counts, window)) in providers.accounts(window_s, now_s) {
        let sum = all.entry(provider.to_string()).or_default();
        sum.counts.add(&counts);
        sum.window.add(&window);
        sum.models.insert(model.to_string(), (counts, window));
    }
    let data: Vec<Short<'_>> = all
        .iter()
        .map(|(name, sum)| Short {
            provider: name,
            error_rate: share(sum.counts.failed, sum.counts.calls),
            requests: sum.counts.calls,
            last_seen: time(sum.counts.last_s),
        })
        .collect();
    let mut document = json!({
        "object": "provider.metrics",
        "updated_at": time(now_s),
        "window_seconds": window_s,
        "data": data,
    });
    let nobody = Standing::default();
    let told: Map<String, Value> = all
        .iter()
        .map(|(name, sum)| (name.clone(), provider(name, sum, standing.get(name).unwrap_or(&nobody))))
        .collect();
    if let Value::Object(top) = &mut document {
        for (name, provider) in told.iter().filter(|(name, _)| !RESERVED.contains(&name.as_str())) {
            top.insert(name.clone(), provider.clone());
        }
        top.insert("providers".to_owned(), Value::Object(told));
    }
    document
}

#[derive(Default)]
struct Sum {
    counts: Counts,
    window: Window,
    models: BTreeMap<String, (Counts, Window)>,
}

fn provider(name: &str, sum: &Sum, standing: &Standing) -> Value {
    let Sum { counts, window, models } = sum;
    let endpoints: Map<String, Value> = counts
        .endpoints
        .iter()
        .map(|(endpoint, (calls, failed))| {
            ((*endpoint).to_owned(), json!({"request_count": calls, "failure_count": failed}))
        })
        .collect();
    let models: Map<String, Value> =
        models.iter().map(|(model, (counts, window))| (model.clone(), of_model(counts, window))).collect();
    json!({
        "provider": name,
        "provider_key": if standing.key.is_empty() { name } else { &standing.key },
        "request_count": counts.calls,
        "requests": counts.calls,
        "success_count": counts.good,
        "failure_count": counts.failed,
        "success_rate": share(counts.good, counts.calls),
        "error_rate": share(counts.failed, counts.calls),
        "total_tokens": counts.input.saturating_add(counts.output),
        "input_tokens": counts.input,
        "output_tokens": counts.output,
        "cached_tokens": counts.cached,
        "reasoning_tokens": counts.reasoning,
        "usage_missing": counts.usage_missing,
        "empty_content": counts.empty,
        "thinking_mismatch": counts.thinking_mismatch,
        "failover": counts.failover,
        "status": statuses(&counts.status),
        "last_seen": time(counts.last_s),
        "latency_p50_ms": counts.latency.at(0.5),
        "latency_p95_ms": counts.latency.at(0.95),
        "ttft_p50_ms": counts.first_event.at(0.5),
        "ttft_p95_ms": counts.first_event.at(0.95),
        "auth_total": standing.total,
        "auth_ready": standing.ready,
        "auth_cooling": standing.cooling,
        "models": standing.models,
        "endpoints": endpoints,
        "window": of_window(window),
        "model_stats": models,
    })
}

fn of_model(counts: &Counts, window: &Window) -> Value {
    json!({
        "request_count": counts.calls,
        "error_rate": share(counts.failed, counts.calls),
        "status": statuses(&counts.status),
        "total_tokens": counts.input.saturating_add(counts.output),
        "reasoning_tokens": counts.reasoning,
        "latency_p50_ms": counts.latency.at(0.5),
        "ttft_p50_ms": counts.first_event.at(0.5),
        "window": of_window(window),
    })
}

fn of_window(window: &Window) -> Value {
    json!({
        "request_count": window.calls,
        "failure_count": window.failed,
        "error_rate": window.error_rate(),
        "empty_content": window.empty,
        "thinking_mismatch": window.thinking_mismatch,
        "status": statuses(&window.status),
    })
}

fn statuses(counts: &BTreeMap<u16, u64>) -> Map<String, Value> {
    counts.iter().map(|(status, count)| (status.to_string(), Value::from(*count))).collect()
}

/// A point in time; nothing for the beginning of time.
fn time(seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok().filter(|seconds| *seconds > 0)?;
    Some(Timestamp::from_second(seconds).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::tests::call;
    use super::*;

    #[test]
    fn row_7_every_configured_provider_is_there_before_any_traffic() {
        let standing = BTreeMap::from([(
            "iflow".to_owned(),
            Standing {
                key: "openai-compatibility:iflow".to_owned(),
                total: 2,
                ready: 2,
                ..Standing::default()
            },
        )]);
        let told = document(&Providers::default(), &standing, 600, 1_795_237_200);
        assert_eq!(told["iflow"], told["providers"]["iflow"]);
        assert_eq!(told["iflow"]["request_count"], 0);
        assert_eq!(told["iflow"]["provider_key"], "openai-compatibility:iflow");
        assert_eq!(told["iflow"]["auth_total"], 2);
        assert_eq!(told["data"][0]["provider"], "iflow");
        assert_eq!(told["data"][0]["last_seen"], Value::Null);
        assert_eq!(told["updated_at"], "2026-11-21T05:00:00Z");
    }

    #[test]
    fn rows_9_and_110_counts_by_status_and_by_window_and_model() {
        let providers = Providers::default();
        for status in [200, 200, 429, 406] {
            providers.call(&call(&"iflow".into(), &"glm".into(), status), 1_000);
        }
        let told = document(&providers, &BTreeMap::new(), 600, 1_010);
        let iflow = &told["iflow"];
        assert_eq!(iflow["status"], json!({"200": 2, "429": 1, "406": 1}));
        assert_eq!(iflow["error_rate"], 0.5);
        assert_eq!(iflow["model_stats"]["glm"]["window"]["request_count"], 4);
        assert_eq!(iflow["endpoints"]["/v1/chat/completions"]["failure_count"], 2);
        let reserved = Providers::default();
        reserved.call(&call(&"data".into(), &"m".into(), 200), 1);
        let told = document(&reserved, &BTreeMap::new(), 600, 2);
        assert!(told["data"].is_array() && told["providers"]["data"]["requests"] == 1);
    }
}
