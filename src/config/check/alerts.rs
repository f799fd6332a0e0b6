//! Rules of alerts, and who is told of them.
//!
//! Enters: [`Alerts`]. Leaves: rules that can be judged, each id once, and targets that can be reached. What is
//! incomplete is left out, with a warning. May go wrong: numbers out of range, settings that contradict each
//! other.

use crate::header::HeaderValue;
use crate::read::quoted;
use crate::report::Report;
use crate::tree::Place;
use crate::{ALERT_RULES, AlertRule, AlertScope, Alerts, NotifyTarget};
use std::collections::HashSet;

/// Seconds that can be counted: an hour is kept.
const WINDOW: std::ops::RangeInclusive<u32> = 60..=3600;
/// Seconds that a delivery may take.
const TIMEOUT: std::ops::RangeInclusive<u32> = 1..=60;
/// Longest id.
const LONGEST_ID: usize = 64;

/// Checks and cleans rules and targets.
pub(super) fn check(alerts: &mut Alerts, report: &mut Report<'_, '_>) {
    let block = Place::Root.key("alerts");
    rules(&mut alerts.rules, &block.key("rules"), report);
    targets(&mut alerts.notify, &block.key("notify"), report);
}

fn rules(rules: &mut Vec<AlertRule>, list: &Place<'_>, report: &mut Report<'_, '_>) {
    let mut seen = HashSet::new();
    let mut n = 0;
    rules.retain_mut(|rule| {
        let place = list.item(n);
        n += 1;
        rule.id = rule.id.trim().to_ascii_lowercase();
        rule.title = rule.title.trim().to_owned();
        rule.subjects.retain(|subject| !subject.trim().is_empty());
        if rule.id.is_empty() {
            report.warn(&place, "left out: a rule needs an id");
            return false;
        }
        if rule.id.len() > LONGEST_ID || !rule.id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            report.error(&place.key("id"), "an id has up to 64 letters, digits and dashes");
            return false;
        }
        if !seen.insert(rule.id.clone()) {
            report.warn(&place, "left out: a rule before it has this id");
            return false;
        }
        numbers(rule, &place, report);
        if ALERT_RULES.contains(&rule.id.as_str()) {
            of_ours(rule, &place, report)
        } else {
            own(rule, &place, report)
        }
    });
}

fn numbers(rule: &AlertRule, place: &Place<'_>, report: &mut Report<'_, '_>) {
    if rule.window_seconds.is_some_and(|seconds| !WINDOW.contains(&seconds)) {
        report.error(&place.key("window-seconds"), "from 60 to 3600 seconds are counted");
    }
    if let (Some(warning), Some(critical)) = (rule.warning, rule.critical)
        && warning > critical
    {
        report.error(&place.key("critical"), "it is below warning, which could never be");
    }
}

/// A change to a rule that is there.
fn of_ours(rule: &AlertRule, place: &Place<'_>, report: &mut Report<'_, '_>) -> bool {
    let fixed = [("metric", rule.metric.is_some()), ("scope", rule.scope.is_some())];
    for (key, _) in fixed.into_iter().filter(|(_, said)| *said) {
        let problem = "this rule has its own, which stays; give yours another id to have both";
        report.error(&place.key(key), problem);
    }
    true
}

/// A rule of the operator's own.
fn own(rule: &AlertRule, place: &Place<'_>, report: &mut Report<'_, '_>) -> bool {
    let Some(metric) = rule.metric else {
        let (id, known) = (quoted(&rule.id), ALERT_RULES.join(", "));
        let problem = format!("left out: {id} is none of {known}, and a rule of your own needs a metric");
        report.warn(place, problem);
        return false;
    };
    if rule.warning.is_none() && rule.critical.is_none() {
        report.warn(place, "left out: without warning and critical it never says anything");
        return false;
    }
    if metric.is_of_providers() && rule.scope == Some(AlertScope::Models) {
        report.error(&place.key("scope"), format!("{} is known of providers only", metric.name()));
    }
    true
}

fn targets(targets: &mut Vec<NotifyTarget>, list: &Place<'_>, report: &mut Report<'_, '_>) {
    let mut n = 0;
    targets.retain_mut(|target| {
        let place = list.item(n);
        n += 1;
        if !TIMEOUT.contains(&target.timeout_seconds) {
            report.error(&place.key("timeout-seconds"), "a delivery may take from 1 to 60 seconds");
        }
        super::proxy(&target.proxy_url, "webhook", &place.key("proxy-url"), report);
        let ways = [target.webhook.is_some(), !target.command.program.is_empty(), !target.apprise.is_empty()];
        match ways.into_iter().filter(|way| *way).count() {
            0 => {
                report.warn(&place, "left out: it needs one of webhook, command and apprise");
                return false;
            }
            1 => {}
            _ => report.error(&place, "one of webhook, command and apprise; make an entry of each"),
        }
        if target.webhook.is_none() && !(target.headers.0.is_empty() && target.secret.is_empty()) {
            report.warn(&place, "headers and secret are those of a webhook; here they do nothing");
        }
        headers(target, &place.key("headers"), report);
        if !target.apprise.is_empty() && !is_service(target.apprise.expose_secret()) {
            report.error(&place.key("apprise"), "expected the address of a service, as `mailto://…`");
        }
        true
    });
}

