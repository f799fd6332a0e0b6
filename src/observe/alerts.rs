//! When an operator should look: rules over what was counted lately.
//!
//! Enters: [`Figures`] of providers and models over the windows of the rules, and the time. Leaves: alerts
//! with their state, and the [`Change`]s since the last look, for notifications. Nothing may go wrong.
//!
//! An alert rises as soon as its figure is above a threshold. It falls when the figure has been clearly below
//! for [`Rule::calm_s`], so that a figure that sways around a threshold is told once. Where the rule itself was
//! changed, its alerts are judged anew, without that wait.

mod rules;

pub use rules::{Origin, RULES, Rule, all, in_force};

use crate::observe::providers::Span;
use config::AlertSeverity;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A figure has to fall below this share of a threshold before the alert may fall.
const CLEARLY: f64 = 0.8;
/// Seconds for which alerts that are over are still shown.
const SHOWN_AFTER_S: u64 = 3600;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// All is well.
    Fine,
    /// Good to know.
    Info,
    /// Worth a look.
    Warning,
    /// Clients suffer.
    Critical,
}

impl Severity {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl From<AlertSeverity> for Severity {
    fn from(severity: AlertSeverity) -> Self {
        match severity {
            AlertSeverity::Info => Self::Info,
            AlertSeverity::Warning => Self::Warning,
            AlertSeverity::Critical => Self::Critical,
        }
    }
}

/// Whether it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is not.
    Firing,
    /// It is.
    Resolved,
}

impl Status {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// What was counted about a provider or a model within a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Calls to upstreams that ended.
    pub requests: u64,
    /// Of these: refused with 429.
    pub rate_limited: u64,
    /// Of these: failed otherwise, by status 5xx, connection or time.
    pub errors: u64,
    /// Of these: refused with 400, 403 or 404, as models are that an account may not use.
    pub refused: u64,
    /// Of these: answers without content.
    pub empty: u64,
    /// Of these: thought more or less than was asked for.
    pub thinking_mismatch: u64,
    /// Reasoning now.
    pub reasoning: Span,
    /// Reasoning over the last day, without the hour that runs.
    pub reasoning_before: Span,
    /// Credentials.
    pub credentials: u64,
    /// Of these: out of quota now.
    pub exhausted: u64,
    /// Models that are served; `None`: not known, or not about a provider.
    pub models: Option<u64>,
}

/// An alert, in the shape of cliproxyapi++. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alert {
    /// Its rule; rules about one thing of a provider carry the provider's name: `antigravity-zero-models`.
    pub id: String,
    /// What it is about: `error_rate`, `cost`, `provider`, `quota`, `info`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// How bad it is, or was at its worst once it is over.
    pub severity: Severity,
    /// Whether it is over.
    pub status: Status,
    /// What it says.
    pub title: String,
    /// How it is judged.
    pub description: String,
    /// Name of the figure.
    pub metric_name: &'static str,
    /// The threshold that was passed.
    pub threshold: f64,
    /// The figure now.
    pub current_value: f64,
    /// About whom: a provider or a model.
    pub subject: String,
    /// The provider, where it is about one.
    pub provider: Option<String>,
    /// The model, where it is about one.
    pub model_id: Option<String>,
    /// When it rose.
    pub started_at: u64,
    /// When it fell.
    pub resolved_at: Option<u64>,
    /// When it was first seen; it may have been over in between.
    pub created_at: u64,
}

impl Alert {
    /// An alert about nothing, to try those who are told.
    pub fn canary(now_s: u64) -> Self {
        Self {
            id: "canary".to_owned(),
            kind: "info",
            severity: Severity::Info,
            status: Status::Firing,
            title: "cliproxy: a test of notifications".to_owned(),
            description: "somebody asked for it; nothing is wrong".to_owned(),
            metric_name: "canary",
            threshold: 0.0,
            current_value: 0.0,
            subject: "cliproxy".to_owned(),
            provider: None,
            model_id: None,
            started_at: now_s,
            resolved_at: None,
            created_at: now_s,
        }
    }
}

/// What happened to an alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What it was before.
    pub before: Severity,
    /// The alert as it is now.
    pub alert: Alert,
}

impl Change {
    /// How bad it is now.
    pub fn now(&self) -> Severity {
        if self.alert.status == Status::Resolved { Severity::Fine } else { self.alert.severity }
    }
}

#[derive(Clone, Debug)]
struct State {
    /// The rule that it was judged by last.
    rule: Arc<Rule>,
    alert: Alert,
    now: Severity,
    /// Since when the figure is clearly below.
    calm_since: Option<u64>,
}

impl State {
    /// It is less bad from now on.
    fn fall(&mut self, to: Severity, now_s: u64) -> Change {
        self.calm_since = None;
        let before = std::mem::replace(&mut self.now, to);
        if to == Severity::Fine {
            self.alert.status = Status::Resolved;
            self.alert.resolved_at = Some(now_s);
        } else {
            self.alert.severity = to;
            self.alert.threshold = self.rule.threshold(to);
        }
        Change { before, alert: self.alert.clone() }
    }

