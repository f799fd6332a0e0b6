//! Path and headers of a call to an upstream.
//!
//! Enters: what is asked of which flavour of upstream, the operator's credential, the client's headers.
//! Leaves: a request header for Pingora. May go wrong: a model name that cannot stand in a path.
//!
//! What a client sent goes on where it means something to the provider ([`FORWARDED`]); its own
//! authorisation, cookies and addresses never do. The operator's headers come last and win.

use super::peer::Lane;
use super::stamp::{self, Stamp, secret_value};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, PROXY_AUTHORIZATION,
    USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, Result};
use pool::Kind;
use secrecy::{ExposeSecret, SecretString};
use wire::model_path;
use wire::target::{Operation, Profile};

/// A value of an operator's header.
#[derive(Clone, Debug)]
pub enum Extra {
    /// This text.
    Literal(HeaderValue),
    /// What the client sent under this name; left out when it sent nothing.
    Copy(HeaderName),
}

/// A call to describe.
#[derive(Clone, Copy, Debug)]
pub struct Call<'c> {
    /// The way to the upstream.
    pub lane: &'c Lane,
    /// Its kind.
    pub kind: Kind,
    /// The flavour of the body.
    pub profile: Profile,
    /// What is asked.
    pub operation: Operation,
    /// The upstream's name of the model.
    pub model: &'c str,
    /// Whether events are wanted.
    pub stream: bool,
    /// The operator's key, or the token of an account.
    pub secret: &'c SecretString,
    /// Whether it is a token.
    pub is_token: bool,
    /// The account within the login; may be empty.
    pub scope: &'c str,
    /// The operator's headers.
    pub extra: &'c [(HeaderName, Extra)],
    /// The client's headers.
    pub client: &'c HeaderMap,
    /// The client's query, for the few parameters that mean something upstream.
    pub query: Option<&'c str>,
    /// Whether the client speaks the upstream's format.
    pub same_format: bool,
    /// Whether the body is the client's form, so that its content type has to go with it.
    pub is_form: bool,
    /// The body.
    pub body: &'c [u8],
}

/// The operator's headers of a credential. A value `$Name` copies what the client sent as `Name`; pairs that
/// HTTP does not allow were refused when the configuration was loaded and are left out here.
pub fn extra(headers: &[(String, SecretString)]) -> Vec<(HeaderName, Extra)> {
    let read = |(name, value): &(String, SecretString)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let text = value.expose_secret();
        let value = match text.strip_prefix('$').map(|from| HeaderName::from_bytes(from.as_bytes())) {
            Some(Ok(from)) => Extra::Copy(from),
            _ => Extra::Literal(secret_value(text).ok()?),
        };
        Some((name, value))
    };
    headers.iter().filter_map(read).collect()
}

/// Headers of a client that providers read, for traffic of the same format.
const FORWARDED: [&str; 13] = [
    "anthropic-beta",
    "anthropic-version",
    "openai-beta",
    "openai-organization",
    "openai-project",
    "originator",
    "version",
    "session-id",
    "session_id",
    "thread-id",
    "x-app",
    "x-client-request-id",
    "idempotency-key",
];
/// Families of such headers.
const FORWARDED_PREFIXES: [&str; 6] =
    ["x-stainless-", "x-claude-code-", "x-codex-", "x-goog-api-client", "x-goog-upload-", "x-session-"];

/// Builds the header of `call`.
pub fn header(call: &Call<'_>) -> Result<RequestHeader> {
    let mut header = start("POST", call.lane, path(call)?)?;
    let form = call.client.get(CONTENT_TYPE).filter(|_| call.is_form);
    let json = HeaderValue::from_static("application/json");
    header.insert_header(CONTENT_TYPE, form.cloned().unwrap_or(json))?;
    header.insert_header(CONTENT_LENGTH, call.body.len())?;
    let accept = match call.operation {
        // It answers in a format of its own.
        _ if call.kind == Kind::Kiro => "*/*",
        _ if call.stream => "text/event-stream",
        // What comes is passed as it is: sound, subtitles, text.
        operation if operation.is_media() => "*/*",
        _ => "application/json",
    };
    header.insert_header(ACCEPT, HeaderValue::from_static(accept))?;
    forward_client(call.client, call.same_format, &mut header)?;
    let stamp = Stamp {
        kind: call.kind,
        speaks_claude: call.profile == Profile::Claude,
        lane: call.lane,
        secret: call.secret,
        is_token: call.is_token,
        scope: call.scope,
    };
    stamp.put(&mut header)?;
    if call.kind == Kind::Copilot {
        stamp::copilot(call.body, &mut header)?;
    }
    operators(call.extra, call.client, &mut header)?;
    Ok(header)
}

