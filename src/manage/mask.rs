//! Secrets within JSON of the configuration: hidden where it is shown, put back where it returns.
//!
//! Enters: values as the file has them. Leaves: the same with masks for keys, passwords and header values;
//! and back: a mask in a change means the secret that stands there. May go wrong: a mask that means none or
//! several.

use super::answer::Refusal;
use config::{ProxySetting, Secret};
use serde_json::Value;
use std::collections::HashMap;

/// Members whose text is a secret.
const SECRET: [&str; 9] = [
    "api-key",
    "api-keys",
    "upstream-api-key",
    "secret-key",
    "access-token",
    "refresh-token",
    "auth-token",
    "client-secret",
    "password",
];

/// What a text stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Plain,
    Secret,
    Header,
    Proxy,
}

impl Sort {
    fn of(key: &str, above: Self) -> Self {
        match key {
            "proxy-url" => Self::Proxy,
            "headers" => Self::Header,
            key if SECRET.contains(&key) => Self::Secret,
            _ if above == Self::Header => Self::Header,
            _ => Self::Plain,
        }
    }

    fn mask(self, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Header if text.starts_with('$') => text.to_owned(),
            Self::Secret | Self::Header => Secret::from(text).masked(),
            Self::Proxy => serde_json::to_value(ProxySetting::parse(text))
                .ok()
                .and_then(|shown| shown.as_str().map(str::to_owned))
                .unwrap_or_default(),
        }
    }
}

/// Hides the secrets of a value; `key` is the member that it stands under.
pub(super) fn hide(value: &mut Value, key: &str) {
    hide_as(value, Sort::of(key, Sort::Plain));
}

fn hide_as(value: &mut Value, sort: Sort) {
    match value {
        Value::String(text) => *text = sort.mask(text),
        Value::Array(items) => items.iter_mut().for_each(|item| hide_as(item, sort)),
        Value::Object(members) => {
            for (key, value) in members {
                hide_as(value, Sort::of(key, sort));
            }
        }
        // A key that is written as a number is a key.
        Value::Number(number) if sort == Sort::Secret => *value = sort.mask(&number.to_string()).into(),
        _ => {}
    }
}

/// Puts the secrets of `old` where `new` has their masks.
pub(super) fn restore(new: &mut Value, old: &Value, key: &str) -> Result<(), Refusal> {
    let sort = Sort::of(key, Sort::Plain);
    let mut known = Vec::new();
    collect(old, sort, &mut known);
    restore_as(new, Some(old), sort, &known)
}

fn collect<'v>(value: &'v Value, sort: Sort, known: &mut Vec<(String, &'v str)>) {
    match value {
        Value::String(text) => {
            let mask = sort.mask(text);
            if mask != *text {
                known.push((mask, text));
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, sort, known)),
        Value::Object(members) => {
            members.iter().for_each(|(key, value)| collect(value, Sort::of(key, sort), known));
        }
        _ => {}
    }
}

fn restore_as(
    new: &mut Value,
    old: Option<&Value>,
    sort: Sort,
    known: &[(String, &str)],
) -> Result<(), Refusal> {
    match new {
        Value::String(text) if sort != Sort::Plain && !text.is_empty() => {
            let here = old.and_then(Value::as_str).filter(|old| sort.mask(old) == *text);
            let mut found = known.iter().filter(|(mask, _)| mask == text).map(|(_, secret)| *secret);
            let first = found.next();
            match (here, first) {
                (Some(secret), _) => secret.clone_into(text),
                (None, Some(secret)) if found.all(|other| other == secret) => secret.clone_into(text),
                (None, Some(_)) => {
                    return Err(Refusal::bad("a masked secret means more than one; send the secret itself"));
                }
                (None, None) if text.chars().all(|c| c == '*') => {
                    return Err(Refusal::bad("a mask stands where a secret should"));
                }
                (None, None) => {}
            }
        }
        Value::Array(items) => {
            let before = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let places = places(before, sort);
            for (n, item) in items.iter_mut().enumerate() {
                let at = match places.get(&item.to_string()).map(Vec::as_slice) {
                    Some([one]) => *one,
                    _ => n,
                };
                restore_as(item, before.get(at), sort, known)?;
            }
        }
        Value::Object(members) => {
            for (key, value) in members {
                restore_as(value, old.and_then(|old| old.get(key)), Sort::of(key, sort), known)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Where elements stand, by what is shown of them: one that was only moved is found again.
fn places(items: &[Value], sort: Sort) -> HashMap<String, Vec<usize>> {
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (n, item) in items.iter().enumerate() {
        let mut shown = item.clone();
        hide_as(&mut shown, sort);
        places.entry(shown.to_string()).or_default().push(n);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn old() -> Value {
        json!([
            {"api-key": "canary-one", "base-url": "http://h", "headers": {"X-A": "canary-two", "X-B": "$X-C"},
             "proxy-url": "http://u:canary-three@h:1", "models": [{"name": "m"}]},
            {"api-key": "sk-canary-0123456789-0123456789", "api-key-entries": [{"api-key": "canary-four"}]},
        ])
    }

    #[test]
    fn p53_nothing_secret_is_shown_and_all_else_is() {
        let mut shown = old();
        hide(&mut shown, "claude-api-key");
        let text = shown.to_string();
        assert!(!text.contains("canary"), "{text}");
        for kept in ["http://h", "$X-C", "\"m\"", "h:1"] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
        let mut keys = json!(["canary", 12345]);
        hide(&mut keys, "api-keys");
        assert_eq!(keys, json!(["********", "********"]));
    }

    #[test]
    fn what_was_shown_comes_back_as_it_was() {
        let mut shown = old();
        hide(&mut shown, "claude-api-key");
        let mut back = shown.clone();
        restore(&mut back, &old(), "claude-api-key").unwrap();
        assert_eq!(back, old());
        let mut moved = json!([shown[1].clone(), {"api-key": "new"}]);
        restore(&mut moved, &old(), "claude-api-key").unwrap();
        assert_eq!(moved[0]["api-key"], old()[1]["api-key"], "its ends tell which it is");
        assert_eq!(moved[1]["api-key"], "new");
        let mut unclear = json!([{"api-key": "b"}, {"api-key": "********"}]);
        assert!(restore(&mut unclear, &old(), "claude-api-key").is_err(), "several are this short");
        let mut none = json!(["********"]);
        assert!(restore(&mut none, &json!([]), "api-keys").is_err());
    }
}
