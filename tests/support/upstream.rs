//! An upstream that does to each request what a test says, byte by byte.
//!
//! Enters: a script from a request to [`Step`]s. Leaves: what was seen, and when. Faults are real ones:
//! resets are RST, stalls are silence, cuts are closed sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What is done after a request was read.
#[derive(Clone, Debug)]
pub enum Step {
    /// These bytes, at once.
    Send(Vec<u8>),
    /// These bytes, in pieces of so many, each a packet of its own.
    Trickle(Vec<u8>, usize),
    /// Nothing for so long.
    Sleep(Duration),
    /// Nothing until the peer leaves; then the time is noted in [`Seen::left`].
    Stall,
    /// Close in order.
    Close,
    /// Close with RST.
    Reset,
}

impl Step {
    /// Bytes of a text.
    pub fn send(text: impl Into<String>) -> Self {
        Self::Send(text.into().into_bytes())
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `POST`
    pub method: String,
    /// Target as sent.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body, unframed.
    pub body: Vec<u8>,
    /// Number of the connection it came on.
    pub connection: usize,
    /// When it was complete.
    pub at: Instant,
    /// When the peer left during [`Step::Stall`].
    pub left: Option<Instant>,
}

impl Seen {
    /// Value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

type Script = dyn Fn(&Seen) -> Vec<Step> + Send + Sync;

struct Shared {
    script: Box<Script>,
    seen: Mutex<Vec<Seen>>,
    changed: Condvar,
    connections: AtomicUsize,
    stop: AtomicBool,
}

/// A running upstream; stops with the value.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Starts one that answers by `script`.
    pub fn start(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let shared = Arc::new(Shared {
            script: Box::new(script),
            seen: Mutex::default(),
            changed: Condvar::new(),
            connections: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if for_thread.stop.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&for_thread);
                thread::spawn(move || serve(&stream, &shared));
            }
        });
        Self { address, shared }
    }

    /// `http://127.0.0.1:port`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("no test panicked here").clone()
    }

    /// Waits until `found` holds of the requests so far.
    pub fn wait(&self, limit: Duration, found: impl Fn(&[Seen]) -> bool) -> bool {
        let end = Instant::now() + limit;
        let mut seen = self.shared.seen.lock().expect("no test panicked here");
        loop {
            if found(&seen) {
                return true;
            }
            let Some(left) = end.checked_duration_since(Instant::now()) else { return false };
            seen = self.shared.changed.wait_timeout(seen, left).expect("no test panicked here").0;
        }
    }

    /// Connections that were opened.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: &TcpStream, shared: &Shared) {
    let connection = shared.connections.fetch_add(1, Ordering::Relaxed);
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    while let Some(seen) = read_request(stream, &mut buffer, connection) {
        let steps = (shared.script)(&seen);
        let place = {
            let mut all = shared.seen.lock().expect("no test panicked here");
            all.push(seen);
            all.len() - 1
        };
        shared.changed.notify_all();
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).is_err() {
                        return;
                    }
                }
                Step::Trickle(bytes, size) => {
                    for piece in bytes.chunks(size.max(1)) {
                        if stream.write_all(piece).is_err() {
                            return;
                        }
                        thread::sleep(Duration::from_millis(1));
                    }
                }
                Step::Sleep(length) => thread::sleep(length),
                Step::Stall => {
                    let mut rest = [0; 1];
                    while matches!(stream.read(&mut rest), Ok(n) if n > 0) {}
                    shared.seen.lock().expect("no test panicked here")[place].left = Some(Instant::now());
                    shared.changed.notify_all();
                    return;
                }
                Step::Close => {
                    let _ = stream.shutdown(Shutdown::Both);
                    return;
                }
                Step::Reset => {
                    let socket = socket2::SockRef::from(stream);
                    let _ = socket.set_linger(Some(Duration::ZERO));
                    return;
                }
            }
        }
    }
}

/// Reads one request; `None` when the peer has left.
fn read_request(mut stream: &TcpStream, buffer: &mut Vec<u8>, connection: usize) -> Option<Seen> {
    let mut chunk = [0; 65536];
    let end = loop {
        if let Some(at) = find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
        let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
        buffer.extend_from_slice(&chunk[..n]);
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end);
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let value = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let length: usize = value("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    let chunked = value("transfer-encoding").is_some_and(|v| v.contains("chunked"));
    let body = loop {
        if chunked {
            if let Some((body, used)) = unchunk(buffer) {
                buffer.drain(..used);
                break body;
            }
        } else if buffer.len() >= length {
            break buffer.drain(..length).collect();
        }
        let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
        buffer.extend_from_slice(&chunk[..n]);
    };
    Some(Seen { method, path, headers, body, connection, at: Instant::now(), left: None })
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// The content of a complete chunked body and its length on the wire.
pub fn unchunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = find(&bytes[at..], b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        at += line + 2;
        if bytes.len() < at + size + 2 {
            return None;
        }
        if size == 0 {
            return Some((body, at + 2));
        }
        body.extend_from_slice(&bytes[at..at + size]);
        at += size + 2;
    }
}

/// A whole answer with its length.
pub fn whole(status: u16, content_type: &str, body: &str) -> Step {
    Step::send(format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// A whole JSON answer.
pub fn json(status: u16, body: &str) -> Step {
    whole(status, "application/json", body)
}

/// The head of a chunked event stream.
pub fn stream_head() -> Step {
    Step::send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
}

/// A chunk.
pub fn chunk(text: &str) -> Step {
    Step::send(format!("{:x}\r\n{text}\r\n", text.len()))
}

/// The end of a chunked answer.
pub fn chunk_end() -> Step {
    Step::send("0\r\n\r\n")
}
