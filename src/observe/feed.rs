//! The last requests that ended, for those who watch and those who count.
//!
//! Enters: the facts of each request when it is over, by move: the data path allocates one [`Entry`] and waits for
//! nobody, because the lock is held for a few words. Leaves: the newest entries by number, totals since the start,
//! and a queue that is emptied by whoever fetches it. Nothing may go wrong: ring and queue are bounded, and so are
//! the texts of an entry, whatever a client sends.

use super::request::Facts;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// Entries that stay for those who come late.
const RING: usize = 1024;
/// Most entries that wait to be fetched; the oldest go first.
const QUEUE: usize = 10_000;
/// Old entries that one request takes out of the queue: what is over leaves faster than it came, and no request
/// pays for all of them.
const SWEEP: usize = 2;
/// Longest text of an entry in bytes.
const TEXT: usize = 512;

/// A request that is over.
#[derive(Debug)]
pub struct Entry {
    /// When it ended, in milliseconds since 1970.
    pub at_ms: u64,
    /// With whose key it came; `None` where none is needed or none was right.
    pub key: Option<ClientKey>,
    /// All else.
    pub facts: Facts,
}

/// A client key without the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKey {
    /// What people call it.
    pub name: Arc<str>,
    /// What may be shown of it.
    pub masked: Arc<str>,
}

/// Sums since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests that ended.
    pub requests: u64,
    /// Of these, answered with an error or broken off by the upstream.
    pub errors: u64,
    /// Tokens of the requests.
    pub input_tokens: u64,
    /// Tokens of the answers.
    pub output_tokens: u64,
}

/// Entries behind a number.
#[derive(Debug, Default)]
pub struct Page {
    /// They, each with its number.
    pub entries: Vec<(u64, Arc<Entry>)>,
    /// How many before them were left out.
    pub skipped: u64,
    /// The number of the newest.
    pub last: u64,
}

/// The feed.
#[derive(Debug, Default)]
pub struct Feed {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The number of the newest entry; they have no gaps.
    last: u64,
    ring: VecDeque<Arc<Entry>>,
    queue: VecDeque<Arc<Entry>>,
    totals: Totals,
}

impl Entry {
    /// An entry whose texts are short.
    pub fn new(mut facts: Facts, key: Option<ClientKey>, at_ms: u64) -> Self {
        for text in [
            &mut facts.request_id,
            &mut facts.client_ip,
            &mut facts.user_agent,
            &mut facts.method,
            &mut facts.path,
            &mut facts.model,
            &mut facts.resolved,
            &mut facts.provider,
            &mut facts.credential,
            &mut facts.losses,
            &mut facts.error,
        ] {
            if text.capacity() > TEXT {
                // A copy: cutting a text off leaves its memory.
                *text = text.get(..text.floor_char_boundary(TEXT)).unwrap_or_default().to_owned();
            }
        }
        Self { at_ms, key, facts }
    }

    /// Whether it was answered with an error or broken off by the upstream.
    pub fn is_error(&self) -> bool {
        self.facts.status >= 400 && self.facts.status != 499
    }
}

impl Feed {
    /// Takes a request down. `wanted_ms`: for how long it waits to be fetched; `None`: nobody fetches.
    pub fn push(&self, entry: Entry, wanted_ms: Option<u64>) {
        let entry = Arc::new(entry);
        let facts = &entry.facts;
        let mut over: [Option<Arc<Entry>>; SWEEP + 2] = Default::default();
        let mut slots = over.iter_mut();
        let mut inner = self.inner.lock();
        let Inner { last, ring, queue, totals } = &mut *inner;
        *last += 1;
        totals.requests += 1;
        totals.errors += u64::from(entry.is_error());
        totals.input_tokens = totals.input_tokens.saturating_add(facts.usage.prompt());
        totals.output_tokens = totals.output_tokens.saturating_add(facts.usage.output.unwrap_or(0));
        if ring.len() >= RING
            && let Some(slot) = slots.next()
        {
            *slot = ring.pop_front();
        }
        if let Some(wanted_ms) = wanted_ms {
            let full = queue.len() >= QUEUE;
            let oldest = entry.at_ms.saturating_sub(wanted_ms);
            for (n, slot) in slots.enumerate() {
                let due = n == 0 && full || queue.front().is_some_and(|front| front.at_ms < oldest);
                if !due {
                    break;
                }
                *slot = queue.pop_front();
            }
            queue.push_back(Arc::clone(&entry));
        }
        ring.push_back(entry);
        drop(inner);
        // What left is freed without the lock.
        drop(over);
    }

