//! Changes to the text of the file, by whoever steers the proxy while it runs.
//!
//! Enters: the text, a path of keys, a new value. Leaves: the text with that value; comments, the order of
//! keys and everything that nobody reads stay as they are. May go wrong: the text cannot be changed without
//! changing something else as well ([`EditError`]); then nothing is changed. What leaves was read again and
//! says what it should.
//!
//! Only the difference is written: of a list the elements that are new, of a map the keys that changed.

use serde_yaml::{Mapping as Map, Value};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use yaml_edit::{Document, Mapping, Sequence, YamlNode};

/// Why a text stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It is no YAML, or not a map.
    #[error("the configuration file cannot be read: {0}")]
    Unreadable(String),
    /// The editor cannot say this in the file as it is written.
    #[error("`{0}` cannot be changed where it stands (anchors, merge keys or tags?); edit the file by hand")]
    Stuck(String),
}

/// The document as values, merge keys applied.
pub fn document(text: &str) -> Result<serde_json::Value, EditError> {
    Ok(to_json(&Value::Mapping(parsed(text)?)))
}

/// The text with `value` at `path`; `None` takes it out.
pub fn rewrite(text: &str, path: &[&str], value: Option<&serde_json::Value>) -> Result<String, EditError> {
    let old = parsed(text)?;
    let mut new = old.clone();
    let value =
        value.map(serde_yaml::to_value).transpose().map_err(|e| EditError::Unreadable(e.to_string()))?;
    place(&mut new, path, value);
    if new == old {
        return Ok(text.to_owned());
    }
    let stuck = || EditError::Stuck(path.join("."));
    let bom = if text.starts_with('\u{feff}') { "\u{feff}" } else { "" };
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let edited = if old.is_empty() {
        // There is nothing but comments.
        let gap = if body.is_empty() || body.ends_with('\n') { "" } else { "\n" };
        Some(format!("{body}{gap}{}", serde_yaml::to_string(&new).unwrap_or_default()))
    } else {
        // The editor of others may have a mistake in it that shows itself as a panic.
        catch_unwind(AssertUnwindSafe(|| edited(body, &old, &new))).ok().flatten()
    };
    let edited = format!("{bom}{}", edited.ok_or_else(stuck)?);
    match parsed(&edited) {
        Ok(found) if found == new => Ok(edited),
        _ => Err(stuck()),
    }
}

fn parsed(text: &str) -> Result<Map, EditError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let unreadable = |error: serde_yaml::Error| EditError::Unreadable(error.to_string());
    let mut value: Value = serde_yaml::from_str(text).map_err(unreadable)?;
    value.apply_merge().map_err(unreadable)?;
    match value {
        Value::Mapping(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => Err(EditError::Unreadable("expected keys and values".to_owned())),
    }
}

/// Puts `value` at `path`. A map that becomes empty because a key was taken out stays.
fn place(map: &mut Map, path: &[&str], value: Option<Value>) {
    let Some((key, rest)) = path.split_first() else { return };
    let key = Value::String((*key).to_owned());
    if rest.is_empty() {
        match value {
            Some(value) => drop(map.insert(key, value)),
            None => drop(map.remove(&key)),
        }
        return;
    }
    if !matches!(map.get(&key), Some(Value::Mapping(_))) {
        if value.is_none() {
            return;
        }
        map.insert(key.clone(), Value::Mapping(Map::new()));
    }
    if let Some(Value::Mapping(below)) = map.get_mut(&key) {
        place(below, rest, value);
    }
}

fn edited(text: &str, old: &Map, new: &Map) -> Option<String> {
    let document = Document::from_str(text).ok()?;
    change_map(&document.as_mapping()?, old, new)?;
    Some(document.to_string())
}

fn change_map(node: &Mapping, old: &Map, new: &Map) -> Option<()> {
    for (key, _) in old.iter().filter(|(key, _)| !new.contains_key(key)) {
        node.remove(key.as_str()?)?;
    }
    for (key, value) in new {
        let name = key.as_str()?;
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before) => {
                let changed = node.get(name).and_then(|node| change(&node, before, value));
                if changed.is_none() {
                    node.set(name, Made::of(value)?);
                }
            }
            None => node.set(name, Made::of(value)?),
        }
    }
    Some(())
}

