//! What the chunks of a stream and a whole body share.
//!
//! Enters: parts of an answer. Leaves: members as the official SDK types have them. May go wrong: nothing.

use crate::ir::{Citation, Context, Finish, Usage};
use crate::json::{Array, Object, write_escaped};

/// Who answers: the same on every chunk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ids {
    /// With the prefix of the format.
    pub(crate) id: String,
    /// The client's name of the model where the route promises it, else the upstream's.
    pub(crate) model: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
}

impl Ids {
    /// `id`, `model` and `created` are the upstream's; `prefix` is what ids of this format begin with.
    pub(crate) fn new(prefix: &str, id: &str, model: &str, created: Option<u64>, context: &Context) -> Self {
        let id = if id.is_empty() { &context.seed } else { id };
        Self {
            id: if id.starts_with(prefix) { id.to_owned() } else { format!("{prefix}{id}") },
            model: if context.model.is_empty() { model.to_owned() } else { context.model.clone() },
            created: created.unwrap_or(context.created),
        }
    }

    /// Writes `id`, `object`, `created` and `model`.
    pub(crate) fn write(&self, object: &str, o: &mut Object<'_>) {
        o.str("id", &self.id);
        o.str("object", object);
        o.uint("created", self.created);
        o.str("model", &self.model);
    }
}

/// Prefix of ids.
pub(super) const PREFIX: &str = "chatcmpl-";

/// Writes `usage`. The three totals are required members: unknown ones are 0.
pub(crate) fn usage(usage: &Usage, o: &mut Object<'_>) {
    o.object("usage", |o| {
        o.uint("prompt_tokens", usage.prompt());
        o.uint("completion_tokens", usage.output.unwrap_or(0));
        o.uint("total_tokens", usage.total());
        if usage.cache_read.is_some() || usage.cache_write.is_some() {
            o.object("prompt_tokens_details", |o| {
                o.uint("cached_tokens", usage.cache_read.unwrap_or(0));
                if let Some(written) = usage.cache_write {
                    o.uint("cache_write_tokens", written);
                }
            });
        }
        if let Some(reasoning) = usage.reasoning {
            o.object("completion_tokens_details", |o| o.uint("reasoning_tokens", reasoning));
        }
    });
}

/// What a choice held, as far as its finish reason depends on it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    /// Calls in `tool_calls`.
    pub(super) calls: bool,
    /// A call in legacy `function_call`.
    pub(super) legacy: bool,
    /// Words of refusal.
    pub(super) refusal: bool,
}

/// `finish_reason`. A limit or filter wins over calls, because a cut call must not be made; otherwise calls
/// decide, and there is no `tool_calls` without them.
pub(super) fn finish(reason: Finish, held: Held) -> &'static str {
    match reason {
        Finish::Length | Finish::Context => "length",
        Finish::Filter => "content_filter",
        Finish::Refusal if !held.refusal || held.calls || held.legacy => "content_filter",
        _ if held.legacy => "function_call",
        _ if held.calls => "tool_calls",
        _ => "stop",
    }
}

/// Writes an element of `annotations`. Sources without a URL have no place in the format. `offset` stands in
/// for positions that the upstream did not give: where the text block began. In streams each element has its
/// `index`: the official SDK merges elements of arrays in deltas by it, and fails without one.
pub(super) fn annotation(citation: &Citation<'_>, offset: u64, index: Option<u32>, a: &mut Array<'_>) {
    if citation.url.is_empty() {
        return;
    }
    let start = citation.start.unwrap_or(offset);
    a.object(|o| {
        o.str("type", "url_citation");
        if let Some(index) = index {
            o.uint("index", u64::from(index));
        }
        o.object("url_citation", |o| {
            o.str("url", &citation.url);
            o.str("title", &citation.title);
            o.uint("start_index", start);
            o.uint("end_index", citation.end.unwrap_or(start).max(start));
        });
    });
}

/// Writes an element of `images`, the de-facto member for pictures.
pub(super) fn image(mime: &str, data: &str, index: u32, a: &mut Array<'_>) {
    a.object(|o| {
        o.str("type", "image_url");
        o.uint("index", u64::from(index));
        o.object("image_url", |o| {
            let out = o.key("url");
            out.push(b'"');
            for piece in ["data:", mime, ";base64,", data] {
                write_escaped(out, piece);
            }
            out.push(b'"');
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_decide_unless_the_answer_was_cut() {
        let none = Held::default();
        let calls = Held { calls: true, ..none };
        let refusal = Held { refusal: true, ..none };
        for (reason, held, word) in [
            (Finish::End, none, "stop"),
            (Finish::End, calls, "tool_calls"),
            (Finish::Tool, none, "stop"),
            (Finish::Length, calls, "length"),
            (Finish::Context, none, "length"),
            (Finish::Filter, calls, "content_filter"),
            (Finish::Refusal, none, "content_filter"),
            (Finish::Refusal, refusal, "stop"),
            (Finish::StopSequence, none, "stop"),
            (Finish::Pause, none, "stop"),
            (Finish::BadCall, none, "stop"),
            (Finish::BadCall, calls, "tool_calls"),
            (Finish::End, Held { legacy: true, ..none }, "function_call"),
        ] {
            assert_eq!(finish(reason, held), word, "{reason:?} {held:?}");
        }
    }

    #[test]
    fn ids_keep_their_prefix_and_made_ones_get_it() {
        let context = Context { seed: "ab".into(), created: 7, ..Context::default() };
        let id = |id: &str| Ids::new(PREFIX, id, "m", None, &context).id;
        assert_eq!(
            (id("chatcmpl-1"), id("msg_1"), id("")),
            ("chatcmpl-1".into(), "chatcmpl-msg_1".into(), "chatcmpl-ab".into())
        );
        let shown = Context { model: "alias".into(), ..context };
        let ids = Ids::new(PREFIX, "", "m", Some(9), &shown);
        assert_eq!((ids.model.as_str(), ids.created), ("alias", 9));
    }

    #[test]
    fn prompt_figures_include_what_is_cached() {
        let counts = Usage {
            input: Some(10),
            cache_read: Some(80),
            cache_write: Some(5),
            output: Some(7),
            reasoning: Some(3),
            ..Usage::default()
        };
        let mut out = Vec::new();
        crate::json::object(&mut out, |o| usage(&counts, o));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"usage":{"prompt_tokens":95,"completion_tokens":7,"total_tokens":102,"prompt_tokens_details":{"cached_tokens":80,"cache_write_tokens":5},"completion_tokens_details":{"reasoning_tokens":3}}}"#
        );
    }
}
