//! An origin as Pingora's connection pool sees it.
//!
//! Enters: base URL, proxy and timeouts of a credential. Leaves: [`Lane`]: cheap to copy, with a pool key
//! made of origin, proxy and TLS. May go wrong: a base URL without a host, refused when the configuration
//! is loaded; here it is an error as well, never a panic.

use super::dial::{Dialer, Proxy, ProxyScheme};
use super::resolve::Resolver;
use pingora::listeners::ALPN;
use pingora::protocols::TcpKeepalive;
use pingora::protocols::l4::socket::SocketAddr as L4Address;
use pingora::upstreams::peer::{Peer, PeerOptions};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use url::Url;

/// A base URL that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("base URL {0}")]
pub struct BadBaseUrl(String);

/// How long the phases of a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct ConnectTimeouts {
    /// Name, TCP, proxy and TLS together.
    pub connect: Duration,
    /// A write that the upstream does not take.
    pub write: Duration,
}

/// The way to an origin.
#[derive(Clone, Debug)]
pub struct Lane(Arc<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    address: L4Address,
    host: String,
    authority: String,
    base_path: String,
    tls: bool,
    options: PeerOptions,
    reuse: u64,
    forward: Option<Forward>,
}

/// A proxy that gets requests in the clear, with absolute targets (RFC 9112, section 3.2.2).
#[derive(Clone, Debug)]
pub struct Forward {
    /// Value of `Proxy-Authorization`.
    pub credentials: Option<SecretString>,
}

impl Lane {
    /// The way to `base` through `proxy`.
    pub fn new(
        base: &Url,
        proxy: Option<Proxy>,
        timeouts: ConnectTimeouts,
        resolver: &Arc<Resolver>,
    ) -> Result<Self, BadBaseUrl> {
        Self::to_address(base, None, proxy, timeouts, resolver)
    }

    /// The same; with an address the name of the host is not looked up, neither here nor by a proxy.
    pub fn to_address(
        base: &Url,
        address: Option<IpAddr>,
        proxy: Option<Proxy>,
        timeouts: ConnectTimeouts,
        resolver: &Arc<Resolver>,
    ) -> Result<Self, BadBaseUrl> {
        let tls = match base.scheme() {
            "https" => true,
            "http" => false,
            other => return Err(BadBaseUrl(format!("has scheme {other}; use http or https"))),
        };
        let Some(host) = base.host_str().filter(|host| !host.is_empty()) else {
            return Err(BadBaseUrl("has no host".to_owned()));
        };
        let port = base.port_or_known_default().unwrap_or(if tls { 443 } else { 80 });
        let reuse = pool_key(host, port, tls, proxy.as_ref());
        let forward = proxy
            .as_ref()
            .filter(|p| !tls && p.scheme != ProxyScheme::Socks5)
            .map(|p| Forward { credentials: p.basic().map(SecretString::from) });
        let dialled = match address {
            Some(IpAddr::V4(ip)) => ip.to_string(),
            Some(IpAddr::V6(ip)) => format!("[{ip}]"),
            None => host.to_owned(),
        };
        let dialer = Dialer { host: dialled, port, proxy, tunnel: tls, resolver: Arc::clone(resolver) };
        let authority = match base.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Ok(Self(Arc::new(Inner {
            // The address is only a key: the dialer resolves the name. 0.0.0.0 also tells Pingora not to
            // compare it with the socket's peer, which is a proxy or one of several addresses.
            address: L4Address::Inet(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            authority,
            base_path: base.path().trim_end_matches('/').to_owned(),
            tls,
            options: options(tls, timeouts, dialer),
            reuse,
            forward,
        })))
    }

    /// The same way with a pool key of its own: a connection of it is always new.
    #[must_use]
    pub fn fresh(&self) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut inner = Inner::clone(&self.0);
        inner.reuse ^= NEXT.fetch_add(1, Ordering::Relaxed).rotate_right(20);
        Self(Arc::new(inner))
    }

    /// Value of `Host`.
    pub fn authority(&self) -> &str {
        &self.0.authority
    }

