//! The process: listeners, services, signals.
//!
//! Enters: a configuration and what the command line says. Leaves: a process that serves until it is told
//! to leave (`leave.rs`) or to make place for a new one (`upgrade.rs`). May go wrong: an address that is taken,
//! a certificate that cannot be read; both are told before anything is served.
//!
//! Pingora brings the services with their listeners; its `Server` is not used. That one sleeps through its
//! whole grace period, and after SIGQUIT it leaves also where no new process took the listeners.

mod files;
mod leave;
mod metrics;
mod plan;
pub mod upgrade;

use crate::demo::Demo;
use crate::manage::Sidecar;
use crate::observe::panics;
use crate::proxy::connection::{BeforeTls, Door};
use crate::state::State;
use crate::state::discovery::Discovery;
use crate::state::learnt::Writer;
use crate::state::renew::Renewer;
use config::{Config, ProxyProtocol};
pub use leave::Order;
use leave::{Orders, Services, Signals};
use metrics::MetricsPage;
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::listeners::tls::TlsSettings;
use pingora::listeners::{L4BufferSettings, ListenerConfig, TcpSocketOptions};
use pingora::protocols::TcpKeepalive;
use pingora::server::Fds;
use pingora::services::Service as _;
use pingora::services::background::BackgroundService;
use pingora::services::listening::Service;
pub use plan::{Listener, Plan};
use std::os::fd::IntoRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};

/// Read buffer of a client connection: requests are small or are copied out at once, streams only write.
const READ_BUFFER: usize = 4096;
/// How long a process that took over leaves the renewal of tokens to the one before.
const HANDOVER: Duration = Duration::from_secs(5);
/// Orders that wait to be carried out.
const ORDERS: usize = 16;
/// Threads of what is not the data path: metrics, renewals, signals.
const SIDE_THREADS: usize = 2;

/// Threads of the management sidecar: nothing it does may hold anything else up.
const MANAGEMENT_THREADS: usize = 1;
/// Their niceness, from 0 to 19.
const STANDS_BACK: i32 = 5;

/// Why the process cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {cause}{hint}")]
    Listen {
        /// Host and port.
        address: String,
        /// What the system says.
        cause: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// TLS cannot be set up.
    #[error("cannot serve TLS with {cert} and {key}: {cause}")]
    Tls {
        /// Certificate file.
        cert: String,
        /// Key file.
        key: String,
        /// Why.
        cause: String,
    },
    /// Metrics cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Threads, signals or sockets are not to be had.
    #[error("the system refuses: {0}")]
    System(#[from] std::io::Error),
    /// The listeners ended without having been told to.
    #[error("the listeners ended: {0}")]
    Ended(String),
}

/// What the command line knows and the process needs.
#[derive(Debug, Default)]
pub struct Setting {
    /// What `/health` says.
    pub version: &'static str,
    /// Asks for a look at the configuration file, where there is one.
    pub reload: Option<Sender<()>>,
    /// The configuration file.
    pub file: Option<PathBuf>,
}

/// What a server has before it listens to anything.
#[derive(Debug)]
pub struct Process {
    side: Runtime,
    orders: Orders,
}

impl Process {
    /// A process of its own. Begins to hear signals, before anything is listened on: who can connect may also send
    /// signals, and those that mean a reload or an upgrade end a process that does not listen to them. What the
    /// process has once is ours: its limit of files, what is done about panics.
    pub fn begin() -> Result<Self, StartError> {
        let (begun, orders) = Self::within()?;
        let signals = begun.side.block_on(async { Signals::new() })?;
        begun.side.spawn(signals.pass(orders));
        panics::log();
        if let Some(warning) = files::raise_limit() {
            tracing::warn!("{warning}");
        }
        Ok(begun)
    }

    /// A server within another program, and where it gets its orders from: without any it leaves.
    pub fn within() -> Result<(Self, mpsc::Sender<Order>), StartError> {
        let (sender, orders) = mpsc::channel(ORDERS);
        Ok((Self { side: runtime("side", SIDE_THREADS)?, orders: Orders(orders) }, sender))
    }
}

/// Serves until the process is told to leave.
pub fn run(
    process: Process,
    state: &Arc<State>,
    mut plan: Plan,
    demo: Option<Demo>,
    setting: Setting,
) -> Result<(), StartError> {
    let Process { side, orders } = process;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let taken = plan.taken.take();
    let mut copies = Vec::new();
    for listener in plan.listen.iter().chain(&plan.metrics) {
        copies.push(listener.again()?);
    }
    let snapshot = state.snapshot.load_full();
    let edge = edge_service(state, &plan.listen, &snapshot.config, setting.version)?;
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let data = runtime("cliproxy", threads)?;
    let management = management()?;
    state.sidecar.runs_on(management.handle().clone());
    let sidecar = Sidecar::new(Arc::clone(state), setting.version);
    let (services, ends) = Services::new(Arc::clone(state), copies, setting);
    let edge = data.spawn(listen(edge, plan.listen, ends.edge));
    if let Some(listener) = plan.metrics {
        let mut page = Service::new("metrics".to_owned(), MetricsPage(Arc::clone(state)));
        page.add_listener(ListenerConfig::tcp(listener.address.to_string()));
        side.spawn(listen(page, vec![listener], ends.metrics));
    }
    // A process that hands over may be renewing a token, which is good for one renewal.
    let settled = if taken.is_some() { HANDOVER } else { Duration::ZERO };
    if let Some(taken) = taken {
        // Connections wait at the listeners until the services have come so far.
        taken.ready();
        tracing::info!("took over the listeners of the process before");
    }
    let (now, end) = (Duration::ZERO, || ends.rest.clone());
    let mut others = vec![
        side.spawn(background(Renewer(Arc::clone(state)), end(), settled)),
        side.spawn(background(Discovery(Arc::clone(state)), end(), now)),
        side.spawn(background(Writer(Arc::clone(state)), end(), now)),
        management.spawn(background(sidecar, end(), now)),
    ];
    #[cfg(feature = "otlp")]
    others.push(side.spawn(background(crate::state::export::Exporter(Arc::clone(state)), end(), now)));
    // It is an upstream, and has its share of the load.
    others.extend(demo.map(|demo| data.spawn(background(demo, end(), now))));
    let left = side.block_on(services.run(orders, edge, others));
    // What is left has had its time.
    data.shutdown_background();
    management.shutdown_background();
    side.shutdown_background();
    left
}

/// Runs a service until the end, after `wait`.
async fn background(
    service: impl BackgroundService + Send + Sync,
    mut end: watch::Receiver<bool>,
    wait: Duration,
) {
    if tokio::time::timeout(wait, end.wait_for(|end| *end)).await.is_err() {
        service.start(end).await;
    }
}

/// Threads of their own for the sidecar, which stand back where the machine is busy.
fn management() -> std::io::Result<Runtime> {
    let stand_back = || {
        // It means the thread on Linux only, and the process elsewhere. Where it is refused, time is shared as
        // ever.
        if cfg!(target_os = "linux") {
            let _ = rustix::process::setpriority_process(None, STANDS_BACK);
        }
    };
    Builder::new_multi_thread()
        .worker_threads(MANAGEMENT_THREADS)
        .thread_name("management")
        .on_thread_start(stand_back)
        .enable_all()
        .build()
}

fn runtime(name: &str, threads: usize) -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build()
}

