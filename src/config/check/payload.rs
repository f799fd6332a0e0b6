//! Rules for request bodies.
//!
//! Enters: [`Payload`]. Leaves: rules that can fit a request; formats by the names that the translator has for
//! them. What can never do anything is left out, with a warning. May go wrong: a path that is none, a raw value
//! that is not JSON: a rule that is silently missing could be the one that keeps something from an upstream.

use crate::report::Report;
use crate::tree::Place;
use crate::{JsonText, Params, Payload, RawParams, Rule, Scope};
use wire::payload::Path;

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

    /// Refuses what cannot be applied.
    fn check(&self, place: &Place<'_>, report: &mut Report<'_, '_>);
}

impl Changes for Params {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn check(&self, place: &Place<'_>, report: &mut Report<'_, '_>) {
        for (text, _) in &self.0 {
            path(text, &place.key(text), report);
        }
    }
}

impl Changes for RawParams {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn check(&self, place: &Place<'_>, report: &mut Report<'_, '_>) {
        for (text, value) in &self.0 {
            let place = place.key(text);
            path(text, &place, report);
            if let Err(problem) = JsonText::parse(value) {
                report.error(&place, format!("not JSON: {problem}"));
            }
        }
    }
}

impl Changes for Vec<String> {
    fn is_empty(&self) -> bool {
        Vec::is_empty(self)
    }

    fn check(&self, place: &Place<'_>, report: &mut Report<'_, '_>) {
        paths(self, place, report);
    }
}

fn path(text: &str, place: &Place<'_>, report: &mut Report<'_, '_>) {
    if let Err(problem) = Path::parse(text) {
        report.error(place, format!("`{text}` is no path: {problem}"));
    }
}

fn paths(texts: &[String], place: &Place<'_>, report: &mut Report<'_, '_>) {
    for (n, text) in texts.iter().enumerate() {
        path(text, &place.item(n), report);
    }
}

fn rules<P: Changes>(rules: &mut Vec<Rule<P>>, key: &str, report: &mut Report<'_, '_>) {
    let payload = Place::Root.key("payload");
    let list = payload.key(key);
    let mut n = 0;
    rules.retain_mut(|rule| {
        let place = list.item(n);
        n += 1;
        let models = place.key("models");
        for (n, scope) in rule.models.iter_mut().enumerate() {
            formats(scope);
            conditions(scope, &models.item(n), report);
        }
        rule.params.check(&place.key("params"), report);
        if rule.models.is_empty() {
            report.warn(&place, "left out: without models it fits no request");
        } else if rule.params.is_empty() {
            report.warn(&place, "left out: without params it changes nothing");
        } else {
            return true;
        }
        false
    });
}

fn conditions(scope: &Scope, place: &Place<'_>, report: &mut Report<'_, '_>) {
    if scope.name.is_empty() {
        report.warn(place, "without a name it fits no model; `*` fits all");
    }
    for (key, params) in [("match", &scope.equal), ("not-match", &scope.not_equal)] {
        params.check(&place.key(key), report);
    }
    for (key, texts) in [("exist", &scope.exist), ("not-exist", &scope.not_exist)] {
        paths(texts, &place.key(key), report);
    }
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
    use wire::payload::{Change, Path};

    #[test]
    fn rules_that_change_nothing_are_left_out() {
        let text = "payload:\n  default:\n    - params: {a: 1}\n    - models: [{name: x}]\n\
                    \x20 default-raw:\n    - models: [{name: x, from-protocol: Responses, match: [{m.n: 1}]}]\n      params: {a: '{\"x\": [1]}', b: [1, {c: ~}]}\n\
                    \x20 filter:\n    - models: [{protocol: openai}]\n      params: [a]\n";
        let loaded = load(text.as_bytes()).unwrap();
        let lines: Vec<_> = loaded.warnings.iter().map(|notice| notice.in_file("c").to_string()).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("c:3:7: payload.default[0]: left out: without models"));
        assert!(lines[2].starts_with("c:9:17: payload.filter[0].models[0]: without a name"), "{lines:?}");
        let payload = loaded.config.payload;
        assert!(payload.default.is_empty());
        let [rule] = payload.default_raw.as_slice() else { panic!() };
        assert_eq!(rule.params.0[0].1, "{\"x\": [1]}");
        assert_eq!(rule.params.0[1].1, "[1,{\"c\":null}]");
        assert_eq!(rule.models[0].from_protocol, "openai-response");
        assert_eq!(rule.models[0].equal.0[0].1.as_str(), "1");
    }

    #[test]
    fn paths_that_are_none_and_values_that_are_not_json_are_refused_where_they_stand() {
        let text = "payload:\n  default-raw:\n    - models: [{name: x}]\n      params: {a.b: '{\"x\":', c..d: '1'}\n\
                    \x20 override:\n    - models: [{name: x, match: {a.*: 1}, exist: [ok, 't.#(']}]\n      params: {t.#.x: 1}\n\
                    \x20 filter:\n    - models: [{name: x}]\n      params: [a, '@this']\n";
        let broken = load(text.as_bytes()).unwrap_err();
        let lines: Vec<_> = broken.notices.iter().map(|notice| notice.in_file("c").to_string()).collect();
        let begins = [
            "c:4:21: payload.default-raw[0].params[\"a.b\"]: not JSON",
            "c:4:36: payload.default-raw[0].params[\"c..d\"]: `c..d` is no path: a step is empty",
            "c:6:39: payload.override[0].models[0].match[\"a.*\"]: `a.*` is no path",
            "c:6:55: payload.override[0].models[0].exist[1]: `t.#(` is no path",
            "c:7:23: payload.override[0].params[\"t.#.x\"]: `t.#.x` is no path",
            "c:10:19: payload.filter[0].params[1]: `@this` is no path",
        ];
        assert_eq!(lines.len(), begins.len(), "{lines:#?}");
        for (line, begin) in lines.iter().zip(begins) {
            assert!(line.starts_with(begin), "{line} / {begin}");
        }
    }

    #[test]
    fn rules_are_ready_in_the_order_of_application() {
        let text = "payload:\n  filter: [{models: [{name: 'a*', headers: {X-A: 'b*'}}], params: [x.y]}]\n\
                    \x20 override-raw: [{models: [{name: a}], params: {r: ' [1.0] '}}]\n  override: [{models: [{name: a}], params: {o: 1}}]\n\
                    \x20 default: [{models: [{name: a}, {name: b}], params: {d: yes}}]\n";
        let rules = load(text.as_bytes()).unwrap().config.payload.rules().0;
        let path = |text| Path::parse(text).unwrap();
        let changes: Vec<_> = rules.iter().flat_map(|rule| rule.changes.clone()).collect();
        let expected = [
            Change::Default(path("d"), "\"yes\"".to_owned()),
            Change::Override(path("o"), "1".to_owned()),
            Change::Override(path("r"), "[1.0]".to_owned()),
            Change::Filter(path("x.y")),
        ];
        assert_eq!(changes, expected);
        assert_eq!((rules[0].scopes.len(), rules[3].scopes[0].headers.len()), (2, 1));
        assert!(rules[3].scopes[0].name.matches("abc") && !rules[3].scopes[0].name.matches("b"));
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
