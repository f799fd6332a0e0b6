//! What is watched, and who is told when something goes wrong.
//!
//! Enters: `alerts`. Leaves: [`Alerts`]: changes to the rules that are there without being set, rules of the
//! operator's own, and targets of notifications. May go wrong: a threshold that is no number, an address that
//! cannot be used; what is only incomplete is left out by [`crate::check`], with a warning.

use crate::endpoint::absolute;
use crate::header::Headers;
use crate::proxy::ProxySetting;
use crate::read::{quoted, word};
use crate::secret::{MASK, Secret};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use url::Url;

/// Rules that are there without being set, by id.
pub const ALERT_RULES: [&str; 9] = [
    "rate-limit-ratio",
    "quota-exhausted",
    "provider-error-ratio",
    "spark-error-ratio",
    "image-error-ratio",
    "empty-content",
    "thinking-mismatch-ratio",
    "reasoning-growth",
    "zero-models",
];

/// `alerts`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Alerts {
    /// Judge the rules at all.
    pub enabled: bool,
    /// Changes to rules that are there, and further rules.
    pub rules: Vec<AlertRule>,
    /// Who is told.
    pub notify: Vec<NotifyTarget>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self { enabled: true, rules: Vec::new(), notify: Vec::new() }
    }
}

/// What is said of a rule. What is `None` or empty stays as the rule has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct AlertRule {
    /// Its name: one of [`ALERT_RULES`], or a new one.
    pub id: String,
    /// Do not judge it.
    pub disabled: bool,
    /// What its alerts say.
    pub title: String,
    /// What a rule of the operator's own is judged by.
    pub metric: Option<AlertMetric>,
    /// What a rule of the operator's own is about; `None`: providers.
    pub scope: Option<AlertScope>,
    /// Patterns of names that it is about; `*` stands for anything.
    pub subjects: Vec<String>,
    /// Above this it is a warning.
    pub warning: Option<Threshold>,
    /// Above this it is critical.
    pub critical: Option<Threshold>,
    /// Seconds that are counted: 60 to 3600.
    pub window_seconds: Option<u32>,
    /// Fewest calls that say something.
    pub min_requests: Option<u32>,
    /// Seconds for which the figure has to be clearly below before the alert is over.
    pub calm_seconds: Option<u32>,
}

/// A figure that rules are judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AlertMetric {
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
    /// By how much reasoning per answer has grown against the last day: 0.25 is a quarter more.
    ReasoningGrowth,
    /// 1 where a provider with credentials serves no model.
    ZeroModels,
}

impl AlertMetric {
    /// All figures.
    pub const ALL: [Self; 8] = [
        Self::RateLimited,
        Self::Errors,
        Self::AnyError,
        Self::Exhausted,
        Self::Empty,
        Self::ThinkingMismatch,
        Self::ReasoningGrowth,
        Self::ZeroModels,
    ];

    /// Its name, in the file and in alerts.
    pub fn name(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limit_ratio",
            Self::Errors => "error_ratio",
            Self::AnyError => "any_error_ratio",
            Self::Exhausted => "quota_exhausted_ratio",
            Self::Empty => "empty_content_ratio",
            Self::ThinkingMismatch => "thinking_mismatch_ratio",
            Self::ReasoningGrowth => "reasoning_growth",
            Self::ZeroModels => "zero_models",
        }
    }

    /// Whether it is known of providers only.
    pub fn is_of_providers(self) -> bool {
        matches!(self, Self::Exhausted | Self::ZeroModels)
    }
}

impl Serialize for AlertMetric {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for AlertMetric {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, |text| {
            let wanted = text.to_ascii_lowercase().replace('-', "_");
            Self::ALL.into_iter().find(|metric| metric.name() == wanted).ok_or_else(|| {
                let known = Self::ALL.map(Self::name).join(", ");
                format!("unknown metric {}; known are {known}", quoted(text))
            })
        })
    }
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertScope {
    /// Providers, each with all of its models.
    #[default]
    Providers,
    /// The upstreams' models, each with all of its providers.
    Models,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertSeverity {
    /// Good to know.
    Info,
    /// Worth a look.
    #[default]
    Warning,
    /// Clients suffer.
    Critical,
}

/// A figure above which it is bad: `0.05`, `5%`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Threshold(f64);

/// It is always a number.
impl Eq for Threshold {}

impl Threshold {
    /// As a number: 5 % is 0.05.
    pub fn value(self) -> f64 {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let (digits, scale) = match text.strip_suffix('%') {
            Some(digits) => (digits.trim_end(), 100.0),
            None => (text, 1.0),
        };
        let number: f64 = digits.parse().ok()?;
        (number.is_finite() && number >= 0.0).then_some(Self(number / scale))
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, |text| Self::parse(text).ok_or_else(|| "expected a share such as 0.05 or 5%".to_owned()))
    }
}

