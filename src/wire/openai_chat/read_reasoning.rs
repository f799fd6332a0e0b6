//! Thinking in the history of a Chat body.
//!
//! Enters: OpenRouter's `reasoning_details`, or plain text. Leaves: reasoning parts with the signatures that
//! the vendor of the model needs to see again. May go wrong: types.

use crate::error::WireError;
use crate::ir::{LossKind, Losses, Part, Reasoning, Str};
use crate::json::{Json, Path};
use crate::signature::Signature;
use crate::typed::{each_object, string};

/// Text without proof.
pub(super) fn plain(text: Str<'_>) -> Part<'_> {
    Part::Reasoning(Reasoning { text: vec![text], ..Reasoning::default() })
}

/// `reasoning_details`: `reasoning.text` (with a signature), `reasoning.summary` and `reasoning.encrypted`.
pub(super) fn details<'a>(
    value: Json<'a>,
    at: &Path<'_>,
    losses: &mut Losses,
) -> Result<Vec<Part<'a>>, WireError> {
    let details = each_object(value, at, |map, at| {
        let (mut kind, mut text, mut signature, mut data, mut format) =
            (Str::default(), Str::default(), Str::default(), Str::default(), Str::default());
        for (key, value) in map.0 {
            let at = at.key(&key);
            match key.as_ref() {
                _ if value.is_null() => {}
                "type" => kind = string(value, &at)?,
                "text" | "summary" => text = string(value, &at)?,
                "signature" => signature = string(value, &at)?,
                "data" => data = string(value, &at)?,
                "format" => format = string(value, &at)?,
                "id" | "index" => {}
                _ => losses.at(LossKind::UnknownMember, &at),
            }
        }
        let mut reasoning = Reasoning::default();
        if !text.is_empty() {
            reasoning.text.push(text);
        }
        if kind == "reasoning.encrypted" && format.starts_with("anthropic") {
            reasoning.redacted = (!data.is_empty()).then_some(data);
        } else {
            reasoning.signature = Signature::detect(signature).or_else(|| Signature::detect(data));
        }
        Ok(Part::Reasoning(reasoning))
    })?;
    Ok(details)
}
