//! Stage 4: the body as the chosen upstream takes it.
//!
//! Enters: a parsed request and the pick that serves it. Leaves: [`Prepared`]. May go wrong: the client asks
//! for something that this upstream cannot do (501: another kind may), or its body does not hold what its format says (400).
//!
//! The same body for the same flavour and model is made once, however many credentials are tried.

use super::error::ProxyError;
use super::parse::Parsed;
use super::record::Record;
use crate::state::State;
use bytes::Bytes;
use pool::{Pick, Route};
use std::borrow::Cow;
use std::sync::Arc;
use wire::target::Profile;
use wire::thinking::Mode;
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
}

/// Makes the body for `pick`, or takes the one that was made before.
pub(super) fn translate(
    parsed: &Parsed,
    route: &Route,
    pick: &Pick,
    before: Option<Prepared>,
    state: &State,
    record: &mut Record,
) -> Result<Prepared, ProxyError> {
    let model = pick.model();
    let made_for = MadeFor {
        profile: pick.credential().kind.profile(),
        model: Arc::clone(&model.upstream),
        thinking: pick.thinking(route.thinking()),
        shown: model.force_mapping,
    };
    if let Some(before) = before.filter(|before| before.made_for == made_for) {
        return Ok(before);
    }
    if let Some(why) = parsed.call.operation.refusal(made_for.profile) {
        return Err(ProxyError::client(501, why).param("model"));
    }
    let snapshot = state.snapshot.load();
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
        image_base: &snapshot.config.models.gpt_image_2_base_model,
    };
    let wire::translate::Prepared { body, plan, losses, .. } = wire::translate::prepare(&job)?;
    let body = match body {
        // Nothing had to change: the client's own bytes go on.
        Cow::Borrowed(_) => parsed.body.clone(),
        Cow::Owned(body) => Bytes::from(body),
    };
    record.losses(&losses, state);
    Ok(Prepared { body, plan, made_for })
}
