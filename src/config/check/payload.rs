//! Rules for request bodies.
//!
//! Enters: [`Payload`]. Leaves: rules that can fit a request and whose raw values are JSON; formats by the
//! names that the translator has for them. Nothing may go wrong; what is left out is a warning.

use crate::report::Report;
use crate::tree::Place;
use crate::{JsonText, Params, Payload, RawParams, Rule, Scope};

/// Checks and cleans all rules.
pub(super) fn check(payload: &mut Payload, report: &mut Report<'_, '_>) {
    rules(&mut payload.default, "default", report);
    rules(&mut payload.default_raw, "default-raw", report);
    rules(&mut payload.overrides, "override", report);
    rules(&mut payload.override_raw, "override-raw", report);
    rules(&mut payload.filter, "filter", report);
}

/// What a rule does.
trait Changes: Default {
    fn is_empty(&self) -> bool;

    /// The first value that is not JSON: its path, and what is wrong.
    fn broken(&self) -> Option<(&str, String)> {
        None
    }
}

impl Changes for Params {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Changes for RawParams {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn broken(&self) -> Option<(&str, String)> {
        self.0.iter().find_map(|(path, text)| JsonText::parse(text).err().map(|error| (path.as_str(), error)))
    }
}

impl Changes for Vec<String> {
    fn is_empty(&self) -> bool {
        Vec::is_empty(self)
    }
}

fn rules<P: Changes>(rules: &mut Vec<Rule<P>>, key: &str, report: &mut Report<'_, '_>) {
    let payload = Place::Root.key("payload");
    let list = payload.key(key);
    let mut n = 0;
    rules.retain_mut(|rule| {
        let place = list.item(n);
        n += 1;
        rule.models.iter_mut().for_each(formats);
        if rule.models.is_empty() {
            report.warn(&place, "left out: without models it fits no request");
        } else if rule.params.is_empty() {
            report.warn(&place, "left out: without params it changes nothing");
        } else if let Some((path, problem)) = rule.params.broken() {
            let params = place.key("params");
            report.warn(&params.key(path), format!("not JSON, the rule is left out: {problem}"));
        } else {
            return true;
        }
        false
    });
}

fn formats(scope: &mut Scope) {
    scope.protocol = format(&scope.protocol);
    scope.from_protocol = format(&scope.from_protocol);
}

/// OpenAI Responses has five names.
fn format(name: &str) -> String {
    match name.trim().to_lowercase().as_str() {
        "response" | "responses" | "openai-response" | "openai-responses" => "openai-response".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::load;

    #[test]
    fn rules_that_change_nothing_or_are_not_json_are_left_out() {
        let text = "payload:\n  default:\n    - params: {a: 1}\n    - models: [{name: x}]\n\
                    \x20 default-raw:\n    - models: [{name: x}]\n      params: {a.b: '{\"x\":'}\n\
                    \x20   - models: [{name: x, from-protocol: Responses, match: [{m.n: 1}]}]\n      params: {a: '{\"x\": [1]}', b: [1, {c: ~}]}\n";
        let loaded = load(text.as_bytes()).unwrap();
        let lines: Vec<_> = loaded.warnings.iter().map(|notice| notice.in_file("c").to_string()).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("c:3:7: payload.default[0]: left out: without models"));
        assert!(
            lines[2].starts_with("c:7:21: payload.default-raw[0].params[\"a.b\"]: not JSON"),
            "{lines:?}"
        );
        let payload = loaded.config.payload;
        assert!(payload.default.is_empty());
        let [rule] = payload.default_raw.as_slice() else { panic!() };
        assert_eq!(rule.params.0[0].1, "{\"x\": [1]}");
        assert_eq!(rule.params.0[1].1, "[1,{\"c\":null}]");
        assert_eq!(rule.models[0].from_protocol, "openai-response");
        assert_eq!(rule.models[0].equal.0[0].1.as_str(), "1");
    }

    #[test]
    fn values_keep_their_kinds() {
        let text = "payload:\n  override:\n    - models: [{name: x}]\n      params: {a: 1, b: -2, c: 0.5, d: yes, e: '1', f: true, g: ~, h: {i: [x]}}\n";
        let rule = &load(text.as_bytes()).unwrap().config.payload.overrides[0];
        let values: Vec<_> = rule.params.0.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["1", "-2", "0.5", "\"yes\"", "\"1\"", "true", "null", r#"{"i":["x"]}"#]);
        let bad = load(text.replace("0.5", ".inf").as_bytes()).unwrap_err();
        assert_eq!(bad.notices[0].path, "payload.override[0].params.c");
    }
}
