//! A whole answer → `response` object: the one with which the stream would have ended.
//!
//! Enters: a folded answer. Leaves: the body. May go wrong: nothing; an answer that broke is `failed`.
//!
//! The items are numbered in the order in which their blocks opened; the stream's in that of their first
//! content. These are the same unless a reader opens a block, then another, and fills the first one later.

use super::ids::response_id;
use super::write_output::{Outcome, Shown, items, mark_cut};
use crate::ir::{Answer, Context};

/// Writes the body.
pub(super) fn write_answer(answer: &Answer, context: &Context) -> Vec<u8> {
    let choice = answer.choices.first();
    let mut output = items(choice.map(|choice| choice.blocks.as_slice()).unwrap_or_default(), &context.seed);
    let outcome = Outcome::of(choice.and_then(|choice| choice.finish), &output);
    mark_cut(&mut output, outcome);
    let failure = answer.failure.as_ref();
    let shown = Shown {
        id: &response_id(&answer.id, context),
        model: if context.model.is_empty() { &answer.model } else { &context.model },
        created: answer.created.unwrap_or(context.created),
        status: if failure.is_some() { "failed" } else { outcome.status },
        reason: outcome.reason.filter(|_| failure.is_none()),
        error: failure,
        output: &output,
        usage: (failure.is_none() || !answer.usage.is_unknown()).then_some(&answer.usage),
        context,
    };
    let mut out = Vec::new();
    shown.write(&mut out);
    out
}
