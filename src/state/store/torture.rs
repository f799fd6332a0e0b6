//! A process that dies, or a machine that loses its power, at each write of the store.

use super::*;
use redb::StorageBackend;
use std::collections::BTreeSet;

/// A disk in memory. After `left` calls that change it the process is dead: nothing reaches it any more.
#[derive(Clone, Debug)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug)]
struct Platter {
    /// What a reader sees: the page cache.
    bytes: Vec<u8>,
    /// What is safe from a loss of power.
    synced: Vec<u8>,
    /// What was changed since: place and bytes; none: the length.
    unsynced: Vec<(u64, Option<Vec<u8>>)>,
    left: usize,
    calls: usize,
}

impl Disk {
    fn of(bytes: Vec<u8>, left: usize) -> Self {
        let synced = bytes.clone();
        Self(Arc::new(Mutex::new(Platter { bytes, synced, unsynced: Vec::new(), left, calls: 0 })))
    }

    /// What is found after the process was killed.
    fn killed(&self) -> Vec<u8> {
        self.0.lock().bytes.clone()
    }

    /// What is found after the power was lost: of what was not synced some reached the disk and some did not.
    fn unpowered(&self, seed: u64) -> Vec<u8> {
        let platter = self.0.lock();
        let mut bytes = platter.synced.clone();
        for (n, change) in platter.unsynced.iter().enumerate() {
            if digest(seed, n).is_multiple_of(2) {
                apply(&mut bytes, change);
            }
        }
        bytes
    }
}

fn digest(seed: u64, n: usize) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (seed, n).hash(&mut hasher);
    hasher.finish()
}

fn apply(bytes: &mut Vec<u8>, (at, data): &(u64, Option<Vec<u8>>)) {
    match data {
        None => bytes.resize(*at as usize, 0),
        Some(data) => {
            let (begin, end) = (*at as usize, *at as usize + data.len());
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[begin..end].copy_from_slice(data);
        }
    }
}

impl Platter {
    /// Whether the process still lives when it makes this call.
    fn lives(&mut self) -> io::Result<()> {
        if self.calls >= self.left {
            return Err(io::Error::other("the process is dead"));
        }
        self.calls += 1;
        Ok(())
    }

    fn change(&mut self, at: u64, data: Option<Vec<u8>>) -> io::Result<()> {
        self.lives()?;
        let change = (at, data);
        apply(&mut self.bytes, &change);
        self.unsynced.push(change);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.0.lock();
        let from = platter.bytes.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().change(len, None)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.0.lock();
        platter.lives()?;
        platter.synced = platter.bytes.clone();
        platter.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().change(offset, Some(data.to_vec()))
    }
}

/// A batch that replaces all rows by those of one generation.
fn batch(generation: u8) -> Vec<Row> {
    let row = |n: u32| Row {
        table: if n.is_multiple_of(2) { Table::Health } else { Table::Sessions },
        key: n.to_be_bytes().to_vec(),
        value: Some(vec![generation; 40 + n as usize]),
    };
    (0..120).map(row).collect()
}

/// The generation of all rows. They never differ.
fn generation(bytes: Vec<u8>) -> Option<u8> {
    let database = Builder::new().create_with_backend(Disk::of(bytes, usize::MAX)).unwrap();
    let (mut found, mut count) = (BTreeSet::new(), 0);
    for table in [Table::Health, Table::Sessions] {
        read(&database, table, &mut |_, value| {
            found.extend(value);
            count += 1;
        })
        .unwrap();
    }
    assert!(found.len() <= 1 && (count == 0 || count == 120), "torn: {found:?}, {count} rows");
    write(&database, batch(9).iter()).unwrap();
    found.pop_first()
}

#[test]
fn p44_killed_or_without_power_at_any_write_it_holds_the_old_or_the_new_batch() {
    let disk = Disk::of(Vec::new(), usize::MAX);
    let database = Builder::new().create_with_backend(disk.clone()).unwrap();
    write(&database, batch(1).iter()).unwrap();
    drop(database);
    let before = disk.killed();
    let (mut old, mut new) = (0, 0);
    for left in 0.. {
        let disk = Disk::of(before.clone(), left);
        let opened = Builder::new().create_with_backend(disk.clone());
        let written = opened.map_err(StoreError::from).and_then(|database| {
            let written = write(&database, batch(2).iter());
            // A process that is killed does not see its end.
            let _ = std::mem::ManuallyDrop::new(database);
            written
        });
        let finished = written.is_ok();
        let killed = generation(disk.killed());
        assert!(
            if finished { killed == Some(2) } else { matches!(killed, Some(1 | 2)) },
            "{left}: {killed:?}"
        );
        for seed in 0..8 {
            let unpowered = generation(disk.unpowered(seed));
            assert!(
                if finished { unpowered == Some(2) } else { matches!(unpowered, Some(1 | 2)) },
                "{left}: {unpowered:?}"
            );
        }
        old += usize::from(killed == Some(1));
        new += usize::from(killed == Some(2));
        if finished {
            break;
        }
    }
    assert!(old > 5 && new > 0, "{old} old, {new} new");
}
