//! What an error body says, beyond its status.
//!
//! Enters: a status and the bytes of an error body. Leaves: the most telling [`Sign`]. Nothing may go wrong:
//! a body that cannot be read has no sign.
//!
//! Codes are compared whole. Messages count only where they cannot be an echo of what the client sent: as
//! the beginning of the text, or when the text begins by naming the model. Otherwise a client could cool
//! credentials by the words of its prompt.

use smallvec::SmallVec;
use wire::json::{self, Json};

use crate::hints::BODY_LIMIT;
use crate::rules::contains;

/// The most telling thing in an error body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Nothing known.
    None,
    /// The account's allowance is used up.
    AccountQuota,
    /// The allowance for this model is used up.
    ModelQuota,
    /// No room for this model.
    Capacity,
    /// Only a paid extra ("fast mode") is used up.
    ExtraQuota,
    /// A page that wants a browser.
    Challenge,
    /// The key or token is wrong, revoked or expired, or the account is closed.
    BadKey,
    /// The account is blocked until somebody does something: verifies it, pays for a licence, renews a client.
    Blocked,
    /// The place from which the request comes is not served.
    Region,
    /// The account may not use this model.
    ModelUnsupported,
    /// There is no such model.
    ModelMissing,
    /// A code that names a fault of the request.
    RequestCode,
    /// A general type that says "bad request" and nothing more.
    RequestType,
}

/// Code or type → sign, compared without case. First match in the order of the table.
const CODES: &[(&str, Sign)] = &[
    ("usage_limit_reached", Sign::AccountQuota),
    ("insufficient_quota", Sign::AccountQuota),
    ("quota_exceeded", Sign::AccountQuota),
    ("billing_hard_limit_reached", Sign::AccountQuota),
    ("insufficient_balance", Sign::AccountQuota),
    ("exceeded_current_quota_error", Sign::AccountQuota),
    // Kiro's month is over.
    ("monthly_request_count", Sign::AccountQuota),
    ("quota_exhausted", Sign::ModelQuota),
    ("model_capacity_exhausted", Sign::Capacity),
    ("overloaded_error", Sign::Capacity),
    ("engine_overloaded_error", Sign::Capacity),
    ("invalid_api_key", Sign::BadKey),
    ("api_key_invalid", Sign::BadKey),
    ("incorrect_api_key", Sign::BadKey),
    ("invalid_grant", Sign::BadKey),
    ("token_expired", Sign::BadKey),
    ("token_revoked", Sign::BadKey),
    ("token_invalidated", Sign::BadKey),
    ("account_deactivated", Sign::BadKey),
    ("account_disabled", Sign::BadKey),
    ("user_disabled", Sign::BadKey),
    ("validation_required", Sign::Blocked),
    ("subscription_required", Sign::Blocked),
    ("account_suspended", Sign::Blocked),
    ("suspended", Sign::Blocked),
    ("temporarily_suspended", Sign::Blocked),
    ("unsupported_country_region_territory", Sign::Region),
    ("model_not_supported", Sign::ModelUnsupported),
    ("unsupported_model", Sign::ModelUnsupported),
    ("model_not_found", Sign::ModelMissing),
    ("model_not_exist", Sign::ModelMissing),
    ("cyber_policy", Sign::RequestCode),
    ("context_length_exceeded", Sign::RequestCode),
    ("context_too_large", Sign::RequestCode),
    ("message_too_big", Sign::RequestCode),
    ("string_above_max_length", Sign::RequestCode),
    ("invalid_prompt", Sign::RequestCode),
    ("invalid_value", Sign::RequestCode),
    ("unsupported_value", Sign::RequestCode),
    ("unsupported_parameter", Sign::RequestCode),
    ("missing_required_parameter", Sign::RequestCode),
    ("content_policy_violation", Sign::RequestCode),
    ("content_filter", Sign::RequestCode),
    ("previous_response_not_found", Sign::RequestCode),
    ("thinking_signature_invalid", Sign::RequestCode),
    ("invalid_request", Sign::RequestType),
    ("invalid_request_error", Sign::RequestType),
    ("bad_request_error", Sign::RequestType),
    ("invalid_argument", Sign::RequestType),
];

