//! Whether an account is good: its token is renewed, and its upstream or the process is asked what it may use.
//!
//! Enters: an account. Leaves: an [`Outcome`]. Failed: its file cannot be used, its token was not renewed, or
//! what it may use is nothing. What an upstream would say to a request is known for Kiro only, which has a
//! question of its own; of the others it is known when they serve.

use super::{Outcome, is_renewable};
use crate::cli::remote::{Fault, Remote, elements, escaped, number, text};
use serde_json::{Value, json};

/// Columns beside the name and the result.
pub(super) const COLUMNS: [&str; 3] = ["TOKEN", "MODELS", "QUOTA"];

/// Verifies. Accounts that are switched off are left alone, unless they were `named`.
pub(super) async fn verify(remote: &Remote, account: &Value, named: bool) -> Outcome {
    Outcome::new(account, checked(remote, account, named).await)
}

async fn checked(remote: &Remote, account: &Value, named: bool) -> Result<Vec<String>, String> {
    let off = account.get("disabled") == Some(&Value::Bool(true));
    if off && !named {
        return Ok(vec!["switched off".to_owned()]);
    }
    if number(account, "models") == 0 && text(account, "status") == "error" {
        return Err(text(account, "status_message").to_owned());
    }
    let name = text(account, "name");
    let token = if is_renewable(account) {
        let renewed = remote.send("POST", "auth-files/refresh", &json!({ "name": name })).await;
        renewed.map_err(|fault| format!("its token was not renewed: {}", fault.reason()))?;
        "renewed"
    } else if has_ended(account) {
        return Err("its token ran out, and nothing in the file renews it".to_owned());
    } else {
        "has no renewal"
    };
    let models = remote.get(&format!("auth-files/models?name={}", escaped(name))).await;
    let models = elements(&models.map_err(|fault| fault.reason())?, "models").len();
    if models == 0 && !off {
        return Err("it serves no model".to_owned());
    }
    let quota = match text(account, "provider") {
        "kiro" => of_kiro(remote, account).await?,
        _ => known_quota(remote, account).await?,
    };
    Ok(vec![token.to_owned(), models.to_string(), quota])
}

fn has_ended(account: &Value) -> bool {
    let ends = text(account, "expires_at").parse::<jiff::Timestamp>();
    ends.is_ok_and(|ends| ends < jiff::Timestamp::now())
}

/// What Kiro itself says is left.
async fn of_kiro(remote: &Remote, account: &Value) -> Result<String, String> {
    let path = format!("kiro-quota?auth_index={}", escaped(text(account, "auth_index")));
    let quota =
        remote.get(&path).await.map_err(|fault| format!("its quota is not told: {}", fault.reason()))?;
    let left = quota.get("remaining_quota").and_then(Value::as_f64);
    Ok(left.map_or("?".to_owned(), |left| format!("{left} left")))
}

/// What the process knows of its quota.
async fn known_quota(remote: &Remote, account: &Value) -> Result<String, String> {
    let quota = remote.get("quota").await.map_err(|fault: Fault| fault.reason())?;
    let index = text(account, "auth_index");
    let own = elements(&quota, "quota").iter().filter(|one| text(one, "auth_index") == index);
    let left: Vec<f64> = own.filter_map(|one| one.get("quota_remaining")?.as_f64()).collect();
    Ok(left.into_iter().reduce(f64::min).map_or("?".to_owned(), |left| format!("{left} left")))
}
