//! When to come back, as upstreams say it.
//!
//! Enters: response headers (as a look-up), an error body, the wall clock. Leaves: a [`Hint`]: how long to
//! wait and whether the whole account has to. Nothing may go wrong: what cannot be read is no hint, and a
//! time in the past is a wait of zero. Waits are not capped here; the pool trusts them up to
//! [`crate::Settings::hint_cap_ms`].
//!
//! | source | where | scope |
//! |---|---|---|
//! | Claude unified limits | headers `anthropic-ratelimit-unified-*` | account |
//! | Codex usage limit | body `error.resets_at`, `error.resets_in_seconds` | account |
//! | Google | body `RetryInfo.retryDelay`, `ErrorInfo.metadata.quotaResetDelay`, message `… after 1h2m3s` | model |
//! | Qwen | message `Free allocated quota exceeded`: it is new at midnight in China | account |
//! | anyone | headers `retry-after-ms`, `retry-after` (seconds or date) | model |

use wire::json::{self, Json};

use crate::health::Scope;

/// A wait that an upstream asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Milliseconds from now.
    pub wait_ms: u64,
    /// What has to wait.
    pub scope: Scope,
}

/// Error bodies longer than this are not looked into.
pub(crate) const BODY_LIMIT: usize = 64 * 1024;

/// The most exact hint of a response. `header` looks a header up by its lower-case name; `wall_s` is the
/// time now in seconds since 1970.
pub fn hint<'h>(header: impl Fn(&str) -> Option<&'h str>, body: &[u8], wall_s: u64) -> Option<Hint> {
    let parsed = (body.len() <= BODY_LIMIT).then(|| json::parse_any(body).ok()).flatten();
    let body = parsed.as_ref().map(|body| body.as_array().and_then(<[_]>::first).unwrap_or(body));
    let model = |wait_ms| Hint { wait_ms, scope: Scope::Model };
    let account = |wait_ms| Hint { wait_ms, scope: Scope::Credential };
    claude_unified(&header, wall_s)
        .map(account)
        .or_else(|| codex_resets(body?, wall_s).map(account))
        .or_else(|| qwen_midnight(body?, wall_s).map(account))
        .or_else(|| google_delay(body?).map(model))
        .or_else(|| after(body?).map(model))
        .or_else(|| retry_after(&header, wall_s).map(model))
}

/// `retry-after-ms` in milliseconds, or `retry-after` in seconds or as a date, as milliseconds from now.
pub fn retry_after<'h>(header: &impl Fn(&str) -> Option<&'h str>, wall_s: u64) -> Option<u64> {
    if let Some(ms) = header("retry-after-ms").and_then(|text| whole(text.trim().parse().ok()?)) {
        return Some(ms);
    }
    let text = header("retry-after")?.trim();
    match text.parse::<f64>() {
        Ok(seconds) => whole(seconds * 1000.0),
        Err(_) => Some(until(http_date(text)?, wall_s)),
    }
}

/// The latest reset of the limits that `anthropic-ratelimit-unified-*` says are used up, as milliseconds
/// from now. `None` when none is.
pub fn claude_unified<'h>(header: &impl Fn(&str) -> Option<&'h str>, wall_s: u64) -> Option<u64> {
    const WINDOWS: [(&str, &str); 4] = [
        ("anthropic-ratelimit-unified-status", "anthropic-ratelimit-unified-reset"),
        ("anthropic-ratelimit-unified-5h-status", "anthropic-ratelimit-unified-5h-reset"),
        ("anthropic-ratelimit-unified-7d-status", "anthropic-ratelimit-unified-7d-reset"),
        ("anthropic-ratelimit-unified-7d_oi-status", "anthropic-ratelimit-unified-7d_oi-reset"),
    ];
    let rejected = |name: &str| header(name).is_some_and(|s| s.trim().eq_ignore_ascii_case("rejected"));
    let mut used_up = WINDOWS.iter().filter(|(status, _)| rejected(status)).peekable();
    used_up.peek()?;
    used_up
        .filter_map(|(_, reset)| Some(until(point(header(reset)?)?, wall_s)))
        .chain(retry_after(header, wall_s))
        .max()
}

