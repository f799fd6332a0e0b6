//! cliproxy: one port between every LLM client and every LLM provider.
//!
//! ```text
//! client ─► admit ─► parse ─► route ─► select ─► translate ─► forward ─► reply ─► record
//!           key,     body,    model →  credential body to    Pingora's  events    log,
//!           limits   head     plan     + slot     provider   client     back      metrics
//!                      │        │        ▲                     │
//!                      └─ wire ─┴─ pool ─┴──── verdict ────────┘   (retry: before the first client byte only)
//! ```
//!
//! Packages, each of which sees only those to its left: `wire` (formats) ← `config` (what the operator said)
//! ← `pool` (who serves) ← this one. The first three are pure: no IO, no clock, no randomness.
//!
//! | here | holds |
//! |---|---|
//! | `main.rs`, [`cli`] | the command line |
//! | [`server`] | listeners, services, signals, upgrades |
//! | [`embed`] (`embed.rs`) | the proxy inside another program |
//! | [`proxy`] | the data path: one file per stage, in the order of the picture |
//! | [`state`] | what all requests share: configuration, pool, connections, metrics |
//! | [`upstream`] | connections to upstreams: names, proxies, TLS, paths, headers |
//! | [`observe`] | metrics, log, access line |
//! | [`manage`] | the management sidecar: its own threads, reached through [`state`] |
//! | [`demo`] | the embedded provider |
//! | `wire/`, `config/`, `pool/` | the other packages; each crate documentation is its map |
//!
//! Modules use each other from right to left only: observe → upstream → state → proxy, manage → demo → server → embed, cli.
//! Reading order for the first time: [`proxy`], `wire::translate`, `pool`.

pub mod cli;
pub mod demo;
pub mod embed;
pub mod manage;
pub mod observe;
pub mod proxy;
pub mod server;
pub mod state;
pub mod upstream;
