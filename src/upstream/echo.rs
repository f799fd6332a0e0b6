//! A refusal may repeat the key that it refuses.
//!
//! Enters: a refusal's body and the secrets that went with the request. Leaves: the body without them, for
//! clients and logs. May go wrong: nothing.

use bytes::Bytes;
use memchr::memmem;

/// What stands in a secret's place, as everywhere.
const MASK: &[u8] = b"********";
/// Shorter texts are words that stand in any body; providers have no such keys.
const SHORTEST: usize = 8;

/// The body with each of the secrets masked. One without any is not copied.
pub fn hide<'s>(body: Bytes, secrets: impl IntoIterator<Item = &'s str>) -> Bytes {
    secrets.into_iter().filter(|secret| secret.len() >= SHORTEST).fold(body, |body, secret| {
        let body = replace(body, secret.as_bytes());
        // A secret that JSON writes otherwise stands there so.
        match serde_json::to_string(secret) {
            Ok(written) if written.len() > secret.len() + 2 => {
                replace(body, written.trim_matches('"').as_bytes())
            }
            _ => body,
        }
    })
}

fn replace(body: Bytes, secret: &[u8]) -> Bytes {
    let mut places = memmem::find_iter(&body, secret).peekable();
    if places.peek().is_none() {
        return body;
    }
    let mut masked = Vec::with_capacity(body.len());
    let mut rest = 0;
    for at in places {
        masked.extend_from_slice(body.get(rest..at).unwrap_or_default());
        masked.extend_from_slice(MASK);
        rest = at + secret.len();
    }
    masked.extend_from_slice(body.get(rest..).unwrap_or_default());
    masked.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p53_a_refusal_does_not_repeat_what_it_refuses() {
        let hidden = |body: &str, secrets: &[&str]| {
            let hidden = hide(Bytes::from(body.to_owned()), secrets.iter().copied());
            String::from_utf8(hidden.to_vec()).unwrap()
        };
        let key = "sk-0123456789";
        for (body, secrets, told) in [
            ("bad key sk-0123456789, sk-0123456789!", &[key][..], "bad key ********, ********!"),
            ("sk-0123456789", &["another-one", key], "********"),
            (r#"{"e":"a\"0123456789"}"#, &["a\"0123456789"], r#"{"e":"********"}"#),
            ("nothing of it", &[key, ""], "nothing of it"),
            ("the word key stays", &["key"], "the word key stays"),
        ] {
            assert_eq!(hidden(body, secrets), told);
        }
    }
}
