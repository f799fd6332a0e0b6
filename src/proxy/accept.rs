//! Stage 0: a connection gives a request, and gets its answer.
//!
//! Enters: a connection. Leaves: the same connection, where it can carry another request. May go wrong: the
//! header is no HTTP (400), is endless (431) or slow (the connection ends), the client leaves (nothing is
//! sent), a handler panics (500).

use super::Edge;
use super::aside;
use super::capture;
use super::client::Client;
use super::endpoint::Endpoint;
use super::error::{ProxyError, answer_error};
use super::record::Record;
use crate::state::leave::Phase;
use crate::state::seconds;
use async_trait::async_trait;
use futures::FutureExt;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::server::ShutdownWatch;
use pingora::{Error, ErrorType, Result};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// Streams of one HTTP/2 connection.
const H2_STREAMS: u32 = 256;
/// How long a connection may wait for its next request: longer than load balancers keep theirs.
pub(super) const IDLE: Duration = Duration::from_secs(90);

/// Mark of a connection that has carried a request.
struct Reused;

#[async_trait]
impl HttpServerApp for Edge {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !self.request(&mut session).await {
            return None;
        }
        if self.state.leave.phase() >= Phase::Leaving {
            // The answer says so, and the client takes another connection.
            session.set_keepalive(None);
        }
        let threads = aside::is_aside(session.req_header().uri.path()).then(|| self.state.sidecar.threads());
        if let Some(threads) = threads.flatten() {
            // Whoever watches or steers takes no time of the threads that serve.
            let edge = Arc::clone(self);
            let beside = async move { edge.exchange(&mut session).await.map(|()| session) };
            session = threads.spawn(beside).await.ok()?.ok()?;
        } else {
            self.exchange(&mut session).await.ok()?;
        }
        let mut settings = HttpPersistentSettings::for_session(&session);
        settings.set_user_context(Box::new(Reused));
        let stream = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    fn h2_options(&self) -> Option<H2Options> {
        let mut h2 = default_h2_options();
        h2.max_concurrent_streams(H2_STREAMS)
            .initial_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        Some(h2)
    }
}

impl Edge {
    /// Waits for a header. `false`: there is none, and the connection ends.
    async fn request(&self, session: &mut ServerSession) -> bool {
        let mut wait = seconds(self.state.snapshot.load().config.server.timeouts.client_body_seconds);
        if session.take_connection_user_context().is_some() {
            wait += IDLE;
        }
        // A header that has arrived is served, also while the process leaves.
        let read = tokio::select! {
            biased;
            read = tokio::time::timeout(wait, session.read_request()) => read,
            () = self.state.leave.reached(Phase::IdleOver) => return false,
        };
        match read {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                if *error.etype() == ErrorType::InvalidHTTPHeader {
                    // Nothing is left to do where the client does not take it.
                    let _ = session.respond_error(refusal(&error)).await;
                }
                session.shutdown().await;
                false
            }
            Err(_) => {
                session.shutdown().await;
                false
            }
        }
    }

    /// One request and its answer, with its record.
    async fn exchange(&self, session: &mut ServerSession) -> Result<()> {
        let mut record = Record::default();
        record.begin(&self.state);
        let result = self.answer(session, &mut record).await;
        record.finish(&self.state);
        capture::write_down(&mut record, &self.state, session);
        record.hand_on(&self.state);
        if result.is_err() {
            session.set_keepalive(None);
        }
        result
    }

    /// Answers. An error means that the connection must not carry another request.
    async fn answer(&self, session: &mut ServerSession, record: &mut Record) -> Result<()> {
        let served = async {
            #[cfg(test)]
            tests::fail_point(session);
            self.serve(session, record).await
        };
        let result = AssertUnwindSafe(served).catch_unwind().await.unwrap_or_else(|_| {
            self.state.metrics.panics.inc();
            Error::e_explain(ErrorType::InternalError, "a handler panicked")
        });
        let Err(error) = result else {
            return Ok(());
        };
        if session.response_written().is_none() && *error.etype() == ErrorType::InternalError {
            let told = ProxyError::internal(500, "the proxy failed; the log has the request id");
            tracing::error!(request_id = %record.facts.request_id, "{error}");
            let header = session.req_header();
            let endpoint = Endpoint::parse(&header.method, header.uri.path(), header.uri.query(), false);
            let protocol = endpoint.protocol();
            record.facts.client = protocol.name();
            answer_error(&mut Client::Http(session), protocol, &told, record).await?;
        } else if record.facts.status == 0 || record.facts.status == 200 {
            // The client left: nginx's number for it.
            record.facts.status = 499;
        }
        Err(error)
    }
}

/// Status for a header that could not be read.
fn refusal(error: &Error) -> u16 {
    // Pingora says which of its bounds was met in words alone.
    let text = error.to_string();
    if text.contains("larger than") || text.contains("too many headers") { 431 } else { 400 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;
    use crate::state::accounts::Accounts;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Panics where a request asks for it: no input is known that panics, and one that did would be mended.
    pub(super) fn fail_point(session: &ServerSession) {
        if let Some(value) = session.get_header("x-fail-point") {
            panic!("as asked: {value:?}");
        }
    }

    async fn answered(path: &str) -> (Arc<State>, String) {
        let state = Arc::new(State::new(config::Config::default(), Accounts::default()).unwrap().0);
        let edge = Arc::new(Edge::new(Arc::clone(&state), "test", false));
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nx-fail-point: CANARY\r\ncontent-length: 0\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let (_stop, watch) = tokio::sync::watch::channel(false);
        let session = ServerSession::new_http1(Box::new(server));
        assert!(edge.process_new_http(session, &watch).await.is_none(), "the connection is not used again");
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        (state, text)
    }

    #[tokio::test]
    async fn p52_a_panic_costs_one_request_and_is_told_in_the_format_of_its_client() {
        for (path, shape) in [
            ("/v1/chat/completions", r#"{"error":{"message":"#),
            ("/v1/messages", r#"{"type":"error","error":{"type":"#),
            ("/v1beta/models/m:generateContent", r#"{"error":{"code":500,"#),
        ] {
            let (state, text) = answered(path).await;
            assert!(text.starts_with("HTTP/1.1 500 "), "{path}: {text}");
            assert!(text.contains(shape), "{path}: {text}");
            assert!(!text.contains("CANARY") && !text.contains("as asked"), "{text}");
            assert_eq!((state.metrics.panics.get(), state.metrics.in_flight.get()), (1, 0), "{path}");
        }
    }
}
