//! The log of one request, as text.
//!
//! Enters: what is known of a request when it is over ([`Entry`]). Leaves: sections as CLIProxyAPI writes them
//! (`=== REQUEST INFO ===`, …), without secrets. Every value is one line: what could end it or lead the eye
//! astray is escaped. Bodies stand behind their length, so that nothing within them can pass for a section.
//! Nothing may go wrong.

use super::clip::Clip;
use super::redact::{REDACTED, Redactor, hides};
use super::request::Facts;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use std::fmt::Write;

/// Left out at the end of a body that is not whole: a secret may be cut in two there.
const EDGE: usize = 4 << 10;
/// Where no body is wanted.
const NO_BODY: &str =
    "left out: what clients send is written with request-log or while /v0/management/body-capture runs";

/// A request that is over.
#[derive(Debug)]
pub struct Entry {
    /// When it came.
    pub at: Timestamp,
    /// What its line in the log says.
    pub facts: Facts,
    /// It failed.
    pub failed: bool,
    /// What people call its client key; empty: none.
    pub client_key: String,
    /// How the client came: `HTTP/1.1`, `HTTP/2.0`, `websocket`.
    pub transport: String,
    /// Its query.
    pub query: Option<String>,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, where bodies are wanted.
    pub body: Option<Clip>,
    /// Calls to upstreams, in their order.
    pub attempts: Vec<Attempt>,
    /// Calls in the middle that are not among them.
    pub left_out: u32,
    /// Headers of the answer.
    pub answer_headers: HeaderMap,
    /// Its body: of an error, and of every answer where bodies are wanted.
    pub answer: Option<Clip>,
}

/// A call to an upstream.
#[derive(Debug)]
pub struct Attempt {
    /// Number, from 1.
    pub number: u32,
    /// Who was asked.
    pub provider: String,
    /// With whose key or account: its label.
    pub credential: String,
    /// Method and URL; empty: it came to no request.
    pub target: String,
    /// What was sent, where bodies are wanted.
    pub body: Option<Clip>,
    /// Status of the answer, if there was one.
    pub status: Option<u16>,
    /// What went wrong, for people; empty: nothing.
    pub error: String,
    /// Headers of the answer.
    pub headers: HeaderMap,
    /// The body of an error.
    pub answer: Option<Clip>,
    /// What was secret about the call.
    pub secrets: Vec<String>,
}

/// The values of headers that are secrets.
pub fn secrets(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.iter().filter(|(name, value)| hidden(name, value)).filter_map(|(_, value)| value.to_str().ok())
}

fn hidden(name: &HeaderName, value: &HeaderValue) -> bool {
    value.is_sensitive() || hides(name.as_str())
}

impl Entry {
    /// The text, without the secrets that `known` knows, without those of this request, and without anything
    /// that looks like one.
    pub fn text(&self, known: &Redactor) -> String {
        let own =
            secrets(&self.headers).chain(self.attempts.iter().flat_map(|a| &a.secrets).map(String::as_str));
        let own = Redactor::new(own);
        let mut page = Page { out: String::new(), known, own: &own };
        self.info(&mut page);
        page.section("HEADERS", 0);
        page.headers(&self.headers);
        page.section("REQUEST BODY", 0);
        page.body(self.body.as_ref(), NO_BODY);
        let last = self.attempts.len().saturating_sub(1);
        for (n, attempt) in self.attempts.iter().enumerate() {
            if n == last && self.left_out > 0 {
                let _ = write!(page.out, "\n({} more calls are left out)\n", self.left_out);
            }
            attempt.write(&mut page);
        }
        page.section("RESPONSE", 0);
        page.line("Status", &self.facts.status.to_string());
        page.line("Error", &self.facts.error);
        page.headers(&self.answer_headers);
        if self.answer.is_some() {
            page.body(self.answer.as_ref(), "");
        }
        page.out
    }

