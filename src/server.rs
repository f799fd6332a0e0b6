//! The process: listeners, services, signals.
//!
//! Enters: a configuration and what the command line says. Leaves: a process that serves until it is told
//! to leave, then drains: readiness flips, new connections are refused, running answers end or meet the
//! deadline. May go wrong: an address that is taken, a certificate that cannot be read; both are told
//! before anything is served.

use crate::demo::Demo;
use crate::manage::Sidecar;
use crate::proxy::Edge;
use crate::state::State;
use crate::state::renew::Renewer;
use async_trait::async_trait;
use config::Config;
use pingora::apps::http_app::ServeHttp;
use pingora::listeners::tls::TlsSettings;
use pingora::listeners::{L4BufferSettings, ListenerConfig, TcpSocketOptions};
use pingora::protocols::TcpKeepalive;
use pingora::protocols::http::ServerSession;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::server::{
    ExecutionPhase, RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, UnixShutdownSignalWatch,
};
use pingora::services::background::background_service;
use pingora::services::listening::Service;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// Longest a stream may go on after the process was told to leave.
const DRAIN: u64 = 60;
/// Read buffer of a client connection: requests are small or are copied out at once, streams only write.
const READ_BUFFER: usize = 4096;

/// Why the process cannot start.
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
}

/// What is served where.
#[derive(Debug)]
pub struct Plan {
    /// Addresses of the proxy.
    pub listen: Vec<SocketAddr>,
    /// Address of the metrics.
    pub metrics: Option<SocketAddr>,
    /// Warnings for the operator.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Reads the addresses and tries them, so that a taken one is told before anything is served.
    pub fn new(config: &Config, port: Option<u16>) -> Result<Self, StartError> {
        let server = &config.server;
        let mut listen = resolve(server.host.as_str(), port.unwrap_or(server.port))?;
        for extra in &server.extra_listen.0 {
            listen.extend(resolve(extra.host.as_str(), extra.port)?);
        }
        listen.iter().try_for_each(try_bind)?;
        let mut plan = Self { listen, metrics: None, warnings: Vec::new() };
        if let Some(metrics) = &server.metrics.listen {
            match resolve(metrics.host.as_str(), metrics.port).and_then(|found| {
                found.iter().try_for_each(try_bind)?;
                Ok(found)
            }) {
                Ok(found) => plan.metrics = found.first().copied(),
                // A second proxy on the machine is no reason not to serve.
                Err(error) => plan.warnings.push(format!("no metrics: {error}; set metrics.listen")),
            }
        }
        Ok(plan)
    }
}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, StartError> {
    if host.is_empty() {
        // All interfaces: an IPv6 socket takes IPv4 as well, where there is IPv6.
        let six = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
        let any = if TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, 0)).is_ok() {
            six
        } else {
            SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, port))
        };
        return Ok(vec![any]);
    }
    let found = (host, port).to_socket_addrs();
    match found.map(|mut found| found.next()) {
        Ok(Some(address)) => Ok(vec![address]),
        Ok(None) => {
            Err(listen_error(format!("{host}:{port}"), std::io::Error::other("the name has no address")))
        }
        Err(cause) => Err(listen_error(format!("{host}:{port}"), cause)),
    }
}

fn try_bind(address: &SocketAddr) -> Result<(), StartError> {
    TcpListener::bind(address).map(drop).map_err(|cause| listen_error(address.to_string(), cause))
}

fn listen_error(address: String, cause: std::io::Error) -> StartError {
    let hint = match cause.kind() {
        std::io::ErrorKind::AddrInUse => " (the port is in use: stop the other process or change `port`)",
        std::io::ErrorKind::PermissionDenied => {
            " (ports below 1024 need a privilege, others may be reserved)"
        }
        std::io::ErrorKind::AddrNotAvailable => " (this machine does not have that address: change `host`)",
        _ => "",
    };
    StartError::Listen { address, cause, hint }
}

