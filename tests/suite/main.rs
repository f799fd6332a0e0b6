//! The one integration binary: each further one would link Pingora again.

#![allow(
    clippy::expect_used,
    clippy::too_many_lines,
    clippy::format_collect,
    reason = "a test fails by panicking"
)]

mod accounts;
mod architecture;
mod command_line;
mod data_path;
mod faults;
mod files;
mod key_limits;
mod local_answers;
mod media;
mod reload;
mod rules;
mod selection;
mod shared;
mod storm;
mod streams;
mod waiting;
