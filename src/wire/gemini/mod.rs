//! Google generateContent: the public Gemini API, and the same in the envelopes of Antigravity and the CLI.
//!
//! Enters: `{contents, systemInstruction, tools, toolConfig, generationConfig, …}` and
//! `{candidates, usageMetadata, …}`, both spellings of every member (`generationConfig`,
//! `generation_config`), plain or as `{project, model, request}` and `{response}`. Leaves: the same members,
//! in camel case. May go wrong: see [`crate::error`].
//!
//! What is special about the format:
//! - A chunk of a stream and a whole answer are the same structure; a stream has no end marker but its end.
//! - Calls come whole in one part. Ids are optional; results are bound by name and order.
//! - `thoughtSignature` may hang on any part of the model's turn, also on an empty one.
//! - `STOP` is the reason for answers and for calls alike.
//!
//! Sources: `google-genai` 3.4 types, the `google.ai.generativelanguage.v1beta` reference.

mod answer_parts;
mod chunk;
pub mod count_tokens;
pub mod envelope;
mod flavour;
mod numbers;
mod patch_contents;
mod patch_request;
mod patch_tools;
mod read_answer;
mod read_candidate;
mod read_config;
mod read_parts;
mod read_request;
mod read_sources;
mod read_tools;
mod write_answer;
mod write_config;
mod write_contents;
mod write_parts;
mod write_request;
mod write_stream;
mod write_tools;

pub use patch_request::patch_request;
pub use read_config::asked_thinking;
pub use read_request::read_request;
pub use write_answer::write_answer;
pub use write_request::write_request;

use crate::frames::Framing;
use crate::ir::lower::Rules;
use crate::ir::{Context, Finish, ReadAnswer, WriteStream};
use crate::names::NameRule;
use crate::target::Profile;
use std::borrow::Cow;
use std::sync::Arc;

/// What [`crate::ir::lower`] has to make true for this format.
pub const RULES: Rules = Rules { names: NameRule::GEMINI, custom_tools: false, namespaces: false };

/// Reads an answer of this format. `seed` is 32 hex digits for ids that the upstream does not give.
pub fn reader(profile: Profile, seed: &str) -> Box<dyn ReadAnswer> {
    Box::new(read_answer::Reader::new(profile, seed))
}

/// Writes a stream of this format.
pub fn stream_writer(context: Arc<Context>, framing: Framing) -> Box<dyn WriteStream> {
    Box::new(write_stream::Writer::new(context, framing))
}

/// A member's name as the vendor's reference spells it, for either spelling.
fn camel(key: &str) -> Cow<'_, str> {
    if !key.contains('_') {
        return Cow::Borrowed(key);
    }
    let mut out = String::with_capacity(key.len());
    for word in key.split('_').filter(|word| !word.is_empty()) {
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if !out.is_empty() => out.push(first.to_ascii_uppercase()),
            Some(first) => out.push(first),
            None => {}
        }
        out.push_str(letters.as_str());
    }
    Cow::Owned(out)
}

/// `finishReason` → why an answer ended, not looking at calls. A word that nobody knows is an end.
fn finish_of(word: &str) -> Finish {
    match word {
        "MAX_TOKENS" => Finish::Length,
        "SAFETY"
        | "RECITATION"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "MODEL_ARMOR"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION" => Finish::Filter,
        "MALFORMED_FUNCTION_CALL"
        | "UNEXPECTED_TOOL_CALL"
        | "TOO_MANY_TOOL_CALLS"
        | "MISSING_THOUGHT_SIGNATURE"
        | "MALFORMED_RESPONSE" => Finish::BadCall,
        _ => Finish::End,
    }
}

/// Why an answer ended → `finishReason`. `detail` keeps the vendor's own word where it fits the reason.
fn word_of(reason: Finish, detail: Option<&str>) -> &str {
    let default = match reason {
        Finish::End | Finish::StopSequence | Finish::Tool | Finish::Pause => return "STOP",
        Finish::Length | Finish::Context => return "MAX_TOKENS",
        Finish::Filter | Finish::Refusal => "SAFETY",
        Finish::BadCall => "MALFORMED_FUNCTION_CALL",
    };
    let own = detail.filter(|word| matches!(finish_of(word), Finish::Filter | Finish::BadCall));
    own.filter(|word| finish_of(word) == finish_of(default)).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_one() {
        for (from, to) in [
            ("generation_config", "generationConfig"),
            ("generationConfig", "generationConfig"),
            ("_responseJsonSchema", "responseJsonSchema"),
            ("top_p", "topP"),
            ("_", ""),
        ] {
            assert_eq!(camel(from), to);
        }
    }

    #[test]
    fn reasons_map_both_ways() {
        for (word, reason, back) in [
            ("STOP", Finish::End, "STOP"),
            ("MAX_TOKENS", Finish::Length, "MAX_TOKENS"),
            ("PROHIBITED_CONTENT", Finish::Filter, "PROHIBITED_CONTENT"),
            ("UNEXPECTED_TOOL_CALL", Finish::BadCall, "UNEXPECTED_TOOL_CALL"),
            ("SOMETHING_NEW", Finish::End, "STOP"),
        ] {
            assert_eq!(finish_of(word), reason);
            assert_eq!(word_of(reason, Some(word)), back);
        }
        assert_eq!(word_of(Finish::Refusal, Some("I would rather not")), "SAFETY");
        assert_eq!(word_of(Finish::Context, None), "MAX_TOKENS");
        assert_eq!(word_of(Finish::BadCall, Some("SAFETY")), "MALFORMED_FUNCTION_CALL");
    }
}
