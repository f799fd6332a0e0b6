//! Gemini's files: `/upload/v1beta/files` and `/v1beta/files`. They belong to accounts and not to models, so
//! there is no route and no rest: an account is asked, and remembered with the file.
//!
//! Enters: an admitted call. Leaves: the account's answer. An upload that begins goes to each account in turn,
//! to the next one when one refuses (`accounts.rs`); its URL comes back as ours, with a ticket, and its parts go
//! to the same account (`upload.rs`). A file that nobody remembers is asked for everywhere. May go wrong: no Gemini
//! credential (501), a ticket that is none (403), what the upstream says.

use super::attempt::pace;
use super::client::Client;
use super::desk::{Answer, DESCRIPTION, Desk, SECRET, nobody, note, with_query};
use super::endpoint::{FileCall, TICKET};
use super::error::{ProxyError, answer_error};
use super::parse::{BodyLimits, read_raw};
use super::record::Record;
use super::reply::{Ended, Pace, Pump, Shape};
use super::respond::{self, UPLOAD_URL};
use super::upload::{self, Lost};
use crate::state::query::query_value;
use crate::state::{Snapshot, State, seconds};
use crate::upstream::peer::Lane;
use bytes::Bytes;
use config::OwnTimeouts;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession as Upstream;
use pingora::{Error, ErrorType, Result};
use pool::{Account, CredentialSpec, Kind};
use std::sync::Arc;
use std::time::Duration;
use wire::Protocol;
use wire::frames::Framing;
use wire::json::{self, Json, parse_any};
use wire::patch::Patch;
use wire::target::{Operation, Profile};
use wire::translate::{Plan, Reply};

/// Serves one call.
pub(super) async fn serve(
    state: &State,
    snapshot: &Snapshot,
    session: &mut ServerSession,
    call: FileCall,
    record: &mut Record,
) -> Result<()> {
    record.facts.client = Protocol::Gemini.name();
    record.facts.operation = Operation::GeminiFiles.name();
    let header = session.req_header();
    let desk = Desk {
        state,
        snapshot,
        headers: header.headers.clone(),
        method: header.method.as_str().to_owned(),
        query: header.uri.query().map(str::to_owned),
        origin: origin(session),
    };
    let accounts = state.pool.accounts(Kind::Gemini, state.now());
    let answered = if accounts.is_empty() {
        let message = "no Gemini credential is configured (gemini-api-key), and only Gemini keeps files";
        Err(ProxyError::client(501, message).closing().into())
    } else {
        match call {
            FileCall::Start => desk.start(session, &accounts, record).await,
            FileCall::Part { ticket } => desk.part(session, &accounts, &ticket, record).await,
            FileCall::One { id, download: true } if desk.method == "GET" => {
                match desk.download(session, &accounts, &id, record).await {
                    Ok(()) => return Ok(()),
                    Err(lost) => Err(lost),
                }
            }
            FileCall::One { id, .. } => desk.one(session, &accounts, &id, record).await,
            FileCall::List => desk.list(session, &accounts, record).await,
        }
    };
    match answered {
        Ok(Answer { head, body }) => {
            record.facts.status = head.status.as_u16();
            let mut header = respond::passed_header(&record.facts.request_id, &head, false)?;
            // Of the body as it is now.
            header.remove_header(&http::header::CONTENT_LENGTH);
            respond::send(session, header, body).await
        }
        Err(Lost::Told(error)) => {
            answer_error(&mut Client::Http(session), Protocol::Gemini, &error, record).await
        }
        Err(Lost::Gone(error)) => Err(error),
    }
}