    fn info(&self, page: &mut Page<'_>) {
        let facts = &self.facts;
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let key = match self.client_key.as_str() {
            "" => "none",
            name => name,
        };
        page.section("REQUEST INFO", 0);
        for (name, value) in [
            ("Version", env!("CARGO_PKG_VERSION")),
            ("URL", &format!("{}{query}", facts.path)),
            ("Method", &facts.method),
            ("Client", &facts.client_ip),
            ("Client Key", key),
            ("Model", &facts.model),
            ("Downstream Transport", &self.transport),
            ("Timestamp", &self.at.to_string()),
            ("Duration", &format!("{} ms", facts.latency_ms)),
            ("Request ID", &facts.request_id),
        ] {
            page.line(name, value);
        }
    }
}

impl Attempt {
    fn write(&self, page: &mut Page<'_>) {
        page.section("API REQUEST", self.number);
        page.line("Provider", &self.provider);
        page.line("Credential", &self.credential);
        page.line("Request", &self.target);
        if self.body.is_some() {
            page.body(self.body.as_ref(), "");
        }
        page.section(if self.error.is_empty() { "API RESPONSE" } else { "API ERROR RESPONSE" }, self.number);
        page.line("Status", &self.status.map_or("none".to_owned(), |status| status.to_string()));
        page.line("Error", &self.error);
        page.headers(&self.headers);
        if self.answer.is_some() {
            page.body(self.answer.as_ref(), "");
        }
    }
}

/// A text under way. Writing to it cannot fail.
struct Page<'p> {
    out: String,
    known: &'p Redactor,
    own: &'p Redactor,
}

impl Page<'_> {
    fn clean(&self, text: &str) -> String {
        self.own.clean(&self.known.clean(text))
    }

    fn section(&mut self, name: &str, number: u32) {
        let gap = if self.out.is_empty() { "" } else { "\n" };
        let number = if number == 0 { String::new() } else { format!(" {number}") };
        let _ = writeln!(self.out, "{gap}=== {name}{number} ===");
    }

    fn line(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            let value = escaped(&self.clean(value), false);
            let _ = writeln!(self.out, "{name}: {value}");
        }
    }

    fn headers(&mut self, headers: &HeaderMap) {
        for (name, value) in headers {
            if hidden(name, value) {
                let _ = writeln!(self.out, "{name}: {REDACTED}");
            } else {
                self.line(name.as_str(), value.to_str().unwrap_or("(not text)"));
            }
        }
    }

    fn body(&mut self, clip: Option<&Clip>, missing: &str) {
        let Some(clip) = clip else {
            let _ = writeln!(self.out, "({missing})");
            return;
        };
        let Some(text) = text(clip) else {
            let size = clip.bytes().len() as u64 + clip.omitted();
            let _ = writeln!(self.out, "({size} bytes that are not text are left out)");
            return;
        };
        let mut clean = escaped(&self.clean(text), true);
        let mut omitted = clip.omitted();
        if omitted > 0 {
            let end = clean.floor_char_boundary(clean.len().saturating_sub(EDGE));
            omitted += (clean.len() - end) as u64;
            clean.truncate(end);
        }
        let more =
            if omitted > 0 { format!(" at first, {omitted} more are left out") } else { String::new() };
        let _ = writeln!(self.out, "({} bytes{more})\n{clean}", clean.len());
    }
}

/// What of a body is text; `None`: it is none.
fn text(clip: &Clip) -> Option<&str> {
    match std::str::from_utf8(clip.bytes()) {
        Ok(text) => Some(text),
        // Its last letter was cut.
        Err(error) if error.error_len().is_none() && clip.omitted() > 0 => {
            clip.bytes().get(..error.valid_up_to()).and_then(|bytes| std::str::from_utf8(bytes).ok())
        }
        Err(_) => None,
    }
}

