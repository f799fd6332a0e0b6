//! Who listens to events, and how each gets them.
//!
//! Enters: frames by topic, once for all listeners. Leaves: the bytes of an event stream, shared by all who listen
//! to the same topics, in a bounded queue per listener. May go wrong: a listener does not read: what it missed is
//! counted, and told in an event `resync` as soon as there is room again; one more than [`MOST`] wants to listen.

use bytes::Bytes;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Most listeners.
pub(super) const MOST: usize = 64;
/// Parts that wait for a listener.
const QUEUE: usize = 32;
/// Silence after which a listener is shown that the stream lives.
const QUIET: Duration = Duration::from_secs(15);

/// Names of the topics.
pub(super) const TOPICS: [&str; 5] = ["requests", "alerts", "credentials", "now", "logs"];
/// Their numbers.
pub(super) const REQUESTS: usize = 0;
pub(super) const ALERTS: usize = 1;
pub(super) const CREDENTIALS: usize = 2;
pub(super) const NOW: usize = 3;
pub(super) const LOGS: usize = 4;

/// A set of topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Topics(u8);

impl Topics {
    /// All but the log, which is loud.
    pub(super) const USUAL: Self = Self(0b1111);

    /// Reads names with commas between them.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut topics = Self::default();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let known = TOPICS.iter().position(|topic| *topic == name);
            let known = known
                .ok_or_else(|| format!("there is no topic {name:?}; known are {}", TOPICS.join(", ")))?;
            topics.0 |= 1 << known;
        }
        Ok(if topics.0 == 0 { Self::USUAL } else { topics })
    }

    /// Whether a topic is one of them.
    pub(super) fn has(self, topic: usize) -> bool {
        self.0 & (1 << topic) != 0
    }

    /// Those of either.
    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Events of each topic, written once.
#[derive(Debug, Default)]
pub(super) struct Frames {
    parts: [Vec<u8>; TOPICS.len()],
    counts: [u64; TOPICS.len()],
}

impl Frames {
    /// Adds an event. `id` is what a listener may go on from.
    pub(super) fn add(&mut self, topic: usize, name: &str, id: Option<&str>, data: &[u8]) {
        let (Some(part), Some(count)) = (self.parts.get_mut(topic), self.counts.get_mut(topic)) else {
            return;
        };
        event(part, name, id, data);
        *count += 1;
    }

    /// The bytes for who listens to `topics`, and how many events that is.
    fn of(&self, topics: Topics) -> (Vec<u8>, u64) {
        let mine = || (0..TOPICS.len()).filter(|topic| topics.has(*topic));
        let bytes = mine().filter_map(|topic| self.parts.get(topic)).flatten().copied().collect();
        (bytes, mine().filter_map(|topic| self.counts.get(topic)).sum())
    }
}

