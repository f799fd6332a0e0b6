//! What an operator should look at.
//!
//! Enters: counts of calls, how credentials stand, the rules in force, the time. Leaves: `GET alerts`, and a line
//! in the log and notifications when an alert rises, gets worse or better, or falls; `GET alerts/rules`;
//! `POST alerts/test`, which tries those who are told. May go wrong: a test of a target that there is not
//! (404); what a target does not take is told in the answer.

use super::answer::{Json, Refusal};
use super::{App, Manage, Routes, beside, notify, providers};
use crate::observe::alerts::{self, Alert, Alerts, Change, Figures, Rule, Severity, Status};
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::{get, post};
use config::{AlertScope as Scope, NotifyTarget};
use http::StatusCode;
use parking_lot::Mutex;
use pool::Class;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time after the start until which an upstream that cannot say what it serves is waited for.
const SETTLED: Duration = Duration::from_mins(1);
/// Longest wait for what becomes of a test: the longest delivery, and what is before it in the queue.
const TESTED: Duration = Duration::from_secs(90);

/// What the rules came to.
pub(super) type Watch = Mutex<Alerts>;

pub(super) fn routes() -> Routes {
    vec![
        ("alerts".to_owned(), get(list)),
        ("alerts/rules".to_owned(), get(rules)),
        ("alerts/test".to_owned(), post(test)),
    ]
}

async fn list(State(app): State<App>) -> Result<Json, Refusal> {
    let app = Arc::clone(&app);
    beside(move || {
        look(&app);
        let alerts = current(&app);
        let firing = alerts.iter().filter(|alert| alert.status == Status::Firing).count();
        let enabled = app.state.snapshot.load().config.alerts.enabled;
        let notifications = app.notifier.counts();
        Json(json!({
            "alerts": alerts, "firing": firing, "enabled": enabled, "notifications": notifications,
        }))
    })
    .await
}

/// All alerts, as they were at the last look.
pub(super) fn current(app: &Manage) -> Vec<Alert> {
    app.watch.lock().list()
}

async fn rules(State(app): State<App>) -> Json {
    let snapshot = app.state.snapshot.load();
    let settings = &snapshot.config.alerts;
    Json(json!({ "enabled": settings.enabled, "rules": alerts::all(settings) }))
}

/// What is to be tested.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    /// Place in `alerts.notify`; `None`: all.
    target: Option<usize>,
    /// Only say what would be sent.
    dry_run: bool,
}

/// `POST alerts/test`.
async fn test(State(app): State<App>, body: Bytes) -> Result<Json, Refusal> {
    let asked = if body.is_empty() { Ok(Asked::default()) } else { serde_json::from_slice(&body) };
    let asked = asked.map_err(|_| Refusal::bad("expected {\"target\": number, \"dry_run\": bool}"))?;
    let snapshot = app.state.snapshot.load_full();
    let known = &snapshot.config.alerts.notify;
    if let Some(wanted) = asked.target.filter(|wanted| *wanted >= known.len()) {
        let error = format!("there is no target {wanted}; alerts.notify has {}", known.len());
        return Err(Refusal::new(StatusCode::NOT_FOUND, error));
    }
    let alert = Arc::new(Alert::canary(app.state.now().wall_s));
    let is_meant = |index: usize| asked.target.is_none_or(|wanted| wanted == index);
    let meant = known.iter().enumerate().filter(|(index, _)| is_meant(*index));
    let told: Vec<Value> = if asked.dry_run {
        let shown = meant.map(|(index, target)| {
            let mut shown = shown(index, target);
            shown["would_send"] = notify::preview(target, &alert);
            shown
        });
        shown.collect()
    } else {
        let tried = meant.map(|(index, target)| try_one(&app, index, target, &alert));
        futures::future::join_all(tried).await
    };
    Ok(Json(json!({ "dry_run": asked.dry_run, "alert": *alert, "targets": told })))
}

fn shown(index: usize, target: &NotifyTarget) -> Value {
    json!({
        "index": index,
        "kind": notify::kind(target),
        "target": notify::describe(target),
        "min_severity": target.min_severity,
        "send_resolved": target.send_resolved,
    })
}

async fn try_one(app: &App, index: usize, target: &NotifyTarget, alert: &Arc<Alert>) -> Value {
    let begun = Instant::now();
    let told = tokio::time::timeout(TESTED, app.notifier.try_target(target, alert)).await;
    let error = match told {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(failed))) => Some(failed.reason),
        Ok(Err(_)) => Some("nobody delivers notifications now".to_owned()),
        Err(_) => Some(format!("it still waits in the queue after {} seconds", TESTED.as_secs())),
    };
    let mut shown = shown(index, target);
    shown["delivered"] = error.is_none().into();
    shown["error"] = error.into();
    shown["took_ms"] = (begun.elapsed().as_millis() as u64).into();
    shown
}

/// Looks at everything once and tells what changed.
pub(super) fn look(app: &Manage) {
    let now_s = app.state.now().wall_s;
    let snapshot = app.state.snapshot.load_full();
    let settings = &snapshot.config.alerts;
    let rules = alerts::in_force(settings);
    let standing = if rules.is_empty() { BTreeMap::new() } else { standing(app) };
    let mut counted: BTreeMap<(Scope, u64), BTreeMap<Arc<str>, Figures>> = BTreeMap::new();
    let mut alerts = app.watch.lock();
    let mut changes = alerts.retire(&rules, now_s);
    for rule in &rules {
        let seen = counted
            .entry((rule.scope, rule.window_s))
            .or_insert_with(|| figures(app, rule, &standing, now_s));
        changes.extend(alerts.look(rule, seen, now_s));
    }
    // Under the lock: what another look sees later is told later.
    for change in changes {
        log(&change);
        app.notifier.tell(&settings.notify, &change);
    }
}

/// What a rule is judged by.
fn figures(
    app: &Manage,
    rule: &Rule,
    standing: &BTreeMap<Arc<str>, Figures>,
    now_s: u64,
) -> BTreeMap<Arc<str>, Figures> {
    let mut seen = app.state.providers.figures(rule.scope, rule.window_s, now_s);
    if rule.scope == Scope::Providers {
        for (provider, known) in standing {
            let Figures { credentials, exhausted, models, .. } = *known;
            let figures = seen.entry(Arc::clone(provider)).or_default();
            *figures = Figures { credentials, exhausted, models, ..*figures };
        }
    }
    seen
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

fn log(change: &Change) {
    let alert = &change.alert;
    let (id, value, threshold) = (&alert.id, alert.current_value, alert.threshold);
    match change.now() {
        Severity::Fine => tracing::info!(alert = id, "alert resolved: {}", alert.title),
        Severity::Critical => {
            tracing::error!(alert = id, value, threshold, "alert critical: {}", alert.title);
        }
        _ => tracing::warn!(alert = id, value, threshold, "alert warning: {}", alert.title),
    }
}
