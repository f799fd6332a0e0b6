//! The waiting room: requests that nobody can serve now, in the order in which they came.
//!
//! Enters: requests, by the model they wait for; signals that somebody may serve. Leaves: a call to one
//! request at a time and model, to look again; metrics. May go wrong: the room is full.
//!
//! A signal calls the first in line. If it finds somebody to serve it, it leaves and the next is called, as
//! there may be room for more; if not, it passes the call on, for what came free may be of use to another (who
//! has tried less). So the first that can be served is, and one free slot wakes few, however many wait. Rests
//! end by the clock: everyone in line knows the time from its own look and calls the line when it comes.

use crate::observe::metrics::Waits;
use config::Waiting;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Requests that look after one signal without success before it counts as used.
const LOOKS: u32 = 16;
/// Variable with the longest wait in milliseconds.
const WAIT_MS: &str = "MAX_WAIT_BEFORE_ERROR_MS";
/// Variable that makes requests wait as long as can be.
const INFINITE_MODE: &str = "INFINITE_RETRY_MODE";
/// Longest wait of all.
const INFINITE: Duration = Duration::from_hours(1);
/// Longest wait for a credential that is at its limit or being tested, where nothing is configured: a test by
/// another request ends with its first byte.
const BUSY: Duration = Duration::from_secs(10);

/// How long requests may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For somebody who serves when a request of another ends.
    pub busy: Duration,
    /// For the end of a rest.
    pub resting: Duration,
    /// Most requests that wait at once.
    pub most: usize,
}

impl Limits {
    /// What the configuration says; variables of the environment (by `variable`) come first.
    pub fn new(config: &Waiting, variable: impl Fn(&str) -> Option<String>) -> Self {
        let wait_ms = variable(WAIT_MS)
            .and_then(|text| text.trim().parse::<u64>().ok())
            .or_else(|| config.max_wait_before_error_ms.map(u64::from));
        let said = variable(INFINITE_MODE).and_then(|text| truth(&text));
        let infinite = said.unwrap_or(config.infinite_retry_mode);
        let (busy, resting) = match wait_ms {
            _ if infinite => (INFINITE, INFINITE),
            Some(wait_ms) => {
                let wait = Duration::from_millis(wait_ms).min(INFINITE);
                (wait, wait)
            }
            None => (BUSY, Duration::ZERO),
        };
        Self { busy, resting, most: config.max_requests as usize }
    }

    /// With the variables of this process.
    pub fn of_process(config: &Waiting) -> Self {
        Self::new(config, variable)
    }
}

/// A variable of this process.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What is wrong with the variables, one sentence each; such a variable is ignored.
pub fn misread(variable: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let set = |name| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let mut told = Vec::new();
    if set(WAIT_MS).is_some_and(|text| text.parse::<u64>().is_err()) {
        told.push(format!("{WAIT_MS} is ignored: it is no number of milliseconds"));
    }
    if set(INFINITE_MODE).is_some_and(|text| truth(&text).is_none()) {
        told.push(format!("{INFINITE_MODE} is ignored: it is neither true nor false"));
    }
    told
}

fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Longest time from a call to the look; who takes longer is busy with its client, and the next is called.
const STALE: Duration = Duration::from_millis(250);

/// The room.
#[derive(Debug)]
pub struct WaitingRoom {
    lines: Mutex<HashMap<Arc<str>, Line>>,
    /// Requests in the room.
    inside: AtomicUsize,
    next: AtomicU64,
    metrics: Waits,
}

/// Those who wait for one model, by the order in which they came.
#[derive(Debug, Default)]
struct Line {
    waiting: BTreeMap<u64, Arc<Notify>>,
    /// Who is called and has not looked yet, and since when.
    called: Option<(u64, Instant)>,
    /// Looks that are left for this signal.
    looks: u32,
    /// Another signal came meanwhile.
    again: bool,
}

impl Line {
    /// Calls the first one.
    fn call_first(&mut self) {
        let first = self.waiting.iter().next();
        self.looks = LOOKS;
        self.called = first.map(ring);
    }

    /// Who is called and will look at once.
    fn called(&self) -> Option<u64> {
        self.called.filter(|(_, since)| since.elapsed() < STALE).map(|(number, _)| number)
    }

    /// Calls the first one, or says to those who are looking that there is more.
    fn call(&mut self) {
        match self.called {
            Some(_) if self.called().is_some() => self.again = true,
            Some((late, _)) => {
                self.again = true;
                self.pass(late);
            }
            None => self.call_first(),
        }
    }

