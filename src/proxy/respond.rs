//! Answers that are whole before their first byte is sent: local ones, errors and folded ones.
//!
//! Enters: status, headers and body. Leaves: one HTTP answer with its length, after which the connection
//! can carry the next request. May go wrong: the client has left.

use bytes::Bytes;
use http::HeaderValue;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, CONTENT_DISPOSITION,
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING,
};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

/// Header with the id of the request.
pub(super) const REQUEST_ID: &str = "x-request-id";
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Location, Retry-After, X-Request-Id, OpenAI-Request-Id, X-Fallback-Model");
const ANY: HeaderValue = HeaderValue::from_static("*");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A header under construction: the members that every answer has.
pub(super) fn header(status: u16, request_id: &str) -> Result<ResponseHeader> {
    let mut header = ResponseHeader::build_no_case(status, Some(10))?;
    header.insert_header(ACCESS_CONTROL_ALLOW_ORIGIN, ANY)?;
    header.insert_header(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED)?;
    header.insert_header(REQUEST_ID, request_id)?;
    Ok(header)
}

/// A header for a JSON body.
pub(super) fn json_header(status: u16, request_id: &str) -> Result<ResponseHeader> {
    let mut header = header(status, request_id)?;
    header.insert_header(CONTENT_TYPE, JSON)?;
    Ok(header)
}

/// A header for a stream of events. `array` is the JSON array of Gemini without `alt=sse`.
pub(super) fn stream_header(request_id: &str, array: bool, http11: bool) -> Result<ResponseHeader> {
    let mut header = header(200, request_id)?;
    let kind = if array { JSON } else { HeaderValue::from_static("text/event-stream; charset=utf-8") };
    header.insert_header(CONTENT_TYPE, kind)?;
    header.insert_header(CACHE_CONTROL, HeaderValue::from_static("no-cache"))?;
    // nginx and its kind would collect the events otherwise.
    header.insert_header("x-accel-buffering", HeaderValue::from_static("no"))?;
    if http11 {
        // Pingora would end the answer by closing the connection otherwise.
        header.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    Ok(header)
}

/// Headers of an upstream's answer that go on with it when it is passed as it comes.
const PASSED: [HeaderName; 9] = [
    CONTENT_TYPE,
    CONTENT_LENGTH,
    CONTENT_DISPOSITION,
    CONTENT_ENCODING,
    CONTENT_RANGE,
    UPLOAD_URL,
    HeaderName::from_static("x-goog-upload-status"),
    HeaderName::from_static("x-goog-upload-chunk-granularity"),
    HeaderName::from_static("x-goog-upload-size-received"),
];
/// Where the parts of a file go.
pub(super) const UPLOAD_URL: HeaderName = HeaderName::from_static("x-goog-upload-url");

/// A header for an answer that is passed as it comes: `upstream` is the header that it came with.
pub(super) fn passed_header(
    request_id: &str,
    upstream: &ResponseHeader,
    http11: bool,
) -> Result<ResponseHeader> {
    let mut header = header(upstream.status.as_u16(), request_id)?;
    for name in PASSED {
        if let Some(value) = upstream.headers.get(&name) {
            header.insert_header(name, value.clone())?;
        }
    }
    if http11 && !header.headers.contains_key(CONTENT_LENGTH) {
        header.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    Ok(header)
}

/// Sends a whole answer. `HEAD` gets the header alone.
pub(super) async fn send(session: &mut ServerSession, mut header: ResponseHeader, body: Bytes) -> Result<()> {
    let head_only = session.req_header().method == http::Method::HEAD;
    if header.status.as_u16() != 204 {
        header.insert_header(CONTENT_LENGTH, body.len())?;
    }
    session.write_response_header(Box::new(header)).await?;
    if head_only || body.is_empty() {
        return session.finish_body().await;
    }
    session.write_response_body(body, true).await
}

/// The answer to a CORS preflight: browsers may call from anywhere, with a key.
pub(super) async fn preflight(session: &mut ServerSession, request_id: &str) -> Result<()> {
    let mut header = header(204, request_id)?;
    header.insert_header(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE, OPTIONS"),
    )?;
    header.insert_header(ACCESS_CONTROL_ALLOW_HEADERS, ANY)?;
    header.insert_header(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"))?;
    send(session, header, Bytes::new()).await
}
