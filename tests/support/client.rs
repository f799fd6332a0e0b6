//! A client that speaks bytes.

use crate::upstream::unchunk;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A connection to the proxy.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer's head.
#[derive(Clone, Debug)]
pub struct Head {
    /// Status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// Value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its head.
    pub head: Head,
    /// Its body, unframed.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("not JSON ({e}): {}", String::from_utf8_lossy(&self.body)))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    /// Connects. Reads give up after 20 seconds, so that a proxy that hangs fails the test.
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("the proxy accepts"))
    }

    /// The same over a connection that is open.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("the timeout can be set");
        stream.set_nodelay(true).expect("nodelay can be set");
        Self { stream, buffer: Vec::new() }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the proxy reads");
    }

    /// Sends bytes; a proxy that has closed already is no failure.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends a POST with a JSON body.
    pub fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &str) {
        assert!(self.try_post(path, headers, body), "the proxy reads");
    }

    /// The same; `false` where the connection is gone.
    pub fn try_post(&mut self, path: &str, headers: &[(&str, &str)], body: &str) -> bool {
        let mut text = format!("POST {path} HTTP/1.1\r\nhost: proxy\r\ncontent-type: application/json\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        self.try_send(text.as_bytes())
    }

    /// Whether the proxy has closed the connection, as far as can be known before something is sent.
    pub fn is_closed(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("it can be set");
        let closed = match self.stream.peek(&mut [0]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        self.stream.set_nonblocking(false).expect("it can be set");
        closed
    }

    /// Sends a GET.
    pub fn get(&mut self, path: &str, headers: &[(&str, &str)]) {
        let mut text = format!("GET {path} HTTP/1.1\r\nhost: proxy\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        self.send(text.as_bytes());
    }

    /// Reads the head of an answer.
    pub fn head(&mut self) -> Head {
        let head = self.try_head();
        head.unwrap_or_else(|| {
            panic!("the proxy closed before its head: {:?}", String::from_utf8_lossy(&self.buffer))
        })
    }

    /// The same; `None` where the connection ends before.
    fn try_head(&mut self) -> Option<Head> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 4);
                let mut lines = text.lines();
                let status =
                    lines.next().and_then(|l| l.split(' ').nth(1)?.parse().ok()).expect("a status line");
                let headers = lines
                    .filter_map(|line| line.split_once(':'))
                    .map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()))
                    .collect();
                return Some(Head { status, headers });
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Reads a whole answer; `None` where the connection ends before.
    pub fn try_answer(&mut self) -> Option<Answer> {
        let head = self.try_head()?;
        let body = self.body(&head)?;
        Some(Answer { head, body })
    }

    /// Reads what comes of an answer, whole or cut.
    pub fn rest_of_answer(&mut self) {
        if let Some(head) = self.try_head() {
            self.body(&head);
        }
    }

    /// Reads a whole answer.
    pub fn answer(&mut self) -> Answer {
        let head = self.head();
        let body = self.body(&head).expect("the proxy closed before the end of its answer");
        Answer { head, body }
    }

    /// Reads a body; `None` where one with a length is cut.
    fn body(&mut self, head: &Head) -> Option<Vec<u8>> {
        let length = head.header("content-length").and_then(|v| v.parse::<usize>().ok());
        if let Some(length) = length {
            while self.buffer.len() < length {
                if !self.fill() {
                    return None;
                }
            }
            Some(self.buffer.drain(..length).collect())
        } else {
            loop {
                if let Some((body, used)) = unchunk(&self.buffer) {
                    self.buffer.drain(..used);
                    break Some(body);
                }
                if !self.fill() {
                    // What came of a chunked body whose end is missing: the test sees the cut.
                    break Some(std::mem::take(&mut self.buffer));
                }
            }
        }
    }

    /// Reads until the text `what` has come; returns when that was.
    pub fn until(&mut self, what: &str) -> Instant {
        while !String::from_utf8_lossy(&self.buffer).contains(what) {
            assert!(self.fill(), "closed before {what:?}: {:?}", String::from_utf8_lossy(&self.buffer));
        }
        Instant::now()
    }

    /// What came and was not taken.
    pub fn pending(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// Reads to the end of the connection.
    pub fn rest(mut self) -> Vec<u8> {
        while self.fill() {}
        self.buffer
    }

    /// Takes what has come, or comes next; empty at the end.
    pub fn some(&mut self) -> Vec<u8> {
        if self.buffer.is_empty() {
            self.fill();
        }
        std::mem::take(&mut self.buffer)
    }

    /// Reads once more; `false` at the end.
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 65536];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => {
                panic!("the proxy hangs: {error}; so far {:?}", String::from_utf8_lossy(&self.buffer))
            }
        }
    }
}
