//! Base URLs of upstreams.
//!
//! Enters: text of the file. Leaves: an absolute http or https URL without a slash at its end. May go wrong:
//! another scheme, no host, a user name, a query; the message never repeats the URL, which may hold a password.

use crate::read::word;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use url::Url;

/// Where an upstream's API begins: `https://api.example.com/v1`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseUrl {
    url: Url,
}

impl BaseUrl {
    /// Reads and checks `text`; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url = absolute(text)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err("it has a query (?) or a fragment (#)");
        }
        Ok(Self { url })
    }

    /// The URL without a slash at its end, to put paths behind.
    pub fn as_str(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Its parts. The path of the URL `http://host` is `/`.
    pub fn url(&self) -> &Url {
        &self.url
    }
}

/// An http or https URL with a host and without a user.
pub(crate) fn absolute(text: &str) -> Result<Url, &'static str> {
    let text = text.trim();
    // The URL standard drops line breaks, reads `\` as `/`, `http:x` and `http:///x` as `http://x`. Nobody
    // means that.
    let lower = text.to_ascii_lowercase();
    let Some(rest) = lower.strip_prefix("http://").or_else(|| lower.strip_prefix("https://")) else {
        return Err("it has to start with http:// or https://");
    };
    if rest.starts_with('/') {
        return Err("it has no host");
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err("it holds white space, a control character or a backslash");
    }
    let url = Url::parse(text).map_err(|error| match error {
        url::ParseError::EmptyHost => "it has no host",
        url::ParseError::InvalidPort => "its port is not a number from 0 to 65535",
        _ => "it is not a URL",
    })?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err("it has no host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user name or password; put the key into api-key or headers");
    }
    Ok(url)
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), out)
    }
}

impl Serialize for BaseUrl {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for BaseUrl {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, |text| Self::parse(text).map_err(|problem| format!("not a base URL: {problem}")))
    }
}

/// For optional URLs: `base-url: ""` says nothing.
pub(crate) fn optional<'de, D: Deserializer<'de>>(input: D) -> Result<Option<BaseUrl>, D::Error> {
    word(input, |text| match text {
        "" => Ok(None),
        _ => BaseUrl::parse(text).map(Some).map_err(|problem| format!("not a base URL: {problem}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_http_with_a_host_and_nothing_secret() {
        for good in ["https://api.example.com/v1/", "http://127.0.0.1:8080", "HTTPS://[::1]:1/x"] {
            let url = BaseUrl::parse(good).unwrap();
            assert!(!url.as_str().ends_with('/'));
        }
        for bad in [
            "",
            "api.example.com",
            "ftp://x",
            "http:/x",
            "http:x",
            "http://",
            "https://u:p@x",
            "https://u@x",
            "https://x/?k=1",
            "https://x/#f",
            "https://x/a b",
            "http:\\\\x",
            "http://x:70000",
            "http://a\nb",
            "file:///etc/passwd",
            "http://exa mple",
            "http:///x",
            "http:///x",
        ] {
            assert!(BaseUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
