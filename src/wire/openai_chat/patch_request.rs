//! Chat body → Chat body: changed on its bytes, so that the provider's prompt cache still knows it.
//!
//! Enters: a body whose head has been read. Leaves: the same bytes but for the model's name, the request for
//! a usage event on streams, and thinking that a model-name suffix or the model's facts decide; borrowed when
//! nothing changes. May go wrong: a Responses body that came to this path is translated and may be refused.

use super::read_request::is_responses;
use super::read_thinking::MEMBERS;
use super::write_request::effort;
use super::{RULES, read_request, write_request};
use crate::error::WireError;
use crate::head::Head;
use crate::ir::{Context, LossKind, Losses, lower};
use crate::json;
use crate::patch::{Patch, scanned};
use crate::target::Target;
use crate::thinking::Support;
use std::borrow::Cow;

/// An effort that some clients write and the API refuses.
const AUTO: &[u8] = b"\"auto\"";

/// Client body → upstream body of the same format.
pub(super) fn patch<'a>(
    body: &'a [u8],
    head: &Head,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Cow<'a, [u8]>, WireError> {
    let present: Vec<_> =
        scanned(body, &head.members).filter(|m| body.get(m.value.clone()) != Some(b"null")).collect();
    let has = |key: &str| present.iter().any(|member| member.key == key.as_bytes());
    if is_responses(has) {
        return translate(body, target, losses).map(Cow::Owned);
    }
    let mut patch = Patch::scanned(body, &head.members);
    if let Some(span) = head.model_span.clone() {
        let name = json::string(target.model);
        if body.get(span.clone()) != Some(name.as_bytes()) {
            patch.replace(span, name);
        }
    }
    if head.stream && !target.stream {
        patch.remove(0, "stream");
        patch.remove(0, "stream_options");
    } else if target.stream && !head.include_usage {
        let options = present.iter().find(|member| member.key == b"stream_options");
        match options {
            Some(options) if body.get(options.value.start) == Some(&b'{') => {
                patch.set(options.value.start, "include_usage", *b"true");
            }
            _ => patch.set(0, "stream_options", br#"{"include_usage":true}"#.to_vec()),
        }
    }
    if let Some(mode) = target.thinking {
        // What was planned overrides the body in all its spellings; two that disagree are refused upstream.
        MEMBERS.iter().filter(|key| has(key)).for_each(|key| patch.remove(0, key));
        if let Some(word) = effort(mode) {
            patch.set(0, "reasoning_effort", json::string(word));
        }
    } else if target.card.thinking == Support::Never {
        for key in MEMBERS.iter().filter(|key| has(key)) {
            patch.remove(0, key);
            losses.member(LossKind::Setting, key);
        }
    } else if present.iter().any(|m| m.key == b"reasoning_effort" && body.get(m.value.clone()) == Some(AUTO))
    {
        // The API says it by silence.
        patch.remove(0, "reasoning_effort");
    }
    Ok(if patch.is_empty() { Cow::Borrowed(body) } else { Cow::Owned(patch.apply()) })
}

