//! The rules, as data. Thresholds are those of the operators' runbooks.
//!
//! Enters: what the operator says of rules. Leaves: [`RULES`] with his changes, and the rules that are his own.
//! Nothing may go wrong: what he says was checked when it was loaded.

use super::{Alert, Figures, Severity, Status};
use config::{AlertMetric as Metric, AlertRule, AlertScope as Scope, Alerts as Settings, Threshold};
use serde::Serialize;
use std::sync::Arc;
use wildmatch::WildMatch;

/// Seconds of calm where nothing else is said.
const CALM_S: u64 = 60;
/// Calls that say something where nothing else is said.
const LEAST: u64 = 10;
/// Seconds that are counted where nothing else is said.
const WINDOW_S: u64 = 600;

/// A rule of the table below.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Its name.
    pub id: &'static str,
    title: &'static str,
    metric: Metric,
    scope: Scope,
    /// Subjects that it is about; empty: all.
    subjects: &'static [&'static str],
    warning: f64,
    critical: f64,
    window_s: u64,
    least: u64,
}

/// Where a rule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// It is as it is without an operator's word.
    BuiltIn,
    /// The operator changed it.
    Changed,
    /// It is the operator's own.
    Own,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// Its name.
    pub id: String,
    /// What its alerts say.
    pub title: String,
    /// What it is judged by.
    pub metric: Metric,
    /// About what.
    pub scope: Scope,
    /// Globs of subjects; empty: all.
    pub subjects: Vec<String>,
    /// Above this it is a warning.
    pub warning: f64,
    /// Above this it is critical; infinite: never.
    pub critical: f64,
    /// Seconds that the figures are counted over.
    #[serde(rename = "window_seconds")]
    pub window_s: u64,
    /// Fewest calls that say something.
    #[serde(rename = "min_requests")]
    pub least: u64,
    /// Seconds for which the figure has to be clearly below before the alert falls.
    #[serde(rename = "calm_seconds")]
    pub calm_s: u64,
    /// It is not judged.
    pub disabled: bool,
    /// Where it comes from.
    pub origin: Origin,
}

const fn preset(
    id: &'static str,
    title: &'static str,
    metric: Metric,
    scope: Scope,
    thresholds: (f64, f64),
) -> Preset {
    let (warning, critical) = thresholds;
    Preset { id, title, metric, scope, subjects: &[], warning, critical, window_s: WINDOW_S, least: LEAST }
}

/// All rules that are there without being set.
pub const RULES: [Preset; 9] = [
    preset(
        "rate-limit-ratio",
        "many calls are refused with 429",
        Metric::RateLimited,
        Scope::Providers,
        (0.05, 0.10),
    ),
    Preset {
        least: 0,
        ..preset(
            "quota-exhausted",
            "credentials are out of quota",
            Metric::Exhausted,
            Scope::Providers,
            (0.0, 0.99),
        )
    },
    preset("provider-error-ratio", "many calls fail", Metric::Errors, Scope::Providers, (0.05, 0.10)),
    Preset {
        subjects: &["*codex-spark*"],
        // An account that may not use it is asked once a day.
        least: 1,
        ..preset(
            "spark-error-ratio",
            "calls of the spark model fail",
            Metric::AnyError,
            Scope::Models,
            (0.02, 0.05),
        )
    },
    Preset {
        subjects: &["*image*", "*imagen*", "*banana*"],
        // A failed one rests for a minute, and few pictures are drawn.
        least: 3,
        window_s: 300,
        ..preset(
            "image-error-ratio",
            "calls of a model that draws fail",
            Metric::Errors,
            Scope::Models,
            (0.02, 0.05),
        )
    },
    Preset {
        least: 1,
        ..preset(
            "empty-content",
            "answers come without content",
            Metric::Empty,
            Scope::Providers,
            (0.0, 0.05),
        )
    },
    preset(
        "thinking-mismatch-ratio",
        "models think more or less than asked",
        Metric::ThinkingMismatch,
        Scope::Providers,
        (0.02, 0.05),
    ),
    preset(
        "reasoning-growth",
        "answers take more reasoning than the day before",
        Metric::ReasoningGrowth,
        Scope::Models,
        (0.25, 1.0),
    ),
    Preset {
        least: 0,
        ..preset("zero-models", "no model is served", Metric::ZeroModels, Scope::Providers, (0.0, 0.5))
    },
];

