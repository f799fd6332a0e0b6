//! Log files: `main.log` and the ones before it.
//!
//! Enters: whole lines. Leaves: `main.log` of at most [`ROTATE`] bytes, older ones as
//! `main-20261121T043700.123.log`, all of them within a bound. May go wrong: the disk is full or read-only;
//! then lines are counted as lost, and writing is tried again with the next ones.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Size at which a new file begins.
const ROTATE: u64 = 10 << 20;
/// The file that is written.
const MAIN: &str = "main.log";

/// Where lines go.
#[derive(Debug)]
pub(super) struct LogFile {
    folder: PathBuf,
    /// Bytes of all files together; 0: no bound.
    most: u64,
    rotate: u64,
    open: Option<(File, u64)>,
}

impl LogFile {
    /// Files in `folder`, which is made when it is not there.
    pub(super) fn new(folder: &Path, most: u64) -> Self {
        Self { folder: folder.to_owned(), most, rotate: ROTATE, open: None }
    }

    /// Appends lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let main = self.folder.join(MAIN);
        // Somebody may have moved or removed it: rotation by logrotate, `DELETE /logs`.
        if self.open.is_some() && !main.exists() {
            self.open = None;
        }
        if self.open.as_ref().is_some_and(|(_, size)| *size >= self.rotate) {
            self.open = None;
            std::fs::rename(&main, self.folder.join(older_name()))?;
            self.make_room()?;
        }
        let (file, size) = match &mut self.open {
            Some(open) => open,
            none => {
                DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
                let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&main)?;
                let size = file.metadata()?.len();
                none.insert((file, size))
            }
        };
        file.write_all(lines)?;
        *size += lines.len() as u64;
        Ok(())
    }

    /// Removes the oldest files until the rest, with a full `main.log`, fits.
    fn make_room(&self) -> io::Result<()> {
        if self.most == 0 {
            return Ok(());
        }
        let mut older: Vec<(PathBuf, u64)> = std::fs::read_dir(&self.folder)?
            .flatten()
            .filter(|entry| entry.file_name().to_str().is_some_and(is_older))
            .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len())))
            .collect();
        // The names hold the time.
        older.sort();
        let mut total = older.iter().map(|(_, size)| size).sum::<u64>() + self.rotate;
        for (path, size) in older {
            if total <= self.most {
                break;
            }
            std::fs::remove_file(path)?;
            total -= size;
        }
        Ok(())
    }
}

fn is_older(name: &str) -> bool {
    name.strip_prefix("main-").and_then(|name| name.strip_suffix(".log")).is_some()
}

/// A name for a file that is full. Sorts by time.
fn older_name() -> String {
    let now = jiff::Timestamp::now();
    format!("main-{}.log", now.strftime("%Y%m%dT%H%M%S.%6f"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use testkit::scratch::Scratch;

    #[test]
    fn files_rotate_within_their_bound_and_the_newest_lines_stay() {
        let scratch = Scratch::new();
        let folder = scratch.path().join("logs");
        let mut log = LogFile { rotate: 100, ..LogFile::new(&folder, 350) };
        for n in 0..100 {
            log.write(format!("line {n:03} {}\n", "x".repeat(20)).as_bytes()).unwrap();
        }
        let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().flatten().map(|e| e.path()).collect();
        files.sort();
        let total: u64 = files.iter().map(|f| f.metadata().unwrap().len()).sum();
        assert!(files.len() >= 3 && total <= 350 + 30, "{} files, {total} bytes", files.len());
        let main = std::fs::read_to_string(folder.join(MAIN)).unwrap();
        assert!(main.ends_with(&format!("line 099 {}\n", "x".repeat(20))));
        assert_eq!(folder.join(MAIN).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn p45_a_file_that_vanishes_or_cannot_be_made_is_tried_again() {
        let scratch = Scratch::new();
        let folder = scratch.path().join("logs");
        std::fs::write(&folder, "in the way").unwrap();
        let mut log = LogFile::new(&folder, 0);
        assert!(log.write(b"lost\n").is_err());
        std::fs::remove_file(&folder).unwrap();
        log.write(b"one\n").unwrap();
        std::fs::remove_file(folder.join(MAIN)).unwrap();
        log.write(b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(folder.join(MAIN)).unwrap(), "two\n");
    }
}
