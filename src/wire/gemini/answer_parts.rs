//! What the stream and the whole answer of this format are made of, so that they cannot differ.
//!
//! Enters: pieces of an answer. Leaves: members of `candidates[]` and beside it. May go wrong: nothing; what a
//! client of this format cannot show (built-in tools of other vendors) is left out.

use super::read_parts::REDACTED;
use super::read_sources::{self, MAX_SOURCES};
use super::word_of;
use crate::ir::{Citation, Finish, ToolCall, ToolKind, Usage};
use crate::json::{self, Array, Json, Object};
use crate::signature::Signature;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;
use std::collections::HashMap;

/// A text part.
pub(super) fn text_part(a: &mut Array<'_>, text: &str, thought: bool, signature: Option<&str>) {
    a.object(|o| {
        o.str("text", text);
        if thought {
            o.bool("thought", true);
        }
        o.opt_str("thoughtSignature", signature);
    });
}

/// A call, complete.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) kind: ToolKind,
    pub(super) arguments: String,
    pub(super) signature: Option<String>,
}

impl Call {
    pub(super) fn write(&self, a: &mut Array<'_>) {
        let call = ToolCall {
            id: Cow::Borrowed(""),
            name: Cow::Borrowed(""),
            namespace: None,
            kind: self.kind,
            arguments: Cow::Borrowed(&self.arguments),
            signature: None,
            cache: None,
        };
        a.object(|o| {
            o.object("functionCall", |o| {
                o.str("id", &self.id);
                o.str("name", &self.name);
                o.raw("args", &call.object());
            });
            o.opt_str("thoughtSignature", self.signature.as_deref());
        });
    }
}

/// A picture.
pub(super) fn image_part(a: &mut Array<'_>, mime: &str, data: &str) {
    a.object(|o| {
        o.object("inlineData", |o| {
            o.str("mimeType", mime);
            o.str("data", data);
        });
    });
}

/// Whether an item of a built-in tool is one of this format's own, and so a part as it is.
pub(super) fn is_own_item(kind: &str) -> bool {
    ["executableCode", "codeExecutionResult", "toolCall", "toolResponse", "inlineData", "fileData"]
        .contains(&kind)
}

/// A signature as `thoughtSignature` of any vendor: it is carried, so that it comes back. The member is bytes
/// in base64, which typed clients check.
pub(super) fn signature_text(signature: &Signature<'_>) -> Option<String> {
    let base64 = |b: u8| b.is_ascii_alphanumeric() || b"+/-_=".contains(&b);
    signature.value.bytes().all(base64).then(|| signature.value.clone().into_owned())
}

/// `redacted_thinking` in the place of a signature.
pub(super) fn redacted_signature(data: &str) -> String {
    STANDARD.encode(format!("{REDACTED}{data}"))
}

/// `finishReason` and `finishMessage`.
pub(super) fn finish(o: &mut Object<'_>, reason: Finish, detail: Option<&str>) {
    let word = word_of(reason, detail);
    o.str("finishReason", word);
    let told = matches!(reason, Finish::Filter | Finish::Refusal | Finish::BadCall);
    o.opt_str("finishMessage", detail.filter(|detail| told && *detail != word && !detail.is_empty()));
}

/// `usageMetadata`, when the upstream said anything.
pub(super) fn usage(o: &mut Object<'_>, usage: &Usage) {
    if usage.is_unknown() {
        return;
    }
    let thoughts = usage.reasoning.unwrap_or(0);
    o.object("usageMetadata", |o| {
        o.uint("promptTokenCount", usage.prompt().saturating_sub(usage.tool_prompt.unwrap_or(0)));
        o.uint("candidatesTokenCount", usage.output.unwrap_or(0).saturating_sub(thoughts));
        for (name, count) in [
            ("thoughtsTokenCount", usage.reasoning),
            ("cachedContentTokenCount", usage.cache_read),
            ("toolUsePromptTokenCount", usage.tool_prompt),
        ] {
            if let Some(count) = count.filter(|count| *count > 0) {
                o.uint(name, count);
            }
        }
        o.uint("totalTokenCount", usage.total());
    });
}

/// `groundingMetadata`: the sources that have a URL. `text` is the candidate's text.
pub(super) fn grounding(o: &mut Object<'_>, citations: &[Citation<'static>], text: &str) {
    let cited: Vec<_> = citations.iter().filter(|citation| !citation.url.is_empty()).collect();
    if cited.is_empty() {
        return;
    }
    let mut known: HashMap<&str, usize> = HashMap::new();
    let mut places: Vec<(&str, &str)> = Vec::new();
    let mut supports: Vec<(usize, &Citation<'_>)> = Vec::new();
    for citation in cited {
        let at = *known.entry(&citation.url).or_insert(places.len());
        if at == places.len() {
            places.push((&citation.url, &citation.title));
        }
        if citation.end.is_some() || !citation.quote.is_empty() {
            supports.push((at, citation));
        }
    }
    o.object("groundingMetadata", |o| {
        o.array("groundingChunks", |a| {
            for (url, title) in &places {
                a.object(|o| {
                    o.object("web", |o| {
                        o.str("uri", url);
                        o.opt_str("title", Some(*title).filter(|title| !title.is_empty()));
                    });
                });
            }
        });
        if !supports.is_empty() {
            let supports = supports.iter().take(MAX_SOURCES);
            o.array("groundingSupports", |a| supports.for_each(|(at, c)| support(a, *at, c, text)));
        }
    });
}

fn support(a: &mut Array<'_>, at: usize, citation: &Citation<'_>, text: &str) {
    let range =
        citation.start.zip(citation.end).and_then(|(start, end)| read_sources::bytes(text, start, end));
    a.object(|o| {
        o.object("segment", |o| {
            let passage = range.and_then(|(start, end)| text.get(start..end));
            if let Some((start, end)) = range {
                o.uint("startIndex", start as u64);
                o.uint("endIndex", end as u64);
            }
            let quote = Some(citation.quote.as_ref()).filter(|quote| !quote.is_empty());
            o.opt_str("text", passage.or(quote));
        });
        o.array("groundingChunkIndices", |a| a.raw(itoa::Buffer::new().format(at)));
    });
}

/// `logprobsResult` of elements of Chat `logprobs.content`, as JSON array texts.
pub(super) fn logprobs(o: &mut Object<'_>, texts: &[String]) {
    let lists: Vec<_> = texts.iter().filter_map(|text| json::parse_any(text.as_bytes()).ok()).collect();
    let tokens: Vec<&Json<'_>> = lists.iter().filter_map(Json::as_array).flatten().collect();
    if tokens.is_empty() {
        return;
    }
    let token = |o: &mut Object<'_>, element: &Json<'_>| {
        o.str("token", element.get("token").and_then(Json::as_str).unwrap_or_default());
        o.float("logProbability", element.get("logprob").and_then(Json::as_f64).unwrap_or_default());
    };
    o.object("logprobsResult", |o| {
        o.array("chosenCandidates", |a| tokens.iter().for_each(|element| a.object(|o| token(o, element))));
        o.array("topCandidates", |a| {
            for element in &tokens {
                let top = element.get("top_logprobs").and_then(Json::as_array).unwrap_or_default();
                a.object(|o| {
                    o.array("candidates", |a| top.iter().for_each(|element| a.object(|o| token(o, element))));
                });
            }
        });
    });
}
