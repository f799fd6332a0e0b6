//! The conversation of a socket: which items a response had before it.
//!
//! Enters: items as JSON texts, responses that are complete. Leaves: the items that a request goes on from.
//! May go wrong: nothing; a response that is not, or no longer, known is told apart. Kept are the last [`KEPT`]
//! responses and at most [`KEPT_BYTES`].

use super::event::{Raw, text};
use serde::Deserialize;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// Responses of a socket that `previous_response_id` may name.
const KEPT: usize = 32;

/// Most bytes that the kept responses may have brought. The last one is kept whatever its size: the limits of
/// frames and bodies bound it.
const KEPT_BYTES: usize = 64 << 20;

/// A response and the conversation up to its end. Items are shared between turns.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) id: String,
    pub(super) items: Vec<Arc<str>>,
    /// Bytes that this turn brought.
    pub(super) own: usize,
}

/// The responses of one socket.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    turns: VecDeque<Turn>,
}

/// What a request goes on from.
#[derive(Debug)]
pub(super) enum Base {
    Turn(Vec<Arc<str>>),
    Nothing,
    /// A response that is not, or no longer, known.
    Unknown,
    /// An append to nothing.
    Missing,
}

/// By what an item is told from others.
#[derive(Default, Deserialize)]
struct Named<'a> {
    #[serde(borrow, rename = "type")]
    kind: Raw<'a>,
    #[serde(borrow)]
    id: Raw<'a>,
    #[serde(borrow)]
    call_id: Raw<'a>,
}

impl Transcript {
    /// What a frame of type `kind` goes on from, whose `previous_response_id` is `previous`.
    pub(super) fn base(&self, kind: &str, previous: &str, new: &[Arc<str>]) -> Base {
        if !previous.is_empty() {
            let found = self.turns.iter().rfind(|turn| turn.id == previous);
            return found.map_or(Base::Unknown, |turn| Base::Turn(turn.items.clone()));
        }
        let Some(last) = self.turns.back() else {
            return if kind == "response.append" { Base::Missing } else { Base::Nothing };
        };
        if kind == "response.append" || answers(new, &last.items) {
            return Base::Turn(last.items.clone());
        }
        Base::Nothing
    }

    /// Remembers a response, and forgets the oldest.
    pub(super) fn keep(&mut self, turn: Turn) {
        self.turns.push_back(turn);
        let mut bytes: usize = self.turns.iter().map(|turn| turn.own).sum();
        while self.turns.len() > KEPT || (bytes > KEPT_BYTES && self.turns.len() > 1) {
            bytes -= self.turns.pop_front().map_or(0, |turn| turn.own);
        }
    }
}

/// Whether `new` answers a call that only `before` has.
fn answers(new: &[Arc<str>], before: &[Arc<str>]) -> bool {
    let calls = |items: &[Arc<str>]| -> HashSet<String> {
        items
            .iter()
            .filter_map(|item| {
                let named: Named<'_> = serde_json::from_str(item).ok()?;
                text(named.kind).ends_with("_call").then(|| text(named.call_id).into_owned())
            })
            .collect()
    };
    let (own, known) = (calls(new), calls(before));
    new.iter().any(|item| {
        let named: Named<'_> = serde_json::from_str(item).unwrap_or_default();
        let call = text(named.call_id);
        text(named.kind).ends_with("_call_output")
            && !own.contains(call.as_ref())
            && known.contains(call.as_ref())
    })
}

/// The conversation with `new` items behind it, and the bytes that these brought.
pub(super) fn merge(mut base: Vec<Arc<str>>, new: Vec<Arc<str>>) -> (Vec<Arc<str>>, usize) {
    let mut seen: HashSet<String> = base.iter().flat_map(|item| names(item)).collect();
    let continues = !base.is_empty();
    let mut own = 0;
    for item in new {
        let names = names(&item);
        // What a client sends in one frame is its own business; what the conversation has is not repeated.
        if continues && names.iter().any(|name| seen.contains(name)) {
            continue;
        }
        seen.extend(names);
        own += item.len();
        base.push(item);
    }
    (base, own)
}

fn names(item: &str) -> Vec<String> {
    let named: Named<'_> = serde_json::from_str(item).unwrap_or_default();
    let (kind, id, call) = (text(named.kind), text(named.id), text(named.call_id));
    let mut found = Vec::new();
    if !id.is_empty() {
        found.push(format!("{kind} id {id}"));
    }
    if !call.is_empty() {
        found.push(format!("{kind} call {call}"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_by_number_and_by_bytes() {
        let mut transcript = Transcript::default();
        let turn = |n: usize, own| Turn { id: n.to_string(), items: Vec::new(), own };
        for n in 0..100 {
            transcript.keep(turn(n, 1));
        }
        assert_eq!(transcript.turns.len(), KEPT);
        assert!(matches!(transcript.base("response.create", "99", &[]), Base::Turn(_)));
        assert!(matches!(transcript.base("response.create", "1", &[]), Base::Unknown));
        for n in 0..3 {
            transcript.keep(turn(n, KEPT_BYTES / 2 + 1));
        }
        assert_eq!(transcript.turns.len(), 1);
        transcript.keep(turn(7, 2 * KEPT_BYTES));
        assert!(matches!(transcript.base("response.create", "7", &[]), Base::Turn(_)));
    }
}
