//! The number of tokens of a prompt where no upstream counts them.
//!
//! Enters: a request. Leaves: an estimate, which the caller marks as one. It is not a tokenizer: vendors
//! differ by a fifth among themselves, and clients use the number to decide when a conversation is long.
//! English text has about 4 characters a token, code fewer, Chinese and Japanese about one.

use crate::ir::{Part, Request, Source, Tool};

/// Tokens that frame a message.
const PER_MESSAGE: u64 = 4;
/// Tokens that frame a tool.
const PER_TOOL: u64 = 12;
/// A picture, as Anthropic and OpenAI count a middling one.
const PER_IMAGE: u64 = 1200;
/// Bytes of base64 of a document for each token: a page has about 100 KB and 1500 tokens.
const DOCUMENT_BYTES: u64 = 70;

/// Tokens of `request`'s prompt, about.
pub fn tokens(request: &Request<'_>) -> u64 {
    let system: u64 = request.system.iter().map(|line| text(&line.text) + PER_MESSAGE).sum();
    let turns: u64 = request.turns.iter().map(|turn| parts(&turn.parts) + PER_MESSAGE).sum();
    let tools: u64 = request.tools.iter().map(tool).sum();
    system + turns + tools
}

/// Tokens of `text`, about.
pub fn text(text: &str) -> u64 {
    quarters(text).div_ceil(4)
}

/// Quarters of tokens of a piece of text, about: a word of Latin letters has four letters a token, other
/// scripts about one.
pub fn quarters(text: &str) -> u64 {
    text.chars().map(|c| if c.is_ascii() { 1 } else { 3 }).sum()
}

fn parts(all: &[Part<'_>]) -> u64 {
    all.iter().map(part).sum()
}

fn part(part: &Part<'_>) -> u64 {
    match part {
        Part::Text(inner) => text(&inner.text),
        Part::Image(_) => PER_IMAGE,
        Part::Audio(audio) => source(&audio.source),
        Part::Document(document) => source(&document.source),
        Part::SearchResult(result) => result.text.iter().map(|t| text(t)).sum(),
        Part::ToolCall(call) => text(&call.name) + text(&call.arguments) + PER_MESSAGE,
        Part::ToolResult(result) => parts(&result.parts) + PER_MESSAGE,
        Part::Reasoning(reasoning) => reasoning.text.iter().map(|t| text(t)).sum(),
        Part::Refusal(inner) => text(inner),
        Part::Server(item) => text(item.raw.as_str()),
    }
}

fn source(source: &Source<'_>) -> u64 {
    match source {
        Source::Inline { data, .. } => data.len() as u64 / DOCUMENT_BYTES,
        Source::Text(inner) => text(inner),
        Source::Url { .. } | Source::File { .. } => PER_IMAGE,
    }
}

fn tool(tool: &Tool<'_>) -> u64 {
    let described = match tool {
        Tool::Function { name, description, schema, .. } => {
            text(name)
                + description.as_deref().map_or(0, text)
                + schema.as_ref().map_or(0, |schema| text(schema.as_str()))
        }
        Tool::Custom { name, description, .. } => text(name) + description.as_deref().map_or(0, text),
        Tool::Builtin(_) => 0,
    };
    described + PER_TOOL
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Role, Text, Turn};

    #[test]
    fn longer_prompts_have_more_tokens() {
        let of = |text: &'static str| {
            tokens(&Request {
                turns: vec![Turn::new(Role::User, vec![Part::Text(Text::plain(text))])],
                ..Request::default()
            })
        };
        assert_eq!(of("one two three four"), 9);
        assert!(of("\u{6771}\u{4eac}\u{30bf}\u{30ef}\u{30fc}") > of("tower"));
    }
}
