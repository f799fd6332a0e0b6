//! Events → a whole answer. The only way in which a whole answer comes to be, so that it cannot differ from
//! the stream.

use super::event::{BlockKind, Delta, Event, Finish, Sink};
use super::request::ToolKind;
use super::{Citation, Usage};
use crate::error::Failure;
use crate::signature::Signature;

/// A complete answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The upstream's id; empty when it gave none.
    pub id: String,
    /// The upstream's name of the model; empty when it gave none.
    pub model: String,
    /// Seconds since 1970, where the upstream said.
    pub created: Option<u64>,
    /// The answers, by number.
    pub choices: Vec<Choice>,
    /// Token counts.
    pub usage: Usage,
    /// The answer broke.
    pub failure: Option<Failure>,
    /// The upstream said that it is complete.
    pub complete: bool,
}

/// One of the answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// Its number (`index`).
    pub index: u32,
    /// Its blocks, in order of opening.
    pub blocks: Vec<Block>,
    /// Why it ended.
    pub finish: Option<Finish>,
    /// The stop sequence that was met, or the vendor's words about the reason.
    pub detail: Option<String>,
}

/// A complete block.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// Visible text.
    Text {
        /// The text.
        text: String,
        /// Its sources.
        citations: Vec<Citation<'static>>,
        /// Gemini signs text.
        signature: Option<Signature<'static>>,
        /// Elements of Chat `logprobs.content`, as JSON array texts.
        logprobs: Vec<String>,
    },
    /// The model's refusal, in words.
    Refusal(String),
    /// Thinking.
    Reasoning {
        /// The parts of a summary, or the thinking text in one.
        parts: Vec<String>,
        /// What proves it.
        signature: Option<Signature<'static>>,
        /// Claude `redacted_thinking.data`.
        redacted: Option<String>,
    },
    /// A call.
    Tool {
        /// Id of the call.
        id: String,
        /// Name of the tool.
        name: String,
        /// Responses namespace.
        namespace: Option<String>,
        /// How it is called.
        kind: ToolKind,
        /// JSON text, or the bare string of a custom tool.
        arguments: String,
        /// Gemini signs calls.
        signature: Option<Signature<'static>>,
    },
    /// A picture.
    Image {
        /// MIME type.
        mime: String,
        /// Base64.
        data: String,
    },
    /// An item of a built-in tool.
    Server {
        /// Its `type`.
        kind: String,
        /// The item as JSON text.
        raw: String,
    },
}

impl Answer {
    /// All visible text of the first choice.
    pub fn text(&self) -> String {
        let blocks = self.choices.first().map(|c| c.blocks.as_slice()).unwrap_or_default();
        blocks
            .iter()
            .filter_map(|b| if let Block::Text { text, .. } = b { Some(text.as_str()) } else { None })
            .collect()
    }
}

/// Collects events.
#[derive(Debug, Default)]
pub struct Fold {
    answer: Answer,
    /// Where a block went: (number, choice, index), in order of opening.
    places: Vec<(u32, usize, usize)>,
}

impl Fold {
    /// What came so far.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// The answer, when no more comes.
    pub fn into_answer(self) -> Answer {
        self.answer
    }

    fn choice(&mut self, index: u32) -> usize {
        if let Some(at) = self.answer.choices.iter().position(|c| c.index == index) {
            return at;
        }
        let at = self.answer.choices.partition_point(|c| c.index < index);
        self.answer.choices.insert(at, Choice { index, ..Choice::default() });
        for place in &mut self.places {
            if place.1 >= at {
                place.1 += 1;
            }
        }
        at
    }

    fn block(&mut self, block: u32) -> Option<&mut Block> {
        let (_, choice, index) = *self.places.iter().rfind(|place| place.0 == block)?;
        self.answer.choices.get_mut(choice)?.blocks.get_mut(index)
    }
}

