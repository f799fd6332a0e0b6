//! Proxies on the way to upstreams.
//!
//! Enters: `proxy-url`. Leaves: a [`ProxySetting`]. May go wrong: a URL that cannot be used. The file still
//! loads, but whoever has such a setting must not send anything: going out directly would show the very
//! address that the proxy was to hide.

use crate::read::{quoted, word};
use crate::secret::{MASK, Secret};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use url::Url;

/// What a credential, a provider or the whole file says about the way out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxySetting {
    /// Nothing: what is said one level up counts, at last the environment.
    #[default]
    Inherit,
    /// `direct` or `none`: no proxy, whatever is said above.
    Direct,
    /// This proxy.
    Url(ProxyUrl),
    /// Something that is not a proxy. Fails closed: no request may leave.
    Invalid {
        /// What was said, without what may be secret.
        url_redacted: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProxyScheme {
    /// `http`: CONNECT, or absolute-form requests, in clear.
    Http,
    /// `https`: the same inside TLS.
    Https,
    /// `socks5`: names are resolved here.
    Socks5,
    /// `socks5h`: names are resolved by the proxy.
    Socks5h,
}

impl ProxyScheme {
    const ALL: [Self; 4] = [Self::Http, Self::Https, Self::Socks5, Self::Socks5h];

    /// The word in a URL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
            Self::Socks5h => "socks5h",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Socks5 | Self::Socks5h => 1080,
        }
    }
}

/// A proxy that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyUrl {
    /// How it is spoken to.
    pub scheme: ProxyScheme,
    /// Name or address; IPv6 without brackets.
    pub host: String,
    /// Port: 80, 443 or 1080 when the URL has none.
    pub port: u16,
    /// Who we are to the proxy.
    pub login: Option<ProxyLogin>,
}

/// Who we are to a proxy, percent-decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyLogin {
    /// User name. Hidden too: rented proxies put session keys into it.
    pub user: Secret,
    /// Password, maybe empty.
    pub password: Secret,
}

impl ProxySetting {
    /// Reads what the file says.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        if text.is_empty() {
            return Self::Inherit;
        }
        if text.eq_ignore_ascii_case("direct") || text.eq_ignore_ascii_case("none") {
            return Self::Direct;
        }
        match ProxyUrl::parse(text) {
            Ok(url) => Self::Url(url),
            Err(problem) => Self::Invalid { url_redacted: redact(text), problem },
        }
    }

    /// This setting, or `outer` where this one says nothing.
    pub fn or<'s>(&'s self, outer: &'s Self) -> &'s Self {
        if *self == Self::Inherit { outer } else { self }
    }
}

impl ProxyUrl {
    fn parse(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "it does not read as scheme://user:password@host:port";
        if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err("it holds white space, a control character or a backslash".to_owned());
        }
        let (scheme, rest) = text.split_once("://").ok_or(SHAPE)?;
        // Anything else before `://` is no scheme, and may be a password.
        if !scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) {
            return Err(SHAPE.to_owned());
        }
        let scheme = ProxyScheme::ALL
            .into_iter()
            .find(|known| known.name().eq_ignore_ascii_case(scheme))
            .ok_or_else(|| format!("unsupported proxy scheme {}", quoted(scheme)))?;
        // The URL standard would take `///host` for `//host`.
        if rest.starts_with('/') {
            return Err("it has no host".to_owned());
        }
        // Read as https, so that hosts of all schemes are read by the same rules.
        let url = Url::parse(&format!("https://{rest}")).map_err(|_| SHAPE)?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("it has no host")?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err("it has a path, a query or a fragment".to_owned());
        }
        let login = (!url.username().is_empty() || url.password().is_some()).then(|| ProxyLogin {
            user: decoded(url.username()),
            password: decoded(url.password().unwrap_or_default()),
        });
        // `:443` is the default of the scheme it was read as, and therefore dropped.
        let port = url.port().unwrap_or_else(|| {
            if rest.split('/').next().is_some_and(|authority| authority.ends_with(":443")) {
                443
            } else {
                scheme.default_port()
            }
        });
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { scheme, host, port, login })
    }
}

fn decoded(text: &str) -> Secret {
    Secret::from(percent_decode_str(text).decode_utf8_lossy().as_ref())
}

/// What may be shown of text that is not a proxy URL: scheme, host and port where they can be told from a
/// password, else nothing (`host:port:user:password` is a common spelling).
fn redact(text: &str) -> String {
    match Url::parse(text) {
        Ok(url) if url.has_host() => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            let login = if url.username().is_empty() && url.password().is_none() { "" } else { "***@" };
            format!("{}://{login}{}{port}", url.scheme(), url.host_str().unwrap_or_default())
        }
        _ => MASK.to_owned(),
    }
}

/// The URL without its login.
impl fmt::Display for ProxyUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let login = if self.login.is_some() { "***@" } else { "" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(out, "{}://{login}{open}{}{close}:{}", self.scheme.name(), self.host, self.port)
    }
}

impl fmt::Display for ProxySetting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inherit => Ok(()),
            Self::Direct => out.write_str("direct"),
            Self::Url(url) => url.fmt(out),
            Self::Invalid { url_redacted, .. } => out.write_str(url_redacted),
        }
    }
}

impl Serialize for ProxySetting {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ProxySetting {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, |text| Ok(Self::parse(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_schemes() {
        assert_eq!(ProxySetting::parse(" "), ProxySetting::Inherit);
        assert_eq!(ProxySetting::parse("Direct"), ProxySetting::Direct);
        assert_eq!(ProxySetting::parse("none"), ProxySetting::Direct);
        for (text, port) in [
            ("http://p", 80),
            ("https://p/", 443),
            ("socks5://p", 1080),
            ("socks5h://p:9", 9),
            ("http://p:443", 443),
            ("SOCKS5://[::1]:1081", 1081),
            ("http://u:p:443@p", 80),
        ] {
            let ProxySetting::Url(url) = ProxySetting::parse(text) else { panic!("{text}") };
            assert_eq!(url.port, port, "{text}");
        }
    }

    #[test]
    fn login_is_decoded_and_hidden() {
        let ProxySetting::Url(url) = ProxySetting::parse("http://us%40er:p%3Aw@h:1") else { panic!() };
        let login = url.login.as_ref().unwrap();
        assert_eq!((login.user.expose_secret(), login.password.expose_secret()), ("us@er", "p:w"));
        assert_eq!(url.to_string(), "http://***@h:1");
        assert!(!format!("{url:?}").contains("p:w"));
    }

    #[test]
    fn what_is_not_a_proxy_fails_closed_and_is_not_repeated() {
        let problem = |text: &str| match ProxySetting::parse(text) {
            ProxySetting::Invalid { url_redacted, problem } => {
                for shown in [&url_redacted, &problem] {
                    assert!(!shown.contains("hunter2"), "{shown}");
                }
                problem
            }
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(problem("ftp://u:hunter2@127.0.0.1:9"), "unsupported proxy scheme `ftp`");
        problem("1.2.3.4:8080:u:hunter2");
        problem("http://");
        problem("http:///x");
        problem("http://h:99999");
        problem("http://h/path");
        problem("not a url hunter2");
        problem("u:hunter2@h:1/http://x");
        problem("socks4://u:hunter2@h");
    }
}
