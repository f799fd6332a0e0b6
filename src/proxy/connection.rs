//! Before stage 0: a connection of a client, until its first byte of HTTP.
//!
//! Enters: a connection, after TLS where there is TLS. Leaves: the same, with the address of the client and a
//! place among the open connections, to be served as HTTP/1.1 or HTTP/2. May go wrong: there are too many
//! (503, in less time than a request takes), it says nothing in time, its PROXY header is none; it ends.

use super::{Edge, proxy_header};
use crate::state::leave::{Phase, Seat};
use crate::state::{State, seconds};
use async_trait::async_trait;
use config::ProxyProtocol;
use pingora::apps::ServerApp;
use pingora::listeners::PreTlsProcess;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::protocols::l4::stream::Stream as Plain;
use pingora::protocols::{GetSocketDigest, SocketDigest, Stream};
use pingora::server::ShutdownWatch;
use pingora::{Error, ErrorType, OrErr, Result};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How HTTP/2 begins where TLS has not said so (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a connection gets for which there is no room.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 85\r\n\r\n\
    {\"error\":{\"message\":\"too many connections; try again in a second\",\"code\":\"overload\"}}";
/// Longest time for saying so.
const FAREWELL: Duration = Duration::from_millis(500);

/// Where connections come in.
#[derive(Debug)]
pub struct Door {
    state: Arc<State>,
    http1: Arc<Edge>,
    http2: Arc<Edge>,
}

impl Door {
    /// The proxy over shared state. `version` is what `/health` says.
    pub fn new(state: Arc<State>, version: &'static str) -> Self {
        let http1 = Arc::new(Edge::new(Arc::clone(&state), version, false));
        let http2 = Arc::new(Edge::new(Arc::clone(&state), version, true));
        Self { state, http1, http2 }
    }

    /// Gets a connection ready. `None`: it is not served.
    async fn open(&self, mut stream: Stream) -> Option<(Stream, Seat, bool)> {
        let mut seat = Seat::take(&self.state);
        let snapshot = self.state.snapshot.load_full();
        let server = &snapshot.config.server;
        // Asked first: one that says nothing takes a place as well.
        if !seat.fits(None, server.limits.max_connections, 0) {
            self.refuse(&mut stream).await;
            return None;
        }
        let ready = tokio::time::timeout(seconds(server.timeouts.client_body_seconds), self.ready(stream));
        let (mut stream, http2) = tokio::select! {
            biased;
            ready = ready => ready.ok()??,
            // It has said nothing so far.
            () = self.state.leave.reached(Phase::IdleOver) => return None,
        };
        // Behind a trusted proxy are many clients.
        let address = address(stream.get_socket_digest().as_deref())
            .filter(|address| !server.trusted_proxies.0.iter().any(|net| net.contains(address)));
        if !seat.fits(address, 0, server.limits.max_connections_per_address) {
            self.refuse(&mut stream).await;
            return None;
        }
        Some((stream, seat, http2))
    }

    async fn refuse(&self, stream: &mut Stream) {
        self.state.metrics.shed.with_label_values(&["connection"]).inc();
        let _ = tokio::time::timeout(FAREWELL, farewell(stream)).await;
    }

    /// Takes the PROXY header off and looks which HTTP it is. With TLS, both are known.
    async fn ready(&self, stream: Stream) -> Option<(Stream, bool)> {
        if stream.get_ssl_digest().is_some() {
            return Some((stream, false));
        }
        let mut plain: Box<Plain> = stream.into_any().downcast().ok()?;
        if let Err(error) = identify(&self.state, &mut plain).await {
            tracing::warn!("a connection was cut: {error}");
            return None;
        }
        let mut start = [0; PREFACE.len()];
        let mut got = 0;
        while got < start.len() && PREFACE.starts_with(start.get(..got)?) {
            match plain.read(start.get_mut(got..)?).await {
                Ok(n) if n > 0 => got += n,
                _ => return None,
            }
        }
        plain.rewind(start.get(..got)?);
        Some((plain, start == *PREFACE))
    }
}

#[async_trait]
impl ServerApp for Door {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        // Boxed, so that its buffers do not live as long as the connection.
        let (stream, _seat, http2) = Box::pin(self.open(stream)).await?;
        let edge = if http2 { &self.http2 } else { &self.http1 };
        edge.process_new(stream, shutdown).await
    }
}

/// Tells the client that there is no room, and waits for it to hear that.
async fn farewell(stream: &mut Stream) {
    if stream.write_all(FULL).await.is_ok() && stream.flush().await.is_ok() {
        let _ = stream.shutdown().await;
        // Closing over unread bytes would reset the connection and lose the answer.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
    }
}

/// The address that a connection comes from.
pub(super) fn address(digest: Option<&SocketDigest>) -> Option<IpAddr> {
    digest?.peer_addr()?.as_inet().map(|inet| inet.ip().to_canonical())
}

/// Reads the PROXY header where the connection has to begin with one, and notes whose connection it is.
async fn identify(state: &State, stream: &mut Plain) -> Result<()> {
    let snapshot = state.snapshot.load_full();
    let server = &snapshot.config.server;
    if server.proxy_protocol == ProxyProtocol::Off {
        return Ok(());
    }
    let Some(peer) = address(stream.get_socket_digest().as_deref()) else { return Ok(()) };
    if !server.trusted_proxies.0.iter().any(|network| network.contains(&peer)) {
        return Ok(());
    }
    let found = proxy_header::read(stream).await.or_err_with(ErrorType::ReadError, || format!("{peer}"))?;
    if let Some(client) = found {
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        // It is new, and so is not set.
        let _ = digest.peer_addr.set(Some(PeerAddress::Inet(client)));
        stream.set_socket_digest(digest);
    }
    Ok(())
}

/// The same for connections with TLS, below which the PROXY header comes.
pub struct BeforeTls(pub Arc<State>);

#[async_trait]
impl PreTlsProcess for BeforeTls {
    async fn process(&self, stream: &mut Plain) -> Result<()> {
        let wait = seconds(self.0.snapshot.load().config.server.timeouts.client_body_seconds);
        match tokio::time::timeout(wait, identify(&self.0, stream)).await {
            Ok(done) => done,
            Err(_) => Error::e_explain(ErrorType::ReadTimedout, "its PROXY header did not come in time"),
        }
    }
}

impl std::fmt::Debug for BeforeTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BeforeTls")
    }
}

#[cfg(test)]
mod tests {
    use super::FULL;

    #[test]
    fn the_answer_of_a_full_proxy_has_the_length_it_says() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
