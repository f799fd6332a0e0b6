//! The tool calls of one choice, put together from fragments.
//!
//! Enters: fragments in any of the ways servers send them: names and ids late, repeated, empty or never;
//! indexes missing or all 0; arguments as text or as an object. Leaves: blocks with an id that is unique in
//! the answer and a name, and the fragments of their arguments as they come. May go wrong: a call whose name
//! never comes is none and is not opened.

use super::chunk::{Fragment, Function, Word};
use super::read_choice::Out;
use crate::ir::{BlockKind, Delta, ToolKind};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashSet;

/// Most calls of one choice that are followed; more is an attack.
pub(super) const MOST_CALLS: usize = 1024;

/// The calls of a choice.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: Vec<Call>,
}

#[derive(Debug, Default)]
struct Call {
    index: Option<u64>,
    id: String,
    name: String,
    custom: bool,
    /// Arguments that came before the name.
    waiting: String,
    /// Its block, once it is open.
    block: Option<u32>,
}

/// Makes ids for calls that come without one, and keeps ids apart.
#[derive(Debug, Default)]
pub(super) struct CallIds {
    seed: String,
    made: u32,
    used: HashSet<String>,
}

impl CallIds {
    /// `seed` is unique to the request.
    pub(super) fn new(seed: &str) -> Self {
        // The longest id that all APIs take has 64 characters.
        Self { seed: seed.chars().take(32).collect(), ..Self::default() }
    }

    /// `given` if it is one and no other call has it, else a new one.
    fn unique(&mut self, given: &str) -> String {
        let mut id = given.to_owned();
        while id.is_empty() || self.used.contains(&id) {
            id = format!("call_{}_{}", self.seed, self.made);
            self.made += 1;
        }
        self.used.insert(id.clone());
        id
    }
}

impl Calls {
    /// Whether a call was opened.
    pub(super) fn any(&self) -> bool {
        self.calls.iter().any(|call| call.block.is_some())
    }

    /// Whether a call came that has no name and so cannot be made.
    pub(super) fn any_nameless(&self) -> bool {
        self.calls.iter().any(|call| call.name.is_empty())
    }

    /// Whether there are more than can be followed.
    pub(super) fn too_many(&self) -> bool {
        self.calls.len() > MOST_CALLS
    }

    /// Takes an element of `tool_calls`. `whole` is its place in a whole body, where each is a call.
    pub(super) fn fragment(
        &mut self,
        fragment: &Fragment<'_>,
        whole: Option<u64>,
        choice: u32,
        out: &mut Out<'_>,
    ) {
        let nothing = Function::default();
        let function = fragment.function.as_ref().or(fragment.custom.as_ref()).unwrap_or(&nothing);
        let at = self.find(whole.or(fragment.index.0), &fragment.id.0, &function.name.0);
        let Some(call) = self.calls.get_mut(at) else { return };
        call.custom |= fragment.function.is_none() && fragment.custom.is_some();
        if call.id.is_empty() {
            call.id.push_str(&fragment.id.0);
        }
        call.add(function, choice, out);
    }

    /// Takes legacy `function_call`: there is only one, and it has no id.
    pub(super) fn legacy(&mut self, function: &Function<'_>, choice: u32, out: &mut Out<'_>) {
        let at = self.find(None, "", "");
        if let Some(call) = self.calls.get_mut(at) {
            call.add(function, choice, out);
        }
    }

    /// Opens what is still held back and closes all.
    pub(super) fn finish(&mut self, choice: u32, out: &mut Out<'_>) {
        for call in &mut self.calls {
            call.open(choice, out);
        }
        for call in &self.calls {
            if let Some(block) = call.block {
                out.close(block);
            }
        }
    }