/// Who is told, and of what. One of `webhook`, `command` and `apprise` is set once the file is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct NotifyTarget {
    /// The alert is posted here.
    #[serde(deserialize_with = "optional_url")]
    pub webhook: Option<WebhookUrl>,
    /// Headers of the post.
    pub headers: Headers,
    /// Key of the signature of the post; empty: none.
    pub secret: Secret,
    /// The way to the webhook.
    pub proxy_url: ProxySetting,
    /// A program that gets the alert.
    pub command: CommandLine,
    /// Where the program `apprise` sends it; empty: nowhere.
    pub apprise: ServiceUrl,
    /// Nothing less is told.
    pub min_severity: AlertSeverity,
    /// Tell when it is over, too.
    pub send_resolved: bool,
    /// Longest time of one delivery: 1 to 60.
    pub timeout_seconds: u32,
}

impl Default for NotifyTarget {
    fn default() -> Self {
        Self {
            webhook: None,
            headers: Headers::default(),
            secret: Secret::default(),
            proxy_url: ProxySetting::default(),
            command: CommandLine::default(),
            apprise: ServiceUrl::default(),
            min_severity: AlertSeverity::default(),
            send_resolved: true,
            timeout_seconds: 10,
        }
    }
}

/// Where a webhook is. Its path and query often are what lets a caller in: they are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    origin: Url,
    /// Path and query.
    target: Secret,
}

impl WebhookUrl {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let url = absolute(text)?;
        if url.fragment().is_some() {
            return Err("it has a fragment (#)");
        }
        let target = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let mut origin = url;
        origin.set_path("");
        origin.set_query(None);
        Ok(Self { origin, target: Secret::from(target.as_str()) })
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &Url {
        &self.origin
    }

    /// Path and query.
    pub fn secret(&self) -> &Secret {
        &self.target
    }

    /// What people may see: scheme, host and port.
    pub fn masked(&self) -> String {
        format!("{}/{MASK}", self.origin.origin().ascii_serialization())
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.masked())
    }
}

impl Serialize for WebhookUrl {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.masked())
    }
}

fn optional_url<'de, D: Deserializer<'de>>(input: D) -> Result<Option<WebhookUrl>, D::Error> {
    word(input, |text| match text {
        "" => Ok(None),
        _ => {
            WebhookUrl::parse(text).map(Some).map_err(|problem| format!("not a webhook's address: {problem}"))
        }
    })
}

/// An address that the program `apprise` understands. All but its scheme may be secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ServiceUrl(Secret);

impl ServiceUrl {
    /// The address itself.
    pub fn expose_secret(&self) -> &str {
        self.0.expose_secret()
    }

    /// The same, hidden.
    pub fn secret(&self) -> &Secret {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What people may see: the scheme.
    pub fn masked(&self) -> String {
        match self.expose_secret().split_once("://") {
            Some((scheme, _)) => format!("{scheme}://{MASK}"),
            None => self.0.masked(),
        }
    }
}

impl Serialize for ServiceUrl {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.masked())
    }
}

/// A program with its arguments. No shell reads them. They may hold keys: only the program is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The program; empty: there is none.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<Secret>,
}

impl Serialize for CommandLine {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let program = (!self.program.is_empty()).then_some(self.program.as_str());
        out.collect_seq(program.into_iter().chain(self.arguments.iter().map(|_| MASK)))
    }
}

impl<'de> Deserialize<'de> for CommandLine {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let mut words = Vec::<String>::deserialize(input)?.into_iter();
        let program = words.next().unwrap_or_default();
        Ok(Self { program, arguments: words.map(|word| Secret::from(word.as_str())).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_shares_or_percents() {
        let value = |text| Threshold::parse(text).map(Threshold::value);
        assert_eq!((value("0.05"), value("5%"), value("2.5 %")), (Some(0.05), Some(0.05), Some(0.025)));
        for bad in ["", "%", "-1", "inf", "NaN", "five", "5%%"] {
            assert_eq!(value(bad), None, "{bad}");
        }
    }

    #[test]
    fn p53_of_a_webhook_only_the_host_is_shown() {
        let url = WebhookUrl::parse("https://hooks.example.com:8443/services/CANARY?sig=CANARY").unwrap();
        assert_eq!(format!("{url:?}"), "https://hooks.example.com:8443/********");
        for bad in ["ftp://h/x", "file:///etc/passwd", "https://u:p@h/", "http://", "h/x", "https://h/a b"] {
            assert!(WebhookUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
