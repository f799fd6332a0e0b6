//! What tokens cost.
//!
//! Enters: elements of `prices`. Leaves: [`ModelPrice`]. May go wrong: a price that is no number from 0 to a
//! million; entries without model, input or output are left out by [`crate::check`], with a warning.

use crate::read::{quoted, word};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Highest price in USD for a million tokens: more is a mistake of units.
const MOST: f64 = 1_000_000.0;

/// Prices of models, in USD for a million tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ModelPrice {
    /// Which: the upstream's names, `*` stands for anything.
    pub model: String,
    /// Only with this provider; empty: with all.
    pub provider: String,
    /// Tokens of requests. Always there once the file is loaded.
    pub input: Option<Price>,
    /// Tokens of answers. Always there once the file is loaded.
    pub output: Option<Price>,
    /// Tokens of requests that were read from a cache; `None`: as `input`.
    pub cached: Option<Price>,
    /// Tokens of requests that were written to a cache; `None`: as `input`.
    pub cache_write: Option<Price>,
    /// Tokens of answers that are reasoning; `None`: as `output`.
    pub reasoning: Option<Price>,
}

/// A price of a million tokens, in millionths of a USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price(u64);

impl Price {
    /// What one token costs, in millionths of a millionth of a USD.
    pub fn pico_usd(self) -> u64 {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let usd: f64 = text.parse().ok()?;
        (0.0..=MOST).contains(&usd).then(|| Self((usd * 1e6).round() as u64))
    }
}

impl Serialize for Price {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_f64(self.0 as f64 / 1e6)
    }
}

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        word(input, |text| {
            Self::parse(text).ok_or_else(|| {
                format!("expected USD for a million tokens, such as 1.25, found {}", quoted(text))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::load;

    #[test]
    fn prices_are_numbers_and_entries_are_whole() {
        let text = "prices:\n- {model: 'gpt-5*', input: 1.25, output: 10, cached: .125, reasoning: 1e1}\n\
                    - {model: free, input: 0, output: 0}\n- {input: 1, output: 2}\n- {model: m, input: 1}\n";
        let loaded = load(text.as_bytes()).unwrap();
        let prices = &loaded.config.logging.prices;
        assert_eq!(prices.len(), 2);
        let pico = |price: Option<super::Price>| price.map(super::Price::pico_usd);
        assert_eq!((pico(prices[0].input), pico(prices[0].cached)), (Some(1_250_000), Some(125_000)));
        assert_eq!((pico(prices[0].cache_write), pico(prices[0].reasoning)), (None, Some(10_000_000)));
        let told: Vec<_> = loaded.warnings.iter().map(|notice| notice.path.as_str()).collect();
        assert_eq!(told, ["prices[2]", "prices[3]"]);
        let shown = loaded.config.redacted();
        assert_eq!(load(shown.as_bytes()).unwrap().config.logging.prices, *prices);
        for wrong in ["-1", "1000001", "nan", "inf", "cheap", "[]"] {
            let text = format!("prices: [{{model: m, output: 1, input: {wrong}}}]");
            let told = load(text.as_bytes()).unwrap_err().to_string();
            assert!(told.contains("prices[0].input"), "{wrong}: {told}");
        }
    }
}
