//! Opens the byte stream to an upstream: directly, or through an HTTP, HTTPS or SOCKS5 proxy.
//!
//! Enters: where to go and through what. Leaves: a connected stream for Pingora to speak TLS and HTTP on.
//! May go wrong: every step; the error names the step and the host and never the proxy's password. A proxy
//! that cannot be used fails the connection: nothing falls back to the direct way.
//!
//! Sources: RFC 9110 section 9.3.6 (CONNECT), RFC 1928 and 1929 (SOCKS5), RFC 8305 (racing addresses).

use super::resolve::Resolver;
use async_trait::async_trait;
use base64::Engine as _;
use pingora::connectors::{ConnectorOptions, L4Connect, TransportConnector};
use pingora::protocols::l4::socket::SocketAddr as L4Address;
use pingora::protocols::l4::stream::Stream;
use pingora::upstreams::peer::BasicPeer;
use pingora::{BError, Error, ErrorType, OrErr, Result};
use secrecy::{ExposeSecret, SecretString};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// Start of the next address while one is still trying.
const STAGGER: Duration = Duration::from_millis(250);
/// Longest answer to CONNECT.
const CONNECT_ANSWER_MAX: usize = 8192;

const PROXY_FAILURE: ErrorType = ErrorType::ConnectProxyFailure;

/// A way out.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// How it is spoken to.
    pub scheme: ProxyScheme,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User name and password.
    pub user: Option<(String, SecretString)>,
}

impl Proxy {
    /// Value of `Proxy-Authorization`, where there is a user.
    pub fn basic(&self) -> Option<String> {
        let (user, password) = self.user.as_ref()?;
        let pair = format!("{user}:{}", password.expose_secret());
        Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
    }
}

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyScheme {
    /// CONNECT in the clear.
    Http,
    /// CONNECT inside TLS.
    Https,
    /// SOCKS version 5; the proxy resolves the name.
    Socks5,
}

/// Connects to one origin.
#[derive(Debug)]
pub struct Dialer {
    /// Host of the origin.
    pub host: String,
    /// Port of the origin.
    pub port: u16,
    /// The way out; `None`: directly.
    pub proxy: Option<Proxy>,
    /// Whether an HTTP proxy is asked for a tunnel (CONNECT). Requests in the clear go to it as they are,
    /// with an absolute target.
    pub tunnel: bool,
    /// Shared names.
    pub resolver: Arc<Resolver>,
}

#[async_trait]
impl L4Connect for Dialer {
    async fn connect(&self, _: &L4Address) -> Result<Stream> {
        let Some(proxy) = &self.proxy else {
            return Ok(self.tcp(&self.host, self.port).await?.into());
        };
        match proxy.scheme {
            ProxyScheme::Http => {
                let mut stream = self.tcp(&proxy.host, proxy.port).await?;
                if self.tunnel {
                    self.connect_through(&mut stream, proxy).await?;
                }
                Ok(stream.into())
            }
            ProxyScheme::Socks5 => {
                let mut stream = self.tcp(&proxy.host, proxy.port).await?;
                self.socks5(&mut stream, proxy).await?;
                Ok(stream.into())
            }
            ProxyScheme::Https => self.connect_through_tls(proxy).await,
        }
    }
}

impl Dialer {
    /// A TCP connection to the first address that answers; addresses start one after another.
    async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream> {
        let addresses = self
            .resolver
            .resolve(host, port)
            .await
            .map_err(|error| Error::explain(ErrorType::ConnectError, error.to_string()))?;
        let mut attempts = tokio::task::JoinSet::new();
        let mut waiting = addresses.into_iter();
        let mut last = None;
        loop {
            match waiting.next() {
                Some(address) => {
                    attempts.spawn(TcpStream::connect(address));
                }
                None if attempts.is_empty() => {
                    let cause = last.unwrap_or_else(|| std::io::Error::other("no address"));
                    return Error::e_because(
                        connect_error_type(&cause),
                        format!("connecting to {host}:{port}"),
                        cause,
                    );
                }
                None => {}
            }
            let more = waiting.len() > 0;
            tokio::select! {
                Some(done) = attempts.join_next() => match done {
                    Ok(Ok(stream)) => {
                        // Small writes (a header, then a body) must not wait for acknowledgements.
                        let _ = stream.set_nodelay(true);
                        return Ok(stream);
                    }
                    Ok(Err(error)) => last = Some(error),
                    Err(_) => {}
                },
                () = tokio::time::sleep(STAGGER), if more => {}
            }
        }
    }

