//! Which model is tried, and what is left to try.
//!
//! Enters: the route of the model that was asked for; that nobody serves it. Leaves: the route of a model that
//! serves in its place (`fallback-models`), with fresh attempts; when none is left, the first model again,
//! which may be worth waiting for. May go wrong: nothing serves; the client is told what went wrong with the
//! model that it asked for.

use super::error::ProxyError;
use super::record::Record;
use crate::state::State;
use crate::state::keys::Holder;
use http::{HeaderName, HeaderValue};
use pool::{Attempts, CredentialId, Route, Token};
use std::sync::Arc;
use wire::target::Operation;

/// Says which model served in place of the one that was asked for.
const FALLBACK: HeaderName = HeaderName::from_static("x-fallback-model");

/// What a request tries.
#[derive(Debug)]
pub(super) struct Course {
    /// The model that is tried now.
    pub route: Route,
    /// What was tried for it.
    pub attempts: Attempts,
    /// The last attempt that an upstream refused: whose, and the token that went with it.
    pub refused: Option<(CredentialId, Option<Arc<Token>>)>,
    /// Attempts on the models before.
    earlier: u32,
    /// The model that was asked for, while another is tried.
    home: Option<Box<Home>>,
    /// Who may not use every model.
    holder: Option<Arc<Holder>>,
}

/// The model that was asked for.
#[derive(Debug)]
struct Home {
    route: Route,
    attempts: Attempts,
    error: ProxyError,
}

impl Course {
    /// Begins with the model that was asked for.
    pub(super) fn new(route: Route, holder: Option<Arc<Holder>>) -> Self {
        Self { route, attempts: Attempts::default(), refused: None, earlier: 0, home: None, holder }
    }

    /// Goes on with the same model as another configuration has it. What was tried stays tried.
    pub(super) fn reroute(&mut self, route: Route, holder: Option<Arc<Holder>>) {
        self.route = route;
        self.holder = holder;
        self.home = None;
    }

    /// The next model that serves in place of this one, among those that the client may use.
    fn next(&self, state: &State) -> Option<Route> {
        let mut next = state.pool.fallback(&self.route, state.now());
        while let (Some(route), Some(holder)) = (&next, &self.holder) {
            if holder.allows(route.model()) {
                break;
            }
            next = state.pool.fallback(route, state.now());
        }
        next
    }

    /// Attempts on all models.
    pub(super) fn total(&self) -> u32 {
        self.earlier + self.attempts.total()
    }

    /// Whether an answer without content is worth less than the next model's.
    pub(super) fn refuses_empty(&self, operation: Operation, state: &State) -> bool {
        matches!(operation, Operation::Generate | Operation::Completion) && self.next(state).is_some()
    }

    /// Nobody serves the model: goes on with the next one. An error: none is left; the first model is back
    /// in place, and this is what went wrong with it.
    pub(super) fn turn(
        &mut self,
        error: ProxyError,
        state: &State,
        record: &Record,
    ) -> Result<(), Box<ProxyError>> {
        if let Some(next) = self.next(state) {
            tell(&self.route, &next, &error, state, record);
            self.earlier += self.attempts.total();
            let attempts = std::mem::take(&mut self.attempts);
            let route = std::mem::replace(&mut self.route, next);
            if self.route.is_fallback() {
                self.home.get_or_insert_with(|| Box::new(Home { route, attempts, error }));
            } else {
                // The request began with a fallback: what counts in the end is what the asked model says.
                self.home = None;
            }
            return Ok(());
        }
        let Some(home) = self.home.take() else { return Err(Box::new(error)) };
        self.earlier += self.attempts.total();
        // Its attempts are counted among the earlier ones already.
        self.earlier = self.earlier.saturating_sub(home.attempts.total());
        self.route = home.route.without_fallbacks();
        self.attempts = home.attempts;
        Err(Box::new(home.error))
    }

    /// What the answer says of the model that served.
    pub(super) fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        let name = self.route.is_fallback().then(|| HeaderValue::from_str(self.route.model()))?;
        Some((FALLBACK, name.ok()?))
    }
}

fn tell(from: &Route, to: &Route, error: &ProxyError, state: &State, record: &Record) {
    state.metrics.fallback(from.model(), to.model());
    tracing::warn!(
        request_id = %record.facts.request_id, model = %from.model(), fallback = %to.model(),
        "fallback: {} cannot serve ({}); {} is tried in its place",
        from.model(), error.failure.message, to.model()
    );
}
