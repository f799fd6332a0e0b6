//! What an operator changes in bodies that are ready to go upstream.
//!
//! Enters: an upstream's body and whom it is for ([`Subject`]). Leaves: the body with the rules applied, or
//! nothing when none of them had anything to do. Nothing may go wrong: a path that leads nowhere changes
//! nothing; paths and values were checked when the rules were made.
//!
//! Rules run in order; each sees what those before it did. A [`Change::Default`] looks at the body as it came:
//! it sets what is absent there, and of several for one path the first one counts.

mod find;
mod path;
mod query;

pub use path::Path;

use crate::Protocol;
use crate::json::{Json, parse_any};
use crate::patch::members;
use crate::target::Profile;
use find::{remove, set, values};
use std::borrow::Cow;
use wildmatch::WildMatchPattern;

/// `*` stands for anything, and nothing else is special.
pub type Glob = WildMatchPattern<'*', '\0'>;

/// Rules, in the order in which they are applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules(pub Vec<Rule>);

/// Changes, and the requests that they are for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Requests of any of these kinds.
    pub scopes: Vec<Scope>,
    /// What happens to them, in order.
    pub changes: Vec<Change>,
}

/// A change.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Sets what is absent. The value is JSON text.
    Default(Path, String),
    /// Sets, whatever is there. The value is JSON text.
    Override(Path, String),
    /// Takes out.
    Filter(Path),
}

/// A kind of request. All that is said has to hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// Any of the names of the model.
    pub name: Glob,
    /// Format of the upstream; empty: any.
    pub protocol: String,
    /// Format of the client, as [`Protocol::name`] has it; empty: any.
    pub from_protocol: String,
    /// Names of client headers and what their values look like.
    pub headers: Vec<(String, Glob)>,
    /// The value at the path is this one; of several, one of them is.
    pub equal: Vec<(Path, Json<'static>)>,
    /// No value at the path is this one.
    pub unequal: Vec<(Path, Json<'static>)>,
    /// There is a value, and it is not null.
    pub exist: Vec<Path>,
    /// There is no value, or it is null.
    pub not_exist: Vec<Path>,
}

/// What a body is for.
#[derive(Clone, Copy)]
pub struct Subject<'s> {
    /// Names of the model: the upstream's, the client's without and with its thinking suffix.
    pub names: &'s [&'s str],
    /// Flavour of the upstream.
    pub profile: Profile,
    /// Format of the client.
    pub client: Protocol,
    /// All values of a client header.
    pub header: &'s dyn Fn(&str) -> Vec<&'s str>,
}

impl std::fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").field("names", &self.names).field("profile", &self.profile).finish()
    }
}

impl Rules {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The body with all rules for `subject` applied; `None` when it stays as it is. `body` is a valid JSON
    /// object.
    pub fn apply(&self, body: &[u8], subject: &Subject<'_>) -> Option<Vec<u8>> {
        let mut now = Cow::Borrowed(body);
        let mut defaulted: Vec<&Path> = Vec::new();
        for rule in &self.0 {
            let known: Vec<_> = rule.scopes.iter().filter(|scope| scope.is_for(subject)).collect();
            if known.is_empty() {
                continue;
            }
            let from = root(&now, subject.profile);
            if !known.iter().any(|scope| scope.holds(&now, from)) {
                continue;
            }
            for change in &rule.changes {
                let from = root(&now, subject.profile);
                let changed = match change {
                    Change::Default(path, value) => {
                        let came = root(body, subject.profile);
                        if defaulted.contains(&path) || !values(body, came, path).is_empty() {
                            continue;
                        }
                        defaulted.push(path);
                        set(&now, from, path, value)
                    }
                    Change::Override(path, value) => set(&now, from, path, value),
                    Change::Filter(path) => remove(&now, from, path),
                };
                if let Some(changed) = changed {
                    now = Cow::Owned(changed);
                }
            }
        }
        match now {
            Cow::Borrowed(_) => None,
            Cow::Owned(changed) => Some(changed),
        }
    }
}

/// Where paths begin: the body, or what an envelope holds.
fn root(body: &[u8], profile: Profile) -> usize {
    if !matches!(profile, Profile::Antigravity | Profile::GeminiCli) {
        return 0;
    }
    members(body, 0).find(|member| member.key == b"request").map_or(0, |member| member.value.start)
}

impl Scope {
    /// What can be told without the body.
    fn is_for(&self, subject: &Subject<'_>) -> bool {
        subject.names.iter().any(|name| self.name.matches(name))
            && speaks(subject.profile, &self.protocol)
            && (self.from_protocol.is_empty() || self.from_protocol == subject.client.name())
            && self
                .headers
                .iter()
                .all(|(name, looks)| (subject.header)(name).into_iter().any(|value| looks.matches(value)))
    }

