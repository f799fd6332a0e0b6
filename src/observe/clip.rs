//! The beginning of a body, kept for a request log.
//!
//! Enters: bytes as they pass. Leaves: the first of them, and how many were left out. May go wrong: too much is
//! held by all requests together ([`MOST`]); then bytes are left out and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most bytes that all clips hold together, those that wait to be written included.
const MOST: usize = 64 << 20;

/// How much all clips hold.
#[derive(Debug, Default)]
pub struct Held(AtomicUsize);

impl Held {
    fn take(&self, bytes: usize) -> bool {
        let add = |held: usize| held.checked_add(bytes).filter(|held| *held <= MOST);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// Bytes that are held now.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The beginning of a body.
#[derive(Debug)]
pub struct Clip {
    bytes: Vec<u8>,
    omitted: u64,
    most: usize,
    held: Arc<Held>,
}

impl Clip {
    /// Nothing yet; holds `most` bytes at last.
    pub fn new(held: &Arc<Held>, most: usize) -> Self {
        Self { bytes: Vec::new(), omitted: 0, most, held: Arc::clone(held) }
    }

    /// The beginning of a whole body.
    pub fn of(body: &[u8], held: &Arc<Held>, most: usize) -> Self {
        let mut clip = Self::new(held, most);
        clip.push(body);
        clip
    }

    /// More of the body. What does not fit is counted.
    pub fn push(&mut self, bytes: &[u8]) {
        // What follows a gap belongs nowhere.
        let room = if self.omitted == 0 { self.most.saturating_sub(self.bytes.len()) } else { 0 };
        let (kept, rest) = bytes.split_at(room.min(bytes.len()));
        if self.held.take(kept.len()) {
            self.bytes.extend_from_slice(kept);
            self.omitted += rest.len() as u64;
        } else {
            self.omitted += bytes.len() as u64;
        }
    }

    /// The clip, with an empty one in its place.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let empty = Self::new(&self.held, self.most);
        std::mem::replace(self, empty)
    }

    /// What is there.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes that were left out.
    pub fn omitted(&self) -> u64 {
        self.omitted
    }
}

impl Drop for Clip {
    fn drop(&mut self) {
        self.held.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clip_keeps_the_beginning_and_counts_the_rest() {
        let held = Arc::new(Held::default());
        let mut clip = Clip::new(&held, 5);
        for part in ["abc", "", "defg", "h"] {
            clip.push(part.as_bytes());
        }
        assert_eq!((clip.bytes(), clip.omitted(), held.bytes()), (&b"abcde"[..], 3, 5));
        drop(clip);
        assert_eq!(held.bytes(), 0);
    }

    #[test]
    fn all_clips_together_are_bounded() {
        let held = Arc::new(Held::default());
        let body = vec![0; MOST / 2 + 1];
        let first = Clip::of(&body, &held, usize::MAX);
        let mut second = Clip::of(&body, &held, usize::MAX);
        assert_eq!((second.bytes().len(), second.omitted()), (0, body.len() as u64));
        drop(first);
        second.push(b"x");
        assert_eq!((second.bytes().len(), held.bytes()), (0, 0), "what follows a gap is left out");
    }
}
