//! Method and path → what is asked for.
//!
//! Enters: the request line and a few headers. Leaves: [`Endpoint`]. May go wrong: an unknown path (404), a
//! known path with another method (405, with `Allow`); both in the shape of the format that the path
//! belongs to.

use crate::state::query::{percent_decode, query_value};
use http::Method;
use wire::Protocol;
use wire::frames::Framing;
use wire::target::Operation;

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/health`, `/healthz`, `/readyz`.
    Health,
    /// `/`.
    Root,
    /// The list of models; the shape depends on headers where the path is shared.
    Models {
        /// The path belongs to Gemini alone (`/v1beta/models`).
        gemini: bool,
    },
    /// One model.
    Model {
        /// Its id.
        id: String,
        /// The path belongs to Gemini alone.
        gemini: bool,
    },
    /// A question for a model.
    Exchange(Call),
    /// Gemini's files.
    Files(FileCall),
    /// `GET /v1/responses` with an upgrade.
    ResponsesSocket,
    /// Any path with `OPTIONS`.
    Preflight,
    /// A known path with another method.
    WrongMethod {
        /// The methods that it has.
        allow: &'static str,
        /// Format of its errors.
        protocol: Protocol,
    },
    /// Nothing we know.
    Unknown {
        /// Format of its errors.
        protocol: Protocol,
    },
}

/// What is asked about Gemini's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileCall {
    /// An upload begins.
    Start,
    /// A part of an upload comes, under a ticket that the proxy gave out when it began.
    Part {
        /// The ticket.
        ticket: String,
    },
    /// One file: what is known of it, or its end.
    One {
        /// Its id.
        id: String,
        /// Its content is wanted.
        download: bool,
    },
    /// The files of all accounts, by page.
    List,
}

/// A question for a model, as far as the URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Format of the client.
    pub client: Protocol,
    /// What is asked.
    pub operation: Operation,
    /// The model, where the URL names it.
    pub model: Option<String>,
    /// Whether events are wanted, where the URL says.
    pub stream: Option<bool>,
    /// Framing of events.
    pub framing: Framing,
}

/// The parameter of an upload URL that says who holds the upload, and that the proxy gave it out.
pub(super) const TICKET: &str = "ticket";

impl Endpoint {
    /// Reads the request line. `upgrade` is whether the client wants a WebSocket.
    pub fn parse(method: &Method, path: &str, query: Option<&str>, upgrade: bool) -> Self {
        if method == Method::OPTIONS {
            return Self::Preflight;
        }
        let get = method == Method::GET || method == Method::HEAD;
        let post = method == Method::POST;
        let path = path.strip_prefix("/backend-api/codex").map_or(path, |rest| match rest {
            "/responses" => "/v1/responses",
            "/responses/compact" => "/v1/responses/compact",
            _ => path,
        });
        let chat = Protocol::OpenaiChat;
        match path {
            "/health" | "/healthz" | "/readyz" => only(get, Self::Health, "GET, HEAD", chat),
            "/" => only(get, Self::Root, "GET, HEAD", chat),
            "/v1/models" | "/models" => only(get, Self::Models { gemini: false }, "GET", chat),
            "/v1beta/models" => only(get, Self::Models { gemini: true }, "GET", Protocol::Gemini),
            "/v1/chat/completions" => exchange(post, chat, Operation::Generate),
            "/v1/completions" => exchange(post, chat, Operation::Completion),
            "/v1/messages" => exchange(post, Protocol::Claude, Operation::Generate),
            "/v1/messages/count_tokens" => exchange(post, Protocol::Claude, Operation::CountTokens),
            "/v1/responses" | "/v1/responses/ws" if get && upgrade => Self::ResponsesSocket,
            "/v1/responses" => exchange(post, Protocol::OpenaiResponses, Operation::Generate),
            "/v1/responses/compact" => exchange(post, Protocol::OpenaiResponses, Operation::Compact),
            "/v1beta/files" => {
                only(method == Method::GET, Self::Files(FileCall::List), "GET", Protocol::Gemini)
            }
            "/upload/v1beta/files" => {
                let ticket = query_value(query, TICKET);
                let call = ticket.map_or(FileCall::Start, |ticket| FileCall::Part { ticket });
                only(post || method == Method::PUT, Self::Files(call), "POST, PUT", Protocol::Gemini)
            }
            _ if path.starts_with("/v1beta/files/") => {
                let call = path.strip_prefix("/v1beta/files/").and_then(file);
                match call {
                    Some(call) => only(
                        matches!(*method, Method::GET | Method::DELETE),
                        Self::Files(call),
                        "GET, DELETE",
                        Protocol::Gemini,
                    ),
                    None => Self::Unknown { protocol: Protocol::Gemini },
                }
            }
            _ => match media(path) {
                Some(operation) => exchange(post, chat, operation),
                None => Self::with_model(path, query, get, post),
            },
        }
    }

    /// Paths that name a model.
    fn with_model(path: &str, query: Option<&str>, get: bool, post: bool) -> Self {
        let beta = path.starts_with("/v1beta/");
        let protocol = if path.starts_with("/v1/messages") {
            Protocol::Claude
        } else if beta {
            Protocol::Gemini
        } else {
            Protocol::OpenaiChat
        };
        let unknown = Self::Unknown { protocol };
        let Some(rest) = path.strip_prefix("/v1beta/models/").or_else(|| path.strip_prefix("/v1/models/"))
        else {
            return unknown;
        };
        let Some(rest) = percent_decode(rest).filter(|rest| !rest.is_empty()) else { return unknown };
        if get {
            return Self::Model { id: rest, gemini: beta };
        }
        let Some((model, action)) = rest.rsplit_once(':').filter(|_| post) else {
            return if post { unknown } else { Self::WrongMethod { allow: "GET, POST", protocol } };
        };
        let alt = query_value(query, "alt").or_else(|| query_value(query, "$alt"));
        let (operation, stream, framing) = match action {
            "generateContent" => (Operation::Generate, false, Framing::Sse),
            "streamGenerateContent" if matches!(alt.as_deref(), None | Some("json")) => {
                (Operation::Generate, true, Framing::JsonArray)
            }
            "streamGenerateContent" => (Operation::Generate, true, Framing::Sse),
            "countTokens" => (Operation::CountTokens, false, Framing::Sse),
            "embedContent" => (Operation::GeminiEmbed, false, Framing::Sse),
            "batchEmbedContents" => (Operation::GeminiBatchEmbed, false, Framing::Sse),
            _ => return Self::Unknown { protocol: Protocol::Gemini },
        };
        Self::Exchange(Call {
            client: Protocol::Gemini,
            operation,
            model: Some(model.to_owned()),
            stream: Some(stream),
            framing,
        })
    }

    /// Format in which an error of this endpoint is told.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Exchange(call) => call.client,
            Self::ResponsesSocket => Protocol::OpenaiResponses,
            Self::Files(_) => Protocol::Gemini,
            Self::Models { gemini: true } | Self::Model { gemini: true, .. } => Protocol::Gemini,
            Self::WrongMethod { protocol, .. } | Self::Unknown { protocol } => *protocol,
            _ => Protocol::OpenaiChat,
        }
    }

    /// Whether a client key is needed.
    pub fn needs_key(&self) -> bool {
        !matches!(
            self,
            Self::Health
                | Self::Root
                | Self::Preflight
                | Self::Unknown { .. }
                | Self::WrongMethod { .. }
                // The ticket is the permission: SDKs send no key with the parts of a file.
                | Self::Files(FileCall::Part { .. })
        )
    }
}

/// A file's id, and whether its content is wanted.
fn file(rest: &str) -> Option<FileCall> {
    let (id, download) = rest.strip_suffix(":download").map_or((rest, false), |id| (id, true));
    let legal = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    legal.then(|| FileCall::One { id: id.to_owned(), download })
}

/// Paths of OpenAI that are no conversation.
fn media(path: &str) -> Option<Operation> {
    Some(match path {
        "/v1/images/generations" => Operation::ImageGeneration,
        "/v1/images/edits" => Operation::ImageEdit,
        "/v1/embeddings" => Operation::Embeddings,
        "/v1/audio/transcriptions" => Operation::Transcription,
        "/v1/audio/translations" => Operation::Translation,
        "/v1/audio/speech" => Operation::Speech,
        "/v1/moderations" => Operation::Moderation,
        "/v1/rerank" => Operation::Rerank,
        _ => return None,
    })
}

fn only(matches: bool, endpoint: Endpoint, allow: &'static str, protocol: Protocol) -> Endpoint {
    if matches { endpoint } else { Endpoint::WrongMethod { allow, protocol } }
}

fn exchange(post: bool, client: Protocol, operation: Operation) -> Endpoint {
    let call = Call { client, operation, model: None, stream: None, framing: Framing::Sse };
    only(post, Endpoint::Exchange(call), "POST", client)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(path: &str, query: Option<&str>) -> Endpoint {
        Endpoint::parse(&Method::POST, path, query, false)
    }

    #[test]
    fn gemini_paths() {
        let Endpoint::Exchange(call) =
            post("/v1beta/models/team-a%2Ffast:streamGenerateContent", Some("alt=sse"))
        else {
            panic!()
        };
        assert_eq!(call.model.as_deref(), Some("team-a/fast"));
        assert_eq!((call.stream, call.framing), (Some(true), Framing::Sse));
        let Endpoint::Exchange(call) = post("/v1/models/m(high):streamGenerateContent", None) else {
            panic!()
        };
        assert_eq!((call.model.as_deref(), call.framing), (Some("m(high)"), Framing::JsonArray));
        assert_eq!(post("/v1beta/models/m:what", None), Endpoint::Unknown { protocol: Protocol::Gemini });
        assert_eq!(post("/v1beta/models/%zz:generateContent", None).protocol(), Protocol::Gemini);
    }

    #[test]
    fn methods() {
        let get = |path, upgrade| Endpoint::parse(&Method::GET, path, None, upgrade);
        assert_eq!(get("/v1/responses", true), Endpoint::ResponsesSocket);
        assert!(matches!(get("/v1/responses", false), Endpoint::WrongMethod { allow: "POST", .. }));
        assert_eq!(get("/health", false), Endpoint::Health);
        assert_eq!(Endpoint::parse(&Method::OPTIONS, "/anything", None, false), Endpoint::Preflight);
        assert!(matches!(post("/health", None), Endpoint::WrongMethod { .. }));
        assert!(!get("/nothing", false).needs_key());
        assert!(matches!(get("/v1/embeddings", false), Endpoint::WrongMethod { allow: "POST", .. }));
    }

    #[test]
    fn file_paths() {
        let of = |method: &Method, path: &str, query| Endpoint::parse(method, path, query, false);
        let one = |id: &str, download| Endpoint::Files(FileCall::One { id: id.to_owned(), download });
        assert_eq!(of(&Method::GET, "/v1beta/files/a-1", None), one("a-1", false));
        assert_eq!(of(&Method::GET, "/v1beta/files/a-1:download", None), one("a-1", true));
        assert!(matches!(of(&Method::GET, "/v1beta/files/..", None), Endpoint::Unknown { .. }));
        assert!(matches!(of(&Method::PUT, "/v1beta/files/a", None), Endpoint::WrongMethod { .. }));
        let part = of(&Method::POST, "/upload/v1beta/files", Some("upload_id=1&ticket=t"));
        assert_eq!(part, Endpoint::Files(FileCall::Part { ticket: "t".to_owned() }));
        assert!(!part.needs_key() && post("/upload/v1beta/files", None).needs_key());
    }

    #[test]
    fn media_paths() {
        for (path, operation) in [
            ("/v1/images/edits", Operation::ImageEdit),
            ("/v1/audio/speech", Operation::Speech),
            ("/v1beta/models/m:embedContent", Operation::GeminiEmbed),
        ] {
            assert!(
                matches!(post(path, None), Endpoint::Exchange(call) if call.operation == operation),
                "{path}"
            );
        }
    }
}
