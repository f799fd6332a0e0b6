//! Client body → upstream body of the same format, changed on its bytes.
//!
//! Enters: a body that [`crate::head`] has checked, and what routing decided. Leaves: the body with the
//! model, the stream flag and the effort that the route wants, and without what the upstream would refuse;
//! every other byte stays. May go wrong: nothing; what is taken out is recorded.
//!
//! | edit | upstreams |
//! |---|---|
//! | model, `stream`, `reasoning.effort` out of the model's range | all |
//! | the items, see [`super::patch_items`] | all |
//! | the table in [`super::codex`] | Codex |

use super::codex;
use super::write_request::effort_word;
use crate::head::Head;
use crate::ir::{LossKind, Losses, Str};
use crate::json;
use crate::patch::{Member, Patch, elements, members, scanned};
use crate::target::{Profile, Target};
use crate::thinking::{Mode, Support};
use std::borrow::Cow;
use std::ops::Range;

/// Edits of one body.
#[derive(Debug)]
pub(super) struct Edits<'a, 'l> {
    pub(super) body: &'a [u8],
    /// Its members, found once: bodies are large.
    top: Vec<Member<'a>>,
    pub(super) patch: Patch<'a>,
    pub(super) codex: bool,
    pub(super) losses: &'l mut Losses,
}

/// Changes a body of `POST /responses`.
pub(super) fn patch_request<'a>(
    body: &'a [u8],
    head: &Head,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Cow<'a, [u8]> {
    let mut edits = Edits::new(body, head, target, losses);
    edits.model(head, target);
    edits.effort(target);
    let stream = edits.codex || target.stream;
    if stream != head.stream {
        edits.patch.set(0, "stream", if stream { "true" } else { "false" });
    }
    edits.input();
    if edits.codex {
        edits.store();
        edits.instructions();
        edits.include();
        edits.refused();
        edits.tools();
    }
    edits.apply()
}

impl<'a, 'l> Edits<'a, 'l> {
    pub(super) fn new(body: &'a [u8], head: &Head, target: &Target<'_>, losses: &'l mut Losses) -> Self {
        let top = scanned(body, &head.members).collect();
        Self {
            body,
            top,
            patch: Patch::scanned(body, &head.members),
            codex: target.profile == Profile::Codex,
            losses,
        }
    }

