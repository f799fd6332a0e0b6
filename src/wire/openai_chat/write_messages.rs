//! Turns → `messages` of an upstream body.
//!
//! Enters: turns in which every call is answered right behind its turn. Leaves: messages as the oldest
//! compatible server takes them: one system message, tool messages that hold only text, and what a role
//! cannot hold (pictures of tools and of the model) in the user message that follows, with a line that says
//! where it is from. May go wrong: nothing; what cannot be said is recorded.

use super::write_parts::{self, Piece};
use crate::ir::{
    Instruction, LossKind, Losses, Part, Reasoning, Request, Role, ToolCall, ToolKind, ToolResult, Turn,
};
use crate::json::{Array, Object, Path};

/// What is sent when there are only instructions: several servers refuse a body without a user message.
const GO_AHEAD: &str = "Go ahead.";

/// Writes all messages. `false`: there was nothing to say.
pub(super) fn write(request: &Request<'_>, openai: bool, a: &mut Array<'_>, losses: &mut Losses) -> bool {
    instructions(&request.system, openai, a);
    let instructed = !request.system.is_empty();
    let mut writer = Writer { openai, deferred: Vec::new(), instructed, said: false };
    let root = Path::Root;
    let turns = root.key("turns");
    for (n, turn) in request.turns.iter().enumerate() {
        writer.turn(turn, &turns.index(n), a, losses);
    }
    writer.flush(None, a);
    if writer.instructed && !writer.said {
        a.object(|o| {
            o.str("role", "user");
            o.str("content", GO_AHEAD);
        });
    }
    writer.instructed || writer.said
}

/// The role of instructions: `developer` where the client said so and the model is known to know it.
fn instruction_role(developer: bool, openai: bool) -> &'static str {
    if developer && openai { "developer" } else { "system" }
}

/// Neighbours of one role make one message: chat templates exist that take only one.
fn instructions(all: &[Instruction<'_>], openai: bool, a: &mut Array<'_>) {
    let role = |line: &Instruction<'_>| instruction_role(line.developer, openai);
    for run in all.chunk_by(|one, next| role(one) == role(next)) {
        let Some(first) = run.first() else { continue };
        a.object(|o| {
            o.str("role", role(first));
            if let [only] = run {
                return o.str("content", &only.text);
            }
            let lines: Vec<&str> = run.iter().map(|line| line.text.as_ref()).collect();
            o.str("content", &lines.join("\n\n"));
        });
    }
}

struct Writer<'r> {
    openai: bool,
    /// Content that waits for a user message.
    deferred: Vec<Piece<'r>>,
    /// Instructions were written.
    instructed: bool,
    /// A message other than instructions was written.
    said: bool,
}

impl<'r> Writer<'r> {
    fn turn(&mut self, turn: &'r Turn<'_>, at: &Path<'_>, a: &mut Array<'_>, losses: &mut Losses) {
        match turn.role {
            Role::User => self.user(turn, at, a, losses),
            Role::Assistant => {
                self.flush(None, a);
                self.assistant(turn, at, a, losses);
            }
            Role::System | Role::Developer => {
                self.flush(None, a);
                self.instructed = true;
                let text = write_parts::joined(&turn.parts);
                a.object(|o| {
                    o.str("role", instruction_role(turn.role == Role::Developer, self.openai));
                    o.str("content", &text);
                });
            }
        }
    }

    fn user(&mut self, turn: &'r Turn<'_>, at: &Path<'_>, a: &mut Array<'_>, losses: &mut Losses) {
        for part in &turn.parts {
            if let Part::ToolResult(result) = part {
                self.result(result, at, a, losses);
            }
        }
        for part in turn.parts.iter().filter(|part| !matches!(part, Part::ToolResult(_))) {
            self.deferred.extend(write_parts::piece(part, at, losses));
        }
        self.flush(turn.name.as_deref(), a);
    }

    fn result(&mut self, result: &'r ToolResult<'_>, at: &Path<'_>, a: &mut Array<'_>, losses: &mut Losses) {
        let mut text = result.text();
        let attached: Vec<Piece<'r>> = result
            .parts
            .iter()
            .filter(|part| write_parts::is_attachment(part))
            .filter_map(|part| write_parts::piece(part, at, losses))
            .collect();
        if !attached.is_empty() {
            let name = result.name.as_deref().unwrap_or("the tool");
            let note = format!("[Attached to the result of {name}, call {}]", result.call_id);
            self.deferred.push(Piece::Text(note.into()));
            self.deferred.extend(attached);
            if text.is_empty() {
                text.push_str("The result is attached to the next user message.");
            }
        }
        if result.is_error {
            // The format has no flag for it.
            text.insert_str(0, if text.is_empty() { "Error" } else { "Error: " });
        }
        a.object(|o| {
            o.str("role", "tool");
            o.str("tool_call_id", &result.call_id);
            o.str("content", &text);
        });
        self.said = true;
    }