/// Runs a service on listeners that are bound.
async fn listen<A: ServerApp + Send + Sync + 'static>(
    mut service: Service<A>,
    listeners: Vec<Listener>,
    end: watch::Receiver<bool>,
) {
    let mut sockets = Fds::new();
    for listener in listeners {
        // The service closes it.
        sockets.add(listener.address.to_string(), listener.socket.into_raw_fd());
    }
    service.start_service(Some(Arc::new(Mutex::new(sockets))), end, 1).await;
}

fn edge_service(
    state: &Arc<State>,
    listeners: &[Listener],
    config: &Config,
    version: &'static str,
) -> Result<Service<Door>, StartError> {
    let mut service = Service::new("cliproxy".to_owned(), Door::new(Arc::clone(state), version));
    if config.server.proxy_protocol != ProxyProtocol::Off {
        service.endpoints().set_pre_tls_callback(Arc::new(BeforeTls(Arc::clone(state))));
    }
    for listener in listeners {
        let mut socket = TcpSocketOptions::default();
        socket.tcp_keepalive = Some(TcpKeepalive {
            idle: Duration::from_mins(1),
            interval: Duration::from_secs(15),
            count: 4,
            user_timeout: Duration::ZERO,
        });
        let listener = ListenerConfig::tcp(listener.address.to_string())
            .tcp_socket_options(socket)
            .l4_buffer(L4BufferSettings::default().read(READ_BUFFER));
        service.add_listener(match tls(config)? {
            Some(settings) => listener.tls(settings),
            None => listener,
        });
    }
    Ok(service)
}

fn tls(config: &Config) -> Result<Option<TlsSettings>, StartError> {
    let tls = &config.server.tls;
    if !tls.enable {
        return Ok(None);
    }
    let failed = |cause: String| StartError::Tls { cert: tls.cert.clone(), key: tls.key.clone(), cause };
    for file in [&tls.cert, &tls.key] {
        // Pingora would stop the process where the file cannot be read.
        std::fs::File::open(file).map_err(|cause| failed(format!("{file}: {cause}")))?;
    }
    let mut settings = TlsSettings::intermediate(&tls.cert, &tls.key).map_err(|e| failed(e.to_string()))?;
    settings.enable_h2();
    Ok(Some(settings))
}
