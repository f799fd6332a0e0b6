//! Sources and log probabilities of an answer, which are rare and stay JSON text until here.
//!
//! Enters: `groundingMetadata`, `citationMetadata`, `logprobsResult`. Leaves: citations with positions in
//! characters, and elements of Chat `logprobs.content`. May go wrong: another structure gives nothing; the
//! text is delivered anyway.
//!
//! Google counts positions in bytes of a part; clients of other formats count characters of the text.

use super::chunk::Words;
use crate::ir::Citation;
use crate::json;
use serde::Deserialize;

/// Most passages whose positions are worked out: each costs a walk over the text.
pub(super) const MAX_SOURCES: usize = 256;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Grounding<'a> {
    #[serde(borrow)]
    grounding_chunks: Vec<GroundingChunk<'a>>,
    #[serde(borrow)]
    grounding_supports: Vec<Support<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct GroundingChunk<'a> {
    #[serde(borrow)]
    web: Option<Place<'a>>,
    #[serde(borrow)]
    maps: Option<Place<'a>>,
    #[serde(borrow)]
    retrieved_context: Option<Place<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Place<'a> {
    #[serde(borrow)]
    uri: Words<'a>,
    #[serde(borrow)]
    title: Words<'a>,
    #[serde(borrow)]
    document_name: Words<'a>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Support<'a> {
    #[serde(borrow)]
    segment: Option<Segment<'a>>,
    grounding_chunk_indices: Vec<usize>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Segment<'a> {
    start_index: usize,
    end_index: Option<usize>,
    #[serde(borrow)]
    text: Words<'a>,
}

/// The sources of `groundingMetadata` for a text block that says `text`.
pub(super) fn grounding<'a>(raw: &'a str, text: &str, mut each: impl FnMut(Citation<'a>)) {
    let Ok(grounding) = serde_json::from_str::<Grounding<'a>>(raw) else { return };
    let places: Vec<Option<Place<'a>>> = grounding
        .grounding_chunks
        .into_iter()
        .map(|chunk| chunk.web.or(chunk.maps).or(chunk.retrieved_context))
        .collect();
    let mut supported = vec![false; places.len()];
    for support in grounding.grounding_supports.iter().take(MAX_SOURCES) {
        let segment = support.segment.as_ref();
        let range = segment.and_then(|s| characters(text, s.start_index, s.end_index?));
        for index in support.grounding_chunk_indices.iter().take(MAX_SOURCES) {
            let Some(place) = places.get(*index).and_then(Option::as_ref) else { continue };
            if let Some(seen) = supported.get_mut(*index) {
                *seen = true;
            }
            let mut citation = place.citation();
            citation.quote = segment.map(|s| s.text.0.clone()).unwrap_or_default();
            (citation.start, citation.end) = (range.map(|r| r.0), range.map(|r| r.1));
            each(citation);
        }
    }
    // Sources that no passage refers to are sources still.
    for (place, _) in places.iter().zip(supported).filter(|(_, seen)| !seen) {
        if let Some(place) = place {
            each(place.citation());
        }
    }
}

