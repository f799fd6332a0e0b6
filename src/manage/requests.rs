//! Requests that are over: one by one, and counted by account and key.
//!
//! Enters: entries of the feed, the pool. Leaves: a request as the event stream shows it; `GET usage-queue`, which
//! hands each record out once; `GET api-key-usage`; `recent_requests` of lists. Keys are masked everywhere. May go
//! wrong: a count that is none (400).
//!
//! The shapes of the queue and of `recent_requests` are those of CLIProxyAPI, with what is known here: one record
//! per request, under the credential that served it last; `input_tokens` includes what was cached.

use super::answer::{Json, Refusal};
use super::auth_list::auth_index;
use super::lists::Parameters;
use super::{App, Routes, beside};
use crate::observe::feed::Entry;
use crate::state::State as Shared;
use axum::extract::{Query, State};
use axum::routing::get;
use jiff::Timestamp;
use pool::{RECENT_BUCKET_S, RECENT_BUCKETS, Recent};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};
use wire::json::{self as write, Object};

/// Most records of one answer.
const MOST: usize = 10_000;

pub(super) fn routes() -> Routes {
    vec![("usage-queue".to_owned(), get(queue)), ("api-key-usage".to_owned(), get(by_key))]
}

fn moment(at_ms: u64) -> String {
    Timestamp::from_millisecond(at_ms as i64).unwrap_or_default().to_string()
}

/// What kind of error it was: what the last attempt was found to be, or whose fault it was where none was made.
fn class(entry: &Entry) -> &'static str {
    match (entry.facts.status, entry.facts.class) {
        (..400, _) => "",
        (499, _) => "client_gone",
        (_, "") if entry.facts.status < 500 => "client",
        (_, "") => "internal",
        (_, class) => class,
    }
}

/// A request for the event stream.
pub(super) fn shown(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write::object(&mut out, |o| members(entry, o));
    out
}

fn members(entry: &Entry, o: &mut Object<'_>) {
    let facts = &entry.facts;
    o.str("timestamp", &moment(entry.at_ms));
    o.str("request_id", &facts.request_id);
    let index = facts.credential_id.as_ref().map(|id| auth_index(id.as_str()));
    for (key, value) in [
        ("client_key", entry.key.as_ref().map_or("", |key| &*key.name)),
        ("endpoint", facts.endpoint()),
        ("client", facts.client),
        ("operation", facts.operation),
        ("model", &facts.model),
        ("resolved_model", &facts.resolved),
        ("provider", &facts.provider),
        ("account", &facts.credential),
        ("auth_index", index.as_deref().unwrap_or_default()),
        ("error_class", class(entry)),
        ("error", &facts.error),
    ] {
        if !value.is_empty() {
            o.str(key, value);
        }
    }
    o.uint("status", u64::from(facts.status));
    o.uint("attempts", u64::from(facts.attempts));
    o.bool("stream", facts.stream);
    o.uint("latency_ms", facts.latency_ms);
    if let Some(first) = facts.first_event_ms {
        o.uint("ttft_ms", first);
    }
    if facts.waited_ms > 0 {
        o.uint("waited_ms", facts.waited_ms);
    }
    if !facts.usage.is_unknown() {
        let usage = &facts.usage;
        o.object("tokens", |o| {
            o.uint("input_tokens", usage.prompt());
            o.uint("cached_tokens", usage.cache_read.unwrap_or(0));
            o.uint("cache_write_tokens", usage.cache_write.unwrap_or(0));
            o.uint("output_tokens", usage.output.unwrap_or(0));
            o.uint("reasoning_tokens", usage.reasoning.unwrap_or(0));
            o.uint("total_tokens", usage.total());
        });
    }
}

