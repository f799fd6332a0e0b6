//! What the body for Gemini needs beyond the IR: the shape of the picture.
//!
//! Enters: a written body and the client's. Leaves: the written body with `imageConfig.aspectRatio`. May go
//! wrong: a size that has no ratio near it is left out and recorded.
//!
//! Source: Gemini API, "Image generation": ratios, not pixels, are what the models take.

use super::members::members;
use crate::head::Head;
use crate::ir::{LossKind, Losses};
use crate::patch::{self, Patch};

/// The ratios of Gemini's image models.
const RATIOS: [(u32, u32); 10] =
    [(1, 1), (2, 3), (3, 2), (3, 4), (4, 3), (4, 5), (5, 4), (9, 16), (16, 9), (21, 9)];
/// How far a size may be from a ratio: `1792x1024` stands for 16:9.
const NEAR: f64 = 0.03;

/// Puts the size that `client` asks for into `written`.
pub(crate) fn with_image_config(
    written: Vec<u8>,
    client: &[u8],
    head: &Head,
    losses: &mut Losses,
) -> Vec<u8> {
    let found = members(client, head).unwrap_or_default();
    let size = found.iter().find(|(key, _)| key == "size").and_then(|(_, value)| value.as_str());
    let Some(size) = size.filter(|size| !matches!(*size, "" | "auto")) else { return written };
    let Some((width, height)) = ratio(size) else {
        losses.member(LossKind::Setting, "size");
        return written;
    };
    let config = format!("{{\"aspectRatio\":\"{width}:{height}\"}}");
    let mut patch = Patch::new(&written);
    let start = |from: usize, key: &[u8]| {
        patch::members(&written, from).find(|member| member.key == key).map(|member| member.value.start)
    };
    // Google's other backends have the request in an envelope.
    let body = start(0, b"request").unwrap_or(0);
    match start(body, b"generationConfig") {
        Some(at) => patch.set(at, "imageConfig", config),
        None => patch.set(body, "generationConfig", format!("{{\"imageConfig\":{config}}}")),
    }
    patch.apply()
}

/// The ratio that a size such as `1536x1024` stands for.
fn ratio(size: &str) -> Option<(u32, u32)> {
    let (width, height) = size.split_once(['x', 'X', ':'])?;
    let (width, height): (u32, u32) = (width.trim().parse().ok()?, height.trim().parse().ok()?);
    if width == 0 || height == 0 {
        return None;
    }
    let wanted = f64::from(width) / f64::from(height);
    let distance = |(w, h): &(u32, u32)| (wanted * f64::from(*h) / f64::from(*w)).ln().abs();
    let nearest = RATIOS.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
    (distance(nearest) <= NEAR).then_some(*nearest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    #[test]
    fn sizes_become_ratios() {
        for (size, expected) in [
            ("1024x1024", Some((1, 1))),
            ("1536x1024", Some((3, 2))),
            ("1024x1536", Some((2, 3))),
            ("1792x1024", Some((16, 9))),
            ("16:9", Some((16, 9))),
            ("5000x1000", None),
            ("0x1", None),
            ("big", None),
        ] {
            assert_eq!(ratio(size), expected, "{size}");
        }
    }

    #[test]
    fn the_ratio_goes_where_the_body_has_its_configuration() {
        let client = br#"{"model":"m","size":"1024x1536"}"#;
        let head = crate::head::parse(client, Protocol::OpenaiChat).unwrap();
        for (written, expected) in [
            (
                r#"{"contents":[],"generationConfig":{"a":1}}"#,
                r#"{"contents":[],"generationConfig":{"imageConfig":{"aspectRatio":"2:3"},"a":1}}"#,
            ),
            (
                r#"{"request":{"contents":[]}}"#,
                r#"{"request":{"generationConfig":{"imageConfig":{"aspectRatio":"2:3"}},"contents":[]}}"#,
            ),
        ] {
            let out = with_image_config(written.into(), client, &head, &mut Losses::default());
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
