//! Secrets, taken out of texts that go to the disk.
//!
//! Enters: text of clients and upstreams, the secrets that are known. Leaves: the text with [`REDACTED`] in the
//! place of each of them, of everything that has the shape of a token, and of the values of members, headers and
//! parameters that are called like one. May go wrong: a secret that nobody knows and that looks like nothing
//! stays; one that comes in pieces (in the deltas of a stream) stays in pieces.
//!
//! It rather hides too much: what is lost here is lost in a log.

use aho_corasick::{AhoCorasick, MatchKind};
use regex::Regex;
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// What stands in the place of a secret, as everywhere.
pub const REDACTED: &str = "********";

/// Shortest secret that is looked for: shorter ones are parts of ordinary words.
const SHORTEST: usize = 6;

/// Parts of the names of headers whose values are secrets.
const HEADERS: [&str; 9] =
    ["auth", "api-key", "apikey", "token", "secret", "cookie", "password", "credential", "signature"];

/// Whether the value of a header (its name in lower case) is a secret.
pub fn hides(header: &str) -> bool {
    // Counts of tokens are worth reading.
    !header.starts_with("anthropic-ratelimit-")
        && !header.starts_with("x-ratelimit-")
        && HEADERS.iter().any(|part| header.contains(part))
}

/// Names of members whose values are secrets, as a pattern for what stands between the quotes.
const MEMBER: &str = "[a-z0-9_.-]*(?:api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key|access[_-]?token|\
                      refresh[_-]?token|id[_-]?token|auth[_-]?token|session[_-]?token|bearer[_-]?token|secret|\
                      password|passwd|authorization|credentials?|cookies?)";

