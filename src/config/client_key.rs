//! A key that clients show, and what it is good for.
//!
//! Enters: an element of `api-keys`: the key alone, or a map with the key and its limits. Leaves:
//! [`ClientKey`]; a key without limits is written as the key alone again. May go wrong: a date that is none.

use crate::lenient::floor_zero;
use crate::read::{WORD_OR_MAP, word};
use crate::secret::Secret;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A client key with its limits. `remote` makes what is derived for the map with all members callable from the
/// impls below, which know the key alone as well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(remote = "Self", default, rename_all = "kebab-case")]
pub struct ClientKey {
    /// The key, trimmed.
    pub api_key: Secret,
    /// What people call it: in logs, refusals and explanations.
    pub name: String,
    /// Patterns of the model names that it may use, lower case, `*` stands for anything. Together with
    /// `allowed_prefixes`: a name that fits either may be used. Both empty: all models.
    pub allowed_models: Vec<String>,
    /// Prefixes (`team-a` of `team-a/model`) under which it may use everything.
    pub allowed_prefixes: Vec<String>,
    /// When it stops to be good.
    pub expires: Expiry,
    /// Most requests at once; 0: no limit.
    #[serde(deserialize_with = "floor_zero")]
    pub max_concurrency: u32,
    /// Most requests in any 60 seconds; 0: no limit.
    #[serde(deserialize_with = "floor_zero")]
    pub rpm: u32,
    /// Tokens in any 60 seconds after which further requests are refused; 0: no limit.
    #[serde(deserialize_with = "floor_zero")]
    pub tpm: u64,
}

/// The keys of the map.
const KEYS: &[&str] =
    &["api-key", "name", "allowed-models", "allowed-prefixes", "expires", "max-concurrency", "rpm", "tpm"];

impl ClientKey {
    /// The key itself.
    pub fn expose_secret(&self) -> &str {
        self.api_key.expose_secret()
    }

    /// Whether it is good for everything, for ever.
    pub fn is_plain(&self) -> bool {
        *self == Self { api_key: self.api_key.clone(), ..Self::default() }
    }

    /// Whether it may use only some models.
    pub fn is_restricted(&self) -> bool {
        !self.allowed_models.is_empty() || !self.allowed_prefixes.is_empty()
    }
}

impl From<Secret> for ClientKey {
    fn from(api_key: Secret) -> Self {
        Self { api_key, ..Self::default() }
    }
}

impl From<&str> for ClientKey {
    fn from(key: &str) -> Self {
        Self::from(Secret::from(key))
    }
}

impl Serialize for ClientKey {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        if self.is_plain() {
            return self.api_key.serialize(out);
        }
        Self::serialize(self, out)
    }
}

impl<'de> Deserialize<'de> for ClientKey {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Shapes;

        impl<'de> Visitor<'de> for Shapes {
            type Value = ClientKey;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a key, or a map with api-key")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ClientKey, E> {
                Ok(ClientKey::from(text.trim()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ClientKey, A::Error> {
                ClientKey::deserialize(MapAccessDeserializer::new(map))
            }
        }

        input.deserialize_struct(WORD_OR_MAP, KEYS, Shapes)
    }
}

/// A moment after which something is no longer good; by default never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry(Option<Timestamp>);

impl Expiry {
    /// Reads RFC 3339, `YYYY-MM-DD[ HH:MM[:SS]]` in UTC, or seconds since 1970. A day counts to its end.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let utc = |time: DateTime| Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp());
        let moment = if text.is_empty() {
            return Some(Self(None));
        } else if let Ok(seconds) = text.parse::<i64>() {
            Timestamp::from_second(seconds).ok()
        } else if let Ok(moment) = text.parse::<Timestamp>() {
            Some(moment)
        } else if text.contains(':') {
            utc(text.parse().ok()?)
        } else {
            utc(text.parse::<Date>().ok()?.checked_add(1.day()).ok()?.at(0, 0, 0, 0))
        };
        moment.map(|moment| Self(Some(moment)))
    }

