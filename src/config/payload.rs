//! What is changed in request bodies right before they go upstream.
//!
//! Enters: `payload`. Leaves: [`Payload`], and [`Payload::rules`] for who applies them. May go wrong: paths
//! that are none and raw values that are not JSON, which [`crate::check`] refuses; rules that can never do
//! anything are left out there, with a warning.
//!
//! Paths are kept as they are spelt (`generationConfig.thinkingConfig.thinkingBudget`,
//! `tools.#(type=="web_search").type`); [`wire::payload::Path`] says what they mean.

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use wire::json::{Json, Map};
use wire::payload::{self, Change, Glob, Path};

/// Rules, in the order in which the lists are applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Payload {
    /// Set where the client said nothing; the first rule for a path wins.
    pub default: Vec<Rule<Params>>,
    /// The same, values written as JSON.
    pub default_raw: Vec<Rule<RawParams>>,
    /// Set whatever the client said.
    #[serde(rename = "override")]
    pub overrides: Vec<Rule<Params>>,
    /// The same, values written as JSON.
    pub override_raw: Vec<Rule<RawParams>>,
    /// Take out.
    pub filter: Vec<Rule<Vec<String>>>,
}

/// What to change, and for which requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Rule<P: Default> {
    /// Requests of any of these kinds.
    pub models: Vec<Scope>,
    /// What to change.
    pub params: P,
}

/// A kind of request. All that is said has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Scope {
    /// Model as the upstream or as the client calls it; `*` stands for anything.
    pub name: String,
    /// Format of the upstream, lower case (`openai`, `openai-response`, `claude`, `gemini`, `codex`,
    /// `antigravity`, …); empty: any.
    pub protocol: String,
    /// Format of the client, as [`wire::Protocol::name`] has it; empty: any.
    pub from_protocol: String,
    /// Client headers and patterns of their values.
    pub headers: BTreeMap<String, String>,
    /// Paths that have to hold these values.
    #[serde(rename = "match")]
    pub equal: Params,
    /// Paths that must not hold these values.
    #[serde(rename = "not-match")]
    pub not_equal: Params,
    /// Paths that have to be there and not null.
    pub exist: Vec<String>,
    /// Paths that must not be there, or be null.
    pub not_exist: Vec<String>,
}

impl Payload {
    /// The rules in the order in which they are applied, ready to be.
    pub fn rules(&self) -> payload::Rules {
        let mut rules = Vec::new();
        let paths = |params: &Params, change: fn(Path, String) -> Change| {
            changes(params.0.iter().map(|(path, value)| (path, value.as_str())), change)
        };
        let raw = |params: &RawParams, change: fn(Path, String) -> Change| {
            changes(params.0.iter().map(|(path, value)| (path, value.trim())), change)
        };
        rules.extend(self.default.iter().map(|rule| rule.ready(paths(&rule.params, Change::Default))));
        rules.extend(self.default_raw.iter().map(|rule| rule.ready(raw(&rule.params, Change::Default))));
        rules.extend(self.overrides.iter().map(|rule| rule.ready(paths(&rule.params, Change::Override))));
        rules.extend(self.override_raw.iter().map(|rule| rule.ready(raw(&rule.params, Change::Override))));
        rules.extend(self.filter.iter().map(|rule| {
            rule.ready(rule.params.iter().filter_map(|path| parsed(path)).map(Change::Filter).collect())
        }));
        payload::Rules(rules)
    }
}

impl Params {
    /// As a rule for whatever it is given to: each is set where there is none.
    pub fn defaults(&self) -> payload::Rules {
        let all = payload::Scope { name: Glob::new("*"), ..payload::Scope::default() };
        let changes = changes(self.0.iter().map(|(path, value)| (path, value.as_str())), Change::Default);
        let rule = payload::Rule { scopes: vec![all], changes };
        payload::Rules(if rule.changes.is_empty() { Vec::new() } else { vec![rule] })
    }
}

impl<P: Default> Rule<P> {
    fn ready(&self, changes: Vec<Change>) -> payload::Rule {
        payload::Rule { scopes: self.models.iter().map(Scope::ready).collect(), changes }
    }
}