    /// The rule was changed: what it was before counts no more.
    fn judge_anew(&mut self, subject: &str, value: f64, risen: Severity, now_s: u64) -> Option<Change> {
        if self.now == Severity::Fine {
            return None;
        }
        if risen < self.now {
            return Some(self.fall(risen, now_s));
        }
        let Alert { started_at, created_at, .. } = self.alert;
        self.alert = Alert { started_at, created_at, ..self.rule.alert(subject, value, risen, now_s) };
        self.calm_since = None;
        None
    }
}

/// All alerts.
#[derive(Debug, Default)]
pub struct Alerts {
    states: BTreeMap<(String, String), State>,
}

impl Alerts {
    /// Takes a look. `seen` is what was counted, by subject. Subjects that are not seen any more are calm.
    pub fn look(&mut self, rule: &Arc<Rule>, seen: &BTreeMap<Arc<str>, Figures>, now_s: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        for (subject, figures) in seen.iter().filter(|(subject, _)| rule.is_about(subject)) {
            let value = rule.value(figures);
            changes.extend(self.judge(rule, subject, value, now_s));
        }
        let is_unseen = |subject: &str| !seen.contains_key(subject) || !rule.is_about(subject);
        let unseen: Vec<String> = self
            .states
            .keys()
            .filter(|(id, subject)| *id == rule.id && is_unseen(subject))
            .map(|(_, subject)| subject.clone())
            .collect();
        for subject in unseen {
            changes.extend(self.judge(rule, &subject, None, now_s));
        }
        changes
    }

    /// Ends alerts of rules that are not judged any more, and forgets what was over long ago.
    pub fn retire(&mut self, rules: &[Arc<Rule>], now_s: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        for ((id, _), state) in &mut self.states {
            if state.now != Severity::Fine && rules.iter().all(|rule| rule.id != *id) {
                changes.push(state.fall(Severity::Fine, now_s));
            }
        }
        self.states.retain(|_, state| {
            state.alert.resolved_at.is_none_or(|at| now_s.saturating_sub(at) < SHOWN_AFTER_S)
        });
        changes
    }

    fn judge(&mut self, rule: &Arc<Rule>, subject: &str, value: Option<f64>, now_s: u64) -> Option<Change> {
        let key = (rule.id.clone(), subject.to_owned());
        let risen = value.map_or(Severity::Fine, |value| rule.severity(value));
        let value_now = value.unwrap_or(0.0);
        let Some(state) = self.states.get_mut(&key) else {
            if risen == Severity::Fine {
                return None;
            }
            let alert = rule.alert(subject, value_now, risen, now_s);
            let state = State { rule: Arc::clone(rule), alert: alert.clone(), now: risen, calm_since: None };
            self.states.insert(key, state);
            return Some(Change { before: Severity::Fine, alert });
        };
        let anew = *state.rule != **rule;
        state.rule = Arc::clone(rule);
        state.alert.current_value = value_now;
        if risen > state.now {
            let before = std::mem::replace(&mut state.now, risen);
            let started_at = if before == Severity::Fine { now_s } else { state.alert.started_at };
            let created_at = state.alert.created_at;
            state.alert = Alert { started_at, created_at, ..rule.alert(subject, value_now, risen, now_s) };
            state.calm_since = None;
            return Some(Change { before, alert: state.alert.clone() });
        }
        if anew {
            return state.judge_anew(subject, value_now, risen, now_s);
        }
        let calm = value.map_or(Severity::Fine, |value| rule.severity(value / CLEARLY));
        if calm >= state.now {
            state.calm_since = None;
            return None;
        }
        let since = *state.calm_since.get_or_insert(now_s);
        (now_s.saturating_sub(since) >= rule.calm_s).then(|| state.fall(calm, now_s))
    }

    /// Those that fire, the worst first, then those that were over lately.
    pub fn list(&self) -> Vec<Alert> {
        let mut list: Vec<Alert> = self.states.values().map(|state| state.alert.clone()).collect();
        list.sort_by_key(|alert| (alert.resolved_at.is_some(), std::cmp::Reverse(alert.severity)));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str) -> Arc<Rule> {
        Arc::new(RULES.iter().find(|rule| rule.id == id).unwrap().to_rule())
    }

    fn seen(subject: &str, figures: Figures) -> BTreeMap<Arc<str>, Figures> {
        BTreeMap::from([(Arc::from(subject), figures)])
    }

    fn limited(of: u64) -> Figures {
        Figures { requests: 1000, rate_limited: of, ..Figures::default() }
    }

