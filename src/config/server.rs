//! Where clients come in: addresses, TLS, limits, timeouts, metrics; and how the process leaves.
//!
//! Enters: `host`, `port`, `tls`, `extra-listen`, `trusted-proxies`, `proxy-protocol`, `limits`, `timeouts`,
//! `shutdown`, `metrics`. Leaves: [`Server`]. May go wrong: a host or port that cannot be listened on, an address range that is not one.
//! Host, port, TLS and the further listeners are read once, at start; the rest counts from the next reload.

use crate::read::word;
use ipnet::IpNet;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::IpAddr;

/// Port when the file names none.
pub const DEFAULT_PORT: u16 = 8317;

/// Port of the metrics when the file names none: far from 8317, whose neighbours people give to other proxies.
const METRICS_PORT: u16 = 9317;

/// How clients reach us.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Server {
    /// Address or name to bind; empty: all interfaces, IPv4 and IPv6.
    pub host: Host,
    /// Port to bind; 0: any free one.
    pub port: u16,
    /// TLS on that port.
    pub tls: Tls,
    /// Further ports with the same routes, as `8672`, `host:8672`, or a list of them.
    pub extra_listen: Listeners,
    /// Networks whose `X-Forwarded-For` and `Forwarded` are believed. Nobody else can choose the address that
    /// lock-outs and "local only" are judged by.
    pub trusted_proxies: Networks,
    /// Whether those networks begin their connections with a PROXY header.
    pub proxy_protocol: ProxyProtocol,
    /// How much one client may ask of us.
    pub limits: Limits,
    /// How long we wait.
    pub timeouts: Timeouts,
    /// How the process leaves.
    pub shutdown: Shutdown,
    /// Prometheus.
    pub metrics: Metrics,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: Host::default(),
            port: DEFAULT_PORT,
            tls: Tls::default(),
            extra_listen: Listeners::default(),
            trusted_proxies: Networks::default(),
            proxy_protocol: ProxyProtocol::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            shutdown: Shutdown::default(),
            metrics: Metrics::default(),
        }
    }
}

/// TLS of the main listener. Paths are relative to the file's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Tls {
    /// Serve HTTPS in place of HTTP.
    pub enable: bool,
    /// PEM file with the certificate chain.
    pub cert: String,
    /// PEM file with the private key.
    pub key: String,
}

/// Bounds on what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Limits {
    /// Largest request body in MiB, also after decompression; at least 1.
    pub max_body_mb: u32,
    /// Requests served at once before further ones get 503; 0: no bound.
    pub max_in_flight: u32,
    /// Largest request header in KiB; at least 1.
    pub header_kib: u32,
    /// Most header fields; at least 1.
    pub header_count: u32,
    /// Open connections of clients before further ones get 503; 0: as many as the system allows.
    pub max_connections: u32,
    /// The same for the connections of one address; 0: no bound. Trusted proxies are exempt.
    pub max_connections_per_address: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_mb: 64,
            max_in_flight: 0,
            header_kib: 64,
            header_count: 100,
            max_connections: 0,
            max_connections_per_address: 0,
        }
    }
}

/// Waiting times in seconds; 0: for ever.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Timeouts {
    /// For the connection to an upstream, TLS included.
    pub connect_seconds: u32,
    /// For the first byte of an upstream's answer.
    pub first_byte_seconds: u32,
    /// Between two bytes of an upstream's answer.
    pub idle_seconds: u32,
    /// For a client's header, and then for its body.
    pub client_body_seconds: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect_seconds: 10, first_byte_seconds: 300, idle_seconds: 300, client_body_seconds: 60 }
    }
}

/// How the process leaves when it is told to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Shutdown {
    /// Seconds between the flip of readiness and the end of the listeners: load balancers need them to look.
    pub delay_seconds: u32,
    /// Seconds that running answers have after that.
    pub drain_seconds: u32,
    /// The same for a process that handed its listeners to a new one: nobody waits for its end.
    pub upgrade_drain_seconds: u32,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { delay_seconds: 1, drain_seconds: 60, upgrade_drain_seconds: 600 }
    }
}