/// `GET usage-queue`: the oldest records that nobody has fetched.
async fn queue(State(app): State<App>, Query(query): Query<Parameters>) -> Result<Json, Refusal> {
    let count = match query.get("count").map(|text| text.parse::<usize>()) {
        None => 1,
        Some(Ok(count @ 1..)) => count.min(MOST),
        Some(_) => return Err(Refusal::bad("invalid count")),
    };
    beside(move || {
        let state = &app.state;
        let wanted_ms = state.snapshot.load().config.logging.usage_queue_ms();
        let now_ms = Timestamp::now().as_millisecond().max(0) as u64;
        let accounts = state.accounts();
        let logins: HashSet<&str> =
            accounts.good.iter().filter(|a| a.is_token).map(|a| a.file.as_str()).collect();
        let taken = state.feed.pop(count, now_ms, wanted_ms);
        Json(taken.iter().map(|entry| record(entry, &logins)).collect())
    })
    .await
}

/// A record of the queue.
fn record(entry: &Entry, logins: &HashSet<&str>) -> Value {
    let (facts, usage) = (&entry.facts, &entry.facts.usage);
    let id = facts.credential_id.as_ref().map(pool::CredentialId::as_str);
    let count = |tokens: Option<u64>| tokens.unwrap_or(0);
    let failed = entry.is_error();
    let output = count(usage.output);
    json!({
        "timestamp": moment(entry.at_ms),
        "latency_ms": facts.latency_ms,
        "ttft_ms": facts.first_event_ms.unwrap_or(0),
        "source": facts.credential,
        "auth_index": id.map(auth_index),
        "client_ip": facts.client_ip,
        "user_agent": facts.user_agent,
        "tokens": {
            "input_tokens": usage.prompt(),
            "output_tokens": output,
            "reasoning_tokens": count(usage.reasoning),
            "cached_tokens": count(usage.cache_read),
            "cache_read_tokens": count(usage.cache_read),
            "cache_read_tokens_present": usage.cache_read.is_some(),
            "cache_creation_tokens": count(usage.cache_write),
            "total_tokens": usage.total(),
        },
        "token_breakdown": {
            "total_tokens": usage.total(),
            "input": {
                "total_tokens": usage.prompt(),
                "uncached_tokens": count(usage.input).saturating_add(count(usage.tool_prompt)),
                "cache_read_tokens": count(usage.cache_read),
                "cache_write_tokens": count(usage.cache_write),
            },
            "output": {
                "total_tokens": output,
                "non_reasoning_tokens": output.saturating_sub(count(usage.reasoning)),
                "reasoning_tokens": count(usage.reasoning),
            },
        },
        "failed": failed,
        "generate": facts.operation == "generate",
        "fail": { "status_code": facts.status, "body": if failed { facts.error.as_str() } else { "" } },
        "provider": facts.provider,
        "model": facts.resolved,
        "alias": facts.model,
        "endpoint": format!("{} {}", facts.method, facts.endpoint()),
        "auth_type": id.map(|id| if logins.contains(id) { "oauth" } else { "apikey" }),
        "api_key": entry.key.as_ref().map_or("", |key| &*key.masked),
        "client_key": entry.key.as_ref().map(|key| &*key.name),
        "request_id": facts.request_id,
        "attempts": facts.attempts,
        "stream": facts.stream,
    })
}

/// The last hours of a credential, in UTC.
pub(super) fn recent(buckets: &[Recent; RECENT_BUCKETS]) -> Value {
    let clock = |seconds: u64| {
        let moment = Timestamp::from_second(seconds as i64).unwrap_or_default();
        moment.strftime("%H:%M").to_string()
    };
    buckets
        .iter()
        .map(|bucket| {
            let time = format!("{}-{}", clock(bucket.start_s), clock(bucket.start_s + RECENT_BUCKET_S));
            json!({ "time": time, "success": bucket.succeeded, "failed": bucket.failed })
        })
        .collect()
}

/// `GET api-key-usage`: how the keys of the configuration fared.
async fn by_key(State(app): State<App>) -> Result<Json, Refusal> {
    beside(move || Json(keys(&app.state))).await
}

