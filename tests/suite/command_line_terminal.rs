//! The commands at a terminal: what is put back, what is asked, what is coloured.

use crate::command_line_remote::command;
use crate::management::ON;
use crate::reload::until;
use crate::shared::{chat_keys, proxy, proxy_with_accounts};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A terminal of a test's own.
struct Terminal {
    keys: File,
    /// The end that programs have. It stays open, so that what they said last can be read.
    screen: File,
    coming: Receiver<String>,
    seen: String,
}

impl Terminal {
    fn new() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("it is ours");
        unlockpt(&master).expect("it opens");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let screen = File::options().read(true).write(true).open(path).expect("its other end");
        let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&screen, size).expect("its size");
        let keys = File::from(master);
        let mut reader = keys.try_clone().expect("a copy");
        let (sender, coming) = channel();
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut part) {
                if sender.send(String::from_utf8_lossy(&part[..count]).into_owned()).is_err() {
                    return;
                }
            }
        });
        Self { keys, screen, coming, seen: String::new() }
    }

    fn start(&self, command: &mut Command) -> Child {
        let end = || Stdio::from(self.screen.try_clone().expect("a copy"));
        let command = command.stdin(end()).stdout(end()).stderr(end());
        command.env("TERM", "xterm-256color").spawn().expect("it starts")
    }

    /// Waits until `what` was shown; what was shown up to then.
    fn wait_for(&mut self, what: &str) -> String {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.seen.contains(what) {
            let left = end.saturating_duration_since(Instant::now());
            let part = self.coming.recv_timeout(left);
            assert!(part.is_ok(), "no {what:?} in {:?}", self.seen);
            self.seen.extend(part);
        }
        std::mem::take(&mut self.seen)
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the keys are pressed");
    }

    fn modes(&self) -> LocalModes {
        tcgetattr(&self.screen).expect("its modes").local_modes
    }
}

#[test]
fn top_leaves_the_terminal_as_it_was_by_key_and_by_signal() {
    let proxy = proxy(&format!("{ON}{}", chat_keys("http://127.0.0.1:1", &["one"])));
    for end in ["q", "\x03", "TERM"] {
        let mut terminal = Terminal::new();
        let before = terminal.modes();
        assert!(before.contains(LocalModes::ICANON | LocalModes::ECHO));
        let mut child = terminal.start(&mut command(&proxy, &["top", "--interval", "0.2"]));
        terminal.wait_for("\x1b[?1049h");
        terminal.wait_for("q ends");
        // A second frame: it goes on by itself.
        terminal.wait_for("q ends");
        assert!(!terminal.modes().contains(LocalModes::ICANON));
        if end == "TERM" {
            let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            assert!(sent.is_ok_and(|status| status.success()));
        } else {
            terminal.press(end);
        }
        terminal.wait_for("\x1b[?1049l");
        assert!(child.wait().expect("it ends").success(), "{end:?}");
        assert_eq!(terminal.modes(), before, "{end:?}");
    }
}

#[test]
fn top_shows_that_the_process_is_gone_and_goes_on_when_it_is_back() {
    let mut proxy = proxy(&format!("{ON}{}", chat_keys("http://127.0.0.1:1", &["one"])));
    let mut terminal = Terminal::new();
    let mut child = terminal.start(&mut command(&proxy, &["top", "--interval", "0.2"]));
    terminal.wait_for("q ends");
    proxy.kill();
    let shown = terminal.wait_for("does not answer");
    assert!(shown.contains("\x1b["), "{shown:?}");
    terminal.wait_for("CREDENTIAL");
    proxy.start_again();
    assert!(until(|| !terminal.wait_for("q ends").contains("does not answer")));
    terminal.press("q");
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn colours_are_for_terminals_whose_user_wants_them() {
    let proxy = proxy(&format!("{ON}{}", chat_keys("http://127.0.0.1:1", &["one"])));
    let mut terminal = Terminal::new();
    assert!(terminal.start(&mut command(&proxy, &["status"])).wait().expect("it ends").success());
    assert!(terminal.wait_for("all is well").contains("\x1b[1mPROVIDER\x1b[0m"));
    let mut plain = command(&proxy, &["status"]);
    assert!(terminal.start(plain.env("NO_COLOR", "1")).wait().expect("it ends").success());
    let shown = terminal.wait_for("all is well");
    let plain = shown.rsplit("cliproxy ").next().expect("the last command");
    assert!(plain.contains("PROVIDER") && !plain.contains('\x1b'), "{plain:?}");
}

#[test]
fn row_169_remove_asks_whoever_sits_there() {
    let account = r#"{"type":"claude","access_token":"canary","email":"a@x"}"#;
    let proxy = proxy_with_accounts(ON, &[("claude-a.json", account)]);
    let file = proxy.folder().join("auths/claude-a.json");
    for (answer, code, there) in [("n\r", 1, true), ("\r", 1, true), ("y\r", 0, false)] {
        let mut terminal = Terminal::new();
        let mut child = terminal.start(&mut command(&proxy, &["accounts", "remove", "a@x"]));
        let asked = terminal.wait_for("[y/N] ");
        assert!(asked.contains("claude-a.json (claude)") && asked.contains("this file"), "{asked}");
        terminal.press(answer);
        assert_eq!(child.wait().expect("it ends").code(), Some(code), "{answer:?}");
        assert_eq!(file.exists(), there, "{answer:?}");
    }
}
