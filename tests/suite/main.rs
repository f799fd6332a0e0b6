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
mod doctor;
mod faults;
mod files;
mod local_answers;
mod management;
mod media;
mod providers;
mod reload;
mod rules;
mod shared;
mod streams;
