//! A small request of our own, over the connections that traffic uses.
//!
//! Enters: a way, a path, a body. Leaves: status and body. May go wrong: no connection, no answer in
//! [`WITHIN`], an answer of more than [`MOST`] bytes.

use super::peer::Lane;
use bytes::Bytes;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, Result};
use std::time::Duration;

/// Longest wait for all of it.
const WITHIN: Duration = Duration::from_secs(30);
/// Most bytes of an answer.
const MOST: usize = 1 << 20;

/// Sends a `GET` with a token and reads the answer. `target` is a path with its query.
pub async fn get(connector: &Connector, lane: &Lane, target: &str, token: &str) -> Result<(u16, Vec<u8>)> {
    let target = match lane.forward() {
        Some(_) => format!("http://{}{target}", lane.authority()),
        None => target.to_owned(),
    };
    let mut header = RequestHeader::build("GET", target.as_bytes(), Some(8))?;
    header.insert_header("host", lane.authority())?;
    header.insert_header("authorization", format!("Bearer {token}"))?;
    header.insert_header("accept", "application/json")?;
    header.insert_header("accept-encoding", "identity")?;
    header.insert_header("user-agent", "cliproxy")?;
    tokio::time::timeout(WITHIN, exchange(connector, lane, header, Bytes::new())).await.unwrap_or_else(|_| {
        Error::e_explain(ErrorType::ReadTimedout, format!("no answer within {} seconds", WITHIN.as_secs()))
    })
}

/// Sends a `POST` and reads the answer.
pub async fn post(
    connector: &Connector,
    lane: &Lane,
    path: &str,
    content_type: &str,
    body: Bytes,
) -> Result<(u16, Vec<u8>)> {
    let target = match lane.forward() {
        Some(_) => format!("http://{}{path}", lane.authority()),
        None => path.to_owned(),
    };
    let mut header = RequestHeader::build("POST", target.as_bytes(), Some(8))?;
    header.insert_header("host", lane.authority())?;
    header.insert_header("content-type", content_type)?;
    header.insert_header("content-length", body.len())?;
    header.insert_header("accept", "application/json")?;
    header.insert_header("accept-encoding", "identity")?;
    header.insert_header("user-agent", "cliproxy")?;
    tokio::time::timeout(WITHIN, exchange(connector, lane, header, body)).await.unwrap_or_else(|_| {
        Error::e_explain(ErrorType::ReadTimedout, format!("no answer within {} seconds", WITHIN.as_secs()))
    })
}

async fn exchange(
    connector: &Connector,
    lane: &Lane,
    header: RequestHeader,
    body: Bytes,
) -> Result<(u16, Vec<u8>)> {
    // A connection of its own: a pooled one may be dead, and sending a refresh token twice ends some logins.
    let (mut session, _) = Box::pin(connector.get_http_session(&lane.fresh())).await?;
    session.write_request_header(Box::new(header)).await?;
    if !body.is_empty() {
        session.write_request_body(body, true).await?;
    }
    session.finish_request_body().await?;
    session.read_response_header().await?;
    let status = session.response_header().map_or(0, |head| head.status.as_u16());
    let mut answer = Vec::new();
    while let Some(chunk) = session.read_response_body().await? {
        if answer.len() + chunk.len() > MOST {
            return Error::e_explain(ErrorType::ReadError, "the answer is too long");
        }
        answer.extend_from_slice(&chunk);
    }
    session.shutdown().await;
    Ok((status, answer))
}
