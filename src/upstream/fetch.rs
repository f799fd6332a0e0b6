//! A small request of our own, over the connections that traffic uses.
//!
//! Enters: a way and a [`Question`]. Leaves: an [`Answer`]. May go wrong: no connection, no answer in time, an
//! answer that is too long.

use super::peer::Lane;
use super::stamp::secret_value;
use bytes::Bytes;
use http::{HeaderName, header};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::{Error, ErrorType, OrErr, Result};
use secrecy::{ExposeSecret, SecretString};
use std::time::{Duration, Instant};

/// Longest wait for all of it.
pub const WITHIN: Duration = Duration::from_secs(30);
/// Most bytes of an answer.
const MOST: usize = 1 << 20;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question<'q> {
    /// The method.
    pub method: &'q str,
    /// Path and query.
    pub target: &'q str,
    /// Headers besides those of every request; they may hold secrets.
    pub headers: &'q [(&'q str, SecretString)],
    /// The body; empty: none.
    pub body: &'q SecretString,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Value of `Date`.
    pub date: Option<String>,
    /// All headers.
    pub headers: http::HeaderMap,
    /// Time until the head was there.
    pub took: Duration,
    /// Body.
    pub body: Vec<u8>,
}

/// Asks, and reads the answer: at most [`MOST`] bytes [`WITHIN`] so long.
pub async fn ask(connector: &Connector, lane: &Lane, question: &Question<'_>) -> Result<(u16, Vec<u8>)> {
    let answer = ask_within(connector, lane, question, WITHIN, MOST).await?;
    Ok((answer.status, answer.body))
}

/// Whether there was no connection, so that nothing was sent.
pub fn is_unreached(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::ConnectRefused | ErrorType::ConnectNoRoute | ErrorType::ConnectTimedout
    )
}

/// Asks, and reads an answer of at most `most` bytes.
pub async fn ask_within(
    connector: &Connector,
    lane: &Lane,
    question: &Question<'_>,
    within: Duration,
    most: usize,
) -> Result<Answer> {
    let (header, body) = request(lane, question)?;
    let read = async {
        let mut answering = begin(connector, lane, header, body).await?;
        let mut body = Vec::new();
        while let Some(chunk) = answering.next().await? {
            if body.len() + chunk.len() > most {
                return Error::e_explain(ErrorType::ReadError, "the answer is too long");
            }
            body.extend_from_slice(&chunk);
        }
        answering.session.shutdown().await;
        let Answering { status, headers, took, .. } = answering;
        let date = headers.get(header::DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
        Ok(Answer { status, date, headers, took, body })
    };
    in_time(within, read).await
}

/// Asks for an answer that may never end. Its head has to come `within` so long.
pub async fn open(
    connector: &Connector,
    lane: &Lane,
    question: &Question<'_>,
    within: Duration,
) -> Result<Answering> {
    let (header, body) = request(lane, question)?;
    in_time(within, begin(connector, lane, header, body)).await
}

/// An answer whose head has come.
pub struct Answering {
    /// Status.
    pub status: u16,
    /// All headers.
    pub headers: http::HeaderMap,
    took: Duration,
    session: HttpSession<()>,
}

impl std::fmt::Debug for Answering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answering").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Answering {
    /// The next part of the body; `None`: it is over.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        self.session.read_response_body().await
    }
}

async fn in_time<T>(within: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(within, work).await.unwrap_or_else(|_| {
        Error::e_explain(ErrorType::ReadTimedout, format!("no answer within {} seconds", within.as_secs()))
    })
}

/// The head and the body that are sent.
fn request(lane: &Lane, question: &Question<'_>) -> Result<(RequestHeader, Bytes)> {
    let target = match lane.forward() {
        Some(_) => format!("http://{}{}", lane.authority(), question.target),
        None => question.target.to_owned(),
    };
    let body = Bytes::from(question.body.expose_secret().to_owned());
    let mut header = RequestHeader::build(question.method, target.as_bytes(), Some(8))?;
    header.insert_header(header::HOST, lane.authority())?;
    header.insert_header(header::ACCEPT, "application/json")?;
    header.insert_header(header::ACCEPT_ENCODING, "identity")?;
    header.insert_header(header::USER_AGENT, "cliproxy")?;
    if let Some(credentials) = lane.forward().and_then(|forward| forward.credentials.as_ref()) {
        header.insert_header(header::PROXY_AUTHORIZATION, secret_value(credentials.expose_secret())?)?;
    }
    if !body.is_empty() {
        header.insert_header(header::CONTENT_LENGTH, body.len())?;
    }
    for (name, value) in question.headers {
        let name =
            HeaderName::from_bytes(name.as_bytes()).or_err(ErrorType::InternalError, "a header name")?;
        header.insert_header(name, secret_value(value.expose_secret())?)?;
    }
    Ok((header, body))
}

async fn begin(connector: &Connector, lane: &Lane, request: RequestHeader, body: Bytes) -> Result<Answering> {
    let begun = Instant::now();
    // A connection of its own: a pooled one may be dead, and sending a refresh token twice ends some logins.
    let (mut session, _) = Box::pin(connector.get_http_session(&lane.fresh())).await?;
    let without_body = body.is_empty();
    session.write_request_header(Box::new(request)).await?;
    if !without_body {
        session.write_request_body(body, true).await?;
    }
    session.finish_request_body().await?;
    session.read_response_header().await?;
    let head = session.response_header();
    let status = head.map_or(0, |head| head.status.as_u16());
    let headers = head.map(|head| head.headers.clone()).unwrap_or_default();
    Ok(Answering { status, headers, took: begun.elapsed(), session })
}
