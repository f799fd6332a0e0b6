//! Events → `text_completion` chunks.
//!
//! Enters: events. Leaves: a chunk per piece of visible text, one finish per choice (`null` before), the usage
//! chunk where the client asked for it, and `[DONE]`; without it the usage is on the chunk that finishes, as
//! in Chat. Thinking, calls and pictures have no place in the format. May go wrong: a failure is one `error`
//! object, and nothing follows it.

use super::logprobs::Tokens;
use super::{PREFIX, bare_id, finish};
use crate::Protocol;
use crate::frames::{Frames, Framing};
use crate::ir::{BlockKind, Context, Delta, Event, Finish, Sink, Usage, WriteStream};
use crate::json;
use crate::openai_chat::{Ids, usage};
use std::sync::Arc;

/// Writes one stream.
#[derive(Debug)]
pub(super) struct Writer {
    context: Arc<Context>,
    frames: Frames,
    ids: Option<Ids>,
    /// Open blocks of visible text, and their choices.
    blocks: Vec<(u32, u32)>,
    /// Choices with words of refusal.
    refused: Vec<u32>,
    /// Choices, and characters of their tokens that were reported.
    offsets: Vec<(u32, u64)>,
    usage: Usage,
    /// The finish of a choice, while it may still be the last event.
    finish: Option<(u32, Finish)>,
    finished: bool,
    over: bool,
}

impl Writer {
    pub(super) fn new(context: Arc<Context>, framing: Framing) -> Self {
        Self {
            context,
            frames: Frames::new(framing),
            ids: None,
            blocks: Vec::new(),
            refused: Vec::new(),
            offsets: Vec::new(),
            usage: Usage::default(),
            finish: None,
            finished: false,
            over: false,
        }
    }

    /// Writes a chunk with one choice, or none for the usage chunk.
    fn chunk(&mut self, choice: Option<Piece<'_>>, counts: Option<&Usage>) {
        let Self { context, ids, frames, .. } = self;
        let ids = ids.get_or_insert_with(|| Ids::new(PREFIX, "", "", None, context));
        frames.event("", |out| {
            json::object(out, |o| {
                ids.write("text_completion", o);
                o.array("choices", |a| {
                    if let Some(piece) = choice {
                        a.object(|o| {
                            o.str("text", piece.text);
                            o.uint("index", u64::from(piece.index));
                            match piece.tokens {
                                Some((tokens, offset)) => tokens.write(offset, o),
                                None => o.null("logprobs"),
                            }
                            o.nullable_str("finish_reason", piece.finish);
                        });
                    }
                });
                if let Some(counts) = counts {
                    usage(counts, o);
                }
            });
        });
    }

    fn delta(&mut self, block: u32, delta: &Delta<'_>) {
        let Some(&(_, index)) = self.blocks.iter().rfind(|(number, _)| *number == block) else { return };
        match delta {
            Delta::Text(text) => self.chunk(Some(Piece { text, ..Piece::empty(index) }), None),
            Delta::Logprobs(content) => {
                let mut tokens = Tokens::default();
                tokens.add(content);
                let known = self.offsets.iter().position(|(choice, _)| *choice == index);
                let mut offset = known.and_then(|at| self.offsets.get(at)).map_or(0, |(_, offset)| *offset);
                let piece = Piece { tokens: Some((&tokens, &mut offset)), ..Piece::empty(index) };
                self.chunk(Some(piece), None);
                match known.and_then(|at| self.offsets.get_mut(at)) {
                    Some(slot) => slot.1 = offset,
                    None => self.offsets.push((index, offset)),
                }
            }
            _ => {}
        }
    }

    /// Writes the finish that was held back.
    fn flush(&mut self, counts: Option<&Usage>) {
        let Some((index, reason)) = self.finish.take() else { return };
        let word = finish(reason, self.refused.contains(&index));
        self.finished = true;
        self.chunk(Some(Piece { finish: Some(word), ..Piece::empty(index) }), counts);
    }

    fn end(&mut self) {
        if !self.finished {
            self.finish.get_or_insert((0, Finish::End));
        }
        let counts = self.usage;
        if self.context.include_usage {
            self.flush(None);
            self.chunk(None, Some(&counts));
        } else {
            self.flush(Some(&counts).filter(|counts| !counts.is_unknown()));
        }
        self.frames.done();
        self.frames.end();
        self.over = true;
    }
}

