//! Asking the accounts that keep Gemini's files.
//!
//! Enters: a call, and the accounts in the order in which they may be asked. Leaves: the first good answer,
//! and who gave it. May go wrong: nobody answers well; the last error is told.

use super::client::Client;
use super::endpoint::TICKET;
use super::error::ProxyError;
use super::forward::{Manner, Missed, forward};
use super::record::Record;
use super::reply::{Collected, collect};
use super::upload::Lost;
use crate::state::{Snapshot, State, seconds};
use crate::upstream::peer::Lane;
use crate::upstream::request::{self, FileCall as Call};
use bytes::Bytes;
use http::HeaderMap;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession as Upstream;
use pool::CredentialSpec;
use wire::error::Failure;
use wire::target::Profile;

/// Largest description of a file, and largest answer about files.
pub(super) const DESCRIPTION: usize = 4 << 20;
/// Most accounts that are asked for one call.
const ASKED: usize = 32;

/// What a call about files needs.
#[derive(Debug)]
pub(super) struct Desk<'d> {
    /// Shared state.
    pub(super) state: &'d State,
    /// The configuration of this call.
    pub(super) snapshot: &'d Snapshot,
    /// The client's headers.
    pub(super) headers: HeaderMap,
    /// Its method.
    pub(super) method: String,
    /// Its query.
    pub(super) query: Option<String>,
    /// Scheme and host under which the client reached us.
    pub(super) origin: Option<String>,
}

/// An account's answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its head.
    pub(super) head: ResponseHeader,
    /// All of its body.
    pub(super) body: Bytes,
}

impl Desk<'_> {
    /// The way to an account.
    pub(super) fn lane(&self, account: &CredentialSpec) -> Result<Lane, ProxyError> {
        let lane = self.state.lanes.get(account, None, &self.snapshot.config);
        lane.map_err(|error| ProxyError::internal(502, error.to_string()))
    }

    /// The header of a call to an account.
    pub(super) fn header(
        &self,
        account: &CredentialSpec,
        lane: &Lane,
        target: &str,
        length: Option<u64>,
    ) -> Result<RequestHeader, ProxyError> {
        let extra = request::extra(&account.headers);
        request::file_header(&Call {
            lane,
            method: &self.method,
            target,
            secret: &account.secret,
            extra: &extra,
            client: &self.headers,
            length,
        })
        .map_err(|error| ProxyError::internal(502, error.to_string()))
    }

    /// Asks accounts until one answers well. `worth` says of a status whether the next one is asked.
    pub(super) async fn ask<'a>(
        &self,
        session: &mut ServerSession,
        order: impl Iterator<Item = &'a CredentialSpec>,
        target: &str,
        body: &Bytes,
        worth: impl Fn(u16) -> bool,
        record: &mut Record,
    ) -> Result<(&'a CredentialSpec, Upstream, Lane), Lost> {
        let mut last = None;
        let first_byte = seconds(self.snapshot.config.server.timeouts.first_byte_seconds);
        for (n, account) in order.take(ASKED).enumerate() {
            note(record, account, n as u32 + 1);
            let lane = self.lane(account)?;
            let header = self.header(account, &lane, target, Some(body.len() as u64))?;
            let mut client = Client::Http(session);
            let manner = Manner::of(Profile::Gemini, &self.snapshot.config);
            let sent = forward(self.state, &mut client, &lane, &header, body, first_byte, manner);
            let opened = Box::pin(sent).await;
            let head = opened.as_ref().ok().and_then(|opened| opened.upstream.response_header());
            record.capture.sent(self.state, (&lane, &header, body), head);
            if let Err(missed) = &opened {
                record.capture.missed(self.state, account, missed);
            }
            let error = match opened {
                Ok(opened) => return Ok((account, opened.upstream, lane)),
                Err(Missed::Gone(error)) => return Err(Lost::Gone(error)),
                Err(Missed::Status { error, .. }) => *error,
                Err(Missed::Connect(message)) => ProxyError::upstream(Failure::new(502, message)),
                Err(Missed::Timeout(_)) => {
                    ProxyError::upstream(Failure::new(504, "the upstream did not answer in time"))
                }
            };
            let more = worth(error.failure.status);
            last = Some(error);
            if !more {
                break;
            }
        }
        Err(last.map_or_else(nobody, |error| Lost::Told(Box::new(error))))
    }

    /// Reads an answer. Its connection is used again where `lane` says which one it was.
    pub(super) async fn collect(
        &self,
        session: &mut ServerSession,
        mut upstream: Upstream,
        lane: Option<&Lane>,
    ) -> Result<Answer, Lost> {
        let head = upstream.response_header().cloned();
        let head = head.ok_or_else(|| ProxyError::internal(502, "the upstream sent no header"))?;
        let limit = seconds(self.snapshot.config.server.timeouts.idle_seconds);
        let mut client = Client::Http(session);
        match collect(&mut upstream, &mut client, None, DESCRIPTION, limit).await {
            Ok(body) => {
                match lane {
                    Some(lane) => {
                        self.state.connector.release_http_session(upstream, lane, lane.idle()).await;
                    }
                    None => upstream.shutdown().await,
                }
                Ok(Answer { head, body })
            }
            Err(Collected::Failed(failure)) => Err(Lost::Told(Box::new(ProxyError::upstream(failure)))),
            Err(Collected::Gone(error)) => Err(Lost::Gone(error)),
        }
    }
}

/// Parameters that are between the client and us: its key, and tickets.
pub(super) const SECRET: [&str; 3] = ["key", "auth_token", TICKET];

/// A path with a query that lacks some parameters.
pub(super) fn with_query(path: &str, query: Option<&str>, without: &[&str]) -> String {
    let kept = query.unwrap_or_default().split('&').filter(|pair| {
        let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
        !pair.is_empty() && !without.contains(&name)
    });
    let query = kept.collect::<Vec<_>>().join("&");
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// The error where no account is left.
pub(super) fn nobody() -> Lost {
    ProxyError::internal(503, "no Gemini credential is left to ask").into()
}

/// Notes who is asked.
pub(super) fn note(record: &mut Record, account: &CredentialSpec, attempts: u32) {
    let facts = &mut record.facts;
    facts.attempts = attempts;
    account.provider.as_ref().clone_into(&mut facts.provider);
    account.label.as_ref().clone_into(&mut facts.credential);
    facts.credential_id = Some(account.id.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_tickets_do_not_go_upstream() {
        let query = Some("upload_id=a%20b&key=client&upload_protocol=resumable&ticket=t&auth_token=x");
        assert_eq!(with_query("/p", query, &SECRET), "/p?upload_id=a%20b&upload_protocol=resumable");
        assert_eq!(with_query("/p", Some("key=k"), &SECRET), "/p");
        assert_eq!(with_query("/p", None, &SECRET), "/p");
    }
}
