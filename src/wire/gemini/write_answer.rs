//! Whole answer → body for a client of this format.
//!
//! Enters: the folded answer. Leaves: one response with all candidates. May go wrong: nothing.

use super::answer_parts::{self, Call};
use super::envelope::wrap_answer;
use super::write_stream::{content, identity};
use crate::ir::{Answer, Block, Choice, Context, Finish};
use crate::json::{self, Array, Object};

/// Writes a whole answer of this format.
pub fn write_answer(answer: &Answer, context: &Context) -> Vec<u8> {
    let mut out = Vec::new();
    let none = [Choice::default()];
    let choices = if answer.choices.is_empty() { &none } else { answer.choices.as_slice() };
    wrap_answer(&mut out, context, |out| {
        json::object(out, |o| {
            o.array("candidates", |a| choices.iter().for_each(|choice| a.object(|o| candidate(o, choice))));
            answer_parts::usage(o, &answer.usage);
            identity(o, context, &answer.model, &answer.id);
        });
    });
    out
}

fn candidate(o: &mut Object<'_>, choice: &Choice) {
    let (mut said, mut citations, mut logprobs) = (String::new(), Vec::new(), Vec::new());
    content(o, |a| {
        for block in &choice.blocks {
            if let Block::Text { text, citations: sources, logprobs: tokens, .. } = block {
                said.push_str(text);
                citations.extend(sources.iter().cloned());
                logprobs.extend(tokens.iter().cloned());
            }
            write_block(a, block);
        }
        if a.is_empty() {
            answer_parts::text_part(a, "", false, None);
        }
    });
    answer_parts::finish(o, choice.finish.unwrap_or(Finish::End), choice.detail.as_deref());
    o.uint("index", u64::from(choice.index));
    answer_parts::grounding(o, &citations, &said);
    answer_parts::logprobs(o, &logprobs);
}

fn write_block(a: &mut Array<'_>, block: &Block) {
    let carried = |signature: &Option<crate::signature::Signature<'_>>| {
        signature.as_ref().and_then(answer_parts::signature_text)
    };
    match block {
        Block::Text { text, signature, .. } => {
            let signature = carried(signature);
            if !text.is_empty() || signature.is_some() {
                answer_parts::text_part(a, text, false, signature.as_deref());
            }
        }
        Block::Refusal(text) if !text.is_empty() => answer_parts::text_part(a, text, false, None),
        Block::Refusal(_) => {}
        Block::Reasoning { redacted: Some(data), .. } => {
            let signature = answer_parts::redacted_signature(data);
            answer_parts::text_part(a, "", true, Some(&signature));
        }
        Block::Reasoning { parts, signature, redacted: None } => {
            let (text, signature) = (parts.join("\n\n"), carried(signature));
            if !text.is_empty() || signature.is_some() {
                answer_parts::text_part(a, &text, true, signature.as_deref());
            }
        }
        Block::Tool { id, name, kind, arguments, signature, .. } => Call {
            id: id.clone(),
            name: name.clone(),
            kind: *kind,
            arguments: arguments.clone(),
            signature: carried(signature),
        }
        .write(a),
        Block::Image { mime, data } => answer_parts::image_part(a, mime, data),
        Block::Server { kind, raw } if answer_parts::is_own_item(kind) => a.raw(raw),
        Block::Server { .. } => {}
    }
}
