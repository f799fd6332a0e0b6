//! Assertions on a document: JSON pointers, operators, combinators.
//!
//! Enters: a document and one assertion as it stands in the vector. Leaves: nothing, or why it does not hold.
//! May go wrong: an operator nobody knows, or a value the operator cannot use; both are failures.

use super::value::{dump, elements, equal, head, text};
use base64::Engine;
use regex::Regex;
use serde_json::Value;

/// Longest part of a value in a failure, in characters.
const SHOWN: usize = 160;

/// The value at an RFC 6901 pointer; the token `-` is the last element of an array.
pub(super) fn resolve<'d>(document: &'d Value, pointer: &str) -> Option<&'d Value> {
    if pointer.is_empty() {
        return Some(document);
    }
    pointer.trim_start_matches('/').split('/').try_fold(document, |at, raw| {
        let token = raw.replace("~1", "/").replace("~0", "~");
        match at {
            Value::Array(list) if token == "-" => list.last(),
            Value::Array(list) if token.bytes().all(|b| b.is_ascii_digit()) => {
                list.get(token.parse::<usize>().ok()?)
            }
            Value::Object(members) => members.get(&token),
            _ => None,
        }
    })
}

/// Why `assertion` does not hold for `document`; `None` when it does.
pub(super) fn failure(document: &Value, assertion: &Value) -> Option<String> {
    if let Some(groups) = assertion.get("any") {
        return any(document, groups);
    }
    if let Some(group) = assertion.get("all") {
        return join(&failures(document, group));
    }
    if let Some(group) = assertion.get("not") {
        let holds = failures(document, group).is_empty();
        return holds.then(|| format!("negated assertion group holds: {}", shown(Some(group))));
    }
    if let Some(condition) = assertion.get("if") {
        let branch = if failures(document, condition).is_empty() { "then" } else { "else" };
        return join(&failures(document, &assertion[branch]));
    }
    Check {
        document,
        pointer: text(&assertion["pointer"]),
        op: text(&assertion["op"]),
        wanted: &assertion["value"],
        value: resolve(document, text(&assertion["pointer"])),
    }
    .failure()
}

fn any(document: &Value, groups: &Value) -> Option<String> {
    let mut why = Vec::new();
    for group in elements(groups) {
        let failures = failures(document, group);
        if failures.is_empty() {
            return None;
        }
        why.push(format!("[{}]", failures.join("; ")));
    }
    Some(format!("no alternative satisfied: {}", why.join(" ")))
}

fn failures(document: &Value, group: &Value) -> Vec<String> {
    elements(group).iter().filter_map(|assertion| failure(document, assertion)).collect()
}

fn holds(document: &Value, group: &Value) -> bool {
    elements(group).iter().all(|assertion| failure(document, assertion).is_none())
}

fn join(failures: &[String]) -> Option<String> {
    (!failures.is_empty()).then(|| failures.join("; "))
}

fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else { return "<missing>".to_owned() };
    let text = dump(value);
    let cut = head(&text, SHOWN);
    if cut.len() < text.len() { format!("{cut}…") } else { text }
}

/// One operator on one value.
struct Check<'d> {
    document: &'d Value,
    pointer: &'d str,
    op: &'d str,
    wanted: &'d Value,
    value: Option<&'d Value>,
}

/// What an operator found: it holds, it does not, or it does not and there is more to say.
type Found = Result<(), String>;

fn found(holds: bool) -> Found {
    if holds { Ok(()) } else { Err(String::new()) }
}

