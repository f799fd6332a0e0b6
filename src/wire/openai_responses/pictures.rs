//! What events and answers tell of pictures beyond their bytes: sketches, how they were drawn, what they cost.
//! Only the Images API shows it, so it is no part of the IR.
//!
//! Enters: an event, or a whole response. Leaves: a [`Glimpse`] where it is about pictures. May go wrong:
//! nothing; what cannot be read tells nothing.

use super::event::{Raw, list, number, object, text};
use serde::Deserialize;
use std::borrow::Cow;

/// How a picture was drawn; empty where the upstream does not say.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Drawing<'a> {
    pub(crate) revised_prompt: Cow<'a, str>,
    pub(crate) size: Cow<'a, str>,
    pub(crate) quality: Cow<'a, str>,
    pub(crate) background: Cow<'a, str>,
    pub(crate) output_format: Cow<'a, str>,
}

/// What an event tells.
#[derive(Debug, PartialEq)]
pub(crate) enum Glimpse<'a> {
    /// A picture that is not finished.
    Sketch {
        /// Its number among the sketches.
        index: u64,
        /// Base64.
        data: Cow<'a, str>,
        /// How it is drawn.
        drawing: Drawing<'a>,
    },
    /// A picture is finished.
    Drawn(Drawing<'a>),
    /// The answer is complete.
    End {
        /// How its pictures were drawn, in order.
        drawings: Vec<Drawing<'a>>,
        /// `tool_usage.image_gen`, as sent.
        usage: Option<&'a str>,
    },
}

#[derive(Default, Deserialize)]
struct Wire<'a> {
    #[serde(borrow, rename = "type")]
    kind: Raw<'a>,
    #[serde(borrow)]
    partial_image_b64: Raw<'a>,
    #[serde(borrow)]
    partial_image_index: Raw<'a>,
    #[serde(borrow)]
    item: Raw<'a>,
    #[serde(borrow)]
    response: Raw<'a>,
}

#[derive(Default, Deserialize)]
struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Raw<'a>,
    #[serde(borrow)]
    result: Raw<'a>,
    #[serde(borrow)]
    revised_prompt: Raw<'a>,
    #[serde(borrow)]
    size: Raw<'a>,
    #[serde(borrow)]
    quality: Raw<'a>,
    #[serde(borrow)]
    background: Raw<'a>,
    #[serde(borrow)]
    output_format: Raw<'a>,
}

#[derive(Default, Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    output: Raw<'a>,
    #[serde(borrow)]
    tool_usage: Raw<'a>,
}

#[derive(Default, Deserialize)]
struct ToolUsage<'a> {
    #[serde(borrow)]
    image_gen: Raw<'a>,
}

/// Looks at an event.
pub(crate) fn of_event(data: &[u8]) -> Option<Glimpse<'_>> {
    memchr::memmem::find(data, b"image_gen")?;
    let event: Wire<'_> = serde_json::from_slice(data).ok()?;
    match text(event.kind).as_ref() {
        "response.image_generation_call.partial_image" => {
            let members: Item<'_> = serde_json::from_slice(data).ok()?;
            let data = text(event.partial_image_b64);
            let index = number(event.partial_image_index).unwrap_or(0);
            (!data.is_empty()).then(|| Glimpse::Sketch { index, data, drawing: drawing(&members) })
        }
        "response.output_item.done" => drawn(event.item).map(Glimpse::Drawn),
        "response.completed" | "response.done" | "response.incomplete" => Some(end(event.response)),
        _ => None,
    }
}

/// Looks at a whole response.
pub(crate) fn of_answer(body: &[u8]) -> Option<Glimpse<'_>> {
    serde_json::from_slice(body).ok().map(|raw| end(Some(raw)))
}

fn end(raw: Raw<'_>) -> Glimpse<'_> {
    let response: Response<'_> = object(raw);
    let usage: ToolUsage<'_> = object(response.tool_usage);
    Glimpse::End {
        drawings: list(response.output).into_iter().filter_map(|item| drawn(Some(item))).collect(),
        usage: usage.image_gen.map(serde_json::value::RawValue::get).filter(|raw| raw.starts_with('{')),
    }
}

/// An item that holds a picture.
fn drawn(raw: Raw<'_>) -> Option<Drawing<'_>> {
    let item: Item<'_> = object(raw);
    let holds = text(item.kind) == "image_generation_call" && !text(item.result).is_empty();
    holds.then(|| drawing(&item))
}

fn drawing<'a>(item: &Item<'a>) -> Drawing<'a> {
    Drawing {
        revised_prompt: text(item.revised_prompt),
        size: text(item.size),
        quality: text(item.quality),
        background: text(item.background),
        output_format: text(item.output_format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_tell_of_pictures_only() {
        assert_eq!(of_event(br#"{"type":"response.output_text.delta","delta":"x"}"#), None);
        assert_eq!(of_event(br#"{"type":"response.output_item.done","item":{"type":"image_generation_call","result":null}}"#), None);
        let sketch = br#"{"type":"response.image_generation_call.partial_image","partial_image_index":1,"partial_image_b64":"AA","size":"1x1"}"#;
        let Some(Glimpse::Sketch { index: 1, data, drawing }) = of_event(sketch) else { panic!() };
        assert_eq!((data.as_ref(), drawing.size.as_ref()), ("AA", "1x1"));
    }

    #[test]
    fn an_answer_tells_how_and_at_what_cost() {
        let body = br#"{"output":[{"type":"message"},{"type":"image_generation_call","result":"AA","revised_prompt":"r","quality":"low"}],"tool_usage":{"image_gen":{"input_tokens":1}}}"#;
        let Some(Glimpse::End { drawings, usage }) = of_answer(body) else { panic!() };
        assert_eq!((drawings.len(), usage), (1, Some(r#"{"input_tokens":1}"#)));
        assert_eq!((drawings[0].revised_prompt.as_ref(), drawings[0].quality.as_ref()), ("r", "low"));
    }
}
