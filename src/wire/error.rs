//! What went wrong, and how each format says it.
//!
//! Enters: a mistake of the client ([`WireError`]) or an upstream's error body. Leaves: [`Failure`], and its
//! body in the client's format. A vendor's type strings never reach a client of another vendor; the
//! message text does. Nothing may go wrong here: an HTML page or an empty body still makes a message.
//!
//! Sources: OpenAI error codes guide, Anthropic "Errors", Google API `google.rpc.Code`.

use crate::Protocol;
use crate::json::{self, Json, Path};

/// The client's body cannot be served. Always a 400 in the client's format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It is not JSON.
    #[error("the request body is not valid JSON: {0}")]
    Json(String),
    /// It is not a form.
    #[error("the request body is not a valid form (multipart/form-data): {0}")]
    Form(String),
    /// A member has the wrong type or value, or is missing.
    #[error("{path}: {problem}")]
    Invalid {
        /// Where, as the client wrote it.
        path: String,
        /// What is wrong and what to send.
        problem: String,
    },
    /// The target cannot do what is asked, and doing less would change the meaning.
    #[error("{path}: {problem}")]
    Unsupported {
        /// Where.
        path: String,
        /// What cannot be done and what to do.
        problem: String,
    },
}

impl WireError {
    /// A wrong or missing member.
    pub fn invalid(path: &Path<'_>, problem: impl Into<String>) -> Self {
        Self::Invalid { path: path.to_string(), problem: problem.into() }
    }

    /// A wrong type: `expected` reads like "a string".
    pub fn expected(path: &Path<'_>, expected: &str, got: &Json<'_>) -> Self {
        Self::invalid(path, format!("expected {expected}, got {}", got.kind()))
    }

    /// Something the target cannot do.
    pub fn unsupported(path: &Path<'_>, problem: impl Into<String>) -> Self {
        Self::Unsupported { path: path.to_string(), problem: problem.into() }
    }

    /// Where, if the error has a place.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Json(_) | Self::Form(_) => None,
            Self::Invalid { path, .. } | Self::Unsupported { path, .. } => Some(path),
        }
    }

    /// As an answer.
    pub fn failure(&self) -> Failure {
        Failure {
            status: 400,
            code: None,
            param: self.path().map(str::to_owned),
            message: self.to_string(),
            retry_after: None,
        }
    }
}

impl From<serde_json::Error> for WireError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error.to_string())
    }
}

/// An answer that is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status. In a stream: the status it would have been.
    pub status: u16,
    /// Machine-readable code, where the cause has one that means the same to every vendor
    /// (`model_not_found`, `context_length_exceeded`, …).
    pub code: Option<String>,
    /// The member of the request it is about.
    pub param: Option<String>,
    /// For people.
    pub message: String,
    /// Seconds after which to try again.
    pub retry_after: Option<u64>,
}