    pub(super) fn apply(self) -> Cow<'a, [u8]> {
        if self.patch.is_empty() { Cow::Borrowed(self.body) } else { Cow::Owned(self.patch.apply()) }
    }

    /// The last top-level member `key`, unless it is `null`.
    pub(super) fn top(&self, key: &str) -> Option<Member<'a>> {
        let found = self.top.iter().rfind(|member| member.key == key.as_bytes())?;
        (self.raw(&found.value) != b"null").then(|| found.clone())
    }

    /// The last member `key` of the object at `from`, unless it is `null`.
    fn member(&self, from: usize, key: &str) -> Option<Member<'a>> {
        let found = members(self.body, from).filter(|member| member.key == key.as_bytes()).last()?;
        (self.raw(&found.value) != b"null").then_some(found)
    }

    pub(super) fn raw(&self, span: &Range<usize>) -> &'a [u8] {
        self.body.get(span.clone()).unwrap_or_default()
    }

    /// The string at `span`; `None` when there is none.
    pub(super) fn text(&self, span: &Range<usize>) -> Option<Str<'a>> {
        let raw = std::str::from_utf8(self.raw(span)).ok()?;
        let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
        if inner.contains('\\') {
            return serde_json::from_str::<String>(raw).ok().map(Cow::Owned);
        }
        Some(Cow::Borrowed(inner))
    }

    fn text_of(&self, from: usize, key: &str) -> Option<Str<'a>> {
        self.text(&self.member(from, key)?.value)
    }

    pub(super) fn model(&mut self, head: &Head, target: &Target<'_>) {
        let Some(span) = head.model_span.clone() else { return };
        if self.text(&span).is_none_or(|model| model != target.model) {
            self.patch.replace(span, json::string(target.model));
        }
    }

    /// The planned effort, else the client's in words that the API knows.
    pub(super) fn effort(&mut self, target: &Target<'_>) {
        let reasoning = self.top("reasoning");
        if target.card.thinking == Support::Never {
            if reasoning.is_some() {
                self.patch.remove(0, "reasoning");
                self.losses.member(LossKind::Setting, "reasoning");
            }
            return;
        }
        let at = reasoning.map(|member| member.value.start);
        let written = at.and_then(|at| self.text_of(at, "effort"));
        let asked = written.as_deref().and_then(Mode::parse);
        // Nothing was asked, or in words that only the upstream may know.
        let Some(mode) = target.thinking.or(asked) else { return };
        match (effort_word(mode), at) {
            (Some(word), _) if written.as_deref() == Some(word) => {}
            (Some(word), Some(at)) => self.patch.set(at, "effort", json::string(word)),
            (Some(word), None) => self.patch.set(0, "reasoning", format!(r#"{{"effort":"{word}"}}"#)),
            (None, Some(at)) => self.patch.remove(at, "effort"),
            (None, None) => {}
        }
    }

    fn store(&mut self) {
        if self.top("store").is_none_or(|store| self.raw(&store.value) != b"false") {
            self.patch.set(0, "store", "false");
        }
    }

    pub(super) fn instructions(&mut self) {
        if self.top("instructions").is_none() {
            self.patch.set(0, "instructions", "\"\"");
        }
    }

    fn include(&mut self) {
        let name = json::string(codex::ENCRYPTED);
        let Some(member) = self.top("include") else {
            return self.patch.set(0, "include", format!("[{name}]"));
        };
        let names = elements(self.body, member.value.start);
        if names.iter().any(|span| self.raw(span) == name.as_bytes()) {
            return;
        }
        match names.last() {
            Some(last) => self.patch.replace(last.end..last.end, format!(",{name}")),
            None => self.patch.replace(member.value, format!("[{name}]")),
        }
    }

    /// Takes out a top-level member; whether it was there.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let found = self.top.iter().any(|member| member.key == name.as_bytes());
        if found {
            self.patch.remove(0, name);
        }
        found
    }

    /// Takes out what the Codex backend refuses.
    pub(super) fn refused(&mut self) {
        for name in codex::REFUSED {
            if self.remove(name) {
                self.losses.member(LossKind::Setting, name);
            }
        }
        if self
            .top("service_tier")
            .and_then(|tier| self.text(&tier.value))
            .is_some_and(|tier| tier != codex::PRIORITY)
        {
            self.patch.remove(0, "service_tier");
            self.losses.member(LossKind::Setting, "service_tier");
        }
    }

    /// Codex knows one web search, and no choice among no tools.
    pub(super) fn tools(&mut self) {
        let tools = self.top("tools").map(|member| elements(self.body, member.value.start));
        if tools.as_ref().is_none_or(Vec::is_empty) {
            for name in ["tools", "tool_choice", "parallel_tool_calls"] {
                self.remove(name);
            }
            return;
        }
        for span in tools.into_iter().flatten() {
            self.web_search(span.start);
        }
        if let Some(choice) = self.top("tool_choice") {
            self.web_search(choice.value.start);
            let allowed = self.member(choice.value.start, "tools");
            for span in allowed.map(|member| elements(self.body, member.value.start)).into_iter().flatten() {
                self.web_search(span.start);
            }
        }
    }

    fn web_search(&mut self, at: usize) {
        let Some(kind) = self.member(at, "type") else { return };
        if self.text(&kind.value).is_some_and(|kind| kind.starts_with("web_search_")) {
            self.patch.replace(kind.value, json::string("web_search"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;
    use crate::head;
    use crate::target::Card;
    use crate::thinking::{Bounds, Level};
    use proptest::prelude::*;

    const SEALED: &str = "gAAAAABlAAAANnEGZNYbkpXlQl_wDWX7-jretna0etgTaKBYcMCIngnhxCyhqQGY_b-UO62upyk95H8A3Io4IW0s0ms9GCzNnjKwxlN5Tk6fkelgEy_MeewZWaXBokj5fD6L9a0G5jNcV62BGwRHDwhoQGANV1ws0Q==";
    const CLAUDE: &str = "EgQKAggKAAAAAAAAAAAAAAAAAAAAAAAA";

    fn levels() -> Card {
        let levels = vec![Level::Low, Level::Medium, Level::High];
        Card { thinking: Support::Bounded(Bounds { levels, ..Bounds::default() }), ..Card::default() }
    }

    fn patched(profile: Profile, body: &str, thinking: Option<Mode>) -> (String, String) {
        let head = head::parse(body.as_bytes(), Protocol::OpenaiResponses).unwrap();
        let card = levels();
        let target =
            Target { profile, model: "gpt-5.4", card: &card, stream: head.stream, thinking, project: "" };
        let mut losses = Losses::default();
        let out = patch_request(body.as_bytes(), &head, &target, &mut losses).into_owned();
        (String::from_utf8(out).unwrap(), losses.to_string())
    }

    fn codex(body: &str) -> String {
        patched(Profile::Codex, body, None).0
    }

    #[test]
    fn a_body_that_fits_is_not_touched() {
        let body = r#"{ "model":"gpt-5.4", "input" : "hi", "temperature": 1.0e0, "stream":true }"#;
        assert_eq!(patched(Profile::Responses, body, None).0, body);
        let body = format!(
            r#"{{"model":"gpt-5.4","instructions":"x","input":[{{"role":"user","content":"hi"}},{{"type":"reasoning","summary":[ ],"encrypted_content":"{SEALED}"}}],"tools":[{{"type":"custom","name":"t"}}],"include":["reasoning.encrypted_content"],"store":false,"stream":true, "x":1.50}}"#
        );
        assert_eq!(codex(&body), body);
    }

    #[test]
    fn codex_gets_what_it_insists_on() {
        let body = r#"{"model":"x","input":"a \"b\"","temperature":0.2,"user":"u","service_tier":"flex","tools":[],"parallel_tool_calls":true,"previous_response_id":"r","prompt_cache_key":"k"}"#;
        let (out, losses) = patched(Profile::Codex, body, None);
        assert_eq!(
            out,
            r#"{"stream":true,"store":false,"instructions":"","include":["reasoning.encrypted_content"],"model":"gpt-5.4","input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"a \"b\""}]}],"prompt_cache_key":"k"}"#
        );
        assert_eq!(
            losses,
            "setting temperature, setting user, setting previous_response_id, setting service_tier"
        );
    }

    #[test]
    fn roles_references_ids_and_web_search() {
        let long = "c".repeat(70);
        let body = format!(
            r#"{{"model":"x","stream":true,"instructions":null,"include":["a"],"store":true,
            "input":[{{"role":"system","content":"s"}},{{"id":"msg_1"}},{{"type":"message","id":"item_1", "role":"assistant","content":[]}},
            {{"type":"function_call","id":"fc_1","call_id":"{long}","name":"f","arguments":"{{\"role\":\"system\"}}"}}],
            "tools":[{{"type":"web_search_preview_2025_03_11"}}],"tool_choice":{{"type":"web_search_preview"}}}}"#
        );
        let out = codex(&body);
        assert!(
            out.contains(r#"[{"role":"developer","content":"s"},{"type":"message","role":"assistant""#),
            "{out}"
        );
        assert!(out.contains(r#"{"type":"function_call","id":"fc_1","call_id":"ccc"#), "{out}");
        assert!(!out.contains(&long) && out.contains(r#"{\"role\":\"system\"}"#), "{out}");
        assert!(out.contains(r#"["a","reasoning.encrypted_content"]"#), "{out}");
        assert!(
            out.contains(r#""tools":[{"type":"web_search"}],"tool_choice":{"type":"web_search"}"#),
            "{out}"
        );
        assert!(out.contains(r#""instructions":"""#) && out.contains(r#""store":false"#), "{out}");
    }

    #[test]
    fn reasoning_of_other_vendors_is_taken_out() {
        let own =
            format!(r#"{{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"{SEALED}"}}"#);
        let theirs =
            format!(r#"{{"type":"reasoning","id":"rs_2","summary":[],"encrypted_content":"{CLAUDE}"}}"#);
        let made = r#"{"type":"reasoning","id":"rs_0123456789abcdef0123456789abcdef_0","summary":[]}"#;
        let stored = r#"{"type":"reasoning","id":"rs_68af","summary":[]}"#;
        let body = |items: &[&str]| format!(r#"{{"model":"gpt-5.4","input":[{}]}}"#, items.join(","));
        let text = r#"{"role":"user","content":"hi"}"#;
        let all = body(&[&theirs, text, &own, made, stored, text, &theirs]);
        assert_eq!(patched(Profile::Responses, &all, None).0, body(&[text, &own, stored, text]));
        let (out, losses) = patched(Profile::Codex, &all, None);
        let bare = own.replace(r#""id":"rs_1","#, "");
        assert!(out.ends_with(&format!(r#""input":[{text},{bare},{text}]}}"#)), "{out}");
        assert_eq!(losses.matches("signature").count(), 4);
        let (out, _) = patched(Profile::Responses, &body(&[made, &theirs]), None);
        assert_eq!(out, body(&[]));
    }

    #[test]
    fn codex_gets_both_halves_of_each_call() {
        let call = |id: &str| {
            format!(r#"{{"type":"function_call","call_id":"{id}","name":"f","arguments":"{{}}"}}"#)
        };
        let output = |id: &str, text: &str| {
            format!(r#"{{"type":"function_call_output","call_id":"{id}","output":{text}}}"#)
        };
        let body = |items: &[String]| format!(r#"{{"model":"gpt-5.4","input":[{}]}}"#, items.join(","));
        let sent = body(&[
            output("gone", r#""x \n""#),
            call("a"),
            output("gone2", r#"[{"type":"input_text","text":"y"}]"#),
            call("b"),
            output("a", r#""1""#),
        ]);
        let message = |text: &str| {
            format!(r#"{{"type":"message","role":"user","content":[{{"type":"input_text","text":{text}}}]}}"#)
        };
        let expected = [
            message(r#""x \n""#),
            call("a"),
            message(r#""y""#),
            call("b"),
            output("b", r#""The tool call was interrupted and has no result.""#),
            output("a", r#""1""#),
        ];
        let (out, losses) = patched(Profile::Codex, &sent, None);
        assert!(out.ends_with(&format!(r#""input":[{}]}}"#, expected.join(","))), "{out}");
        assert_eq!(losses.matches("tool-pairing").count(), 3);
        assert_eq!(patched(Profile::Responses, &sent, None).0, sent);
    }

    #[test]
    fn the_planned_effort_wins() {
        let with = |effort: &str| {
            format!(
                r#"{{"model":"gpt-5.4","input":"x","reasoning":{{"effort":"{effort}","summary":"auto"}}}}"#
            )
        };
        let out = |effort: &str, route| patched(Profile::Responses, &with(effort), route).0;
        assert_eq!(out("low", None), with("low"));
        assert_eq!(out("ultra", None), with("ultra"));
        assert_eq!(out("low", Some(Mode::Level(Level::High))), with("high"));
        let bare = r#"{"model":"gpt-5.4","input":"x"}"#;
        assert_eq!(
            patched(Profile::Responses, bare, Some(Mode::Level(Level::Low))).0,
            r#"{"reasoning":{"effort":"low"},"model":"gpt-5.4","input":"x"}"#
        );
    }

    proptest! {
        #[test]
        fn p33_unknown_members_and_items_survive(
            members in prop::collection::vec(("x_[a-z]{1,4}", "[0-9]\\.[0-9]{1,3}|\\{ \"role\":\"system\" \\}|\"[a-z ]{0,5}\""), 0..5),
            items in prop::collection::vec("[a-z ,\\]\\[]{0,8}", 1..5),
        ) {
            let entries: Vec<String> = members
                .iter()
                .enumerate()
                .map(|(n, (key, value))| format!(", \"{key}{n}\" : {value}"))
                .collect();
            let items: Vec<_> = items.iter().map(|t| format!(r#"{{ "role":"user", "content":"{t}"}}"#)).collect();
            let body = format!(r#"{{"model":"m"{}, "input":[{}]}}"#, entries.concat(), items.join(" , "));
            let out = codex(&body);
            prop_assert!(head::parse(out.as_bytes(), Protocol::OpenaiResponses).is_ok());
            for entry in &entries {
                prop_assert!(out.contains(entry.trim_start_matches(", ")));
            }
            prop_assert!(out.contains(&items.join(" , ")));
        }
    }
}
