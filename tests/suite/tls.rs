//! TLS to upstreams: who is trusted, and which protocol is spoken inside.

use crate::shared::{CHAT, chat_keys, text_of, whole};
use base64::Engine;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use testkit::proxy::Proxy;
use testkit::scratch::Scratch;
use testkit::upstream::Step;

/// Authorities have names of their own: certificates name who issued them.
static NEXT: AtomicUsize = AtomicUsize::new(1);

/// Somebody who issues certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
        let name = format!("authority {}", NEXT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let own = params.self_signed(&key).expect("a certificate");
        let text = base64::engine::general_purpose::STANDARD.encode(own.der());
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, host: &str, until: i32) -> ServerConfig {
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("parameters");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let made = params.signed_by(&key, &self.issuer).expect("a certificate");
        server(made.der().clone(), &key)
    }
}

fn server(certificate: CertificateDer<'static>, key: &KeyPair) -> ServerConfig {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).expect("a server")
}

type Tls = StreamOwned<ServerConnection, TcpStream>;

/// Serves each connection by `talk`; the base URL and the number of requests that came through.
fn serve(
    config: ServerConfig,
    talk: impl Fn(&mut Tls, &AtomicUsize) -> std::io::Result<()> + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
    let (requests, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (config, talk) = (Arc::new(config), Arc::new(talk));
    let (seen, opened) = (Arc::clone(&requests), Arc::clone(&connections));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, talk, seen) = (Arc::clone(&config), Arc::clone(&talk), Arc::clone(&seen));
            opened.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let server = ServerConnection::new(config).expect("a server");
                // It ends with an error when the client refuses the certificate or leaves.
                let _ = talk(&mut StreamOwned::new(server, stream), &seen);
            });
        }
    });
    (url, requests, connections)
}

/// The body of a good answer.
fn body() -> String {
    let sent = match whole("/chat/v1").pop() {
        Some(Step::Send(bytes)) => Some(bytes),
        _ => None,
    };
    let text = String::from_utf8(sent.expect("an answer")).expect("text");
    text.split_once("\r\n\r\n").expect("a head").1.to_owned()
}

fn http1(stream: &mut Tls, requests: &AtomicUsize) -> std::io::Result<()> {
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    while !seen.ends_with(b"}") {
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return Ok(());
        }
        seen.extend_from_slice(&chunk[..length]);
    }
    requests.fetch_add(1, Ordering::SeqCst);
    let body = body();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()
}

fn trusting(authority: &Authority, config: &str) -> (Proxy, Scratch) {
    let scratch = Scratch::new();
    let file = scratch.file("ca.pem", &authority.pem).display().to_string();
    let proxy = Proxy::start_in(env!("CARGO_BIN_EXE_cliproxy"), config, &[], &[("SSL_CERT_FILE", &file)]);
    (proxy, scratch)
}

#[test]
fn p16_certificates_that_do_not_hold_are_refused_with_the_reason() {
    let (known, unknown) = (Authority::new(), Authority::new());
    let own_key = KeyPair::generate().expect("a key");
    let own = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let own = own.self_signed(&own_key).expect("a certificate");
    for (name, config, reason) in [
        ("good", known.issue("localhost", 2090), ""),
        ("expired", known.issue("localhost", 2021), "xpired"),
        ("for another host", known.issue("other.test", 2090), "not valid for name"),
        ("self-signed", server(own.der().clone(), &own_key), "UnknownIssuer"),
        ("of an unknown authority", unknown.issue("localhost", 2090), "UnknownIssuer"),
    ] {
        let (url, requests, _) = serve(config, http1);
        let (proxy, _folder) =
            trusting(&known, &format!("request-retry: 0\n{}", chat_keys(&url, &["the-key"])));
        let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
        if reason.is_empty() {
            assert_eq!(answer.head.status, 200, "{name}: {}\n{}", answer.text(), proxy.log());
            assert_eq!(text_of(&CHAT, &answer.text()), "Hello");
            continue;
        }
        assert_eq!(answer.head.status, 502, "{name}: {}", answer.text());
        assert!(answer.text().contains(reason), "{name}: {}", answer.text());
        assert_eq!(requests.load(Ordering::SeqCst), 0, "{name}: a request got through");
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// As much of HTTP/2 (RFC 9113) as one answer after another needs.
fn http2(stream: &mut Tls, requests: &AtomicUsize) -> std::io::Result<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface)?;
    assert_eq!(preface, PREFACE, "ALPN said h2");
    stream.write_all(&frame(4, 0, 0, &[]))?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload)?;
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match kind {
            4 if flags & 1 == 0 => stream.write_all(&frame(4, 1, 0, &[]))?,
            6 if flags & 1 == 0 => stream.write_all(&frame(6, 1, 0, &payload))?,
            // DATA or HEADERS that end a request.
            0 | 1 if flags & 1 == 1 => {
                requests.fetch_add(1, Ordering::SeqCst);
                // `:status: 200` is number 8 of the static table, `content-type` is 31.
                let mut fields = vec![0x88, 0x0f, 16, 16];
                fields.extend(b"application/json");
                stream.write_all(&frame(1, 4, id, &fields))?;
                stream.write_all(&frame(0, 1, id, body().as_bytes()))?;
            }
            _ => {}
        }
        stream.flush()?;
    }
}

