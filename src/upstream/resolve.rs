//! Host names → addresses: asynchronous, cached for a short time, both families in turn.
//!
//! Enters: a host and a port. Leaves: addresses in the order to try them (RFC 8305, section 4); they are the
//! ones that were checked. May go wrong: the name does not exist, has no address or only forbidden ones, or
//! the resolver is silent; a stale answer is better than none.

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::future::{BoxFuture, FutureExt, Shared};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an answer is used without asking again. `getaddrinfo` gives no lifetimes.
const FRESH: Duration = Duration::from_secs(30);
/// How long an old answer is used when the resolver fails.
const STALE: Duration = Duration::from_mins(10);
/// Longest wait for an answer.
const WITHIN: Duration = Duration::from_secs(10);
/// Most names that are kept: names come from the configuration, so the bound is never met in practice.
const KEPT: usize = 4096;

/// When a name was looked up, and what was found.
type Known = (Instant, Arc<[IpAddr]>);
/// A look-up that all who want the same name wait for.
type Running = Shared<BoxFuture<'static, Result<Arc<[IpAddr]>, Failed>>>;
/// Why a look-up failed.
type Failed = (io::ErrorKind, Arc<str>);

/// Who knows names.
#[async_trait]
pub trait Lookup: fmt::Debug + Send + Sync {
    /// All addresses of a name.
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver.
#[derive(Debug)]
struct System;

#[async_trait]
impl Lookup for System {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// Names that were looked up.
#[derive(Debug)]
pub struct Resolver {
    known: RwLock<HashMap<String, Known>>,
    running: Mutex<HashMap<String, Running>>,
    lookup: Arc<dyn Lookup>,
    within: Duration,
    /// Hosts that may have link-local addresses, in lower case.
    allowed: ArcSwap<HashSet<String>>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new(Arc::new(System), WITHIN)
    }
}

impl Resolver {
    /// A resolver that asks `lookup` and waits no longer than `within`.
    pub fn new(lookup: Arc<dyn Lookup>, within: Duration) -> Self {
        let (known, running) = (RwLock::default(), Mutex::default());
        Self { known, running, lookup, within, allowed: ArcSwap::default() }
    }

    /// Sets the hosts that may have link-local addresses.
    pub fn allow(&self, hosts: &[String]) {
        let hosts = hosts.iter().map(|host| bare(host.trim()).to_ascii_lowercase());
        self.allowed.store(Arc::new(hosts.collect()));
    }

    /// The addresses of `host`.
    pub async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let host = bare(host);
        let ips = match host.parse::<IpAddr>() {
            Ok(ip) => Arc::from([ip]),
            Err(_) => self.named(host).await?,
        };
        self.checked(host, &ips, port)
    }

    /// Refuses a host that is a forbidden address. Names are judged when they are resolved.
    pub fn judge(&self, host: &str) -> io::Result<()> {
        let host = bare(host);
        match host.parse::<IpAddr>() {
            Ok(ip) => self.checked(host, &[ip], 0).map(drop),
            Err(_) => Ok(()),
        }
    }