    /// Scheme and host, for messages.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.0.tls { "https" } else { "http" }, self.0.authority)
    }

    /// Path of the base URL, without a slash at its end.
    pub fn base_path(&self) -> &str {
        &self.0.base_path
    }

    /// Host name, for messages.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// Port.
    pub fn port(&self) -> u16 {
        match &self.0.address {
            L4Address::Inet(address) => address.port(),
            L4Address::Unix(_) => 0,
        }
    }

    /// The proxy that wants absolute targets, if there is one on the way.
    pub fn forward(&self) -> Option<&Forward> {
        self.0.forward.as_ref()
    }

    /// Longest a write may take. Pingora's connector leaves it to who uses the session.
    pub fn write_timeout(&self) -> Option<Duration> {
        self.0.options.write_timeout
    }

    /// How long an idle connection is kept.
    pub fn idle(&self) -> Option<Duration> {
        self.0.options.idle_timeout
    }
}

fn options(tls: bool, timeouts: ConnectTimeouts, dialer: Dialer) -> PeerOptions {
    let mut options = PeerOptions::new();
    options.connection_timeout = Some(timeouts.connect);
    // The only limit that covers a dialer of one's own.
    options.total_connection_timeout = Some(timeouts.connect);
    options.write_timeout = Some(timeouts.write);
    // Reads are watched per stream, with one timer for all limits.
    options.read_timeout = None;
    options.idle_timeout = Some(Duration::from_secs(90));
    options.tcp_keepalive = Some(TcpKeepalive {
        idle: Duration::from_secs(30),
        interval: Duration::from_secs(10),
        count: 3,
        user_timeout: Duration::from_mins(1),
    });
    options.verify_cert = true;
    options.verify_hostname = true;
    if tls {
        options.alpn = ALPN::H2H1;
        options.max_h2_streams = 100;
        options.h2_ping_interval = Some(Duration::from_secs(30));
    }
    options.custom_l4 = Some(Arc::new(dialer));
    options
}

/// Connections are shared by everything that goes to one origin the same way.
fn pool_key(host: &str, port: u16, tls: bool, proxy: Option<&Proxy>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (host, port, tls).hash(&mut hasher);
    if let Some(proxy) = proxy {
        (proxy.scheme, &proxy.host, proxy.port).hash(&mut hasher);
        if let Some((user, password)) = &proxy.user {
            (user, password.expose_secret()).hash(&mut hasher);
        }
    }
    hasher.finish()
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.authority)
    }
}

impl Peer for Lane {
    fn address(&self) -> &L4Address {
        &self.0.address
    }

    fn tls(&self) -> bool {
        self.0.tls
    }

    fn sni(&self) -> &str {
        &self.0.host
    }

    fn reuse_hash(&self) -> u64 {
        self.0.reuse
    }

    fn get_peer_options(&self) -> Option<&PeerOptions> {
        Some(&self.0.options)
    }

    /// The pool key says enough; the default asks the kernel for the socket's peer on every reuse.
    fn matches_fd<V: std::os::fd::AsRawFd>(&self, _: V) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(base: &str) -> Result<Lane, BadBaseUrl> {
        let timeouts = ConnectTimeouts { connect: Duration::from_secs(1), write: Duration::from_secs(1) };
        Lane::new(&Url::parse(base).unwrap(), None, timeouts, &Arc::new(Resolver::default()))
    }

    #[test]
    fn base_urls() {
        let https = lane("https://api.example.com/v1/").unwrap();
        assert_eq!((https.authority(), https.base_path(), https.tls()), ("api.example.com", "/v1", true));
        let http = lane("http://127.0.0.1:9100").unwrap();
        assert_eq!((http.authority(), http.base_path(), http.tls()), ("127.0.0.1:9100", "", false));
        assert!(lane("ftp://x/").is_err());
        assert_ne!(https.reuse_hash(), http.reuse_hash());
    }

    #[test]
    fn proxies_split_the_pool() {
        let proxy = |host: &str| {
            Some(Proxy { scheme: ProxyScheme::Http, host: host.to_owned(), port: 1, user: None })
        };
        let keys: Vec<_> =
            [None, proxy("a"), proxy("b")].iter().map(|p| pool_key("x", 1, true, p.as_ref())).collect();
        assert!(keys[0] != keys[1] && keys[1] != keys[2]);
    }
}
