//! A part of a file on its way to the account that holds the upload: streamed, never held.
//!
//! Enters: a session whose header was read, and the account. Leaves: an upstream session whose header was
//! read, whatever its status: nobody else could take the part. Memory is one chunk: the next one is read when
//! the upstream has taken the last. May go wrong: the client stops sending (408), the upstream cannot be
//! reached (502) or does not answer (504). An upstream that answers before it has read all is listened to.

use super::client::Client;
use super::desk::Desk;
use super::error::ProxyError;
use crate::state::seconds;
use crate::upstream::peer::Lane;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use pingora::BError;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession as Upstream;
use pool::CredentialSpec;
use std::time::Duration;

/// Longest wait for the answer of an upstream that stopped reading.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why a part did not get through.
#[derive(Debug)]
pub(super) enum Lost {
    /// The client is told.
    Told(Box<ProxyError>),
    /// The client has left.
    Gone(BError),
}

impl From<ProxyError> for Lost {
    fn from(error: ProxyError) -> Self {
        // Part of the request may not have been read.
        Self::Told(Box::new(error.closing()))
    }
}

/// Sends what the client sends, and reads the head of the answer. Returns whether all was sent.
pub(super) async fn send(
    desk: &Desk<'_>,
    session: &mut ServerSession,
    account: &CredentialSpec,
    target: &str,
) -> Result<(Upstream, bool), Lost> {
    let lane = desk.lane(account)?;
    let length =
        session.get_header(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let mut header = desk.header(account, &lane, target, length)?;
    let mut upstream = connect(desk, &lane).await?;
    if length.is_none() && upstream.as_http1().is_some() {
        header
            .insert_header(TRANSFER_ENCODING, "chunked")
            .map_err(|error| ProxyError::internal(500, error.to_string()))?;
    }
    let broken = |error: BError| {
        ProxyError::internal(502, format!("the upstream broke the connection ({})", error.etype().as_str()))
    };
    upstream.write_request_header(Box::new(header)).await.map_err(broken)?;
    let sent = relay(desk, session, &mut upstream).await?;
    let limit =
        if sent { seconds(desk.snapshot.config.server.timeouts.first_byte_seconds) } else { LAST_WORDS };
    let mut client = Client::Http(session);
    let read = tokio::select! {
        biased;
        read = tokio::time::timeout(limit, upstream.read_response_header()) => read,
        // What the client still sends to an upstream that stopped reading is of no use to anybody.
        error = client.gone(), if sent => return Err(Lost::Gone(error)),
    };
    match read {
        Ok(Ok(())) => Ok((upstream, sent)),
        Ok(Err(error)) => Err(broken(error).into()),
        Err(_) => Err(ProxyError::internal(504, "the upstream did not answer in time").into()),
    }
}

/// A new connection: a pooled one may be dead, and what was sent to it could not be sent again.
async fn connect(desk: &Desk<'_>, lane: &Lane) -> Result<Upstream, ProxyError> {
    match Box::pin(desk.state.connector.get_http_session(&lane.fresh())).await {
        Ok((mut upstream, _)) => {
            upstream.set_write_timeout(lane.write_timeout());
            desk.state.metrics.connections_opened.inc();
            Ok(upstream)
        }
        Err(error) => {
            let message = format!("cannot connect to the upstream ({})", error.etype().as_str());
            Err(ProxyError::internal(502, message))
        }
    }
}

/// Moves the body. `false`: the upstream stopped reading.
async fn relay(desk: &Desk<'_>, session: &mut ServerSession, upstream: &mut Upstream) -> Result<bool, Lost> {
    let expects =
        session.get_header(EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if expects {
        session.write_continue_response().await.map_err(Lost::Gone)?;
    }
    let silence = seconds(desk.snapshot.config.server.timeouts.client_body_seconds);
    loop {
        let chunk = match tokio::time::timeout(silence, session.read_request_body()).await {
            Ok(Ok(Some(chunk))) if chunk.is_empty() => continue,
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => break,
            // The upstream's connection is dropped with a part of the body: it cannot take it for the whole.
            Ok(Err(error)) => return Err(Lost::Gone(error.into_down())),
            Err(_) => {
                let message = format!("no byte of the request body came for {} seconds", silence.as_secs());
                return Err(ProxyError::client(408, message).into());
            }
        };
        if upstream.write_request_body(chunk, false).await.is_err() {
            return Ok(false);
        }
    }
    Ok(upstream.finish_request_body().await.is_ok())
}

/// The body of an upstream that stopped reading, as far as it comes. The client is not watched meanwhile: what
/// it still sends would look like its leaving.
pub(super) async fn last_words(upstream: &mut Upstream, max: usize) -> Bytes {
    let mut body = BytesMut::new();
    let read = async {
        while let Ok(Some(chunk)) = upstream.read_response_body().await {
            if body.len() + chunk.len() > max {
                return;
            }
            body.extend_from_slice(&chunk);
        }
    };
    let _ = tokio::time::timeout(LAST_WORDS, read).await;
    body.freeze()
}
