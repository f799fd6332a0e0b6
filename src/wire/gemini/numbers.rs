//! Numbers of a request. They may come as strings: protobuf's JSON has both.
//!
//! Enters: a value and where it stands. Leaves: the number. May go wrong: another type, as a [`WireError`] that
//! names the place.

use crate::error::WireError;
use crate::json::{Json, Path};

pub(super) fn uint(value: &Json<'_>, at: &Path<'_>) -> Result<u64, WireError> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    number.ok_or_else(|| not_a_number(value, at, "a whole number that is not negative"))
}

pub(super) fn int(value: &Json<'_>, at: &Path<'_>) -> Result<i64, WireError> {
    let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
    number.ok_or_else(|| not_a_number(value, at, "a whole number"))
}

pub(super) fn float(value: &Json<'_>, at: &Path<'_>) -> Result<f64, WireError> {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok()).filter(|n| n.is_finite());
    number.ok_or_else(|| not_a_number(value, at, "a number"))
}

fn not_a_number(value: &Json<'_>, at: &Path<'_>, expected: &str) -> WireError {
    match value.kind() {
        "a number" => WireError::invalid(at, format!("expected {expected}, got {}", value.to_text())),
        _ => WireError::expected(at, expected, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_in_several_forms_and_errors_name_the_place() {
        let root = Path::Root;
        let at = root.key("topK");
        assert_eq!(uint(&Json::Float(40.0), &at).unwrap(), 40);
        assert_eq!(uint(&Json::Str("40".into()), &at).unwrap(), 40);
        assert_eq!(int(&Json::Int(-1), &at).unwrap(), -1);
        let error = uint(&Json::Int(-1), &at).unwrap_err().to_string();
        assert_eq!(error, "topK: expected a whole number that is not negative, got -1");
        assert!(float(&Json::Str("NaN".into()), &at).is_err());
    }
}
