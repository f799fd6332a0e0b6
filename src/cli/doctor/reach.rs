//! Whether the upstreams can be reached, and whether this machine's clock is right.
//!
//! Enters: credentials. Leaves: a finding per origin: name, connection, proxy and TLS are tried as traffic
//! does, without any key. Any answer at all counts as reached. May go wrong: nothing; what cannot be reached
//! is a finding.

use super::Finding;
use crate::state::lanes::{Lanes, NoLane};
use crate::upstream::peer::Lane;
use config::Config;
use futures::{StreamExt, stream};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, Result};
use pool::CredentialSpec;
use secrecy::ExposeSecret;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest look at an origin.
const WITHIN: Duration = Duration::from_secs(15);
/// Most bytes of an answer.
const MOST: usize = 4 << 20;
/// Origins at once.
const AT_ONCE: usize = 16;
/// Tokens and signatures of more difference are refused by some upstreams.
const SKEW_S: u64 = 60;

/// What an origin showed.
pub(super) struct Reached {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// Time until the head of the answer.
    took: Duration,
    /// Seconds by which its clock differs from ours, where it said the time.
    skew_s: Option<u64>,
}

/// Asks each origin once.
pub(super) async fn look(config: &Config, specs: &[CredentialSpec]) -> Vec<Finding> {
    let lanes = Lanes::default();
    let mut origins: BTreeMap<String, std::result::Result<Lane, NoLane>> = BTreeMap::new();
    for spec in specs.iter().filter(|spec| !spec.disabled) {
        let lane = lanes.get(spec, config);
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
                skews.extend(reached.skew_s);
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
pub(super) async fn get(
    connector: &Connector,
    lane: &Lane,
    path: &str,
    key: Option<&str>,
) -> Result<Reached> {
    let begun = Instant::now();
    let exchange = async {
        let (mut session, _) = Box::pin(connector.get_http_session(&lane.fresh())).await?;
        session.write_request_header(Box::new(header(lane, path, key)?)).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        let head = session.response_header();
        let date = head.and_then(|head| head.headers.get("date")).and_then(|date| date.to_str().ok());
        let mut reached = Reached {
            status: head.map_or(0, |head| head.status.as_u16()),
            took: begun.elapsed(),
            skew_s: date.and_then(skew),
            body: Vec::new(),
        };
        while let Some(chunk) = session.read_response_body().await? {
            if reached.body.len() + chunk.len() > MOST {
                return Error::e_explain(ErrorType::ReadError, "the answer is too long");
            }
            reached.body.extend_from_slice(&chunk);
        }
        session.shutdown().await;
        Ok(reached)
    };
    tokio::time::timeout(WITHIN, exchange).await.unwrap_or_else(|_| {
        Error::e_explain(ErrorType::ConnectTimedout, format!("no answer in {} seconds", WITHIN.as_secs()))
    })
}

fn header(lane: &Lane, path: &str, key: Option<&str>) -> Result<RequestHeader> {
    let forward = lane.forward();
    let target = match forward {
        Some(_) => format!("http://{}{path}", lane.authority()),
        None => path.to_owned(),
    };
    let mut header = RequestHeader::build("GET", target.as_bytes(), Some(4))?;
    header.insert_header("host", lane.authority())?;
    header.insert_header("user-agent", "cliproxy")?;
    if let Some(login) = forward.and_then(|forward| forward.credentials.as_ref()) {
        header.insert_header("proxy-authorization", login.expose_secret())?;
    }
    if let Some(key) = key {
        header.insert_header("authorization", format!("Bearer {key}"))?;
    }
    Ok(header)
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
        ErrorType::ConnectTimedout | ErrorType::ConnectNoRoute => {
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
