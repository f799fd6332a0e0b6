//! Files that are replaced as a whole.
//!
//! Enters: a path and its new content. Leaves: the file with all of it, readable by its owner only. May go
//! wrong: any step; then the old content is still there.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces `path`. After a crash at any point it has its old or its new content.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    // A link is kept, its target is replaced.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| io::Error::other("it has no name"))?.to_string_lossy();
    // Not `.json`: nobody takes a half-written file for an account.
    let half = folder.join(format!(".{name}.{}.tmp", uuid::Uuid::now_v7().simple()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&half, &path)?;
        // The name is on the disk when its folder is.
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // It is not there when the rename was done.
        let _ = std::fs::remove_file(&half);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use testkit::scratch::Scratch;

    #[test]
    fn p44_a_file_has_its_old_or_its_new_content_and_is_its_owners() {
        let scratch = Scratch::new();
        let file = scratch.file("a.json", "old");
        write(&file, b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let link = scratch.path().join("link.json");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, b"newer").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"newer");
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert!(write(&scratch.path().join("no/folder.json"), b"x").is_err());
        let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 2, "no half-written file is left: {left:?}");
    }
}