impl Failure {
    /// A failure with a status and a message.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), ..Self::default() }
    }

    /// The upstream closed the stream before its last event.
    pub fn cut() -> Self {
        Self::new(502, "the upstream closed the stream before it was complete")
    }

    /// The upstream sent something that is not its format.
    pub fn garbage(what: &str) -> Self {
        Self::new(502, format!("the upstream sent an answer that cannot be read: {what}"))
    }

    /// Reads an upstream's error body, whatever its shape.
    pub fn parse(status: u16, body: &[u8]) -> Self {
        let mut failure = match json::parse_any(body) {
            Ok(value) => Self::from_json(&value),
            Err(_) => Self { message: plain_message(body), ..Self::default() },
        };
        if (400..600).contains(&status) {
            failure.status = status;
        } else if failure.status == 0 {
            failure.status = 502;
        }
        if failure.message.is_empty() {
            failure.message = format!("the upstream answered with status {} and no message", failure.status);
        }
        failure
    }

    /// Reads an error object of any vendor: `{"error":{…}}`, `{"type":"error","error":{…}}`,
    /// `{"response":{"error":{…}}}`, `[{"error":{…}}]`, `{"message":…}` or `{"error":"text"}`.
    pub fn from_json(value: &Json<'_>) -> Self {
        let value = value.as_array().and_then(<[Json<'_>]>::first).unwrap_or(value);
        let inner = value.get("error").or_else(|| value.at(&["response", "error"])).unwrap_or(value);
        let text = |key: &str| inner.get(key).and_then(Json::as_str).filter(|s| !s.is_empty());
        let message = inner
            .as_str()
            .or_else(|| text("message"))
            .or_else(|| value.get("message").and_then(Json::as_str))
            .or_else(|| value.get("msg").and_then(Json::as_str))
            .or_else(|| value.get("detail").and_then(Json::as_str))
            .or_else(|| text("code"))
            .unwrap_or_default();
        let number = |key: &str| {
            inner.get(key).and_then(Json::as_u64).filter(|n| (400..600).contains(n)).map(|n| n as u16)
        };
        let status = number("code")
            .or_else(|| number("status"))
            .or_else(|| value.get("status").and_then(Json::as_u64).map(|n| n as u16))
            .or_else(|| ["code", "type", "status"].iter().find_map(|key| status_of(text(key)?)))
            .unwrap_or(0);
        Self {
            status,
            code: text("code").map(str::to_owned),
            param: text("param").map(str::to_owned),
            message: with_reason(message, inner),
            // Codex says so in the body; others have a header.
            retry_after: inner.get("resets_in_seconds").and_then(Json::as_u64),
        }
    }

    /// The body in `protocol`'s shape.
    pub fn render(&self, protocol: Protocol) -> Vec<u8> {
        let mut out = Vec::new();
        match protocol {
            Protocol::OpenaiChat | Protocol::OpenaiResponses => {
                json::object(&mut out, |o| o.object("error", |o| self.openai_members(o)));
            }
            Protocol::Claude => json::object(&mut out, |o| {
                o.str("type", "error");
                o.object("error", |o| {
                    o.str("type", claude_type(self.status));
                    o.str("message", &self.message);
                    // Anthropic's SDK reads the codes of message threads here.
                    if let Some(code) = self.code.as_deref().filter(|code| code.starts_with("thread_")) {
                        o.object("details", |o| o.str("error_code", code));
                    }
                });
            }),
            Protocol::Gemini => json::object(&mut out, |o| {
                o.object("error", |o| {
                    o.uint("code", u64::from(self.status));
                    o.str("message", &self.message);
                    o.str("status", gemini_status(self.status));
                });
            }),
        }
        out
    }

    /// `message`, `type`, `param`, `code` of OpenAI's error object.
    pub fn openai_members(&self, o: &mut json::Object<'_>) {
        let (kind, code) = openai_type(self.status);
        o.str("message", &self.message);
        o.str("type", kind);
        o.nullable_str("param", self.param.as_deref());
        o.nullable_str("code", self.openai_code().or(code));
    }

    /// `code`, `message`, `param` of the Responses `error` event.
    pub fn openai_members_flat(&self, o: &mut json::Object<'_>) {
        let (_, code) = openai_type(self.status);
        o.nullable_str("code", self.openai_code().or(code));
        o.str("message", &self.message);
        o.nullable_str("param", self.param.as_deref());
    }

    /// The code to show an OpenAI client: its own words only.
    fn openai_code(&self) -> Option<&str> {
        self.code
            .as_deref()
            .filter(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
    }
}

/// A message with the reason that Google gives beside it (`google.rpc.ErrorInfo`): operators look for it.
fn with_reason(message: &str, error: &Json<'_>) -> String {
    let details = error.get("details").and_then(Json::as_array).unwrap_or_default();
    let reason = details.iter().find_map(|detail| detail.get("reason").and_then(Json::as_str));
    match reason {
        Some(reason) if !message.contains(reason) => {
            let reason: String = reason.chars().filter(|c| !c.is_control()).take(100).collect();
            format!("{message} ({reason})").trim_start().to_owned()
        }
        _ => message.to_owned(),
    }
}

/// The text of an error body that is no JSON: the title of an HTML page, or the first line.
fn plain_message(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..body.len().min(4096)).unwrap_or_default());
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title>").and_then(|start| {
        let from = start + "<title>".len();
        let length = lower.get(from..)?.find("</title>")?;
        text.get(from..from + length)
    });
    let line = title.unwrap_or_else(|| text.trim().lines().next().unwrap_or_default()).trim();
    line.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// OpenAI `type` and default `code` for a status.