fn keys(state: &Shared) -> Value {
    let now = state.now();
    let lately = state.pool.recent(now);
    let specs = pool::from_config(&state.snapshot.load().config, &[]).1;
    let standing: BTreeMap<_, _> =
        state.pool.credentials(now).into_iter().map(|status| (status.id.clone(), status)).collect();
    let mut providers: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for spec in specs {
        let masked = config::Secret::from(secrecy::ExposeSecret::expose_secret(&spec.secret)).masked();
        let keys = providers.entry(spec.provider.to_string()).or_default();
        let mut name = format!("{}|{masked}", spec.base_url);
        if keys.contains_key(&name) {
            // Short keys all look the same.
            name = format!("{name} ({})", spec.label);
        }
        let status = standing.get(&spec.id);
        let told = json!({
            "success": status.map_or(0, |status| status.succeeded),
            "failed": status.map_or(0, |status| status.failed),
            "auth_index": auth_index(spec.id.as_str()),
            "recent_requests": lately.get(&spec.id).map(recent),
        });
        keys.insert(name, told);
    }
    json!(providers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::feed::ClientKey;
    use crate::observe::request::Facts;
    use std::sync::Arc;
    use wire::ir::Usage;

    fn entry(status: u16, class: &'static str) -> Entry {
        let usage = Usage {
            input: Some(5),
            cache_read: Some(7),
            output: Some(4),
            reasoning: Some(1),
            ..Usage::default()
        };
        let facts = Facts {
            request_id: "r".to_owned(),
            model: "fast".to_owned(),
            resolved: "gpt\n5".to_owned(),
            provider: "codex".to_owned(),
            credential: "a@b".to_owned(),
            credential_id: Some(pool::CredentialId::new("codex-a.json")),
            operation: "generate",
            client: "claude",
            method: "POST".to_owned(),
            status,
            class,
            usage,
            ..Facts::default()
        };
        let key = ClientKey { name: Arc::from("alice"), masked: Arc::from("sk-a…wxyz") };
        Entry::new(facts, Some(key), 1_700_000_000_123)
    }

    #[test]
    fn a_request_is_one_line_of_json() {
        let line = shown(&entry(429, "rate_limit"));
        assert!(!line.contains(&b'\n'));
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["timestamp"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["auth_index"], auth_index("codex-a.json"));
        assert_eq!((&value["error_class"], &value["client_key"]), (&json!("rate_limit"), &json!("alice")));
        assert_eq!(value["tokens"]["input_tokens"], 12);
        for (status, class, told) in
            [(200, "rate_limit", ""), (499, "", "client_gone"), (404, "", "client"), (500, "", "internal")]
        {
            assert_eq!(super::class(&entry(status, class)), told, "{status}");
        }
    }

    #[test]
    fn records_of_the_queue_have_the_known_shape_and_no_key() {
        let record = record(&entry(200, ""), &HashSet::from(["codex-a.json"]));
        assert_eq!((&record["model"], &record["alias"]), (&json!("gpt\n5"), &json!("fast")));
        assert_eq!((&record["auth_type"], &record["api_key"]), (&json!("oauth"), &json!("sk-a…wxyz")));
        assert_eq!(record["endpoint"], "POST /v1/messages");
        assert_eq!(record["tokens"]["total_tokens"], 16);
        assert_eq!(record["token_breakdown"]["input"]["uncached_tokens"], 5);
        assert_eq!(record["token_breakdown"]["output"]["non_reasoning_tokens"], 3);
        assert_eq!((&record["failed"], &record["fail"]["status_code"]), (&json!(false), &json!(200)));
    }

    #[test]
    fn the_last_hours_are_told_by_the_clock() {
        let mut buckets = [Recent::default(); RECENT_BUCKETS];
        buckets[0] = Recent { start_s: 1_700_000_400, succeeded: 2, failed: 1 };
        let told = recent(&buckets);
        assert_eq!(told[0], json!({"time": "22:20-22:30", "success": 2, "failed": 1}));
        assert_eq!(told.as_array().unwrap().len(), 20);
    }
}