/// Serves until the process is told to leave.
pub fn run(
    state: &Arc<State>,
    plan: &Plan,
    demo: Option<Demo>,
    version: &'static str,
) -> Result<(), StartError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut server = Server::new_with_opt_and_conf(Opt::default(), server_conf());
    let snapshot = state.snapshot.load_full();
    server.add_service(edge_service(state, plan, &snapshot.config, version)?);
    if let Some(address) = plan.metrics {
        let mut metrics = Service::new("metrics".to_owned(), MetricsPage(Arc::clone(state)));
        metrics.threads = Some(1);
        metrics.add_listener(ListenerConfig::tcp(address.to_string()));
        server.add_service(metrics);
    }
    let mut renewer = background_service("renewals", Renewer(Arc::clone(state)));
    renewer.threads = Some(1);
    server.add_service(renewer);
    let mut sidecar = background_service("management", Sidecar::new(Arc::clone(state), version));
    sidecar.threads = Some(1);
    server.add_service(sidecar);
    if let Some(demo) = demo {
        let mut demo = background_service("demo", demo);
        demo.threads = Some(1);
        server.add_service(demo);
    }
    leave_early(&server, Arc::clone(state));
    server.bootstrap();
    server.run(RunArgs { shutdown_signal: Box::new(Drain(Arc::clone(state))) });
    Ok(())
}

fn server_conf() -> ServerConf {
    ServerConf {
        threads: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
        work_stealing: true,
        grace_period_seconds: Some(DRAIN),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}

fn edge_service(
    state: &Arc<State>,
    plan: &Plan,
    config: &Config,
    version: &'static str,
) -> Result<Service<Edge>, StartError> {
    let mut service = Service::new("cliproxy".to_owned(), Edge::new(Arc::clone(state), version));
    for address in &plan.listen {
        let mut socket = TcpSocketOptions::default();
        socket.tcp_keepalive = Some(TcpKeepalive {
            idle: Duration::from_mins(1),
            interval: Duration::from_secs(15),
            count: 4,
            user_timeout: Duration::ZERO,
        });
        let listener = ListenerConfig::tcp(address.to_string())
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

/// The first signal flips readiness, then Pingora stops accepting and lets answers end.
struct Drain(Arc<State>);

#[async_trait]
impl ShutdownSignalWatch for Drain {
    async fn recv(&self) -> ShutdownSignal {
        let signal = UnixShutdownSignalWatch.recv().await;
        // Ctrl+C in a terminal is a polite request as well.
        let signal = match signal {
            ShutdownSignal::FastShutdown => ShutdownSignal::GracefulTerminate,
            other => other,
        };
        self.0.drain();
        tracing::info!("leaving: no new connections, running answers have {DRAIN} seconds");
        tokio::spawn(async {
            // A second signal means now.
            UnixShutdownSignalWatch.recv().await;
            end_process();
        });
        signal
    }
}

/// Pingora sleeps through the whole grace period; the process leaves when the last answer has ended.
fn leave_early(server: &Server, state: Arc<State>) {
    let mut phases = server.watch_execution_phase();
    std::thread::spawn(move || {
        loop {
            match phases.blocking_recv() {
                Ok(ExecutionPhase::ShutdownGracePeriod) => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        while state.metrics.in_flight.get() > 0 {
            std::thread::sleep(Duration::from_millis(50));
        }
        tracing::info!("all answers have ended");
        end_process();
    });
}

#[expect(clippy::disallowed_methods, reason = "Pingora offers no way to cut its grace period short")]
#[expect(clippy::exit, reason = "everything that has to be written is written when it happens")]
fn end_process() {
    crate::observe::log::flush();
    std::process::exit(0);
}

/// `GET /metrics`.
struct MetricsPage(Arc<State>);

#[async_trait]
impl ServeHttp for MetricsPage {
    async fn response(&self, _: &mut ServerSession) -> http::Response<Vec<u8>> {
        let body = self.0.metrics.render();
        let length = body.len();
        let mut response = http::Response::new(body);
        let headers = response.headers_mut();
        headers.insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
        );
        headers.insert(http::header::CONTENT_LENGTH, http::HeaderValue::from(length));
        response
    }
}
