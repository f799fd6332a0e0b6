//! The time in which bodies are written down.
//!
//! Enters: an operator's wish for so many minutes and requests, of one model or client key if he likes. Leaves:
//! whether the bodies of a request are wanted. It ends by itself, is in memory only, and is told in the log when
//! it begins and ends. Nothing may go wrong.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wildmatch::WildMatch;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// For how long.
    pub time: Duration,
    /// How many requests.
    pub requests: u64,
    /// Which models, as clients name them; `*` stands for anything, case does not matter.
    pub model: Option<String>,
    /// Which client key, by what people call it.
    pub client_key: Option<String>,
}

/// What is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Seconds.
    pub seconds: u64,
    /// Requests.
    pub requests: u64,
    /// Requests that were taken.
    pub captured: u64,
    /// Which models.
    pub model: Option<String>,
    /// Which client key.
    pub client_key: Option<String>,
}

/// Whether bodies are wanted now.
#[derive(Debug, Default)]
pub struct BodyCapture {
    /// The same as whether there is a window; read without a lock.
    on: AtomicBool,
    window: Mutex<Option<Window>>,
}

#[derive(Debug)]
struct Window {
    until: Instant,
    captured: u64,
    wish: Wish,
    model: Option<WildMatch>,
}

impl BodyCapture {
    /// Begins. One that runs is over.
    pub fn begin(&self, wish: Wish, now: Instant) {
        tracing::warn!(
            seconds = wish.time.as_secs(),
            requests = wish.requests,
            model = wish.model.as_deref().unwrap_or("*"),
            client_key = wish.client_key.as_deref().unwrap_or("*"),
            "body capture begins: requests and answers are written to the log folder"
        );
        let model = wish.model.as_deref().map(WildMatch::new_case_insensitive);
        *self.window.lock() = Some(Window { until: now + wish.time, captured: 0, wish, model });
        self.on.store(true, Ordering::Relaxed);
    }

    /// Ends; `false`: there was none.
    pub fn end(&self) -> bool {
        self.close(&mut self.window.lock(), "as the operator wanted")
    }

    fn close(&self, window: &mut Option<Window>, why: &str) -> bool {
        let Some(window) = window.take() else { return false };
        self.on.store(false, Ordering::Relaxed);
        tracing::warn!(captured = window.captured, "body capture ends: {why}");
        true
    }

    /// Ends it when its time is over.
    pub fn look(&self, now: Instant) {
        if !self.on.load(Ordering::Relaxed) {
            return;
        }
        let mut window = self.window.lock();
        if window.as_ref().is_some_and(|window| now >= window.until) {
            self.close(&mut window, "its time is over");
        }
    }

    /// Whether the bodies of a request are wanted; then it is one of those that were asked for.
    pub fn takes(&self, model: &str, client_key: &str) -> bool {
        // Almost always.
        if !self.on.load(Ordering::Relaxed) {
            return false;
        }
        self.look(Instant::now());
        let mut place = self.window.lock();
        let Some(window) = place.as_mut() else { return false };
        let fits = window.model.as_ref().is_none_or(|pattern| pattern.matches(model))
            && window.wish.client_key.as_ref().is_none_or(|key| key == client_key);
        if !fits {
            return false;
        }
        window.captured += 1;
        if window.captured >= window.wish.requests {
            self.close(&mut place, "as many requests as were wanted have come");
        }
        true
    }

    /// What is left; `None`: it does not run.
    pub fn left(&self, now: Instant) -> Option<Left> {
        self.look(now);
        let window = self.window.lock();
        window.as_ref().map(|window| Left {
            seconds: (window.until - now).as_secs_f64().ceil() as u64,
            requests: window.wish.requests - window.captured,
            captured: window.captured,
            model: window.wish.model.clone(),
            client_key: window.wish.client_key.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(requests: u64) -> Wish {
        Wish { time: Duration::from_mins(1), requests, model: None, client_key: None }
    }

    #[test]
    fn it_ends_with_its_time() {
        let capture = BodyCapture::default();
        let now = Instant::now();
        assert!(capture.left(now).is_none() && !capture.takes("m", "k"));
        capture.begin(wish(9), now);
        assert_eq!(capture.left(now).unwrap().seconds, 60);
        capture.look(now + Duration::from_secs(59));
        assert_eq!(capture.left(now + Duration::from_secs(59)).unwrap().seconds, 1);
        capture.look(now + Duration::from_mins(1));
        assert!(capture.left(now).is_none() && !capture.end());
    }

    #[test]
    fn it_ends_with_its_requests_and_takes_only_those_that_are_meant() {
        let capture = BodyCapture::default();
        let now = Instant::now();
        let only = Wish { model: Some("GPT-*".into()), client_key: Some("ada".into()), ..wish(2) };
        capture.begin(only, now);
        let taken: Vec<bool> = [("gpt-5", "bob"), ("claude", "ada"), ("gpt-5", "ada")]
            .map(|(model, key)| capture.takes(model, key))
            .to_vec();
        assert_eq!(taken, [false, false, true]);
        let left = capture.left(now).unwrap();
        assert_eq!((left.requests, left.captured), (1, 1));
        assert!(capture.takes("gpt-5-mini", "ada") && !capture.takes("gpt-5", "ada"));
        assert!(capture.left(now).is_none());
        capture.begin(wish(1), now);
        assert!(capture.end() && !capture.takes("m", "k"));
    }
}