/// `resets_in_seconds` or `resets_at` of Codex's `usage_limit_reached`, as milliseconds from now.
pub fn codex_resets(body: &Json<'_>, wall_s: u64) -> Option<u64> {
    let error = body.get("error").or_else(|| body.at(&["response", "error"])).unwrap_or(body);
    if let Some(seconds) = error.get("resets_in_seconds").and_then(Json::as_f64) {
        return whole(seconds * 1000.0);
    }
    Some(until(error.get("resets_at").and_then(Json::as_i64)?, wall_s))
}

/// The time until Qwen's free allowance of a day is new, at 00:00 UTC+8, where it says that it is used up.
fn qwen_midnight(body: &Json<'_>, wall_s: u64) -> Option<u64> {
    const DAY: u64 = 86_400;
    const EAST: u64 = 8 * 3600;
    let message = body.at(&["error", "message"])?.as_str()?;
    let used_up = message.trim_start().starts_with("Free allocated quota exceeded");
    used_up.then(|| (DAY - wall_s.saturating_add(EAST) % DAY).saturating_mul(1000))
}

/// `retryDelay` of a Google `RetryInfo`, else `quotaResetDelay` of an `ErrorInfo`, in milliseconds.
pub fn google_delay(body: &Json<'_>) -> Option<u64> {
    let details = body.at(&["error", "details"])?.as_array()?;
    let text = |path: &[&str]| details.iter().find_map(|detail| duration(detail.at(path)?.as_str()?));
    text(&["retryDelay"]).or_else(|| text(&["metadata", "quotaResetDelay"]))
}

/// The duration after the last `after` of a message: `Your quota will reset after 18h26m59s.`
fn after(body: &Json<'_>) -> Option<u64> {
    let message = body.at(&["error", "message"])?.as_str()?;
    let (_, tail) = message.rsplit_once(" after ")?;
    duration(tail.split_whitespace().next()?.trim_end_matches(['.', ',', ')']))
}

/// A sum of numbers with the units `h`, `m`, `s`, `ms`, in milliseconds: `3.5s`, `108h48m20.79s`.
fn duration(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut total = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let (value, tail) = rest.split_at(number);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let factor = match unit {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1000.0,
            "ms" => 1.0,
            _ => return None,
        };
        total += value.parse::<f64>().ok()? * factor;
        rest = tail;
    }
    if text.trim().is_empty() { None } else { whole(total) }
}

/// A point in time in seconds since 1970 or in RFC 3339.
fn point(text: &str) -> Option<i64> {
    let text = text.trim();
    text.parse().ok().or_else(|| Some(text.parse::<jiff::Timestamp>().ok()?.as_second()))
}

/// An HTTP date (RFC 9110, the form that all servers send), as seconds since 1970.
fn http_date(text: &str) -> Option<i64> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    parser.parse_timestamp(text).ok().map(jiff::Timestamp::as_second)
}

/// Milliseconds until a point in time; zero when it is past.
fn until(at_s: i64, wall_s: u64) -> u64 {
    let at = u64::try_from(at_s).unwrap_or(0);
    at.saturating_sub(wall_s).saturating_mul(1000)
}

