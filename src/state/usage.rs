//! Usage, kept over a restart.
//!
//! Enters: the rows of the ledger, the store. Leaves: rows by the hour in the store, about every second, and
//! answers over both. May go wrong: there is no store, or it cannot be used now; then the rows stay in memory
//! and are written later. What a crash may lose is what came since the last batch.

use super::State;
use super::store::{Row, Store, StoreError, Table};
use crate::observe::providers::Span;
use crate::observe::usage::query::{Group, Query};
use crate::observe::usage::{Key, Sums};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Hours that are kept: half a year.
const KEPT_HOURS: u32 = 24 * 183;
/// Hours that alerts compare with.
const BASELINE_HOURS: u32 = 24;

/// What is known of the rows in the store.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The rows of the hours in memory were taken up.
    recalled: AtomicBool,
    /// The hour at which old rows were removed last.
    swept: AtomicU32,
}

/// A row for export and import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRow {
    /// What it is about.
    #[serde(flatten)]
    pub key: Key,
    /// Its sums.
    #[serde(flatten)]
    pub sums: Sums,
}

/// The names of a key, as they stand in the store.
type Names<'a> = [&'a str; 4];

fn place(key: &Key) -> Vec<u8> {
    let names: Names<'_> = [&key.client_key, &key.credential, &key.provider, &key.model];
    let mut place = key.hour.to_be_bytes().to_vec();
    // Texts always have a JSON form.
    place.extend(serde_json::to_vec(&names).unwrap_or_default());
    place
}

fn read(place: &[u8], value: &[u8]) -> Option<(Key, Sums)> {
    let (hour, names) = place.split_first_chunk::<4>()?;
    let [client_key, credential, provider, model]: [Arc<str>; 4] = serde_json::from_slice(names).ok()?;
    let key = Key { hour: u32::from_be_bytes(*hour), client_key, credential, provider, model };
    Some((key, serde_json::from_slice(value).ok()?))
}

fn row(key: &Key, sums: &Sums) -> Row {
    Row { table: Table::Usage, key: place(key), value: serde_json::to_vec(sums).ok() }
}

/// Removals of rows that are too old; looked for once an hour.
fn old_usage(store: &Store, swept: u32, hour: u32) -> Result<Vec<Row>, StoreError> {
    let mut old = Vec::new();
    if swept == hour {
        return Ok(old);
    }
    let oldest = hour.saturating_sub(KEPT_HOURS).to_be_bytes();
    store.read(Table::Usage, &mut |place, _| {
        if place.get(..4).is_none_or(|hour| hour < oldest.as_slice()) {
            old.push(Row { table: Table::Usage, key: place.to_vec(), value: None });
        }
    })?;
    Ok(old)
}

impl State {
    /// Writes the rows that changed. Waits for the disk.
    pub(super) fn keep_usage(&self, store: &Store) -> Result<(), StoreError> {
        let hour = (self.now().wall_s / 3600) as u32;
        if !self.usage_kept.recalled.load(Ordering::Acquire) {
            self.recall_usage(store, hour)?;
        }
        let changed = self.usage.take_changed(hour);
        let mut rows: Vec<Row> = changed.iter().map(|(key, sums)| row(key, sums)).collect();
        let swept = self.usage_kept.swept.load(Ordering::Relaxed);
        let written = old_usage(store, swept, hour).and_then(|old| {
            rows.extend(old);
            if rows.is_empty() { Ok(()) } else { store.write(rows.iter()) }
        });
        match written {
            Ok(()) => self.usage_kept.swept.store(hour, Ordering::Relaxed),
            Err(_) => self.usage.give_back(&changed),
        }
        written
    }

    /// Goes on with the rows of the hours that are in memory: this process counts on where another one ended.
    /// Rows of the last day tell alerts how much models used to think.
    fn recall_usage(&self, store: &Store, hour: u32) -> Result<(), StoreError> {
        let first = self.usage.rows().iter().map(|(key, _)| key.hour).min().unwrap_or(hour).min(hour);
        let yesterday = first.min(hour.saturating_sub(BASELINE_HOURS));
        let mut found = Vec::new();
        store.read(Table::Usage, &mut |place, value| {
            found.extend(read(place, value).filter(|(key, _)| key.hour >= yesterday));
        })?;
        for (key, sums) in found {
            let answers = sums.requests.saturating_sub(sums.errors).saturating_sub(sums.usage_missing);
            let reasoning = Span::new(sums.reasoning_tokens, answers);
            self.providers.recall(&key.provider, &key.model, key.hour.into(), reasoning);
            if key.hour >= first {
                self.usage.restore(key, &sums);
            }
        }
        self.usage_kept.recalled.store(true, Ordering::Release);
        Ok(())
    }

