//! A question for a model, from its header to its answer: the stages in their order.
//!
//! Enters: an admitted request. Leaves: an answer, or an error in the client's format. May go wrong:
//! everything that the stages name; the client leaving ends it without an answer.

use super::client::Client;
use super::endpoint::Call;
use super::error::{ProxyError, answer_error};
use super::parse::{BodyLimits, Parsed, parse};
use super::record::Record;
use super::retry::{Exchange, Question};
use super::route::route;
use super::select::Preference;
use super::session::{Origin, conversation};
use super::{allowance, capture};
use crate::state::{Snapshot, State, seconds};
use config::ImageGeneration;
use http::HeaderMap;
use pingora::Result;
use pingora::protocols::http::ServerSession;
use std::sync::Arc;
use wire::target::Operation;

/// Serves one HTTP request.
pub(super) async fn serve(
    state: &State,
    snapshot: &Arc<Snapshot>,
    session: &mut ServerSession,
    call: Call,
    record: &mut Record,
) -> Result<()> {
    let protocol = call.client;
    record.facts.client = protocol.name();
    record.facts.operation = call.operation.name();
    if call.operation.draws() && snapshot.config.models.disable_image_generation == ImageGeneration::Disabled
    {
        let error = ProxyError::client(404, "drawing is switched off here (disable-image-generation)");
        return answer_error(&mut Client::Http(session), protocol, &error, record).await;
    }
    let permit = allowance::begin(record, state);
    let _permit = match permit {
        Ok(permit) => permit,
        Err(error) => return answer_error(&mut Client::Http(session), protocol, &error, record).await,
    };
    let limits = BodyLimits {
        max: snapshot.max_body(),
        deadline: seconds(snapshot.config.server.timeouts.client_body_seconds),
    };
    let header = session.req_header();
    let (headers, query) = (header.headers.clone(), header.uri.query().map(str::to_owned));
    let parsed = parse(session, call, limits).await;
    let mut client = Client::Http(session);
    let error = match parsed {
        Err(error) => error,
        Ok(parsed) => {
            let answered = answer(state, snapshot, &mut client, parsed, headers, query, record).await;
            allowance::charge(record, state);
            match answered {
                Ok(result) => return result,
                Err(error) => error,
            }
        }
    };
    answer_error(&mut client, protocol, &error, record).await
}

/// Answers a parsed request: routed, then attempted.
pub(super) async fn answer(
    state: &State,
    snapshot: &Arc<Snapshot>,
    client: &mut Client<'_>,
    parsed: Parsed,
    headers: HeaderMap,
    query: Option<String>,
    record: &mut Record,
) -> std::result::Result<Result<()>, ProxyError> {
    parsed.head.model.clone_into(&mut record.facts.model);
    capture::bodies(record, state, snapshot, &parsed.body);
    let holder = record.holder.as_ref();
    let route = route(state, snapshot, &parsed.head.model, holder)?;
    let route = allowance::check_model(holder, route, state)?;
    if let Some(model) = route.turned_from() {
        state.metrics.fallback(model, route.model());
        tracing::debug!(model = %model, fallback = %route.model(), "fallback: too many attempts on the model fail");
    }
    let paints = route.facts().is_some_and(|model| model.image);
    if paints && matches!(parsed.call.operation, Operation::Generate | Operation::Completion) {
        let message = format!(
            "model {} is only supported on /v1/images/generations and /v1/images/edits",
            parsed.head.model
        );
        return Err(ProxyError::client(400, message).param("model"));
    }
    let owner = state.files.owner_in(&parsed.body);
    let session = route.keeps_sessions().then(|| {
        let subagents = snapshot.config.routing.selection.session_affinity_subagents;
        let (scope, socket) = (record.scope(), record.socket.as_deref());
        conversation(&parsed, &Origin { headers: &headers, scope, socket, subagents })
    });
    let preference = Preference { session: session.flatten(), owner };
    let question = Question { parsed, headers, query, preference };
    let snapshot = Arc::clone(snapshot);
    Exchange { state, snapshot, client, record }.run(route, question).await
}
