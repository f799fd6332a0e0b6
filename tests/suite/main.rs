//! The one integration binary: each further one would link Pingora again.

mod architecture;
mod command_line;
mod data_path;
mod faults;
mod local_answers;
mod shared;
mod streams;