    /// Where the call is that a fragment belongs to; a new one is made where it belongs to none. Servers exist that give every call the index 0, so another id
    /// together with a name is another call; and servers that make up an id for each fragment, so another id
    /// alone is not.
    fn find(&mut self, index: Option<u64>, id: &str, name: &str) -> usize {
        let starts = |call: &Call| {
            let other_id = !id.is_empty() && !call.id.is_empty() && call.id != id;
            !name.is_empty() && !call.name.is_empty() && (other_id || (index.is_none() && id.is_empty()))
        };
        let at = match index {
            Some(index) => self.calls.iter().rposition(|call| call.index == Some(index)),
            None if !id.is_empty() => {
                let same = self.calls.iter().rposition(|call| call.id == id);
                // An id that comes after its call was begun without one.
                same.or_else(|| self.calls.iter().rposition(|call| call.id.is_empty()))
            }
            None => self.calls.len().checked_sub(1),
        };
        let at = at.filter(|at| !self.calls.get(*at).is_some_and(starts));
        at.unwrap_or_else(|| {
            self.calls.push(Call { index, ..Call::default() });
            self.calls.len() - 1
        })
    }
}

impl Call {
    fn add(&mut self, function: &Function<'_>, choice: u32, out: &mut Out<'_>) {
        if self.name.is_empty() {
            self.name.push_str(&function.name.0);
        }
        let text = match function.arguments {
            Some(raw) => arguments(raw),
            None => Cow::Borrowed(function.input.0.as_ref()),
        };
        match self.block {
            Some(block) if !text.is_empty() => out.delta(block, Delta::Arguments(&text)),
            Some(_) => {}
            None => {
                self.waiting.push_str(&text);
                // Without an id yet, the next fragment may bring it, unless arguments have begun.
                if !self.id.is_empty() || !self.waiting.is_empty() {
                    self.open(choice, out);
                }
            }
        }
    }

    fn open(&mut self, choice: u32, out: &mut Out<'_>) {
        if self.block.is_some() || self.name.is_empty() {
            return;
        }
        self.id = out.ids.unique(&self.id);
        let kind = if self.custom { ToolKind::Custom } else { ToolKind::Function };
        let kind = BlockKind::Tool { id: &self.id, name: &self.name, namespace: None, kind };
        let block = out.open(choice, kind);
        self.block = Some(block);
        if !self.waiting.is_empty() {
            out.delta(block, Delta::Arguments(&std::mem::take(&mut self.waiting)));
        }
    }
}