impl Preset {
    /// The rule as it is without an operator's word.
    pub fn to_rule(self) -> Rule {
        Rule {
            id: self.id.to_owned(),
            title: self.title.to_owned(),
            metric: self.metric,
            scope: self.scope,
            subjects: self.subjects.iter().map(|glob| (*glob).to_owned()).collect(),
            warning: self.warning,
            critical: self.critical,
            window_s: self.window_s,
            least: self.least,
            calm_s: CALM_S,
            disabled: false,
            origin: Origin::BuiltIn,
        }
    }
}

/// All rules with what the operator says of them, those included that are not judged.
pub fn all(settings: &Settings) -> Vec<Rule> {
    let said = |id: &str| settings.rules.iter().find(|said| said.id == id);
    let built_in = RULES.iter().map(|preset| match said(preset.id) {
        Some(said) => preset.to_rule().changed(said),
        None => preset.to_rule(),
    });
    let is_new = |said: &&AlertRule| RULES.iter().all(|preset| preset.id != said.id);
    built_in.chain(settings.rules.iter().filter(is_new).filter_map(Rule::own)).collect()
}

/// The rules that are judged.
pub fn in_force(settings: &Settings) -> Vec<Arc<Rule>> {
    if !settings.enabled {
        return Vec::new();
    }
    all(settings).into_iter().filter(|rule| !rule.disabled).map(Arc::new).collect()
}

impl Rule {
    /// A rule of the operator's own; `None`: it says not what it is judged by.
    fn own(said: &AlertRule) -> Option<Self> {
        let metric = said.metric?;
        let least = if metric.is_of_providers() { 0 } else { LEAST };
        let bare = Self {
            id: said.id.clone(),
            title: said.id.clone(),
            metric,
            scope: said.scope.unwrap_or_default(),
            subjects: Vec::new(),
            warning: f64::INFINITY,
            critical: f64::INFINITY,
            window_s: WINDOW_S,
            least,
            calm_s: CALM_S,
            disabled: false,
            origin: Origin::Own,
        };
        Some(Self { origin: Origin::Own, ..bare.changed(said) })
    }

    /// The rule with what the operator says of it.
    fn changed(self, said: &AlertRule) -> Self {
        let value = |threshold: Option<Threshold>| threshold.map(Threshold::value);
        let (warning, critical) = match (value(said.warning), value(said.critical)) {
            (None, None) => (self.warning, self.critical),
            (Some(warning), Some(critical)) => (warning, critical),
            // The one that is not said moves out of the way of the one that is.
            (Some(warning), None) => (warning, self.critical.max(warning)),
            (None, Some(critical)) => (self.warning.min(critical), critical),
        };
        let seconds = |said: Option<u32>, own: u64| said.map_or(own, u64::from);
        Self {
            title: if said.title.is_empty() { self.title } else { said.title.clone() },
            subjects: if said.subjects.is_empty() { self.subjects } else { said.subjects.clone() },
            warning,
            critical,
            window_s: seconds(said.window_seconds, self.window_s),
            least: said.min_requests.map_or(self.least, u64::from),
            calm_s: seconds(said.calm_seconds, self.calm_s),
            disabled: said.disabled,
            origin: Origin::Changed,
            ..self
        }
    }

    /// Whether a subject is one of its own.
    pub fn is_about(&self, subject: &str) -> bool {
        self.subjects.is_empty() || self.subjects.iter().any(|glob| WildMatch::new(glob).matches(subject))
    }

