//! `request-scoped-errors`: the operator's own reading of an upstream's errors.
//!
//! Enters: a status and the start of the upstream's body. Leaves: what to do, if a rule speaks. May go
//! wrong: a pattern that is no regular expression is refused when the rule is made.

use regex::bytes::Regex;

/// What a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// Return the error, no cooldown.
    Stop,
    /// Return the error and cool the model on this credential.
    StopAndCooldown,
    /// Next credential, no cooldown.
    Continue,
    /// Next credential and cool the model on this one.
    ContinueAndCooldown,
}

impl RuleAction {
    /// Reads the word of the configuration.
    pub fn parse(word: &str) -> Option<Self> {
        match word.trim().to_ascii_lowercase().as_str() {
            "stop" => Some(Self::Stop),
            "stop-and-cooldown" => Some(Self::StopAndCooldown),
            "continue" => Some(Self::Continue),
            "continue-and-cooldown" => Some(Self::ContinueAndCooldown),
            _ => None,
        }
    }

    pub(crate) fn cools(self) -> bool {
        matches!(self, Self::StopAndCooldown | Self::ContinueAndCooldown)
    }

    pub(crate) fn goes_on(self) -> bool {
        matches!(self, Self::Continue | Self::ContinueAndCooldown)
    }
}

/// One rule: a status and at least one text or pattern found in the body.
#[derive(Clone, Debug)]
pub struct ErrorRule {
    status: u16,
    texts: Vec<String>,
    patterns: Vec<Regex>,
    action: RuleAction,
}

impl ErrorRule {
    /// Makes a rule; the error is the text of the regular-expression compiler.
    pub fn new(
        status: u16,
        texts: Vec<String>,
        patterns: &[String],
        action: RuleAction,
    ) -> Result<Self, String> {
        let patterns: Result<Vec<Regex>, _> = patterns.iter().map(|pattern| Regex::new(pattern)).collect();
        let texts = texts.into_iter().filter(|text| !text.is_empty()).collect();
        Ok(Self { status, texts, patterns: patterns.map_err(|error| error.to_string())?, action })
    }

    fn matches(&self, status: u16, body: &[u8]) -> bool {
        self.status == status
            && (self.texts.iter().any(|text| contains(body, text.as_bytes()))
                || self.patterns.iter().any(|pattern| pattern.is_match(body)))
    }
}

/// What the first rule that speaks says.
pub(crate) fn first_match(rules: &[ErrorRule], status: u16, body: &[u8]) -> Option<RuleAction> {
    rules.iter().find(|rule| rule.matches(status, body)).map(|rule| rule.action)
}

/// Whether `body` holds `text`.
pub(crate) fn contains(body: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(body, text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_text_or_pattern_decide_and_the_first_rule_wins() {
        let rule = |status, text: &str, pattern: &str, action| {
            ErrorRule::new(status, vec![text.into()], &[pattern.into()], action).unwrap()
        };
        let rules = [
            rule(400, "busy", "^never$", RuleAction::Continue),
            rule(400, "busy now", "code: \\d+", RuleAction::Stop),
        ];
        let ask = |status, body: &str| first_match(&rules, status, body.as_bytes());
        assert_eq!(ask(400, "we are busy now"), Some(RuleAction::Continue));
        assert_eq!(ask(400, "code: 17"), Some(RuleAction::Stop));
        assert_eq!(ask(400, "else"), None);
        assert_eq!(ask(500, "busy"), None);
    }

    #[test]
    fn a_rule_without_text_never_speaks_and_a_bad_pattern_is_refused() {
        let empty = ErrorRule::new(400, vec![String::new()], &[], RuleAction::Stop).unwrap();
        assert_eq!(first_match(&[empty], 400, b"anything"), None);
        assert!(ErrorRule::new(400, vec![], &["(".into()], RuleAction::Stop).is_err());
    }
}
