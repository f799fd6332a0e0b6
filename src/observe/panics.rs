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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn p53_a_panic_is_told_by_its_place_and_not_by_what_was_worked_on() {
        let (sender, lines) = mpsc::channel();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let _ = sender.send(line(panic));
        }));
        let worked_on = String::from("Bearer sk-canary");
        let ended = std::thread::Builder::new()
            .name("panics-on-purpose".to_owned())
            .spawn(move || panic!("cannot send {worked_on}"))
            .unwrap()
            .join();
        std::panic::set_hook(before);
        assert!(ended.is_err());
        // Other tests may panic at the same time.
        let told = lines.try_iter().find(|line| line.contains("panics-on-purpose")).unwrap();
        assert!(
            told.contains("panics.rs:") && !told.contains("canary") && !told.contains("cannot"),
            "{told}"
        );
    }
}
