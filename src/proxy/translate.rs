//! Stage 4: the body as the chosen upstream takes it.
//!
//! Enters: a request and the pick that serves it. Leaves: [`Prepared`], with the operator's `payload` rules
//! applied. May go wrong: the client asks for something that this upstream cannot do, or its body does not
//! hold what its format says (400).
//!
//! The same body for the same flavour and model is made once, however many credentials are tried.

use super::error::ProxyError;
use super::record::Record;
use super::retry::Question;
use crate::state::{Snapshot, State};
use bytes::Bytes;
use pool::{Pick, Route};
use std::borrow::Cow;
use std::sync::Arc;
use wire::payload;
use wire::target::{Card, Operation, Profile};
use wire::thinking::{Mode, split_suffix};
use wire::translate::{Job, Plan};

/// A request that can be sent.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    /// The upstream's body.
    pub body: Bytes,
    /// How its answer is translated.
    pub plan: Plan,
    made_for: MadeFor,
}

/// What a body depends on besides the request.
#[derive(Clone, Debug, PartialEq)]
struct MadeFor {
    profile: Profile,
    model: Arc<str>,
    card: Card,
    thinking: Option<Mode>,
    shown: bool,
}

/// Makes the body for `pick`, or takes the one that was made before.
pub(super) fn translate(
    asked: &Question,
    route: &Route,
    pick: &Pick,
    before: Option<Prepared>,
    from: (&State, &Snapshot),
    record: &mut Record,
) -> Result<Prepared, ProxyError> {
    let (parsed, (state, snapshot)) = (&asked.parsed, from);
    let model = pick.model();
    let made_for = MadeFor {
        profile: pick.credential().kind.profile(),
        model: Arc::clone(&model.upstream),
        card: model.card.clone(),
        thinking: pick.thinking(route.thinking()),
        shown: model.force_mapping,
    };
    if let Some(before) = before.filter(|before| before.made_for == made_for) {
        return Ok(before);
    }
    if parsed.call.operation == Operation::Compact
        && made_for.profile.protocol() != wire::Protocol::OpenaiResponses
    {
        let message = "only upstreams that speak Responses compact conversations; choose one of their models";
        return Err(ProxyError::client(501, message).param("model"));
    }
    let job = Job {
        client: parsed.call.client,
        operation: parsed.call.operation,
        body: &parsed.body,
        head: &parsed.head,
        stream: parsed.head.stream,
        framing: parsed.call.framing,
        profile: made_for.profile,
        model: &model.upstream,
        card: &model.card,
        suffix: made_for.thinking,
        shown_model: model.force_mapping.then(|| route.asked()),
        created: state.now().wall_s,
        seed: &record.seed,
        project: "",
    };
    let made = wire::translate::prepare(&job)?;
    tell_thinking(&made, &made_for, record);
    let wire::translate::Prepared { body, plan, losses, .. } = made;
    let body = match body {
        // Nothing had to change: the client's own bytes go on.
        Cow::Borrowed(_) => parsed.body.clone(),
        Cow::Owned(body) => Bytes::from(body),
    };
    record.losses(&losses, state);
    let body = match rewritten(&body, asked, route, pick, &snapshot.payload) {
        Some(changed) => changed.into(),
        None => body,
    };
    Ok(Prepared { body, plan, made_for })
}

/// Says in the log what became of the client's wish to think. The phrases are CLIProxyAPI's: its runbooks
/// search for them.
fn tell_thinking(made: &wire::translate::Prepared<'_>, made_for: &MadeFor, record: &Record) {
    if made.asked_thinking.is_none() && made.thinking.is_none() {
        return;
    }
    let (request_id, model) = (&record.facts.request_id, &made_for.model);
    let words = |mode: Option<Mode>| mode.map_or_else(|| "unset".to_owned(), |mode| mode.to_string());
    tracing::debug!(
        %request_id, %model, thinking = words(made.asked_thinking), "thinking: original config from request"
    );
    tracing::debug!(
        %request_id, %model, thinking = words(made.thinking), "thinking: processed config to apply"
    );
}

/// The body as the operator's rules want it; `None`: as it is. Counts are left alone: what a rule sets for an
/// answer would be refused there.
fn rewritten(
    body: &[u8],
    asked: &Question,
    route: &Route,
    pick: &Pick,
    rules: &payload::Rules,
) -> Option<Vec<u8>> {
    let call = &asked.parsed.call;
    if rules.is_empty() || call.operation == Operation::CountTokens {
        return None;
    }
    let name = route.asked();
    let subject = payload::Subject {
        names: &[&pick.model().upstream, split_suffix(name).0, name],
        profile: pick.credential().kind.profile(),
        client: call.client,
        header: &|name| asked.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect(),
    };
    rules.apply(body, &subject)
}