    /// Its figure; `None`: too little is known.
    pub fn value(&self, figures: &Figures) -> Option<f64> {
        if figures.requests < self.least {
            return None;
        }
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let calls = figures.requests;
        match self.metric {
            Metric::RateLimited => share(figures.rate_limited, calls),
            Metric::Errors => share(figures.errors, calls),
            Metric::AnyError => share(figures.errors + figures.rate_limited + figures.refused, calls),
            Metric::Exhausted => share(figures.exhausted, figures.credentials),
            Metric::Empty => share(figures.empty, calls),
            Metric::ThinkingMismatch => share(figures.thinking_mismatch, calls),
            Metric::ReasoningGrowth => {
                let (now, before) = (figures.reasoning, figures.reasoning_before);
                // Few answers have no mean worth comparing, neither now nor then.
                let known = now.answers() >= self.least && before.answers() >= self.least.max(1);
                (known && before.mean() > 0.0).then(|| now.mean() / before.mean() - 1.0)
            }
            Metric::ZeroModels => {
                let none = figures.models? == 0;
                (figures.credentials > 0).then(|| f64::from(u8::from(none)))
            }
        }
    }

    /// How bad a figure is.
    pub fn severity(&self, value: f64) -> Severity {
        if value > self.critical {
            Severity::Critical
        } else if value > self.warning {
            Severity::Warning
        } else {
            Severity::Fine
        }
    }

    pub(super) fn threshold(&self, severity: Severity) -> f64 {
        if severity == Severity::Critical { self.critical } else { self.warning }
    }

    pub(super) fn alert(&self, subject: &str, value: f64, severity: Severity, now_s: u64) -> Alert {
        let id = match self.metric {
            Metric::ZeroModels => format!("{subject}-{}", self.id),
            _ => self.id.clone(),
        };
        let of = |scope: Scope| (self.scope == scope).then(|| subject.to_owned());
        Alert {
            id,
            kind: kind(self.metric),
            severity,
            status: Status::Firing,
            title: format!("{subject}: {}", self.title),
            description: self.description(),
            metric_name: self.metric.name(),
            threshold: self.threshold(severity),
            current_value: value,
            subject: subject.to_owned(),
            provider: of(Scope::Providers),
            model_id: of(Scope::Models),
            started_at: now_s,
            resolved_at: None,
            created_at: now_s,
        }
    }

    fn description(&self) -> String {
        let name = self.metric.name();
        if self.metric.is_of_providers() {
            return format!("{name} as it is now; a warning above {}", self.warning);
        }
        let (window, least) = (self.window_s, self.least);
        let over = format!("{name} over the last {window} s, from {least} calls on");
        if self.critical.is_finite() {
            format!("{over}; a warning above {}, critical above {}", self.warning, self.critical)
        } else {
            format!("{over}; a warning above {}", self.warning)
        }
    }
}

