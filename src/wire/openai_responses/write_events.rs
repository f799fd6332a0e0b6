//! Events with their numbers: `sequence_number` is in all of them and rises by one.
//!
//! Enters: a name and what fills the event. Leaves: frames. May go wrong: nothing.

use super::write_output::Item;
use crate::frames::{Frames, Framing};
use crate::json::{Object, object};

/// Events with their numbers.
#[derive(Debug)]
pub(super) struct Numbered {
    pub(super) frames: Frames,
    sequence: u64,
}

impl Numbered {
    pub(super) fn new(framing: Framing) -> Self {
        Self { frames: Frames::new(framing), sequence: 0 }
    }

    /// The next event; `fill` adds its members to type and number.
    pub(super) fn event(&mut self, name: &str, fill: impl FnOnce(&mut Object<'_>)) {
        let sequence = self.sequence;
        self.sequence += 1;
        self.frames.event(name, |out| {
            object(out, |o| {
                o.str("type", name);
                o.uint("sequence_number", sequence);
                fill(o);
            });
        });
    }

    /// An event about an item, or about a part of it.
    pub(super) fn about(
        &mut self,
        name: &str,
        item: (usize, &str),
        part: Option<(&str, usize)>,
        fill: impl FnOnce(&mut Object<'_>),
    ) {
        self.event(name, |o| {
            o.str("item_id", item.1);
            o.uint("output_index", item.0 as u64);
            if let Some((key, part)) = part {
                o.uint(key, part as u64);
            }
            fill(o);
        });
    }

    /// An event that carries an item.
    pub(super) fn item(&mut self, name: &str, index: usize, item: &Item<'_>) {
        self.event(name, |o| {
            o.uint("output_index", index as u64);
            item.write(o.key("item"));
        });
    }
}
