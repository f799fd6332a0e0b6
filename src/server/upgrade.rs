//! A new process takes the listeners of the one that runs.
//!
//! Enters: `cliproxy serve --upgrade` in the new process, which waits at a socket in the state folder; SIGQUIT
//! in the old one, which connects to it. Leaves: the same sockets in both, passed by the system (SCM_RIGHTS),
//! so that no connection is refused. The old process serves until the new one says that it does; then it
//! answers what it has. May go wrong: nobody waits, nobody comes, the new process ends before it serves; in
//! all cases the old one goes on as if nothing had been.

use super::plan::Listener;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::fs::{DirBuilder, Permissions};
use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// First words of the message with the listeners: what it is, and its version.
const GREETING: &str = "cliproxy-upgrade 1";
/// What the new process says when it serves.
const READY: &[u8] = b"ready\n";
/// Most listeners: what one message of the system carries on all of them.
const MOST: usize = 64;
/// Longest message.
const MESSAGE: usize = 8192;
/// How long the new process waits for the old one.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long the old process looks for the new one, which may still be starting.
const SEARCH: Duration = Duration::from_secs(10);
/// How long the old process waits for the new one to serve.
const START: Duration = Duration::from_mins(1);
/// Time between two looks.
const STEP: Duration = Duration::from_millis(50);

/// Why the listeners stay where they are.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The socket of the state folder cannot be used.
    #[error("{0}: {1}")]
    Socket(PathBuf, io::Error),
    /// Nobody handed listeners over.
    #[error(
        "no process handed its listeners over within {PATIENCE:?}: send the running one SIGQUIT \
         (kill -QUIT PID), or start without --upgrade where none runs"
    )]
    Nobody,
    /// Nobody waits for them.
    #[error(
        "no new process waits at {0}: start one with `cliproxy serve --upgrade` and the same configuration"
    )]
    NobodyWaits(PathBuf),
    /// The other side ended, or said something else.
    #[error("the other process did not keep to the protocol: {0}")]
    Protocol(io::Error),
    /// The new process did not come so far as to serve.
    #[error("the new process ended, or did not serve within {START:?}; its own output says why")]
    NotReady,
}

/// Where the two meet: in the state folder beside the configuration file.
pub fn meeting_place(config_file: &Path) -> PathBuf {
    config_file.parent().unwrap_or(Path::new("")).join("state").join("upgrade.sock")
}

/// What the new process got.
#[derive(Debug)]
pub struct Taken {
    listeners: Vec<(SocketAddr, TcpListener)>,
    old: UnixStream,
}

impl Taken {
    /// Waits for the running process to hand its listeners over.
    pub fn wait(place: &Path) -> Result<Self, UpgradeError> {
        let failed = |error| UpgradeError::Socket(place.to_owned(), error);
        let folder = place.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        // Left by one that waited in vain.
        match std::fs::remove_file(place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(place).map_err(failed)?;
        std::fs::set_permissions(place, Permissions::from_mode(0o600)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let end = Instant::now() + PATIENCE;
        let found = loop {
            match listener.accept() {
                Ok((stream, _)) => break receive(stream),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => break Err(failed(error)),
                Err(_) if Instant::now() > end => break Err(UpgradeError::Nobody),
                Err(_) => std::thread::sleep(STEP),
            }
        };
        let _ = std::fs::remove_file(place);
        found
    }

    /// Takes the listener of an address, where there is one.
    pub(super) fn claim(&mut self, asked: SocketAddr) -> Option<TcpListener> {
        let at = self.listeners.iter().position(|(address, _)| *address == asked)?;
        Some(self.listeners.swap_remove(at).1)
    }

    /// Tells the old process to leave. Listeners that nobody asked for are closed.
    pub(super) fn ready(mut self) {
        if let Err(error) = self.old.write_all(READY) {
            tracing::warn!("the process before could not be told to leave: {error}");
        }
    }
}

fn receive(stream: UnixStream) -> Result<Taken, UpgradeError> {
    let failed = UpgradeError::Protocol;
    stream.set_nonblocking(false).map_err(failed)?;
    stream.set_read_timeout(Some(SEARCH)).map_err(failed)?;
    let mut text = vec![0; MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut text)];
    let message = recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        .map_err(|error| failed(error.into()))?;
    text.truncate(message.bytes);
    let mut sockets: Vec<OwnedFd> = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(found) = part {
            sockets.extend(found);
        }
    }
    if !text.ends_with(b"\n") {
        let rest = (&stream).take(MESSAGE as u64);
        BufReader::new(rest).read_until(b'\n', &mut text).map_err(failed)?;
    }
    let wrong = |what: &str| failed(io::Error::new(io::ErrorKind::InvalidData, what));
    let text = String::from_utf8(text).map_err(|_| wrong("no text"))?;
    let names = text.trim_end().strip_prefix(GREETING).ok_or_else(|| wrong("another version"))?;
    let addresses: Result<Vec<SocketAddr>, _> = names.split_whitespace().map(str::parse).collect();
    let addresses = addresses.map_err(|_| wrong("no address"))?;
    if addresses.len() != sockets.len() {
        return Err(wrong("listeners got lost"));
    }
    let listeners = addresses.into_iter().zip(sockets.into_iter().map(TcpListener::from)).collect();
    Ok(Taken { listeners, old: stream })
}