impl Check<'_> {
    fn failure(&self) -> Option<String> {
        let said =
            match self.without_value().unwrap_or_else(|| self.value.map_or(found(false), |v| self.with(v))) {
                Ok(()) => return None,
                Err(said) => said,
            };
        let place = if self.pointer.is_empty() { "(root)" } else { self.pointer };
        let line =
            format!("{place} {} {}: got {} {said}", self.op, shown(Some(self.wanted)), shown(self.value));
        Some(line.trim_end().to_owned())
    }

    /// Operators that may hold for a pointer that does not resolve.
    fn without_value(&self) -> Option<Found> {
        let value = self.value.filter(|value| !value.is_null());
        Some(match self.op {
            "absent" => found(self.value.is_none()),
            "absent_or_null" => found(value.is_none()),
            "exists" => found(self.value.is_some()),
            "present" => found(value.is_some()),
            "not_equals" => found(!self.value.is_some_and(|value| equal(value, self.wanted))),
            "not_matches" => match value.and_then(Value::as_str) {
                Some(text) => self.matches(text).and_then(|matches| found(!matches)),
                None => Ok(()),
            },
            "not_contains" => found(!value.is_some_and(|value| self.contains(value))),
            "none" => value.map_or(Ok(()), |value| self.none(value)),
            "empty" => found(value.is_none_or(|value| length(value) == Some(0))),
            "no_key" => match value.and_then(|value| find_key(value, elements(self.wanted), "")) {
                Some(place) => Err(format!("key found at {place}")),
                None => Ok(()),
            },
            "no_text" => {
                if self.value.is_some_and(|value| dump(value).contains(text(self.wanted))) {
                    Err("text occurs".to_owned())
                } else {
                    Ok(())
                }
            }
            _ => return None,
        })
    }

    /// Operators that need a value.
    fn with(&self, value: &Value) -> Found {
        match self.op {
            "equals" => found(equal(value, self.wanted)),
            "includes" => found(includes(value, self.wanted)),
            "matches" => value.as_str().map_or(found(false), |text| self.matches(text).and_then(found)),
            "type" => found(has_type(value, self.wanted)),
            "length" | "min_length" | "max_length" => found(self.length(value)),
            "contains" => found(self.contains(value)),
            "has_text" => found(dump(value).contains(text(self.wanted))),
            "one_of" => found(elements(self.wanted).iter().any(|one| equal(value, one))),
            "gt" | "gte" | "lt" | "lte" => self.compares(value),
            "json_equals" if !value.is_string() => found(false),
            "json_equals" => match serde_json::from_str::<Value>(text(value)) {
                Ok(inner) => found(equal(&inner, self.wanted)),
                Err(_) => Err("not JSON".to_owned()),
            },
            "json" => match serde_json::from_str::<Value>(text(value)) {
                Ok(inner) => join(&failures(&inner, self.wanted)).map_or(Ok(()), Err),
                Err(_) => Err("not JSON".to_owned()),
            },
            "some" | "every" | "count" => self.quantified(value),
            "set_equals" => found(same_set(value, self.wanted)),
            "same_as" | "differs_from" | "lt_pointer" => self.against_other(value),
            "sum_of" => self.sum(value),
            "base64_of" => base64_of(value, text(self.wanted)),
            unknown => Err(format!("unknown operator {unknown}")),
        }
    }

    fn matches(&self, value: &str) -> Result<bool, String> {
        Regex::new(text(self.wanted)).map(|regex| regex.is_match(value)).map_err(|error| error.to_string())
    }

    fn contains(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.wanted.as_str().is_some_and(|part| text.contains(part)),
            Value::Array(list) => list.iter().any(|element| equal(element, self.wanted)),
            Value::Object(members) => self.wanted.as_str().is_some_and(|key| members.contains_key(key)),
            _ => false,
        }
    }

    fn length(&self, value: &Value) -> bool {
        let (Some(length), Some(wanted)) = (length(value), self.wanted.as_i64()) else { return false };
        match self.op {
            "length" => length == wanted,
            "min_length" => length >= wanted,
            _ => length <= wanted,
        }
    }

    fn compares(&self, value: &Value) -> Found {
        let (Some(number), Some(wanted)) = (value.as_f64(), self.wanted.as_f64()) else {
            return Err("not a number".to_owned());
        };
        found(match self.op {
            "gt" => number > wanted,
            "gte" => number >= wanted,
            "lt" => number < wanted,
            _ => number <= wanted,
        })
    }

    fn quantified(&self, value: &Value) -> Found {
        let Value::Array(list) = value else { return Err("not an array".to_owned()) };
        match self.op {
            "some" if list.iter().any(|element| holds(element, self.wanted)) => Ok(()),
            "some" => Err("no element matches".to_owned()),
            "every" => list.iter().enumerate().try_for_each(|(at, element)| {
                join(&failures(element, self.wanted))
                    .map_or(Ok(()), |why| Err(format!("element {at}: {why}")))
            }),
            _ => {
                let n = list.iter().filter(|element| holds(element, &self.wanted["where"])).count();
                if self.wanted["n"].as_u64() == Some(n as u64) { Ok(()) } else { Err(format!("count {n}")) }
            }
        }
    }

    fn none(&self, value: &Value) -> Found {
        let Value::Array(list) = value else { return Err("not an array".to_owned()) };
        match list.iter().position(|element| holds(element, self.wanted)) {
            Some(at) => Err(format!("element {at} matches")),
            None => Ok(()),
        }
    }

    fn against_other(&self, value: &Value) -> Found {
        let other = resolve(self.document, text(self.wanted));
        let holds = match self.op {
            "same_as" => other.is_some_and(|other| equal(value, other)),
            "differs_from" => return found(!other.is_some_and(|other| equal(value, other))),
            _ => match (value.as_f64(), other.and_then(Value::as_f64)) {
                (Some(number), Some(other)) => number < other,
                _ => false,
            },
        };
        if holds { Ok(()) } else { Err(format!("other {}", shown(other))) }
    }

    fn sum(&self, value: &Value) -> Found {
        let parts: Option<Vec<f64>> = elements(self.wanted)
            .iter()
            .map(|pointer| resolve(self.document, text(pointer))?.as_f64())
            .collect();
        let (Some(number), Some(parts)) = (value.as_f64(), parts) else {
            return Err("operand missing".to_owned());
        };
        let sum: f64 = parts.iter().sum();
        if (number - sum).abs() < f64::EPSILON { Ok(()) } else { Err(format!("sum {sum}")) }
    }
}

