//! Token counts. Formats differ in what includes what; here nothing includes anything but `output`.
//!
//! | | prompt figure | output figure |
//! |---|---|---|
//! | Chat, Responses | input + read + write (+ tool prompt) | output (with reasoning) |
//! | Claude | input only | output (with thinking) |
//! | Gemini | input + read + write, tool prompt beside it | output − reasoning, thoughts beside it |

/// Counts of one answer. `None` is "the upstream did not say", which is not 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens that were neither read from nor written to a cache.
    pub input: Option<u64>,
    /// Prompt tokens read from a cache.
    pub cache_read: Option<u64>,
    /// Prompt tokens written to a cache, all lifetimes.
    pub cache_write: Option<u64>,
    /// Of [`Self::cache_write`]: with a lifetime of an hour (Claude).
    pub cache_write_hour: Option<u64>,
    /// Output tokens, reasoning included.
    pub output: Option<u64>,
    /// Of [`Self::output`]: reasoning.
    pub reasoning: Option<u64>,
    /// Gemini `toolUsePromptTokenCount`.
    pub tool_prompt: Option<u64>,
}

impl Usage {
    /// Whether the upstream said nothing.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// All prompt tokens: the figure of Chat and Responses.
    pub fn prompt(&self) -> u64 {
        [self.input, self.cache_read, self.cache_write, self.tool_prompt]
            .into_iter()
            .flatten()
            .fold(0, u64::saturating_add)
    }

    /// Prompt and output tokens.
    pub fn total(&self) -> u64 {
        self.prompt().saturating_add(self.output.unwrap_or(0))
    }

    /// Sets [`Self::input`] from a prompt figure that includes what is cached, clamped at 0: some servers
    /// report more cached tokens than prompt tokens.
    pub fn set_prompt_including_cache(&mut self, prompt: u64) {
        let cached = self.cache_read.unwrap_or(0).saturating_add(self.cache_write.unwrap_or(0));
        self.input = Some(prompt.saturating_sub(cached));
    }

    /// Takes over a later report of the same answer. Reports are cumulative, so the later figure wins; a
    /// zero never erases a figure, because Claude's last event may repeat only the output.
    pub fn merge(&mut self, later: &Self) {
        let take = |mine: &mut Option<u64>, theirs: Option<u64>| match (*mine, theirs) {
            (Some(old), Some(0)) if old > 0 => {}
            (_, Some(new)) => *mine = Some(new),
            (_, None) => {}
        };
        take(&mut self.input, later.input);
        take(&mut self.cache_read, later.cache_read);
        take(&mut self.cache_write, later.cache_write);
        take(&mut self.cache_write_hour, later.cache_write_hour);
        take(&mut self.output, later.output);
        take(&mut self.reasoning, later.reasoning);
        take(&mut self.tool_prompt, later.tool_prompt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p39_missing_is_not_zero_and_zero_does_not_erase() {
        let mut usage = Usage { input: Some(20), cache_read: Some(80), ..Usage::default() };
        usage.merge(&Usage { input: Some(0), output: Some(7), ..Usage::default() });
        assert_eq!(
            usage,
            Usage { input: Some(20), cache_read: Some(80), output: Some(7), ..Usage::default() }
        );
        assert_eq!((usage.prompt(), usage.total()), (100, 107));
        assert!(Usage::default().is_unknown());
    }

    #[test]
    fn more_cached_than_prompt_is_clamped() {
        let mut usage = Usage { cache_read: Some(90), ..Usage::default() };
        usage.set_prompt_including_cache(50);
        assert_eq!(usage.input, Some(0));
    }
}
