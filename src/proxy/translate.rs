//! Stage 4: the body as the chosen upstream takes it.
//!
//! Enters: a request and the pick that serves it. Leaves: [`Prepared`], with the operator's `payload` rules
//! applied. May go wrong: the client asks for something that this upstream cannot do (501: another kind may),
//! or its body does not hold what its format says (400).
//!
//! The same body for the same flavour and model is made once, however many credentials are tried.

use super::error::ProxyError;
use super::record::Record;
use super::retry::Question;
use crate::observe::providers::Remark;
use crate::state::{Snapshot, State};
use bytes::Bytes;
use pool::{Pick, Route};
use std::borrow::Cow;
use std::sync::Arc;
use wire::payload;
use wire::target::{Card, Operation, Profile};
use wire::thinking::{Mismatch, Mode, ThinkingReport, split_suffix};
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
    /// The body names it for some flavours.
    scope: Box<str>,
}

/// Makes the body for `pick`, or takes the one that was made before.
pub(super) fn translate(
    asked: &Question,
    route: &Route,
    pick: &Pick,
    before: Option<Prepared>,
    (state, snapshot): (&State, &Snapshot),
    record: &mut Record,
) -> Result<Prepared, ProxyError> {
    let (parsed, model) = (&asked.parsed, pick.model());
    let made_for = MadeFor {
        profile: pick.profile(parsed.call.client),
        model: Arc::clone(&model.upstream),
        card: model.card.clone(),
        thinking: pick.thinking(route.thinking()),
        shown: model.force_mapping,
        scope: Box::from(pick.scope()),
    };
    if let Some(before) = before.filter(|before| before.made_for == made_for) {
        return Ok(before);
    }
    if let Some(why) = parsed.call.operation.refusal(made_for.profile) {
        return Err(ProxyError::client(501, why).param("model"));
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
        strict: snapshot.config.models.thinking.strict,
        shown_model: model.force_mapping.then(|| route.asked()),
        created: state.now().wall_s,
        seed: &record.seed,
        project: pick.scope(),
        image_base: &snapshot.config.models.gpt_image_2_base_model,
    };
    let wire::translate::Prepared { body, plan, losses, thinking } = wire::translate::prepare(&job)?;
    let body = match body {
        // Nothing had to change: the client's own bytes go on.
        Cow::Borrowed(_) => parsed.body.clone(),
        Cow::Owned(body) => Bytes::from(body),
    };
    record.losses(&losses, state);
    note_thinking(&thinking, pick, state);
    let body = match rewritten(&body, asked, route, made_for.profile, &snapshot.payload, &model.upstream) {
        Some(changed) => changed.into(),
        None => body,
    };
    Ok(Prepared { body, plan, made_for })
}

/// The body as the operator's rules want it; `None`: as it is. Only conversations have rules: what they set
/// for an answer would be refused in a count, and a form is no JSON.
fn rewritten(
    body: &[u8],
    asked: &Question,
    route: &Route,
    profile: Profile,
    rules: &payload::Rules,
    upstream: &str,
) -> Option<Vec<u8>> {
    let call = &asked.parsed.call;
    let conversation =
        matches!(call.operation, Operation::Generate | Operation::Completion | Operation::Compact);
    let params = route.params().filter(|params| !params.is_empty());
    if (rules.is_empty() && params.is_none()) || !conversation {
        return None;
    }
    let name = route.asked();
    let subject = payload::Subject {
        names: &[upstream, split_suffix(name).0, name],
        profile,
        client: call.client,
        header: &|name| asked.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect(),
    };
    let mapped = params.and_then(|params| params.apply(body, &subject));
    rules.apply(mapped.as_deref().unwrap_or(body), &subject).or(mapped)
}

/// The two lines by which operators follow thinking, and the counter.
fn note_thinking(report: &ThinkingReport, pick: &Pick, state: &State) {
    let Some(original) = report.original else { return };
    let (provider, model) = (&pick.credential().provider, &pick.model().upstream);
    if tracing::enabled!(tracing::Level::DEBUG) {
        let name = |mode: Option<Mode>| mode.map_or("absent", Mode::name);
        let level = |mode: Option<Mode>| mode.and_then(Mode::level).map_or("", |level| level.name());
        tracing::debug!(
            provider = %provider, model = %model, mode = original.name(),
            level = level(report.original), budget = original.budget(),
            source = report.origin.name(), visible = report.visible,
            "thinking: original config from request"
        );
        tracing::debug!(
            provider = %provider, model = %model, mode = name(report.processed),
            level = level(report.processed), budget = report.processed.and_then(Mode::budget),
            mismatch = report.mismatch(),
            "thinking: processed config to apply"
        );
    }
    if report.mismatch() {
        state.metrics.thinking_mismatch(provider, model, Mismatch::Adjusted.name());
        state.providers.remark(provider, model, Remark::ThinkingMismatch, state.now().wall_s);
    }
}
