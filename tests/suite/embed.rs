//! The proxy inside another program: this one.

use crate::shared::{CHAT, chat_keys, good, text_of};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use testkit::client::{Answer, Client};
use testkit::scratch::Scratch;

fn config(folder: &Scratch, more: &str) -> String {
    format!(
        "host: 127.0.0.1\nport: 0\napi-keys: [k]\nmetrics: {{listen: \"\"}}\nauth-dir: {}\n{more}",
        folder.path().display()
    )
}

fn ask(address: SocketAddr) -> Answer {
    let mut client = Client::connect(address);
    client.post(CHAT.path, &[("authorization", "Bearer k")], &CHAT.body("m", false));
    client.answer()
}

#[test]
fn row_111_servers_run_side_by_side_in_a_program_and_end_one_by_one() {
    let (folder, upstream) = (Scratch::new(), good());
    let serving =
        cliproxy::embed::run(&config(&folder, &chat_keys(&upstream.url(), &["one"]))).expect("it starts");
    let empty = cliproxy::embed::run(&config(&folder, "")).expect("it starts");
    assert_eq!(text_of(&CHAT, &ask(serving.addresses()[0]).text()), "Hello");
    assert_eq!(ask(empty.addresses()[0]).head.status, 404, "it has another configuration");
    let gone = serving.addresses()[0];
    let begun = Instant::now();
    serving.shutdown().expect("it ends in order");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(TcpStream::connect(gone).is_err(), "the listener is closed");
    assert_eq!(ask(empty.addresses()[0]).head.status, 404, "the other one serves on");
    // Dropped, it ends by itself.
    let gone = empty.addresses()[0];
    drop(empty);
    assert!(crate::reload::until(|| TcpStream::connect(gone).is_err()), "the listener is closed");
}

#[test]
fn row_111_what_cannot_run_says_why_and_leaves_nothing() {
    let folder = Scratch::new();
    let broken = cliproxy::embed::run("port: many\n").expect_err("it cannot start").to_string();
    assert!(broken.contains("configuration:1:7"), "{broken}");
    let first = cliproxy::embed::run(&config(&folder, "")).expect("it starts");
    let port = format!("port: {}", first.addresses()[0].port());
    let taken =
        cliproxy::embed::run(&config(&folder, "").replace("port: 0", &port)).expect_err("it is taken");
    assert!(taken.to_string().contains("in use"), "{taken}");
    first.shutdown().expect("it ends in order");
}
