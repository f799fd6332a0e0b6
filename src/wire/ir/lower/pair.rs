//! Binds tool results to their calls and puts them where every API wants them.
//!
//! Enters: calls and results anywhere. Leaves: each call answered once, right behind its turn. Order of the
//! repairs: bind by id, else by name, else in order; keep the last of several results; results without a
//! call become text; calls without a result get one that says so.

use crate::ir::{LossKind, Losses, Part, Role, Str, Text, ToolCall, ToolKind, ToolResult, Turn};
use crate::json::Path;
use std::collections::{HashMap, VecDeque};

/// The calls so far, found in constant time: a hostile history has many thousands.
#[derive(Default)]
struct Slots<'a> {
    all: Vec<Slot<'a>>,
    /// Unanswered calls by id, oldest first.
    open: HashMap<Str<'a>, VecDeque<usize>>,
    /// Unanswered calls without an id by name, oldest first.
    by_name: HashMap<Str<'a>, VecDeque<usize>>,
    /// The last answered call of an id.
    answered: HashMap<Str<'a>, usize>,
    /// The oldest call that may be unanswered.
    first_open: usize,
}

/// A call, and where its result is kept until it is placed.
struct Slot<'a> {
    /// Index of the turn that makes it.
    turn: usize,
    id: Str<'a>,
    name: Str<'a>,
    kind: ToolKind,
    result: Option<ToolResult<'a>>,
}

impl<'a> Slots<'a> {
    fn push(&mut self, turn: usize, call: &ToolCall<'a>) {
        let at = self.all.len();
        self.open.entry(call.id.clone()).or_default().push_back(at);
        self.by_name.entry(call.name.clone()).or_default().push_back(at);
        self.all.push(Slot {
            turn,
            id: call.id.clone(),
            name: call.name.clone(),
            kind: call.kind,
            result: None,
        });
    }

    /// The call that `result` answers. An unanswered call wins; a repeated id means a second result.
    fn bind(&mut self, result: &ToolResult<'a>) -> Option<&mut Slot<'a>> {
        let name = result.name.as_ref().filter(|name| !name.is_empty());
        let at = if result.call_id.is_empty() {
            match name {
                Some(name) => self.open_by_name(name),
                None => self.oldest_open(),
            }
        } else {
            self.open_by_id(&result.call_id).or_else(|| self.answered.get(&result.call_id).copied()).or_else(
                || {
                    // Formats whose calls have no ids: the result's made-up id matches none, its name does.
                    let at = self.open_by_name(name?)?;
                    self.all.get(at)?.id.is_empty().then_some(at)
                },
            )
        }?;
        let slot = self.all.get_mut(at)?;
        self.answered.insert(slot.id.clone(), at);
        Some(slot)
    }

    fn open_by_id(&mut self, id: &Str<'a>) -> Option<usize> {
        first_open(&self.all, self.open.get_mut(id)?)
    }

    fn open_by_name(&mut self, name: &Str<'a>) -> Option<usize> {
        first_open(&self.all, self.by_name.get_mut(name)?)
    }

    fn oldest_open(&mut self) -> Option<usize> {
        while self.all.get(self.first_open).is_some_and(|slot| slot.result.is_some()) {
            self.first_open += 1;
        }
        (self.first_open < self.all.len()).then_some(self.first_open)
    }
}

/// The first of `queue` that is unanswered; those before it are forgotten.
fn first_open(all: &[Slot<'_>], queue: &mut VecDeque<usize>) -> Option<usize> {
    while let Some(at) = queue.front().copied() {
        if all.get(at).is_some_and(|slot| slot.result.is_none()) {
            return Some(at);
        }
        queue.pop_front();
    }
    None
}

/// Pairs calls and results.
pub(super) fn pair(turns: &mut Vec<Turn<'_>>, losses: &mut Losses) {
    let mut slots = Slots::default();
    let root = Path::Root;
    let all = root.key("turns");
    for (n, turn) in turns.iter_mut().enumerate() {
        let mut parts = Vec::with_capacity(turn.parts.len());
        for part in std::mem::take(&mut turn.parts) {
            match part {
                Part::ToolCall(call) if turn.role == Role::Assistant => {
                    slots.push(n, &call);
                    parts.push(Part::ToolCall(call));
                }
                Part::ToolResult(result) => {
                    let slot = slots.bind(&result);
                    if !matches!(&slot, Some(slot) if slot.result.is_none()) {
                        losses.at(LossKind::ToolPairing, &all.index(n));
                    }
                    match slot {
                        Some(slot) => slot.result = Some(result),
                        None => orphan(result, &mut parts),
                    }
                }
                other => parts.push(other),
            }
        }
        turn.parts = parts;
    }
    place(turns, slots.all, losses);
    turns.retain(|turn| !turn.parts.is_empty());
}

/// A result whose call is not in the history is still something the user said.
fn orphan<'a>(result: ToolResult<'a>, parts: &mut Vec<Part<'a>>) {
    let name = result.name.as_deref().filter(|n| !n.is_empty()).unwrap_or("an earlier tool call");
    let text = result.text();
    if !text.trim().is_empty() {
        parts.push(Part::Text(Text::plain(format!("[Result of {name}]\n{text}"))));
    }
    parts.extend(result.parts.into_iter().filter(|p| {
        matches!(p, Part::Image(_) | Part::Audio(_))
            || matches!(p, Part::Document(d) if !matches!(d.source, crate::ir::Source::Text(_)))
    }));
}

/// Puts the results behind the turns that made the calls, and joins the user turn that follows.
fn place<'a>(turns: &mut Vec<Turn<'a>>, slots: Vec<Slot<'a>>, losses: &mut Losses) {
    if slots.is_empty() {
        return;
    }
    let mut slots = slots.into_iter().peekable();
    let mut out: Vec<Turn<'a>> = Vec::with_capacity(turns.len() + 4);
    let mut answers_open = false;
    for (n, turn) in std::mem::take(turns).into_iter().enumerate() {
        // Text of the user that comes right after the calls goes behind the results, in their turn.
        let joins = answers_open && turn.role == Role::User;
        match out.last_mut() {
            Some(last) if joins => {
                last.parts.extend(turn.parts);
                continue;
            }
            _ => answers_open = answers_open && turn.parts.is_empty(),
        }
        out.push(turn);
        let mut results = Vec::new();
        while let Some(slot) = slots.next_if(|slot| slot.turn == n) {
            let answered = slot.result.is_some();
            if !answered {
                losses.at(LossKind::ToolPairing, &Path::Index(&Path::Key(&Path::Root, "turns"), n));
            }
            results.push(Part::ToolResult(match slot.result {
                Some(result) => {
                    ToolResult { call_id: slot.id, name: Some(slot.name), kind: slot.kind, ..result }
                }
                None => interrupted(slot.id, slot.name, slot.kind),
            }));
        }
        if !results.is_empty() {
            out.push(Turn::new(Role::User, results));
            answers_open = true;
        }
    }
    *turns = out;
}