impl<'a> Place<'a> {
    fn citation(&self) -> Citation<'a> {
        Citation {
            url: self.uri.0.clone(),
            title: self.title.0.clone(),
            document: self.document_name.0.clone(),
            ..Citation::default()
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Citations<'a> {
    #[serde(borrow, alias = "citationSources")]
    citations: Vec<Source<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Source<'a> {
    start_index: usize,
    end_index: Option<usize>,
    #[serde(borrow)]
    uri: Words<'a>,
    #[serde(borrow)]
    title: Words<'a>,
}

/// The sources of `citationMetadata` (recitation) for a text block that says `text`.
pub(super) fn citations<'a>(raw: &'a str, text: &str, mut each: impl FnMut(Citation<'a>)) {
    let Ok(all) = serde_json::from_str::<Citations<'a>>(raw) else { return };
    for source in all.citations.into_iter().take(MAX_SOURCES) {
        let range = source.end_index.and_then(|end| characters(text, source.start_index, end));
        each(Citation {
            url: source.uri.0,
            title: source.title.0,
            start: range.map(|r| r.0),
            end: range.map(|r| r.1),
            ..Citation::default()
        });
    }
}

/// Byte positions → character positions.
fn characters(text: &str, start: usize, end: usize) -> Option<(u64, u64)> {
    let before = text.get(..start)?.chars().count() as u64;
    let inside = text.get(start..end)?.chars().count() as u64;
    Some((before, before + inside))
}

/// Character positions → byte positions.
pub(super) fn bytes(text: &str, start: u64, end: u64) -> Option<(usize, usize)> {
    let at = |n: u64| {
        let n = usize::try_from(n).ok()?;
        text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(n)
    };
    let (from, to) = (at(start)?, at(end)?);
    (from <= to).then_some((from, to))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Logprobs<'a> {
    #[serde(borrow)]
    chosen_candidates: Vec<Token<'a>>,
    #[serde(borrow)]
    top_candidates: Vec<Top<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Top<'a> {
    #[serde(borrow)]
    candidates: Vec<Token<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Token<'a> {
    #[serde(borrow)]
    token: Words<'a>,
    log_probability: f64,
}

impl Token<'_> {
    fn write(&self, o: &mut json::Object<'_>) {
        o.str("token", &self.token);
        o.float("logprob", self.log_probability);
        o.null("bytes");
    }
}

/// `logprobsResult` → elements of Chat `logprobs.content`, as JSON array text.
pub(super) fn logprobs(raw: &str) -> Option<String> {
    let result: Logprobs<'_> = serde_json::from_str(raw).ok()?;
    if result.chosen_candidates.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    json::array(&mut out, |a| {
        for (n, token) in result.chosen_candidates.iter().enumerate() {
            a.object(|o| {
                token.write(o);
                o.array("top_logprobs", |a| {
                    let top = result.top_candidates.get(n).map(|top| top.candidates.as_slice());
                    top.unwrap_or_default().iter().for_each(|token| a.object(|o| token.write(o)));
                });
            });
        }
    });
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grounding_gives_urls_and_positions_in_characters() {
        let text = "Größe: 5 m.";
        let raw = r#"{"groundingChunks":[{"web":{"uri":"https://a","title":"A"}},{"web":{"uri":"https://b"}}],"groundingSupports":[{"segment":{"startIndex":9,"endIndex":12,"text":"5 m"},"groundingChunkIndices":[0,7]}]}"#;
        let mut found = Vec::new();
        grounding(raw, text, |c| found.push(c));
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].url.as_ref(), found[0].title.as_ref()), ("https://a", "A"));
        assert_eq!((found[0].start, found[0].end), (Some(7), Some(10)));
        assert_eq!((found[1].url.as_ref(), found[1].start), ("https://b", None));
        assert_eq!(bytes(text, 7, 10), Some((9, 12)));
        assert_eq!(bytes(text, 7, 99), None);
    }

    #[test]
    fn positions_inside_a_character_are_left_out() {
        let mut found = Vec::new();
        citations(r#"{"citations":[{"startIndex":0,"endIndex":1,"uri":"u"}]}"#, "é", |c| found.push(c));
        assert_eq!((found[0].url.as_ref(), found[0].end), ("u", None));
    }

    #[test]
    fn log_probabilities_become_chat_elements() {
        let raw = r#"{"chosenCandidates":[{"token":"a","logProbability":-0.5,"tokenId":3}],"topCandidates":[{"candidates":[{"token":"b","logProbability":-1}]}]}"#;
        assert_eq!(
            logprobs(raw).unwrap(),
            r#"[{"token":"a","logprob":-0.5,"bytes":null,"top_logprobs":[{"token":"b","logprob":-1.0,"bytes":null}]}]"#
        );
        assert_eq!(logprobs("[]"), None);
    }
}
