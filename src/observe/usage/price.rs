//! What a request cost.
//!
//! Enters: the operator's prices and the tokens of a request. Leaves: a [`Cost`], or nothing where no price fits:
//! a model without a price is not free. Nothing may go wrong; what is too much is the most there is.
//!
//! A cost is taken down with its request and stays what it was when prices change: that is what was paid.

use config::{ModelPrice, Price};
use wildmatch::WildMatchPattern;
use wire::ir::Usage;

/// Prices, ready to be looked up.
#[derive(Debug, Default)]
pub struct Prices(Vec<Rates>);

/// What a request cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// In billionths of a USD.
    pub nano_usd: u64,
}

/// Prices of one token, in millionths of a millionth of a USD.
#[derive(Debug)]
struct Rates {
    model: WildMatchPattern<'*', '\0'>,
    provider: String,
    input: u64,
    cached: u64,
    cache_write: u64,
    output: u64,
    reasoning: u64,
}

impl Rates {
    fn new(price: &ModelPrice) -> Self {
        let pico = |price: Option<Price>| price.map(Price::pico_usd);
        let (input, output) = (pico(price.input).unwrap_or(0), pico(price.output).unwrap_or(0));
        Self {
            model: WildMatchPattern::new(&price.model),
            provider: price.provider.clone(),
            input,
            cached: pico(price.cached).unwrap_or(input),
            cache_write: pico(price.cache_write).unwrap_or(input),
            output,
            reasoning: pico(price.reasoning).unwrap_or(output),
        }
    }
}

impl Prices {
    /// The prices of a configuration.
    pub fn new(prices: &[ModelPrice]) -> Self {
        Self(prices.iter().map(Rates::new).collect())
    }

    /// What `usage` of a model costs; `None`: no price fits.
    pub fn cost(&self, provider: &str, model: &str, usage: &Usage) -> Option<Cost> {
        if self.0.is_empty() || model.is_empty() {
            return None;
        }
        let model = model.to_lowercase();
        let fits = |rates: &&Rates| {
            (rates.provider.is_empty() || rates.provider == provider) && rates.model.matches(&model)
        };
        let rates = self.0.iter().find(fits)?;
        let count = |tokens: Option<u64>| tokens.unwrap_or(0);
        let output = count(usage.output);
        let reasoning = count(usage.reasoning).min(output);
        let sum: u128 = [
            (count(usage.input), rates.input),
            (count(usage.tool_prompt), rates.input),
            (count(usage.cache_read), rates.cached),
            (count(usage.cache_write), rates.cache_write),
            (output - reasoning, rates.output),
            (reasoning, rates.reasoning),
        ]
        .into_iter()
        .map(|(tokens, price)| u128::from(tokens) * u128::from(price))
        .sum();
        // To the next one, so that many small requests do not cost nothing.
        Some(Cost { nano_usd: u64::try_from(sum.div_ceil(1000)).unwrap_or(u64::MAX) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(text: &str) -> Prices {
        Prices::new(&config::load(format!("prices: {text}").as_bytes()).unwrap().config.logging.prices)
    }

    fn usage() -> Usage {
        Usage {
            input: Some(1000),
            cache_read: Some(400),
            cache_write: Some(200),
            output: Some(300),
            reasoning: Some(100),
            ..Usage::default()
        }
    }

    fn cost(text: &str, provider: &str, model: &str) -> Option<u64> {
        prices(text).cost(provider, model, &usage()).map(|cost| cost.nano_usd)
    }

    #[test]
    fn every_kind_of_token_has_its_price() {
        let all = "[{model: 'gpt-*', input: 1, cached: 0.1, cache-write: 2, output: 10, reasoning: 20}]";
        let micro = 1000 + 40 + 400 + 2000 + 2000;
        assert_eq!(cost(all, "codex", "GPT-5"), Some(micro * 1000));
        let two = "[{model: 'gpt-*', input: 1, output: 10}]";
        assert_eq!(cost(two, "codex", "gpt-5"), Some((1600 + 3000) * 1000));
        assert_eq!(cost(two, "codex", "claude"), None, "not free, but unknown");
        assert_eq!(cost(two, "codex", ""), None);
        assert_eq!(cost("[{model: '*', input: 0, output: 0}]", "p", "m"), Some(0));
        assert_eq!(cost("[]", "p", "m"), None);
    }

    #[test]
    fn the_first_that_fits_counts_and_a_provider_may_have_its_own() {
        let text = "[{model: '*', provider: relay, input: 5, output: 5}, {model: m, input: 1, output: 1}]";
        assert_eq!(cost(text, "relay", "m"), Some(1900 * 5000));
        assert_eq!(cost(text, "other", "m"), Some(1900 * 1000));
    }

    #[test]
    fn small_and_huge_sums_stay_in_bounds() {
        let one = Usage { input: Some(1), ..Usage::default() };
        let nano = |text: &str, usage: &Usage| prices(text).cost("p", "m", usage).map(|cost| cost.nano_usd);
        assert_eq!(nano("[{model: m, input: 0.0001, output: 0}]", &one), Some(1));
        let huge = Usage { input: Some(u64::MAX), output: Some(u64::MAX), ..Usage::default() };
        assert_eq!(nano("[{model: m, input: 1000000, output: 1000000}]", &huge), Some(u64::MAX));
        let odd = Usage { output: Some(1), reasoning: Some(9), ..Usage::default() };
        assert_eq!(nano("[{model: m, input: 0, output: 1}]", &odd), Some(1000), "of one token");
    }
}