/// Characters, elements or members.
fn length(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => Some(text.chars().count() as i64),
        Value::Array(list) => Some(list.len() as i64),
        Value::Object(members) => Some(members.len() as i64),
        _ => None,
    }
}

fn includes(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Object(members), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| members.get(key).is_some_and(|value| includes(value, wanted)))
        }
        (Value::Array(list), Value::Array(wanted)) => {
            list.len() == wanted.len()
                && list.iter().zip(wanted).all(|(value, wanted)| includes(value, wanted))
        }
        _ => equal(value, wanted),
    }
}

fn has_type(value: &Value, wanted: &Value) -> bool {
    let name = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let one = |wanted: &Value| wanted == name || wanted == "number" && name == "integer";
    wanted.as_array().map_or_else(|| one(wanted), |list| list.iter().any(one))
}

fn same_set(value: &Value, wanted: &Value) -> bool {
    let Value::Array(list) = value else { return false };
    let mut rest: Vec<&Value> = elements(wanted).iter().collect();
    list.len() == rest.len()
        && list.iter().all(|element| {
            let at = rest.iter().position(|other| equal(element, other));
            at.map(|at| rest.swap_remove(at)).is_some()
        })
}

fn base64_of(value: &Value, wanted: &str) -> Found {
    let decoded = base64::engine::general_purpose::STANDARD.decode(text(value)).ok();
    match decoded.filter(|_| value.is_string()).and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(decoded) => found(decoded == wanted),
        None => Err("not base64".to_owned()),
    }
}

