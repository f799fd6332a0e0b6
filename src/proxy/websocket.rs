//! A WebSocket that ends here, on the port and TLS of everything else (RFC 6455).
//!
//! Enters: a session that asked for an upgrade. Leaves: text frames in both directions; tungstenite speaks
//! the protocol over two buffers and Pingora's session moves their bytes. May go wrong: bad frames and
//! oversized messages end the socket with the close code that the RFC names; a client that leaves ends the
//! turn that is running.

use bytes::{Buf, Bytes, BytesMut};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::{BError, Error, ErrorType, OrErr, Result};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::Duration;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message, WebSocket};

/// Silence after which the client is pinged: load balancers cut idle connections.
const PING: Duration = Duration::from_secs(20);
/// Most messages that wait while a turn runs.
const WAITING: usize = 8;

/// Two buffers that tungstenite takes for a socket.
#[derive(Debug, Default)]
struct Buffers {
    incoming: BytesMut,
    outgoing: BytesMut,
}

impl Read for Buffers {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.incoming.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = out.len().min(self.incoming.len());
        self.incoming.copy_to_slice(out.get_mut(..n).unwrap_or_default());
        Ok(n)
    }
}

impl Write for Buffers {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An open socket.
pub struct Socket {
    frames: WebSocket<Buffers>,
    /// Messages that came while a turn was running.
    waiting: VecDeque<Bytes>,
    /// Everything that was sent in the turn, for the transcript.
    sent: Vec<Bytes>,
    closed: bool,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("closed", &self.closed).finish_non_exhaustive()
    }
}

impl Socket {
    /// Answers the upgrade. From here on the session's body is the socket's bytes.
    pub async fn accept(session: &mut ServerSession, key: &str, max_message: usize) -> Result<Self> {
        let mut header = ResponseHeader::build(101, Some(4))?;
        header.insert_header("Upgrade", "websocket")?;
        header.insert_header("Connection", "Upgrade")?;
        header.insert_header("Sec-WebSocket-Accept", derive_accept_key(key.as_bytes()))?;
        session.write_response_header(Box::new(header)).await?;
        // The default would cut a socket that is silent for a minute.
        session.set_read_timeout(None);
        let config =
            WebSocketConfig::default().max_message_size(Some(max_message)).max_frame_size(Some(max_message));
        let frames = WebSocket::from_raw_socket(Buffers::default(), Role::Server, Some(config));
        Ok(Self { frames, waiting: VecDeque::new(), sent: Vec::new(), closed: false })
    }

    /// The next message of the client; `None` when it left.
    pub async fn message(&mut self, session: &mut ServerSession) -> Result<Option<Bytes>> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Ok(Some(message));
            }
            if self.closed {
                return Ok(None);
            }
            self.pull();
            self.flush(session).await?;
            if !self.waiting.is_empty() || self.closed {
                continue;
            }
            match tokio::time::timeout(PING, session.read_request_body()).await {
                Err(_) => self.ping(session).await?,
                Ok(Ok(Some(bytes))) => self.frames.get_mut().incoming.extend_from_slice(&bytes),
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Err(error),
            }
        }
    }

    /// Takes complete frames out of the buffer. Pings are answered, a close is answered and noted.
    fn pull(&mut self) {
        loop {
            match self.frames.read() {
                Ok(Message::Text(text)) => self.waiting.push_back(Bytes::from(text)),
                Ok(Message::Binary(bytes)) => self.waiting.push_back(bytes),
                Ok(Message::Close(_)) => self.closed = true,
                Ok(_) => {}
                Err(SocketError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.refuse(&error);
                    return;
                }
            }
            if self.waiting.len() > WAITING {
                self.close(CloseCode::Policy, "one request at a time");
                return;
            }
        }
    }

    /// Ends the socket for a protocol error, with the code that the RFC names.
    fn refuse(&mut self, error: &SocketError) {
        let (code, reason) = match error {
            SocketError::Capacity(_) => (CloseCode::Size, "message too large"),
            SocketError::Utf8(_) => (CloseCode::Invalid, "text is not UTF-8"),
            SocketError::ConnectionClosed | SocketError::AlreadyClosed => {
                self.closed = true;
                return;
            }
            _ => (CloseCode::Protocol, "protocol error"),
        };
        self.close(code, reason);
    }

    /// Says goodbye.
    pub fn close(&mut self, code: CloseCode, reason: &'static str) {
        self.closed = true;
        let _ = self.frames.close(Some(CloseFrame { code, reason: reason.into() }));
    }

    /// Sends what waits in the buffer.
    pub async fn flush(&mut self, session: &mut ServerSession) -> Result<()> {
        let _ = self.frames.flush();
        let bytes = self.frames.get_mut().outgoing.split().freeze();
        if bytes.is_empty() { Ok(()) } else { session.write_response_body(bytes, false).await }
    }

    /// Waits until the client has left. Messages that come meanwhile wait for the end of the turn.
    pub async fn gone(&mut self, session: &mut ServerSession) -> BError {
        loop {
            match session.read_request_body().await {
                Ok(Some(bytes)) => self.frames.get_mut().incoming.extend_from_slice(&bytes),
                Ok(None) => return Error::new_down(ErrorType::ConnectionClosed),
                Err(error) => return error.into_down(),
            }
            self.pull();
            if let Err(error) = self.flush(session).await {
                return error;
            }
            if self.closed {
                return Error::new_down(ErrorType::ConnectionClosed);
            }
        }
    }

    /// Sends events, one a line, as one text frame each.
    pub async fn send_lines(&mut self, session: &mut ServerSession, lines: &[u8]) -> Result<()> {
        for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let line = Bytes::copy_from_slice(line);
            self.sent.push(line.clone());
            self.write(line)?;
        }
        self.flush(session).await
    }

    fn write(&mut self, text: Bytes) -> Result<()> {
        let text = text.try_into().or_err(ErrorType::InternalError, "an event is not UTF-8")?;
        self.frames.write(Message::Text(text)).or_err(ErrorType::WriteError, "writing a frame")
    }

    /// Sends an answer that came whole: an error, in the shape of the `error` event.
    pub async fn send_answer(&mut self, session: &mut ServerSession, status: u16, body: &[u8]) -> Result<()> {
        let error = wire::json::parse_any(body).ok();
        let inner = error.as_ref().and_then(|value| value.get("error"));
        let mut event = Vec::new();
        wire::json::object(&mut event, |o| {
            o.str("type", "error");
            o.uint("status", u64::from(status));
            match inner {
                Some(inner) => o.value("error", inner),
                None => o.object("error", |o| o.str("message", "the request failed")),
            }
        });
        self.write(event.into())?;
        self.flush(session).await
    }

    /// Shows the client that the socket is alive.
    pub async fn ping(&mut self, session: &mut ServerSession) -> Result<()> {
        let _ = self.frames.write(Message::Ping(Bytes::new()));
        self.flush(session).await
    }

    /// The events that were sent since the last call.
    pub fn take_sent(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.sent)
    }
}

/// Key of a valid WebSocket handshake.
pub(super) fn handshake_key(session: &ServerSession) -> Option<String> {
    let is = |name: &str, value: &str| {
        session
            .get_header(name)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|text| text.split(',').any(|token| token.trim().eq_ignore_ascii_case(value)))
    };
    let key = session.get_header("sec-websocket-key")?.to_str().ok()?;
    (is("upgrade", "websocket") && is("connection", "upgrade") && is("sec-websocket-version", "13"))
        .then(|| key.trim().to_owned())
}
