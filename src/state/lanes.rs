//! Ways to upstreams, made once and shared by all credentials that go the same way.
//!
//! Enters: a credential and the configuration. Leaves: a [`Lane`]. May go wrong: a proxy setting that
//! cannot be used ([`NoLane::Proxy`]): such a credential sends nothing at all.

use crate::upstream::dial::{Proxy, ProxyScheme};
use crate::upstream::peer::{ConnectTimeouts, Lane};
use crate::upstream::public::is_public;
use crate::upstream::resolve::Resolver;
use config::{Config, ProxySetting, ProxyUrl};
use parking_lot::RwLock;
use pool::{CredentialSpec, Kind};
use secrecy::{ExposeSecret, SecretString};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Longest a write to an upstream may take.
const WRITE: Duration = Duration::from_mins(1);
/// Most ways that are kept; more means a configuration that changes all the time.
const KEPT: usize = 20_000;

/// All ways that were needed so far.
#[derive(Debug, Default)]
pub struct Lanes {
    known: RwLock<HashMap<u64, Lane>>,
    resolver: Arc<Resolver>,
}

/// Why there is no way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLane {
    /// The proxy setting cannot be used.
    #[error("proxy config invalid (source={place}): {problem}")]
    Proxy {
        /// Where it stands: `credential` or `global`.
        place: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The base URL cannot be used.
    #[error("{0}")]
    BaseUrl(String),
}

impl Lanes {
    /// The way of a credential. `told` is where its provider said that its API is; the operator's word is
    /// stronger.
    pub fn get(&self, spec: &CredentialSpec, told: Option<&str>, config: &Config) -> Result<Lane, NoLane> {
        let global = &config.providers.proxy_url;
        let base = match (&*spec.base_url, told) {
            ("", Some(told)) => told,
            ("", None) => default_base(spec.kind),
            (own, _) => own,
        };
        let connect = spec.timeouts.connect_seconds.unwrap_or(config.server.timeouts.connect_seconds);
        let key = key(spec, base, global, connect);
        if let Some(lane) = self.known.read().get(&key) {
            return Ok(lane.clone());
        }
        let lane = self.make(spec, base, connect, config)?;
        let mut known = self.known.write();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(key, lane.clone());
        Ok(lane)
    }

    /// Sets the hosts that may have link-local addresses.
    pub fn allow(&self, hosts: &[String]) {
        self.resolver.allow(hosts);
    }

    /// The way to a URL of ours, through a proxy setting of an account.
    pub fn to(&self, url: &Url, setting: &ProxySetting, config: &Config) -> Result<Lane, NoLane> {
        self.to_address(url, None, setting, config)
    }

    /// The addresses of the public Internet that a host has, IPv4 first. The error says why there are none.
    pub async fn public(&self, host: &str, port: u16) -> io::Result<Vec<IpAddr>> {
        let all = self.resolver.resolve(host, port).await?;
        let mut ips: Vec<IpAddr> = all.into_iter().map(|at| at.ip()).filter(|ip| is_public(*ip)).collect();
        ips.sort_by_key(IpAddr::is_ipv6);
        if ips.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{host} is in a private network"),
            ));
        }
        Ok(ips)
    }

    /// The way to a URL at an address that was checked: nobody looks its host up once more.
    pub fn to_address(
        &self,
        url: &Url,
        address: Option<IpAddr>,
        setting: &ProxySetting,
        config: &Config,
    ) -> Result<Lane, NoLane> {
        let (setting, place) = match setting {
            ProxySetting::Inherit => (&config.providers.proxy_url, "global"),
            own => (own, "credential"),
        };
        let proxy = through(setting, place)?;
        // A proxy that is asked for an address does not resolve it: it is judged here.
        url.host_str()
            .map_or(Ok(()), |host| self.resolver.judge(host))
            .map_err(|e| NoLane::BaseUrl(e.to_string()))?;
        let connect = super::seconds(config.server.timeouts.connect_seconds);
        Lane::to_address(url, address, proxy, ConnectTimeouts { connect, write: WRITE }, &self.resolver)
            .map_err(|e| NoLane::BaseUrl(e.to_string()))
    }

    fn make(&self, spec: &CredentialSpec, base: &str, connect: u32, config: &Config) -> Result<Lane, NoLane> {
        let base = Url::parse(base).map_err(|e| NoLane::BaseUrl(format!("base URL: {e}")))?;
        let timeouts = ConnectTimeouts { connect: super::seconds(connect), write: WRITE };
        let proxy = proxy(spec, &config.providers.proxy_url)?;
        Lane::new(&base, proxy, timeouts, &self.resolver).map_err(|e| NoLane::BaseUrl(e.to_string()))
    }
}