/// Changes a collection where it stands; `None`: it has to be replaced, as one that another key lends.
fn change(node: &YamlNode, old: &Value, new: &Value) -> Option<()> {
    match (node, old, new) {
        (YamlNode::Mapping(node), Value::Mapping(old), Value::Mapping(new)) => change_map(node, old, new),
        (YamlNode::Sequence(node), Value::Sequence(old), Value::Sequence(new)) if !new.is_empty() => {
            change_list(node, old, new)
        }
        _ => None,
    }
}

fn change_list(node: &Sequence, old: &[Value], new: &[Value]) -> Option<()> {
    let same = |(a, b): &(&Value, &Value)| a == b;
    let head = old.iter().zip(new).take_while(same).count();
    let (old, new) = (old.get(head..)?, new.get(head..)?);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
    let old = old.get(..old.len() - tail)?;
    let new = new.get(..new.len() - tail)?;
    let both = old.len().min(new.len());
    for (n, (old, new)) in old.iter().zip(new).enumerate() {
        if old == new {
            continue;
        }
        let changed = node.get(head + n).and_then(|node| change(&node, old, new));
        if changed.is_none() && !node.set(head + n, Made::of(new)?) {
            return None;
        }
    }
    for n in (both..old.len()).rev() {
        node.remove(head + n)?;
    }
    for (n, value) in new.iter().enumerate().skip(both) {
        node.insert(head + n, Made::of(value)?);
    }
    Some(())
}

/// A value as the editor takes it.
struct Made(Document);

impl Made {
    fn of(value: &Value) -> Option<YamlNode> {
        let made = Self(Document::from_str(&format!("value: {}", inline(value)?)).ok()?);
        made.0.as_mapping()?.get("value")
    }
}

/// JSON is YAML in flow style: one line, wherever it is put.
fn inline(value: &Value) -> Option<String> {
    serde_json::to_string(&to_json(value)).ok()
}

fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => serde_json::to_value(number).unwrap_or_default(),
        Value::String(text) => text.as_str().into(),
        Value::Sequence(items) => items.iter().map(to_json).collect(),
        Value::Mapping(map) => serde_json::Value::Object(
            map.iter()
                .map(|(key, value)| {
                    let key = match key {
                        Value::String(key) => key.clone(),
                        other => serde_yaml::to_string(other).unwrap_or_default().trim().to_owned(),
                    };
                    (key, to_json(value))
                })
                .collect(),
        ),
        Value::Tagged(tagged) => to_json(&tagged.value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const EXAMPLE: &str = include_str!("../../conf/config.example.yaml");

    const FILE: &str = "# at the top\n\
        port: 8317 # where\n\
        # why we do this\n\
        debug: false   # off\n\
        api-keys:\n  # alice\n  - \"one\" # of hers\n  # bob\n  - two\n\
        quota-exceeded: {switch-project: false, switch-preview-model: true} # both\n\
        unknown-key: [1, 2]\n\
        claude-api-key:\n  # first\n  - api-key: a # the key\n    # its prefix\n    prefix: p\n  - api-key: b\n    models:\n      - name: m # model\n        alias: n\n\
        # the end\n";

    fn set(text: &str, path: &[&str], value: impl Into<serde_json::Value>) -> String {
        rewrite(text, path, Some(&value.into())).unwrap()
    }

    #[test]
    fn p50_a_change_is_the_only_change() {
        for (path, value, was, is) in [
            (&["debug"][..], json!(true), "debug: false   # off", "debug: true   # off"),
            (&["port"], json!(99), "port: 8317 # where", "port: 99 # where"),
            (
                &["quota-exceeded", "switch-project"],
                json!(true),
                "{switch-project: false,",
                "{switch-project: true,",
            ),
        ] {
            assert_eq!(set(FILE, path, value), FILE.replace(was, is));
        }
        assert_eq!(rewrite(FILE, &["debug"], Some(&json!(false))).unwrap(), FILE, "nothing changed");
    }

    #[test]
    fn p50_lists_keep_the_comments_of_what_stays() {
        let added = set(FILE, &["api-keys"], json!(["one", "two", "three"]));
        assert!(
            added.contains("  - two\n  - three\n") || added.contains("  - two\n  - \"three\"\n"),
            "{added}"
        );
        let gone = set(FILE, &["api-keys"], json!(["two"]));
        assert!(gone.contains("  - two\n") && gone.contains("# bob") && !gone.contains("\"one\""), "{gone}");
        let mut entries = document(FILE).unwrap()["claude-api-key"].clone();
        entries[0]["prefix"] = json!("q");
        let changed = set(FILE, &["claude-api-key"], entries.clone());
        assert_eq!(changed.replace("\"q\"", "q"), FILE.replace("prefix: p", "prefix: q"));
        entries.as_array_mut().unwrap().push(json!({"api-key": "c", "headers": {"X-A": "b: #c"}}));
        let longer = set(FILE, &["claude-api-key"], entries);
        for kept in ["# the key", "# its prefix", "# model", "# the end", "# at the top"] {
            assert!(longer.contains(kept), "{kept}: {longer}");
        }
    }

    #[test]
    fn keys_come_and_go() {
        let text = set(FILE, &["routing", "strategy"], json!("fill-first"));
        assert_eq!(document(&text).unwrap()["routing"], json!({"strategy": "fill-first"}));
        let text = rewrite(&text, &["routing"], None).unwrap();
        assert_eq!(document(&text).unwrap(), document(FILE).unwrap());
        assert_eq!(set("# only this\n", &["debug"], json!(true)), "# only this\ndebug: true\n");
        assert_eq!(set("", &["debug"], json!(true)), "debug: true\n");
        let empty = set(FILE, &["api-keys"], json!([]));
        assert_eq!(document(&empty).unwrap()["api-keys"], json!([]));
        let again = set(&empty, &["api-keys"], json!(["x"]));
        assert_eq!(document(&again).unwrap()["api-keys"], json!(["x"]));
    }

    #[test]
    fn line_ends_and_byte_order_marks_stay() {
        let text = format!("\u{feff}{}", FILE.replace('\n', "\r\n"));
        let changed = set(&text, &["debug"], json!(true));
        assert!(
            changed.starts_with('\u{feff}') && changed.contains("debug: true   # off\r\n"),
            "{changed:?}"
        );
    }

    #[test]
    fn what_cannot_be_said_is_refused_and_nothing_is_guessed() {
        assert!(matches!(rewrite("a: [", &["b"], Some(&json!(1))), Err(EditError::Unreadable(_))));
        assert!(matches!(rewrite("- a\n", &["b"], Some(&json!(1))), Err(EditError::Unreadable(_))));
        let merged = "x: &x {debug: true, port: 1}\nclaude: {<<: *x, port: 2}\n";
        let changed = set(merged, &["claude", "debug"], json!(false));
        assert_eq!(document(&changed).unwrap()["claude"], json!({"debug": false, "port": 2}));
        let without = rewrite(merged, &["claude", "debug"], None).unwrap();
        assert_eq!(document(&without).unwrap()["claude"], json!({"port": 2}));
    }

    #[test]
    fn the_example_takes_every_kind_of_change() {
        let text = EXAMPLE;
        let comments = |text: &str| text.lines().filter(|l| l.trim_start().starts_with('#')).count();
        let mut now = text.to_owned();
        for (path, value) in [
            (&["debug"][..], json!(true)),
            (&["request-retry"], json!(7)),
            (&["quota-exceeded", "switch-project"], json!(false)),
            (&["api-keys"], json!(["a", "b"])),
            (&["claude-api-key"], json!([{"api-key": "k", "models": [{"name": "m"}]}])),
            (&["oauth-excluded-models"], json!({"codex": ["a*"]})),
            (&["proxy-url"], json!("socks5://h:1")),
        ] {
            now = set(&now, path, value);
            crate::load(now.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{now}"));
        }
        assert!(comments(&now) + 3 >= comments(text), "{} of {}", comments(&now), comments(text));
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Into::into),
            any::<i32>().prop_map(Into::into),
            "[ -~]{0,12}".prop_map(Into::into),
            "[a-zé#:'\"\\\\{}\\[\\]&*!|>%@,? \n\t-]{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::btree_map("[a-z-]{1,6}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn p50_whatever_is_written_reads_as_meant(
            edits in proptest::collection::vec((0_usize..8, value()), 1..6)
        ) {
            let paths: [&[&str]; 8] = [
                &["debug"], &["api-keys"], &["claude-api-key"], &["quota-exceeded", "switch-project"],
                &["quota-exceeded"], &["new"], &["unknown-key"], &["deep", "er"],
            ];
            let mut text = FILE.to_owned();
            for (which, value) in edits {
                // `rewrite` compares what it wrote itself; here it counts that it can.
                let changed = rewrite(&text, paths[which], Some(&value));
                prop_assert!(changed.is_ok(), "{value} at {:?}:\n{text}", paths[which]);
                text = changed.unwrap();
                prop_assert!(text.contains("# at the top"), "{text}");
            }
        }
    }
}
