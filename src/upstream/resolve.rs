//! Host names → addresses: asynchronous, cached for a short time, both families in turn.
//!
//! Enters: a host and a port. Leaves: addresses in the order to try them (RFC 8305, section 4). May go
//! wrong: the name does not exist, or the resolver is silent; a stale answer is better than none.

use parking_lot::RwLock;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an answer is used without asking again. `getaddrinfo` gives no lifetimes.
const FRESH: Duration = Duration::from_secs(30);
/// How long an old answer is used when the resolver fails.
const STALE: Duration = Duration::from_mins(10);
/// Most names that are kept: names come from the configuration, so the bound is never met in practice.
const KEPT: usize = 4096;

/// When a name was looked up, and what was found.
type Known = (Instant, Arc<[IpAddr]>);

/// Names that were looked up.
#[derive(Debug, Default)]
pub struct Resolver {
    known: RwLock<HashMap<String, Known>>,
}

impl Resolver {
    /// The addresses of `host`.
    pub async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let cached = self.known.read().get(host).cloned();
        if let Some((at, ips)) = &cached
            && at.elapsed() < FRESH
        {
            return Ok(with_port(ips, port));
        }
        match tokio::net::lookup_host((host, port)).await {
            Ok(found) => {
                let ips = interleave(found.map(|address| address.ip()));
                if ips.is_empty() {
                    return Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address")));
                }
                let answer = with_port(&ips, port);
                self.remember(host, ips);
                Ok(answer)
            }
            Err(error) => match cached {
                Some((at, ips)) if at.elapsed() < STALE => Ok(with_port(&ips, port)),
                _ => Err(io::Error::new(error.kind(), format!("cannot resolve {host}: {error}"))),
            },
        }
    }

    fn remember(&self, host: &str, ips: Arc<[IpAddr]>) {
        let mut known = self.known.write();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(host.to_owned(), (Instant::now(), ips));
    }
}

fn with_port(ips: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect()
}

/// One address of each family in turn, IPv6 first.
fn interleave(ips: impl Iterator<Item = IpAddr>) -> Arc<[IpAddr]> {
    let (v6, v4): (Vec<_>, Vec<_>) = ips.partition(IpAddr::is_ipv6);
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    let mut out = Vec::new();
    loop {
        let pair = [v6.next(), v4.next()];
        if pair == [None, None] {
            return out.into();
        }
        out.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let ips = ["10.0.0.1", "10.0.0.2", "::1", "10.0.0.3"].map(|s| s.parse::<IpAddr>().unwrap());
        let order: Vec<_> = interleave(ips.into_iter()).iter().map(ToString::to_string).collect();
        assert_eq!(order, ["::1", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    }

    #[tokio::test]
    async fn p15_an_unknown_name_is_an_error_and_not_a_panic() {
        let resolver = Resolver::default();
        assert!(resolver.resolve("no-such-host.invalid", 443).await.is_err());
        assert_eq!(resolver.resolve("[::1]", 1).await.unwrap()[0].to_string(), "[::1]:1");
    }
}
