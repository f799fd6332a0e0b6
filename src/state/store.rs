//! The embedded store: one file of tables that outlives the process.
//!
//! Enters: rows by table. Leaves: rows as they were last written, whole batches or none of them. May go wrong:
//! another process has the file; the disk is full or read-only, then the store is closed, to be opened anew;
//! the file is broken, then it is moved aside and an empty one takes its place.
//!
//! Calls wait for the disk. They belong on a thread of their own, never into a request.

#[cfg(test)]
mod torture;

use parking_lot::Mutex;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Its name in the folder of the state.
const FILE: &str = "cliproxy.redb";
/// Memory for pages; the rest is the system's page cache.
const CACHE: usize = 4 << 20;

/// A table. Further ones take a further name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Rests by credential.
    Health,
    /// Bindings by session.
    Sessions,
    /// Usage by hour and names.
    Usage,
}

impl Table {
    fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(match self {
            Self::Health => "health",
            Self::Sessions => "sessions",
            Self::Usage => "usage",
        })
    }
}

/// What came of opening the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It was open.
    Before,
    /// It is open from now on, with what was there.
    Now,
    /// It is open from now on, and empty.
    Empty,
}

/// One row to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where.
    pub table: Table,
    /// Under which key.
    pub key: Vec<u8>,
    /// What; `None`: the row goes.
    pub value: Option<Vec<u8>>,
}

/// Why the store cannot be used now.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("another process uses it")]
    Taken,
    /// The disk does not do what it was asked.
    #[error("{0}")]
    Disk(String),
    /// Its content cannot be read.
    #[error("it is broken: {0}")]
    Broken(String),
}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> Self {
        match error {
            // What a foreign or cut file is told as.
            StorageError::Io(cause)
                if matches!(cause.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                Self::Broken(cause.to_string())
            }
            StorageError::Corrupted(what) => Self::Broken(what),
            other => Self::Disk(other.to_string()),
        }
    }
}

impl From<DatabaseError> for StoreError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::Taken,
            DatabaseError::Storage(storage) => storage.into(),
            other => Self::Broken(other.to_string()),
        }
    }
}

impl From<redb::TransactionError> for StoreError {
    fn from(error: redb::TransactionError) -> Self {
        match error {
            redb::TransactionError::Storage(storage) => storage.into(),
            other => Self::Disk(other.to_string()),
        }
    }
}

impl From<redb::TableError> for StoreError {
    fn from(error: redb::TableError) -> Self {
        match error {
            redb::TableError::Storage(storage) => storage.into(),
            // A table of another kind under our name: not ours.
            other => Self::Broken(other.to_string()),
        }
    }
}

impl From<redb::CommitError> for StoreError {
    fn from(error: redb::CommitError) -> Self {
        match error {
            redb::CommitError::Storage(storage) => storage.into(),
            other => Self::Disk(other.to_string()),
        }
    }
}

/// The store.
#[derive(Debug)]
pub struct Store {
    file: PathBuf,
    database: Mutex<Option<Arc<Database>>>,
}

impl Store {
    /// The store of a folder; nothing is opened yet.
    pub fn new(folder: &Path) -> Self {
        Self { file: folder.join(FILE), database: Mutex::default() }
    }

    /// Where it is.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Opens it where it is not open.
    pub fn open(&self) -> Result<Opened, StoreError> {
        let mut database = self.database.lock();
        if database.is_some() {
            return Ok(Opened::Before);
        }
        let opened = match open(&self.file) {
            Err(StoreError::Broken(reason)) => {
                self.move_aside(&reason)?;
                open(&self.file)
            }
            other => other,
        };
        let (opened, empty) = opened?;
        *database = Some(Arc::new(opened));
        Ok(if empty { Opened::Empty } else { Opened::Now })
    }

    /// Closes it if its file is gone: what is written to a file without a name is lost.
    pub fn close_if_gone(&self) {
        if !self.file.exists() {
            self.close();
        }
    }

    /// Lets another process have it.
    pub fn close(&self) {
        *self.database.lock() = None;
    }

    /// Calls `each` with every row of a table. One that was never written is empty.
    pub fn read(&self, table: Table, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        self.guarded(|database| read(database, table, each))
    }

    /// Writes all rows or none. They are on the disk when this returns.
    pub fn write<'r>(&self, rows: impl Iterator<Item = &'r Row>) -> Result<(), StoreError> {
        self.guarded(|database| write(database, rows))
    }

    /// Uses the open store. After an error it is closed, to be opened anew; a broken one is moved
    /// aside.
    fn guarded<T>(&self, work: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let database = self.database.lock().clone();
        let database = database.ok_or_else(|| StoreError::Disk("it is not open".to_owned()))?;
        // A file that was damaged in a way that no checksum covers may still panic its reader.
        let done = catch_unwind(AssertUnwindSafe(|| work(&database)))
            .unwrap_or_else(|_| Err(StoreError::Broken("reading it failed".to_owned())));
        if let Err(error) = &done {
            drop(database);
            self.close();
            if let StoreError::Broken(reason) = error {
                self.move_aside(reason)?;
            }
        }
        done
    }

    /// Keeps a broken file for whoever wants to know; only the last one.
    fn move_aside(&self, reason: &str) -> Result<(), StoreError> {
        let aside = self.file.with_extension("redb.broken");
        std::fs::rename(&self.file, &aside).map_err(|error| StoreError::Disk(error.to_string()))?;
        tracing::warn!(
            "{}: it is broken ({reason}); it was moved to {} and a new one begins",
            self.file.display(),
            aside.display()
        );
        Ok(())
    }
}

