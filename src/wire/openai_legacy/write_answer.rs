//! A folded answer → one `text_completion`.
//!
//! Enters: an answer that is complete. Leaves: its visible text per choice. May go wrong: an answer that broke
//! becomes an error body.

use super::logprobs::Tokens;
use super::{PREFIX, bare_id, finish};
use crate::Protocol;
use crate::ir::{Answer, Block, Choice, Context, Finish};
use crate::json::{self, Object};
use crate::openai_chat::{Ids, usage};

/// Writes a whole answer.
pub(super) fn write(answer: &Answer, context: &Context) -> Vec<u8> {
    if let Some(failure) = &answer.failure {
        return failure.render(Protocol::OpenaiChat);
    }
    let ids = Ids::new(PREFIX, bare_id(&answer.id), &answer.model, answer.created, context);
    let empty = [Choice::default()];
    let choices = if answer.choices.is_empty() { &empty } else { answer.choices.as_slice() };
    let mut out = Vec::with_capacity(256);
    json::object(&mut out, |o| {
        ids.write("text_completion", o);
        o.array("choices", |a| choices.iter().for_each(|choice| a.object(|o| write_choice(choice, o))));
        usage(&answer.usage, o);
    });
    out
}

fn write_choice(choice: &Choice, o: &mut Object<'_>) {
    let (mut said, mut refused, mut tokens) = (String::new(), false, Tokens::default());
    for block in &choice.blocks {
        match block {
            Block::Text { text, logprobs, .. } => {
                said.push_str(text);
                for elements in logprobs {
                    tokens.add(elements);
                }
            }
            Block::Refusal(text) => {
                said.push_str(text);
                refused = true;
            }
            // The format holds visible text only.
            Block::Reasoning { .. } | Block::Tool { .. } | Block::Image { .. } | Block::Server { .. } => {}
        }
    }
    o.str("text", &said);
    o.uint("index", u64::from(choice.index));
    tokens.write(&mut 0, o);
    o.str("finish_reason", finish(choice.finish.unwrap_or(Finish::End), refused));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Fold;
    use crate::openai_chat::reader;
    use crate::target::Profile;

    #[test]
    fn a_chat_answer_becomes_text() {
        let body = br#"{"id":"chatcmpl-9","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":" a time","reasoning_content":"hm"},"finish_reason":"length"}],"usage":{"prompt_tokens":20,"completion_tokens":5,"total_tokens":25}}"#;
        let mut fold = Fold::default();
        reader(Profile::Chat, "s").whole(body, &mut fold);
        let out = String::from_utf8(write(fold.answer(), &Context::default())).unwrap();
        assert_eq!(
            out,
            r#"{"id":"cmpl-9","object":"text_completion","created":1700000000,"model":"m","choices":[{"text":" a time","index":0,"logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":20,"completion_tokens":5,"total_tokens":25}}"#
        );
    }
}
