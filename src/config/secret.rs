//! Text that must not be shown.
//!
//! Enters: a key or a password. Leaves: the text to those who ask by name ([`Secret::expose_secret`]); to all
//! others, `Debug` and serialization included, a mask. Nothing may go wrong.

use crate::read::word;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A key, password or token. The memory is wiped when it is dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

/// What stands for a secret that is too short to show a part of.
pub(crate) const MASK: &str = "********";

impl Secret {
    /// The text itself.
    pub fn expose_secret(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.expose_secret().is_empty()
    }

    /// What people may see: nothing of short secrets, the ends of long ones, so that keys can be told apart.
    pub fn masked(&self) -> String {
        const ENDS: usize = 4;
        const LONG: usize = 24;
        let text = self.expose_secret();
        if text.is_empty() {
            return String::new();
        }
        let count = text.chars().count();
        if count < LONG || !text.chars().all(|c| c.is_ascii_graphic()) {
            return MASK.to_owned();
        }
        let head: String = text.chars().take(ENDS).collect();
        let tail: String = text.chars().skip(count - ENDS).collect();
        // ASCII: what is shown of a header loads as one.
        format!("{head}...{tail}")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(SecretString::from(text))
    }
}

impl Default for Secret {
    fn default() -> Self {
        Self::from("")
    }
}

/// For finding duplicates and changes. Not for checking what a client sent: the time it takes tells how much
/// of the key was right.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose_secret() == other.expose_secret()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.is_empty() { "Secret(empty)" } else { "Secret(hidden)" })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.masked())
    }
}

/// White space around it is not part of it: no provider issues such keys, but people paste them.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, |text| Ok(Self::from(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p53_debug_and_serialization_hide_it() {
        let secret = Secret::from("sk-canary-0123456789-abcdef-XYZW");
        assert_eq!(secret.masked(), "sk-c...XYZW");
        assert_eq!(format!("{secret:?}"), "Secret(hidden)");
        assert_eq!(serde_yaml::to_string(&secret).unwrap().trim(), "sk-c...XYZW");
        for short in ["x", "0123456789", "passwort-mit-ümlaut-und-länge"] {
            assert_eq!(Secret::from(short).masked(), MASK);
        }
    }
}