    /// Writes the user message that is due, if there is anything for it.
    fn flush(&mut self, name: Option<&str>, a: &mut Array<'_>) {
        let pieces = std::mem::take(&mut self.deferred);
        if pieces.is_empty() {
            return;
        }
        a.object(|o| {
            o.str("role", "user");
            o.opt_str("name", name);
            match pieces.as_slice() {
                [Piece::Text(text)] => o.str("content", text),
                pieces => o.array("content", |a| pieces.iter().for_each(|piece| piece.write(a))),
            }
        });
        self.said = true;
    }

    fn assistant(&mut self, turn: &'r Turn<'_>, at: &Path<'_>, a: &mut Array<'_>, losses: &mut Losses) {
        let (mut reasoning, mut calls) = (Vec::new(), Vec::new());
        for part in &turn.parts {
            match part {
                Part::Reasoning(thought) => {
                    self.reasoning(thought, &mut reasoning, at, losses);
                }
                Part::ToolCall(call) => calls.push(call),
                Part::Server(_) => losses.at(LossKind::Builtin, at),
                Part::Image(_) | Part::Audio(_) | Part::Document(_) => {
                    if let Some(piece) = write_parts::piece(part, at, losses) {
                        self.deferred.push(Piece::Text("[Part of your previous message]".into()));
                        self.deferred.push(piece);
                    }
                }
                // Text and the like are joined below; results are never in this turn.
                _ => {}
            }
        }
        let text = write_parts::joined(&turn.parts);
        if text.is_empty() && calls.is_empty() {
            if !reasoning.is_empty() {
                // Thinking alone makes no message.
                losses.at(LossKind::Signature, at);
            }
            return;
        }
        a.object(|o| {
            o.str("role", "assistant");
            o.opt_str("name", turn.name.as_deref());
            o.nullable_str("content", Some(text.as_ref()).filter(|text| !text.is_empty()));
            if !reasoning.is_empty() {
                o.str("reasoning_content", &reasoning.join("\n\n"));
            }
            if !calls.is_empty() {
                o.array("tool_calls", |a| calls.iter().for_each(|call| a.object(|o| write_call(call, o))));
            }
        });
        self.said = true;
    }

    /// Keeps the text of a thought; what proves it means nothing here.
    fn reasoning<'p>(
        &self,
        thought: &'p Reasoning<'_>,
        texts: &mut Vec<&'p str>,
        at: &Path<'_>,
        losses: &mut Losses,
    ) {
        // OpenAI's own API refuses members of messages that it does not know.
        if !self.openai {
            texts.extend(thought.text.iter().map(AsRef::as_ref));
        }
        let lost = self.openai && !thought.text.is_empty();
        if lost || thought.signature.is_some() || thought.redacted.is_some() {
            losses.at(LossKind::Signature, at);
        }
    }
}

