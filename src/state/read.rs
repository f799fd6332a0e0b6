//! Files that are read as a whole.
//!
//! Enters: a path and the most that is read. Leaves: its bytes, at most one more than that. May go wrong: it
//! is not there, cannot be read, or is no regular file.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Reads a regular file. What is longer than `most` bytes is cut one byte behind, so that it shows.
pub(super) fn regular(path: &Path, most: usize) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let file: File = open(path).map_err(failed)?;
    // Asked of what was opened: a name may mean something else a moment later.
    if !file.metadata().map_err(failed)?.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Opening a pipe would wait for its writer, and opening a device may do anything.
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)
}

/// `O_NONBLOCK` of Linux: reading a regular file is the same with it.
#[cfg(target_os = "linux")]
const NONBLOCK: i32 = 0o4000;
/// `O_NONBLOCK` of the BSDs and macOS.
#[cfg(not(target_os = "linux"))]
const NONBLOCK: i32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::scratch::Scratch;

    #[test]
    fn p43_only_regular_files_are_read_and_never_more_than_asked() {
        let scratch = Scratch::new();
        let file = scratch.file("a", "abcdef");
        assert_eq!(regular(&file, 3).unwrap(), b"abcd");
        assert_eq!(regular(&file, 100).unwrap(), b"abcdef");
        let pipe = scratch.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&pipe, scratch.path(), Path::new("/dev/zero")] {
            assert_eq!(regular(path, 3).unwrap_err(), "it is not a file", "{}", path.display());
        }
        assert!(regular(&scratch.path().join("none"), 3).unwrap_err().contains("cannot be read"));
    }
}
