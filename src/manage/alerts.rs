//! What an operator should look at.
//!
//! Enters: counts of calls, how credentials stand, the time. Leaves: `GET alerts`, and a line in the log when an
//! alert rises, gets worse or better, or falls. May go wrong: nothing.

use super::answer::Json;
use super::{App, Manage, Routes, beside, providers};
use crate::observe::alerts::{Alerts, Change, Figures, RULES, Rule, Severity, Subject};
use axum::extract::State;
use axum::routing::get;
use parking_lot::Mutex;
use pool::Class;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Time after the start until which nobody is missed.
const SETTLED: Duration = Duration::from_mins(1);

/// The rules in force, and what they came to.
pub(super) struct Watch {
    rules: Vec<Rule>,
    alerts: Mutex<Alerts>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { rules: RULES.iter().map(|rule| rule.to_rule()).collect(), alerts: Mutex::default() }
    }
}

pub(super) fn routes() -> Routes {
    vec![("alerts".to_owned(), get(list))]
}

async fn list(State(app): State<App>) -> Result<Json, super::Refusal> {
    let app = Arc::clone(&app);
    beside(move || {
        look(&app);
        let alerts = app.watch.alerts.lock().list(app.state.now().wall_s);
        let firing = alerts.iter().filter(|alert| alert.resolved_at.is_none()).count();
        Json(json!({ "alerts": alerts, "firing": firing }))
    })
    .await
}

/// Looks at everything once and tells what changed.
pub(super) fn look(app: &Manage) {
    let now_s = app.state.now().wall_s;
    let standing = standing(app);
    let mut alerts = app.watch.alerts.lock();
    for rule in &app.watch.rules {
        let mut seen = app.state.providers.figures(rule.subject, rule.window_s, now_s);
        if rule.subject == Subject::Providers {
            for (provider, known) in &standing {
                let figures = seen.entry(Arc::clone(provider)).or_default();
                *figures = Figures {
                    credentials: known.credentials,
                    exhausted: known.exhausted,
                    models: known.models,
                    ..*figures
                };
            }
        }
        let seen = seen.iter().map(|(subject, figures)| (&**subject, *figures));
        for change in alerts.look(rule, seen, now_s) {
            tell(&change);
        }
    }
}

/// What is known of providers besides their calls.
fn standing(app: &Manage) -> BTreeMap<Arc<str>, Figures> {
    let mut seen: BTreeMap<Arc<str>, Figures> = BTreeMap::new();
    for status in app.state.pool.credentials(app.state.now()).iter().filter(|status| !status.disabled) {
        let figures = seen.entry(Arc::clone(&status.provider)).or_default();
        let exhausted = |class: Class| matches!(class, Class::Quota | Class::Payment);
        figures.credentials += 1;
        figures.exhausted += u64::from(status.cooling.iter().any(|(_, rest)| exhausted(rest.class)));
    }
    let groups = providers::counted(app);
    let settled = app.state.uptime() >= SETTLED;
    for (name, figures) in &mut seen {
        let group = groups.get(&**name);
        // Upstreams may still be asked what they serve; those that have said it need no time.
        if settled || group.is_some_and(providers::Group::is_bare) {
            figures.models = Some(group.map_or(0, providers::Group::models));
        }
    }
    seen
}

fn tell(change: &Change) {
    let alert = &change.alert;
    let (id, value, threshold) = (&alert.id, alert.current_value, alert.threshold);
    if alert.resolved_at.is_some() {
        tracing::info!(alert = id, "alert resolved: {}", alert.title);
    } else if alert.severity == Severity::Critical {
        tracing::error!(alert = id, value, threshold, "alert critical: {}", alert.title);
    } else {
        tracing::warn!(alert = id, value, threshold, "alert warning: {}", alert.title);
    }
}
