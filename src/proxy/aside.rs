//! Requests that the management sidecar answers.
//!
//! Enters: a request for one of its paths. Leaves: its answer, in parts as they come. May go wrong: the body
//! is too large or too slow, the sidecar has too much to do (503), one of its handlers panics (500), the
//! client leaves, which the sidecar notices at its next part. Nothing but forwarding happens on these threads.

use super::client::Client;
use super::error::ProxyError;
use super::parse::{BodyLimits, read_raw};
use super::record::Record;
use super::respond;
use crate::state::sidecar::{Answer, Peer};
use crate::state::{State, seconds};
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING,
};
use http::{Method, Request};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

/// Largest body: several account files, or a whole configuration.
const MOST: usize = 8 << 20;

/// Paths of the sidecar, as they are written: whoever spells them otherwise means something else.
pub(super) fn is_aside(path: &str) -> bool {
    path == "/v0/management"
        || path.starts_with("/v0/management/")
        || path == METRICS
        || CALLBACKS.contains(&path)
}

/// Where the pages of providers send browsers back to. They need no key: a state is the permission.
const CALLBACKS: [&str; 3] = ["/anthropic/callback", "/antigravity/callback", "/codex/callback"];

/// The one path that is open to everybody.
const METRICS: &str = "/v1/metrics/providers";

/// Forwards one request.
pub(super) async fn serve(state: &State, session: &mut ServerSession, record: &mut Record) -> Result<()> {
    // A dashboard that watches is no load of the proxy, and nobody waits for it when the process leaves.
    record.stand_aside();
    let header = session.req_header();
    let open = header.uri.path() == METRICS;
    let mut request = Request::builder().method(header.method.clone()).uri(header.uri.clone());
    if let Some(headers) = request.headers_mut() {
        *headers = header.headers.clone();
        if let Some(authority) = header.uri.authority()
            && let Ok(host) = http::HeaderValue::from_str(authority.as_str())
        {
            // HTTP/2 says it in the target.
            headers.entry(http::header::HOST).or_insert(host);
        }
    }
    let peer = Peer(session.client_addr().and_then(|address| Some(address.as_inet()?.ip())));
    let timeouts = &state.snapshot.load().config.server.timeouts;
    let limits = BodyLimits { max: MOST, deadline: seconds(timeouts.client_body_seconds) };
    let body = match read_raw(session, limits).await {
        Ok(body) => body,
        Err(error) => return refuse(session, record, &error).await,
    };
    let failed = || ProxyError::internal(500, "the request cannot be handed on");
    let asked = request.body(body).map_err(|_| failed()).and_then(|request| {
        state.sidecar.ask(request, peer).map_err(|busy| ProxyError::internal(503, busy.to_string()))
    });
    let mut waiting = match asked {
        Ok(waiting) => waiting,
        Err(error) => return refuse(session, record, &error).await,
    };
    let mut client = Client::Http(session);
    let answer = tokio::select! {
        answer = &mut waiting => answer,
        error = client.gone() => return Err(error),
    };
    match answer {
        Ok(answer) => pass(session, answer, open, record).await,
        // The handler panicked.
        Err(_) => refuse(session, record, &failed()).await,
    }
}

async fn pass(
    session: &mut ServerSession,
    mut answer: Answer,
    open: bool,
    record: &mut Record,
) -> Result<()> {
    let status = answer.head.status.as_u16();
    record.facts.status = status;
    let mut header = respond::header(status, &record.facts.request_id)?;
    if !open {
        // Pages of other origins have no business here.
        header.remove_header(&ACCESS_CONTROL_ALLOW_ORIGIN);
        header.remove_header(&ACCESS_CONTROL_EXPOSE_HEADERS);
    }
    for (name, value) in &answer.head.headers {
        if ![CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH].contains(name) {
            header.append_header(name.clone(), value.clone())?;
        }
    }
    let head_only = session.req_header().method == Method::HEAD;
    frame(session, &mut header, answer.length.filter(|_| !head_only))?;
    session.write_response_header(Box::new(header)).await?;
    if head_only {
        return session.finish_body().await;
    }
    loop {
        let mut client = Client::Http(session);
        let part = tokio::select! {
            part = answer.body.recv() => part,
            error = client.gone() => return Err(error),
        };
        match part {
            Some(part) => session.write_response_body(part, false).await?,
            None => return session.write_response_body(Bytes::new(), true).await,
        }
    }
}

/// Says where the body ends.
fn frame(session: &ServerSession, header: &mut ResponseHeader, length: Option<u64>) -> Result<()> {
    if let Some(length) = length {
        header.insert_header(CONTENT_LENGTH, length)?;
    } else if session.req_header().version == http::Version::HTTP_11 {
        header.insert_header(TRANSFER_ENCODING, "chunked")?;
    }
    Ok(())
}

/// An error of ours in the sidecar's shape.
async fn refuse(session: &mut ServerSession, record: &mut Record, error: &ProxyError) -> Result<()> {
    record.facts.status = error.failure.status;
    if error.close {
        session.set_keepalive(None);
    }
    let mut header = respond::json_header(error.failure.status, &record.facts.request_id)?;
    header.remove_header(&ACCESS_CONTROL_ALLOW_ORIGIN);
    header.remove_header(&ACCESS_CONTROL_EXPOSE_HEADERS);
    let body = serde_json::json!({ "error": error.failure.message }).to_string();
    respond::send(session, header, Bytes::from(body)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p28_only_the_path_as_it_is_written_leads_there() {
        for yes in [
            "/v0/management",
            "/v0/management/config",
            "/v0/management/..;/x",
            "/v0/management//",
            "/codex/callback",
        ] {
            assert!(is_aside(yes), "{yes}");
        }
        for no in [
            "//v0/management/config",
            "/v0//management/config",
            "/V0/Management/config",
            "/v0/managementx",
            "/v0/%6danagement/config",
            "/v1/../v0/management/config",
            "/v0/./management",
            "/v1/metrics/providers/",
            "/v0\\management\\config",
            "/codex/callback/",
            "/kimi/callback",
            "//codex/callback",
        ] {
            assert!(!is_aside(no), "{no}");
        }
    }
}
