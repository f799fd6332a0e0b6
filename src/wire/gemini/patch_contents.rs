//! Turns that the API would refuse, repaired on their bytes.
//!
//! Enters: `contents` as a client of the same format sent it. Leaves: `None` when it is fine, else its new
//! text, made of the old parts. Repaired are: results that are scattered over contents, results without a
//! name, empty contents and parts, a first turn of the model, and signatures that are missing or another
//! vendor's. May go wrong: what has another shape stays as it is.

use super::flavour::{Flavour, SENTINEL, is_sentinel};
use super::read_parts::redacted;
use super::write_contents::MINIMAL;
use crate::ir::{LossKind, Losses};
use crate::json;
use crate::patch::{Patch, elements, members};
use crate::signature::{Signature, Vendor};
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};

/// What decides about a content.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow)]
    parts: Option<Vec<&'a RawValue>>,
}

/// What decides about a part.
#[derive(Deserialize, Default)]
struct PartHead<'a> {
    #[serde(borrow, alias = "functionCall")]
    function_call: Option<Named<'a>>,
    #[serde(borrow, alias = "functionResponse")]
    function_response: Option<Named<'a>>,
    #[serde(borrow, alias = "thoughtSignature")]
    thought_signature: Option<Cow<'a, str>>,
    thought: Option<bool>,
}

#[derive(Deserialize, Default, Clone)]
struct Named<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
}

/// A part, perhaps with new text.
struct PatchedPart<'a> {
    text: Cow<'a, str>,
    head: PartHead<'a>,
}

struct Content<'a> {
    model: bool,
    /// The content as it was.
    text: &'a str,
    parts: Vec<PatchedPart<'a>>,
    changed: bool,
}

/// The new text of `contents`, when something had to change.
pub(super) fn repair_contents(contents: &[u8], flavour: Flavour, losses: &mut Losses) -> Option<Vec<u8>> {
    let mut turns = read(contents)?;
    let count = turns.len();
    turns.retain(|turn| !turn.parts.is_empty());
    let calls = memmem::find(contents, b"unction").is_some();
    if calls {
        turns = regroup(turns, losses);
    }
    if calls || memmem::find(contents, b"ignature").is_some() || flavour.claude {
        turns.iter_mut().filter(|turn| turn.model).for_each(|turn| sign(turn, flavour, losses));
        turns.retain(|turn| !turn.parts.is_empty());
    }
    let headless = turns.first().is_some_and(|turn| turn.model);
    if turns.is_empty() || (turns.len() == count && !headless && turns.iter().all(|turn| !turn.changed)) {
        return None;
    }
    let mut out = Vec::with_capacity(contents.len() + 256);
    json::array(&mut out, |a| {
        if headless {
            a.object(|o| {
                o.str("role", "user");
                o.array("parts", |a| a.object(|o| o.str("text", MINIMAL)));
            });
        }
        for turn in &turns {
            turn.write(a.item());
        }
    });
    Some(out)
}

fn read(contents: &[u8]) -> Option<Vec<Content<'_>>> {
    let mut turns = Vec::new();
    for span in elements(contents, 0) {
        let text = std::str::from_utf8(contents.get(span)?).ok()?;
        let head: Head<'_> = serde_json::from_str(text).ok()?;
        let raw = head.parts.unwrap_or_default();
        let count = raw.len();
        let mut parts = Vec::with_capacity(count);
        for part in
            raw.into_iter().map(RawValue::get).filter(|part| members(part.as_bytes(), 0).next().is_some())
        {
            parts.push(PatchedPart { text: Cow::Borrowed(part), head: serde_json::from_str(part).ok()? });
        }
        let changed = parts.len() != count;
        turns.push(Content { model: head.role.as_deref() == Some("model"), text, parts, changed });
    }
    Some(turns)
}

