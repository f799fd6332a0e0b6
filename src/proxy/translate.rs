//! Stage 4: the body as the chosen upstream takes it.
//!
//! Enters: a parsed request and the pick that serves it. Leaves: [`Prepared`]. May go wrong: the client asks
//! for something that this upstream cannot do (501: another kind may), or its body does not hold what its format says (400).
//!
//! The same body for the same flavour and model is made once, however many credentials are tried.

use super::error::ProxyError;
use super::parse::Parsed;
use super::record::Record;
use crate::state::{Snapshot, State};
use bytes::Bytes;
use pool::{Pick, Route};
use std::borrow::Cow;
use std::sync::Arc;
use wire::target::Profile;
use wire::thinking::{Mismatch, Mode, ThinkingReport};
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
    thinking: Option<Mode>,
    shown: bool,
    /// The body names it for some flavours.
    scope: Arc<str>,
}

/// Makes the body for `pick`, or takes the one that was made before.
pub(super) fn translate(
    parsed: &Parsed,
    route: &Route,
    pick: &Pick,
    before: Option<Prepared>,
    (state, snapshot): (&State, &Snapshot),
    record: &mut Record,
) -> Result<Prepared, ProxyError> {
    let model = pick.model();
    let made_for = MadeFor {
        profile: pick.profile(parsed.call.client),
        model: Arc::clone(&model.upstream),
        thinking: pick.thinking(route.thinking()),
        shown: model.force_mapping,
        scope: Arc::clone(&pick.credential().scope),
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
        project: &pick.credential().scope,
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
    Ok(Prepared { body, plan, made_for })
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
    }
}
