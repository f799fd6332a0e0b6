//! Why a request cannot be served, and how its client is told.
//!
//! Enters: a failure of the client, of an upstream or of ours. Leaves: an answer in the shape of the
//! client's format, with status and `Retry-After`. The public message and what the log says are different
//! fields. May go wrong: the client has left.

use super::client::Client;
use super::record::Record;
use super::respond;
use bytes::Bytes;
use pingora::Result;
use pool::Class;
use wire::Protocol;
use wire::error::{Failure, WireError};

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The client asked for something that cannot be.
    Client,
    /// The upstream failed.
    Upstream,
    /// We did.
    Internal,
}

/// A request that is answered with an error.
#[derive(Clone, Debug)]
pub struct ProxyError {
    /// What the client is told.
    pub failure: Failure,
    /// Whose fault it is.
    pub source: Source,
    /// The upstream's own error body: a client of the same format gets it as it is.
    pub verbatim: Option<Box<Verbatim>>,
    /// The part of a stream that came before it broke, with the error as its last event: what the client gets
    /// when nobody else can answer.
    pub partial: Option<Box<Partial>>,
    /// The connection cannot be used again: part of the request was not read.
    pub close: bool,
}

/// A stream that ends with an error event.
#[derive(Clone, Debug)]
pub struct Partial {
    /// Whether it is a JSON array instead of server-sent events.
    pub array: bool,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// An upstream's error body.
#[derive(Clone, Debug)]
pub struct Verbatim {
    /// Its format.
    pub protocol: Protocol,
    /// Its bytes: a JSON document.
    pub body: Bytes,
}

impl ProxyError {
    /// The client asked for something that cannot be.
    pub fn client(status: u16, message: impl Into<String>) -> Self {
        Self {
            failure: Failure::new(status, message),
            source: Source::Client,
            verbatim: None,
            partial: None,
            close: false,
        }
    }

    /// We failed.
    pub fn internal(status: u16, message: impl Into<String>) -> Self {
        Self { source: Source::Internal, ..Self::client(status, message) }
    }

    /// An upstream failed.
    pub fn upstream(failure: Failure) -> Self {
        Self { failure, source: Source::Upstream, verbatim: None, partial: None, close: false }
    }

    /// With what the pool made of it: a model that the account may not use is one that is not there. A body
    /// that no SDK takes for an error (`{"detail":…}`) is written anew.
    #[must_use]
    pub fn of_class(mut self, class: Class) -> Self {
        if !matches!(class, Class::Entitlement | Class::ModelMissing) {
            return self;
        }
        let is_error =
            |body: &[u8]| wire::json::parse_any(body).is_ok_and(|body| body.get("error").is_some());
        self.verbatim = self.verbatim.filter(|verbatim| is_error(&verbatim.body));
        self.failure.code.get_or_insert_with(|| "model_not_found".to_owned());
        self.failure.param.get_or_insert_with(|| "model".to_owned());
        self
    }

    /// With a machine-readable code.
    #[must_use]
    pub fn code(mut self, code: &str) -> Self {
        self.failure.code = Some(code.to_owned());
        self
    }

    /// About a member of the request.
    #[must_use]
    pub fn param(mut self, param: &str) -> Self {
        self.failure.param = Some(param.to_owned());
        self
    }

    /// The connection has to be closed after the answer.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// The body for a client of `protocol`.
    pub fn body(&self, protocol: Protocol) -> Bytes {
        match &self.verbatim {
            Some(verbatim) if verbatim.protocol == protocol => verbatim.body.clone(),
            _ => self.failure.render(protocol).into(),
        }
    }
}

impl From<WireError> for ProxyError {
    fn from(error: WireError) -> Self {
        let mut answer = Self {
            failure: error.failure(),
            source: Source::Client,
            verbatim: None,
            partial: None,
            close: false,
        };
        if error.path() == Some("thread") {
            // Anthropic's SDK sends the whole history again when it sees this code.
            answer.failure.code = Some("thread_unsupported_request".to_owned());
        }
        answer
    }
}

/// Answers with an error.
pub(super) async fn answer_error(
    client: &mut Client<'_>,
    protocol: Protocol,
    error: &ProxyError,
    record: &mut Record,
) -> Result<()> {
    record.facts.status = error.failure.status;
    record.facts.error.clone_from(&error.failure.message);
    if error.close {
        client.close();
    }
    if let Some(partial) = &error.partial {
        record.facts.status = 200;
        let http11 = client.is_http11();
        record.capture.answered(&partial.bytes);
        client.start(respond::stream_header(&record.facts.request_id, partial.array, http11)?).await?;
        return client.finish(partial.bytes.clone()).await;
    }
    let mut header = respond::json_header(error.failure.status, &record.facts.request_id)?;
    if let Some(seconds) = error.failure.retry_after {
        header.insert_header(http::header::RETRY_AFTER, seconds)?;
    }
    let body = error.body(protocol);
    record.capture.refused(&body);
    client.respond(header, body).await
}
