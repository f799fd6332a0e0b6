//! A double of every provider on one port.
//!
//! Enters: requests as providers get them, also in the absolute form that a forward proxy gets. Leaves: the
//! answer that path, token and model ask for, and one JSON line for each request in a file, which shell lines
//! read: method `m`, target `p`, `proxy` (came in absolute form) with its credentials `pa`, headers `h` (names
//! in lower case), body `b`. May go wrong: a path that no provider has, which is 404; a log that cannot be
//! written, which panics.
//!
//! | token or model | answer |
//! |---|---|
//! | token `bad401`, `bad403`, `bad429`; model `err401`, `err403`, `err429`, `err500` | that status |
//! | model `err406` | 406 to streams; `err406all`: to all |
//! | model `errqwen` | 429, the free quota of Qwen is used up |
//! | model `slow-N` | the answer comes after N milliseconds |
//! | model `gone…` | Google's 404 |
//! | model `banana-empty`, `…image…` (Google) | thought without an answer; a picture |
//! | model `claude-sonnet-4-6` (Antigravity) | 503, no capacity |
//! | model `gpt-5.3-codex-spark` | 400, unless the token is `spark-ok` |
//! | token with `exhausted` (Kiro) | its quota is used up: so says the list of limits, and 402 |
//! | token with `zero` (Antigravity) | a list without models |

mod answers;

use crate::upstream::{Seen, Step, Upstream, json, whole};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

/// A running double; stops with the value.
#[derive(Debug)]
pub struct Double {
    upstream: Upstream,
}

impl Double {
    /// Starts one that writes what it sees to the end of `log`.
    pub fn start(log: &Path) -> Self {
        Self::start_with(log, |_| None)
    }

    /// The same; what `own` answers comes first.
    pub fn start_with(log: &Path, own: impl Fn(&Seen) -> Option<Vec<Step>> + Send + Sync + 'static) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(log).expect("the log can be made");
        let log = Mutex::new(log);
        Self {
            upstream: Upstream::start(move |seen| {
                let call = Call::read(seen);
                note(&log, seen, &call);
                own(seen).unwrap_or_else(|| answer(&call))
            }),
        }
    }

    /// `http://127.0.0.1:port`
    pub fn url(&self) -> String {
        self.upstream.url()
    }

    /// What it saw.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }
}

/// A request as the double looks at it.
struct Call<'a> {
    seen: &'a Seen,
    /// Target without scheme and host.
    target: String,
    /// The target up to its `?`.
    path: String,
    /// Credential, bare.
    token: String,
    /// `null` where it is no JSON.
    body: Value,
    /// As the body or the path names it.
    model: String,
    stream: bool,
}

impl<'a> Call<'a> {
    fn read(seen: &'a Seen) -> Self {
        let target = match seen.path.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or_else(|| "/".to_owned(), |at| rest[at..].to_owned()),
            None => seen.path.clone(),
        };
        let path = target.split('?').next().unwrap_or_default().to_owned();
        let token = ["authorization", "x-api-key", "x-goog-api-key"].into_iter().find_map(|n| seen.header(n));
        let token = token.unwrap_or_default().trim_start_matches("Bearer ").to_owned();
        let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        let in_path = || path.rsplit('/').next()?.split_once(':').map(|(model, _)| model);
        let model = body["model"].as_str().or_else(in_path).unwrap_or_default().to_owned();
        let stream = body["stream"] == true || target.contains("streamGenerateContent");
        Self { seen, target, path, token, body, model, stream }
    }

    /// Where the double is, as the client of this call reached it.
    fn here(&self) -> String {
        format!("http://{}", self.seen.header("host").unwrap_or_default())
    }

    fn ends(&self, end: &str) -> bool {
        self.path.ends_with(end)
    }
}