/// What a chunk says about a choice.
struct Piece<'p> {
    index: u32,
    text: &'p str,
    tokens: Option<(&'p Tokens<'p>, &'p mut u64)>,
    finish: Option<&'p str>,
}

impl Piece<'_> {
    fn empty(index: u32) -> Self {
        Self { index, text: "", tokens: None, finish: None }
    }
}

impl Sink for Writer {
    fn event(&mut self, event: Event<'_>) {
        if self.over {
            return;
        }
        if !matches!(event, Event::Usage(_) | Event::End | Event::Failure(_)) {
            self.flush(None);
        }
        match event {
            Event::Start { id, model, created } => {
                let ids = Ids::new(PREFIX, bare_id(id), model, created, &self.context);
                self.ids.get_or_insert(ids);
            }
            Event::Open { block, choice, kind: BlockKind::Text } => self.blocks.push((block, choice)),
            Event::Open { block, choice, kind: BlockKind::Refusal } => {
                self.blocks.push((block, choice));
                self.refused.push(choice);
            }
            Event::Open { .. } => {}
            Event::Delta { block, delta } => self.delta(block, &delta),
            Event::Close { block } => self.blocks.retain(|(number, _)| *number != block),
            Event::Usage(usage) => self.usage.merge(&usage),
            Event::Finish { choice, reason, .. } => self.finish = Some((choice, reason)),
            Event::Failure(failure) => {
                let body = failure.render(Protocol::OpenaiChat);
                self.frames.event("", |out| out.extend_from_slice(&body));
                self.frames.end();
                self.over = true;
            }
            Event::End => self.end(),
        }
    }
}

impl WriteStream for Writer {
    fn frames(&mut self) -> &mut Frames {
        &mut self.frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;

    fn run(context: Context, events: Vec<Event<'_>>) -> String {
        let mut writer = Writer::new(Arc::new(context), Framing::Sse);
        for event in events {
            writer.event(event);
        }
        String::from_utf8(writer.frames().take()).unwrap()
    }

    fn text(text: &str) -> Event<'_> {
        Event::Delta { block: 0, delta: Delta::Text(text) }
    }

    const START: Event<'static> = Event::Start { id: "chatcmpl-1", model: "m", created: Some(5) };
    const OPEN: Event<'static> = Event::Open { block: 0, choice: 0, kind: BlockKind::Text };
    const FINISH: Event<'static> = Event::Finish { choice: 0, reason: Finish::End, detail: None };

    #[test]
    fn finish_reason_is_null_until_the_end() {
        let usage = Event::Usage(Usage { input: Some(2), output: Some(1), ..Usage::default() });
        let events = vec![
            START,
            OPEN,
            text(" a"),
            Event::Delta { block: 0, delta: Delta::Logprobs(r#"[{"token":" a","logprob":-1.0}]"#) },
            Event::Close { block: 0 },
            FINISH,
            usage,
            Event::End,
            text("late"),
        ];
        let head = r#"data: {"id":"cmpl-1","object":"text_completion","created":5,"model":"m","choices":["#;
        let counts = r#""usage":{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3}"#;
        let expected = format!(
            "{head}{}]}}\n\n{head}{}]}}\n\n{head}{}],{counts}}}\n\ndata: [DONE]\n\n",
            r#"{"text":" a","index":0,"logprobs":null,"finish_reason":null}"#,
            r#"{"text":"","index":0,"logprobs":{"tokens":[" a"],"token_logprobs":[-1.0],"top_logprobs":[{}],"text_offset":[0]},"finish_reason":null}"#,
            r#"{"text":"","index":0,"logprobs":null,"finish_reason":"stop"}"#,
        );
        assert_eq!(run(Context::default(), events.clone()), expected);
        let asked = run(Context { include_usage: true, ..Context::default() }, events);
        assert!(asked.contains(&format!("{head}],{counts}}}\n\ndata: [DONE]")), "{asked}");
    }

    #[test]
    fn a_failure_ends_the_stream_without_a_finish() {
        let events = vec![START, OPEN, text("par"), Event::Failure(Failure::cut()), FINISH, Event::End];
        let out = run(Context::default(), events);
        assert!(
            out.contains(r#"data: {"error":{"#) && !out.contains("DONE") && !out.contains("stop"),
            "{out}"
        );
    }

    #[test]
    fn an_empty_answer_is_still_legal() {
        let out = run(Context { seed: "s".into(), ..Context::default() }, vec![Event::End]);
        assert!(out.contains(r#""id":"cmpl-s""#) && out.contains(r#""finish_reason":"stop""#), "{out}");
    }
}