impl Scope {
    fn ready(&self) -> payload::Scope {
        let values = |params: &Params| {
            let pairs = params.0.iter().filter_map(|(path, value)| {
                let value = wire::json::parse_any(value.as_str().as_bytes()).ok()?;
                Some((parsed(path)?, value.into_owned()))
            });
            pairs.collect()
        };
        let paths = |paths: &[String]| paths.iter().filter_map(|path| parsed(path)).collect();
        payload::Scope {
            name: Glob::new(&self.name),
            protocol: self.protocol.clone(),
            from_protocol: self.from_protocol.clone(),
            headers: self.headers.iter().map(|(name, looks)| (name.clone(), Glob::new(looks))).collect(),
            equal: values(&self.equal),
            unequal: values(&self.not_equal),
            exist: paths(&self.exist),
            not_exist: paths(&self.not_exist),
        }
    }
}

/// A path that was checked when the file was loaded.
fn parsed(path: &str) -> Option<Path> {
    Path::parse(path).ok()
}

fn changes<'p>(
    params: impl Iterator<Item = (&'p String, &'p str)>,
    change: fn(Path, String) -> Change,
) -> Vec<Change> {
    params.filter_map(|(path, value)| Some(change(parsed(path)?, value.to_owned()))).collect()
}

/// A value as compact JSON text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JsonText(String);

impl JsonText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value = wire::json::parse_any(text.as_bytes()).map_err(|error| error.to_string())?;
        Ok(Self(value.to_text()))
    }
}

/// Paths and values, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(pub Vec<(String, JsonText)>);

/// Paths and values that are written as JSON. All are JSON once the file is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawParams(pub Vec<(String, String)>);

impl Serialize for Params {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(Some(self.0.len()))?;
        for (path, JsonText(text)) in &self.0 {
            let value = wire::json::parse_any(text.as_bytes()).unwrap_or(Json::Null);
            map.serialize_entry(path, &Shown(&value))?;
        }
        map.end()
    }
}

impl Serialize for RawParams {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(self.0.iter().map(|(path, text)| (path, text)))
    }
}

/// A JSON value for any serializer.
struct Shown<'j>(&'j Json<'j>);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Json::Null => out.serialize_unit(),
            Json::Bool(value) => out.serialize_bool(*value),
            Json::Uint(value) => out.serialize_u64(*value),
            Json::Int(value) => out.serialize_i64(*value),
            Json::Float(value) => out.serialize_f64(*value),
            Json::Str(text) => out.serialize_str(text),
            Json::Raw(text) => out.serialize_str(text),
            Json::Array(items) => {
                let mut list = out.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(&Shown(item))?;
                }
                list.end()
            }
            Json::Object(members) => {
                let mut map = out.serialize_map(Some(members.len()))?;
                for (key, value) in members.iter() {
                    map.serialize_entry(key, &Shown(value))?;
                }
                map.end()
            }
        }
    }
}

/// A map, or a list of maps, of which it collects the entries: both spellings are in use for `match`.
struct Pairs<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
    type Value = Vec<(String, T)>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a map of paths and values")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = entries.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        struct One<T>(Vec<(String, T)>);
        impl<'de, T: Deserialize<'de>> Deserialize<'de> for One<T> {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                input.deserialize_map(Pairs(std::marker::PhantomData)).map(Self)
            }
        }
        let mut pairs = Vec::new();
        while let Some(One(more)) = items.next_element()? {
            pairs.extend(more);
        }
        Ok(pairs)
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(Pairs(std::marker::PhantomData)).map(Self)
    }
}

impl<'de> Deserialize<'de> for RawParams {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        /// Text as it is; what is written as YAML, as JSON.
        struct Raw(String);
        impl<'de> Deserialize<'de> for Raw {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                Ok(Self(match input.deserialize_any(Value)? {
                    Json::Str(text) => text.into_owned(),
                    other => other.to_text(),
                }))
            }
        }
        let pairs: Vec<(String, Raw)> = input.deserialize_any(Pairs(std::marker::PhantomData))?;
        Ok(Self(pairs.into_iter().map(|(path, raw)| (path, raw.0)).collect()))
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(Value).map(|value| Self(value.to_text()))
    }
}

/// A YAML value as JSON.
struct Value;

impl<'de> de::DeserializeSeed<'de> for Value {
    type Value = Json<'static>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = Json<'static>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value that JSON has")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Json::Uint(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Json::Int(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        if value.is_finite() { Ok(Json::Float(value)) } else { Err(E::custom("JSON has no such number")) }
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Json::Str(text.to_owned().into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            all.push(item);
        }
        Ok(Json::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            members.push((key.into(), entries.next_value_seed(Self)?));
        }
        Ok(Json::Object(Map(members)))
    }
}
