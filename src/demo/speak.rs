//! The demo's side of the four formats.
//!
//! Enters: a request. Leaves: its answer, streamed or whole, in the shape of its format; the same writers
//! that serve clients write it. May go wrong: a request that its format's reader refuses (400).

use super::script::{Script, Step, script};
use crate::proxy::endpoint::{Call, Endpoint};
use bytes::{Bytes, BytesMut};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use std::sync::Arc;
use std::time::Duration;
use wire::Protocol;
use wire::error::Failure;
use wire::frames::Framing;
use wire::ir::{BlockKind, Context, Delta, Event, Finish, Fold, Losses, Sink, ToolKind};
use wire::target::Operation;
use wire::{head, translate};

/// Largest request that is read.
const BODY: usize = 128 << 20;

/// Answers one request. Returns whether the connection lives on.
pub(super) async fn answer(session: &mut ServerSession) -> Result<bool> {
    let head = session.req_header();
    let path = head.uri.path().to_owned();
    let endpoint = Endpoint::parse(&head.method, &path, head.uri.query(), false);
    let mut body = BytesMut::new();
    while let Some(chunk) = session.read_request_body().await? {
        if body.len() + chunk.len() > BODY {
            return Ok(false);
        }
        body.extend_from_slice(&chunk);
    }
    let Endpoint::Exchange(call) = endpoint else {
        return error(session, Protocol::OpenaiChat, &Failure::new(404, "the demo has no such path")).await;
    };
    if call.operation.is_media() {
        return error(session, call.client, &Failure::new(400, "the demo holds conversations only")).await;
    }
    match prepare(&call, &body) {
        Err(failure) => error(session, call.client, &failure).await,
        Ok((script, model, stream)) => perform(session, &call, script, &model, stream).await,
    }
}

fn prepare(call: &Call, body: &[u8]) -> std::result::Result<(Script, String, bool), Failure> {
    let head = head::parse(body, call.client).map_err(|e| e.failure())?;
    let request =
        translate::read_request(call.client, body, &mut Losses::default()).map_err(|e| e.failure())?;
    let model = call.model.clone().unwrap_or(head.model);
    Ok((script(&model, &request), model, call.stream.unwrap_or(head.stream)))
}

async fn error(session: &mut ServerSession, protocol: Protocol, failure: &Failure) -> Result<bool> {
    let mut header = ResponseHeader::build_no_case(failure.status, Some(4))?;
    if failure.status == 429 || failure.status == 503 {
        header.insert_header("retry-after", "1")?;
    }
    json(session, header, failure.render(protocol)).await
}

async fn json(session: &mut ServerSession, mut header: ResponseHeader, body: Vec<u8>) -> Result<bool> {
    header.insert_header("content-type", "application/json")?;
    header.insert_header("content-length", body.len())?;
    session.write_response_header(Box::new(header)).await?;
    session.write_response_body(body.into(), true).await?;
    Ok(true)
}

async fn perform(
    session: &mut ServerSession,
    call: &Call,
    script: Script,
    model: &str,
    stream: bool,
) -> Result<bool> {
    if let Some((status, message)) = script.error {
        return error(session, call.client, &Failure::new(status, message)).await;
    }
    let ok = ResponseHeader::build_no_case(200, Some(4))?;
    if call.operation == Operation::CountTokens {
        let tokens = script.usage.prompt();
        let body = translate::write_count(call.client, tokens);
        return json(session, ok, body).await;
    }
    let context = Arc::new(Context {
        created: 1_700_000_000,
        seed: "00000000000000000000000000000dec".to_owned(),
        include_usage: true,
        ..Context::default()
    });
    let (id, events) = ("demo", events(&script));
    if !stream {
        let mut fold = Fold::default();
        fold.event(Event::Start { id, model, created: None });
        for event in &events {
            fold.event(event.event());
        }
        let body = translate::write_answer(call.client, call.operation, fold.answer(), &context);
        return json(session, ok, body).await;
    }
    let mut header = ok;
    header.insert_header("content-type", "text/event-stream")?;
    header.insert_header("transfer-encoding", "chunked")?;
    session.write_response_header(Box::new(header)).await?;
    let mut writer = translate::stream_writer(call.client, call.operation, context, Framing::Sse);
    writer.event(Event::Start { id, model, created: None });
    let mut pieces = 0;
    for event in &events {
        if matches!(event, Scripted::Text(..)) {
            pieces += 1;
            pause(script.pause).await;
            if script.cut_after.is_some_and(|cut| pieces > cut) {
                return Ok(false);
            }
        }
        writer.event(event.event());
        let bytes = Bytes::from(writer.frames().take());
        if !bytes.is_empty() {
            session.write_response_body(bytes, false).await?;
        }
    }
    session.write_response_body(Bytes::new(), true).await?;
    Ok(true)
}

async fn pause(length: Duration) {
    if !length.is_zero() {
        tokio::time::sleep(length).await;
    }
}

/// An event that owns its text.
enum Scripted {
    Open(u32, String),
    Kind(u32, bool),
    Text(u32, String),
    Arguments(u32, String),
    Close(u32),
    Usage(wire::ir::Usage),
    Finish(Finish),
    End,
}

impl Scripted {
    fn event(&self) -> Event<'_> {
        let tool =
            |name| BlockKind::Tool { id: "call_demo_1", name, namespace: None, kind: ToolKind::Function };
        match self {
            Self::Open(block, name) => Event::Open { block: *block, choice: 0, kind: tool(name) },
            Self::Kind(block, true) => {
                Event::Open { block: *block, choice: 0, kind: BlockKind::Reasoning { redacted: None } }
            }
            Self::Kind(block, false) => Event::Open { block: *block, choice: 0, kind: BlockKind::Text },
            Self::Text(block, text) => Event::Delta { block: *block, delta: Delta::Text(text) },
            Self::Arguments(block, text) => Event::Delta { block: *block, delta: Delta::Arguments(text) },
            Self::Close(block) => Event::Close { block: *block },
            Self::Usage(usage) => Event::Usage(*usage),
            Self::Finish(reason) => Event::Finish { choice: 0, reason: *reason, detail: None },
            Self::End => Event::End,
        }
    }
}

/// The events of a script: text in words.
fn events(script: &Script) -> Vec<Scripted> {
    let mut out = Vec::new();
    let mut reason = Finish::End;
    for (n, step) in script.steps.iter().enumerate() {
        let block = n as u32;
        match step {
            Step::Think(text) | Step::Say(text) => {
                out.push(Scripted::Kind(block, matches!(step, Step::Think(_))));
                out.extend(text.split_inclusive(' ').map(|word| Scripted::Text(block, word.to_owned())));
            }
            Step::Call(name, arguments) => {
                reason = Finish::Tool;
                out.push(Scripted::Open(block, name.clone()));
                out.push(Scripted::Arguments(block, arguments.clone()));
            }
        }
        out.push(Scripted::Close(block));
    }
    out.extend([Scripted::Usage(script.usage), Scripted::Finish(reason), Scripted::End]);
    out
}
