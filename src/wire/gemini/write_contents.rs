//! Turns and instructions → `contents` and `systemInstruction`.
//!
//! Enters: turns that [`crate::ir::lower`] has paired. Leaves: contents that begin with a user, alternate, and
//! are not empty; the content behind calls starts with exactly their results. May go wrong: thinking that
//! another vendor signed and items of its built-in tools are left out, recorded.

use super::flavour::Flavour;
use super::write_parts::{Media, PartWriter};
use crate::Protocol;
use crate::ir::{LossKind, Losses, Part, Request, Role};
use crate::json::{self, Path};

/// Stands for the user's turn that the API wants where the conversation has none.
pub(super) const MINIMAL: &str = ".";

/// `contents` and `systemInstruction`.
pub(super) fn write_conversation(
    o: &mut json::Object<'_>,
    request: &Request<'_>,
    flavour: Flavour,
    losses: &mut Losses,
) {
    let system = system_texts(request, losses);
    if !system.is_empty() {
        o.object("systemInstruction", |o| {
            o.array("parts", |a| system.iter().for_each(|text| a.object(|o| o.str("text", text))));
        });
    }
    let contents = contents(request, flavour, losses);
    o.array("contents", |a| {
        if contents.first().is_none_or(|first| first.model) {
            a.object(|o| {
                o.str("role", "user");
                o.array("parts", |a| a.object(|o| o.str("text", MINIMAL)));
            });
        }
        for content in &contents {
            a.object(|o| {
                o.str("role", if content.model { "model" } else { "user" });
                o.array("parts", |a| write_parts(a, content, flavour, losses));
            });
        }
    });
}

/// Instructions from wherever they stand, in order.
fn system_texts<'r>(request: &'r Request<'_>, losses: &mut Losses) -> Vec<&'r str> {
    let mut texts: Vec<&str> = request.system.iter().map(|line| line.text.as_ref()).collect();
    let root = Path::Root;
    let at = root.key("turns");
    for (n, turn) in request.turns.iter().enumerate() {
        if !matches!(turn.role, Role::System | Role::Developer) {
            continue;
        }
        for part in &turn.parts {
            match part {
                Part::Text(text) => texts.push(&text.text),
                _ => losses.at(LossKind::Content, &at.index(n)),
            }
        }
    }
    texts.retain(|text| !text.trim().is_empty());
    texts
}

/// One content: neighbours of the same role are one.
struct Content<'r, 'a> {
    model: bool,
    parts: Vec<&'r Part<'a>>,
}

fn contents<'r, 'a>(request: &'r Request<'a>, flavour: Flavour, losses: &mut Losses) -> Vec<Content<'r, 'a>> {
    let mut contents: Vec<Content<'r, 'a>> = Vec::with_capacity(request.turns.len());
    let root = Path::Root;
    let at = root.key("turns");
    for (n, turn) in request.turns.iter().enumerate() {
        let model = match turn.role {
            Role::User => false,
            Role::Assistant => true,
            Role::System | Role::Developer => continue,
        };
        let mut parts: Vec<_> =
            turn.parts.iter().filter(|part| keeps(part, flavour, &at.index(n), losses)).collect();
        match contents.last_mut() {
            Some(last) if last.model == model => last.parts.append(&mut parts),
            _ if parts.is_empty() => {}
            _ => contents.push(Content { model, parts }),
        }
    }
    contents
}

/// Whether the model can be told a part again.
fn keeps(part: &Part<'_>, flavour: Flavour, at: &Path<'_>, losses: &mut Losses) -> bool {
    let lost = match part {
        Part::Reasoning(reasoning) => {
            let own = reasoning.signature.as_ref().and_then(|signature| flavour.own_signature(signature));
            own.is_none().then_some(LossKind::Signature)
        }
        Part::Server(item) => (item.vendor != Protocol::Gemini).then_some(LossKind::Builtin),
        Part::Text(text) if text.text.trim().is_empty() => {
            let own = text.signature.as_ref().and_then(|signature| flavour.own_signature(signature));
            own.is_none().then_some(LossKind::Signature)
        }
        _ => None,
    };
    if let Some(kind) = lost {
        losses.at(kind, at);
    }
    lost.is_none()
}

fn write_parts(a: &mut json::Array<'_>, content: &Content<'_, '_>, flavour: Flavour, losses: &mut Losses) {
    let mut writer = PartWriter::new(a, flavour, losses);
    let (results, others): (Vec<&Part<'_>>, Vec<&Part<'_>>) =
        content.parts.iter().partition(|part| matches!(part, Part::ToolResult(_)));
    let mut media: Vec<Media<'_>> = Vec::new();
    for part in results {
        if let Part::ToolResult(result) = part {
            writer.result(result, &mut media);
        }
    }
    // Pictures of results come behind all of them: nothing may stand between responses.
    for media in &media {
        writer.media(media);
    }
    for part in others {
        writer.part(part);
    }
    writer.finish();
}

#[cfg(test)]
mod tests {
    use super::super::write_request::tests::*;
    use super::*;
    use crate::ir::{Instruction, Turn};
    use crate::target::Profile;

    #[test]
    fn instructions_of_any_place_are_one_and_roles_merge() {
        let mut request = asks(vec![
            user(vec![text("a")]),
            Turn::new(Role::System, vec![text("late")]),
            user(vec![text("b")]),
        ]);
        request.system = vec![Instruction { text: "early".into(), developer: true, cache: None }];
        let value = written(&request, &pro());
        assert_eq!(
            value.get("systemInstruction").unwrap().to_text(),
            r#"{"parts":[{"text":"early"},{"text":"late"}]}"#
        );
        assert_eq!(
            value.get("contents").unwrap().to_text(),
            r#"[{"role":"user","parts":[{"text":"a"},{"text":"b"}]}]"#
        );
    }

    #[test]
    fn a_user_speaks_first_and_somebody_speaks() {
        assert_eq!(contents_of(&asks(vec![]), &pro()), r#"[{"role":"user","parts":[{"text":"."}]}]"#);
        assert_eq!(
            contents_of(&asks(vec![model(vec![text("a")])]), &pro()),
            r#"[{"role":"user","parts":[{"text":"."}]},{"role":"model","parts":[{"text":"a"}]}]"#
        );
    }

    #[test]
    fn calls_and_results_are_paired_and_named() {
        let request = asks(vec![
            user(vec![text("q")]),
            model(vec![text("t"), call("1", "f", None), call("2", "g", None)]),
            user(vec![
                result("2", vec![text("noon")], false),
                result("1", vec![text("boom")], true),
                text("and?"),
            ]),
        ]);
        assert_eq!(
            contents_of(&request, &pro()),
            r#"[{"role":"user","parts":[{"text":"q"}]},{"role":"model","parts":[{"text":"t"},{"functionCall":{"id":"1","name":"f","args":{"a":1}},"thoughtSignature":"skip_thought_signature_validator"},{"functionCall":{"id":"2","name":"g","args":{"a":1}}}]},{"role":"user","parts":[{"functionResponse":{"id":"1","name":"f","response":{"error":"boom"}}},{"functionResponse":{"id":"2","name":"g","response":{"output":"noon"}}},{"text":"and?"}]}]"#
        );
        let without = contents_of(&request, &to(Profile::Antigravity, "gemini-3-flash"));
        assert!(!without.contains(r#""id""#) && without.contains("skip_thought"));
        let claude = contents_of(&request, &to(Profile::Antigravity, "claude-sonnet-4-6"));
        assert!(claude.contains(r#""id":"1""#) && !claude.contains("skip_thought"));
    }
}