impl Sink for Fold {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start { id, model, created } => {
                id.clone_into(&mut self.answer.id);
                model.clone_into(&mut self.answer.model);
                self.answer.created = created;
            }
            Event::Open { block, choice, kind } => {
                let at = self.choice(choice);
                if let Some(choice) = self.answer.choices.get_mut(at) {
                    self.places.push((block, at, choice.blocks.len()));
                    choice.blocks.push(open(&kind));
                }
            }
            Event::Delta { block, delta } => {
                if let Some(block) = self.block(block) {
                    extend(block, delta);
                }
            }
            Event::Close { .. } => {}
            Event::Usage(usage) => self.answer.usage.merge(&usage),
            Event::Finish { choice, reason, detail } => {
                let at = self.choice(choice);
                if let Some(choice) = self.answer.choices.get_mut(at) {
                    choice.finish = Some(reason);
                    choice.detail = detail.map(str::to_owned);
                }
            }
            Event::Failure(failure) => self.answer.failure = Some(failure),
            Event::End => self.answer.complete = true,
        }
    }
}

fn open(kind: &BlockKind<'_>) -> Block {
    match *kind {
        BlockKind::Text => {
            Block::Text { text: String::new(), citations: Vec::new(), signature: None, logprobs: Vec::new() }
        }
        BlockKind::Refusal => Block::Refusal(String::new()),
        BlockKind::Reasoning { redacted } => {
            Block::Reasoning { parts: Vec::new(), signature: None, redacted: redacted.map(str::to_owned) }
        }
        BlockKind::Tool { id, name, namespace, kind } => Block::Tool {
            id: id.to_owned(),
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
            kind,
            arguments: String::new(),
            signature: None,
        },
        BlockKind::Image { mime } => Block::Image { mime: mime.to_owned(), data: String::new() },
        BlockKind::Server { kind, raw } => Block::Server { kind: kind.to_owned(), raw: raw.to_owned() },
    }
}

fn extend(block: &mut Block, delta: Delta<'_>) {
    match (block, delta) {
        (Block::Text { text, .. } | Block::Refusal(text), Delta::Text(more)) => text.push_str(more),
        (Block::Reasoning { parts, .. }, Delta::Text(more)) => match parts.last_mut() {
            Some(last) => last.push_str(more),
            None => parts.push(more.to_owned()),
        },
        (Block::Reasoning { parts, .. }, Delta::Part) => parts.push(String::new()),
        (Block::Tool { arguments, .. }, Delta::Arguments(more)) => arguments.push_str(more),
        (
            Block::Text { signature, .. }
            | Block::Reasoning { signature, .. }
            | Block::Tool { signature, .. },
            Delta::Signature(value),
        ) => {
            *signature = Signature::of(value.vendor, value.value.into_owned());
        }
        (Block::Text { citations, .. }, Delta::Citation(citation)) => citations.push(citation.into_owned()),
        (Block::Image { data, .. }, Delta::Data(more)) => data.push_str(more),
        (Block::Text { logprobs, .. }, Delta::Logprobs(more)) => logprobs.push(more.to_owned()),
        // A reader that breaks its promise loses the piece; the property tests hold readers to it.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_blocks_and_choices_find_their_place() {
        let mut fold = Fold::default();
        let tool = |id| BlockKind::Tool { id, name: "f", namespace: None, kind: ToolKind::Function };
        for event in [
            Event::Start { id: "a", model: "m", created: None },
            Event::Open { block: 0, choice: 1, kind: tool("x") },
            Event::Open { block: 1, choice: 0, kind: BlockKind::Text },
            Event::Delta { block: 1, delta: Delta::Text("t") },
            Event::Delta { block: 0, delta: Delta::Arguments("{") },
            Event::Delta { block: 1, delta: Delta::Text("u") },
            Event::Delta { block: 0, delta: Delta::Arguments("}") },
            Event::Finish { choice: 0, reason: Finish::End, detail: None },
            Event::Finish { choice: 1, reason: Finish::Tool, detail: None },
            Event::End,
        ] {
            fold.event(event);
        }
        let answer = fold.into_answer();
        assert_eq!(answer.text(), "tu");
        assert!(matches!(&answer.choices[1].blocks[0], Block::Tool { arguments, .. } if arguments == "{}"));
        assert!(answer.complete);
    }
}
