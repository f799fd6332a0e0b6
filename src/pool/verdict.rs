//! What an outcome means: one table.
//!
//! Enters: an [`Outcome`], the operator's rules for the credential. Leaves: a [`Ruling`]: class, reach, what
//! follows. Nothing may go wrong.
//!
//! Order of authority: the operator's rules, what the body says, the status. Three rules carry the rest:
//! a fault of the request is the same on every credential, so it neither rotates nor cools; 402 and 429 are
//! never faults of the request; nothing is retried once the client has seen a byte.

use crate::cooldown::{BLOCKED_FLOOR_MS, CHALLENGE_FLOOR_MS, RULE_FLOOR_MS, Terms};
use crate::evidence::{self, Sign};
use crate::health::Scope::{self, Credential, Model};
use crate::hints::BODY_LIMIT;
use crate::outcome::{Class, Outcome, Phase};
use crate::rules::{self, ErrorRule, RuleAction};

/// What follows from a row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// The client gets this answer.
    Return,
    /// Another credential may do better; this one has done nothing wrong.
    Rotate,
    /// Another credential may do better, and this one rests.
    Cool,
}

struct Row {
    /// What the body says; `None`: anything.
    sign: Option<Sign>,
    /// Lowest and highest status.
    status: (u16, u16),
    class: Class,
    scope: Scope,
    then: Then,
}

const fn says(sign: Sign, class: Class, scope: Scope, then: Then) -> Row {
    Row { sign: Some(sign), status: (0, u16::MAX), class, scope, then }
}

const fn status(low: u16, high: u16, class: Class, then: Then) -> Row {
    Row { sign: None, status: (low, high), class, scope: Model, then }
}

/// First match wins; the last row matches everything. Refusals of an account (401, 402, 403) start with the
/// model, because gateways refuse single models with them; a second model makes them the account's.
const TABLE: &[Row] = &[
    says(Sign::Challenge, Class::RateLimit, Credential, Then::Cool),
    says(Sign::AccountQuota, Class::Quota, Credential, Then::Cool),
    says(Sign::ModelQuota, Class::Quota, Model, Then::Cool),
    says(Sign::ExtraQuota, Class::Entitlement, Model, Then::Rotate),
    says(Sign::BadKey, Class::Auth, Credential, Then::Cool),
    says(Sign::Blocked, Class::Forbidden, Credential, Then::Cool),
    status(402, 402, Class::Payment, Then::Cool),
    says(Sign::Capacity, Class::Capacity, Model, Then::Cool),
    status(429, 429, Class::RateLimit, Then::Cool),
    says(Sign::Region, Class::Forbidden, Credential, Then::Cool),
    says(Sign::ModelUnsupported, Class::Entitlement, Model, Then::Cool),
    says(Sign::ModelMissing, Class::ModelMissing, Model, Then::Cool),
    says(Sign::RequestCode, Class::RequestFault, Model, Then::Return),
    status(401, 401, Class::Auth, Then::Cool),
    status(403, 403, Class::Forbidden, Then::Cool),
    // A 404 that does not speak of the model is a wrong path: no reason to rest.
    status(404, 404, Class::Transient, Then::Rotate),
    says(Sign::RequestType, Class::RequestFault, Model, Then::Return),
    status(400, 400, Class::RequestFault, Then::Return),
    // 406 tells how the request was put (stream, Accept), not who asked.
    status(406, 406, Class::RequestFault, Then::Return),
    status(408, 408, Class::Transient, Then::Cool),
    status(409, 409, Class::RequestFault, Then::Return),
    status(413, 415, Class::RequestFault, Then::Return),
    status(422, 422, Class::RequestFault, Then::Return),
    status(425, 425, Class::Transient, Then::Cool),
    status(431, 431, Class::RequestFault, Then::Return),
    // iFlow's own: the account is blocked, the token ran out, too many requests.
    Row { scope: Credential, ..status(434, 434, Class::Forbidden, Then::Cool) },
    Row { scope: Credential, ..status(438, 438, Class::Forbidden, Then::Cool) },
    Row { scope: Credential, ..status(439, 439, Class::Auth, Then::Cool) },
    status(449, 449, Class::RateLimit, Then::Cool),
    // Not implemented here; no reason to rest.
    status(501, 501, Class::Transient, Then::Rotate),
    status(529, 529, Class::Capacity, Then::Cool),
    status(500, 599, Class::Transient, Then::Cool),
    status(0, u16::MAX, Class::Transient, Then::Rotate),
];