#[test]
fn http2_is_spoken_where_the_upstream_does_and_one_connection_serves_all() {
    let authority = Authority::new();
    let mut config = authority.issue("localhost", 2090);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (url, requests, connections) = serve(config, http2);
    let (proxy, _folder) = trusting(&authority, &chat_keys(&url, &["k"]));
    for _ in 0..5 {
        let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
        assert_eq!(answer.head.status, 200, "{}\n{}", answer.text(), proxy.log());
        assert_eq!(text_of(&CHAT, &answer.text()), "Hello");
    }
    assert_eq!((requests.load(Ordering::SeqCst), connections.load(Ordering::SeqCst)), (5, 1));
}

/// A proxy that lets `u` with the password `p` through, by CONNECT or SOCKS version 5; how often it did.
fn tunnels() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let passed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&passed);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let counter = Arc::clone(&counter);
            std::thread::spawn(move || tunnel(stream, &counter));
        }
    });
    (port, passed)
}

fn tunnel(mut client: TcpStream, passed: &AtomicUsize) -> std::io::Result<()> {
    let mut first = [0];
    client.peek(&mut first)?;
    let port = if first == [5] { socks5(&mut client)? } else { connect(&mut client)? };
    let mut origin = TcpStream::connect(("127.0.0.1", port))?;
    passed.fetch_add(1, Ordering::SeqCst);
    let (mut back, mut answers) = (client.try_clone()?, origin.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
    std::io::copy(&mut client, &mut origin).map(drop)
}

fn connect(client: &mut TcpStream) -> std::io::Result<u16> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    assert!(head.contains("Proxy-Authorization: Basic dTpw"), "{head}");
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let target = head.split(' ').nth(1).and_then(|target| target.rsplit(':').next()).expect("a target");
    Ok(target.parse().expect("a port"))
}

fn socks5(client: &mut TcpStream) -> std::io::Result<u16> {
    let mut greeting = [0; 4];
    client.read_exact(&mut greeting)?;
    assert_eq!(greeting, [5, 2, 0, 2], "it can log in");
    client.write_all(&[5, 2])?;
    let mut login = [0; 5];
    client.read_exact(&mut login)?;
    assert_eq!(&login, b"\x01\x01u\x01p");
    client.write_all(&[1, 0])?;
    let mut head = [0; 5];
    client.read_exact(&mut head)?;
    assert_eq!(head[..4], [5, 1, 0, 3], "names are resolved by the proxy");
    let mut rest = vec![0; usize::from(head[4]) + 2];
    client.read_exact(&mut rest)?;
    assert!(rest.starts_with(b"localhost"));
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    Ok(u16::from_be_bytes([rest[rest.len() - 2], rest[rest.len() - 1]]))
}

#[test]
fn rows_44_and_45_tls_goes_through_proxies_of_all_kinds_and_no_password_is_told() {
    let authority = Authority::new();
    let (url, requests, _) = serve(authority.issue("localhost", 2090), http1);
    let (port, passed) = tunnels();
    for (n, scheme) in ["http", "socks5", "socks5h"].into_iter().enumerate() {
        let config = format!("proxy-url: \"{scheme}://u:p@127.0.0.1:{port}\"\n{}", chat_keys(&url, &["k"]));
        let (proxy, _folder) = trusting(&authority, &config);
        let answer = proxy.post(CHAT.path, &CHAT.body("m", false));
        assert_eq!(answer.head.status, 200, "{scheme}: {}\n{}", answer.text(), proxy.log());
        assert_eq!((passed.load(Ordering::SeqCst), requests.load(Ordering::SeqCst)), (n + 1, n + 1));
        assert!(!proxy.log().contains("u:p"), "{}", proxy.log());
    }
}
