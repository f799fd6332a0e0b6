//! The proxy as a process.

use crate::client::{Answer, Client};
use crate::scratch::{Scratch, free_port};
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The client key of test configurations.
pub const KEY: &str = "test-key";

/// A running proxy; killed with the value.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    address: SocketAddr,
    scratch: Scratch,
}

impl Proxy {
    /// Starts `binary` with `config` below host, port and key, and waits until it answers.
    pub fn start(binary: &str, config: &str) -> Self {
        Self::start_with(binary, config, &[])
    }

    /// The same, with files in the folder of accounts.
    pub fn start_with(binary: &str, config: &str, accounts: &[(&str, &str)]) -> Self {
        let port = free_port();
        let scratch = Scratch::new();
        let text = format!(
            "host: 127.0.0.1\nport: {port}\napi-keys: [{KEY}]\nmetrics: {{listen: \"\"}}\nauth-dir: {}\n{config}",
            scratch.path().join("auths").display()
        );
        let folder = scratch.path().join("auths");
        for (name, text) in accounts {
            std::fs::create_dir_all(&folder).expect("the folder can be made");
            std::fs::write(folder.join(name), text).expect("the account can be written");
        }
        let file = scratch.file("config.yaml", &text);
        Self::run(binary, &["--config", &file.display().to_string()], port, scratch)
    }

    /// Starts `binary` with `arguments`; it has to listen on `port`.
    pub fn run(binary: &str, arguments: &[&str], port: u16, scratch: Scratch) -> Self {
        Self::run_with(binary, arguments, &[], port, scratch)
    }

    /// The same as [`Self::start`], with variables of the environment.
    pub fn start_in(binary: &str, config: &str, environment: &[(&str, &str)]) -> Self {
        let port = free_port();
        let scratch = Scratch::new();
        let text = format!(
            "host: 127.0.0.1\nport: {port}\napi-keys: [{KEY}]\nmetrics: {{listen: \"\"}}\nauth-dir: {}\n{config}",
            scratch.path().join("auths").display()
        );
        let file = scratch.file("config.yaml", &text);
        Self::run_with(binary, &["--config", &file.display().to_string()], environment, port, scratch)
    }

    fn run_with(
        binary: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        port: u16,
        scratch: Scratch,
    ) -> Self {
        let log = File::create(scratch.path().join("proxy.log")).expect("the log can be made");
        let child = Command::new(binary)
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(scratch.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log can be shared"))
            .stderr(log)
            .spawn()
            .expect("the proxy starts");
        let mut proxy = Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)), scratch };
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(proxy.address).is_err() {
            let ended = proxy.child.try_wait().expect("the process can be asked");
            assert!(ended.is_none() && Instant::now() < end, "the proxy did not start:\n{}", proxy.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        proxy
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        // Lines are written behind the requests.
        std::thread::sleep(Duration::from_millis(150));
        std::fs::read_to_string(self.scratch.path().join("proxy.log")).unwrap_or_default()
    }

    /// A new connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// A POST with the key, on a connection of its own.
    pub fn post(&self, path: &str, body: &str) -> Answer {
        let mut client = self.connect();
        client.post(path, &[("authorization", &format!("Bearer {KEY}"))], body);
        client.answer()
    }

    /// A GET with the key, on a connection of its own.
    pub fn get(&self, path: &str) -> Answer {
        let mut client = self.connect();
        client.get(path, &[("authorization", &format!("Bearer {KEY}"))]);
        client.answer()
    }

    /// Whether it still runs and answers.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none()) && self.get("/health").head.status == 200
    }

    /// Resident memory in KiB.
    pub fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|text| text.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
    }

    /// Waits for its end; the exit code.
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let end = Instant::now() + limit;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code();
            }
            if Instant::now() > end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
