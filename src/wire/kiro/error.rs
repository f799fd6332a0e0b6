//! Exceptions of the service → failures.
//!
//! Enters: the type of an exception, and its JSON. Leaves: a failure with the status that the service gives
//! the same exception when it comes before the answer. May go wrong: nothing; an exception that nobody knows
//! is the service's own fault (502).

use crate::error::Failure;
use crate::json::{Json, parse_any};

/// What the service cannot do because the prompt does not fit.
const TOO_LONG: [&str; 2] = ["CONTENT_LENGTH_EXCEEDS_THRESHOLD", "PROMPT_TOO_LONG"];

/// Reads an exception. `kind` is its type, maybe with a namespace before `#`; empty when only the body says.
pub(super) fn read(kind: &str, body: &[u8]) -> Failure {
    let value = parse_any(body).unwrap_or(Json::Null);
    let text = |keys: &[&str]| {
        keys.iter().find_map(|key| value.get(key).and_then(Json::as_str)).unwrap_or_default().to_owned()
    };
    let stated = text(&["__type", "_type"]);
    let kind = short(if kind.is_empty() { &stated } else { kind });
    let mut failure = Failure::new(status(kind), text(&["message", "Message", "errorMessage"]));
    match text(&["reason"]).as_str() {
        reason if TOO_LONG.contains(&reason) => {
            failure.code = Some("context_length_exceeded".to_owned());
        }
        // The month's requests are used up: to wait a minute does not help.
        "MONTHLY_REQUEST_COUNT" => failure.status = 402,
        "INVALID_MODEL_ID" => failure.code = Some("model_not_found".to_owned()),
        _ => {}
    }
    if failure.message.is_empty() {
        failure.message = match kind {
            "" => "the upstream reported an error and did not say which".to_owned(),
            kind => format!("the upstream reported {kind}"),
        };
    }
    failure
}

/// Whether a payload says by itself that it is an exception.
pub(super) fn is_exception(kind: &str) -> bool {
    short(kind).ends_with("Exception") || short(kind).ends_with("Error")
}

/// The type without its namespace and without the URL that some services put behind it.
fn short(kind: &str) -> &str {
    let kind = kind.rsplit('#').next().unwrap_or(kind);
    kind.split(':').next().unwrap_or(kind)
}

/// The status of an exception. In a stream its name begins with a small letter, in a body with a capital.
fn status(kind: &str) -> u16 {
    const STATUSES: [(&str, u16); 15] = [
        ("ValidationException", 400),
        ("BadRequestException", 400),
        ("SerializationException", 400),
        ("UnauthorizedException", 401),
        ("ExpiredTokenException", 401),
        ("InvalidTokenException", 401),
        ("UnrecognizedClientException", 401),
        ("ServiceQuotaExceededException", 402),
        ("AccessDeniedException", 403),
        ("ResourceNotFoundException", 404),
        ("ConflictException", 409),
        ("ThrottlingException", 429),
        ("TooManyRequestsException", 429),
        ("InternalServerException", 500),
        ("ServiceUnavailableException", 503),
    ];
    let stem = |name: &str| name.trim_end_matches("Exception").trim_end_matches("Error").to_ascii_lowercase();
    STATUSES.iter().find(|(name, _)| stem(name) == stem(kind)).map_or(502, |(_, status)| *status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_have_the_status_of_their_kind() {
        for (kind, body, status, code, message) in [
            ("throttlingException", r#"{"message":"slow"}"#, 429, None, "slow"),
            ("ThrottlingError", r#"{"message":"slow"}"#, 429, None, "slow"),
            ("internalServerException", r#"{"message":"x"}"#, 500, None, "x"),
            (
                "serviceUnavailableException",
                "{}",
                503,
                None,
                "the upstream reported serviceUnavailableException",
            ),
            ("com.amazon.aws#AccessDeniedException", r#"{"Message":"no"}"#, 403, None, "no"),
            ("", r#"{"__type":"a.b#ExpiredTokenException:http://x","message":"old"}"#, 401, None, "old"),
            (
                "ValidationException",
                r#"{"message":"m","reason":"CONTENT_LENGTH_EXCEEDS_THRESHOLD"}"#,
                400,
                Some("context_length_exceeded"),
                "m",
            ),
            ("ThrottlingException", r#"{"message":"m","reason":"MONTHLY_REQUEST_COUNT"}"#, 402, None, "m"),
            ("somethingNew", "<html>", 502, None, "the upstream reported somethingNew"),
            ("", "", 502, None, "the upstream reported an error and did not say which"),
        ] {
            let failure = read(kind, body.as_bytes());
            assert_eq!(
                (failure.status, failure.code.as_deref(), failure.message.as_str()),
                (status, code, message),
                "{kind} {body}"
            );
        }
    }
}