/// A call about one of Gemini's files.
#[derive(Clone, Copy, Debug)]
pub struct FileCall<'c> {
    /// The way to the upstream.
    pub lane: &'c Lane,
    /// The client's method.
    pub method: &'c str,
    /// Path and query below the API's root.
    pub target: &'c str,
    /// The operator's key.
    pub secret: &'c SecretString,
    /// The operator's headers.
    pub extra: &'c [(HeaderName, Extra)],
    /// The client's headers.
    pub client: &'c HeaderMap,
    /// Length of the body, where it is known; 0: there is none.
    pub length: Option<u64>,
}

/// Builds the header of a call about a file.
pub fn file_header(call: &FileCall<'_>) -> Result<RequestHeader> {
    let base = call.lane.base_path();
    let root = base.strip_suffix("/v1beta").unwrap_or(base);
    let mut header = start(call.method, call.lane, format!("{root}{}", call.target))?;
    for name in [CONTENT_TYPE, CONTENT_ENCODING] {
        if let Some(value) = call.client.get(&name) {
            header.insert_header(name, value.clone())?;
        }
    }
    if let Some(length) = call.length.filter(|length| *length > 0 || call.method == "POST") {
        header.insert_header(CONTENT_LENGTH, length)?;
    }
    header.insert_header(ACCEPT, HeaderValue::from_static("*/*"))?;
    forward_client(call.client, true, &mut header)?;
    Stamp::key(Kind::Gemini, call.lane, call.secret).put(&mut header)?;
    operators(call.extra, call.client, &mut header)?;
    Ok(header)
}

/// Request line, host, and what a proxy on the way wants.
fn start(method: &str, lane: &Lane, path: String) -> Result<RequestHeader> {
    let target = match lane.forward() {
        Some(_) => format!("http://{}{path}", lane.authority()),
        None => path,
    };
    let mut header = RequestHeader::build_no_case(method, target.as_bytes(), Some(16))?;
    header.insert_header(HOST, lane.authority())?;
    // Answers are read here; unpacking them would cost more than the bytes.
    header.insert_header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))?;
    if let Some(forward) = lane.forward()
        && let Some(credentials) = &forward.credentials
    {
        header.insert_header(PROXY_AUTHORIZATION, secret_value(credentials.expose_secret())?)?;
    }
    Ok(header)
}

/// The operator's headers.
fn operators(extra: &[(HeaderName, Extra)], client: &HeaderMap, header: &mut RequestHeader) -> Result<()> {
    for (name, value) in extra {
        match value {
            Extra::Literal(value) => {
                header.insert_header(name.clone(), value.clone())?;
            }
            Extra::Copy(from) => {
                if let Some(value) = client.get(from) {
                    header.insert_header(name.clone(), value.clone())?;
                }
            }
        }
    }
    Ok(())
}

fn path(call: &Call<'_>) -> Result<String> {
    let base = call.lane.base_path();
    let versioned = |version: &str| {
        if base.ends_with(version) { base.to_owned() } else { format!("{base}{version}") }
    };
    let drawn_by_tool = call.operation.draws() && !call.same_format;
    if let Some(path) = media_path(call.operation).filter(|_| !drawn_by_tool) {
        return Ok(format!("{base}{path}"));
    }
    Ok(match (call.kind, call.operation) {
        (Kind::Kimi, operation) if call.profile == Profile::Claude => {
            let count = if operation == Operation::CountTokens { "/count_tokens" } else { "" };
            format!("{}/messages{count}", versioned("/v1"))
        }
        (Kind::Copilot, _) if call.profile == Profile::CopilotResponses => format!("{base}/responses"),
        (Kind::Chat | Kind::Kimi | Kind::Qwen | Kind::Iflow | Kind::Copilot, _) => {
            format!("{base}/chat/completions")
        }
        (Kind::Responses | Kind::Codex, Operation::Compact) => format!("{base}/responses/compact"),
        (Kind::Responses | Kind::Codex, _) => format!("{base}/responses"),
        (Kind::Kiro, _) => format!("{base}/generateAssistantResponse"),
        (Kind::Claude, operation) => {
            let beta = call.same_format && call.query.is_some_and(|q| q.split('&').any(|p| p == "beta=true"));
            let count = if operation == Operation::CountTokens { "/count_tokens" } else { "" };
            format!("{}/messages{count}{}", versioned("/v1"), if beta { "?beta=true" } else { "" })
        }
        (kind @ (Kind::Gemini | Kind::Vertex), operation) => {
            let Some(model) = model_path::segment(call.model) else {
                return Error::e_explain(ErrorType::InternalError, "the model name cannot stand in a URL");
            };
            let action = google_action(operation, call.stream);
            match kind {
                Kind::Vertex => {
                    let project = if call.scope.is_empty() { "" } else { "/" };
                    let root = versioned("/v1");
                    format!("{root}{project}{}/publishers/google/models/{model}:{action}", call.scope)
                }
                _ => format!("{}/models/{model}:{action}", versioned("/v1beta")),
            }
        }
        (Kind::Antigravity | Kind::GeminiCli, operation) => {
            format!("{base}/v1internal:{}", google_action(operation, call.stream))
        }
    })
}

