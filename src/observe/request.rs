//! One line per request.
//!
//! Enters: [`Facts`] of a finished request. Leaves: a log line that a person can read and whose tail is JSON
//! for machines: `POST /v1/messages 200 812ms {"request_id":…,"status_code":200,…}`. Text of the client is
//! escaped by the JSON, so that one request stays one line.

use wire::ir::Usage;
use wire::json;

/// What is said of a request.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Id of the request, also in the answer's `x-request-id`.
    pub request_id: String,
    /// Peer address.
    pub client_ip: String,
    /// Which client key it came with, counted from 1; 0 where none is needed.
    pub client_key: u32,
    /// `User-Agent`.
    pub user_agent: String,
    /// Method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Format of the client.
    pub client: &'static str,
    /// Operation.
    pub operation: &'static str,
    /// Model as asked.
    pub model: String,
    /// Model as sent to the upstream; empty when none was chosen.
    pub resolved: String,
    /// Provider; empty when none was chosen.
    pub provider: String,
    /// Label of the credential; empty when none was chosen.
    pub credential: String,
    /// The credential; `None` when none was chosen.
    pub credential_id: Option<pool::CredentialId>,
    /// Status; 499 when the client left first.
    pub status: u16,
    /// Calls to upstreams.
    pub attempts: u32,
    /// The answer was streamed.
    pub stream: bool,
    /// Token counts.
    pub usage: Usage,
    /// Milliseconds to the answer's first byte.
    pub first_event_ms: Option<u64>,
    /// Milliseconds in which nobody could serve it.
    pub waited_ms: u64,
    /// Milliseconds in all.
    pub latency_ms: u64,
    /// What the translation lost.
    pub losses: String,
    /// Why it failed, for people.
    pub error: String,
    /// What the last attempt that failed was found to be; empty: none failed.
    pub class: &'static str,
}

impl Facts {
    /// Takes over what one request on a connection shares with the next.
    pub fn clone_from_request(&mut self, opened: &Self) {
        self.client_ip.clone_from(&opened.client_ip);
        self.client_key = opened.client_key;
        self.user_agent.clone_from(&opened.user_agent);
        self.method.clone_from(&opened.method);
        self.path.clone_from(&opened.path);
    }

    /// The path without what varies in it: the one by which documents of the APIs call the endpoint.
    pub fn endpoint(&self) -> &'static str {
        match (self.operation, self.client) {
            ("generate", "openai") => "/v1/chat/completions",
            ("generate" | "websocket", "openai-response") => "/v1/responses",
            ("generate", "claude") => "/v1/messages",
            ("generate", "gemini") => "/v1beta/models:generateContent",
            ("count_tokens", "claude") => "/v1/messages/count_tokens",
            ("count_tokens", _) => "/v1beta/models:countTokens",
            ("completion", _) => "/v1/completions",
            ("compact", _) => "/v1/responses/compact",
            ("images.generations", _) => "/v1/images/generations",
            ("images.edits", _) => "/v1/images/edits",
            ("audio.transcriptions", _) => "/v1/audio/transcriptions",
            ("audio.translations", _) => "/v1/audio/translations",
            ("audio.speech", _) => "/v1/audio/speech",
            ("embeddings", _) => "/v1/embeddings",
            ("moderations", _) => "/v1/moderations",
            ("rerank", _) => "/v1/rerank",
            ("embed_content", _) => "/v1beta/models:embedContent",
            ("batch_embed_contents", _) => "/v1beta/models:batchEmbedContents",
            ("files", _) => "/v1beta/files",
            _ => "(other)",
        }
    }

    /// The line.
    pub fn line(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        for text in [self.method.as_str(), self.path.as_str()] {
            out.extend(text.bytes().map(|b| if b.is_ascii_graphic() { b } else { b'?' }));
            out.push(b' ');
        }
        out.extend_from_slice(format!("{} {}ms ", self.status, self.latency_ms).as_bytes());
        json::object(&mut out, |o| self.members(o));
        out
    }

    fn members(&self, o: &mut json::Object<'_>) {
        o.str("request_id", &self.request_id);
        o.uint("status_code", u64::from(self.status));
        o.uint("latency_ms", self.latency_ms);
        for (key, value) in [
            ("client_ip", self.client_ip.as_str()),
            ("client", self.client),
            ("operation", self.operation),
            ("model", &self.model),
            ("resolved_model", &self.resolved),
            ("provider", &self.provider),
            ("account", &self.credential),
            ("losses", &self.losses),
            ("error", &self.error),
            ("user_agent", &self.user_agent),
        ] {
            if !value.is_empty() {
                o.str(key, value);
            }
        }
        if self.client_key > 0 {
            o.uint("client_key", u64::from(self.client_key));
        }
        if self.attempts > 0 {
            o.uint("attempts", u64::from(self.attempts));
        }
        if self.stream {
            o.bool("stream", true);
        }
        if self.waited_ms > 0 {
            o.uint("waited_ms", self.waited_ms);
        }
        if let Some(first) = self.first_event_ms {
            o.uint("first_event_ms", first);
        }
        for (key, value) in [
            ("input_tokens", self.usage.input),
            ("cache_read_tokens", self.usage.cache_read),
            ("cache_write_tokens", self.usage.cache_write),
            ("output_tokens", self.usage.output),
            ("reasoning_tokens", self.usage.reasoning),
        ] {
            if let Some(value) = value {
                o.uint(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p65_a_request_is_one_line_whatever_it_says() {
        let facts = Facts {
            method: "POST".to_owned(),
            path: "/v1/x\n2026 forged".to_owned(),
            model: "a\nb\u{1b}[31m".to_owned(),
            status: 403,
            ..Facts::default()
        };
        let line = String::from_utf8(facts.line()).unwrap();
        assert_eq!(line.lines().count(), 1);
        assert!(!line.contains('\u{1b}'));
        assert!(line.contains(" 403 ") && line.contains("status_code\":403"), "{line}");
    }
}