/// What an outcome means for the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ruling {
    pub(crate) class: Class,
    pub(crate) scope: Scope,
    pub(crate) then: Then,
    /// The rest gives way when nobody else is ready.
    pub(crate) soft: bool,
    /// It rests even where cooling is switched off: the upstream or the operator said so plainly.
    pub(crate) forced: bool,
    /// Hint, floor and free failures; the caps are the pool's.
    pub(crate) terms: Terms,
}

impl Ruling {
    fn plain(class: Class, then: Then) -> Self {
        let soft = class == Class::Transient;
        Self { class, scope: Model, then, soft, forced: false, terms: Terms::default() }
    }

    fn transient(scope: Scope, free: u32) -> Self {
        let terms = Terms { free, ..Terms::default() };
        Self { scope, terms, ..Self::plain(Class::Transient, Then::Cool) }
    }
}

/// Judges an outcome on the upstream model `model`. `committed`: the client has seen the answer begin.
pub(crate) fn judge(outcome: &Outcome<'_>, model: &str, rules: &[ErrorRule], committed: bool) -> Ruling {
    match *outcome {
        Outcome::Success => Ruling::plain(Class::Success, Then::Return),
        Outcome::ClientGone => Ruling::plain(Class::ClientGone, Then::Return),
        Outcome::Status { status, body, hint } => {
            let ruling = by_status(status, body, model, hint);
            match rules::first_match(rules, status, body.get(..body.len().min(BODY_LIMIT)).unwrap_or(body)) {
                Some(action) => by_rule(action, ruling),
                None => ruling,
            }
        }
        // A broken connection in the middle of an answer says little about the next one.
        Outcome::Cut | Outcome::EmptyStream | Outcome::Garbage | Outcome::Timeout(_) if committed => {
            Ruling::plain(Class::Transient, Then::Return)
        }
        Outcome::Connect | Outcome::Timeout(Phase::Connect) => Ruling::transient(Credential, 0),
        Outcome::Timeout(_) | Outcome::Garbage => Ruling::transient(Model, 0),
        // One of these is often a reused connection that died; two in a row are not.
        Outcome::EmptyStream | Outcome::Cut => Ruling::transient(Model, 1),
        Outcome::ProxyInvalid => {
            Ruling { scope: Credential, ..Ruling::plain(Class::Misconfigured, Then::Cool) }
        }
        Outcome::RefreshFailed { needs_login } => {
            let floor_ms = if needs_login { 30 * 60_000 } else { 0 };
            let terms = Terms { floor_ms, ..Terms::default() };
            Ruling { scope: Credential, terms, ..Ruling::plain(Class::Auth, Then::Cool) }
        }
    }
}

fn by_status(status: u16, body: &[u8], model: &str, hint: Option<crate::hints::Hint>) -> Ruling {
    let sign = evidence::sign(status, body, model);
    let found = TABLE.iter().find(|row| {
        (row.status.0..=row.status.1).contains(&status) && row.sign.is_none_or(|wanted| wanted == sign)
    });
    let Some(row) = found else { return Ruling::plain(Class::Transient, Then::Rotate) };
    let waits = matches!(
        row.class,
        Class::Quota | Class::RateLimit | Class::Capacity | Class::Transient | Class::Payment
    );
    let hint = hint.filter(|_| waits);
    let wide = matches!(row.class, Class::Quota | Class::RateLimit)
        && hint.is_some_and(|hint| hint.scope == Credential);
    let floor_ms = match sign {
        Sign::Challenge => CHALLENGE_FLOOR_MS,
        Sign::Blocked => BLOCKED_FLOOR_MS,
        _ => 0,
    };
    Ruling {
        class: row.class,
        scope: if wide { Credential } else { row.scope },
        then: row.then,
        // A stated lack of room is waited for; a guess about one gives way.
        soft: row.class == Class::Transient || (row.class == Class::Capacity && hint.is_none()),
        forced: sign == Sign::ModelUnsupported && row.then == Then::Cool,
        terms: Terms { hint_ms: hint.map(|hint| hint.wait_ms), floor_ms, ..Terms::default() },
    }
}