impl Desk<'_> {
    /// An upload begins. A resumable one sends its description first, which can be sent again elsewhere;
    /// others send the file at once.
    async fn start(
        &self,
        session: &mut ServerSession,
        accounts: &[Account],
        record: &mut Record,
    ) -> std::result::Result<Answer, Lost> {
        let (mut order, resting): (Vec<_>, Vec<_>) = accounts.iter().partition(|account| !account.rests);
        let turn = self.state.files.turn().checked_rem(order.len()).unwrap_or(0);
        order.rotate_left(turn);
        order.extend(resting);
        let target = self.target("/upload/v1beta/files");
        let command = self.headers.get("x-goog-upload-command").and_then(|v| v.to_str().ok());
        if !command.is_some_and(|command| command.contains("start")) {
            let Some(account) = order.first() else { return Err(nobody()) };
            return self.stream(session, &account.spec, &target, record).await;
        }
        let deadline = seconds(self.snapshot.config.server.timeouts.client_body_seconds);
        let body = read_raw(session, BodyLimits { max: DESCRIPTION, deadline }).await?;
        let worth = |status| matches!(status, 401 | 403 | 429 | 500..);
        let order = order.into_iter().map(|account| &account.spec);
        let (account, upstream, lane) = self.ask(session, order, &target, &body, worth, record).await?;
        let mut answer = self.collect(session, upstream, Some(&lane)).await?;
        self.ours(&mut answer, account, &lane)?;
        self.learn(&answer, account);
        Ok(answer)
    }

    /// A part of an upload comes.
    async fn part(
        &self,
        session: &mut ServerSession,
        accounts: &[Account],
        ticket: &str,
        record: &mut Record,
    ) -> std::result::Result<Answer, Lost> {
        let target = self.target("/upload/v1beta/files");
        let Some(account) = self.state.files.holder(accounts, &target, ticket) else {
            let message = "this upload URL was not given out here, or its credential is gone; begin again";
            return Err(ProxyError::client(403, message).into());
        };
        self.stream(session, account, &target, record).await
    }

    /// Sends what the client sends to one account.
    async fn stream(
        &self,
        session: &mut ServerSession,
        account: &CredentialSpec,
        target: &str,
        record: &mut Record,
    ) -> std::result::Result<Answer, Lost> {
        note(record, account, 1);
        let (mut upstream, sent) = upload::send(self, session, account, target).await?;
        if let (false, Some(head)) = (sent, upstream.response_header().cloned()) {
            session.set_keepalive(None);
            let body = upload::last_words(&mut upstream, DESCRIPTION).await;
            upstream.shutdown().await;
            return Ok(Answer { head, body });
        }
        let answer = self.collect(session, upstream, None).await?;
        self.learn(&answer, account);
        Ok(answer)
    }

    /// What is known of a file, or its end.
    async fn one(
        &self,
        session: &mut ServerSession,
        accounts: &[Account],
        id: &str,
        record: &mut Record,
    ) -> std::result::Result<Answer, Lost> {
        let target = self.target(&format!("/v1beta/files/{id}"));
        let (account, upstream, lane) = self.find(session, accounts, id, &target, record).await?;
        if self.method == "DELETE" {
            self.state.files.forget(id);
        } else {
            self.state.files.learn(id, &account.id);
        }
        self.collect(session, upstream, Some(&lane)).await
    }

    /// The content of a file, as it comes.
    async fn download(
        &self,
        session: &mut ServerSession,
        accounts: &[Account],
        id: &str,
        record: &mut Record,
    ) -> std::result::Result<(), Lost> {
        let target = self.target(&format!("/v1beta/files/{id}:download"));
        let (_, mut upstream, _) = self.find(session, accounts, id, &target, record).await?;
        let head = upstream.response_header().cloned();
        let mut reply = Reply::new(&Plan {
            client: Protocol::Gemini,
            operation: Operation::GeminiFiles,
            profile: Profile::Gemini,
            stream: false,
            upstream_stream: false,
            same_format: true,
            framing: Framing::Sse,
            context: Arc::default(),
            thinking: None,
        });
        let id = record.facts.request_id.clone();
        let shape = Shape { stream: true, array: false, request_id: &id, passed: head.as_ref() };
        let pace = Pace { keep_alive: Duration::ZERO, ..pace(self.snapshot, OwnTimeouts::default()) };
        let mut on_commit = || record.first_byte();
        let mut client = Client::Http(session);
        let mut pump = Pump::new(&mut client, &mut reply, pace, shape, &mut on_commit);
        let ended = pump.events(&mut upstream, None).await;
        upstream.shutdown().await;
        record.facts.status = 200;
        match ended {
            Ended::Complete { .. } | Ended::Empty { .. } => Ok(()),
            Ended::Missed { failure, .. } => Err(Lost::Told(Box::new(ProxyError::upstream(failure)))),
            Ended::Gone(error) => Err(Lost::Gone(error)),
            Ended::Severed(failure) | Ended::Broken(failure) => {
                record.facts.status = failure.status;
                record.facts.error = failure.message;
                Err(Lost::Gone(Error::new_up(ErrorType::ReadError)))
            }
        }
    }

    /// Asks the holder of a file; all accounts where nobody is remembered.
    async fn find<'a>(
        &self,
        session: &mut ServerSession,
        accounts: &'a [Account],
        id: &str,
        target: &str,
        record: &mut Record,
    ) -> std::result::Result<(&'a CredentialSpec, Upstream, Lane), Lost> {
        let holder = self.state.files.owner(id);
        let known = accounts.iter().find(|account| Some(&account.spec.id) == holder.as_ref());
        let order: Vec<_> = match known {
            Some(account) => vec![&account.spec],
            None => accounts.iter().map(|account| &account.spec).collect(),
        };
        // Google says of a file of somebody else that it may not be seen.
        let worth = |status| known.is_none() && matches!(status, 401 | 403 | 404 | 429 | 500..);
        self.ask(session, order.into_iter(), target, &Bytes::new(), worth, record).await
    }

    /// The files of all accounts: the pages of one after those of the other. With one account its answers
    /// pass as they are.
    async fn list(
        &self,
        session: &mut ServerSession,
        accounts: &[Account],
        record: &mut Record,
    ) -> std::result::Result<Answer, Lost> {
        let token = query_value(self.query.as_deref(), "pageToken").unwrap_or_default();
        let bad = || ProxyError::client(400, "pageToken: it was not given out here").param("pageToken");
        let (at, token) = match token.split_once('.') {
            _ if accounts.len() == 1 => (0, token.as_str()),
            None if token.is_empty() => (0, ""),
            None => return Err(bad().into()),
            Some((at, token)) => (at.parse::<usize>().map_err(|_| bad())?, token),
        };
        let account = &accounts.get(at).ok_or_else(bad)?.spec;
        let mut target = self.target_without("/v1beta/files", "pageToken");
        if !token.is_empty() {
            let separator = if target.contains('?') { '&' } else { '?' };
            target = format!("{target}{separator}pageToken={}", encoded(token));
        }
        let none = Bytes::new();
        let order = std::iter::once(account);
        let (_, upstream, lane) = self.ask(session, order, &target, &none, |_| false, record).await?;
        let mut answer = self.collect(session, upstream, Some(&lane)).await?;
        self.learn(&answer, account);
        if accounts.len() > 1 {
            let next = parse_any(&answer.body).ok().and_then(|value| {
                value.get("nextPageToken").and_then(Json::as_str).filter(|t| !t.is_empty()).map(str::to_owned)
            });
            let next = next.map(|token| format!("{at}.{token}"));
            let next = next.or_else(|| (at + 1 < accounts.len()).then(|| format!("{}.", at + 1)));
            if let Some(next) = next {
                let mut patch = Patch::new(&answer.body);
                patch.set(0, "nextPageToken", json::string(&next));
                answer.body = patch.apply().into();
            }
        }
        Ok(answer)
    }

    /// Makes the upload's URL one of ours, with a ticket.
    fn ours(
        &self,
        answer: &mut Answer,
        account: &CredentialSpec,
        lane: &Lane,
    ) -> std::result::Result<(), ProxyError> {
        let Some(theirs) = answer.head.headers.get(&UPLOAD_URL) else { return Ok(()) };
        let unusable =
            || ProxyError::internal(502, "the upstream gave an upload URL that cannot be passed on");
        let theirs = theirs.to_str().ok().and_then(|text| url::Url::parse(text).ok()).ok_or_else(unusable)?;
        let root = lane.base_path().strip_suffix("/v1beta").unwrap_or(lane.base_path());
        let path = theirs.path();
        let path = path.strip_prefix(root).unwrap_or(path);
        if path != "/upload/v1beta/files" {
            return Err(unusable());
        }
        let target = with_query(path, theirs.query(), &SECRET);
        let ticket = self.state.files.ticket(account, &target);
        let separator = if target.contains('?') { '&' } else { '?' };
        let message = "no Host header, so that there is no URL to send the file to";
        let origin = self.origin.as_ref().ok_or_else(|| ProxyError::client(400, message))?;
        let ours = format!("{origin}{target}{separator}{TICKET}={ticket}");
        answer.head.insert_header(UPLOAD_URL, ours).map_err(|_| unusable())
    }

    /// Remembers the files that an answer names.
    fn learn(&self, answer: &Answer, account: &CredentialSpec) {
        if !answer.head.status.is_success() {
            return;
        }
        let Ok(value) = parse_any(&answer.body) else { return };
        let listed = value.get("files").and_then(Json::as_array).unwrap_or_default();
        for file in listed.iter().chain(value.get("file")) {
            let name = file.get("name").and_then(Json::as_str).and_then(|name| name.strip_prefix("files/"));
            if let Some(id) = name {
                self.state.files.learn(id, &account.id);
            }
        }
    }

    fn target(&self, path: &str) -> String {
        with_query(path, self.query.as_deref(), &SECRET)
    }

    fn target_without(&self, path: &str, parameter: &str) -> String {
        with_query(path, self.query.as_deref(), &[SECRET[0], SECRET[1], SECRET[2], parameter])
    }
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Scheme and host under which the client reached us.
fn origin(session: &ServerSession) -> Option<String> {
    let header = session.req_header();
    let text = |name: &str| header.headers.get(name).and_then(|value| value.to_str().ok());
    let host = text("host").or_else(|| header.uri.authority().map(http::uri::Authority::as_str))?;
    let said = text("x-forwarded-proto").and_then(|list| list.split(',').next()).map(str::trim);
    let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
    let scheme = match said {
        Some("https") => "https",
        Some("http") => "http",
        _ if tls => "https",
        _ => "http",
    };
    Some(format!("{scheme}://{host}"))
}
