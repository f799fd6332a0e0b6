//! Where a request of `api-call` may go, and what may go with it.
//!
//! Enters: a URL of a request, a credential, the hosts that the operator allows. Leaves: the [`Target`]. May go
//! wrong: it is no http or https URL, or carries a login (400); a token would go to somebody else than the
//! provider that it opens (400). Whether the addresses of a strange host are public is asked later, of those that
//! are connected to.

use super::super::answer::Refusal;
use crate::state::lanes::default_base;
use pool::{CredentialSpec, Kind};
use url::{Host, Url};

/// What stands for the token of the credential in headers.
pub(super) const TOKEN: &str = "$TOKEN$";

/// Where a request goes.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub url: Url,
    /// The operator said that it may go there, wherever that is.
    pub is_trusted: bool,
}

/// Scheme, host and port.
type Origin = (String, String, u16);

/// A host as it is compared: without a dot at its end, in lower case.
fn plain(host: &str) -> String {
    host.trim().trim_end_matches('.').to_ascii_lowercase()
}

fn origin(url: &Url) -> Option<Origin> {
    Some((url.scheme().to_owned(), plain(url.host_str()?), url.port_or_known_default()?))
}

/// Hosts at which the providers themselves take the tokens of a kind, besides the usual one.
fn hosts(kind: Kind, scope: &str) -> Vec<String> {
    let fixed: &[&str] = match kind {
        Kind::Antigravity | Kind::GeminiCli => &[
            "cloudcode-pa.googleapis.com",
            "daily-cloudcode-pa.googleapis.com",
            "daily-cloudcode-pa.sandbox.googleapis.com",
        ],
        Kind::Vertex => &["aiplatform.googleapis.com"],
        _ => &[],
    };
    let mut hosts: Vec<String> = fixed.iter().map(|host| (*host).to_owned()).collect();
    let label = |text: &str| {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (!text.is_empty() && text.bytes().all(legal)).then(|| text.to_owned())
    };
    match kind {
        // `arn:aws:codewhisperer:REGION:…`
        Kind::Kiro => {
            let region = scope.split(':').nth(3).and_then(label).unwrap_or_else(|| "us-east-1".to_owned());
            hosts.extend(["codewhisperer", "q"].map(|name| format!("{name}.{region}.amazonaws.com")));
        }
        // `projects/…/locations/LOCATION`
        Kind::Vertex => {
            let location = scope.rsplit('/').next().and_then(label);
            hosts.extend(location.map(|location| format!("{location}-aiplatform.googleapis.com")));
        }
        _ => {}
    }
    hosts
}

/// Where a credential is used. A base URL of the operator's own gets no company: what it opens is opened there.
fn origins(spec: &CredentialSpec) -> Vec<Origin> {
    let usual = Url::parse(default_base(spec.kind)).ok().as_ref().and_then(origin);
    let more = hosts(spec.kind, &spec.scope).into_iter().map(|host| ("https".to_owned(), host, 443));
    let of_kind: Vec<Origin> = usual.into_iter().chain(more).collect();
    match Url::parse(&spec.base_url).ok().as_ref().and_then(origin) {
        Some(own) if of_kind.contains(&own) => of_kind,
        Some(own) => vec![own],
        None if spec.base_url.is_empty() => of_kind,
        None => Vec::new(),
    }
}

/// Whether the operator listed a host, as `host` or `host:port`.
pub(super) fn is_listed(host: &str, port: u16, listed: &[String]) -> bool {
    let host = plain(host.trim_start_matches('[').trim_end_matches(']'));
    listed.iter().any(|entry| {
        let entry = entry.trim();
        let bare = plain(entry.trim_start_matches('[').trim_end_matches(']'));
        let with_port = entry.rsplit_once(':').filter(|(name, _)| !name.contains(':') || name.ends_with(']'));
        bare == host
            || with_port.is_some_and(|(name, number)| {
                plain(name.trim_start_matches('[').trim_end_matches(']')) == host
                    && number.parse() == Ok(port)
            })
    })
}

