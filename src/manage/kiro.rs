//! What Kiro says is left of an account.
//!
//! Enters: which account. Leaves: its limits, and what of them is used. Answers are kept for [`KEPT`], so that
//! dashboards ask Amazon once a minute. May go wrong: there is no such account (404; 400 where there is none
//! at all), its upstream does not answer (502).

use super::answer::{Json, Refusal};
use super::auth_list::auth_index;
use super::lists::Parameters;
use super::{App, Manage};
use crate::upstream::fetch::{self, Question};
use axum::extract::{Query, State};
use http::StatusCode;
use parking_lot::Mutex;
use pool::{CredentialSpec, Kind};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::Url;

/// How long an answer counts.
const KEPT: Duration = Duration::from_mins(1);
/// What callers call the account.
const SELECTORS: [&str; 6] = ["auth_index", "authIndex", "AuthIndex", "index", "auth_id", "auth-id"];

/// Answers by credential.
pub(super) type Cache = Mutex<HashMap<String, (Instant, Value)>>;

/// `GET kiro-quota`.
pub(super) async fn quota(State(app): State<App>, Query(query): Query<Parameters>) -> Result<Json, Refusal> {
    let asked = SELECTORS.iter().find_map(|key| query.get(*key)).map(|index| index.trim());
    let asked = asked.filter(|index| !index.is_empty());
    let accounts = app.state.pool.accounts(Kind::Kiro, app.state.now());
    let specs: Vec<CredentialSpec> = accounts.into_iter().map(|account| account.spec).collect();
    let found = match asked {
        None => specs.first(),
        Some(wanted) => {
            let named =
                |spec: &&CredentialSpec| spec.id.as_str() == wanted || auth_index(spec.id.as_str()) == wanted;
            let place = || specs.get(wanted.parse::<usize>().ok().filter(|_| wanted.len() < 16)?);
            let first = || specs.first().filter(|_| query.get("fallback").is_some_and(|f| f == "first"));
            specs.iter().find(named).or_else(place).or_else(first)
        }
    };
    let Some(spec) = found else {
        let refusal = |status| Refusal::new(status, "no kiro credential found");
        return Err(match asked {
            Some(index) => refusal(StatusCode::NOT_FOUND).with("auth_index", index),
            None => refusal(StatusCode::BAD_REQUEST),
        });
    };
    let key = spec.id.to_string();
    if let Some((at, known)) = app.kiro.lock().get(&key)
        && at.elapsed() < KEPT
    {
        return Ok(Json(known.clone()));
    }
    let usage = ask(&app, spec).await?;
    let shown = shown(spec, &usage, app.state.now().wall_s);
    let mut cache = app.kiro.lock();
    cache.retain(|_, (at, _)| at.elapsed() < KEPT);
    cache.insert(key, (Instant::now(), shown.clone()));
    Ok(Json(shown))
}

/// Asks, and once more with a renewed token where the old one is refused.
async fn ask(app: &Arc<Manage>, spec: &CredentialSpec) -> Result<Value, Refusal> {
    let sent = || app.state.sent_secret(spec.id.as_str()).unwrap_or_else(|| spec.secret.clone());
    let token = sent();
    let mut answer = once(app, spec, &token).await?;
    if answer.0 == 401 && spec.refreshable {
        let renewed = app.state.renew(spec.id.as_str(), Some(&token)).await;
        renewed.map_err(|error| failed(error.to_string()))?;
        answer = once(app, spec, &sent()).await?;
    }
    let (status, body) = answer;
    if status != 200 {
        return Err(failed(format!("the upstream answered {status}")));
    }
    serde_json::from_slice(&body).map_err(|_| failed("the upstream's answer is not JSON".to_owned()))
}

fn failed(detail: String) -> Refusal {
    Refusal::new(StatusCode::BAD_GATEWAY, "kiro quota request failed").with("detail", detail)
}

async fn once(app: &Manage, spec: &CredentialSpec, token: &SecretString) -> Result<(u16, Vec<u8>), Refusal> {
    let snapshot = app.state.snapshot.load_full();
    let mut spec = spec.clone();
    if spec.base_url.is_empty() {
        spec.base_url = Arc::from(format!("https://codewhisperer.{}.amazonaws.com", region(&spec.scope)));
    }
    let lane =
        app.state.lanes.get(&spec, None, &snapshot.config).map_err(|error| failed(error.to_string()))?;
    let mut url = Url::parse(&spec.base_url).map_err(|error| failed(error.to_string()))?;
    url.set_path(&format!("{}/getUsageLimits", url.path().trim_end_matches('/')));
    url.query_pairs_mut().append_pair("origin", "AI_EDITOR").append_pair("resourceType", "AGENTIC_REQUEST");
    if spec.scope.is_empty() {
        url.query_pairs_mut().append_pair("isEmailRequired", "true");
    } else {
        url.query_pairs_mut().append_pair("profileArn", &spec.scope);
    }
    let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
    let headers = [("authorization", SecretString::from(format!("Bearer {}", token.expose_secret())))];
    let question =
        Question { method: "GET", target: &target, headers: &headers, body: &SecretString::default() };
    fetch::ask(&app.connector, &lane, &question)
        .await
        .map_err(|error| failed(format!("{}: {}", lane.authority(), error.etype().as_str())))
}