/// The operator's word over the table's: the class stays, what follows changes.
fn by_rule(action: RuleAction, ruling: Ruling) -> Ruling {
    let then = if action.goes_on() { Then::Rotate } else { Then::Return };
    if !action.cools() {
        return Ruling { then, forced: false, ..ruling };
    }
    let class = if ruling.class == Class::RequestFault { Class::Transient } else { ruling.class };
    let terms = Terms { floor_ms: RULE_FLOOR_MS, ..ruling.terms };
    Ruling { class, then, soft: false, forced: true, terms, ..ruling }
}

impl Ruling {
    /// Whether somebody rests because of it.
    pub(crate) fn cools(&self) -> bool {
        self.then == Then::Cool || (self.forced && self.terms.floor_ms > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hints::Hint;

    fn ruled(status: u16, body: &str) -> (Class, Scope, Then) {
        let outcome = Outcome::Status { status, body: body.as_bytes(), hint: None };
        let ruling = judge(&outcome, "gpt-5.3-codex-spark", &[], false);
        (ruling.class, ruling.scope, ruling.then)
    }

    #[test]
    fn statuses_without_a_telling_body() {
        use Then::{Cool, Return, Rotate};
        for (code, class, then) in [
            (400, Class::RequestFault, Return),
            (401, Class::Auth, Cool),
            (402, Class::Payment, Cool),
            (403, Class::Forbidden, Cool),
            (404, Class::Transient, Rotate),
            (405, Class::Transient, Rotate),
            (406, Class::RequestFault, Return),
            (408, Class::Transient, Cool),
            (409, Class::RequestFault, Return),
            (413, Class::RequestFault, Return),
            (418, Class::Transient, Rotate),
            (422, Class::RequestFault, Return),
            (429, Class::RateLimit, Cool),
            (500, Class::Transient, Cool),
            (501, Class::Transient, Rotate),
            (502, Class::Transient, Cool),
            (503, Class::Transient, Cool),
            (504, Class::Transient, Cool),
            (520, Class::Transient, Cool),
            (529, Class::Capacity, Cool),
            (301, Class::Transient, Rotate),
        ] {
            for body in
                ["", "plain text", "<html>x</html>", "{}", r#"{"error":{"message":"m"}}"#, "[[[[", "\"x\""]
            {
                assert_eq!(ruled(code, body), (class, Model, then), "{code} {body}");
            }
        }
    }

    #[test]
    fn request_faults_neither_rotate_nor_cool() {
        for (code, body) in [
            (400, r#"{"error":{"type":"invalid_request_error","message":"bad","param":"x","code":null}}"#),
            (400, r#"{"error":{"code":"context_length_exceeded","type":"invalid_request_error"}}"#),
            (400, r#"{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"m"}}"#),
            (413, r#"{"type":"error","error":{"type":"request_too_large","message":"m"}}"#),
            (403, r#"{"error":{"code":"cyber_policy","message":"m"}}"#),
            (401, r#"{"error":{"code":"previous_response_not_found","type":"invalid_request_error"}}"#),
            (500, r#"{"error":{"type":"invalid_request_error","message":"m"}}"#),
            (502, r#"{"response":{"error":{"code":"invalid_prompt","message":"m"}}}"#),
            (
                404,
                "{\"error\":{\"message\":\"Item with id 'x' not found. Items are not persisted when `store` is set to false.\"}}",
            ),
        ] {
            assert_eq!(ruled(code, body), (Class::RequestFault, Model, Then::Return), "{code} {body}");
        }
    }

    #[test]
    fn credential_faults_in_the_clothes_of_request_faults() {
        for (code, body, class, scope) in [
            (
                401,
                r#"{"error":{"type":"invalid_request_error","code":"invalid_api_key"}}"#,
                Class::Auth,
                Credential,
            ),
            (401, r#"{"error":{"type":"invalid_request_error","message":"m"}}"#, Class::Auth, Model),
            (401, r#"{"type":"error","error":{"type":"authentication_error"}}"#, Class::Auth, Model),
            (
                400,
                r#"{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"API key not valid. Please pass a valid API key.",
                   "details":[{"reason":"API_KEY_INVALID"}]}}"#,
                Class::Auth,
                Credential,
            ),
            (400, r#"{"error":"invalid_grant","error_description":"x"}"#, Class::Auth, Credential),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error",
                   "message":"Your credit balance is too low to access the Anthropic API."}}"#,
                Class::Quota,
                Credential,
            ),
            (
                400,
                r#"{"error":{"status":"FAILED_PRECONDITION","message":"User location is not supported for the API use."}}"#,
                Class::Forbidden,
                Credential,
            ),
            (
                400,
                r#"{"detail":"The 'gpt-5.3-codex-spark' model is not supported when using Codex with a ChatGPT account."}"#,
                Class::Entitlement,
                Model,
            ),
            (
                400,
                r#"{"error":{"code":"model_not_supported","type":"invalid_request_error"}}"#,
                Class::Entitlement,
                Model,
            ),
            (
                402,
                r#"{"error":{"type":"invalid_request_error","code":"invalid_value"}}"#,
                Class::Payment,
                Model,
            ),
            (
                429,
                r#"{"error":{"type":"invalid_request_error","code":"invalid_prompt"}}"#,
                Class::RateLimit,
                Model,
            ),
        ] {
            assert_eq!(ruled(code, body), (class, scope, Then::Cool), "{code} {body}");
        }
    }

    #[test]
    fn blocked_accounts_and_odd_statuses_are_the_credentials() {
        for (code, body, class, scope) in [
            (
                403,
                r#"{"error":{"code":403,"status":"PERMISSION_DENIED","message":"Verify your account","details":[{"reason":"VALIDATION_REQUIRED"}]}}"#,
                Class::Forbidden,
                Credential,
            ),
            (
                403,
                r#"{"error":{"details":[{"reason":"SUBSCRIPTION_REQUIRED"}]}}"#,
                Class::Forbidden,
                Credential,
            ),
            (403, r#"{"reason":"TEMPORARILY_SUSPENDED","message":"m"}"#, Class::Forbidden, Credential),
            (
                400,
                r#"{"error":{"message":"This version of Antigravity is no longer supported."}}"#,
                Class::Forbidden,
                Credential,
            ),
            (
                403,
                r#"{"message":"The bearer token included in the request is invalid."}"#,
                Class::Auth,
                Credential,
            ),
            (402, r#"{"message":"m","reason":"MONTHLY_REQUEST_COUNT"}"#, Class::Quota, Credential),
            (434, "", Class::Forbidden, Credential),
            (438, "", Class::Forbidden, Credential),
            (439, "", Class::Auth, Credential),
            (449, "", Class::RateLimit, Model),
        ] {
            assert_eq!(ruled(code, body), (class, scope, Then::Cool), "{code} {body}");
        }
        let blocked = Outcome::Status {
            status: 403,
            body: br#"{"error":{"details":[{"reason":"VALIDATION_REQUIRED"}]}}"#,
            hint: None,
        };
        assert_eq!(judge(&blocked, "m", &[], false).terms.floor_ms, BLOCKED_FLOOR_MS);
    }

    #[test]
    fn p17_kinds_of_429_and_of_no_room() {
        for (code, body, class, scope) in [
            (
                429,
                r#"{"error":{"type":"usage_limit_reached","resets_in_seconds":9}}"#,
                Class::Quota,
                Credential,
            ),
            (400, r#"{"error":{"type":"usage_limit_reached"}}"#, Class::Quota, Credential),
            (
                429,
                r#"{"error":{"code":"insufficient_quota","message":"Free allocated quota exceeded."}}"#,
                Class::Quota,
                Credential,
            ),
            (
                429,
                r#"[{"error":{"status":"RESOURCE_EXHAUSTED","details":[{"reason":"QUOTA_EXHAUSTED"}]}}]"#,
                Class::Quota,
                Model,
            ),
            (
                429,
                r#"{"error":{"status":"RESOURCE_EXHAUSTED","details":[{"reason":"RATE_LIMIT_EXCEEDED"}]}}"#,
                Class::RateLimit,
                Model,
            ),
            (
                529,
                r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
                Class::Capacity,
                Model,
            ),
            (
                503,
                r#"{"error":{"message":"No capacity available for model X on the server"}}"#,
                Class::Capacity,
                Model,
            ),
            (503, r#"{"error":{"details":[{"reason":"MODEL_CAPACITY_EXHAUSTED"}]}}"#, Class::Capacity, Model),
            (403, "<html><title>Just a moment...</title>", Class::RateLimit, Credential),
        ] {
            assert_eq!(ruled(code, body), (class, scope, Then::Cool), "{code} {body}");
        }
        let fast = r#"{"error":{"type":"rate_limit_error","message":"You have no fast mode credits left"}}"#;
        assert_eq!(ruled(429, fast), (Class::Entitlement, Model, Then::Rotate));
    }

    #[test]
    fn a_404_cools_only_when_it_speaks_of_the_model() {
        for body in [
            r#"{"error":{"code":"model_not_found","type":"invalid_request_error"}}"#,
            r#"{"error":{"message":"The model `gpt-5.3-codex-spark` does not exist or you do not have access to it."}}"#,
            r#"{"error":{"status":"NOT_FOUND","message":"models/gpt-5.3-codex-spark is not found for API version v1beta, or is not supported for generateContent."}}"#,
            r#"{"type":"error","error":{"type":"not_found_error","message":"model: gpt-5.3-codex-spark"}}"#,
            r#"{"error":{"code":404,"status":"NOT_FOUND","message":"Requested entity was not found."}}"#,
        ] {
            assert_eq!(ruled(404, body), (Class::ModelMissing, Model, Then::Cool), "{body}");
        }
        for body in [
            r#"{"error":{"message":"Invalid URL (POST /v1/v1/x)","type":"invalid_request_error"}}"#,
            "404 page not found",
        ] {
            assert_eq!(ruled(404, body), (Class::Transient, Model, Then::Rotate), "{body}");
        }
    }

    #[test]
    fn hints_widen_quota_and_harden_capacity() {
        let account = Some(Hint { wait_ms: 5000, scope: Credential });
        let with = |status, body: &str, hint| {
            judge(&Outcome::Status { status, body: body.as_bytes(), hint }, "m", &[], false)
        };
        let unified = with(429, r#"{"error":{"type":"rate_limit_error"}}"#, account);
        assert_eq!((unified.scope, unified.terms.hint_ms, unified.soft), (Credential, Some(5000), false));
        assert!(with(529, "", None).soft);
        assert!(!with(529, "", account).soft);
        assert!(with(503, "", account).soft, "a transient failure never shuts the last credential out");
        assert_eq!(with(401, "", account).terms.hint_ms, None);
    }

    #[test]
    fn failures_without_a_status() {
        let ask = |outcome, committed| judge(&outcome, "m", &[], committed);
        for (outcome, scope, free) in [
            (Outcome::Connect, Credential, 0),
            (Outcome::Timeout(Phase::Connect), Credential, 0),
            (Outcome::Timeout(Phase::Header), Model, 0),
            (Outcome::Timeout(Phase::FirstEvent), Model, 0),
            (Outcome::Garbage, Model, 0),
            (Outcome::EmptyStream, Model, 1),
            (Outcome::Cut, Model, 1),
        ] {
            assert_eq!(ask(outcome, false), Ruling::transient(scope, free), "{outcome:?}");
        }
        for outcome in [Outcome::Cut, Outcome::Timeout(Phase::Idle), Outcome::Garbage] {
            assert_eq!(ask(outcome, true), Ruling::plain(Class::Transient, Then::Return), "{outcome:?}");
        }
        assert_eq!(ask(Outcome::ProxyInvalid, false).class, Class::Misconfigured);
        let login = ask(Outcome::RefreshFailed { needs_login: true }, false);
        assert_eq!((login.class, login.terms.floor_ms), (Class::Auth, 1_800_000));
        assert_eq!(ask(Outcome::ClientGone, false).then, Then::Return);
    }

    #[test]
    fn the_operators_rules_come_first() {
        let rule = |action| [ErrorRule::new(400, vec!["busy".into()], &[], action).unwrap()];
        let ask = |action, body: &str| {
            let outcome = Outcome::Status { status: 400, body: body.as_bytes(), hint: None };
            let ruling = judge(&outcome, "m", &rule(action), false);
            (ruling.then, ruling.cools(), ruling.forced)
        };
        let fault = r#"{"error":{"type":"invalid_request_error","message":"busy"}}"#;
        assert_eq!(ask(RuleAction::Continue, fault), (Then::Rotate, false, false));
        assert_eq!(ask(RuleAction::ContinueAndCooldown, fault), (Then::Rotate, true, true));
        assert_eq!(ask(RuleAction::Stop, fault), (Then::Return, false, false));
        assert_eq!(ask(RuleAction::StopAndCooldown, fault), (Then::Return, true, true));
        assert_eq!(ask(RuleAction::Continue, "other"), (Then::Return, false, false));
    }
}
