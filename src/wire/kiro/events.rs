//! Payloads of the service's messages.
//!
//! Enters: the JSON of one message. Leaves: borrowed members; unknown ones are not looked at. May go wrong:
//! what is not JSON, or a member of another type.

use crate::ir::{Citation, Usage};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A string, borrowed when it has no escapes (`Cow` inside of `Option` would always be copied).
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Word<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The text of `word`, empty when there is none.
pub(super) fn word(word: Option<Word<'_>>) -> Cow<'_, str> {
    word.map(|word| word.0).unwrap_or_default()
}

/// `assistantResponseEvent`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Said<'a> {
    #[serde(borrow)]
    pub(super) content: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) model_id: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) tool_uses: Option<Vec<Used<'a>>>,
    #[serde(borrow)]
    pub(super) stop_reason: Option<Word<'a>>,
}

/// `toolUseEvent`, and an element of `toolUses`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Used<'a> {
    #[serde(borrow)]
    pub(super) tool_use_id: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) name: Option<Word<'a>>,
    /// A piece of JSON text, or the whole object.
    #[serde(borrow)]
    pub(super) input: Option<&'a RawValue>,
    pub(super) stop: Option<bool>,
}

/// `reasoningContentEvent`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Thought<'a> {
    #[serde(borrow)]
    pub(super) text: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) signature: Option<Word<'a>>,
    /// Base64.
    #[serde(borrow)]
    pub(super) redacted_content: Option<Word<'a>>,
}

/// `messageMetadataEvent`, `metadataEvent`, `usageEvent`, `metricsEvent`, `contextUsageEvent`,
/// `messageStopEvent`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata<'a> {
    pub(super) token_usage: Option<Counts>,
    #[serde(borrow)]
    pub(super) stop_reason: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) stop_details: Option<StopDetails<'a>>,
}

/// Why the model stopped, in detail.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StopDetails<'a> {
    #[serde(borrow)]
    pub(super) refusal: Option<Refused<'a>>,
}

/// Why the model refused.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refused<'a> {
    #[serde(borrow)]
    pub(super) category: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) explanation: Option<Word<'a>>,
}

/// Token counts, in `tokenUsage` or without an object around them.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Counts {
    uncached_input_tokens: Option<u64>,
    input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_write_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    total_tokens: Option<u64>,
    /// How much of the context is full, in percent.
    pub(super) context_usage_percentage: Option<f64>,
}

impl Counts {
    /// The counts, if there are any.
    pub(super) fn usage(&self) -> Option<Usage> {
        let mut usage = Usage {
            input: self.uncached_input_tokens.or(self.input_tokens),
            cache_read: self.cache_read_input_tokens,
            cache_write: self.cache_write_input_tokens,
            output: self.output_tokens,
            ..Usage::default()
        };
        if let (None, Some(total), Some(output)) = (usage.input, self.total_tokens, usage.output) {
            usage.set_prompt_including_cache(total.saturating_sub(output));
        }
        (!usage.is_unknown()).then_some(usage)
    }
}

/// `supplementaryWebLinksEvent`, `codeReferenceEvent`, `citationEvent`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Sources<'a> {
    #[serde(borrow)]
    supplementary_web_links: Option<Vec<Link<'a>>>,
    #[serde(borrow)]
    references: Option<Vec<Link<'a>>>,
    #[serde(borrow)]
    citation_text: Option<Word<'a>>,
    #[serde(borrow)]
    citation_link: Option<Word<'a>>,
}

/// A page, or code under a licence.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Link<'a> {
    #[serde(borrow)]
    url: Option<Word<'a>>,
    #[serde(borrow)]
    title: Option<Word<'a>>,
    #[serde(borrow)]
    snippet: Option<Word<'a>>,
    #[serde(borrow)]
    repository: Option<Word<'a>>,
    #[serde(borrow)]
    license_name: Option<Word<'a>>,
}

impl<'a> Sources<'a> {
    /// The sources that have an address.
    pub(super) fn citations(self) -> Vec<Citation<'a>> {
        let single = Link { url: self.citation_link, snippet: self.citation_text, ..Link::default() };
        let lists = [self.supplementary_web_links, self.references].into_iter().flatten().flatten();
        lists.chain([single]).map(Link::citation).filter(|citation| !citation.url.is_empty()).collect()
    }
}

impl<'a> Link<'a> {
    fn citation(self) -> Citation<'a> {
        let license = word(self.license_name);
        let title = match word(self.title.or(self.repository)) {
            title if license.is_empty() => title,
            title => format!("{title} ({license})").into(),
        };
        Citation { url: word(self.url), title, quote: word(self.snippet), ..Citation::default() }
    }
}

/// `invalidStateEvent`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Invalid<'a> {
    #[serde(borrow)]
    pub(super) reason: Option<Word<'a>>,
    #[serde(borrow)]
    pub(super) message: Option<Word<'a>>,
}

/// What a message says of itself when it is an exception in the shape of an event.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stated<'a> {
    #[serde(borrow, rename = "__type", alias = "_type")]
    pub(super) kind: Option<Word<'a>>,
}
