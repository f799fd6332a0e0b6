//! The data path: a Pingora HTTP application whose exchanges run as stages.
//!
//! Enters: requests. Leaves: answers. Files in the order in which a request meets them:
//!
//! | stage | file | takes → gives |
//! |---|---|---|
//! | 0 connect | `connection.rs`, `proxy_header.rs` | connection → whose it is, and a place for it |
//! | 0 accept | `accept.rs` | connection → request |
//! | 0 admit | `endpoint.rs`, `admit.rs` | header → permission |
//! | 0 allow | `allowance.rs` | client key → what it may use, and how much |
//! | 1 parse | `parse.rs` | body → [`parse::Parsed`] |
//! | 2 route | `route.rs` | model → those who can serve |
//! | 3 select | `select.rs` | those → one of them, with a slot |
//! | 4 translate | `translate.rs` | body → the upstream's body |
//! | 5 forward | `forward.rs` | request → head of an answer |
//! | 6 reply | `reply.rs` | upstream bytes → client bytes |
//! | 7 record | `record.rs` | facts → log and metrics |
//!
//! `exchange.rs` runs stages 1 and 2 once, `retry.rs` runs 3 to 6 until an answer has begun, `attempt.rs`
//! runs 5 and 6 with one credential, `fallback.rs` says for which model; `session.rs` tells conversations
//! apart; `login.rs` renews a refused token before 5, `waiting.rs` waits where nobody can serve now.
//! `capture.rs` is what goes into the file of a request; `client.rs` is whoever asked; `websocket.rs` and `sockets.rs` are
//! the other kind of client. `files.rs`, `desk.rs` and `upload.rs` are Gemini's files, which belong to
//! accounts and not to models. `models.rs` and `health.rs` are answered here; `aside.rs` hands to the
//! management sidecar what it answers.
//!
//! Pingora brings connections, HTTP/1.1 and HTTP/2 on both sides, TLS and the connection pool. Its proxy
//! phases are not used: a body that was read before the upstream is known cannot be replayed by their loop,
//! their body filters have no timers, their header filter comes before the first event, and their future
//! would hold 20 kB per stream for phases that never run.

mod accept;
mod admit;
mod allowance;
mod aside;
mod attempt;
mod capture;
pub mod client;
pub mod connection;
mod count;
mod desk;
pub mod endpoint;
pub mod error;
mod exchange;
mod fallback;
mod files;
mod forward;
mod health;
mod login;
mod models;
mod parse;
mod proxy_header;
mod record;
mod reply;
mod respond;
mod retry;
mod route;
mod select;
mod session;
mod sockets;
mod translate;
mod upload;
mod waiting;
mod websocket;

use crate::state::{State, forwarded};
use bytes::Bytes;
use client::Client;
use endpoint::Endpoint;
use error::ProxyError;
use pingora::Result;
use pingora::apps::HttpServerOptions;
use pingora::protocols::http::ServerSession;
use record::Record;
use std::sync::Arc;
use std::time::Duration;

/// Longest a write to a client may take: a client that reads nothing is gone.
const CLIENT_WRITE: Duration = Duration::from_mins(2);

/// The proxy.
#[derive(Debug)]
pub struct Edge {
    state: Arc<State>,
    version: &'static str,
    options: HttpServerOptions,
}

impl Edge {
    /// The proxy over shared state. `version` is what `/health` says; `http2`: for connections that began
    /// with its preface. TLS negotiates it.
    pub fn new(state: Arc<State>, version: &'static str, http2: bool) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = http2;
        options.h2_idle_timeout = Some(accept::IDLE);
        Self { state, version, options }
    }

    async fn serve(&self, session: &mut ServerSession, record: &mut Record) -> Result<()> {
        let header = session.req_header();
        let upgrade = header.headers.contains_key("upgrade");
        let endpoint = Endpoint::parse(&header.method, header.uri.path(), header.uri.query(), upgrade);
        self.note(record, session);
        session.set_write_timeout(Some(CLIENT_WRITE));
        let snapshot = self.state.snapshot.load_full();
        match admit::admit(session.req_header(), &endpoint, &snapshot, &self.state) {
            Ok(admitted) => {
                record.facts.client_key = admitted.key.map_or(0, |key| key + 1);
                record.holder = admitted.holder;
                if matches!(endpoint, Endpoint::Exchange(_) | Endpoint::Files(_)) {
                    record.capture.begin(&self.state, &snapshot);
                }
            }
            Err(error) => {
                let protocol = endpoint.protocol();
                record.facts.client = protocol.name();
                return error::answer_error(&mut Client::Http(session), protocol, &error, record).await;
            }
        }
        match endpoint {
            Endpoint::Exchange(call) => exchange::serve(&self.state, &snapshot, session, call, record).await,
            Endpoint::Files(call) => match allowance::begin(record, &self.state) {
                Ok(_permit) => Box::pin(files::serve(&self.state, &snapshot, session, call, record)).await,
                Err(error) => {
                    let mut client = Client::Http(session);
                    error::answer_error(&mut client, wire::Protocol::Gemini, &error, record).await
                }
            },
            Endpoint::Aside => Box::pin(aside::serve(&self.state, session, record)).await,
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
        let holder = record.holder.clone();
        let listed = || {
            let mut models = self.state.pool.models(self.state.now());
            if let Some(holder) = &holder {
                models.retain(|model| holder.allows(&model.id));
            }
            models
        };
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

    fn note(&self, record: &mut Record, session: &ServerSession) {
        let header = session.req_header();
        record.trace.begin(&header.headers, &self.state.traces);
        let facts = &mut record.facts;
        header.method.as_str().clone_into(&mut facts.method);
        header.uri.path().clone_into(&mut facts.path);
        let digest = session.digest().and_then(|digest| digest.socket_digest.as_deref());
        if let Some(peer) = connection::address(digest) {
            let snapshot = self.state.snapshot.load();
            let trusted = &snapshot.config.server.trusted_proxies.0;
            facts.client_ip = forwarded::client(peer, &header.headers, trusted).to_string();
        }
        if let Some(agent) = header.headers.get(http::header::USER_AGENT) {
            facts.user_agent = String::from_utf8_lossy(agent.as_bytes()).chars().take(200).collect();
        }
    }
}
