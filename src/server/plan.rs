//! What is listened on.
//!
//! Enters: addresses of the configuration, listeners of the process before, where there is one. Leaves: bound
//! listeners, before anything is served: what comes meanwhile waits. May go wrong: an address that is taken or
//! not there.

use super::StartError;
use super::upgrade::Taken;
use config::Config;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    /// The address that the configuration asks for; its port may be 0.
    pub asked: SocketAddr,
    /// The address that it has.
    pub address: SocketAddr,
    /// The socket.
    pub socket: TcpListener,
}

impl Listener {
    /// One that `taken` brought, or a new one.
    fn open(asked: SocketAddr, taken: Option<&mut Taken>) -> Result<Self, StartError> {
        let failed = |cause| listen_error(asked.to_string(), cause);
        let inherited = taken.and_then(|taken| taken.claim(asked));
        let socket = match inherited {
            Some(socket) => socket,
            None => TcpListener::bind(asked).map_err(failed)?,
        };
        socket.set_nonblocking(true).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { asked, address, socket })
    }

    /// The same socket once more.
    pub(super) fn again(&self) -> std::io::Result<Self> {
        Ok(Self { asked: self.asked, address: self.address, socket: self.socket.try_clone()? })
    }
}

/// What is served where.
#[derive(Debug)]
pub struct Plan {
    /// Listeners of the proxy.
    pub listen: Vec<Listener>,
    /// Listener of the metrics.
    pub metrics: Option<Listener>,
    /// Warnings for the operator.
    pub warnings: Vec<String>,
    /// The process before, which waits to be told that this one serves.
    pub(super) taken: Option<Taken>,
}

impl Plan {
    /// Binds the addresses, so that a taken one is told before anything is served.
    pub fn new(config: &Config, port: Option<u16>, mut taken: Option<Taken>) -> Result<Self, StartError> {
        let server = &config.server;
        let mut asked = vec![resolve(server.host.as_str(), port.unwrap_or(server.port))?];
        for extra in &server.extra_listen.0 {
            let host = if extra.host.as_str().is_empty() { &server.host } else { &extra.host };
            asked.push(resolve(host.as_str(), extra.port)?);
        }
        let opened: Result<_, _> =
            asked.into_iter().map(|address| Listener::open(address, taken.as_mut())).collect();
        let mut plan = Self { listen: opened?, metrics: None, warnings: Vec::new(), taken: None };
        if let Some(metrics) = &server.metrics.listen {
            let found = resolve(metrics.host.as_str(), metrics.port)
                .and_then(|address| Listener::open(address, taken.as_mut()));
            match found {
                Ok(found) => plan.metrics = Some(found),
                // A second proxy on the machine is no reason not to serve.
                Err(error) => plan.warnings.push(format!("no metrics: {error}; set metrics.listen")),
            }
        }
        plan.taken = taken;
        Ok(plan)
    }
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, StartError> {
    if host.is_empty() {
        // All interfaces: an IPv6 socket takes IPv4 as well, where there is IPv6.
        let six = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
        return Ok(if six {
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
        } else {
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
        });
    }
    let failed = |cause| listen_error(format!("{host}:{port}"), cause);
    let mut found = (host, port).to_socket_addrs().map_err(failed)?;
    found.next().ok_or_else(|| failed(std::io::Error::other("the name has no address")))
}

fn listen_error(address: String, cause: std::io::Error) -> StartError {
    let hint = match cause.kind() {
        std::io::ErrorKind::AddrInUse => {
            " (the port is in use: stop the other process, take over from it with --upgrade, or change `port`)"
        }
        std::io::ErrorKind::PermissionDenied => {
            " (ports below 1024 need a privilege; Windows reserves others, see `netsh interface ipv4 show \
             excludedportrange protocol=tcp`: change `port`)"
        }
        std::io::ErrorKind::AddrNotAvailable => " (this machine does not have that address: change `host`)",
        _ => "",
    };
    StartError::Listen { address, cause, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_94_a_port_that_cannot_be_had_is_told_with_what_to_do() {
        // 10013 and 10048 of Windows are these two.
        for (kind, hint) in [
            (std::io::ErrorKind::PermissionDenied, "netsh interface ipv4 show excludedportrange"),
            (std::io::ErrorKind::AddrInUse, "the port is in use"),
        ] {
            let told = listen_error("127.0.0.1:8317".to_owned(), kind.into()).to_string();
            assert!(
                told.contains("127.0.0.1:8317") && told.contains(hint) && told.contains("change `port`"),
                "{told}"
            );
        }
    }
}