/// The region that an account's profile lies in: `arn:aws:codewhisperer:REGION:…`.
fn region(arn: &str) -> &str {
    let region = arn.split(':').nth(3).unwrap_or_default();
    let legal =
        region.split('-').count() >= 3 && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if legal { region } else { "us-east-1" }
}

fn shown(spec: &CredentialSpec, usage: &Value, now_s: u64) -> Value {
    let list =
        usage.get("usageBreakdownList").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    let pair = |value: &Value| {
        (number(value, "usageLimitWithPrecision"), number(value, "currentUsageWithPrecision"))
    };
    let trials = list.iter().filter_map(|one| one.get("freeTrialInfo")).filter(|trial| trial.is_object());
    let all: Vec<(f64, f64)> = list.iter().chain(trials).map(pair).collect();
    let (limit, used) = list.iter().map(pair).fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let remaining: f64 = all.iter().map(|(limit, used)| (limit - used).max(0.0)).sum();
    let percentage = if limit > 0.0 { used / limit * 100.0 } else { 100.0 };
    let reset =
        usage.get("nextDateReset").and_then(Value::as_f64).map(|at| (at as u64).saturating_sub(now_s));
    json!({
        "auth_index": auth_index(spec.id.as_str()),
        "provider_key": &*spec.provider,
        "profile_arn": &*spec.scope,
        "remaining_quota": rounded(remaining),
        "usage_percentage": rounded(percentage),
        "quota_exhausted": all.iter().all(|(limit, used)| used >= limit),
        "quota_reset_seconds": reset,
        "subscription_title": usage.pointer("/subscriptionInfo/subscriptionTitle"),
        "refreshed_at": jiff::Timestamp::now(),
        "usage": {
            "usageBreakdownList": list,
            "subscriptionInfo": usage.get("subscriptionInfo"),
            "nextDateReset": usage.get("nextDateReset"),
        },
    })
}

/// Whole numbers without a point, others with two digits.
fn rounded(number: f64) -> Value {
    let cut = (number * 100.0).round() / 100.0;
    if cut.fract() == 0.0 && cut.abs() < 1e15 { json!(cut as i64) } else { json!(cut) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pool::{CredentialId, ModelSet};

    fn of(usage: &Value) -> Value {
        let spec =
            CredentialSpec::new(CredentialId::new("kiro-a.json"), "kiro", Kind::Kiro, ModelSet::new([]));
        shown(&spec, usage, 1000)
    }

    #[test]
    fn row_20_sums_over_limits_and_trials() {
        let one = |limit: f64, used: f64| json!({"usageLimitWithPrecision": limit, "currentUsageWithPrecision": used});
        let quarter = of(&json!({"usageBreakdownList": [one(1000.0, 250.0)], "nextDateReset": 1060.0}));
        assert_eq!((&quarter["remaining_quota"], &quarter["usage_percentage"]), (&json!(750), &json!(25)));
        assert_eq!(
            (&quarter["quota_exhausted"], &quarter["quota_reset_seconds"]),
            (&json!(false), &json!(60))
        );
        let mut with_trial = one(100.0, 100.0);
        with_trial["freeTrialInfo"] = one(50.0, 10.5);
        let trial = of(&json!({"usageBreakdownList": [with_trial]}));
        assert_eq!((&trial["remaining_quota"], &trial["quota_exhausted"]), (&json!(39.5), &json!(false)));
        let over = of(&json!({"usageBreakdownList": [one(10.0, 12.0)]}));
        assert_eq!((&over["remaining_quota"], &over["usage_percentage"]), (&json!(0), &json!(120)));
        let none = of(&json!({}));
        assert_eq!((&none["usage_percentage"], &none["quota_exhausted"]), (&json!(100), &json!(true)));
    }

    #[test]
    fn regions_come_from_the_profile() {
        assert_eq!(region("arn:aws:codewhisperer:eu-central-1:0:profile/A"), "eu-central-1");
        for odd in ["", "arn", "arn:aws:codewhisperer:evil.test/:0:p", "a:b:c:x:d"] {
            assert_eq!(region(odd), "us-east-1", "{odd}");
        }
    }
}