    #[test]
    fn row_29_rises_at_once_and_falls_when_it_was_calm_for_a_while() {
        use Severity::{Critical, Fine, Warning};
        use Status::{Firing, Resolved};
        let rule = rule("rate-limit-ratio");
        let mut alerts = Alerts::default();
        let mut look = |of: u64, at: u64| {
            alerts
                .look(&rule, &seen("iflow", limited(of)), at)
                .pop()
                .map(|change| (change.before, change.alert.severity, change.alert.status))
        };
        assert_eq!(look(50, 0), None, "5 % is not above 5 %");
        assert_eq!(look(51, 10), Some((Fine, Warning, Firing)));
        assert_eq!(look(60, 20), None, "told once");
        assert_eq!(look(101, 30), Some((Warning, Critical, Firing)));
        assert_eq!(look(95, 40), None, "it sways");
        assert_eq!(look(60, 50), None);
        assert_eq!(look(60, 50 + rule.calm_s), Some((Critical, Warning, Firing)));
        assert_eq!(look(45, 500), None, "not clearly below");
        assert_eq!(look(10, 510), None);
        assert_eq!(look(45, 520), None, "the calm is over");
        assert_eq!(look(10, 600), None);
        assert_eq!(look(10, 600 + rule.calm_s), Some((Warning, Warning, Resolved)));
        assert_eq!(look(70, 800), Some((Fine, Warning, Firing)), "it may rise again");
    }

    #[test]
    fn few_requests_say_nothing() {
        let rule = rule("rate-limit-ratio");
        let mut alerts = Alerts::default();
        let few = Figures { requests: 3, rate_limited: 3, ..Figures::default() };
        assert!(alerts.look(&rule, &seen("p", few), 0).is_empty());
    }

    #[test]
    fn row_70_a_provider_without_models_is_told_by_its_name() {
        let rule = rule("zero-models");
        let mut alerts = Alerts::default();
        let with = |models: Option<u64>| {
            seen("antigravity", Figures { models, credentials: 1, ..Figures::default() })
        };
        assert!(alerts.look(&rule, &with(None), 6).is_empty(), "it is not known yet");
        let change = alerts.look(&rule, &with(Some(0)), 7).pop().unwrap();
        assert_eq!(change.alert.id, "antigravity-zero-models");
        alerts.look(&rule, &with(Some(3)), 8);
        alerts.look(&rule, &with(Some(3)), 8 + rule.calm_s);
        let list = alerts.list();
        assert_eq!((list.len(), list[0].status), (1, Status::Resolved));
        alerts.retire(&[rule], 10_000);
        assert!(alerts.list().is_empty());
    }

    #[test]
    fn who_is_not_seen_any_more_is_calm() {
        let rule = rule("provider-error-ratio");
        let mut alerts = Alerts::default();
        let broken = Figures { requests: 100, errors: 100, ..Figures::default() };
        assert_eq!(alerts.look(&rule, &seen("gone", broken), 0).len(), 1);
        alerts.look(&rule, &BTreeMap::new(), 1);
        let fallen = alerts.look(&rule, &BTreeMap::new(), 1 + rule.calm_s);
        assert_eq!(fallen[0].alert.status, Status::Resolved);
    }

    #[test]
    fn a_changed_rule_is_judged_anew_and_an_unchanged_one_goes_on() {
        let plain = rule("rate-limit-ratio");
        let with = |warning: f64, critical: f64| Arc::new(Rule { warning, critical, ..Rule::clone(&plain) });
        let mut alerts = Alerts::default();
        let now = seen("p", limited(60));
        assert_eq!(alerts.look(&plain, &now, 100).len(), 1);
        assert!(alerts.look(&Arc::new(Rule::clone(&plain)), &now, 200).is_empty(), "only read again");
        assert!(alerts.look(&with(0.04, 0.5), &now, 300).is_empty(), "it is a warning as before");
        let shown = &alerts.list()[0];
        assert_eq!((shown.started_at, shown.threshold), (100, 0.04));
        let worse = alerts.look(&with(0.01, 0.05), &now, 301).pop().unwrap();
        assert_eq!((worse.before, worse.now()), (Severity::Warning, Severity::Critical));
        let over = alerts.look(&with(0.5, 0.9), &now, 302).pop().unwrap();
        assert_eq!((over.now(), over.alert.resolved_at), (Severity::Fine, Some(302)), "without a wait");
    }

    #[test]
    fn a_rule_that_is_switched_off_ends_its_alerts() {
        let rule = rule("rate-limit-ratio");
        let mut alerts = Alerts::default();
        alerts.look(&rule, &seen("p", limited(60)), 1);
        assert!(alerts.retire(&[Arc::clone(&rule)], 2).is_empty());
        assert_eq!(alerts.retire(&[], 3)[0].alert.status, Status::Resolved);
        assert!(alerts.retire(&[], 4).is_empty());
        assert_eq!(alerts.look(&rule, &seen("p", limited(60)), 5).len(), 1, "it may come back");
    }
}
