//! Stage 0: a connection gives a request, and gets its answer.
//!
//! Enters: a connection. Leaves: the same connection, where it can carry another request. May go wrong: the
//! header is no HTTP (400, the connection ends), the client leaves (nothing is sent), a handler panics (500).

use super::Edge;
use super::client::Client;
use super::error::{ProxyError, answer_error};
use super::record::Record;
use async_trait::async_trait;
use futures::FutureExt;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::server::ShutdownWatch;
use pingora::{Error, ErrorType, Result};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// Streams of one HTTP/2 connection.
const H2_STREAMS: u32 = 256;

#[async_trait]
impl HttpServerApp for Edge {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !request(&mut session, shutdown).await {
            return None;
        }
        let mut record = Record::default();
        record.begin(&self.state);
        let result = self.answer(&mut session, &mut record).await;
        record.finish(&self.state);
        if *shutdown.borrow() || result.is_err() {
            session.set_keepalive(None);
        }
        result.ok()?;
        let settings = HttpPersistentSettings::for_session(&session);
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

/// Waits for a header. `false`: there is none, and the connection ends.
async fn request(session: &mut ServerSession, shutdown: &ShutdownWatch) -> bool {
    let mut shutdown = shutdown.clone();
    // A header that has arrived is served, also while the process leaves.
    let read = tokio::select! {
        biased;
        read = session.read_request() => read,
        _ = shutdown.wait_for(|leaving| *leaving) => return false,
    };
    match read {
        Ok(found) => found,
        Err(error) => {
            if *error.etype() == ErrorType::InvalidHTTPHeader {
                // Nothing is left to do where the client does not take it.
                let _ = session.respond_error(400).await;
            }
            session.shutdown().await;
            false
        }
    }
}

impl Edge {
    /// Answers. An error means that the connection must not carry another request.
    async fn answer(&self, session: &mut ServerSession, record: &mut Record) -> Result<()> {
        let served = AssertUnwindSafe(self.serve(session, record)).catch_unwind().await;
        let result = served.unwrap_or_else(|_| {
            self.state.metrics.panics.inc();
            Error::e_explain(ErrorType::InternalError, "a handler panicked")
        });
        let Err(error) = result else {
            return Ok(());
        };
        if session.response_written().is_none() && *error.etype() == ErrorType::InternalError {
            let told = ProxyError::internal(500, "the proxy failed; the log has the request id");
            tracing::error!(request_id = %record.facts.request_id, "{error}");
            let protocol = wire::Protocol::OpenaiChat;
            answer_error(&mut Client::Http(session), protocol, &told, record).await?;
        } else if record.facts.status == 0 || record.facts.status == 200 {
            // The client left: nginx's number for it.
            record.facts.status = 499;
        }
        Err(error)
    }
}