/// Shapes of secrets and what is put in their place, in this order.
static SHAPES: LazyLock<Vec<(Regex, String)>> = LazyLock::new(|| {
    let whole = REDACTED.to_owned();
    let tail = format!("${{1}}{REDACTED}");
    let shapes = [
        // Private keys (PEM), also with the line ends of JSON.
        (
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\s\\]*(?:-----END [A-Z ]*PRIVATE KEY-----)?"
                .to_owned(),
            &whole,
        ),
        // JSON web tokens.
        (r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,4}".to_owned(), &whole),
        // OpenAI and Anthropic, and those who took over the prefix.
        (r"\bsk[-_][A-Za-z0-9_-]{12,}".to_owned(), &whole),
        (r"\b(?:xai|pplx|gsk|glpat|nvapi)[-_][A-Za-z0-9_-]{20,}|\bhf_[A-Za-z0-9]{24,}".to_owned(), &whole),
        // Google: keys, access and refresh tokens, secrets of OAuth clients.
        (
            r"\bAIza[A-Za-z0-9_-]{16,}|\bya29\.[A-Za-z0-9_.-]{8,}|\b1//0[A-Za-z0-9_-]{16,}|\bGOCSPX-[A-Za-z0-9_-]{16,}"
                .to_owned(),
            &whole,
        ),
        // GitHub, and Copilot's token.
        (
            r"\bgh[opusr]_[A-Za-z0-9]{16,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\btid=[0-9a-f]{16,}[^\s\x22\\]*".to_owned(),
            &whole,
        ),
        // Slack; AWS: key ids and the tokens of its single sign-on.
        (
            r"\bxox[a-z]-[A-Za-z0-9-]{10,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bao[ar]AAAA[A-Za-z0-9+/=:_-]{20,}"
                .to_owned(),
            &whole,
        ),
        // Logins in URLs.
        (r"(://)[^/\s\x22'@:\\]+:[^/\s\x22'@\\]+@".to_owned(), &format!("{tail}@")),
        // Parameters of URLs.
        (
            r"(?i)([?&](?:[a-z0-9_.-]*(?:key|token|secret|password|signature|ticket)|code|auth)=)[^&\s\x22'\\#]+"
                .to_owned(),
            &tail,
        ),
        // Headers within a text.
        (
            r"(?i)\b((?:(?:proxy-)?authorization|(?:set-)?cookie|x-api-key|x-goog-api-key|x-management-key)\s*[:=]\s*)[^\r\n\x22\\]+"
                .to_owned(),
            &tail,
        ),
        (r"(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{12,}".to_owned(), &tail),
        // Variables of an environment.
        (
            r"\b([A-Z][A-Z0-9_]*(?:API_?KEY|SECRET|TOKEN|PASSWORD|PASSWD)(?:_[A-Z0-9_]+)?\s*=\s*\\*[\x22']?)[^\s\x22'\\]{6,}"
                .to_owned(),
            &tail,
        ),
        // Members of JSON, of JSON in a string, and of JSON in a string in a string.
        (format!(r#"(?is)("{MEMBER}"\s*:\s*")(?:[^"\\]|\\.)+"#), &tail),
        (format!(r#"(?is)(\\"{MEMBER}\\"\s*:\s*\\")(?:[^"\\]|\\\\\\"|\\\\[^"\\]|\\[^"\\])+"#), &tail),
        (format!(r#"(?is)(\\{{2,}}"{MEMBER}\\{{2,}}"\s*:\s*\\{{2,}}")[^"\\]+"#), &tail),
    ];
    let compiled = |(shape, to): (String, &String)| Some((Regex::new(&shape).ok()?, to.clone()));
    shapes.into_iter().filter_map(compiled).collect()
});

/// Knows the secrets that are looked for.
#[derive(Debug)]
pub struct Redactor {
    /// `None`: there are more than can be looked for, and no text may pass.
    known: Option<AhoCorasick>,
}

impl Redactor {
    /// Looks for these secrets, however they are written, besides all shapes.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Self {
        let mut forms = BTreeSet::new();
        for secret in secrets {
            // A header's value: `Bearer` is none.
            for part in [Some(secret), secret.split_once(' ').map(|(_, rest)| rest)].into_iter().flatten() {
                add_forms(part.trim(), &mut forms);
            }
        }
        let known = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&forms);
        Self { known: known.ok() }
    }

    /// A text without secrets.
    pub fn clean(&self, text: &str) -> String {
        let Some(known) = &self.known else { return REDACTED.to_owned() };
        let mut clean = String::with_capacity(text.len());
        known.replace_all_with(text, &mut clean, |_, _, out| {
            out.push_str(REDACTED);
            true
        });
        for (shape, to) in SHAPES.iter() {
            if let std::borrow::Cow::Owned(changed) = shape.replace_all(&clean, to.as_str()) {
                clean = changed;
            }
        }
        clean
    }
}

/// How a secret may be written: as it is, in JSON, in a URL.
fn add_forms(secret: &str, forms: &mut BTreeSet<String>) {
    if secret.len() < SHORTEST {
        return;
    }
    let json = serde_json::to_string(secret).unwrap_or_default();
    let json = json.trim_matches('"');
    forms.insert(json.replace('/', "\\/"));
    forms.insert(json.to_owned());
    forms.insert(url::form_urlencoded::byte_serialize(secret.as_bytes()).collect());
    forms.insert(secret.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shapes_are_patterns() {
        assert_eq!(SHAPES.len(), 15);
    }

    #[test]
    fn p53_known_secrets_go_however_they_are_written() {
        let redactor = Redactor::new(["pass/w\"ord", "Bearer tok-123", "short", "exact-key-1"]);
        for (text, clean) in [
            ("pass/w\"ord", "********"),
            (r#"pass/w\"ord"#, "********"),
            (r#"pass\/w\"ord"#, "********"),
            ("?x=pass%2Fw%22ord&y", "?x=********&y"),
            ("a tok-123 b", "a ******** b"),
            ("short stays", "short stays"),
            ("<exact-key-1><exact-key-12>", "<********><********2>"),
        ] {
            assert_eq!(redactor.clean(text), clean);
        }
    }

    #[test]
    fn p53_shapes_of_tokens_go_from_any_text() {
        let redactor = Redactor::new([]);
        for text in [
            "key sk-CANARYcanary0123 here",
            "sk-ant-api03-CANARY_canary-0123",
            "AIzaSyCANARY0123456789012345",
            "ya29.CANARY-0123456",
            "1//0gCANARY0123456789012",
            "ghp_CANARY01234567890123 gho_CANARY01234567890123",
            "github_pat_CANARY_0123456789012",
            "eyJhbGciOiJIUzI1NiJ9.CANARYeyJzdWIi.CANARYsig",
            "Authorization: Bearer CANARY-0123456789",
            "bearer CANARY-0123456789",
            "Cookie: a=CANARY; b=CANARY",
            r#"{"set-cookie":"sid=CANARY"}"#,
            r#"{"api_key": "CANARY"}"#,
            r#"{"openai_apiKey":"CA\"NARY CANARY"}"#,
            r#"{"arguments":"{\"password\":\"CANARY \\\"CANARY\",\"x\":1}"}"#,
            r#""{\\\"refresh_token\\\": \\\"CANARY\\\"}""#,
            "export OPENAI_API_KEY=CANARY-0",
            "GITHUB_TOKEN=\"CANARY-0\"",
            "https://user:CANARY@host/x",
            "/v1beta/models?key=CANARY&alt=sse",
            "-----BEGIN RSA PRIVATE KEY-----\\nCANARY\\nCANARY==\\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nCANARY",
            "tid=0123456789abcdef0123;exp=1;sig=CANARY",
        ] {
            let clean = redactor.clean(text);
            assert!(!clean.contains("CANARY") && clean.contains(REDACTED), "{text}: {clean}");
            assert_eq!(redactor.clean(&clean), clean, "once is enough");
        }
        let kept =
            r#"{"arguments":"{\"password\":\"CANARY\",\"path\":\"kept\"}","max_tokens":4096,"token":"Hel"}"#;
        let clean = redactor.clean(kept);
        assert!(clean.contains("kept") && clean.contains("4096") && clean.contains("Hel"), "{clean}");
    }

    #[test]
    fn ordinary_text_stays() {
        let redactor = Redactor::new(["test-key"]);
        for text in [
            "MAX_TOKENS = 4096, a task-oriented approach, sklearn, sk-learn",
            r#"{"model":"gpt-5","messages":[{"role":"user","content":"what is a bearer bond?"}]}"#,
            "https://host/path?alt=sse&page=2",
            r#"{"usage":{"prompt_tokens":3,"completion_tokens":2}}"#,
        ] {
            assert_eq!(redactor.clean(text), text);
        }
    }

    #[test]
    fn headers_that_hide_their_values_are_told_by_their_names() {
        for name in
            ["authorization", "x-api-key", "x-goog-api-key", "cookie", "set-cookie", "x-amz-security-token"]
        {
            assert!(hides(name), "{name}");
        }
        for name in ["content-type", "x-request-id", "retry-after", "anthropic-ratelimit-tokens-remaining"] {
            assert!(!hides(name), "{name}");
        }
    }
}
