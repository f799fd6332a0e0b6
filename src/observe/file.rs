//! Log files: `main.log`, and older ones beside it.
//!
//! Enters: a folder, the most bytes that all files may have, lines. Leaves: files; a full one is set aside
//! under the time, and the oldest go when all are too large. May go wrong: what file systems do; the caller
//! writes elsewhere then.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the file that is written.
const CURRENT: &str = "main.log";
/// Bytes after which a file is set aside.
const FULL: u64 = 10 << 20;

/// Files that are written to.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    file: File,
    size: u64,
    full: u64,
    /// Most bytes of all files; 0: no bound.
    most: u64,
}

impl Files {
    /// Opens the files in `folder`, which is made if need be.
    pub(super) fn open(folder: PathBuf, most: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let file = OpenOptions::new().create(true).append(true).open(folder.join(CURRENT))?;
        let size = file.metadata()?.len();
        let files = Self { folder, file, size, full: FULL, most };
        files.prune();
        Ok(files)
    }

    /// Writes whole lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + lines.len() as u64 > self.full {
            self.set_aside()?;
        }
        self.file.write_all(lines)?;
        self.size += lines.len() as u64;
        Ok(())
    }

    fn set_aside(&mut self) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let current = self.folder.join(CURRENT);
        fs::rename(&current, self.folder.join(format!("main-{:015}.log", now.as_millis())))?;
        self.file = OpenOptions::new().create(true).append(true).open(current)?;
        self.size = 0;
        self.prune();
        Ok(())
    }

    /// Removes the oldest files that were set aside, until all fit. Their names sort by time.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut aside: Vec<_> = entries
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                let middle = name.to_str().and_then(|name| name.strip_prefix("main-")?.strip_suffix(".log"));
                middle.is_some_and(|middle| middle.bytes().all(|byte| byte.is_ascii_digit()))
            })
            .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len())))
            .collect();
        aside.sort();
        let mut all: u64 = self.full + aside.iter().map(|(_, size)| size).sum::<u64>();
        for (path, size) in aside.iter().take_while(|_| self.most > 0) {
            if all <= self.most {
                break;
            }
            // What cannot be removed now is tried again at the next change of files.
            if fs::remove_file(path).is_ok() {
                all -= size;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::scratch::Scratch;

    fn names(folder: &std::path::Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_set_aside_and_the_oldest_goes() {
        let scratch = Scratch::new();
        let folder = scratch.path().join("a/logs");
        let mut files = Files { full: 10, most: 30, ..Files::open(folder.clone(), 0).unwrap() };
        for line in [b"aaaaaa\n", b"bbbbbb\n", b"cccccc\n", b"dddddd\n", b"eeeeee\n"] {
            files.write(line).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
        assert_eq!(fs::read(folder.join(CURRENT)).unwrap(), b"eeeeee\n");
        let aside = names(&folder);
        let [older, newer, current] = aside.as_slice() else { panic!("{aside:?}") };
        assert_eq!(current, CURRENT);
        assert_eq!(fs::read(folder.join(older)).unwrap(), b"cccccc\n");
        assert_eq!(fs::read(folder.join(newer)).unwrap(), b"dddddd\n");
        drop(files);
        let mut files = Files::open(folder.clone(), 0).unwrap();
        files.write(b"f\n").unwrap();
        assert_eq!(fs::read(folder.join(CURRENT)).unwrap(), b"eeeeee\nf\n", "a restart writes on");
    }
}
