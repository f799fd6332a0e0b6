//! The rules, as data. Thresholds are those of the operators' runbooks.
//!
//! Enters: nothing. Leaves: [`RULES`], which an operator may change one by one. Nothing may go wrong.

use super::{Alert, Figures, Severity};
use wildmatch::WildMatch;

/// What a rule is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Share of calls that were refused with 429.
    RateLimited,
    /// Share of calls that failed by the upstream.
    Errors,
    /// Share of calls that failed in any way, refusals of the model included.
    AnyError,
    /// Share of credentials that are out of quota.
    Exhausted,
    /// Share of answers without content.
    Empty,
    /// Share of answers that thought more or less than was asked for.
    ThinkingMismatch,
    /// By how much reasoning per answer has grown.
    ReasoningGrowth,
    /// 1 where a provider with credentials serves no model.
    ZeroModels,
}

/// What the subjects of a rule are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Providers.
    Providers,
    /// The upstreams' models.
    Models,
}

/// A rule of the table below.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Its name.
    pub id: &'static str,
    title: &'static str,
    figure: Figure,
    subject: Subject,
    /// Subjects that it is about; empty: all.
    about: &'static [&'static str],
    warning: f64,
    critical: f64,
    window_s: u64,
    least: u64,
}

/// A rule in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name.
    pub id: String,
    /// What its alerts say.
    pub title: String,
    /// What it is judged by.
    pub figure: Figure,
    /// About what.
    pub subject: Subject,
    /// Globs of subjects; empty: all.
    pub about: Vec<String>,
    /// Above this it is a warning.
    pub warning: f64,
    /// Above this it is critical.
    pub critical: f64,
    /// Seconds that the figures are counted over.
    pub window_s: u64,
    /// Fewest calls that say something.
    pub least: u64,
    /// Seconds for which the figure has to be clearly below before the alert falls.
    pub calm_s: u64,
}

const fn preset(
    id: &'static str,
    title: &'static str,
    figure: Figure,
    subject: Subject,
    thresholds: (f64, f64),
) -> Preset {
    let (warning, critical) = thresholds;
    Preset { id, title, figure, subject, about: &[], warning, critical, window_s: 600, least: 10 }
}

/// All rules.
pub const RULES: [Preset; 9] = [
    preset(
        "rate-limit-ratio",
        "many calls are refused with 429",
        Figure::RateLimited,
        Subject::Providers,
        (0.05, 0.10),
    ),
    Preset {
        least: 0,
        ..preset(
            "quota-exhausted",
            "credentials are out of quota",
            Figure::Exhausted,
            Subject::Providers,
            (0.0, 0.99),
        )
    },
    preset("provider-error-ratio", "many calls fail", Figure::Errors, Subject::Providers, (0.05, 0.10)),
    Preset {
        about: &["*codex-spark*"],
        ..preset(
            "spark-error-ratio",
            "calls of the spark model fail",
            Figure::AnyError,
            Subject::Models,
            (0.02, 0.05),
        )
    },
    Preset {
        about: &["*image*", "*imagen*", "*banana*"],
        window_s: 300,
        ..preset(
            "image-error-ratio",
            "calls of a model that draws fail",
            Figure::Errors,
            Subject::Models,
            (0.02, 0.05),
        )
    },
    Preset {
        least: 1,
        ..preset(
            "empty-content",
            "answers come without content",
            Figure::Empty,
            Subject::Providers,
            (0.0, 0.05),
        )
    },
    preset(
        "thinking-mismatch-ratio",
        "models think more or less than asked",
        Figure::ThinkingMismatch,
        Subject::Providers,
        (0.02, 0.05),
    ),
    preset(
        "reasoning-growth",
        "answers take more reasoning than the day before",
        Figure::ReasoningGrowth,
        Subject::Models,
        (0.25, 1.0),
    ),
    Preset {
        least: 0,
        ..preset("zero-models", "no model is served", Figure::ZeroModels, Subject::Providers, (0.0, 0.5))
    },
];

impl Preset {
    /// The rule as it is without an operator's word.
    pub fn to_rule(self) -> Rule {
        Rule {
            id: self.id.to_owned(),
            title: self.title.to_owned(),
            figure: self.figure,
            subject: self.subject,
            about: self.about.iter().map(|glob| (*glob).to_owned()).collect(),
            warning: self.warning,
            critical: self.critical,
            window_s: self.window_s,
            least: self.least,
            calm_s: 60,
        }
    }
}

impl Rule {
    /// Whether a subject is one of its own.
    pub fn is_about(&self, subject: &str) -> bool {
        self.about.is_empty() || self.about.iter().any(|glob| WildMatch::new(glob).matches(subject))
    }

    /// Its figure; `None`: too little is known.
    pub fn value(&self, figures: &Figures) -> Option<f64> {
        if figures.requests < self.least {
            return None;
        }
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let calls = figures.requests;
        match self.figure {
            Figure::RateLimited => share(figures.rate_limited, calls),
            Figure::Errors => share(figures.errors, calls),
            Figure::AnyError => share(figures.errors + figures.rate_limited + figures.refused, calls),
            Figure::Exhausted => share(figures.exhausted, figures.credentials),
            Figure::Empty => share(figures.empty, calls),
            Figure::ThinkingMismatch => share(figures.thinking_mismatch, calls),
            Figure::ReasoningGrowth => {
                (figures.reasoning_before > 0.0).then(|| figures.reasoning / figures.reasoning_before - 1.0)
            }
            Figure::ZeroModels => {
                (figures.credentials > 0).then(|| f64::from(u8::from(figures.models == Some(0))))
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
        let id = match self.figure {
            Figure::ZeroModels => format!("{subject}-{}", self.id),
            _ => self.id.clone(),
        };
        Alert {
            id,
            severity,
            status: "firing",
            title: format!("{subject}: {}", self.title),
            metric_name: self.figure.name(),
            threshold: self.threshold(severity),
            current_value: value,
            subject: subject.to_owned(),
            started_at: now_s,
            resolved_at: None,
        }
    }
}

impl Figure {
    /// Its name in alerts.
    pub fn name(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limit_ratio",
            Self::Errors | Self::AnyError => "error_ratio",
            Self::Exhausted => "quota_exhausted_ratio",
            Self::Empty => "empty_content_ratio",
            Self::ThinkingMismatch => "thinking_mismatch_ratio",
            Self::ReasoningGrowth => "reasoning_growth",
            Self::ZeroModels => "zero_models",
        }
    }
}