    /// The newest entries, at most `most`, of those behind number `seen`.
    pub fn since(&self, seen: u64, most: usize) -> Page {
        let inner = self.inner.lock();
        let new = inner.last.saturating_sub(seen);
        let count = (new as usize).min(most).min(inner.ring.len());
        let first = inner.last - count as u64 + 1;
        let entries = inner.ring.iter().skip(inner.ring.len() - count).cloned();
        let entries = (first..).zip(entries).collect();
        Page { entries, skipped: new - count as u64, last: inner.last }
    }

    /// Takes the oldest of those that wait to be fetched. `wanted_ms` as in [`Self::push`].
    pub fn pop(&self, most: usize, now_ms: u64, wanted_ms: Option<u64>) -> Vec<Arc<Entry>> {
        let mut inner = self.inner.lock();
        let Some(wanted_ms) = wanted_ms else {
            let unwanted = std::mem::take(&mut inner.queue);
            drop(inner);
            drop(unwanted);
            return Vec::new();
        };
        let oldest = now_ms.saturating_sub(wanted_ms);
        let over = inner.queue.partition_point(|entry| entry.at_ms < oldest);
        let late: Vec<_> = inner.queue.drain(..over).collect();
        let count = most.min(inner.queue.len());
        let taken = inner.queue.drain(..count).collect();
        drop(inner);
        drop(late);
        taken
    }

    /// The sums.
    pub fn totals(&self) -> Totals {
        self.inner.lock().totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::ir::Usage;

    fn entry(model: &str, status: u16, at_ms: u64) -> Entry {
        let usage = Usage { input: Some(3), output: Some(2), ..Usage::default() };
        Entry::new(Facts { model: model.to_owned(), status, usage, ..Facts::default() }, None, at_ms)
    }

    fn models<'e>(entries: impl Iterator<Item = &'e Arc<Entry>>) -> Vec<String> {
        entries.map(|entry| entry.facts.model.clone()).collect()
    }

    #[test]
    fn the_newest_are_found_by_number_and_what_is_left_out_is_counted() {
        let feed = Feed::default();
        assert_eq!(feed.since(0, 9).last, 0);
        for n in 1..=5_u64 {
            feed.push(entry(&n.to_string(), if n == 5 { 503 } else { 200 }, n), None);
        }
        let page = feed.since(2, 2);
        assert_eq!((page.skipped, page.last), (1, 5));
        assert_eq!(page.entries.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(models(page.entries.iter().map(|(_, entry)| entry)), ["4", "5"]);
        assert!(feed.since(5, 9).entries.is_empty() && feed.since(9, 9).entries.is_empty());
        assert_eq!(feed.totals(), Totals { requests: 5, errors: 1, input_tokens: 15, output_tokens: 10 });
        for n in 0..RING as u64 * 2 {
            feed.push(entry("x", 200, n), None);
        }
        let all = feed.since(0, usize::MAX);
        assert_eq!(all.entries.len(), RING);
        assert_eq!(all.skipped, 5 + RING as u64);
        assert!(feed.pop(9, 0, Some(1000)).is_empty(), "nobody wanted them");
    }

    #[test]
    fn what_waits_is_taken_once_oldest_first_and_not_for_ever() {
        let feed = Feed::default();
        for n in 0..5_u64 {
            feed.push(entry(&n.to_string(), 200, n * 100), Some(1000));
        }
        assert_eq!(models(feed.pop(2, 400, Some(1000)).iter()), ["0", "1"]);
        assert_eq!(models(feed.pop(9, 1350, Some(1000)).iter()), ["4"], "two were there too long");
        assert!(feed.pop(9, 1350, Some(1000)).is_empty());
        for n in 0..QUEUE as u64 + 7 {
            feed.push(entry("x", 200, 2000 + n), Some(60_000));
        }
        assert_eq!(feed.inner.lock().queue.len(), QUEUE);
        assert_eq!(feed.pop(1, 2000, Some(60_000))[0].at_ms, 2007, "the oldest went");
        assert!(feed.pop(9, 2000, None).is_empty() && feed.inner.lock().queue.is_empty());
    }

    #[test]
    fn a_queue_that_is_over_empties_itself_while_requests_come() {
        let feed = Feed::default();
        for n in 0..100_u64 {
            feed.push(entry("old", 200, n), Some(1000));
        }
        for n in 0..100_u64 {
            feed.push(entry("new", 200, 50_000 + n), Some(1000));
        }
        assert_eq!(feed.inner.lock().queue.len(), 100);
    }

    #[test]
    fn p65_texts_of_clients_are_cut() {
        let facts =
            Facts { model: "\u{1f600}".repeat(5_000_000), error: "e".repeat(9999), ..Facts::default() };
        let entry = Entry::new(facts, None, 0);
        assert_eq!(entry.facts.model.chars().count(), TEXT / 4);
        assert!(entry.facts.model.capacity() <= TEXT && entry.facts.error.capacity() <= TEXT);
    }
}