    /// What the body has to say.
    fn holds(&self, body: &[u8], from: usize) -> bool {
        let is = |path: &Path, wanted: &Json<'_>| {
            let mut found = values(body, from, path).into_iter();
            found.any(|span| read(body, span).is_some_and(|value| same(&value, wanted)))
        };
        let there =
            |path: &Path| values(body, from, path).into_iter().any(|span| body.get(span) != Some(b"null"));
        self.equal.iter().all(|(path, wanted)| is(path, wanted))
            && !self.unequal.iter().any(|(path, wanted)| is(path, wanted))
            && self.exist.iter().all(there)
            && !self.not_exist.iter().any(there)
    }
}

/// Whether an upstream speaks a format by this name. The two flavours of Responses answer to both names: one
/// list of keys holds both.
fn speaks(profile: Profile, name: &str) -> bool {
    match name {
        "" => true,
        "codex" | "openai-response" => profile.protocol() == Protocol::OpenaiResponses,
        other => profile.name() == other,
    }
}

fn read(body: &[u8], span: std::ops::Range<usize>) -> Option<Json<'_>> {
    parse_any(body.get(span)?).ok()
}

/// Whether two values mean the same: numbers by value, objects in any order.
fn same(a: &Json<'_>, b: &Json<'_>) -> bool {
    match (a, b) {
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => {
            let numbers = a.as_f64().zip(b.as_f64());
            a == b || numbers.is_some_and(|(a, b)| a.partial_cmp(&b) == Some(std::cmp::Ordering::Equal))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))
    }

    fn set_at(body: &str, at: &str, value: &str) -> String {
        let changed = set(body.as_bytes(), 0, &path(at), value);
        String::from_utf8(changed.unwrap_or_else(|| body.as_bytes().to_vec())).unwrap()
    }

    fn remove_at(body: &str, at: &str) -> String {
        let changed = remove(body.as_bytes(), 0, &path(at));
        String::from_utf8(changed.unwrap_or_else(|| body.as_bytes().to_vec())).unwrap()
    }

    #[test]
    fn values_are_set_where_the_path_leads_and_nothing_else_changes() {
        let body = r#"{ "a" : {"b":1.0}, "t":[ {"k":"x"}, {"k":"y","v":0} ,3], "n":null }"#;
        for (at, value, before, after) in [
            ("a.b", "2", r#""b":1.0"#, r#""b":2"#),
            ("a.c", "2", r#"{"b":1.0}"#, r#"{"c":2,"b":1.0}"#),
            ("a.c.d", "true", r#"{"b":1.0}"#, r#"{"c":{"d":true},"b":1.0}"#),
            ("a.c.1", "true", r#"{"b":1.0}"#, r#"{"c":[null,true],"b":1.0}"#),
            ("t.0", "7", r#"{"k":"x"}"#, "7"),
            ("t.1.v", "1", r#""v":0"#, r#""v":1"#),
            ("t.-1", "4", ",3]", ",3,4]"),
            ("t.4", "4", ",3]", ",3,null,4]"),
            (r#"t.#(k=="y").v"#, "9", r#""v":0"#, r#""v":9"#),
            (r#"t.#(k=="x").v"#, "9", r#"{"k":"x"}"#, r#"{"v":9,"k":"x"}"#),
            ("n.x.y", "1", "null", r#"{"x":{"y":1}}"#),
            ("n", "1", "null", "1"),
        ] {
            assert_eq!(set_at(body, at, value), body.replacen(before, after, 1), "{at}");
        }
        for nowhere in ["a.b.c", "t.x", r#"t.#(k=="z").v"#, "t.0.k.x", "new.#(a==1).b"] {
            assert_eq!(set_at(body, nowhere, "1"), body, "{nowhere}");
        }
        assert_eq!(
            set_at(r#"{"t":[{"k":1},{"k":2},{"j":3}]}"#, "t.#(k)#.on", "true"),
            r#"{"t":[{"on":true,"k":1},{"on":true,"k":2},{"j":3}]}"#
        );
    }

    #[test]
    fn values_are_taken_out_with_one_comma() {
        let body = r#"{"a":{"b":1,"c":2}, "t":[1, {"k":"x"} ,{"k":"y"}]}"#;
        for (at, after) in [
            ("a", r#"{"t":[1, {"k":"x"} ,{"k":"y"}]}"#),
            ("a.b", r#"{"a":{"c":2}, "t":[1, {"k":"x"} ,{"k":"y"}]}"#),
            ("t.0", r#"{"a":{"b":1,"c":2}, "t":[{"k":"x"} ,{"k":"y"}]}"#),
            ("t.#(k)#", r#"{"a":{"b":1,"c":2}, "t":[1]}"#),
            (r#"t.#(k=="y")"#, r#"{"a":{"b":1,"c":2}, "t":[1, {"k":"x"}]}"#),
            ("t.#(k)#.k", r#"{"a":{"b":1,"c":2}, "t":[1, {} ,{}]}"#),
            ("t.7", body),
            ("x.y", body),
        ] {
            assert_eq!(remove_at(body, at), after, "{at}");
        }
    }

    #[test]
    fn a_name_that_hides_behind_an_escape_or_a_double_is_found() {
        let body = r#"{"\u0074op_k":1,"top_k":2,"x":3}"#;
        assert_eq!(remove_at(body, "top_k"), r#"{"x":3}"#);
        assert_eq!(set_at(body, "top_k", "9"), r#"{"\u0074op_k":9,"top_k":9,"x":3}"#);
        assert_eq!(remove_at(r#"{"a.b":1,"a":{"b":2}}"#, r"a\.b"), r#"{"a":{"b":2}}"#);
    }

    fn scope(name: &str) -> Scope {
        Scope { name: Glob::new(name), ..Scope::default() }
    }

    fn applied(rules: Vec<Rule>, body: &str) -> String {
        let subject = Subject {
            names: &["up-1", "team/fast", "team/fast(high)"],
            profile: Profile::Chat,
            client: Protocol::Claude,
            header: &|name| {
                if name.eq_ignore_ascii_case("x-team") { vec!["a", "blue-2"] } else { Vec::new() }
            },
        };
        let changed = Rules(rules).apply(body.as_bytes(), &subject);
        String::from_utf8(changed.unwrap_or_else(|| body.as_bytes().to_vec())).unwrap()
    }

    fn rule(scope: Scope, changes: Vec<Change>) -> Rule {
        Rule { scopes: vec![scope], changes }
    }

    fn put(at: &str, value: &str) -> Change {
        Change::Override(path(at), value.to_owned())
    }

    fn default(at: &str, value: &str) -> Change {
        Change::Default(path(at), value.to_owned())
    }

    #[test]
    fn defaults_look_at_the_body_as_it_came_and_the_first_one_counts() {
        let rules = vec![
            rule(scope("*"), vec![default("a.b", "1"), default("t", "1"), default("n", "1")]),
            rule(scope("*"), vec![default("a.b", "2"), default("a", "{}")]),
        ];
        assert_eq!(applied(rules.clone(), r#"{"t":0.5,"n":null}"#), r#"{"a":{},"t":0.5,"n":null}"#);
        assert_eq!(applied(rules, r#"{"a":{"c":1},"t":0,"n":0}"#), r#"{"a":{"b":1,"c":1},"t":0,"n":0}"#);
    }

    #[test]
    fn rules_see_what_those_before_them_did() {
        let later = Scope { equal: vec![(path("a"), Json::Uint(1))], ..scope("*") };
        let rules = vec![
            rule(scope("*"), vec![put("a", "1")]),
            rule(later, vec![put("b", "2"), Change::Filter(path("a"))]),
        ];
        assert_eq!(applied(rules, r#"{"a":0}"#), r#"{"b":2}"#);
    }

    #[test]
    fn a_scope_holds_when_all_of_it_does() {
        const BODY: &str = r#"{"m":[{"r":"user"},{"r":"tool"}],"n":2.0,"z":null}"#;
        let fits = |scope: Scope| applied(vec![rule(scope, vec![put("hit", "1")])], BODY) != BODY;
        let one = |at: &str, value: &str| vec![(path(at), parse_any(value.as_bytes()).unwrap().into_owned())];
        for name in ["up-*", "up-1", "team/fast", "*fast(high)", "*"] {
            assert!(fits(scope(name)), "{name}");
        }
        for name in ["", "UP-1", "up", "fast", "team/fast?high?"] {
            assert!(!fits(scope(name)), "{name}");
        }
        let all = scope("*");
        let headers = |value: &str| vec![("X-Team".to_owned(), Glob::new(value))];
        let cases = [
            (
                Scope { protocol: "openai".to_owned(), from_protocol: "claude".to_owned(), ..all.clone() },
                true,
            ),
            (Scope { protocol: "codex".to_owned(), ..all.clone() }, false),
            (Scope { from_protocol: "openai".to_owned(), ..all.clone() }, false),
            (Scope { headers: headers("blue-*"), ..all.clone() }, true),
            (Scope { headers: headers("red*"), ..all.clone() }, false),
            (Scope { equal: one("n", "2"), ..all.clone() }, true),
            (Scope { equal: one("m.#(r)#.r", "\"tool\""), ..all.clone() }, true),
            (Scope { equal: one("m.#(r).r", "\"tool\""), ..all.clone() }, false),
            (Scope { equal: one("m.0", "{\"r\":\"user\"}"), ..all.clone() }, true),
            (Scope { unequal: one("n", "2"), ..all.clone() }, false),
            (Scope { unequal: one("none", "2"), ..all.clone() }, true),
            (Scope { exist: vec![path("m"), path("n")], ..all.clone() }, true),
            (Scope { exist: vec![path("z")], ..all.clone() }, false),
            (Scope { not_exist: vec![path("z"), path("y")], ..all.clone() }, true),
            (Scope { not_exist: vec![path("n")], ..all }, false),
        ];
        for (scope, expected) in cases {
            assert_eq!(fits(scope.clone()), expected, "{scope:?}");
        }
    }

    #[test]
    fn in_an_envelope_paths_begin_inside() {
        let rules = Rules(vec![rule(scope("*"), vec![put("model", "1"), Change::Filter(path("a"))])]);
        let subject = Subject {
            names: &["m"],
            profile: Profile::Antigravity,
            client: Protocol::Gemini,
            header: &|_| vec![],
        };
        let changed = rules.apply(br#"{"model":"m", "request" : {"a":1}}"#, &subject).unwrap();
        assert_eq!(String::from_utf8(changed).unwrap(), r#"{"model":"m", "request" : {"model":1}}"#);
    }

    #[test]
    fn nothing_to_do_leaves_the_body_where_it_is() {
        let rules = Rules(vec![
            rule(scope("other"), vec![put("a", "1")]),
            rule(scope("*"), vec![default("a", "1"), Change::Filter(path("b"))]),
        ]);
        let subject = Subject {
            names: &["m"],
            profile: Profile::Chat,
            client: Protocol::OpenaiChat,
            header: &|_| vec![],
        };
        assert_eq!(rules.apply(br#"{"a":0}"#, &subject), None);
    }

    /// A document, and a path of members that may or may not be in it.
    fn document() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![Just("1.50".to_owned()), Just("\"s,}\"".to_owned()), Just("null".to_owned())];
        let value = leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::btree_map("[a-d]", inner.clone(), 0..4).prop_map(|members| {
                    let all: Vec<_> = members.iter().map(|(k, v)| format!("\"{k}\" : {v}")).collect();
                    format!("{{{}}}", all.join(", "))
                }),
                prop::collection::vec(inner, 0..4).prop_map(|items| format!("[ {}]", items.join(" ,"))),
            ]
        });
        prop::collection::btree_map("[a-d]", value, 0..4).prop_map(|members| {
            let all: Vec<_> = members.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
            format!("{{{}}}", all.join(","))
        })
    }

    /// What [`set`] means, on the tree.
    fn set_in<'a>(value: &mut Json<'a>, names: &[&'a str], new: &Json<'a>) {
        let Some((name, rest)) = names.split_first() else {
            *value = new.clone();
            return;
        };
        let number: Option<usize> = name.parse().ok();
        if value.is_null() {
            *value = if number.is_some() {
                Json::Array(Vec::new())
            } else {
                Json::Object(crate::json::Map::default())
            };
        }
        match value {
            Json::Object(map) => {
                if !map.has(name) {
                    map.0.insert(0, ((*name).into(), Json::Null));
                }
                let below = map.get_mut(name).unwrap();
                if rest.is_empty() || !matches!(below, Json::Str(_) | Json::Float(_)) {
                    set_in(below, rest, new);
                }
            }
            Json::Array(items) => {
                let Some(number) = number else { return };
                while items.len() <= number {
                    items.push(Json::Null);
                }
                let below = &mut items[number];
                if rest.is_empty() || !matches!(below, Json::Str(_) | Json::Float(_)) {
                    set_in(below, rest, new);
                }
            }
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn setting_on_the_bytes_is_setting_in_the_tree(text in document(), names in prop::collection::vec("[a-d]|[0-2]", 1..4)) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let changed = set_at(&text, &names.join("."), "[true]");
            let mut tree = parse_any(text.as_bytes()).unwrap();
            set_in(&mut tree, &names, &Json::Array(vec![Json::Bool(true)]));
            prop_assert_eq!(parse_any(changed.as_bytes()).unwrap(), tree, "{}", changed);
        }

        #[test]
        fn what_was_set_is_found_and_what_was_taken_out_is_not(text in document(), names in prop::collection::vec("[a-d]|[0-2]", 1..4)) {
            let at = path(&names.join("."));
            if let Some(changed) = set(text.as_bytes(), 0, &at, "true") {
                let found: Vec<_> = values(&changed, 0, &at).into_iter().map(|span| changed[span].to_vec()).collect();
                prop_assert_eq!(found, [b"true".to_vec()]);
            }
            if let Some(changed) = remove(text.as_bytes(), 0, &at) {
                let tree = parse_any(&changed);
                prop_assert!(tree.is_ok(), "{}", String::from_utf8_lossy(&changed));
                let member = names.last().is_some_and(|name| name.parse::<usize>().is_err());
                prop_assert!(!member || values(&changed, 0, &at).is_empty());
            }
        }
    }
}