fn note(log: &Mutex<File>, seen: &Seen, call: &Call<'_>) {
    let headers: serde_json::Map<String, Value> =
        seen.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let line = json!({
        "m": seen.method,
        "p": seen.path,
        "proxy": seen.path.starts_with("http://"),
        "pa": seen.header("proxy-authorization"),
        "h": headers,
        "b": call.body,
    });
    // One write, so that lines of requests at the same time stay whole.
    let mut log = log.lock().expect("no test panicked here");
    log.write_all(format!("{line}\n").as_bytes()).expect("the log takes a line");
}

/// One JSON answer.
fn says(status: u16, body: &Value) -> Vec<Step> {
    vec![json(status, &body.to_string())]
}

fn answer(call: &Call<'_>) -> Vec<Step> {
    if call.seen.method == "GET" {
        return get(call);
    }
    if let Some(steps) = fault(call) {
        return steps;
    }
    let mut steps = generation(call).unwrap_or_else(|| aside(call));
    if let Some(wait) = call.model.strip_prefix("slow-").and_then(|text| text.parse().ok()) {
        steps.insert(0, Step::Sleep(Duration::from_millis(wait)));
    }
    steps
}

fn get(call: &Call<'_>) -> Vec<Step> {
    if call.ends("/getUsageLimits") {
        let used = if call.token.contains("exhausted") { 1000.0 } else { 250.0 };
        return says(
            200,
            &json!({
                "usageBreakdownList": [{
                    "resourceType": "AGENTIC_REQUEST",
                    "usageLimitWithPrecision": 1000.0,
                    "currentUsageWithPrecision": used,
                }],
                "subscriptionInfo": {"subscriptionTitle": "KIRO FREE", "type": "Q_DEVELOPER_STANDALONE_FREE"},
                "nextDateReset": 1_893_456_000,
                "userInfo": {"email": "a@b.test"},
            }),
        );
    }
    if call.path.to_ascii_lowercase().ends_with("/listavailablemodels") {
        return says(
            200,
            &json!({"models": [{
                "modelId": "claude-sonnet-4.5",
                "modelName": "Claude Sonnet 4.5",
                "tokenLimits": {"maxInputTokens": 200_000},
            }]}),
        );
    }
    if call.ends("/copilot_internal/v2/token") {
        let endpoints = json!({"api": call.here()});
        return says(
            200,
            &json!({"token": "tid=double", "expires_at": 4_000_000_000_u64, "endpoints": endpoints}),
        );
    }
    if call.ends("/copilot_internal/user") {
        return says(
            200,
            &json!({
                "copilot_plan": "individual",
                "access_type_sku": "free_limited_copilot",
                "quota_reset_date": "2030-01-01",
                "quota_snapshots": {"premium_interactions": {
                    "entitlement": 300, "remaining": 100, "percent_remaining": 33.3, "unlimited": false,
                    "quota_id": "premium_interactions", "overage_count": 0, "overage_permitted": false,
                }},
            }),
        );
    }
    if call.path.contains("/v1beta/files") {
        return says(200, &json!({"files": []}));
    }
    if call.ends("/models") {
        let ids: &[&str] = if call.path == "/models" {
            &["m1", "gpt-4.1", "claude-sonnet-4.5", "gpt-5.3-codex"]
        } else {
            &["m1", "glm-4.7", "minimax-m2.5"]
        };
        let list: Vec<Value> =
            ids.iter().map(|id| json!({"id": id, "object": "model", "name": id})).collect();
        return says(200, &json!({"object": "list", "data": list, "models": []}));
    }
    says(200, &json!({"data": [], "models": []}))
}

