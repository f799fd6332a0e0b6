//! When an operator should look: rules over what was counted lately.
//!
//! Enters: [`Figures`] of providers and models over the windows of the rules, and the time. Leaves: alerts
//! with their state, and the [`Change`]s since the last look, for notifications. Nothing may go wrong.
//!
//! An alert rises as soon as its figure is above a threshold. It falls when the figure has been clearly below
//! for [`Rule::calm_s`], so that a figure that sways around a threshold is told once.

mod rules;

pub use rules::{Figure, RULES, Rule, Subject};

use serde::Serialize;
use std::collections::BTreeMap;

/// A figure has to fall below this share of a threshold before the alert may fall.
const CLEARLY: f64 = 0.8;
/// Alerts that are over and still shown.
const SHOWN_AFTER_S: u64 = 3600;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// All is well.
    Fine,
    /// Worth a look.
    Warning,
    /// Clients suffer.
    Critical,
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
    /// Reasoning tokens per answer now.
    pub reasoning: f64,
    /// Reasoning tokens per answer over the last day; 0: unknown.
    pub reasoning_before: f64,
    /// Credentials.
    pub credentials: u64,
    /// Of these: out of quota now.
    pub exhausted: u64,
    /// Models that are served; `None`: not about a provider.
    pub models: Option<u64>,
}

/// An alert.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alert {
    /// Its rule; rules about one thing of a provider carry the provider's name: `antigravity-zero-models`.
    pub id: String,
    /// How bad it is, or was at its worst once it is over.
    pub severity: Severity,
    /// `firing` or `resolved`.
    pub status: &'static str,
    /// What it says.
    pub title: String,
    /// Name of the figure.
    pub metric_name: &'static str,
    /// The threshold that was passed.
    pub threshold: f64,
    /// The figure now.
    pub current_value: f64,
    /// About whom: a provider or a model.
    pub subject: String,
    /// Seconds since 1970 when it rose.
    pub started_at: u64,
    /// When it fell.
    pub resolved_at: Option<u64>,
}

/// What happened to an alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What it was before.
    pub before: Severity,
    /// The alert as it is now.
    pub alert: Alert,
}

#[derive(Clone, Debug)]
struct State {
    alert: Alert,
    now: Severity,
    /// Since when the figure is clearly below.
    calm_since: Option<u64>,
}

/// All alerts.
#[derive(Debug, Default)]
pub struct Alerts {
    states: BTreeMap<(String, String), State>,
}

impl Alerts {
    /// Takes a look. `seen` are the figures that a rule is judged by: subjects and what was counted of them.
    /// Subjects that are not seen any more are calm.
    pub fn look<'s>(
        &mut self,
        rule: &Rule,
        seen: impl Iterator<Item = (&'s str, Figures)>,
        now_s: u64,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut looked_at = Vec::new();
        for (subject, figures) in seen.filter(|(subject, _)| rule.is_about(subject)) {
            let value = rule.value(&figures);
            changes.extend(self.judge(rule, subject, value, now_s));
            looked_at.push(subject.to_owned());
        }
        let unseen: Vec<String> = self
            .states
            .keys()
            .filter(|(id, subject)| *id == rule.id && !looked_at.contains(subject))
            .map(|(_, subject)| subject.clone())
            .collect();
        for subject in unseen {
            changes.extend(self.judge(rule, &subject, None, now_s));
        }
        changes
    }

    fn judge(&mut self, rule: &Rule, subject: &str, value: Option<f64>, now_s: u64) -> Option<Change> {
        let key = (rule.id.clone(), subject.to_owned());
        let risen = value.map_or(Severity::Fine, |value| rule.severity(value));
        let Some(state) = self.states.get_mut(&key) else {
            if risen == Severity::Fine {
                return None;
            }
            let alert = rule.alert(subject, value.unwrap_or(0.0), risen, now_s);
            self.states.insert(key, State { alert: alert.clone(), now: risen, calm_since: None });
            return Some(Change { before: Severity::Fine, alert });
        };
        state.alert.current_value = value.unwrap_or(0.0);
        if risen > state.now {
            let before = std::mem::replace(&mut state.now, risen);
            let started_at = if before == Severity::Fine { now_s } else { state.alert.started_at };
            state.alert = Alert { started_at, ..rule.alert(subject, value.unwrap_or(0.0), risen, now_s) };
            state.calm_since = None;
            return Some(Change { before, alert: state.alert.clone() });
        }
        let calm = value.map_or(Severity::Fine, |value| rule.severity(value / CLEARLY));
        if calm >= state.now {
            state.calm_since = None;
            return None;
        }
        let since = *state.calm_since.get_or_insert(now_s);
        if now_s.saturating_sub(since) < rule.calm_s {
            return None;
        }
        state.calm_since = None;
        let before = std::mem::replace(&mut state.now, calm);
        if calm == Severity::Fine {
            state.alert.status = "resolved";
            state.alert.resolved_at = Some(now_s);
        } else {
            state.alert.severity = calm;
            state.alert.threshold = rule.threshold(calm);
        }
        Some(Change { before, alert: state.alert.clone() })
    }

