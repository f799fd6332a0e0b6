//! Members of a client's body as the types they have to have.
//!
//! Enters: a value and where it stands. Leaves: the value as a Rust type. May go wrong: another type, which
//! becomes a [`WireError`] that names the place.

use crate::error::WireError;
use crate::ir::{RawJson, Str};
use crate::json::{Json, Map, Path};

/// A string.
pub(crate) fn string<'a>(value: Json<'a>, at: &Path<'_>) -> Result<Str<'a>, WireError> {
    match value {
        Json::Str(text) => Ok(text),
        other => {
            let problem = WireError::expected(at, "a string", &other);
            other.into_str().ok_or(problem)
        }
    }
}

/// A whole number that is not negative.
pub(crate) fn uint(value: &Json<'_>, at: &Path<'_>) -> Result<u64, WireError> {
    value.as_u64().ok_or_else(|| WireError::expected(at, "a whole number", value))
}

/// A whole number of either sign.
pub(crate) fn int(value: &Json<'_>, at: &Path<'_>) -> Result<i64, WireError> {
    value.as_i64().ok_or_else(|| WireError::expected(at, "a whole number", value))
}

/// A number.
pub(crate) fn number(value: &Json<'_>, at: &Path<'_>) -> Result<f64, WireError> {
    value.as_f64().ok_or_else(|| WireError::expected(at, "a number", value))
}

/// `true` or `false`.
pub(crate) fn boolean(value: &Json<'_>, at: &Path<'_>) -> Result<bool, WireError> {
    value.as_bool().ok_or_else(|| WireError::expected(at, "a boolean", value))
}

/// An array.
pub(crate) fn array<'a>(value: Json<'a>, at: &Path<'_>) -> Result<Vec<Json<'a>>, WireError> {
    match value {
        Json::Array(items) => Ok(items),
        other => Err(WireError::expected(at, "an array", &other)),
    }
}

/// An object.
pub(crate) fn object<'a>(value: Json<'a>, at: &Path<'_>) -> Result<Map<'a>, WireError> {
    match value {
        Json::Object(map) => Ok(map),
        other => Err(WireError::expected(at, "an object", &other)),
    }
}

/// The text of an object.
pub(crate) fn raw_object<'a>(value: Json<'a>, at: &Path<'_>) -> Result<RawJson<'a>, WireError> {
    if value.is_object() { Ok(value.into()) } else { Err(WireError::expected(at, "an object", &value)) }
}

/// A string that says something.
pub(crate) fn name<'a>(value: Json<'a>, at: &Path<'_>) -> Result<Str<'a>, WireError> {
    let text = string(value, at)?;
    if text.trim().is_empty() { Err(WireError::invalid(at, "must not be empty")) } else { Ok(text) }
}

/// The error of a member that has to be there.
pub(crate) fn required(at: &Path<'_>, what: &str) -> WireError {
    WireError::invalid(at, format!("required: {what}"))
}

/// Strings, or one string in their place.
pub(crate) fn strings<'a>(value: Json<'a>, at: &Path<'_>) -> Result<Vec<Str<'a>>, WireError> {
    match value {
        Json::Str(text) => Ok(vec![text]),
        Json::Array(items) => {
            items.into_iter().enumerate().map(|(n, item)| string(item, &at.index(n))).collect()
        }
        other => Err(WireError::expected(at, "a string or an array of strings", &other)),
    }
}

/// The elements of an array of objects, each with its path.
pub(crate) fn each_object<'a, T>(
    value: Json<'a>,
    at: &Path<'_>,
    mut read: impl FnMut(Map<'a>, &Path<'_>) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let items = array(value, at)?.into_iter().enumerate();
    items
        .map(|(n, item)| {
            let at = at.index(n);
            read(object(item, &at)?, &at)
        })
        .collect()
}
