//! Errors of an upstream of this format → [`Failure`], and the code with which a client is told of one.
//!
//! Enters: an `error` event (flat, or with an `error` object as on WebSockets), `response.failed`, or a whole
//! failed response. Leaves: a status that says what to do about it, and after how many seconds. May go wrong:
//! nothing; an object without a message still makes a failure.
//!
//! | code or type | status | what follows |
//! |---|---|---|
//! | `usage_limit_reached`, "at capacity" | 429 | another credential, not before the reset |
//! | `rate_limit_exceeded` | 429 | the message says after how many seconds |
//! | `context_length_exceeded`, `invalid_*`, `*_policy*`, `image_*` | 400 | the client's fault: not tried again |
//! | `server_is_overloaded`, `slow_down` | 503 | another credential |
//! | anything else | 502 | |

use crate::error::{Failure, status_of};
use crate::json::{Json, parse_any};

/// Reads the failure in `data`. `now` is the answer's `created_at`, against which `resets_at` is counted.
pub(super) fn failure(data: &[u8], now: Option<u64>) -> Failure {
    let Ok(value) = parse_any(data) else { return Failure::garbage("an error that is not JSON") };
    let mut failure = Failure::from_json(&value);
    let error = value
        .get("error")
        .filter(|error| error.is_object())
        .or_else(|| value.at(&["response", "error"]))
        .unwrap_or(&value);
    let word = |key: &str| error.get(key).and_then(Json::as_str).filter(|word| !word.is_empty());
    let named = [word("code"), word("type")].into_iter().flatten().find(|word| *word != "error");
    if failure.code.is_none() {
        failure.code = word("type").filter(|word| *word == "usage_limit_reached").map(str::to_owned);
    }
    if failure.message.contains("at capacity") {
        failure.status = 429;
    } else if failure.status == 0 {
        failure.status = named.and_then(status_of).or_else(|| named.and_then(fault_of_client)).unwrap_or(502);
    }
    if failure.message.is_empty() {
        "the upstream failed and gave no reason".clone_into(&mut failure.message);
    }
    let reset = || error.get("resets_at").and_then(Json::as_u64)?.checked_sub(now?);
    failure.retry_after = failure.retry_after.or_else(reset).or_else(|| wait(&failure.message));
    failure
}

/// The code of `response.error`: the cause's own where it is a word of this format, else the one of the official
/// type that makes the client do the right thing (`server_error`: try again).
pub(super) fn code(failure: &Failure) -> &str {
    let word = |code: &&str| code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    failure.code.as_deref().filter(word).unwrap_or(match failure.status {
        429 => "rate_limit_exceeded",
        400..=499 => "invalid_prompt",
        _ => "server_error",
    })
}

/// Codes of requests that no credential can serve.
fn fault_of_client(code: &str) -> Option<u16> {
    let request = code.starts_with("invalid_")
        || code.starts_with("image_")
        || code.contains("_policy")
        || matches!(
            code,
            "unsupported_image_media_type"
                | "empty_image_file"
                | "failed_to_download_image"
                | "context_too_large"
                | "previous_response_not_found"
        );
    request.then_some(400)
}

/// Seconds in "Please try again in 11.054s", rounded up.
fn wait(message: &str) -> Option<u64> {
    let rest = message.get(message.find("try again in ")? + "try again in ".len()..)?;
    let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (figure, unit) = rest.split_at_checked(digits)?;
    let figure: f64 = figure.parse().ok()?;
    let unit = unit.trim_start();
    let seconds = if unit.starts_with("ms") {
        figure / 1000.0
    } else if unit.starts_with('m') {
        figure * 60.0
    } else if unit.starts_with('s') {
        figure
    } else {
        return None;
    };
    (0.0..1e9).contains(&seconds).then_some(seconds.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_say_what_to_do() {
        for (data, status, code, retry) in [
            (
                r#"{"type":"error","status":429,"error":{"type":"usage_limit_reached","message":"limit","resets_in_seconds":90}}"#,
                429,
                Some("usage_limit_reached"),
                Some(90),
            ),
            (
                r#"{"type":"response.failed","response":{"error":{"code":"usage_limit_reached","message":"m","resets_at":1700000030}}}"#,
                429,
                Some("usage_limit_reached"),
                Some(30),
            ),
            (
                r#"{"type":"response.failed","response":{"error":{"code":"context_length_exceeded","message":"m"}}}"#,
                400,
                Some("context_length_exceeded"),
                None,
            ),
            (
                r#"{"type":"response.failed","response":{"error":{"code":"server_is_overloaded","message":"m"}}}"#,
                503,
                Some("server_is_overloaded"),
                None,
            ),
            (
                r#"{"type":"error","code":"rate_limit_exceeded","message":"Please try again in 1.3s.","param":null}"#,
                429,
                Some("rate_limit_exceeded"),
                Some(2),
            ),
            (r#"{"type":"error","message":"Selected model is at capacity."}"#, 429, None, None),
            (r#"{"error":{"code":"invalid_image_url","message":"m"}}"#, 400, Some("invalid_image_url"), None),
            (r#"{"type":"error","code":"strange","message":""}"#, 502, Some("strange"), None),
        ] {
            let failure = failure(data.as_bytes(), Some(1_700_000_000));
            let got = (failure.status, failure.code.as_deref(), failure.retry_after);
            assert_eq!(got, (status, code, retry), "{data}");
            assert!(!failure.message.is_empty());
        }
    }
}