/// The client was interrupted before the tool answered, and went on.
fn interrupted<'a>(call_id: Str<'a>, name: Str<'a>, kind: ToolKind) -> ToolResult<'a> {
    let text = "The tool call was interrupted and has no result.";
    ToolResult {
        call_id,
        name: Some(name),
        parts: vec![Part::Text(Text::plain(text))],
        is_error: true,
        kind,
        cache: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn call(id: &'static str, name: &'static str) -> Part<'static> {
        Part::ToolCall(ToolCall {
            id: id.into(),
            name: name.into(),
            namespace: None,
            kind: ToolKind::Function,
            arguments: "{}".into(),
            signature: None,
            cache: None,
        })
    }

    fn result(id: &'static str, name: Option<&'static str>, text: &'static str) -> Part<'static> {
        Part::ToolResult(ToolResult {
            call_id: id.into(),
            name: name.map(Into::into),
            parts: vec![Part::Text(Text::plain(text))],
            is_error: false,
            kind: ToolKind::Function,
            cache: None,
        })
    }

    fn text(text: &'static str) -> Part<'static> {
        Part::Text(Text::plain(text))
    }

    /// One letter per turn, then its parts.
    fn shape(turns: Vec<Turn<'static>>) -> String {
        let mut turns = turns;
        pair(&mut turns, &mut Losses::default());
        let mut out = String::new();
        for turn in &turns {
            out.push_str(if turn.role == Role::Assistant { " A" } else { " U" });
            for part in &turn.parts {
                match part {
                    Part::Text(t) => write!(out, " t:{}", t.text.replace('\n', "|")).unwrap(),
                    Part::ToolCall(c) => write!(out, " c:{}", c.id).unwrap(),
                    Part::ToolResult(r) => write!(out, " r:{}={}", r.call_id, r.text()).unwrap(),
                    _ => out.push_str(" ?"),
                }
            }
        }
        out.trim().to_owned()
    }

    fn user(parts: Vec<Part<'static>>) -> Turn<'static> {
        Turn::new(Role::User, parts)
    }

    fn model(parts: Vec<Part<'static>>) -> Turn<'static> {
        Turn::new(Role::Assistant, parts)
    }

    #[test]
    fn results_go_behind_their_calls_in_call_order() {
        let got = shape(vec![
            user(vec![text("q")]),
            model(vec![call("a", "f"), call("b", "g")]),
            user(vec![text("between"), result("b", None, "2")]),
            user(vec![result("a", None, "1")]),
            model(vec![text("done")]),
        ]);
        assert_eq!(got, "U t:q A c:a c:b U r:a=1 r:b=2 t:between A t:done");
    }

    #[test]
    fn duplicates_keep_the_last_content_orphans_become_text() {
        let got = shape(vec![
            model(vec![call("a", "f")]),
            user(vec![result("a", None, "old"), result("a", None, "new"), result("zz", Some("f"), "lost")]),
        ]);
        assert_eq!(got, "A c:a U r:a=new t:[Result of f]|lost");
    }

    #[test]
    fn calls_without_a_result_get_one() {
        let got = shape(vec![model(vec![call("a", "f")]), user(vec![text("go on")])]);
        assert_eq!(got, "A c:a U r:a=The tool call was interrupted and has no result. t:go on");
    }

    #[test]
    fn without_ids_names_and_then_order_decide() {
        let got = shape(vec![
            model(vec![call("", "f"), call("", "g"), call("", "f")]),
            user(vec![result("", Some("g"), "G"), result("", Some("f"), "F1"), result("", None, "F2")]),
        ]);
        assert_eq!(got, "A c: c: c: U r:=F1 r:=G r:=F2");
    }

    #[test]
    fn p40_many_results_take_linear_time() {
        let calls: Vec<_> = (0..50_000).map(|_| call("x", "f")).collect();
        let results: Vec<_> = (0..100_000).map(|_| result("x", None, "r")).collect();
        let mut turns = vec![model(calls), user(results)];
        pair(&mut turns, &mut Losses::default());
        assert_eq!(turns[1].parts.len(), 50_000);
    }

    #[test]
    fn equal_ids_are_answered_in_order() {
        let got = shape(vec![
            model(vec![call("x", "f")]),
            user(vec![result("x", None, "1")]),
            model(vec![call("x", "f")]),
            user(vec![result("x", None, "2")]),
        ]);
        assert_eq!(got, "A c:x U r:x=1 A c:x U r:x=2");
    }
}