/// Where one of `keys` is a member, at any depth.
fn find_key(value: &Value, keys: &[Value], path: &str) -> Option<String> {
    match value {
        Value::Object(members) => members.iter().find_map(|(key, value)| {
            let here = format!("{path}/{key}");
            if keys.iter().any(|wanted| wanted == key.as_str()) {
                Some(here)
            } else {
                find_key(value, keys, &here)
            }
        }),
        Value::Array(list) => {
            list.iter().enumerate().find_map(|(at, value)| find_key(value, keys, &format!("{path}/{at}")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({
            "text": "Grüße", "zero": 0, "five": 5, "six": 6.0, "half": 1.5, "null": null, "yes": true,
            "list": [1, {"a": 1, "b": 2}, "x"], "none": [], "empty": "", "object": {"k": {"deep": [{"key": 1}]}},
            "json": "{\"a\": 1}", "base64": "w6Q=", "a/b": {"~": 1}, "pairs": [{"n": 1}, {"n": 2}, {"n": 1}],
        })
    }

    fn fails(assertion: &Value) -> Option<String> {
        failure(&document(), assertion)
    }

    /// Each row: pointer, operator, value for which it holds, value for which it does not.
    fn each_holds_and_fails(rows: &[(&str, &str, Value, Value)]) {
        for (pointer, op, holds, fails_for) in rows {
            let with = |value: &Value| fails(&json!({"pointer": pointer, "op": op, "value": value}));
            assert_eq!(with(holds), None, "{op} {holds}");
            assert!(with(fails_for).is_some(), "{op} {fails_for}");
        }
    }

    #[test]
    fn operators_on_one_value() {
        each_holds_and_fails(&[
            ("/five", "equals", json!(5.0), json!("5")),
            ("/five", "not_equals", json!(6), json!(5)),
            ("/list", "includes", json!([1, {"a": 1}, "x"]), json!([1, {"a": 1}])),
            ("/text", "matches", json!("(?i)^GR"), json!("^x")),
            ("/text", "not_matches", json!("^x"), json!("ü")),
            ("/text", "contains", json!("üß"), json!("uss")),
            ("/list", "contains", json!({"b": 2, "a": 1}), json!({"a": 1})),
            ("/object", "contains", json!("k"), json!("deep")),
            ("/text", "not_contains", json!("uss"), json!("üß")),
            ("/list", "not_contains", json!(2), json!("x")),
            ("/object", "has_text", json!("\"deep\": [{"), json!("\"deep\":[")),
            ("/object", "no_text", json!("\"deep\":["), json!("deep")),
            ("/object", "no_key", json!(["k2"]), json!(["zz", "key"])),
            ("/five", "type", json!("integer"), json!("string")),
            ("/five", "type", json!(["string", "number"]), json!(["string", "null"])),
            ("/half", "type", json!("number"), json!("integer")),
            ("/six", "type", json!("number"), json!("integer")),
            ("/text", "length", json!(5), json!(7)),
            ("/list", "min_length", json!(3), json!(4)),
            ("/object", "max_length", json!(1), json!(0)),
            ("/five", "one_of", json!([1, 5]), json!(["5"])),
            ("/five", "gt", json!(4), json!(5)),
            ("/five", "gte", json!(5), json!(5.5)),
            ("/five", "lt", json!(6), json!(5)),
            ("/five", "lte", json!(5), json!(4)),
        ]);
    }

    #[test]
    fn operators_on_parts_and_other_values() {
        each_holds_and_fails(&[
            ("/json", "json_equals", json!({"a": 1.0}), json!({"a": 2})),
            (
                "/json",
                "json",
                json!([{"pointer": "/a", "op": "equals", "value": 1}]),
                json!([{"pointer": "/b", "op": "exists"}]),
            ),
            (
                "/pairs",
                "some",
                json!([{"pointer": "/n", "op": "equals", "value": 2}]),
                json!([{"pointer": "/n", "op": "equals", "value": 3}]),
            ),
            (
                "/pairs",
                "every",
                json!([{"pointer": "/n", "op": "lt", "value": 3}]),
                json!([{"pointer": "/n", "op": "equals", "value": 1}]),
            ),
            (
                "/pairs",
                "none",
                json!([{"pointer": "/n", "op": "equals", "value": 3}]),
                json!([{"pointer": "/n", "op": "equals", "value": 2}]),
            ),
            (
                "/pairs",
                "count",
                json!({"n": 2, "where": [{"pointer": "/n", "op": "equals", "value": 1}]}),
                json!({"n": 1, "where": [{"pointer": "/n", "op": "equals", "value": 1}]}),
            ),
            (
                "/pairs",
                "set_equals",
                json!([{"n": 2}, {"n": 1}, {"n": 1}]),
                json!([{"n": 2}, {"n": 2}, {"n": 1}]),
            ),
            ("/five", "same_as", json!("/five"), json!("/six")),
            ("/five", "differs_from", json!("/six"), json!("/five")),
            ("/five", "lt_pointer", json!("/six"), json!("/half")),
            ("/six", "sum_of", json!(["/five", "/list/1/a"]), json!(["/five", "/five"])),
            ("/base64", "base64_of", json!("ä"), json!("a")),
        ]);
    }

    /// Operator, pointer for which it holds, pointer for which it does not.
    #[test]
    fn presence() {
        for (op, holds, fails_for) in [
            ("exists", "/null", "/nothing"),
            ("present", "/zero", "/null"),
            ("absent", "/nothing", "/null"),
            ("absent_or_null", "/null", "/zero"),
            ("empty", "/none", "/list"),
            ("empty", "/empty", "/zero"),
            ("empty", "/nothing", "/yes"),
        ] {
            assert_eq!(fails(&json!({"pointer": holds, "op": op})), None, "{op} {holds}");
            assert!(fails(&json!({"pointer": fails_for, "op": op})).is_some(), "{op} {fails_for}");
        }
    }

    #[test]
    fn a_missing_value_satisfies_only_the_operators_that_say_so() {
        let group = json!([{"pointer": "", "op": "exists"}]);
        for (op, value) in [
            ("not_equals", json!(1)),
            ("not_matches", json!("x")),
            ("not_contains", json!("x")),
            ("none", group.clone()),
            ("no_key", json!(["x"])),
            ("no_text", json!("x")),
        ] {
            assert_eq!(fails(&json!({"pointer": "/nothing", "op": op, "value": value})), None, "{op}");
        }
        for (op, value) in [
            ("equals", json!(null)),
            ("includes", json!({})),
            ("matches", json!("")),
            ("has_text", json!("")),
            ("max_length", json!(9)),
            ("every", group),
            ("same_as", json!("/nothing")),
            ("differs_from", json!("/five")),
            ("lt", json!(9)),
        ] {
            assert!(fails(&json!({"pointer": "/nothing", "op": op, "value": value})).is_some(), "{op}");
        }
    }

    #[test]
    fn pointers() {
        let document = document();
        let at = |pointer| resolve(&document, pointer);
        assert_eq!(at("/a~1b/~0"), Some(&json!(1)));
        assert_eq!(at("/list/-"), Some(&json!("x")));
        assert_eq!(at("/list/1/b"), Some(&json!(2)));
        assert_eq!(at(""), Some(&document));
        for missing in ["/list/3", "/list/x", "/list/-1", "/none/-", "/five/0", "/nothing"] {
            assert_eq!(at(missing), None, "{missing}");
        }
    }

    #[test]
    fn combinators() {
        let yes = json!({"pointer": "/five", "op": "equals", "value": 5});
        let no = json!({"pointer": "/five", "op": "equals", "value": 6});
        for (assertion, holds) in [
            (json!({"any": [[no], [yes]]}), true),
            (json!({"any": [[yes, no], [no]]}), false),
            (json!({"all": [yes, yes]}), true),
            (json!({"all": [yes, no]}), false),
            (json!({"not": [yes, no]}), true),
            (json!({"not": [yes]}), false),
            (json!({"if": [yes], "then": [yes], "else": [no]}), true),
            (json!({"if": [yes], "then": [no]}), false),
            (json!({"if": [no], "then": [no]}), true),
            (json!({"if": [no], "else": [no]}), false),
        ] {
            assert_eq!(fails(&assertion).is_none(), holds, "{assertion}");
        }
    }

    #[test]
    fn failures_say_what_was_found() {
        let said = |assertion: &Value| fails(assertion).unwrap();
        assert_eq!(said(&json!({"pointer": "/five", "op": "equals", "value": 6})), "/five equals 6: got 5");
        assert_eq!(said(&json!({"pointer": "/x", "op": "exists"})), "/x exists null: got <missing>");
        assert_eq!(
            said(&json!({"pointer": "/object", "op": "no_key", "value": ["key"]})),
            "/object no_key [\"key\"]: got {\"k\": {\"deep\": [{\"key\": 1}]}} key found at /k/deep/0/key"
        );
        assert!(said(&json!({"pointer": "/five", "op": "eqals", "value": 5})).contains("unknown operator"));
        assert!(said(&json!({"pointer": "/text", "op": "matches", "value": "("})).contains("unclosed"));
    }
}
