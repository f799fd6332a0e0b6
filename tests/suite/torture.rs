//! A process that writes accounts and the store all the time, and is killed again and again.

use cliproxy::state::store::{Row, Store, Table};
use cliproxy::state::{accounts, atomic};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use testkit::scratch::Scratch;

/// Where the child writes, and the number it begins with.
const FOLDER: &str = "CLIPROXY_TORTURE_FOLDER";
const FIRST: &str = "CLIPROXY_TORTURE_FIRST";
const KILLS: u64 = 200;

/// An account whose parts all say the same number.
fn account(n: u64) -> String {
    let pad = format!("{n},").repeat(4000);
    format!(r#"{{"type":"claude","pad":"{pad}","access_token":"token-{n}","refresh_token":"refresh-{n}"}}"#)
}

fn batch(n: u64) -> Vec<Row> {
    let row = |key: u64| Row {
        table: if key.is_multiple_of(2) { Table::Health } else { Table::Sessions },
        key: key.to_be_bytes().to_vec(),
        value: Some(format!("{n}").into_bytes()),
    };
    (0..50).map(row).collect()
}

/// Writes until it is killed, and says what is done.
#[test]
#[ignore = "the process that p44 kills"]
fn child() {
    let folder = std::env::var(FOLDER).expect("the folder");
    let first: u64 = std::env::var(FIRST).expect("the number").parse().expect("a number");
    let store = Store::new(Path::new(&folder));
    store.open().expect("the store opens");
    for n in first.. {
        atomic::write(&Path::new(&folder).join("auths/claude.json"), account(n).as_bytes())
            .expect("it writes");
        println!("account {n}");
        store.write(batch(n).iter()).expect("it writes");
        println!("store {n}");
    }
}

/// The last number that was said to be written.
fn said(text: &str, what: &str) -> Option<u64> {
    text.lines().rev().find_map(|line| line.strip_prefix(what)?.strip_prefix(' ')?.parse().ok())
}

fn number_of_the_account(folder: &Path) -> u64 {
    let found = accounts::scan(&folder.join("auths"));
    assert_eq!(found.bad, [], "nothing else is taken for an account");
    assert_eq!(found.good.len(), 1);
    let text = std::fs::read_to_string(folder.join("auths/claude.json")).expect("the account");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let number = value["refresh_token"].as_str().and_then(|token| token.strip_prefix("refresh-"));
    let number = number.and_then(|number| number.parse().ok()).expect("a number");
    assert_eq!(text, account(number), "it is torn");
    number
}

fn number_of_the_store(folder: &Path) -> u64 {
    let store = Store::new(folder);
    store.open().expect("the store opens");
    let mut numbers = Vec::new();
    for table in [Table::Health, Table::Sessions] {
        store.read(table, &mut |_, value| numbers.push(value.to_vec())).expect("it reads");
    }
    assert_eq!(numbers.len(), 50);
    numbers.dedup();
    assert_eq!(numbers.len(), 1, "it is torn");
    String::from_utf8_lossy(&numbers[0]).parse().expect("a number")
}

#[test]
fn p21_p44_killed_200_times_while_it_writes_nothing_is_torn_and_nothing_that_was_done_is_lost() {
    let scratch = Scratch::new();
    let folder = scratch.path();
    std::fs::create_dir(folder.join("auths")).expect("the folder");
    let mut first = 0;
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "torture::child", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the child starts");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut text = String::new();
        while said(&text, "store").is_none() {
            assert!(output.read_line(&mut text).expect("it speaks") > 0, "kill {kill}: {text}");
        }
        // Some microseconds up to a few rounds of both writes.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_micros(random % 12_000));
        child.kill().expect("it is killed");
        child.wait().expect("it is gone");
        output.read_to_string(&mut text).expect("its last words");
        for (what, found) in
            [("account", number_of_the_account(folder)), ("store", number_of_the_store(folder))]
        {
            let done = said(&text, what).expect("it wrote once");
            assert!((done..=done + 1).contains(&found), "kill {kill}: {what} {found}, {done} was done");
            first = first.max(found + 1);
        }
    }
}
