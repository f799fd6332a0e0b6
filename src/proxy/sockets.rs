//! `GET /v1/responses` as a WebSocket: turns of a conversation, one after another.
//!
//! Enters: an upgrade request with a key. Leaves: the events of each turn as text frames. May go wrong: a
//! bad handshake (400); a request that cannot be served, which is told by an `error` event and leaves the
//! socket open; a client that leaves; a process that leaves, which ends the socket after the turn (1001).

use super::client::Client;
use super::endpoint::Call;
use super::error::{ProxyError, answer_error};
use super::exchange::answer;
use super::parse::of_body;
use super::record::Record;
use super::websocket::{Socket, handshake_key};
use super::{admit, allowance, capture};
use crate::state::leave::Phase;
use crate::state::{Snapshot, State};
use http::HeaderMap;
use pingora::Result;
use pingora::protocols::http::ServerSession;
use std::sync::Arc;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use wire::Protocol;
use wire::frames::Framing;
use wire::openai_responses::websocket::{Session, Step};
use wire::target::Operation;

const PROTOCOL: Protocol = Protocol::OpenaiResponses;

/// Serves the socket until one side ends it.
pub(super) async fn serve(state: &State, session: &mut ServerSession, record: &mut Record) -> Result<()> {
    record.facts.client = PROTOCOL.name();
    record.facts.operation = "websocket";
    let snapshot = state.snapshot.load_full();
    let Some(key) = handshake_key(session) else {
        let error = ProxyError::client(400, "this path takes a WebSocket handshake (RFC 6455, version 13)");
        return answer_error(&mut Client::Http(session), PROTOCOL, &error, record).await;
    };
    let headers = session.req_header().headers.clone();
    let mut socket = Socket::accept(session, &key, snapshot.max_body()).await?;
    record.facts.status = 101;
    let mut conversation = Session::new();
    loop {
        let message = tokio::select! {
            biased;
            () = state.leave.reached(Phase::Closing) => break,
            message = socket.message(session) => message?,
        };
        let Some(message) = message else { break };
        tokio::select! {
            biased;
            done = turn(state, session, &mut socket, &mut conversation, &message, &headers, record) => done?,
            () = state.leave.reached(Phase::Deadline) => break,
        }
    }
    if state.leave.phase() >= Phase::Closing {
        socket.close(CloseCode::Away, "the server is leaving");
    }
    socket.flush(session).await
}

/// One message of the client and its answer. Each turn sees the configuration of its own time.
async fn turn(
    state: &State,
    session: &mut ServerSession,
    socket: &mut Socket,
    conversation: &mut Session,
    message: &[u8],
    headers: &HeaderMap,
    opened: &Record,
) -> Result<()> {
    let snapshot = state.snapshot.load_full();
    let mut record = Record::default();
    record.begin(state);
    record.facts.clone_from_request(&opened.facts);
    record.socket = Some(opened.seed.clone());
    record.trace = opened.trace.sibling();
    record.facts.client = PROTOCOL.name();
    record.facts.operation = Operation::Generate.name();
    let step = conversation.frame(message, &record.seed, state.now().wall_s);
    let result = match step {
        Err(error) => {
            let error = ProxyError::from(error);
            answer_error(&mut Client::Socket(session, socket), PROTOCOL, &error, &mut record).await
        }
        Ok(Step::Local(events)) => {
            record.facts.status = 200;
            let lines = events.join(&b'\n');
            socket.send_lines(session, &lines).await
        }
        Ok(Step::Request(body)) => {
            ask(state, &snapshot, session, socket, body, headers.clone(), &mut record).await
        }
    };
    for event in socket.take_sent() {
        conversation.answered(&event);
    }
    record.finish(state);
    capture::write_down(&mut record, state, session);
    record.hand_on(state);
    result
}

async fn ask(
    state: &State,
    snapshot: &Arc<Snapshot>,
    session: &mut ServerSession,
    socket: &mut Socket,
    body: Vec<u8>,
    headers: HeaderMap,
    record: &mut Record,
) -> Result<()> {
    let call = Call {
        client: PROTOCOL,
        operation: Operation::Generate,
        model: None,
        stream: Some(true),
        framing: Framing::Lines,
    };
    // A key may be withdrawn or run out while the socket is open.
    let admitted = admit::by_key(session.req_header(), snapshot, state);
    let begun = admitted.and_then(|admitted| {
        record.holder = admitted.holder;
        record.capture.begin(state, snapshot);
        allowance::begin(record, state)
    });
    let mut client = Client::Socket(session, socket);
    let error = match begun.and_then(|permit| Ok((permit, of_body(call, body.into(), None)?))) {
        Err(error) => error,
        Ok((_permit, parsed)) => {
            let answered = answer(state, snapshot, &mut client, parsed, headers, None, record).await;
            allowance::charge(record, state);
            match answered {
                Ok(result) => return result,
                Err(error) => error,
            }
        }
    };
    answer_error(&mut client, PROTOCOL, &error, record).await
}
