//! How many files the process may have open: each connection is one.
//!
//! Enters: the limits of the system. Leaves: the soft limit at the height of the hard one. May go wrong: the
//! system refuses; then the process serves with what it has.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Fewest open files that do not get a warning.
const FEW: u64 = 4096;

/// Raises the limit and gives a warning where it stays low.
pub(super) fn raise_limit() -> Option<String> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    now.filter(|most| *most < FEW)
        .map(|most| format!("only {most} files may be open, a connection is one; raise `ulimit -Hn`"))
}