/// What token or model ask for instead of an answer.
fn fault(call: &Call<'_>) -> Option<Vec<Step>> {
    let (token, model) = (call.token.as_str(), call.model.as_str());
    let error = |message: &str, kind: &str| json!({"error": {"message": message, "type": kind}});
    if token == "bad401" || model == "err401" {
        return Some(says(401, &error("token expired", "authentication_error")));
    }
    if token == "bad403" || model == "err403" {
        let body = json!({"error": {"message": "SUBSCRIPTION_REQUIRED", "status": "PERMISSION_DENIED"}});
        return Some(says(403, &body));
    }
    if token == "bad429" || model == "err429" {
        let body = error("rate limited", "rate_limit_error").to_string();
        return Some(vec![with_header(429, "retry-after: 7", &body)]);
    }
    if model == "err500" {
        return Some(says(500, &error("it broke", "server_error")));
    }
    if model == "err406all" || (model == "err406" && call.stream) {
        return Some(says(406, &json!({"error": {"message": "status 406 not acceptable for model"}})));
    }
    if model == "errqwen" {
        let body =
            json!({"error": {"code": "insufficient_quota", "message": "Free allocated quota exceeded."}});
        return Some(says(429, &body));
    }
    None
}

fn with_header(status: u16, header: &str, body: &str) -> Step {
    let length = body.len();
    Step::send(format!(
        "HTTP/1.1 {status} X\r\n{header}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

/// Conversations, by the end of their path.
fn generation(call: &Call<'_>) -> Option<Vec<Step>> {
    if call.ends("/generateAssistantResponse") {
        if call.token.contains("exhausted") {
            let body = json!({"message": "You have reached the limit.", "reason": "MONTHLY_REQUEST_COUNT"});
            return Some(says(402, &body));
        }
        return Some(answers::kiro());
    }
    if call.ends("/chat/completions") {
        return Some(answers::chat(&call.model, call.stream));
    }
    if call.ends("/responses/compact") {
        return Some(answers::compact());
    }
    if call.ends("/responses") {
        return Some(answers::responses(&call.body, &call.token));
    }
    if call.ends("/messages") {
        return Some(answers::claude(&call.body, call.stream));
    }
    if call.path.contains("enerateContent") {
        return Some(answers::google(&call.model, call.path.contains("v1internal"), call.stream));
    }
    None
}

/// Everything else that is posted.
fn aside(call: &Call<'_>) -> Vec<Step> {
    if call.path.contains("/upload/v1beta/files") {
        let begins = call.seen.header("x-goog-upload-command").is_some_and(|c| c.contains("start"));
        if begins {
            let url = format!("{}/upload/v1beta/files?upload_id=u1", call.here());
            let headers = format!("x-goog-upload-url: {url}\r\nx-goog-upload-status: active");
            return vec![with_header(200, &headers, "")];
        }
        let uri = "https://generativelanguage.googleapis.com/v1beta/files/f1";
        let file = json!({"name": "files/f1", "uri": uri, "state": "ACTIVE", "mimeType": "image/png"});
        return says(200, &json!({"file": file}));
    }
    if call.ends("/refreshToken") {
        return says(200, &json!({"accessToken": "at2", "refreshToken": "rt2", "expiresIn": 3600}));
    }
    if call.ends("/token") {
        let tokens = json!({
            "access_token": "at2", "refresh_token": "rt2", "expires_in": 3600, "token_type": "Bearer",
        });
        return says(200, &tokens);
    }
    if call.ends("/images/generations") {
        return says(200, &json!({"created": 1, "data": [{"b64_json": answers::picture()}]}));
    }
    if call.target.contains("v1internal:fetchAvailableModels") {
        return says(200, &answers::antigravity_models(call.token.contains("zero")));
    }
    let tier = json!({"id": "free-tier", "isDefault": true});
    if call.target.contains("v1internal:loadCodeAssist") {
        let body = json!({"cloudaicompanionProject": "double", "currentTier": tier, "allowedTiers": [tier]});
        return says(200, &body);
    }
    if call.target.contains("v1internal:onboardUser") {
        return says(200, &json!({"done": true, "response": {"cloudaicompanionProject": {"id": "double"}}}));
    }
    let message = format!("the double has no {}", call.target);
    vec![whole(404, "application/json", &json!({"error": {"message": message}}).to_string())]
}