    async fn connect_through<S>(&self, stream: &mut S, proxy: &Proxy) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + ?Sized,
    {
        let (host, port) = (&self.host, self.port);
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
        if let Some(credentials) = proxy.basic() {
            request.extend(["Proxy-Authorization: ", &credentials, "\r\n"]);
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|e| proxy_error(proxy, "writing CONNECT", e))?;
        stream.flush().await.map_err(|e| proxy_error(proxy, "writing CONNECT", e))?;
        let mut answer = Vec::with_capacity(256);
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() > CONNECT_ANSWER_MAX {
                return Error::e_explain(PROXY_FAILURE, "the answer to CONNECT is too long");
            }
            // Byte by byte: what follows the head belongs to the tunnel.
            answer.push(
                stream.read_u8().await.map_err(|e| proxy_error(proxy, "reading the answer to CONNECT", e))?,
            );
        }
        let status = answer.get(9..12).unwrap_or_default();
        if status.first() == Some(&b'2') {
            return Ok(());
        }
        let status = String::from_utf8_lossy(status).into_owned();
        Error::e_explain(
            PROXY_FAILURE,
            format!("proxy {}:{} refused CONNECT with status {status}", proxy.host, proxy.port),
        )
    }

    /// TLS to the proxy, then CONNECT, then TLS to the origin inside. The pool tells connections apart by
    /// their descriptor, which a stream inside a stream has not: a socket pair gives it one.
    async fn connect_through_tls(&self, proxy: &Proxy) -> Result<Stream> {
        static TLS: LazyLock<TransportConnector> =
            LazyLock::new(|| TransportConnector::new(Some(ConnectorOptions::new(0))));
        let addresses = self
            .resolver
            .resolve(&proxy.host, proxy.port)
            .await
            .map_err(|error| Error::explain(ErrorType::ConnectError, format!("proxy: {error}")))?;
        let Some(address) = addresses.first() else {
            return Error::e_explain(PROXY_FAILURE, "the proxy has no address");
        };
        let mut peer = BasicPeer::new(&address.to_string());
        peer.sni.clone_from(&proxy.host);
        let mut tunnel = TLS.new_stream(&peer).await?;
        if self.tunnel {
            self.connect_through(&mut tunnel, proxy).await?;
        }
        let (ours, mut theirs) =
            UnixStream::pair().or_err(ErrorType::ConnectError, "opening a socket pair")?;
        tokio::spawn(async move {
            let _ = tokio::io::copy_bidirectional(&mut theirs, &mut tunnel).await;
        });
        Ok(ours.into())
    }

    async fn socks5(&self, stream: &mut TcpStream, proxy: &Proxy) -> Result<()> {
        let io = |step: &'static str| move |e: std::io::Error| proxy_error(proxy, step, e);
        let refuse = |why: &str| {
            Error::e_explain(PROXY_FAILURE, format!("proxy {}:{}: {why}", proxy.host, proxy.port))
        };
        let greeting: &[u8] = if proxy.user.is_some() { &[5, 2, 0, 2] } else { &[5, 1, 0] };
        stream.write_all(greeting).await.map_err(io("SOCKS greeting"))?;
        let mut answer = [0_u8; 2];
        stream.read_exact(&mut answer).await.map_err(io("SOCKS greeting"))?;
        match (answer, &proxy.user) {
            ([5, 0], _) => {}
            ([5, 2], Some((user, password))) => {
                let mut message = vec![1];
                for text in [user.as_str(), password.expose_secret()] {
                    let Ok(length) = u8::try_from(text.len()) else {
                        return refuse("user name or password is longer than 255 bytes");
                    };
                    message.push(length);
                    message.extend_from_slice(text.as_bytes());
                }
                stream.write_all(&message).await.map_err(io("SOCKS log-in"))?;
                stream.read_exact(&mut answer).await.map_err(io("SOCKS log-in"))?;
                if answer[1] != 0 {
                    return refuse("user name or password refused");
                }
            }
            _ => return refuse("no way to log in that both sides know"),
        }
        let Ok(length) = u8::try_from(self.host.len()) else { return refuse("host name too long") };
        let mut message = vec![5, 1, 0, 3, length];
        message.extend_from_slice(self.host.as_bytes());
        message.extend_from_slice(&self.port.to_be_bytes());
        stream.write_all(&message).await.map_err(io("SOCKS connect"))?;
        let mut head = [0_u8; 4];
        stream.read_exact(&mut head).await.map_err(io("SOCKS connect"))?;
        if head[1] != 0 {
            return refuse(&format!(
                "connecting to {}:{} failed with code {}",
                self.host, self.port, head[1]
            ));
        }
        let address = match head[3] {
            1 => 4,
            4 => 16,
            _ => usize::from(stream.read_u8().await.map_err(io("SOCKS connect"))?),
        };
        let mut rest = vec![0_u8; address + 2];
        stream.read_exact(&mut rest).await.map_err(io("SOCKS connect"))?;
        Ok(())
    }
}

/// Pingora hands its errors around boxed.
#[expect(clippy::unnecessary_box_returns, reason = "Pingora's Result holds a boxed error")]
fn proxy_error(proxy: &Proxy, step: &'static str, cause: std::io::Error) -> BError {
    Error::because(PROXY_FAILURE, format!("proxy {}:{}: {step}", proxy.host, proxy.port), cause)
}

fn connect_error_type(error: &std::io::Error) -> ErrorType {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        std::io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        _ => ErrorType::ConnectError,
    }
}
