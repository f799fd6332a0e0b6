//! Members of a request with the types they must have.
//!
//! Enters: a value of a client's body and its path. Leaves: the value as its type. May go wrong: another
//! type; the error names the path. `null` counts as absent everywhere, as in OpenAI's own SDKs.

use crate::error::WireError;
use crate::ir::Str;
use crate::json::{self, Json, Map, Path};
use serde_json::value::RawValue;

pub(super) use crate::typed::string;

/// A string member, if it is there.
pub(super) fn opt_string<'a>(
    map: &mut Map<'a>,
    key: &str,
    path: &Path<'_>,
) -> Result<Option<Str<'a>>, WireError> {
    opt(map, key).map(|value| string(value, &path.key(key))).transpose()
}

/// A string member that has to be there.
pub(super) fn need_string<'a>(map: &mut Map<'a>, key: &str, path: &Path<'_>) -> Result<Str<'a>, WireError> {
    opt_string(map, key, path)?.ok_or_else(|| WireError::invalid(&path.key(key), "required: a string"))
}

/// A boolean member, if it is there.
pub(super) fn opt_bool(map: &mut Map<'_>, key: &str, path: &Path<'_>) -> Result<Option<bool>, WireError> {
    opt(map, key)
        .map(|value| value.as_bool().ok_or_else(|| WireError::expected(&path.key(key), "a boolean", &value)))
        .transpose()
}

/// A whole number, if it is there.
pub(super) fn opt_uint(map: &mut Map<'_>, key: &str, path: &Path<'_>) -> Result<Option<u64>, WireError> {
    opt(map, key)
        .map(|value| {
            let problem = || WireError::expected(&path.key(key), "a whole number", &value);
            value.as_u64().ok_or_else(problem)
        })
        .transpose()
}

/// A number, if it is there.
pub(super) fn opt_float(map: &mut Map<'_>, key: &str, path: &Path<'_>) -> Result<Option<f64>, WireError> {
    opt(map, key)
        .map(|value| value.as_f64().ok_or_else(|| WireError::expected(&path.key(key), "a number", &value)))
        .transpose()
}

/// An object member, if it is there.
pub(super) fn opt_object<'a>(
    map: &mut Map<'a>,
    key: &str,
    path: &Path<'_>,
    raw_keys: &[&str],
) -> Result<Option<Map<'a>>, WireError> {
    opt(map, key).map(|value| object(value, &path.key(key), raw_keys)).transpose()
}

/// An object; where it was not looked into, members named in `raw_keys` stay text.
pub(super) fn object<'a>(value: Json<'a>, path: &Path<'_>, raw_keys: &[&str]) -> Result<Map<'a>, WireError> {
    let value = match value {
        Json::Raw(text) => json::parse(text.as_bytes(), raw_keys)?,
        other => other,
    };
    match value {
        Json::Object(map) => Ok(map),
        other => Err(WireError::expected(path, "an object", &other)),
    }
}

/// The elements of an array, as the client wrote them.
pub(super) fn elements<'a>(value: &Json<'a>, path: &Path<'_>) -> Result<Vec<&'a str>, WireError> {
    match value {
        Json::Raw(text) if text.starts_with('[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(text)?;
            Ok(elements.into_iter().map(RawValue::get).collect())
        }
        other => Err(WireError::expected(path, "an array", other)),
    }
}

/// Strings of an array member.
pub(super) fn strings<'a>(map: &mut Map<'a>, key: &str, path: &Path<'_>) -> Result<Vec<Str<'a>>, WireError> {
    let path = path.key(key);
    let Some(value) = opt(map, key) else { return Ok(Vec::new()) };
    let value = match value {
        Json::Raw(text) => json::parse_any(text.as_bytes())?,
        other => other,
    };
    match value {
        Json::Array(items) => {
            items.into_iter().enumerate().map(|(n, item)| string(item, &path.index(n))).collect()
        }
        other => Err(WireError::expected(&path, "an array", &other)),
    }
}

/// A member, unless it is `null`.
pub(super) fn opt<'a>(map: &mut Map<'a>, key: &str) -> Option<Json<'a>> {
    map.remove(key).filter(|value| !value.is_null())
}
