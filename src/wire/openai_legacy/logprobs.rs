//! Log probabilities of Chat → those of completions.
//!
//! Enters: elements of Chat `logprobs.content`, as JSON array text. Leaves: the parallel arrays of the legacy
//! format. May go wrong: text that is no such array gives nothing.

use crate::json::{Json, Object, parse_any};

/// Tokens of one piece of text.
#[derive(Debug, Default)]
pub(super) struct Tokens<'t> {
    /// Token, its log probability, and its alternatives.
    tokens: Vec<Json<'t>>,
}

impl<'t> Tokens<'t> {
    /// Adds the elements of an array.
    pub(super) fn add(&mut self, text: &'t str) {
        if let Ok(Json::Array(items)) = parse_any(text.as_bytes()) {
            self.tokens.extend(items);
        }
    }

    /// Writes `logprobs`. `offset` is the number of characters before the first token, and moves on.
    pub(super) fn write(&self, offset: &mut u64, o: &mut Object<'_>) {
        if self.tokens.is_empty() {
            return o.null("logprobs");
        }
        let text = |item: &Json<'t>| item.get("token").and_then(Json::as_str).unwrap_or_default().to_owned();
        let chance = |item: &Json<'t>| item.get("logprob").and_then(Json::as_f64).unwrap_or(0.0);
        o.object("logprobs", |o| {
            o.array("tokens", |a| self.tokens.iter().for_each(|item| a.str(&text(item))));
            o.array("token_logprobs", |a| {
                self.tokens.iter().for_each(|item| a.value(&Json::Float(chance(item))));
            });
            o.array("top_logprobs", |a| {
                for item in &self.tokens {
                    a.object(|o| {
                        let others = item.get("top_logprobs").and_then(Json::as_array).unwrap_or_default();
                        for other in others {
                            o.float(&text(other), chance(other));
                        }
                    });
                }
            });
            o.array("text_offset", |a| {
                for item in &self.tokens {
                    a.value(&Json::Uint(*offset));
                    *offset += text(item).chars().count() as u64;
                }
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_become_parallel_arrays() {
        let mut tokens = Tokens::default();
        tokens.add(
            r#"[{"token":"é ","logprob":-0.5,"top_logprobs":[{"token":"b","logprob":-1.5}]},{"token":"c","logprob":-2}]"#,
        );
        let (mut out, mut offset) = (Vec::new(), 3);
        crate::json::object(&mut out, |o| tokens.write(&mut offset, o));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"logprobs":{"tokens":["é ","c"],"token_logprobs":[-0.5,-2.0],"top_logprobs":[{"b":-1.5},{}],"text_offset":[3,5]}}"#
        );
        assert_eq!(offset, 6);
    }

    #[test]
    fn nothing_is_null() {
        let mut tokens = Tokens::default();
        tokens.add("broken");
        let mut out = Vec::new();
        crate::json::object(&mut out, |o| tokens.write(&mut 0, o));
        assert_eq!(out, br#"{"logprobs":null}"#);
    }
}