/// A number of milliseconds that makes sense, rounded up.
fn whole(ms: f64) -> Option<u64> {
    (ms.is_finite() && ms >= 0.0).then(|| ms.ceil().min(1e15) as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WALL: u64 = 1_800_000_000;

    fn ask(headers: &[(&str, &'static str)], body: &str) -> Option<(u64, Scope)> {
        let find = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        hint(find, body.as_bytes(), WALL).map(|hint| (hint.wait_ms, hint.scope))
    }

    #[test]
    fn p17_retry_after_in_seconds_and_as_a_date() {
        assert_eq!(ask(&[("retry-after", "7")], ""), Some((7000, Scope::Model)));
        assert_eq!(ask(&[("retry-after", "0.25")], ""), Some((250, Scope::Model)));
        assert_eq!(ask(&[("retry-after-ms", "1500"), ("retry-after", "7")], ""), Some((1500, Scope::Model)));
        let date = "Fri, 15 Jan 2027 08:01:00 GMT";
        assert_eq!(ask(&[("retry-after", date)], ""), Some((60_000, Scope::Model)));
        assert_eq!(ask(&[("retry-after", "Fri, 15 Jan 2016 08:01:00 GMT")], ""), Some((0, Scope::Model)));
        assert_eq!(ask(&[("retry-after", "soon")], ""), None);
        assert_eq!(ask(&[("retry-after", "-1")], ""), None);
        assert_eq!(ask(&[("retry-after", "inf")], ""), None);
    }

    #[test]
    fn p17_google_delays() {
        let retry = r#"[{"error":{"details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure"},
            {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"3.5s"}]}}]"#;
        assert_eq!(ask(&[("retry-after", "99")], retry), Some((3500, Scope::Model)));
        let reset = r#"{"error":{"details":[{"reason":"QUOTA_EXHAUSTED",
            "metadata":{"quotaResetDelay":"108h48m20.79s"}}]}}"#;
        assert_eq!(ask(&[], reset), Some((391_700_790, Scope::Model)));
        assert_eq!(ask(&[], r#"{"error":{"details":[{"retryDelay":"x"}]}}"#), None);
        let said =
            r#"{"error":{"code":429,"message":"No capacity left. Your quota will reset after 1h2m3s."}}"#;
        assert_eq!(ask(&[], said), Some((3_723_000, Scope::Model)));
        assert_eq!(ask(&[], r#"{"error":{"message":"try again after lunch"}}"#), None);
    }

    #[test]
    fn p17_codex_resets() {
        let seconds = r#"{"error":{"type":"usage_limit_reached","resets_in_seconds":90}}"#;
        assert_eq!(ask(&[], seconds), Some((90_000, Scope::Credential)));
        let at = r#"{"error":{"type":"usage_limit_reached","resets_at":1800000030}}"#;
        assert_eq!(ask(&[], at), Some((30_000, Scope::Credential)));
    }

    #[test]
    fn row_33_the_free_day_of_qwen_begins_at_midnight_in_china() {
        let body = r#"{"error":{"code":"insufficient_quota","message":"Free allocated quota exceeded."}}"#;
        // 08:00 UTC is 16:00 there.
        assert_eq!(ask(&[], body), Some((8 * 3_600_000, Scope::Credential)));
        assert_eq!(ask(&[], r#"{"error":{"message":"you said: Free allocated quota exceeded"}}"#), None);
    }

    #[test]
    fn p17_claude_unified_takes_the_latest_reset_of_what_is_used_up() {
        let headers = [
            ("anthropic-ratelimit-unified-status", "rejected"),
            ("anthropic-ratelimit-unified-5h-status", "rejected"),
            ("anthropic-ratelimit-unified-5h-reset", "1800000100"),
            ("anthropic-ratelimit-unified-7d-status", "allowed"),
            ("anthropic-ratelimit-unified-7d-reset", "1900000000"),
            ("anthropic-ratelimit-unified-reset", "2027-01-15T08:03:20Z"),
            ("retry-after", "5"),
        ];
        assert_eq!(ask(&headers, ""), Some((200_000, Scope::Credential)));
        assert_eq!(ask(&[("anthropic-ratelimit-unified-status", "allowed")], ""), None);
    }

    #[test]
    fn durations() {
        for (text, ms) in [("1h", 3_600_000), ("250ms", 250), ("1m30s", 90_000), ("0.0001s", 1)] {
            assert_eq!(duration(text), Some(ms), "{text}");
        }
        for text in ["", "5", "s", "5x", "1..2s", "-3s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_header_and_no_body_panics(value in "\\PC{0,40}", body in "\\PC{0,200}", wall in any::<u64>()) {
            let find = |_: &str| Some(value.as_str());
            let _ = hint(find, body.as_bytes(), wall);
            let _ = duration(&value);
        }
    }
}
