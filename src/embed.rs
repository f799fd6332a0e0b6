//! The proxy inside another program.
//!
//! Enters: the text of a configuration. Leaves: [`Running`], which serves until [`Running::shutdown`] or until it is
//! dropped. May go wrong: a broken configuration, an address that is taken; nothing runs then.
//!
//! ```no_run
//! let proxy = cliproxy::embed::run("host: 127.0.0.1\nport: 0\napi-keys: [choose-a-key]\n")?;
//! println!("serves on {}", proxy.addresses()[0]);
//! proxy.shutdown()?;
//! # Ok::<(), cliproxy::embed::EmbedError>(())
//! ```
//!
//! Nothing of the program is touched: no signals, no arguments, no panic hook, no limit of files; several servers
//! may run side by side. The log goes to the program's `tracing` subscriber. Without a configuration file nothing
//! is kept over a restart, and changes by management count until the end. Of the environment, the variables count
//! that `conf/config.example.yaml` names, and `MANAGEMENT_PASSWORD`. The process gets rustls's provider `ring` as its
//! default where it has none.

use crate::server::{self, Order, Plan, Process, Setting, StartError};
use crate::state::{State, load};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::mpsc::Sender;

/// What configurations are called in messages.
const NAME: &str = "configuration";

/// Why nothing runs, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// The configuration is broken: one sentence for each mistake, with its line.
    #[error("{}", .0.join("; "))]
    Config(Vec<String>),
    /// It cannot start, or could not go on.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The thread of the server panicked.
    #[error("the server panicked")]
    Panicked,
}

/// A server that runs. Dropped, it leaves behind the program's back: running answers have their time, and nobody
/// waits for them.
#[derive(Debug)]
pub struct Running {
    orders: Sender<Order>,
    thread: JoinHandle<Result<(), StartError>>,
    addresses: Vec<SocketAddr>,
    warnings: Vec<String>,
}

/// Starts a server; connections are taken when this returns.
pub fn run(config: &str) -> Result<Running, EmbedError> {
    let read = load::load(config.as_bytes(), NAME).map_err(EmbedError::Config)?;
    let (process, orders) = Process::within()?;
    let plan = Plan::new(&read.config, None, None)?;
    let addresses = plan.listen.iter().map(|listener| listener.address).collect();
    let warnings = read.warnings.into_iter().chain(plan.warnings.iter().cloned()).collect();
    let (state, _) = State::new(read.config, read.accounts).map_err(StartError::Metrics)?;
    let state = Arc::new(state);
    state.config_file.is(None, config);
    let setting = Setting { version: env!("CARGO_PKG_VERSION"), ..Setting::default() };
    let thread = std::thread::Builder::new()
        .name("cliproxy".to_owned())
        .spawn(move || server::run(process, &state, plan, None, setting))
        .map_err(StartError::System)?;
    Ok(Running { orders, thread, addresses, warnings })
}

impl Running {
    /// Where it listens: `host` and `port` first, then `extra-listen`.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What should be looked at in the configuration, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Ends it: no new connections, `shutdown.drain-seconds` for running answers. Waits for the end, so that it
    /// is nothing for a thread of an async runtime.
    pub fn shutdown(self) -> Result<(), EmbedError> {
        // A server that has ended already takes no order; why it did comes below.
        let _ = self.orders.blocking_send(Order::LeaveNow);
        self.thread.join().map_err(|_| EmbedError::Panicked)?.map_err(EmbedError::Start)
    }
}