fn openai_type(status: u16) -> (&'static str, Option<&'static str>) {
    match status {
        401 => ("authentication_error", Some("invalid_api_key")),
        402 => ("insufficient_quota", Some("insufficient_quota")),
        403 => ("permission_error", None),
        404 => ("invalid_request_error", Some("model_not_found")),
        408 | 504 => ("timeout", None),
        429 => ("rate_limit_error", Some("rate_limit_exceeded")),
        500.. => ("server_error", Some("internal_server_error")),
        _ => ("invalid_request_error", None),
    }
}

/// Claude `error.type` for a status.
pub fn claude_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// Google `error.status` for a status.
pub fn gemini_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        408 | 504 => "DEADLINE_EXCEEDED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        501 => "UNIMPLEMENTED",
        500 => "INTERNAL",
        502.. => "UNAVAILABLE",
        _ => "INVALID_ARGUMENT",
    }
}

/// The status that a vendor's type or code string stands for: errors inside a stream have no other.
pub fn status_of(kind: &str) -> Option<u16> {
    Some(match kind {
        "invalid_request_error"
        | "INVALID_ARGUMENT"
        | "FAILED_PRECONDITION"
        | "context_length_exceeded"
        | "invalid_prompt"
        | "invalid_request"
        | "bad_request_error" => 400,
        "authentication_error" | "invalid_api_key" | "UNAUTHENTICATED" => 401,
        "billing_error" => 402,
        "permission_error" | "PERMISSION_DENIED" => 403,
        "not_found_error" | "model_not_found" | "NOT_FOUND" => 404,
        "timeout" | "timeout_error" | "DEADLINE_EXCEEDED" => 504,
        "request_too_large" => 413,
        "rate_limit_error"
        | "rate_limit_exceeded"
        | "RESOURCE_EXHAUSTED"
        | "insufficient_quota"
        | "usage_limit_reached"
        | "tokens"
        | "requests" => 429,
        "overloaded_error" => 529,
        "server_is_overloaded" | "UNAVAILABLE" | "slow_down" | "service_unavailable" => 503,
        "server_error" | "api_error" | "INTERNAL" | "internal_server_error" | "internal_error" => 500,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_58_googles_reason_stays_with_the_message() {
        let body = r#"{"error":{"code":503,"message":"No capacity","status":"UNAVAILABLE","details":[
            {"@type":"x"},{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"MODEL_CAPACITY_EXHAUSTED"}]}}"#;
        let failure = Failure::parse(503, body.as_bytes());
        assert_eq!(failure.message, "No capacity (MODEL_CAPACITY_EXHAUSTED)");
    }

    #[test]
    fn every_vendor_shape_is_read() {
        for (body, status, message) in [
            (r#"{"error":{"message":"m","type":"rate_limit_error","code":null}}"#, 429, "m"),
            (r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#, 529, "m"),
            (r#"{"error":{"code":503,"message":"m","status":"UNAVAILABLE"}}"#, 503, "m"),
            (r#"[{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}]"#, 400, "m"),
            (r#"{"error":"m"}"#, 502, "m"),
            (r#"{"status":439,"msg":"m"}"#, 439, "m"),
            ("<html><head><title>Bad\nGateway</title>", 502, "BadGateway"),
            ("", 502, "the upstream answered with status 502 and no message"),
        ] {
            let failure = Failure::parse(200, body.as_bytes());
            assert_eq!((failure.status, failure.message.as_str()), (status, message), "{body}");
        }
    }

    #[test]
    fn the_end_of_a_codex_usage_limit_is_read() {
        let body = br#"{"error":{"type":"usage_limit_reached","message":"m","resets_in_seconds":90}}"#;
        let failure = Failure::parse(429, body);
        assert_eq!((failure.status, failure.retry_after), (429, Some(90)));
    }

    #[test]
    fn the_transport_status_wins_over_the_body() {
        assert_eq!(Failure::parse(401, br#"{"error":{"code":"invalid_api_key","message":"x"}}"#).status, 401);
    }

    #[test]
    fn bodies_speak_the_clients_format() {
        let failure = Failure::new(429, "slow \"down\"");
        let text = |p| String::from_utf8(failure.render(p)).unwrap();
        assert_eq!(
            text(Protocol::OpenaiChat),
            r#"{"error":{"message":"slow \"down\"","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}"#
        );
        assert_eq!(
            text(Protocol::Claude),
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow \"down\""}}"#
        );
        assert_eq!(
            text(Protocol::Gemini),
            r#"{"error":{"code":429,"message":"slow \"down\"","status":"RESOURCE_EXHAUSTED"}}"#
        );
    }
}
