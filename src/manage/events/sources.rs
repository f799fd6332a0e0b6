//! What events are made of: the figures, credentials, alerts and the log, as they were told last.
//!
//! Enters: the time. Leaves: frames with what is another than before. Nothing may go wrong: a source that is not
//! there says nothing.

use super::hub::{ALERTS, CREDENTIALS, Frames, Hub, LOGS, NOW};
use crate::manage::auth_list::auth_index;
use crate::manage::{Manage, alerts, logs, providers};
use crate::observe::feed::Totals;
use pool::{CredentialId, Status};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Time between two looks at all but requests and the log, a little less than two ticks.
pub(super) const SLOW: Duration = Duration::from_millis(950);

/// What is known of the sources, and who wants to know.
#[derive(Default)]
pub(super) struct Watched {
    pub hub: Hub,
    /// Somebody looks regularly.
    pub running: bool,
    /// The last request that was told.
    pub seen: u64,
    /// When the figures were told last.
    pub slow: Option<Instant>,
    totals: Totals,
    pub now: Value,
    pub credentials: BTreeMap<CredentialId, Standing>,
    /// State of alerts, by rule and subject.
    pub alerts: BTreeMap<(String, String), (String, Value)>,
    log: Option<logs::Cursor>,
}

/// How a credential stands: its state, and it for people.
type Standing = ((&'static str, usize), Value);

impl Watched {
    /// Begins anew: nobody looked for a while.
    pub(super) fn restart(&mut self, app: &Manage, now: Instant) {
        self.totals = app.state.feed.totals();
        (self.now, self.slow, self.log) = (Value::Null, Some(now), None);
    }

    /// The figures of the last second, where it is over.
    pub(super) fn figures(&mut self, app: &Manage, now: Instant, frames: &mut Frames) -> bool {
        let since = self.slow.map_or(Duration::ZERO, |slow| now.duration_since(slow));
        let is_due = since >= SLOW;
        // The first listener is told what there is, without anything to compare it with.
        if !is_due && !self.now.is_null() {
            return false;
        }
        self.slow = Some(now);
        let state = &app.state;
        let totals = state.feed.totals();
        let rate = |of: fn(&Totals) -> u64| {
            let more = of(&totals).saturating_sub(of(&self.totals)) as f64;
            is_due.then(|| (more / since.as_secs_f64() * 100.0).round() / 100.0)
        };
        self.now = json!({
            "at": jiff::Timestamp::now(),
            "requests_per_second": rate(|t| t.requests),
            "errors_per_second": rate(|t| t.errors),
            "input_tokens_per_second": rate(|t| t.input_tokens),
            "output_tokens_per_second": rate(|t| t.output_tokens),
            "in_flight": state.metrics.in_flight.get().max(0),
            "waiting": state.waiting.len(),
            "requests": totals.requests,
            "errors": totals.errors,
        });
        self.totals = totals;
        frames.add(NOW, "now", None, self.now.to_string().as_bytes());
        is_due
    }

    pub(super) fn standings(&mut self, app: &Manage, frames: &mut Frames) {
        let now = app.state.now();
        let mut before = std::mem::take(&mut self.credentials);
        for status in app.state.pool.credentials(now) {
            let (state, shown) = standing(&status, now.wall_s);
            let old = before.remove(&status.id);
            if old.is_none_or(|(old, _)| old != state) {
                frames.add(CREDENTIALS, "credentials", None, shown.to_string().as_bytes());
            }
            self.credentials.insert(status.id, (state, shown));
        }
        for id in before.keys() {
            let gone = json!({ "auth_index": auth_index(id.as_str()), "state": "gone" });
            frames.add(CREDENTIALS, "credentials", None, gone.to_string().as_bytes());
        }
    }

    pub(super) fn alerts(&mut self, app: &Manage, frames: &mut Frames) {
        let mut before = std::mem::take(&mut self.alerts);
        for alert in alerts::current(app) {
            let key = (alert.id.clone(), alert.subject.clone());
            let state = format!("{:?} {:?} {}", alert.severity, alert.status, alert.started_at);
            let shown = serde_json::to_value(&alert).unwrap_or_default();
            if before.remove(&key).is_none_or(|(old, _)| old != state) {
                frames.add(ALERTS, "alerts", None, shown.to_string().as_bytes());
            }
            self.alerts.insert(key, (state, shown));
        }
    }

    pub(super) fn log_lines(&mut self, app: &Manage, frames: &mut Frames) {
        // It may have been switched off meanwhile.
        let Ok(folder) = logs::folder(&app.state) else { return };
        let page = logs::new_lines(&folder, self.log);
        let begins = self.log.is_none();
        self.log = page.next.or(self.log);
        if !begins && !page.lines.is_empty() {
            frames.add(LOGS, "logs", None, json!({ "lines": page.lines }).to_string().as_bytes());
        }
    }
}

/// How a credential stands.
fn standing(status: &Status, now_s: u64) -> Standing {
    let whole = status.cooling.iter().find(|(model, _)| model.is_none()).map(|(_, rest)| rest);
    let word = match whole {
        _ if status.disabled => "disabled",
        Some(_) => "cooling",
        None if !status.cooling.is_empty() => "limited",
        None => "ready",
    };
    debug_assert_eq!(whole.is_some(), providers::rests(status));
    let first = whole.or_else(|| status.cooling.first().map(|(_, rest)| rest));
    let shown = json!({
        "auth_index": auth_index(status.id.as_str()),
        "label": &*status.label,
        "provider": &*status.provider,
        "state": word,
        "reason": first.map(|rest| rest.class.name()),
        "next_retry_at": first.map(|rest| now_s + rest.left_ms.div_ceil(1000)),
        "resting_models": status.cooling.iter().filter_map(|(model, _)| model.as_deref()).collect::<Vec<_>>(),
        "in_flight": status.in_flight,
        "success": status.succeeded,
        "failed": status.failed,
    });
    ((word, status.cooling.len()), shown)
}
