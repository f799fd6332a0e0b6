//! The side of an exchange that asked: an HTTP session, or a turn on a WebSocket.
//!
//! Enters: bytes of the answer. Leaves: what the client sees. May go wrong: the client leaves, at any time;
//! [`Client::gone`] is waited for wherever an upstream is.

use super::respond;
use super::websocket::Socket;
use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::{BError, Error, ErrorType, Result};
use wire::sse;

/// Who gets the answer.
pub enum Client<'c> {
    /// An HTTP request of its own.
    Http(&'c mut ServerSession),
    /// A turn on a Responses WebSocket.
    Socket(&'c mut ServerSession, &'c mut Socket),
}

impl std::fmt::Debug for Client<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Http(_) => "Client::Http",
            Self::Socket(..) => "Client::Socket",
        })
    }
}

impl Client<'_> {
    /// Waits until the client has left; may be dropped and called again.
    pub async fn gone(&mut self) -> BError {
        match self {
            Self::Http(session) => match session.read_body_or_idle(true).await {
                Err(error) => error.into_down(),
                Ok(_) => Error::new_down(ErrorType::ConnectionClosed),
            },
            Self::Socket(session, socket) => socket.gone(session).await,
        }
    }

    /// Whether answers need `Transfer-Encoding: chunked`.
    pub fn is_http11(&self) -> bool {
        match self {
            Self::Http(session) => session.req_header().version == http::Version::HTTP_11,
            Self::Socket(..) => false,
        }
    }

    /// Whether the head of an answer is out, so that its status cannot change any more.
    pub fn is_started(&self) -> bool {
        match self {
            Self::Http(session) => session.response_written().is_some(),
            Self::Socket(..) => false,
        }
    }

    /// Begins a stream.
    pub async fn start(&mut self, header: ResponseHeader) -> Result<()> {
        match self {
            Self::Http(session) => session.write_response_header(Box::new(header)).await,
            Self::Socket(..) => Ok(()),
        }
    }

    /// Sends a part of a stream.
    pub async fn send(&mut self, bytes: Vec<u8>) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        match self {
            Self::Http(session) => session.write_response_body(bytes.into(), false).await,
            Self::Socket(session, socket) => socket.send_lines(session, &bytes).await,
        }
    }

    /// Sends the last part of a stream.
    pub async fn finish(&mut self, bytes: Vec<u8>) -> Result<()> {
        match self {
            Self::Http(session) => session.write_response_body(bytes.into(), true).await,
            Self::Socket(session, socket) => socket.send_lines(session, &bytes).await,
        }
    }

    /// Shows a silent stream to be alive.
    pub async fn keep_alive(&mut self, comments: bool) -> Result<()> {
        match self {
            Self::Http(session) if comments => {
                session.write_response_body(Bytes::from_static(sse::KEEP_ALIVE), false).await
            }
            // Blanks between the elements of a JSON array mean nothing.
            Self::Http(session) => session.write_response_body(Bytes::from_static(b"\n"), false).await,
            Self::Socket(session, socket) => socket.ping(session).await,
        }
    }

    /// Sends a whole answer.
    pub async fn respond(&mut self, header: ResponseHeader, body: Bytes) -> Result<()> {
        match self {
            Self::Http(session) => respond::send(session, header, body).await,
            Self::Socket(session, socket) => socket.send_answer(session, header.status.as_u16(), &body).await,
        }
    }

    /// Ends the connection after this answer.
    pub fn close(&mut self) {
        if let Self::Http(session) = self {
            session.set_keepalive(None);
        }
    }
}