    /// The called one has found nothing, or is gone: calls the one after it.
    fn pass(&mut self, number: u64) {
        if self.called.is_none_or(|(called, _)| called != number) {
            return;
        }
        self.looks = self.looks.saturating_sub(1);
        let next = self.waiting.range(number.saturating_add(1)..).next().filter(|_| self.looks > 0);
        self.called = next.map(ring);
        if self.called.is_none() && std::mem::take(&mut self.again) {
            self.call_first();
        }
    }
}

fn ring((number, bell): (&u64, &Arc<Notify>)) -> (u64, Instant) {
    bell.notify_one();
    (*number, Instant::now())
}

/// Why a place is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Somebody serves, or the next round begins.
    Served,
    /// The longest wait is over.
    Expired,
    /// The client has left.
    Gone,
}

impl Leave {
    fn name(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Expired => "expired",
            Self::Gone => "gone",
        }
    }
}

/// A place in the room, given up when dropped.
#[derive(Debug)]
pub struct Place {
    room: Arc<WaitingRoom>,
    /// The line it stands in; `None`: it only waits for a time.
    line: Option<Arc<str>>,
    number: u64,
    bell: Arc<Notify>,
    since: Instant,
    leave: Leave,
}

impl WaitingRoom {
    /// An empty room.
    pub fn new(metrics: Waits) -> Self {
        Self { lines: Mutex::default(), inside: AtomicUsize::new(0), next: AtomicU64::new(0), metrics }
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.inside.load(Ordering::Acquire)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether somebody who came earlier is about to look for this model: who comes now lets it go first.
    pub fn is_calling(&self, model: &str) -> bool {
        !self.is_empty() && self.lines.lock().get(model).is_some_and(|line| line.called().is_some())
    }

    /// Takes a place at the end of the line for `model`, or where `number`, of an earlier place of the same
    /// request, belongs. Without a model the place is only counted. `None`: `most` requests wait already.
    pub fn enter(self: &Arc<Self>, model: Option<&str>, number: Option<u64>, most: usize) -> Option<Place> {
        let free = |inside: usize| (inside < most).then_some(inside + 1);
        if self.inside.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).is_err() {
            self.metrics.full();
            return None;
        }
        self.metrics.entered();
        let number = number.unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed));
        let bell = Arc::new(Notify::new());
        let line = model.map(Arc::from);
        if let Some(model) = &line {
            self.lines.lock().entry(Arc::clone(model)).or_default().waiting.insert(number, Arc::clone(&bell));
        }
        let (room, since) = (Arc::clone(self), Instant::now());
        Some(Place { room, line, number, bell, since, leave: Leave::Gone })
    }

    /// Somebody may serve: the first of each line is called.
    pub fn call(&self) {
        if !self.is_empty() {
            self.lines.lock().values_mut().for_each(Line::call);
        }
    }
}

impl Place {
    /// Its number, for the next place of the same request.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Waits for a call to look again; may be dropped and called again.
    pub async fn called(&self) {
        self.bell.notified().await;
    }

    /// Calls the line that it stands in.
    pub fn call(&self) {
        self.change(Line::call);
    }

    /// It has looked and found nobody.
    pub fn pass(&self) {
        self.change(|line| line.pass(self.number));
    }

    /// Says how the wait ends.
    pub fn leave(mut self, why: Leave) {
        self.leave = why;
    }