/// Beginning of a message → sign.
const OPENINGS: &[(&str, Sign)] = &[
    ("your credit balance is too low", Sign::AccountQuota),
    ("you have reached your specified api usage limits", Sign::AccountQuota),
    ("api key not valid", Sign::BadKey),
    ("api key expired", Sign::BadKey),
    ("incorrect api key provided", Sign::BadKey),
    ("this organization has been disabled", Sign::BadKey),
    ("the bearer token included in the request is invalid", Sign::BadKey),
    ("the security token included in the request is", Sign::BadKey),
    ("this version of antigravity is no longer supported", Sign::Blocked),
    ("user location is not supported", Sign::Region),
    ("requested entity was not found", Sign::ModelMissing),
    ("model not exist", Sign::ModelMissing),
    ("selected model is at capacity", Sign::Capacity),
    ("no capacity available", Sign::Capacity),
    ("overloaded", Sign::Capacity),
];

/// Words after the model's name → sign.
const ABOUT_THE_MODEL: &[(&str, Sign)] = &[
    ("not found", Sign::ModelMissing),
    ("does not exist", Sign::ModelMissing),
    ("is not a valid model", Sign::ModelMissing),
    ("is not supported", Sign::ModelUnsupported),
    ("not available for your plan", Sign::ModelUnsupported),
    ("not available in your plan", Sign::ModelUnsupported),
    ("is at capacity", Sign::Capacity),
    ("no capacity available", Sign::Capacity),
    ("overloaded", Sign::Capacity),
];

/// Reads the sign of an error body about the upstream model `model`.
pub(crate) fn sign(status: u16, body: &[u8], model: &str) -> Sign {
    let body = body.get(..body.len().min(BODY_LIMIT)).unwrap_or_default();
    match json::parse_any(body) {
        Ok(value) => json_sign(status, &value, model),
        Err(_) if is_challenge(status, body) => Sign::Challenge,
        Err(_) => text_sign(status, &String::from_utf8_lossy(body), model),
    }
}

/// Whether an error says that the upstream has no room for the model now: worth another try in a moment.
pub fn lacks_capacity(status: u16, body: &[u8]) -> bool {
    status == 503 && sign(status, body, "") == Sign::Capacity
}

fn json_sign(status: u16, value: &Json<'_>, model: &str) -> Sign {
    let value = value.as_array().and_then(<[_]>::first).unwrap_or(value);
    let places = [
        Some(value),
        value.get("error"),
        value.at(&["response", "error"]),
        value.at(&["body", "error"]),
        value.get("detail"),
    ];
    let mut codes: SmallVec<[&str; 8]> = SmallVec::new();
    let mut messages: SmallVec<[&str; 4]> = SmallVec::new();
    for place in places.into_iter().flatten() {
        codes.extend(["code", "type", "status", "reason"].iter().filter_map(|key| place.get(key)?.as_str()));
        messages.extend(place.as_str());
        messages.extend(place.get("message").and_then(Json::as_str));
        let details = place.get("details").and_then(Json::as_array).unwrap_or_default();
        codes.extend(details.iter().filter_map(|detail| detail.get("reason")?.as_str()));
    }
    // `{"error":"invalid_grant"}`, as OAuth servers say it.
    codes.extend(value.get("error").and_then(Json::as_str));
    let telling = CODES.iter().filter(|(code, sign)| {
        *sign != Sign::RequestType && codes.iter().any(|found| found.eq_ignore_ascii_case(code))
    });
    let general = || {
        let types = CODES.iter().filter(|(_, sign)| *sign == Sign::RequestType);
        let mut types = types.filter(|(code, _)| codes.iter().any(|found| found.eq_ignore_ascii_case(code)));
        types.next().map_or(Sign::None, |(_, sign)| *sign)
    };
    telling
        .map(|(_, sign)| *sign)
        .chain(messages.iter().map(|message| text_sign(status, message, model)))
        .find(|sign| fits(*sign, status))
        .unwrap_or_else(general)
}

/// Whether a sign may be believed under a status.
fn fits(sign: Sign, status: u16) -> bool {
    match sign {
        Sign::None => false,
        Sign::BadKey | Sign::Region | Sign::Blocked => matches!(status, 400 | 401 | 403),
        Sign::ModelUnsupported | Sign::ModelMissing => matches!(status, 400 | 403 | 404 | 422),
        Sign::ModelQuota | Sign::ExtraQuota => status == 429,
        Sign::RequestCode => !matches!(status, 402 | 429),
        _ => true,
    }
}

