//! What is written down.
//!
//! Enters: `debug`, `logging-to-file`, `log-dir`, `logs-max-total-size-mb`, `error-logs-max-files`,
//! `request-log`, `commercial-mode`, `usage-statistics-enabled`, `redis-usage-queue-retention-seconds`,
//! `prices`. Leaves: [`Logging`]. May go wrong: nothing but kinds; numbers out of range move to the nearest that is
//! legal, as CLIProxyAPI does it.

use crate::lenient::floor_zero;
use crate::prices::ModelPrice;
use serde::{Deserialize, Deserializer, Serialize};

/// Error logs that are kept when the file does not say.
const ERROR_LOGS: u32 = 10;

/// Logs and usage records.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Logging {
    /// Log at debug level.
    pub debug: bool,
    /// Log into files in place of standard output.
    pub logging_to_file: bool,
    /// Folder of the log files; empty: `logs` beside the configuration file.
    pub log_dir: String,
    /// Bytes of all log files, in MiB; the oldest go first. 0: no bound.
    #[serde(deserialize_with = "floor_zero")]
    pub logs_max_total_size_mb: u64,
    /// Request logs of failures that are kept; 0: all.
    #[serde(deserialize_with = "error_logs")]
    pub error_logs_max_files: u32,
    /// Write every request and answer down, not only failures.
    pub request_log: bool,
    /// Write no request down at all, whatever `request-log` says: for busy servers.
    pub commercial_mode: bool,
    /// Keep a record of every request's tokens.
    pub usage_statistics_enabled: bool,
    /// Seconds for which usage records wait to be fetched: 1 to 3600.
    #[serde(deserialize_with = "retention")]
    pub redis_usage_queue_retention_seconds: u32,
    /// What tokens cost; the first that fits counts.
    pub prices: Vec<ModelPrice>,
}

impl Logging {
    /// For how many milliseconds usage records wait to be fetched; `None`: none are kept.
    pub fn usage_queue_ms(&self) -> Option<u64> {
        self.usage_statistics_enabled.then(|| u64::from(self.redis_usage_queue_retention_seconds) * 1000)
    }
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            debug: false,
            logging_to_file: false,
            log_dir: String::new(),
            logs_max_total_size_mb: 0,
            error_logs_max_files: ERROR_LOGS,
            request_log: false,
            commercial_mode: false,
            usage_statistics_enabled: false,
            redis_usage_queue_retention_seconds: 60,
            prices: Vec::new(),
        }
    }
}

/// Less than none means the default.
fn error_logs<'de, D: Deserializer<'de>>(input: D) -> Result<u32, D::Error> {
    i64::deserialize(input).map(|count| u32::try_from(count).unwrap_or(ERROR_LOGS))
}

/// None or less means the default; more than an hour means an hour.
fn retention<'de, D: Deserializer<'de>>(input: D) -> Result<u32, D::Error> {
    i64::deserialize(input).map(|seconds| if seconds <= 0 { 60 } else { seconds.min(3600) as u32 })
}