/// Arguments as text, whatever they came as.
fn arguments(raw: &RawValue) -> Cow<'_, str> {
    match raw.get() {
        "null" => Cow::Borrowed(""),
        text if text.starts_with('"') => {
            serde_json::from_str::<Word<'_>>(text).map(|word| word.0).unwrap_or_default()
        }
        text => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_answer::tests::{STOP, deltas, finish, shape, whole};
    use crate::ir::{Block, Finish};

    /// Streams fragments; `calls` calls of `f` with `{"x":n}` under the ids `cn` have to come out.
    fn check(fragments: &[&str], calls: u32) {
        let pieces: Vec<String> = fragments.iter().map(|f| format!(r#"{{"tool_calls":{f}}}"#)).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let answer = deltas(&pieces, r#""tool_calls""#);
        let expected: Vec<String> =
            (1..=calls).map(|n| format!(r#"call c{n} f {{"x":{n}}} Function"#)).collect();
        assert_eq!((shape(&answer), finish(&answer)), (expected.join(" | "), Finish::Tool), "{fragments:?}");
    }

    #[test]
    fn calls_one_by_one_at_once_and_interleaved() {
        for (fragments, calls) in [
            // The official way.
            (
                vec![
                    r#"[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]"#,
                    r#"[{"index":0,"function":{"arguments":"{\"x\""}}]"#,
                    r#"[{"index":0,"function":{"arguments":":1}"}}]"#,
                ],
                1,
            ),
            // Whole calls in one chunk, arguments as objects.
            (
                vec![
                    r#"[{"index":0,"id":"c1","function":{"name":"f","arguments":{"x":1}}},{"index":1,"id":"c2","function":{"name":"f","arguments":{"x":2}}}]"#,
                ],
                2,
            ),
            // Interleaved.
            (
                vec![
                    r#"[{"index":0,"id":"c1","function":{"name":"f"}},{"index":1,"id":"c2","function":{"name":"f"}}]"#,
                    r#"[{"index":1,"function":{"arguments":"{\"x\""}}]"#,
                    r#"[{"index":0,"function":{"arguments":"{\"x\""}}]"#,
                    r#"[{"index":1,"function":{"arguments":":2}"}},{"index":0,"function":{"arguments":":1}"}}]"#,
                ],
                2,
            ),
        ] {
            check(&fragments, calls);
        }
    }

    #[test]
    fn names_ids_and_indexes_late_repeated_or_missing() {
        for (fragments, calls) in [
            // The name comes late, behind arguments even.
            (
                vec![
                    r#"[{"index":0,"id":"c1","type":"function","function":{"arguments":""}}]"#,
                    r#"[{"index":0,"function":{"arguments":"{\"x\":"}}]"#,
                    r#"[{"index":0,"function":{"name":"f","arguments":null}}]"#,
                    r#"[{"index":0,"function":{"arguments":"1}"}}]"#,
                ],
                1,
            ),
            // The id comes late.
            (
                vec![
                    r#"[{"index":0,"function":{"name":"f","arguments":""}}]"#,
                    r#"[{"index":0,"id":"c1","function":{"arguments":"{\"x\":1}"}}]"#,
                ],
                1,
            ),
            // Id and name on every fragment, then empty ones.
            (
                vec![
                    r#"[{"index":0,"id":"c1","function":{"name":"f","arguments":"{\"x\""}}]"#,
                    r#"[{"index":0,"id":"c1","function":{"name":"f","arguments":":"}}]"#,
                    r#"[{"index":0,"id":"","function":{"name":"","arguments":"1}"}}]"#,
                ],
                1,
            ),
            // No indexes.
            (
                vec![
                    r#"[{"id":"c1","function":{"name":"f","arguments":"{\"x\""}}]"#,
                    r#"[{"function":{"arguments":":1}"}}]"#,
                    r#"[{"id":"c2","function":{"name":"f","arguments":"{\"x\":2}"}}]"#,
                ],
                2,
            ),
            // Index 0 for all.
            (
                vec![
                    r#"[{"index":0,"id":"c1","function":{"name":"f","arguments":"{\"x\":1}"}}]"#,
                    r#"[{"index":0,"id":"c2","function":{"name":"f","arguments":"{\"x\""}}]"#,
                    r#"[{"index":0,"function":{"arguments":":2}"}}]"#,
                ],
                2,
            ),
        ] {
            check(&fragments, calls);
        }
    }

    #[test]
    fn p38_calls_without_an_id_or_with_the_same_get_different_ones() {
        for call in [
            r#"{"function":{"name":"f","arguments":{}}}"#,
            r#"{"id":"x","function":{"name":"f","arguments":{}}}"#,
        ] {
            let body = format!(r#"{{"choices":[{{"message":{{"tool_calls":[{call},{call}]}}}}]}}"#);
            let answer = whole(&body);
            let ids: Vec<_> = answer.choices[0]
                .blocks
                .iter()
                .map(|block| if let Block::Tool { id, .. } = block { id.clone() } else { panic!() })
                .collect();
            assert!(
                ids.len() == 2 && ids[0] != ids[1] && ids.iter().all(|id| (1..=64).contains(&id.len())),
                "{ids:?}"
            );
        }
    }

    #[test]
    fn legacy_and_custom_calls() {
        let answer = deltas(
            &[r#"{"function_call":{"name":"f"}}"#, r#"{"function_call":{"arguments":"{}"}}"#],
            r#""function_call""#,
        );
        assert_eq!(
            (shape(&answer).as_str(), finish(&answer)),
            ("call call_seed_0 f {} Function", Finish::Tool)
        );
        let answer = deltas(
            &[
                r#"{"tool_calls":[{"index":0,"id":"c","type":"custom","custom":{"name":"p","input":"a\nb"}}]}"#,
            ],
            STOP,
        );
        assert_eq!(shape(&answer), "call c p a\nb Custom");
    }
}