impl Content<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        if !self.changed {
            return out.extend_from_slice(self.text.as_bytes());
        }
        let mut parts = Vec::new();
        json::array(&mut parts, |a| self.parts.iter().for_each(|part| a.raw(&part.text)));
        let mut patch = Patch::new(self.text.as_bytes());
        patch.set(0, "parts", parts);
        out.extend_from_slice(&patch.apply());
    }

    fn has_results(&self) -> bool {
        self.parts.iter().any(|part| part.head.function_response.is_some())
    }
}

/// Puts all results of a turn's calls into the content right behind it, first, and names them.
fn regroup<'a>(turns: Vec<Content<'a>>, losses: &mut Losses) -> Vec<Content<'a>> {
    let mut out = Vec::with_capacity(turns.len());
    let mut turns = turns.into_iter().peekable();
    while let Some(turn) = turns.next() {
        let calls: Vec<Named<'_>> = turn
            .parts
            .iter()
            .filter(|_| turn.model)
            .filter_map(|part| part.head.function_call.clone())
            .collect();
        out.push(turn);
        if calls.is_empty() {
            continue;
        }
        let mut behind: Vec<Content<'a>> = Vec::new();
        while let Some(turn) = turns.next_if(|turn| !turn.model) {
            behind.push(turn);
        }
        if behind.iter().skip(1).any(Content::has_results) {
            losses.member(LossKind::ToolPairing, "contents");
            let later: Vec<_> = behind.drain(1..).flat_map(|turn| turn.parts).collect();
            if let Some(first) = behind.first_mut() {
                first.parts.extend(later);
                first.parts.sort_by_key(|part| part.head.function_response.is_none());
                first.changed = true;
            }
        }
        if let Some(first) = behind.first_mut() {
            name_results(first, &calls);
        }
        out.append(&mut behind);
    }
    out
}

/// Gives results the name of their call: by id, else the first call that is left.
fn name_results(turn: &mut Content<'_>, calls: &[Named<'_>]) {
    let results = || turn.parts.iter().filter_map(|part| part.head.function_response.as_ref());
    let named = |result: &&Named<'_>| result.name.as_deref().is_some_and(|name| !name.is_empty());
    if results().all(|result| named(&result)) {
        return;
    }
    let mut taken: HashMap<&str, usize> = HashMap::new();
    for result in results().filter(named) {
        *taken.entry(result.name.as_deref().unwrap_or_default()).or_default() += 1;
    }
    let mut left: VecDeque<&Named<'_>> = VecDeque::new();
    for call in calls {
        match taken.get_mut(call.name.as_deref().unwrap_or_default()) {
            Some(count) if *count > 0 => *count -= 1,
            _ => left.push_back(call),
        }
    }
    let by_id: HashMap<&str, &str> =
        left.iter().filter_map(|call| Some((call.id.as_deref()?, call.name.as_deref()?))).collect();
    let answered: HashSet<String> = results()
        .filter_map(|result| result.id.as_deref())
        .filter(|id| by_id.contains_key(id))
        .map(str::to_owned)
        .collect();
    left.retain(|call| call.id.as_deref().is_none_or(|id| !answered.contains(id)));
    for part in &mut turn.parts {
        let Some(result) = part.head.function_response.as_ref().filter(|result| !named(result)) else {
            continue;
        };
        let same = result.id.as_deref().and_then(|id| by_id.get(id).copied());
        let Some(name) = same.or_else(|| left.pop_front()?.name.as_deref()) else { continue };
        let name = json::string(name);
        part.edit(|patch, part| {
            let response =
                members(part, 0).find(|m| matches!(m.key, b"functionResponse" | b"function_response"));
            if let Some(response) = response {
                patch.set(response.value.start, "name", name);
            }
        });
        turn.changed = true;
    }
}

impl PatchedPart<'_> {
    fn edit(&mut self, change: impl FnOnce(&mut Patch<'_>, &[u8])) {
        let text = {
            let mut patch = Patch::new(self.text.as_bytes());
            change(&mut patch, self.text.as_bytes());
            patch.apply()
        };
        if let Ok(text) = String::from_utf8(text) {
            self.text = Cow::Owned(text);
        }
    }

    fn set_signature(&mut self, value: Option<&str>) {
        self.edit(|patch, _| {
            patch.remove(0, "thought_signature");
            match value {
                Some(value) => patch.set(0, "thoughtSignature", json::string(value)),
                None => patch.remove(0, "thoughtSignature"),
            }
        });
    }
}

