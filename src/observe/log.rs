//! The log: one subscriber for our events and Pingora's, and the access lines beside it.
//!
//! Enters: the level, and whether files are wanted. Leaves: lines on standard output or in files, collected
//! for [`HOLD`] at most and written by a thread of their own: a request never waits for whoever reads the log.
//! May go wrong: a reader that does not read; then lines are dropped and the next one says how many. A disk
//! that is full; then lines go to standard output.

use super::file::Files;
use parking_lot::{Condvar, Mutex};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// Longest stay of a line in memory.
const HOLD: Duration = Duration::from_millis(50);
/// Most bytes that wait to be written.
const MOST: usize = 4 << 20;

/// Starts logging, on standard output until [`into_files`]. `CLIPROXY_LOG` takes `tracing` filters and wins
/// over `debug`.
pub fn start(logging: &config::Logging) {
    let level = if logging.debug { "debug" } else { "info" };
    // Pingora says of each broken connection what the access line says better.
    let default = format!(
        "{level},pingora_core=error,pingora_proxy=off,pingora_pool=error,h2=warn,hyper=warn,rustls=warn"
    );
    let filter = EnvFilter::try_from_env("CLIPROXY_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(!logging.logging_to_file && io::stdout().is_terminal())
        .with_writer(Lines);
    // A second subscriber is refused: an embedding program has its own.
    let _ = subscriber.try_init();
}

/// Writes into files below `folder` from now on (`most` bytes of all of them; 0: no bound), or to standard
/// output.
pub fn into_files(folder: Option<(PathBuf, u64)>) -> io::Result<()> {
    let files = folder.map(|(folder, most)| Files::open(folder, most)).transpose()?;
    // What was said before stays where it was said.
    flush();
    *SINK.files.lock() = files;
    Ok(())
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
    let mut time = String::with_capacity(32);
    // Writing to a string cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let level = match level {
        Level::ERROR => " ERROR ",
        Level::WARN => "  WARN ",
        _ => "  INFO ",
    };
    SINK.push(&[time.as_bytes(), level.as_bytes(), line, b"\n"]);
}

/// Writes what waits; for the end of the process.
pub fn flush() {
    SINK.write(&mut Vec::new());
}

static SINK: LazyLock<Sink> = LazyLock::new(|| {
    // Without the thread lines are written where they are made.
    let threaded = std::thread::Builder::new().name("log".to_owned()).spawn(|| SINK.run()).is_ok();
    let waiting = Mutex::default();
    Sink { waiting, arrived: Condvar::new(), writing: Mutex::new(()), files: Mutex::default(), threaded }
});

/// Lines that wait to be written.
struct Sink {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    /// Held while lines are on their way out, so that they stay in order and the last flush waits for them.
    writing: Mutex<()>,
    /// Where lines go; none: to standard output.
    files: Mutex<Option<Files>>,
    threaded: bool,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    dropped: u64,
}

impl Sink {
    fn push(&self, parts: &[&[u8]]) {
        let mut waiting = self.waiting.lock();
        if waiting.bytes.len() > MOST {
            waiting.dropped += 1;
            return;
        }
        let first = waiting.bytes.is_empty();
        if waiting.dropped > 0 {
            let dropped = std::mem::take(&mut waiting.dropped);
            let told = format!("{dropped} log lines were dropped: standard output is not read\n");
            waiting.bytes.extend_from_slice(told.as_bytes());
        }
        for part in parts {
            waiting.bytes.extend_from_slice(part);
        }
        drop(waiting);
        if !self.threaded {
            flush();
        } else if first {
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
            drop(waiting);
            std::thread::sleep(HOLD);
            self.write(&mut spare);
        }
    }

    /// Writes what waits. `spare` is empty memory, before and afterwards.
    fn write(&self, spare: &mut Vec<u8>) {
        let writing = self.writing.lock();
        std::mem::swap(spare, &mut self.waiting.lock().bytes);
        let filed = self.files.lock().as_mut().is_some_and(|files| files.write(spare).is_ok());
        if !filed {
            let mut out = io::stdout().lock();
            // Nobody is left to tell.
            let _ = out.write_all(spare).and_then(|()| out.flush());
        }
        drop(writing);
        spare.clear();
    }
}

/// Where `tracing` writes to.
struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        SINK.push(&[line]);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