/// A Responses body at the Chat path. The answer is relayed as it comes, so names that had to be changed for
/// this API stay changed.
fn translate(body: &[u8], target: &Target<'_>, losses: &mut Losses) -> Result<Vec<u8>, WireError> {
    let mut context = Context::default();
    let mut request = read_request(body, losses)?;
    let (asked, support) = (request.thinking.mode, &target.card.thinking);
    let mut planned = || crate::thinking::plan(asked, support, crate::Protocol::OpenaiChat, losses);
    let thinking = target.thinking.or_else(&mut planned);
    lower::lower(&mut request, &RULES, &mut context, losses);
    let target = Target { thinking, ..*target };
    write_request(&request, &target, &mut context, losses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;
    use crate::head;
    use crate::target::{Card, Profile};
    use crate::thinking::{Level, Mode};
    use proptest::prelude::*;

    fn run(body: &str, model: &str, stream: bool, thinking: Option<Mode>, card: &Card) -> String {
        let head = head::parse(body.as_bytes(), Protocol::OpenaiChat).unwrap();
        let target = Target { profile: Profile::Chat, model, card, stream, thinking, project: "" };
        let out = patch(body.as_bytes(), &head, &target, &mut Losses::default()).unwrap();
        String::from_utf8(out.into_owned()).unwrap()
    }

    fn plain(body: &str, model: &str, stream: bool) -> String {
        run(body, model, stream, None, &Card::default())
    }

    #[test]
    fn p33_nothing_to_change_borrows() {
        let body = br#"{ "model" : "m", "messages":[] , "n":1.0}"#;
        let head = head::parse(body, Protocol::OpenaiChat).unwrap();
        let card = Card::default();
        let target = Target {
            profile: Profile::Chat,
            model: "m",
            card: &card,
            stream: false,
            thinking: None,
            project: "",
        };
        let out = patch(body, &head, &target, &mut Losses::default()).unwrap();
        assert!(matches!(out, Cow::Borrowed(same) if same == body));
    }

    #[test]
    fn only_what_has_to_change_changes() {
        assert_eq!(
            plain(r#"{"messages": [ {"content" : "a\u00e9"} ],"model":"alias", "x":1.50}"#, "real", false),
            r#"{"messages": [ {"content" : "a\u00e9"} ],"model":"real", "x":1.50}"#
        );
        assert_eq!(
            plain(r#"{"model":"m","messages":[],"stream":true}"#, "m", true),
            r#"{"stream_options":{"include_usage":true},"model":"m","messages":[],"stream":true}"#
        );
        for options in ["null", "{}", r#"{"include_usage":false}"#] {
            let body = format!(r#"{{"model":"m","messages":[],"stream":true,"stream_options":{options}}}"#);
            let out = plain(&body, "m", true);
            assert_eq!(
                out,
                r#"{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true}}"#
            );
        }
        assert_eq!(
            plain(r#"{"model":"m","messages":[],"stream_options":{"x":1}}"#, "m", true),
            r#"{"model":"m","messages":[],"stream_options":{"include_usage":true,"x":1}}"#
        );
    }

    #[test]
    fn a_suffix_overrides_every_spelling() {
        let body =
            r#"{"model":"m(high)","reasoning":{"effort":"low"},"messages":[],"reasoning_effort":"low"}"#;
        let out = run(body, "m", false, Some(Mode::Level(Level::High)), &Card::default());
        assert_eq!(out, r#"{"model":"m","messages":[],"reasoning_effort":"high"}"#);
        let out = run(r#"{"model":"m","messages":[]}"#, "m", false, Some(Mode::Off), &Card::default());
        assert_eq!(out, r#"{"reasoning_effort":"none","model":"m","messages":[]}"#);
    }

    #[test]
    fn a_model_that_does_not_think_is_not_asked_to() {
        let card = Card { thinking: Support::Never, ..Card::default() };
        let body = r#"{"model":"m","reasoning_effort":"low","messages":[]}"#;
        assert_eq!(run(body, "m", false, None, &card), r#"{"model":"m","messages":[]}"#);
    }

    proptest! {
        #[test]
        fn p33_members_that_are_not_named_stay_byte_for_byte(
            extra in prop::collection::vec(("[u-z]{2,5}", prop_oneof![Just("1.50e1"), Just("[ 1,{} ]"), Just("\"\\u0061\"")]), 0..5),
            stream: bool,
        ) {
            let inner: Vec<String> = extra.iter().map(|(k, v)| format!(", \"{k}\" : {v}")).collect();
            let inner = inner.concat();
            let body = format!("{{\"model\":\"a\",\"messages\":[ ]{inner}}}");
            let out = plain(&body, "b", stream);
            let tail = format!("\"model\":\"b\",\"messages\":[ ]{inner}}}");
            prop_assert!(out.ends_with(&tail));
        }
    }
}
