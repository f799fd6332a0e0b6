//! The one integration binary: each further one would link Pingora again.

#![allow(
    clippy::expect_used,
    clippy::too_many_lines,
    clippy::format_collect,
    reason = "a test fails by panicking"
)]

mod accounts;
mod alerts;
mod api_call;
mod architecture;
mod beside;
mod canary;
mod command_line;
mod command_line_remote;
mod command_line_terminal;
mod data_path;
mod deployment;
mod discovery;
mod doctor;
mod embed;
mod events;
mod faults;
mod files;
mod forwarding;
mod key_limits;
mod lifecycle;
mod limits;
mod load;
mod local_answers;
mod logins;
mod logins_cli;
mod management;
mod media;
mod parallel_calls;
mod persistence;
mod providers;
mod reach;
mod reload;
mod renewals;
mod request_logs;
mod rules;
mod runbook;
mod selection;
mod shared;
mod storm;
mod streams;
mod tls;
mod torture;
mod traces;
mod usage;
mod waiting;