fn text_sign(status: u16, text: &str, model: &str) -> Sign {
    let text: String = text.trim_start().chars().take(2048).collect::<String>().to_ascii_lowercase();
    if status == 429 && text.contains("fast mode") {
        return Sign::ExtraQuota;
    }
    if text.contains("items are not persisted when `store` is set to false") {
        return Sign::RequestCode;
    }
    if let Some((_, sign)) = OPENINGS.iter().find(|(opening, _)| text.starts_with(opening)) {
        return *sign;
    }
    // Anthropic: `model: claude-x`.
    if status == 404 && text.starts_with("model:") {
        return Sign::ModelMissing;
    }
    let said = said_of(&text, &model.to_ascii_lowercase());
    ABOUT_THE_MODEL.iter().find(|(words, _)| said.contains(words)).map_or(Sign::None, |(_, sign)| *sign)
}

/// What follows the model's name in a text that begins with it, as in "The model `x` does not exist";
/// otherwise nothing.
fn said_of<'t>(text: &'t str, model: &str) -> &'t str {
    const BEFORE: [&str; 6] = ["the", "model", "models", "requested", "specified", "publisher"];
    if model.is_empty() {
        return "";
    }
    let Some((before, after)) = text.split_once(model) else { return "" };
    let mut words = before.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    if words.all(|word| BEFORE.contains(&word)) { after } else { "" }
}

fn is_challenge(status: u16, body: &[u8]) -> bool {
    matches!(status, 403 | 429 | 503)
        && [b"cf-chl".as_slice(), b"cf-mitigated", b"challenge-platform", b"Just a moment..."]
            .iter()
            .any(|mark| contains(body, mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_wherever_vendors_put_them() {
        for body in [
            r#"{"error":{"code":"context_length_exceeded"}}"#,
            r#"{"error":{"type":"Context_Length_Exceeded"}}"#,
            r#"{"type":"response.failed","response":{"error":{"code":"context_length_exceeded"}}}"#,
            r#"{"body":{"error":{"code":"context_length_exceeded"}}}"#,
            r#"[{"error":{"details":[{},{"reason":"context_length_exceeded"}]}}]"#,
            r#"{"code":"context_length_exceeded"}"#,
        ] {
            assert_eq!(sign(400, body.as_bytes(), "m"), Sign::RequestCode, "{body}");
        }
    }

    #[test]
    fn no_capacity_is_told_by_the_reason_or_the_message() {
        for body in [
            r#"{"error":{"code":503,"message":"No capacity available for model X on the server","status":"UNAVAILABLE"}}"#,
            r#"{"error":{"code":503,"message":"x","details":[{"reason":"MODEL_CAPACITY_EXHAUSTED"}]}}"#,
        ] {
            assert!(lacks_capacity(503, body.as_bytes()) && !lacks_capacity(429, body.as_bytes()));
        }
        assert!(!lacks_capacity(503, b"upstream connect error"));
    }

    #[test]
    fn a_clients_words_are_no_evidence() {
        for message in [
            "Invalid value: 'your credit balance is too low'",
            "messages.0: 'API key not valid' is not allowed",
            "the tool 'gpt-5' is not supported",
            "schema: definition 'gpt-5' not found",
        ] {
            let body = format!(r#"{{"error":{{"type":"invalid_request_error","message":"{message}"}}}}"#);
            assert_eq!(sign(400, body.as_bytes(), "gpt-5"), Sign::RequestType, "{message}");
        }
    }

    #[test]
    fn pages_and_plain_text() {
        let page = b"<html><title>Just a moment...</title><script src='/cdn-cgi/challenge-platform/x'>";
        assert_eq!(sign(403, page, "m"), Sign::Challenge);
        assert_eq!(sign(404, page, "m"), Sign::None);
        assert_eq!(sign(503, b"upstream connect error", "m"), Sign::None);
        assert_eq!(sign(400, b"", "m"), Sign::None);
        assert_eq!(sign(500, &[0xff, 0xfe, b'{'], ""), Sign::None);
    }

    proptest::proptest! {
        #[test]
        fn no_body_panics(status in 0u16..700, body: Vec<u8>, model in "\\PC{0,8}") {
            let _ = sign(status, &body, &model);
        }
    }
}