/// The address of a kind of upstream.
pub fn default_base(kind: Kind) -> &'static str {
    match kind {
        Kind::Chat | Kind::Responses => "https://api.openai.com/v1",
        Kind::Kimi => "https://api.kimi.com/coding/v1",
        Kind::Qwen => "https://portal.qwen.ai/v1",
        Kind::Iflow => "https://apis.iflow.cn/v1",
        Kind::Copilot => "https://api.githubcopilot.com",
        Kind::Codex => "https://chatgpt.com/backend-api/codex",
        Kind::Claude => "https://api.anthropic.com",
        Kind::Gemini => "https://generativelanguage.googleapis.com",
        Kind::Vertex => "https://aiplatform.googleapis.com",
        Kind::Antigravity | Kind::GeminiCli => "https://cloudcode-pa.googleapis.com",
        Kind::Kiro => "https://codewhisperer.us-east-1.amazonaws.com",
    }
}

fn key(spec: &CredentialSpec, base: &str, global: &ProxySetting, connect_seconds: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    (base, connect_seconds).hash(&mut hasher);
    match &spec.proxy {
        pool::Proxy::Global => {
            if let ProxySetting::Url(url) = global {
                (1, login(url), url.to_string()).hash(&mut hasher);
            } else {
                (2, *global == ProxySetting::Direct || *global == ProxySetting::Inherit).hash(&mut hasher);
            }
        }
        pool::Proxy::Direct => 3.hash(&mut hasher),
        pool::Proxy::Url(url) => (4, url.expose_secret()).hash(&mut hasher),
        pool::Proxy::Invalid(problem) => (5, problem).hash(&mut hasher),
    }
    hasher.finish()
}

fn login(url: &ProxyUrl) -> Option<(&str, &str)> {
    url.login.as_ref().map(|login| (login.user.expose_secret(), login.password.expose_secret()))
}

fn proxy(spec: &CredentialSpec, global: &ProxySetting) -> Result<Option<Proxy>, NoLane> {
    let parsed;
    let (setting, place) = match &spec.proxy {
        pool::Proxy::Direct => return Ok(None),
        pool::Proxy::Invalid(problem) => {
            return Err(NoLane::Proxy { place: "credential", problem: problem.clone() });
        }
        pool::Proxy::Url(url) => {
            parsed = ProxySetting::parse(url.expose_secret());
            (&parsed, "credential")
        }
        pool::Proxy::Global => (global, "global"),
    };
    through(setting, place)
}

fn through(setting: &ProxySetting, place: &'static str) -> Result<Option<Proxy>, NoLane> {
    match setting {
        ProxySetting::Inherit | ProxySetting::Direct => Ok(None),
        ProxySetting::Invalid { problem, .. } => Err(NoLane::Proxy { place, problem: problem.clone() }),
        ProxySetting::Url(url) => Ok(Some(Proxy {
            scheme: match url.scheme {
                config::ProxyScheme::Http => ProxyScheme::Http,
                config::ProxyScheme::Https => ProxyScheme::Https,
                config::ProxyScheme::Socks5 | config::ProxyScheme::Socks5h => ProxyScheme::Socks5,
            },
            host: url.host.clone(),
            port: url.port,
            user: login(url).map(|(user, password)| (user.to_owned(), SecretString::from(password))),
        })),
    }
}