fn read(database: &Database, table: Table, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
    let reading = database.begin_read()?;
    let rows = match reading.open_table(table.definition()) {
        Ok(rows) => rows,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for row in rows.iter()? {
        let (key, value) = row?;
        each(key.value(), value.value());
    }
    Ok(())
}

fn write<'r>(database: &Database, rows: impl Iterator<Item = &'r Row>) -> Result<(), StoreError> {
    let writing = database.begin_write()?;
    for row in rows {
        let mut table = writing.open_table(row.table.definition())?;
        match &row.value {
            Some(value) => drop(table.insert(row.key.as_slice(), value.as_slice())?),
            None => drop(table.remove(row.key.as_slice())?),
        }
    }
    Ok(writing.commit()?)
}

/// The database in a file, and whether it begins with this call.
fn open(file: &Path) -> Result<(Database, bool), StoreError> {
    let disk = |error: io::Error| StoreError::Disk(error.to_string());
    if let Some(folder) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(disk)?;
    }
    let opened: File = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(file)
        .map_err(disk)?;
    let about = opened.metadata().map_err(disk)?;
    if !about.is_file() {
        return Err(StoreError::Disk("it is not a file".to_owned()));
    }
    let built = catch_unwind(|| Builder::new().set_cache_size(CACHE).create_file(opened));
    let database = built.map_err(|_| StoreError::Broken("opening it failed".to_owned()))??;
    Ok((database, about.len() == 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;
    use testkit::scratch::Scratch;

    fn put(table: Table, key: &str, value: Option<&str>) -> Row {
        Row { table, key: key.into(), value: value.map(Into::into) }
    }

    fn all(store: &Store, table: Table) -> Result<BTreeMap<String, String>, StoreError> {
        let mut rows = BTreeMap::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        store.read(table, &mut |key, value| drop(rows.insert(text(key), text(value))))?;
        Ok(rows)
    }

    fn filled(folder: &Path) -> Store {
        let store = Store::new(folder);
        store.open().unwrap();
        let rows: Vec<_> =
            (0..200).map(|n| put(Table::Health, &format!("key {n}"), Some(&"v".repeat(n)))).collect();
        store.write(rows.iter()).unwrap();
        store
    }

    #[test]
    fn rows_stay_and_belong_to_their_owner() {
        let scratch = Scratch::new();
        let folder = scratch.path().join("state");
        let store = Store::new(&folder);
        assert_eq!(store.open().unwrap(), Opened::Empty);
        assert_eq!(all(&store, Table::Health).unwrap(), BTreeMap::new());
        let rows = [put(Table::Health, "a", Some("1")), put(Table::Sessions, "a", Some("2"))];
        store.write(rows.iter()).unwrap();
        store.write([put(Table::Health, "a", None), put(Table::Health, "b", Some("3"))].iter()).unwrap();
        let other = Store::new(&folder);
        assert!(matches!(other.open(), Err(StoreError::Taken)));
        store.close();
        assert!(matches!(all(&store, Table::Health), Err(StoreError::Disk(_))));
        assert_eq!(other.open().unwrap(), Opened::Now);
        assert_eq!(all(&other, Table::Health).unwrap(), BTreeMap::from([("b".into(), "3".into())]));
        assert_eq!(all(&other, Table::Sessions).unwrap(), BTreeMap::from([("a".into(), "2".into())]));
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(other.file())), (0o700, 0o600));
        let size = other.file().metadata().unwrap().len();
        assert!(size < 4 << 20, "{size}");
    }

    #[test]
    fn p45_a_broken_file_is_moved_aside_and_a_new_one_begins() {
        let scratch = Scratch::new();
        filled(scratch.path()).close();
        let file = scratch.path().join(FILE);
        let good = std::fs::read(&file).unwrap();
        let mut broken: Vec<Vec<u8>> = vec![b"x".to_vec(), b"not a store".repeat(100_000), vec![0; 100_000]];
        broken.extend([1, 9, 64, 320, 4096, 5000, good.len() / 2].map(|end| good[..end].to_vec()));
        // Bytes of the head, and of pages all over the file.
        for at in (0..256).step_by(7).chain((256..good.len()).step_by(good.len() / 60)) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x55;
            broken.push(bytes);
        }
        let mut aside = 0;
        for bytes in broken {
            std::fs::write(&file, &bytes).unwrap();
            let store = Store::new(scratch.path());
            // At the second try there is a new one, or the old one without damage.
            let usable = (0..2).any(|_| {
                let open = store.open().is_ok() && all(&store, Table::Health).is_ok();
                open && store.write([put(Table::Health, "new", Some("1"))].iter()).is_ok()
            });
            assert!(usable, "{} bytes", bytes.len());
            let rows = all(&store, Table::Health).unwrap();
            assert!(rows.len() == 1 || rows.len() == 201, "all rows or none: {}", rows.len());
            aside += usize::from(rows.len() == 1);
        }
        assert!(aside >= 10, "{aside}");
        assert!(scratch.path().join("cliproxy.redb.broken").is_file());
        let left = std::fs::read_dir(scratch.path()).unwrap().count();
        assert_eq!(left, 2, "broken ones do not pile up");
    }
}
