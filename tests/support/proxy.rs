//! The proxy as a process.

use crate::client::{Answer, Client};
use crate::scratch::{Scratch, free_port};
use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The client key of test configurations.
pub const KEY: &str = "test-key";

/// A running proxy; killed with the value.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    address: SocketAddr,
    scratch: Arc<Scratch>,
    command: Start,
    log: PathBuf,
}

impl Proxy {
    /// Starts `binary` with `config` below host, port and key, and waits until it answers.
    pub fn start(binary: &str, config: &str) -> Self {
        Self::start_with(binary, config, &[])
    }

    /// The same, with files in the folder of accounts.
    pub fn start_with(binary: &str, config: &str, accounts: &[(&str, &str)]) -> Self {
        Self::start_in(binary, config, accounts, &[])
    }

    /// The same, with files in the folder of accounts and variables of the environment. A configuration that
    /// says where metrics or keys are is taken as it is.
    pub fn start_in(
        binary: &str,
        config: &str,
        accounts: &[(&str, &str)],
        variables: &[(&str, &str)],
    ) -> Self {
        let port = free_port();
        let scratch = Scratch::new();
        let keys =
            if config.contains("api-keys:\n") { String::new() } else { format!("api-keys: [{KEY}]\n") };
        let metrics = if config.contains("metrics:") { "" } else { "metrics: {listen: \"\"}\n" };
        let text = format!(
            "host: 127.0.0.1\nport: {port}\n{keys}{metrics}auth-dir: {}\n{config}",
            scratch.path().join("auths").display()
        );
        let folder = scratch.path().join("auths");
        for (name, text) in accounts {
            std::fs::create_dir_all(&folder).expect("the folder can be made");
            std::fs::write(folder.join(name), text).expect("the account can be written");
        }
        let file = scratch.file("config.yaml", &text);
        Self::run_in(binary, &["--config", &file.display().to_string()], port, scratch, variables)
    }

    /// Starts `binary` with `arguments`; it has to listen on `port`.
    pub fn run(binary: &str, arguments: &[&str], port: u16, scratch: Scratch) -> Self {
        Self::run_in(binary, arguments, port, scratch, &[])
    }

    fn run_in(
        binary: &str,
        arguments: &[&str],
        port: u16,
        scratch: Scratch,
        variables: &[(&str, &str)],
    ) -> Self {
        let text = |text: &str| text.to_owned();
        let command = Start {
            binary: text(binary),
            arguments: arguments.iter().copied().map(text).collect(),
            variables: variables.iter().map(|(name, value)| (text(name), text(value))).collect(),
        };
        let scratch = Arc::new(scratch);
        let log = scratch.path().join("proxy.log");
        let child = command.spawn(scratch.path(), &log);
        let mut proxy =
            Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)), scratch, command, log };
        proxy.wait_until_it_listens();
        proxy
    }

    fn wait_until_it_listens(&mut self) {
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.try_wait().expect("the process can be asked");
            assert!(ended.is_none() && Instant::now() < end, "the proxy did not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the process, which has no time to do anything (`kill -9`), and starts it again in its folder.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Starts it again in its folder, after its end.
    pub fn start_again(&mut self) {
        self.child = self.command.spawn(self.scratch.path(), &self.log);
        self.wait_until_it_listens();
    }

    /// Kills the process, which has no time to do anything (`kill -9`).
    pub fn kill(&mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process can be waited for");
    }

    /// Starts a process that takes over from this one, and waits until it serves.
    pub fn upgrade(&self, binary: &str) -> Self {
        let log = self.scratch.path().join("upgraded.log");
        let command = Start { binary: binary.to_owned(), ..self.command.clone() };
        let mut taking_over = command.clone();
        taking_over.arguments.push("--upgrade".to_owned());
        let child = taking_over.spawn(self.scratch.path(), &log);
        let mut new = Self { child, address: self.address, scratch: Arc::clone(&self.scratch), command, log };
        self.signal("QUIT");
        let end = Instant::now() + Duration::from_secs(30);
        while !new.log().contains("took over the listeners") {
            let ended = new.child.try_wait().expect("the process can be asked");
            assert!(ended.is_none() && Instant::now() < end, "it did not take over:\n{}", new.log());
        }
        new
    }

    /// Sends a signal: `TERM`, `QUIT`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the signal can be sent");
    }

    /// Open files of the process.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
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
        std::fs::read_to_string(&self.log).unwrap_or_default()
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

    /// A POST with another key.
    pub fn post_as(&self, key: &str, path: &str, body: &str) -> Answer {
        let mut client = self.connect();
        client.post(path, &[("authorization", &format!("Bearer {key}"))], body);
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

/// How a process is started.
#[derive(Clone, Debug)]
struct Start {
    binary: String,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Start {
    fn spawn(&self, folder: &Path, log: &Path) -> Child {
        let log = OpenOptions::new().create(true).append(true).open(log).expect("the log can be made");
        Command::new(&self.binary)
            .args(&self.arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log can be shared"))
            .stderr(log)
            .spawn()
            .expect("the proxy starts")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