/// Writes an event. JSON has no line breaks of its own.
pub(super) fn event(out: &mut Vec<u8>, name: &str, id: Option<&str>, data: &[u8]) {
    if let Some(id) = id {
        out.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    out.extend_from_slice(format!("event: {name}\ndata: ").as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
}

/// That a listener has not got everything; `None`: nobody knows how much.
pub(super) fn resync(out: &mut Vec<u8>, dropped: Option<u64>) {
    let count = dropped.map_or_else(|| "null".to_owned(), |dropped| dropped.to_string());
    event(out, "resync", None, format!("{{\"dropped\":{count}}}").as_bytes());
}

/// Who listens.
#[derive(Debug, Default)]
pub(super) struct Hub {
    listeners: Vec<Listener>,
}

#[derive(Debug)]
struct Listener {
    topics: Topics,
    sender: mpsc::Sender<Bytes>,
    /// Events that it did not get.
    dropped: u64,
    last: Instant,
}

impl Listener {
    /// Sends a part; `false`: nobody listens any more.
    fn send(&mut self, part: &Bytes, events: u64, now: Instant) -> bool {
        let whole = if self.dropped > 0 {
            let mut told = Vec::new();
            resync(&mut told, Some(self.dropped));
            told.extend_from_slice(part);
            Bytes::from(told)
        } else {
            part.clone()
        };
        match self.sender.try_send(whole) {
            Ok(()) => {
                self.dropped = 0;
                self.last = now;
                true
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.dropped += events;
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

impl Hub {
    /// Forgets those who left; how many are there.
    pub(super) fn count(&mut self) -> usize {
        self.listeners.retain(|listener| !listener.sender.is_closed());
        self.listeners.len()
    }

    /// What anybody listens to.
    pub(super) fn topics(&self) -> Topics {
        self.listeners.iter().fold(Topics::default(), |all, listener| all.and(listener.topics))
    }

    /// A new listener, which gets `first` before all else.
    pub(super) fn listen(&mut self, topics: Topics, first: Vec<u8>, now: Instant) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut listener = Listener { topics, sender, dropped: 0, last: now };
        listener.send(&first.into(), 0, now);
        self.listeners.push(listener);
        receiver
    }

    /// Sends frames to all, and a sign of life to those who got nothing for long.
    pub(super) fn publish(&mut self, frames: &Frames, now: Instant) {
        let mut made: Vec<(Topics, Bytes, u64)> = Vec::new();
        self.listeners.retain_mut(|listener| {
            let known = made.iter().position(|(topics, ..)| *topics == listener.topics);
            let at = known.unwrap_or_else(|| {
                let (bytes, events) = frames.of(listener.topics);
                made.push((listener.topics, bytes.into(), events));
                made.len() - 1
            });
            match made.get(at) {
                Some((_, bytes, events)) if !bytes.is_empty() => listener.send(bytes, *events, now),
                _ if now.duration_since(listener.last) >= QUIET => {
                    listener.send(&Bytes::from_static(b": still here\n\n"), 0, now)
                }
                _ => !listener.sender.is_closed(),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(text: &str) -> Frames {
        let mut frames = Frames::default();
        frames.add(REQUESTS, "requests", Some("a-1"), text.as_bytes());
        frames
    }

    fn text(bytes: &Bytes) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn topics_are_read_by_name() {
        assert_eq!(Topics::parse("").unwrap(), Topics::USUAL);
        let two = Topics::parse(" now,logs,").unwrap();
        assert!(two.has(NOW) && two.has(LOGS) && !two.has(REQUESTS));
        assert!(Topics::parse("now,never").unwrap_err().contains("requests, alerts"));
    }

    #[test]
    fn who_listens_to_the_same_shares_the_bytes_and_others_get_theirs() {
        let (mut hub, now) = (Hub::default(), Instant::now());
        let topics = |text: &str| Topics::parse(text).unwrap();
        let mut many: Vec<_> =
            (0..50).map(|_| hub.listen(topics("requests"), b"first\n\n".to_vec(), now)).collect();
        let mut other = hub.listen(topics("now"), Vec::new(), now);
        hub.publish(&frames("{}"), now);
        let parts: Vec<Bytes> = many
            .iter_mut()
            .map(|receiver| {
                assert_eq!(text(&receiver.try_recv().unwrap()), "first\n\n");
                receiver.try_recv().unwrap()
            })
            .collect();
        assert_eq!(text(&parts[0]), "id: a-1\nevent: requests\ndata: {}\n\n");
        assert!(parts.iter().all(|part| part.as_ptr() == parts[0].as_ptr()), "one copy for all");
        assert_eq!(text(&other.try_recv().unwrap()), "");
        assert!(other.try_recv().is_err());
        drop(many);
        hub.publish(&frames("{}"), now);
        assert_eq!(hub.count(), 1);
    }

    #[test]
    fn who_does_not_read_is_told_how_much_was_dropped_and_holds_nobody_up() {
        let (mut hub, now) = (Hub::default(), Instant::now());
        let mut slow = hub.listen(Topics::USUAL, Vec::new(), now);
        let mut quick = hub.listen(Topics::USUAL, Vec::new(), now);
        let mut got = 0;
        for n in 0..100 {
            hub.publish(&frames(&n.to_string()), now);
            while let Ok(part) = quick.try_recv() {
                got += usize::from(!part.is_empty());
            }
        }
        assert_eq!(got, 100);
        let waiting: Vec<_> = std::iter::from_fn(|| slow.try_recv().ok()).collect();
        assert_eq!(waiting.len(), QUEUE);
        hub.publish(&frames("100"), now);
        let told = text(&slow.try_recv().unwrap());
        let missed = 100 - (QUEUE - 1);
        let begins = format!("event: resync\ndata: {{\"dropped\":{missed}}}\n\nid: a-1\nevent: requests");
        assert!(told.starts_with(&begins), "{told}");
        hub.publish(&frames("101"), now);
        assert!(!text(&slow.try_recv().unwrap()).contains("resync"));
    }

    #[test]
    fn silence_is_filled() {
        let (mut hub, now) = (Hub::default(), Instant::now());
        let mut listener = hub.listen(Topics::USUAL, b"x".to_vec(), now);
        assert!(listener.try_recv().is_ok());
        for (seconds, is_there) in [(10, false), (16, true), (20, false), (32, true)] {
            hub.publish(&Frames::default(), now + Duration::from_secs(seconds));
            let part = listener.try_recv();
            assert_eq!(part.is_ok_and(|part| part.starts_with(b":")), is_there, "{seconds}");
        }
    }
}