/// The type of an alert, by the words of cliproxyapi++.
fn kind(metric: Metric) -> &'static str {
    match metric {
        Metric::RateLimited | Metric::Errors | Metric::AnyError | Metric::Empty => "error_rate",
        Metric::Exhausted => "quota",
        Metric::ReasoningGrowth => "cost",
        Metric::ThinkingMismatch | Metric::ZeroModels => "provider",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        config::load(format!("alerts: {{rules: [{text}]}}\n").as_bytes()).unwrap().config.alerts
    }

    fn rule(rules: &[Arc<Rule>], id: &str) -> Option<Rule> {
        rules.iter().find(|rule| rule.id == id).map(|rule| Rule::clone(rule))
    }

    #[test]
    fn the_table_is_the_one_that_the_configuration_knows() {
        assert_eq!(RULES.map(|rule| rule.id), config::ALERT_RULES);
        let plain = in_force(&Settings::default());
        assert_eq!(plain.len(), RULES.len());
        assert!(plain.iter().all(|rule| rule.origin == Origin::BuiltIn));
    }

    #[test]
    fn an_operator_changes_what_he_says_and_nothing_else() {
        let rules = in_force(&settings(
            "{id: rate-limit-ratio, warning: 20%}, {id: image-error-ratio, critical: 1%, window-seconds: 60, \
             subjects: ['flux*'], min-requests: 2, calm-seconds: 1}, {id: zero-models, disabled: true}",
        ));
        let limited = rule(&rules, "rate-limit-ratio").unwrap();
        assert_eq!((limited.warning, limited.critical), (0.2, 0.2), "critical is out of the way");
        assert_eq!((limited.window_s, limited.least, limited.origin), (600, 10, Origin::Changed));
        let image = rule(&rules, "image-error-ratio").unwrap();
        assert_eq!((image.warning, image.critical, image.window_s, image.least), (0.01, 0.01, 60, 2));
        assert!(image.is_about("flux-1") && !image.is_about("gpt-image-1") && image.calm_s == 1);
        assert!(rule(&rules, "zero-models").is_none());
        let off = Settings { enabled: false, ..Settings::default() };
        assert!(in_force(&off).is_empty() && all(&off).len() == RULES.len());
    }

    #[test]
    fn rules_of_the_operators_own_stand_behind_ours() {
        let rules = in_force(&settings(
            "{id: lab, metric: error_ratio, subjects: ['lab*'], critical: 50%}, {id: slow, metric: any_error_ratio, scope: models, warning: 1}",
        ));
        let lab = rule(&rules, "lab").unwrap();
        assert_eq!((lab.warning, lab.critical, lab.scope), (0.5, 0.5, Scope::Providers));
        assert_eq!((lab.origin, lab.title.as_str()), (Origin::Own, "lab"));
        assert_eq!(rule(&rules, "slow").unwrap().severity(9.0), Severity::Warning, "it is never critical");
    }

    #[test]
    fn rows_80_98_rules_about_models_pick_theirs() {
        let rules = in_force(&Settings::default());
        let spark = rule(&rules, "spark-error-ratio").unwrap();
        assert!(spark.is_about("gpt-5.3-codex-spark") && !spark.is_about("gpt-5.3-codex"));
        let three = Figures { requests: 100, refused: 3, ..Figures::default() };
        assert_eq!(spark.severity(spark.value(&three).unwrap()), Severity::Warning);
        let six = Figures { refused: 6, ..three };
        assert_eq!(spark.severity(spark.value(&six).unwrap()), Severity::Critical);
        let image = rule(&rules, "image-error-ratio").unwrap();
        assert!(image.is_about("gemini/image-preview") && image.is_about("gpt-image-1"));
        assert_eq!(image.window_s, 300);
    }

    #[test]
    fn rows_117_118_thinking() {
        use crate::observe::providers::Span;
        let rules = in_force(&Settings::default());
        let mismatch = rule(&rules, "thinking-mismatch-ratio").unwrap();
        let figures = Figures { requests: 100, thinking_mismatch: 3, ..Figures::default() };
        assert_eq!(mismatch.severity(mismatch.value(&figures).unwrap()), Severity::Warning);
        let growth = rule(&rules, "reasoning-growth").unwrap();
        let figures = Figures {
            requests: 100,
            reasoning: Span::new(13_000, 100),
            reasoning_before: Span::new(5000, 50),
            ..Figures::default()
        };
        assert_eq!(growth.severity(growth.value(&figures).unwrap()), Severity::Warning);
        for (now, before) in [((13_000, 100), (0, 0)), ((13_000, 100), (900, 9)), ((1300, 9), (5000, 50))] {
            let few = Figures {
                reasoning: Span::new(now.0, now.1),
                reasoning_before: Span::new(before.0, before.1),
                ..figures
            };
            assert_eq!(growth.value(&few), None, "{now:?} {before:?} say too little");
        }
    }
}