/// Who begins connections with a PROXY header (HAProxy's protocol, version 1 and 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocol {
    /// Nobody.
    #[default]
    Off,
    /// The trusted proxies, always: one that does not is cut, since nobody could tell the two apart.
    Trusted,
}

impl<'de> Deserialize<'de> for ProxyProtocol {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, |text| match text {
            // YAML reads a bare `off` as a word or as a truth value, by its version.
            "off" | "false" | "" => Ok(Self::Off),
            "trusted" => Ok(Self::Trusted),
            _ => Err("expected off or trusted".to_owned()),
        })
    }
}

/// Prometheus text format.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Metrics {
    /// Where it is served; a bare port is one of this machine only; `listen: ""`: nowhere.
    #[serde(deserialize_with = "listen_or_off", serialize_with = "off_is_empty")]
    pub listen: Option<Listen>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: Some(Listen { host: Host::loopback(), port: METRICS_PORT }) }
    }
}

/// Something that can be bound: an IP address, a name, or empty for all interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Host(String);

impl Host {
    /// The address or name; IPv6 without brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn loopback() -> Self {
        Self("127.0.0.1".to_owned())
    }

    fn parse(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        let name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if bare.parse::<IpAddr>().is_ok() || text.chars().all(name) {
            return Ok(Self(bare.to_owned()));
        }
        Err("expected an address such as 127.0.0.1 or a name; the port has its own key".to_owned())
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, Self::parse)
    }
}

/// A further address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where; empty: on the main listener's host.
    pub host: Host,
    /// Which port.
    pub port: u16,
}

impl Listen {
    /// Reads `8672`, `:8672`, `127.0.0.1:8672` or `[::1]:8672`.
    fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let port = port.parse().map_err(|_| "expected a port, or host:port".to_owned())?;
        Host::parse(host).map(|host| Self { host, port })
    }
}

impl Listen {
    /// Whether both cannot be bound at once.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let all = |listen: &Self| matches!(listen.host.as_str(), "" | "0.0.0.0" | "::");
        // Port 0 is another one each time.
        self.port == other.port && self.port != 0 && (self.host == other.host || all(self) || all(other))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_str() {
            "" => write!(out, "{}", self.port),
            host if host.contains(':') => write!(out, "[{host}]:{}", self.port),
            host => write!(out, "{host}:{}", self.port),
        }
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, Self::parse)
    }
}

fn listen_or_off<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Listen>, D::Error> {
    word(input, |text| {
        if text.is_empty() {
            return Ok(None);
        }
        let listen = Listen::parse(text)?;
        let host = if listen.host.as_str().is_empty() { Host::loopback() } else { listen.host };
        Ok(Some(Listen { host, port: listen.port }))
    })
}

#[expect(clippy::ref_option, reason = "serde passes the field")]
fn off_is_empty<S: Serializer>(listen: &Option<Listen>, out: S) -> Result<S::Ok, S::Error> {
    match listen {
        Some(listen) => out.collect_str(listen),
        None => out.serialize_str(""),
    }
}

/// Further listeners: one, or a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Listeners(pub Vec<Listen>);

impl<'de> Deserialize<'de> for Listeners {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Listeners;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a port, host:port, or a list of them")
            }

            fn visit_u64<E: de::Error>(self, port: u64) -> Result<Listeners, E> {
                self.visit_str(&port.to_string())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Listeners, E> {
                match text.trim() {
                    "" => Ok(Listeners::default()),
                    text => Listen::parse(text).map(|one| Listeners(vec![one])).map_err(E::custom),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Listeners, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = items.next_element()? {
                    all.push(one);
                }
                Ok(Listeners(all))
            }
        }
        input.deserialize_any(OneOrMore)
    }
}

/// Address ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Networks(pub Vec<IpNet>);

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Network(IpNet);
        impl<'de> Deserialize<'de> for Network {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                word(input, |text| {
                    let one = || text.parse::<IpAddr>().map(IpNet::from);
                    text.parse()
                        .or_else(|_| one())
                        .map(Self)
                        .map_err(|_| "expected an address or a range such as 10.0.0.0/8".to_owned())
                })
            }
        }
        let all = Vec::<Network>::deserialize(input)?;
        Ok(Self(all.into_iter().map(|network| network.0).collect()))
    }
}
