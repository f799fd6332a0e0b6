//! `usage` of a Chat upstream → counts.
//!
//! Enters: the official members and what servers put in their place. Leaves: [`Usage`]; what was not said
//! stays unknown. May go wrong: nothing.

use super::chunk::Counts;
use crate::ir::Usage;

/// Counts in which nothing includes anything else but output.
pub(super) fn usage(counts: &Counts) -> Usage {
    let prompt = counts.prompt_tokens_details.as_ref();
    let read = prompt
        .and_then(|details| details.cached_tokens.0)
        .or(counts.prompt_cache_hit_tokens.0)
        .or(counts.cached_tokens.0)
        .or(counts.cache_read_input_tokens.0);
    let write =
        prompt.and_then(|details| details.cache_write_tokens.0).or(counts.cache_creation_input_tokens.0);
    let reasoning = counts.completion_tokens_details.as_ref().and_then(|d| d.reasoning_tokens.0);
    let mut usage = Usage { cache_read: read, cache_write: write, reasoning, ..Usage::default() };
    if let Some(prompt) = counts.prompt_tokens.0 {
        usage.set_prompt_including_cache(prompt);
    }
    usage.output = output(counts, reasoning);
    usage
}

/// Output with reasoning: a few servers count it beside `completion_tokens`, which the total gives away.
fn output(counts: &Counts, reasoning: Option<u64>) -> Option<u64> {
    let prompt = counts.prompt_tokens.0.unwrap_or(0);
    let Some(completion) = counts.completion_tokens.0 else {
        return counts.total_tokens.0.map(|total| total.saturating_sub(prompt));
    };
    let apart = completion.saturating_add(reasoning.unwrap_or(0));
    let counted_apart = counts.total_tokens.0 == Some(prompt.saturating_add(apart));
    Some(if counted_apart { apart } else { completion })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_servers_that_count_otherwise() {
        let read = |text: &str| usage(&serde_json::from_str(text).unwrap());
        assert_eq!(read("{}"), Usage::default());
        let deepseek = read(r#"{"prompt_tokens":10,"completion_tokens":2,"prompt_cache_hit_tokens":4}"#);
        assert_eq!((deepseek.input, deepseek.cache_read), (Some(6), Some(4)));
        // Reasoning beside the completion.
        let apart = read(
            r#"{"prompt_tokens":10,"completion_tokens":2,"total_tokens":17,"completion_tokens_details":{"reasoning_tokens":5}}"#,
        );
        assert_eq!((apart.output, apart.reasoning), (Some(7), Some(5)));
        let more_cached = read(r#"{"prompt_tokens":5,"cached_tokens":9}"#);
        assert_eq!((more_cached.input, more_cached.output), (Some(0), None));
        assert_eq!(read(r#"{"prompt_tokens":3.0,"total_tokens":"x","completion_tokens":-1}"#).input, Some(3));
        assert_eq!(read(r#"{"prompt_tokens":3,"total_tokens":5}"#).output, Some(2));
    }
}
