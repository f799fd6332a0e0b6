//! Model names inside a URL path.
//!
//! Enters: a model name of a client or of the configuration. Leaves: a path segment that cannot be anything
//! else. May go wrong: names that no vendor has and that would change the path are refused.

use std::borrow::Cow;
use std::fmt::Write;

/// `model` as one path segment: everything but unreserved characters, `:`, `@` and `/` inside
/// `publishers/…/models/…` style names is percent-encoded (RFC 3986, section 3.3). `None`: the name is
/// empty, has a `.` or `..` segment, or control characters.
pub fn segment(model: &str) -> Option<Cow<'_, str>> {
    let bad = model.is_empty()
        || model.len() > 512
        || model.chars().any(char::is_control)
        || model.split(['/', '\\']).any(|part| matches!(part, "" | "." | ".."));
    if bad {
        return None;
    }
    let plain =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b'/');
    if model.bytes().all(plain) {
        return Some(Cow::Borrowed(model));
    }
    let mut out = String::with_capacity(model.len() + 8);
    for byte in model.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    Some(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p61_a_model_name_cannot_change_the_path() {
        for (model, expected) in [
            ("gemini-2.5-pro", Some("gemini-2.5-pro")),
            ("claude-opus[1m]", Some("claude-opus%5B1m%5D")),
            ("a?key=x#y", Some("a%3Fkey%3Dx%23y")),
            ("tunedModels/my-model", Some("tunedModels/my-model")),
            ("a%2e%2e", Some("a%252e%252e")),
            ("..", None),
            ("a/../b", None),
            ("a//b", None),
            ("/a", None),
            ("a\\..\\b", None),
            ("a\nb", None),
            ("", None),
        ] {
            assert_eq!(segment(model).as_deref(), expected, "{model}");
        }
    }
}
