//! Panics go to the log.
//!
//! Enters: a panic. Leaves: one line that says where. Its message only where it is a literal of the source:
//! others quote what was being worked on, which may be a prompt or a key. May go wrong: nothing.

use std::panic::PanicHookInfo;

/// Replaces the default, which prints the message to standard error.
pub fn log() {
    std::panic::set_hook(Box::new(|panic| tracing::error!("{}", line(panic))));
}

fn line(panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name");
    match panic.payload().downcast_ref::<&'static str>() {
        Some(literal) => format!("panic at {place} in thread {thread}: {literal}"),
        None => format!("panic at {place} in thread {thread}"),
    }
}
