//! What all requests share. The one place where the data path and what steers it meet.
//!
//! Enters: a configuration, at start and at each reload. Leaves: [`Snapshot`], loaded once per request, so
//! that a request sees one configuration; the pool; connections; metrics. May go wrong: nothing at run time.

pub mod account_files;
pub mod accounts;
pub mod atomic;
pub mod config_file;
pub mod discovery;
#[cfg(feature = "otlp")]
pub mod export;
pub mod files;
pub mod forwarded;
pub mod keys;
pub mod lanes;
pub mod learnt;
pub mod leave;
pub mod load;
pub mod login;
pub mod logins;
pub mod loopback;
pub mod query;
mod read;
pub mod reload;
pub mod renew;
pub mod request_logs;
pub mod sidecar;
pub mod sign;
pub mod store;
mod tokens;
pub mod usage;
pub mod waiting;

use crate::observe::feed::Feed;
use crate::observe::metrics::Metrics;
use crate::observe::providers::Providers;
use crate::observe::traces::Traces;
use crate::observe::usage::Ledger;
use crate::observe::usage::price::Prices;
use accounts::Accounts;
use arc_swap::ArcSwap;
use config::Config;
use config_file::ConfigFile;
use discovery::Listings;
use files::Files;
use keys::ClientKeys;
use lanes::Lanes;
use learnt::Keeper;
use leave::Leave;
use logins::Logins;
use parking_lot::Mutex;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pool::{CredentialSpec, Found, Loaded, Now, Pool, SharedModel};
use renew::Renewals;
use request_logs::RequestLogs;
use sidecar::Sidecar;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use waiting::WaitingRoom;

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
    /// Requests that nobody can serve now.
    pub waiting: Arc<WaitingRoom>,
    /// Who holds which of Gemini's files.
    pub files: Files,
    /// Metrics.
    pub metrics: Metrics,
    /// Spans of requests.
    pub traces: Traces,
    /// How calls to providers went.
    pub providers: Providers,
    /// Who used how much.
    pub usage: Ledger,
    /// The last requests.
    pub feed: Feed,
    /// What is written down of requests.
    pub request_logs: RequestLogs,
    /// How far the process is with leaving.
    pub leave: Leave,
    /// Logins under way.
    pub logins: Logins,
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
    /// Nothing is kept over a restart without one.
    keeper: OnceLock<Keeper>,
    usage_kept: usage::Kept,
    /// What upstreams list of themselves.
    found: Mutex<Found>,
    /// How the questions for it went.
    listings: Mutex<Listings>,
    started: Instant,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// What clients every provider serves: all formats are translated into all others, and these are the tools
/// that speak one of them.
pub const SUPPORTED_CLIENTS: [&str; 7] = [
    "openai-chat",
    "openai-responses",
    "claude-messages",
    "gemini",
    "claude-code",
    "codex-cli",
    "gemini-cli",
];

/// A configuration and what is made of it.
#[derive(Debug)]
pub struct Snapshot {
    /// What the operator said.
    pub config: Config,
    /// Client keys, ready to be looked up.
    pub keys: ClientKeys,
    /// Changes to upstream bodies, ready to be made.
    pub payload: wire::payload::Rules,
    /// How long requests may wait.
    pub waiting: waiting::Limits,
    /// What tokens cost.
    pub prices: Prices,
}

impl Snapshot {
    /// Makes it of a configuration. What the holders of client keys use is taken over from the snapshot
    /// `before`.
    pub fn new(config: Config, before: &Self) -> Self {
        Self {
            keys: ClientKeys::new(&config.auth.api_keys, &before.keys),
            payload: config.payload.rules(),
            waiting: waiting::Limits::of_process(&config.routing.waiting),
            prices: Prices::new(&config.logging.prices),
            config,
        }
    }

    /// The defaults: nobody serves.
    fn empty() -> Self {
        let config = Config::default();
        Self {
            keys: ClientKeys::default(),
            payload: config.payload.rules(),
            waiting: waiting::Limits::of_process(&config.routing.waiting),
            prices: Prices::default(),
            config,
        }
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
        let metrics = Metrics::new()?;
        let waiting = Arc::new(WaitingRoom::new(metrics.waits.clone()));
        let state = Self {
            snapshot: ArcSwap::from_pointee(Snapshot::empty()),
            pool: Pool::default(),
            connector: Connector::new(Some(ConnectorOptions::new(IDLE_CONNECTIONS))),
            lanes: Lanes::default(),
            files: Files::default(),
            waiting,
            traces: Traces::new(&config.telemetry, &metrics),
            metrics,
            providers: Providers::default(),
            usage: Ledger::default(),
            feed: Feed::default(),
            request_logs: RequestLogs::default(),
            leave: Leave::default(),
            logins: Logins::default(),
            sidecar: Sidecar::default(),
            config_file: ConfigFile::default(),
            accounts: Mutex::new(Accounts::default()),
            applying: Mutex::default(),
            shared: Mutex::default(),
            account_files: Mutex::default(),
            renewals: Renewals::default(),
            keeper: OnceLock::new(),
            usage_kept: usage::Kept::default(),
            found: Mutex::default(),
            listings: Mutex::default(),
            started: Instant::now(),
        };
        let room = Arc::clone(&state.waiting);
        state.pool.on_signal(Box::new(move || room.call()));
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
        let (settings, specs) = pool::from_config_and(&config, &accounts.good, &self.found.lock());
        *self.accounts.lock() = accounts;
        self.lanes.allow(&config.providers.allow_link_local_hosts);
        let loaded = self.pool.update(settings, specs);
        let snapshot = Snapshot::new(config, &self.snapshot.load());
        self.snapshot.store(Arc::new(snapshot));
        // Limits may have grown.
        self.waiting.call();
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

    /// Puts what upstreams list of themselves in force.
    fn apply_found(&self) {
        let _one_at_a_time = self.applying.lock();
        let config = &self.snapshot.load().config;
        let accounts = self.accounts.lock().good.clone();
        let (settings, specs) = pool::from_config_and(config, &accounts, &self.found.lock());
        self.pool.update(settings, specs);
    }

    /// The credentials that the configuration and the accounts make, with the models that they serve.
    pub fn credentials(&self) -> Vec<CredentialSpec> {
        let config = &self.snapshot.load().config;
        let accounts = self.accounts.lock().good.clone();
        pool::from_config_and(config, &accounts, &self.found.lock()).1
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
}