/// Paths of OpenAI-compatible servers that are no conversation.
fn media_path(operation: Operation) -> Option<&'static str> {
    Some(match operation {
        Operation::ImageGeneration => "/images/generations",
        Operation::ImageEdit => "/images/edits",
        Operation::Embeddings => "/embeddings",
        Operation::Transcription => "/audio/transcriptions",
        Operation::Translation => "/audio/translations",
        Operation::Speech => "/audio/speech",
        Operation::Moderation => "/moderations",
        Operation::Rerank => "/rerank",
        _ => return None,
    })
}

fn google_action(operation: Operation, stream: bool) -> &'static str {
    match operation {
        Operation::CountTokens => "countTokens",
        Operation::GeminiEmbed => "embedContent",
        Operation::GeminiBatchEmbed => "batchEmbedContents",
        _ if stream => "streamGenerateContent?alt=sse",
        _ => "generateContent",
    }
}

fn forward_client(client: &HeaderMap, same_format: bool, header: &mut RequestHeader) -> Result<()> {
    let agent = client.get(USER_AGENT).cloned();
    header.insert_header(USER_AGENT, agent.unwrap_or(HeaderValue::from_static("cliproxy")))?;
    if !same_format {
        return Ok(());
    }
    for (name, value) in client {
        let text = name.as_str();
        let known = FORWARDED.contains(&text) || FORWARDED_PREFIXES.iter().any(|p| text.starts_with(p));
        if known {
            header.append_header(name.clone(), value.clone())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::peer::ConnectTimeouts;
    use crate::upstream::resolve::Resolver;
    use crate::upstream::stamp::KIRO_TARGET;
    use pool::ModelSpec;
    use std::sync::Arc;
    use std::time::Duration;
    use wire::Protocol;

    fn lane(base: &str) -> Lane {
        let timeouts = ConnectTimeouts { connect: Duration::from_secs(1), write: Duration::from_secs(1) };
        Lane::new(&url::Url::parse(base).unwrap(), None, timeouts, &Arc::new(Resolver::default())).unwrap()
    }

    fn call<'c>(
        lane: &'c Lane,
        kind: Kind,
        client: &'c HeaderMap,
        same_format: bool,
        secret: &'c SecretString,
    ) -> Call<'c> {
        Call {
            lane,
            kind,
            profile: kind.profile(Protocol::OpenaiChat, &ModelSpec::default()),
            operation: Operation::Generate,
            model: "m/1?x",
            stream: true,
            secret,
            is_token: false,
            scope: "",
            extra: &[],
            client,
            query: Some("beta=true&key=client-key"),
            same_format,
            is_form: false,
            body: br#"{"messages":[{"role":"tool"}]}"#,
        }
    }

    fn built(base: &str, kind: Kind, client: &HeaderMap, same_format: bool) -> RequestHeader {
        let (lane, secret) = (lane(base), SecretString::from("sk-secret"));
        let extra = [
            (HeaderName::from_static("x-static"), Extra::Literal(HeaderValue::from_static("s"))),
            (HeaderName::from_static("x-copied"), Extra::Copy(HeaderName::from_static("x-mine"))),
        ];
        header(&Call { extra: &extra, ..call(&lane, kind, client, same_format, &secret) }).unwrap()
    }

    #[test]
    fn paths_of_the_flavours() {
        let none = HeaderMap::new();
        for (base, kind, expected) in [
            ("http://h/v1", Kind::Chat, "/v1/chat/completions"),
            ("http://h/v1", Kind::Kimi, "/v1/chat/completions"),
            ("http://h", Kind::Copilot, "/chat/completions"),
            ("http://h/codex", Kind::Codex, "/codex/responses"),
            ("http://h", Kind::Claude, "/v1/messages?beta=true"),
            ("http://h/v1", Kind::Claude, "/v1/messages?beta=true"),
            ("http://h/ge", Kind::Gemini, "/ge/v1beta/models/m/1%3Fx:streamGenerateContent?alt=sse"),
            ("http://h", Kind::Antigravity, "/v1internal:streamGenerateContent?alt=sse"),
            ("http://h", Kind::Kiro, "/generateAssistantResponse"),
        ] {
            let header = built(base, kind, &none, true);
            assert_eq!(String::from_utf8_lossy(header.raw_path()), expected);
        }
    }

    #[test]
    fn vertex_takes_a_key_or_the_token_of_a_project() {
        let none = HeaderMap::new();
        let key = built("https://aiplatform.googleapis.com", Kind::Vertex, &none, false);
        let action = "/publishers/google/models/m/1%3Fx:streamGenerateContent?alt=sse";
        assert_eq!(String::from_utf8_lossy(key.raw_path()), format!("/v1{action}"));
        assert_eq!(key.headers["x-goog-api-key"], "sk-secret");
        let lane = lane("https://europe-west4-aiplatform.googleapis.com");
        let secret = SecretString::from("sk-secret");
        let scope = "projects/p/locations/europe-west4";
        let token =
            header(&Call { is_token: true, scope, ..call(&lane, Kind::Vertex, &none, false, &secret) });
        let token = token.unwrap();
        assert_eq!(String::from_utf8_lossy(token.raw_path()), format!("/v1/{scope}{action}"));
        assert_eq!(token.headers["authorization"], "Bearer sk-secret");
        assert!(token.headers.get("x-goog-api-key").is_none());
    }

    #[test]
    fn kiro_is_told_which_api_on_the_host_that_asks() {
        let none = HeaderMap::new();
        let one = built("https://codewhisperer.us-east-1.amazonaws.com", Kind::Kiro, &none, false);
        assert_eq!(one.headers["x-amz-target"], KIRO_TARGET);
        assert_eq!(
            (&one.headers["accept"], &one.headers["authorization"]),
            (&HeaderValue::from_static("*/*"), &HeaderValue::from_static("Bearer sk-secret"))
        );
        assert!(one.headers.get("anthropic-version").is_none());
        let other = built("https://q.us-east-1.amazonaws.com", Kind::Kiro, &none, false);
        assert!(other.headers.get("x-amz-target").is_none());
        assert_eq!(other.headers["x-amzn-codewhisperer-optout"], "true");
    }

    #[test]
    fn copilot_is_told_that_a_tool_goes_on() {
        let header = built("http://h", Kind::Copilot, &HeaderMap::new(), true);
        assert_eq!(header.headers["x-initiator"], "agent");
        assert_eq!(header.headers["copilot-integration-id"], "vscode-chat");
        assert!(header.headers.get("copilot-vision-request").is_none());
    }

    #[test]
    fn p61_the_clients_authorisation_never_goes_upstream() {
        let mut client = HeaderMap::new();
        for name in [
            "authorization",
            "x-api-key",
            "x-goog-api-key",
            "cookie",
            "proxy-authorization",
            "x-forwarded-for",
            "x-real-ip",
            "forwarded",
            "via",
            "host",
            "connection",
            "content-encoding",
            "x-unknown",
        ] {
            client.insert(HeaderName::from_static(name), HeaderValue::from_static("client-secret"));
        }
        client.insert("anthropic-beta", HeaderValue::from_static("b1"));
        client.insert("x-mine", HeaderValue::from_static("copied"));
        for kind in [Kind::Chat, Kind::Codex, Kind::Claude, Kind::Gemini] {
            let header = built("http://h", kind, &client, true);
            for (name, value) in &header.headers {
                assert_ne!(value.as_bytes(), b"client-secret", "{name} reached {kind:?}");
            }
            assert_eq!(header.headers["anthropic-beta"], "b1");
            assert_eq!(
                (&header.headers["x-static"], &header.headers["x-copied"]),
                (&HeaderValue::from_static("s"), &HeaderValue::from_static("copied"))
            );
        }
        assert!(built("http://h", Kind::Chat, &client, false).headers.get("anthropic-beta").is_none());
    }
}
