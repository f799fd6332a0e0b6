//! The log: one subscriber for our events and Pingora's, and the access lines beside it.
//!
//! Enters: the level and where to. Leaves: lines on standard output or in files, collected for [`HOLD`] at
//! most (warnings and errors are not) and written by a thread of their own: a request never waits for whoever reads the log. May go wrong:
//! a reader that does not read, a full disk; then lines are dropped and the next one says how many.

use super::log_file::LogFile;
use parking_lot::{Condvar, Mutex};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// Longest stay of a line in memory.
const HOLD: Duration = Duration::from_millis(50);
/// Most bytes that wait to be written.
const MOST: usize = 4 << 20;

/// What is logged where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Also what helps to find mistakes.
    pub debug: bool,
    /// Folder of the files; `None`: standard output.
    pub folder: Option<PathBuf>,
    /// Most bytes of all files; 0: no bound.
    pub most: u64,
}

/// Changes the level.
static LEVEL: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// Starts logging, or goes on with other settings. `CLIPROXY_LOG` takes `tracing` filters and wins over
/// `debug`.
pub fn configure(settings: &Settings) {
    SINK.move_to(settings.folder.as_ref().map(|folder| LogFile::new(folder, settings.most)));
    let filter = filter(settings.debug);
    if let Some(set) = LEVEL.get() {
        return set(filter);
    }
    let builder = tracing_subscriber::fmt()
        .with_target(false)
        .with_ansi(settings.folder.is_none() && io::stdout().is_terminal())
        .with_writer(Lines { urgent: false })
        .with_env_filter(filter)
        .with_filter_reloading();
    let handle = builder.reload_handle();
    // A second subscriber is refused: an embedding program has its own.
    if builder.try_init().is_ok() {
        // It fails when the subscriber is gone, and there is none to change then.
        let _ = LEVEL.set(Box::new(move |filter| drop(handle.reload(filter))));
    }
}

fn filter(debug: bool) -> EnvFilter {
    let level = if debug { "debug" } else { "info" };
    // Pingora says of each broken connection what the access line says better.
    let default = format!(
        "{level},pingora_core=error,pingora_proxy=off,pingora_pool=error,h2=warn,hyper=warn,rustls=warn"
    );
    EnvFilter::try_from_env("CLIPROXY_LOG").unwrap_or_else(|_| EnvFilter::new(default))
}

/// Writes the line of a finished request. It is no `tracing` event: those are formatted and escaped letter by
/// letter, and this line is escaped already.
pub fn access(level: Level, line: &[u8]) {
    let wanted = match level {
        Level::ERROR => tracing::enabled!(Level::ERROR),
        Level::WARN => tracing::enabled!(Level::WARN),
        _ => tracing::enabled!(Level::INFO),
    };
    if !wanted {
        return;
    }
    if LEVEL.get().is_none() {
        return hand_on(level, line);
    }
    let mut time = String::with_capacity(32);
    // Writing to a string cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let text = match level {
        Level::ERROR => " ERROR ",
        Level::WARN => "  WARN ",
        _ => "  INFO ",
    };
    SINK.push(&[time.as_bytes(), text.as_bytes(), line, b"\n"], level <= Level::WARN);
}

/// The line as an event: the program that this one runs in has a subscriber of its own.
fn hand_on(level: Level, line: &[u8]) {
    let line = String::from_utf8_lossy(line);
    match level {
        Level::ERROR => tracing::error!("{line}"),
        Level::WARN => tracing::warn!("{line}"),
        _ => tracing::info!("{line}"),
    }
}

/// Writes what waits; for the end of the process.
pub fn flush() {
    SINK.write(&mut Vec::new());
}

static SINK: LazyLock<Sink> = LazyLock::new(|| {
    // Without the thread lines are written where they are made.
    let threaded = std::thread::Builder::new().name("log".to_owned()).spawn(|| SINK.run()).is_ok();
    Sink { waiting: Mutex::default(), arrived: Condvar::new(), writing: Mutex::new(None), threaded }
});

/// Lines that wait to be written.
struct Sink {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    /// The files, if any. Held while lines are on their way out, so that they stay in order and the last
    /// flush waits for them.
    writing: Mutex<Option<LogFile>>,
    threaded: bool,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    dropped: u64,
    /// Something among it is looked for at once.
    urgent: bool,
}

impl Sink {
    fn push(&self, parts: &[&[u8]], urgent: bool) {
        let mut waiting = self.waiting.lock();
        if waiting.bytes.len() > MOST {
            waiting.dropped += 1;
            return;
        }
        let first = waiting.bytes.is_empty();
        if waiting.dropped > 0 {
            let dropped = std::mem::take(&mut waiting.dropped);
            let told = format!("{dropped} log lines were dropped: nobody takes them\n");
            waiting.bytes.extend_from_slice(told.as_bytes());
        }
        for part in parts {
            waiting.bytes.extend_from_slice(part);
        }
        waiting.urgent |= urgent;
        drop(waiting);
        if !self.threaded {
            flush();
        } else if first || urgent {
            self.arrived.notify_one();
        }
    }

    fn run(&self) -> ! {
        let mut spare = Vec::new();
        loop {
            let mut waiting = self.waiting.lock();
            while waiting.bytes.is_empty() {
                self.arrived.wait(&mut waiting);
            }
            if !waiting.urgent {
                let end = Instant::now() + HOLD;
                self.arrived.wait_while_until(&mut waiting, |waiting| !waiting.urgent, end);
            }
            waiting.urgent = false;
            drop(waiting);
            self.write(&mut spare);
        }
    }

    /// Writes what waits. `spare` is empty memory, before and afterwards.
    fn write(&self, spare: &mut Vec<u8>) {
        let mut writing = self.writing.lock();
        std::mem::swap(spare, &mut self.waiting.lock().bytes);
        let written = if let Some(file) = &mut *writing {
            file.write(spare)
        } else {
            let mut out = io::stdout().lock();
            out.write_all(spare).and_then(|()| out.flush())
        };
        if written.is_err() {
            self.waiting.lock().dropped += spare.split(|byte| *byte == b'\n').count() as u64 - 1;
        }
        drop(writing);
        spare.clear();
    }

    /// What is written from now on goes elsewhere.
    fn move_to(&self, file: Option<LogFile>) {
        self.write(&mut Vec::new());
        *self.writing.lock() = file;
    }
}

/// Where `tracing` writes to.
struct Lines {
    urgent: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self { urgent: false }
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Self {
        Self { urgent: *meta.level() <= Level::WARN }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        SINK.push(&[line], self.urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
