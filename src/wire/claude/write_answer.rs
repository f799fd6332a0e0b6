//! Folded answer → message.
//!
//! Enters: a complete answer. Leaves: the body of a message, with the first choice. May go wrong: nothing.
//! It says what [`super::write_stream`] says, but for the order: thinking that came after text leads here,
//! which a stream cannot do.

use super::answer_parts::{self, Shown};
use crate::ir::{Answer, Block, Choice, Context};
use crate::json;

/// Content of the message.
enum Content<'a> {
    Text(String),
    Thinking { text: String, signature: &'a str },
    Redacted(&'a str),
    Call { id: &'a str, name: &'a str, input: String },
    Item(&'a str),
}

/// Writes the body.
pub(super) fn write(answer: &Answer, context: &Context) -> Vec<u8> {
    let nothing = Choice::default();
    let choice = answer.choices.iter().find(|choice| choice.index == 0).unwrap_or(&nothing);
    let (blocks, shown) = content(choice);
    let mut out = Vec::new();
    json::object(&mut out, |o| {
        o.str("id", &answer_parts::message_id(&answer.id, context));
        o.str("type", "message");
        o.str("role", "assistant");
        o.str("model", answer_parts::model(&answer.model, context));
        o.array("content", |a| blocks.iter().for_each(|block| write_block(a, block)));
        answer_parts::write_stop(o, choice.finish, choice.detail.as_deref(), shown);
        answer_parts::write_usage(o, &answer.usage);
    });
    out
}

fn content(choice: &Choice) -> (Vec<Content<'_>>, Shown) {
    let is_thinking = |block: &Block| matches!(block, Block::Reasoning { .. });
    let mut blocks: Vec<&Block> = choice.blocks.iter().collect();
    if !blocks.first().is_some_and(|block| is_thinking(block)) {
        blocks.sort_by_key(|block| !is_thinking(block));
    }
    let (mut content, mut shown) = (Vec::with_capacity(blocks.len()), Shown::default());
    for block in blocks {
        match block {
            Block::Text { text, .. } if !text.is_empty() => content.push(Content::Text(text.clone())),
            Block::Refusal(text) if !text.is_empty() => {
                shown.refusal = true;
                content.push(Content::Text(text.clone()));
            }
            Block::Text { .. } | Block::Refusal(_) => {}
            Block::Reasoning { redacted: Some(data), .. } => content.push(Content::Redacted(data)),
            Block::Reasoning { parts, signature, redacted: None } => {
                let text = parts.join("\n\n");
                let signature = signature.as_ref().map_or("", |signature| signature.value.as_ref());
                if !text.is_empty() || !signature.is_empty() {
                    content.push(Content::Thinking { text, signature });
                }
            }
            Block::Tool { id, name, kind, arguments, signature, .. } => {
                if let Some(signature) = signature {
                    sign_call(&mut content, &signature.value);
                }
                shown.call = true;
                content.push(Content::Call { id, name, input: answer_parts::input(*kind, arguments) });
            }
            Block::Image { mime, .. } => content.push(Content::Text(answer_parts::picture(mime))),
            Block::Server { kind, raw } if answer_parts::is_own_item(kind) => {
                content.push(Content::Item(raw));
            }
            Block::Server { .. } => {}
        }
    }
    (content, shown)
}

/// Puts the signature of a call where the stream writer puts it.
fn sign_call<'a>(content: &mut Vec<Content<'a>>, value: &'a str) {
    if let Some(Content::Thinking { signature, .. }) = content.last_mut() {
        if signature.is_empty() {
            *signature = value;
        }
        return;
    }
    let shown = content.iter().any(|c| matches!(c, Content::Thinking { .. } | Content::Redacted(_)));
    if !shown {
        content.push(Content::Thinking { text: String::new(), signature: value });
    }
}

fn write_block(a: &mut json::Array<'_>, content: &Content<'_>) {
    match content {
        Content::Item(raw) => a.raw(raw),
        Content::Text(text) => a.object(|o| {
            o.str("type", "text");
            o.str("text", text);
        }),
        Content::Thinking { text, signature } => a.object(|o| {
            o.str("type", "thinking");
            o.str("thinking", text);
            o.str("signature", signature);
        }),
        Content::Redacted(data) => a.object(|o| {
            o.str("type", "redacted_thinking");
            o.str("data", data);
        }),
        Content::Call { id, name, input } => a.object(|o| {
            o.str("type", "tool_use");
            o.str("id", id);
            o.str("name", name);
            o.raw("input", input);
        }),
    }
}