    /// All rows, those in memory as they are now. The error says why the store cannot be read.
    fn all_usage(&self) -> Result<BTreeMap<Key, Sums>, StoreError> {
        let mut rows = BTreeMap::new();
        if let Some(store) = self.store() {
            store.open()?;
            store.read(Table::Usage, &mut |place, value| rows.extend(read(place, value)))?;
        }
        rows.extend(self.usage.rows());
        Ok(rows)
    }

    /// Answers a question about usage. Waits for the disk.
    pub fn ask_usage(&self, query: &Query) -> Result<Vec<Group>, String> {
        let rows = self.all_usage().map_err(|e| e.to_string())?;
        Ok(query.sum(rows.iter()))
    }

    /// All rows, for another process. Waits for the disk.
    pub fn export_usage(&self) -> Result<Vec<UsageRow>, String> {
        let rows = self.all_usage().map_err(|e| e.to_string())?;
        Ok(rows.into_iter().map(|(key, sums)| UsageRow { key, sums }).collect())
    }

    /// Takes rows of another process; those that are here already stay as they are, so that nothing counts
    /// twice. How many were taken. Waits for the disk.
    pub fn import_usage(&self, rows: &[UsageRow]) -> Result<usize, String> {
        let store = self.store().ok_or("without a configuration file nothing is kept")?;
        let known = self.all_usage().map_err(|e| e.to_string())?;
        let mut seen = HashSet::new();
        let new: Vec<Row> = rows
            .iter()
            .filter(|row| !known.contains_key(&row.key) && seen.insert(&row.key))
            .map(|given| row(&given.key, &given.sums))
            .collect();
        store.write(new.iter()).map_err(|e| e.to_string())?;
        Ok(new.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::usage::About;
    use crate::state::accounts::Accounts;
    use testkit::scratch::Scratch;

    fn state(scratch: &Scratch) -> State {
        let config = config::load(b"api-keys: [k]\n").unwrap().config;
        let state = State::new(config, Accounts::default()).unwrap().0;
        state.keep_in(&scratch.path().join("state"));
        state
    }

    fn add(state: &State, hour: u32, model: &str) {
        let about = About { hour, client_key: "k", credential: "c", provider: "p", model };
        state.usage.add(&about, &Sums { requests: 1, ..Sums::default() });
    }

    fn total(state: &State) -> u64 {
        state.ask_usage(&Query::default()).unwrap().iter().map(|group| group.sums.requests).sum()
    }

    #[test]
    fn p48_counting_goes_on_after_a_restart_and_loses_nothing_that_was_written() {
        let scratch = Scratch::new();
        let first = state(&scratch);
        let hour = (first.now().wall_s / 3600) as u32;
        (0..5).for_each(|_| add(&first, hour, "m"));
        add(&first, hour - 7, "m");
        first.keep_learnt();
        add(&first, hour, "m");
        assert_eq!(total(&first), 7, "what is not written yet counts");
        first.release_learnt();
        drop(first);
        let second = state(&scratch);
        add(&second, hour, "m");
        second.keep_learnt();
        assert_eq!(total(&second), 8);
        assert!(
            second.usage.rows().iter().all(|(key, _)| key.hour >= hour),
            "old hours are in the store only"
        );
        assert_eq!(total(&second), 8);
    }

    #[test]
    fn rows_of_another_process_are_taken_once() {
        let (one, two) = (Scratch::new(), Scratch::new());
        let (from, to) = (state(&one), state(&two));
        add(&from, 490_000, "m");
        add(&from, 490_001, "n");
        add(&to, 490_001, "n");
        to.keep_learnt();
        let rows = from.export_usage().unwrap();
        assert_eq!(to.import_usage(&rows).unwrap(), 1);
        assert_eq!(to.import_usage(&rows).unwrap(), 0);
        assert_eq!(total(&to), 2);
        let text = serde_json::to_string(&rows).unwrap();
        assert_eq!(serde_json::from_str::<Vec<UsageRow>>(&text).unwrap(), rows);
    }

    #[test]
    fn rows_leave_after_half_a_year() {
        let scratch = Scratch::new();
        let state = state(&scratch);
        let hour = (state.now().wall_s / 3600) as u32;
        state
            .store()
            .unwrap()
            .write(
                [row(
                    &About {
                        hour: hour - KEPT_HOURS - 1,
                        client_key: "",
                        credential: "",
                        provider: "",
                        model: "",
                    }
                    .key(),
                    &Sums { requests: 9, ..Sums::default() },
                )]
                .iter(),
            )
            .unwrap();
        state.usage_kept.swept.store(0, Ordering::Relaxed);
        assert_eq!(total(&state), 9);
        state.keep_learnt();
        assert_eq!(total(&state), 0);
    }
}
