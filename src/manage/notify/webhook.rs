//! An alert as a post.
//!
//! Enters: an address of the operator's, an alert. Leaves: JSON, signed where there is a key. May go wrong: no
//! way there, no answer in time, any status but 2xx. Redirects are answers like others: they are not followed.
//! Link-local addresses are refused where names are resolved, as for all upstreams (P59, P60); loopback and
//! private ones are the operator's own business.

use super::{Failed, Told};
use crate::manage::App;
use crate::observe::alerts::Alert;
use crate::upstream::fetch::{Question, ask_within};
use config::{HeaderValue, NotifyTarget, Secret, WebhookUrl};
use hmac::{Hmac, Mac};
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use sha2::Sha256;
use std::fmt::Write as _;
use std::time::Duration;

/// Most bytes of an answer that are read.
const MOST: usize = 1 << 20;
/// Name of the header with the signature: `sha256=` and hex.
const SIGNATURE: &str = "x-cliproxy-signature";
/// Name of the header that is the same for all tries of one notification.
const DELIVERY: &str = "x-cliproxy-delivery";

/// HMAC-SHA256 of a body (RFC 2104), in hex.
fn signature(secret: &Secret, body: &[u8]) -> Option<String> {
    // Keys of any length are taken.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).ok()?;
    mac.update(body);
    let mut text = "sha256=".to_owned();
    for byte in mac.finalize().into_bytes() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Some(text)
}

fn body(alert: &Alert) -> String {
    // An alert always has a JSON form.
    serde_json::to_string(alert).unwrap_or_default()
}

/// Posts an alert.
pub(super) async fn post(
    app: &App,
    url: &WebhookUrl,
    target: &NotifyTarget,
    alert: &Alert,
    delivery: &str,
    within: Duration,
) -> Told {
    let config = &app.state.snapshot.load_full().config;
    let lane = app.state.lanes.to(url.origin(), &target.proxy_url, config);
    let lane = lane.map_err(|error| Failed::for_good(error.to_string()))?;
    let body = body(alert);
    let mut headers = vec![
        ("content-type", SecretString::from("application/json")),
        (DELIVERY, SecretString::from(delivery)),
    ];
    if !target.secret.is_empty() {
        let signed = signature(&target.secret, body.as_bytes());
        headers.extend(signed.map(|signed| (SIGNATURE, SecretString::from(signed))));
    }
    for (name, value) in &target.headers.0 {
        if let HeaderValue::Literal(value) = value {
            headers.push((name.as_str(), SecretString::from(value.expose_secret())));
        }
    }
    let body = SecretString::from(body);
    let question =
        Question { method: "POST", target: url.secret().expose_secret(), headers: &headers, body: &body };
    let asked = Box::pin(ask_within(&app.connector, &lane, &question, within, MOST)).await;
    let answer = asked.map_err(|error| {
        let context = error.context.as_ref().map_or("", |context| context.as_str());
        let colon = if context.is_empty() { "" } else { ": " };
        Failed::now(format!("{}: {}{colon}{context}", lane.authority(), error.etype().as_str()))
    })?;
    judge(answer.status)
}

/// What an answer means.
fn judge(status: u16) -> Told {
    match status {
        200..=299 => Ok(()),
        300..=399 => Err(Failed::for_good(format!("it answered {status}; redirects are not followed"))),
        408 | 425 | 429 | 500.. => Err(Failed::now(format!("it answered {status}"))),
        _ => Err(Failed::for_good(format!("it answered {status}"))),
    }
}

/// What would be posted, with masks.
pub(super) fn preview(target: &NotifyTarget, alert: &Alert) -> Value {
    let mut headers = Map::new();
    headers.insert("content-type".to_owned(), "application/json".into());
    if !target.secret.is_empty() {
        headers.insert(SIGNATURE.to_owned(), "sha256=…".into());
    }
    for (name, value) in &target.headers.0 {
        if let HeaderValue::Literal(value) = value {
            headers.insert(name.to_ascii_lowercase(), value.masked().into());
        }
    }
    json!({ "method": "POST", "headers": headers, "body": alert })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_rfc_4231() {
        let made = signature(&Secret::from("Jefe"), b"what do ya want for nothing?").unwrap();
        assert_eq!(made, "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert_eq!(judge(204), Ok(()));
        for again in [408, 429, 500, 503] {
            assert!(judge(again).unwrap_err().again, "{again}");
        }
        for for_good in [302, 307, 400, 401, 404, 410] {
            assert!(!judge(for_good).unwrap_err().again, "{for_good}");
        }
    }
}
