//! The log: one subscriber for our events and Pingora's.
//!
//! Enters: the level. Leaves: lines on standard output. May go wrong: a second subscriber, which is
//! ignored: an embedding program has its own.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging. `CLIPROXY_LOG` takes `tracing` filters and wins over `debug`.
pub fn start(debug: bool) {
    let level = if debug { "debug" } else { "info" };
    // Pingora says of each broken connection what the access line says better.
    let default = format!(
        "{level},pingora_core=error,pingora_proxy=off,pingora_pool=error,h2=warn,hyper=warn,rustls=warn"
    );
    let filter = EnvFilter::try_from_env("CLIPROXY_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let colours = std::io::stdout().is_terminal();
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(colours).try_init();
}