    /// Those that fire, the worst first, then those that were over lately. Forgets older ones.
    pub fn list(&mut self, now_s: u64) -> Vec<Alert> {
        self.states.retain(|_, state| {
            state.alert.resolved_at.is_none_or(|at| now_s.saturating_sub(at) < SHOWN_AFTER_S)
        });
        let mut list: Vec<Alert> = self.states.values().map(|state| state.alert.clone()).collect();
        list.sort_by_key(|alert| (alert.resolved_at.is_some(), std::cmp::Reverse(alert.severity)));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str) -> Rule {
        RULES.iter().find(|rule| rule.id == id).unwrap().to_rule()
    }

    fn limited(of: u64) -> Figures {
        Figures { requests: 1000, rate_limited: of, ..Figures::default() }
    }

    #[test]
    fn row_29_rises_at_once_and_falls_when_it_was_calm_for_a_while() {
        use Severity::{Critical, Fine, Warning};
        let rule = rule("rate-limit-ratio");
        let mut alerts = Alerts::default();
        let mut look = |of: u64, at: u64| {
            alerts
                .look(&rule, [("iflow", limited(of))].into_iter(), at)
                .pop()
                .map(|change| (change.before, change.alert.severity, change.alert.status))
        };
        assert_eq!(look(50, 0), None, "5 % is not above 5 %");
        assert_eq!(look(51, 10), Some((Fine, Warning, "firing")));
        assert_eq!(look(60, 20), None, "told once");
        assert_eq!(look(101, 30), Some((Warning, Critical, "firing")));
        assert_eq!(look(95, 40), None, "it sways");
        assert_eq!(look(60, 50), None);
        assert_eq!(look(60, 50 + rule.calm_s), Some((Critical, Warning, "firing")));
        assert_eq!(look(45, 500), None, "not clearly below");
        assert_eq!(look(10, 510), None);
        assert_eq!(look(45, 520), None, "the calm is over");
        assert_eq!(look(10, 600), None);
        assert_eq!(look(10, 600 + rule.calm_s), Some((Warning, Warning, "resolved")));
        assert_eq!(look(70, 800), Some((Fine, Warning, "firing")), "it may rise again");
    }

    #[test]
    fn few_requests_say_nothing() {
        let rule = rule("rate-limit-ratio");
        let mut alerts = Alerts::default();
        let few = Figures { requests: 3, rate_limited: 3, ..Figures::default() };
        assert!(alerts.look(&rule, [("p", few)].into_iter(), 0).is_empty());
    }

    #[test]
    fn row_70_a_provider_without_models_is_told_by_its_name() {
        let rule = rule("zero-models");
        let mut alerts = Alerts::default();
        let none = Figures { models: Some(0), credentials: 1, ..Figures::default() };
        let change = alerts.look(&rule, [("antigravity", none)].into_iter(), 7).pop().unwrap();
        assert_eq!(change.alert.id, "antigravity-zero-models");
        let some = Figures { models: Some(3), credentials: 1, ..Figures::default() };
        alerts.look(&rule, [("antigravity", some)].into_iter(), 8);
        alerts.look(&rule, [("antigravity", some)].into_iter(), 8 + rule.calm_s);
        let list = alerts.list(8 + rule.calm_s);
        assert_eq!((list.len(), list[0].status), (1, "resolved"));
        assert!(alerts.list(10_000).is_empty());
    }

    #[test]
    fn who_is_not_seen_any_more_is_calm() {
        let rule = rule("provider-error-ratio");
        let mut alerts = Alerts::default();
        let broken = Figures { requests: 100, errors: 100, ..Figures::default() };
        assert_eq!(alerts.look(&rule, [("gone", broken)].into_iter(), 0).len(), 1);
        alerts.look(&rule, std::iter::empty(), 1);
        let fallen = alerts.look(&rule, std::iter::empty(), 1 + rule.calm_s);
        assert_eq!(fallen[0].alert.status, "resolved");
    }

    #[test]
    fn rows_80_98_rules_about_models_pick_theirs() {
        let spark = rule("spark-error-ratio");
        assert!(spark.is_about("gpt-5.3-codex-spark") && !spark.is_about("gpt-5.3-codex"));
        let three = Figures { requests: 100, refused: 3, ..Figures::default() };
        assert_eq!(spark.severity(spark.value(&three).unwrap()), Severity::Warning);
        let six = Figures { refused: 6, ..three };
        assert_eq!(spark.severity(spark.value(&six).unwrap()), Severity::Critical);
        let image = rule("image-error-ratio");
        assert!(image.is_about("gemini/image-preview") && image.is_about("gpt-image-1"));
        assert_eq!(image.window_s, 300);
    }

    #[test]
    fn rows_117_118_thinking() {
        let mismatch = rule("thinking-mismatch-ratio");
        let figures = Figures { requests: 100, thinking_mismatch: 3, ..Figures::default() };
        assert_eq!(mismatch.severity(mismatch.value(&figures).unwrap()), Severity::Warning);
        let growth = rule("reasoning-growth");
        let figures =
            Figures { requests: 100, reasoning: 130.0, reasoning_before: 100.0, ..Figures::default() };
        assert_eq!(growth.severity(growth.value(&figures).unwrap()), Severity::Warning);
        assert_eq!(growth.value(&Figures { reasoning_before: 0.0, ..figures }), None, "no baseline yet");
    }
}
