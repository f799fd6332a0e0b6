//! `countTokens`.
//!
//! Enters: a request, or the body of a client of the same format; the upstream's answer. Leaves: the body of
//! `:countTokens`, and the number. May go wrong: an answer without a number is `None`, for the caller to
//! estimate.
//!
//! The public API counts a whole `generateContentRequest`. The Code Assist backends count `contents` only:
//! instructions go in front of them as text, tools are not counted.

use super::flavour::Flavour;
use super::write_contents::write_conversation;
use super::{camel, envelope, patch_request, write_tools};
use crate::error::WireError;
use crate::head::Head;
use crate::ir::{Context, Losses, Request, Role, Text, Turn};
use crate::json;
use crate::patch::{Patch, members};
use crate::target::Target;
use std::borrow::Cow;

/// IR → body of `:countTokens`.
pub fn write_count_request(
    request: &Request<'_>,
    target: &Target<'_>,
    context: &mut Context,
    losses: &mut Losses,
) -> Result<Vec<u8>, WireError> {
    let flavour = Flavour::of(target);
    let mut out = Vec::new();
    json::object(&mut out, |o| {
        if flavour.wrapped() {
            let request = system_as_text(request);
            o.object("request", |o| {
                o.str("model", &resource(target.model));
                write_conversation(o, &request, flavour, losses);
            });
        } else {
            o.object("generateContentRequest", |o| {
                o.str("model", &resource(target.model));
                write_conversation(o, request, flavour, losses);
                write_tools::write_tools(o, request, target, context, losses);
            });
        }
    });
    Ok(out)
}

/// Client body → body of `:countTokens`, changed on its bytes.
pub fn patch_count_request<'a>(
    body: &'a [u8],
    _head: &Head,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Cow<'a, [u8]>, WireError> {
    let flavour = Flavour::of(target);
    let bare = envelope::unwrap_client_envelope(body).and_then(|span| body.get(span)).unwrap_or(body);
    let whole = members(bare, 0)
        .find(|member| camel(&String::from_utf8_lossy(member.key)) == "generateContentRequest")
        .and_then(|member| bare.get(member.value));
    let request = patch_request::patch_bare(whole.unwrap_or(bare), flavour, target, losses);
    let model = json::string(&resource(target.model));
    if !flavour.wrapped() && whole.is_none() {
        return Ok(request);
    }
    let mut out = Vec::with_capacity(request.len() + 128);
    json::object(&mut out, |o| {
        if flavour.wrapped() {
            let contents = members(&request, 0).find(|member| member.key == b"contents");
            let contents = contents.and_then(|member| request.get(member.value)).unwrap_or(b"[]");
            o.object("request", |o| {
                o.key("model").extend_from_slice(model.as_bytes());
                o.key("contents").extend_from_slice(contents);
            });
        } else {
            let mut patch = Patch::new(&request);
            patch.set(0, "model", model);
            o.key("generateContentRequest").extend_from_slice(&patch.apply());
        }
    });
    Ok(Cow::Owned(out))
}

/// The number in an upstream's answer.
pub fn read_count(body: &[u8]) -> Option<u64> {
    let value = json::parse_any(body).ok()?;
    let total = envelope::inner(&value, "response").get("totalTokens")?;
    total.as_u64().or_else(|| total.as_str()?.parse().ok())
}

/// The answer for a client of this format.
pub fn write_count(tokens: u64) -> Vec<u8> {
    let mut out = Vec::new();
    json::object(&mut out, |o| o.uint("totalTokens", tokens));
    out
}

fn resource(model: &str) -> String {
    if model.starts_with("models/") { model.to_owned() } else { format!("models/{model}") }
}

/// The request with its instructions as the first thing the user says.
fn system_as_text<'a>(request: &Request<'a>) -> Request<'a> {
    let mut request = request.clone();
    let system = std::mem::take(&mut request.system);
    if !system.is_empty() {
        let parts = system.into_iter().map(|line| crate::ir::Part::Text(Text::plain(line.text))).collect();
        request.turns.insert(0, Turn::new(Role::User, parts));
    }
    request
}

#[cfg(test)]
mod tests {
    use super::super::flavour::tests::target;
    use super::*;
    use crate::target::{Card, Profile};

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn counts_are_read_and_written() {
        assert_eq!(read_count(br#"{"totalTokens":31,"promptTokensDetails":[]}"#), Some(31));
        assert_eq!(read_count(br#"{"response":{"totalTokens":"31"}}"#), Some(31));
        assert_eq!(read_count(br#"{"error":{}}"#), None);
        assert_eq!(read_count(b"<html>"), None);
        assert_eq!(write_count(7), br#"{"totalTokens":7}"#);
    }

    #[test]
    fn requests_are_counted_as_each_backend_counts() {
        static CARD: std::sync::LazyLock<Card> = std::sync::LazyLock::new(Card::default);
        let body =
            br#"{"systemInstruction":{"parts":[{"text":"S"}]},"contents":[{"parts":[{"text":"hi"}]}]}"#;
        let request = super::super::read_request(body, &mut Losses::default()).unwrap();
        let write = |profile| {
            let target = target(profile, "gemini-2.5-pro", &CARD);
            write_count_request(&request, &target, &mut Context::default(), &mut Losses::default()).unwrap()
        };
        assert_eq!(
            text(&write(Profile::Gemini)),
            r#"{"generateContentRequest":{"model":"models/gemini-2.5-pro","systemInstruction":{"parts":[{"text":"S"}]},"contents":[{"role":"user","parts":[{"text":"hi"}]}]}}"#
        );
        assert_eq!(
            text(&write(Profile::GeminiCli)),
            r#"{"request":{"model":"models/gemini-2.5-pro","contents":[{"role":"user","parts":[{"text":"S"},{"text":"hi"}]}]}}"#
        );
        let patch = |profile, body: &'static [u8]| {
            let target = target(profile, "gemini-2.5-pro", &CARD);
            let head = crate::head::parse(body, crate::Protocol::Gemini).unwrap();
            patch_count_request(body, &head, &target, &mut Losses::default()).unwrap().into_owned()
        };
        let plain = br#"{ "contents":[{"parts":[{"text":"hi"}]}] }"#;
        assert_eq!(patch(Profile::Gemini, plain), plain);
        assert_eq!(
            text(&patch(Profile::Antigravity, plain)),
            r#"{"request":{"model":"models/gemini-2.5-pro","contents":[{"parts":[{"text":"hi"}]}]}}"#
        );
        assert_eq!(
            text(&patch(
                Profile::Gemini,
                br#"{"generateContentRequest":{"model":"models/alias","contents":[]}}"#
            )),
            r#"{"generateContentRequest":{"model":"models/gemini-2.5-pro","contents":[]}}"#
        );
    }
}
