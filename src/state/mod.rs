//! What all requests share. The one place where the data path and what steers it meet.
//!
//! Enters: a configuration, at start and at each reload. Leaves: [`Snapshot`], loaded once per request, so
//! that a request sees one configuration; the pool; connections; metrics. May go wrong: nothing at run time.

pub mod account_files;
pub mod accounts;
pub mod atomic;
pub mod config_file;
pub mod files;
pub mod keys;
pub mod lanes;
pub mod query;
pub mod reload;
pub mod renew;
pub mod sidecar;

use crate::observe::metrics::Metrics;
use accounts::Accounts;
use arc_swap::ArcSwap;
use config::Config;
use config_file::ConfigFile;
use files::Files;
use keys::ClientKeys;
use lanes::Lanes;
use parking_lot::Mutex;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pool::{Loaded, Now, Pool, SharedModel};
use renew::Renewals;
use sidecar::Sidecar;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Idle upstream connections that are kept.
const IDLE_CONNECTIONS: usize = 4096;

/// Shared state of the process.
pub struct State {
    /// The configuration in force.
    pub snapshot: ArcSwap<Snapshot>,
    /// Credentials and what they are doing.
    pub pool: Pool,
    /// Connections to upstreams.
    pub connector: Connector,
    /// Ways to upstreams.
    pub lanes: Lanes,
    /// Who holds which of Gemini's files.
    pub files: Files,
    /// Metrics.
    pub metrics: Metrics,
    /// Where requests for the management sidecar go.
    pub sidecar: Sidecar,
    /// The text of the configuration.
    pub config_file: ConfigFile,
    /// Accounts of the folder, as they were last read.
    accounts: Mutex<Accounts>,
    /// Held while a configuration or accounts are put in force: nobody undoes what another did meanwhile.
    applying: Mutex<()>,
    /// Models that several providers serve.
    shared: Mutex<Vec<SharedModel>>,
    /// Held while an account file is changed.
    account_files: Mutex<()>,
    renewals: Renewals,
    started: Instant,
    draining: AtomicBool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// A configuration and what is made of it.
#[derive(Debug)]
pub struct Snapshot {
    /// What the operator said.
    pub config: Config,
    /// Client keys, ready to be looked up.
    pub keys: ClientKeys,
    /// Changes to upstream bodies, ready to be made.
    pub payload: wire::payload::Rules,
}

impl Snapshot {
    /// Makes it of a configuration.
    pub fn new(config: Config) -> Self {
        let keys = ClientKeys::new(config.auth.api_keys.iter().map(config::Secret::expose_secret));
        let payload = config.payload.rules();
        Self { config, keys, payload }
    }

    /// Largest request body in bytes.
    pub fn max_body(&self) -> usize {
        (self.config.server.limits.max_body_mb as usize) << 20
    }
}

/// Seconds of the configuration, where 0 means for ever.
pub fn seconds(value: u32) -> Duration {
    // A year is for ever, and does not overflow a clock.
    Duration::from_secs(if value == 0 { 365 * 24 * 3600 } else { u64::from(value) })
}

/// One line about names that mean models of several providers.
fn collisions(shared: &[SharedModel]) -> String {
    const SHOWN: usize = 10;
    let one = |shared: &SharedModel| {
        let providers: Vec<&str> = shared.providers.iter().map(AsRef::as_ref).collect();
        format!("{} ({})", shared.model, providers.join(", "))
    };
    let shown: Vec<String> = shared.iter().take(SHOWN).map(one).collect();
    let more = shared.len().saturating_sub(SHOWN);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        "models that several providers serve, the highest priority first, then in turn: {}{rest}",
        shown.join(", ")
    )
}

impl State {
    /// State with a configuration and accounts in force, and what the pool makes of them.
    pub fn new(config: Config, accounts: Accounts) -> Result<(Self, Loaded), prometheus::Error> {
        let state = Self {
            snapshot: ArcSwap::from_pointee(Snapshot::new(Config::default())),
            pool: Pool::default(),
            connector: Connector::new(Some(ConnectorOptions::new(IDLE_CONNECTIONS))),
            lanes: Lanes::default(),
            files: Files::default(),
            metrics: Metrics::new()?,
            sidecar: Sidecar::default(),
            config_file: ConfigFile::default(),
            accounts: Mutex::new(Accounts::default()),
            applying: Mutex::default(),
            shared: Mutex::default(),
            account_files: Mutex::default(),
            renewals: Renewals::default(),
            started: Instant::now(),
            draining: AtomicBool::new(false),
        };
        let loaded = state.apply(config, accounts);
        Ok((state, loaded))
    }

    /// Puts a configuration and accounts in force. Requests under way keep the configuration they began with.
    pub fn apply(&self, config: Config, accounts: Accounts) -> Loaded {
        let _one_at_a_time = self.applying.lock();
        self.exchange(config, accounts)
    }

    /// Puts accounts in force beside the configuration that is so by then.
    pub fn apply_accounts(&self, accounts: Accounts) -> Loaded {
        let _one_at_a_time = self.applying.lock();
        let config = self.snapshot.load().config.clone();
        self.exchange(config, accounts)
    }

    fn exchange(&self, config: Config, accounts: Accounts) -> Loaded {
        let (settings, specs) = pool::from_config(&config, &accounts.good);
        *self.accounts.lock() = accounts;
        let loaded = self.pool.update(settings, specs);
        self.snapshot.store(Arc::new(Snapshot::new(config)));
        let before = std::mem::replace(&mut *self.shared.lock(), loaded.shared.clone());
        if before != loaded.shared && !loaded.shared.is_empty() {
            tracing::info!("{}", collisions(&loaded.shared));
        }
        loaded
    }

    /// Models that several providers serve.
    pub fn shared_models(&self) -> Vec<SharedModel> {
        self.shared.lock().clone()
    }

    /// The accounts as they were last read.
    pub fn accounts(&self) -> Accounts {
        self.accounts.lock().clone()
    }

    /// The time, as the pool counts it.
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ms: self.started.elapsed().as_millis() as u64, wall_s: wall.as_secs() }
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether the process is about to leave.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Tells load balancers to go elsewhere.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}