/// A text without controls of terminals and of the direction of writing.
fn escaped(text: &str, lines: bool) -> String {
    let harmful = |c: char| match c {
        '\n' | '\t' => !lines,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control(),
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if harmful(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::clip::Held;
    use std::sync::Arc;

    fn clip(body: &[u8], most: usize) -> Clip {
        Clip::of(body, &Arc::new(Held::default()), most)
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap())).collect()
    }

    fn entry() -> Entry {
        Entry {
            at: "2026-11-21T04:37:00Z".parse().unwrap(),
            facts: Facts {
                path: "/v1/messages".into(),
                status: 502,
                error: "no\nluck".into(),
                ..Facts::default()
            },
            failed: true,
            client_key: "number 1".into(),
            transport: "HTTP/1.1".into(),
            query: Some("key=CANARY-query-key&beta=true".into()),
            headers: headers(&[
                ("authorization", "Bearer CANARY-client-key"),
                ("cookie", "sid=CANARY-cookie"),
                ("user-agent", "test"),
            ]),
            body: None,
            attempts: vec![Attempt {
                number: 1,
                provider: "up".into(),
                credential: "account 1".into(),
                target: "POST https://host/v1?key=CANARY-up-query".into(),
                body: None,
                status: Some(401),
                error: "refused".into(),
                headers: headers(&[("set-cookie", "CANARY-set-cookie"), ("retry-after", "3")]),
                answer: Some(clip(br#"{"error":"bad key CANARYupstream and CANARY-client-key"}"#, 999)),
                secrets: vec!["Bearer CANARYupstream".into()],
            }],
            left_out: 0,
            answer_headers: headers(&[("content-type", "application/json")]),
            answer: Some(clip(b"{\"error\":\"x\"}", 999)),
        }
    }

    #[test]
    fn p53_a_failure_is_told_with_its_calls_and_without_secrets() {
        let text = entry().text(&Redactor::new(["CANARY-other"]));
        assert!(!text.contains("CANARY"), "{text}");
        for part in [
            "=== REQUEST INFO ===\nVersion: ",
            "URL: /v1/messages?key=********&beta=true\n",
            "authorization: ********\ncookie: ********\nuser-agent: test\n",
            "=== REQUEST BODY ===\n(left out: ",
            "=== API REQUEST 1 ===\nProvider: up\nCredential: account 1\n",
            "=== API ERROR RESPONSE 1 ===\nStatus: 401\nError: refused\n",
            "retry-after: 3\n",
            "=== RESPONSE ===\nStatus: 502\nError: no\\u{a}luck\n",
            "(13 bytes)\n{\"error\":\"x\"}\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn p65_nothing_breaks_out_of_its_line() {
        let mut entry = entry();
        entry.facts.model = "m\r\n=== RESPONSE ===\u{1b}[2J\u{202e}".into();
        let body = "a\n=== RESPONSE ===\n\u{1b}[31m".as_bytes();
        entry.body = Some(clip(body, 999));
        let text = entry.text(&Redactor::new([]));
        assert!(text.contains(r"Model: m\u{d}\u{a}=== RESPONSE ===\u{1b}[2J\u{202e}"), "{text}");
        assert!(text.contains(r"\u{1b}[31m") && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains("(29 bytes)\na\n"), "{text}");
    }

    #[test]
    fn p53_a_secret_that_is_cut_at_the_end_of_a_body_is_left_out_with_it() {
        let mut entry = entry();
        let body = format!("{} CANARY-other", "x".repeat(10_000));
        entry.body = Some(clip(body.as_bytes(), 10_008));
        let text = entry.text(&Redactor::new(["CANARY-other"]));
        assert!(
            !text.contains("CANARY") && text.contains("bytes at first, 4101 more are left out"),
            "{text}"
        );
        entry.body = Some(clip("ä".repeat(9_000).as_bytes(), 9_001));
        assert!(entry.text(&Redactor::new([])).contains("ää"));
        entry.body = Some(clip(b"\xff\x00", 999));
        assert!(entry.text(&Redactor::new([])).contains("(2 bytes that are not text are left out)"));
    }
}