    /// Whether it has come. `wall_s` is the time in seconds since 1970.
    pub fn is_over(self, wall_s: u64) -> bool {
        self.0.is_some_and(|end| i64::try_from(wall_s).is_ok_and(|now| now >= end.as_second()))
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |end| write!(out, "{end}"))
    }
}

impl Serialize for Expiry {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Expiry {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, |text| {
            Self::parse(text).ok_or_else(|| {
                "expected a date such as 2027-01-31 or a moment such as 2027-01-31T12:00:00Z".to_owned()
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load;

    fn keys(text: &str) -> Vec<ClientKey> {
        let loaded = load(text.as_bytes()).unwrap_or_else(|broken| panic!("{broken}"));
        assert_eq!(loaded.warnings, [], "{text}");
        loaded.config.auth.api_keys
    }

    #[test]
    fn a_key_is_a_word_or_a_map() {
        let found = keys(
            "api-keys:\n  - plain\n  - 0123\n  - {api-key: ' full ', name: team, allowed-models: ['GPT-*'], \
             allowed-prefixes: [team-a], expires: 2027-01-31, max-concurrency: 2, rpm: 3, tpm: 4}\n",
        );
        assert!(found[0].is_plain() && found[1].is_plain() && !found[2].is_plain());
        assert_eq!(found[1].expose_secret(), "0123", "a key of digits is no number");
        let full = &found[2];
        assert_eq!((full.expose_secret(), full.name.as_str()), ("full", "team"));
        assert_eq!(full.allowed_models, ["gpt-*"]);
        assert_eq!((full.max_concurrency, full.rpm, full.tpm), (2, 3, 4));
        assert_eq!(full.expires.to_string(), "2027-02-01T00:00:00Z");
    }

    #[test]
    fn what_is_wrong_says_where() {
        let broken = |text: &str| load(text.as_bytes()).unwrap_err().to_string();
        assert!(
            broken("api-keys: [{api-key: k, expires: soon}]")
                .contains("api-keys[0].expires: expected a date")
        );
        assert!(
            broken("api-keys: [[k]]")
                .contains("api-keys[0]: expected a key, or a map with api-key, found a list")
        );
        let unknown = load(b"api-keys: [{api-key: k, max-concurency: 1}]").unwrap().warnings;
        assert!(unknown[0].problem.contains("`max-concurrency`"), "{unknown:?}");
    }

    #[test]
    fn moments() {
        let over = |text: &str, at| Expiry::parse(text).unwrap().is_over(at);
        assert!(!over("", u64::MAX / 2));
        assert!(over("1000", 1000) && !over("1000", 999));
        assert!(over("1970-01-01", 86_400) && !over("1970-01-01", 86_399));
        assert!(over("1970-01-01 00:01", 60) && !over("1970-01-01T00:01:00Z", 59));
        for bad in ["soon", "2027-13-01", "2027", "-"] {
            assert!(Expiry::parse(bad).is_none_or(|found| bad == "2027" && found.is_over(2027)), "{bad}");
        }
    }

    #[test]
    fn p53_a_key_with_limits_is_masked_and_loads_again() {
        let text = "api-keys: [short, {api-key: CANARY-0123456789-0123456789, rpm: 1, expires: 2030-01-01}]";
        let config = load(text.as_bytes()).unwrap().config;
        let shown = config.redacted();
        assert!(!shown.contains("0123456789") && shown.contains("rpm: 1"), "{shown}");
        let again = load(shown.as_bytes()).unwrap().config;
        assert!(again.auth.api_keys[0].is_plain(), "{shown}");
        assert_eq!(again.auth.api_keys[1].expires, config.auth.api_keys[1].expires);
        assert!(!format!("{config:?}").contains("CANARY"));
    }
}