/// No client asked for an alert: there is nothing to copy.
fn headers(target: &mut NotifyTarget, place: &Place<'_>, report: &mut Report<'_, '_>) {
    target.headers.0.retain(|name, value| {
        let literal = matches!(value, HeaderValue::Literal(_));
        if !literal {
            report.warn(&place.key(name), "left out: there is no client whose header could be copied");
        }
        literal
    });
}

/// `scheme://…` in one word, so that the program cannot take it for an option.
fn is_service(text: &str) -> bool {
    let one_word = !text.chars().any(|c| c.is_whitespace() || c.is_control());
    let scheme = text.split_once("://").map(|(scheme, _)| scheme).unwrap_or_default();
    let starts = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    one_word && starts && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

#[cfg(test)]
mod tests {
    use crate::load;

    fn lines(text: &str) -> Vec<String> {
        let notices = match load(text.as_bytes()) {
            Ok(loaded) => loaded.warnings,
            Err(broken) => broken.notices,
        };
        notices.iter().map(|notice| notice.in_file("c").to_string()).collect()
    }

    fn begin(found: &[String], expected: &[&str]) {
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (line, begin) in found.iter().zip(expected) {
            assert!(line.starts_with(begin), "{line} / {begin}");
        }
    }

    #[test]
    fn rules_that_cannot_be_judged_are_left_out() {
        let text = "alerts:\n  rules:\n    - {id: rate-limit-ratio, warning: 2%, critical: 0.2}\n\
                    \x20   - {warning: 1}\n    - {id: rate-limit-ratio}\n    - {id: rate-limt}\n\
                    \x20   - {id: mine, metric: error_ratio}\n    - {id: mine-too, metric: Any-Error-Ratio, scope: models, warning: 1%}\n";
        begin(
            &lines(text),
            &[
                "c:4:8: alerts.rules[1]: left out: a rule needs an id",
                "c:5:8: alerts.rules[2]: left out: a rule before it",
                "c:6:8: alerts.rules[3]: left out: `rate-limt` is none of rate-limit-ratio, ",
                "c:7:8: alerts.rules[4]: left out: without warning and critical",
            ],
        );
        let alerts = load(text.as_bytes()).unwrap().config.alerts;
        assert!(alerts.enabled && alerts.rules.len() == 2);
        assert_eq!(alerts.rules[0].warning.map(crate::Threshold::value), Some(0.02));
    }

    #[test]
    fn contradictions_of_rules_are_told_where_they_stand() {
        let text = "alerts:\n  rules:\n    - {id: 'a b', metric: error_ratio}\n\
                    \x20   - {id: zero-models, metric: error_ratio}\n\
                    \x20   - {id: x, metric: zero_models, scope: models, warning: 0}\n\
                    \x20   - {id: y, metric: error_ratio, warning: 5%, critical: 2%, window-seconds: 5}\n\
                    \x20   - {id: z, metric: errors, warning: much}\n";
        begin(
            &lines(text),
            &[
                "c:3:12: alerts.rules[0].id: an id has",
                "c:4:33: alerts.rules[1].metric: this rule has its own",
                "c:5:43: alerts.rules[2].scope: zero_models is known of providers only",
                "c:6:59: alerts.rules[3].critical: it is below warning",
                "c:6:79: alerts.rules[3].window-seconds: from 60 to 3600",
                "c:7:23: alerts.rules[4].metric: unknown metric `errors`; known are rate_limit_ratio",
                "c:7:40: alerts.rules[4].warning: expected a share",
            ],
        );
    }

    #[test]
    fn targets_are_one_thing_each_and_p53_are_not_told() {
        let text = "alerts:\n  notify:\n    - {min-severity: critical}\n    - {webhook: 'https://h/CANARY', command: [x]}\n\
                    \x20   - {webhook: 'ftp://CANARY'}\n    - {apprise: '-CANARY', timeout-seconds: 0}\n\
                    \x20   - {command: [x], secret: CANARY}\n";
        let found = lines(text);
        begin(
            &found,
            &[
                "c:4:8: alerts.notify[1]: one of webhook",
                "c:5:17: alerts.notify[2].webhook: not a webhook's address: it has to start with",
                "c:6:17: alerts.notify[3].apprise: expected the address",
                "c:6:45: alerts.notify[3].timeout-seconds: a delivery may take",
            ],
        );
        assert!(!found.concat().contains("CANARY"));
        let text = "alerts:\n  notify:\n    - {min-severity: critical}\n    - {command: [x], secret: k}\n\
                    \x20   - {webhook: 'https://h/', headers: {A: b, B: $C}}\n";
        begin(
            &lines(text),
            &[
                "c:3:8: alerts.notify[0]: left out",
                "c:4:8: alerts.notify[1]: headers and secret are those of a webhook",
                "c:5:50: alerts.notify[2].headers.B: left out",
            ],
        );
        let targets = load(text.as_bytes()).unwrap().config.alerts.notify;
        assert_eq!((targets.len(), targets[1].headers.0.len()), (2, 1));
        assert!(targets[0].send_resolved);
    }
}