/// What happens to the signature of a part.
enum Verdict {
    Keep,
    Set(String),
    Clear,
    /// The part means nothing without it.
    Drop,
}

/// Makes the signatures of a model's turn the backend's own.
fn sign(turn: &mut Content<'_>, flavour: Flavour, losses: &mut Losses) {
    let mut called = false;
    let mut changed = false;
    turn.parts.retain_mut(|part| {
        let first_call = part.head.function_call.is_some() && !called;
        called |= first_call;
        let verdict = verdict(&part.head, first_call, flavour);
        if let Verdict::Keep = verdict {
            return true;
        }
        changed = true;
        if part.head.thought_signature.is_some() {
            losses.member(LossKind::Signature, "contents");
        }
        match verdict {
            Verdict::Keep => {}
            Verdict::Set(value) => part.set_signature(Some(&value)),
            Verdict::Clear => part.set_signature(None),
            Verdict::Drop => return false,
        }
        true
    });
    turn.changed |= changed;
}

fn verdict(part: &PartHead<'_>, first_call: bool, flavour: Flavour) -> Verdict {
    let thought = part.thought == Some(true);
    let Some(written) = part.thought_signature.as_deref().filter(|value| !value.is_empty()) else {
        let checked = flavour.google && (flavour.wrapped() || !flavour.lenient());
        return match (first_call && checked, thought && flavour.claude) {
            (true, _) => Verdict::Set(SENTINEL.to_owned()),
            // Claude refuses thinking that it did not sign.
            (false, true) => Verdict::Drop,
            (false, false) => Verdict::Keep,
        };
    };
    if is_sentinel(written) {
        return if flavour.google { Verdict::Keep } else { Verdict::Clear };
    }
    let signature = Signature::detect(written);
    let known = |signature: &Signature<'_>| signature.vendor != Vendor::Unknown;
    let own = match signature.as_ref().filter(|signature| known(signature)) {
        Some(signature) => flavour.own_signature(signature),
        // What nobody recognises is left for the vendor to judge.
        None if redacted(written).is_none() => return Verdict::Keep,
        None => None,
    };
    match own {
        Some(own) if own == written => Verdict::Keep,
        Some(own) => Verdict::Set(own.into_owned()),
        None if first_call && flavour.google => Verdict::Set(SENTINEL.to_owned()),
        None if thought => Verdict::Drop,
        None => Verdict::Clear,
    }
}

#[cfg(test)]
mod tests {
    use super::super::flavour::tests::target;
    use super::*;
    use crate::target::{Card, Profile};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use std::sync::LazyLock;

    static CARD: LazyLock<Card> = LazyLock::new(Card::default);

    fn repaired(profile: Profile, model: &'static str, contents: &str) -> Option<String> {
        let flavour = Flavour::of(&target(profile, model, &CARD));
        let out = repair_contents(contents.as_bytes(), flavour, &mut Losses::default())?;
        Some(String::from_utf8(out).unwrap())
    }

    fn flash(contents: &str) -> Option<String> {
        repaired(Profile::Gemini, "gemini-2.5-flash", contents)
    }

    #[test]
    fn scattered_results_are_put_behind_their_calls() {
        let calls =
            r#"{"role":"model","parts":[{"functionCall":{"name":"f"}},{"functionCall":{"name":"g"}}]}"#;
        let contents = format!(
            r#"[{{"parts":[{{"text":"q"}}]}},{calls},{{"parts":[{{"text":"t"}},{{"functionResponse":{{"name":"f","response":{{}}}}}}]}}, {{"role":"function","parts":[{{"function_response":{{"name":"g","response":{{}}}}}}]}},{{"role":"model","parts":[{{"text":"a"}}]}}]"#
        );
        assert_eq!(
            flash(&contents).unwrap(),
            format!(
                r#"[{{"parts":[{{"text":"q"}}]}},{calls},{{"parts":[{{"functionResponse":{{"name":"f","response":{{}}}}}},{{"function_response":{{"name":"g","response":{{}}}}}},{{"text":"t"}}]}},{{"role":"model","parts":[{{"text":"a"}}]}}]"#
            )
        );
    }

