//! The data path: a Pingora [`ProxyHttp`] whose exchanges run as stages inside `request_filter`.
//!
//! Enters: requests. Leaves: answers. Files in the order in which a request meets them:
//!
//! | stage | file | takes → gives |
//! |---|---|---|
//! | 0 admit | `endpoint.rs`, `admit.rs` | header → permission |
//! | 1 parse | `parse.rs` | body → [`parse::Parsed`] |
//! | 2 route | `route.rs` | model → those who can serve |
//! | 3 select | `select.rs` | those → one of them, with a slot |
//! | 4 translate | `translate.rs` | body → the upstream's body |
//! | 5 forward | `forward.rs` | request → head of an answer |
//! | 6 reply | `reply.rs` | upstream bytes → client bytes |
//! | 7 record | `record.rs` | facts → log and metrics |
//!
//! `exchange.rs` runs stages 1 and 2 once, `retry.rs` runs 3 to 6 until an answer has begun. `client.rs` is
//! whoever asked; `websocket.rs` and `sockets.rs` are the other kind of client. `models.rs` and `health.rs`
//! are answered here.
//!
//! Pingora's own phases serve nothing yet but plain proxying of later parts: a body that was read in
//! `request_filter` cannot be replayed by its loop, its body filters have no timers, and its header filter
//! comes before the first event.

mod admit;
pub mod client;
mod count;
pub mod endpoint;
pub mod error;
mod exchange;
mod forward;
mod health;
mod models;
mod parse;
mod record;
mod reply;
mod respond;
mod retry;
mod route;
mod select;
mod sockets;
mod translate;
mod websocket;

use crate::state::State;
use async_trait::async_trait;
use bytes::Bytes;
use client::Client;
use endpoint::Endpoint;
use error::ProxyError;
use futures::FutureExt;
use pingora::modules::http::HttpModules;
use pingora::protocols::http::ServerSession;
use pingora::proxy::{ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use record::Record;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// Longest a write to a client may take: a client that reads nothing is gone.
const CLIENT_WRITE: Duration = Duration::from_secs(120);

/// The proxy.
#[derive(Debug)]
pub struct Edge {
    state: Arc<State>,
    version: &'static str,
}

impl Edge {
    /// The proxy over shared state. `version` is what `/health` says.
    pub fn new(state: Arc<State>, version: &'static str) -> Self {
        Self { state, version }
    }

    async fn serve(&self, session: &mut ServerSession, record: &mut Record) -> Result<()> {
        let header = session.req_header();
        let upgrade = header.headers.contains_key("upgrade");
        let endpoint = Endpoint::parse(&header.method, header.uri.path(), header.uri.query(), upgrade);
        note(record, session);
        session.set_write_timeout(Some(CLIENT_WRITE));
        let snapshot = self.state.snapshot.load_full();
        if let Err(error) = admit::admit(session.req_header(), &endpoint, &snapshot, &self.state) {
            record.facts.client = endpoint.protocol().name();
            return retry::answer_error(&mut Client::Http(session), endpoint.protocol(), &error, record)
                .await;
        }
        match endpoint {
            Endpoint::Exchange(call) => exchange::serve(&self.state, &snapshot, session, call, record).await,
            Endpoint::ResponsesSocket => Box::pin(sockets::serve(&self.state, session, record)).await,
            local => self.local(session, local, record).await,
        }
    }

    /// What is answered here.
    async fn local(
        &self,
        session: &mut ServerSession,
        endpoint: Endpoint,
        record: &mut Record,
    ) -> Result<()> {
        record.keep_quiet();
        let id = record.facts.request_id.clone();
        let headers = &session.req_header().headers;
        let listed = || self.state.pool.models(self.state.now());
        let (status, body) = match &endpoint {
            Endpoint::Health => {
                let detail = session.req_header().uri.path() == "/health";
                health::health(&self.state, self.version, detail)
            }
            Endpoint::Root => (200, health::root()),
            Endpoint::Models { gemini } => (200, models::list(&listed(), models::shape(headers, *gemini))),
            Endpoint::Model { id, gemini } => {
                let shape = models::shape(headers, *gemini);
                match models::one(&listed(), id, shape) {
                    Ok(body) => (200, body),
                    Err(error) => (404, error.body(shape).to_vec()),
                }
            }
            Endpoint::Preflight => {
                record.facts.status = 204;
                return respond::preflight(session, &id).await;
            }
            Endpoint::WrongMethod { allow, protocol } => {
                let error = ProxyError::client(405, format!("this path takes {allow}"));
                let mut header = respond::json_header(405, &id)?;
                header.insert_header(http::header::ALLOW, *allow)?;
                record.facts.status = 405;
                return respond::send(session, header, error.body(*protocol)).await;
            }
            _ => {
                let error = ProxyError::client(404, "there is no such path; GET / lists the paths");
                (404, error.body(endpoint.protocol()).to_vec())
            }
        };
        record.facts.status = status;
        respond::send(session, respond::json_header(status, &id)?, Bytes::from(body)).await
    }
}

fn note(record: &mut Record, session: &ServerSession) {
    let header = session.req_header();
    let facts = &mut record.facts;
    facts.method = header.method.as_str().to_owned();
    facts.path = header.uri.path().to_owned();
    facts.client_ip = session
        .client_addr()
        .and_then(|address| address.as_inet().map(|inet| inet.ip().to_string()))
        .unwrap_or_default();
    if let Some(agent) = header.headers.get(http::header::USER_AGENT) {
        facts.user_agent = String::from_utf8_lossy(agent.as_bytes()).chars().take(200).collect();
    }
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = Record;

    fn new_ctx(&self) -> Record {
        Record::default()
    }

    /// No compression: events must not be collected, and bodies are not ours to change.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, record: &mut Record) -> Result<bool> {
        record.begin(&self.state);
        let session: &mut ServerSession = session;
        let served = AssertUnwindSafe(self.serve(session, record)).catch_unwind().await;
        let result = served.unwrap_or_else(|_| {
            self.state.metrics.panics.inc();
            Error::e_explain(ErrorType::InternalError, "a handler panicked")
        });
        match result {
            Ok(()) => Ok(true),
            Err(error) => {
                if session.response_written().is_none() && *error.etype() == ErrorType::InternalError {
                    let told = ProxyError::internal(500, "the proxy failed; the log has the request id");
                    let protocol = wire::Protocol::OpenaiChat;
                    tracing::error!(request_id = %record.facts.request_id, "{error}");
                    retry::answer_error(&mut Client::Http(session), protocol, &told, record).await?;
                } else if record.facts.status == 0 || record.facts.status == 200 {
                    // The client left: nginx's number for it.
                    record.facts.status = 499;
                }
                session.set_keepalive(None);
                Err(error)
            }
        }
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Record) -> Result<Box<HttpPeer>> {
        Error::e_explain(ErrorType::InternalError, "nothing is proxied plainly")
    }

    async fn logging(&self, _: &mut Session, _: Option<&Error>, record: &mut Record) {
        record.finish(&self.state);
    }

    /// The access line says it better.
    fn suppress_error_log(&self, _: &Session, _: &Record, _: &Error) -> bool {
        true
    }
}
