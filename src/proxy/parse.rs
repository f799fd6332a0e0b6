//! Stage 1: the body of a request, whole, and its head.
//!
//! Enters: a session whose header was read, and what its URL asks. Leaves: [`Parsed`]: one owned copy of
//! the body and what routing needs of it. May go wrong: too large (413, before it is all read), too slow
//! (408), an encoding we do not read (415), a body that is not what the format says (400).
//!
//! Bodies are JSON; those of a few operations may be forms.

use super::endpoint::Call;
use super::error::ProxyError;
use bytes::{Bytes, BytesMut};
use pingora::protocols::http::ServerSession;
use std::io::Read;
use std::time::Duration;
use wire::form;
use wire::head::{self, Head};
use wire::target::Operation;

/// A request that can be routed.
#[derive(Debug)]
pub(super) struct Parsed {
    /// What its URL asks.
    pub call: Call,
    /// Its body, decoded.
    pub body: Bytes,
    /// Head of the body; `model` and `stream` also where the URL names them.
    pub head: Head,
}

/// Bounds of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimits {
    /// Most bytes, before and after decompression.
    pub max: usize,
    /// Longest time to send it.
    pub deadline: Duration,
}

/// Reads the body and its head.
pub(super) async fn parse(
    session: &mut ServerSession,
    call: Call,
    limits: BodyLimits,
) -> Result<Parsed, ProxyError> {
    let raw = read_raw(session, limits).await?;
    let encoding = session.get_header("content-encoding").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let body = decode(raw, encoding, limits.max)?;
    let kind = session.get_header("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let boundary = call.operation.takes_forms().then(|| form::boundary(kind)).flatten();
    of_body(call, body, boundary.as_deref())
}

/// Reads the head of a body that is there already: a form with this boundary, or JSON.
pub(super) fn of_body(call: Call, body: Bytes, boundary: Option<&str>) -> Result<Parsed, ProxyError> {
    let default = call.operation.default_model();
    let mut head = match boundary {
        Some(boundary) => form::head(&body, boundary, default)?,
        None => head::parse_or(&body, call.client, default)?,
    };
    if let Some(model) = &call.model {
        model.strip_prefix("models/").unwrap_or(model).clone_into(&mut head.model);
    }
    if let Some(stream) = call.stream {
        head.stream = stream;
    }
    if call.operation == Operation::Compact && head.stream {
        return Err(ProxyError::client(400, "Streaming not supported for compact responses").param("stream"));
    }
    Ok(Parsed { call, body, head })
}

/// Reads the body as it was sent.
pub(super) async fn read_raw(session: &mut ServerSession, limits: BodyLimits) -> Result<Bytes, ProxyError> {
    tokio::time::timeout(limits.deadline, read_body(session, limits.max)).await.unwrap_or_else(|_| {
        let seconds = limits.deadline.as_secs();
        let message = format!("the request body did not arrive within {seconds} seconds");
        Err(ProxyError::client(408, message).closing())
    })
}

async fn read_body(session: &mut ServerSession, max: usize) -> Result<Bytes, ProxyError> {
    let too_large = || {
        let message = format!("the request body is larger than {} MiB", max >> 20);
        ProxyError::client(413, message).closing()
    };
    let gone = |_| ProxyError::client(400, "the request body ended early").closing();
    let announced: Option<usize> =
        session.get_header("content-length").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    if announced.is_some_and(|length| length > max) {
        return Err(too_large());
    }
    let expects =
        session.get_header("expect").is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if expects {
        session.write_continue_response().await.map_err(gone)?;
    }
    let Some(first) = session.read_request_body().await.map_err(gone)? else { return Ok(Bytes::new()) };
    if session.is_body_done() {
        // The usual case: one read, no copy.
        return if first.len() > max { Err(too_large()) } else { Ok(first) };
    }
    let mut body = BytesMut::with_capacity(announced.unwrap_or(first.len() * 2).min(max));
    body.extend_from_slice(&first);
    while let Some(more) = session.read_request_body().await.map_err(gone)? {
        if body.len() + more.len() > max {
            return Err(too_large());
        }
        body.extend_from_slice(&more);
    }
    Ok(body.freeze())
}

/// Undoes `Content-Encoding`, the last one first.
fn decode(body: Bytes, encodings: &str, max: usize) -> Result<Bytes, ProxyError> {
    let mut body = body;
    for encoding in encodings.rsplit(',').map(str::trim).filter(|e| !e.is_empty()) {
        body = match encoding.to_ascii_lowercase().as_str() {
            "identity" => body,
            "gzip" | "x-gzip" => capped(flate2::read::MultiGzDecoder::new(&*body), encoding, max)?,
            "deflate" => capped(flate2::read::ZlibDecoder::new(&*body), encoding, max)?,
            "zstd" => {
                let decoder = zstd::stream::read::Decoder::new(&*body)
                    .map_err(|e| ProxyError::internal(500, format!("zstd: {e}")))?;
                capped(decoder, encoding, max)?
            }
            _ => {
                let message = format!("Content-Encoding {encoding} is not supported; use zstd, gzip or none");
                return Err(ProxyError::client(415, message));
            }
        };
    }
    Ok(body)
}

/// Reads a decoder to its end, or to the limit: a small body may unpack to a very large one.
fn capped(decoder: impl Read, encoding: &str, max: usize) -> Result<Bytes, ProxyError> {
    let mut out = Vec::new();
    let read = decoder.take(max as u64 + 1).read_to_end(&mut out);
    if read.is_err() {
        return Err(ProxyError::client(400, format!("the request body is not valid {encoding}")));
    }
    if out.len() > max {
        let message = format!("the request body is larger than {} MiB when unpacked", max >> 20);
        return Err(ProxyError::client(413, message));
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn encodings_are_undone_in_order() {
        let text = b"{\"model\":\"m\"}";
        let packed = zstd::encode_all(&text[..], 1).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&packed).unwrap();
        let twice = Bytes::from(gzip.finish().unwrap());
        assert_eq!(&decode(twice, "zstd, gzip", 1000).unwrap()[..], text);
        assert_eq!(decode(Bytes::from_static(text), "br", 1000).unwrap_err().failure.status, 415);
        assert_eq!(decode(Bytes::from_static(text), "gzip", 1000).unwrap_err().failure.status, 400);
    }

    #[test]
    fn p08_a_small_body_does_not_unpack_to_a_large_one() {
        let bomb = zstd::encode_all(std::io::repeat(0).take(10 << 20), 1).unwrap();
        assert!(bomb.len() < 10_000);
        assert_eq!(decode(bomb.into(), "zstd", 1 << 20).unwrap_err().failure.status, 413);
    }
}