/// Hands listeners to the new process and waits until it serves.
pub(super) fn give(place: &Path, listeners: &[Listener]) -> Result<(), UpgradeError> {
    let end = Instant::now() + SEARCH;
    let mut stream = loop {
        match UnixStream::connect(place) {
            Ok(stream) => break stream,
            Err(_) if Instant::now() < end => std::thread::sleep(STEP),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(UpgradeError::NobodyWaits(place.to_owned()));
            }
            Err(error) => return Err(UpgradeError::Socket(place.to_owned(), error)),
        }
    };
    let failed = UpgradeError::Protocol;
    let mut text = GREETING.to_owned();
    for listener in listeners {
        text.push(' ');
        text.push_str(&listener.asked.to_string());
    }
    text.push('\n');
    let sockets: Vec<BorrowedFd<'_>> = listeners.iter().map(|listener| listener.socket.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(failed(io::Error::other(format!("more than {MOST} listeners"))));
    }
    let sent = sendmsg(&stream, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::empty())
        .map_err(|error| failed(error.into()))?;
    stream.write_all(text.as_bytes().get(sent..).unwrap_or_default()).map_err(failed)?;
    stream.set_read_timeout(Some(START)).map_err(failed)?;
    let mut answer = [0; READY.len()];
    match stream.read_exact(&mut answer) {
        Ok(()) if answer == READY => Ok(()),
        _ => Err(UpgradeError::NotReady),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn listener() -> Listener {
        let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let asked = SocketAddr::from(([127, 0, 0, 1], 0));
        Listener { asked, address: socket.local_addr().unwrap(), socket }
    }

    #[test]
    fn p47_listeners_go_over_and_the_old_process_hears_when_the_new_one_serves() {
        let folder = testkit::scratch::Scratch::new();
        let place = meeting_place(&folder.path().join("config.yaml"));
        let (first, second) = (listener(), listener());
        let addresses = [first.address, second.address];
        let at = place.clone();
        let old = std::thread::spawn(move || give(&at, &[first, second]));
        let mut taken = Taken::wait(&place).unwrap();
        let mode = std::fs::metadata(place.parent().unwrap()).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, place.exists()), (0o700, false));
        let asked = SocketAddr::from(([127, 0, 0, 1], 0));
        let mine: Vec<_> = std::iter::from_fn(|| taken.claim(asked)).collect();
        assert!(taken.claim(addresses[0]).is_none(), "only what was asked for");
        taken.ready();
        old.join().unwrap().unwrap();
        // The old process has dropped its own: these are the last ones.
        for address in addresses {
            assert!(mine.iter().any(|socket| socket.local_addr().unwrap() == address));
            TcpStream::connect(address).unwrap();
        }
    }

    #[test]
    fn p47_a_new_process_that_ends_too_soon_changes_nothing() {
        let folder = testkit::scratch::Scratch::new();
        let place = meeting_place(&folder.path().join("config.yaml"));
        let mine = listener();
        let (at, address) = (place.clone(), mine.address);
        let old = std::thread::spawn(move || (give(&at, std::slice::from_ref(&mine)), mine));
        drop(Taken::wait(&place).unwrap());
        let (given, _mine) = old.join().unwrap();
        assert!(matches!(given, Err(UpgradeError::NotReady)), "{given:?}");
        TcpStream::connect(address).unwrap();
    }
}
