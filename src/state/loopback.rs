//! The port of this machine to which a provider's page sends the browser back.
//!
//! Enters: a browser's GET. Leaves: whatever whoever waits makes of its query: the browser is sent on, or
//! sees a page. May go wrong: the port is in use; what is no such request is told 404 and no more.
//!
//! It listens on the loopback interface only, and only as long as somebody waits.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Largest request.
const MOST: usize = 16 << 10;
/// Connections at once.
const AT_ONCE: usize = 16;
/// Longest exchange with a browser.
const WITHIN: Duration = Duration::from_secs(10);

/// What a page may load, run and be shown in: nothing.
pub const POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// What the user sees when the answer of a provider has come where it belongs.
pub const TAKEN: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>cliproxy</title>\
<p>The provider's answer has arrived. How the login ends is told where you began it. You can close this page.</p>\n";
/// What the user sees otherwise.
pub const REFUSED: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>cliproxy</title>\
<p>Nobody waits for this answer: the login is unknown, has run out or was used already. Begin again.</p>\n";

/// What a browser is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Go there.
    Redirect(String),
    /// [`TAKEN`].
    Taken,
    /// [`REFUSED`].
    Refused,
}

/// A port that is listened on.
#[derive(Debug)]
pub struct Loopback {
    four: TcpListener,
    /// Browsers try it first for `localhost`. There is none on machines without IPv6.
    six: Option<TcpListener>,
}

impl Loopback {
    /// Listens on a port.
    pub async fn bind(port: u16) -> io::Result<Self> {
        let four = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let six = match TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await {
            Ok(six) => Some(six),
            // Somebody else would get the answer.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(_) => None,
        };
        Ok(Self { four, six })
    }

    /// Answers browsers by what `answer` makes of the query of a GET of `path`. Ends when it is dropped.
    pub async fn serve(self, path: &str, answer: impl Fn(&str) -> Reply) {
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! {
                stream = accept(&self.four), if open.len() < AT_ONCE => open.push(exchange(stream, path, &answer)),
                stream = accept_if(self.six.as_ref()), if open.len() < AT_ONCE => open.push(exchange(stream, path, &answer)),
                Some(()) = open.next() => {}
            }
        }
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // Too many open files: it passes.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn accept_if(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => accept(listener).await,
        None => std::future::pending().await,
    }
}

/// One request and its answer. A browser that leaves or stalls is let go.
async fn exchange(mut stream: TcpStream, path: &str, answer: impl Fn(&str) -> Reply) {
    let _ = tokio::time::timeout(WITHIN, async {
        let head = head(&mut stream).await?;
        let told = query(&head, path).map(|query| answer(&query));
        stream.write_all(response(told.as_ref()).as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
}

/// The bytes up to the end of the header.
async fn head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(2048);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= MOST || stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(head)
}

/// The query of a GET of `path`.
fn query(head: &[u8], path: &str) -> Option<String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(head).ok()?;
    let (found, query) = request.path?.split_once('?')?;
    (request.method == Some("GET") && found == path).then(|| query.to_owned())
}

fn response(reply: Option<&Reply>) -> String {
    let common = format!(
        "content-type: text/html; charset=utf-8\r\ncontent-security-policy: {POLICY}\r\nreferrer-policy: no-referrer\r\n\
         x-content-type-options: nosniff\r\ncache-control: no-store\r\nconnection: close\r\n"
    );
    let page = |status: &str, more: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\n{common}{more}content-length: {}\r\n\r\n{body}", body.len())
    };
    match reply {
        Some(Reply::Redirect(url)) => page("302 Found", &format!("location: {url}\r\n"), ""),
        Some(Reply::Taken) => page("200 OK", "", TAKEN),
        Some(Reply::Refused) => page("400 Bad Request", "", REFUSED),
        None => page("404 Not Found", "", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(port: u16, request: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn p62_only_the_registered_path_is_answered_and_nothing_of_it_is_shown() {
        let port = testkit::scratch::free_port();
        let loopback = Loopback::bind(port).await.unwrap();
        assert_eq!(Loopback::bind(port).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let serving = tokio::spawn(loopback.serve("/callback", |query| {
            if query.contains("go") { Reply::Redirect(format!("http://p/x?{query}")) } else { Reply::Taken }
        }));
        let get = async |target: &str| {
            ask(port, &format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await
        };
        let page = get("/callback?code=canary%3Cscript%3E").await;
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("default-src 'none'"), "{page}");
        assert!(!page.contains("canary") && !page.contains("script"), "{page}");
        let moved = get("/callback?go=1&state=s").await;
        assert!(moved.contains("\r\nlocation: http://p/x?go=1&state=s\r\n"), "{moved}");
        for other in ["/", "/callback", "/callback/?x", "/other?code=c", "//callback?x"] {
            assert!(get(other).await.starts_with("HTTP/1.1 404"), "{other}");
        }
        assert!(ask(port, "POST /callback?x=1 HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 404"));
        assert!(ask(port, "GET /callback?a b HTTP/9\r\n\r\n").await.starts_with("HTTP/1.1 404"));
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        assert!(Loopback::bind(port).await.is_ok(), "the port is free again");
    }
}
