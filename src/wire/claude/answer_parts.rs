//! What a streamed and a whole answer have in common.
//!
//! Enters: parts of an answer. Leaves: members of this format. May go wrong: nothing; counts that nobody
//! knows are 0, because the API's types require them.

use super::stop_reason;
use crate::ir::{Citation, Context, Finish, Str, ToolCall, ToolKind, Usage};
use crate::json;
use std::borrow::Cow;

/// `id` of a message: the upstream's where it has the right form, else made of it or of the seed.
pub(super) fn message_id<'i>(upstream: &'i str, context: &Context) -> Str<'i> {
    if upstream.starts_with("msg_") {
        return Cow::Borrowed(upstream);
    }
    let rest = if upstream.is_empty() { context.seed.as_str() } else { upstream };
    Cow::Owned(format!("msg_{rest}"))
}

/// `model` of a message.
pub(super) fn model<'m>(upstream: &'m str, context: &'m Context) -> &'m str {
    if context.model.is_empty() { upstream } else { &context.model }
}

/// `usage`. Input excludes what the cache holds; other vendors count prompts of their tools apart, which
/// here are input like any other.
pub(super) fn write_usage(o: &mut json::Object<'_>, usage: &Usage) {
    o.object("usage", |o| {
        let input = usage.input.unwrap_or(0).saturating_add(usage.tool_prompt.unwrap_or(0));
        o.uint("input_tokens", input);
        let written = usage.cache_write.unwrap_or(0);
        o.uint("cache_creation_input_tokens", written);
        o.uint("cache_read_input_tokens", usage.cache_read.unwrap_or(0));
        if let Some(hour) = usage.cache_write_hour {
            o.object("cache_creation", |o| {
                o.uint("ephemeral_5m_input_tokens", written.saturating_sub(hour));
                o.uint("ephemeral_1h_input_tokens", hour);
            });
        }
        o.uint("output_tokens", usage.output.unwrap_or(0));
        if let Some(thinking) = usage.reasoning {
            o.object("output_tokens_details", |o| o.uint("thinking_tokens", thinking));
        }
    });
}

/// What was shown of an answer, as far as its stop reason depends on it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown {
    /// A call.
    pub(super) call: bool,
    /// A refusal in words.
    pub(super) refusal: bool,
}

/// Writes `stop_reason`, `stop_sequence` and, with the vendor's words, `stop_details`.
pub(super) fn write_stop(
    o: &mut json::Object<'_>,
    finish: Option<Finish>,
    detail: Option<&str>,
    shown: Shown,
) {
    let finish = match finish.unwrap_or(Finish::End) {
        // The client only runs calls of an answer that ended for them.
        Finish::End | Finish::BadCall if shown.call => Finish::Tool,
        Finish::End | Finish::BadCall if shown.refusal => Finish::Refusal,
        Finish::Tool if !shown.call => Finish::End,
        other => other,
    };
    let word = stop_reason(finish);
    o.str("stop_reason", word);
    o.nullable_str("stop_sequence", detail.filter(|_| finish == Finish::StopSequence));
    if let (Finish::Refusal | Finish::Filter, Some(detail)) = (finish, detail) {
        o.object("stop_details", |o| {
            o.str("type", "refusal");
            o.null("category");
            o.str("explanation", detail);
        });
    }
}

/// The input of a call as the text of an object, whatever the upstream sent.
pub(super) fn input(kind: ToolKind, arguments: &str) -> String {
    let call = ToolCall {
        id: Str::default(),
        name: Str::default(),
        namespace: None,
        kind,
        arguments: Cow::Borrowed(arguments),
        signature: None,
        cache: None,
    };
    call.object().into_owned()
}

/// Whether a citation can be told to a client: one of a page on the web. Those of documents point into the
/// request of the vendor that made them.
pub(super) fn is_shown(citation: &Citation<'_>) -> bool {
    !citation.url.is_empty()
}

/// A citation. Its `encrypted_index`, by which the API finds its own search result again, is empty: that is
/// how [`super::patch_messages`] knows the ones that the API must not see.
pub(super) fn write_citation(o: &mut json::Object<'_>, citation: &Citation<'_>) {
    o.str("type", "web_search_result_location");
    o.str("cited_text", &citation.quote);
    o.str("url", &citation.url);
    o.nullable_str("title", Some(citation.title.as_ref()).filter(|title| !title.is_empty()));
    o.str("encrypted_index", "");
}

/// Whether an item of a built-in tool is one of this format.
pub(super) fn is_own_item(kind: &str) -> bool {
    const OTHERS: [&str; 7] = [
        "server_tool_use",
        "mcp_tool_use",
        "container_upload",
        "compaction",
        "fallback",
        "mcp_tool_listing",
        "tool_reference",
    ];
    kind.ends_with("_tool_result") || OTHERS.contains(&kind)
}

/// What stands for a picture, which this format cannot show.
pub(super) fn picture(mime: &str) -> String {
    format!("[image: {mime}]")
}