    async fn named(&self, host: &str) -> io::Result<Arc<[IpAddr]>> {
        let cached = self.known.read().get(host).cloned();
        if let Some((at, ips)) = &cached
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(ips));
        }
        let running = self.running.lock().entry(host.to_owned()).or_insert_with(|| self.ask(host)).clone();
        let answer = running.clone().await;
        let mut all = self.running.lock();
        if all.get(host).is_some_and(|other| other.ptr_eq(&running)) {
            all.remove(host);
        }
        drop(all);
        match (answer, cached) {
            (Ok(ips), _) => {
                self.remember(host, Arc::clone(&ips));
                Ok(ips)
            }
            (Err(_), Some((at, ips))) if at.elapsed() < STALE => Ok(ips),
            (Err((kind, why)), _) => Err(io::Error::new(kind, format!("cannot resolve {host}: {why}"))),
        }
    }

    /// Begins a look-up.
    fn ask(&self, host: &str) -> Running {
        let (lookup, host, within) = (Arc::clone(&self.lookup), host.to_owned(), self.within);
        let asked = async move {
            let found = match tokio::time::timeout(within, lookup.lookup(&host)).await {
                Ok(found) => found.map_err(|error| (error.kind(), Arc::from(error.to_string())))?,
                Err(_) => return Err((io::ErrorKind::TimedOut, Arc::from("no answer in time"))),
            };
            let ips = interleave(found.into_iter());
            if ips.is_empty() {
                Err((io::ErrorKind::NotFound, Arc::from("it has no address")))
            } else {
                Ok(ips)
            }
        };
        asked.boxed().shared()
    }

    /// The addresses that may be used.
    fn checked(&self, host: &str, ips: &[IpAddr], port: u16) -> io::Result<Vec<SocketAddr>> {
        let allowed = self.allowed.load().contains(&host.to_ascii_lowercase());
        let usable: Vec<IpAddr> = ips.iter().copied().filter(|ip| allowed || !is_forbidden(*ip)).collect();
        if usable.is_empty() {
            let why = format!(
                "{host} is at a link-local address, which is refused; allow-link-local-hosts can list it"
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(with_port(&usable, port))
    }

    fn remember(&self, host: &str, ips: Arc<[IpAddr]>) {
        let mut known = self.known.write();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(host.to_owned(), (Instant::now(), ips));
    }
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Where no provider is: link-local addresses, at which clouds serve the secrets of their machines, and the
/// two that serve them elsewhere.
fn is_forbidden(ip: IpAddr) -> bool {
    const AWS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    const ALIBABA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    let v4 = |ip: Ipv4Addr| ip.is_link_local() || ip == ALIBABA;
    match ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => v4(ip),
            None => ip.is_unicast_link_local() || ip == AWS,
        },
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

    /// Answers one after another; the last one stays. `None`: silence.
    #[derive(Debug)]
    struct Script(Mutex<Vec<Option<io::Result<Vec<&'static str>>>>>, std::sync::atomic::AtomicUsize);

    #[async_trait]
    impl Lookup for Script {
        async fn lookup(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let next = self.0.lock().pop();
            match next.unwrap_or(None) {
                Some(answer) => answer.map(|ips| ips.iter().map(|ip| ip.parse().unwrap()).collect()),
                None => std::future::pending().await,
            }
        }
    }

    fn scripted(mut answers: Vec<Option<io::Result<Vec<&'static str>>>>) -> (Arc<Script>, Resolver) {
        answers.reverse();
        let script = Arc::new(Script(Mutex::new(answers), std::sync::atomic::AtomicUsize::new(0)));
        (Arc::clone(&script), Resolver::new(script, Duration::from_millis(50)))
    }

    #[tokio::test]
    async fn p15_a_name_without_an_address_is_an_error_and_not_a_panic() {
        let nothing = || Some(Err(io::Error::new(io::ErrorKind::NotFound, "NXDOMAIN")));
        for (answer, says) in
            [(nothing(), "NXDOMAIN"), (None, "no answer in time"), (Some(Ok(vec![])), "no address")]
        {
            let (_, resolver) = scripted(vec![answer]);
            let told = resolver.resolve("api.test", 443).await.unwrap_err().to_string();
            assert!(told.contains("api.test") && told.contains(says), "{told}");
        }
        let (_, resolver) = scripted(vec![]);
        assert_eq!(resolver.resolve("[::1]", 1).await.unwrap()[0].to_string(), "[::1]:1");
    }

    #[tokio::test]
    async fn p15_an_old_answer_is_better_than_none() {
        let (_, resolver) = scripted(vec![Some(Ok(vec!["192.0.2.1"])), None]);
        assert!(resolver.resolve("api.test", 443).await.is_ok());
        let old = Instant::now().checked_sub(FRESH + Duration::from_secs(1)).unwrap();
        resolver.known.write().get_mut("api.test").unwrap().0 = old;
        assert_eq!(resolver.resolve("api.test", 443).await.unwrap()[0].to_string(), "192.0.2.1:443");
    }

    #[tokio::test]
    async fn all_who_want_a_name_wait_for_one_look_up() {
        let (script, resolver) = scripted(vec![Some(Ok(vec!["192.0.2.1"]))]);
        let all = futures::future::join_all((0..50).map(|_| resolver.resolve("api.test", 443))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(script.1.load(std::sync::atomic::Ordering::SeqCst), 1);
        assert!(resolver.running.lock().is_empty());
    }

    #[tokio::test]
    async fn p60_only_checked_addresses_are_handed_out() {
        let (_, resolver) = scripted(vec![
            Some(Ok(vec!["192.0.2.1", "169.254.169.254"])),
            Some(Ok(vec!["169.254.169.254", "fe80::1", "::ffff:169.254.1.1", "fd00:ec2::254"])),
        ]);
        let first = resolver.resolve("one.test", 443).await.unwrap();
        assert_eq!(first.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1:443"]);
        let told = resolver.resolve("rebound.test", 443).await.unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::PermissionDenied);
        assert!(resolver.resolve("169.254.169.254", 80).await.is_err(), "not as a literal either");
        resolver.allow(&["Rebound.test".to_owned(), "[fe80::2]".to_owned()]);
        assert_eq!(resolver.resolve("rebound.test", 443).await.unwrap().len(), 4);
        assert!(resolver.resolve("[fe80::2]", 443).await.is_ok());
        assert!(
            resolver.resolve("127.0.0.1", 443).await.is_ok(),
            "the operator's own hosts are his business"
        );
    }
}