    fn change(&self, change: impl FnOnce(&mut Line)) {
        let Some(model) = &self.line else { return };
        if let Some(line) = self.room.lines.lock().get_mut(model) {
            change(line);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(model) = &self.line {
            let mut lines = self.room.lines.lock();
            if let Some(line) = lines.get_mut(model) {
                line.waiting.remove(&self.number);
                if self.leave == Leave::Served {
                    // There may be room for more.
                    if line.called.is_none_or(|(called, _)| called == self.number) {
                        line.call_first();
                    }
                } else {
                    line.pass(self.number);
                }
                if line.waiting.is_empty() {
                    lines.remove(model);
                }
            }
        }
        self.room.inside.fetch_sub(1, Ordering::AcqRel);
        self.room.metrics.left(self.leave.name(), self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::Metrics;
    use futures::FutureExt;

    fn room() -> Arc<WaitingRoom> {
        Arc::new(WaitingRoom::new(Metrics::new().unwrap().waits))
    }

    fn is_called(place: &Place) -> bool {
        place.called().now_or_never().is_some()
    }

    fn enter(room: &Arc<WaitingRoom>) -> Place {
        room.enter(Some("m"), None, 100).unwrap()
    }

    #[test]
    fn the_first_is_called_and_whoever_is_served_calls_the_next() {
        let room = room();
        let places: Vec<_> = (0..3).map(|_| enter(&room)).collect();
        room.call();
        assert!(is_called(&places[0]) && !is_called(&places[1]));
        let mut places = places.into_iter();
        places.next().unwrap().leave(Leave::Served);
        let second = places.next().unwrap();
        assert!(is_called(&second));
        second.pass();
        let third = places.next().unwrap();
        assert!(is_called(&third));
        third.pass();
        assert!(!room.is_calling("m") && !is_called(&second), "the signal is used up");
        assert_eq!(room.len(), 2);
    }

    #[test]
    fn a_signal_during_a_call_is_not_lost() {
        let room = room();
        let (one, two) = (enter(&room), enter(&room));
        room.call();
        room.call();
        assert!(is_called(&one));
        one.pass();
        assert!(is_called(&two));
        two.pass();
        assert!(is_called(&one), "the second signal");
        one.pass();
        assert!(is_called(&two));
        two.pass();
        assert!(!is_called(&one) && !is_called(&two));
    }

    #[test]
    fn who_leaves_while_called_passes_the_call_on() {
        let room = room();
        let (one, two) = (enter(&room), enter(&room));
        room.call();
        drop(one);
        assert!(is_called(&two));
        two.leave(Leave::Expired);
        assert!(room.is_empty() && room.lines.lock().is_empty());
    }

    #[test]
    fn one_signal_wakes_few_of_many() {
        let room = room();
        let places: Vec<_> = (0..100).map(|_| enter(&room)).collect();
        room.call();
        let looked = places
            .iter()
            .filter(|place| {
                let called = is_called(place);
                place.pass();
                called
            })
            .count();
        assert_eq!(looked, LOOKS as usize);
    }

    #[test]
    fn the_room_is_bounded_and_a_number_keeps_its_place() {
        let room = room();
        let first = room.enter(Some("m"), None, 2).unwrap();
        let number = first.number();
        let second = room.enter(Some("n"), None, 2).unwrap();
        assert!(room.enter(Some("m"), None, 2).is_none());
        first.leave(Leave::Served);
        let later = room.enter(Some("m"), None, 2).unwrap();
        drop(second);
        let back = room.enter(Some("m"), Some(number), 2).unwrap();
        room.call();
        assert!(is_called(&back) && !is_called(&later), "it came first");
        assert!(room.enter(None, None, 3).is_some());
    }

    #[test]
    fn what_is_set_and_what_is_not() {
        let none = |_: &str| None;
        let default = Limits::new(&Waiting::default(), none);
        assert_eq!((default.busy, default.resting, default.most), (BUSY, Duration::ZERO, 1000));
        let config = Waiting { max_wait_before_error_ms: Some(0), ..Waiting::default() };
        assert_eq!(Limits::new(&config, none).busy, Duration::ZERO);
        let set = |name: &'static str, value: &'static str| {
            Limits::new(&config, move |asked| (asked == name).then(|| value.to_owned()))
        };
        assert_eq!(set("MAX_WAIT_BEFORE_ERROR_MS", " 1500 ").resting, Duration::from_millis(1500));
        assert_eq!(set("MAX_WAIT_BEFORE_ERROR_MS", "soon").resting, Duration::ZERO);
        assert_eq!(set("MAX_WAIT_BEFORE_ERROR_MS", "99999999999").resting, INFINITE);
        assert_eq!(set("INFINITE_RETRY_MODE", "TRUE").resting, INFINITE);
        let infinite = Waiting { infinite_retry_mode: true, ..config.clone() };
        assert_eq!(Limits::new(&infinite, none).busy, INFINITE);
        let odd = misread(|_| Some("soon".to_owned()));
        assert!(
            odd.len() == 2 && odd[0].starts_with(WAIT_MS) && odd[1].starts_with(INFINITE_MODE),
            "{odd:?}"
        );
        assert!(misread(|_| Some("0".to_owned())).is_empty() && misread(none).is_empty());
        let off = |asked: &str| (asked == "INFINITE_RETRY_MODE").then(|| "false".to_owned());
        assert_eq!(Limits::new(&infinite, off).busy, Duration::ZERO);
    }
}
