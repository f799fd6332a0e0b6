//! `/v1/messages/count_tokens`.
//!
//! Enters: a request of any format, or a body of this one. Leaves: the body of a count, and from its answer
//! the number. The API refuses members of an answer here: limits, sampling, `stream`, `metadata`.
//! May go wrong: an answer without a number ([`read_count`] gives `None`).

use super::write_request::{self, Purpose};
use crate::error::WireError;
use crate::head::Head;
use crate::ir::{Context, Losses, Request};
use crate::json;
use crate::target::Target;
use serde::Deserialize;
use std::borrow::Cow;

/// Members of `/v1/messages` that the count refuses.
const REFUSED: [&str; 8] =
    ["max_tokens", "metadata", "service_tier", "stop_sequences", "stream", "temperature", "top_k", "top_p"];

/// IR → body of a count. `request` has been made fit with [`super::RULES`].
pub fn write_count_request(
    request: &Request<'_>,
    target: &Target<'_>,
    _context: &mut Context,
    losses: &mut Losses,
) -> Result<Vec<u8>, WireError> {
    Ok(write_request::write_for(Purpose::Count, request, target, losses))
}

/// Client body → upstream body of a count, changed on its bytes.
pub fn patch_count_request<'a>(
    body: &'a [u8],
    head: &Head,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Cow<'a, [u8]>, WireError> {
    Ok(super::patch_request::patch(body, head, target, &REFUSED, losses))
}

#[derive(Deserialize)]
struct Count {
    input_tokens: Option<u64>,
}

/// The number in the upstream's answer.
pub fn read_count(body: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Count>(body).ok()?.input_tokens
}

/// The answer with `tokens`.
pub fn write_count(tokens: u64) -> Vec<u8> {
    let mut out = Vec::new();
    json::object(&mut out, |o| o.uint("input_tokens", tokens));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;
    use crate::target::{Card, Profile};
    use crate::thinking::Mode;

    fn target(card: &Card) -> Target<'_> {
        let thinking = Some(Mode::Budget(2000));
        Target { profile: Profile::Claude, model: "claude-x", card, stream: true, thinking, project: "" }
    }

    #[test]
    fn a_count_has_no_members_of_an_answer() {
        let body = br#"{"model":"x","max_tokens":9,"stream":true,"temperature":1,"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":"hi"}]}"#;
        let mut losses = Losses::default();
        let request = super::super::read_request(body, &mut losses).unwrap();
        let card = Card::default();
        let out =
            write_count_request(&request, &target(&card), &mut Context::default(), &mut losses).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"model":"claude-x","system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"thinking":{"type":"enabled","budget_tokens":2000}}"#
        );
    }

    #[test]
    fn the_clients_own_count_loses_only_what_is_refused() {
        let body =
            br#"{ "model":"x", "max_tokens":9,"stream":true, "messages":[{"role":"user","content":"hi"}] }"#;
        let head = crate::head::parse(body, Protocol::Claude).unwrap();
        let card = Card::default();
        let target = Target { thinking: None, ..target(&card) };
        let out = patch_count_request(body, &head, &target, &mut Losses::default()).unwrap();
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            r#"{ "model":"claude-x", "messages":[{"role":"user","content":"hi"}] }"#
        );
    }

    #[test]
    fn the_number_is_read_and_written() {
        assert_eq!(read_count(br#"{"input_tokens":31,"x":1}"#), Some(31));
        assert_eq!(read_count(br#"{"error":{}}"#), None);
        assert_eq!(read_count(b"<html>"), None);
        assert_eq!(write_count(31), br#"{"input_tokens":31}"#);
    }
}
