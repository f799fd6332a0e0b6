//! Gives an answer the client's names back: the inverse of [`super::lower`].
//!
//! Enters: events with the target's tool names. Leaves: events with the client's names, namespaces and kinds
//! of call. Only calls that need it are held back until they are complete: bare-string tools, whose string
//! has to be taken out of an object, and calls with a placeholder argument.

use super::lower::bare_input;
use super::{BlockKind, Context, Delta, Event, Restored, Sink, ToolKind};
use crate::json::{self, Json};

/// A [`Sink`] in front of another.
#[derive(Debug, Default)]
pub struct Restore {
    /// Calls that are held back: block, what the client called it, arguments so far.
    held: Vec<(u32, Restored, String)>,
    /// Reasoning blocks that are hidden, until they show that they have to be kept for replay.
    hidden: Vec<(u32, u32)>,
}

impl Restore {
    /// Passes `event` on to `sink`, restored.
    pub fn event(&mut self, event: Event<'_>, context: &Context, sink: &mut dyn Sink) {
        match event {
            Event::Open { block, choice, kind: BlockKind::Tool { id, name, namespace, kind } } => {
                let Some(restored) = context.names.get(name) else {
                    let kind = BlockKind::Tool { id, name, namespace, kind };
                    return sink.event(Event::Open { block, choice, kind });
                };
                let opened = BlockKind::Tool {
                    id,
                    name: &restored.name,
                    namespace: restored.namespace.as_deref(),
                    kind: restored.kind,
                };
                sink.event(Event::Open { block, choice, kind: opened });
                let unpack = restored.kind == ToolKind::Custom && kind == ToolKind::Function;
                if unpack || restored.placeholder.is_some() {
                    self.held.push((block, restored.clone(), String::new()));
                }
            }
            Event::Open { block, choice, kind: BlockKind::Reasoning { redacted: None } }
                if context.hide_reasoning =>
            {
                self.hidden.push((block, choice));
            }
            Event::Delta { block, delta } => self.delta(block, delta, sink),
            Event::Close { block } => self.close(block, sink),
            other => sink.event(other),
        }
    }

    fn delta(&mut self, block: u32, delta: Delta<'_>, sink: &mut dyn Sink) {
        if let Some(at) = self.hidden.iter().position(|(b, _)| *b == block) {
            if !matches!(delta, Delta::Signature(_)) {
                return;
            }
            // The signature has to reach the client: without it the next turn cannot be replayed.
            let (block, choice) = self.hidden.swap_remove(at);
            sink.event(Event::Open { block, choice, kind: BlockKind::Reasoning { redacted: None } });
            return sink.event(Event::Delta { block, delta });
        }
        match (self.held.iter_mut().find(|(b, ..)| *b == block), delta) {
            (Some((.., text)), Delta::Arguments(more)) => text.push_str(more),
            (_, delta) => sink.event(Event::Delta { block, delta }),
        }
    }

    fn close(&mut self, block: u32, sink: &mut dyn Sink) {
        if let Some(at) = self.hidden.iter().position(|(b, _)| *b == block) {
            self.hidden.swap_remove(at);
            return;
        }
        if let Some(at) = self.held.iter().position(|(b, ..)| *b == block) {
            let (_, restored, text) = self.held.swap_remove(at);
            let arguments = unpack(&restored, text);
            sink.event(Event::Delta { block, delta: Delta::Arguments(&arguments) });
        }
        sink.event(Event::Close { block });
    }
}

fn unpack(restored: &Restored, text: String) -> String {
    if restored.kind == ToolKind::Custom {
        return bare_input(&text).unwrap_or(text);
    }
    match (restored.placeholder, json::parse_any(text.as_bytes())) {
        (Some(placeholder), Ok(mut value @ Json::Object(_))) => {
            take_out(&mut value, placeholder);
            value.to_text()
        }
        _ => text,
    }
}

/// Removes `placeholder` at any depth: objects inside the arguments get one as well. The client has no
/// property of that name.
fn take_out(value: &mut Json<'_>, placeholder: &str) {
    match value {
        Json::Object(map) => {
            map.0.retain(|(key, _)| key != placeholder);
            map.0.iter_mut().for_each(|(_, value)| take_out(value, placeholder));
        }
        Json::Array(items) => items.iter_mut().for_each(|item| take_out(item, placeholder)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Block, Fold};
    use crate::signature::{Signature, Vendor};

    fn run(context: &Context, events: Vec<Event<'_>>) -> Vec<Block> {
        let (mut restore, mut fold) = (Restore::default(), Fold::default());
        for event in events {
            restore.event(event, context, &mut fold);
        }
        fold.into_answer().choices.remove(0).blocks
    }

    fn call(name: &str) -> Event<'_> {
        let kind = BlockKind::Tool { id: "i", name, namespace: None, kind: ToolKind::Function };
        Event::Open { block: 0, choice: 0, kind }
    }

    #[test]
    fn bare_strings_and_placeholders_come_back() {
        let mut context = Context::default();
        let restored = |kind, placeholder| Restored {
            name: "orig".into(),
            namespace: Some("ns".into()),
            kind,
            placeholder,
        };
        context.names.insert("custom".into(), restored(ToolKind::Custom, None));
        context.names.insert("empty".into(), restored(ToolKind::Function, Some("reason")));
        for (name, arguments, expected) in [
            ("custom", r#"{"input":"a\nb"}"#, "a\nb"),
            ("empty", r#"{"reason":"x"}"#, "{}"),
            ("empty", r#"{"a":[{"reason":"x","b":1}]}"#, r#"{"a":[{"b":1}]}"#),
            ("custom", "broken", "broken"),
        ] {
            let (a, b) = arguments.split_at(3);
            let blocks = run(
                &context,
                vec![
                    call(name),
                    Event::Delta { block: 0, delta: Delta::Arguments(a) },
                    Event::Delta { block: 0, delta: Delta::Arguments(b) },
                    Event::Close { block: 0 },
                ],
            );
            let Block::Tool { name, namespace, arguments, .. } = &blocks[0] else { panic!() };
            assert_eq!(
                (name.as_str(), namespace.as_deref(), arguments.as_str()),
                ("orig", Some("ns"), expected)
            );
        }
    }

    #[test]
    fn hidden_reasoning_keeps_its_signature_only() {
        let context = Context { hide_reasoning: true, ..Context::default() };
        let open = |block| Event::Open { block, choice: 0, kind: BlockKind::Reasoning { redacted: None } };
        let blocks = run(
            &context,
            vec![
                open(0),
                Event::Delta { block: 0, delta: Delta::Text("secret") },
                Event::Delta {
                    block: 0,
                    delta: Delta::Signature(Signature { vendor: Vendor::Claude, value: "s".into() }),
                },
                Event::Close { block: 0 },
                open(1),
                Event::Delta { block: 1, delta: Delta::Text("secret") },
                Event::Close { block: 1 },
                Event::Open { block: 2, choice: 0, kind: BlockKind::Text },
            ],
        );
        assert_eq!(blocks.len(), 2);
        assert!(matches!(&blocks[0], Block::Reasoning { parts, signature: Some(_), .. } if parts.is_empty()));
    }
}