fn write_call(call: &ToolCall<'_>, o: &mut Object<'_>) {
    o.str("id", &call.id);
    if call.kind == ToolKind::Custom {
        o.str("type", "custom");
        o.object("custom", |o| {
            o.str("name", &call.name);
            o.str("input", &call.arguments);
        });
    } else {
        o.str("type", "function");
        o.object("function", |o| {
            o.str("name", &call.name);
            o.str("arguments", &call.object());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Image, Source, Text};
    use crate::signature::{Signature, Vendor};

    fn run(request: &Request<'_>, openai: bool) -> (String, String) {
        let (mut out, mut losses) = (Vec::new(), Losses::default());
        crate::json::array(&mut out, |a| {
            write(request, openai, a, &mut losses);
        });
        (String::from_utf8(out).unwrap(), losses.to_string())
    }

    fn messages(turns: Vec<Turn<'_>>) -> String {
        run(&Request { turns, ..Request::default() }, false).0
    }

    fn text(text: &'static str) -> Part<'static> {
        Part::Text(Text::plain(text))
    }

    fn call(id: &'static str) -> Part<'static> {
        Part::ToolCall(ToolCall {
            id: id.into(),
            name: "f".into(),
            namespace: None,
            kind: ToolKind::Function,
            arguments: "".into(),
            signature: None,
            cache: None,
        })
    }

    fn result(id: &'static str, parts: Vec<Part<'static>>, is_error: bool) -> Part<'static> {
        Part::ToolResult(ToolResult {
            call_id: id.into(),
            name: Some("f".into()),
            parts,
            is_error,
            kind: ToolKind::Function,
            cache: None,
        })
    }

    fn image() -> Part<'static> {
        let source = Source::Url { url: "https://x".into(), mime: None };
        Part::Image(Image { source, detail: None, cache: None })
    }

    fn line(text: &'static str, developer: bool) -> Instruction<'static> {
        Instruction { text: text.into(), developer, cache: None }
    }

    const CALL: &str = r#"{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}"#;

    #[test]
    fn instructions_are_one_system_message() {
        let system = vec![line("a", false), line("b", true), line("c", true)];
        let request =
            Request { system, turns: vec![Turn::new(Role::User, vec![text("q")])], ..Request::default() };
        assert_eq!(
            run(&request, false).0,
            r#"[{"role":"system","content":"a\n\nb\n\nc"},{"role":"user","content":"q"}]"#
        );
        assert_eq!(
            run(&request, true).0,
            r#"[{"role":"system","content":"a"},{"role":"developer","content":"b\n\nc"},{"role":"user","content":"q"}]"#
        );
    }

    #[test]
    fn instructions_alone_get_a_user_message() {
        let request = Request { system: vec![line("Say hello.", false)], ..Request::default() };
        assert_eq!(
            run(&request, false).0,
            r#"[{"role":"system","content":"Say hello."},{"role":"user","content":"Go ahead."}]"#
        );
        assert_eq!(
            messages(vec![Turn::new(Role::System, vec![text("late")])]),
            r#"[{"role":"system","content":"late"},{"role":"user","content":"Go ahead."}]"#
        );
    }

    #[test]
    fn results_follow_their_calls_and_text_follows_the_results() {
        let got = messages(vec![
            Turn::new(Role::Assistant, vec![text("Looking."), call("1")]),
            Turn::new(
                Role::User,
                vec![result("1", vec![text("21C"), text("sunny")], false), text("and Rome?")],
            ),
        ]);
        let expected = format!(
            r#"[{{"role":"assistant","content":"Looking.","tool_calls":[{CALL}]}},{}]"#,
            r#"{"role":"tool","tool_call_id":"1","content":"21C\nsunny"},{"role":"user","content":"and Rome?"}"#
        );
        assert_eq!(got, expected);
    }

    #[test]
    fn pictures_of_a_result_go_to_the_next_user_message_with_their_origin() {
        let got = messages(vec![
            Turn::new(Role::Assistant, vec![call("1")]),
            Turn::new(Role::User, vec![result("1", vec![image()], false)]),
            Turn::new(Role::Assistant, vec![text("ok")]),
        ]);
        let expected = format!(
            r#"[{{"role":"assistant","content":null,"tool_calls":[{CALL}]}},{},{},{}]"#,
            r#"{"role":"tool","tool_call_id":"1","content":"The result is attached to the next user message."}"#,
            r#"{"role":"user","content":[{"type":"text","text":"[Attached to the result of f, call 1]"},{"type":"image_url","image_url":{"url":"https://x"}}]}"#,
            r#"{"role":"assistant","content":"ok"}"#
        );
        assert_eq!(got, expected);
    }

    #[test]
    fn a_failed_tool_says_so() {
        for (parts, expected) in [(vec![text("no such city")], "Error: no such city"), (vec![], "Error")] {
            let got = messages(vec![
                Turn::new(Role::Assistant, vec![call("1")]),
                Turn::new(Role::User, vec![result("1", parts, true)]),
            ]);
            assert!(got.ends_with(&format!(r#""content":"{expected}"}}]"#)), "{got}");
        }
        let sparse = messages(vec![Turn::new(Role::User, vec![result("1", vec![], false)])]);
        assert_eq!(sparse, r#"[{"role":"tool","tool_call_id":"1","content":""}]"#);
    }

    #[test]
    fn thinking_stays_apart_from_text_and_its_proof_stays_here() {
        let thought = Reasoning {
            text: vec!["plan".into(), "more".into()],
            signature: Signature::of(Vendor::Claude, "SECRET"),
            ..Reasoning::default()
        };
        let hidden = Reasoning { redacted: Some("BLOB".into()), ..Reasoning::default() };
        let turns = vec![
            Turn::new(Role::Assistant, vec![Part::Reasoning(thought), text("Sunny.")]),
            Turn::new(Role::Assistant, vec![Part::Reasoning(hidden)]),
        ];
        let request = Request { turns, ..Request::default() };
        let (got, losses) = run(&request, false);
        assert_eq!(got, r#"[{"role":"assistant","content":"Sunny.","reasoning_content":"plan\n\nmore"}]"#);
        assert_eq!(losses, "signature turns[0], signature turns[1]");
        assert_eq!(run(&request, true).0, r#"[{"role":"assistant","content":"Sunny."}]"#);
    }

    #[test]
    fn pictures_of_the_model_reach_the_next_user_message() {
        let got = messages(vec![
            Turn::new(Role::Assistant, vec![text("Here."), image()]),
            Turn::new(Role::User, vec![text("Brighter.")]),
        ]);
        let expected = r#"[{"role":"assistant","content":"Here."},{"role":"user","content":[{"type":"text","text":"[Part of your previous message]"},{"type":"image_url","image_url":{"url":"https://x"}},{"type":"text","text":"Brighter."}]}]"#;
        assert_eq!(got, expected);
    }

    #[test]
    fn instructions_in_mid_conversation_stay_there() {
        let got = messages(vec![
            Turn::new(Role::User, vec![text("a")]),
            Turn::new(Role::Developer, vec![text("b")]),
            Turn { role: Role::User, parts: vec![text("c")], name: Some("ann".into()) },
        ]);
        assert_eq!(
            got,
            r#"[{"role":"user","content":"a"},{"role":"system","content":"b"},{"role":"user","name":"ann","content":"c"}]"#
        );
    }
}
