//! Whose request it is when a load balancer stands between: the address in the log.

use crate::shared::{CHAT, chat_keys, proxy, whole};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use testkit::client::Client;
use testkit::proxy::{KEY, Proxy};
use testkit::scratch::Scratch;
use testkit::upstream::Upstream;

fn request(more: &str) -> Vec<u8> {
    let body = CHAT.body("m", false);
    format!(
        "POST {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n{more}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        CHAT.path,
        body.len()
    )
    .into_bytes()
}

/// The header of version 2 for a client at `203.0.113.7`.
fn version2() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([203, 0, 113, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 80]);
    header
}

/// Address of the last request in the log.
fn logged(proxy: &Proxy) -> String {
    let log = proxy.log();
    let last = log.lines().rfind(|line| line.contains("\"client_ip\"")).unwrap_or_default();
    last.split("\"client_ip\":\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap_or_default()
        .to_owned()
}

fn status(proxy: &Proxy, bytes: &[u8]) -> Option<u16> {
    let mut client: Client = proxy.connect();
    client.try_send(bytes);
    client.try_answer().map(|answer| answer.head.status)
}

#[test]
fn the_address_of_a_client_is_believed_to_trusted_proxies_alone() {
    let upstream = Upstream::start(|seen| whole(&seen.path));
    let keys = chat_keys(&upstream.url(), &["k"]);
    let forwarded = request("x-forwarded-for: 198.51.100.9, 203.0.113.7\r\n");
    let outside = proxy(&format!("trusted-proxies: [10.0.0.0/8]\n{keys}"));
    assert_eq!(status(&outside, &forwarded), Some(200));
    assert_eq!(logged(&outside), "127.0.0.1");
    let inside = proxy(&format!("trusted-proxies: [127.0.0.0/8]\n{keys}"));
    assert_eq!(status(&inside, &forwarded), Some(200));
    assert_eq!(logged(&inside), "203.0.113.7");
    assert_eq!(status(&inside, &request("forwarded: for=\"[2001:db8::1]:80\"\r\n")), Some(200));
    assert_eq!(logged(&inside), "2001:db8::1");
}

#[test]
fn a_proxy_header_names_the_client_and_has_to_come_from_a_trusted_proxy() {
    let upstream = Upstream::start(|seen| whole(&seen.path));
    let keys = chat_keys(&upstream.url(), &["k"]);
    let inside = proxy(&format!("trusted-proxies: [127.0.0.1]\nproxy-protocol: trusted\n{keys}"));
    let with = |header: &[u8]| [header, &request("")].concat();
    for header in [b"PROXY TCP4 203.0.113.7 10.0.0.1 8080 80\r\n".to_vec(), version2()] {
        assert_eq!(status(&inside, &with(&header)), Some(200));
        assert_eq!(logged(&inside), "203.0.113.7");
    }
    assert_eq!(status(&inside, &request("")), None, "the load balancer always sends one");
    let outside = proxy(&format!("trusted-proxies: [10.0.0.1]\nproxy-protocol: trusted\n{keys}"));
    assert_eq!(status(&outside, &request("")), Some(200), "others are ordinary clients");
    assert_eq!(status(&outside, &with(b"PROXY TCP4 203.0.113.7 10.0.0.1 8080 80\r\n")), Some(400));
}

/// Makes a certificate; `false` where there is no tool for it.
fn certificate(folder: &Scratch) -> bool {
    Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[test]
fn a_proxy_header_comes_before_tls() {
    let folder = Scratch::new();
    if !certificate(&folder) {
        println!("not run: there is no openssl");
        return;
    }
    let upstream = Upstream::start(|seen| whole(&seen.path));
    let at = folder.path().display();
    let inside = proxy(&format!(
        "tls: {{enable: true, cert: {at}/cert.pem, key: {at}/key.pem}}\ntrusted-proxies: [127.0.0.1]\nproxy-protocol: trusted\n{}",
        chat_keys(&upstream.url(), &["k"])
    ));
    // A load balancer: what comes in goes on behind a PROXY header.
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let (port, target) = (listener.local_addr().expect("an address").port(), inside.address());
    std::thread::spawn(move || {
        let (client, _) = listener.accept().expect("a client");
        let mut server = std::net::TcpStream::connect(target).expect("the proxy");
        server.write_all(&version2()).expect("it is taken");
        let (mut up_from, mut up_to) =
            (client.try_clone().expect("a copy"), server.try_clone().expect("a copy"));
        std::thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
        let (mut from, mut to) = (server, client);
        let _ = std::io::copy(&mut from, &mut to);
    });
    let mut tls = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    let mut input = tls.stdin.take().expect("its input");
    input.write_all(&request("")).expect("it is taken");
    let mut text = Vec::new();
    let mut output = tls.stdout.take().expect("its output");
    let mut piece = [0; 4096];
    while !String::from_utf8_lossy(&text).contains("Hello") {
        let n = output.read(&mut piece).expect("an answer");
        assert!(n > 0, "{} {}", String::from_utf8_lossy(&text), inside.log());
        text.extend_from_slice(&piece[..n]);
    }
    drop(input);
    let _ = tls.kill();
    let _ = tls.wait();
    assert!(String::from_utf8_lossy(&text).starts_with("HTTP/1.1 200"), "{}", String::from_utf8_lossy(&text));
    assert_eq!(logged(&inside), "203.0.113.7");
}