/// Reads where a request is to go. `wants_token`: its headers carry the token of `spec`.
pub(super) fn read(
    text: &str,
    spec: Option<&CredentialSpec>,
    listed: &[String],
    wants_token: bool,
) -> Result<Target, Refusal> {
    let text = text.trim();
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(Refusal::bad("url holds white space, a control character or a backslash"));
    }
    let url = Url::parse(text).map_err(|_| Refusal::bad("url is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Refusal::bad("url has to start with http:// or https://"));
    }
    let named = matches!(url.host(), Some(Host::Domain(name)) if !plain(name).is_empty());
    let numbered = matches!(url.host(), Some(Host::Ipv4(_) | Host::Ipv6(_)));
    let (true, Some(origin)) = (named || numbered, origin(&url)) else {
        return Err(Refusal::bad("url has no host"));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::bad("url holds a user name or password; put it into a header"));
    }
    let is_provider = spec.is_some_and(|spec| origins(spec).contains(&origin));
    if wants_token && spec.is_none() {
        return Err(Refusal::bad(format!("{TOKEN} needs an auth_index")));
    }
    if wants_token && !is_provider {
        let text = format!("{TOKEN} goes to the provider of its credential only, and this is another host");
        return Err(Refusal::bad(text));
    }
    let is_trusted = is_provider || is_listed(&origin.1, origin.2, listed);
    Ok(Target { url, is_trusted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pool::{CredentialId, ModelSet};
    use std::sync::Arc;

    fn spec(kind: Kind, base: &str, scope: &str) -> CredentialSpec {
        let spec = CredentialSpec::new(CredentialId::new("c"), "p", kind, ModelSet::new([]));
        CredentialSpec { base_url: Arc::from(base), scope: Arc::from(scope), ..spec }
    }

    #[test]
    fn p59_only_web_addresses_without_a_login() {
        for bad in [
            "",
            "x",
            "/path",
            "//h/x",
            "file:///etc/passwd",
            "ftp://h/",
            "gopher://h/",
            "unix:/run/x",
            "data:,x",
            "http://",
            "https:///",
            "http://u@h/",
            "http://u:p@h/",
            "http://h :80/",
            "http://h\\@x/",
            "http://h:99999/",
            "http://[::1/",
            "http://a\nb/",
            "javascript:alert(1)",
            "ws://h/",
            "http://./",
        ] {
            assert!(read(bad, None, &[], false).is_err(), "{bad:?}");
        }
        for good in ["http://h", "https://h:8443/a?b#c", "HTTP://H/", "http://127.1/", "http://[::1]:1/"] {
            assert!(!read(good, None, &[], false).unwrap().is_trusted, "{good:?}");
        }
    }

    #[test]
    fn p59_a_token_goes_to_its_own_provider_only() {
        let claude = spec(Kind::Claude, "", "");
        let relay = spec(Kind::Claude, "http://10.0.0.7:8080/v1", "");
        let ag = spec(Kind::Antigravity, "", "");
        let kiro = spec(Kind::Kiro, "", "arn:aws:codewhisperer:eu-west-1:1:p/A");
        let odd = spec(Kind::Kiro, "", "arn:aws:codewhisperer:evil.test/:1:p/A");
        let vertex = spec(Kind::Vertex, "", "projects/p/locations/europe-west4");
        for (spec, url, may) in [
            (&claude, "https://api.anthropic.com/api/oauth/usage", true),
            (&claude, "https://API.anthropic.com.:443/x", true),
            (&claude, "http://api.anthropic.com/x", false),
            (&claude, "https://api.anthropic.com:8443/x", false),
            (&claude, "https://api.anthropic.com.evil.test/x", false),
            (&claude, "https://evil.test/api.anthropic.com", false),
            (&claude, "https://xapi.anthropic.com/", false),
            (&relay, "http://10.0.0.7:8080/other", true),
            (&relay, "http://10.0.0.7/", false),
            (&relay, "https://10.0.0.7:8080/", false),
            (&relay, "https://api.anthropic.com/", false),
            (&ag, "https://daily-cloudcode-pa.sandbox.googleapis.com/v1internal:x", true),
            (&ag, "https://storage.googleapis.com/", false),
            (&kiro, "https://q.eu-west-1.amazonaws.com/", true),
            (&kiro, "https://q.us-west-2.amazonaws.com/", false),
            (&odd, "https://q.us-east-1.amazonaws.com/", true),
            (&odd, "https://evil.test/", false),
            (&vertex, "https://europe-west4-aiplatform.googleapis.com/v1/x", true),
        ] {
            assert_eq!(read(url, Some(spec), &["evil.test".to_owned()], true).is_ok(), may, "{url}");
            let target = read(url, Some(spec), &[], false).unwrap();
            assert_eq!(target.is_trusted, may, "{url}");
        }
        assert!(read("https://api.anthropic.com/", None, &[], true).is_err());
    }

    #[test]
    fn the_operator_lists_hosts_with_or_without_a_port() {
        let listed: Vec<String> =
            ["Metrics.internal", "10.0.0.1:9000", "[::1]:7", "fd00::1"].map(str::to_owned).to_vec();
        for (host, port, is) in [
            ("metrics.internal", 1, true),
            ("metrics.internal.", 1, true),
            ("x.metrics.internal", 1, false),
            ("10.0.0.1", 9000, true),
            ("10.0.0.1", 9001, false),
            ("[::1]", 7, true),
            ("[::1]", 8, false),
            ("[fd00::1]", 8, true),
        ] {
            assert_eq!(is_listed(host, port, &listed), is, "{host}:{port}");
        }
    }
}