    #[test]
    fn nameless_results_get_the_name_of_their_call() {
        let contents = r#"[{"parts":[{"text":"q"}]},{"role":"model","parts":[{"functionCall":{"id":"1","name":"f"}},{"functionCall":{"id":"2","name":"g"}}]},{"parts":[{"functionResponse":{"id":"2","response":{}}},{"functionResponse":{"response":{}}}]}]"#;
        let out = flash(contents).unwrap();
        assert!(out.ends_with(
            r#"{"parts":[{"functionResponse":{"name":"g","id":"2","response":{}}},{"functionResponse":{"name":"f","response":{}}}]}]"#
        ));
    }

    #[test]
    fn empty_contents_go_and_a_model_does_not_begin() {
        let contents = r#"[{"role":"user","parts":[]},{"role":"model","parts":[{},{"text":"a"}]}]"#;
        assert_eq!(
            flash(contents).unwrap(),
            r#"[{"role":"user","parts":[{"text":"."}]},{"role":"model","parts":[{"text":"a"}]}]"#
        );
        assert_eq!(flash(r#"[{"parts":[{"text":"a"}]}]"#), None);
        assert_eq!(flash(r#"[{"parts":[{"text":7}]}]"#), None);
        assert_eq!(flash(r#"{"parts":"x"}"#), None);
    }

    #[test]
    fn signatures_of_other_vendors_do_not_get_through() {
        let claude = STANDARD.encode([&[0x12, 0x04, 0x0a, 0x02, 0x08, 0x0a][..], &[0; 20]].concat());
        let own = STANDARD.encode([0x12, 0x05, 0x0a, 0x03, 0x01, 0x0c, 0x39]);
        let turn = |sign: &str| {
            format!(
                r#"[{{"parts":[{{"text":"q"}}]}},{{"role":"model","parts":[{{"thought":true,"text":"t","thoughtSignature":"{sign}"}},{{"functionCall":{{"name":"f"}},"thought_signature":"{sign}"}},{{"functionCall":{{"name":"f"}}}}]}}]"#
            )
        };
        let out = flash(&turn(&claude)).unwrap();
        assert!(!out.contains(&claude) && !out.contains("\"t\""));
        assert_eq!(out.matches(SENTINEL).count(), 1);
        assert_eq!(flash(&turn(&own)), None);
        let redacted = super::super::answer_parts::redacted_signature("data");
        let out = flash(&turn(&redacted)).unwrap();
        assert!(!out.contains(&redacted) && out.matches("functionCall").count() == 2);
        let out = repaired(Profile::Antigravity, "claude-sonnet-4-6", &turn(&claude)).unwrap();
        assert!(out.contains(&crate::signature::wrap_vertex(&claude)));
        let out = repaired(Profile::Antigravity, "claude-sonnet-4-6", &turn(&own)).unwrap();
        assert!(!out.contains(&own) && !out.contains(SENTINEL));
    }

    #[test]
    fn unsigned_calls_are_only_marked_where_they_are_checked() {
        let contents =
            r#"[{"parts":[{"text":"q"}]},{"role":"model","parts":[{"functionCall":{"name":"f"}}]}]"#;
        assert_eq!(flash(contents), None);
        for (profile, model) in
            [(Profile::Gemini, "gemini-3-pro-preview"), (Profile::GeminiCli, "gemini-2.5-pro")]
        {
            assert!(repaired(profile, model, contents).unwrap().contains(SENTINEL));
        }
    }
}
