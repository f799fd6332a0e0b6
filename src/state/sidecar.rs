//! The way from the data path to the management sidecar, which runs on threads of its own.
//!
//! Enters: a whole request. Leaves: the head of an answer, then its body in parts. May go wrong: the sidecar
//! has more to do than it takes ([`Busy`]); a handler panics, and no head comes.
//!
//! Both sides see this module and not each other.

use bytes::Bytes;
use http::Request;
use http::response::Parts;
use std::net::IpAddr;
use std::sync::OnceLock;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// Requests that wait for the sidecar to take them.
const WAITING: usize = 64;

/// Who asks, by the connection and nothing that was said on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub Option<IpAddr>);

impl Peer {
    /// Whether it is a process of this machine. A connection without an address is a Unix socket.
    pub fn is_local(self) -> bool {
        self.0.is_none_or(|ip| ip.to_canonical().is_loopback())
    }
}

/// A request on its way.
#[derive(Debug)]
pub struct Hop {
    /// Header and body.
    pub request: Request<Bytes>,
    /// Who asks.
    pub peer: Peer,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
}

/// An answer on its way back.
#[derive(Debug)]
pub struct Answer {
    /// Status and headers.
    pub head: Parts,
    /// Bytes of the body, where they are known.
    pub length: Option<u64>,
    /// The body. It ends when the sender is dropped.
    pub body: mpsc::Receiver<Bytes>,
}

/// The sidecar cannot take the request: it has too many, or it does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("management has too much to do; try again in a second")]
pub struct Busy;

/// Where requests for the sidecar go.
#[derive(Debug, Default)]
pub struct Sidecar {
    sender: OnceLock<mpsc::Sender<Hop>>,
    threads: OnceLock<Handle>,
}

impl Sidecar {
    /// The threads on which those are served that ask it.
    pub fn runs_on(&self, threads: Handle) {
        // The first ones stay.
        let _ = self.threads.set(threads);
    }

    /// Those threads; `None`: it has none of its own.
    pub fn threads(&self) -> Option<&Handle> {
        self.threads.get()
    }

    /// The requests, for the sidecar; `None`: somebody has them already.
    pub fn take(&self) -> Option<mpsc::Receiver<Hop>> {
        let (sender, receiver) = mpsc::channel(WAITING);
        self.sender.set(sender).ok().map(|()| receiver)
    }

    /// Sends a request. Never waits.
    pub fn ask(&self, request: Request<Bytes>, peer: Peer) -> Result<oneshot::Receiver<Answer>, Busy> {
        let (answer, receiver) = oneshot::channel();
        let sender = self.sender.get().ok_or(Busy)?;
        sender.try_send(Hop { request, peer, answer }).map_err(|_| Busy)?;
        Ok(receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p57_local_is_judged_by_the_socket() {
        let peer = |text: &str| Peer(Some(text.parse().unwrap()));
        for local in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert!(peer(local).is_local(), "{local}");
        }
        for other in ["10.0.0.1", "192.168.1.1", "::ffff:10.0.0.1", "fe80::1", "0.0.0.0", "::"] {
            assert!(!peer(other).is_local(), "{other}");
        }
        assert!(Peer(None).is_local(), "a Unix socket");
    }

    #[test]
    fn what_is_too_much_is_refused_at_once() {
        let sidecar = Sidecar::default();
        let ask = || sidecar.ask(Request::new(Bytes::new()), Peer(None));
        assert_eq!(ask().unwrap_err(), Busy, "nobody is there");
        let requests = sidecar.take().unwrap();
        assert!(sidecar.take().is_none());
        let waiting: Vec<_> = (0..WAITING).map(|_| ask().unwrap()).collect();
        assert_eq!(ask().unwrap_err(), Busy);
        drop((requests, waiting));
        assert_eq!(ask().unwrap_err(), Busy, "it is gone");
    }
}
