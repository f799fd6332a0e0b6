//! Members of an object, taken out one by one.
//!
//! Enters: a value that should be an object. Leaves: its members with their types checked; `null` counts as
//! absent. May go wrong: a wrong type, with the path of the member. What nobody took is recorded as lost.

use crate::error::WireError;
use crate::ir::{CacheMark, LossKind, Losses, RawJson, Str};
use crate::json::{Json, Map, Path};
use crate::typed::string;
use std::borrow::Cow;

/// An object that is being read.
pub(super) struct Fields<'a, 'p> {
    map: Map<'a>,
    path: &'p Path<'p>,
}

impl<'a, 'p> Fields<'a, 'p> {
    /// Starts on `value`.
    pub(super) fn of(value: Json<'a>, path: &'p Path<'p>) -> Result<Self, WireError> {
        match value {
            Json::Object(map) => Ok(Self { map, path }),
            other => Err(WireError::expected(path, "an object", &other)),
        }
    }

    /// Any member.
    pub(super) fn take(&mut self, key: &str) -> Option<Json<'a>> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// Whether the value below `keys` is the string `word`.
    pub(super) fn holds(&self, keys: &[&str], word: &str) -> bool {
        let (Some(first), rest) = (keys.first(), keys.get(1..).unwrap_or_default()) else { return false };
        self.map.get(first).and_then(|value| value.at(rest)).and_then(Json::as_str) == Some(word)
    }

    /// A string member.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<Str<'a>>, WireError> {
        let path = self.path;
        self.take(key).map(|value| string(value, &path.key(key))).transpose()
    }

    /// A string member that must be there.
    pub(super) fn need_text(&mut self, key: &str) -> Result<Str<'a>, WireError> {
        self.text(key)?.ok_or_else(|| WireError::invalid(&self.path.key(key), "required: a string"))
    }

    /// A boolean member.
    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>, WireError> {
        self.typed(key, "a boolean", Json::as_bool)
    }

    /// A whole number.
    pub(super) fn count(&mut self, key: &str) -> Result<Option<u64>, WireError> {
        self.typed(key, "a whole number that is not negative", Json::as_u64)
    }

    /// A number.
    pub(super) fn number(&mut self, key: &str) -> Result<Option<f64>, WireError> {
        self.typed(key, "a number", Json::as_f64)
    }

    fn typed<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&Json<'a>) -> Option<T>,
    ) -> Result<Option<T>, WireError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(WireError::expected(&self.path.key(key), expected, &value)),
        }
    }

    /// An array member.
    pub(super) fn list(&mut self, key: &str) -> Result<Option<Vec<Json<'a>>>, WireError> {
        match self.take(key) {
            None => Ok(None),
            Some(Json::Array(items)) => Ok(Some(items)),
            Some(other) => Err(WireError::expected(&self.path.key(key), "an array", &other)),
        }
    }

    /// An array of strings; absent is empty.
    pub(super) fn texts(&mut self, key: &str) -> Result<Vec<Str<'a>>, WireError> {
        let at = self.path.key(key);
        let items = self.list(key)?.unwrap_or_default();
        items.into_iter().enumerate().map(|(n, item)| string(item, &at.index(n))).collect()
    }

    /// An object member, as its text.
    pub(super) fn object(&mut self, key: &str) -> Result<Option<RawJson<'a>>, WireError> {
        match self.take(key) {
            None => Ok(None),
            Some(value) if value.is_object() => Ok(Some(RawJson::from(value))),
            Some(other) => Err(WireError::expected(&self.path.key(key), "an object", &other)),
        }
    }

    /// `cache_control`.
    pub(super) fn cache(&mut self) -> Result<Option<CacheMark>, WireError> {
        let Some(value) = self.take("cache_control") else { return Ok(None) };
        let at = self.path.key("cache_control");
        if !value.is_object() {
            return Err(WireError::expected(&at, "an object", &value));
        }
        let hour = value.get("ttl").and_then(Json::as_str) == Some("1h");
        Ok(Some(CacheMark { hour }))
    }

    /// Records that `key` has no counterpart anywhere, if it is there.
    pub(super) fn lost(&mut self, kind: LossKind, key: &str, losses: &mut Losses) {
        if self.take(key).is_some() {
            losses.at(kind, &self.path.key(key));
        }
    }

    /// What is left, as text, with `kind` as its `type`.
    pub(super) fn raw(&self, kind: &str) -> RawJson<'a> {
        let mut members = vec![(Cow::Borrowed("type"), Json::Str(kind.to_owned().into()))];
        members.extend(self.map.0.iter().cloned());
        RawJson(Cow::Owned(Json::Object(Map(members)).to_text()))
    }

    /// Records what is left as lost.
    pub(super) fn end(self, losses: &mut Losses) {
        for (key, value) in self.map.iter() {
            if !value.is_null() {
                losses.at(LossKind::UnknownMember, &self.path.key(key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse_any;

    #[test]
    fn wrong_types_name_the_member_and_null_is_absent() {
        let (root, value) = (Path::Root, parse_any(br#"{"a":1,"b":null,"c":"x","d":-1,"e":[1]}"#).unwrap());
        let mut fields = Fields::of(value, &root).unwrap();
        assert_eq!(fields.text("a").unwrap_err().to_string(), "a: expected a string, got a number");
        assert_eq!(fields.flag("b").unwrap(), None);
        assert_eq!(fields.text("c").unwrap().as_deref(), Some("x"));
        assert!(fields.count("d").unwrap_err().to_string().starts_with("d: expected a whole number"));
        assert_eq!(fields.texts("e").unwrap_err().to_string(), "e[0]: expected a string, got a number");
        assert_eq!(fields.need_text("f").unwrap_err().to_string(), "f: required: a string");
    }

    #[test]
    fn p34_what_nobody_took_is_recorded() {
        let (root, value) = (Path::Root, parse_any(br#"{"a":1,"b":null}"#).unwrap());
        let mut losses = Losses::default();
        Fields::of(value, &root).unwrap().end(&mut losses);
        assert_eq!(losses.to_string(), "unknown-member a");
    }
}
