//! Whether the upstreams can be reached, and whether this machine's clock is right.
//!
//! Enters: credentials. Leaves: a finding per origin: name, connection, proxy and TLS are tried as traffic
//! does, without any key. Any answer at all counts as reached. May go wrong: nothing; what cannot be reached
//! is a finding.

use super::Finding;
use crate::state::lanes::{Lanes, NoLane};
use crate::upstream::fetch::{self, Answer, Question};
use crate::upstream::peer::Lane;
use config::Config;
use futures::{StreamExt, stream};
use pingora::connectors::http::Connector;
use pingora::{Error, ErrorType, Result};
use pool::CredentialSpec;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest look at an origin.
const WITHIN: Duration = Duration::from_secs(15);
/// Most bytes of an answer.
const MOST: usize = 4 << 20;
/// Origins at once.
const AT_ONCE: usize = 16;
/// Tokens and signatures of more difference are refused by some upstreams.
const SKEW_S: u64 = 60;

/// Asks each origin once.
pub(super) async fn look(config: &Config, specs: &[CredentialSpec]) -> Vec<Finding> {
    let lanes = Lanes::default();
    let mut origins: BTreeMap<String, std::result::Result<Lane, NoLane>> = BTreeMap::new();
    for spec in specs.iter().filter(|spec| !spec.disabled) {
        let lane = lanes.get(spec, None, config);
        let name = match &lane {
            Ok(lane) => lane.to_string(),
            Err(error) => format!("{}: {error}", spec.label),
        };
        origins.entry(name).or_insert(lane);
    }
    let connector = Connector::new(None);
    let mut skews = Vec::new();
    let mut found = Vec::new();
    let asked = stream::iter(origins).map(|(name, lane)| {
        let connector = &connector;
        async move {
            let reached = match lane {
                Ok(lane) => Ok(get(connector, &lane, "/", None).await),
                Err(error) => Err(error),
            };
            (name, reached)
        }
    });
    let mut asked = asked.buffered(AT_ONCE);
    while let Some((name, reached)) = asked.next().await {
        found.push(match reached {
            Ok(Ok(reached)) => {
                skews.extend(reached.date.as_deref().and_then(skew));
                let took = reached.took.as_millis();
                Finding::fine("upstream", format!("{name} answers ({}, {took} ms)", reached.status))
            }
            Ok(Err(error)) => failed(&name, &error),
            Err(_) => Finding::failure("upstream", name, "mend proxy-url or base-url of this credential"),
        });
    }
    found.extend(clock(&skews));
    found
}

/// Asks for `path` once, over a connection of its own.
pub(super) async fn get(connector: &Connector, lane: &Lane, path: &str, key: Option<&str>) -> Result<Answer> {
    let key = key.map(|key| ("authorization", SecretString::from(format!("Bearer {key}"))));
    let question =
        Question { method: "GET", target: path, headers: key.as_slice(), body: &SecretString::default() };
    fetch::ask_within(connector, lane, &question, WITHIN, MOST).await
}

/// Seconds between an HTTP date and now.
fn skew(date: &str) -> Option<u64> {
    let then = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?.as_second();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(u64::try_from(then).ok()?.abs_diff(now))
}

fn failed(name: &str, error: &Error) -> Finding {
    let mend = match error.etype() {
        ErrorType::TLSHandshakeFailure | ErrorType::TLSHandshakeTimedout | ErrorType::InvalidCert => {
            "its certificate is not trusted here: check base-url, the clock, and the system's CA certificates"
        }
        ErrorType::ConnectProxyFailure => "the proxy on the way refuses: check proxy-url and its login",
        ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::ConnectNoRoute => {
            "check the network and the firewall; where a proxy is needed set proxy-url"
        }
        _ => "check base-url, DNS and the network; where a proxy is needed set proxy-url",
    };
    Finding::failure("upstream", format!("{name} cannot be reached: {error}"), mend)
}

/// One upstream may be wrong; the middle of all is not.
fn clock(skews: &[u64]) -> Option<Finding> {
    let mut skews = skews.to_vec();
    skews.sort_unstable();
    let middle = *skews.get(skews.len() / 2)?;
    Some(if middle > SKEW_S {
        let fact = format!("this machine's clock differs by {middle} seconds from the upstreams'");
        Finding::failure("clock", fact, "set it: timedatectl set-ntp true; tokens and signatures need it")
    } else {
        Finding::fine("clock", format!("differs by {middle} seconds from the upstreams'"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    #[test]
    fn a_clock_is_judged_by_the_middle_of_what_upstreams_say() {
        assert!(clock(&[]).is_none());
        assert_eq!(clock(&[0, 1, 100_000]).unwrap().level, Level::Fine);
        assert_eq!(clock(&[90, 91, 0]).unwrap().level, Level::Failure);
        assert!(skew("Fri, 15 Jan 2027 08:01:00 GMT").is_some());
        assert!(skew("soon").is_none());
    }
}
